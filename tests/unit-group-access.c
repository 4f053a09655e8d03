/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Fig. 4 in general, rule by rule, in a simulated cluster of real group cores:
 * members in several subgroups, resources that are hosted by different members
 * and move one by one, each with a backup order of its own, and the member that
 * owns a resource before the group has ever hosted it.
 */
#include <inttypes.h>

#include "tests/group-world.h"

/* One site of three nodes, two stores and a printer, each preferred elsewhere. */
static void
begin (void)
{
  world_begin ((struct sim_config){ .n_sites = 1, .nodes_per_site = 3, .n_iasps = 3, .scripts = 4, .access = true,
                                    .one_machine = true, .calm = true }, 1);
}

static void
up (void)
{
  begin ();
  world_boot ();
  ok (sim_until (&s, sim_converged, 20000), "three nodes: all is served");
  sim_run (&s, 500);
}

static bool
at (int a, int b, int c)
{
  return sim_production (&s, 0) == a && sim_production (&s, 1) == b && sim_production (&s, 2) == c;
}

static bool
tenures (uint64_t a, uint64_t b, uint64_t c)
{
  const struct crg_state *x = state (s.node[N3].running ? N3 : N1);

  return x->rec[0].tenure == a && x->rec[1].tenure == b && x->rec[2].tenure == c;
}

static bool
all_is_well (struct sim *x)
{
  return sim_converged (x);
}

/* What is refused, by node n. */
static const char *
refusal (unsigned asked, unsigned iasp, uint32_t node)
{
  return group_refusal (s.node[asked].g, iasp, node);
}

static void
one_by_one (void)
{
  up ();
  ok (at (N1, N2, N3) && tenures (1, 1, 1), "each resource is hosted where it is preferred");
  ok (group_has_access (s.node[N1].g, 3, 0) && group_has_access (s.node[N3].g, 1, 2),
      "message 3: a member is in several subgroups");
  ok (strcmp (s.node[N1].config[2], "of n3") == 0 && strcmp (s.node[N2].config[2], "of n3") == 0,
      "messages 4, 5: the subgroup has the printer's configuration");

  /* F2: what a dead member hosted moves, and nothing else. */
  uint64_t acks = s.acks;
  sim_leave (&s, N2);
  ok (sim_until (&s, all_is_well, 30000) && at (N1, N3, N3) && tenures (1, 2, 1),
      "F2: its resource alone moves, to the next of its own order");
  ok (s.acks > acks, "the others serve on");
  ok (state_order (state (N1), 1, N2) == 2 && state_order (state (N1), 0, N2) == 1,
      "F5: the old primary is the last backup, of that resource");
  sim_boot (&s, N2);
  sim_run (&s, 20000);
  ok (at (N1, N3, N3) && tenures (1, 2, 1), "H3: its return moves nothing back");

  /* F6 */
  sim_switch (&s, N1, 1, 2, false);
  sim_run (&s, 3000);
  ok (s.node[N1].last_code == 0 && sim_until (&s, all_is_well, 10000) && at (N1, N2, N3)
        && tenures (1, 3, 1),
      "F6: a switchover of one resource moves that one: %s", s.node[N1].last_reason);
  sim_switch (&s, N3, 2, NO_NODE, false);
  sim_run (&s, 3000);
  ok (s.node[N3].last_code == 0 && at (N1, N2, N1), "F6: without a target: the next of its order");
  sim_switch (&s, N1, 3, NO_NODE, false);
  is (s.node[N1].last_code, 10, "a resource that isn't there");

  /* F4: a store of one resource. */
  sim_store_fails (&s, N2, 1);
  sim_run (&s, 20000);
  ok (state (N1)->rec[1].copies[0].barred && sim_production (&s, 1) < 0
        && sim_production (&s, 0) == N1 && sim_production (&s, 2) == N1,
      "F4: a store that failed stops its own resource alone");
  sim_unbar (&s, N1, 1, 0);
  ok (sim_until (&s, all_is_well, 20000), "... until it is cleared");

  /* Everything to one, when the others are gone. */
  sim_leave (&s, N1);
  ok (sim_until (&s, all_is_well, 30000), "two nodes are a majority of three: all is served");
  end ("one by one");
}

static void
subgroups (void)
{
  struct sim_config cfg = {
    .n_sites = 1, .nodes_per_site = 4, .n_iasps = 2, .access = true, .no_store = { 0x8, 0x1 },
    .started = true, .one_machine = true, .calm = true,
    .token_ms = 1000, .lease_ms = 3000, .start_wait_ms = 60000,
  };

  sim_init (&s, &cfg, 1);
  world_boot ();
  ok (sim_until (&s, sim_converged, 20000) && sim_production (&s, 0) == N1
        && sim_production (&s, 1) == N2,
      "two resources, and not everybody reaches both");
  sim_run (&s, 2000);
  ok (!group_has_access (s.node[N2].g, 4, 0) && group_has_access (s.node[N2].g, 4, 1)
        && !group_has_access (s.node[N2].g, 1, 1),
      "subgroup(R): who can reach R");
  ok (refusal (N1, 0, 4) != NULL && refusal (N1, 0, 3) == NULL, "only the subgroup can host: %s",
      refusal (N1, 0, 4));
  /* N1 is no member of subgroup(1), N4 none of subgroup(0): 2 for each. */
  uint64_t config = 0;
  for (unsigned n = 0; n < 4; n++)
    config += s.node[n].g->counters.config;
  is ((long long) config, 4, "messages 4, 5 reach the subgroups, and no others");
  sim_switch (&s, N1, 0, 4, false);
  sim_run (&s, 2000);
  ok (s.node[N1].last_code == 7 && sim_production (&s, 0) == N1, "F6: nobody else is a target: %s",
      s.node[N1].last_reason);

  /* Access that is lost, and found again. */
  s.node[N2].jams = 1;
  sim_run (&s, 25000);
  ok (!group_has_access (s.node[N1].g, 2, 0) && refusal (N3, 0, 2) != NULL,
      "message 3: a member that reaches R no more leaves its subgroup");
  sim_leave (&s, N1);
  ok (sim_until (&s, all_is_well, 30000) && sim_production (&s, 0) == N3
        && sim_production (&s, 1) == N2,
      "F2: it is passed over");
  s.node[N2].jams = 0;
  sim_run (&s, 25000);
  ok (group_has_access (s.node[N3].g, 2, 0), "... and comes back");
  /* A subgroup without a host is legal. */
  sim_boot (&s, N1);
  sim_run (&s, 3000);
  for (unsigned n = 0; n < 4; n++)
    s.node[n].jams = 1;
  sim_kill_plugins (&s, N3);
  sim_run (&s, 15000);
  ok (sim_production (&s, 0) < 0 && sim_production (&s, 1) == N2, "a subgroup without a host is legal");
  for (unsigned n = 0; n < 4; n++)
    s.node[n].jams = 0;
  ok (sim_until (&s, all_is_well, 30000), "... and has one again");
  end ("subgroups");
}

static void
owners (void)
{
  /* Fig. 4: if it owns R, it becomes host(R). */
  begin ();
  s.node[N2].owns = 4;
  world_boot ();
  ok (sim_until (&s, all_is_well, 20000) && at (N1, N2, N2) && !s.node[N3].plugin[2].running,
      "who owns a resource becomes its host, though another is preferred");
  ok (tenures (1, 1, 2), "R1: appointed");
  end ("an owner");

  begin ();
  s.node[N2].owns = s.node[N1].owns = 4;
  world_boot ();
  ok (sim_until (&s, all_is_well, 20000) && (sim_production (&s, 2) == N1 || sim_production (&s, 2) == N2),
      "H4: of two owners one is appointed, by the backup order");
  is (sim_production (&s, 2), N1, "... the first behind the named host");
  end ("two owners");

  /* What runs elsewhere takes nothing away from who hosts it. */
  up ();
  s.node[N2].owns = 4;
  sim_run (&s, 25000);
  ok (at (N1, N2, N3), "an owner that comes later takes nothing away");
  sim_leave (&s, N3);
  ok (sim_until (&s, all_is_well, 30000) && sim_production (&s, 2) == N2,
      "... it goes first as long as nobody was appointed");
  s.node[N1].owns = 4;
  sim_boot (&s, N3);
  sim_run (&s, 20000);
  sim_leave (&s, N2);
  ok (sim_until (&s, all_is_well, 30000) && sim_production (&s, 2) == N1 && state (N1)->rec[2].tenure == 3,
      "F2: then the backup order alone decides");
  end ("a later owner");
}

/* 2 + 2 nodes: each IASP is mirrored from where it is produced. */
static void
mirrored (void)
{
  struct sim_config cfg = {
    .n_sites = 2, .nodes_per_site = 2, .n_replicates = 1, .n_iasps = 3, .access = true,
    .started = true, .one_machine = true, .calm = true,
    .token_ms = 1000, .lease_ms = 3000, .start_wait_ms = 60000,
  };

  sim_init (&s, &cfg, 1);
  world_boot ();
  ok (sim_until (&s, sim_converged, 20000) && at (N1, N2, N3), "two are produced at one site, one at the other");
  ok (state (N1)->rec[2].production_site == 1 && state (N1)->rec[2].copies[0].in_set
        && state (N1)->rec[0].copies[1].in_set,
      "and each is mirrored to the other site");
  sim_leave (&s, N3);
  ok (sim_until (&s, all_is_well, 40000) && at (N1, N2, N4) && tenures (1, 1, 2),
      "F2: the dead host's production moves inside its site");
  ok (state (N1)->rec[0].copies[1].host == 4 && state (N1)->rec[1].copies[1].host == 4,
      "F3: so do the copies that it hosted");
  sim_leave (&s, N4);
  ok (sim_until (&s, all_is_well, 40000) && sim_production (&s, 2) >= 0
        && state (N1)->rec[2].production_site == 0,
      "F2: then its copy takes over");
  end ("mirrored");
}

int
main (void)
{
  one_by_one ();
  subgroups ();
  owners ();
  mirrored ();
  return tap_done ();
}
