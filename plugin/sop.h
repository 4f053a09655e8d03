/* SPDX-License-Identifier: BSD-3-Clause */
/* One operation on the store, carried out through the engine's ring: a write with its
 * read-modify-write edges, a zero with its fallbacks, a flush, a read.  On a store in memory, for
 * which the ring would wake a kernel thread each time, sop_run carries it out itself.  Owned by
 * the engine thread.  The replication cores never have two operations under way that overlap; two that only
 * share a unit of direct I/O are kept apart here, because one would carry the other's bytes along.
 */
#ifndef IASP_SOP_H
#define IASP_SOP_H

#include <stdbool.h>
#include <stdint.h>

#include "plugin/ring.h"
#include "plugin/store.h"

/* SOP_FLUSH is for data: where the metadata is elsewhere each write of it is stable when it is done. */
enum sop_kind { SOP_READ = 1, SOP_WRITE, SOP_ZERO, SOP_FLUSH };

struct sop;
struct sop_list {
  struct sop *first, *last;
};
typedef void (*sop_done_fn) (struct sop *op, int error);

/* What all operations of one engine share. */
struct sop_env {
  struct ring *ring;
  struct store *store;
  uint8_t *zeroes;         /* SOP_ZERO_BYTES of them, aligned */
  struct sop_list active, waiting;
  struct sop *memory, **memory_end; /* steps on a store in memory, for sop_run */
  uint64_t memory_bytes;            /* that these will copy */
  unsigned n_unaligned; /* of both lists */
};
#define SOP_ZERO_BYTES (256u * 1024)

struct sop {
  struct ring_op ring; /* the first member */
  struct sop_env *env;
  sop_done_fn done;
  bool busy;
  bool unaligned;
  struct sop *prev, *next; /* in env->active or env->waiting */
  struct sop *memory_next;
  uint8_t kind; /* enum sop_kind */
  uint8_t step;
  bool fua, may_trim;
  int error;
  uint64_t offset, length; /* as asked */
  uint64_t pos, end;       /* of the step's transfer */
  uint64_t from, to;       /* SOP_ZERO: the part for fallocate, ... */
  int mode;                /* ... and how it was asked: another operation may have learnt since */
  uint8_t *buf;            /* payload; in direct mode it stands at offset % align of a buffer with
                              room before and behind for whole units */
  uint8_t *at;             /* memory for pos */
  uint8_t *edge;           /* META_BLOCK_SIZE, aligned; kept for the next use */
  struct io_uring_sqe sqe; /* store in memory: the step to carry out */
  struct __kernel_timespec delay;
  struct sf_token fault; /* fault injection: of the step under way */
  int refused;           /* and what it made of that step; else 0 */
};

/* 0 or -ENOMEM. */
extern int sop_env_init (struct sop_env *env, struct ring *ring, struct store *store);
extern void sop_env_free (struct sop_env *env);

extern int sop_init (struct sop *op, struct sop_env *env, sop_done_fn done);
extern void sop_free (struct sop *op);

/* Starts it; done is called exactly once, later, from ring_reap or sop_run. */
extern void sop_start (struct sop *op, enum sop_kind kind, uint64_t offset, uint64_t length, void *buf,
                       bool fua, bool may_trim);

/* Carries out the steps on a store in memory that wait now; those that follow from them wait for
 * the next call. */
extern void sop_run (struct sop_env *env);

#endif /* IASP_SOP_H */
