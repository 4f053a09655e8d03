/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The edges of the data path's cores: what a replication core refuses to begin with, what it says of
 * itself, ranges that touch nothing, maps of more blocks than a batch takes, of damaged blocks and of whole
 * ones, and sizes beyond which a region grows.
 */
#include <string.h>

#include "plugin/repl_private.h"
#include "tests/tap.h"

#define BLOCK 65536u
#define SIZE  (UINT64_C (1024) * BLOCK)
#define MIB   (UINT64_C (1) << 20)
#define TIB   (UINT64_C (1) << 40)

static struct repl r;
static struct repl_actions out;
static struct repl_config cfg;
static uint8_t maps[3][4096];

static void
configure (void)
{
  cfg = (struct repl_config){ .size = SIZE, .block_size = BLOCK, .n_sites = 3, .n_rslots = 4, .share_percent = 25,
                              .in_set = 6, .generation = 7, .suspend_timeout_ms = 10000,
                              .track_memory_bytes = sizeof maps[0] };
  for (unsigned s = 0; s < 3; s++)
    cfg.track_memory[s] = maps[s];
}

static void
refused (void)
{
  static struct mark mark;
  const char *why;

#define REFUSED(what, text, ...)                                                               \
  do {                                                                                         \
    configure ();                                                                              \
    __VA_ARGS__;                                                                               \
    why = repl_init (&r, &cfg, 5000);                                                          \
    if (!ok (why != NULL && strstr (why, (text)) != NULL, "refused: %s: %s", (what), (text))) \
      printf ("# got: %s\n", why ? why : "(accepted)");                                        \
  } while (0)
  REFUSED ("no site", "out of range", cfg.n_sites = 0);
  REFUSED ("nine sites", "out of range", cfg.n_sites = CRG_MAX_SITES + 1);
  REFUSED ("its own is none of them", "out of range", cfg.site = 3);
  REFUSED ("blocks too small", "no power of two", cfg.block_size = DIRTY_BLOCK_SIZE_MIN / 2);
  REFUSED ("blocks too large", "no power of two", cfg.block_size = DIRTY_BLOCK_SIZE_MAX * 2);
  REFUSED ("odd blocks", "no power of two", cfg.block_size = 3 * DIRTY_BLOCK_SIZE_MIN);
  REFUSED ("no data", "size of the data", cfg.size = 0);
  REFUSED ("too much of it", "size of the data", cfg.size = STORE_MAX_BYTES + 1);
  REFUSED ("no buffer", "resync buffers", cfg.n_rslots = 0);
  REFUSED ("too many", "resync buffers", cfg.n_rslots = REPL_MAX_RSLOTS + 1);
  REFUSED ("no share", "share of the resync", cfg.share_percent = 0);
  REFUSED ("more than all", "share of the resync", cfg.share_percent = 101);
  REFUSED ("no memory", "memory for tracking", cfg.track_memory[2] = NULL);
  REFUSED ("too little of it", "memory for tracking", cfg.track_memory_bytes = 100);
  mark.block_size = BLOCK / 2;
  mark.data_bytes = SIZE;
  REFUSED ("maps of other blocks", "maps are for another", cfg.mark = &mark);
  mark.block_size = BLOCK;
  mark.data_bytes = SIZE - BLOCK;
  REFUSED ("maps of another store", "maps are for another", cfg.mark = &mark);
  configure ();
  cfg.track_memory[0] = NULL; /* nobody tracks the own site */
  ok (repl_init (&r, &cfg, 5000) == NULL, "none of it: accepted");
}

static void
step (struct repl_event ev, uint64_t now)
{
  ev.now_ms = now;
  repl_step (&r, &ev, &out);
}

static void
said (void)
{
  static char endless[2 * CRG_REASON_MAX];
  const char *why;

  configure ();
  ok (repl_init (&r, &cfg, 0) == NULL, "begins at the time 0");
  ok (repl_is_held (&r, &why) && strstr (why, "lease has expired") != NULL, "without a lease it is held");
  step ((struct repl_event){ .kind = RE_LEASE, .until_ms = UINT64_MAX }, 0);
  why = "x";
  ok (!repl_is_held (&r, &why) && why[0] == '\0' && !repl_is_held (&r, NULL), "with one it is not");
  is (repl_oldest_pending_ms (&r, 1), 0, "nothing is waited for");
  step ((struct repl_event){ .kind = RE_LINK_UP, .site = 1, .window_bytes = LINK_WINDOW_BYTES,
                             .window_frames = LINK_WINDOW_FRAMES, .room_bytes = 1 << 20 }, 0);
  step ((struct repl_event){ .kind = RE_REQUEST, .slot = 1, .op = RO_WRITE, .length = 4096 }, 0);
  is (repl_oldest_pending_ms (&r, 1), 1, "a write of the time 0 is waited for all the same");
  memset (endless, 'x', sizeof endless - 1);
  step ((struct repl_event){ .kind = RE_HOLD, .reason = endless }, 0);
  ok (repl_is_held (&r, &why) && strlen (why) == CRG_REASON_MAX, "a reason has a longest length");
  ok (repl_is_held (&r, NULL), "... and may be left unasked");
  step ((struct repl_event){ .kind = RE_STORE_FAILED, .reason = "no disk" }, 0);
  ok (repl_is_held (&r, &why) && strcmp (why, "no disk") == 0, "F4: a failed store comes first");
  is_str (repl_site_state_name (SITE_DETACHED), "detached", "states have names");
  is_str (repl_site_state_name (99), "state?", "... all that there are");
  ok (repl_track (&r, 1) != NULL && repl_track (&r, 0) == NULL && repl_track (&r, 3) == NULL, "the other sites are tracked");
}

static void
up (unsigned site, uint32_t bytes, uint32_t frames)
{
  step ((struct repl_event){ .kind = RE_LINK_UP, .site = (uint8_t) site, .window_bytes = bytes, .window_frames = frames,
                             .room_bytes = 1 << 30, .digests = true, .syncs = true }, 5000);
}

static void
begin (uint32_t in_set)
{
  configure ();
  cfg.in_set = in_set;
  if (repl_init (&r, &cfg, 5000) != NULL)
    abort ();
  step ((struct repl_event){ .kind = RE_LEASE, .until_ms = UINT64_MAX }, 5000);
}

static const char *
reason_of (unsigned site)
{
  static struct repl_site_status st;

  repl_site_status (&r, site, 5000, &st);
  return st.reason;
}

/* A reason, or a default one where none is given. */
static void
links (void)
{
  static const char *const given[] = { NULL, "", "the cable" };

  for (unsigned i = 0; i < 3; i++) {
    begin (4);
    up (1, LINK_WINDOW_BYTES, LINK_WINDOW_FRAMES);
    step ((struct repl_event){ .kind = RE_LINK_DOWN, .site = 1, .reason = given[i] }, 5000);
    is_str (reason_of (1), i == 2 ? "the cable" : "the link is down", "the link ends");
    step ((struct repl_event){ .kind = RE_LINK_DOWN, .site = 1, .reason = i == 2 ? "no route" : given[i] }, 5000);
    is_str (reason_of (1), i == 2 ? "no route" : "the link is down", "... an attempt has its own");
    up (1, LINK_WINDOW_BYTES, LINK_WINDOW_FRAMES);
    step ((struct repl_event){ .kind = RE_UNMIRROR, .site = 1, .reason = given[i] }, 5000);
    is_str (reason_of (1), i == 2 ? "the cable" : "nobody hosts this copy", "nobody hosts it");
    up (2, LINK_WINDOW_BYTES, LINK_WINDOW_FRAMES);
    step ((struct repl_event){ .kind = RE_COPY_ERROR, .site = 2, .reason = given[i] }, 5000);
    ok (strstr (reason_of (2), i == 2 ? "the cable" : "the copy's store failed") != NULL, "F4: its store fails: %s", reason_of (2));
    step ((struct repl_event){ .kind = RE_LINK_DOWN, .site = 2, .reason = "late" }, 5000);
    ok (strstr (reason_of (2), "late") == NULL, "... which stays the reason");
    step ((struct repl_event){ .kind = RE_COPY_ERROR, .site = 2, .reason = "again" }, 5000);
    ok (strstr (reason_of (2), "again") == NULL, "... whatever comes without a link");
  }

  begin (0);
  up (1, LINK_WINDOW_BYTES, 7);
  ok (!r.sites[1].link_up && strstr (reason_of (1), "too small") != NULL, "a window of too few frames");
  up (1, 1000, LINK_WINDOW_FRAMES);
  ok (!r.sites[1].link_up && strstr (reason_of (1), "too small") != NULL, "... or bytes");
  up (1, LINK_WINDOW_BYTES, LINK_WINDOW_FRAMES);
  ok (r.sites[1].link_up, "one that is large enough");
  is (repl_counters (&r)->illegal, 0, "none of it is illegal");
}

static unsigned
reads (void)
{
  unsigned n = 0;

  for (unsigned i = 0; i < out.n; i++)
    n += out.a[i].kind == RA_RESYNC_READ || out.a[i].kind == RA_DIGEST_REQ;
  return n;
}

/* No copy is filled from a store that failed, nor over a link that isn't there. */
static void
filling (void)
{
  begin (0);
  up (1, LINK_WINDOW_BYTES, LINK_WINDOW_FRAMES);
  ok (reads () > 0, "a copy outside the set is filled");
  step ((struct repl_event){ .kind = RE_STORE_FAILED, .reason = "no disk" }, 6000);
  step ((struct repl_event){ .kind = RE_RESYNC_READ, .zero = RZ_DATA, .length = BLOCK }, 6000);
  step ((struct repl_event){ .kind = RE_TICK }, 7000);
  is (reads (), 0, "F4: not from a store that failed");
  begin (0);
  up (1, LINK_WINDOW_BYTES, LINK_WINDOW_FRAMES);
  step ((struct repl_event){ .kind = RE_LINK_DOWN, .site = 1 }, 6000);
  step ((struct repl_event){ .kind = RE_TICK }, 7000);
  is (reads (), 0, "not over a link that is gone");
}

/* What a copy says to differ: of blocks that there are, and only if it may. */
static void
copy_maps (void)
{
  static struct mark m;
  static uint8_t payload[META_BLOCK_PAYLOAD];
  void *memory = calloc (1, mark_memory_bytes (SIZE, BLOCK, HOT_REGION_SIZE_MIN, HOT_MIN_ENTRIES, 3));
  struct repl_event ev = { .kind = RE_MAP, .site = 1, .map = payload };

  if (!memory)
    abort ();
  memset (payload, 0xff, sizeof payload);
  mark_init (&m, memory, SIZE, BLOCK, HOT_REGION_SIZE_MIN, HOT_MIN_ENTRIES, 3);
  begin (4);
  step (ev, 5000);
  is (track_open (&r.sites[1].track), 0, "a production without maps of its own doesn't listen");
  configure ();
  cfg.in_set = 4;
  cfg.mark = &m;
  cfg.in_set = 6;
  cfg.equal = true;
  ok (repl_init (&r, &cfg, 5000) == NULL && !r.sites[1].map_needed, "one with maps doesn't ask an equal copy of the set");
  step ((struct repl_event){ .kind = RE_DETACHED, .site = 1, .reason = "a fork" }, 5000);
  ok (r.sites[1].map_needed, "R6: ... but when it was detached, as a fork has marks of its own");
  cfg.in_set = 4;
  cfg.equal = false;
  ok (repl_init (&r, &cfg, 5000) == NULL && r.sites[1].map_needed, "... nor is one outside the set taken for equal");
  ev.offset = BLOCK / 2;
  step (ev, 5000);
  ev.offset = SIZE;
  step (ev, 5000);
  is (track_open (&r.sites[1].track), 0, "what isn't a block, or behind the end, is none");
  ev.offset = 1000 * (uint64_t) BLOCK;
  payload[0] = 0;
  step (ev, 5000);
  is (r.sites[1].track.count[TS_DOUBT], 16, "of the blocks from there those of which it says so");
  ev.map = NULL;
  ev.offset = 0;
  step (ev, 5000);
  is (r.sites[1].track.count[TS_DOUBT], 1024, "a piece that it can't read: all");
  free (memory);
}

static void
tracks (void)
{
  static struct track t;
  static uint8_t map[4096];
  struct track_range run;

  memset (map, 0xff, sizeof map);
  track_init (&t, map, SIZE - 100, BLOCK, NULL, false);
  is (t.count[TS_CLEAN], 1024, "memory that isn't zeroed is cleaned");
  is (track_get (&t, 5), TS_CLEAN, "... each block of it");
  track_mark (&t, 5 * BLOCK, 0);
  track_write_sent (&t, 5 * BLOCK, 0);
  is (t.count[TS_CLEAN], 1024, "what touches nothing changes nothing");
  ok (!track_next (&t, 8, 8, &run), "nothing is dirty");
  track_mark (&t, 5 * BLOCK, 1);
  ok (track_next (&t, 8, 8, &run) && run.first == 5 && run.n == 1, "then the block is");
  track_flush_done (&t);
  is (track_get (&t, 5), TS_DIRTY, "a flush that nobody asked for cleans nothing");
}

static void
regions (void)
{
  static struct hot h;
  const uint64_t size = 2 * (uint64_t) META_BLOCK_BITS * HOT_REGION_SIZE_MIN;
  const size_t bytes = hot_memory_bytes (size, HOT_REGION_SIZE_MIN, HOT_MIN_ENTRIES);
  void *memory = calloc (1, bytes);
  const uint64_t second = (uint64_t) META_BLOCK_BITS * HOT_REGION_SIZE_MIN;
  uint64_t blocks[4];
  bool full;

  is (hot_region_size (MIB, MIB), HOT_REGION_SIZE_MIN, "a small store: small regions");
  is (hot_region_size ((HOT_MAX_REGIONS + UINT64_C (1)) * HOT_REGION_SIZE_MIN, MIB), 2 * HOT_REGION_SIZE_MIN,
      "more regions than a map has: larger ones");
  is (hot_region_size (TIB, ((uint64_t) HOT_MAX_ENTRIES + 1) * HOT_REGION_SIZE_MIN), 2 * HOT_REGION_SIZE_MIN,
      "more hot than there are entries: larger ones");
  is (hot_region_size (TIB, UINT64_MAX), HOT_REGION_SIZE_MAX, "... up to a largest");

  if (!memory)
    abort ();
  hot_init (&h, memory, size, HOT_REGION_SIZE_MIN, HOT_MIN_ENTRIES);
  hot_found (&h, h.n_bits);
  is (hot_next (&h, 0), h.n_bits, "a mark behind the end is none");
  ok (!hot_is_marked (&h, h.n_regions) && !hot_is_marked (&h, 0), "nothing is marked, nor is what isn't there");
  ok (!hot_ready (&h, 0, 4096), "what nobody asked for isn't ready");

  /* A batch takes as many blocks of the map as it may; what is in others waits. */
  ok (!hot_begin (&h, 0, 4096, &full) && !hot_begin (&h, second, 4096, &full) && !hot_begin (&h, MIB, 4096, &full),
      "three writes want marks, in two blocks of the map");
  is (hot_batch (&h, blocks, 1, false), 1, "a batch of one block");
  ok (blocks[0] == 0 && !hot_wants_batch (&h, false), "... and no other meanwhile");
  hot_batch_done (&h, true);
  ok (hot_ready (&h, 0, 4096) && hot_ready (&h, MIB, 4096) && !hot_ready (&h, second, 4096), "those in it are marked");
  is (hot_batch (&h, blocks, 4, false), 1, "the other block goes with the next");
  is (blocks[0], 1, "... it is the second");
  hot_batch_done (&h, true);
  ok (hot_ready (&h, second, 4096), "then its write is ready");

  /* What waits for a flush only. */
  is (hot_flushable (&h), 0, "nobody has ended");
  hot_end (&h, 0, 4096, h.cycle);
  hot_end (&h, second, 4096, h.cycle);
  is (hot_flushable (&h), 2, "two have, and wait for a flush");
  hot_stable (&h, hot_flush_begin (&h));
  is (hot_flushable (&h), 0, "which is confirmed");
  is (hot_clear (&h, true), 2, "two marks go");
  ok (hot_wants_batch (&h, true) && !hot_wants_batch (&h, false), "... when there is time");
  is (hot_batch (&h, blocks, 1, true), 1, "a batch of clearings takes as many blocks as it may");
  hot_batch_done (&h, true);
  is (hot_batch (&h, blocks, 4, true), 1, "... and the others with the next");
  hot_batch_done (&h, true);
  is (hot_batch (&h, blocks, 4, true), 0, "... then nothing is left");
  free (memory);
}

static void
marks (void)
{
  static struct mark m;
  static uint8_t payload[META_BLOCK_PAYLOAD];
  const uint64_t size = (META_BLOCK_BITS + 20) * (uint64_t) BLOCK;
  const uint32_t region = HOT_REGION_SIZE_MIN;
  void *memory = calloc (1, mark_memory_bytes (size, BLOCK, region, HOT_MIN_ENTRIES, 2));
  struct mark_block b;

  if (!memory)
    abort ();
  mark_init (&m, memory, size, BLOCK, region, HOT_MIN_ENTRIES, 2);
  mark_dirty (&m, 1, 5 * BLOCK, 0);
  mark_dirty (&m, 2, 5 * BLOCK, 1);
  is (m.bits[1].n_set, 0, "nothing is dirty: of no bytes, nor of a site without a map");

  /* A damaged block counts as all dirty, and is written anew; a whole one stands. */
  payload[0] = 1;
  payload[META_BLOCK_PAYLOAD - 1] = 0x80;
  mark_load_bits (&m, 1, 0, payload);
  is (m.bits[1].n_set, 2, "the first and the last bit of a block");
  memset (payload, 0, sizeof payload);
  payload[2] = 0xff; /* of 20 bits the last four, and four behind the end */
  mark_load_bits (&m, 1, 1, payload);
  is (m.bits[1].n_set, 6, "of the short last block only what is in it");
  ok (!mark_begin (&m, true), "what was loaded whole isn't written anew");
  mark_load_bits (&m, 1, 1, NULL);
  is (m.bits[1].n_set, 22, "a damaged block: all of it");
  mark_persist (&m);
  ok (mark_begin (&m, false), "a stage");
  ok (!mark_settle (&m) && !mark_clear (&m, true), "... while which no mark is cleared");
  ok (mark_next (&m, &b) && b.kind == META_BITMAP && b.site == 1 && b.index == 1, "... writes the damaged block");
  ok (!mark_next (&m, &b), "... and nothing else");
  mark_done (&m, true);
  memset (payload, 0, sizeof payload);
  mark_load_bits (&m, 1, 2, payload);
  is (m.bits[1].n_set, 22, "a block that the map doesn't have says nothing");

  /* The report of the second block: hot regions count with the blocks they touch, within it. */
  hot_found (&m.hot, META_BLOCK_BITS * (uint64_t) BLOCK / region);
  hot_found (&m.hot, 0);
  is (mark_report (&m, 1, 0, 1, payload), 20, "what is dirty there, or hot");
  bits_fill (&m.bits[1], false);
  is (mark_report (&m, 1, 0, 0, payload), region / BLOCK, "of the first block what is hot alone");
  is (mark_report (&m, 1, 0, 1, payload), region / BLOCK, "of the second too");
  free (memory);
}

int
main (void)
{
  refused ();
  said ();
  links ();
  filling ();
  copy_maps ();
  tracks ();
  regions ();
  marks ();
  return tap_done ();
}
