/* SPDX-License-Identifier: BSD-3-Clause */
/* Nonsense for the cores of both sides: events in any order, fields of any value, as a broken or
 * hostile peer, a confused controller or a bug in the shell might feed them.  No assertion may
 * fail, no action may leave its bounds, and when it is over every request still ends: nothing is
 * stuck for ever.
 *
 *   fuzz-cores [FIRST_SEED [COUNT]]
 */
#include <stdlib.h>
#include <string.h>

#include "plugin/copy_private.h"
#include "plugin/repl_private.h"
#include "tests/tap.h"

#define SITES 4
#define BLOCK 4096u
#define SIZE  (UINT64_C (200) * BLOCK - 512)

static uint64_t rng;
static uint64_t
rnd (uint64_t n)
{
  rng ^= rng << 13;
  rng ^= rng >> 7;
  rng ^= rng << 17;
  return n ? (rng >> 11) % n : 0;
}

/* Small, large, or just beside a bound. */
static uint64_t
any (uint64_t bound)
{
  switch (rnd (8)) {
  case 0:
    return rnd (UINT64_MAX);
  case 1:
    return bound + rnd (3) - 1;
  case 2:
    return UINT64_MAX - rnd (3);
  default:
    return rnd (bound + 1);
  }
}

static struct repl r;
static struct repl_actions out;
static bool busy[REPL_MAX_SLOTS + 1], local[REPL_MAX_SLOTS + 1], reading[REPL_MAX_RSLOTS];

static void
actions (void)
{
  for (unsigned i = 0; i < out.n; i++) {
    const struct repl_action *a = &out.a[i];
    switch (a->kind) {
    case RA_LOCAL:
      check (a->slot <= REPL_MAX_SLOTS && !local[a->slot], "a local part twice");
      check (a->offset <= SIZE && a->length <= SIZE - a->offset, "a local part out of range");
      local[a->slot] = true;
      break;
    case RA_COMPLETE:
      check (a->slot < REPL_MAX_SLOTS && !local[a->slot], "completed while the store works");
      busy[a->slot] = false;
      break;
    case RA_SEND:
      check (a->frame.offset <= SIZE && a->frame.length <= SIZE - a->frame.offset,
             "a frame out of range");
      check (a->frame.payload_len <= LINK_MAX_PAYLOAD, "a payload too large");
      check (a->frame.payload_len == 0 || a->slot == REPL_NO_SLOT || busy[a->slot],
             "a payload of a slot that is free");
      break;
    case RA_DIGEST:
    case RA_DIGEST_REQ:
      check (a->kind == RA_DIGEST_REQ || (a->offset < SIZE && a->length > 0 && a->length <= SIZE - a->offset),
             "digests out of range");
      break;
    case RA_RESYNC_READ:
      check (a->rslot < REPL_MAX_RSLOTS && !reading[a->rslot], "a resync buffer twice");
      check (a->offset < SIZE && a->length <= a->length_max && a->length_max <= SIZE - a->offset,
             "a resync read out of range");
      reading[a->rslot] = true;
      break;
    }
  }
}

static void
feed (struct repl_event *ev)
{
  repl_step (&r, ev, &out);
  actions ();
  for (unsigned i = 0; out.more; i++) {
    struct repl_event more = { .kind = RE_MORE, .now_ms = ev->now_ms };
    check (i < 1000, "asks for more without end");
    if (i >= 1000)
      return;
    repl_step (&r, &more, &out);
    actions ();
  }
}

static void
fuzz_repl (uint64_t seed)
{
  static uint8_t maps[SITES][1024], memory[SITES * 1024], digests[VERIFY_BLOCKS * WIRE_DIGEST_LEN];
  struct repl_config cfg = { .size = SIZE, .block_size = BLOCK, .n_sites = SITES, .n_rslots = 8,
                             .share_percent = 40, .suspend_timeout_ms = 1000, .generation = 5 };
  uint64_t now = 1, generation = 5;
  unsigned stuck = 0;

  rng = seed * 0x9e3779b97f4a7c15u + 7;
  cfg.in_set = (uint32_t) rnd (16);
  cfg.unclean = (uint32_t) rnd (16);
  cfg.return_store_error = rnd (2);
  for (unsigned s = 0; s < SITES; s++)
    cfg.track_memory[s] = maps[s];
  cfg.track_memory_bytes = sizeof maps[0];
  memset (busy, 0, sizeof busy);
  memset (local, 0, sizeof local);
  memset (reading, 0, sizeof reading);
  check (repl_init (&r, &cfg, now) == NULL, "init");

  for (unsigned n = 0; n < 5000 && tap_failed == 0; n++) {
    struct repl_event ev = { .kind = (uint8_t) rnd (RE_MORE + 3), .now_ms = now };
    struct repl_site_status st;
    struct repl_wait w[REPL_MAX_WAITS];

    now += rnd (10) ? rnd (20) : rnd (3000);
    ev.site = (uint8_t) (rnd (20) ? rnd (SITES) : rnd (256));
    ev.op = (uint8_t) (rnd (20) ? 1 + rnd (5) : rnd (256));
    ev.slot = (uint16_t) (rnd (20) ? rnd (40) : rnd (65536));
    ev.rslot = (uint16_t) (rnd (20) ? rnd (8) : rnd (65536));
    ev.flags = (uint32_t) rnd (4);
    ev.error = rnd (30) ? 0 : -5;
    ev.offset = rnd (20) ? rnd (SIZE / 512) * 512 : any (SIZE);
    ev.length = rnd (20) ? rnd (40) * 512 : any (SIZE);
    ev.seq = rnd (5) ? r.sites[ev.site % SITES].acked_seq + rnd (4) : any (500);
    ev.window_bytes = rnd (8) ? LINK_WINDOW_BYTES : (uint32_t) any (LINK_WINDOW_BYTES);
    ev.window_frames = rnd (8) ? 20 + (uint32_t) rnd (600) : (uint32_t) any (600);
    ev.room_bytes = any (1 << 20);
    ev.restarted = rnd (10) == 0;
    ev.empty = rnd (10) == 0;
    ev.unusable = rnd (10) == 0;
    ev.zero = (uint8_t) rnd (4);
    ev.sync = (uint8_t) rnd (4);
    ev.in_set = (uint32_t) rnd (32);
    ev.seen = any (r.no + 1);
    ev.until_ms = rnd (10) ? now + rnd (5000) : any (now);
    ev.reason = rnd (2) ? "because" : NULL;
    ev.digests = rnd (8) != 0;
    switch (ev.kind) { /* the shell's own: kept sane, but for the illegal ones */
    case RE_REQUEST:
      if (ev.slot < REPL_MAX_SLOTS && !busy[ev.slot])
        busy[ev.slot] = true;
      break;
    case RE_LOCAL_DONE:
      if (rnd (3))
        ev.slot = (uint16_t) (rnd (10) ? rnd (40) : REPL_SLOT_DRAIN);
      if (ev.slot <= REPL_MAX_SLOTS && !local[ev.slot])
        break;
      if (ev.slot <= REPL_MAX_SLOTS)
        local[ev.slot] = false;
      break;
    case RE_RESYNC_READ:
      if (ev.rslot < REPL_MAX_RSLOTS)
        reading[ev.rslot] = false;
      break;
    case RE_RECORD:
      if (rnd (3) == 0)
        generation++;
      ev.generation = rnd (10) ? generation : any (generation);
      if (ev.generation > generation + 1000)
        ev.generation = generation;
      break;
    case RE_STORE_FAILED:
      if (rnd (50))
        continue;
      break;
    case RE_VERIFY:
      ev.repair = rnd (2);
      ev.memory = memory;
      break;
    case RE_DIGEST:
      memset (digests, (int) rnd (2), sizeof digests);
      ev.map = rnd (50) ? digests : NULL;
      ev.length = rnd (10) ? VERIFY_BLOCKS : rnd (VERIFY_BLOCKS + 2);
      ev.seq = rnd (20) ? r.tag - rnd (VERIFY_SLOTS + REPL_MAX_ASKS + 1) : any (r.tag);
      break;
    }
    feed (&ev);
    repl_site_status (&r, (unsigned) rnd (10), now, &st);
    check (st.dirty_bytes <= SIZE, "behind by more than there is");
    check (repl_waits (&r, now, w) <= REPL_MAX_WAITS, "waits");
    for (unsigned s = 1; s < SITES; s++) {
      const struct track *t = &r.sites[s].track;
      uint64_t sum = 0;
      for (unsigned k = 0; k < TS_STATES; k++)
        sum += t->count[k];
      check (sum == t->n_blocks, "every block is in one state");
      check (r.sites[s].unacked_frames <= LINK_WINDOW_FRAMES, "more frames than any window");
    }
  }

  /* Everything that a request can wait for is granted: all of them end. */
  if (r.failed)
    return; /* F4: held for good, the clients fail over */
  feed (&(struct repl_event){ .kind = RE_LEASE, .until_ms = UINT64_MAX, .now_ms = now });
  feed (&(struct repl_event){ .kind = RE_RESUME, .now_ms = now });
  for (unsigned round = 0; round < 2000; round++) {
    stuck = 0;
    for (unsigned s = 1; s < SITES; s++)
      feed (&(struct repl_event){ .kind = RE_LINK_DOWN, .site = (uint8_t) s, .now_ms = now });
    feed (&(struct repl_event){ .kind = RE_RECORD, .in_set = 0, .generation = r.generation + 1,
                                .seen = UINT64_MAX, .now_ms = now });
    for (unsigned i = 0; i <= REPL_MAX_SLOTS; i++)
      if (local[i]) {
        local[i] = false;
        feed (&(struct repl_event){ .kind = RE_LOCAL_DONE, .slot = (uint16_t) i, .now_ms = now });
      }
    for (unsigned i = 0; i < REPL_MAX_RSLOTS; i++)
      if (reading[i]) {
        reading[i] = false;
        feed (&(struct repl_event){ .kind = RE_RESYNC_READ, .rslot = (uint16_t) i, .now_ms = now });
      }
    for (unsigned i = 0; i < REPL_MAX_SLOTS; i++)
      stuck += r.slots[i].state != SL_FREE;
    if (stuck == 0)
      break;
  }
  check (stuck == 0, "seed %llu: %u requests are stuck for ever", (unsigned long long) seed, stuck);
}

static void
fuzz_copy (uint64_t seed)
{
  static struct copy c;
  static struct copy_actions acts;
  struct copy_config cfg = { .site = 1, .size = SIZE, .block_size = 512, .dirty_block_size = BLOCK,
                             .tenure = 5, .generation = 3, .window_bytes = 4 << 20,
                             .window_frames = 64 };
  bool op[COPY_MAX_OPS + 1] = { false };
  uint32_t conn = 0;
  uint64_t acked = 0;

  rng = seed * 0x9e3779b97f4a7c15u + 9;
  check (copy_init (&c, &cfg, 0) == NULL, "init");
  for (unsigned n = 0; n < 5000 && tap_failed == 0; n++) {
    struct copy_event ev = { .kind = (uint8_t) rnd (10) };
    struct wire_record rec = { .tenure = 4 + rnd (3), .generation = rnd (9), .since = rnd (9) };
    struct wire_hello h = { .proto_min = 1, .proto_max = 1, .tenure = 4 + rnd (3),
                            .size = rnd (10) ? SIZE : any (SIZE), .block_size = 512,
                            .dirty_block_size = BLOCK, .peer_site = (uint8_t) (rnd (10) ? 1 : 2) };

    ev.conn = rnd (10) ? c.conn : (uint32_t) rnd (5);
    ev.op = (uint16_t) (rnd (4) ? rnd (COPY_MAX_OPS + 1) : rnd (65536));
    if (ev.kind == CE_DONE)
      for (unsigned k = 0; k < COPY_MAX_OPS && !op[ev.op % (COPY_MAX_OPS + 1)]; k++)
        ev.op = (uint16_t) ((ev.op + 1) % (COPY_MAX_OPS + 1));
    ev.error = rnd (400) ? 0 : -28;
    ev.frame.type = (uint8_t) (rnd (20) ? WIRE_WRITE + rnd (4) : rnd (256));
    if (rnd (6) == 0)
      ev.frame.type = (uint8_t) (WIRE_ENTER + rnd (3));
    ev.frame.tenure = rnd (20) ? c.link_tenure : any (9);
    ev.frame.seq = rnd (30) ? c.seq + 1 : any (c.seq + 2);
    ev.frame.offset = rnd (30) ? rnd (SIZE / 512 - 20) * 512 : any (SIZE);
    ev.frame.length = (uint32_t) (rnd (30) ? 512 + rnd (20) * 512 : any (SIZE));
    ev.frame.payload_len = ev.frame.length;
    if (ev.frame.type != WIRE_WRITE && ev.frame.type != WIRE_RESYNC_WRITE)
      ev.frame.payload_len = 0;
    if (rnd (60) == 0)
      ev.frame.payload_len = (uint32_t) rnd (LINK_MAX_PAYLOAD);
    ev.record = rnd (10) ? &rec : NULL;
    ev.hello = &h;
    ev.peer = rnd (10) ? "" : "x";
    if (ev.kind == CE_STOP && rnd (100))
      continue;
    if (ev.kind == CE_CLOSED && rnd (5))
      continue;
    if (ev.kind == CE_DONE && ev.op <= COPY_MAX_OPS)
      op[ev.op] = false;
    copy_step (&c, &ev, &acts);
    for (unsigned round = 0;; round++) {
      for (unsigned i = 0; i < acts.n; i++) {
        const struct copy_action *a = &acts.a[i];
        if (a->kind == CA_SUBMIT) {
          check (a->op < COPY_MAX_OPS && !op[a->op], "an operation twice");
          check (a->frame.type == WIRE_FLUSH
                     || (a->frame.offset <= SIZE && a->frame.length <= SIZE - a->frame.offset),
                 "submitted out of range");
          op[a->op] = true;
        }
        else if (a->kind == CA_SUPER) {
          check (!op[COPY_OP_SUPER], "two superblocks at a time");
          op[COPY_OP_SUPER] = true;
        }
        else if (a->kind == CA_HELLO_OK) {
          for (unsigned k = 0; k < COPY_MAX_OPS; k++)
            check (!op[k], "R1: a link while an older one's write is under way");
          conn = a->conn;
          acked = 0;
        }
        else if (a->kind == CA_ACK) {
          check (a->conn == conn && a->seq > acked && a->seq <= c.seq, "an ACK out of order");
          acked = a->seq;
        }
      }
      if (!acts.more)
        break;
      check (round < 100, "asks for more without end");
      struct copy_event poll = { .kind = CE_POLL };
      copy_step (&c, &poll, &acts);
    }
    if (c.failed || c.stopped) { /* begin anew, when all has returned */
      bool any_op = false;
      for (unsigned k = 0; k <= COPY_MAX_OPS; k++)
        any_op |= op[k];
      if (!any_op) {
        check (copy_init (&c, &cfg, 0) == NULL, "init");
        conn = 0;
      }
    }
  }
}

int
main (int argc, char **argv)
{
  uint64_t first = argc > 1 ? strtoull (argv[1], NULL, 0) : 1;
  uint64_t count = argc > 2 ? strtoull (argv[2], NULL, 0) : 300;

  for (uint64_t s = first; s < first + count && tap_failed == 0; s++)
    fuzz_repl (s);
  ok (tap_failed == 0, "production's core");
  for (uint64_t s = first; s < first + count && tap_failed == 0; s++)
    fuzz_copy (s);
  ok (tap_failed == 0, "the copy's core");
  return tap_done ();
}
