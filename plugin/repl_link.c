/* SPDX-License-Identifier: BSD-3-Clause */
/* The replication core, one copy at a time: its link and window, its way out of the set (R2),
 * its resync, its way in (R3).  The other half of repl.c; pure, called by it alone.  It must
 * never let a block count as clean that the copy has not confirmed stable, nor drop a copy
 * from what requests wait for while the record has it.
 */
#include <assert.h>
#include <string.h>

#include "plugin/repl_private.h"

/* ENTER's payload is made by the shell; this much is counted for it. */
#define ENTER_BYTES (WIRE_HEADER_LEN + 64)

void
link_init (struct repl *r, unsigned site)
{
  struct repl_site *x = &r->sites[site];

  assert (site < CRG_MAX_SITES);
  track_init (&x->track, r->cfg.track_memory[site], r->cfg.size, r->cfg.block_size, TS_CLEAN);
  x->down_ms = r->now_ms;
  x->state_since_ms = r->now_ms;
  x->hole_run = 1;
  x->state = SITE_IDLE;
  if (r->in_set & 1u << site) {
    x->map_valid = true;
    x->untracked = true;
    if (r->cfg.unclean & 1u << site) {
      /* R5: nobody knows which of the last writes it got.  Told by the first step. */
      x->lost = x->lost_final = true;
      x->map_valid = false;
      repl_set_reason (x->reason, "production ended uncleanly: the copy may differ from it");
    }
  }
  if (!(r->in_set & 1u << site) && (r->cfg.entering & 1u << site)) {
    /* R3, C5: nobody knows yet whether it is in.  Until a record tells, requests wait for it;
     * told by the first step, and then it has to go out. */
    x->enter = EN_READY;
    x->lost = x->lost_final = true;
    repl_set_reason (x->reason, "an earlier process may have asked for its entry");
  }
}

static bool
is_must (const struct repl *r, unsigned site)
{
  return (r->in_set & 1u << site) || r->sites[site].enter != EN_NONE;
}

/* --- levels that the controller hears -------------------------------------------------------- */

static void
say (struct repl *r, unsigned site, enum repl_action_kind kind, struct repl_actions *out)
{
  struct repl_action *a = act (out, kind);
  a->site = (uint8_t) site;
  a->no = r->sites[site].no = ++r->no;
  r->sites[site].said = (uint8_t) kind;
  a->generation = r->generation;
  a->reason = r->sites[site].reason;
}

static void
copy_lost (struct repl *r, unsigned site, bool final, const char *reason,
           struct repl_actions *out)
{
  struct repl_site *x = &r->sites[site];

  if (x->lost && (x->lost_final || !final))
    return;
  x->lost = true;
  x->lost_final = final;
  repl_set_reason (x->reason, reason);
  r->counters.copies_lost++;
  say (r, site, RA_COPY_LOST, out);
}

static void
copy_back (struct repl *r, unsigned site, struct repl_actions *out)
{
  struct repl_site *x = &r->sites[site];

  x->lost = false;
  x->reason[0] = '\0';
  r->counters.copies_back++;
  /* READY is not said again: an entry asked for before may still be followed by the removal
   * that LOST asked for, and must not be followed by one more entry.  The record decides. */
  say (r, site, RA_COPY_BACK, out);
}

/* --- the stream ------------------------------------------------------------------------------ */

static bool
fits (const struct repl_site *x, uint32_t bytes, uint32_t frames)
{
  return x->unacked_frames + x->reserved_frames + frames <= x->window_frames
         && (uint64_t) x->unacked_bytes + x->reserved_bytes + bytes <= x->window_bytes
         && x->room >= (uint64_t) x->reserved_bytes + bytes;
}

/* Puts one frame in the stream; the caller has checked that it fits. */
static struct repl_action *
send_frame (struct repl *r, unsigned site, enum wire_type type, enum flight_kind kind,
            uint64_t offset, uint64_t length, uint32_t payload_len, struct repl_actions *out)
{
  struct repl_site *x = &r->sites[site];
  struct repl_action *a = act (out, RA_SEND);
  const uint32_t bytes = type == WIRE_ENTER ? ENTER_BYTES : WIRE_HEADER_LEN + payload_len;
  struct repl_flight *f;

  assert (x->link_up && x->unacked_frames < LINK_WINDOW_FRAMES);
  a->site = (uint8_t) site;
  a->frame.type = (uint8_t) type;
  a->frame.seq = ++x->seq;
  a->frame.offset = offset;
  a->frame.length = (uint32_t) length;
  a->frame.payload_len = payload_len;
  f = &x->flight[x->seq % LINK_WINDOW_FRAMES];
  f->kind = (uint8_t) kind;
  f->bytes = bytes;
  f->sent_ms = r->now_ms;
  f->slot = REPL_NONE;
  x->unacked_frames++;
  x->unacked_bytes += bytes;
  x->room -= bytes < x->room ? bytes : x->room;
  r->counters.frames++;
  return a;
}

/* What frame i of a request carries. */
static void
frame_of (const struct repl_slot *s, unsigned i, enum wire_type *type, uint64_t *offset,
          uint64_t *length, uint32_t *payload_len, uint16_t *flags)
{
  const bool fua = (s->flags & RF_FUA) != 0;

  *flags = 0;
  *payload_len = 0;
  switch (s->op) {
  case RO_WRITE:
    *offset = s->offset + (uint64_t) i * LINK_MAX_PAYLOAD;
    if (*offset >= s->offset + s->length) { /* the FLUSH behind a FUA of several frames */
      *type = WIRE_FLUSH;
      *offset = *length = 0;
      return;
    }
    *type = WIRE_WRITE;
    *length = s->offset + s->length - *offset;
    if (*length > LINK_MAX_PAYLOAD)
      *length = LINK_MAX_PAYLOAD;
    *payload_len = (uint32_t) *length;
    if (fua && s->n_frames == 1)
      *flags = WIRE_F_FUA;
    return;
  case RO_ZERO:
  case RO_TRIM:
    *type = s->op == RO_ZERO ? WIRE_ZERO : WIRE_TRIM;
    *offset = s->offset;
    *length = s->length;
    if (fua)
      *flags |= WIRE_F_FUA;
    if (s->op == RO_ZERO && (s->flags & RF_MAY_TRIM))
      *flags |= WIRE_F_MAY_TRIM;
    return;
  default:
    *type = WIRE_FLUSH;
    *offset = *length = 0;
  }
}

static void
send_slot_frame (struct repl *r, unsigned site, unsigned slot, unsigned i,
                 enum flight_kind kind, struct repl_actions *out)
{
  const struct repl_slot *s = &r->slots[slot];
  struct repl_action *a;
  enum wire_type type;
  uint64_t offset, length;
  uint32_t payload_len;
  uint16_t flags;

  frame_of (s, i, &type, &offset, &length, &payload_len, &flags);
  if (kind == FL_NONE)
    flags &= (uint16_t) ~WIRE_F_FUA; /* nobody waits for this copy */
  a = send_frame (r, site, type, kind, offset, length, payload_len, out);
  a->frame.flags = flags;
  a->frame.missing = type == WIRE_FLUSH ? 0 : s->missing;
  a->slot = (uint16_t) slot;
  a->slot_offset = type == WIRE_WRITE ? (uint32_t) (offset - s->offset) : 0;
  if (kind == FL_SLOT)
    r->sites[site].flight[r->sites[site].seq % LINK_WINDOW_FRAMES].slot = (uint16_t) slot;
}

/* What still waits for the copies that requests wait for, in order. */
static void
send_queued (struct repl *r, unsigned site, struct repl_actions *out)
{
  struct repl_site *x = &r->sites[site];

  while (x->sendq.n > 0) {
    const unsigned slot = queue_peek (&x->sendq);
    struct repl_slot *s = &r->slots[slot];
    enum wire_type type;
    uint64_t offset, length;
    uint32_t payload_len;
    uint16_t flags;

    if (s->sent[site] == s->n_frames) {
      queue_pop (&x->sendq);
      continue;
    }
    frame_of (s, s->sent[site], &type, &offset, &length, &payload_len, &flags);
    if (!fits (x, WIRE_HEADER_LEN + payload_len, 1))
      return;
    if (!has_space (out, 1)) {
      out->more = true;
      return;
    }
    send_slot_frame (r, site, slot, s->sent[site]++, FL_SLOT, out);
  }
}

/* A copy outside the set: sends the write at once if all of it fits, else marks it.  Nobody
 * ever waits for such a copy. */
static bool
offer (struct repl *r, unsigned site, unsigned slot)
{
  struct repl_site *x = &r->sites[site];
  const struct repl_slot *s = &r->slots[slot];
  const uint64_t payload = s->op == RO_WRITE ? s->length : 0;
  const uint32_t frames = s->op == RO_WRITE ? s->n_frames : 1;

  /* The copy has to know that it is being resynchronised (and be marked unusable) before it
   * gets newer writes while it lacks older ones. */
  return x->link_up && !x->mute && x->map_valid
         && (x->resync_begun
             || x->track.count[TS_DIRTY] + x->track.count[TS_SYNCING] == 0)
         && !track_all_dirty (&x->track, s->offset, s->length) && track_can_send (&x->track)
         && fits (x, (uint32_t) payload + frames * WIRE_HEADER_LEN, frames);
}

void
link_grant (struct repl *r, unsigned slot, struct repl_actions *out)
{
  struct repl_slot *s = &r->slots[slot];
  uint32_t offered = 0;

  for (unsigned site = 0; site < r->cfg.n_sites; site++) {
    struct repl_site *x = &r->sites[site];
    if (site == r->cfg.site)
      continue;
    if (s->must & 1u << site) {
      /* Without a link it is queued when one comes up. */
      if (x->link_up && !x->mute)
        queue_push (&x->sendq, (uint16_t) slot);
    }
    else if (op_is_data (s->op)) {
      if (offer (r, site, slot))
        offered |= 1u << site;
      else {
        track_mark (&x->track, s->offset, s->length);
        s->missing |= 1u << site;
      }
    }
  }
  for (unsigned site = 0; site < r->cfg.n_sites; site++)
    if (offered & 1u << site) {
      const unsigned n = s->op == RO_WRITE
                             ? (unsigned) ((s->length + LINK_MAX_PAYLOAD - 1) / LINK_MAX_PAYLOAD)
                             : 1;
      for (unsigned i = 0; i < n; i++)
        send_slot_frame (r, site, slot, i, FL_NONE, out);
      track_write_sent (&r->sites[site].track, s->offset, s->length);
    }
}

/* --- leaving --------------------------------------------------------------------------------- */

/* The request waits for this copy no longer: the copy may lack it. */
static void
forget (struct repl *r, unsigned site, unsigned slot)
{
  struct repl_slot *s = &r->slots[slot];
  struct repl_site *x = &r->sites[site];

  s->pending &= ~(1u << site);
  if (op_is_data (s->op))
    track_mark (&x->track, s->offset, s->length);
}

static void
clear_flights (struct repl_site *x)
{
  for (uint64_t q = x->acked_seq + 1; q <= x->seq; q++) {
    struct repl_flight *f = &x->flight[q % LINK_WINDOW_FRAMES];
    if (f->kind == FL_SLOT || f->kind == FL_ENTER)
      f->kind = FL_NONE;
  }
}

static void
new_resync (struct repl_site *x)
{
  x->resync_base = x->rate_cleaned = x->track.cleaned;
  x->rate_bytes_s = 0;
}

static void
mark_everything (struct repl_site *x)
{
  track_mark_all (&x->track);
  x->map_valid = true;
  x->untracked = false;
  x->hole_run = 1;
  new_resync (x);
}

/* No request waits for it from now on: removed by the record (R2), or left on its way in. */
static void
leave_must (struct repl *r, unsigned site)
{
  struct repl_site *x = &r->sites[site];

  r->in_set &= ~(1u << site);
  x->enter = EN_NONE;
  x->lost = x->lost_final = x->mute = false;
  x->enter_retry_ms = r->now_ms + REPL_ENTER_STALL_MS;
  for (unsigned i = r->first; i != REPL_NONE; i = r->slots[i].next)
    if (r->slots[i].state == SL_ACTIVE && (r->slots[i].pending & 1u << site)) {
      forget (r, site, i);
      repl_check_done (r, i);
    }
  clear_flights (x);
  x->sendq.n = 0;
  new_resync (x);
  if (x->link_up && !x->map_valid)
    mark_everything (x);
}

static void
cancel_reads (struct repl *r, unsigned site)
{
  struct repl_site *x = &r->sites[site];

  for (unsigned i = 0; i < r->cfg.n_rslots; i++) {
    struct repl_rslot *p = &r->rslots[i];
    if (p->site != site || (p->state != RL_BLOCKED && p->state != RL_READING))
      continue;
    if (p->state == RL_READING)
      track_mark (&x->track, p->run.first * r->cfg.block_size,
                  (p->run.first + p->run.n == x->track.n_blocks
                       ? r->cfg.size - p->run.first * r->cfg.block_size
                       : p->run.n * r->cfg.block_size));
    repl_rslot_release (r, i);
    p->state = p->state == RL_READING ? RL_CANCELLED : RL_FREE;
  }
  x->n_rslots = 0;
  x->reserved_bytes = x->reserved_frames = 0;
}

/* The link is gone: nothing that was not acknowledged counts. */
static void
link_lost (struct repl *r, unsigned site, const char *reason, struct repl_actions *out)
{
  struct repl_site *x = &r->sites[site];

  if (!x->link_up)
    return;
  x->link_up = false;
  x->mute = false;
  x->down_ms = r->now_ms;
  x->sendq.n = 0;
  x->resync_begun = false;
  for (unsigned i = r->first; i != REPL_NONE; i = r->slots[i].next)
    r->slots[i].sent[site] = r->slots[i].acked[site];
  cancel_reads (r, site);
  track_mark_sent (&x->track);
  x->unacked_bytes = x->unacked_frames = x->resync_unacked = 0;
  x->acked_seq = x->seq;
  if (!x->lost)
    repl_set_reason (x->reason, reason && reason[0] ? reason : "the link is down");
  if (x->enter == EN_READY)
    copy_lost (r, site, false, "the link ended while the copy was entering the set", out);
  else if (x->enter != EN_NONE)
    leave_must (r, site);
}

static void
close_link (struct repl *r, unsigned site, const char *reason, struct repl_actions *out)
{
  struct repl_action *a;

  if (!r->sites[site].link_up)
    return;
  a = act (out, RA_CLOSE_LINK);
  a->site = (uint8_t) site;
  link_lost (r, site, reason, out);
  a->reason = r->sites[site].reason;
}

/* A failed local write: the copies that got it may differ from production now. */
void
link_local_error (struct repl *r, unsigned slot)
{
  for (unsigned site = 0; site < r->cfg.n_sites; site++)
    if (site != r->cfg.site)
      track_mark (&r->sites[site].track, r->slots[slot].offset, r->slots[slot].length);
}

/* --- coming in (R3) -------------------------------------------------------------------------- */

static void
try_enter (struct repl *r, unsigned site, struct repl_actions *out)
{
  struct repl_site *x = &r->sites[site];
  const uint64_t open = x->track.count[TS_DIRTY] + x->track.count[TS_SYNCING];

  if ((r->in_set & 1u << site) || !x->link_up || x->mute || !x->map_valid || r->failed)
    return;
  if (x->enter == EN_NONE) {
    if (open > REPL_ENTER_BLOCKS || (open > 0 && !x->resync_begun) || r->hold
        || r->now_ms < x->enter_retry_ms)
      return;
    /* First: every request granted from now on waits for it. */
    x->enter = EN_CLOSING;
    x->untracked = true;
  }
  if (x->enter != EN_CLOSING || open > 0 || x->n_rslots > 0)
    return;
  /* Then: all earlier ones are answered. */
  for (unsigned i = r->first; i != REPL_NONE; i = r->slots[i].next) {
    const struct repl_slot *s = &r->slots[i];
    if ((s->state == SL_ACTIVE || s->state == SL_DONE) && s->op != RO_READ_WAIT
        && !(s->must & 1u << site))
      return;
  }
  if (!fits (x, ENTER_BYTES, 1))
    return;
  if (!has_space (out, 1)) {
    out->more = true;
    return;
  }
  /* Then: it flushes and writes its superblock. */
  send_frame (r, site, WIRE_ENTER, FL_ENTER, 0, 0, 0, out)->generation = r->generation;
  x->enter = EN_SENT;
}

static void
entered (struct repl *r, unsigned site, struct repl_actions *out)
{
  struct repl_site *x = &r->sites[site];

  if (x->enter != EN_SENT)
    return;
  track_all_stable (&x->track);
  if (x->track.count[TS_CLEAN] != x->track.n_blocks) {
    x->enter = EN_CLOSING; /* something was marked meanwhile: not yet */
    return;
  }
  x->enter = EN_READY;
  x->enter_tries = 0;
  say (r, site, RA_COPY_READY, out);
}

void
link_record (struct repl *r, const struct repl_event *ev, struct repl_actions *out)
{
  const uint32_t in_set = ev->in_set & r->others;

  if (ev->generation < r->generation) {
    r->counters.illegal++; /* an old record, late */
    return;
  }
  r->generation = ev->generation;
  for (unsigned site = 0; site < r->cfg.n_sites; site++) {
    struct repl_site *x = &r->sites[site];
    const uint32_t bit = 1u << site;
    if (!(r->others & bit))
      continue;
    if ((r->in_set & bit) && !(in_set & bit)) {
      if (!x->lost)
        repl_set_reason (x->reason, "the group took it out of the in-sync set");
      leave_must (r, site); /* R2: committed */
    }
    else if (!(r->in_set & bit) && (in_set & bit)) {
      const bool ready = x->enter == EN_READY;
      r->in_set |= bit;
      x->enter = EN_NONE;
      if (ready)
        r->counters.copies_entered++;
      if (!ready) {
        /* Never asked for, so it may lack anything: it must go out again. */
        r->counters.illegal++;
        x->lost = false;
        x->map_valid = false;
        copy_lost (r, site, true, "the record has it in the set, unasked", out);
      }
      else if (x->lost && ev->seen >= x->no)
        say (r, site, RA_COPY_LOST, out);
      else if (!x->lost)
        x->reason[0] = '\0';
    }
    else if (x->enter == EN_READY) {
      if (ev->seen >= x->no)
        leave_must (r, site); /* the outcome is known: it is not in, and can't come in by this */
    }
    else if (x->lost && x->no != 0 && ev->seen >= x->no)
      say (r, site, RA_COPY_LOST, out); /* settled, and still in the set: ask again */
  }
}

/* --- events ---------------------------------------------------------------------------------- */

static void
link_is_up (struct repl *r, const struct repl_event *ev, struct repl_actions *out)
{
  const unsigned site = ev->site;
  struct repl_site *x = &r->sites[site];
  const uint32_t bytes = ev->window_bytes < LINK_WINDOW_BYTES ? ev->window_bytes
                                                              : LINK_WINDOW_BYTES;
  const uint32_t frames = ev->window_frames < LINK_WINDOW_FRAMES ? ev->window_frames
                                                                 : LINK_WINDOW_FRAMES;
  const uint32_t least = LINK_MAX_PAYLOAD + WIRE_HEADER_LEN;

  link_lost (r, site, "the link was replaced", out);
  x->link_up = true;
  x->was_linked = true;
  x->mirror = true;
  x->detached = false;
  x->seq = x->acked_seq = 0;
  x->unacked_bytes = x->unacked_frames = x->resync_unacked = 0;
  x->window_bytes = bytes;
  x->window_frames = frames;
  x->room = ev->room_bytes;
  x->flush_ms = r->now_ms;
  x->read_retry_ms = 0;
  if (frames < 8 || bytes < least || bytes < r->cfg.block_size + 4 * WIRE_HEADER_LEN) {
    close_link (r, site, "the copy offers a window too small for one block", out);
    return;
  }
  if (!is_must (r, site)) {
    if (!x->map_valid || ev->empty || (ev->restarted && x->untracked))
      mark_everything (x);
    x->reason[0] = '\0';
    return;
  }
  if (ev->empty || ev->unusable || ev->restarted || x->lost_final) {
    /* R4, R5, or its own error: it must leave the set first. */
    x->mute = true;
    if (ev->empty || ev->unusable || ev->restarted)
      x->map_valid = false;
    copy_lost (r, site, true,
               ev->empty      ? "its store is empty"
               : ev->unusable ? "its store says that it was being resynchronised"
                              : "its machine restarted: what it had not flushed may be gone",
               out);
    return;
  }
  for (unsigned i = r->first; i != REPL_NONE; i = r->slots[i].next) {
    struct repl_slot *s = &r->slots[i];
    if (s->state == SL_ACTIVE && (s->pending & 1u << site)) {
      s->sent[site] = s->acked[site];
      r->counters.resent_frames += s->n_frames - s->sent[site];
      queue_push (&x->sendq, (uint16_t) i);
    }
  }
  if (x->lost)
    copy_back (r, site, out);
  else
    x->reason[0] = '\0';
}

static void
acked (struct repl *r, unsigned site, uint64_t seq, struct repl_actions *out)
{
  struct repl_site *x = &r->sites[site];

  if (!x->link_up)
    return;
  if (seq > x->seq) {
    close_link (r, site, "the copy acknowledged what was never sent", out);
    return;
  }
  while (x->acked_seq < seq) {
    struct repl_flight *f = &x->flight[++x->acked_seq % LINK_WINDOW_FRAMES];
    struct repl_slot *s;

    x->unacked_frames--;
    x->unacked_bytes -= f->bytes;
    switch ((enum flight_kind) f->kind) {
    case FL_NONE:
      break;
    case FL_SLOT:
      s = &r->slots[f->slot];
      if (++s->acked[site] == s->n_frames) {
        s->pending &= ~(1u << site);
        repl_check_done (r, f->slot);
      }
      break;
    case FL_RESYNC:
      x->resync_unacked -= f->bytes;
      break;
    case FL_FLUSH:
      track_flush_done (&x->track);
      break;
    case FL_ENTER:
      entered (r, site, out);
      break;
    }
  }
}

static void
copy_error (struct repl *r, const struct repl_event *ev, struct repl_actions *out)
{
  const unsigned site = ev->site;
  struct repl_site *x = &r->sites[site];
  char reason[CRG_REASON_MAX + 1];

  if (!x->link_up)
    return;
  repl_set_reason (reason, ev->reason && ev->reason[0] ? ev->reason : "the copy's store failed");
  close_link (r, site, reason, out);
  if (is_must (r, site))
    copy_lost (r, site, true, reason, out);
}

void
link_event (struct repl *r, const struct repl_event *ev, struct repl_actions *out)
{
  struct repl_site *x = &r->sites[ev->site];

  switch ((enum repl_event_kind) ev->kind) {
  case RE_LINK_UP:
    link_is_up (r, ev, out);
    break;
  case RE_LINK_DOWN:
    link_lost (r, ev->site, ev->reason, out);
    if (!x->link_up && !x->lost && ev->reason && ev->reason[0])
      repl_set_reason (x->reason, ev->reason); /* a refusal of an attempt, for instance */
    break;
  case RE_ACK:
    acked (r, ev->site, ev->seq, out);
    break;
  case RE_COPY_ERROR:
    copy_error (r, ev, out);
    break;
  case RE_ROOM:
    x->room = ev->room_bytes;
    break;
  case RE_MIRROR:
    x->mirror = true;
    x->detached = false;
    if (ev->sync == RS_FULL && !is_must (r, ev->site) && !x->link_up)
      x->map_valid = false;
    break;
  case RE_UNMIRROR:
  case RE_DETACHED:
    x->mirror = false;
    x->detached = ev->kind == RE_DETACHED;
    close_link (r, ev->site, ev->reason, out);
    if (!x->lost)
      repl_set_reason (x->reason, ev->reason && ev->reason[0] ? ev->reason
                                                              : "nobody hosts this copy");
    if (r->in_set & 1u << ev->site) {
      char reason[CRG_REASON_MAX + 1];
      repl_set_reason (reason, x->reason);
      copy_lost (r, ev->site, false, reason, out);
    }
    break;
  default:
    r->counters.illegal++;
  }
}

/* --- resync ---------------------------------------------------------------------------------- */

static uint64_t
run_bytes (const struct repl *r, struct track_range run)
{
  const uint64_t offset = run.first * r->cfg.block_size;
  const uint64_t bytes = run.n * r->cfg.block_size;
  return bytes < r->cfg.size - offset ? bytes : r->cfg.size - offset;
}

static uint32_t
block_frames (const struct repl *r)
{
  return (r->cfg.block_size + LINK_MAX_PAYLOAD - 1) / LINK_MAX_PAYLOAD;
}

static uint32_t
block_cost (const struct repl *r)
{
  return r->cfg.block_size + block_frames (r) * WIRE_HEADER_LEN;
}

static bool
app_is_busy (const struct repl *r)
{
  return r->n_granted > 0 || (r->app_ms != 0 && r->now_ms - r->app_ms < REPL_TICK_MS);
}

static void
unreserve (const struct repl *r, struct repl_site *x)
{
  x->reserved_bytes -= block_cost (r);
  x->reserved_frames -= block_frames (r);
  x->n_rslots--;
}

/* Its range is free of writes: read what of the run is still dirty. */
static void
start_read (struct repl *r, unsigned i, struct repl_actions *out)
{
  struct repl_rslot *p = &r->rslots[i];
  struct repl_site *x = &r->sites[p->site];
  struct repl_action *a;
  uint64_t n = 0;

  while (n < p->run.n && track_get (&x->track, p->run.first + n) == TS_DIRTY)
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
  a = act (out, RA_RESYNC_READ);
  a->rslot = (uint16_t) i;
  a->site = p->site;
  a->offset = p->run.first * r->cfg.block_size;
  a->length = run_bytes (r, (struct track_range) { p->run.first, 1 });
  a->length_max = run_bytes (r, (struct track_range) { p->run.first, n });
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
  return false;
}

/* Takes the next dirty run of a site, if it may have one now.  False: not now. */
static bool
next_read (struct repl *r, unsigned site, struct repl_actions *out)
{
  struct repl_site *x = &r->sites[site];
  const bool busy = app_is_busy (r);
  const unsigned share = r->cfg.share_percent;
  unsigned limit = r->cfg.n_rslots, i;
  struct track_range run;
  struct repl_rslot *p;
  uint64_t bytes_limit = x->window_bytes / 2, offset, length;

  if (!x->link_up || x->mute || !x->map_valid || r->hold || r->failed
      || x->track.count[TS_DIRTY] == 0 || r->now_ms < x->read_retry_ms || x->enter == EN_SENT)
    return false;
  /* Application writes govern: a share of the buffers and of the window, but always one. */
  if (busy) {
    limit = limit * share / 100 > 0 ? limit * share / 100 : 1;
    bytes_limit = (uint64_t) x->window_bytes * share / 100;
  }
  if (x->n_rslots >= limit)
    return false;
  if (x->n_rslots + x->resync_unacked > 0
      && (uint64_t) x->resync_unacked + x->reserved_bytes + block_cost (r) > bytes_limit)
    return false;
  if (!fits (x, block_cost (r), block_frames (r)) || !track_can_send (&x->track))
    return false;
  for (i = 0; i < r->cfg.n_rslots && r->rslots[i].state != RL_FREE; i++)
    ;
  if (i == r->cfg.n_rslots)
    return false;
  if (!has_space (out, 1)) {
    out->more = true;
    return false;
  }
  if (!track_next_dirty (&x->track, x->hole_run, &run))
    return false;
  if (own_reads_overlap (r, site, run)) {
    x->track.cursor = run.first; /* been round: its turn comes when those are over */
    return false;
  }

  p = &r->rslots[i];
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
  x->reserved_bytes += block_cost (r);
  x->reserved_frames += block_frames (r);
  if (p->blockers == 0)
    start_read (r, i, out);
  return true;
}

void
link_read_done (struct repl *r, const struct repl_event *ev, struct repl_actions *out)
{
  struct repl_rslot *p;
  struct repl_site *x;
  struct track_range locked, got;
  uint64_t offset, length;
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
  unreserve (r, x);
  locked = p->run;
  for (uint64_t n = 0; n < locked.n; n++)
    if (track_get (&x->track, locked.first + n) != TS_SYNCING)
      locked.n = n;
  got = (struct track_range) { locked.first, 1 };
  offset = got.first * r->cfg.block_size;
  if (ev->error == 0 && ev->zero == RZ_HOLE && ev->length > 0) {
    /* Whole blocks of the hole only, but the last block of the store may be short. */
    uint64_t n = offset + ev->length >= r->cfg.size ? locked.n : ev->length / r->cfg.block_size;
    if (n > 1)
      got.n = n < locked.n ? n : locked.n;
    x->hole_run = x->hole_run * 4 * r->cfg.block_size <= REPL_HOLE_MAX
                      ? x->hole_run * 4
                      : REPL_HOLE_MAX / r->cfg.block_size;
  }
  else
    x->hole_run = 1;
  length = run_bytes (r, got);

  if (locked.n > got.n) /* read as a hole for nothing: dirty again */
    track_mark (&x->track, (got.first + got.n) * r->cfg.block_size,
                run_bytes (r, (struct track_range) { got.first + got.n, locked.n - got.n }));
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
            = send_frame (r, p->site, repair ? WIRE_WRITE : WIRE_RESYNC_WRITE, FL_RESYNC,
                          offset + at, n, n, out);
        a->rslot = ev->rslot;
        a->slot = REPL_NONE;
        a->slot_offset = (uint32_t) at;
        x->resync_unacked += n + WIRE_HEADER_LEN;
      }
    }
    else {
      struct repl_action *a
          = send_frame (r, p->site, repair ? WIRE_ZERO : WIRE_RESYNC_ZERO, FL_RESYNC, offset,
                        length, 0, out);
      a->slot = REPL_NONE;
      if (ev->zero == RZ_HOLE)
        a->frame.flags = WIRE_F_MAY_TRIM;
      x->resync_unacked += WIRE_HEADER_LEN;
      r->counters.hole_blocks += got.n;
    }
    x->resync_begun = x->resync_begun || !repair;
    r->counters.resync_blocks += got.n;
    track_resync_sent (&x->track, got);
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
  const bool idle = x->track.count[TS_DIRTY] == 0 && x->n_rslots == 0;

  if (!x->link_up || x->mute || n == 0 || x->track.closing || x->enter == EN_SENT
      || x->enter == EN_READY)
    return;
  if (n < REPL_FLUSH_RANGES && r->now_ms - x->flush_ms < REPL_FLUSH_MS
      && !(idle && (r->in_set & 1u << site)))
    return;
  if (!fits (x, WIRE_HEADER_LEN, 1))
    return;
  if (!has_space (out, 1)) {
    out->more = true;
    return;
  }
  send_frame (r, site, WIRE_FLUSH, FL_FLUSH, 0, 0, 0, out);
  track_flush_sent (&x->track);
  x->flush_ms = r->now_ms;
}

void
link_pump (struct repl *r, struct repl_actions *out)
{
  bool again = true;

  for (unsigned s = 0; s < r->cfg.n_sites; s++)
    if (r->sites[s].link_up && !r->sites[s].mute)
      send_queued (r, s, out);

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
    if (r->sites[s].link_up) {
      resync_flush (r, s, out);
      try_enter (r, s, out);
    }
}

/* --- time ------------------------------------------------------------------------------------ */

static void
update_rate (struct repl *r, struct repl_site *x)
{
  const uint64_t ms = r->now_ms - x->rate_ms;
  uint64_t now;

  if (ms < 1000)
    return;
  now = (x->track.cleaned - x->rate_cleaned) * r->cfg.block_size * 1000 / ms;
  x->rate_bytes_s = x->rate_bytes_s ? (x->rate_bytes_s * 3 + now) / 4 : now;
  x->rate_ms = r->now_ms;
  x->rate_cleaned = x->track.cleaned;
}

void
link_tick (struct repl *r, struct repl_actions *out)
{
  const uint64_t limit = r->cfg.suspend_timeout_ms;

  for (unsigned s = 0; s < r->cfg.n_sites; s++) {
    struct repl_site *x = &r->sites[s];
    const uint64_t oldest = repl_oldest_pending_ms (r, s);
    const uint64_t age = oldest ? r->now_ms - oldest : 0;

    if (!(r->others & 1u << s))
      continue;
    update_rate (r, x);
    if (x->lost && x->no == 0) /* R5 at init: not told yet */
      say (r, s, RA_COPY_LOST, out);
    if (r->in_set & 1u << s) {
      if (!x->link_up && r->now_ms - x->down_ms >= limit)
        copy_lost (r, s, false,
                   x->reason[0] ? x->reason : "no link within the suspend timeout", out);
      else if (x->link_up && age >= limit)
        copy_lost (r, s, false, "a request waits for it longer than the suspend timeout", out);
      else if (x->link_up && x->lost && !x->lost_final && !x->mute && age < limit / 2)
        copy_back (r, s, out); /* it moves again, and nothing has been committed yet */
    }
    else if (x->enter != EN_NONE && x->enter != EN_READY) {
      /* Longer with each attempt: a copy may be slow to flush, and has to get in once. */
      if (age >= (uint64_t) REPL_ENTER_STALL_MS << x->enter_tries || age >= limit) {
        leave_must (r, s);
        if (x->enter_tries < REPL_ENTER_TRIES_MAX)
          x->enter_tries++;
      }
    }
    else if (x->enter == EN_READY && x->link_up && age >= limit)
      copy_lost (r, s, false, "a request waits for it longer than the suspend timeout", out);
    if (!is_must (r, s) && x->link_up && x->unacked_frames > 0
        && r->now_ms - x->flight[(x->acked_seq + 1) % LINK_WINDOW_FRAMES].sent_ms >= limit)
      close_link (r, s, "the copy makes no progress", out);
  }
}

static enum repl_site_state
site_state (const struct repl *r, unsigned site)
{
  const struct repl_site *x = &r->sites[site];
  const bool in_set = r->in_set & 1u << site;

  if (x->detached)
    return SITE_DETACHED;
  if (x->lost)
    return SITE_SUSPENDED;
  if (x->link_up)
    return in_set ? SITE_MIRRORING : SITE_RESYNCING;
  if (in_set)
    return SITE_CONNECTING;
  if (!x->mirror)
    return x->was_linked || x->reason[0] ? SITE_SUSPENDED : SITE_IDLE;
  return x->reason[0] ? SITE_SUSPENDED : SITE_CONNECTING;
}

void
link_states (struct repl *r, struct repl_actions *out)
{
  for (unsigned s = 0; s < r->cfg.n_sites; s++) {
    struct repl_site *x = &r->sites[s];
    enum repl_site_state now;
    struct repl_action *a;

    if (s == r->cfg.site || (now = site_state (r, s)) == x->state)
      continue;
    x->state = (uint8_t) now;
    x->state_since_ms = r->now_ms;
    a = act (out, RA_STATE);
    a->site = (uint8_t) s;
    a->op = (uint8_t) now;
    a->reason = x->reason;
  }
}

void
repl_site_status (const struct repl *r, unsigned site, uint64_t now_ms,
                  struct repl_site_status *st)
{
  const struct repl_site *x;
  uint64_t oldest;

  memset (st, 0, sizeof *st);
  st->reason = "";
  st->eta_s = UINT64_MAX;
  if (site >= r->cfg.n_sites || site == r->cfg.site)
    return;
  x = &r->sites[site];
  st->state = (uint8_t) site_state (r, site);
  st->in_set = r->in_set & 1u << site;
  st->entering = x->enter != EN_NONE;
  st->link_up = x->link_up;
  st->lost = x->lost;
  st->no = x->no;
  if (x->lost || x->enter == EN_READY)
    st->level = x->said;
  st->reason = x->reason;
  st->since_ms = x->state_since_ms;
  st->dirty_bytes = x->map_valid ? track_behind_bytes (&x->track) : r->cfg.size;
  if (st->dirty_bytes > r->cfg.size)
    st->dirty_bytes = r->cfg.size;
  if (!st->in_set) {
    st->done_bytes = (x->track.cleaned - x->resync_base) * r->cfg.block_size;
    st->total_bytes = st->done_bytes + st->dirty_bytes;
    st->rate_bytes_s = x->rate_bytes_s;
    if (st->dirty_bytes == 0)
      st->eta_s = 0;
    else if (x->link_up && x->rate_bytes_s > 0)
      st->eta_s = (st->dirty_bytes + x->rate_bytes_s - 1) / x->rate_bytes_s;
  }
  st->unacked_bytes = x->unacked_bytes;
  st->unacked_frames = x->unacked_frames;
  oldest = repl_oldest_pending_ms (r, site);
  st->lag_ms = oldest && now_ms > oldest ? now_ms - oldest : 0;
}
