/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Operators' requests and the switchover (F6), part of the group core.  A
 * request is kept at the node that got it until its outcome is committed, or
 * known to be impossible; its answer carries crgctl's exit code.  State lives
 * in struct group; called by group.c.
 */
#include <string.h>

#include "server/bytes.h"
#include "server/group_private.h"
#include "server/place.h"

/* crgctl's exit codes that are given here. */
enum {
  CODE_FINE = 0,
  CODE_ERROR = 1,
  CODE_TIMEOUT = 3,
  CODE_UNAVAILABLE = 5,
  CODE_REFUSED = 7,
  CODE_NEEDS_FORCE = 8,
  CODE_NO_OBJECT = 10,
};

static void
answer (struct group_actions *out, uint64_t request_id, int code, const char *reason)
{
  struct group_action *a = group_act (out, GA_REPLY);

  a->request_id = request_id;
  a->code = code;
  str_set (a->reason, sizeof a->reason, reason);
}

/* To whoever asked: here, or by a message to another node. */
static void
answer_origin (struct group *g, struct group_actions *out, uint32_t origin, uint64_t request_id,
               int code, const char *reason)
{
  struct msg_request *m = &g->out.u.request;

  if (origin == g->cfg.node_id) {
    for (unsigned i = 0; i < GROUP_MAX_REQUESTS; i++)
      if (g->requests[i].used && g->requests[i].request == GR_SWITCHOVER
          && g->requests[i].request_id == request_id)
        g->requests[i].used = false;
    answer (out, request_id, code, reason);
    return;
  }
  if (g->phase == PHASE_NO_VIEW)
    return; /* the node that asked gives up when it sees the next epoch */
  memset (m, 0, sizeof *m);
  m->request = GR_SWITCHOVER;
  m->request_id = request_id;
  m->node = origin;
  m->code = (uint8_t) code;
  str_set (m->reason, sizeof m->reason, reason);
  group_send (g, out, MSG_REPLY);
}

/* The unit that a request is about. */
static unsigned
unit_of (const struct group *g, const struct request *r)
{
  return state_unit (&g->committed, r->iasp);
}

/* ---- switchover on the production host ---------------------------------- */

static void
resume (struct group *g, struct group_actions *out)
{
  /* Also where the plugin is gone meanwhile: the next one shall not be held. */
  for (unsigned i = 0; i < g->committed.def.n_iasps; i++)
    if (state_unit (&g->committed, i) == g->sw.unit)
      group_act (out, GA_RESUME)->iasp = (uint8_t) i;
}

static void
give_up (struct group *g, struct group_actions *out, const char *why)
{
  if (g->sw.phase == SWITCH_HOLDING || g->sw.phase == SWITCH_APPOINTING)
    resume (g, out);
  g->sw.phase = SWITCH_NONE;
  answer_origin (g, out, g->sw.origin, g->sw.request_id, CODE_ERROR, why);
}

static const char *
switch_refusal (struct group *g, unsigned unit, uint32_t node, int *target)
{
  struct place_in in;

  *target = -1;
  if (!group_active (g))
    return "the group is changing its members; try again";
  if (!g->committed.started)
    return "the CRG is not started";
  if (state_unit_host (&g->committed, unit) != g->cfg.node_id || !host_serves (g, unit))
    return "production is not served now, so there is nothing to switch over";
  place_gather (g, &in);
  if (node == NO_NODE) {
    *target = place_target (&in, unit);
    return *target < 0 ? "no node can take over: see the reasons in crgctl status" : NULL;
  }
  *target = state_node_index (&g->committed, node);
  if (*target < 0)
    return "no such node in the recovery domain";
  if (node == g->cfg.node_id)
    return "it is the production host already";
  return place_refusal (&in, unit, (unsigned) *target, PLACE_SWITCH_COPIES);
}

static void
switch_begin (struct group *g, struct group_actions *out, uint32_t origin, uint64_t request_id,
              unsigned unit, uint32_t node, bool dry_run)
{
  const char *why;
  int target;

  if (g->sw.phase != SWITCH_NONE) {
    if (g->sw.origin != origin || g->sw.request_id != request_id)
      answer_origin (g, out, origin, request_id, CODE_REFUSED, "another switchover is under way");
    return;
  }
  why = switch_refusal (g, unit, node, &target);
  if (why != NULL) {
    answer_origin (g, out, origin, request_id, CODE_REFUSED, why);
    return;
  }
  if (dry_run) {
    char text[CRG_REASON_MAX + 1];
    struct text t;

    text_begin (&t, text, sizeof text);
    text_add (&t, "production ");
    if (g->committed.def.placement == PLACEMENT_ACCESS) {
      text_add (&t, "of ");
      text_add (&t, g->committed.def.iasps[unit].name);
      text_add (&t, " ");
    }
    text_add (&t, "would move to ");
    text_add (&t, g->committed.def.nodes[target].name);
    answer_origin (g, out, origin, request_id, CODE_FINE, text);
    return;
  }
  memset (&g->sw, 0, sizeof g->sw);
  g->sw.phase = SWITCH_HOLDING;
  g->sw.unit = (uint8_t) unit;
  g->sw.target = g->committed.def.nodes[target].id;
  g->sw.origin = origin;
  g->sw.request_id = request_id;
  g->sw.epoch = g->committed.stamp.epoch;
  g->sw.tenure = state_unit_tenure (&g->committed, unit);
  /* F6: hold new I/O, drain, flush everywhere. */
  for (unsigned i = 0; i < g->committed.def.n_iasps; i++)
    if (state_unit (&g->committed, i) == unit) {
      struct group_action *a = group_act (out, GA_HOLD);

      a->iasp = (uint8_t) i;
      str_set (a->reason, sizeof a->reason, "switchover");
    }
}

void
request_on_drained (struct group *g, const struct group_event *ev, struct group_actions *out)
{
  if (g->sw.phase != SWITCH_HOLDING || ev->iasp >= g->committed.def.n_iasps
      || state_unit (&g->committed, ev->iasp) != g->sw.unit) {
    g->counters.illegal++;
    return;
  }
  if (!ev->ok) {
    give_up (g, out, ev->reason[0] != 0 ? ev->reason : "the I/O could not be drained");
    return;
  }
  g->sw.drained |= 1u << ev->iasp;
  if (g->sw.drained == state_unit_iasps (&g->committed, g->sw.unit))
    g->sw.phase = SWITCH_APPOINTING;
}

/* Was an IASP that is to be drained told to let go, as its store failed?  It will not say that it is drained. */
static bool
is_let_go (const struct group *g, unsigned unit)
{
  for (unsigned i = 0; i < g->committed.def.n_iasps; i++)
    if (state_unit (&g->committed, i) == unit && g->host[i].told_role != HOST_PRODUCTION)
      return true;
  return false;
}

/* F6: from the hold on the old plugin resumes only on an appointment, or on a
 * GROUP-STATE committed in a later epoch that still names it; never by a
 * timer.  A proposal with a stale base is known to be ignored (C3). */
static void
settle_switch (struct group *g, struct group_actions *out)
{
  struct switchover *sw = &g->sw;
  uint32_t host;

  if (sw->phase == SWITCH_NONE || !group_active (g))
    return;
  host = state_unit_host (&g->committed, sw->unit);
  if (sw->phase != SWITCH_WAITING) {
    if (state_unit_tenure (&g->committed, sw->unit) != sw->tenure) {
      if (host == sw->target)
        sw->phase = SWITCH_WAITING;
      else {
        sw->phase = SWITCH_NONE;
        answer_origin (g, out, sw->origin, sw->request_id, CODE_ERROR,
                       "production was taken over by another node meanwhile");
      }
    } else if (g->committed.stamp.epoch != sw->epoch)
      give_up (g, out, "the group changed meanwhile; production stays; try again");
    else if (!g->committed.started)
      give_up (g, out, "the CRG was ended meanwhile");
    else if (sw->phase == SWITCH_HOLDING && is_let_go (g, sw->unit))
      give_up (g, out, "production was given up before it was drained; see crgctl explain");
  }
  if (sw->phase == SWITCH_WAITING) {
    if (host != sw->target) {
      sw->phase = SWITCH_NONE;
      answer_origin (g, out, sw->origin, sw->request_id, CODE_ERROR,
                     "the target could not serve; production went on elsewhere");
    } else if (host_serves (g, sw->unit)) {
      sw->phase = SWITCH_NONE;
      answer_origin (g, out, sw->origin, sw->request_id, CODE_FINE, "production was switched over");
    }
  }
}

static bool
want_switch (struct group *g, struct change *c)
{
  struct switchover *sw = &g->sw;
  struct place_in in;
  int n;

  if (sw->phase != SWITCH_APPOINTING
      || state_unit_host (&g->committed, sw->unit) != g->cfg.node_id)
    return false;
  place_gather (g, &in);
  n = state_node_index (&g->committed, sw->target);
  if (n < 0 || in.node[n].announce == NULL)
    return false; /* gone: settled by the next epoch */
  memset (c, 0, sizeof *c);
  c->kind = CH_APPOINT;
  c->iasps = state_unit_iasps (&g->committed, sw->unit);
  c->site = g->committed.def.nodes[n].site;
  c->node = sw->target;
  c->expect_node = g->cfg.node_id;
  c->expect_tenure = sw->tenure;
  c->graceful = true;
  memcpy (c->boot_id, in.node[n].announce->boot_id, CRG_ID_LEN);
  for (unsigned i = 0; i < g->committed.def.n_nodes; i++)
    if (in.node[i].present)
      c->present |= (uint16_t) (1u << i);
  return true;
}

/* Drained, but the target can't take over any more: nothing was appointed,
 * and no appointment of this stamp is under way. */
static void
settle_target (struct group *g, struct group_actions *out)
{
  struct switchover *sw = &g->sw;
  struct place_in in;
  const char *why;
  int n;

  if (sw->phase != SWITCH_APPOINTING || !group_active (g)
      || (sw->proposed && sw->proposed_view == g->view
          && stamp_compare (sw->proposed_base, g->applied.stamp) == 0))
    return;
  place_gather (g, &in);
  n = state_node_index (&g->committed, sw->target);
  why = n < 0 ? "the target is gone"
              : place_refusal (&in, sw->unit, (unsigned) n, PLACE_SWITCH_COPIES);
  if (why != NULL)
    give_up (g, out, why);
}

/* ---- messages ----------------------------------------------------------- */

void
request_on_request (struct group *g, struct peer *from, struct group_actions *out)
{
  const struct msg_request *m = &g->in.u.request;
  struct msg_request copy = *m; /* g->out may alias nothing of g->in, but answers reuse it */
  unsigned unit;

  if (copy.request != GR_SWITCHOVER || !g->has_committed || copy.iasp >= g->committed.def.n_iasps)
    return;
  unit = state_unit (&g->committed, copy.iasp);
  if (state_unit_host (&g->committed, unit) != g->cfg.node_id || from->id == g->cfg.node_id)
    return;
  switch_begin (g, out, from->id, copy.request_id, unit, copy.node, copy.dry_run);
}

void
request_on_reply (struct group *g, struct peer *from, struct group_actions *out)
{
  const struct msg_request *m = &g->in.u.request;

  (void) from;
  if (m->node != g->cfg.node_id)
    return;
  for (unsigned i = 0; i < GROUP_MAX_REQUESTS; i++) {
    struct request *r = &g->requests[i];

    if (r->used && r->request == GR_SWITCHOVER && r->request_id == m->request_id) {
      r->used = false;
      answer (out, m->request_id, m->code, m->reason);
    }
  }
}

/* ---- requests of this node's operator ----------------------------------- */

/* Of an IASP at a site: their numbers are looked at once, as neither an IASP nor
 * a site ever goes. */
static bool
is_about_copy (uint8_t request)
{
  return request == GR_UNBAR || (request >= GR_SUSPEND && request <= GR_REATTACH);
}

void
request_on_event (struct group *g, const struct group_event *ev, struct group_actions *out)
{
  struct request *r = NULL;

  if (ev->request < GR_START || ev->request >= GR_REQUEST_END
      || (ev->request == GR_NODE && ev->node_change == NULL)) {
    g->counters.illegal++;
    return;
  }
  if (!g->has_committed || !g->has_state) {
    answer (out, ev->request_id, CODE_UNAVAILABLE,
            "this node has not joined a started group yet: a majority is needed");
    return;
  }
  if (!group_active (g) && g->phase == PHASE_NO_VIEW) {
    answer (out, ev->request_id, CODE_UNAVAILABLE, "the group engine gives no view");
    return;
  }
  if (g->phase == PHASE_ANSWERING && !group_majority (g, group_present)) {
    answer (out, ev->request_id, CODE_UNAVAILABLE,
            "no majority is there: nothing can be committed; see crgctl status");
    return;
  }
  if (ev->request == GR_MARK_FAILED || (ev->request == GR_SWITCHOVER && ev->node != NO_NODE))
    if (state_node_index (&g->committed, ev->node) < 0) {
      answer (out, ev->request_id, CODE_NO_OBJECT, "no such node in the recovery domain");
      return;
    }
  if ((ev->request == GR_SWITCHOVER || is_about_copy (ev->request)) && ev->iasp >= g->committed.def.n_iasps) {
    answer (out, ev->request_id, CODE_NO_OBJECT, "no such resource in the CRG");
    return;
  }
  if (is_about_copy (ev->request) && ev->site >= g->committed.def.n_sites) {
    answer (out, ev->request_id, CODE_NO_OBJECT, "no such site in the CRG");
    return;
  }
  for (unsigned i = 0; i < GROUP_MAX_REQUESTS; i++)
    if (!g->requests[i].used)
      r = &g->requests[i];
  if (r == NULL) {
    answer (out, ev->request_id, CODE_ERROR, "too many requests are waiting; try again");
    return;
  }
  memset (r, 0, sizeof *r);
  r->used = true;
  r->request = ev->request;
  r->request_id = ev->request_id;
  r->node = ev->node;
  r->iasp = ev->iasp;
  r->site = ev->site;
  r->dry_run = ev->dry_run;
  r->mode = ev->mode;
  r->forced = ev->forced;
  if (ev->request == GR_SWITCHOVER)
    r->tenure = state_unit_tenure (&g->committed, unit_of (g, r));
  r->until_ms = g->now_ms + (ev->wait_ms ? ev->wait_ms : REQUEST_WAIT_MS);
  if (ev->request == GR_NODE) {
    r->node_change = *ev->node_change;
    r->until_ms = g->now_ms + DOMAIN_JOIN_MS;
  }
}

/* ---- a forced takeover -------------------------------------------------- */

/* "12 s", "5 min", "3 h", "9 days" */
static void
add_age (struct text *t, uint64_t ms)
{
  static const struct {
    uint64_t ms;
    const char *unit;
  } units[] = { { 2 * 86400000ull, " days" }, { 7200000, " h" }, { 120000, " min" }, { 0, " s" } };
  static const uint64_t divisor[] = { 86400000, 3600000, 60000, 1000 };
  unsigned i = 0;

  while (ms < units[i].ms)
    i++;
  text_num (t, ms / divisor[i]);
  text_add (t, units[i].unit);
}

/* What a forced takeover by this node would cost, as far as the record knows:
 * of the IASP whose copy has been out of the set for longest. */
static void
say_loss (const struct group *g, const struct place_in *in, unsigned unit, unsigned node, struct text *t)
{
  const struct crg_state *s = &g->committed;
  uint8_t site = s->def.nodes[node].site;
  const uint32_t apart = place_apart (in, unit);
  unsigned worst = unit;

  for (unsigned i = unit + 1; i < s->def.n_iasps; i++)
    if (state_unit (s, i) == unit && !s->rec[i].copies[site].in_set
        && (s->rec[worst].copies[site].in_set
            || s->rec[i].copies[site].left_ms < s->rec[worst].copies[site].left_ms))
      worst = i;
  for (unsigned i = unit; i < s->def.n_iasps && s->rec[worst].copies[site].in_set; i++)
    if (apart >> i & 1) {
      worst = i;
      break;
    }
  const struct copy_rec *c = &s->rec[worst].copies[site];

  text_add (t, s->def.nodes[node].name);
  text_add (t, " has the copy of ");
  text_add (t, s->def.iasps[worst].name);
  text_add (t, " at site ");
  text_add (t, s->def.sites[site]);
  if (!c->in_set && c->left_ms != 0 && g->wall_ms >= c->left_ms) {
    text_add (t, ", which left the set ");
    add_age (t, g->wall_ms - c->left_ms);
    text_add (t, " ago: what was answered since is lost");
  } else if (c->in_set && (apart >> worst & 1))
    text_add (t, ". A store does not agree with the recovered group (C9; crgctl explain): what "
                 "only another copy has is lost, and that copy becomes a fork");
  else if (c->in_set)
    text_add (t, ", whose machine restarted: what was answered and not flushed then is lost, if "
                 "it has not got it");
  else
    text_add (t, ", which is not in the set: what was answered since it left is lost");
}

/* R4: the change that takes production to the node of a forced switchover. */
static bool
want_force (struct group *g, const struct request *r, struct change *c)
{
  struct place_in in;
  int n = state_node_index (&g->committed, r->node);
  unsigned unit = unit_of (g, r);

  if (!r->forced || r->dry_run || n < 0
      || state_unit_tenure (&g->committed, unit) != r->tenure || host_serves (g, unit))
    return false;
  place_gather (g, &in);
  /* Who hasn't said yet what it can host may take over without a loss. */
  if (!in.ready || place_force_refusal (&in, unit, (unsigned) n) != NULL)
    return false;
  return place_force (&in, unit, (unsigned) n, c);
}

/* A switchover while production isn't served: nothing can be drained, so it
 * is a takeover by a copy that lacks something, or nothing.  True: settled. */
static bool
settle_force (struct group *g, struct request *r, struct group_actions *out)
{
  const struct crg_state *s = &g->committed;
  unsigned unit = unit_of (g, r);
  uint32_t host = state_unit_host (s, unit);
  int n = state_node_index (s, r->node);
  char text[CRG_REASON_MAX + 1];
  struct place_in in;
  const char *why;
  struct change c;
  struct text t;
  int code;

  if (r->forced && host == r->node && state_unit_tenure (s, unit) > r->tenure) {
    r->used = false;
    answer (out, r->request_id, CODE_FINE, "production was taken over by force; loss has risen");
    return true;
  }
  if (n < 0 || !s->started || r->sent)
    return false;
  if (host_serves (g, unit)) {
    if (!r->forced)
      return false;
    r->used = false;
    if (r->accepting && host == r->node) {
      answer (out, r->request_id, CODE_FINE, "production is served by the copy whose machine restarted; loss has risen");
      return true;
    }
    answer (out, r->request_id, CODE_REFUSED,
            "production is served: switch over without --force, and nothing is lost");
    return true;
  }
  if (state_unit_tenure (s, unit) != r->tenure) {
    r->used = false;
    answer (out, r->request_id, CODE_REFUSED, "production was taken over by another node meanwhile");
    return true;
  }
  place_gather (g, &in);
  if (!in.ready)
    return true; /* who is there hasn't said what it can host */
  why = place_force_refusal (&in, unit, (unsigned) n);
  if (r->accepting && !place_unit_restarted (&in, unit, true, &c))
    return true; /* committed: it opens */
  if (why == NULL && r->forced && !r->dry_run) {
    r->accepting = host == r->node && place_apart (&in, unit) == 0;
    return true; /* proposed, until it is so */
  }
  text_begin (&t, text, sizeof text);
  if (why != NULL) {
    code = r->forced ? CODE_REFUSED : CODE_UNAVAILABLE;
    if (!r->forced)
      text_add (&t, "production is not served, so there is nothing to switch over; by force: ");
    text_add (&t, why);
  } else {
    code = r->dry_run && r->forced ? CODE_FINE : CODE_NEEDS_FORCE;
    say_loss (g, &in, unit, (unsigned) n, &t);
    if (code == CODE_NEEDS_FORCE)
      text_add (&t, "; --force takes over with it");
  }
  r->used = false;
  answer (out, r->request_id, code, text);
  return true;
}

static void
request_change (const struct request *r, struct change *c)
{
  memset (c, 0, sizeof *c);
  switch (r->request) { /* never: another; SWITCHOVER and NODE are settled otherwise */
  case GR_START: c->kind = CH_START; break;
  case GR_END: c->kind = CH_END; break;
  case GR_DELETE: c->kind = CH_DELETE; break;
  case GR_MARK_FAILED:
    c->kind = CH_MARK_FAILED;
    c->node = r->node;
    break;
  case GR_UNBAR:
    c->kind = CH_BAR;
    c->iasps = 1u << r->iasp;
    c->site = r->site;
    c->clear = true;
    break;
  case GR_SUSPEND:
  case GR_RESUME:
  case GR_DETACH:
  case GR_REATTACH:
    c->kind = r->request <= GR_RESUME ? CH_SUSPEND : CH_DETACH;
    c->iasps = 1u << r->iasp;
    c->site = r->site;
    c->clear = r->request == GR_RESUME || r->request == GR_REATTACH;
    c->mode = r->mode;
    if (r->request == GR_SUSPEND)
      str_set (c->reason, sizeof c->reason, "suspended by an operator");
    else if (r->request == GR_DETACH)
      str_set (c->reason, sizeof c->reason, "detached by an operator");
    break;
  }
}

/* Is what was asked for so, in the committed state? */
static bool
is_done (const struct group *g, const struct request *r)
{
  const struct crg_state *s = &g->committed;
  const struct copy_rec *copy = is_about_copy (r->request) ? &s->rec[r->iasp].copies[r->site] : NULL;
  int n;

  switch (r->request) { /* never: another; SWITCHOVER and NODE are settled otherwise */
  case GR_START: return s->started;
  case GR_END: return !s->started;
  case GR_DELETE: return s->deleted;
  case GR_MARK_FAILED:
    n = state_node_index (s, r->node); /* -1: removed meanwhile */
    return n >= 0 && s->def.nodes[n].marked_failed;
  case GR_UNBAR:
    return !copy->barred;
  case GR_SUSPEND:
    return copy->suspended;
  case GR_RESUME:
    return !copy->suspended && !copy->detached;
  case GR_DETACH:
    return copy->detached && copy->exported == r->mode;
  case GR_REATTACH:
    return !copy->detached;
  default: return false;
  }
}

/* A switchover asked for at another node than production. */
static void
settle_forwarded (struct group *g, struct request *r, struct group_actions *out)
{
  struct msg_request *m = &g->out.u.request;
  unsigned unit = unit_of (g, r);
  uint32_t host = state_unit_host (&g->committed, unit);

  if (r->sent && g->committed.stamp.epoch == r->epoch)
    return;
  if (r->sent) {
    /* Its answer may have been lost with the old view. */
    if (host == r->node && host_serves (g, unit)) {
      r->used = false;
      answer (out, r->request_id, CODE_FINE, "production was switched over");
    } else if (host != r->node || r->node == NO_NODE) {
      r->used = false;
      answer (out, r->request_id, CODE_ERROR, "the group changed meanwhile: see crgctl status");
    }
    return;
  }
  if (host == g->cfg.node_id) {
    r->sent = true;
    r->epoch = g->committed.stamp.epoch;
    switch_begin (g, out, g->cfg.node_id, r->request_id, unit, r->node, r->dry_run);
    return;
  }
  if (!host_serves (g, unit)) {
    r->used = false;
    answer (out, r->request_id, CODE_UNAVAILABLE,
            "production is not served now: there is nothing to switch over");
    return;
  }
  if (!group_room (out))
    return;
  memset (m, 0, sizeof *m);
  m->request = r->request;
  m->iasp = r->iasp;
  m->request_id = r->request_id;
  m->node = r->node;
  m->dry_run = r->dry_run;
  group_send (g, out, MSG_REQUEST);
  r->sent = true;
  r->epoch = g->committed.stamp.epoch;
}

/* C7: several changes, one after the other. */
static void
settle_node (struct group *g, struct request *r, struct group_actions *out)
{
  struct change c;
  const char *why = "";
  enum domain_step next = domain_next (g, &r->node_change, &c, &why);

  if (next == DOMAIN_CHANGE || (next == DOMAIN_WAIT && g->now_ms < r->until_ms))
    return;
  r->used = false;
  answer (out, r->request_id,
          next == DOMAIN_DONE ? CODE_FINE : next == DOMAIN_WAIT ? CODE_TIMEOUT : CODE_REFUSED,
          next == DOMAIN_DONE ? "" : why);
}

void
request_void_marks (struct group *g, bool all)
{
  for (unsigned i = 0; i < GROUP_MAX_REQUESTS; i++) {
    struct request *r = &g->requests[i];
    const struct peer *p = group_peer_const (g, r->node);

    if (r->used && r->request == GR_MARK_FAILED && (all || (p != NULL && p->in_view)))
      r->is_void = true;
  }
}

void
request_settle (struct group *g, struct group_actions *out)
{
  struct change c;

  settle_switch (g, out);
  settle_target (g, out);
  for (unsigned i = 0; i < GROUP_MAX_REQUESTS; i++) {
    struct request *r = &g->requests[i];

    if (!r->used)
      continue;
    if (g->phase == PHASE_NO_VIEW) {
      r->used = false;
      answer (out, r->request_id, CODE_UNAVAILABLE,
              "the view was lost before the outcome was known: see crgctl status");
      continue;
    }
    /* Nobody shall see done later what he was told could not be done. */
    if (r->request != GR_NODE && g->now_ms >= r->until_ms) {
      r->used = false;
      answer (out, r->request_id, CODE_TIMEOUT,
              r->sent ? "it is not done yet: see crgctl status"
                      : "it could not be done in time, and is given up: crgctl status says for what it waited");
      continue;
    }
    if (!group_active (g))
      continue;
    if (r->request == GR_SWITCHOVER) {
      if (settle_force (g, r, out))
        continue;
      /* The production host's own one is answered by settle_switch. */
      if (!(r->sent && g->sw.phase != SWITCH_NONE && g->sw.origin == g->cfg.node_id
            && g->sw.request_id == r->request_id))
        settle_forwarded (g, r, out);
      continue;
    }
    if (r->request == GR_NODE) {
      settle_node (g, r, out);
      continue;
    }
    request_change (r, &c);
    if (is_done (g, r)) {
      r->used = false;
      answer (out, r->request_id, CODE_FINE, "");
    } else if (r->is_void) {
      r->used = false;
      answer (out, r->request_id, CODE_REFUSED,
              "the node came back since this was asked for, or may have: ask again if it is dead now");
    } else {
      const char *why = state_check (&g->committed, &c);

      if (why != NULL) {
        r->used = false;
        answer (out, r->request_id, CODE_REFUSED, why);
      } else if (r->request == GR_REATTACH && !r->forced
                 && g->committed.rec[r->iasp].copies[r->site].fork == FORK_DIVERGED) {
        /* R6: an operator says which side's writes go. */
        r->used = false;
        answer (out, r->request_id, CODE_NEEDS_FORCE,
                "what the detached copy holds beyond production's is lost; --force reattaches it "
                "(switchover --to its host --force takes over with it instead)");
      }
    }
  }
}

bool
request_want (struct group *g, struct change *c)
{
  for (unsigned i = 0; i < GROUP_MAX_REQUESTS; i++) {
    const char *why;

    if (!g->requests[i].used)
      continue;
    if (g->requests[i].request == GR_SWITCHOVER) {
      if (want_force (g, &g->requests[i], c))
        return true;
      continue;
    }
    if (g->requests[i].request != GR_NODE) {
      request_change (&g->requests[i], c);
      if (g->requests[i].is_void || is_done (g, &g->requests[i]) || state_check (&g->committed, c) != NULL)
        continue; /* answered at the next event */
      return true;
    }
    if (domain_next (g, &g->requests[i].node_change, c, &why) == DOMAIN_CHANGE)
      return true;
  }
  return want_switch (g, c);
}
