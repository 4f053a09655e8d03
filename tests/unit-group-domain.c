/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Changes of the recovery domain (C7) and the recovery of a lost majority
 * (C9), rule by rule, in a simulated cluster of real group cores.  2 + 2
 * nodes and a replicate: n1 n2 at site 0, n3 n4 at site 1, n5 votes.
 */
#include <inttypes.h>

#include "tests/group-world.h"

static struct group_status st;

/* Like is (), with an answer's text. */
#define CODE(got, want, ...) ok ((got) == (want), __VA_ARGS__)

static void
begin_on (bool one_machine, unsigned sites, unsigned per_site, unsigned replicates)
{
  ok (world_up ((struct sim_config){ .n_sites = sites, .nodes_per_site = per_site, .n_replicates = replicates,
                                     .n_iasps = 1, .one_machine = one_machine, .calm = true }, 1, 500),
      "%u + ... nodes: served and mirrored", per_site);
}

static void
begin (unsigned sites, unsigned per_site, unsigned replicates)
{
  begin_on (true, sites, per_site, replicates);
}

/* Its processes are gone, and stay so. */
static void
off (unsigned n)
{
  sim_leave (&s, n);
  s.node[n].machine_up = false;
}

static void
on (unsigned n)
{
  s.node[n].machine_up = true;
  sim_boot (&s, n);
}

static const struct domain_node *
node (unsigned at, unsigned n)
{
  static struct domain_node none;
  int i = state_node_index (state (at), n + 1);

  return i < 0 ? &none : &state (at)->def.nodes[i];
}

static int
ask_set (unsigned at, unsigned n, uint8_t fields, uint8_t votes, uint8_t order, uint8_t role)
{
  struct node_change c = { .op = NODE_SET, .fields = fields };

  c.node.id = n + 1;
  c.node.votes = votes;
  c.node.order = order;
  c.node.preferred_role = role;
  sim_request_node (&s, at, &c);
  for (unsigned k = 0; k < 100 && s.node[at].last_code < 0; k++)
    sim_run (&s, 200);
  return s.node[at].last_code;
}

static int
ask_remove (unsigned at, unsigned n, bool drop_copy)
{
  struct node_change c = { .op = NODE_REMOVE, .drop_copy = drop_copy };

  c.node.id = n + 1;
  sim_request_node (&s, at, &c);
  for (unsigned k = 0; k < 100 && s.node[at].last_code < 0; k++)
    sim_run (&s, 200);
  return s.node[at].last_code;
}

static int
wait_answer (unsigned at)
{
  for (unsigned k = 0; k < 400 && s.node[at].last_code < 0; k++)
    sim_run (&s, 200);
  return s.node[at].last_code;
}

/* ---- C7: nodes come ------------------------------------------------------ */

static void
add (void)
{
  unsigned at;
  uint64_t config;

  begin (2, 2, 1);
  at = sim_add (&s, N4, 0, 1);
  sim_run (&s, 1000);
  is (node (N1, at)->votes, 0, "C7: an added node has no vote at first");
  is (node (N1, at)->site, 0, "... and its place in the domain");
  ok (s.node[at].last_code < 0 && s.node[N4].last_code < 0, "the request waits for its join");
  CODE (wait_answer (N4), 0, "it is answered in the end: %s", s.node[N4].last_reason);
  is (node (N1, at)->votes, 1, "C7: then it has its vote");
  ok (!state_votes_change (state (N1)), "... and the old votes are dropped");
  is (state (at)->def.n_nodes, 6, "the new node holds the state");
  ok (sim_until (&s, sim_converged, 20000), "all is served and mirrored");
  group_status (s.node[at].g, s.node[at].g->now_ms, &st);
  ok (st.counters.config > 0, "message 4: it has the configuration of its site's host");
  config = s.sent[MSG_CONFIG];
  CODE (ask_set (N3, at, NODE_SET_ORDER, 0, 1, 0), 0, "its place in the order is changed");
  sim_run (&s, 500);
  ok (s.sent[MSG_CONFIG] > config, "message 5 goes out again on a change");
  is (node (N1, at)->order, 1, "it is the first backup");
  sim_leave (&s, N1);
  ok (sim_until (&s, sim_converged, 30000) && sim_production (&s, 0) == (int) at,
      "F2: so it takes over");
  end ("add to a site");

  /* The vote of a node that can't yet persist must not be needed (C6). */
  begin (1, 1, 0);
  at = sim_add (&s, N1, -1, 1);
  CODE (wait_answer (N1), 0, "one node becomes two: %s", s.node[N1].last_reason);
  is (node (at, at)->votes, 1, "both vote");
  sim_kill (&s, at);
  sim_run (&s, 10000);
  ok (sim_production (&s, 0) < 0, "C4: one of two serves nothing");
  end ("one becomes two");

  begin (2, 1, 1);
  at = sim_add (&s, N1, 2, 1);
  CODE (wait_answer (N1), 0, "a node at a new site: %s", s.node[N1].last_reason);
  is (state (N1)->def.n_sites, 3, "is a new copy");
  ok (sim_until (&s, sim_converged, 30000) && state (N1)->rec[0].copies[2].in_set,
      "R3: which is filled and enters the set");
  is (s.node[N1].g->host[0].told_sites, 3, "C7: production's plugin was opened anew, with a place for it");
  is ((long long) state_tenure (state (N1)), 1, "production stayed where it was");
  end ("a new site");

  begin (2, 2, 1);
  off (N5);
  at = sim_add (&s, N1, -1, 1);
  s.node[at].comes = false; /* its crgd never starts */
  CODE (wait_answer (N1), 3, "a node that doesn't join: %s", s.node[N1].last_reason);
  is (node (N1, at)->votes, 0, "... never gets its vote");
  CODE (ask_set (N1, at, NODE_SET_VOTES, 1, 0, 0), 7, "C6: nor by hand: %s", s.node[N1].last_reason);
  s.node[at].restart_ms = s.now_ms + 1;
  sim_run (&s, 5000);
  CODE (ask_set (N1, at, NODE_SET_VOTES, 1, 0, 0), 0, "it joins late, and gets it: %s",
      s.node[N1].last_reason);
  end ("late");
}

/* ---- C7: votes in two steps ---------------------------------------------- */

static void
votes (void)
{
  uint64_t from;

  begin (2, 2, 1);
  struct node_change c = { .op = NODE_SET, .fields = NODE_SET_VOTES };

  c.node.id = 3;
  c.node.votes = 5;
  from = s.now_ms;
  sim_request_node (&s, N1, &c);
  sim_run (&s, 500);
  ok (node (N1, N3)->votes == 1 && node (N1, N3)->new_votes == 5,
      "C7: first the state carries the old and the new votes");
  c.node.id = 4;
  sim_request_node (&s, N2, &c);
  sim_run (&s, 500);
  is (node (N1, N4)->new_votes, 1, "C7: one node at a time");
  ok (s.node[N2].last_code < 0, "... the other request waits");
  /* A majority is one of both. */
  {
    uint32_t new_only[] = { 3, 4 }, old_only[] = { 1, 2, 4, 5 }, both[] = { 1, 2, 3 };

    ok (!state_has_majority (state (N1), new_only, 2), "C7: the new votes alone are no majority");
    ok (!state_has_majority (state (N1), old_only, 4), "... nor are the old");
    ok (state_has_majority (state (N1), both, 3), "... both are");
  }
  for (unsigned k = 0; k < 100 && state_votes_change (state (N1)) && node (N1, N4)->new_votes == 1; k++)
    sim_run (&s, 50);
  ok (s.now_ms - from >= 3150 && s.now_ms - from < 6300,
      "C7: the second step comes one lease time later: %" PRIu64 " ms", s.now_ms - from);
  is (node (N1, N3)->votes, 5, "... and drops the old votes");
  CODE (wait_answer (N2), 0, "the other request is done after it");
  is (node (N1, N4)->votes, 5, "... too");
  ok (sim_production (&s, 0) == N1, "production has gone on");
  off (N1);
  off (N2);
  off (N5);
  ok (sim_until (&s, sim_converged, 60000) && sim_production (&s, 0) >= N3,
      "two nodes with 10 of 13 votes are a majority");
  end ("votes");

  /* Whatever the lease of who is production: those who granted it know (L3). */
  ok (world_up ((struct sim_config){ .n_sites = 2, .nodes_per_site = 2, .n_replicates = 1, .n_iasps = 1,
                                     .one_machine = true, .calm = true, .node_lease_ms = { 10000 } }, 1, 500),
      "production has a lease of 10 s, the others of 3 s");
  c.node.id = 3;
  c.node.votes = 5;
  from = s.now_ms;
  sim_request_node (&s, N2, &c);
  for (unsigned k = 0; k < 400 && node (N1, N3)->votes == 1; k++)
    sim_run (&s, 50);
  ok (node (N1, N3)->votes == 5 && s.now_ms - from > 9000 && s.now_ms - from < 12000,
      "C7: the second step waits for the longest lease: %" PRIu64 " ms", s.now_ms - from);
  end ("votes, and a longer lease");

  /* Between the two steps: what only one of both allows doesn't happen. */
  begin (2, 2, 1);
  c.node.id = 3;
  c.node.votes = 9;
  sim_request_node (&s, N1, &c);
  sim_run (&s, 500);
  ok (state_votes_change (state (N1)), "between the steps");
  {
    static const unsigned part[SIM_NODES] = { 0, 0, 1, 0, 0 };

    sim_part (&s, part);
    sim_run (&s, 20000);
    ok (sim_production (&s, 0) < 0, "C7: four of five by the old votes alone serve nothing");
    ok (!group_active (s.node[N3].g), "... and nine of thirteen by the new ones change nothing");
    sim_heal (&s);
    ok (sim_until (&s, sim_converged, 30000), "together they serve again");
    sim_run (&s, 5000);
    is (node (N4, N3)->votes, 9, "... and the second step is done, whoever asked");
  }
  end ("between");
}

/* ---- C7: nodes go -------------------------------------------------------- */

static void
remove_nodes (void)
{
  begin (2, 2, 1);
  CODE (ask_remove (N2, N1, false), 7, "refused: %s", s.node[N2].last_reason);
  is (node (N1, N1)->votes, 1, "... and its vote is left alone");
  CODE (ask_remove (N1, N3, false), 7, "refused: %s", s.node[N1].last_reason);
  CODE (ask_remove (N1, N5, false), 0, "the replicate goes");
  ok (state (N1)->def.n_nodes == 4 && !s.node[N5].has_disk && !s.node[N5].running,
      "it has forgotten the CRG");
  CODE (ask_remove (N1, N4, false), 0, "so does a backup that hosts nothing");
  CODE (ask_remove (N1, N3, false), 7, "the last of its site takes the copy along: %s",
      s.node[N1].last_reason);
  CODE (ask_remove (N1, N3, true), 0, "... if that is meant: %s", s.node[N1].last_reason);
  ok (!state (N1)->rec[0].copies[1].in_set && state (N1)->rec[0].copies[1].host == NO_NODE
        && state (N1)->rec[0].generation == 2,
      "R2: the copy has left the set");
  ok (sim_production (&s, 0) == N1, "production has gone on");
  CODE (ask_remove (N2, N1, false), 7, "the production host stays: %s", s.node[N2].last_reason);
  CODE (ask_remove (N1, N2, false), 0, "two become one");
  sim_run (&s, 4000);
  ok (sim_production (&s, 0) == N1, "one serves alone");
  CODE (ask_remove (N1, N1, false), 7, "the last stays: %s", s.node[N1].last_reason);
  end ("remove");

  /* A node that was removed while it was away has no say when it returns. */
  begin (2, 2, 1);
  off (N2);
  off (N4);
  sim_run (&s, 5000);
  CODE (ask_remove (N1, N2, false), 0, "one that is away is removed: %s", s.node[N1].last_reason);
  CODE (ask_remove (N1, N4, false), 0, "another one too: %s", s.node[N1].last_reason);
  is (state (N1)->def.n_nodes, 3, "three are left");
  on (N2);
  on (N4);
  {
    static const unsigned part[SIM_NODES] = { 0, 1, 0, 1, 1 };

    sim_part (&s, part);
    sim_run (&s, 20000);
    ok (!group_active (s.node[N5].g) && !group_active (s.node[N2].g),
        "C7: with one of three it is no majority, though it was three of five");
    ok (sim_production (&s, 0) == N1, "the two others of three serve");
  }
  end ("removed while away");

  /* ... and one whose id another node has by now is not that one. */
  begin (2, 2, 1);
  strcpy (s.node[N4].g->cfg.name, "of-before");
  CODE (ask_set (N1, N2, NODE_SET_ROLE, 0, 0, MEMBER_PRIMARY), 0, "any change");
  sim_run (&s, 1000);
  ok (s.node[N4].gone && !s.node[N3].gone, "C7: who finds another name at its id has been removed");
  end ("an id that was given again");

  begin (2, 2, 1);
  CODE (ask_set (N1, N2, NODE_SET_ROLE, 0, 0, MEMBER_PRIMARY), 0, "another preferred primary");
  ok (node (N1, N2)->preferred_role == MEMBER_PRIMARY && node (N1, N1)->preferred_role == MEMBER_BACKUP,
      "there is one of it");
  is (sim_production (&s, 0), N1, "F5: nothing moves by that");
  CODE (ask_set (N1, N3, NODE_SET_ROLE, 0, 0, MEMBER_PEER), 7, "refused: %s", s.node[N1].last_reason);
  CODE (ask_set (N1, N4, NODE_SET_ORDER, 0, 0, 0), 7, "refused: %s", s.node[N1].last_reason);
  CODE (ask_set (N1, N5, NODE_SET_ROLE, 0, 0, MEMBER_BACKUP), 7, "refused: %s", s.node[N1].last_reason);
  CODE (ask_set (N1, N4, NODE_SET_ORDER, 0, 1, 0), 0, "the second site's second is first backup");
  ok (node (N2, N1)->order == 0 && node (N2, N4)->order == 1 && node (N2, N2)->order == 2
        && node (N2, N3)->order == 3, "the others keep their sequence");
  end ("set");

  begin (2, 1, 1);
  sim_wipe (&s, N2);
  s.node[N2].restart_ms = s.now_ms + 100;
  sim_run (&s, 5000);
  ok (sim_until (&s, sim_converged, 20000) && s.node[N2].has_disk,
      "C6: a node with an empty disk comes back");
  end ("empty disk");
}

/* ---- S1: what a node that is removed had open ---------------------------- */

static void
remove_unreleased (void)
{
  /* n1 dies with its machine, n2 can't have the store that it had open. */
  begin_on (false, 2, 2, 1);
  sim_power_off (&s, N1);
  sim_run (&s, 20000);
  ok (sim_production (&s, 0) == N3 && s.store[0][0].machine == N1 && !s.store[0][0].clean,
      "production is at the other site, and n1's store is not released");
  CODE (ask_remove (N3, N1, false), 7, "S1: so n1 can't be removed: %s", s.node[N3].last_reason);
  is (node (N3, N1)->votes, 1, "... and its vote is left alone");
  sim_power_off (&s, N2);
  sim_run (&s, 5000);
  sim_request (&s, N3, GR_MARK_FAILED, N1 + 1);
  sim_run (&s, 1000);
  CODE (ask_remove (N3, N1, false), 0, "S1 d: marked failed it can: %s", s.node[N3].last_reason);
  is (state (N3)->n_gone, 1, "... and the state remembers that");
  sim_power_on (&s, N2);
  ok (sim_until (&s, sim_converged, 30000) && state (N3)->rec[0].copies[0].host == N2 + 1,
      "S1 d: so n2 opens the store, whenever it comes");
  CODE (ask_remove (N3, N4, false), 0, "n4's store is open at n3: it goes, %s", s.node[N3].last_reason);
  is (state (N3)->n_gone, 1, "... and needs no memory");
  end ("a store that was not released");

  /* Nobody has it open, though everybody is there. */
  begin_on (false, 2, 2, 1);
  sim_request (&s, N1, GR_END, NO_NODE);
  sim_run (&s, 2000);
  CODE (ask_remove (N1, N4, false), 7, "S1: of a CRG that is ended nobody knows: %s", s.node[N1].last_reason);
  sim_request (&s, N1, GR_START, NO_NODE);
  sim_run (&s, 10000);
  CODE (ask_remove (N1, N4, false), 0, "... when it is served it goes: %s", s.node[N1].last_reason);
  end ("an ended CRG");

  /* While a node counts as dead, its neighbours may open what it has: it opens nothing.  Its disk is slow or
   * fast, and so are the messages. */
  unsigned back = 0, early = 0;
  for (uint64_t seed = 1; seed <= 40 && !s.failed; seed++) {
    struct sim_config cfg = { .n_sites = 2, .nodes_per_site = 2, .n_replicates = 1, .n_iasps = 1, .started = true,
                              .token_ms = 1000, .lease_ms = 3000, .start_wait_ms = 60000 };

    sim_init (&s, &cfg, seed);
    for (unsigned n = 0; n < s.n_nodes; n++)
      sim_boot (&s, n);
    sim_until (&s, sim_converged, 20000);
    sim_power_off (&s, N4);
    sim_power_off (&s, N3);
    sim_run (&s, 10000);
    sim_request (&s, N1, GR_MARK_FAILED, N3 + 1);
    sim_run (&s, 1000);
    sim_power_on (&s, N3);
    for (unsigned k = 0; k < 100000 && node (N1, N3)->marked_failed && sim_step (&s); k++)
      early += s.node[N3].plugin[0].running && node (N3, N3)->marked_failed;
    back += !node (N1, N3)->marked_failed && sim_until (&s, sim_converged, 30000);
    if (seed < 40 && !s.failed)
      sim_destroy (&s);
  }
  ok (early == 0, "S1 d: back again, it opens nothing before the mark is gone (%u)", early);
  is (back, 40, "... and then it does");
  end ("marked failed and back");
}

/* ---- C9 ------------------------------------------------------------------ */

static void
recover (void)
{
  const char *why;
  uint64_t loss;

  begin (2, 2, 1);
  loss = state (N1)->rec[0].loss;
  off (N1);
  off (N2);
  off (N5);
  sim_run (&s, 10000);
  ok (sim_production (&s, 0) < 0, "C4: two of five serve nothing");
  why = sim_recover (&s, N3, 1u << N3);
  ok (why != NULL, "C9: refused: %s", why);
  why = sim_recover (&s, N3, 0);
  ok (why != NULL, "C9: refused: %s", why);
  why = sim_recover (&s, N3, 1u << N1 | 1u << N2 | 1u << N5);
  ok (why == NULL, "C9: recovered without those that are dead: %s", why != NULL ? why : "");
  sim_run (&s, 20000);
  is (sim_production (&s, 0), N3, "it serves");
  is (node (N3, N1)->votes, 0, "C9: the dead have no votes");
  is ((long long) state (N3)->rec[0].loss, (long long) loss + 1, "loss tells that writes may be gone");
  ok (memcmp (state (N3)->lineage, s.created.lineage, CRG_ID_LEN) != 0, "under a new lineage");
  ok (memcmp (s.store[1][0].lineage, state (N3)->lineage, CRG_ID_LEN) == 0,
      "C9: its store of the set has it too");
  ok (group_active (s.node[N4].g) && state (N4)->domain == state (N3)->domain,
      "C9: one that lives joins as an empty node");
  is (node (N3, N4)->votes, 0, "... without a vote");
  CODE (ask_set (N3, N4, NODE_SET_VOTES, 1, 0, 0), 0, "... and gets it back");
  /* One of the dead comes back with its old state and store. */
  on (N1);
  sim_run (&s, 20000);
  ok (group_active (s.node[N1].g)
        && memcmp (s.node[N1].disk.lineage, state (N3)->lineage, CRG_ID_LEN) == 0,
      "C9: it has given its state up");
  is (node (N3, N1)->votes, 0, "... and has no vote");
  ok (sim_production (&s, 0) == N3 && !state (N3)->rec[0].copies[0].in_set, "production stays");
  ok (memcmp (s.store[0][0].lineage, s.created.lineage, CRG_ID_LEN) == 0,
      "R6: its store is a fork, and is left alone");
  end ("recover");
}

int
main (void)
{
  add ();
  votes ();
  remove_nodes ();
  remove_unreleased ();
  recover ();
  return tap_done ();
}
