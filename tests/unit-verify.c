/* SPDX-License-Identifier: BSD-3-Clause */
/* Verify, one event at a time, through the replication core that it is a part of.  What must hold in any
 * order of events is sim-repl's; here each rule has its plain scenario. */
#include <string.h>

#include "plugin/repl_private.h"
#include "tests/repl-step.h"
#include "tests/tap.h"

#define BLOCK 65536u
#define SIZE  (UINT64_C (40) * BLOCK - 4096) /* three ranges, a short one at the end */

static uint8_t maps[3][4096], memory[64], digests[VERIFY_BLOCKS][WIRE_DIGEST_LEN];

/* Site 0 is production, 1 and 2 are copies of the set, linked.  With maps on disk, if given. */
static void
start_with (struct mark *mark, uint64_t room)
{
  struct repl_config cfg = { .size = SIZE, .block_size = BLOCK, .n_sites = 3, .n_rslots = 4, .share_percent = 25,
                             .in_set = 6, .generation = 7, .suspend_timeout_ms = 10000,
                             .track_memory_bytes = sizeof maps[0], .mark = mark, .equal = mark != NULL };
  const char *why;

  for (unsigned s = 0; s < 3; s++)
    cfg.track_memory[s] = maps[s];
  now = 5000;
  why = repl_init (&r, &cfg, now);
  check (why == NULL, "init: %s", why ? why : "");
  step ((struct repl_event){ .kind = RE_LEASE, .until_ms = UINT64_MAX });
  for (unsigned s = 1; s < 3; s++)
    step ((struct repl_event){ .kind = RE_LINK_UP, .site = (uint8_t) s, .window_bytes = LINK_WINDOW_BYTES,
                               .window_frames = LINK_WINDOW_FRAMES, .room_bytes = room, .digests = true });
  memset (memory, 0, sizeof memory);
  memset (digests, 0, sizeof digests);
}

static void
start (uint64_t room)
{
  start_with (NULL, room);
}

static void
verify (uint32_t sites, bool repair)
{
  step ((struct repl_event){ .kind = RE_VERIFY, .in_set = sites, .repair = repair, .memory = repair ? memory : NULL });
}

static void
answer (unsigned site, uint64_t tag, unsigned n, int error)
{
  step ((struct repl_event){ .kind = RE_DIGEST, .site = (uint8_t) site, .seq = tag, .error = error,
                             .map = error ? NULL : digests[0], .length = error ? 0 : n });
}

/* All answer the question of that number alike. */
static void
agree (uint64_t tag, unsigned n)
{
  for (unsigned s = 0; s < 3; s++)
    answer (s, tag, n, 0);
}

/* Site 1 answers that block k differs. */
static void
disagree (uint64_t tag, unsigned n, unsigned k)
{
  answer (0, tag, n, 0);
  answer (2, tag, n, 0);
  digests[k][0] = 1;
  answer (1, tag, n, 0);
  digests[k][0] = 0;
}

static unsigned
phase (unsigned site)
{
  return verify_of_site (&r, site)->phase;
}

static void
request (unsigned slot, uint64_t offset)
{
  step ((struct repl_event){ .kind = RE_REQUEST, .slot = (uint16_t) slot, .op = RO_WRITE, .offset = offset,
                             .length = 4096 });
}

static void
complete (unsigned slot)
{
  step ((struct repl_event){ .kind = RE_LOCAL_DONE, .slot = (uint16_t) slot });
  for (unsigned s = 1; s < 3; s++)
    step ((struct repl_event){ .kind = RE_ACK, .site = (uint8_t) s, .seq = r.sites[s].seq });
}

static void
equal_copies (void)
{
  struct verify_status st;

  start (1 << 20);
  verify (6, false);
  is (count (RA_DIGEST), 3, "V1 the three ranges are asked for at once");
  is (count (RA_DIGEST_REQ), 6, "V1 of both copies");
  ok (find (RA_DIGEST_REQ)->frame.length == VERIFY_BLOCKS * BLOCK && find (RA_DIGEST_REQ)->frame.seq == 1,
      "in ranges of %u blocks", VERIFY_BLOCKS);
  agree (1, VERIFY_BLOCKS);
  agree (2, VERIFY_BLOCKS);
  verify_status (&r, now, &st);
  ok (st.on && st.done_bytes == 2 * VERIFY_BLOCKS * BLOCK && st.total_bytes == SIZE, "progress");
  agree (3, 8);
  ok (!r.verify.on && find (RA_VERIFY)->site != 0 && count (RA_VERIFY) == 3, "then the run is over");
  is (phase (1), VP_DONE, "site 1 is done");
  is (phase (2), VP_DONE, "site 2 is done");
  is (verify_of_site (&r, 1)->compared_bytes, SIZE, "all of it was compared");
  is (verify_of_site (&r, 1)->different_bytes, 0, "nothing differs");
  is (r.vlock.state, RL_FREE, "no lock is left");
}

static void
suspicion (void)
{
  start (1 << 20);
  verify (6, false);
  agree (2, VERIFY_BLOCKS);
  agree (3, 8);
  request (1, 3 * BLOCK + 4096); /* a write is under way while the range is compared */
  disagree (1, VERIFY_BLOCKS, 3);
  is (count (RA_DIFFERS), 0, "V1 what differs without the lock proves nothing");
  is (r.vlock.state, RL_BLOCKED, "V2 the lock waits for the write");
  request (2, 3 * BLOCK);
  ok (count (RA_LOCAL) == 0 && r.slots[2].blockers > 0, "V2 a later write waits for the lock");
  complete (1);
  ok (count (RA_DIGEST) == 1 && find (RA_DIGEST)->offset == 3 * BLOCK && find (RA_DIGEST)->length == BLOCK,
      "V2 then the one block is asked for again");
  is (count (RA_DIGEST_REQ), 1, "V2 of the one copy");
  answer (0, 4, 1, 0);
  ok (count (RA_LOCAL) == 0, "the write still waits");
  answer (1, 4, 1, 0);
  is (count (RA_DIFFERS), 0, "V2 equal under the lock: it was the write");
  is (count (RA_LOCAL), 1, "and the later write goes on");
  ok (!r.verify.on && verify_of_site (&r, 1)->different_bytes == 0, "nothing differs");
}

static void
difference (void)
{
  const struct verify_site *x = verify_of_site (&r, 1);

  start (1 << 20);
  verify (6, false);
  disagree (1, VERIFY_BLOCKS, 5);
  disagree (4, 1, 0);
  ok (count (RA_DIFFERS) == 1 && find (RA_DIFFERS)->site == 1 && find (RA_DIFFERS)->offset == 5 * BLOCK
          && find (RA_DIFFERS)->length == BLOCK,
      "V2 different under the lock: range and copy are named");
  agree (2, VERIFY_BLOCKS);
  disagree (3, 8, 7); /* the short last block */
  disagree (5, 1, 0);
  is (find (RA_DIFFERS)->length, SIZE % BLOCK, "the last block is as long as the store");
  ok (!r.verify.on && phase (1) == VP_DONE && phase (2) == VP_DONE, "the run is over");
  ok (x->different_bytes == BLOCK + SIZE % BLOCK && x->n_found == 2, "both are counted");
  is (verify_of_site (&r, 2)->different_bytes, 0, "the other copy is equal");
  ok (count (RA_COPY_LOST) == 0 && r.in_set == 6, "V4 without repair nothing is done");
  verify (2, false);
  answer (0, 6, VERIFY_BLOCKS, 0);
  answer (1, 6, VERIFY_BLOCKS, -5);
  is (r.vlock.state, RL_READING, "what a copy can't read is looked at again");
  for (unsigned k = 0; k < VERIFY_BLOCKS; k++) {
    answer (0, 9 + k, 1, 0);
    answer (1, 9 + k, 1, k < 2 ? -5 : 0);
  }
  ok (x->n_found == 1 && x->found[0].offset == 0 && x->found[0].length == 2 * BLOCK, "and named: neighbours as one");
}

static void
repair (void)
{
  const struct verify_site *x = verify_of_site (&r, 1);

  start (1 << 20);
  verify (6, true);
  disagree (1, VERIFY_BLOCKS, 5);
  disagree (4, 1, 0);
  is (r.sites[1].track.count[TS_DIRTY], 0, "V4 first all is compared");
  agree (2, VERIFY_BLOCKS);
  agree (3, 8);
  is (r.sites[1].track.count[TS_DIRTY], 1, "V4 then what differs is dirty");
  ok (count (RA_COPY_LOST) == 1 && find (RA_COPY_LOST)->site == 1, "V4 and the copy has to leave the set");
  is (count (RA_RESYNC_READ), 0, "V4 nothing is copied before");
  is (phase (1), VP_LEAVING, "leaving");
  is (phase (2), VP_DONE, "the other copy is done");
  step ((struct repl_event){ .kind = RE_RECORD, .in_set = 4, .generation = 8, .seen = r.sites[1].no });
  is (count (RA_RESYNC_READ), 1, "V4 outside the set the resync copies it");
  is (phase (1), VP_FILLING, "filling");
  verify (6, false);
  is (r.counters.illegal, 1, "V6 no other run meanwhile");
  step ((struct repl_event){ .kind = RE_RESYNC_READ, .zero = RZ_DATA, .length = BLOCK });
  step ((struct repl_event){ .kind = RE_ACK, .site = 1, .seq = r.sites[1].seq });
  now += REPL_ENTER_STALL_MS;
  step ((struct repl_event){ .kind = RE_TICK });
  is (r.sites[1].enter, EN_SENT, "R3 it enters");
  step ((struct repl_event){ .kind = RE_ACK, .site = 1, .seq = r.sites[1].seq });
  is (count (RA_COPY_READY), 1, "R3 it is ready");
  step ((struct repl_event){ .kind = RE_RECORD, .in_set = 6, .generation = 8, .seen = r.sites[1].no });
  ok (phase (1) == VP_DONE && x->repaired && !r.verify.on, "and is repaired");
}

/* What is dirty is the resync's business. */
static void
known_to_differ (void)
{
  start (1 << 20);
  verify (2, false);
  track_mark (&r.sites[1].track, 3 * BLOCK, BLOCK);
  disagree (1, VERIFY_BLOCKS, 3);
  ok (count (RA_DIGEST) == 0 && r.vlock.state == RL_FREE,
      "V2 a block that is dirty for the copy is not asked for again");
  start (1 << 20);
  verify (2, false);
  disagree (1, VERIFY_BLOCKS, 3);
  is (r.vlock.state, RL_READING, "V2 one that is clean is");
  track_mark (&r.sites[1].track, 3 * BLOCK, BLOCK);
  disagree (4, 1, 0);
  ok (count (RA_DIFFERS) == 0 && verify_of_site (&r, 1)->different_bytes == 0,
      "V2 nor is one called different that became dirty meanwhile");
}

static void
noted_first (void)
{
  static struct mark mark;
  static uint8_t mark_memory[1 << 16];
  struct mark_block b;

  check (mark_memory_bytes (SIZE, BLOCK, 1 << 20, HOT_MIN_ENTRIES, 3) <= sizeof mark_memory, "memory");
  memset (mark_memory, 0, sizeof mark_memory);
  mark_init (&mark, mark_memory, SIZE, BLOCK, 1 << 20, HOT_MIN_ENTRIES, 3);
  start_with (&mark, 1 << 20);
  verify (2, true);
  disagree (r.verify.slots[0].tag, VERIFY_BLOCKS, 5);
  disagree (r.verify.check.tag, 1, 0);
  for (unsigned i = 0; i < 4 && phase (1) == VP_COMPARING; i++) {
    for (unsigned k = 0; k < VERIFY_SLOTS; k++)
      if (r.verify.slots[k].state == VS_WAITING)
        agree (r.verify.slots[k].tag, r.verify.slots[k].n);
    if (phase (1) == VP_COMPARING) {
      now += 100;
      step ((struct repl_event){ .kind = RE_TICK });
    }
  }
  ok (phase (1) == VP_MARKING && r.sites[1].track.count[TS_DIRTY] == 1 && count (RA_COPY_LOST) == 0,
      "V4 what differs goes to the disk before the copy is asked out of the set");
  for (unsigned i = 0; i < 4 && mark.stage != MS_IDLE; i++) {
    is (phase (1), VP_MARKING, "V4 not before it is there");
    while (mark_next (&mark, &b))
      ;
    step ((struct repl_event){ .kind = RE_MARKED });
  }
  ok (phase (1) == VP_LEAVING && count (RA_COPY_LOST) == 1, "V4 then it is asked");
}

static void
ends (void)
{
  start (1 << 20);
  verify (6, false);
  step ((struct repl_event){ .kind = RE_LINK_DOWN, .site = 1, .reason = "gone" });
  is (phase (1), VP_STOPPED, "V3 its link ends: it is left out");
  ok (strstr (verify_of_site (&r, 1)->reason, "link") != NULL, "with its reason: %s", verify_of_site (&r, 1)->reason);
  is (phase (2), VP_COMPARING, "the other one goes on");
  for (uint64_t tag = 1; tag <= 3; tag++) {
    answer (0, tag, tag < 3 ? VERIFY_BLOCKS : 8, 0);
    answer (2, tag, tag < 3 ? VERIFY_BLOCKS : 8, 0);
  }
  is (phase (2), VP_DONE, "to its end");
  answer (1, 1, VERIFY_BLOCKS, 0);
  is (r.counters.illegal, 0, "an answer that nobody waits for is dropped");

  start (1 << 20);
  request (1, 0);
  step ((struct repl_event){ .kind = RE_LOCAL_DONE, .slot = 1 });
  step ((struct repl_event){ .kind = RE_ACK, .site = 2, .seq = r.sites[2].seq });
  now += 9000;
  verify (6, false);
  now += 1000;
  step ((struct repl_event){ .kind = RE_TICK });
  ok (phase (1) == VP_STOPPED && strstr (verify_of_site (&r, 1)->reason, "about to leave") != NULL,
      "V3 it is silent, and to leave the set: %s", verify_of_site (&r, 1)->reason);
  is (phase (2), VP_COMPARING, "the other one goes on");

  start (1 << 20);
  verify (6, false);
  step ((struct repl_event){ .kind = RE_HOLD, .reason = "switchover" });
  ok (!r.verify.on && phase (1) == VP_STOPPED && phase (2) == VP_STOPPED, "V6 a hold ends it");
  step ((struct repl_event){ .kind = RE_RESUME });
  verify (6, false);
  step ((struct repl_event){ .kind = RE_VERIFY_STOP, .reason = "enough" });
  ok (!r.verify.on && strcmp (verify_of_site (&r, 2)->reason, "enough") == 0, "V6 and a word does");
  verify (6, false);
  step ((struct repl_event){ .kind = RE_RECORD, .in_set = 4, .generation = 8, .seen = 1 });
  is (phase (1), VP_STOPPED, "V3 it leaves the set");
  verify (6, true);
  answer (0, r.verify.slots[0].tag, VERIFY_BLOCKS, -5);
  for (unsigned s = 1; s < 3; s++)
    answer (s, r.verify.slots[0].tag, VERIFY_BLOCKS, 0);

  start (1 << 20);
  verify (6, false);
  answer (1, 1, 3, 0);
  is (phase (1), VP_STOPPED, "another number of digests than was asked for");
  answer (0, 1, 0, -5);
  answer (2, 1, VERIFY_BLOCKS, 0);
  ok (!r.verify.on && phase (2) == VP_STOPPED, "production can't read: the run ends");

  start (1 << 20);
  r.sites[1].digests = false;
  verify (6, false);
  is (phase (1), VP_STOPPED, "V3 a copy of an older release is left out");
}

static void
clients_first (void)
{
  unsigned n;

  start (1 << 20);
  verify (2, false);
  disagree (1, VERIFY_BLOCKS, 3);
  request (1, 3 * BLOCK);
  ok (r.slots[1].blockers > 0, "V5 a write waits for the lock");
  now += VERIFY_LOCK_MS;
  step ((struct repl_event){ .kind = RE_TICK });
  is (count (RA_LOCAL), 1, "V5 but not longer than its bound");
  is (phase (1), VP_COMPARING, "the block is looked at again later");
  complete (1);
  for (n = 0; n < 3 * VERIFY_TRIES && phase (1) == VP_COMPARING; n++) {
    now += VERIFY_LOCK_MS;
    step ((struct repl_event){ .kind = RE_LEASE, .until_ms = UINT64_MAX });
  }
  is (phase (1), VP_STOPPED, "V5 so often at most");

  start (1 << 20);
  request (1, 0);
  verify (6, false);
  is (count (RA_DIGEST), 1, "V5 while clients work, one range at a time");
  now += 10;
  agree (1, VERIFY_BLOCKS);
  is (count (RA_DIGEST), 0, "V5 and a pause after it");
  now += 30;
  step ((struct repl_event){ .kind = RE_TICK });
  is (count (RA_DIGEST), 1, "V5 of the resync's share of the time");

  start (DIRTY_BLOCK_SIZE_MIN);
  r.sites[1].room = WIRE_HEADER_LEN;
  verify (6, false);
  is (count (RA_DIGEST), 0, "no question without room for it");
  step ((struct repl_event){ .kind = RE_ROOM, .site = 1, .room_bytes = 1 << 20 });
  is (count (RA_DIGEST), 3, "then they go");
  now += 10000;
  step ((struct repl_event){ .kind = RE_TICK });
  ok (!r.verify.on && phase (1) == VP_STOPPED, "no answer within the suspend timeout ends it");
}

static void
questions (void)
{
  struct wire_header h = { .type = WIRE_DIGEST_REQ, .offset = SIZE - BLOCK, .length = BLOCK };
  struct wire_digest_req q = { .algorithm = WIRE_DIGEST_SHA256, .block_size = BLOCK };

  ok (verify_request_refusal (&h, &q, SIZE) == NULL, "a question up to the end");
  h.length++;
  ok (verify_request_refusal (&h, &q, SIZE) != NULL, "beyond it");
  h = (struct wire_header) { .length = VERIFY_BLOCKS * BLOCK };
  ok (verify_request_refusal (&h, &q, SIZE) == NULL, "for as many digests as one may");
  h.length++;
  ok (verify_request_refusal (&h, &q, SIZE) != NULL, "for one more");
  h.length = BLOCK;
  q.algorithm = 2;
  ok (verify_request_refusal (&h, &q, SIZE) != NULL, "another algorithm");
  q.algorithm = WIRE_DIGEST_SHA256;
  q.block_size = 0;
  ok (verify_request_refusal (&h, &q, SIZE) != NULL, "blocks of nothing");
  q.block_size = 2 * DIRTY_BLOCK_SIZE_MAX;
  ok (verify_request_refusal (&h, &q, SIZE) != NULL, "blocks too large");
  is (verify_range_bytes (DIRTY_BLOCK_SIZE_MAX), VERIFY_RANGE_MAX, "a range has a largest size");
  is (verify_range_bytes (DIRTY_BLOCK_SIZE_MIN), VERIFY_BLOCKS * DIRTY_BLOCK_SIZE_MIN, "and a largest number of blocks");
  is (verify_memory_bytes (SIZE, BLOCK, 3), 15, "memory: a bit a block and site");
}

/* Site 1's answer to the one question under the lock: it differs, or not. */
static void
confirm (bool different)
{
  const uint64_t tag = r.verify.check.tag;

  answer (0, tag, 1, 0);
  digests[0][0] = different;
  answer (1, tag, 1, 0);
  digests[0][0] = 0;
}

/* Range `tag`, in which site 1's blocks of the bit set differ; then each of them under the lock. */
static void
range_differs (uint64_t tag, unsigned n, uint32_t blocks)
{
  answer (0, tag, n, 0);
  for (unsigned k = 0; k < n; k++)
    digests[k][0] = blocks >> k & 1;
  answer (1, tag, n, 0);
  memset (digests, 0, sizeof digests);
  for (unsigned k = 0; k < n && r.vlock.state == RL_READING; k++)
    confirm (true);
}

static void
named (void)
{
  const struct verify_site *x = verify_of_site (&r, 1);

  start (1 << 20);
  verify (2, false);
  range_differs (2, VERIFY_BLOCKS, 1);
  range_differs (1, VERIFY_BLOCKS, 1u << 15);
  ok (x->n_found == 1 && x->found[0].offset == 15 * BLOCK && x->found[0].length == 2 * BLOCK, "a range grows downwards");
  range_differs (3, 8, 2);
  ok (x->n_found == 2 && x->found[1].offset == 33 * BLOCK && !r.verify.on, "another stands behind it");
  verify (2, false);
  range_differs (r.verify.slots[1].tag, VERIFY_BLOCKS, 1);
  range_differs (r.verify.slots[0].tag, VERIFY_BLOCKS, 0xf004);
  ok (x->n_found == 2 && x->found[0].offset == 2 * BLOCK && x->found[1].offset == 12 * BLOCK
        && x->found[1].length == 5 * BLOCK && x->different_bytes == 6 * BLOCK,
      "what comes between two makes them one; what comes before stands before");
  range_differs (r.verify.slots[2].tag, 8, 0);
  verify (2, false);
  range_differs (r.verify.slots[0].tag, VERIFY_BLOCKS, 0x5555);
  range_differs (r.verify.slots[1].tag, VERIFY_BLOCKS, 0x5555);
  ok (x->n_found == VERIFY_MAX_FOUND && x->different_bytes == 16 * BLOCK, "as many as are named at most");
  range_differs (r.verify.slots[2].tag, 8, 0x54);
  ok (x->n_found == VERIFY_MAX_FOUND && x->different_bytes == 19 * BLOCK, "more are counted, and not named");
  is (count (RA_DIFFERS), 0, "... nor told");
}

static void
under_the_lock (void)
{
  unsigned n;

  /* Who is slow then. */
  for (unsigned slow = 0; slow < 2; slow++) {
    start (1 << 20);
    r.cfg.suspend_timeout_ms = 1000000;
    verify (2, false);
    disagree (1, VERIFY_BLOCKS, 3);
    for (n = 0; n < 3 * VERIFY_TRIES && r.verify.on; n++) {
      if (r.vlock.state == RL_READING)
        answer (slow ? 0 : 1, r.verify.check.tag, 1, 0);
      now += VERIFY_LOCK_MS;
      step ((struct repl_event){ .kind = RE_LEASE, .until_ms = UINT64_MAX });
    }
    ok (phase (1) == VP_STOPPED && n >= VERIFY_TRIES && n <= 2 * VERIFY_TRIES + 1
          && strstr (verify_of_site (&r, 1)->reason, slow ? "it is too slow" : "production's store is too slow") != NULL,
        "V5 slow under the lock, and given up after %u looks: %s", n, verify_of_site (&r, 1)->reason);
    is (r.vlock.state, RL_FREE, "... which nobody holds then");
  }

  start (1 << 20);
  verify (6, false);
  disagree (1, VERIFY_BLOCKS, 3);
  answer (1, r.verify.check.tag, 1, 0);
  answer (0, r.verify.check.tag, 1, -5);
  ok (!r.verify.on && r.vlock.state == RL_FREE && strstr (verify_of_site (&r, 1)->reason, "can't read") != NULL,
      "production can't read it under the lock: the run ends");

  /* What the resync is at is known to differ. */
  start (1 << 20);
  verify (2, false);
  disagree (1, VERIFY_BLOCKS, 3);
  track_mark (&r.sites[1].track, 3 * BLOCK, BLOCK);
  confirm (true);
  is (verify_of_site (&r, 1)->different_bytes, 0, "a block that became dirty meanwhile is no finding");

  start (1 << 20);
  verify (6, false);
  step ((struct repl_event){ .kind = RE_DIGEST, .site = 1, .seq = 1, .length = VERIFY_BLOCKS });
  is (phase (1), VP_STOPPED, "an answer without digests");
  n = r.counters.illegal;
  step ((struct repl_event){ .kind = RE_DIGEST, .site = 3, .seq = 1, .map = digests[0], .length = VERIFY_BLOCKS });
  is (r.counters.illegal, n + 1, "an answer of no site");
  answer (1, 1, VERIFY_BLOCKS, 0);
  is (phase (1), VP_STOPPED, "an answer of who was left out");

  start (1 << 20);
  r.sites[1].map_needed = true;
  verify (6, false);
  ok (phase (1) == VP_STOPPED && phase (2) == VP_COMPARING
        && strstr (verify_of_site (&r, 1)->reason, "made equal first") != NULL,
      "V3 a copy that hasn't said in what it may differ is left out");
  r.guard = true;
  step ((struct repl_event){ .kind = RE_TICK });
  is (phase (2), VP_STOPPED, "V3 so is each while the copies are made equal");
}

static void
words (void)
{
  struct wire_header h = { .type = WIRE_DIGEST_REQ };
  struct wire_digest_req q = { .algorithm = WIRE_DIGEST_SHA256, .block_size = DIRTY_BLOCK_SIZE_MAX };
  struct verify_status st;

  start (1 << 20);
  verify (6, false);
  verify_status (&r, now, &st);
  ok (st.on && !st.locked && st.elapsed_ms == 0 && st.eta_s == UINT64_MAX, "nobody knows how long it takes");
  agree (1, VERIFY_BLOCKS);
  now += 2000;
  step ((struct repl_event){ .kind = RE_TICK });
  verify_status (&r, now + 500, &st);
  ok (st.rate_bytes_s == VERIFY_BLOCKS * BLOCK / 2 && st.elapsed_ms == 2500 && st.eta_s == 3, "a rate, and what is left of it");
  disagree (2, VERIFY_BLOCKS, 0);
  verify_status (&r, now, &st);
  ok (st.locked, "a block is looked at under the lock");
  step ((struct repl_event){ .kind = RE_VERIFY_STOP });
  is_str (verify_of_site (&r, 1)->reason, "stopped", "a word without a reason");
  verify_status (&r, now + 99999, &st);
  ok (!st.on && !st.locked && st.eta_s == 0 && st.elapsed_ms == 2000, "what is over takes no more time");
  step ((struct repl_event){ .kind = RE_VERIFY_STOP, .reason = "again" });
  is_str (verify_of_site (&r, 1)->reason, "stopped", "... nor another reason");
  step ((struct repl_event){ .kind = RE_VERIFY, .in_set = 6, .repair = true });
  ok (r.counters.illegal == 1 && !r.verify.on, "V4 no repair without a place to note what differs");
  is_str (verify_phase_name (VP_FILLING), "repairing", "phases have names");
  is_str (verify_phase_name (99), "phase?", "... all that there are");
  ok (verify_of_site (&r, CRG_MAX_SITES) == verify_of_site (&r, 0), "a ninth site is none");

  ok (verify_request_refusal (&h, &q, SIZE) != NULL, "a question about nothing");
  h.length = BLOCK;
  h.offset = SIZE;
  ok (verify_request_refusal (&h, &q, SIZE) != NULL, "behind the end");
  h.offset = 0;
  h.length = VERIFY_RANGE_MAX + 1;
  ok (verify_request_refusal (&h, &q, 2ull * VERIFY_RANGE_MAX) != NULL, "a range longer than any");
  h.length--;
  ok (verify_request_refusal (&h, &q, 2ull * VERIFY_RANGE_MAX) == NULL, "the longest");
}

/* V4 a copy that is repaired, and what may come between. */
static void
repair_ends (void)
{
  start (1 << 20);
  verify (2, true);
  range_differs (1, VERIFY_BLOCKS, 1u << 5);
  range_differs (2, VERIFY_BLOCKS, 0);
  range_differs (3, 8, 0);
  is (phase (1), VP_LEAVING, "V4 leaving");
  ok (verify_keeps_out (&r, 1) && !verify_keeps_out (&r, 2), "V4 it may not come back before it was outside");
  step ((struct repl_event){ .kind = RE_RECORD, .in_set = 4, .generation = 8, .seen = r.sites[1].no });
  is (phase (1), VP_FILLING, "V4 filling");
  step ((struct repl_event){ .kind = RE_RECORD, .in_set = 6, .generation = 8, .seen = r.sites[1].no });
  is (phase (1), VP_FILLING, "V4 in the set, and a block of it differs: it isn't repaired");
  ok (r.verify.on && !verify_keeps_out (&r, 1), "... nor is it kept out");
  step ((struct repl_event){ .kind = RE_LINK_DOWN, .site = 1, .reason = "gone" });
  ok (phase (1) == VP_STOPPED && !r.verify.on && strstr (verify_of_site (&r, 1)->reason, "noted as dirty") != NULL,
      "V4 its link ends: what differs stays noted");
}

int
main (void)
{
  named ();
  under_the_lock ();
  words ();
  repair_ends ();
  equal_copies ();
  suspicion ();
  difference ();
  repair ();
  known_to_differ ();
  noted_first ();
  ends ();
  clients_first ();
  questions ();
  return tap_done ();
}
