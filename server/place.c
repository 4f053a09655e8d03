/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Placement: see place.h.  Pure, deterministic, no state of its own.
 */
#include <assert.h>
#include <string.h>

#include "server/bytes.h"
#include "server/place.h"

static const struct group_host_status *
said (const struct place_in *in, unsigned node, unsigned iasp)
{
  const struct announce *a = in->node[node].announce;

  return a != NULL && iasp < a->n_iasps ? &a->iasp[iasp] : NULL;
}

/* The IASPs of a unit, one after the other. */
#define FOR_UNIT(i, s, unit)                           \
  for (unsigned i = 0; i < (s)->def.n_iasps; i++)      \
    if (state_unit ((s), i) == (unit))

bool
place_has_access (const struct crg_state *s, unsigned iasp, const struct announce *a)
{
  const struct group_host_status *h = a != NULL && iasp < a->n_iasps ? &a->iasp[iasp] : NULL;

  if (h == NULL || !h->probed)
    return false;
  if (h->opened || h->store.owned)
    return true;
  /* That another has a store open now (S1) doesn't make it unreachable. */
  return s->def.iasps[iasp].type == RES_SCRIPT ? h->can_host
                                               : h->store.has_super && h->store.agrees_ids;
}

/* R1, R2: it has heard of what the record has not: an older record, or, in a group that was recovered, what its dead
 * committed last (C9). */
static bool
is_ahead (const struct crg_state *s, unsigned iasp, const struct store_info *store)
{
  return store->generation > state_newest_generation (s, iasp, store->lineage) || store->tenure > s->rec[iasp].tenure;
}

const char *
place_disagrees (const struct crg_state *s, unsigned iasp, uint8_t site,
                 const struct store_info *store)
{
  const struct iasp_rec *r = &s->rec[iasp];
  const struct copy_rec *c = &r->copies[site];
  bool forced;

  if (s->def.iasps[iasp].type == RES_SCRIPT)
    return NULL; /* no disk, so nothing that could disagree */
  /* `create` has formatted it: an empty one is another store (R6). */
  if (!store->has_super)
    return "its store has no superblock";
  if (!store->agrees_ids)
    return "its store belongs to another cluster, CRG, IASP or site";
  /* C9: the host of a copy of the set gives its store the new lineage. */
  if (memcmp (store->lineage, s->lineage, CRG_ID_LEN) != 0 && !(c->in_set && state_is_past (s, store->lineage)))
    return "its store is of another lineage";
  /* R4: the target of an unfinished resync is never used. */
  if (store->unusable)
    return "its store is the target of an unfinished resync";
  /* R4: until it was opened in the tenure that was forced, it may be a fork, or ahead (C9). */
  forced = r->forced && site == r->production_site && store->tenure < r->tenure;
  if (store->fork && !forced)
    return "its store is a fork (R6): reattach it";
  /* R2: a store agrees if since <= its generation <= the record's. */
  if (store->generation < c->since || (is_ahead (s, iasp, store) && !forced))
    return "disk and record disagree (R6)";
  return NULL;
}

uint32_t
place_apart (const struct place_in *in, unsigned unit)
{
  const struct crg_state *s = in->state;
  uint32_t apart = 0;

  for (unsigned n = 0; n < s->def.n_nodes && s->n_past > 0; n++)
    FOR_UNIT (i, s, unit) {
      const struct group_host_status *h = in->node[n].present ? said (in, n, i) : NULL;
      const struct store_info *st = h == NULL ? NULL : &h->store;
      const uint8_t site = s->def.nodes[n].site;

      if (st != NULL && site != NO_SITE && h->probed && !h->opened && st->has_super && st->agrees_ids && !st->unusable
          && s->rec[i].copies[site].in_set && state_is_past (s, st->lineage)
          && place_disagrees (s, i, site, st) != NULL)
        apart |= 1u << i;
    }
  return apart;
}

bool
place_is_restarted (const struct place_in *in, unsigned node, unsigned iasp)
{
  const struct crg_state *s = in->state;
  const struct group_host_status *h = said (in, node, iasp);
  uint8_t site = s->def.nodes[node].site;
  const struct copy_rec *c;

  if (h == NULL || !h->probed || !h->store.restarted || site == NO_SITE)
    return false;
  c = &s->rec[iasp].copies[site];
  return c->host != s->def.nodes[node].id
         || memcmp (c->boot_id, in->node[node].announce->boot_id, CRG_ID_LEN) != 0;
}

/* Could it know the copy of its site?  A peer has no store but what it was given when it could host, and with ACCESS
 * not everybody has one. */
static bool
could_tell (const struct crg_state *s, unsigned iasp, unsigned node)
{
  return s->def.iasps[iasp].store[node][0] != 0
         || (s->def.placement == PLACEMENT_SITE && state_may_host (s, node));
}

/* S2: is the copy of a site known to be restarted too, by a node that could
 * open it (else who had it open may still have what it didn't flush), or is
 * everybody who could tell marked failed? */
static bool
is_excused (const struct place_in *in, unsigned iasp, uint8_t site)
{
  const struct crg_state *s = in->state;
  uint32_t host = s->rec[iasp].copies[site].host;
  bool failed = true;

  for (unsigned n = 0; n < s->def.n_nodes; n++) {
    const struct group_host_status *h = said (in, n, iasp);

    if (s->def.nodes[n].site != site)
      continue;
    if (in->node[n].present && h != NULL && h->probed && h->can_host && h->store.restarted)
      return true;
    if (host == NO_NODE ? could_tell (s, iasp, n) : host == s->def.nodes[n].id)
      failed = failed && s->def.nodes[n].marked_failed;
  }
  return failed;
}

int
place_waits_for (const struct place_in *in, unsigned iasp, uint8_t site)
{
  const struct crg_state *s = in->state;

  for (uint8_t other = 0; other < s->def.n_sites; other++)
    if (other != site && s->rec[iasp].copies[other].in_set && !is_excused (in, iasp, other))
      return other;
  return -1;
}

/* S2: a restarted store may open as production only if every other copy in
 * the set is there and restarted too, or marked failed. */
static bool
restarted_must_wait (const struct place_in *in, unsigned node, unsigned iasp)
{
  return place_is_restarted (in, node, iasp)
         && place_waits_for (in, iasp, in->state->def.nodes[node].site) >= 0;
}

/* S1: a store that isn't free because its present host has it open, which
 * releases it when it is named no more.  Of production that host is otherwise
 * unable; that of a mirror copy is able, so it is asked to only if it must be. */
static bool
held_by_host (const struct place_in *in, unsigned iasp, uint8_t site, enum place_why why)
{
  const struct crg_state *s = in->state;
  int host = state_node_index (s, s->rec[iasp].copies[site].host);
  const struct group_host_status *h = host < 0 ? NULL : said (in, (unsigned) host, iasp);

  return (site == s->rec[iasp].production_site || why == PLACE_TOGETHER) && h != NULL
         && in->node[host].present && h->opened;
}

/* Whose word on the store of an IASP counts if this node is to take it: its own, or that of the present host, which
 * has it open, and releases it; what another sees of it meanwhile is an open record that isn't its own (R5).  -1:
 * it can't be taken (S1). */
static int
teller (const struct place_in *in, unsigned iasp, unsigned node, enum place_why why)
{
  const struct crg_state *s = in->state;
  const struct group_host_status *h = said (in, node, iasp);
  uint8_t site = s->def.nodes[node].site;

  if (h != NULL && (h->opened || h->can_host))
    return (int) node;
  return held_by_host (in, iasp, site, why) ? state_node_index (s, s->rec[iasp].copies[site].host) : -1;
}

/* F6: the member that has the mirror copy of a site open, and lets go of it when it is named no more; -1:
 * nobody but `node`. */
static int
copy_holder (const struct place_in *in, unsigned iasp, unsigned node)
{
  const struct crg_state *s = in->state;
  int host = state_node_index (s, s->rec[iasp].copies[s->def.nodes[node].site].host);
  const struct group_host_status *h = host < 0 ? NULL : said (in, (unsigned) host, iasp);

  return host != (int) node && h != NULL && in->node[host].present && h->opened && h->role == HOST_MIRROR ? host : -1;
}

const char *
place_refusal (const struct place_in *in, unsigned unit, unsigned node, enum place_why why)
{
  const struct crg_state *s = in->state;
  uint8_t site = s->def.nodes[node].site;
  bool switches = why == PLACE_FOR_SWITCHOVER || why == PLACE_SWITCH_COPIES;

  if (site == NO_SITE)
    return "it is a replicate";
  if (!in->node[node].present)
    return "it is not there";
  if (!state_may_host (s, node))
    return "it is a peer";
  if (in->node[node].announce == NULL)
    return "it has not said yet what it can host";
  FOR_UNIT (i, s, unit) {
    const struct copy_rec *c = &s->rec[i].copies[site];
    const struct group_host_status *h = said (in, node, i);
    const char *text;
    int k;

    if (h == NULL)
      return "it has not said yet what it can host";
    if (c->barred)
      return "the copy at its site is barred: its store failed (F4)";
    if (c->detached)
      return "the copy at its site is detached";
    /* R4: only a copy in the committed set may take over. */
    if (!c->in_set)
      return "the copy at its site is not in the set";
    if (h->failed)
      return "it failed to host";
    /* Fig. 4: only a member of the subgroup hosts it. */
    if (s->def.placement == PLACEMENT_ACCESS && h->probed
        && !place_has_access (s, i, in->node[node].announce))
      return h->reason[0] != 0 ? h->reason : "it has no access to the resource";
    if (switches && site == s->rec[i].production_site) {
      /* F6: the store is released first, and has just been in use: by a host that reaches it. */
      if (!place_has_access (s, i, in->node[node].announce))
        return h->reason[0] != 0 ? h->reason : "it does not reach the store of its site";
      continue;
    }
    /* F6: the copy's host holds it open, and would have to let go first. */
    if (why == PLACE_FOR_SWITCHOVER && c->host != NO_NODE && c->host != s->def.nodes[node].id)
      return "another node hosts the copy of its site";
    if (!h->probed)
      return "its store was not probed yet";
    if (why == PLACE_SWITCH_COPIES && copy_holder (in, i, node) >= 0) {
      unsigned holder = (unsigned) copy_holder (in, i, node);

      /* Who has it open knows what it holds; what the other sees of it is of the time when it looked. */
      if (!h->store.has_super || !h->store.agrees_ids)
        return h->reason[0] != 0 ? h->reason : "its store is not the copy of its site";
      text = place_disagrees (s, i, site, &said (in, holder, i)->store);
      if (text != NULL)
        return text;
      if (restarted_must_wait (in, holder, i))
        return "its store was restarted and waits for the other copies of the set (S2)";
      continue;
    }
    k = teller (in, i, node, why);
    h = k < 0 ? h : said (in, (unsigned) k, i);
    if (k < 0 || h == NULL)
      return h != NULL && h->reason[0] != 0 ? h->reason : "its store cannot be opened now (S1)";
    text = place_disagrees (s, i, site, &h->store);
    if (text != NULL)
      return text;
    if (restarted_must_wait (in, (unsigned) k, i))
      return "its store was restarted and waits for the other copies of the set (S2)";
  }
  return switches || place_apart (in, unit) == 0
           ? NULL : "a store does not agree with the recovered group: an operator has to choose (C9, R4)";
}

/* The node at place `place` of the backup order. */
static unsigned
at_place (const struct crg_state *s, unsigned unit, unsigned place)
{
  unsigned i = 0;

  /* An order names each place once. */
  while (state_order (s, unit, i) != place) {
    i++;
    assert (i < s->def.n_nodes);
  }
  return i;
}

bool
place_left (const struct place_in *in, unsigned iasp, uint8_t site)
{
  const struct crg_state *s = in->state;
  const struct copy_rec *c = &s->rec[iasp].copies[site];
  int n = state_node_index (s, c->host);
  const struct group_host_status *h;

  if (n < 0)
    return true;
  if (c->barred)
    return true;
  if (!in->node[n].present) {
    bool warm = (in->warm & (1u << state_unit (s, iasp))) && site == s->rec[iasp].production_site;

    if ((in->node[n].waited_for && !warm) || in->node[n].maybe)
      return false;
    /* F7: the host may return, unless it is known that its process is gone. */
    return !in->node[n].returning || (in->links_down[iasp] & (1u << site));
  }
  h = said (in, (unsigned) n, iasp);
  if (h == NULL)
    return false;
  /* R4: named while its copy began to be filled: it can't become production,
   * and there is nobody to fill it from. */
  if (h->opened)
    return site == s->rec[iasp].production_site && h->role != HOST_PRODUCTION
           && h->store.unusable;
  /* What a host said of its store before it was named, or before the old host
   * had released it, says nothing. */
  if (site == s->rec[iasp].production_site && h->tenure != s->rec[iasp].tenure)
    return false;
  /* F2: a named host that says it can't host, or failed, counts as left. */
  if (h->failed)
    return true;
  if (!h->probed)
    return false;
  if (!h->can_host)
    return true;
  return site == s->rec[iasp].production_site
         && (place_disagrees (s, iasp, site, &h->store) != NULL
             || restarted_must_wait (in, (unsigned) n, iasp));
}

static uint16_t
present_mask (const struct place_in *in)
{
  uint16_t mask = 0;

  for (unsigned i = 0; i < in->state->def.n_nodes; i++)
    if (in->node[i].present)
      mask |= (uint16_t) (1u << i);
  return mask;
}

/* H3: the first in the backup order that is there and can host; of `site` only,
 * unless that is NO_SITE.  It is asked only when a host has left, so a lower one
 * that returns doesn't take the job back. */
static int
first_candidate (const struct place_in *in, unsigned unit, uint8_t site, enum place_why why)
{
  const struct crg_state *s = in->state;

  for (unsigned place = 0; place < s->def.n_nodes; place++) {
    unsigned n = at_place (s, unit, place);

    if (s->def.nodes[n].id == state_unit_host (s, unit))
      continue;
    if (site != NO_SITE && s->def.nodes[n].site != site)
      continue;
    if (place_refusal (in, unit, n, why) == NULL)
      return (int) n;
  }
  return -1;
}

/* F2: `order` takes the first backup, `same-site-first` looks at the
 * production site first. */
static int
candidate (const struct place_in *in, unsigned unit, enum place_why why)
{
  const struct crg_state *s = in->state;
  int n = -1;

  if (s->def.takeover == TAKEOVER_SAME_SITE_FIRST)
    n = first_candidate (in, unit, s->rec[unit].production_site, why);
  return n >= 0 ? n : first_candidate (in, unit, NO_SITE, why);
}

int
place_target (const struct place_in *in, unsigned unit)
{
  int n = candidate (in, unit, PLACE_FOR_SWITCHOVER);

  /* None has all copies of its site. */
  return n >= 0 ? n : candidate (in, unit, PLACE_SWITCH_COPIES);
}

int
place_owner (const struct place_in *in, unsigned unit)
{
  const struct crg_state *s = in->state;
  int host = state_node_index (s, state_unit_host (s, unit));
  const struct group_host_status *h = host < 0 ? NULL : said (in, (unsigned) host, unit);

  /* Later, what runs elsewhere is what a host of before has not stopped yet. */
  if (s->def.placement != PLACEMENT_ACCESS || state_unit_tenure (s, unit) != 1
      || (h != NULL && in->node[host].present && (h->opened || h->store.owned)))
    return -1;
  for (unsigned place = 0; place < s->def.n_nodes; place++) {
    unsigned n = at_place (s, unit, place);

    h = said (in, n, unit);
    if ((int) n != host && h != NULL && h->probed && h->store.owned
        && place_refusal (in, unit, n, PLACE_FOR_FAILOVER) == NULL)
      return (int) n;
  }
  return -1;
}

bool
place_may_begin (const struct place_in *in, unsigned unit)
{
  if (in->state->n_past > 0 && (!in->ready || place_apart (in, unit) != 0))
    return false;
  return in->state->def.placement != PLACEMENT_ACCESS || state_unit_tenure (in->state, unit) != 1
         || (in->ready && place_owner (in, unit) < 0);
}

/* R4: was a takeover by this site forced, and nobody has opened its store in that tenure, though its disk
 * still says that it is a fork?  Then another node of the site opens it as the forced one would have. */
static bool
is_unopened (const struct place_in *in, unsigned iasp, unsigned node)
{
  const struct iasp_rec *r = &in->state->rec[iasp];
  const struct group_host_status *h = said (in, node, iasp);

  return r->forced && in->state->def.nodes[node].site == r->production_site && h != NULL && h->probed && h->store.fork
         && h->store.tenure < r->tenure;
}

void
place_appointment (const struct place_in *in, unsigned unit, unsigned node, struct change *c)
{
  const struct crg_state *s = in->state;
  uint32_t unopened = 0;

  memset (c, 0, sizeof *c);
  c->kind = CH_APPOINT;
  c->iasps = state_unit_iasps (s, unit);
  c->site = s->def.nodes[node].site;
  c->node = s->def.nodes[node].id;
  c->expect_node = state_unit_host (s, unit);
  c->expect_tenure = state_unit_tenure (s, unit);
  c->present = present_mask (in);
  memcpy (c->boot_id, in->node[node].announce->boot_id, CRG_ID_LEN);
  /* S2 b: who waits for nobody may open a restarted store, and loss rises. */
  FOR_UNIT (i, s, unit) {
    int k = teller (in, i, node, PLACE_TOGETHER);

    if (place_is_restarted (in, k < 0 ? node : (unsigned) k, i))
      c->loss_iasps |= 1u << i;
    if (is_unopened (in, i, node))
      unopened |= 1u << i;
  }
  /* What is only restarted is not forced with it. */
  if (unopened != 0 && (c->loss_iasps & ~unopened) == 0) {
    c->forced = true;
    c->loss_iasps = unopened;
  }
}

bool
place_unit_left (const struct place_in *in, unsigned unit)
{
  const struct crg_state *s = in->state;
  bool left = false;

  FOR_UNIT (i, s, unit)
    left = left || place_left (in, i, s->rec[i].production_site);
  return left;
}

bool
place_production (const struct place_in *in, struct change *c)
{
  const struct crg_state *s = in->state;

  /* One resource that nobody can take must not keep another from being taken. */
  for (unsigned unit = 0; unit < state_units (s) && in->ready; unit++) {
    int host = state_node_index (s, state_unit_host (s, unit));
    bool left = place_unit_left (in, unit);
    int n = -1;

    /* Fig. 4: if it owns R, it becomes host(R). */
    if (left || (host >= 0 && in->node[host].present))
      n = place_owner (in, unit);
    if (n < 0 && left)
      n = candidate (in, unit, PLACE_FOR_FAILOVER);
    if (n < 0 && left)
      n = candidate (in, unit, PLACE_TOGETHER);
    if (n >= 0) {
      place_appointment (in, unit, (unsigned) n, c);
      return true;
    }
  }
  return false;
}

bool
place_unit_restarted (const struct place_in *in, unsigned unit, bool accepted, struct change *c)
{
  const struct crg_state *s = in->state;
  int n = state_node_index (s, state_unit_host (s, unit));

  if (n < 0 || !in->node[n].present || in->node[n].announce == NULL || !in->ready)
    return false;
  memset (c, 0, sizeof *c);
  FOR_UNIT (i, s, unit) {
    const struct group_host_status *h = said (in, (unsigned) n, i);

    /* Looked at as the named host; a fork or a store that disagrees is not
     * opened anyhow. */
    if (h != NULL && !h->opened && !h->failed && h->can_host && h->tenure == s->rec[i].tenure
        && place_is_restarted (in, (unsigned) n, i)
        && (accepted || place_waits_for (in, i, s->rec[i].production_site) < 0)
        && place_disagrees (s, i, s->rec[i].production_site, &h->store) == NULL)
      c->iasps |= 1u << i;
  }
  if (c->iasps == 0)
    return false;
  c->kind = CH_RESTARTED;
  c->site = s->rec[unit].production_site;
  c->node = s->def.nodes[n].id;
  c->expect_tenure = state_unit_tenure (s, unit);
  memcpy (c->boot_id, in->node[n].announce->boot_id, CRG_ID_LEN);
  return true;
}

bool
place_force (const struct place_in *in, unsigned unit, unsigned node, struct change *c)
{
  const struct crg_state *s = in->state;
  const uint32_t apart = place_apart (in, unit);

  /* S2: it is the named host, and stays it. */
  if (apart == 0 && s->def.nodes[node].id == state_unit_host (s, unit))
    return place_unit_restarted (in, unit, true, c);
  place_appointment (in, unit, node, c);
  c->forced = true;
  /* C9: it may be in the set; the others of the set are not as it is. */
  c->loss_iasps |= apart;
  FOR_UNIT (i, s, unit)
    if (is_unopened (in, i, node))
      c->loss_iasps |= 1u << i;
  return true;
}

bool
place_restarted (const struct place_in *in, struct change *c)
{
  for (unsigned unit = 0; unit < state_units (in->state); unit++)
    if (place_unit_restarted (in, unit, false, c))
      return true;
  return false;
}

const char *
place_force_refusal (const struct place_in *in, unsigned unit, unsigned node)
{
  const struct crg_state *s = in->state;
  uint8_t site = s->def.nodes[node].site;
  bool behind = place_apart (in, unit) != 0;

  if (site == NO_SITE)
    return "it is a replicate";
  if (!state_may_host (s, node))
    return "it is a peer";
  if (!in->node[node].present)
    return "it is not there";
  if (in->node[node].announce == NULL)
    return "it has not said yet what it can host";
  FOR_UNIT (i, s, unit) {
    const struct iasp_rec *r = &s->rec[i];
    const struct copy_rec *c = &r->copies[site];
    const struct group_host_status *h = said (in, node, i);
    const struct store_info *st = h == NULL ? NULL : &h->store;

    if (h == NULL || !h->probed)
      return "its store was not probed yet";
    if (c->barred)
      return "the copy at its site is barred: its store failed (F4)";
    if (h->failed)
      return "it failed to host";
    if (!h->opened && !h->can_host)
      return h->reason[0] != 0 ? h->reason : "its store cannot be opened now (S1)";
    if (s->def.iasps[i].type == RES_SCRIPT)
      continue; /* nothing to lose */
    /* C9: of the past, and not opened since: the force makes it the copy of the set. */
    if (!st->has_super || !st->agrees_ids
        || (memcmp (st->lineage, s->lineage, CRG_ID_LEN) != 0 && !state_is_past (s, st->lineage)))
      return "its store is not the copy of its site";
    /* Never coherent: there is no point in time that it would take back. */
    if (st->unusable)
      return "its store was never filled, or is the target of an unfinished resync";
    if (is_ahead (s, i, st) && !state_is_past (s, st->lineage))
      return "disk and record disagree (R6)";
    /* S2: as an answered write may be on the copies that it would wait for. */
    behind = behind || !c->in_set || restarted_must_wait (in, node, i);
  }
  return behind ? NULL
                : "its copies are in the set: it takes over by itself as soon as no host is "
                  "waited for (crgctl mark-failed ends such a wait)";
}

/* S1: may this node open the store of a mirror copy? */
static bool
can_mirror (const struct place_in *in, unsigned node, unsigned iasp)
{
  const struct group_host_status *h = said (in, node, iasp);
  const struct copy_rec *c;

  if (!in->node[node].present || h == NULL || h->failed || !h->probed || !h->can_host
      || !state_may_host (in->state, node))
    return false;
  c = &in->state->rec[iasp].copies[in->state->def.nodes[node].site];
  if (h->store.fork && !c->fork)
    return false; /* R6: the record knows of no fork */
  /* C9: it would refuse it, and then can't be asked to open it as what it may be: the copy that an operator forces. */
  if (h->store.has_super && !c->in_set && memcmp (h->store.lineage, in->state->lineage, CRG_ID_LEN) != 0)
    return false;
  return !h->store.has_super || h->store.agrees_ids;
}

/* Does it host another mirror copy of its site, so that it could take over only
 * with this one? */
static bool
hosts_other (const struct crg_state *s, unsigned node, unsigned iasp, uint8_t site)
{
  for (unsigned i = 0; i < s->def.n_iasps; i++)
    if (i != iasp && state_unit (s, i) == state_unit (s, iasp)
        && s->rec[i].copies[site].host == s->def.nodes[node].id)
      return true;
  return false;
}

/* The first in the backup order; before it one that hosts others of the site. */
static int
copy_candidate (const struct place_in *in, unsigned iasp, uint8_t site)
{
  const struct crg_state *s = in->state;
  int first = -1;

  for (unsigned place = 0; place < s->def.n_nodes; place++) {
    unsigned n = at_place (s, state_unit (s, iasp), place);

    if (s->def.nodes[n].site != site || s->def.nodes[n].id == s->rec[iasp].copies[site].host
        || !can_mirror (in, n, iasp))
      continue;
    if (hosts_other (s, n, iasp, site))
      return (int) n;
    if (first < 0)
      first = (int) n;
  }
  return first;
}

bool
place_can_take (const struct place_in *in, unsigned iasp, uint8_t site)
{
  return copy_candidate (in, iasp, site) >= 0;
}

bool
place_copies (const struct place_in *in, struct change *c)
{
  const struct crg_state *s = in->state;

  if (!in->ready)
    return false;
  for (unsigned i = 0; i < s->def.n_iasps; i++)
    for (uint8_t site = 0; site < s->def.n_sites; site++) {
      const struct copy_rec *copy = &s->rec[i].copies[site];
      int n;

      if (site == s->rec[i].production_site || copy->barred
          || (copy->detached && copy->exported == DETACHED_CLOSED)
          || s->def.iasps[i].type == RES_SCRIPT || !place_left (in, i, site))
        continue;
      /* F3: the next present member of its site takes it (S1, R5). */
      n = copy_candidate (in, i, site);
      if (n < 0)
        continue;
      memset (c, 0, sizeof *c);
      c->kind = CH_HOST;
      c->iasps = 1u << i;
      c->site = site;
      c->node = s->def.nodes[n].id;
      c->expect_node = copy->host;
      return true;
    }
  return false;
}
