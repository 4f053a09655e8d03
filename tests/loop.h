/* SPDX-License-Identifier: BSD-3-Clause */
/* Unit tests that need crgd's loop, and a directory of their own with files in it. */
#ifndef TESTS_LOOP_H
#define TESTS_LOOP_H

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <qb/qbdefs.h>
#include <qb/qbloop.h>

#include "common/clock.h"
#include "common/util.h"

static char dir[200];
static qb_loop_t *loop;

/* Its path there; as many are of use at once as an expression has. */
static inline const char *
at (const char *name)
{
  static char path[4][300];
  static unsigned turn;

  turn = (turn + 1) % ARRAY_SIZE (path);
  snprintf (path[turn], sizeof path[turn], "%s/%s", dir, name);
  return path[turn];
}

static inline bool
is_there (const char *name)
{
  return access (at (name), F_OK) == 0;
}

static inline void
make (const char *name, const char *text, mode_t mode)
{
  int fd = open (at (name), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);

  if (fd < 0 || write (fd, text, strlen (text)) != (ssize_t) strlen (text) || close (fd) < 0)
    abort ();
}

static inline void
loop_stop (void *opaque)
{
  (void) opaque;
  qb_loop_stop (loop);
}

/* The loop runs until that is so, or for 10 s. */
#define run_until(cond)                                                                                 \
  ({                                                                                                    \
    uint64_t end_ = clock_boottime_ms () + 10000;                                                       \
    while (!(cond) && clock_boottime_ms () < end_) {                                                    \
      qb_loop_timer_add (loop, QB_LOOP_HIGH, 5 * (uint64_t) QB_TIME_NS_IN_MSEC, NULL, loop_stop, NULL); \
      qb_loop_run (loop);                                                                               \
    }                                                                                                   \
    (cond);                                                                                             \
  })

#endif /* TESTS_LOOP_H */
