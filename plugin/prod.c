/* SPDX-License-Identifier: BSD-3-Clause */
/* The production side around its pure core: feeds it requests, links, store and time, and carries
 * out its actions in their order.  Events that arise while actions are carried out wait in a
 * bounded queue.  It decides nothing: when to send, complete or give up is the core's.
 */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/ident.h"
#include "plugin/engine_private.h"
#include "plugin/log.h"

static const struct mlink_ops prod_link_ops;

/* ---- carrying out ------------------------------------------------------------------------- */

static void
rslot_done (struct sop *op, int error)
{
  struct prod_rslot *rs = container_of (op, struct prod_rslot, sop);
  struct repl_event ev = { .kind = RE_RESYNC_READ, .rslot = rs->index, .error = error, .length = rs->length };

  if (error == 0)
    ev.zero = is_all_zero (rs->buf, rs->length) ? RZ_ZERO : RZ_DATA;
  if (rs->e->prod.on)
    prod_feed (rs->e, &ev);
}

static void
resync_read (struct engine *e, const struct repl_action *a)
{
  struct store *s = &e->ia->store;
  struct prod_rslot *rs = &e->prod.rslots[a->rslot];
  struct repl_event ev = { .kind = RE_RESYNC_READ, .rslot = a->rslot };

  rs->offset = a->offset;
  rs->length = a->length;
  if (s->can_extents) {
    off_t data = lseek (s->fd, (off_t) a->offset, SEEK_DATA);
    uint64_t hole = 0;

    if (data != (off_t) -1)
      hole = (uint64_t) data - a->offset;
    else if (errno == ENXIO)
      hole = UINT64_MAX;
    hole = MIN (hole, a->length_max);
    /* Whole blocks only, unless it reaches as far as was asked. */
    if (hole < a->length_max)
      hole = round_down (hole, e->ia->p.dirty_block);
    if (hole >= a->length) {
      ev.zero = RZ_HOLE;
      ev.length = hole;
      prod_feed (e, &ev);
      return;
    }
  }
  sop_start (&rs->sop, SOP_READ, a->offset, a->length, rs->buf, false, false);
}

static void
local_part (struct engine *e, const struct repl_action *a)
{
  static const uint8_t kinds[] = {
    [RO_WRITE] = SOP_WRITE,
    [RO_ZERO] = SOP_ZERO,
    [RO_TRIM] = SOP_ZERO,
    [RO_FLUSH] = SOP_FLUSH,
  };
  struct sop *op = a->slot == REPL_SLOT_DRAIN  ? &e->prod.drain
                   : a->slot == REPL_SLOT_SYNC ? &e->prod.sync
                                               : &e->slots[a->slot].local;
  const void *data = a->slot >= REPL_MAX_SLOTS ? NULL : e->slots[a->slot].rq.data;

  sop_start (op, (enum sop_kind) kinds[a->op], a->offset, a->length, (void *) (uintptr_t) data,
             a->flags & RF_FUA, a->op == RO_TRIM || (a->flags & RF_MAY_TRIM));
}

static void
drain_done (struct sop *op, int error)
{
  struct engine *e = container_of (op, struct engine, prod.drain);
  struct repl_event ev = { .kind = RE_LOCAL_DONE, .slot = REPL_SLOT_DRAIN, .error = error };

  if (e->prod.on)
    prod_feed (e, &ev);
}

static void
sync_done (struct sop *op, int error)
{
  struct engine *e = container_of (op, struct engine, prod.sync);
  struct repl_event ev = { .kind = RE_LOCAL_DONE, .slot = REPL_SLOT_SYNC, .error = error };

  if (e->prod.on)
    prod_feed (e, &ev);
}

static size_t
encode_record (struct engine *e, unsigned site, uint64_t since, uint8_t *buf, size_t size)
{
  struct wire_record m = { .tenure = e->rec.tenure, .generation = e->rec.generation, .since = since,
                           .loss = e->rec.loss, .in_set = e->rec.in_set };

  return wire_encode_record (&m, buf, size);
}

static void
send_frame (struct engine *e, const struct repl_action *a)
{
  struct mlink *l = &e->links[a->site];
  struct wire_header h = a->frame;
  uint8_t control[WIRE_MAX_CONTROL];
  const uint8_t *payload = NULL;
  int r;

  h.tenure = e->rec.tenure;
  if (h.type == WIRE_ENTER) {
    payload = control;
    h.payload_len = (uint32_t) encode_record (e, a->site, a->generation, control, sizeof control);
  }
  else if (h.type == WIRE_MAP && h.payload_len > 0)
    payload = e->mapw.mark.bits[a->op].map + a->no * META_BLOCK_PAYLOAD;
  else if (h.payload_len > 0 && a->slot != REPL_NO_SLOT)
    payload = (const uint8_t *) e->slots[a->slot].rq.data + a->slot_offset;
  else if (h.payload_len > 0)
    payload = e->prod.rslots[a->rslot].buf + a->slot_offset;
  r = mlink_send (l, &h, payload);
  /* The core sends no more than it was given room for, so what fails here is the link. */
  if (r < 0 && l->state != LK_CLOSING && l->state != LK_FREE)
    mlink_close (l, r == -ENOBUFS ? "the link's buffer overflowed" : "the link broke");
}

static void
tell_lost (struct engine *e, unsigned site, const char *reason)
{
  struct prod_site *x = &e->prod.sites[site];

  control_event (e, json_pack ("{s:s, s:i, s:I, s:I, s:o}", "event", "copy-lost", "site", (int) site,
                               "seq", (json_int_t) x->told_no, "generation", (json_int_t) x->told_generation,
                               "reason", jsonl_string (reason)));
}

static void
tell_back (struct engine *e, unsigned site)
{
  control_event (e, json_pack ("{s:s, s:i, s:I}", "event", "copy-back", "site", (int) site, "seq",
                               (json_int_t) e->prod.sites[site].told_no));
}

static void
tell_ready (struct engine *e, unsigned site)
{
  struct prod_site *x = &e->prod.sites[site];
  char boot[IDENT_ID_TEXT_LEN];

  ident_id_to_text (x->boot_id, boot);
  control_event (e, json_pack ("{s:s, s:i, s:I, s:I, s:s}", "event", "copy-ready", "site", (int) site,
                               "seq", (json_int_t) x->told_no, "generation", (json_int_t) x->told_generation,
                               "boot_id", boot));
}

static void
tell_link (struct engine *e, unsigned site)
{
  struct repl_site_status st;

  repl_site_status (e->prod.core, site, e->now_ms, &st);
  if (st.state == e->prod.sites[site].event_state)
    return;
  e->prod.sites[site].event_state = st.state;
  log_line ("copy at %s: %s%s%s", e->rec.site[site], repl_site_state_name (st.state), st.reason[0] ? ": " : "", st.reason);
  control_event (e, json_pack ("{s:s, s:i, s:s, s:o, s:b}", "event", "link", "site", (int) site,
                               "state", repl_site_state_name (st.state), "reason", jsonl_string (st.reason), "in_set",
                               st.in_set));
}

static void
carry_out (struct engine *e, const struct repl_action *a)
{
  struct prod_site *x = &e->prod.sites[a->site < CRG_MAX_SITES ? a->site : 0];
  const char *reason = a->reason ? a->reason : "";

  switch ((enum repl_action_kind) a->kind) {
  case RA_LOCAL:
    local_part (e, a);
    break;
  case RA_SEND:
    send_frame (e, a);
    break;
  case RA_COMPLETE:
    engine_answer (e, a->slot, a->error);
    break;
  case RA_RESYNC_READ:
    resync_read (e, a);
    break;
  case RA_COPY_LOST:
    x->told_no = a->no;
    x->told_generation = a->generation;
    snprintf (x->why, sizeof x->why, "%s", reason);
    log_line ("copy at %s is lost: %s; I/O waits until the group has removed it", e->rec.site[a->site], reason);
    tell_lost (e, a->site, reason);
    break;
  case RA_COPY_BACK:
    x->told_no = a->no;
    log_line ("copy at %s is back", e->rec.site[a->site]);
    tell_back (e, a->site);
    break;
  case RA_COPY_READY:
    /* A resync is over: what it has shown bounds the next one.  The record that takes the copy in
     * brings the superblock to the disk. */
    if (repl_resync_rate (e->prod.core) != 0) {
      e->meta.sb.resync_rate = repl_resync_rate (e->prod.core);
      mapw_bound (e);
    }
    x->told_no = a->no;
    x->told_generation = a->generation;
    log_line ("copy at %s is filled and flushed; it asks to enter the set", e->rec.site[a->site]);
    tell_ready (e, a->site);
    break;
  case RA_CLOSE_LINK:
    mlink_close (&e->links[a->site], reason);
    break;
  case RA_DRAINED:
    e->prod.drained = true;
    break;
  case RA_STORE_FAILED:
    /* No read is answered either: it would go to the core, which holds it. */
    atomic_store (&e->ia->gate.lease_until_ms, 0);
    store_fail (&e->ia->store, a->error < 0 ? -a->error : EIO);
    engine_store_failed (e, -a->error, reason);
    break;
  case RA_STATE:
    tell_link (e, a->site);
    break;
  case RA_MARK:
    mapw_write (e);
    break;
  case RA_STABLE: {
    struct wire_header h = a->frame;

    /* If there is no room the next one says it too, but what is asked for has to arrive. */
    h.tenure = e->rec.tenure;
    if (mlink_send (&e->links[a->site], &h, NULL) == -ENOBUFS && (h.flags & WIRE_F_SYNC))
      mlink_close (&e->links[a->site], "the copy does not read what it is asked");
    break;
  }
  case RA_DIGEST:
  case RA_DIGEST_REQ:
  case RA_DIFFERS:
  case RA_VERIFY:
    prodverify_do (e, a);
    break;
  case RA_GUARD:
    atomic_store (&e->ia->gate.guarded, a->error != 0);
    log_line ("the copies of the set are equal: reads wait no more");
    break;
  }
}

static void
set_time (struct engine *e, struct repl_event *ev)
{
  ev->now_us = clock_boottime_ns () / 1000;
  ev->now_ms = ev->now_us / 1000;
  ev->read_ms = atomic_load_explicit (&e->ia->gate.read_ms, memory_order_relaxed);
}

static void
step (struct engine *e, const struct repl_event *ev)
{
  struct prod *p = &e->prod;
  struct repl_event more = { .kind = RE_MORE };

  repl_step (p->core, ev, p->acts);
  for (;;) {
    for (unsigned i = 0; i < p->acts->n && p->on; i++)
      carry_out (e, &p->acts->a[i]);
    if (!p->acts->more || !p->on)
      return;
    set_time (e, &more);
    repl_step (p->core, &more, p->acts);
  }
}

void
prod_feed (struct engine *e, struct repl_event *ev)
{
  struct prod *p = &e->prod;

  if (!p->on)
    return;
  if (p->stepping) {
    struct prod_event *q;

    /* Every source has at most one event here: a resync buffer, a question, a link's end or its room. */
    if (p->ev_n == PROD_EVENTS)
      abort ();
    q = &p->events[(p->ev_head + p->ev_n++) % PROD_EVENTS];
    q->ev = *ev;
    if (ev->reason) {
      snprintf (q->reason, sizeof q->reason, "%s", ev->reason);
      q->ev.reason = q->reason;
    }
    return;
  }
  p->stepping = true;
  set_time (e, ev);
  step (e, ev);
  while (p->ev_n > 0 && p->on) {
    struct prod_event q = p->events[p->ev_head];

    p->ev_head = (p->ev_head + 1) % PROD_EVENTS;
    p->ev_n--;
    if (q.ev.reason)
      q.ev.reason = q.reason;
    set_time (e, &q.ev);
    step (e, &q.ev);
  }
  p->stepping = false;
}

uint32_t
prod_wait_ms (struct engine *e, uint32_t most_ms)
{
  struct repl_event ev = { .kind = RE_MORE };
  const uint64_t at = e->prod.on ? repl_wake_us (e->prod.core) : UINT64_MAX;
  uint64_t now_us;

  if (at == UINT64_MAX)
    return most_ms;
  now_us = clock_boottime_ns () / 1000;
  if (at > now_us)
    return (uint32_t) MIN ((uint64_t) most_ms, (at - now_us + 999) / 1000);
  prod_feed (e, &ev);
  return 0;
}

void
prod_request (struct engine *e, unsigned slot)
{
  struct req_slot *s = &e->slots[slot];
  struct repl_event ev = { .kind = RE_REQUEST, .op = (uint8_t) s->rq.op, .slot = (uint16_t) slot, .flags = s->rq.flags,
                           .offset = s->rq.offset, .length = s->rq.length };

  s->in_core = true;
  s->answered = false;
  if (s->rq.store_error != 0) {
    struct repl_event failed = { .kind = RE_STORE_FAILED, .error = s->rq.store_error,
                                 .reason = "a read of the production store failed" };

    /* F4: held, if a copy that has the data can take over.  Else the rest of the store is worth
     * more than its silence. */
    if (e->role == ROLE_DETACHED || !(e->rec.in_set & ~(1u << e->site))) {
      log_line ("store %s: a read at %llu failed: %s", e->ia->p.store, (unsigned long long) s->rq.offset,
                strerror (-s->rq.store_error));
      engine_answer (e, slot, s->rq.store_error);
      return;
    }
    prod_feed (e, &failed);
  }
  prod_feed (e, &ev);
}

/* ---- links -------------------------------------------------------------------------------- */

static void
link_up (struct mlink *l)
{
  struct engine *e = l->owner;
  struct wire_header h = { .type = WIRE_HELLO, .tenure = e->rec.tenure };
  struct wire_hello m = { .proto_min = WIRE_PROTO_MIN, .proto_max = WIRE_PROTO_MAX };
  uint8_t buf[WIRE_MAX_CONTROL];
  const struct params *p = &e->ia->p;

  memcpy (m.cluster_id, p->cluster_id, CRG_ID_LEN);
  memcpy (m.lineage, p->lineage, CRG_ID_LEN);
  memcpy (m.crg_id, p->crg_id, CRG_ID_LEN);
  memcpy (m.iasp_id, p->iasp_id, CRG_ID_LEN);
  memcpy (m.boot_id, e->boot_id, CRG_ID_LEN);
  m.session = e->session;
  m.tenure = e->rec.tenure;
  m.generation = e->rec.generation;
  m.size = p->size;
  m.features = WIRE_FEATURE_DIGEST | (e->mapw.on ? WIRE_FEATURE_TRACKING | WIRE_FEATURE_SYNC | WIRE_FEATURE_KEEP : 0);
  m.block_size = e->meta.sb.block_size;
  m.dirty_block_size = p->dirty_block;
  m.site = e->site;
  m.peer_site = l->site;
  snprintf (m.crg, sizeof m.crg, "%s", p->crg);
  snprintf (m.iasp, sizeof m.iasp, "%s", p->name);
  snprintf (m.node, sizeof m.node, "%s", p->node);
  h.payload_len = (uint32_t) wire_encode_hello (&m, buf, sizeof buf);
  mlink_send (l, &h, buf);
}

static uint8_t *
link_payload (struct mlink *l, const struct wire_header *h)
{
  mlink_close (l, "protocol: a copy sends no data");
  return NULL;
}

static void
record_to_copy (struct engine *e, unsigned s)
{
  struct mlink *l = &e->links[s];
  struct wire_header h = { .type = WIRE_RECORD, .tenure = e->rec.tenure };
  uint8_t buf[WIRE_MAX_CONTROL];

  if (s == e->site || !e->prod.sites[s].up || l->state != LK_UP)
    return;
  h.payload_len = (uint32_t) encode_record (e, s, e->rec.in_set & 1u << s ? e->rec.since[s] : 0, buf, sizeof buf);
  /* A copy that does not hear who left the set would not know what that one lacks. */
  if (mlink_send (l, &h, buf) == -ENOBUFS)
    mlink_close (l, "the copy does not read what it is told");
}

static void
link_is_up (struct engine *e, struct mlink *l)
{
  struct prod_site *x = &e->prod.sites[l->site];

  x->mapping = false;
  x->link_up.room_bytes = mlink_room (l);
  x->up = true;
  prod_feed (e, &x->link_up);
  record_to_copy (e, l->site);
}

/* A piece of the copy's own map, or its end. */
static void
link_map (struct engine *e, struct mlink *l, const struct wire_header *h, const uint8_t *payload)
{
  struct prod_site *x = &e->prod.sites[l->site];
  struct repl_event ev = { .kind = RE_MAP, .site = l->site, .empty = x->link_up.empty,
                           .forked = x->link_up.forked, .offset = h->offset,
                           .map = payload };

  if (!x->mapping) {
    mlink_close (l, "protocol: a MAP after the end of the map");
    return;
  }
  x->map_heard_ms = e->now_ms;
  if (!(h->flags & WIRE_F_END)) {
    /* In order: so it ends. */
    if (h->offset < x->map_from) {
      mlink_close (l, "protocol: pieces of the map out of order");
      return;
    }
    x->map_from = h->offset + (uint64_t) META_BLOCK_BITS * e->ia->p.dirty_block;
    prod_feed (e, &ev);
    return;
  }
  x->link_up.mapped = true;
  link_is_up (e, l);
}

static void
hello_ok (struct engine *e, struct mlink *l, const struct wire_header *h, const uint8_t *payload)
{
  struct prod_site *x = &e->prod.sites[l->site];
  struct repl_event ev = { .kind = RE_LINK_UP, .site = l->site };
  struct wire_hello_ok m;
  enum wire_status st = wire_decode_hello_ok (payload, h->payload_len, &m);

  if (st != WIRE_OK || m.proto < WIRE_PROTO_MIN || m.proto > WIRE_PROTO_MAX) {
    mlink_close (l, st != WIRE_OK ? wire_strerror (st) : "the copy chose a version that we don't speak");
    return;
  }
  /* R1: it has to have stored this tenure before it answers. */
  if (m.tenure != e->rec.tenure || h->tenure != e->rec.tenure || (m.flags & WIRE_OK_FORK)) {
    mlink_close (l, m.flags & WIRE_OK_FORK         ? "the copy is a fork (R6)"
                    : m.tenure > e->rec.tenure ? "the copy has seen a newer production host (R1)"
                                               : "the copy answers for another tenure (R1)");
    return;
  }
  l->spoken = true;
  memcpy (x->boot_id, m.boot_id, CRG_ID_LEN);
  log_line ("link to %s at %s (%s) is up: its generation %llu%s%s%s", m.node, e->rec.site[l->site], l->where,
            (unsigned long long) m.generation, m.flags & WIRE_OK_RESTARTED ? ", restarted" : "",
            m.flags & WIRE_OK_EMPTY ? ", empty" : "", m.flags & WIRE_OK_UNUSABLE ? ", unusable" : "");
  ev.restarted = m.flags & WIRE_OK_RESTARTED;
  ev.empty = m.flags & WIRE_OK_EMPTY;
  ev.unusable = m.flags & WIRE_OK_UNUSABLE;
  ev.forked = e->rec.diverged >> l->site & 1;
  ev.digests = m.features & WIRE_FEATURE_DIGEST;
  ev.window_bytes = MIN (m.window_bytes, (uint32_t) LINK_WINDOW_BYTES);
  ev.window_frames = MIN (m.window_frames, (uint32_t) LINK_WINDOW_FRAMES);
  ev.syncs = e->mapw.on && (m.features & WIRE_FEATURE_SYNC);
  ev.keeps = e->mapw.on && (m.features & WIRE_FEATURE_KEEP);
  x->link_up = ev;
  x->mapping = e->mapw.on && (m.features & WIRE_FEATURE_TRACKING);
  x->map_from = 0;
  x->map_heard_ms = e->now_ms;
  if (!x->mapping)
    link_is_up (e, l);
}

static void
link_refused (struct engine *e, struct mlink *l, const struct wire_header *h, const uint8_t *payload)
{
  struct wire_refuse m;
  char reason[CRG_REASON_MAX + 1];

  if (wire_decode_refuse (payload, h->payload_len, &m) != WIRE_OK) {
    mlink_close (l, "protocol: a REFUSE that can't be read");
    return;
  }
  snprintf (reason, sizeof reason, "refused by %.60s: %.180s", e->prod.sites[l->site].node, m.reason);
  if (m.code != WIRE_REFUSE_BUSY) {
    if (strcmp (e->prod.sites[l->site].why, reason) != 0)
      log_line ("copy at %s %s", e->rec.site[l->site], reason);
    control_event (e, json_pack ("{s:s, s:i, s:s, s:o}", "event", "refused", "site", (int) l->site, "code",
                                 wire_refuse_name (m.code), "reason", jsonl_string (reason)));
  }
  mlink_close (l, reason);
}

static void
link_frame (struct mlink *l, const struct wire_header *h, uint8_t *payload)
{
  struct engine *e = l->owner;
  struct repl_event ev = { .site = l->site, .seq = h->seq };
  struct wire_failure f;
  char reason[CRG_REASON_MAX + 1];

  if (h->type == WIRE_REFUSE) {
    link_refused (e, l, h, payload);
    return;
  }
  if (!l->spoken) {
    if (h->type == WIRE_HELLO_OK)
      hello_ok (e, l, h, payload);
    else
      mlink_close (l, "protocol: another frame came where HELLO_OK should");
    return;
  }
  if (h->tenure != e->rec.tenure) {
    mlink_close (l, "protocol: a frame with another tenure than its HELLO (R1)");
    return;
  }
  switch (h->type) {
  case WIRE_ACK:
    ev.kind = RE_ACK;
    prod_feed (e, &ev);
    break;
  case WIRE_STABLE:
    ev.kind = RE_STABLE;
    prod_feed (e, &ev);
    break;
  case WIRE_ERROR:
    ev.kind = RE_COPY_ERROR;
    if (wire_decode_failure (payload, h->payload_len, &f) == WIRE_OK)
      snprintf (reason, sizeof reason, "%s: %.200s", wire_error_name (f.code), f.reason);
    else
      snprintf (reason, sizeof reason, "an error that can't be read");
    ev.reason = reason;
    log_line ("copy at %s: %s", e->rec.site[l->site], reason);
    prod_feed (e, &ev);
    break;
  case WIRE_MAP:
    link_map (e, l, h, payload);
    break;
  case WIRE_DIGEST:
    ev.kind = RE_DIGEST;
    ev.error = h->flags & WIRE_F_FAILED ? -EIO : 0;
    ev.map = h->payload_len > 0 ? payload : NULL;
    ev.length = h->payload_len / WIRE_DIGEST_LEN;
    prod_feed (e, &ev);
    break;
  case WIRE_BYE:
    mlink_close (l, "the copy said goodbye");
    break;
  default:
    mlink_close (l, "protocol: a frame that a copy does not send");
    break;
  }
}

static void
link_room (struct mlink *l)
{
  struct engine *e = l->owner;
  struct repl_event ev = { .kind = RE_ROOM, .site = l->site };

  if (!e->prod.on || !e->prod.sites[l->site].up)
    return;
  ev.room_bytes = mlink_room (l);
  prod_feed (e, &ev);
}

static void
link_closed (struct mlink *l, const char *reason)
{
  struct engine *e = l->owner;
  struct prod_site *x = &e->prod.sites[l->site];
  struct repl_event ev = { .kind = RE_LINK_DOWN, .site = l->site, .reason = reason };

  if (strcmp (x->why, reason) != 0) {
    snprintf (x->why, sizeof x->why, "%s", reason);
    log_line ("link to %s at %s: %s", x->node, e->rec.site[l->site], reason);
  }
  x->up = x->mapping = false;
  /* Also a link that came up: a copy that answers HELLO and breaks it at once is asked seldom. */
  if (l->spoken && e->now_ms - l->opened_ms >= LINK_STEADY_MS)
    x->retry_ms = LINK_RETRY_MIN_MS;
  x->retry_at_ms = e->now_ms + x->retry_ms;
  x->retry_ms = MIN (x->retry_ms * 2, (uint64_t) LINK_RETRY_MAX_MS);
  if (e->prod.on)
    prod_feed (e, &ev);
}

static const struct mlink_ops prod_link_ops = {
  .up = link_up,
  .payload = link_payload,
  .frame = link_frame,
  .room = link_room,
  .closed = link_closed,
};

static void
try_connect (struct engine *e, unsigned site)
{
  struct prod_site *x = &e->prod.sites[site];
  const char *address = x->address[x->next_address];
  int r;

  x->next_address = (x->next_address + 1) % x->n_addresses;
  r = mlink_connect (&e->links[site], address, x->port, e->tls, x->node, PROD_OUT_BYTES, e->now_ms);
  if (r < 0) {
    char reason[CRG_REASON_MAX + 1];
    struct repl_event ev = { .kind = RE_LINK_DOWN, .site = (uint8_t) site, .reason = reason };

    snprintf (reason, sizeof reason, "connect %.60s: %s", address, strerror (-r));
    x->retry_at_ms = e->now_ms + LINK_RETRY_MAX_MS;
    prod_feed (e, &ev);
  }
}

/* ---- what the controller says ------------------------------------------------------------- */

void
prod_record (struct engine *e, uint64_t seen)
{
  struct repl_event ev = { .kind = RE_RECORD, .in_set = e->rec.in_set, .generation = e->rec.generation, .seen = seen };
  struct superblock *sb = &e->meta.sb;

  prod_feed (e, &ev);
  if (sb->generation != e->rec.generation || sb->in_set != e->rec.in_set || sb->loss != e->rec.loss) {
    sb->generation = e->rec.generation;
    sb->in_set = e->rec.in_set;
    sb->loss = e->rec.loss;
    metaw_lazy (e);
  }
  for (unsigned s = 0; s < e->rec.n_sites; s++)
    record_to_copy (e, s);
}

void
prod_lease (struct engine *e)
{
  struct repl_event ev = { .kind = RE_LEASE, .until_ms = e->lease_until_ms };

  if (!e->store_told)
    atomic_store (&e->ia->gate.lease_until_ms, e->lease_until_ms);
  prod_feed (e, &ev);
}

void
prod_mirror (struct engine *e, unsigned site, const char *node, unsigned sync)
{
  struct prod_site *x = &e->prod.sites[site];
  struct repl_event ev = { .kind = RE_MIRROR, .site = (uint8_t) site, .sync = (uint8_t) sync };

  if (e->links[site].state != LK_FREE && strcmp (x->node, node) != 0)
    mlink_close (&e->links[site], "another host has the copy now");
  snprintf (x->node, sizeof x->node, "%s", node);
  snprintf (e->rec.host[site], sizeof e->rec.host[site], "%s", node);
  x->wanted = true;
  x->retry_ms = LINK_RETRY_MIN_MS;
  x->retry_at_ms = 0;
  x->next_address = 0;
  prod_feed (e, &ev);
  prod_tick (e);
}

void
prod_unmirror (struct engine *e, unsigned site, const char *reason)
{
  struct repl_event ev = { .kind = RE_UNMIRROR, .site = (uint8_t) site, .reason = reason };

  e->prod.sites[site].wanted = false;
  mlink_close (&e->links[site], reason);
  prod_feed (e, &ev);
}

void
prod_hold (struct engine *e, const char *reason)
{
  struct repl_event ev = { .kind = RE_HOLD, .reason = e->prod.hold_reason };

  snprintf (e->prod.hold_reason, sizeof e->prod.hold_reason, "%s", reason);
  e->prod.held = true;
  e->prod.drained = false;
  prod_feed (e, &ev);
}

void
prod_resume (struct engine *e)
{
  struct repl_event ev = { .kind = RE_RESUME };

  e->prod.held = false;
  prod_feed (e, &ev);
}

void
prod_tell_levels (struct engine *e)
{
  struct repl_site_status st = { .no = 0 };

  /* What stands, and in what order it was said, is the core's to say. */
  for (int s; e->prod.on && (s = repl_level_after (e->prod.core, st.no)) >= 0;) {
    const unsigned site = (unsigned) s;

    repl_site_status (e->prod.core, site, e->now_ms, &st);
    e->prod.sites[site].told_no = st.no;
    if (st.level == RA_COPY_LOST)
      tell_lost (e, site, st.reason);
    else if (st.level == RA_COPY_READY)
      tell_ready (e, site);
    else
      tell_back (e, site);
  }
}

void
prod_tick (struct engine *e)
{
  struct repl_event ev = { .kind = RE_TICK };

  if (!e->prod.on)
    return;
  for (unsigned s = 0; s < e->rec.n_sites; s++) {
    struct prod_site *x = &e->prod.sites[s];

    if (x->mapping && e->now_ms - x->map_heard_ms > LINK_HANDSHAKE_MS)
      mlink_close (&e->links[s], "the copy does not send its map");
    if (x->wanted && x->n_addresses > 0 && e->links[s].state == LK_FREE && e->now_ms >= x->retry_at_ms)
      try_connect (e, s);
  }
  prod_feed (e, &ev);
}

/* ---- life --------------------------------------------------------------------------------- */

int
prod_init (struct engine *e)
{
  struct prod *p = &e->prod;

  p->core = calloc (1, sizeof *p->core);
  p->acts = calloc (1, sizeof *p->acts);
  if (!p->core || !p->acts)
    return -ENOMEM;
  for (unsigned i = 0; i < PROD_RSLOTS; i++) {
    p->rslots[i].e = e;
    p->rslots[i].index = (uint16_t) i;
    if (sop_init (&p->rslots[i].sop, &e->env, rslot_done) < 0)
      return -ENOMEM;
  }
  if (sop_init (&p->sync, &e->env, sync_done) < 0)
    return -ENOMEM;
  return sop_init (&p->drain, &e->env, drain_done);
}

static void
free_buffers (struct prod *p)
{
  for (unsigned i = 0; i < PROD_RSLOTS; i++) {
    free (p->rslots[i].buf);
    p->rslots[i].buf = NULL;
  }
  for (unsigned s = 0; s < CRG_MAX_SITES; s++) {
    free (p->track_memory[s]);
    p->track_memory[s] = NULL;
  }
}

void
prod_free (struct engine *e)
{
  struct prod *p = &e->prod;

  free_buffers (p);
  free (p->verify.memory);
  for (unsigned i = 0; i < PROD_RSLOTS; i++)
    sop_free (&p->rslots[i].sop);
  sop_free (&p->drain);
  sop_free (&p->sync);
  free (p->core);
  free (p->acts);
}

int
prod_start (struct engine *e, bool equal, bool again, char *err, size_t errlen)
{
  struct prod *p = &e->prod;
  const struct params *pa = &e->ia->p;
  const uint32_t others = ((1u << e->rec.n_sites) - 1) & ~(1u << e->site);
  const bool fork = e->role == ROLE_DETACHED; /* R6: nobody gets what it is written, and all that is tracked */
  struct repl_config cfg = {
    .size = pa->size, .block_size = pa->dirty_block, .site = e->site, .n_sites = e->rec.n_sites,
    .n_rslots = e->ia->store.is_memory ? PROD_RSLOTS_MEMORY : PROD_RSLOTS,
    .share_percent = (uint8_t) pa->resync_share, .equal = equal,
    .in_set = fork ? 0 : e->rec.in_set,
    .mark = mapw_mark (e), .unclean = equal ? 0 : others & e->rec.in_set,
    .entering = again ? others & ~e->rec.in_set : 0,
    .generation = e->rec.generation, .suspend_timeout_ms = pa->suspend_timeout_ms,
    .no_quorum_timeout_ms = pa->no_quorum_timeout_ms, .return_store_error = fork || pa->return_store_error,
  };
  const char *refused;

  free_buffers (p);
  cfg.track_memory_bytes = track_memory_bytes (pa->size, pa->dirty_block);
  cfg.track_is_zeroed = true;
  for (unsigned s = 0; s < e->rec.n_sites; s++) {
    if (s == e->site)
      continue;
    p->track_memory[s] = calloc (1, cfg.track_memory_bytes);
    if (!p->track_memory[s])
      goto no_memory;
    cfg.track_memory[s] = p->track_memory[s];
  }
  for (unsigned i = 0; i < PROD_RSLOTS && e->rec.n_sites > 1; i++) {
    void *buf;

    if (posix_memalign (&buf, META_BLOCK_SIZE, MAX (pa->dirty_block, (uint32_t) META_BLOCK_SIZE)) != 0)
      goto no_memory;
    p->rslots[i].buf = buf;
  }
  memset (p->sites, 0, sizeof p->sites);
  memset (&p->verify, 0, sizeof p->verify);
  for (unsigned s = 0; s < CRG_MAX_SITES; s++) {
    p->sites[s].retry_ms = LINK_RETRY_MIN_MS;
    mlink_init (&e->links[s], &e->ring, s, &prod_link_ops, e);
    e->links[s].site = (uint8_t) s;
  }
  refused = repl_init (p->core, &cfg, e->now_ms);
  if (refused) {
    snprintf (err, errlen, "%s", refused);
    return -EINVAL;
  }
  p->ev_head = p->ev_n = 0;
  p->stepping = p->held = p->drained = false;
  p->on = true;
  atomic_store (&e->ia->gate.guarded, repl_is_guarded (p->core));
  prod_lease (e);
  prod_tick (e);
  return 0;

no_memory:
  snprintf (err, errlen, "no memory for tracking and resync");
  return -ENOMEM;
}

void
prod_stop (struct engine *e)
{
  struct wire_header bye = { .type = WIRE_BYE };

  if (!e->prod.on)
    return;
  e->prod.on = false;
  prodverify_end (e);
  bye.tenure = e->rec.tenure;
  for (unsigned s = 0; s < CRG_MAX_SITES; s++) {
    struct mlink *l = &e->links[s];

    if (l->state == LK_UP && l->spoken)
      mlink_send (l, &bye, NULL);
    mlink_finish (l, e->now_ms);
  }
  for (unsigned i = 0; i < REPL_MAX_SLOTS; i++)
    if (e->slots[i].in_core)
      engine_answer (e, i, -ESHUTDOWN);
}

bool
prod_is_idle (struct engine *e)
{
  for (unsigned i = 0; i < PROD_RSLOTS; i++)
    if (e->prod.rslots[i].sop.busy)
      return false;
  for (unsigned s = 0; s < CRG_MAX_SITES; s++)
    if (e->links[s].state != LK_FREE)
      return false;
  return !e->prod.drain.busy && !e->prod.sync.busy && digest_is_idle (e->digester);
}
