/* SPDX-License-Identifier: BSD-3-Clause */
/* A thin layer over liburing; see ring.h.
 */
#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "plugin/ring.h"

int
ring_init (struct ring *r)
{
  struct io_uring_params p = { .flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN
                                        | IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP,
                               .cq_entries = RING_CQ_ENTRIES };
  int res;

  memset (r, 0, sizeof *r);
  res = io_uring_queue_init_params (RING_ENTRIES, &r->u, &p);
  if (res == -EINVAL) { /* before Linux 6.1 */
    memset (&p, 0, sizeof p);
    p.flags = IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP;
    p.cq_entries = RING_CQ_ENTRIES;
    res = io_uring_queue_init_params (RING_ENTRIES, &r->u, &p);
  }
  if (res < 0)
    return res;
  res = io_uring_register_files_sparse (&r->u, RING_FILES);
  if (res < 0) {
    io_uring_queue_exit (&r->u);
    return res;
  }
  r->made = true;
  return 0;
}

void
ring_exit (struct ring *r)
{
  if (r->made)
    io_uring_queue_exit (&r->u);
  r->made = false;
}

struct io_uring_sqe *
ring_sqe (struct ring *r)
{
  struct io_uring_sqe *sqe = io_uring_get_sqe (&r->u);

  /* Full: the kernel takes what there is.  It refuses only while completions overflow, and these
   * are reaped by the caller's loop, so a bounded number of tries is enough. */
  for (unsigned i = 0; !sqe && i < 1000; i++) {
    io_uring_submit (&r->u);
    sqe = io_uring_get_sqe (&r->u);
  }
  if (!sqe)
    abort ();
  return sqe;
}

void
ring_own (struct ring *r, struct io_uring_sqe *sqe, struct ring_op *op)
{
  io_uring_sqe_set_data (sqe, op);
  r->pending++;
}

bool
ring_has_completions (const struct ring *r)
{
  return io_uring_cq_ready (&r->u) > 0;
}

bool
ring_is_ready (const struct ring *r)
{
  return io_uring_cq_ready (&r->u) > 0 || (IO_URING_READ_ONCE (*r->u.sq.kflags) & IORING_SQ_TASKRUN);
}

void
ring_submit (struct ring *r)
{
  r->is_urgent = false;
  if (io_uring_sq_ready (&r->u) > 0)
    io_uring_submit (&r->u);
}

void
ring_wait (struct ring *r, uint32_t wait_ms)
{
  struct __kernel_timespec ts = { .tv_sec = wait_ms / 1000,
                                  .tv_nsec = (long long) (wait_ms % 1000) * 1000000 };
  struct io_uring_cqe *cqe;

  r->is_urgent = false;
  if (wait_ms == 0) {
    io_uring_submit (&r->u);
    io_uring_get_events (&r->u);
  }
  else
    io_uring_submit_and_wait_timeout (&r->u, &cqe, 1, &ts, NULL);
}

unsigned
ring_reap (struct ring *r, unsigned max)
{
  unsigned n = 0;
  struct io_uring_cqe *cqe;

  while (n < max && io_uring_peek_cqe (&r->u, &cqe) == 0) {
    struct ring_op *op = io_uring_cqe_get_data (cqe);
    int res = cqe->res;

    io_uring_cqe_seen (&r->u, cqe);
    r->pending--;
    n++;
    if (op)
      op->done (op, res);
  }
  return n;
}

int
ring_set_file (struct ring *r, unsigned index, int fd)
{
  int res = io_uring_register_files_update (&r->u, index, &fd, 1);

  return res < 0 ? res : 0;
}
