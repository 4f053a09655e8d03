/* SPDX-License-Identifier: BSD-3-Clause */
/* What production does with what was never written (W1): it is not read, nor asked for, to fill a copy; zeroes for
 * it change nothing.  The map itself is unit-mark's, the copy's side unit-copy's; any order of events sim-repl's. */
#include <string.h>

#include "plugin/repl_private.h"
#include "tests/repl-step.h"
#include "tests/tap.h"

#define MIB   (1024u * 1024)
#define BLOCK 65536u
#define N     1000u /* blocks; the last one is short */
#define SIZE  (UINT64_C (1000) * BLOCK - 4096)

static uint8_t maps[2][N], memory[1 << 20], written[2 * META_BLOCK_SIZE];
static struct mark m;

static void
marked (void)
{
  struct mark_block b;

  while (mark_next (&m, &b))
    ;
  step ((struct repl_event){ .kind = RE_MARKED });
}

/* Site 0 is production; 1 is a copy, in the set or not. */
static void
start (bool in_set, bool equal)
{
  struct repl_config cfg = { .size = SIZE, .block_size = BLOCK, .n_sites = 2, .n_rslots = 4, .share_percent = 25,
                             .generation = 7, .suspend_timeout_ms = 10000, .track_memory_bytes = sizeof maps[0],
                             .in_set = in_set ? 3 : 1, .mark = &m, .equal = equal };
  const char *why;

  check (mark_memory_bytes (SIZE, BLOCK, MIB, HOT_MIN_ENTRIES, 2) <= sizeof memory, "memory");
  memset (memory, 0, sizeof memory);
  memset (written, 0, sizeof written);
  mark_init (&m, memory, SIZE, BLOCK, MIB, HOT_MIN_ENTRIES, 2);
  mark_use_written (&m, written);
  cfg.track_memory[1] = maps[1];
  now = 5000;
  why = repl_init (&r, &cfg, now);
  check (why == NULL, "init: %s", why ? why : "");
  step ((struct repl_event){ .kind = RE_LEASE, .until_ms = UINT64_MAX });
}

static void
link_up (bool empty)
{
  step ((struct repl_event){ .kind = RE_LINK_UP, .site = 1, .window_bytes = LINK_WINDOW_BYTES, .mapped = !empty,
                             .window_frames = LINK_WINDOW_FRAMES, .room_bytes = 1 << 30, .digests = true,
                             .empty = empty });
}

static void
ack (void)
{
  step ((struct repl_event){ .kind = RE_ACK, .site = 1, .seq = r.sites[1].seq });
}

static void
request (unsigned op, uint64_t offset, uint64_t length, unsigned flags)
{
  step ((struct repl_event){ .kind = RE_REQUEST, .op = (uint8_t) op, .offset = offset, .length = length,
                             .flags = flags });
}

static bool
answered (void)
{
  return count (RA_COMPLETE) == 1 && find (RA_COMPLETE)->slot == 0 && find (RA_COMPLETE)->error == 0;
}

static void
test_fill (void)
{
  unsigned reads = 0, asks = 0, writes = 0, zeroes = 0, largest = 0;
  uint64_t sent = 0;

  start (false, true);
  bits_set (&m.written, 500, true);
  link_up (true);
  for (unsigned round = 0; round < 200 && r.sites[1].track.count[TS_CLEAN] < N; round++) {
    unsigned rslot = REPL_MAX_RSLOTS;
    uint64_t tag = 0;

    for (unsigned i = 0; i < out.n; i++) {
      const struct repl_action *a = &out.a[i];

      if (a->kind == RA_RESYNC_READ) {
        reads++;
        rslot = a->rslot;
        check (a->offset == 500 * BLOCK, "read at %llu", (unsigned long long) a->offset);
      }
      if (a->kind == RA_DIGEST) {
        asks++;
        tag = a->no;
      }
      if (a->kind == RA_SEND && a->frame.type == WIRE_RESYNC_ZERO) {
        zeroes++;
        sent += a->frame.length;
        largest = a->frame.length > largest ? a->frame.length : largest;
        check (a->frame.flags & WIRE_F_MAY_TRIM, "a hole");
      }
      writes += a->kind == RA_SEND && a->frame.type == WIRE_RESYNC_WRITE;
    }
    if (rslot < REPL_MAX_RSLOTS)
      step ((struct repl_event){ .kind = RE_RESYNC_READ, .rslot = (uint16_t) rslot, .length = BLOCK });
    else if (tag != 0)
      step ((struct repl_event){ .kind = RE_DIGEST, .site = 0, .seq = tag, .error = -5 });
    else {
      ack ();
      now += REPL_FLUSH_MS;
      step ((struct repl_event){ .kind = RE_TICK });
    }
  }
  ok (r.sites[1].track.count[TS_CLEAN] == N && sent + BLOCK == SIZE, "W1 a copy is filled with zeroes, and one block");
  ok (reads == 1 && writes >= 1, "... that alone is read");
  ok (asks <= 1 && zeroes < 40 && largest >= 16 * MIB, "... and goes in few frames: %u, up to %u MiB", zeroes,
      largest / MIB);
}

/* W3: with the map lost all is read, and no more is done than that: the copy gets what is there. */
static void
test_damaged (void)
{
  uint64_t read = 0, sent = 0;

  start (false, true);
  mark_load_written (&m, 0, NULL);
  link_up (true);
  for (unsigned round = 0; round < 5000 && r.sites[1].track.count[TS_CLEAN] < N; round++) {
    uint16_t rslots[REPL_MAX_RSLOTS];
    uint32_t lengths[REPL_MAX_RSLOTS];
    uint64_t tag = 0;
    unsigned n = 0;

    for (unsigned i = 0; i < out.n; i++) {
      const struct repl_action *a = &out.a[i];

      if (a->kind == RA_RESYNC_READ && n < REPL_MAX_RSLOTS) {
        read += a->length;
        lengths[n] = (uint32_t) a->length;
        rslots[n++] = a->rslot;
      }
      if (a->kind == RA_DIGEST)
        tag = a->no;
      check (a->kind != RA_SEND || a->frame.type != WIRE_RESYNC_ZERO, "zeroes that nobody read");
      if (a->kind == RA_SEND && a->frame.type == WIRE_RESYNC_WRITE)
        sent += a->frame.length;
    }
    for (unsigned i = 0; i < n; i++) {
      static struct repl_actions all;

      step ((struct repl_event){ .kind = RE_RESYNC_READ, .rslot = rslots[i], .length = lengths[i] });
      for (unsigned k = 0; k < out.n && all.n < REPL_MAX_ACTIONS; k++)
        all.a[all.n++] = out.a[k];
      if (i + 1 == n) {
        out = all;
        all.n = 0;
      }
    }
    if (n == 0 && tag != 0)
      step ((struct repl_event){ .kind = RE_DIGEST, .site = 0, .seq = tag, .error = -5 });
    else if (n == 0) {
      ack ();
      now += REPL_FLUSH_MS;
      if (out.n == 0)
        step ((struct repl_event){ .kind = RE_TICK });
    }
  }
  ok (r.sites[1].track.count[TS_CLEAN] == N && read == SIZE && sent == SIZE,
      "W3 with a damaged map each block is read, and goes: %llu read, %llu sent", (unsigned long long) read,
      (unsigned long long) sent);
  request (RO_TRIM, 0, MIB, 0);
  ok (count (RA_MARK) == 1 && !answered (), "... and a trim is written, marked first");
}

static void
test_zeroes (void)
{
  start (true, true);
  link_up (false);
  request (RO_TRIM, 0, SIZE, 0);
  ok (answered () && count (RA_LOCAL) == 0 && frames (WIRE_TRIM) == 0 && count (RA_MARK) == 0,
      "W1 a trim of what was never written is answered at once: nothing is written, sent or marked");
  request (RO_ZERO, 5, 100, RF_MAY_TRIM);
  ok (answered (), "zeroes too");
  is (r.counters.unwritten, 2, "... and counted");
  request (RO_ZERO, 5, 100, RF_FUA);
  ok (count (RA_COMPLETE) == 0 && frames (WIRE_ZERO) == 1 && count (RA_MARK) == 1,
      "with FUA they go: a copy may have its zeroes in a cache");
  marked ();
  step ((struct repl_event){ .kind = RE_LOCAL_DONE });
  ack ();
  request (RO_ZERO, MIB, 2 * MIB, 0);
  ok (answered (), "the next region is as it was");
  request (RO_ZERO, MIB - BLOCK, 2 * BLOCK, 0);
  ok (count (RA_COMPLETE) == 0 && frames (WIRE_ZERO) == 1, "a range that was written in part is written");
}

static void
test_unequal (void)
{
  uint8_t map[META_BLOCK_PAYLOAD] = { 0 };

  start (true, false);
  map[0] = 1; /* the copy is hot there */
  step ((struct repl_event){ .kind = RE_MAP, .site = 1, .map = map });
  link_up (false);
  check (r.guard, "guarded");
  request (RO_ZERO, 0, BLOCK, 0);
  ok (count (RA_COMPLETE) == 0 && (frames (WIRE_ZERO) == 1 || r.slots[0].blockers > 0),
      "while the copy may hold something else, it gets the zeroes before they are answered");
}

static void
test_repair (void)
{
  start (false, true);
  link_up (false);
  step ((struct repl_event){ .kind = RE_RECORD, .in_set = 1, .generation = 7, .seen = UINT64_MAX });
  track_mark (&r.sites[1].track, 7 * BLOCK, BLOCK);
  r.sites[1].map_valid = true;
  now += 2000;
  step ((struct repl_event){ .kind = RE_TICK });
  ok (count (RA_RESYNC_READ) == 1 && find (RA_RESYNC_READ)->offset == 7 * BLOCK,
      "what is known to differ is read, whatever the map says");
}

int
main (void)
{
  test_fill ();
  test_damaged ();
  test_zeroes ();
  test_unequal ();
  test_repair ();
  return tap_done ();
}
