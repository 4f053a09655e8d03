/* SPDX-License-Identifier: BSD-3-Clause */
/* Layout and codec of the metadata at the end of a store.  Pure: numbers and buffers in,
 * structures out; no state, any thread.  Never accepts a block that is not whole, of a known
 * format and sensible in every field.
 */
#include <config.h>

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "common/crc32c.h"
#include "common/ident.h"
#include "common/super.h"
#include "common/util.h"

/* ---- layout -------------------------------------------------------------------------------- */

static int
store_size_check (uint64_t store_bytes)
{
  if (store_bytes < META_MIN_STORE_BYTES)
    return -ENOSPC;
  if (store_bytes > STORE_MAX_BYTES)
    return -EFBIG;
  return 0;
}

static bool
dirty_block_size_is_valid (uint32_t size)
{
  return is_power_of_2 (size) && size >= DIRTY_BLOCK_SIZE_MIN && size <= DIRTY_BLOCK_SIZE_MAX;
}

int
meta_slot_offsets (uint64_t store_bytes, uint64_t slot_offset[2])
{
  int r = store_size_check (store_bytes);
  uint64_t end = round_down (store_bytes, META_BLOCK_SIZE);

  if (r < 0)
    return r;
  slot_offset[0] = end - 2 * META_BLOCK_SIZE;
  slot_offset[1] = end - META_BLOCK_SIZE;
  return 0;
}

int
meta_layout (uint64_t store_bytes, uint32_t dirty_block_size, struct meta_layout *layout)
{
  uint64_t at, map_blocks, hot_blocks;
  unsigned site;
  int r;

  if (!dirty_block_size_is_valid (dirty_block_size))
    return -EINVAL;
  r = store_size_check (store_bytes);
  if (r < 0)
    return r;

  /* Maps are made for the whole store, metadata included: a little too large, but the size of
   * the data then follows without a search. */
  map_blocks = div_round_up (div_round_up (store_bytes, dirty_block_size), META_BLOCK_BITS);
  hot_blocks = div_round_up (div_round_up (store_bytes, HOT_REGION_SIZE_MIN), META_BLOCK_BITS);

  memset (layout, 0, sizeof *layout);
  layout->store_bytes = store_bytes;
  layout->dirty_block_size = dirty_block_size;

  /* From the end to the front. */
  at = round_down (store_bytes, META_BLOCK_SIZE);
  layout->slot_offset[1] = at -= META_BLOCK_SIZE;
  layout->slot_offset[0] = at -= META_BLOCK_SIZE;
  for (site = CRG_MAX_SITES; site-- > 0;) {
    at -= map_blocks * META_BLOCK_SIZE;
    layout->bitmap[site] = (struct meta_area) { at, map_blocks };
  }
  at -= META_CLAIMS * META_BLOCK_SIZE;
  layout->claims = (struct meta_area) { at, META_CLAIMS };
  at -= 2 * hot_blocks * META_BLOCK_SIZE;
  layout->hot = (struct meta_area) { at, 2 * hot_blocks };
  at -= map_blocks * META_BLOCK_SIZE;
  layout->written = (struct meta_area) { at, map_blocks };
  layout->data_bytes = at;
  return 0;
}

uint64_t
meta_store_bytes_for (uint64_t data_bytes, uint32_t dirty_block_size)
{
  struct meta_layout layout;
  uint64_t low, high, middle;

  if (data_bytes == 0 || data_bytes > STORE_MAX_BYTES)
    return 0;
  low = META_MIN_STORE_BYTES / META_BLOCK_SIZE;
  high = STORE_MAX_BYTES / META_BLOCK_SIZE;
  if (meta_layout (high * META_BLOCK_SIZE, dirty_block_size, &layout) < 0
      || layout.data_bytes < data_bytes)
    return 0;
  /* While the store grows the room for data falls now and then, by the blocks that each map
   * gains.  'high' always has the room, so the result has; it may miss the very smallest size
   * by those few blocks. */
  while (low < high) {
    int r;

    middle = low + (high - low) / 2;
    r = meta_layout (middle * META_BLOCK_SIZE, dirty_block_size, &layout);
    assert (r == 0); /* as those that are smallest and largest have one */
    if (layout.data_bytes >= data_bytes)
      high = middle;
    else
      low = middle + 1;
  }
  return low * META_BLOCK_SIZE;
}

int
meta_layout_apart (uint64_t data_store_bytes, uint64_t meta_bytes, uint32_t dirty_block_size,
                   struct meta_layout *layout)
{
  uint64_t data = round_down (data_store_bytes, META_BLOCK_SIZE);
  int r;

  if (data_store_bytes > STORE_MAX_BYTES || meta_bytes > STORE_MAX_BYTES)
    return -EFBIG;
  r = meta_layout (data + round_down (meta_bytes, META_BLOCK_SIZE), dirty_block_size, layout);
  if (r < 0)
    return r;
  if (data == 0 || layout->data_bytes < data)
    return -ENOSPC;
  layout->data_bytes = data;
  return 0;
}

uint64_t
meta_bytes_apart (uint64_t data_store_bytes, uint32_t dirty_block_size)
{
  uint64_t data = round_down (data_store_bytes, META_BLOCK_SIZE), bytes = 0, total;
  struct meta_layout layout;

  /* The maps cover the metadata too, so they grow with it, by ever less. */
  if (data == 0 || data > STORE_MAX_BYTES)
    return 0;
  do {
    total = MAX (data + bytes, (uint64_t) META_MIN_STORE_BYTES);
    if (meta_layout (total, dirty_block_size, &layout) < 0)
      return 0;
    bytes = total - MIN (data, layout.data_bytes);
  } while (layout.data_bytes < data);
  return bytes;
}

/* ---- blocks of the maps -------------------------------------------------------------------- */

#define META_MAGIC   UINT32_C (0x4d475243) /* "CRGM" */
#define META_VERSION 1

/* Of all the block but the CRC's own four bytes at 60. */
static uint32_t
meta_block_crc (const uint8_t *block)
{
  return crc32c (crc32c (0, block, 60), block + 64, META_BLOCK_SIZE - 64);
}

static void
meta_header_put (uint8_t header[META_BLOCK_HEADER], const struct meta_block_id *id,
                 uint64_t sequence)
{
  memset (header, 0, META_BLOCK_HEADER);
  put_le32 (header, META_MAGIC);
  header[4] = id->kind;
  header[5] = id->site;
  put_le16 (header + 6, META_VERSION);
  put_le64 (header + 8, id->index);
  put_le64 (header + 16, sequence);
  memcpy (header + 24, id->store_id, CRG_ID_LEN);
}

void
meta_block_seal (uint8_t block[META_BLOCK_SIZE], const struct meta_block_id *id,
                 uint64_t sequence)
{
  assert (id->kind >= META_WRITTEN && id->kind <= META_BITMAP && id->site < CRG_MAX_SITES);
  meta_header_put (block, id, sequence);
  put_le32 (block + 60, meta_block_crc (block));
}

int
meta_block_check (const uint8_t block[META_BLOCK_SIZE], const struct meta_block_id *id,
                  uint64_t *sequence)
{
  uint8_t want[META_BLOCK_HEADER];

  if (is_all_zero (block, META_BLOCK_SIZE))
    return -ENODATA;
  meta_header_put (want, id, get_le64 (block + 16));
  if (memcmp (block, want, 60) != 0 || get_le32 (block + 60) != meta_block_crc (block))
    return -EBADMSG;
  *sequence = get_le64 (block + 16);
  return 0;
}

int
meta_block_check_sealed (const uint8_t block[META_BLOCK_SIZE], const struct meta_block_id *id,
                         uint32_t sealed, uint64_t *sequence)
{
  const uint32_t bit = id->kind == META_HOT      ? SUPER_SEALED_HOT
                       : id->kind == META_BITMAP ? SUPER_SEALED_BITMAP (id->site)
                       : id->kind == META_WRITTEN ? SUPER_SEALED_WRITTEN
                                                 : 0;
  int r = meta_block_check (block, id, sequence);

  return r == -ENODATA && (sealed & bit) ? -EBADMSG : r;
}

/* ---- superblock ----------------------------------------------------------------------------
 * Bytes:
 *    0 magic "nbd-crg\n" | 8 major u16 | 10 minor u16 | 12 slot u8 | 13 site u8 | 14 role u8
 *   15 zero | 16 sequence u64 | 24 flags u16 | 26 zero u16 | 28 block size u32
 *   32 dirty block size u32 | 36 in-set u32 | 40 store bytes u64 | 48 data bytes u64
 *   56 tenure u64 | 64 generation u64 | 72 since u64 | 80 loss u64 | 88 open session u64
 *   96 store id | 112 cluster id | 128 crg id | 144 iasp id | 160 lineage | 176 open boot id
 *  192 crg, 64 bytes, NUL-padded | 256 iasp | 320 site | 384 open node
 *  448 sealed u32 | 452 resync rate u64 | 460 meta bytes u64 | 468 data identity, 128 bytes,
 *  NUL-padded | 596 meta identity | 724 zero up to 4092 | 4092 CRC32C of bytes 0 to 4091
 */

static const uint8_t super_magic[8] = "nbd-crg\n";

enum {
  O_MAJOR = 8,
  O_MINOR = 10,
  O_SLOT = 12,
  O_SITE = 13,
  O_ROLE = 14,
  O_ZERO0 = 15,
  O_SEQUENCE = 16,
  O_FLAGS = 24,
  O_ZERO1 = 26,
  O_BLOCK_SIZE = 28,
  O_DIRTY_BLOCK_SIZE = 32,
  O_IN_SET = 36,
  O_STORE_BYTES = 40,
  O_DATA_BYTES = 48,
  O_TENURE = 56,
  O_GENERATION = 64,
  O_SINCE = 72,
  O_LOSS = 80,
  O_OPEN_SESSION = 88,
  O_STORE_ID = 96,
  O_CLUSTER_ID = 112,
  O_CRG_ID = 128,
  O_IASP_ID = 144,
  O_LINEAGE = 160,
  O_OPEN_BOOT_ID = 176,
  O_CRG = 192,
  O_IASP = 256,
  O_SITE_NAME = 320,
  O_OPEN_NODE = 384,
  O_SEALED = 448,
  O_RESYNC_RATE = 452,
  O_META_BYTES = 460, /* minor 2 from here */
  O_DATA_IDENTITY = 468,
  O_META_IDENTITY = 596,
  O_END = 724,
  O_CRC = META_BLOCK_SIZE - 4,
};

#define NAME_FIELD (CRG_NAME_MAX + 1)

const char *
super_strerror (enum super_status status)
{
  switch (status) {
  case SUPER_OK:
    return "fine";
  case SUPER_EMPTY:
    return "no superblock";
  case SUPER_BAD_CRC:
    return "damaged superblock (CRC)";
  case SUPER_BAD_MAJOR:
    return "superblock of a format that this release does not know";
  case SUPER_BAD_FIELD:
    return "superblock with a senseless field";
  case SUPER_CONFLICT:
    return "two superblocks that contradict each other";
  }
  return "unknown status";
}

const char *
super_role_name (uint8_t role)
{
  switch (role) {
  case SUPER_ROLE_NONE:
    return "none";
  case SUPER_ROLE_MIRROR:
    return "mirror";
  case SUPER_ROLE_PRODUCTION:
    return "production";
  case SUPER_ROLE_DETACHED:
    return "detached";
  }
  return "role?";
}

static bool
name_is_valid_or_empty (const char *name)
{
  return name[0] == '\0' || ident_name_is_valid (name);
}

static bool
identity_is_valid (const char *identity)
{
  for (; *identity; identity++)
    if (*identity < ' ' || *identity > '~')
      return false;
  return true;
}

/* Where the metadata is, and whether it has the room there that it needs. */
static bool
place_is_valid (const struct superblock *sb, const struct meta_layout *layout)
{
  if (!(sb->flags & SUPER_F_EXTERNAL))
    return sb->meta_bytes == 0 && !sb->data_identity[0] && !sb->meta_identity[0]
           && sb->data_bytes <= layout->data_bytes;
  return sb->meta_bytes > 0 && sb->meta_bytes % META_BLOCK_SIZE == 0 && sb->store_bytes % META_BLOCK_SIZE == 0
         && sb->meta_bytes < sb->store_bytes && layout->data_bytes >= sb->store_bytes - sb->meta_bytes
         && sb->data_bytes <= sb->store_bytes - sb->meta_bytes && identity_is_valid (sb->data_identity)
         && identity_is_valid (sb->meta_identity);
}

/* The rules that every superblock keeps, whoever wrote it. */
static bool
super_is_valid (const struct superblock *sb)
{
  struct meta_layout layout;
  bool owned = !ident_id_is_zero (sb->crg_id);

  return sb->sequence > 0 && !ident_id_is_zero (sb->store_id) && sb->site < CRG_MAX_SITES
         && sb->role <= SUPER_ROLE_DETACHED && (sb->flags & ~SUPER_F_ALL) == 0
         && (sb->flags & (SUPER_F_OPEN | SUPER_F_CLEAN)) != (SUPER_F_OPEN | SUPER_F_CLEAN)
         && is_power_of_2 (sb->block_size) && sb->block_size <= META_BLOCK_SIZE
         && meta_layout (sb->store_bytes, sb->dirty_block_size, &layout) == 0
         && sb->data_bytes > 0 && place_is_valid (sb, &layout)
         && sb->since <= sb->generation && sb->in_set >> CRG_MAX_SITES == 0
         && (sb->sealed & ~SUPER_SEALED_ALL) == 0
         && name_is_valid_or_empty (sb->crg) && name_is_valid_or_empty (sb->iasp)
         && name_is_valid_or_empty (sb->site_name) && name_is_valid_or_empty (sb->open_node)
         /* One that belongs to a CRG says to which; one that doesn't, plays no role. */
         && (owned ? sb->crg[0] && sb->iasp[0] && !ident_id_is_zero (sb->iasp_id)
                   : sb->role == SUPER_ROLE_NONE);
}

void
super_encode (const struct superblock *sb, unsigned slot, uint8_t block[META_BLOCK_SIZE])
{
  assert (slot < 2);
  assert (super_is_valid (sb));

  memset (block, 0, META_BLOCK_SIZE);
  memcpy (block, super_magic, sizeof super_magic);
  put_le16 (block + O_MAJOR, SUPER_MAJOR);
  put_le16 (block + O_MINOR, SUPER_MINOR);
  block[O_SLOT] = (uint8_t) slot;
  block[O_SITE] = sb->site;
  block[O_ROLE] = sb->role;
  put_le64 (block + O_SEQUENCE, sb->sequence);
  put_le16 (block + O_FLAGS, sb->flags);
  put_le32 (block + O_BLOCK_SIZE, sb->block_size);
  put_le32 (block + O_DIRTY_BLOCK_SIZE, sb->dirty_block_size);
  put_le32 (block + O_IN_SET, sb->in_set);
  put_le64 (block + O_STORE_BYTES, sb->store_bytes);
  put_le64 (block + O_DATA_BYTES, sb->data_bytes);
  put_le64 (block + O_TENURE, sb->tenure);
  put_le64 (block + O_GENERATION, sb->generation);
  put_le64 (block + O_SINCE, sb->since);
  put_le64 (block + O_LOSS, sb->loss);
  put_le64 (block + O_OPEN_SESSION, sb->open_session);
  memcpy (block + O_STORE_ID, sb->store_id, CRG_ID_LEN);
  memcpy (block + O_CLUSTER_ID, sb->cluster_id, CRG_ID_LEN);
  memcpy (block + O_CRG_ID, sb->crg_id, CRG_ID_LEN);
  memcpy (block + O_IASP_ID, sb->iasp_id, CRG_ID_LEN);
  memcpy (block + O_LINEAGE, sb->lineage, CRG_ID_LEN);
  memcpy (block + O_OPEN_BOOT_ID, sb->open_boot_id, CRG_ID_LEN);
  memcpy (block + O_CRG, sb->crg, strlen (sb->crg));
  memcpy (block + O_IASP, sb->iasp, strlen (sb->iasp));
  memcpy (block + O_SITE_NAME, sb->site_name, strlen (sb->site_name));
  memcpy (block + O_OPEN_NODE, sb->open_node, strlen (sb->open_node));
  put_le32 (block + O_SEALED, sb->sealed);
  put_le64 (block + O_RESYNC_RATE, sb->resync_rate);
  put_le64 (block + O_META_BYTES, sb->meta_bytes);
  memcpy (block + O_DATA_IDENTITY, sb->data_identity, strlen (sb->data_identity));
  memcpy (block + O_META_IDENTITY, sb->meta_identity, strlen (sb->meta_identity));
  put_le32 (block + O_CRC, crc32c (0, block, O_CRC));
}

/* False if the field isn't NUL-terminated and NUL-padded: two encodings of one name would be
 * two truths. */
static bool
get_text_field (const uint8_t *p, char *text, size_t size)
{
  size_t n;

  memcpy (text, p, size);
  n = strnlen (text, size);
  return n < size && is_all_zero (text + n, size - n);
}

enum super_status
super_decode (const uint8_t block[META_BLOCK_SIZE], unsigned slot, struct superblock *sb)
{
  struct superblock out;
  bool good = true;

  if (memcmp (block, super_magic, sizeof super_magic) != 0)
    return SUPER_EMPTY;
  /* The CRC has its place in every format, so that "damaged" and "newer" can be told apart. */
  if (get_le32 (block + O_CRC) != crc32c (0, block, O_CRC))
    return SUPER_BAD_CRC;
  if (get_le16 (block + O_MAJOR) != SUPER_MAJOR)
    return SUPER_BAD_MAJOR;

  memset (&out, 0, sizeof out);
  out.minor = get_le16 (block + O_MINOR);
  out.site = block[O_SITE];
  out.role = block[O_ROLE];
  out.sequence = get_le64 (block + O_SEQUENCE);
  out.flags = get_le16 (block + O_FLAGS);
  out.block_size = get_le32 (block + O_BLOCK_SIZE);
  out.dirty_block_size = get_le32 (block + O_DIRTY_BLOCK_SIZE);
  out.in_set = get_le32 (block + O_IN_SET);
  out.store_bytes = get_le64 (block + O_STORE_BYTES);
  out.data_bytes = get_le64 (block + O_DATA_BYTES);
  out.tenure = get_le64 (block + O_TENURE);
  out.generation = get_le64 (block + O_GENERATION);
  out.since = get_le64 (block + O_SINCE);
  out.loss = get_le64 (block + O_LOSS);
  out.open_session = get_le64 (block + O_OPEN_SESSION);
  memcpy (out.store_id, block + O_STORE_ID, CRG_ID_LEN);
  memcpy (out.cluster_id, block + O_CLUSTER_ID, CRG_ID_LEN);
  memcpy (out.crg_id, block + O_CRG_ID, CRG_ID_LEN);
  memcpy (out.iasp_id, block + O_IASP_ID, CRG_ID_LEN);
  memcpy (out.lineage, block + O_LINEAGE, CRG_ID_LEN);
  memcpy (out.open_boot_id, block + O_OPEN_BOOT_ID, CRG_ID_LEN);
  good &= get_text_field (block + O_CRG, out.crg, sizeof out.crg);
  good &= get_text_field (block + O_IASP, out.iasp, sizeof out.iasp);
  good &= get_text_field (block + O_SITE_NAME, out.site_name, sizeof out.site_name);
  good &= get_text_field (block + O_OPEN_NODE, out.open_node, sizeof out.open_node);
  out.sealed = get_le32 (block + O_SEALED);
  out.resync_rate = get_le64 (block + O_RESYNC_RATE);
  out.meta_bytes = get_le64 (block + O_META_BYTES);
  good &= get_text_field (block + O_DATA_IDENTITY, out.data_identity, sizeof out.data_identity);
  good &= get_text_field (block + O_META_IDENTITY, out.meta_identity, sizeof out.meta_identity);

  if (!good || block[O_SLOT] != slot || !super_is_valid (&out))
    return SUPER_BAD_FIELD;
  /* A later minor may use these bytes; ours are zero. */
  if (out.minor <= SUPER_MINOR
      && (block[O_ZERO0] != 0 || get_le16 (block + O_ZERO1) != 0
          || !is_all_zero (block + O_END, O_CRC - O_END)))
    return SUPER_BAD_FIELD;
  if ((out.minor == 0 && !is_all_zero (block + O_SEALED, O_END - O_SEALED))
      || (out.minor == 1 && !is_all_zero (block + O_META_BYTES, O_END - O_META_BYTES)))
    return SUPER_BAD_FIELD;
  *sb = out;
  return SUPER_OK;
}

enum super_status
super_choose (const uint8_t slot0[META_BLOCK_SIZE], const uint8_t slot1[META_BLOCK_SIZE],
              struct superblock *sb, struct super_choice *choice)
{
  struct superblock found[2];
  unsigned newer;

  choice->status[0] = super_decode (slot0, 0, &found[0]);
  choice->status[1] = super_decode (slot1, 1, &found[1]);
  choice->slot = -1;
  choice->damaged = false;

  /* No crash and no disk makes these: a later release, or a store that was cut or moved. */
  if (choice->status[0] == SUPER_BAD_MAJOR || choice->status[1] == SUPER_BAD_MAJOR)
    return SUPER_BAD_MAJOR;
  if (choice->status[0] == SUPER_BAD_FIELD || choice->status[1] == SUPER_BAD_FIELD)
    return SUPER_BAD_FIELD;

  if (choice->status[0] == SUPER_OK && choice->status[1] == SUPER_OK) {
    /* Each write goes to the other slot with the next number: two of one number, of two
     * formattings, or further apart were not written by one writer. */
    if (!ident_id_equal (found[0].store_id, found[1].store_id)
        || found[0].sequence == found[1].sequence)
      return SUPER_CONFLICT;
    newer = found[1].sequence > found[0].sequence;
    if (found[newer].sequence - found[!newer].sequence != 1)
      choice->damaged = true;
    /* What only rises must not have fallen. */
    if (found[newer].tenure < found[!newer].tenure)
      return SUPER_CONFLICT;
  }
  else if (choice->status[0] == SUPER_OK || choice->status[1] == SUPER_OK) {
    newer = choice->status[1] == SUPER_OK;
    /* The first superblock of a formatting is alone. */
    choice->damaged = choice->status[!newer] != SUPER_EMPTY || found[newer].sequence != 1;
  }
  else if (choice->status[0] == SUPER_EMPTY && choice->status[1] == SUPER_EMPTY)
    return SUPER_EMPTY;
  else
    return SUPER_BAD_CRC;

  choice->slot = (int) newer;
  *sb = found[newer];
  return SUPER_OK;
}

bool
super_set_is_equal (const struct superblock *sb, bool clean, uint64_t tenure)
{
  return clean && (sb->role == SUPER_ROLE_PRODUCTION || sb->role == SUPER_ROLE_NONE)
         && (tenure <= sb->tenure || tenure - sb->tenure == 1);
}

/* An identity that is not known now but was, or the other way round, is another one. */
const char *
super_check_place (const struct superblock *sb, uint64_t meta_bytes, const char *data_identity,
                   const char *meta_identity)
{
  if (!(sb->flags & SUPER_F_EXTERNAL))
    return meta_bytes == 0 ? NULL : "the file that meta= names holds a whole store, not the metadata of this one; "
                                    "correct meta=";
  if (meta_bytes == 0)
    return "it holds the metadata of another store; name that one as store=, and this as its meta=";
  if (strcmp (sb->data_identity, data_identity) != 0)
    return "the metadata that meta= names was made for another file or device; correct store= or meta=";
  if (strcmp (sb->meta_identity, meta_identity) != 0)
    return "the metadata that meta= names is a copy from elsewhere, which may be old; put the original back, or "
           "format the store anew";
  if (sb->meta_bytes != round_down (meta_bytes, META_BLOCK_SIZE))
    return "the metadata that meta= names has another size than when it was made; restore its size";
  return NULL;
}
