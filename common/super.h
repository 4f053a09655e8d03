/* SPDX-License-Identifier: BSD-3-Clause */
/* The metadata at the end of a store: where each part lies, and the codec of its blocks.
 * Pure: no I/O, no state, any thread.
 *
 *   0                 data_bytes                                          store_bytes
 *   | data            | written | hot | claims | bitmap of site 0 .. 7 | slot 0 | slot 1 |
 *
 * Data keeps offset 0, so that a store can be used without us in an emergency.  The two
 * superblock slots are the last two whole blocks of 4096 bytes, so that the store's size
 * alone finds them.  All space is reserved when the store is made: the size of an export
 * never changes when a later release or state needs more of it.
 *
 * The metadata may also live on a second file or device (SUPER_F_EXTERNAL), so that a store needs no
 * free tail.  Offsets then go on: the second one's byte 0 stands where the store's last whole block
 * ends, and store_bytes is the size of both together.  So all that follows is the same for both.
 *
 * Cost with dirty blocks of 64 KiB, for each TiB: nine bitmaps (written, and one for each of
 * CRG_MAX_SITES) of 521 blocks, 18.3 MiB together; hot map, two copies of 33 blocks, 264 KiB;
 * claims, 256 KiB.  With 4 KiB dirty blocks 293 MiB, with 1 MiB dirty blocks 1.7 MiB.
 *
 * Writing: a new superblock goes to the slot that does not hold the newest valid one (sequence
 * + 1), then a flush.  A crash leaves the old or the new one.  A change that forbids something
 * (unusable, fork, a higher tenure, removal from the set, open) is written to the one slot and
 * then the other, each flushed, before anybody relies on it: so damage to one slot later can
 * not bring back a more permissive past.  A change that allows something (clean, entering the
 * set) needs one slot.  'crgctl iasp create' writes sequence 1 to slot 0 and 2 to slot 1;
 * 'crgctl create' empties both and writes slot 0, and the first opening writes both.
 */
#ifndef CRG_SUPER_H
#define CRG_SUPER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/limits.h"

/* ---- layout ------------------------------------------------------------------------------ */

struct meta_area {
  uint64_t offset; /* bytes from the start of the store; multiple of META_BLOCK_SIZE */
  uint64_t blocks; /* of META_BLOCK_SIZE */
};

struct meta_layout {
  uint64_t store_bytes;      /* as given */
  uint64_t data_bytes;       /* room for data, whole META_BLOCKs; an export may be smaller */
  uint32_t dirty_block_size; /* bytes for each bit of written and bitmap */
  struct meta_area written;  /* one bitmap: has this block ever been written */
  struct meta_area hot;      /* two copies of a map of regions, one after the other */
  struct meta_area claims;   /* S1: a block for each node that opens it (claim.h) */
  struct meta_area bitmap[CRG_MAX_SITES];
  uint64_t slot_offset[2];   /* superblocks */
};

/* So many claims: far more than a site has nodes, so that a node's id tells its place. */
#define META_CLAIMS 64

/* Smallest store: the metadata needs at least 308 KiB; the rest is data. */
#define META_MIN_STORE_BYTES (1024 * 1024)

/* Computes the layout.  0; -EINVAL if dirty_block_size is no power of two or out of
 * DIRTY_BLOCK_SIZE_MIN..MAX; -ENOSPC if the store is smaller than META_MIN_STORE_BYTES;
 * -EFBIG if it is larger than STORE_MAX_BYTES. */
extern int meta_layout (uint64_t store_bytes, uint32_t dirty_block_size,
                        struct meta_layout *layout);

/* Where to look for the superblocks of a store whose layout is not known yet.  0, -ENOSPC,
 * -EFBIG. */
extern int meta_slot_offsets (uint64_t store_bytes, uint64_t slot_offset[2]);

/* A size of store that has room for data_bytes: the smallest, or a few blocks more.  0 if there
 * is none (or the arguments are bad). */
extern uint64_t meta_store_bytes_for (uint64_t data_bytes, uint32_t dirty_block_size);

/* The layout with the metadata on a file or device of its own, of meta_bytes; both sizes as they are,
 * what is behind their last whole block is not used.  data_bytes is the store's.  As meta_layout, and
 * -ENOSPC if meta_bytes are too few. */
extern int meta_layout_apart (uint64_t data_store_bytes, uint64_t meta_bytes, uint32_t dirty_block_size,
                              struct meta_layout *layout);
/* The size of the smallest such file; 0: none. */
extern uint64_t meta_bytes_apart (uint64_t data_store_bytes, uint32_t dirty_block_size);

/* ---- blocks of the maps ----------------------------------------------------------------- */

/* Each block of written, hot, claims and bitmap: a header of 64 bytes, then the map's bytes:
 *   0 magic u32 "CRGM" | 4 kind u8 | 5 site u8 | 6 version u16 | 8 index u64 | 16 sequence u64
 *  24 store id, 16 bytes | 40 zero, 20 bytes | 60 CRC32C of the block without these 4 bytes
 * A block that is not what its place says (or torn) is not used; its bits count as set. */
#define META_BLOCK_HEADER  64
#define META_BLOCK_PAYLOAD (META_BLOCK_SIZE - META_BLOCK_HEADER)
#define META_BLOCK_BITS    (META_BLOCK_PAYLOAD * 8)

enum meta_kind {
  META_WRITTEN = 1,
  META_HOT,
  META_CLAIM,
  META_BITMAP,
};

struct meta_block_id {
  uint8_t kind; /* enum meta_kind */
  uint8_t site; /* META_BITMAP: of this site; else 0 */
  uint64_t index;
  uint8_t store_id[CRG_ID_LEN];
};

/* Writes the header over the first 64 bytes of a block whose payload is in place. */
extern void meta_block_seal (uint8_t block[META_BLOCK_SIZE], const struct meta_block_id *id,
                             uint64_t sequence);

/* Is it that block, whole?  0 and the sequence; -ENODATA for a block of zeroes (never
 * written, if the superblock doesn't have its map as sealed); -EBADMSG otherwise. */
extern int meta_block_check (const uint8_t block[META_BLOCK_SIZE],
                             const struct meta_block_id *id, uint64_t *sequence);

/* The same for a block of a map of which the superblock says in `sealed` whether all its blocks
 * were written: then zeroes are damage, -EBADMSG. */
extern int meta_block_check_sealed (const uint8_t block[META_BLOCK_SIZE],
                                    const struct meta_block_id *id, uint32_t sealed,
                                    uint64_t *sequence);

/* The maps of which every block has been written: there a block of zeroes is damage. */
#define SUPER_SEALED_BITMAP(site) (1u << (site))
#define SUPER_SEALED_HOT          (1u << CRG_MAX_SITES)
#define SUPER_SEALED_WRITTEN      (1u << (CRG_MAX_SITES + 1))
#define SUPER_SEALED_ALL          ((1u << (CRG_MAX_SITES + 2)) - 1)

/* ---- superblock -------------------------------------------------------------------------- */

/* Another major: refused.  A higher minor: its additions may be ignored (they are in bytes
 * that this release writes as zero and keeps out of its decisions); it is not written back by
 * an older release without the operator having been told. */
#define SUPER_MAJOR 1
#define SUPER_MINOR 3

/* Which file or device it is, in text (storefile.h); "" if nothing is known that stays. */
#define SUPER_IDENTITY_MAX 127

enum super_role {
  SUPER_ROLE_NONE = 0,   /* formatted, never part of a record */
  SUPER_ROLE_MIRROR,
  SUPER_ROLE_PRODUCTION,
  SUPER_ROLE_DETACHED,
};
extern const char *super_role_name (uint8_t role);

#define SUPER_F_OPEN     0x0001 /* a plugin has it open, or had when it died */
#define SUPER_F_CLEAN    0x0002 /* released gracefully; never together with OPEN */
#define SUPER_F_UNUSABLE 0x0004 /* target of an unfinished resynchronisation, or never filled */
#define SUPER_F_FORK     0x0008 /* diverged (R6, detach): not to be used without an operator */
#define SUPER_F_DIRECT   0x0010 /* R5: last opened without the page cache */
#define SUPER_F_RESTARTED 0x0020 /* R5: a mirror copy that was opened restarted, and not filled since */
#define SUPER_F_FILLING  0x0040 /* with UNUSABLE: the bitmap of the own site says what is lacking */
#define SUPER_F_TRACKED  0x0080 /* all that it was written as a fork is in its maps */
#define SUPER_F_EXTERNAL 0x0100 /* the metadata is not at the store's own end; minor 2 */
#define SUPER_F_WRITTEN  0x0200 /* the map 'written' counts: what it doesn't have is zeroes; minor 3 */
#define SUPER_F_ALL      0x03ff

struct superblock {
  uint16_t minor;    /* as read; encode writes SUPER_MINOR */
  uint64_t sequence; /* the higher valid one is the newer */
  uint8_t store_id[CRG_ID_LEN]; /* random, from formatting: tells old map blocks apart */
  uint8_t cluster_id[CRG_ID_LEN];
  uint8_t crg_id[CRG_ID_LEN]; /* all zero: belongs to no CRG (S3) */
  uint8_t iasp_id[CRG_ID_LEN];
  uint8_t lineage[CRG_ID_LEN]; /* C9 */
  char crg[CRG_NAME_MAX + 1];
  char iasp[CRG_NAME_MAX + 1];
  char site_name[CRG_NAME_MAX + 1];
  uint8_t site;              /* index, below CRG_MAX_SITES */
  uint8_t role;              /* enum super_role, when last written */
  uint16_t flags;            /* SUPER_F_* */
  uint64_t store_bytes;      /* when formatted */
  uint64_t data_bytes;       /* size of the export */
  uint32_t block_size;       /* smallest write of the store, bytes, power of two */
  uint32_t dirty_block_size;
  uint64_t tenure;           /* R1: highest seen */
  uint64_t generation;       /* R2 */
  uint64_t since;            /* R2; 0: not in the set */
  uint32_t in_set;           /* bit s: site s was in the set at 'generation'; a hint for people */
  uint64_t loss;
  /* Open record (S1, R5): who has, or last had, the store open. */
  char open_node[CRG_NAME_MAX + 1];
  uint8_t open_boot_id[CRG_ID_LEN];
  uint64_t open_session;     /* wire_hello.session of that process */
  uint32_t sealed;           /* SUPER_SEALED_*; minor 1 */
  uint64_t resync_rate;      /* bytes/s, last measured as production; 0: never; minor 1 */
  /* EXTERNAL, minor 2: the size of the file with the metadata, in whole blocks (a part of
   * store_bytes), and which store and which file belong together. */
  uint64_t meta_bytes;
  char data_identity[SUPER_IDENTITY_MAX + 1];
  char meta_identity[SUPER_IDENTITY_MAX + 1];
};

enum super_status {
  SUPER_OK = 0,
  SUPER_EMPTY,         /* no superblock of ours: another magic, or none */
  SUPER_BAD_CRC,       /* ours, but damaged or torn */
  SUPER_BAD_MAJOR,     /* ours, whole, of a format that we do not know */
  SUPER_BAD_FIELD,     /* ours, whole, and senseless */
  SUPER_CONFLICT,      /* both whole, and they can not both be true */
};
extern const char *super_strerror (enum super_status status);

/* Encodes into one block for 'slot' (0 or 1).  The fields must be valid (asserted). */
extern void super_encode (const struct superblock *sb, unsigned slot,
                          uint8_t block[META_BLOCK_SIZE]);
extern enum super_status super_decode (const uint8_t block[META_BLOCK_SIZE], unsigned slot,
                                       struct superblock *sb);

struct super_choice {
  enum super_status status[2]; /* of each slot */
  int slot;                    /* of the one to use, or -1 */
  bool damaged;                /* the other slot is torn, damaged or older than our writer leaves it.
                                * What was relied on is in the chosen one (see Writing); write
                                * both slots anew before relying on anything further */
};

/* Chooses the newest valid superblock.  SUPER_OK: *sb is it.  SUPER_EMPTY: neither slot is ours.
 * A whole slot of an unknown major refuses the store, even if the other is known: a later
 * release has been here; so does a whole one with a senseless field, and a pair that no writer
 * leaves behind (SUPER_CONFLICT).  One slot empty and the other valid with sequence 1: fresh. */
extern enum super_status super_choose (const uint8_t slot0[META_BLOCK_SIZE],
                                       const uint8_t slot1[META_BLOCK_SIZE],
                                       struct superblock *sb, struct super_choice *choice);

/* F6: are the copies of the set equal when this store, found `clean` or not, is opened as production of
 * `tenure`?  They are if it was production last, drained all of them before it was released, and nobody
 * was production since: whoever was may have written what no copy answered.  A store that was never
 * opened is as good: nothing was written. */
extern bool super_set_is_equal (const struct superblock *sb, bool clean, uint64_t tenure);

/* Does this superblock belong to what it was found on?  meta_bytes 0: at the store's own end; else on
 * a file of so many bytes beside a store, with these identities.  NULL, or why not: the rest of a
 * sentence that begins with the store's name and a colon. */
extern const char *super_check_place (const struct superblock *sb, uint64_t meta_bytes,
                                      const char *data_identity, const char *meta_identity);

#endif /* CRG_SUPER_H */
