/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Stores and plugins of the small world, and the shell around a core: what it asks for is answered at
 * once.  See small.h.
 */
#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "common/util.h"
#include "tests/sim/small_private.h"

static struct group_actions acts;
static struct group_action queue[256];
static unsigned n_queue;

void
small_store_info (unsigned n, struct store_info *info)
{
  const struct small_store *st = &small.store[small_site_of (n)];

  memset (info, 0, sizeof *info);
  info->has_super = info->agrees_ids = true;
  info->clean = st->clean;
  info->unusable = st->unusable;
  info->generation = st->generation;
  info->tenure = st->tenure;
  memcpy (info->lineage, small.recovered && !st->past ? small_recovered.lineage : small_created.lineage, CRG_ID_LEN);
  info->size = 1 << 20;
  info->can_host = st->open_by == 0 || st->open_by == n + 1;
}

static uint8_t
set_of (const struct iasp_rec *r)
{
  uint8_t set = 0;

  for (unsigned s = 0; s < small_sites; s++)
    if (r->copies[s].in_set)
      set |= (uint8_t) (1u << s);
  return set;
}

void
small_stop_plugin (unsigned n, bool graceful)
{
  struct small_plugin *p = &small.plugin[n];

  if (p->role != HOST_NONE) {
    small.store[small_site_of (n)].open_by = 0;
    small.store[small_site_of (n)].clean |= graceful;
  }
  memset (p, 0, sizeof *p);
}

/* C9: a store of the set, of the lineage before, is ours; another is a fork (R6). */
static bool
is_of_lineage (unsigned n, const struct crg_state *c)
{
  struct small_store *st = &small.store[small_site_of (n)];
  const uint8_t *lineage = small.recovered && !st->past ? small_recovered.lineage : small_created.lineage;

  if (memcmp (c->lineage, lineage, CRG_ID_LEN) == 0)
    return true;
  if (!c->rec[0].copies[small_site_of (n)].in_set || c->n_past == 0 || memcmp (c->past[0], lineage, CRG_ID_LEN) != 0)
    return false;
  st->past = false;
  return true;
}

static void
do_host (unsigned n, const struct group_action *a)
{
  struct small_plugin *p = &small.plugin[n];
  struct small_store *st = &small.store[small_site_of (n)];
  struct group_event ev = { .kind = GE_HOSTED, .role = a->role, .tenure = a->tenure };
  const struct crg_state *c = group_committed (small_group[n]);

  ev.ok = true;
  if (a->role == HOST_NONE)
    small_stop_plugin (n, true);
  else {
    uint32_t ids[SMALL_NODES];
    unsigned votes = 0;

    /* C4 */
    for (unsigned k = 0; k < small_nodes; k++) {
      const struct crg_state *s = small_state_of (k);

      if (s != NULL && memcmp (s->lineage, c->lineage, CRG_ID_LEN) == 0 && stamp_compare (s->stamp, c->stamp) >= 0)
        ids[votes++] = k + 1;
    }
    if (!state_has_majority (c, ids, votes))
      small_failed ("C4: told to host without a majority", n);
    if ((st->open_by != 0 && st->open_by != n + 1) || !is_of_lineage (n, c))
      ev.ok = false;
    else {
      uint64_t seq = p->seq;

      memset (p, 0, sizeof *p);
      p->seq = seq;
      st->open_by = (uint8_t) (n + 1);
      st->clean = false;
      p->role = a->role;
      p->tenure = a->tenure;
      if (a->role == HOST_PRODUCTION) {
        p->until_ms = a->until_ms;
        p->set = set_of (&c->rec[0]);
        st->tenure = a->tenure;
      }
    }
  }
  small_store_info (n, &ev.store);
  if (!ev.ok)
    snprintf (ev.reason, sizeof ev.reason, "locked");
  small_feed (n, &ev);
}

/* The node that a production mirrors to at a site, if it hears it; a copy keeps the highest tenure
 * that it has seen (R1). */
int
small_reach (unsigned n, unsigned site)
{
  const struct small_plugin *p = &small.plugin[n];
  const unsigned k = p->mirror[site] - 1u;

  if (p->mirror[site] == 0 || small.plugin[k].role != HOST_MIRROR || small.part[k] != small.part[n]
      || small.plugin[k].tenure > p->tenure)
    return -1;
  /* A cut in one direction ends a connection; a stopped crgd does not. */
  if (small.silent[n] > SILENT_PAUSED || small.silent[k] > SILENT_PAUSED)
    return -1;
  small.plugin[k].tenure = p->tenure;
  return (int) k;
}

void
small_say (unsigned n, unsigned site, enum group_event_kind kind)
{
  struct small_plugin *p = &small.plugin[n];
  struct group_event ev = { .kind = kind, .site = (uint8_t) site, .seq = ++p->seq };

  if (kind == GE_COPY_READY)
    p->ready_seq[site] = ev.seq;
  small_feed (n, &ev);
}

/* Production has filled the copy: it may enter the set (R3). */
void
small_fill (unsigned n, unsigned site)
{
  struct small_plugin *p = &small.plugin[n];
  struct small_store *st = &small.store[site];

  if (p->role != HOST_PRODUCTION || !small_acts (n) || p->held || site == small_site_of (n)
      || ((p->set | p->ready) & (1u << site)) || small_reach (n, site) < 0)
    return;
  st->unusable = false;
  st->behind = small.store[small_site_of (n)].behind;
  st->generation = small.store[small_site_of (n)].generation;
  st->tenure = p->tenure;
  p->ready |= (uint8_t) (1u << site);
  small_say (n, site, GE_COPY_READY);
}

static void
take_record (unsigned n, const struct group_action *a)
{
  struct small_plugin *p = &small.plugin[n];
  const struct iasp_rec *r = &group_committed (small_group[n])->rec[0];

  if (p->role != HOST_PRODUCTION)
    return;
  p->set = set_of (r);
  small.store[small_site_of (n)].generation = r->generation;
  for (unsigned s = 0; s < small_sites; s++) {
    const uint8_t bit = (uint8_t) (1u << s);

    /* R3: only a record that covers the event tells its outcome. */
    if ((p->set & bit) || a->seq >= p->ready_seq[s])
      p->ready &= (uint8_t) ~bit;
    if ((p->set & bit) && s != small_site_of (n) && small_reach (n, s) >= 0)
      small.store[s].generation = r->generation;
  }
  p->lost &= p->set | p->ready;
}

static void
step (unsigned n, struct group_event *ev)
{
  ev->now_ms = small.now_ms;
  group_step (small_group[n], ev, &acts);
  for (unsigned i = 0; i < acts.n; i++) {
    const struct group_action *a = &acts.a[i];

    switch (a->kind) {
    case GA_SEND:
      small_send (n, acts.bytes + a->off, a->len);
      break;
    case GA_HOST:
    case GA_PROBE:
    case GA_MIRROR_START:
    case GA_HOLD:
      assert (n_queue < ARRAY_SIZE (queue));
      queue[n_queue++] = *a;
      break;
    case GA_UNMIRROR:
      small.plugin[n].mirror[a->site] = 0;
      break;
    case GA_LEASE:
      small.plugin[n].until_ms = MAX (small.plugin[n].until_ms, a->until_ms);
      break;
    case GA_RECORD:
      take_record (n, a);
      break;
    case GA_LEAVE:
      small.leaving[n] = (uint8_t) (1 + a->role);
      break;
    case GA_RESUME:
      small.plugin[n].held = small.plugin[n].drain = false;
      break;
    }
  }
}

/* F6: held, and all that the copies of the set have to have is there, or one does not answer in time. */
void
small_drain (unsigned n)
{
  struct small_plugin *p = &small.plugin[n];
  struct group_event ev = { .kind = GE_DRAINED, .ok = true };

  if (!p->drain || !small_acts (n) || !small_has_lease (n))
    return;
  for (unsigned s = 0; s < small_sites; s++)
    if (s != small_site_of (n) && ((p->set | p->ready) & (1u << s)) && small_reach (n, s) < 0) {
      if (p->away[s] < 2)
        return;
      ev.ok = false;
    }
  p->drain = false;
  small_feed (n, &ev);
}

void
small_feed (unsigned n, struct group_event *ev)
{
  struct group_event probe;

  step (n, ev);
  while (n_queue > 0) {
    struct group_action a = queue[0];

    memmove (queue, queue + 1, --n_queue * sizeof queue[0]);
    if (small.leaving[n])
      continue;
    if (a.kind == GA_HOST)
      do_host (n, &a);
    else if (a.kind == GA_HOLD) {
      if (small.plugin[n].role == HOST_PRODUCTION) {
        small.plugin[n].held = small.plugin[n].drain = true;
        small_drain (n);
      }
    }
    else if (a.kind == GA_MIRROR_START) {
      if (small.plugin[n].role == HOST_PRODUCTION) {
        small.plugin[n].mirror[a.site] = (uint8_t) a.node;
        small_fill (n, a.site);
      }
    } else {
      memset (&probe, 0, sizeof probe);
      probe.kind = GE_PROBE;
      small_store_info (n, &probe.store);
      probe.ok = probe.store.can_host;
      step (n, &probe);
    }
  }
}
