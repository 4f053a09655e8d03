/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The local engine against a real hub process: one order for all, views,
 * deaths, a hub that dies and comes back, members that don't read or don't
 * answer, strangers.
 */
#include "config.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <qb/qbdefs.h>
#include <qb/qbloop.h>

#include "common/clock.h"
#include "common/util.h"
#include "server/engine.h"
#include "server/hub_frame.h"
#include "server/log.h"
#include "tests/tap.h"

/* Members and hub that get no processor for so long are rightly taken for dead, or take the hub for dead: longer
 * than what a busy machine lets a process wait.  What is timed here is bounded by it. */
#define TOKEN_MS 800
#define MAX_LOG 4096

struct node {
  struct engine *e;
  uint32_t id;
  bool up;
  unsigned ups, downs, views, messages;
  uint64_t view;
  uint32_t members[HUB_MAX_MEMBERS];
  unsigned n_members;
  /* What came, in order: a view's id, or a message's hash. */
  uint64_t log[MAX_LOG];
  unsigned n_log;
  bool began_with_view; /* what stands in log[0] */
  size_t last_len;
};

static qb_loop_t *loop;
static char dir[] = "/tmp/crg-unit-hub-XXXXXX";
static char path[128];
static pid_t hub;
static uint64_t seen_views[MAX_LOG];
static unsigned n_seen;
static bool repeated;
static bool starved; /* the loop came late by a good part of the token */

static uint64_t
hash (uint32_t from, const uint8_t *buf, size_t len)
{
  uint64_t h = 1469598103934665603u ^ from;

  for (size_t i = 0; i < len; i++)
    h = (h ^ buf[i]) * 1099511628211u;
  return h;
}

static void
on_view (void *opaque, const char *group, uint64_t view, const uint32_t *members, unsigned n,
         bool quorate)
{
  struct node *t = opaque;

  t->views++;
  t->view = view;
  t->n_members = n;
  memcpy (t->members, members, n * sizeof members[0]);
  if (t->n_log == 0)
    t->began_with_view = true;
  if (t->n_log < MAX_LOG)
    t->log[t->n_log++] = view;
  for (unsigned i = 1; i < n; i++)
    if (members[i - 1] >= members[i])
      repeated = true; /* not rising */
}

static void
on_deliver (void *opaque, const char *group, uint32_t from, const uint8_t *buf, size_t len)
{
  struct node *t = opaque;

  t->messages++;
  t->last_len = len;
  if (t->n_log == 0)
    t->began_with_view = false;
  if (t->n_log < MAX_LOG)
    t->log[t->n_log++] = hash (from, buf, len);
}

static void
on_down (void *opaque, const char *reason)
{
  struct node *t = opaque;

  t->up = false;
  t->n_members = 0;
  t->downs++;
}

static void
on_up (void *opaque)
{
  struct node *t = opaque;

  t->up = true;
  t->ups++;
}

static void
start_hub (void)
{
  hub = fork ();
  if (hub == 0) {
    /* A process of its own: libqb's signals belong to the first loop made. */
    prctl (PR_SET_PDEATHSIG, SIGKILL);
    execl ("/proc/self/exe", "unit-hub", "hub", path, NULL);
    _exit (127);
  }
}

static void
kill_hub (int sig)
{
  kill (hub, sig);
  waitpid (hub, NULL, 0);
}

static struct node *
start_node (uint32_t id)
{
  static const struct engine_callbacks cb = {
    .view = on_view, .deliver = on_deliver, .down = on_down, .up = on_up,
  };
  struct node *t = calloc (1, sizeof *t);

  t->id = id;
  t->e = engine_local_new (loop, path, id, TOKEN_MS, &cb, t);
  t->e->ops->join (t->e, "g");
  return t;
}

static void
stop_node (struct node *t)
{
  t->e->ops->destroy (t->e);
  free (t);
}

static void
on_stop (void *opaque)
{
  qb_loop_stop (loop);
}

static void
run_ms (unsigned ms)
{
  uint64_t t0 = clock_boottime_ms ();

  qb_loop_timer_add (loop, QB_LOOP_HIGH, ms * (uint64_t) QB_TIME_NS_IN_MSEC, NULL, on_stop, NULL);
  qb_loop_run (loop);
  starved = starved || clock_boottime_ms () - t0 > ms + TOKEN_MS / 4;
}

static bool
has_members (const struct node *t, unsigned n)
{
  return t->n_members == n && t->up;
}

/* Runs the loop until all of `nodes` have a view of `n`. */
static bool
wait_members (struct node **nodes, unsigned count, unsigned n, unsigned ms)
{
  uint64_t end = clock_boottime_ms () + ms;

  while (clock_boottime_ms () < end) {
    bool all = true;

    for (unsigned i = 0; i < count; i++)
      all = all && has_members (nodes[i], n) && nodes[i]->view == nodes[0]->view;
    if (all)
      return true;
    run_ms (10);
  }
  return false;
}

/* Runs the loop until `t` has another view than `before`, is down, or has got a message so long. */
enum sign { SIGN_VIEW, SIGN_DOWN, SIGN_LEN };
static bool
wait_sign (const struct node *t, enum sign sign, uint64_t before, unsigned ms)
{
  uint64_t end = clock_boottime_ms () + ms;

  for (;;) {
    if (sign == SIGN_VIEW ? t->up && t->n_members > 0 && t->view != before
        : sign == SIGN_DOWN ? !t->up : t->last_len == before)
      return true;
    if (clock_boottime_ms () >= end)
      return false;
    run_ms (10);
  }
}

static void
note_views (const struct node *t)
{
  for (unsigned i = 0; i < n_seen; i++)
    if (seen_views[i] == t->view)
      repeated = true;
  seen_views[n_seen++] = t->view;
}

static void
test_order (struct node **n)
{
  unsigned start[3];
  bool same = true, all;
  uint8_t buf[32];

  for (unsigned i = 0; i < 3; i++)
    start[i] = n[i]->n_log;
  for (unsigned k = 0; k < 300; k++) {
    for (unsigned i = 0; i < 3; i++) {
      int len = snprintf ((char *) buf, sizeof buf, "%u from %u", k, i);

      if (n[i]->e->ops->mcast (n[i]->e, "g", buf, (size_t) len) != 0)
        same = false;
    }
    if (k % 50 == 0)
      run_ms (1);
  }
  for (unsigned wait = 0; wait < 500; wait++) {
    run_ms (10);
    if (n[0]->n_log - start[0] >= 900 && n[1]->n_log - start[1] >= 900
        && n[2]->n_log - start[2] >= 900)
      break;
  }
  run_ms (50); /* nothing comes twice */
  all = n[0]->n_log - start[0] == 900;
  for (unsigned i = 1; i < 3; i++)
    same = same && n[i]->n_log - start[i] == 900
           && memcmp (n[i]->log + start[i], n[0]->log + start[0], 900 * sizeof n[0]->log[0]) == 0;
  ok (all, "all of 900 messages of three members are delivered, own ones included");
  ok (same, "in the same order everywhere");
}

static int
raw_connect (uint32_t id)
{
  struct sockaddr_un sa = { .sun_family = AF_UNIX };
  struct hub_stream s;
  struct hub_frame f = { .type = HUB_HELLO, .node = id };
  uint8_t token[4];
  int fd = socket (AF_UNIX, SOCK_STREAM, 0);

  strcpy (sa.sun_path, path);
  if (connect (fd, (struct sockaddr *) &sa, sizeof sa) < 0)
    return -1;
  if (id == 0)
    return fd;
  put_le32 (token, TOKEN_MS);
  f.payload = token;
  f.len = 4;
  hub_stream_init (&s, dup (fd));
  hub_stream_put (&s, &f);
  f = (struct hub_frame){ .type = HUB_JOIN, .group = "g" };
  hub_stream_put (&s, &f);
  hub_stream_flush (&s);
  hub_stream_close (&s);
  return fd;
}

int
main (int argc, char **argv)
{
  struct node *n[4];
  static uint8_t big[CRG_ENGINE_MSG_MAX + 1];
  uint64_t before, t0;
  unsigned messages, downs;
  int fd;

  signal (SIGPIPE, SIG_IGN);
  if (argc == 3)
    return hub_main (argv[2]);
  qb_log_init ("unit-hub", LOG_DAEMON, LOG_EMERG);
  qb_log_ctl (QB_LOG_SYSLOG, QB_LOG_CONF_ENABLED, QB_FALSE);
  if (!mkdtemp (dir))
    return 1;
  snprintf (path, sizeof path, "%s/hub", dir);
  loop = qb_loop_create ();
  memset (big, 7, CRG_ENGINE_MSG_MAX + 1);

  n[0] = start_node (3);
  run_ms (100);
  ok (!n[0]->up && n[0]->views == 0, "without a hub there is no view");
  ok (n[0]->e->ops->mcast (n[0]->e, "g", big, 1) == -ENOTCONN, "and nothing can be sent");
  start_hub ();
  n[1] = start_node (1);
  n[2] = start_node (2);
  ok (wait_members (n, 3, 3, 5000), "the members find a hub that starts later, and one view");
  ok (n[0]->members[0] == 1 && n[0]->members[1] == 2 && n[0]->members[2] == 3, "ids rise");
  note_views (n[0]);
  test_order (n);

  ok (n[0]->e->ops->mcast (n[0]->e, "g", big, CRG_ENGINE_MSG_MAX + 1) == -EMSGSIZE,
      "a message beyond the maximum is refused");
  n[0]->e->ops->mcast (n[0]->e, "g", big, CRG_ENGINE_MSG_MAX);
  ok (wait_sign (n[1], SIGN_LEN, CRG_ENGINE_MSG_MAX, 5000), "the largest one arrives");

  /* A joiner gets the view first, and no older message. */
  n[3] = start_node (4);
  for (unsigned i = 0; i < 20; i++)
    n[1]->e->ops->mcast (n[1]->e, "g", big, 10);
  ok (wait_members (n, 4, 4, 3000), "a fourth member comes");
  run_ms (50);
  ok (n[3]->began_with_view, "what it gets first is the view");
  note_views (n[0]);

  /* The same id twice. */
  {
    struct node *twin = start_node (4);

    run_ms (200);
    ok (!twin->up && n[3]->up && has_members (n[0], 4), "a second member of the same id is refused");
    stop_node (twin);
  }

  /* Leave and join again: nothing of before. */
  messages = n[3]->messages;
  n[1]->e->ops->mcast (n[1]->e, "g", big, 10);
  n[3]->e->ops->leave (n[3]->e, "g");
  n[3]->e->ops->join (n[3]->e, "g");
  before = n[3]->view;
  n[3]->n_log = 0;
  ok (wait_sign (n[3], SIGN_VIEW, before, 5000) && wait_members (n, 4, 4, 5000), "it leaves and joins again");
  run_ms (50);
  ok (n[3]->messages == messages && n[3]->view != before && n[3]->began_with_view,
      "and gets nothing of its old membership");
  note_views (n[0]);

  /* A death. */
  t0 = clock_boottime_ms ();
  stop_node (n[3]);
  ok (wait_members (n, 3, 3, 2000) && clock_boottime_ms () - t0 < TOKEN_MS,
      "a death is seen at once");
  note_views (n[0]);

  /* One that hangs: it joins and never answers. */
  fd = raw_connect (9);
  ok (wait_members (n, 3, 4, 2000), "a member that will hang joins");
  note_views (n[0]);
  t0 = clock_boottime_ms ();
  ok (wait_members (n, 3, 3, 4 * TOKEN_MS), "it is dropped when it doesn't answer");
  ok (clock_boottime_ms () - t0 >= TOKEN_MS / 2
        && clock_boottime_ms () - t0 <= n[0]->e->ops->detection_ms (n[0]->e) + TOKEN_MS,
      "after the detection time, not much later");
  close (fd);
  note_views (n[0]);

  /* One that answers nothing and is flooded. */
  fd = raw_connect (9);
  ok (wait_members (n, 3, 4, 2000), "a member that will not read joins");
  for (unsigned i = 0; i < 20; i++)
    n[0]->e->ops->mcast (n[0]->e, "g", big, CRG_ENGINE_MSG_MAX);
  ok (wait_members (n, 3, 3, 10000), "it is dropped when its queue is full");
  close (fd);
  note_views (n[0]);

  /* Strangers. */
  fd = raw_connect (0);
  ok (write (fd, "GET / HTTP/1.1\r\n\r\nxxxxxxxxxxxxxxxxxxxx", 38) == 38, "a stranger talks");
  run_ms (100);
  {
    uint8_t frame[HUB_HEADER_LEN] = { 0 };
    char c;

    ok (read (fd, &c, 1) == 0, "and is shown the door");
    close (fd);
    fd = raw_connect (0);
    put_le32 (frame, HUB_MAGIC);
    frame[4] = HUB_VERSION;
    frame[5] = HUB_MCAST;
    put_le32 (frame + 12, 0xffffffff);
    ok (write (fd, frame, sizeof frame) == sizeof frame, "a frame of 4 GiB is announced");
    run_ms (100);
    ok (read (fd, &c, 1) == 0, "and refused");
    close (fd);
  }
  ok (has_members (n[0], 3), "the members don't notice");

  /* The hub dies. */
  before = n[0]->view;
  downs = n[0]->downs;
  kill_hub (SIGKILL);
  ok (wait_sign (n[0], SIGN_DOWN, 0, 5000) && wait_sign (n[1], SIGN_DOWN, 0, 5000) && n[0]->downs == downs + 1,
      "the hub's death is told once");
  ok (n[0]->e->ops->mcast (n[0]->e, "g", big, 1) == -ENOTCONN, "nothing can be sent without a hub");
  start_hub ();
  messages = n[0]->views;
  ok (wait_members (n, 3, 3, 5000), "the members join its successor by themselves");
  is (n[0]->views - messages, 1, "all of them in its first view");
  note_views (n[0]);
  test_order (n);

  /* A hub that hangs. */
  downs = n[0]->downs;
  kill (hub, SIGSTOP);
  ok (wait_sign (n[0], SIGN_DOWN, 0, 3 * TOKEN_MS + 200) && wait_sign (n[1], SIGN_DOWN, 0, TOKEN_MS)
        && wait_sign (n[2], SIGN_DOWN, 0, TOKEN_MS) && n[0]->downs == downs + 1,
      "a hub that hangs counts as gone");
  kill (hub, SIGCONT);
  ok (wait_members (n, 3, 3, 5000), "and is found again");
  note_views (n[0]);

  ok (!repeated, "no view id came twice, and members were always in rising order");

  for (unsigned i = 0; i < 3; i++)
    stop_node (n[i]);
  kill (hub, SIGTERM);
  {
    int status = -1;

    waitpid (hub, &status, 0);
    ok (WIFEXITED (status) && WEXITSTATUS (status) == 0, "SIGTERM ends the hub well");
  }
  ok (access (path, F_OK) != 0, "and its socket is gone");
  {
    char lock[160];

    snprintf (lock, sizeof lock, "%s.lock", path);
    unlink (lock);
    rmdir (dir);
  }
  qb_loop_destroy (loop);
  log_close ();
  /* Members that got no processor for a part of the token were rightly dropped: see ./run-tests on 75. */
  return tap_done () == 0 ? 0 : starved ? 75 : 1;
}
