/* SPDX-License-Identifier: BSD-3-Clause */
/* The core of the receiving side, second part: what the disk remembers (mark.h).  Pure; called by
 * copy.c alone.  It must never let a block be written whose region is not hot on the disk, nor
 * forget what another site may lack.
 */
#include <string.h>

#include "plugin/copy_private.h"

/* --- tracking -------------------------------------------------------------------------------- */

/* Zeroes, as it is filled, for what was never written (W1) are not written, at either end of a range.  Not with an
 * earlier operation on it before it, which may wait for its mark; nor where it does not know of itself that it lacks
 * the block: what a comparison has found to differ is written, whatever the map says. */
void
copy_cut_unwritten (const struct copy *c, struct copy_op *o)
{
  const struct wire_header *f = &o->frame;
  const struct mark *m = c->cfg.mark;
  uint32_t head;

  if (f->type != WIRE_RESYNC_ZERO || o->blockers > 0 || !m->written.map)
    return;
  for (uint64_t b = f->offset / m->block_size; b * m->block_size < f->offset + f->length; b++)
    if (!bits_get (&m->bits[c->cfg.site], b))
      return;
  head = (uint32_t) mark_unwritten (m, o->offset, o->length);
  o->offset += head;
  o->length -= head;
  while (o->length > 0) {
    uint64_t last = (o->offset + o->length - 1) / m->block_size * m->block_size;

    if (mark_unwritten (m, last, 1) == 0)
      break;
    o->length = last > o->offset ? (uint32_t) (last - o->offset) : 0;
  }
  o->nothing = o->length == 0;
}

/* Counts a block that came in its regions; it may have to wait. */
void
copy_take_hot (struct copy *c, struct copy_op *o)
{
  /* With a map of what was written what is ahead of zeroes is better left alone. */
  const bool alone = o->frame.type == WIRE_RESYNC_ZERO && c->cfg.mark->written.map;
  bool full, ready = (alone ? hot_begin_alone : hot_begin) (&c->cfg.mark->hot, o->offset, o->length, &full);

  o->hot = !full;
  if (o->hot && (o->frame.flags & WIRE_F_KEEP))
    hot_keep (&c->cfg.mark->hot, o->frame.offset, o->frame.length);
  if (!ready) {
    if (o->hot_wait == 0)
      c->n_hot_wait++;
    o->hot_wait = full ? 2 : 1;
  }
  else if (o->hot_wait != 0) {
    o->hot_wait = 0;
    c->n_hot_wait--;
  }
}

void
copy_leave_hot (struct copy *c, struct copy_op *o, uint64_t seq)
{
  if (o->hot)
    hot_end (&c->cfg.mark->hot, o->offset, o->length, seq);
  if (o->hot_wait != 0)
    c->n_hot_wait--;
  o->hot = false;
  o->hot_wait = 0;
}

/* What the sites that production does not wait for may lack of this. */
void
copy_note_missing (struct copy *c, const struct wire_header *f)
{
  for (unsigned s = 0; s < CRG_MAX_SITES; s++)
    if ((f->missing & 1u << s) && s != c->cfg.site && c->cfg.mark->bits[s].map)
      mark_dirty (c->cfg.mark, s, f->offset, f->length);
}

/* A piece of what another site lacks; with the own one: all, and on disk before the next block. */
void
copy_note_map (struct copy *c, const struct copy_event *ev)
{
  struct mark *m = c->cfg.mark;
  const uint64_t first = ev->frame.offset / m->block_size;

  for (unsigned s = 0; s < CRG_MAX_SITES; s++) {
    struct bits *b = &m->bits[s];
    if (!(ev->frame.missing & 1u << s) || !b->map)
      continue;
    if (ev->frame.flags & WIRE_F_ALL)
      bits_fill (b, true);
    for (uint64_t i = 0; ev->map && i < META_BLOCK_BITS && first + i < b->n_bits; i++)
      if (ev->map[i / 8] >> (i % 8) & 1)
        bits_set (b, first + i, true);
    if (s == c->cfg.site)
      copy_mark_unusable (c);
  }
}

/* A block of the resync has been written, and all before it: it is lacking no more.  Its region
 * is hot until it is stable. */
void
copy_note_filled (struct copy *c, const struct wire_header *f)
{
  struct bits *lack = &c->cfg.mark->bits[c->cfg.site];
  const uint64_t bs = c->cfg.mark->block_size, end = f->offset + f->length;

  if (lack->n_set > 0)
    for (uint64_t b = f->offset / bs; b < lack->n_bits && ((b + 1) * bs <= end || end == c->cfg.size); b++)
      bits_set (lack, b, false);
}

void
copy_hot_wake (struct copy *c)
{
  for (uint64_t q = c->done_seq + 1; q <= c->seq && c->n_hot_wait > 0; q++) {
    struct copy_op *o = copy_op_of (c, q);
    if (o->state != OP_BLOCKED || o->hot_wait == 0)
      continue;
    if (o->hot_wait == 2)
      copy_take_hot (c, o);
    else if (hot_ready (&c->cfg.mark->hot, o->offset, o->length)) {
      o->hot_wait = 0;
      c->n_hot_wait--;
    }
    if (copy_is_runnable (o))
      c->n_runnable++;
  }
}

void
copy_pump_marks (struct copy *c, struct copy_actions *out)
{
  struct mark *m = c->cfg.mark;

  if (!m || c->failed || m->stage != MS_IDLE)
    return;
  if (c->settle)
    mark_settle (m);
  if (c->settle || c->clear != 0) {
    mark_clear (m, c->clear == 2);
    copy_hot_wake (c);
  }
  c->idle = c->idle || c->clear == 2;
  c->settle = false;
  c->clear = 0;
  if (mark_begin (m, c->idle))
    copy_act (out, CA_MARK);
  else
    c->idle = false;
}

/* In the stream: production's word that its marks up to seq are of no use any more. */
void
copy_note_stable (struct copy *c, const struct copy_event *ev)
{
  if (!c->cfg.mark || !c->linked || ev->conn != c->conn || ev->frame.seq > c->seq)
    return;
  c->sync_wanted = c->sync_wanted || (ev->frame.flags & WIRE_F_SYNC);
  hot_stable (&c->cfg.mark->hot, ev->frame.seq);
  c->settle = c->settle || (ev->frame.flags & WIRE_F_SETTLED);
  if (ev->frame.flags & WIRE_F_CLEAR)
    c->clear = 2;
  else if (c->clear == 0)
    c->clear = 1;
}

uint64_t
copy_report_blocks (const struct copy *c)
{
  return c->cfg.mark ? c->cfg.mark->bits[c->cfg.site].n_blocks : 0;
}

uint64_t
copy_report (const struct copy *c, uint64_t index, uint8_t *payload, uint64_t *of)
{
  const uint64_t left = c->cfg.mark->bits[c->cfg.site].n_bits - index * META_BLOCK_BITS;

  *of = left < META_BLOCK_BITS ? left : META_BLOCK_BITS;
  return mark_report (c->cfg.mark, c->production_site, c->cfg.site, index, payload);
}

/* The committed set, in the stream: all frames that some site lacks came before (in) or come
 * behind (out). */
void
copy_note_set (struct copy *c, uint32_t in_set)
{
  struct mark *m = c->cfg.mark;

  for (unsigned s = 0; s < CRG_MAX_SITES; s++) {
    if (s == c->cfg.site || !m->bits[s].map)
      continue;
    if (in_set & 1u << s) {
      if (in_set & 1u << c->cfg.site)
        bits_fill (&m->bits[s], false);
      continue;
    }
    /* It left: what is not stable everywhere it may lack (R2). */
    for (uint64_t i = hot_next (&m->hot, 0); i < m->hot.n_bits; i = hot_next (&m->hot, i + 1))
      mark_dirty (m, s, i * m->hot.bit_size,
                  i + 1 < m->hot.n_bits ? m->hot.bit_size : m->data_bytes - i * m->hot.bit_size);
    for (unsigned i = 0; i < m->hot.n_entries; i++) {
      const uint64_t offset = m->hot.entry[i].region * m->hot.region_size;
      mark_dirty (m, s, offset,
                  m->data_bytes - offset < m->hot.region_size ? m->data_bytes - offset : m->hot.region_size);
    }
    for (uint64_t q = c->done_seq + 1; q <= c->seq && c->n_hot_wait > 0; q++) {
      const struct copy_op *o = copy_op_of (c, q);
      if (o->state == OP_BLOCKED && o->hot_wait == 2) /* no region is free: it is not among the hot ones yet */
        mark_dirty (m, s, o->frame.offset, o->frame.length);
    }
  }
}
