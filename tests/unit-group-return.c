/* SPDX-License-Identifier: BSD-3-Clause
 *
 * F7 and S3, in a simulated cluster of real group cores: a crgd that restarts
 * over its living plugins costs no failover and no pause, one that does not
 * come back costs what the lease costs and no more.
 * 2 + 2 nodes and a replicate: n1 n2 at site 0, n3 n4 at site 1, n5 votes.
 */
#include <inttypes.h>

#include "tests/group-world.h"

static struct group_status st;

static void
up (struct sim_config cfg)
{
  cfg.n_sites = 2;
  cfg.calm = cfg.always_adopts = true;
  ok (world_up (cfg, 1, 5000), "all nodes: served and mirrored");
}

static const struct sim_config wide = { .nodes_per_site = 2, .n_replicates = 1, .n_iasps = 2 };

static bool
another_serves (struct sim *sim)
{
  for (unsigned i = 0; i < sim->cfg.n_iasps; i++)
    if (sim_production (sim, i) <= (int) N1)
      return false;
  return true;
}

/* The longest time without an answered write while `ms` pass. */
static uint64_t
longest_pause (uint64_t ms)
{
  uint64_t until = s.now_ms + ms, last = s.acks, since = s.now_ms, longest = 0;

  while (s.now_ms < until && sim_step (&s)) {
    if (s.acks != last) {
      last = s.acks;
      since = s.now_ms;
    }
    longest = MAX (longest, s.now_ms - since);
  }
  return longest;
}

static void
production_restarts (void)
{
  uint64_t pause, generation, since;

  up (wide);
  generation = state (N2)->rec[0].generation;
  sim_kill (&s, N1);
  pause = longest_pause (1500);
  group_status (s.node[N2].g, s.node[N2].g->now_ms, &st);
  ok (strstr (st.wait_reason, "F7") != NULL && strstr (st.wait_reason, "n1") != NULL,
      "F7: the host that left is waited for, visibly: %s", st.wait_reason);
  ok (sim_production (&s, 0) == N1 && sim_production (&s, 1) == N1,
      "... and its plugins serve on, within their lease");
  sim_boot (&s, N1);
  pause = MAX (pause, longest_pause (8000));
  ok (pause < 500, "F7, S3: adopted; the longest pause: %" PRIu64 " ms", pause);
  ok (state_tenure (state (N2)) == 1 && state (N2)->rec[0].generation == generation,
      "no failover: same tenure, same generation");
  ok (sim_converged (&s), "served and mirrored as before");
  end ("crgd of the production host restarts");

  /* Its last run died in the middle of a switchover, and what holds I/O tells its status when
   * this run has asked for the role already. */
  for (uint32_t ms = 1; ms <= 2500; ms += 357) {
    struct sim_config late = wide;

    late.adopt_ms = ms;
    up (late);
    for (unsigned i = 0; i < 2; i++)
      s.node[N1].plugin[i].held = true;
    sim_kill (&s, N1);
    sim_boot (&s, N1);
    sim_run (&s, 6000);
    ok (!s.node[N1].plugin[0].held && !s.node[N1].plugin[1].held && sim_converged (&s),
        "F6, S3: found after %u ms, held, it goes on", (unsigned) ms);
    end ("crgd of the production host restarts in a switchover");
  }

  up (wide);
  sim_kill (&s, N1);
  since = s.now_ms;
  ok (sim_until (&s, another_serves, 20000), "a crgd that does not come back is replaced");
  since = s.now_ms - since;
  ok (since >= WORLD_LEASE_MS - WORLD_LEASE_MS / LEASE_PARTS && since <= WORLD_LEASE_MS * 105 / 100 + 300,
      "L3, F7: ... when its lease is over and no later: %" PRIu64 " ms", since);
  sim_boot (&s, N1);
  ok (sim_until (&s, sim_converged, 30000), "S3: back again, it is not production any more");
  end ("crgd of the production host does not return");

  up (wide);
  sim_kill (&s, N1);
  sim_run (&s, 500);
  sim_request (&s, N5, GR_MARK_FAILED, 1);
  sim_run (&s, 500);
  ok (state_production_host (state (N5)) != 1, "F5: mark-failed ends that wait, too");
  ok (sim_production (&s, 0) <= (int) N1,
      "L3: ... but the next one opens only after the lease");
  sim_run (&s, 4000);
  ok (sim_production (&s, 0) > (int) N1, "and then it does: n%d", sim_production (&s, 0) + 1);
  end ("marked failed");

  /* After a takeover there are earlier leases to wait for, and here no majority
   * without the node itself: what the adopted plugins show need not be waited
   * for again. */
  struct sim_config two = { .nodes_per_site = 1, .n_iasps = 2, .votes = { 2, 1 } };
  up (two);
  sim_request (&s, N1, GR_SWITCHOVER, 2);
  sim_run (&s, 10000);
  sim_request (&s, N1, GR_SWITCHOVER, 1);
  sim_run (&s, 10000);
  ok (sim_converged (&s) && state_tenure (state (N1)) == 3,
      "two nodes, switched over and back: tenure %" PRIu64, state_tenure (state (N1)));
  sim_run (&s, 4000);
  sim_kill (&s, N1);
  pause = longest_pause (500);
  sim_boot (&s, N1);
  pause = MAX (pause, longest_pause (8000));
  ok (pause < 500, "L3: its tenure was opened after every earlier lease; pause %" PRIu64 " ms", pause);
  is ((long long) state_tenure (state (N1)), 3, "same tenure");
  end ("two nodes");
}

/* S1 d: nobody is fenced for a restart of crgd. */
static void
fence (void)
{
  struct sim_config cfg = wide;

  cfg.fence = true;
  up (cfg);
  sim_kill (&s, N1);
  sim_run (&s, 1500);
  sim_boot (&s, N1);
  sim_run (&s, 6000);
  is (s.node[N1].fenced, 0, "F7, S1 d: a crgd that restarts is not fenced");
  sim_kill (&s, N1);
  sim_run (&s, 6000);
  ok (s.node[N1].fenced > 0, "one that does not return is");
  end ("fence");
}

static void
copy_restarts (void)
{
  uint64_t pause, generation;

  up (wide);
  generation = state (N1)->rec[0].generation;
  sim_kill (&s, N3);
  pause = longest_pause (1500);
  sim_boot (&s, N3);
  pause = MAX (pause, longest_pause (6000));
  ok (pause < 500, "F7: crgd of a copy host restarts; the longest pause: %" PRIu64 " ms", pause);
  ok (state (N1)->rec[0].generation == generation && state (N1)->rec[0].copies[1].in_set
        && state (N1)->rec[0].copies[1].host == 3,
      "the copy stays in the set, with its host");
  end ("crgd of a copy host restarts");

  up (wide);
  sim_leave (&s, N3);
  pause = longest_pause (6000);
  ok (pause < 1000, "F7: a copy whose link broke too is not waited for: %" PRIu64 " ms", pause);
  ok (state (N1)->rec[0].copies[1].host == 4 || !state (N1)->rec[0].copies[1].in_set,
      "F3: the next host has it, or it is suspended");
  end ("crgd and plugin of a copy host die");

  up (wide);
  sim_kill (&s, N3);
  sim_run (&s, 6000);
  ok (!state (N1)->rec[0].copies[1].in_set, "F3, F7: one that does not return is suspended");
  sim_boot (&s, N3);
  ok (sim_until (&s, sim_converged, 30000), "and filled when it is back");
  end ("crgd of a copy host does not return");
}

/* S3, L3: an old production whose role another has: RELEASED is said only when
 * all its processes are gone, told of or not. */
static void
old_production_returns (void)
{
  up (wide);
  sim_kill (&s, N1);
  sim_run (&s, 2000);
  sim_request (&s, N5, GR_MARK_FAILED, 1);
  sim_run (&s, 300);
  ok (state_tenure (state (N5)) == 2, "another host is appointed while the old one's lease runs");
  sim_boot (&s, N1);
  ok (sim_until (&s, sim_converged, 30000), "it comes back, ends what it has, and mirrors");
  end ("old production");

  /* Its crgd dies when the other has been appointed by a switchover, and the next one finds its plugins one
   * after the other: what is asked of the first of them says nothing of the second. */
  unsigned good = 0, held = 0;
  const unsigned seeds = 100;
  for (uint64_t seed = 1; seed <= seeds && !s.failed; seed++) {
    struct sim_config cfg = wide;

    cfg.n_sites = 2;
    cfg.scripts = 2; /* of the second nothing is asked before it is found */
    cfg.started = cfg.always_adopts = true;
    cfg.token_ms = 1000;
    cfg.lease_ms = WORLD_LEASE_MS;
    cfg.start_wait_ms = 60000;
    sim_init (&s, &cfg, seed);
    for (unsigned n = 0; n < s.n_nodes; n++)
      sim_boot (&s, n);
    sim_until (&s, sim_converged, 20000);
    sim_run (&s, 5000);
    sim_request (&s, N1, GR_SWITCHOVER, N3 + 1);
    for (unsigned k = 0; k < 10000 && state_tenure (state (N2)) == 1; k++)
      sim_step (&s);
    held += s.node[N1].plugin[0].running && s.node[N1].plugin[1].running;
    sim_kill (&s, N1);
    sim_boot (&s, N1);
    good += sim_until (&s, sim_converged, 30000);
    if (seed < seeds && !s.failed)
      sim_destroy (&s);
  }
  ok (good == seeds && held > 0, "S3, L3: %u switchovers in which crgd of the old host dies, %u while it is open", good, held);
  end ("old production, one by one");
}

/* R4: who was forced dies before it opens, so the loss is told by the one after it, whose own
 * tenure nobody forced. */
static bool
forced_is_committed (struct sim *sim)
{
  return group_committed (sim->node[N5].g)->rec[0].forced;
}

static void
forced_host_dies (void)
{
  static const unsigned cut[SIM_NODES] = { 0, 0, 1, 1, 0 };
  struct sim_config cfg = { .nodes_per_site = 2, .n_replicates = 1, .n_iasps = 1, .one_machine = true };

  up (cfg);
  sim_part (&s, cut);
  sim_run (&s, 20000);
  ok (!state (N1)->rec[0].copies[1].in_set && s.store[1][0].data < s.flush_acked[0],
      "the copy is out of the set, and lacks what was flushed");
  sim_leave (&s, N1);
  sim_leave (&s, N2);
  sim_heal (&s);
  sim_run (&s, 20000);
  sim_force (&s, N5, 3);
  ok (sim_until (&s, forced_is_committed, 5000) && !s.failed, "R4: taken over by force");
  sim_leave (&s, N3);
  sim_boot (&s, N2); /* votes */
  sim_run (&s, 20000);
  ok (state (N5)->rec[0].tenure == 3 && !state (N5)->rec[0].forced && state (N5)->rec[0].loss == 1
        && sim_production (&s, 0) == N3 + 1,
      "its neighbour serves in the next tenure, with the loss of the one before");
  ok (s.loss[0] == 1, "... and clients are told of it");
  end ("forced, and dead before it opened");
}

int
main (void)
{
  production_restarts ();
  fence ();
  copy_restarts ();
  old_production_returns ();
  forced_host_dies ();
  return tap_done ();
}
