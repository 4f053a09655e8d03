/* SPDX-License-Identifier: BSD-3-Clause */
/* Fuzz target: superblocks, their choice, the blocks of the maps, and claims.  The first byte says which
 * checksums are put right.  A superblock or a claim that is accepted must be encoded to the same content.
 */
#include <stdlib.h>
#include <string.h>

#include "common/claim.h"
#include "common/crc32c.h"
#include "common/super.h"
#include "common/util.h"

extern int LLVMFuzzerTestOneInput (const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
  static uint8_t slot[2][META_BLOCK_SIZE], out[META_BLOCK_SIZE];
  struct superblock sb, again;
  struct super_choice choice;
  struct claim_block claim, again_claim;
  struct meta_layout layout;
  struct meta_block_id id = { .kind = META_HOT };
  uint64_t sequence;
  uint8_t how;

  if (size < 1)
    return 0;
  how = data[0];
  data++, size--;
  memset (slot, 0, sizeof slot);
  memcpy (slot[0], data, MIN (size, (size_t) 1024));
  if (size > 1024)
    memcpy (slot[1], data + 1024, MIN (size - 1024, (size_t) 1024));
  for (unsigned i = 0; i < 2; i++)
    if (how & (1 << i))
      put_le32 (slot[i] + META_BLOCK_SIZE - 4, crc32c (0, slot[i], META_BLOCK_SIZE - 4));
  for (unsigned i = 0; i < 2; i++)
    if (super_decode (slot[i], i, &sb) == SUPER_OK) {
      super_encode (&sb, i, out);
      if (super_decode (out, i, &again) != SUPER_OK || again.sequence != sb.sequence ||
          again.generation != sb.generation || again.tenure != sb.tenure)
        abort ();
    }
  if (super_choose (slot[0], slot[1], &sb, &choice) == SUPER_OK &&
      (choice.slot < 0 || choice.slot > 1 || choice.status[choice.slot] != SUPER_OK))
    abort ();
  if (how & 4)
    put_le32 (slot[0] + 60, crc32c (crc32c (0, slot[0], 60), slot[0] + 64, META_BLOCK_SIZE - 64));
  (void) meta_block_check (slot[0], &id, &sequence);
  if (claim_decode (slot[0], 0, id.store_id, &claim)) {
    claim_encode (&claim, 0, id.store_id, out);
    if (!claim_decode (out, 0, id.store_id, &again_claim) || memcmp (&claim, &again_claim, sizeof claim) != 0)
      abort ();
  }
  if (size >= 12 && meta_layout (get_le64 (data), get_le32 (data + 8), &layout) == 0) {
    uint64_t end = layout.data_bytes;
    if (layout.written.offset < end || layout.slot_offset[1] + META_BLOCK_SIZE > layout.store_bytes ||
        layout.slot_offset[0] >= layout.slot_offset[1])
      abort ();
  }
  return 0;
}
