/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The oracle of the join: every order in which the nodes join ends in the
 * same group state, and each message of the join is counted.  2 + 2 nodes:
 * exactly 3 GROUP-STATE, 2 CONFIG, 1 MIRROR-START, and nothing is hosted
 * before a majority is there.  Also with a replicate, with 3 and 4 sites, and
 * with resources that are hosted by different members (Fig. 4).
 * Each order runs twice: each join settled before the next, and overlapping.
 */
#include <inttypes.h>

#include "tests/sim/cluster.h"
#include "tests/tap.h"

struct result {
  uint8_t state[16 * 1024];
  size_t len;
  uint64_t group_state, config, mirror_start;
};

static struct sim s;

static void
collect (struct result *r)
{
  static struct crg_state copy;

  memset (r, 0, sizeof *r);
  for (unsigned n = 0; n < s.n_nodes; n++) {
    const struct group_counters *c = &s.node[n].g->counters;

    r->group_state += c->group_state;
    r->config += c->config;
    r->mirror_start += c->mirror_start;
  }
  copy = s.node[0].g->committed;
  copy.stamp = (struct stamp) { 0, 0 }; /* epochs may differ, content may not */
  r->len = state_encode (&copy, r->state, sizeof r->state);
}

static bool
nothing_is_hosted (void)
{
  for (unsigned n = 0; n < s.n_nodes; n++)
    for (unsigned i = 0; i < s.cfg.n_iasps; i++)
      if (s.node[n].plugin[i].running)
        return false;
  return true;
}

static bool
run_order (const struct sim_config *cfg, const unsigned *order, uint64_t seed, bool overlap,
           struct result *r)
{
  unsigned majority;

  sim_init (&s, cfg, seed);
  majority = s.n_nodes / 2 + 1;
  for (unsigned k = 0; k < s.n_nodes; k++) {
    sim_boot (&s, order[k]);
    if (overlap) {
      /* Joins in the middle of the running protocol. */
      unsigned steps = (unsigned) sim_random (&s, 60);

      for (unsigned i = 0; i < steps; i++)
        sim_step (&s);
    } else
      sim_run (&s, 3000);
    if (k + 1 < majority && !nothing_is_hosted ())
      sim_fail (&s, "something is hosted by %u of %u nodes", k + 1, s.n_nodes);
  }
  if (!sim_until (&s, sim_converged, 20000))
    sim_fail (&s, "not converged");
  sim_run (&s, 5000); /* and nothing more happens */
  collect (r);
  if (s.failed)
    sim_dump (&s);
  return !s.failed;
}

/* The next permutation in lexical order. */
static bool
next_order (unsigned *a, unsigned n)
{
  unsigned i = n - 1, j = n - 1;

  while (i > 0 && a[i - 1] >= a[i])
    i--;
  if (i == 0)
    return false;
  while (a[j] <= a[i - 1])
    j--;
  unsigned t = a[i - 1];
  a[i - 1] = a[j];
  a[j] = t;
  for (j = n - 1; i < j; i++, j--) {
    t = a[i];
    a[i] = a[j];
    a[j] = t;
  }
  return true;
}

static void
all_orders (const char *name, unsigned sites, unsigned per_site, unsigned replicates,
            unsigned resources, unsigned limit, bool overlap)
{
  /* Fig. 4, where there are more resources than one: each hears message 5 of its
   * subgroups by itself, and has a message 6 to each of its copies. */
  struct sim_config cfg = {
    .n_sites = sites, .nodes_per_site = per_site, .n_replicates = replicates,
    .n_iasps = resources, .access = resources > 1, .scripts = sites == 1 ? 4 : 0,
    .started = true, .one_machine = true, .calm = !overlap,
    .token_ms = 1000, .lease_ms = 3000, .start_wait_ms = 60000,
  };
  static struct result first, r;
  unsigned config = resources * sites * (per_site - 1), start = resources * (sites - 1);
  unsigned n = sites * per_site + replicates, count = 0, good = 0, order[SIM_NODES];
  uint64_t rng = 42;

  for (unsigned i = 0; i < n; i++)
    order[i] = i;
  do {
    bool fine;

    if (limit > 0) {
      /* Too many to run all: a sample, the same in each run. */
      for (unsigned i = n - 1; i > 0; i--) {
        unsigned j, t;

        rng = rng * UINT64_C (6364136223846793005) + 1442695040888963407u;
        j = (unsigned) ((rng >> 33) % (i + 1));
        t = order[i];
        order[i] = order[j];
        order[j] = t;
      }
    }
    fine = run_order (&cfg, order, count + 1, overlap, &r);
    if (count == 0)
      first = r;
    fine = fine && r.group_state == n - 1 && r.config == config
           && r.mirror_start == start && r.len == first.len
           && memcmp (r.state, first.state, r.len) == 0;
    /* Not only received once: sent once, if no view dropped it (H5). */
    fine = fine && s.sent[MSG_CONFIG] <= (overlap ? 3 : 1) * r.config
           && s.sent[MSG_MIRROR_START] <= (overlap ? 3 : 1) * r.mirror_start;
    if (!fine) {
      printf ("# order");
      for (unsigned i = 0; i < n; i++)
        printf (" n%u", order[i] + 1);
      printf (": %" PRIu64 " GROUP-STATE, %" PRIu64 " CONFIG, %" PRIu64 " MIRROR-START%s%s\n",
              r.group_state, r.config, r.mirror_start,
              r.len == first.len && memcmp (r.state, first.state, r.len) == 0
                ? "" : ", another state ", s.failure);
      if (good + 3 < count)
        break;
    } else
      good++;
    sim_destroy (&s);
    count++;
  } while (limit > 0 ? count < limit : next_order (order, n));
  ok (good == count && count > 0,
      "%s, %s: %u of %u orders: same state, %u GROUP-STATE, %u CONFIG, %u MIRROR-START", name,
      overlap ? "overlapping" : "one by one", good, count, n - 1, config, start);
}

int
main (void)
{
  for (unsigned overlap = 0; overlap < 2; overlap++) {
    all_orders ("2 + 2 nodes", 2, 2, 0, 1, 0, overlap);
    all_orders ("2 + 2 nodes and a replicate", 2, 2, 1, 1, 0, overlap);
    all_orders ("3 sites of 2 nodes", 3, 2, 0, 1, 40, overlap);
    all_orders ("4 sites of 2 nodes", 4, 2, 0, 1, 20, overlap);
    all_orders ("Fig. 4, 3 nodes with access to 2 stores and a printer", 1, 3, 0, 3, 0, overlap);
    all_orders ("Fig. 4, 2 + 2 nodes, 3 mirrored IASPs", 2, 2, 0, 3, 0, overlap);
  }
  return tap_done ();
}
