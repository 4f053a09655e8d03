/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Process groups of procgroup.h, as /proc shows them.  While a group has a
 * member its number is given to no other process; so if a process of that
 * number began at another time, the group is gone.
 */
#include "config.h"

#include "server/procgroup.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/util-posix.h"

/* Fields of /proc/PID/stat, counted from the state behind the name. */
enum { STAT_STATE = 0, STAT_GROUP = 2, STAT_BEGAN = 19 };

struct stat_line {
  char state;
  uint64_t group, began;
};

/* As getdents64(2) gives it. */
struct entry {
  uint64_t ino;
  int64_t off;
  unsigned short len;
  unsigned char type;
  char name[];
};

static uint64_t
number (const char *p)
{
  uint64_t n = 0;

  for (; *p >= '0' && *p <= '9' && n < UINT64_MAX / 10 - 1; p++)
    n = n * 10 + (uint64_t) (*p - '0');
  return n;
}

/* False and errno: there is no such process. */
static bool
read_stat (uint64_t pid, struct stat_line *s)
{
  char path[48], text[1024], *p;
  CLEANUP_CLOSE int fd = -1;
  ssize_t n;

  snprintf (path, sizeof path, "/proc/%" PRIu64 "/stat", pid);
  fd = open (path, O_RDONLY | O_CLOEXEC);
  n = fd < 0 ? -1 : read (fd, text, sizeof text - 1);
  if (n < 0)
    return false;
  text[n] = '\0';
  /* A name may have blanks and parentheses in it. */
  p = strrchr (text, ')');
  for (unsigned i = 0; p && i <= STAT_BEGAN; i++) {
    p = strchr (p, ' ');
    if (p == NULL)
      break;
    p++;
    if (i == STAT_STATE)
      s->state = *p;
    else if (i == STAT_GROUP)
      s->group = number (p);
    else if (i == STAT_BEGAN)
      s->began = number (p);
  }
  if (p == NULL)
    errno = EPROTO;
  return p != NULL;
}

static bool
has_ended (const struct stat_line *s)
{
  return s->state == 'Z' || s->state == 'X';
}

bool
procgroup_of (pid_t pid, struct procgroup *g)
{
  struct stat_line s;

  if (!read_stat ((uint64_t) pid, &s))
    return false;
  *g = (struct procgroup) { (uint64_t) pid, s.began };
  return true;
}

uint64_t
procgroup_began_ms (const struct procgroup *g)
{
  uint64_t per_s = (uint64_t) sysconf (_SC_CLK_TCK);

  return g->began / per_s * 1000 + g->began % per_s * 1000 / per_s;
}

/* Any process of that group that isn't a zombie.  If nobody can look: yes. */
static bool
has_member (uint64_t group)
{
  CLEANUP_CLOSE int fd = open ("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  _Alignas (struct entry) char buf[8192];
  struct stat_line s;
  long n;

  if (fd < 0)
    return true;
  while ((n = syscall (SYS_getdents64, fd, buf, sizeof buf)) > 0)
    for (long at = 0; at < n;) {
      const struct entry *e = (const struct entry *) (const void *) (buf + at);

      if (e->name[0] >= '1' && e->name[0] <= '9' && read_stat (number (e->name), &s)
          && s.group == group && !has_ended (&s))
        return true;
      at += e->len;
    }
  return n < 0;
}

bool
procgroup_is_alive (const struct procgroup *g)
{
  struct stat_line s;

  if (g->pid <= 1 || g->pid > INT32_MAX)
    return false;
  if (read_stat (g->pid, &s)) {
    if (s.began != g->began)
      return false;
    if (!has_ended (&s))
      return true;
  }
  return !(kill (-(pid_t) g->pid, 0) < 0 && errno == ESRCH) && has_member (g->pid);
}

bool
procgroup_end (const struct procgroup *g, unsigned wait_ms)
{
  for (unsigned waited = 0; procgroup_is_alive (g); waited++) {
    /* Before it has made its session the leader is alone. */
    if (kill (-(pid_t) g->pid, SIGKILL) < 0 && errno == ESRCH)
      kill ((pid_t) g->pid, SIGKILL);
    if (waited >= wait_ms)
      return false;
    poll (NULL, 0, 1);
  }
  return true;
}
