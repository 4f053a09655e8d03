/* SPDX-License-Identifier: BSD-3-Clause
 *
 * What the committed state wants of this node, part of the group core: which
 * copies it hosts, what their plugins are told, and the messages 3 to 6 of
 * the join.  All of it is compared, level by level, with what was said last,
 * so nothing depends on one event (C4: and nothing is done before commit).
 * State lives in struct group; called by group.c.
 */
#include <string.h>

#include "server/bytes.h"
#include "server/group_private.h"
#include "server/place.h"

/* S1 d: who is fenced came back, or may have in a view that this node missed: what the hook has
 * cut off since it began says nothing of what that node has opened after it. */
void
host_void_fence (struct group *g)
{
  if (g->fence.done)
    g->fence.node = NO_NODE;
  g->fence.done = false;
  g->fence.is_void = g->fence.node != NO_NODE;
}

void
host_on_view (struct group *g)
{
  const struct peer *fenced = group_peer_const (g, g->fence.node);

  request_void_marks (g, false);
  if (fenced != NULL && fenced->in_view)
    host_void_fence (g);
  for (unsigned i = 0; i < CRG_MAX_IASPS; i++) {
    struct hosting *h = &g->host[i];

    /* Probes and failures are of a view; messages under way were of the old
     * one and are dropped (H5). */
    h->probed = false;
    h->probe_stale = h->probing;
    h->failed = h->config_sent = false;
    h->retry_ms = 0;
    for (unsigned s = 0; s < CRG_MAX_SITES; s++) {
      struct copy_link *l = &h->link[s];
      const struct peer *p = group_peer_const (g, l->node);

      /* Our own delivery of message 6 is not that of a member that was cut off: it may need another. */
      l->sent = false;
      if (p == NULL || !p->in_view)
        l->node = NO_NODE;
    }
  }
}

/* ---- events of the shell ------------------------------------------------ */

static void
forget_link (struct copy_link *l)
{
  l->told_node = NO_NODE;
  l->lost = l->ready = l->down = l->told_gone = false;
}

static uint8_t
site_of (const struct group *g, uint32_t id)
{
  int n = g->has_committed ? state_node_index (&g->committed, id) : -1;

  return n < 0 ? NO_SITE : g->committed.def.nodes[n].site;
}

/* The unit of an IASP.  Which IASPs move together never changes, so any state says it. */
static unsigned
unit_of (const struct group *g, unsigned iasp)
{
  return state_unit (g->has_committed ? &g->committed : &g->applied, iasp);
}

/* A plugin that has (again) its role knows nothing yet. */
static void
tell_all_again (struct group *g, unsigned iasp)
{
  struct hosting *h = &g->host[iasp];

  h->record_told = h->start_told = false;
  h->seq_seen = h->seq_told = 0;
  for (unsigned s = 0; s < CRG_MAX_SITES; s++)
    forget_link (&h->link[s]);
  if (h->told_role == HOST_PRODUCTION)
    g->lease[unit_of (g, iasp)].told_ms = 0;
}

static void
on_hosted (struct group *g, const struct group_event *ev)
{
  struct hosting *h = &g->host[ev->iasp];
  struct lease *l = &g->lease[unit_of (g, ev->iasp)];

  if (ev->role >= HOST_ROLE_END) {
    g->counters.illegal++;
    return;
  }
  if (!ev->ok) {
    str_set (h->reason, sizeof h->reason, ev->reason);
    h->open = false;
    if (h->pending && h->told_role == HOST_NONE) {
      h->told_role = h->closing; /* not gone yet: asked again */
      h->retry_ms = g->now_ms + RELEASE_RETRY_MS;
    } else {
      if (h->told_role == HOST_PRODUCTION)
        h->judged_tenure = h->told_tenure;
      h->told_role = HOST_NONE;
      h->known = true;
      h->failed = true;
      h->retry_ms = g->now_ms + HOST_RETRY_MS;
    }
    h->pending = false;
    h->probe_stale = true;
    for (unsigned s = 0; s < CRG_MAX_SITES; s++)
      forget_link (&h->link[s]);
    return;
  }
  if (h->pending) {
    if (ev->role != h->told_role
        || (ev->role == HOST_PRODUCTION && ev->tenure != h->told_tenure))
      return; /* the answer to something that was taken back since */
  } else if (h->told_role == HOST_NONE && ev->role != HOST_NONE) {
    /* S3: a plugin of an earlier run of crgd is adopted. */
    h->told_role = ev->role;
    h->told_tenure = ev->tenure;
    h->told_sites = ev->store.sites ? ev->store.sites : g->applied.def.n_sites;
    /* L3: it was opened when every lease before its tenure was over, which
     * stays so; this run need not wait for that again (F7).  Without a state
     * nobody knows whose lease that was. */
    if (ev->role == HOST_PRODUCTION && ev->tenure > l->cleared && g->has_state)
      l->cleared = ev->tenure;
  } else if (ev->role != h->told_role) {
    g->counters.illegal++;
    return;
  }
  h->pending = false;
  h->known = true;
  h->open = ev->role != HOST_NONE;
  h->failed = false;
  if (h->open) {
    h->store = ev->store;
    h->store.can_host = true;
    h->probed = true;
    h->reason[0] = 0;
    tell_all_again (g, ev->iasp);
  } else
    h->probe_stale = true;
}

/* F6: another member of this site still has the store open, or is closing it: it is named no more, or lets
 * this node wait no longer than until it is expelled (C8). */
static bool
is_held (const struct group *g, unsigned iasp)
{
  for (unsigned i = 0; i < CRG_MAX_NODES; i++) {
    const struct peer *p = &g->peers[i];

    if (p->id != NO_NODE && p->id != g->cfg.node_id && group_present (g, p) && p->announced
        && iasp < p->announce.n_iasps && p->announce.iasp[iasp].opened
        && site_of (g, p->id) == site_of (g, g->cfg.node_id))
      return true;
  }
  return false;
}

static void
on_probe (struct group *g, const struct group_event *ev)
{
  struct hosting *h = &g->host[ev->iasp];

  if (!h->probing) {
    g->counters.illegal++;
    return;
  }
  h->probing = false;
  if (h->probe_stale && !h->probed)
    return; /* of an earlier view: asked again */
  h->probed = true;
  h->store = ev->store;
  h->store.can_host = ev->ok && ev->store.can_host;
  if (h->store.can_host || !is_held (g, ev->iasp))
    h->judged_tenure = h->probe_tenure;
  if (!h->failed)
    str_set (h->reason, sizeof h->reason, h->store.can_host ? "" : ev->reason);
}

/* The wish to enter was made before the copy left the set (R3). */
static bool
is_spent (const struct copy_link *l)
{
  return l->ready_generation != 0 && l->ready_generation < l->left_generation;
}

void
host_on_event (struct group *g, const struct group_event *ev, struct group_actions *out)
{
  struct copy_link *l;

  (void) out;
  if (ev->iasp >= CRG_MAX_IASPS || ev->site >= CRG_MAX_SITES) {
    g->counters.illegal++;
    return;
  }
  l = &g->host[ev->iasp].link[ev->site];
  switch (ev->kind) {
  case GE_HOSTED:
    on_hosted (g, ev);
    return;
  case GE_CONFIG:
    if (ev->len > CRG_CONFIG_MAX || (ev->len > 0 && ev->buf == NULL)) {
      g->counters.illegal++;
      return;
    }
    if (ev->len == g->host[ev->iasp].n_config
        && (ev->len == 0 || memcmp (g->host[ev->iasp].config, ev->buf, ev->len) == 0))
      return;
    g->host[ev->iasp].n_config = (uint16_t) ev->len;
    if (ev->len > 0)
      memcpy (g->host[ev->iasp].config, ev->buf, ev->len);
    g->host[ev->iasp].config_mine++;
    return;
  case GE_PROBE:
    on_probe (g, ev);
    return;
  case GE_FENCED:
    if (g->fence.node == NO_NODE || ev->node != g->fence.node) {
      g->counters.illegal++;
      return;
    }
    g->fence.done = ev->ok && !g->fence.is_void;
    if (!g->fence.done) {
      g->fence.node = NO_NODE;
      g->fence.retry_ms = g->now_ms + FENCE_RETRY_MS;
    }
    return;
  case GE_STORE_FAILED:
    g->host[ev->iasp].store_failed = true;
    str_set (g->host[ev->iasp].reason, sizeof g->host[ev->iasp].reason, ev->reason);
    return;
  default:
    break;
  }
  if (g->host[ev->iasp].told_role != HOST_PRODUCTION) {
    g->counters.illegal++;
    return;
  }
  if (ev->kind == GE_LINK) {
    l->down = !ev->ok;
    return;
  }
  /* R3: said again on a new connection, while the record that settles it is on its way. */
  if (ev->seq != 0 && ev->seq <= g->host[ev->iasp].seq_told)
    return;
  if (ev->seq > g->host[ev->iasp].seq_seen)
    g->host[ev->iasp].seq_seen = ev->seq;
  switch (ev->kind) {
  case GE_COPY_LOST:
    l->lost = true;
    l->ready = false;
    str_set (l->lost_reason, sizeof l->lost_reason, ev->reason);
    break;
  case GE_COPY_BACK:
    l->lost = false;
    break;
  case GE_COPY_READY:
    /* R3: what an earlier crgd granted may be told, spent and taken back before this is heard: it is void. */
    l->ready_generation = ev->generation;
    if (is_spent (l))
      break;
    l->lost = false;
    l->ready = true;
    memcpy (l->ready_boot_id, ev->boot_id, CRG_ID_LEN);
    break;
  default:
    g->counters.illegal++;
  }
}

/* ---- messages ----------------------------------------------------------- */

void
host_on_announce (struct group *g, struct peer *from)
{
  const struct announce *old = &from->announce, *new = &g->in.u.announce;
  bool closed = false;

  /* A named host that was open is so no more: the others look again whether
   * they could take its place. */
  for (unsigned i = 0; from->announced && i < new->n_iasps && i < old->n_iasps; i++)
    closed = closed || (old->iasp[i].opened && !new->iasp[i].opened && new->iasp[i].failed);
  /* F6: it has let go of what this node is to open. */
  for (unsigned i = 0; from->announced && i < new->n_iasps && i < old->n_iasps; i++)
    if (old->iasp[i].opened && !new->iasp[i].opened && site_of (g, from->id) == site_of (g, g->cfg.node_id))
      g->host[i].probe_stale = true;
  from->announced = from->told = true;
  from->announce = *new;
  if (closed)
    group_ask_again (g, from->id);
}

static bool
is_script (const struct group *g, unsigned iasp)
{
  return g->committed.def.iasps[iasp].type == RES_SCRIPT;
}

/* Who is to have the configuration of a resource: the members of the host's
 * site; of a script, which no site has more of than another, all that may ever
 * host it.  Fig. 4: of these the subgroup(R), who have said that they have
 * access. */
static bool
has_access (const struct group *g, uint32_t node, unsigned iasp, uint8_t site)
{
  const struct peer *p = group_peer_const (g, node);
  uint8_t mine = site_of (g, node);

  if (g->committed.def.placement == PLACEMENT_ACCESS
      && !place_has_access (&g->committed, iasp, p != NULL && p->announced ? &p->announce : NULL))
    return false;
  return mine != NO_SITE && (is_script (g, iasp) || mine == site);
}

/* Messages 4 and 5 are one multicast: everybody sees who got it, so that each
 * member gets the configuration of a host once. */
void
host_on_config (struct group *g, struct peer *from, struct group_actions *out)
{
  const struct msg_config *m = &g->in.u.config;
  struct hosting *h = &g->host[m->iasp];
  struct group_action *a;

  if (from->id == g->cfg.node_id) {
    h->config_sent = false;
    for (unsigned i = 0; i < CRG_MAX_NODES; i++) {
      struct peer *p = &g->peers[i];

      if (p->id != NO_NODE && p->in_view && p->spoke
          && has_access (g, p->id, m->iasp, m->site)) {
        p->config_got[m->iasp] = p->incarnation;
        p->config_got_version[m->iasp] = m->version;
      }
    }
    return;
  }
  if (m->iasp >= g->committed.def.n_iasps || !has_access (g, g->cfg.node_id, m->iasp, m->site))
    return;
  if (h->config_node == from->id && h->config_incarnation == from->incarnation
      && h->config_version == m->version)
    return;
  h->config_node = from->id;
  h->config_incarnation = from->incarnation;
  h->config_version = m->version;
  g->counters.config++;
  a = group_act (out, GA_CONFIG);
  a->iasp = m->iasp;
  a->site = m->site;
  a->node = from->id;
  a->off = (uint32_t) out->used;
  a->len = m->n_text;
  memcpy (out->bytes + out->used, m->text, m->n_text);
  out->used += m->n_text;
}

void
host_on_mirror_start (struct group *g, struct peer *from, struct group_actions *out)
{
  const struct msg_mirror_start *m = &g->in.u.mirror_start;
  struct hosting *h = &g->host[m->iasp];

  (void) out;
  if (from->id == g->cfg.node_id) {
    struct copy_link *l = &h->link[m->site];

    l->sent = false;
    l->tenure = m->tenure;
    l->node = m->node;
    l->incarnation = m->incarnation;
    return;
  }
  if (m->node != g->cfg.node_id || m->incarnation != g->cfg.incarnation)
    return;
  if (h->start_node == from->id && h->start_incarnation == from->incarnation
      && h->start_tenure == m->tenure)
    return; /* once for each pair */
  h->start_node = from->id;
  h->start_incarnation = from->incarnation;
  h->start_tenure = m->tenure;
  h->start_sync = m->sync;
  h->start_told = false;
  g->counters.mirror_start++;
}

/* ---- wants -------------------------------------------------------------- */

/* Does the named host of production have all IASPs of the unit open, by its last word? */
static bool
has_opened (const struct group *g, const struct peer *p, unsigned unit)
{
  for (unsigned i = 0; i < g->committed.def.n_iasps; i++)
    if (state_unit (&g->committed, i) == unit
        && (i >= p->announce.n_iasps || p->announce.iasp[i].role != HOST_PRODUCTION
            || !p->announce.iasp[i].opened
            || p->announce.iasp[i].tenure != state_unit_tenure (&g->committed, unit)))
      return false;
  return true;
}

bool
host_serves (const struct group *g, unsigned unit)
{
  const struct peer *p = group_peer_const (g, state_unit_host (&g->committed, unit));

  return p != NULL && group_present (g, p) && p->announced && has_opened (g, p, unit);
}

/* Every member of the view was told the same before the same change (C3), so all judge alike. */
bool
host_overtakes (const struct group *g, const struct change *c)
{
  const struct peer *p;
  unsigned unit;

  if (c->kind != CH_APPOINT || !c->forced)
    return false;
  unit = state_change_unit (&g->committed, c);
  p = group_peer_const (g, state_unit_host (&g->committed, unit));
  return p != NULL && group_present (g, p) && p->told && has_opened (g, p, unit);
}

/* S1 d: while it says that this node is dead, others may open what this node had open. */
static bool
is_marked_failed (const struct group *g)
{
  int me = group_me (g);

  return me >= 0 && g->committed.def.nodes[me].marked_failed;
}

static enum host_role
wanted_role (const struct group *g, unsigned i, uint8_t site)
{
  const struct iasp_rec *r = &g->committed.rec[i];

  /* H4: a copy is opened only under a committed state that names this node. */
  if (!g->committed.started || site == NO_SITE || r->copies[site].host != g->cfg.node_id
      || r->copies[site].barred)
    return HOST_NONE;
  if (r->copies[site].detached)
    return r->copies[site].exported == DETACHED_CLOSED ? HOST_NONE : HOST_DETACHED;
  if (r->production_site != site && is_script (g, i))
    return HOST_NONE;
  return r->production_site == site ? HOST_PRODUCTION : HOST_MIRROR;
}

static void
tell_role (struct group *g, struct group_actions *out, unsigned i, enum host_role role)
{
  struct hosting *h = &g->host[i];
  struct group_action *a;

  if (!group_room (out))
    return;
  a = group_act (out, GA_HOST);
  a->iasp = (uint8_t) i;
  a->role = (uint8_t) role;
  a->tenure = g->committed.rec[i].tenure;
  if (role == HOST_PRODUCTION)
    a->until_ms = g->lease[unit_of (g, i)].until_ms;
  if (role == HOST_NONE)
    h->closing = h->told_role;
  else
    h->config_mine++; /* its site hears message 5 of each new host */
  h->told_role = (uint8_t) role;
  h->told_tenure = a->tenure;
  h->told_export = 0;
  if (role == HOST_DETACHED)
    h->told_export = g->committed.rec[i].copies[site_of (g, g->cfg.node_id)].exported;
  h->told_sites = g->committed.def.n_sites;
  h->pending = h->asked = true;
  h->open = false;
  h->start_told = h->record_told = false;
  for (unsigned s = 0; s < CRG_MAX_SITES; s++)
    forget_link (&h->link[s]);
}

static void
settle_role (struct group *g, const struct place_in *in, unsigned i, uint8_t site,
             struct group_actions *out)
{
  struct hosting *h = &g->host[i];
  unsigned unit = unit_of (g, i);
  const struct lease *l = &g->lease[unit];
  uint64_t tenure = state_unit_tenure (&g->committed, unit);
  enum host_role want = wanted_role (g, i, site);
  /* C7: a plugin has a place for each site that there was when it opened. */
  bool stale = (h->told_role == HOST_PRODUCTION && h->told_tenure != tenure)
               || (h->told_role != HOST_NONE && h->told_sites != g->committed.def.n_sites
                   && !is_script (g, i));

  /* F4: barred is said and done; and who hosts it no more has nothing to bar. */
  if (site != NO_SITE && h->store_failed
      && (g->committed.rec[i].copies[site].barred
          || (h->told_role == HOST_NONE && !h->pending
              && g->committed.rec[i].copies[site].host != g->cfg.node_id)))
    h->store_failed = false;
  if (g->now_ms < h->retry_ms)
    return;
  /* A failure is remembered for a while, so that production doesn't go to and
   * fro; then this node may be asked, or try, again. */
  h->failed = false;
  /* An old production host ends its plugin first, whatever comes next (F6). */
  if (h->told_role != HOST_NONE
      && (want == HOST_NONE || stale || (!h->pending && !h->open)
          || (want != h->told_role
              && (h->told_role != HOST_MIRROR || want == HOST_DETACHED))
          || (want == HOST_DETACHED
              && h->told_export != g->committed.rec[i].copies[site].exported))) {
    tell_role (g, out, i, HOST_NONE);
    return;
  }
  /* S3, L3: released is said only when a process of an earlier run, of which
   * nobody told yet, is gone too. */
  if (!h->asked && l->releasing != 0) {
    tell_role (g, out, i, HOST_NONE);
    return;
  }
  if (h->pending || want == h->told_role || want == HOST_NONE || !h->probed
      || h->store_failed)
    return;
  if (h->told_role == HOST_NONE && (!h->store.can_host || is_marked_failed (g)))
    return;
  if (want == HOST_PRODUCTION) {
    /* L3: every earlier lease is over; L1: and this one is valid; R4, R6:
     * the disk agrees; S2. */
    if (!lease_cleared (g, unit) || l->tenure != tenure || l->until_ms <= g->now_ms
        || place_disagrees (&g->committed, i, site, &h->store) != NULL)
      return;
    /* S1: looked at after the old host has released, or must have ended. */
    if (h->told_role == HOST_NONE && h->judged_tenure != tenure)
      return;
    if (h->told_role == HOST_NONE && !place_may_begin (in, unit))
      return;
    /* S2: filled from a copy that took over, or accepted with its loss. */
    if (h->store.restarted && h->told_role == HOST_NONE
        && memcmp (g->committed.rec[i].copies[site].boot_id, g->cfg.boot_id, CRG_ID_LEN) != 0)
      return;
  }
  tell_role (g, out, i, want);
}

static bool
copy_may_enter (const struct iasp_rec *r, uint8_t s)
{
  return !r->copies[s].in_set && r->copies[s].host != NO_NODE && !r->copies[s].barred
         && !r->copies[s].detached && !r->copies[s].suspended && s != r->production_site;
}

bool
host_settled (const struct group *g, unsigned iasp)
{
  const struct iasp_rec *r = &g->committed.rec[iasp];

  /* R3: an ENTER that was proposed with the present stamp may still come. */
  if (!group_active (g)
      || (g->enter_proposed && g->enter_view == g->view
          && stamp_compare (g->enter_base, g->applied.stamp) == 0))
    return false;
  for (uint8_t s = 0; s < g->committed.def.n_sites; s++) {
    const struct copy_link *l = &g->host[iasp].link[s];

    if ((l->lost && r->copies[s].in_set) || (l->ready && copy_may_enter (r, s)))
      return false;
  }
  return true;
}

/* Production's plugin: nobody is to be mirrored to at that site.  Told once. */
static void
unmirror (struct group_actions *out, unsigned i, uint8_t s, struct copy_link *l,
          const char *reason)
{
  struct group_action *a;

  if (l->told_gone || !group_room (out))
    return;
  a = group_act (out, GA_UNMIRROR);
  a->iasp = (uint8_t) i;
  a->site = s;
  a->node = l->told_node;
  str_set (a->reason, sizeof a->reason, reason);
  l->told_node = NO_NODE;
  l->told_gone = true;
  l->ready = false;
}

/* What an operator took out of the mirror is told before the record that it is out of the set:
 * else production would begin to fill it, and leave it as the target of an unfinished resync. */
static void
settle_suspended (struct group *g, unsigned i, struct group_actions *out)
{
  const struct copy_rec *copies = g->committed.rec[i].copies;
  struct hosting *h = &g->host[i];

  for (uint8_t s = 0; s < g->committed.def.n_sites && h->told_role == HOST_PRODUCTION; s++)
    if (copies[s].suspended || copies[s].detached)
      unmirror (out, i, s, &h->link[s], copies[s].reason);
}

static void
settle_record (struct group *g, unsigned i, struct group_actions *out)
{
  const struct iasp_rec *r = &g->committed.rec[i];
  struct hosting *h = &g->host[i];
  struct group_action *a;
  bool settled;

  if (!h->open)
    return;
  settle_suspended (g, i, out);
  /* R3: a wish that was granted is spent, whatever else is in flight: it must not bring the copy back after
   * somebody has it removed.  So is one of a generation before the copy left, if it was told to be in. */
  for (uint8_t s = 0; s < g->committed.def.n_sites; s++) {
    struct copy_link *l = &h->link[s];

    if (h->record_told && h->told_record.copies[s].in_set && !r->copies[s].in_set)
      l->left_generation = r->generation;
    if (r->copies[s].in_set || is_spent (l))
      l->ready = false;
  }
  settled = host_settled (g, i);
  for (uint8_t s = 0; s < g->committed.def.n_sites && settled; s++)
    h->link[s].lost = h->link[s].ready = false; /* all granted, or void */
  if (h->record_told && memcmp (r, &h->told_record, sizeof *r) == 0
      && (!settled || h->seq_told == h->seq_seen))
    return;
  if (!group_room (out))
    return;
  if (settled)
    h->seq_told = h->seq_seen;
  a = group_act (out, GA_RECORD);
  a->iasp = (uint8_t) i;
  a->tenure = r->tenure;
  a->seq = h->seq_told;
  /* A copy that entered the set has written its superblock since the last
   * probe; what is announced of it must be what lies on its disk (R4). */
  if (!h->record_told || memcmp (r, &h->told_record, sizeof *r) != 0)
    h->probe_stale = true;
  h->told_record = *r;
  h->record_told = true;
}

static bool
copy_is_open (const struct group *g, const struct peer *p, unsigned i, enum host_role role)
{
  return p != NULL && group_present (g, p) && p->announced && i < p->announce.n_iasps
         && p->announce.iasp[i].opened && p->announce.iasp[i].role == role;
}

/* H7: what message 6 says about the copy.  R5: a restarted one may have lost
 * what it answered and didn't flush. */
static uint8_t
sync_kind (const struct group *g, unsigned i, uint8_t s, const struct peer *p)
{
  /* R6: what it was written by itself, or by a set that was given up, is in
   * no bitmap of this production. */
  if (g->committed.rec[i].copies[s].fork == FORK_DIVERGED)
    return SYNC_FULL;
  if (!g->committed.rec[i].copies[s].in_set || p->announce.iasp[i].store.restarted)
    return SYNC_FULL;
  return SYNC_NONE;
}

/* Message 6: always by the production host, whichever of the two came last. */
static void
send_mirror_start (struct group *g, unsigned i, uint8_t s, const struct peer *p,
                   struct group_actions *out)
{
  struct msg_mirror_start *m = &g->out.u.mirror_start;
  const struct iasp_rec *r = &g->committed.rec[i];

  if (!group_room (out))
    return;
  memset (m, 0, sizeof *m);
  m->iasp = (uint8_t) i;
  m->site = s;
  m->node = p->id;
  m->incarnation = p->incarnation;
  m->tenure = r->tenure;
  m->generation = r->generation;
  m->sync = sync_kind (g, i, s, p);
  group_send (g, out, MSG_MIRROR_START);
  g->host[i].link[s].sent = true;
}

static void
tell_mirror (struct group_actions *out, unsigned i, uint8_t s, uint32_t node, uint8_t sync)
{
  struct group_action *a = group_act (out, GA_MIRROR_START);

  a->iasp = (uint8_t) i;
  a->site = s;
  a->node = node;
  a->sync = sync;
}

static void
settle_link (struct group *g, const struct place_in *in, unsigned i, uint8_t s,
             struct group_actions *out)
{
  const struct iasp_rec *r = &g->committed.rec[i];
  struct copy_link *l = &g->host[i].link[s];
  const struct peer *p = group_peer_const (g, r->copies[s].host);
  const struct peer *me = group_peer_const (g, g->cfg.node_id);

  if (r->copies[s].suspended || r->copies[s].detached)
    return; /* settle_suspended () told it */
  if (copy_is_open (g, p, i, HOST_MIRROR)) {
    bool reached = l->tenure == r->tenure && l->node == p->id && l->incarnation == p->incarnation;

    /* H6: both have announced that they are open and listen. */
    if (!reached && !l->sent && copy_is_open (g, me, i, HOST_PRODUCTION))
      send_mirror_start (g, i, s, p, out);
    if (reached && (l->told_node != p->id || l->told_incarnation != p->incarnation)
        && group_room (out)) {
      tell_mirror (out, i, s, p->id, sync_kind (g, i, s, p));
      l->told_node = p->id;
      l->told_gone = false;
      l->told_incarnation = p->incarnation;
      l->ready = false; /* of another link */
    }
    return;
  }
  /* F3: only if no host is there for the copy is it suspended at once.  Production that has just
   * opened is told so too of a copy of the set that it never had a link to. */
  if ((l->told_node != NO_NODE || r->copies[s].in_set) && in->ready && place_left (in, i, s)
      && !place_can_take (in, i, s))
    unmirror (out, i, s, l, "no host for the copy is there");
}

static void
settle_mirrors (struct group *g, const struct place_in *in, unsigned i, uint8_t site,
                struct group_actions *out)
{
  const struct iasp_rec *r = &g->committed.rec[i];
  struct hosting *h = &g->host[i];

  if (!h->open)
    return;
  if (h->told_role == HOST_PRODUCTION && r->production_site == site) {
    for (uint8_t s = 0; s < g->committed.def.n_sites; s++)
      if (s != site)
        settle_link (g, in, i, s, out);
  } else if (h->told_role == HOST_MIRROR && !h->start_told && h->start_tenure == r->tenure
             && h->start_node == state_unit_host (&g->committed, unit_of (g, i)) && group_room (out)) {
    h->start_told = true;
    tell_mirror (out, i, r->production_site, h->start_node, h->start_sync);
  }
}

/* Does somebody of this site lack the configuration of this host? */
static void
settle_config (struct group *g, unsigned i, uint8_t site, struct group_actions *out)
{
  const struct iasp_def *d = &g->committed.def.iasps[i];
  struct msg_config *m = &g->out.u.config;
  bool lacking = false;

  if (!g->host[i].open || g->host[i].config_sent || !group_room (out))
    return;
  for (unsigned k = 0; k < CRG_MAX_NODES; k++) {
    const struct peer *p = &g->peers[k];

    lacking = lacking
              || (p->id != NO_NODE && p->id != g->cfg.node_id && group_present (g, p)
                  && has_access (g, p->id, i, site)
                  && (p->config_got[i] != p->incarnation
                      || p->config_got_version[i] != g->host[i].config_mine));
  }
  if (!lacking)
    return;
  memset (m, 0, sizeof *m);
  m->iasp = (uint8_t) i;
  m->site = site;
  m->version = g->host[i].config_mine;
  memcpy (m->id, d->id, CRG_ID_LEN);
  m->size = d->size;
  m->dirty_block = d->dirty_block;
  m->mirror_port = d->mirror_port;
  m->n_text = g->host[i].n_config;
  memcpy (m->text, g->host[i].config, m->n_text);
  group_send (g, out, MSG_CONFIG);
  g->host[i].config_sent = true;
}

/* Is everything that concerns this site in place?  Else probe on. */
static bool
all_is_hosted (const struct group *g, unsigned i, uint8_t site)
{
  const struct iasp_rec *r = &g->committed.rec[i];
  const struct peer *p = group_peer_const (g, r->copies[site].host);

  if (!host_serves (g, unit_of (g, i)))
    return false;
  if (r->copies[site].detached)
    return r->copies[site].exported == DETACHED_CLOSED || copy_is_open (g, p, i, HOST_DETACHED);
  return site == r->production_site || is_script (g, i) || copy_is_open (g, p, i, HOST_MIRROR);
}

static void
settle_probe (struct group *g, unsigned i, uint8_t site, struct group_actions *out)
{
  struct hosting *h = &g->host[i];
  unsigned unit = unit_of (g, i);
  uint64_t tenure = state_unit_tenure (&g->committed, unit);
  uint64_t rest_ms = all_is_hosted (g, i, site) ? PROBE_ACCESS_MS : PROBE_AGAIN_MS;
  /* Fig. 4: who has access may change at any time, and the subgroup with it. */
  bool again = h->probed && g->now_ms >= h->probe_ms + rest_ms
               && (rest_ms == PROBE_AGAIN_MS
                   || (g->committed.def.placement == PLACEMENT_ACCESS && h->told_role == HOST_NONE));

  if (!g->committed.started || h->pending)
    return;
  if (h->told_role == HOST_NONE && h->judged_tenure != tenure
      && wanted_role (g, i, site) == HOST_PRODUCTION && lease_cleared (g, unit)
      && !(h->probing && h->probe_tenure == tenure))
    h->probe_stale = true;
  if (h->probing && g->now_ms < h->probe_ms + PROBE_LOST_MS)
    return;
  if ((h->probed && !h->probe_stale && !again) || !group_room (out))
    return;
  group_act (out, GA_PROBE)->iasp = (uint8_t) i;
  h->probing = true;
  h->probe_stale = false;
  h->probe_ms = g->now_ms;
  h->probe_tenure = 0;
  if (wanted_role (g, i, site) == HOST_PRODUCTION && lease_cleared (g, unit))
    h->probe_tenure = tenure;
}

/* Message 3: sent in each view, and whenever what it says changes. */
static void
settle_announce (struct group *g, uint8_t site, struct group_actions *out)
{
  struct announce *a = &g->scratch_announce;

  memset (a, 0, sizeof *a);
  memcpy (a->boot_id, g->cfg.boot_id, CRG_ID_LEN);
  a->n_iasps = g->committed.def.n_iasps;
  for (unsigned i = 0; i < a->n_iasps && site != NO_SITE; i++) {
    const struct hosting *h = &g->host[i];
    struct group_host_status *s = &a->iasp[i];

    if (g->committed.started && !h->probed)
      return;
    s->probed = h->probed;
    s->can_host = h->probed && (h->open || h->store.can_host) && !h->store_failed;
    s->opened = h->open || (h->pending && h->told_role == HOST_NONE && h->closing != HOST_NONE);
    s->role = h->open ? h->told_role : HOST_NONE;
    s->failed = h->failed;
    s->tenure = h->open ? h->told_tenure : h->judged_tenure;
    if (h->probed)
      s->store = h->store;
    str_set (s->reason, sizeof s->reason, h->reason);
  }
  if ((g->announced && memcmp (a, &g->announce_sent, sizeof *a) == 0) || !group_room (out))
    return;
  g->announced = true;
  g->announce_sent = *a;
  g->out.u.announce = *a;
  group_send (g, out, MSG_ANNOUNCE);
}

/* S1 d: a store of this site has no host, and the one that had it open is gone
 * and has not released it: the first node of the site cuts that one off.  Its
 * success is made known as mark-failed: it ends as that does. */
static void
settle_fence (struct group *g, const struct place_in *in, unsigned i, uint8_t site,
              struct group_actions *out)
{
  const struct crg_state *s = &g->committed;
  uint32_t holder = g->host[i].store.held_by;
  int n = state_node_index (s, holder), me = group_me (g);
  unsigned unit = unit_of (g, i);
  const struct peer *p = group_peer_const (g, holder);
  struct group_action *a;

  if (!g->cfg.can_fence || !s->started || g->fence.node != NO_NODE
      || g->now_ms < g->fence.retry_ms || !g->host[i].probed || g->host[i].store.can_host || n < 0
      || holder == g->cfg.node_id || s->def.nodes[n].marked_failed || (p != NULL && p->in_view)
      || !in->ready || !place_left (in, i, site) || s->rec[i].copies[site].barred
      || place_can_take (in, i, site) || !group_room (out))
    return;
  for (unsigned k = 0; k < s->def.n_nodes; k++)
    if (s->def.nodes[k].site == site && in->node[k].present
        && place_has_access (s, i, in->node[k].announce)
        && state_order (s, unit, k) < state_order (s, unit, (unsigned) me))
      return;
  g->fence.node = holder;
  g->fence.is_void = false;
  a = group_act (out, GA_FENCE);
  a->node = holder;
}

/* F6: an earlier run of crgd may have held the plugin and died; this run's group still names it.
 * Whether the plugin was found before or after its role was asked for doesn't matter: one of a
 * busy machine tells its status late.  To one that holds nothing it is nothing. */
static void
settle_held (struct group *g, unsigned i, uint8_t site, struct group_actions *out)
{
  struct hosting *h = &g->host[i];

  if (h->let_go || !h->open || h->told_role != HOST_PRODUCTION
      || (g->sw.phase != SWITCH_NONE && g->sw.unit == unit_of (g, i))
      || wanted_role (g, i, site) != HOST_PRODUCTION || !group_room (out))
    return;
  group_act (out, GA_RESUME)->iasp = (uint8_t) i;
  h->let_go = true;
}

void
host_settle (struct group *g, struct group_actions *out)
{
  struct place_in in;
  uint8_t site;

  /* C4: nothing outside the group happens before commit. */
  if (!group_active (g))
    return;
  place_gather (g, &in);
  site = site_of (g, g->cfg.node_id);
  for (unsigned i = 0; i < g->committed.def.n_iasps; i++) {
    settle_role (g, &in, i, site, out);
    settle_record (g, i, out);
    settle_mirrors (g, &in, i, site, out);
    if (site == NO_SITE)
      continue;
    settle_held (g, i, site, out);
    settle_config (g, i, site, out);
    settle_probe (g, i, site, out);
    settle_fence (g, &in, i, site, out);
  }
  settle_announce (g, site, out);
}
