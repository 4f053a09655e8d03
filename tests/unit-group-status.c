/* SPDX-License-Identifier: BSD-3-Clause
 *
 * What the group core says of itself: for whom or what it waits, in which words, its condition, its next
 * tick, and what it knows of other nodes.  A simulated cluster of 2 + 2 nodes and a replicate comes up;
 * then each case changes one thing in a copy of a member's core, and reads.  n1 is production.
 */
#include "tests/group-member.h"

static struct group_status st;

/* It can't host any more, and says so. */
static void
unable (unsigned n)
{
  for (unsigned i = 0; i < 2; i++) {
    struct group_host_status *h = &peer (n)->announce.iasp[i];

    h->opened = false;
    h->failed = true;
    h->probed = true;
    h->tenure = g.committed.rec[i].tenure;
  }
}

static void
waits (const char *what, const char *want)
{
  group_status (&g, g.now_ms, &st);
  if (!ok (want[0] ? strstr (st.wait_reason, want) != NULL : st.wait_reason[0] == '\0', "%s: %s", what,
           want[0] ? want : "nothing is waited for"))
    printf ("# got: %s\n", st.wait_reason);
}

/* The core of member n, as it came up, with one thing changed. */
#define CASE(n, what, want, ...) \
  do {                           \
    g = base[n];                 \
    __VA_ARGS__;                 \
    waits ((what), (want));      \
  } while (0)

static void
gone (unsigned n)
{
  peer (n)->in_view = false;
  peer (n)->heard_ms = 0;
  g.started_ms = 0;
}

static void
phases (void)
{
  CASE (N1, "all is well", "", (void) 0);
  ok (st.condition == COND_ACTIVE && st.served == 1 && st.wait_owner[0] == '\0' && st.majority && st.n_nodes == 5
        && st.lease_holder[0] == 1 && st.lease_until_ms[0] > g.now_ms,
      "... served, by n1, which has the lease");
  ok (st.nodes[N3].in_view && st.nodes[N3].present && st.nodes[N3].announced && st.nodes[N3].incarnation != 0,
      "... and n3 is there");
  CASE (N3, "seen by n3", "", (void) 0);
  ok (st.lease_holder[0] == 1 && st.lease_until_ms[0] == 0, "... it knows who has the lease, and not until when");
  CASE (N1, "left", "has left the group", g.left = true);
  is (group_next_tick_ms (&g) - g.now_ms, 3600000, "... and no time brings anything");
  CASE (N1, "no engine", "no view", g.phase = PHASE_NO_VIEW);
  ok (st.condition == COND_INDOUBT && strcmp (st.wait_owner, g.committed.def.name) == 0, "... the CRG waits, in doubt");
  is (group_next_tick_ms (&g) - g.now_ms, 3600000, "... and no time brings anything");
  CASE (N1, "no state", "holds no group state", g.has_state = g.has_committed = false);
  ok (st.condition == COND_INDOUBT && strcmp (st.wait_owner, "crg") == 0 && st.n_nodes == 0 && !st.votes && !st.majority
        && group_committed (&g) == NULL && group_applied (&g) == NULL,
      "... nor a vote, nor a word of anybody");
  CASE (N1, "nobody answered", "no majority of the votes", g.phase = PHASE_ANSWERING;
        for (unsigned i = 0; i < CRG_MAX_NODES; i++) g.peers[i].answered = false);
  ok (!st.majority && !st.nodes[N1].present, "... nor is there");
  CASE (N1, "who answers without a state", "no majority of the votes", g.phase = PHASE_ANSWERING;
        for (unsigned i = 0; i < CRG_MAX_NODES; i++) g.peers[i].answer.has_state = false);
  CASE (N1, "a majority answered", "agreeing on the state (C2)", g.phase = PHASE_ANSWERING);
  CASE (N1, "nothing committed since the start", "agreeing on the state (C2)", g.phase = PHASE_PROMISING, g.has_committed = false);
  ok (st.n_nodes == 5 && st.condition == COND_INDOUBT && st.committed.epoch == 0 && st.applied.epoch != 0
        && st.served == 0,
      "... the nodes are those of its own state");
  CASE (N1, "never spoken to", "", memset (peer (N5), 0, sizeof *peer (N5)));
  ok (!st.nodes[N5].in_view && st.nodes[N5].order == 4, "... it is in the domain, and nothing more is known");
  CASE (N1, "ended", "", g.committed.started = false);
  ok (st.condition == COND_INACTIVE && st.served == 0, "... inactive");
  CASE (N1, "deleted", "", g.committed.started = false, g.committed.deleted = true);
  is (st.condition, COND_ENDED, "... ended");
  CASE (N1, "deleted, and no view", "no view", g.committed.deleted = true, g.phase = PHASE_NO_VIEW);
  is (st.condition, COND_ENDED, "... ended all the same");
}

static void
named (void)
{
  CASE (N3, "start-wait", "waits for named host n1 (start-wait, 5 s left)", gone (N1), peer (N1)->seen = false,
        g.wait_set = true, g.wait_until_ms = g.now_ms + 5000);
  is (st.condition, COND_WAITING, "... production waits");
  group_status (&g, g.wait_until_ms + 1, &st);
  ok (strstr (st.wait_reason, "0 s left") != NULL, "... its end is passed, and no tick came yet");
  ok (group_next_tick_ms (&g) <= g.wait_until_ms, "... a tick comes at its end");
  CASE (N3, "start-wait, though it was production a moment ago", "no candidate", gone (N1), peer (N1)->seen = false,
        g.wait_set = true, g.wait_until_ms = g.now_ms + 5000, g.warm = 1;
        for (unsigned n = N2; n < N5; n++) unable (n));
  CASE (N3, "no answer yet", "waits for an answer of n1", peer (N1)->answered = false, peer (N1)->silent = 0);
  CASE (N3, "left a moment ago", "waits for n1, which left, to come back within its lease (F7, 2250 ms left)",
        peer (N1)->in_view = false, peer (N1)->heard_ms = g.now_ms);
  group_status (&g, g.now_ms + 5000, &st);
  ok (strstr (st.wait_reason, "0 ms left") != NULL, "... and then no more");
  ok (group_next_tick_ms (&g) <= g.now_ms + 2250, "... a tick comes at the end of that");
  CASE (N3, "said nothing", "waits for n1 to say what it can host", peer (N1)->announced = false);
  CASE (N3, "does not open", "waits for n1 to open the production copy", peer (N1)->announce.iasp[1].opened = false);
  CASE (N1, "earlier leases", "every earlier lease is over (L3)", peer (N1)->announce.iasp[0].opened = false, g.host[0].open = false,
        g.lease[0].cleared = 0);
  CASE (N1, "no lease", "a majority to renew the lease (L1)", peer (N1)->announce.iasp[0].opened = false, g.host[0].open = false,
        g.lease[0].until_ms = g.now_ms);
  CASE (N3, "a store knows more than the recovered group", "waits for an operator to choose a copy",
        peer (N1)->announce.iasp[1].opened = peer (N3)->announce.iasp[1].opened = false, g.committed.n_past = 1,
        g.committed.rec[1].copies[1].in_set = true, peer (N3)->announce.iasp[1].probed = true,
        memset (peer (N3)->announce.iasp[1].store.lineage, 0, CRG_ID_LEN));
  CASE (N1, "does not open itself", "waits for n1 to open the production copy", peer (N1)->announce.iasp[0].opened = false,
        g.host[0].open = false);
}

static void
candidates (void)
{
  CASE (N3, "nobody is named", "no candidate: n1: ", g.committed.rec[0].production_site = g.committed.rec[1].production_site = NO_SITE;
        for (unsigned n = N1; n < N5; n++) unable (n));
  CASE (N3, "not all have spoken", "every member to say what it can host", gone (N1), peer (N2)->announced = false,
        g.commit_ms = g.asked_ms = g.now_ms);
  CASE (N3, "all fail", "n2: it failed to host", gone (N1); for (unsigned n = N2; n < N5; n++) unable (n));
  ok (strstr (st.wait_reason, "n1: it is not there") != NULL && strstr (st.wait_reason, "n5") == NULL,
      "... and n1 is gone; a replicate is no candidate");
  CASE (N3, "one can", "n2: is being appointed", gone (N1); for (unsigned i = 0; i < 2; i++)
        peer (N2)->announce.iasp[i].can_host = true);

  /* S2: for whose copy a restarted store waits. */
  g = base[N3];
  gone (N1);
  gone (N3);
  gone (N4);
  for (unsigned i = 0; i < 2; i++) {
    struct group_host_status *h = &peer (N2)->announce.iasp[i];

    h->can_host = h->probed = h->store.can_host = h->store.has_super = h->store.agrees_ids = true;
    h->store.restarted = true;
    h->store.generation = g.committed.rec[i].generation;
    h->store.tenure = g.committed.rec[i].tenure;
    memcpy (h->store.lineage, g.committed.lineage, CRG_ID_LEN);
    h->store.unusable = h->store.fork = false;
  }
  waits ("restarted", "waits for the other copies of the set (S2): site ");
  ok (strstr (st.wait_reason, ", last at n3;") != NULL, "... with its last host");
  for (unsigned i = 0; i < 2; i++)
    g.committed.rec[i].copies[1].host = NO_NODE;
  waits ("restarted", "waits for the other copies of the set (S2): site ");
  ok (strstr (st.wait_reason, "last at") == NULL, "... that has no host now");
  peer (N2)->announce.iasp[0].store.restarted = false;
  waits ("only the second is restarted", "(S2): site ");
  is_str (group_refusal (&g, 0, 2), "its store was restarted and waits for the other copies of the set (S2)", "... refused in the same words");
  ok (group_can_force (&g, 0, 2), "... which an operator can end by force");
  ok (!group_can_force (&g, 0, 3) && !group_can_force (&g, 0, 99), "... not with one that is gone, or isn't known");
  ok (!group_can_force (&base[N3], 0, 3), "... and not while production is served");
}

static void
others (void)
{
  static const uint8_t word[] = "hello";
  struct group_event ev = { .kind = GE_REPORT, .buf = word, .len = sizeof word };
  uint64_t age;
  size_t len = 0;

  g = base[N1];
  ok (strstr (group_refusal (&g, 0, 99), "not in the recovery domain") != NULL, "a stranger hosts nothing");
  ok (group_refusal (&g, 0, 4) == NULL, "n4 is not the host of its copy: that would let go of it");
  g.phase = PHASE_ANSWERING;
  ok (strstr (group_refusal (&g, 0, 2), "can't change anything now") != NULL, "nor anybody while nothing can be changed");
  g.has_committed = false;
  ok (strstr (group_refusal (&g, 0, 2), "not in the recovery domain") != NULL, "nor without a committed state");

  g = base[N3];
  ok (group_announced (&g, 1, 0) != NULL && group_announced (&g, 1, 0)->role == HOST_PRODUCTION, "n1 announced that it is production");
  ok (group_announced (&g, 99, 0) == NULL && group_announced (&g, 1, 7) == NULL, "... nothing of what isn't there");
  ok (group_has_access (&g, 1, 0) && !group_has_access (&g, 1, 7) && !group_has_access (&g, 99, 0), "Fig. 4: and has access");
  peer (N1)->announced = false;
  ok (group_announced (&g, 1, 0) == NULL && !group_has_access (&g, 1, 0), "what it said in another view is of the past");
  peer (N1)->announced = true;
  peer (N1)->in_view = false;
  ok (group_announced (&g, 1, 0) == NULL && !group_has_access (&g, 1, 0), "so is what it said before it left");
  g = base[N3];
  memset (&peer (N1)->announce.iasp[0], 0, sizeof peer (N1)->announce.iasp[0]);
  ok (!group_has_access (&g, 1, 0), "Fig. 4: who hasn't looked has no access");

  ok (group_report (&g, 1, g.now_ms, &len, &age) == NULL && group_report (&g, 99, g.now_ms, &len, &age) == NULL,
      "nobody reported");
  memcpy (peer (N1)->report, word, sizeof word);
  peer (N1)->report_len = sizeof word;
  peer (N1)->report_ms = g.now_ms - 40;
  ok (group_report (&g, 1, g.now_ms, &len, &age) != NULL && len == sizeof word && age == 40, "n1 did, 40 ms ago");
  ok (group_report (&g, 1, 0, &len, &age) != NULL && age == 0, "no report is of the future");

  /* Own reports: at most ten a second. */
  ev.now_ms = g.now_ms;
  g.report_next_ms = g.now_ms + 70;
  g.alive_ms = g.now_ms + 1000;
  group_step (&g, &ev, &out);
  ok (g.report_new && g.report_len == sizeof word, "a report is kept until its time");
  ok (group_next_tick_ms (&g) <= g.now_ms + 70, "... which a tick brings");
  ev = (struct group_event){ .kind = GE_TICK, .now_ms = g.now_ms + 70 };
  group_step (&g, &ev, &out);
  ok (!g.report_new && g.report_next_ms == g.now_ms + REPORT_EVERY_MS, "... and is sent then");
  age = g.counters.illegal;
  ev = (struct group_event){ .kind = GE_REPORT, .buf = word, .len = GROUP_REPORT_MAX + 1, .now_ms = g.now_ms };
  group_step (&g, &ev, &out);
  ev = (struct group_event){ .kind = GE_REPORT, .len = 5, .now_ms = g.now_ms };
  group_step (&g, &ev, &out);
  ok (g.counters.illegal == age + 2 && g.report_len == sizeof word, "one too long, or without bytes, is none");
  ev = (struct group_event){ .kind = GE_REPORT, .now_ms = g.now_ms };
  group_step (&g, &ev, &out);
  is (g.report_len, 0, "an empty one takes it back");

  ok (!group_was_graceful (&g, 0), "the first tenure was no switchover");
  g.appoint_graceful = 1;
  g.appoint_tenure[0] = g.committed.rec[0].tenure;
  ok (group_was_graceful (&g, 0), "this one was");
  g.appoint_tenure[0]++;
  ok (!group_was_graceful (&g, 0), "of another tenure nothing is known");
  g.has_committed = false;
  ok (!group_was_graceful (&g, 0), "nor without a committed state");

  g = base[N1];
  g.has_committed = false;
  ok (group_next_tick_ms (&g) > g.now_ms, "a tick comes, whatever is known");
}

int
main (void)
{
  up (false, 0);
  phases ();
  named ();
  candidates ();
  others ();
  sim_destroy (&s);
  up (true, 0);
  CASE (N3, "one resource", "waits for ", peer (N1)->announce.iasp[0].opened = false);
  is_str (st.wait_owner, g.committed.def.iasps[0].name, "ACCESS: the wait is that resource's");
  is (st.served, 2, "ACCESS: the other one is served");
  sim_destroy (&s);
  return tap_done ();
}
