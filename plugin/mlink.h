/* SPDX-License-Identifier: BSD-3-Clause */
/* One mirror connection: a socket that is a direct descriptor of the engine's ring, TLS over it,
 * and the frames in it.  Owned by the engine thread.  It knows no rule of replication: what comes
 * in goes to its owner's functions, and nothing is handed out before the peer's certificate and
 * name are checked.  Memory is bounded by tlslink and one control payload.
 */
#ifndef IASP_MLINK_H
#define IASP_MLINK_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "common/limits.h"
#include "common/wire.h"
#include "plugin/ring.h"
#include "common/tlslink.h"

enum mlink_state {
  LK_FREE,
  LK_ACCEPTING,  /* the accept that will fill it is under way */
  LK_CONNECTING,
  LK_TLS,        /* handshake */
  LK_UP,         /* frames flow; HELLO is the owner's business */
  LK_FINISHING,  /* what is queued goes out, then it closes */
  LK_CLOSING,    /* told to its owner as closed; the ring still has operations on it */
};

struct mlink;
struct mlink_ops {
  void (*up) (struct mlink *l);
  /* Where this frame's payload goes; NULL: no room now, ask again (mlink_resume). */
  uint8_t *(*payload) (struct mlink *l, const struct wire_header *h);
  void (*frame) (struct mlink *l, const struct wire_header *h, uint8_t *payload);
  void (*room) (struct mlink *l); /* ciphertext went out */
  void (*closed) (struct mlink *l, const char *reason); /* once; the link may be free afterwards */
};

struct mlink {
  struct ring *ring;
  const struct mlink_ops *ops;
  void *owner;
  unsigned index; /* of the direct descriptor */
  uint8_t state;  /* enum mlink_state */
  uint8_t site;   /* owner's */
  uint32_t conn;  /* owner's number for it */
  uint64_t tenure; /* owner's: of its HELLO */
  bool spoken;    /* owner's: HELLO is over */
  bool is_server;
  bool told;      /* ops->closed was called */
  bool paused;    /* waits for room for a payload */
  bool connect_busy, recv_busy, send_busy, other_busy;
  struct ring_op connect_op, recv_op, send_op, other_op;
  struct sockaddr_storage addr;
  socklen_t addr_len;
  char where[CRG_ADDR_MAX + 16]; /* the peer's address, for people */
  struct tlslink *tls;
  uint64_t opened_ms, heard_ms, pinged_ms, finish_ms;
  uint64_t ping_seq;

  uint8_t header[WIRE_HEADER_LEN];
  unsigned header_have;
  struct wire_header h;
  uint8_t *payload;
  uint32_t payload_have;
  uint8_t control[WIRE_MAP_BYTES]; /* the largest of them */
};

extern void mlink_init (struct mlink *l, struct ring *ring, unsigned index, const struct mlink_ops *ops,
                       void *owner);

/* Connects from a free link.  'names': the peer's certificate has to carry one of them.  0 or
 * -errno; then it is still free. */
extern int mlink_connect (struct mlink *l, const char *address, uint16_t port, struct tlslink_ctx *ctx,
                         const char *name, size_t out_bytes, uint64_t now_ms);
/* The accept that was made into l->index has come: begins TLS as the server.  0 or -ENOMEM. */
extern int mlink_accepted (struct mlink *l, struct tlslink_ctx *ctx, const char *const *names, unsigned n,
                          size_t out_bytes, uint64_t now_ms);

/* Plaintext that fits now, for operations: what frames of control need is kept back. */
extern size_t mlink_room (const struct mlink *l);
/* Queues one frame.  0; -ENOBUFS: no room; -EPIPE: not up. */
extern int mlink_send (struct mlink *l, const struct wire_header *h, const void *payload);
/* Hands what was queued to the ring; once after each round of events. */
extern void mlink_flush (struct mlink *l);
/* There is room for payloads again. */
extern void mlink_resume (struct mlink *l, uint64_t now_ms);
/* PING, deadlines. */
extern void mlink_tick (struct mlink *l, uint64_t now_ms);
/* Closes at once, or when what is queued is sent.  ops->closed is called with the reason. */
extern void mlink_close (struct mlink *l, const char *reason);
extern void mlink_finish (struct mlink *l, uint64_t now_ms);

extern const char *mlink_state_name (unsigned state);

#endif /* IASP_MLINK_H */
