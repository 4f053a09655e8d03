/* SPDX-License-Identifier: BSD-3-Clause
 *
 * What goes wrong in crgsim, and what an operator does about it.  A seed chooses its own mix of
 * sizes, timers and faults; each fault follows from (seed, its number) alone.
 */
#include <stdio.h>
#include <string.h>

#include "common/util.h"
#include "tests/sim/world.h"

const char *const fault_names[F_KINDS] = {
  "kill-crgd", "kill-plugin", "power", "power-all", "pause-crgd", "pause-plugin", "cut", "cut-sites",
  "one-way", "reset-links", "slow-link", "slow-disk", "disk-error", "bit-rot", "persist-fail", "wipe",
  "switchover", "end", "mark-failed", "leave", "force", "suspend", "disaster", "detach", "stop-machine",
  "votes", "node", "slow-control", "kill-filling", "control", "rot-map", "both-open",
  "recover",
};

static const char *const world_names[K_END - K_FIRST] = { "peer", "access", "leases", "fence" };

#define BOTH_OPEN_LOOKS 400u /* one each 10 ms */

bool (*fault_filter) (unsigned number);

/* ---- the mix -------------------------------------------------------------------------------- */

bool
size_is_possible (const struct cluster_size *size)
{
  return size->sites >= 2 && size->sites <= W_SITES && size->per_site >= 1
         && size->sites * size->per_site + size->replicates <= W_NODES && size->iasps <= W_IASPS;
}

const char *
kind_name (unsigned kind)
{
  return kind < F_KINDS ? fault_names[kind] : world_names[kind - K_FIRST];
}

unsigned
nodes_of_mix (const struct mix *m)
{
  return m->n_sites * m->per_site + m->n_replicates + m->n_peers;
}

/* Two nodes alone: the preferred site's has two votes. */
static void
take_size (struct mix *m, const struct cluster_size *size)
{
  if (size->iasps > 0)
    m->n_iasps = size->iasps;
  if (size->sites == 0)
    return;
  m->n_sites = size->sites;
  m->per_site = size->per_site;
  m->n_replicates = size->replicates;
  m->votes[0] = size->sites * size->per_site + size->replicates == 2 ? 2 : 0;
}

void
mix_choose (struct mix *m, uint64_t seed, const struct cluster_size *size)
{
  static const struct { uint8_t sites, per_site, replicates, votes0; } shapes[] = {
    { 2, 1, 1, 0 }, { 2, 2, 1, 0 }, { 2, 1, 0, 2 }, { 3, 1, 0, 0 }, { 2, 2, 0, 0 }, { 3, 1, 1, 0 },
    { 3, 2, 0, 0 }, { 2, 1, 1, 0 },
  };
  static const uint8_t usual[F_KINDS] = {
    [F_KILL_CRGD] = 10, [F_KILL_PLUGIN] = 12, [F_POWER] = 8, [F_POWER_ALL] = 2, [F_PAUSE_CRGD] = 5,
    [F_PAUSE_PLUGIN] = 6, [F_CUT] = 8, [F_CUT_SITES] = 6, [F_ONE_WAY] = 5, [F_RESET_LINKS] = 8,
    [F_SLOW_LINK] = 5, [F_SLOW_DISK] = 5, [F_DISK_ERROR] = 3, [F_BITROT] = 2, [F_PERSIST_FAIL] = 3,
    [F_WIPE] = 1, [F_SWITCHOVER] = 12, [F_END] = 1, [F_MARK_FAILED] = 2, [F_LEAVE] = 6, [F_FORCE] = 1, [F_SUSPEND] = 3,
  };
  uint64_t h = mix_hash (seed, 7);
  const unsigned shape = (unsigned) (h % ARRAY_SIZE (shapes));
#define PICK(n) ((h = mix_hash (h, 3)) % (n))

  memset (m, 0, sizeof *m);
  m->n_sites = shapes[shape].sites;
  m->per_site = shapes[shape].per_site;
  m->n_replicates = shapes[shape].replicates;
  m->votes[0] = shapes[shape].votes0;
  m->n_iasps = PICK (8) == 0 ? 2 : 1;
  m->takeover = PICK (3) == 0 ? TAKEOVER_ORDER : TAKEOVER_SAME_SITE_FIRST;
  m->one_machine = PICK (2);
  m->keep_out = PICK (2);
  m->token_ms = 300;
  m->lease_ms = 1200;
  m->start_wait_ms = 3000;
  m->suspend_ms = PICK (3) == 0 ? 3000 : 800;
  m->no_quorum_ms = PICK (5) == 0 ? 700 : 0;
  m->net_us = PICK (4) == 0 ? 8000 : 1500;
  m->disk_us = PICK (4) == 0 ? 12000 : 2500;
  m->think_us = PICK (3) == 0 ? 200000 : 30000;
  m->gap_ms = PICK (3) == 0 ? 300 : 1200;
  m->kill_ppm = PICK (4) == 0 ? 300 : 0;
  m->window_frames = PICK (4) == 0 ? 8 : 8 + (uint32_t) PICK (COPY_MAX_OPS - 8);
  m->fua_percent = (uint8_t) (PICK (3) == 0 ? 40 : 8);
  m->flush_percent = (uint8_t) (PICK (3) == 0 ? 30 : 12);
  m->read_percent = (uint8_t) (10 + PICK (50));
  m->zero_percent = (uint8_t) PICK (30);
  m->big_percent = (uint8_t) PICK (25);
  m->warm_percent = (uint8_t) (20 + PICK (70));
  for (unsigned k = 0; k < F_FIRST_NEW; k++)
    m->weight[k] = PICK (5) < 3 ? usual[k] : 0; /* swarm: each seed without some of them */
  if (PICK (6) == 0) { /* a storm over the group: views without end, deaths between any two actions */
    static const uint8_t storm[F_KINDS] = {
      [F_KILL_CRGD] = 10, [F_PAUSE_CRGD] = 4, [F_CUT] = 12, [F_CUT_SITES] = 6, [F_ONE_WAY] = 6,
      [F_PERSIST_FAIL] = 4, [F_SWITCHOVER] = 6, [F_KILL_PLUGIN] = 2,
    };
    memcpy (m->weight, storm, sizeof storm);
    m->token_ms = 100;
    m->lease_ms = 600;
    m->gap_ms = 80;
    m->kill_ppm = 1000 + 4000 * (uint32_t) PICK (2);
    m->think_us = 300000;
  }
  /* Each apart, so that a seed without them (--without) has the history that it had before. */
  for (unsigned k = F_FIRST_NEW; k < F_KINDS; k++)
    if (mix_hash (seed, 100 + k) % (k < F_SLOW_CONTROL ? 4 : k < F_BOTH_OPEN ? 12 : k < F_RECOVER ? 8 : 10) == 0)
      m->weight[k] = k == F_BOTH_OPEN ? 20 : k == F_DISASTER || k >= F_CONTROL ? 10 : 4;
  take_size (m, size);
  if (m->n_sites * m->per_site + m->n_replicates < 3)
    m->weight[F_WIPE] = 0;
  if (m->n_sites * m->per_site + m->n_replicates > W_NODES)
    m->weight[F_NODE] = 0;
#undef PICK
}

/* Each apart, as the newer faults are. */
bool
kind_is_drawn (uint64_t seed, unsigned kind)
{
  return mix_hash (seed, 200 + kind - K_FIRST) % 6 == 0;
}

/* A node that reaches one IASP and not the other one, or was made a peer, or fences another, is of a site that has
 * several. */
bool
wants_neighbours (const struct mix *m, uint64_t seed)
{
  return m->fence || (m->access && mix_hash (seed, 220) % 4 != 0) || (m->peer && mix_hash (seed, 223) % 4 == 0);
}

/* Nodes of sites that never host, and have no store; or one that could, and was made one, with its store and place. */
static void
choose_peers (struct mix *m, uint64_t h)
{
  unsigned n = (h = mix_hash (h, 3)) % 3 == 0 ? 2 : 1;

  if (m->per_site > 1 && (nodes_of_mix (m) == W_NODES || (h = mix_hash (h, 3)) % 2 == 0)) {
    n = 1 + (unsigned) ((h = mix_hash (h, 3)) % (m->n_sites * m->per_site - 1)); /* n1 is the preferred primary */
    m->peers = (uint8_t) (1u << n);
    return;
  }
  for (; n > 0 && nodes_of_mix (m) < W_NODES; n--) {
    m->peers |= (uint8_t) (1u << nodes_of_mix (m));
    m->peer_site[m->n_peers++] = (uint8_t) ((h = mix_hash (h, 3)) % m->n_sites);
  }
  for (unsigned i = 0; i < W_IASPS; i++)
    m->no_store[i] = m->peers;
}

/* One node of each site reaches an IASP for certain. */
static void
choose_access (struct mix *m, uint64_t h)
{
  const bool all = (h = mix_hash (h, 3)) % 4 == 0, in_order = (h = mix_hash (h, 3)) % 3 == 0;

  for (unsigned i = 0; i < m->n_iasps; i++) {
    uint8_t list[W_NODES] = { 0 }, next = 0;

    for (unsigned s = 0; s < m->n_sites && !all; s++) {
      unsigned sure = (h = mix_hash (h, 3)) % m->per_site;

      if (m->peers & 1u << (s * m->per_site + sure))
        sure = !sure;
      for (unsigned k = 0; k < m->per_site; k++)
        if (k != sure && (h = mix_hash (h, 3)) % 2 == 0)
          m->no_store[i] |= (uint8_t) (1u << (s * m->per_site + k));
    }
    for (unsigned n = 0; n < nodes_of_mix (m); n++) {
      const unsigned at = in_order ? n : (unsigned) ((h = mix_hash (h, 3)) % (n + 1));

      list[n] = list[at];
      list[at] = (uint8_t) n;
    }
    for (unsigned behind = 0; behind < 2; behind++)
      for (unsigned k = 0; k < nodes_of_mix (m); k++)
        if (behind == (list[k] >= m->n_sites * m->per_site || (m->no_store[i] & 1u << list[k])))
          m->order[i][list[k]] = next++;
  }
}

/* Mostly few faults, of nodes that are gone for so long that they are fenced. */
static void
choose_fence (struct mix *m, uint64_t h)
{
  static const uint8_t often[] = { F_POWER, F_LEAVE, F_KILL_CRGD, F_CUT, F_STOP_MACHINE };

  m->fence_ms = h % 3 == 0 ? 2000 : 10000;
  if ((h = mix_hash (h, 3)) % 4 == 0)
    return;
  m->think_us = 1000000;
  m->gap_ms = h / 4 % 2 == 0 ? 1200 : 3000;
  m->token_ms = 100;
  m->lease_ms = 600;
  m->start_wait_ms = 1500;
  m->kill_ppm = 0;
  for (unsigned k = 0; k < ARRAY_SIZE (often); k++)
    m->weight[often[k]] = (uint8_t) (4 * m->weight[often[k]]);
}

/* What the world is, of what was drawn or asked for. */
void
mix_kinds (struct mix *m, uint64_t seed, const struct cluster_size *size)
{
  if ((m->peer || m->access) && mix_hash (seed, 224) % 3 == 0) { /* quiet clients: more takeovers */
    m->think_us = 1000000;
    m->gap_ms = 1200;
    m->token_ms = 100;
    m->lease_ms = 600;
    m->start_wait_ms = 1500;
  }
  if (m->fence)
    choose_fence (m, mix_hash (seed, 225));
  if (m->peer)
    choose_peers (m, mix_hash (seed, 221));
  if (m->access) {
    m->n_iasps = size->iasps > 0 ? size->iasps : 2;
    choose_access (m, mix_hash (seed, 222));
  }
}

uint32_t
fault_gap_ms (unsigned number)
{
  return 20 + (uint32_t) (mix_hash (w.seed, 1000 + number * 8) % (2 * w.mix.gap_ms));
}

void
fault_make (struct wfault *f, unsigned number)
{
  unsigned sum = 0, pick;
  uint64_t h = mix_hash (w.seed, 1001 + number * 8);

  memset (f, 0, sizeof *f);
  for (unsigned k = 0; k < F_KINDS; k++)
    sum += w.mix.weight[k];
  if (sum == 0) {
    f->kind = F_KINDS;
    return;
  }
  pick = (unsigned) (h % sum);
  while (pick >= w.mix.weight[f->kind])
    pick -= w.mix.weight[f->kind++];
  h = mix_hash (h, 1);
  f->node = (uint8_t) (h % w.n_nodes);
  f->site = (uint8_t) (h / 64 % w.mix.n_sites);
  f->iasp = (uint8_t) (h / 1024 % w.mix.n_iasps);
  f->a = (uint32_t) (h >> 20);
  h = mix_hash (h, 2);
  f->undo_ms = h % 3 == 0 ? 50 + (uint32_t) (h / 8 % 400) : 200 + (uint32_t) (h / 8 % 5000);
  if (w.mix.fence && mix_hash (h, 3) % 2 == 0) /* nobody is fenced who is back soon */
    f->undo_ms = 3000 + (uint32_t) (h / 8 % 12000);
}

/* ---- doing and undoing ---------------------------------------------------------------------- */

void
power_off (unsigned machine)
{
  for (unsigned n = 0; n < w.n_nodes; n++)
    if (w.node[n].machine == machine) {
      crgd_die (n, false);
      for (unsigned i = 0; i < w.mix.n_iasps; i++)
        plugin_die (plugin_of (n, i), "power");
    }
  disk_power_lost (machine);
  for (unsigned s = 0; s < w.mix.n_sites; s++)
    for (unsigned i = 0; i < w.mix.n_iasps; i++)
      if (w.disk[s][i].last_machine == machine)
        disk_lose_power (&w.disk[s][i]);
  if (w.machine[machine].frozen_us) {
    w.machine[machine].lag_us += w.now_us - w.machine[machine].frozen_us;
    w.machine[machine].frozen_us = 0;
  }
  w.machine[machine].up = false;
  w.st.power++;
}

void
power_on (unsigned machine)
{
  if (w.machine[machine].up || (w.off | w.stay_off) >> machine & 1)
    return;
  w.machine[machine].up = true;
  w.machine[machine].boot++;
  for (unsigned n = 0; n < w.n_nodes; n++)
    if (w.node[n].machine == machine)
      crgd_boot (n);
}

/* One slot of two, of a copy that isn't production.  Both are beyond the model: the store is refused then, and an
 * operator decides.  What rots in the maps: maps_rot (); in a state file: F_WIPE, for its CRC is found wrong and the
 * node has none (C6).  Data that rots has no checksum of ours: that is what a comparison of the copies is for. */
static void
bit_rot (struct wdisk *d, uint32_t a)
{
  struct super_choice choice;
  enum super_status status;
  struct superblock sb;
  uint32_t block;

  slot_read (d, &sb, &choice, &status);
  if (d->rotten || choice.status[0] != SUPER_OK || choice.status[1] != SUPER_OK)
    return; /* one slot of two */
  d->rotten = true;
  disk_slot_block (d, a & 1, &block);
  d->meta[block][(a >> 1) % META_BLOCK_SIZE] ^= (uint8_t) (1u << (a >> 14 & 7));
  memcpy (d->meta_stable[block], d->meta[block], META_BLOCK_SIZE);
}

void
faults_heal_network (void)
{
  for (unsigned n = 0; n < w.n_nodes; n++)
    w.reach[n] = W_REACH_ALL;
  for (unsigned a = 0; a < w.n_nodes; a++)
    for (unsigned b = 0; b < w.n_nodes; b++)
      if (w.node[a].machine != w.node[b].machine
          && (w.machine[w.node[a].machine].frozen_us || w.machine[w.node[b].machine].frozen_us))
        w.reach[a] &= (uint8_t) ~(1u << b);
  ring_changed (false);
}

static void
go_on (unsigned n)
{
  if (w.machine[w.node[n].machine].frozen_us)
    return;
  w.node[n].paused = false;
  ring_wake (n);
}

static void
ask (unsigned node, enum group_request r, uint8_t iasp, uint8_t site, uint8_t mode, bool forced)
{
  struct group_event ev = { .kind = GE_REQUEST, .request = (uint8_t) r, .request_id = w.st.steps + 1, .iasp = iasp,
                            .site = site, .mode = mode, .forced = forced };

  if (w.node[node].running && !w.node[node].paused)
    crgd_feed (node, &ev);
}

/* What an operator has to do: node n is asked. */
void
faults_attend (unsigned n, bool forced)
{
  const struct crg_state *c;

  if (!w.node[n].running || (c = group_committed (&w.node[n].g)) == NULL)
    return;
  if (!c->started)
    crgd_request (n, GR_START, NO_NODE, 0, 0);
  for (unsigned i = 0; i < w.mix.n_iasps; i++)
    for (unsigned s = 0; s < w.mix.n_sites; s++)
      if (c->rec[i].copies[s].barred)
        crgd_request (n, GR_UNBAR, NO_NODE, (uint8_t) i, (uint8_t) s);
      else if (c->rec[i].copies[s].suspended)
        crgd_request (n, GR_RESUME, NO_NODE, (uint8_t) i, (uint8_t) s);
      else if (c->rec[i].copies[s].detached)
        ask (n, GR_REATTACH, (uint8_t) i, (uint8_t) s, 0, forced);
}

/* S2 b: all machines lose power, those of the production site for good, as an operator says. */
static bool
blackout (unsigned site, unsigned stage)
{
  for (unsigned n = 0; n < w.n_nodes; n++) {
    const bool lost = site_of_node (n) == (int) site;

    if (stage == 1 && w.machine[w.node[n].machine].up)
      power_off (w.node[n].machine);
    else if ((stage == 2 && !lost) || stage == 7)
      power_on (w.node[n].machine);
    else if (stage > 2 && stage < 7 && lost && !w.machine[w.node[n].machine].up)
      for (unsigned k = 0; k < w.n_nodes; k++)
        if (w.node[k].running && !w.node[k].paused)
          crgd_request (k, GR_MARK_FAILED, n + 1, 0, 0);
  }
  return stage < 7;
}

static bool
is_burnt (unsigned site)
{
  for (unsigned n = 0; n < w.n_nodes; n++)
    if (site_of_node (n) == (int) site && w.machine[w.node[n].machine].up)
      return false;
  return true;
}

/* An operator asks the first node of another site than production's to take it over. */
static void
take_over (unsigned unit, bool forced)
{
  for (unsigned n = 0; n < w.n_nodes; n++) {
    struct group_event ev = { .kind = GE_REQUEST, .request = GR_SWITCHOVER, .request_id = w.st.steps + 1 + unit,
                              .node = n + 1, .iasp = (uint8_t) unit, .forced = forced };

    if (reaches_store (n, unit) && site_of_node (n) != (int) top_rec (unit)->production_site && w.node[n].running
        && !w.node[n].paused) {
      crgd_feed (n, &ev);
      break;
    }
  }
}

/* R4: the copies are suspended, the production site burns down, and an operator takes over with what
 * is left.  Returns false when all of it has happened. */
static bool
disaster (const struct wfault *f, unsigned stage)
{
  const unsigned site = top_rec (unit_of (f->iasp))->production_site;

  if (f->a & 2)
    return blackout (site, stage);
  if (stage == 0) {
    for (unsigned i = 0; i < w.mix.n_iasps; i++)
      for (unsigned s = 0; s < w.mix.n_sites; s++)
        if (s != top_rec (unit_of (i))->production_site)
          ask (f->node, GR_SUSPEND, (uint8_t) i, (uint8_t) s, 0, false);
  } else if (stage == 1) {
    for (unsigned n = 0; n < w.n_nodes; n++)
      if (site_of_node (n) == (int) site && w.machine[w.node[n].machine].up)
        power_off (w.node[n].machine);
  } else if (stage < 7) {
    for (unsigned i = 0; i < w.mix.n_iasps; i++)
      if (unit_of (i) == i && (!w.mix.access || is_burnt (top_rec (i)->production_site)))
        take_over (i, stage > 2); /* first he is told what it would cost */
  } else {
    for (unsigned m = 0; m < w.n_machines; m++)
      power_on (m);
    for (unsigned n = 0; n < w.n_nodes; n++)
      if (w.node[n].running && !w.node[n].paused)
        faults_attend (n, f->a & 1);
    return false;
  }
  return true;
}

/* L4: as a virtual machine that is paused: nothing runs, its clocks stand still, nobody hears it. */
static void
stop_machine (unsigned m)
{
  if (!w.machine[m].up || w.machine[m].frozen_us)
    return;
  for (unsigned n = 0; n < w.n_nodes; n++) {
    if (w.node[n].machine != m)
      continue;
    w.node[n].paused = true;
    for (unsigned k = 0; k < w.n_nodes; k++)
      if (w.node[k].machine != m) {
        w.reach[n] &= (uint8_t) ~(1u << k);
        w.reach[k] &= (uint8_t) ~(1u << n);
      }
    for (unsigned i = 0; i < w.mix.n_iasps; i++) {
      struct wplugin *p = plugin_of (n, i);

      p->paused = p->running;
    }
  }
  w.machine[m].old_lease_ms = local_ms (m);
  for (unsigned n = 0; n < w.n_nodes; n++)
    if (w.node[n].machine == m)
      w.machine[m].old_lease_ms = MAX (w.machine[m].old_lease_ms, local_ms (m) + lease_of_node (n));
  w.machine[m].frozen_us = w.now_us;
  ring_changed (false);
}

static void
continue_machine (unsigned m)
{
  if (!w.machine[m].frozen_us)
    return;
  w.machine[m].lag_us += w.now_us - w.machine[m].frozen_us;
  w.machine[m].frozen_us = 0;
  for (unsigned n = 0; n < w.n_nodes; n++)
    if (w.node[n].machine == m) {
      go_on (n);
      crgd_boot (n);
      for (unsigned i = 0; i < w.mix.n_iasps; i++)
        plugin_of (n, i)->paused = false;
    }
  faults_heal_network ();
}

/* C7 */
void
faults_ask_node (unsigned node, const struct node_change *c)
{
  struct group_event ev = { .kind = GE_REQUEST, .request = GR_NODE, .request_id = w.st.steps + 1, .node_change = c };

  if (w.node[node].running && !w.node[node].paused)
    crgd_feed (node, &ev);
}

static void
add_node (unsigned by, unsigned n)
{
  static struct node_change c;
  const int site = site_of_node (n);

  memset (&c, 0, sizeof c);
  c.op = NODE_ADD;
  c.node = w.created.def.nodes[n];
  if (c.node.preferred_role == MEMBER_PRIMARY)
    c.node.preferred_role = MEMBER_BACKUP;
  if (site >= 0) {
    snprintf (c.site, sizeof c.site, "site%d", site);
    for (unsigned i = 0; i < w.mix.n_iasps; i++)
      memcpy (c.store[i], w.created.def.iasps[i].store[n], sizeof c.store[i]);
  }
  faults_ask_node (by, &c);
}

static void
change_domain (const struct wfault *f)
{
  static struct node_change c;

  /* A node whose disk was lost must not have been needed. */
  if (w.wiped)
    return;
  w.votes_changed = true;
  memset (&c, 0, sizeof c);
  c.op = f->kind == F_NODE ? NODE_REMOVE : NODE_SET;
  c.node.id = 1 + f->a % w.n_nodes;
  c.fields = f->a / 64 % 4 == 0 ? NODE_SET_ORDER : NODE_SET_VOTES;
  if (w.mix.peer && f->a / 2048 % 3 == 0) {
    c.fields = NODE_SET_ROLE;
    c.node.preferred_role = f->a / 8192 % 3 == 0 ? MEMBER_BACKUP : MEMBER_PEER;
  }
  c.node.votes = (uint8_t) (f->a / 256 % 4);
  c.node.order = (uint8_t) (f->a / 256 % w.n_nodes);
  faults_ask_node (f->node, &c);
}

/* Production is killed while it fills a copy that has some of the blocks. */
static bool
kill_filling (unsigned iasp)
{
  for (unsigned n = 0; n < w.n_nodes; n++) {
    struct wplugin *p = plugin_of (n, iasp);

    for (unsigned s = 0; s < w.mix.n_sites && p->running && p->prod_on; s++) {
      const struct repl_site *x = &p->core.sites[s];

      if (x->link_up && x->resync_begun && track_open (&x->track) > 0 && x->track.count[TS_CLEAN] > 0
          && !(p->core.in_set & 1u << s)) {
        plugin_die (p, "killed while it fills a copy");
        return true;
      }
    }
  }
  return false;
}

/* Another controller took it, or it was full, and both ends live.  False: there is nothing to undo. */
static bool
break_control (const struct wfault *f)
{
  struct wplugin *p = plugin_of (f->node, f->iasp);

  if (f->a % 4 == 0) { /* when something is said of a copy, which may come through or not */
    p->break_levels = (uint8_t) (1 + f->a / 8 % 3);
    return true;
  }
  sup_break (f->node, f->iasp);
  if (f->a % 4 == 1)
    return false;
  p->break_levels = (uint8_t) (1 + f->a / 8 % 2); /* and the next one breaks when it has said what stands */
  w.node[f->node].paused = true; /* crgd stands still */
  for (unsigned n = 0; n < w.n_nodes && f->a % 4 == 3; n++) /* and a copy is lost meanwhile */
    if (n != f->node && plugin_of (n, f->iasp)->copy_on)
      plugin_of (n, f->iasp)->paused = true;
  return true;
}

static bool
has_neighbour (unsigned n, unsigned iasp)
{
  for (unsigned k = 0; k < w.n_nodes; k++)
    if (w.node[k].machine != w.node[n].machine && site_of_node (k) == site_of_node (n) && reaches_store (k, iasp)
        && w.node[k].running && !w.node[k].paused)
      return true;
  return false;
}

/* Production goes to another site, and its old host opens the store again, as a mirror: nobody has it open. */
static void
move_away (const struct wfault *f)
{
  for (unsigned n = 0; n < w.n_nodes; n++)
    if (plugin_of (n, f->iasp)->prod_on && w.node[n].running && !w.node[n].paused && has_neighbour (n, f->iasp))
      for (unsigned k = 0; k < w.n_nodes; k++) {
        const unsigned to = (f->a + k) % w.n_nodes;

        if (reaches_store (to, f->iasp) && site_of_node (to) != site_of_node (n) && w.node[to].running) {
          crgd_request (n, GR_SWITCHOVER, 1 + to, (uint8_t) unit_of (f->iasp), 0);
          return;
        }
      }
}

/* S1: the host of a copy is lost to the group while it opens its store, and its neighbour opens it too.  True: look
 * again, as nobody opens one now. */
static bool
both_open (const struct wfault *f, unsigned look)
{
  for (unsigned s = 0; s < w.mix.n_sites; s++)
    if (w.disk[s][f->iasp].both_open == 0)
      w.disk[s][f->iasp].both_open = 1;
  for (unsigned n = 0; n < w.n_nodes; n++) {
    const struct wplugin *p = plugin_of (n, f->iasp);

    if (p->running && p->claiming && p->judge.ask.role != SUPER_ROLE_PRODUCTION && w.node[n].running
        && has_neighbour (n, f->iasp)) {
      crgd_die (n, false);
      return false;
    }
  }
  if (look % 50 == 0)
    move_away (f);
  return look < BOTH_OPEN_LOOKS;
}

static void
let_copies_go_on (unsigned iasp)
{
  for (unsigned n = 0; n < w.n_nodes; n++)
    if (!w.machine[w.node[n].machine].frozen_us)
      plugin_of (n, iasp)->paused = false;
}

void
fault_do (unsigned number)
{
  struct wfault f;
  struct wplugin *p;
  unsigned stage = 0;
  struct wev *e;

  fault_make (&f, number);
  if (f.kind == F_KINDS || (fault_filter && !fault_filter (number)))
    return;
  p = plugin_of (f.node, f.iasp);
  TRACE ("fault %u: %s n%u site %u iasp %u %u, %u ms", number, fault_names[f.kind], f.node + 1, f.site,
         f.iasp, f.a, f.undo_ms);
  w.st.faults++;
  w.st.fault[f.kind]++;
  switch ((enum fault_kind) f.kind) {
  case F_KILL_CRGD:
    crgd_die (f.node, false);
    break;
  case F_KILL_PLUGIN:
    plugin_die (p, "killed");
    return;
  case F_LEAVE:
    crgd_die (f.node, false);
    for (unsigned i = 0; i < w.mix.n_iasps; i++)
      plugin_die (plugin_of (f.node, i), "killed");
    break;
  case F_POWER:
    power_off (w.node[f.node].machine);
    break;
  case F_POWER_ALL:
    for (unsigned m = 0; m < w.n_machines; m++)
      power_off (m);
    break;
  case F_PAUSE_CRGD:
    w.node[f.node].paused = true;
    break;
  case F_PAUSE_PLUGIN:
    p->paused = p->running;
    break;
  case F_CUT:
  case F_CUT_SITES:
    for (unsigned a = 0; a < w.n_nodes; a++)
      for (unsigned b = 0; b < w.n_nodes; b++) {
        int sa = site_of_node (a), sb = site_of_node (b);
        bool cut = f.kind == F_CUT ? (f.a >> a & 1) != (f.a >> b & 1)
                                   : (sa < 0 ? (int) (f.a & 1) : sa) != (sb < 0 ? (int) (f.a & 1) : sb);

        if (cut)
          w.reach[a] &= (uint8_t) ~(1u << b);
      }
    ring_changed (false);
    break;
  case F_ONE_WAY:
    if (f.a % w.n_nodes != f.node)
      w.reach[f.node] &= (uint8_t) ~(1u << (f.a % w.n_nodes));
    ring_changed (false);
    break;
  case F_RESET_LINKS:
    for (unsigned i = 0; i < W_CONNS; i++)
      if (w.conn[i].used && (w.conn[i].prod == f.node || w.conn[i].copy == f.node))
        net_reset (&w.conn[i]);
    return;
  case F_SLOW_LINK:
    w.link_slow_us[f.node] = 1000 + f.a % 200000;
    break;
  case F_SLOW_DISK:
    w.disk[f.site][f.iasp].slow_us = 1000 + f.a % (f.a & 0x100000 ? 2000000 : 100000);
    break;
  case F_DISK_ERROR:
    w.disk[f.site][f.iasp].errors = 1;
    return;
  case F_BITROT:
    if (top_rec (f.iasp)->production_site != f.site)
      bit_rot (&w.disk[f.site][f.iasp], f.a);
    return;
  case F_ROT_MAP: /* also both copies of the hot map */
    maps_rot (&w.disk[f.site][f.iasp], f.a);
    if (f.a >> 28 < 4)
      maps_rot (&w.disk[f.site][f.iasp], (uint32_t) mix_hash (f.a, 3));
    return;
  case F_PERSIST_FAIL:
    w.node[f.node].persist_fails = 1;
    return;
  case F_WIPE:
    if (w.wiped || w.votes_changed)
      return;
    w.wiped = true;
    crgd_die (f.node, false);
    w.node[f.node].has_state = false;
    w.node[f.node].promised = 0;
    break;
  case F_SWITCHOVER:
    crgd_request (f.node, GR_SWITCHOVER, f.a & 1 ? NO_NODE : 1 + f.a / 2 % w.n_nodes, (uint8_t) unit_of (f.iasp), 0);
    return;
  case F_END:
    crgd_request (f.node, GR_END, NO_NODE, 0, 0);
    break;
  case F_MARK_FAILED: /* an operator who knows that it is dead */
    if (!w.machine[w.node[f.a % w.n_nodes].machine].up)
      crgd_request (f.node, GR_MARK_FAILED, 1 + f.a % w.n_nodes, 0, 0);
    return;
  case F_FORCE: { /* R4 */
    struct group_event ev = { .kind = GE_REQUEST, .request = GR_SWITCHOVER, .request_id = w.st.steps + 1,
                              .node = 1 + f.a % w.n_nodes, .iasp = (uint8_t) unit_of (f.iasp), .forced = true };

    if (!w.node[f.node].paused)
      crgd_feed (f.node, &ev);
    return;
  }
  case F_SUSPEND:
    crgd_request (f.node, GR_SUSPEND, NO_NODE, f.iasp, f.site);
    break;
  case F_DISASTER:
    disaster (&f, 0);
    f.undo_ms = 300 + f.a % 1000;
    break;
  case F_DETACH:
    ask (f.node, GR_DETACH, f.iasp, f.site, (uint8_t) (f.a % DETACHED_END), false);
    break;
  case F_STOP_MACHINE:
    stop_machine (w.node[f.node].machine);
    break;
  case F_VOTES:
  case F_NODE:
    change_domain (&f);
    break;
  case F_SLOW_CONTROL: /* a busy machine: links are up before crgd has said what is committed */
    w.control_slow_us[f.node] = 1000 + f.a % 300000;
    break;
  case F_KILL_FILLING: /* as soon as there is one */
    f.undo_ms = 1;
    break;
  case F_CONTROL:
    if (!break_control (&f))
      return;
    break;
  case F_BOTH_OPEN:
    both_open (&f, 0);
    f.undo_ms = 10;
    break;
  case F_RECOVER:
    f.undo_ms = recover_stage (&f, &stage);
    if (f.undo_ms == 0)
      return;
    break;
  case F_KINDS:
    return;
  }
  e = after_us (MS (f.undo_ms), EV_UNDO);
  e->a = number;
  e->node = f.node;
  e->iasp = f.iasp;
  e->life = p->life;
  e->b = stage;
}

void
fault_undo (const struct wev *e)
{
  struct wfault f;
  struct wplugin *p;

  fault_make (&f, e->a);
  p = plugin_of (f.node, f.iasp);
  if (f.kind == F_DISASTER && e->b < 7 && !w.healing) {
    const uint32_t stage = e->b + 1;

    if (disaster (&f, stage)) {
      struct wev *next = after_us (MS (stage < 2 ? 700 + f.a / 16 % 1000 : 500), EV_UNDO);

      next->a = e->a;
      next->b = stage;
      next->node = f.node;
    }
    return;
  }
  if (f.kind == F_BOTH_OPEN && e->b <= BOTH_OPEN_LOOKS && !w.healing) {
    const bool again = both_open (&f, e->b + 1);
    struct wev *next = after_us (MS (again ? 10 : 1000 + f.undo_ms), EV_UNDO);

    next->a = e->a;
    next->b = again ? e->b + 1 : BOTH_OPEN_LOOKS + 1;
    return;
  }
  if (f.kind == F_RECOVER) {
    unsigned stage = e->b;
    const uint32_t ms = w.healing ? 0 : recover_stage (&f, &stage);

    if (ms > 0) {
      struct wev *next = after_us (MS (ms), EV_UNDO);

      next->a = e->a;
      next->b = stage;
    }
    return;
  }
  if (f.kind == F_KILL_FILLING) {
    if (e->b < 150 && !w.healing && !kill_filling (f.iasp)) {
      struct wev *next = after_us (MS (10), EV_UNDO);

      next->a = e->a;
      next->b = e->b + 1;
    }
    return;
  }
  TRACE ("fault %u is over", e->a);
  switch ((enum fault_kind) f.kind) {
  case F_BOTH_OPEN:
    for (unsigned s = 0; s < w.mix.n_sites; s++)
      w.disk[s][f.iasp].both_open = 0;
    for (unsigned n = 0; n < w.n_nodes; n++)
      crgd_boot (n);
    break;
  case F_KILL_CRGD:
  case F_LEAVE:
  case F_WIPE:
    crgd_boot (f.node);
    break;
  case F_POWER:
    power_on (w.node[f.node].machine);
    break;
  case F_POWER_ALL:
    for (unsigned m = 0; m < w.n_machines; m++)
      power_on (m);
    break;
  case F_CONTROL:
    if (f.a % 4 == 0)
      p->break_levels = 0;
    let_copies_go_on (f.iasp);
    go_on (f.node);
    break;
  case F_PAUSE_CRGD:
    go_on (f.node);
    break;
  case F_PAUSE_PLUGIN:
    if (p->life == e->life && !w.machine[w.node[f.node].machine].frozen_us)
      p->paused = false;
    break;
  case F_CUT:
  case F_CUT_SITES:
  case F_ONE_WAY:
    faults_heal_network ();
    break;
  case F_SLOW_LINK:
    w.link_slow_us[f.node] = 0;
    break;
  case F_SLOW_CONTROL:
    w.control_slow_us[f.node] = 0;
    break;
  case F_SLOW_DISK:
    w.disk[f.site][f.iasp].slow_us = w.mix.disk_us;
    break;
  case F_SUSPEND:
    for (unsigned n = 0; n < w.n_nodes; n++)
      if (w.node[n].running && !w.node[n].paused)
        crgd_request (n, GR_RESUME, NO_NODE, f.iasp, f.site);
    break;
  case F_DETACH: /* first as one who does not want to lose what was written there */
    for (unsigned n = 0; n < w.n_nodes; n++) {
      ask (n, GR_REATTACH, f.iasp, f.site, 0, false);
      if (f.a & 1024)
        ask (n, GR_REATTACH, f.iasp, f.site, 0, true);
    }
    break;
  case F_STOP_MACHINE:
    continue_machine (w.node[f.node].machine);
    break;
  case F_NODE:
    for (unsigned k = 0; k < w.n_nodes; k++)
      if (w.node[k].gone)
        add_node (f.node, k);
    break;
  case F_END:
    for (unsigned n = 0; n < w.n_nodes; n++)
      if (w.node[n].running && !w.node[n].paused)
        crgd_request (n, GR_START, NO_NODE, 0, 0);
    break;
  default:
    break;
  }
}

/* ---- the end of it -------------------------------------------------------------------------- */

void
faults_repair (void)
{
  TRACE ("all is repaired");
  w.healing = true;
  w.off = 0;
  for (unsigned m = 0; m < w.n_machines; m++)
    continue_machine (m);
  for (unsigned n = 0; n < w.n_nodes; n++) {
    w.link_slow_us[n] = w.control_slow_us[n] = 0;
    w.node[n].persist_fails = 0;
    go_on (n);
    for (unsigned i = 0; i < w.mix.n_iasps; i++) {
      plugin_of (n, i)->paused = false;
      plugin_of (n, i)->break_levels = 0;
    }
  }
  for (unsigned s = 0; s < w.mix.n_sites; s++)
    for (unsigned i = 0; i < w.mix.n_iasps; i++) {
      w.disk[s][i].errors = 0;
      w.disk[s][i].slow_us = w.mix.disk_us;
      w.disk[s][i].both_open = 0;
    }
  for (unsigned m = 0; m < w.n_machines; m++)
    power_on (m);
  for (unsigned n = 0; n < w.n_nodes; n++)
    crgd_boot (n);
  faults_heal_network ();
}

/* Production isn't served, and the status says what an operator has to accept, after a minute: what a restart
 * took, where the IASPs of production's machine have different sets and move together (S2); or that somebody
 * forced a copy that can't be used: another is forced, that of the former production among them (R4). */
#define ACCEPT_AFTER 30

static void
accept_loss (unsigned n, unsigned unit)
{
  const struct crg_state *c = group_committed (&w.node[n].g);
  struct group_event ev = { .kind = GE_REQUEST, .request = GR_SWITCHOVER, .request_id = w.st.steps + 1 + unit,
                            .node = state_unit_host (c, unit), .iasp = (uint8_t) unit, .forced = true };
  const struct wplugin *p = ev.node == NO_NODE ? NULL : plugin_of (ev.node - 1, unit);
  bool differ = false, in_vain = false;

  for (unsigned i = 0; i < w.mix.n_iasps; i++)
    in_vain |= unit_of (i) == unit && production_in_vain (c, i);
  for (unsigned i = unit + 1; i < w.mix.n_iasps; i++)
    for (unsigned s = 0; s < w.mix.n_sites && unit_of (i) == unit; s++)
      differ |= c->rec[i].copies[s].in_set != c->rec[unit].copies[s].in_set;
  if (p == NULL || p->prod_on || (!differ && !in_vain && !c->rec[unit].forced)) {
    w.unserved[unit] = 0;
    return;
  }
  if (++w.unserved[unit] < ACCEPT_AFTER)
    return;
  if (differ && !in_vain && !(w.stay_off >> w.node[ev.node - 1].machine & 1)) /* C9: else another one, as it is dead */
    w.unserved[unit] = 0;
  else
    ev.node = 1 + (w.unserved[unit] - ACCEPT_AFTER) % w.n_nodes;
  w.st.accepted++;
  crgd_feed (n, &ev);
}

/* Who could host at first can again. */
static void
restore_roles (unsigned n)
{
  const struct crg_state *c = group_committed (&w.node[n].g);
  static struct node_change nc;

  for (unsigned k = 0; k < w.n_nodes; k++) {
    const int i = state_node_index (c, k + 1);

    if (i < 0 || state_may_host (c, (unsigned) i) || !state_may_host (&w.created, k))
      continue;
    memset (&nc, 0, sizeof nc);
    nc.op = NODE_SET;
    nc.node.id = k + 1;
    nc.node.preferred_role = MEMBER_BACKUP;
    nc.fields = NODE_SET_ROLE;
    faults_ask_node (n, &nc);
  }
}

/* Every 2 s, until it is well. */
void
faults_operator (void)
{
  for (unsigned n = 0; n < w.n_nodes; n++)
    if (w.node[n].running && group_committed (&w.node[n].g) != NULL) {
      faults_attend (n, true);
      for (unsigned i = 0; i < w.mix.n_iasps; i++)
        if (unit_of (i) == i)
          accept_loss (n, i);
      restore_roles (n);
      recover_attend (n);
      for (unsigned k = 0; k < w.n_nodes; k++)
        if (w.node[k].gone)
          add_node (n, k);
      return;
    }
}
