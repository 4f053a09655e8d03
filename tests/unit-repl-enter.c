/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The way of a copy into the set (R3), where another rule mostly stands in for the one at work: what it hears of the
 * absent ones before ENTER, that it notes first that it lacks everything, and that an ENTER which something was
 * marked behind makes no copy ready.  Three sites; production at site 0, and only it in the set.
 */
#include <string.h>

#include "plugin/repl_private.h"
#include "tests/repl-step.h"
#include "tests/tap.h"

#define BLOCK 65536u
#define SIZE  (UINT64_C (64) * BLOCK)
#define MIB   (UINT32_C (1) << 20)

static uint8_t maps[3][4096], mark_memory[1 << 20];
static struct mark mark;

static void
begin (bool return_store_error)
{
  struct repl_config cfg = { .size = SIZE, .block_size = BLOCK, .n_sites = 3, .n_rslots = 4, .share_percent = 100,
                             .in_set = 1, .generation = 7, .suspend_timeout_ms = 10000, .mark = &mark,
                             .return_store_error = return_store_error, .track_memory_bytes = sizeof maps[0] };

  for (unsigned s = 0; s < 3; s++)
    cfg.track_memory[s] = maps[s];
  memset (mark_memory, 0, sizeof mark_memory);
  if (mark_memory_bytes (SIZE, BLOCK, MIB, HOT_MIN_ENTRIES, 3) > sizeof mark_memory)
    abort ();
  mark_init (&mark, mark_memory, SIZE, BLOCK, MIB, HOT_MIN_ENTRIES, 3);
  bits_set (&mark.bits[2], 5, true); /* site 2 is away, and lacks a block */
  now = 5000;
  if (repl_init (&r, &cfg, now) != NULL)
    abort ();
  step ((struct repl_event){ .kind = RE_LEASE, .until_ms = UINT64_MAX });
  /* The flush after which nothing is found hot any more: else the entry waits for it. */
  step ((struct repl_event){ .kind = RE_LOCAL_DONE, .slot = REPL_SLOT_SYNC });
}

static void
link_up (bool empty)
{
  step ((struct repl_event){ .kind = RE_LINK_UP, .site = 1, .mapped = !empty, .empty = empty,
                             .window_bytes = LINK_WINDOW_BYTES, .window_frames = LINK_WINDOW_FRAMES,
                             .room_bytes = 1 << 30 });
}

/* The place of the first frame of that type among the actions of the last step; -1: none. */
static int
place_of (unsigned type)
{
  for (unsigned i = 0; i < out.n; i++)
    if (out.a[i].kind == RA_SEND && out.a[i].frame.type == type)
      return (int) i;
  return -1;
}

static void
marked (void)
{
  struct mark_block b;

  while (mark_next (&mark, &b))
    ;
  step ((struct repl_event){ .kind = RE_MARKED });
}

int
main (void)
{
  const struct wire_header *f;
  int map, enter;

  begin (false);
  link_up (false);
  map = place_of (WIRE_MAP);
  enter = place_of (WIRE_ENTER);
  ok (map >= 0 && enter > map, "R3: a copy that lacks nothing enters, and hears of the absent ones first");
  f = map >= 0 ? &out.a[map].frame : NULL;
  ok (f != NULL && f->missing == 1u << 2 && !(f->flags & WIRE_F_ALL) && out.a[map].op == 2 && out.a[map].no == 0,
      "... of site 2 what its map says");
  step ((struct repl_event){ .kind = RE_ACK, .site = 1, .seq = r.sites[1].seq });
  ok (find (RA_COPY_READY)->kind == RA_COPY_READY && r.sites[1].enter == EN_READY, "it is ready");

  begin (false);
  link_up (true);
  map = place_of (WIRE_MAP);
  f = map >= 0 ? &out.a[map].frame : NULL;
  ok (f != NULL && f->missing == 1u << 1 && (f->flags & WIRE_F_ALL), "MAP: a copy that has to be filled hears of it");
  ok (count (RA_RESYNC_READ) > 0 && frames (WIRE_RESYNC_WRITE) == 0, "... before the first block");

  /* A write that the copy may have, and production could not do. */
  begin (true);
  link_up (false);
  step ((struct repl_event){ .kind = RE_REQUEST, .slot = 0, .op = RO_WRITE, .offset = 9 * BLOCK, .length = 4096 });
  marked ();
  is (r.sites[1].enter, EN_SENT, "ENTER is under way, and a write behind it");
  step ((struct repl_event){ .kind = RE_LOCAL_DONE, .slot = 0, .error = -28 });
  step ((struct repl_event){ .kind = RE_ACK, .site = 1, .seq = r.sites[1].seq });
  ok (find (RA_COPY_READY)->kind != RA_COPY_READY && r.sites[1].enter == EN_CLOSING,
      "R3: a copy that may differ by now is not ready");
  return tap_done ();
}
