/* SPDX-License-Identifier: BSD-3-Clause
 *
 * What the group core wants and must not want: when a step has no room for more actions nothing is lost, as
 * what it wanted comes again by itself (C3, C4); and what a plugin or a fence said is no longer wanted when
 * an operator, or the group, has decided otherwise meanwhile (R3, F4, S1 d).  A simulated cluster of 2 + 2
 * nodes and a replicate comes up; each case then changes a copy of one member's core.  n1 is production, n3
 * hosts the copies.
 */
#include "tests/group-member.h"

/* All that a member settles after an event. */
static void
settle (struct group *core, bool room)
{
  memset (&out, 0, offsetof (struct group_actions, bytes));
  out.n = room ? 0 : GROUP_MAX_ACTIONS - 20;
  request_settle (core, &out);
  lease_settle (core, &out);
  host_settle (core, &out);
  want_settle (core, &out);
}

/* As if nothing had been said to anybody since the group state was committed. */
static void
forget_all (struct group *core)
{
  core->announced = core->proposed = false;
  memset (&core->announce_sent, 0, sizeof core->announce_sent);
  for (unsigned i = 0; i < core->committed.def.n_iasps; i++) {
    struct hosting *h = &core->host[i];

    h->record_told = h->start_told = h->config_sent = h->let_go = false;
    h->config_mine++;
    memset (h->link, 0, sizeof h->link);
    core->lease[i].told_ms = core->lease[i].renew_ms = 0;
  }
}

static void
no_room (unsigned n, const char *what)
{
  static struct group later;
  static uint8_t kinds[2][GROUP_MAX_ACTIONS];
  unsigned n_kinds[2] = { 0 };

  later = g;
  settle (&later, false);
  ok (out.n == GROUP_MAX_ACTIONS - 20, "%s, n%u: without room nothing is said", what, n + 1);
  for (unsigned k = 0; k < 2; k++) {
    settle (k == 0 ? &g : &later, true);
    n_kinds[k] = out.n;
    for (unsigned i = 0; i < out.n; i++)
      kinds[k][i] = out.a[i].kind;
  }
  ok (n_kinds[0] > 0 && n_kinds[0] == n_kinds[1] && memcmp (kinds[0], kinds[1], n_kinds[0]) == 0,
      "... and with room then what would have been said at once: %u actions", n_kinds[0]);
}

static void
room (void)
{
  for (unsigned n = N1; n <= N4; n++) {
    g = base[n];
    forget_all (&g);
    no_room (n, "a member that has told nobody anything");
  }
  g = base[N1];
  for (unsigned i = 0; i < 2; i++) {
    g.host[i].open = g.host[i].pending = false;
    g.host[i].told_role = HOST_NONE;
  }
  no_room (N1, "production that hosts nothing");
  g = base[N3];
  for (unsigned i = 0; i < 2; i++)
    g.host[i].probed = false;
  g.committed.rec[0].copies[1].host = g.committed.rec[1].copies[1].host = 4;
  no_room (N3, "a copy's host that is named no more");
}

/* The resources about which a change of this kind is proposed now. */
static uint32_t
wanted (uint8_t kind)
{
  g.applied = g.committed;
  g.proposed = false;
  /* An entry that was proposed may still come: until then no wish is void (R3). */
  g.enter_proposed = true;
  g.enter_view = g.view;
  g.enter_base = g.applied.stamp;
  settle (&g, true);
  return g.proposed && g.proposal.kind == kind ? g.proposal.iasps : 0;
}

/* Both copies were filled, and the plugins have asked for their entry. */
static struct copy_rec *
filled (void)
{
  g = base[N1];
  for (unsigned i = 0; i < 2; i++) {
    g.committed.rec[i].copies[1].in_set = false;
    g.committed.rec[i].copies[1].since = 0;
    g.host[i].link[1].ready = true;
    g.host[i].link[1].lost = false;
  }
  return &g.committed.rec[0].copies[1];
}

/* What is wanted no more doesn't keep back what is. */
static void
decided_otherwise (void)
{
#define ENTERS(want, what, ...)          \
  do {                                   \
    struct copy_rec *c = filled ();      \
    __VA_ARGS__;                         \
    (void) c;                            \
    is (wanted (CH_ENTER), (want), what); \
  } while (0)
  ENTERS (1, "R3: a copy that is filled shall enter", (void) 0);
  ENTERS (2, "F4: one that was barred meanwhile lets the next enter", c->barred = true);
  ENTERS (2, "... and one that an operator has suspended, whose plugin was told so and asks again",
          c->suspended = g.host[0].link[1].told_gone = true);
  ENTERS (2, "R6: ... and one that is detached", c->detached = g.host[0].link[1].told_gone = true);
  ENTERS (2, "... and one without a host", c->host = NO_NODE);

  (void) filled ();
  g.committed.rec[1].copies[1].in_set = true;
  for (unsigned i = 0; i < 2; i++) {
    g.host[i].link[1].lost = true;
    g.host[i].link[1].ready = false;
  }
  is (wanted (CH_SHRINK), 2, "F3: one that is out of the set already lets the next be taken out");

  g = base[N3];
  g.host[0].store_failed = g.host[1].store_failed = true;
  is (wanted (CH_BAR), 1, "F4: a failed store is barred");
  g.committed.rec[0].copies[1].barred = true;
  is (wanted (CH_BAR), 2, "... once, and then the next");
}

/* n2, at the site of n1, has fenced n1. */
static void
fenced (void)
{
  g = base[N2];
  peer (N1)->in_view = false;
  g.fence.node = 1;
  g.fence.done = true;
}

static bool
wanted_failed (void)
{
  (void) wanted (CH_MARK_FAILED);
  return g.proposed && g.proposal.kind == CH_MARK_FAILED && !g.proposal.clear;
}

static void
fences (void)
{
  fenced ();
  ok (wanted_failed () && g.fence.node == 1, "S1 d: who was fenced is marked failed");
  fenced ();
  peer (N1)->in_view = true;
  ok (!wanted_failed () && g.fence.node == NO_NODE, "... not if it is back already");
  fenced ();
  g.committed.def.nodes[N1].marked_failed = true;
  ok (!wanted_failed () && g.fence.node == NO_NODE, "... nor if it is marked failed");
  fenced ();
  g.fence.node = 77;
  ok (!wanted_failed () && g.fence.node == NO_NODE && !g.fence.done, "... nor if it was removed meanwhile");
}

int
main (void)
{
  up (false, 0);
  room ();
  decided_otherwise ();
  fences ();
  sim_destroy (&s);
  return tap_done ();
}
