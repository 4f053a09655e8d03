/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The simulated cluster: its set-up, its machines and its loop; see cluster.h.
 * One thread; allocates for itself, the cores it drives never do.
 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/util.h"
#include "tests/sim/cluster_private.h"

uint64_t
sim_random (struct sim *s, uint64_t below)
{
  uint64_t z = (s->rng += UINT64_C (0x9e3779b97f4a7c15));

  z = (z ^ (z >> 30)) * UINT64_C (0xbf58476d1ce4e5b9);
  z = (z ^ (z >> 27)) * UINT64_C (0x94d049bb133111eb);
  z ^= z >> 31;
  return below == 0 ? 0 : z % below;
}

void
sim_fail (struct sim *s, const char *fmt, ...)
{
  va_list args;

  if (s->failed)
    return;
  s->failed = true;
  va_start (args, fmt);
  vsnprintf (s->failure, sizeof s->failure, fmt, args);
  va_end (args);
}

unsigned
sim_delay (struct sim *s, unsigned max_ms)
{
  return s->cfg.calm ? 1 : 1 + (unsigned) sim_random (s, max_ms);
}

/* ---- set-up --------------------------------------------------------------- */

static void
make_def (const struct sim *s, struct crg_def *d)
{
  const struct sim_config *c = &s->cfg;

  memset (d, 0, sizeof *d);
  strcpy (d->name, "crg");
  memset (d->cluster_id, 1, CRG_ID_LEN);
  memset (d->id, 2, CRG_ID_LEN);
  d->takeover = c->takeover;
  d->placement = c->access ? PLACEMENT_ACCESS : PLACEMENT_SITE;
  d->suspend_timeout_ms = 10000;
  d->n_sites = (uint8_t) c->n_sites;
  d->n_nodes = (uint8_t) s->n_nodes;
  d->n_iasps = (uint8_t) c->n_iasps;
  for (unsigned i = 0; i < c->n_sites; i++)
    snprintf (d->sites[i], sizeof d->sites[i], "site%u", i);
  for (unsigned i = 0; i < s->n_nodes; i++) {
    struct domain_node *n = &d->nodes[i];
    int site = site_of_node (s, i);

    n->id = i + 1;
    snprintf (n->name, sizeof n->name, "n%u", i + 1);
    n->site = site < 0 ? NO_SITE : (uint8_t) site;
    n->preferred_role = site < 0 ? MEMBER_REPLICATE : i == 0 ? MEMBER_PRIMARY : MEMBER_BACKUP;
    n->votes = c->votes[i] != 0 ? c->votes[i] : 1;
    n->order = n->preferred_order = (uint8_t) i;
    n->n_addresses = 1;
    snprintf (n->addresses[0], sizeof n->addresses[0], "127.0.0.%u", i + 1);
  }
  for (unsigned i = 0; i < c->n_iasps; i++) {
    snprintf (d->iasps[i].name, sizeof d->iasps[i].name, "iasp%u", i);
    memset (d->iasps[i].id, 10 + (int) i, CRG_ID_LEN);
    /* Each is preferred elsewhere. */
    for (unsigned k = 0; k < s->n_nodes && c->access; k++)
      d->iasps[i].order[k] = (uint8_t) ((k + (s->n_nodes - i % s->n_nodes)) % s->n_nodes);
    if (is_script (s, i)) {
      d->iasps[i].type = RES_SCRIPT;
      strcpy (d->iasps[i].agent, "/agent");
      d->iasps[i].timeout_ms = 1000;
      continue;
    }
    d->iasps[i].size = 1 << 20;
    d->iasps[i].dirty_block = 65536;
    d->iasps[i].mirror_port = (uint16_t) (10810 + i);
    strcpy (d->iasps[i].export, "unix:");
    for (unsigned k = 0; k < s->n_nodes; k++)
      if (site_of_node (s, k) >= 0 && !(c->no_store[i] & (1u << k)))
        strcpy (d->iasps[i].store[k], "/store");
  }
}

void
sim_init (struct sim *s, const struct sim_config *cfg, uint64_t seed)
{
  static const uint8_t lineage[CRG_ID_LEN] = { 7 };
  struct crg_def def;
  const char *why;

  memset (s, 0, sizeof *s);
  s->cfg = *cfg;
  s->rng = seed * 7919 + 1;
  s->now_ms = 100000;
  s->n_nodes = cfg->n_sites * cfg->nodes_per_site + cfg->n_replicates;
  s->ring_counter = 1;
  s->n_sites = cfg->n_sites;
  for (unsigned n = 0; n < SIM_NODES; n++)
    s->site[n] = n < cfg->n_sites * cfg->nodes_per_site ? (int) (n / cfg->nodes_per_site) : -1;
  make_def (s, &def);
  why = state_create (&s->created, &def, lineage);
  if (why != NULL)
    sim_fail (s, "create: %s", why);
  s->created.started = cfg->started;
  for (unsigned n = 0; n < s->n_nodes; n++) {
    struct sim_node *node = &s->node[n];

    node->id = n + 1;
    node->machine_up = true;
    node->boot = 1;
    node->last_code = -1;
    node->g = calloc (1, group_sizeof ());
    node->offset_ms = cfg->calm ? 0 : (int64_t) sim_random (s, 1000000);
    node->ppm = cfg->calm ? 0 : (int32_t) sim_random (s, 40000) - 20000;
    /* `create` has reached all: (1, 0) is on every disk. */
    node->has_disk = true;
    node->disk = s->created;
    node->disk_promised = 1;
  }
  for (unsigned site = 0; site < SIM_SITES; site++)
    for (unsigned i = 0; i < SIM_IASPS; i++) {
      struct sim_store *st = &s->store[site][i];

      st->open_by = st->machine = -1;
      memcpy (st->lineage, lineage, CRG_ID_LEN);
      st->clean = true;
      /* As `create` formats them. */
      st->has_super = true;
      st->unusable = site != s->created.rec[i].production_site;
      st->generation = 1;
    }
}

void
sim_destroy (struct sim *s)
{
  for (unsigned n = 0; n < s->n_nodes; n++) {
    sim_drop_queues (&s->node[n]);
    free (s->node[n].in);
    free (s->node[n].g);
  }
}

/* ---- nodes ---------------------------------------------------------------- */

void
sim_boot (struct sim *s, unsigned n)
{
  struct sim_node *node = &s->node[n];
  struct group_config cfg;

  if (node->running || !node->machine_up || node->gone || node->comes)
    return;
  memset (&cfg, 0, sizeof cfg);
  cfg.node_id = node->id;
  cfg.incarnation = ++node->incarnation * 1000 + node->id;
  cfg.token_ms = s->cfg.token_ms;
  cfg.lease_ms = s->cfg.node_lease_ms[n] ? s->cfg.node_lease_ms[n] : s->cfg.lease_ms;
  cfg.hold_ms = node->disk_hold_ms;
  cfg.can_fence = s->cfg.fence;
  cfg.start_wait_ms = s->cfg.start_wait_ms;
  cfg.boot_id[0] = (uint8_t) boot_of (s, n);
  cfg.boot_id[1] = (uint8_t) machine_of (s, n);
  group_init (node->g, &cfg, node->has_disk ? &node->disk : NULL, node->disk_promised,
              local_ms (s, node));
  node->running = true;
  node->paused = node->mute = false;
  node->restart_ms = 0;
  node->seen_serial = 0;
  node->ring = 0;
  TRACE (s, "n%u boots", n + 1);
  for (unsigned i = 0; i < s->cfg.n_iasps; i++) {
    struct sim_plugin *p = &node->plugin[i];

    if (!p->running)
      continue;
    /* S3: adopt, or end. */
    if (s->cfg.always_adopts || sim_random (s, 2) == 0) {
      struct sim_pending found = { .kind = SIM_DO_ADOPT,
                                   .ev = { .iasp = (uint8_t) i, .role = p->role, .tenure = p->tenure } };

      /* Its status may be known only when its role was asked for already. */
      p->found = true;
      found.due_ms = s->now_ms + (s->cfg.adopt_ms ? s->cfg.adopt_ms : sim_delay (s, 20 << sim_random (s, 8)));
      sim_later (s, n, found);
    } else
      sim_stop_plugin (s, n, i, false);
  }
  sim_reform (s);
}

void
sim_kill (struct sim *s, unsigned n)
{
  sim_die (s, n);
  sim_reform (s);
}

void
sim_kill_plugin (struct sim *s, unsigned n, unsigned iasp)
{
  struct group_event ev = { .kind = GE_HOSTED, .iasp = (uint8_t) iasp, .role = HOST_NONE };
  struct sim_node *node = &s->node[n];

  if (!s->node[n].plugin[iasp].running)
    return;
  /* For good, so whatever it was to become is given up with it. */
  for (unsigned k = node->n_pending; k-- > 0;)
    if (node->pending[k].kind == SIM_DO_HOST && node->pending[k].ev.iasp == iasp
        && node->pending[k].ev.role != HOST_NONE) {
      memmove (node->pending + k, node->pending + k + 1,
               (node->n_pending - k - 1) * sizeof node->pending[0]);
      node->n_pending--;
    }
  sim_stop_plugin (s, n, iasp, false);
  strcpy (ev.reason, "the plugin died");
  sim_feed (s, n, &ev);
}

void
sim_kill_plugins (struct sim *s, unsigned n)
{
  for (unsigned i = 0; i < s->cfg.n_iasps; i++)
    sim_kill_plugin (s, n, i);
}

void
sim_leave (struct sim *s, unsigned n)
{
  sim_die (s, n);
  for (unsigned i = 0; i < s->cfg.n_iasps; i++)
    sim_stop_plugin (s, n, i, false);
  sim_reform (s);
}

/* What the machine had in its caches is gone. */
static void
lose_caches (struct sim *s, unsigned n)
{
  for (unsigned site = 0; site < s->cfg.n_sites; site++)
    for (unsigned i = 0; i < s->cfg.n_iasps; i++) {
      struct sim_store *st = &s->store[site][i];

      if (st->machine != machine_of (s, n) || st->data == st->flushed)
        continue;
      st->data = st->flushed + (s->cfg.calm ? 0 : sim_random (s, st->data - st->flushed + 1));
      st->flushed = st->data;
      st->lost = st->lost || st->data < s->acked[i];
    }
}

void
sim_power_off (struct sim *s, unsigned n)
{
  sim_leave (s, n);
  lose_caches (s, n);
  s->node[n].machine_up = false;
  s->node[n].restart_ms = 0;
  s->node[n].boot++;
}

void
sim_power_on (struct sim *s, unsigned n)
{
  s->node[n].machine_up = true;
  sim_boot (s, n);
}

void
sim_pause (struct sim *s, unsigned n, bool paused)
{
  s->node[n].paused = paused;
}

void
sim_part (struct sim *s, const unsigned part[SIM_NODES])
{
  for (unsigned n = 0; n < s->n_nodes; n++)
    s->node[n].part = part[n];
  sim_reform (s);
}

void
sim_heal (struct sim *s)
{
  static const unsigned one[SIM_NODES];

  sim_part (s, one);
}

void
sim_mute (struct sim *s, unsigned n, bool mute)
{
  s->node[n].mute = mute;
}

void
sim_store_fails (struct sim *s, unsigned n, unsigned iasp)
{
  struct sim_plugin *p = &s->node[n].plugin[iasp];

  if (p->running)
    p->broken = p->broken_say = true;
}

void
sim_wipe (struct sim *s, unsigned n)
{
  sim_kill (s, n);
  s->node[n].has_disk = false;
  s->node[n].disk_promised = 0;
  s->node[n].disk_hold_ms = 0;
  s->wiped = true;
}

/* ---- the loop ------------------------------------------------------------- */

static void
deliver_one (struct sim *s, unsigned n)
{
  struct sim_node *node = &s->node[n];
  struct sim_in in = node->in[0];
  struct group_event ev = { .kind = GE_MSG };

  memmove (node->in, node->in + 1, (node->n_in - 1) * sizeof node->in[0]);
  node->n_in--;
  if (in.msg == NULL) {
    ev.kind = GE_VIEW;
    ev.view = in.ring;
    for (unsigned k = 0; k < s->n_nodes; k++)
      if (in.members & (1u << k))
        ev.members[ev.n_members++] = s->node[k].id;
    sim_feed (s, n, &ev);
    return;
  }
  if (in.ring == node->ring)
    node->delivered = in.seq;
  ev.from = in.msg->from;
  ev.buf = in.msg->buf;
  ev.len = in.msg->len;
  sim_feed (s, n, &ev);
  sim_msg_unref (in.msg);
}

static void
run_pending (struct sim *s, unsigned n)
{
  struct sim_node *node = &s->node[n];

  for (unsigned i = 0; i < node->n_pending && !node->paused && node->running; i++) {
    struct sim_pending p = node->pending[i];

    if (p.due_ms > s->now_ms)
      continue;
    memmove (node->pending + i, node->pending + i + 1,
             (node->n_pending - i - 1) * sizeof node->pending[0]);
    node->n_pending--;
    if (p.kind == SIM_DO_FENCE)
      sim_do_fence (s, n, &p.ev);
    else if (p.kind == SIM_DO_ADOPT)
      sim_is_known (s, n, &p.ev);
    else if (p.kind == SIM_DO_PROBE)
      sim_do_probe (s, n, &p.ev);
    else
      sim_do_host (s, n, &p.ev);
    i = (unsigned) -1; /* the list may have changed: once more */
  }
}

static uint64_t
next_due (const struct sim *s)
{
  uint64_t next = s->now_ms + 250;

  for (unsigned n = 0; n < s->n_nodes; n++) {
    const struct sim_node *node = &s->node[n];
    uint64_t local, tick;

    if (node->restart_ms != 0)
      next = MIN (next, node->restart_ms);
    if (!node->running || node->paused)
      continue;
    for (unsigned i = 0; i < node->n_pending; i++)
      next = MIN (next, node->pending[i].due_ms);
    local = local_ms (s, node);
    tick = group_next_tick_ms (node->g);
    next = MIN (next, s->now_ms + (tick > local ? tick - local : 1));
  }
  return next > s->now_ms ? next : s->now_ms + 1;
}

/* What the group of all crgds tells each of them: that it was removed while it
 * was away, or that it was added. */
static void
tell_cluster (struct sim *s)
{
  for (unsigned a = 0; a < s->n_nodes; a++) {
    const struct crg_state *c = s->node[a].running && !s->node[a].paused
                                  ? group_committed (s->node[a].g) : NULL;

    for (unsigned b = 0; c != NULL && b < s->n_nodes; b++) {
      struct sim_node *node = &s->node[b];

      if (node->part != s->node[a].part || a == b)
        continue;
      if (node->comes && state_node_index (c, node->id) >= 0) {
        node->comes = false;
        node->restart_ms = s->now_ms + 1;
      }
      if (!node->running || node->paused || !node->g->has_state
          || memcmp (node->g->applied.lineage, c->lineage, CRG_ID_LEN) != 0
          || c->domain <= node->g->applied.domain || state_node_index (c, node->id) >= 0)
        continue;
      sim_die (s, b);
      for (unsigned i = 0; i < s->cfg.n_iasps; i++)
        sim_stop_plugin (s, b, i, true);
      node->gone = true;
      node->has_disk = false;
      sim_reform (s);
    }
  }
}

static void
pass_time (struct sim *s)
{
  s->now_ms = s->cfg.calm ? next_due (s)
                          : MIN (next_due (s), s->now_ms + 1 + sim_random (s, 40));
  sim_data_step (s);
  tell_cluster (s);
  for (unsigned n = 0; n < s->n_nodes; n++) {
    struct sim_node *node = &s->node[n];

    if (node->restart_ms != 0 && s->now_ms >= node->restart_ms) {
      node->restart_ms = 0;
      sim_boot (s, n);
    }
    if (!node->running || node->paused)
      continue;
    run_pending (s, n);
    if (node->running && local_ms (s, node) >= group_next_tick_ms (node->g)) {
      struct group_event ev = { .kind = GE_TICK };
      sim_feed (s, n, &ev);
    }
  }
}

bool
sim_step (struct sim *s)
{
  unsigned busy[2 * SIM_NODES], n_busy = 0, pick;

  if (s->failed)
    return false;
  s->steps++;
  for (unsigned n = 0; n < s->n_nodes; n++) {
    if (s->node[n].running && !s->node[n].paused && s->node[n].n_in > 0)
      busy[n_busy++] = n;
    /* What can't be sent piles up; then the cut is over. */
    if (s->node[n].n_out > ARRAY_SIZE (s->node[n].out) / 2)
      s->node[n].mute = false;
    if (s->node[n].running && s->node[n].n_out > 0 && !s->node[n].mute)
      busy[n_busy++] = SIM_NODES + n;
  }
  /* Each unit's host renews its lease: three units say three times as much. */
  if (n_busy == 0 || (!s->cfg.calm && sim_random (s, s->cfg.access ? 60 : 20) == 0)) {
    pass_time (s);
    return !s->failed;
  }
  pick = busy[sim_random (s, n_busy)];
  if (pick < SIM_NODES)
    deliver_one (s, pick);
  else
    sim_order (s, &s->node[pick - SIM_NODES]);
  return !s->failed;
}

void
sim_run (struct sim *s, uint64_t ms)
{
  uint64_t until = s->now_ms + ms;

  while (s->now_ms < until && sim_step (s))
    ;
}

bool
sim_until (struct sim *s, bool (*done) (struct sim *), uint64_t ms)
{
  uint64_t until = s->now_ms + ms, last = 0;

  while (s->now_ms < until && sim_step (s))
    if (s->now_ms != last) {
      last = s->now_ms;
      if (done (s))
        return true;
    }
  return !s->failed && done (s);
}

void
sim_quiesce (struct sim *s)
{
  bool busy = true;

  for (unsigned i = 0; busy && i < 1000000 && !s->failed; i++) {
    uint64_t next;

    busy = false;
    for (unsigned n = 0; n < s->n_nodes; n++)
      busy = busy || (s->node[n].running && (s->node[n].n_in > 0 || s->node[n].n_out > 0))
             || s->node[n].n_pending > 0;
    next = s->now_ms;
    if (busy)
      sim_step (s);
    (void) next;
  }
}

/* ---- what can be seen ----------------------------------------------------- */

int
sim_production (struct sim *s, unsigned iasp)
{
  for (unsigned n = 0; n < s->n_nodes; n++)
    if (sim_has_lease (s, n, iasp) && !s->node[n].plugin[iasp].held)
      return (int) n;
  return -1;
}

/* Has the copy's host got message 6 of the one that is production now (H6)? */
static bool
is_told (const struct sim *s, uint32_t copy, unsigned production, unsigned iasp)
{
  const struct hosting *h = &s->node[copy - 1].g->host[iasp];

  return copy == production + 1
         || (h->start_node == production + 1
             && h->start_incarnation == s->node[production].g->cfg.incarnation);
}

bool
sim_converged (struct sim *s)
{
  const struct crg_state *first = NULL;

  for (unsigned n = 0; n < s->n_nodes; n++) {
    const struct group *g = s->node[n].g;

    if (!s->node[n].running)
      continue;
    if (s->node[n].paused || !group_active (g))
      return false;
    if (first == NULL)
      first = &g->committed;
    if (stamp_compare (first->stamp, g->committed.stamp) != 0)
      return false;
  }
  if (first == NULL)
    return false;
  for (unsigned i = 0; i < s->cfg.n_iasps; i++) {
    const int production = sim_production (s, i);

    if (production < 0)
      return false;
    for (unsigned site = 0; site < s->n_sites && !is_script (s, i); site++) {
      uint32_t host = first->rec[i].copies[site].host;
      bool any = false;

      for (unsigned n = 0; n < s->n_nodes; n++)
        any = any || (s->node[n].running && site_of_node (s, n) == (int) site && sim_reaches (s, n, i));
      if (!any)
        continue;
      if (host == NO_NODE || !first->rec[i].copies[site].in_set
          || !s->node[host - 1].plugin[i].running || !s->node[host - 1].running
          || !is_told (s, host, (unsigned) production, i))
        return false;
    }
  }
  return true;
}

void
sim_dump (struct sim *s)
{
  printf ("# at %" PRIu64 " ms, %" PRIu64 " steps: %s\n", s->now_ms, s->steps, s->failure);
  for (unsigned n = 0; n < s->n_nodes; n++) {
    struct sim_node *node = &s->node[n];
    static struct group_status st;

    if (!node->running) {
      printf ("# n%u down, disk %" PRIu64 ".%" PRIu64 " promised %" PRIu64 "\n", n + 1,
              node->disk.stamp.epoch, node->disk.stamp.version, node->disk_promised);
      continue;
    }
    group_status (node->g, local_ms (s, node), &st);
    printf ("# n%u%s part %u ring %" PRIu64 " view %" PRIu64 " round %" PRIu64
            " phase %d cond %d applied %" PRIu64 ".%" PRIu64 " committed %" PRIu64 ".%" PRIu64
            " promised %" PRIu64 " in %u out %u: %s\n",
            n + 1, node->paused ? " PAUSED" : "", node->part, node->ring, st.view, st.round,
            (int) st.phase, (int) st.condition, st.applied.epoch, st.applied.version,
            st.committed.epoch, st.committed.version, st.promised, node->n_in, node->n_out,
            st.wait_reason);
    for (unsigned i = 0; i < s->cfg.n_iasps; i++) {
      const struct iasp_rec *r = &node->g->committed.rec[i];
      const struct hosting *h = &node->g->host[i];

      printf ("#    iasp %u: told %u pending %d open %d failed %d probed %d can %d gen %" PRIu64
              " unusable %d restarted %d '%s'; plugin run %d role %u held %d\n",
              i, h->told_role, h->pending, h->open, h->failed, h->probed, h->store.can_host,
              h->store.generation, h->store.unusable, h->store.restarted, h->reason,
              node->plugin[i].running, node->plugin[i].role, node->plugin[i].held);
      printf ("#      rec tenure %" PRIu64 " gen %" PRIu64 " site %u:", r->tenure, r->generation,
              r->production_site);
      for (unsigned k = 0; k < s->n_sites; k++)
        printf (" [host %u %s since %" PRIu64 "%s lost %d ready %d told %u]", r->copies[k].host,
                r->copies[k].in_set ? "in" : "out", r->copies[k].since,
                r->copies[k].barred ? " barred" : "", h->link[k].lost, h->link[k].ready,
                h->link[k].told_node);
      printf ("\n");
    }
  }
  for (unsigned k = 0; k < s->n_sites; k++)
    for (unsigned i = 0; i < s->cfg.n_iasps; i++)
      printf ("# store %u/%u: open by %d clean %d unusable %d gen %" PRIu64 " data %" PRIu64
              " (answered %" PRIu64 ")\n",
              k, i, s->store[k][i].open_by + 1, s->store[k][i].clean, s->store[k][i].unusable,
              s->store[k][i].generation, s->store[k][i].data, s->acked[i]);
}
