/* SPDX-License-Identifier: BSD-3-Clause */
/* The maps of a store against a model of its disk.  The rule under test, at every step: whatever
 * is dirty for a site is dirty or hot on the disk; and what was loaded is what was written.  Of what was ever
 * written: whatever a write was let go to is on the disk as written (W2), through crashes too; and damage of
 * that map, every bit and every tear of it, makes more of the store count as written, never less (W3). */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/util.h"
#include "plugin/mark.h"
#include "tests/tap.h"

#define REGION 65536u
#define BLOCK  16384u
enum { REGIONS = 300, BLOCKS = 4 * REGIONS, ENTRIES = 2 * HOT_MAX_SPAN, SITES = 3, WRITES = 16 };
#define SIZE ((uint64_t) REGIONS * REGION - 5000)

static uint64_t rng = 1;
static uint64_t
rnd (uint64_t n)
{
  rng ^= rng << 13, rng ^= rng >> 7, rng ^= rng << 17;
  return rng % n;
}

static struct disk {
  uint8_t hot[2][META_BLOCK_PAYLOAD], bits[SITES][META_BLOCK_PAYLOAD], written[META_BLOCK_PAYLOAD];
} disk, flight;

/* Carries a stage out; what a crash before its end leaves is any part of it. */
static void
write_stage (struct mark *m, struct disk *d)
{
  struct mark_block b;

  while (mark_next (m, &b)) {
    check (b.index == 0, "one block holds this map");
    memcpy (b.kind == META_HOT       ? d->hot[b.copy]
            : b.kind == META_WRITTEN ? d->written
                                     : d->bits[b.site],
            b.payload, META_BLOCK_PAYLOAD);
  }
}

static bool
on_disk (const struct disk *d, unsigned site, uint64_t block)
{
  const uint64_t region = block * BLOCK / REGION;
  return (d->bits[site][block / 8] >> (block % 8) & 1) || (d->hot[0][region / 8] >> (region % 8) & 1);
}

static unsigned
violations (const struct mark *m)
{
  unsigned bad = 0;
  for (unsigned s = 0; s < SITES; s++)
    for (uint64_t b = 0; b < m->bits[s].n_bits; b++)
      bad += bits_get (&m->bits[s], b) && !on_disk (&disk, s, b);
  return bad;
}

static bool
life (uint64_t seed, void *memory)
{
  static struct mark m;
  static struct { bool used, ready; uint64_t offset, length; } w[WRITES];
  bool open = false;

  rng = seed * 2654435761u + 88172645463325252u;
  memset (w, 0, sizeof w);
  memset (&disk, 0, sizeof disk);
  memset (memory, 0, mark_memory_bytes (SIZE, BLOCK, REGION, ENTRIES, SITES));
  mark_init (&m, memory, SIZE, BLOCK, REGION, ENTRIES, SITES);
  for (unsigned step = 0; step < 2000; step++) {
    unsigned i = (unsigned) rnd (WRITES);
    switch (rnd (7)) {
    case 0:
    case 1:
      if (!w[i].used) {
        bool full;
        w[i].offset = rnd (SIZE - 3 * REGION);
        w[i].length = 1 + rnd (3 * REGION);
        w[i].ready = hot_begin (&m.hot, w[i].offset, w[i].length, &full);
        w[i].used = !full;
      }
      else if (!w[i].ready)
        w[i].ready = hot_ready (&m.hot, w[i].offset, w[i].length);
      else { /* some site does not get it */
        mark_dirty (&m, (unsigned) rnd (SITES), w[i].offset, w[i].length);
        hot_end (&m.hot, w[i].offset, w[i].length, m.hot.cycle);
        w[i].used = false;
      }
      break;
    case 2:
      hot_stable (&m.hot, hot_flush_begin (&m.hot));
      break;
    case 3:
      mark_clear (&m, rnd (2));
      break;
    case 4:
      if (!open && mark_begin (&m, rnd (2))) {
        flight = disk;
        write_stage (&m, &flight);
        open = true;
      }
      break;
    case 5:
      if (open) {
        disk = flight;
        open = mark_done (&m, true);
        if (open)
          write_stage (&m, &flight);
      }
      break;
    case 6: /* a site has got a block */
      for (unsigned k = 0; k < 30; k++)
        bits_set (&m.bits[rnd (SITES)], rnd (m.bits[0].n_bits), false);
      if (rnd (50) == 0)
        mark_persist (&m);
      break;
    }
    if (violations (&m))
      return false;
  }
  return true;
}

static void
test_order (void *memory)
{
  static struct mark m;
  struct mark_block b;
  bool full;

  memset (memory, 0, mark_memory_bytes (SIZE, BLOCK, REGION, ENTRIES, SITES));
  mark_init (&m, memory, SIZE, BLOCK, REGION, ENTRIES, SITES);
  ok (!mark_begin (&m, true), "nothing to write at first");
  hot_begin (&m.hot, 0, 1, &full);
  ok (mark_begin (&m, false) && m.stage == MS_HOT, "a wish opens a stage");
  ok (mark_next (&m, &b) && b.kind == META_HOT && b.copy == 0 && mark_next (&m, &b) && b.copy == 1
          && !mark_next (&m, &b),
      "of both copies of its block");
  ok (!mark_clear (&m, true), "nothing is cleared meanwhile");
  ok (!mark_done (&m, true) && hot_ready (&m.hot, 0, 1), "then it is hot");
  mark_dirty (&m, 2, 0, 20000);
  hot_end (&m.hot, 0, 1, m.hot.cycle);
  ok (!mark_begin (&m, true), "dirty bits are not written while their region is hot");
  hot_stable (&m.hot, hot_flush_begin (&m.hot));
  ok (mark_clear (&m, true), "cleared in memory");
  ok (mark_begin (&m, true) && m.stage == MS_BITS && mark_next (&m, &b) && b.kind == META_BITMAP && b.site == 2,
      "the dirty map goes first");
  is (b.payload[0], 3, "with the blocks of the write");
  ok (!mark_next (&m, &b), "and nothing else");
  ok (mark_done (&m, true) && m.stage == MS_HOT && mark_next (&m, &b) && b.payload[0] == 0,
      "then the hot map without the mark");
  ok (!mark_done (&m, true), "and that is all");

  uint64_t ticket = mark_persist (&m);
  ok (!mark_begin (&m, false) && m.persisted == ticket, "nothing has changed: persisted at once");
  mark_dirty (&m, 1, SIZE - 1, 1);
  ticket = mark_persist (&m);
  ok (mark_begin (&m, false) && m.stage == MS_BITS && m.persisted < ticket, "what was asked for is written");
  mark_next (&m, &b);
  ok (!mark_done (&m, true) && m.persisted == ticket, "and then it is there");
}

static void
test_load (void *memory)
{
  static struct mark m;
  uint8_t payload[META_BLOCK_PAYLOAD] = { 0 }, report[META_BLOCK_PAYLOAD];

  memset (memory, 0, mark_memory_bytes (SIZE, BLOCK, REGION, ENTRIES, SITES));
  mark_init (&m, memory, SIZE, BLOCK, REGION, ENTRIES, SITES);
  payload[3] = 0x10; /* 28 */
  mark_load_hot (&m, 0, payload, true);
  is (hot_next (&m.hot, 0), 28, "a hot bit is found");
  is (hot_next (&m.hot, 29), REGIONS, "and no other");
  mark_load_bits (&m, 1, 0, payload);
  ok (bits_get (&m.bits[1], 28) && m.bits[1].n_set == 1, "a dirty bit too");
  ok (!mark_begin (&m, true), "what was read need not be written");
  payload[3] = 0x20;
  mark_load_bits (&m, 0, 0, payload);
  is (mark_report (&m, 1, 0, 0, report), 6, "a report has the hot region, the site's blocks and the own ones");
  ok (report[3] == 0x30 && report[14] == 0x0f, "each at its place (28, 29, 112 to 115)");
  mark_load_bits (&m, 2, 0, NULL);
  is (m.bits[2].n_set, m.bits[2].n_bits, "a damaged block: all its bits count");
  mark_load_hot (&m, 0, NULL, false);
  uint64_t n = 0;
  for (uint64_t i = hot_next (&m.hot, 0); i < m.hot.n_bits; i = hot_next (&m.hot, i + 1))
    n++;
  is (n, m.hot.n_bits, "of the hot map as well");
  mark_persist (&m);
  ok (mark_begin (&m, false) && m.stage == MS_BITS, "and it is written anew");
}

/* ---- what was written --------------------------------------------------------------------- */

static uint8_t written_memory[3 * META_BLOCK_SIZE];

static void
use_written (struct mark *m, void *memory)
{
  memset (memory, 0, mark_memory_bytes (SIZE, BLOCK, REGION, ENTRIES, SITES));
  mark_init (m, memory, SIZE, BLOCK, REGION, ENTRIES, SITES);
  check (bits_memory_bytes (BLOCKS) <= sizeof written_memory, "room for the map");
  memset (written_memory, 0, sizeof written_memory);
  mark_use_written (m, written_memory);
}

static bool
is_set (const uint8_t *map, uint64_t i)
{
  return map[i / 8] >> (i % 8) & 1;
}

static void
test_written (void *memory)
{
  static struct mark m;
  uint8_t payload[META_BLOCK_PAYLOAD] = { 0 };
  struct mark_block b;
  bool full;

  is (mark_unwritten (NULL, 0, SIZE), 0, "W3 without maps all was written");
  memset (memory, 0, mark_memory_bytes (SIZE, BLOCK, REGION, ENTRIES, SITES));
  mark_init (&m, memory, SIZE, BLOCK, REGION, ENTRIES, SITES);
  mark_loaded (&m);
  ok (mark_unwritten (&m, 0, SIZE) == 0 && mark_written_bytes (&m) == SIZE, "... and of a store without this one");
  use_written (&m, memory);
  ok (mark_unwritten (&m, 0, SIZE) == SIZE && mark_written_bytes (&m) == 0, "nothing was written at first");
  is (mark_unwritten (&m, BLOCK + 5, 100), 100, "of any range");
  ok (!mark_begin (&m, true), "nothing to write");
  hot_begin (&m.hot, 2 * REGION + 5, 1, &full);
  is (mark_unwritten (&m, 0, SIZE), SIZE, "not by a wish");
  ok (mark_begin (&m, false) && mark_next (&m, &b) && b.kind == META_WRITTEN && b.index == 0
          && b.payload[1] == 0x0f && b.payload[0] == 0 && b.payload[2] == 0,
      "W2 all blocks of its region go with the mark");
  ok (mark_next (&m, &b) && b.kind == META_HOT && mark_next (&m, &b) && b.kind == META_HOT && !mark_next (&m, &b),
      "in one stage");
  is (mark_unwritten (&m, 0, SIZE), 2 * REGION, "and count");
  ok (mark_unwritten (&m, 3 * REGION, SIZE - 3 * REGION) == SIZE - 3 * REGION && mark_written_bytes (&m) == REGION
          && mark_unwritten (&m, 2 * REGION, SIZE - 2 * REGION) == 0,
      "they and no others");
  mark_done (&m, true);
  hot_end (&m.hot, 2 * REGION + 5, 1, m.hot.cycle);
  hot_stable (&m.hot, hot_flush_begin (&m.hot));
  mark_clear (&m, true);
  ok (mark_begin (&m, true) && mark_next (&m, &b) && b.kind == META_HOT && b.payload[0] == 0,
      "cleared: the map of what was written stays, and is not written again");
  while (mark_next (&m, &b))
    ;
  mark_done (&m, true);
  is (mark_written_bytes (&m), REGION, "... as it is");
  hot_begin (&m.hot, SIZE - 1, 1, &full);
  ok (mark_begin (&m, false), "the last region");
  write_stage (&m, &disk);
  mark_done (&m, true);
  ok (mark_unwritten (&m, SIZE - 1, 1) == 0 && mark_unwritten (&m, SIZE - 2 * REGION, REGION) == REGION, "may be short");

  use_written (&m, memory);
  mark_load_written (&m, 0, payload);
  payload[0] = 0x02; /* a crash: hot is there, written is not */
  mark_load_hot (&m, 0, payload, true);
  mark_loaded (&m);
  is (mark_unwritten (&m, 0, SIZE), REGION, "W2 what is found hot counts as written");
  ok (!hot_begin (&m.hot, REGION, 1, &full) && !full, "... and its mark is not enough for a write");
  ok (mark_begin (&m, false) && mark_next (&m, &b) && b.kind == META_WRITTEN && b.payload[0] == 0xf0,
      "... before its blocks are on the disk");
  while (mark_next (&m, &b))
    ;
  ok (!mark_done (&m, true) && hot_ready (&m.hot, REGION, 1), "then it goes");

  use_written (&m, memory);
  payload[0] = 0xf2;
  mark_load_written (&m, 0, payload);
  payload[0] = 0x02;
  mark_load_hot (&m, 0, payload, true);
  mark_loaded (&m);
  ok (hot_begin (&m.hot, REGION, 1, &full), "found hot and written: it goes at once");
  ok (!mark_begin (&m, true), "and nothing is to be written");

  use_written (&m, memory);
  mark_load_written (&m, 0, NULL);
  mark_loaded (&m);
  ok (mark_unwritten (&m, 0, SIZE) == 0 && mark_written_bytes (&m) == SIZE, "W3 a damaged block counts as written");
  hot_begin (&m.hot, 0, 1, &full);
  ok (mark_begin (&m, false) && mark_next (&m, &b) && b.kind == META_WRITTEN, "and is written anew with the next mark");
}

/* As it is read from a store (mapw.c): sealed or not. */
static int
read_written (struct mark *m, const uint8_t *block, const struct meta_block_id *id, uint32_t sealed)
{
  uint64_t sequence;
  int r = meta_block_check_sealed (block, id, sealed, &sequence);

  if (r != -ENODATA)
    mark_load_written (m, id->index, r == 0 ? block + META_BLOCK_HEADER : NULL);
  return r;
}

/* Blocks that were written, and don't count as that. */
static unsigned
count_lacking (const struct mark *m, const bool *truth, unsigned n)
{
  unsigned lacking = 0;

  for (unsigned b = 0; b < n; b++)
    lacking += truth[b] && mark_unwritten (m, (uint64_t) b * m->block_size, 1) > 0;
  return lacking;
}

/* W3: a map is damaged in every way that a disk has. */
static void
test_damage (void *memory)
{
  static uint8_t block[META_BLOCK_SIZE], old[META_BLOCK_SIZE], bad[META_BLOCK_SIZE];
  static bool truth[BLOCKS];
  static struct mark m;
  const struct meta_block_id id = { META_WRITTEN, 0, 0, { 1, 2, 3 } }, next = { META_WRITTEN, 0, 1, { 1, 2, 3 } };
  const unsigned n = (unsigned) div_round_up (SIZE, BLOCK);
  unsigned n_written = 0, unseen = 0, less = 0;

  memset (block, 0, sizeof block);
  for (unsigned b = 0; b < n; b++) {
    truth[b] = rnd (8) == 0;
    n_written += truth[b];
    block[META_BLOCK_HEADER + b / 8] |= (uint8_t) (truth[b] << b % 8);
  }
  memcpy (old, block, sizeof old); /* what a write of it replaces: fewer bits */
  for (unsigned i = META_BLOCK_HEADER; i < META_BLOCK_SIZE; i++)
    old[i] &= (uint8_t) rnd (256);
  meta_block_seal (old, &id, 6);
  meta_block_seal (block, &id, 7);
  use_written (&m, memory);
  is (read_written (&m, block, &id, SUPER_SEALED_ALL), 0, "a map with 1 of 8 blocks written");
  for (unsigned b = 0; b < n; b++)
    check ((mark_unwritten (&m, (uint64_t) b * BLOCK, 1) == 0) == truth[b], "block %u", b);
  ok (m.written.n_set == n_written && m.written.changed[0] == 0, "whole it says that, and need not be written again");

  for (unsigned i = 0; i < META_BLOCK_SIZE * 8; i++) {
    bits_init (&m.written, memset (written_memory, 0, sizeof written_memory), 64);
    block[i / 8] ^= (uint8_t) (1 << i % 8);
    unseen += read_written (&m, block, &id, SUPER_SEALED_ALL) != -EBADMSG;
    less += m.written.n_set != 64 || m.written.changed[0] == 0;
    block[i / 8] ^= (uint8_t) (1 << i % 8);
  }
  ok (unseen == 0 && less == 0, "W3 whichever of its bits is flipped, all counts as written, and it is written again");

  for (unsigned k = 1; k <= META_BLOCK_SIZE / 512; k++) {
    memcpy (bad, block, sizeof bad);
    memcpy (bad + k * 512, old + k * 512, META_BLOCK_SIZE - k * 512);
    use_written (&m, memory);
    read_written (&m, bad, &id, SUPER_SEALED_ALL);
    check (count_lacking (&m, truth, n) == 0, "torn after sector %u", k);
    memcpy (bad, block, sizeof bad);
    memset (bad + (k - 1) * 512, 0, 512);
    use_written (&m, memory);
    read_written (&m, bad, &id, SUPER_SEALED_ALL);
    check (count_lacking (&m, truth, n) == 0, "sector %u zeroed", k - 1);
  }
  memset (bad, 0, sizeof bad);
  use_written (&m, memory);
  ok (read_written (&m, bad, &id, SUPER_SEALED_ALL) == -EBADMSG && m.written.n_set == n,
      "torn, or zeroed in part or whole once it was sealed: nothing that was written is lacking");
  meta_block_seal (bad, &next, 8);
  use_written (&m, memory);
  ok (read_written (&m, bad, &id, SUPER_SEALED_ALL) == -EBADMSG && m.written.n_set == n,
      "another block of it in its place: the same");
  memset (bad, 0, sizeof bad);
  use_written (&m, memory);
  ok (read_written (&m, bad, &id, SUPER_SEALED_ALL & ~SUPER_SEALED_WRITTEN) == -ENODATA && m.written.n_set == 0,
      "zeroes of a map that was never written say that nothing was");

  /* A larger map: the next block's bits are its own. */
  bits_init (&m.written, memset (written_memory, 0, sizeof written_memory), META_BLOCK_BITS + 9);
  mark_load_written (&m, 0, NULL);
  mark_load_written (&m, 1, bad);
  ok (m.written.n_set == META_BLOCK_BITS && m.written.changed[0] == 1, "a damaged block is about its own blocks alone");
  memset (bad, 0xff, sizeof bad);
  mark_load_written (&m, 1, bad);
  is (m.written.n_set, META_BLOCK_BITS + 9, "bits behind the last block mean nothing");
}

/* Writes and crashes, which leave any part of a stage, torn or whole. */
static bool
written_life (uint64_t seed, void *memory)
{
  static struct mark m;
  static struct { bool used, ready; uint64_t offset, length; } w[WRITES];
  static bool touched[BLOCKS];
  bool open = false, torn = false;

  rng = seed * 2654435761u + 88172645463325252u;
  memset (touched, 0, sizeof touched);
  memset (&disk, 0, sizeof disk);
  memset (w, 0, sizeof w);
  use_written (&m, memory);
  for (unsigned step = 0; step < 1000; step++) {
    unsigned i = (unsigned) rnd (WRITES);
    bool full;

    switch (rnd (6)) {
    case 0:
    case 1:
      if (!w[i].used) {
        w[i].offset = rnd (SIZE - 3 * REGION);
        w[i].length = 1 + rnd (3 * REGION);
        w[i].ready = hot_begin (&m.hot, w[i].offset, w[i].length, &full);
        w[i].used = !full;
      }
      else if (!w[i].ready)
        w[i].ready = hot_ready (&m.hot, w[i].offset, w[i].length);
      else {
        hot_end (&m.hot, w[i].offset, w[i].length, m.hot.cycle);
        w[i].used = false;
      }
      for (uint64_t b = w[i].offset / BLOCK; w[i].used && w[i].ready && b * BLOCK < w[i].offset + w[i].length; b++)
        touched[b] = true;
      break;
    case 2:
      hot_stable (&m.hot, hot_flush_begin (&m.hot));
      mark_clear (&m, rnd (2));
      break;
    case 3:
      if (!open && mark_begin (&m, rnd (2))) {
        flight = disk;
        write_stage (&m, &flight);
        open = true;
      }
      break;
    case 4:
      if (open) {
        disk = flight;
        open = mark_done (&m, true);
        if (open)
          write_stage (&m, &flight);
      }
      break;
    case 5:
      if (rnd (40) != 0)
        break;
      if (open) {
        for (unsigned copy = 0; copy < 2; copy++)
          if (rnd (2))
            memcpy (disk.hot[copy], flight.hot[copy], META_BLOCK_PAYLOAD);
        torn = rnd (3) == 0;
        if (rnd (2))
          memcpy (disk.written, flight.written, META_BLOCK_PAYLOAD);
      }
      open = false;
      use_written (&m, memory);
      mark_load_hot (&m, 0, disk.hot[0], memcmp (disk.hot[0], disk.hot[1], META_BLOCK_PAYLOAD) == 0);
      mark_load_written (&m, 0, torn ? NULL : disk.written);
      if (torn) /* its bits count as set until it is written anew */
        memset (disk.written, 0xff, META_BLOCK_PAYLOAD);
      torn = false;
      mark_loaded (&m);
      memset (w, 0, sizeof w);
      break;
    }
    for (uint64_t b = 0; step % 5 == 0 && b < BLOCKS && b * BLOCK < SIZE; b++)
      if (touched[b] && (!is_set (disk.written, b) || mark_unwritten (&m, b * BLOCK, 1) > 0))
        return false;
  }
  return true;
}

int
main (void)
{
  void *memory = malloc (mark_memory_bytes (SIZE, BLOCK, REGION, ENTRIES, SITES));
  unsigned bad = 0;

  test_order (memory);
  test_load (memory);
  test_written (memory);
  test_damage (memory);
  for (uint64_t seed = 1; seed <= 100 && !bad; seed++)
    if (!life (seed, memory)) {
      printf ("# seed %llu\n", (unsigned long long) seed);
      bad++;
    }
  is (bad, 0, "100 random lives: what is dirty is dirty or hot on the disk, always");
  for (uint64_t seed = 1; seed <= 50 && !bad; seed++)
    if (!written_life (seed, memory)) {
      printf ("# seed %llu\n", (unsigned long long) seed);
      bad++;
    }
  is (bad, 0, "50 more with crashes: what was written is on the disk as such, always");
  const uint64_t tib = (uint64_t) 1 << 40;
  for (uint64_t size = tib; size <= 16 * tib; size *= 16)
    printf ("# %llu TiB, blocks of 64 KiB: %zu KiB of memory for hot map and one site's map\n",
            (unsigned long long) (size / tib),
            mark_memory_bytes (size, 65536, hot_region_size (size, 3 * (tib >> 10)), HOT_MAX_ENTRIES, 1) >> 10);
  free (memory);
  return tap_done ();
}
