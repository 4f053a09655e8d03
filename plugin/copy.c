/* SPDX-License-Identifier: BSD-3-Clause */
/* The core of the receiving side: see copy.h.  Pure; called by the plugin's engine thread and
 * by the simulator.  It must never acknowledge an operation before all earlier ones are done,
 * nor let an older write overtake a newer one.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "plugin/copy_private.h"

#define NO_BUF UINT32_MAX
/* What any step may need beside its loops. */
#define RESERVED 12

static bool
has_space (const struct copy_actions *out)
{
  return out->n + RESERVED < COPY_MAX_ACTIONS;
}

const char *
copy_init (struct copy *c, const struct copy_config *cfg, uint64_t now_ms)
{
  (void) now_ms;
  if (cfg->size == 0 || cfg->size > STORE_MAX_BYTES)
    return "the size of the data is out of its limits";
  if (cfg->window_frames < 8 || cfg->window_frames > COPY_MAX_OPS)
    return "the window's number of frames is out of its limits";
  if (cfg->window_bytes < 2 * DIRTY_BLOCK_SIZE_MAX || cfg->window_bytes > LINK_WINDOW_BYTES)
    return "the window's number of bytes is out of its limits";
  if (cfg->site >= CRG_MAX_SITES)
    return "the site is out of range";
  if (cfg->mark && (cfg->mark->block_size != cfg->dirty_block_size || cfg->mark->data_bytes != cfg->size))
    return "the maps are for another size of data or block";
  memset (c, 0, sizeof *c);
  c->cfg = *cfg;
  c->filling = cfg->filling;
  c->production_site = cfg->site;
  c->tenure = cfg->tenure;
  c->generation = cfg->generation;
  c->since = cfg->since;
  c->restarted = cfg->restarted;
  c->empty = cfg->empty;
  c->unusable = cfg->unusable;
  c->coherent = !cfg->unusable;
  c->status.reason = "";
  return NULL;
}

/* --- superblock: one write at a time --------------------------------------------------------- */

static void
write_super (struct copy *c, enum copy_super why, bool flush_data, struct copy_actions *out)
{
  struct copy_action *a = copy_act (out, CA_SUPER);

  assert (c->super == SUPER_IDLE);
  c->super = (uint8_t) why;
  a->op = COPY_OP_SUPER;
  a->tenure = c->tenure;
  a->generation = c->generation;
  /* What it holds now has to be kept first. */
  a->since = c->snap != SNAP_NONE ? c->coherent_since : c->since;
  a->unusable = c->unusable && c->snap == SNAP_NONE;
  a->filling = a->unusable && c->filling;
  a->flush_data = flush_data;
}

/* --- ending a link --------------------------------------------------------------------------- */

static void
end_link (struct copy *c)
{
  if (c->linked) {
    c->linked = false;
    c->closing = true;
    c->refill_seq = 0;
  }
}

/* All reasons are sentences of this file. */
static void
set_reason (char to[CRG_REASON_MAX + 1], const char *reason)
{
  const size_t n = strlen (reason);

  assert (n <= CRG_REASON_MAX);
  memcpy (to, reason, n);
}

static void
fail_link (struct copy *c, uint64_t seq, enum wire_error_code code, const char *reason,
           struct copy_actions *out)
{
  struct copy_action *a = copy_act (out, CA_ERROR);

  a->conn = c->conn;
  a->seq = seq;
  a->failure.code = code;
  set_reason (a->failure.reason, reason);
  a->reason = c->status.reason = reason;
  end_link (c);
}

static void
store_failed (struct copy *c, uint64_t seq, int error, struct copy_actions *out)
{
  struct copy_action *a;
  const bool full = error == -ENOSPC;

  if (c->failed)
    return;
  c->failed = true; /* F4: nothing more, whatever it was */
  c->status.reason = full ? "the copy's store is full" : "the copy's store failed";
  if (c->linked)
    fail_link (c, seq, full ? WIRE_E_NO_SPACE : WIRE_E_IO, c->status.reason, out);
  a = copy_act (out, CA_FAILED);
  a->error = error;
  a->reason = c->status.reason;
}

/* --- HELLO ----------------------------------------------------------------------------------- */

static void
refuse (struct copy *c, const struct copy_event *ev, enum wire_refuse_code code,
        const char *reason, struct copy_actions *out)
{
  struct copy_action *a = copy_act (out, CA_REFUSE);

  a->conn = ev->conn;
  a->refuse.code = code;
  a->refuse.tenure = code == WIRE_REFUSE_TENURE ? c->tenure : 0;
  set_reason (a->refuse.reason, reason);
  a->reason = c->status.reason = reason;
  c->status.refused++;
}

static void
hello_ok (struct copy *c, struct copy_actions *out)
{
  struct copy_action *a = copy_act (out, CA_HELLO_OK);
  struct wire_hello_ok *m = &a->hello_ok;

  c->hello_waits = false;
  c->linked = true;
  c->conn = c->hello_conn;
  c->link_tenure = c->hello_tenure;
  c->seq = c->done_seq = c->acked_seq = c->enter_seq = c->refill_seq = 0;
  c->window_used = 0;
  c->status.reason = "";
  a->conn = c->conn;
  m->proto = WIRE_PROTO_MAX;
  m->features = c->hello_features;
  m->flags = (uint16_t) ((c->cfg.clean ? WIRE_OK_CLEAN : 0)
                         | (c->restarted ? WIRE_OK_RESTARTED : 0)
                         | (c->empty ? WIRE_OK_EMPTY : 0)
                         | (c->unusable ? WIRE_OK_UNUSABLE : 0));
  memcpy (m->boot_id, c->cfg.boot_id, CRG_ID_LEN);
  m->session = c->cfg.session;
  m->tenure = c->tenure;
  m->generation = c->generation;
  m->since = c->since;
  m->dirty_bytes = UINT64_MAX;
  m->window_bytes = c->cfg.window_bytes;
  m->window_frames = c->cfg.window_frames;
  memcpy (m->node, c->cfg.node, sizeof m->node);
}

static void
hello (struct copy *c, const struct copy_event *ev, struct copy_actions *out)
{
  const struct wire_hello *h = ev->hello;
  struct copy_action *a;

  if (c->stopped)
    refuse (c, ev, WIRE_REFUSE_ROLE, "this node does not hold a mirror copy now", out);
  else if (ev->peer == NULL || strcmp (ev->peer, h->node) != 0)
    refuse (c, ev, WIRE_REFUSE_NAME, "the certificate names another node than HELLO does", out);
  else if (h->proto_min > WIRE_PROTO_MAX || h->proto_max < WIRE_PROTO_MIN)
    refuse (c, ev, WIRE_REFUSE_VERSION, "no common version of the mirror protocol: upgrade the "
                                        "older node", out);
  else if (memcmp (h->cluster_id, c->cfg.cluster_id, CRG_ID_LEN) != 0
           || memcmp (h->crg_id, c->cfg.crg_id, CRG_ID_LEN) != 0
           || memcmp (h->iasp_id, c->cfg.iasp_id, CRG_ID_LEN) != 0
           || h->peer_site != c->cfg.site || h->site == c->cfg.site || h->site >= CRG_MAX_SITES
           || (c->cfg.mark && !c->cfg.mark->bits[h->site].map))
    refuse (c, ev, WIRE_REFUSE_IDENTITY, "another cluster, CRG, IASP or site is meant", out);
  else if (memcmp (h->lineage, c->cfg.lineage, CRG_ID_LEN) != 0)
    refuse (c, ev, WIRE_REFUSE_LINEAGE, "another lineage: this group was recovered without one "
                                        "of the two (C9)", out);
  else if (c->cfg.fork)
    refuse (c, ev, WIRE_REFUSE_FORK, "this store diverged: reattach it", out);
  else if (h->tenure < c->tenure)
    refuse (c, ev, WIRE_REFUSE_TENURE, "a newer production host was seen (R1)", out);
  else if (h->tenure == c->tenure && c->tenure_node[0] && strcmp (c->tenure_node, h->node) != 0)
    refuse (c, ev, WIRE_REFUSE_TENURE, "another node is the production host of this tenure (R1)", out);
  else if (c->failed)
    refuse (c, ev, WIRE_REFUSE_STORE, "the copy's store failed", out);
  /* H8: production shows the reason, and goes on without this copy. */
  else if (h->size > c->cfg.size)
    refuse (c, ev, WIRE_REFUSE_SIZE, "this store is too small for the data (H8)", out);
  else if (h->block_size < c->cfg.block_size || h->block_size % c->cfg.block_size != 0
           || h->dirty_block_size != c->cfg.dirty_block_size)
    refuse (c, ev, WIRE_REFUSE_BLOCK_SIZE, "the block sizes of the stores do not agree (H8)", out);
  else if (c->linked || c->closing || c->hello_waits || c->super != SUPER_IDLE) {
    /* R1: one link, and the old one's last write must have returned.  The newer connection
     * ends the older, and comes again. */
    if (c->linked) {
      a = copy_act (out, CA_CLOSE);
      a->conn = c->conn;
      a->reason = "a new link from production";
      end_link (c);
    }
    refuse (c, ev, WIRE_REFUSE_BUSY, "an earlier link is not over yet: try again", out);
  }
  else {
    c->hello_waits = true;
    c->hello_conn = ev->conn;
    c->hello_tenure = h->tenure;
    c->hello_features
      = h->features & (WIRE_FEATURE_DIGEST
                       | (c->cfg.mark ? WIRE_FEATURE_TRACKING | WIRE_FEATURE_SYNC | WIRE_FEATURE_KEEP : 0));
    c->production_site = h->site;
    memcpy (c->tenure_node, h->node, sizeof c->tenure_node);
    if (h->tenure > c->tenure) {
      /* R1: on disk before the answer. */
      c->tenure = h->tenure;
      write_super (c, SUPER_HELLO, false, out);
    }
    else
      hello_ok (c, out);
  }
}

/* --- operations ------------------------------------------------------------------------------ */

static bool
is_data (unsigned type)
{
  return type == WIRE_WRITE || type == WIRE_ZERO || type == WIRE_TRIM
         || type == WIRE_RESYNC_WRITE || type == WIRE_RESYNC_ZERO;
}

static bool
is_resync (unsigned type)
{
  return type == WIRE_RESYNC_WRITE || type == WIRE_RESYNC_ZERO;
}

/* Does its payload wait in a buffer of the shell's? */
static bool
has_buffer (unsigned type)
{
  return type == WIRE_WRITE || type == WIRE_RESYNC_WRITE;
}

/* Must a, earlier, be done before b is submitted? */
static bool
must_precede (const struct wire_header *a, const struct wire_header *b)
{
  if (!is_data (b->type)) /* FLUSH, ENTER: all before them */
    return true;
  if (a->type == WIRE_ENTER) /* production has given it up: the store is usable for a moment */
    return is_resync (b->type);
  return is_data (a->type) && a->offset < b->offset + b->length
         && b->offset < a->offset + a->length;
}

/* --- the snapshot ---------------------------------------------------------------------------- */

/* What the store holds is coherent; what comes from this operation on takes that away. */
static void
want_snapshot (struct copy *c)
{
  c->snap = SNAP_WANTED;
  c->snap_seq = c->refill_seq ? c->refill_seq : c->seq;
  c->coherent_since = c->since;
}

static bool
snapshot_holds (const struct copy *c, uint64_t seq)
{
  return c->snap != SNAP_NONE && seq >= c->snap_seq;
}

/* When all before it is written; nothing is on its way then. */
static void
pump_snapshot (struct copy *c, struct copy_actions *out)
{
  if (c->snap != SNAP_WANTED || !c->linked || c->failed || c->done_seq + 1 < c->snap_seq)
    return;
  assert (c->n_submitted == 0);
  c->snap = SNAP_BUSY;
  copy_act (out, CA_SNAPSHOT)->op = COPY_OP_SNAPSHOT;
}

static void
snapshot_done (struct copy *c, int error, struct copy_actions *out)
{
  c->snap = error == 0 ? SNAP_NONE : SNAP_LATER;
  if (error == 0)
    c->coherent = false; /* no other one is needed */
  else if (c->linked) {
    fail_link (c, c->done_seq + 1, error == -ENOSPC ? WIRE_E_NO_SPACE : WIRE_E_OTHER,
               "what it holds can't be kept before it is resynchronised (snapshot-before-resync)", out);
    out->a[out->n - 1].op = COPY_OP_SNAPSHOT;
  }
}

/* The store says of itself that it can't take over, and what it lacks. */
void
copy_mark_unusable (struct copy *c)
{
  if (c->cfg.snapshot && c->snap == SNAP_NONE && (c->coherent || c->super == SUPER_ENTER))
    want_snapshot (c);
  c->unusable = true;
  c->empty = false;
  c->restarted = false;
  c->since = 0;
  c->want_unusable = true;
  if (c->cfg.mark) {
    c->filling = true;
    c->lack_ticket = mark_persist (c->cfg.mark);
  }
}

/* What is done now will be stable.  Later operations go on meanwhile, and their ACKs. */
static void
pump_sync (struct copy *c, struct copy_actions *out)
{
  if (!c->sync_wanted || c->sync_busy || !c->linked || c->failed)
    return;
  c->sync_wanted = false;
  c->sync_busy = true;
  c->sync_conn = c->conn;
  c->sync_seq = c->done_seq;
  copy_act (out, CA_SYNC)->op = COPY_OP_SYNC;
}

static void
sync_done (struct copy *c, int error, struct copy_actions *out)
{
  struct copy_action *a;

  c->sync_busy = false;
  if (error != 0)
    store_failed (c, 0, error, out);
  else if (c->linked && c->conn == c->sync_conn) {
    a = copy_act (out, CA_STABLE);
    a->conn = c->conn;
    a->seq = c->sync_seq;
  }
}

static void
release_buf (const struct copy_op *o, struct copy_actions *out)
{
  if (o->frame.payload_len > 0 && has_buffer (o->frame.type))
    copy_act (out, CA_RELEASE)->buf = o->buf;
}

static void
frame (struct copy *c, const struct copy_event *ev, struct copy_actions *out)
{
  const struct wire_header *f = &ev->frame;
  const char *bad = NULL;
  enum wire_error_code code = WIRE_E_PROTOCOL;
  struct copy_op *o;

  if (!c->linked || ev->conn != c->conn) {
    if (f->payload_len > 0 && has_buffer (f->type))
      copy_act (out, CA_RELEASE)->buf = ev->buf; /* late, of a link that is over */
    return;
  }
  if (f->tenure < c->tenure) {
    bad = "a newer production host was seen (R1)";
    code = WIRE_E_TENURE;
  }
  else if (f->tenure != c->link_tenure)
    bad = "a frame with another tenure than its HELLO";
  else if (!is_data (f->type) && f->type != WIRE_FLUSH && f->type != WIRE_ENTER
           && (f->type != WIRE_MAP || !c->cfg.mark))
    bad = "a frame that production does not send";
  else if (f->seq != c->seq + 1)
    bad = "a frame out of sequence";
  else if (is_data (f->type)
           && (f->length == 0 || f->offset > c->cfg.size || f->length > c->cfg.size - f->offset)) {
    bad = "an operation beyond the end of the store";
    code = WIRE_E_RANGE;
  }
  else if (is_data (f->type) && c->cfg.mark
           && f->length / c->cfg.mark->hot.region_size + 2 > HOT_MAX_SPAN)
    bad = "an operation that touches too many regions";
  else if ((f->type == WIRE_WRITE || f->type == WIRE_RESYNC_WRITE) && f->payload_len != f->length)
    bad = "a payload of another length than its operation";
  else if (f->type == WIRE_ENTER && ev->record == NULL)
    bad = "an ENTER without its record";
  else if (c->seq - c->done_seq >= c->cfg.window_frames
           || c->window_used + f->payload_len > c->cfg.window_bytes)
    bad = "more in flight than the window allows";
  if (bad) {
    if (f->payload_len > 0 && has_buffer (f->type))
      copy_act (out, CA_RELEASE)->buf = ev->buf;
    fail_link (c, f->seq, code, bad, out);
    return;
  }

  c->seq++;
  c->status.frames++;
  c->status.bytes += f->payload_len;
  c->window_used += f->payload_len;
  o = copy_op_of (c, c->seq);
  assert (o->state == OP_FREE || o->state == OP_DONE);
  memset (o, 0, sizeof *o);
  o->state = OP_BLOCKED;
  o->frame = *f;
  o->offset = f->offset;
  o->length = f->length;
  o->buf = ev->buf;
  if (f->type == WIRE_ENTER)
    o->record = *ev->record;
  /* Before the first block; with an ENTER under way, behind that. */
  if (f->type == WIRE_ENTER)
    c->enter_seq = c->seq;
  if (is_resync (f->type) && c->enter_seq > c->done_seq)
    c->refill_seq = c->refill_seq ? c->refill_seq : c->seq;
  else if (is_resync (f->type) && (!c->unusable || (c->cfg.mark && !c->filling)))
    copy_mark_unusable (c);
  if (c->snap == SNAP_LATER)
    c->snap = SNAP_WANTED;
  if (f->type == WIRE_MAP)
    copy_note_map (c, ev);
  for (uint64_t q = c->done_seq + 1; q < c->seq; q++) {
    const struct copy_op *e = copy_op_of (c, q);
    if (e->state != OP_DONE && must_precede (&e->frame, f))
      o->blockers++;
  }
  if (is_data (f->type) && c->cfg.mark) {
    copy_note_missing (c, f);
    copy_cut_unwritten (c, o);
    if (!o->nothing)
      copy_take_hot (c, o);
  }
  /* Also a write: it may be newer than a block that is lacking. */
  o->after_super = c->want_unusable || c->refill_seq != 0;
  c->n_blocked++;
  if (copy_is_runnable (o))
    c->n_runnable++;
}

/* Operation seq is done: those that waited for it go on. */
static void
op_done (struct copy *c, uint64_t seq, struct copy_actions *out)
{
  struct copy_op *o = copy_op_of (c, seq);

  o->state = OP_DONE;
  c->window_used -= o->frame.payload_len;
  c->n_submitted--;
  copy_leave_hot (c, o, seq);
  release_buf (o, out);
  if (c->n_blocked > 0)
    for (uint64_t q = seq + 1; q <= c->seq; q++) {
      struct copy_op *w = copy_op_of (c, q);
      if (w->state == OP_BLOCKED && must_precede (&o->frame, &w->frame)) {
        w->blockers--;
        if (copy_is_runnable (w))
          c->n_runnable++;
      }
    }
  while (c->done_seq < c->seq && copy_op_of (c, c->done_seq + 1)->state == OP_DONE) {
    c->done_seq++;
    if (c->cfg.mark && is_resync (copy_op_of (c, c->done_seq)->frame.type))
      copy_note_filled (c, &copy_op_of (c, c->done_seq)->frame);
  }
}

/* The number of the operation in slot i: only those received and not passed are in use. */
static uint64_t
seq_of (const struct copy *c, unsigned i)
{
  uint64_t seq = c->done_seq + 1;
  seq += (i + COPY_MAX_OPS - seq % COPY_MAX_OPS) % COPY_MAX_OPS;
  return seq;
}

static void
super_done (struct copy *c, int error, struct copy_actions *out)
{
  const enum copy_super what = (enum copy_super) c->super;

  c->super = SUPER_IDLE;
  if (error != 0) {
    uint64_t seq = what == SUPER_ENTER ? seq_of (c, c->super_op) : 0;
    store_failed (c, seq, error, out);
    if (what == SUPER_ENTER) {
      c->ops[c->super_op].state = OP_FREE;
      c->n_submitted--;
    }
    if (what == SUPER_HELLO && c->hello_waits) {
      struct copy_event ev = { .conn = c->hello_conn };
      c->hello_waits = false;
      refuse (c, &ev, WIRE_REFUSE_STORE, "the copy's store failed", out);
    }
    return;
  }
  switch (what) {
  case SUPER_HELLO:
    if (c->hello_waits)
      hello_ok (c, out);
    break;
  case SUPER_UNUSABLE:
    c->want_unusable = c->coherent = false;
    for (uint64_t q = c->done_seq + 1; q <= c->seq; q++) {
      struct copy_op *w = copy_op_of (c, q);
      if (w->state == OP_BLOCKED && w->after_super) {
        w->after_super = false;
        if (copy_is_runnable (w))
          c->n_runnable++;
      }
    }
    break;
  case SUPER_ENTER:
    if (c->cfg.snapshot && !c->coherent)
      copy_act (out, CA_SNAPSHOT_DROP);
    c->coherent = true;
    if (c->cfg.mark) {
      bits_fill (&c->cfg.mark->bits[c->cfg.site], false);
      mark_persist (c->cfg.mark);
    }
    if (c->refill_seq) {
      copy_mark_unusable (c);
      c->refill_seq = 0;
    }
    op_done (c, seq_of (c, c->super_op), out);
    break;
  default:
    break;
  }
}

static void
done (struct copy *c, const struct copy_event *ev, struct copy_actions *out)
{
  struct copy_op *o;

  if (ev->op == COPY_OP_SUPER) {
    if (c->super == SUPER_IDLE) {
      c->status.illegal++;
      return;
    }
    super_done (c, ev->error, out);
    return;
  }
  if (ev->op == COPY_OP_SNAPSHOT) {
    if (c->snap == SNAP_BUSY)
      snapshot_done (c, ev->error, out);
    else
      c->status.illegal++;
    return;
  }
  if (ev->op == COPY_OP_SYNC) {
    if (c->sync_busy)
      sync_done (c, ev->error, out);
    else
      c->status.illegal++;
    return;
  }
  if (ev->op == COPY_OP_MARK) {
    if (!c->cfg.mark || c->cfg.mark->stage == MS_IDLE) {
      c->status.illegal++;
      return;
    }
    if (mark_done (c->cfg.mark, ev->error == 0))
      copy_act (out, CA_MARK);
    if (ev->error != 0)
      store_failed (c, 0, ev->error, out);
    else
      copy_hot_wake (c);
    return;
  }
  if (ev->op >= COPY_MAX_OPS || c->ops[ev->op].state != OP_SUBMITTED
      || c->ops[ev->op].frame.type == WIRE_ENTER) {
    c->status.illegal++;
    return;
  }
  o = &c->ops[ev->op];
  if (ev->error != 0) {
    store_failed (c, seq_of (c, ev->op), ev->error, out);
    release_buf (o, out);
    copy_leave_hot (c, o, UINT64_MAX);
    o->state = OP_FREE;
    c->n_submitted--;
    return;
  }
  op_done (c, seq_of (c, ev->op), out);
}

/* What becomes of a part of an operation; of a FLUSH there is one without a length. */
static void
part (const struct copy_op *o, uint64_t seq, enum copy_action_kind kind, uint64_t from, uint64_t to,
      struct copy_actions *out)
{
  struct copy_action *a;

  if (from == to && o->frame.type != WIRE_FLUSH)
    return;
  a = copy_act (out, kind);
  a->op = (uint16_t) (seq % COPY_MAX_OPS);
  a->buf = o->buf;
  a->frame = o->frame;
  if (from < to) {
    a->skip = (uint32_t) (from - o->frame.offset);
    a->frame.offset = from;
    a->frame.length = (uint32_t) (to - from);
  }
}

static void
submit (struct copy *c, uint64_t seq, struct copy_actions *out)
{
  struct copy_op *o = copy_op_of (c, seq);

  o->state = OP_SUBMITTED;
  c->n_blocked--;
  c->n_runnable--;
  c->n_submitted++;
  if (o->frame.type == WIRE_ENTER) {
    /* R3: everything before is on the store; flush it, then say so in the superblock. */
    c->unusable = c->empty = c->restarted = c->filling = false;
    c->since = o->record.since;
    if (o->record.generation > c->generation)
      c->generation = o->record.generation;
    c->super_op = (uint16_t) (seq % COPY_MAX_OPS);
    write_super (c, SUPER_ENTER, true, out);
    return;
  }
  if (o->length < o->frame.length) {
    part (o, seq, CA_NOTHING, o->frame.offset, o->offset, out);
    part (o, seq, CA_NOTHING, o->offset + o->length, o->frame.offset + o->frame.length, out);
  }
  /* A map was noted when it came; ENTER waits for it to be on disk. */
  if (o->frame.type == WIRE_MAP || o->nothing)
    op_done (c, seq, out);
  else if (o->frame.type == WIRE_FLUSH)
    part (o, seq, CA_SUBMIT, 0, 0, out);
  else
    part (o, seq, CA_SUBMIT, o->offset, o->offset + o->length, out);
}

static void
pump (struct copy *c, struct copy_actions *out)
{
  if (c->closing || c->failed) {
    /* What was not submitted never will be. */
    for (uint64_t q = c->done_seq + 1; q <= c->seq && c->n_blocked > 0; q++) {
      struct copy_op *o = copy_op_of (c, q);
      if (o->state != OP_BLOCKED)
        continue;
      if (!has_space (out)) {
        out->more = true;
        return;
      }
      release_buf (o, out);
      if (copy_is_runnable (o))
        c->n_runnable--;
      copy_leave_hot (c, o, 0);
      o->state = OP_FREE;
      c->n_blocked--;
    }
    c->sync_wanted = false;
    if (c->closing && c->n_submitted == 0 && !c->sync_busy && c->super == SUPER_IDLE) {
      for (unsigned i = 0; i < COPY_MAX_OPS; i++)
        c->ops[i].state = OP_FREE;
      if (c->cfg.mark)
        hot_unlink (&c->cfg.mark->hot); /* the next link's numbers begin anew */
      /* What was said of the marks of this link is not said of what is found by the next one. */
      c->settle = false;
      c->clear = 0;
      c->closing = false;
      c->seq = c->done_seq = c->acked_seq = 0;
      c->window_used = 0;
      c->snap_seq = 0;
      if (c->snap == SNAP_WANTED)
        c->snap = SNAP_LATER;
    }
  }
  else {
    for (uint64_t q = c->done_seq + 1; q <= c->seq && c->n_runnable > 0; q++) {
      struct copy_op *o = copy_op_of (c, q);
      if (!copy_is_runnable (o) || snapshot_holds (c, q) || (o->frame.type == WIRE_ENTER && c->super != SUPER_IDLE))
        continue;
      if (o->frame.type == WIRE_ENTER && c->cfg.mark) {
        /* What the absent sites lack is on the disk of whoever may take over. */
        if (o->ticket == 0)
          o->ticket = mark_persist (c->cfg.mark);
        copy_pump_marks (c, out);
        if (c->cfg.mark->persisted < o->ticket)
          continue;
      }
      if (!has_space (out)) {
        out->more = true;
        break;
      }
      submit (c, q, out);
    }
  }
  pump_snapshot (c, out);
  copy_pump_marks (c, out);
  pump_sync (c, out);
  /* Also without a link: what the next one is told has to be on the disk. */
  if (c->want_unusable && c->snap == SNAP_NONE && c->super == SUPER_IDLE && !c->failed
      && (!c->cfg.mark || c->cfg.mark->persisted >= c->lack_ticket))
    write_super (c, SUPER_UNUSABLE, false, out);
  if (c->want_tenure && c->super == SUPER_IDLE && !c->failed) {
    c->want_tenure = false;
    write_super (c, SUPER_TENURE, false, out);
  }
  if (c->stopped && !c->idle_said && !c->closing && c->super == SUPER_IDLE
      && c->n_submitted == 0 && !c->sync_busy && c->snap != SNAP_BUSY
      && (!c->cfg.mark || c->failed || c->cfg.mark->stage == MS_IDLE)) {
    c->idle_said = true;
    copy_act (out, CA_IDLE);
  }
}

static void
acknowledge (struct copy *c, bool now, struct copy_actions *out)
{
  struct copy_action *a;

  if (!c->linked || c->done_seq == c->acked_seq
      || (!now && c->done_seq - c->acked_seq < COPY_ACK_OPS))
    return;
  a = copy_act (out, CA_ACK);
  a->conn = c->conn;
  a->seq = c->acked_seq = c->done_seq;
  c->status.acks++;
}

static void
record (struct copy *c, const struct copy_event *ev, struct copy_actions *out)
{
  const struct wire_record *m = ev->record;

  if (m == NULL || m->tenure < c->tenure)
    return;
  if (c->cfg.mark && c->linked && ev->conn == c->conn && ev->conn != 0)
    copy_note_set (c, m->in_set);
  if (m->tenure > c->tenure) {
    c->tenure = m->tenure;
    c->tenure_node[0] = '\0';
    /* R1, R4: no link of the tenure of its own appointment comes, and who gives it a lower one again is
     * not this node's crgd, which holds the record.  It is stored by the opening as production: until then
     * the disk says that this hasn't been, which of a tenure that was forced has to be seen. */
    c->want_tenure = !ev->appointed;
    if (c->linked) {
      /* R1: the link is an older production's. */
      struct copy_action *a = copy_act (out, CA_CLOSE);
      a->conn = c->conn;
      a->reason = "a newer production host was appointed";
      end_link (c);
    }
  }
  if (m->generation > c->generation) {
    struct copy_action *a = copy_act (out, CA_RECORD);
    a->generation = c->generation = m->generation;
    a->tenure = c->tenure;
    a->since = c->since;
    a->unusable = c->unusable;
  }
}

void
copy_step (struct copy *c, const struct copy_event *ev, struct copy_actions *out)
{
  out->n = 0;
  out->more = false;
  switch ((enum copy_event_kind) ev->kind) {
  case CE_HELLO:
    hello (c, ev, out);
    break;
  case CE_FRAME:
    frame (c, ev, out);
    break;
  case CE_RECORD:
    record (c, ev, out);
    break;
  case CE_STABLE:
    copy_note_stable (c, ev);
    break;
  case CE_DONE:
    done (c, ev, out);
    break;
  case CE_POLL:
    break;
  case CE_CLOSED:
    if (c->linked && ev->conn == c->conn)
      end_link (c);
    if (c->hello_waits && ev->conn == c->hello_conn)
      c->hello_waits = false;
    break;
  case CE_STOP:
    c->stopped = true;
    c->idle_said = false;
    if (c->linked) {
      struct copy_action *a = copy_act (out, CA_CLOSE);
      a->conn = c->conn;
      a->reason = "this node does not hold a mirror copy any more";
      end_link (c);
    }
    c->hello_waits = false;
    break;
  default:
    c->status.illegal++;
  }
  pump (c, out);
  acknowledge (c, ev->kind == CE_POLL && !out->more, out);
  assert (out->n <= COPY_MAX_ACTIONS);
}

void
copy_status (const struct copy *c, struct copy_status *st)
{
  *st = c->status;
  st->linked = c->linked;
  st->closing = c->closing;
  st->failed = c->failed;
  st->unusable = c->unusable;
  st->in_set = c->since > 0 && !c->unusable;
  st->tenure = c->tenure;
  st->generation = c->generation;
  st->since = c->since;
  st->seq_received = c->seq;
  st->seq_acked = c->acked_seq;
  st->ops = c->n_submitted + c->n_blocked;
  st->hot_wait = c->n_hot_wait;
  st->hot_full = false;
  for (uint64_t q = c->done_seq + 1; q <= c->seq && c->n_hot_wait > 0; q++)
    st->hot_full |= c->ops[q % COPY_MAX_OPS].hot_wait == 2;
}
