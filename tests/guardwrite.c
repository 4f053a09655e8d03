/* SPDX-License-Identifier: BSD-3-Clause */
/* The way of a write through the cores of production and of one copy, and through the link's codec,
 * so many times: for mirror-guard-write, which counts its instructions.  No I/O, no TLS, no threads:
 * the number doesn't depend on the machine's load.
 *
 * guardwrite N QD: N writes of 4 KiB, QD at a time; 1 if one of them was not completed.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "plugin/copy_private.h"
#include "plugin/repl_private.h"

#define SIZE  (UINT64_C (64) << 20)
#define BLOCK 4096u

static struct repl repl;
static struct copy copy;
static struct repl_actions racts;
static struct copy_actions cacts;
static struct repl_event events[1024]; /* of this round, for production */
static unsigned n_events;
static uint64_t completed;

static void
event (struct repl_event ev)
{
  if (n_events == sizeof events / sizeof events[0])
    abort ();
  events[n_events++] = ev;
}

/* A store that has done its write when the copy's core looks next. */
static void
copy_feed (struct copy_event ev)
{
  uint16_t submitted[COPY_MAX_OPS];
  unsigned n = 0;

  do {
    copy_step (&copy, &ev, &cacts);
    ev = (struct copy_event){ .kind = CE_POLL };
    for (unsigned i = 0; i < cacts.n; i++)
      if (cacts.a[i].kind == CA_SUBMIT)
        submitted[n++] = cacts.a[i].op;
      else if (cacts.a[i].kind == CA_ACK)
        event ((struct repl_event){ .kind = RE_ACK, .site = 1, .seq = cacts.a[i].seq });
    if (!cacts.more && n > 0)
      ev = (struct copy_event){ .kind = CE_DONE, .op = submitted[--n] };
    else if (!cacts.more)
      return;
  } while (true);
}

static void
repl_feed (struct repl_event ev)
{
  do {
    repl_step (&repl, &ev, &racts);
    ev = (struct repl_event){ .kind = RE_MORE };
    for (unsigned i = 0; i < racts.n; i++) {
      const struct repl_action *a = &racts.a[i];

      if (a->kind == RA_LOCAL)
        event ((struct repl_event){ .kind = RE_LOCAL_DONE, .slot = a->slot });
      else if (a->kind == RA_SEND) {
        uint8_t header[WIRE_HEADER_LEN];
        struct copy_event frame = { .kind = CE_FRAME, .conn = 1 };
        struct wire_header h = a->frame;

        h.tenure = 5;
        wire_encode_header (&h, header);
        if (wire_decode_header (header, sizeof header, &frame.frame) != WIRE_OK)
          abort ();
        copy_feed (frame);
      }
      else if (a->kind == RA_COMPLETE)
        completed += a->error == 0;
    }
  } while (racts.more);
}

static void
round_of_events (void)
{
  for (unsigned i = 0; i < n_events; i++)
    repl_feed (events[i]);
  n_events = 0;
}

static void
start (void)
{
  struct repl_config rc = { .size = SIZE, .block_size = 65536, .n_sites = 2, .n_rslots = 1, .share_percent = 30,
                            .in_set = 2, .generation = 3, .suspend_timeout_ms = 10000 };
  struct copy_config cc = { .site = 1, .size = SIZE, .block_size = 512, .dirty_block_size = 65536, .tenure = 5,
                            .generation = 3, .since = 2, .window_bytes = LINK_WINDOW_BYTES,
                            .window_frames = COPY_MAX_OPS, .node = "c1" };
  struct wire_hello hello = { .proto_min = WIRE_PROTO_MIN, .proto_max = WIRE_PROTO_MAX, .peer_site = 1, .tenure = 5,
                              .size = SIZE, .block_size = 4096, .dirty_block_size = 65536, .node = "p1" };

  rc.track_memory_bytes = track_memory_bytes (SIZE, 65536);
  rc.track_memory[1] = malloc (rc.track_memory_bytes);
  if (!rc.track_memory[1] || repl_init (&repl, &rc, 1) || copy_init (&copy, &cc, 1))
    abort ();
  copy_feed ((struct copy_event){ .kind = CE_HELLO, .conn = 1, .hello = &hello, .peer = "p1" });
  repl_feed ((struct repl_event){ .kind = RE_LEASE, .until_ms = UINT64_MAX });
  repl_feed ((struct repl_event){ .kind = RE_MIRROR, .site = 1 });
  repl_feed ((struct repl_event){ .kind = RE_LINK_UP, .site = 1, .window_bytes = LINK_WINDOW_BYTES,
                                  .window_frames = COPY_MAX_OPS, .room_bytes = 4 << 20 });
}

int
main (int argc, char **argv)
{
  if (argc != 3)
    return 2;
  const uint64_t n = strtoull (argv[1], NULL, 0), qd = strtoull (argv[2], NULL, 0);
  uint64_t place = 1;

  if (qd == 0 || qd > REPL_MAX_SLOTS || n % qd != 0)
    return 2;
  start ();
  for (uint64_t i = 0; i < n; i += qd) {
    for (unsigned slot = 0; slot < qd; slot++) {
      place = place * 6364136223846793005u + 1442695040888963407u;
      repl_feed ((struct repl_event){ .kind = RE_REQUEST, .op = RO_WRITE, .slot = (uint16_t) slot,
                                      .offset = (place >> 33) % (SIZE / BLOCK) * BLOCK, .length = BLOCK });
    }
    copy_feed ((struct copy_event){ .kind = CE_POLL });
    /* Two that overlap wait for each other: their local part and answer come with the next. */
    for (unsigned round = 0; round < 16 && completed < i + qd; round++) {
      event ((struct repl_event){ .kind = RE_ROOM, .site = 1, .room_bytes = 4 << 20 });
      round_of_events ();
      copy_feed ((struct copy_event){ .kind = CE_POLL });
    }
  }
  if (completed != n) {
    fprintf (stderr, "guardwrite: %llu of %llu writes completed\n", (unsigned long long) completed,
             (unsigned long long) n);
    return 1;
  }
  return 0;
}
