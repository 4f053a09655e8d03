/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Read-only views of the group core, for the shell, status and tests: every
 * wait has an owner, a reason and an age.  Changes nothing; called on the
 * daemon's main loop.
 */
#include <string.h>

#include "common/util.h"
#include "server/bytes.h"
#include "server/group_private.h"
#include "server/place.h"

const struct crg_state *
group_committed (const struct group *g)
{
  return g->has_committed ? &g->committed : NULL;
}

const struct crg_state *
group_applied (const struct group *g)
{
  return g->has_state ? &g->applied : NULL;
}

uint64_t
group_promised (const struct group *g)
{
  return g->promised;
}

uint32_t
group_hold_ms (const struct group *g)
{
  return g->hold_stored_ms;
}

bool
group_was_graceful (const struct group *g, unsigned unit)
{
  return g->has_committed && (g->appoint_graceful & (1u << unit))
         && g->appoint_tenure[unit] == state_unit_tenure (&g->committed, unit);
}

static void
sooner (uint64_t *next, uint64_t at)
{
  if (at < *next)
    *next = at;
}

/* Never later than the next thing that only time brings; a tick too many
 * does no harm. */
uint64_t
group_next_tick_ms (const struct group *g)
{
  uint64_t next = g->now_ms + 3600 * 1000, token2 = 2ull * g->cfg.token_ms;

  if (g->left || g->phase == PHASE_NO_VIEW)
    return next;
  sooner (&next, g->alive_ms);
  if (g->report_new)
    sooner (&next, g->report_next_ms);
  if (g->phase == PHASE_ANSWERING && !g->start_sent)
    for (unsigned k = 1; k <= CRG_MAX_NODES + 1; k++)
      if (g->round_ms + k * token2 > g->now_ms) {
        sooner (&next, g->round_ms + k * token2);
        break;
      }
  if (g->start_delivered && !g->current_committed && !g->round_sent)
    sooner (&next, MAX (g->start_ms, g->change_ms) + token2);
  for (unsigned u = 0; u < CRG_MAX_IASPS; u++)
    if (g->lease[u].tenure != 0)
      sooner (&next, g->lease[u].renew_ms);
  if (g->phase == PHASE_STARTED && g->has_committed) {
    for (unsigned i = 0; i < g->committed.def.n_iasps; i++) {
      if (g->host[i].probed && !g->host[i].probing)
        if (g->host[i].probe_ms + PROBE_AGAIN_MS > g->now_ms)
          sooner (&next, g->host[i].probe_ms + PROBE_AGAIN_MS);
      if (g->fence.retry_ms > g->now_ms)
        sooner (&next, g->fence.retry_ms);
      if (g->host[i].retry_ms > g->now_ms)
        sooner (&next, g->host[i].retry_ms);
    }
    if (state_votes_change (&g->committed) && g->finish_ms > g->now_ms)
      sooner (&next, g->finish_ms);
    for (unsigned i = 0; i < GROUP_MAX_REQUESTS; i++)
      if (g->requests[i].used)
        sooner (&next, g->requests[i].until_ms);
    if (g->commit_ms + token2 > g->now_ms)
      sooner (&next, g->commit_ms + token2);
    if (g->wait_set && g->wait_until_ms > g->now_ms)
      sooner (&next, g->wait_until_ms);
    for (unsigned i = 0; i < g->committed.def.n_nodes; i++) {
      const struct peer *p = group_peer_const (g, g->committed.def.nodes[i].id);

      if ((p == NULL || !p->in_view) && group_return_until_ms (g, p) > g->now_ms)
        sooner (&next, group_return_until_ms (g, p));
    }
    for (unsigned i = 0; i < CRG_MAX_NODES; i++)
      for (unsigned u = 0; g->peers[i].hold_known >> u; u++)
        if ((g->peers[i].hold_known & (1u << u)) && g->peers[i].open_ms[u] > g->now_ms)
          sooner (&next, g->peers[i].open_ms[u]);
  }
  return next > g->now_ms ? next : g->now_ms + 1;
}

const uint8_t *
group_report (const struct group *g, uint32_t node, uint64_t now_ms, size_t *len,
              uint64_t *age_ms)
{
  const struct peer *p = group_peer_const (g, node);

  if (p == NULL || p->report_len == 0)
    return NULL;
  *len = p->report_len;
  *age_ms = now_ms > p->report_ms ? now_ms - p->report_ms : 0;
  return p->report;
}

const struct group_host_status *
group_announced (const struct group *g, uint32_t node, uint8_t iasp)
{
  const struct peer *p = group_peer_const (g, node);

  return p != NULL && p->in_view && p->announced && iasp < p->announce.n_iasps
           ? &p->announce.iasp[iasp] : NULL;
}

bool
group_has_access (const struct group *g, uint32_t node, uint8_t iasp)
{
  const struct peer *p = group_peer_const (g, node);

  return p != NULL && p->in_view && p->announced && iasp < g->committed.def.n_iasps
         && place_has_access (&g->committed, iasp, &p->announce);
}

const char *
group_refusal (const struct group *g, unsigned iasp, uint32_t node)
{
  unsigned unit = state_unit (&g->committed, iasp);
  struct place_in in;
  int n = g->has_committed ? state_node_index (&g->committed, node) : -1;

  if (n < 0)
    return "it is not in the recovery domain";
  if (!group_active (g))
    return "the group can't change anything now";
  place_gather (g, &in);
  return place_refusal (&in, unit, (unsigned) n,
                        host_serves (g, unit) ? PLACE_SWITCH_COPIES : PLACE_FOR_FAILOVER);
}

bool
group_can_force (const struct group *g, unsigned iasp, uint32_t node)
{
  unsigned unit = state_unit (&g->committed, iasp);
  struct place_in in;
  int n = g->has_committed ? state_node_index (&g->committed, node) : -1;

  if (n < 0 || !group_active (g) || !g->committed.started || host_serves (g, unit))
    return false;
  place_gather (g, &in);
  return in.ready && place_force_refusal (&in, unit, (unsigned) n) == NULL;
}

/* Why production of a unit isn't served by its named host, whom we still wait for. */
static void
say_named (const struct group *g, const struct place_in *in, unsigned unit, int n, uint64_t now_ms,
           struct text *t)
{
  const struct crg_state *s = &g->committed;
  const char *name = s->def.nodes[n].name;

  if (!in->node[n].present && in->node[n].waited_for && !(in->warm & (1u << unit))) {
    text_add (t, "waits for named host ");
    text_add (t, name);
    text_add (t, " (start-wait, ");
    text_num (t, g->wait_until_ms > now_ms ? (g->wait_until_ms - now_ms) / 1000 : 0);
    text_add (t, " s left)");
  } else if (!in->node[n].present && in->node[n].maybe) {
    text_add (t, "waits for an answer of ");
    text_add (t, name);
  } else if (!in->node[n].present && in->node[n].returning) {
    uint64_t until = group_return_until_ms (g, group_peer_const (g, s->def.nodes[n].id));

    text_add (t, "waits for ");
    text_add (t, name);
    text_add (t, ", which left, to come back within its lease (F7, ");
    text_num (t, until > now_ms ? until - now_ms : 0);
    text_add (t, " ms left)");
  } else if (in->node[n].announce == NULL) {
    text_add (t, "waits for ");
    text_add (t, name);
    text_add (t, " to say what it can host");
  } else if (s->def.nodes[n].id == g->cfg.node_id
             && g->lease[unit].cleared != state_unit_tenure (s, unit)) {
    text_add (t, "waits until every earlier lease is over (L3)");
  } else if (s->def.nodes[n].id == g->cfg.node_id && g->lease[unit].until_ms <= now_ms) {
    text_add (t, "waits for a majority to renew the lease (L1)");
  } else if (place_apart (in, unit) != 0) {
    text_add (t, "waits for an operator to choose a copy (crgctl switchover --force): a store does not agree with the "
                 "recovered group (C9)");
  } else {
    text_add (t, "waits for ");
    text_add (t, name);
    text_add (t, " to open the production copy");
  }
}

/* S2: for whose copy does a restarted store wait? */
static void
say_restarted (const struct place_in *in, unsigned unit, unsigned node, struct text *t)
{
  const struct crg_state *s = in->state;

  for (unsigned i = 0; i < s->def.n_iasps; i++) {
    int site = state_unit (s, i) == unit && place_is_restarted (in, node, i)
                 ? place_waits_for (in, i, s->def.nodes[node].site) : -1;
    int host = site < 0 ? -1 : state_node_index (s, s->rec[i].copies[site].host);

    if (site < 0)
      continue;
    text_add (t, ": site ");
    text_add (t, s->def.sites[site]);
    if (host >= 0) {
      text_add (t, ", last at ");
      text_add (t, s->def.nodes[host].name);
    }
    return;
  }
}

static void
say_candidates (const struct place_in *in, unsigned unit, struct text *t)
{
  const struct crg_state *s = in->state;
  const char *why;

  text_add (t, "no candidate:");
  for (unsigned i = 0; i < s->def.n_nodes; i++) {
    if (s->def.nodes[i].site == NO_SITE)
      continue;
    text_add (t, " ");
    text_add (t, s->def.nodes[i].name);
    text_add (t, ": ");
    why = place_refusal (in, unit, i, PLACE_FOR_FAILOVER);
    text_add (t, why == NULL ? "is being appointed" : why);
    say_restarted (in, unit, i, t);
    text_add (t, ";");
  }
}

/* The first unit that is to be served and isn't; -1: all are. */
static int
unserved (const struct group *g)
{
  for (unsigned u = 0; g->committed.started && u < state_units (&g->committed); u++)
    if (!host_serves (g, u))
      return (int) u;
  return -1;
}

static void
say_unserved (const struct group *g, unsigned unit, uint64_t now_ms, struct group_status *st,
              struct text *t)
{
  const struct crg_state *s = &g->committed;
  int n = state_node_index (s, state_unit_host (s, unit));
  struct place_in in;

  place_gather (g, &in);
  if (s->def.placement == PLACEMENT_ACCESS)
    str_set (st->wait_owner, sizeof st->wait_owner, s->def.iasps[unit].name);
  if (n >= 0 && !place_unit_left (&in, unit))
    say_named (g, &in, unit, n, now_ms, t);
  else if (!in.ready)
    text_add (t, "waits for every member to say what it can host");
  else
    say_candidates (&in, unit, t);
}

static void
say_wait (const struct group *g, uint64_t now_ms, struct group_status *st)
{
  const struct crg_state *s = &g->committed;
  int unit = unserved (g);
  struct text t;

  text_begin (&t, st->wait_reason, sizeof st->wait_reason);
  str_set (st->wait_owner, sizeof st->wait_owner, g->has_committed ? s->def.name : "crg");
  if (g->left)
    text_add (&t, "this node has left the group");
  else if (g->phase == PHASE_NO_VIEW)
    text_add (&t, "no view: the group engine is not connected");
  else if (!g->has_state)
    text_add (&t, "this node holds no group state yet: waits for one from a majority (C6)");
  else if (g->phase == PHASE_ANSWERING && !st->majority)
    text_add (&t, "no majority of the votes is there");
  else if (g->phase != PHASE_STARTED)
    text_add (&t, "the members of a new view are agreeing on the state (C2)");
  else if (unit >= 0)
    say_unserved (g, (unsigned) unit, now_ms, st, &t);
  else
    st->wait_owner[0] = 0;
}

void
group_status (const struct group *g, uint64_t now_ms, struct group_status *st)
{
  const struct crg_state *s = g->has_committed ? &g->committed : g->has_state ? &g->applied : NULL;
  uint32_t ids[CRG_MAX_NODES];
  unsigned n = 0;

  memset (st, 0, sizeof *st);
  st->phase = g->phase;
  st->has_state = st->votes = g->has_state;
  st->view = g->view;
  st->round = g->round;
  st->promised = g->promised;
  if (g->has_state)
    st->applied = g->applied.stamp;
  if (g->has_committed)
    st->committed = g->committed.stamp;
  st->counters = g->counters;
  for (unsigned i = 0; i < CRG_MAX_NODES; i++) {
    const struct peer *p = &g->peers[i];

    if (p->id != NO_NODE && p->in_view && p->answered && p->answer.has_state)
      ids[n++] = p->id;
  }
  st->majority = g->has_state && state_has_majority (&g->applied, ids, n);
  for (unsigned i = 0; s != NULL && i < s->def.n_nodes; i++) {
    const struct peer *p = group_peer_const (g, s->def.nodes[i].id);
    struct group_node_status *ns = &st->nodes[st->n_nodes++];

    ns->id = s->def.nodes[i].id;
    ns->order = s->def.nodes[i].order;
    if (p == NULL)
      continue;
    ns->in_view = p->in_view;
    ns->present = group_present (g, p);
    ns->incarnation = p->spoke ? p->incarnation : 0;
    ns->announced = p->announced;
  }
  st->wait_since_ms = g->wait_since_ms;
  say_wait (g, now_ms, st);
  if (s == NULL || g->phase != PHASE_STARTED)
    st->condition = s != NULL && s->deleted ? COND_ENDED : COND_INDOUBT;
  else if (s->deleted)
    st->condition = COND_ENDED;
  else if (!s->started)
    st->condition = COND_INACTIVE;
  else
    st->condition = unserved (g) < 0 ? COND_ACTIVE : COND_WAITING;
  for (unsigned u = 0; s != NULL && u < state_units (s); u++) {
    st->served |= (uint8_t) ((s->started && g->phase == PHASE_STARTED && g->has_committed
                              && host_serves (g, u)) << u);
    if ((st->served & (1u << u)) || g->lease[u].tenure != 0)
      st->lease_holder[u] = state_unit_host (s, u);
    if (g->lease[u].tenure != 0)
      st->lease_until_ms[u] = g->lease[u].until_ms;
  }
}

/* What the wait is about, so that its age can be told. */
static uint32_t
wait_key (const struct group *g)
{
  int unit = g->phase == PHASE_STARTED ? unserved (g) : -1;

  if (g->phase != PHASE_STARTED)
    return 1 + (uint32_t) g->phase;
  if (unit < 0)
    return 100;
  return 1000 + (uint32_t) unit * 65536 + state_unit_host (&g->committed, (unsigned) unit);
}

void
group_age_wait (struct group *g)
{
  uint32_t key = wait_key (g);

  if (key != g->wait_key) {
    g->wait_key = key;
    g->wait_since_ms = g->now_ms;
  }
}
