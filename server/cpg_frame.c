/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Frames of the corosync engine.  See cpg_frame.h.  Any thread; keeps nothing.
 */
#include <config.h>

#include "server/cpg_frame.h"

#include "common/util.h"

void
cpg_frame_encode (const struct cpg_frame *f, uint8_t buf[CPG_FRAME_HEADER_LEN])
{
  put_le32 (buf, CPG_FRAME_MAGIC);
  buf[4] = CPG_FRAME_VERSION;
  buf[5] = f->kind;
  put_le16 (buf + 6, 0);
  put_le64 (buf + 8, f->view);
  put_le64 (buf + 16, f->ring_seq);
  put_le32 (buf + 24, f->ring_node);
  put_le32 (buf + 28, 0);
  put_le64 (buf + 32, f->seq);
  put_le32 (buf + 40, f->total);
  put_le32 (buf + 44, f->offset);
}

bool
cpg_frame_decode (const uint8_t *buf, size_t len, struct cpg_frame *f)
{
  struct cpg_frame d = { 0 };

  if (len < CPG_FRAME_HEADER_LEN || len > CPG_FRAME_HEADER_LEN + (size_t) CRG_ENGINE_MSG_MAX)
    return false;
  if (get_le32 (buf) != CPG_FRAME_MAGIC || buf[4] != CPG_FRAME_VERSION)
    return false;
  d.kind = buf[5];
  d.view = get_le64 (buf + 8);
  d.ring_seq = get_le64 (buf + 16);
  d.ring_node = get_le32 (buf + 24);
  d.seq = get_le64 (buf + 32);
  d.total = get_le32 (buf + 40);
  d.offset = get_le32 (buf + 44);
  d.payload = buf + CPG_FRAME_HEADER_LEN;
  d.len = (uint32_t) (len - CPG_FRAME_HEADER_LEN);
  if (get_le16 (buf + 6) != 0 || get_le32 (buf + 28) != 0 || d.view == 0)
    return false;
  switch (d.kind) {
  case CPG_FRAME_VIEW:
    if (d.seq || d.total || d.offset || d.len)
      return false;
    break;
  case CPG_FRAME_DATA:
    if (d.ring_seq || d.ring_node || d.total > CRG_ENGINE_MSG_MAX || d.offset > d.total
        || d.len > d.total - d.offset)
      return false;
    if (d.len == 0 && d.total != 0)
      return false;
    break;
  default:
    return false;
  }
  *f = d;
  return true;
}

enum cpg_piece
cpg_partial_step (struct cpg_partial *p, const struct cpg_frame *f)
{
  if (f->offset == 0) {
    bool torn = p->open;

    p->open = false;
    if (torn)
      return CPG_PIECE_STRAY;
    if (f->len == f->total)
      return CPG_PIECE_WHOLE;
    p->open = true;
    p->seq = f->seq;
    p->total = f->total;
    p->have = f->len;
    return CPG_PIECE_FIRST;
  }
  if (!p->open || f->seq != p->seq || f->total != p->total || f->offset != p->have) {
    p->open = false;
    return CPG_PIECE_STRAY;
  }
  p->have += f->len;
  if (p->have < p->total)
    return CPG_PIECE_NEXT;
  p->open = false;
  return CPG_PIECE_LAST;
}
