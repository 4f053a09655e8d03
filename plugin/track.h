/* SPDX-License-Identifier: BSD-3-Clause */
/* Tracking: the state of every block towards one copy site, as one explicit table of states
 * and moves.  Pure: no I/O, clock, thread, allocation; the replication core owns one for each
 * other site.
 *
 * A block is CLEAN only when the copy has confirmed it stable.  What was sent and not yet
 * confirmed by a flush is SENT, of one of two epochs: a flush frame closes the current epoch,
 * and its answer makes the blocks of the closed one clean.  Every kind of failure (error
 * reply, timeout, disconnect, cancel, local error, no room) goes through track_mark (), or through
 * track_doubt () where most of a range is likely to be equal: there is no other way to say "this
 * copy may lack it", and no other way back than a copy, or an equal digest, that a flush of the
 * copy confirmed.  It must never clear a mark by a decision (R6).
 */
#ifndef IASP_TRACK_H
#define IASP_TRACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/limits.h"
#include "plugin/mark.h"

enum track_state {
  TS_CLEAN,   /* equal, and stable on the copy */
  TS_DIRTY,   /* the copy lacks it, as far as is known */
  TS_DOUBT,   /* the copy may lack it: nothing says that it does, and nothing that it does not */
  TS_ASKED,   /* was in doubt; the copy was asked for its digest, and no write was sent or kept back since */
  TS_SYNCING, /* locked and being read for the copy */
  TS_SENT_A,  /* all of it is on its way to, or on, the copy, not yet confirmed stable: */
  TS_SENT_B,  /* ... in epoch A or B */
  TS_STATES,
};

enum track_move {
  TM_MARK,     /* any failure, or a write that the copy does not get */
  TM_DOUBT,    /* it may differ: hot after a crash, in a map of earlier days, not confirmed on a lost link */
  TM_ASK,      /* the resync asks for its digest */
  TM_LOCK,     /* the resync takes it */
  TM_WRITE_A,  /* a write to a part of it was sent in epoch A */
  TM_WRITE_B,
  TM_WHOLE_A,  /* all of it was sent in epoch A, by the resync or by a write, or was found equal */
  TM_WHOLE_B,
  TM_STABLE_A, /* a flush after epoch A was confirmed */
  TM_STABLE_B,
  TM_MOVES,
};

#define TRACK_ILLEGAL 0xff
/* The table: next state, or TRACK_ILLEGAL. */
extern const uint8_t track_table[TS_STATES][TM_MOVES];
extern const char *track_state_name (unsigned state);

struct track_range {
  uint64_t first, n; /* blocks */
};

struct track {
  uint8_t *map;      /* 4 bits a block: room for the states of later releases */
  struct bits *disk; /* what of it is kept on disk: set where it is not CLEAN.  NULL: nothing */
  uint64_t n_blocks;
  uint64_t size;     /* bytes of the data */
  uint32_t block_size;
  uint8_t epoch;     /* 0 = A, 1 = B: what is sent now */
  bool closing;      /* the other epoch waits for its flush */
  uint64_t count[TS_STATES];
  uint64_t cleaned;  /* blocks that became clean, ever: progress, never falls */
  uint64_t cursor;   /* where the search for dirty blocks goes on */
  uint64_t illegal;  /* moves that the table forbids: counted, treated as TM_MARK */
  unsigned n_sent[2];
  struct track_range sent[2][TRACK_MAX_SENT];
};

/* Bytes of map for a store: 8 MiB for each TiB at 64 KiB blocks. */
extern size_t track_memory_bytes (uint64_t size, uint32_t block_size);
/* All blocks are CLEAN, but those that `disk` says (NULL: none) are in DOUBT.  zeroed: the memory is, and is
 * touched only where something is to be noted. */
extern void track_init (struct track *t, uint8_t *map, uint64_t size, uint32_t block_size,
                        struct bits *disk, bool zeroed);
extern enum track_state track_get (const struct track *t, uint64_t block);

/* The one function for all failures.  Bytes; every block that the range touches. */
extern void track_mark (struct track *t, uint64_t offset, uint64_t length);
/* ... where a digest may tell that nothing is lacking.  What is DIRTY stays so. */
extern void track_doubt (struct track *t, uint64_t offset, uint64_t length);
extern void track_doubt_all (struct track *t);
/* Link lost, or its answers can't be trusted: all that is SENT is in doubt. */
extern void track_doubt_sent (struct track *t);

/* Can a write to this range be sent, and its blocks followed until they are stable?  False:
 * the list of this epoch is full; mark it instead. */
extern bool track_can_send (const struct track *t);
/* A write of the application was put in the stream.  A block that was dirty and is not covered
 * as a whole stays dirty. */
extern void track_write_sent (struct track *t, uint64_t offset, uint64_t length);
/* Is every block of the range dirty (so that sending it would be wasted), or, if that counts, in doubt? */
extern bool track_all_dirty (const struct track *t, uint64_t offset, uint64_t length, bool doubt_counts);

/* The next run of blocks that are all DIRTY, or all in DOUBT, at or after the cursor, round the end,
 * at most max_dirty or max_doubt long: false if none.  Moves the cursor behind it. */
extern bool track_next (struct track *t, uint64_t max_dirty, uint64_t max_doubt, struct track_range *run);
extern void track_lock (struct track *t, struct track_range run);   /* -> SYNCING */
extern void track_ask (struct track *t, struct track_range run);    /* DOUBT -> ASKED */
/* SYNCING: all of it is in the stream; ASKED: it is the same on the copy.  Clean behind a flush. */
extern void track_resync_sent (struct track *t, struct track_range run);

/* A flush frame goes into the stream: closes the epoch.  Only if !closing. */
extern void track_flush_sent (struct track *t);
extern void track_flush_done (struct track *t);
/* A flush that covers everything sent so far was confirmed (ENTER). */
extern void track_all_stable (struct track *t);

/* Neither clean nor sent: blocks. */
static inline uint64_t
track_open (const struct track *t)
{
  return t->count[TS_DIRTY] + t->count[TS_DOUBT] + t->count[TS_ASKED] + t->count[TS_SYNCING];
}

/* What the resync may take now: blocks. */
static inline uint64_t
track_waiting (const struct track *t)
{
  return t->count[TS_DIRTY] + t->count[TS_DOUBT];
}

/* Not clean: bytes, the end of the store taken into account as whole blocks. */
extern uint64_t track_behind_bytes (const struct track *t);

#endif
