/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The data path of the simulated cluster: plugins that write, answer and
 * mirror, so that a lost write is seen.  See cluster.h.
 */
#include <inttypes.h>
#include <string.h>

#include "common/util.h"
#include "tests/sim/cluster_private.h"

static void
say (struct sim *s, unsigned n, unsigned iasp, unsigned site, enum group_event_kind kind)
{
  struct sim_plugin *p = &s->node[n].plugin[iasp];
  struct group_event ev = { .kind = kind, .iasp = (uint8_t) iasp, .site = (uint8_t) site };

  ev.seq = ++p->seq;
  if (kind == GE_COPY_READY)
    p->link[site].ready_seq = ev.seq;
  if (p->link[site].node >= 0) {
    ev.boot_id[0] = (uint8_t) boot_of (s, (unsigned) p->link[site].node);
    ev.boot_id[1] = (uint8_t) machine_of (s, (unsigned) p->link[site].node);
  }
  strcpy (ev.reason, "link down");
  sim_feed (s, n, &ev);
}

/* F7; like the real one it is said once, to whoever listens. */
static void
say_link (struct sim *s, unsigned n, unsigned iasp, unsigned site, bool up)
{
  struct group_event ev = { .kind = GE_LINK, .iasp = (uint8_t) iasp, .site = (uint8_t) site };

  ev.ok = up;
  if (!s->node[n].paused)
    sim_feed (s, n, &ev);
}

static bool
can_reach (const struct sim *s, unsigned n, int to, unsigned iasp)
{
  const struct sim_plugin *c;

  if (to < 0)
    return false;
  c = &s->node[to].plugin[iasp];
  return c->running && c->role == HOST_MIRROR && !c->broken && s->node[to].part == s->node[n].part
         && c->tenure <= s->node[n].plugin[iasp].tenure;
}

static void
data_link (struct sim *s, unsigned n, unsigned iasp, unsigned site)
{
  struct sim_plugin *p = &s->node[n].plugin[iasp];
  struct sim_link *l = &p->link[site];
  struct sim_store *mine = &s->store[site_of_node (s, n)][iasp];
  struct sim_store *st = &s->store[site][iasp];
  bool need = p->rec.copies[site].in_set || l->ready;

  if (l->say_again && s->node[n].running && !s->node[n].paused) {
    /* A new controller is told what is wanted: levels, not edges. */
    l->say_again = false;
    if (l->lost_said)
      say (s, n, iasp, site, GE_COPY_LOST);
    else if (l->ready)
      say (s, n, iasp, site, GE_COPY_READY);
  }
  if (!can_reach (s, n, l->node, iasp)) {
    if (l->connected || l->due_ms == 0) {
      l->connected = l->filling = false;
      l->due_ms = s->now_ms + 200; /* suspend timeout */
      say_link (s, n, iasp, site, false);
    }
    if (need && !l->lost_said && s->now_ms >= l->due_ms && s->node[n].running
        && !s->node[n].paused) {
      l->lost_said = true;
      say (s, n, iasp, site, GE_COPY_LOST);
    }
    return;
  }
  /* A copy keeps the highest tenure that it has seen (R1). */
  s->node[l->node].plugin[iasp].tenure = p->tenure;
  if (!l->connected) {
    if (p->rec.copies[site].in_set && st->restarted
        && (!s->node[n].running || s->node[n].paused))
      return; /* nobody can be told that it has to leave the set */
    l->connected = true;
    say_link (s, n, iasp, site, true);
    l->filling = !p->rec.copies[site].in_set || st->restarted;
    l->due_ms = s->now_ms + 300;
    if (l->filling) {
      /* R5: it leaves the set until it is filled. */
      if (p->rec.copies[site].in_set && !l->lost_said && s->node[n].running
          && !s->node[n].paused) {
        l->lost_said = true;
        say (s, n, iasp, site, GE_COPY_LOST);
      }
      if (!l->ready) {
        st->unusable = true;
        st->restarted = st->fork = false;
      }
    } else
      st->data = mine->data; /* what was in flight is sent again, or taken back */
  }
  if (!s->node[n].running || s->node[n].paused)
    return;
  if (l->lost_said && !l->filling) {
    l->lost_said = false;
    say (s, n, iasp, site, GE_COPY_BACK);
  }
  if (l->filling && s->now_ms >= l->due_ms && !l->ready) {
    /* R3: from now on production waits for X; X is filled and flushed. */
    l->filling = false;
    l->ready = true;
    l->lost_said = false;
    st->data = st->flushed = mine->data;
    st->lost = mine->lost;
    st->restarted = st->fork = false;
    st->unusable = false;
    st->generation = p->rec.generation;
    st->tenure = p->tenure;
    say (s, n, iasp, site, GE_COPY_READY);
  }
}

bool
sim_has_lease (const struct sim *s, unsigned n, unsigned iasp)
{
  const struct sim_plugin *p = &s->node[n].plugin[iasp];

  return p->running && p->role == HOST_PRODUCTION && local_ms (s, &s->node[n]) < p->lease_ms;
}

/* One write, to every copy that should have it. */
static void
data_write (struct sim *s, unsigned n, unsigned iasp)
{
  struct sim_plugin *p = &s->node[n].plugin[iasp];
  bool all = true;

  if (!p->running || p->role != HOST_PRODUCTION || !p->has_record || p->broken)
    return;
  if (is_script (s, iasp) && !p->held)
    return;
  for (unsigned site = 0; site < s->n_sites; site++)
    if ((int) site != site_of_node (s, n) && !is_script (s, iasp)) {
      data_link (s, n, iasp, site);
      if (!p->running || p->role != HOST_PRODUCTION)
        return;
    }
  if (p->held) {
    if (p->drain && s->node[n].running && !s->node[n].paused && sim_has_lease (s, n, iasp)) {
      struct group_event ev = { .kind = GE_DRAINED, .iasp = (uint8_t) iasp };

      ev.ok = !s->node[n].drain_fails;
      if (!ev.ok)
        strcpy (ev.reason, "a copy did not answer in time");
      /* Drained: whatever is held is answered, or was not begun. */
      p->drain = false;
      sim_feed (s, n, &ev);
    }
    return;
  }
  s->write_no++;
  s->store[site_of_node (s, n)][iasp].data = s->write_no;
  for (unsigned site = 0; site < s->n_sites; site++) {
    struct sim_link *l = &p->link[site];

    if ((int) site == site_of_node (s, n))
      continue;
    if (l->connected && can_reach (s, n, l->node, iasp)) {
      s->store[site][iasp].data = s->write_no;
      /* R2: what it lacks is held until it has left the set. */
      if (l->lost_said && p->rec.copies[site].in_set)
        all = false;
    } else if (p->rec.copies[site].in_set || l->ready)
      all = false;
  }
  /* L2: checked when it completes. */
  if (all && sim_has_lease (s, n, iasp)) {
    s->acked[iasp] = s->write_no;
    s->acks++;
    if (s->acks % 8 == 0) {
      /* A flush, answered when every copy of the set has flushed. */
      for (unsigned site = 0; site < s->cfg.n_sites; site++)
        if (s->store[site][iasp].data == s->write_no)
          s->store[site][iasp].flushed = s->write_no;
      s->flush_acked[iasp] = s->write_no;
    }
  }
}

/* Clients were told that answered writes may be gone (S2 b, R4); what was
 * flushed may not, unless an operator said so. */
static void
accept_loss (struct sim *s, unsigned n, unsigned iasp)
{
  struct sim_store *st = &s->store[site_of_node (s, n)][iasp];
  const struct iasp_rec *r = &s->node[n].plugin[iasp].rec;

  /* Not of a tenure that it only heard of. */
  if (r->loss <= s->loss[iasp] || r->tenure != s->node[n].plugin[iasp].tenure)
    return;
  st->lost = false;
  /* Also by a tenure in which nobody opened before the next one. */
  if (st->data < s->flush_acked[iasp] && s->forced_loss[iasp] <= s->loss[iasp])
    sim_fail (s, "LOST FLUSH: node %u serves iasp %u with %" PRIu64 ", flushed %" PRIu64, n + 1,
              iasp, st->data, s->flush_acked[iasp]);
  s->loss[iasp] = r->loss;
  s->acked[iasp] = MIN (s->acked[iasp], st->data);
  s->flush_acked[iasp] = MIN (s->flush_acked[iasp], st->data);
}

void
sim_data_step (struct sim *s)
{
  for (unsigned iasp = 0; iasp < s->cfg.n_iasps; iasp++) {
    unsigned serving = 0;

    for (unsigned n = 0; n < s->n_nodes; n++) {
      /* Before it writes: could it answer a read? */
      if (sim_has_lease (s, n, iasp) && !is_script (s, iasp)) {
        const struct sim_store *st = &s->store[site_of_node (s, n)][iasp];

        accept_loss (s, n, iasp);
        if (st->lost)
          sim_fail (s, "LOST WRITE: node %u serves iasp %u, whose machine lost power, and loss "
                    "has not risen", n + 1, iasp);
        if (st->data < s->acked[iasp])
          sim_fail (s, "LOST WRITE: node %u serves iasp %u with %" PRIu64 ", answered %" PRIu64,
                    n + 1, iasp, st->data, s->acked[iasp]);
        if (st->unusable)
          sim_fail (s, "node %u serves an unusable copy of iasp %u", n + 1, iasp);
      }
      if (s->node[n].plugin[iasp].broken_say && s->node[n].running && !s->node[n].paused) {
        struct group_event ev = { .kind = GE_STORE_FAILED, .iasp = (uint8_t) iasp };

        s->node[n].plugin[iasp].broken_say = false;
        strcpy (ev.reason, "flush failed");
        sim_feed (s, n, &ev);
      }
      data_write (s, n, iasp);
      if (sim_has_lease (s, n, iasp))
        serving++;
    }
    if (serving > 1)
      sim_fail (s, "two production hosts with a valid lease for iasp %u", iasp);
  }
}
