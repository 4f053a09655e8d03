/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Every join and death, at every step, up to a stated depth: real group
 * cores, an engine that orders messages as they are sent, one IASP.  The
 * scheduler delivers the oldest message first; when nothing is under way any
 * node may join, in any order; when nothing is awaited any more, any may die,
 * or return.  A join, a death or the delivery of another message first at any
 * other moment is a deviation; all schedules with at most so many deviations and deaths are
 * run, and a world that was seen before (by its hash: the group has no
 * pointers) is not entered again.
 *
 * After each step: at most one node acts as production within its lease; equal
 * committed stamps are equal content (C2, C3); nobody is told to host without
 * a majority that holds the state (C4); message 6 reaches each pair of
 * incarnations once.  Where all have joined and time has passed: production is
 * served, every copy has its host, and each pair had its message 6.
 *
 * join-exhaustive [SITES PER-SITE DEVIATIONS DEATHS LATE]: deviations happen in
 * the first LATE quanta of time after a join or death.
 */
#include <assert.h>
#include <inttypes.h>

#include "server/group_private.h"
#include "tests/tap.h"

#define NODES 6
#define INBOX 512
#define MESSAGES 8192
#define VISITED (1u << 22)
/* Not a part of a lease, so that something can happen just before its end. */
#define QUANTUM_MS 800
#define SETTLED 9       /* quanta after which nothing is awaited any more */

struct plugin {
  uint8_t role; /* enum host_role */
  uint64_t tenure, until_ms;
};

struct store {
  uint8_t open_by; /* node + 1 */
  bool unusable, clean;
  uint64_t generation, tenure;
};

/* Saved whole at each branch; the groups are saved apart. */
struct world {
  bool up[NODES];
  uint16_t incarnation[NODES];
  uint8_t joins_left[NODES];
  struct plugin plugin[NODES];
  struct store store[NODES]; /* by site */
  uint16_t inbox[NODES][INBOX]; /* messages, from `first` on */
  uint16_t first[NODES], last[NODES];
  uint64_t group_hash[NODES];
  uint64_t now_ms;
  uint32_t view;
  uint16_t n_messages;
  uint32_t arena;
  uint8_t deviations, deaths, quiet;
};

struct message {
  uint8_t from; /* NO: a view */
  uint8_t members;
  uint32_t view;
  uint32_t at, len; /* in the arena */
  uint64_t hash;
};

struct disk {
  struct crg_state state;
  uint64_t promised;
};

/* A message 6 that was accepted, or a commit that was seen. */
struct fact {
  uint64_t key, value;
};

static struct world w;
static struct group *group[NODES];
static struct disk *disk[NODES];
static struct message message[MESSAGES];
static uint8_t arena[8 << 20];
static struct group_actions acts;
static struct crg_state created;
static unsigned n_sites, per_site, n_nodes, late;
static uint64_t *visited, n_visited, n_steps, n_ends, n_facts;
static struct fact facts[1u << 16];
static char failure[256];
static char trail[4096];
static unsigned n_trail;

#define FNV UINT64_C (1469598103934665603)

static uint64_t
mix (uint64_t h, const void *p, size_t n)
{
  const uint8_t *b = p;
  uint64_t v;

  for (; n >= 8; n -= 8, b += 8) {
    memcpy (&v, b, 8);
    h = (h ^ v) * UINT64_C (0x9e3779b97f4a7c15);
    h ^= h >> 29;
  }
  for (; n > 0; n--)
    h = (h ^ *b++) * UINT64_C (1099511628211);
  return h;
}

static void
failed (const char *what, unsigned n)
{
  if (failure[0] == 0)
    snprintf (failure, sizeof failure, "%s: n%u at %" PRIu64 " ms after: %.*s", what, n + 1,
              w.now_ms, (int) MIN (n_trail, 120u), trail + n_trail - MIN (n_trail, 120u));
}

/* What decides what a group will do: all but counters, reports and scratch. */
static uint64_t
hash_group (const struct group *g)
{
  static const struct crg_state none;
  uint64_t h = mix (FNV, &g->cfg, offsetof (struct group, applied));

  (void) none;
  h = mix (h, &g->applied.stamp, offsetof (struct crg_state, def));
  h = mix (h, g->applied.def.nodes, n_nodes * sizeof g->applied.def.nodes[0]);
  h = mix (h, &g->applied.rec[0], sizeof g->applied.rec[0]);
  h = mix (h, &g->has_committed, offsetof (struct group, committed) - offsetof (struct group, has_committed));
  h = mix (h, &g->committed.stamp, offsetof (struct crg_state, def));
  h = mix (h, &g->committed.rec[0], sizeof g->committed.rec[0]);
  h = mix (h, &g->view, offsetof (struct group, peers) - offsetof (struct group, view));
  for (unsigned i = 0; i < CRG_MAX_NODES; i++)
    if (g->peers[i].id != NO_NODE)
      h = mix (h, &g->peers[i], offsetof (struct peer, report_len));
  h = mix (h, &g->host[0], sizeof g->host[0]);
  h = mix (h, &g->lease, offsetof (struct group, requests) - offsetof (struct group, lease));
  return h;
}

static uint64_t
hash_world (void)
{
  uint64_t h = mix (FNV, w.up, offsetof (struct world, inbox));

  for (unsigned n = 0; n < n_nodes; n++) {
    h = mix (h, &w.group_hash[n], sizeof w.group_hash[n]);
    for (unsigned i = w.first[n]; i < w.last[n]; i++)
      h = mix (h, &message[w.inbox[n][i]].hash, 8);
    h = mix (h, &n, sizeof n);
  }
  h = mix (h, &w.now_ms, sizeof w.now_ms);
  h = mix (h, &w.deviations, 3);
  return h == 0 ? 1 : h;
}

/* A fact that must not be contradicted.  Facts hold along one path only, so
 * they are counted back with it. */
static bool
state_fact (uint64_t key, uint64_t value, bool once)
{
  for (uint64_t i = n_facts; i-- > 0;)
    if (facts[i].key == key)
      return !once && facts[i].value == value;
  assert (n_facts < ARRAY_SIZE (facts));
  facts[n_facts++] = (struct fact) { key, value };
  return true;
}

static unsigned
site_of (unsigned n)
{
  return n / per_site;
}

static void feed (unsigned n, struct group_event *ev);

static void
push (unsigned n, unsigned m)
{
  assert (w.last[n] < INBOX);
  w.inbox[n][w.last[n]++] = (uint16_t) m;
}

static void
compact (unsigned n)
{
  memmove (w.inbox[n], w.inbox[n] + w.first[n],
           (size_t) (w.last[n] - w.first[n]) * sizeof w.inbox[n][0]);
  w.last[n] = (uint16_t) (w.last[n] - w.first[n]);
  w.first[n] = 0;
}

static unsigned
new_message (void)
{
  assert (w.n_messages < MESSAGES);
  memset (&message[w.n_messages], 0, sizeof message[0]);
  return w.n_messages++;
}

static void
send (unsigned n, const uint8_t *bytes, uint32_t len)
{
  unsigned m = new_message ();
  struct message *msg = &message[m];

  assert (w.arena + len <= sizeof arena);
  msg->from = (uint8_t) (n + 1);
  msg->at = w.arena;
  msg->len = len;
  memcpy (arena + w.arena, bytes, len);
  w.arena += len;
  msg->hash = mix (FNV, bytes, len);
  for (unsigned k = 0; k < n_nodes; k++)
    if (w.up[k])
      push (k, m);
}

static void
reform (void)
{
  unsigned m = new_message ();

  message[m].view = ++w.view;
  for (unsigned k = 0; k < n_nodes; k++)
    if (w.up[k])
      message[m].members |= (uint8_t) (1u << k);
  message[m].hash = mix (FNV, &message[m].members, 8);
  message[m].hash = mix (message[m].hash, &w.view, sizeof w.view);
  for (unsigned k = 0; k < n_nodes; k++)
    if (w.up[k])
      push (k, m);
}

/* ---- stores and plugins: what they answer, at once ----------------------- */

static void
store_info (unsigned n, struct store_info *info)
{
  const struct store *st = &w.store[site_of (n)];

  memset (info, 0, sizeof *info);
  info->has_super = info->agrees_ids = true;
  info->clean = st->clean;
  info->unusable = st->unusable;
  info->generation = st->generation;
  info->tenure = st->tenure;
  memcpy (info->lineage, created.lineage, CRG_ID_LEN);
  info->size = 1 << 20;
  info->can_host = st->open_by == 0 || st->open_by == n + 1;
}

static void
do_host (unsigned n, const struct group_action *a)
{
  struct plugin *p = &w.plugin[n];
  struct store *st = &w.store[site_of (n)];
  struct group_event ev = { .kind = GE_HOSTED, .role = a->role, .tenure = a->tenure };

  ev.ok = true;
  if (a->role == HOST_NONE) {
    if (p->role != HOST_NONE) {
      st->open_by = 0;
      st->clean = true;
    }
    memset (p, 0, sizeof *p);
  } else {
    const struct crg_state *c = group_committed (group[n]);
    uint32_t ids[NODES];
    unsigned votes = 0;

    /* C4: who is up has on disk what it has applied. */
    for (unsigned k = 0; k < n_nodes; k++) {
      const struct crg_state *s = w.up[k] ? group_applied (group[k]) : &disk[k]->state;

      if (stamp_compare (s->stamp, c->stamp) >= 0)
        ids[votes++] = k + 1;
    }
    if (!state_has_majority (c, ids, votes))
      failed ("told to host without a majority", n);
    if (st->open_by != 0 && st->open_by != n + 1)
      ev.ok = false;
    else {
      st->open_by = (uint8_t) (n + 1);
      st->clean = false;
      p->role = a->role;
      p->tenure = a->tenure;
      p->until_ms = a->role == HOST_PRODUCTION ? a->until_ms : 0;
      if (a->role == HOST_PRODUCTION)
        st->tenure = a->tenure;
    }
  }
  store_info (n, &ev.store);
  if (!ev.ok)
    snprintf (ev.reason, sizeof ev.reason, "locked");
  feed (n, &ev);
}

/* Production has filled the copy: it may enter the set (R3). */
static void
fill (unsigned n, const struct group_action *a)
{
  struct group_event ev = { .kind = GE_COPY_READY, .site = a->site, .seq = 1 };
  struct store *st = &w.store[a->site];

  if (w.plugin[n].role != HOST_PRODUCTION || w.plugin[a->node - 1].role != HOST_MIRROR
      || a->sync == SYNC_NONE)
    return;
  st->unusable = false;
  st->generation = group_committed (group[n])->rec[0].generation;
  st->tenure = w.plugin[n].tenure;
  feed (n, &ev);
}

static struct group_action queue[256];
static unsigned n_queue;

static void
step (unsigned n, struct group_event *ev)
{
  ev->now_ms = w.now_ms;
  group_step (group[n], ev, &acts);
  for (unsigned i = 0; i < acts.n; i++) {
    const struct group_action *a = &acts.a[i];

    if (a->kind == GA_SEND)
      send (n, acts.bytes + a->off, a->len);
    else if (a->kind == GA_HOST || a->kind == GA_PROBE || a->kind == GA_MIRROR_START) {
      assert (n_queue < ARRAY_SIZE (queue));
      queue[n_queue++] = *a;
    } else if (a->kind == GA_LEASE && a->until_ms > w.plugin[n].until_ms)
      w.plugin[n].until_ms = a->until_ms;
    else if (a->kind == GA_RECORD && w.plugin[n].role == HOST_PRODUCTION) {
      const struct iasp_rec *r = &group_committed (group[n])->rec[0];

      /* Lazily: production's store, and those that are connected. */
      for (unsigned s = 0; s < n_sites; s++)
        if (r->copies[s].in_set)
          w.store[s].generation = r->generation;
    } else if (a->kind == GA_LEAVE)
      failed ("leaves its group", n);
  }
}

static void
feed (unsigned n, struct group_event *ev)
{
  struct group_event probe;

  step (n, ev);
  while (n_queue > 0) {
    struct group_action a = queue[0];

    memmove (queue, queue + 1, --n_queue * sizeof queue[0]);
    if (a.kind == GA_HOST)
      do_host (n, &a);
    else if (a.kind == GA_MIRROR_START)
      fill (n, &a);
    else {
      memset (&probe, 0, sizeof probe);
      probe.kind = GE_PROBE;
      store_info (n, &probe.store);
      probe.ok = probe.store.can_host;
      step (n, &probe);
    }
  }
}

/* ---- invariants ---------------------------------------------------------- */

static void
judge (unsigned n)
{
  static uint8_t bytes[STATE_ENCODED_MAX];
  unsigned serving = 0;
  uint64_t serial = group[n]->serial;
  static uint64_t seen[NODES];

  for (unsigned k = 0; k < n_nodes; k++)
    serving += w.plugin[k].role == HOST_PRODUCTION && w.plugin[k].until_ms > w.now_ms;
  if (serving > 1)
    failed ("two production hosts within their leases", n);
  if (group[n]->has_committed && (serial != seen[n] || serial == 1)) {
    const struct crg_state *c = &group[n]->committed;
    size_t len = state_encode (c, bytes, sizeof bytes);
    uint64_t key = mix (FNV, &c->stamp, sizeof c->stamp);

    seen[n] = serial;
    if (!state_fact (key, mix (FNV, bytes, len), false))
      failed ("one committed stamp, two contents", n);
  }
}

/* All have joined, and nothing is awaited. */
static void
check_end (void)
{
  const struct crg_state *c = group_committed (group[0]);
  unsigned production = NODES;

  n_ends++;
  for (unsigned n = 0; n < n_nodes; n++) {
    if (!group_active (group[n])) {
      failed ("not active in the end", n);
      return;
    }
    if (stamp_compare (group_committed (group[n])->stamp, c->stamp) != 0)
      failed ("other states in the end", n);
    if (w.plugin[n].role == HOST_PRODUCTION && w.plugin[n].until_ms > w.now_ms)
      production = n;
  }
  if (production == NODES) {
    failed ("nobody serves in the end", 0);
    return;
  }
  for (unsigned s = 0; s < n_sites; s++) {
    uint32_t host = c->rec[0].copies[s].host;

    if (host == NO_NODE || w.plugin[host - 1].role == HOST_NONE)
      failed ("a copy without a host in the end", s);
    else if (s != site_of (production)
             && (group[host - 1]->host[0].start_node != production + 1
                 || group[host - 1]->host[0].start_incarnation != group[production]->cfg.incarnation
                 || !c->rec[0].copies[s].in_set))
      failed ("a copy that is not mirrored to in the end", s);
  }
}

/* ---- moves --------------------------------------------------------------- */

static void
deliver (unsigned n)
{
  const struct message *m = &message[w.inbox[n][w.first[n]++]];
  struct group_event ev = { .kind = GE_MSG };
  uint64_t starts = group[n]->counters.mirror_start;

  n_steps++;
  if (m->from == 0) {
    ev.kind = GE_VIEW;
    ev.view = m->view;
    for (unsigned k = 0; k < n_nodes; k++)
      if (m->members & (1u << k))
        ev.members[ev.n_members++] = k + 1;
  } else {
    ev.from = m->from;
    ev.buf = arena + m->at;
    ev.len = m->len;
  }
  feed (n, &ev);
  if (group[n]->counters.mirror_start != starts) {
    const struct hosting *h = &group[n]->host[0];
    uint64_t pair[4] = { h->start_node, h->start_incarnation, group[n]->cfg.incarnation,
                         h->start_tenure };

    if (!state_fact (mix (FNV + 1, pair, sizeof pair), 1, true))
      failed ("message 6 twice for one pair of incarnations", n);
  }
  w.group_hash[n] = hash_group (group[n]);
  compact (n);
  judge (n);
}

static void
join (unsigned n)
{
  struct group_config cfg = { .node_id = n + 1, .token_ms = 500, .lease_ms = 3000,
                              .start_wait_ms = 2000 };

  w.joins_left[n]--;
  w.up[n] = true;
  cfg.incarnation = 100u * ++w.incarnation[n] + n + 1;
  group_init (group[n], &cfg, &disk[n]->state, disk[n]->promised, w.now_ms);
  if (w.plugin[n].role != HOST_NONE) {
    /* S3: what its last run left is adopted. */
    struct group_event ev = { .kind = GE_HOSTED, .role = w.plugin[n].role,
                              .tenure = w.plugin[n].tenure, .ok = true };

    store_info (n, &ev.store);
    feed (n, &ev);
  }
  w.group_hash[n] = hash_group (group[n]);
  reform ();
}

/* Its crgd dies, and its plugin too unless `plugin_lives`.  `unsent`: what it
 * has sent and nobody has got is lost, as if it had died before. */
static void
die (unsigned n, bool unsent, bool plugin_lives)
{
  struct plugin *p = &w.plugin[n];

  w.deaths--;
  w.up[n] = false;
  disk[n]->state = group[n]->applied;
  disk[n]->promised = group[n]->promised;
  if (!plugin_lives) {
    if (p->role != HOST_NONE)
      w.store[site_of (n)].open_by = 0;
    memset (p, 0, sizeof *p);
  }
  for (unsigned k = 0; k < n_nodes && unsent; k++) {
    unsigned to = 0;

    /* All or none: a message that one of the others has got is got by all. */
    for (unsigned i = 0; i < w.last[k]; i++) {
      const struct message *m = &message[w.inbox[k][i]];
      bool everywhere = m->from == n + 1;

      for (unsigned j = 0; j < n_nodes && everywhere; j++) {
        bool has = !w.up[j];

        for (unsigned x = 0; x < w.last[j] && !has; x++)
          has = w.inbox[j][x] == w.inbox[k][i];
        everywhere = has;
      }
      /* Kept in place while the others are looked at. */
      if (!everywhere)
        w.inbox[k][to++] = w.inbox[k][i];
      else
        w.inbox[k][to++] = UINT16_MAX;
    }
  }
  for (unsigned k = 0; k < n_nodes && unsent; k++) {
    unsigned to = 0;

    for (unsigned i = 0; i < w.last[k]; i++)
      if (w.inbox[k][i] != UINT16_MAX)
        w.inbox[k][to++] = w.inbox[k][i];
    w.last[k] = (uint16_t) to;
  }
  w.first[n] = w.last[n] = 0;
  w.group_hash[n] = mix (hash_group (group[n]), "dead", 4);
  reform ();
}

static void
pass_time (void)
{
  w.now_ms += QUANTUM_MS;
  w.quiet++;
  for (unsigned n = 0; n < n_nodes; n++)
    if (w.up[n]) {
      struct group_event ev = { .kind = GE_TICK };

      feed (n, &ev);
      w.group_hash[n] = hash_group (group[n]);
      judge (n);
    }
}

/* ---- the search ---------------------------------------------------------- */

enum move { DELIVER, JOIN, DIE, DIE_UNSENT, DIE_CRGD, TIME, DRAIN };

/* Buffers that were used before: fresh pages cost more than the step. */
static struct group *spare[1024];
static unsigned n_spare;

static struct group *
get_group (void)
{
  struct group *g = n_spare > 0 ? spare[--n_spare] : malloc (sizeof *g);

  if (g == NULL)
    abort ();
  return g;
}

static void
put_group (struct group *g)
{
  if (n_spare < ARRAY_SIZE (spare))
    spare[n_spare++] = g;
  else
    free (g);
}

static bool
enter (uint64_t h)
{
  for (uint64_t i = h % VISITED;; i = (i + 1) % VISITED) {
    if (visited[i] == h)
      return false;
    if (visited[i] == 0) {
      visited[i] = h;
      n_visited++;
      assert (n_visited < VISITED / 4 * 3);
      return true;
    }
  }
}

static int
oldest (void)
{
  int best = -1;

  for (unsigned n = 0; n < n_nodes; n++)
    if (w.last[n] > 0 && (best < 0 || w.inbox[n][0] < w.inbox[best][0]))
      best = (int) n;
  return best;
}

static void explore (void);

static void
try_move (enum move move, unsigned n, bool deviates)
{
  struct world *saved = malloc (sizeof *saved);
  struct group *g[NODES] = { NULL };
  struct disk *d = NULL;
  uint64_t n_facts_saved = n_facts;
  unsigned n_trail_saved = n_trail;

  if (saved == NULL)
    abort ();
  *saved = w;
  for (unsigned k = 0; k < n_nodes; k++)
    if (move == TIME || move == DRAIN ? w.up[k] : k == n && (move == DELIVER || move == JOIN)) {
      g[k] = group[k];
      group[k] = get_group ();
      memcpy (group[k], g[k], sizeof **group);
    }
  if (move == DIE || move == DIE_UNSENT || move == DIE_CRGD) {
    d = malloc (sizeof *d);
    if (d == NULL)
      abort ();
    *d = *disk[n];
  }
  if ((move != DELIVER && move != DRAIN) || deviates)
    if (n_trail + 8 < sizeof trail)
      n_trail += (unsigned) snprintf (trail + n_trail, 8, "%c%u%s ", "djxXct-"[move], n + 1,
                                      deviates ? "!" : "");
  if (deviates)
    w.deviations--;
  if (move == JOIN || move == DIE || move == DIE_UNSENT || move == DIE_CRGD)
    w.quiet = 0;
  switch (move) {
  case DELIVER: deliver (n); break;
  case JOIN: join (n); break;
  case DIE: die (n, false, false); break;
  case DIE_UNSENT: die (n, true, false); break;
  case DIE_CRGD: die (n, false, true); break;
  case TIME: pass_time (); break;
  case DRAIN:
    for (int k = (int) n; k >= 0 && failure[0] == 0; k = oldest ())
      deliver ((unsigned) k);
    break;
  }
  if (failure[0] == 0)
    explore ();
  for (unsigned k = 0; k < n_nodes; k++)
    if (g[k] != NULL) {
      put_group (group[k]);
      group[k] = g[k];
    }
  if (d != NULL) {
    *disk[n] = *d;
    free (d);
  }
  w = *saved;
  n_facts = n_facts_saved;
  n_trail = n_trail_saved;
  free (saved);
}

static void
explore (void)
{
  int next = oldest ();
  bool settled = next < 0 && w.quiet >= SETTLED;
  bool free_join = next < 0 && w.quiet == 0, free_death = settled;
  bool may_deviate = w.deviations > 0 && w.quiet <= late;
  bool all_up = true;

  if (failure[0] != 0 || !enter (hash_world ()))
    return;
  for (unsigned n = 0; n < n_nodes; n++)
    all_up = all_up && w.up[n];
  if (settled && all_up)
    check_end ();
  for (unsigned n = 0; n < n_nodes; n++) {
    bool died = w.joins_left[n] == 1;

    if (!w.up[n] && w.joins_left[n] > 0
        && ((died ? settled : free_join) || may_deviate))
      try_move (JOIN, n, !(died ? settled : free_join));
    if (w.up[n] && w.deaths > 0 && (free_death || may_deviate)) {
      try_move (DIE, n, !free_death);
      if (w.plugin[n].role != HOST_NONE)
        try_move (DIE_CRGD, n, !free_death);
      if (next >= 0)
        try_move (DIE_UNSENT, n, !free_death);
    }
    if (may_deviate && next >= 0 && (int) n != next && w.last[n] > 0)
      try_move (DELIVER, n, true);
  }
  /* Nothing can happen on the way to quiet: it is one move. */
  if (next >= 0)
    try_move (may_deviate ? DELIVER : DRAIN, (unsigned) next, false);
  else if (w.quiet < SETTLED)
    try_move (TIME, 0, false);
}

static void
run (unsigned sites, unsigned nodes, unsigned deviations, unsigned deaths, unsigned quanta,
     uint64_t at_least)
{
  static const uint8_t lineage[CRG_ID_LEN] = { 7 };
  struct crg_def def;

  n_sites = sites;
  per_site = nodes;
  late = quanta;
  n_nodes = sites * nodes;
  memset (&def, 0, sizeof def);
  strcpy (def.name, "crg");
  def.n_sites = (uint8_t) sites;
  def.n_nodes = (uint8_t) n_nodes;
  def.n_iasps = 1;
  for (unsigned i = 0; i < sites; i++)
    snprintf (def.sites[i], sizeof def.sites[i], "site%u", i);
  for (unsigned i = 0; i < n_nodes; i++) {
    def.nodes[i].id = i + 1;
    snprintf (def.nodes[i].name, sizeof def.nodes[i].name, "n%u", i + 1);
    def.nodes[i].site = (uint8_t) site_of (i);
    def.nodes[i].preferred_role = i == 0 ? MEMBER_PRIMARY : MEMBER_BACKUP;
    def.nodes[i].votes = 1;
    def.nodes[i].order = def.nodes[i].preferred_order = (uint8_t) i;
  }
  strcpy (def.iasps[0].name, "iasp");
  def.iasps[0].size = 1 << 20;
  if (state_create (&created, &def, lineage) != NULL)
    abort ();
  created.started = true;
  memset (&w, 0, sizeof w);
  w.now_ms = 100000;
  w.deviations = (uint8_t) deviations;
  w.deaths = (uint8_t) deaths;
  for (unsigned n = 0; n < n_nodes; n++) {
    group[n] = calloc (1, sizeof **group);
    disk[n] = calloc (1, sizeof **disk);
    if (group[n] == NULL || disk[n] == NULL)
      abort ();
    disk[n]->state = created;
    disk[n]->promised = 1;
    w.joins_left[n] = 2;
    w.store[site_of (n)].generation = w.store[site_of (n)].tenure = 1;
    w.store[site_of (n)].unusable = site_of (n) != 0;
    w.store[site_of (n)].clean = true;
  }
  memset (visited, 0, VISITED * sizeof *visited);
  n_visited = n_steps = n_ends = n_facts = 0;
  explore ();
  ok (failure[0] == 0, "%u sites of %u nodes, %u deviations, %u deaths: %" PRIu64 " worlds, %" PRIu64
      " deliveries, %" PRIu64 " ends%s%s", sites, nodes, deviations, deaths, n_visited, n_steps, n_ends,
      failure[0] ? ": " : "", failure);
  ok (n_ends >= at_least, "... and all its ends were reached");
  for (unsigned n = 0; n < n_nodes; n++) {
    free (group[n]);
    free (disk[n]);
  }
}

int
main (int argc, char **argv)
{
  visited = calloc (VISITED, sizeof *visited);
  if (visited == NULL)
    return 1;
  if (argc == 6)
    run ((unsigned) atoi (argv[1]), (unsigned) atoi (argv[2]), (unsigned) atoi (argv[3]),
         (unsigned) atoi (argv[4]), (unsigned) atoi (argv[5]), 1);
  else {
    run (2, 1, 1, 1, SETTLED, 2);
    run (2, 2, 0, 1, 0, 24);
    run (2, 2, 1, 0, 0, 24);
  }
  free (visited);
  return tap_done ();
}
