/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The shell of member.h.  Events that arise while actions are carried out
 * wait in a queue until the step is over, so the core never sees an event in
 * the middle of its own actions.
 */
#include "config.h"

#include "server/member_private.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <qb/qbdefs.h>
#include <qb/qbloop.h>

#include "common/clock.h"
#include "common/crc32c.h"
#include "common/jsonl.h"
#include "common/util-posix.h"
#include "server/cluster.h"
#include "server/events.h"
#include "server/fence.h"
#include "server/log.h"
#include "server/statefile.h"
#include "server/status.h"
#include "server/tell.h"


uint32_t
engine_id_of (const char *node_name)
{
  uint32_t id = crc32c (0, node_name, strlen (node_name));

  return id ? id : 1;
}

void
member_note (struct member *m, const char *fmt, ...)
{
  struct trace_event *t = &m->trace[m->trace_next++ % TRACE_EVENTS];
  va_list ap;

  t->at_ms = clock_wall_ms ();
  va_start (ap, fmt);
  vsnprintf (t->text, sizeof t->text, fmt, ap);
  va_end (ap);
}

json_t *
member_trace (const struct member *m)
{
  json_t *list = json_array ();
  unsigned first = m->trace_next > TRACE_EVENTS ? m->trace_next - TRACE_EVENTS : 0;

  for (unsigned i = first; i < m->trace_next; i++) {
    const struct trace_event *t = &m->trace[i % TRACE_EVENTS];
    time_t seconds = (time_t) (t->at_ms / 1000);
    char line[CRG_REASON_MAX + 64], when[32] = "";
    struct tm tm;

    if (gmtime_r (&seconds, &tm))
      strftime (when, sizeof when, "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf (line, sizeof line, "%s.%03uZ %s", when, (unsigned) (t->at_ms % 1000), t->text);
    json_array_append_new (list, jsonl_string (line));
  }
  return list;
}

/* ---- names and ids --------------------------------------------------------------------- */

static void
member_learn_node (struct member *m, const char *name, uint32_t id)
{
  uint32_t engine_id = engine_id_of (name);

  if (id == NO_NODE)
    return;
  if (strcmp (name, m->d->conf.name) == 0)
    m->id = id;
  for (unsigned i = 0; i < m->n_nodes; i++)
    if (m->nodes[i].engine_id == engine_id) {
      m->nodes[i].id = id;
      return;
    }
  if (m->n_nodes < CRG_MAX_NODES) {
    struct node_id *n = &m->nodes[m->n_nodes++];

    *n = (struct node_id){ .engine_id = engine_id, .id = id };
    snprintf (n->name, sizeof n->name, "%s", name);
  }
}

unsigned
member_domain (const struct member *m, struct node_name_id nodes[CRG_MAX_NODES])
{
  for (unsigned i = 0; i < m->n_nodes; i++) {
    memcpy (nodes[i].name, m->nodes[i].name, sizeof nodes[i].name);
    nodes[i].id = m->nodes[i].id;
  }
  return m->n_nodes;
}

static bool
is_mapped (const struct member *m, uint32_t engine_id)
{
  for (unsigned i = 0; i < m->n_nodes; i++)
    if (m->nodes[i].engine_id == engine_id)
      return true;
  return false;
}

/* C7: a node that the core was not told of, as it wasn't in the domain, is in
 * the view; only another view makes it count. */
static bool
is_new_in_view (const struct member *m, const struct crg_state *s)
{
  for (unsigned i = 0; i < s->def.n_nodes; i++)
    for (unsigned k = 0; k < m->n_view; k++)
      if (m->view[k] == engine_id_of (s->def.nodes[i].name) && !is_mapped (m, m->view[k]))
        return true;
  return false;
}

/* Who was removed is a stranger from now on. */
static void
forget_removed (struct member *m, const struct crg_state *s)
{
  unsigned n = 0;

  for (unsigned i = 0; i < m->n_nodes; i++)
    if (state_node_index (s, m->nodes[i].id) >= 0)
      m->nodes[n++] = m->nodes[i];
  m->n_nodes = n;
}

static void
learn_state (struct member *m, const struct crg_state *s)
{
  if (s)
    forget_removed (m, s);
  for (unsigned i = 0; s && i < s->def.n_nodes; i++)
    member_learn_node (m, s->def.nodes[i].name, s->def.nodes[i].id);
}

static uint32_t
domain_id (const struct member *m, uint32_t engine_id)
{
  for (unsigned i = 0; i < m->n_nodes; i++)
    if (m->nodes[i].engine_id == engine_id)
      return m->nodes[i].id;
  return NO_NODE;
}

const struct crg_state *
member_state (const struct member *m)
{
  const struct crg_state *s = group_committed (m->g);

  return s ? s : group_applied (m->g);
}

int
member_self (const struct member *m)
{
  const struct crg_state *s = member_state (m);

  return s ? state_node_index (s, m->id) : -1;
}

bool
member_spec (const struct member *m, unsigned iasp, unsigned node, struct plugin_spec *spec)
{
  const struct crg_state *s = member_state (m);

  return s && tell_spec (&m->d->conf, s, iasp, node, spec);
}

/* ---- actions --------------------------------------------------------------------------- */

static const char *
role_name (enum host_role role)
{
  static const char *const names[HOST_ROLE_END] = { "none", "mirror", "production", "detached" };

  return role < HOST_ROLE_END ? names[role] : "?";
}

/* The one way to be without a group for a while; said once for each reason. */
static void UTIL_PRINTF (2, 3)
keep_away (struct member *m, const char *fmt, ...)
{
  struct group_event down = { .kind = GE_DOWN };
  char why[sizeof m->away];
  va_list ap;

  va_start (ap, fmt);
  vsnprintf (why, sizeof why, fmt, ap);
  va_end (ap);
  if (strcmp (why, m->away) != 0) {
    log_error ("%s: %s; this node keeps out of the group and comes back when it can", m->crg, why);
    member_note (m, "keeps away: %s", why);
  }
  memcpy (m->away, why, sizeof m->away);
  m->rejoin_at_ms = clock_boottime_ms () + MEMBER_REJOIN_MS;
  member_leave (m);
  member_step (m, &down);
  if (m->ending)
    member_arm (m);
}

/* C6: a node that can't keep what it says must not say it. */
static void
persist_failed (struct member *m, int err)
{
  m->anew = true;
  keep_away (m, "can't write the group state in %s: %s", m->d->conf.state_dir, strerror (-err));
}

void
member_stay (struct member *m, int err)
{
  m->gone = false;
  m->anew = true;
  keep_away (m, "can't read the group state in %s: %s", m->d->conf.state_dir,
             err == -EBADMSG ? "it is damaged" : strerror (-err));
  member_arm (m);
}

/* From disk, as a new incarnation; first what it holds has to be there.  It may be newer than what is: the core
 * took it up, and this node has told nobody that it had written it. */
static void
begin_anew (struct member *m)
{
  const struct crg_state *s = m->recovered ? NULL : group_applied (m->g);
  int r = s ? statefile_save (m->d->conf.state_dir, m->crg, s, group_promised (m->g), group_hold_ms (m->g)) : 0;

  if (r < 0) {
    persist_failed (m, r);
    return;
  }
  m->left = LEAVE_AGAIN;
  m->gone = true;
  daemon_remove (m->d, m, true);
}

static bool
persist (struct member *m)
{
  const struct crg_state *s = group_applied (m->g);
  int r;

  if (s == NULL)
    return true; /* no vote, so no promise either (C6) */
  r = statefile_save (m->d->conf.state_dir, m->crg, s, group_promised (m->g), group_hold_ms (m->g));
  if (r < 0) {
    persist_failed (m, r);
    return false;
  }
  if (!m->gone && is_new_in_view (m, s)) {
    log_notice ("%s: a node of the view is new in the domain; joining anew to hear it", m->crg);
    m->gone = true;
    m->left = LEAVE_AGAIN;
  }
  learn_state (m, s);
  return true;
}

/* Nothing new begins.  What runs of it here, as a mirror copy that was to be promoted, ends when stop.c says so. */
static void
refuse_host (struct iasp_shell *sh, const struct group_action *a)
{
  struct group_event ev = iasp_event (sh, GE_HOSTED);

  ev.role = a->role;
  ev.tenure = a->tenure;
  set_reason (&ev, "this node is leaving");
  member_step (sh->m, &ev);
}

static void
act_host (struct member *m, const struct group_action *a)
{
  const struct crg_state *s = member_state (m);
  struct iasp_shell *sh = &m->iasps[a->iasp];
  struct agent *agent = member_get_agent (m, a->iasp);
  struct plugin *p = agent ? NULL : member_get_plugin (m, a->iasp);
  struct group_event ev = iasp_event (sh, GE_HOSTED);

  sh->claimed = true;
  sh->told = a->role;
  if (m->d->stopping && a->role != HOST_NONE) {
    log_notice ("%s: not hosted: this node is leaving", m->crg);
    /* What may still serve is not said to be gone before it is: the group would call the tenure released (L3). */
    if (!(agent ? agent_is_alive (agent) : p != NULL && plugin_has_store (p)))
      refuse_host (sh, a);
    return;
  }
  if (agent) {
    agent_want (agent, a->role, a->tenure);
    if (a->role == HOST_PRODUCTION)
      agent_set_lease (agent, a->until_ms);
    return;
  }
  if (p == NULL || s == NULL) {
    ev.role = a->role;
    ev.tenure = a->tenure;
    ev.ok = a->role == HOST_NONE;
    set_reason (&ev, "this node has no store for it");
    member_step (m, &ev);
    return;
  }
  if (a->role != HOST_NONE) {
    plugin_set_role_extra (p, tell_role_extra (s, a->iasp, (unsigned) member_self (m),
                                                m->d->boot_id));
    plugin_set_record (p, tell_record (s, a->iasp), 0);
  }
  plugin_want (p, a->role, a->tenure);
  if (a->role == HOST_PRODUCTION)
    plugin_set_lease (p, a->until_ms);
}

/* ---- the fence (S1 d) ------------------------------------------------------------------ */

static void
fenced (struct member *m, bool ok, const char *reason)
{
  struct group_event ev = { .kind = GE_FENCED, .node = m->fence_node, .ok = ok };
  const struct crg_state *s = member_state (m);
  const char *name = s ? tell_node_name (s, m->fence_node) : "?";

  m->fence = NULL;
  set_reason (&ev, reason);
  if (ok)
    log_notice ("%s: node %s is fenced", m->crg, name);
  else
    log_error ("%s: node %s could not be fenced: %s", m->crg, name, reason);
  member_note (m, "fence of %s: %s", name, ok ? "done" : reason);
  member_step (m, &ev);
}

static void
on_fenced (void *opaque, const struct script_result *r)
{
  fenced (opaque, r->ok, r->reason);
}

static void
act_fence (struct member *m, uint32_t node)
{
  const struct crg_state *s = group_committed (m->g);
  int n = s ? state_node_index (s, node) : -1;
  const char *reason = "no such node";

  script_cancel (m->fence);
  m->fence_node = node;
  m->fence = NULL;
  if (n >= 0) {
    log_notice ("%s: fencing node %s: it had a store open and left without releasing it", m->crg,
                s->def.nodes[n].name);
    m->fence = fence_start (m->d->loop, &m->d->conf, s, (unsigned) n, on_fenced, m, &reason);
  }
  if (m->fence == NULL)
    fenced (m, false, reason);
}

/* False: the rest of the step's actions is void. */
static bool
act (struct member *m, const struct group_action *a, const uint8_t *bytes)
{
  const struct crg_state *s = group_committed (m->g);
  struct plugin *p = a->iasp < CRG_MAX_IASPS ? m->iasps[a->iasp].plugin : NULL;
  const char *iasp = s && a->iasp < s->def.n_iasps ? s->def.iasps[a->iasp].name : "?";
  int r;

  switch ((enum group_action_kind) a->kind) {
  case GA_PERSIST:
    return persist (m);
  case GA_SEND:
    r = m->joined ? m->d->engine->ops->mcast (m->d->engine, m->crg, bytes + a->off, a->len)
                  : -ENOTCONN;
    /* The core takes it for under way, and says some things once in a view. */
    if (r < 0 && r != -ENOTCONN)
      keep_away (m, "a message can't be sent: %s", strerror (-r));
    return true;
  case GA_PROBE:
    member_probe (m, a->iasp);
    return true;
  case GA_HOST:
    member_note (m, "host %s: %s, tenure %llu", iasp, role_name (a->role),
          (unsigned long long) a->tenure);
    log_info ("%s: host %s: %s, tenure %llu", m->crg, iasp, role_name (a->role),
              (unsigned long long) a->tenure);
    act_host (m, a);
    return true;
  case GA_RECORD:
    if (p && s) {
      plugin_set_role_extra (p, tell_role_extra (s, a->iasp, (unsigned) member_self (m),
                                                m->d->boot_id));
      plugin_set_record (p, tell_record (s, a->iasp), a->seq);
    }
    return true;
  case GA_MIRROR_START:
    member_note (m, "MIRROR-START of %s to site %u", iasp, a->site);
    if (p && s && a->site < s->def.n_sites && a->site != s->def.nodes[member_self (m)].site)
      plugin_set_mirror (p, a->site, tell_mirror (s, a->iasp, a->site, a->node, a->sync));
    log_info ("%s: MIRROR-START of %s to site %u, host %s", m->crg, iasp, a->site,
              s ? tell_node_name (s, a->node) : "?");
    return true;
  case GA_UNMIRROR:
    member_note (m, "no host for the copy of %s at site %u", iasp, a->site);
    if (p)
      plugin_unset_mirror (p, a->site, a->reason[0] ? a->reason : "its host has left");
    return true;
  case GA_LEASE:
    for (unsigned i = 0; i < CRG_MAX_IASPS; i++)
      if (s == NULL || state_unit (s, i) != a->iasp)
        continue;
      else if (m->iasps[i].plugin)
        plugin_set_lease (m->iasps[i].plugin, a->until_ms);
      else if (m->iasps[i].agent)
        agent_set_lease (m->iasps[i].agent, a->until_ms);
    return true;
  case GA_HOLD:
    member_note (m, "hold %s: %s", iasp, a->reason);
    if (p)
      plugin_hold (p, a->reason[0] ? a->reason : "switchover", m->d->conf.lease_ms);
    else if (m->iasps[a->iasp].agent) {
      /* Nothing is held back, so nothing is to be drained. */
      struct group_event ev = iasp_event (&m->iasps[a->iasp], GE_DRAINED);

      ev.ok = true;
      member_step (m, &ev);
    }
    return true;
  case GA_FENCE:
    act_fence (m, a->node);
    return true;
  case GA_RESUME:
    member_note (m, "resume %s", iasp);
    if (p)
      plugin_resume (p);
    return true;
  case GA_REPLY:
    member_reply (m, a->request_id, a->code, a->reason);
    return true;
  case GA_CONFIG:
    member_note (m, "CONFIG of %s from its host %s", iasp, s ? tell_node_name (s, a->node) : "?");
    log_info ("%s: configuration of %s received: host %s", m->crg, iasp,
              s ? tell_node_name (s, a->node) : "?");
    member_agent_config (m, a, bytes + a->off);
    return true;
  case GA_LEAVE:
    member_note (m, "leaves: %s", a->reason);
    log_notice ("%s: this node leaves the group: %s", m->crg,
                a->reason[0] ? a->reason : "it was deleted");
    m->gone = true;
    m->left = (enum leave_kind) a->role;
    return true;
  case GA_DOMAIN:
    member_note (m, "the domain was changed");
    log_notice ("%s: a change of the recovery domain is committed", m->crg);
    /* A process that is started later gets its options anew.  What is wanted of it stands: the core says that once,
     * and the process may be about to be started again. */
    for (unsigned i = 0; i < CRG_MAX_IASPS; i++)
      if (m->iasps[i].plugin)
        member_get_plugin (m, i);
    m->tell_cluster = true;
    return true;
  case GA_NOTE:
    member_note (m, "%s", a->reason);
    log_notice ("%s: %s", m->crg, a->reason);
    return true;
  }
  return true;
}

/* S3: an adopted plugin whose role the group has given to somebody else, or
 * to nobody, is ended. */
static void
end_unclaimed (struct member *m)
{
  const struct crg_state *s = group_committed (m->g);
  int self = member_self (m);
  struct group_status st;

  if (!m->adopted || s == NULL || self < 0)
    return;
  group_status (m->g, clock_boottime_ms (), &st);
  if (st.phase != PHASE_STARTED)
    return;
  m->adopted = false;
  for (unsigned i = 0; i < s->def.n_iasps; i++) {
    struct iasp_shell *sh = &m->iasps[i];
    uint8_t site = s->def.nodes[self].site;

    if (sh->claimed || sh->plugin == NULL || !plugin_is_alive (sh->plugin))
      continue;
    if (s->started && site < s->def.n_sites && s->rec[i].copies[site].host == m->id) {
      m->adopted = true; /* its word will come */
      continue;
    }
    log_notice ("%s: the adopted plugin of %s is not this node's to run any more", m->crg,
                s->def.iasps[i].name);
    plugin_want (sh->plugin, HOST_NONE, s->rec[i].tenure);
  }
}

static void
run (struct member *m, const struct group_event *ev)
{
  struct group_event copy = *ev;

  copy.now_ms = clock_boottime_ms ();
  copy.wall_ms = clock_wall_ms ();
  m->out->n = 0;
  m->out->used = 0;
  group_step (m->g, &copy, m->out);
  for (unsigned i = 0; i < m->out->n; i++)
    if (!act (m, &m->out->a[i], m->out->bytes))
      break;
}

/* What this node holds of the CRG is void: its plugins end first. */
static void
end_for_good (struct member *m)
{
  m->gone = false;
  if (m->ending)
    return;
  m->ending = true;
  m->rejoin_at_ms = 0;
  m->ending_until_ms = clock_boottime_ms () + PLUGIN_QUIT_MS + 2 * PLUGIN_TERM_MS;
  member_leave (m);
  member_stop_plugins (m, true);
  member_arm (m);
}

static void
ended_while_away (struct member *m, const char *what)
{
  if (m->ending || m->gone)
    return;
  log_warning ("%s: %s while it was away", m->crg, what);
  m->left = LEAVE_REMOVED;
  end_for_good (m);
}

void
member_removed (struct member *m)
{
  ended_while_away (m, "this node was removed from its recovery domain");
}

void
member_deleted (struct member *m)
{
  ended_while_away (m, "this node missed that the CRG was deleted");
}

const char *
member_recover (struct member *m, uint16_t dead)
{
  CLEANUP_FREE struct crg_state *s = malloc (sizeof *s);
  const struct crg_state *old = group_applied (m->g);
  static struct group_status st;
  uint8_t lineage[CRG_ID_LEN];
  const char *why;
  int r;

  if (s == NULL)
    return "no memory";
  if (old == NULL)
    return "this node holds no state of the CRG";
  group_status (m->g, clock_boottime_ms (), &st);
  if (st.majority)
    return "a majority is there, so nothing is lost: use mark-failed, or node remove";
  *s = *old;
  clock_random_id (lineage);
  /* What goes on is newer than what is committed, and may be without a node of that. */
  dead = state_same_nodes (s, member_state (m), dead);
  why = state_recover (s, m->id, dead, group_promised (m->g), lineage);
  if (why != NULL)
    return why;
  /* Nothing of the old lineage is said or written any more. */
  m->ending = true;
  m->rejoin_at_ms = 0;
  m->left = LEAVE_AGAIN;
  member_leave (m);
  r = statefile_save (m->d->conf.state_dir, m->crg, s, s->stamp.epoch, group_hold_ms (m->g));
  m->recovered = r == 0;
  if (r < 0)
    log_error ("%s: can't write the recovered state in %s: %s", m->crg, m->d->conf.state_dir,
               strerror (-r));
  else
    log_warning ("%s: recovered without some of its nodes, under a new lineage (C9)", m->crg);
  m->ending_until_ms = clock_boottime_ms () + PLUGIN_QUIT_MS + 2 * PLUGIN_TERM_MS;
  member_stop_plugins (m, true);
  member_arm (m);
  return r < 0 ? "the recovered state can't be written: see crgd's log" : NULL;
}

void
member_status (const struct member *m, uint64_t now_ms, struct group_status *st)
{
  group_status (m->g, now_ms, st);
  if (m->away[0])
    snprintf (st->wait_reason, sizeof st->wait_reason, "this node keeps out of the group, and tries again soon: %s",
              m->away);
}

enum leave_kind
member_left (const struct member *m)
{
  return m->left;
}

void
member_step (struct member *m, const struct group_event *ev)
{
  if (m->ending)
    return; /* whatever it says is of the past */
  if (m->in_step) {
    assert (m->n_events < MEMBER_MAX_EVENTS);
    m->events[m->n_events++] = *ev;
    return;
  }
  m->in_step = true;
  run (m, ev);
  while (m->n_events > 0) {
    struct group_event next = m->events[0];

    memmove (m->events, m->events + 1, --m->n_events * sizeof m->events[0]);
    run (m, &next);
  }
  m->in_step = false;
  end_unclaimed (m);
  events_look (m->watcher, false);
  if (m->tell_cluster) {
    m->tell_cluster = false;
    cluster_tell (m->d->cluster);
  }
  if (m->gone && (m->left == LEAVE_REMOVED || m->left == LEAVE_LINEAGE))
    end_for_good (m);
  else if (m->gone)
    /* C8: who was expelled joins again, as a new incarnation. */
    daemon_remove (m->d, m, m->left != LEAVE_DELETED);
  else
    member_arm (m);
}

/* ---- time ------------------------------------------------------------------------------ */

static void
on_timer (void *opaque)
{
  struct member *m = opaque;
  struct group_event tick = { .kind = GE_TICK };
  uint64_t now = clock_boottime_ms ();

  member_expire_requests (m, now);
  if (m->ending && m->rejoin_at_ms == 0) {
    if (member_is_idle (m) || now >= m->ending_until_ms) {
      m->gone = true;
      daemon_remove (m->d, m, m->left != LEAVE_REMOVED);
    }
    else
      member_arm (m);
    return;
  }
  if (!m->joined && m->rejoin_at_ms && now >= m->rejoin_at_ms && !m->d->stopping) {
    m->rejoin_at_ms = 0;
    if (m->anew)
      begin_anew (m);
    else
      member_join (m);
    return;
  }
  if (m->ending) {
    member_arm (m);
    return;
  }
  if (m->joined && now >= m->report_at_ms) {
    CLEANUP_FREE char *text = status_report (m);

    m->report_at_ms = now + PLUGIN_POLL_MS;
    m->reported_ms = now;
    if (text && strlen (text) <= GROUP_REPORT_MAX) {
      struct group_event ev = { .kind = GE_REPORT, .buf = (const uint8_t *) text,
                                .len = strlen (text) };

      member_step (m, &ev);
      if (m->gone)
        return;
    }
  }
  member_step (m, &tick);
}

void
member_arm (struct member *m)
{
  uint64_t now = clock_boottime_ms (), due = group_next_tick_ms (m->g);
  uint64_t wait_ms = due > now ? due - now : 0;

  /* At least for the report and for deadlines; at most as often as makes
   * sense. */
  wait_ms = MIN (wait_ms, (uint64_t) 250);
  if (m->joined)
    wait_ms = MIN (wait_ms, m->report_at_ms > now ? m->report_at_ms - now : 0);
  wait_ms = MAX (wait_ms, (uint64_t) 1);
  qb_loop_timer_del (m->d->loop, m->timer);
  qb_loop_timer_add (m->d->loop, QB_LOOP_HIGH, wait_ms * QB_TIME_NS_IN_MSEC, m, on_timer,
                     &m->timer);
}

/* ---- engine ---------------------------------------------------------------------------- */

void
member_on_view (struct member *m, uint64_t view, const uint32_t *engine_ids, unsigned n)
{
  struct group_event ev = { .kind = GE_VIEW, .view = view, .token_ms = m->d->conf.token_ms };

  m->n_view = MIN (n, (unsigned) CRG_MAX_NODES);
  memcpy (m->view, engine_ids, m->n_view * sizeof m->view[0]);
  for (unsigned i = 0; i < n; i++) {
    uint32_t id = domain_id (m, engine_ids[i]);

    if (id == NO_NODE)
      continue; /* not of this domain */
    ev.members[ev.n_members++] = id;
  }
  for (unsigned i = 1; i < ev.n_members; i++)
    for (unsigned k = i; k > 0 && ev.members[k - 1] > ev.members[k]; k--) {
      uint32_t t = ev.members[k];

      ev.members[k] = ev.members[k - 1];
      ev.members[k - 1] = t;
    }
  member_note (m, "view %016llx with %u members", (unsigned long long) view, ev.n_members);
  log_info ("%s: view %016llx with %u members", m->crg, (unsigned long long) view, ev.n_members);
  member_step (m, &ev);
}

void
member_on_message (struct member *m, uint32_t engine_id, const uint8_t *buf, size_t len)
{
  struct group_event ev = { .kind = GE_MSG, .from = domain_id (m, engine_id), .buf = buf,
                            .len = len };

  if (ev.from != NO_NODE)
    member_step (m, &ev);
}

void
member_on_down (struct member *m, const char *reason)
{
  struct group_event ev = { .kind = GE_DOWN };

  member_note (m, "no view: %s", reason);
  set_reason (&ev, reason);
  member_step (m, &ev);
}

void
member_join (struct member *m)
{
  int r = m->d->engine->ops->join (m->d->engine, m->crg);

  if (r < 0) {
    keep_away (m, "can't join its group: %s", strerror (-r));
    return;
  }
  m->joined = true;
  m->away[0] = '\0';
  member_arm (m);
}

void
member_leave (struct member *m)
{
  if (m->joined)
    m->d->engine->ops->leave (m->d->engine, m->crg);
  m->joined = false;
}

/* ---- life ------------------------------------------------------------------------------ */

struct member *
member_new (struct daemon *d, const char *crg, const struct crg_state *state, uint64_t promised, uint32_t hold_ms,
            const struct node_name_id *nodes, unsigned n_nodes)
{
  struct member *m = calloc (1, sizeof *m);
  struct group_config cfg = {
    .incarnation = clock_random_u64 () | 1,
    .token_ms = d->conf.token_ms,
    .lease_ms = d->conf.lease_ms,
    .hold_ms = hold_ms,
    .start_wait_ms = d->conf.start_wait_ms,
    .can_fence = d->conf.fence_hook[0] != '\0',
  };

  if (m == NULL)
    return NULL;
  m->d = d;
  snprintf (m->crg, sizeof m->crg, "%s", crg);
  m->g = calloc (1, group_sizeof ());
  m->out = malloc (sizeof *m->out);
  m->watcher = events_new (m);
  if (m->g == NULL || m->out == NULL || m->watcher == NULL) {
    free (m->watcher);
    free (m->g);
    free (m->out);
    free (m);
    return NULL;
  }
  for (unsigned i = 0; i < CRG_MAX_IASPS; i++)
    m->iasps[i] = (struct iasp_shell){ .m = m, .index = i };
  for (unsigned i = 0; i < n_nodes; i++)
    member_learn_node (m, nodes[i].name, nodes[i].id);
  learn_state (m, state);
  if (m->id == NO_NODE) {
    log_error ("%s: its recovery domain does not name node %s; was this node renamed?", crg,
               d->conf.name);
    free (m->watcher);
    free (m->g);
    free (m->out);
    free (m);
    return NULL;
  }
  cfg.node_id = m->id;
  memcpy (cfg.name, d->conf.name, strnlen (d->conf.name, CRG_NAME_MAX));
  memcpy (cfg.boot_id, d->boot_id, CRG_ID_LEN);
  group_init (m->g, &cfg, state, promised, clock_boottime_ms ());
  for (unsigned i = 0; state && i < state->def.n_iasps; i++) {
    struct agent *agent = member_get_agent (m, i);
    struct plugin *p = agent ? NULL : member_get_plugin (m, i);

    if (p && plugin_adopt (p))
      m->adopted = true;
  }
  return m;
}

void
member_free (struct member *m)
{
  script_cancel (m->fence);
  member_leave (m);
  qb_loop_timer_del (m->d->loop, m->timer);
  for (unsigned i = 0; i < CRG_MAX_IASPS; i++) {
    task_cancel (m->iasps[i].probe);
    plugin_free (m->iasps[i].plugin);
    agent_free (m->iasps[i].agent);
  }
  member_end_requests (m);
  events_free (m->watcher);
  free (m->g);
  free (m->out);
  free (m);
}

bool
member_is_production (const struct member *m, unsigned unit)
{
  const struct crg_state *s = group_committed (m->g);

  return s && s->started && unit < state_units (s) && state_unit_host (s, unit) == m->id;
}

void
member_look (struct member *m)
{
  events_look (m->watcher, true);
}

struct daemon *
member_daemon (const struct member *m)
{
  return m->d;
}

const char *
member_crg (const struct member *m)
{
  return m->crg;
}

const struct group *
member_group (const struct member *m)
{
  return m->g;
}

bool
member_has_iasp (const struct member *m, const char *iasp)
{
  const struct crg_state *s = member_state (m);

  for (unsigned i = 0; s && i < s->def.n_iasps; i++)
    if (strcmp (s->def.iasps[i].name, iasp) == 0)
      return true;
  return false;
}
