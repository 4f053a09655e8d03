/* SPDX-License-Identifier: BSD-3-Clause */
/* The finder of the plugin `crg`: one thread that makes the next session whenever there is none,
 * and watches the present one.  It alone begins sessions; anybody may break one.
 */
#include "config.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/exitcodes.h"
#include "common/util-posix.h"
#include "plugin/crg.h"
#include "plugin/log.h"

void
crg_kick (struct crg *c)
{
  uint64_t one = 1;

  if (write (c->kick_fd, &one, sizeof one) < 0)
    return; /* it is counted already */
}

void
crg_set_wait (struct crg *c, enum crg_state state, const char *fmt, ...)
{
  char reason[sizeof c->wait_reason];
  va_list ap;

  va_start (ap, fmt);
  vsnprintf (reason, sizeof reason, fmt, ap);
  va_end (ap);
  c->state = state;
  if (strcmp (reason, c->wait_reason) == 0)
    return;
  if (reason[0] && !c->wait_reason[0])
    c->wait_since_ms = clock_boottime_ms ();
  snprintf (c->wait_reason, sizeof c->wait_reason, "%s", reason);
  if (reason[0])
    log_line ("%s", reason);
}

static bool
is_stopping (struct crg *c)
{
  LOCK_SCOPE (&c->lock);

  return c->stopping;
}

/* Until something happens, or ms. */
static void
rest (struct crg *c, unsigned ms)
{
  struct pollfd pfd[2] = { { .fd = c->kick_fd, .events = POLLIN }, { .fd = c->stop_fd, .events = POLLIN } };
  uint64_t count;

  if (poll (pfd, 2, (int) ms) > 0 && pfd[0].revents && read (c->kick_fd, &count, sizeof count) < 0)
    return;
}

/* ---- asking ------------------------------------------------------------------------------- */

static const char *
node_text (const struct ask_node *n)
{
  return n->name[0] ? n->name : n->path;
}

/* What each node said, for the status; the best reason why there is no production. */
static void
take_answers (struct crg *c, const struct ask_result *result)
{
  const struct ask_list *l = &c->p.nodes;
  const char *best = NULL;
  unsigned unknown = 0;
  LOCK_SCOPE (&c->lock);

  for (unsigned i = 0; i < l->n; i++) {
    const struct ask_result *r = &result[i];

    if (r->answered && r->a.served)
      snprintf (c->said[i], sizeof c->said[i], "served by %s, tenure %llu%s", r->a.host, (unsigned long long) r->a.tenure,
                follow_judge_lineage (&c->f, r->a.lineage) == FOLLOW_OLD ? ", under the lineage before the one used (Y1)"
                                                                          : "");
    else
      snprintf (c->said[i], sizeof c->said[i], "%s", r->answered ? r->a.error : r->error);
    if (r->answered && !r->a.served && r->a.code == CRG_EXIT_NO_OBJECT)
      unknown++;
    else if (r->answered && best == NULL)
      best = c->said[i];
  }
  c->unknown = unknown == l->n;
  for (unsigned i = 0; !best && i < l->n; i++)
    best = c->said[i];
  crg_set_wait (c, CRG_LOOKING, "%s%.240s", c->unknown ? "no node has it: " : "", best ? best : "no node answers");
  if (c->unknown)
    pthread_cond_broadcast (&c->changed);
}

/* C9: nobody serves under our lineage, and somebody does under one that isn't of our past: its
 * index, else -1. */
static int
find_recovered (struct crg *c, const struct ask_result *result)
{
  int found = -1;
  LOCK_SCOPE (&c->lock);

  for (unsigned i = 0; i < c->p.nodes.n; i++) {
    const struct query_answer *a = &result[i].a;

    if (!result[i].answered || !a->served)
      continue;
    switch (follow_judge_lineage (&c->f, a->lineage)) {
    case FOLLOW_OLD: break;
    case FOLLOW_LOST: found = (int) i; break;
    default:
      if (a->tenure >= c->f.tenure)
        return -1;
    }
  }
  return found;
}

/* ---- connecting --------------------------------------------------------------------------- */

/* Puts our session's name into the URI that a node gave. */
static bool
session_uri (const struct crg *c, const struct crg_session *s, const char *uri, char *to, size_t size)
{
  const char *query = strchr (uri, '?');
  size_t len = query ? (size_t) (query - uri) : strlen (uri), name = strlen (c->p.iasp);
  struct export_name n = { .session = s->name };
  char text[EXPORT_NAME_MAX + 1];

  if (len <= name || uri[len - name - 1] != '/' || memcmp (uri + len - name, c->p.iasp, name) != 0)
    return false;
  snprintf (n.iasp, sizeof n.iasp, "%s", c->p.iasp);
  snprintf (n.client, sizeof n.client, "%s", c->p.client);
  export_name_text (&n, text);
  return snprintf (to, size, "%.*s%s%s", (int) (len - name), uri, text, query ? query : "") < (int) size;
}

static uint32_t
flags_of (struct nbd_handle *nbd)
{
  return (nbd_is_read_only (nbd) == 0 ? FOLLOW_CAN_WRITE : 0) | (nbd_can_flush (nbd) > 0 ? FOLLOW_CAN_FLUSH : 0)
         | (nbd_can_fua (nbd) > 0 ? FOLLOW_CAN_FUA : 0) | (nbd_can_trim (nbd) > 0 ? FOLLOW_CAN_TRIM : 0)
         | (nbd_can_zero (nbd) > 0 ? FOLLOW_CAN_ZERO : 0) | (nbd_can_fast_zero (nbd) > 0 ? FOLLOW_CAN_FAST_ZERO : 0)
         | (nbd_can_cache (nbd) > 0 ? FOLLOW_CAN_CACHE : 0)
         | (nbd_can_meta_context (nbd, LIBNBD_CONTEXT_BASE_ALLOCATION) > 0 ? FOLLOW_CAN_EXTENTS : 0)
         | (nbd_can_multi_conn (nbd) > 0 ? FOLLOW_CAN_MULTI_CONN : 0);
}

/* What the export says over this very connection. */
static bool
read_offer (const struct crg *c, struct nbd_handle *nbd, struct follow_offer *o, char *why, size_t len)
{
  CLEANUP_FREE char *text = nbd_get_export_description (nbd);
  struct export_info x;
  int64_t size = nbd_get_size (nbd);

  if (!text || !export_info_parse (text, &x)) {
    snprintf (why, len, "the export is none of nbd-crg, or of an older release: its description is '%.80s'", text ? text : "");
    return false;
  }
  if (strcmp (x.iasp, c->p.iasp) != 0) {
    snprintf (why, len, "the export is IASP %s", x.iasp);
    return false;
  }
  if (x.tenure == 0 || size <= 0) {
    snprintf (why, len, "the export is no production of a CRG");
    return false;
  }
  *o = (struct follow_offer){ .tenure = x.tenure, .loss = x.loss, .forced = x.forced, .run = x.run,
                              .size = (uint64_t) size, .flags = flags_of (nbd), .lineage = x.lineage };
  return true;
}

static struct nbd_handle *
begin_connect (const struct crg *c, const char *uri)
{
  struct nbd_handle *nbd = nbd_create ();

  if (!nbd)
    return NULL;
  /* nbdkit has checked every request, and a read is given out only when it is whole. */
  if (nbd_set_strict_mode (nbd, 0) < 0 || nbd_set_pread_initialize (nbd, false) < 0
      || nbd_set_full_info (nbd, true) < 0 || nbd_add_meta_context (nbd, LIBNBD_CONTEXT_BASE_ALLOCATION) < 0
      || (c->p.tls_dir[0] && nbd_set_tls_certificates (nbd, c->p.tls_dir) < 0) || nbd_aio_connect_uri (nbd, uri) < 0) {
    nbd_close (nbd);
    return NULL;
  }
  return nbd;
}

static void
set_tcp (int fd)
{
  int ms = CLIENT_DEAD_MS, on = 1, idle = 2, every = 1, count = 3;

  /* Fails for a Unix socket, which needs none of it. */
  setsockopt (fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &ms, sizeof ms);
  setsockopt (fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
  setsockopt (fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
  setsockopt (fd, IPPROTO_TCP, TCP_KEEPINTVL, &every, sizeof every);
  setsockopt (fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof count);
}

/* All connections at once.  False: why. */
static bool
connect_all (struct crg *c, struct crg_session *s, const char *uri, char *why, size_t len)
{
  const uint64_t until_ms = clock_boottime_ms () + CLIENT_CONNECT_MS;
  unsigned left;

  for (s->n = 0; s->n < c->p.connections; s->n++) {
    struct crg_conn *k = &s->conn[s->n];

    *k = (struct crg_conn){ .s = s, .fd = -1, .wake_fd = -1, .nbd = begin_connect (c, uri) };
    if (!k->nbd)
      goto nbd_error;
  }
  do {
    struct pollfd pfd[CLIENT_MAX_CONNECTIONS + 1];
    unsigned of[CLIENT_MAX_CONNECTIONS], dirs[CLIENT_MAX_CONNECTIONS];
    uint64_t now_ms = clock_boottime_ms ();

    left = 0;
    for (unsigned i = 0; i < s->n; i++) {
      struct nbd_handle *nbd = s->conn[i].nbd;

      if (nbd_aio_is_ready (nbd) > 0)
        continue;
      if (nbd_aio_is_connecting (nbd) <= 0)
        goto nbd_error;
      of[left] = i;
      dirs[left] = nbd_aio_get_direction (nbd);
      pfd[left].fd = nbd_aio_get_fd (nbd);
      pfd[left].events = (short) ((dirs[left] & LIBNBD_AIO_DIRECTION_READ ? POLLIN : 0)
                                  | (dirs[left] & LIBNBD_AIO_DIRECTION_WRITE ? POLLOUT : 0));
      left++;
    }
    if (left == 0)
      break;
    pfd[left] = (struct pollfd){ .fd = c->stop_fd, .events = POLLIN };
    if (now_ms >= until_ms || (poll (pfd, left + 1, (int) (until_ms - now_ms)) > 0 && pfd[left].revents)) {
      snprintf (why, len, "it does not finish the handshake");
      return false;
    }
    for (unsigned i = 0; i < left; i++) {
      if (pfd[i].revents & (POLLIN | POLLHUP | POLLERR) && dirs[i] & LIBNBD_AIO_DIRECTION_READ)
        nbd_aio_notify_read (s->conn[of[i]].nbd);
      else if (pfd[i].revents & (POLLOUT | POLLHUP | POLLERR))
        nbd_aio_notify_write (s->conn[of[i]].nbd);
    }
  } while (left > 0);

  /* Y2; without multi-conn a flush on one connection says nothing of the others. */
  if (!read_offer (c, s->conn[0].nbd, &s->offer, why, len))
    return false;
  while (s->n > 1 && !(s->offer.flags & FOLLOW_CAN_MULTI_CONN))
    nbd_close (s->conn[--s->n].nbd);
  for (unsigned i = 0; i < s->n; i++) {
    struct follow_offer o;

    if (i > 0 && !read_offer (c, s->conn[i].nbd, &o, why, len))
      return false;
    if (i > 0 && follow_judge (&c->f, &o, &s->offer) != FOLLOW_USE) {
      snprintf (why, len, "%s", follow_verdict_text (FOLLOW_OTHER));
      return false;
    }
    s->conn[i].fd = dup (nbd_aio_get_fd (s->conn[i].nbd));
    if (s->conn[i].fd < 0) {
      snprintf (why, len, "%s", strerror (errno));
      return false;
    }
    set_tcp (s->conn[i].fd);
  }
  return true;

nbd_error:
  snprintf (why, len, "%s", nbd_get_error () ? nbd_get_error () : "it closes the connection");
  return false;
}

/* ---- a session ---------------------------------------------------------------------------- */

/* Y6: the kept writes once more, in their order.  Nobody else changes them now: there is no
 * session in which a write could be answered. */
static bool
rewrite (struct crg *c, struct crg_session *s, char *why, size_t len)
{
  static const enum crg_op ops[] = { [FOLLOW_WRITE] = CRG_WRITE, [FOLLOW_ZERO] = CRG_ZERO, [FOLLOW_TRIM] = CRG_TRIM };
  uint32_t n = 0;

  for (;; n++) {
    struct crg_request r = { 0 };
    const struct follow_kept *k;
    int error;

    pthread_mutex_lock (&c->lock);
    k = follow_kept (&c->f, n);
    if (k) {
      r.op = ops[k->op];
      r.buf = c->keep + k->at;
      r.offset = k->offset;
      r.count = k->length;
      r.flags = k->no_hole ? LIBNBD_CMD_FLAG_NO_HOLE : 0;
    }
    pthread_mutex_unlock (&c->lock);
    if (!k)
      break;
    error = crg_conn_do (&s->conn[0], &r, CLIENT_REWRITE_MS);
    if (error) {
      snprintf (why, len, "writing again what was lost: %s", strerror (error));
      return false;
    }
  }
  log_line ("%u unflushed writes were written again to %s, where they were lost", n, s->host);
  pthread_mutex_lock (&c->lock);
  c->rewritten += n;
  pthread_mutex_unlock (&c->lock);
  return true;
}

static void
lose (struct crg *c, const struct crg_session *s)
{
  LOCK_SCOPE (&c->lock);

  follow_lose (&c->f);
  if (follow_judge_lineage (&c->f, s->offer.lineage.id) != FOLLOW_USE)
    crg_set_wait (c, CRG_LOST, "answered writes may be lost: the group was recovered without some of its nodes (C9), "
                  "and %s serves it under another lineage; all requests fail from now on (Y6): check the data, then "
                  "attach again", s->host);
  else
    crg_set_wait (c, CRG_LOST, "answered writes are lost: %s came up with loss %llu, tenure %llu%s, and loss was %llu; all "
                  "requests fail from now on (Y6): check the data, then attach again", s->host,
                  (unsigned long long) s->offer.loss, (unsigned long long) s->offer.tenure,
                  s->offer.forced ? ", forced by an operator" : "", (unsigned long long) c->f.loss);
  pthread_cond_broadcast (&c->changed);
}

static void
take_block_size (struct crg *c, struct nbd_handle *nbd)
{
  int64_t min = nbd_get_block_size (nbd, LIBNBD_SIZE_MINIMUM);
  int64_t preferred = nbd_get_block_size (nbd, LIBNBD_SIZE_PREFERRED);
  int64_t max = nbd_get_block_size (nbd, LIBNBD_SIZE_MAXIMUM);

  if (min > 0 && preferred > 0 && max > 0) {
    c->block_min = (uint32_t) min;
    c->block_preferred = (uint32_t) preferred;
    c->block_max = (uint32_t) max;
  }
}

/* The session is the present one from here on. */
static void
begin (struct crg *c, struct crg_session *s)
{
  uint64_t now_ms = clock_boottime_ms ();
  LOCK_SCOPE (&c->lock);

  if (c->sessions == 0)
    take_block_size (c, s->conn[0].nbd);
  else if (c->down_since_ms) {
    c->last_pause_ms = now_ms - c->down_since_ms;
    if (c->last_pause_ms > c->longest_pause_ms)
      c->longest_pause_ms = c->last_pause_ms;
  }
  s->number = follow_begin (&c->f, &s->offer);
  c->sessions++;
  c->current = s;
  c->unknown = false;
  crg_set_wait (c, CRG_UP, "%s", "");
  log_line ("production is at %s, tenure %llu, loss %llu; %u connections, session %016llx%s", s->host,
            (unsigned long long) s->offer.tenure, (unsigned long long) s->offer.loss, s->n,
            (unsigned long long) s->name, c->sessions > 1 ? "" : " (the first)");
  pthread_cond_broadcast (&c->changed);
}

/* False: not this one, not now; shown. */
static bool
try_session (struct crg *c, const struct query_answer *a)
{
  struct crg_session *s = calloc (1, sizeof *s);
  char uri[QUERY_URI_MAX + EXPORT_NAME_MAX + 1], why[CRG_REASON_MAX + 1] = "out of memory";
  enum follow_verdict verdict;
  bool good, was_current;

  if (!s)
    return false;
  s->c = c;
  s->refs = 1;
  s->name = clock_random_u64 () | 1;
  snprintf (s->host, sizeof s->host, "%s", a->host);
  snprintf (s->uri, sizeof s->uri, "%s", a->uri);
  if (!session_uri (c, s, a->uri, uri, sizeof uri)) {
    snprintf (why, sizeof why, "its URI is not one of IASP %s: %.100s", c->p.iasp, a->uri);
    goto out;
  }
  if (!connect_all (c, s, uri, why, sizeof why))
    goto out;
  pthread_mutex_lock (&c->lock);
  verdict = follow_judge (&c->f, &s->offer, NULL);
  pthread_mutex_unlock (&c->lock);
  switch (verdict) {
  case FOLLOW_USE:
    break;
  case FOLLOW_REWRITE:
    pthread_mutex_lock (&c->lock);
    crg_set_wait (c, CRG_REWRITING, "unflushed writes are lost at %s, and written again", s->host);
    pthread_mutex_unlock (&c->lock);
    if (!rewrite (c, s, why, sizeof why))
      goto out;
    break;
  case FOLLOW_LOST:
    lose (c, s);
    crg_session_put (s);
    return false;
  default:
    snprintf (why, sizeof why, "%s: tenure %llu, loss %llu, %llu bytes, flags %x; used was %llu, %llu, %llu, %x",
              follow_verdict_text (verdict), (unsigned long long) s->offer.tenure, (unsigned long long) s->offer.loss,
              (unsigned long long) s->offer.size, s->offer.flags, (unsigned long long) c->f.tenure,
              (unsigned long long) c->f.loss, (unsigned long long) c->f.size, c->f.flags);
    goto out;
  }
  /* Y3 */
  if (c->p.state_path[0]) {
    int r = crg_state_write (c, &s->offer);

    if (r < 0) {
      snprintf (why, sizeof why, "%.150s can't be written: %s", c->p.state_path, strerror (-r));
      goto out;
    }
  }
  if (crg_session_start (s) < 0) {
    snprintf (why, sizeof why, "no threads");
    crg_session_break (s, why);
    goto out;
  }
  atomic_fetch_add (&s->refs, 1); /* whoever breaks it gives the first one back */
  begin (c, s);
  /* A connection may have ended before it was the present session's. */
  good = !atomic_load (&s->broken);
  if (!good) {
    pthread_mutex_lock (&c->lock);
    was_current = c->current == s;
    if (was_current) {
      c->current = NULL;
      follow_end (&c->f);
      c->down_since_ms = clock_boottime_ms ();
    }
    pthread_mutex_unlock (&c->lock);
    if (was_current)
      crg_session_put (s);
  }
  crg_session_put (s);
  return good;

out:
  pthread_mutex_lock (&c->lock);
  crg_set_wait (c, CRG_LOOKING, "host %s: %.200s", a->host, why);
  pthread_mutex_unlock (&c->lock);
  crg_session_put (s);
  return false;
}

/* ---- watching ----------------------------------------------------------------------------- */

struct watch {
  const struct crg_session *of; /* only compared */
  uint64_t answers, since_ms;
};

/* Requests are under way and nothing comes: has production moved?  A host that was cut off says
 * nothing for minutes. */
static void
watch (struct crg *c, struct watch *w)
{
  static struct ask_result result[CRG_MAX_NODES];
  uint64_t now_ms = clock_boottime_ms (), answers;
  uint8_t lineage[CRG_ID_LEN];
  struct crg_session *s;
  int under_way = 0, i;

  pthread_mutex_lock (&c->lock);
  s = c->current;
  memcpy (lineage, c->f.lineage.id, CRG_ID_LEN);
  if (s)
    atomic_fetch_add (&s->refs, 1);
  pthread_mutex_unlock (&c->lock);
  if (!s)
    return;
  for (unsigned k = 0; k < s->n; k++)
    under_way += MAX (nbd_aio_in_flight (s->conn[k].nbd), 0);
  answers = atomic_load (&s->answers);
  if (w->of != s || w->answers != answers || under_way == 0) {
    if (w->of == s && now_ms >= w->since_ms + CLIENT_STUCK_MS) {
      LOCK_SCOPE (&c->lock);

      if (c->current == s)
        crg_set_wait (c, CRG_UP, "%s", "");
    }
    *w = (struct watch){ .of = s, .answers = answers, .since_ms = now_ms };
  }
  else if (now_ms >= w->since_ms + CLIENT_STUCK_MS) {
    i = ask_all (&c->p.nodes, c->tls, c->p.iasp, s->offer.tenure + 1, lineage, CLIENT_ASK_MS, c->stop_fd, result);
    if (i < 0)
      i = find_recovered (c, result);
    if (i >= 0) {
      char why[CRG_REASON_MAX + 1];

      snprintf (why, sizeof why, "node %s says that production is at %s now, tenure %llu", node_text (&c->p.nodes.node[i]),
                result[i].a.host, (unsigned long long) result[i].a.tenure);
      crg_session_break (s, why);
    }
    else {
      const char *said = "no node answers";
      LOCK_SCOPE (&c->lock);

      for (unsigned k = 0; k < c->p.nodes.n; k++)
        if (result[k].answered && !result[k].a.served)
          said = result[k].a.error;
      for (unsigned k = 0; k < c->p.nodes.n; k++)
        if (result[k].answered && result[k].a.served)
          said = "it is still production";
      if (c->current == s)
        crg_set_wait (c, CRG_UP, "%s does not answer the requests that it has; %.150s", s->host, said);
    }
  }
  crg_session_put (s);
}

void *
crg_finder (void *opaque)
{
  static struct ask_result result[CRG_MAX_NODES];
  struct crg *c = opaque;
  struct watch w = { .of = NULL };
  unsigned retry_ms = CLIENT_RETRY_MIN_MS;
  uint64_t min_tenure;
  uint8_t lineage[CRG_ID_LEN];
  bool up, lost;
  int i;

  prctl (PR_SET_NAME, "crg-finder");
  while (!is_stopping (c)) {
    pthread_mutex_lock (&c->lock);
    up = c->current != NULL;
    lost = c->f.lost;
    min_tenure = c->f.tenure;
    memcpy (lineage, c->f.lineage.id, CRG_ID_LEN);
    pthread_mutex_unlock (&c->lock);
    if (up || lost) {
      rest (c, lost ? 1000 : CLIENT_LOOK_MS);
      if (up)
        watch (c, &w);
      retry_ms = CLIENT_RETRY_MIN_MS;
      continue;
    }
    i = ask_all (&c->p.nodes, c->tls, c->p.iasp, min_tenure, lineage, CLIENT_ASK_MS, c->stop_fd, result);
    if (i < 0)
      i = find_recovered (c, result);
    if (i < 0)
      take_answers (c, result);
    else if (try_session (c, &result[i].a))
      continue;
    rest (c, retry_ms);
    retry_ms = MIN (2 * retry_ms, (unsigned) CLIENT_RETRY_MAX_MS);
  }
  return NULL;
}
