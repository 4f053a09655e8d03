/* SPDX-License-Identifier: BSD-3-Clause */
/* A peer that misbehaves on the mirror port, for tests:
 *
 *   badpeer MODE HOST PORT [--ca FILE --cert FILE --key FILE] [--timeout MS]
 *
 * It connects as a production host would, does one thing wrong, and waits for what the other
 * side does about it.  Exit 0: the other side closed (or refused and closed) in time, and sent
 * no data that only a good peer gets; 1: it accepted us, or still holds the connection; 2: the
 * trouble is ours.  The last line says what was seen.  Frames are made here byte by byte, not
 * with the product's encoder, which rightly can't make wrong ones.  One thread; all waits are
 * bounded.
 */
#include <config.h>

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <openssl/err.h>
#include <openssl/ssl.h>

#include "common/crc32c.h"

#define HEADER 64
#define HELLO 1
#define HELLO_OK 2
#define REFUSE 3

static unsigned timeout_ms = 8000;
static SSL *ssl;
static int fd = -1;

static void __attribute__ ((noreturn, format (printf, 1, 2)))
trouble (const char *fmt, ...)
{
  va_list args;

  va_start (args, fmt);
  fprintf (stderr, "badpeer: ");
  vfprintf (stderr, fmt, args);
  fprintf (stderr, "\n");
  va_end (args);
  exit (2);
}

static uint64_t
now_ms (void)
{
  struct timespec ts;

  clock_gettime (CLOCK_MONOTONIC, &ts);
  return (uint64_t) ts.tv_sec * 1000 + (uint64_t) ts.tv_nsec / 1000000;
}

static void
put (uint8_t *p, uint64_t v, unsigned n)
{
  for (unsigned i = 0; i < n; i++)
    p[i] = (uint8_t) (v >> (8 * i));
}

/* A header as nbd-crg-protocol(7) draws it, with a good CRC. */
static void
header (uint8_t *b, unsigned type, uint32_t payload_len)
{
  memset (b, 0, HEADER);
  put (b, 0x4c475243, 4);
  b[4] = 1;
  b[5] = (uint8_t) type;
  put (b + 8, 1, 8); /* tenure */
  put (b + 36, payload_len, 4);
  put (b + 60, crc32c (0, b, 60), 4);
}

/* Sends through TLS if it is up.  The other side may close at any time: that is no trouble. */
static bool
send_all (const void *buf, size_t len)
{
  const uint8_t *p = buf;

  while (len) {
    ssize_t n = ssl ? SSL_write (ssl, p, (int) (len > 16384 ? 16384 : len))
                    : send (fd, p, len, MSG_NOSIGNAL);
    if (n <= 0)
      return false;
    p += n;
    len -= (size_t) n;
  }
  return true;
}

/* Waits until the other side closes, and says what it said before. */
static int
see (const char *what)
{
  uint8_t buf[4096];
  uint64_t begun = now_ms ();
  size_t got = 0;
  int code = 0;
  char said[300] = "";

  for (;;) {
    uint64_t age = now_ms () - begun;
    struct pollfd pfd = { fd, POLLIN, 0 };
    int n;

    if (age >= timeout_ms) {
      printf ("%s: still open after %llu ms%s\n", what, (unsigned long long) age, said);
      return 1;
    }
    if (!(ssl && SSL_pending (ssl)) && poll (&pfd, 1, (int) (timeout_ms - age)) <= 0)
      continue;
    n = ssl ? SSL_read (ssl, buf + got, (int) (sizeof buf - got))
            : (int) recv (fd, buf + got, sizeof buf - got, 0);
    if (n <= 0) {
      unsigned long e = ssl ? ERR_peek_error () : 0;

      if (ssl && SSL_get_error (ssl, n) == SSL_ERROR_WANT_READ)
        continue;
      printf ("%s: closed after %llu ms%s%s%s\n", what, (unsigned long long) (now_ms () - begun),
              said, e ? ", " : "", e ? ERR_reason_error_string (e) : "");
      return code;
    }
    got += (size_t) n;
    /* Frames are looked at only as far as needed: is it REFUSE, or were we let in? */
    if (ssl && got >= HEADER && !said[0]) {
      if (buf[5] == REFUSE) {
        size_t at = HEADER + 4 + 8; /* code, tenure */
        size_t len = got > at + 2 ? buf[at] | (size_t) buf[at + 1] << 8 : 0;

        if (got < at + 2 + len && got < sizeof buf)
          continue;
        snprintf (said, sizeof said, ", refused: %.*s", (int) (len < 250 ? len : 250),
                  (const char *) buf + at + 2);
      }
      else {
        snprintf (said, sizeof said, ", sent a frame of type %u", buf[5]);
        if (buf[5] == HELLO_OK)
          code = 1;
      }
    }
    if (got == sizeof buf)
      got = 0;
  }
}

static void
connect_to (const char *host, const char *port)
{
  struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *ai;
  int r = getaddrinfo (host, port, &hints, &ai);

  if (r)
    trouble ("%s: %s", host, gai_strerror (r));
  fd = socket (ai->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0 || connect (fd, ai->ai_addr, ai->ai_addrlen) < 0)
    trouble ("connect to %s port %s: %s", host, port, strerror (errno));
  freeaddrinfo (ai);
}

static int
start_tls (const char *ca, const char *cert, const char *key)
{
  SSL_CTX *ctx = SSL_CTX_new (TLS_client_method ());
  struct timeval tv = { timeout_ms / 1000, 0 };

  if (!ctx || !SSL_CTX_set_min_proto_version (ctx, TLS1_3_VERSION))
    trouble ("no TLS 1.3");
  if (ca && SSL_CTX_load_verify_locations (ctx, ca, NULL) != 1)
    trouble ("%s is no CA", ca);
  /* Our own checks are off: it is the other side that is tested. */
  if (cert
      && (SSL_CTX_use_certificate_file (ctx, cert, SSL_FILETYPE_PEM) != 1
          || SSL_CTX_use_PrivateKey_file (ctx, key, SSL_FILETYPE_PEM) != 1))
    trouble ("%s and %s don't go together", cert, key);
  ssl = SSL_new (ctx);
  setsockopt (fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
  setsockopt (fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof tv);
  if (!ssl || SSL_set_fd (ssl, fd) != 1)
    trouble ("no TLS");
  ERR_clear_error ();
  return SSL_connect (ssl);
}

int
main (int argc, char **argv)
{
  static const char *const modes[]
    = { "plain", "silent", "tls", "truncated", "oversized", "magic", "crc", "version", "type",
        "garbage", "payload", "stranger", "flood" };
  const char *ca = NULL, *cert = NULL, *key = NULL, *mode;
  uint8_t h[HEADER + 4096];
  bool known = false;

  if (argc < 4)
    trouble ("usage: badpeer MODE HOST PORT [--ca F --cert F --key F] [--timeout MS]");
  for (int i = 4; i + 1 < argc; i += 2) {
    if (strcmp (argv[i], "--ca") == 0)
      ca = argv[i + 1];
    else if (strcmp (argv[i], "--cert") == 0)
      cert = argv[i + 1];
    else if (strcmp (argv[i], "--key") == 0)
      key = argv[i + 1];
    else if (strcmp (argv[i], "--timeout") == 0)
      timeout_ms = (unsigned) atoi (argv[i + 1]);
    else
      trouble ("what is %s?", argv[i]);
  }
  mode = argv[1];
  for (unsigned i = 0; i < sizeof modes / sizeof modes[0]; i++)
    known |= strcmp (mode, modes[i]) == 0;
  if (!known)
    trouble ("no such mode: %s", mode);
  signal (SIGPIPE, SIG_IGN);
  connect_to (argv[2], argv[3]);

  if (strcmp (mode, "silent") == 0)
    return see (mode);
  header (h, HELLO, 0);
  if (strcmp (mode, "plain") == 0) {
    send_all (h, HEADER);
    return see (mode);
  }
  if (start_tls (ca, cert, key) != 1) {
    unsigned long e = ERR_peek_error ();

    printf ("%s: handshake refused%s%s\n", mode, e ? ", " : "",
            e ? ERR_reason_error_string (e) : "");
    return 0;
  }
  /* In TLS 1.3 the client is done before the server has judged its certificate. */
  if (strcmp (mode, "tls") == 0)
    return see (mode);
  if (strcmp (mode, "truncated") == 0) {
    /* Half a header, then the end of the connection, without close_notify. */
    send_all (h, HEADER / 2);
    shutdown (fd, SHUT_WR);
    return see (mode);
  }
  if (strcmp (mode, "payload") == 0) {
    /* A header that promises 512 bytes, 100 of them, and the end. */
    header (h, HELLO, 512);
    memset (h + HEADER, 0, 100);
    send_all (h, HEADER + 100);
    shutdown (fd, SHUT_WR);
    return see (mode);
  }
  if (strcmp (mode, "oversized") == 0) {
    header (h, HELLO, 0x7fffffff);
    send_all (h, HEADER);
    for (unsigned i = 0; i < 4096; i++) { /* 16 MiB of the promised 2 GiB */
      memset (h, 'x', 4096);
      if (!send_all (h, 4096))
        break;
    }
    return see (mode);
  }
  if (strcmp (mode, "magic") == 0) {
    h[0] ^= 1;
    put (h + 60, crc32c (0, h, 60), 4);
  }
  else if (strcmp (mode, "crc") == 0)
    h[61] ^= 0x40;
  else if (strcmp (mode, "version") == 0) {
    h[4] = 99;
    put (h + 60, crc32c (0, h, 60), 4);
  }
  else if (strcmp (mode, "type") == 0)
    header (h, 200, 0);
  else if (strcmp (mode, "garbage") == 0) {
    for (unsigned i = 0; i < HEADER; i++)
      h[i] = (uint8_t) (i * 37 + 11);
  }
  else if (strcmp (mode, "stranger") == 0) {
    /* The shape of a HELLO with nothing in it that the other side knows. */
    header (h, HELLO, 512);
    memset (h + HEADER, 0, 512);
    put (h + HEADER, 1, 2);
    put (h + HEADER + 2, 1, 2);
    send_all (h, HEADER + 512);
    return see (mode);
  }
  else if (strcmp (mode, "flood") == 0) {
    header (h, 10, 0); /* PING, before any HELLO */
    for (unsigned i = 0; i < 100000; i++)
      if (!send_all (h, HEADER))
        break;
    return see (mode);
  }
  send_all (h, HEADER);
  return see (mode);
}
