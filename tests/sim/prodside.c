/* SPDX-License-Identifier: BSD-3-Clause
 *
 * plugin/prod.c for crgsim: feeds the real replication core and carries out its actions in order.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/util.h"
#include "tests/sim/world.h"

#define PROD_RSLOTS    8
#define PROD_OUT_BYTES (4u * 1024 * 1024)

static uint64_t
room (const struct wconn *c)
{
  return PROD_OUT_BYTES > c->out_used ? PROD_OUT_BYTES - c->out_used : 0;
}

static struct wconn *
link_of (const struct wplugin *p, unsigned site)
{
  struct wconn *c = p->ps[site].conn ? net_conn (p->ps[site].conn) : NULL;

  return c != NULL && c->prod_open ? c : NULL;
}

static void
local_part (struct wplugin *p, const struct repl_action *a)
{
  const bool drain = a->slot >= REPL_MAX_SLOTS;
  struct dop *op;

  p->busy_local++;
  if (a->op == RO_FLUSH) {
    disk_op (p, DW_FLUSH, DF_LOCAL, a->slot, 0, 0, false);
    return;
  }
  if (drain || a->slot >= W_SLOTS) {
    world_fail ("n%u: a local part of slot %u", p->node + 1, a->slot);
    return;
  }
  client_stamp (p, a->slot);
  check_written (p, a->offset, a->length);
  op = disk_op (p, DW_WRITE, DF_LOCAL, a->slot, a->offset, a->length, a->flags & RF_FUA);
  for (unsigned i = 0; i < a->length / W_UNIT; i++)
    op->data[i] = w.client[p->iasp][a->slot].stamp;
}

static void
resync_read (struct wplugin *p, const struct repl_action *a)
{
  const struct wdisk *d = &w.disk[p->site][p->iasp];
  struct repl_event ev = { .kind = RE_RESYNC_READ, .rslot = a->rslot };
  const unsigned first = (unsigned) (a->offset / W_UNIT);
  unsigned hole = 0;

  p->rread_offset[a->rslot] = a->offset;
  p->rread_length[a->rslot] = a->length;
  /* SEEK_DATA: zeroes may be a hole. */
  while (hole < a->length_max / W_UNIT && (d->cur[first + hole] == 0 || (d->cur[first + hole] & W_ZERO)))
    hole++;
  if (chance (50)) {
    uint64_t bytes = (uint64_t) hole * W_UNIT;

    if (bytes < a->length_max)
      bytes = round_down (bytes, W_BLOCK);
    if (bytes >= a->length) {
      ev.zero = RZ_HOLE;
      ev.length = bytes;
      prod_feed (p, &ev);
      return;
    }
  }
  p->busy_rread++;
  disk_op (p, DW_READ, DF_RREAD, a->rslot, a->offset, a->length, false);
}

static void
rread_done (struct wplugin *p, unsigned rslot, int error)
{
  const struct wdisk *d = &w.disk[p->site][p->iasp];
  struct repl_event ev = { .kind = RE_RESYNC_READ, .rslot = (uint16_t) rslot, .error = error,
                           .length = p->rread_length[rslot] };
  const unsigned first = (unsigned) (p->rread_offset[rslot] / W_UNIT);
  const unsigned n = (unsigned) (p->rread_length[rslot] / W_UNIT);
  bool zero = true;

  p->busy_rread--;
  for (unsigned i = 0; i < n; i++) {
    p->rbuf[rslot][i] = d->cur[first + i];
    zero = zero && (d->cur[first + i] == 0 || (d->cur[first + i] & W_ZERO));
  }
  if (error == 0 && !w.healing && chance (1))
    ev.error = error = -EIO; /* a bad sector, for once */
  if (error == 0)
    ev.zero = zero ? RZ_ZERO : RZ_DATA;
  if (p->prod_on)
    prod_feed (p, &ev);
}

void
prod_disk_done (struct wplugin *p, const struct dop *d, int error)
{
  struct repl_event ev = { .kind = RE_LOCAL_DONE, .slot = d->index, .error = error };

  if (d->why == DF_RREAD) {
    rread_done (p, d->index, error);
    return;
  }
  p->busy_local--;
  if (p->prod_on)
    prod_feed (p, &ev);
}

static void
encode_record (const struct wplugin *p, uint64_t since, struct wire_header *h, uint8_t *buf)
{
  struct wire_record m = { .tenure = p->rec.tenure, .generation = p->rec.generation, .since = since,
                           .loss = p->rec.loss, .in_set = p->rec.in_set };

  h->payload_len = (uint32_t) wire_encode_record (&m, buf, WIRE_MAX_CONTROL);
}

static void
send_frame (struct wplugin *p, const struct repl_action *a)
{
  const struct wdisk *d = &w.disk[p->site][p->iasp];
  struct wconn *c = link_of (p, a->site);
  struct wire_header h = a->frame;
  uint8_t control[WIRE_MAX_CONTROL];
  const unsigned n = h.length / W_UNIT;
  struct wframe *f;
  struct wev *e;
  unsigned index;
  uint32_t bytes;

  if (c == NULL)
    return; /* mlink_send says so, and the link's end is on its way to the core */
  if (a->slot < W_SLOTS && h.type != WIRE_FLUSH)
    client_stamp (p, a->slot);
  h.tenure = p->rec.tenure;
  if (h.type == WIRE_ENTER)
    encode_record (p, a->generation, &h, control);
  f = net_frame (&h, &index);
  if (h.type == WIRE_ENTER)
    memcpy (f->control, control, h.payload_len);
  else if (h.type == WIRE_MAP)
    memcpy (f->control, p->mapw.mark.bits[a->op].map + a->no * META_BLOCK_PAYLOAD, h.payload_len);
  else if (h.type != WIRE_FLUSH)
    for (unsigned i = 0; i < n; i++) {
      if (a->slot != REPL_NO_SLOT)
        f->data[i] = w.client[p->iasp][a->slot].stamp;
      else if (h.type == WIRE_ZERO || h.type == WIRE_RESYNC_ZERO) {
        f->data[i] = d->cur[h.offset / W_UNIT + i];
        if (f->data[i] != 0 && !(f->data[i] & W_ZERO))
          world_fail ("n%u: data is sent as zeroes", p->node + 1);
      }
      else
        f->data[i] = p->rbuf[a->rslot][a->slot_offset / W_UNIT + i];
    }
  if (h.type == WIRE_RESYNC_WRITE || h.type == WIRE_RESYNC_ZERO)
    w.st.resyncs += n;
  if (a->slot == REPL_NO_SLOT && h.length > 0)
    check_resync (p, a->site, h.offset, h.length);
  bytes = WIRE_HEADER_LEN + h.payload_len;
  c->out_used += bytes;
  if (c->out_used > PROD_OUT_BYTES + WIRE_MAX_CONTROL * 64u)
    world_fail ("n%u: more is sent than the out buffer has room for", p->node + 1);
  net_send (c, true, index);
  e = after_us (1 + world_random (w.mix.net_us), EV_DRAIN);
  e->a = c->id;
  e->b = bytes;
}

static void
ask_copy (struct wplugin *p, const struct repl_action *a)
{
  const struct wire_digest_req q = { .algorithm = WIRE_DIGEST_SHA256, .block_size = W_BLOCK };
  struct wconn *c = link_of (p, a->site);
  struct wire_header h = a->frame;
  uint8_t buf[WIRE_MAX_CONTROL];
  struct wframe *f;
  unsigned index;

  if (c == NULL)
    return;
  check_asked (p, a->site, h.offset, h.length);
  check_unwritten (p, a->site, h.offset, h.length);
  h.tenure = p->rec.tenure;
  h.payload_len = (uint32_t) wire_encode_digest_req (&q, buf, sizeof buf);
  f = net_frame (&h, &index);
  memcpy (f->control, buf, h.payload_len);
  net_send (c, true, index);
}

static void
carry_out (struct wplugin *p, const struct repl_action *a)
{
  struct wprod_site *x = &p->ps[a->site < W_SITES ? a->site : 0];
  const char *reason = a->reason ? a->reason : "";
  struct ctlmsg *m;
  struct wconn *c;

  switch ((enum repl_action_kind) a->kind) {
  case RA_LOCAL:
    local_part (p, a);
    break;
  case RA_SEND:
    if (a->frame.type == WIRE_ENTER)
      check_enter (p, a->site);
    send_frame (p, a);
    break;
  case RA_COMPLETE:
    client_answer (p, a->slot, a->error);
    break;
  case RA_RESYNC_READ:
    resync_read (p, a);
    break;
  case RA_COPY_LOST:
  case RA_COPY_BACK:
  case RA_COPY_READY:
    x->told_no = a->no;
    x->told_generation = a->generation;
    TRACE ("n%u iasp %u: copy %u %s no %llu: %s", p->node + 1, p->iasp, a->site,
           a->kind == RA_COPY_LOST   ? "LOST"
           : a->kind == RA_COPY_BACK ? "BACK"
                                     : "READY",
           (unsigned long long) a->no, reason);
    if (a->kind == RA_COPY_LOST)
      w.st.lost++;
    m = plugin_say (p, a->kind == RA_COPY_LOST   ? CTL_LOST
                       : a->kind == RA_COPY_BACK ? CTL_BACK
                                                 : CTL_READY);
    if (m) {
      m->site = a->site;
      m->seq = a->no;
      m->generation = x->told_generation;
      memcpy (m->boot_id, x->boot_id, CRG_ID_LEN);
      m->reason = "lost";
    }
    break;
  case RA_CLOSE_LINK:
    c = link_of (p, a->site);
    if (c)
      net_close (c, true, reason);
    break;
  case RA_DRAINED:
    p->drained = true;
    check_drained (p);
    break;
  case RA_STORE_FAILED:
    p->gate_lease_ms = 0;
    plugin_store_failed (p, reason);
    break;
  case RA_MARK:
    mapw_write (p);
    break;
  case RA_STABLE:
    c = link_of (p, a->site);
    if (c) {
      struct wire_header h = a->frame;
      unsigned index;

      h.tenure = p->rec.tenure;
      net_frame (&h, &index);
      net_send (c, true, index);
    }
    break;
  case RA_DIGEST:
    digests_own (p, a);
    break;
  case RA_DIGEST_REQ:
    ask_copy (p, a);
    break;
  case RA_DIFFERS: /* nobody compares here: sim-repl does */
  case RA_VERIFY:
    break;
  case RA_GUARD:
    p->guarded = a->error != 0;
    break;
  case RA_STATE:
    TRACE ("n%u iasp %u: copy %u is %s: %s", p->node + 1, p->iasp, a->site,
           repl_site_state_name (a->op), reason);
    break;
  }
}

static void
step (struct wplugin *p, const struct repl_event *ev)
{
  struct repl_event more = { .kind = RE_MORE, .now_ms = plugin_ms (p) };
  uint32_t owed = 0;
  unsigned rounds = 0;

  for (unsigned s = 0; s < w.mix.n_sites; s++)
    owed |= p->core.sites[s].lack_owed ? 1u << s : 0;
  repl_step (&p->core, ev, &w.racts);
  for (unsigned s = 0; s < w.mix.n_sites; s++)
    if (p->core.sites[s].lack_owed && !(owed & 1u << s) && !p->ps[s].may_fill
        && !w.disk[s][p->iasp].rotten) /* the superblock before it counts, which may say less of what is known */
      world_fail ("n%u: site %u is filled from the start, and has said what it lacks", p->node + 1, s);
  for (;;) {
    for (unsigned i = 0; i < w.racts.n && p->prod_on && !w.failed; i++)
      carry_out (p, &w.racts.a[i]);
    if (!w.racts.more || !p->prod_on || w.failed)
      return;
    if (++rounds > 1000) {
      world_fail ("n%u: the core asks for more without end", p->node + 1);
      return;
    }
    repl_step (&p->core, &more, &w.racts);
  }
}

void
prod_feed (struct wplugin *p, struct repl_event *ev)
{
  if (!p->prod_on)
    return;
  if (p->stepping) {
    if (p->ev_n == ARRAY_SIZE (p->ev_queue)) {
      world_fail ("n%u: too many events in one step", p->node + 1);
      return;
    }
    p->ev_queue[(p->ev_head + p->ev_n++) % ARRAY_SIZE (p->ev_queue)] = *ev;
    return;
  }
  p->stepping = true;
  ev->now_ms = plugin_ms (p);
  step (p, ev);
  while (p->ev_n > 0 && p->prod_on && !w.failed) {
    struct repl_event q = p->ev_queue[p->ev_head];

    p->ev_head = (p->ev_head + 1) % ARRAY_SIZE (p->ev_queue);
    p->ev_n--;
    q.now_ms = plugin_ms (p);
    step (p, &q);
  }
  p->stepping = false;
  check_wanted (p);
  if (p->prod_on && p->core.counters.illegal)
    world_fail ("n%u: the replication core counted an illegal event (%u)", p->node + 1, ev->kind);
}

void
prod_request (struct wplugin *p, unsigned slot)
{
  struct wclient *c = &w.client[p->iasp][slot];
  struct repl_event ev = { .kind = RE_REQUEST, .op = c->op, .slot = (uint16_t) slot, .flags = c->flags,
                           .offset = c->offset, .length = c->length };

  if (c->is_read && c->wait_all) /* for the lease alone */
    ev.offset = ev.length = 0;
  c->in_core = true;
  for (unsigned s = 0; s < w.mix.n_sites && op_is_data (c->op); s++)
    check_differs (p->iasp, s, c->offset, c->length); /* hot before it is granted */
  prod_feed (p, &ev);
}

/* ---- links ---------------------------------------------------------------------------------- */

static void
send_hello (struct wplugin *p, struct wconn *c)
{
  struct wire_header h = { .type = WIRE_HELLO, .tenure = p->rec.tenure };
  struct wire_hello m = { .proto_min = WIRE_PROTO_MIN, .proto_max = WIRE_PROTO_MAX };
  uint8_t buf[WIRE_MAX_CONTROL];
  struct wframe *f;
  unsigned index;

  memcpy (m.cluster_id, p->sb.cluster_id, CRG_ID_LEN);
  memcpy (m.lineage, p->sb.lineage, CRG_ID_LEN);
  memcpy (m.crg_id, p->sb.crg_id, CRG_ID_LEN);
  memcpy (m.iasp_id, p->sb.iasp_id, CRG_ID_LEN);
  node_boot_id (p->node, m.boot_id);
  m.session = p->session;
  m.features = (p->mapw.on ? WIRE_FEATURE_TRACKING | WIRE_FEATURE_SYNC | WIRE_FEATURE_KEEP : 0)
               | (digests_known () ? WIRE_FEATURE_DIGEST : 0);
  m.tenure = p->rec.tenure;
  m.generation = p->rec.generation;
  m.size = W_SIZE;
  m.block_size = p->sb.block_size;
  m.dirty_block_size = W_BLOCK;
  m.site = p->site;
  m.peer_site = c->site;
  strcpy (m.crg, "crg");
  strcpy (m.iasp, p->sb.iasp);
  snprintf (m.node, sizeof m.node, "n%u", p->node + 1u);
  h.payload_len = (uint32_t) wire_encode_hello (&m, buf, sizeof buf);
  f = net_frame (&h, &index);
  memcpy (f->control, buf, h.payload_len);
  net_send (c, true, index);
}

static void
record_to_copy (struct wplugin *p, unsigned s)
{
  struct wconn *c = link_of (p, s);
  struct wire_header h = { .type = WIRE_RECORD, .tenure = p->rec.tenure };
  uint8_t buf[WIRE_MAX_CONTROL];
  struct wframe *f;
  unsigned index;

  if (s == p->site || !p->ps[s].up || c == NULL)
    return;
  encode_record (p, p->rec.in_set & 1u << s ? p->rec.since[s] : 0, &h, buf);
  f = net_frame (&h, &index);
  memcpy (f->control, buf, h.payload_len);
  net_send (c, true, index);
}

static void
link_is_up (struct wplugin *p, struct wconn *c)
{
  struct wprod_site *x = &p->ps[c->site];

  x->mapping = false;
  x->link_up.room_bytes = room (c);
  x->up = true;
  x->may_fill = x->link_up.empty || !x->link_up.mapped || (x->link_up.unusable && (p->core.in_set & 1u << c->site));
  prod_feed (p, &x->link_up);
  record_to_copy (p, c->site);
}

static void
hello_ok (struct wplugin *p, struct wconn *c, const struct wire_header *h, const uint8_t *payload)
{
  struct wprod_site *x = &p->ps[c->site];
  struct repl_event ev = { .kind = RE_LINK_UP, .site = c->site };
  struct wire_hello_ok m;

  if (wire_decode_hello_ok (payload, h->payload_len, &m) != WIRE_OK) {
    world_fail ("a HELLO_OK that can't be read");
    return;
  }
  if (m.tenure < p->rec.tenure || h->tenure != m.tenure)
    world_fail ("R1: a copy answers before it has the tenure");
  if (m.tenure > p->rec.tenure || (m.flags & WIRE_OK_FORK)) {
    net_close (c, true, "the copy has seen a newer production host (R1)");
    return;
  }
  if (m.flags & WIRE_OK_EMPTY) /* never filled, or a fork */
    check_differs (p->iasp, c->site, 0, W_SIZE);
  c->prod_spoken = true;
  memcpy (x->boot_id, m.boot_id, CRG_ID_LEN);
  TRACE ("link n%u-n%u is up%s%s%s", c->prod + 1, c->copy + 1,
         m.flags & WIRE_OK_RESTARTED ? ", restarted" : "", m.flags & WIRE_OK_EMPTY ? ", empty" : "",
         m.flags & WIRE_OK_UNUSABLE ? ", unusable" : "");
  ev.restarted = m.flags & WIRE_OK_RESTARTED;
  ev.empty = m.flags & WIRE_OK_EMPTY;
  ev.unusable = m.flags & WIRE_OK_UNUSABLE;
  ev.window_bytes = MIN (m.window_bytes, (uint32_t) LINK_WINDOW_BYTES);
  ev.window_frames = MIN (m.window_frames, (uint32_t) LINK_WINDOW_FRAMES);
  ev.digests = m.features & WIRE_FEATURE_DIGEST;
  ev.syncs = p->mapw.on && (m.features & WIRE_FEATURE_SYNC);
  ev.keeps = p->mapw.on && (m.features & WIRE_FEATURE_KEEP);
  x->link_up = ev;
  x->mapping = p->mapw.on && (m.features & WIRE_FEATURE_TRACKING);
  if (!x->mapping)
    link_is_up (p, c);
}

/* A piece of the copy's own map, or its end. */
static void
link_map (struct wplugin *p, struct wconn *c, const struct wire_header *h, const uint8_t *payload)
{
  struct wprod_site *x = &p->ps[c->site];
  struct repl_event ev = { .kind = RE_MAP, .site = c->site, .empty = x->link_up.empty, .offset = h->offset,
                           .map = h->payload_len > 0 ? payload : NULL };

  if (!x->mapping)
    world_fail ("a MAP after the end of the map");
  else if (!(h->flags & WIRE_F_END))
    prod_feed (p, &ev);
  else {
    x->link_up.mapped = true;
    link_is_up (p, c);
  }
}

void
prod_frame (struct wconn *c, struct wframe *f)
{
  struct wplugin *p = plugin_of (c->prod, c->iasp);
  struct repl_event ev = { .site = c->site };
  struct wire_failure failure;
  struct wire_refuse refuse;
  struct wire_header h;

  if (wire_decode_header (f->header, sizeof f->header, &h) != WIRE_OK) {
    world_fail ("a frame that can't be read");
    return;
  }
  ev.seq = h.seq;
  if (h.type == WIRE_REFUSE) {
    if (wire_decode_refuse (f->control, h.payload_len, &refuse) != WIRE_OK)
      world_fail ("a REFUSE that can't be read");
    net_close (c, true, "refused");
    return;
  }
  if (!c->prod_spoken) {
    if (h.type == WIRE_HELLO_OK)
      hello_ok (p, c, &h, f->control);
    else
      world_fail ("another frame came where HELLO_OK should");
    return;
  }
  if (h.tenure != p->rec.tenure)
    world_fail ("R1: a frame with another tenure than its HELLO");
  switch (h.type) {
  case WIRE_ACK:
    ev.kind = RE_ACK;
    prod_feed (p, &ev);
    break;
  case WIRE_STABLE:
    ev.kind = RE_STABLE;
    prod_feed (p, &ev);
    break;
  case WIRE_ERROR:
    ev.kind = RE_COPY_ERROR;
    ev.reason = "the copy's store failed";
    if (wire_decode_failure (f->control, h.payload_len, &failure) != WIRE_OK)
      world_fail ("an ERROR that can't be read");
    else if (failure.code != WIRE_E_IO && failure.code != WIRE_E_TENURE
             && failure.code != WIRE_E_OTHER /* a snapshot */)
      world_fail ("n%u: the copy says %s: %s", c->copy + 1, wire_error_name (failure.code), failure.reason);
    prod_feed (p, &ev);
    break;
  case WIRE_MAP:
    link_map (p, c, &h, f->control);
    break;
  case WIRE_DIGEST:
    ev.kind = RE_DIGEST;
    ev.error = h.flags & WIRE_F_FAILED ? -EIO : 0;
    ev.map = h.payload_len > 0 ? f->control : NULL;
    ev.length = h.payload_len / WIRE_DIGEST_LEN;
    prod_feed (p, &ev);
    break;
  default:
    world_fail ("a frame that a copy does not send");
    break;
  }
}

void
prod_drained (struct wconn *c, uint32_t bytes)
{
  struct wplugin *p = plugin_of (c->prod, c->iasp);
  struct repl_event ev = { .kind = RE_ROOM, .site = c->site };
  struct wev *e;

  if (!c->prod_open || !p->running || p->life != c->prod_life)
    return;
  if (!(w.reach[c->prod] & 1u << c->copy) || p->paused || plugin_of (c->copy, c->iasp)->paused) {
    e = after_us (MS (30), EV_DRAIN);
    e->a = c->id;
    e->b = bytes;
    return;
  }
  c->out_used -= bytes;
  if (!p->prod_on || !p->ps[c->site].up)
    return;
  ev.room_bytes = room (c);
  prod_feed (p, &ev);
}

void
prod_closed (struct wconn *c, const char *reason)
{
  struct wplugin *p = plugin_of (c->prod, c->iasp);
  struct wprod_site *x = &p->ps[c->site];
  struct repl_event ev = { .kind = RE_LINK_DOWN, .site = c->site, .reason = reason };

  if (x->conn != c->id)
    return;
  x->conn = 0;
  x->up = x->mapping = false;
  if (c->prod_spoken && w.now_us - c->opened_us >= LINK_STEADY_MS * 1000u)
    x->retry_ms = LINK_RETRY_MIN_MS;
  x->retry_at_ms = plugin_ms (p) + x->retry_ms;
  x->retry_ms = MIN (x->retry_ms * 2, (uint64_t) LINK_RETRY_MAX_MS);
  ev.reason = "the link ended";
  if (p->prod_on)
    prod_feed (p, &ev);
}

static void
try_connect (struct wplugin *p, unsigned site)
{
  struct wprod_site *x = &p->ps[site];
  struct wconn *c = net_connect (p, site, x->node);

  if (c == NULL) {
    struct repl_event ev = { .kind = RE_LINK_DOWN, .site = (uint8_t) site, .reason = "can't connect" };

    x->retry_at_ms = plugin_ms (p) + x->retry_ms;
    x->retry_ms = MIN (x->retry_ms * 2, (uint64_t) LINK_RETRY_MAX_MS);
    prod_feed (p, &ev);
    return;
  }
  x->conn = c->id;
  send_hello (p, c);
}

/* ---- what the controller says --------------------------------------------------------------- */

void
prod_record (struct wplugin *p, uint64_t seen)
{
  struct repl_event ev = { .kind = RE_RECORD, .in_set = p->rec.in_set, .generation = p->rec.generation,
                           .seen = seen };
  struct superblock *sb = &p->sb;

  check_enters (p);
  prod_feed (p, &ev);
  if (sb->generation != p->rec.generation || sb->in_set != p->rec.in_set || sb->loss != p->rec.loss) {
    sb->generation = p->rec.generation;
    sb->in_set = p->rec.in_set;
    sb->loss = p->rec.loss;
    metaw_lazy (p);
  }
  for (unsigned s = 0; s < p->rec.n_sites; s++)
    record_to_copy (p, s);
}

void
prod_lease (struct wplugin *p)
{
  struct repl_event ev = { .kind = RE_LEASE, .until_ms = p->lease_until_ms };

  if (!p->store_told)
    p->gate_lease_ms = p->lease_until_ms;
  prod_feed (p, &ev);
}

void
prod_mirror (struct wplugin *p, unsigned site, unsigned node, unsigned sync)
{
  struct wprod_site *x = &p->ps[site];
  struct repl_event ev = { .kind = RE_MIRROR, .site = (uint8_t) site, .sync = (uint8_t) sync };
  struct wconn *c = link_of (p, site);

  if (c && x->node != node)
    net_close (c, true, "another host has the copy now");
  x->node = (uint8_t) node;
  x->wanted = true;
  x->retry_ms = LINK_RETRY_MIN_MS;
  x->retry_at_ms = 0;
  prod_feed (p, &ev);
  prod_tick (p);
}

void
prod_unmirror (struct wplugin *p, unsigned site, const char *reason)
{
  struct repl_event ev = { .kind = RE_UNMIRROR, .site = (uint8_t) site, .reason = reason };
  struct wconn *c = link_of (p, site);

  p->ps[site].wanted = false;
  if (c)
    net_close (c, true, reason);
  prod_feed (p, &ev);
}

void
prod_hold (struct wplugin *p, const char *reason)
{
  struct repl_event ev = { .kind = RE_HOLD, .reason = reason };

  p->held = true;
  p->drained = false;
  prod_feed (p, &ev);
}

void
prod_resume (struct wplugin *p)
{
  struct repl_event ev = { .kind = RE_RESUME };

  p->held = false;
  prod_feed (p, &ev);
}

void
prod_tell_levels (struct wplugin *p)
{
  struct repl_site_status st = { .no = 0 };

  for (int s; p->prod_on && (s = repl_level_after (&p->core, st.no)) >= 0;) {
    struct ctlmsg *m;

    repl_site_status (&p->core, (unsigned) s, plugin_ms (p), &st);
    p->ps[s].told_no = st.no;
    m = plugin_say (p, st.level == RA_COPY_LOST    ? CTL_LOST
                       : st.level == RA_COPY_READY ? CTL_READY
                                                   : CTL_BACK);
    if (m) {
      m->site = (uint8_t) s;
      m->seq = st.no;
      m->generation = p->ps[s].told_generation;
      memcpy (m->boot_id, p->ps[s].boot_id, CRG_ID_LEN);
      m->reason = "lost";
    }
  }
}

void
prod_tick (struct wplugin *p)
{
  struct repl_event ev = { .kind = RE_TICK };

  if (!p->prod_on)
    return;
  for (unsigned s = 0; s < p->rec.n_sites; s++) {
    struct wprod_site *x = &p->ps[s];

    if (x->wanted && link_of (p, s) == NULL && plugin_ms (p) >= x->retry_at_ms)
      try_connect (p, s);
  }
  prod_feed (p, &ev);
}

/* ---- life ----------------------------------------------------------------------------------- */

const char *
prodside_start (struct wplugin *p, bool equal, bool again)
{
  const uint32_t others = ((1u << p->rec.n_sites) - 1) & ~(1u << p->site);
  struct repl_config cfg = {
    .size = W_SIZE, .block_size = W_BLOCK, .site = p->site, .n_sites = p->rec.n_sites,
    .n_rslots = PROD_RSLOTS, .share_percent = 30, .in_set = p->rec.in_set, .equal = equal, .mark = mapw_mark (p),
    .unclean = equal ? 0 : others & p->rec.in_set, .entering = again ? others & ~p->rec.in_set : 0,
    .generation = p->rec.generation, .suspend_timeout_ms = w.mix.suspend_ms,
    .no_quorum_timeout_ms = w.mix.no_quorum_ms, .track_memory_bytes = sizeof p->track[0],
  };
  const char *refused;

  for (unsigned s = 0; s < p->rec.n_sites; s++)
    if (s != p->site)
      cfg.track_memory[s] = p->track[s];
  memset (p->ps, 0, sizeof p->ps);
  for (unsigned s = 0; s < W_SITES; s++)
    p->ps[s].retry_ms = LINK_RETRY_MIN_MS;
  refused = repl_init (&p->core, &cfg, plugin_ms (p));
  if (refused)
    return refused;
  p->ev_head = p->ev_n = 0;
  p->stepping = p->held = p->drained = false;
  p->prod_on = true;
  p->guarded = repl_is_guarded (&p->core);
  prod_lease (p);
  prod_tick (p);
  return NULL;
}

void
prodside_stop (struct wplugin *p)
{
  struct wire_header bye = { .type = WIRE_BYE, .tenure = p->rec.tenure };

  if (!p->prod_on)
    return;
  p->prod_on = false;
  for (unsigned s = 0; s < W_SITES; s++) {
    struct wconn *c = link_of (p, s);
    unsigned index;

    if (c == NULL)
      continue;
    if (c->prod_spoken) {
      net_frame (&bye, &index);
      net_send (c, true, index);
    }
    net_close (c, true, "the role is given up");
  }
  for (unsigned k = 0; k < W_SLOTS; k++)
    if (w.client[p->iasp][k].busy && w.client[p->iasp][k].in_core && w.client[p->iasp][k].life == p->life)
      client_answer (p, k, -ESHUTDOWN);
}

bool
prod_is_idle (const struct wplugin *p)
{
  for (unsigned s = 0; s < W_SITES; s++)
    if (link_of (p, s) != NULL)
      return false;
  return p->busy_local == 0 && p->busy_rread == 0 && p->busy_digest == 0;
}
