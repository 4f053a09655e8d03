/* SPDX-License-Identifier: BSD-3-Clause */
/* The replication core: requests, their range lock, their completion; lease, hold, status.
 * What concerns one copy (its link, its resync, its way in and out of the set) is in
 * repl_link.c.  Pure; called by the plugin's engine thread and by the simulator.  It must
 * never complete a request that lacks its local part, one of its copies, or the lease.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>

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

/* Nothing earlier stands in its way any more. */
static void
unblocked (struct repl *r, unsigned slot)
{
  if (r->slots[slot].op == RO_READ_WAIT) {
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
  }
  list_remove (r, slot);
  s->state = SL_FREE;
}

void
repl_rslot_release (struct repl *r, unsigned rslot)
{
  struct repl_rslot *x = &r->rslots[rslot];

  if (r->n_blocked > 0)
    for (unsigned i = r->first; i != REPL_NONE; i = r->slots[i].next) {
      struct repl_slot *w = &r->slots[i];
      if (w->state == SL_BLOCKED && w->blockers > 0 && w->order > x->order
          && rslot_conflicts (r, x, w) && --w->blockers == 0)
        unblocked (r, i);
    }
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

  if (slot == REPL_SLOT_DRAIN) {
    slot_release (r, slot);
    r->n_granted--;
    if (r->hold && r->drain_of_hold && error == 0) {
      r->drained = true;
      act (out, RA_DRAINED);
    }
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
  if (!request_is_valid (r, ev)) {
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
  struct repl_action *a;

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
  a = act (out, RA_LOCAL);
  a->slot = (uint16_t) slot;
  a->op = s->op;
  a->flags = s->flags;
  a->offset = s->offset;
  a->length = s->length;
  s->must = s->pending = must_mask (r);
  link_grant (r, slot, out);
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
    s->error = ev->error;
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
    while (r->runnable.n > 0 && !r->hold && !r->failed && (lease || r->lease_error)) {
      unsigned slot;
      if (!has_space (out, need)) {
        out->more = true;
        return;
      }
      slot = queue_pop (&r->runnable);
      r->n_blocked--;
      if (lease)
        grant (r, slot, out);
      else { /* never begun */
        r->n_granted++;
        r->slots[slot].error = -EIO;
        make_done (r, slot);
      }
      again = true;
    }
  }

  /* A store whose flush failed is never drained (F4); without a lease nothing is (L2). */
  if (r->hold && !r->drained && !r->failed && !r->flush_failed && lease && r->n_granted == 0
      && r->slots[REPL_SLOT_DRAIN].state == SL_FREE) {
    struct repl_slot *s = &r->slots[REPL_SLOT_DRAIN];
    if (!has_space (out, need)) {
      out->more = true;
      return;
    }
    memset (s, 0, sizeof *s);
    s->op = RO_FLUSH;
    s->order = ++r->order;
    s->n_frames = 1;
    list_append (r, REPL_SLOT_DRAIN);
    r->drain_of_hold = true; /* not one that an earlier hold has left behind */
    grant (r, REPL_SLOT_DRAIN, out);
  }
  link_pump (r, out);
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
  case RE_COPY_ERROR:
  case RE_ROOM:
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
      r->drained = false;
      r->hold_ms = r->now_ms;
      repl_set_reason (r->hold_reason, ev->reason);
    }
    else if (r->drained)
      act (out, RA_DRAINED);
    break;
  case RE_RESUME:
    r->hold = r->drained = r->drain_of_hold = false;
    break;
  case RE_RESYNC_READ:
    link_read_done (r, ev, out);
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
  case RE_MORE:
    break;
  default:
    r->counters.illegal++;
  }
  pump (r, out);
  link_states (r, out);
  assert (out->n <= REPL_MAX_ACTIONS);
}

/* --- status ---------------------------------------------------------------------------------- */

uint64_t
repl_oldest_pending_ms (const struct repl *r, unsigned site)
{
  uint64_t oldest = 0;
  for (unsigned i = r->first; i != REPL_NONE; i = r->slots[i].next) {
    const struct repl_slot *s = &r->slots[i];
    if (s->state == SL_ACTIVE && (s->pending & 1u << site)
        && (oldest == 0 || s->since_ms < oldest))
      oldest = s->since_ms ? s->since_ms : 1;
  }
  return oldest;
}

const char *
repl_site_state_name (unsigned state)
{
  static const char *const names[] = { "idle",       "connecting", "mirroring",
                                       "resyncing",  "suspended",  "detached" };
  return state <= SITE_DETACHED ? names[state] : "state?";
}

static void
add_wait (const struct repl *r, struct repl_wait *w, const struct repl_slot *s, uint64_t now_ms)
{
  uint64_t age = now_ms > s->since_ms ? now_ms - s->since_ms : 0;
  (void) r;
  w->requests++;
  if (age > w->age_ms)
    w->age_ms = age;
}

/* Every request that isn't complete is counted under each owner that it waits for. */
unsigned
repl_waits (const struct repl *r, uint64_t now_ms, struct repl_wait out[REPL_MAX_WAITS])
{
  struct repl_wait w[REPL_MAX_WAITS];
  unsigned n = 0;
  const bool lease = r->lease_ms == UINT64_MAX || now_ms < r->lease_ms;

  memset (w, 0, sizeof w);
  for (unsigned i = r->first; i != REPL_NONE; i = r->slots[i].next) {
    const struct repl_slot *s = &r->slots[i];
    if (r->failed)
      add_wait (r, &w[CRG_MAX_SITES + RW_FAILED - 1], s, now_ms);
    if (s->state == SL_ACTIVE) {
      if (!s->local_done)
        add_wait (r, &w[CRG_MAX_SITES + RW_STORE], s, now_ms);
      for (unsigned c = 0; c < r->cfg.n_sites; c++)
        if (s->pending & 1u << c)
          add_wait (r, &w[c], s, now_ms);
    }
    else if (s->state == SL_BLOCKED && s->blockers > 0)
      add_wait (r, &w[CRG_MAX_SITES + RW_RANGE - 1], s, now_ms);
    else if (s->state == SL_BLOCKED && r->hold)
      add_wait (r, &w[CRG_MAX_SITES + RW_HOLD - 1], s, now_ms);
    if (!lease && s->blockers == 0 && s->state != SL_ACTIVE)
      add_wait (r, &w[CRG_MAX_SITES + RW_LEASE - 1], s, now_ms);
  }
  for (unsigned c = 0; c < CRG_MAX_SITES; c++) {
    w[c].owner = RW_COPY;
    w[c].site = (uint8_t) c;
    w[c].reason = r->sites[c].reason[0] ? r->sites[c].reason
                  : r->sites[c].enter != EN_NONE ? "it is about to enter the in-sync set"
                                                 : "its answer is on the way";
  }
  w[CRG_MAX_SITES + RW_STORE].owner = RW_STORE;
  w[CRG_MAX_SITES + RW_STORE].reason = "the production store is at work";
  w[CRG_MAX_SITES + RW_RANGE - 1].owner = RW_RANGE;
  w[CRG_MAX_SITES + RW_RANGE - 1].reason = "an earlier write or resync of the same range";
  w[CRG_MAX_SITES + RW_HOLD - 1].owner = RW_HOLD;
  w[CRG_MAX_SITES + RW_HOLD - 1].reason = r->hold_reason;
  w[CRG_MAX_SITES + RW_LEASE - 1].owner = RW_LEASE;
  w[CRG_MAX_SITES + RW_LEASE - 1].reason = "the lease has expired: no majority answers";
  w[CRG_MAX_SITES + RW_FAILED - 1].owner = RW_FAILED;
  w[CRG_MAX_SITES + RW_FAILED - 1].reason = r->fail_reason;
  for (unsigned i = 0; i < REPL_MAX_WAITS; i++)
    if (w[i].requests > 0)
      out[n++] = w[i];
  return n;
}

const struct repl_counters *
repl_counters (const struct repl *r)
{
  return &r->counters;
}

bool
repl_is_held (const struct repl *r, const char **reason)
{
  const char *why = NULL;

  if (r->failed)
    why = r->fail_reason;
  else if (r->hold)
    why = r->hold_reason;
  else if (!repl_lease_ok (r))
    why = "the lease has expired: no majority answers";
  if (reason)
    *reason = why ? why : "";
  return why != NULL;
}

unsigned
repl_inflight (const struct repl *r)
{
  return r->n_used;
}

const struct track *
repl_track (const struct repl *r, unsigned site)
{
  return site < r->cfg.n_sites && site != r->cfg.site ? &r->sites[site].track : NULL;
}
