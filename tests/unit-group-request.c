/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Operators' requests at the group core: which answer each gets, and when, whatever happens meanwhile;
 * the switchover step by step (F6), and what a takeover by force says that it costs (R4).  A simulated
 * cluster of 2 + 2 nodes and a replicate comes up; each case then feeds a copy of one member's core.  n1
 * is production, n3 hosts the copies.
 */
#include "tests/group-member.h"

enum { FINE, ERROR, TIMEOUT = 3, UNAVAILABLE = 5, REFUSED = 7, NEEDS_FORCE = 8, NO_OBJECT = 10 };

static void
feed (struct group_event ev)
{
  ev.now_ms = g.now_ms;
  ev.wall_ms = g.wall_ms;
  group_step (&g, &ev, &out);
}

static void
tick (void)
{
  feed ((struct group_event){ .kind = GE_TICK });
}

static const struct group_action *
find (uint8_t kind)
{
  static const struct group_action none;

  for (unsigned i = 0; i < out.n; i++)
    if (out.a[i].kind == kind)
      return &out.a[i];
  return &none;
}

/* The message of that type that was sent, decoded, or NULL. */
static const struct msg *
sent (uint8_t type)
{
  static struct msg m;

  for (unsigned i = 0; i < out.n; i++)
    if (out.a[i].kind == GA_SEND && msg_decode (&m, out.bytes + out.a[i].off, out.a[i].len) == 0 && m.h.type == type)
      return &m;
  return NULL;
}

/* What comes from another member. */
static void
hear (unsigned n, struct msg *m, uint8_t type)
{
  static uint8_t buf[GROUP_BYTES_MAX];
  size_t len;

  m->h = (struct msg_header){ .type = type, .view = g.view, .sender = n + 1, .incarnation = peer (n)->incarnation,
                              .epoch = g.applied.stamp.epoch };
  memcpy (m->h.lineage, g.applied.lineage, CRG_ID_LEN);
  len = msg_encode (m, buf, sizeof buf);
  feed ((struct group_event){ .kind = GE_MSG, .from = n + 1, .buf = buf, .len = len });
}

static void
answers (const char *what, int code, const char *reason)
{
  const struct group_action *a = find (GA_REPLY);

  if (!ok (a->kind == GA_REPLY && a->code == code && strstr (a->reason, reason) != NULL, "%s: %d %s", what, code, reason))
    printf ("# %s %d %s\n", a->kind ? "got" : "no answer", a->code, a->reason);
}

static void
waits (const char *what)
{
  is (count (GA_REPLY), 0, what);
}

static struct group_event
request (uint8_t kind)
{
  return (struct group_event){ .kind = GE_REQUEST, .request = kind, .request_id = 77 };
}

static struct group_event
switchover (unsigned to, bool force)
{
  struct group_event ev = request (GR_SWITCHOVER);

  ev.node = to + 1;
  ev.forced = force;
  return ev;
}

static void
intake (void)
{
  struct group_event ev;

  g = base[N1];
  feed (request (0));
  feed (request (GR_REQUEST_END));
  feed (request (GR_NODE));
  ok (g.counters.illegal == base[N1].counters.illegal + 3 && count (GA_REPLY) == 0, "requests that are none");
  ev = request (GR_START);
  g.has_committed = false;
  feed (ev);
  answers ("nothing is committed", UNAVAILABLE, "has not joined");
  g = base[N1];
  g.has_state = false;
  feed (ev);
  answers ("no state", UNAVAILABLE, "has not joined");
  g = base[N1];
  feed ((struct group_event){ .kind = GE_DOWN });
  feed (ev);
  answers ("no engine", UNAVAILABLE, "gives no view");
  g = base[N1];
  g.phase = PHASE_ANSWERING;
  for (unsigned n = N2; n <= N5; n++)
    peer (n)->answered = false;
  feed (ev);
  answers ("no majority", UNAVAILABLE, "no majority is there");
  g = base[N1];
  ev = request (GR_MARK_FAILED);
  ev.node = 99;
  feed (ev);
  answers ("a stranger failed", NO_OBJECT, "no such node");
  feed (switchover (98, false));
  answers ("a switchover to a stranger", NO_OBJECT, "no such node");
  ev = switchover (N3, false);
  ev.iasp = 2;
  feed (ev);
  answers ("a switchover of what isn't there", NO_OBJECT, "no such resource");
  for (uint8_t kind = GR_UNBAR; kind <= GR_REATTACH; kind++) {
    ev = request (kind);
    ev.iasp = 2;
    ev.site = 1;
    feed (ev);
    answers ("a copy of what isn't there", NO_OBJECT, "no such resource");
    ev.iasp = 9;
    feed (ev);
    answers ("... whatever its number", NO_OBJECT, "no such resource");
    ev.iasp = 0;
    ev.site = 2;
    feed (ev);
    answers ("a copy at no site", NO_OBJECT, "no such site");
  }

  /* While the members agree on the state requests wait, but not without end, nor without number. */
  g = base[N1];
  g.phase = PHASE_COMMITTING;
  for (unsigned i = 0; i < GROUP_MAX_REQUESTS; i++) {
    ev = request (GR_END);
    ev.request_id = 100 + i;
    feed (ev);
    waits ("asked while the state is being agreed on: it waits");
  }
  feed (request (GR_END));
  answers ("one too many", ERROR, "too many requests");
  feed ((struct group_event){ .kind = GE_DOWN });
  is (count (GA_REPLY), GROUP_MAX_REQUESTS, "the view ends: each is answered");
  answers ("the view ends", UNAVAILABLE, "before the outcome was known");
}

/* What was asked for is so already, or can't be, or is proposed. */
static void
outcomes (void)
{
  struct group_event ev;
  struct copy_rec *copy = &g.committed.rec[0].copies[1];
  struct copy_rec *later = &g.applied.rec[0].copies[1];

#define ASK(what, kind_, code, reason, ...)                 \
  do {                                                      \
    g = base[N1];                                           \
    ev = request (kind_);                                   \
    ev.site = 1;                                            \
    ev.node = 4;                                            \
    __VA_ARGS__;                                            \
    *later = *copy;                                         \
    feed (ev);                                              \
    if ((code) < 0) {                                       \
      waits (what);                                         \
      ok (sent (MSG_CHANGE) != NULL, "... it is proposed"); \
    }                                                       \
    else                                                    \
      answers ((what), (code), (reason));                   \
  } while (0)
  ASK ("start, started", GR_START, FINE, "", (void) 0);
  ASK ("end", GR_END, -1, "", (void) 0);
  ASK ("delete, started", GR_DELETE, REFUSED, "end it first", (void) 0);
  ASK ("delete, deleted", GR_DELETE, FINE, "", g.committed.deleted = g.applied.deleted = true);
  ASK ("end, ended", GR_END, FINE, "", g.committed.started = g.applied.started = false);
  ASK ("mark failed", GR_MARK_FAILED, -1, "", peer (N4)->in_view = false);
  ASK ("mark failed, twice", GR_MARK_FAILED, FINE, "", g.committed.def.nodes[N4].marked_failed = true);
  ASK ("unbar, not barred", GR_UNBAR, FINE, "", (void) 0);
  ASK ("unbar", GR_UNBAR, -1, "", copy->barred = true);
  ASK ("suspend", GR_SUSPEND, -1, "", (void) 0);
  ASK ("suspend, suspended", GR_SUSPEND, FINE, "", copy->suspended = true, copy->in_set = false);
  ASK ("suspend, production", GR_SUSPEND, REFUSED, "production copy", ev.site = 0);
  ASK ("resume, not suspended", GR_RESUME, FINE, "", (void) 0);
  ASK ("resume", GR_RESUME, -1, "", copy->suspended = true, copy->in_set = false);
  ASK ("resume, detached", GR_RESUME, REFUSED, "reattach it", copy->detached = true, copy->in_set = false);
  ASK ("detach", GR_DETACH, -1, "", (void) 0);
  ASK ("detach, so detached", GR_DETACH, FINE, "", copy->detached = true, copy->in_set = false);
  ASK ("detach, otherwise detached", GR_DETACH, -1, "", copy->detached = true, copy->in_set = false,
       ev.mode = DETACHED_READ_ONLY);
  ASK ("reattach, attached", GR_REATTACH, FINE, "", (void) 0);
  ASK ("reattach", GR_REATTACH, -1, "", copy->detached = true, copy->in_set = false, copy->fork = FORK_BEHIND);
  ASK ("reattach, diverged", GR_REATTACH, NEEDS_FORCE, "is lost", copy->detached = true, copy->in_set = false,
       copy->fork = FORK_DIVERGED);
  ASK ("reattach, diverged, by force", GR_REATTACH, -1, "", copy->detached = true, copy->in_set = false,
       copy->fork = FORK_DIVERGED, ev.forced = true);
}

/* Until the hold is given. */
static void
begin_switch (unsigned unit)
{
  struct group_event ev = switchover (N3, false);

  ev.iasp = (uint8_t) unit;
  feed (ev);
  ok (count (GA_HOLD) > 0 && g.sw.phase == SWITCH_HOLDING, "F6: production is held");
}

static void
drain (void)
{
  for (uint8_t i = 0; i < 2; i++)
    feed ((struct group_event){ .kind = GE_DRAINED, .iasp = i, .ok = true });
}

static void
switching (void)
{
  struct group_event ev;
  const struct msg *m;
  uint64_t illegal;

  g = base[N1];
  ev = switchover (N3, false);
  ev.dry_run = true;
  feed (ev);
  answers ("dry run", FINE, "production would move to n3");
  ev.node = NO_NODE;
  feed (ev);
  answers ("dry run to anybody", FINE, "production would move to n2");
  for (unsigned n = N2; n <= N4; n++)
    peer (n)->announce.iasp[1].failed = true;
  feed (ev);
  answers ("dry run to nobody", REFUSED, "no node can take over");
  g = base[N1];
  feed (switchover (N1, false));
  answers ("to itself", REFUSED, "the production host already");
  ev = switchover (N4, false);
  ev.dry_run = true;
  feed (ev);
  answers ("to who doesn't host the copy", FINE, "production would move to n4");
  g.committed.started = g.applied.started = false;
  feed (switchover (N3, false));
  answers ("not started", REFUSED, "not started");

  g = base[N1];
  illegal = g.counters.illegal;
  drain ();
  is (g.counters.illegal, illegal + 2, "drained, and nothing was held");
  begin_switch (0);
  is (count (GA_HOLD), 2, "both IASPs");
  feed ((struct group_event){ .kind = GE_DRAINED, .iasp = 2, .ok = true });
  is (g.counters.illegal, illegal + 3, "drained, and isn't there");
  ev = switchover (N2, false);
  ev.request_id = 78;
  feed (ev);
  answers ("another meanwhile", REFUSED, "another switchover is under way");
  feed ((struct group_event){ .kind = GE_DRAINED, .iasp = 0, .ok = true });
  is (g.sw.phase, SWITCH_HOLDING, "one of two is drained: not yet");
  feed ((struct group_event){ .kind = GE_DRAINED, .iasp = 1, .ok = true });
  m = sent (MSG_CHANGE);
  ok (g.sw.phase == SWITCH_APPOINTING && m && m->u.change.kind == CH_APPOINT && m->u.change.graceful
        && m->u.change.node == 3 && m->u.change.present == 0x1f,
      "both: n3 is proposed");
  peer (N3)->announced = false;
  tick ();
  ok (sent (MSG_CHANGE) == NULL && g.sw.phase == SWITCH_APPOINTING, "it says nothing any more: nothing more is proposed");
  peer (N3)->announced = true;
  peer (N3)->announce.iasp[0].failed = true;
  tick ();
  is (g.sw.phase, SWITCH_APPOINTING, "it fails while it is proposed: the outcome is awaited");
  g.applied.stamp.version++;
  g.committed.stamp.version++;
  tick ();
  answers ("it failed, and another change was committed", ERROR, "failed to host");
  ok (count (GA_RESUME) == 2 && g.sw.phase == SWITCH_NONE, "... production goes on");

  g = base[N1];
  begin_switch (0);
  feed ((struct group_event){ .kind = GE_DRAINED, .iasp = 0, .ok = false });
  answers ("not drained", ERROR, "could not be drained");
  is (count (GA_RESUME), 2, "... production goes on");
  g = base[N1];
  begin_switch (0);
  feed ((struct group_event){ .kind = GE_DRAINED, .iasp = 0, .reason = "the copy is slow" });
  answers ("not drained", ERROR, "the copy is slow");

  g = base[N1];
  begin_switch (0);
  feed ((struct group_event){ .kind = GE_DRAINED, .iasp = 1, .ok = true });
  g.host[0].told_role = HOST_NONE;
  tick ();
  answers ("one whose store failed is let go meanwhile, and will not say that it is drained", ERROR, "before it was drained");
  ok (count (GA_RESUME) == 2 && g.sw.phase == SWITCH_NONE, "... production of the other goes on");

  /* What else may come. */
  g = base[N1];
  begin_switch (0);
  drain ();
  g.committed.stamp.epoch++;
  tick ();
  answers ("another epoch that names it still", ERROR, "production stays");
  g = base[N1];
  begin_switch (0);
  g.committed.started = false;
  tick ();
  answers ("ended meanwhile", ERROR, "ended meanwhile");
  for (unsigned to = N2; to <= N3; to++) {
    g = base[N1];
    begin_switch (0);
    drain ();
    for (unsigned i = 0; i < 2; i++) {
      g.committed.rec[i].tenure++;
      g.committed.rec[i].production_site = to == N2 ? 0 : 1;
      g.committed.rec[i].copies[to == N2 ? 0 : 1].host = to + 1;
    }
    g.applied = g.committed;
    tick ();
    if (to == N2)
      answers ("another took it", ERROR, "taken over by another node meanwhile");
    else {
      waits ("the target is appointed: it has to serve");
      is (g.sw.phase, SWITCH_WAITING, "... which is waited for");
      ev = switchover (N2, false);
      ev.request_id = 79;
      feed (ev);
      for (unsigned i = 0; i < 2; i++) {
        g.committed.rec[i].production_site = 0;
        g.committed.rec[i].copies[0].host = 2;
      }
      tick ();
      answers ("the target couldn't", ERROR, "went on elsewhere");
    }
  }
  g = base[N1];
  begin_switch (0);
  drain ();
  g.committed.def.nodes[N3].id = g.applied.def.nodes[N3].id = 9;
  g.applied.stamp.version++;
  g.committed.stamp.version++;
  tick ();
  answers ("the target was removed", ERROR, "the target is gone");
}

/* Asked for at another node, which tells the production host. */
static void
forwarded (void)
{
  static struct msg m;
  struct group_event ev;
  const struct msg *reply;

  g = base[N3];
  feed (switchover (N3, false));
  reply = sent (MSG_REQUEST);
  ok (reply && reply->u.request.request == GR_SWITCHOVER && reply->u.request.node == 3
        && reply->u.request.request_id == 77,
      "n3 asks production");
  tick ();
  ok (sent (MSG_REQUEST) == NULL, "... once");
  memset (&m, 0, sizeof m);
  m.u.request = (struct msg_request){ .request = GR_SWITCHOVER, .request_id = 77, .node = 4, .code = ERROR };
  hear (N1, &m, MSG_REPLY);
  waits ("an answer for another node");
  m.u.request.node = 3;
  m.u.request.request_id = 78;
  hear (N1, &m, MSG_REPLY);
  waits ("an answer to another request");
  m.u.request.request_id = 77;
  strcpy (m.u.request.reason, "no");
  hear (N1, &m, MSG_REPLY);
  answers ("the answer", ERROR, "no");
  hear (N1, &m, MSG_REPLY);
  waits ("the answer again");

  ev = request (GR_END);
  g.phase = PHASE_COMMITTING;
  feed (ev);
  hear (N1, &m, MSG_REPLY);
  waits ("the answer to a request of another kind, that has its number");

  /* Production says nothing. */
  g = base[N3];
  ev = switchover (N3, false);
  ev.wait_ms = 1000;
  feed (ev);
  g.now_ms += 999;
  tick ();
  waits ("no answer of production, for less than was asked for");
  g.now_ms++;
  tick ();
  answers ("... and for no longer", TIMEOUT, "not done yet");

  /* Its answer was lost with the view. */
  for (unsigned how = 0; how < 3; how++) {
    g = base[N3];
    ev = switchover (N3, false);
    if (how == 2)
      ev.node = NO_NODE;
    feed (ev);
    g.committed.stamp.epoch++;
    if (how == 0) {
      tick ();
      answers ("another epoch", ERROR, "the group changed meanwhile");
      continue;
    }
    for (unsigned i = 0; i < 2; i++) {
      g.committed.rec[i].tenure++;
      g.committed.rec[i].production_site = 1;
    }
    g.applied = g.committed;
    if (how == 2) {
      tick ();
      answers ("another epoch, to anybody", ERROR, "the group changed meanwhile");
      continue;
    }
    tick ();
    waits ("another epoch: appointed, and not open yet");
    for (unsigned i = 0; i < 2; i++) {
      g.host[i].open = true;
      g.host[i].told_role = HOST_PRODUCTION;
      g.host[i].told_tenure = g.committed.rec[i].tenure;
      peer (N3)->announce.iasp[i].opened = true;
      peer (N3)->announce.iasp[i].role = HOST_PRODUCTION;
      peer (N3)->announce.iasp[i].tenure = g.committed.rec[i].tenure;
    }
    tick ();
    answers ("... and open", FINE, "switched over");
  }
  g = base[N3];
  peer (N1)->announce.iasp[0].opened = false;
  ev = switchover (N3, false);
  ev.node = NO_NODE;
  feed (ev);
  answers ("production is down", UNAVAILABLE, "nothing to switch over");

  /* At production. */
  g = base[N1];
  memset (&m, 0, sizeof m);
  m.u.request = (struct msg_request){ .request = GR_SWITCHOVER, .request_id = 5, .node = 3, .dry_run = true };
  hear (N3, &m, MSG_REQUEST);
  reply = sent (MSG_REPLY);
  ok (reply && reply->u.request.code == FINE && reply->u.request.node == 3 && reply->u.request.request_id == 5
        && strstr (reply->u.request.reason, "would move to n3"),
      "production answers n3");
  m.u.request.request = GR_DELETE;
  hear (N3, &m, MSG_REQUEST);
  ok (sent (MSG_REPLY) == NULL, "nothing else is asked for so");
  m.u.request.request = GR_SWITCHOVER;
  m.u.request.iasp = 3;
  hear (N3, &m, MSG_REQUEST);
  ok (sent (MSG_REPLY) == NULL, "nor about what isn't there");
  m.u.request.iasp = 0;
  hear (N1, &m, MSG_REQUEST);
  ok (sent (MSG_REPLY) == NULL, "nor by itself");
  peer (N1)->announce.iasp[0].opened = false;
  g.host[0].open = false;
  hear (N3, &m, MSG_REQUEST);
  reply = sent (MSG_REPLY);
  ok (reply && reply->u.request.code == REFUSED && strstr (reply->u.request.reason, "not served now"), "it isn't open: refused");
  g = base[N1];
  g.synced = false;
  hear (N3, &m, MSG_REQUEST);
  reply = sent (MSG_REPLY);
  ok (reply && reply->u.request.code == REFUSED && strstr (reply->u.request.reason, "changing its members"),
      "the members change: refused");
  g.has_committed = false;
  hear (N3, &m, MSG_REQUEST);
  ok (sent (MSG_REPLY) == NULL, "nothing is committed: not heard");
  g = base[N4];
  hear (N3, &m, MSG_REQUEST);
  ok (sent (MSG_REPLY) == NULL, "who isn't production doesn't answer");
  g = base[N1];
  m.u.request.node = 99;
  hear (N3, &m, MSG_REQUEST);
  reply = sent (MSG_REPLY);
  ok (reply && strstr (reply->u.request.reason, "no such node"), "a stranger is no target");
  m.u.request.node = 3;
  m.u.request.dry_run = false;
  hear (N3, &m, MSG_REQUEST);
  is (g.sw.phase, SWITCH_HOLDING, "n3's switchover is under way");
  hear (N3, &m, MSG_REQUEST);
  ok (sent (MSG_REPLY) == NULL && g.sw.phase == SWITCH_HOLDING, "... asked for twice, it is one");
  feed ((struct group_event){ .kind = GE_DOWN });
  feed ((struct group_event){ .kind = GE_DRAINED, .ok = false });
  ok (count (GA_SEND) == 0 && count (GA_RESUME) == 2 && g.sw.phase == SWITCH_NONE, "... without a view nobody is told that it failed");
}

/* n1 is gone, and n3's copies aren't in the set. */
static void
without_production (unsigned left_s)
{
  g = base[N3];
  g.wall_ms = UINT64_C (1000000000000);
  peer (N1)->in_view = false;
  for (unsigned i = 0; i < 2; i++) {
    struct copy_rec *copy = &g.committed.rec[i].copies[1];

    copy->in_set = false;
    copy->left_ms = left_s ? g.wall_ms - 1000ull * left_s : 0;
    peer (N3)->announce.iasp[i].can_host = true;
    peer (N3)->announce.iasp[i].failed = false;
  }
  g.applied = g.committed;
}

/* A takeover by force, and what production said on the way. */
static void
overtaken (const struct msg *sent_by_n3)
{
  static struct group then;
  static const struct {
    bool opened, asked_again, gone, old_view, forced, applied;
    const char *what;
  } cases[] = {
    { .opened = true, .forced = true, .what = "production serves by now: the forced change is void" },
    { .opened = true, .asked_again = true, .forced = true, .what = "... also while all are asked again" },
    { .opened = true, .forced = false, .applied = true, .what = "... but not one that loses nothing" },
    { .opened = true, .gone = true, .forced = true, .applied = true, .what = "it said so, and left: done" },
    { .opened = true, .old_view = true, .forced = true, .applied = true, .what = "it said so in another view: done" },
    { .opened = false, .forced = true, .applied = true, .what = "it says that it doesn't serve: done" },
  };
  static struct msg change;

  then = g;
  change = *sent_by_n3;
  for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    struct peer *p = peer (N1);
    struct stamp before;

    g = then;
    p->in_view = !cases[i].gone;
    p->answered = true;
    p->announced = !cases[i].asked_again && !cases[i].old_view;
    p->told = !cases[i].old_view;
    for (unsigned k = 0; k < 2; k++) {
      p->announce.iasp[k].opened = cases[i].opened;
      p->announce.iasp[k].role = HOST_PRODUCTION;
      p->announce.iasp[k].tenure = g.committed.rec[k].tenure;
      g.committed.rec[k].copies[1].in_set |= !cases[i].forced;
    }
    g.applied = g.committed;
    change.u.change.forced = cases[i].forced;
    before = g.applied.stamp;
    hear (N3, &change, MSG_CHANGE);
    ok ((stamp_compare (before, g.applied.stamp) != 0) == cases[i].applied, "R4: %s", cases[i].what);
  }
  g = then;
}

static void
forcing (void)
{
  static const struct {
    unsigned s;
    const char *text;
  } ages[] = { { 12, "left the set 12 s ago" }, { 300, "left the set 5 min ago" }, { 3 * 3600, "left the set 3 h ago" },
               { 9 * 86400, "left the set 9 days ago" } };
  static struct group late;
  struct group_event ev;
  const struct msg *m;

  g = base[N1];
  feed (switchover (N3, true));
  answers ("force, and production is served", REFUSED, "without --force");
  for (unsigned i = 0; i < 4; i++) {
    without_production (ages[i].s);
    feed (switchover (N3, false));
    answers ("what it would cost", NEEDS_FORCE, ages[i].text);
  }
  ok (strstr (find (GA_REPLY)->reason, "--force takes over with it") != NULL, "... and how");
  without_production (60);
  g.committed.rec[1].copies[1].left_ms = g.wall_ms - 600000;
  g.applied = g.committed;
  ev = switchover (N3, true);
  ev.dry_run = true;
  feed (ev);
  answers ("a dry run of force: the oldest copy tells", FINE, "left the set 10 min ago");
  ok (strstr (find (GA_REPLY)->reason, "--force takes") == NULL
        && strstr (find (GA_REPLY)->reason, g.committed.def.iasps[1].name) != NULL,
      "... of the second IASP");
  without_production (60);
  g.committed.rec[0].copies[1].in_set = true;
  g.applied = g.committed;
  feed (switchover (N3, false));
  answers ("only the second is behind", NEEDS_FORCE, "left the set");
  ok (strstr (find (GA_REPLY)->reason, g.committed.def.iasps[1].name) != NULL, "... so that is told of");
  without_production (60);
  g.committed.rec[1].copies[1].in_set = true;
  g.applied = g.committed;
  feed (switchover (N3, false));
  ok (strstr (find (GA_REPLY)->reason, g.committed.def.iasps[0].name) != NULL, "only the first is behind");
  without_production (0);
  feed (switchover (N3, false));
  answers ("nobody knows since when", NEEDS_FORCE, "since it left is lost");
  without_production (60);
  g.wall_ms -= 3600000;
  feed (switchover (N3, false));
  answers ("a wall clock that went back", NEEDS_FORCE, "since it left is lost");
  without_production (60);
  for (unsigned i = 0; i < 2; i++) {
    g.committed.rec[i].copies[1].in_set = true;
    memset (g.committed.rec[i].copies[1].boot_id, 0, CRG_ID_LEN);
    g.committed.rec[i].copies[1].host = 4;
    peer (N3)->announce.iasp[i].store.restarted = true;
    peer (N2)->in_view = false;
  }
  g.applied = g.committed;
  feed (switchover (N3, false));
  answers ("in the set, and restarted (S2)", NEEDS_FORCE, "whose machine restarted");
  without_production (60);
  g.committed.n_past = 1;
  g.committed.past[0][0] = 77;
  for (unsigned i = 0; i < 2; i++) {
    g.committed.rec[i].copies[1].in_set = true;
    memset (peer (N3)->announce.iasp[i].store.lineage, 0, CRG_ID_LEN);
    peer (N3)->announce.iasp[i].store.lineage[0] = 77;
    peer (N3)->announce.iasp[i].opened = false;
  }
  g.committed.rec[0].past_generation[0] = 99;
  g.applied = g.committed;
  feed (switchover (N3, false));
  answers ("newer than a recovered group (C9)", NEEDS_FORCE, "does not agree with the recovered group");
  ok (strstr (find (GA_REPLY)->reason, g.committed.def.iasps[1].name) != NULL, "... the second is");

  without_production (60);
  peer (N3)->announce.iasp[1].store.unusable = true;
  feed (switchover (N3, true));
  answers ("force, to a copy that was never whole", REFUSED, "never filled");
  feed (switchover (N3, false));
  answers ("... not by force", UNAVAILABLE, "nothing to switch over; by force: ");
  without_production (60);
  peer (N2)->announced = false;
  g.commit_ms = g.asked_ms = g.now_ms;
  feed (switchover (N3, true));
  waits ("force, and not all have spoken: it waits");
  ok (sent (MSG_CHANGE) == NULL, "... nor is it proposed: one of them might lose nothing");
  late = g;
  g.now_ms += REQUEST_WAIT_MS - 1;
  tick ();
  waits ("... for as long as was asked for");
  g.now_ms++;
  tick ();
  answers ("... and not longer", TIMEOUT, "is given up");
  peer (N2)->announced = true;
  peer (N2)->announce.iasp[0].opened = false;
  peer (N2)->announce.iasp[0].failed = true;
  tick ();
  ok (sent (MSG_CHANGE) == NULL, "... then nothing is done, whatever is said later");
  g = late;
  peer (N2)->announced = true;
  peer (N2)->announce.iasp[0].opened = false;
  peer (N2)->announce.iasp[0].failed = true;
  tick ();
  m = sent (MSG_CHANGE);
  ok (m && m->u.change.kind == CH_APPOINT && m->u.change.forced && m->u.change.node == 3, "... then it is proposed");
  waits ("... and not answered before");
  overtaken (m);
  for (unsigned i = 0; i < 2; i++) {
    g.committed.rec[i].tenure++;
    g.committed.rec[i].production_site = 1;
  }
  g.applied = g.committed;
  tick ();
  answers ("it is done", FINE, "loss has risen");
  without_production (60);
  feed (switchover (N3, true));
  for (unsigned i = 0; i < 2; i++) {
    g.committed.rec[i].tenure++;
    g.committed.rec[i].copies[0].host = 2;
  }
  g.applied = g.committed;
  tick ();
  answers ("another was faster", REFUSED, "by another node meanwhile");

  /* S2: an operator accepts the restart of the named host, and another one takes over. */
  g = base[N3];
  peer (N1)->announce.iasp[0].opened = false;
  peer (N1)->announce.iasp[0].can_host = true;
  for (unsigned i = 0; i < 2; i++) {
    struct group_host_status *h = &peer (N1)->announce.iasp[i];

    h->opened = h->failed = false;
    h->can_host = h->probed = h->store.has_super = h->store.agrees_ids = h->store.restarted = true;
    h->tenure = g.committed.rec[i].tenure;
    h->store.tenure = h->tenure;
    h->store.generation = g.committed.rec[i].generation;
    memcpy (h->store.lineage, g.committed.lineage, CRG_ID_LEN);
    h->store.unusable = h->store.fork = false;
    memset (g.committed.rec[i].copies[0].boot_id, 9, CRG_ID_LEN);
  }
  g.applied = g.committed;
  feed (switchover (N1, true));
  waits ("the restart of the named host is accepted");
  m = sent (MSG_CHANGE);
  ok (m && m->u.change.kind == CH_RESTARTED && m->u.change.node == 1, "... as a change");
  for (unsigned i = 0; i < 2; i++) {
    g.committed.rec[i].copies[1].host = 3;
    g.committed.rec[i].production_site = 1;
    peer (N3)->announce.iasp[i] = (struct group_host_status){ .opened = true, .role = HOST_PRODUCTION,
                                                              .tenure = g.committed.rec[i].tenure };
  }
  g.applied = g.committed;
  tick ();
  answers ("... and another one serves: it is not said to be done", REFUSED, "production is served");
}

int
main (void)
{
  struct group_event ev;

  up (false, 0);
  intake ();
  outcomes ();
  switching ();
  forwarded ();
  forcing ();
  sim_destroy (&s);

  up (true, 0);
  g = base[N1];
  ev = switchover (N2, false);
  ev.dry_run = true;
  feed (ev);
  ok (find (GA_REPLY)->code == FINE && strstr (find (GA_REPLY)->reason, g.committed.def.iasps[0].name) != NULL,
      "ACCESS: a dry run names the resource: %s", find (GA_REPLY)->reason);
  begin_switch (0);
  is (count (GA_HOLD), 1, "ACCESS: only that one is held");
  feed ((struct group_event){ .kind = GE_DRAINED, .iasp = 1, .ok = true });
  is (g.counters.illegal, base[N1].counters.illegal + 1, "... the other one wasn't");
  feed ((struct group_event){ .kind = GE_DRAINED, .iasp = 0, .reason = "slow" });
  ok (count (GA_RESUME) == 1 && find (GA_RESUME)->iasp == 0, "... nor is it resumed");
  sim_destroy (&s);
  return tap_done ();
}
