/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The lease (L1 to L3) and the heartbeats of C8, part of the group core: an
 * old production host must have stopped before a new one starts.  Each unit
 * (state.h) has a lease of its own.  State lives
 * in struct group; called by group.c only.  Time comes from the event, and a
 * lease is always counted from the sender's own clock at the RENEW that was
 * answered, never from a receipt.
 */
#include <string.h>

#include "common/util.h"
#include "server/group_private.h"

/* T x 1.05: two clocks may run apart by that much.  T is that of who holds the
 * lease: nodes are configured one after the other. */
uint64_t
lease_guard_ms (uint32_t lease_ms)
{
  return ((uint64_t) lease_ms * 105 + 99) / 100;
}

bool
lease_answer_is_over (const struct group *g, const struct peer *p)
{
  for (unsigned u = 0; u < CRG_MAX_IASPS; u++)
    if (p->granted_ms[u] > g->now_ms)
      return false;
  return true;
}

/* L3: how long a lease may still run that this node has granted, in this run or
 * an earlier one; at least as long as one of its own would. */
uint32_t
lease_longest_ms (const struct group *g)
{
  uint64_t until = MAX (g->now_ms + lease_guard_ms (g->cfg.lease_ms), g->start_hold_ms);

  for (unsigned i = 0; i < CRG_MAX_NODES; i++)
    for (unsigned u = 0; u < CRG_MAX_IASPS; u++)
      if (g->peers[i].id != NO_NODE)
        until = MAX (until, g->peers[i].granted_ms[u]);
  return (uint32_t) (until - g->now_ms);
}

/* L3: what is left of T x 1.05 since this node's last reply to another host
 * than the named one, or since it started, as it may have replied just
 * before. */
uint32_t
lease_hold_ms (const struct group *g, unsigned unit)
{
  uint64_t until = g->start_hold_ms;
  uint32_t host = state_unit_host (&g->applied, unit);

  /* Tenure 1 is the first there ever was. */
  if (state_unit_tenure (&g->applied, unit) <= 1)
    return 0;
  for (unsigned i = 0; i < CRG_MAX_NODES; i++) {
    const struct peer *p = &g->peers[i];

    if (p->id != NO_NODE && p->id != host)
      until = MAX (until, p->granted_ms[unit]);
  }
  return until > g->now_ms ? (uint32_t) (until - g->now_ms) : 0;
}

void
lease_on_renew (struct group *g, struct peer *from, struct group_actions *out)
{
  const struct msg_renew *m = &g->in.u.renew;
  struct msg_renew *reply = &g->out.u.renew;
  unsigned unit = m->unit;

  g->counters.renew++;
  /* L3: who has persisted an appointment answers no RENEW of an earlier
   * host.  `applied` is what is persisted, committed or not. */
  if (!g->has_state || m->host != from->id || !g->applied.started || g->applied.deleted
      || unit >= state_units (&g->applied)
      || state_unit_host (&g->applied, unit) != from->id
      || state_unit_tenure (&g->applied, unit) != m->tenure)
    return;
  /* C7: a host that counts by votes of the past gets no lease by them. */
  if (m->domain < g->applied.domain)
    return;
  /* An earlier run of that node may have had a longer one: it is not over by this. */
  from->granted_ms[unit] = MAX (from->granted_ms[unit], g->now_ms + lease_guard_ms (m->lease_ms));
  if (lease_guard_ms (m->lease_ms) > g->hold_stored_ms)
    group_persist (g, out);
  from->seen = true;
  g->lease[unit].seen_tenure = m->tenure;
  *reply = *m;
  group_send (g, out, MSG_RENEWED);
}

/* L1: when a majority has replied, the lease runs until the RENEW's send time
 * + T: the newest send time that a majority has answered. */
static uint64_t
majority_ack (const struct group *g, unsigned unit)
{
  uint64_t best = 0;

  for (unsigned i = 0; i < CRG_MAX_NODES; i++) {
    uint64_t at = g->peers[i].ack_ms[unit];
    uint32_t ids[CRG_MAX_NODES];
    unsigned n = 0;

    if (g->peers[i].id == NO_NODE || at <= best)
      continue;
    for (unsigned k = 0; k < CRG_MAX_NODES; k++)
      if (g->peers[k].id != NO_NODE && g->peers[k].ack_ms[unit] >= at)
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
  unsigned unit = m->unit;
  struct lease *l = &g->lease[unit]; /* decoded: in range */
  uint64_t at;

  (void) out;
  g->counters.renewed++;
  /* A send time that was never ours would lengthen the lease, and so would an
   * answer that grants less than we take. */
  if (m->host != g->cfg.node_id || l->tenure == 0 || m->tenure != l->tenure
      || m->sent_ms > l->sent_ms || m->lease_ms != g->cfg.lease_ms)
    return;
  if (m->sent_ms > from->ack_ms[unit])
    from->ack_ms[unit] = m->sent_ms;
  at = majority_ack (g, unit);
  if (at > 0 && at + g->cfg.lease_ms > l->until_ms)
    l->until_ms = at + g->cfg.lease_ms;
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
holds_are_over (const struct group *g, unsigned unit)
{
  uint32_t ids[CRG_MAX_NODES];
  unsigned n = 0;

  for (unsigned i = 0; i < CRG_MAX_NODES; i++) {
    const struct peer *p = &g->peers[i];

    if (p->id != NO_NODE && p->in_view && (p->hold_known & (1u << unit))
        && g->now_ms >= p->open_ms[unit])
      ids[n++] = p->id;
  }
  return state_has_majority (&g->applied, ids, n);
}

void
lease_on_released (struct group *g)
{
  const struct msg_released *m = &g->in.u.released;
  struct lease *l = &g->lease[m->unit]; /* decoded: in range */

  if (m->tenure > l->released)
    l->released = m->tenure;
  for (unsigned i = 0; i < CRG_MAX_IASPS; i++)
    if (state_unit (&g->committed, i) == m->unit)
      g->host[i].probe_stale = true; /* the store is free now (S1) */
}

/* L3: may the named host (this node) open?  When, for members with a
 * majority, receipt + hold has passed, or the host of the tenure before has
 * released; who released had been cleared itself, so all before it are over
 * too. */
bool
lease_cleared (struct group *g, unsigned unit)
{
  uint64_t tenure = state_unit_tenure (&g->committed, unit);
  struct lease *l = &g->lease[unit];

  if (l->cleared == tenure)
    return true;
  if (tenure <= 1 || l->released + 1 == tenure || holds_are_over (g, unit)) {
    l->cleared = tenure;
    return true;
  }
  return false;
}

/* Is this node named, in what is committed and in what is only applied? (C5) */
static bool
is_named (const struct group *g, unsigned unit)
{
  return g->has_committed && g->phase != PHASE_NO_VIEW && g->committed.started
         && g->applied.started && state_unit_host (&g->committed, unit) == g->cfg.node_id
         && state_unit_host (&g->applied, unit) == g->cfg.node_id
         && state_unit_tenure (&g->applied, unit) == state_unit_tenure (&g->committed, unit);
}

static void
send_renew (struct group *g, unsigned unit, struct group_actions *out)
{
  struct msg_renew *m = &g->out.u.renew;
  struct lease *l = &g->lease[unit];

  l->sent_ms = g->now_ms;
  l->renew_ms = g->now_ms + g->cfg.lease_ms / LEASE_PARTS;
  *m = (struct msg_renew) { (uint8_t) unit, g->cfg.node_id, l->tenure, g->now_ms, g->applied.domain,
                             g->cfg.lease_ms };
  group_send (g, out, MSG_RENEW);
}

/* The old host tells that it has closed everything; again in each view until
 * the next one serves.  S3: a plugin of an earlier run is closed when a role that
 * was asked for is there, not when it was asked for. */
static void
settle_released (struct group *g, unsigned unit, struct group_actions *out)
{
  uint64_t tenure = g->lease[unit].releasing, now = state_unit_tenure (&g->committed, unit);

  if (!group_active (g) || tenure == 0 || g->lease[unit].release_sent)
    return;
  if (now != tenure + 1) {
    if (now > tenure + 1)
      g->lease[unit].releasing = 0;
    return;
  }
  for (unsigned i = 0; i < g->committed.def.n_iasps; i++)
    if (state_unit (&g->committed, i) == unit
        && (!g->host[i].known || g->host[i].told_role == HOST_PRODUCTION
            || (g->host[i].told_role == HOST_NONE && g->host[i].pending)))
      return;
  if (!group_room (out))
    return;
  g->out.u.released = (struct msg_released) { (uint8_t) unit, tenure };
  group_send (g, out, MSG_RELEASED);
  g->lease[unit].release_sent = true;
}

static void
settle_unit (struct group *g, unsigned unit, struct group_actions *out)
{
  uint64_t tenure = state_unit_tenure (&g->committed, unit);
  struct lease *l = &g->lease[unit];

  if (group_active (g) && l->cleared != 0 && l->cleared < tenure) {
    /* Was host, is host no more (or anew): the tenure is to be released. */
    l->releasing = l->cleared;
    l->release_sent = false;
    l->cleared = 0;
  }
  settle_released (g, unit, out);
  if (!is_named (g, unit)) {
    if (group_active (g))
      l->tenure = 0;
    return;
  }
  /* C4: the first one of a view waits for the commit; after that, the same
   * host with the same tenure goes on renewing while a view forms. */
  if (l->cleared != tenure && (!group_active (g) || !lease_cleared (g, unit)))
    return;
  if (l->tenure != tenure) {
    l->tenure = tenure;
    l->until_ms = l->told_ms = l->renew_ms = 0;
    for (unsigned i = 0; i < CRG_MAX_NODES; i++)
      g->peers[i].ack_ms[unit] = 0;
  }
  if (g->now_ms >= l->renew_ms && group_room (out))
    send_renew (g, unit, out);
  if (l->until_ms > l->told_ms && group_room (out)) {
    struct group_action *a = group_act (out, GA_LEASE);

    a->iasp = (uint8_t) unit;
    a->until_ms = l->until_ms;
    a->tenure = l->tenure;
    l->told_ms = l->until_ms;
  }
}

void
lease_settle (struct group *g, struct group_actions *out)
{
  /* Without a committed state there is one unit, that nobody hosts. */
  for (unsigned u = 0; u < state_units (&g->committed); u++)
    settle_unit (g, u, out);
}
