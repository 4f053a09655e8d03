/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Commit and lease, rule by rule, on one group core whose peers are played by
 * the test: C1 to C6, C8, C9's lineage, H2, H5, L1, L3.  Five nodes with a
 * vote each; the core under test is node 2 unless a test says otherwise.
 */
#include "server/group_private.h"
#include "tests/tap.h"

static struct group g;
static struct group_actions out;
static struct crg_state created;
static struct msg m;
static uint64_t now, view;
static uint8_t queue[64][8192];
static size_t queue_len[64];
static unsigned n_queue;
static unsigned persists, leaves;
static uint64_t lease_until;

/* What the core did in the last steps: its messages wait in `queue` for their
 * own delivery. */
static void
step (struct group_event *ev)
{
  ev->now_ms = now;
  group_step (&g, ev, &out);
  for (unsigned i = 0; i < out.n; i++) {
    const struct group_action *a = &out.a[i];

    if (a->kind == GA_PERSIST)
      persists++;
    else if (a->kind == GA_LEAVE)
      leaves++;
    else if (a->kind == GA_LEASE)
      lease_until = a->until_ms;
    else if (a->kind == GA_SEND && n_queue < 64 && a->len <= sizeof queue[0]) {
      memcpy (queue[n_queue], out.bytes + a->off, a->len);
      queue_len[n_queue++] = a->len;
    }
  }
}

static void
tick (uint64_t ms)
{
  struct group_event ev = { .kind = GE_TICK };

  now += ms;
  step (&ev);
}

/* Is a message of this type waiting?  Leaves it in `m`. */
static bool
sent (uint8_t type)
{
  for (unsigned i = 0; i < n_queue; i++)
    if (msg_decode (&m, queue[i], queue_len[i]) == 0 && m.h.type == type)
      return true;
  return false;
}

/* Own messages come back, those that they cause too. */
static void
loop_back (void)
{
  static uint8_t copy[8192];

  for (unsigned i = 0; i < 200 && n_queue > 0; i++) {
    struct group_event ev = { .kind = GE_MSG, .from = g.cfg.node_id, .buf = copy };

    ev.len = queue_len[0];
    memcpy (copy, queue[0], ev.len);
    n_queue--;
    memmove (queue[0], queue[1], n_queue * sizeof queue[0]);
    memmove (queue_len, queue_len + 1, n_queue * sizeof queue_len[0]);
    step (&ev);
  }
}

/* `m` holds the body; a peer says it. */
static void
peer (uint32_t from, uint8_t type)
{
  static uint8_t bytes[8192];
  struct group_event ev = { .kind = GE_MSG, .from = from, .buf = bytes };

  m.h = (struct msg_header) { .type = type, .view = view, .sender = from,
                              .incarnation = 1000 + from };
  memcpy (m.h.lineage, created.lineage, CRG_ID_LEN);
  ev.len = msg_encode (&m, bytes, sizeof bytes);
  step (&ev);
}

static void
new_view (unsigned n)
{
  struct group_event ev = { .kind = GE_VIEW, .n_members = n };

  view++;
  ev.view = view;
  for (unsigned i = 0; i < n; i++)
    ev.members[i] = i + 1;
  n_queue = 0;
  step (&ev);
}

static bool access_placement; /* of what boot_as makes: two resources, two units */
static uint32_t boot_hold_ms; /* ... with which state file */

static void
boot_as (uint32_t id, bool has_state, uint64_t promised)
{
  struct group_config cfg = { .node_id = id, .incarnation = 1000 + id, .token_ms = 1000,
                              .lease_ms = 3000, .start_wait_ms = 60000,
                              .hold_ms = boot_hold_ms };
  struct crg_def def;

  memset (&def, 0, sizeof def);
  strcpy (def.name, "crg");
  def.n_sites = 2;
  def.n_nodes = 5;
  def.n_iasps = 1;
  strcpy (def.sites[0], "a");
  strcpy (def.sites[1], "b");
  strcpy (def.iasps[0].name, "i");
  def.iasps[0].size = 1;
  for (unsigned i = 0; i < 5; i++) {
    def.nodes[i].id = i + 1;
    def.nodes[i].name[0] = (char) ('p' + i);
    def.nodes[i].site = i == 4 ? NO_SITE : (uint8_t) (i / 2);
    def.nodes[i].preferred_role = i == 4 ? MEMBER_REPLICATE : MEMBER_BACKUP;
    def.nodes[i].votes = 1;
    def.nodes[i].order = (uint8_t) i;
  }
  if (access_placement) {
    def.placement = PLACEMENT_ACCESS;
    def.n_iasps = 2;
    strcpy (def.iasps[1].name, "k");
    def.iasps[1].size = 1;
    /* The second is preferred at node 2. */
    for (unsigned i = 0; i < 5; i++) {
      def.iasps[0].order[i] = (uint8_t) i;
      def.iasps[1].order[i] = (uint8_t) ((i + 4) % 5);
      strcpy (def.iasps[0].store[i], i == 4 ? "" : "/s");
      strcpy (def.iasps[1].store[i], i == 4 ? "" : "/s");
    }
  }
  static const uint8_t lineage[CRG_ID_LEN] = { 5 };
  if (state_create (&created, &def, lineage) != NULL)
    abort ();
  created.started = true;
  now = 50000;
  persists = leaves = 0;
  lease_until = 0;
  group_init (&g, &cfg, has_state ? &created : NULL, promised, now);
}

static void
answer (uint32_t from, struct stamp stamp, uint64_t promised)
{
  memset (&m, 0, sizeof m);
  m.u.answer = (struct msg_answer) { g.round, true, stamp, promised, false, UINT32_MAX };
  peer (from, MSG_ANSWER);
}

static void
start (uint32_t from, uint64_t epoch)
{
  memset (&m, 0, sizeof m);
  m.u.start.round = g.round;
  m.u.start.epoch = epoch;
  peer (from, MSG_START);
}

static void
promised (uint32_t from, struct stamp stamp)
{
  memset (&m, 0, sizeof m);
  m.u.promised = (struct msg_promised) { g.round, g.epoch, stamp };
  peer (from, MSG_PROMISED);
}

static void
group_state (uint32_t from, const struct crg_state *s)
{
  static uint8_t bytes[8192];
  static struct crg_state copy;

  copy = *s;
  copy.stamp = (struct stamp) { g.epoch, 0 };
  memset (&m, 0, sizeof m);
  m.u.group_state.round = g.round;
  m.u.group_state.epoch = g.epoch;
  m.u.group_state.bytes = bytes;
  m.u.group_state.len = (uint32_t) state_encode (&copy, bytes, sizeof bytes);
  peer (from, MSG_GROUP_STATE);
}

static void
persisted (uint32_t from, struct stamp stamp, uint32_t hold_ms)
{
  memset (&m, 0, sizeof m);
  m.u.persisted = (struct msg_persisted) { stamp, 1, { hold_ms } };
  peer (from, MSG_PERSISTED);
}

/* Three of five, all at (1, 0), up to a committed (2, 0). */
static void
commit_view (void)
{
  new_view (3);
  for (uint32_t id = 1; id <= 3; id++)
    if (id != g.cfg.node_id)
      answer (id, created.stamp, 1);
  loop_back ();
  if (g.cfg.node_id != 1)
    start (1, 2);
  loop_back ();
  for (uint32_t id = 1; id <= 3; id++)
    if (id != g.cfg.node_id)
      promised (id, created.stamp);
  loop_back ();
  if (g.cfg.node_id != 1)
    group_state (1, &created);
  loop_back ();
  for (uint32_t id = 1; id <= 3; id++)
    if (id != g.cfg.node_id)
      persisted (id, (struct stamp) { 2, 0 }, 0);
  loop_back ();
}

static void
rounds (void)
{
  boot_as (2, true, 1);
  new_view (3);
  ok (sent (MSG_ANSWER) && m.u.answer.has_state && m.u.answer.stamp.epoch == 1
        && m.u.answer.promised == 1,
      "C2: in a new view a member sends its stamp and promised");
  loop_back ();
  answer (1, created.stamp, 1);
  ok (!sent (MSG_START), "C2: not before all answers are there");
  answer (3, created.stamp, 6);
  tick (100);
  ok (!sent (MSG_START), "C2: the lowest id starts, not this one");
  tick (1800);
  ok (!sent (MSG_START), "C2: nor within 2 x token");
  tick (200);
  ok (sent (MSG_START) && m.u.start.epoch == 7, "C2: the next id does, with 1 + the highest promised");

  boot_as (1, true, 1);
  new_view (4);
  loop_back ();
  answer (2, created.stamp, 1);
  tick (3000);
  ok (!sent (MSG_START), "C2: two answers of five: never a start");
  answer (3, created.stamp, 1);
  tick (100);
  ok (sent (MSG_START), "C2: a majority's answers after 2 x token");

  boot_as (2, true, 1);
  new_view (3);
  loop_back ();
  answer (1, created.stamp, 1);
  answer (3, created.stamp, 1);
  persists = 0;
  start (1, 2);
  ok (persists == 1 && g.promised == 2 && out.a[0].kind == GA_PERSIST && sent (MSG_PROMISED),
      "C2: promise: fsync, then PROMISED");
  n_queue = 0;
  start (3, 9);
  ok (g.promised == 2 && n_queue == 0, "C2: the first delivered START of a round counts");
  new_view (3);
  loop_back ();
  answer (1, created.stamp, 1);
  answer (3, created.stamp, 1);
  persists = 0;
  start (1, 2);
  ok (g.promised == 2 && g.round == 2 && sent (MSG_ANSWER) && !sent (MSG_PROMISED),
      "C2: E isn't above promised: no promise, a new round");

  boot_as (2, true, 5);
  new_view (3);
  answer (1, created.stamp, 1);
  answer (3, created.stamp, 1);
  n_queue = 0; /* its own answer, with promised 5, is still under way */
  start (1, 3);
  ok (g.promised == 5 && !sent (MSG_PROMISED), "C2: nor is a promise ever taken back");

  boot_as (2, true, 1);
  new_view (4);
  loop_back ();
  answer (1, created.stamp, 1);
  answer (3, created.stamp, 1);
  start (1, 2);
  loop_back ();
  answer (4, created.stamp, 1);
  ok (g.round == 1, "a late answer that can still promise needs no new round");
  boot_as (2, true, 1);
  new_view (4);
  loop_back ();
  answer (1, created.stamp, 1);
  answer (3, created.stamp, 1);
  start (1, 2);
  loop_back ();
  answer (4, created.stamp, 8);
  ok (g.round == 2 && sent (MSG_ANSWER), "C2: a late answer that can't: a new round");

  boot_as (2, true, 1);
  new_view (3);
  loop_back ();
  answer (1, created.stamp, 1);
  answer (3, created.stamp, 1);
  start (1, 2);
  loop_back ();
  tick (2100);
  ok (sent (MSG_ROUND), "C2: no committed GROUP-STATE within 2 x token: a new round");
  loop_back ();
  ok (g.round == 2 && sent (MSG_ANSWER) == false, "C2: begun when it is delivered");
  start (1, 3);
  ok (!sent (MSG_PROMISED) || g.promised == 3, "C2: with a higher epoch");
}

static void
holders (void)
{
  struct stamp newer = { 1, 4 };

  /* H2 */
  boot_as (1, true, 1);
  new_view (3);
  loop_back ();
  answer (2, created.stamp, 1);
  answer (3, created.stamp, 1);
  loop_back ();
  promised (2, created.stamp);
  ok (!sent (MSG_GROUP_STATE), "C2: not before a majority has promised");
  promised (3, created.stamp);
  ok (sent (MSG_GROUP_STATE), "H2: among equals the primary sends the state");
  boot_as (1, true, 1);
  new_view (3);
  loop_back ();
  answer (2, created.stamp, 1);
  answer (3, newer, 1);
  loop_back ();
  promised (2, created.stamp);
  promised (3, newer);
  ok (!sent (MSG_GROUP_STATE), "H2: the holder of the highest stamp sends it");
  persists = 0;
  static struct crg_state s;
  s = created;
  s.rec[0].generation = 3;
  group_state (2, &s);
  ok (g.gs_delivered, "the first GROUP-STATE of a promised member counts");
  n_queue = 0;
  ok (g.applied.rec[0].generation == 3 && g.applied.stamp.epoch == 2 && g.applied.stamp.version == 0,
      "C2: as (E, 0)");
  s.rec[0].generation = 4;
  group_state (3, &s);
  ok (g.applied.rec[0].generation == 3, "C2: equal stamps mean equal content: the second doesn't");
  boot_as (2, true, 1);
  new_view (3);
  loop_back ();
  answer (1, created.stamp, 1);
  answer (3, created.stamp, 1);
  start (1, 2);
  loop_back ();
  group_state (1, &created);
  ok (!g.gs_delivered, "C2: nor one of a member that has not promised");
}

static struct change
shrink (void)
{
  return (struct change) { .kind = CH_EXPEL, .node = 4, .incarnation = 77, .base = g.applied.stamp };
}

static void
commits (void)
{
  boot_as (2, true, 1);
  new_view (3);
  loop_back ();
  answer (1, created.stamp, 1);
  answer (3, created.stamp, 1);
  start (1, 2);
  loop_back ();
  promised (1, created.stamp);
  promised (3, created.stamp);
  persists = 0;
  group_state (1, &created);
  ok (persists == 1 && sent (MSG_PERSISTED) && m.u.persisted.stamp.epoch == 2,
      "C3: GROUP-STATE is fsynced, then PERSISTED");
  loop_back ();
  persisted (1, (struct stamp) { 2, 0 }, 0);
  ok (!g.gs_committed && !g.has_committed, "C3: two of five is no commit");
  persisted (3, (struct stamp) { 1, 0 }, 0);
  ok (!g.gs_committed, "C3: another stamp doesn't count");
  persisted (3, (struct stamp) { 2, 0 }, 0);
  ok (g.gs_committed && g.phase == PHASE_STARTED, "C3: a majority's PERSISTED is the commit");
  loop_back ();

  memset (&m, 0, sizeof m);
  m.u.change = shrink ();
  m.u.change.base.version = 9;
  peer (1, MSG_CHANGE);
  ok (g.applied.stamp.version == 0, "C3: a change with another base is ignored");
  memset (&m, 0, sizeof m);
  m.u.change = shrink ();
  persists = 0;
  n_queue = 0;
  peer (1, MSG_CHANGE);
  ok (g.applied.stamp.version == 1 && persists == 1 && sent (MSG_PERSISTED),
      "C3: a valid one is applied and fsynced");
  ok (g.committed.stamp.version == 0 && !group_active (&g), "C4: nothing follows from it yet");
  memset (&m, 0, sizeof m);
  m.u.change = (struct change) { .kind = CH_END, .base = g.applied.stamp };
  peer (3, MSG_CHANGE);
  ok (g.applied.stamp.version == 1 && g.applied.started, "C3: one uncommitted change at a time");
  loop_back ();
  persisted (1, (struct stamp) { 2, 1 }, 0);
  persisted (3, (struct stamp) { 2, 1 }, 0);
  ok (g.committed.stamp.version == 1 && group_active (&g), "C3: committed by a majority");

  memset (&m, 0, sizeof m);
  m.u.change = (struct change) { .kind = CH_EXPEL, .node = 4, .incarnation = 78,
                                 .base = g.applied.stamp };
  peer (1, MSG_CHANGE);
  n_queue = 0;
  tick (1900);
  ok (!sent (MSG_ROUND), "C2: a change may take 2 x token ...");
  tick (200);
  ok (sent (MSG_ROUND), "... then a new round tells its outcome");
  n_queue = 0;
  persisted (1, (struct stamp) { 2, 2 }, 0);
  persisted (2, (struct stamp) { 2, 2 }, 0);
  persisted (3, (struct stamp) { 2, 2 }, 0);
  ok (g.committed.stamp.version == 2, "... unless it is committed first");

  /* C5 */
  memset (&m, 0, sizeof m);
  m.u.change = (struct change) { .kind = CH_END, .base = g.applied.stamp };
  peer (1, MSG_CHANGE);
  ok (!g.applied.started && g.committed.started, "C5: applied, not committed ...");
  new_view (2);
  loop_back ();
  ok (!group_active (&g) && g.committed.started, "... and the view ends: neither done nor undone");
  new_view (3);
  loop_back ();
  answer (1, (struct stamp) { 2, 2 }, 2);
  answer (3, (struct stamp) { 2, 2 }, 2);
  start (1, 3);
  loop_back ();
  promised (1, (struct stamp) { 2, 2 });
  promised (3, (struct stamp) { 2, 2 });
  ok (sent (MSG_GROUP_STATE), "H2: this one has the highest stamp");
  loop_back ();
  persisted (1, (struct stamp) { 3, 0 }, 0);
  persisted (3, (struct stamp) { 3, 0 }, 0);
  ok (!g.committed.started, "C5: the outcome is read from the next committed state: done");

  /* H5 */
  uint64_t dropped = g.counters.dropped;
  view--;
  persisted (1, (struct stamp) { 3, 0 }, 0);
  view++;
  ok (g.counters.dropped == dropped + 1, "H5: a message of an older view is dropped");
  created.lineage[0]++;
  memset (&m, 0, sizeof m);
  m.u.change = (struct change) { .kind = CH_START, .base = g.applied.stamp };
  peer (1, MSG_CHANGE);
  created.lineage[0]--;
  ok (g.counters.dropped == dropped + 2 && !g.applied.started,
      "C9: a message of another lineage is dropped");
}

static void
without_state (void)
{
  boot_as (2, false, 0);
  new_view (4);
  ok (sent (MSG_ANSWER) && !m.u.answer.has_state, "C6: a node without a state says so");
  loop_back ();
  answer (1, created.stamp, 1);
  answer (3, created.stamp, 1);
  answer (4, created.stamp, 1);
  persists = 0;
  start (1, 2);
  loop_back ();
  ok (persists == 0 && g.promised == 0, "C6: no PROMISED");
  promised (1, created.stamp);
  promised (3, created.stamp);
  promised (4, created.stamp);
  group_state (1, &created);
  ok (persists == 0 && !sent (MSG_PERSISTED), "C6: no vote for the state that it gets");
  persisted (1, (struct stamp) { 2, 0 }, 0);
  persisted (3, (struct stamp) { 2, 0 }, 0);
  ok (!g.has_state, "C6: two of five and itself aren't a majority without it");
  persisted (4, (struct stamp) { 2, 0 }, 0);
  ok (g.has_state && persists == 1 && g.promised == 2 && sent (MSG_PERSISTED),
      "C6: committed by a majority without it: persisted, from now on it votes");
  is ((long long) g.counters.group_state, 1, "its first GROUP-STATE is counted");

  boot_as (1, true, 1);
  new_view (3);
  loop_back ();
  memset (&m, 0, sizeof m);
  m.u.answer = (struct msg_answer) { 1, false, { 0, 0 }, 0, false, UINT32_MAX };
  peer (2, MSG_ANSWER);
  answer (3, created.stamp, 1);
  tick (10000);
  ok (!sent (MSG_START), "C6: an answer without a state is no vote: two of five don't start");
}

static void
silence (void)
{
  boot_as (2, true, 1);
  commit_view ();
  ok (group_active (&g), "committed");
  bool early = false;
  for (unsigned i = 0; i < 22; i++) { /* and one at the beginning of the view */
    tick (250);
    loop_back ();
    memset (&m, 0, sizeof m);
    peer (1, MSG_ALIVE);
    early = early || (g.proposed && g.proposal.kind == CH_EXPEL);
  }
  ok (!early, "C8: 23 own ALIVEs: not silent yet");
  tick (250);
  loop_back ();
  tick (250);
  ok (g.proposed && g.proposal.kind == CH_EXPEL && g.proposal.node == 3
        && g.proposal.incarnation == 1003,
      "C8: 24 own ALIVEs and none of X's since: proposed to be expelled, this incarnation");
  loop_back ();
  persisted (1, g.applied.stamp, 0);
  persisted (3, g.applied.stamp, 0);
  ok (!group_present (&g, group_peer (&g, 3)), "C8: expelled counts as left");
  uint64_t dropped = g.counters.dropped;
  memset (&m, 0, sizeof m);
  peer (3, MSG_ALIVE);
  ok (g.counters.dropped == dropped + 1, "C8: its messages are dropped");
  memset (&m, 0, sizeof m);
  m.u.change = (struct change) { .kind = CH_EXPEL, .node = 2, .incarnation = 1002,
                                 .base = g.applied.stamp };
  peer (1, MSG_CHANGE);
  loop_back ();
  persisted (1, g.applied.stamp, 0);
  persisted (3, g.applied.stamp, 0);
  ok (leaves == 1 && g.left, "C8: who is expelled itself leaves");
}

static void
renewed_for (uint32_t from, uint64_t tenure, uint64_t sent_ms, uint32_t lease_ms)
{
  memset (&m, 0, sizeof m);
  m.u.renew = (struct msg_renew) { 0, g.cfg.node_id, tenure, sent_ms, 0, lease_ms };
  peer (from, MSG_RENEWED);
}

static void
renewed (uint32_t from, uint64_t tenure, uint64_t sent_ms)
{
  renewed_for (from, tenure, sent_ms, g.cfg.lease_ms);
}

/* The host `from` asks, as it may. */
static void
renew (uint32_t from, uint8_t unit, uint64_t tenure, uint64_t domain, uint32_t lease_ms)
{
  memset (&m, 0, sizeof m);
  m.u.renew = (struct msg_renew) { unit, from, tenure, 12345, domain, lease_ms };
  peer (from, MSG_RENEW);
}

static void
leases (void)
{
  uint64_t at;

  boot_as (1, true, 1);
  commit_view ();
  tick (10);
  loop_back ();
  ok (g.lease[0].tenure == 1 && g.lease[0].sent_ms != 0, "L1: the production host renews");
  at = g.lease[0].sent_ms;
  ok (lease_until == 0, "L1: its own reply is no majority");
  now += 100;
  renewed (2, 1, at);
  ok (lease_until == 0, "L1: two of five aren't");
  now += 100;
  renewed (3, 1, at + 50000);
  ok (lease_until == 0, "L1: a send time that was never ours is refused");
  renewed (3, 2, at);
  ok (lease_until == 0, "L1: a reply of another tenure is none");
  renewed_for (3, 1, at, 2999);
  ok (lease_until == 0, "L1: one to a shorter lease grants no longer one");
  renewed (3, 1, at);
  ok (lease_until == at + 3000, "L1: with a majority: RENEW's send time + T, not the receipt's");
  tick (300);
  ok (sent (MSG_RENEW), "L1: every T / 12");
  uint64_t second = g.lease[0].sent_ms;
  loop_back ();
  renewed (2, 1, second);
  ok (lease_until == at + 3000, "L1: each RENEW needs its majority");
  renewed (3, 1, second);
  ok (lease_until == second + 3000, "L1: then it is longer");
  memset (&m, 0, sizeof m);
  m.u.change = (struct change) { .kind = CH_APPOINT, .iasps = 1, .site = 0, .node = 2,
                                 .expect_node = 1, .expect_tenure = 1, .base = g.applied.stamp };
  peer (3, MSG_CHANGE);
  n_queue = 0;
  tick (300);
  ok (g.applied.rec[0].tenure == 2 && g.committed.rec[0].tenure == 1 && !sent (MSG_RENEW),
      "C5: a host asks for no lease while another may be appointed");

  /* L3, from the member's side. */
  boot_as (2, true, 1);
  commit_view ();
  n_queue = 0;
  now += 10000;
  renew (1, 0, 1, 0, 3000);
  ok (sent (MSG_RENEWED) && m.u.renew.sent_ms == 12345, "L1: a member echoes the send time");
  n_queue = 0;
  renew (3, 0, 1, 0, 3000);
  ok (!sent (MSG_RENEWED), "L1: only to the named host");
  g.applied.domain++;
  renew (1, 0, 1, g.applied.domain - 1, 3000);
  ok (!sent (MSG_RENEWED), "C7: a host that counts by older votes gets no lease by them");
  renew (1, 0, 1, g.applied.domain, 3000);
  ok (sent (MSG_RENEWED), "C7: ... one that counts by the same does");
  g.applied.domain--;
  n_queue = 0;
  now += 1000;
  memset (&m, 0, sizeof m);
  m.u.change = (struct change) { .kind = CH_APPOINT, .iasps = 1, .site = 0, .node = 2,
                                 .expect_node = 1, .expect_tenure = 1, .base = g.applied.stamp };
  peer (3, MSG_CHANGE);
  ok (sent (MSG_PERSISTED) && m.u.persisted.hold_ms[0] == 2150,
      "L3: hold is what is left of T x 1.05 since the last reply to another host: %u ms",
      m.u.persisted.hold_ms[0]);
  n_queue = 0;
  renew (1, 0, 1, 0, 3000);
  ok (!sent (MSG_RENEWED), "L3: who has persisted an appointment answers no earlier host");

  /* L3, from the new host's side; its own hold is 2150 ms. */
  persisted (3, (struct stamp) { g.applied.stamp.epoch, g.applied.stamp.version - 1 }, 0);
  ok (group_peer_const (&g, 3)->hold_known == 0, "L3: what was said before the appointment is no hold");
  persisted (2, g.applied.stamp, 2150);
  persisted (3, g.applied.stamp, 500);
  persisted (1, g.applied.stamp, 900);
  ok (group_active (&g) && g.committed.rec[0].tenure == 2 && !lease_cleared (&g, 0),
      "L3: committed, and not open yet");
  tick (950);
  ok (!lease_cleared (&g, 0), "L3: two holds are over: no majority");
  tick (1150);
  ok (!lease_cleared (&g, 0), "L3: 50 ms of the third are left");
  tick (100);
  ok (lease_cleared (&g, 0), "L3: receipt + hold has passed for a majority");

  boot_as (2, true, 1);
  commit_view ();
  now += 10000;
  renew (1, 0, 1, 0, 3000);
  memset (&m, 0, sizeof m);
  m.u.change = (struct change) { .kind = CH_APPOINT, .iasps = 1, .site = 0, .node = 2,
                                 .expect_node = 1, .expect_tenure = 1, .base = g.applied.stamp };
  peer (3, MSG_CHANGE);
  loop_back ();
  persisted (3, g.applied.stamp, 3150);
  persisted (1, g.applied.stamp, 3150);
  g.lease[0].released = 7;
  ok (!lease_cleared (&g, 0), "L3: a release of another tenure ends no hold");
  g.lease[0].released = 0;
  memset (&m, 0, sizeof m);
  m.u.released.tenure = 1;
  peer (1, MSG_RELEASED);
  ok (lease_cleared (&g, 0), "L3: or the old host has released");

  /* A member that just started may have replied just before. */
  boot_as (2, true, 1);
  created.rec[0].tenure = 4;
  g.applied.rec[0].tenure = 4;
  g.now_ms += 1000;
  ok (lease_hold_ms (&g, 0) == 2150, "L3: T x 1.05 since its start: %u ms", lease_hold_ms (&g, 0));
  g.now_ms = g.started_ms + 3150;
  ok (lease_hold_ms (&g, 0) == 0, "L3: and no more");
}

/* L3: nodes are configured one after the other: the lease is as long as its host says. */
static void
longer_leases (void)
{
  uint32_t hold;

  boot_as (2, true, 1);
  commit_view ();
  is (group_hold_ms (&g), 3150, "L3: what a lease like its own takes is on disk");
  n_queue = 0;
  now += 10000;
  g.applied.rec[0].tenure = g.committed.rec[0].tenure = 4;
  renew (1, 0, 4, 0, 10000);
  ok (out.n >= 2 && out.a[0].kind == GA_PERSIST && group_hold_ms (&g) == 10500 && sent (MSG_RENEWED),
      "L3: a longer lease is on disk before it is granted");
  n_queue = 0;
  now += 100;
  renew (1, 0, 4, 0, 10000);
  ok (out.n > 0 && out.a[0].kind == GA_SEND && sent (MSG_RENEWED), "L3: ... once");
  n_queue = 0;
  now += 100;
  renew (1, 0, 4, 0, 1000);
  ok (sent (MSG_RENEWED), "L1: a new run of its host may have a shorter one");
  n_queue = 0;
  now += 1000;
  memset (&m, 0, sizeof m);
  m.u.change = (struct change) { .kind = CH_APPOINT, .iasps = 1, .site = 0, .node = 2,
                                 .expect_node = 1, .expect_tenure = 4, .base = g.applied.stamp };
  peer (3, MSG_CHANGE);
  is (sent (MSG_PERSISTED) ? m.u.persisted.hold_ms[0] : 0, 9400, "L3: but that of before is what is waited for");
  is (m.u.persisted.longest_ms, 9400, "C7: ... and what the votes of before are kept for");
  is (group_hold_ms (&g), 9400, "L3: the next run has to hold for so long");

  /* The next run. */
  hold = group_hold_ms (&g);
  boot_hold_ms = hold;
  boot_as (2, true, 1);
  boot_hold_ms = 0;
  g.applied.rec[0].tenure = 4;
  is (lease_hold_ms (&g, 0), 9400, "L3: a run after a longer lease waits for it");
  g.now_ms += 9000;
  is (lease_hold_ms (&g, 0), 400, "L3: ... counted from its start");
  out.n = 0;
  group_persist (&g, &out);
  is (group_hold_ms (&g), 3150, "L3: and then no more is on disk than a lease of its own takes");
  g.now_ms += 400;
  is (lease_hold_ms (&g, 0), 0, "L3: and it is over");
}

/* Fig. 4: each unit has a lease, holds and a release of its own. */
static void
units (void)
{
  access_placement = true;
  boot_as (2, true, 1);
  commit_view ();
  n_queue = 0;
  tick (300);
  ok (sent (MSG_RENEW) && m.u.renew.unit == 1 && g.lease[0].tenure == 0 && g.lease[1].tenure == 1,
      "L1: the host of the second unit renews that one");
  n_queue = 0;
  now += 10000;
  renew (1, 1, 1, 0, 3000);
  ok (!sent (MSG_RENEWED), "L1: a host of one unit gets no lease of another");
  renew (1, 7, 1, 0, 3000);
  ok (!sent (MSG_RENEWED), "L1: nor of one that isn't there");
  renew (1, 0, 1, 0, 3000);
  ok (sent (MSG_RENEWED) && m.u.renew.unit == 0, "L1: but of its own");
  n_queue = 0;
  /* The second unit goes to node 1, in the same view; everybody says that
   * nothing is held. */
  persisted (1, g.applied.stamp, 0);
  ok (group_peer_const (&g, 1)->hold_known == 1, "L3: a hold is known of the units that it was said of");
  for (uint32_t id = 1; id <= 3; id++) {
    memset (&m, 0, sizeof m);
    m.u.persisted = (struct msg_persisted) { g.applied.stamp, 2, { 0, 0 } };
    peer (id, MSG_PERSISTED);
  }
  ok (group_peer_const (&g, 3)->hold_known == 3, "L3: ... of both");
  memset (&m, 0, sizeof m);
  m.u.change = (struct change) { .kind = CH_APPOINT, .iasps = 2, .site = 0, .node = 1,
                                 .expect_node = 2, .expect_tenure = 1, .base = g.applied.stamp };
  peer (3, MSG_CHANGE);
  ok (group_peer_const (&g, 3)->hold_known == 1 && group_peer_const (&g, 1)->hold_known == 1,
      "L3: an appointment voids what was said of its unit, and of no other");
  ok (sent (MSG_PERSISTED) && m.u.persisted.n_units == 2 && m.u.persisted.hold_ms[0] == 0,
      "L3: who answered the host that stays holds nothing back");
  ok (g.applied.rec[1].tenure == 2 && g.applied.rec[0].tenure == 1
        && state_unit_host (&g.applied, 0) == 1 && state_unit_host (&g.applied, 1) == 1,
      "one moves, the other stays");
  n_queue = 0;
  renew (2, 1, 1, 0, 3000);
  ok (!sent (MSG_RENEWED), "L3: the earlier host of that unit gets no answer");
  /* The first unit's release says nothing of the second's lease. */
  g.lease[1].cleared = 0;
  memset (&m, 0, sizeof m);
  m.u.released = (struct msg_released) { 0, 1 };
  peer (3, MSG_RELEASED);
  ok (g.lease[0].released == 1 && g.lease[1].released == 0, "L3: a release is of one unit");
  access_placement = false;
}

int
main (void)
{
  rounds ();
  holders ();
  commits ();
  without_state ();
  silence ();
  leases ();
  longer_leases ();
  units ();
  return tap_done ();
}
