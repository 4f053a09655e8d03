/* SPDX-License-Identifier: BSD-3-Clause */
/* The pace of a resync beside clients, one event at a time, through the replication core that it is a part
 * of: what goes at once, how long it rests, and what has no pace. */
#include <string.h>

#include "plugin/repl_private.h"
#include "tests/repl-step.h"
#include "tests/tap.h"

#define BLOCK 65536u
#define N     1000u
#define SIZE  (UINT64_C (1000) * BLOCK)
#define MS    UINT64_C (1000)

static uint8_t maps[2][16 * N];
static struct repl_config cfg;
static uint64_t us; /* the finer clock */

static void
event (struct repl_event ev)
{
  now = us / 1000;
  ev.now_us = us;
  step (ev);
}

static void
more (void)
{
  event ((struct repl_event){ .kind = RE_MORE });
}

/* Site 0 is production; 1 is a copy outside the set that lacks all, and does not answer digests. */
static void
start (unsigned share, uint32_t block, uint32_t in_set)
{
  const char *why;

  cfg = (struct repl_config){ .size = SIZE, .block_size = block, .n_sites = 2, .n_rslots = 32, .in_set = in_set,
                              .share_percent = (uint8_t) share, .generation = 7, .suspend_timeout_ms = 10000,
                              .track_memory_bytes = sizeof maps[0] };
  cfg.track_memory[1] = maps[1];
  us = 5000 * MS;
  now = 5000;
  why = repl_init (&r, &cfg, now);
  check (why == NULL, "init: %s", why ? why : "");
  event ((struct repl_event){ .kind = RE_LEASE, .until_ms = UINT64_MAX });
}

static void
link_up (void)
{
  event ((struct repl_event){ .kind = RE_LINK_UP, .site = 1, .window_bytes = LINK_WINDOW_BYTES,
                              .window_frames = LINK_WINDOW_FRAMES, .room_bytes = 1 << 30 });
}

/* A client's write that ends at once. */
static void
client (uint64_t block)
{
  event ((struct repl_event){ .kind = RE_REQUEST, .slot = 0, .op = RO_WRITE, .offset = block * BLOCK, .length = 4096 });
  event ((struct repl_event){ .kind = RE_LOCAL_DONE, .slot = 0 });
}

static unsigned
reading (void)
{
  unsigned n = 0;
  for (unsigned i = 0; i < cfg.n_rslots; i++)
    n += r.rslots[i].state == RL_READING;
  return n;
}

/* What is being read is read, and sent. */
static void
read_all (void)
{
  for (unsigned i = 0; i < cfg.n_rslots; i++)
    if (r.rslots[i].state == RL_READING || r.rslots[i].state == RL_CANCELLED)
      event ((struct repl_event){ .kind = RE_RESYNC_READ, .rslot = (uint16_t) i, .length = cfg.block_size });
}

static void
ack (void)
{
  event ((struct repl_event){ .kind = RE_ACK, .site = 1, .seq = r.sites[1].seq });
}

static bool
yields (void)
{
  struct repl_site_status st;
  repl_site_status (&r, 1, now, &st);
  return st.yields;
}

static void
rests (void)
{
  start (25, BLOCK, 1);
  client (900);
  link_up ();
  is (reading (), 1, "G1: while clients work, one piece");
  ok (yields (), "which is shown");
  us += 300;
  read_all ();
  is (reading (), 0, "G1: the next does not go when it is read");
  is (repl_wake_us (&r), UINT64_MAX, "nor is there a time for it yet");
  us += 700;
  ack ();
  is (reading (), 0, "G1: nor when the copy has it");
  is (repl_wake_us (&r), us + 3 * MS, "G1: but after three times what it took, with a share of 25 %%");
  us += 3 * MS - 1;
  more ();
  is (reading (), 0, "G1: no microsecond earlier");
  us++;
  more ();
  ok (count (RA_RESYNC_READ) == 1 && find (RA_RESYNC_READ)->offset == BLOCK, "G1: then");

  us += 500 * MS; /* a copy that is slow, or far away */
  client (901);
  read_all ();
  ack ();
  is (repl_wake_us (&r), us + REPL_PACE_REST_MS * MS, "G2: a rest has an end, whatever the piece took");
  us += REPL_PACE_REST_MS * MS;
  more ();
  is (reading (), 1, "G2: and then the next goes");

  start (25, BLOCK, 1);
  client (900);
  link_up ();
  event ((struct repl_event){ .kind = RE_LINK_DOWN, .site = 1, .reason = "cable" });
  read_all ();
  link_up ();
  is (reading (), 1, "a new link begins with a piece, not with a rest");
  is (r.counters.illegal, 0, "nothing of this is illegal");
}

static void
pieces (void)
{
  start (25, 4096, 1);
  client (900);
  link_up ();
  is (reading (), 16, "blocks of 4 KiB: a piece is 64 KiB");
  read_all ();
  is (reading (), 0, "and no more");
  us += MS;
  ack ();
  us += 3 * MS;
  more ();
  is (reading (), 16, "after its rest, as many again");
}

static void
all_there_is (void)
{
  start (25, BLOCK, 1);
  link_up ();
  is (reading (), 32, "G4: without clients, what there are buffers for");
  ok (!yields (), "and nothing else is shown");
  client (900);
  read_all ();
  ack ();
  us += MS;
  more ();
  is (reading (), 1, "a client comes: one, when those are over");
  us += REPL_QUIET_MS * MS;
  more ();
  is (reading (), 32, "it has been quiet for a while: all again");

  start (25, BLOCK, 1);
  event ((struct repl_event){ .kind = RE_TICK, .read_ms = now });
  event ((struct repl_event){ .kind = RE_LINK_UP, .site = 1, .window_bytes = LINK_WINDOW_BYTES, .read_ms = now,
                              .window_frames = LINK_WINDOW_FRAMES, .room_bytes = 1 << 30 });
  is (reading (), 1, "G1: a client that only reads works too");

  start (100, BLOCK, 1);
  client (900);
  link_up ();
  is (reading (), 32, "a share of 100 %%: no pace");
  ok (!yields (), "and it does not yield");

  start (25, BLOCK, 1);
  r.guard = true; /* as after an unclean end: and this copy is to be made equal */
  r.in_set = 2;
  track_mark (&r.sites[1].track, 0, SIZE);
  r.sites[1].map_valid = true;
  client (900);
  link_up ();
  is (reading (), 32, "G4: what reads wait for has no pace");
}

/* G3: clients make dirty what is copied, block for block. */
static void
gains (void)
{
  start (1, BLOCK, 1);
  client (0);
  link_up ();
  for (unsigned s = 0; s < 40; s++) {
    us += 250 * MS;
    client (500 + s % 400);
    event ((struct repl_event){ .kind = RE_TICK });
  }
  is (r.sites[1].pace.doubled, 1, "G3: a resync that gains nothing has twice its share");
  for (unsigned s = 0; s < 40 * 6; s++) {
    us += 250 * MS;
    client (500 + s % 400);
    event ((struct repl_event){ .kind = RE_TICK });
  }
  ok (reading () == 32 && !yields (), "G3: in the end all there is");
  is (r.sites[1].pace.doubled, 7, "G3: and it is doubled no further");
  us += REPL_QUIET_MS * MS;
  event ((struct repl_event){ .kind = RE_TICK });
  is (r.sites[1].pace.doubled, 0, "G3: until clients rest");
}

int
main (void)
{
  rests ();
  pieces ();
  all_there_is ();
  gains ();
  return tap_done ();
}
