/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Frames between the local engine and its hub, and the buffered stream that
 * carries them over a Unix socket.  Used by both ends on their loop's thread.
 * A stream never blocks: input is bounded by one frame, output by
 * HUB_OUT_MAX bytes, and what exceeds a bound is an error of that stream.
 *
 * A frame is a header of HUB_HEADER_LEN bytes, the group's name, the payload:
 *   0 magic u32 | 4 version u8 | 5 type u8 | 6 name length u16 | 8 node u32
 *  12 payload length u32 | 16 view u64; all little-endian.
 */
#ifndef CRG_HUB_FRAME_H
#define CRG_HUB_FRAME_H

#include <stddef.h>
#include <stdint.h>

#include "common/limits.h"

#define HUB_MAGIC UINT32_C (0x48475243) /* "CRGH" */
#define HUB_VERSION 1
#define HUB_HEADER_LEN 24

enum hub_type {
  HUB_HELLO = 1, /* member -> hub: node, payload: u32 token_ms */
  HUB_WELCOME,   /* hub -> member: node is accepted */
  HUB_REFUSE,    /* hub -> member: payload: reason; then it closes */
  HUB_JOIN,      /* member -> hub: group */
  HUB_LEAVE,     /* member -> hub: group; answered with LEFT */
  HUB_LEFT,      /* hub -> member: nothing more of this membership follows */
  HUB_MCAST,     /* member -> hub: group, payload */
  HUB_VIEW,      /* hub -> member: group, view, payload: u32 node ids, rising */
  HUB_DELIVER,   /* hub -> member: group, view, node (sender), payload */
  HUB_PING,      /* hub -> member */
  HUB_PONG,      /* member -> hub */
  HUB_TYPE_END,
};

struct hub_frame {
  uint8_t type;
  uint32_t node;
  uint64_t view;
  char group[CRG_NAME_MAX + 1]; /* "" where a type has none */
  const uint8_t *payload;       /* valid until the next hub_stream_fill */
  size_t len;
};

struct hub_stream {
  int fd;
  uint8_t *in;
  size_t in_len, in_cap, in_used; /* in_used: of the frame last returned */
  uint8_t *out;
  size_t out_start, out_len, out_cap;
};

extern void hub_stream_init (struct hub_stream *s, int fd);
extern void hub_stream_close (struct hub_stream *s); /* closes fd, frees */

/* Reads what is there, once.  > 0; 0 at the end of the stream; -EAGAIN;
 * -errno. */
extern int hub_stream_fill (struct hub_stream *s);
/* The next whole frame.  1; 0: none yet; -EPROTO: not our protocol. */
extern int hub_stream_next (struct hub_stream *s, struct hub_frame *f);
/* Queues a frame.  0; -EMSGSIZE; -ENOBUFS: the peer does not read; -ENOMEM. */
extern int hub_stream_put (struct hub_stream *s, const struct hub_frame *f);
/* 0: all is sent; 1: wait for writable; -errno. */
extern int hub_stream_flush (struct hub_stream *s);

#endif
