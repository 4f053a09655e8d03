/* SPDX-License-Identifier: BSD-3-Clause
 *
 * What the group state refuses, each time with its own reason, and what the recovery of a lost
 * majority (C9) and changes of the domain (C7) do to it: definitions, changes of copies, of nodes.
 * A refused change leaves no trace, as state_check () can't write.
 */
#include "server/state.h"
#include "tests/crg-def.h"
#include "tests/tap.h"

static struct crg_state s;
static struct crg_def def;
static const uint8_t lineage[CRG_ID_LEN] = { 9 }, next[CRG_ID_LEN] = { 10 }, again[CRG_ID_LEN] = { 11 };

enum { P1 = 10, P2, C1, C2, W };

/* P1 P2 at rome, C1 C2 at oslo, a replicate W; two IASPs. */
static void
base_def (void)
{
  crg_def_make (&def, 2, P1, 2);
}

static void
fresh (void)
{
  base_def ();
  if (state_create (&s, &def, lineage) != NULL)
    abort ();
}

/* ACCESS, with an IASP and a script. */
static void
fresh_access (void)
{
  base_def ();
  def.placement = PLACEMENT_ACCESS;
  def.iasps[1].type = RES_SCRIPT;
  strcpy (def.iasps[1].agent, "/agent");
  def.iasps[1].timeout_ms = 1000;
  if (state_create (&s, &def, lineage) != NULL)
    abort ();
}

/* NULL is "it is accepted". */
static void
says (const char *got, const char *want, const char *what)
{
  if (!ok (want == NULL ? got == NULL : got != NULL && strstr (got, want) != NULL, "%s: %s", what,
           want ? want : "accepted"))
    printf ("# got: %s\n", got ? got : "(accepted)");
}

static void
definitions (void)
{
#define DEF(what, want, ...)                                   \
  do {                                                         \
    static struct crg_state made;                              \
    base_def ();                                               \
    __VA_ARGS__;                                               \
    says (state_create (&made, &def, lineage), (want), (what)); \
  } while (0)
  DEF ("as it is", NULL, (void) 0);
  DEF ("no name", "no name", def.name[0] = '\0');
  DEF ("a placement that is none", "unknown placement", def.placement = PLACEMENT_ACCESS + 1);
  DEF ("no sites", "1 to 8 sites", def.n_sites = 0);
  DEF ("nine sites", "1 to 8 sites", def.n_sites = CRG_MAX_SITES + 1);
  DEF ("nine IASPs", "1 to 8 IASPs", def.n_iasps = CRG_MAX_IASPS + 1);
  DEF ("a node without a number", "no id or no name", def.nodes[2].id = NO_NODE);
  DEF ("a node without a name", "no id or no name", def.nodes[2].name[0] = '\0');
  DEF ("a role that is none", "unknown role", def.nodes[2].preferred_role = MEMBER_REPLICATE + 1);
  DEF ("five addresses", "too many addresses", def.nodes[2].n_addresses = CRG_MAX_ADDRS + 1);
  DEF ("a site without a name", "no name or no node", def.sites[1][0] = '\0');
  DEF ("a site that nobody is at", "no name or no node", def.n_sites = 3, strcpy (def.sites[2], "bonn"));
  DEF ("a type that is none", "unknown type", def.iasps[1].type = RES_SCRIPT + 1);
  DEF ("an IASP without a name", "no name or no size", def.iasps[1].name[0] = '\0');
  DEF ("a script without an agent", "no agent or no timeout", def.iasps[1].type = RES_SCRIPT, def.iasps[1].timeout_ms = 5);
  DEF ("a script without a timeout", "no agent or no timeout", def.iasps[1].type = RES_SCRIPT,
       strcpy (def.iasps[1].agent, "/agent"));
  DEF ("one name for two IASPs", "two IASPs have the same name", strcpy (def.iasps[1].name, "data"));
  DEF ("a resource that nobody has a store for", "no node can host", def.placement = PLACEMENT_ACCESS,
       memset (def.iasps[1].store, 0, sizeof def.iasps[1].store));
}

static const char *
why (struct change c)
{
  c.base = s.stamp;
  return state_check (&s, &c);
}

static void
changes (void)
{
  struct change c;

  fresh ();
  says (why ((struct change){ .kind = CH_NODE, .node_change = { .op = 99 } }), "unknown change of the domain", "node: 99");
  says (why ((struct change){ .kind = CH_EXPEL, .node = 99, .incarnation = 1 }), "no such node", "expel a stranger");
  says (why ((struct change){ .kind = CH_EXPEL, .node = P1 }), "no such node", "expel no incarnation");
  says (why ((struct change){ .kind = CH_MARK_FAILED, .node = 99 }), "no such node", "mark a stranger failed");
  says (why ((struct change){ .kind = CH_MARK_FAILED, .node = P1, .clear = true }), "is not marked failed", "clear no mark");
  s.def.nodes[0].marked_failed = true;
  says (why ((struct change){ .kind = CH_MARK_FAILED, .node = P1 }), "failed already", "mark twice");

  /* Appointments. */
  fresh ();
  c = (struct change){ .kind = CH_APPOINT, .iasps = 3, .node = P1, .site = 0, .expect_node = P1, .expect_tenure = 1 };
  says (why (c), "production host already", "appoint the host");
  c.node = P2;
  c.expect_tenure = 2;
  says (why (c), "tenure is another", "appoint with another tenure");
  c.expect_tenure = 1;
  says (why (c), NULL, "appoint p2");
  s.rec[1].production_site = s.rec[0].production_site = NO_SITE;
  is (state_production_host (&s), NO_NODE, "nobody is named");
  c.expect_node = P1;
  says (why (c), "another host by now", "appoint in the place of nobody");
  c.expect_node = NO_NODE;
  says (why (c), NULL, "appoint p2 where nobody is");
  c.present = 0x1f;
  state_apply (&s, &c);
  ok (state_production_host (&s) == P2 && s.def.nodes[1].order == 0 && s.def.nodes[0].order == 1
        && s.def.nodes[4].order == 4 && s.rec[0].tenure == 2,
      "F5: where nobody was production, nobody goes to the end of the order");
  fresh ();
  c = (struct change){ .kind = CH_APPOINT, .iasps = 3, .node = C1, .site = 1, .expect_node = P1, .expect_tenure = 1,
                       .forced = true };
  s.rec[0].copies[1].in_set = s.rec[1].copies[1].in_set = true;
  s.rec[0].copies[1].detached = true;
  says (why (c), NULL, "R4: a detached copy is forced");
  c.forced = false;
  says (why (c), "is detached", "R4: but no other way");
  s.rec[0].copies[1].detached = false;
  c.forced = true;
  c.loss_iasps = 2;
  state_apply (&s, &c);
  ok (!s.rec[0].forced && s.rec[0].loss == 0 && s.rec[1].forced && s.rec[1].loss == 1,
      "S2 b: forced are those of the set that restarted; the others lose nothing");
  ok (s.rec[1].copies[0].detached && s.rec[1].copies[0].fork == FORK_DIVERGED && !s.rec[0].copies[0].detached,
      "R4: and only their former sets are forks");

  /* Copies. */
  fresh ();
  c = (struct change){ .kind = CH_HOST, .iasps = 1, .site = 1, .node = C2, .expect_node = C2 };
  says (why (c), "another host by now", "host: another was expected");
  c.expect_node = c.node = C1;
  says (why (c), "it is the host already", "host: the host");
  c.node = C2;
  s.rec[0].copies[1].detached = true;
  says (why (c), "the copy is detached", "host: of a detached copy that is closed");
  s.rec[0].copies[1].exported = DETACHED_READ_ONLY;
  says (why (c), NULL, "host: of one that is exported");
  c.node = W;
  says (why (c), "cannot host at that site", "host: a replicate");
  c.node = 99;
  says (why (c), "cannot host at that site", "host: a stranger");
  c.iasps = 4;
  says (why (c), "no such IASP", "host: of nothing that is there");
  c.iasps = 0;
  says (why (c), "no such IASP", "host: of nothing");
  fresh ();
  c = (struct change){ .kind = CH_SHRINK, .iasps = 1, .site = 1, .expect_tenure = 2 };
  says (why (c), "tenure is another", "shrink: of another tenure");
  fresh ();
  c = (struct change){ .kind = CH_ENTER, .iasps = 1, .site = 0, .node = P1, .expect_tenure = 1 };
  says (why (c), "is in the set", "enter: production");
  c.site = 1;
  c.node = NO_NODE;
  says (why (c), "another host by now", "enter: without a host");
  c.node = C1;
  says (why (c), NULL, "enter: c1");
  s.rec[0].copies[1].suspended = true;
  says (why (c), "suspended by an operator", "enter: suspended");
  s.rec[0].copies[1].suspended = false;
  s.rec[0].copies[1].barred = true;
  says (why (c), "barred or detached", "enter: barred");
  s.rec[0].copies[1].barred = false;
  s.rec[0].copies[1].detached = true;
  says (why (c), "barred or detached", "enter: detached");
  fresh ();
  c = (struct change){ .kind = CH_BAR, .iasps = 1, .site = 1, .expect_tenure = 1, .clear = true };
  says (why (c), "is not barred", "unbar: not barred");
  c.clear = false;
  c.expect_tenure = 7;
  says (why (c), "tenure is another", "bar: of another tenure");
  c = (struct change){ .kind = CH_SUSPEND, .iasps = 1, .site = 0 };
  says (why (c), "it is the production copy", "suspend: production");
  c.site = 1;
  c.clear = true;
  says (why (c), "is not suspended", "resume: not suspended");
  c.clear = false;
  s.rec[0].copies[1].suspended = true;
  says (why (c), "suspended already", "suspend: twice");
  s.rec[0].copies[1].detached = true;
  says (why (c), "reattach it", "suspend: detached");
  fresh ();
  c = (struct change){ .kind = CH_DETACH, .iasps = 1, .site = 0 };
  says (why (c), "it is the production copy", "detach: production");
  c.site = 1;
  c.clear = true;
  says (why (c), "is not detached", "reattach: not detached");
  c.clear = false;
  c.mode = DETACHED_END;
  says (why (c), "in no such way", "detach: to be exported in no way");
  c.mode = DETACHED_READ_ONLY;
  says (why (c), "never filled", "detach: to be exported, and empty");
  s.rec[0].copies[1].since = 1;
  says (why (c), NULL, "detach: exported");
  s.rec[0].copies[1].detached = true;
  s.rec[0].copies[1].exported = DETACHED_READ_ONLY;
  says (why (c), "detached already", "detach: twice the same way");
  c.mode = DETACHED_READ_WRITE;
  says (why (c), NULL, "detach: another way");
  fresh ();
  c = (struct change){ .kind = CH_RESTARTED, .iasps = 1, .site = 1, .node = P1, .expect_tenure = 1 };
  says (why (c), "another host by now", "restarted: not the production copy");
  c.site = 0;
  c.node = P2;
  says (why (c), "another host by now", "restarted: another host");
  c.node = P1;
  c.expect_tenure = 3;
  says (why (c), "tenure is another", "restarted: of another tenure");

  /* A script has no copies, but can be barred. */
  fresh_access ();
  c = (struct change){ .kind = CH_SHRINK, .iasps = 2, .site = 1, .expect_tenure = 1 };
  says (why (c), "a script has no copies", "shrink: a script");
  c.kind = CH_BAR;
  says (why (c), NULL, "bar: a script at a site");
  state_apply (&s, &c);
  ok (s.rec[1].copies[1].barred && s.rec[1].copies[1].in_set && s.rec[1].generation == 1,
      "F4: that has no set to leave, and no generation");
}

static const char *
node (struct node_change nc)
{
  return why ((struct change){ .kind = CH_NODE, .node_change = nc });
}

static void
apply (struct node_change nc)
{
  struct change c = { .kind = CH_NODE, .node_change = nc };

  if (state_check (&s, &c) != NULL)
    abort ();
  state_apply (&s, &c);
}

/* n6, a backup at oslo. */
static struct node_change
newcomer (void)
{
  struct node_change nc = { .op = NODE_ADD, .site = "oslo", .store = { "/store", "/store" },
                            .node = { .id = 20, .name = "n6", .preferred_role = MEMBER_BACKUP, .n_addresses = 1 } };

  return nc;
}

static void
added (void)
{
  struct node_change nc;

#define ADD(what, want, ...)          \
  do {                                \
    nc = newcomer ();                 \
    __VA_ARGS__;                      \
    says (node (nc), (want), (what)); \
  } while (0)
  fresh ();
  ADD ("add", NULL, (void) 0);
  ADD ("add: without a number", "no id or no name", nc.node.id = NO_NODE);
  ADD ("add: without a name", "no id or no name", nc.node.name[0] = '\0');
  ADD ("add: a number twice", "of that id", nc.node.id = P2);
  ADD ("add: a name twice", "is in the recovery domain", strcpy (nc.node.name, "n4"));
  ADD ("add: with a vote", "without a vote", nc.node.votes = 1);
  ADD ("add: a role that is none", "backup, peer or replicate", nc.node.preferred_role = MEMBER_REPLICATE + 1);
  ADD ("add: a primary", "backup, peer or replicate", nc.node.preferred_role = MEMBER_PRIMARY);
  ADD ("add: a backup without a site", "a replicate has no site", nc.site[0] = '\0');
  ADD ("add: a replicate with a site", "a replicate has no site", nc.node.preferred_role = MEMBER_REPLICATE);
  ADD ("add: without an address", "1 to 4 addresses", nc.node.n_addresses = 0);
  ADD ("add: with five", "1 to 4 addresses", nc.node.n_addresses = CRG_MAX_ADDRS + 1);
  ADD ("add: a peer at a new site", "has to be able to host", nc.node.preferred_role = MEMBER_PEER, strcpy (nc.site, "bonn"));
  ADD ("add: a backup at a new site", NULL, strcpy (nc.site, "bonn"));
  ADD ("add: a backup without a store", "needs a store", nc.store[1][0] = '\0');
  ADD ("add: a peer without one", NULL, nc.node.preferred_role = MEMBER_PEER, nc.store[1][0] = '\0');
  s.def.n_sites = CRG_MAX_SITES;
  ADD ("add: a ninth site", "8 sites", strcpy (nc.site, "bonn"));
  s.def.n_nodes = CRG_MAX_NODES;
  ADD ("add: a seventeenth node", "16 nodes", (void) 0);

  fresh_access ();
  ADD ("add, ACCESS: no store at a site that has one", NULL, nc.store[0][0] = '\0');
  ADD ("add, ACCESS: no store at a new site", "needs a store", nc.store[0][0] = '\0', strcpy (nc.site, "bonn"));
  s.def.n_sites = 3;
  strcpy (s.def.sites[2], "bonn");
  ADD ("add: a peer at a site whose nodes are gone", "has to be able to host", nc.node.preferred_role = MEMBER_PEER,
       strcpy (nc.site, "bonn"));
  ADD ("add, ACCESS: no store at a site whose nodes are gone", "needs a store", nc.store[0][0] = '\0',
       strcpy (nc.site, "bonn"));
  nc = newcomer ();
  strcpy (nc.site, "bonn");
  apply (nc);
  ok (s.rec[0].copies[2].host == 20 && !s.rec[0].copies[2].in_set && s.rec[1].copies[2].host == NO_NODE
        && s.rec[1].copies[2].in_set && s.def.iasps[0].order[5] == 5 && s.def.n_sites == 3 && s.domain == 1,
      "C7: a new copy is empty and outside the set (R3); a script has none to fill");
}

static void
removed (void)
{
  struct node_change nc = { .op = NODE_REMOVE };

  fresh ();
  nc.node.id = 99;
  says (node (nc), "no such node", "remove: a stranger");
  nc.node.id = P2;
  says (node (nc), "has a vote", "remove: who has a vote");
  for (unsigned i = 0; i < 5; i++)
    if (i != 4)
      s.def.nodes[i].votes = s.def.nodes[i].new_votes = 0;
  nc.node.id = P1;
  says (node (nc), "production host", "remove: the production host");
  nc.node.id = C1;
  says (node (nc), "it hosts the copy", "remove: the copy's host");
  s.def.nodes[2].marked_failed = true;
  says (node (nc), NULL, "remove: the copy's host, which is dead");
  s.def.nodes[2].marked_failed = false;
  /* SITE: the copies go with the node, and stores of others don't matter. */
  nc.node.id = C2;
  memset (s.def.iasps[0].store[2], 0, sizeof s.def.iasps[0].store[2]);
  says (node (nc), NULL, "remove: the only one of its site with a store, where that decides nothing");
  apply (nc);
  nc.node.id = C1;
  says (node (nc), "--drop-copy", "remove: the last of a site");
  nc.drop_copy = true;
  s.rec[0].copies[1].in_set = true;
  apply (nc);
  ok (s.rec[0].generation == 2 && s.rec[1].generation == 1 && s.rec[0].copies[1].detached && !s.rec[0].copies[1].in_set
        && s.rec[0].copies[1].host == NO_NODE,
      "R2: the generation rises where a copy leaves the set with its node");
  ok (s.def.n_nodes == 3 && s.def.nodes[2].id == W && s.def.nodes[2].order == 2 && s.def.iasps[1].order[2] == 2,
      "C7: the others close up in the backup order");
  nc.node.id = P2;
  nc.drop_copy = false;
  apply (nc);
  s.def.n_nodes = 1;
  nc.node.id = P1;
  says (node (nc), "delete the CRG", "remove: the last of all");

  /* The host of production is elsewhere: as recovery leaves it. */
  fresh ();
  for (unsigned i = 0; i < 4; i++)
    s.def.nodes[i].votes = s.def.nodes[i].new_votes = 0;
  nc.node.id = P2;
  apply (nc);
  s.rec[0].copies[0].host = s.rec[1].copies[0].host = NO_NODE;
  nc.node.id = P1;
  says (node (nc), "last node of the production site", "remove: the last of the production site");

  /* The preferred primary goes: the next in the order that can host is that. */
  fresh ();
  for (unsigned i = 0; i < 4; i++)
    s.def.nodes[i].votes = s.def.nodes[i].new_votes = 0;
  s.rec[0].production_site = s.rec[1].production_site = 1;
  s.def.nodes[1].site = 1;
  s.def.nodes[1].preferred_role = MEMBER_PEER;
  s.def.nodes[3].order = 2;
  s.def.nodes[2].order = 3;
  nc.node.id = P1;
  nc.drop_copy = true;
  apply (nc);
  nc.drop_copy = false;
  ok (s.def.nodes[2].id == C2 && s.def.nodes[2].preferred_role == MEMBER_PRIMARY
        && s.def.nodes[0].preferred_role == MEMBER_PEER && s.def.nodes[1].preferred_role == MEMBER_BACKUP,
      "C7: the first backup of the order is the preferred primary");
  fresh ();
  for (unsigned i = 0; i < 4; i++) {
    s.def.nodes[i].votes = s.def.nodes[i].new_votes = 0;
    s.def.nodes[i].preferred_role = i == 0 ? MEMBER_PRIMARY : MEMBER_PEER;
  }
  s.rec[0].copies[0].host = s.rec[1].copies[0].host = P2;
  says (node (nc), "only peers would be left", "remove: the last of a site that can host");
  state_apply_node (&s, &nc); /* as an earlier release would have */
  for (unsigned i = 0; i < s.def.n_nodes; i++)
    check (s.def.nodes[i].preferred_role != MEMBER_PRIMARY, "%s became primary", s.def.nodes[i].name);
  is (s.def.n_nodes, 4, "C7: nobody is the preferred primary if nobody else can host");

  /* ACCESS. */
  fresh_access ();
  for (unsigned i = 0; i < 4; i++)
    s.def.nodes[i].votes = s.def.nodes[i].new_votes = 0;
  memset (s.def.iasps[0].store[2], 0, sizeof s.def.iasps[0].store[2]);
  nc.node.id = C2;
  says (node (nc), "last node of its site with a store", "remove, ACCESS: nobody else there has a store");

  /* A peer never hosts: a site whose only other node it is would have nobody for its copy, and a store that was
   * restarted would wait for that for ever (S2). */
  fresh ();
  for (unsigned i = 0; i < 4; i++)
    s.def.nodes[i].votes = s.def.nodes[i].new_votes = 0;
  s.def.nodes[3].preferred_role = MEMBER_PEER;
  s.def.nodes[2].marked_failed = true;
  nc.node.id = C1;
  says (node (nc), "only peers would be left", "remove: who is dead, and leaves a peer");
  nc.drop_copy = true;
  says (node (nc), "only peers would be left", "remove: ... nor with the copy");
  nc.node.id = C2;
  nc.drop_copy = false;
  says (node (nc), NULL, "remove: the peer");
  apply (nc);
  nc.node.id = C1;
  says (node (nc), "--drop-copy", "remove: and then it is the last of its site");
  fresh_access ();
  for (unsigned i = 0; i < 4; i++)
    s.def.nodes[i].votes = s.def.nodes[i].new_votes = 0;
  s.def.n_iasps = 1;
  s.def.nodes[2].site = 0;
  s.def.nodes[2].preferred_role = MEMBER_PEER;
  memset (s.def.iasps[0].store[0], 0, sizeof s.def.iasps[0].store[0]);
  s.rec[0].copies[0].host = NO_NODE;
  nc.node.id = P2;
  says (node (nc), "last node of its site with a store", "remove, ACCESS: a peer's store counts for nothing");
}

static void
set (void)
{
  struct node_change nc;

#define SET(what, want, id_, fields_, ...)                                                 \
  do {                                                                                     \
    nc = (struct node_change){ .op = NODE_SET, .fields = (fields_), .node = { .id = (id_) } }; \
    __VA_ARGS__;                                                                           \
    says (node (nc), (want), (what));                                                      \
  } while (0)
  fresh ();
  SET ("set: a stranger", "no such node", 99, NODE_SET_VOTES, (void) 0);
  SET ("set: nothing", "nothing is to be changed", P2, 0, (void) 0);
  SET ("set: a role that is none", "a replicate stays one", P2, NODE_SET_ROLE, nc.node.preferred_role = MEMBER_REPLICATE + 1);
  SET ("set: to a replicate", "a replicate stays one", P2, NODE_SET_ROLE, nc.node.preferred_role = MEMBER_REPLICATE);
  SET ("set: a replicate to a backup", "a replicate stays one", W, NODE_SET_ROLE, nc.node.preferred_role = MEMBER_BACKUP);
  SET ("set: a replicate to one", NULL, W, NODE_SET_ROLE, nc.node.preferred_role = MEMBER_REPLICATE);
  SET ("set: the primary to a backup", "make another node that", P1, NODE_SET_ROLE, nc.node.preferred_role = MEMBER_BACKUP);
  SET ("set: the primary to that", NULL, P1, NODE_SET_ROLE, nc.node.preferred_role = MEMBER_PRIMARY);
  SET ("set: a copy's host to a peer", "hand it over first", C1, NODE_SET_ROLE, nc.node.preferred_role = MEMBER_PEER);
  SET ("set: who hosts nothing to a peer", NULL, C2, NODE_SET_ROLE, nc.node.preferred_role = MEMBER_PEER);
  apply (nc);
  s.rec[0].copies[1].host = s.rec[1].copies[1].host = NO_NODE;
  SET ("set: the last that can host to a peer", "last node of its site that can host", C1, NODE_SET_ROLE,
       nc.node.preferred_role = MEMBER_PEER);
  SET ("set: one to what it is", NULL, C2, NODE_SET_ROLE, nc.node.preferred_role = MEMBER_PEER);
  SET ("set: a peer to the primary", NULL, C2, NODE_SET_ROLE, nc.node.preferred_role = MEMBER_PRIMARY);
  SET ("set: a peer to a backup", NULL, C2, NODE_SET_ROLE, nc.node.preferred_role = MEMBER_BACKUP);
  memset (s.def.iasps[1].store[3], 0, sizeof s.def.iasps[1].store[3]);
  SET ("set: a peer without a store to a backup", "it has no store", C2, NODE_SET_ROLE, nc.node.preferred_role = MEMBER_BACKUP);
  s.def.iasps[1].type = RES_SCRIPT;
  SET ("set: that needs none for a script", NULL, C2, NODE_SET_ROLE, nc.node.preferred_role = MEMBER_BACKUP);
  SET ("set: p2 to the primary", NULL, P2, NODE_SET_ROLE, nc.node.preferred_role = MEMBER_PRIMARY);
  apply (nc);
  ok (s.def.nodes[1].preferred_role == MEMBER_PRIMARY && s.def.nodes[0].preferred_role == MEMBER_BACKUP,
      "C7: there is one preferred primary");
  fresh_access ();
  s.rec[0].copies[1].host = NO_NODE;
  memset (s.def.iasps[0].store[3], 0, sizeof s.def.iasps[0].store[3]);
  SET ("set, ACCESS: the last with a store to a peer", "last node of its site with a store", C1, NODE_SET_ROLE,
       nc.node.preferred_role = MEMBER_PEER);
  s.def.nodes[3].preferred_role = MEMBER_PEER;
  SET ("set, ACCESS: a peer without a store to a backup", NULL, C2, NODE_SET_ROLE, nc.node.preferred_role = MEMBER_BACKUP);

  fresh ();
  SET ("set: the votes that it has", "has that many votes", P2, NODE_SET_VOTES, nc.node.votes = 1);
  SET ("set: those and an order", NULL, P2, NODE_SET_VOTES | NODE_SET_ORDER, nc.node.votes = 1, nc.node.order = 2);
  for (unsigned i = 0; i < 4; i++)
    s.def.nodes[i].votes = s.def.nodes[i].new_votes = 0;
  SET ("set: the last vote to none", "no node would have a vote", W, NODE_SET_VOTES, nc.node.votes = 0);
  fresh ();
  SET ("set: a sixth place", "no such place", P2, NODE_SET_ORDER, nc.node.order = 5);
  SET ("set: the first place", "switch over instead", P2, NODE_SET_ORDER, nc.node.order = 0);
  SET ("set: the production host's place", "switch over instead", P1, NODE_SET_ORDER, nc.node.order = 2);
  SET ("set: a place", NULL, C1, NODE_SET_ORDER, nc.node.order = 1);
  apply (nc);
  ok (s.def.nodes[2].order == 1 && s.def.nodes[1].order == 2 && s.def.nodes[3].order == 3, "F5: and the others keep their sequence");

  SET ("set: no address", "1 to 4 addresses", C2, NODE_SET_ADDRESSES, (void) 0);
  SET ("set: five", "1 to 4 addresses", C2, NODE_SET_ADDRESSES, nc.node.n_addresses = CRG_MAX_ADDRS + 1);
  SET ("set: those of a host", "whose links use its addresses", C1, NODE_SET_ADDRESSES, nc.node.n_addresses = 1);
  SET ("set: a replicate's", NULL, W, NODE_SET_ADDRESSES, nc.node.n_addresses = 1);
  SET ("set: two", NULL, C2, NODE_SET_ADDRESSES, nc.node.n_addresses = 2, strcpy (nc.node.addresses[1], "127.0.0.9"));
  apply (nc);
  ok (s.def.nodes[3].n_addresses == 2 && strcmp (s.def.nodes[3].addresses[1], "127.0.0.9") == 0, "C7: it has these addresses now");
  s.def.iasps[0].type = s.def.iasps[1].type = RES_SCRIPT;
  SET ("set: those of a script's host", NULL, P1, NODE_SET_ADDRESSES, nc.node.n_addresses = 1);

  fresh ();
  SET ("finish: nothing", "no votes are being changed", P1, 0, nc.op = NODE_FINISH);
  SET ("set: two votes", NULL, P1, NODE_SET_VOTES, nc.node.votes = 2);
  apply (nc);
  ok (s.def.nodes[0].votes == 1 && s.def.nodes[0].new_votes == 2 && state_votes_change (&s), "C7: old and new votes are carried");
  SET ("set: meanwhile", "being changed", C2, NODE_SET_VOTES, nc.node.votes = 2);
  SET ("finish", NULL, P1, 0, nc.op = NODE_FINISH);
  apply (nc);
  ok (s.def.nodes[0].votes == 2 && !state_votes_change (&s), "C7: the second step drops the old ones");
}

static void
recovered (void)
{
  const uint16_t rome = 3, oslo = 12;
  static struct crg_state shorter;

  fresh ();
  says (state_recover (&s, 99, rome, 1, next), "not in the recovery domain", "recover: a stranger");
  says (state_recover (&s, C1, 0, 1, next), "no node is named", "recover: without nobody");
  says (state_recover (&s, C1, 4, 1, next), "this node can't be dead", "recover: without itself");
  s.deleted = true;
  says (state_recover (&s, C1, rome, 1, next), "deleted", "recover: deleted");

  fresh ();
  says (state_recover (&s, C1, rome, 1, next), "no copy that may take over", "recover: the copy is not in the set (R4)");
#define RECOVER(what, want, self, dead, ...)                                 \
  do {                                                                       \
    fresh ();                                                                \
    for (unsigned k = 0; k < 2; k++)                                         \
      s.rec[k].copies[1].in_set = true;                                      \
    __VA_ARGS__;                                                             \
    says (state_recover (&s, (self), (dead), 41, next), (want), (what));     \
  } while (0)
  RECOVER ("recover: the copy is barred", "no copy", C1, rome, s.rec[1].copies[1].barred = true);
  RECOVER ("recover: the copy is detached", "no copy", C1, rome, s.rec[1].copies[1].detached = true);
  RECOVER ("recover: who is left there is a peer", "no copy", W, rome | 4, s.def.nodes[3].preferred_role = MEMBER_PEER);
  RECOVER ("recover: at the copy's site", NULL, C2, rome, s.def.nodes[3].order = 2, s.def.nodes[2].order = 3,
           s.def.nodes[1].expelled = 5, s.rec[0].forced = true);
  ok (state_production_host (&s) == C2 && s.rec[0].tenure == 2 && !s.rec[0].forced && s.rec[1].tenure == 2
        && s.rec[0].production_site == 1,
      "C9: production is at the first of the order that lives");
  ok (!s.rec[0].copies[0].in_set && s.rec[0].generation == 2 && s.rec[0].loss == 1
        && s.rec[0].copies[0].host == NO_NODE,
      "C9, R2: the dead site's copy left the set; answered writes may be gone");
  ok (s.def.nodes[3].votes == 1 && s.def.nodes[2].votes == 0 && s.def.nodes[4].new_votes == 0
        && s.def.nodes[0].marked_failed && !s.def.nodes[2].marked_failed && s.def.nodes[1].expelled == 0,
      "C9: only this node votes; the dead are marked");
  ok (s.n_past == 1 && state_is_past (&s, lineage) && !state_is_past (&s, next)
        && memcmp (s.lineage, next, CRG_ID_LEN) == 0 && s.stamp.epoch == 42 && s.stamp.version == 0
        && s.def.nodes[3].order == 0,
      "C9: a new lineage, above whatever was promised");
  ok (state_newest_generation (&s, 0, lineage) == 1 && state_newest_generation (&s, 0, next) == 2
        && state_newest_generation (&s, 0, s.past[1]) == 0,
      "C9, R6: of the old lineage no store may be newer than what was known of it");
  s.rec[0].generation = 7;
  ok (state_recover (&s, C2, rome, 99, again) == NULL && state_newest_generation (&s, 0, lineage) == 1
        && state_newest_generation (&s, 0, next) == 7 && state_newest_generation (&s, 0, again) == 7,
      "... nor after another recovery");
  RECOVER ("recover: without the copy's site", NULL, P1, oslo, (void) 0);
  ok (state_production_host (&s) == P1 && s.rec[0].tenure == 1 && !s.rec[0].copies[1].in_set
        && s.rec[0].generation == 2,
      "C9: production stays where it is");
  RECOVER ("recover: without one of two there", NULL, P1, 2, (void) 0);
  ok (s.rec[0].copies[1].in_set && s.rec[0].generation == 1 && s.rec[0].loss == 1, "C9: no copy left the set");
  RECOVER ("recover: nobody was production", NULL, P1, 2,
           s.rec[0].production_site = s.rec[1].production_site = NO_SITE);

  /* Who is named is looked up in what is committed; what goes on may be without one of its nodes. */
  fresh ();
  shorter = s;
  memmove (&shorter.def.nodes[1], &shorter.def.nodes[2], (s.def.n_nodes - 2u) * sizeof s.def.nodes[0]);
  shorter.def.n_nodes--;
  ok (state_same_nodes (&s, &s, 13) == 13 && state_same_nodes (&shorter, &s, 14) == 6
        && state_same_nodes (&shorter, &s, 2) == 0 && state_same_nodes (&s, &shorter, 6) == 12,
      "C9: a node that is named is the same one in another domain");

  /* ACCESS: each resource for itself, to who has a store for it. */
  fresh_access ();
  s.rec[0].copies[1].in_set = true;
  memset (s.def.iasps[0].store[2], 0, sizeof s.def.iasps[0].store[2]);
  says (state_recover (&s, C2, rome, 1, next), NULL, "recover, ACCESS");
  ok (state_unit_host (&s, 0) == C2 && state_unit_host (&s, 1) == C1 && s.rec[0].loss == 1 && s.rec[1].loss == 0,
      "C9: a disk to who has a store for it, a script to the first of its order");
}

int
main (void)
{
  definitions ();
  changes ();
  added ();
  removed ();
  set ();
  recovered ();
  return tap_done ();
}
