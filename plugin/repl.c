/* SPDX-License-Identifier: BSD-3-Clause */
/* The replication core: requests, their range lock, their hot regions, their completion; lease and
 * hold.  What concerns one copy (its link, its way in and out of the set) is in repl_link.c, its
 * resync in repl_resync.c, repl_ask.c and repl_pace.c, what the core shows in repl_status.c.  Pure; called
 * by the plugin's engine thread and by the simulator.  It must never complete a request that lacks its local part,
 * one of its copies, or the lease.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "common/util.h"
#include "plugin/repl_private.h"

void
repl_set_reason (char *dst, const char *src)
{
  size_t n = src ? strlen (src) : 0;
  if (n > CRG_REASON_MAX)
    n = CRG_REASON_MAX;
  if (n > 0)
    memcpy (dst, src, n);
  dst[n] = '\0';
}

bool
repl_lease_ok (const struct repl *r)
{
  /* L4: asked with each answer, by the time of the event: a process that was stopped finds it over. */
  return r->lease_ms == UINT64_MAX || r->now_ms < r->lease_ms;
}

const char *
repl_init (struct repl *r, const struct repl_config *cfg, uint64_t now_ms)
{
  if (cfg->n_sites == 0 || cfg->n_sites > CRG_MAX_SITES || cfg->site >= cfg->n_sites)
    return "the own site or the number of sites is out of range";
  if (cfg->block_size < DIRTY_BLOCK_SIZE_MIN || cfg->block_size > DIRTY_BLOCK_SIZE_MAX
      || (cfg->block_size & (cfg->block_size - 1)) != 0)
    return "the tracking block size is no power of two in its limits";
  if (cfg->size == 0 || cfg->size > STORE_MAX_BYTES)
    return "the size of the data is out of its limits";
  if (cfg->n_rslots == 0 || cfg->n_rslots > REPL_MAX_RSLOTS)
    return "the number of resync buffers is out of its limits";
  if (cfg->mark && (cfg->mark->block_size != cfg->block_size || cfg->mark->data_bytes != cfg->size))
    return "the maps are for another size of data or block";
  if (cfg->share_percent == 0 || cfg->share_percent > 100)
    return "the share of the resync is no percentage from 1 to 100";
  for (unsigned s = 0; s < cfg->n_sites; s++)
    if (s != cfg->site
        && (cfg->track_memory[s] == NULL
            || cfg->track_memory_bytes < track_memory_bytes (cfg->size, cfg->block_size)))
      return "the memory for tracking is missing or too small";

  memset (r, 0, sizeof *r);
  r->cfg = *cfg;
  r->now_ms = now_ms;
  r->others = ((1u << cfg->n_sites) - 1) & ~(1u << cfg->site);
  r->in_set = cfg->in_set & r->others;
  r->generation = cfg->generation;
  r->first = r->last = REPL_NONE;
  for (unsigned s = 0; s < cfg->n_sites; s++)
    if (s != cfg->site)
      link_init (r, s);
  /* Until each copy of the set has said in what it may differ, and is equal. */
  r->guard = cfg->mark && !cfg->equal && set_mask (r) != 0;
  return NULL;
}

/* --- the range lock: overlapping writes, and resync reads, in arrival order ------------------ */

static bool
slots_conflict (const struct repl_slot *a, const struct repl_slot *b)
{
  return op_is_data (a->op) && (op_is_data (b->op) || b->op == RO_READ_WAIT)
         && ranges_overlap (a->offset, a->length, b->offset, b->length);
}

static bool
rslot_conflicts (const struct repl *r, const struct repl_rslot *x, const struct repl_slot *b)
{
  const uint64_t bs = r->cfg.block_size;
  return (x->state == RL_BLOCKED || x->state == RL_READING) && op_is_data (b->op)
         && ranges_overlap (x->run.first * bs, x->run.n * bs, b->offset, b->length);
}

static void
make_done (struct repl *r, unsigned slot)
{
  r->slots[slot].state = SL_DONE;
  queue_push (&r->done, (uint16_t) slot);
}

/* Would a failover to any copy of the set give what production has here? */
static bool
range_is_equal (const struct repl *r, uint64_t offset, uint64_t length)
{
  if (!r->guard || length == 0)
    return true;
  for (unsigned site = 0; site < r->cfg.n_sites; site++) {
    const struct repl_site *x = &r->sites[site];
    if (!(set_mask (r) & 1u << site))
      continue;
    if (x->map_needed)
      return false;
    for (uint64_t b = offset / r->cfg.block_size; b <= (offset + length - 1) / r->cfg.block_size; b++)
      if (track_get (&x->track, b) != TS_CLEAN)
        return false;
  }
  return true;
}

/* Nothing earlier stands in its way any more. */
static void
unblocked (struct repl *r, unsigned slot)
{
  struct repl_slot *s = &r->slots[slot];

  if (s->op == RO_READ_WAIT && !range_is_equal (r, s->offset, s->length)) {
    s->guarded = true;
    r->n_guarded++;
  }
  else if (s->op == RO_READ_WAIT) {
    r->n_blocked--;
    make_done (r, slot);
  }
  else
    queue_push (&r->runnable, (uint16_t) slot);
}

static void
list_append (struct repl *r, unsigned slot)
{
  struct repl_slot *s = &r->slots[slot];
  s->next = REPL_NONE;
  s->prev = r->last;
  if (r->last != REPL_NONE)
    r->slots[r->last].next = (uint16_t) slot;
  else
    r->first = (uint16_t) slot;
  r->last = (uint16_t) slot;
  r->n_used++;
}

static void
list_remove (struct repl *r, unsigned slot)
{
  struct repl_slot *s = &r->slots[slot];
  if (s->prev != REPL_NONE)
    r->slots[s->prev].next = s->next;
  else
    r->first = s->next;
  if (s->next != REPL_NONE)
    r->slots[s->next].prev = s->prev;
  else
    r->last = s->prev;
  r->n_used--;
}

/* Slot leaves: whoever waited for its range goes on. */
static void
slot_release (struct repl *r, unsigned slot)
{
  struct repl_slot *s = &r->slots[slot];

  if (op_is_data (s->op)) {
    if (r->n_blocked > 0)
      for (unsigned i = s->next; i != REPL_NONE; i = r->slots[i].next) {
        struct repl_slot *w = &r->slots[i];
        if (w->state == SL_BLOCKED && w->blockers > 0 && slots_conflict (s, w)
            && --w->blockers == 0)
          unblocked (r, i);
      }
    if (r->n_rblocked > 0)
      for (unsigned i = 0; i < r->cfg.n_rslots; i++) {
        struct repl_rslot *x = &r->rslots[i];
        if (x->state == RL_BLOCKED && x->blockers > 0 && x->order > s->order
            && rslot_conflicts (r, x, s))
          x->blockers--; /* link_pump looks for those with none left */
      }
    if (r->vlock.state == RL_BLOCKED && r->vlock.blockers > 0 && r->vlock.order > s->order
        && rslot_conflicts (r, &r->vlock, s))
      r->vlock.blockers--; /* ... and verify_pump for this one */
  }
  list_remove (r, slot);
  s->state = SL_FREE;
}

/* The requests that waited for this range go on. */
void
repl_range_release (struct repl *r, const struct repl_rslot *x)
{
  if (r->n_blocked > 0)
    for (unsigned i = r->first; i != REPL_NONE; i = r->slots[i].next) {
      struct repl_slot *w = &r->slots[i];
      if (w->state == SL_BLOCKED && w->blockers > 0 && w->order > x->order
          && rslot_conflicts (r, x, w) && --w->blockers == 0)
        unblocked (r, i);
    }
}

void
repl_rslot_release (struct repl *r, unsigned rslot)
{
  struct repl_rslot *x = &r->rslots[rslot];

  repl_range_release (r, x);
  if (x->state == RL_BLOCKED)
    r->n_rblocked--;
}

/* --- requests -------------------------------------------------------------------------------- */

static bool
request_is_valid (const struct repl *r, const struct repl_event *ev)
{
  switch (ev->op) {
  case RO_WRITE:
    if (ev->length == 0 || ev->length > NBD_MAX_REQUEST)
      return false;
    break;
  case RO_ZERO:
  case RO_TRIM:
    if (ev->length == 0 || ev->length > NBD_MAX_LENGTH)
      return false;
    break;
  case RO_FLUSH:
    return ev->length == 0 && ev->offset == 0;
  case RO_READ_WAIT:
    break;
  default:
    return false;
  }
  return ev->offset <= r->cfg.size && ev->length <= r->cfg.size - ev->offset;
}

/* --- hot regions ----------------------------------------------------------------------------- */

bool
repl_app_is_idle (const struct repl *r)
{
  return r->app_ms == 0 || r->now_ms - r->app_ms >= REPL_HOT_IDLE_MS;
}

static bool
has_hot_room (const struct repl *r, unsigned slot)
{
  return hot_has_room (&r->cfg.mark->hot, r->slots[slot].offset, r->slots[slot].length);
}

/* The next request that may be granted, or REPL_NONE.  A write for which no hot region is free
 * waits, and all writes behind it, so that a long one gets its turn. */
static unsigned
next_runnable (struct repl *r)
{
  if (r->stalled.n > 0 && has_hot_room (r, queue_peek (&r->stalled))) {
    const unsigned slot = queue_pop (&r->stalled);
    r->slots[slot].stalled = false;
    return slot;
  }
  while (r->runnable.n > 0) {
    const unsigned slot = queue_pop (&r->runnable);
    if (!r->cfg.mark || !op_is_data (r->slots[slot].op)
        || (r->stalled.n == 0 && has_hot_room (r, slot)))
      return slot;
    r->slots[slot].stalled = true;
    queue_push (&r->stalled, (uint16_t) slot);
  }
  return REPL_NONE;
}

/* Zeroes for what was never written: there is nothing to do, here (W1) or on a copy of the set, which is equal.
 * While it may not be, it gets them: what is answered survives a takeover.  And it may have its zeroes in a cache
 * (FUA). */
static bool
changes_nothing (const struct repl *r, const struct repl_slot *s)
{
  return (s->op == RO_ZERO || s->op == RO_TRIM) && !(s->flags & RF_FUA)
         && mark_unwritten (r->cfg.mark, s->offset, s->length) == s->length
         && range_is_equal (r, s->offset, s->length);
}

/* A write is granted: counts in its regions. */
static void
take_hot (struct repl *r, unsigned slot)
{
  struct repl_slot *s = &r->slots[slot];
  bool full;

  if (!r->cfg.mark || !op_is_data (s->op) || changes_nothing (r, s))
    return;
  s->unmarked = !hot_begin (&r->cfg.mark->hot, s->offset, s->length, &full);
  assert (!full);
  s->hot = true;
}

static void
leave_hot (struct repl *r, unsigned slot)
{
  struct repl_slot *s = &r->slots[slot];

  if (s->hot)
    hot_end (&r->cfg.mark->hot, s->offset, s->length, r->cfg.mark->hot.cycle);
  s->hot = false;
}

static void
local_part (struct repl *r, unsigned slot, struct repl_actions *out)
{
  const struct repl_slot *s = &r->slots[slot];
  struct repl_action *a = act (out, RA_LOCAL);

  a->slot = (uint16_t) slot;
  a->op = s->op;
  a->flags = s->flags;
  a->offset = s->offset;
  a->length = s->length;
}

static void store_failed (struct repl *r, int error, const char *reason,
                          struct repl_actions *out);

static void
marked (struct repl *r, const struct repl_event *ev, struct repl_actions *out)
{
  if (!r->cfg.mark || r->cfg.mark->stage == MS_IDLE) {
    r->counters.illegal++;
    return;
  }
  if (mark_done (r->cfg.mark, ev->error == 0))
    act (out, RA_MARK);
  r->marks_stand = true;
  if (ev->error != 0) /* F4 */
    store_failed (r, ev->error, "a write of the production store's metadata failed", out);
}

/* What a flush covers makes room, before the requests that may need it are granted. */
static void
pump_clears (struct repl *r)
{
  struct mark *m = r->cfg.mark;

  if (!m || r->failed || m->stage != MS_IDLE)
    return;
  if (r->settle) {
    r->settle = false;
    r->settled = true;
    mark_settle (m);
    r->clear = 2;
  }
  if (r->clear != 0) {
    mark_clear (m, r->clear == 2);
    for (unsigned site = 0; site < r->cfg.n_sites; site++)
      if (r->clear == 2 && r->sites[site].link_up)
        r->sites[site].clear = true;
    r->clear = 0;
  }
}

/* Lets go of what has its mark; writes and flushes what has to be.  False: once more. */
static bool
pump_marks (struct repl *r, struct repl_actions *out)
{
  struct mark *m = r->cfg.mark;
  const bool idle = repl_app_is_idle (r) || r->hold;

  if (!m || r->failed)
    return true;
  /* Only then: a region whose mark is missing gets it by a batch and by nothing else. */
  if (r->marks_stand && r->n_unmarked > 0)
    for (unsigned i = r->first; i != REPL_NONE; i = r->slots[i].next) {
      struct repl_slot *s = &r->slots[i];
      if (s->state != SL_ACTIVE || !s->unmarked || !hot_ready (&m->hot, s->offset, s->length))
        continue;
      if (!has_space (out, 1))
        return false;
      s->unmarked = false;
      r->n_unmarked--;
      local_part (r, i, out);
    }
  r->marks_stand = false;
  if (mark_begin (m, idle))
    act (out, RA_MARK);
  return true;
}

/* Reads that waited for equal copies; the end of the wait for all. */
static void
pump_guard (struct repl *r, struct repl_actions *out)
{
  if (!r->guard)
    return;
  if (r->n_guarded > 0)
    for (unsigned i = r->first; i != REPL_NONE; i = r->slots[i].next) {
      struct repl_slot *s = &r->slots[i];
      if (s->guarded && range_is_equal (r, s->offset, s->length)) {
        s->guarded = false;
        r->n_guarded--;
        r->n_blocked--;
        make_done (r, i);
      }
    }
  if (!set_is_equal (r))
    return;
  assert (r->n_guarded == 0);
  r->guard = false;
  act (out, RA_GUARD)->error = 0;
}

static unsigned
frames_of (unsigned op, unsigned flags, uint64_t length)
{
  unsigned n = 1;
  if (op == RO_WRITE)
    n = (unsigned) ((length + LINK_MAX_PAYLOAD - 1) / LINK_MAX_PAYLOAD);
  if (n > 1 && (flags & RF_FUA))
    n++; /* one FLUSH after the payloads, not one flush for each */
  return n;
}

static void
complete (struct repl *r, unsigned slot, int error, struct repl_actions *out)
{
  struct repl_action *a;

  if (slot >= REPL_MAX_SLOTS) {
    if (error == 0)
      stable_flush_covered (r, slot);
    slot_release (r, slot);
    r->n_granted--;
    if (slot == REPL_SLOT_DRAIN && r->hold && r->drain_of_hold && error == 0)
      r->drain_done = true;
    return;
  }
  a = act (out, RA_COMPLETE);
  a->slot = (uint16_t) slot;
  a->op = r->slots[slot].op;
  a->error = error;
  r->counters.completed++;
  if (error)
    r->counters.errors++;
  if (r->slots[slot].op != RO_READ_WAIT)
    r->n_granted--;
  if (r->slots[slot].op == RO_FLUSH && error == 0)
    stable_flush_covered (r, slot);
  leave_hot (r, slot);
  slot_release (r, slot);
}

static void
request (struct repl *r, const struct repl_event *ev, struct repl_actions *out)
{
  struct repl_slot *s;

  if (ev->slot >= REPL_MAX_SLOTS || r->slots[ev->slot].state != SL_FREE) {
    r->counters.illegal++;
    return;
  }
  r->counters.requests++;
  if (!request_is_valid (r, ev)
      || (r->cfg.mark && ev->op != RO_READ_WAIT
          && ev->length / r->cfg.mark->hot.region_size + 2 > HOT_MAX_SPAN)) {
    struct repl_action *a = act (out, RA_COMPLETE);
    a->slot = ev->slot;
    a->op = ev->op;
    a->error = -EINVAL;
    r->counters.illegal++;
    return;
  }
  s = &r->slots[ev->slot];
  memset (s, 0, sizeof *s);
  s->state = SL_BLOCKED;
  s->op = ev->op;
  s->flags = (uint8_t) ev->flags;
  s->offset = ev->offset;
  s->length = ev->length;
  s->order = ++r->order;
  s->since_ms = r->now_ms;
  s->n_frames = (uint8_t) frames_of (s->op, s->flags, s->length);
  if (s->op != RO_READ_WAIT)
    r->app_ms = r->now_ms;
  if (s->op != RO_FLUSH && s->length > 0) {
    for (unsigned i = r->first; i != REPL_NONE; i = r->slots[i].next)
      if (slots_conflict (&r->slots[i], s))
        s->blockers++;
    for (unsigned i = 0; i < r->cfg.n_rslots; i++)
      if (rslot_conflicts (r, &r->rslots[i], s))
        s->blockers++;
    if (rslot_conflicts (r, &r->vlock, s))
      s->blockers++;
    if (s->blockers > 0)
      r->counters.locks_waited++;
  }
  list_append (r, ev->slot);
  r->n_blocked++;
  if (s->blockers == 0)
    unblocked (r, ev->slot);
}

void
repl_check_done (struct repl *r, unsigned slot)
{
  struct repl_slot *s = &r->slots[slot];
  if (s->state == SL_ACTIVE && s->local_done && s->pending == 0)
    make_done (r, slot);
}

static void
grant (struct repl *r, unsigned slot, struct repl_actions *out)
{
  struct repl_slot *s = &r->slots[slot];

  s->state = SL_ACTIVE;
  s->since_ms = r->now_ms;
  r->n_granted++;
  if (r->flush_failed && (s->op == RO_FLUSH || (s->flags & RF_FUA))) {
    /* F4: a failed flush is never retried into success. */
    s->local_done = true;
    s->error = -EIO;
    repl_check_done (r, slot);
    return;
  }
  if (op_is_data (s->op) && !s->hot && changes_nothing (r, s)) {
    r->counters.unwritten++;
    s->local_done = true;
    repl_check_done (r, slot);
    return;
  }
  if (s->unmarked)
    r->n_unmarked++; /* pump_marks goes on with it */
  else
    local_part (r, slot, out);
  s->must = s->pending = must_mask (r);
  if (s->op == RO_FLUSH)
    stable_flush_begins (r, slot);
  link_grant (r, slot, out);
}

/* A flush of the core's own, for all in `must`. */
static void
own_flush (struct repl *r, unsigned slot, struct repl_actions *out)
{
  struct repl_slot *s = &r->slots[slot];

  memset (s, 0, sizeof *s);
  s->op = RO_FLUSH;
  s->order = ++r->order;
  s->n_frames = 1;
  list_append (r, slot);
  grant (r, slot, out);
}

/* Is a flush worth it, so that hot marks can go, here or at the copies? */
static bool
wants_flush (const struct repl *r)
{
  const struct hot *h = r->cfg.mark ? &r->cfg.mark->hot : NULL;
  const uint64_t age = r->now_ms - r->sync_ms;

  if (!h || r->failed || r->flush_failed || (r->hold && !r->guard) || r->slots[REPL_SLOT_SYNC].state != SL_FREE)
    return false;
  if (hot_wants_flush (h) || (r->stalled.n > 0 && (h->n_ended > 0 || age >= REPL_TICK_MS)))
    return true;
  if (!r->settled && !r->settle && set_is_equal (r))
    return true;
  for (unsigned s = 0; s < r->cfg.n_sites; s++)
    if ((r->in_set & 1u << s) && r->sites[s].link_up && !r->sites[s].settled
        && set_is_equal (r) && age >= REPL_TICK_MS)
      return true;
  if (h->n_entries == 0) /* what makes a copy equal may be in more regions than it can mark at once */
    return r->kept && age >= REPL_HOT_FLUSH_MS;
  return repl_app_is_idle (r) ? age >= REPL_TICK_MS : age >= REPL_HOT_FLUSH_MS;
}

static void
store_failed (struct repl *r, int error, const char *reason, struct repl_actions *out)
{
  struct repl_action *a;

  if (r->failed)
    return;
  r->failed = true;
  repl_set_reason (r->fail_reason, reason);
  a = act (out, RA_STORE_FAILED);
  a->error = error;
  a->reason = r->fail_reason;
}

static void
local_done (struct repl *r, const struct repl_event *ev, struct repl_actions *out)
{
  struct repl_slot *s;

  if (ev->slot >= REPL_SLOTS || r->slots[ev->slot].state != SL_ACTIVE
      || r->slots[ev->slot].local_done) {
    r->counters.illegal++;
    return;
  }
  s = &r->slots[ev->slot];
  if (ev->error != 0) {
    bool flush = s->op == RO_FLUSH || (s->flags & RF_FUA);

    s->error = ev->error;
    /* A copy may hold what production could not write: they differ now. */
    if (op_is_data (s->op))
      link_local_error (r, ev->slot);
    if (!r->cfg.return_store_error) {
      store_failed (r, ev->error,
                    flush ? "a flush of the production store failed"
                          : "a write to the production store failed",
                    out);
      return; /* stays as it is: the client's request is held, clients fail over */
    }
    if (flush)
      r->flush_failed = true;
  }
  s->local_done = true;
  repl_check_done (r, ev->slot);
}

static void
pump (struct repl *r, struct repl_actions *out)
{
  const unsigned need = 1 + (CRG_MAX_SITES - 1) * REPL_FRAMES_MAX;
  const bool lease = repl_lease_ok (r);
  bool again = true;

  while (r->stalled.n > 0 && !lease && r->lease_error) {
    unsigned slot = queue_pop (&r->stalled);
    r->slots[slot].stalled = false;
    queue_push (&r->runnable, (uint16_t) slot);
  }
  /* L2: after the no-quorum-timeout requests end in an error.  Those that a copy still lacks
   * go on waiting: what it lacks must not be read and then be taken back. */
  while (again) {
    again = false;
    while (r->done.n > 0 && !r->failed && (lease || r->lease_error)) {
      unsigned slot;
      if (!has_space (out, 2)) {
        out->more = true;
        return;
      }
      slot = queue_pop (&r->done);
      complete (r, slot, lease || r->slots[slot].error ? r->slots[slot].error : -EIO, out);
      again = true;
    }
    pump_clears (r);
    while (r->runnable.n + r->stalled.n > 0 && !r->hold && !r->failed && (lease || r->lease_error)) {
      unsigned slot;
      if (!has_space (out, need)) {
        out->more = true;
        return;
      }
      slot = lease ? next_runnable (r) : queue_pop (&r->runnable);
      if (slot == REPL_NONE)
        break;
      r->n_blocked--;
      if (lease) {
        take_hot (r, slot);
        grant (r, slot, out);
      }
      else { /* never begun */
        r->n_granted++;
        r->slots[slot].error = -EIO;
        make_done (r, slot);
      }
      again = true;
    }
  }

  /* A store whose flush failed is never drained (F4); without a lease nothing is (L2). */
  if (r->hold && !r->drained && !r->drain_done && !r->guard && !r->failed && !r->flush_failed && lease
      && r->n_granted == 0
      && r->slots[REPL_SLOT_DRAIN].state == SL_FREE) {
    if (!has_space (out, need)) {
      out->more = true;
      return;
    }
    r->drain_of_hold = true; /* not one that an earlier hold has left behind */
    own_flush (r, REPL_SLOT_DRAIN, out);
  }
  if (lease && wants_flush (r)) {
    if (!has_space (out, need)) {
      out->more = true;
      return;
    }
    r->counters.own_flushes++;
    own_flush (r, REPL_SLOT_SYNC, out);
  }
  link_pump (r, out);
  verify_pump (r, out);
  pump_guard (r, out);
  if (!pump_marks (r, out))
    out->more = true;
  /* Drained: what need not be hot any more isn't on disk either, for whoever opens it next. */
  if (r->hold && r->drain_done && !r->drained && !r->failed
      && (!r->cfg.mark || (r->cfg.mark->stage == MS_IDLE && !r->settle && r->clear == 0))) {
    r->drained = true;
    stable_tell (r, out);
    act (out, RA_DRAINED);
  }
  /* A resync read that turned out needless may have let a write go on. */
  if (!r->failed && (lease || r->lease_error)
      && (r->done.n > 0 || (r->runnable.n > 0 && !r->hold)))
    out->more = true;
}

void
repl_step (struct repl *r, const struct repl_event *ev, struct repl_actions *out)
{
  out->n = 0;
  out->more = false;
  if (ev->now_ms > r->now_ms)
    r->now_ms = ev->now_ms;
  if (ev->now_us > r->now_us)
    r->now_us = ev->now_us;
  if (r->now_ms * 1000 > r->now_us)
    r->now_us = r->now_ms * 1000;
  r->read_ms = ev->read_ms;

  switch ((enum repl_event_kind) ev->kind) {
  case RE_REQUEST:
    request (r, ev, out);
    break;
  case RE_LOCAL_DONE:
    local_done (r, ev, out);
    break;
  case RE_LINK_UP:
  case RE_LINK_DOWN:
  case RE_ACK:
  case RE_STABLE:
  case RE_COPY_ERROR:
  case RE_ROOM:
  case RE_MAP:
  case RE_MIRROR:
  case RE_UNMIRROR:
  case RE_DETACHED:
    if (ev->site >= r->cfg.n_sites || ev->site == r->cfg.site)
      r->counters.illegal++;
    else
      link_event (r, ev, out);
    break;
  case RE_RECORD:
    link_record (r, ev, out);
    break;
  case RE_LEASE:
    r->lease_ms = ev->until_ms;
    if (repl_lease_ok (r))
      r->lease_error = false;
    break;
  case RE_HOLD:
    if (!r->hold) {
      r->hold = true;
      r->drained = r->drain_done = false;
      r->hold_ms = r->now_ms;
      repl_set_reason (r->hold_reason, ev->reason);
    }
    else if (r->drained)
      act (out, RA_DRAINED);
    break;
  case RE_RESUME:
    r->hold = r->drained = r->drain_done = r->drain_of_hold = false;
    break;
  case RE_RESYNC_READ:
    resync_read_done (r, ev, out);
    break;
  case RE_STORE_FAILED:
    store_failed (r, ev->error, ev->reason, out);
    break;
  case RE_TICK:
    if (r->cfg.no_quorum_timeout_ms != 0 && !repl_lease_ok (r) && r->lease_ms != 0
        && r->now_ms - r->lease_ms >= r->cfg.no_quorum_timeout_ms)
      r->lease_error = true;
    link_tick (r, out);
    break;
  case RE_MARKED:
    marked (r, ev, out);
    break;
  case RE_DIGEST:
    if (!ask_answered (r, ev))
      verify_event (r, ev, out);
    break;
  case RE_VERIFY:
  case RE_VERIFY_STOP:
    verify_event (r, ev, out);
    break;
  case RE_MORE:
    break;
  default:
    r->counters.illegal++;
  }
  pump (r, out);
  link_states (r, out);
  assert (out->n <= REPL_MAX_ACTIONS);
}
