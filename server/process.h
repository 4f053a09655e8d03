/* SPDX-License-Identifier: BSD-3-Clause
 *
 * One nbdkit process as the system sees it: its command line, its files in
 * the run directory, how it is started and how it is found again (S3).  For
 * the supervisor; main loop's thread.  Keeps no state.
 */
#ifndef CRG_PROCESS_H
#define CRG_PROCESS_H

#include <sys/types.h>

#include "server/supervise.h"

/* Files of an IASP in the run directory. */
struct process_place {
  char ctl_path[CRG_PATH_MAX + 80], pid_path[CRG_PATH_MAX + 80], log_path[CRG_PATH_MAX + 80];
};
extern void process_place (struct process_place *place, const char *run_dir, const char *iasp);

/* Starts it, as a child and in a session of its own: it outlives the daemon.
 * Its process id, or -1 and errno. */
extern pid_t process_start (const struct plugin_spec *spec, const struct process_place *place);
/* The process that the pid file names, if it is an nbdkit with this control
 * socket, and a pidfd of it; else 0, and a pid file that is certainly stale is
 * removed.  Waits for at most PROCESS_LOOKS * PROCESS_LOOK_MS, for one that is
 * about to become it. */
extern pid_t process_find (const struct process_place *place, int *pidfd);
/* Of a process that is about to end, and that nobody looks after any more: takes the pidfd, and when it has ended
 * reaps it, if it is a child. */
extern void process_reap (struct qb_loop *loop, int pidfd);

#endif
