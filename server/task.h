/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Work that may block (a disk, an NBD server), done in a short-lived child of
 * the daemon so that the main loop never waits.  The child has none of the
 * daemon's descriptors, dies with it and at its deadline, and answers with a
 * fixed-size result through a pipe.  Started and reported on the loop's
 * thread.
 */
#ifndef CRG_TASK_H
#define CRG_TASK_H

#include <stddef.h>
#include <stdint.h>

struct qb_loop;
struct task;

/* Runs in the child.  Fills `result` (zeroed before); no logging, no loop. */
typedef void task_fn (const void *arg, void *result);
/* `result` is NULL if the child died or ran into its deadline: `reason`. */
typedef void task_done_fn (void *opaque, const void *result, const char *reason);

#define TASK_RESULT_MAX 4096 /* one write to the pipe is then atomic */

/* NULL and errno if it can't be started; done is then not called.  `arg` is
 * read by the child only (a copy-on-write image). */
extern struct task *task_start (struct qb_loop *loop, task_fn *fn, const void *arg,
                                size_t result_len, unsigned timeout_ms, task_done_fn *done,
                                void *opaque);
/* Kills the child; done is not called. */
extern void task_cancel (struct task *t);
/* When the loop has ended: forgets the children that were killed and have not gone yet.  All
 * others were cancelled before. */
extern void task_end (void);

#endif
