/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The small world; see small.h.  One thread; all of it is static.
 */
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/util.h"
#include "tests/sim/small.h"

#define MESSAGES 8192
#define NO_MESSAGE UINT16_MAX

struct message {
  uint8_t from; /* node + 1; 0: a view */
  uint8_t members;
  uint32_t view;
  uint32_t at, len; /* in the arena */
  uint64_t hash;
};

struct small_disk {
  struct crg_state state;
  uint64_t promised;
};

/* A message 6 that was accepted, or a commit that was seen. */
struct fact {
  uint64_t key, value;
  uint64_t sum; /* of it and all before, in whatever order */
};

struct small small;
unsigned small_nodes, small_sites;
struct group *small_group[SMALL_NODES];
char small_failure[256];
uint64_t small_steps;

static struct small_disk *disk[SMALL_NODES];
static struct message message[MESSAGES];
static uint8_t arena[8 << 20];
static struct group_actions acts;
static struct crg_state created;
static unsigned per_site;
static struct fact facts[1u << 16];
static uint64_t n_facts;

#define FNV UINT64_C (1469598103934665603)

static uint64_t
mix (uint64_t h, const void *p, size_t n)
{
  const uint8_t *b = p;
  uint64_t v;

  for (; n >= 8; n -= 8, b += 8) {
    memcpy (&v, b, 8);
    h = (h ^ v) * UINT64_C (0x9e3779b97f4a7c15);
    h ^= h >> 29;
  }
  for (; n > 0; n--)
    h = (h ^ *b++) * UINT64_C (1099511628211);
  return h;
}

void
small_failed (const char *what, unsigned n)
{
  if (small_failure[0] == 0)
    snprintf (small_failure, sizeof small_failure, "%s: n%u at %" PRIu64 " ms", what, n + 1, small.now_ms);
}

/* The site of a node; a replicate has none. */
static unsigned
site_of (unsigned n)
{
  return n < small_sites * per_site ? n / per_site : NO_SITE;
}

/* ---- what a group core is ------------------------------------------------------------------ */

/* All of `struct group` that decides, but for its peers: no operator asks for anything here, the
 * definition stays as it was made, and there is one IASP.  Counters, reports and scratch decide
 * nothing. */
static struct { size_t at, len; } range[9];
static unsigned n_ranges;
#define PEER_LEN offsetof (struct peer, report_len)

static void
add_range (size_t from, size_t to)
{
  range[n_ranges].at = from;
  range[n_ranges++].len = to - from;
}

static void
make_ranges (void)
{
  const struct group *g = NULL;
  const size_t nodes = small_nodes * sizeof g->applied.def.nodes[0], iasp = offsetof (struct iasp_def, store);

  n_ranges = 0;
  add_range (0, offsetof (struct group, applied.def.nodes) + nodes);
  add_range (offsetof (struct group, applied.def.iasps), offsetof (struct group, applied.def.iasps) + iasp);
  add_range (offsetof (struct group, applied.rec), offsetof (struct group, applied.rec) + sizeof g->applied.rec[0]);
  add_range (offsetof (struct group, has_committed), offsetof (struct group, committed.def.nodes) + nodes);
  add_range (offsetof (struct group, committed.def.iasps), offsetof (struct group, committed.def.iasps) + iasp);
  add_range (offsetof (struct group, committed.rec), offsetof (struct group, committed.rec) + sizeof g->applied.rec[0]);
  add_range (offsetof (struct group, view), offsetof (struct group, peers));
  add_range (offsetof (struct group, host), offsetof (struct group, host) + sizeof g->host[0]);
  add_range (offsetof (struct group, lease), offsetof (struct group, lease) + sizeof g->lease[0]);
}

size_t
small_save_len (void)
{
  size_t len = CRG_MAX_NODES * PEER_LEN
               + offsetof (struct group, requests) - offsetof (struct group, alive_ms)
               + offsetof (struct group, report_len) - offsetof (struct group, sw);

  for (unsigned i = 0; i < n_ranges; i++)
    len += range[i].len;
  return len;
}

/* The rest: what is behind the leases, up to the operators' requests, and behind those. */
static const struct { size_t at, len; } rest[2] = {
  { offsetof (struct group, alive_ms), offsetof (struct group, requests) - offsetof (struct group, alive_ms) },
  { offsetof (struct group, sw), offsetof (struct group, report_len) - offsetof (struct group, sw) },
};

void
small_save (unsigned n, uint8_t *to)
{
  const struct group *g = small_group[n];

  for (unsigned i = 0; i < n_ranges; to += range[i++].len)
    memcpy (to, (const uint8_t *) g + range[i].at, range[i].len);
  for (unsigned i = 0; i < ARRAY_SIZE (rest); to += rest[i++].len)
    memcpy (to, (const uint8_t *) g + rest[i].at, rest[i].len);
  for (unsigned i = 0; i < CRG_MAX_NODES; i++, to += PEER_LEN)
    if (g->peers[i].id != NO_NODE)
      memcpy (to, &g->peers[i], PEER_LEN);
    else
      memset (to, 0, sizeof g->peers[i].id);
}

void
small_restore (unsigned n, const uint8_t *from)
{
  struct group *g = small_group[n];

  for (unsigned i = 0; i < n_ranges; from += range[i++].len)
    memcpy ((uint8_t *) g + range[i].at, from, range[i].len);
  for (unsigned i = 0; i < ARRAY_SIZE (rest); from += rest[i++].len)
    memcpy ((uint8_t *) g + rest[i].at, from, rest[i].len);
  for (unsigned i = 0; i < CRG_MAX_NODES; i++, from += PEER_LEN) {
    memcpy (&g->peers[i].id, from, sizeof g->peers[i].id);
    if (g->peers[i].id != NO_NODE)
      memcpy (&g->peers[i], from, PEER_LEN);
  }
}

static uint64_t
hash_group (const struct group *g)
{
  uint64_t h = FNV;

  for (unsigned i = 0; i < n_ranges; i++)
    h = mix (h, (const uint8_t *) g + range[i].at, range[i].len);
  for (unsigned i = 0; i < ARRAY_SIZE (rest); i++)
    h = mix (h, (const uint8_t *) g + rest[i].at, rest[i].len);
  /* In the order of their ids, whichever was heard of first. */
  for (uint32_t id = 1; id <= small_nodes; id++) {
    const struct peer *p = group_peer_const (g, id);

    h = p == NULL ? mix (h, &id, sizeof id) : mix (h, p, PEER_LEN);
  }
  return h;
}

/* Of who is down nothing is left but its disk. */
static uint64_t
hash_disk (const struct small_disk *d)
{
  const size_t len = offsetof (struct crg_state, def.nodes) + small_nodes * sizeof d->state.def.nodes[0];
  uint64_t h = mix (FNV + 1, &d->state, len);

  h = mix (h, &d->state.rec[0], sizeof d->state.rec[0]);
  return mix (h, &d->promised, sizeof d->promised);
}

static void
changed (unsigned n)
{
  small.group_hash[n] = small.up[n] ? hash_group (small_group[n]) : hash_disk (disk[n]);
}

size_t
small_disk_len (void)
{
  return sizeof **disk;
}

void
small_save_disk (unsigned n, uint8_t *to)
{
  memcpy (to, disk[n], sizeof **disk);
}

void
small_restore_disk (unsigned n, const uint8_t *from)
{
  memcpy (disk[n], from, sizeof **disk);
}

uint64_t
small_hash (void)
{
  static uint16_t rank[MESSAGES];
  static bool there[MESSAGES];
  unsigned least = MESSAGES, most = 0;
  uint16_t r = 0;
  uint64_t h = mix (FNV, &small, offsetof (struct small, inbox));

  /* Which of two messages is older decides what is delivered first: the places in the order. */
  for (unsigned n = 0; n < small_nodes; n++)
    for (unsigned i = 0; i < small.last[n]; i++) {
      there[small.inbox[n][i]] = true;
      least = MIN (least, small.inbox[n][i]);
      most = MAX (most, small.inbox[n][i]);
    }
  for (unsigned m = least; m <= most && m < MESSAGES; m++)
    if (there[m]) {
      rank[m] = r++;
      there[m] = false;
    }
  for (unsigned n = 0; n < small_nodes; n++) {
    h = mix (h, &small.group_hash[n], sizeof small.group_hash[n]);
    for (unsigned i = 0; i < small.last[n]; i++) {
      h = mix (h, &message[small.inbox[n][i]].hash, 8);
      h = mix (h, &rank[small.inbox[n][i]], sizeof rank[0]);
    }
    h = mix (h, &n, sizeof n);
  }
  /* What was seen on the way here still binds. */
  if (n_facts > 0)
    h = mix (h, &facts[n_facts - 1].sum, sizeof facts[0].sum);
  h = mix (h, &small.now_ms, sizeof small.now_ms);
  h = mix (h, &small.view, sizeof small.view);
  return mix (h, &small.quiet, sizeof small.quiet);
}

/* A fact that must not be contradicted.  Facts hold along one path only. */
static bool
state_fact (uint64_t key, uint64_t value, bool once)
{
  for (uint64_t i = n_facts; i-- > 0;)
    if (facts[i].key == key)
      return !once && facts[i].value == value;
  assert (n_facts < ARRAY_SIZE (facts));
  facts[n_facts] = (struct fact) { key, value, mix (key, &value, sizeof value) };
  if (n_facts > 0)
    facts[n_facts].sum += facts[n_facts - 1].sum;
  n_facts++;
  return true;
}

uint64_t
small_facts (void)
{
  return n_facts;
}

void
small_forget_facts (uint64_t n)
{
  n_facts = n;
}

/* ---- the engine ---------------------------------------------------------------------------- */

static void
push (unsigned n, unsigned m)
{
  assert (small.last[n] < SMALL_INBOX);
  small.inbox[n][small.last[n]++] = (uint16_t) m;
}

static unsigned
new_message (void)
{
  assert (small.n_messages < MESSAGES);
  memset (&message[small.n_messages], 0, sizeof message[0]);
  return small.n_messages++;
}

static void
send (unsigned n, const uint8_t *bytes, uint32_t len)
{
  unsigned m = new_message ();
  struct message *msg = &message[m];

  assert (small.arena + len <= sizeof arena);
  msg->from = (uint8_t) (n + 1);
  msg->at = small.arena;
  msg->len = len;
  memcpy (arena + small.arena, bytes, len);
  small.arena += len;
  msg->hash = mix (FNV, bytes, len);
  for (unsigned k = 0; k < small_nodes; k++)
    if (small.up[k] && small.part[k] == small.part[n])
      push (k, m);
}

/* Who hears each other gets a new view. */
static void
reform (unsigned part)
{
  unsigned m = new_message ();

  message[m].view = ++small.view;
  for (unsigned k = 0; k < small_nodes; k++)
    if (small.up[k] && small.part[k] == part)
      message[m].members |= (uint8_t) (1u << k);
  message[m].hash = mix (FNV, &message[m].members, sizeof message[m].members);
  message[m].hash = mix (message[m].hash, &small.view, sizeof small.view);
  for (unsigned k = 0; k < small_nodes; k++)
    if (message[m].members & (1u << k)) {
      push (k, m);
      small.ring[k] = (uint16_t) m;
    }
  small.quiet = 0;
}

static bool
is_in (unsigned n, uint16_t m)
{
  for (unsigned i = 0; i < small.last[n]; i++)
    if (small.inbox[n][i] == m)
      return true;
  return false;
}

/* Has no member of the side got a message of its present ring, which all of them were sent? */
static bool
is_tail (unsigned side, uint16_t m)
{
  for (unsigned k = 0; k < small_nodes; k++)
    if ((side & (1u << k)) && small.up[k] && (m <= small.ring[k] || !is_in (k, m)))
      return false;
  return true;
}

static void
take_out (unsigned side, uint16_t m)
{
  for (unsigned k = 0; k < small_nodes; k++) {
    unsigned to = 0;

    for (unsigned i = 0; i < small.last[k]; i++)
      if (!(side & (1u << k)) || small.inbox[k][i] != m)
        small.inbox[k][to++] = small.inbox[k][i];
    small.last[k] = (uint16_t) to;
  }
}

static void
cut_off (unsigned side, enum small_tail tail, unsigned part)
{
  uint16_t late[SMALL_INBOX], all[SMALL_INBOX];
  unsigned n_late = 0, n = 0, first = 0;

  while (first < small_nodes && !((side & (1u << first)) && small.up[first]))
    first++;
  for (unsigned k = 0; k < small_nodes; k++)
    if (side & (1u << k))
      small.part[k] = (uint8_t) part;
  if (first == small_nodes)
    return;
  if (tail != TAIL_ALL) {
    n = small.last[first];
    memcpy (all, small.inbox[first], n * sizeof all[0]);
  }
  for (unsigned i = 0; i < n; i++) {
    const struct message *m = &message[all[i]];
    const bool own = m->from != 0 && (side & (1u << (m->from - 1)));

    if (m->from == 0 || (tail == TAIL_OWN && own) || !is_tail (side, all[i]))
      continue;
    take_out (side, all[i]);
    if (tail == TAIL_LATE && own)
      late[n_late++] = all[i];
  }
  reform (part);
  for (unsigned i = 0; i < n_late; i++)
    for (unsigned k = 0; k < small_nodes; k++)
      if ((side & (1u << k)) && small.up[k])
        push (k, late[i]);
}

void
small_cut (unsigned side, enum small_tail theirs, enum small_tail others)
{
  const unsigned rest_of = ~side & ((1u << small_nodes) - 1);

  cut_off (side, theirs, 1);
  cut_off (rest_of, others, 0);
}

void
small_merge (void)
{
  memset (small.part, 0, sizeof small.part);
  reform (0);
}

bool
small_is_cut (void)
{
  for (unsigned k = 0; k < small_nodes; k++)
    if (small.part[k] != 0)
      return true;
  return false;
}

bool
small_has_tail (void)
{
  for (unsigned k = 0; k < small_nodes; k++)
    for (unsigned i = 0; i < small.last[k]; i++)
      if (message[small.inbox[k][i]].from != 0)
        return true;
  return false;
}

int
small_oldest (void)
{
  int best = -1;

  for (unsigned n = 0; n < small_nodes; n++)
    if (small.last[n] > 0 && (best < 0 || small.inbox[n][0] < small.inbox[best][0]))
      best = (int) n;
  return best;
}

/* ---- stores and plugins: what they answer, at once ----------------------------------------- */

static void feed (unsigned n, struct group_event *ev);

static void
store_info (unsigned n, struct store_info *info)
{
  const struct small_store *st = &small.store[site_of (n)];

  memset (info, 0, sizeof *info);
  info->has_super = info->agrees_ids = true;
  info->clean = st->clean;
  info->unusable = st->unusable;
  info->generation = st->generation;
  info->tenure = st->tenure;
  memcpy (info->lineage, created.lineage, CRG_ID_LEN);
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

static void
do_host (unsigned n, const struct group_action *a)
{
  struct small_plugin *p = &small.plugin[n];
  struct small_store *st = &small.store[site_of (n)];
  struct group_event ev = { .kind = GE_HOSTED, .role = a->role, .tenure = a->tenure };
  const struct crg_state *c = group_committed (small_group[n]);

  ev.ok = true;
  if (a->role == HOST_NONE) {
    if (p->role != HOST_NONE) {
      st->open_by = 0;
      st->clean = true;
    }
    memset (p, 0, sizeof *p);
  } else {
    uint32_t ids[SMALL_NODES];
    unsigned votes = 0;

    /* C4: who is up has on disk what it has applied. */
    for (unsigned k = 0; k < small_nodes; k++) {
      const struct crg_state *s = small.up[k] ? group_applied (small_group[k]) : &disk[k]->state;

      if (stamp_compare (s->stamp, c->stamp) >= 0)
        ids[votes++] = k + 1;
    }
    if (!state_has_majority (c, ids, votes))
      small_failed ("C4: told to host without a majority", n);
    if (st->open_by != 0 && st->open_by != n + 1)
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
  store_info (n, &ev.store);
  if (!ev.ok)
    snprintf (ev.reason, sizeof ev.reason, "locked");
  feed (n, &ev);
}

/* The node that a production mirrors to at a site, if it hears it; a copy keeps the highest tenure
 * that it has seen (R1). */
static int
reach (unsigned n, unsigned site)
{
  const struct small_plugin *p = &small.plugin[n];
  const unsigned k = p->mirror[site] - 1u;

  if (p->mirror[site] == 0 || small.plugin[k].role != HOST_MIRROR || small.part[k] != small.part[n]
      || small.plugin[k].tenure > p->tenure)
    return -1;
  small.plugin[k].tenure = p->tenure;
  return (int) k;
}

static void
say (unsigned n, unsigned site, enum group_event_kind kind)
{
  struct small_plugin *p = &small.plugin[n];
  struct group_event ev = { .kind = kind, .site = (uint8_t) site, .seq = ++p->seq };

  if (kind == GE_COPY_READY)
    p->ready_seq[site] = ev.seq;
  feed (n, &ev);
}

/* Production has filled the copy: it may enter the set (R3). */
static void
fill (unsigned n, unsigned site)
{
  struct small_plugin *p = &small.plugin[n];
  struct small_store *st = &small.store[site];

  if (p->role != HOST_PRODUCTION || !small.up[n] || site == site_of (n)
      || ((p->set | p->ready) & (1u << site)) || reach (n, site) < 0)
    return;
  st->unusable = false;
  st->behind = small.store[site_of (n)].behind;
  st->generation = small.store[site_of (n)].generation;
  st->tenure = p->tenure;
  p->ready |= (uint8_t) (1u << site);
  say (n, site, GE_COPY_READY);
}

static void
take_record (unsigned n, const struct group_action *a)
{
  struct small_plugin *p = &small.plugin[n];
  const struct iasp_rec *r = &group_committed (small_group[n])->rec[0];

  if (p->role != HOST_PRODUCTION)
    return;
  p->set = set_of (r);
  small.store[site_of (n)].generation = r->generation;
  for (unsigned s = 0; s < small_sites; s++) {
    const uint8_t bit = (uint8_t) (1u << s);

    /* R3: only a record that covers the event tells its outcome. */
    if ((p->set & bit) || a->seq >= p->ready_seq[s])
      p->ready &= (uint8_t) ~bit;
    if ((p->set & bit) && s != site_of (n) && reach (n, s) >= 0)
      small.store[s].generation = r->generation;
  }
  p->lost &= p->set | p->ready;
}

static struct group_action queue[256];
static unsigned n_queue;

static void
step (unsigned n, struct group_event *ev)
{
  ev->now_ms = small.now_ms;
  group_step (small_group[n], ev, &acts);
  for (unsigned i = 0; i < acts.n; i++) {
    const struct group_action *a = &acts.a[i];

    switch (a->kind) {
    case GA_SEND:
      send (n, acts.bytes + a->off, a->len);
      break;
    case GA_HOST:
    case GA_PROBE:
    case GA_MIRROR_START:
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
      small_failed ("leaves its group", n);
      break;
    }
  }
}

static void
feed (unsigned n, struct group_event *ev)
{
  struct group_event probe;

  step (n, ev);
  while (n_queue > 0) {
    struct group_action a = queue[0];

    memmove (queue, queue + 1, --n_queue * sizeof queue[0]);
    if (a.kind == GA_HOST)
      do_host (n, &a);
    else if (a.kind == GA_MIRROR_START) {
      if (small.plugin[n].role == HOST_PRODUCTION) {
        small.plugin[n].mirror[a.site] = (uint8_t) a.node;
        fill (n, a.site);
      }
    } else {
      memset (&probe, 0, sizeof probe);
      probe.kind = GE_PROBE;
      store_info (n, &probe.store);
      probe.ok = probe.store.can_host;
      step (n, &probe);
    }
  }
}

/* ---- invariants ---------------------------------------------------------------------------- */

static bool
has_lease (unsigned n)
{
  return small.plugin[n].role == HOST_PRODUCTION && small.plugin[n].until_ms > small.now_ms;
}

/* Who has a lease writes as soon as it can, and is answered when all that have to have it do (L2, R2,
 * R3). */
static void
write_once (unsigned n)
{
  const struct small_plugin *p = &small.plugin[n];
  const unsigned own = site_of (n);
  const unsigned need = (unsigned) (p->set | p->ready) & ~(1u << own);

  if (small.store[own].behind)
    small_failed ("LOST WRITE: serves without what was answered", n);
  if (small.store[own].unusable)
    small_failed ("serves an unusable copy", n);
  for (unsigned s = 0; s < small_sites; s++)
    if ((need & (1u << s)) && reach (n, s) < 0)
      return;
  for (unsigned s = 0; s < small_sites; s++)
    if (s != own && !(need & (1u << s)))
      small.store[s].behind = true;
}

static void
judge (unsigned n, uint64_t serial)
{
  static uint8_t bytes[STATE_ENCODED_MAX];
  unsigned serving = 0;

  for (unsigned k = 0; k < small_nodes; k++)
    if (has_lease (k)) {
      serving++;
      write_once (k);
    }
  if (serving > 1)
    small_failed ("two production hosts within their leases", n);
  if (small_group[n]->has_committed && small_group[n]->serial != serial) {
    const struct crg_state *c = &small_group[n]->committed;
    size_t len = state_encode (c, bytes, sizeof bytes);
    uint64_t key = mix (FNV, &c->stamp, sizeof c->stamp);

    if (!state_fact (key, mix (FNV, bytes, len), false))
      small_failed ("C2, C3: one committed stamp, two contents", n);
  }
}

/* A part that can go on does, and another hosts no production (C4). */
static void
check_part (unsigned part)
{
  const struct crg_state *c = NULL;
  uint32_t ids[SMALL_NODES] = { 0 };
  unsigned n_ids = 0;
  bool served = false, could = false;

  for (unsigned n = 0; n < small_nodes; n++)
    if (small.up[n] && small.part[n] == part)
      ids[n_ids++] = n + 1;
  for (unsigned n = 0; n < small_nodes; n++)
    served = served || (small.part[n] == part && has_lease (n));
  if (!state_has_majority (&created, ids, n_ids)) {
    if (served)
      small_failed ("production without a majority", ids[0] - 1);
    return;
  }
  for (unsigned i = 0; i < n_ids; i++) {
    const struct group *g = small_group[ids[i] - 1];

    if (!group_active (g)) {
      small_failed ("not active, with a majority", ids[i] - 1);
      return;
    }
    if (c != NULL && stamp_compare (group_committed (g)->stamp, c->stamp) != 0)
      small_failed ("other states in the end", ids[i] - 1);
    c = group_committed (g);
  }
  for (unsigned i = 0; i < n_ids; i++) {
    const unsigned s = site_of (ids[i] - 1);
    const unsigned by = s == NO_SITE ? 0 : small.store[s].open_by;

    could = could || (s != NO_SITE && c->rec[0].copies[s].in_set
                      && (by == 0 || (small.up[by - 1] && small.part[by - 1] == part)));
  }
  if (could && !served)
    small_failed ("nobody serves, and somebody could", ids[0] - 1);
}

void
small_check_settled (void)
{
  const struct crg_state *c;
  unsigned production = SMALL_NODES;

  check_part (0);
  if (small_is_cut ())
    check_part (1);
  for (unsigned n = 0; n < small_nodes; n++) {
    if (!small.up[n] || small.part[n] != 0)
      return;
    if (has_lease (n))
      production = n;
  }
  if (small_failure[0] != 0)
    return;
  if (production == SMALL_NODES) {
    small_failed ("nobody serves in the end", 0);
    return;
  }
  c = group_committed (small_group[0]);
  for (unsigned s = 0; s < small_sites; s++) {
    uint32_t host = c->rec[0].copies[s].host;
    const struct hosting *h;

    if (host == NO_NODE || small.plugin[host - 1].role == HOST_NONE) {
      small_failed ("a copy without a host in the end", s);
      continue;
    }
    h = &small_group[host - 1]->host[0];
    if (s != site_of (production)
        && (h->start_node != production + 1
            || h->start_incarnation != small_group[production]->cfg.incarnation || !c->rec[0].copies[s].in_set))
      small_failed ("a copy that is not mirrored to in the end", s);
  }
}

/* ---- moves --------------------------------------------------------------------------------- */

void
small_deliver (unsigned n)
{
  const struct message *m = &message[small.inbox[n][0]];
  struct group_event ev = { .kind = GE_MSG };
  const uint64_t starts = small_group[n]->counters.mirror_start, serial = small_group[n]->serial;

  small_steps++;
  small.last[n]--;
  memmove (small.inbox[n], small.inbox[n] + 1, small.last[n] * sizeof small.inbox[n][0]);
  if (m->from == 0) {
    ev.kind = GE_VIEW;
    ev.view = m->view;
    for (unsigned k = 0; k < small_nodes; k++)
      if (m->members & (1u << k))
        ev.members[ev.n_members++] = k + 1;
  } else {
    ev.from = m->from;
    ev.buf = arena + m->at;
    ev.len = m->len;
  }
  feed (n, &ev);
  if (small_group[n]->counters.mirror_start != starts) {
    const struct hosting *h = &small_group[n]->host[0];
    uint64_t pair[4] = { h->start_node, h->start_incarnation, small_group[n]->cfg.incarnation, h->start_tenure };

    if (!state_fact (mix (FNV + 1, pair, sizeof pair), 1, true))
      small_failed ("message 6 twice for one pair of incarnations", n);
  }
  judge (n, serial);
  changed (n);
}

void
small_time (void)
{
  small.now_ms += SMALL_QUANTUM_MS;
  small.quiet++;
  for (unsigned n = 0; n < small_nodes; n++)
    if (small.up[n]) {
      struct group_event ev = { .kind = GE_TICK };
      const uint64_t serial = small_group[n]->serial;

      feed (n, &ev);
      judge (n, serial);
    }
  for (unsigned n = 0; n < small_nodes; n++) {
    struct small_plugin *p = &small.plugin[n];

    for (unsigned s = 0; s < small_sites && small.up[n] && p->role == HOST_PRODUCTION; s++) {
      const uint8_t bit = (uint8_t) (1u << s);

      fill (n, s);
      if (s == site_of (n) || !((p->set | p->ready) & bit))
        continue;
      if (reach (n, s) >= 0) {
        p->away[s] = 0;
        if (p->lost & bit) {
          p->lost &= (uint8_t) ~bit;
          say (n, s, GE_COPY_BACK);
        }
      } else if (++p->away[s] >= 2) {
        /* The suspend timeout (R2). */
        p->away[s] = 2;
        if (!(p->lost & bit)) {
          p->lost |= bit;
          say (n, s, GE_COPY_LOST);
        }
      }
    }
  }
  for (unsigned n = 0; n < small_nodes; n++)
    if (small.up[n])
      changed (n);
}

void
small_join (unsigned n)
{
  struct group_config cfg = { .node_id = n + 1, .token_ms = 500, .lease_ms = 3000, .start_wait_ms = 2000 };
  struct small_plugin *p = &small.plugin[n];

  small.joins_left[n]--;
  small.up[n] = true;
  cfg.incarnation = 100u * ++small.incarnation[n] + n + 1;
  group_init (small_group[n], &cfg, &disk[n]->state, disk[n]->promised, small.now_ms);
  if (p->role != HOST_NONE) {
    /* S3: what its last run left is adopted, and tells what it waits for. */
    struct group_event ev = { .kind = GE_HOSTED, .role = p->role, .tenure = p->tenure, .ok = true };

    store_info (n, &ev.store);
    feed (n, &ev);
    for (unsigned s = 0; s < small_sites; s++)
      if ((p->lost | p->ready) & (1u << s))
        say (n, s, p->lost & (1u << s) ? GE_COPY_LOST : GE_COPY_READY);
  }
  changed (n);
  reform (small.part[n]);
}

void
small_die (unsigned n, bool unsent, bool plugin_lives)
{
  struct small_plugin *p = &small.plugin[n];
  const unsigned part = small.part[n];
  unsigned side = 0;

  small.up[n] = false;
  disk[n]->state = small_group[n]->applied;
  disk[n]->promised = small_group[n]->promised;
  if (!plugin_lives) {
    if (p->role != HOST_NONE)
      small.store[site_of (n)].open_by = 0;
    memset (p, 0, sizeof *p);
  }
  small.last[n] = 0;
  for (unsigned k = 0; k < small_nodes; k++)
    if (small.up[k] && small.part[k] == part)
      side |= 1u << k;
  /* All or none: a message that one of the others has got is got by all. */
  for (unsigned m = 0; m < small.n_messages && unsent && side != 0; m++)
    if (message[m].from == n + 1 && is_tail (side, (uint16_t) m))
      take_out (side, (uint16_t) m);
  changed (n);
  reform (part);
}

/* ---- set-up -------------------------------------------------------------------------------- */

void
small_init (unsigned sites, unsigned nodes_per_site, unsigned replicates)
{
  static const uint8_t lineage[CRG_ID_LEN] = { 7 };
  static struct crg_def def;

  small_sites = sites;
  per_site = nodes_per_site;
  small_nodes = sites * per_site + replicates;
  assert (small_nodes <= SMALL_NODES);
  memset (&def, 0, sizeof def);
  strcpy (def.name, "crg");
  def.n_sites = (uint8_t) sites;
  def.n_nodes = (uint8_t) small_nodes;
  def.n_iasps = 1;
  for (unsigned i = 0; i < sites; i++)
    snprintf (def.sites[i], sizeof def.sites[i], "site%u", i);
  for (unsigned i = 0; i < small_nodes; i++) {
    struct domain_node *d = &def.nodes[i];

    d->id = i + 1;
    snprintf (d->name, sizeof d->name, "n%u", i + 1);
    d->site = (uint8_t) site_of (i);
    d->preferred_role = site_of (i) == NO_SITE ? MEMBER_REPLICATE : i == 0 ? MEMBER_PRIMARY : MEMBER_BACKUP;
    d->votes = 1;
    d->order = d->preferred_order = (uint8_t) i;
  }
  strcpy (def.iasps[0].name, "iasp");
  def.iasps[0].size = 1 << 20;
  if (state_create (&created, &def, lineage) != NULL)
    abort ();
  created.started = true;
  memset (&small, 0, sizeof small);
  small.now_ms = 100000;
  make_ranges ();
  for (unsigned n = 0; n < small_nodes; n++) {
    small_group[n] = calloc (1, sizeof **small_group);
    disk[n] = calloc (1, sizeof **disk);
    if (small_group[n] == NULL || disk[n] == NULL)
      abort ();
    disk[n]->state = created;
    disk[n]->promised = 1;
    small.joins_left[n] = 2;
    changed (n);
  }
  for (unsigned s = 0; s < sites; s++) {
    small.store[s].generation = small.store[s].tenure = 1;
    small.store[s].unusable = small.store[s].behind = s != 0;
    small.store[s].clean = true;
  }
  n_facts = small_steps = 0;
  small_failure[0] = 0;
}

void
small_end (void)
{
  for (unsigned n = 0; n < small_nodes; n++) {
    free (small_group[n]);
    free (disk[n]);
  }
}
