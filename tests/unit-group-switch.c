/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Switchover (F6), rule by rule, in a simulated cluster of real group cores.
 * 2 + 2 nodes and a replicate: n1 n2 at site 0, n3 n4 at site 1, n5 votes.
 */
#include <inttypes.h>

#include "tests/group-world.h"

/* Seed 0: all is fast and regular. */
static bool
start (unsigned n_iasps, uint64_t seed)
{
  return world_up ((struct sim_config){ .n_sites = 2, .nodes_per_site = 2, .n_replicates = 1, .n_iasps = n_iasps,
                                        .calm = seed == 0 }, seed + 1, 500);
}

static void
up (void)
{
  ok (start (1, 0), "all five nodes: served and mirrored");
}

static bool
serves (struct sim *sim)
{
  return sim_production (sim, 0) >= 0;
}

static void
switchover (void)
{
  uint64_t acked, generation;

  up ();
  sim_run (&s, 2000);
  generation = state (N1)->rec[0].generation;
  sim_request (&s, N1, GR_SWITCHOVER, 3);
  sim_run (&s, 20000);
  is (s.node[N1].last_code, 0, "F6: switchover to the copy site");
  is (sim_production (&s, 0), N3, "F6: the target serves");
  ok (state (N3)->rec[0].copies[0].in_set && state (N3)->rec[0].copies[1].in_set
        && state (N3)->rec[0].generation == generation,
      "F6: the set is kept, nothing is resynchronised");
  is (state (N3)->def.nodes[N1].order, 4, "F5: the old primary is the last of those present");
  ok (sim_until (&s, sim_converged, 10000) && state (N3)->rec[0].copies[0].host == 1,
      "F6: the old host mirrors back");
  sim_request (&s, N5, GR_SWITCHOVER, NO_NODE);
  sim_run (&s, 20000);
  is (s.node[N5].last_code, 0, "F6: asked at another node, no target: forwarded and answered");
  is (sim_production (&s, 0), N4, "F6: same site first: the store is released, then opened (S1 a)");
  acked = s.acked[0];
  sim_run (&s, 3000);
  ok (s.acked[0] > acked, "writes go on");
  end ("switchover");

  up ();
  static const struct {
    uint32_t to;
    const char *why;
  } refused[] = {
    { 1, "already" }, { 5, "replicate" }, { 9, "no such node" },
  };
  for (unsigned i = 0; i < ARRAY_SIZE (refused); i++) {
    sim_request (&s, N2, GR_SWITCHOVER, refused[i].to);
    sim_run (&s, 2000);
    ok (s.node[N2].last_code == (refused[i].to == 9 ? 10 : 7)
          && strstr (s.node[N2].last_reason, refused[i].why) != NULL,
        "F6: refused: %s", s.node[N2].last_reason);
  }
  sim_leave (&s, N4);
  sim_run (&s, 3000);
  sim_request (&s, N1, GR_SWITCHOVER, 4);
  sim_run (&s, 1000);
  ok (s.node[N1].last_code == 7 && strstr (s.node[N1].last_reason, "not there") != NULL,
      "F6: refused: %s", s.node[N1].last_reason);
  sim_leave (&s, N3);
  sim_run (&s, 10000);
  sim_boot (&s, N4);
  sim_run (&s, 100);
  sim_request (&s, N1, GR_SWITCHOVER, 4);
  sim_run (&s, 200);
  is (s.node[N1].last_code, 7, "F6, R4: a copy that isn't in the set is refused");
  ok (sim_production (&s, 0) == N1, "production has gone on all the while");
  end ("refusals");

  up ();
  s.node[N1].drain_fails = true;
  sim_request (&s, N1, GR_SWITCHOVER, 3);
  sim_run (&s, 3000);
  ok (s.node[N1].last_code == 1 && sim_production (&s, 0) == N1,
      "F6: not drained: given up, resumed, same host: %s", s.node[N1].last_reason);
  end ("drain fails");

  /* From the hold on: resumes only on an appointment or a later epoch. */
  up ();
  struct group_event ev = { .kind = GE_REQUEST, .request = GR_SWITCHOVER, .request_id = 77,
                            .node = 3 };
  static struct group_actions out;
  s.node[N1].last_code = -1;
  ev.now_ms = s.node[N1].g->now_ms;
  group_step (s.node[N1].g, &ev, &out);
  ok (out.n > 0 && out.a[0].kind == GA_HOLD, "F6: hold comes first");
  s.node[N1].plugin[0].held = true;
  sim_run (&s, 30000);
  ok (s.node[N1].plugin[0].held, "F6: no timer resumes it");
  sim_leave (&s, N5);
  sim_run (&s, 3000);
  ok (!s.node[N1].plugin[0].held && s.node[N1].last_code == 1,
      "F6: a later epoch that still names it does: %s", s.node[N1].last_reason);
  is (sim_production (&s, 0), N1, "... and it serves on");
  end ("hold");

  /* The plugin dies for good while it is held: its successor shall not be held. */
  up ();
  struct group_event died = { .kind = GE_HOSTED, .role = HOST_NONE };
  unsigned resumed = 0;
  ev.now_ms = died.now_ms = s.node[N1].g->now_ms;
  group_step (s.node[N1].g, &ev, &out);
  group_step (s.node[N1].g, &died, &out);
  for (unsigned k = 0; k < out.n; k++)
    resumed += out.a[k].kind == GA_RESUME;
  is (resumed, 1, "F6: given up after the plugin's end: the next one is not held");
  sim_destroy (&s);

  /* The target dies when it is appointed. */
  up ();
  s.node[N3].open_fails = true;
  sim_request (&s, N1, GR_SWITCHOVER, 3);
  sim_run (&s, 40000);
  ok (s.node[N1].last_code == 1 && sim_production (&s, 0) >= 0,
      "F6: the target can't open: production goes on elsewhere: %s", s.node[N1].last_reason);
  end ("target fails");
}

/* The copies of the target's site have other hosts, each on a machine of its own: they let go of them. */
static void
to_another_host (void)
{
  uint64_t generation, since;

  up ();
  sim_run (&s, 2000);
  generation = state (N1)->rec[0].generation;
  since = s.now_ms;
  sim_request (&s, N2, GR_SWITCHOVER, N4 + 1);
  for (unsigned k = 0; k < 100000 && s.node[N2].last_code < 0; k++)
    sim_step (&s);
  ok (s.node[N2].last_code == 0, "F6: to a node whose neighbour hosts the copy: %s", s.node[N2].last_reason);
  ok (sim_production (&s, 0) == N4 && s.now_ms - since < 1000, "... which serves after %" PRIu64 " ms", s.now_ms - since);
  ok (state (N4)->rec[0].copies[0].in_set && state (N4)->rec[0].copies[1].in_set
        && state (N4)->rec[0].generation == generation && state (N4)->rec[0].loss == 0
        && state_tenure (state (N4)) == 2,
      "F6: the set is kept, nothing is resynchronised");
  ok (sim_until (&s, sim_converged, 10000), "... and the old host mirrors back");
  end ("to the copy's other node");

  /* None of its site's nodes has all copies. */
  for (unsigned target = 0; target < 3; target++) {
    static const uint32_t to[] = { NO_NODE, N3 + 1, N4 + 1 };

    ok (start (3, 0), "three IASPs");
    sim_leave (&s, N2); /* else it would be the first choice of who names no target */
    s.node[N3].open_fails = true;
    sim_kill_plugin (&s, N3, 1);
    s.store[1][1].clean = true; /* it was closed well */
    sim_run (&s, 10000);
    s.node[N3].open_fails = false;
    sim_run (&s, 10000);
    ok (state (N1)->rec[0].copies[1].host == N3 + 1 && state (N1)->rec[1].copies[1].host == N4 + 1
          && state (N1)->rec[1].copies[1].in_set,
        "two nodes of one site host its copies");
    sim_request (&s, N1, GR_SWITCHOVER, to[target]);
    sim_run (&s, 3000);
    ok (s.node[N1].last_code == 0, "F6: all its IASPs go to one of them: %s", s.node[N1].last_reason);
    for (unsigned i = 0; i < 3; i++)
      ok (sim_production (&s, i) == (target == 2 ? N4 : N3) && state (N1)->rec[i].copies[0].in_set,
          "... IASP %u, n%d", i, sim_production (&s, i) + 1);
    end ("split copies");
  }

  /* Whatever takes how long. */
  unsigned good = 0;
  uint64_t longest = 0;
  for (uint64_t seed = 1; seed <= 100 && !s.failed; seed++) {
    start (2, seed);
    generation = state (N1)->rec[0].generation;
    since = s.now_ms;
    sim_request (&s, N1, GR_SWITCHOVER, N4 + 1);
    for (unsigned k = 0; k < 100000 && s.node[N1].last_code < 0; k++)
      sim_step (&s);
    good += s.node[N1].last_code == 0 && sim_production (&s, 0) == N4 && state_tenure (state (N4)) == 2
            && state (N4)->rec[0].generation == generation;
    longest = MAX (longest, s.now_ms - since);
    if (seed < 100 && !s.failed)
      sim_destroy (&s);
  }
  ok (good == 100, "F6: %u of 100 switchovers to a node whose neighbour takes its time, at most %" PRIu64 " ms", good, longest);
  end ("to the copy's other node, anyhow");

  /* Its neighbour dies before it has closed the copy: production goes back, with all that was answered. */
  up ();
  sim_request (&s, N1, GR_SWITCHOVER, N4 + 1);
  for (unsigned k = 0; k < 100000 && state_tenure (state (N1)) == 1; k++)
    sim_step (&s);
  sim_power_off (&s, N3);
  sim_until (&s, serves, 15000);
  ok (serves (&s) && sim_production (&s, 0) != N4,
      "F6, S1: what its neighbour did not release it can't open: n%d serves", sim_production (&s, 0) + 1);
  is ((long long) state (N1)->rec[0].loss, 0, "... nothing is lost");
  end ("the copy's host dies");
}

int
main (void)
{
  switchover ();
  to_another_host ();
  return tap_done ();
}
