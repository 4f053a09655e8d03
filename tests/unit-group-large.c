/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The largest group that has one node a site: 8 sites, 8 resources that move by themselves, all of them
 * preferred at one node.  What a commit asks of that node is more than one step can do, so the core leaves
 * what doesn't fit for later steps (group_room ()); nothing of it may be lost, and no step may overflow.
 * Eight real cores on a bus with one order; stores and plugins do at once what they are told.
 */
#include "server/group_private.h"
#include "tests/tap.h"

#define NODES 8u
#define RES   8u

struct letter {
  uint32_t from;
  size_t len;
  uint8_t *bytes;
};

static struct group g[NODES];
static struct group_actions out;
static struct letter bus[65536];
static size_t n_bus, read_bus;
static struct group_event answers[NODES][1024];
static unsigned n_answers[NODES];
static bool dead[NODES];
static uint64_t now = 1000;
static unsigned most; /* actions in one step */
static unsigned started[RES][NODES]; /* messages 6 carried out by a copy, by its site */
static unsigned connected[RES][NODES]; /* ... by production */

static struct store_info
disk (unsigned n, unsigned i)
{
  const struct crg_state *s = group_committed (&g[n]);
  struct store_info st = { .can_host = true, .has_super = true, .agrees_ids = true, .clean = true, .tenure = 1,
                           .generation = 1, .size = 4096 };

  memcpy (st.lineage, s->lineage, CRG_ID_LEN);
  st.generation = s->rec[i].copies[n].since;
  st.unusable = !s->rec[i].copies[n].in_set;
  return st;
}

static void
step (unsigned n, struct group_event *ev)
{
  ev->now_ms = now;
  group_step (&g[n], ev, &out);
  most = MAX (most, out.n);
  for (unsigned k = 0; k < out.n; k++) {
    const struct group_action *a = &out.a[k];
    struct group_event re = { .iasp = a->iasp, .ok = true };

    switch (a->kind) {
    case GA_SEND:
      if (n_bus == sizeof bus / sizeof bus[0])
        abort ();
      bus[n_bus] = (struct letter){ .from = n + 1, .len = a->len, .bytes = malloc (a->len) };
      if (!bus[n_bus].bytes)
        abort ();
      memcpy (bus[n_bus++].bytes, out.bytes + a->off, a->len);
      continue;
    case GA_PROBE:
      re.kind = GE_PROBE;
      re.store = disk (n, a->iasp);
      break;
    case GA_HOST:
      re.kind = GE_HOSTED;
      re.role = a->role;
      re.tenure = a->tenure;
      re.store = disk (n, a->iasp);
      break;
    case GA_MIRROR_START:
      if (g[n].host[a->iasp].told_role == HOST_MIRROR)
        started[a->iasp][n]++;
      else
        connected[a->iasp][a->site]++;
      continue;
    default:
      continue;
    }
    if (n_answers[n] == sizeof answers[0] / sizeof answers[0][0])
      abort ();
    answers[n][n_answers[n]++] = re;
  }
}

/* All that is under way, then ms of time. */
static void
run (unsigned ms)
{
  for (uint64_t until = now + ms; now < until; now += 20) {
    for (unsigned n = 0; n < NODES; n++)
      if (!dead[n])
        step (n, &(struct group_event){ .kind = GE_TICK });
    for (bool more = true; more;) {
      more = false;
      if (read_bus < n_bus) {
        struct letter *l = &bus[read_bus++];

        more = true;
        for (unsigned n = 0; n < NODES; n++)
          if (!dead[n] && !dead[l->from - 1])
            step (n, &(struct group_event){ .kind = GE_MSG, .from = l->from, .buf = l->bytes, .len = l->len });
        free (l->bytes);
      }
      else
        n_bus = read_bus = 0;
      for (unsigned n = 0; n < NODES; n++)
        for (; n_answers[n] > 0 && !dead[n]; more = true) {
          struct group_event ev = answers[n][0];

          n_answers[n]--;
          memmove (&answers[n][0], &answers[n][1], n_answers[n] * sizeof answers[n][0]);
          step (n, &ev);
        }
    }
  }
}

static void
view (uint64_t id)
{
  struct group_event ev = { .kind = GE_VIEW, .view = id };

  for (unsigned n = 0; n < NODES; n++)
    if (!dead[n])
      ev.members[ev.n_members++] = n + 1;
  for (unsigned n = 0; n < NODES; n++)
    if (!dead[n])
      step (n, &ev);
}

static void
create (struct crg_state *s)
{
  static const uint8_t lineage[CRG_ID_LEN] = { 9 };
  static struct crg_def d;

  strcpy (d.name, "large");
  d.placement = PLACEMENT_ACCESS;
  d.n_sites = d.n_nodes = NODES;
  d.n_iasps = RES;
  for (unsigned i = 0; i < NODES; i++) {
    snprintf (d.sites[i], sizeof d.sites[i], "s%u", i);
    d.nodes[i].id = i + 1;
    snprintf (d.nodes[i].name, sizeof d.nodes[i].name, "n%u", i + 1);
    d.nodes[i].site = d.nodes[i].order = d.nodes[i].preferred_order = (uint8_t) i;
    d.nodes[i].preferred_role = MEMBER_BACKUP;
    d.nodes[i].votes = 1;
    d.nodes[i].n_addresses = 1;
    strcpy (d.nodes[i].addresses[0], "127.0.0.1");
  }
  for (unsigned k = 0; k < RES; k++) {
    snprintf (d.iasps[k].name, sizeof d.iasps[k].name, "r%u", k);
    d.iasps[k].size = 4096;
    for (unsigned i = 0; i < NODES; i++) {
      d.iasps[k].order[i] = (uint8_t) i;
      strcpy (d.iasps[k].store[i], "/store");
    }
  }
  if (state_create (s, &d, lineage) != NULL)
    abort ();
  s->started = true;
}

static bool
all_served_by (unsigned n)
{
  static struct group_status st;
  const struct crg_state *s = group_committed (&g[n]);

  group_status (&g[n], now, &st);
  for (unsigned k = 0; k < RES; k++)
    if (state_unit_host (s, k) != n + 1)
      return false;
  return st.served == 0xff;
}

static unsigned
count (uint8_t kind)
{
  unsigned n = 0;

  for (unsigned k = 0; k < out.n; k++)
    n += out.a[k].kind == kind;
  return n;
}

/* Ticks of a copy of production's core, which wants all at once what `kind` says: in more than one step, none
 * of which is more than full, and each thing once. */
static void
spread (struct group *h, uint8_t kind, unsigned want, const char *what)
{
  unsigned steps = 0, got = 0, last = 1;

  for (; steps < 20 && last > 0; steps++) {
    group_step (h, &(struct group_event){ .kind = GE_TICK, .now_ms = now }, &out);
    last = count (kind);
    got += last;
  }
  ok (got == want && steps > 2, "%s: %u of %u in %u steps", what, got, want, steps - 1);
}

static void
full_steps (void)
{
  static struct group h;

  h = g[0];
  for (unsigned k = 0; k < RES; k++) {
    h.host[k].record_told = false;
    h.lease[k].renew_ms = h.lease[k].told_ms = 0;
    for (unsigned site = 1; site < NODES; site++)
      h.host[k].link[site].told_node = NO_NODE;
  }
  spread (&h, GA_MIRROR_START, 56, "56 links, 8 records, 8 leases");
  h = g[0];
  for (unsigned k = 0; k < RES; k++)
    for (unsigned site = 1; site < NODES; site++)
      h.host[k].link[site].node = NO_NODE;
  spread (&h, GA_SEND, 56, "56 messages 6");
  h = g[0];
  for (unsigned n = 1; n < NODES; n++)
    group_peer (&h, n + 1)->in_view = false;
  h.started_ms = 0;
  for (unsigned n = 1; n < NODES; n++)
    group_peer (&h, n + 1)->heard_ms = 0;
  spread (&h, GA_UNMIRROR, 56, "56 copies without a host");
  h = g[0];
  for (unsigned k = 0; k < RES; k++)
    for (unsigned site = 1; site < NODES; site++) {
      h.committed.rec[k].copies[site].suspended = true;
      h.host[k].link[site].told_gone = false;
    }
  h.applied = h.committed;
  spread (&h, GA_UNMIRROR, 56, "56 copies suspended by an operator");
  ok (h.host[7].record_told && memcmp (&h.host[7].told_record, &h.committed.rec[7], sizeof h.committed.rec[7]) == 0,
      "... and their records come after that");
}

int
main (void)
{
  static struct crg_state created;
  unsigned lacking = 0, outside = 0;

  create (&created);
  for (unsigned n = 0; n < NODES; n++) {
    struct group_config cfg = { .node_id = n + 1, .incarnation = 100 + n, .token_ms = 1000, .lease_ms = 3000,
                                .start_wait_ms = 60000, .boot_id = { (uint8_t) (n + 1) } };

    group_init (&g[n], &cfg, &created, 1, now);
  }
  view (1);
  run (4000);
  ok (all_served_by (0), "one node serves all eight");
  for (unsigned k = 0; k < RES; k++)
    for (unsigned site = 1; site < NODES; site++)
      lacking += started[k][site] != 1 || connected[k][site] == 0;
  is (lacking, 0, "each of 56 copies was started once, and production connects to each");

  /* While the members of a new view agree on the state its plugins say that they were started anew: record,
   * lease and links of all of them are told again, at once. */
  memset (connected, 0, sizeof connected);
  most = 0;
  view (2);
  for (unsigned k = 0; k < RES; k++)
    step (0, &(struct group_event){ .kind = GE_HOSTED, .iasp = (uint8_t) k, .ok = true, .role = HOST_PRODUCTION,
                                    .tenure = 1, .store = disk (0, k) });
  run (2000);
  lacking = 0;
  for (unsigned k = 0; k < RES; k++)
    for (unsigned site = 1; site < NODES; site++)
      lacking += started[k][site] != 1 || connected[k][site] != 1;
  ok (all_served_by (0) && lacking == 0, "... and each link is made again, no copy is started twice (%u are not so)", lacking);
  ok (most < GROUP_MAX_ACTIONS, "a step had up to %u actions, of at most %u", most, GROUP_MAX_ACTIONS);
  full_steps ();

  /* All copies are ready at once. */
  for (unsigned k = 0; k < RES; k++)
    for (uint8_t site = 1; site < NODES; site++)
      step (0, &(struct group_event){ .kind = GE_COPY_READY, .iasp = (uint8_t) k, .site = site, .seq = site });
  run (10000);
  for (unsigned k = 0; k < RES; k++)
    for (unsigned site = 0; site < NODES; site++)
      outside += !group_committed (&g[7])->rec[k].copies[site].in_set;
  is (outside, 0, "R3: and all enter the set, one after the other");

  /* It dies: all eight move on. */
  most = 0;
  dead[0] = true;
  view (3);
  run (12000);
  ok (all_served_by (1), "F2: the next node serves all eight");
  for (unsigned k = 0; k < RES; k++)
    check (group_committed (&g[7])->rec[k].tenure == 2, "resource %u has tenure %u", k,
           (unsigned) group_committed (&g[7])->rec[k].tenure);
  ok (most < GROUP_MAX_ACTIONS, "a step had up to %u actions", most);
  return tap_done ();
}
