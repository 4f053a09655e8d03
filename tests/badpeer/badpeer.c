/* SPDX-License-Identifier: BSD-3-Clause */
/* A production host that misbehaves on the mirror port, for tests:
 *
 *   badpeer MODE HOST PORT [--ca FILE --cert FILE --key FILE] [--timeout MS]
 *           [--node NAME] [--tenure N] [--site N] [--peer-site N] [--lineage BYTE] [--size BYTES]
 *
 * It connects as a production host would, does one thing wrong, and waits for what the other side
 * does about it.  Modes of the second kind say a good HELLO first, with the ids of
 * tests/pair-functions.sh, and go wrong when they are let in; "in" does nothing wrong then.  Exit 0:
 * the other side closed (or refused and closed) in time, and gave away nothing that only a good peer
 * gets; 1: it accepted us, or still holds the connection; 2: the trouble is ours.  The last line says
 * what was seen.
 */
#include <config.h>

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <openssl/err.h>

#include "common/util.h"
#include "tests/badpeer/peer.h"

static unsigned timeout_ms = 8000;
static struct peer p = { .fd = -1 };
static struct wire_hello hello = {
  .proto_min = WIRE_PROTO_MIN, .proto_max = WIRE_PROTO_MAX, .session = 1, .generation = 1,
  .size = 64 << 20, .block_size = 4096, .dirty_block_size = 65536, .peer_site = 1,
  .crg = "wages", .iasp = "payroll", .node = "n0",
};
static uint64_t tenure = 1;

/* Waits until the other side closes, and says what it said before.  'in': we had been let in. */
static int
see (const char *what, bool in)
{
  const uint64_t begun = peer_now_ms ();
  char said[300] = "";
  uint8_t payload[WIRE_MAX_CONTROL];
  struct wire_failure failure;
  struct wire_refuse refuse;
  struct frame f;
  int code = 0, r;

  for (;;) {
    const uint64_t age = peer_now_ms () - begun;

    if (p.ssl)
      r = age < timeout_ms ? peer_next (&p, &f, payload, sizeof payload, (unsigned) (timeout_ms - age)) : 1;
    else {
      struct pollfd pfd = { p.fd, POLLIN, 0 };

      r = 1;
      if (age < timeout_ms && poll (&pfd, 1, (int) (timeout_ms - age)) > 0)
        r = recv (p.fd, payload, 1, 0) <= 0 ? -1 : 0;
      f.type = 0;
    }
    if (r > 0) {
      printf ("%s: still open after %llu ms%s\n", what, (unsigned long long) (peer_now_ms () - begun), said);
      return 1;
    }
    if (r < 0) {
      unsigned long e = p.ssl ? ERR_peek_error () : 0;

      printf ("%s: closed after %llu ms%s%s%s\n", what, (unsigned long long) (peer_now_ms () - begun), said,
              e ? ", " : "", e ? ERR_reason_error_string (e) : "");
      return code;
    }
    if (f.type == WIRE_REFUSE && wire_decode_refuse (payload, f.payload_len, &refuse) == WIRE_OK)
      snprintf (said, sizeof said, ", refused: %s", refuse.reason);
    else if (f.type == WIRE_ERROR && wire_decode_failure (payload, f.payload_len, &failure) == WIRE_OK)
      snprintf (said, sizeof said, ", error: %s", failure.reason);
    else if (f.type == WIRE_HELLO_OK && !in)
      code = 1;
    else if (f.type == WIRE_ACK && in)
      snprintf (said, sizeof said, ", acknowledged %llu", (unsigned long long) f.seq);
  }
}

/* ---- before HELLO -------------------------------------------------------------------------- */

static int
nothing (const char *mode)
{
  return see (mode, false);
}

static int
raw (const char *mode, const struct frame *f, size_t n)
{
  uint8_t b[WIRE_HEADER_LEN + 4096] = { 0 };

  peer_header (b, f);
  peer_send (&p, b, n);
  return see (mode, false);
}

/* Half a header, then the end of the connection, without close_notify. */
static int
truncated (const char *mode)
{
  uint8_t b[WIRE_HEADER_LEN];

  peer_header (b, &(struct frame){ .type = WIRE_HELLO, .tenure = 1 });
  peer_send (&p, b, sizeof b / 2);
  shutdown (p.fd, SHUT_WR);
  return see (mode, false);
}

/* A header that promises 512 bytes, 100 of them, and the end. */
static int
payload (const char *mode)
{
  uint8_t b[WIRE_HEADER_LEN + 100] = { 0 };

  peer_header (b, &(struct frame){ .type = WIRE_HELLO, .tenure = 1, .payload_len = 512 });
  peer_send (&p, b, sizeof b);
  shutdown (p.fd, SHUT_WR);
  return see (mode, false);
}

/* 16 MiB of promised 2 GiB. */
static int
oversized (const char *mode)
{
  static const uint8_t junk[4096];

  peer_frame (&p, &(struct frame){ .type = WIRE_HELLO, .tenure = 1, .payload_len = 0x7fffffff }, NULL);
  for (unsigned i = 0; i < 4096 && peer_send (&p, junk, sizeof junk); i++)
    ;
  return see (mode, false);
}

/* A header with one thing wrong. */
static int
header (const char *mode)
{
  struct frame f = { .type = strcmp (mode, "type") == 0 ? 200 : WIRE_HELLO, .tenure = 1,
                     .version = strcmp (mode, "version") == 0 ? 99 : 0 };
  uint8_t b[WIRE_HEADER_LEN];

  peer_header (b, &f);
  if (strcmp (mode, "magic") == 0)
    b[0] ^= 1;
  else if (strcmp (mode, "crc") == 0)
    b[61] ^= 0x40;
  for (unsigned i = 0; i < sizeof b && strcmp (mode, "garbage") == 0; i++)
    b[i] = (uint8_t) (i * 37 + 11);
  peer_send (&p, b, sizeof b);
  return see (mode, false);
}

/* The shape of a HELLO with nothing in it that the other side knows. */
static int
stranger (const char *mode)
{
  uint8_t b[512] = { 1, 0, 1, 0 };

  peer_frame (&p, &(struct frame){ .type = WIRE_HELLO, .tenure = 1, .payload_len = sizeof b }, b);
  return see (mode, false);
}

static int
flood (const char *mode)
{
  for (unsigned i = 0; i < 100000; i++)
    if (!peer_frame (&p, &(struct frame){ .type = WIRE_PING, .tenure = 1 }, NULL))
      break;
  return see (mode, false);
}

static int
data_first (const char *mode)
{
  const struct frame f = { .type = WIRE_WRITE, .tenure = tenure, .seq = 1, .length = 4096, .payload_len = 4096 };

  return raw (mode, &f, WIRE_HEADER_LEN + 4096);
}

/* ---- HELLO --------------------------------------------------------------------------------- */

static void
say_hello (void)
{
  uint8_t b[WIRE_MAX_CONTROL];
  size_t n;

  hello.tenure = tenure;
  n = wire_encode_hello (&hello, b, sizeof b);
  peer_frame (&p, &(struct frame){ .type = WIRE_HELLO, .tenure = tenure, .payload_len = (uint32_t) n }, b);
}

/* A good HELLO; what is wrong with it are the options. */
static int
hello_alone (const char *mode)
{
  say_hello ();
  return see (mode, false);
}

static void
let_in (const char *mode)
{
  uint8_t b[WIRE_MAX_CONTROL];
  struct wire_refuse refuse = { 0 };
  struct frame f;
  int r;

  say_hello ();
  r = peer_next (&p, &f, b, sizeof b, timeout_ms);
  if (r == 0 && f.type == WIRE_HELLO_OK)
    return;
  if (r == 0 && f.type == WIRE_REFUSE)
    wire_decode_refuse (b, f.payload_len, &refuse);
  peer_trouble ("%s: not let in: %s", mode, r ? "no answer" : refuse.reason);
}

static void
op (uint8_t type, uint64_t seq, uint64_t t, uint64_t offset, uint32_t length)
{
  uint8_t b[65536];

  memset (b, 'x', sizeof b);
  peer_frame (&p, &(struct frame){ .type = type, .tenure = t, .seq = seq, .offset = offset, .length = length,
                                   .payload_len = type == WIRE_WRITE ? length : 0 }, type == WIRE_WRITE ? b : NULL);
}

static int
in (const char *mode)
{
  let_in (mode);
  op (WIRE_WRITE, 1, tenure, 0, 4096);
  return see (mode, true);
}

static int
hello_again (const char *mode)
{
  let_in (mode);
  say_hello ();
  return see (mode, true);
}

static int
gap (const char *mode)
{
  let_in (mode);
  op (WIRE_WRITE, 3, tenure, 1 << 20, 4096);
  return see (mode, true);
}

static int
twice (const char *mode)
{
  let_in (mode);
  op (WIRE_WRITE, 1, tenure, 0, 4096);
  op (WIRE_WRITE, 1, tenure, 1 << 20, 4096);
  return see (mode, true);
}

static int
beyond (const char *mode)
{
  let_in (mode);
  op (WIRE_ZERO, 1, tenure, hello.size - 4096, 1 << 20);
  return see (mode, true);
}

static int
other_tenure (const char *mode)
{
  let_in (mode);
  op (WIRE_WRITE, 1, tenure + 1, 1 << 20, 4096);
  return see (mode, true);
}

static int
other_length (const char *mode)
{
  let_in (mode);
  peer_frame (&p, &(struct frame){ .type = WIRE_WRITE, .tenure = tenure, .seq = 1, .offset = 1 << 20, .length = 65536,
                                   .payload_len = 4096 }, NULL);
  return see (mode, true);
}

static int
ack (const char *mode)
{
  let_in (mode);
  peer_frame (&p, &(struct frame){ .type = WIRE_ACK, .tenure = tenure, .seq = 1 }, NULL);
  return see (mode, true);
}

/* Of the record of another tenure than the frame's. */
static int
record (const char *mode)
{
  struct wire_record m = { .tenure = tenure + 1, .generation = 9, .in_set = 3 };
  uint8_t b[WIRE_MAX_CONTROL];
  size_t n = wire_encode_record (&m, b, sizeof b);

  let_in (mode);
  peer_frame (&p, &(struct frame){ .type = WIRE_RECORD, .tenure = tenure, .payload_len = (uint32_t) n }, b);
  return see (mode, true);
}

/* A write that is begun, and a connection that ends, or says nothing more, in the middle of it. */
static int
mid_frame (const char *mode)
{
  static const uint8_t some[100] = { 'x' };
  const uint64_t begun = peer_now_ms (), until = begun + timeout_ms;
  uint8_t byte;
  int r;

  let_in (mode);
  peer_frame (&p, &(struct frame){ .type = WIRE_WRITE, .tenure = tenure, .seq = 1, .offset = 1 << 20, .length = 65536,
                                   .payload_len = 65536 }, NULL);
  peer_send (&p, some, sizeof some);
  if (strcmp (mode, "mid-frame") == 0) {
    shutdown (p.fd, SHUT_WR);
    return see (mode, true);
  }
  do
    r = peer_read (&p, &byte, 1, (unsigned) (until - MIN (peer_now_ms (), until)));
  while (r == 0);
  printf ("%s: %s after %llu ms\n", mode, r < 0 ? "closed" : "still open", (unsigned long long) (peer_now_ms () - begun));
  return r > 0;
}

/* Nothing is read: neither answers nor PINGs. */
static int
ping_flood (const char *mode)
{
  const uint64_t until = peer_now_ms () + 1000;
  unsigned n = 0;

  let_in (mode);
  while (peer_now_ms () < until
         && peer_frame (&p, &(struct frame){ .type = WIRE_PING, .tenure = tenure, .seq = ++n }, NULL))
    ;
  printf ("%s: %u PINGs\n", mode, n);
  return 0;
}

static void
ask_digests (uint64_t seq, uint64_t offset, uint32_t length, uint32_t block_size)
{
  struct wire_digest_req m = { .algorithm = WIRE_DIGEST_SHA256, .block_size = block_size };
  uint8_t b[WIRE_MAX_CONTROL];
  size_t n = wire_encode_digest_req (&m, b, sizeof b);

  peer_frame (&p, &(struct frame){ .type = WIRE_DIGEST_REQ, .tenure = tenure, .seq = seq, .offset = offset,
                                   .length = length, .payload_len = (uint32_t) n }, b);
}

static int
digests_beyond (const char *mode)
{
  let_in (mode);
  ask_digests (1, hello.size - 65536, 1 << 20, 65536);
  return see (mode, true);
}

/* 1,024 of them in one answer. */
static int
digests_many (const char *mode)
{
  let_in (mode);
  ask_digests (1, 0, 4 << 20, 4096);
  return see (mode, true);
}

/* More questions than anybody can work at, and no answer is read as long as they are asked.  None is answered
 * twice, or otherwise than the first one, as all ask for the same. */
static int
digests_flood (const char *mode)
{
  static uint8_t first[16 * WIRE_DIGEST_LEN], payload[WIRE_MAX_CONTROL];
  static bool answered[20001];
  const uint64_t until = peer_now_ms () + 500;
  unsigned n = 0, answers = 0;
  struct frame f;

  let_in (mode);
  while (peer_now_ms () < until && n < 20000)
    ask_digests (++n, 0, 1 << 20, 65536);
  while (peer_next (&p, &f, payload, sizeof payload, 1000) == 0) {
    if (f.type != WIRE_DIGEST)
      continue;
    if (answers++ == 0)
      memcpy (first, payload, sizeof first);
    if (f.seq < 1 || f.seq > n || answered[f.seq] || f.payload_len != sizeof first
        || memcmp (first, payload, sizeof first) != 0) {
      printf ("%s: %u questions, a wrong answer no %u, to question %llu\n", mode, n, answers, (unsigned long long) f.seq);
      return 1;
    }
    answered[f.seq] = true;
  }
  printf ("%s: %u questions, %u answers\n", mode, n, answers);
  return answers == 0;
}

static const struct mode {
  const char *name;
  int (*run) (const char *mode);
} modes[] = {
  { "plain", nothing }, { "silent", nothing }, { "tls", nothing }, { "truncated", truncated }, { "oversized", oversized },
  { "magic", header }, { "crc", header }, { "version", header }, { "type", header }, { "garbage", header },
  { "payload", payload }, { "stranger", stranger }, { "flood", flood }, { "data-first", data_first },
  { "hello", hello_alone }, { "in", in }, { "hello-again", hello_again }, { "gap", gap }, { "twice", twice },
  { "beyond", beyond }, { "other-tenure", other_tenure }, { "other-length", other_length }, { "ack", ack },
  { "record", record }, { "mid-frame", mid_frame }, { "longer", mid_frame }, { "ping-flood", ping_flood },
  { "digests-beyond", digests_beyond }, { "digests-many", digests_many }, { "digests-flood", digests_flood },
};

int
main (int argc, char **argv)
{
  const char *ca = NULL, *cert = NULL, *key = NULL;
  const struct mode *m = NULL;

  if (argc < 4)
    peer_trouble ("usage: badpeer MODE HOST PORT [--ca F --cert F --key F] [--timeout MS] ...");
  memset (hello.cluster_id, 0x11, CRG_ID_LEN);
  memset (hello.crg_id, 0x22, CRG_ID_LEN);
  memset (hello.iasp_id, 0x33, CRG_ID_LEN);
  memset (hello.lineage, 0x44, CRG_ID_LEN);
  for (int i = 4; i + 1 < argc; i += 2) {
    const char *o = argv[i], *v = argv[i + 1];

    if (strcmp (o, "--ca") == 0)
      ca = v;
    else if (strcmp (o, "--cert") == 0)
      cert = v;
    else if (strcmp (o, "--key") == 0)
      key = v;
    else if (strcmp (o, "--timeout") == 0)
      timeout_ms = (unsigned) atoi (v);
    else if (strcmp (o, "--node") == 0)
      snprintf (hello.node, sizeof hello.node, "%s", v);
    else if (strcmp (o, "--tenure") == 0)
      tenure = strtoull (v, NULL, 0);
    else if (strcmp (o, "--site") == 0)
      hello.site = (uint8_t) atoi (v);
    else if (strcmp (o, "--peer-site") == 0)
      hello.peer_site = (uint8_t) atoi (v);
    else if (strcmp (o, "--lineage") == 0)
      memset (hello.lineage, atoi (v), CRG_ID_LEN);
    else if (strcmp (o, "--size") == 0)
      hello.size = strtoull (v, NULL, 0);
    else
      peer_trouble ("what is %s?", o);
  }
  for (unsigned i = 0; i < ARRAY_SIZE (modes); i++)
    if (strcmp (argv[1], modes[i].name) == 0)
      m = &modes[i];
  if (!m)
    peer_trouble ("no such mode: %s", argv[1]);
  signal (SIGPIPE, SIG_IGN);
  p.fd = peer_connect (argv[2], argv[3]);

  if (strcmp (m->name, "silent") == 0)
    return nothing (m->name);
  if (strcmp (m->name, "plain") == 0)
    return raw (m->name, &(struct frame){ .type = WIRE_HELLO, .tenure = 1 }, WIRE_HEADER_LEN);
  if (peer_handshake (&p, peer_tls (false, ca, cert, key), false, timeout_ms) != 1) {
    unsigned long e = ERR_peek_error ();

    printf ("%s: handshake refused%s%s\n", m->name, e ? ", " : "", e ? ERR_reason_error_string (e) : "");
    return 0;
  }
  /* In TLS 1.3 the client is done before the server has judged its certificate. */
  return m->run (m->name);
}
