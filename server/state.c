/* SPDX-License-Identifier: BSD-3-Clause
 *
 * What a change does to the group state: the deterministic half of the
 * replicated state machine (C3) and the rules of the record (R1 to R4, F4,
 * F5).  Owns nothing: values in, values out; called by the group core on the
 * daemon's main loop, and by tests.  Never does I/O, reads a clock, allocates
 * or looks at anything but its arguments: two nodes with equal states must
 * get equal states.
 */
#include <string.h>

#include "server/bytes.h"
#include "server/state.h"

int
stamp_compare (struct stamp a, struct stamp b)
{
  if (a.epoch != b.epoch)
    return a.epoch < b.epoch ? -1 : 1;
  if (a.version != b.version)
    return a.version < b.version ? -1 : 1;
  return 0;
}

int
state_node_index (const struct crg_state *s, uint32_t id)
{
  for (unsigned i = 0; i < s->def.n_nodes; i++)
    if (s->def.nodes[i].id == id)
      return (int) i;
  return -1;
}

uint32_t
state_all_iasps (const struct crg_state *s)
{
  return (1u << s->def.n_iasps) - 1;
}

unsigned
state_units (const struct crg_state *s)
{
  return s->def.placement == PLACEMENT_ACCESS ? s->def.n_iasps : 1;
}

unsigned
state_unit (const struct crg_state *s, unsigned iasp)
{
  return s->def.placement == PLACEMENT_ACCESS ? iasp : 0;
}

uint32_t
state_unit_iasps (const struct crg_state *s, unsigned unit)
{
  return s->def.placement == PLACEMENT_ACCESS ? 1u << unit : state_all_iasps (s);
}

uint32_t
state_unit_host (const struct crg_state *s, unsigned unit)
{
  const struct iasp_rec *r = &s->rec[unit];

  return r->production_site == NO_SITE ? NO_NODE : r->copies[r->production_site].host;
}

uint64_t
state_unit_tenure (const struct crg_state *s, unsigned unit)
{
  return s->rec[unit].tenure;
}

uint8_t
state_order (const struct crg_state *s, unsigned unit, unsigned node)
{
  return s->def.placement == PLACEMENT_ACCESS ? s->def.iasps[unit].order[node]
                                              : s->def.nodes[node].order;
}

bool
state_hosts_production (const struct crg_state *s, uint32_t node)
{
  for (unsigned u = 0; u < state_units (s); u++)
    if (state_unit_host (s, u) == node)
      return true;
  return false;
}

uint32_t
state_production_host (const struct crg_state *s)
{
  return state_unit_host (s, 0);
}

uint64_t
state_tenure (const struct crg_state *s)
{
  return state_unit_tenure (s, 0);
}

bool
state_has_majority (const struct crg_state *s, const uint32_t *ids, unsigned n)
{
  unsigned have = 0, all = 0, new_have = 0, new_all = 0;

  for (unsigned i = 0; i < s->def.n_nodes; i++) {
    const struct domain_node *d = &s->def.nodes[i];
    bool there = false;

    for (unsigned k = 0; k < n && !there; k++)
      there = ids[k] == d->id;
    all += d->votes;
    new_all += d->new_votes;
    if (there) {
      have += d->votes;
      new_have += d->new_votes;
    }
  }
  /* C2, C7: of the configured votes, never of those present; of both while
   * votes are being changed. */
  return 2 * have > all && 2 * new_have > new_all;
}

/* ---- creation ----------------------------------------------------------- */

static bool
bad_name (const char *s)
{
  return s[0] == 0;
}

static const char *
check_nodes (const struct crg_def *d)
{
  uint16_t orders = 0;
  unsigned votes = 0;

  if (d->n_nodes == 0 || d->n_nodes > CRG_MAX_NODES)
    return "the recovery domain needs 1 to 16 nodes";
  for (unsigned i = 0; i < d->n_nodes; i++) {
    const struct domain_node *n = &d->nodes[i];

    if (n->id == NO_NODE || bad_name (n->name))
      return "a node has no id or no name";
    if (n->order >= d->n_nodes || (orders & (1u << n->order)))
      return "the backup order does not name each place once";
    orders |= (uint16_t) (1u << n->order);
    if (n->preferred_role > MEMBER_REPLICATE)
      return "a node has an unknown role";
    if ((n->preferred_role == MEMBER_REPLICATE) != (n->site == NO_SITE))
      return "a replicate has no site, every other node has one";
    if (n->site != NO_SITE && n->site >= d->n_sites)
      return "a node names a site that does not exist";
    if (n->n_addresses > CRG_MAX_ADDRS)
      return "a node has too many addresses";
    votes += n->votes;
    for (unsigned k = 0; k < i; k++)
      if (d->nodes[k].id == n->id || strcmp (d->nodes[k].name, n->name) == 0)
        return "two nodes have the same id or name";
  }
  return votes == 0 ? "no node has a vote" : NULL;
}

/* ACCESS: each resource has an order of its own. */
static const char *
check_orders (const struct crg_def *d)
{
  for (unsigned k = 0; k < d->n_iasps && d->placement == PLACEMENT_ACCESS; k++) {
    uint16_t orders = 0;

    for (unsigned i = 0; i < d->n_nodes; i++) {
      uint8_t order = d->iasps[k].order[i];

      if (order >= d->n_nodes || (orders & (1u << order)))
        return "the backup order of a resource does not name each place once";
      orders |= (uint16_t) (1u << order);
    }
  }
  return NULL;
}

static const char *
check_def (const struct crg_def *d)
{
  const char *why;

  if (bad_name (d->name))
    return "the CRG has no name";
  if (d->takeover > TAKEOVER_ORDER)
    return "unknown takeover order";
  if (d->placement > PLACEMENT_ACCESS)
    return "unknown placement";
  if (d->n_sites == 0 || d->n_sites > CRG_MAX_SITES)
    return "a CRG needs 1 to 8 sites";
  if (d->n_iasps == 0 || d->n_iasps > CRG_MAX_IASPS)
    return "a CRG needs 1 to 8 IASPs";
  why = check_nodes (d);
  if (why == NULL)
    why = check_orders (d);
  if (why != NULL)
    return why;
  for (unsigned s = 0; s < d->n_sites; s++) {
    bool node = false;

    for (unsigned i = 0; i < d->n_nodes; i++)
      node = node || d->nodes[i].site == s;
    if (bad_name (d->sites[s]) || !node)
      return "a site has no name or no node";
    for (unsigned k = 0; k < s; k++)
      if (strcmp (d->sites[k], d->sites[s]) == 0)
        return "two sites have the same name";
  }
  for (unsigned i = 0; i < d->n_iasps; i++) {
    if (d->iasps[i].type > RES_SCRIPT)
      return "a resource has an unknown type";
    if (bad_name (d->iasps[i].name) || (d->iasps[i].type == RES_IASP && d->iasps[i].size == 0))
      return "an IASP has no name or no size";
    if (d->iasps[i].type == RES_SCRIPT && (d->iasps[i].agent[0] != '/' || d->iasps[i].timeout_ms == 0))
      return "a script has no agent or no timeout";
    for (unsigned k = 0; k < i; k++)
      if (strcmp (d->iasps[k].name, d->iasps[i].name) == 0)
        return "two IASPs have the same name";
  }
  return NULL;
}

bool
state_may_host (const struct crg_state *s, unsigned node)
{
  const struct domain_node *n = &s->def.nodes[node];

  return n->site != NO_SITE && (n->preferred_role == MEMBER_PRIMARY || n->preferred_role == MEMBER_BACKUP);
}

/* Could this node ever host that IASP?  With SITE whoever has a site can, as
 * far as the definition tells; with ACCESS only who has a store for it. */
static bool
has_store (const struct crg_state *s, unsigned iasp, unsigned node)
{
  const struct crg_def *d = &s->def;

  return state_may_host (s, node)
         && (d->placement == PLACEMENT_SITE || d->iasps[iasp].type == RES_SCRIPT
             || d->iasps[iasp].store[node][0] != 0);
}

/* The node of `site` (NO_SITE: any) that comes first in the IASP's current
 * backup order, or -1. */
static int
first_in_order (const struct crg_state *s, unsigned iasp, uint8_t site)
{
  unsigned unit = state_unit (s, iasp);
  int best = -1;

  for (unsigned i = 0; i < s->def.n_nodes; i++) {
    if (!has_store (s, iasp, i) || (site != NO_SITE && s->def.nodes[i].site != site))
      continue;
    if (best < 0 || state_order (s, unit, i) < state_order (s, unit, (unsigned) best))
      best = (int) i;
  }
  return best;
}

const char *
state_create (struct crg_state *s, const struct crg_def *def,
              const uint8_t lineage[CRG_ID_LEN])
{
  const char *why = check_def (def);

  if (why != NULL)
    return why;
  memset (s, 0, sizeof *s);
  s->stamp = (struct stamp) { 1, 0 };
  memcpy (s->lineage, lineage, CRG_ID_LEN);
  s->def = *def;
  for (unsigned i = 0; i < s->def.n_nodes; i++)
    s->def.nodes[i].new_votes = s->def.nodes[i].votes;
  for (unsigned i = 0; i < CRG_MAX_IASPS; i++)
    s->rec[i].production_site = NO_SITE;
  for (unsigned i = 0; i < def->n_iasps; i++) {
    struct iasp_rec *r = &s->rec[i];
    int primary = first_in_order (s, i, NO_SITE);

    if (primary < 0)
      return "no node can host: every node is a replicate, or has no store";
    r->tenure = 1;
    r->generation = 1;
    r->production_site = def->nodes[primary].site;
    if (def->iasps[i].type == RES_SCRIPT) {
      /* Not mirrored: nothing that one site has and another lacks. */
      for (uint8_t site = 0; site < def->n_sites; site++)
        r->copies[site].in_set = true;
      r->copies[r->production_site].host = def->nodes[primary].id;
      continue;
    }
    for (uint8_t site = 0; site < def->n_sites; site++) {
      int host = first_in_order (s, i, site);

      if (host < 0)
        return "a site has no store for one of the IASPs";
      r->copies[site].host = def->nodes[host].id;
    }
    /* R3: at create only production is in the set. */
    r->copies[r->production_site].in_set = true;
    r->copies[r->production_site].since = 1;
  }
  return NULL;
}

/* ---- check -------------------------------------------------------------- */

static bool
can_ever_host (const struct crg_state *s, int node)
{
  return node >= 0 && state_may_host (s, (unsigned) node);
}

unsigned
state_change_unit (const struct crg_state *s, const struct change *c)
{
  unsigned iasp = 0;

  while (iasp < CRG_MAX_IASPS && !(c->iasps & (1u << iasp)))
    iasp++;
  return state_unit (s, iasp);
}

static const char *
check_appoint (const struct crg_state *s, const struct change *c)
{
  int node = state_node_index (s, c->node);
  unsigned unit = state_change_unit (s, c);

  if (unit >= state_units (s) || c->iasps != state_unit_iasps (s, unit))
    return s->def.placement == PLACEMENT_SITE ? "all IASPs of a CRG move together"
                                              : "each resource of this CRG moves by itself";
  if (!can_ever_host (s, node) || s->def.nodes[node].site != c->site)
    return "the named node cannot host at that site";
  if (c->expect_node != state_unit_host (s, unit))
    return "production has another host by now";
  /* C9, R4: the named host is forced where its store has heard more than the group that was recovered. */
  if (c->node == c->expect_node && !(c->forced && s->n_past > 0))
    return "it is the production host already";
  for (unsigned i = 0; i < s->def.n_iasps; i++) {
    const struct copy_rec *copy = &s->rec[i].copies[c->site];

    if (!(c->iasps & (1u << i)))
      continue;
    if (!has_store (s, i, (unsigned) node))
      return "the named node has no store for it";
    if (c->expect_tenure != s->rec[i].tenure)
      return "the tenure is another by now";
    if (copy->barred)
      return "the copy at that site is barred";
    /* R4: a copy may take over only if it is in the committed set; an
     * operator may force it. */
    if (copy->detached && !c->forced)
      return "the copy at that site is detached";
    if (!copy->in_set && !c->forced)
      return "the copy at that site is not in the set";
  }
  return NULL;
}

/* HOST, SHRINK, ENTER, BAR: about the copies of one site. */
static const char *
check_copy (const struct crg_state *s, const struct change *c, unsigned iasp)
{
  const struct iasp_rec *r = &s->rec[iasp];
  const struct copy_rec *copy = &r->copies[c->site];
  int node;

  if (s->def.iasps[iasp].type == RES_SCRIPT && c->kind != CH_BAR)
    return "a script has no copies";
  switch (c->kind) {
  case CH_HOST:
    if (c->site == r->production_site)
      return "the production host is named by an appointment only";
    if (c->expect_node != copy->host)
      return "the copy has another host by now";
    if (c->node == c->expect_node)
      return "it is the host already";
    if (c->node == NO_NODE)
      return NULL;
    node = state_node_index (s, c->node);
    if (!can_ever_host (s, node) || s->def.nodes[node].site != c->site
        || !has_store (s, iasp, (unsigned) node))
      return "the named node cannot host at that site";
    if (copy->detached && copy->exported == DETACHED_CLOSED)
      return "the copy is detached";
    return copy->barred ? "the copy is barred" : NULL;
  case CH_SHRINK:
    if (c->site == r->production_site)
      return "production does not leave the set";
    if (c->expect_tenure != r->tenure)
      return "the tenure is another by now";
    return copy->in_set ? NULL : "the copy is not in the set";
  case CH_ENTER:
    if (c->site == r->production_site || copy->in_set)
      return "the copy is in the set";
    if (c->expect_tenure != r->tenure)
      return "the tenure is another by now";
    if (c->node == NO_NODE || copy->host != c->node)
      return "the copy has another host by now";
    if (copy->suspended)
      return "the copy is suspended by an operator";
    return copy->barred || copy->detached ? "the copy is barred or detached" : NULL;
  case CH_BAR:
    if (c->clear)
      return copy->barred ? NULL : "the copy is not barred";
    if (c->expect_tenure != r->tenure)
      return "the tenure is another by now";
    return copy->barred ? "the copy is barred already" : NULL;
  case CH_SUSPEND:
    if (c->site == r->production_site)
      return "it is the production copy";
    if (copy->detached)
      return "the copy is detached: reattach it";
    if (copy->suspended == !c->clear)
      return c->clear ? "the copy is not suspended" : "the copy is suspended already";
    return NULL;
  case CH_DETACH:
    if (c->site == r->production_site)
      return "it is the production copy";
    if (c->clear)
      return copy->detached ? NULL : "the copy is not detached";
    if (c->mode >= DETACHED_END)
      return "a detached copy is exported in no such way";
    /* It would show a state in which production never was. */
    if (c->mode != DETACHED_CLOSED && copy->since == 0)
      return "the copy was never filled";
    return copy->detached && copy->exported == c->mode ? "the copy is detached already" : NULL;
  case CH_RESTARTED:
    if (c->site != r->production_site || copy->host != c->node)
      return "production has another host by now";
    if (c->expect_tenure != r->tenure)
      return "the tenure is another by now";
    return memcmp (copy->boot_id, c->boot_id, CRG_ID_LEN) == 0
             ? "the restart is accepted already" : NULL;
  default:
    return "unknown change";
  }
}

const char *
state_check (const struct crg_state *s, const struct change *c)
{
  int node;

  if (s->deleted)
    return "the CRG is deleted";
  switch (c->kind) {
  case CH_NODE:
    return state_check_node (s, &c->node_change);
  case CH_START:
    return s->started ? "the CRG is started" : NULL;
  case CH_END:
    return s->started ? NULL : "the CRG is not started";
  case CH_DELETE:
    return s->started ? "the CRG is started: end it first" : NULL;
  case CH_APPOINT:
    return check_appoint (s, c);
  case CH_HOST:
  case CH_SHRINK:
  case CH_ENTER:
  case CH_BAR:
  case CH_RESTARTED:
  case CH_SUSPEND:
  case CH_DETACH:
    if (c->iasps == 0 || (c->iasps & ~state_all_iasps (s)) != 0)
      return "no such IASP";
    if (c->site >= s->def.n_sites)
      return "no such site";
    for (unsigned i = 0; i < s->def.n_iasps; i++)
      if (c->iasps & (1u << i)) {
        const char *why = check_copy (s, c, i);
        if (why != NULL)
          return why;
      }
    return NULL;
  case CH_EXPEL:
    node = state_node_index (s, c->node);
    if (node < 0 || c->incarnation == 0)
      return "no such node";
    return s->def.nodes[node].expelled == c->incarnation ? "it is expelled already" : NULL;
  case CH_MARK_FAILED:
    node = state_node_index (s, c->node);
    if (node < 0)
      return "no such node";
    if (s->def.nodes[node].marked_failed == !c->clear)
      return c->clear ? "the node is not marked failed" : "the node is marked failed already";
    return NULL;
  default:
    return "unknown change";
  }
}

/* ---- apply -------------------------------------------------------------- */

static uint8_t *
order_of (struct crg_state *s, unsigned unit, unsigned node)
{
  return s->def.placement == PLACEMENT_ACCESS ? &s->def.iasps[unit].order[node]
                                              : &s->def.nodes[node].order;
}

void
state_move_place (struct crg_state *s, unsigned unit, unsigned node, uint8_t to)
{
  uint8_t from = state_order (s, unit, node);

  for (unsigned i = 0; i < s->def.n_nodes; i++) {
    uint8_t *order = order_of (s, unit, i);

    if (*order > from)
      (*order)--;
    if (i != node && *order >= to)
      (*order)++;
  }
  *order_of (s, unit, node) = to;
}

/* F5: the new production host becomes the first, the old one the last backup:
 * the last of all after failover, the last of those present after switchover
 * (the absent ones stay behind it).  The others keep their sequence. */
static void
reorder (struct crg_state *s, unsigned unit, const struct change *c)
{
  unsigned n = s->def.n_nodes, count = 0;
  uint8_t list[CRG_MAX_NODES]; /* node indices in their new order */
  int first = state_node_index (s, c->node);
  int old = state_node_index (s, c->expect_node);
  int after = 0; /* the old primary comes behind this one */

  list[count++] = (uint8_t) first;
  for (unsigned place = 0; place < n; place++)
    for (unsigned i = 0; i < n; i++)
      if (state_order (s, unit, i) == place && (int) i != first && (int) i != old)
        list[count++] = (uint8_t) i;
  if (old >= 0 && old != first) {
    for (unsigned k = 0; k < count; k++)
      if (!c->graceful || (c->present & (1u << list[k])))
        after = (int) k;
    for (unsigned k = count; (int) k > after + 1; k--)
      list[k] = list[k - 1];
    list[after + 1] = (uint8_t) old;
    count++;
  }
  for (unsigned k = 0; k < count; k++)
    *order_of (s, unit, list[k]) = (uint8_t) k;
}

/* R2: the one place where a copy leaves the set.  The caller raises the
 * generation. */
static void
leave_set (struct copy_rec *copy, uint64_t at_ms, const char *reason)
{
  copy->in_set = false;
  copy->left_ms = at_ms;
  /* Why it is barred (F4) is what an operator has to know; that it has to be filled again is seen. */
  if (!copy->barred || copy->reason[0] == '\0')
    str_set (copy->reason, sizeof copy->reason, reason);
}

/* Of a copy outside the set the reason says why it left, for as long as it is outside: what is done to
 * it meanwhile is seen by itself. */
static void
say_why_outside (struct copy_rec *copy, const char *reason)
{
  if (copy->left_ms == 0 || copy->reason[0] == '\0')
    str_set (copy->reason, sizeof copy->reason, reason);
}

/* C9: how far the nodes that are lost had gone is unknown, and a store may know.  What is forced in a group that was
 * recovered is newer than that: more commits than any group makes between two looks of its operator. */
#define RECOVERED_STEP (1u << 20)

/* ... and further than another recovery has undone. */
static uint64_t
forced_step (const struct crg_state *s)
{
  return s->n_past > 0 ? (uint64_t) s->n_past * RECOVERED_STEP : 1;
}

/* R4: forced.  What the former set answered since this copy left it may be
 * gone, and what it holds is of another history: forks, until reattached.
 * The others lack an unknown part, so each is filled from the start. */
static void
fork_others (struct crg_state *s, struct iasp_rec *r, const struct change *c)
{
  for (unsigned site = 0; site < s->def.n_sites; site++) {
    struct copy_rec *other = &r->copies[site];

    if (site == c->site)
      continue;
    other->fork = FORK_DIVERGED;
    if (!other->in_set)
      continue;
    leave_set (other, c->at_ms,
               "another copy was forced to take over (R4): a fork until it is reattached");
    other->detached = true;
    other->exported = DETACHED_CLOSED;
    other->suspended = false;
    other->host = NO_NODE;
  }
  r->generation += forced_step (s);
}

static void
apply_appoint (struct crg_state *s, const struct change *c)
{
  for (unsigned i = 0; i < s->def.n_iasps; i++) {
    struct iasp_rec *r = &s->rec[i];
    uint8_t old_site = r->production_site;
    struct copy_rec *copy = &r->copies[c->site];

    if (!(c->iasps & (1u << i)))
      continue;
    /* R1: tenure rises only when the production host changes, or is forced. */
    r->tenure += c->forced ? forced_step (s) : 1;
    r->forced = !copy->in_set || (c->forced && (c->loss_iasps & (1u << i)));
    /* R5: another machine's boot says nothing about this one. */
    if (copy->host != c->node)
      memset (copy->boot_id, 0, CRG_ID_LEN);
    if (r->forced) {
      /* R4: answered writes may be gone.  `since` stays: its disk is of the
       * time when it was in the set. */
      r->loss++;
      fork_others (s, r, c);
      copy->in_set = true;
      copy->detached = copy->suspended = false;
      copy->exported = DETACHED_CLOSED;
      copy->fork = FORK_NONE;
      memcpy (copy->boot_id, c->boot_id, CRG_ID_LEN);
      memset (copy->reason, 0, sizeof copy->reason);
    } else if (c->loss_iasps & (1u << i)) {
      /* S2 b */
      r->loss++;
      memcpy (copy->boot_id, c->boot_id, CRG_ID_LEN);
    }
    if (old_site != NO_SITE && old_site != c->site) {
      /* F2: the old production copy becomes a mirror copy; after a switchover
       * its host keeps it, after a failover a host is found when one returns. */
      if (!c->graceful || s->def.iasps[i].type == RES_SCRIPT)
        r->copies[old_site].host = NO_NODE;
    }
    r->production_site = c->site;
    copy->host = c->node;
  }
  reorder (s, state_change_unit (s, c), c);
}

static void
apply_copy (struct crg_state *s, const struct change *c, unsigned iasp)
{
  struct iasp_rec *r = &s->rec[iasp];
  struct copy_rec *copy = &r->copies[c->site];

  switch (c->kind) { /* never: another; state_check () refused it */
  case CH_HOST:
    copy->host = c->node;
    memset (copy->boot_id, 0, CRG_ID_LEN);
    break;
  case CH_SHRINK:
    /* R2: generation rises whenever the set shrinks. */
    leave_set (copy, c->at_ms, c->reason);
    r->generation++;
    break;
  case CH_ENTER:
    /* R3: `since` is the generation at which the copy entered. */
    copy->in_set = true;
    copy->fork = FORK_NONE;
    copy->since = r->generation;
    memcpy (copy->boot_id, c->boot_id, CRG_ID_LEN);
    memset (copy->reason, 0, sizeof copy->reason);
    break;
  case CH_BAR:
    copy->barred = !c->clear;
    if (!c->clear)
      str_set (copy->reason, sizeof copy->reason, c->reason);
    else if (copy->in_set || copy->left_ms == 0)
      memset (copy->reason, 0, sizeof copy->reason);
    /* F4: a failed store has lost what it had; only production, the last
     * resort of its own data, stays in the set until another takes over. */
    if (copy->barred && c->site != r->production_site && copy->in_set
        && s->def.iasps[iasp].type == RES_IASP) {
      leave_set (copy, c->at_ms, c->reason);
      r->generation++;
    }
    break;
  case CH_SUSPEND:
    copy->suspended = !c->clear;
    if (copy->suspended && copy->in_set) {
      leave_set (copy, c->at_ms, c->reason);
      r->generation++;
    } else if (!c->clear)
      say_why_outside (copy, c->reason);
    else if (copy->left_ms == 0)
      memset (copy->reason, 0, sizeof copy->reason);
    break;
  case CH_DETACH:
    if (c->clear) {
      copy->detached = false;
      copy->exported = DETACHED_CLOSED;
      break;
    }
    /* R6: a new generation, and a fork before it opens. */
    if (!copy->detached)
      r->generation++;
    if (copy->in_set)
      leave_set (copy, c->at_ms, c->reason);
    else
      say_why_outside (copy, c->reason);
    copy->suspended = false;
    copy->detached = true;
    copy->exported = c->mode;
    if (copy->fork == FORK_NONE)
      copy->fork = FORK_BEHIND;
    if (c->mode == DETACHED_READ_WRITE)
      copy->fork = FORK_DIVERGED;
    break;
  case CH_RESTARTED:
    /* S2 b: what was answered and not flushed may be gone. */
    r->loss++;
    memcpy (copy->boot_id, c->boot_id, CRG_ID_LEN);
    break;
  }
}

void
state_apply (struct crg_state *s, const struct change *c)
{
  switch (c->kind) { /* never: another; state_check () refused it */
  case CH_NODE:
    state_apply_node (s, &c->node_change);
    break;
  case CH_START:
    s->started = true;
    break;
  case CH_END:
    s->started = false;
    break;
  case CH_DELETE:
    s->deleted = true;
    break;
  case CH_APPOINT:
    apply_appoint (s, c);
    break;
  case CH_HOST:
  case CH_SHRINK:
  case CH_ENTER:
  case CH_BAR:
  case CH_RESTARTED:
  case CH_SUSPEND:
  case CH_DETACH:
    for (unsigned i = 0; i < s->def.n_iasps; i++)
      if (c->iasps & (1u << i))
        apply_copy (s, c, i);
    break;
  case CH_EXPEL:
    s->def.nodes[state_node_index (s, c->node)].expelled = c->incarnation;
    break;
  case CH_MARK_FAILED:
    s->def.nodes[state_node_index (s, c->node)].marked_failed = !c->clear;
    break;
  }
  s->stamp.version++;
}
