/* SPDX-License-Identifier: BSD-3-Clause */
/* The metadata of a store: the layout at many sizes, superblocks there and back, every bit
 * flipped, every tear, the choice between the two slots after every crash, and the rule that a
 * change which forbids something survives the loss of either slot.
 */
#include <config.h>

#include <errno.h>

#include "common/crc32c.h"
#include "common/ident.h"
#include "common/super.h"
#include "tests/tap.h"

#define MIB (UINT64_C (1) << 20)
#define GIB (UINT64_C (1) << 30)
#define TIB (UINT64_C (1) << 40)

static uint64_t seed = 88172645463325252u;

static uint64_t
rnd (void)
{
  seed ^= seed << 13;
  seed ^= seed >> 7;
  seed ^= seed << 17;
  return seed;
}

/* ---- layout -------------------------------------------------------------------------------- */

static void
check_layout (uint64_t store_bytes, uint32_t dirty)
{
  struct meta_layout l;
  uint64_t slots[2], at;
  unsigned i;

  check (meta_layout (store_bytes, dirty, &l) == 0, "%llu has a layout",
         (unsigned long long) store_bytes);
  check (meta_slot_offsets (store_bytes, slots) == 0 && slots[0] == l.slot_offset[0]
           && slots[1] == l.slot_offset[1],
         "the size alone finds the slots");
  check (l.data_bytes > 0 && l.data_bytes % META_BLOCK_SIZE == 0, "data is whole blocks");

  /* The areas follow each other without a gap, in this order, to the end of the store. */
  at = l.data_bytes;
  check (l.written.offset == at, "written at %llu", (unsigned long long) at);
  at += l.written.blocks * META_BLOCK_SIZE;
  check (l.hot.offset == at, "hot at %llu", (unsigned long long) at);
  at += l.hot.blocks * META_BLOCK_SIZE;
  check (l.claims.offset == at, "claims at %llu", (unsigned long long) at);
  at += l.claims.blocks * META_BLOCK_SIZE;
  for (i = 0; i < CRG_MAX_SITES; i++) {
    check (l.bitmap[i].offset == at, "bitmap %u at %llu", i, (unsigned long long) at);
    at += l.bitmap[i].blocks * META_BLOCK_SIZE;
    check (l.bitmap[i].blocks * META_BLOCK_BITS * dirty >= l.data_bytes, "bitmap %u is enough", i);
  }
  check (l.slot_offset[0] == at && l.slot_offset[1] == at + META_BLOCK_SIZE, "slots");
  at += 2 * META_BLOCK_SIZE;
  check (at <= store_bytes && store_bytes - at < META_BLOCK_SIZE, "to the end");
  check (l.written.blocks * META_BLOCK_BITS * dirty >= l.data_bytes, "written is enough");
  check (l.hot.blocks % 2 == 0
           && l.hot.blocks / 2 * META_BLOCK_BITS * HOT_REGION_SIZE_MIN >= l.data_bytes,
         "hot is enough, twice");
}

static void
layout (void)
{
  static const uint32_t bad[] = { 0, 1, 512, 2048, 65537, 98304, 2 * DIRTY_BLOCK_SIZE_MAX };
  struct meta_layout l;
  uint64_t size, slots[2], overhead;
  uint32_t dirty;
  unsigned i;

  for (dirty = DIRTY_BLOCK_SIZE_MIN; dirty <= DIRTY_BLOCK_SIZE_MAX; dirty *= 2) {
    for (size = META_MIN_STORE_BYTES; size < META_MIN_STORE_BYTES + 20000; size += 511)
      check_layout (size, dirty);
    for (size = META_MIN_STORE_BYTES; size <= STORE_MAX_BYTES / 2; size *= 2) {
      check_layout (size, dirty);
      check_layout (size + 512, dirty);
      check_layout (2 * size - 1, dirty);
    }
    check_layout (STORE_MAX_BYTES, dirty);
    for (i = 0; i < 500; i++) {
      uint64_t data = 1 + rnd () % (rnd () % 2 ? 20 * TIB : 20 * MIB);

      size = meta_store_bytes_for (data, dirty);
      check (meta_layout (size, dirty, &l) == 0 && l.data_bytes >= data, "room for %llu",
             (unsigned long long) data);
      /* Not wasteful: a hundred blocks less are not enough. */
      check (size - 100 * META_BLOCK_SIZE < META_MIN_STORE_BYTES
               || (meta_layout (size - 100 * META_BLOCK_SIZE, dirty, &l) == 0
                   && l.data_bytes < data),
             "%llu is not far from the smallest store", (unsigned long long) size);
    }
  }
  ok (tap_failed == 0, "layouts of all sizes: no gap, no overlap, every map large enough");

  for (i = 0; i < ARRAY_SIZE (bad); i++)
    ok (meta_layout (GIB, bad[i], &l) == -EINVAL, "dirty blocks of %u bytes are refused", bad[i]);
  is (meta_layout (META_MIN_STORE_BYTES - 1, DIRTY_BLOCK_SIZE, &l), -ENOSPC, "too small");
  is (meta_layout (0, DIRTY_BLOCK_SIZE, &l), -ENOSPC, "nothing");
  is (meta_layout (STORE_MAX_BYTES + 1, DIRTY_BLOCK_SIZE, &l), -EFBIG, "too large");
  is (meta_layout (UINT64_MAX, DIRTY_BLOCK_SIZE, &l), -EFBIG, "far too large");
  is (meta_slot_offsets (META_MIN_STORE_BYTES - 1, slots), -ENOSPC, "slots: too small");
  is (meta_slot_offsets (UINT64_MAX, slots), -EFBIG, "slots: too large");
  is (meta_store_bytes_for (0, DIRTY_BLOCK_SIZE), 0, "no store for nothing");
  is (meta_store_bytes_for (STORE_MAX_BYTES, DIRTY_BLOCK_SIZE), 0, "none for too much");
  is (meta_store_bytes_for (STORE_MAX_BYTES + 1, DIRTY_BLOCK_SIZE), 0, "none for more than any");
  is (meta_store_bytes_for (GIB, 12345), 0, "none for bad dirty blocks");

  /* The figures that super.h and the manual give. */
  meta_layout (TIB, 65536, &l);
  overhead = TIB - l.data_bytes;
  is (overhead, (9 * 521 + 2 * 33 + 64 + 2) * META_BLOCK_SIZE, "metadata of 1 TiB at 64 KiB");
  meta_layout (TIB, 4096, &l);
  is ((TIB - l.data_bytes) / MIB, 293, "MiB at 4 KiB");
  meta_layout (TIB, 1048576, &l);
  is ((TIB - l.data_bytes) * 10 / MIB, 16, "tenths of a MiB at 1 MiB");
}

/* ---- map blocks ---------------------------------------------------------------------------- */

static void
map_blocks (void)
{
  static uint8_t block[META_BLOCK_SIZE];
  struct meta_block_id id = { META_BITMAP, 3, 77, { 1, 2, 3 } }, other;
  uint64_t sequence = 0;
  unsigned i;

  is (meta_block_check (block, &id, &sequence), -ENODATA, "a block of zeroes was never written");
  for (i = META_BLOCK_HEADER; i < META_BLOCK_SIZE; i++)
    block[i] = (uint8_t) rnd ();
  meta_block_seal (block, &id, 12345);
  ok (meta_block_check (block, &id, &sequence) == 0 && sequence == 12345, "there and back");
  for (i = 0; i < META_BLOCK_SIZE * 8; i++) {
    block[i / 8] ^= (uint8_t) (1 << i % 8);
    check (meta_block_check (block, &id, &sequence) == -EBADMSG, "bit %u", i);
    block[i / 8] ^= (uint8_t) (1 << i % 8);
  }
  ok (tap_failed == 0, "every flipped bit is seen");
  other = id;
  other.kind = META_WRITTEN;
  is (meta_block_check (block, &other, &sequence), -EBADMSG, "a block of another map");
  other = id;
  other.site = 4;
  is (meta_block_check (block, &other, &sequence), -EBADMSG, "of another site");
  other = id;
  other.index = 78;
  is (meta_block_check (block, &other, &sequence), -EBADMSG, "of another place");
  other = id;
  other.store_id[15] = 1;
  is (meta_block_check (block, &other, &sequence), -EBADMSG, "of an earlier formatting");
  for (i = 1; i < META_BLOCK_SIZE / 512; i++) {
    static uint8_t torn[META_BLOCK_SIZE];
    unsigned k;

    memcpy (torn, block, META_BLOCK_SIZE);
    for (k = META_BLOCK_HEADER; k < META_BLOCK_SIZE; k++)
      torn[k] ^= 0x55;
    meta_block_seal (torn, &id, 12346);
    memcpy (torn + i * 512, block + i * 512, META_BLOCK_SIZE - i * 512);
    check (meta_block_check (torn, &id, &sequence) == -EBADMSG, "torn after sector %u", i);
  }
  ok (tap_failed == 0, "every tear is seen");
  for (i = 0; i < META_BLOCK_SIZE / 512; i++) {
    static uint8_t zeroed[META_BLOCK_SIZE];

    memcpy (zeroed, block, META_BLOCK_SIZE);
    memset (zeroed + i * 512, 0, 512);
    check (meta_block_check_sealed (zeroed, &id, SUPER_SEALED_ALL, &sequence) == -EBADMSG, "sector %u zeroed", i);
  }
  ok (tap_failed == 0, "every zeroed sector is seen");

  /* A block without a bit, zeroed: only what was sealed shows it. */
  memset (block, 0, sizeof block);
  meta_block_seal (block, &id, 0);
  ok (meta_block_check (block, &id, &sequence) == 0 && sequence == 0, "an empty block that was written");
  memset (block, 0, 512);
  is (meta_block_check_sealed (block, &id, SUPER_SEALED_BITMAP (3), &sequence), -EBADMSG, "zeroed in a sealed map: damage");
  is (meta_block_check_sealed (block, &id, SUPER_SEALED_ALL & ~SUPER_SEALED_BITMAP (3), &sequence), -ENODATA,
      "in one that isn't: never written");
  other = id;
  other.kind = META_HOT;
  other.site = 0;
  is (meta_block_check_sealed (block, &other, SUPER_SEALED_HOT, &sequence), -EBADMSG, "the hot map has a mark of its own");
  is (meta_block_check_sealed (block, &other, SUPER_SEALED_BITMAP (0), &sequence), -ENODATA, "not that of a bitmap");
  other.kind = META_WRITTEN;
  is (meta_block_check_sealed (block, &other, SUPER_SEALED_WRITTEN, &sequence), -EBADMSG, "and that of what was written");
  is (meta_block_check_sealed (block, &other, SUPER_SEALED_ALL & ~SUPER_SEALED_WRITTEN, &sequence), -ENODATA,
      "which is not that of another");
  other.kind = META_CLAIM;
  is (meta_block_check_sealed (block, &other, SUPER_SEALED_ALL, &sequence), -ENODATA, "what is never sealed can't be damaged so");
}

/* ---- superblock ---------------------------------------------------------------------------- */

static struct superblock
sample (void)
{
  struct superblock sb;

  memset (&sb, 0, sizeof sb);
  sb.sequence = 41;
  memset (sb.store_id, 1, CRG_ID_LEN);
  memset (sb.cluster_id, 2, CRG_ID_LEN);
  memset (sb.crg_id, 3, CRG_ID_LEN);
  memset (sb.iasp_id, 4, CRG_ID_LEN);
  memset (sb.lineage, 5, CRG_ID_LEN);
  memset (sb.open_boot_id, 6, CRG_ID_LEN);
  strcpy (sb.crg, "payroll");
  strcpy (sb.iasp, "payroll-disk");
  strcpy (sb.site_name, "rome");
  strcpy (sb.open_node, "p1");
  sb.site = 1;
  sb.role = SUPER_ROLE_PRODUCTION;
  sb.flags = SUPER_F_OPEN;
  sb.store_bytes = GIB;
  sb.data_bytes = GIB - 64 * MIB;
  sb.block_size = 512;
  sb.dirty_block_size = DIRTY_BLOCK_SIZE;
  sb.tenure = 9;
  sb.generation = 8;
  sb.since = 7;
  sb.in_set = 3;
  sb.loss = 1;
  sb.open_session = UINT64_C (0xfedcba9876543210);
  sb.minor = SUPER_MINOR;
  sb.sealed = SUPER_SEALED_HOT | 5;
  sb.resync_rate = 123456789;
  return sb;
}

static bool
equal (const struct superblock *a, const struct superblock *b)
{
  return memcmp (a, b, sizeof *a) == 0;
}

static void
reseal (uint8_t *block)
{
  put_le32 (block + 4092, crc32c (0, block, 4092));
}

static void
codec (void)
{
  static uint8_t block[META_BLOCK_SIZE], torn[META_BLOCK_SIZE];
  struct superblock sb = sample (), out;
  unsigned i, slot;

  is (super_decode (block, 0, &out), SUPER_EMPTY, "zeroes are no superblock");
  memset (block, 0xff, sizeof block);
  is (super_decode (block, 0, &out), SUPER_EMPTY, "nor is 0xff");

  for (slot = 0; slot < 2; slot++) {
    super_encode (&sb, slot, block);
    memset (&out, 0xff, sizeof out);
    ok (super_decode (block, slot, &out) == SUPER_OK && equal (&sb, &out), "slot %u there and back",
        slot);
    is (super_decode (block, !slot, &out), SUPER_BAD_FIELD, "in the other slot it is refused");
  }

  for (i = 0; i < META_BLOCK_SIZE * 8; i++) {
    enum super_status status;

    block[i / 8] ^= (uint8_t) (1 << i % 8);
    memset (&out, 0x77, sizeof out);
    status = super_decode (block, 1, &out);
    check (status == (i < 64 ? SUPER_EMPTY : SUPER_BAD_CRC), "bit %u: %s", i,
           super_strerror (status));
    check (out.role == 0x77, "bit %u: nothing is stored", i);
    block[i / 8] ^= (uint8_t) (1 << i % 8);
  }
  ok (tap_failed == 0, "every flipped bit is seen");

  for (i = 1; i < META_BLOCK_SIZE / 512; i++) {
    memset (torn, 0, sizeof torn);
    memcpy (torn, block, i * 512);
    check (super_decode (torn, 1, &out) == SUPER_BAD_CRC, "first %u sectors written", i);
    memset (torn, 0, sizeof torn);
    memcpy (torn + i * 512, block + i * 512, META_BLOCK_SIZE - i * 512);
    check (super_decode (torn, 1, &out) == SUPER_EMPTY, "all but the first %u sectors", i);
  }
  ok (tap_failed == 0, "every tear is seen");
  for (i = 0; i < META_BLOCK_SIZE / 512; i++) {
    memcpy (torn, block, META_BLOCK_SIZE);
    memset (torn + i * 512, 0, 512);
    /* What was zeroes before is no other block. */
    check (super_decode (torn, 1, &out) == (i == 0 ? SUPER_EMPTY
                                            : memcmp (torn, block, META_BLOCK_SIZE) == 0 ? SUPER_OK
                                                                                         : SUPER_BAD_CRC),
           "sector %u zeroed", i);
  }
  ok (tap_failed == 0, "every zeroed sector is seen");

  put_le16 (block + 8, SUPER_MAJOR + 1);
  reseal (block);
  is (super_decode (block, 1, &out), SUPER_BAD_MAJOR, "another major is refused");
  super_encode (&sb, 1, block);
  put_le16 (block + 10, SUPER_MINOR + 1);
  block[2000] = 42;
  reseal (block);
  is (super_decode (block, 1, &out), SUPER_OK, "a later minor with its additions is read");
  is (out.minor, SUPER_MINOR + 1, "and says which it is");
  put_le16 (block + 10, SUPER_MINOR);
  reseal (block);
  is (super_decode (block, 1, &out), SUPER_BAD_FIELD, "the same bytes in this minor are refused");
  super_encode (&sb, 1, block);
  put_le16 (block + 10, 1);
  reseal (block);
  is (super_decode (block, 1, &out), SUPER_OK, "minor 1: nothing is elsewhere");
  block[470] = 'x';
  reseal (block);
  is (super_decode (block, 1, &out), SUPER_BAD_FIELD, "what minor 2 added is no part of minor 1");
  super_encode (&sb, 1, block);
  put_le16 (block + 10, 0);
  reseal (block);
  is (super_decode (block, 1, &out), SUPER_BAD_FIELD, "what minor 1 added is no part of minor 0");
  memset (block + 448, 0, 12);
  reseal (block);
  ok (super_decode (block, 1, &out) == SUPER_OK && out.minor == 0 && out.sealed == 0, "minor 0: nothing is sealed");

  /* There and back with every length of name and random numbers. */
  for (i = 0; i < 2000; i++) {
    unsigned n = 1 + i % CRG_NAME_MAX;

    sb = sample ();
    memset (sb.crg, 0, sizeof sb.crg);
    memset (sb.crg, 'a' + (int) (i % 26), n);
    memset (sb.open_node, 0, sizeof sb.open_node);
    sb.sequence = rnd () | 1;
    sb.tenure = rnd ();
    sb.generation = rnd ();
    sb.since = sb.generation / 3;
    sb.loss = rnd ();
    sb.open_session = rnd ();
    sb.in_set = (uint32_t) (rnd () % 256);
    sb.site = (uint8_t) (rnd () % CRG_MAX_SITES);
    sb.role = (uint8_t) (rnd () % 4);
    sb.flags = (uint16_t) (rnd () & (SUPER_F_ALL & ~(SUPER_F_OPEN | SUPER_F_EXTERNAL)));
    sb.sealed = (uint32_t) rnd () & SUPER_SEALED_ALL;
    super_encode (&sb, i % 2, block);
    check (super_decode (block, i % 2, &out) == SUPER_OK && equal (&sb, &out), "random %u", i);
  }
  ok (tap_failed == 0, "2000 random ones there and back");
}

/* One field of a sealed block made senseless: refused although its CRC is right. */
static void
senseless (void)
{
  static const struct {
    const char *what;
    unsigned offset, len;
    uint64_t value;
  } cases[] = {
    { "slot", 12, 1, 1 },
    { "site", 13, 1, CRG_MAX_SITES },
    { "role", 14, 1, 4 },
    { "byte 15", 15, 1, 1 },
    { "sequence", 16, 8, 0 },
    { "open and clean", 24, 2, SUPER_F_OPEN | SUPER_F_CLEAN },
    { "unknown flag", 24, 2, SUPER_F_ALL + 1 },
    { "bytes 26, 27", 26, 2, 1 },
    { "block size 0", 28, 4, 0 },
    { "block size", 28, 4, 513 },
    { "block size over a metadata block", 28, 4, 8192 },
    { "dirty block size", 32, 4, 2048 },
    { "in-set", 36, 4, 0x100 },
    { "store too small", 40, 8, META_MIN_STORE_BYTES - 1 },
    { "store too large", 40, 8, STORE_MAX_BYTES + 1 },
    { "no data", 48, 8, 0 },
    { "data over the metadata", 48, 8, GIB - MIB / 4 },
    { "since after generation", 72, 8, 9 },
    { "store id", 96, 16, 0 },
    { "crg id but a role", 128, 16, 0 },
    { "iasp id", 144, 16, 0 },
    { "capital in a name", 192, 1, 'P' },
    { "no crg name", 192, 64, 0 },
    { "no iasp name", 256, 64, 0 },
    { "capital in an IASP's name", 256, 1, 'P' },
    { "capital in a site's name", 320, 1, 'P' },
    { "capital in a node's name", 384, 1, 'P' },
    { "bytes after a name", 192 + 40, 1, 'x' },
    { "name without end", 319, 1, 'x' },
    { "sealed", 448, 4, SUPER_SEALED_ALL + 1 },
    { "external, and no size", 24, 2, SUPER_F_EXTERNAL },
    { "not external, and a size", 460, 8, 1024 * 1024 },
    { "not external, and an identity of the store", 468, 1, 'x' },
    { "not external, and one of the metadata", 596, 1, 'x' },
    { "bytes after the last field", 724, 1, 1 },
    { "bytes before the CRC", 4091, 1, 1 },
  };
  static uint8_t block[META_BLOCK_SIZE];
  struct superblock sb = sample (), out;
  unsigned i, k;

  for (i = 0; i < ARRAY_SIZE (cases); i++) {
    super_encode (&sb, 0, block);
    for (k = 0; k < cases[i].len; k++)
      block[cases[i].offset + k] = k < 8 ? (uint8_t) (cases[i].value >> 8 * k) : 0;
    reseal (block);
    ok (super_decode (block, 0, &out) == SUPER_BAD_FIELD, "refused: %s", cases[i].what);
  }

  super_encode (&sb, 0, block);
  memset (block + 192, 'x', 64);
  reseal (block);
  is (super_decode (block, 0, &out), SUPER_BAD_FIELD, "refused: a name that fills its field");

  /* A freshly formatted one belongs to nobody. */
  memset (&sb, 0, sizeof sb);
  sb.sequence = 1;
  sb.store_id[0] = 1;
  sb.flags = SUPER_F_UNUSABLE;
  sb.store_bytes = GIB;
  sb.data_bytes = 4096;
  sb.block_size = 1;
  sb.dirty_block_size = 4096;
  super_encode (&sb, 0, block);
  is (super_decode (block, 0, &out), SUPER_OK, "one that belongs to no CRG");
  for (i = 0; i <= SUPER_ROLE_DETACHED; i++)
    check (strcmp (super_role_name ((uint8_t) i), "role?") != 0, "role %u has a name", i);
  is_str (super_role_name (77), "role?", "an unknown role is shown as such");
  for (i = 0; i <= SUPER_CONFLICT; i++)
    for (k = 0; k < i; k++)
      check (strcmp (super_strerror ((enum super_status) i), super_strerror ((enum super_status) k)) != 0,
             "statuses %u and %u are told apart", i, k);
  is_str (super_strerror ((enum super_status) 77), "unknown status", "an unknown status is shown as such");
}

/* ---- metadata elsewhere ---------------------------------------------------------------------- */

static void
says (const char *why, const char *part, const char *what)
{
  ok (why && strstr (why, part), "refused: %s: %s", what, why ? why : "it is not");
}

static void
apart (void)
{
  static const uint64_t sizes[] = { 4096, 4096 * 3 + 511, 100 * 1024, MIB, 5 * MIB + 4096, GIB, TIB, 16 * TIB + 512 };
  const uint64_t needed = meta_bytes_apart (GIB, DIRTY_BLOCK_SIZE);
  const struct {
    const char *what;
    unsigned offset, len;
    uint64_t value;
  } bad[] = {
    { "more data than the store has", 48, 8, GIB + 512 },
    { "maps that begin in the data", 460, 8, needed - META_BLOCK_SIZE },
    { "no metadata", 460, 8, 0 },
    { "nothing but metadata", 460, 8, GIB + needed },
    { "a broken block of metadata", 460, 8, needed + 512 },
    { "a broken block of both", 40, 8, GIB + needed + 512 },
    { "a line's end in the store's identity", 468 + 3, 1, '\n' },
    { "no text in it", 468 + 3, 1, 0x7f },
    { "a line's end in that of the metadata", 596 + 3, 1, '\n' },
    { "no end of it", 596 + SUPER_IDENTITY_MAX, 1, 'm' },
    { "no end of the store's", 468 + SUPER_IDENTITY_MAX, 1, 'm' },
  };
  static uint8_t block[META_BLOCK_SIZE];
  struct meta_layout l, alone;
  struct superblock sb = sample (), out;
  unsigned i;

  for (i = 0; i < ARRAY_SIZE (sizes); i++)
    for (uint32_t dirty = DIRTY_BLOCK_SIZE_MIN; dirty <= DIRTY_BLOCK_SIZE_MAX; dirty *= 4) {
      uint64_t data = round_down (sizes[i], META_BLOCK_SIZE), bytes = meta_bytes_apart (sizes[i], dirty);

      check (bytes > 0 && bytes % META_BLOCK_SIZE == 0, "a size of metadata for %llu", (unsigned long long) sizes[i]);
      check (meta_layout_apart (sizes[i], bytes, dirty, &l) == 0 && l.data_bytes == data && l.written.offset >= data
               && l.slot_offset[1] + META_BLOCK_SIZE == data + bytes,
             "it suffices, and all of it is behind the data");
      check (meta_layout_apart (sizes[i], bytes + 5 * META_BLOCK_SIZE + 77, dirty, &l) == 0 && l.data_bytes == data
               && l.slot_offset[1] + META_BLOCK_SIZE == data + bytes + 5 * META_BLOCK_SIZE,
             "so does more");
      check (data + bytes - META_BLOCK_SIZE < META_MIN_STORE_BYTES
               || meta_layout_apart (sizes[i], bytes - META_BLOCK_SIZE, dirty, &l) == -ENOSPC,
             "one block less does not: %llu", (unsigned long long) bytes);
    }
  ok (tap_failed == 0, "every size of store has its metadata elsewhere");
  is (meta_bytes_apart (TIB, 65536), 19746816, "what the page says of 1 TiB");
  ok (meta_layout (TIB + 19746816, 65536, &alone) == 0 && meta_layout_apart (TIB, 19746816, 65536, &l) == 0
        && memcmp (&alone.bitmap, &l.bitmap, sizeof l.bitmap) == 0,
      "the areas stand where those of a store of that size do");
  is (meta_layout_apart (MIB, 4096, 65536, &l), -ENOSPC, "too little");
  is (meta_layout_apart (4095, MIB, 65536, &l), -ENOSPC, "no data");
  is (meta_layout_apart (MIB, MIB, 12345, &l), -EINVAL, "bad dirty blocks");
  is (meta_layout_apart (STORE_MAX_BYTES, STORE_MAX_BYTES, 65536, &l), -EFBIG, "too much");
  is (meta_layout_apart (UINT64_MAX, MIB, 65536, &l), -EFBIG, "far too much");
  is (meta_layout_apart (MIB, UINT64_MAX, 65536, &l), -EFBIG, "far too much metadata");
  is (meta_bytes_apart (4095, 65536), 0, "none for nothing");
  is (meta_bytes_apart (UINT64_MAX, 65536), 0, "none for too much");
  is (meta_bytes_apart (STORE_MAX_BYTES, 65536), 0, "none where no room is left");
  is (meta_bytes_apart (GIB, 12345), 0, "none for bad dirty blocks");

  sb.flags |= SUPER_F_EXTERNAL;
  sb.meta_bytes = meta_bytes_apart (GIB, DIRTY_BLOCK_SIZE);
  sb.store_bytes = GIB + sb.meta_bytes;
  sb.data_bytes = GIB;
  strcpy (sb.data_identity, "wwid naa.5000 from 2048");
  memset (sb.meta_identity, 'm', SUPER_IDENTITY_MAX);
  super_encode (&sb, 1, block);
  ok (super_decode (block, 1, &out) == SUPER_OK && equal (&sb, &out), "all of the store is data");
  for (i = 0; i < ARRAY_SIZE (bad); i++) {
    super_encode (&sb, 1, block);
    if (bad[i].len == 8)
      put_le64 (block + bad[i].offset, bad[i].value);
    else
      block[bad[i].offset] = (uint8_t) bad[i].value;
    reseal (block);
    ok (super_decode (block, 1, &out) == SUPER_BAD_FIELD, "refused: %s", bad[i].what);
  }

  super_encode (&sb, 1, block);
  put_le16 (block + 10, 1);
  reseal (block);
  is (super_decode (block, 1, &out), SUPER_BAD_FIELD, "refused: what is right of it, in a minor that has none of it");

  ok (super_check_place (&sb, sb.meta_bytes, sb.data_identity, sb.meta_identity) == NULL
        && super_check_place (&sb, sb.meta_bytes + 4095, sb.data_identity, sb.meta_identity) == NULL,
      "the two that belong together");
  says (super_check_place (&sb, sb.meta_bytes, "wwid naa.5001 from 2048", sb.meta_identity), "made for another file",
        "another store");
  says (super_check_place (&sb, sb.meta_bytes, "", sb.meta_identity), "made for another file", "one that nobody knows");
  says (super_check_place (&sb, sb.meta_bytes, sb.data_identity, "a copy"), "is a copy from elsewhere", "a copy");
  says (super_check_place (&sb, sb.meta_bytes + 4096, sb.data_identity, sb.meta_identity), "another size",
        "another size");
  says (super_check_place (&sb, 0, "", ""), "the metadata of another store", "the metadata alone");
  sb = sample ();
  ok (super_check_place (&sb, 0, "", "") == NULL, "at the store's end");
  says (super_check_place (&sb, MIB, "a", "b"), "holds a whole store", "a whole store in the place of metadata");
}

/* ---- the choice ---------------------------------------------------------------------------- */

static uint8_t disk[2][META_BLOCK_SIZE];

static enum super_status
choose (struct superblock *sb, struct super_choice *c)
{
  return super_choose (disk[0], disk[1], sb, c);
}

static void
choice (void)
{
  static uint8_t before[META_BLOCK_SIZE], after[META_BLOCK_SIZE];
  struct superblock sb, out;
  struct super_choice c;
  unsigned i, n, slot;

  memset (disk, 0, sizeof disk);
  is (choose (&out, &c), SUPER_EMPTY, "both empty");
  is (c.slot, -1, "none chosen");

  sb = sample ();
  sb.sequence = 1;
  super_encode (&sb, 0, disk[0]);
  ok (choose (&out, &c) == SUPER_OK && c.slot == 0 && !c.damaged, "the first of a formatting");
  sb.sequence = 3;
  super_encode (&sb, 0, disk[0]);
  ok (choose (&out, &c) == SUPER_OK && c.slot == 0 && c.damaged, "alone, and not the first");

  /* A life of 200 writes, each one torn at every sector: always the old one or the new one. */
  memset (disk, 0, sizeof disk);
  sb = sample ();
  for (n = 1; n <= 200; n++) {
    slot = (n - 1) % 2;
    sb.sequence = n;
    sb.tenure = 9 + n / 3;
    memcpy (before, disk[slot], META_BLOCK_SIZE);
    super_encode (&sb, slot, after);
    for (i = 0; n > 1 && i < META_BLOCK_SIZE / 512; i++) {
      memcpy (disk[slot], before, META_BLOCK_SIZE);
      memcpy (disk[slot], after, i * 512);
      check (choose (&out, &c) == SUPER_OK && out.sequence == n - 1, "write %u torn at %u", n, i);
      memcpy (disk[slot], after, META_BLOCK_SIZE);
      memcpy (disk[slot], before, i * 512);
      check (choose (&out, &c) == SUPER_OK && out.sequence == (i ? n - 1 : n),
             "write %u torn the other way at %u", n, i);
    }
    memcpy (disk[slot], after, META_BLOCK_SIZE);
    check (choose (&out, &c) == SUPER_OK && equal (&sb, &out) && c.slot == (int) slot && !c.damaged,
           "write %u", n);
  }
  ok (tap_failed == 0, "200 writes, each torn everywhere: the old one or the new one");

  /* Something forbidden, in both slots: the loss of either one, by any flipped bit, keeps it. */
  sb.flags = SUPER_F_UNUSABLE;
  sb.since = 0;
  for (n = 201; n <= 202; n++) {
    sb.sequence = n;
    super_encode (&sb, (n - 1) % 2, disk[(n - 1) % 2]);
  }
  for (slot = 0; slot < 2; slot++)
    for (i = 0; i < META_BLOCK_SIZE * 8; i++) {
      disk[slot][i / 8] ^= (uint8_t) (1 << i % 8);
      check (choose (&out, &c) == SUPER_OK && (out.flags & SUPER_F_UNUSABLE) && out.since == 0
               && c.slot == (int) !slot && c.damaged,
             "slot %u, bit %u", slot, i);
      disk[slot][i / 8] ^= (uint8_t) (1 << i % 8);
    }
  ok (tap_failed == 0, "what is forbidden stays so with any bit of either slot flipped");

  disk[0][100] ^= 1;
  disk[1][100] ^= 1;
  is (choose (&out, &c), SUPER_BAD_CRC, "both damaged: refused, and not taken for empty");
  memset (disk[1], 0, META_BLOCK_SIZE);
  is (choose (&out, &c), SUPER_BAD_CRC, "one damaged, one empty: refused, and not taken for empty");
  memcpy (disk[1], disk[0], META_BLOCK_SIZE);
  memset (disk[0], 0, META_BLOCK_SIZE);
  is (choose (&out, &c), SUPER_BAD_CRC, "the other way round as well");

  sb.sequence = 10;
  super_encode (&sb, 0, disk[0]);
  super_encode (&sb, 1, disk[1]);
  is (choose (&out, &c), SUPER_CONFLICT, "two of one number");
  sb.sequence = 11;
  sb.store_id[0] ^= 1;
  super_encode (&sb, 1, disk[1]);
  is (choose (&out, &c), SUPER_CONFLICT, "two of different formattings");
  sb.store_id[0] ^= 1;
  sb.tenure--;
  super_encode (&sb, 1, disk[1]);
  is (choose (&out, &c), SUPER_CONFLICT, "a tenure that fell");
  sb.tenure++;
  sb.sequence = 12;
  super_encode (&sb, 1, disk[1]);
  ok (choose (&out, &c) == SUPER_OK && out.sequence == 12 && c.damaged, "one write is missing");
  sb.sequence = 11;
  super_encode (&sb, 1, disk[1]);
  ok (choose (&out, &c) == SUPER_OK && !c.damaged, "fine again");
  for (slot = 0; slot < 2; slot++) {
    sb.sequence = 10 + slot;
    super_encode (&sb, slot, disk[slot]);
    put_le16 (disk[slot] + 8, 2);
    reseal (disk[slot]);
    is (choose (&out, &c), SUPER_BAD_MAJOR, "a later release wrote one of them");
    super_encode (&sb, slot, disk[slot]);
    disk[slot][14] = 9;
    reseal (disk[slot]);
    is (choose (&out, &c), SUPER_BAD_FIELD, "one of them is senseless");
    super_encode (&sb, slot, disk[slot]);
  }
  is (choose (&out, &c), SUPER_OK, "fine again");
}

/* F6: when the copies of the set need not be compared. */
static void
set_is_equal (void)
{
  struct superblock sb = { .role = SUPER_ROLE_PRODUCTION, .tenure = 4 };

  ok (super_set_is_equal (&sb, true, 5) && super_set_is_equal (&sb, true, 4),
      "F6: released cleanly as production, and production again");
  ok (!super_set_is_equal (&sb, true, 6), "F6: another was production between");
  ok (!super_set_is_equal (&sb, false, 5), "F6: it was not released");
  sb.role = SUPER_ROLE_MIRROR;
  ok (!super_set_is_equal (&sb, true, 5), "F6: it was a copy");
  sb = (struct superblock) { .role = SUPER_ROLE_NONE };
  ok (super_set_is_equal (&sb, true, 1), "F6: a new store, and the first tenure");
}

int
main (void)
{
  layout ();
  map_blocks ();
  codec ();
  senseless ();
  apart ();
  choice ();
  set_is_equal ();
  return tap_done ();
}
