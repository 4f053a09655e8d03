/* SPDX-License-Identifier: BSD-3-Clause */
/* The replication core, fourth part: comparing the copies of the set with production.  Pure;
 * called by repl.c and repl_resync.c alone.  It must never call a block different that a write
 * may still change (V2), nor keep a client's write waiting without a bound (V5).
 */
#include <assert.h>
#include <string.h>

#include "plugin/repl_private.h"

#define DIGEST_REQ_BYTES (WIRE_HEADER_LEN + WIRE_DIGEST_REQ_LEN)

const char *
verify_phase_name (unsigned phase)
{
  static const char *const names[] = { "not asked", "comparing", "marking", "leaving", "repairing", "done", "stopped" };
  return phase <= VP_STOPPED ? names[phase] : "phase?";
}

uint64_t
verify_range_bytes (uint32_t block_size)
{
  const uint64_t n = VERIFY_RANGE_MAX / block_size;
  return (n < VERIFY_BLOCKS ? n : VERIFY_BLOCKS) * (uint64_t) block_size;
}

static uint64_t
n_blocks (uint64_t size, uint32_t block_size)
{
  return (size + block_size - 1) / block_size;
}

size_t
verify_memory_bytes (uint64_t size, uint32_t block_size, unsigned n_sites)
{
  return (size_t) ((n_blocks (size, block_size) + 7) / 8) * n_sites;
}

/* V3.  NULL, or why not. */
static const char *
unfit (const struct repl *r, unsigned site)
{
  const struct repl_site *x = &r->sites[site];

  if (r->failed)
    return "production's store failed";
  if (!(r->in_set & 1u << site))
    return "it is not in the in-sync set";
  if (!x->link_up || x->mute)
    return "its link is down";
  if (x->lost)
    return "it is about to leave the in-sync set";
  if (!x->digests)
    return "its release does not know digests";
  if (r->guard || x->map_needed)
    return "after an unclean end the copies are made equal first";
  return NULL;
}

static uint32_t
comparing (const struct verify *v)
{
  uint32_t mask = 0;
  for (unsigned s = 0; s < CRG_MAX_SITES; s++)
    if (v->sites[s].phase == VP_COMPARING)
      mask |= 1u << s;
  return mask;
}

static void
set_phase (struct repl *r, unsigned site, enum verify_phase phase, const char *reason,
           struct repl_actions *out)
{
  struct verify_site *p = &r->verify.sites[site];
  struct repl_action *a = act (out, RA_VERIFY);

  p->phase = (uint8_t) phase;
  repl_set_reason (p->reason, reason);
  a->site = (uint8_t) site;
  a->op = (uint8_t) phase;
  a->reason = p->reason;
}

static void
forget_site (struct verify_slot *s, uint32_t bit)
{
  s->asked &= ~bit;
  s->got &= ~bit;
  s->failed &= ~bit;
  for (unsigned k = 0; k < VERIFY_BLOCKS; k++)
    s->suspect[k] &= ~bit;
}

static void
stop_site (struct repl *r, unsigned site, const char *reason, struct repl_actions *out)
{
  struct verify *v = &r->verify;
  const uint8_t phase = v->sites[site].phase;

  if (phase == VP_OUT || phase == VP_DONE || phase == VP_STOPPED)
    return;
  for (unsigned i = 0; i < VERIFY_SLOTS; i++)
    forget_site (&v->slots[i], 1u << site);
  forget_site (&v->check, 1u << site);
  set_phase (r, site, VP_STOPPED, reason, out);
}

static void
stop_all (struct repl *r, const char *reason, struct repl_actions *out)
{
  for (unsigned s = 0; s < r->cfg.n_sites; s++)
    stop_site (r, s, reason, out);
}

/* --- asking ---------------------------------------------------------------------------------- */

/* Is there room for the questions about one range? */
static bool
can_ask (const struct repl *r, uint32_t sites, struct repl_actions *out)
{
  for (unsigned s = 0; s < r->cfg.n_sites; s++)
    if ((sites & 1u << s) && r->sites[s].room < (uint64_t) r->sites[s].reserved_bytes + DIGEST_REQ_BYTES)
      return false;
  if (has_space (out, 1 + CRG_MAX_SITES))
    return true;
  out->more = true;
  return false;
}

static void
ask (struct repl *r, struct verify_slot *s, uint64_t offset, uint64_t length, uint32_t sites,
     struct repl_actions *out)
{
  struct repl_action *a;

  memset (s, 0, sizeof *s);
  s->state = VS_WAITING;
  s->own_waits = true;
  s->tag = ++r->tag;
  s->offset = offset;
  s->length = length;
  s->n = (unsigned) n_blocks (length, r->cfg.block_size);
  s->since_ms = r->now_ms;
  s->asked = sites;
  assert (s->n <= VERIFY_BLOCKS);
  for (unsigned site = 0; site < r->cfg.n_sites; site++) {
    if (!(sites & 1u << site))
      continue;
    a = act (out, RA_DIGEST_REQ);
    a->site = (uint8_t) site;
    a->frame.type = WIRE_DIGEST_REQ;
    a->frame.seq = s->tag;
    a->frame.offset = offset;
    a->frame.length = (uint32_t) length;
    a->frame.payload_len = WIRE_DIGEST_REQ_LEN;
    r->sites[site].room -= DIGEST_REQ_BYTES;
  }
  a = act (out, RA_DIGEST);
  a->no = s->tag;
  a->offset = offset;
  a->length = length;
}

static void
answered (struct repl *r, const struct repl_event *ev, struct repl_actions *out)
{
  struct verify *v = &r->verify;
  struct verify_slot *s = v->check.state == VS_WAITING && v->check.tag == ev->seq ? &v->check : NULL;
  const uint32_t bit = 1u << ev->site;

  for (unsigned i = 0; i < VERIFY_SLOTS && !s; i++)
    if (v->slots[i].state == VS_WAITING && v->slots[i].tag == ev->seq)
      s = &v->slots[i];
  if (!v->on || !s)
    return; /* nobody waits for it any more */
  if (ev->error == 0 && (ev->map == NULL || ev->length != s->n)) {
    stop_site (r, ev->site, "it answers with other digests than it was asked for", out);
    return;
  }
  if (ev->site == r->cfg.site) {
    s->own_waits = false;
    s->own_error = ev->error;
    if (ev->error == 0)
      memcpy (s->own, ev->map, s->n * WIRE_DIGEST_LEN);
    return;
  }
  if (!(s->asked & bit))
    return;
  s->asked &= ~bit;
  if (ev->error != 0)
    s->failed |= bit;
  else {
    s->got |= bit;
    memcpy (s->of[ev->site], ev->map, s->n * WIRE_DIGEST_LEN);
  }
}

/* --- judging --------------------------------------------------------------------------------- */

/* The sites of which block k of the range is not known to be equal; what can't be read isn't. */
static uint32_t
unequal (const struct verify_slot *s, unsigned k)
{
  uint32_t mask = s->failed;
  for (unsigned site = 0; site < CRG_MAX_SITES; site++)
    if ((s->got & 1u << site) && memcmp (s->own[k], s->of[site][k], WIRE_DIGEST_LEN) != 0)
      mask |= 1u << site;
  return mask;
}

static bool
is_answered (const struct verify_slot *s)
{
  return s->state == VS_WAITING && !s->own_waits && s->asked == 0;
}

static void
read_failed (struct repl *r, struct repl_actions *out)
{
  stop_all (r, "production's store can't read a range that is compared", out);
}

/* V1 */
static void
judge_range (struct repl *r, struct verify_slot *s, struct repl_actions *out)
{
  struct verify *v = &r->verify;
  const uint64_t took = r->now_ms - s->since_ms ? r->now_ms - s->since_ms : 1;
  const unsigned share = r->cfg.share_percent;
  bool any = false;

  if (s->own_error != 0) {
    read_failed (r, out);
    return;
  }
  v->done_bytes += s->length;
  v->next_ms = r->now_ms + took * (100 - share) / share;
  for (unsigned site = 0; site < r->cfg.n_sites; site++)
    if ((s->got | s->failed) & 1u << site)
      v->sites[site].compared_bytes += s->length;
  for (unsigned k = 0; k < s->n; k++) {
    s->suspect[k] = unequal (s, k);
    any = any || s->suspect[k];
  }
  s->state = any ? VS_SUSPECT : VS_FREE;
}

/* Keeps it in order, and as one with its neighbours.  True: it is one of those that are named. */
static bool
note_found (struct verify_site *p, uint64_t offset, uint64_t length)
{
  unsigned i = p->n_found;

  while (i > 0 && p->found[i - 1].offset > offset)
    i--;
  if (i > 0 && p->found[i - 1].offset + p->found[i - 1].length == offset) {
    p->found[i - 1].length += length;
    if (i < p->n_found && p->found[i].offset == offset + length) {
      p->found[i - 1].length += p->found[i].length;
      memmove (&p->found[i], &p->found[i + 1], (--p->n_found - i) * sizeof p->found[0]);
    }
    return true;
  }
  if (i < p->n_found && p->found[i].offset == offset + length) {
    p->found[i].offset = offset;
    p->found[i].length += length;
    return true;
  }
  if (p->n_found == VERIFY_MAX_FOUND)
    return false;
  memmove (&p->found[i + 1], &p->found[i], (p->n_found++ - i) * sizeof p->found[0]);
  p->found[i] = (struct verify_found) { offset, length };
  return true;
}

static void
differs (struct repl *r, unsigned site, uint64_t offset, uint64_t length, struct repl_actions *out)
{
  struct verify *v = &r->verify;
  struct verify_site *p = &v->sites[site];
  const uint64_t block = offset / r->cfg.block_size;

  p->different_bytes += length;
  if (v->map)
    v->map[site * v->map_bytes + block / 8] |= (uint8_t) (1u << block % 8);
  if (note_found (p, offset, length)) {
    struct repl_action *a = act (out, RA_DIFFERS);
    a->site = (uint8_t) site;
    a->offset = offset;
    a->length = length;
  }
}

/* --- the lock (V2) --------------------------------------------------------------------------- */

static void
unlock (struct repl *r)
{
  if (r->vlock.state != RL_FREE)
    repl_range_release (r, &r->vlock);
  r->vlock.state = RL_FREE;
  r->verify.check.state = VS_FREE;
}

static bool
is_clean (const struct repl *r, unsigned site, uint64_t offset)
{
  return track_get (&r->sites[site].track, offset / r->cfg.block_size) == TS_CLEAN;
}

/* Its digests came while nothing could change the block. */
static void
judge_block (struct repl *r, struct repl_actions *out)
{
  struct verify *v = &r->verify;
  const struct verify_slot *s = &v->check;
  const uint32_t mask = unequal (s, 0);

  if (s->own_error != 0) {
    unlock (r);
    read_failed (r, out);
    return;
  }
  for (unsigned site = 0; site < r->cfg.n_sites; site++)
    if ((mask & 1u << site) && is_clean (r, site, s->offset))
      differs (r, site, s->offset, s->length, out);
  v->slots[v->from].suspect[v->block] = 0;
  v->tries = 0;
  unlock (r);
}

/* A copy that answers slowly must not hold a client's writes. */
static void
check_is_late (struct repl *r, struct repl_actions *out)
{
  struct verify *v = &r->verify;
  const uint32_t silent = v->check.asked;
  const bool own = v->check.own_waits;

  unlock (r);
  v->lock_retry_ms = r->now_ms + VERIFY_LOCK_MS;
  if (++v->tries < VERIFY_TRIES)
    return;
  v->tries = 0;
  if (own)
    stop_all (r, "production's store is too slow to compare a range under its lock", out);
  for (unsigned site = 0; site < r->cfg.n_sites; site++)
    if (silent & 1u << site)
      stop_site (r, site, "it is too slow to compare a range under its lock", out);
}

/* The next block that has to be looked at again. */
static bool
next_suspect (struct verify *v)
{
  for (unsigned i = 0; i < VERIFY_SLOTS; i++) {
    if (v->slots[i].state != VS_SUSPECT)
      continue;
    for (unsigned k = 0; k < v->slots[i].n; k++)
      if (v->slots[i].suspect[k] != 0) {
        v->from = i;
        v->block = k;
        return true;
      }
    v->slots[i].state = VS_FREE;
  }
  return false;
}

static uint64_t
block_length (const struct repl *r, uint64_t offset)
{
  return r->cfg.block_size < r->cfg.size - offset ? r->cfg.block_size : r->cfg.size - offset;
}

static void
take_lock (struct repl *r)
{
  struct verify *v = &r->verify;
  struct repl_rslot *p = &r->vlock;
  const uint64_t first = v->slots[v->from].offset / r->cfg.block_size + v->block;
  const uint64_t offset = first * r->cfg.block_size;

  *p = (struct repl_rslot) { .state = RL_BLOCKED, .site = r->cfg.site, .order = ++r->order, .run = { first, 1 } };
  for (unsigned k = r->first; k != REPL_NONE; k = r->slots[k].next)
    if (op_is_data (r->slots[k].op)
        && ranges_overlap (offset, block_length (r, offset), r->slots[k].offset, r->slots[k].length))
      p->blockers++;
}

static void
pump_check (struct repl *r, struct repl_actions *out)
{
  struct verify *v = &r->verify;
  struct repl_rslot *p = &r->vlock;
  uint64_t offset;
  uint32_t sites;

  if (is_answered (&v->check))
    judge_block (r, out);
  else if (p->state == RL_READING && r->now_ms - v->check.since_ms >= VERIFY_LOCK_MS)
    check_is_late (r, out);
  if (p->state == RL_FREE && r->now_ms >= v->lock_retry_ms && next_suspect (v))
    take_lock (r);
  if (p->state != RL_BLOCKED || p->blockers > 0)
    return;
  /* Settled: every earlier write of it is answered, and no later one is granted. */
  offset = p->run.first * r->cfg.block_size;
  sites = v->slots[v->from].suspect[v->block] & comparing (v);
  for (unsigned site = 0; site < r->cfg.n_sites; site++)
    if ((sites & 1u << site) && !is_clean (r, site, offset))
      sites &= ~(1u << site); /* known to differ: the resync is at it */
  if (sites == 0) {
    v->slots[v->from].suspect[v->block] = 0;
    unlock (r);
    out->more = true;
    return;
  }
  if (!can_ask (r, sites, out)) {
    /* Not while clients wait for the lock. */
    unlock (r);
    v->lock_retry_ms = r->now_ms + 1;
    return;
  }
  p->state = RL_READING;
  ask (r, &v->check, offset, block_length (r, offset), sites, out);
}

/* --- the run --------------------------------------------------------------------------------- */

static void
pump_ranges (struct repl *r, struct repl_actions *out)
{
  struct verify *v = &r->verify;
  const bool busy = repl_app_is_busy (r, REPL_TICK_MS);
  const uint64_t all = verify_range_bytes (r->cfg.block_size);
  unsigned waiting = 0;

  for (unsigned i = 0; i < VERIFY_SLOTS; i++) {
    struct verify_slot *s = &v->slots[i];
    if (is_answered (s))
      judge_range (r, s, out);
    else if (s->state == VS_WAITING && r->now_ms - s->since_ms >= r->cfg.suspend_timeout_ms) {
      if (s->own_waits)
        stop_all (r, "production's store does not answer", out);
      for (unsigned site = 0; site < r->cfg.n_sites; site++)
        if (s->asked & 1u << site)
          stop_site (r, site, "it gives no digest within the suspend timeout", out);
    }
    waiting += s->state == VS_WAITING;
  }
  for (unsigned i = 0; i < VERIFY_SLOTS && v->cursor < r->cfg.size; i++) {
    struct verify_slot *s = &v->slots[i];
    const uint32_t sites = comparing (v);
    const uint64_t left = r->cfg.size - v->cursor;

    if (s->state != VS_FREE)
      continue;
    if (sites == 0 || (busy && (waiting > 0 || r->now_ms < v->next_ms)) || !can_ask (r, sites, out))
      return;
    ask (r, s, v->cursor, all < left ? all : left, sites, out);
    v->cursor += s->length;
    waiting++;
  }
}

/* V4: dirty first. */
static void
begin_repair (struct repl *r, unsigned site, struct repl_actions *out)
{
  struct verify *v = &r->verify;
  const uint8_t *map = v->map + site * v->map_bytes;

  for (size_t i = 0; i < v->map_bytes; i++)
    for (unsigned k = 0; k < 8 && map[i] != 0; k++)
      if (map[i] >> k & 1) {
        const uint64_t offset = (i * 8 + k) * (uint64_t) r->cfg.block_size;
        track_mark (&r->sites[site].track, offset, block_length (r, offset));
      }
  v->sites[site].ticket = r->cfg.mark ? mark_persist (r->cfg.mark) : 0;
  set_phase (r, site, VP_MARKING, "", out);
}

static void
pump_repair (struct repl *r, unsigned site, struct repl_actions *out)
{
  struct verify_site *p = &r->verify.sites[site];
  const struct repl_site *x = &r->sites[site];
  const bool in_set = r->in_set & 1u << site;

  if (p->phase == VP_MARKING && (!r->cfg.mark || r->cfg.mark->persisted >= p->ticket)) {
    if (in_set)
      link_lose (r, site, "a comparison found blocks of it that differ: they are copied again", out);
    set_phase (r, site, VP_LEAVING, "", out);
  }
  if (p->phase == VP_LEAVING && !in_set) {
    set_phase (r, site, VP_FILLING, "", out);
    out->more = true; /* the resync may begin */
  }
  if (p->phase == VP_FILLING && in_set && is_equal (&x->track)) {
    p->repaired = true;
    set_phase (r, site, VP_DONE, "", out);
  }
  else if (p->phase == VP_FILLING && !x->link_up)
    stop_site (r, site, "its link ended; what differs is noted as dirty, and is copied when it is back", out);
}

static void
update_rate (struct repl *r)
{
  struct verify *v = &r->verify;
  const uint64_t ms = r->now_ms - v->rate_ms;
  uint64_t now;

  if (ms < 1000)
    return;
  now = (v->done_bytes - v->rate_done) * 1000 / ms;
  v->rate_bytes_s = v->rate_bytes_s ? (v->rate_bytes_s * 3 + now) / 4 : now;
  v->rate_ms = r->now_ms;
  v->rate_done = v->done_bytes;
}

/* Has every site come to its end? */
static bool
all_ended (const struct verify *v)
{
  for (unsigned s = 0; s < CRG_MAX_SITES; s++)
    if (v->sites[s].phase != VP_OUT && v->sites[s].phase != VP_DONE && v->sites[s].phase != VP_STOPPED)
      return false;
  return true;
}

void
verify_pump (struct repl *r, struct repl_actions *out)
{
  struct verify *v = &r->verify;
  bool busy = false;

  if (!v->on)
    return;
  update_rate (r);
  for (unsigned s = 0; s < r->cfg.n_sites; s++) {
    const char *why = v->sites[s].phase == VP_COMPARING ? unfit (r, s) : NULL;
    if (why)
      stop_site (r, s, why, out);
  }
  if (r->hold)
    stop_all (r, "production is held", out);
  pump_ranges (r, out);
  pump_check (r, out);
  for (unsigned i = 0; i < VERIFY_SLOTS; i++)
    busy = busy || v->slots[i].state != VS_FREE;
  if (!busy && v->cursor >= r->cfg.size && r->vlock.state == RL_FREE)
    for (unsigned s = 0; s < r->cfg.n_sites; s++)
      if (v->sites[s].phase == VP_COMPARING) {
        if (v->repair && v->sites[s].different_bytes > 0)
          begin_repair (r, s, out);
        else
          set_phase (r, s, VP_DONE, "", out);
      }
  for (unsigned s = 0; s < r->cfg.n_sites; s++)
    pump_repair (r, s, out);
  if (!all_ended (v))
    return;
  unlock (r);
  v->on = false;
  v->map = NULL;
  v->end_ms = r->now_ms;
  set_phase (r, r->cfg.site, VP_OUT, "", out);
}

void
verify_event (struct repl *r, const struct repl_event *ev, struct repl_actions *out)
{
  struct verify *v = &r->verify;

  switch ((enum repl_event_kind) ev->kind) {
  case RE_DIGEST:
    if (ev->site < r->cfg.n_sites)
      answered (r, ev, out);
    else
      r->counters.illegal++;
    break;
  case RE_VERIFY_STOP:
    if (v->on)
      stop_all (r, ev->reason && ev->reason[0] ? ev->reason : "stopped", out);
    break;
  default: /* RE_VERIFY, one at a time (V6) */
    if (v->on || (ev->repair && !ev->memory)) {
      r->counters.illegal++;
      break;
    }
    memset (v, 0, sizeof *v);
    v->on = true;
    v->repair = ev->repair;
    v->map = ev->repair ? ev->memory : NULL;
    v->map_bytes = verify_memory_bytes (r->cfg.size, r->cfg.block_size, 1);
    v->start_ms = v->rate_ms = r->now_ms;
    for (unsigned s = 0; s < r->cfg.n_sites; s++)
      if ((r->others & 1u << s) && (ev->in_set & 1u << s)) {
        v->sites[s].phase = VP_COMPARING;
        set_phase (r, s, VP_COMPARING, "", out);
      }
  }
}

bool
verify_keeps_out (const struct repl *r, unsigned site)
{
  const uint8_t phase = r->verify.sites[site].phase;
  return r->verify.on && (phase == VP_MARKING || phase == VP_LEAVING);
}

const char *
verify_request_refusal (const struct wire_header *h, const struct wire_digest_req *q, uint64_t size)
{
  if (h->length == 0 || h->offset >= size || h->length > size - h->offset)
    return "digests of what is beyond the end of the store";
  if (q->algorithm != WIRE_DIGEST_SHA256)
    return "digests of an algorithm that was not agreed on";
  if (q->block_size < DIRTY_BLOCK_SIZE_MIN || q->block_size > DIRTY_BLOCK_SIZE_MAX
      || h->length > VERIFY_RANGE_MAX || n_blocks (h->length, q->block_size) > VERIFY_BLOCKS)
    return "more digests than one question may ask for";
  return NULL;
}

/* --- status ---------------------------------------------------------------------------------- */

void
verify_status (const struct repl *r, uint64_t now_ms, struct verify_status *st)
{
  const struct verify *v = &r->verify;
  const uint64_t end = v->on ? now_ms : v->end_ms;

  memset (st, 0, sizeof *st);
  st->on = v->on;
  st->repair = v->repair;
  st->locked = r->vlock.state == RL_READING;
  st->done_bytes = v->done_bytes;
  st->total_bytes = r->cfg.size;
  st->rate_bytes_s = v->rate_bytes_s;
  st->elapsed_ms = end > v->start_ms ? end - v->start_ms : 0;
  st->eta_s = !v->on || v->done_bytes >= r->cfg.size ? 0
              : v->rate_bytes_s > 0 ? (r->cfg.size - v->done_bytes + v->rate_bytes_s - 1) / v->rate_bytes_s
                                    : UINT64_MAX;
}

const struct verify_site *
verify_of_site (const struct repl *r, unsigned site)
{
  return &r->verify.sites[site < CRG_MAX_SITES ? site : 0];
}
