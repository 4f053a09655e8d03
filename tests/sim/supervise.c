/* SPDX-License-Identifier: BSD-3-Clause
 *
 * server/supervise.c, supervise_ctl.c and pluginctl.c for crgsim: tells plugins what the group wants of
 * them over control connections, which may break while both ends live.
 */
#include <string.h>

#include "common/util.h"
#include "tests/sim/world.h"

/* ---- control sockets ------------------------------------------------------------------------ */

struct ctlmsg *
ctl_push (unsigned node, struct ctlq *q, enum ctl_kind kind)
{
  struct ctlmsg *m = &q->q[(q->head + q->n) % W_CTL];
  uint64_t at = w.now_us + 1 + world_random (MS (2) + w.control_slow_us[node]);

  if (q->n == W_CTL) {
    world_fail ("a control socket is full");
    return &q->q[0];
  }
  q->n++;
  memset (m, 0, offsetof (struct ctlmsg, rec));
  m->kind = (uint8_t) kind;
  m->reason = "";
  at = MAX (at, q->last_us + 1);
  q->last_us = at;
  m->at = at;
  return m;
}

static bool
is_broken (const struct sup *s)
{
  return s->ctl != 0 && s->ctl == s->broken;
}

struct ctlmsg *
sup_call (unsigned n, unsigned iasp, enum ctl_kind kind)
{
  static struct ctlmsg nowhere;
  struct sup *s = &w.node[n].sup[iasp];
  struct ctlmsg *m;
  struct wev *e;

  if (is_broken (s))
    return &nowhere;
  m = ctl_push (n, &s->down, kind);
  e = after_us (m->at - w.now_us, EV_CTL_DOWN);
  e->node = (uint8_t) n;
  e->iasp = (uint8_t) iasp;
  e->life = w.node[n].plugin[iasp].life;
  m->conn = s->ctl;
  return m;
}

void
sup_set_phase (unsigned n, struct sup *s, enum sup_phase phase)
{
  s->phase = (uint8_t) phase;
  s->phase_ms = node_ms (n);
}

/* ---- supervise.c ---------------------------------------------------------------------------- */

/* What was said to a production that is gone. */
static void
forget_said (struct sup *s)
{
  s->resume_due = s->resume_owed = false;
  memset (s->unmirror_set, 0, sizeof s->unmirror_set);
}

/* One by one: what the group makes of one may end the plugin. */
static void
tell_early (unsigned n, unsigned iasp)
{
  struct sup *s = &w.node[n].sup[iasp];
  const uint32_t life = w.node[n].life;

  while (w.node[n].running && w.node[n].life == life && s->n_early > 0) {
    const struct ctlmsg m = s->early[0];

    memmove (s->early, s->early + 1, --s->n_early * sizeof s->early[0]);
    crgd_plugin_event (n, iasp, &m);
  }
}

static void
report_hosted (unsigned n, unsigned iasp, unsigned role, uint64_t tenure, bool ok, const char *reason,
               const struct ctlmsg *info)
{
  struct sup *s = &w.node[n].sup[iasp];
  const uint32_t life = w.node[n].life;

  s->want_answer = false;
  s->reported = ok && role != HOST_NONE;
  crgd_hosted (n, iasp, role, tenure, ok, reason, info);
  if (!w.node[n].running || w.node[n].life != life)
    return;
  if (ok)
    tell_early (n, iasp);
  if (w.node[n].running && w.node[n].life == life)
    s->n_early = 0;
}

static void
begin_end (unsigned n, unsigned iasp)
{
  struct sup *s = &w.node[n].sup[iasp];
  bool superseded = s->told_role == HOST_PRODUCTION && s->want_tenure > s->told_tenure;

  if (s->phase == PH_QUITTING || s->phase == PH_TERMING)
    return;
  if (s->ctl && !is_broken (s)) {
    struct ctlmsg *m = sup_call (n, iasp, CTL_QUIT);

    sup_set_phase (n, s, PH_QUITTING);
    m->until_ms = 5000;
    s->call_deadline_ms = node_ms (n) + (superseded ? PLUGIN_QUIT_OLD_MS : PLUGIN_QUIT_MS);
  }
  else
    sup_set_phase (n, s, PH_TERMING);
}

static void
give_up (unsigned n, unsigned iasp, const char *reason)
{
  struct sup *s = &w.node[n].sup[iasp];
  unsigned role = s->want_answer ? s->want_role : HOST_NONE;
  uint64_t tenure = s->want_tenure;

  TRACE ("n%u gives iasp %u up: %s", n + 1, iasp, reason);
  s->want_role = HOST_NONE;
  s->deaths = s->refusals = 0;
  if (s->phase != PH_IDLE)
    begin_end (n, iasp);
  report_hosted (n, iasp, role, tenure, false, reason, NULL);
}

static void
tell_role (unsigned n, unsigned iasp)
{
  struct sup *s = &w.node[n].sup[iasp];
  struct ctlmsg *m = sup_call (n, iasp, CTL_ROLE);

  m->role = s->want_role;
  m->tenure = s->want_tenure;
  m->serial = ++s->call;
  m->rec = s->record;
  m->seq = s->record_seq;
  m->until_ms = s->want_role == HOST_PRODUCTION ? s->lease_until_ms : 0;
  s->record_due = s->lease_due = false;
  for (unsigned k = 0; k < W_SITES; k++)
    s->mirror_due[k] = s->mirror_set[k];
  s->hold_due = s->holding;
  s->telling_role = s->want_role;
  s->telling_tenure = s->want_tenure;
  sup_set_phase (n, s, PH_TELLING);
  s->call_deadline_ms = node_ms (n) + PLUGIN_ROLE_MS;
}

void
sup_push (unsigned n, unsigned iasp)
{
  struct sup *s = &w.node[n].sup[iasp];
  struct ctlmsg *m;

  if (s->record_due && s->has_record) {
    m = sup_call (n, iasp, CTL_RECORD);
    m->rec = s->record;
    m->seq = s->record_seq;
  }
  s->record_due = false;
  if (s->told_role != HOST_PRODUCTION)
    return;
  if (s->lease_due && !s->lease_sent) {
    m = sup_call (n, iasp, CTL_LEASE);
    m->until_ms = s->lease_until_ms;
    s->lease_due = false;
    s->lease_sent = true;
  }
  for (unsigned k = 0; k < W_SITES; k++)
    if (s->mirror_due[k] && s->mirror_set[k]) {
      s->mirror_due[k] = false;
      m = sup_call (n, iasp, CTL_MIRROR);
      m->site = (uint8_t) k;
      m->node = s->mirror_node[k];
      m->sync = s->mirror_sync[k];
    }
  for (unsigned k = 0; k < W_SITES; k++)
    if (s->unmirror_due[k] && s->unmirror_set[k]) {
      s->unmirror_due[k] = false;
      sup_call (n, iasp, CTL_UNMIRROR)->site = (uint8_t) k;
    }
  if (s->resume_due)
    sup_call (n, iasp, CTL_RESUME);
  s->resume_due = false;
  if (s->hold_due && s->holding) {
    s->hold_due = false;
    m = sup_call (n, iasp, CTL_HOLD);
    m->until_ms = w.mix.lease_ms;
    s->hold_deadline_ms = node_ms (n) + w.mix.lease_ms + 2000;
  }
}

static void
drive_ready (unsigned n, unsigned iasp)
{
  struct sup *s = &w.node[n].sup[iasp];

  if ((s->told_role == HOST_PRODUCTION && s->want_role == HOST_MIRROR)
      || (s->told_role != HOST_NONE && s->told_role != s->want_role
          && (s->told_role == HOST_DETACHED || s->want_role == HOST_DETACHED))) {
    begin_end (n, iasp);
    return;
  }
  if (s->told_role != s->want_role || s->told_tenure != s->want_tenure) {
    if (node_ms (n) >= s->retry_at_ms)
      tell_role (n, iasp);
    return;
  }
  if (s->want_answer || !s->reported)
    report_hosted (n, iasp, s->told_role, s->told_tenure, true, "", &s->last_told);
  else
    tell_early (n, iasp); /* a new connection: it has said again what stands */
  if (w.node[n].running && s->phase == PH_READY && s->ctl)
    sup_push (n, iasp);
}

void
sup_drive (unsigned n, unsigned iasp)
{
  struct sup *s = &w.node[n].sup[iasp];
  struct wplugin *p = plugin_of (n, iasp);
  struct ctlmsg *m;

  switch ((enum sup_phase) s->phase) {
  case PH_IDLE:
    if (s->want_role == HOST_NONE) {
      if (s->want_answer)
        report_hosted (n, iasp, HOST_NONE, s->want_tenure, true, "", NULL);
    }
    else if (node_ms (n) >= s->retry_at_ms) {
      if (p->running) {
        world_fail ("n%u starts a second process for iasp %u", n + 1, iasp);
        return;
      }
      plugin_start (n, iasp);
      s->is_child = true;
      sup_set_phase (n, s, PH_STARTING);
    }
    return;
  case PH_STARTING:
    if (s->want_role == HOST_NONE && s->is_child)
      begin_end (n, iasp);
    else if (p->running && !p->paused) { /* try_control */
      s->ctl = ++w.ctl_ids;
      s->down.n = 0;
      plugin_connected (p, s->ctl);
      sup_set_phase (n, s, PH_ASKING);
      m = sup_call (n, iasp, CTL_STATUS);
      m->serial = ++s->call;
      s->call_deadline_ms = node_ms (n) + PLUGIN_ROLE_MS;
    }
    return;
  case PH_READY:
    if (s->want_role == HOST_NONE) {
      if (s->want_answer || s->is_child)
        begin_end (n, iasp);
    }
    else
      drive_ready (n, iasp);
    return;
  case PH_TERMING: /* SIGTERM, a grace, SIGKILL */
    if (node_ms (n) - s->phase_ms > PLUGIN_TERM_MS)
      plugin_die (p, "killed by its supervisor");
    return;
  default:
    return;
  }
}

static void
on_told (unsigned n, unsigned iasp, const struct ctlmsg *m)
{
  struct sup *s = &w.node[n].sup[iasp];

  if (s->phase != PH_TELLING)
    return;
  if (m && m->ok) {
    s->told_role = s->telling_role;
    s->told_tenure = s->telling_tenure;
    s->deaths = s->refusals = 0;
    s->last_told = *m;
    sup_set_phase (n, s, PH_READY);
    if (s->told_role == s->want_role && s->told_tenure == s->want_tenure)
      report_hosted (n, iasp, s->told_role, s->told_tenure, true, "", m);
    if (w.node[n].running)
      sup_drive (n, iasp);
    return;
  }
  if (++s->refusals >= 3) {
    sup_set_phase (n, s, PH_READY);
    give_up (n, iasp, m ? m->reason : "no answer");
    return;
  }
  s->retry_at_ms = node_ms (n) + PLUGIN_RETRY_MIN_MS * s->refusals;
  sup_set_phase (n, s, PH_READY);
  sup_drive (n, iasp);
}

static void
on_asked (unsigned n, unsigned iasp, const struct ctlmsg *m)
{
  const struct group *g = &w.node[n].g;
  const struct crg_state *state = group_committed (g) ?: group_applied (g);
  struct sup *s = &w.node[n].sup[iasp];

  if (s->phase != PH_ASKING)
    return;
  if (m == NULL && is_broken (s) && ++s->asks_lost < PLUGIN_MAX_ASKS)
    return; /* it is asked again, on another connection */
  s->asks_lost = 0;
  if (m == NULL) {
    begin_end (n, iasp);
    return;
  }
  if (state != NULL && memcmp (plugin_of (n, iasp)->lineage, state->lineage, CRG_ID_LEN) != 0) {
    TRACE ("n%u iasp %u: the process is of another lineage", n + 1, iasp);
    begin_end (n, iasp);
    return;
  }
  s->told_role = m->role;
  s->told_tenure = m->tenure;
  s->last_told = *m;
  sup_set_phase (n, s, PH_READY);
  if (s->want_role == HOST_NONE && !s->want_answer && !s->is_child) {
    s->want_role = s->told_role;
    s->want_tenure = s->told_tenure;
    s->want_answer = s->told_role != HOST_NONE;
    if (s->told_role == HOST_NONE) {
      begin_end (n, iasp);
      return;
    }
  }
  s->record_due = s->has_record;
  s->lease_due = s->lease_until_ms != 0;
  for (unsigned k = 0; k < W_SITES; k++)
    s->mirror_due[k] = s->mirror_set[k];
  for (unsigned k = 0; k < W_SITES; k++)
    s->unmirror_due[k] = s->unmirror_set[k];
  s->hold_due = s->holding;
  s->resume_due = s->resume_owed;
  sup_drive (n, iasp);
}

static void
on_held (unsigned n, unsigned iasp, const struct ctlmsg *m)
{
  struct sup *s = &w.node[n].sup[iasp];

  if (!s->holding)
    return;
  s->hold_deadline_ms = 0;
  crgd_drained (n, iasp, m && m->ok);
}

static void
on_plugin_message (unsigned n, unsigned iasp, const struct ctlmsg *m)
{
  struct sup *s = &w.node[n].sup[iasp];

  switch ((enum ctl_kind) m->kind) {
  case CTL_TOLD:
    if (m->serial == s->call)
      on_told (n, iasp, m);
    break;
  case CTL_ASKED:
    if (m->serial == s->call)
      on_asked (n, iasp, m);
    break;
  case CTL_HELD:
    on_held (n, iasp, m);
    break;
  case CTL_LEASE_TOLD:
    s->lease_sent = false;
    if (s->lease_due && s->phase == PH_READY && s->told_role == HOST_PRODUCTION)
      sup_push (n, iasp);
    break;
  case CTL_QUIT_DONE:
    if (s->phase == PH_QUITTING)
      sup_set_phase (n, s, PH_TERMING);
    break;
  case CTL_LOST:
  case CTL_BACK:
  case CTL_READY:
  case CTL_STORE_FAILED:
    if (s->phase == PH_READY && !s->want_answer)
      crgd_plugin_event (n, iasp, m);
    else {
      if (s->n_early == ARRAY_SIZE (s->early))
        memmove (s->early, s->early + 1, --s->n_early * sizeof s->early[0]);
      s->early[s->n_early++] = *m;
    }
    break;
  default:
    break;
  }
}

void
sup_message (unsigned n, unsigned iasp)
{
  struct sup *s = &w.node[n].sup[iasp];
  struct wplugin *p = plugin_of (n, iasp);
  struct ctlmsg m;

  if (w.node[n].paused) {
    struct wev *e = after_us (MS (5), EV_CTL_UP);

    e->node = (uint8_t) n;
    e->iasp = (uint8_t) iasp;
    e->life = w.node[n].life;
    return;
  }
  if (p->up.n == 0 || p->up.q[p->up.head].at > w.now_us)
    return;
  m = p->up.q[p->up.head];
  p->up.head = (p->up.head + 1) % W_CTL;
  p->up.n--;
  if (m.conn == s->ctl && s->ctl != 0)
    on_plugin_message (n, iasp, &m);
}

/* ---- a connection that breaks ---------------------------------------------------------------- */

/* It breaks, and both ends live.  Of what is on its way some arrives; nothing that is said from now on does. */
void
sup_break (unsigned n, unsigned iasp)
{
  struct sup *s = &w.node[n].sup[iasp];
  struct wplugin *p = plugin_of (n, iasp);
  struct wev *e;

  if (!w.node[n].running || !p->running || s->ctl == 0 || is_broken (s) || p->ctl_conn != s->ctl)
    return;
  TRACE ("n%u iasp %u: its control connection breaks", n + 1, iasp);
  s->broken = s->ctl;
  p->ctl_broken = true;
  s->down.n = (uint16_t) fault_random (s->down.n + 1u);
  p->up.n = (uint16_t) fault_random (p->up.n + 1u);
  e = after_us (MAX (p->up.last_us, w.now_us) - w.now_us + 1 + fault_random (MS (20)), EV_CTL_LOST);
  e->node = (uint8_t) n;
  e->iasp = (uint8_t) iasp;
  e->life = w.node[n].life;
  e->a = s->ctl;
}

/* pluginctl.c: lost; supervise_ctl.c: on_ctl_closed.  Whoever waits for an answer has none. */
void
sup_lost (unsigned n, unsigned iasp, uint32_t conn)
{
  struct wnode *node = &w.node[n];
  struct sup *s = &node->sup[iasp];
  const uint32_t life = node->life;

  if (node->paused) {
    struct wev *e = after_us (MS (5), EV_CTL_LOST);

    e->node = (uint8_t) n;
    e->iasp = (uint8_t) iasp;
    e->life = life;
    e->a = conn;
    return;
  }
  if (s->ctl != conn)
    return;
  s->lease_sent = false;
  if (s->hold_deadline_ms != 0)
    on_held (n, iasp, NULL);
  if (node->running && node->life == life && s->phase == PH_TELLING)
    on_told (n, iasp, NULL);
  if (node->running && node->life == life && s->phase == PH_ASKING)
    on_asked (n, iasp, NULL);
  if (!node->running || node->life != life)
    return;
  if (s->phase == PH_QUITTING)
    sup_set_phase (n, s, PH_TERMING);
  s->ctl = 0;
  s->lease_sent = false;
  s->n_early = 0; /* R3: what stands is said again on the next one; what doesn't must not be heard */
  if (s->phase == PH_ASKING || s->phase == PH_READY || s->phase == PH_TELLING)
    sup_set_phase (n, s, PH_STARTING);
}

void
sup_plugin_died (unsigned n, unsigned iasp)
{
  struct wnode *node = &w.node[n];
  struct sup *s = &node->sup[iasp];
  bool expected = s->phase == PH_QUITTING || s->phase == PH_TERMING;

  if (!node->running || s->phase == PH_IDLE)
    return;
  s->ctl = 0;
  s->lease_sent = false;
  s->told_role = HOST_NONE;
  s->record_seq = 0;
  s->n_early = 0;
  s->reported = false;
  forget_said (s);
  sup_set_phase (n, s, PH_IDLE);
  if (expected)
    s->retry_at_ms = 0;
  else {
    unsigned delay = s->deaths == 0 ? 0 : PLUGIN_RETRY_MIN_MS << MIN (s->deaths - 1, 5u);

    s->retry_at_ms = node_ms (n) + delay;
    if (++s->deaths > PLUGIN_MAX_DEATHS && s->want_role != HOST_NONE) {
      give_up (n, iasp, "its process dies again and again");
      return;
    }
  }
  /* The rest comes with its timer. */
}

void
sup_timer (unsigned n, unsigned iasp)
{
  struct wnode *node = &w.node[n];
  struct sup *s = &node->sup[iasp];
  const uint32_t life = node->life;
  struct wev *e;
  bool busy;

  if (!node->paused) {
    if ((s->phase == PH_TELLING || s->phase == PH_ASKING || s->phase == PH_QUITTING)
        && node_ms (n) >= s->call_deadline_ms) {
      if (s->phase == PH_TELLING)
        on_told (n, iasp, NULL);
      else if (s->phase == PH_ASKING)
        on_asked (n, iasp, NULL);
      else
        sup_set_phase (n, s, PH_TERMING);
    }
    if (node->running && s->hold_deadline_ms != 0 && node_ms (n) >= s->hold_deadline_ms)
      on_held (n, iasp, NULL);
    if (node->running && node->life == life)
      sup_drive (n, iasp);
  }
  if (!node->running || node->life != life)
    return;
  busy = s->phase != PH_IDLE && s->phase != PH_READY;
  e = after_us (MS (busy ? 20 : 100), EV_SUP);
  e->node = (uint8_t) n;
  e->iasp = (uint8_t) iasp;
  e->life = life;
}

void
sup_want (unsigned n, unsigned iasp, unsigned role, uint64_t tenure)
{
  struct sup *s = &w.node[n].sup[iasp];

  if (role != s->want_role || tenure != s->want_tenure) {
    s->deaths = s->refusals = 0;
    s->retry_at_ms = 0;
  }
  if (role != HOST_PRODUCTION || tenure != s->want_tenure) {
    s->holding = false;
    s->hold_deadline_ms = 0;
  }
  s->want_role = (uint8_t) role;
  s->want_tenure = tenure;
  s->want_answer = true;
  if (role != HOST_PRODUCTION) {
    forget_said (s);
    s->lease_until_ms = 0;
    memset (s->mirror_set, 0, sizeof s->mirror_set);
  }
  sup_drive (n, iasp);
}

void
sup_unmirror (unsigned n, unsigned iasp, unsigned site)
{
  struct sup *s = &w.node[n].sup[iasp];

  s->mirror_set[site] = s->mirror_due[site] = false;
  s->unmirror_set[site] = s->unmirror_due[site] = true;
  if (s->phase == PH_READY && s->told_role == HOST_PRODUCTION)
    sup_push (n, iasp);
}

void
sup_hold (unsigned n, unsigned iasp)
{
  struct sup *s = &w.node[n].sup[iasp];

  s->holding = s->hold_due = true;
  s->resume_owed = false;
  s->hold_deadline_ms = 0;
  if (s->phase == PH_READY && s->told_role == HOST_PRODUCTION)
    sup_push (n, iasp);
}

void
sup_resume (unsigned n, unsigned iasp)
{
  struct sup *s = &w.node[n].sup[iasp];

  s->holding = false;
  s->hold_deadline_ms = 0;
  s->resume_due = s->resume_owed = true;
  if (s->phase == PH_READY && s->told_role == HOST_PRODUCTION)
    sup_push (n, iasp);
}
