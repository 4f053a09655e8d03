/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Changes of the recovery domain (C7) and the recovery of a lost majority
 * (C9): what they do to the group state.  Nodes come and go without a vote;
 * a vote changes in two steps: first the state carries the old and the new
 * votes, and every majority is one of both; the second step drops the old
 * ones.  Pure and deterministic, like state.c; owns nothing.
 */
#include <string.h>

#include "common/util.h"
#include "server/bytes.h"
#include "server/state.h"

bool
state_votes_change (const struct crg_state *s)
{
  for (unsigned i = 0; i < s->def.n_nodes; i++)
    if (s->def.nodes[i].votes != s->def.nodes[i].new_votes)
      return true;
  return false;
}

static int
find_name (const struct crg_state *s, const char *name)
{
  for (unsigned i = 0; i < s->def.n_nodes; i++)
    if (strcmp (s->def.nodes[i].name, name) == 0)
      return (int) i;
  return -1;
}

int
state_site_index (const struct crg_state *s, const char *site)
{
  for (unsigned i = 0; i < s->def.n_sites; i++)
    if (strcmp (s->def.sites[i], site) == 0)
      return (int) i;
  return -1;
}

static unsigned
nodes_at (const struct crg_state *s, uint8_t site)
{
  unsigned n = 0;

  for (unsigned i = 0; i < s->def.n_nodes; i++)
    n += s->def.nodes[i].site == site;
  return n;
}

static bool
may_host (uint8_t role)
{
  return role == MEMBER_PRIMARY || role == MEMBER_BACKUP;
}

/* ---- check -------------------------------------------------------------- */

static const char *
check_add (const struct crg_state *s, const struct node_change *c)
{
  const struct domain_node *n = &c->node;

  if (s->def.n_nodes == CRG_MAX_NODES)
    return "the recovery domain has 16 nodes, which is all it can have";
  if (n->id == NO_NODE || n->name[0] == 0)
    return "the node has no id or no name";
  if (state_node_index (s, n->id) >= 0)
    return "a node of that id is in the recovery domain";
  if (find_name (s, n->name) >= 0)
    return "the node is in the recovery domain";
  if (n->votes != 0)
    return "a node comes without a vote, and gets it when it holds the state (C7)";
  if (n->preferred_role > MEMBER_REPLICATE || n->preferred_role == MEMBER_PRIMARY)
    return "a node is added as backup, peer or replicate";
  if ((n->preferred_role == MEMBER_REPLICATE) != (c->site[0] == 0))
    return "a replicate has no site, every other node has one";
  if (n->n_addresses == 0 || n->n_addresses > CRG_MAX_ADDRS)
    return "a node has 1 to 4 addresses";
  if (c->site[0] != 0 && state_site_index (s, c->site) < 0 && s->def.n_sites == CRG_MAX_SITES)
    return "the CRG has 8 sites, which is all it can have";
  /* Also of one whose nodes have all been removed. */
  if (c->site[0] != 0 && n->preferred_role != MEMBER_BACKUP
      && (state_site_index (s, c->site) < 0 || nodes_at (s, (uint8_t) state_site_index (s, c->site)) == 0))
    return "the first node of a site has to be able to host its copy";
  /* ACCESS: it has access to what it has a store for; a new site has all. */
  for (unsigned i = 0; i < s->def.n_iasps && may_host (n->preferred_role); i++)
    if (s->def.iasps[i].type == RES_IASP && c->store[i][0] == 0
        && (s->def.placement == PLACEMENT_SITE || state_site_index (s, c->site) < 0
            || nodes_at (s, (uint8_t) state_site_index (s, c->site)) == 0))
      return "a node that can host needs a store for each IASP";
  return NULL;
}

/* Whose copy is lost with its last node. */
static bool
takes_copy_along (const struct crg_state *s, unsigned node)
{
  uint8_t site = s->def.nodes[node].site;

  return site != NO_SITE && nodes_at (s, site) == 1;
}

/* Of a site that stays, whose copy nobody could host: a peer never does. */
static bool
is_last_to_host (const struct crg_state *s, unsigned node)
{
  const struct crg_def *d = &s->def;
  bool last = may_host (d->nodes[node].preferred_role) && !takes_copy_along (s, node);

  for (unsigned i = 0; i < d->n_nodes; i++)
    last = last && (i == node || d->nodes[i].site != d->nodes[node].site || !may_host (d->nodes[i].preferred_role));
  return last;
}

/* ACCESS: a site that stays, and a copy there that nobody could open. */
static bool
is_last_with_store (const struct crg_state *s, unsigned node)
{
  const struct crg_def *d = &s->def;

  for (unsigned k = 0; k < d->n_iasps && !takes_copy_along (s, node); k++) {
    bool other = d->iasps[k].store[node][0] == 0 || !may_host (d->nodes[node].preferred_role);

    for (unsigned i = 0; i < d->n_nodes; i++)
      other = other || (i != node && d->nodes[i].site == d->nodes[node].site
                        && may_host (d->nodes[i].preferred_role) && d->iasps[k].store[i][0] != 0);
    if (!other && d->placement == PLACEMENT_ACCESS)
      return true;
  }
  return false;
}

static const char *
check_remove (const struct crg_state *s, const struct node_change *c)
{
  int i = state_node_index (s, c->node.id);
  const struct domain_node *n;

  if (i < 0)
    return "no such node in the recovery domain";
  n = &s->def.nodes[i];
  if (n->votes != 0)
    return "the node has a vote: that goes first (C7)";
  if (s->def.n_nodes == 1)
    return "it is the last node: delete the CRG instead";
  if (state_hosts_production (s, n->id))
    return "it is the production host: switch over first";
  for (unsigned k = 0; k < s->def.n_iasps; k++)
    if (n->site != NO_SITE && n->site == s->rec[k].production_site && takes_copy_along (s, (unsigned) i))
      return "it is the last node of the production site: switch over first";
  if (is_last_to_host (s, (unsigned) i))
    return "only peers would be left at its site, and nobody could host its copy: add a backup there, or remove the "
           "peers first";
  if (is_last_with_store (s, (unsigned) i))
    return "it is the last node of its site with a store for one of the IASPs: nobody could host that";
  if (takes_copy_along (s, (unsigned) i))
    return c->drop_copy ? NULL
           : "it is the last node of its site, so its copy would leave the CRG: say --drop-copy";
  for (unsigned k = 0; k < s->def.n_iasps && n->site != NO_SITE; k++)
    if (s->rec[k].copies[n->site].host == n->id && !n->marked_failed)
      return "it hosts the copy of its site: hand it over (stop crgd there), or mark it failed if it is dead";
  return NULL;
}

static const char *
check_set (const struct crg_state *s, const struct node_change *c)
{
  int i = state_node_index (s, c->node.id);
  const struct domain_node *n;
  unsigned votes = 0;

  if (i < 0)
    return "no such node in the recovery domain";
  n = &s->def.nodes[i];
  if (c->fields == 0)
    return "nothing is to be changed";
  if (c->fields & NODE_SET_ROLE) {
    if (c->node.preferred_role > MEMBER_REPLICATE
        || (c->node.preferred_role == MEMBER_REPLICATE) != (n->site == NO_SITE))
      return "a replicate stays one, and no other node becomes one: remove it and add it anew";
    if (may_host (n->preferred_role) && c->node.preferred_role == MEMBER_PRIMARY)
      ;
    else if (n->preferred_role == MEMBER_PRIMARY && c->node.preferred_role != MEMBER_PRIMARY)
      return "it is the preferred primary: make another node that";
    else if (!may_host (c->node.preferred_role)) {
      for (unsigned k = 0; k < s->def.n_iasps; k++)
        if (n->site != NO_SITE && s->rec[k].copies[n->site].host == n->id)
          return "it hosts a copy: hand it over first";
      if (may_host (n->preferred_role) && (takes_copy_along (s, (unsigned) i) || is_last_to_host (s, (unsigned) i)))
        return "it is the last node of its site that can host: nobody could host the copy";
      if (is_last_with_store (s, (unsigned) i))
        return "it is the last node of its site with a store for one of the IASPs: nobody could host that";
    }
    for (unsigned k = 0; k < s->def.n_iasps && may_host (c->node.preferred_role); k++)
      if (s->def.placement == PLACEMENT_SITE && s->def.iasps[k].type == RES_IASP
          && s->def.iasps[k].store[i][0] == 0)
        return "it has no store, so it can't host: remove it and add it anew";
  }
  if (c->fields & NODE_SET_VOTES) {
    for (unsigned k = 0; k < s->def.n_nodes; k++)
      votes += k == (unsigned) i ? c->node.votes : s->def.nodes[k].votes;
    if (votes == 0)
      return "no node would have a vote";
    if (c->node.votes == n->votes && c->fields == NODE_SET_VOTES)
      return "the node has that many votes";
  }
  if (c->fields & NODE_SET_ORDER) {
    if (c->node.order >= s->def.n_nodes)
      return "there is no such place in the backup order";
    if (s->def.placement == PLACEMENT_ACCESS)
      return "each resource of this CRG has a backup order of its own, which moves with it (F5)";
    if (n->id == state_production_host (s) || c->node.order == 0)
      return "the first place in the backup order is the production host's: switch over instead";
  }
  if ((c->fields & NODE_SET_ADDRESSES)
      && (c->node.n_addresses == 0 || c->node.n_addresses > CRG_MAX_ADDRS))
    return "a node has 1 to 4 addresses";
  if (c->fields & NODE_SET_ADDRESSES)
    for (unsigned k = 0; k < s->def.n_iasps && n->site != NO_SITE; k++)
      if (s->def.iasps[k].type == RES_IASP && s->rec[k].copies[n->site].host == n->id)
        return "it hosts a copy, whose links use its addresses: hand it over first";
  return NULL;
}

const char *
state_check_node (const struct crg_state *s, const struct node_change *c)
{
  if (c->op == NODE_FINISH)
    return state_votes_change (s) ? NULL : "no votes are being changed";
  /* C7: one node at a time. */
  if (state_votes_change (s))
    return "the votes of another node are being changed: try again (C7)";
  switch (c->op) {
  case NODE_ADD: return check_add (s, c);
  case NODE_REMOVE: return check_remove (s, c);
  case NODE_SET: return check_set (s, c);
  default: return "unknown change of the domain";
  }
}

/* ---- S1 d: removed while marked failed ---------------------------------- */

bool
state_is_fenced (const struct crg_state *s, const char *name)
{
  int i = find_name (s, name);

  if (i >= 0)
    return s->def.nodes[i].marked_failed;
  for (unsigned k = 0; k < s->n_gone; k++)
    if (strcmp (s->gone[k], name) == 0)
      return true;
  return false;
}

/* Another node of that name is another matter. */
static void
forget_gone (struct crg_state *s, const char *name)
{
  for (unsigned k = 0; k < s->n_gone; k++)
    if (strcmp (s->gone[k], name) == 0) {
      s->n_gone--;
      memmove (s->gone[k], s->gone[k + 1], (s->n_gone - k) * sizeof s->gone[0]);
      memset (s->gone[s->n_gone], 0, sizeof s->gone[0]);
      return;
    }
}

/* The oldest makes room: by then somebody else has had its stores open. */
static void
remember_gone (struct crg_state *s, const char *name)
{
  memmove (s->gone[1], s->gone[0], sizeof s->gone - sizeof s->gone[0]);
  str_set (s->gone[0], sizeof s->gone[0], name);
  s->n_gone = (uint8_t) MIN (s->n_gone + 1, CRG_MAX_GONE);
}

/* ---- apply -------------------------------------------------------------- */

static void
apply_add (struct crg_state *s, const struct node_change *c)
{
  struct crg_def *d = &s->def;
  unsigned at = d->n_nodes++;
  struct domain_node *n = &d->nodes[at];
  bool new_copy = false;

  *n = c->node;
  n->votes = n->new_votes = 0;
  n->order = n->preferred_order = (uint8_t) at;
  n->expelled = 0;
  n->marked_failed = false;
  forget_gone (s, n->name);
  n->site = NO_SITE;
  if (c->site[0] != 0) {
    int site = state_site_index (s, c->site);

    if (site < 0) {
      site = d->n_sites++;
      str_set (d->sites[site], sizeof d->sites[0], c->site);
      new_copy = true;
    } else
      new_copy = nodes_at (s, (uint8_t) site) == 0;
    n->site = (uint8_t) site;
  }
  for (unsigned i = 0; i < d->n_iasps; i++) {
    str_set (d->iasps[i].store[at], sizeof d->iasps[i].store[at], c->store[i]);
    d->iasps[i].order[at] = (uint8_t) at;
    if (new_copy) {
      struct copy_rec *copy = &s->rec[i].copies[n->site];

      /* A new site is a new copy: empty, so not in the set (R3). */
      memset (copy, 0, sizeof *copy);
      if (d->iasps[i].type == RES_SCRIPT)
        copy->in_set = true;
      else {
        copy->host = n->id;
        str_set (copy->reason, sizeof copy->reason, "the copy is new");
      }
    }
  }
}

static void
apply_remove (struct crg_state *s, const struct node_change *c)
{
  struct crg_def *d = &s->def;
  unsigned at = (unsigned) state_node_index (s, c->node.id);
  struct domain_node gone = d->nodes[at];
  bool last = takes_copy_along (s, at);

  if (gone.site != NO_SITE && gone.marked_failed)
    remember_gone (s, gone.name);
  for (unsigned i = 0; i < d->n_iasps && gone.site != NO_SITE; i++) {
    struct iasp_rec *r = &s->rec[i];
    struct copy_rec *copy = &r->copies[gone.site];

    if (copy->host == gone.id)
      copy->host = NO_NODE;
    if (!last)
      continue;
    /* R2: generation rises whenever the set shrinks.  R6: what lies there is
     * a fork from now on. */
    if (copy->in_set && d->iasps[i].type == RES_IASP)
      r->generation++;
    copy->in_set = false;
    copy->detached = true;
    copy->host = NO_NODE;
    str_set (copy->reason, sizeof copy->reason, "its last node was removed");
  }
  for (unsigned i = 0; i < d->n_nodes; i++) {
    d->nodes[i].order = (uint8_t) (d->nodes[i].order - (d->nodes[i].order > gone.order));
    d->nodes[i].preferred_order
      = (uint8_t) (d->nodes[i].preferred_order - (d->nodes[i].preferred_order > gone.preferred_order));
  }
  d->n_nodes--;
  memmove (&d->nodes[at], &d->nodes[at + 1], (d->n_nodes - at) * sizeof d->nodes[0]);
  memset (&d->nodes[d->n_nodes], 0, sizeof d->nodes[0]);
  for (unsigned i = 0; i < d->n_iasps; i++) {
    uint8_t *order = d->iasps[i].order, place = order[at];

    memmove (d->iasps[i].store[at], d->iasps[i].store[at + 1],
             (d->n_nodes - at) * sizeof d->iasps[i].store[0]);
    memset (d->iasps[i].store[d->n_nodes], 0, sizeof d->iasps[i].store[0]);
    memmove (order + at, order + at + 1, d->n_nodes - at);
    order[d->n_nodes] = 0;
    for (unsigned k = 0; k < d->n_nodes; k++)
      order[k] = (uint8_t) (order[k] - (order[k] > place));
  }
  /* Somebody is the preferred primary, if anybody can host at all. */
  if (gone.preferred_role == MEMBER_PRIMARY)
    for (unsigned place = 0; place < d->n_nodes; place++)
      for (unsigned i = 0; i < d->n_nodes; i++)
        if (d->nodes[i].order == place && d->nodes[i].preferred_role == MEMBER_BACKUP) {
          d->nodes[i].preferred_role = MEMBER_PRIMARY;
          return;
        }
}

static void
apply_set (struct crg_state *s, const struct node_change *c)
{
  unsigned at = (unsigned) state_node_index (s, c->node.id);
  struct domain_node *n = &s->def.nodes[at];

  if (c->fields & NODE_SET_ROLE) {
    if (c->node.preferred_role == MEMBER_PRIMARY)
      for (unsigned i = 0; i < s->def.n_nodes; i++)
        if (s->def.nodes[i].preferred_role == MEMBER_PRIMARY)
          s->def.nodes[i].preferred_role = MEMBER_BACKUP;
    n->preferred_role = c->node.preferred_role;
  }
  if (c->fields & NODE_SET_VOTES)
    n->new_votes = c->node.votes; /* C7: the old ones count as well */
  if (c->fields & NODE_SET_ORDER)
    state_move_place (s, 0, at, c->node.order);
  if (c->fields & NODE_SET_ADDRESSES) {
    n->n_addresses = c->node.n_addresses;
    memcpy (n->addresses, c->node.addresses, sizeof n->addresses);
  }
}

void
state_apply_node (struct crg_state *s, const struct node_change *c)
{
  s->domain++;
  switch (c->op) { /* never: another; state_check_node () refused it */
  case NODE_ADD: apply_add (s, c); break;
  case NODE_REMOVE: apply_remove (s, c); break;
  case NODE_SET: apply_set (s, c); break;
  case NODE_FINISH:
    /* C7: the second step drops the old votes. */
    for (unsigned i = 0; i < s->def.n_nodes; i++)
      s->def.nodes[i].votes = s->def.nodes[i].new_votes;
    break;
  }
}

/* ---- C9 ----------------------------------------------------------------- */

static bool
site_is_dead (const struct crg_state *s, uint8_t site, uint16_t dead)
{
  for (unsigned i = 0; i < s->def.n_nodes; i++)
    if (s->def.nodes[i].site == site && may_host (s->def.nodes[i].preferred_role)
        && !(dead & (1u << i)))
      return false;
  return true;
}

/* Production of a unit moves to a copy of the set whose site lives. */
static const char *
recover_production (struct crg_state *s, unsigned unit, uint16_t dead)
{
  uint32_t iasps = state_unit_iasps (s, unit);
  int best = -1;

  for (unsigned i = 0; i < s->def.n_nodes; i++) {
    const struct domain_node *n = &s->def.nodes[i];
    bool fits = n->site != NO_SITE && may_host (n->preferred_role) && !(dead & (1u << i));

    for (unsigned k = 0; k < s->def.n_iasps && fits; k++) {
      const struct copy_rec *c = &s->rec[k].copies[n->site];

      if (iasps & (1u << k))
        fits = c->in_set && !c->barred && !c->detached /* R4 */
               && (s->def.placement == PLACEMENT_SITE || s->def.iasps[k].type == RES_SCRIPT
                   || s->def.iasps[k].store[i][0] != 0);
    }
    if (fits && (best < 0 || state_order (s, unit, i) < state_order (s, unit, (unsigned) best)))
      best = (int) i;
  }
  if (best < 0)
    return "no copy that may take over (R4) is at a site that is left";
  for (unsigned k = 0; k < s->def.n_iasps; k++) {
    struct iasp_rec *r = &s->rec[k];

    if (!(iasps & (1u << k)))
      continue;
    r->tenure++;
    r->forced = false; /* that was of an earlier tenure */
    r->production_site = s->def.nodes[best].site;
    r->copies[r->production_site].host = s->def.nodes[best].id;
  }
  state_move_place (s, unit, (unsigned) best, 0);
  return NULL;
}

uint16_t
state_same_nodes (const struct crg_state *s, const struct crg_state *of, uint16_t nodes)
{
  uint16_t same = 0;

  for (unsigned i = 0; i < of->def.n_nodes; i++) {
    int k = nodes & (1u << i) ? state_node_index (s, of->def.nodes[i].id) : -1;

    if (k >= 0)
      same |= (uint16_t) (1u << k);
  }
  return same;
}

const char *
state_recover (struct crg_state *s, uint32_t self, uint16_t dead, uint64_t epoch,
               const uint8_t lineage[CRG_ID_LEN])
{
  int me = state_node_index (s, self);
  const char *why = NULL;

  if (me < 0)
    return "this node is not in the recovery domain";
  if (s->deleted)
    return "the CRG is deleted";
  if (dead == 0)
    return "no node is named as dead: nothing is lost";
  if (dead & (1u << me))
    return "this node can't be dead";
  for (unsigned u = 0; u < state_units (s) && why == NULL; u++)
    if (s->rec[u].production_site != NO_SITE && site_is_dead (s, s->rec[u].production_site, dead))
      why = recover_production (s, u, dead);
  if (why != NULL)
    return why;
  for (unsigned i = 0; i < s->def.n_nodes; i++) {
    struct domain_node *n = &s->def.nodes[i];

    /* Whoever holds a state of the old lineage has no vote, so only this
     * node can have one; the others that live get theirs back when they have
     * joined (C7). */
    n->votes = n->new_votes = i == (unsigned) me ? (uint8_t) MAX (n->new_votes, 1) : 0;
    n->expelled = 0;
    if (dead & (1u << i))
      n->marked_failed = true;
  }
  for (unsigned k = 0; k < s->def.n_iasps; k++) {
    struct iasp_rec *r = &s->rec[k];
    bool shrunk = false;

    /* A store of that lineage with a newer one has heard what isn't known here, whatever generation comes here. */
    memmove (r->past_generation + 1, r->past_generation, sizeof r->past_generation - sizeof r->past_generation[0]);
    r->past_generation[0] = r->generation;

    for (uint8_t site = 0; site < s->def.n_sites; site++) {
      struct copy_rec *c = &r->copies[site];

      if (site == r->production_site || s->def.iasps[k].type == RES_SCRIPT
          || !site_is_dead (s, site, dead))
        continue;
      shrunk = shrunk || c->in_set;
      c->in_set = false;
      c->host = NO_NODE;
      str_set (c->reason, sizeof c->reason, "the group was recovered without its nodes (C9)");
    }
    /* R2 */
    if (shrunk)
      r->generation++;
    /* What the others committed last isn't known here: writes that they
     * answered may be gone. */
    if (s->def.iasps[k].type == RES_IASP)
      r->loss++;
  }
  /* The newest past first; an older one than these is not told apart. */
  memmove (s->past[1], s->past[0], sizeof s->past - sizeof s->past[0]);
  memcpy (s->past[0], s->lineage, CRG_ID_LEN);
  s->n_past = (uint8_t) MIN (s->n_past + 1, CRG_MAX_PAST);
  memcpy (s->lineage, lineage, CRG_ID_LEN);
  s->domain++;
  s->stamp = (struct stamp) { MAX (epoch, s->stamp.epoch) + 1, 0 };
  return NULL;
}

static int
past_index (const struct crg_state *s, const uint8_t lineage[CRG_ID_LEN])
{
  for (int i = 0; i < s->n_past; i++)
    if (memcmp (s->past[i], lineage, CRG_ID_LEN) == 0)
      return i;
  return -1;
}

bool
state_is_past (const struct crg_state *s, const uint8_t lineage[CRG_ID_LEN])
{
  return past_index (s, lineage) >= 0;
}

uint64_t
state_newest_generation (const struct crg_state *s, unsigned iasp, const uint8_t lineage[CRG_ID_LEN])
{
  const int past = past_index (s, lineage);

  if (memcmp (s->lineage, lineage, CRG_ID_LEN) == 0)
    return s->rec[iasp].generation;
  return past < 0 ? 0 : s->rec[iasp].past_generation[past];
}
