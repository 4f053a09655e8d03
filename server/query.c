/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The listener of query.h.  Strangers are bounded three times: connections taken a second,
 * connections at a time, and the time in which a handshake has to be over.
 */
#include "config.h"

#include "server/query.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <arpa/inet.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <qb/qbdefs.h>
#include <qb/qbloop.h>

#include "common/clock.h"
#include "common/exitcodes.h"
#include "common/jsonl.h"
#include "common/tlslink.h"
#include "server/log.h"
#include "server/member.h"
#include "server/status.h"

struct asker {
  struct query *q;
  int fd;
  struct tlslink *tls;
  struct jsonl_reader in;
  uint64_t serial, active_ms;
  uint64_t next_ms; /* the next request is answered then */
  bool up, broken, ended;
};

struct query {
  struct daemon *d;
  struct tlslink_ctx *tls;
  int listen_fd;
  bool listening, told;
  uint64_t serial;
  uint64_t tokens_ms; /* connections that may be taken now, in their time */
  uint64_t filled_ms;
  qb_loop_timer_handle timer;
  struct asker *askers[QUERY_MAX_CLIENTS];
};

static int on_asker (int fd, int revents, void *opaque);
static int on_accept (int fd, int revents, void *opaque);

/* ---- the answer ------------------------------------------------------------------------ */

void
query_fill (const struct daemon *d, const char *iasp, struct query_answer *a)
{
  char reason[3 * CRG_REASON_MAX];
  const char *host = "";
  struct daemon *all = (struct daemon *) d; /* it only looks */
  const struct crg_state *s;
  const struct member *m;
  unsigned index;

  memset (a, 0, sizeof *a);
  snprintf (a->node, sizeof a->node, "%s", d->conf.name);
  m = daemon_find_iasp (all, iasp, &index);
  if (m == NULL) {
    a->code = CRG_EXIT_NO_OBJECT;
    snprintf (a->error, sizeof a->error, "node %s knows no IASP %s", d->conf.name, iasp);
    return;
  }
  /* Only what is committed: an appointment that is undone (C5) must not be told. */
  s = group_committed (member_group (m));
  if (s) {
    a->tenure = s->rec[index].tenure;
    a->loss = s->rec[index].loss;
    memcpy (a->lineage, s->lineage, CRG_ID_LEN);
    a->size = s->def.iasps[index].size;
  }
  a->served = s && status_uri (m, index, a->uri, sizeof a->uri, &host, reason, sizeof reason);
  if (a->served)
    snprintf (a->host, sizeof a->host, "%s", host);
  else {
    a->code = CRG_EXIT_UNAVAILABLE;
    snprintf (a->error, sizeof a->error, "%.*s", CRG_REASON_MAX, s ? reason : "this node has no committed state");
  }
}

/* ---- one connection -------------------------------------------------------------------- */

static void
drop (struct asker *k)
{
  struct query *q = k->q;

  qb_loop_poll_del (q->d->loop, k->fd);
  close (k->fd);
  tlslink_free (k->tls);
  jsonl_reader_free (&k->in);
  for (unsigned i = 0; i < QUERY_MAX_CLIENTS; i++)
    if (q->askers[i] == k)
      q->askers[i] = NULL;
  free (k);
}

static void
answer (struct asker *k, json_t *req)
{
  char iasp[CRG_NAME_MAX + 1];
  struct query_answer a = { 0 };
  const char *wrong = query_request_parse (req, iasp);
  json_t *obj;
  char *text;
  size_t len;

  if (wrong) {
    snprintf (a.node, sizeof a.node, "%s", k->q->d->conf.name);
    snprintf (a.error, sizeof a.error, "%s", wrong);
    a.code = CRG_EXIT_USAGE;
    iasp[0] = '\0';
    k->ended = true;
  }
  else
    query_fill (k->q->d, iasp, &a);
  obj = query_answer_json (&a, iasp);
  text = obj ? json_dumps (obj, JSON_COMPACT) : NULL;
  json_decref (obj);
  len = text ? strlen (text) : 0;
  if (text == NULL || tlslink_out_room (k->tls) < len + 1 || tlslink_write (k->tls, text, len) != (ssize_t) len
      || tlslink_write (k->tls, "\n", 1) != 1 || tlslink_flush (k->tls) < 0)
    k->broken = true;
  free (text);
}

/* Requests that have come, as fast as this client may ask. */
static void
serve (struct asker *k, uint64_t now_ms)
{
  json_t *req;
  int r;

  while (!k->broken && !k->ended && now_ms >= k->next_ms && (r = jsonl_reader_next (&k->in, &req, NULL)) != 0) {
    if (r < 0) {
      k->broken = true;
      return;
    }
    k->active_ms = now_ms;
    k->next_ms = now_ms + 1000 / QUERY_CLIENT_RATE_S;
    answer (k, req);
    json_decref (req);
  }
}

static void
read_plain (struct asker *k)
{
  uint8_t buf[QUERY_MAX_LINE];
  ssize_t n;

  while (!k->broken && (n = tlslink_read (k->tls, buf, sizeof buf)) != 0) {
    /* Who sends more than a line and waits for no answer is not our client. */
    if (n < 0 || jsonl_reader_append (&k->in, buf, (size_t) n) < 0)
      k->broken = true;
  }
  if (tlslink_get_state (k->tls) == TL_CLOSED)
    k->ended = true;
}

static void
send_cipher (struct asker *k)
{
  const uint8_t *p;
  size_t n;

  while (!k->broken && (n = tlslink_out_data (k->tls, &p)) > 0) {
    ssize_t w = send (k->fd, p, n, MSG_NOSIGNAL | MSG_DONTWAIT);

    if (w < 0) {
      if (errno != EAGAIN && errno != EINTR)
        k->broken = true;
      return;
    }
    tlslink_out_consume (k->tls, (size_t) w);
  }
}

/* After anything: drives TLS, answers, sends, and drops the connection if it is over. */
static void
go_on (struct asker *k)
{
  uint64_t now_ms = clock_boottime_ms ();

  if (!k->broken) {
    enum tlslink_state was = tlslink_get_state (k->tls);

    if (was == TL_HANDSHAKE && tlslink_drive (k->tls) == TL_FAILED) {
      log_info ("client query: refused a connection: %s", tlslink_reason (k->tls));
      send_cipher (k); /* the alert */
      k->broken = true;
    }
    read_plain (k);
    if (!k->up && tlslink_get_state (k->tls) == TL_UP) {
      k->up = true;
      log_debug ("client query: client %s", tlslink_peer (k->tls));
    }
    serve (k, now_ms);
    send_cipher (k);
  }
  if (k->broken || (k->ended && tlslink_out_pending (k->tls) == 0)) {
    drop (k);
    return;
  }
  qb_loop_poll_mod (k->q->d->loop, QB_LOOP_LOW, k->fd,
                    (k->ended ? 0 : POLLIN) | (tlslink_out_pending (k->tls) ? POLLOUT : 0), k, on_asker);
}

static int
on_asker (int fd, int revents, void *opaque)
{
  struct asker *k = opaque;
  uint8_t *p;
  size_t space = tlslink_in_space (k->tls, &p);
  ssize_t n;

  if (revents & (POLLERR | POLLNVAL))
    k->broken = true;
  else if (revents & (POLLIN | POLLHUP)) {
    n = space > 0 ? recv (fd, p, space, MSG_DONTWAIT) : 0;
    if (n > 0)
      tlslink_in_commit (k->tls, (size_t) n);
    else if (n == 0 || (errno != EAGAIN && errno != EINTR))
      k->broken = true;
  }
  go_on (k);
  return 0;
}

/* ---- the listener ---------------------------------------------------------------------- */

/* The longest-standing connection loses its place to a new one: one in its handshake first. */
static void
make_room (struct query *q)
{
  struct asker *worst = NULL;

  for (unsigned i = 0; i < QUERY_MAX_CLIENTS; i++) {
    struct asker *k = q->askers[i];

    if (k == NULL)
      return;
    if (worst == NULL || k->up < worst->up || (k->up == worst->up && k->active_ms < worst->active_ms))
      worst = k;
  }
  drop (worst);
}

/* A connection may be taken now; else the listener rests until the next tick. */
static bool
take_token (struct query *q, uint64_t now_ms)
{
  const uint64_t cost = 1000 / QUERY_RATE_S;

  q->tokens_ms = MIN (q->tokens_ms + (now_ms - q->filled_ms), QUERY_BURST * cost);
  q->filled_ms = now_ms;
  if (q->tokens_ms < cost)
    return false;
  q->tokens_ms -= cost;
  return true;
}

static int
on_accept (int fd, int revents, void *opaque)
{
  struct query *q = opaque;
  uint64_t now_ms = clock_boottime_ms ();
  struct asker *k;
  int conn, one = 1;

  if (!take_token (q, now_ms)) {
    qb_loop_poll_del (q->d->loop, q->listen_fd);
    q->listening = false;
    return 0;
  }
  conn = accept4 (fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
  if (conn < 0)
    return 0;
  make_room (q);
  k = calloc (1, sizeof *k);
  if (k) {
    k->q = q;
    k->fd = conn;
    k->serial = ++q->serial;
    k->active_ms = now_ms;
    jsonl_reader_init (&k->in, QUERY_MAX_LINE);
    k->tls = tlslink_new (q->tls, true, NULL, 0, TLSLINK_OUT_LEAST);
  }
  if (k == NULL || k->tls == NULL || qb_loop_poll_add (q->d->loop, QB_LOOP_LOW, conn, POLLIN, k, on_asker) < 0) {
    log_warning ("client query: no memory for a connection");
    if (k)
      tlslink_free (k->tls);
    free (k);
    close (conn);
    return 0;
  }
  setsockopt (conn, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  for (unsigned i = 0; i < QUERY_MAX_CLIENTS; i++)
    if (q->askers[i] == NULL) {
      q->askers[i] = k;
      break;
    }
  return 0;
}

static int
bind_port (const struct conf_crgd *c)
{
  struct sockaddr_in6 six = { .sin6_family = AF_INET6, .sin6_port = htons ((uint16_t) c->client_port) };
  struct sockaddr_in four = { .sin_family = AF_INET, .sin_port = htons ((uint16_t) c->client_port) };
  bool is_four = inet_pton (AF_INET, c->client_address, &four.sin_addr) == 1;
  int fd, one = 1, zero = 0, r;

  if (!is_four && c->client_address[0] && inet_pton (AF_INET6, c->client_address, &six.sin6_addr) != 1)
    return -EINVAL;
  fd = socket (is_four ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0 && errno == EAFNOSUPPORT && !c->client_address[0]) {
    is_four = true;
    fd = socket (AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  }
  if (fd < 0)
    return -errno;
  setsockopt (fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (!is_four)
    setsockopt (fd, IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof zero);
  r = is_four ? bind (fd, (struct sockaddr *) &four, sizeof four) : bind (fd, (struct sockaddr *) &six, sizeof six);
  if (r < 0 || listen (fd, QUERY_BURST) < 0) {
    r = -errno;
    close (fd);
    return r;
  }
  return fd;
}

static void
begin (struct query *q)
{
  const struct conf_crgd *c = &q->d->conf;
  char ca[CRG_PATH_MAX + 32], cert[CRG_PATH_MAX + 32], key[CRG_PATH_MAX + 32], err[CONF_ERR_MAX + 1];

  if (q->tls == NULL) {
    snprintf (ca, sizeof ca, "%s/nbd/ca-cert.pem", c->tls_dir);
    snprintf (cert, sizeof cert, "%s/nbd/server-cert.pem", c->tls_dir);
    snprintf (key, sizeof key, "%s/nbd/server-key.pem", c->tls_dir);
    q->tls = tlslink_ctx_new (ca, cert, key, err, sizeof err);
    if (q->tls == NULL) {
      if (!q->told)
        log_error ("client query: %s; clients can't ask this node until then", err);
      q->told = true;
      return;
    }
  }
  q->listen_fd = bind_port (c);
  if (q->listen_fd < 0) {
    if (!q->told)
      log_error ("client query: can't listen on %s:%u: %s; trying again", c->client_address, c->client_port,
                 strerror (-q->listen_fd));
    q->told = true;
    return;
  }
  q->told = false;
  log_notice ("client query: listening on %s:%u", c->client_address, c->client_port);
}

static void
on_tick (void *opaque)
{
  struct query *q = opaque;
  uint64_t now_ms = clock_boottime_ms ();
  unsigned next_ms = 1000 / QUERY_CLIENT_RATE_S;
  bool any = false;

  for (unsigned i = 0; i < QUERY_MAX_CLIENTS; i++) {
    struct asker *k = q->askers[i];

    if (k == NULL)
      continue;
    any = true;
    if (now_ms > k->active_ms + (k->up ? QUERY_IDLE_MS : QUERY_HANDSHAKE_MS))
      drop (k);
    else if (k->up)
      go_on (k);
  }
  if (q->listen_fd < 0) {
    begin (q);
    if (q->listen_fd < 0)
      next_ms = QUERY_LISTEN_RETRY_MS;
  }
  if (q->listen_fd >= 0 && !q->listening) {
    q->listening = qb_loop_poll_add (q->d->loop, QB_LOOP_LOW, q->listen_fd, POLLIN, q, on_accept) == 0;
    any = true;
  }
  if (!any && q->listen_fd >= 0)
    next_ms = 500;
  qb_loop_timer_add (q->d->loop, QB_LOOP_LOW, next_ms * QB_TIME_NS_IN_MSEC, q, on_tick, &q->timer);
}

struct query *
query_new (struct daemon *d)
{
  struct query *q = d->conf.client_port ? calloc (1, sizeof *q) : NULL;

  if (q == NULL)
    return NULL;
  q->d = d;
  q->listen_fd = -1;
  q->filled_ms = clock_boottime_ms ();
  q->tokens_ms = QUERY_BURST * (1000 / QUERY_RATE_S);
  on_tick (q);
  return q;
}

void
query_free (struct query *q)
{
  if (q == NULL)
    return;
  qb_loop_timer_del (q->d->loop, q->timer);
  for (unsigned i = 0; i < QUERY_MAX_CLIENTS; i++)
    if (q->askers[i])
      drop (q->askers[i]);
  if (q->listening)
    qb_loop_poll_del (q->d->loop, q->listen_fd);
  if (q->listen_fd >= 0)
    close (q->listen_fd);
  tlslink_ctx_free (q->tls);
  free (q);
}
