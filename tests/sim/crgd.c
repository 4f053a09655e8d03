/* SPDX-License-Identifier: BSD-3-Clause
 *
 * server/member.c and probe.c for crgsim: carries out the group core's actions in order.
 */
#include <stdio.h>
#include <string.h>

#include "common/util.h"
#include "tests/sim/world.h"

/* ---- member.c: events ----------------------------------------------------------------------- */

static const struct crg_state *
member_state (const struct wnode *node)
{
  const struct crg_state *s = group_committed (&node->g);

  return s ? s : group_applied (&node->g);
}

static void
set_reason (struct group_event *ev, const char *reason)
{
  size_t len = strlen (reason);

  if (len > CRG_REASON_MAX)
    len = CRG_REASON_MAX;

  memcpy (ev->reason, reason, len);
  ev->reason[len] = '\0';
}

void
crgd_hosted (unsigned n, unsigned iasp, unsigned role, uint64_t tenure, bool ok, const char *reason,
             const struct ctlmsg *info)
{
  struct group_event ev = { .kind = GE_HOSTED, .iasp = (uint8_t) iasp, .role = (uint8_t) role,
                            .tenure = tenure, .ok = ok };
  const struct crg_state *s = member_state (&w.node[n]);

  set_reason (&ev, reason);
  if (ok && info && s) {
    ev.store.can_host = ev.store.has_super = ev.store.agrees_ids = true;
    ev.store.generation = info->generation;
    ev.store.restarted = info->restarted;
    ev.store.unusable = info->unusable;
    ev.store.tenure = tenure;
    ev.store.sites = info->sites;
    ev.store.size = W_SIZE;
    memcpy (ev.store.lineage, s->lineage, CRG_ID_LEN);
    node_boot_id (n, ev.store.boot_id);
  }
  crgd_feed (n, &ev);
}

void
crgd_plugin_event (unsigned n, unsigned iasp, const struct ctlmsg *m)
{
  struct group_event ev = { .iasp = (uint8_t) iasp, .site = m->site, .seq = m->seq, .generation = m->generation };

  ev.kind = m->kind == CTL_LOST    ? GE_COPY_LOST
            : m->kind == CTL_BACK  ? GE_COPY_BACK
            : m->kind == CTL_READY ? GE_COPY_READY
                                   : GE_STORE_FAILED;
  set_reason (&ev, m->reason);
  memcpy (ev.boot_id, m->boot_id, CRG_ID_LEN);
  check_heard (n, iasp, m);
  crgd_feed (n, &ev);
}

void
crgd_drained (unsigned n, unsigned iasp, bool ok)
{
  struct group_event ev = { .kind = GE_DRAINED, .iasp = (uint8_t) iasp, .ok = ok };

  set_reason (&ev, ok ? "" : "not drained");
  crgd_feed (n, &ev);
}

/* ---- probe.c -------------------------------------------------------------------------------- */

static void
start_probe (unsigned n, unsigned iasp)
{
  struct group_event ev = { .kind = GE_PROBE, .iasp = (uint8_t) iasp };
  struct wev *e;

  if (!reaches_store (n, iasp)) {
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

/* look_at_claims: the name of who claims it, or "". */
static void
claimed_by (const struct wdisk *d, const struct superblock *sb, unsigned n, const struct crg_state *s,
            char by[CRG_NAME_MAX + 1])
{
  const char name[3] = { 'n', (char) ('1' + n), '\0' };
  struct claim_block c;
  uint8_t boot[CRG_ID_LEN];

  by[0] = '\0';
  node_boot_id (n, boot);
  for (unsigned i = 0; i <= W_NODES; i++)
    if (disk_claim (d, i, sb->store_id, &c)
        && !claim_is_over (c.node, c.boot_id, name, boot, s != NULL && state_is_fenced (s, c.node)))
      memcpy (by, c.node, sizeof c.node);
}

/* member_plugin.c */
static uint32_t
id_of (const struct crg_state *s, const char *name)
{
  for (unsigned i = 0; s != NULL && i < s->def.n_nodes; i++)
    if (strcmp (s->def.nodes[i].name, name) == 0)
      return s->def.nodes[i].id;
  return NO_NODE;
}

/* look_at_store */
void
crgd_probed (unsigned n, unsigned iasp)
{
  struct wdisk *d = &w.disk[site_of_node (n)][iasp];
  const struct crg_state *s = member_state (&w.node[n]);
  struct group_event ev = { .kind = GE_PROBE, .iasp = (uint8_t) iasp, .ok = true };
  struct store_info *info = &ev.store;
  const struct wplugin *p = plugin_of (n, iasp);
  bool own = p->running && (p->open || p->claiming), is_open, same_boot;
  struct super_choice choice;
  enum super_status status;
  struct superblock sb;
  const char name[3] = { 'n', (char) ('1' + n), '\0' };
  char claimed[CRG_NAME_MAX + 1];
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
  if (!own && !disk_is_locked (d, w.node[n].machine))
    disk_tidy (d, n, sb.store_id);
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
  else if (claimed_by (d, &sb, n, s, claimed), claimed[0] != '\0') {
    info->held_by = id_of (s, claimed);
    set_reason (&ev, "another node is opening it");
  }
  else if (!is_open || claim_record_is_over (&sb, name, boot, s != NULL && state_is_fenced (s, sb.open_node))) {
    info->can_host = true; /* S1 a, b, d */
    if (claim_is_of_the_past (&sb, name, boot)) {
      memset (sb.open_boot_id, 0, CRG_ID_LEN);
      disk_mark (d, &sb, choice.slot);
    }
  }
  else {
    info->held_by = id_of (s, sb.open_node);
    set_reason (&ev, "another node had it open and did not release it");
  }
  if (s != NULL && s->rec[iasp].copies[site_of_node (n)].detached && info->can_host && !info->fork && !own
      && memcmp (info->lineage, s->lineage, CRG_ID_LEN) == 0) {
    sb.flags |= SUPER_F_FORK; /* R6 */
    disk_mark (d, &sb, choice.slot);
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
  r->n_past = s->n_past;
  memcpy (r->past, s->past, sizeof r->past);
  memcpy (r->past_generation, rec->past_generation, sizeof r->past_generation);
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
  fence_cancel (n);
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

/* cluster.c: hello.  A node that a state names comes, also that of a crgd which has just started; one that a
 * newer committed domain does not name forgets. */
void
tell_cluster (void)
{
  for (unsigned a = 0; a < w.n_nodes; a++) {
    const bool speaks = w.node[a].running && !w.node[a].paused;
    const struct crg_state *c = speaks ? group_committed (&w.node[a].g) : NULL;
    const struct crg_state *s = speaks ? c ?: group_applied (&w.node[a].g) : NULL;

    for (unsigned b = 0; s != NULL && b < w.n_nodes; b++) {
      struct wnode *node = &w.node[b];

      if (a == b || !(w.reach[a] & 1u << b) || !(w.reach[b] & 1u << a))
        continue;
      if (node->gone && state_node_index (s, node->id) >= 0) {
        node->gone = false;
        after_us (1 + world_random (MS (50)), EV_BOOT)->node = (uint8_t) b;
      }
      else if (c != NULL && node->running && node->g.has_state && c->domain > node->g.applied.domain
               && memcmp (c->lineage, node->g.applied.lineage, CRG_ID_LEN) == 0 && state_node_index (c, node->id) < 0)
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
    node->hold_ms = group_hold_ms (&node->g);
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
    if (!reaches_store (n, a->iasp)) {
      ev.ok = a->role == HOST_NONE;
      crgd_feed (n, &ev);
      return true;
    }
    if (a->role != HOST_NONE)
      set_record (n, a->iasp, member_state (node), 0);
    sup_want (n, a->iasp, a->role, a->tenure);
    if (a->role == HOST_PRODUCTION) {
      p->lease_until_ms = a->until_ms;
      p->lease_due = true;
    }
    return true;
  case GA_RECORD:
    if (s)
      set_record (n, a->iasp, s, a->seq);
    if (p->phase == PH_READY)
      sup_drive (n, a->iasp);
    return true;
  case GA_MIRROR_START:
    if (!s || a->site >= s->def.n_sites || (int) a->site == site_of_node (n))
      return true;
    p->mirror_set[a->site] = p->mirror_due[a->site] = true;
    p->unmirror_set[a->site] = false;
    p->mirror_node[a->site] = a->node;
    p->mirror_sync[a->site] = a->sync;
    if (p->phase == PH_READY)
      sup_drive (n, a->iasp);
    return true;
  case GA_UNMIRROR:
    sup_unmirror (n, a->iasp, a->site);
    return true;
  case GA_LEASE:
    for (unsigned i = 0; i < w.mix.n_iasps; i++) {
      struct sup *x = &node->sup[i];

      if (s == NULL || state_unit (s, i) != a->iasp)
        continue;
      x->lease_until_ms = a->until_ms;
      x->lease_due = true;
      if (x->phase == PH_READY && x->told_role == HOST_PRODUCTION)
        sup_push (n, i);
    }
    return true;
  case GA_HOLD:
    sup_hold (n, a->iasp);
    return true;
  case GA_FENCE:
    fence_begin (n, a->node);
    return true;
  case GA_RESUME:
    sup_resume (n, a->iasp);
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
    sup_want (n, i, HOST_NONE, s->rec[i].tenure);
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
    fence_cancel (n);
    if (node->left_kind == LEAVE_REMOVED)
      forget (n);
    else {
      crgd_die (n, node->left_kind != LEAVE_DELETED);
      if (node->left_kind == LEAVE_LINEAGE) { /* do_remove */
        for (unsigned i = 0; i < w.mix.n_iasps; i++)
          plugin_die (plugin_of (n, i), "its node begins empty");
        node->has_state = false;
        node->promised = node->hold_ms = 0;
      }
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

/* Its lease-ms since its crgd started last. */
uint32_t
lease_of_node (unsigned n)
{
  static const uint8_t times[] = { 1, 1, 2, 4 };
  const uint64_t h = mix_hash (mix_hash (w.seed, 240 + n), w.node[n].boots);

  return w.mix.leases ? w.mix.lease_ms * times[h % ARRAY_SIZE (times)] : w.mix.lease_ms;
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
  snprintf (cfg.name, sizeof cfg.name, "n%u", n + 1);
  cfg.incarnation = ++node->boots * 1000 + node->id;
  cfg.token_ms = w.mix.token_ms;
  cfg.lease_ms = lease_of_node (n);
  cfg.hold_ms = node->has_state ? node->hold_ms : 0;
  cfg.start_wait_ms = w.mix.start_wait_ms;
  cfg.can_fence = w.mix.fence;
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
  if (node->has_state && w.named >> n & 1)
    w.past |= 1u << lineage_number (node->state.lineage);
  TRACE ("n%u boots, %s %llu.%llu promised %llu", n + 1, node->has_state ? "state" : "no state",
         (unsigned long long) node->state.stamp.epoch, (unsigned long long) node->state.stamp.version,
         (unsigned long long) node->promised);
  group_init (&node->g, &cfg, node->has_state ? &node->state : NULL, node->promised, node_ms (n));
  for (unsigned i = 0; i < w.mix.n_iasps; i++) {
    struct wev *e;

    if (!reaches_store (n, i))
      continue;
    if (plugin_of (n, i)->running) { /* plugin_adopt */
      sup_set_phase (n, &node->sup[i], PH_STARTING);
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
