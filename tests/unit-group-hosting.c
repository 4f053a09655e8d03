/* SPDX-License-Identifier: BSD-3-Clause
 *
 * What the group core asks of its own node, and what it must not ask for: an opening of a copy (S1), message 6
 * (H6, H7), a fence (S1 d), a suspension (F3), and when nothing about an IASP is in flight (R3).  The plugin, the
 * next probe or another member would stop most of it, too; here it is the core alone.  A simulated cluster of 2 + 2
 * nodes and a replicate comes up; each case then changes a copy of one member's core.  n1 is production, n3 hosts
 * the copies, n4 could.
 */
#include "tests/group-member.h"

static void
feed (struct group_event ev)
{
  ev.now_ms = g.now_ms;
  ev.wall_ms = g.wall_ms;
  group_step (&g, &ev, &out);
}

static const struct group_action *
find (uint8_t kind)
{
  static const struct group_action none;

  for (unsigned i = 0; i < out.n; i++)
    if (out.a[i].kind == kind && out.a[i].iasp == 0)
      return &out.a[i];
  return &none;
}

/* The role of the first IASP that the core asks for on its next step. */
static unsigned
asked (void)
{
  feed ((struct group_event){ .kind = GE_TICK });
  return find (GA_HOST)->role;
}

/* Message 6 of the first IASP, on the next step. */
static bool
starts (void)
{
  static struct msg m;

  feed ((struct group_event){ .kind = GE_TICK });
  for (unsigned i = 0; i < out.n; i++)
    if (out.a[i].kind == GA_SEND && msg_decode (&m, out.bytes + out.a[i].off, out.a[i].len) == 0
        && m.h.type == MSG_MIRROR_START && m.u.mirror_start.iasp == 0)
      return true;
  return false;
}

/* Its first IASP is closed, and could be opened. */
static void
closed (unsigned n)
{
  struct hosting *h;

  g = base[n];
  h = &g.host[0];
  h->told_role = HOST_NONE;
  h->open = h->pending = h->failed = false;
  h->retry_ms = 0;
  h->probed = h->store.can_host = true;
  h->judged_tenure = state_unit_tenure (&g.committed, 0);
}

static void
openings (void)
{
  closed (N3);
  is (asked (), HOST_MIRROR, "a copy that this node is named for is opened");
  closed (N3);
  g.host[0].store.can_host = false;
  is (asked (), HOST_NONE, "S1: not while its store may get writes of another");
  closed (N4);
  is (asked (), HOST_NONE, "H4: nor by a node that is not named");
  closed (N1);
  is (asked (), HOST_PRODUCTION, "production, with a lease, is opened");
  closed (N1);
  g.host[0].judged_tenure--;
  is (asked (), HOST_NONE, "S1: not by what was seen before the old host had to have ended");
}

/* Production was appointed once more. */
static void
tenure_2 (void)
{
  for (unsigned i = 0; i < 2; i++)
    g.applied.rec[i].tenure = g.committed.rec[i].tenure = 2;
}

static void
adoption (void)
{
  closed (N1);
  tenure_2 ();
  g.lease[0].cleared = 0;
  for (unsigned n = 0; n < 5; n++)
    peer (n)->hold_known = 0;
  feed ((struct group_event){ .kind = GE_HOSTED, .ok = true, .role = HOST_PRODUCTION, .tenure = 2,
                              .store = base[N1].host[0].store });
  ok (g.host[0].open && g.lease[0].cleared == 2,
      "S3, F7: a plugin of an earlier run was opened when every earlier lease was over");

  /* That run died when it had stored the new site, and before it told the plugin to end. */
  closed (N1);
  tenure_2 ();
  feed ((struct group_event){ .kind = GE_HOSTED, .ok = true, .role = HOST_PRODUCTION, .tenure = 2,
                              .store = { .can_host = true, .has_super = true, .agrees_ids = true, .sites = 1 } });
  ok (find (GA_HOST)->kind == GA_HOST && find (GA_HOST)->role == HOST_NONE,
      "C7: one that knows of fewer sites than there are is ended");
}

/* n2 was production before, and its crgd has begun anew and asked for nothing yet. */
static void
release (void)
{
  g = base[N2];
  tenure_2 ();
  g.lease[0].releasing = 1;
  g.host[0].asked = false;
  feed ((struct group_event){ .kind = GE_TICK });
  ok (find (GA_HOST)->kind == GA_HOST && find (GA_HOST)->role == HOST_NONE,
      "S3, L3: a process of an earlier run, of which nobody told, has to be gone before released is said");
}

/* Message 6 of n1 to n3, not sent yet. */
static void
unstarted (void)
{
  g = base[N1];
  g.host[0].link[1].tenure = 0;
  g.host[0].link[1].sent = false;
}

static void
message_6 (void)
{
  struct copy_link *l = &g.host[0].link[1];
  struct copy_rec *c = &g.committed.rec[0].copies[1];

  unstarted ();
  ok (starts (), "message 6 is sent when both are open");
  unstarted ();
  peer (N3)->announce.iasp[0].opened = false;
  ok (!starts (), "H6: not before the copy's host has announced that it listens");
  unstarted ();
  peer (N1)->announce.iasp[0].opened = false;
  ok (!starts (), "H6: nor before production has announced that it is open");

#define SYNC(what, want, ...)                                          \
  do {                                                                 \
    g = base[N1];                                                      \
    l->told_node = NO_NODE;                                            \
    __VA_ARGS__;                                                       \
    feed ((struct group_event){ .kind = GE_TICK });                    \
    ok (find (GA_MIRROR_START)->kind == GA_MIRROR_START                \
          && find (GA_MIRROR_START)->sync == (want), "H7: " what);     \
  } while (0)
  SYNC ("a copy of the set lacks nothing", SYNC_NONE, (void) 0);
  SYNC ("one outside may lack anything", SYNC_FULL, c->in_set = false);
  SYNC ("so may one whose machine restarted", SYNC_FULL, peer (N3)->announce.iasp[0].store.restarted = true);
  SYNC ("and one that went its own way", SYNC_FULL, c->fork = FORK_DIVERGED);
}

static void
in_flight (void)
{
  g = base[N1];
  ok (host_settled (&g, 0), "nothing is in flight");
  g.enter_proposed = true;
  g.enter_view = g.view;
  g.enter_base = g.applied.stamp;
  ok (!host_settled (&g, 0), "R3: an entry that was proposed with the present stamp may still come");
  g.host[0].link[1].ready = true;
  feed ((struct group_event){ .kind = GE_TICK });
  ok (!g.host[0].link[1].ready, "R3: a wish that was granted is spent, whatever else is in flight");
  g.enter_base.version--;
  ok (host_settled (&g, 0), "R3: one with an earlier stamp is ignored by everybody");
}

/* n3 is gone, and its link with it. */
static void
gone (void)
{
  peer (N3)->in_view = peer (N3)->answered = false;
  peer (N3)->heard_ms = g.started_ms = 0;
  g.host[0].link[1].down = true;
}

static void
suspension (void)
{
  g = base[N1];
  gone ();
  peer (N4)->announce.iasp[0].can_host = true;
  feed ((struct group_event){ .kind = GE_TICK });
  ok (find (GA_UNMIRROR)->kind != GA_UNMIRROR, "F3: a copy that another of its site can take is not suspended");
  g = base[N1];
  gone ();
  peer (N4)->announce.iasp[0].can_host = false;
  feed ((struct group_event){ .kind = GE_TICK });
  ok (find (GA_UNMIRROR)->kind == GA_UNMIRROR && find (GA_UNMIRROR)->site == 1, "F3: one that nobody can take is, at once");
}

/* n4, the first of its site, can't open what n3 had open. */
static void
held (void)
{
  g = base[N4];
  g.cfg.can_fence = true;
  state_move_place (&g.committed, 0, N4, 2);
  g.host[0].probed = true;
  g.host[0].store.can_host = false;
  g.host[0].store.held_by = N3 + 1;
  peer (N4)->announce.iasp[0].can_host = false;
}

static void
fences (void)
{
  held ();
  gone ();
  feed ((struct group_event){ .kind = GE_TICK });
  ok (find (GA_FENCE)->kind == GA_FENCE && find (GA_FENCE)->node == N3 + 1, "S1 d: who is gone is cut off from its store");
  held ();
  gone ();
  g.committed.def.nodes[N5].site = 1;
  g.committed.def.nodes[N5].preferred_role = MEMBER_PEER;
  state_move_place (&g.committed, 0, N5, 0);
  feed ((struct group_event){ .kind = GE_TICK });
  is (find (GA_FENCE)->kind, GA_FENCE, "S1 d: one of the site before it that has no store would never do it");
  held ();
  peer (N3)->announce.iasp[0].opened = false;
  peer (N3)->announce.iasp[0].failed = true;
  feed ((struct group_event){ .kind = GE_TICK });
  ok (find (GA_FENCE)->kind != GA_FENCE, "S1 d: not a member that is there, if it failed to host");
}

/* n4 proposes on its next step that n3 is marked failed. */
static bool
marks_failed (const struct group_event ev)
{
  static struct msg m;

  feed (ev);
  for (unsigned i = 0; i < out.n; i++)
    if (out.a[i].kind == GA_SEND && msg_decode (&m, out.bytes + out.a[i].off, out.a[i].len) == 0
        && m.h.type == MSG_CHANGE && m.u.change.kind == CH_MARK_FAILED && m.u.change.node == N3 + 1)
      return !m.u.change.clear;
  return false;
}

/* n3 joins, and is gone again, while the hook that fences it runs, or after it has ended. */
static void
comes_and_goes (void)
{
  struct group_event view = { .kind = GE_VIEW, .view = 1001, .n_members = 5, .members = { 1, 2, 4, 5, 3 } };
  struct group was = g;

  feed (view);
  view.view++;
  view.n_members = 4;
  feed (view);
  was.fence = g.fence;
  memcpy (was.requests, g.requests, sizeof was.requests);
  g = was;
}

static void
void_fences (void)
{
  const struct group_event done = { .kind = GE_FENCED, .node = N3 + 1, .ok = true };

  held ();
  gone ();
  feed ((struct group_event){ .kind = GE_TICK });
  ok (marks_failed (done), "S1 d: who is fenced is marked failed");
  held ();
  gone ();
  feed ((struct group_event){ .kind = GE_TICK });
  comes_and_goes ();
  ok (!marks_failed (done), "S1 d: not if it was here since the fence began: it may have opened its store again");
  feed ((struct group_event){ .kind = GE_TICK });
  ok (find (GA_FENCE)->kind != GA_FENCE, "... nor fenced again at once");
  g.now_ms = g.fence.retry_ms;
  feed ((struct group_event){ .kind = GE_TICK });
  ok (find (GA_FENCE)->kind == GA_FENCE && find (GA_FENCE)->node == N3 + 1, "... after the time of one that failed");
  ok (marks_failed (done), "... and that one counts");
  comes_and_goes ();
  ok (!marks_failed ((struct group_event){ .kind = GE_TICK }), "S1 d: nor if it was here before that was committed");
  held ();
  gone ();
  ok (marks_failed ((struct group_event){ .kind = GE_REQUEST, .request = GR_MARK_FAILED, .request_id = 5,
                                          .node = N3 + 1 }),
      "S1 d: so is whom an operator calls dead");
  comes_and_goes ();
  ok (!marks_failed ((struct group_event){ .kind = GE_TICK }) && find (GA_REPLY)->kind == GA_REPLY
        && find (GA_REPLY)->code == 7,
      "... but not if it was here since, before that was committed");
}

/* The same in a view that n4, which fences n3, did not see. */
static void
missed_view (void)
{
  const struct group *n4 = s.node[N4].g;

  s.node[N4].g->fence.node = N3 + 1;
  sim_part (&s, (unsigned[SIM_NODES]){ 0, 0, 1, 0, 0 });
  sim_run (&s, 10000);
  ok (n4->fence.node == N3 + 1 && !n4->fence.is_void, "S1 d: a fence outlives a view without who is fenced");
  sim_part (&s, (unsigned[SIM_NODES]){ 0, 0, 0, 1, 0 });
  sim_run (&s, 10000);
  ok (!n4->fence.is_void, "... and one of this node alone");
  s.node[N4].g->requests[0] = (struct request){ .used = true, .request = GR_MARK_FAILED, .request_id = 5,
                                                .node = N3 + 1, .until_ms = UINT64_MAX };
  sim_part (&s, (unsigned[SIM_NODES]){ 0, 0, 1, 0, 0 });
  sim_run (&s, 10000);
  ok (n4->fence.is_void, "S1 d: the others may have had it among them meanwhile");
  ok (!n4->requests[0].used && !n4->committed.def.nodes[N3].marked_failed,
      "... so what an operator of this node said before counts no more");
  s.node[N4].g->fence.node = NO_NODE;
}

int
main (void)
{
  up (false, 0);
  openings ();
  adoption ();
  release ();
  message_6 ();
  in_flight ();
  suspension ();
  fences ();
  void_fences ();
  missed_view ();
  sim_destroy (&s);
  return tap_done ();
}
