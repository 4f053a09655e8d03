/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Words that the group core must not take for what they aren't: messages of other rounds, epochs, views,
 * lineages and members (C1, C2, C3, H5, C6, C9), views and events that can't be, and operators' changes
 * of the domain that another was faster with (C7).  A simulated cluster of 2 + 2 nodes and a replicate
 * comes up; each case then feeds a copy of one member's core.  n1 is production, n3 hosts the copies.
 */
#include "tests/group-member.h"

enum { FINE, TIMEOUT = 3, REFUSED = 7 };

static struct msg m;
static uint8_t buf[GROUP_BYTES_MAX];

static void
feed (struct group_event ev)
{
  if (ev.now_ms == 0)
    ev.now_ms = g.now_ms;
  group_step (&g, &ev, &out);
}

static const struct msg *
sent (uint8_t type)
{
  static struct msg r;

  for (unsigned i = 0; i < out.n; i++)
    if (out.a[i].kind == GA_SEND && msg_decode (&r, out.bytes + out.a[i].off, out.a[i].len) == 0 && r.h.type == type)
      return &r;
  return NULL;
}

/* `m` holds the body, and the header of member n, unless the case has changed it. */
static void
body (unsigned n, uint8_t type)
{
  memset (&m, 0, sizeof m);
  m.h = (struct msg_header){ .type = type, .view = g.view, .sender = n + 1, .epoch = g.applied.stamp.epoch,
                             .incarnation = peer (n)->incarnation };
  memcpy (m.h.lineage, g.applied.lineage, CRG_ID_LEN);
}

static void
say (void)
{
  size_t len = msg_encode (&m, buf, sizeof buf);

  feed ((struct group_event){ .kind = GE_MSG, .from = m.h.sender, .buf = buf, .len = len });
}

static void
views (void)
{
  struct group_event ev = { .kind = GE_VIEW, .view = 77, .members = { 1, 2, 3, 4, 5 }, .n_members = CRG_MAX_NODES + 1 };

  g = base[N1];
  feed (ev);
  ok (g.counters.illegal == base[N1].counters.illegal + 1 && g.view == base[N1].view, "a view of seventeen is none");
  ev.n_members = 5;
  ev.token_ms = 444;
  feed (ev);
  ok (g.view == 77 && g.cfg.token_ms == 444 && g.phase == PHASE_ANSWERING, "a view brings its token time");
  ev.members[0] = 6;
  ev.token_ms = 0;
  ev.view = 78;
  feed (ev);
  ok (g.phase == PHASE_NO_VIEW && g.cfg.token_ms == 444 && g.counters.illegal == base[N1].counters.illegal + 2,
      "a view without this node is no view");

  /* Strangers: they have no more room than there is, and give it back. */
  g = base[N1];
  ev = (struct group_event){ .kind = GE_VIEW, .view = 79, .members = { 1 }, .n_members = CRG_MAX_NODES };
  for (unsigned i = 1; i < CRG_MAX_NODES; i++)
    ev.members[i] = 100 + i;
  feed (ev);
  is (g.counters.illegal - base[N1].counters.illegal, 4, "fifteen strangers, and room for eleven beside the domain");
  group_peer (&g, 101)->granted_ms[0] = g.now_ms + 1000;
  for (unsigned i = 1; i < CRG_MAX_NODES; i++)
    ev.members[i] = 200 + i;
  ev.view = 80;
  feed (ev);
  ok (g.counters.illegal - base[N1].counters.illegal == 9 && group_peer (&g, 101) != NULL,
      "fifteen others take the places, but of one whom it answered (L3)");
  ok (group_peer (&g, NO_NODE) == NULL, "nobody has the number of nobody");
  for (unsigned i = 1; i < CRG_MAX_NODES; i++)
    ev.members[i] = 300 + i;
  ev.view = 81;
  ev.now_ms = g.now_ms + lease_guard_ms (g.cfg.lease_ms);
  group_step (&g, &ev, &out);
  ok (group_peer_const (&g, 101) == NULL, "... which it gives back when no lease can run by that answer");

  g = base[N1];
  g.left = true;
  feed ((struct group_event){ .kind = GE_TICK, .now_ms = g.now_ms + 60000 });
  ok (out.n == 0, "who has left does nothing more");
  ok (strstr (group_refusal (&g, 0, 2), "can't change anything") != NULL, "... nor can it change anything");
}

static void
dropped (const char *what)
{
  uint64_t before = g.counters.dropped;

  say ();
  is (g.counters.dropped, before + 1, what);
}

static void
foreign (void)
{
  static const uint8_t other[CRG_ID_LEN] = { 0xee };

  g = base[N1];
  body (N3, MSG_ALIVE);
  m.h.view++;
  dropped ("H5: of another view");
  body (N3, MSG_ALIVE);
  m.h.sender = 99;
  dropped ("H5: of a stranger");
  body (N3, MSG_ALIVE);
  peer (N3)->in_view = false;
  dropped ("H5: of who isn't in the view");
  peer (N3)->in_view = true;
  m.h.incarnation++;
  dropped ("H5: of another incarnation");
  body (N3, MSG_ALIVE);
  memcpy (m.h.lineage, other, CRG_ID_LEN);
  dropped ("C9: of another lineage");
  body (N3, MSG_ALIVE);
  g.committed.def.nodes[N3].expelled = m.h.incarnation;
  dropped ("C8: of who was expelled");
  g.committed.def.nodes[N3].expelled = 0;
  g.phase = PHASE_NO_VIEW;
  dropped ("without a view");
  g = base[N1];
  feed ((struct group_event){ .kind = GE_MSG, .from = 3 });
  is (g.counters.bad_messages, base[N1].counters.bad_messages + 1, "a message without bytes is none");
  body (N3, MSG_ALIVE);
  feed ((struct group_event){ .kind = GE_MSG, .from = 2, .buf = buf, .len = msg_encode (&m, buf, sizeof buf) });
  is (g.counters.bad_messages, base[N1].counters.bad_messages + 2, "nor one that says it is another's");

  /* C6, C9: who holds no state hears only of the lineage that the round began in. */
  g = base[N1];
  g.has_state = false;
  g.start_delivered = true;
  memcpy (g.start_lineage, g.applied.lineage, CRG_ID_LEN);
  body (N3, MSG_PROMISED);
  memcpy (m.h.lineage, other, CRG_ID_LEN);
  dropped ("C6: a promise of another lineage than START's");
  body (N3, MSG_PROMISED);
  memset (m.h.lineage, 0, CRG_ID_LEN);
  say ();
  body (N3, MSG_PROMISED);
  say ();
  is (g.counters.dropped, base[N1].counters.dropped + 1, "C6: but one of no lineage, and of START's, is heard");

  g = base[N1];
  body (N3, MSG_REPORT);
  say ();
  is (peer (N3)->report_len, 0, "an empty report takes back what was reported");
}

/* A round of which START was delivered, with epoch 50; nobody has promised. */
static void
round_began (unsigned at)
{
  struct group_event ev = { .kind = GE_VIEW, .view = 90, .members = { 1, 2, 3, 4, 5 }, .n_members = 5 };

  g = base[at];
  feed (ev);
  for (unsigned n = N1; n <= N5; n++) {
    peer (n)->incarnation = 1000 + n;
    body (n, MSG_ANSWER);
    m.u.answer = (struct msg_answer){ .round = 1, .has_state = true, .stamp = base[at].applied.stamp,
                                      .promised = base[at].promised, .start_wait_ms = 0 };
    say ();
  }
  body (N1, MSG_START);
  m.u.start = (struct msg_start){ .round = 1, .epoch = 50, .n = 3, .ids = { 1, 2, 3 } };
  say ();
}

static void
promise (unsigned n, uint32_t round, uint64_t epoch)
{
  body (n, MSG_PROMISED);
  m.u.promised = (struct msg_promised){ .round = round, .epoch = epoch, .stamp = base[n].applied.stamp };
  say ();
}

static void
rounds (void)
{
  static uint8_t state[STATE_ENCODED_MAX];
  static struct crg_state told;
  const struct msg *r;
  uint64_t bad;

  round_began (N3);
  r = sent (MSG_PROMISED);
  ok (g.phase == PHASE_PROMISING && g.promised == 50 && r && r->u.promised.epoch == 50 && out.a[0].kind == GA_PERSIST,
      "C2: START: it promises, on disk first");
  body (N2, MSG_START);
  m.u.start = (struct msg_start){ .round = 1, .epoch = 60 };
  say ();
  is (g.epoch, 50, "C2: the first START of a round counts");
  body (N2, MSG_ANSWER);
  m.u.answer = (struct msg_answer){ .round = 1, .promised = 99, .has_state = true };
  say ();
  ok (g.round == 1 && peer (N2)->answer.promised != 99, "C2: so does the first answer of a member");
  m.u.answer.round = 2;
  say ();
  is (g.round, 1, "C2: the answer of another round is none");

  /* H2: who has the highest stamp of a majority, else production. */
  promise (N1, 2, 50);
  promise (N1, 1, 49);
  ok (!peer (N1)->promised, "C2: a promise of another round, or epoch, is none");
  promise (N1, 1, 50);
  promise (N1, 1, 50);
  promise (N2, 1, 50);
  ok (!g.holder_fixed && sent (MSG_GROUP_STATE) == NULL, "C2: two are no majority, however often they say it");
  promise (N3, 1, 50);
  ok (g.holder_fixed && sent (MSG_GROUP_STATE) == NULL, "H2: among equals production tells the state, not n3");
  round_began (N1);
  g.promised = 51;
  for (unsigned n = N1; n <= N3; n++)
    promise (n, 1, 50);
  ok (g.holder_fixed && sent (MSG_GROUP_STATE) == NULL, "C1: who has promised a higher epoch tells none of this");

  /* Message 2. */
#define TELL(what, wrong, ...)                                                                      \
  do {                                                                                              \
    round_began (N3);                                                                               \
    promise (N1, 1, 50);                                                                            \
    told = base[N1].applied;                                                                        \
    told.stamp = (struct stamp){ 50, 0 };                                                           \
    body (N1, MSG_GROUP_STATE);                                                                     \
    m.u.group_state = (struct msg_group_state){ .round = 1, .epoch = 50, .bytes = state, .len = 0 }; \
    bad = g.counters.bad_messages;                                                                  \
    __VA_ARGS__;                                                                                    \
    if (m.u.group_state.len == 0)                                                                   \
      m.u.group_state.len = (uint32_t) state_encode (&told, state, sizeof state);                   \
    say ();                                                                                         \
    ok (g.gs_delivered == !(wrong) && g.counters.bad_messages - bad == ((wrong) == 2), "message 2: " what); \
  } while (0)
  TELL ("is taken", 0, (void) 0);
  r = sent (MSG_PERSISTED);
  ok (g.synced && r && r->u.persisted.stamp.epoch == 50 && count (GA_PERSIST) == 1, "... persisted, and said so");
  say ();
  ok (sent (MSG_PERSISTED) == NULL, "... once");
  TELL ("of another round", 1, m.u.group_state.round = 2);
  TELL ("of another epoch", 1, m.u.group_state.epoch = 49);
  TELL ("of who didn't promise", 1, peer (N1)->promised = false);
  TELL ("that is no state", 2, m.u.group_state.len = 3);
  TELL ("with another epoch in it", 2, told.stamp.epoch = 49);
  TELL ("with a version in it", 2, told.stamp.version = 1);
  TELL ("with another lineage in it", 2, told.lineage[0] ^= 1);
  TELL ("for one that has promised a higher epoch", 0, g.promised = 51);
  ok (!g.synced && sent (MSG_PERSISTED) == NULL, "C1: ... it persists nothing of it");
  for (unsigned n = N1; n <= N5; n++) {
    body (n, MSG_PERSISTED);
    m.u.persisted = (struct msg_persisted){ .stamp = { 50, 0 }, .n_units = 1 };
    say ();
  }
  ok (!g.gs_committed && g.phase == PHASE_COMMITTING, "C1: ... nor follows the others");
  body (N1, MSG_CHANGE);
  m.u.change = (struct change){ .kind = CH_END, .base = { 50, 0 } };
  say ();
  ok (g.applied.started, "C3: ... nor a change of theirs");

  /* START. */
  g = base[N3];
  feed ((struct group_event){ .kind = GE_VIEW, .view = 91, .members = { 1, 2, 3 }, .n_members = 3 });
  peer (N1)->incarnation = 1;
  body (N1, MSG_START);
  bad = g.counters.illegal;
  m.u.start = (struct msg_start){ .round = 1, .epoch = 0 };
  say ();
  m.u.start.epoch = UINT64_MAX;
  say ();
  ok (!g.start_delivered && g.counters.illegal == bad + 2, "C2: absurd epochs");
  g.promised = 1;
  m.u.start.epoch = g.applied.stamp.epoch;
  say ();
  ok (g.start_delivered && sent (MSG_PROMISED) == NULL, "C2: no promise of an epoch that its state has");

  /* The epoch of its own START is above all that it was told. */
  g = base[N1];
  feed ((struct group_event){ .kind = GE_VIEW, .view = 92, .members = { 1, 2, 3 }, .n_members = 3 });
  for (unsigned n = N1; n <= N3; n++) {
    peer (n)->incarnation = 1000 + n;
    body (n, MSG_ANSWER);
    m.u.answer = (struct msg_answer){ .round = 1, .has_state = true, .stamp = { 70 + n, 1 }, .promised = 5,
                                      .start_wait_ms = 0 };
    say ();
  }
  r = sent (MSG_START);
  ok (r && r->u.start.epoch == 73 && r->u.start.n == 3, "C2: START's epoch is above every stamp in an answer");
  g = base[N1];
  feed ((struct group_event){ .kind = GE_VIEW, .view = 93, .members = { 1, 2 }, .n_members = 2 });
  peer (N2)->incarnation = 1001;
  body (N2, MSG_ANSWER);
  m.u.answer = (struct msg_answer){ .round = 1, .has_state = true, .stamp = { 70, 1 }, .n_past = 2,
                                    .start_wait_ms = 0 };
  memcpy (m.u.answer.past[0], g.applied.lineage, CRG_ID_LEN);
  m.h.lineage[0] ^= 1;
  say ();
  ok (count (GA_LEAVE) == 1 && out.a[out.n - 1].role == LEAVE_LINEAGE && g.left, "C9: of this lineage another was recovered: it leaves");

  /* C3 */
  g = base[N3];
  body (N1, MSG_CHANGE);
  m.u.change = (struct change){ .kind = CH_START, .base = g.applied.stamp };
  say ();
  ok (g.applied.stamp.version == base[N3].applied.stamp.version && sent (MSG_PERSISTED) == NULL,
      "C3: a change that isn't valid is ignored");
  body (N1, MSG_PERSISTED);
  m.u.persisted = (struct msg_persisted){ .stamp = { g.epoch, g.applied.stamp.version + 1 }, .n_units = 1 };
  peer (N1)->hold_known = 0;
  say ();
  is (peer (N1)->hold_known, 0, "L3: what is persisted of a version to come says nothing of this one's hold");
}

static void
events (void)
{
  static const uint8_t text[] = "a=1";
  uint64_t illegal;
  struct group_event ev;

#define ILLEGAL(what, ...)                                                 \
  do {                                                                     \
    illegal = g.counters.illegal;                                          \
    feed ((struct group_event){ __VA_ARGS__ });                            \
    is (g.counters.illegal, illegal + 1, "it can't be: " what);            \
  } while (0)
  g = base[N1];
  ILLEGAL ("an event that is none", .kind = 99);
  ILLEGAL ("a ninth IASP", .kind = GE_PROBE, .iasp = CRG_MAX_IASPS);
  ILLEGAL ("a ninth site", .kind = GE_LINK, .site = CRG_MAX_SITES);
  ILLEGAL ("a role that is none", .kind = GE_HOSTED, .role = HOST_ROLE_END, .ok = true);
  ILLEGAL ("another role than it was told", .kind = GE_HOSTED, .role = HOST_MIRROR, .ok = true);
  ILLEGAL ("a probe that nobody asked for", .kind = GE_PROBE, .ok = true);
  ILLEGAL ("a fence that nobody asked for", .kind = GE_FENCED, .node = 3, .ok = true);
  g.fence.node = 3;
  ILLEGAL ("a fence of another node", .kind = GE_FENCED, .node = 2, .ok = true);
  ILLEGAL ("a configuration without bytes", .kind = GE_CONFIG, .len = 5);
  ILLEGAL ("a configuration that is too long", .kind = GE_CONFIG, .len = CRG_CONFIG_MAX + 1, .buf = text);
  g.fence.node = NO_NODE;
  g = base[N3];
  ILLEGAL ("a copy's word on its links", .kind = GE_LINK, .site = 0);

  g = base[N1];
  ev = (struct group_event){ .kind = GE_CONFIG, .buf = text, .len = 3 };
  feed (ev);
  is (g.host[0].config_mine, base[N1].host[0].config_mine + 1, "a configuration is a new version");
  feed (ev);
  is (g.host[0].config_mine, base[N1].host[0].config_mine + 1, "... the same again is not");
  ev.buf = (const uint8_t *) "a=2";
  feed (ev);
  ev.len = 0;
  feed (ev);
  ok (g.host[0].config_mine == base[N1].host[0].config_mine + 3 && g.host[0].n_config == 0, "... another is, and so is none");
  feed (ev);
  is (g.host[0].config_mine, base[N1].host[0].config_mine + 3, "... none again is not");

  /* What was taken back since. */
  g = base[N1];
  g.host[0].pending = true;
  feed ((struct group_event){ .kind = GE_HOSTED, .role = HOST_MIRROR, .ok = true });
  feed ((struct group_event){ .kind = GE_HOSTED, .role = HOST_PRODUCTION, .tenure = 99, .ok = true });
  ok (g.host[0].pending, "the answer to another role, or tenure, is not the one that is awaited");
  feed ((struct group_event){ .kind = GE_HOSTED, .role = HOST_PRODUCTION, .tenure = g.host[0].told_tenure, .ok = true,
                              .store = g.host[0].store });
  ok (!g.host[0].pending && g.host[0].open, "... this is");
  g = base[N1];
  g.host[0].told_role = HOST_NONE;
  g.host[0].open = false;
  feed ((struct group_event){ .kind = GE_HOSTED, .role = HOST_NONE, .ok = true });
  ok (g.counters.illegal == base[N1].counters.illegal && !g.host[0].open, "gone, and nothing was there");
}

/* R2, R3: what a plugin says of a copy that can't be so is void: nothing is proposed, and the record that says
 * so covers it. */
static void
copy_words (void)
{
  static const char *const names[] = { "outside the set", "in it", "without a host", "barred", "detached", "suspended",
                                       "production's own" };

  for (unsigned how = 0; how < 7; how++) {
    struct copy_rec *copy = &g.committed.rec[0].copies[how == 6 ? 0 : 1];
    struct group_event ev = { .kind = GE_COPY_READY, .site = how == 6 ? 0 : 1, .seq = 99 };
    const struct msg *r;
    uint64_t told = 0;

    g = base[N1];
    copy->in_set = how == 1;
    copy->host = how == 2 ? NO_NODE : copy->host;
    copy->barred = how == 3;
    copy->detached = how == 4;
    copy->suspended = how == 5;
    g.applied = g.committed;
    feed (ev);
    r = sent (MSG_CHANGE);
    for (unsigned i = 0; i < out.n; i++)
      if (out.a[i].kind == GA_RECORD && out.a[i].iasp == 0)
        told = out.a[i].seq;
    if (how == 0)
      ok (r && r->u.change.kind == CH_ENTER && r->u.change.site == 1 && told != 99, "R3: ready, and %s: it is to enter", names[how]);
    else
      ok ((!r || r->u.change.kind != CH_ENTER) && told == 99, "R3: ready, and %s: void", names[how]);
    if (how > 1 && how < 6)
      continue;
    g = base[N1];
    copy->in_set = how == 1 || how == 6;
    g.applied = g.committed;
    ev.kind = GE_COPY_LOST;
    feed (ev);
    r = sent (MSG_CHANGE);
    if (how == 1)
      ok (r && r->u.change.kind == CH_SHRINK && r->u.change.site == 1, "R2: lost, and %s: it has to leave", names[how]);
    else
      ok (!r || r->u.change.kind != CH_SHRINK, "R2: lost, and %s: void", names[how]);
  }

  /* Said again on a new connection, while the record that settled it is on its way there. */
  for (uint64_t seq = 98; seq <= 100; seq++) {
    g = base[N1];
    g.committed.rec[0].copies[1].in_set = false;
    g.applied = g.committed;
    g.host[0].seq_seen = g.host[0].seq_told = 99;
    feed ((struct group_event){ .kind = GE_COPY_READY, .site = 1, .seq = seq });
    ok ((sent (MSG_CHANGE) && sent (MSG_CHANGE)->u.change.kind == CH_ENTER) == (seq > 99),
        "R3: ready no %u, and what is settled goes to 99: %s", (unsigned) seq, seq > 99 ? "it is to enter" : "void");
  }

  /* An earlier crgd had granted it: told, spent, and taken back before the wish is heard here. */
  for (uint64_t generation = 5; generation <= 8; generation++) {
    g = base[N1];
    g.committed.rec[0].generation = 6;
    g.committed.rec[0].copies[1].in_set = true;
    g.applied = g.committed;
    feed ((struct group_event){ .kind = GE_TICK });
    g.committed.rec[0].generation = 7;
    g.committed.rec[0].copies[1].in_set = false;
    g.applied = g.committed;
    if (generation > 5) /* else production has not been told yet, for there was no room to say it */
      feed ((struct group_event){ .kind = GE_TICK });
    feed ((struct group_event){ .kind = GE_COPY_READY, .site = 1, .seq = 99, .generation = generation });
    ok ((sent (MSG_CHANGE) && sent (MSG_CHANGE)->u.change.kind == CH_ENTER) == (generation >= 7),
        "R3: ready of generation %u, and the copy left the set in 7: %s", (unsigned) generation,
        generation >= 7 ? "it is to enter" : "void");
    if (generation < 7)
      is ((long long) g.host[0].seq_told, 99, "... and production is told so");
  }

  g = base[N1];
  feed ((struct group_event){ .kind = GE_STORE_FAILED, .reason = "no disk" });
  ok (sent (MSG_CHANGE) && sent (MSG_CHANGE)->u.change.kind == CH_BAR, "F4: a failed store is to be barred");
  g = base[N1];
  g.committed.rec[0].copies[0].barred = g.applied.rec[0].copies[0].barred = true;
  feed ((struct group_event){ .kind = GE_STORE_FAILED, .reason = "no disk" });
  ok (!sent (MSG_CHANGE) || sent (MSG_CHANGE)->u.change.kind != CH_BAR, "F4: once");
}

/* F5, S1 d: who was marked failed and is back, and who was fenced. */
static void
failed_nodes (void)
{
  const struct msg *r;

  for (unsigned back = 0; back < 2; back++) {
    g = base[N1];
    g.committed.def.nodes[N4].marked_failed = true;
    g.applied = g.committed;
    peer (N4)->answered = back;
    feed ((struct group_event){ .kind = GE_TICK });
    r = sent (MSG_CHANGE);
    ok (back ? r && r->u.change.kind == CH_MARK_FAILED && r->u.change.clear && r->u.change.node == 4
             : !r || r->u.change.kind != CH_MARK_FAILED,
        "F5: marked failed, and %s", back ? "back: no more" : "not heard yet: still");
  }
  for (unsigned how = 0; how < 4; how++) {
    g = base[N1];
    g.fence.node = how == 1 ? 99 : 4;
    g.fence.done = true;
    g.committed.def.nodes[N4].marked_failed = how == 2;
    peer (N4)->in_view = how == 3;
    g.applied = g.committed;
    feed ((struct group_event){ .kind = GE_TICK });
    r = sent (MSG_CHANGE);
    if (how == 0)
      ok (r && r->u.change.kind == CH_MARK_FAILED && !r->u.change.clear && r->u.change.node == 4, "S1 d: fenced, and gone: failed");
    else
      ok (!r && g.fence.node == NO_NODE && !g.fence.done, "S1 d: fenced, and %s: nothing", how == 1 ? "no node" : how == 2
            ? "marked so already" : "back");
  }
}

/* C7: what the operator asked for is so, or is refused, when its turn comes. */
static void
domain (void)
{
  struct node_change nc = { .op = NODE_ADD, .site = "", .node = { .id = 9, .preferred_role = MEMBER_REPLICATE, .n_addresses = 1 } };
  struct group_event ev = { .kind = GE_REQUEST, .request = GR_NODE, .request_id = 7, .node_change = &nc };

#define NODE(what, want, ...)                                                                                      \
  do {                                                                                                             \
    g = base[N1];                                                                                                  \
    __VA_ARGS__;                                                                                                   \
    feed (ev);                                                                                                     \
    if ((want) < 0)                                                                                                \
      ok (count (GA_REPLY) == 0 && sent (MSG_CHANGE) != NULL && sent (MSG_CHANGE)->u.change.kind == CH_NODE, "%s: proposed", what); \
    else {                                                                                                         \
      int code_ = -1;                                                                                              \
      for (unsigned i = 0; i < out.n; i++)                                                                         \
        if (out.a[i].kind == GA_REPLY)                                                                             \
          code_ = out.a[i].code;                                                                                   \
      is (code_, (want), what);                                                                                    \
    }                                                                                                              \
  } while (0)
  strcpy (nc.node.name, "n9");
  strcpy (nc.node.addresses[0], "127.0.0.9");
  NODE ("add", -1, (void) 0);
  NODE ("add, refused", REFUSED, nc.node.n_addresses = 0);
  nc.node.n_addresses = 1;
  NODE ("add, and another has that number", REFUSED, nc.node.id = 5);
  strcpy (nc.node.name, g.committed.def.nodes[N5].name);
  NODE ("add, which is done", FINE, nc.node.votes = g.committed.def.nodes[N5].votes);
  NODE ("add, and it has no vote yet", -1, nc.node.votes = 3);
  NODE ("add, and its state is of another lineage", -1, peer (N5)->lineage[0] ^= 1, peer (N5)->persisted = true);
  g = base[N1];
  peer (N5)->lineage[0] ^= 1;
  peer (N5)->persisted = false;
  feed (ev);
  ok (count (GA_REPLY) == 0 && sent (MSG_CHANGE) == NULL, "C6: add, and it holds no state: its vote waits");
  feed ((struct group_event){ .kind = GE_TICK, .now_ms = g.now_ms + DOMAIN_JOIN_MS });
  ok (count (GA_REPLY) == 1, "... not without end");

  nc = (struct node_change){ .op = NODE_SET, .fields = NODE_SET_ADDRESSES, .node = { .id = 4, .n_addresses = 1 } };
  strcpy (nc.node.addresses[0], "127.0.0.77");
  NODE ("addresses", -1, (void) 0);
  NODE ("addresses, which it has", FINE, g.committed.def.nodes[N4].n_addresses = 1,
        memcpy (g.committed.def.nodes[N4].addresses, nc.node.addresses, sizeof nc.node.addresses));
  NODE ("addresses, of which it has two", -1, g.committed.def.nodes[N4].n_addresses = 2,
        memcpy (g.committed.def.nodes[N4].addresses, nc.node.addresses, sizeof nc.node.addresses));
  nc.node.id = 99;
  NODE ("addresses of a stranger", REFUSED, (void) 0);
  nc = (struct node_change){ .op = NODE_SET, .fields = NODE_SET_VOTES, .node = { .id = 4, .votes = 3 } };
  NODE ("more votes", -1, (void) 0);
  nc.node.id = 99;
  NODE ("more votes for a stranger", REFUSED, (void) 0);
}

int
main (void)
{
  up (false, 0);
  views ();
  foreign ();
  rounds ();
  events ();
  copy_words ();
  failed_nodes ();
  domain ();
  sim_destroy (&s);
  return tap_done ();
}
