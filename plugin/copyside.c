/* SPDX-License-Identifier: BSD-3-Clause */
/* The mirror side around its pure core: listens, takes frames in, writes them to the store and
 * answers.  Payloads wait in one arena of fixed size; when it is full the link is not read until
 * something has been written.  It decides nothing: order, refusals and acknowledgements are the
 * core's.
 */
#include "config.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/clock.h"
#include "plugin/engine_private.h"
#include "plugin/log.h"

#define NO_BUF UINT32_MAX

static void feed (struct engine *e, struct copy_event *ev);
static const struct mlink_ops copy_link_ops;

/* ---- arena -------------------------------------------------------------------------------- */

/* Next fit: payloads leave roughly in the order in which they came. */
static uint8_t *
arena_get (struct copyside *c, uint64_t offset, uint32_t len, uint32_t align)
{
  uint32_t skip = (uint32_t) (offset & (align - 1));
  uint32_t n = (uint32_t) (round_up (skip + len, MAX (align, COPY_ARENA_PAGE)) / COPY_ARENA_PAGE);
  unsigned start = c->next_page, run = 0, looked = 0;

  for (unsigned i = start; looked < COPY_ARENA_PAGES + n; looked++, i++) {
    if (i == COPY_ARENA_PAGES) {
      i = 0;
      run = 0;
    }
    run = c->used[i] ? 0 : run + 1;
    if (run == n) {
      unsigned first = i + 1 - n;

      memset (c->used + first, 1, n);
      c->pages[first] = n;
      c->n_used += n;
      c->next_page = (i + 1) % COPY_ARENA_PAGES;
      return c->arena + (size_t) first * COPY_ARENA_PAGE + skip;
    }
  }
  return NULL;
}

static uint32_t
arena_name (const struct copyside *c, const uint8_t *p)
{
  return (uint32_t) ((size_t) (p - c->arena) / COPY_ARENA_PAGE);
}

static void
arena_put (struct engine *e, uint32_t page)
{
  struct copyside *c = &e->copyside;

  if (page >= COPY_ARENA_PAGES || c->pages[page] == 0)
    return;
  memset (c->used + page, 0, c->pages[page]);
  c->n_used -= c->pages[page];
  c->pages[page] = 0;
  /* Empty: begin anew where the memory is still in the processor's cache. */
  if (c->n_used == 0)
    c->next_page = 0;
}

/* ---- carrying out ------------------------------------------------------------------------- */

static struct mlink *
find_conn (struct engine *e, uint32_t conn)
{
  for (unsigned i = CRG_MAX_SITES; i < RING_FILES; i++) {
    struct mlink *l = &e->links[i];

    if (l->conn == conn && (l->state == LK_UP || l->state == LK_TLS))
      return l;
  }
  return NULL;
}

static void
op_done (struct sop *op, int error)
{
  struct copy_io *io = container_of (op, struct copy_io, sop);
  struct copy_event ev = { .kind = CE_DONE, .op = io->index, .error = error };

  feed (io->e, &ev);
}

static void
sync_done (struct sop *op, int error)
{
  struct engine *e = container_of (op, struct engine, copyside.sync);
  struct copy_event ev = { .kind = CE_DONE, .op = COPY_OP_SYNC, .error = error };

  feed (e, &ev);
}

static void
submit (struct engine *e, const struct copy_action *a)
{
  struct copyside *c = &e->copyside;
  struct sop *op = &c->ops[a->op].sop;
  bool fua = a->frame.flags & WIRE_F_FUA;
  uint8_t *buf = NULL;

  switch (a->frame.type) {
  case WIRE_WRITE:
  case WIRE_RESYNC_WRITE:
    buf = c->arena + (size_t) a->buf * COPY_ARENA_PAGE + (a->frame.offset & (e->ia->store.align - 1));
    sop_start (op, SOP_WRITE, a->frame.offset, a->frame.length, buf, fua, false);
    break;
  case WIRE_FLUSH:
    sop_start (op, SOP_FLUSH, 0, 0, NULL, false, false);
    break;
  default:
    sop_start (op, SOP_ZERO, a->frame.offset, a->frame.length, NULL, fua,
               a->frame.type == WIRE_TRIM || (a->frame.flags & WIRE_F_MAY_TRIM));
    break;
  }
}

static void
send_control (struct engine *e, struct mlink *l, uint8_t type, uint64_t tenure, uint64_t seq, const uint8_t *payload,
              size_t len)
{
  struct wire_header h = { .type = type, .flags = type == WIRE_MAP ? WIRE_F_END : 0, .tenure = tenure, .seq = seq,
                           .payload_len = (uint32_t) len };

  if (mlink_send (l, &h, payload) < 0)
    mlink_close (l, "the peer does not read its answers");
}

/* What this copy may differ in, as far as the link's buffer takes it now. */
static void
send_map (struct engine *e, struct mlink *l)
{
  struct copyside *c = &e->copyside;
  struct wire_header h = { .type = WIRE_MAP, .tenure = l->tenure };
  uint8_t map[WIRE_MAP_BYTES];
  uint64_t n, of;

  _Static_assert (WIRE_MAP_BYTES == META_BLOCK_PAYLOAD, "a MAP is a block of a map");
  while (c->map_next < copy_report_blocks (c->core)) {
    if (mlink_room (l) < 2 * (WIRE_HEADER_LEN + WIRE_MAP_BYTES))
      return; /* goes on when there is */
    n = copy_report (c->core, c->map_next, map, &of);
    h.offset = c->map_next++ * META_BLOCK_BITS * e->ia->p.dirty_block;
    h.flags = n == of ? WIRE_F_ALL : 0;
    h.payload_len = n == of ? 0 : WIRE_MAP_BYTES;
    if (n > 0 && mlink_send (l, &h, map) < 0)
      return;
  }
  c->mapping = false;
  send_control (e, l, WIRE_MAP, l->tenure, 0, NULL, 0);
}

static void
carry_out (struct engine *e, const struct copy_action *a)
{
  struct copyside *c = &e->copyside;
  struct mlink *l = find_conn (e, a->conn);
  struct wire_failure failure;
  uint8_t buf[WIRE_MAX_CONTROL];
  size_t n;

  switch ((enum copy_action_kind) a->kind) {
  case CA_SUBMIT:
    submit (e, a);
    break;
  case CA_NOTHING:
    break;
  case CA_SYNC:
    sop_start (&c->sync, SOP_FLUSH, 0, 0, NULL, false, false);
    break;
  case CA_SUPER:
    metaw_super (e, a);
    break;
  case CA_MARK:
    mapw_write (e);
    break;
  case CA_RELEASE:
    arena_put (e, a->buf);
    break;
  case CA_HELLO_OK:
    if (!l)
      break;
    l->spoken = true;
    l->tenure = a->hello_ok.tenure;
    log_line ("link from %s (%s) is up, tenure %llu", tlslink_peer (l->tls), l->where,
              (unsigned long long) a->hello_ok.tenure);
    n = wire_encode_hello_ok (&a->hello_ok, buf, sizeof buf);
    send_control (e, l, WIRE_HELLO_OK, a->hello_ok.tenure, 0, buf, n);
    if (a->hello_ok.features & WIRE_FEATURE_TRACKING) {
      c->map_conn = a->conn;
      c->map_next = 0;
      c->mapping = true;
      send_map (e, l);
    }
    break;
  case CA_REFUSE:
    if (!l)
      break;
    snprintf (c->refused, sizeof c->refused, "%.60s (%.60s): %.120s", l->where, tlslink_peer (l->tls), a->refuse.reason);
    if (a->refuse.code != WIRE_REFUSE_BUSY) {
      log_line ("link refused: %s", c->refused);
      control_event (e, json_pack ("{s:s, s:i, s:s, s:o}", "event", "refused", "site", (int) e->site, "code",
                                   wire_refuse_name (a->refuse.code), "reason", jsonl_string (c->refused)));
    }
    n = wire_encode_refuse (&a->refuse, buf, sizeof buf);
    send_control (e, l, WIRE_REFUSE, a->refuse.tenure, 0, buf, n);
    mlink_finish (l, e->now_ms);
    break;
  case CA_ACK:
    if (l)
      send_control (e, l, WIRE_ACK, l->tenure, a->seq, NULL, 0);
    break;
  case CA_STABLE:
    if (l)
      send_control (e, l, WIRE_STABLE, l->tenure, a->seq, NULL, 0);
    break;
  case CA_ERROR:
    if (!l)
      break;
    failure = a->failure;
    if (a->op == COPY_OP_SNAPSHOT)
      snprintf (failure.reason, sizeof failure.reason, "%.120s: %.130s", a->failure.reason, snapshot_text (e->snapshot));
    log_line ("operation %llu of the link failed: %s", (unsigned long long) a->seq, failure.reason);
    n = wire_encode_failure (&failure, buf, sizeof buf);
    send_control (e, l, WIRE_ERROR, l->tenure, a->seq, buf, n);
    mlink_finish (l, e->now_ms);
    break;
  case CA_CLOSE:
    if (l)
      mlink_close (l, a->reason ? a->reason : "closed");
    break;
  case CA_RECORD:
    e->meta.sb.generation = MAX (e->meta.sb.generation, a->generation);
    metaw_lazy (e);
    break;
  case CA_FAILED:
    engine_store_failed (e, -a->error, a->reason ? a->reason : strerror (a->error < 0 ? -a->error : EIO));
    break;
  case CA_SNAPSHOT:
    snapshot_make (e->snapshot, e->ia->store.fd, &e->meta.sb);
    break;
  case CA_SNAPSHOT_DROP:
    snapshot_drop (e->snapshot);
    break;
  case CA_IDLE:
    c->idle = true;
    break;
  }
}

static void
step (struct engine *e, struct copy_event *ev)
{
  struct copyside *c = &e->copyside;
  struct copy_event poll = { .kind = CE_POLL };

  ev->now_ms = clock_boottime_ms ();
  copy_step (c->core, ev, c->acts);
  for (;;) {
    for (unsigned i = 0; i < c->acts->n; i++)
      carry_out (e, &c->acts->a[i]);
    if (!c->acts->more)
      return;
    poll.now_ms = clock_boottime_ms ();
    copy_step (c->core, &poll, c->acts);
  }
}

static void
feed (struct engine *e, struct copy_event *ev)
{
  struct copyside *c = &e->copyside;

  if (!c->on)
    return;
  c->want_poll = true;
  if (c->stepping) { /* only the end of a connection comes from an action */
    if (ev->kind != CE_CLOSED || c->n_closed == ARRAY_SIZE (c->closed))
      abort ();
    c->closed[c->n_closed++] = ev->conn;
    return;
  }
  c->stepping = true;
  step (e, ev);
  while (c->n_closed > 0) {
    struct copy_event closed = { .kind = CE_CLOSED, .conn = c->closed[--c->n_closed] };

    step (e, &closed);
  }
  c->stepping = false;
}

void
copyside_super_done (struct engine *e, int error)
{
  struct copy_event ev = { .kind = CE_DONE, .op = COPY_OP_SUPER, .error = error };

  feed (e, &ev);
}

void
copyside_marked (struct engine *e, int error)
{
  struct copy_event ev = { .kind = CE_DONE, .op = COPY_OP_MARK, .error = error };

  feed (e, &ev);
}

void
copyside_snapshot (struct engine *e)
{
  struct copy_event ev = { .kind = CE_DONE, .op = COPY_OP_SNAPSHOT };

  if (snapshot_take (e->snapshot, &ev.error) == SNAPSHOT_MAKE)
    feed (e, &ev);
}

void
copyside_round (struct engine *e)
{
  struct copyside *c = &e->copyside;
  struct copy_event ev = { .kind = CE_POLL };

  if (!c->on || !c->want_poll)
    return;
  feed (e, &ev);
  c->want_poll = false;
  for (unsigned i = CRG_MAX_SITES; i < RING_FILES; i++)
    if (e->links[i].paused)
      mlink_resume (&e->links[i], e->now_ms);
}

/* ---- links -------------------------------------------------------------------------------- */

static void
link_up (struct mlink *l)
{
}

static uint8_t *
link_payload (struct mlink *l, const struct wire_header *h)
{
  struct engine *e = l->owner;

  if (!l->spoken) {
    mlink_close (l, "protocol: data before HELLO");
    return NULL;
  }
  return arena_get (&e->copyside, h->offset, h->payload_len, e->ia->store.align);
}

static void
link_hello (struct engine *e, struct mlink *l, const struct wire_header *h, const uint8_t *payload)
{
  struct wire_hello m;
  struct copy_event ev = { .kind = CE_HELLO, .conn = l->conn, .frame = *h, .hello = &m, .peer = tlslink_peer (l->tls) };
  enum wire_status st = wire_decode_hello (payload, h->payload_len, &m);
  char reason[CRG_REASON_MAX + 1];

  if (st != WIRE_OK) {
    snprintf (reason, sizeof reason, "protocol: a HELLO that can't be used: %s", wire_strerror (st));
    mlink_close (l, reason);
    return;
  }
  feed (e, &ev);
}

static void
send_digest (struct engine *e, struct mlink *l, uint64_t seq, uint64_t offset, uint64_t length, const uint8_t *digests,
             unsigned n)
{
  struct wire_header h = { .type = WIRE_DIGEST, .flags = n == 0 ? WIRE_F_FAILED : 0, .tenure = l->tenure, .seq = seq,
                           .offset = offset, .length = (uint32_t) length, .payload_len = n * WIRE_DIGEST_LEN };

  if (mlink_send (l, &h, digests) < 0)
    mlink_close (l, "the peer does not read its answers");
}

/* Production compares (verify.h, repl_ask.c): answered when the digests are made, in no order with the stream. */
static void
digest_asked (struct engine *e, struct mlink *l, const struct wire_header *h, const uint8_t *payload)
{
  struct wire_digest_req m;
  const char *bad = NULL;
  char reason[CRG_REASON_MAX + 1];

  if (wire_decode_digest_req (payload, h->payload_len, &m) != WIRE_OK)
    bad = "a DIGEST_REQ that can't be read";
  else if (h->tenure != l->tenure)
    bad = "a frame with another tenure than its HELLO";
  else
    bad = verify_request_refusal (h, &m, e->ia->p.size);
  if (bad) {
    snprintf (reason, sizeof reason, "protocol: %s", bad);
    mlink_close (l, reason);
  }
  else
    /* If it can't begin, no answer: FAILED would say that the store can't read it, and then a good
     * block counts as different.  Production waits with a bound, and leaves this copy out, or sends. */
    (void) digest_start (e->digester, l->conn, h->seq, h->offset, h->length, m.block_size);
}

void
copyside_digest (struct engine *e, const struct digest_job *job)
{
  struct mlink *l = find_conn (e, job->conn);

  if (l && e->copyside.on && l->spoken)
    send_digest (e, l, job->seq, job->offset, job->length, job->digests[0], job->error == 0 ? job->n : 0);
}

static void
link_frame (struct mlink *l, const struct wire_header *h, uint8_t *payload)
{
  struct engine *e = l->owner;
  struct wire_record record;
  struct copy_event ev = { .kind = CE_FRAME, .conn = l->conn, .frame = *h, .buf = NO_BUF };

  if (h->type == WIRE_HELLO && !l->spoken) {
    link_hello (e, l, h, payload);
    return;
  }
  if (!l->spoken) {
    mlink_close (l, "protocol: another frame came where HELLO should");
    return;
  }
  switch (h->type) {
  case WIRE_RECORD:
  case WIRE_ENTER:
    if (wire_decode_record (payload, h->payload_len, &record) != WIRE_OK || record.tenure != h->tenure) {
      mlink_close (l, "protocol: a record that can't be used");
      return;
    }
    ev.record = &record;
    if (h->type == WIRE_RECORD) {
      ev.kind = CE_RECORD;
      e->meta.sb.in_set = record.in_set; /* a hint for people */
    }
    break;
  case WIRE_BYE:
    mlink_close (l, "production said goodbye");
    return;
  case WIRE_STABLE:
    ev.kind = CE_STABLE;
    break;
  case WIRE_MAP:
    ev.map = h->payload_len > 0 ? payload : NULL;
    break;
  case WIRE_DIGEST_REQ:
    digest_asked (e, l, h, payload);
    return;
  default:
    if (payload && payload != l->control)
      ev.buf = arena_name (&e->copyside, payload);
    break;
  }
  feed (e, &ev);
}

static void
link_room (struct mlink *l)
{
  struct engine *e = l->owner;

  if (e->copyside.mapping && l->conn == e->copyside.map_conn && l->spoken)
    send_map (e, l);
}

static void
link_closed (struct mlink *l, const char *reason)
{
  struct engine *e = l->owner;
  struct copy_event ev = { .kind = CE_CLOSED, .conn = l->conn };

  if (l->payload && l->payload != l->control)
    arena_put (e, arena_name (&e->copyside, l->payload));
  l->payload = NULL;
  log_line ("link from %s%s%s closed: %s", l->where, l->tls && tlslink_peer (l->tls) ? " " : "",
            l->tls && tlslink_peer (l->tls) ? tlslink_peer (l->tls) : "", reason);
  if (!l->spoken)
    snprintf (e->copyside.refused, sizeof e->copyside.refused, "%.60s: %.180s", l->where, reason);
  feed (e, &ev);
}

static const struct mlink_ops copy_link_ops = {
  .up = link_up,
  .payload = link_payload,
  .frame = link_frame,
  .room = link_room,
  .closed = link_closed,
};

/* ---- listening ---------------------------------------------------------------------------- */

static void
arm_accept (struct engine *e, struct listener *ls)
{
  struct io_uring_sqe *sqe;
  struct mlink *l = NULL;

  if (ls->fd == -1 || ls->busy || e->copyside.stopping)
    return;
  for (unsigned i = CRG_MAX_SITES; i < RING_FILES && !l; i++)
    if (e->links[i].state == LK_FREE)
      l = &e->links[i];
  if (!l)
    return; /* the next tick looks again */
  l->state = LK_ACCEPTING;
  l->addr_len = sizeof l->addr;
  ls->target = l;
  ls->busy = true;
  sqe = ring_sqe (&e->ring);
  io_uring_prep_accept_direct (sqe, ls->fd, (struct sockaddr *) &l->addr, &l->addr_len, 0, l->index);
  ring_own (&e->ring, sqe, &ls->op);
}

static void
accept_done (struct ring_op *op, int res)
{
  struct listener *ls = container_of (op, struct listener, op);
  struct engine *e = ls->e;
  struct copyside *c = &e->copyside;
  struct mlink *l = ls->target;
  const char *names[CRG_MAX_NODES];

  ls->busy = false;
  if (res < 0) {
    l->state = LK_FREE;
    if (res != -EINVAL && res != -ECANCELED)
      log_line ("mirror port: accept: %s", strerror (-res));
    return; /* armed again by the next tick */
  }
  for (unsigned i = 0; i < c->n_peers; i++)
    names[i] = c->peers[i];
  l->conn = ++c->next_conn;
  l->site = e->site;
  /* Without names TLS would take any node of the cluster. */
  if (c->stopping || c->n_peers == 0 || mlink_accepted (l, e->tls, names, c->n_peers, COPY_OUT_BYTES, e->now_ms) < 0) {
    ring_set_file (&e->ring, l->index, -1);
    l->state = LK_FREE;
  }
  arm_accept (e, ls);
}

/* The ring of a process that was killed lets go of its sockets a moment after the process is gone, and the copy is to
 * be back at once.  Nothing is served yet, so the engine may wait. */
static int
bind_soon (int fd, const struct addrinfo *ai)
{
  for (unsigned waited = 0;; waited += LISTEN_RETRY_MS) {
    if (bind (fd, ai->ai_addr, ai->ai_addrlen) == 0)
      return 0;
    if (errno != EADDRINUSE || waited >= LISTEN_WAIT_MS)
      return -1;
    poll (NULL, 0, LISTEN_RETRY_MS);
  }
}

static int
listen_on (const char *address, uint16_t *port, char *err, size_t errlen)
{
  struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE };
  struct addrinfo *ai;
  struct sockaddr_storage got;
  socklen_t len = sizeof got;
  char service[8];
  int fd, one = 1, r;

  snprintf (service, sizeof service, "%u", *port);
  if (getaddrinfo (address, service, &hints, &ai) != 0) {
    snprintf (err, errlen, "listen=%s: not a numeric address", address);
    return -EADDRNOTAVAIL;
  }
  fd = socket (ai->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd == -1 || setsockopt (fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) == -1
      || setsockopt (fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) == -1 /* accepted ones inherit it */
      || bind_soon (fd, ai) == -1 || listen (fd, LINK_BACKLOG) == -1
      || getsockname (fd, (struct sockaddr *) &got, &len) == -1) {
    r = -errno;
    snprintf (err, errlen, "mirror port %s:%u: %s; is another process on it?", address, *port, strerror (-r));
    if (fd != -1)
      close (fd);
    fd = r;
  }
  else
    *port = ntohs (got.ss_family == AF_INET6 ? ((struct sockaddr_in6 *) &got)->sin6_port
                                             : ((struct sockaddr_in *) &got)->sin_port);
  freeaddrinfo (ai);
  return fd;
}

/* ---- life --------------------------------------------------------------------------------- */

int
copyside_init (struct engine *e)
{
  struct copyside *c = &e->copyside;

  for (unsigned i = 0; i < CRG_MAX_ADDRS; i++) {
    c->listeners[i].fd = -1;
    c->listeners[i].e = e;
    c->listeners[i].op.done = accept_done;
  }
  c->core = calloc (1, sizeof *c->core);
  c->acts = calloc (1, sizeof *c->acts);
  if (!c->core || !c->acts)
    return -ENOMEM;
  if (sop_init (&c->sync, &e->env, sync_done) < 0)
    return -ENOMEM;
  for (unsigned i = 0; i < COPY_MAX_OPS; i++) {
    c->ops[i].e = e;
    c->ops[i].index = (uint16_t) i;
    if (sop_init (&c->ops[i].sop, &e->env, op_done) < 0)
      return -ENOMEM;
  }
  return 0;
}

static void
drop_arena (struct copyside *c)
{
  if (c->arena)
    munmap (c->arena, COPY_ARENA_BYTES);
  c->arena = NULL;
}

void
copyside_free (struct engine *e)
{
  struct copyside *c = &e->copyside;

  for (unsigned i = 0; i < COPY_MAX_OPS; i++)
    sop_free (&c->ops[i].sop);
  sop_free (&c->sync);
  drop_arena (c);
  free (c->core);
  free (c->acts);
}

int
copyside_start (struct engine *e, char *err, size_t errlen)
{
  struct copyside *c = &e->copyside;
  const struct params *p = &e->ia->p;
  const struct superblock *sb = &e->meta.sb;
  struct copy_config cfg = {
    .site = e->site, .size = p->size, .block_size = sb->block_size, .dirty_block_size = p->dirty_block,
    .session = e->session, .tenure = MAX (sb->tenure, e->rec.tenure), .generation = sb->generation, .since = sb->since,
    .clean = e->judge.was_clean, .restarted = e->judge.restarted,
    /* R6: production doesn't know what a fork was written; its own maps may. */
    .empty = ((sb->flags & SUPER_F_UNUSABLE) && sb->since == 0 && !(sb->flags & SUPER_F_FILLING))
             || ((e->rec.diverged >> e->site & 1) && !(sb->flags & SUPER_F_TRACKED)),
    .unusable = sb->flags & SUPER_F_UNUSABLE, .fork = (sb->flags & SUPER_F_FORK) && !(e->rec.fork >> e->site & 1),
    .window_bytes = LINK_WINDOW_BYTES, .window_frames = COPY_MAX_OPS,
    .mark = mapw_mark (e), .snapshot = p->snapshot, .filling = sb->flags & SUPER_F_FILLING,
  };
  const char *refused;

  memcpy (cfg.cluster_id, p->cluster_id, CRG_ID_LEN);
  memcpy (cfg.lineage, p->lineage, CRG_ID_LEN);
  memcpy (cfg.crg_id, p->crg_id, CRG_ID_LEN);
  memcpy (cfg.iasp_id, p->iasp_id, CRG_ID_LEN);
  memcpy (cfg.boot_id, e->boot_id, CRG_ID_LEN);
  snprintf (cfg.crg, sizeof cfg.crg, "%s", p->crg);
  snprintf (cfg.iasp, sizeof cfg.iasp, "%s", p->name);
  snprintf (cfg.node, sizeof cfg.node, "%s", p->node);
  /* Never filled, or by a release that did not note how far: it lacks everything. */
  if (cfg.mark && (cfg.empty || (cfg.unusable && !cfg.filling)))
    bits_fill (&cfg.mark->bits[e->site], true);
  refused = copy_init (c->core, &cfg, e->now_ms);
  if (refused) {
    snprintf (err, errlen, "%s", refused);
    return -EINVAL;
  }
  if (!c->arena) {
    void *m = mmap (NULL, COPY_ARENA_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (m == MAP_FAILED) {
      snprintf (err, errlen, "no memory for the mirror's window");
      return -ENOMEM;
    }
    c->arena = m;
  }
  memset (c->used, 0, sizeof c->used);
  memset (c->pages, 0, sizeof c->pages);
  c->next_page = c->n_used = 0;
  c->n_closed = 0;
  c->stepping = c->stopping = c->idle = c->want_poll = c->mapping = false;
  c->refused[0] = '\0';
  for (unsigned i = CRG_MAX_SITES; i < RING_FILES; i++)
    mlink_init (&e->links[i], &e->ring, i, &copy_link_ops, e);
  c->port = p->listen_port;
  for (unsigned i = 0; i < p->n_listen; i++) {
    int fd = listen_on (p->listen[i], &c->port, err, errlen);

    if (fd < 0) {
      for (unsigned k = 0; k < i; k++) {
        close (c->listeners[k].fd);
        c->listeners[k].fd = -1;
      }
      return fd;
    }
    c->listeners[i].fd = fd;
  }
  c->on = true;
  c->same_ms = e->now_ms;
  if (p->snapshot)
    snapshot_opened (e->snapshot, !cfg.unusable);
  for (unsigned i = 0; i < p->n_listen; i++)
    arm_accept (e, &c->listeners[i]);
  return 0;
}

void
copyside_stop (struct engine *e)
{
  struct copyside *c = &e->copyside;
  struct copy_event ev = { .kind = CE_STOP };

  if (!c->on || c->stopping)
    return;
  c->stopping = true;
  snapshot_cancel (e->snapshot);
  for (unsigned i = 0; i < CRG_MAX_ADDRS; i++)
    if (c->listeners[i].fd != -1)
      shutdown (c->listeners[i].fd, SHUT_RDWR); /* ends the accept */
  feed (e, &ev);
  for (unsigned i = CRG_MAX_SITES; i < RING_FILES; i++)
    mlink_close (&e->links[i], "this node gives its role up");
}

bool
copyside_is_idle (struct engine *e)
{
  struct copyside *c = &e->copyside;

  for (unsigned i = 0; i < CRG_MAX_ADDRS; i++)
    if (c->listeners[i].busy)
      return false;
  for (unsigned i = CRG_MAX_SITES; i < RING_FILES; i++)
    if (e->links[i].state != LK_FREE)
      return false;
  for (unsigned i = 0; i < COPY_MAX_OPS; i++)
    if (c->ops[i].sop.busy)
      return false;
  return c->idle && !c->sync.busy && digest_is_idle (e->digester) && snapshot_is_idle (e->snapshot);
}

void
copyside_close (struct engine *e)
{
  struct copyside *c = &e->copyside;

  c->on = false;
  for (unsigned i = 0; i < CRG_MAX_ADDRS; i++) {
    if (c->listeners[i].fd != -1)
      close (c->listeners[i].fd);
    c->listeners[i].fd = -1;
  }
  drop_arena (c);
}

/* A change of the record, or of the production host, that the controller told. */
void
copyside_record (struct engine *e)
{
  struct wire_record m = { .tenure = e->rec.tenure, .generation = e->rec.generation, .loss = e->rec.loss,
                           .in_set = e->rec.in_set,
                           .since = e->rec.in_set & 1u << e->site ? e->rec.since[e->site] : 0 };
  struct copy_event ev = { .kind = CE_RECORD, .record = &m, .appointed = e->rec.production_site == e->site };

  feed (e, &ev);
}

/* Strangers take all places: those that have had time enough for HELLO lose theirs. */
static void
make_room (struct engine *e)
{
  char reason[64];

  for (unsigned i = CRG_MAX_SITES; i < RING_FILES; i++)
    if (e->links[i].state == LK_FREE || e->links[i].state == LK_ACCEPTING)
      return;
  snprintf (reason, sizeof reason, "no HELLO in %d ms, and others wait", LINK_CROWD_MS);
  for (unsigned i = CRG_MAX_SITES; i < RING_FILES; i++) {
    struct mlink *l = &e->links[i];

    if ((l->state == LK_TLS || (l->state == LK_UP && !l->spoken)) && e->now_ms - l->opened_ms > LINK_CROWD_MS)
      mlink_close (l, reason);
  }
}

void
copyside_tick (struct engine *e)
{
  struct copy_status st;

  if (!e->copyside.on)
    return;
  make_room (e);
  for (unsigned i = 0; i < CRG_MAX_ADDRS; i++)
    arm_accept (e, &e->copyside.listeners[i]);
  copy_status (e->copyside.core, &st);
  if (st.ops == 0 || st.seq_acked != e->copyside.acked)
    e->copyside.same_ms = e->now_ms;
  e->copyside.acked = st.seq_acked;
}
