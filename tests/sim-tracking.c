/* SPDX-License-Identifier: BSD-3-Clause */
/* What tracking costs, in simulated time: production's core and a copy's core with their maps, stores
 * whose flush takes 1 ms, and a client with a fixed number of requests in flight, as
 * mirror-tracking-cost does it with real processes.  Time is simulated, so the figures are the same on
 * every machine and under every load: what is measured is how often a write has to wait for a flush.
 *
 * At every step: no side writes to a region that its own disk does not have marked; no mark leaves a disk
 * while a write of its region is not stable on both; no disk has more marks than the bound.
 *
 * sim-tracking [DEPTH]
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "plugin/copy_private.h"
#include "plugin/repl_private.h"
#include "tests/sim/calendar.h"
#include "tests/tap.h"

#define MIB ((uint64_t) 1 << 20)
enum {
  WRITE_US = 10,   /* into the page cache */
  FLUSH_US = 1000,
  NET_US = 30,     /* one way */
  MARK_CPU_US = 15, /* two blocks sealed and written, at each side */
  REGION = MIB,
  MAX_REGIONS = 4096,
  EVENTS = 65536,
  LOG_MAX = 8192,
};

enum ev_kind { E_REQUEST = 1, E_LOCAL, E_MARKED, E_FORTH, E_BACK, E_COPYOP, E_COPYMARKED, E_TICK };
enum side { PROD, COPY };

struct ev {
  uint64_t at, order;
  uint8_t kind;
  unsigned id;
  struct wire_header h;
};

/* One store as its medium is. */
struct disk {
  bool marked[MAX_REGIONS];
  unsigned n_marked, most;
  uint64_t written_us[MAX_REGIONS]; /* the last write of the region ended then */
  unsigned writers[MAX_REGIONS];
  uint64_t stable_us;               /* all that ended before is stable */
  uint64_t flushes, map_writes, batches;
  uint64_t new_index[MARK_MAX_HOT]; /* on its way */
  uint8_t new_map[MARK_MAX_HOT][META_BLOCK_PAYLOAD];
  unsigned n_new;
  uint64_t op_began[COPY_MAX_OPS + REPL_SLOTS + 3];
};

struct load {
  const char *name;
  bool sequential, tracking;
  uint64_t size, length, cpu_us, run_us;
  unsigned bound, depth, most_flushes;
  double least; /* of the throughput without tracking */
};

static struct {
  struct load load;
  struct ev *heap;
  unsigned n_heap;
  uint64_t now, order, cpu_free, rng, next;
  struct repl r;
  struct copy c;
  struct repl_actions racts;
  struct copy_actions cacts;
  struct mark pm, cm;
  struct disk disk[2];
  uint64_t offset[REPL_MAX_SLOTS];
  uint64_t done, waited_us, began[REPL_MAX_SLOTS];
  bool prod_more, copy_more;
  uint64_t conn_up;
} w;

static uint64_t
rnd (uint64_t n)
{
  w.rng ^= w.rng << 13, w.rng ^= w.rng >> 7, w.rng ^= w.rng << 17;
  return w.rng % n;
}

/* Nothing takes the same time twice: else all would march in step. */
static uint64_t
about (uint64_t us)
{
  return us + rnd (us / 4 + 1);
}

/* --- the calendar ---------------------------------------------------------------------------- */

CALENDAR (ev)

static struct ev *
after (uint64_t us, enum ev_kind kind, unsigned id)
{
  struct ev e = { .at = w.now + us, .order = ++w.order, .kind = (uint8_t) kind, .id = id };

  if (w.n_heap == EVENTS)
    abort ();
  return calendar_add (w.heap, &w.n_heap, e);
}

/* --- stores ---------------------------------------------------------------------------------- */

static void
write_begins (enum side side, uint64_t offset, uint64_t length)
{
  struct disk *d = &w.disk[side];

  for (uint64_t r = offset / REGION; r <= (offset + length - 1) / REGION; r++) {
    check (d->marked[r] || !w.load.tracking,
           "%s writes to a region that its disk has not marked", side ? "the copy" : "production");
    d->writers[r]++;
  }
}

static void
write_ends (enum side side, uint64_t offset, uint64_t length)
{
  for (uint64_t r = offset / REGION; r <= (offset + length - 1) / REGION; r++) {
    w.disk[side].writers[r]--;
    w.disk[side].written_us[r] = w.now;
  }
}

static bool
is_stable_on (enum side side, uint64_t r)
{
  const struct disk *d = &w.disk[side];

  return d->writers[r] == 0 && d->written_us[r] <= d->stable_us;
}

static void
marks_go (enum side side, struct mark *m)
{
  struct disk *d = &w.disk[side];
  struct mark_block b;

  d->n_new = 0;
  d->batches++;
  while (mark_next (m, &b)) {
    d->map_writes++;
    if (b.kind != META_HOT || b.copy != 0)
      continue;
    d->new_index[d->n_new] = b.index;
    memcpy (d->new_map[d->n_new++], b.payload, META_BLOCK_PAYLOAD);
  }
  w.cpu_free = (w.cpu_free > w.now ? w.cpu_free : w.now) + MARK_CPU_US;
  after (about (FLUSH_US), side == PROD ? E_MARKED : E_COPYMARKED, 0);
}

static void
marks_stand (enum side side)
{
  struct disk *d = &w.disk[side];

  for (unsigned k = 0; k < d->n_new; k++)
    for (uint64_t i = 0; i < META_BLOCK_BITS; i++) {
      const uint64_t r = d->new_index[k] * META_BLOCK_BITS + i;
      const bool on = d->new_map[k][i / 8] >> (i % 8) & 1;

      if (r >= w.load.size / REGION)
        break;
      if (d->marked[r] == on)
        continue;
      d->marked[r] = on;
      d->n_marked += on ? 1 : UINT32_MAX;
      /* A later write may be at the other side already, which has marked it for itself. */
      check (on || (is_stable_on (side, r) && (is_stable_on (!side, r) || w.disk[!side].marked[r])),
             "the mark of a region leaves a disk before its write is stable on both");
    }
  if (d->n_marked > d->most)
    d->most = d->n_marked;
}

/* --- the cores ------------------------------------------------------------------------------- */

static void feed (struct repl_event *ev);

static void
send_forth (const struct wire_header *h)
{
  struct ev *e = after (NET_US, E_FORTH, 0);

  e->h = *h;
  e->h.tenure = 1;
}

static void
send_back (uint8_t type, uint64_t seq)
{
  after (NET_US, E_BACK, 0)->h = (struct wire_header) { .type = type, .seq = seq };
}

static void
next_request (unsigned slot)
{
  const uint64_t start = w.cpu_free > w.now ? w.cpu_free : w.now;

  w.cpu_free = start + w.load.cpu_us * 3 / 4 + rnd (w.load.cpu_us / 2);
  w.began[slot] = w.now;
  after (w.cpu_free - w.now, E_REQUEST, slot);
}

static void
prod_action (const struct repl_action *a)
{
  switch ((enum repl_action_kind) a->kind) {
  case RA_LOCAL:
    w.disk[PROD].op_began[a->slot] = w.now;
    if (a->op == RO_FLUSH)
      w.disk[PROD].flushes++;
    else
      write_begins (PROD, a->offset, a->length);
    after (about (a->op == RO_FLUSH ? FLUSH_US : WRITE_US), E_LOCAL, a->slot);
    break;
  case RA_SEND:
  case RA_STABLE:
    send_forth (&a->frame);
    break;
  case RA_COMPLETE:
    check (a->error == 0, "a write fails: %d", a->error);
    w.done++;
    w.waited_us += w.now - w.began[a->slot];
    next_request (a->slot);
    break;
  case RA_MARK:
    marks_go (PROD, &w.pm);
    break;
  case RA_COPY_LOST:
  case RA_CLOSE_LINK:
    check (false, "the link breaks: %s", a->reason);
    break;
  default:
    break;
  }
}

static void
feed (struct repl_event *ev)
{
  struct repl_event more = { .kind = RE_MORE, .now_ms = 1000 + w.now / 1000 };

  ev->now_ms = 1000 + w.now / 1000;
  repl_step (&w.r, ev, &w.racts);
  for (;;) {
    for (unsigned i = 0; i < w.racts.n; i++)
      prod_action (&w.racts.a[i]);
    if (!w.racts.more)
      break;
    repl_step (&w.r, &more, &w.racts);
  }
}

static void
copy_action (const struct copy_action *a)
{
  switch ((enum copy_action_kind) a->kind) {
  case CA_SUBMIT:
    w.disk[COPY].op_began[a->op] = w.now;
    if (a->frame.type == WIRE_FLUSH)
      w.disk[COPY].flushes++;
    else
      write_begins (COPY, a->frame.offset, a->frame.length);
    after (about (a->frame.type == WIRE_FLUSH ? FLUSH_US : WRITE_US), E_COPYOP, a->op)->h = a->frame;
    break;
  case CA_SYNC:
    w.disk[COPY].op_began[a->op] = w.now;
    w.disk[COPY].flushes++;
    after (about (FLUSH_US), E_COPYOP, a->op)->h = (struct wire_header) { .type = WIRE_FLUSH };
    break;
  case CA_MARK:
    marks_go (COPY, &w.cm);
    break;
  case CA_STABLE:
    send_back (WIRE_STABLE, a->seq);
    break;
  case CA_ACK:
    send_back (WIRE_ACK, a->seq);
    break;
  case CA_ERROR:
  case CA_REFUSE:
    check (false, "the copy refuses: %s", a->reason);
    break;
  default:
    break;
  }
}

static void
copy_feed (struct copy_event *ev)
{
  struct copy_event poll = { .kind = CE_POLL };

  copy_step (&w.c, ev, &w.cacts);
  for (unsigned polled = 0;;) {
    const bool more = w.cacts.more;
    for (unsigned i = 0; i < w.cacts.n; i++)
      copy_action (&w.cacts.a[i]);
    if (!more && polled++)
      break;
    copy_step (&w.c, &poll, &w.cacts);
  }
}

static void
request (unsigned slot)
{
  const struct load *l = &w.load;
  struct repl_event ev = { .kind = RE_REQUEST, .op = RO_WRITE, .slot = (uint16_t) slot, .length = l->length };

  if (l->sequential) {
    ev.offset = w.next;
    w.next = (w.next + l->length) % l->size;
  }
  else
    ev.offset = rnd (l->size / l->length) * l->length;
  w.offset[slot] = ev.offset;
  feed (&ev);
}

static void
handle (const struct ev *e)
{
  struct repl_event re = { .kind = RE_TICK };
  struct copy_event ce = { .kind = CE_POLL, .op = (uint16_t) e->id };

  switch ((enum ev_kind) e->kind) {
  case E_REQUEST:
    request (e->id);
    break;
  case E_LOCAL:
    if (e->id >= REPL_MAX_SLOTS)
      w.disk[PROD].stable_us = w.disk[PROD].op_began[e->id];
    else
      write_ends (PROD, w.offset[e->id], w.load.length);
    re.kind = RE_LOCAL_DONE;
    re.slot = (uint16_t) e->id;
    feed (&re);
    break;
  case E_MARKED:
    marks_stand (PROD);
    re.kind = RE_MARKED;
    feed (&re);
    break;
  case E_FORTH:
    ce.kind = e->h.type == WIRE_STABLE ? CE_STABLE : CE_FRAME;
    ce.conn = 1;
    ce.frame = e->h;
    copy_feed (&ce);
    break;
  case E_BACK:
    re.kind = e->h.type == WIRE_STABLE ? RE_STABLE : RE_ACK;
    re.site = 1;
    re.seq = e->h.seq;
    feed (&re);
    break;
  case E_COPYOP:
    if (e->h.type == WIRE_FLUSH)
      w.disk[COPY].stable_us = w.disk[COPY].op_began[e->id];
    else
      write_ends (COPY, e->h.offset, e->h.length);
    ce.kind = CE_DONE;
    copy_feed (&ce);
    break;
  case E_COPYMARKED:
    marks_stand (COPY);
    ce.kind = CE_DONE;
    ce.op = COPY_OP_MARK;
    copy_feed (&ce);
    break;
  case E_TICK:
    after (REPL_TICK_MS * 1000, E_TICK, 0);
    feed (&re);
    break;
  }
}

struct result {
  double per_s, wait_ms;
  uint64_t flushes[2], map_writes[2], batches[2]; /* for 1,000 writes */
  unsigned most[2];
};

static struct result
run (struct load load)
{
  static void *memory[2], *track;
  struct repl_config cfg = { .size = load.size, .block_size = DIRTY_BLOCK_SIZE, .n_sites = 2, .n_rslots = 1,
                             .share_percent = 30, .in_set = 3, .generation = 1, .suspend_timeout_ms = 10000,
                             .equal = true };
  struct copy_config ccfg = { .site = 1, .size = load.size, .block_size = 512, .dirty_block_size = DIRTY_BLOCK_SIZE,
                              .session = 1, .tenure = 1, .generation = 1, .since = 1, .clean = true,
                              .window_bytes = LINK_WINDOW_BYTES, .window_frames = COPY_MAX_OPS, .node = "n1" };
  struct wire_hello hello = { .proto_min = 1, .proto_max = 1,
                              .features = load.tracking ? WIRE_FEATURE_TRACKING | WIRE_FEATURE_SYNC : 0,
                              .tenure = 1, .generation = 1, .size = load.size, .block_size = 4096,
                              .dirty_block_size = DIRTY_BLOCK_SIZE, .site = 0, .peer_site = 1, .node = "n0" };
  struct result res = { 0 };

  memset (&w, 0, sizeof w);
  w.heap = calloc (EVENTS + 1, sizeof *w.heap);
  w.load = load;
  w.rng = 88172645463325252u;
  track = calloc (1, track_memory_bytes (load.size, DIRTY_BLOCK_SIZE));
  for (unsigned s = 0; s < 2; s++) {
    struct mark *m = s == 0 ? &w.pm : &w.cm;
    const unsigned entries = s == 0 ? load.bound : HOT_MAX_ENTRIES;

    memory[s] = calloc (1, mark_memory_bytes (load.size, DIRTY_BLOCK_SIZE, REGION, entries, 2));
    mark_init (m, memory[s], load.size, DIRTY_BLOCK_SIZE, REGION, entries, 2);
    m->hot.clear_above = load.bound / 2;
  }
  if (load.tracking) {
    cfg.mark = &w.pm;
    ccfg.mark = &w.cm;
  }
  cfg.track_memory[1] = track;
  cfg.track_memory_bytes = track_memory_bytes (load.size, DIRTY_BLOCK_SIZE);
  ok (copy_init (&w.c, &ccfg, 1000) == NULL, "the copy begins");
  ok (repl_init (&w.r, &cfg, 1000) == NULL, "production begins");
  feed (&(struct repl_event) { .kind = RE_LEASE, .until_ms = UINT64_MAX });
  feed (&(struct repl_event) { .kind = RE_MIRROR, .site = 1 });
  copy_feed (&(struct copy_event) { .kind = CE_HELLO, .conn = 1, .hello = &hello, .peer = "n0" });
  feed (&(struct repl_event) { .kind = RE_LINK_UP, .site = 1, .mapped = true, .syncs = true,
                               .window_bytes = LINK_WINDOW_BYTES,
                               .window_frames = LINK_WINDOW_FRAMES, .room_bytes = 1 << 30 });
  for (unsigned i = 0; i < load.depth; i++)
    next_request (i);
  after (REPL_TICK_MS * 1000, E_TICK, 0);
  while (w.now < load.run_us && tap_failed < 10) {
    struct ev e = calendar_take (w.heap, &w.n_heap);
    w.now = e.at;
    w.r.sites[1].room = 1 << 30;
    handle (&e);
  }
  res.per_s = (double) w.done * 1e6 / (double) load.run_us;
  res.wait_ms = w.done ? (double) w.waited_us / (double) w.done / 1000 : 0;
  for (unsigned s = 0; s < 2; s++) {
    res.flushes[s] = w.disk[s].flushes * 1000 / (w.done + 1);
    res.map_writes[s] = w.disk[s].map_writes * 1000 / (w.done + 1);
    res.batches[s] = w.disk[s].batches * 1000 / (w.done + 1);
    res.most[s] = w.disk[s].most;
    free (memory[s]);
  }
  printf ("# %s, depth %u, tracking %s: %.0f a second, %.2f ms each; for 1,000: production %llu flushes %llu batches, copy %llu "
          "flushes %llu batches; %llu waits; most marks %u %u of %u\n",
          load.name, load.depth, load.tracking ? "on" : "off", res.per_s, res.wait_ms, (unsigned long long) res.flushes[0],
          (unsigned long long) res.batches[0], (unsigned long long) res.flushes[1], (unsigned long long) res.batches[1],
          (unsigned long long) w.pm.hot.waits, res.most[0], res.most[1], load.bound);
  free (track);
  free (w.heap);
  return res;
}

int
main (int argc, char **argv)
{
  struct load random = { .name = "random 4k", .size = 1024 * MIB, .length = 4096, .cpu_us = 63,
                         .run_us = 3000000, .bound = 132, .depth = 32, .most_flushes = 180, .least = 0.80 };
  struct load seq = { .name = "sequential 64k", .sequential = true, .size = 1024 * MIB, .length = 65536, .cpu_us = 112,
                      .run_us = 3000000, .bound = 132, .depth = 32, .most_flushes = 32, .least = 0.98 };

  /* The least store that the aim speaks of, 4 times the bound, and enough in flight for a client that wants
   * throughput: a wait for a mark is hidden, and what is left is what the marks themselves cost. */
  struct load deep = { .name = "random 4k, deep", .size = 4000 * MIB, .length = 4096, .cpu_us = 63,
                       .run_us = 1000000, .bound = 1000, .depth = 128, .most_flushes = 130, .least = 0.95 };
  struct load wide = { .name = "sequential 64k, wide", .sequential = true, .size = 4000 * MIB, .length = 65536,
                       .cpu_us = 112, .run_us = 1000000, .bound = 1000, .depth = 128, .most_flushes = 9,
                       .least = 0.99 };

  if (argc > 1)
    random.depth = seq.depth = deep.depth = wide.depth = (unsigned) atoi (argv[1]);
  struct load *loads[] = { &random, &seq, &deep, &wide };
  for (unsigned i = 0; i < sizeof loads / sizeof *loads; i++) {
    struct result off, on;

    off = run (*loads[i]);
    loads[i]->tracking = true;
    on = run (*loads[i]);
    ok (on.per_s >= loads[i]->least * off.per_s, "%s: %.3f of the throughput without tracking, at least %.2f", loads[i]->name,
        on.per_s / off.per_s, loads[i]->least);
    for (unsigned side = PROD; side <= COPY; side++)
      ok (on.map_writes[side] + on.flushes[side] <= loads[i]->most_flushes,
          "%s: %llu flushed writes of the map and %llu flushes for 1,000 writes, at most %u", side ? "copy" : "production",
          (unsigned long long) on.map_writes[side], (unsigned long long) on.flushes[side], loads[i]->most_flushes);
    is (off.batches[PROD] + off.batches[COPY], 0, "without tracking nothing is marked");
    ok (on.batches[PROD] > 0 && on.batches[COPY] > 0, "with it something is");
    ok (on.most[PROD] <= loads[i]->bound, "production never has more marks than the bound: %u of %u", on.most[PROD], loads[i]->bound);
  }
  return tap_done ();
}
