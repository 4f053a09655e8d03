/* SPDX-License-Identifier: BSD-3-Clause */
/* The replication core, one copy at a time: its link and window, its way out of the set (R2),
 * its way in (R3).  The second part of repl.c; pure, called by it alone.  It must
 * never let a block count as clean that the copy has not confirmed stable, nor drop a copy
 * from what requests wait for while the record has it.
 */
#include <assert.h>
#include <string.h>

#include "common/util.h"
#include "plugin/repl_private.h"

/* ENTER's payload is made by the shell; this much is counted for it. */
#define ENTER_BYTES (WIRE_HEADER_LEN + 64)

void
link_init (struct repl *r, unsigned site)
{
  struct repl_site *x = &r->sites[site];

  assert (site < CRG_MAX_SITES);
  struct mark *m = r->cfg.mark;
  const bool in_set = r->in_set & 1u << site;

  /* A copy of the set lacks nothing but what is hot; what the disk says is of earlier days. */
  if (m && in_set)
    bits_fill (&m->bits[site], false);
  track_init (&x->track, r->cfg.track_memory[site], r->cfg.size, r->cfg.block_size,
              m ? &m->bits[site] : NULL, r->cfg.track_is_zeroed);
  if (m) {
    x->map_valid = true;
    x->map_needed = !(in_set && r->cfg.equal);
    if (x->map_needed)
      link_mark_hot (r, site);
    x->resync_base = x->track.cleaned;
  }
  x->down_ms = r->now_ms;
  x->state_since_ms = r->now_ms;
  x->hole_run = 1;
  x->state = SITE_IDLE;
  if (in_set && !m) {
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

/* After a crash, and when it leaves the set, a copy may lack whatever is hot. */
void
link_mark_hot (struct repl *r, unsigned site)
{
  const struct hot *h = r->cfg.mark ? &r->cfg.mark->hot : NULL;

  for (uint64_t i = h ? hot_next (h, 0) : 0; h && i < h->n_bits; i = hot_next (h, i + 1)) {
    const uint64_t offset = i * h->bit_size;
    track_doubt (&r->sites[site].track, offset,
                 h->bit_size < r->cfg.size - offset ? h->bit_size : r->cfg.size - offset);
  }
  /* Marks on their way to the disk count too: their writes may be at the copy already. */
  for (unsigned i = 0; h && i < h->n_entries; i++) {
    const uint64_t offset = h->entry[i].region * h->region_size;
    track_doubt (&r->sites[site].track, offset,
                 h->region_size < r->cfg.size - offset ? h->region_size : r->cfg.size - offset);
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

void
link_lose (struct repl *r, unsigned site, const char *reason, struct repl_actions *out)
{
  copy_lost (r, site, true, reason, out);
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

bool
link_fits (const struct repl_site *x, uint32_t bytes, uint32_t frames)
{
  return x->unacked_frames + x->reserved_frames + frames <= x->window_frames
         && (uint64_t) x->unacked_bytes + x->reserved_bytes + bytes <= x->window_bytes
         && x->room >= (uint64_t) x->reserved_bytes + bytes;
}

/* Puts one frame in the stream; the caller has checked that it fits. */
struct repl_action *
link_send (struct repl *r, unsigned site, enum wire_type type, enum flight_kind kind,
            uint64_t offset, uint64_t length, uint32_t payload_len, struct repl_actions *out)
{
  struct repl_site *x = &r->sites[site];
  struct repl_action *a = act (out, RA_SEND);
  const uint32_t bytes = type == WIRE_ENTER ? ENTER_BYTES : WIRE_HEADER_LEN + payload_len;
  struct repl_flight *f;

  assert (x->link_up && x->unacked_frames < LINK_WINDOW_FRAMES);
  a->site = (uint8_t) site;
  a->slot = REPL_NONE;
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
  a = link_send (r, site, type, kind, offset, length, payload_len, out);
  a->frame.flags = flags;
  /* As of now, not of when it was granted: a copy that has heard the record before this frame does not ask its hot
   * regions again. */
  a->frame.missing = type == WIRE_FLUSH ? 0 : r->others & ~r->in_set;
  a->slot = (uint16_t) slot;
  if (r->slots[slot].first_seq[site] == 0)
    r->slots[slot].first_seq[site] = r->sites[site].seq;
  a->slot_offset = type == WIRE_WRITE ? (uint32_t) (offset - s->offset) : 0;
  if (kind == FL_SLOT)
    r->sites[site].flight[r->sites[site].seq % LINK_WINDOW_FRAMES].slot = (uint16_t) slot;
}

/* All of a write is in the stream of a copy that is on its way into the set: if that comes to
 * nothing, only a flush of the copy makes it clean there. */
static void
follow_entering (struct repl *r, unsigned site, const struct repl_slot *s)
{
  struct repl_site *x = &r->sites[site];

  if (x->enter == EN_NONE || x->enter == EN_READY || (r->in_set & 1u << site) || !op_is_data (s->op)
      || s->error != 0) /* production could not write it: it is dirty, and stays so */
    return;
  if (track_can_send (&x->track))
    track_write_sent (&x->track, s->offset, s->length);
  else
    x->enter_blind = true;
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
    if (slot == REPL_SLOT_SYNC && x->syncs) {
      if (!has_space (out, 1)) {
        out->more = true;
        return;
      }
      stable_ask (r, site, out);
      s->sent[site] = 1;
      continue;
    }
    frame_of (s, s->sent[site], &type, &offset, &length, &payload_len, &flags);
    if (!link_fits (x, WIRE_HEADER_LEN + payload_len, 1))
      return;
    if (!has_space (out, 1)) {
      out->more = true;
      return;
    }
    send_slot_frame (r, site, slot, s->sent[site]++, FL_SLOT, out);
    if (s->sent[site] == s->n_frames)
      follow_entering (r, site, s);
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
  /* However much clients write, the resync has room for a block. */
  const bool floor = track_waiting (&x->track) > 0 && x->n_rslots == 0;

  /* The copy has to know that it is being resynchronised (and be marked unusable) before it
   * gets newer writes while it lacks older ones. */
  return x->link_up && !x->mute && x->map_valid
         && (x->resync_begun || track_open (&x->track) == 0)
         && !track_all_dirty (&x->track, s->offset, s->length, !ask_wanted (r, site)) && track_can_send (&x->track)
         && link_fits (x, (uint32_t) payload + frames * WIRE_HEADER_LEN + (floor ? resync_block_bytes (r) : 0),
                       frames + (floor ? resync_block_frames (r) : 0));
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
      else
        track_mark (&x->track, s->offset, s->length);
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
  else
    s->cycle = 0; /* a flush that it did not answer covers nothing: the others hear of the record later */
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
mark_everything (const struct repl *r, struct repl_site *x)
{
  track_doubt_all (&x->track);
  x->map_valid = true;
  x->untracked = false;
  /* On its own disk too: whoever is production then has to know. */
  x->lack_owed = r->cfg.mark != NULL;
  x->lack_said = false;
  x->hole_run = 1;
  new_resync (x);
}

/* No request waits for it from now on: removed by the record (R2), or left on its way in. */
static void
leave_must (struct repl *r, unsigned site)
{
  struct repl_site *x = &r->sites[site];
  /* From the set, or when it may have been in it: what it got and not flushed is only hot. */
  const bool blind = (r->in_set & 1u << site) || x->enter == EN_READY || x->enter_blind;

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
  if (blind) {
    link_mark_hot (r, site); /* answered or not, it may not be stable there */
    new_resync (x);
  }
  if (x->link_up && !x->map_valid)
    mark_everything (r, x);
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
  for (unsigned i = r->first; i != REPL_NONE; i = r->slots[i].next) {
    if (r->slots[i].sent[site] > 0)
      r->slots[i].earlier |= 1u << site;
    r->slots[i].sent[site] = r->slots[i].acked[site];
    r->slots[i].first_seq[site] = r->slots[i].bound[site] = 0;
    r->slots[i].settles &= ~(1u << site);
  }
  x->stable = x->told_stable = 0;
  x->settled = x->told_settled = x->clear = false;
  x->lack_said = false;
  resync_cancel (r, site);
  track_doubt_sent (&x->track);
  x->spread = 0;
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

/* It has to be filled: its own disk says so before its first block comes. */
static void
say_lack (struct repl *r, unsigned site, struct repl_actions *out)
{
  struct repl_site *x = &r->sites[site];
  struct repl_action *a;

  if (!x->lack_owed || x->lack_said || !link_fits (x, WIRE_HEADER_LEN, 1))
    return;
  if (!has_space (out, 1)) {
    out->more = true;
    return;
  }
  a = link_send (r, site, WIRE_MAP, FL_LACK, 0, 0, 0, out);
  a->frame.flags = WIRE_F_ALL;
  a->frame.missing = 1u << site;
  x->lack_said = true;
}

/* What the absent copies lack: if this one becomes production, it has to know.  New bits reach it
 * with each frame from EN_CLOSING on.  True: all is said. */
static bool
send_maps (struct repl *r, unsigned site, struct repl_actions *out)
{
  struct repl_site *x = &r->sites[site];

  for (; x->map_site < r->cfg.n_sites; x->map_site++, x->map_index = 0) {
    const struct bits *b = &r->cfg.mark->bits[x->map_site];

    if (x->map_site == r->cfg.site || x->map_site == site || (r->in_set & 1u << x->map_site)
        || b->n_set == 0)
      continue;
    for (; x->map_index < b->n_blocks; x->map_index++) {
      const uint8_t *p = b->map + x->map_index * META_BLOCK_PAYLOAD;
      struct repl_action *a;

      if (is_all_zero (p, META_BLOCK_PAYLOAD))
        continue;
      if (!link_fits (x, WIRE_HEADER_LEN + META_BLOCK_PAYLOAD, 1))
        return false;
      if (!has_space (out, 1)) {
        out->more = true;
        return false;
      }
      a = link_send (r, site, WIRE_MAP, FL_NONE, x->map_index * META_BLOCK_BITS * r->cfg.block_size,
                     0, META_BLOCK_PAYLOAD, out);
      a->frame.missing = 1u << x->map_site;
      a->op = (uint8_t) x->map_site;
      a->no = x->map_index;
    }
  }
  return true;
}

/* A copy that answers nothing, or too late, must not be waited for: it has all blocks sent, and may
 * have a store that hangs. */
static bool
keeps_up (const struct repl *r, const struct repl_site *x)
{
  if (x->unacked_frames == 0)
    return true;
  return x->acked_seq > 0
         && r->now_ms - x->flight[(x->acked_seq + 1) % LINK_WINDOW_FRAMES].sent_ms
                < (uint64_t) REPL_ENTER_STALL_MS << x->enter_tries;
}

static void
try_enter (struct repl *r, unsigned site, struct repl_actions *out)
{
  struct repl_site *x = &r->sites[site];
  const uint64_t open = track_open (&x->track);

  if ((r->in_set & 1u << site) || !x->link_up || x->mute || !x->map_valid || r->failed)
    return;
  if (x->enter == EN_NONE) {
    if (open > REPL_ENTER_BLOCKS || (open > 0 && !x->resync_begun) || r->hold
        || r->guard || r->now_ms < x->enter_retry_ms || !keeps_up (r, x))
      return;
    /* First: every request granted from now on waits for it. */
    x->enter = EN_CLOSING;
    x->enter_blind = false;
    x->untracked = true;
  }
  if ((x->enter != EN_CLOSING && x->enter != EN_MAPS) || open > 0 || x->n_rslots > 0)
    return;
  /* Then: all earlier ones are answered. */
  for (unsigned i = r->first; i != REPL_NONE; i = r->slots[i].next) {
    const struct repl_slot *s = &r->slots[i];
    if ((s->state == SL_ACTIVE || s->state == SL_DONE) && s->op != RO_READ_WAIT
        && !(s->must & 1u << site))
      return;
  }
  if (x->enter == EN_CLOSING) {
    x->enter = EN_MAPS;
    x->map_site = 0;
    x->map_index = 0;
  }
  if (r->cfg.mark && !send_maps (r, site, out))
    return;
  if (!link_fits (x, ENTER_BYTES, 1))
    return;
  if (!has_space (out, 1)) {
    out->more = true;
    return;
  }
  /* Then: it flushes and writes its superblock. */
  link_send (r, site, WIRE_ENTER, FL_ENTER, 0, 0, 0, out)->generation = r->generation;
  x->enter = EN_SENT;
}

static void
entered (struct repl *r, unsigned site, struct repl_actions *out)
{
  struct repl_site *x = &r->sites[site];

  if (x->enter != EN_SENT)
    return;
  track_all_stable (&x->track);
  x->spread = 0;
  if (x->track.count[TS_CLEAN] != x->track.n_blocks) {
    x->enter = EN_CLOSING; /* something was marked meanwhile: not yet */
    x->enter_blind = true; /* and what it got behind ENTER counts as stable now */
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
      x->slow = 0;
      if (r->cfg.mark)
        mark_persist (r->cfg.mark); /* so that the disk forgets what it lacked */
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
  x->syncs = ev->syncs;
  x->keeps = ev->keeps;
  x->digests = ev->digests;
  x->flush_ms = r->now_ms;
  x->read_retry_ms = 0;
  if (frames < 8 || bytes < least || bytes < r->cfg.block_size + 4 * WIRE_HEADER_LEN) {
    close_link (r, site, "the copy offers a window too small for one block", out);
    return;
  }
  if (!is_must (r, site)) {
    /* With a map of its own, a copy says itself what it lacks. */
    if (!x->map_valid || (x->map_needed && !ev->mapped) || ((ev->empty || ev->forked) && !ev->mapped)
        || (ev->restarted && x->untracked && !r->cfg.mark))
      mark_everything (r, x);
    x->map_needed = false;
    x->ask_pause = x->ask_left = ev->empty ? REPL_ASK_PAUSE_MAX : 0; /* so little is equal in an empty one */
    x->fork_taken = ev->forked;
    x->reason[0] = '\0';
    return;
  }
  if (ev->empty || ev->unusable || ev->restarted || x->lost_final) {
    /* R4, R5, or its own error: it must leave the set first. */
    x->mute = true;
    /* Restarted: what it may have lost is hot.  One that is asked out of a set that it may never have
     * entered was being filled: what it lacks is in the maps.  The others have no place in the set at all. */
    const bool in_maps = r->cfg.mark && (ev->mapped || !x->map_needed);
    if (ev->empty || (ev->unusable && ((r->in_set & 1u << site) || !in_maps))
        || (ev->restarted && !in_maps))
      x->map_valid = false;
    x->map_needed = false;
    copy_lost (r, site, true,
               ev->empty      ? "its store is empty"
               : ev->unusable ? "its store says that it was being resynchronised"
                              : "its machine restarted: what it had not flushed may be gone",
               out);
    return;
  }
  if (x->map_needed && !ev->mapped) {
    x->mute = true;
    x->map_valid = false;
    copy_lost (r, site, true, "it does not say in what it may differ", out);
    return;
  }
  x->map_needed = false;
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
  if (seq > x->acked_seq)
    x->progress_ms = r->now_ms;
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
      /* Outside the set: what it has beside the set's copies is dirty for it, there and here. */
      if (!is_must (r, site) && f->bound > x->stable)
        x->stable = f->bound;
      break;
    case FL_LACK:
      x->lack_owed = false;
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

/* What the copy knows to differ.  Only once: from then on all that it gets comes from here, unless
 * it has another store now. */
static void
map_piece (struct repl *r, const struct repl_event *ev)
{
  struct repl_site *x = &r->sites[ev->site];
  const uint64_t first = ev->offset / r->cfg.block_size;

  if (!r->cfg.mark
      || (!x->map_needed && !(ev->forked && !x->fork_taken) && (!ev->empty || is_must (r, ev->site)))
      || first >= x->track.n_blocks || ev->offset % r->cfg.block_size != 0)
    return;
  for (uint64_t i = 0; i < META_BLOCK_BITS && first + i < x->track.n_blocks; i++) {
    const uint64_t offset = (first + i) * r->cfg.block_size;
    if (ev->map && i % 8 == 0 && ev->map[i / 8] == 0)
      i += 7;
    else if (!ev->map || ev->map[i / 8] >> (i % 8) & 1)
      track_doubt (&x->track, offset,
                   r->cfg.block_size < r->cfg.size - offset ? r->cfg.block_size : r->cfg.size - offset);
  }
}

void
link_event (struct repl *r, const struct repl_event *ev, struct repl_actions *out)
{
  struct repl_site *x = &r->sites[ev->site];
  const char *why;

  switch ((enum repl_event_kind) ev->kind) {
  case RE_LINK_UP:
    link_is_up (r, ev, out);
    break;
  case RE_LINK_DOWN:
    link_lost (r, ev->site, ev->reason, out);
    if (!x->lost && ev->reason && ev->reason[0])
      repl_set_reason (x->reason, ev->reason); /* a refusal of an attempt, for instance */
    break;
  case RE_ACK:
    acked (r, ev->site, ev->seq, out);
    break;
  case RE_STABLE:
    why = stable_answer (r, ev->site, ev->seq);
    if (why)
      close_link (r, ev->site, why, out);
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
    /* With maps on disk nobody knows better than they. */
    if (ev->sync == RS_FULL && !is_must (r, ev->site) && !x->link_up && !r->cfg.mark)
      x->map_valid = false;
    break;
  case RE_MAP:
    map_piece (r, ev);
    break;
  case RE_UNMIRROR:
  case RE_DETACHED:
    x->mirror = false;
    x->fork_taken = false;
    x->map_needed = x->map_needed || (r->cfg.mark && ev->kind == RE_DETACHED);
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

void
link_pump (struct repl *r, struct repl_actions *out)
{
  for (unsigned s = 0; s < r->cfg.n_sites; s++)
    if (r->sites[s].link_up && !r->sites[s].mute) {
      send_queued (r, s, out);
      say_lack (r, s, out);
    }
  resync_pump (r, out);
  for (unsigned s = 0; s < r->cfg.n_sites; s++)
    if (r->sites[s].link_up)
      try_enter (r, s, out);
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
  resync_measure (r, x, ms);
  x->rate_ms = r->now_ms;
  x->rate_cleaned = x->track.cleaned;
}

/* Nobody waits for a copy outside the set, so a slow one gets longer each time, and in the end
 * what it needs for one frame. */
static bool
makes_no_progress (const struct repl *r, const struct repl_site *x)
{
  uint64_t since;

  if (!x->link_up || x->unacked_frames == 0)
    return false;
  since = x->flight[(x->acked_seq + 1) % LINK_WINDOW_FRAMES].sent_ms;
  if (x->progress_ms > since)
    since = x->progress_ms;
  return r->now_ms - since >= (uint64_t) r->cfg.suspend_timeout_ms << x->slow;
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
    pace_tick (r, s);
    if (x->lost && x->no == 0) /* R5 at init: not told yet */
      say (r, s, RA_COPY_LOST, out);
    if (r->in_set & 1u << s) {
      if (!x->link_up && r->now_ms - x->down_ms >= limit)
        copy_lost (r, s, false,
                   x->reason[0] ? x->reason : "no link within the suspend timeout", out);
      else if (age >= limit) /* also while its link comes and goes */
        copy_lost (r, s, false, "a request waits for it longer than the suspend timeout", out);
      else if (x->link_up && x->lost && !x->lost_final && !x->mute && age < limit / 2)
        copy_back (r, s, out); /* it moves again, and nothing has been committed yet */
    }
    else if (x->enter != EN_NONE && x->enter != EN_READY) {
      /* Longer with each attempt: a copy may be slow to flush, and has to get in once. */
      if (age >= (uint64_t) REPL_ENTER_STALL_MS << x->enter_tries || age >= limit) {
        leave_must (r, s);
        repl_set_reason (x->reason, "a request waited too long for it while it was entering the set");
        if (x->enter_tries < REPL_ENTER_TRIES_MAX)
          x->enter_tries++;
      }
    }
    else if (x->enter == EN_READY && age >= limit)
      copy_lost (r, s, false, "a request waits for it longer than the suspend timeout", out);
    if (!is_must (r, s) && makes_no_progress (r, x)) {
      close_link (r, s, "the copy makes no progress", out);
      if (x->slow < REPL_SLOW_MAX)
        x->slow++;
    }
  }
}
