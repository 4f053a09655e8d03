/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Frames of one group that corosync has not taken yet, in order.  Bounded by
 * CRG_ENGINE_QUEUE_MAX frames and COROSYNC_QUEUE_BYTES; a message is queued
 * with all its frames or not at all.  Owns their memory.  No I/O; one thread.
 */
#ifndef CRG_CPG_QUEUE_H
#define CRG_CPG_QUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <qb/qblist.h>

#include "server/cpg_frame.h"

struct cpg_queued {
  struct qb_list_head list;
  bool last; /* ends a message */
  uint32_t len;
  uint8_t bytes[];
};

struct cpg_queue {
  struct qb_list_head frames;
  unsigned n;
  size_t bytes, peak_bytes;
};

extern void cpg_queue_init (struct cpg_queue *q);
/* Frees what is in it. */
extern void cpg_queue_clear (struct cpg_queue *q);
/* One frame, beside the bounds: a VIEW frame.  0 or -ENOMEM. */
extern int cpg_queue_put (struct cpg_queue *q, const struct cpg_frame *f);
/* A message, cut into DATA frames of at most COROSYNC_PIECE bytes.  0, -EMSGSIZE,
 * -ENOBUFS, -ENOMEM. */
extern int cpg_queue_put_message (struct cpg_queue *q, uint64_t view, uint64_t seq,
                                  const uint8_t *buf, size_t len);
extern struct cpg_queued *cpg_queue_first (struct cpg_queue *q); /* or NULL */
extern void cpg_queue_pop (struct cpg_queue *q);

#endif /* CRG_CPG_QUEUE_H */
