/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Random histories of a cluster: joins, leaves, cuts, merges, kills at every
 * action boundary, pauses, failing disks, lost machines, switchovers.  After
 * each step the cluster checks that at most one node acts as production, that
 * committed states agree, that tenures rise with the host, and that no
 * answered write is lost; at the end everything is healed and has to
 * converge.  `sim-group [FIRST [COUNT]]` runs these seeds; one seed: with a
 * trace.
 */
#include <inttypes.h>

#include "tests/sim/cluster.h"
#include "tests/tap.h"

static struct sim s;

static void
choose_config (struct sim_config *cfg, uint64_t seed)
{
  static const struct sim_config shapes[] = {
    { .n_sites = 2, .nodes_per_site = 2, .n_replicates = 1 },
    { .n_sites = 2, .nodes_per_site = 1, .n_replicates = 1 },
    { .n_sites = 2, .nodes_per_site = 2, .n_replicates = 0 },
    { .n_sites = 3, .nodes_per_site = 1, .n_replicates = 0 },
    { .n_sites = 3, .nodes_per_site = 2, .n_replicates = 1 },
    { .n_sites = 1, .nodes_per_site = 3, .n_replicates = 0 },
    { .n_sites = 2, .nodes_per_site = 1, .n_replicates = 0, .votes = { 2, 1 } },
  };

  *cfg = shapes[seed % ARRAY_SIZE (shapes)];
  cfg->n_iasps = seed % 5 == 0 ? 2 : 1;
  cfg->scripts = seed % 10 == 0 ? 2 : 0;
  cfg->takeover = seed % 3 == 0 ? TAKEOVER_ORDER : TAKEOVER_SAME_SITE_FIRST;
  cfg->started = true;
  cfg->one_machine = seed % 2 == 0;
  cfg->token_ms = 300;
  cfg->lease_ms = 1200;
  cfg->start_wait_ms = 4000;
}

/* One thing goes wrong, or right again. */
static void
disturb (void)
{
  unsigned n = (unsigned) sim_random (&s, s.n_nodes);
  unsigned part[SIM_NODES] = { 0 };

  switch (sim_random (&s, 23)) {
  case 0:
  case 1:
    sim_kill (&s, n);
    if (sim_random (&s, 3) > 0)
      s.node[n].restart_ms = s.now_ms + 1 + sim_random (&s, 4000);
    break;
  case 2:
    sim_leave (&s, n);
    s.node[n].restart_ms = s.now_ms + 1 + sim_random (&s, 6000);
    break;
  case 3:
    sim_kill_plugins (&s, n);
    break;
  case 4:
  case 5:
    for (unsigned i = 0; i < s.n_nodes; i++)
      part[i] = (unsigned) sim_random (&s, 2);
    sim_part (&s, part);
    break;
  case 6:
    /* The sites lose sight of each other. */
    for (unsigned i = 0; i < s.n_nodes; i++)
      part[i] = i < s.cfg.n_sites * s.cfg.nodes_per_site ? i / s.cfg.nodes_per_site
                                                         : (unsigned) sim_random (&s, 2);
    sim_part (&s, part);
    break;
  case 7:
  case 8:
    sim_heal (&s);
    break;
  case 9:
  case 10:
    sim_pause (&s, n, !s.node[n].paused);
    break;
  case 11:
    for (unsigned i = 0; i < s.n_nodes; i++) {
      sim_pause (&s, i, false);
      sim_boot (&s, i);
    }
    break;
  case 12:
    s.node[n].persist_fails = 1;
    break;
  case 13:
  case 14:
    sim_request (&s, n, GR_SWITCHOVER,
                 sim_random (&s, 2) ? NO_NODE : 1 + (uint32_t) sim_random (&s, s.n_nodes));
    break;
  case 20:
  case 21:
    sim_copy (&s, n, GR_SUSPEND + (unsigned) sim_random (&s, 4),
              (unsigned) sim_random (&s, s.cfg.n_iasps), (unsigned) sim_random (&s, s.cfg.n_sites),
              (enum detached_export) sim_random (&s, DETACHED_END), sim_random (&s, 2));
    break;
  case 22:
    sim_force (&s, n, 1 + (uint32_t) sim_random (&s, s.n_nodes));
    break;
  case 16:
    sim_store_fails (&s, n, (unsigned) sim_random (&s, s.cfg.n_iasps));
    break;
  case 17:
    if (!s.wiped && s.n_nodes >= 3 && s.cfg.votes[0] == 0) {
      sim_wipe (&s, n);
      s.node[n].restart_ms = s.now_ms + 1 + sim_random (&s, 3000);
    }
    break;
  case 18:
    sim_request (&s, n, sim_random (&s, 3) ? GR_START : GR_END, NO_NODE);
    break;
  case 19:
    sim_request (&s, n, GR_MARK_FAILED, 1 + (uint32_t) sim_random (&s, s.n_nodes));
    break;
  case 15:
    if (sim_random (&s, 4) == 0) {
      if (s.cfg.one_machine)
        sim_leave (&s, n);
      else
        sim_power_off (&s, n);
      s.node[n].machine_up = true;
      s.node[n].restart_ms = s.now_ms + 1 + sim_random (&s, 2000);
    }
    /* Everywhere at once, now and then. */
    if (!s.cfg.one_machine && sim_random (&s, 8) == 0)
      for (unsigned i = 0; i < s.n_nodes; i++) {
        sim_power_off (&s, i);
        s.node[i].machine_up = true;
        s.node[i].restart_ms = s.now_ms + 1 + sim_random (&s, 8000);
      }
    break;
  }
}

/* What an operator has to do, every 2 s, until it is well. */
static bool
repair_until_converged (void)
{
  for (unsigned k = 0; k < 30 && !s.failed; k++) {
    const struct crg_state *c = group_committed (s.node[0].g);

    if (sim_until (&s, sim_converged, 2000))
      return true;
    if (c == NULL || s.failed || !s.node[0].running)
      continue;
    if (!c->started)
      sim_request (&s, 0, GR_START, NO_NODE);
    for (unsigned i = 0; i < s.cfg.n_iasps; i++)
      for (unsigned site = 0; site < s.cfg.n_sites; site++)
        if (c->rec[i].copies[site].barred)
          sim_unbar (&s, 0, i, site);
        else if (c->rec[i].copies[site].detached)
          sim_copy (&s, 0, GR_REATTACH, i, site, DETACHED_CLOSED, true);
        else if (c->rec[i].copies[site].suspended)
          sim_copy (&s, 0, GR_RESUME, i, site, DETACHED_CLOSED, false);
  }
  return sim_converged (&s);
}

static bool
run_seed (uint64_t seed, bool trace)
{
  struct sim_config cfg;
  unsigned rounds;

  choose_config (&cfg, seed);
  sim_init (&s, &cfg, seed);
  s.trace = trace;
  s.cuts_lose = true;
  s.kill_ppm = seed % 4 == 0 ? 300 : 0;
  for (unsigned n = 0; n < s.n_nodes; n++)
    if (sim_random (&s, 4) > 0)
      sim_boot (&s, n);
  rounds = 5 + (unsigned) sim_random (&s, 25);
  for (unsigned r = 0; r < rounds && !s.failed; r++) {
    unsigned steps = (unsigned) sim_random (&s, r % 3 == 0 ? 40 : 800);

    for (unsigned i = 0; i < steps; i++)
      if (!sim_step (&s))
        break;
    if (!s.failed)
      disturb ();
  }
  /* Healed: it has to come back by itself. */
  s.kill_ppm = 0;
  for (unsigned n = 0; n < s.n_nodes && !s.failed; n++) {
    s.node[n].persist_fails = 0;
    s.node[n].machine_up = true;
    sim_pause (&s, n, false);
    sim_boot (&s, n);
  }
  if (!s.failed)
    sim_heal (&s);
  if (!s.failed && !repair_until_converged ())
    sim_fail (&s, "healed, but not converged after 60 s");
  if (s.failed) {
    printf ("# seed %" PRIu64 ": %s\n", seed, s.failure);
    sim_dump (&s);
  }
  return !s.failed;
}

int
main (int argc, char **argv)
{
  uint64_t first = argc > 1 ? strtoull (argv[1], NULL, 10) : 1;
  uint64_t count = argc > 2 ? strtoull (argv[2], NULL, 10) : argc > 1 ? 1 : 400;
  uint64_t good = 0, acks = 0, commits = 0, steps = 0, bad = 0;

  for (uint64_t seed = first; seed < first + count; seed++) {
    if (run_seed (seed, count == 1))
      good++;
    else
      bad++;
    acks += s.acks;
    commits += s.n_commits;
    steps += s.steps;
    sim_destroy (&s);
    if (bad >= 5)
      break;
  }
  ok (good == count, "%" PRIu64 " of %" PRIu64 " seeds: %" PRIu64 " steps, %" PRIu64
      " commits, %" PRIu64 " answered writes", good, count, steps, commits, acks);
  ok (acks > count, "writes were answered");
  return tap_done ();
}
