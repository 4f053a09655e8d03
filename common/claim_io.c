/* SPDX-License-Identifier: BSD-3-Clause */
/* Carries out the rule of claims (claim.h) on a store, for a caller who can wait: the plugin when it opens
 * one, and the daemon's children.  It decides nothing.
 */
#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/claim.h"
#include "common/util-posix.h"

struct work {
  struct claim *c;
  const struct superblock *sb;
  const struct claim_io *io;
  struct meta_layout layout;
  uint8_t *blocks; /* META_CLAIMS */
};

static int
look_at_all (const struct work *w)
{
  int r = w->io->read (w->io->opaque, w->blocks, META_CLAIMS * META_BLOCK_SIZE, w->layout.claims.offset);

  for (unsigned i = 0; i < META_CLAIMS && r == 0; i++) {
    struct claim_block found;
    bool stands = claim_decode (w->blocks + (size_t) i * META_BLOCK_SIZE, i, w->sb->store_id, &found);

    claim_saw (w->c, i, stands ? &found : NULL, stands && w->io->is_fenced (w->io->opaque, found.node));
  }
  return r;
}

static int
put (const struct work *w, unsigned place, const struct claim_block *what)
{
  claim_encode (what, place, w->sb->store_id, w->blocks);
  return w->io->write (w->io->opaque, w->blocks, META_BLOCK_SIZE, w->layout.claims.offset + place * META_BLOCK_SIZE);
}

static int
carry_out (struct claim *c, enum claim_act act, const struct superblock *sb, const struct claim_io *io)
{
  CLEANUP_FREE uint8_t *blocks = NULL;
  struct work w = { .c = c, .sb = sb, .io = io };
  void *p;
  int r = meta_layout (sb->store_bytes, sb->dirty_block_size, &w.layout);

  if (r < 0)
    return r;
  if (posix_memalign (&p, META_BLOCK_SIZE, META_CLAIMS * META_BLOCK_SIZE) != 0)
    return -ENOMEM;
  w.blocks = blocks = p;
  for (;;)
    switch (act) {
    case CLAIM_LOOK:
      act = claim_done (c, look_at_all (&w));
      break;
    case CLAIM_SET:
      act = claim_done (c, put (&w, c->place, &c->own));
      break;
    case CLAIM_CLEAR:
      act = claim_done (c, put (&w, c->place, NULL));
      break;
    case CLAIM_HELD:
      return 0;
    case CLAIM_REFUSED:
      return c->error < 0 ? c->error : -EBUSY;
    case CLAIM_ENDED:
      return c->error;
    }
}

int
claim_take (struct claim *c, const struct superblock *sb, uint32_t node_id, const char *node,
            const uint8_t boot_id[CRG_ID_LEN], uint64_t session, const struct claim_io *io)
{
  return carry_out (c, claim_begin (c, node_id, node, boot_id, session), sb, io);
}

int
claim_give (struct claim *c, const struct superblock *sb, const struct claim_io *io)
{
  return carry_out (c, claim_end (c), sb, io);
}

int
claim_tidy (const struct superblock *sb, uint32_t node_id, const char *node, const struct claim_io *io)
{
  const unsigned place = claim_place (node_id);
  CLEANUP_FREE uint8_t *block = NULL;
  struct claim_block found;
  struct meta_layout l;
  uint64_t offset;
  void *p;
  int r = meta_layout (sb->store_bytes, sb->dirty_block_size, &l);

  if (r < 0)
    return r;
  if (posix_memalign (&p, META_BLOCK_SIZE, META_BLOCK_SIZE) != 0)
    return -ENOMEM;
  block = p;
  offset = l.claims.offset + place * META_BLOCK_SIZE;
  r = io->read (io->opaque, block, META_BLOCK_SIZE, offset);
  if (r < 0 || !claim_decode (block, place, sb->store_id, &found) || strcmp (found.node, node) != 0)
    return r;
  claim_encode (NULL, place, sb->store_id, block);
  return io->write (io->opaque, block, META_BLOCK_SIZE, offset);
}
