/* SPDX-License-Identifier: BSD-3-Clause */
/* Connections of the mirror port and their frames; see mlink.h.
 */
#include "config.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/util.h"
#include "plugin/mlink.h"

/* Kept back of the out buffer for HELLO, ENTER, RECORD, PING, PONG, BYE and REFUSE. */
#define CONTROL_ROOM (16 * 1024)

static void connect_done (struct ring_op *op, int res);
static void recv_done (struct ring_op *op, int res);
static void send_done (struct ring_op *op, int res);
static void other_done (struct ring_op *op, int res);

const char *
mlink_state_name (unsigned state)
{
  static const char *const names[] = { "free", "accepting", "connecting", "handshake", "up", "finishing", "closing" };

  return state < ARRAY_SIZE (names) ? names[state] : "?";
}

void
mlink_init (struct mlink *l, struct ring *ring, unsigned index, const struct mlink_ops *ops, void *owner)
{
  memset (l, 0, sizeof *l);
  l->ring = ring;
  l->index = index;
  l->ops = ops;
  l->owner = owner;
  l->connect_op.done = connect_done;
  l->recv_op.done = recv_done;
  l->send_op.done = send_done;
  l->other_op.done = other_done;
}

static struct io_uring_sqe *
link_sqe (struct mlink *l, struct ring_op *op)
{
  struct io_uring_sqe *sqe = ring_sqe (l->ring);

  ring_own (l->ring, sqe, op);
  return sqe;
}

static void
reset_stream (struct mlink *l, uint64_t now_ms)
{
  l->header_have = 0;
  l->payload = NULL;
  l->payload_have = 0;
  l->paused = false;
  l->spoken = false;
  l->told = false;
  l->ping_seq = 0;
  l->opened_ms = l->heard_ms = l->pinged_ms = now_ms;
}

int
mlink_connect (struct mlink *l, const char *address, uint16_t port, struct tlslink_ctx *ctx, const char *name,
               size_t out_bytes, uint64_t now_ms)
{
  struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV };
  struct addrinfo *ai;
  char service[8];
  int fd, one = 1, r;
  struct io_uring_sqe *sqe;

  snprintf (service, sizeof service, "%u", port);
  snprintf (l->where, sizeof l->where, "%s:%u", address, port);
  if (getaddrinfo (address, service, &hints, &ai) != 0)
    return -EADDRNOTAVAIL;
  memcpy (&l->addr, ai->ai_addr, ai->ai_addrlen);
  l->addr_len = ai->ai_addrlen;
  freeaddrinfo (ai);

  l->tls = tlslink_new (ctx, false, &name, 1, out_bytes);
  if (!l->tls)
    return -ENOMEM;
  /* Made as an ordinary descriptor only to set its options; a host that loses track of its own
   * descriptors can't hit the direct one. */
  fd = socket (l->addr.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  r = fd == -1 ? -errno : 0;
  if (r == 0) {
    setsockopt (fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    r = ring_set_file (l->ring, l->index, fd);
    close (fd);
  }
  if (r < 0) {
    tlslink_free (l->tls);
    l->tls = NULL;
    return r;
  }
  l->is_server = false;
  reset_stream (l, now_ms);
  l->state = LK_CONNECTING;
  l->connect_busy = true;
  sqe = link_sqe (l, &l->connect_op);
  io_uring_prep_connect (sqe, (int) l->index, (struct sockaddr *) &l->addr, l->addr_len);
  sqe->flags |= IOSQE_FIXED_FILE;
  return 0;
}

int
mlink_accepted (struct mlink *l, struct tlslink_ctx *ctx, const char *const *names, unsigned n, size_t out_bytes,
                uint64_t now_ms)
{
  char host[CRG_ADDR_MAX + 1] = "?";

  getnameinfo ((struct sockaddr *) &l->addr, l->addr_len, host, sizeof host, NULL, 0, NI_NUMERICHOST);
  snprintf (l->where, sizeof l->where, "%s", host);
  l->tls = tlslink_new (ctx, true, names, n, out_bytes);
  if (!l->tls) {
    ring_set_file (l->ring, l->index, -1);
    l->state = LK_FREE;
    return -ENOMEM;
  }
  l->is_server = true;
  reset_stream (l, now_ms);
  l->state = LK_TLS;
  mlink_resume (l, now_ms);
  return 0;
}

/* ---- closing ------------------------------------------------------------------------------ */

static void
check_closed (struct mlink *l)
{
  if (l->state != LK_CLOSING || l->connect_busy || l->recv_busy || l->send_busy || l->other_busy)
    return;
  ring_set_file (l->ring, l->index, -1);
  tlslink_free (l->tls);
  l->tls = NULL;
  l->state = LK_FREE;
}

void
mlink_close (struct mlink *l, const char *reason)
{
  struct io_uring_sqe *sqe;

  if (l->state == LK_FREE || l->state == LK_ACCEPTING || l->state == LK_CLOSING)
    return;
  l->state = LK_CLOSING;
  /* Until it is done it would hit whatever comes into this place. */
  l->other_busy = l->connect_busy || l->recv_busy || l->send_busy;
  if (l->connect_busy) {
    sqe = ring_sqe (l->ring);
    io_uring_prep_cancel (sqe, &l->connect_op, 0);
    io_uring_sqe_set_data (sqe, &l->other_op);
    l->ring->pending++;
  }
  else if (l->other_busy) {
    sqe = link_sqe (l, &l->other_op);
    io_uring_prep_shutdown (sqe, (int) l->index, SHUT_RDWR);
    sqe->flags |= IOSQE_FIXED_FILE;
  }
  if (!l->told) {
    l->told = true;
    l->ops->closed (l, reason);
  }
  check_closed (l);
}

static void
other_done (struct ring_op *op, int res)
{
  struct mlink *l = container_of (op, struct mlink, other_op);

  l->other_busy = false;
  check_closed (l);
}

void
mlink_finish (struct mlink *l, uint64_t now_ms)
{
  if (l->state != LK_UP && l->state != LK_TLS) {
    mlink_close (l, "closed");
    return;
  }
  tlslink_close (l->tls);
  l->state = LK_FINISHING;
  l->finish_ms = now_ms;
  mlink_flush (l);
}

/* ---- out ---------------------------------------------------------------------------------- */

size_t
mlink_room (const struct mlink *l)
{
  size_t room = l->state == LK_UP ? tlslink_out_room (l->tls) : 0;

  return room > CONTROL_ROOM ? room - CONTROL_ROOM : 0;
}

int
mlink_send (struct mlink *l, const struct wire_header *h, const void *payload)
{
  uint8_t header[WIRE_HEADER_LEN];

  if (l->state != LK_UP)
    return -EPIPE;
  if (tlslink_out_room (l->tls) < WIRE_HEADER_LEN + (size_t) h->payload_len)
    return -ENOBUFS;
  wire_encode_header (h, header);
  if (tlslink_write (l->tls, header, WIRE_HEADER_LEN) != WIRE_HEADER_LEN
      || (h->payload_len != 0 && tlslink_write (l->tls, payload, h->payload_len) != (ssize_t) h->payload_len))
    return -EPIPE;
  return 0;
}

void
mlink_flush (struct mlink *l)
{
  const uint8_t *data;
  size_t len;
  struct io_uring_sqe *sqe;

  if (l->state != LK_TLS && l->state != LK_UP && l->state != LK_FINISHING)
    return;
  if (l->state == LK_UP)
    tlslink_flush (l->tls);
  if (l->send_busy)
    return;
  len = tlslink_out_data (l->tls, &data);
  if (len == 0) {
    if (l->state == LK_FINISHING)
      mlink_close (l, "closed");
    return;
  }
  l->send_busy = true;
  sqe = link_sqe (l, &l->send_op);
  io_uring_prep_send (sqe, (int) l->index, data, len, MSG_NOSIGNAL);
  l->ring->is_urgent = true;
  sqe->flags |= IOSQE_FIXED_FILE;
}

static void
send_done (struct ring_op *op, int res)
{
  struct mlink *l = container_of (op, struct mlink, send_op);

  l->send_busy = false;
  if (l->state == LK_CLOSING) {
    check_closed (l);
    return;
  }
  if (res < 0 && res != -EINTR && res != -EAGAIN) {
    mlink_close (l, strerror (-res));
    return;
  }
  if (res > 0)
    tlslink_out_consume (l->tls, (size_t) res);
  if (l->state == LK_UP)
    l->ops->room (l);
  if (l->state == LK_TLS)
    mlink_resume (l, clock_boottime_ms ());
  else
    mlink_flush (l);
}

/* ---- in ----------------------------------------------------------------------------------- */

static bool
is_control (const struct wire_header *h)
{
  return h->type != WIRE_WRITE && h->type != WIRE_RESYNC_WRITE;
}

static void
protocol_error (struct mlink *l, const char *what)
{
  char reason[CRG_REASON_MAX + 1];

  snprintf (reason, sizeof reason, "protocol: %s", what);
  mlink_close (l, reason);
}

/* Reads plaintext until there is no more, or the owner has no room. */
static void
read_frames (struct mlink *l, uint64_t now_ms)
{
  while (l->state == LK_UP) {
    ssize_t n;

    if (l->header_have < WIRE_HEADER_LEN) {
      n = tlslink_read (l->tls, l->header + l->header_have, WIRE_HEADER_LEN - l->header_have);
      if (n <= 0)
        return;
      l->header_have += (unsigned) n;
      l->heard_ms = now_ms;
      if (l->header_have == WIRE_HEADER_LEN) {
        enum wire_status st = wire_decode_header (l->header, WIRE_HEADER_LEN, &l->h);

        if (st != WIRE_OK) {
          protocol_error (l, wire_strerror (st));
          return;
        }
        /* The other types before HELLO are the owner's to refuse. */
        if (l->is_server && !l->spoken && (l->h.type == WIRE_PING || l->h.type == WIRE_PONG)) {
          protocol_error (l, "a PING before HELLO");
          return;
        }
        if (is_control (&l->h) && l->h.payload_len > sizeof l->control) {
          protocol_error (l, "a payload longer than its type allows");
          return;
        }
        l->payload = NULL;
        l->payload_have = 0;
      }
      continue;
    }
    if (!l->payload && l->h.payload_len > 0) {
      l->payload = is_control (&l->h) ? l->control : l->ops->payload (l, &l->h);
      l->paused = !l->payload;
      if (l->paused)
        return;
    }
    if (l->payload_have < l->h.payload_len) {
      n = tlslink_read (l->tls, l->payload + l->payload_have, l->h.payload_len - l->payload_have);
      if (n <= 0)
        return;
      l->payload_have += (uint32_t) n;
      l->heard_ms = now_ms;
      continue;
    }
    l->header_have = 0;
    if (l->h.type == WIRE_PING) {
      struct wire_header pong = { .type = WIRE_PONG, .tenure = l->h.tenure, .seq = l->h.seq };

      mlink_send (l, &pong, NULL);
    }
    else if (l->h.type != WIRE_PONG) {
      uint8_t *payload = l->payload;

      l->payload = NULL;
      l->ops->frame (l, &l->h, payload);
    }
  }
}

void
mlink_resume (struct mlink *l, uint64_t now_ms)
{
  const bool was_paused = l->paused;
  enum tlslink_state st;
  struct io_uring_sqe *sqe;
  uint8_t *buf;
  size_t space;

  if (l->state == LK_TLS) {
    st = tlslink_drive (l->tls);
    if (st == TL_UP) {
      l->state = LK_UP;
      l->heard_ms = now_ms;
      l->ops->up (l);
    }
  }
  if (l->state == LK_UP)
    read_frames (l, now_ms);
  /* What has come since waits in the socket. */
  if (was_paused && !l->paused)
    l->heard_ms = now_ms;
  if (l->state != LK_TLS && l->state != LK_UP)
    return;
  st = tlslink_get_state (l->tls);
  if (st == TL_FAILED) {
    char reason[CRG_REASON_MAX + 1];

    snprintf (reason, sizeof reason, "TLS: %s", tlslink_reason (l->tls));
    if (l->state == LK_TLS && tlslink_out_pending (l->tls) > 0) {
      /* Let the alert reach the peer, so that its side knows why too. */
      l->told = true;
      l->state = LK_FINISHING;
      l->finish_ms = now_ms;
      l->ops->closed (l, reason);
      mlink_flush (l);
    }
    else
      mlink_close (l, reason);
    return;
  }
  else if (st == TL_CLOSED && !l->paused) {
    mlink_close (l, "the peer closed the link");
    return;
  }
  if (!l->recv_busy && !l->paused) {
    space = tlslink_in_space (l->tls, &buf);
    if (space > 0) {
      l->recv_busy = true;
      sqe = link_sqe (l, &l->recv_op);
      io_uring_prep_recv (sqe, (int) l->index, buf, space, 0);
      sqe->flags |= IOSQE_FIXED_FILE;
    }
  }
  mlink_flush (l);
}

static void
recv_done (struct ring_op *op, int res)
{
  struct mlink *l = container_of (op, struct mlink, recv_op);

  l->recv_busy = false;
  if (l->state == LK_CLOSING) {
    check_closed (l);
    return;
  }
  if (l->state == LK_FINISHING)
    return;
  if (res == 0)
    tlslink_in_eof (l->tls);
  else if (res > 0)
    tlslink_in_commit (l->tls, (size_t) res);
  else if (res != -EINTR && res != -EAGAIN) {
    mlink_close (l, strerror (-res));
    return;
  }
  mlink_resume (l, clock_boottime_ms ());
}

static void
connect_done (struct ring_op *op, int res)
{
  struct mlink *l = container_of (op, struct mlink, connect_op);

  l->connect_busy = false;
  if (l->state == LK_CLOSING) {
    check_closed (l);
    return;
  }
  if (res < 0) {
    char reason[CRG_REASON_MAX + 1];

    snprintf (reason, sizeof reason, "connect %s: %s", l->where, strerror (-res));
    mlink_close (l, reason);
    return;
  }
  l->state = LK_TLS;
  mlink_resume (l, clock_boottime_ms ());
}

void
mlink_tick (struct mlink *l, uint64_t now_ms)
{
  char reason[CRG_REASON_MAX + 1];

  switch (l->state) {
  case LK_CONNECTING:
  case LK_TLS:
    if (now_ms - l->opened_ms > LINK_HANDSHAKE_MS) {
      snprintf (reason, sizeof reason, "%s %s: no %s in %d ms", l->is_server ? "from" : "to", l->where,
                l->state == LK_CONNECTING ? "connection" : "TLS handshake", LINK_HANDSHAKE_MS);
      mlink_close (l, reason);
    }
    break;

  case LK_UP:
    if (!l->spoken && now_ms - l->opened_ms > LINK_HANDSHAKE_MS)
      mlink_close (l, "no HELLO, or no answer to it, in time");
    else if (now_ms - l->heard_ms > LINK_DEAD_MS && !l->paused) {
      snprintf (reason, sizeof reason, "nothing heard from %s for %d ms", l->where, LINK_DEAD_MS);
      mlink_close (l, reason);
    }
    else if (l->spoken && now_ms - l->heard_ms > LINK_PING_MS && now_ms - l->pinged_ms > LINK_PING_MS) {
      struct wire_header ping = { .type = WIRE_PING, .seq = ++l->ping_seq };

      l->pinged_ms = now_ms;
      mlink_send (l, &ping, NULL);
      mlink_flush (l);
    }
    break;

  case LK_FINISHING:
    if (now_ms - l->finish_ms > LINK_PING_MS)
      mlink_close (l, "closed");
    break;

  default:
    break;
  }
}
