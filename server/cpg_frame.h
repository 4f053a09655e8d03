/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Frames of the corosync engine: what one CPG message holds.  A message of
 * the group travels as one or more DATA frames, because CPG bounds a message;
 * a VIEW frame proposes the id of the view that is being formed (cpg_view.h).
 * Pure codec and the rules of reassembly: no I/O, no allocation, no clock.
 *
 * Header, CPG_FRAME_HEADER_LEN bytes, little-endian:
 *   0 magic u32 | 4 version u8 | 5 kind u8 | 6 zero u16 | 8 view u64
 *  16 ring_seq u64 | 24 ring_node u32 | 28 zero u32 | 32 seq u64
 *  40 total u32 | 44 offset u32; the payload follows, to the frame's end.
 */
#ifndef CRG_CPG_FRAME_H
#define CRG_CPG_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/limits.h"

#define CPG_FRAME_MAGIC UINT32_C (0x43475243) /* "CRGC" */
#define CPG_FRAME_VERSION 1
#define CPG_FRAME_HEADER_LEN 48

enum cpg_frame_kind {
  CPG_FRAME_VIEW = 1, /* view: the proposed id; ring: the sender's; no payload */
  CPG_FRAME_DATA,     /* view: in which it was sent; a piece of message seq */
  CPG_FRAME_KIND_END,
};

struct cpg_frame {
  uint8_t kind;      /* enum cpg_frame_kind */
  uint64_t view;     /* never 0 */
  uint64_t ring_seq; /* VIEW */
  uint32_t ring_node;
  uint64_t seq;    /* DATA: number of the message, rising at its sender */
  uint32_t total;  /* DATA: bytes of the whole message, to CRG_ENGINE_MSG_MAX */
  uint32_t offset; /* DATA: of this piece in it */
  const uint8_t *payload;
  uint32_t len; /* bytes of payload; DATA: at least 1 unless total is 0 */
};

/* Writes the header of f. */
extern void cpg_frame_encode (const struct cpg_frame *f,
                              uint8_t buf[CPG_FRAME_HEADER_LEN]);
/* True: buf is a frame of ours that obeys the rules above; payload points
 * into buf.  False: another program's message, or damage; *f is untouched. */
extern bool cpg_frame_decode (const uint8_t *buf, size_t len,
                              struct cpg_frame *f);

/* What a receiver holds of the message that one sender is sending.  The caller
 * owns the buffer; `have` bytes of it are filled. */
struct cpg_partial {
  bool open;
  uint64_t seq;
  uint32_t total, have;
};

enum cpg_piece {
  CPG_PIECE_WHOLE,  /* the payload is a whole message: deliver it */
  CPG_PIECE_FIRST,  /* provide a buffer of `total` bytes, copy to offset 0 */
  CPG_PIECE_NEXT,   /* copy to its offset */
  CPG_PIECE_LAST,   /* copy to its offset, deliver the buffer */
  CPG_PIECE_STRAY,  /* does not continue what is open: drop it and the open one */
};

/* Pieces of one message come in order and without a gap, since CPG is FIFO for
 * each sender; anything else is STRAY. */
extern enum cpg_piece cpg_partial_step (struct cpg_partial *p,
                                        const struct cpg_frame *f);

#endif /* CRG_CPG_FRAME_H */
