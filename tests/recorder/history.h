/* SPDX-License-Identifier: BSD-3-Clause */
/* Is a recorded history one that a correct disk could have had?  Pure: no I/O, no clock; one
 * thread.
 *
 * Each block is a register of its own, and linearizability is local (Herlihy and Wing, 1990),
 * so blocks are judged one by one.  Every written value is unique, so a read names the write
 * that it saw, and the test is that of Gibbons and Korach ("Testing shared memories", 1997),
 * which needs a sort and one pass:
 *
 *   The cluster of a value is its write and all its reads.  Its zone lies between f, the
 *   earliest end of an operation of the cluster, and s, the latest start of one.  If f < s, some
 *   operation was over before another began: the register holds this value during all of
 *   (f, s), a forward zone.  Otherwise all operations of the cluster share the span from s to
 *   f, and can be put at any one point of it: a backward zone.  The history is linearizable if
 *   and only if
 *     a. no read ends before the write of its value starts (and each value read was written),
 *     b. no two forward zones overlap,
 *     c. no backward zone lies inside a forward zone.
 *
 * A write without an answer (the connection died, or an error came back) may take effect at any
 * time from its start on, or never: its end is HIST_NEVER, and if nobody read it, it is left
 * out.  A read without an answer says nothing and isn't in the history.  What the block held at
 * the beginning is a write that ended before everything.  The reads after the run are reads like
 * all others, later than everything, so a lost write shows up by rule b or c.
 *
 * Two instants that are equal count as overlapping, so the check never complains wrongly.
 */
#ifndef CRG_RECORDER_HISTORY_H
#define CRG_RECORDER_HISTORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HIST_NEVER UINT64_MAX
#define HIST_INITIAL 0u /* the value that the block had before the run */

enum hist_kind {
  HIST_WRITE,
  HIST_READ,
  HIST_FINAL, /* a read after the run */
  HIST_BAD,   /* a read, or final read, of something that was never written there */
};

struct hist_op {
  uint64_t start, end; /* ns; end of a write may be HIST_NEVER */
  uint64_t value;      /* unique for each write; HIST_INITIAL is nobody's */
  uint32_t block;
  uint8_t kind;        /* enum hist_kind */
  bool flushed;        /* write: an answered flush began after its answer, or it was FUA */
};

enum hist_fault {
  HIST_OK,
  HIST_DAMAGED, /* bad content was read */
  HIST_UNBORN,  /* a value was read that had not been written, or not yet (a) */
  HIST_LOST,    /* an answered write is gone at the end (b or c with a final read) */
  HIST_STALE,   /* a read saw an older value than it had to (b or c) */
};

#define HIST_MAX_TOLD 20 /* violations described one by one; all are counted */
struct hist_violation {
  uint8_t fault; /* enum hist_fault */
  uint32_t block;
  uint64_t value, other;
};

struct hist_result {
  uint64_t blocks;       /* with at least one operation */
  uint64_t damaged, unborn, lost, lost_flushed, stale;
  unsigned n_told;
  struct hist_violation told[HIST_MAX_TOLD];
};

/* Sorts 'ops' in place.  True if nothing is wrong. */
extern bool hist_check (struct hist_op *ops, size_t n, struct hist_result *res);

/* The same, with instants (rising) at which every machine that held what was answered and not flushed
 * lost its power.  Such a write may be gone from then on, wholly or in part; a flushed one may not, and
 * what a block is after the loss, it stays until it is written.  So each time between two losses is a
 * history of its own, whose initial value is one that the block may be left with: any that no flushed
 * write has replaced for good, or a torn one if there was a write that was not flushed. */
extern bool hist_check_losses (struct hist_op *ops, size_t n, const uint64_t *losses, size_t n_losses,
                               struct hist_result *res);

#endif /* CRG_RECORDER_HISTORY_H */
