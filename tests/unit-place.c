/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Placement, rule by rule: who may host (R4, R6, S1, S2, F2 to F4), who counts as left (F7), who owns
 * a resource before the group has hosted it (Fig. 4), and whom an operator may force.  p1 p2 at rome,
 * c1 c2 at oslo, a replicate w; two IASPs.
 */
#include "server/place.h"
#include "tests/tap.h"

static struct crg_state s;
static struct crg_def def;
static struct place_in in;
static struct announce said[5];
static const uint8_t lineage[CRG_ID_LEN] = { 9 };

enum { P1, P2, C1, C2, W };
#define ID(node) (10u + (node))

/* All are there, have probed, and could open a store that was released; p1 is production, and oslo's
 * copies are in the set. */
static void
fresh (enum placement placement)
{
  static const char *const names[] = { "p1", "p2", "c1", "c2", "w" };

  memset (&def, 0, sizeof def);
  strcpy (def.name, "payroll");
  def.placement = (uint8_t) placement;
  def.n_sites = 2;
  def.n_nodes = 5;
  def.n_iasps = 2;
  strcpy (def.sites[0], "rome");
  strcpy (def.sites[1], "oslo");
  for (unsigned k = 0; k < 2; k++) {
    strcpy (def.iasps[k].name, k ? "more" : "data");
    def.iasps[k].size = 4096;
  }
  for (unsigned i = 0; i < 5; i++) {
    struct domain_node *n = &def.nodes[i];

    n->id = ID (i);
    strcpy (n->name, names[i]);
    n->site = i == W ? NO_SITE : (uint8_t) (i / 2);
    n->preferred_role = i == W ? MEMBER_REPLICATE : MEMBER_BACKUP;
    n->votes = 1;
    n->order = n->preferred_order = (uint8_t) i;
    for (unsigned k = 0; k < 2; k++) {
      def.iasps[k].order[i] = (uint8_t) i;
      if (i != W)
        strcpy (def.iasps[k].store[i], "/store");
    }
  }
  if (state_create (&s, &def, lineage) != NULL)
    abort ();
  s.started = true;
  memset (&in, 0, sizeof in);
  memset (said, 0, sizeof said);
  in.state = &s;
  in.ready = true;
  for (unsigned k = 0; k < 2; k++) {
    s.rec[k].copies[1].in_set = true;
    s.rec[k].copies[1].since = 1;
    s.rec[k].past_generation[0] = s.rec[k].past_generation[1] = 1;
  }
  for (unsigned i = 0; i < 5; i++) {
    in.node[i].present = true;
    in.node[i].announce = &said[i];
    said[i].n_iasps = 2;
    said[i].boot_id[0] = (uint8_t) (1 + i);
    for (unsigned k = 0; k < 2; k++) {
      struct group_host_status *h = &said[i].iasp[k];

      h->probed = true;
      h->can_host = true;
      h->tenure = 1;
      h->store = (struct store_info){ .can_host = true, .has_super = true, .agrees_ids = true, .clean = true,
                                      .generation = 1, .tenure = 1, .lineage = { 9 } };
    }
  }
}

static void
mirrors (unsigned node)
{
  for (unsigned k = 0; k < 2; k++) {
    said[node].iasp[k].opened = true;
    said[node].iasp[k].role = HOST_MIRROR;
  }
}

/* NULL is "yes". */
static void
says (const char *got, const char *want, const char *what)
{
  if (!ok (want == NULL ? got == NULL : got != NULL && strstr (got, want) != NULL, "%s: %s", what,
           want ? want : "yes"))
    printf ("# got: %s\n", got ? got : "(yes)");
}

static void
access_rights (void)
{
  fresh (PLACEMENT_ACCESS);
  ok (place_has_access (&s, 0, &said[P2]), "Fig. 4: a store that is ours is access");
  ok (!place_has_access (&s, 0, NULL) && !place_has_access (&s, 2, &said[P2]), "who said nothing of it has none");
  said[P2].iasp[0].store.agrees_ids = false;
  ok (!place_has_access (&s, 0, &said[P2]), "another's store is none");
  said[P2].iasp[0].opened = true;
  ok (place_has_access (&s, 0, &said[P2]), "who has it open has access");
  said[P2].iasp[0].probed = false;
  ok (!place_has_access (&s, 0, &said[P2]), "what wasn't probed is none");
  said[P2].iasp[1].store.has_super = false;
  ok (!place_has_access (&s, 1, &said[P2]), "an empty store is none");
  s.def.iasps[1].type = RES_SCRIPT;
  ok (place_has_access (&s, 1, &said[P2]), "a script needs no store");
  said[P2].iasp[1].can_host = false;
  ok (!place_has_access (&s, 1, &said[P2]), "... but an agent that could start it");
  said[P2].iasp[1].store.owned = true;
  ok (place_has_access (&s, 1, &said[P2]), "Fig. 4: who owns it has access");
}

static void
disagreement (void)
{
  struct store_info st;

#define STORE(what, want, ...)                                   \
  do {                                                           \
    fresh (PLACEMENT_SITE);                                      \
    st = said[P2].iasp[0].store;                                 \
    __VA_ARGS__;                                                 \
    says (place_disagrees (&s, 0, 0, &st), (want), "store: " what); \
  } while (0)
  STORE ("as it should be", NULL, (void) 0);
  STORE ("empty", "no superblock", st.has_super = false);
  STORE ("another's", "belongs to another", st.agrees_ids = false);
  STORE ("another lineage", "another lineage", st.lineage[0] = 1);
  STORE ("the lineage before, and none was", "another lineage", memset (st.lineage, 0, CRG_ID_LEN));
  STORE ("the lineage before", NULL, st.lineage[0] = 1, s.n_past = 1, s.past[0][0] = 1);
  STORE ("the lineage before, and of a time that the record had not reached then", "R6", st.lineage[0] = 1, s.n_past = 1,
         s.past[0][0] = 1, st.generation = s.rec[0].generation = 2);
  STORE ("... or had reached", NULL, st.lineage[0] = 1, s.n_past = 1, s.past[0][0] = 1,
         st.generation = s.rec[0].generation = s.rec[0].past_generation[0] = 2);
  STORE ("one from long ago", "another lineage", st.lineage[0] = 2, s.n_past = 1, s.past[0][0] = 1);
  STORE ("the one before that", NULL, st.lineage[0] = 2, s.n_past = 2, s.past[0][0] = 1, s.past[1][0] = 2);
  STORE ("the lineage before, outside the set", "another lineage", st.lineage[0] = 1, s.n_past = 1, s.past[0][0] = 1,
         s.rec[0].copies[0].in_set = false);
  STORE ("to be filled", "unfinished resync", st.unusable = true);
  STORE ("a fork", "is a fork", st.fork = true);
  STORE ("a fork that was forced", NULL, st.fork = true, s.rec[0].forced = true, s.rec[0].tenure = 2);
  STORE ("a fork of the tenure that was forced", "is a fork", st.fork = true, s.rec[0].forced = true);
  STORE ("a fork at a copy's site", "is a fork", st.fork = true, s.rec[0].forced = true, s.rec[0].production_site = 1,
         s.rec[0].tenure = 2);
  STORE ("older than its place in the set", "disk and record disagree", st.generation = 0);
  STORE ("newer than the record", "disk and record disagree", st.generation = 2);
  STORE ("of a tenure to come", "disk and record disagree", st.tenure = 2);
  STORE ("none, as of a script", NULL, st.has_super = false, s.def.iasps[0].type = RES_SCRIPT);
}

static void
refusal (void)
{
#define NODE(what, want, node, why, ...)                                  \
  do {                                                                    \
    fresh (PLACEMENT_SITE);                                               \
    __VA_ARGS__;                                                          \
    says (place_refusal (&in, 0, (node), (why)), (want), "may host: " what); \
  } while (0)
  NODE ("p2", NULL, P2, PLACE_FOR_FAILOVER, (void) 0);
  NODE ("a replicate", "replicate", W, PLACE_FOR_FAILOVER, (void) 0);
  NODE ("who is gone", "not there", P2, PLACE_FOR_FAILOVER, in.node[P2].present = false);
  NODE ("who said nothing", "not said yet", P2, PLACE_FOR_FAILOVER, in.node[P2].announce = NULL);
  NODE ("who said nothing of the second", "not said yet", P2, PLACE_FOR_FAILOVER, said[P2].n_iasps = 1);
  NODE ("a barred copy", "barred", C1, PLACE_FOR_FAILOVER, s.rec[1].copies[1].barred = true);
  NODE ("a detached copy", "detached", C1, PLACE_FOR_FAILOVER, s.rec[1].copies[1].detached = true);
  NODE ("outside the set", "not in the set", C1, PLACE_FOR_FAILOVER, s.rec[1].copies[1].in_set = false);
  NODE ("who failed", "failed to host", P2, PLACE_FOR_FAILOVER, said[P2].iasp[1].failed = true);
  NODE ("not probed", "not probed", P2, PLACE_FOR_FAILOVER, said[P2].iasp[1].probed = false);
  NODE ("a store that isn't free", "cannot be opened now (S1)", P2, PLACE_FOR_FAILOVER, said[P2].iasp[1].can_host = false);
  NODE ("... with a reason", "p9 has it", P2, PLACE_FOR_FAILOVER, said[P2].iasp[1].can_host = false,
        strcpy (said[P2].iasp[1].reason, "p9 has it"));
  NODE ("... that it has open itself", NULL, P2, PLACE_FOR_FAILOVER, said[P2].iasp[1].can_host = false,
        said[P2].iasp[1].opened = true);
  NODE ("... that the host has open, which will let go", NULL, P2, PLACE_FOR_FAILOVER, said[P2].iasp[1].can_host = false,
        said[P1].iasp[1].opened = true);
  NODE ("... who has not released it, which makes it no restarted one", NULL, P2, PLACE_FOR_FAILOVER,
        said[P2].iasp[1].can_host = false, said[P2].iasp[1].store.restarted = true, said[P1].iasp[1].opened = true);
  NODE ("... but if the host says that it is", "waits for the other copies", P2, PLACE_FOR_FAILOVER,
        said[P2].iasp[1].can_host = false, said[P1].iasp[1].store.restarted = true, said[P1].iasp[1].opened = true);
  NODE ("... or that it disagrees", "disagree", P2, PLACE_FOR_FAILOVER, said[P2].iasp[1].can_host = false,
        said[P1].iasp[1].store.generation = 9, said[P1].iasp[1].opened = true);
  NODE ("... and the host is gone", "S1", P2, PLACE_FOR_FAILOVER, said[P2].iasp[1].can_host = false,
        said[P1].iasp[1].opened = true, in.node[P1].present = false);
  NODE ("... and said nothing", "S1", P2, PLACE_FOR_FAILOVER, said[P2].iasp[1].can_host = false, in.node[P1].announce = NULL);
  NODE ("a copy that another has open", "S1", C2, PLACE_FOR_FAILOVER, said[C2].iasp[1].can_host = false,
        said[C1].iasp[1].opened = true);
  NODE ("... and all are taken together", NULL, C2, PLACE_TOGETHER, said[C2].iasp[1].can_host = false,
        said[C1].iasp[1].opened = true);
  NODE ("a switchover to the copy's host", NULL, C1, PLACE_FOR_SWITCHOVER, (void) 0);
  NODE ("a switchover to another there", "another node hosts the copy", C2, PLACE_FOR_SWITCHOVER, (void) 0);
  NODE ("... that lets go of it", NULL, C2, PLACE_SWITCH_COPIES, mirrors (C1),
        said[C2].iasp[0].can_host = said[C2].iasp[1].can_host = false);
  NODE ("... which disagrees", "disagree", C2, PLACE_SWITCH_COPIES, mirrors (C1), said[C1].iasp[1].store.generation = 9);
  NODE ("... which is restarted", "waits for the other copies", C2, PLACE_SWITCH_COPIES, mirrors (C1),
        said[C1].iasp[1].store.restarted = true);
  NODE ("... whose store it doesn't see", "not the copy of its site", C2, PLACE_SWITCH_COPIES, mirrors (C1),
        said[C2].iasp[1].store.has_super = false);
  NODE ("... that is gone", "S1", C2, PLACE_SWITCH_COPIES, mirrors (C1), said[C2].iasp[0].can_host = false,
        in.node[C1].present = false);
  NODE ("a switchover at the site", NULL, P2, PLACE_FOR_SWITCHOVER, said[P2].iasp[0].can_host = false);
  NODE ("... to who doesn't reach the store", "does not reach", P2, PLACE_FOR_SWITCHOVER,
        said[P2].iasp[1].store.has_super = false);
  NODE ("... to a peer", "peer", P2, PLACE_FOR_SWITCHOVER, s.def.nodes[P2].preferred_role = MEMBER_PEER);
  NODE ("a store that disagrees", "disagree", P2, PLACE_FOR_FAILOVER, said[P2].iasp[1].store.generation = 9);
  NODE ("a restarted store", "waits for the other copies", P2, PLACE_FOR_FAILOVER, said[P2].iasp[1].store.restarted = true);
  NODE ("... and the other copy restarted too", NULL, P2, PLACE_FOR_FAILOVER, said[P2].iasp[1].store.restarted = true,
        said[C2].iasp[1].store.restarted = true);
  NODE ("... that can't be opened there", "waits for the other copies", P2, PLACE_FOR_FAILOVER,
        said[P2].iasp[1].store.restarted = said[C2].iasp[1].store.restarted = true, said[C2].iasp[1].can_host = false);
  NODE ("... which isn't known", "waits for the other copies", P2, PLACE_FOR_FAILOVER,
        said[P2].iasp[1].store.restarted = said[C2].iasp[1].store.restarted = true, said[C2].iasp[1].probed = false);
  NODE ("... and its host is marked failed", NULL, P2, PLACE_FOR_FAILOVER, said[P2].iasp[1].store.restarted = true,
        in.node[C1].present = false, s.def.nodes[C1].marked_failed = true);
  NODE ("... it has no host, and one there is not", "waits for the other copies", P2, PLACE_FOR_FAILOVER,
        said[P2].iasp[1].store.restarted = true, s.rec[1].copies[1].host = NO_NODE,
        s.def.nodes[C1].marked_failed = true);
  NODE ("... that is a peer, and knows nothing of it", NULL, P2, PLACE_FOR_FAILOVER,
        said[P2].iasp[1].store.restarted = true, s.rec[1].copies[1].host = NO_NODE,
        s.def.nodes[C1].marked_failed = true, s.def.nodes[C2].preferred_role = MEMBER_PEER,
        s.def.iasps[1].store[C2][0] = '\0', said[C2].iasp[1].can_host = false);
  NODE ("... that was made one, and has a store", "waits for the other copies", P2, PLACE_FOR_FAILOVER,
        said[P2].iasp[1].store.restarted = true, s.rec[1].copies[1].host = NO_NODE,
        s.def.nodes[C1].marked_failed = true, s.def.nodes[C2].preferred_role = MEMBER_PEER);

  fresh (PLACEMENT_ACCESS);
  said[P2].iasp[1].store.restarted = true;
  s.rec[1].copies[1].host = NO_NODE;
  s.def.nodes[C1].marked_failed = true;
  says (place_refusal (&in, 1, P2, PLACE_FOR_FAILOVER), "waits for the other copies", "ACCESS: another there has its store");
  s.def.iasps[1].store[C2][0] = '\0';
  said[C2].iasp[1].can_host = said[C2].iasp[1].store.has_super = false;
  says (place_refusal (&in, 1, P2, PLACE_FOR_FAILOVER), NULL, "ACCESS: ... only that of another resource");

  fresh (PLACEMENT_ACCESS);
  said[P2].iasp[1].store.has_super = false;
  says (place_refusal (&in, 1, P2, PLACE_FOR_FAILOVER), "no access to the resource", "ACCESS: no store of ours");
  strcpy (said[P2].iasp[1].reason, "no such disk");
  says (place_refusal (&in, 1, P2, PLACE_FOR_FAILOVER), "no such disk", "ACCESS: ... with a reason");
  says (place_refusal (&in, 0, P2, PLACE_FOR_FAILOVER), NULL, "ACCESS: the other resource");
  said[P2].iasp[1].probed = false;
  says (place_refusal (&in, 1, P2, PLACE_FOR_FAILOVER), "not probed", "ACCESS: not probed");
}

static void
forced (void)
{
#define FORCE(what, want, node, ...)                                    \
  do {                                                                  \
    fresh (PLACEMENT_SITE);                                             \
    s.rec[0].copies[1].in_set = false;                                  \
    __VA_ARGS__;                                                        \
    says (place_force_refusal (&in, 0, (node)), (want), "force: " what); \
  } while (0)
  FORCE ("a copy outside the set", NULL, C1, (void) 0);
  FORCE ("a replicate", "replicate", W, (void) 0);
  FORCE ("a peer", "peer", C1, s.def.nodes[C1].preferred_role = MEMBER_PEER);
  FORCE ("who is gone", "not there", C1, in.node[C1].present = false);
  FORCE ("who said nothing", "not said yet", C1, in.node[C1].announce = NULL);
  FORCE ("who said nothing of the second", "not probed", C1, said[C1].n_iasps = 1);
  FORCE ("not probed", "not probed", C1, said[C1].iasp[1].probed = false);
  FORCE ("a barred copy", "barred", C1, s.rec[1].copies[1].barred = true);
  FORCE ("who failed", "failed to host", C1, said[C1].iasp[1].failed = true);
  FORCE ("a store that isn't free", "S1", C1, said[C1].iasp[1].can_host = false);
  FORCE ("... with a reason", "p9 has it", C1, said[C1].iasp[1].can_host = false, strcpy (said[C1].iasp[1].reason, "p9 has it"));
  FORCE ("an empty store", "not the copy of its site", C1, said[C1].iasp[1].store.has_super = false);
  FORCE ("another's store", "not the copy of its site", C1, said[C1].iasp[1].store.agrees_ids = false);
  FORCE ("another lineage", "not the copy of its site", C1, said[C1].iasp[1].store.lineage[0] = 1);
  FORCE ("a lineage that the group was recovered from", NULL, C1, said[C1].iasp[1].store.lineage[0] = 1, s.n_past = 1,
         s.past[0][0] = 1);
  FORCE ("never filled", "never filled", C1, said[C1].iasp[1].store.unusable = true);
  FORCE ("newer than the record", "R6", C1, said[C1].iasp[1].store.generation = 2);
  FORCE ("of a tenure to come", "R6", C1, said[C1].iasp[1].store.tenure = 2);
  FORCE ("... in a group that was recovered, and of its lineage", "R6", C1, said[C1].iasp[1].store.generation = 2, s.n_past = 1,
         s.past[0][0] = 1);
  FORCE ("... and of the one before", NULL, C1, said[C1].iasp[1].store.generation = 2, said[C1].iasp[1].store.lineage[0] = 1,
         s.n_past = 1, s.past[0][0] = 1);
  FORCE ("... of production's host", NULL, P1, said[P1].iasp[1].store.tenure = 2, said[P1].iasp[1].store.lineage[0] = 1,
         s.n_past = 1, s.past[0][0] = 1);
  FORCE ("a script beside it", NULL, C1, s.def.iasps[1].type = RES_SCRIPT, said[C1].iasp[1].store.has_super = false);
  FORCE ("a copy of the set", "takes over by itself", C1, s.rec[0].copies[1].in_set = true);
  FORCE ("a copy of the set that restarted and has to wait", NULL, C1, s.rec[0].copies[1].in_set = true,
         said[C1].iasp[1].store.restarted = true);
}

/* C9, R4: the store has heard of commits of the dead, which the recovered group has not. */
static void
forced_ahead (void)
{
  struct change c;

  for (unsigned self = 0; self < 2; self++) {
    const unsigned node = self ? P1 : P2;

    fresh (PLACEMENT_SITE);
    s.n_past = 1;
    s.past[0][0] = 1;
    said[node].iasp[0].store.lineage[0] = said[node].iasp[1].store.lineage[0] = 1;
    said[node].iasp[1].store.generation = 2;
    ok (place_force (&in, 0, node, &c) && c.kind == CH_APPOINT && c.node == ID (node) && c.forced && c.loss_iasps == 2,
        self ? "its host is appointed anew" : "a neighbour with it is appointed");
    ok (state_check (&s, &c) == NULL, "... and may");
    state_apply (&s, &c);
    ok (state_order (&s, 0, node) == 0 && state_order (&s, 0, self ? P2 : P1) == (self ? 1 : s.def.n_nodes - 1u),
        "... and the backup order holds each node once");
    ok (s.rec[0].tenure == s.rec[1].tenure && s.rec[0].tenure > 1000000, "... in a tenure that the dead did not reach");
    ok (s.rec[1].generation > 1000000 && s.rec[1].forced && s.rec[1].loss == 1, "... and in such a generation");
    ok (!s.rec[1].copies[1].in_set && s.rec[1].copies[1].detached, "the other copy is a fork");
    ok (s.rec[0].copies[1].in_set && s.rec[0].loss == 0 && !s.rec[0].forced, "... of that IASP only");
    says (place_disagrees (&s, 1, 0, &said[node].iasp[1].store), NULL, "it is opened");
    s.n_past = 0;
    is (state_check (&s, &c) == NULL, 0, "it is appointed once");
  }
  fresh (PLACEMENT_SITE);
  ok (!place_force (&in, 0, P1, &c), "the host of a store that is not ahead is not appointed");
  said[P1].iasp[0].opened = said[P1].iasp[1].opened = false;
  said[P1].iasp[1].store.restarted = true;
  ok (place_force (&in, 0, P1, &c) && c.kind == CH_RESTARTED, "S2: ... it waits no more, if it is restarted");
  memset (&c, 0, sizeof c);
  place_appointment (&in, 0, P1, &c);
  c.forced = true;
  says (state_check (&s, &c), "host already", "nor is it in a group that was never recovered");
}

/* C9: p2's store may hold what was answered; p1, which is gone, is the named host. */
static void
chosen (void)
{
  struct change c;

#define APART(what, want, ...)                                                                        \
  do {                                                                                                \
    fresh (PLACEMENT_SITE);                                                                           \
    s.n_past = 1;                                                                                     \
    s.past[0][0] = 1;                                                                                 \
    said[P2].iasp[0].store.lineage[0] = said[P2].iasp[1].store.lineage[0] = 1;                        \
    said[P2].iasp[1].store.generation = 2;                                                            \
    in.node[P1].present = false;                                                                      \
    __VA_ARGS__;                                                                                      \
    is (place_apart (&in, 0), (want), what);                                                          \
    ok (place_production (&in, &c) == ((want) == 0) && place_may_begin (&in, 0) == ((want) == 0), "... who begins"); \
  } while (0)
  APART ("a store that has heard more", 2, (void) 0);
  says (place_refusal (&in, 0, C1, PLACE_FOR_FAILOVER), "operator has to choose", "another copy, which agrees, waits as well");
  says (place_force_refusal (&in, 0, C1), NULL, "... but may be chosen");
  ok (place_force (&in, 0, C1, &c) && c.node == ID (C1) && c.forced && c.loss_iasps == 2, "... and is then appointed");
  state_apply (&s, &c);
  ok (s.rec[1].forced && s.rec[1].copies[0].detached && !s.rec[0].forced && s.rec[0].copies[0].in_set,
      "what had heard more becomes a fork");
  is (place_apart (&in, 0), 0, "... and nobody waits any more");
  APART ("a fork on its disk that the record has in the set", 3, said[P2].iasp[0].store.fork = true);
  ok (place_force (&in, 0, P2, &c) && c.loss_iasps == 3, "... is chosen with the other");
  APART ("one that agrees", 0, said[P2].iasp[1].store.generation = 1);
  APART ("one that left the set", 0, s.rec[1].copies[0].in_set = s.rec[0].copies[0].in_set = false);
  APART ("one that was half filled", 0, said[P2].iasp[1].store.unusable = true);
  APART ("one of this lineage", 0, said[P2].iasp[1].store.lineage[0] = 9);
  APART ("one that is open", 0, said[P2].iasp[0].opened = said[P2].iasp[1].opened = true);
  APART ("a node that is gone", 0, in.node[P2].present = false);
  APART ("not probed", 0, said[P2].iasp[1].probed = false);
  APART ("another's store", 0, said[P2].iasp[1].store.agrees_ids = false);
  APART ("an empty store", 0, said[P2].iasp[1].store.has_super = false);
  APART ("a replicate's word", 0, s.def.nodes[P2].site = NO_SITE);
  in.ready = false;
  ok (!place_may_begin (&in, 0), "who is there is heard first");
  s.n_past = 0;
  ok (place_may_begin (&in, 0) && place_apart (&in, 0) == 0, "... but in a group that was never recovered");
}

/* R4: the forced host died before it had opened what was a fork; its neighbour goes on. */
static void
forced_again (void)
{
  struct change c;

  fresh (PLACEMENT_SITE);
  for (unsigned k = 0; k < 2; k++) {
    s.rec[k].tenure = 2;
    s.rec[k].generation = 2;
    s.rec[k].forced = true;
    s.rec[k].copies[1].in_set = false;
    said[P2].iasp[k].store.fork = true;
    said[P2].iasp[k].store.restarted = k == 1;
  }
  in.node[P1].present = false;
  ok (place_production (&in, &c) && c.node == ID (P2) && c.forced && c.loss_iasps == 3, "p2 takes what p1 did not open");
  ok (state_check (&s, &c) == NULL, "... and may");
  state_apply (&s, &c);
  ok (s.rec[0].forced && s.rec[0].tenure == 3 && s.rec[0].loss == 1, "... by force as before");
  says (place_disagrees (&s, 0, 0, &said[P2].iasp[0].store), NULL, "its fork is opened");

  s.rec[0].forced = s.rec[1].forced = true;
  said[P2].iasp[0].store.fork = said[P2].iasp[1].store.fork = false;
  said[P2].iasp[0].store.tenure = 3;
  place_appointment (&in, 0, P2, &c);
  ok (!c.forced, "opened once, it is forced no more");
  said[P2].iasp[0].store.fork = true;
  said[P2].iasp[0].store.tenure = 2;
  s.rec[1].copies[0].boot_id[0] = 99;
  place_appointment (&in, 0, P2, &c);
  ok (!c.forced && c.loss_iasps == 2, "nor together with one that is only restarted (S2)");
  in.node[P1].present = said[P1].iasp[1].opened = true;
  said[P2].iasp[1].can_host = false;
  s.rec[1].copies[0].host = ID (P1);
  place_appointment (&in, 0, P2, &c);
  is (c.loss_iasps, 1, "of what the host has open, and releases, nothing is lost");
  in.node[P1].present = said[P1].iasp[1].opened = false;
  said[P2].iasp[1].can_host = true;
  s.rec[1].copies[0].host = ID (P2);
  said[P2].iasp[1].store.restarted = false;
  s.rec[0].forced = false;
  place_appointment (&in, 0, P2, &c);
  ok (!c.forced, "nor one that nobody has forced");
}

static void
left (void)
{
#define LEFT(what, want, site, ...)                                    \
  do {                                                                 \
    fresh (PLACEMENT_SITE);                                            \
    __VA_ARGS__;                                                       \
    ok (place_left (&in, 0, (site)) == (want), "left: " what ": %s", (want) ? "yes" : "no"); \
  } while (0)
  LEFT ("who is there", false, 0, (void) 0);
  LEFT ("nobody is named", true, 1, s.rec[0].copies[1].host = NO_NODE);
  LEFT ("a barred copy's host", true, 0, s.rec[0].copies[0].barred = true);
  LEFT ("who is gone", true, 0, in.node[P1].present = false);
  LEFT ("start-wait", false, 0, in.node[P1].present = false, in.node[P1].waited_for = true);
  LEFT ("start-wait, but it was production a moment ago", true, 0, in.node[P1].present = false,
        in.node[P1].waited_for = true, in.warm = 1);
  LEFT ("start-wait of a copy's host", false, 1, in.node[C1].present = false, in.node[C1].waited_for = true, in.warm = 1);
  LEFT ("who may be silent", false, 0, in.node[P1].present = false, in.node[P1].maybe = true);
  LEFT ("F7: who may return", false, 1, in.node[C1].present = false, in.node[C1].returning = true);
  LEFT ("F7: and its link broke", true, 1, in.node[C1].present = false, in.node[C1].returning = true, in.links_down[0] = 2);
  LEFT ("who said nothing", false, 0, in.node[P1].announce = NULL);
  LEFT ("who has it open", false, 0, said[P1].iasp[0].opened = true, said[P1].iasp[0].role = HOST_PRODUCTION);
  LEFT ("R4: who was filled when it was named", true, 0, said[P1].iasp[0].opened = true, said[P1].iasp[0].role = HOST_MIRROR,
        said[P1].iasp[0].store.unusable = true);
  LEFT ("who was a mirror, whole", false, 0, said[P1].iasp[0].opened = true, said[P1].iasp[0].role = HOST_MIRROR);
  LEFT ("a mirror that is filled", false, 1, said[C1].iasp[0].opened = true, said[C1].iasp[0].role = HOST_MIRROR,
        said[C1].iasp[0].store.unusable = true);
  LEFT ("what it said of an earlier tenure", false, 0, said[P1].iasp[0].tenure = 0, said[P1].iasp[0].failed = true);
  LEFT ("F2: who failed", true, 0, said[P1].iasp[0].failed = true);
  LEFT ("who hasn't looked", false, 0, said[P1].iasp[0].probed = false);
  LEFT ("who can't", true, 0, said[P1].iasp[0].can_host = false);
  LEFT ("whose store disagrees", true, 0, said[P1].iasp[0].store.generation = 2);
  LEFT ("a copy's whose store disagrees", false, 1, said[C1].iasp[0].store.generation = 2);
  LEFT ("S2: whose store has to wait", true, 0, said[P1].iasp[0].store.restarted = true);
}

static void
owner (void)
{
  fresh (PLACEMENT_SITE);
  said[P2].iasp[0].store.owned = true;
  is (place_owner (&in, 0), -1, "SITE: nobody owns");
  fresh (PLACEMENT_ACCESS);
  is (place_owner (&in, 0), -1, "ACCESS: nobody owns it");
  said[C1].iasp[1].store.owned = true;
  is (place_owner (&in, 1), C1, "Fig. 4: who owns it");
  ok (!place_may_begin (&in, 1) && place_may_begin (&in, 0), "... is waited for by the named host");
  s.rec[1].copies[1].barred = true;
  is (place_owner (&in, 1), -1, "F4: not who may not");
  s.rec[1].copies[1].barred = false;
  said[C1].iasp[1].probed = false;
  is (place_owner (&in, 1), -1, "nor who has not looked");
  said[C1].iasp[1].probed = true;
  said[P1].iasp[1].store.owned = true;
  is (place_owner (&in, 1), -1, "the named host owns it as well");
  said[P1].iasp[1].store.owned = false;
  said[P1].iasp[1].opened = true;
  is (place_owner (&in, 1), -1, "the named host has opened it");
  in.node[P1].present = false;
  is (place_owner (&in, 1), C1, "... and is gone");
  s.rec[1].production_site = NO_SITE;
  is (place_owner (&in, 1), C1, "nobody is named");
  s.rec[1].production_site = 0;
  in.node[P1].announce = NULL;
  is (place_owner (&in, 1), C1, "the named host said nothing");
  s.rec[1].tenure = 2;
  is (place_owner (&in, 1), -1, "Fig. 4: only before the group has hosted it");
  ok (place_may_begin (&in, 1), "... and then nobody is waited for");
}

static void
production (void)
{
  struct change c;

  fresh (PLACEMENT_SITE);
  ok (!place_production (&in, &c), "F2: production is well");
  in.node[P1].present = false;
  ok (place_production (&in, &c) && c.kind == CH_APPOINT && c.node == ID (P2) && c.expect_node == ID (P1)
        && c.iasps == 3 && c.present == 0x1e && c.boot_id[0] == 2,
      "F2: the next at its site");
  in.ready = false;
  ok (!place_production (&in, &c), "F2: not before all have spoken");
  in.ready = true;
  s.def.nodes[P2].order = 2;
  s.def.nodes[C1].order = 1;
  ok (place_production (&in, &c) && c.node == ID (P2), "F2: also behind one of another site in the order");
  s.def.takeover = TAKEOVER_ORDER;
  ok (place_production (&in, &c) && c.node == ID (C1), "F2: the first of the order");
  for (unsigned k = 0; k < 2; k++)
    said[P2].iasp[k].can_host = said[C1].iasp[k].can_host = said[C2].iasp[k].can_host = false;
  ok (!place_production (&in, &c), "F2: nobody can");
  said[C1].iasp[0].opened = said[C2].iasp[1].opened = true;
  s.rec[1].copies[1].host = ID (C2);
  ok (place_production (&in, &c) && c.node == ID (C1), "F2: one of two that hold a copy each, which lets go");
  s.rec[0].production_site = s.rec[1].production_site = NO_SITE;
  is (place_target (&in, 0), -1, "no target of a switchover where nobody can");

  /* Fig. 4: the owner, while the named host is there. */
  fresh (PLACEMENT_ACCESS);
  said[C2].iasp[1].store.owned = true;
  ok (place_production (&in, &c) && c.node == ID (C2) && c.iasps == 2 && c.expect_tenure == 1,
      "Fig. 4: a resource goes to who owns it");
  in.node[P1].present = false;
  in.node[P1].waited_for = true;
  ok (!place_production (&in, &c), "Fig. 4: not while the named host is waited for");
  in.node[P1].waited_for = false;
  ok (place_production (&in, &c) && c.node == ID (P2) && c.iasps == 1, "F2: one resource after the other");

  /* S2 b */
  fresh (PLACEMENT_SITE);
  ok (!place_restarted (&in, &c), "S2: nothing restarted");
  said[P1].iasp[1].store.restarted = true;
  ok (!place_restarted (&in, &c), "S2: a restarted store waits for the other copy");
  said[C1].iasp[1].store.restarted = true;
  ok (place_restarted (&in, &c) && c.kind == CH_RESTARTED && c.iasps == 2 && c.node == ID (P1) && c.boot_id[0] == 1,
      "S2 b: which is restarted too");
  said[P1].iasp[1].store.generation = 7;
  ok (!place_restarted (&in, &c), "R6: not a store that disagrees");
  said[P1].iasp[1].store.generation = 1;
  said[P1].iasp[1].failed = true;
  ok (!place_restarted (&in, &c), "not one that failed");
  said[P1].iasp[1].failed = false;
  said[P1].n_iasps = 1;
  ok (!place_restarted (&in, &c), "not one that nothing was said of");
  said[P1].n_iasps = 2;
  s.rec[0].copies[0].host = NO_NODE;
  ok (!place_restarted (&in, &c), "not where nobody is named");

  /* R5: of a machine that has accepted it, a store isn't restarted. */
  fresh (PLACEMENT_SITE);
  said[P1].iasp[0].store.restarted = said[P2].iasp[0].store.restarted = true;
  s.rec[0].copies[0].boot_id[0] = 1;
  ok (!place_is_restarted (&in, P1, 0) && place_is_restarted (&in, P2, 0), "R5: accepted in this boot, by its host only");
  said[W].iasp[0].store.restarted = true;
  ok (!place_is_restarted (&in, W, 0), "a replicate has no store");
}

static void
copies (void)
{
  struct change c;

  fresh (PLACEMENT_SITE);
  ok (!place_copies (&in, &c) && place_can_take (&in, 0, 1), "F3: the copies are well");
  in.node[C1].present = false;
  ok (place_copies (&in, &c) && c.kind == CH_HOST && c.node == ID (C2) && c.expect_node == ID (C1) && c.iasps == 1,
      "F3: the next of its site takes it");
  s.def.iasps[0].type = RES_SCRIPT;
  ok (place_copies (&in, &c) && c.iasps == 2, "a script has no copies");
  in.ready = false;
  ok (!place_copies (&in, &c), "not before all have spoken");

#define TAKE(what, want, ...)                            \
  do {                                                   \
    fresh (PLACEMENT_SITE);                              \
    in.node[C1].present = false;                         \
    __VA_ARGS__;                                         \
    ok (place_can_take (&in, 0, 1) == (want), "take a copy: " what ": %s", (want) ? "yes" : "no"); \
  } while (0)
  TAKE ("c2", true, (void) 0);
  TAKE ("an empty store", true, said[C2].iasp[0].store.has_super = false, said[C2].iasp[0].store.agrees_ids = false);
  TAKE ("another's store", false, said[C2].iasp[0].store.agrees_ids = false);
  TAKE ("a fork that the record doesn't know", false, said[C2].iasp[0].store.fork = true);
  TAKE ("one that it knows", true, said[C2].iasp[0].store.fork = true, s.rec[0].copies[1].fork = FORK_BEHIND);
  TAKE ("of the lineage before, out of the set", false, said[C2].iasp[0].store.lineage[0] = 1, s.n_past = 1,
        s.past[0][0] = 1, s.rec[0].copies[1].in_set = false);
  TAKE ("of the lineage before, in the set", true, said[C2].iasp[0].store.lineage[0] = 1, s.n_past = 1,
        s.past[0][0] = 1);
  TAKE ("out of the set, and emptied", true, said[C2].iasp[0].store.has_super = false, s.rec[0].copies[1].in_set = false);
  TAKE ("who failed", false, said[C2].iasp[0].failed = true);
  TAKE ("who is gone", false, in.node[C2].present = false);
}

int
main (void)
{
  access_rights ();
  disagreement ();
  refusal ();
  forced ();
  forced_again ();
  forced_ahead ();
  chosen ();
  left ();
  owner ();
  production ();
  copies ();
  return tap_done ();
}
