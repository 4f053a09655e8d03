/* SPDX-License-Identifier: BSD-3-Clause
 *
 * plugin/copyside.c for crgsim: feeds the real copy core and carries out its actions in order.
 */
#include <errno.h>
#include <string.h>

#include "common/util.h"
#include "tests/sim/world.h"

static void feed (struct wplugin *p, struct copy_event *ev);

static struct wconn *
find_conn (const struct wplugin *p, uint32_t id)
{
  struct wconn *c = net_conn (id);

  return c != NULL && c->copy == p->node && c->iasp == p->iasp && c->copy_life == p->life && c->copy_open
           ? c
           : NULL;
}

static void
send_control (struct wconn *c, uint8_t type, uint64_t tenure, uint64_t seq, const void *msg)
{
  struct wire_header h = { .type = type, .tenure = tenure, .seq = seq };
  uint8_t buf[WIRE_MAX_CONTROL];
  struct wframe *f;
  unsigned index;

  switch (type) {
  case WIRE_HELLO_OK: h.payload_len = (uint32_t) wire_encode_hello_ok (msg, buf, sizeof buf); break;
  case WIRE_REFUSE: h.payload_len = (uint32_t) wire_encode_refuse (msg, buf, sizeof buf); break;
  case WIRE_ERROR: h.payload_len = (uint32_t) wire_encode_failure (msg, buf, sizeof buf); break;
  default: break;
  }
  f = net_frame (&h, &index);
  memcpy (f->control, buf, h.payload_len);
  net_send (c, false, index);
}

/* What this copy may differ in; its link has room for it here. */
static void
send_map (struct wplugin *p, struct wconn *c)
{
  struct wire_header h = { .type = WIRE_MAP, .tenure = c->copy_tenure };
  struct wire_header end = { .type = WIRE_MAP, .flags = WIRE_F_END, .tenure = c->copy_tenure };
  unsigned index;

  for (uint64_t i = 0; i < copy_report_blocks (&p->copy); i++) {
    uint8_t map[WIRE_MAP_BYTES];
    uint64_t of, n = copy_report (&p->copy, i, map, &of);

    h.offset = i * META_BLOCK_BITS * W_BLOCK;
    h.flags = n == of ? WIRE_F_ALL : 0;
    h.payload_len = n == of ? 0 : WIRE_MAP_BYTES;
    if (n > 0) {
      memcpy (net_frame (&h, &index)->control, map, h.payload_len);
      net_send (c, false, index);
    }
  }
  net_frame (&end, &index);
  net_send (c, false, index);
}

static void
submit (struct wplugin *p, const struct copy_action *a)
{
  const unsigned frame = p->op_frame[a->op];
  const struct wdisk *d = &w.disk[p->site][p->iasp];
  struct dop *op;

  if (a->frame.type == WIRE_FLUSH) {
    p->busy_copy++;
    disk_op (p, DW_FLUSH, DF_COPY, a->op, 0, 0, false);
    return;
  }
  if (frame == 0) {
    world_fail ("n%u: a copy submits what it has not, or has released", p->node + 1);
    return;
  }
  p->busy_copy++;
  check_written (p, a->frame.offset, a->frame.length);
  op = disk_op (p, DW_WRITE, DF_COPY, a->op, a->frame.offset, a->frame.length,
                a->frame.flags & WIRE_F_FUA);
  memcpy (op->data, &w.frame[frame - 1].data[a->skip / W_UNIT], a->frame.length / W_UNIT * sizeof (stamp_t));
  if (a->frame.type == WIRE_RESYNC_WRITE || a->frame.type == WIRE_RESYNC_ZERO) {
    struct super_choice choice;
    enum super_status status;
    struct superblock sb;

    slot_read (d, &sb, &choice, &status);
    if (status == SUPER_OK && !(sb.flags & SUPER_F_UNUSABLE))
      world_fail ("n%u: a resync block goes to a store that doesn't say it is unusable", p->node + 1);
  }
}

/* Zeroes for zeroes: only their stamps change. */
static void
nothing (struct wplugin *p, const struct copy_action *a)
{
  const unsigned frame = p->op_frame[a->op], first = (unsigned) (a->frame.offset / W_UNIT);
  struct wdisk *d = &w.disk[p->site][p->iasp];

  if (frame == 0 || !(p->sb.flags & SUPER_F_WRITTEN)) {
    world_fail ("n%u: a copy leaves out what it has not, or may not", p->node + 1);
    return;
  }
  for (unsigned i = first; i < first + a->frame.length / W_UNIT; i++) {
    if ((d->cur[i] != 0 && !(d->cur[i] & W_ZERO)) || (d->stable[i] != 0 && !(d->stable[i] & W_ZERO)))
      world_fail ("n%u: unit %u is said to have never been written, and has %u, stable %u", p->node + 1, i, d->cur[i],
                  d->stable[i]);
    d->cur[i] = d->stable[i] = w.frame[frame - 1].data[a->skip / W_UNIT + i - first];
  }
}

/* A flush aside of the stream changes nothing, and may be on its way. */
static bool
is_being_written (const struct wplugin *p)
{
  for (unsigned k = 0; k < W_DOPS; k++)
    if (w.dop[k].used && !w.dop[k].void_ && w.dop[k].why == DF_COPY && w.dop[k].what == DW_WRITE
        && w.dop[k].life == p->life)
      return true;
  return false;
}

static void
carry_out (struct wplugin *p, const struct copy_action *a)
{
  struct wconn *c = find_conn (p, a->conn);

  switch ((enum copy_action_kind) a->kind) {
  case CA_SUBMIT:
    submit (p, a);
    break;
  case CA_NOTHING:
    nothing (p, a);
    break;
  case CA_SYNC:
    p->busy_copy++;
    disk_op (p, DW_FLUSH, DF_COPY, a->op, 0, 0, false);
    break;
  case CA_SUPER:
    if (a->unusable && !(p->sb.flags & SUPER_F_UNUSABLE) && p->copy.cfg.snapshot && !p->kept)
      world_fail ("n%u: a copy is to be filled, and what it held is not kept", p->node + 1);
    metaw_super (p, a);
    break;
  case CA_RELEASE: /* buf: the frame that holds it */
    if (a->buf == UINT32_MAX)
      break;
    if (p->op_frame[w.frame[a->buf].slot] == a->buf + 1)
      p->op_frame[w.frame[a->buf].slot] = 0;
    if (!w.frame[a->buf].used)
      world_fail ("n%u: a payload is released twice", p->node + 1);
    frame_free (a->buf);
    break;
  case CA_HELLO_OK:
    if (!c)
      break;
    check_link (p, p->copy.link_tenure, "takes");
    c->copy_spoken = true;
    c->copy_tenure = a->hello_ok.tenure;
    send_control (c, WIRE_HELLO_OK, a->hello_ok.tenure, 0, &a->hello_ok);
    if (a->hello_ok.features & WIRE_FEATURE_TRACKING)
      send_map (p, c);
    break;
  case CA_REFUSE:
    if (!c)
      break;
    TRACE ("n%u refuses: %s", p->node + 1, a->refuse.reason);
    send_control (c, WIRE_REFUSE, a->refuse.tenure, 0, &a->refuse);
    net_close (c, false, "refused");
    break;
  case CA_STABLE:
    if (c)
      send_control (c, WIRE_STABLE, c->copy_tenure, a->seq, NULL);
    break;
  case CA_ACK:
    check_link (p, p->copy.link_tenure, "acknowledges to");
    if (c)
      send_control (c, WIRE_ACK, c->copy_tenure, a->seq, NULL);
    break;
  case CA_ERROR:
    if (!c)
      break;
    TRACE ("n%u: operation %llu failed: %s", p->node + 1, (unsigned long long) a->seq, a->failure.reason);
    send_control (c, WIRE_ERROR, c->copy_tenure, a->seq, &a->failure);
    net_close (c, false, "failed");
    break;
  case CA_CLOSE:
    if (c)
      net_close (c, false, a->reason ? a->reason : "closed");
    break;
  case CA_RECORD:
    p->sb.generation = MAX (p->sb.generation, a->generation);
    metaw_lazy (p);
    break;
  case CA_FAILED:
    plugin_store_failed (p, "the copy's store failed");
    break;
  case CA_MARK:
    mapw_write (p);
    break;
  case CA_SNAPSHOT: /* a reflink: it takes time, and makes all of the store stable */
    if (is_being_written (p) || (p->sb.flags & SUPER_F_UNUSABLE))
      world_fail ("n%u: a copy keeps what is no state of its own", p->node + 1);
    p->busy_copy++;
    disk_op (p, DW_FLUSH, DF_COPY, a->op, 0, 0, false);
    break;
  case CA_SNAPSHOT_DROP:
    if (p->sb.flags & SUPER_F_UNUSABLE)
      world_fail ("n%u: a copy drops what it kept, and is not filled", p->node + 1);
    p->kept = false;
    break;
  case CA_IDLE:
    p->copy_idle = true;
    break;
  }
}

static void
step (struct wplugin *p, struct copy_event *ev)
{
  struct copy_event poll = { .kind = CE_POLL };

  ev->now_ms = poll.now_ms = plugin_ms (p);
  copy_step (&p->copy, ev, &w.cacts);
  for (;;) {
    for (unsigned i = 0; i < w.cacts.n && !w.failed; i++)
      carry_out (p, &w.cacts.a[i]);
    if (!w.cacts.more || w.failed)
      return;
    copy_step (&p->copy, &poll, &w.cacts);
  }
}

static void
feed (struct wplugin *p, struct copy_event *ev)
{
  if (!p->copy_on)
    return;
  if (p->copy_stepping) { /* only the end of a connection comes from an action */
    if (ev->kind != CE_CLOSED || p->n_closed == ARRAY_SIZE (p->closed))
      world_fail ("n%u: an event in the middle of the copy's step", p->node + 1);
    else
      p->closed[p->n_closed++] = ev->conn;
    return;
  }
  p->copy_stepping = true;
  step (p, ev);
  while (p->n_closed > 0) {
    struct copy_event closed = { .kind = CE_CLOSED, .conn = p->closed[--p->n_closed] };

    step (p, &closed);
  }
  p->copy_stepping = false;
  /* copyside_round: the poll comes when the engine has taken all that is there. */
  if (ev->kind != CE_POLL && p->copy_on && chance (75)) {
    struct copy_event poll = { .kind = CE_POLL };

    feed (p, &poll);
  }
  if (p->copy_on && p->copy.status.illegal)
    world_fail ("n%u: the copy core counted an illegal event", p->node + 1);
}

void
copyside_poll (struct wplugin *p, struct copy_event *poll)
{
  feed (p, poll);
}

void
copyside_marked (struct wplugin *p, int error)
{
  struct copy_event ev = { .kind = CE_DONE, .op = COPY_OP_MARK, .error = error };

  feed (p, &ev);
}

void
copyside_super_done (struct wplugin *p, int error)
{
  struct copy_event ev = { .kind = CE_DONE, .op = COPY_OP_SUPER, .error = error };

  feed (p, &ev);
}

void
copyside_op_done (struct wplugin *p, unsigned op, int error)
{
  struct copy_event ev = { .kind = CE_DONE, .op = (uint16_t) op, .error = error };

  p->busy_copy--;
  if (op == COPY_OP_SNAPSHOT) {
    if (error == 0 && !w.healing && chance (10))
      ev.error = -EIO;
    p->kept = ev.error == 0;
  }
  feed (p, &ev);
}

void
copyside_frame (struct wconn *c, struct wframe *f, unsigned index)
{
  struct wplugin *p = plugin_of (c->copy, c->iasp);
  struct copy_event ev = { .kind = CE_FRAME, .conn = c->id, .buf = UINT32_MAX };
  struct wire_record record;
  struct wire_hello hello;
  struct wire_header h;
  char peer[CRG_NAME_MAX + 1] = "n0";
  bool keep = false;

  if (wire_decode_header (f->header, sizeof f->header, &h) != WIRE_OK) {
    world_fail ("a frame that can't be read");
    return;
  }
  ev.frame = h;
  if (h.type == WIRE_HELLO) {
    if (c->copy_spoken || wire_decode_hello (f->control, h.payload_len, &hello) != WIRE_OK) {
      world_fail ("a HELLO out of place");
      return;
    }
    peer[1] = (char) ('1' + c->prod);
    ev.kind = CE_HELLO;
    ev.hello = &hello;
    ev.peer = peer;
  }
  else if (!c->copy_spoken) {
    world_fail ("another frame came where HELLO should");
    return;
  }
  else if (h.type == WIRE_BYE) {
    frame_free (index);
    net_close (c, false, "production said goodbye");
    return;
  }
  else if (h.type == WIRE_RECORD || h.type == WIRE_ENTER) {
    if (wire_decode_record (f->control, h.payload_len, &record) != WIRE_OK || record.tenure != h.tenure) {
      world_fail ("a record that can't be used");
      return;
    }
    ev.record = &record;
    if (h.type == WIRE_RECORD) {
      ev.kind = CE_RECORD;
      p->sb.in_set = record.in_set;
    }
  }
  else if (h.type == WIRE_DIGEST_REQ) {
    frame_free (index);
    digests_asked (p, c, &h);
    return;
  }
  else if (h.type == WIRE_STABLE)
    ev.kind = CE_STABLE;
  else if (h.type == WIRE_MAP)
    ev.map = h.payload_len > 0 ? f->control : NULL;
  else if (h.type != WIRE_FLUSH) {
    unsigned slot = (unsigned) (h.seq % COPY_MAX_OPS);
    bool current = p->copy.linked && p->copy.conn == c->id;

    f->slot = (uint16_t) slot;
    if (current && p->op_frame[slot] != 0)
      frame_free (p->op_frame[slot] - 1u); /* of a ZERO or TRIM: nothing releases it */
    if (current)
      p->op_frame[slot] = (uint16_t) (index + 1);
    if (h.payload_len > 0)
      ev.buf = index;
    keep = current || h.payload_len > 0;
  }
  feed (p, &ev);
  if (!keep)
    frame_free (index);
}

void
copyside_closed (struct wconn *c)
{
  struct wplugin *p = plugin_of (c->copy, c->iasp);
  struct copy_event ev = { .kind = CE_CLOSED, .conn = c->id };

  feed (p, &ev);
}

/* The process is gone, or the role: payloads with it. */
void
copyside_drop (struct wplugin *p)
{
  for (unsigned i = 0; i < COPY_MAX_OPS; i++)
    if (p->op_frame[i] != 0) {
      frame_free (p->op_frame[i] - 1u);
      p->op_frame[i] = 0;
    }
  p->copy_on = false;
}

const char *
copyside_start (struct wplugin *p)
{
  const struct superblock *sb = &p->sb;
  struct copy_config cfg = {
    .site = p->site, .size = W_SIZE, .block_size = sb->block_size, .dirty_block_size = W_BLOCK,
    .session = p->session, .tenure = MAX (sb->tenure, p->rec.tenure), .generation = sb->generation,
    .since = sb->since, .clean = p->judge.was_clean, .restarted = p->judge.restarted,
    .empty = ((sb->flags & SUPER_F_UNUSABLE) && sb->since == 0 && !(sb->flags & SUPER_F_FILLING))
             || (p->rec.diverged >> p->site & 1),
    .mark = mapw_mark (p), .filling = sb->flags & SUPER_F_FILLING,
    .unusable = sb->flags & SUPER_F_UNUSABLE,
    .fork = (sb->flags & SUPER_F_FORK) && !(p->rec.fork >> p->site & 1), .window_bytes = LINK_WINDOW_BYTES,
    .window_frames = w.mix.window_frames, .snapshot = (w.mix.disk_us + p->iasp) % 2,
  };
  const char *refused;

  memcpy (cfg.cluster_id, sb->cluster_id, CRG_ID_LEN);
  memcpy (cfg.lineage, sb->lineage, CRG_ID_LEN);
  memcpy (cfg.crg_id, sb->crg_id, CRG_ID_LEN);
  memcpy (cfg.iasp_id, sb->iasp_id, CRG_ID_LEN);
  node_boot_id (p->node, cfg.boot_id);
  strcpy (cfg.crg, "crg");
  strcpy (cfg.iasp, sb->iasp);
  cfg.node[0] = 'n';
  cfg.node[1] = (char) ('1' + p->node);
  if (cfg.mark && (cfg.empty || (cfg.unusable && !cfg.filling)))
    bits_fill (&cfg.mark->bits[p->site], true);
  refused = copy_init (&p->copy, &cfg, plugin_ms (p));
  if (refused)
    return refused;
  memset (p->op_frame, 0, sizeof p->op_frame);
  p->n_closed = 0;
  p->copy_stepping = p->copy_stopping = p->copy_idle = p->kept = false;
  p->copy_on = true;
  return NULL;
}

void
copyside_stop (struct wplugin *p)
{
  struct copy_event ev = { .kind = CE_STOP };

  if (!p->copy_on || p->copy_stopping)
    return;
  p->copy_stopping = true;
  feed (p, &ev);
  for (unsigned i = 0; i < W_CONNS; i++) {
    struct wconn *c = &w.conn[i];

    if (c->used && c->copy == p->node && c->iasp == p->iasp && c->copy_life == p->life && c->copy_open)
      net_close (c, false, "this node gives its role up");
  }
}

bool
copyside_is_idle (const struct wplugin *p)
{
  return p->copy_idle && p->busy_copy == 0 && p->busy_digest == 0;
}

void
copyside_record (struct wplugin *p)
{
  struct wire_record m = { .tenure = p->rec.tenure, .generation = p->rec.generation, .loss = p->rec.loss,
                           .in_set = p->rec.in_set,
                           .since = p->rec.in_set & 1u << p->site ? p->rec.since[p->site] : 0 };
  struct copy_event ev = { .kind = CE_RECORD, .record = &m, .appointed = p->rec.production_site == p->site };

  feed (p, &ev);
}
