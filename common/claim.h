/* SPDX-License-Identifier: BSD-3-Clause */
/* S1: who opens a store that other nodes reach too makes sure first that nobody else is opening it.
 * Each node has a block of its own among the store's claims.  It writes its name there, and only when that
 * is stable looks at all the others' and then, again, at the superblocks.  Of two that open at once at
 * least the later one sees the other; who sees a claim that is not over takes its own back and has opened
 * nothing.  A claim is held until the open record is stable in both superblocks, which then speaks for
 * itself.  Nothing else on the store is written without it.
 *
 * Nobody waits for anybody and no time matters: a write of a claim may take for ever, or come when its
 * process is long gone, and does no more than keep others out until its node takes it away (claim_tidy),
 * opens the store itself, or is fenced.  A block that is torn, or read while it is written, counts as no
 * claim, which is right: its writer has not looked yet, or has nothing to protect any more.
 *
 * The codec and the rule are pure, and run in the simulators too; any thread.  claim_take, claim_give and
 * claim_tidy carry them out for a caller who can wait.
 */
#ifndef CRG_CLAIM_H
#define CRG_CLAIM_H

#include <stdbool.h>
#include <stdint.h>

#include "common/limits.h"
#include "common/super.h"

/* ---- blocks ------------------------------------------------------------------------------ */

struct claim_block {
  char node[CRG_NAME_MAX + 1];
  uint8_t boot_id[CRG_ID_LEN];
  uint64_t session; /* of the process */
};

/* Which block is that of a node.  No two nodes of a site may have the same. */
extern unsigned claim_place (uint32_t node_id);
/* c NULL: nobody's. */
extern void claim_encode (const struct claim_block *c, unsigned place, const uint8_t store_id[CRG_ID_LEN],
                          uint8_t block[META_BLOCK_SIZE]);
/* True: a claim stands there. */
extern bool claim_decode (const uint8_t block[META_BLOCK_SIZE], unsigned place, const uint8_t store_id[CRG_ID_LEN],
                          struct claim_block *c);

/* ---- the rule ---------------------------------------------------------------------------- */

/* May this node, in this boot and with the lock of the store, disregard that `by` has it open, or opens
 * it?  S1 b: an earlier process of this machine, or of this node before it restarted; d: fenced. */
extern bool claim_is_over (const char *by, const uint8_t by_boot_id[CRG_ID_LEN], const char *node,
                           const uint8_t boot_id[CRG_ID_LEN], bool fenced);

/* The same of the open record.  A boot id of zeroes: its machine restarted, and has said so. */
extern bool claim_record_is_over (const struct superblock *sb, const char *node, const uint8_t boot_id[CRG_ID_LEN],
                                  bool fenced);
/* Does the open record name this node in an earlier boot?  Then, with the lock and a claim, it gets a boot id of
 * zeroes, so that the other nodes of the site need not wait for this one to open the store (S1 b). */
extern bool claim_is_of_the_past (const struct superblock *sb, const char *node, const uint8_t boot_id[CRG_ID_LEN]);

enum claim_act {
  CLAIM_LOOK,    /* read each block, and say with claim_saw what was there; then claim_done */
  CLAIM_SET,     /* write ours; claim_done when it is stable, or has failed */
  CLAIM_CLEAR,   /* write nobody's to ours; then claim_done */
  CLAIM_HELD,    /* the store is ours to open, if its superblocks allow it: read them now.  claim_end
                  * when the open record is stable, or nothing was opened */
  CLAIM_REFUSED, /* nothing was opened: `error`, or `other` is opening the store */
  CLAIM_ENDED,   /* after claim_end: `error` */
};

struct claim {
  uint8_t phase, place;
  bool barred;       /* seen in this look: the claim of `other` */
  bool seen;         /* and ours, as we have written it */
  int error;
  struct claim_block own, other;
  uint64_t fenced[META_CLAIMS]; /* the sessions whose claims were fenced at the first look; 0: none */
};

extern enum claim_act claim_begin (struct claim *c, uint32_t node_id, const char *node,
                                   const uint8_t boot_id[CRG_ID_LEN], uint64_t session);
/* found NULL: no claim.  fenced: that of a node which is marked failed.  What such a node claims after the first
 * look, it claims alive: it has come back meanwhile, and its claim counts. */
extern void claim_saw (struct claim *c, unsigned place, const struct claim_block *found, bool fenced);
extern enum claim_act claim_done (struct claim *c, int error);
extern enum claim_act claim_end (struct claim *c);

/* ---- claim_io.c: for who can wait -------------------------------------------------------- */

struct claim_io {
  void *opaque;
  /* 0 or -errno.  What is read is not older than the call; what was written is stable. */
  int (*read) (void *opaque, void *buf, uint32_t len, uint64_t offset);
  int (*write) (void *opaque, const void *buf, uint32_t len, uint64_t offset);
  bool (*is_fenced) (void *opaque, const char *node);
};

/* The claims of a store with this superblock.  0: held; -EBUSY: c->other is opening it; -errno. */
extern int claim_take (struct claim *c, const struct superblock *sb, uint32_t node_id, const char *node,
                       const uint8_t boot_id[CRG_ID_LEN], uint64_t session, const struct claim_io *io);
/* With the store's lock, and no process of this node that has it open: takes away the claim that one left. */
extern int claim_tidy (const struct superblock *sb, uint32_t node_id, const char *node, const struct claim_io *io);
/* Gives back what is held.  0 or -errno: then it stands, and keeps others out. */
extern int claim_give (struct claim *c, const struct superblock *sb, const struct claim_io *io);

#endif /* CRG_CLAIM_H */
