/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The calendar, the clocks and the dispatch of crgsim's world; see world.h.
 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "common/util.h"
#include "tests/sim/calendar.h"
#include "tests/sim/world.h"

#define TAIL_LINES 40

struct world w;

/* ---- random, hash, failure ------------------------------------------------------------------ */

uint64_t
mix_hash (uint64_t seed, uint64_t n)
{
  uint64_t z = seed * UINT64_C (0x9e3779b97f4a7c15) + n * UINT64_C (0xd1b54a32d192ed03) + 0x2545f491;

  z = (z ^ (z >> 30)) * UINT64_C (0xbf58476d1ce4e5b9);
  z = (z ^ (z >> 27)) * UINT64_C (0x94d049bb133111eb);
  return z ^ (z >> 31);
}

uint64_t
world_random (uint64_t below)
{
  uint64_t z = (w.rng += UINT64_C (0x9e3779b97f4a7c15));

  z = (z ^ (z >> 30)) * UINT64_C (0xbf58476d1ce4e5b9);
  z = (z ^ (z >> 27)) * UINT64_C (0x94d049bb133111eb);
  z ^= z >> 31;
  return below == 0 ? 0 : z % below;
}

bool
chance (unsigned percent)
{
  return world_random (100) < percent;
}

uint64_t
fault_random (uint64_t below)
{
  w.fault_rng = mix_hash (w.fault_rng, 9);
  return below == 0 ? 0 : w.fault_rng % below;
}

static void
hash (uint64_t v)
{
  w.hash = (w.hash ^ v) * UINT64_C (1099511628211);
}

void
world_fail (const char *fmt, ...)
{
  va_list ap;

  if (w.failed)
    return;
  w.failed = true;
  va_start (ap, fmt);
  vsnprintf (w.failure, sizeof w.failure, fmt, ap);
  va_end (ap);
  TRACE ("FAILED: %s", w.failure);
}

static struct {
  char line[TAIL_LINES][440];
  unsigned n;
} tail;

void
world_trace (const char *fmt, ...)
{
  char line[sizeof tail.line[0]];
  va_list ap;
  int n = snprintf (line, sizeof line, "# %6" PRIu64 " %9.3f ", w.st.steps, (double) w.now_us / 1000);

  va_start (ap, fmt);
  vsnprintf (line + n, sizeof line - (size_t) n, fmt, ap);
  va_end (ap);
  if (w.trace)
    puts (line);
  if (w.tail)
    strcpy (tail.line[tail.n++ % TAIL_LINES], line);
}

void
world_print_tail (void)
{
  for (unsigned i = tail.n < TAIL_LINES ? 0 : tail.n - TAIL_LINES; i < tail.n; i++)
    puts (tail.line[i % TAIL_LINES]);
}

/* ---- the calendar --------------------------------------------------------------------------- */

CALENDAR (wev)

struct wev *
after_us (uint64_t us, enum wev_kind kind)
{
  static struct wev spare;
  struct wev e = { .at = w.now_us + us, .order = ++w.order, .kind = (uint8_t) kind };

  if (w.n_heap == W_CALENDAR) {
    world_fail ("the calendar is full");
    return &spare;
  }
  return calendar_add (w.heap, &w.n_heap, e);
}

/* ---- clocks and places ---------------------------------------------------------------------- */

uint64_t
local_ms (unsigned machine)
{
  const struct wmachine *m = &w.machine[machine];
  const int64_t now = (int64_t) ((m->frozen_us ? m->frozen_us : w.now_us) - m->lag_us);

  return (uint64_t) ((now + now * m->ppm / 1000000) / 1000 + m->offset_ms);
}

uint64_t
node_ms (unsigned node)
{
  return local_ms (w.node[node].machine);
}

int
site_of_node (unsigned node)
{
  const unsigned n_hosts = w.mix.n_sites * w.mix.per_site, first_peer = n_hosts + w.mix.n_replicates;

  if (node >= first_peer && node < first_peer + w.mix.n_peers)
    return w.mix.peer_site[node - first_peer];
  return node < n_hosts ? (int) (node / w.mix.per_site) : -1;
}

bool
reaches_store (unsigned node, unsigned iasp)
{
  return site_of_node (node) >= 0 && !(w.mix.no_store[iasp] & 1u << node);
}

/* What has one production host: its number is that of its first IASP. */
unsigned
unit_of (unsigned iasp)
{
  return w.mix.access ? iasp : 0;
}

void
node_boot_id (unsigned node, uint8_t id[CRG_ID_LEN])
{
  unsigned m = w.node[node].machine;

  memset (id, 0, CRG_ID_LEN);
  id[0] = 0xb0;
  id[1] = (uint8_t) m;
  id[2] = w.machine[m].boot;
}

/* ---- set-up --------------------------------------------------------------------------------- */

static void
make_def (struct crg_def *d)
{
  const struct mix *m = &w.mix;

  memset (d, 0, sizeof *d);
  strcpy (d->name, "crg");
  memset (d->cluster_id, 1, CRG_ID_LEN);
  memset (d->id, 2, CRG_ID_LEN);
  d->placement = m->access ? PLACEMENT_ACCESS : PLACEMENT_SITE;
  d->takeover = m->takeover;
  d->suspend_timeout_ms = m->suspend_ms;
  d->no_quorum_timeout_ms = m->no_quorum_ms;
  d->n_sites = (uint8_t) m->n_sites;
  d->n_nodes = (uint8_t) w.n_nodes;
  d->n_iasps = (uint8_t) m->n_iasps;
  for (unsigned i = 0; i < m->n_sites; i++)
    snprintf (d->sites[i], sizeof d->sites[i], "site%u", i);
  for (unsigned i = 0; i < w.n_nodes; i++) {
    struct domain_node *n = &d->nodes[i];
    int site = site_of_node (i);

    n->id = i + 1;
    snprintf (n->name, sizeof n->name, "n%u", i + 1);
    n->site = site < 0 ? NO_SITE : (uint8_t) site;
    n->preferred_role = site < 0                  ? MEMBER_REPLICATE
                        : m->peers & 1u << i      ? MEMBER_PEER
                        : i == 0                  ? MEMBER_PRIMARY
                                                  : MEMBER_BACKUP;
    n->votes = n->new_votes = m->votes[i] != 0 ? m->votes[i] : 1;
    n->order = n->preferred_order = (uint8_t) i;
    n->n_addresses = 1;
    snprintf (n->addresses[0], sizeof n->addresses[0], "127.0.0.%u", i + 1);
  }
  for (unsigned i = 0; i < m->n_iasps; i++) {
    struct iasp_def *x = &d->iasps[i];

    snprintf (x->name, sizeof x->name, "iasp%u", i);
    memset (x->id, 10 + (int) i, CRG_ID_LEN);
    x->size = W_SIZE;
    x->dirty_block = W_BLOCK;
    x->mirror_port = (uint16_t) (10810 + i);
    strcpy (x->export, "unix:");
    for (unsigned n = 0; n < w.n_nodes; n++)
      if (reaches_store (n, i))
        snprintf (x->store[n], sizeof x->store[n], "/s%u", i);
    memcpy (x->order, m->order[i], sizeof m->order[i]);
  }
}

void
world_ids (unsigned iasp, uint8_t cluster_id[CRG_ID_LEN], uint8_t crg_id[CRG_ID_LEN], uint8_t iasp_id[CRG_ID_LEN])
{
  memset (cluster_id, 1, CRG_ID_LEN);
  memset (crg_id, 2, CRG_ID_LEN);
  memset (iasp_id, 10 + (int) iasp, CRG_ID_LEN);
}

/* As server/probe.c formats it for `create`. */
void
world_super (struct superblock *sb, unsigned site, unsigned iasp, const uint8_t lineage[CRG_ID_LEN])
{
  const bool production = site == w.created.rec[iasp].production_site;

  memset (sb, 0, sizeof *sb);
  sb->sequence = 1;
  sb->site = (uint8_t) site;
  sb->role = SUPER_ROLE_NONE;
  memset (sb->store_id, 20 + (int) (site * W_IASPS + iasp), CRG_ID_LEN);
  world_ids (iasp, sb->cluster_id, sb->crg_id, sb->iasp_id);
  memcpy (sb->lineage, lineage, CRG_ID_LEN);
  strcpy (sb->crg, "crg");
  snprintf (sb->iasp, sizeof sb->iasp, "iasp%u", iasp);
  snprintf (sb->site_name, sizeof sb->site_name, "site%u", site);
  sb->flags = production ? SUPER_F_CLEAN : SUPER_F_CLEAN | SUPER_F_UNUSABLE;
  if (mix_hash (w.seed, 1000 + site * W_IASPS + iasp) % 3 < 2) /* it was emptied */
    sb->flags |= SUPER_F_WRITTEN;
  sb->store_bytes = meta_store_bytes_for (W_SIZE, W_BLOCK);
  sb->data_bytes = W_SIZE;
  sb->block_size = 512;
  sb->dirty_block_size = W_BLOCK;
  sb->tenure = 1;
  sb->generation = 1;
  sb->since = production ? 1 : 0;
}

void
world_init (uint64_t seed, uint64_t history, const struct mix *m)
{
  static const uint8_t lineage[CRG_ID_LEN] = { 7 };
  static struct crg_def def;
  const bool trace = w.trace;
  const char *why;

  /* All but the pools, which are void without a reference. */
  w.n_heap = 0;
  tail.n = 0;
  if (history > 0)
    seed = mix_hash (seed, 5000 + history);
  w.rng = mix_hash (seed, 1);
  w.fault_rng = mix_hash (seed, 2);
  w.seed = seed;
  w.now_us = MS (100000);
  w.order = 0;
  w.hash = UINT64_C (1469598103934665603);
  w.mix = *m;
  w.failed = w.healing = w.quiet = w.wiped = w.votes_changed = w.has_top = false;
  w.trace = trace;
  w.failure[0] = '\0';
  memset (&w.st, 0, sizeof w.st);
  w.lives = w.conn_ids = w.ctl_ids = w.n_fences = 0;
  memset (w.fence, 0, sizeof w.fence);
  w.rings = 0;
  w.reform_pending = false;
  w.msg_next = w.frame_next = w.dop_next = 0;
  w.n_commits = 0;
  memset (w.unserved, 0, sizeof w.unserved);
  w.partitioned_us = 0;
  memset (w.machine, 0, sizeof w.machine);
  for (unsigned i = 0; i < W_MSGS; i++)
    w.msg[i].refs = 0;
  for (unsigned i = 0; i < W_FRAMES; i++)
    w.frame[i].used = false;
  for (unsigned i = 0; i < W_DOPS; i++)
    w.dop[i].used = false;
  for (unsigned i = 0; i < W_CONNS; i++)
    w.conn[i].used = false;
  memset (w.client, 0, sizeof w.client);
  memset (w.client_at, 0, sizeof w.client_at);
  memset (w.next_stamp, 0, sizeof w.next_stamp);
  memset (w.floor, 0, sizeof w.floor);
  memset (w.ffloor, 0, sizeof w.ffloor);
  memset (w.top_tenure, 0, sizeof w.top_tenure);
  memset (w.loss, 0, sizeof w.loss);
  memset (w.tenure_stamp, 0, sizeof w.tenure_stamp);
  memset (w.link_slow_us, 0, sizeof w.link_slow_us);
  memset (w.control_slow_us, 0, sizeof w.control_slow_us);
  memset (w.epochs, 0, sizeof w.epochs);
  memcpy (w.lineage, lineage, CRG_ID_LEN);
  w.n_recovered = 0;
  w.past = 0;
  w.named = w.left = w.off = w.stay_off = 0;
  memset (w.recovered_loss, 0, sizeof w.recovered_loss);
  memset (w.recovered_kept, 0, sizeof w.recovered_kept);
  memset (w.may_differ, 1, sizeof w.may_differ);

  w.n_nodes = nodes_of_mix (m);
  make_def (&def);
  why = state_create (&w.created, &def, lineage);
  if (why != NULL)
    world_fail ("create: %s", why);
  w.created.started = true;
  w.n_machines = w.n_nodes;
  for (unsigned n = 0; n < W_NODES; n++) { /* also of those that are added later */
    memset (&w.node[n], 0, offsetof (struct wnode, plugin));
    for (unsigned i = 0; i < W_IASPS; i++)
      memset (&w.node[n].plugin[i], 0, offsetof (struct wplugin, core));
  }
  for (unsigned n = 0; n < w.n_nodes; n++) {
    struct wnode *x = &w.node[n];
    int site = site_of_node (n);

    x->id = n + 1;
    x->machine = (uint8_t) (m->one_machine && site >= 0 ? (unsigned) site * m->per_site : n);
    x->has_state = true; /* `create` has reached all: (1, 0) is on every disk */
    x->state = w.created;
    x->promised = 1;
    w.reach[n] = W_REACH_ALL;
    w.machine[n].up = true;
    w.machine[n].frozen_us = w.machine[n].lag_us = w.machine[n].old_lease_ms = 0;
    w.machine[n].boot = 1;
    w.machine[n].offset_ms = (int64_t) world_random (1000000);
    w.machine[n].ppm = (int32_t) world_random (40000) - 20000;
    for (unsigned i = 0; i < W_IASPS; i++) {
      struct wplugin *p = &x->plugin[i];

      p->node = (uint8_t) n;
      p->iasp = (uint8_t) i;
      p->site = (uint8_t) (site < 0 ? 0 : site);
    }
  }
  for (unsigned s = 0; s < m->n_sites; s++)
    for (unsigned i = 0; i < m->n_iasps; i++) {
      struct superblock sb;

      world_super (&sb, s, i, lineage);
      disk_init (&w.disk[s][i], &sb);
    }
  for (unsigned n = 0; n < w.n_nodes; n++) {
    struct wev *e = after_us (world_random (chance (70) ? MS (300) : MS (3000)), EV_BOOT);

    e->node = (uint8_t) n;
  }
  for (unsigned i = 0; i < m->n_iasps; i++)
    for (unsigned k = 0; k < W_SLOTS; k++) {
      struct wev *e = after_us (world_random (MS (2000)), EV_CLIENT);

      e->iasp = (uint8_t) i;
      e->a = k;
    }
  after_us (MS (500) + MS (fault_gap_ms (0)), EV_FAULT)->a = 0;
}

/* ---- one step ------------------------------------------------------------------------------- */

static void
dispatch (const struct wev *e)
{
  struct wnode *n = &w.node[e->node];
  struct wplugin *p = &n->plugin[e->iasp];
  struct wconn *c;

  switch ((enum wev_kind) e->kind) {
  case EV_ORDER:
    if (n->running && n->life == e->life)
      ring_order (e->node);
    break;
  case EV_DELIVER:
    if (n->running && n->life == e->life)
      ring_deliver (e->node);
    break;
  case EV_REFORM:
    ring_reform ();
    break;
  case EV_TICK:
    if (n->running && n->life == e->life)
      crgd_tick (e->node);
    break;
  case EV_CTL_DOWN:
    if (p->running && p->life == e->life)
      plugin_command (p);
    break;
  case EV_CTL_UP:
    if (n->running && n->life == e->life)
      sup_message (e->node, e->iasp);
    break;
  case EV_CTL_BREAK:
    if (n->running && n->life == e->life)
      sup_break (e->node, e->iasp);
    break;
  case EV_CTL_LOST:
    if (n->running && n->life == e->life)
      sup_lost (e->node, e->iasp, e->a);
    break;
  case EV_SUP:
    if (n->running && n->life == e->life)
      sup_timer (e->node, e->iasp);
    break;
  case EV_PROBED:
    if (n->running && n->life == e->life)
      crgd_probed (e->node, e->iasp);
    break;
  case EV_PTICK:
    if (p->running && p->life == e->life)
      plugin_tick (p);
    break;
  case EV_DISK:
    disk_done (e->a);
    break;
  case EV_FWD:
  case EV_BACK:
    c = net_conn (e->a);
    if (c != NULL)
      net_deliver (c, e->kind == EV_FWD);
    break;
  case EV_DRAIN:
    c = net_conn (e->a);
    if (c != NULL)
      prod_drained (c, e->b);
    break;
  case EV_CLOSED:
    c = net_conn (e->a);
    if (c != NULL)
      net_end_closed (c, e->end);
    break;
  case EV_CLIENT:
    client_wake (e->iasp, e->a, e->b);
    break;
  case EV_FAULT:
    if (w.healing)
      break;
    fault_do (e->a);
    after_us (MS (fault_gap_ms (e->a + 1)), EV_FAULT)->a = e->a + 1;
    break;
  case EV_UNDO:
    fault_undo (e);
    break;
  case EV_FENCE:
    fence_event (e);
    break;
  case EV_BOOT:
    crgd_boot (e->node);
    break;
  case EV_FORGET:
    if (n->running && n->life == e->life)
      crgd_forget (e->node);
    break;
  default:
    break;
  }
}

bool
world_step (void)
{
  struct wev e;

  if (w.failed)
    return false;
  if (w.n_heap == 0) {
    world_fail ("nothing happens any more");
    return false;
  }
  e = calendar_take (w.heap, &w.n_heap);
  w.now_us = e.at;
  w.st.steps++;
  w.st.ev[e.kind]++;
  hash (e.at ^ (uint64_t) e.kind << 56 ^ (uint64_t) e.node << 48 ^ (uint64_t) e.iasp << 40 ^ e.a);
  dispatch (&e);
  check_step ();
  return !w.failed;
}
