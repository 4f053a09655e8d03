/* SPDX-License-Identifier: BSD-3-Clause */
/* The replication core of production, one event at a time.  What must hold in any order of
 * events is sim-repl's; here each rule has its plain scenario. */
#include <errno.h>
#include <string.h>

#include "plugin/repl_private.h"
#include "tests/tap.h"

#define BLOCK 65536u
#define SIZE  (UINT64_C (1024) * BLOCK)
#define KIB   1024u

static struct repl r;
static struct repl_actions out;
static const struct repl_action nothing;
static struct repl_config cfg;
static uint8_t maps[3][4096];
static uint64_t now;

static void
step (struct repl_event ev)
{
  ev.now_ms = now;
  repl_step (&r, &ev, &out);
}

/* Site 0 is production, 1 and 2 are copies. */
static void
configure (uint32_t in_set)
{
  memset (&cfg, 0, sizeof cfg);
  cfg.size = SIZE;
  cfg.block_size = BLOCK;
  cfg.n_sites = 3;
  cfg.n_rslots = 16;
  cfg.share_percent = 25;
  cfg.in_set = in_set;
  cfg.generation = 7;
  cfg.suspend_timeout_ms = 10000;
  for (unsigned s = 0; s < 3; s++)
    cfg.track_memory[s] = maps[s];
  cfg.track_memory_bytes = sizeof maps[0];
}

static void
init (void)
{
  const char *why;
  now = 5000;
  why = repl_init (&r, &cfg, now);
  check (why == NULL, "init: %s", why ? why : "");
  step ((struct repl_event){ .kind = RE_LEASE, .until_ms = UINT64_MAX });
}

static void
start (uint32_t in_set)
{
  configure (in_set);
  init ();
}

static void
link_up (unsigned site)
{
  step ((struct repl_event){ .kind = RE_LINK_UP, .site = (uint8_t) site,
                             .window_bytes = LINK_WINDOW_BYTES,
                             .window_frames = LINK_WINDOW_FRAMES, .room_bytes = 1 << 30 });
}

static void
request (unsigned slot, unsigned op, uint64_t offset, uint64_t length, unsigned flags)
{
  step ((struct repl_event){ .kind = RE_REQUEST, .slot = (uint16_t) slot, .op = (uint8_t) op,
                             .offset = offset, .length = length, .flags = flags });
}

static void
local (unsigned slot, int error)
{
  step ((struct repl_event){ .kind = RE_LOCAL_DONE, .slot = (uint16_t) slot, .error = error });
}

static void
ack (unsigned site, uint64_t seq)
{
  step ((struct repl_event){ .kind = RE_ACK, .site = (uint8_t) site, .seq = seq });
}

static void
record (uint32_t in_set, uint64_t generation, uint64_t seen)
{
  step ((struct repl_event){ .kind = RE_RECORD, .in_set = in_set, .generation = generation,
                             .seen = seen });
}

static void
tick (uint64_t ms)
{
  now += ms;
  step ((struct repl_event){ .kind = RE_TICK });
}

static const struct repl_action *
nth (unsigned kind, unsigned n)
{
  for (unsigned i = 0; i < out.n; i++)
    if (out.a[i].kind == kind && n-- == 0)
      return &out.a[i];
  return &nothing;
}

static const struct repl_action *
find (unsigned kind)
{
  return nth (kind, 0);
}

static unsigned
count (unsigned kind)
{
  unsigned n = 0;
  while (nth (kind, n) != &nothing)
    n++;
  return n;
}

static bool
has (unsigned kind)
{
  return count (kind) > 0;
}

static unsigned
count_frames (unsigned site, unsigned type)
{
  unsigned n = 0;
  for (unsigned i = 0; i < out.n; i++)
    n += out.a[i].kind == RA_SEND && out.a[i].site == site && out.a[i].frame.type == type;
  return n;
}

static bool
completed (unsigned slot, int error)
{
  for (unsigned i = 0; i < out.n; i++)
    if (out.a[i].kind == RA_COMPLETE && out.a[i].slot == slot)
      return out.a[i].error == error;
  return false;
}

static void
test_write (void)
{
  start (7);
  link_up (1);
  link_up (2);
  request (0, RO_WRITE, 4096, 8192, 0);
  is (count (RA_LOCAL), 1, "the local write and the sends are handed out together: local");
  ok (count_frames (1, WIRE_WRITE) == 1 && count_frames (2, WIRE_WRITE) == 1, "... and both sends");
  ok (out.a[0].kind == RA_LOCAL, "the local part first");
  ok (nth (RA_SEND, 0)->frame.length == 8192 && nth (RA_SEND, 0)->frame.payload_len == 8192
          && nth (RA_SEND, 0)->frame.seq == 1 && nth (RA_SEND, 0)->frame.missing == 0,
      "the frame names range, payload and sequence");
  local (0, 0);
  is (count (RA_COMPLETE), 0, "not answered by the local write alone");
  ack (1, 1);
  is (count (RA_COMPLETE), 0, "nor by one copy");
  ack (2, 1);
  ok (completed (0, 0), "but when all have it");

  request (1, RO_WRITE, 0, 4 * 1024 * KIB, 0);
  is (count_frames (1, WIRE_WRITE), 16, "4 MiB are 16 frames");
  ok (nth (RA_SEND, 15)->slot_offset == 15 * LINK_MAX_PAYLOAD, "of consecutive payload");
  request (2, RO_WRITE, 8 * 1024 * KIB, 512 * KIB, RF_FUA);
  ok (count_frames (1, WIRE_WRITE) == 2 && count_frames (1, WIRE_FLUSH) == 1,
      "FUA of several frames: one FLUSH behind them");
  request (3, RO_WRITE, 10 * 1024 * KIB, 4096, RF_FUA);
  is (find (RA_SEND)->frame.flags, WIRE_F_FUA, "FUA of one frame: a flag");
  request (4, RO_ZERO, 20 * 1024 * KIB, 1024 * KIB, RF_MAY_TRIM);
  ok (find (RA_SEND)->frame.type == WIRE_ZERO && find (RA_SEND)->frame.payload_len == 0
          && find (RA_SEND)->frame.flags == WIRE_F_MAY_TRIM,
      "zeroes travel as such");
  request (5, RO_FLUSH, 0, 0, 0);
  local (5, 0);
  ack (1, 100);
  ok (has (RA_CLOSE_LINK), "an ACK of what was never sent ends the link");

  start (1);
  request (0, RO_WRITE, 0, 4096, 0);
  local (0, 0);
  ok (completed (0, 0), "without a copy in the set the local write is enough");
  ok (track_get (repl_track (&r, 1), 0) == TS_DIRTY, "and marked for each copy");
  request (0, RO_WRITE, SIZE - 4096, 8192, 0);
  ok (completed (0, -EINVAL), "beyond the end: refused");
  request (1, RO_WRITE, 0, NBD_MAX_REQUEST + 1, 0);
  ok (completed (1, -EINVAL), "over the maximum: refused");
}

static void
test_flush (void)
{
  start (3);
  link_up (1);
  request (0, RO_FLUSH, 0, 0, 0);
  ok (has (RA_LOCAL) && count_frames (1, WIRE_FLUSH) == 1, "FLUSH goes to the store and the copy");
  local (0, 0);
  is (count (RA_COMPLETE), 0, "FLUSH waits for the copy's flush");
  ack (1, 1);
  ok (completed (0, 0), "and is answered with it");
}

static void
test_ranges (void)
{
  start (1);
  request (0, RO_WRITE, 0, 8192, 0);
  request (1, RO_WRITE, 4096, 8192, 0);
  is (count (RA_LOCAL), 0, "an overlapping write waits");
  request (2, RO_WRITE, 8192, 4096, 0);
  is (count (RA_LOCAL), 0, "and one that overlaps the waiting one, in arrival order");
  request (3, RO_WRITE, 65536, 4096, 0);
  is (count (RA_LOCAL), 1, "others go on");
  request (4, RO_READ_WAIT, 4096, 4096, 0);
  is (count (RA_COMPLETE), 0, "a read of that range waits");
  request (5, RO_READ_WAIT, 131072, 4096, 0);
  ok (completed (5, 0), "a read of another one doesn't");
  local (0, 0);
  ok (completed (0, 0) && find (RA_LOCAL)->slot == 1 && !completed (4, 0),
      "the next in order is granted; the read waits for it, too");
  local (1, 0);
  ok (completed (1, 0) && completed (4, 0) && find (RA_LOCAL)->slot == 2,
      "then the read is answered");
}

static void
test_lease (void)
{
  struct repl_wait w[REPL_MAX_WAITS];

  configure (1);
  cfg.no_quorum_timeout_ms = 3000;
  init ();
  step ((struct repl_event){ .kind = RE_LEASE, .until_ms = now + 1000 });
  request (0, RO_WRITE, 0, 4096, 0);
  tick (1000);
  local (0, 0);
  is (count (RA_COMPLETE), 0, "L2: no answer once the lease has run out");
  request (1, RO_READ_WAIT, 4096, 0, 0);
  is (count (RA_COMPLETE), 0, "for a read neither");
  is (repl_waits (&r, now, w), 1, "one wait");
  ok (w[0].owner == RW_LEASE && w[0].requests == 2, "of two requests, for the lease: \"%s\"",
      w[0].reason);
  ok (repl_is_held (&r, NULL), "which status shows as held");
  request (2, RO_WRITE, 8192, 4096, 0);
  is (count (RA_LOCAL), 0, "nothing new is begun");
  step ((struct repl_event){ .kind = RE_LEASE, .until_ms = now + 1000 });
  ok (completed (0, 0) && completed (1, 0) && count (RA_LOCAL) == 1, "all goes on with the lease");
  tick (1000);
  tick (2999);
  is (count (RA_COMPLETE), 0, "still held");
  request (3, RO_READ_WAIT, 0, 0, 0);
  tick (1);
  ok (completed (3, -EIO), "an error after the no-quorum-timeout");
}

static void
test_lost (void)
{
  struct repl_wait w[REPL_MAX_WAITS];
  struct repl_site_status st;
  uint64_t no;

  start (7);
  link_up (1);
  link_up (2);
  request (0, RO_WRITE, 0, 512 * KIB, 0);
  local (0, 0);
  ack (2, 2);
  ack (1, 1);
  step ((struct repl_event){ .kind = RE_LINK_DOWN, .site = 1, .reason = "cable" });
  repl_site_status (&r, 1, now, &st);
  ok (st.state == SITE_CONNECTING && strcmp (st.reason, "cable") == 0, "connecting, with a reason");
  tick (9900);
  is (count (RA_COPY_LOST), 0, "within the suspend timeout nobody asks for anything");
  link_up (1);
  ok (count_frames (1, WIRE_WRITE) == 1 && find (RA_SEND)->frame.seq == 1
          && find (RA_SEND)->frame.offset == LINK_MAX_PAYLOAD,
      "a link that is back gets what it had not acknowledged");
  ack (1, 1);
  ok (completed (0, 0), "and the write is answered, nothing was lost");

  request (0, RO_WRITE, 0, 4096, 0);
  local (0, 0);
  ack (2, 3);
  step ((struct repl_event){ .kind = RE_LINK_DOWN, .site = 1, .reason = "cable" });
  tick (10000);
  ok (has (RA_COPY_LOST) && find (RA_COPY_LOST)->site == 1, "after the timeout: R2 asked for");
  no = find (RA_COPY_LOST)->no;
  is (count (RA_COMPLETE), 0, "R2: held until the record says so");
  is (repl_waits (&r, now, w), 1, "the wait has one owner");
  ok (w[0].owner == RW_COPY && w[0].site == 1 && w[0].age_ms == 10000, "the copy, since 10 s");
  record (7, 7, 0);
  is (count (RA_COPY_LOST), 0, "a record of before changes nothing");
  record (7, 7, no);
  is (count (RA_COPY_LOST), 1, "one that has seen the wish and still has it: asked again");
  link_up (1);
  ok (has (RA_COPY_BACK) && count_frames (1, WIRE_WRITE) == 1,
      "back before the record changed: told, and resent");
  ack (1, 1);
  ok (completed (0, 0), "and answered by the copy");

  request (0, RO_WRITE, 5 * BLOCK, 4096, 0);
  local (0, 0);
  ack (2, 4);
  step ((struct repl_event){ .kind = RE_UNMIRROR, .site = 1, .reason = "its host left" });
  ok (has (RA_COPY_LOST) && has (RA_CLOSE_LINK), "the group says it is gone: no timeout");
  record (5, 8, 0);
  ok (completed (0, 0), "the record without it lets the write be answered");
  ok (track_get (repl_track (&r, 1), 5) == TS_DIRTY && track_get (repl_track (&r, 1), 4) == TS_CLEAN,
      "what it had not acknowledged is marked, nothing else");
  request (0, RO_WRITE, 9 * BLOCK, 4096, 0);
  is (find (RA_SEND)->frame.missing, 2, "later frames name the copy that misses them");
  local (0, 0);
  ack (2, 5);
  ok (completed (0, 0) && track_get (repl_track (&r, 1), 9) == TS_DIRTY, "and mark their blocks");
  repl_site_status (&r, 1, now, &st);
  is (st.dirty_bytes, 2 * BLOCK, "two blocks behind");
  ok (st.state == SITE_SUSPENDED && strcmp (st.reason, "its host left") == 0,
      "suspended: \"%s\"", st.reason);

  step ((struct repl_event){ .kind = RE_COPY_ERROR, .site = 2, .seq = 9, .reason = "disk full" });
  ok (has (RA_COPY_LOST) && find (RA_COPY_LOST)->site == 2, "a copy's error: lost at once");
  link_up (2);
  is (count (RA_COPY_BACK), 0, "and no way back but by the record");

  start (3);
  step ((struct repl_event){ .kind = RE_LINK_UP, .site = 1, .unusable = true,
                             .window_bytes = LINK_WINDOW_BYTES,
                             .window_frames = LINK_WINDOW_FRAMES, .room_bytes = 1 << 30 });
  ok (has (RA_COPY_LOST) && !has (RA_SEND),
      "R4: a copy in the set whose own disk says unusable must leave");

  configure (3);
  cfg.unclean = 2;
  init ();
  tick (100);
  ok (has (RA_COPY_LOST), "R5: after an unclean end every copy leaves first");
  link_up (1);
  request (0, RO_WRITE, 0, 4096, 0);
  local (0, 0);
  ok (count (RA_SEND) == 0 && count (RA_COMPLETE) == 0, "nothing is sent to it, nothing answered");
  record (1, 8, 0);
  ok (completed (0, 0) && count (RA_RESYNC_READ) > 0, "then it is filled again");

  configure (1);
  cfg.entering = 2;
  init ();
  tick (100);
  ok (has (RA_COPY_LOST), "R3, C5: an entry that an earlier process asked for is taken back");
  no = find (RA_COPY_LOST)->no;
  request (0, RO_WRITE, 0, 4096, 0);
  local (0, 0);
  ok (!completed (0, 0), "and waited for");
  record (1, 7, no - 1);
  ok (!completed (0, 0), "also over a record that does not tell its outcome");
  record (3, 7, no - 1);
  ok (!completed (0, 0), "it was in after all: it has to leave (R2)");
  record (1, 8, no);
  ok (completed (0, 0), "now nobody can take over without the write");

  configure (1);
  cfg.entering = 2;
  init ();
  tick (100);
  no = find (RA_COPY_LOST)->no;
  request (0, RO_WRITE, 0, 4096, 0);
  local (0, 0);
  record (1, 7, no);
  ok (completed (0, 0), "it never came in: the write is answered");
  link_up (1);
  tick (REPL_QUIET_MS);
  ok (count (RA_RESYNC_READ) > 0, "and the copy filled");
}

/* A stalled copy: the link is up, but no answer comes. */
/* What was granted before the set shrank, and gets to a copy behind the record. */
static void
test_missing (void)
{
  start (7);
  link_up (1);
  link_up (2);
  request (0, RO_WRITE, 0, 4096, 0);
  is (nth (RA_SEND, 0)->frame.missing, 0, "nobody misses a frame while all are in the set");
  step ((struct repl_event){ .kind = RE_LINK_DOWN, .site = 1, .reason = "cable" });
  request (1, RO_WRITE, BLOCK, 4096, 0);
  step ((struct repl_event){ .kind = RE_LINK_DOWN, .site = 2, .reason = "cable" });
  record (3, 8, 0);
  link_up (1);
  ok (count_frames (1, WIRE_WRITE) == 2 && nth (RA_SEND, 0)->frame.missing == 1u << 2
          && nth (RA_SEND, 1)->frame.missing == 1u << 2,
      "R2: one that waited for its link while another copy left the set names that one");
}

static void
test_stall (void)
{
  start (3);
  link_up (1);
  request (0, RO_WRITE, 0, 4096, 0);
  local (0, 0);
  tick (10000);
  ok (has (RA_COPY_LOST), "a copy that hangs is lost after the suspend timeout");
  record (1, 8, 0);
  ok (completed (0, 0), "and the write answered");
  tick (100);
  ok (has (RA_CLOSE_LINK), "the hung link is given up");
}

/* All reads are over, those that an ended link has left behind first. */
static void
finish_reads (void)
{
  for (unsigned state = RL_CANCELLED; state >= RL_READING; state--)
    for (unsigned k = 0; k < r.cfg.n_rslots; k++)
      if (r.rslots[k].state == state)
        step ((struct repl_event){ .kind = RE_RESYNC_READ, .rslot = (uint16_t) k, .length = BLOCK });
}

/* A copy outside the set that needs longer than the suspend timeout for a single frame. */
static void
test_slow_copy (void)
{
  struct repl_site *x = &r.sites[1];
  unsigned closed = 0;
  uint64_t done;

  start (1);
  step ((struct repl_event){ .kind = RE_MIRROR, .site = 1, .sync = RS_FULL });
  link_up (1);
  for (unsigned i = 0; i < 4; i++)
    step ((struct repl_event){ .kind = RE_RESYNC_READ, .rslot = (uint16_t) i, .length = BLOCK });
  tick (9000);
  ack (1, 1);
  tick (9000);
  ok (!has (RA_CLOSE_LINK) && x->acked_seq == 1, "a frame in 9 s, others wait for 18: it moves, and is left alone");
  tick (1000);
  ok (has (RA_CLOSE_LINK) && strcmp (x->reason, "the copy makes no progress") == 0, "nothing for 10 s: closed, and why");
  /* From here on each frame takes it 35 s. */
  for (unsigned i = 0; i < 8 && closed < 8; i++) {
    link_up (1);
    finish_reads ();
    check (x->unacked_frames > 0, "something is sent");
    tick (34900);
    if (!x->link_up) {
      closed++;
      continue;
    }
    ack (1, 1);
    tick (34900);
    check (x->link_up, "it has moved");
    break;
  }
  is (closed, 1, "35 s a frame: 10 and 20 s were not enough, 40 are");
  ack (1, x->seq);
  tick (REPL_FLUSH_MS);
  ack (1, x->seq);
  done = x->track.cleaned;
  ok (done > 0, "and blocks become clean");
  for (unsigned i = 0; i < 20; i++) {
    link_up (1);
    finish_reads ();
    tick (10000u << REPL_SLOW_MAX);
    check (!x->link_up, "a bound that no patience passes");
  }
  is (x->slow, REPL_SLOW_MAX, "patience has an end");
}

/* A link that comes and goes: the write's wait counts, not the link's last end. */
static void
test_flap (void)
{
  start (3);
  link_up (1);
  request (0, RO_WRITE, 0, 4096, 0);
  local (0, 0);
  for (unsigned i = 0; i < 49; i++) {
    step ((struct repl_event){ .kind = RE_LINK_DOWN, .site = 1, .reason = "it closes" });
    tick (200);
    if (has (RA_COPY_LOST))
      break;
    link_up (1);
  }
  is (count (RA_COPY_LOST), 0, "a link that comes and goes, within the suspend timeout");
  step ((struct repl_event){ .kind = RE_LINK_DOWN, .site = 1, .reason = "it closes" });
  tick (200);
  ok (has (RA_COPY_LOST), "and beyond it: the copy is lost");
  ok (!completed (0, 0), "R2: the write waits for the record");
  record (1, 8, find (RA_COPY_LOST)->no);
  ok (completed (0, 0), "and is answered by it");
}

static void
answer_reads (unsigned zero, unsigned *n)
{
  struct repl_action a[REPL_MAX_ACTIONS];
  unsigned k = 0;
  uint64_t last[3] = { 0 };

  /* All reads, then all that they send, until nothing is asked for. */
  for (unsigned round = 0; round < 10000; round++) {
    for (unsigned i = 0; i < out.n; i++) {
      if (out.a[i].kind == RA_RESYNC_READ)
        a[k++] = out.a[i];
      if (out.a[i].kind == RA_SEND)
        last[out.a[i].site] = out.a[i].frame.seq;
    }
    if (k > 0) {
      struct repl_action x = a[--k];
      ++*n;
      step ((struct repl_event){ .kind = RE_RESYNC_READ, .rslot = x.rslot,
                                 .zero = (uint8_t) zero,
                                 .length = zero == RZ_HOLE ? x.length_max : x.length });
    }
    else if (last[1]) {
      ack (1, last[1]);
      last[1] = 0;
    }
    else
      break;
  }
}

/* A block within a run that is being read as a hole is marked meanwhile: those behind it are not
 * locked for ever. */
static void
test_hole_marked (void)
{
  struct repl_action read = { 0 };
  struct track *t = &r.sites[1].track;

  start (1);
  link_up (1);
  for (unsigned k = 0; k < 3 && read.length_max < 4 * BLOCK; k++) {
    struct repl_action a = *nth (RA_RESYNC_READ, 0);
    step ((struct repl_event){ .kind = RE_RESYNC_READ, .rslot = a.rslot, .zero = RZ_HOLE, .length = a.length_max });
    read = *nth (RA_RESYNC_READ, 0);
  }
  ok (read.length_max >= 4 * BLOCK, "a hole of several blocks is asked for: %llu", (unsigned long long) read.length_max / BLOCK);
  const uint64_t first = read.offset / BLOCK;
  track_mark (t, (first + 1) * BLOCK, BLOCK);
  step ((struct repl_event){ .kind = RE_RESYNC_READ, .rslot = read.rslot, .zero = RZ_HOLE, .length = read.length_max });
  is (track_get (t, first), TS_SENT_A, "what was not marked is sent");
  for (unsigned k = 0; k < 4096; k++) {
    const unsigned i = k % cfg.n_rslots;

    if (r.rslots[i].state == RL_READING)
      step ((struct repl_event){ .kind = RE_RESYNC_READ, .rslot = (uint16_t) i, .zero = RZ_ZERO, .length = BLOCK });
    ack (1, r.sites[1].seq);
  }
  is (t->count[TS_SYNCING], 0, "no block stays locked");
  is (track_open (t), 0, "and none is left out");
}

static void
test_resync (void)
{
  struct repl_site_status st;
  unsigned n = 0;
  uint64_t no;

  start (1);
  step ((struct repl_event){ .kind = RE_MIRROR, .site = 1, .sync = RS_FULL });
  link_up (1);
  is (count (RA_RESYNC_READ), 16, "a resync has 16 blocks in flight");
  request (0, RO_WRITE, 3 * BLOCK, 4096, 0);
  is (count (RA_LOCAL), 0, "a write waits for the block that is being read");
  step ((struct repl_event){ .kind = RE_RESYNC_READ, .rslot = 3, .length = BLOCK });
  ok (count_frames (1, WIRE_RESYNC_WRITE) == 1 && has (RA_LOCAL),
      "and goes on when it is in the stream");
  ok (count_frames (1, WIRE_WRITE) == 1, "sent behind it, as newer data");
  local (0, 0);
  ok (completed (0, 0), "answered without that copy");
  request (0, RO_WRITE, 900 * BLOCK, 4096, 0);
  ok (count_frames (1, WIRE_WRITE) == 0 && has (RA_LOCAL), "a block that is still to come: "
                                                            "nothing is sent twice");
  local (0, 0);
  tick (200);
  for (unsigned i = 0; i < 16; i++)
    if (i != 3)
      step ((struct repl_event){ .kind = RE_RESYNC_READ, .rslot = (uint16_t) i, .length = BLOCK });
  repl_site_status (&r, 1, now, &st);
  is (st.done_bytes, 0, "sent is not done");
  is (st.total_bytes, SIZE, "all of it is to do");

  start (1);
  link_up (1);
  answer_reads (RZ_DATA, &n);
  is (n, 1024, "every block is read once");
  ok (r.sites[1].enter == EN_READY || r.sites[1].enter == EN_SENT, "then it enters (R3)");
  repl_site_status (&r, 1, now, &st);
  ok (st.dirty_bytes == 0 && st.done_bytes == SIZE, "done: all of it");
  no = r.sites[1].no;
  request (0, RO_WRITE, 0, 4096, 0);
  local (0, 0);
  is (count (RA_COMPLETE), 0, "R3: before it is in the set requests wait for it already");
  record (1, 7, 0);
  is (count (RA_COMPLETE), 0, "a record that crossed with READY decides nothing");
  repl_site_status (&r, 1, now, &st);
  ok (st.level == RA_COPY_READY && st.no == no, "the wish stands, for a new controller too");
  record (3, 7, no);
  ok (r.in_set == 2 && r.sites[1].enter == EN_NONE, "in the set");
  repl_site_status (&r, 1, now, &st);
  is (st.level, 0, "and no wish stands any more");
  ack (1, r.sites[1].seq);
  ok (completed (0, 0), "its ACK completes the write");

  start (1);
  link_up (1);
  n = 0;
  answer_reads (RZ_HOLE, &n);
  ok (n < 64, "holes are passed in large steps (%u reads for 1024 blocks)", n);
  ok (r.counters.hole_blocks == 1024, "all of them");

  /* entry and loss */
  step ((struct repl_event){ .kind = RE_LINK_DOWN, .site = 1, .reason = "cable" });
  ok (has (RA_COPY_LOST), "lost after READY: asked for at once");
  no = find (RA_COPY_LOST)->no;
  request (0, RO_WRITE, 0, 4096, 0);
  local (0, 0);
  record (1, 7, no - 1);
  is (count (RA_COMPLETE), 0, "the record before that is no answer");
  repl_site_status (&r, 1, now, &st);
  is (st.level, RA_COPY_LOST, "a new controller would be told of the loss");
  record (1, 8, no);
  ok (completed (0, 0), "the one after it is");
  repl_site_status (&r, 1, now, &st);
  is (st.level, 0, "a dropped entry is never asked for again");
  step ((struct repl_event){ .kind = RE_LINK_UP, .site = 1, .unusable = true,
                             .window_bytes = LINK_WINDOW_BYTES,
                             .window_frames = LINK_WINDOW_FRAMES, .room_bytes = 1 << 30 });
  is (r.counters.resync_blocks, 1024, "its link is back: it goes on");
  is (repl_track (&r, 1)->count[TS_CLEAN], 1023, "with the one block that it lacks");

  /* while the application works */
  start (1);
  request (0, RO_WRITE, 1000 * BLOCK, 4096, 0);
  link_up (1);
  is (count (RA_RESYNC_READ), 1, "one block at a time while the application works");

  /* errors */
  start (1);
  link_up (1);
  step ((struct repl_event){ .kind = RE_RESYNC_READ, .rslot = 0, .length = BLOCK, .error = -EIO });
  repl_site_status (&r, 1, now, &st);
  ok (strstr (st.reason, "can't read") && track_get (repl_track (&r, 1), 0) == TS_DIRTY,
      "a block that can't be read stays dirty: \"%s\"", st.reason);
  step ((struct repl_event){ .kind = RE_LINK_DOWN, .site = 1 });
  is (track_waiting (repl_track (&r, 1)), 1024, "a lost link leaves nothing in between");
  link_up (1);
  is (count (RA_RESYNC_READ), 1, "buffers are used again only when their read is over");
  for (unsigned i = 1; i < 16; i++)
    step ((struct repl_event){ .kind = RE_RESYNC_READ, .rslot = (uint16_t) i, .length = BLOCK });
  is (r.counters.illegal, 0, "the late answers are expected");
  is (r.counters.resync_blocks, 0, "and not used");
}

static void
test_window (void)
{
  start (3);
  step ((struct repl_event){ .kind = RE_LINK_UP, .site = 1, .window_bytes = 1 << 20,
                             .window_frames = 8, .room_bytes = 600 * KIB });
  request (0, RO_WRITE, 0, 4 * 1024 * KIB, 0);
  is (count (RA_SEND), 2, "no more than the out buffer has room for");
  step ((struct repl_event){ .kind = RE_ROOM, .site = 1, .room_bytes = 1 << 30 });
  is (count (RA_SEND), 1, "no more than the window: 3 of 256 KiB and headers in 1 MiB");
  ack (1, 1);
  is (count (RA_SEND), 1, "one goes, one comes");
  for (unsigned i = 0; i < 20; i++)
    request (1 + i, RO_ZERO, (10 + i) * 1024 * KIB, 4096, 0);
  is (r.sites[1].unacked_frames, 3, "later requests wait behind it, in order");
  for (uint64_t s = 2; s <= 16; s++)
    ack (1, s);
  is (r.sites[1].unacked_frames, 8, "no more frames than the window has");
  step ((struct repl_event){ .kind = RE_LINK_UP, .site = 1, .window_bytes = 4096,
                             .window_frames = 8, .room_bytes = 600 * KIB });
  ok (has (RA_CLOSE_LINK), "a window too small for one frame is refused");
}

static void
test_hold (void)
{
  const char *why;

  start (3);
  link_up (1);
  request (0, RO_WRITE, 0, 4096, 0);
  step ((struct repl_event){ .kind = RE_HOLD, .reason = "switchover" });
  request (1, RO_WRITE, 8192, 4096, 0);
  is (count (RA_LOCAL), 0, "F6: nothing new while held");
  ok (repl_is_held (&r, &why) && strcmp (why, "switchover") == 0, "with its reason");
  local (0, 0);
  ack (1, 1);
  ok (completed (0, 0) && find (RA_LOCAL)->slot == REPL_SLOT_DRAIN
          && count_frames (1, WIRE_FLUSH) == 1,
      "drained, then flushed everywhere");
  local (REPL_SLOT_DRAIN, 0);
  is (count (RA_DRAINED), 0, "not before the copy has flushed");
  ack (1, 2);
  is (count (RA_DRAINED), 1, "then it is said");
  step ((struct repl_event){ .kind = RE_HOLD, .reason = "switchover" });
  is (count (RA_DRAINED), 1, "and said again when asked again");
  step ((struct repl_event){ .kind = RE_RESUME });
  is (count (RA_LOCAL), 1, "resume lets go what waited");
  local (1, 0);
  ack (1, 3);
  ok (completed (1, 0), "and it completes");

  /* an earlier hold's flush is no answer to a later hold */
  step ((struct repl_event){ .kind = RE_HOLD });
  step ((struct repl_event){ .kind = RE_RESUME });
  request (2, RO_WRITE, 8192, 4096, 0);
  step ((struct repl_event){ .kind = RE_HOLD });
  local (REPL_SLOT_DRAIN, 0);
  ack (1, 4);
  is (count (RA_DRAINED), 0, "a flush of an earlier hold does not count");
}

static void
test_store (void)
{
  start (3);
  link_up (1);
  request (0, RO_WRITE, 0, 4096, 0);
  ack (1, 1);
  local (0, -EIO);
  ok (has (RA_STORE_FAILED) && count (RA_COMPLETE) == 0,
      "F4: a failed local write is held, and said");
  request (1, RO_READ_WAIT, 0, 0, 0);
  is (count (RA_COMPLETE), 0, "nothing completes any more");
  is (track_get (repl_track (&r, 1), 0), TS_DIRTY, "the copies may differ there: marked");

  configure (3);
  cfg.return_store_error = true;
  init ();
  link_up (1);
  request (0, RO_WRITE, 0, 4096, 0);
  ack (1, 1);
  local (0, -ENOSPC);
  ok (completed (0, -ENOSPC), "policy `return`: the client hears of it");
  ok (has (RA_RESYNC_READ), "and the copy in the set is repaired");
  step ((struct repl_event){ .kind = RE_RESYNC_READ, .rslot = find (RA_RESYNC_READ)->rslot,
                             .length = BLOCK });
  is (count_frames (1, WIRE_WRITE), 1, "by a plain write: it stays usable");
  request (1, RO_FLUSH, 0, 0, 0);
  local (1, -EIO);
  ack (1, r.sites[1].seq);
  ok (completed (1, -EIO), "a failed flush is an error");
  request (2, RO_FLUSH, 0, 0, 0);
  ok (completed (2, -EIO) && count (RA_LOCAL) == 0,
      "and is never retried into success");
  request (3, RO_WRITE, 0, 4096, RF_FUA);
  ok (completed (3, -EIO), "by FUA neither");
  step ((struct repl_event){ .kind = RE_HOLD, .reason = "switchover" });
  ok (!out.more && !has (RA_DRAINED), "and such a store is never called drained");
}

static void
test_bad_events (void)
{
  start (3);
  step ((struct repl_event){ .kind = RE_ACK, .site = 0, .seq = 1 });
  step ((struct repl_event){ .kind = RE_ACK, .site = 7, .seq = 1 });
  local (3, 0);
  step ((struct repl_event){ .kind = RE_RESYNC_READ, .rslot = 99 });
  step ((struct repl_event){ .kind = 77 });
  record (3, 6, 0);
  is (r.counters.illegal, 6, "events that make no sense are counted, and ignored");
  record (7, 8, 0);
  tick (0);
  ok (r.sites[2].lost && r.sites[2].lost_final, "a copy that the record has unasked must leave");
  configure (3);
  cfg.block_size = 5000;
  ok (repl_init (&r, &cfg, 0) != NULL, "a bad configuration is refused");
}

/* Never less than one block on its way, however much clients write; at which pace is unit-repl-pace's. */
static void
test_share (void)
{
  struct repl_site *x = &r.sites[1];
  unsigned n = 0;

  /* Writes that fit into the window of a copy that answers slowly take all but a block of it. */
  start (1);
  step ((struct repl_event){ .kind = RE_LINK_UP, .site = 1, .window_bytes = 10 * BLOCK,
                             .window_frames = 64, .room_bytes = 1 << 30 });
  for (unsigned k = 0; k < 3; k++) {
    finish_reads ();
    ack (1, x->seq);
  }
  ok (x->resync_begun && track_waiting (&x->track) > 0 && x->n_rslots > 0, "some blocks are there, others are read");
  while (x->n_rslots > 0)
    for (unsigned s = 0; s < cfg.n_rslots; s++)
      if (r.rslots[s].state == RL_READING)
        step ((struct repl_event){ .kind = RE_RESYNC_READ, .rslot = (uint16_t) s, .error = -EIO });
  ack (1, x->seq);
  for (unsigned k = 0; k < 200; k++) { /* to the first blocks, which the copy has */
    request (k, RO_WRITE, (k % 4) * BLOCK, 4096, 0);
    n += count_frames (1, WIRE_WRITE);
    local (k, 0);
  }
  ok (n > 20 && n < 200, "%u of 200 writes are sent to it at once, and fill the window", n);
  tick (REPL_READ_RETRY_MS);
  ok (has (RA_RESYNC_READ), "but for a block of the resync");
}

/* The rate of a resync that takes seconds is measured. */
static void
test_rate (void)
{
  struct repl_site *x = &r.sites[1];

  start (1);
  link_up (1);
  is (repl_resync_rate (&r), 0, "nothing is known of it");
  for (unsigned i = 0; i < 30; i++) { /* 20 blocks a second */
    now += 100;
    for (unsigned k = 0; k < 2; k++)
      for (unsigned s = 0; s < cfg.n_rslots; s++)
        if (r.rslots[s].state == RL_READING) {
          step ((struct repl_event){ .kind = RE_RESYNC_READ, .rslot = (uint16_t) s, .length = BLOCK });
          break;
        }
    ack (1, x->seq);
    step ((struct repl_event){ .kind = RE_TICK });
  }
  ok (repl_resync_rate (&r) > 18 * BLOCK && repl_resync_rate (&r) < 22 * BLOCK, "20 blocks a second: %llu bytes",
      (unsigned long long) repl_resync_rate (&r));
  uint64_t before = repl_resync_rate (&r);
  for (unsigned i = 0; i < 30; i++) {
    now += 100;
    for (unsigned s = 0; s < cfg.n_rslots; s++)
      if (r.rslots[s].state == RL_READING)
        step ((struct repl_event){ .kind = RE_RESYNC_READ, .rslot = (uint16_t) s, .zero = RZ_HOLE, .length = BLOCK });
    ack (1, x->seq);
    step ((struct repl_event){ .kind = RE_TICK });
  }
  is (repl_resync_rate (&r), before, "holes are no measure");
}

/* A copy outside the set that answers nothing: all is sent, and no request may wait for it. */
static void
test_hung_entry (void)
{
  configure (1);
  cfg.size = 4 * BLOCK;
  cfg.suspend_timeout_ms = 60000;
  init ();
  request (0, RO_WRITE, 0, 4096, 0);
  local (0, 0);
  link_up (1);
  for (unsigned i = 0; i < 100; i++) {
    for (unsigned k = 0; k < REPL_MAX_RSLOTS; k++)
      if (r.rslots[k].state == RL_READING)
        step ((struct repl_event){ .kind = RE_RESYNC_READ, .rslot = (uint16_t) k, .length = BLOCK });
    tick (100);
  }
  ok (r.sites[1].seq >= 5 && track_open (&r.sites[1].track) == 0, "all is sent");
  is (r.sites[1].enter, EN_NONE, "nothing is answered: no request waits for it");
  request (0, RO_WRITE, 2 * BLOCK, 4096, 0);
  local (0, 0);
  ok (completed (0, 0), "a write is answered at once");
  ack (1, 1);
  is (r.sites[1].enter, EN_NONE, "too late an answer changes nothing");
  ack (1, r.sites[1].seq);
  tick (100);
  ok (r.sites[1].enter != EN_NONE, "but one to all that is under way does");
}

/* A copy whose flush takes 3 s comes in, with a client that writes all the time. */
static void
test_slow_entry (void)
{
  struct repl_site *x = &r.sites[1];
  uint64_t enter_ms = 0;
  unsigned slot = 0, given_up = 0;

  start (1);
  link_up (1);
  for (unsigned i = 0; i < 3000 && x->enter != EN_READY; i++) {
    const unsigned before = x->enter;
    uint64_t upto = x->seq;

    now += 50;
    if (!r.slots[slot].state)
      request (slot, RO_WRITE, (i % 50) * 4096, 4096, 0);
    for (unsigned k = 0; k < REPL_MAX_SLOTS; k++)
      if (r.slots[k].state == SL_ACTIVE && !r.slots[k].local_done)
        local (k, 0);
    slot = (slot + 1) % 100;
    for (unsigned k = 0; k < REPL_MAX_RSLOTS; k++)
      if (r.rslots[k].state == RL_READING)
        step ((struct repl_event){ .kind = RE_RESYNC_READ, .rslot = (uint16_t) k,
                                   .length = BLOCK });
    /* no answer passes an ENTER of less than 3 s */
    for (uint64_t q = x->acked_seq + 1; q <= upto; q++)
      if (x->flight[q % LINK_WINDOW_FRAMES].kind == FL_ENTER) {
        if (enter_ms == 0)
          enter_ms = x->flight[q % LINK_WINDOW_FRAMES].sent_ms;
        if (now < enter_ms + 3000)
          upto = q - 1;
      }
    if (upto > x->acked_seq)
      ack (1, upto);
    tick (0);
    if (before != EN_NONE && x->enter == EN_NONE) {
      given_up++;
      enter_ms = 0;
      for (uint64_t q = x->acked_seq + 1; q <= x->seq; q++)
        check (x->flight[q % LINK_WINDOW_FRAMES].kind != FL_ENTER, "an ENTER that still counts");
    }
  }
  is (x->enter, EN_READY, "a copy that is slow to flush gets in under load");
  is (given_up, 1, "at the second attempt");
}

/* Everything at once: the limits of one step. */
static void
test_many (void)
{
  unsigned done = 0, sent = 0, steps = 1;

  start (7);
  for (unsigned i = 0; i < REPL_MAX_SLOTS; i++)
    request (i, RO_WRITE, (uint64_t) i * 256 * KIB, 256 * KIB, 0);
  for (unsigned i = 0; i < REPL_MAX_SLOTS; i++)
    local (i, 0);
  is (count (RA_COMPLETE), 0, "all wait for two copies without a link");
  record (1, 8, 0);
  for (;;) {
    done += count (RA_COMPLETE);
    check (out.n <= REPL_MAX_ACTIONS, "bounded");
    if (!out.more)
      break;
    steps++;
    step ((struct repl_event){ .kind = RE_MORE });
  }
  is (done, REPL_MAX_SLOTS, "256 completions");
  start (3);
  for (unsigned i = 0; i < REPL_MAX_SLOTS; i++)
    request (i, RO_ZERO, (uint64_t) i * 256 * KIB, 4096, 0);
  link_up (1);
  for (;;) {
    sent += count (RA_SEND);
    if (!out.more)
      break;
    steps++;
    step ((struct repl_event){ .kind = RE_MORE });
  }
  is (sent, REPL_MAX_SLOTS, "256 frames resent");
  printf ("# in %u steps\n", steps);
  is (repl_inflight (&r), REPL_MAX_SLOTS, "in flight");
}

/* --- tracking -------------------------------------------------------------------------------- */

static struct mark mark;
static uint8_t mark_memory[1 << 20];
#define MIB (1024 * KIB)

static void
configure_mark (uint32_t in_set)
{
  configure (in_set);
  check (mark_memory_bytes (SIZE, BLOCK, MIB, HOT_MIN_ENTRIES, 3) <= sizeof mark_memory, "memory");
  memset (mark_memory, 0, sizeof mark_memory);
  mark_init (&mark, mark_memory, SIZE, BLOCK, MIB, HOT_MIN_ENTRIES, 3);
  cfg.mark = &mark;
}

/* The shell's part of RA_MARK: all blocks of the stage are written and flushed. */
static void
marked (void)
{
  struct mark_block b;
  while (mark_next (&mark, &b))
    ;
  step ((struct repl_event){ .kind = RE_MARKED });
}

static void
link_up_keeping (unsigned site, bool keeps)
{
  step ((struct repl_event){ .kind = RE_LINK_UP, .site = (uint8_t) site, .mapped = true, .keeps = keeps,
                             .window_bytes = LINK_WINDOW_BYTES,
                             .window_frames = LINK_WINDOW_FRAMES, .room_bytes = 1 << 30 });
}

static void
link_up_mapped (unsigned site)
{
  link_up_keeping (site, false);
}

/* A new controller that hears a later level first would say that the outcome of the earlier one is known. */
static void
test_levels (void)
{
  start (7);
  tick (1000);
  is (repl_level_after (&r, 0), -1, "nothing stands: nothing is told again");
  tick (cfg.suspend_timeout_ms);
  ok (repl_level_after (&r, 0) == 1 && r.sites[1].no == 1 && r.sites[2].no == 2, "two copies are lost, the first one first");
  record (7, 7, 1);
  ok (has (RA_COPY_LOST) && r.sites[1].no == 3, "whose removal came to nothing is lost anew");
  ok (repl_level_after (&r, 0) == 2 && repl_level_after (&r, 2) == 1,
      "R3: a new controller is told what stands in the order in which it was said");
  is (repl_level_after (&r, 3), -1, "and each once");
  link_up (2);
  is (repl_level_after (&r, 0), 1, "what stands no more is not told");
}

/* Production is killed while a copy is being filled: the next process can't know whether its entry was asked
 * for.  What the copy lacks is in the maps all the same. */
static void
test_entering (void)
{
  const struct track *t;
  uint64_t no;

  configure_mark (1);
  cfg.entering = 2;
  bits_set (&mark.bits[1], 7, true);
  init ();
  tick (100);
  no = find (RA_COPY_LOST)->no;
  step ((struct repl_event){ .kind = RE_LINK_UP, .site = 1, .mapped = true, .unusable = true,
                             .window_bytes = LINK_WINDOW_BYTES,
                             .window_frames = LINK_WINDOW_FRAMES, .room_bytes = 1 << 30 });
  record (1, 7, no);
  t = repl_track (&r, 1);
  is (track_open (t), 1, "a copy whose filling was cut off lacks what the maps say");

  configure_mark (3);
  init ();
  step ((struct repl_event){ .kind = RE_LINK_UP, .site = 1, .mapped = true, .unusable = true,
                             .window_bytes = LINK_WINDOW_BYTES,
                             .window_frames = LINK_WINDOW_FRAMES, .room_bytes = 1 << 30 });
  record (1, 8, UINT64_MAX);
  t = repl_track (&r, 1);
  ok (t->count[TS_CLEAN] == 0, "R4: one in the set that calls itself unusable may lack anything");
}

/* Progress of a resync: what a copy has confirmed stays done, whatever becomes of its link. */
static void
test_progress (void)
{
  struct repl_site_status before, st;

  configure_mark (1);
  cfg.n_sites = 2;
  for (unsigned b = 0; b < 64; b++)
    bits_set (&mark.bits[1], b, true);
  init ();
  link_up_mapped (1);
  for (unsigned k = 0; k < 16; k++)
    step ((struct repl_event){ .kind = RE_RESYNC_READ, .rslot = (uint16_t) k, .length = BLOCK });
  tick (REPL_FLUSH_MS);
  ack (1, r.sites[1].seq);
  for (unsigned k = 0; k < 3; k++) /* sent, and not confirmed */
    step ((struct repl_event){ .kind = RE_RESYNC_READ, .rslot = (uint16_t) k, .length = BLOCK });
  repl_site_status (&r, 1, now, &before);
  ok (before.done_bytes == 16 * BLOCK && before.total_bytes == 64 * BLOCK, "a quarter of a resync is done");
  step ((struct repl_event){ .kind = RE_LINK_DOWN, .site = 1, .reason = "cut" });
  repl_site_status (&r, 1, now, &st);
  ok (st.done_bytes == before.done_bytes && st.total_bytes == before.total_bytes, "its link ends: it stays done");
  step ((struct repl_event){ .kind = RE_LINK_UP, .site = 1, .mapped = true, .restarted = true,
                             .window_bytes = LINK_WINDOW_BYTES, .window_frames = LINK_WINDOW_FRAMES,
                             .room_bytes = 1 << 30 });
  repl_site_status (&r, 1, now, &st);
  ok (st.done_bytes == before.done_bytes && st.total_bytes == before.total_bytes, "also when its machine has restarted");
}

/* The flush that lets found marks go after a start, so that the next actions are the test's. */
static void
settled (unsigned site)
{
  tick (REPL_TICK_MS);
  for (unsigned i = 0; i < 4 && r.slots[REPL_SLOT_SYNC].state != SL_FREE; i++) {
    local (REPL_SLOT_SYNC, 0);
    ack (site, r.sites[site].seq);
  }
}

static void
test_hot (void)
{
  configure_mark (3);
  cfg.equal = true;
  init ();
  link_up_mapped (1);
  settled (1);
  request (0, RO_WRITE, 5 * MIB, 4096, 0);
  ok (count_frames (1, WIRE_WRITE) == 1 && has (RA_MARK) && !has (RA_LOCAL),
      "a write is sent while its region is being marked; the local part waits");
  is (find (RA_SEND)->frame.missing, 4, "the frame names the site outside the set");
  ack (1, find (RA_SEND)->frame.seq);
  is (count (RA_COMPLETE), 0, "the copy's answer alone is not enough");
  marked ();
  ok (has (RA_LOCAL) && find (RA_LOCAL)->slot == 0, "marked: the local part goes");
  local (0, 0);
  ok (completed (0, 0), "and is answered");
  request (0, RO_WRITE, 5 * MIB + 8192, 4096, 0);
  ok (has (RA_LOCAL) && !has (RA_MARK), "a write to a hot region costs no mark");
  local (0, 0);
  ack (1, r.sites[1].seq);
  request (1, RO_FLUSH, 0, 0, 0);
  uint64_t seq = r.sites[1].seq;
  local (1, 0);
  is (count (RA_STABLE), 0, "STABLE is not said before the copy has flushed");
  ack (1, seq);
  ok (completed (1, 0) && has (RA_STABLE) && find (RA_STABLE)->frame.seq == seq - 1,
      "a flush that all have confirmed lets the copy's marks go");
  ok (hot_is_marked (&mark.hot, 5), "production's goes lazily");

  request (0, RO_WRITE, 9 * MIB, 4096, 0);
  marked ();
  local (0, 0);
  ack (1, r.sites[1].seq);
  step ((struct repl_event){ .kind = RE_LINK_DOWN, .site = 1, .reason = "cut" });
  request (0, RO_WRITE, 20 * MIB, 4096, 0);
  record (1, 8, UINT64_MAX);
  ok (track_get (repl_track (&r, 1), 9 * 16 + 3) == TS_DOUBT,
      "R2: answered and hot when the copy leaves the set: it may lack it, the whole region");
  ok (track_get (repl_track (&r, 1), 20 * 16) == TS_DIRTY && bits_get (&mark.bits[1], 20 * 16),
      "and what was under way");
  ok (track_get (repl_track (&r, 1), 30 * 16) == TS_CLEAN, "and nothing else");
  step ((struct repl_event){ .kind = RE_MARKED, .error = -EIO });
  ok (has (RA_STORE_FAILED), "F4: a mark that can't be written");
}

#define REGION (128 * KIB)

static void
configure_regions (uint32_t in_set)
{
  configure_mark (in_set);
  check (mark_memory_bytes (SIZE, BLOCK, REGION, HOT_MIN_ENTRIES, 3) <= sizeof mark_memory, "memory");
  memset (mark_memory, 0, sizeof mark_memory);
  mark_init (&mark, mark_memory, SIZE, BLOCK, REGION, HOT_MIN_ENTRIES, 3);
}

/* A copy needs a mark for each region that a resync goes through, and lets go of it behind a flush of the
 * stream; so the flush must come before its marks are all taken, though holes are passed 64 MiB at a time. */
static void
test_spread (void)
{
  static uint8_t map[2][32768], memory[65536];
  struct repl_action a[REPL_MAX_ACTIONS];
  unsigned k = 0, flushes = 0, most = 0, open = 0;
  uint64_t regions = 0, flush = 0;

  configure (1);
  cfg.size = UINT64_C (4096) * MIB;
  cfg.equal = true;
  cfg.n_sites = 2;
  check (mark_memory_bytes (cfg.size, BLOCK, MIB, HOT_MIN_ENTRIES, 2) <= sizeof memory, "memory");
  mark_init (&mark, memory, cfg.size, BLOCK, MIB, HOT_MIN_ENTRIES, 2);
  cfg.mark = &mark;
  cfg.track_memory[0] = map[0];
  cfg.track_memory[1] = map[1];
  cfg.track_memory_bytes = sizeof map[0];
  init ();
  step ((struct repl_event){ .kind = RE_LINK_UP, .site = 1, .empty = true, .window_bytes = LINK_WINDOW_BYTES,
                             .window_frames = LINK_WINDOW_FRAMES, .room_bytes = 1 << 30 });
  for (unsigned round = 0; round < 4096; round++) {
    for (unsigned i = 0; i < out.n; i++) {
      const struct repl_action *o = &out.a[i];
      if (o->kind == RA_RESYNC_READ)
        a[k++] = *o;
      if (o->kind == RA_SEND && o->frame.type == WIRE_RESYNC_ZERO) {
        open += (unsigned) ((o->frame.length - 1) / MIB) + 1;
        regions += o->frame.length;
      }
      if (o->kind == RA_SEND && o->frame.type == WIRE_FLUSH) {
        flushes++;
        most = open > most ? open : most;
        open = 0;
        flush = o->frame.seq;
      }
    }
    if (k > 0) {
      struct repl_action x = a[--k];
      step ((struct repl_event){ .kind = RE_RESYNC_READ, .rslot = x.rslot, .zero = RZ_HOLE, .length = x.length_max });
    }
    else if (flush) {
      check (2 * most + HOT_MAX_ENTRIES / 2 <= HOT_MAX_ENTRIES, "%u regions without a flush", most);
      ack (1, flush);
      flush = 0;
    }
    else
      break;
  }
  ok (flushes >= 3, "a resync of 4 GiB of holes flushes %u times on its way", flushes);
  ok (most <= REPL_FLUSH_REGIONS + 16 * (HOT_MAX_SPAN - 2), "after %u regions at most", most);
  check (regions / MIB >= 4096 - most, "and goes on: %llu MiB", (unsigned long long) regions / MIB);
}

/* The flush that lets hot marks go is asked for aside of the stream, if the copy can. */
static void
test_sync (void)
{
  configure_regions (3);
  cfg.equal = true;
  init ();
  step ((struct repl_event){ .kind = RE_LINK_UP, .site = 1, .mapped = true, .syncs = true,
                             .window_bytes = LINK_WINDOW_BYTES, .window_frames = LINK_WINDOW_FRAMES,
                             .room_bytes = 1 << 30 });
  ok (has (RA_STABLE) && (find (RA_STABLE)->frame.flags & WIRE_F_SYNC) && count_frames (1, WIRE_FLUSH) == 0,
      "no FLUSH in the stream");
  local (REPL_SLOT_SYNC, 0);
  step ((struct repl_event){ .kind = RE_STABLE, .site = 1, .seq = 0 });
  is (r.slots[REPL_SLOT_SYNC].state, SL_FREE, "the copy's answer ends it");

  /* All regions but a few are in use: a flush before a write has to wait. */
  unsigned asked = 0;
  for (unsigned i = 0; i < HOT_MIN_ENTRIES && !asked; i++) {
    request (0, RO_WRITE, i * REGION, 4096, 0);
    asked = has (RA_STABLE) && (find (RA_STABLE)->frame.flags & WIRE_F_SYNC) ? i : 0;
    marked ();
    local (0, 0);
    ack (1, r.sites[1].seq);
    check (completed (0, 0), "write %u", i);
  }
  ok (asked > HOT_MIN_ENTRIES / 2 && asked < HOT_MIN_ENTRIES - 10, "a flush is asked for before all are in use: at %u of %u",
      asked, HOT_MIN_ENTRIES);
  const uint64_t seq = r.sites[1].seq - 1; /* the last that was answered then */
  request (0, RO_WRITE, 2 * REGION, 4096, 0);
  local (0, 0);
  ack (1, r.sites[1].seq);
  ok (completed (0, 0), "what is sent behind it does not wait for it");
  local (REPL_SLOT_SYNC, 0);
  step ((struct repl_event){ .kind = RE_STABLE, .site = 1, .seq = seq - 1 });
  is (r.slots[REPL_SLOT_SYNC].state, SL_ACTIVE, "an answer that covers less than was acknowledged is an old one");
  step ((struct repl_event){ .kind = RE_STABLE, .site = 1, .seq = seq });
  is (r.slots[REPL_SLOT_SYNC].state, SL_FREE, "the right one ends it");
  ok (has (RA_STABLE) && find (RA_STABLE)->frame.seq == seq, "and lets the copy's marks go, up to where it was asked");
  is (mark.hot.n_entries, HOT_MIN_ENTRIES / 2, "half of them are kept");
  ok (hot_is_marked (&mark.hot, 2), "the one that was written since among them");
  step ((struct repl_event){ .kind = RE_STABLE, .site = 1, .seq = seq });
  ok (r.sites[1].link_up, "once more does no harm");
  step ((struct repl_event){ .kind = RE_STABLE, .site = 1, .seq = r.sites[1].seq + 1 });
  ok (has (RA_CLOSE_LINK), "a copy that calls stable what was never sent is not listened to");
}

/* A write for which no region is free waits, and those behind it, in their order. */
static void
test_stalled (void)
{
  configure_regions (1);
  init ();
  request (0, RO_ZERO, 0, 63 * REGION, 0);
  request (1, RO_ZERO, 70 * REGION, 63 * REGION, 0);
  ok (r.slots[0].state == SL_ACTIVE && r.slots[1].state == SL_ACTIVE, "two long ones are granted");
  request (2, RO_ZERO, 140 * REGION, 63 * REGION, 0);
  request (3, RO_WRITE, 220 * REGION, 4096, 0);
  request (4, RO_FLUSH, 0, 0, 0);
  ok (r.slots[2].stalled && r.slots[3].stalled && r.slots[4].state == SL_ACTIVE,
      "a third waits, and a short one behind it, but no flush");
  marked ();
  local (0, 0);
  ok (r.slots[REPL_SLOT_SYNC].state == SL_ACTIVE || r.slots[4].state == SL_ACTIVE, "a flush is on its way");
  local (4, 0);
  if (mark.stage != MS_IDLE)
    marked ();
  local (REPL_SLOT_SYNC, 0);
  ok (r.slots[2].stalled && r.slots[3].stalled && r.slots[REPL_SLOT_SYNC].state == SL_ACTIVE,
      "one that began before a write ended frees nothing: another is on its way");
  local (REPL_SLOT_SYNC, 0);
  ok (!r.slots[2].stalled && !r.slots[3].stalled, "what the flush frees lets them go on at once");
}

/* An entry that comes to nothing: what the copy got meanwhile is followed until it has flushed it, and
 * what else is hot is none of its business. */
static void
test_entry_given_up (void)
{
  struct repl_site *x = &r.sites[1];
  const struct track *t = &x->track;

  for (unsigned cut = 0; cut < 2; cut++) {
    configure_mark (1);
    cfg.n_sites = 2;
    cfg.equal = true;
    init ();
    step ((struct repl_event){ .kind = RE_HOLD, .reason = "test" });
    link_up_mapped (1);
    request (0, RO_WRITE, 20 * MIB, 4096, 0);
    step ((struct repl_event){ .kind = RE_RESUME });
    marked ();
    is (x->enter, EN_NONE, "it has answered nothing yet");
    ack (1, x->seq);
    is (x->enter, EN_CLOSING, "it waits for a write that is not for it, and new ones wait for it");
    request (1, RO_WRITE, 30 * MIB, 4096, 0);
    marked ();
    local (1, 0);
    ack (1, x->seq);
    ok (completed (1, 0) && (track_get (t, 30 * 16) == TS_SENT_A || track_get (t, 30 * 16) == TS_SENT_B),
        "one that it has answered is followed until it is stable there");
    request (2, RO_WRITE, 40 * MIB, 4096, 0);
    marked ();
    local (2, 0);
    if (cut)
      step ((struct repl_event){ .kind = RE_LINK_DOWN, .site = 1, .reason = "cut" });
    else
      tick (REPL_ENTER_STALL_MS);
    ok (x->enter == EN_NONE && completed (2, 0), "given up: nothing waits for it any more");
    ok (track_get (t, 40 * 16) == (cut ? TS_DIRTY : TS_SYNCING) && bits_get (&mark.bits[1], 40 * 16),
        "what it had not answered is dirty");
    is (track_get (t, 40 * 16 + 1), TS_CLEAN, "but not all of its region");
    is (track_open (t), cut ? 3 : 1, "nor anything else that is hot");
    ok (bits_get (&mark.bits[1], 30 * 16), "what is not stable there is on the disk as dirty");
    if (cut) {
      ok (track_get (t, 30 * 16) == TS_DOUBT, "the link is gone: what was not stable is dirty");
      continue;
    }
    ok (x->reason[0] != '\0', "and why is shown");
    ack (1, x->seq);
    tick (REPL_FLUSH_MS);
    ack (1, x->seq);
    ok (track_get (t, 30 * 16) == TS_CLEAN && track_get (t, 20 * 16) == TS_CLEAN, "a flush makes the rest clean");
  }
}

/* R6: a copy that went its own way comes back with a map of what it was written. */
static void
test_fork (void)
{
  struct repl_event up = { .kind = RE_LINK_UP, .site = 1, .mapped = true, .forked = true,
                           .window_bytes = LINK_WINDOW_BYTES, .window_frames = LINK_WINDOW_FRAMES,
                           .room_bytes = 1 << 30 };
  uint8_t map[META_BLOCK_PAYLOAD] = { 0 };
  const struct track *t = repl_track (&r, 1);

  configure_mark (1);
  cfg.n_sites = 2;
  cfg.equal = true;
  init ();
  link_up_mapped (1);
  step ((struct repl_event){ .kind = RE_UNMIRROR, .site = 1, .reason = "detached" });
  request (0, RO_WRITE, 20 * BLOCK, 4096, 0);
  marked ();
  local (0, 0);
  map[40 / 8] = 3;
  step ((struct repl_event){ .kind = RE_MAP, .site = 1, .map = map });
  is (track_behind_bytes (t), BLOCK, "its map is not asked for if it was only away");
  step ((struct repl_event){ .kind = RE_MAP, .site = 1, .forked = true, .map = map });
  is (track_behind_bytes (t), 3 * BLOCK, "a fork's adds to what production knows");
  now += REPL_QUIET_MS;
  step (up);
  is (count (RA_RESYNC_READ), 3, "and that is copied");
  step ((struct repl_event){ .kind = RE_LINK_DOWN, .site = 1, .reason = "cut" });
  map[48 / 8] = 0xff;
  step ((struct repl_event){ .kind = RE_MAP, .site = 1, .forked = true, .map = map });
  is (track_behind_bytes (t), 3 * BLOCK, "only once: nothing is copied again after a new link");
  step ((struct repl_event){ .kind = RE_UNMIRROR, .site = 1, .reason = "detached" });
  up.mapped = false;
  step (up);
  is (track_behind_bytes (t), SIZE, "a fork without a map is filled as a whole");
}

/* What is written meanwhile to what was not hot: the copies hear that it is stable, but not that anything
 * is settled; else their marks may all be taken before they are equal. */
static void
told_while_unequal (bool wanted)
{
  uint64_t seq[3];

  request (2, RO_WRITE, 30 * MIB, 4096, 0);
  marked ();
  local (2, 0);
  for (unsigned site = 1; site < 3; site++)
    if (r.in_set & 1u << site)
      ack (site, seq[site] = r.sites[site].seq);
  ok (completed (2, 0), "a write is answered while the set is made equal");
  request (3, RO_FLUSH, 0, 0, 0);
  local (3, 0);
  for (unsigned site = 1; site < 3; site++)
    if (r.in_set & 1u << site)
      ack (site, r.sites[site].seq);
  for (unsigned site = 1; site < 3; site++)
    if (r.in_set & 1u << site) {
      ok ((r.sites[site].told_stable >= seq[site]) == wanted, "%s",
          wanted ? "and stable, which the copy is told" : "one that would let go of what makes it equal is not told");
      check (!r.sites[site].settled, "nothing is settled");
    }
  ok (repl_is_guarded (&r), "and it is not equal yet");
}

/* Reads all that is to be read, and answers all that is sent.  True: equal. */
static bool
make_equal (unsigned sites, bool keeps)
{
  for (unsigned i = 0; i < 40; i++) {
    bool over = false;

    for (unsigned k = 0; k < r.cfg.n_rslots; k++)
      if (r.rslots[k].state == RL_READING) {
        step ((struct repl_event){ .kind = RE_RESYNC_READ, .rslot = (uint16_t) k, .length = BLOCK,
                                   .zero = k % 2 ? RZ_ZERO : RZ_DATA });
        over |= has (RA_GUARD);
        for (unsigned a = 0; a < out.n; a++)
          if (out.a[a].kind == RA_SEND && out.a[a].frame.type != WIRE_FLUSH) {
            check (out.a[a].frame.type == WIRE_WRITE || out.a[a].frame.type == WIRE_ZERO, "a copy of the set stays usable");
            check (((out.a[a].frame.flags & WIRE_F_KEEP) != 0) == keeps, "its mark stays until it is settled");
          }
      }
    for (unsigned site = 1; site <= sites; site++) {
      ack (site, r.sites[site].seq);
      over |= has (RA_GUARD);
    }
    if (over)
      return true;
    tick (REPL_FLUSH_MS);
    if (has (RA_GUARD))
      return true;
  }
  return false;
}

/* Sites 1 and 2 are in the set, and site 1 answers no flush: the record takes it out. */
static void
test_stable_without_one (void)
{
  uint64_t seq;

  configure_mark (7);
  cfg.equal = true;
  init ();
  link_up_mapped (1);
  link_up_mapped (2);
  tick (REPL_TICK_MS);
  for (unsigned i = 0; i < 4 && r.slots[REPL_SLOT_SYNC].state != SL_FREE; i++) {
    local (REPL_SLOT_SYNC, 0);
    ack (1, r.sites[1].seq);
    ack (2, r.sites[2].seq);
  }
  request (0, RO_WRITE, 30 * MIB, 4096, 0);
  marked ();
  local (0, 0);
  seq = r.sites[2].seq;
  ack (1, r.sites[1].seq);
  ack (2, seq);
  ok (completed (0, 0), "a write is on all three");
  request (1, RO_FLUSH, 0, 0, 0);
  local (1, 0);
  ack (2, r.sites[2].seq);
  step ((struct repl_event){ .kind = RE_LINK_DOWN, .site = 1, .reason = "cut" });
  record (5, 8, UINT64_MAX);
  ok (completed (1, 0), "the flush is answered when site 1 is out");
  ok (r.sites[2].told_stable < seq, "R2: site 2 keeps its mark until it has heard the record");
  request (2, RO_FLUSH, 0, 0, 0);
  local (2, 0);
  ack (2, r.sites[2].seq);
  ok (completed (2, 0) && r.sites[2].told_stable >= seq, "and may let go of it with the next flush");
}

static void
test_guard (void)
{
  uint8_t map[META_BLOCK_PAYLOAD] = { 0 };

  configure_mark (3);
  hot_found (&mark.hot, 2); /* an unclean end: the third MiB */
  init ();
  ok (repl_is_guarded (&r), "after an unclean end reads are guarded");
  request (0, RO_READ_WAIT, 40 * MIB, 4096, 0);
  is (count (RA_COMPLETE), 0, "no read before the copy has said in what it may differ");
  struct repl_wait waits[REPL_MAX_WAITS];
  unsigned n = repl_waits (&r, now, waits);
  ok (n == 1 && waits[0].owner == RW_EQUAL && waits[0].reason[0], "which is shown");
  map[8 * 16 / 8] = 1; /* the copy: block 128 */
  step ((struct repl_event){ .kind = RE_MAP, .site = 1, .map = map });
  link_up_keeping (1, true);
  step ((struct repl_event){ .kind = RE_MORE });
  ok (completed (0, 0), "then reads of what is equal go on");
  request (0, RO_READ_WAIT, 2 * MIB, 4096, 0);
  request (1, RO_READ_WAIT, 8 * MIB, 4096, 0);
  is (count (RA_COMPLETE), 0, "those of what was hot here or there wait");
  is (track_behind_bytes (repl_track (&r, 1)), 17 * BLOCK, "hot of both sides is copied, and no more");
  told_while_unequal (true);
  ok (make_equal (1, true) && !repl_is_guarded (&r), "equal: the guard ends");
  step ((struct repl_event){ .kind = RE_MORE });
  ok (r.slots[0].state == SL_FREE && r.slots[1].state == SL_FREE, "and all reads are answered");
  is (count_frames (1, WIRE_RESYNC_WRITE), 0, "nothing more is copied");

  configure_mark (3);
  init ();
  request (0, RO_READ_WAIT, 0, 4096, 0);
  tick (10000);
  ok (has (RA_COPY_LOST), "a copy that does not come has to leave the set");
  record (1, 8, UINT64_MAX);
  ok (has (RA_GUARD) && out.more, "removed: the guard ends");
  step ((struct repl_event){ .kind = RE_MORE });
  ok (completed (0, 0), "and reads wait for it no more");
}

/* Sites 1 and 2 are in the set after an unclean end. */
static void
start_three (bool keeps)
{
  uint8_t map[META_BLOCK_PAYLOAD] = { 0 };

  configure_mark (7);
  hot_found (&mark.hot, 2);
  init ();
  map[8 * 16 / 8] = 1;
  for (unsigned site = 1; site < 3; site++) {
    step ((struct repl_event){ .kind = RE_MAP, .site = (uint8_t) site, .map = map });
    link_up_keeping (site, keeps);
  }
}

/* The core's own flush, wherever it has to go. */
static void
flush_all (unsigned slot)
{
  for (unsigned i = 0; i < 4; i++) {
    tick (REPL_TICK_MS);
    if (r.slots[slot].state != SL_ACTIVE)
      continue;
    if (!r.slots[slot].local_done)
      local (slot, 0);
    for (unsigned site = 1; site < 3; site++)
      ack (site, r.sites[site].seq);
    if (r.slots[slot].state == SL_FREE)
      return;
  }
}

/* One block of what makes them equal. */
static void
send_one (void)
{
  unsigned k = 0;

  while (k < r.cfg.n_rslots && r.rslots[k].state != RL_READING)
    k++;
  step ((struct repl_event){ .kind = RE_RESYNC_READ, .rslot = (uint16_t) k, .length = BLOCK });
}

/* A set of three whose copies are unequal: each is told what is stable, and keeps the marks of what makes it
 * equal.  Nobody hears a word if nothing has to be flushed: so that is asked for, too. */
static void
test_three (void)
{
  start_three (true);
  told_while_unequal (true);
  ok (make_equal (2, true) && !repl_is_guarded (&r), "two copies are made equal");
  flush_all (REPL_SLOT_SYNC);
  ok (r.sites[1].told_settled && r.sites[2].told_settled, "and then what they kept is settled");

  start_three (false);
  told_while_unequal (false);
  ok (make_equal (2, false), "copies of a release that doesn't know KEEP are made equal without it");

  /* Nobody writes: the copies' marks of what makes them equal may be more than they have room for. */
  start_three (true);
  tick (REPL_HOT_FLUSH_MS);
  is (r.slots[REPL_SLOT_SYNC].state, SL_FREE, "nothing was sent, and nothing is to be told");
  send_one ();
  tick (REPL_HOT_FLUSH_MS);
  is (r.slots[REPL_SLOT_SYNC].state, SL_ACTIVE, "a flush lets the copies free some, though production has none");
}

/* F6: a hold after a takeover does not wait for itself: the copies are made equal, then it is drained. */
static void
test_hold_guarded (void)
{
  start_three (true);
  request (0, RO_READ_WAIT, 2 * MIB, 4096, 0);
  step ((struct repl_event){ .kind = RE_HOLD, .reason = "switchover" });
  send_one ();
  tick (REPL_HOT_FLUSH_MS);
  is (r.slots[REPL_SLOT_SYNC].state, SL_ACTIVE, "held, and the copies hear what is stable, so that they can be made equal");
  flush_all (REPL_SLOT_SYNC);
  ok (!has (RA_DRAINED) && r.slots[REPL_SLOT_DRAIN].state == SL_FREE, "F6: unequal copies are not drained");
  ok (make_equal (2, true), "they are made equal while it is held");
  flush_all (REPL_SLOT_SYNC);
  is (r.slots[0].state, SL_FREE, "the read that waited for that is answered");
  is (r.slots[REPL_SLOT_DRAIN].state, SL_ACTIVE, "then all is flushed");
  flush_all (REPL_SLOT_DRAIN);
  for (unsigned i = 0; i < 4 && !r.drained; i++)
    if (mark.stage != MS_IDLE)
      marked ();
  ok (r.drained, "and drained");
}

int
main (void)
{
  test_write ();
  test_flush ();
  test_ranges ();
  test_lease ();
  test_lost ();
  test_missing ();
  test_stall ();
  test_slow_copy ();
  test_hole_marked ();
  test_flap ();
  test_resync ();
  test_window ();
  test_hold ();
  test_store ();
  test_bad_events ();
  test_many ();
  test_share ();
  test_rate ();
  test_hung_entry ();
  test_slow_entry ();
  test_progress ();
  test_hot ();
  test_levels ();
  test_entering ();
  test_spread ();
  test_sync ();
  test_stalled ();
  test_entry_given_up ();
  test_fork ();
  test_stable_without_one ();
  test_guard ();
  test_three ();
  test_hold_guarded ();
  return tap_done ();
}
