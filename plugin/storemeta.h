/* SPDX-License-Identifier: BSD-3-Clause */
/* The superblocks of the open store: reads them, checks that the store is the one that we were
 * told of, and prepares each new version for its slot.  Owned by the thread that owns the store
 * (main before the fork, then the engine).  The blocking functions are for changes of role, when
 * nothing else waits; the engine writes all other versions through its ring, with
 * storemeta_prepare.
 */
#ifndef IASP_STOREMETA_H
#define IASP_STOREMETA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/super.h"
#include "plugin/params.h"
#include "plugin/store.h"

struct storemeta {
  bool valid;           /* sb holds the store's superblock */
  bool damaged;         /* one of the slots was not what our writer leaves behind */
  int slot;             /* that holds sb; the next version goes to the other */
  struct superblock sb;
  uint8_t *block;       /* META_BLOCK_SIZE, aligned: the version on its way to disk */
};

extern int storemeta_init (struct storemeta *sm); /* 0 or -ENOMEM */
extern void storemeta_destroy (struct storemeta *sm);

/* S3: 0 if no CRG claims the store; else -EBUSY, with a sentence.  A damaged or unknown superblock
 * counts as a claim. */
extern int storemeta_check_free (struct store *s, const char *path, char *err, size_t errlen);

/* Reads both slots.  0: sm->sb is the newest; -ENODATA: the store has none; -EUCLEAN, with a
 * sentence: it must not be used; -ESTALE, with a sentence: it is another store's. */
extern int storemeta_read (struct storemeta *sm, struct store *s, const char *path, char *err,
                           size_t errlen);

/* Fills sm->sb for a store without one: unusable until it is filled, or production. */
extern int storemeta_format (struct storemeta *sm, struct store *s, const struct params *p,
                             uint8_t site, char *err, size_t errlen);

/* Encodes the next version of sm->sb into sm->block.  Returns its offset on the store.  From here
 * on that version counts as the newest. */
extern uint64_t storemeta_prepare (struct storemeta *sm);
/* Its write failed: the other slot is still the good one, and the next version goes here again. */
extern void storemeta_failed (struct storemeta *sm);

/* Writes and flushes: to both slots, one after the other, if what it says forbids something, else
 * to one.  0 or -errno. */
extern int storemeta_write (struct storemeta *sm, struct store *s, bool both);

#endif /* IASP_STOREMETA_H */
