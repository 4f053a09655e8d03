/* SPDX-License-Identifier: BSD-3-Clause */
/* The state of every block towards one copy site: see track.h.  Pure; called by the
 * replication core in the plugin's engine thread, and by the simulator.  It must never make a
 * block clean except by TM_STABLE_*.
 */
#include <assert.h>
#include <string.h>

#include "plugin/track.h"

#define X TRACK_ILLEGAL
/* STABLE leaves every block alone that is not SENT in that epoch: it may have been marked, or
 * sent once more, since its range was noted.  A mark on SYNCING is legal: a resync cancelled.  A write to
 * a part of what is ASKED ends the doubt: else a block that is written all the time is asked for forever. */
const uint8_t track_table[TS_STATES][TM_MOVES] = {
  [TS_CLEAN] = { [TM_MARK] = TS_DIRTY, [TM_DOUBT] = TS_DOUBT, [TM_ASK] = X, [TM_LOCK] = X,
                 [TM_WRITE_A] = TS_SENT_A, [TM_WRITE_B] = TS_SENT_B, [TM_WHOLE_A] = TS_SENT_A,
                 [TM_WHOLE_B] = TS_SENT_B, [TM_STABLE_A] = TS_CLEAN, [TM_STABLE_B] = TS_CLEAN },
  [TS_DIRTY] = { [TM_MARK] = TS_DIRTY, [TM_DOUBT] = TS_DIRTY, [TM_ASK] = X, [TM_LOCK] = TS_SYNCING,
                 [TM_WRITE_A] = TS_DIRTY, [TM_WRITE_B] = TS_DIRTY, [TM_WHOLE_A] = TS_SENT_A,
                 [TM_WHOLE_B] = TS_SENT_B, [TM_STABLE_A] = TS_DIRTY, [TM_STABLE_B] = TS_DIRTY },
  [TS_DOUBT] = { [TM_MARK] = TS_DIRTY, [TM_DOUBT] = TS_DOUBT, [TM_ASK] = TS_ASKED, [TM_LOCK] = TS_SYNCING,
                 [TM_WRITE_A] = TS_DOUBT, [TM_WRITE_B] = TS_DOUBT, [TM_WHOLE_A] = TS_SENT_A,
                 [TM_WHOLE_B] = TS_SENT_B, [TM_STABLE_A] = TS_DOUBT, [TM_STABLE_B] = TS_DOUBT },
  [TS_ASKED] = { [TM_MARK] = TS_DIRTY, [TM_DOUBT] = TS_DOUBT, [TM_ASK] = X, [TM_LOCK] = X,
                 [TM_WRITE_A] = TS_DIRTY, [TM_WRITE_B] = TS_DIRTY, [TM_WHOLE_A] = TS_SENT_A,
                 [TM_WHOLE_B] = TS_SENT_B, [TM_STABLE_A] = TS_ASKED, [TM_STABLE_B] = TS_ASKED },
  [TS_SYNCING] = { [TM_MARK] = TS_DIRTY, [TM_DOUBT] = TS_DOUBT, [TM_ASK] = X, [TM_LOCK] = X,
                   [TM_WRITE_A] = X, [TM_WRITE_B] = X, [TM_WHOLE_A] = TS_SENT_A,
                   [TM_WHOLE_B] = TS_SENT_B, [TM_STABLE_A] = TS_SYNCING, [TM_STABLE_B] = TS_SYNCING },
  [TS_SENT_A] = { [TM_MARK] = TS_DIRTY, [TM_DOUBT] = TS_DOUBT, [TM_ASK] = X, [TM_LOCK] = X,
                  [TM_WRITE_A] = TS_SENT_A, [TM_WRITE_B] = TS_SENT_B, [TM_WHOLE_A] = TS_SENT_A,
                  [TM_WHOLE_B] = TS_SENT_B, [TM_STABLE_A] = TS_CLEAN, [TM_STABLE_B] = TS_SENT_A },
  [TS_SENT_B] = { [TM_MARK] = TS_DIRTY, [TM_DOUBT] = TS_DOUBT, [TM_ASK] = X, [TM_LOCK] = X,
                  [TM_WRITE_A] = TS_SENT_A, [TM_WRITE_B] = TS_SENT_B, [TM_WHOLE_A] = TS_SENT_A,
                  [TM_WHOLE_B] = TS_SENT_B, [TM_STABLE_A] = TS_SENT_B, [TM_STABLE_B] = TS_CLEAN },
};
#undef X

const char *
track_state_name (unsigned state)
{
  static const char *const names[TS_STATES] = { "clean", "dirty", "doubt", "asked", "syncing", "sent-a", "sent-b" };
  return state < TS_STATES ? names[state] : "state?";
}

size_t
track_memory_bytes (uint64_t size, uint32_t block_size)
{
  uint64_t n = (size + block_size - 1) / block_size;
  /* Whole words, so that the search can skip by them. */
  return (size_t) ((n + 15) / 16 * 8);
}

static void
fill (struct track *t, enum track_state all)
{
  memset (t->map, (int) (all | all << 4), track_memory_bytes (t->size, t->block_size));
  memset (t->count, 0, sizeof t->count);
  t->count[all] = t->n_blocks;
  t->n_sent[0] = t->n_sent[1] = 0;
  if (t->disk)
    bits_fill (t->disk, all != TS_CLEAN);
}

enum track_state
track_get (const struct track *t, uint64_t block)
{
  assert (block < t->n_blocks);
  return (enum track_state) (t->map[block >> 1] >> ((block & 1) * 4) & 0xf);
}

static void
move_block (struct track *t, uint64_t block, enum track_move move)
{
  const enum track_state old = track_get (t, block);
  uint8_t new;

  assert (old < TS_STATES);
  new = track_table[old][move];
  if (new == TRACK_ILLEGAL) {
    /* Our own bug, but the safe side of it is known. */
    t->illegal++;
    new = TS_DIRTY;
  }
  if (new == old)
    return;
  t->count[old]--;
  t->count[new]++;
  if (new == TS_CLEAN)
    t->cleaned++;
  if (t->disk && (new == TS_CLEAN) != (old == TS_CLEAN))
    bits_set (t->disk, block, new != TS_CLEAN);
  t->map[block >> 1] = (uint8_t) ((t->map[block >> 1] & (block & 1 ? 0x0f : 0xf0))
                                  | new << ((block & 1) * 4));
}

void
track_init (struct track *t, uint8_t *map, uint64_t size, uint32_t block_size,
            struct bits *disk, bool zeroed)
{
  assert (block_size >= DIRTY_BLOCK_SIZE_MIN && block_size <= DIRTY_BLOCK_SIZE_MAX);
  assert ((block_size & (block_size - 1)) == 0);
  memset (t, 0, sizeof *t);
  t->map = map;
  t->size = size;
  t->block_size = block_size;
  t->n_blocks = (size + block_size - 1) / block_size;
  if (!zeroed)
    fill (t, TS_CLEAN);
  t->count[TS_CLEAN] = t->n_blocks;
  t->disk = disk;
  if (disk && disk->n_set > 0)
    for (uint64_t b = 0; b < t->n_blocks; b++) {
      if (b % 8 == 0 && disk->map[b / 8] == 0)
        b += 7;
      else if (bits_get (disk, b))
        move_block (t, b, TM_DOUBT);
    }
}

static void
move_run (struct track *t, struct track_range run, enum track_move move)
{
  assert (run.first <= t->n_blocks && run.n <= t->n_blocks - run.first);
  for (uint64_t b = run.first; b < run.first + run.n; b++)
    move_block (t, b, move);
}

/* The blocks that a byte range touches. */
static struct track_range
touched (const struct track *t, uint64_t offset, uint64_t length)
{
  struct track_range r = { 0, 0 };

  assert (offset <= t->size && length <= t->size - offset);
  if (length > 0) {
    r.first = offset / t->block_size;
    r.n = (offset + length - 1) / t->block_size - r.first + 1;
  }
  return r;
}

/* The blocks that it covers as a whole; the last one of the store may be short. */
static struct track_range
covered (const struct track *t, uint64_t offset, uint64_t length)
{
  struct track_range r = { 0, 0 };
  const uint64_t end = offset + length;
  const uint64_t first = (offset + t->block_size - 1) / t->block_size;
  const uint64_t last = end == t->size ? t->n_blocks : end / t->block_size;

  if (length > 0 && last > first) {
    r.first = first;
    r.n = last - first;
  }
  return r;
}

void
track_mark (struct track *t, uint64_t offset, uint64_t length)
{
  move_run (t, touched (t, offset, length), TM_MARK);
}

void
track_doubt (struct track *t, uint64_t offset, uint64_t length)
{
  move_run (t, touched (t, offset, length), TM_DOUBT);
}

void
track_doubt_all (struct track *t)
{
  fill (t, TS_DOUBT);
  t->cursor = 0;
}

void
track_doubt_sent (struct track *t)
{
  for (unsigned e = 0; e < 2; e++) {
    for (unsigned i = 0; i < t->n_sent[e]; i++) {
      struct track_range r = t->sent[e][i];
      for (uint64_t b = r.first; b < r.first + r.n; b++) {
        enum track_state s = track_get (t, b);
        if (s == TS_SENT_A || s == TS_SENT_B)
          move_block (t, b, TM_DOUBT);
      }
    }
    t->n_sent[e] = 0;
  }
  t->closing = false;
}

bool
track_can_send (const struct track *t)
{
  return t->n_sent[t->epoch] < TRACK_MAX_SENT;
}

static void
note_sent (struct track *t, struct track_range run)
{
  const unsigned e = t->epoch;
  struct track_range *last;

  if (t->n_sent[e] > 0) {
    last = &t->sent[e][t->n_sent[e] - 1];
    if (last->first + last->n == run.first) { /* sequential: one range */
      last->n += run.n;
      return;
    }
    if (last->first <= run.first && run.first + run.n <= last->first + last->n)
      return;
  }
  assert (t->n_sent[e] < TRACK_MAX_SENT);
  t->sent[e][t->n_sent[e]++] = run;
}

void
track_write_sent (struct track *t, uint64_t offset, uint64_t length)
{
  const struct track_range part = touched (t, offset, length);
  const struct track_range whole = covered (t, offset, length);

  if (part.n == 0)
    return;
  for (uint64_t b = part.first; b < part.first + part.n; b++) {
    bool all = b >= whole.first && b < whole.first + whole.n;
    if (all)
      move_block (t, b, t->epoch ? TM_WHOLE_B : TM_WHOLE_A);
    else
      move_block (t, b, t->epoch ? TM_WRITE_B : TM_WRITE_A);
  }
  note_sent (t, part);
}

bool
track_all_dirty (const struct track *t, uint64_t offset, uint64_t length, bool doubt_counts)
{
  const struct track_range part = touched (t, offset, length);

  for (uint64_t b = part.first; b < part.first + part.n; b++)
    if (track_get (t, b) != TS_DIRTY && !(doubt_counts && track_get (t, b) == TS_DOUBT))
      return false;
  return true;
}

/* The first block in [from, to) that waits for the resync, or `to`. */
static uint64_t
find_waiting (const struct track *t, uint64_t from, uint64_t to)
{
  uint64_t b = from;

  while (b < to) {
    if ((b & 15) == 0 && to - b >= 16) {
      static const uint8_t clean[8]; /* TS_CLEAN is 0 */
      if (memcmp (&t->map[b >> 1], clean, 8) == 0) {
        b += 16;
        continue;
      }
    }
    if (track_get (t, b) == TS_DIRTY || track_get (t, b) == TS_DOUBT)
      return b;
    b++;
  }
  return to;
}

bool
track_next (struct track *t, uint64_t max_dirty, uint64_t max_doubt, struct track_range *run)
{
  enum track_state kind;
  uint64_t b, max;

  if (track_waiting (t) == 0)
    return false;
  if (t->cursor >= t->n_blocks)
    t->cursor = 0;
  b = find_waiting (t, t->cursor, t->n_blocks);
  if (b == t->n_blocks) {
    b = find_waiting (t, 0, t->cursor);
    assert (b < t->cursor); /* count says that there is one */
  }
  kind = track_get (t, b);
  max = kind == TS_DIRTY ? max_dirty : max_doubt;
  run->first = b;
  run->n = 1;
  while (run->n < max && b + run->n < t->n_blocks && track_get (t, b + run->n) == kind)
    run->n++;
  t->cursor = b + run->n;
  return true;
}

void
track_lock (struct track *t, struct track_range run)
{
  move_run (t, run, TM_LOCK);
}

void
track_ask (struct track *t, struct track_range run)
{
  move_run (t, run, TM_ASK);
}

void
track_resync_sent (struct track *t, struct track_range run)
{
  move_run (t, run, t->epoch ? TM_WHOLE_B : TM_WHOLE_A);
  note_sent (t, run);
}

void
track_flush_sent (struct track *t)
{
  assert (!t->closing);
  t->closing = true;
  t->epoch ^= 1;
  assert (t->n_sent[t->epoch] == 0);
}

static void
epoch_stable (struct track *t, unsigned e)
{
  for (unsigned i = 0; i < t->n_sent[e]; i++)
    move_run (t, t->sent[e][i], e ? TM_STABLE_B : TM_STABLE_A);
  t->n_sent[e] = 0;
}

void
track_flush_done (struct track *t)
{
  if (!t->closing)
    return;
  t->closing = false;
  epoch_stable (t, t->epoch ^ 1u);
}

void
track_all_stable (struct track *t)
{
  t->closing = false;
  epoch_stable (t, 0);
  epoch_stable (t, 1);
}

uint64_t
track_behind_bytes (const struct track *t)
{
  return (t->n_blocks - t->count[TS_CLEAN]) * t->block_size;
}
