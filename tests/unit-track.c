/* SPDX-License-Identifier: BSD-3-Clause */
/* The table of block states: every state with every move, then long random runs against a
 * plain model, then what it costs in memory. */
#include <stdlib.h>
#include <string.h>

#include "plugin/copy_private.h"
#include "plugin/repl_private.h"
#include "plugin/track.h"
#include "tests/tap.h"

#define BLOCK 4096u

static void
test_table (void)
{
  for (unsigned s = 0; s < TS_STATES; s++)
    for (unsigned m = 0; m < TM_MOVES; m++) {
      const unsigned n = track_table[s][m];
      check (n < TS_STATES || n == TRACK_ILLEGAL, "%s, move %u: a state", track_state_name (s), m);
      if (m == TM_MARK)
        check (n == TS_DIRTY, "every failure makes %s dirty", track_state_name (s));
      if (n == TS_CLEAN && s != TS_CLEAN)
        check ((s == TS_SENT_A && m == TM_STABLE_A) || (s == TS_SENT_B && m == TM_STABLE_B),
               "%s becomes clean by its own epoch's flush only (move %u)", track_state_name (s),
               m);
      if (m == TM_DOUBT)
        check (n == (s == TS_DIRTY ? TS_DIRTY : TS_DOUBT), "what is known to be lacking stays so, %s does not", track_state_name (s));
      if (m == TM_LOCK)
        check ((n == TS_SYNCING) == (s == TS_DIRTY || s == TS_DOUBT), "only what may be lacking is locked");
      if (m == TM_ASK)
        check ((n == TS_ASKED) == (s == TS_DOUBT) && (n == TRACK_ILLEGAL) == (s != TS_DOUBT),
               "only what is in doubt is asked for");
      if (m != TM_ASK && m != TM_STABLE_A && m != TM_STABLE_B)
        check (n != TS_ASKED, "D1 whatever happens to a block, its question is of no use any more");
      if ((m == TM_WRITE_A || m == TM_WRITE_B) && s == TS_DIRTY)
        check (n == TS_DIRTY, "a write to a part does not clean the rest");
      if ((m == TM_WRITE_A || m == TM_WRITE_B) && s == TS_SYNCING)
        check (n == TRACK_ILLEGAL, "no write passes the lock of a resync");
      if (m == TM_STABLE_A || m == TM_STABLE_B)
        check (n != TRACK_ILLEGAL, "a late flush harms nobody");
    }
  ok (true, "all %u states with all %u moves", TS_STATES, TM_MOVES);
  is_str (track_state_name (TS_SENT_B), "sent-b", "states have names");
  is_str (track_state_name (TS_STATES), "state?", "what is none is shown as such");
}

/* The plain model: for each block what it is, written down directly. */
static void
test_model (uint64_t seed)
{
  enum { N = 77 };
  static uint8_t map[64];
  static struct track t;
  const uint64_t size = N * (uint64_t) BLOCK - 1000;
  uint8_t state[N]; /* 0 clean 1 dirty 2 syncing 3 sent 4 in doubt 5 asked for */
  unsigned epoch[N];
  unsigned now = 0, closing = 0; /* epochs count up; closing: the one that waits */
  uint64_t x = seed;

#define RND(n) ((x = x * 6364136223846793005u + 1442695040888963407u) >> 33) % (n)
  track_init (&t, map, size, BLOCK, NULL, false);
  track_doubt_all (&t);
  memset (state, 4, sizeof state);
  memset (epoch, 0, sizeof epoch);
  for (unsigned step = 0; step < 4000; step++) {
    const uint64_t off = RND (size), len = 1 + RND (size - off < 5 * BLOCK ? size - off : 5 * BLOCK);
    const unsigned b0 = (unsigned) (off / BLOCK), b1 = (unsigned) ((off + len - 1) / BLOCK);
    struct track_range r;
    switch (RND (12)) {
    case 9:
      track_doubt (&t, off, len);
      for (unsigned b = b0; b <= b1; b++)
        if (state[b] != 1)
          state[b] = 4;
      break;
    case 10:
      for (unsigned b = 0; b < N; b++)
        if (state[b] == 4) {
          track_ask (&t, (struct track_range) { b, 1 });
          state[b] = 5;
          break;
        }
      break;
    case 11: /* equal */
      for (unsigned b = 0; b < N; b++)
        if (state[b] == 5 && track_can_send (&t)) {
          track_resync_sent (&t, (struct track_range) { b, 1 });
          state[b] = 3;
          epoch[b] = now;
        }
      break;
    case 0:
      track_mark (&t, off, len);
      memset (state + b0, 1, b1 - b0 + 1);
      break;
    case 1:
    case 2: {
      bool locked = false;
      for (unsigned b = b0; b <= b1; b++)
        locked |= state[b] == 2;
      if (locked || !track_can_send (&t))
        break;
      track_write_sent (&t, off, len);
      for (unsigned b = b0; b <= b1; b++) {
        const uint64_t end = (b + 1) * (uint64_t) BLOCK < size ? (b + 1) * (uint64_t) BLOCK : size;
        bool whole = off <= b * (uint64_t) BLOCK && off + len >= end;
        if (state[b] == 5 && !whole)
          state[b] = 1;
        if ((state[b] == 1 || state[b] == 4) && !whole)
          continue;
        state[b] = 3;
        epoch[b] = now;
      }
      break;
    }
    case 3:
    case 4:
      r.n = RND (4);
      r.first = RND (4);
      if (track_next (&t, 1 + r.n, 1 + r.first, &r)) {
        const unsigned kind = state[r.first];
        check (kind == 1 || kind == 4, "next gives what waits");
        for (uint64_t b = r.first; b < r.first + r.n; b++) {
          check (state[b] == kind, "next gives blocks of one kind");
          state[b] = 2;
        }
        track_lock (&t, r);
      }
      else
        for (unsigned b = 0; b < N; b++)
          check (state[b] != 1 && state[b] != 4, "next misses none");
      break;
    case 5:
      for (unsigned b = 0; b < N; b++)
        if (state[b] == 2 && track_can_send (&t)) {
          track_resync_sent (&t, (struct track_range) { b, 1 });
          state[b] = 3;
          epoch[b] = now;
          break;
        }
      break;
    case 6:
      if (!t.closing) {
        track_flush_sent (&t);
        closing = now++;
      }
      break;
    case 7:
      if (t.closing) {
        track_flush_done (&t);
        for (unsigned b = 0; b < N; b++)
          if (state[b] == 3 && epoch[b] == closing)
            state[b] = 0;
      }
      break;
    case 8:
      if (RND (10) == 0) { /* link lost */
        track_doubt_sent (&t);
        for (unsigned b = 0; b < N; b++)
          if (state[b] == 3)
            state[b] = 4;
      }
      else if (RND (30) == 0) {
        track_all_stable (&t);
        for (unsigned b = 0; b < N; b++)
          if (state[b] == 3)
            state[b] = 0;
      }
      break;
    }
    {
      uint64_t behind = 0;
      for (unsigned b = 0; b < N; b++) {
        static const unsigned as[TS_STATES] = { [TS_DIRTY] = 1, [TS_SYNCING] = 2, [TS_SENT_A] = 3,
                                                [TS_SENT_B] = 3, [TS_DOUBT] = 4, [TS_ASKED] = 5 };
        const unsigned s = track_get (&t, b), got = as[s];
        check (got == state[b], "seed %llu step %u block %u: %s, the model says %u",
               (unsigned long long) seed, step, b, track_state_name (s), state[b]);
        behind += state[b] != 0;
      }
      check (track_behind_bytes (&t) == behind * BLOCK, "behind");
    }
  }
  check (t.illegal == 0, "no illegal move");
}

static void
test_edges (void)
{
  static uint8_t map[1024];
  static struct track t;
  struct track_range r;

  track_init (&t, map, 100 * BLOCK + 1, BLOCK, NULL, false);
  is (t.n_blocks, 101, "a store's last block may be short");
  ok (!track_next (&t, 10, 10, &r), "nothing dirty, nothing to do");
  track_mark (&t, 100 * BLOCK, 1);
  ok (track_next (&t, 10, 10, &r) && r.first == 100 && r.n == 1, "the short block is found");
  track_write_sent (&t, 99 * BLOCK, BLOCK + 1);
  is (t.count[TS_DIRTY], 0, "and a write up to the end covers it");
  track_doubt_all (&t);
  is (t.count[TS_DOUBT], 101, "doubt_all leaves none out");
  ok (track_next (&t, 1, 1000, &r) && r.first == 0 && r.n == 101, "one run");
  for (unsigned i = 0; i < 2 * TRACK_MAX_SENT; i++)
    if (track_can_send (&t))
      track_write_sent (&t, (i % 50) * 2 * BLOCK, BLOCK);
  ok (!track_can_send (&t), "the list of ranges has an end, and says so");
  track_doubt_sent (&t);
  ok (track_can_send (&t) && t.count[TS_DOUBT] == 101, "and is empty after a lost link");
  track_lock (&t, (struct track_range) { 5, 1 });
  track_lock (&t, (struct track_range) { 5, 1 });
  ok (t.illegal == 1 && track_get (&t, 5) == TS_DIRTY, "an illegal move marks the block");
}

static void
test_memory (void)
{
  const uint64_t tib = UINT64_C (1) << 40;

  is (track_memory_bytes (tib, DIRTY_BLOCK_SIZE), 8 << 20, "8 MiB a TiB and copy, 64 KiB blocks");
  is (track_memory_bytes (16 * tib, DIRTY_BLOCK_SIZE), 128 << 20, "128 MiB for 16 TiB");
  printf ("# struct repl %zu, of each site %zu, of each slot %zu; struct copy %zu; actions %zu, "
          "%zu\n",
          sizeof (struct repl), sizeof (struct repl_site), sizeof (struct repl_slot),
          sizeof (struct copy), sizeof (struct repl_actions), sizeof (struct copy_actions));
  ok (sizeof (struct repl) <= 512 << 10, "struct repl is bounded");
  ok (sizeof (struct copy) <= 128 << 10, "struct copy is bounded");
}

int
main (void)
{
  test_table ();
  test_edges ();
  for (uint64_t seed = 1; seed <= 60; seed++)
    test_model (seed);
  ok (tap_failed == 0, "60 random runs agree with the model");
  test_memory ();
  return tap_done ();
}
