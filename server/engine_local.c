/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The local engine's member side: one connection to the hub, kept up for
 * ever.  Owns the connection and the list of groups that the daemon wants to
 * be in.  Called and calling back on the main loop's thread only; never
 * blocks.  When the hub is gone, or silent for twice the token time, there is
 * no view in any group (`down`) until it is back (`up`, then new views).
 */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <qb/qbdefs.h>
#include <qb/qbloop.h>

#include "common/clock.h"
#include "common/util.h"
#include "server/engine.h"
#include "server/hub_frame.h"
#include "server/log.h"

struct local_group {
  char name[CRG_NAME_MAX + 1]; /* "" = free slot */
  bool joined;                 /* wanted; else only waits for LEFT */
  bool has_view;
  unsigned leaving;            /* LEAVEs whose LEFT has not come: until then
                                  what arrives belongs to the old membership */
};

struct engine_local {
  struct engine base;
  qb_loop_t *loop;
  char path[CRG_PATH_MAX + 1];
  unsigned token_ms;
  struct hub_stream stream; /* fd -1: not connected */
  bool welcomed;
  bool broken;              /* reported by a nested call; handled by the loop */
  char reason[CRG_REASON_MAX + 1];
  bool refused_logged;
  uint64_t heard_ms;
  unsigned retry_ms;
  qb_loop_timer_handle timer;
  struct local_group groups[ENGINE_MAX_GROUPS];
};

static int on_hub (int fd, int revents, void *opaque);
static void on_timer (void *opaque);

static void
arm (struct engine_local *e, unsigned ms)
{
  qb_loop_timer_add (e->loop, QB_LOOP_HIGH, ms * (uint64_t) QB_TIME_NS_IN_MSEC, e, on_timer,
                     &e->timer);
}

/* Only marks: the caller may be in the middle of a callback. */
static void
fail (struct engine_local *e, const char *reason)
{
  if (e->broken)
    return;
  e->broken = true;
  snprintf (e->reason, sizeof e->reason, "%s", reason);
}

static int
put (struct engine_local *e, const struct hub_frame *f)
{
  int r = hub_stream_put (&e->stream, f);

  if (r < 0)
    return r;
  r = hub_stream_flush (&e->stream);
  if (r < 0) {
    fail (e, strerror (-r));
    return -ENOTCONN;
  }
  qb_loop_poll_mod (e->loop, QB_LOOP_HIGH, e->stream.fd, r ? POLLIN | POLLOUT : POLLIN, e, on_hub);
  return 0;
}

static void
disconnect (struct engine_local *e)
{
  bool was_up = e->welcomed;

  qb_loop_poll_del (e->loop, e->stream.fd);
  hub_stream_close (&e->stream);
  e->welcomed = false;
  e->broken = false;
  for (unsigned i = 0; i < ENGINE_MAX_GROUPS; i++) {
    e->groups[i].has_view = false;
    e->groups[i].leaving = 0;
    if (!e->groups[i].joined)
      e->groups[i].name[0] = '\0';
  }
  if (was_up)
    e->base.cb.down (e->base.opaque, e->reason);
}

static void
try_connect (struct engine_local *e)
{
  struct sockaddr_un sa = { .sun_family = AF_UNIX };
  uint8_t token[4];
  struct hub_frame hello = { .type = HUB_HELLO, .node = e->base.node_id, .payload = token,
                             .len = sizeof token };
  int fd;

  memcpy (sa.sun_path, e->path, strlen (e->path) + 1);
  fd = socket (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0)
    return;
  if (connect (fd, (struct sockaddr *) &sa, sizeof sa) < 0
      || qb_loop_poll_add (e->loop, QB_LOOP_HIGH, fd, POLLIN, e, on_hub) < 0) {
    hub_stream_init (&e->stream, fd);
    hub_stream_close (&e->stream);
    return;
  }
  hub_stream_init (&e->stream, fd);
  e->heard_ms = clock_boottime_ms ();
  put_le32 (token, e->token_ms);
  put (e, &hello);
}

static void
on_timer (void *opaque)
{
  struct engine_local *e = opaque;

  if (e->stream.fd >= 0 && clock_boottime_ms () - e->heard_ms > 2 * e->token_ms) {
    /* Perhaps it is us who were stopped: look at what has arrived first. */
    on_hub (e->stream.fd, POLLIN, e);
    if (e->stream.fd >= 0 && clock_boottime_ms () - e->heard_ms > 2 * e->token_ms) {
      fail (e, "the hub is silent");
      disconnect (e);
    }
  }
  if (e->stream.fd >= 0 && e->broken)
    disconnect (e);
  if (e->stream.fd < 0) {
    try_connect (e);
    arm (e, e->retry_ms);
    e->retry_ms = MIN (2 * e->retry_ms, (unsigned) ENGINE_RETRY_MAX_MS);
  }
  else
    arm (e, MAX (e->token_ms / 4, 10u));
}

static struct local_group *
find_group (struct engine_local *e, const char *name)
{
  for (unsigned i = 0; i < ENGINE_MAX_GROUPS; i++)
    if (e->groups[i].name[0] && strcmp (e->groups[i].name, name) == 0)
      return &e->groups[i];
  return NULL;
}

static void
send_group_frame (struct engine_local *e, uint8_t type, const char *group)
{
  struct hub_frame f = { .type = type };

  snprintf (f.group, sizeof f.group, "%s", group);
  put (e, &f);
}

static void
on_view (struct engine_local *e, const struct hub_frame *f)
{
  struct local_group *g = find_group (e, f->group);
  uint32_t ids[HUB_MAX_MEMBERS];
  unsigned n = (unsigned) (f->len / 4);

  if (f->len % 4 != 0 || n == 0 || n > HUB_MAX_MEMBERS) {
    fail (e, "the hub sent a view that makes no sense");
    return;
  }
  if (g == NULL || !g->joined || g->leaving > 0)
    return;
  for (unsigned i = 0; i < n; i++)
    ids[i] = get_le32 (f->payload + 4 * i);
  g->has_view = true;
  /* One hub, so one component: nothing but the votes decides. */
  e->base.cb.view (e->base.opaque, f->group, f->view, ids, n, true);
}

static void
on_frame (struct engine_local *e, const struct hub_frame *f)
{
  struct hub_frame pong = { .type = HUB_PONG };
  struct local_group *g;

  switch (f->type) {
  case HUB_WELCOME:
    e->welcomed = true;
    e->refused_logged = false;
    e->retry_ms = ENGINE_RETRY_MIN_MS;
    e->base.cb.up (e->base.opaque);
    for (unsigned i = 0; i < ENGINE_MAX_GROUPS; i++)
      if (e->groups[i].name[0] && e->groups[i].joined)
        send_group_frame (e, HUB_JOIN, e->groups[i].name);
    return;
  case HUB_REFUSE:
    if (!e->refused_logged)
      log_error ("%s: the hub refuses this node: %.*s", e->path, (int) MIN (f->len, 200u),
                 (const char *) f->payload);
    e->refused_logged = true;
    fail (e, "the hub refuses this node");
    return;
  case HUB_PING:
    put (e, &pong);
    return;
  case HUB_LEFT:
    g = find_group (e, f->group);
    if (g && g->leaving > 0 && --g->leaving == 0 && !g->joined)
      g->name[0] = '\0';
    return;
  case HUB_VIEW:
    on_view (e, f);
    return;
  case HUB_DELIVER:
    g = find_group (e, f->group);
    if (g && g->joined && g->leaving == 0 && g->has_view)
      e->base.cb.deliver (e->base.opaque, f->group, f->node, f->payload, f->len);
    return;
  default:
    fail (e, "the hub sent a frame of an unknown type");
  }
}

static int
on_hub (int fd, int revents, void *opaque)
{
  struct engine_local *e = opaque;
  struct hub_frame f;
  int r;

  if (revents & POLLOUT) {
    r = hub_stream_flush (&e->stream);
    if (r < 0)
      fail (e, strerror (-r));
    else
      qb_loop_poll_mod (e->loop, QB_LOOP_HIGH, fd, r ? POLLIN | POLLOUT : POLLIN, e, on_hub);
  }
  if (!e->broken && (revents & (POLLIN | POLLHUP | POLLERR))) {
    r = hub_stream_fill (&e->stream);
    if (r == 0)
      fail (e, "the hub has closed the connection");
    else if (r < 0 && r != -EAGAIN)
      fail (e, strerror (-r));
    if (r > 0)
      e->heard_ms = clock_boottime_ms ();
    while (!e->broken && (r = hub_stream_next (&e->stream, &f)) != 0) {
      if (r < 0)
        fail (e, "the hub does not speak our protocol");
      else
        on_frame (e, &f);
    }
  }
  if (e->broken)
    disconnect (e);
  return 0;
}

static int
local_join (struct engine *base, const char *group)
{
  struct engine_local *e = container_of (base, struct engine_local, base);
  struct local_group *g = find_group (e, group);

  if (group[0] == '\0' || strlen (group) > CRG_NAME_MAX)
    return -EINVAL;
  for (unsigned i = 0; i < ENGINE_MAX_GROUPS && g == NULL; i++)
    if (e->groups[i].name[0] == '\0') {
      g = &e->groups[i];
      memset (g, 0, sizeof *g);
      snprintf (g->name, sizeof g->name, "%s", group);
    }
  if (g == NULL)
    return -ENOSPC;
  if (g->joined)
    return -EALREADY;
  g->joined = true;
  g->has_view = false;
  if (e->welcomed)
    send_group_frame (e, HUB_JOIN, group);
  return 0;
}

static int
local_leave (struct engine *base, const char *group)
{
  struct engine_local *e = container_of (base, struct engine_local, base);
  struct local_group *g = find_group (e, group);

  if (g == NULL || !g->joined)
    return -ENOENT;
  g->joined = false;
  g->has_view = false;
  if (e->welcomed) {
    g->leaving++;
    send_group_frame (e, HUB_LEAVE, group);
  }
  else
    g->name[0] = '\0';
  return 0;
}

static int
local_mcast (struct engine *base, const char *group, const uint8_t *buf, size_t len)
{
  struct engine_local *e = container_of (base, struct engine_local, base);
  struct local_group *g = find_group (e, group);
  struct hub_frame f = { .type = HUB_MCAST, .payload = buf, .len = len };

#ifdef CRG_TEST
  const char *full = getenv ("CRG_QUEUE_FULL"); /* as long as that file is there */

  if (full && access (full, F_OK) == 0)
    return -ENOBUFS;
#endif
  if (len > CRG_ENGINE_MSG_MAX)
    return -EMSGSIZE;
  if (!e->welcomed || e->broken || g == NULL || !g->joined || !g->has_view)
    return -ENOTCONN;
  snprintf (f.group, sizeof f.group, "%s", group);
  return put (e, &f);
}

/* A death closes the socket and is seen at once; a node that hangs after
 * HUB_PINGS_PER_TOKEN PINGs without an answer, one interval each, and one more
 * to notice. */
static unsigned
local_detection_ms (struct engine *base)
{
  struct engine_local *e = container_of (base, struct engine_local, base);

  return e->token_ms + e->token_ms / HUB_PINGS_PER_TOKEN + 2 * HUB_TICK_MS;
}

static void
local_destroy (struct engine *base)
{
  struct engine_local *e = container_of (base, struct engine_local, base);

  qb_loop_timer_del (e->loop, e->timer);
  if (e->stream.fd >= 0) {
    qb_loop_poll_del (e->loop, e->stream.fd);
    hub_stream_close (&e->stream);
  }
  free (e);
}

static const struct engine_ops local_ops = {
  .name = "local",
  .join = local_join,
  .leave = local_leave,
  .mcast = local_mcast,
  .detection_ms = local_detection_ms,
  .destroy = local_destroy,
};

struct engine *
engine_local_new (struct qb_loop *loop, const char *socket_path, uint32_t node_id,
                  unsigned token_ms, const struct engine_callbacks *cb, void *opaque)
{
  struct engine_local *e;

  if (strlen (socket_path) > CRG_SOCK_PATH_MAX || node_id == 0 || token_ms < HUB_TOKEN_MIN_MS
      || token_ms > HUB_TOKEN_MAX_MS) {
    errno = EINVAL;
    return NULL;
  }
  e = calloc (1, sizeof *e);
  if (e == NULL)
    return NULL;
  e->base = (struct engine){ .ops = &local_ops, .cb = *cb, .opaque = opaque, .node_id = node_id };
  e->loop = loop;
  e->token_ms = token_ms;
  snprintf (e->path, sizeof e->path, "%s", socket_path);
  hub_stream_init (&e->stream, -1);
  e->retry_ms = ENGINE_RETRY_MIN_MS;
  arm (e, 1);
  return &e->base;
}
