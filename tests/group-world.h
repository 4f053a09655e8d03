/* SPDX-License-Identifier: BSD-3-Clause */
/* The world of the group core's unit tests: one simulated cluster, whose members are N1, N2 ... */
#ifndef TESTS_GROUP_WORLD_H
#define TESTS_GROUP_WORLD_H

#include <stdio.h>

#include "tests/sim/cluster.h"
#include "tests/tap.h"

#define WORLD_LEASE_MS 3000

static struct sim s;

enum { N1, N2, N3, N4, N5, N6 };

/* What all have: the CRG was started, the timers. */
static inline void
world_begin (struct sim_config cfg, uint64_t seed)
{
  cfg.started = true;
  cfg.token_ms = 1000;
  cfg.lease_ms = WORLD_LEASE_MS;
  cfg.start_wait_ms = 60000;
  sim_init (&s, &cfg, seed);
}

static inline void
world_boot (void)
{
  for (unsigned n = 0; n < s.n_nodes; n++)
    sim_boot (&s, n);
}

/* All boot; true: all is served and mirrored, and settle_ms have passed. */
static inline bool
world_up (struct sim_config cfg, uint64_t seed, uint64_t settle_ms)
{
  bool up;

  world_begin (cfg, seed);
  world_boot ();
  up = sim_until (&s, sim_converged, 20000);
  sim_run (&s, settle_ms);
  return up;
}

static inline void
end (const char *what)
{
  if (!ok (!s.failed, "%s: no promise was broken", what)) {
    printf ("# %s\n", s.failure);
    sim_dump (&s);
  }
  sim_destroy (&s);
}

/* What member n takes for committed; all zeroes if it knows of nothing. */
static inline const struct crg_state *
state (unsigned n)
{
  static struct crg_state none;
  const struct crg_state *c = group_committed (s.node[n].g);

  return c != NULL ? c : &none;
}

#endif /* TESTS_GROUP_WORLD_H */
