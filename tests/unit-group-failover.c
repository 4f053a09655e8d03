/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Failover, rule by rule, in a simulated cluster of real group cores: F1 to F5,
 * R4, S1, S2, H3, H4, H8, C4, C8 and the operator's requests.
 * 2 + 2 nodes and a replicate: n1 n2 at site 0, n3 n4 at site 1, n5 votes.
 */
#include <inttypes.h>

#include "tests/group-world.h"

static struct group_status st;

static void
begin (bool one_machine, uint8_t takeover)
{
  world_begin ((struct sim_config){ .n_sites = 2, .nodes_per_site = 2, .n_replicates = 1, .n_iasps = 1,
                                    .takeover = takeover, .one_machine = one_machine, .calm = true }, 1);
}

static uint32_t
production (unsigned n)
{
  return state_production_host (state (n));
}

static const char *
wait_text (unsigned n)
{
  group_status (s.node[n].g, s.node[n].g->now_ms, &st);
  return st.wait_reason;
}

static void
up (bool one_machine, uint8_t takeover)
{
  begin (one_machine, takeover);
  world_boot ();
  ok (sim_until (&s, sim_converged, 20000), "all five nodes: served and mirrored");
  sim_run (&s, 500);
}

/* All machines restart, and those of the copy's site stay away. */
static void
return_without_copies (void)
{
  up (false, TAKEOVER_SAME_SITE_FIRST);
  for (unsigned n = 0; n < 4; n++)
    sim_power_off (&s, n);
  sim_power_on (&s, N1);
  sim_power_on (&s, N2);
  sim_run (&s, 90000);
}

/* ---- cold start --------------------------------------------------------- */

static void
cold_start (void)
{
  begin (true, TAKEOVER_SAME_SITE_FIRST);
  sim_boot (&s, N2);
  sim_boot (&s, N3);
  sim_run (&s, 10000);
  ok (sim_production (&s, 0) < 0 && strstr (wait_text (N2), "no majority") != NULL,
      "C4: two of five host nothing and say why: %s", wait_text (N2));
  is (st.condition, COND_INDOUBT, "without a majority the CRG is in doubt");
  sim_boot (&s, N5);
  sim_run (&s, 20000);
  ok (sim_production (&s, 0) < 0 && strstr (wait_text (N2), "start-wait") != NULL
        && strstr (wait_text (N2), "n1") != NULL,
      "cold start: the named host is waited for: %s", wait_text (N2));
  is (st.condition, COND_WAITING, "the CRG is waiting");
  ok (s.node[N3].plugin[0].running, "a named copy host opens meanwhile");
  sim_run (&s, 30000);
  ok (sim_production (&s, 0) < 0, "... for less than start-wait");
  sim_run (&s, 20000);
  is (sim_production (&s, 0), N2, "after start-wait the next takes over");
  is ((long long) state_tenure (state (N2)), 2, "R1: tenure rises with the host");
  is (state (N2)->def.nodes[N1].order, 4, "F5: the old primary is the last backup");
  is (state (N2)->def.nodes[N2].order, 0, "F5: the new one is the first");
  sim_boot (&s, N1);
  sim_run (&s, 20000);
  is (sim_production (&s, 0), N2, "H3: a returning lower number does not take the role back");
  end ("cold start");

  begin (true, TAKEOVER_SAME_SITE_FIRST);
  sim_boot (&s, N2);
  sim_boot (&s, N3);
  sim_boot (&s, N4);
  sim_run (&s, 5000);
  sim_request (&s, N4, GR_MARK_FAILED, 1);
  sim_run (&s, 10000);
  is (s.node[N4].last_code, 0, "mark-failed is committed and answered");
  is (sim_production (&s, 0), N2, "F5: mark-failed ends the wait for a node");
  sim_boot (&s, N1);
  sim_run (&s, 5000);
  ok (!state (N2)->def.nodes[N1].marked_failed, "F5: back again, it is marked failed no more");
  end ("mark-failed");
}

/* ---- scripts ------------------------------------------------------------ */

/* A resource that isn't mirrored (Fig. 4's printer) moves with the group and
 * tells its configuration to all that may ever host it. */
static void
script (void)
{
  struct sim_config cfg = {
    .n_sites = 2, .nodes_per_site = 2, .n_replicates = 1, .n_iasps = 2, .scripts = 2,
    .takeover = TAKEOVER_ORDER, .started = true, .one_machine = true, .calm = true,
    .token_ms = 1000, .lease_ms = 3000, .start_wait_ms = 60000,
  };

  sim_init (&s, &cfg, 1);
  world_boot ();
  ok (sim_until (&s, sim_converged, 20000) && sim_production (&s, 1) == N1,
      "a script runs where production is");
  sim_run (&s, 500);
  ok (strcmp (s.node[N2].config[1], "of n1") == 0 && strcmp (s.node[N4].config[1], "of n1") == 0
        && s.node[N5].config[1][0] == 0,
      "messages 4, 5: all but the replicate have what its agent says");
  ok (!s.node[N3].plugin[1].running && state (N1)->rec[1].copies[1].host == NO_NODE,
      "it has no copy at the other site");
  sim_leave (&s, N1);
  ok (sim_until (&s, sim_converged, 30000) && sim_production (&s, 0) == N2
        && sim_production (&s, 1) == N2, "F2: it fails over with the IASP");
  sim_run (&s, 500);
  ok (strcmp (s.node[N3].config[1], "of n2") == 0, "... and message 5 goes out again");
  sim_request (&s, N2, GR_SWITCHOVER, 3);
  sim_run (&s, 1000);
  ok (sim_until (&s, sim_converged, 30000) && sim_production (&s, 1) == N3
        && sim_production (&s, 0) == N3 && s.node[N2].last_code == 0,
      "F6: it is switched over to the other site: %d %s", s.node[N2].last_code,
      s.node[N2].last_reason);
  ok (!s.node[N2].plugin[1].running, "... and runs at one place");
  sim_boot (&s, N1);
  sim_run (&s, 3000);
  ok (strcmp (s.node[N1].config[1], "of n3") == 0, "message 4: a joiner with access gets it");
  s.node[N3].open_fails = true;
  sim_kill_plugins (&s, N3);
  ok (sim_until (&s, sim_converged, 30000) && sim_production (&s, 1) != N3,
      "F2: a start that fails moves the whole group");
  end ("scripts");

  cfg.scripts = 1;
  cfg.n_iasps = 1;
  cfg.n_sites = 1;
  cfg.nodes_per_site = 3;
  cfg.n_replicates = 0;
  sim_init (&s, &cfg, 1);
  world_boot ();
  ok (sim_until (&s, sim_converged, 20000) && sim_production (&s, 0) == N1, "a script alone");
  sim_leave (&s, N1);
  ok (sim_until (&s, sim_converged, 30000) && sim_production (&s, 0) == N2,
      "... fails over, without a mirror");
  is ((long long) s.sent[MSG_MIRROR_START], 0, "it has no message 6");
  end ("a script alone");
}

/* ---- F2, F3 ------------------------------------------------------------- */

static void
failover (void)
{
  up (true, TAKEOVER_SAME_SITE_FIRST);
  sim_leave (&s, N1);
  ok (sim_until (&s, sim_converged, 30000) && sim_production (&s, 0) == N2,
      "F2, S1 b: host failover inside the site, same machine");
  sim_leave (&s, N2);
  sim_run (&s, 20000);
  is (sim_production (&s, 0), N3, "F2: resource failover to the copy site");
  ok (state (N3)->rec[0].production_site == 1 && state (N3)->rec[0].copies[0].host == NO_NODE,
      "F2: the old production copy is a mirror copy without a host");
  ok (state (N3)->rec[0].generation >= 2 && !state (N3)->rec[0].copies[0].in_set,
      "F3, R2: the copy that nobody hosts left the set at once: generation %" PRIu64,
      state (N3)->rec[0].generation);
  sim_boot (&s, N2);
  sim_boot (&s, N1);
  ok (sim_until (&s, sim_converged, 30000) && state (N3)->rec[0].copies[0].host != NO_NODE
        && state (N3)->rec[0].copies[0].in_set,
      "R3: filled again, the copy of the returned site enters the set");
  is (sim_production (&s, 0), N3, "F5: no automatic failback");
  end ("failover");

  up (true, TAKEOVER_ORDER);
  sim_leave (&s, N1);
  sim_run (&s, 20000);
  is (sim_production (&s, 0), N2, "F2: takeover = order takes the first backup");
  end ("takeover order");

  up (false, TAKEOVER_SAME_SITE_FIRST);
  sim_leave (&s, N1);
  sim_run (&s, 20000);
  is (sim_production (&s, 0), N3,
      "S1: a store that another machine didn't release is skipped: the copy site takes over");
  ok (strstr (s.node[N2].g->host[0].reason, "S1") != NULL, "... and the node says why: %s",
      s.node[N2].g->host[0].reason);
  end ("S1");

  up (true, TAKEOVER_SAME_SITE_FIRST);
  sim_leave (&s, N3);
  sim_run (&s, 15000);
  is (state (N1)->rec[0].copies[1].host, 4, "F3: the next present member of its site takes the copy");
  is (sim_production (&s, 0), N1, "F3: production stays where it is");
  sim_leave (&s, N4);
  sim_run (&s, 15000);
  ok (!state (N1)->rec[0].copies[1].in_set, "F3, R2: nobody for the copy: it leaves the set");
  ok (s.node[N1].plugin[0].link[1].node < 0, "F3: and is suspended: the plugin was told");
  uint64_t before = s.acks;
  sim_run (&s, 1000);
  ok (s.acks > before, "writes go on without it");
  sim_leave (&s, N1);
  sim_run (&s, 15000);
  ok (sim_production (&s, 0) < 0, "C4: two of five: no production");
  sim_boot (&s, N4);
  sim_run (&s, 15000);
  is (sim_production (&s, 0), N2, "F2: back in a majority, the site's other node takes over");
  end ("F3");

  /* R4 */
  up (false, TAKEOVER_SAME_SITE_FIRST);
  sim_leave (&s, N3);
  sim_leave (&s, N4);
  sim_run (&s, 15000);
  sim_leave (&s, N1);
  sim_boot (&s, N3);
  sim_boot (&s, N4);
  sim_run (&s, 20000);
  ok (sim_production (&s, 0) < 0, "R4: a copy that left the set never takes over");
  ok (strstr (wait_text (N3), "no candidate") != NULL && strstr (wait_text (N3), "not in the set"),
      "... and status says of each why: %s", wait_text (N3));
  ok (st.wait_since_ms < s.node[N3].g->now_ms, "... and since when");
  sim_boot (&s, N1);
  ok (sim_until (&s, sim_converged, 30000) && sim_production (&s, 0) == N1,
      "the named host returns: served again, same tenure %" PRIu64, state_tenure (state (N1)));
  is ((long long) state_tenure (state (N1)), 1, "R1: same host, same tenure");
  end ("R4");
}

/* Production is cut off, and what `then` does happens; how long it takes until another node serves, ms. */
static uint64_t
takeover_ms (void (*then) (void))
{
  const unsigned alone[SIM_NODES] = { 1 };
  const uint64_t from = s.now_ms;

  sim_part (&s, alone);
  if (then)
    then ();
  for (unsigned k = 0; k < 400 && sim_production (&s, 0) < N2; k++)
    sim_run (&s, 50);
  return sim_production (&s, 0) < N2 ? 0 : s.now_ms - from;
}

static void
others_restart (void)
{
  for (unsigned n = N2; n <= N5; n++) {
    sim_kill (&s, n);
    s.cfg.node_lease_ms[n] = 0;
    sim_boot (&s, n);
  }
}

/* L3: a lease is as long as its host says, and nodes are configured one after the other. */
static void
unequal_leases (void)
{
  uint64_t ms;

  begin (false, TAKEOVER_SAME_SITE_FIRST);
  s.cfg.node_lease_ms[N1] = 10000;
  world_boot ();
  ok (sim_until (&s, sim_converged, 20000) && sim_production (&s, 0) == N1, "production has a lease of 10 s, the others 3 s");
  sim_run (&s, 500);
  ms = takeover_ms (NULL);
  ok (ms > 9000, "L3: who takes over has waited for the longer lease: %" PRIu64 " ms", ms);
  end ("a longer lease");

  /* Those who granted it forget all that is not on disk, and are configured for shorter ones. */
  begin (false, TAKEOVER_SAME_SITE_FIRST);
  for (unsigned n = N1; n <= N5; n++)
    s.cfg.node_lease_ms[n] = 10000;
  world_boot ();
  ok (sim_until (&s, sim_converged, 20000) && sim_production (&s, 0) == N1, "all have leases of 10 s");
  sim_run (&s, 500);
  ms = takeover_ms (others_restart);
  ok (ms > 9000, "L3: ... also who has restarted since, with a shorter one: %" PRIu64 " ms", ms);
  end ("a longer lease of the run before");
}

/* ---- failures of the host itself ---------------------------------------- */

static void
failing_hosts (void)
{
  begin (true, TAKEOVER_SAME_SITE_FIRST);
  s.node[N1].open_fails = true;
  world_boot ();
  sim_run (&s, 20000);
  is (sim_production (&s, 0), N2, "F2: a named host that fails to open counts as left");
  is ((long long) state_tenure (state (N2)), 2, "... and doesn't ping-pong");
  end ("failing host");

  begin (true, TAKEOVER_SAME_SITE_FIRST);
  s.node[N3].open_fails = s.node[N4].open_fails = true;
  world_boot ();
  sim_run (&s, 30000);
  is (sim_production (&s, 0), N1, "H8: a copy refuses; the group goes on without it");
  const struct group_host_status *h = group_announced (s.node[N1].g, 3, 0);
  ok (h != NULL && h->failed && strstr (h->reason, "too small") != NULL,
      "H8: its reason is shown at every node: %s", h == NULL ? "" : h->reason);
  end ("H8");

  up (true, TAKEOVER_SAME_SITE_FIRST);
  sim_store_fails (&s, N1, 0);
  sim_run (&s, 20000);
  ok (state (N1)->rec[0].copies[0].barred, "F4: a failed store bars the copy: %s",
      state (N1)->rec[0].copies[0].reason);
  is (sim_production (&s, 0), N3, "F4: production goes to the other copy, not to n2");
  ok (!s.node[N1].plugin[0].running && s.node[N1].running, "F4: the copy is barred, not the node");
  sim_unbar (&s, N5, 0, 0);
  ok (sim_until (&s, sim_converged, 30000), "F4: cleared by an operator, it is filled and mirrored");
  is (s.node[N5].last_code, 0, "... who was answered");
  end ("F4");

  up (true, TAKEOVER_SAME_SITE_FIRST);
  sim_store_fails (&s, N3, 0);
  sim_run (&s, 10000);
  ok (state (N1)->rec[0].copies[1].barred && !s.node[N3].plugin[0].running
        && !s.node[N4].plugin[0].running && sim_production (&s, 0) == N1,
      "F4: a barred mirror copy has no host; production goes on");
  end ("F4, mirror");

  /* C8 */
  up (true, TAKEOVER_SAME_SITE_FIRST);
  sim_pause (&s, N1, true);
  sim_run (&s, 3000);
  ok (sim_production (&s, 0) < 0, "L1: a paused production host has no lease after T");
  sim_run (&s, 12000);
  ok (state (N2)->def.nodes[N1].expelled != 0 && production (N2) == 3,
      "C8: a silent member is expelled and counts as left");
  is (sim_production (&s, 0), N3, "... n2 can't open what n1's plugin has open (S1): n3 serves");
  sim_pause (&s, N1, false);
  ok (sim_until (&s, sim_converged, 30000), "C8: it rejoins as a new incarnation");
  end ("C8");

  /* S2, R5 */
  return_without_copies ();
  ok (sim_production (&s, 0) < 0, "S2: a restarted store waits for the other copies of the set");
  ok (strstr (wait_text (N2), "S2") != NULL, "... and says so: %s", wait_text (N2));
  ok (strstr (wait_text (N2), "site1, last at n3") != NULL, "... and for whom: %s", wait_text (N2));
  is ((long long) state (N1)->rec[0].loss, 0, "nothing was given up yet");
  sim_power_on (&s, N3);
  ok (sim_until (&s, sim_converged, 30000), "S2 b: every copy of the set is there and restarted");
  is ((long long) state (N1)->rec[0].loss, 1, "S2 b: loss has risen, once");
  sim_run (&s, 5000);
  is (sim_production (&s, 0), N1, "... and the named host serves");
  ok (state (N1)->rec[0].copies[1].since > 1, "R5: the other copy left the set and was filled");
  end ("S2");

  /* ... and is told to wait no more: force names the named host itself. */
  return_without_copies ();
  sim_request (&s, N5, GR_SWITCHOVER, 1);
  sim_run (&s, 500);
  ok (s.node[N5].last_code == 8 && strstr (s.node[N5].last_reason, "machine restarted") != NULL
        && sim_production (&s, 0) < 0,
      "S2: what going on would cost: %s", s.node[N5].last_reason);
  sim_force (&s, N5, 1);
  sim_run (&s, 8000);
  ok (s.node[N5].last_code == 0 && sim_production (&s, 0) == N1, "S2: an operator accepts it: %s", s.node[N5].last_reason);
  ok (state (N5)->rec[0].loss == 1 && state_tenure (state (N5)) == 1, "... loss has risen, nothing was appointed");
  sim_force (&s, N5, 1);
  sim_run (&s, 500);
  ok (s.node[N5].last_code == 7, "... once: %s", s.node[N5].last_reason);
  sim_power_on (&s, N3);
  sim_power_on (&s, N4);
  ok (sim_until (&s, sim_converged, 60000) && sim_production (&s, 0) == N1, "... the copies come back to it");
  end ("S2, accepted");

  /* Total power failure without an operator, in each order. */
  for (unsigned order = 0; order < 3; order++) {
    static const unsigned orders[3][4] = { { N3, N1, N4, N2 }, { N4, N2, N3, N1 }, { N1, N3, N2, N4 } };

    up (false, TAKEOVER_SAME_SITE_FIRST);
    for (unsigned n = 0; n < s.n_nodes; n++)
      sim_power_off (&s, n);
    sim_power_on (&s, N5);
    for (unsigned k = 0; k < 4; k++) {
      sim_power_on (&s, orders[order][k]);
      sim_run (&s, 3000);
    }
    ok (sim_until (&s, sim_converged, 90000), "S2: total power failure, order %u", order);
    ok (state (N5)->rec[0].loss >= 1, "... loss has risen");
    end ("total power failure");
  }

  /* S2 a: a copy that isn't restarted takes over. */
  up (false, TAKEOVER_SAME_SITE_FIRST);
  unsigned apart[SIM_NODES] = { 0, 0, 1, 2, 3 };
  sim_part (&s, apart);
  sim_power_off (&s, N1);
  sim_run (&s, 8000);
  sim_power_on (&s, N1);
  sim_part (&s, (unsigned[SIM_NODES]) { 7, 1, 7, 3, 7 });
  sim_run (&s, 20000);
  is (sim_production (&s, 0), N3, "S2 a: the copy that isn't restarted takes over");
  is ((long long) state (N3)->rec[0].loss, 0, "S2 a: nothing was lost");
  sim_heal (&s);
  ok (sim_until (&s, sim_converged, 30000), "S2 a: the restarted one is filled as a mirror copy");
  end ("S2 a");

  /* S2 b with the others marked failed. */
  return_without_copies ();
  sim_request (&s, N5, GR_MARK_FAILED, 4);
  sim_run (&s, 5000);
  ok (sim_production (&s, 0) < 0, "S2: n4 marked failed, but n3 hosts the copy");
  sim_request (&s, N5, GR_MARK_FAILED, 3);
  sim_run (&s, 8000);
  is (sim_production (&s, 0), N1, "S2 b: the host of the other copy is marked failed");
  is ((long long) state (N1)->rec[0].loss, 1, "... loss has risen");
  end ("S2 b, marked failed");
}

/* S1 d: mark-failed and the fence free what a dead node had open. */
static void
fencing (void)
{
  up (false, TAKEOVER_SAME_SITE_FIRST);
  sim_power_off (&s, N3);
  sim_run (&s, 15000);
  ok (!s.node[N4].plugin[0].running, "S1: n4 can't open what n3 had open");
  sim_request (&s, N1, GR_MARK_FAILED, 3);
  sim_run (&s, 15000);
  ok (s.node[N4].plugin[0].running && state (N1)->rec[0].copies[1].host == 4,
      "S1 d: n3 is marked failed: n4 takes the copy");
  ok (sim_until (&s, sim_converged, 15000), "... and it is filled (R5)");
  end ("mark-failed frees a store");

  begin (false, TAKEOVER_SAME_SITE_FIRST);
  s.cfg.fence = true;
  world_boot ();
  ok (sim_until (&s, sim_converged, 20000), "up, with a fence");
  s.node[N2].fence_fails = true;
  sim_leave (&s, N1);
  sim_run (&s, 15000);
  ok (sim_production (&s, 0) == N3 && s.node[N1].fenced == 0 && !s.node[N2].plugin[0].running,
      "S1: the fence fails: n2 doesn't open what n1 had open");
  s.node[N2].fence_fails = false;
  sim_run (&s, 40000);
  ok (s.node[N1].fenced == 1 && state (N3)->def.nodes[N1].marked_failed,
      "S1 d: tried again, n1 is fenced and marked failed");
  ok (s.node[N2].plugin[0].running && sim_until (&s, sim_converged, 15000),
      "... and n2 has its store, as a mirror copy that was filled");
  sim_leave (&s, N5);
  sim_run (&s, 10000);
  is (s.node[N5].fenced, 0, "who holds no store is not fenced");
  sim_power_on (&s, N1);
  sim_run (&s, 10000);
  ok (!state (N3)->def.nodes[N1].marked_failed && s.node[N1].fenced == 1,
      "F5: back again, it is marked failed no more, and is let live");
  end ("fence");
}

/* ---- an operator's verbs -------------------------------------------------- */

static const struct copy_rec *
copy1 (void)
{
  return &state (N1)->rec[0].copies[1];
}

static int
verb (enum group_request r, enum detached_export mode, bool forced)
{
  sim_copy (&s, N5, r, 0, 1, mode, forced);
  sim_run (&s, 500);
  return s.node[N5].last_code;
}

static void
verbs (void)
{
  uint64_t acked, generation;

  up (false, TAKEOVER_SAME_SITE_FIRST);
  generation = state (N1)->rec[0].generation;
  is (verb (GR_RESUME, 0, false), 0, "resume of what isn't suspended: it is so already");
  is (verb (GR_SUSPEND, 0, false), 0, "suspend: answered");
  ok (copy1 ()->suspended && !copy1 ()->in_set && state (N1)->rec[0].generation == generation + 1,
      "R2: the suspended copy has left the set");
  sim_run (&s, 2000);
  ok (s.node[N1].plugin[0].link[1].node < 0, "production mirrors to it no more");
  acked = s.acked[0];
  sim_run (&s, 3000);
  ok (s.acked[0] > acked && !copy1 ()->in_set, "writes go on, and it stays out");
  is (verb (GR_SUSPEND, 0, false), 0, "suspended twice: the same");
  is (verb (GR_RESUME, 0, false), 0, "resume: answered");
  ok (sim_until (&s, sim_converged, 10000), "R3: filled, it is in the set again");
  sim_copy (&s, N5, GR_SUSPEND, 0, 0, 0, false);
  sim_run (&s, 500);
  ok (s.node[N5].last_code == 7 && strstr (s.node[N5].last_reason, "production copy"),
      "production is not suspended: %s", s.node[N5].last_reason);

  is (verb (GR_DETACH, DETACHED_READ_ONLY, false), 0, "detach: answered");
  sim_run (&s, 3000);
  ok (copy1 ()->detached && copy1 ()->fork == FORK_BEHIND && s.store[1][0].fork
        && s.node[N3].plugin[0].running && s.node[N3].plugin[0].role == HOST_DETACHED,
      "R6: detached, a fork on its disk, open at its host");
  is (verb (GR_SUSPEND, 0, false), 7, "a detached copy is not suspended");
  sim_leave (&s, N3);
  sim_run (&s, 15000);
  ok (copy1 ()->host == 3 && !s.node[N4].plugin[0].running,
      "S1: n4 can't open what another machine had open");
  sim_boot (&s, N3);
  sim_run (&s, 10000);
  ok (s.node[N3].plugin[0].running && s.node[N3].plugin[0].role == HOST_DETACHED,
      "its host is back: open again");
  is (verb (GR_REATTACH, 0, false), 0, "reattach of what was only read: no force");
  ok (sim_until (&s, sim_converged, 15000), "filled, it is in the set again");
  ok (copy1 ()->fork == FORK_NONE && !s.store[1][0].fork, "R6: and a fork no more");

  is (verb (GR_DETACH, DETACHED_READ_WRITE, false), 0, "detach read-write");
  sim_run (&s, 3000);
  ok (copy1 ()->fork == FORK_DIVERGED, "R6: it has writes of its own");
  is (verb (GR_DETACH, DETACHED_CLOSED, false), 0, "closed again");
  sim_run (&s, 2000);
  ok (!s.node[N3].plugin[0].running && copy1 ()->detached, "nobody has it open");
  is (verb (GR_REATTACH, 0, false), 8, "R6: reattach asks whose writes go");
  ok (copy1 ()->detached, "... and did nothing");
  sim_power_off (&s, N1);
  sim_power_off (&s, N2);
  sim_run (&s, 20000);
  ok (sim_production (&s, 0) < 0, "R6: a fork doesn't take over");
  sim_power_on (&s, N1);
  sim_power_on (&s, N2);
  sim_run (&s, 90000);
  is (verb (GR_REATTACH, 0, true), 0, "R6: reattach with force");
  ok (sim_until (&s, sim_converged, 20000) && !s.store[1][0].lost,
      "filled with what production has");
  end ("verbs");

  /* The other direction: the fork takes over by force. */
  up (false, TAKEOVER_SAME_SITE_FIRST);
  is (verb (GR_DETACH, DETACHED_READ_WRITE, false), 0, "detach read-write");
  sim_run (&s, 2000);
  sim_power_off (&s, N1);
  sim_power_off (&s, N2);
  sim_run (&s, 20000);
  sim_force (&s, N5, 3);
  sim_run (&s, 10000);
  ok (s.node[N5].last_code == 0 && sim_production (&s, 0) == N3 && !s.store[1][0].fork,
      "R4: a fork takes over by force: %s", s.node[N5].last_reason);
  sim_power_on (&s, N1);
  sim_run (&s, 5000);
  sim_copy (&s, N5, GR_REATTACH, 0, 0, 0, true);
  ok (sim_until (&s, sim_converged, 20000), "and the former set is reattached to it");
  end ("fork takes over");
}

/* R4: a takeover that an operator forces. */
static void
force (void)
{
  up (false, TAKEOVER_SAME_SITE_FIRST);
  sim_force (&s, N2, 3);
  sim_run (&s, 500);
  ok (s.node[N2].last_code == 7 && strstr (s.node[N2].last_reason, "is served"),
      "R4: production is served: no force: %s", s.node[N2].last_reason);
  /* The copy's site is cut off and leaves the set; then production dies. */
  unsigned cut[SIM_NODES] = { 0, 0, 1, 1, 0 };
  sim_part (&s, cut);
  sim_run (&s, 20000);
  ok (!state (N1)->rec[0].copies[1].in_set, "the copy is out of the set");
  sim_run (&s, 200000);
  sim_power_off (&s, N1);
  sim_power_off (&s, N2);
  sim_heal (&s);
  sim_run (&s, 20000);
  ok (sim_production (&s, 0) < 0, "nobody may take over by itself");
  sim_request (&s, N5, GR_SWITCHOVER, 4);
  sim_run (&s, 500);
  ok (s.node[N5].last_code == 5, "R4, S1: n4 could not: %s", s.node[N5].last_reason);
  sim_request (&s, N5, GR_SWITCHOVER, 3);
  sim_run (&s, 500);
  ok (s.node[N5].last_code == 8 && strstr (s.node[N5].last_reason, "left the set ")
        && strstr (s.node[N5].last_reason, "--force"),
      "R4: refused, and told what it would cost: %s", s.node[N5].last_reason);
  ok (sim_production (&s, 0) < 0, "... and nothing was done");
  sim_force (&s, N5, 3);
  sim_run (&s, 10000);
  ok (s.node[N5].last_code == 0, "R4: forced: %s", s.node[N5].last_reason);
  is (sim_production (&s, 0), N3, "R4: ... and served");
  ok (state (N5)->rec[0].loss == 1 && state (N5)->rec[0].forced, "R4: loss has risen");
  ok (state (N5)->rec[0].copies[0].detached && state (N5)->rec[0].copies[0].fork,
      "R4: the former set is a fork");
  sim_power_on (&s, N1);
  sim_run (&s, 20000);
  ok (!s.node[N1].plugin[0].running && sim_production (&s, 0) == N3,
      "R4, R6: which nobody opens when its node returns");
  end ("force");

  /* The forced copy turns out to be no whole one: nobody serves it, the status
   * says so, and an operator can take the other side again. */
  up (false, TAKEOVER_SAME_SITE_FIRST);
  sim_part (&s, cut);
  sim_run (&s, 20000);
  sim_power_off (&s, N1);
  sim_power_off (&s, N2);
  sim_heal (&s);
  sim_run (&s, 20000);
  sim_force (&s, N5, 3);
  s.store[1][0].unusable = true;
  sim_run (&s, 15000);
  ok (sim_production (&s, 0) < 0 && state_production_host (state (N5)) == 3
        && strstr (wait_text (N3), "no candidate") != NULL,
      "R4: named, and not whole: nothing is served: %s", wait_text (N3));
  sim_power_on (&s, N1);
  sim_run (&s, 8000);
  sim_force (&s, N5, 1);
  sim_run (&s, 10000);
  ok (s.node[N5].last_code == 0 && sim_production (&s, 0) == N1,
      "R4: the other side is forced back: %s", s.node[N5].last_reason);
  end ("forced copy not whole");

  /* A copy that was never filled can't be forced. */
  begin (false, TAKEOVER_SAME_SITE_FIRST);
  sim_boot (&s, N3);
  sim_boot (&s, N4);
  sim_boot (&s, N5);
  sim_run (&s, 90000);
  sim_force (&s, N3, 3);
  sim_run (&s, 500);
  ok (s.node[N3].last_code == 7 && strstr (s.node[N3].last_reason, "never filled"),
      "R4: nothing to force: %s", s.node[N3].last_reason);
  end ("nothing to force");
}

/* ---- views -------------------------------------------------------------- */

static void
partitions (void)
{
  unsigned cut[SIM_NODES] = { 0, 0, 1, 1, 1 };
  uint64_t before;

  up (false, TAKEOVER_SAME_SITE_FIRST);
  sim_part (&s, cut);
  sim_run (&s, 2500);
  before = s.acks;
  sim_run (&s, 15000);
  is (sim_production (&s, 0), N3, "C4, L1: the majority side takes over, the other side stops");
  ok (s.acks > before, "writes go on there");
  ok (s.node[N1].plugin[0].running && s.node[N1].plugin[0].role == HOST_PRODUCTION,
      "the old plugin is not killed: it holds its I/O");
  sim_heal (&s);
  ok (sim_until (&s, sim_converged, 30000), "merged: the old site is filled as a mirror copy");
  is (sim_production (&s, 0), N3, "... and production stays");
  end ("cut");

  up (false, TAKEOVER_SAME_SITE_FIRST);
  unsigned alone[SIM_NODES] = { 0, 0, 1, 1, 0 };
  sim_part (&s, alone);
  sim_run (&s, 15000);
  ok (sim_production (&s, 0) == N1 && s.node[N3].plugin[0].running,
      "C4: an open mirror copy stays open without a majority");
  is ((long long) state_tenure (state (N1)), 1, "production with a majority goes on: same tenure");
  sim_heal (&s);
  ok (sim_until (&s, sim_converged, 30000), "merged: mirrored again");
  is ((long long) s.node[N3].g->counters.mirror_start, 1,
      "message 6 once for the pair of incarnations");
  end ("mirror cut off");

  /* Back within the lease: named with the same tenure, the lease goes on. */
  up (false, TAKEOVER_SAME_SITE_FIRST);
  unsigned each[SIM_NODES] = { 0, 1, 2, 3, 4 };
  sim_part (&s, each);
  sim_run (&s, 8000);
  ok (sim_production (&s, 0) < 0, "nobody has a majority: the lease ran out, nobody serves");
  sim_heal (&s);
  ok (sim_until (&s, sim_converged, 30000) && sim_production (&s, 0) == N1
        && state_tenure (state (N1)) == 1,
      "back in a majority, still named: same tenure");
  end ("all apart");
}

/* ---- several IASPs, as one ----------------------------------------------- */

static uint32_t
mirror_host (unsigned iasp)
{
  return state (N5)->rec[iasp].copies[1].host;
}

static bool
all_on_one (struct sim *sim)
{
  int n = sim_production (sim, 0);

  for (unsigned i = 1; i < sim->cfg.n_iasps; i++)
    if (sim_production (sim, i) != n)
      return false;
  return n >= 0;
}

static bool
all_on_milan (struct sim *sim)
{
  return all_on_one (sim) && sim_production (sim, 0) > (int) N2;
}

/* n3 can't host one of the mirror copies for a while: n4 does, and n3 has the others. */
static void
begin_split (uint8_t takeover)
{
  struct sim_config cfg = {
    .n_sites = 2, .nodes_per_site = 2, .n_replicates = 1, .n_iasps = 3, .takeover = takeover,
    .one_machine = true, .calm = true, .started = true, .token_ms = 1000, .lease_ms = 3000,
    .start_wait_ms = 60000,
  };

  sim_init (&s, &cfg, 1);
  world_boot ();
  ok (sim_until (&s, sim_converged, 20000), "three IASPs: served and mirrored");
  s.node[N3].open_fails = true;
  sim_kill_plugin (&s, N3, 1);
  sim_run (&s, 10000);
  s.node[N3].open_fails = false;
  ok (sim_until (&s, sim_converged, 20000), "... and so when n3 could not open one of them");
}

static void
as_one (void)
{
  static const uint8_t orders[] = { TAKEOVER_SAME_SITE_FIRST, TAKEOVER_ORDER };

  for (unsigned k = 0; k < ARRAY_SIZE (orders); k++) {
    begin_split (orders[k]);
    ok (mirror_host (0) == 3 && mirror_host (1) == 4 && mirror_host (2) == 3,
        "F3: two nodes of one site host its copies");
    sim_leave (&s, N1);
    sim_leave (&s, N2);
    ok (sim_until (&s, all_on_one, 15000), "F2: one of them takes over, with what the other has open: %s",
        wait_text (N5));
    sim_boot (&s, N1);
    sim_boot (&s, N2);
    ok (sim_until (&s, sim_converged, 30000), "... and is mirrored when the others are back");
    end ("split copies, the production site is gone");

    /* F4: no lease has to end, so the other's copies are still open when it is appointed. */
    begin_split (orders[k]);
    sim_store_fails (&s, N1, 0);
    ok (sim_until (&s, all_on_milan, 15000), "F4: the same when production's store fails");
    ok (state_tenure (state (N5)) == 2, "... at once: tenure %d", (int) state_tenure (state (N5)));
    end ("split copies, production's store fails");
  }
}

/* F3: a copy goes to who has another one of the site, not to the next in the order. */
static void
to_who_has_others (void)
{
  struct sim_config cfg = {
    .n_sites = 2, .nodes_per_site = 3, .n_iasps = 3, .one_machine = true, .calm = true,
    .started = true, .token_ms = 1000, .lease_ms = 3000, .start_wait_ms = 60000,
  };

  sim_init (&s, &cfg, 1);
  for (unsigned n = 0; n < s.n_nodes; n++)
    sim_boot (&s, n);
  ok (sim_until (&s, sim_converged, 20000) && mirror_host (0) == 4, "3 + 3 nodes: served and mirrored");
  s.node[3].open_fails = s.node[4].open_fails = true;
  sim_kill_plugin (&s, 3, 1);
  sim_run (&s, 15000);
  s.node[3].open_fails = s.node[4].open_fails = false;
  ok (sim_until (&s, sim_converged, 20000) && mirror_host (1) == 6, "n6 has what n4 and n5 could not open");
  sim_leave (&s, 3);
  ok (sim_until (&s, all_on_one, 5000), "n4 is gone: production serves on");
  sim_run (&s, 10000);
  ok (mirror_host (0) == 6 && mirror_host (2) == 6, "F3: ... and n6 has all three: n%u n%u", mirror_host (0),
      mirror_host (2));
  end ("to who has others");
}

/* ---- operators ---------------------------------------------------------- */

static void
requests (void)
{
  struct sim_config cfg = {
    .n_sites = 2, .nodes_per_site = 2, .n_replicates = 1, .n_iasps = 2,
    .one_machine = true, .calm = true, .token_ms = 1000, .lease_ms = 3000,
    .start_wait_ms = 60000,
  };

  sim_init (&s, &cfg, 1);
  sim_boot (&s, N5);
  sim_run (&s, 3000);
  sim_request (&s, N5, GR_START, NO_NODE);
  is (s.node[N5].last_code, 5, "without a majority a request is refused: unavailable");
  world_boot ();
  sim_run (&s, 5000);
  group_status (s.node[N5].g, 0, &st);
  is (st.condition, COND_INACTIVE, "created, not started: inactive");
  ok (!s.node[N1].plugin[0].running && !s.node[N3].plugin[0].running, "nothing is hosted");
  sim_request (&s, N5, GR_START, NO_NODE);
  ok (sim_until (&s, sim_converged, 20000), "start from a node that hosts nothing: two IASPs");
  is (s.node[N5].last_code, 0, "... and is answered");
  sim_request (&s, N5, GR_DELETE, NO_NODE);
  is (s.node[N5].last_code, 7, "delete of a started CRG is refused");
  sim_request (&s, N2, GR_END, NO_NODE);
  sim_run (&s, 5000);
  ok (s.node[N2].last_code == 0 && !s.node[N1].plugin[0].running && !s.node[N1].plugin[1].running
        && !s.node[N3].plugin[0].running,
      "end: everything is closed");
  ok (s.store[0][0].clean && s.store[1][1].clean, "... gracefully (S1 a)");
  sim_request (&s, N2, GR_START, NO_NODE);
  ok (sim_until (&s, sim_converged, 20000) && sim_production (&s, 0) == N1, "started again");
  sim_request (&s, N2, GR_END, NO_NODE);
  sim_run (&s, 5000);
  sim_request (&s, N3, GR_DELETE, NO_NODE);
  sim_run (&s, 5000);
  unsigned gone = 0;
  for (unsigned n = 0; n < s.n_nodes; n++)
    gone += !s.node[n].running && s.node[n].disk.deleted;
  is (gone, 5, "delete: every node has it on disk and leaves");
  end ("requests");
}

int
main (void)
{
  cold_start ();
  script ();
  failover ();
  unequal_leases ();
  failing_hosts ();
  force ();
  fencing ();
  verbs ();
  partitions ();
  as_one ();
  to_who_has_others ();
  requests ();
  return tap_done ();
}
