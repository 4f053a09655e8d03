/* SPDX-License-Identifier: BSD-3-Clause */
/* The blocks that the recorder writes: who wrote what, where, and whether it is whole.  Pure;
 * any thread.
 *
 * Layout, little endian: magic (8 bytes), run (8), block (8), writer (4), zero (4), sequence
 * (8), filler that follows from the former up to byte 4092, CRC32C of all before it (4).
 */
#ifndef CRG_RECORDER_BLOCK_H
#define CRG_RECORDER_BLOCK_H

#include <stdint.h>

#define REC_BLOCK_SIZE 4096u

/* One write has one tag; no two writes of a run share it. */
struct block_tag {
  uint64_t run;
  uint64_t block;
  uint64_t seq;
  uint32_t writer;
};

enum block_verdict {
  BLOCK_VALID,   /* a whole block of some run */
  BLOCK_FOREIGN, /* not one of ours: no magic */
  BLOCK_DAMAGED, /* magic, but the CRC or the filler is wrong */
};

extern void block_make (const struct block_tag *tag, uint8_t buf[REC_BLOCK_SIZE]);

/* Fills 'tag' unless the block is BLOCK_FOREIGN. */
extern enum block_verdict block_read (const uint8_t buf[REC_BLOCK_SIZE], struct block_tag *tag);

/* FNV-1a, 64 bits: names content that isn't ours. */
extern uint64_t block_hash (const uint8_t buf[REC_BLOCK_SIZE]);

#endif /* CRG_RECORDER_BLOCK_H */
