/* SPDX-License-Identifier: BSD-3-Clause */
/* What a store remembers of differences between the copies, as it stands on its disk: the hot
 * regions (hot.h), and for each site a map of dirty blocks; and what of it was ever written.  Both
 * sides have one: production's replication core and a copy's core.
 *
 * Pure: no I/O, clock, thread, allocation.  The owner changes the maps in memory; mark_begin ()
 * opens a stage, the shell writes the blocks that mark_next () yields, flushes them, and says so
 * with mark_done ().  Dirty first, clean late: while a cleared hot mark is not on disk yet, a
 * stage with all changed dirty maps goes before the one with the hot map.
 *
 * Dirty bits are not written while their region is hot: after a crash a hot region counts as
 * dirty for every other site.
 *
 * The map of the own site says what this store itself lacks, from a filling that has not ended.
 *
 * The map of what was written, for a store that was all zeroes when it was made:
 * W1  A block that it does not have reads as zeroes, and has since then.
 * W2  A region has all its blocks in it, on the disk, when it is hot there; so before its first write.
 *     Both marks go in one stage.  Hot without written, as a crash in the middle of that stage leaves it,
 *     is both before the next write.
 * W3  What can't be read of it, and a store without it, counts as written.
 * So zeroes for what was never written change nothing, on any copy, and are not to be marked.
 */
#ifndef IASP_MARK_H
#define IASP_MARK_H

#include "common/super.h"
#include "plugin/hot.h"

struct bits {
  uint8_t *map;      /* payloads of the blocks on disk, one after the other; NULL: no such map */
  uint8_t *changed;  /* one bit a block: differs from the disk */
  uint64_t n_bits, n_blocks;
  uint64_t n_set;
};

extern size_t bits_memory_bytes (uint64_t n_bits);
extern void bits_init (struct bits *b, void *memory, uint64_t n_bits);
extern bool bits_get (const struct bits *b, uint64_t i);
extern void bits_set (struct bits *b, uint64_t i, bool on);
extern void bits_fill (struct bits *b, bool on);

enum mark_stage { MS_IDLE, MS_BITS, MS_HOT };

/* Blocks of the hot map in one batch: more wishes go with the next. */
#define MARK_MAX_HOT 64

struct mark {
  struct hot hot;
  uint32_t block_size;      /* of the dirty maps, bytes */
  uint64_t data_bytes;
  struct bits bits[CRG_MAX_SITES];
  struct bits written;      /* map NULL: all of it was (W3) */
  uint8_t stage;            /* enum mark_stage */
  bool idle;                /* of this batch */
  bool uncovered;           /* a hot mark was cleared since the last hot stage began */
  unsigned site;            /* MS_BITS: where the search goes on */
  uint64_t block;           /* MS_HOT: in the map of what was written */
  uint64_t hot_blocks[MARK_MAX_HOT];
  unsigned n_hot, next_hot; /* next_hot counts both copies */
  uint64_t sequence;        /* of the blocks of this stage */
  uint64_t wanted, taken, persisted; /* tickets of mark_persist () */
  uint64_t stages, blocks_written;
};

/* One block to be written. */
struct mark_block {
  uint8_t kind;   /* enum meta_kind: META_HOT, META_WRITTEN or META_BITMAP */
  uint8_t site;   /* META_BITMAP */
  uint8_t copy;   /* META_HOT: 0 or 1 */
  uint64_t index;
  const uint8_t *payload; /* META_BLOCK_PAYLOAD bytes, to be copied before the next step */
};

/* Memory for the hot map and for a map of each site of the mask. */
extern size_t mark_memory_bytes (uint64_t data_bytes, uint32_t block_size, uint32_t region_size,
                                 unsigned max_entries, unsigned n_sites);
/* The memory is zeroed by the caller: a huge store costs what is noted of it. */
extern void mark_init (struct mark *m, void *memory, uint64_t data_bytes, uint32_t block_size,
                       uint32_t region_size, unsigned max_entries, unsigned n_sites);

/* At open: what one block on disk says.  payload NULL: it is damaged, all its bits count.  both:
 * its two copies say the same; else it is written anew before anything relies on it. */
extern void mark_load_hot (struct mark *m, uint64_t index, const uint8_t *payload, bool both);
extern void mark_load_bits (struct mark *m, unsigned site, uint64_t index, const uint8_t *payload);

/* This store has a map of what was written.  memory: bits_memory_bytes () of a bit for each block, zeroed.  Each of
 * its blocks is loaded like those of a dirty map; then mark_loaded () sees to W2. */
extern void mark_use_written (struct mark *m, void *memory);
extern void mark_load_written (struct mark *m, uint64_t index, const uint8_t *payload);
extern void mark_loaded (struct mark *m);
/* How many bytes from `offset` on, of `length`, were never written: whole blocks, but the last of the data.  m may be
 * NULL: none. */
extern uint64_t mark_unwritten (const struct mark *m, uint64_t offset, uint64_t length);
/* Of the data. */
extern uint64_t mark_written_bytes (const struct mark *m);

/* Bytes; every block that the range touches. */
extern void mark_dirty (struct mark *m, unsigned site, uint64_t offset, uint64_t length);

/* Clears hot marks (hot_clear, hot_settle) between batches.  False: not now, or nothing. */
extern bool mark_clear (struct mark *m, bool all);
extern bool mark_settle (struct mark *m);

/* Asks for all changed dirty maps on disk.  They are when m->persisted reaches the answer. */
extern uint64_t mark_persist (struct mark *m);

/* Opens a stage if there is something to write.  idle: clearings alone are worth it too. */
extern bool mark_begin (struct mark *m, bool idle);
extern bool mark_next (struct mark *m, struct mark_block *b);
/* Written and flushed, or (ok false) not.  True: another stage is open. */
extern bool mark_done (struct mark *m, bool ok);

/* The map of what may differ from `site`, for the other end of a link: hot regions, the dirty map
 * of `site` and what `own` lacks.  Fills META_BLOCK_PAYLOAD bytes for block `index`; returns how
 * many bits are set. */
extern uint64_t mark_report (const struct mark *m, unsigned site, unsigned own, uint64_t index,
                             uint8_t *payload);

#endif
