/* SPDX-License-Identifier: BSD-3-Clause
 *
 * What this node would have the group state be, part of the group core: after
 * each event at most one change is proposed, computed from the committed
 * state, who is present, what each announced and what the plugins and the
 * operator want (C3, C8, F1 to F5, R2, R3).  State lives in struct group;
 * called by group.c.
 */
#include <string.h>

#include "common/util.h"
#include "server/bytes.h"
#include "server/group_private.h"
#include "server/place.h"

/* ---- proposals ---------------------------------------------------------- */

static void
propose (struct group *g, struct group_actions *out, struct change *c)
{
  c->base = g->applied.stamp;
  /* The same one again keeps its time. */
  c->at_ms = g->proposal.at_ms;
  if (g->proposed && g->proposed_view == g->view
      && memcmp (c, &g->proposal, sizeof *c) == 0
      && g->now_ms < g->proposed_ms + 2ull * g->cfg.token_ms)
    return;
  if (!group_room (out) || state_check (&g->applied, c) != NULL)
    return;
  c->at_ms = g->wall_ms;
  g->proposed = true;
  g->proposed_view = g->view;
  g->proposed_ms = g->now_ms;
  g->proposal = *c;
  if (c->kind == CH_ENTER) {
    g->enter_proposed = true;
    g->enter_view = g->view;
    g->enter_base = c->base;
  }
  if (c->kind == CH_APPOINT && c->graceful) {
    g->sw.proposed = true;
    g->sw.proposed_view = g->view;
    g->sw.proposed_base = c->base;
  }
  g->counters.proposals++;
  g->out.u.change = *c;
  group_send (g, out, MSG_CHANGE);
}

void
place_gather (const struct group *g, struct place_in *in)
{
  bool all = true;

  memset (in, 0, sizeof *in);
  in->state = &g->committed;
  in->warm = g->warm;
  for (unsigned i = 0; i < g->committed.def.n_nodes; i++) {
    const struct domain_node *d = &g->committed.def.nodes[i];
    const struct peer *p = group_peer_const (g, d->id);
    struct place_node *n = &in->node[i];

    n->waited_for = !d->marked_failed && g->wait_set && g->now_ms < g->wait_until_ms
                    && (p == NULL || !p->seen);
    /* F7: it may be a restart of its crgd alone, under which its plugin serves
     * on; within its lease nobody could take its place in any case. */
    n->returning = !d->marked_failed && (p == NULL || !p->in_view)
                   && g->now_ms < group_return_until_ms (g, p);
    if (p == NULL)
      continue;
    n->present = group_present (g, p);
    /* C8: in the view and not heard of for less than the silent time. */
    n->maybe = p->in_view && !p->answered && p->silent < ALIVE_SILENT;
    if (n->present && p->announced)
      n->announce = &p->announce;
    if (n->present && !p->announced)
      all = false;
  }
  for (unsigned i = 0; i < g->committed.def.n_iasps; i++)
    for (uint8_t s = 0; s < g->committed.def.n_sites; s++)
      if (g->host[i].told_role == HOST_PRODUCTION && g->host[i].link[s].down)
        in->links_down[i] |= (uint8_t) (1u << s);
  in->ready = all
              || g->now_ms >= MAX (g->commit_ms, g->asked_ms) + 2ull * g->cfg.token_ms;
}

/* R2, R3, F4: what the plugins of this node want. */
static bool
want_local (struct group *g, struct change *c)
{
  int me = group_me (g);
  uint8_t site;

  if (me < 0 || (site = g->committed.def.nodes[me].site) == NO_SITE)
    return false;
  for (unsigned i = 0; i < g->committed.def.n_iasps; i++) {
    const struct iasp_rec *r = &g->committed.rec[i];
    struct hosting *h = &g->host[i];

    memset (c, 0, sizeof *c);
    c->iasps = 1u << i;
    c->expect_tenure = r->tenure;
    if (h->store_failed && r->copies[site].host == g->cfg.node_id
        && !r->copies[site].barred) {
      c->kind = CH_BAR;
      c->site = site;
      str_set (c->reason, sizeof c->reason, h->reason);
      return true;
    }
    if (r->production_site != site || r->copies[site].host != g->cfg.node_id
        || h->told_role != HOST_PRODUCTION)
      continue;
    for (uint8_t s = 0; s < g->committed.def.n_sites; s++)
      if (h->link[s].lost && s != site && r->copies[s].in_set) {
        c->kind = CH_SHRINK;
        c->site = s;
        str_set (c->reason, sizeof c->reason, h->link[s].lost_reason);
        return true;
      }
  }
  for (unsigned i = 0; i < g->committed.def.n_iasps; i++) {
    const struct iasp_rec *r = &g->committed.rec[i];
    struct hosting *h = &g->host[i];

    if (r->production_site != site || r->copies[site].host != g->cfg.node_id
        || h->told_role != HOST_PRODUCTION)
      continue;
    for (uint8_t s = 0; s < g->committed.def.n_sites; s++)
      if (h->link[s].ready && !h->link[s].lost && s != site && !r->copies[s].in_set
          && r->copies[s].host != NO_NODE && !r->copies[s].barred && !r->copies[s].detached
          && !r->copies[s].suspended) {
        memset (c, 0, sizeof *c);
        c->kind = CH_ENTER;
        c->iasps = 1u << i;
        c->expect_tenure = r->tenure;
        c->site = s;
        c->node = r->copies[s].host;
        memcpy (c->boot_id, h->link[s].ready_boot_id, CRG_ID_LEN);
        return true;
      }
  }
  return false;
}

/* C8: a silent member is expelled and counts as left.  F5: a node that was
 * marked failed and is back is so no more. */
static bool
want_member (const struct group *g, struct change *c, bool expel)
{
  for (unsigned i = 0; i < CRG_MAX_NODES; i++) {
    const struct peer *p = &g->peers[i];
    int n = p->id == NO_NODE ? -1 : state_node_index (&g->committed, p->id);

    if (n < 0 || !p->in_view)
      continue;
    memset (c, 0, sizeof *c);
    c->node = p->id;
    if (expel && p->id != g->cfg.node_id && p->spoke && p->silent >= ALIVE_SILENT
        && !group_is_expelled (&g->committed, p->id, p->incarnation)) {
      c->kind = CH_EXPEL;
      c->incarnation = p->incarnation;
      return true;
    }
    if (!expel && g->committed.def.nodes[n].marked_failed && group_present (g, p)) {
      c->kind = CH_MARK_FAILED;
      c->clear = true;
      return true;
    }
  }
  return false;
}

/* S1 d: what was fenced is marked failed, unless it is back already. */
static bool
want_fenced (struct group *g, struct change *c)
{
  const struct peer *p = group_peer_const (g, g->fence.node);
  int n = state_node_index (&g->committed, g->fence.node);

  if (!g->fence.done)
    return false;
  if (n < 0 || g->committed.def.nodes[n].marked_failed || (p != NULL && p->in_view)) {
    g->fence.node = NO_NODE;
    g->fence.done = false;
    return false;
  }
  memset (c, 0, sizeof *c);
  c->kind = CH_MARK_FAILED;
  c->node = g->fence.node;
  return true;
}

/* After each event: at most one change to propose, computed from the
 * committed state; so a lost proposal is made again by itself.  H9: who leaves, a
 * switchover and a failed resource are changes like any other. */
void
want_settle (struct group *g, struct group_actions *out)
{
  struct place_in in;
  struct change c;

  if (!group_active (g))
    return;
  if (domain_want (g, &c) || request_want (g, &c) || want_member (g, &c, true)) {
    propose (g, out, &c);
    return;
  }
  if (g->committed.started) {
    place_gather (g, &in);
    if (want_fenced (g, &c) || place_production (&in, &c) || place_restarted (&in, &c)
        || want_local (g, &c) || place_copies (&in, &c)) {
      propose (g, out, &c);
      return;
    }
  }
  if (want_member (g, &c, false))
    propose (g, out, &c);
}
