/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The lease (L1 to L3) and the heartbeats of C8, part of the group core: an
 * old production host must have stopped before a new one starts.  State lives
 * in struct group; called by group.c only.  Time comes from the event, and a
 * lease is always counted from the sender's own clock at the RENEW that was
 * answered, never from a receipt.
 */
#include <string.h>

#include "server/group_private.h"

/* T x 1.05: two clocks may run apart by that much. */
uint64_t
lease_guard_ms (const struct group *g)
{
  return ((uint64_t) g->cfg.lease_ms * 105 + 99) / 100;
}

/* L3: what is left of T x 1.05 since this node's last reply to another host
 * than the named one, or since it started, as it may have replied just
 * before. */
uint32_t
lease_hold_ms (const struct group *g)
{
  uint64_t guard = lease_guard_ms (g), until = 0;
  uint32_t host = state_production_host (&g->applied);

  /* Tenure 1 is the first there ever was. */
  if (state_tenure (&g->applied) <= 1)
    return 0;
  if (g->now_ms < g->started_ms + guard)
    until = g->started_ms + guard;
  for (unsigned i = 0; i < CRG_MAX_NODES; i++) {
    const struct peer *p = &g->peers[i];

    if (p->id != NO_NODE && p->id != host && p->replied && p->replied_ms + guard > until)
      until = p->replied_ms + guard;
  }
  return until > g->now_ms ? (uint32_t) (until - g->now_ms) : 0;
}

void
lease_on_renew (struct group *g, struct peer *from, struct group_actions *out)
{
  const struct msg_renew *m = &g->in.u.renew;
  struct msg_renew *reply = &g->out.u.renew;

  g->counters.renew++;
  /* L3: who has persisted an appointment answers no RENEW of an earlier
   * host.  `applied` is what is persisted, committed or not. */
  if (!g->has_state || m->host != from->id || !g->applied.started || g->applied.deleted
      || state_production_host (&g->applied) != from->id
      || state_tenure (&g->applied) != m->tenure)
    return;
  /* C7: a host that counts by votes of the past gets no lease by them. */
  if (m->domain < g->applied.domain)
    return;
  from->replied = true;
  from->replied_ms = g->now_ms;
  from->seen = true;
  g->lease.seen_tenure = m->tenure;
  *reply = (struct msg_renew) { m->host, m->tenure, m->sent_ms, m->domain };
  group_send (g, out, MSG_RENEWED);
}

/* L1: when a majority has replied, the lease runs until the RENEW's send time
 * + T: the newest send time that a majority has answered. */
static uint64_t
majority_ack (const struct group *g)
{
  uint64_t best = 0;

  for (unsigned i = 0; i < CRG_MAX_NODES; i++) {
    uint64_t at = g->peers[i].ack_ms;
    uint32_t ids[CRG_MAX_NODES];
    unsigned n = 0;

    if (g->peers[i].id == NO_NODE || at <= best)
      continue;
    for (unsigned k = 0; k < CRG_MAX_NODES; k++)
      if (g->peers[k].id != NO_NODE && g->peers[k].ack_ms >= at)
        ids[n++] = g->peers[k].id;
    if (state_has_majority (&g->applied, ids, n))
      best = at;
  }
  return best;
}

void
lease_on_renewed (struct group *g, struct peer *from, struct group_actions *out)
{
  const struct msg_renew *m = &g->in.u.renew;
  uint64_t at;

  (void) out;
  g->counters.renewed++;
  /* A send time that was never ours would lengthen the lease. */
  if (m->host != g->cfg.node_id || g->lease.tenure == 0 || m->tenure != g->lease.tenure
      || m->sent_ms > g->lease.sent_ms)
    return;
  if (m->sent_ms > from->ack_ms)
    from->ack_ms = m->sent_ms;
  at = majority_ack (g);
  if (at > 0 && at + g->cfg.lease_ms > g->lease.until_ms)
    g->lease.until_ms = at + g->cfg.lease_ms;
}

/* C8: X is silent if 24 own ALIVEs were delivered and none of X's since. */
void
lease_on_alive (struct group *g, struct peer *from)
{
  g->counters.alive++;
  from->silent = 0;
  if (from->id != g->cfg.node_id)
    return;
  for (unsigned i = 0; i < CRG_MAX_NODES; i++)
    if (g->peers[i].in_view && g->peers[i].id != g->cfg.node_id
        && g->peers[i].silent < ALIVE_SILENT)
      g->peers[i].silent++;
}

static bool
hold_is_over (const struct group *g, const struct peer *p)
{
  return p->in_view && p->hold_known && g->now_ms >= p->open_ms;
}

/* L3: may the named host (this node) open?  When, for members with a
 * majority, receipt + hold has passed, or the host of the tenure before has
 * released; who released had been cleared itself, so all before it are over
 * too. */
bool
lease_cleared (struct group *g)
{
  uint64_t tenure = state_tenure (&g->committed);

  if (g->lease.cleared == tenure)
    return true;
  if (tenure <= 1 || g->lease.released + 1 == tenure || group_majority (g, hold_is_over)) {
    g->lease.cleared = tenure;
    return true;
  }
  return false;
}

/* Is this node named, in what is committed and in what is only applied? (C5) */
static bool
is_named (const struct group *g)
{
  return g->has_committed && g->phase != PHASE_NO_VIEW && g->committed.started
         && g->applied.started && state_production_host (&g->committed) == g->cfg.node_id
         && state_production_host (&g->applied) == g->cfg.node_id
         && state_tenure (&g->applied) == state_tenure (&g->committed);
}

static void
send_renew (struct group *g, struct group_actions *out)
{
  struct msg_renew *m = &g->out.u.renew;

  g->lease.sent_ms = g->now_ms;
  g->lease.renew_ms = g->now_ms + g->cfg.lease_ms / LEASE_PARTS;
  *m = (struct msg_renew) { g->cfg.node_id, g->lease.tenure, g->now_ms, g->applied.domain };
  group_send (g, out, MSG_RENEW);
}

/* The old host tells that it has closed everything; again in each view until
 * the next one serves. */
static void
settle_released (struct group *g, struct group_actions *out)
{
  uint64_t tenure = g->lease.releasing;

  if (!group_active (g) || tenure == 0 || g->lease.release_sent)
    return;
  if (state_tenure (&g->committed) != tenure + 1) {
    if (state_tenure (&g->committed) > tenure + 1)
      g->lease.releasing = 0;
    return;
  }
  for (unsigned i = 0; i < g->committed.def.n_iasps; i++)
    if (!g->host[i].asked || g->host[i].told_role == HOST_PRODUCTION
        || (g->host[i].told_role == HOST_NONE && g->host[i].pending))
      return;
  if (!group_room (out))
    return;
  g->out.u.tenure = tenure;
  group_send (g, out, MSG_RELEASED);
  g->lease.release_sent = true;
}

void
lease_settle (struct group *g, struct group_actions *out)
{
  struct lease *l = &g->lease;

  if (group_active (g) && l->cleared != 0 && l->cleared < state_tenure (&g->committed)) {
    /* Was host, is host no more (or anew): the tenure is to be released. */
    l->releasing = l->cleared;
    l->release_sent = false;
    l->cleared = 0;
  }
  settle_released (g, out);
  if (!is_named (g)) {
    if (group_active (g))
      l->tenure = 0;
    return;
  }
  /* C4: the first one of a view waits for the commit; after that, the same
   * host with the same tenure goes on renewing while a view forms. */
  if (l->cleared != state_tenure (&g->committed)
      && (!group_active (g) || !lease_cleared (g)))
    return;
  if (l->tenure != state_tenure (&g->committed)) {
    l->tenure = state_tenure (&g->committed);
    l->until_ms = l->told_ms = l->renew_ms = 0;
    for (unsigned i = 0; i < CRG_MAX_NODES; i++)
      g->peers[i].ack_ms = 0;
  }
  if (g->now_ms >= l->renew_ms && group_room (out))
    send_renew (g, out);
  if (l->until_ms > l->told_ms && group_room (out)) {
    struct group_action *a = group_act (out, GA_LEASE);

    a->until_ms = l->until_ms;
    a->tenure = l->tenure;
    l->told_ms = l->until_ms;
  }
}
