/* SPDX-License-Identifier: BSD-3-Clause
 *
 * server/member.c, supervise.c and probe.c for crgsim: carries out the group core's actions in
 * order, and tells plugins what the group wants of them.
 */
#include <string.h>

#include "common/util.h"
#include "tests/sim/world.h"

static void drive (unsigned n, unsigned iasp);

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

static struct ctlmsg *
call (unsigned n, unsigned iasp, enum ctl_kind kind)
{
  struct sup *s = &w.node[n].sup[iasp];
  struct ctlmsg *m = ctl_push (n, &s->down, kind);
  struct wev *e = after_us (m->at - w.now_us, EV_CTL_DOWN);

  e->node = (uint8_t) n;
  e->iasp = (uint8_t) iasp;
  e->life = w.node[n].plugin[iasp].life;
  m->conn = s->ctl;
  return m;
}

static void
set_phase (unsigned n, struct sup *s, enum sup_phase phase)
{
  s->phase = (uint8_t) phase;
  s->phase_ms = node_ms (n);
}

/* ---- member.c: events ----------------------------------------------------------------------- */

static void
set_reason (struct group_event *ev, const char *reason)
{
  size_t len = strlen (reason);

  if (len > CRG_REASON_MAX)
    len = CRG_REASON_MAX;

  memcpy (ev->reason, reason, len);
  ev->reason[len] = '\0';
}

static void
on_hosted (unsigned n, unsigned iasp, unsigned role, uint64_t tenure, bool ok, const char *reason,
           const struct ctlmsg *info)
{
  struct group_event ev = { .kind = GE_HOSTED, .iasp = (uint8_t) iasp, .role = (uint8_t) role,
                            .tenure = tenure, .ok = ok };

  set_reason (&ev, reason);
  if (ok && info) {
    ev.store.can_host = ev.store.has_super = ev.store.agrees_ids = true;
    ev.store.generation = info->generation;
    ev.store.restarted = info->restarted;
    ev.store.unusable = info->unusable;
    ev.store.tenure = tenure;
    ev.store.size = W_SIZE;
    memcpy (ev.store.lineage, w.created.lineage, CRG_ID_LEN);
    node_boot_id (n, ev.store.boot_id);
  }
  crgd_feed (n, &ev);
}

static void
plugin_event (unsigned n, unsigned iasp, const struct ctlmsg *m)
{
  struct group_event ev = { .iasp = (uint8_t) iasp, .site = m->site, .seq = m->seq };

  ev.kind = m->kind == CTL_LOST    ? GE_COPY_LOST
            : m->kind == CTL_BACK  ? GE_COPY_BACK
            : m->kind == CTL_READY ? GE_COPY_READY
                                   : GE_STORE_FAILED;
  set_reason (&ev, m->reason);
  memcpy (ev.boot_id, m->boot_id, CRG_ID_LEN);
  crgd_feed (n, &ev);
}

/* ---- supervise.c ---------------------------------------------------------------------------- */

static void
report_hosted (unsigned n, unsigned iasp, unsigned role, uint64_t tenure, bool ok, const char *reason,
               const struct ctlmsg *info)
{
  struct sup *s = &w.node[n].sup[iasp];
  const uint32_t life = w.node[n].life;

  s->want_answer = false;
  on_hosted (n, iasp, role, tenure, ok, reason, info);
  for (unsigned i = 0; ok && i < s->n_early && w.node[n].running && w.node[n].life == life; i++)
    plugin_event (n, iasp, &s->early[i]);
  s->n_early = 0;
}

static void
begin_end (unsigned n, unsigned iasp)
{
  struct sup *s = &w.node[n].sup[iasp];
  bool superseded = s->told_role == HOST_PRODUCTION && s->want_tenure > s->told_tenure;

  if (s->phase == PH_QUITTING || s->phase == PH_TERMING)
    return;
  if (s->ctl) {
    struct ctlmsg *m = call (n, iasp, CTL_QUIT);

    set_phase (n, s, PH_QUITTING);
    m->until_ms = 5000;
    s->call_deadline_ms = node_ms (n) + (superseded ? PLUGIN_QUIT_OLD_MS : PLUGIN_QUIT_MS);
  }
  else
    set_phase (n, s, PH_TERMING);
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
  struct ctlmsg *m = call (n, iasp, CTL_ROLE);

  m->role = s->want_role;
  m->tenure = s->want_tenure;
  m->rec = s->record;
  m->seq = s->record_seq;
  m->until_ms = s->want_role == HOST_PRODUCTION ? s->lease_until_ms : 0;
  s->record_due = s->lease_due = false;
  for (unsigned k = 0; k < W_SITES; k++)
    s->mirror_due[k] = s->mirror_set[k];
  s->hold_due = s->holding;
  s->telling_role = s->want_role;
  s->telling_tenure = s->want_tenure;
  set_phase (n, s, PH_TELLING);
  s->call_deadline_ms = node_ms (n) + PLUGIN_ROLE_MS;
}

static void
push (unsigned n, unsigned iasp)
{
  struct sup *s = &w.node[n].sup[iasp];
  struct ctlmsg *m;

  if (s->record_due && s->has_record) {
    m = call (n, iasp, CTL_RECORD);
    m->rec = s->record;
    m->seq = s->record_seq;
  }
  s->record_due = false;
  if (s->told_role != HOST_PRODUCTION)
    return;
  if (s->lease_due && !s->lease_sent) {
    m = call (n, iasp, CTL_LEASE);
    m->until_ms = s->lease_until_ms;
    s->lease_due = false;
    s->lease_sent = true;
  }
  for (unsigned k = 0; k < W_SITES; k++)
    if (s->mirror_due[k] && s->mirror_set[k]) {
      s->mirror_due[k] = false;
      m = call (n, iasp, CTL_MIRROR);
      m->site = (uint8_t) k;
      m->node = s->mirror_node[k];
      m->sync = s->mirror_sync[k];
    }
  if (s->resume_due)
    call (n, iasp, CTL_RESUME);
  s->resume_due = false;
  if (s->hold_due && s->holding) {
    s->hold_due = false;
    m = call (n, iasp, CTL_HOLD);
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
  if (s->want_answer)
    report_hosted (n, iasp, s->told_role, s->told_tenure, true, "", &s->last_told);
  if (w.node[n].running && s->phase == PH_READY && s->ctl)
    push (n, iasp);
}

static void
drive (unsigned n, unsigned iasp)
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
      set_phase (n, s, PH_STARTING);
    }
    return;
  case PH_STARTING:
    if (s->want_role == HOST_NONE && s->is_child)
      begin_end (n, iasp);
    else if (p->running && !p->paused) { /* try_control */
      s->ctl = ++w.ctl_ids;
      s->down.n = 0;
      plugin_connected (p, s->ctl);
      set_phase (n, s, PH_ASKING);
      m = call (n, iasp, CTL_STATUS);
      s->call_deadline_ms = node_ms (n) + PLUGIN_ROLE_MS;
      (void) m;
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
    set_phase (n, s, PH_READY);
    if (s->told_role == s->want_role && s->told_tenure == s->want_tenure)
      report_hosted (n, iasp, s->told_role, s->told_tenure, true, "", m);
    if (w.node[n].running)
      drive (n, iasp);
    return;
  }
  if (++s->refusals >= 3) {
    set_phase (n, s, PH_READY);
    give_up (n, iasp, m ? m->reason : "no answer");
    return;
  }
  s->retry_at_ms = node_ms (n) + PLUGIN_RETRY_MIN_MS * s->refusals;
  set_phase (n, s, PH_READY);
  drive (n, iasp);
}

static void
on_asked (unsigned n, unsigned iasp, const struct ctlmsg *m)
{
  struct sup *s = &w.node[n].sup[iasp];

  if (s->phase != PH_ASKING)
    return;
  if (m == NULL) {
    begin_end (n, iasp);
    return;
  }
  s->told_role = m->role;
  s->told_tenure = m->tenure;
  s->last_told = *m;
  set_phase (n, s, PH_READY);
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
  s->hold_due = s->holding;
  drive (n, iasp);
}

static void
on_held (unsigned n, unsigned iasp, const struct ctlmsg *m)
{
  struct sup *s = &w.node[n].sup[iasp];
  struct group_event ev = { .kind = GE_DRAINED, .iasp = (uint8_t) iasp };

  if (!s->holding)
    return;
  s->hold_deadline_ms = 0;
  ev.ok = m && m->ok;
  set_reason (&ev, ev.ok ? "" : "not drained");
  crgd_feed (n, &ev);
}

static void
on_plugin_message (unsigned n, unsigned iasp, const struct ctlmsg *m)
{
  struct sup *s = &w.node[n].sup[iasp];

  switch ((enum ctl_kind) m->kind) {
  case CTL_TOLD:
    on_told (n, iasp, m);
    break;
  case CTL_ASKED:
    on_asked (n, iasp, m);
    break;
  case CTL_HELD:
    on_held (n, iasp, m);
    break;
  case CTL_LEASE_TOLD:
    s->lease_sent = false;
    if (s->lease_due && s->phase == PH_READY && s->told_role == HOST_PRODUCTION)
      push (n, iasp);
    break;
  case CTL_QUIT_DONE:
    if (s->phase == PH_QUITTING)
      set_phase (n, s, PH_TERMING);
    break;
  case CTL_LOST:
  case CTL_BACK:
  case CTL_READY:
  case CTL_STORE_FAILED:
    if (s->phase == PH_READY && !s->want_answer)
      plugin_event (n, iasp, m);
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
  set_phase (n, s, PH_IDLE);
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
        set_phase (n, s, PH_TERMING);
    }
    if (node->running && s->hold_deadline_ms != 0 && node_ms (n) >= s->hold_deadline_ms)
      on_held (n, iasp, NULL);
    if (node->running && node->life == life)
      drive (n, iasp);
  }
  if (!node->running || node->life != life)
    return;
  busy = s->phase != PH_IDLE && s->phase != PH_READY;
  e = after_us (MS (busy ? 20 : 100), EV_SUP);
  e->node = (uint8_t) n;
  e->iasp = (uint8_t) iasp;
  e->life = life;
}

static void
plugin_want (unsigned n, unsigned iasp, unsigned role, uint64_t tenure)
{
  struct sup *s = &w.node[n].sup[iasp];

  if (role != s->want_role || tenure != s->want_tenure) {
    s->deaths = s->refusals = 0;
    s->retry_at_ms = 0;
  }
  s->want_role = (uint8_t) role;
  s->want_tenure = tenure;
  s->want_answer = true;
  if (role != HOST_PRODUCTION) {
    s->resume_due = false;
    s->holding = false;
    s->hold_deadline_ms = 0;
    s->lease_until_ms = 0;
    memset (s->mirror_set, 0, sizeof s->mirror_set);
  }
  drive (n, iasp);
}

static const struct crg_state *
member_state (const struct wnode *node)
{
  const struct crg_state *s = group_committed (&node->g);

  return s ? s : group_applied (&node->g);
}

/* ---- probe.c -------------------------------------------------------------------------------- */

static void
start_probe (unsigned n, unsigned iasp)
{
  struct group_event ev = { .kind = GE_PROBE, .iasp = (uint8_t) iasp };
  struct wev *e;

  if (site_of_node (n) < 0) {
    set_reason (&ev, "this node has no store for it");
    crgd_feed (n, &ev);
    return;
  }
  if (w.node[n].sup[iasp].probing)
    return;
  w.node[n].sup[iasp].probing = true;
  e = after_us (1 + world_random (MS (chance (10) ? 300 : 20)), EV_PROBED);
  e->node = (uint8_t) n;
  e->iasp = (uint8_t) iasp;
  e->life = w.node[n].life;
}

/* look_at_store */
void
crgd_probed (unsigned n, unsigned iasp)
{
  struct wdisk *d = &w.disk[site_of_node (n)][iasp];
  const struct crg_state *s = member_state (&w.node[n]);
  struct group_event ev = { .kind = GE_PROBE, .iasp = (uint8_t) iasp, .ok = true };
  struct store_info *info = &ev.store;
  bool own = plugin_of (n, iasp)->running && plugin_of (n, iasp)->open, is_open, same_boot;
  struct super_choice choice;
  enum super_status status;
  struct superblock sb;
  uint8_t boot[CRG_ID_LEN];

  if (w.node[n].paused) {
    struct wev *e = after_us (MS (10), EV_PROBED);

    e->node = (uint8_t) n;
    e->iasp = (uint8_t) iasp;
    e->life = w.node[n].life;
    return;
  }
  w.node[n].sup[iasp].probing = false;
  slot_read (d, &sb, &choice, &status);
  if (status != SUPER_OK) {
    set_reason (&ev, "its superblocks can't be used");
    crgd_feed (n, &ev);
    return;
  }
  node_boot_id (n, boot);
  info->has_super = true;
  info->agrees_ids = true;
  info->fork = (sb.flags & SUPER_F_FORK) != 0;
  is_open = (sb.flags & SUPER_F_OPEN) || !(sb.flags & SUPER_F_CLEAN);
  same_boot = memcmp (sb.open_boot_id, boot, CRG_ID_LEN) == 0;
  info->clean = !is_open && !choice.damaged;
  info->unusable = (sb.flags & SUPER_F_UNUSABLE) != 0;
  info->generation = sb.generation;
  info->tenure = sb.tenure;
  memcpy (info->lineage, sb.lineage, CRG_ID_LEN);
  memcpy (info->boot_id, sb.open_boot_id, CRG_ID_LEN);
  info->size = sb.data_bytes;
  info->restarted = (sb.flags & SUPER_F_RESTARTED) || (is_open && !same_boot && !own);
  if (own)
    info->can_host = true;
  else if (disk_is_locked (d, w.node[n].machine))
    set_reason (&ev, "another process on this machine has it open");
  else if (!is_open || same_boot || sb.open_node[1] == (char) ('1' + n))
    info->can_host = true; /* S1 a, b */
  else if (s != NULL && state_is_fenced (s, sb.open_node))
    info->can_host = true; /* S1 d */
  else
    set_reason (&ev, "another node had it open and did not release it");
  if (s != NULL && s->rec[iasp].copies[site_of_node (n)].detached && info->can_host && !info->fork && !own) {
    disk_mark_fork (d, &sb, choice.slot); /* R6 */
    info->fork = true;
  }
  crgd_feed (n, &ev);
}

/* ---- member.c: actions ---------------------------------------------------------------------- */

static void
make_record (const struct crg_state *s, unsigned n, unsigned iasp, struct prec *r)
{
  const struct iasp_rec *rec = &s->rec[iasp];
  const int site = site_of_node (n);
  const bool own = site >= 0 && site == rec->production_site;
  uint8_t boot[CRG_ID_LEN];

  memset (r, 0, sizeof *r);
  r->tenure = rec->tenure;
  r->generation = rec->generation;
  r->loss = rec->loss;
  r->production_site = rec->production_site;
  r->n_sites = s->def.n_sites;
  r->exported = site >= 0 ? rec->copies[site].exported : DETACHED_CLOSED;
  for (unsigned k = 0; k < s->def.n_sites; k++) {
    r->since[k] = rec->copies[k].since;
    r->host[k] = rec->copies[k].host;
    if (rec->copies[k].in_set)
      r->in_set |= 1u << k;
    if (rec->copies[k].fork != FORK_NONE)
      r->fork |= 1u << k;
    if (rec->copies[k].fork != FORK_NONE && rec->copies[k].fork != FORK_BEHIND)
      r->diverged |= 1u << k;
  }
  /* tell_role_extra */
  for (unsigned i = 0; i < s->def.n_nodes; i++)
    if (s->def.nodes[i].marked_failed && s->def.nodes[i].id != n + 1)
      r->fenced |= 1u << (s->def.nodes[i].id - 1);
  for (unsigned i = 0; i < s->n_gone; i++)
    r->fenced |= 1u << (s->gone[i][1] - '1');
  node_boot_id (n, boot);
  r->accept_loss = own && memcmp (rec->copies[site].boot_id, boot, CRG_ID_LEN) == 0;
  r->forced = own && rec->forced;
}

static void
set_record (unsigned n, unsigned iasp, const struct crg_state *s, uint64_t seq)
{
  struct sup *p = &w.node[n].sup[iasp];

  make_record (s, n, iasp, &p->record);
  p->has_record = p->record_due = true;
  p->record_seq = seq;
}

/* member.c: removed from the domain (C7): its plugins end, and it forgets the CRG. */
static void
forget (unsigned n)
{
  crgd_die (n, false);
  for (unsigned i = 0; i < w.mix.n_iasps; i++)
    plugin_die (plugin_of (n, i), "its node was removed");
  w.node[n].has_state = false;
  w.node[n].promised = 0;
  w.node[n].gone = true;
}

static void
forget_later (unsigned n)
{
  struct wev *e = after_us (1 + world_random (MS (20)), EV_FORGET);

  e->node = (uint8_t) n;
  e->life = w.node[n].life;
}

/* cluster.c: hello.  A node that a committed state names comes; one that a newer domain does not
 * name forgets. */
void
tell_cluster (void)
{
  for (unsigned a = 0; a < w.n_nodes; a++) {
    const struct crg_state *c = w.node[a].running && !w.node[a].paused ? group_committed (&w.node[a].g) : NULL;

    for (unsigned b = 0; c != NULL && b < w.n_nodes; b++) {
      struct wnode *node = &w.node[b];

      if (a == b || !(w.reach[a] & 1u << b) || !(w.reach[b] & 1u << a))
        continue;
      if (node->gone && state_node_index (c, node->id) >= 0) {
        node->gone = false;
        after_us (1 + world_random (MS (50)), EV_BOOT)->node = (uint8_t) b;
      }
      else if (node->running && node->g.has_state && c->domain > node->g.applied.domain
               && state_node_index (c, node->id) < 0)
        forget_later (b);
    }
  }
}

void
crgd_forget (unsigned n)
{
  if (w.has_top && state_node_index (&w.top, w.node[n].id) < 0)
    forget (n);
}

static bool
carry_out (unsigned n, const struct group_action *a)
{
  struct wnode *node = &w.node[n];
  const struct crg_state *s = group_committed (&node->g);
  struct sup *p = &node->sup[a->iasp % W_IASPS];
  struct group_event ev = { .kind = GE_HOSTED, .iasp = a->iasp, .role = a->role, .tenure = a->tenure };

  switch ((enum group_action_kind) a->kind) {
  case GA_PERSIST:
    if (group_applied (&node->g) == NULL)
      return true;
    if (node->persist_fails > 0) { /* C6 */
      node->persist_fails--;
      TRACE ("n%u: its state can't be written", n + 1);
      crgd_die (n, true);
      return false;
    }
    check_persist (n);
    node->has_state = true;
    node->state = *group_applied (&node->g);
    node->promised = group_promised (&node->g);
    return true;
  case GA_SEND:
    check_send (n, w.gacts.bytes + a->off, a->len);
    ring_mcast (n, w.gacts.bytes + a->off, a->len);
    return true;
  case GA_PROBE:
    start_probe (n, a->iasp);
    return true;
  case GA_HOST:
    TRACE ("n%u host iasp %u: role %u tenure %llu", n + 1, a->iasp, a->role,
           (unsigned long long) a->tenure);
    p->claimed = true;
    check_host (n, a);
    if (site_of_node (n) < 0) {
      ev.ok = a->role == HOST_NONE;
      crgd_feed (n, &ev);
      return true;
    }
    if (a->role != HOST_NONE)
      set_record (n, a->iasp, member_state (node), 0);
    plugin_want (n, a->iasp, a->role, a->tenure);
    if (a->role == HOST_PRODUCTION) {
      p->lease_until_ms = a->until_ms;
      p->lease_due = true;
    }
    return true;
  case GA_RECORD:
    if (s)
      set_record (n, a->iasp, s, a->seq);
    if (p->phase == PH_READY)
      drive (n, a->iasp);
    return true;
  case GA_MIRROR_START:
    if (!s || a->site >= s->def.n_sites || (int) a->site == site_of_node (n))
      return true;
    p->mirror_set[a->site] = p->mirror_due[a->site] = true;
    p->mirror_node[a->site] = a->node;
    p->mirror_sync[a->site] = a->sync;
    if (p->phase == PH_READY)
      drive (n, a->iasp);
    return true;
  case GA_UNMIRROR:
    p->mirror_set[a->site] = p->mirror_due[a->site] = false;
    if (p->phase == PH_READY && p->told_role == HOST_PRODUCTION)
      call (n, a->iasp, CTL_UNMIRROR)->site = a->site;
    return true;
  case GA_LEASE:
    for (unsigned i = 0; i < w.mix.n_iasps; i++) {
      struct sup *x = &node->sup[i];

      if (s == NULL || state_unit (s, i) != a->iasp)
        continue;
      x->lease_until_ms = a->until_ms;
      x->lease_due = true;
      if (x->phase == PH_READY && x->told_role == HOST_PRODUCTION)
        push (n, i);
    }
    return true;
  case GA_HOLD:
    p->holding = p->hold_due = true;
    p->hold_deadline_ms = 0;
    if (p->phase == PH_READY && p->told_role == HOST_PRODUCTION)
      push (n, a->iasp);
    return true;
  case GA_RESUME:
    p->holding = false;
    p->hold_deadline_ms = 0;
    p->resume_due = true;
    if (p->phase == PH_READY && p->told_role == HOST_PRODUCTION)
      push (n, a->iasp);
    return true;
  case GA_REPLY:
    TRACE ("n%u reply %d %s", n + 1, a->code, a->reason);
    return true;
  case GA_LEAVE:
    TRACE ("n%u leaves: %s", n + 1, a->reason);
    node->left = true;
    node->left_kind = a->role;
    return true;
  case GA_DOMAIN:
    tell_cluster ();
    return true;
  case GA_NOTE:
    TRACE ("n%u: %s", n + 1, a->reason);
    return true;
  default:
    return true;
  }
}

/* S3 */
static void
end_unclaimed (unsigned n)
{
  struct wnode *node = &w.node[n];
  const struct crg_state *s = group_committed (&node->g);
  int site = site_of_node (n);

  if (!node->adopted || s == NULL || site < 0 || node->g.phase != PHASE_STARTED)
    return;
  node->adopted = false;
  for (unsigned i = 0; i < w.mix.n_iasps; i++) {
    if (node->sup[i].claimed || node->sup[i].phase == PH_IDLE)
      continue;
    if (s->started && s->rec[i].copies[site].host == node->id) {
      node->adopted = true;
      continue;
    }
    plugin_want (n, i, HOST_NONE, state_tenure (s));
    if (!node->running)
      return;
  }
}

static void
arm (unsigned n)
{
  struct wnode *node = &w.node[n];
  uint64_t now = node_ms (n), due = group_next_tick_ms (&node->g);
  uint64_t us = MS (MIN (due > now ? due - now : 1, (uint64_t) 250));
  struct wev *e;

  if (node->tick_pending && node->tick_us <= w.now_us + us)
    return;
  node->tick_pending = true;
  node->tick_us = w.now_us + us;
  e = after_us (us, EV_TICK);
  e->node = (uint8_t) n;
  e->life = node->life;
}

static void
step (unsigned n, const struct group_event *ev)
{
  struct wnode *node = &w.node[n];
  const uint32_t life = node->life;
  struct group_event copy = *ev;

  copy.now_ms = copy.wall_ms = node_ms (n);
  w.gacts.n = 0;
  w.gacts.used = 0;
  group_step (&node->g, &copy, &w.gacts);
  for (unsigned i = 0; i < w.gacts.n && !w.failed; i++) {
    if (w.mix.kill_ppm > 0 && !w.healing && world_random (1000000) < w.mix.kill_ppm) {
      crgd_die (n, true);
      return;
    }
    if (!carry_out (n, &w.gacts.a[i]))
      break;
    if (!node->running || node->life != life)
      return;
  }
}

void
crgd_feed (unsigned n, struct group_event *ev)
{
  struct wnode *node = &w.node[n];
  const uint32_t life = node->life;

  if (!node->running || w.failed)
    return;
  if (node->in_step) {
    if (node->n_events == ARRAY_SIZE (node->events))
      world_fail ("n%u: too many events in one step", n + 1);
    else
      node->events[node->n_events++] = *ev;
    return;
  }
  node->in_step = true;
  step (n, ev);
  while (node->running && node->life == life && node->n_events > 0 && !w.failed) {
    struct group_event next = node->events[0];

    memmove (node->events, node->events + 1, --node->n_events * sizeof node->events[0]);
    step (n, &next);
  }
  if (!node->running || node->life != life)
    return;
  node->in_step = false;
  if (node->g.has_committed)
    check_commit (n);
  end_unclaimed (n);
  if (!node->running || node->life != life)
    return;
  if (node->left) {
    node->left = false;
    if (node->left_kind == LEAVE_REMOVED)
      forget (n);
    else {
      crgd_die (n, node->left_kind != LEAVE_DELETED);
      if (node->left_kind == LEAVE_LINEAGE)
        node->has_state = false;
    }
    return;
  }
  arm (n);
}

void
crgd_tick (unsigned n)
{
  struct group_event tick = { .kind = GE_TICK };

  if (w.now_us < w.node[n].tick_us)
    return; /* an earlier one was asked for since */
  w.node[n].tick_pending = false;
  if (w.node[n].paused) {
    w.node[n].tick_pending = true;
    w.node[n].tick_us = w.now_us + MS (20);
    struct wev *e = after_us (MS (20), EV_TICK);
    e->node = (uint8_t) n;
    e->life = w.node[n].life;
    return;
  }
  crgd_feed (n, &tick);
}

void
crgd_request (unsigned n, enum group_request r, uint32_t arg, uint8_t iasp, uint8_t site)
{
  struct group_event ev = { .kind = GE_REQUEST, .request = (uint8_t) r, .request_id = w.st.steps + 1,
                            .node = arg, .iasp = iasp, .site = site };

  if (!w.node[n].paused)
    crgd_feed (n, &ev);
}

/* ---- life ----------------------------------------------------------------------------------- */

void
crgd_boot (unsigned n)
{
  struct wnode *node = &w.node[n];
  struct group_config cfg;

  if (node->running || node->gone || !w.machine[node->machine].up || w.machine[node->machine].frozen_us)
    return;
  memset (&cfg, 0, sizeof cfg);
  cfg.node_id = node->id;
  cfg.incarnation = ++node->boots * 1000 + node->id;
  cfg.token_ms = w.mix.token_ms;
  cfg.lease_ms = w.mix.lease_ms;
  cfg.start_wait_ms = w.mix.start_wait_ms;
  node_boot_id (n, cfg.boot_id);
  memset (node->sup, 0, sizeof node->sup);
  node->running = true;
  node->paused = node->left = node->tick_pending = node->in_step = false;
  node->deliver_pending = node->order_pending = node->adopted = false;
  node->n_events = 0;
  node->life = ++w.lives;
  node->seen_serial = 0;
  node->ring = 0;
  node->view_members = 0;
  TRACE ("n%u boots, %s %llu.%llu promised %llu", n + 1, node->has_state ? "state" : "no state",
         (unsigned long long) node->state.stamp.epoch, (unsigned long long) node->state.stamp.version,
         (unsigned long long) node->promised);
  group_init (&node->g, &cfg, node->has_state ? &node->state : NULL, node->promised, node_ms (n));
  for (unsigned i = 0; i < w.mix.n_iasps; i++) {
    struct wev *e;

    if (site_of_node (n) < 0)
      break;
    if (plugin_of (n, i)->running) { /* plugin_adopt */
      set_phase (n, &node->sup[i], PH_STARTING);
      node->adopted = true;
    }
    e = after_us (MS (20), EV_SUP);
    e->node = (uint8_t) n;
    e->iasp = (uint8_t) i;
    e->life = node->life;
  }
  arm (n);
  ring_changed (true);
}

void
crgd_die (unsigned n, bool comes_back)
{
  struct wnode *node = &w.node[n];

  if (!node->running)
    return;
  TRACE ("n%u dies", n + 1);
  /* Some of what it had queued still goes out. */
  while (node->out_n > 0 && chance (33))
    ring_order (n);
  node->running = false;
  node->in_step = false;
  ring_drop (n);
  for (unsigned i = 0; i < W_IASPS; i++)
    node->plugin[i].ctl_conn = 0;
  ring_changed (true);
  if (comes_back)
    after_us (MS (1 + world_random (3000)), EV_BOOT)->node = (uint8_t) n;
}
