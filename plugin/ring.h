/* SPDX-License-Identifier: BSD-3-Clause */
/* The engine thread's io_uring: every operation names an object that is told of its completion.
 * One thread makes it, submits to it and reaps it (SINGLE_ISSUER); nobody else may touch it.
 */
#ifndef IASP_RING_H
#define IASP_RING_H

#include <stdbool.h>
#include <stdint.h>

#include <liburing.h>

#include "common/limits.h"

/* Submissions gathered between two system calls; more are submitted on the way. */
#define RING_ENTRIES 512
/* Completions that can wait: each request has at most one local operation, and each link three. */
#define RING_CQ_ENTRIES 4096
/* Direct descriptors: one link to each other site, and the connections that came in. */
#define RING_FILES (CRG_MAX_SITES + LINK_MAX_PENDING)

struct ring_op;
typedef void (*ring_done_fn) (struct ring_op *op, int res);

/* Embedded in what waits; alive until done is called.  One operation at a time. */
struct ring_op {
  ring_done_fn done;
};

struct ring {
  struct io_uring u;
  bool made;
  bool is_urgent; /* what is queued leads to work elsewhere: at a copy, on a disk */
  unsigned pending; /* operations whose completion has not come */
};

/* 0 or -errno.  The calling thread owns the ring from now on. */
extern int ring_init (struct ring *r);
extern void ring_exit (struct ring *r);

/* A submission whose completion goes to op; op NULL: to nobody.  Never NULL. */
extern struct io_uring_sqe *ring_sqe (struct ring *r);
extern void ring_own (struct ring *r, struct io_uring_sqe *sqe, struct ring_op *op);

/* Has a completion come? */
extern bool ring_has_completions (const struct ring *r);
/* ... or would the kernel hand one over?  Neither costs a system call. */
extern bool ring_is_ready (const struct ring *r);
/* Submits, and waits for nothing. */
extern void ring_submit (struct ring *r);
/* Submits, and waits for at most wait_ms (0: not at all) for a completion. */
extern void ring_wait (struct ring *r, uint32_t wait_ms);
/* Hands out the completions that are there; at most 'max'.  Returns how many. */
extern unsigned ring_reap (struct ring *r, unsigned max);

/* Puts 'fd' into the table of direct descriptors (-1: takes out what is there).  0 or -errno. */
extern int ring_set_file (struct ring *r, unsigned index, int fd);

#endif /* IASP_RING_H */
