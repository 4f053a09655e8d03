/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Changes of the recovery domain while the group runs (C7), and the meeting
 * of two lineages (C9), part of the group core.  A node is added without a
 * vote, gets the state, and then its vote; who is removed loses the vote
 * first.  A vote changes in two committed steps, with one lease time between
 * them: a lease that was renewed under the old votes alone is over when they
 * are dropped.  State lives in struct group; called by group.c.
 */
#include <string.h>

#include "common/util.h"
#include "server/bytes.h"
#include "server/group_private.h"

static struct change *
set_votes (struct change *c, const struct domain_node *n, uint8_t votes)
{
  memset (c, 0, sizeof *c);
  c->kind = CH_NODE;
  c->node_change.op = NODE_SET;
  c->node_change.fields = NODE_SET_VOTES;
  c->node_change.node.id = n->id;
  c->node_change.node.votes = votes;
  return c;
}

/* C6: it can promise and persist. */
static bool
holds_state (const struct group *g, uint32_t node)
{
  const struct peer *p = group_peer_const (g, node);

  return p != NULL && group_present (g, p)
         && (p->persisted
             || (p->answer.has_state
                 && memcmp (p->lineage, g->applied.lineage, CRG_ID_LEN) == 0));
}

static enum domain_step
next_add (const struct group *g, const struct node_change *want, struct change *c,
          const char **why)
{
  const struct crg_state *s = &g->committed;
  int i = state_node_index (s, want->node.id);

  if (i < 0) {
    memset (c, 0, sizeof *c);
    c->kind = CH_NODE;
    c->node_change = *want;
    c->node_change.node.votes = c->node_change.node.new_votes = 0;
    *why = state_check (s, c);
    return *why == NULL ? DOMAIN_CHANGE : DOMAIN_REFUSED;
  }
  if (strcmp (s->def.nodes[i].name, want->node.name) != 0) {
    *why = "a node of that id is in the recovery domain";
    return DOMAIN_REFUSED;
  }
  if (s->def.nodes[i].votes == want->node.votes)
    return DOMAIN_DONE;
  *why = "the node was added, without a vote: it gets that when it has joined and holds the state";
  if (!holds_state (g, want->node.id))
    return DOMAIN_WAIT;
  set_votes (c, &s->def.nodes[i], want->node.votes);
  *why = state_check (s, c);
  return *why == NULL ? DOMAIN_CHANGE : DOMAIN_REFUSED;
}

/* Has its site another node? */
static bool
shares_site (const struct crg_state *s, unsigned node)
{
  for (unsigned i = 0; i < s->def.n_nodes && s->def.nodes[node].site != NO_SITE; i++)
    if (i != node && s->def.nodes[i].site == s->def.nodes[node].site)
      return true;
  return false;
}

/* S1: has another node every store open that this one shares with its site?  Then no open record of
 * this one's stands, and none will: who isn't named as host opens nothing (H4).  Else one that is dead has
 * to be marked so, which the state remembers, or the others would wait for it for ever. */
static enum domain_step
check_released (const struct group *g, unsigned node)
{
  const struct crg_state *s = &g->committed;
  const struct domain_node *n = &s->def.nodes[node];
  const struct peer *p = group_peer_const (g, n->id);

  if (!shares_site (s, node) || (n->marked_failed && (p == NULL || !p->in_view)))
    return DOMAIN_DONE;
  for (unsigned i = 0; i < s->def.n_iasps; i++) {
    uint32_t host = s->rec[i].copies[n->site].host;
    const struct group_host_status *h = host == n->id ? NULL : group_announced (g, host, (uint8_t) i);

    if (s->def.iasps[i].type != RES_IASP || s->def.iasps[i].store[node][0] == 0 || (h != NULL && h->opened))
      continue;
    p = group_peer_const (g, host);
    return h == NULL && p != NULL && group_present (g, p) ? DOMAIN_WAIT : DOMAIN_REFUSED;
  }
  return DOMAIN_DONE;
}

static enum domain_step
next_remove (struct group *g, const struct node_change *want, struct change *c, const char **why)
{
  const struct crg_state *s = &g->committed;
  int i = state_node_index (s, want->node.id);
  enum domain_step step;

  if (i < 0)
    return DOMAIN_DONE;
  memset (c, 0, sizeof *c);
  c->kind = CH_NODE;
  c->node_change = *want;
  /* Could it go, if it had no vote?  Else it keeps that. */
  g->scratch = *s;
  g->scratch.def.nodes[i].votes = g->scratch.def.nodes[i].new_votes = 0;
  *why = state_check (&g->scratch, c);
  if (*why == NULL && (step = check_released (g, (unsigned) i)) != DOMAIN_DONE) {
    *why = "no other node of its site has all its stores open, so it may not have released them (S1): let the CRG be "
           "served first, or mark it failed if it is dead";
    return step;
  }
  if (*why == NULL && s->def.nodes[i].votes != 0)
    *why = state_check (s, set_votes (c, &s->def.nodes[i], 0));
  return *why == NULL ? DOMAIN_CHANGE : DOMAIN_REFUSED;
}

static enum domain_step
next_set (const struct group *g, const struct node_change *want, struct change *c,
          const char **why)
{
  const struct crg_state *s = &g->committed;
  int i = state_node_index (s, want->node.id);
  const struct domain_node *n = &s->def.nodes[i < 0 ? 0 : i];
  unsigned left = want->fields;

  if (i >= 0) {
    if (n->preferred_role == want->node.preferred_role)
      left &= ~NODE_SET_ROLE;
    if (n->votes == want->node.votes)
      left &= ~NODE_SET_VOTES;
    if (n->order == want->node.order)
      left &= ~NODE_SET_ORDER;
    if (n->n_addresses == want->node.n_addresses
        && memcmp (n->addresses, want->node.addresses, sizeof n->addresses) == 0)
      left &= ~NODE_SET_ADDRESSES;
    if (left == 0)
      return DOMAIN_DONE;
  }
  memset (c, 0, sizeof *c);
  c->kind = CH_NODE;
  c->node_change = *want;
  c->node_change.fields = (uint8_t) left;
  if ((left & NODE_SET_VOTES) && want->node.votes > n->votes && i >= 0
      && !holds_state (g, want->node.id)) {
    *why = "the node holds no state now, so it can't use a vote: it has to join first (C6)";
    return DOMAIN_REFUSED;
  }
  *why = state_check (s, c);
  return *why == NULL ? DOMAIN_CHANGE : DOMAIN_REFUSED;
}

enum domain_step
domain_next (struct group *g, const struct node_change *want, struct change *c, const char **why)
{
  /* C7: one node at a time; the second step comes by itself. */
  *why = "votes are being changed: the second step waits one lease time (C7)";
  if (state_votes_change (&g->committed))
    return DOMAIN_WAIT;
  switch (want->op) {
  case NODE_ADD: return next_add (g, want, c, why);
  case NODE_REMOVE: return next_remove (g, want, c, why);
  case NODE_SET: return next_set (g, want, c, why);
  default:
    *why = "unknown change of the domain";
    return DOMAIN_REFUSED;
  }
}

/* C7: the second step, proposed by every member, applied once. */
bool
domain_want (const struct group *g, struct change *c)
{
  if (!state_votes_change (&g->committed) || g->now_ms < g->finish_ms)
    return false;
  memset (c, 0, sizeof *c);
  c->kind = CH_NODE;
  c->node_change.op = NODE_FINISH;
  return true;
}

/* What is applied is about to be what is committed. */
void
domain_on_commit (struct group *g, bool first, struct group_actions *out)
{
  if (!first && g->committed.domain == g->applied.domain)
    return;
  /* C7: by then every lease is over that was granted by the votes of before: some of those
   * who have stored the first step have granted it, and said for how long. */
  g->finish_ms = g->now_ms;
  for (unsigned i = 0; i < CRG_MAX_NODES; i++)
    if (g->peers[i].id != NO_NODE)
      g->finish_ms = MAX (g->finish_ms, g->now_ms + g->peers[i].longest_ms);
  if (!g->has_committed || g->committed.domain == g->applied.domain)
    return;
  for (unsigned i = 0; i < CRG_MAX_IASPS; i++) {
    /* Message 5 goes out again; the plugin hears who its peers are. */
    g->host[i].config_mine++;
    g->host[i].record_told = false;
  }
  group_act (out, GA_DOMAIN);
}

/* C9: a group that was recovered from ours is here: what this node holds is of
 * the past, even where a majority of that past has come back. */
bool
domain_is_past (const struct group *g)
{
  if (!g->has_state || g->phase == PHASE_NO_VIEW)
    return false;
  for (unsigned i = 0; i < CRG_MAX_NODES; i++)
    if (g->peers[i].id != NO_NODE && g->peers[i].in_view && g->peers[i].answered
        && g->peers[i].succeeds)
      return true;
  return false;
}
