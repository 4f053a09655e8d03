/* SPDX-License-Identifier: BSD-3-Clause */
/* Requests of clients, on the host's worker threads.  Where the hand-over to the engine would
 * cost more than the work, the worker does it: all reads, and everything of an unmirrored
 * export.  Called by any number of threads at once; owns nothing but the calling thread's
 * bounce buffer.  It must never answer a read or a write without a valid lease (L2), or a read
 * that may have seen a write in flight.
 */
#include "config.h"

#include <errno.h>
#include <string.h>

#include "common/clock.h"
#include "common/util.h"
#include "plugin/engine.h"
#include "plugin/iasp.h"

static void
cleanup_gate (struct gate_pass *pass)
{
  gate_leave (pass);
}
#define GATE_SCOPE __attribute__ ((__cleanup__ (cleanup_gate))) struct gate_pass

/* The worker has done its part under 'pass' and is about to answer. */
static int
before_answer (struct iasp *ia, struct gate_pass *pass, uint64_t offset, uint64_t length, bool is_read)
{
  bool wait = is_read && pass->mode == GATE_ENGINE
              && (atomic_load_explicit (&ia->gate.guarded, memory_order_acquire)
                  || gate_is_marked (&ia->gate, offset, length));
  struct engine_request rq = { .op = RO_READ_WAIT };
  uint64_t now_ms;

  if (!ia->engine)
    return 0;
  now_ms = clock_boottime_ms ();
  if (is_read)
    gate_note_read (&ia->gate, now_ms);
  if (!wait && gate_lease_is_valid (&ia->gate, now_ms))
    return 0;
  rq.offset = wait ? offset : 0;
  rq.length = wait ? length : 0;
  rq.epoch = pass->epoch;
  gate_leave (pass);
  return engine_submit (ia->engine, &rq);
}

/* A read failed: answered with that error, or held until another copy serves it (F4). */
static int
read_failed (struct iasp *ia, struct gate_pass *pass, uint64_t offset, uint64_t length, int error)
{
  struct engine_request rq = { .op = RO_READ_WAIT, .offset = offset, .length = length, .epoch = pass->epoch,
                               .store_error = error };

  if (!ia->engine || pass->mode != GATE_ENGINE || ia->p.return_store_error || error == -ENOMEM)
    return error;
  gate_leave (pass);
  return engine_submit (ia->engine, &rq);
}

static unsigned
store_flags (unsigned flags)
{
  return (flags & WORK_F_FUA ? STORE_F_FUA : 0) | (flags & WORK_F_MAY_TRIM ? STORE_F_MAY_TRIM : 0)
         | (flags & WORK_F_FAST_ZERO ? STORE_F_FAST_ZERO : 0);
}

static int
pread_piece (struct iasp *ia, void *buf, uint32_t count, uint64_t offset)
{
  GATE_SCOPE pass = gate_enter (&ia->gate);
  int r;

  if (pass.mode == GATE_CLOSED)
    return -ESHUTDOWN;
  r = store_pread (&ia->store, buf, count, offset);
  return r < 0 ? read_failed (ia, &pass, offset, count, r) : before_answer (ia, &pass, offset, count, true);
}

int
work_pread (struct iasp *ia, void *buf, uint32_t count, uint64_t offset)
{
  char *p = buf;

  /* Split, so that one request never holds the gate for long. */
  while (count > 0) {
    uint32_t n = MIN (count, (uint32_t) NBD_MAX_REQUEST);
    int r = pread_piece (ia, p, n, offset);

    if (r < 0)
      return r;
    p += n;
    offset += n;
    count -= n;
  }
  return 0;
}

/* Hands a changing request to the engine, its range marked for readers until it is answered. */
static int
submit_change (struct iasp *ia, struct gate_pass *pass, struct engine_request *rq)
{
  int r;

  rq->epoch = pass->epoch;
  gate_leave (pass);
  gate_mark (&ia->gate, rq->offset, rq->length);
  r = engine_submit (ia->engine, rq);
  gate_unmark (&ia->gate, rq->offset, rq->length);
  return r;
}

/* Writes the first piece of 'count' bytes: *done of them. */
static int
pwrite_piece (struct iasp *ia, const void *buf, uint32_t count, uint64_t offset, unsigned flags, uint32_t *done)
{
  struct engine_request rq = { .op = RO_WRITE, .offset = offset };
  GATE_SCOPE pass = gate_enter (&ia->gate);
  uint32_t most;
  int r;

  if (pass.mode == GATE_CLOSED)
    return -ESHUTDOWN;
  /* Pieces end on multiples of this, so that only the first and the last can be unaligned, and any
   * piece fits a bounce buffer with its alignment.  Without one it is all that the core takes, which
   * pipelines the frames of one request, and not those of two pieces.  Outside the gate it may be another store's. */
  most = ia->store.direct ? STORE_BOUNCE_BYTES : NBD_MAX_REQUEST;
  *done = count = (uint32_t) MIN ((uint64_t) count, most - offset % most);

  switch (pass.mode) {
  case GATE_FAST:
    if (atomic_load (&ia->read_only))
      return -EROFS; /* a client of before */
    r = store_pwrite (&ia->store, buf, count, offset, store_flags (flags));
    return r < 0 ? r : before_answer (ia, &pass, offset, count, false);

  default:
    rq.length = count;
    rq.flags = flags & WORK_F_FUA ? RF_FUA : 0;
    rq.data = buf;
    if (ia->store.direct) {
      char *bounce = store_bounce (STORE_BOUNCE_BYTES);

      if (!bounce)
        return -ENOMEM;
      memcpy (bounce + (offset & (ia->store.align - 1)), buf, count);
      rq.data = bounce + (offset & (ia->store.align - 1));
    }
    return submit_change (ia, &pass, &rq);
  }
}

int
work_pwrite (struct iasp *ia, const void *buf, uint32_t count, uint64_t offset, unsigned flags)
{
  const char *p = buf;

  while (count > 0) {
    uint32_t n;
    int r = pwrite_piece (ia, p, count, offset, flags, &n);

    if (r < 0)
      return r;
    p += n;
    offset += n;
    count -= n;
  }
  return 0;
}

int
work_flush (struct iasp *ia)
{
  struct engine_request rq = { .op = RO_FLUSH };
  GATE_SCOPE pass = gate_enter (&ia->gate);
  int r;

  switch (pass.mode) {
  case GATE_CLOSED:
    return -ESHUTDOWN;
  case GATE_FAST:
    r = store_flush (&ia->store);
    return r < 0 ? r : before_answer (ia, &pass, 0, 0, false);
  default:
    rq.epoch = pass.epoch;
    gate_leave (&pass);
    return engine_submit (ia->engine, &rq);
  }
}

/* 1: nothing was done, as it goes to the engine, which takes it in pieces. */
static int
zero_piece (struct iasp *ia, uint32_t count, uint64_t offset, unsigned flags, bool is_trim)
{
  struct engine_request rq = { .op = is_trim ? RO_TRIM : RO_ZERO, .offset = offset, .length = count };
  GATE_SCOPE pass = gate_enter (&ia->gate);
  int r, mode;

  switch (pass.mode) {
  case GATE_CLOSED:
    return -ESHUTDOWN;

  case GATE_FAST:
    if (atomic_load (&ia->read_only))
      return -EROFS;
    r = is_trim ? store_trim (&ia->store, count, offset, store_flags (flags))
                : store_zero (&ia->store, count, offset, store_flags (flags));
    return r < 0 ? r : before_answer (ia, &pass, offset, count, false);

  default:
    if (count > WORK_MAX_ZERO || (flags & WORK_F_FUA))
      return 1;
    mode = store_zero_mode (&ia->store, is_trim || (flags & WORK_F_MAY_TRIM));
    /* A store that can't promise zeroes ignores a trim, on every copy alike. */
    if (is_trim && mode == -1)
      return before_answer (ia, &pass, offset, count, false);
    /* What a copy can do is not known here; the local store decides what is fast. */
    if ((flags & WORK_F_FAST_ZERO) && mode == -1)
      return -EOPNOTSUPP;
    rq.flags = flags & WORK_F_MAY_TRIM ? RF_MAY_TRIM : 0;
    return submit_change (ia, &pass, &rq);
  }
}

static int
zero_or_trim (struct iasp *ia, uint32_t count, uint64_t offset, unsigned flags, bool is_trim)
{
  int r;

  if (count > 0 && atomic_load (&ia->gate.mode) == GATE_FAST) {
    r = zero_piece (ia, count, offset, flags, is_trim);
    if (r <= 0)
      return r;
  }
  while (count > 0) {
    uint32_t n = MIN (count, WORK_MAX_ZERO);

    r = zero_piece (ia, n, offset, flags & ~WORK_F_FUA, is_trim);

    if (r < 0)
      return r;
    offset += n;
    count -= n;
  }
  /* One flush covers all the pieces. */
  return flags & WORK_F_FUA ? work_flush (ia) : 0;
}

int
work_zero (struct iasp *ia, uint32_t count, uint64_t offset, unsigned flags)
{
  return zero_or_trim (ia, count, offset, flags, false);
}

int
work_trim (struct iasp *ia, uint32_t count, uint64_t offset, unsigned flags)
{
  return zero_or_trim (ia, count, offset, flags, true);
}

int
work_cache (struct iasp *ia, uint32_t count, uint64_t offset)
{
  GATE_SCOPE pass = gate_enter (&ia->gate);

  return pass.mode == GATE_CLOSED ? -ESHUTDOWN : store_cache (&ia->store, count, offset);
}

int
work_extents (struct iasp *ia, uint32_t count, uint64_t offset,
              int (*add) (void *opaque, uint64_t offset, uint64_t length, bool is_hole),
              void *opaque)
{
  GATE_SCOPE pass = gate_enter (&ia->gate);
  uint64_t pos = offset, end = offset + count;
  int r = 0;

  if (pass.mode == GATE_CLOSED)
    return -ESHUTDOWN;
  while (pos < end && r == 0) {
    uint64_t length;
    bool is_hole;

    r = store_extent (&ia->store, pos, end - pos, &length, &is_hole);
    if (r == 0)
      r = add (opaque, pos, length, is_hole);
    pos += length;
  }
  if (r < 0)
    return r;
  return before_answer (ia, &pass, offset, pos - offset, true);
}
