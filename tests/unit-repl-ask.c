/* SPDX-License-Identifier: BSD-3-Clause */
/* The resync by digest, one event at a time, through the replication core that it is a part of: what is
 * asked for and what is sent, and when it counts as clean.  What must hold in any order of events is
 * sim-repl's. */
#include <errno.h>
#include <string.h>

#include "plugin/repl_private.h"
#include "tests/repl-step.h"
#include "tests/tap.h"

#define BLOCK 65536u
#define N     1000u /* blocks; the last one is short */
#define SIZE  (UINT64_C (1000) * BLOCK - 4096)

static uint8_t maps[2][N], same[VERIFY_BLOCKS][WIRE_DIGEST_LEN], other[VERIFY_BLOCKS][WIRE_DIGEST_LEN];
static const struct track *t = &r.sites[1].track;

static void
link_up (bool digests, bool empty)
{
  step ((struct repl_event){ .kind = RE_LINK_UP, .site = 1, .window_bytes = LINK_WINDOW_BYTES,
                             .window_frames = LINK_WINDOW_FRAMES, .room_bytes = 1 << 30, .digests = digests,
                             .empty = empty });
}

/* Site 0 is production; 1 is a copy outside the set of which nothing is known. */
static void
start_unlinked (void)
{
  struct repl_config cfg = { .size = SIZE, .block_size = BLOCK, .n_sites = 2, .n_rslots = 4, .share_percent = 25,
                             .generation = 7, .suspend_timeout_ms = 10000, .track_memory_bytes = sizeof maps[0] };
  const char *why;

  cfg.track_memory[1] = maps[1];
  now = 5000;
  why = repl_init (&r, &cfg, now);
  check (why == NULL, "init: %s", why ? why : "");
  step ((struct repl_event){ .kind = RE_LEASE, .until_ms = UINT64_MAX });
  memset (other, 0, sizeof other);
}

static void
start (bool digests, bool empty)
{
  start_unlinked ();
  link_up (digests, empty);
}

static void
answer (unsigned site, uint64_t tag, uint8_t d[VERIFY_BLOCKS][WIRE_DIGEST_LEN], unsigned n)
{
  step ((struct repl_event){ .kind = RE_DIGEST, .site = (uint8_t) site, .seq = tag, .map = d[0], .length = n });
}

/* Question `tag` of 16 blocks: all equal but the first `differ`. */
static void
answers (uint64_t tag, unsigned differ)
{
  memset (other, 0, sizeof other);
  for (unsigned k = 0; k < differ; k++)
    other[k][WIRE_DIGEST_LEN - 1] = 1;
  answer (0, tag, same, VERIFY_BLOCKS);
  answer (1, tag, other, VERIFY_BLOCKS);
}

static void
request (unsigned slot, uint64_t offset, uint64_t length)
{
  step ((struct repl_event){ .kind = RE_REQUEST, .slot = (uint16_t) slot, .op = RO_WRITE, .offset = offset,
                             .length = length });
}

static void
local (unsigned slot)
{
  step ((struct repl_event){ .kind = RE_LOCAL_DONE, .slot = (uint16_t) slot });
}

static void
tick (uint64_t ms)
{
  now += ms;
  step ((struct repl_event){ .kind = RE_TICK });
}

static uint64_t
equal_bytes (void)
{
  struct repl_site_status st;

  repl_site_status (&r, 1, now, &st);
  return st.equal_bytes;
}

static void
equal_blocks (void)
{
  const struct repl_action *q, *own;
  uint64_t seq;

  start (true, false);
  is (count (RA_DIGEST_REQ), REPL_MAX_ASKS, "what is in doubt is asked for, several ranges at once");
  ok (count (RA_RESYNC_READ) == 0 && frames (WIRE_RESYNC_WRITE) == 0, "... and nothing of it is sent");
  q = find (RA_DIGEST_REQ);
  own = find (RA_DIGEST);
  ok (q->site == 1 && q->frame.type == WIRE_DIGEST_REQ && q->frame.offset == 0 && q->frame.length == 16 * BLOCK,
      "a question has so many blocks");
  ok (own->no == q->frame.seq && own->offset == 0 && own->length == 16 * BLOCK, "production's own digests are made of the same");
  is (t->count[TS_ASKED], 16 * REPL_MAX_ASKS, "they are asked for");
  answer (0, 1, same, 16);
  answer (0, 1, other, 16);
  is (t->count[TS_ASKED], 16 * REPL_MAX_ASKS, "one side's answer decides nothing, and counts once");
  other[3][0] = 1;
  answer (1, 1, other, 16);
  ok (track_get (t, 0) == TS_SENT_A && track_get (t, 15) == TS_SENT_A && t->count[TS_CLEAN] == 0,
      "D2: equal blocks count as sent, and are not clean");
  ok (track_get (t, 3) == TS_SYNCING && count (RA_RESYNC_READ) == 1 && find (RA_RESYNC_READ)->offset == 3 * BLOCK,
      "the one that differs is read");
  is (equal_bytes (), 15 * BLOCK, "the others are counted");
  step ((struct repl_event){ .kind = RE_RESYNC_READ, .length = BLOCK });
  ok (frames (WIRE_RESYNC_WRITE) == 1 && find (RA_SEND)->frame.offset == 3 * BLOCK, "and sent");
  tick (REPL_FLUSH_MS);
  is (frames (WIRE_FLUSH), 1, "a flush goes behind them");
  seq = r.sites[1].seq;
  step ((struct repl_event){ .kind = RE_ACK, .site = 1, .seq = seq - 1 });
  is (t->count[TS_CLEAN], 0, "D2: nothing is clean while the flush is on its way");
  answers (2, 0);
  step ((struct repl_event){ .kind = RE_ACK, .site = 1, .seq = seq });
  is (t->count[TS_CLEAN], 16, "D2: then what was equal before the flush, and what was sent");
  is (track_get (t, 16), TS_SENT_B, "D2: and not what was found equal behind it");
  is (r.sites[1].resync_bytes, BLOCK, "one block was sent");
  ok (r.counters.illegal == 0 && t->illegal == 0, "nothing of this is illegal");
}

/* D1 */
static void
written_meanwhile (void)
{
  start (true, false);
  request (0, 2 * BLOCK, 4096);
  is (count (RA_LOCAL), 1, "D1: a write does not wait for a question");
  ok (track_get (t, 2) == TS_DIRTY && track_get (t, 1) == TS_ASKED, "D1: but is asked for no more");
  answers (1, 0);
  ok (track_get (t, 2) != TS_SENT_A && track_get (t, 1) == TS_SENT_A, "D1: equal digests say nothing of it then");
  local (0);

  start (true, false);
  r.sites[1].resync_begun = true; /* so that it is offered what is written */
  request (0, 2 * BLOCK, 4096);
  ok (frames (WIRE_WRITE) == 1 && track_get (t, 2) == TS_DIRTY, "D1: nor if the copy gets the write: it may be written for ever");
  request (1, 5 * BLOCK, BLOCK);
  is (track_get (t, 5), TS_SENT_A, "a whole block is on its way with the write");
  memset (other, 1, sizeof other);
  answer (0, 1, same, 16);
  answer (1, 1, other, 16);
  ok (track_get (t, 5) == TS_SENT_A && track_get (t, 4) != TS_SENT_A, "and is not sent again, whatever its digest was");

  /* A write that was granted before. */
  start_unlinked ();
  request (0, 3 * BLOCK + 4096, 4096);
  link_up (true, false);
  ok (find (RA_DIGEST_REQ)->frame.length == 3 * BLOCK, "D1: a question ends before a block that is being written");
  answer (0, 1, same, 3);
  answer (1, 1, same, 3);
  now += REPL_PACE_REST_MS;
  step ((struct repl_event){ .kind = RE_MORE });
  ok (track_get (t, 3) == TS_DOUBT && r.n_rblocked == 1, "D1: ... which is read under its lock when the write is over");
  local (0);
  ok (count (RA_RESYNC_READ) == 1 && find (RA_RESYNC_READ)->offset == 3 * BLOCK, "... and not before");
}

/* D3 */
static void
no_answer (void)
{
  start (true, false);
  step ((struct repl_event){ .kind = RE_DIGEST, .site = 1, .seq = 1, .error = -EIO });
  is (t->count[TS_ASKED], 16 * (REPL_MAX_ASKS - 1), "D3: a copy that can't read a range is sent it");
  ok (count (RA_RESYNC_READ) > 0 && t->count[TS_SENT_A] == 0, "D3: and nothing of it counts as equal");
  answer (0, 1, same, 16);
  answer (1, 2, other, 15);
  is (t->count[TS_ASKED], 16 * (REPL_MAX_ASKS - 2), "D3: so is one that answers with other digests than it was asked for");
  step ((struct repl_event){ .kind = RE_DIGEST, .site = 1, .seq = 3, .length = 16 });
  is (t->count[TS_ASKED], 16 * (REPL_MAX_ASKS - 3), "D3: or with none");
  tick (REPL_ASK_MS - 1);
  is (t->count[TS_ASKED], 16 * (REPL_MAX_ASKS - 3), "the others have time");
  tick (1);
  ok (t->count[TS_ASKED] == 0 && t->count[TS_SENT_A] == 0, "D3: which ends");
  answers (4, 0);
  is (t->count[TS_SENT_A], 0, "D3: what comes later is of no use");

  start (true, false);
  answer (0, 1, same, 16);
  step ((struct repl_event){ .kind = RE_LINK_DOWN, .site = 1 });
  ok (t->count[TS_DOUBT] == N && r.sites[1].n_asks == 0, "a link that ends leaves all in doubt");
  link_up (true, false);
  answer (1, 1, other, 16);
  is (t->count[TS_SENT_A], 0, "an answer to the old link's question is none");
  is (count (RA_DIGEST_REQ) + t->count[TS_ASKED], 16 * REPL_MAX_ASKS, "the new link's are under way");
}

/* Where asking does not pay. */
static void
not_asked (void)
{
  unsigned asks, reads = 0;

  start (false, false);
  ok (count (RA_DIGEST_REQ) == 0 && count (RA_RESYNC_READ) == 4, "a release that knows no digests is sent all");
  start (true, true);
  ok (count (RA_DIGEST_REQ) == 0 && count (RA_RESYNC_READ) == 4, "a store that was never filled, too");

  /* All differs: after the first answers most is sent unasked. */
  start (true, false);
  for (unsigned i = 1; i <= REPL_MAX_ASKS; i++)
    answers (i, 16);
  is (r.sites[1].ask_left, REPL_ASK_PAUSE_MAX, "where nothing is equal, asking is left for long");
  for (unsigned i = 0; i < 3000 && t->count[TS_SENT_A] + t->count[TS_SENT_B] < N; i++) {
    const unsigned rslot = i % 4;

    if (r.rslots[rslot].state == RL_READING) {
      step ((struct repl_event){ .kind = RE_RESYNC_READ, .rslot = (uint16_t) rslot, .length = BLOCK });
      step ((struct repl_event){ .kind = RE_ACK, .site = 1, .seq = r.sites[1].seq });
      reads++;
    }
    for (unsigned k = 0; k < REPL_MAX_ASKS; k++)
      if (r.asks[k].on) {
        memset (other, 1, sizeof other);
        answer (0, r.asks[k].tag, same, (unsigned) r.asks[k].run.n);
        answer (1, r.asks[k].tag, other, (unsigned) r.asks[k].run.n);
      }
  }
  asks = (unsigned) r.counters.asks - REPL_MAX_ASKS;
  ok (asks >= 2 && asks <= 5, "but for %u questions of 16 blocks in %u", asks, N);
  ok (reads >= N - 16, "all is sent");

  /* It pays again. */
  start (true, false);
  answers (1, 13);
  is (r.sites[1].ask_left, REPL_ASK_PAUSE, "less than a quarter: a short pause");
  r.sites[1].ask_left = 0;
  answers (2, 12);
  is (r.sites[1].ask_pause, 0, "a quarter is worth it");
}

static void
holes (void)
{
  start (true, false);
  step ((struct repl_event){ .kind = RE_DIGEST, .site = 0, .seq = 1, .zero = RZ_HOLE, .map = same[0], .length = 16 });
  ok (count (RA_RESYNC_READ) > 0 && find (RA_RESYNC_READ)->length_max == 64 * BLOCK && count (RA_DIGEST_REQ) == 0,
      "where production has a hole, more of it is looked for and passed at once");
  step ((struct repl_event){ .kind = RE_RESYNC_READ, .rslot = find (RA_RESYNC_READ)->rslot, .length = BLOCK });
  ok (frames (WIRE_RESYNC_WRITE) == 1 && count (RA_DIGEST_REQ) == 0 && t->count[TS_DOUBT] > 0
          && t->count[TS_DIRTY] == 0,
      "what turns out to be data is in doubt as before");
  answer (1, 1, other, 16);
  ok (count (RA_DIGEST_REQ) > 0, "and is asked for again");
}

/* Clients first. */
static void
busy (void)
{
  start_unlinked ();
  request (0, 900 * BLOCK, 4096);
  link_up (true, false);
  is (count (RA_DIGEST_REQ), 1, "G1: while clients write, one question at a time");
  answer (0, 1, same, 16);
  is (count (RA_DIGEST_REQ), 0, "... answered by both sides");
  now += 8;
  answer (1, 1, other, 16);
  is (count (RA_DIGEST_REQ), 0, "and then a rest");
  now += REPL_PACE_REST_MS;
  step ((struct repl_event){ .kind = RE_MORE });
  is (count (RA_DIGEST_REQ), 1, "before the next");
}

int
main (void)
{
  equal_blocks ();
  written_meanwhile ();
  no_answer ();
  not_asked ();
  holes ();
  busy ();
  return tap_done ();
}
