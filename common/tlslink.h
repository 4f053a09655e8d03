/* SPDX-License-Identifier: BSD-3-Clause */
/* TLS 1.3 of one connection as a state machine over two fixed rings: ciphertext in, plaintext
 * out, and back.  No sockets, no threads; one thread owns it and moves the bytes (for a mirror
 * link the engine thread, with io_uring).  Both sides show certificates; the peer's DNS name must
 * be one of the names given, or a server takes every client that its CA has signed.
 *
 * Memory: TLSLINK_IN_BYTES + out_bytes + OpenSSL's own, all taken by tlslink_new (); a peer
 * can't make it grow.  Pointers that tlslink_in_space () and tlslink_out_data () gave stay
 * valid, and their bytes in place, until the commit or consume that follows.
 *
 * It must never hand out plaintext before the peer's certificate, name and dates are checked.
 */
#ifndef CRG_TLSLINK_H
#define CRG_TLSLINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/limits.h"

struct tlslink_ctx; /* certificate, key, CA: one a process, reloadable */
struct tlslink;

enum tlslink_state {
  TL_HANDSHAKE,
  TL_UP,
  TL_CLOSED,  /* the peer said close_notify: all that it sent has been handed out */
  TL_FAILED,  /* tlslink_reason () */
};

/* PEM files.  NULL on error, with the reason (which file, what to do) in err. */
extern struct tlslink_ctx *tlslink_ctx_new (const char *ca, const char *cert, const char *key,
                                            char *err, size_t err_len);
extern void tlslink_ctx_free (struct tlslink_ctx *ctx);

/* The peer's certificate must carry one of names[n] as a DNS name (exact, case-insensitive, no
 * wildcards, no common name); for a client, names[0] is also sent as SNI.  Names are copied;
 * n <= CRG_MAX_NODES.  n 0, only for a server: any name; tlslink_peer is then the certificate's
 * common name.  out_bytes: ring for ciphertext, >= TLSLINK_OUT_LEAST.  NULL: no memory. */
extern struct tlslink *tlslink_new (struct tlslink_ctx *ctx, bool is_server,
                                    const char *const *names, unsigned n, size_t out_bytes);
extern void tlslink_free (struct tlslink *l);

/* Goes on with the handshake and with what waits; call after in_commit and out_consume while
 * the state is TL_HANDSHAKE (read and write below do it themselves).  Returns the state. */
extern enum tlslink_state tlslink_drive (struct tlslink *l);
extern enum tlslink_state tlslink_get_state (const struct tlslink *l);
extern const char *tlslink_reason (const struct tlslink *l); /* TL_FAILED: one line of text */
extern const char *tlslink_peer (const struct tlslink *l);   /* which of names; NULL before UP */

/* Ciphertext from the socket.  in_space: where to receive, 0 bytes = full: read plaintext
 * first.  in_eof: the socket ended; without close_notify that is a truncation (TL_FAILED). */
extern size_t tlslink_in_space (struct tlslink *l, uint8_t **buf);
extern void tlslink_in_commit (struct tlslink *l, size_t len);
extern void tlslink_in_eof (struct tlslink *l);

/* Ciphertext for the socket: the oldest contiguous piece.  out_pending: all of it. */
extern size_t tlslink_out_data (struct tlslink *l, const uint8_t **buf);
extern void tlslink_out_consume (struct tlslink *l, size_t len);
extern size_t tlslink_out_pending (const struct tlslink *l);

/* Plaintext to the peer.  out_room: so many bytes fit now, whatever their split: tlslink_write
 * takes that much at once.  Small writes are gathered into one TLS record until it is full or
 * tlslink_flush () is called.  write: bytes taken (0 before TL_UP), or -1 if TL_FAILED. */
extern size_t tlslink_out_room (const struct tlslink *l);
extern ssize_t tlslink_write (struct tlslink *l, const void *buf, size_t len);
extern int tlslink_flush (struct tlslink *l);

/* Plaintext from the peer: bytes, 0 = none now (see the state), -1 = TL_FAILED. */
extern ssize_t tlslink_read (struct tlslink *l, void *buf, size_t len);

/* Says close_notify; what is pending goes out by out_data. */
extern void tlslink_close (struct tlslink *l);

#endif
