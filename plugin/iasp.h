/* SPDX-License-Identifier: BSD-3-Clause */
/* One plugin process serves one IASP: this is what its threads share.  Made by the main thread
 * before any other thread exists; the comments say who owns each field after that.
 */
#ifndef IASP_IASP_H
#define IASP_IASP_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "plugin/gate.h"
#include "plugin/params.h"
#include "plugin/session.h"
#include "plugin/store.h"

struct engine;

struct iasp {
  struct params p;       /* constant after configuration */
  struct store store;    /* opened and closed by the main thread, later by the engine, while the
                            gate is closed and drained */
  struct gate gate;      /* see gate.h */
  struct engine *engine; /* NULL without a controller */
  struct session_table sessions;
  _Atomic uint32_t clients;
  /* R6, engine: a detached copy is exported; its clients' writes fail if read_only. */
  _Atomic bool detached, read_only;
};

/* What one request needs beyond its range. */
#define WORK_F_FUA       1u
#define WORK_F_MAY_TRIM  2u
#define WORK_F_FAST_ZERO 4u

/* A longer zero or trim goes to the mirrors in pieces of this, each with a time-out of its own: a store
 * that has to write its zeroes needs seconds for the 4 GiB - 1 that a client may ask for. */
#define WORK_MAX_ZERO (64u * 1024 * 1024)

/* The requests of clients, on the host's worker threads.  Each blocks until its answer may be
 * given: 0 or -errno, to be mapped by errmap_to_nbd.  Every byte of a successful read's buffer
 * is filled. */
extern int work_pread (struct iasp *ia, void *buf, uint32_t count, uint64_t offset);
extern int work_pwrite (struct iasp *ia, const void *buf, uint32_t count, uint64_t offset,
                        unsigned flags);
extern int work_flush (struct iasp *ia);
extern int work_zero (struct iasp *ia, uint32_t count, uint64_t offset, unsigned flags);
extern int work_trim (struct iasp *ia, uint32_t count, uint64_t offset, unsigned flags);
extern int work_cache (struct iasp *ia, uint32_t count, uint64_t offset);

/* The extents of [offset, offset + count), in order and not beyond it, each handed to add, which
 * returns 0, 1 (enough) or -errno. */
extern int work_extents (struct iasp *ia, uint32_t count, uint64_t offset,
                         int (*add) (void *opaque, uint64_t offset, uint64_t length, bool is_hole),
                         void *opaque);

#endif /* IASP_IASP_H */
