/* SPDX-License-Identifier: BSD-3-Clause */
/* The replication core, third part: copying what differs to a copy, below application writes.
 * Pure; called by repl.c and repl_link.c alone.  It must never send a block that a write may
 * change meanwhile, nor call one clean that the copy has not confirmed stable.
 */
#include <assert.h>
#include <string.h>

#include "plugin/repl_private.h"

static uint64_t
run_bytes (const struct repl *r, struct track_range run)
{
  const uint64_t offset = run.first * r->cfg.block_size;
  const uint64_t bytes = run.n * r->cfg.block_size;
  return bytes < r->cfg.size - offset ? bytes : r->cfg.size - offset;
}

/* Locked for nothing: they are what they were. */
static void
put_back (struct repl *r, const struct repl_rslot *p, struct track_range run)
{
  (p->doubt ? track_doubt : track_mark) (&r->sites[p->site].track, run.first * r->cfg.block_size, run_bytes (r, run));
}

void
resync_cancel (struct repl *r, unsigned site)
{
  struct repl_site *x = &r->sites[site];

  for (unsigned i = 0; i < r->cfg.n_rslots; i++) {
    struct repl_rslot *p = &r->rslots[i];
    if (p->site != site || (p->state != RL_BLOCKED && p->state != RL_READING))
      continue;
    if (p->state == RL_READING)
      put_back (r, p, p->run);
    repl_rslot_release (r, i);
    p->state = p->state == RL_READING ? RL_CANCELLED : RL_FREE;
  }
  x->n_rslots = 0;
  x->pace.on = false;
  x->reserved_bytes = x->reserved_frames = 0;
  ask_cancel (r, site);
}

/* No frame may touch more regions than a copy can mark at once. */
static uint64_t
hole_max (const struct repl *r)
{
  const uint64_t span = r->cfg.mark ? (HOT_MAX_SPAN - 2) * (uint64_t) r->cfg.mark->hot.region_size
                                    : REPL_HOLE_MAX;
  return span < REPL_HOLE_MAX ? span : REPL_HOLE_MAX;
}

uint32_t
resync_block_frames (const struct repl *r)
{
  return (r->cfg.block_size + LINK_MAX_PAYLOAD - 1) / LINK_MAX_PAYLOAD;
}

uint32_t
resync_block_bytes (const struct repl *r)
{
  return r->cfg.block_size + resync_block_frames (r) * WIRE_HEADER_LEN;
}

static void
unreserve (const struct repl *r, struct repl_site *x)
{
  x->reserved_bytes -= resync_block_bytes (r);
  x->reserved_frames -= resync_block_frames (r);
  x->n_rslots--;
}

/* Its range is free of writes: read what of the run is still dirty. */
static void
start_read (struct repl *r, unsigned i, struct repl_actions *out)
{
  struct repl_rslot *p = &r->rslots[i];
  struct repl_site *x = &r->sites[p->site];
  struct repl_action *a;
  const enum track_state kind = p->doubt ? TS_DOUBT : TS_DIRTY;
  struct repl_event never = { .kind = RE_RESYNC_READ, .rslot = (uint16_t) i, .zero = RZ_HOLE };
  uint64_t n = 0;

  while (n < p->run.n && track_get (&x->track, p->run.first + n) == kind)
    n++;
  if (n == 0) { /* a write that came before has brought it to the copy */
    repl_rslot_release (r, i);
    p->state = RL_FREE;
    unreserve (r, x);
    return;
  }
  /* The rest of the run, if shorter now, stays locked until the read is over: harmless. */
  if (p->state == RL_BLOCKED)
    r->n_rblocked--;
  p->state = RL_READING;
  track_lock (&x->track, (struct track_range) { p->run.first, n });
  /* W1: zeroes, and not to be read, but where a comparison has found that the copies differ. */
  if (p->doubt)
    never.length = mark_unwritten (r->cfg.mark, p->run.first * r->cfg.block_size,
                                   run_bytes (r, (struct track_range) { p->run.first, n }));
  if (never.length > 0) {
    resync_read_done (r, &never, out);
    return;
  }
  a = act (out, RA_RESYNC_READ);
  a->rslot = (uint16_t) i;
  a->site = p->site;
  a->offset = p->run.first * r->cfg.block_size;
  a->length = run_bytes (r, (struct track_range) { p->run.first, 1 });
  a->length_max = run_bytes (r, (struct track_range) { p->run.first, n });
}

/* Does what was sent and not flushed cover so much that the flush goes first? */
static bool
is_spread (const struct repl_site *x)
{
  return x->spread >= REPL_FLUSH_REGIONS && x->track.n_sent[x->track.epoch] > 0;
}

static bool
own_reads_overlap (const struct repl *r, unsigned site, struct track_range run)
{
  for (unsigned i = 0; i < r->cfg.n_rslots; i++) {
    const struct repl_rslot *p = &r->rslots[i];
    if (p->site == site && (p->state == RL_BLOCKED || p->state == RL_READING)
        && p->run.first < run.first + run.n && run.first < p->run.first + p->run.n)
      return true;
  }
  return ask_overlaps (r, site, run);
}

/* Takes the next dirty run of a site with a link, if it may have one now.  False: not now. */
static bool
next_read (struct repl *r, unsigned site, struct repl_actions *out)
{
  struct repl_site *x = &r->sites[site];
  struct track_range run;
  struct repl_rslot *p;
  uint64_t offset, length;
  unsigned i;
  bool doubt;

  if (x->mute || !x->map_valid || (x->lack_owed && !x->lack_said) || r->failed
      || (r->hold && !r->guard) /* held, but the copies of the set are to be equal (F6) */
      /* What production itself may have to take back goes to the set first. */
      || (r->guard && !(r->in_set & 1u << site))
      || verify_keeps_out (r, site)
      || track_waiting (&x->track) == 0 || r->now_ms < x->read_retry_ms || x->enter == EN_SENT
      || is_spread (x) || pace_holds (r, site))
    return false;
  /* Half of the window is the clients', but one block goes always. */
  if (x->n_rslots + x->resync_unacked > 0
      && (uint64_t) x->resync_unacked + x->reserved_bytes + resync_block_bytes (r) > x->window_bytes / 2)
    return false;
  if (!link_fits (x, resync_block_bytes (r), resync_block_frames (r)) || !track_can_send (&x->track))
    return false;
  for (i = 0; i < r->cfg.n_rslots && r->rslots[i].state != RL_FREE; i++)
    ;
  if (i == r->cfg.n_rslots)
    return false;
  if (!has_space (out, 2)) {
    out->more = true;
    return false;
  }
  if (!track_next (&x->track, x->hole_run, ask_wanted (r, site) ? ask_max (r) : x->hole_run, &run))
    return false;
  if (own_reads_overlap (r, site, run)) {
    x->track.cursor = run.first; /* been round: its turn comes when those are over */
    return false;
  }
  doubt = track_get (&x->track, run.first) == TS_DOUBT;
  if (doubt && ask_wanted (r, site)) {
    if (x->n_asks >= REPL_MAX_ASKS) {
      x->track.cursor = run.first;
      return false;
    }
    if (ask_start (r, site, run, out)) {
      pace_took (r, site);
      return true;
    }
    run.n = 1; /* a write is under way there: under the lock */
    x->track.cursor = run.first + 1;
  }
  if (doubt && x->ask_left > 0)
    x->ask_left--;

  p = &r->rslots[i];
  p->doubt = doubt;
  p->state = RL_BLOCKED;
  p->site = (uint8_t) site;
  p->run = run;
  p->order = ++r->order;
  p->blockers = 0;
  offset = run.first * r->cfg.block_size;
  length = run_bytes (r, run);
  for (unsigned k = r->first; k != REPL_NONE; k = r->slots[k].next) {
    const struct repl_slot *s = &r->slots[k];
    if (op_is_data (s->op) && ranges_overlap (offset, length, s->offset, s->length))
      p->blockers++;
  }
  r->n_rblocked++;
  x->n_rslots++;
  pace_took (r, site);
  x->reserved_bytes += resync_block_bytes (r);
  x->reserved_frames += resync_block_frames (r);
  if (p->blockers == 0)
    start_read (r, i, out);
  return true;
}

/* A copy has to have a mark for each region until it may let go of it. */
static void
count_spread (const struct repl *r, struct repl_site *x, uint64_t offset, uint64_t length)
{
  const uint64_t size = r->cfg.mark ? r->cfg.mark->hot.region_size : r->cfg.size;
  const uint64_t first = offset / size, last = (offset + length - 1) / size;

  x->spread += (unsigned) (last - first) + (x->spread == 0 || first != x->spread_last);
  x->spread_last = last;
}

void
resync_read_done (struct repl *r, const struct repl_event *ev, struct repl_actions *out)
{
  struct repl_rslot *p;
  struct repl_site *x;
  struct track_range locked, got;
  uint64_t offset, length;
  uint16_t keep;
  bool repair;

  if (ev->rslot >= r->cfg.n_rslots
      || (r->rslots[ev->rslot].state != RL_READING
          && r->rslots[ev->rslot].state != RL_CANCELLED)) {
    r->counters.illegal++;
    return;
  }
  p = &r->rslots[ev->rslot];
  if (p->state == RL_CANCELLED) {
    p->state = RL_FREE;
    return;
  }
  x = &r->sites[p->site];
  /* A copy in the set stays usable while a block of it is repaired. */
  repair = (r->in_set & 1u << p->site) || x->enter == EN_READY;
  /* The others of the set may be as it was: that it has been changed stays marked until they are equal. */
  keep = r->guard && repair && x->keeps ? WIRE_F_KEEP : 0;
  unreserve (r, x);
  locked = p->run;
  for (uint64_t n = 0; n < p->run.n; n++)
    if (track_get (&x->track, p->run.first + n) != TS_SYNCING)
      locked.n = n < locked.n ? n : locked.n;
    else if (n > locked.n) /* behind one that was marked meanwhile: nobody else unlocks it */
      put_back (r, p, (struct track_range) { p->run.first + n, 1 });
  got = (struct track_range) { locked.first, 1 };
  offset = got.first * r->cfg.block_size;
  if (ev->error == 0 && ev->zero == RZ_HOLE && ev->length > 0) {
    /* Whole blocks of the hole only, but the last block of the store may be short. */
    uint64_t n = offset + ev->length >= r->cfg.size ? locked.n : ev->length / r->cfg.block_size;
    if (n > 1)
      got.n = n < locked.n ? n : locked.n;
    x->hole_run = x->hole_run * 4 * r->cfg.block_size <= hole_max (r)
                      ? x->hole_run * 4
                      : hole_max (r) / r->cfg.block_size;
  }
  else
    x->hole_run = 1;
  length = run_bytes (r, got);

  if (locked.n > got.n) /* read as a hole for nothing: dirty again */
    put_back (r, p, (struct track_range) { got.first + got.n, locked.n - got.n });
  if (locked.n > 0 && got.first + got.n < x->track.cursor
      && x->track.cursor <= locked.first + locked.n)
    x->track.cursor = got.first + got.n;

  if (locked.n == 0) /* marked all over meanwhile */
    ;
  else if (ev->error != 0) {
    track_mark (&x->track, offset, length);
    x->read_retry_ms = r->now_ms + REPL_READ_RETRY_MS;
    repl_set_reason (x->reason, "the production store can't read a block to be resynchronised");
  }
  else {
    if (x->read_retry_ms != 0) {
      x->read_retry_ms = 0;
      x->reason[0] = '\0';
    }
    if (ev->zero == RZ_DATA) {
      for (uint64_t at = 0; at < length; at += LINK_MAX_PAYLOAD) {
        const uint32_t n
            = length - at < LINK_MAX_PAYLOAD ? (uint32_t) (length - at) : LINK_MAX_PAYLOAD;
        struct repl_action *a
            = link_send (r, p->site, repair ? WIRE_WRITE : WIRE_RESYNC_WRITE, FL_RESYNC,
                          offset + at, n, n, out);
        a->rslot = ev->rslot;
        a->slot_offset = (uint32_t) at;
        a->frame.flags = keep;
        a->frame.missing = r->others & ~r->in_set;
        x->resync_unacked += n + WIRE_HEADER_LEN;
        x->resync_bytes += n;
      }
    }
    else {
      struct repl_action *a
          = link_send (r, p->site, repair ? WIRE_ZERO : WIRE_RESYNC_ZERO, FL_RESYNC, offset,
                        length, 0, out);
      a->frame.missing = r->others & ~r->in_set;
      a->frame.flags = keep | (ev->zero == RZ_HOLE ? WIRE_F_MAY_TRIM : 0);
      x->resync_unacked += WIRE_HEADER_LEN;
      r->counters.hole_blocks += got.n;
    }
    x->resync_begun = x->resync_begun || !repair;
    r->kept = r->kept || keep != 0;
    r->counters.resync_blocks += got.n;
    track_resync_sent (&x->track, got);
    count_spread (r, x, offset, length);
  }
  /* The order of the stream protects it from here. */
  repl_rslot_release (r, ev->rslot);
  p->state = RL_FREE;
}

/* A block is clean once the copy has confirmed a flush behind it. */
static void
resync_flush (struct repl *r, unsigned site, struct repl_actions *out)
{
  struct repl_site *x = &r->sites[site];
  const unsigned n = x->track.n_sent[x->track.epoch];
  const bool idle = track_open (&x->track) == 0;

  if (!x->link_up || x->mute || n == 0 || x->track.closing || x->enter == EN_SENT
      || x->enter == EN_READY)
    return;
  if (n < REPL_FLUSH_RANGES && !is_spread (x) && r->now_ms - x->flush_ms < REPL_FLUSH_MS
      && !(idle && (r->in_set & 1u << site)))
    return;
  if (!link_fits (x, WIRE_HEADER_LEN, 1))
    return;
  if (!has_space (out, 1)) {
    out->more = true;
    return;
  }
  link_send (r, site, WIRE_FLUSH, FL_FLUSH, 0, 0, 0, out);
  x->flight[x->seq % LINK_WINDOW_FRAMES].bound = !set_is_equal (r) ? 0 : stable_bound (r, site);
  track_flush_sent (&x->track);
  x->flush_ms = r->now_ms;
  x->spread = 0;
}

void
resync_pump (struct repl *r, struct repl_actions *out)
{
  bool again = true;

  ask_pump (r);
  if (r->n_rblocked > 0)
    for (unsigned i = 0; i < r->cfg.n_rslots; i++)
      if (r->rslots[i].state == RL_BLOCKED && r->rslots[i].blockers == 0) {
        if (!has_space (out, 1)) {
          out->more = true;
          return;
        }
        start_read (r, i, out);
      }
  /* One block a site in turn, as long as any may have one. */
  while (again) {
    again = false;
    for (unsigned k = 0; k < r->cfg.n_sites; k++) {
      unsigned s = (r->next_site + k) % r->cfg.n_sites;
      if (s != r->cfg.site && r->sites[s].link_up && next_read (r, s, out))
        again = true;
    }
    r->next_site = (r->next_site + 1) % r->cfg.n_sites;
  }
  for (unsigned s = 0; s < r->cfg.n_sites; s++)
    if (r->sites[s].link_up)
      resync_flush (r, s, out);
}

/* What a resync after a crash can be promised: the rate at which data (no holes) was sent in seconds
 * in which there was something to copy all the time. */
void
resync_measure (struct repl *r, struct repl_site *x, uint64_t ms)
{
  const bool busy = x->link_up && !x->mute && track_waiting (&x->track) > 0;
  const uint64_t sent = x->resync_bytes - x->rate_sent;
  uint64_t now;

  if (busy && x->rate_whole && sent > 0 && ms > 0 && ms <= 2000 && r->counters.hole_blocks == x->rate_holes
      && r->counters.asks == x->rate_asks) {
    now = sent * 1000 / ms;
    r->resync_rate = r->resync_rate ? (r->resync_rate * 3 + now) / 4 : now;
  }
  x->rate_whole = busy;
  x->rate_sent = x->resync_bytes;
  x->rate_holes = r->counters.hole_blocks;
  x->rate_asks = r->counters.asks;
}

uint64_t
repl_resync_rate (const struct repl *r)
{
  return r->resync_rate;
}
