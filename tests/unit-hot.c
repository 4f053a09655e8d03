/* SPDX-License-Identifier: BSD-3-Clause */
/* Hot regions: the table, exhaustively; then random writes, batches, flushes and power losses
 * against a model of the disk.  The rule under test: whatever write was let go and is not
 * covered by a finished flush has its region's mark on stable storage.
 */
#include "plugin/hot.h"

#include <stdlib.h>
#include <string.h>

#include "common/super.h"
#include "common/util.h"
#include "tests/tap.h"

#define MIB ((uint64_t) 1 << 20)

static void
test_table (void)
{
  unsigned legal = 0;

  for (unsigned s = 0; s < HS_STATES; s++)
    for (unsigned m = 0; m < HM_MOVES; m++) {
      uint8_t next = hot_table[s][m];
      legal += next != HOT_ILLEGAL;
      check (next == HOT_ILLEGAL || next < HS_STATES, "%u %u", s, m);
      /* Only a confirmed batch makes hot, only a clearing makes cold. */
      check (next != HS_HOT || s == HS_HOT || m == HM_MARKED, "%u %u", s, m);
      check (next != HS_COLD || m == HM_CLEAR, "%u %u", s, m);
    }
  is (legal, 8, "eight legal moves");
}

static uint64_t rng = 1;
static uint64_t
rnd (uint64_t n)
{
  rng ^= rng << 13, rng ^= rng >> 7, rng ^= rng << 17;
  return rng % n;
}

enum { REGIONS = 256, WRITES = 40, ENTRIES = 2 * HOT_MAX_SPAN };

struct pending {
  bool used, granted;
  uint64_t offset, length;
};

/* Each entry is in the list by age, once. */
static bool
is_listed (const struct hot *h)
{
  unsigned n = 0;
  uint16_t older = 0;

  for (uint16_t i = h->oldest; i != 0 && n <= h->n_entries; older = i, i = h->entry[i - 1].newer, n++)
    if (i > h->n_entries || h->entry[i - 1].older != older || h->index[h->entry[i - 1].region] != i)
      return false;
  return n == h->n_entries && h->newest == older;
}

/* One life of a store between two opens. */
struct model {
  bool stable[REGIONS];        /* marks on the medium */
  bool needs[REGIONS];         /* a write went that no finished flush covers */
  bool ended_since[REGIONS];   /* ... ended after the running flush began */
  struct pending w[WRITES];
};

static unsigned
count_violations (const struct model *m)
{
  unsigned bad = 0;
  for (unsigned r = 0; r < REGIONS; r++)
    bad += m->needs[r] && !m->stable[r];
  return bad;
}

static void
grant (struct model *m, struct pending *p)
{
  p->granted = true;
  for (uint64_t r = p->offset / MIB; r <= (p->offset + p->length - 1) / MIB; r++)
    m->needs[r] = true;
}

static void
run_model (uint64_t seed, struct hot *h, void *memory)
{
  static struct model m;
  static uint8_t in_flight[META_BLOCK_PAYLOAD];
  bool batch = false, flushing = false;
  uint64_t cycle = 0;

  rng = seed * 2654435761u + 88172645463325252u;
  memset (&m, 0, sizeof m);
  memset (memory, 0, hot_memory_bytes (REGIONS * MIB, MIB, ENTRIES));
  hot_init (h, memory, REGIONS * MIB, MIB, ENTRIES);
  for (unsigned step = 0; step < 3000; step++) {
    struct pending *p = &m.w[rnd (WRITES)];
    switch (rnd (8)) {
    case 0: case 1: case 2:
      if (!p->used) {
        bool full;
        p->offset = rnd (REGIONS * MIB - 4 * MIB);
        p->length = 1 + rnd (3 * MIB);
        bool room = hot_has_room (h, p->offset, p->length);
        bool ready = hot_begin (h, p->offset, p->length, &full);
        check (!(ready && full), "ready and full");
        check (room == !full, "full says what has_room said");
        if (!full) {
          *p = (struct pending) { .used = true, .offset = p->offset, .length = p->length };
          if (ready)
            grant (&m, p);
        }
      }
      else if (!p->granted && hot_ready (h, p->offset, p->length))
        grant (&m, p);
      else if (p->granted) {
        hot_end (h, p->offset, p->length, h->cycle);
        for (uint64_t r = p->offset / MIB; r <= (p->offset + p->length - 1) / MIB; r++)
          m.ended_since[r] = true;
        p->used = false;
      }
      break;
    case 3:
      if (!batch) {
        uint64_t blocks[4];
        unsigned n = hot_batch (h, blocks, 4, rnd (2));
        check (n <= 1, "one block holds this map");
        if (n) {
          memcpy (in_flight, hot_block (h, blocks[0]), sizeof in_flight);
          batch = true;
        }
      }
      break;
    case 4:
      if (batch) {
        bool good = rnd (10) != 0;
        if (good) /* a failed one may or may not have reached the medium: worst case it did not */
          for (unsigned r = 0; r < REGIONS; r++)
            m.stable[r] = in_flight[r / 8] >> (r % 8) & 1;
        hot_batch_done (h, good);
        batch = false;
      }
      break;
    case 5:
      if (!flushing) {
        cycle = hot_flush_begin (h);
        memset (m.ended_since, 0, sizeof m.ended_since);
        flushing = true;
      }
      break;
    case 6:
      if (flushing) {
        hot_stable (h, cycle);
        flushing = false;
        for (unsigned r = 0; r < REGIONS; r++) {
          bool writer = false;
          for (unsigned i = 0; i < WRITES; i++)
            writer |= m.w[i].used && m.w[i].granted && m.w[i].offset / MIB <= r &&
                      r <= (m.w[i].offset + m.w[i].length - 1) / MIB;
          if (!writer && !m.ended_since[r])
            m.needs[r] = false;
        }
      }
      break;
    case 7:
      hot_clear (h, rnd (2));
      break;
    }
    unsigned bad = count_violations (&m), marked = 0;
    for (unsigned r = 0; r < REGIONS; r++)
      marked += m.stable[r];
    check (is_listed (h), "seed %llu step %u: the list by age is broken", (unsigned long long) seed, step);
    check (marked <= ENTRIES, "seed %llu step %u: %u marks on the medium, the bound is %u", (unsigned long long) seed, step,
           marked, ENTRIES);
    if (bad) {
      ok (false, "seed %llu step %u: %u regions written without a stable mark",
          (unsigned long long) seed, step, bad);
      return;
    }
  }
}

static void
test_found (struct hot *h, void *memory)
{
  bool full;

  memset (memory, 0, hot_memory_bytes (REGIONS * MIB, MIB, ENTRIES));
  hot_init (h, memory, REGIONS * MIB, MIB, ENTRIES);
  hot_found (h, 7);
  hot_found (h, 200);
  is (hot_next (h, 0), 7, "the first found region");
  is (hot_next (h, 8), 200, "the next");
  is (hot_next (h, 201), REGIONS, "no more");
  ok (hot_begin (h, 7 * MIB, 4096, &full), "a found region is marked already");
  hot_end (h, 7 * MIB, 4096, h->cycle);
  hot_stable (h, hot_flush_begin (h));
  is (hot_clear (h, true), 1, "a flush frees its entry");
  ok (hot_is_marked (h, 7), "but its mark is not cleared before it is settled");
  ok (hot_settle (h), "settled: there was something");
  ok (!hot_is_marked (h, 7), "its mark is gone from the map");
  ok (!hot_is_marked (h, 200), "an unwritten one goes with settle alone");
  ok (!hot_settle (h), "nothing is left to settle");

  hot_begin (h, 9 * MIB, 4096, &full);
  uint64_t blocks[4];
  hot_batch (h, blocks, 4, false);
  hot_batch_done (h, true);
  hot_end (h, 9 * MIB, 4096, 70);
  hot_unlink (h);
  is (h->n_entries, 0, "the end of a link: no entry is held any more");
  ok (hot_is_marked (h, 9), "but its mark stays");
  hot_stable (h, 100);
  is (hot_clear (h, true), 0, "and the next link's numbers do not clear it");
  ok (hot_settle (h) && !hot_is_marked (h, 9), "settle does");

  hot_begin (h, 20 * MIB + MIB - 4096, 8192, &full);
  hot_keep (h, 21 * MIB, 4096);
  hot_batch (h, blocks, 4, false);
  hot_batch_done (h, true);
  hot_end (h, 20 * MIB + MIB - 4096, 8192, 110);
  hot_stable (h, 110);
  is (hot_clear (h, true), 2, "one of two regions is to be kept: a flush frees both");
  ok (!hot_is_marked (h, 20) && hot_is_marked (h, 21), "and one is marked still");
  ok (hot_settle (h) && !hot_is_marked (h, 21), "until it is settled");
}

static void
test_bound (struct hot *h, void *memory)
{
  bool full = false;
  uint64_t blocks[4];
  unsigned n = 0;

  memset (memory, 0, hot_memory_bytes (REGIONS * MIB, MIB, ENTRIES));
  hot_init (h, memory, REGIONS * MIB, MIB, ENTRIES);
  while (!full && n < REGIONS)
    if (hot_begin (h, n * MIB, 1, &full) || !full)
      n++;
  is (n, ENTRIES, "no more than the bound");
  is (hot_batch (h, blocks, 4, false), 1, "all marks share one batch");
  hot_batch_done (h, true);
  is (h->n_state[HS_HOT], ENTRIES, "all are hot after it");
  for (unsigned i = 0; i < n; i++)
    hot_end (h, i * MIB, 1, h->cycle);
  is (hot_clear (h, true), 0, "nothing is cleared without a flush");
  is (hot_flushable (h), ENTRIES, "all wait for one");
  uint64_t cycle = hot_flush_begin (h);
  ok (hot_begin (h, 5 * MIB, 1, &full), "a hot region is written at once");
  hot_end (h, 5 * MIB, 1, h->cycle);
  hot_stable (h, cycle);
  is (hot_clear (h, true), ENTRIES - 1, "a flush clears what ended before it began");
  is (h->n_entries, 1, "the one written since stays");
}

static void
mark_all (struct hot *h)
{
  uint64_t blocks[4];

  if (hot_batch (h, blocks, 4, false) > 0)
    hot_batch_done (h, true);
}

/* A region half of which is written leads to the next ones. */
static void
test_ahead (struct hot *h, void *memory)
{
  bool full;
  uint64_t batches;

  memset (memory, 0, hot_memory_bytes (REGIONS * MIB, MIB, ENTRIES));
  hot_init (h, memory, REGIONS * MIB, MIB, ENTRIES);
  for (unsigned i = 0; i < 7; i++) {
    hot_begin (h, 3 * MIB + i * MIB / 16, MIB / 16, &full);
    mark_all (h);
    hot_end (h, 3 * MIB + i * MIB / 16, MIB / 16, h->cycle);
  }
  is (h->n_entries, 1, "less than half a region leads to no other");
  hot_begin (h, 3 * MIB + 7 * MIB / 16, MIB / 16, &full);
  is (h->n_state[HS_WANTED], HOT_AHEAD, "half of it leads to the next ones");
  mark_all (h);
  ok (hot_ready (h, 4 * MIB, HOT_AHEAD * MIB), "a sequential writer finds them marked");
  ok (hot_begin (h, 4 * MIB, 1, &full), "and does not wait");
  hot_begin (h, 3 * MIB, MIB, &full);
  is (h->n_state[HS_WANTED], 0, "the same region leads only once");

  /* On and on: a batch serves several regions, and no write waits. */
  batches = h->batches;
  unsigned waited = 0, n = 0;
  for (uint64_t at = 4 * MIB; at < 100 * MIB; at += MIB / 4, n++) {
    waited += !hot_begin (h, at, MIB / 4, &full);
    check (!full, "there is room");
    mark_all (h);
    hot_end (h, at, MIB / 4, h->cycle);
    if (hot_wants_flush (h)) {
      hot_stable (h, hot_flush_begin (h));
      hot_clear (h, false);
    }
  }
  is (waited, 0, "no write of a sequential stream waits");
  is (hot_ahead (h), HOT_AHEAD, "few at once where few may be hot");
  h->clear_above = 1500;
  is (hot_ahead (h), HOT_AHEAD_MAX, "more where there is room");
  h->clear_above = ENTRIES / 2;
  ok (h->batches - batches <= 96 / (HOT_AHEAD / 2) + 1, "one batch for %u regions: %llu for 96", HOT_AHEAD / 2,
      (unsigned long long) (h->batches - batches));

  memset (memory, 0, hot_memory_bytes (REGIONS * MIB, MIB, ENTRIES));
  hot_init (h, memory, REGIONS * MIB, MIB, ENTRIES);
  hot_begin (h, (REGIONS - 3) * MIB, MIB, &full);
  is (h->n_entries, 3, "not beyond the end");
  hot_begin (h, (REGIONS - 100) * MIB, 66 * MIB - 1, &full);
  ok (hot_ready (h, (REGIONS - 3) * MIB, 1) == false && h->n_entries > 69 && h->n_entries <= 69 + HOT_AHEAD,
      "a long write leads from its end: %u regions", h->n_entries);
  hot_begin (h, 10 * MIB, 22 * MIB, &full);
  unsigned before = h->n_entries;
  hot_begin (h, 40 * MIB, MIB, &full);
  is (h->n_entries, before + 1, "and not while few entries are free");
}

/* What was not asked for longest goes first, and a flush is wanted before all are in use. */
static void
test_victims (struct hot *h, void *memory)
{
  bool full;

  memset (memory, 0, hot_memory_bytes (REGIONS * MIB, MIB, ENTRIES));
  hot_init (h, memory, REGIONS * MIB, MIB, ENTRIES);
  for (unsigned i = 0; i < ENTRIES / 2 + 10; i++) {
    hot_begin (h, i * MIB, 1, &full);
    ok (!hot_wants_flush (h) || i > ENTRIES / 2, "no flush while more than half are free");
    hot_end (h, i * MIB, 1, h->cycle);
  }
  mark_all (h);
  hot_stable (h, hot_flush_begin (h));
  ok (hot_clear (h, false) > 0, "a round of clearing");
  is (h->n_entries, ENTRIES / 2, "down to a half");
  /* All but the first ten that are left are asked for again; then ten new ones. */
  bool old[REGIONS] = { false };
  unsigned n_old = 0;
  for (unsigned i = 0; i < ENTRIES / 2 + 10; i++)
    if (hot_is_marked (h, i)) {
      if (n_old < 10) {
        old[i] = true;
        n_old++;
      }
      else {
        hot_begin (h, i * MIB, 1, &full);
        hot_end (h, i * MIB, 1, h->cycle);
      }
    }
  for (unsigned i = 0; i < 10; i++) {
    hot_begin (h, (200 + i) * MIB, 1, &full);
    hot_end (h, (200 + i) * MIB, 1, h->cycle);
  }
  mark_all (h);
  ok (!hot_wants_flush (h), "enough is free");
  hot_stable (h, hot_flush_begin (h));
  is (hot_clear (h, false), 10, "the next round");
  unsigned wrong = 0;
  for (unsigned i = 0; i < ENTRIES / 2 + 10; i++)
    wrong += old[i] && hot_is_marked (h, i);
  is (wrong, 0, "takes those that nobody has asked for since");

  for (unsigned i = 100; i < 100 + ENTRIES / 8 + 2; i++) {
    hot_begin (h, i * MIB, 1, &full);
    ok (!hot_wants_flush (h), "no flush that would free nothing");
  }
  for (unsigned i = 100; i < 100 + ENTRIES / 8 + 2; i++)
    hot_end (h, i * MIB, 1, h->cycle);
  ok (hot_wants_flush (h) && h->n_entries < ENTRIES, "a flush is wanted before all are in use");
  hot_flush_begin (h);
  ok (!hot_wants_flush (h), "once");
}

static void
test_large_regions (void)
{
  static struct hot h;
  void *memory = calloc (1, hot_memory_bytes (REGIONS * MIB - 4096, 4 * MIB, ENTRIES));
  uint64_t blocks[4];
  bool full;

  hot_init (&h, memory, REGIONS * MIB - 4096, 4 * MIB, ENTRIES);
  is (h.n_regions, REGIONS / 4, "regions of 4 MiB");
  is (h.n_bits, REGIONS, "one bit for each MiB all the same");
  ok (!hot_begin (&h, 9 * MIB, 4096, &full) && !full, "a write wants its region");
  hot_batch (&h, blocks, 4, false);
  ok (!hot_is_marked (&h, 1) && hot_is_marked (&h, 2) && hot_next (&h, 0) == 8, "all its MiBs are marked");
  is (hot_next (&h, 12), REGIONS, "and no other");
  hot_batch_done (&h, true);
  hot_end (&h, 9 * MIB, 4096, h.cycle);
  hot_found (&h, 17);
  ok (hot_is_marked (&h, 4) && !hot_begin (&h, 17 * MIB, 1, &full), "a region found in part is marked anew");
  hot_batch (&h, blocks, 4, false);
  hot_batch_done (&h, true);
  is (hot_next (&h, 16), 16, "as a whole");
  hot_end (&h, 17 * MIB, 1, h.cycle);
  hot_stable (&h, hot_flush_begin (&h));
  is (hot_clear (&h, true), 2, "both are cleared");
  ok (hot_next (&h, 0) == 16 && hot_is_marked (&h, 4), "with all their bits, but what was found stays until it is settled");
  hot_batch (&h, blocks, 4, true);
  hot_batch_done (&h, true);
  ok (hot_settle (&h) && hot_next (&h, 0) == REGIONS, "then it goes as well");

  /* Found whole, and written to while another batch is on its way: the flush of that write says
   * nothing about what was found. */
  for (unsigned i = 0; i < 4; i++)
    hot_found (&h, 20 + i);
  hot_begin (&h, 40 * MIB, 4096, &full);
  is (hot_batch (&h, blocks, 4, false), 1, "a batch is on its way");
  ok (!hot_begin (&h, 20 * MIB, 4096, &full), "a region that was found has to wait for the next");
  hot_batch_done (&h, true);
  hot_batch (&h, blocks, 4, false);
  hot_batch_done (&h, true);
  ok (hot_ready (&h, 20 * MIB, 4096), "it is marked");
  hot_end (&h, 20 * MIB, 4096, h.cycle);
  hot_end (&h, 40 * MIB, 4096, h.cycle);
  hot_stable (&h, hot_flush_begin (&h));
  is (hot_clear (&h, true), 2, "both are covered by a flush");
  ok (hot_is_marked (&h, 5) && !hot_is_marked (&h, 10), "and what was found stays hot");
  free (memory);
}

int
main (void)
{
  static struct hot h;
  void *memory = malloc (hot_memory_bytes (REGIONS * MIB, MIB, ENTRIES));

  test_table ();
  test_found (&h, memory);
  test_bound (&h, memory);
  test_ahead (&h, memory);
  test_victims (&h, memory);
  test_large_regions ();
  unsigned failed = tap_failed;
  for (uint64_t seed = 1; seed <= 300; seed++)
    run_model (seed, &h, memory);
  ok (tap_failed == failed, "300 random lives: no write without a stable mark");
  const uint64_t tib = (uint64_t) 1 << 40;
  uint32_t size = hot_region_size (16 * tib, 3 * (tib >> 10));
  size_t bytes = hot_memory_bytes (16 * tib, size, HOT_MAX_ENTRIES);
  printf ("# 16 TiB: regions of %u MiB, %zu KiB of memory\n", size >> 20, bytes >> 10);
  ok (bytes < 11 << 20, "the map of 16 TiB fits 11 MiB");
  free (memory);
  return tap_done ();
}
