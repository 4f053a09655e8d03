/* SPDX-License-Identifier: BSD-3-Clause */
/* What the peers that misbehave on the mirror port share: connections, TLS without checks of their
 * own, and frames.  Headers are made byte by byte, not with the product's encoder, which rightly
 * can't make wrong ones; so are payloads that are to be wrong.  All waits are bounded.  A peer is
 * one thread's.
 */
#ifndef CRG_BADPEER_H
#define CRG_BADPEER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <openssl/ssl.h>

#include "common/wire.h"

struct peer {
  int fd;
  SSL *ssl; /* NULL: none yet */
};

struct frame { /* as its header says, right or wrong */
  uint8_t version, type;
  uint16_t flags;
  uint64_t tenure, seq, offset;
  uint32_t length, payload_len, missing;
};

/* The trouble is ours: says it, and ends the process with 2. */
extern void peer_trouble (const char *fmt, ...) __attribute__ ((noreturn, format (printf, 1, 2)));
extern uint64_t peer_now_ms (void);

extern SSL_CTX *peer_tls (bool server, const char *ca, const char *cert, const char *key);
extern int peer_connect (const char *host, const char *port);
/* The handshake; 1 when it is done.  Reads and writes wait timeout_ms at most from now on. */
extern int peer_handshake (struct peer *p, SSL_CTX *ctx, bool server, unsigned timeout_ms);
extern void peer_close (struct peer *p);

/* The other side may close at any time, which is no trouble: false. */
extern bool peer_send (struct peer *p, const void *buf, size_t len);
/* Exactly so many bytes within the time; 0, or -1: the end, or 1: nothing more came. */
extern int peer_read (struct peer *p, void *buf, size_t len, unsigned timeout_ms);

/* WIRE_HEADER_LEN bytes with a good CRC, whatever is in them. */
extern void peer_header (uint8_t *b, const struct frame *f);
extern bool peer_frame (struct peer *p, const struct frame *f, const void *payload);
/* The next frame but PINGs, which are answered; up to 'size' bytes of its payload are kept.  0, -1, 1
 * as peer_read. */
extern int peer_next (struct peer *p, struct frame *f, void *payload, size_t size, unsigned timeout_ms);

#endif /* CRG_BADPEER_H */
