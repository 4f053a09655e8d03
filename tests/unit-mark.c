/* SPDX-License-Identifier: BSD-3-Clause */
/* The maps of a store against a model of its disk.  The rule under test, at every step: whatever
 * is dirty for a site is dirty or hot on the disk; and what was loaded is what was written. */
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
  uint8_t hot[2][META_BLOCK_PAYLOAD], bits[SITES][META_BLOCK_PAYLOAD];
} disk, flight;

/* Carries a stage out; what a crash before its end leaves is any part of it. */
static void
write_stage (struct mark *m, struct disk *d)
{
  struct mark_block b;

  while (mark_next (m, &b)) {
    check (b.index == 0, "one block holds this map");
    memcpy (b.kind == META_HOT ? d->hot[b.copy] : d->bits[b.site], b.payload, META_BLOCK_PAYLOAD);
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

int
main (void)
{
  void *memory = malloc (mark_memory_bytes (SIZE, BLOCK, REGION, ENTRIES, SITES));
  unsigned bad = 0;

  test_order (memory);
  test_load (memory);
  for (uint64_t seed = 1; seed <= 100 && !bad; seed++)
    if (!life (seed, memory)) {
      printf ("# seed %llu\n", (unsigned long long) seed);
      bad++;
    }
  is (bad, 0, "100 random lives: what is dirty is dirty or hot on the disk, always");
  const uint64_t tib = (uint64_t) 1 << 40;
  for (uint64_t size = tib; size <= 16 * tib; size *= 16)
    printf ("# %llu TiB, blocks of 64 KiB: %zu KiB of memory for hot map and one site's map\n",
            (unsigned long long) (size / tib),
            mark_memory_bytes (size, 65536, hot_region_size (size, 3 * (tib >> 10)), HOT_MAX_ENTRIES, 1) >> 10);
  free (memory);
  return tap_done ();
}
