/* SPDX-License-Identifier: BSD-3-Clause
 *
 * A process group that outlives who has started it: found again by the number
 * of its leader and the instant at which that began, so that a number that was
 * given to somebody else since is never taken for it.  Allocates nothing and
 * takes no lock: a guard (guard.h) calls it too.
 */
#ifndef CRG_PROCGROUP_H
#define CRG_PROCGROUP_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct procgroup {
  uint64_t pid;   /* of its leader; 0: none */
  uint64_t began; /* clock ticks since boot, as /proc says it */
};

/* The group that `pid`, a child not reaped yet, leads or is about to.  False and errno. */
extern bool procgroup_of (pid_t pid, struct procgroup *g);
/* The instant of CLOCK_BOOTTIME. */
extern uint64_t procgroup_began_ms (const struct procgroup *g);
/* One of it runs, though its leader may not; a zombie doesn't. */
extern bool procgroup_is_alive (const struct procgroup *g);
/* Kills it and waits so long for its end.  False: not yet, one hangs in the kernel. */
extern bool procgroup_end (const struct procgroup *g, unsigned wait_ms);

#endif
