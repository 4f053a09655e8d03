/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The hub of the local engine: one process that orders the messages and views
 * of all groups of the nodes on one machine.  It owns the listening socket,
 * one connection a node and the lists of who is in which group.  One thread,
 * one qb_loop; it never blocks on a member: one that doesn't read, or doesn't
 * answer PING for its token time, is dropped as dead.  It keeps nothing on
 * disk: when it dies there is no view anywhere until it is back, and its view
 * ids are never those of an earlier hub.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <qb/qbdefs.h>
#include <qb/qbloop.h>

#include "common/clock.h"
#include "common/ident.h"
#include "common/jsonl.h"
#include "common/util.h"
#include "server/engine.h"
#include "server/hub_frame.h"
#include "server/log.h"

struct member {
  struct hub_stream stream;
  uint32_t node; /* 0 until HELLO */
  unsigned token_ms;
  unsigned unanswered; /* PINGs since it was last heard */
  uint64_t next_ping_ms;
  uint64_t hello_by_ms; /* must have said HELLO */
  bool dead;
};

struct hub_group {
  char name[CRG_NAME_MAX + 1]; /* "" = free slot */
  uint64_t view;
  bool changed; /* a view is due */
  bool in[HUB_MAX_MEMBERS];
};

struct hub {
  qb_loop_t *loop;
  int listen_fd;
  struct member *members[HUB_MAX_MEMBERS];
  struct hub_group groups[HUB_MAX_GROUPS];
  uint64_t view_prefix;
  uint32_t view_count;
  uint64_t views_from_ms; /* no view before this */
};

static int on_member (int fd, int revents, void *opaque);
static struct hub the_hub;

/* View ids: 32 bits of wall clock seconds, 12 random bits, 20 bits of count.
 * A hub that has used up the count takes a new prefix, in a later second. */
static uint64_t
next_view (struct hub *h)
{
  if (h->view_count == 0 || h->view_count >= 1u << 20) {
    uint64_t prefix;

    do
      prefix = (clock_wall_ms () / 1000) << 12 | (clock_random_u64 () & 0xfff);
    while (prefix >> 12 <= h->view_prefix >> 12 && h->view_prefix != 0
           && usleep (100 * 1000) == 0);
    h->view_prefix = prefix;
    h->view_count = 1;
  }
  return h->view_prefix << 20 | h->view_count++;
}

static int
member_index (const struct hub *h, const struct member *m)
{
  for (unsigned i = 0; i < HUB_MAX_MEMBERS; i++)
    if (h->members[i] == m)
      return (int) i;
  abort ();
}

static void
watch (struct hub *h, struct member *m)
{
  int events = POLLIN | (m->stream.out_len > 0 ? POLLOUT : 0);

  qb_loop_poll_mod (h->loop, QB_LOOP_MED, m->stream.fd, events, m, on_member);
}

static void
mark_dead (struct member *m, const char *reason)
{
  if (m->dead)
    return;
  m->dead = true;
  if (m->node)
    log_notice ("node %u is gone: %s", m->node, reason);
  else
    log_info ("a connection was closed before its HELLO: %s", reason);
}

static void
put (struct hub *h, struct member *m, const struct hub_frame *f)
{
  int r;

  if (m->dead)
    return;
  r = hub_stream_put (&m->stream, f);
  if (r == 0)
    r = hub_stream_flush (&m->stream);
  if (r < 0)
    mark_dead (m, r == -ENOBUFS ? "it does not read its messages" : strerror (-r));
  else
    watch (h, m);
}

static int
compare_ids (const void *a, const void *b)
{
  uint32_t x = *(const uint32_t *) a, y = *(const uint32_t *) b;

  return x < y ? -1 : x > y;
}

static void
send_view (struct hub *h, struct hub_group *g)
{
  uint32_t ids[HUB_MAX_MEMBERS];
  uint8_t payload[HUB_MAX_MEMBERS * 4];
  struct hub_frame f = { .type = HUB_VIEW, .payload = payload };
  unsigned n = 0;

  g->changed = false;
  for (unsigned i = 0; i < HUB_MAX_MEMBERS; i++)
    if (g->in[i])
      ids[n++] = h->members[i]->node;
  if (n == 0) {
    g->name[0] = '\0';
    return;
  }
  qsort (ids, n, sizeof ids[0], compare_ids);
  for (unsigned i = 0; i < n; i++)
    put_le32 (payload + 4 * i, ids[i]);
  f.len = 4 * n;
  f.view = g->view = next_view (h);
  memcpy (f.group, g->name, sizeof f.group);
  log_info ("group %s: view %016llx with %u members", g->name, (unsigned long long) g->view, n);
  for (unsigned i = 0; i < HUB_MAX_MEMBERS; i++)
    if (g->in[i])
      put (h, h->members[i], &f);
}

/* True if there was one. */
static bool
send_due_views (struct hub *h)
{
  bool any = false;

  if (clock_boottime_ms () < h->views_from_ms)
    return false;
  for (unsigned k = 0; k < HUB_MAX_GROUPS; k++)
    if (h->groups[k].name[0] && h->groups[k].changed) {
      send_view (h, &h->groups[k]);
      any = true;
    }
  return any;
}

/* Buries the dead and sends the views that are due, until nothing changes:
 * sending a view can find another member dead. */
static void
settle (struct hub *h)
{
  bool again;

  do {
    again = false;
    for (unsigned i = 0; i < HUB_MAX_MEMBERS; i++) {
      struct member *m = h->members[i];

      if (m == NULL || !m->dead)
        continue;
      again = true;
      for (unsigned k = 0; k < HUB_MAX_GROUPS; k++)
        if (h->groups[k].in[i]) {
          h->groups[k].in[i] = false;
          h->groups[k].changed = true;
        }
      qb_loop_poll_del (h->loop, m->stream.fd);
      hub_stream_close (&m->stream);
      free (m);
      h->members[i] = NULL;
    }
    if (send_due_views (h))
      again = true;
  } while (again);
}

static struct hub_group *
find_group (struct hub *h, const char *name, bool create)
{
  struct hub_group *free_slot = NULL;

  for (unsigned k = 0; k < HUB_MAX_GROUPS; k++) {
    if (strcmp (h->groups[k].name, name) == 0)
      return &h->groups[k];
    if (h->groups[k].name[0] == '\0' && free_slot == NULL)
      free_slot = &h->groups[k];
  }
  if (!create || free_slot == NULL)
    return NULL;
  memset (free_slot, 0, sizeof *free_slot);
  snprintf (free_slot->name, sizeof free_slot->name, "%s", name);
  return free_slot;
}

static void
refuse (struct hub *h, struct member *m, const char *reason)
{
  struct hub_frame f = { .type = HUB_REFUSE, .payload = (const uint8_t *) reason,
                         .len = strlen (reason) };

  put (h, m, &f);
  mark_dead (m, reason);
}

static void
on_hello (struct hub *h, struct member *m, const struct hub_frame *f)
{
  struct hub_frame welcome = { .type = HUB_WELCOME };

  if (m->node != 0 || f->node == 0 || f->len != 4) {
    refuse (h, m, "a HELLO that makes no sense");
    return;
  }
  for (unsigned i = 0; i < HUB_MAX_MEMBERS; i++)
    if (h->members[i] && !h->members[i]->dead && h->members[i]->node == f->node) {
      char reason[CRG_REASON_MAX + 1];

      snprintf (reason, sizeof reason,
                "node id %u is connected already: is another crgd running with this id?", f->node);
      refuse (h, m, reason);
      return;
    }
  m->node = f->node;
  m->token_ms = get_le32 (f->payload);
  if (m->token_ms < HUB_TOKEN_MIN_MS)
    m->token_ms = HUB_TOKEN_MIN_MS;
  if (m->token_ms > HUB_TOKEN_MAX_MS)
    m->token_ms = HUB_TOKEN_MAX_MS;
  m->next_ping_ms = clock_boottime_ms () + m->token_ms / HUB_PINGS_PER_TOKEN;
  welcome.node = m->node;
  put (h, m, &welcome);
  log_notice ("node %u is connected", m->node);
}

static void
on_frame (struct hub *h, struct member *m, const struct hub_frame *f)
{
  int index = member_index (h, m);
  struct hub_group *g;
  struct hub_frame answer;

  if (m->node == 0 && f->type != HUB_HELLO) {
    mark_dead (m, "it did not say HELLO first");
    return;
  }
  switch (f->type) {
  case HUB_HELLO:
    on_hello (h, m, f);
    return;
  case HUB_PONG:
    return;
  case HUB_JOIN:
    g = f->group[0] ? find_group (h, f->group, true) : NULL;
    if (g == NULL) {
      refuse (h, m, "the hub has no room for another group");
      return;
    }
    if (!g->in[index]) {
      g->in[index] = true;
      g->changed = true;
    }
    return;
  case HUB_LEAVE:
    g = find_group (h, f->group, false);
    if (g && f->group[0] && g->in[index]) {
      g->in[index] = false;
      g->changed = true;
    }
    answer = (struct hub_frame){ .type = HUB_LEFT };
    memcpy (answer.group, f->group, sizeof answer.group);
    put (h, m, &answer);
    return;
  case HUB_MCAST:
    g = f->group[0] ? find_group (h, f->group, false) : NULL;
    if (g == NULL || !g->in[index] || g->view == 0)
      return; /* it left, or is about to hear that it was dropped */
    answer = *f;
    answer.type = HUB_DELIVER;
    answer.node = m->node;
    answer.view = g->view;
    for (unsigned i = 0; i < HUB_MAX_MEMBERS; i++)
      if (g->in[i])
        put (h, h->members[i], &answer);
    return;
  default:
    mark_dead (m, "it sent a frame that only the hub sends");
  }
}

static int
on_member (int fd, int revents, void *opaque)
{
  struct hub *h = &the_hub;
  struct member *m = opaque;
  struct hub_frame f;
  int r;

  if (revents & POLLOUT) {
    r = hub_stream_flush (&m->stream);
    if (r < 0)
      mark_dead (m, strerror (-r));
    else
      watch (h, m);
  }
  if (!m->dead && (revents & (POLLIN | POLLHUP | POLLERR))) {
    r = hub_stream_fill (&m->stream);
    if (r == 0)
      mark_dead (m, "its connection was closed");
    else if (r < 0 && r != -EAGAIN)
      mark_dead (m, strerror (-r));
    m->unanswered = 0;
    while (!m->dead && (r = hub_stream_next (&m->stream, &f)) != 0) {
      if (r < 0)
        mark_dead (m, "it does not speak the hub's protocol");
      else {
        on_frame (h, m, &f);
        /* A view is ordered before the next message, of this member too. */
        if (!m->dead)
          send_due_views (h);
      }
    }
  }
  settle (h);
  return 0;
}

static int
on_accept (int fd, int revents, void *opaque)
{
  struct hub *h = opaque;
  int conn = jsonl_accept (fd);
  struct member *m;
  uid_t uid = (uid_t) -1;
  gid_t gid;
  pid_t pid;

  if (conn < 0)
    return 0;
  if (jsonl_peer (conn, &pid, &uid, &gid) != 0 || (uid != 0 && uid != geteuid ())) {
    log_warning ("refused a connection of user %u: only the hub's own user may join", uid);
    close (conn);
    return 0;
  }
  for (unsigned i = 0; i < HUB_MAX_MEMBERS; i++)
    if (h->members[i] == NULL) {
      m = calloc (1, sizeof *m);
      if (m == NULL)
        break;
      hub_stream_init (&m->stream, conn);
      m->hello_by_ms = clock_boottime_ms () + HUB_HELLO_MS;
      if (qb_loop_poll_add (h->loop, QB_LOOP_MED, conn, POLLIN, m, on_member) < 0) {
        free (m);
        break;
      }
      h->members[i] = m;
      return 0;
    }
  log_warning ("refused a connection: no room for more than %d", HUB_MAX_MEMBERS);
  close (conn);
  return 0;
}

static void
on_tick (void *opaque)
{
  struct hub *h = opaque;
  struct hub_frame ping = { .type = HUB_PING };
  uint64_t now = clock_boottime_ms ();

  for (unsigned i = 0; i < HUB_MAX_MEMBERS; i++) {
    struct member *m = h->members[i];

    if (m == NULL || m->dead)
      continue;
    if (m->node == 0) {
      if (now >= m->hello_by_ms)
        mark_dead (m, "it said nothing");
      continue;
    }
    if (now < m->next_ping_ms)
      continue;
    /* Silence is counted in PINGs, not read off a clock, so that a hub that
     * was stopped itself doesn't take everybody for dead. */
    if (m->unanswered >= HUB_PINGS_PER_TOKEN) {
      mark_dead (m, "it does not answer");
      continue;
    }
    m->unanswered++;
    m->next_ping_ms = now + m->token_ms / HUB_PINGS_PER_TOKEN;
    put (h, m, &ping);
  }
  settle (h);
  qb_loop_timer_add (h->loop, QB_LOOP_HIGH, HUB_TICK_MS * QB_TIME_NS_IN_MSEC, h, on_tick, NULL);
}

static int
on_signal (int sig, void *opaque)
{
  struct hub *h = opaque;

  qb_loop_stop (h->loop);
  return 0;
}

/* Exit code of the process: 0 after SIGTERM, 1 if it can't serve. */
int
hub_main (const char *socket_path)
{
  struct hub *h = &the_hub;
  char lock_path[CRG_PATH_MAX + 1];
  int lock_fd;

  if (strlen (socket_path) > CRG_SOCK_PATH_MAX) {
    log_error ("%s: a socket's path has at most %d bytes", socket_path, CRG_SOCK_PATH_MAX);
    return 1;
  }
  snprintf (lock_path, sizeof lock_path, "%s.lock", socket_path);
  lock_fd = open (lock_path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (lock_fd < 0) {
    log_error ("%s: %s: does its directory exist?", lock_path, strerror (errno));
    return 1;
  }
  if (flock (lock_fd, LOCK_EX | LOCK_NB) < 0) {
    log_error ("%s: another hub serves this socket", socket_path);
    close (lock_fd);
    return 1;
  }
  h->loop = qb_loop_create ();
  h->listen_fd = jsonl_listen (socket_path, 0600);
  if (h->loop == NULL || h->listen_fd < 0) {
    log_error ("%s: %s", socket_path, h->loop ? strerror (-h->listen_fd) : "no event loop");
    close (lock_fd);
    return 1;
  }
  qb_loop_poll_add (h->loop, QB_LOOP_MED, h->listen_fd, POLLIN, h, on_accept);
  qb_loop_signal_add (h->loop, QB_LOOP_HIGH, SIGTERM, h, on_signal, NULL);
  qb_loop_signal_add (h->loop, QB_LOOP_HIGH, SIGINT, h, on_signal, NULL);
  qb_loop_timer_add (h->loop, QB_LOOP_HIGH, HUB_TICK_MS * QB_TIME_NS_IN_MSEC, h, on_tick, NULL);
  h->views_from_ms = clock_boottime_ms () + HUB_SETTLE_MS;
  log_notice ("hub ready on %s", socket_path);
  qb_loop_run (h->loop);

  unlink (socket_path);
  qb_loop_poll_del (h->loop, h->listen_fd);
  close (h->listen_fd);
  for (unsigned i = 0; i < HUB_MAX_MEMBERS; i++)
    if (h->members[i]) {
      qb_loop_poll_del (h->loop, h->members[i]->stream.fd);
      hub_stream_close (&h->members[i]->stream);
      free (h->members[i]);
    }
  qb_loop_destroy (h->loop);
  close (lock_fd);
  log_notice ("hub on %s ended", socket_path);
  return 0;
}
