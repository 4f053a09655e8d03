/* SPDX-License-Identifier: BSD-3-Clause */
/* Connections of the mirror port without their TLS, which is a stub here that is up at once and reads what the test
 * gives it: a place is free only when nothing of the connection before is under way; a link that was paused is no
 * silent one.
 */
#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/limits.h"
#include "common/util.h"
#include "plugin/mlink.h"
#include "plugin/ring.h"
#include "tests/tap.h"

/* ---- TLS ---------------------------------------------------------------------------------- */

struct tlslink {
  uint8_t in[64];
};
static const uint8_t *plain; /* what tlslink_read gives */
static size_t plain_len;

struct tlslink *
tlslink_new (struct tlslink_ctx *ctx, bool is_server, const char *const *names, unsigned n, size_t out_bytes)
{
  return calloc (1, sizeof (struct tlslink));
}

void
tlslink_free (struct tlslink *l)
{
  free (l);
}

enum tlslink_state
tlslink_drive (struct tlslink *l)
{
  return TL_UP;
}

enum tlslink_state
tlslink_get_state (const struct tlslink *l)
{
  return TL_UP;
}

const char *
tlslink_reason (const struct tlslink *l)
{
  return "";
}

size_t
tlslink_in_space (struct tlslink *l, uint8_t **buf)
{
  *buf = l->in;
  return sizeof l->in;
}

void
tlslink_in_commit (struct tlslink *l, size_t len)
{
}

void
tlslink_in_eof (struct tlslink *l)
{
}

size_t
tlslink_out_data (struct tlslink *l, const uint8_t **buf)
{
  return 0;
}

void
tlslink_out_consume (struct tlslink *l, size_t len)
{
}

size_t
tlslink_out_pending (const struct tlslink *l)
{
  return 0;
}

size_t
tlslink_out_room (const struct tlslink *l)
{
  return 65536;
}

ssize_t
tlslink_write (struct tlslink *l, const void *buf, size_t len)
{
  return (ssize_t) len;
}

int
tlslink_flush (struct tlslink *l)
{
  return 0;
}

ssize_t
tlslink_read (struct tlslink *l, void *buf, size_t len)
{
  const size_t n = MIN (len, plain_len);

  if (n > 0)
    memcpy (buf, plain, n);
  plain += n;
  plain_len -= n;
  return (ssize_t) n;
}

void
tlslink_close (struct tlslink *l)
{
}

/* ---- the owner ---------------------------------------------------------------------------- */

static uint8_t room[4096];
static bool has_room;
static unsigned n_closed;

static void
link_up (struct mlink *l)
{
  l->spoken = true;
}

static uint8_t *
link_payload (struct mlink *l, const struct wire_header *h)
{
  return has_room ? room : NULL;
}

static void
link_frame (struct mlink *l, const struct wire_header *h, uint8_t *payload)
{
}

static void
link_room (struct mlink *l)
{
}

static void
link_closed (struct mlink *l, const char *reason)
{
  printf ("# closed: %s\n", reason);
  n_closed++;
}

static const struct mlink_ops ops = {
  .up = link_up,
  .payload = link_payload,
  .frame = link_frame,
  .room = link_room,
  .closed = link_closed,
};

static struct ring ring;
static struct mlink l;

/* A connection that has come; returns the peer's end. */
static int
accepted (uint64_t now_ms)
{
  const char *name = "p1";
  int sv[2];

  if (socketpair (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) == -1 || ring_set_file (&ring, l.index, sv[0]) < 0)
    abort ();
  close (sv[0]);
  l.state = LK_ACCEPTING;
  l.addr_len = 0;
  is (mlink_accepted (&l, NULL, &name, 1, 65536, now_ms), 0, "accepted");
  is (l.state, LK_UP, "and up");
  return sv[1];
}

static void
rounds (unsigned n)
{
  for (unsigned i = 0; i < n; i++) {
    ring_wait (&ring, 20);
    ring_reap (&ring, 16);
  }
}

/* It is closed while its receive has ended and nobody has seen that yet: the shutdown is still to be submitted. */
static void
next_in_place (void)
{
  int peer = accepted (0), next = -1;
  char c;

  if (write (peer, "x", 1) != 1)
    abort ();
  ring_wait (&ring, 1000);
  ok (ring_has_completions (&ring), "something was received");
  mlink_close (&l, "by the test");
  for (unsigned i = 0; i < 10 && next == -1; i++) {
    ring_reap (&ring, 16);
    if (l.state == LK_FREE)
      next = accepted (0);
    else
      ring_wait (&ring, 100);
  }
  ok (next != -1, "the place is free again");
  rounds (3);
  ok (recv (next, &c, 1, MSG_DONTWAIT) == -1 && errno == EAGAIN, "the next connection there is not shut down");
  is (n_closed, 1, "one was closed");
  mlink_close (&l, "by the test");
  rounds (3);
  is (l.state, LK_FREE, "free");
  close (peer);
  close (next);
}

static void
paused (void)
{
  const struct wire_header h = { .type = WIRE_WRITE, .tenure = 1, .seq = 1, .length = sizeof room,
                                 .payload_len = sizeof room };
  const uint64_t later = 10 * LINK_DEAD_MS;
  uint8_t header[WIRE_HEADER_LEN];
  int peer = accepted (1000);

  n_closed = 0;
  wire_encode_header (&h, header);
  plain = header;
  plain_len = sizeof header;
  mlink_resume (&l, 1000);
  ok (l.paused, "no room for a payload: paused");
  mlink_tick (&l, later);
  is (l.state, LK_UP, "nobody expects to hear anything then");
  has_room = true;
  mlink_resume (&l, later);
  ok (!l.paused, "room again");
  mlink_tick (&l, later + 1);
  is (l.state, LK_UP, "and time to hear something");
  mlink_tick (&l, later + LINK_DEAD_MS + 1);
  is (n_closed, 1, "but no more than always");
  rounds (3);
  is (l.state, LK_FREE, "free");
  close (peer);
}

int
main (void)
{
  if (ring_init (&ring) < 0)
    return 1;
  mlink_init (&l, &ring, 0, &ops, NULL);
  next_in_place ();
  paused ();
  ring_exit (&ring);
  return tap_done ();
}
