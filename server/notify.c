/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The datagrams of notify.h.  Owns one socket.  Never waits: a manager that
 * doesn't read loses what it is told.  The watchdog is fed from a timer of the
 * main loop at low priority: a loop that starves or hangs feeds nothing.
 */
#include "config.h"

#include "server/notify.h"

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <qb/qbdefs.h>
#include <qb/qbloop.h>

#include "common/limits.h"
#include "server/log.h"

static struct {
  int fd;
  struct sockaddr_un to;
  socklen_t to_len;
  uint64_t feed_ns; /* 0: no watchdog */
  qb_loop_t *loop;
  qb_loop_timer_handle timer;
} the = { .fd = -1 };

static void
say (const char *text)
{
  if (the.fd >= 0)
    (void) !sendto (the.fd, text, strlen (text), MSG_DONTWAIT | MSG_NOSIGNAL,
                    (const struct sockaddr *) &the.to, the.to_len);
}

static void
say_status (const char *what, const char *status)
{
  char text[CRG_REASON_MAX + 64];

  snprintf (text, sizeof text, "%s%sSTATUS=%s\n", what, *what ? "\n" : "", status);
  say (text);
}

static void
feed (void *opaque)
{
  say ("WATCHDOG=1\n");
  qb_loop_timer_add (the.loop, QB_LOOP_LOW, the.feed_ns, NULL, feed, &the.timer);
}

static uint64_t
env_u64 (const char *name)
{
  const char *text = getenv (name);
  char *end;
  uint64_t v;

  if (text == NULL || *text < '0' || *text > '9')
    return 0;
  errno = 0;
  v = strtoull (text, &end, 10);
  return errno || *end ? 0 : v;
}

/* "/path", or "@name" in the abstract name space. */
static void
open_socket (const char *path)
{
  size_t len = strlen (path);

  if ((path[0] != '/' && path[0] != '@') || len < 2 || len >= sizeof the.to.sun_path) {
    log_warning ("NOTIFY_SOCKET=%s is no socket's path: the service manager is told nothing", path);
    return;
  }
  the.to.sun_family = AF_UNIX;
  memcpy (the.to.sun_path, path, len + 1);
  the.to_len = (socklen_t) (offsetof (struct sockaddr_un, sun_path) + len + (path[0] == '/'));
  if (path[0] == '@')
    the.to.sun_path[0] = '\0';
  the.fd = socket (AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (the.fd < 0)
    log_warning ("no socket to tell the service manager anything: %s", strerror (errno));
}

void
notify_open (struct qb_loop *loop)
{
  const char *path = getenv ("NOTIFY_SOCKET");
  uint64_t usec = env_u64 ("WATCHDOG_USEC"), pid = env_u64 ("WATCHDOG_PID");

  the.loop = loop;
  if (path)
    open_socket (path);
  if (the.fd >= 0 && usec > 0 && (pid == 0 || pid == (uint64_t) getpid ())) {
    /* Twice in the time that is given, as sd_watchdog_enabled(3) asks. */
    the.feed_ns = usec / 2 * QB_TIME_NS_IN_USEC;
    if (the.feed_ns < QB_TIME_NS_IN_MSEC)
      the.feed_ns = QB_TIME_NS_IN_MSEC;
    feed (NULL);
  }
  unsetenv ("NOTIFY_SOCKET");
  unsetenv ("WATCHDOG_USEC");
  unsetenv ("WATCHDOG_PID");
}

void
notify_close (void)
{
  if (the.feed_ns > 0)
    qb_loop_timer_del (the.loop, the.timer);
  the.feed_ns = 0;
  if (the.fd >= 0)
    close (the.fd);
  the.fd = -1;
}

void
notify_ready (const char *status)
{
  say_status ("READY=1", status);
}

void
notify_status (const char *status)
{
  say_status ("", status);
}

void
notify_stopping (const char *status)
{
  say_status ("STOPPING=1", status);
}
