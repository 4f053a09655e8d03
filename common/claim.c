/* SPDX-License-Identifier: BSD-3-Clause */
/* Claims to open a store (S1): each node writes only its own, and looks at all only after that.  The rule
 * keeps no time and trusts no order but that of a node's own steps.
 */
#include "config.h"

#include <string.h>

#include "common/claim.h"
#include "common/ident.h"
#include "common/util.h"

/* ---- blocks --------------------------------------------------------------------------------
 * In the payload: 0 set u8 | 8 session u64 | 16 boot id | 32 node, 64 bytes, NUL-padded
 */
enum { O_SET = META_BLOCK_HEADER, O_SESSION = O_SET + 8, O_BOOT_ID = O_SET + 16, O_NODE = O_SET + 32 };

unsigned
claim_place (uint32_t node_id)
{
  return node_id % META_CLAIMS;
}

static struct meta_block_id
block_id (unsigned place, const uint8_t store_id[CRG_ID_LEN])
{
  struct meta_block_id id = { .kind = META_CLAIM, .index = place };

  memcpy (id.store_id, store_id, CRG_ID_LEN);
  return id;
}

void
claim_encode (const struct claim_block *c, unsigned place, const uint8_t store_id[CRG_ID_LEN],
              uint8_t block[META_BLOCK_SIZE])
{
  struct meta_block_id id = block_id (place, store_id);

  memset (block, 0, META_BLOCK_SIZE);
  if (c) {
    block[O_SET] = 1;
    put_le64 (block + O_SESSION, c->session);
    memcpy (block + O_BOOT_ID, c->boot_id, CRG_ID_LEN);
    memcpy (block + O_NODE, c->node, strlen (c->node));
  }
  meta_block_seal (block, &id, 0);
}

bool
claim_decode (const uint8_t block[META_BLOCK_SIZE], unsigned place, const uint8_t store_id[CRG_ID_LEN],
              struct claim_block *c)
{
  struct meta_block_id id = block_id (place, store_id);
  uint64_t sequence;
  size_t n;

  if (meta_block_check (block, &id, &sequence) != 0 || block[O_SET] != 1)
    return false;
  memset (c, 0, sizeof *c);
  c->session = get_le64 (block + O_SESSION);
  memcpy (c->boot_id, block + O_BOOT_ID, CRG_ID_LEN);
  memcpy (c->node, block + O_NODE, sizeof c->node);
  n = strnlen (c->node, sizeof c->node);
  return n < sizeof c->node && is_all_zero (c->node + n, sizeof c->node - n) && ident_name_is_valid (c->node);
}

/* ---- the rule ------------------------------------------------------------------------------ */

bool
claim_is_over (const char *by, const uint8_t by_boot_id[CRG_ID_LEN], const char *node,
               const uint8_t boot_id[CRG_ID_LEN], bool fenced)
{
  return ident_id_equal (by_boot_id, boot_id) || strcmp (by, node) == 0 || fenced;
}

bool
claim_record_is_over (const struct superblock *sb, const char *node, const uint8_t boot_id[CRG_ID_LEN], bool fenced)
{
  return ident_id_is_zero (sb->open_boot_id) || claim_is_over (sb->open_node, sb->open_boot_id, node, boot_id, fenced);
}

bool
claim_is_of_the_past (const struct superblock *sb, const char *node, const uint8_t boot_id[CRG_ID_LEN])
{
  return (sb->flags & SUPER_F_OPEN) && strcmp (sb->open_node, node) == 0 && !ident_id_is_zero (sb->open_boot_id)
         && !ident_id_equal (sb->open_boot_id, boot_id);
}

enum { NONE, FIRST_LOOK, SETTING, SECOND_LOOK, HELD, GIVING, BACKING };

static enum claim_act
look (struct claim *c, uint8_t phase)
{
  c->phase = phase;
  c->barred = c->seen = false;
  return CLAIM_LOOK;
}

static enum claim_act
clear (struct claim *c, uint8_t phase)
{
  c->phase = phase;
  return CLAIM_CLEAR;
}

static enum claim_act
refused (struct claim *c)
{
  c->phase = NONE;
  return CLAIM_REFUSED;
}

enum claim_act
claim_begin (struct claim *c, uint32_t node_id, const char *node, const uint8_t boot_id[CRG_ID_LEN], uint64_t session)
{
  memset (c, 0, sizeof *c);
  c->place = (uint8_t) claim_place (node_id);
  memcpy (c->own.node, node, strnlen (node, CRG_NAME_MAX));
  memcpy (c->own.boot_id, boot_id, CRG_ID_LEN);
  c->own.session = session;
  return look (c, FIRST_LOOK);
}

void
claim_saw (struct claim *c, unsigned place, const struct claim_block *found, bool fenced)
{
  if (!found)
    return;
  if (place == c->place && found->session == c->own.session && strcmp (found->node, c->own.node) == 0)
    c->seen = true;
  else {
    if (fenced && c->phase == FIRST_LOOK)
      c->fenced[place] = found->session;
    if (!claim_is_over (found->node, found->boot_id, c->own.node, c->own.boot_id,
                        fenced && c->fenced[place] == found->session)) {
      c->barred = true;
      c->other = *found;
    }
  }
}

enum claim_act
claim_done (struct claim *c, int error)
{
  if (error < 0 && c->error == 0)
    c->error = error;
  switch (c->phase) {
  case FIRST_LOOK: /* only so that two do not refuse each other more often than they have to */
    if (error < 0 || c->barred)
      return refused (c);
    c->phase = SETTING;
    return CLAIM_SET;
  case SETTING:
    return error < 0 ? clear (c, BACKING) : look (c, SECOND_LOOK);
  case SECOND_LOOK:
    /* Another node's write came to our place: it is not ours to clear. */
    if (error == 0 && !c->seen)
      return refused (c);
    if (error < 0 || c->barred)
      return clear (c, BACKING);
    c->phase = HELD;
    return CLAIM_HELD;
  case GIVING:
    c->phase = NONE;
    return CLAIM_ENDED;
  default:
    return refused (c);
  }
}

enum claim_act
claim_end (struct claim *c)
{
  return c->phase == HELD ? clear (c, GIVING) : CLAIM_ENDED;
}
