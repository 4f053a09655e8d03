/* SPDX-License-Identifier: BSD-3-Clause */
/* A seeded world around the replication cores: one production, up to three copies, disks that
 * lose what was not flushed (data and maps), links that end, copies that stop, crash or lose
 * power, takeovers after which the set survives, a group that commits late.  The cores are the
 * very object files of the plugin.
 *
 *   sim-repl [-v] [FIRST_SEED [COUNT]]
 *
 * Every unit of the store holds the stamp of its last write; stamps rise with the order in
 * which writes are granted, so a smaller stamp is always older data.
 *
 * Checked: an answered write is on production and on every copy of the committed set; an
 * answered flush is stable there; where a copy differs from production the block is not clean
 * or a request for it is in flight; wherever a copy of the set and any other differ, the disk of
 * one of the two says so; a read returns only what a failover can't take back; nothing is
 * answered without a lease; a comparison (verify.h) never names a block that is equal, finds each one that was
 * changed behind a copy's back, and repairs it; a copy that was filled once is never filled from the start again; in
 * the end all copies are in the set and equal.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "plugin/copy_private.h"
#include "plugin/repl_private.h"
#include "tests/sim/calendar.h"
#include "tests/tap.h"

#define UNIT      4096u
#define BLOCK     16384u
#define UNITS     301u /* not a whole number of blocks */
#define SIZE      ((uint64_t) UNITS * UNIT)
#define SITES_MAX 4
#define SLOTS     24 /* of the client */
#define EVENTS    8192
#define FRAMES    4096
#define ZERO_BIT  1u /* of a stamp: these bytes read as zeroes */

typedef uint32_t stamp_t;

/* --- random ---------------------------------------------------------------------------------- */

static uint64_t rng;
static uint64_t
rnd (uint64_t n)
{
  rng ^= rng << 13;
  rng ^= rng >> 7;
  rng ^= rng << 17;
  return n ? (rng >> 11) % n : 0;
}
static bool
chance (unsigned percent)
{
  return rnd (100) < percent;
}

/* --- the world ------------------------------------------------------------------------------- */

struct disk {
  stamp_t cur[UNITS];    /* what a read gives */
  stamp_t stable[UNITS]; /* what a loss of power leaves */
};

struct super {
  uint64_t tenure, generation, since;
  bool unusable, empty, filling;
};

/* The maps: one block each.  A block can be damaged (torn by a loss of power). */
struct maps {
  uint8_t hot[2][META_BLOCK_PAYLOAD], bits[SITES_MAX][META_BLOCK_PAYLOAD];
  bool bad_hot[2], bad_bits[SITES_MAX];
};

/* A stage on its way to the disk. */
struct stage {
  unsigned n;
  struct {
    struct mark_block b;
    uint8_t payload[META_BLOCK_PAYLOAD];
  } block[2 + SITES_MAX];
};

struct msg { /* a frame, or what goes back */
  struct wire_header h;
  uint32_t conn;
  uint64_t at;
  uint64_t since, generation; /* ENTER */
  uint32_t in_set;            /* RECORD */
  uint8_t *map;               /* MAP, HELLO_OK; NULL: all */
  uint8_t back;               /* 1 ACK, 2 ERROR, 3 HELLO_OK, 4 REFUSE, 5 STABLE, 6 DIGEST */
  struct wire_hello_ok ok;
  char reason[64];
  stamp_t *data; /* units of the operation */
};

struct fifo {
  unsigned head, n;
  struct msg *m[FRAMES];
};

struct copyop {
  bool used;
  bool super;
  struct wire_header h;
  stamp_t *data;
  stamp_t snapshot[UNITS]; /* FLUSH: what it makes stable at least */
  uint64_t since, generation, tenure;
  bool unusable, filling, flush_data;
  uint16_t op;
};

struct site {
  struct disk disk;
  struct super super;
  struct maps maps;       /* on the disk */
  struct mark mark;       /* of the copy's process */
  uint8_t *mark_memory;
  struct stage *stage;    /* of whoever has the store open, on its way */
  bool was_filled;        /* has been in the set, or production */
  bool kept;              /* this is what it held before its resynchronisation */
  stamp_t before[UNITS];
  unsigned n_data;        /* writes on their way to its disk */
  struct copy core;
  bool process;   /* runs */
  bool stopped;   /* SIGSTOP */
  bool restarted; /* lost power since it was open */
  uint32_t life;  /* of the process */
  bool store_bad; /* next write fails */
  struct msg *bufs[LINK_WINDOW_FRAMES];
  unsigned n_ops;

  uint32_t conn;      /* production's attempt or link; 0 = none */
  bool conn_up;       /* HELLO_OK was fed to production */
  uint64_t conn_ms;   /* when, and to which process, it was opened */
  uint32_t conn_life;
  bool resync_begun;  /* on this connection */
  stamp_t at_enter[UNITS]; /* answered when ENTER was sent */
  uint32_t enter_life;
  bool hosted;        /* the group names a host */
  uint64_t next_try;
  struct fifo fwd, back;
  uint64_t last_fwd, last_back; /* FIFO: not earlier than this */
  uint64_t out_used, out_size;
  unsigned delay;     /* of the link, ms */
  unsigned slow;      /* of its disk, ms */
  bool cut;           /* nothing passes */
};

enum sev_kind { SE_LOCAL = 1, SE_MARK, SE_RREAD, SE_FWD, SE_BACK, SE_DRAIN, SE_COPYOP, SE_TICK, SE_CLIENT,
                SE_CTL, SE_RECORD, SE_COMMIT, SE_READ, SE_CHAOS, SE_HEAL, SE_DIGEST, SE_COPYDIGEST };

struct sev {
  uint64_t at, order;
  uint8_t kind;
  uint8_t site;
  uint16_t slot;
  uint32_t life;
  uint64_t a, b, c;
  void *p;
};

struct req {
  bool used, local_busy;
  uint8_t op;
  uint32_t flags;
  uint64_t offset, length;
  stamp_t stamp;
  uint64_t at;
  bool granted;
  stamp_t flushed[UNITS];   /* FLUSH: answered stamps at its arrival */
  stamp_t seen[UNITS];      /* READ */
};

enum ctl_change { CC_NONE, CC_SHRINK, CC_ENTER };

static struct {
  uint64_t now, order;
  struct sev heap[EVENTS];
  unsigned n_heap;

  struct repl r;
  struct mark mark;     /* production's */
  uint8_t *mark_memory;
  uint32_t region;
  bool track;           /* maps on disk at all */
  bool keeps;           /* copies keep what is coherent before a resynchronisation */
  bool graceful;
  uint8_t *maps[CRG_MAX_SITES];
  bool prod;            /* production runs */
  uint32_t prod_life;
  unsigned prod_site;
  unsigned n_sites;
  struct site site[SITES_MAX];
  struct req req[SLOTS];
  stamp_t rbuf[REPL_MAX_RSLOTS][BLOCK / UNIT];
  stamp_t next_stamp;
  stamp_t answered[UNITS]; /* stamp of the last answered write */
  bool store_error_next;

  /* the group */
  uint32_t in_set;
  uint64_t generation, tenure;
  uint64_t want_no[SITES_MAX], handled_no, seen_no, last_no;
  bool want_out[SITES_MAX], want_in[SITES_MAX];
  char change;
  unsigned change_site;
  uint64_t change_generation;
  bool quorum;
  uint64_t lease, last_record, last_ctl;

  bool chaos, quiesce, holding, drained;
  uint32_t no_quorum_ms;
  bool returns_errors;  /* F4 policy; its store fails now and then */
  uint64_t local_errors;
  uint64_t lacked[SITES_MAX]; /* dirty blocks before this step */
  stamp_t tenure_stamp; /* last one of the production before */
  unsigned busy; /* percent: how eagerly the client works */
  uint64_t answered_ops, failures;
  bool failed_store;
  uint64_t snapshots, entered, lost, takeovers, graceful_ones, partial, powerlosses;
  uint64_t partial_blocks, partial_of, reads_held;

  /* comparisons: at any time, and at the end one of equal copies and one of a damaged copy */
  unsigned stage, agains;
  bool again;
  uint8_t verify_memory[SITES_MAX * UNITS];
  bool damaged;         /* this unit of this copy was changed behind its back */
  unsigned damaged_site, damaged_unit;
  bool found;           /* ... and was named */
  uint64_t compared, found_total, repaired, stopped;
} w;

static bool verbose;
static uint64_t seed;
static bool broken;
static char broken_why[256];

static void UTIL_PRINTF (1, 2)
violate (const char *fmt, ...)
{
  va_list ap;

  if (broken)
    return;
  broken = true;
  va_start (ap, fmt);
  vsnprintf (broken_why, sizeof broken_why, fmt, ap);
  va_end (ap);
}

static void UTIL_PRINTF (1, 2)
say (const char *fmt, ...)
{
  va_list ap;

  if (!verbose)
    return;
  printf ("# %6llu ", (unsigned long long) w.now);
  va_start (ap, fmt);
  vprintf (fmt, ap);
  va_end (ap);
  printf ("\n");
}

/* --- the calendar ---------------------------------------------------------------------------- */

CALENDAR (sev)

static struct sev *
after (uint64_t ms, enum sev_kind kind)
{
  static struct sev dummy;
  struct sev e = { .at = w.now + ms, .order = ++w.order, .kind = (uint8_t) kind,
                   .life = w.prod_life };

  if (w.n_heap == EVENTS) {
    violate ("the simulator's calendar is full");
    return &dummy;
  }
  return calendar_add (w.heap, &w.n_heap, e);
}

/* --- messages -------------------------------------------------------------------------------- */

static struct msg *
new_msg (void)
{
  struct msg *m = calloc (1, sizeof *m);
  if (m == NULL)
    abort ();
  return m;
}

static void
free_msg (struct msg *m)
{
  if (m) {
    free (m->data);
    free (m->map);
  }
  free (m);
}

static void
fifo_push (struct fifo *f, struct msg *m)
{
  if (f->n == FRAMES) {
    violate ("a link holds more frames than any window");
    free_msg (m);
    return;
  }
  f->m[(f->head + f->n++) % FRAMES] = m;
}

static struct msg *
fifo_pop (struct fifo *f)
{
  struct msg *m = f->m[f->head];
  f->head = (f->head + 1) % FRAMES;
  f->n--;
  return m;
}

static void
fifo_clear (struct fifo *f)
{
  while (f->n > 0)
    free_msg (fifo_pop (f));
}

static unsigned
u0 (uint64_t offset)
{
  return (unsigned) (offset / UNIT);
}

/* --- feeding the production core ------------------------------------------------------------- */

static void prod_actions (struct repl_actions *out);

static void
feed (struct repl_event *ev)
{
  static struct repl_actions out;
  unsigned rounds = 0;

  if (!w.prod || broken)
    return;
  ev->now_ms = w.now;
  for (unsigned s = 0; s < w.n_sites; s++)
    w.lacked[s] = w.r.sites[s].track.count[TS_DIRTY] + w.r.sites[s].track.count[TS_SYNCING];
  repl_step (&w.r, ev, &out);
  for (;;) {
    bool more = out.more;
    prod_actions (&out);
    if (!more || broken)
      break;
    if (++rounds > 1000) {
      violate ("the core asks for more without end");
      break;
    }
    struct repl_event e = { .kind = RE_MORE, .now_ms = w.now };
    repl_step (&w.r, &e, &out);
  }
  if (w.r.counters.illegal)
    violate ("the core counted an illegal event (fed %u)", ev->kind);
}

static void send_record (void);
static void
ctl_event (struct repl_action *a)
{
  uint64_t at = w.now + 1 + rnd (60);
  struct sev *e;
  if (at < w.last_ctl)
    at = w.last_ctl;
  w.last_ctl = at;
  e = after (at - w.now, SE_CTL);
  e->slot = a->kind;
  e->site = a->site;
  e->a = a->no;
  e->b = a->generation;
  w.last_no = a->no;
}

static void
link_down (unsigned s, const char *why)
{
  struct site *x = &w.site[s];

  if (x->conn == 0)
    return;
  say ("link %u ends: %s", s, why);
  /* what is in the pipes may or may not arrive: the copy side is told at once here, frames
   * already under way are dropped by their conn number */
  if (x->process) {
    struct sev *e = after (rnd (20), SE_COPYOP);
    e->site = (uint8_t) s;
    e->life = x->life;
    e->slot = 0xffff; /* CE_CLOSED */
    e->a = x->conn;
  }
  bool was = x->conn_up;
  x->conn = 0;
  x->conn_up = false;
  x->next_try = w.now + 50 + rnd (300);
  fifo_clear (&x->fwd);
  fifo_clear (&x->back);
  x->out_used = 0;
  if (was) {
    struct repl_event ev = { .kind = RE_LINK_DOWN, .site = (uint8_t) s, .reason = why };
    feed (&ev);
  }
}

static stamp_t *
units_dup (const stamp_t *src, unsigned n)
{
  stamp_t *p = malloc (n * sizeof *p + 1);
  if (p == NULL)
    abort ();
  memcpy (p, src, n * sizeof *p);
  return p;
}

static const char *
wire_name (unsigned type)
{
  return type == WIRE_WRITE ? "WRITE" : type == WIRE_ENTER ? "ENTER" : "another";
}

/* The first action of a request: its place in the order of writes. */
static void
granted (unsigned slot)
{
  struct req *q = &w.req[slot];

  if (q->granted)
    return;
  w.next_stamp += 2;
  q->stamp = w.next_stamp | (q->op == RO_WRITE ? 0 : ZERO_BIT);
  q->granted = true;
}

static void
do_send (struct repl_action *a)
{
  struct site *x = &w.site[a->site];
  struct msg *m = new_msg ();
  const unsigned n = u0 (a->frame.length);
  uint64_t bytes = WIRE_HEADER_LEN + a->frame.payload_len;

  m->h = a->frame;
  if (a->slot < SLOTS)
    granted (a->slot);
  if (a->frame.type == WIRE_RESYNC_WRITE || a->frame.type == WIRE_RESYNC_ZERO)
    x->resync_begun = true;
  else if (a->frame.type != WIRE_FLUSH && a->frame.type != WIRE_MAP && !(w.r.in_set & 1u << a->site) && !x->resync_begun
           && w.local_errors == 0 && w.lacked[a->site] > 0 && w.r.sites[a->site].track.count[TS_DIRTY] > 0)
    violate ("site %u gets a write while it lacks older ones and counts as usable (%s, phase %u)",
             a->site, wire_name (a->frame.type), w.r.sites[a->site].enter);
  m->h.tenure = w.tenure;
  m->conn = x->conn;
  if (!x->conn_up)
    violate ("a frame for site %u without a link", a->site);
  switch (a->frame.type) {
  case WIRE_WRITE:
  case WIRE_RESYNC_WRITE:
    if (a->frame.payload_len != a->frame.length)
      violate ("payload_len %u, length %u", a->frame.payload_len, a->frame.length);
    if (a->slot != REPL_NO_SLOT) {
      struct req *q = &w.req[a->slot];
      if (!q->used || a->frame.offset != q->offset + a->slot_offset
          || a->slot_offset + a->frame.length > q->length)
        violate ("a frame takes payload of a slot that has none");
      m->data = malloc ((n + 1) * sizeof *m->data);
      for (unsigned i = 0; i < n; i++)
        m->data[i] = q->stamp;
    }
    else
      m->data = units_dup (&w.rbuf[a->rslot][u0 (a->slot_offset)], n);
    break;
  case WIRE_ZERO:
  case WIRE_TRIM:
  case WIRE_RESYNC_ZERO:
    m->data = malloc ((n + 1) * sizeof *m->data);
    for (unsigned i = 0; i < n; i++)
      m->data[i] = a->slot != REPL_NO_SLOT && a->frame.type != WIRE_RESYNC_ZERO
                       ? w.req[a->slot].stamp
                       : w.site[w.prod_site].disk.cur[u0 (a->frame.offset) + i];
    if (a->slot == REPL_NO_SLOT || a->frame.type == WIRE_RESYNC_ZERO)
      for (unsigned i = 0; i < n; i++)
        if (m->data[i] != 0 && !(m->data[i] & ZERO_BIT))
          violate ("data is sent as zeroes");
    break;
  case WIRE_MAP:
    if (a->frame.payload_len > 0) {
      m->map = malloc (META_BLOCK_PAYLOAD);
      memcpy (m->map, w.mark.bits[a->op].map, META_BLOCK_PAYLOAD);
    }
    break;
  case WIRE_ENTER:
    memcpy (x->at_enter, w.answered, sizeof x->at_enter);
    x->enter_life = x->life;
    m->since = m->generation = a->generation;
    bytes = WIRE_HEADER_LEN + 64;
    break;
  }
  x->out_used += bytes;
  if (x->out_used > x->out_size)
    violate ("more sent to site %u than its out buffer has room for", a->site);
  fifo_push (&x->fwd, m);
  uint64_t at = w.now + x->delay + rnd (x->delay + 1);
  if (at < x->last_fwd)
    at = x->last_fwd;
  x->last_fwd = at;
  m->at = at;
  struct sev *e = after (at - w.now, SE_FWD);
  e->site = a->site;
  e->a = x->conn;
  e = after (rnd (x->delay + 1), SE_DRAIN);
  e->site = a->site;
  e->a = x->conn;
  e->b = bytes;
}

static bool
is_damaged (unsigned s, unsigned i)
{
  return w.damaged && s == w.damaged_site && i == w.damaged_unit;
}

/* A read is answered: whatever copy takes over, it gives the same. */
static void
check_read (const struct req *q)
{
  for (unsigned i = u0 (q->offset); i < u0 (q->offset + q->length); i++) {
    for (unsigned s = 0; s < w.n_sites; s++) {
      const stamp_t has = w.site[s].disk.cur[i];
      /* a newer write of this production may be on its way */
      if ((w.in_set & 1u << s) && s != w.prod_site && !w.site[s].restarted && has != q->seen[i] && !is_damaged (s, i)
          && !(has > q->seen[i] && (has > w.tenure_stamp || !w.track)))
        violate ("a read returns stamp %u of unit %u, site %u has %u", q->seen[i], i, s, has);
    }
    if (q->seen[i] > w.answered[i])
      w.answered[i] = q->seen[i];
  }
}

static void
push_fwd (unsigned s, struct msg *m)
{
  struct site *x = &w.site[s];
  uint64_t at = w.now + x->delay + rnd (x->delay + 1);
  struct sev *e;

  m->conn = x->conn;
  m->h.tenure = w.tenure;
  fifo_push (&x->fwd, m);
  if (at < x->last_fwd)
    at = x->last_fwd;
  x->last_fwd = at;
  m->at = at;
  e = after (at - w.now, SE_FWD);
  e->site = (uint8_t) s;
  e->a = x->conn;
}

/* The shell's part: the record, in the stream. */
static void
push_record (unsigned s)
{
  struct msg *m;

  if (!w.site[s].conn_up)
    return;
  m = new_msg ();
  m->h.type = WIRE_RECORD;
  m->in_set = w.r.in_set | 1u << w.prod_site;
  m->generation = w.r.generation;
  m->since = m->in_set & 1u << s ? w.generation : 0;
  push_fwd (s, m);
}

/* --- maps ------------------------------------------------------------------------------------ */

static void
begin_stage (unsigned s, struct mark *m, uint32_t life)
{
  struct stage *g = calloc (1, sizeof *g);
  struct sev *e;

  if (w.site[s].stage)
    violate ("site %u: two stages at a time", s);
  while (mark_next (m, &g->block[g->n].b)) {
    memcpy (g->block[g->n].payload, g->block[g->n].b.payload, META_BLOCK_PAYLOAD);
    if (++g->n == 2 + SITES_MAX)
      break;
  }
  w.site[s].stage = g;
  e = after (rnd (1 + w.site[s].slow), SE_MARK);
  e->site = (uint8_t) s;
  e->life = life;
}

static void
write_block (struct maps *d, const struct mark_block *b, const uint8_t *payload, bool bad)
{
  memcpy (b->kind == META_HOT ? d->hot[b->copy] : d->bits[b->site], payload, META_BLOCK_PAYLOAD);
  *(b->kind == META_HOT ? &d->bad_hot[b->copy] : &d->bad_bits[b->site]) = bad;
}

/* die: any of its blocks are there; power: one may be torn, if the sector is not atomic. */
static void
end_stage (unsigned s, bool die, bool power)
{
  struct site *x = &w.site[s];

  if (x->stage == NULL)
    return;
  for (unsigned i = 0; i < x->stage->n; i++)
    if (!die || chance (50))
      write_block (&x->maps, &x->stage->block[i].b, x->stage->block[i].payload, die && power && i == 0 && chance (10));
  free (x->stage);
  x->stage = NULL;
}

static void
load_marks (unsigned s, struct mark *m, uint8_t *memory, unsigned entries)
{
  const struct maps *d = &w.site[s].maps;

  memset (memory, 0, mark_memory_bytes (SIZE, BLOCK, w.region, entries, w.n_sites));
  mark_init (m, memory, SIZE, BLOCK, w.region, entries, w.n_sites);
  if (!d->bad_hot[0] || !d->bad_hot[1]) /* which of two is newer does not matter much: both are safe */
    mark_load_hot (m, 0, d->bad_hot[0] ? d->hot[1] : d->hot[0],
                   !d->bad_hot[0] && !d->bad_hot[1] && memcmp (d->hot[0], d->hot[1], META_BLOCK_PAYLOAD) == 0);
  else
    mark_load_hot (m, 0, NULL, false);
  for (unsigned k = 0; k < w.n_sites; k++)
    mark_load_bits (m, k, 0, d->bad_bits[k] ? NULL : d->bits[k]);
}

static bool
map_bit (const uint8_t *map, bool bad, uint64_t i)
{
  return bad || (map[i / 8] >> (i % 8) & 1);
}

/* Does the disk of a say that unit i of b may be another? */
static bool
disk_says (unsigned a, unsigned b, unsigned i)
{
  const struct site *x = &w.site[a];
  const uint64_t block = (uint64_t) i * UNIT / BLOCK, hot = (uint64_t) i * UNIT / w.region;

  return x->super.empty || map_bit (x->maps.bits[a], x->maps.bad_bits[a], block)
         || map_bit (x->maps.bits[b], x->maps.bad_bits[b], block)
         || (map_bit (x->maps.hot[0], x->maps.bad_hot[0], hot) && map_bit (x->maps.hot[1], x->maps.bad_hot[1], hot));
}

static void
check_disks (void)
{
  if (!w.track)
    return;
  for (unsigned a = 0; a < w.n_sites; a++)
    for (unsigned b = 0; b < w.n_sites; b++) {
      if (a == b || !((w.in_set | 1u << w.prod_site) & 1u << a))
        continue;
      for (unsigned i = 0; i < UNITS && !broken; i++)
        if (w.site[a].disk.cur[i] != w.site[b].disk.cur[i] && !is_damaged (a, i) && !is_damaged (b, i)
            && !disk_says (a, b, i) && !disk_says (b, a, i))
          violate ("unit %u is %u at site %u, %u at site %u, and neither disk says so", i, w.site[a].disk.cur[i], a,
                   w.site[b].disk.cur[i], b);
    }
}

static void
check_completed (unsigned slot, int error)
{
  struct req *q = &w.req[slot];
  const uint32_t set = w.in_set | 1u << w.prod_site;

  if (!q->used) {
    violate ("slot %u completed twice", slot);
    return;
  }
  if (error) {
    w.failures++;
    if (error == -28 && q->granted) {
      /* its bytes are what they are on production; nobody was promised anything */
      for (unsigned i = u0 (q->offset); i < u0 (q->offset + q->length); i++)
        w.answered[i] = w.site[w.prod_site].disk.cur[i];
      return;
    }
    if (error != -5 || w.no_quorum_ms == 0 || w.now < w.lease + w.no_quorum_ms)
      violate ("an error %d for a client", error);
    if (!q->granted || q->op == RO_FLUSH || q->op == RO_READ_WAIT)
      return;
    /* it is on every copy, whatever the client was told */
  }
  else {
    if (w.now >= w.lease)
      violate ("answered without a lease");
    w.answered_ops++;
  }
  if (q->op == RO_READ_WAIT) {
    check_read (q);
    return;
  }
  for (unsigned s = 0; s < w.n_sites; s++) {
    const struct site *x = &w.site[s];
    if (!(set & 1u << s))
      continue;
    if (q->op == RO_FLUSH) {
      for (unsigned i = 0; i < UNITS; i++)
        if (x->disk.stable[i] < q->flushed[i] && !is_damaged (s, i))
          violate ("flush answered, unit %u is not stable at site %u (%u, want %u)", i, s,
                   x->disk.stable[i], q->flushed[i]);
      continue;
    }
    /* a copy that lost power is about to be removed; its stable part is what counts */
    if (s != w.prod_site && x->restarted)
      continue;
    for (unsigned i = u0 (q->offset); i < u0 (q->offset + q->length); i++) {
      if (x->disk.cur[i] != q->stamp && !is_damaged (s, i))
        violate ("write %u answered, site %u holds %u in unit %u", q->stamp, s, x->disk.cur[i], i);
      if ((q->flags & RF_FUA) && x->disk.stable[i] < q->stamp && !is_damaged (s, i))
        violate ("FUA write answered, not stable at site %u", s);
    }
  }
  if (q->op != RO_FLUSH)
    for (unsigned i = u0 (q->offset); i < u0 (q->offset + q->length); i++)
      if (q->stamp > w.answered[i])
        w.answered[i] = q->stamp;
}

/* A digest of stamps. */
static void
digest_of (const struct disk *d, uint64_t offset, uint64_t length, uint8_t *digests)
{
  for (uint64_t at = 0; at < length; at += BLOCK, digests += WIRE_DIGEST_LEN) {
    uint64_t h[2] = { 0xcbf29ce484222325u, 0x9e3779b97f4a7c15u };
    for (unsigned i = u0 (offset + at); i < u0 (offset + at + BLOCK) && i < u0 (offset + length); i++) {
      h[0] = (h[0] ^ d->cur[i]) * 0x100000001b3u;
      h[1] = (h[1] ^ (d->cur[i] + 1)) * 0x100000001b5u;
    }
    memcpy (digests, h, sizeof h);
  }
}

/* The core calls a block different: it has to be, at this instant. */
static void
check_differs (const struct repl_action *a)
{
  bool differs = false;

  for (unsigned i = u0 (a->offset); i < u0 (a->offset + a->length); i++)
    if (w.site[w.prod_site].disk.cur[i] != w.site[a->site].disk.cur[i]) {
      differs = true;
      if (!is_damaged (a->site, i))
        violate ("verify: unit %u of site %u differs, and nobody damaged it", i, a->site);
    }
  if (!differs)
    violate ("verify names %llu of site %u, which is equal", (unsigned long long) a->offset, a->site);
  w.found = true;
  w.found_total++;
}

static void
start_verify (bool repair)
{
  struct repl_event ev = { .kind = RE_VERIFY, .repair = repair, .memory = w.verify_memory,
                           .in_set = ((1u << w.n_sites) - 1) & ~(1u << w.prod_site) };

  if (!w.prod || w.r.verify.on)
    return;
  memset (w.verify_memory, 0, sizeof w.verify_memory);
  w.found = false;
  say ("a comparison begins%s", repair ? ", with repair" : "");
  feed (&ev);
}

static void
prod_actions (struct repl_actions *out)
{
  struct repl_action list[REPL_MAX_ACTIONS];
  const unsigned n = out->n;

  memcpy (list, out->a, n * sizeof list[0]);
  for (unsigned i = 0; i < n && !broken; i++) {
    struct repl_action *a = &list[i];
    struct sev *e;
    switch (a->kind) {
    case RA_LOCAL:
      if (a->slot < SLOTS) {
        struct req *q = &w.req[a->slot];
        granted (a->slot);
        q->local_busy = true;
      }
      e = after (rnd (1 + w.site[w.prod_site].slow), SE_LOCAL);
      e->slot = a->slot;
      e->a = w.next_stamp;
      if (a->op == RO_FLUSH || (a->flags & RF_FUA))
        e->p = units_dup (w.site[w.prod_site].disk.cur, UNITS);
      break;
    case RA_SEND:
      do_send (a);
      break;
    case RA_COMPLETE:
      check_completed (a->slot, a->error);
      if (w.req[a->slot].local_busy)
        violate ("completed while the store works on it");
      w.req[a->slot].used = false;
      break;
    case RA_RESYNC_READ:
      e = after (rnd (1 + w.site[w.prod_site].slow), SE_RREAD);
      e->slot = a->rslot;
      e->a = a->offset;
      e->b = a->length;
      e->c = a->length_max;
      break;
    case RA_COPY_LOST:
      w.lost++;
      __attribute__ ((__fallthrough__));
    case RA_COPY_BACK:
    case RA_COPY_READY:
      say ("%s site %u no %llu: %s",
           a->kind == RA_COPY_LOST ? "LOST" : a->kind == RA_COPY_BACK ? "BACK" : "READY", a->site,
           (unsigned long long) a->no, a->reason ? a->reason : "");
      if (a->kind == RA_COPY_READY && w.site[a->site].enter_life == w.site[a->site].life)
        for (unsigned k = 0; k < UNITS; k++)
          if (w.site[a->site].disk.stable[k] < w.site[a->site].at_enter[k] && !is_damaged (a->site, k))
            violate ("site %u is ready, unit %u is not stable", a->site, k);
      ctl_event (a);
      break;
    case RA_CLOSE_LINK:
      w.site[a->site].conn_up = false; /* the core knows: nothing is fed from in here */
      link_down (a->site, "the core closes it");
      break;
    case RA_DRAINED:
      w.drained = true;
      for (unsigned k = 0; k < SLOTS; k++)
        if (w.req[k].used && w.req[k].granted)
          violate ("drained with a request in flight");
      for (unsigned s = 0; s < w.n_sites; s++)
        if ((w.in_set | 1u << w.prod_site) & 1u << s)
          for (unsigned k = 0; k < UNITS; k++)
            if (w.site[s].disk.stable[k] < w.answered[k])
              violate ("drained, but unit %u is not stable at site %u", k, s);
      break;
    case RA_STORE_FAILED:
      w.failed_store = true;
      break;
    case RA_MARK:
      begin_stage (w.prod_site, &w.mark, w.prod_life);
      break;
    case RA_STABLE:
      if (chance (90) && w.site[a->site].conn_up) { /* it may be left out */
        struct msg *m = new_msg ();
        m->h = a->frame;
        push_fwd (a->site, m);
      }
      break;
    case RA_DIGEST:
      e = after (rnd (1 + w.site[w.prod_site].slow), SE_DIGEST);
      e->a = a->no;
      e->b = a->offset;
      e->c = a->length;
      break;
    case RA_DIGEST_REQ:
      if (!w.site[a->site].conn_up)
        violate ("a question for site %u without a link", a->site);
      else {
        struct msg *m = new_msg ();
        m->h = a->frame;
        push_fwd (a->site, m);
      }
      break;
    case RA_DIFFERS:
      say ("site %u differs at %llu", a->site, (unsigned long long) a->offset);
      check_differs (a);
      break;
    case RA_VERIFY:
      say ("comparison of site %u: %s: %s", a->site, verify_phase_name (a->op), a->reason);
      w.compared += a->op == VP_DONE && a->site != w.prod_site;
      w.stopped += a->op == VP_STOPPED;
      w.repaired += a->op == VP_DONE && a->site != w.prod_site && w.r.verify.sites[a->site].repaired;
      break;
    case RA_GUARD:
      say ("the copies of the set are equal");
      break;
    case RA_STATE:
      say ("site %u is %s: %s", a->site, repl_site_state_name (a->op), a->reason);
      break;
    }
  }
}

/* --- copies ---------------------------------------------------------------------------------- */

static void
go_back (unsigned s, struct msg *m)
{
  struct site *x = &w.site[s];
  uint64_t at = w.now + x->delay + rnd (x->delay + 1);
  struct sev *e;

  if (x->conn != m->conn) {
    free_msg (m);
    return;
  }
  if (at < x->last_back)
    at = x->last_back;
  x->last_back = at;
  m->at = at;
  fifo_push (&x->back, m);
  e = after (at - w.now, SE_BACK);
  e->site = (uint8_t) s;
  e->a = m->conn;
}

static void
copy_actions (unsigned s, struct copy_actions *out)
{
  struct site *x = &w.site[s];

  for (unsigned i = 0; i < out->n; i++) {
    struct copy_action *a = &out->a[i];
    struct copyop *o;
    struct msg *m;
    struct sev *e;
    switch (a->kind) {
    case CA_SNAPSHOT:
      if (x->n_data > 0 || x->super.unusable)
        violate ("copy %u keeps what %s", s, x->n_data > 0 ? "is being written" : "is not coherent");
      /* fallthrough */
    case CA_SUBMIT:
    case CA_SYNC:
    case CA_SUPER:
      o = calloc (1, sizeof *o);
      o->super = a->kind == CA_SUPER;
      x->n_data += a->kind == CA_SUBMIT && a->frame.type != WIRE_FLUSH;
      o->op = a->op;
      o->h = a->frame;
      if (a->kind == CA_SYNC)
        o->h.type = WIRE_FLUSH;
      o->since = a->since;
      o->generation = a->generation;
      o->tenure = a->tenure;
      o->unusable = a->unusable;
      o->filling = a->filling;
      o->flush_data = a->flush_data;
      if (a->kind == CA_SUBMIT && x->bufs[a->buf % LINK_WINDOW_FRAMES])
        o->data = x->bufs[a->buf % LINK_WINDOW_FRAMES]->data
                      ? units_dup (x->bufs[a->buf % LINK_WINDOW_FRAMES]->data, u0 (o->h.length))
                      : NULL;
      memcpy (o->snapshot, x->disk.cur, sizeof o->snapshot);
      e = after (rnd (1 + x->slow), SE_COPYOP);
      e->site = (uint8_t) s;
      e->life = x->life;
      e->slot = 0;
      e->p = o;
      x->n_ops++;
      break;
    case CA_SNAPSHOT_DROP:
      if (x->super.unusable)
        violate ("copy %u drops what it kept before it is filled", s);
      x->kept = false;
      break;
    case CA_MARK:
      begin_stage (s, &x->mark, x->life);
      break;
    case CA_HELLO_OK:
      m = new_msg ();
      m->back = 3;
      if (w.track) {
        uint64_t of;
        m->map = malloc (META_BLOCK_PAYLOAD);
        if (copy_report (&x->core, 0, m->map, &of) == of) {
          free (m->map);
          m->map = NULL;
        }
      }
      m->conn = a->conn;
      m->ok = a->hello_ok;
      go_back (s, m);
      break;
    case CA_REFUSE:
      m = new_msg ();
      m->back = 4;
      m->conn = a->conn;
      snprintf (m->reason, sizeof m->reason, "%.63s", a->refuse.reason);
      go_back (s, m);
      break;
    case CA_STABLE:
      m = new_msg ();
      m->back = 5;
      m->conn = a->conn;
      m->h.seq = a->seq;
      go_back (s, m);
      break;
    case CA_ACK:
      m = new_msg ();
      m->back = 1;
      m->conn = a->conn;
      m->h.seq = a->seq;
      go_back (s, m);
      break;
    case CA_ERROR:
      say ("copy %u: error at %llu: %s", s, (unsigned long long) a->seq, a->failure.reason);
      if (!x->store_bad && a->op != COPY_OP_SNAPSHOT)
        violate ("copy %u: %s", s, a->failure.reason);
      m = new_msg ();
      m->back = 2;
      m->conn = a->conn;
      m->h.seq = a->seq;
      snprintf (m->reason, sizeof m->reason, "%.63s", a->failure.reason);
      go_back (s, m);
      break;
    default:
      break;
    }
  }
}

static void
copy_feed (unsigned s, struct copy_event *ev)
{
  static struct copy_actions out;
  struct site *x = &w.site[s];

  ev->now_ms = w.now;
  copy_step (&x->core, ev, &out);
  copy_actions (s, &out);
  struct copy_event poll = { .kind = CE_POLL, .now_ms = w.now };
  for (unsigned i = 0; i < 100; i++) {
    /* sometimes the shell goes on with its batch before it polls */
    if (!out.more && chance (30) && i == 0 && ev->kind == CE_FRAME && x->fwd.n > 0)
      break;
    bool more = out.more;
    copy_step (&x->core, &poll, &out);
    copy_actions (s, &out);
    if (!more && !out.more)
      break;
  }
  if (x->core.status.illegal)
    violate ("copy %u counted an illegal event", s);
}

static void
copy_start (unsigned s)
{
  struct site *x = &w.site[s];
  struct copy_config cfg = { 0 };

  memcpy (cfg.crg, "g", 2);
  memcpy (cfg.iasp, "i", 2);
  snprintf (cfg.node, sizeof cfg.node, "n%u", s);
  cfg.site = (uint8_t) s;
  cfg.size = SIZE;
  cfg.block_size = 512;
  cfg.dirty_block_size = BLOCK;
  cfg.session = x->life + 1;
  cfg.tenure = x->super.tenure;
  cfg.generation = x->super.generation;
  cfg.since = x->super.since;
  cfg.unusable = x->super.unusable;
  cfg.empty = x->super.empty;
  cfg.filling = x->super.filling;
  if (w.track) {
    load_marks (s, &x->mark, x->mark_memory, 2 * UNITS);
    cfg.mark = &x->mark;
    if (cfg.empty || (cfg.unusable && !cfg.filling))
      bits_fill (&x->mark.bits[s], true);
  }
  cfg.restarted = x->restarted;
  cfg.snapshot = w.keeps;
  x->kept = x->kept && cfg.unusable;
  cfg.window_bytes = 2 * 1024 * 1024 + (uint32_t) rnd (4) * 1024 * 1024;
  cfg.window_frames = 8 + (uint32_t) rnd (100);
  if (copy_init (&x->core, &cfg, w.now) != NULL)
    violate ("copy_init refuses");
  x->life++;
  x->process = true;
  x->n_ops = x->n_data = 0;
}

static void
apply (struct disk *d, uint64_t offset, uint64_t length, const stamp_t *data)
{
  memcpy (&d->cur[u0 (offset)], data, u0 (length) * sizeof (stamp_t));
}

/* What was completed before is stable now; what came later may be. */
static void
flush (struct disk *d, const stamp_t *snapshot)
{
  for (unsigned i = 0; i < UNITS; i++)
    if (d->cur[i] == snapshot[i] || chance (30))
      d->stable[i] = d->cur[i];
    else if (d->stable[i] < snapshot[i])
      d->stable[i] = snapshot[i];
}

static void
copy_op_done (unsigned s, struct copyop *o, bool die)
{
  struct site *x = &w.site[s];
  int error = 0;

  if (o->op == COPY_OP_SNAPSHOT) {
    if (memcmp (o->snapshot, x->disk.cur, sizeof o->snapshot) != 0)
      violate ("copy %u is written to while it keeps what it holds", s);
    if (chance (die ? 50 : w.chaos ? 15 : 0))
      error = -ENOSPC;
    else {
      x->kept = true;
      memcpy (x->before, x->disk.cur, sizeof x->before);
      w.snapshots++;
    }
  }
  else if (o->super) {
    if (!die || chance (50)) {
      if (o->unusable && !x->super.unusable && w.keeps
          && (!x->kept || memcmp (x->before, x->disk.cur, sizeof x->before) != 0))
        violate ("copy %u is to be filled, and what it held is not kept", s);
      if (o->flush_data)
        flush (&x->disk, o->snapshot);
      x->super.tenure = o->tenure;
      x->super.generation = o->generation;
      x->super.since = o->since;
      x->super.unusable = o->unusable;
      x->super.filling = o->filling;
      x->was_filled = x->was_filled || o->since != 0;
      x->super.empty = x->super.empty && !o->unusable && o->since == 0;
      if (o->since != 0 && o->flush_data) /* ENTER */
        x->restarted = false;
      if (o->unusable && o->filling)
        x->super.empty = false;
    }
  }
  else if (x->store_bad && chance (50)) {
    error = -5;
    x->n_data -= o->h.type != WIRE_FLUSH;
  }
  else if (o->h.type == WIRE_FLUSH) {
    if (!die || chance (50))
      flush (&x->disk, o->snapshot);
  }
  else {
    x->n_data--;
    if ((o->h.type == WIRE_RESYNC_WRITE || o->h.type == WIRE_RESYNC_ZERO) && !x->super.unusable)
      violate ("copy %u takes a block before its disk says that it is unusable", s);
    for (unsigned i = 0; i < u0 (o->h.length); i++)
      if (w.local_errors == 0 && !is_damaged (s, u0 (o->h.offset) + i) && o->h.tenure == w.tenure
          && x->disk.cur[u0 (o->h.offset) + i] > w.tenure_stamp
          && x->disk.cur[u0 (o->h.offset) + i] > o->data[i])
        violate ("copy %u: %u overtaken by %u in unit %u", s, x->disk.cur[u0 (o->h.offset) + i],
                 o->data[i], u0 (o->h.offset) + i);
    for (unsigned i = u0 (o->h.offset); w.track && i < u0 (o->h.offset + o->h.length); i++)
      if (!map_bit (x->maps.hot[0], x->maps.bad_hot[0], (uint64_t) i * UNIT / w.region)
          || !map_bit (x->maps.hot[1], x->maps.bad_hot[1], (uint64_t) i * UNIT / w.region))
        violate ("copy %u writes unit %u, which is not hot on its disk", s, i);
    if (die) { /* any part of it */
      for (unsigned i = 0; i < u0 (o->h.length); i++)
        if (chance (50))
          x->disk.cur[u0 (o->h.offset) + i] = o->data[i];
    }
    else
      apply (&x->disk, o->h.offset, o->h.length, o->data);
    if (!die && (o->h.flags & WIRE_F_FUA))
      for (unsigned i = 0; i < u0 (o->h.length); i++)
        x->disk.stable[u0 (o->h.offset) + i] = o->data[i];
  }
  x->n_ops--;
  if (!die) {
    struct copy_event ev = { .kind = CE_DONE, .op = o->op, .error = error };
    copy_feed (s, &ev);
  }
  free (o->data);
  free (o);
}

/* Ends the process of a copy: what it had submitted lands, or not, before anything else. */
static void
copy_die (unsigned s, bool power)
{
  struct site *x = &w.site[s];

  say ("copy %u %s", s, power ? "loses power" : "dies");
  for (unsigned i = 0; i < w.n_heap; i++) {
    struct sev *e = &w.heap[i];
    if (e->kind == SE_COPYOP && e->site == s && e->life == x->life && e->p) {
      copy_op_done (s, e->p, true);
      e->p = NULL;
      e->life = 0;
    }
  }
  end_stage (s, true, power);
  x->process = false;
  x->stopped = false;
  x->life++;
  for (unsigned i = 0; i < LINK_WINDOW_FRAMES; i++) {
    free_msg (x->bufs[i]);
    x->bufs[i] = NULL;
  }
  if (power) {
    w.powerlosses++;
    for (unsigned i = 0; i < UNITS; i++)
      if (x->disk.cur[i] != x->disk.stable[i]) {
        if (chance (60))
          x->disk.cur[i] = x->disk.stable[i];
        else
          x->disk.stable[i] = x->disk.cur[i];
      }
    x->restarted = true;
  }
  x->store_bad = false;
  if (x->conn && chance (80))
    link_down (s, "the copy is gone");
}

/* --- the group ------------------------------------------------------------------------------- */

static void
send_record (void)
{
  uint64_t at = w.now + 1 + rnd (40);
  struct sev *e;
  if (at < w.last_record)
    at = w.last_record;
  w.last_record = at;
  e = after (at - w.now, SE_RECORD);
  bool open = w.change != CC_NONE;
  for (unsigned s = 0; s < w.n_sites; s++)
    if ((w.want_in[s] && !(w.in_set & 1u << s)) || (w.want_out[s] && (w.in_set & 1u << s)))
      open = true;
  /* a wish that is still to be proposed has no outcome yet */
  if (!open)
    w.seen_no = w.handled_no;
  e->a = w.in_set;
  e->b = w.generation;
  e->c = w.seen_no;
}

static void
ctl_propose (void)
{
  if (w.change != CC_NONE || !w.quorum)
    return;
  for (unsigned s = 0; s < w.n_sites; s++) {
    if (w.want_out[s] && (w.in_set & 1u << s))
      w.change = CC_SHRINK;
    else if (w.want_in[s] && !(w.in_set & 1u << s))
      w.change = CC_ENTER;
    else
      continue;
    w.change_site = s;
    w.change_generation = w.generation;
    after (5 + rnd (150), SE_COMMIT);
    return;
  }
}

static void
ctl_handle (const struct sev *e)
{
  const unsigned s = e->site;

  w.handled_no = e->a;
  if (e->slot == RA_COPY_LOST) {
    w.want_out[s] = true;
    w.want_in[s] = false;
  }
  else if (e->slot == RA_COPY_BACK)
    w.want_out[s] = false;
  else {
    w.want_out[s] = false;
    w.want_in[s] = true;
  }
  ctl_propose ();
  send_record ();
}

static void
ctl_commit (void)
{
  const unsigned s = w.change_site;

  if (!w.quorum) { /* its outcome is known later */
    after (50 + rnd (100), SE_COMMIT);
    return;
  }
  if (w.change == CC_SHRINK) {
    w.in_set &= ~(1u << s);
    w.generation++;
    say ("committed: site %u is out, generation %llu", s, (unsigned long long) w.generation);
  }
  else if (w.change_generation == w.generation && chance (90)) {
    w.in_set |= 1u << s;
    w.entered++;
    say ("committed: site %u is in", s);
  }
  if (w.change == CC_ENTER)
    w.want_in[s] = false; /* in, or turned down */
  else
    w.want_out[s] = false;
  w.change = CC_NONE;
  ctl_propose ();
  send_record ();
}

/* --- production's life ----------------------------------------------------------------------- */

static void
prod_start (bool unclean)
{
  struct repl_config cfg = { .size = SIZE, .block_size = BLOCK, .n_rslots = 4,
                             .share_percent = (uint8_t) (10 + rnd (90)),
                             .suspend_timeout_ms = 1000,
                             .no_quorum_timeout_ms = w.no_quorum_ms,
                             .return_store_error = w.returns_errors };
  const char *why;

  cfg.site = (uint8_t) w.prod_site;
  cfg.n_sites = (uint8_t) w.n_sites;
  cfg.in_set = w.in_set;
  cfg.unclean = unclean && !w.track ? w.in_set & ~(1u << w.prod_site) : 0;
  cfg.equal = w.graceful;
  if (w.track) {
    load_marks (w.prod_site, &w.mark, w.mark_memory, 2 * HOT_MAX_SPAN);
    cfg.mark = &w.mark;
  }
  w.graceful = false;
  w.site[w.prod_site].was_filled = true;
  w.site[w.prod_site].super.since = w.site[w.prod_site].super.since ? w.site[w.prod_site].super.since : 1;
  cfg.generation = w.generation;
  for (unsigned s = 0; s < w.n_sites; s++)
    cfg.track_memory[s] = w.maps[s];
  cfg.track_memory_bytes = track_memory_bytes (SIZE, BLOCK);
  why = repl_init (&w.r, &cfg, w.now);
  if (why)
    violate ("repl_init: %s", why);
  w.prod = true;
  w.prod_life++;
  w.handled_no = w.seen_no = w.last_no = 0;
  memset (w.want_in, 0, sizeof w.want_in);
  memset (w.want_out, 0, sizeof w.want_out);
  w.failed_store = false;
  w.holding = w.drained = false;
  after (REPL_TICK_MS, SE_TICK);
  after (1, SE_CLIENT);
  struct repl_event ev = { .kind = RE_LEASE, .until_ms = w.lease };
  feed (&ev);
}

/* Production dies, or (graceful) has drained and given its role up; a copy of the set, or the same
 * host, goes on. */
static void
takeover (bool power, bool graceful)
{
  unsigned best = w.prod_site;
  struct site *x = &w.site[w.prod_site];

  w.takeovers++;
  /* what it had submitted lands or not */
  for (unsigned i = 0; i < w.n_heap; i++) {
    struct sev *e = &w.heap[i];
    if (e->life != w.prod_life)
      continue;
    if (e->kind == SE_LOCAL) {
      if (e->slot < SLOTS && w.req[e->slot].op != RO_FLUSH && w.req[e->slot].op != RO_READ_WAIT)
        for (unsigned k = u0 (w.req[e->slot].offset);
             k < u0 (w.req[e->slot].offset + w.req[e->slot].length); k++)
          if (chance (50))
            x->disk.cur[k] = w.req[e->slot].stamp;
      free (e->p);
      e->p = NULL;
      e->life = 0;
    }
    else if (e->kind == SE_RREAD)
      e->life = 0;
  }
  end_stage (w.prod_site, true, power);
  w.prod = false;
  w.prod_life++;
  for (unsigned s = 0; s < w.n_sites; s++)
    if (s != w.prod_site)
      link_down (s, "production is gone");
  memset (w.req, 0, sizeof w.req);
  if (power) {
    for (unsigned i = 0; i < UNITS; i++)
      if (x->disk.cur[i] != x->disk.stable[i]) {
        if (chance (60))
          x->disk.cur[i] = x->disk.stable[i];
        else
          x->disk.stable[i] = x->disk.cur[i];
      }
  }
  /* an ENTER under way: its outcome is decided now, either way (C5) */
  if (w.change == CC_ENTER && w.change_generation == w.generation && chance (50)) {
    w.in_set |= 1u << w.change_site;
    w.entered++;
  }
  if (w.change == CC_SHRINK && chance (50)) {
    w.in_set &= ~(1u << w.change_site);
    w.generation++;
  }
  w.change = CC_NONE;
  for (unsigned i = 0; i < w.n_heap; i++)
    if (w.heap[i].kind == SE_CTL || w.heap[i].kind == SE_RECORD || w.heap[i].kind == SE_COMMIT)
      w.heap[i].life = 0;

  for (unsigned s = 0; s < w.n_sites; s++)
    if (s != w.prod_site && (w.in_set & 1u << s) && !w.site[s].restarted
        && (power || graceful || (best == w.prod_site && chance (70)) || chance (50)))
      best = s;
  if (power && best == w.prod_site) {
    /* S2 would wait for the others; here: the stable part alone goes on */
    for (unsigned i = 0; i < UNITS; i++)
      w.answered[i] = x->disk.cur[i] < w.answered[i] ? x->disk.cur[i] : w.answered[i];
  }
  else
    for (unsigned s = 0; s < w.n_sites; s++) {
      /* every copy that could take over has every answered write */
      if (s == w.prod_site ? power : (!(w.in_set & 1u << s) || w.site[s].restarted))
        continue;
      if (s != w.prod_site && (w.site[s].super.unusable || w.site[s].super.since == 0))
        violate ("site %u is in the set, its own disk says it can't take over", s);
      for (unsigned i = 0; i < UNITS; i++)
        if (w.site[s].disk.cur[i] < w.answered[i])
          violate ("failover to site %u loses answered write %u of unit %u (has %u)", s,
                   w.answered[i], i, w.site[s].disk.cur[i]);
    }
  say ("production dies%s at site %u; site %u goes on", power ? " (power)" : graceful ? " (gracefully)" : "",
       w.prod_site, best);
  if (best != w.prod_site) {
    const unsigned old = w.prod_site;
    if (w.site[best].process)
      copy_die (best, false);
    w.prod_site = best;
    w.site[old].super.tenure = w.tenure;
    w.site[old].super.generation = w.generation;
    w.site[old].super.since = w.track ? w.generation : 0;
    w.site[old].super.filling = false;
    w.site[old].super.unusable = false;
    w.site[old].super.empty = false;
    w.site[old].restarted = power;
  }
  w.tenure++;
  w.tenure_stamp = w.next_stamp | ZERO_BIT;
  w.graceful = graceful;
  if (!w.track) {
    w.generation++;
    w.in_set = 1u << best;
    /* the new production's data is the truth from here */
    for (unsigned i = 0; i < UNITS; i++)
      w.answered[i] = w.site[best].disk.cur[i];
  }
  check_disks ();
  for (unsigned s = 0; s < w.n_sites; s++)
    if (s != best && !w.site[s].process)
      copy_start (s);
    else if (s != best) {
      struct wire_record rec = { .tenure = w.tenure, .generation = w.generation, .in_set = w.in_set };
      struct copy_event ev = { .kind = CE_RECORD, .record = &rec };
      copy_feed (s, &ev);
    }
  prod_start (false);
}

/* --- clients --------------------------------------------------------------------------------- */

static void
client (void)
{
  unsigned slot = (unsigned) rnd (SLOTS);
  struct req *q = &w.req[slot];
  struct repl_event ev = { .kind = RE_REQUEST, .slot = (uint16_t) slot };
  const struct disk *d = &w.site[w.prod_site].disk;
  uint64_t first, n;

  after (rnd (w.quiesce ? 200 : 1 + 2000 / (w.busy * w.busy / 10 + 1)), SE_CLIENT);
  if (q->used || (w.quiesce && chance (90)))
    return;
  memset (q, 0, sizeof *q);
  first = rnd (UNITS);
  if (chance (60))
    first = first % 24; /* a warm corner */
  n = 1 + (chance (80) ? rnd (6) : rnd (60));
  if (n > UNITS - first)
    n = UNITS - first;
  q->offset = first * UNIT;
  q->length = n * UNIT;
  q->at = w.now;
  switch (rnd (10)) {
  case 0:
    q->op = RO_ZERO;
    break;
  case 1:
    q->op = RO_TRIM;
    break;
  case 2:
    q->op = RO_FLUSH;
    q->offset = q->length = 0;
    memcpy (q->flushed, w.answered, sizeof q->flushed);
    break;
  case 3:
  case 4: {
    bool wait = w.now >= w.lease || w.holding || w.r.guard;
    q->op = RO_READ_WAIT;
    memcpy (q->seen, d->cur, sizeof q->seen);
    for (unsigned i = 0; i < SLOTS; i++)
      if (w.req[i].used && w.req[i].granted && w.req[i].length > 0
          && w.req[i].op != RO_READ_WAIT
          && ranges_overlap (w.req[i].offset, w.req[i].length, q->offset, q->length))
        wait = true;
    if (!wait) {
      check_read (q);
      return;
    }
    break;
  }
  default:
    q->op = RO_WRITE;
    if (chance (10))
      q->flags |= RF_FUA;
  }
  q->used = true;
  ev.op = q->op;
  ev.flags = q->flags;
  ev.offset = q->offset;
  ev.length = q->length;
  feed (&ev);
}

static void
local_done (struct sev *e)
{
  struct disk *d = &w.site[w.prod_site].disk;
  struct repl_event ev = { .kind = RE_LOCAL_DONE, .slot = e->slot };

  if (e->slot < SLOTS) {
    struct req *q = &w.req[e->slot];
    q->local_busy = false;
    for (unsigned i = u0 (q->offset); w.track && op_is_data (q->op) && i < u0 (q->offset + q->length); i++) {
      const struct maps *m = &w.site[w.prod_site].maps;
      if (!map_bit (m->hot[0], m->bad_hot[0], (uint64_t) i * UNIT / w.region)
          || !map_bit (m->hot[1], m->bad_hot[1], (uint64_t) i * UNIT / w.region))
        violate ("production writes unit %u, which is not hot on its disk", i);
    }
    if (op_is_data (q->op) && !(q->flags & RF_FUA) && w.returns_errors && w.chaos && chance (3)) {
      ev.error = -28;
      w.local_errors++;
      for (unsigned i = u0 (q->offset); i < u0 (q->offset + q->length); i++)
        if (chance (50))
          d->cur[i] = q->stamp;
    }
    else if (op_is_data (q->op))
      for (unsigned i = u0 (q->offset); i < u0 (q->offset + q->length); i++) {
        if (d->cur[i] > q->stamp && w.local_errors == 0)
          violate ("an older write overtakes on production");
        d->cur[i] = q->stamp;
        if (q->flags & RF_FUA)
          d->stable[i] = q->stamp;
      }
    if (q->op == RO_FLUSH)
      flush (d, e->p);
  }
  else
    flush (d, e->p);
  free (e->p);
  feed (&ev);
}

static void
resync_read (const struct sev *e)
{
  const struct disk *d = &w.site[w.prod_site].disk;
  struct repl_event ev = { .kind = RE_RESYNC_READ, .rslot = e->slot, .length = e->b };
  const unsigned first = u0 (e->a), n = u0 (e->b), max = u0 (e->c);
  unsigned k = 0;

  memcpy (w.rbuf[e->slot], &d->cur[first], n * sizeof (stamp_t));
  while (k < max && (d->cur[first + k] == 0 || (d->cur[first + k] & ZERO_BIT)))
    k++;
  if (k >= n) {
    ev.zero = chance (50) ? RZ_HOLE : RZ_ZERO;
    if (ev.zero == RZ_HOLE)
      ev.length = (uint64_t) k * UNIT;
  }
  if (chance (1) && w.chaos) {
    ev.error = -5;
    ev.zero = RZ_DATA;
    ev.length = e->b;
  }
  feed (&ev);
}

/* --- links ----------------------------------------------------------------------------------- */

static void
try_connect (void)
{
  static uint32_t conns;

  for (unsigned s = 0; s < w.n_sites; s++) {
    struct site *x = &w.site[s];
    struct msg *m;
    struct sev *e;
    if (s != w.prod_site && x->conn && !x->stopped
        && ((!x->conn_up && w.now - x->conn_ms > 1500)
            || (x->conn_life != x->life && w.now - x->conn_ms > 1500)))
      link_down (s, "no answer"); /* deadline of the handshake, or of a PING */
    if (s == w.prod_site || x->conn || w.now < x->next_try || x->cut || !w.prod || !x->hosted)
      continue;
    x->next_try = w.now + 200 + rnd (300);
    if (!x->process)
      continue;
    x->conn = ++conns;
    x->conn_up = false;
    x->conn_ms = w.now;
    x->resync_begun = false;
    x->conn_life = x->life;
    x->out_size = 600 * 1024 + rnd (2000) * 1024;
    x->out_used = 0;
    x->last_fwd = x->last_back = 0;
    m = new_msg ();
    m->h.type = WIRE_HELLO;
    m->conn = x->conn;
    m->at = w.now + x->delay;
    x->last_fwd = m->at;
    fifo_push (&x->fwd, m);
    e = after (x->delay, SE_FWD);
    e->site = (uint8_t) s;
    e->a = x->conn;
  }
}

static void
deliver_fwd (const struct sev *e)
{
  const unsigned s = e->site;
  struct site *x = &w.site[s];
  struct copy_event ev = { 0 };
  struct msg *m;

  if (x->conn != e->a || x->fwd.n == 0)
    return;
  if (x->cut)
    return; /* sits there until the link is given up */
  if (x->stopped) {
    struct sev *again = after (50, SE_FWD);
    again->site = e->site;
    again->a = e->a;
    return;
  }
  m = fifo_pop (&x->fwd);
  if (!x->process) {
    free_msg (m);
    return;
  }
  if (m->h.type == WIRE_HELLO) {
    struct wire_hello h = { .proto_min = 1, .proto_max = 1,
                            .features = WIRE_FEATURE_DIGEST | (w.track ? WIRE_FEATURE_TRACKING : 0) };
    if (w.track && seed % 5 != 0) /* an older release does not know it */
      h.features |= WIRE_FEATURE_SYNC;
    h.tenure = w.tenure;
    h.generation = w.generation;
    h.size = SIZE;
    h.block_size = 4096;
    h.dirty_block_size = BLOCK;
    h.site = (uint8_t) w.prod_site;
    h.peer_site = (uint8_t) s;
    snprintf (h.node, sizeof h.node, "prod");
    ev.kind = CE_HELLO;
    ev.conn = m->conn;
    ev.peer = "prod";
    ev.hello = &h;
    copy_feed (s, &ev);
    free_msg (m);
    return;
  }
  if (m->h.type == WIRE_DIGEST_REQ && x->conn_life != x->life) { /* a newer process has no such connection */
    free_msg (m);
    return;
  }
  if (m->h.type == WIRE_DIGEST_REQ) { /* the shell's: a thread looks at the store some time */
    struct sev *d = after (rnd (1 + x->slow), SE_COPYDIGEST);
    d->site = (uint8_t) s;
    d->life = x->life;
    d->p = m;
    return;
  }
  struct wire_record rec = { .tenure = m->h.tenure, .generation = m->generation,
                             .since = m->since, .in_set = m->in_set };
  if (m->h.type == WIRE_RECORD || m->h.type == WIRE_STABLE) {
    ev.kind = m->h.type == WIRE_RECORD ? CE_RECORD : CE_STABLE;
    say ("site %u hears %s: set %x, stable %llu flags %x", s, m->h.type == WIRE_RECORD ? "RECORD" : "STABLE", m->in_set,
         (unsigned long long) m->h.seq, m->h.flags);
    ev.conn = m->conn;
    ev.frame = m->h;
    ev.record = &rec;
    copy_feed (s, &ev);
    free_msg (m);
    return;
  }
  ev.kind = CE_FRAME;
  ev.map = m->map;
  ev.conn = m->conn;
  ev.frame = m->h;
  ev.record = m->h.type == WIRE_ENTER ? &rec : NULL;
  ev.buf = (uint32_t) (m->h.seq % LINK_WINDOW_FRAMES);
  free_msg (x->bufs[ev.buf]);
  x->bufs[ev.buf] = m;
  copy_feed (s, &ev);
}

static void
deliver_back (const struct sev *e)
{
  const unsigned s = e->site;
  struct site *x = &w.site[s];
  struct repl_event ev = { .site = (uint8_t) s };
  struct msg *m;

  if (x->conn != e->a || x->back.n == 0 || x->cut)
    return;
  m = fifo_pop (&x->back);
  switch (m->back) {
  case 1:
    ev.kind = RE_ACK;
    ev.seq = m->h.seq;
    feed (&ev);
    break;
  case 5:
    ev.kind = RE_STABLE;
    ev.seq = m->h.seq;
    feed (&ev);
    break;
  case 2:
    ev.kind = RE_COPY_ERROR;
    ev.reason = m->reason;
    feed (&ev);
    link_down (s, "the copy failed");
    break;
  case 3:
    say ("link %u is up%s%s", s, m->ok.flags & WIRE_OK_RESTARTED ? ", restarted" : "",
         m->ok.flags & WIRE_OK_EMPTY ? ", empty" : "");
    x->conn_up = true;
    uint64_t before = 0, both = 0;
    if (w.track) {
      struct repl_event piece = { .kind = RE_MAP, .site = (uint8_t) s, .map = m->map,
                                   .empty = m->ok.flags & WIRE_OK_EMPTY };
      const struct track *t = &w.r.sites[s].track;
      for (uint64_t b = 0; b < t->n_blocks; b++)
        both += track_get (t, b) != TS_CLEAN || m->map == NULL || (m->map[b / 8] >> (b % 8) & 1);
      before = w.r.sites[s].map_valid;
      feed (&piece);
      ev.mapped = true;
    }
    ev.kind = RE_LINK_UP;
    ev.restarted = m->ok.flags & WIRE_OK_RESTARTED;
    ev.empty = m->ok.flags & WIRE_OK_EMPTY;
    ev.syncs = m->ok.features & WIRE_FEATURE_SYNC;
    ev.digests = m->ok.features & WIRE_FEATURE_DIGEST;
    ev.window_bytes = m->ok.window_bytes;
    ev.window_frames = m->ok.window_frames;
    ev.room_bytes = x->out_size;
    feed (&ev);
    if (w.track && before && x->was_filled && w.r.sites[s].track.count[TS_CLEAN] + both < w.r.sites[s].track.n_blocks)
      violate ("site %u is filled from the start, %llu blocks may differ", s, (unsigned long long) both);
    if (!(w.r.in_set & 1u << s) && x->was_filled) {
      w.partial++;
      w.partial_blocks += w.r.sites[s].track.n_blocks - w.r.sites[s].track.count[TS_CLEAN];
      w.partial_of += w.r.sites[s].track.n_blocks;
    }
    push_record (s);
    break;
  case 4:
    link_down (s, m->reason);
    break;
  case 6:
    ev.kind = RE_DIGEST;
    ev.seq = m->h.seq;
    ev.map = m->map;
    ev.length = (m->h.length + BLOCK - 1) / BLOCK;
    feed (&ev);
    break;
  }
  free_msg (m);
}

static void
drained (const struct sev *e)
{
  struct site *x = &w.site[e->site];
  struct repl_event ev = { .kind = RE_ROOM, .site = e->site };

  if (x->conn != e->a)
    return;
  if (x->cut || x->stopped) {
    struct sev *again = after (50, SE_DRAIN);
    again->site = e->site;
    again->a = e->a;
    again->b = e->b;
    return;
  }
  x->out_used -= e->b;
  if (!x->conn_up)
    return;
  ev.room_bytes = x->out_size - x->out_used;
  feed (&ev);
}

/* --- chaos ----------------------------------------------------------------------------------- */

static void
chaos (void)
{
  const unsigned s = (unsigned) rnd (w.n_sites);
  struct site *x = &w.site[s];
  struct sev *e;

  if (!w.chaos)
    return;
  after (50 + rnd (600), SE_CHAOS);
  if (chance (15))
    start_verify (chance (50));
  if (chance (4)) {
    takeover (chance (40), false);
    return;
  }
  if (w.holding && w.drained && w.track && chance (30)) {
    for (unsigned k = 0; k < w.n_sites; k++)
      if ((w.in_set & 1u << k) && !w.site[k].restarted
          && memcmp (w.site[k].disk.cur, w.site[w.prod_site].disk.cur, sizeof w.site[k].disk.cur)
          && w.local_errors == 0)
        violate ("drained, and site %u differs", k);
    w.graceful_ones++;
    takeover (false, w.local_errors == 0);
    return;
  }
  if (chance (12)) {
    struct repl_event ev = { .kind = w.holding ? RE_RESUME : RE_HOLD, .reason = "switchover" };
    w.holding = !w.holding;
    w.drained = false;
    feed (&ev);
    return;
  }
  if (chance (6)) {
    w.quorum = !w.quorum;
    return;
  }
  if (s == w.prod_site)
    return;
  switch (rnd (8)) {
  case 0:
    link_down (s, "the network");
    break;
  case 1: /* cut: noticed by the PING deadline only */
    x->cut = true;
    e = after (100 + rnd (2500), SE_HEAL);
    e->site = (uint8_t) s;
    e->a = 1;
    break;
  case 2:
    if (x->process && !x->stopped) {
      x->stopped = true;
      e = after (100 + rnd (3000), SE_HEAL);
      e->site = (uint8_t) s;
      e->a = 2;
    }
    break;
  case 3:
  case 4:
    if (x->process) {
      copy_die (s, chance (50));
      e = after (50 + rnd (2500), SE_HEAL);
      e->site = (uint8_t) s;
      e->a = 3;
    }
    break;
  case 5:
    x->slow = chance (50) ? 2 : 1 + (unsigned) rnd (60);
    x->delay = (unsigned) rnd (20);
    break;
  case 6:
    if (chance (30))
      x->store_bad = x->process;
    else {
      struct repl_event ev = { .kind = RE_UNMIRROR, .site = (uint8_t) s,
                               .reason = "its host left" };
      x->hosted = false;
      feed (&ev);
      e = after (100 + rnd (1500), SE_HEAL);
      e->site = (uint8_t) s;
      e->a = 4;
    }
    break;
  case 7:
    w.site[w.prod_site].slow = 1 + (unsigned) rnd (20);
    w.busy = 1 + (unsigned) rnd (60);
    break;
  }
}

static void
heal (const struct sev *e)
{
  struct site *x = &w.site[e->site];

  switch (e->a) {
  case 1:
    if (x->cut) {
      x->cut = false;
      link_down (e->site, "no PONG");
    }
    break;
  case 2:
    x->stopped = false;
    break;
  case 3:
    if (!x->process && e->site != w.prod_site)
      copy_start (e->site);
    break;
  case 4:
    if (!x->hosted && e->site != w.prod_site) {
      struct repl_event ev = { .kind = RE_MIRROR, .site = e->site, .sync = RS_PARTIAL };
      x->hosted = true;
      feed (&ev);
    }
    x->hosted = true;
    break;
  }
}

/* --- invariants ------------------------------------------------------------------------------ */

static void
check_tracking (void)
{
  const struct disk *p = &w.site[w.prod_site].disk;

  if (!w.prod)
    return;
  for (unsigned s = 0; s < w.n_sites && !broken; s++) {
    const struct repl_site *x = &w.r.sites[s];
    const struct track *t = &x->track;
    uint64_t counts[TS_STATES] = { 0 };
    if (s == w.prod_site)
      continue;
    for (uint64_t b = 0; b < t->n_blocks; b++)
      counts[track_get (t, b)]++;
    for (unsigned k = 0; k < TS_STATES; k++)
      if (counts[k] != t->count[k])
        violate ("site %u: %llu blocks are %s, counted %llu", s, (unsigned long long) counts[k],
                 track_state_name (k), (unsigned long long) t->count[k]);
    if (t->illegal)
      violate ("site %u: a move that the table forbids", s);
    if (!x->map_valid || w.site[s].restarted || w.site[s].super.empty || (w.track && x->map_needed))
      continue; /* declared to be unknown, or about to be */
    for (unsigned i = 0; i < UNITS; i++) {
      const uint64_t b = (uint64_t) i * UNIT / BLOCK;
      bool flying = false;
      if (track_get (t, b) != TS_CLEAN)
        continue;
      if (p->cur[i] != w.site[s].disk.cur[i] && is_damaged (s, i))
        continue;
      if (p->cur[i] != w.site[s].disk.cur[i]) {
        for (unsigned k = 0; k < SLOTS; k++)
          if (w.req[k].used && w.req[k].granted && w.req[k].offset <= (uint64_t) i * UNIT
              && w.req[k].offset + w.req[k].length > (uint64_t) i * UNIT)
            flying = true;
        if (!flying)
          violate ("site %u differs in unit %u (%u, production %u), the block is clean", s, i,
                   w.site[s].disk.cur[i], p->cur[i]);
      }
      else if (!x->untracked && !w.track && w.site[s].disk.stable[i] != w.site[s].disk.cur[i])
        violate ("site %u: unit %u is clean and not stable", s, i);
    }
  }
}

static void
check_waits (void)
{
  struct repl_wait waits[REPL_MAX_WAITS];
  unsigned n, used = 0;

  if (!w.prod)
    return;
  n = repl_waits (&w.r, w.now, waits);
  for (unsigned i = 0; i < SLOTS; i++)
    used += w.req[i].used;
  if (used > 0 && n == 0)
    violate ("%u requests wait for nobody", used);
  for (unsigned i = 0; i < n; i++)
    if (waits[i].reason == NULL || waits[i].reason[0] == '\0')
      violate ("a wait without a reason");
}

/* --- one seed -------------------------------------------------------------------------------- */

static void
clear_world (void)
{
  free (w.mark_memory);
  for (unsigned i = 0; i < w.n_heap; i++)
    if (w.heap[i].kind == SE_COPYOP && w.heap[i].p) {
      free (((struct copyop *) w.heap[i].p)->data);
      free (w.heap[i].p);
    }
    else if (w.heap[i].kind == SE_COPYDIGEST)
      free_msg (w.heap[i].p);
    else
      free (w.heap[i].p);
  for (unsigned s = 0; s < SITES_MAX; s++) {
    fifo_clear (&w.site[s].fwd);
    fifo_clear (&w.site[s].back);
    free (w.site[s].stage);
    free (w.site[s].mark_memory);
    for (unsigned i = 0; i < LINK_WINDOW_FRAMES; i++)
      free_msg (w.site[s].bufs[i]);
  }
}

static bool
healthy (void)
{
  for (unsigned i = 0; i < SLOTS; i++)
    if (w.req[i].used)
      return false;
  for (unsigned s = 0; s < w.n_sites; s++)
    if (s != w.prod_site
        && (w.r.sites[s].state != SITE_MIRRORING || w.site[s].restarted
            || w.site[s].conn_life != w.site[s].life || w.r.sites[s].track.count[TS_DIRTY] > 0
            || w.r.guard || w.r.sites[s].n_rslots > 0 || w.r.sites[s].unacked_frames > 0))
      return false;
  return w.in_set == (1u << w.n_sites) - 1 && w.r.in_set == (w.in_set & w.r.others);
}

/* All came together.  Now the copies are compared while clients write: as they are, and with a block
 * of one damaged behind its back.  True: that is over. */
static bool
last_comparisons (void)
{
  const struct verify_site *x;

  if (w.r.verify.on)
    return false;
  if (w.stage == 3)
    return healthy ();
  /* A removal may still be committed late; then it is compared once more when that is over. */
  for (unsigned s = 0; s < w.n_sites && w.stage > 0 && !w.again; s++)
    if (s != w.prod_site && w.r.verify.sites[s].phase != VP_DONE) {
      w.again = true;
      w.quiesce = true;
      if (++w.agains > 5)
        violate ("comparing site %u ended: %s", s, w.r.verify.sites[s].reason);
    }
  if (w.again && !healthy ())
    return false;
  if (w.again) {
    w.again = w.quiesce = false;
    start_verify (true);
    return false;
  }
  switch (w.stage) {
  case 0:
    if (!healthy ())
      return false;
    w.quiesce = false;
    w.busy = 10 + (unsigned) rnd (20);
    w.stage = 1;
    start_verify (chance (50));
    return false;
  case 1:
    if (w.found)
      violate ("equal copies are said to differ");
    w.damaged_site = (unsigned) rnd (w.n_sites - 1);
    w.damaged_site += w.damaged_site >= w.prod_site;
    w.damaged_unit = (unsigned) rnd (UNITS);
    w.damaged = true;
    w.site[w.damaged_site].disk.cur[w.damaged_unit] = w.site[w.damaged_site].disk.stable[w.damaged_unit] = 6;
    w.stage = 2;
    start_verify (chance (70));
    return false;
  }
  x = &w.r.verify.sites[w.damaged_site];
  if (w.site[w.damaged_site].disk.cur[w.damaged_unit] == 6 && w.site[w.prod_site].disk.cur[w.damaged_unit] != 6) {
    if (!w.found || x->n_found != 1 || u0 (x->found[0].offset) > w.damaged_unit
        || u0 (x->found[0].offset + x->found[0].length) <= w.damaged_unit)
      violate ("unit %u of site %u is damaged, and the comparison has not named it", w.damaged_unit, w.damaged_site);
    if (x->repaired)
      violate ("said to be repaired, and is not");
    start_verify (true);
    return false;
  }
  w.damaged = false;
  w.quiesce = true;
  w.stage = 3;
  return false;
}

static void
run (uint64_t which, uint64_t chaos_ms)
{
  static uint8_t memory[SITES_MAX][4096];
  uint64_t deadline, next_check = 0;
  bool done = false;

  clear_world ();
  memset (&w, 0, sizeof w);
  seed = which;
  rng = which * 0x9e3779b97f4a7c15u + 1;
  for (unsigned i = 0; i < 5; i++)
    rnd (2);
  broken = false;
  w.now = 1000;
  w.n_sites = 2 + (unsigned) rnd (3);
  w.busy = 1 + (unsigned) rnd (60);
  w.tenure = 1;
  w.generation = 1;
  w.in_set = 1;
  w.quorum = true;
  w.lease = w.now + 3000;
  w.chaos = true;
  w.no_quorum_ms = chance (25) ? 500 : 0;
  w.returns_errors = chance (15);
  w.track = !chance (10);
  w.keeps = seed % 2;
  w.region = chance (50) ? UNIT : 16 * UNIT;
  w.mark_memory = malloc (mark_memory_bytes (SIZE, BLOCK, w.region, 2 * HOT_MAX_SPAN, w.n_sites));
  for (unsigned s = 0; s < w.n_sites; s++) {
    w.site[s].mark_memory = malloc (mark_memory_bytes (SIZE, BLOCK, w.region, 2 * UNITS, w.n_sites));
    w.maps[s] = memory[s];
    w.site[s].slow = 1 + (unsigned) rnd (8);
    w.site[s].delay = (unsigned) rnd (8);
    w.site[s].hosted = true;
    w.site[s].super.tenure = 1;
    w.site[s].super.empty = w.site[s].super.unusable = s != 0;
    if (s != 0)
      copy_start (s);
  }
  prod_start (false);
  after (rnd (500), SE_CHAOS);

  deadline = w.now + chaos_ms;
  while (!broken && !done) {
    struct sev e;
    if (w.n_heap == 0) {
      violate ("nothing happens any more");
      break;
    }
    e = calendar_take (w.heap, &w.n_heap);
    w.now = e.at;
    if (w.chaos && w.now >= deadline) {
      /* everything is repaired; from here it has to come together */
      w.chaos = false;
      w.quiesce = true;
      w.quorum = true;
      deadline = w.now + 60000;
      for (unsigned s = 0; s < w.n_sites; s++) {
        struct site *x = &w.site[s];
        x->slow = 2;
        x->delay = 2;
        x->stopped = false;
        if (x->cut) {
          x->cut = false;
          link_down (s, "no PONG");
        }
        if (x->store_bad && x->process && s != w.prod_site)
          copy_die (s, false);
        x->store_bad = false;
        if (!x->hosted) {
          struct sev h = { .site = (uint8_t) s, .a = 4 };
          heal (&h);
        }
        if (!x->process && s != w.prod_site)
          copy_start (s);
      }
      if (w.holding) {
        struct repl_event ev = { .kind = RE_RESUME };
        w.holding = false;
        feed (&ev);
      }
      say ("all is repaired");
      ctl_propose ();
    }
    if (!w.chaos && w.now > deadline) {
      violate ("after a minute of health: set %x of %u sites", w.in_set, w.n_sites);
      break;
    }
    switch (e.kind) {
    case SE_LOCAL:
      if (e.life == w.prod_life)
        local_done (&e);
      else
        free (e.p);
      break;
    case SE_RREAD:
      if (e.life == w.prod_life)
        resync_read (&e);
      break;
    case SE_MARK: {
      const bool prod = w.prod && e.site == w.prod_site;
      struct repl_event ev = { .kind = RE_MARKED };
      struct copy_event cev = { .kind = CE_DONE, .op = COPY_OP_MARK };
      if (e.life != (prod ? w.prod_life : w.site[e.site].life) || w.site[e.site].stage == NULL)
        break;
      if (!prod && w.site[e.site].stopped) {
        struct sev *again = after (50, SE_MARK);
        again->site = e.site;
        again->life = e.life;
        break;
      }
      end_stage (e.site, false, false);
      if (prod)
        feed (&ev);
      else
        copy_feed (e.site, &cev);
      break;
    }
    case SE_FWD:
      deliver_fwd (&e);
      break;
    case SE_BACK:
      deliver_back (&e);
      break;
    case SE_DRAIN:
      drained (&e);
      break;
    case SE_COPYOP:
      if (e.life != w.site[e.site].life)
        break;
      if (w.site[e.site].stopped) { /* the process does not see it */
        struct sev *again = after (50, SE_COPYOP);
        again->site = e.site;
        again->life = e.life;
        again->slot = e.slot;
        again->a = e.a;
        again->p = e.p;
        break;
      }
      if (e.slot == 0xffff) {
        struct copy_event ev = { .kind = CE_CLOSED, .conn = (uint32_t) e.a };
        copy_feed (e.site, &ev);
      }
      else if (e.p)
        copy_op_done (e.site, e.p, false);
      break;
    case SE_TICK: {
      struct repl_event ev = { .kind = RE_TICK };
      if (e.life != w.prod_life)
        break;
      after (REPL_TICK_MS, SE_TICK);
      if (w.quorum) {
        struct repl_event lease = { .kind = RE_LEASE };
        w.lease = w.now + 3000;
        lease.until_ms = w.lease;
        feed (&lease);
      }
      feed (&ev);
      try_connect ();
      ctl_propose ();
      check_waits ();
      break;
    }
    case SE_CLIENT:
      if (e.life == w.prod_life)
        client ();
      break;
    case SE_CTL:
      if (e.life == w.prod_life)
        ctl_handle (&e);
      break;
    case SE_COMMIT:
      if (e.life == w.prod_life && w.change != CC_NONE)
        ctl_commit ();
      break;
    case SE_RECORD: {
      struct repl_event ev = { .kind = RE_RECORD, .in_set = (uint32_t) e.a, .generation = e.b,
                               .seen = e.c };
      if (e.life == w.prod_life) {
        feed (&ev);
        for (unsigned s = 0; s < w.n_sites; s++)
          if (s != w.prod_site)
            push_record (s);
      }
      break;
    }
    case SE_DIGEST: {
      uint8_t digests[VERIFY_BLOCKS * WIRE_DIGEST_LEN];
      struct repl_event ev = { .kind = RE_DIGEST, .site = (uint8_t) w.prod_site, .seq = e.a, .map = digests,
                               .length = (e.c + BLOCK - 1) / BLOCK };
      if (e.life != w.prod_life)
        break;
      digest_of (&w.site[w.prod_site].disk, e.b, e.c, digests);
      feed (&ev);
      break;
    }
    case SE_COPYDIGEST: {
      struct site *x = &w.site[e.site];
      struct msg *m = e.p;
      if (e.life != x->life || !x->process) {
        free_msg (m);
        break;
      }
      if (x->stopped) {
        struct sev *again = after (50, SE_COPYDIGEST);
        again->site = e.site;
        again->life = e.life;
        again->p = e.p;
        break;
      }
      m->map = malloc (VERIFY_BLOCKS * WIRE_DIGEST_LEN);
      digest_of (&x->disk, m->h.offset, m->h.length, m->map);
      m->back = 6;
      go_back (e.site, m);
      break;
    }
    case SE_CHAOS:
      chaos ();
      break;
    case SE_HEAL:
      heal (&e);
      break;
    }
    if (w.now >= next_check) {
      check_tracking ();
      check_disks ();
      next_check = w.now + 20 + rnd (60);
    }
    done = !w.chaos && last_comparisons ();
  }
  if (!broken) {
    check_tracking ();
    for (unsigned s = 0; s < w.n_sites; s++)
      if (memcmp (w.site[s].disk.cur, w.site[w.prod_site].disk.cur, sizeof w.site[s].disk.cur))
        violate ("in the end site %u differs from production", s);
  }
}

int
main (int argc, char **argv)
{
  uint64_t first = 1, count = 1000, ops = 0, entered = 0, lost = 0, takeovers = 0, power = 0;
  uint64_t partial = 0, blocks = 0, of = 0, graceful = 0, stages = 0;
  uint64_t snapshots = 0, compared = 0, found = 0, repaired = 0, stopped = 0;
  unsigned bad = 0;
  int i = 1;

  if (i < argc && strcmp (argv[i], "-v") == 0) {
    verbose = true;
    i++;
  }
  if (i < argc)
    first = strtoull (argv[i++], NULL, 0);
  if (i < argc)
    count = strtoull (argv[i++], NULL, 0);
  else if (i > 1 && argc > 1 && first != 1)
    count = 1;
  for (uint64_t s = first; s < first + count; s++) {
    run (s, 4000 + (s % 7) * 3000);
    ops += w.answered_ops;
    snapshots += w.snapshots;
    entered += w.entered;
    lost += w.lost;
    takeovers += w.takeovers;
    power += w.powerlosses;
    partial += w.partial;
    blocks += w.partial_blocks;
    of += w.partial_of;
    graceful += w.graceful_ones;
    stages += w.mark.stages;
    compared += w.compared;
    found += w.found_total;
    repaired += w.repaired;
    stopped += w.stopped;
    if (broken) {
      printf ("# seed %llu at %llu ms: %s\n", (unsigned long long) s, (unsigned long long) w.now,
              broken_why);
      if (++bad >= 10)
        break;
    }
  }
  printf ("# %llu seeds: %llu requests answered, %llu entries, %llu losses, %llu takeovers, "
          "%llu power losses\n",
          (unsigned long long) count, (unsigned long long) ops, (unsigned long long) entered,
          (unsigned long long) lost, (unsigned long long) takeovers, (unsigned long long) power);
  printf ("# %llu switchovers; %llu copies came back behind, with %llu of %llu blocks to be copied; "
          "%llu stages of the last productions' maps\n",
          (unsigned long long) graceful, (unsigned long long) partial, (unsigned long long) blocks,
          (unsigned long long) of, (unsigned long long) stages);
  printf ("# %llu times a copy's content was kept before it was resynchronised\n", (unsigned long long) snapshots);
  printf ("# copies compared: %llu to their end, %llu not; %llu damaged blocks named, %llu copies repaired\n",
          (unsigned long long) compared, (unsigned long long) stopped, (unsigned long long) found,
          (unsigned long long) repaired);
  clear_world ();
  memset (&w, 0, sizeof w);
  is (bad, 0, "no seed breaks a rule");
  ok (count < 100 || (entered > count && lost > count && takeovers > count / 10 && snapshots > count / 2
                      && compared > 2 * count && stopped > count / 10 && found > count / 2 && repaired > count / 3),
      "and the seeds do what they are for");
  return tap_done ();
}
