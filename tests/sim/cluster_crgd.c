/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The shell around a group core of the simulated cluster: what it asks for is
 * done, at once or a little later; stores and plugins as far as a crgd sees
 * them.  See cluster.h.
 */
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/bytes.h"
#include "common/util.h"
#include "tests/sim/cluster_private.h"

static struct group_actions acts; /* one step at a time */

static void run_actions (struct sim *s, unsigned n);

void
sim_feed (struct sim *s, unsigned n, struct group_event *ev)
{
  struct sim_node *node = &s->node[n];

  if (!node->running)
    return;
  ev->now_ms = local_ms (s, node);
  ev->wall_ms = UINT64_C (1700000000000) + s->now_ms;
  group_step (node->g, ev, &acts);
  run_actions (s, n);
}

void
sim_later (struct sim *s, unsigned n, struct sim_pending p)
{
  struct sim_node *node = &s->node[n];

  if (node->n_pending == ARRAY_SIZE (node->pending)) {
    sim_fail (s, "node %u: too many pending answers", n + 1);
    return;
  }
  /* What is asked of one plugin is done in order; a probe asks the store. */
  for (unsigned i = 0; i < node->n_pending; i++)
    if (node->pending[i].ev.iasp == p.ev.iasp && node->pending[i].due_ms > p.due_ms
        && !(p.kind == SIM_DO_PROBE && node->pending[i].kind == SIM_DO_ADOPT))
      p.due_ms = node->pending[i].due_ms;
  p.incarnation = node->incarnation;
  node->pending[node->n_pending++] = p;
}

/* access(R), as far as the machine goes. */
bool
sim_reaches (const struct sim *s, unsigned n, unsigned iasp)
{
  return site_of_node (s, n) >= 0 && !(s->cfg.no_store[iasp] & (1u << n))
         && !(s->node[n].jams & (1u << iasp));
}

static void
store_info (const struct sim *s, unsigned n, unsigned iasp, struct store_info *info)
{
  int site = site_of_node (s, n);

  /* Only a member with a site is asked about a store. */
  assert (site >= 0 && site < SIM_SITES && iasp < SIM_IASPS);
  const struct sim_store *st = &s->store[site][iasp];
  bool own = st->open_by == (int) n;

  memset (info, 0, sizeof *info);
  if (!own && !sim_reaches (s, n, iasp))
    return;
  if (is_script (s, iasp)) {
    info->can_host = true;
    info->owned = s->node[n].plugin[iasp].running || (s->node[n].owns & (1u << iasp));
    return;
  }
  info->has_super = st->has_super;
  info->agrees_ids = true;
  info->clean = st->clean;
  info->unusable = st->unusable;
  info->fork = st->fork;
  info->generation = st->generation;
  info->tenure = st->tenure;
  memcpy (info->lineage, st->lineage, CRG_ID_LEN);
  info->boot_id[0] = (uint8_t) st->boot;
  info->size = 1 << 20;
  /* R5 */
  info->restarted = st->restarted || (!own && !st->clean && st->machine >= 0
                    && (st->machine != machine_of (s, n) || st->boot != boot_of (s, n)));
  /* S1 a, b */
  info->can_host = own || (st->open_by < 0 && (st->clean || st->machine < 0
                                               || st->machine == machine_of (s, n)));
  /* S1 d: the boot in which it was opened is over, and everybody knows. */
  if (!own && !info->can_host && st->open_by < 0 && st->machine >= 0
      && (st->boot != boot_of (s, (unsigned) st->machine) || s->node[st->machine].gone)) {
    const struct crg_state *c = group_committed (s->node[n].g);
    char opener[CRG_NAME_MAX + 1];

    snprintf (opener, sizeof opener, "n%u", s->node[st->machine].id);
    info->can_host = c != NULL && state_is_fenced (c, opener);
  }
  if (!info->can_host)
    info->held_by = (uint32_t) (st->open_by >= 0 ? st->open_by : st->machine) + 1;
}

static void
host_answer (struct sim *s, unsigned n, struct group_event *ask, bool ok, const char *why)
{
  struct group_event ev = { .kind = GE_HOSTED };

  ev.iasp = ask->iasp;
  ev.role = ask->role;
  ev.tenure = ask->tenure;
  ev.ok = ok;
  if (site_of_node (s, n) >= 0)
    store_info (s, n, ask->iasp, &ev.store);
  snprintf (ev.reason, sizeof ev.reason, "%s", why);
  sim_feed (s, n, &ev);
}

static void
reset_links (struct sim_plugin *p)
{
  for (unsigned i = 0; i < SIM_SITES; i++)
    p->link[i] = (struct sim_link) { .node = -1 };
  p->has_record = p->held = p->drain = p->broken = p->found = false;
}

void
sim_stop_plugin (struct sim *s, unsigned n, unsigned iasp, bool graceful)
{
  struct sim_plugin *p = &s->node[n].plugin[iasp];
  struct sim_store *st;

  if (!p->running)
    return;
  st = &s->store[site_of_node (s, n)][iasp];
  if (!is_script (s, iasp)) {
    st->open_by = -1;
    st->clean = graceful;
    if (graceful)
      st->flushed = st->data;
  }
  p->running = false;
  p->role = HOST_NONE;
  p->lease_ms = 0;
}

/* S3: a plugin that this crgd found running tells what it is, once; then what it had to say. */
void
sim_is_known (struct sim *s, unsigned n, struct group_event *ask)
{
  struct sim_plugin *p = &s->node[n].plugin[ask->iasp];

  if (!p->running || !p->found)
    return;
  for (unsigned i = 0; i < s->node[n].n_pending; i++)
    if (s->node[n].pending[i].kind == SIM_DO_HOST && s->node[n].pending[i].ev.iasp == ask->iasp)
      return; /* asked for already: that is answered */
  p->found = false;
  host_answer (s, n, ask, true, "");
  p->broken_say = p->broken;
  for (unsigned k = 0; k < SIM_SITES; k++)
    p->link[k].say_again = true;
}

/* GA_HOST, carried out a little later. */
void
sim_do_host (struct sim *s, unsigned n, struct group_event *ask)
{
  struct sim_node *node = &s->node[n];
  struct sim_plugin *p = &node->plugin[ask->iasp];
  struct sim_store *st = &s->store[site_of_node (s, n)][ask->iasp];

  if (ask->role == HOST_NONE) {
    sim_stop_plugin (s, n, ask->iasp, true);
    host_answer (s, n, ask, true, "");
    return;
  }
  if (p->running && p->found && p->role == ask->role && p->tenure == ask->tenure) {
    sim_is_known (s, n, ask); /* it has it already, and is told nothing */
    return;
  }
  if (p->running && p->found && p->role != ask->role
      && (p->role != HOST_MIRROR || ask->role != HOST_PRODUCTION))
    sim_stop_plugin (s, n, ask->iasp, true); /* F6: a fresh process takes the other role */
  if (s->cfg.no_store[ask->iasp] & (1u << n))
    sim_fail (s, "node %u is told to host what it has no store for", n + 1);
  if (node->open_fails || (!p->running && !sim_reaches (s, n, ask->iasp))) {
    sim_stop_plugin (s, n, ask->iasp, true);
    host_answer (s, n, ask, false, "the store is too small for the IASP (H8)");
    return;
  }
  if (is_script (s, ask->iasp)) {
    struct group_event ev = { .kind = GE_CONFIG, .iasp = ask->iasp };
    char text[32];

    if (ask->role == HOST_MIRROR)
      sim_fail (s, "node %u: a script is told to mirror", n + 1);
    ev.len = (size_t) snprintf (text, sizeof text, "of n%u", n + 1);
    ev.buf = (const uint8_t *) text;
    sim_feed (s, n, &ev);
    reset_links (p);
    p->running = true;
    p->role = ask->role;
    p->tenure = ask->tenure;
    host_answer (s, n, ask, true, "");
    return;
  }
  if (st->open_by >= 0 && st->open_by != (int) n) {
    host_answer (s, n, ask, false, "the store is locked by another host");
    return;
  }
  if (memcmp (st->lineage, group_committed (node->g)->lineage, CRG_ID_LEN) != 0) {
    const struct crg_state *c = group_committed (node->g);

    /* C9: a store of the set, of the lineage before, is ours; another is a
     * fork (R6). */
    if (!c->rec[ask->iasp].copies[site_of_node (s, n)].in_set || c->n_past == 0
        || memcmp (st->lineage, c->past[0], CRG_ID_LEN) != 0) {
      host_answer (s, n, ask, false, "the store is of another lineage (R6)");
      return;
    }
    memcpy (st->lineage, c->lineage, CRG_ID_LEN);
  }
  if (ask->role == HOST_PRODUCTION && st->unusable) {
    sim_stop_plugin (s, n, ask->iasp, true);
    host_answer (s, n, ask, false, "its store was never filled, or its resync is not over (R4)");
    return;
  }
  if (!p->running) {
    struct store_info info;

    store_info (s, n, ask->iasp, &info);
    st->restarted = info.restarted;
    st->open_by = (int) n;
    st->machine = machine_of (s, n);
    st->boot = boot_of (s, n);
    st->clean = false;
    p->running = true;
    p->seq = 0;
  }
  if (ask->role == HOST_DETACHED) {
    const struct copy_rec *c
      = &group_committed (node->g)->rec[ask->iasp].copies[site_of_node (s, n)];

    /* It may be reattached by now; it is a fork until it enters the set. */
    if (c->fork == FORK_NONE || p->role == HOST_MIRROR || p->role == HOST_PRODUCTION)
      sim_fail (s, "node %u: opens a copy as detached that isn't", n + 1);
    st->fork = true;
    /* It is written by its own clients: what was answered isn't there any more. */
    st->lost = st->lost || c->fork == FORK_DIVERGED;
  }
  if (st->fork && ask->role == HOST_MIRROR
      && group_committed (node->g)->rec[ask->iasp].copies[site_of_node (s, n)].fork == FORK_NONE)
    sim_fail (s, "node %u: a fork is mirrored to, and the record knows of none (R6)", n + 1);
  if (p->role == HOST_PRODUCTION && ask->role == HOST_MIRROR)
    sim_fail (s, "node %u: a production plugin must end before it mirrors (F6)", n + 1);
  reset_links (p);
  p->role = ask->role;
  p->tenure = ask->tenure;
  if (ask->role == HOST_PRODUCTION) {
    const struct crg_state *c = group_committed (node->g);

    st->tenure = ask->tenure;
    st->restarted = st->fork = false; /* accepted, else it isn't told so */
    /* The record that `role` carries. */
    p->rec = c->rec[ask->iasp];
    p->has_record = true;
  }
  host_answer (s, n, ask, true, "");
}

void
sim_do_probe (struct sim *s, unsigned n, const struct group_event *ask)
{
  struct group_event ev = { .kind = GE_PROBE };

  ev.iasp = ask->iasp;
  store_info (s, n, ask->iasp, &ev.store);
  ev.ok = ev.store.can_host;
  snprintf (ev.reason, sizeof ev.reason, "%s", ev.ok ? "" : "its store is not free (S1)");
  sim_feed (s, n, &ev);
}

/* S1 d: the other one's power is cut; its machine comes up again later. */
void
sim_do_fence (struct sim *s, unsigned n, const struct group_event *ask)
{
  struct group_event ev = { .kind = GE_FENCED, .node = ask->node };
  struct sim_node *target = &s->node[ask->node - 1];

  ev.ok = !s->node[n].fence_fails && (s->cfg.calm || sim_random (s, 4) > 0);
  if (ev.ok) {
    bool up = target->machine_up;

    sim_power_off (s, ask->node - 1);
    target->fenced++;
    if (!s->cfg.calm) {
      target->machine_up = up;
      target->restart_ms = s->now_ms + 1 + sim_random (s, 8000);
    }
  } else
    strcpy (ev.reason, "no answer of the power switch");
  sim_feed (s, n, &ev);
}

static void
take_record (struct sim *s, unsigned n, const struct group_action *a)
{
  struct sim_plugin *p = &s->node[n].plugin[a->iasp];
  const struct crg_state *c = group_committed (s->node[n].g);

  if (!p->running)
    return;
  /* R3: whoever comes into the set was asked for. */
  for (unsigned k = 0; k < s->n_sites && p->role == HOST_PRODUCTION && p->has_record && !is_script (s, a->iasp); k++)
    if (c->rec[a->iasp].copies[k].in_set && !p->rec.copies[k].in_set && !p->link[k].ready
        && (int) k != site_of_node (s, n))
      sim_fail (s, "node %u: the copy of site %u is in the set, and production did not ask for it (R3)", n + 1, k);
  p->rec = c->rec[a->iasp];
  p->has_record = true;
  if (p->role != HOST_PRODUCTION)
    return;
  if (is_script (s, a->iasp))
    return;
  s->store[site_of_node (s, n)][a->iasp].generation = p->rec.generation;
  for (unsigned k = 0; k < s->n_sites; k++) {
    struct sim_link *l = &p->link[k];

    if (p->rec.copies[k].in_set) {
      l->ready = false;
      if (l->connected && !l->filling)
        s->store[k][a->iasp].generation = p->rec.generation;
      continue;
    }
    /* It would begin to fill what an operator wants left as it is. */
    if ((p->rec.copies[k].suspended || p->rec.copies[k].detached) && l->node >= 0)
      sim_fail (s, "node %u is told that a copy is out, and not to mirror to it any more later", n + 1);
    /* R3: only a record that covers the event tells its outcome. */
    if (l->ready && a->seq >= l->ready_seq) {
      l->ready = false;
      l->filling = l->connected;
      l->due_ms = s->now_ms + 50;
    }
    if (!l->ready && l->connected && !l->filling) {
      l->filling = true; /* removed though connected: fill again */
      l->due_ms = s->now_ms + 50;
    }
    l->lost_said = l->lost_said && l->ready;
  }
}

static void
start_mirror (struct sim *s, unsigned n, const struct group_action *a)
{
  struct sim_plugin *p = &s->node[n].plugin[a->iasp];
  struct sim_link *l = &p->link[a->site];

  if (!p->running || p->role != HOST_PRODUCTION)
    return;
  if (l->node != (int) a->node - 1)
    l->connected = l->filling = false;
  l->node = (int) a->node - 1;
}

static unsigned
disk_votes (const struct sim *s, const struct crg_state *c)
{
  uint32_t ids[SIM_NODES];
  unsigned n = 0;

  for (unsigned k = 0; k < s->n_nodes; k++)
    if (s->node[k].has_disk && memcmp (s->node[k].disk.lineage, c->lineage, CRG_ID_LEN) == 0
        && stamp_compare (s->node[k].disk.stamp, c->stamp) >= 0)
      ids[n++] = s->node[k].id;
  return state_has_majority (c, ids, n);
}

void
sim_die (struct sim *s, unsigned n)
{
  struct sim_node *node = &s->node[n];

  if (!node->running)
    return;
  /* Some of what it had queued still goes out. */
  while (node->n_out > 0 && sim_random (s, 3) == 0)
    sim_order (s, node);
  node->running = false;
  node->ring = 0;
  node->ring_members = 0;
  node->n_pending = 0;
  sim_drop_queues (node);
  TRACE (s, "n%u dies", n + 1);
}

/* C2, C3: what is said to be on disk is there (H10). */
static void
check_send (struct sim *s, unsigned n, const struct group_action *a)
{
  static struct msg m;
  const struct sim_node *node = &s->node[n];
  const uint8_t *buf = acts.bytes + a->off;

  if (a->len <= 5 || (buf[5] != MSG_PERSISTED && buf[5] != MSG_PROMISED) || msg_decode (&m, buf, a->len) < 0)
    return;
  if (m.h.type == MSG_PROMISED ? m.u.promised.epoch > node->disk_promised
                               : stamp_compare (m.u.persisted.stamp, node->disk.stamp) > 0)
    sim_fail (s, "node %u says what it has on disk, and it has not (H10)", n + 1);
}

static void
do_action (struct sim *s, unsigned n, const struct group_action *a)
{
  struct sim_node *node = &s->node[n];
  struct sim_plugin *p = &node->plugin[a->iasp % SIM_IASPS];
  struct sim_pending later_ev;

  memset (&later_ev, 0, sizeof later_ev);
  later_ev.ev.iasp = a->iasp;
  later_ev.ev.role = a->role;
  later_ev.ev.tenure = a->tenure;
  switch (a->kind) {
  case GA_PERSIST:
    if (group_promised (node->g) < node->disk_promised)
      sim_fail (s, "node %u promises backwards", n + 1);
    node->has_disk = true;
    node->disk = *group_applied (node->g);
    node->disk_promised = group_promised (node->g);
    node->disk_hold_ms = group_hold_ms (node->g);
    break;
  case GA_SEND: {
    struct sim_msg *m;

    check_send (s, n, a);
    if (node->ring == 0 || node->n_out == ARRAY_SIZE (node->out)) {
      sim_fail (s, "node %u: send without a ring, or queue full", n + 1);
      break;
    }
    m = malloc (sizeof *m + a->len);
    if (m == NULL)
      abort ();
    m->refs = 1;
    m->from = node->id;
    m->len = a->len;
    memcpy (m->buf, acts.bytes + a->off, a->len);
    node->out[node->n_out++] = m;
    break;
  }
  case GA_PROBE:
    later_ev.kind = SIM_DO_PROBE;
    later_ev.due_ms = s->now_ms + sim_delay (s, 20);
    sim_later (s, n, later_ev);
    break;
  case GA_HOST:
    TRACE (s, "n%u host iasp %u role %u tenure %" PRIu64, n + 1, a->iasp, a->role, a->tenure);
    if (a->role == HOST_PRODUCTION && !s->wiped
        && !disk_votes (s, group_committed (node->g)))
      sim_fail (s, "node %u is told production without a majority's commit", n + 1);
    later_ev.kind = SIM_DO_HOST;
    later_ev.due_ms = s->now_ms + sim_delay (s, 100);
    sim_later (s, n, later_ev);
    break;
  case GA_RECORD: take_record (s, n, a); break;
  case GA_FENCE:
    TRACE (s, "n%u fences n%u", n + 1, a->node);
    later_ev.kind = SIM_DO_FENCE;
    later_ev.ev.node = a->node;
    later_ev.due_ms = s->now_ms + 100 + sim_delay (s, 2000);
    sim_later (s, n, later_ev);
    break;
  case GA_MIRROR_START: start_mirror (s, n, a); break;
  case GA_UNMIRROR:
    if (p->running && p->role == HOST_PRODUCTION) {
      p->link[a->site].node = -1;
      p->link[a->site].connected = p->link[a->site].filling = false;
    }
    break;
  case GA_LEASE:
    for (unsigned i = 0; i < s->cfg.n_iasps; i++)
      if (state_unit (group_committed (node->g), i) == a->iasp
          && a->until_ms > node->plugin[i].lease_ms)
        node->plugin[i].lease_ms = a->until_ms;
    break;
  case GA_HOLD:
    p->held = p->drain = true;
    break;
  case GA_RESUME:
    p->held = p->drain = false;
    break;
  case GA_CONFIG:
    snprintf (node->config[a->iasp % SIM_IASPS], sizeof node->config[0], "%.*s", (int) a->len,
              (const char *) acts.bytes + a->off);
    break;
  case GA_REPLY:
    node->last_code = a->code;
    snprintf (node->last_reason, sizeof node->last_reason, "%s", a->reason);
    TRACE (s, "n%u reply %d %s", n + 1, a->code, a->reason);
    break;
  case GA_LEAVE:
    TRACE (s, "n%u leaves: %s", n + 1, a->reason);
    node->left = true;
    node->left_kind = a->role;
    break;
  case GA_DOMAIN:
    /* The cluster hears of it: a node that finds itself named joins. */
    for (unsigned k = 0; k < s->n_nodes; k++)
      if (s->node[k].comes && state_node_index (group_committed (node->g), s->node[k].id) >= 0) {
        s->node[k].comes = false;
        s->node[k].restart_ms = s->now_ms + sim_delay (s, 100);
      }
    break;
  default: break;
  }
}

static void
check_commit (struct sim *s, unsigned n)
{
  struct sim_node *node = &s->node[n];
  const struct crg_state *c = group_committed (node->g);
  static uint8_t buf[STATE_ENCODED_MAX];
  struct sim_commit new;
  size_t len;

  if (node->g->serial == node->seen_serial)
    return;
  node->seen_serial = node->g->serial;
  for (unsigned i = 0; i < c->def.n_iasps; i++)
    if (c->rec[i].forced && c->rec[i].tenure > s->forced_tenure[i]) {
      s->forced_tenure[i] = c->rec[i].tenure;
      s->forced_loss[i] = c->rec[i].loss;
    }
  len = state_encode (c, buf, sizeof buf);
  new = (struct sim_commit) { c->stamp, UINT64_C (1469598103934665603), { 0 }, { 0 } };
  for (unsigned u = 0; u < state_units (c); u++) {
    new.tenure[u] = state_unit_tenure (c, u);
    new.host[u] = state_unit_host (c, u);
  }
  for (size_t i = 0; i < len; i++)
    new.hash = (new.hash ^ buf[i]) * UINT64_C (1099511628211);
  TRACE (s, "n%u commits %" PRIu64 ".%" PRIu64 " tenure %" PRIu64 " host %u", n + 1,
         c->stamp.epoch, c->stamp.version, new.tenure[0], new.host[0]);
  for (unsigned i = s->n_commits; i-- > 0;) {
    const struct sim_commit *o = &s->commits[i];
    int cmp = stamp_compare (o->stamp, new.stamp);

    if (cmp == 0) {
      if (o->hash != new.hash)
        sim_fail (s, "node %u commits another content as %" PRIu64 ".%" PRIu64, n + 1,
                  new.stamp.epoch, new.stamp.version);
      return;
    }
    unsigned moved = 0;

    for (unsigned u = 0; u < state_units (c); u++) {
      /* R1: tenure rises exactly when the production host changes. */
      if (o->tenure[u] == new.tenure[u] && o->host[u] != new.host[u])
        sim_fail (s, "two hosts in tenure %" PRIu64 " of unit %u", new.tenure[u], u);
      if ((cmp < 0 && o->tenure[u] > new.tenure[u]) || (cmp > 0 && o->tenure[u] < new.tenure[u]))
        sim_fail (s, "tenure of unit %u goes back", u);
      moved += o->tenure[u] != new.tenure[u];
    }
    /* Fig. 4: resources move one by one. */
    if (o->stamp.epoch == new.stamp.epoch && o->stamp.version + 1 == new.stamp.version && moved > 1)
      sim_fail (s, "%u units moved at once", moved);
  }
  if (s->n_commits == ARRAY_SIZE (s->commits)) {
    memmove (s->commits, s->commits + 1024, (s->n_commits - 1024) * sizeof s->commits[0]);
    s->n_commits -= 1024;
  }
  s->commits[s->n_commits++] = new;
}

static void
run_actions (struct sim *s, unsigned n)
{
  struct sim_node *node = &s->node[n];

  for (unsigned i = 0; i < acts.n && node->running; i++) {
    node->action_count++;
    if (s->kill_ppm > 0 && sim_random (s, 1000000) < s->kill_ppm) {
      sim_die (s, n);
      sim_reform (s);
      node->restart_ms = s->now_ms + 1 + sim_random (s, 3000);
      return;
    }
    if (acts.a[i].kind == GA_PERSIST && node->persist_fails > 0) {
      /* C6: a node whose fsync of the state fails leaves. */
      node->persist_fails--;
      TRACE (s, "n%u persist fails", n + 1);
      sim_die (s, n);
      sim_reform (s);
      node->restart_ms = s->now_ms + 1 + sim_random (s, 3000);
      return;
    }
    do_action (s, n, &acts.a[i]);
  }
  if (!node->running)
    return;
  if (node->g->has_committed)
    check_commit (s, n);
  if (node->left) {
    bool forget = node->left_kind == LEAVE_DELETED || node->left_kind == LEAVE_REMOVED;

    sim_die (s, n);
    sim_reform (s);
    node->left = false;
    if (node->left_kind != LEAVE_AGAIN) {
      /* Its plugins are ended, its state is forgotten or set aside. */
      for (unsigned i = 0; i < s->cfg.n_iasps; i++)
        sim_stop_plugin (s, n, i, true);
      node->has_disk = node->left_kind == LEAVE_DELETED;
      node->gone = node->left_kind == LEAVE_REMOVED;
      node->disk_promised = node->has_disk ? node->disk_promised : 0;
    }
    node->restart_ms = forget ? 0 : s->now_ms + 1 + sim_random (s, 1000);
  }
}
