/* SPDX-License-Identifier: BSD-3-Clause */
/* See peer.h.
 */
#include <config.h>

#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <openssl/err.h>

#include "common/crc32c.h"
#include "common/util.h"
#include "tests/badpeer/peer.h"

void
peer_trouble (const char *fmt, ...)
{
  va_list args;

  va_start (args, fmt);
  fprintf (stderr, "badpeer: ");
  vfprintf (stderr, fmt, args);
  fprintf (stderr, "\n");
  va_end (args);
  exit (2);
}

uint64_t
peer_now_ms (void)
{
  struct timespec ts;

  clock_gettime (CLOCK_MONOTONIC, &ts);
  return (uint64_t) ts.tv_sec * 1000 + (uint64_t) ts.tv_nsec / 1000000;
}

SSL_CTX *
peer_tls (bool server, const char *ca, const char *cert, const char *key)
{
  SSL_CTX *ctx = SSL_CTX_new (server ? TLS_server_method () : TLS_client_method ());

  if (!ctx || !SSL_CTX_set_min_proto_version (ctx, TLS1_3_VERSION))
    peer_trouble ("no TLS 1.3");
  if (ca && SSL_CTX_load_verify_locations (ctx, ca, NULL) != 1)
    peer_trouble ("%s is no CA", ca);
  /* Our own checks are off: it is the other side that is tested. */
  if (cert
      && (SSL_CTX_use_certificate_file (ctx, cert, SSL_FILETYPE_PEM) != 1
          || SSL_CTX_use_PrivateKey_file (ctx, key, SSL_FILETYPE_PEM) != 1))
    peer_trouble ("%s and %s don't go together", cert, key);
  return ctx;
}

int
peer_connect (const char *host, const char *port)
{
  struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *ai;
  int fd, r = getaddrinfo (host, port, &hints, &ai);

  if (r)
    peer_trouble ("%s: %s", host, gai_strerror (r));
  fd = socket (ai->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0 || connect (fd, ai->ai_addr, ai->ai_addrlen) < 0)
    peer_trouble ("connect to %s port %s: %s", host, port, strerror (errno));
  freeaddrinfo (ai);
  return fd;
}

int
peer_handshake (struct peer *p, SSL_CTX *ctx, bool server, unsigned timeout_ms)
{
  struct timeval tv = { timeout_ms / 1000, timeout_ms % 1000 * 1000 };

  p->ssl = SSL_new (ctx);
  setsockopt (p->fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
  setsockopt (p->fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof tv);
  if (!p->ssl || SSL_set_fd (p->ssl, p->fd) != 1)
    peer_trouble ("no TLS");
  ERR_clear_error ();
  return server ? SSL_accept (p->ssl) : SSL_connect (p->ssl);
}

void
peer_close (struct peer *p)
{
  SSL_free (p->ssl);
  close (p->fd);
  *p = (struct peer){ .fd = -1 };
}

bool
peer_send (struct peer *p, const void *buf, size_t len)
{
  const uint8_t *at = buf;

  while (len) {
    ssize_t n = p->ssl ? SSL_write (p->ssl, at, (int) MIN (len, (size_t) 16384)) : send (p->fd, at, len, MSG_NOSIGNAL);

    if (n <= 0)
      return false;
    at += n;
    len -= (size_t) n;
  }
  return true;
}

int
peer_read (struct peer *p, void *buf, size_t len, unsigned timeout_ms)
{
  const uint64_t until = peer_now_ms () + timeout_ms;
  uint8_t *at = buf;

  while (len > 0) {
    const uint64_t now = peer_now_ms ();
    struct pollfd pfd = { p->fd, POLLIN, 0 };
    int n;

    if (!SSL_pending (p->ssl)) {
      if (now >= until)
        return 1;
      if (poll (&pfd, 1, (int) (until - now)) <= 0)
        continue;
    }
    ERR_clear_error ();
    n = SSL_read (p->ssl, at, (int) MIN (len, (size_t) 65536));
    if (n <= 0 && SSL_get_error (p->ssl, n) == SSL_ERROR_WANT_READ)
      continue;
    if (n <= 0)
      return -1;
    at += n;
    len -= (size_t) n;
  }
  return 0;
}

void
peer_header (uint8_t *b, const struct frame *f)
{
  memset (b, 0, WIRE_HEADER_LEN);
  put_le32 (b, WIRE_MAGIC);
  b[4] = f->version ? f->version : WIRE_VERSION;
  b[5] = f->type;
  put_le16 (b + 6, f->flags);
  put_le64 (b + 8, f->tenure);
  put_le64 (b + 16, f->seq);
  put_le64 (b + 24, f->offset);
  put_le32 (b + 32, f->length);
  put_le32 (b + 36, f->payload_len);
  put_le32 (b + 40, f->missing);
  put_le32 (b + 60, crc32c (0, b, 60));
}

bool
peer_frame (struct peer *p, const struct frame *f, const void *payload)
{
  uint8_t b[WIRE_HEADER_LEN];

  peer_header (b, f);
  return peer_send (p, b, sizeof b) && (!payload || peer_send (p, payload, f->payload_len));
}

int
peer_next (struct peer *p, struct frame *f, void *payload, size_t size, unsigned timeout_ms)
{
  const uint64_t until = peer_now_ms () + timeout_ms;
  uint8_t b[WIRE_HEADER_LEN];

  for (;;) {
    const uint64_t now = peer_now_ms ();
    uint32_t left;
    int r = peer_read (p, b, sizeof b, now < until ? (unsigned) (until - now) : 0);

    if (r != 0)
      return r;
    *f = (struct frame){ .version = b[4], .type = b[5], .flags = get_le16 (b + 6), .tenure = get_le64 (b + 8),
                         .seq = get_le64 (b + 16), .offset = get_le64 (b + 24), .length = get_le32 (b + 32),
                         .payload_len = get_le32 (b + 36), .missing = get_le32 (b + 40) };
    for (left = f->payload_len; left > 0;) {
      uint8_t rest[4096];
      const bool keep = left == f->payload_len && left <= size;
      const uint32_t n = keep ? left : MIN (left, (uint32_t) sizeof rest);

      r = peer_read (p, keep ? payload : rest, n, timeout_ms);
      if (r != 0)
        return r;
      left -= n;
    }
    if (f->type != WIRE_PING)
      return 0;
    peer_frame (p, &(struct frame){ .type = WIRE_PONG, .tenure = f->tenure, .seq = f->seq }, NULL);
  }
}
