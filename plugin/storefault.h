/* SPDX-License-Identifier: BSD-3-Clause */
/* For the test build (--enable-test-hooks) alone: a layer between the store and its file that loses
 * what was not flushed when the machine "loses power", delays operations and makes them fail.  In
 * other builds all of it is empty.
 *
 * It is on for a store STORE beside which a file STORE.faults stands when the store is locked.  A store's
 * metadata, if it is elsewhere, loses its power with it; each of the two has a flush of its own.
 * That file says what happens; it is read again before each operation if it changed, so replace it
 * with rename.  One rule a line, # begins a comment:
 *
 *   cache [SEED]                  what isn't flushed is lost at power loss
 *   delay OP MICROSECONDS         OP: write (also zero and trim), flush, meta-write, read (of a
 *                                 client, or for a digest)
 *   fail OP ERROR [after N] [times M] [half]
 *                                 OP: read, write, flush (also a write with FUA), meta-read,
 *                                 meta-write; ERROR: EIO, ENOSPC, ENOMEM, EROFS, EOPNOTSUPP; after
 *                                 N good ones; M times, else always; half: the first half is written
 *
 * The cache is an undo log.  Writes go to the store at once; what they overwrite is kept before,
 * in STORE.cache, which is mapped, so that it outlives the process whatever kills it.  A flush
 * that has returned frees what was written before it began.  Power loss (tests/powerloss, or the
 * opening by a machine with another boot id) puts back some of what is still there: nothing else
 * than a cache that wrote back what it liked, in any order, sector by sector.
 *
 * Any thread; one lock inside.
 */
#ifndef IASP_STOREFAULT_H
#define IASP_STOREFAULT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct store;

enum sf_op { SF_READ, SF_WRITE, SF_ZERO, SF_FLUSH };

#ifdef CRG_TEST

struct storefault;

/* One operation under way. */
struct sf_token {
  bool on, stable;
  uint8_t op; /* enum sf_op */
  int first;  /* of its slots; -1: none */
  uint64_t offset, length, clock;
};

/* What the layer has counted, for tests: these stand in this order in the report. */
enum sf_counter {
  SF_N_READ, SF_N_WRITE, SF_N_ZERO, SF_N_FLUSH, SF_N_META_READ, SF_N_META_WRITE, SF_N_STABLE, SF_N_FAILED, SF_N_LOSSES,
  SF_N_COUNTERS
};

/* Called with the store locked.  0, or -errno with a sentence on standard error. */
extern int storefault_open (struct store *s, const char *path);
extern void storefault_close (struct store *s);

/* offset of a flush: 0, or one of the metadata, if that is elsewhere.
 * 0: go on, and tell the result to storefault_end; -errno: it has failed and must not be done.
 * data: of a write, else NULL; it may be used before the return.  stable: a write with FUA. */
extern int storefault_begin (struct store *s, enum sf_op op, uint64_t offset, uint64_t length, const void *data,
                             bool stable, struct sf_token *t);
/* res: as of the system call; for a flush 0 or less, for a zero 0 for all of it. */
extern void storefault_end (struct store *s, struct sf_token *t, int64_t res);
/* What a buffered store's second description would say: -errno, once, if a rule for flushes made something fail since
 * it was asked last, else 0. */
extern int storefault_lost (struct store *s);
/* How long the operation is to be delayed, before storefault_begin. */
extern uint32_t storefault_delay_us (struct store *s, enum sf_op op, uint64_t offset);

/* The machine that had the store open has lost power: nobody has it open.  0 or -errno; what was
 * done in 'report'. */
extern int storefault_power_loss (const char *path, uint64_t seed, char *report, size_t report_len);
extern int storefault_counters (const char *path, uint64_t counters[SF_N_COUNTERS]);
extern const char *storefault_counter_name (enum sf_counter c);

#else

struct sf_token {
  char none;
};

static inline int
storefault_open (struct store *s, const char *path)
{
  return 0;
}

static inline void
storefault_close (struct store *s)
{
}

static inline int
storefault_begin (struct store *s, enum sf_op op, uint64_t offset, uint64_t length, const void *data, bool stable,
                  struct sf_token *t)
{
  return 0;
}

static inline void
storefault_end (struct store *s, struct sf_token *t, int64_t res)
{
}

static inline int
storefault_lost (struct store *s)
{
  return 0;
}

static inline uint32_t
storefault_delay_us (struct store *s, enum sf_op op, uint64_t offset)
{
  return 0;
}

#endif
#endif /* IASP_STOREFAULT_H */
