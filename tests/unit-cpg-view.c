/* SPDX-License-Identifier: BSD-3-Clause
 *
 * How CPG's events become views: each trap of CPG and votequorum as a sequence
 * of events, and all interleavings of one cut.
 */
#include <config.h>

#include "server/cpg_view.h"

#include "tests/tap.h"

static const struct cpg_ring ring1 = { .seq = 100, .node = 1 };
static const struct cpg_ring ring2 = { .seq = 104, .node = 1 };

static void
members (struct cpg_view *v, const char *list)
{
  struct cpg_proc p[64];
  unsigned n = 0;

  for (; list[n]; n++) {
    p[n].node = (uint32_t) (list[n] - '0');
    p[n].pid = 1000 + p[n].node;
  }
  cpg_view_confchg (v, p, n);
}

static void
in_view (struct cpg_view *v, uint64_t id)
{
  cpg_view_init (v, (struct cpg_proc){ .node = 2, .pid = 1002 }, true);
  members (v, "123");
  cpg_view_totem (v, ring1);
  cpg_view_quorum (v, ring1, true);
  cpg_view_decide (v, ring1, id);
}

static void
test_forming (void)
{
  struct cpg_view v;
  struct cpg_proc from1 = { .node = 1, .pid = 1001 }, old1 = { .node = 1, .pid = 999 };

  cpg_view_init (&v, (struct cpg_proc){ .node = 2, .pid = 1002 }, true);
  ok (!cpg_view_must_propose (&v) && !cpg_view_must_wait (&v), "nothing happens before CPG");
  members (&v, "321");
  ok (!cpg_view_must_propose (&v) && !cpg_view_must_wait (&v), "members without a ring: no proposal, and nobody waits");
  ok (!cpg_view_decide (&v, (struct cpg_ring){ 0 }, 7), "nor a view, whatever ring is proposed");
  cpg_view_totem (&v, ring1);
  ok (cpg_view_must_wait (&v) && !cpg_view_must_propose (&v), "waits for votequorum");
  cpg_view_quorum (&v, (struct cpg_ring){ .seq = 96, .node = 1 }, true);
  ok (cpg_view_must_wait (&v), "votequorum's word on an older ring does not count");
  cpg_view_quorum (&v, ring1, false);
  ok (!cpg_view_must_wait (&v) && cpg_view_must_propose (&v),
      "proposes once the ring is counted, quorate or not");
  cpg_view_proposed (&v);
  ok (!cpg_view_must_propose (&v), "proposes once");
  ok (!cpg_view_takes (&v, from1, 7), "takes nothing before the view");
  ok (!cpg_view_decide (&v, ring2, 7), "a proposal of another ring names no view");
  ok (!cpg_view_decide (&v, (struct cpg_ring){ .seq = ring1.seq, .node = 9 }, 7), "nor one of the same number");
  ok (!cpg_view_decide (&v, ring1, 0), "0 names no view");
  ok (cpg_view_decide (&v, ring1, 7) && v.id == 7, "the first proposal names the view");
  ok (!cpg_view_decide (&v, ring1, 8) && v.id == 7, "the second does not");
  is (v.members[0].node * 100 + v.members[1].node * 10 + v.members[2].node, 123,
      "members are in rising order");
  ok (cpg_view_takes (&v, from1, 7), "takes what was sent in it");
  ok (!cpg_view_takes (&v, from1, 6), "not what was sent in an earlier one (trap 3)");
  ok (!cpg_view_takes (&v, old1, 7), "not from an earlier process of a member");
  ok (!cpg_view_takes (&v, (struct cpg_proc){ .node = 4, .pid = 1 }, 7), "not from a stranger");
}

static void
test_traps (void)
{
  struct cpg_view v;
  struct cpg_proc from3 = { .node = 3, .pid = 1003 };
  struct cpg_proc many[CRG_MAX_NODES + 1], two[3] = { { 1, 1001 }, { 2, 1002 }, { 1, 1111 } };

  /* A process goes and comes back, with the same pid, in the same ring. */
  in_view (&v, 7);
  members (&v, "12");
  ok (v.id == 0 && cpg_view_must_propose (&v), "a member that leaves ends the view");
  cpg_view_proposed (&v);
  members (&v, "123");
  ok (cpg_view_must_propose (&v), "each change asks for a proposal of its own (trap 7)");
  cpg_view_decide (&v, ring1, 8);
  ok (v.id == 8 && !cpg_view_takes (&v, from3, 7),
      "same ring, same members, same pids: another view");

  /* The ring changes, the members don't. */
  in_view (&v, 7);
  cpg_view_totem (&v, ring2);
  ok (v.id == 0 && cpg_view_must_wait (&v), "a ring change alone ends the view (trap 7)");
  ok (!cpg_view_decide (&v, ring1, 9), "a proposal from the old ring comes too late");
  cpg_view_quorum (&v, ring2, false);
  ok (cpg_view_decide (&v, ring2, 9), "and a new view begins, without quorum too (trap 8)");

  /* votequorum is ahead: it reported the next ring before CPG brought it. */
  in_view (&v, 7);
  cpg_view_quorum (&v, (struct cpg_ring){ .seq = 108, .node = 1 }, true);
  cpg_view_totem (&v, ring2);
  ok (!cpg_view_must_wait (&v), "a later ring of votequorum does not stop us");
  cpg_view_quorum (&v, (struct cpg_ring){ .seq = 104, .node = 9 }, true);
  cpg_view_totem (&v, ring2);
  ok (cpg_view_must_wait (&v), "another ring of the same number does");

  /* A paused member gets "all left" and "all joined" in one go (trap 4). */
  in_view (&v, 7);
  members (&v, "2");
  members (&v, "123");
  cpg_view_totem (&v, ring2);
  ok (v.id == 0 && cpg_view_must_wait (&v), "all left and all joined is a new view");

  /* Not a member: joined elsewhere only, or thrown out. */
  in_view (&v, 7);
  members (&v, "13");
  ok (!cpg_view_must_propose (&v) && !cpg_view_decide (&v, ring1, 9),
      "no view for one that is not in it");

  in_view (&v, 7);
  cpg_view_confchg (&v, two, 3);
  cpg_view_decide (&v, ring1, 8);
  ok (v.twice && v.n == 2 && v.id == 8, "a node with two processes counts once");
  ok (!cpg_view_takes (&v, two[0], 8) && !cpg_view_takes (&v, two[2], 8)
        && cpg_view_takes (&v, two[1], 8),
      "and neither of them is heard");

  /* Another process of this node, as an earlier run leaves it: that one is not us. */
  in_view (&v, 7);
  cpg_view_confchg (&v, &(struct cpg_proc){ 2, 1111 }, 1);
  ok (!v.is_member && !cpg_view_must_propose (&v), "an earlier process of this node is not this one");

  for (unsigned i = 0; i < CRG_MAX_NODES + 1; i++)
    many[i] = (struct cpg_proc){ .node = i + 1, .pid = 1001 + i };
  cpg_view_confchg (&v, many, CRG_MAX_NODES + 1);
  ok (v.too_many && !cpg_view_must_propose (&v) && !cpg_view_decide (&v, ring1, 10),
      "more nodes than we can have: no view");
  cpg_view_confchg (&v, many, CRG_MAX_NODES);
  ok (!v.too_many && cpg_view_decide (&v, ring1, 10), "as many as we can have: a view");

  cpg_view_init (&v, (struct cpg_proc){ .node = 2, .pid = 1002 }, false);
  members (&v, "12");
  cpg_view_totem (&v, ring1);
  ok (!cpg_view_must_wait (&v) && cpg_view_must_propose (&v),
      "without a quorum provider nobody is waited for");
}

/* Two members take the same sequence of ordered events, with votequorum's word
 * at any place in each: as long as both may go on, they agree on every view. */
static void
test_interleavings (void)
{
  enum { CONF, TOTEM, PROP_OLD, PROP_A, CONF_BACK, PROP_B, END };
  unsigned agreed = 0, views = 0;

  for (unsigned place_a = 0; place_a <= END; place_a++)
    for (unsigned place_b = 0; place_b <= END; place_b++) {
      uint64_t seen[2][END] = { { 0 } };

      for (unsigned who = 0; who < 2; who++) {
        unsigned place = who ? place_b : place_a;
        struct cpg_view v;
        bool told = false;

        in_view (&v, 7);
        for (unsigned at = 0; at < END; at++) {
          /* It comes at its place, or when dispatching has to wait for it. */
          if (!told && (at == place || cpg_view_must_wait (&v))) {
            cpg_view_quorum (&v, ring2, true);
            told = true;
          }
          check (!cpg_view_must_wait (&v), "place %u, event %u: still waits", place, at);
          switch (at) {
          case CONF: members (&v, "12"); break;
          case TOTEM: cpg_view_totem (&v, ring2); break;
          case PROP_OLD: cpg_view_decide (&v, ring1, 50); break;
          case PROP_A: cpg_view_decide (&v, ring2, 51); break;
          case CONF_BACK: members (&v, "123"); break;
          case PROP_B: cpg_view_decide (&v, ring2, 52); break;
          }
          seen[who][at] = v.id;
          views += v.id != 0;
        }
      }
      agreed += memcmp (seen[0], seen[1], sizeof seen[0]) == 0 && seen[0][PROP_A] == 51
                && seen[0][PROP_B] == 52 && seen[0][PROP_OLD] == 0;
    }
  is (agreed, (END + 1) * (END + 1), "every place of votequorum's word gives the same views");
  ok (views > 0, "there were views");
}

int
main (void)
{
  test_forming ();
  test_traps ();
  test_interleavings ();
  return tap_done ();
}
