/* SPDX-License-Identifier: BSD-3-Clause */
/* Hot regions: which parts of the store may hold a write that is not yet stable on every copy
 * of the in-sync set.
 *
 * A region is hot on stable storage before its first write is submitted anywhere, and stays so
 * until every in-set copy, production's own store included, has flushed after its last write.
 * So after a crash the copies can differ in hot regions only.  Production keeps one such map on
 * its store and each mirror copy one on its own.
 *
 * Pure: no I/O, clock, thread, allocation.  Marks of concurrent writes share one metadata write
 * and one flush (group commit): while a batch is on its way, new wishes gather for the next.
 * Clearing is lazy and needs no flush of its own: a stale mark costs a resync, never an answer.
 * The number of hot regions is bounded, which bounds the resync after a crash.
 *
 * It must never: say that a region is hot before its mark's flush was confirmed; clear a region
 * that has a writer, or a write that no finished flush covers.
 */
#ifndef IASP_HOT_H
#define IASP_HOT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/limits.h"

enum hot_state {
  HS_COLD,    /* not marked; nothing may be written there */
  HS_WANTED,  /* a write waits; its mark goes with the next batch */
  HS_MARKING, /* the mark is on its way to the disk */
  HS_HOT,     /* marked on stable storage: writes may go */
  HS_STATES,
};

enum hot_move {
  HM_WANT,   /* a write asks for it */
  HM_BATCH,  /* a batch takes the wish */
  HM_MARKED, /* the batch's write and flush are confirmed */
  HM_FAILED, /* the batch failed: the mark may or may not be there */
  HM_CLEAR,  /* no writer, and a flush of every copy covers its last write */
  HM_MOVES,
};

#define HOT_ILLEGAL 0xff
/* The table: next state, or HOT_ILLEGAL. */
extern const uint8_t hot_table[HS_STATES][HM_MOVES];

struct hot_entry {
  uint64_t region;
  uint64_t cycle;    /* the stamp of its last write */
  uint32_t writers;  /* writes granted or waiting, not yet ended */
  uint32_t filled;   /* bytes written, to region_size */
  uint8_t state;     /* enum hot_state; HS_COLD: the entry is free */
  bool found;        /* hot when the store was opened, or to be kept: only hot_settle () lets go of it */
  bool led;          /* the regions behind it were marked ahead */
  uint16_t older, newer; /* entry + 1, or 0: in the order in which they were last asked for */
};

struct hot {
  uint64_t n_regions;
  uint32_t region_size;    /* bytes, a power of two */
  uint32_t bit_size;       /* bytes for each bit of the map: a MiB, or a smaller region */
  uint64_t n_bits;
  unsigned max_entries, n_entries;
  unsigned n_state[HS_STATES];
  unsigned clear_above;    /* lazily keep so many hot: half the bound */
  uint16_t *index;         /* region -> entry + 1, or 0 */
  uint8_t *map;            /* payload of the map's blocks, as it is to be on disk */
  uint8_t *block_dirty;    /* one bit a block of the map */
  uint64_t n_blocks;
  struct hot_entry *entry; /* max_entries */
  uint64_t cycle;          /* of flushes: rises when one begins */
  uint64_t cycle_done;     /* what has a stamp up to it is stable wherever it must be */
  uint16_t oldest, newest; /* entry + 1 */
  unsigned n_ended;        /* regions whose writes ended since the last flush began */
  bool batch;              /* one is on its way */
  uint64_t marks, batches, clears, waits, ahead, illegal;
};

/* The region's size, so that `max_hot_bytes` (what a resync after a crash may cost) holds at
 * least 64 regions and the map no more than HOT_MAX_REGIONS; HOT_REGION_SIZE_MIN or more. */
extern uint32_t hot_region_size (uint64_t data_bytes, uint64_t max_hot_bytes);
/* Bytes of memory that hot_init wants for this store. */
extern size_t hot_memory_bytes (uint64_t data_bytes, uint32_t region_size, unsigned max_entries);
/* Starts with an empty map in memory that is all zeroes.  max_entries: 64 to HOT_MAX_ENTRIES. */
extern void hot_init (struct hot *h, void *memory, uint64_t data_bytes, uint32_t region_size,
                      unsigned max_entries);

/* What the store's own map says at open: bit n of it is set, the region may differ.  Found marks
 * stay until hot_settle (), beside the bound (they hold no entry until they are written). */
extern void hot_found (struct hot *h, uint64_t bit);
/* Is a mark on the region, or on a part of it? */
extern bool hot_is_marked (const struct hot *h, uint64_t region);
/* What was found is equal and stable on all copies of the set, and dirty for those that lack it:
 * its marks may go, unless a write has made them hot again.  False: there were none. */
extern bool hot_settle (struct hot *h);
/* Whoever gave the stamps is gone: what is marked counts as found.  Without writers only. */
extern void hot_unlink (struct hot *h);
/* The first marked bit at or after `from`, or n_bits; one bit is h->bit_size bytes. */
extern uint64_t hot_next (const struct hot *h, uint64_t from);

/* Is there an entry for all of its regions? */
extern bool hot_has_room (const struct hot *h, uint64_t offset, uint64_t length);
/* A write to [offset, offset + length) begins.  True: every region is hot, go.  False: a mark is
 * missing; ask again with hot_ready () after the next batch.  Either way the regions count one
 * writer more until hot_end ().  No entry free: *full, nothing is counted; ask again after
 * hot_clear () has found some (a flush is needed).
 *
 * A region half of which is written leads to the next hot_ahead (): they are wanted too, so that a
 * sequential writer finds its marks on the disk, and one batch serves several regions. */
extern unsigned hot_ahead (const struct hot *h);
extern bool hot_begin (struct hot *h, uint64_t offset, uint64_t length, bool *full);
/* The same, and it leads to nothing. */
extern bool hot_begin_alone (struct hot *h, uint64_t offset, uint64_t length, bool *full);
extern bool hot_ready (const struct hot *h, uint64_t offset, uint64_t length);
/* Behind hot_begin (), not if it was full: like what was found, the mark of its regions stays until
 * hot_settle () says otherwise; only the entry may go. */
extern void hot_keep (struct hot *h, uint64_t offset, uint64_t length);
/* The write is answered by all that should have it, or dirty for those that lack it; or it never
 * went.  stamp: what hot_stable () has to reach before its mark may go: production's h->cycle, a
 * copy's sequence number. */
extern void hot_end (struct hot *h, uint64_t offset, uint64_t length, uint64_t stamp);
/* Most regions that one write may touch: 64 MiB, unaligned.  Longer ones the caller splits. */
#define HOT_MAX_SPAN 66

/* Is there anything worth a batch (a wish; or clears alone, when idle)? */
extern bool hot_wants_batch (const struct hot *h, bool idle);
/* Starts a batch: fills blocks[] with the numbers of the map's blocks to be written (then
 * flushed), at most `max`.  0: nothing to do, or one is on its way. */
extern unsigned hot_batch (struct hot *h, uint64_t *blocks, unsigned max, bool idle);
extern void hot_batch_done (struct hot *h, bool ok);
/* The payload of a block of the map (META_BLOCK_PAYLOAD bytes), to be sealed and written. */
extern const uint8_t *hot_block (const struct hot *h, uint64_t block);

/* A flush of the own store and of every in-set copy begins: returns its number. */
extern uint64_t hot_flush_begin (struct hot *h);
/* ... was confirmed by all: what has a stamp up to this may be cleared. */
extern void hot_stable (struct hot *h, uint64_t stamp);
/* Clears what a flush covers, down to clear_above (or all, if `all`), what was not asked for longest
 * first; of what was found only the entry goes, not the mark.  Returns how many.  The
 * cleared marks reach the disk with a later batch.  Not while a batch is on its way. */
extern unsigned hot_clear (struct hot *h, bool all);
/* Few entries are free, and a flush would free a batch of them: time for it, before a write waits. */
extern bool hot_wants_flush (const struct hot *h);
/* Hot regions that only wait for a flush. */
extern unsigned hot_flushable (const struct hot *h);

#endif
