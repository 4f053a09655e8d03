/* SPDX-License-Identifier: BSD-3-Clause */
/* Frames between hub and member, there and back through a socket, in pieces of any size; and what is no frame:
 * each field of the header wrong, a length beyond the bounds, a name that ends early. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/util.h"
#include "server/hub_frame.h"
#include "tests/tap.h"

static int far; /* the other end of a stream's socket */

static void
open_stream (struct hub_stream *s)
{
  int fds[2];

  if (socketpair (AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) < 0)
    abort ();
  far = fds[1];
  hub_stream_init (s, fds[0]);
}

static void
close_stream (struct hub_stream *s)
{
  hub_stream_close (s);
  close (far);
}

/* A good frame of a name of 4 bytes and a payload of 5. */
static size_t
good (uint8_t *b)
{
  memset (b, 0, HUB_HEADER_LEN);
  put_le32 (b, HUB_MAGIC);
  b[4] = HUB_VERSION;
  b[5] = HUB_MCAST;
  put_le16 (b + 6, 4);
  put_le32 (b + 8, 7);
  put_le32 (b + 12, 5);
  put_le64 (b + 16, 99);
  memcpy (b + HUB_HEADER_LEN, "abcdhello", 9);
  return HUB_HEADER_LEN + 9;
}

/* What comes of these bytes. */
static int
judge (const uint8_t *b, size_t n)
{
  struct hub_stream s;
  struct hub_frame f;
  int r;

  open_stream (&s);
  if (send (far, b, n, 0) != (ssize_t) n || hub_stream_fill (&s) != (int) n)
    abort ();
  r = hub_stream_next (&s, &f);
  close_stream (&s);
  return r;
}

static void
test_refused (void)
{
  static const struct {
    const char *what;
    unsigned at, len;
    uint32_t value;
  } cases[] = {
    { "another magic", 0, 1, 'x' },       { "another version", 4, 1, HUB_VERSION + 1 }, { "type 0", 5, 1, 0 },
    { "a type too high", 5, 1, HUB_TYPE_END }, { "a name too long", 6, 2, CRG_NAME_MAX + 1 },
    { "a payload too long", 12, 4, CRG_ENGINE_MSG_MAX + 1 }, { "the longest payload of all", 12, 4, UINT32_MAX },
    { "a name that ends early", HUB_HEADER_LEN + 2, 1, 0 },
  };
  uint8_t b[100];
  size_t n = good (b);

  is (judge (b, n), 1, "a good frame");
  for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    good (b);
    for (unsigned k = 0; k < cases[i].len; k++)
      b[cases[i].at + k] = (uint8_t) (cases[i].value >> 8 * k);
    is (judge (b, n), -EPROTO, cases[i].what);
  }
  good (b);
  for (size_t i = 1; i < n; i++)
    check (judge (b, i) == 0, "%zu bytes are not all of it", i);
  ok (tap_failed == 0, "less than a frame is waited for");
}

static void
test_there_and_back (void)
{
  static uint8_t big[CRG_ENGINE_MSG_MAX];
  struct hub_frame f = { .type = HUB_DELIVER, .node = 3, .view = 77, .payload = big }, g;
  char name[CRG_NAME_MAX + 2];
  struct hub_stream s, t;
  unsigned got = 0, sent = 0;
  int r = 0;

  for (size_t i = 0; i < sizeof big; i++)
    big[i] = (uint8_t) (i * 7 + i / 256);
  open_stream (&s);
  hub_stream_init (&t, far);
  for (unsigned i = 0; i < 2000 && got < 9; i++) {
    if (sent < 9) {
      static const uint32_t sizes[9] = { 0, 1, 5, 65535, 65536, 65537, 300000, CRG_ENGINE_MSG_MAX, 3 };

      f.len = sizes[sent];
      snprintf (f.group, sizeof f.group, "%.*s", (int) sent, "abcdefghi");
      if (hub_stream_put (&s, &f) != 0)
        break;
      sent++;
    }
    r = hub_stream_flush (&s);
    if (r < 0 || (hub_stream_fill (&t) < 0 && errno != EAGAIN))
      break;
    while ((r = hub_stream_next (&t, &g)) == 1) {
      check (strlen (g.group) == got && g.type == HUB_DELIVER && g.node == 3 && g.view == 77
                 && memcmp (g.payload, big, g.len) == 0, "frame %u", got);
      got++;
    }
    if (r < 0)
      break;
  }
  ok (got == 9 && r == 0, "nine frames of any size arrive whole: %u, %d", got, r);
  is (hub_stream_fill (&t), -EAGAIN, "and nothing else");

  memset (name, 'x', sizeof name - 1);
  name[sizeof name - 1] = '\0';
  f.len = CRG_ENGINE_MSG_MAX + 1;
  is (hub_stream_put (&s, &f), -EMSGSIZE, "a message too long is not sent");
  f.len = CRG_ENGINE_MSG_MAX;
  for (r = 0; r == 0; sent++)
    r = hub_stream_put (&s, &f);
  ok (r == -ENOBUFS && sent > 15 && sent < 40, "who doesn't read is sent no more after %u", sent);
  is (hub_stream_flush (&s), 1, "some is left");
  hub_stream_close (&t); /* with `far` */
  is (hub_stream_flush (&s), -EPIPE, "the other end is gone");
  ok (hub_stream_fill (&s) <= 0, "... and says no more");
  hub_stream_close (&s);
  is (hub_stream_fill (&s), -EBADF, "no stream");
}

/* Whoever takes no frames gets no memory for more. */
static void
test_untaken (void)
{
  static const uint8_t junk[65536];
  struct hub_stream s;
  size_t taken = 0;
  int r = 0;

  open_stream (&s);
  for (unsigned i = 0; i < 100 && r >= 0; i++) {
    if (send (far, junk, sizeof junk, 0) < 0)
      break;
    while ((r = hub_stream_fill (&s)) > 0)
      taken += (size_t) r;
    if (r == -EAGAIN)
      r = 0;
  }
  ok (r == -EMSGSIZE && taken <= 2 * CRG_ENGINE_MSG_MAX, "frames that nobody takes: no more than %zu bytes are held", taken);
  close_stream (&s);
}

int
main (void)
{
  test_refused ();
  test_there_and_back ();
  test_untaken ();
  return tap_done ();
}
