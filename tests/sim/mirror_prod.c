/* SPDX-License-Identifier: BSD-3-Clause */
/* Production's shell in sim-repl: what the core asks for is done a little later, and clients ask for something.
 * See mirror.h.
 */

#include <stdlib.h>
#include <string.h>

#include "tests/sim/mirror.h"

static void prod_actions (struct repl_actions *out);

static uint64_t
equal_bytes (void)
{
  uint64_t n = 0;
  for (unsigned s = 0; s < w.n_sites; s++)
    n += w.r.sites[s].equal_bytes;
  return n;
}

void
feed (struct repl_event *ev)
{
  static struct repl_actions out;
  uint64_t equal;
  uint32_t owed = 0;
  unsigned rounds = 0;

  if (!w.prod || broken)
    return;
  ev->now_ms = w.now;
  ev->read_ms = w.read_ms;
  for (unsigned s = 0; s < w.n_sites; s++) {
    w.lacked[s] = track_open (&w.r.sites[s].track);
    owed |= w.r.sites[s].lack_owed ? 1u << s : 0;
  }
  equal = equal_bytes ();
  repl_step (&w.r, ev, &out);
  w.equal += (equal_bytes () - equal) / BLOCK;
  for (;;) {
    bool more = out.more;
    prod_actions (&out);
    if (!more || broken)
      break;
    if (++rounds > 1000) {
      violate ("the core asks for more without end");
      break;
    }
    struct repl_event e = { .kind = RE_MORE, .now_ms = w.now, .read_ms = w.read_ms };
    repl_step (&w.r, &e, &out);
  }
  if (repl_wake_us (&w.r) != UINT64_MAX && repl_wake_us (&w.r) / 1000 != w.wake_ms) {
    w.wake_ms = repl_wake_us (&w.r) / 1000;
    after (w.wake_ms - w.now, SE_WAKE);
  }
  for (unsigned s = 0; s < w.n_sites; s++)
    if (w.r.sites[s].lack_owed && !(owed & 1u << s) && !w.site[s].may_fill)
      violate ("site %u is filled from the start, and has said what it lacks", s);
  check_pace ();
  if (w.r.counters.illegal)
    violate ("the core counted an illegal event (fed %u)", ev->kind);
}

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
           && w.local_errors == 0 && w.lacked[a->site] > 0 && track_waiting (&w.r.sites[a->site].track) > 0)
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

void
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
        for (unsigned k = u0 (q->offset); op_is_data (q->op) && k < u0 (q->offset + q->length); k++)
          check_hot (w.prod_site, k);
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
      e = after (rnd (1 + w.site[w.prod_site].slow) + (w.chaos ? rnd (1 + w.read_slow) : 0), SE_RREAD);
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
      /* It may be left out, but for what has to be answered. */
      if ((chance (90) || (a->frame.flags & WIRE_F_SYNC)) && w.site[a->site].conn_up) {
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
      e->p = new_look (a->offset, a->length);
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

/* --- what workers do ---------------------------------------------------------------------------- */

void
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
    note_heard (q);
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
      w.read_ms = w.now;
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

void
local_done (struct sev *e)
{
  struct disk *d = &w.site[w.prod_site].disk;
  struct repl_event ev = { .kind = RE_LOCAL_DONE, .slot = e->slot };

  if (e->slot < SLOTS) {
    struct req *q = &w.req[e->slot];
    q->local_busy = false;
    for (unsigned i = u0 (q->offset); op_is_data (q->op) && i < u0 (q->offset + q->length); i++)
      check_hot (w.prod_site, i);
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

void
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
