/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The control client of pluginctl.h.  Owns the connection, its buffers and
 * the table of calls; must survive being closed from any of its callbacks.
 */
#include "config.h"

#include "server/pluginctl.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <qb/qbdefs.h>
#include <qb/qbloop.h>

#include "common/clock.h"
#include "common/jsonl.h"
#include "server/log.h"

struct call {
  uint64_t id; /* 0 = free */
  uint64_t deadline_ms;
  pluginctl_answer_fn *fn;
  void *opaque;
};

struct pluginctl {
  qb_loop_t *loop;
  int fd;
  struct jsonl_reader in;
  struct jsonl_writer out;
  struct pluginctl_callbacks cb;
  void *opaque;
  uint64_t next_id;
  struct call calls[PLUGIN_MAX_CALLS];
  qb_loop_timer_handle timer;
  const char *broken;   /* reason; handled by the loop, not by the caller */
  unsigned depth;       /* callbacks running */
  bool closed;          /* by the owner: free when depth is 0 */
};

static int on_socket (int fd, int revents, void *opaque);

static void
release (struct pluginctl *p)
{
  if (p->fd >= 0) {
    qb_loop_poll_del (p->loop, p->fd);
    close (p->fd);
    p->fd = -1;
  }
  qb_loop_timer_del (p->loop, p->timer);
  jsonl_reader_free (&p->in);
  jsonl_writer_free (&p->out);
  free (p);
}

bool
pluginctl_is_broken (const struct pluginctl *p)
{
  return p->broken != NULL;
}

void
pluginctl_close (struct pluginctl *p)
{
  if (p == NULL)
    return;
  p->closed = true;
  if (p->depth == 0)
    release (p);
}

/* Returns false if the object is gone. */
static bool
leave (struct pluginctl *p)
{
  if (--p->depth == 0 && p->closed) {
    release (p);
    return false;
  }
  return true;
}

static void
answer (struct pluginctl *p, struct call *c, json_t *obj, const char *reason)
{
  struct call copy = *c;

  memset (c, 0, sizeof *c);
  if (copy.fn && !p->closed)
    copy.fn (copy.opaque, obj, reason);
}

static void
lost (struct pluginctl *p, const char *reason)
{
  p->depth++;
  /* Also those that are made of an answer, in a place that was passed. */
  for (unsigned i = 0, most = 4 * PLUGIN_MAX_CALLS; i < PLUGIN_MAX_CALLS && most > 0; i++)
    if (p->calls[i].id) {
      answer (p, &p->calls[i], NULL, reason);
      i = UINT_MAX;
      most--;
    }
  if (!p->closed)
    p->cb.closed (p->opaque, reason);
  p->closed = true;
  leave (p);
}

static void
flush (struct pluginctl *p)
{
  int r = jsonl_writer_flush (&p->out, p->fd);

  if (r < 0)
    p->broken = "the control connection broke";
  else
    qb_loop_poll_mod (p->loop, QB_LOOP_MED, p->fd, r ? POLLIN | POLLOUT : POLLIN, p, on_socket);
}

static void
on_object (struct pluginctl *p, json_t *obj)
{
  const char *event = json_string_value (json_object_get (obj, "event"));
  json_int_t id = json_integer_value (json_object_get (obj, "id"));

  if (event) {
    p->cb.event (p->opaque, event, obj);
    return;
  }
  for (unsigned i = 0; i < PLUGIN_MAX_CALLS && id > 0; i++)
    if (p->calls[i].id == (uint64_t) id) {
      answer (p, &p->calls[i], obj, NULL);
      return;
    }
  log_debug ("an answer to a request that has ended: id %lld", (long long) id);
}

static int
on_socket (int fd, int revents, void *opaque)
{
  struct pluginctl *p = opaque;
  json_error_t error;
  ssize_t n = 1;
  int r = 0;

  if (revents & POLLOUT)
    flush (p);
  p->depth++;
  if (!p->broken && (revents & (POLLIN | POLLHUP | POLLERR))) {
    n = jsonl_reader_fill (&p->in, fd);
    for (;;) {
      json_t *obj = NULL;

      if (p->closed || p->broken)
        break;
      r = jsonl_reader_next (&p->in, &obj, &error);
      if (r <= 0)
        break;
      on_object (p, obj);
      json_decref (obj);
    }
    if (r < 0)
      p->broken = "the plugin sent what is not our protocol";
    else if (n == 0)
      p->broken = "the plugin closed the control connection";
    else if (n < 0 && n != -EAGAIN)
      p->broken = "the control connection broke";
  }
  if (!leave (p))
    return 0;
  if (p->broken)
    lost (p, p->broken);
  return 0;
}

static void
on_timer (void *opaque)
{
  struct pluginctl *p = opaque;
  uint64_t now = clock_boottime_ms ();

  qb_loop_timer_add (p->loop, QB_LOOP_MED, 100 * QB_TIME_NS_IN_MSEC, p, on_timer, &p->timer);
  if (p->broken) {
    lost (p, p->broken);
    return;
  }
  p->depth++;
  for (unsigned i = 0; i < PLUGIN_MAX_CALLS && !p->closed; i++)
    if (p->calls[i].id && now >= p->calls[i].deadline_ms)
      answer (p, &p->calls[i], NULL, "the plugin did not answer in time");
  leave (p);
}

struct pluginctl *
pluginctl_connect (struct qb_loop *loop, const char *path, const struct pluginctl_callbacks *cb,
                   void *opaque)
{
  struct sockaddr_un sa = { .sun_family = AF_UNIX };
  struct pluginctl *p;
  int fd, saved;

  if (strlen (path) >= sizeof sa.sun_path) {
    errno = ENAMETOOLONG;
    return NULL;
  }
  memcpy (sa.sun_path, path, strlen (path) + 1);
  fd = socket (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0)
    return NULL;
  p = calloc (1, sizeof *p);
  if (p == NULL || connect (fd, (struct sockaddr *) &sa, sizeof sa) < 0) {
    saved = p ? errno : ENOMEM;
    free (p);
    close (fd);
    errno = saved;
    return NULL;
  }
  p->loop = loop;
  p->fd = fd;
  p->cb = *cb;
  p->opaque = opaque;
  jsonl_reader_init (&p->in, 0);
  jsonl_writer_init (&p->out, 0);
  qb_loop_poll_add (loop, QB_LOOP_MED, fd, POLLIN, p, on_socket);
  qb_loop_timer_add (loop, QB_LOOP_MED, 100 * QB_TIME_NS_IN_MSEC, p, on_timer, &p->timer);
  return p;
}

void
pluginctl_call (struct pluginctl *p, json_t *request, unsigned timeout_ms,
                pluginctl_answer_fn *fn, void *opaque)
{
  struct call *c = NULL;
  int r = -ENOBUFS;

  for (unsigned i = 0; i < PLUGIN_MAX_CALLS && c == NULL; i++)
    if (p->calls[i].id == 0)
      c = &p->calls[i];
  if (c) {
    *c = (struct call){ .id = ++p->next_id, .deadline_ms = clock_boottime_ms () + timeout_ms,
                        .fn = fn, .opaque = opaque };
    json_object_set_new (request, "v", json_integer (1));
    json_object_set_new (request, "id", json_integer ((json_int_t) c->id));
    r = jsonl_writer_put (&p->out, request);
  }
  json_decref (request);
  if (r < 0)
    p->broken = "the plugin does not read its control socket";
  else
    flush (p);
  /* Without a slot the caller hears of it when the connection is given up. */
  if (c == NULL && fn)
    fn (opaque, NULL, p->broken);
}
