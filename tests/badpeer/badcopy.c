/* SPDX-License-Identifier: BSD-3-Clause */
/* Mirror copies that misbehave, for tests:
 *
 *   badcopy DIR CERT KEY MODE...
 *
 * Each MODE listens on a port of its own (DIR/MODE.port, written when all of them listen) and treats
 * each connection of a production host in its way, one after the other; DIR/MODE.count is how many
 * came.  A thread for each mode; ends when it is killed.
 */
#include <config.h>

#include <arpa/inet.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/util.h"
#include "tests/badpeer/peer.h"

/* Longer than any bound of the other side. */
#define LONG_MS 30000
#define HANDSHAKE_MS 10000

struct conn {
  struct peer p;
  uint64_t tenure; /* of HELLO */
};

static SSL_CTX *tls;
static const char *dir;

/* ---- what a good copy does ----------------------------------------------------------------- */

static bool
hear_hello (struct conn *c)
{
  uint8_t b[WIRE_MAX_CONTROL];
  struct frame f;

  if (peer_next (&c->p, &f, b, sizeof b, HANDSHAKE_MS) != 0 || f.type != WIRE_HELLO)
    return false;
  c->tenure = f.tenure;
  return true;
}

static bool
welcome_as (struct conn *c, uint64_t features, uint16_t flags, int64_t more_tenure, uint32_t window)
{
  struct wire_hello_ok m = { .proto = WIRE_PROTO_MAX, .features = features, .flags = flags, .session = 7,
                             .tenure = c->tenure + (uint64_t) more_tenure, .generation = 1, .since = 1,
                             .window_bytes = LINK_WINDOW_BYTES, .window_frames = LINK_WINDOW_FRAMES, .node = "bad" };
  uint8_t b[WIRE_MAX_CONTROL];
  size_t n = wire_encode_hello_ok (&m, b, sizeof b);

  if (window)
    put_le32 (b + n - 1 - 3 - 8, window); /* window_bytes stands before window_frames and the name */
  return peer_frame (&c->p, &(struct frame){ .type = WIRE_HELLO_OK, .tenure = m.tenure, .payload_len = (uint32_t) n },
                     b);
}

static bool
welcome (struct conn *c)
{
  return hear_hello (c) && welcome_as (c, 0, WIRE_OK_CLEAN, 0, 0);
}

static bool
say (struct conn *c, uint8_t type, uint64_t seq)
{
  return peer_frame (&c->p, &(struct frame){ .type = type, .tenure = c->tenure, .seq = seq }, NULL);
}

/* Takes whatever comes, until the other side ends it. */
static void
swallow (struct conn *c)
{
  struct frame f;

  while (peer_next (&c->p, &f, NULL, 0, LONG_MS) == 0)
    ;
}

/* Holds the connection and reads nothing. */
static void
hang (struct conn *c)
{
  const uint64_t until = peer_now_ms () + LONG_MS;

  while (peer_now_ms () < until && say (c, WIRE_PONG, 0))
    usleep (200000);
}

/* The number of the next operation, or 0. */
static uint64_t
next_operation (struct conn *c)
{
  struct frame f;

  do
    if (peer_next (&c->p, &f, NULL, 0, LONG_MS) != 0)
      return 0;
  while (!wire_type_is_operation (f.type));
  return f.seq;
}

static void tell (const char *mode, const char *what, unsigned value);

/* ---- modes --------------------------------------------------------------------------------- */

static void
hello_silent (struct conn *c)
{
  if (hear_hello (c))
    swallow (c);
}

/* Not even a PONG. */
static void
silent (struct conn *c)
{
  uint8_t byte;

  if (welcome (c))
    while (peer_read (&c->p, &byte, 1, LONG_MS) == 0)
      ;
}

static void
no_read (struct conn *c)
{
  if (welcome (c))
    hang (c);
}

static void
no_ack (struct conn *c)
{
  if (welcome (c))
    swallow (c);
}

static void
map_silent (struct conn *c)
{
  if (hear_hello (c) && welcome_as (c, WIRE_FEATURE_TRACKING, WIRE_OK_CLEAN, 0, 0))
    swallow (c);
}

/* A piece of the map that is longer than what comes of it. */
static void
longer (struct conn *c)
{
  static const uint8_t some[100];

  if (!hear_hello (c) || !welcome_as (c, WIRE_FEATURE_TRACKING, WIRE_OK_CLEAN, 0, 0))
    return;
  peer_frame (&c->p, &(struct frame){ .type = WIRE_MAP, .tenure = c->tenure, .payload_len = WIRE_MAP_BYTES }, NULL);
  peer_send (&c->p, some, sizeof some);
  silent (c);
}

static void
map_again (struct conn *c)
{
  static const uint8_t map[WIRE_MAP_BYTES];

  if (!hear_hello (c) || !welcome_as (c, WIRE_FEATURE_TRACKING, WIRE_OK_CLEAN, 0, 0))
    return;
  while (peer_frame (&c->p, &(struct frame){ .type = WIRE_MAP, .tenure = c->tenure, .payload_len = sizeof map }, map))
    ;
}

/* Good manners, and gone. */
static void
flap (struct conn *c)
{
  if (welcome (c))
    usleep (20000);
}

static void
false_ack (struct conn *c)
{
  uint64_t seq;

  if (welcome (c) && (seq = next_operation (c)) > 0) {
    say (c, WIRE_ACK, seq + 1000);
    swallow (c);
  }
}

static void
early_ack (struct conn *c)
{
  if (hear_hello (c)) {
    say (c, WIRE_ACK, 1);
    swallow (c);
  }
}

/* Each operation is acknowledged, then again, then the one before, then again. */
static void
twice (struct conn *c)
{
  uint64_t seq;

  if (!welcome (c))
    return;
  while ((seq = next_operation (c)) > 0 && say (c, WIRE_ACK, seq) && say (c, WIRE_ACK, seq)
         && say (c, WIRE_ACK, seq - 1) && say (c, WIRE_ACK, seq))
    ;
}

static void
other_tenure (struct conn *c)
{
  uint64_t seq;

  if (welcome (c) && (seq = next_operation (c)) > 0) {
    peer_frame (&c->p, &(struct frame){ .type = WIRE_ACK, .tenure = c->tenure - 1, .seq = seq }, NULL);
    swallow (c);
  }
}

static void
old_tenure (struct conn *c)
{
  if (hear_hello (c) && welcome_as (c, 0, WIRE_OK_CLEAN, -1, 0))
    swallow (c);
}

static void
new_tenure (struct conn *c)
{
  if (hear_hello (c) && welcome_as (c, 0, WIRE_OK_CLEAN, 5, 0))
    swallow (c);
}

static void
fork_ (struct conn *c)
{
  if (hear_hello (c) && welcome_as (c, 0, WIRE_OK_FORK, 0, 0))
    swallow (c);
}

static void
window (struct conn *c)
{
  if (hear_hello (c) && welcome_as (c, 0, WIRE_OK_CLEAN, 0, 1))
    swallow (c);
}

static void
again (struct conn *c)
{
  if (welcome (c) && welcome_as (c, 0, WIRE_OK_CLEAN, 0, 0))
    swallow (c);
}

static void
data (struct conn *c)
{
  static const uint8_t some[4096];

  if (welcome (c)) {
    peer_frame (&c->p, &(struct frame){ .type = WIRE_WRITE, .tenure = c->tenure, .seq = 1, .length = sizeof some,
                                        .payload_len = sizeof some }, some);
    swallow (c);
  }
}

static void
mid_frame (struct conn *c)
{
  uint8_t b[WIRE_HEADER_LEN];

  if (welcome (c)) {
    peer_header (b, &(struct frame){ .type = WIRE_ACK, .tenure = c->tenure, .seq = 1 });
    peer_send (&c->p, b, sizeof b / 2);
  }
}

static void
garbage (struct conn *c)
{
  uint8_t b[4096];

  for (unsigned i = 0; i < sizeof b; i++)
    b[i] = (uint8_t) (i * 37 + 11);
  if (welcome (c)) {
    peer_send (&c->p, b, sizeof b);
    swallow (c);
  }
}

/* A reason that would paint a terminal. */
static void
refuse (struct conn *c)
{
  struct wire_refuse m = { .code = 77, .reason = "\033[31m go \n away\001" };
  uint8_t b[WIRE_MAX_CONTROL];
  size_t n = wire_encode_refuse (&m, b, sizeof b);

  if (hear_hello (c)) {
    peer_frame (&c->p, &(struct frame){ .type = WIRE_REFUSE, .payload_len = (uint32_t) n }, b);
    swallow (c);
  }
}

static void
flood (struct conn *c)
{
  const uint64_t until = peer_now_ms () + 1500;

  if (!welcome (c))
    return;
  for (uint64_t n = 1; peer_now_ms () < until && say (c, WIRE_PING, n) && say (c, WIRE_ACK, 0); n++)
    ;
}

/* Of 64 KiB of zeroes. */
static const uint8_t digest_of_zeroes[WIRE_DIGEST_LEN] = {
  0xde, 0x2f, 0x25, 0x60, 0x64, 0xa0, 0xaf, 0x79, 0x77, 0x47, 0xc2, 0xb9, 0x75, 0x05, 0xdc, 0x0b,
};

/* So many digests, all wrong, or all of zeroes, for what was asked for. */
static void
answer (struct conn *c, const struct frame *asked, uint64_t seq, unsigned n, bool zeroes)
{
  uint8_t b[WIRE_DIGEST_LEN * 64] = { 0 };

  for (unsigned i = 0; i < n && zeroes; i++)
    memcpy (b + i * WIRE_DIGEST_LEN, digest_of_zeroes, WIRE_DIGEST_LEN);
  peer_frame (&c->p, &(struct frame){ .type = WIRE_DIGEST, .tenure = c->tenure, .seq = seq, .offset = asked->offset,
                                      .length = asked->length, .payload_len = n * WIRE_DIGEST_LEN }, b);
}

/* Digests that nobody asked for, which would be right for zeroes; to each question wrong ones: as many as asked for,
 * and the same again, as if one half of them were the other side's; or too few, and too many.  All else as a good
 * copy does it. */
static void
answer_wrongly (struct conn *c, const char *mode, bool as_many)
{
  const uint64_t nobodys = 1000000; /* no question has such a number, here */
  struct frame f = { .length = 1 << 20 };
  unsigned asked = 0;

  if (!hear_hello (c) || !welcome_as (c, WIRE_FEATURE_DIGEST, WIRE_OK_CLEAN, 0, 0))
    return;
  for (unsigned i = 0; i < 300; i++)
    answer (c, &f, nobodys + i, 16, true);
  while (peer_next (&c->p, &f, NULL, 0, LONG_MS) == 0) {
    const unsigned n = MIN ((f.length + 65535) / 65536, 63u);

    if (f.type == WIRE_DIGEST_REQ) {
      answer (c, &f, f.seq + nobodys, n, true);
      for (unsigned i = 0; i < 3 && as_many; i++)
        answer (c, &f, f.seq, n, false);
      answer (c, &f, f.seq, 1, false);
      answer (c, &f, f.seq, n + 1, true);
      tell (mode, "asked", ++asked);
    }
    else if (f.type == WIRE_PING)
      say (c, WIRE_PONG, f.seq);
    else if (wire_type_is_operation (f.type))
      say (c, WIRE_ACK, f.seq);
  }
}

static void
digests (struct conn *c)
{
  answer_wrongly (c, "digests", true);
}

static void
digests_short (struct conn *c)
{
  answer_wrongly (c, "digests-short", false);
}

static const struct mode {
  const char *name;
  void (*run) (struct conn *c);
} modes[] = {
  { "tcp-silent", NULL }, { "hello-silent", hello_silent }, { "silent", silent }, { "no-read", no_read },
  { "no-ack", no_ack }, { "map-silent", map_silent }, { "longer", longer }, { "map-again", map_again },
  { "flap", flap }, { "false-ack", false_ack }, { "early-ack", early_ack }, { "twice", twice },
  { "other-tenure", other_tenure }, { "old-tenure", old_tenure }, { "new-tenure", new_tenure }, { "fork", fork_ },
  { "window", window }, { "again", again }, { "data", data }, { "mid-frame", mid_frame }, { "garbage", garbage },
  { "refuse", refuse }, { "flood", flood }, { "digests", digests },
  { "digests-short", digests_short },
};

/* ---- listening ----------------------------------------------------------------------------- */

struct listener {
  const struct mode *mode;
  int fd;
};

static void
tell (const char *mode, const char *what, unsigned value)
{
  char path[1024], whole[1024];
  FILE *f;

  snprintf (whole, sizeof whole, "%s/%s.%s", dir, mode, what);
  snprintf (path, sizeof path, "%s/%s.%s.new", dir, mode, what);
  f = fopen (path, "we");
  if (!f || fprintf (f, "%u\n", value) < 0 || fclose (f) != 0 || rename (path, whole) < 0)
    peer_trouble ("%s: %s", path, strerror (errno));
}

static void *
serve (void *opaque)
{
  const struct listener *l = opaque;

  for (unsigned n = 1;; n++) {
    struct conn c = { .p = { .fd = accept (l->fd, NULL, NULL) } };
    uint8_t byte;

    if (c.p.fd < 0)
      peer_trouble ("accept: %s", strerror (errno));
    tell (l->mode->name, "count", n);
    if (!l->mode->run) {
      while (recv (c.p.fd, &byte, 1, 0) > 0)
        ;
    }
    else if (peer_handshake (&c.p, tls, true, HANDSHAKE_MS) == 1)
      l->mode->run (&c);
    peer_close (&c.p);
  }
  return NULL;
}

int
main (int argc, char **argv)
{
  static struct listener l[ARRAY_SIZE (modes)];
  unsigned n = 0;

  if (argc < 5)
    peer_trouble ("usage: badcopy DIR CERT KEY MODE...");
  signal (SIGPIPE, SIG_IGN);
  dir = argv[1];
  tls = peer_tls (true, NULL, argv[2], argv[3]);
  for (int i = 4; i < argc; i++) {
    struct sockaddr_in sa = { .sin_family = AF_INET, .sin_addr.s_addr = htonl (INADDR_LOOPBACK) };

    if (n == ARRAY_SIZE (modes))
      peer_trouble ("too many modes");
    for (unsigned k = 0; k < ARRAY_SIZE (modes); k++)
      if (strcmp (argv[i], modes[k].name) == 0)
        l[n].mode = &modes[k];
    if (!l[n].mode)
      peer_trouble ("no such mode: %s", argv[i]);
    l[n].fd = socket (AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (l[n].fd < 0 || bind (l[n].fd, (struct sockaddr *) &sa, sizeof sa) < 0 || listen (l[n].fd, 8) < 0)
      peer_trouble ("listen: %s", strerror (errno));
    n++;
  }
  for (unsigned i = 0; i < n; i++) {
    struct sockaddr_in sa;
    socklen_t len = sizeof sa;
    pthread_t t;

    if (pthread_create (&t, NULL, serve, &l[i]) != 0 || getsockname (l[i].fd, (struct sockaddr *) &sa, &len) < 0)
      peer_trouble ("no thread");
    tell (l[i].mode->name, "port", ntohs (sa.sin_port));
  }
  for (;;)
    pause ();
}
