/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The simulated cluster; see cluster.h.  One thread; allocates for itself,
 * the cores it drives never do.
 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <assert.h>
#include <string.h>

#include "server/bytes.h"
#include "common/util.h"
#include "tests/sim/cluster.h"

static struct group_actions acts; /* one step at a time */

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

#define TRACE(s, ...)                                      \
  do {                                                     \
    if ((s)->trace) {                                      \
      printf ("# %8" PRIu64 " ", (s)->now_ms);             \
      printf (__VA_ARGS__);                                \
      printf ("\n");                                       \
    }                                                      \
  } while (0)

static uint64_t
local_ms (const struct sim *s, const struct sim_node *n)
{
  return (uint64_t) ((int64_t) s->now_ms + n->offset_ms
                     + (int64_t) s->now_ms * n->ppm / 1000000);
}

static unsigned
delay (struct sim *s, unsigned max_ms)
{
  return s->cfg.calm ? 1 : 1 + (unsigned) sim_random (s, max_ms);
}

static int
site_of_node (const struct sim *s, unsigned n)
{
  return s->site[n];
}

static bool
is_script (const struct sim *s, unsigned iasp)
{
  return (s->cfg.scripts & (1u << iasp)) != 0;
}

/* access(R), as far as the machine goes. */
static bool
reaches (const struct sim *s, unsigned n, unsigned iasp)
{
  return site_of_node (s, n) >= 0 && !(s->cfg.no_store[iasp] & (1u << n))
         && !(s->node[n].jams & (1u << iasp));
}

static int
machine_of (const struct sim *s, unsigned n)
{
  return s->cfg.one_machine ? 0 : (int) n;
}

static uint64_t
boot_of (const struct sim *s, unsigned n)
{
  return s->cfg.one_machine ? 1 : s->node[n].boot;
}

/* ---- set-up ------------------------------------------------------------- */

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

static void
msg_unref (struct sim_msg *m)
{
  if (m != NULL && --m->refs == 0)
    free (m);
}

static void
drop_queues (struct sim_node *node)
{
  for (unsigned i = 0; i < node->n_in; i++)
    msg_unref (node->in[i].msg);
  for (unsigned i = 0; i < node->n_out; i++)
    msg_unref (node->out[i]);
  node->n_in = node->n_out = 0;
}

void
sim_destroy (struct sim *s)
{
  for (unsigned n = 0; n < s->n_nodes; n++) {
    drop_queues (&s->node[n]);
    free (s->node[n].in);
    free (s->node[n].g);
  }
}

/* ---- the engine --------------------------------------------------------- */

static void
push_in (struct sim_node *node, struct sim_in in)
{
  if (node->n_in == node->cap_in) {
    node->cap_in = node->cap_in == 0 ? 64 : node->cap_in * 2;
    node->in = realloc (node->in, node->cap_in * sizeof *node->in);
    if (node->in == NULL)
      abort ();
  }
  if (in.msg != NULL)
    in.msg->refs++;
  node->in[node->n_in++] = in;
}

/* The engine takes a node's next message and gives it its place. */
static void
order_one (struct sim *s, struct sim_node *node)
{
  struct sim_msg *m = node->out[0];
  uint64_t seq = ++s->ring_seq[node->ring % 4096];

  memmove (node->out, node->out + 1, (node->n_out - 1) * sizeof node->out[0]);
  node->n_out--;
  if (m->len > 5 && m->buf[5] < MSG_TYPE_END)
    s->sent[m->buf[5]]++; /* the type, behind magic and version */
  for (unsigned k = 0; k < s->n_nodes; k++)
    if (s->node[k].running && s->node[k].ring == node->ring)
      push_in (&s->node[k], (struct sim_in) { m, node->ring, seq, 0 });
  msg_unref (m);
}

/* A side of a cut keeps what one of its members has delivered, and some of
 * the rest. */
static void
truncate_tail (struct sim *s, uint64_t ring, uint16_t side)
{
  uint64_t delivered = 0, last = s->ring_seq[ring % 4096], keep;

  for (unsigned k = 0; k < s->n_nodes; k++)
    if ((side & (1u << k)) && s->node[k].delivered > delivered)
      delivered = s->node[k].delivered;
  keep = delivered + sim_random (s, last - delivered + 1);
  if (!s->cuts_lose || ring == 0)
    return;
  for (unsigned k = 0; k < s->n_nodes; k++) {
    struct sim_node *node = &s->node[k];
    unsigned to = 0;

    if (!(side & (1u << k)))
      continue;
    for (unsigned i = 0; i < node->n_in; i++)
      if (node->in[i].msg != NULL && node->in[i].ring == ring && node->in[i].seq > keep)
        msg_unref (node->in[i].msg);
      else
        node->in[to++] = node->in[i];
    node->n_in = to;
  }
}

/* A side of a cut goes on with the old ring for a while, alone: behind what
 * both have, the same place in the order holds different messages on the two
 * sides, so two members can apply different changes under one stamp. */
static void
go_on_alone (struct sim *s, uint64_t ring, uint16_t side)
{
  if (!s->cuts_lose || ring == 0)
    return;
  for (unsigned k = 0; k < s->n_nodes; k++) {
    struct sim_node *node = &s->node[k];

    while ((side & (1u << k)) && !node->mute && node->n_out > 0 && sim_random (s, 3) > 0) {
      struct sim_msg *m = node->out[0];
      uint64_t seq = ++s->ring_seq[ring % 4096];

      memmove (node->out, node->out + 1, (node->n_out - 1) * sizeof node->out[0]);
      node->n_out--;
      for (unsigned i = 0; i < s->n_nodes; i++)
        if (side & (1u << i))
          push_in (&s->node[i], (struct sim_in) { m, ring, seq, 0 });
      msg_unref (m);
    }
  }
}

static void
reform (struct sim *s)
{
  for (unsigned k = 0; k < s->n_nodes; k++) {
    struct sim_node *node = &s->node[k];
    uint16_t members = 0, done = 0;
    bool same = true;
    uint64_t ring;

    if (!node->running)
      continue;
    for (unsigned i = 0; i < s->n_nodes; i++)
      if (s->node[i].running && s->node[i].part == node->part)
        members |= (uint16_t) (1u << i);
    for (unsigned i = 0; i < s->n_nodes; i++)
      if (members & (1u << i))
        same = same && s->node[i].ring == node->ring && s->node[i].ring_members == members;
    if (same && node->ring != 0)
      continue;
    for (unsigned i = 0; i < s->n_nodes; i++) {
      uint16_t side = 0;

      if (!(members & (1u << i)) || (done & (1u << i)))
        continue;
      for (unsigned m = 0; m < s->n_nodes; m++)
        if ((members & (1u << m)) && s->node[m].ring == s->node[i].ring)
          side |= (uint16_t) (1u << m);
      truncate_tail (s, s->node[i].ring, side);
      go_on_alone (s, s->node[i].ring, side);
      done |= side;
    }
    ring = ++s->ring_counter;
    s->ring_seq[ring % 4096] = 0;
    TRACE (s, "ring %" PRIu64 " members %x", ring, members);
    for (unsigned i = 0; i < s->n_nodes; i++)
      if (members & (1u << i)) {
        s->node[i].ring = ring;
        s->node[i].ring_members = members;
        s->node[i].delivered = 0;
        push_in (&s->node[i], (struct sim_in) { NULL, ring, 0, members });
      }
  }
}

/* ---- the shell ---------------------------------------------------------- */

static void run_actions (struct sim *s, unsigned n);

static void
feed (struct sim *s, unsigned n, struct group_event *ev)
{
  struct sim_node *node = &s->node[n];

  if (!node->running)
    return;
  ev->now_ms = local_ms (s, node);
  ev->wall_ms = UINT64_C (1700000000000) + s->now_ms;
  group_step (node->g, ev, &acts);
  run_actions (s, n);
}

static void
later (struct sim *s, unsigned n, struct sim_pending p)
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

static void
store_info (const struct sim *s, unsigned n, unsigned iasp, struct store_info *info)
{
  int site = site_of_node (s, n);

  /* Only a member with a site is asked about a store. */
  assert (site >= 0 && site < SIM_SITES && iasp < SIM_IASPS);
  const struct sim_store *st = &s->store[site][iasp];
  bool own = st->open_by == (int) n;

  memset (info, 0, sizeof *info);
  if (!own && !reaches (s, n, iasp))
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
  feed (s, n, &ev);
}

static void
reset_links (struct sim_plugin *p)
{
  for (unsigned i = 0; i < SIM_SITES; i++)
    p->link[i] = (struct sim_link) { .node = -1 };
  p->has_record = p->held = p->drain = p->broken = p->found = false;
}

static void
stop_plugin (struct sim *s, unsigned n, unsigned iasp, bool graceful)
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
static void
is_known (struct sim *s, unsigned n, struct group_event *ask)
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
static void
do_host (struct sim *s, unsigned n, struct group_event *ask)
{
  struct sim_node *node = &s->node[n];
  struct sim_plugin *p = &node->plugin[ask->iasp];
  struct sim_store *st = &s->store[site_of_node (s, n)][ask->iasp];

  if (ask->role == HOST_NONE) {
    stop_plugin (s, n, ask->iasp, true);
    host_answer (s, n, ask, true, "");
    return;
  }
  if (p->running && p->found && p->role == ask->role && p->tenure == ask->tenure) {
    is_known (s, n, ask); /* it has it already, and is told nothing */
    return;
  }
  if (p->running && p->found && p->role != ask->role
      && (p->role != HOST_MIRROR || ask->role != HOST_PRODUCTION))
    stop_plugin (s, n, ask->iasp, true); /* F6: a fresh process takes the other role */
  if (s->cfg.no_store[ask->iasp] & (1u << n))
    sim_fail (s, "node %u is told to host what it has no store for", n + 1);
  if (node->open_fails || (!p->running && !reaches (s, n, ask->iasp))) {
    stop_plugin (s, n, ask->iasp, true);
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
    feed (s, n, &ev);
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
    stop_plugin (s, n, ask->iasp, true);
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

static void
do_probe (struct sim *s, unsigned n, const struct group_event *ask)
{
  struct group_event ev = { .kind = GE_PROBE };

  ev.iasp = ask->iasp;
  store_info (s, n, ask->iasp, &ev.store);
  ev.ok = ev.store.can_host;
  snprintf (ev.reason, sizeof ev.reason, "%s", ev.ok ? "" : "its store is not free (S1)");
  feed (s, n, &ev);
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

static void
die (struct sim *s, unsigned n)
{
  struct sim_node *node = &s->node[n];

  if (!node->running)
    return;
  /* Some of what it had queued still goes out. */
  while (node->n_out > 0 && sim_random (s, 3) == 0)
    order_one (s, node);
  node->running = false;
  node->ring = 0;
  node->ring_members = 0;
  node->n_pending = 0;
  drop_queues (node);
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
    later_ev.due_ms = s->now_ms + delay (s, 20);
    later (s, n, later_ev);
    break;
  case GA_HOST:
    TRACE (s, "n%u host iasp %u role %u tenure %" PRIu64, n + 1, a->iasp, a->role, a->tenure);
    if (a->role == HOST_PRODUCTION && !s->wiped
        && !disk_votes (s, group_committed (node->g)))
      sim_fail (s, "node %u is told production without a majority's commit", n + 1);
    later_ev.kind = SIM_DO_HOST;
    later_ev.due_ms = s->now_ms + delay (s, 100);
    later (s, n, later_ev);
    break;
  case GA_RECORD: take_record (s, n, a); break;
  case GA_FENCE:
    TRACE (s, "n%u fences n%u", n + 1, a->node);
    later_ev.kind = SIM_DO_FENCE;
    later_ev.ev.node = a->node;
    later_ev.due_ms = s->now_ms + 100 + delay (s, 2000);
    later (s, n, later_ev);
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
        s->node[k].restart_ms = s->now_ms + delay (s, 100);
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
      die (s, n);
      reform (s);
      node->restart_ms = s->now_ms + 1 + sim_random (s, 3000);
      return;
    }
    if (acts.a[i].kind == GA_PERSIST && node->persist_fails > 0) {
      /* C6: a node whose fsync of the state fails leaves. */
      node->persist_fails--;
      TRACE (s, "n%u persist fails", n + 1);
      die (s, n);
      reform (s);
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

    die (s, n);
    reform (s);
    node->left = false;
    if (node->left_kind != LEAVE_AGAIN) {
      /* Its plugins are ended, its state is forgotten or set aside. */
      for (unsigned i = 0; i < s->cfg.n_iasps; i++)
        stop_plugin (s, n, i, true);
      node->has_disk = node->left_kind == LEAVE_DELETED;
      node->gone = node->left_kind == LEAVE_REMOVED;
      node->disk_promised = node->has_disk ? node->disk_promised : 0;
    }
    node->restart_ms = forget ? 0 : s->now_ms + 1 + sim_random (s, 1000);
  }
}

/* ---- nodes -------------------------------------------------------------- */

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
  cfg.lease_ms = s->cfg.lease_ms;
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
      found.due_ms = s->now_ms + (s->cfg.adopt_ms ? s->cfg.adopt_ms : delay (s, 20 << sim_random (s, 8)));
      later (s, n, found);
    } else
      stop_plugin (s, n, i, false);
  }
  reform (s);
}

void
sim_kill (struct sim *s, unsigned n)
{
  die (s, n);
  reform (s);
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
  stop_plugin (s, n, iasp, false);
  strcpy (ev.reason, "the plugin died");
  feed (s, n, &ev);
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
  die (s, n);
  for (unsigned i = 0; i < s->cfg.n_iasps; i++)
    stop_plugin (s, n, i, false);
  reform (s);
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
  reform (s);
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
sim_request (struct sim *s, unsigned n, enum group_request r, uint32_t node)
{
  struct group_event ev = { .kind = GE_REQUEST, .request = (uint8_t) r, .request_id = s->steps + 1,
                            .node = node };

  s->node[n].last_code = -1;
  feed (s, n, &ev);
}

void
sim_switch (struct sim *s, unsigned n, unsigned iasp, uint32_t node, bool forced)
{
  struct group_event ev = { .kind = GE_REQUEST, .request = GR_SWITCHOVER, .iasp = (uint8_t) iasp,
                            .request_id = s->steps + 1, .node = node, .forced = forced };

  s->node[n].last_code = -1;
  feed (s, n, &ev);
}

void
sim_force (struct sim *s, unsigned n, uint32_t node)
{
  sim_switch (s, n, 0, node, true);
}

void
sim_copy (struct sim *s, unsigned n, enum group_request r, unsigned iasp, unsigned site,
          enum detached_export mode, bool forced)
{
  struct group_event ev = { .kind = GE_REQUEST, .request = (uint8_t) r, .request_id = s->steps + 1,
                            .iasp = (uint8_t) iasp, .site = (uint8_t) site, .mode = (uint8_t) mode,
                            .forced = forced };

  s->node[n].last_code = -1;
  feed (s, n, &ev);
}

void
sim_unbar (struct sim *s, unsigned n, unsigned iasp, unsigned site)
{
  struct group_event ev = { .kind = GE_REQUEST, .request = GR_UNBAR, .request_id = s->steps + 1,
                            .iasp = (uint8_t) iasp, .site = (uint8_t) site };

  s->node[n].last_code = -1;
  feed (s, n, &ev);
}

void
sim_request_node (struct sim *s, unsigned n, const struct node_change *c)
{
  struct group_event ev = { .kind = GE_REQUEST, .request = GR_NODE, .request_id = s->steps + 1,
                            .node_change = c };

  s->node[n].last_code = -1;
  feed (s, n, &ev);
}

unsigned
sim_add (struct sim *s, unsigned n, int site, uint8_t votes)
{
  unsigned at = s->n_nodes++;
  struct sim_node *node = &s->node[at];
  struct node_change c = { .op = NODE_ADD };

  memset (node, 0, sizeof *node);
  node->id = at + 1;
  node->machine_up = node->comes = true;
  node->boot = 1;
  node->last_code = -1;
  node->g = calloc (1, group_sizeof ());
  node->part = s->node[n].part;
  s->site[at] = site;
  c.node.id = node->id;
  snprintf (c.node.name, sizeof c.node.name, "n%u", node->id);
  c.node.preferred_role = site < 0 ? MEMBER_REPLICATE : MEMBER_BACKUP;
  c.node.votes = votes;
  c.node.n_addresses = 1;
  snprintf (c.node.addresses[0], sizeof c.node.addresses[0], "127.0.0.%u", node->id);
  if (site >= 0) {
    snprintf (c.site, sizeof c.site, "site%d", site);
    for (unsigned i = 0; i < s->cfg.n_iasps; i++)
      strcpy (c.store[i], "/store");
  }
  if (site == (int) s->n_sites) {
    /* A new copy: its store is formatted before the group is asked. */
    for (unsigned i = 0; i < SIM_IASPS; i++) {
      struct sim_store *st = &s->store[site][i];

      memset (st, 0, sizeof *st);
      st->has_super = st->clean = st->unusable = true;
      memcpy (st->lineage, s->node[n].g->applied.lineage, CRG_ID_LEN);
      st->generation = 1;
      st->open_by = st->machine = -1;
    }
    s->n_sites++;
  }
  sim_request_node (s, n, &c);
  return at;
}

const char *
sim_recover (struct sim *s, unsigned n, uint16_t dead)
{
  struct sim_node *node = &s->node[n];
  static struct crg_state state;
  uint8_t lineage[CRG_ID_LEN];
  const char *why;

  state = node->disk;
  for (unsigned i = 0; i < CRG_ID_LEN; i++)
    lineage[i] = (uint8_t) sim_random (s, 256);
  why = state_recover (&state, node->id, dead, node->disk_promised, lineage);
  if (why != NULL)
    return why;
  die (s, n);
  for (unsigned i = 0; i < s->cfg.n_iasps; i++)
    stop_plugin (s, n, i, true);
  reform (s);
  node->disk = state;
  node->disk_promised = state.stamp.epoch;
  /* Another history begins: what the old one answered and committed last
   * isn't known to it (`loss` has risen). */
  memset (s->acked, 0, sizeof s->acked);
  s->n_commits = 0;
  node->restart_ms = s->now_ms + 1;
  return NULL;
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
  s->wiped = true;
}

/* ---- the data path ------------------------------------------------------ */

static void
say (struct sim *s, unsigned n, unsigned iasp, unsigned site, enum group_event_kind kind)
{
  struct sim_plugin *p = &s->node[n].plugin[iasp];
  struct group_event ev = { .kind = kind, .iasp = (uint8_t) iasp, .site = (uint8_t) site };

  ev.seq = ++p->seq;
  if (kind == GE_COPY_READY)
    p->link[site].ready_seq = ev.seq;
  if (p->link[site].node >= 0) {
    ev.boot_id[0] = (uint8_t) boot_of (s, (unsigned) p->link[site].node);
    ev.boot_id[1] = (uint8_t) machine_of (s, (unsigned) p->link[site].node);
  }
  strcpy (ev.reason, "link down");
  feed (s, n, &ev);
}

/* F7; like the real one it is said once, to whoever listens. */
static void
say_link (struct sim *s, unsigned n, unsigned iasp, unsigned site, bool up)
{
  struct group_event ev = { .kind = GE_LINK, .iasp = (uint8_t) iasp, .site = (uint8_t) site };

  ev.ok = up;
  if (!s->node[n].paused)
    feed (s, n, &ev);
}

static bool
can_reach (const struct sim *s, unsigned n, int to, unsigned iasp)
{
  const struct sim_plugin *c;

  if (to < 0)
    return false;
  c = &s->node[to].plugin[iasp];
  return c->running && c->role == HOST_MIRROR && !c->broken && s->node[to].part == s->node[n].part
         && c->tenure <= s->node[n].plugin[iasp].tenure;
}

static void
data_link (struct sim *s, unsigned n, unsigned iasp, unsigned site)
{
  struct sim_plugin *p = &s->node[n].plugin[iasp];
  struct sim_link *l = &p->link[site];
  struct sim_store *mine = &s->store[site_of_node (s, n)][iasp];
  struct sim_store *st = &s->store[site][iasp];
  bool need = p->rec.copies[site].in_set || l->ready;

  if (l->say_again && s->node[n].running && !s->node[n].paused) {
    /* A new controller is told what is wanted: levels, not edges. */
    l->say_again = false;
    if (l->lost_said)
      say (s, n, iasp, site, GE_COPY_LOST);
    else if (l->ready)
      say (s, n, iasp, site, GE_COPY_READY);
  }
  if (!can_reach (s, n, l->node, iasp)) {
    if (l->connected || l->due_ms == 0) {
      l->connected = l->filling = false;
      l->due_ms = s->now_ms + 200; /* suspend timeout */
      say_link (s, n, iasp, site, false);
    }
    if (need && !l->lost_said && s->now_ms >= l->due_ms && s->node[n].running
        && !s->node[n].paused) {
      l->lost_said = true;
      say (s, n, iasp, site, GE_COPY_LOST);
    }
    return;
  }
  /* A copy keeps the highest tenure that it has seen (R1). */
  s->node[l->node].plugin[iasp].tenure = p->tenure;
  if (!l->connected) {
    if (p->rec.copies[site].in_set && st->restarted
        && (!s->node[n].running || s->node[n].paused))
      return; /* nobody can be told that it has to leave the set */
    l->connected = true;
    say_link (s, n, iasp, site, true);
    l->filling = !p->rec.copies[site].in_set || st->restarted;
    l->due_ms = s->now_ms + 300;
    if (l->filling) {
      /* R5: it leaves the set until it is filled. */
      if (p->rec.copies[site].in_set && !l->lost_said && s->node[n].running
          && !s->node[n].paused) {
        l->lost_said = true;
        say (s, n, iasp, site, GE_COPY_LOST);
      }
      if (!l->ready) {
        st->unusable = true;
        st->restarted = st->fork = false;
      }
    } else
      st->data = mine->data; /* what was in flight is sent again, or taken back */
  }
  if (!s->node[n].running || s->node[n].paused)
    return;
  if (l->lost_said && !l->filling) {
    l->lost_said = false;
    say (s, n, iasp, site, GE_COPY_BACK);
  }
  if (l->filling && s->now_ms >= l->due_ms && !l->ready) {
    /* R3: from now on production waits for X; X is filled and flushed. */
    l->filling = false;
    l->ready = true;
    l->lost_said = false;
    st->data = st->flushed = mine->data;
    st->lost = mine->lost;
    st->restarted = st->fork = false;
    st->unusable = false;
    st->generation = p->rec.generation;
    st->tenure = p->tenure;
    say (s, n, iasp, site, GE_COPY_READY);
  }
}

static bool
has_lease (const struct sim *s, unsigned n, unsigned iasp)
{
  const struct sim_plugin *p = &s->node[n].plugin[iasp];

  return p->running && p->role == HOST_PRODUCTION && local_ms (s, &s->node[n]) < p->lease_ms;
}

/* One write, to every copy that should have it. */
static void
data_write (struct sim *s, unsigned n, unsigned iasp)
{
  struct sim_plugin *p = &s->node[n].plugin[iasp];
  bool all = true;

  if (!p->running || p->role != HOST_PRODUCTION || !p->has_record || p->broken)
    return;
  if (is_script (s, iasp) && !p->held)
    return;
  for (unsigned site = 0; site < s->n_sites; site++)
    if ((int) site != site_of_node (s, n) && !is_script (s, iasp)) {
      data_link (s, n, iasp, site);
      if (!p->running || p->role != HOST_PRODUCTION)
        return;
    }
  if (p->held) {
    if (p->drain && s->node[n].running && !s->node[n].paused && has_lease (s, n, iasp)) {
      struct group_event ev = { .kind = GE_DRAINED, .iasp = (uint8_t) iasp };

      ev.ok = !s->node[n].drain_fails;
      if (!ev.ok)
        strcpy (ev.reason, "a copy did not answer in time");
      /* Drained: whatever is held is answered, or was not begun. */
      p->drain = false;
      feed (s, n, &ev);
    }
    return;
  }
  s->write_no++;
  s->store[site_of_node (s, n)][iasp].data = s->write_no;
  for (unsigned site = 0; site < s->n_sites; site++) {
    struct sim_link *l = &p->link[site];

    if ((int) site == site_of_node (s, n))
      continue;
    if (l->connected && can_reach (s, n, l->node, iasp)) {
      s->store[site][iasp].data = s->write_no;
      /* R2: what it lacks is held until it has left the set. */
      if (l->lost_said && p->rec.copies[site].in_set)
        all = false;
    } else if (p->rec.copies[site].in_set || l->ready)
      all = false;
  }
  /* L2: checked when it completes. */
  if (all && has_lease (s, n, iasp)) {
    s->acked[iasp] = s->write_no;
    s->acks++;
    if (s->acks % 8 == 0) {
      /* A flush, answered when every copy of the set has flushed. */
      for (unsigned site = 0; site < s->cfg.n_sites; site++)
        if (s->store[site][iasp].data == s->write_no)
          s->store[site][iasp].flushed = s->write_no;
      s->flush_acked[iasp] = s->write_no;
    }
  }
}

/* Clients were told that answered writes may be gone (S2 b, R4); what was
 * flushed may not, unless an operator said so. */
static void
accept_loss (struct sim *s, unsigned n, unsigned iasp)
{
  struct sim_store *st = &s->store[site_of_node (s, n)][iasp];
  const struct iasp_rec *r = &s->node[n].plugin[iasp].rec;

  /* Not of a tenure that it only heard of. */
  if (r->loss <= s->loss[iasp] || r->tenure != s->node[n].plugin[iasp].tenure)
    return;
  st->lost = false;
  /* Also by a tenure in which nobody opened before the next one. */
  if (st->data < s->flush_acked[iasp] && s->forced_loss[iasp] <= s->loss[iasp])
    sim_fail (s, "LOST FLUSH: node %u serves iasp %u with %" PRIu64 ", flushed %" PRIu64, n + 1,
              iasp, st->data, s->flush_acked[iasp]);
  s->loss[iasp] = r->loss;
  s->acked[iasp] = MIN (s->acked[iasp], st->data);
  s->flush_acked[iasp] = MIN (s->flush_acked[iasp], st->data);
}

static void
data_step (struct sim *s)
{
  for (unsigned iasp = 0; iasp < s->cfg.n_iasps; iasp++) {
    unsigned serving = 0;

    for (unsigned n = 0; n < s->n_nodes; n++) {
      /* Before it writes: could it answer a read? */
      if (has_lease (s, n, iasp) && !is_script (s, iasp)) {
        const struct sim_store *st = &s->store[site_of_node (s, n)][iasp];

        accept_loss (s, n, iasp);
        if (st->lost)
          sim_fail (s, "LOST WRITE: node %u serves iasp %u, whose machine lost power, and loss "
                    "has not risen", n + 1, iasp);
        if (st->data < s->acked[iasp])
          sim_fail (s, "LOST WRITE: node %u serves iasp %u with %" PRIu64 ", answered %" PRIu64,
                    n + 1, iasp, st->data, s->acked[iasp]);
        if (st->unusable)
          sim_fail (s, "node %u serves an unusable copy of iasp %u", n + 1, iasp);
      }
      if (s->node[n].plugin[iasp].broken_say && s->node[n].running && !s->node[n].paused) {
        struct group_event ev = { .kind = GE_STORE_FAILED, .iasp = (uint8_t) iasp };

        s->node[n].plugin[iasp].broken_say = false;
        strcpy (ev.reason, "flush failed");
        feed (s, n, &ev);
      }
      data_write (s, n, iasp);
      if (has_lease (s, n, iasp))
        serving++;
    }
    if (serving > 1)
      sim_fail (s, "two production hosts with a valid lease for iasp %u", iasp);
  }
}

/* ---- the loop ----------------------------------------------------------- */

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
    feed (s, n, &ev);
    return;
  }
  if (in.ring == node->ring)
    node->delivered = in.seq;
  ev.from = in.msg->from;
  ev.buf = in.msg->buf;
  ev.len = in.msg->len;
  feed (s, n, &ev);
  msg_unref (in.msg);
}

/* S1 d: the other one's power is cut; its machine comes up again later. */
static void
do_fence (struct sim *s, unsigned n, const struct group_event *ask)
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
  feed (s, n, &ev);
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
      do_fence (s, n, &p.ev);
    else if (p.kind == SIM_DO_ADOPT)
      is_known (s, n, &p.ev);
    else if (p.kind == SIM_DO_PROBE)
      do_probe (s, n, &p.ev);
    else
      do_host (s, n, &p.ev);
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
      die (s, b);
      for (unsigned i = 0; i < s->cfg.n_iasps; i++)
        stop_plugin (s, b, i, true);
      node->gone = true;
      node->has_disk = false;
      reform (s);
    }
  }
}

static void
pass_time (struct sim *s)
{
  s->now_ms = s->cfg.calm ? next_due (s)
                          : MIN (next_due (s), s->now_ms + 1 + sim_random (s, 40));
  data_step (s);
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
      feed (s, n, &ev);
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
    order_one (s, &s->node[pick - SIM_NODES]);
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

int
sim_production (struct sim *s, unsigned iasp)
{
  for (unsigned n = 0; n < s->n_nodes; n++)
    if (has_lease (s, n, iasp) && !s->node[n].plugin[iasp].held)
      return (int) n;
  return -1;
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
    if (sim_production (s, i) < 0)
      return false;
    for (unsigned site = 0; site < s->n_sites && !is_script (s, i); site++) {
      uint32_t host = first->rec[i].copies[site].host;
      bool any = false;

      for (unsigned n = 0; n < s->n_nodes; n++)
        any = any || (s->node[n].running && site_of_node (s, n) == (int) site && reaches (s, n, i));
      if (!any)
        continue;
      if (host == NO_NODE || !first->rec[i].copies[site].in_set
          || !s->node[host - 1].plugin[i].running || !s->node[host - 1].running)
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
