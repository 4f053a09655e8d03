/* SPDX-License-Identifier: BSD-3-Clause */
/* Sessions of the plugin `crg`: libnbd connections to one run of production, a thread for each
 * that takes the answers, and the way of a request through as many sessions as it needs.
 *
 * Lock order: crg.lock, then libnbd's lock of a handle; completion callbacks run under the latter
 * and take nothing.
 */
#include "config.h"

#include <errno.h>
#include <linux/futex.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include "common/clock.h"
#include "common/util-posix.h"
#include "plugin/crg.h"
#include "plugin/log.h"

/* ---- waiting for answers ------------------------------------------------------------------ */

enum { PENDING, ASLEEP /* and its worker sleeps */, DONE };

/* Requests of a connection that are answered together are woken with one system call, when libnbd has
 * let go of its lock: all wait on one word, each for its own bit. */
static void
wake_answered (struct crg_conn *k)
{
  uint32_t mask = atomic_load (&k->to_wake) ? atomic_exchange (&k->to_wake, 0) : 0;

  if (mask == 0)
    return;
  atomic_fetch_add (&k->answered, 1);
  syscall (SYS_futex, &k->answered, FUTEX_WAKE_BITSET_PRIVATE, INT32_MAX, NULL, NULL, mask);
}

/* Until it is answered, or for so long.  The word is read before the request says that it sleeps: who
 * sees that changes the word afterwards. */
static bool
is_answered (struct crg_conn *k, struct crg_request *r, unsigned ms)
{
  uint32_t seen = atomic_load (&k->answered), state = PENDING;
  struct timespec ts;

  if (!atomic_compare_exchange_strong (&r->done, &state, ASLEEP) && state == DONE)
    return true;
  clock_gettime (CLOCK_MONOTONIC, &ts); /* this call takes the point in time */
  ts.tv_nsec += (long) ms * 1000000;
  ts.tv_sec += ts.tv_nsec / 1000000000;
  ts.tv_nsec %= 1000000000;
  syscall (SYS_futex, &k->answered, FUTEX_WAIT_BITSET_PRIVATE, seen, &ts, NULL, r->bit);
  return atomic_load (&r->done) == DONE;
}

/* ---- sessions ----------------------------------------------------------------------------- */

void
crg_session_put (struct crg_session *s)
{
  if (atomic_fetch_sub (&s->refs, 1) != 1)
    return;
  for (unsigned i = 0; i < s->n; i++) {
    nbd_close (s->conn[i].nbd);
    if (s->conn[i].fd >= 0)
      close (s->conn[i].fd);
    if (s->conn[i].wake_fd >= 0)
      close (s->conn[i].wake_fd);
  }
  free (s);
}

static void
wake (const struct crg_conn *k)
{
  uint64_t one = 1;

  if (write (k->wake_fd, &one, sizeof one) < 0)
    return; /* it is awake as often as can be counted */
}

void
crg_session_break (struct crg_session *s, const char *why)
{
  struct crg *c = s->c;
  bool was_current;

  if (atomic_exchange (&s->broken, true))
    return;
  pthread_mutex_lock (&c->lock);
  was_current = c->current == s;
  if (was_current) {
    c->current = NULL;
    follow_end (&c->f);
    c->down_since_ms = clock_boottime_ms ();
    if (!c->stopping)
      crg_set_wait (c, CRG_LOOKING, "the connection to %s is lost: %.180s", s->host, why);
  }
  pthread_mutex_unlock (&c->lock);
  for (unsigned i = 0; i < s->n; i++)
    if (s->conn[i].fd >= 0) {
      shutdown (s->conn[i].fd, SHUT_RDWR);
      wake (&s->conn[i]);
    }
  if (was_current)
    crg_session_put (s);
  crg_kick (c);
}

/* Moves one connection on as poll said. */
static void
notify (struct crg_conn *k, unsigned dir, short revents)
{
  if (revents & (POLLIN | POLLHUP | POLLERR) && dir & LIBNBD_AIO_DIRECTION_READ)
    nbd_aio_notify_read (k->nbd);
  else if (revents & (POLLOUT | POLLHUP | POLLERR) && dir & LIBNBD_AIO_DIRECTION_WRITE)
    nbd_aio_notify_write (k->nbd);
}

static bool
is_over (const struct crg_conn *k)
{
  return nbd_aio_is_dead (k->nbd) != 0 || nbd_aio_is_closed (k->nbd) != 0;
}

static short
wanted (unsigned dir)
{
  return (short) ((dir & LIBNBD_AIO_DIRECTION_READ ? POLLIN : 0) | (dir & LIBNBD_AIO_DIRECTION_WRITE ? POLLOUT : 0));
}

static void *
answer_thread (void *opaque)
{
  struct crg_conn *k = opaque;
  struct crg_session *s = k->s;
  struct crg *c = s->c;
  const char *why;
  pthread_t before;
  bool joins;

  prctl (PR_SET_NAME, "crg-answers");
  while (!is_over (k)) {
    unsigned dir = nbd_aio_get_direction (k->nbd);
    struct pollfd pfd[2] = { { .fd = k->fd, .events = wanted (dir) }, { .fd = k->wake_fd, .events = POLLIN } };
    uint64_t count;

    if (poll (pfd, 2, -1) < 0)
      continue;
    if (pfd[1].revents && read (k->wake_fd, &count, sizeof count) < 0)
      continue;
    notify (k, dir, pfd[0].revents);
    wake_answered (k);
  }
  why = nbd_get_error ();
  crg_session_break (s, why ? why : "the host has closed it");
  crg_session_put (s);
  /* Each waits for the one that ended before it, and crg_end_threads () for the last: none is in our
   * text any more when that is unloaded. */
  pthread_mutex_lock (&c->lock);
  joins = c->has_ended;
  before = c->ended;
  c->has_ended = true;
  c->ended = pthread_self ();
  c->threads--;
  pthread_cond_broadcast (&c->changed);
  pthread_mutex_unlock (&c->lock);
  if (joins)
    pthread_join (before, NULL);
  return NULL;
}

void
crg_end_threads (struct crg *c)
{
  pthread_mutex_lock (&c->lock);
  while (c->threads > 0)
    pthread_cond_wait (&c->changed, &c->lock);
  pthread_mutex_unlock (&c->lock);
  if (c->has_ended)
    pthread_join (c->ended, NULL);
  c->has_ended = false;
}

int
crg_session_start (struct crg_session *s)
{
  struct crg *c = s->c;
  sigset_t all, old;
  int r = 0;

  for (unsigned i = 0; i < s->n; i++) {
    s->conn[i].wake_fd = eventfd (0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (s->conn[i].wake_fd < 0)
      return -errno;
  }
  sigfillset (&all);
  pthread_sigmask (SIG_SETMASK, &all, &old);
  for (unsigned i = 0; r == 0 && i < s->n; i++) {
    pthread_t thread;

    atomic_fetch_add (&s->refs, 1);
    pthread_mutex_lock (&c->lock);
    c->threads++;
    pthread_mutex_unlock (&c->lock);
    r = -pthread_create (&thread, NULL, answer_thread, &s->conn[i]);
    if (r < 0) {
      atomic_fetch_sub (&s->refs, 1);
      pthread_mutex_lock (&c->lock);
      c->threads--;
      pthread_mutex_unlock (&c->lock);
    }
  }
  pthread_sigmask (SIG_SETMASK, &old, NULL);
  return r;
}

/* ---- requests ----------------------------------------------------------------------------- */

static int
on_done (void *opaque, int *error)
{
  struct crg_request *r = opaque;
  struct crg_conn *k = r->k;
  uint32_t bit = r->bit;

  r->error = *error;
  if (r->s)
    atomic_fetch_add_explicit (&r->s->answers, 1, memory_order_relaxed);
  /* r can be gone after this; the connection can't: who calls libnbd holds the session. */
  if (atomic_exchange (&r->done, DONE) == ASLEEP)
    atomic_fetch_or (&k->to_wake, bit);
  return 1; /* libnbd may forget it */
}

static int
on_extents (void *opaque, const char *context, uint64_t offset, uint32_t *entries, size_t n, int *error)
{
  struct crg_request *r = opaque;
  uint32_t *copy;

  if (strcmp (context, LIBNBD_CONTEXT_BASE_ALLOCATION) != 0 || r->extents)
    return 0;
  copy = malloc (n * sizeof *copy);
  if (!copy) {
    *error = ENOMEM;
    return -1;
  }
  memcpy (copy, entries, n * sizeof *copy);
  r->extents = copy;
  r->n_extents = n;
  return 0;
}

/* -1: it was not sent. */
static int64_t
issue (struct nbd_handle *nbd, struct crg_request *r)
{
  nbd_completion_callback done = { .callback = on_done, .user_data = r };

  switch (r->op) {
  case CRG_READ:
    return nbd_aio_pread (nbd, r->buf, r->count, r->offset, done, 0);
  case CRG_WRITE:
    return nbd_aio_pwrite (nbd, r->buf, r->count, r->offset, done, r->flags);
  case CRG_FLUSH:
    return nbd_aio_flush (nbd, done, 0);
  case CRG_TRIM:
    return nbd_aio_trim (nbd, r->count, r->offset, done, r->flags);
  case CRG_ZERO:
    return nbd_aio_zero (nbd, r->count, r->offset, done, r->flags);
  case CRG_CACHE:
    return nbd_aio_cache (nbd, r->count, r->offset, done, 0);
  case CRG_EXTENTS:
    free (r->extents);
    r->extents = NULL;
    return nbd_aio_block_status (nbd, r->count, r->offset,
                                 (nbd_extent_callback){ .callback = on_extents, .user_data = r }, done, r->flags);
  }
  return -1;
}

/* The client of this request is gone, or nbdkit ends, and has said ESHUTDOWN to those that stay. */
static bool
is_given_up (void)
{
  return nbdkit_nanosleep (0, 0) < 0;
}

/* With the lock held: waits for a session, and keeps it.  NULL: *error. */
static struct crg_session *
session_get (struct crg *c, uint64_t until_ms, int *error)
{
  bool waits = false;
  struct timespec ts;

  *error = 0;
  while (*error == 0) {
    if (c->f.lost)
      *error = EIO;
    else if (c->stopping)
      *error = ESHUTDOWN;
    else if (c->current)
      break;
    else if (until_ms && clock_boottime_ms () >= until_ms)
      *error = EIO;
    else {
      if (!waits) {
        waits = true;
        if (c->n_waiting++ == 0)
          c->oldest_wait_ms = clock_boottime_ms ();
      }
      clock_gettime (CLOCK_MONOTONIC, &ts);
      ts.tv_nsec += 250000000;
      if (ts.tv_nsec >= 1000000000) {
        ts.tv_nsec -= 1000000000;
        ts.tv_sec++;
      }
      if (pthread_cond_timedwait (&c->changed, &c->lock, &ts) == ETIMEDOUT) {
        pthread_mutex_unlock (&c->lock);
        if (is_given_up ())
          *error = ESHUTDOWN;
        pthread_mutex_lock (&c->lock);
      }
    }
  }
  if (waits)
    c->n_waiting--;
  if (*error)
    return NULL;
  atomic_fetch_add (&c->current->refs, 1);
  return c->current;
}

/* It is on its way; returns when libnbd has let go of it: its buffer is the caller's. */
static void
wait_done (struct crg_conn *k, struct crg_request *r, uint64_t until_ms)
{
  const uint64_t begun_ms = clock_boottime_ms ();

  while (!is_answered (k, r, CLIENT_LEFT_LOOK_MS)) {
    const uint64_t now_ms = clock_boottime_ms ();
    if (until_ms && now_ms >= until_ms)
      crg_session_break (k->s, "a request had no answer in the time given");
    else if (now_ms >= begun_ms + CLIENT_LEFT_MS && is_given_up ())
      crg_session_break (k->s, "a client has left, and its request has no answer");
  }
}

static bool
is_change (const struct crg_request *r)
{
  return r->op == CRG_WRITE || r->op == CRG_ZERO || r->op == CRG_TRIM;
}

/* With the lock held: what follows from a good answer that counts (Y5, Y6). */
static void
account (struct crg *c, struct crg_request *r)
{
  static const enum follow_op ops[]
    = { [CRG_WRITE] = FOLLOW_WRITE, [CRG_ZERO] = FOLLOW_ZERO, [CRG_TRIM] = FOLLOW_TRIM };
  uint32_t at;

  if (r->op == CRG_FLUSH)
    follow_flushed (&c->f, r->covers);
  else if (is_change (r)
           && follow_wrote (&c->f, ops[r->op], r->offset, r->count, (r->flags & LIBNBD_CMD_FLAG_NO_HOLE) != 0, &at))
    memcpy (c->keep + at, r->buf, r->count);
}

/* ---- the order of changes (Y8) ------------------------------------------------------------- */

static bool
overlap (const struct crg_request *a, const struct crg_request *b)
{
  return a->offset < b->offset + b->count && b->offset < a->offset + a->count;
}

/* With the lock held. */
static void
enter (struct crg *c, struct crg_request *r)
{
  r->next = NULL;
  r->before = c->last;
  if (c->last)
    c->last->next = r;
  else
    c->first = r;
  c->last = r;
}

static void
leave (struct crg *c, struct crg_request *r)
{
  *(r->before ? &r->before->next : &c->first) = r->next;
  *(r->next ? &r->next->before : &c->last) = r->before;
  if (c->n_behind > 0)
    pthread_cond_broadcast (&c->let_by);
}

/* Waits for those of before.  A few comparisons: a client has some dozens under way. */
static void
wait_turn (struct crg *c, struct crg_request *r)
{
  for (struct crg_request *o = r->before; o;) {
    if (!overlap (o, r)) {
      o = o->before;
      continue;
    }
    c->n_behind++;
    pthread_cond_wait (&c->let_by, &c->lock);
    c->n_behind--;
    o = r->before; /* the list is another one now */
  }
}

/* ---- a request ----------------------------------------------------------------------------- */

/* In the session r->s; true when it was sent and came back with r->error. */
static bool
send_and_wait (struct crg_request *r, unsigned lane, uint64_t until_ms)
{
  struct crg_conn *k = &r->s->conn[lane % r->s->n];
  int sent;

  r->k = k;
  r->bit = UINT32_C (1) << atomic_fetch_add_explicit (&k->next_bit, 1, memory_order_relaxed) % 32;
  atomic_store_explicit (&r->done, PENDING, memory_order_relaxed);
  sent = issue (k->nbd, r);
  if (sent == -1) {
    const char *why = nbd_get_error ();

    wake_answered (k);
    crg_session_break (r->s, why ? why : "nothing can be sent");
    return false;
  }
  /* What the socket didn't take is the thread's to send. */
  if (nbd_aio_get_direction (k->nbd) & LIBNBD_AIO_DIRECTION_WRITE)
    wake (k);
  wake_answered (k);
  wait_done (k, r, until_ms);
  return true;
}

int
crg_submit (struct crg *c, struct crg_request *r, unsigned lane)
{
  const uint64_t until_ms = c->p.timeout_ms ? clock_boottime_ms () + c->p.timeout_ms : 0;
  const bool change = is_change (r);
  bool again = true;
  int error;

  pthread_mutex_lock (&c->lock);
  if (change) {
    enter (c, r);
    wait_turn (c, r);
  }
  while (again && (r->s = session_get (c, until_ms, &error))) {
    const uint64_t number = r->s->number;
    struct crg_session *s = r->s;
    bool sent = false;

    if (r->op == CRG_FLUSH)
      r->covers = follow_flush_begins (&c->f);
    pthread_mutex_unlock (&c->lock);
    /* Only now, when it holds up what comes after it (Y8). */
    if (change && c->p.stable && is_given_up ()) {
      error = ESHUTDOWN;
      again = false;
    }
    else {
      sent = send_and_wait (r, lane, until_ms);
      error = r->error;
    }
    if (sent && !change && r->op != CRG_FLUSH && error != ENOTCONN && error != ESHUTDOWN) {
      crg_session_put (s); /* nothing is to be noted */
      return -error;
    }
    pthread_mutex_lock (&c->lock);
    if (sent) {
      again = follow_judge_answer (&c->f, number, error, error == ENOTCONN) == FOLLOW_SEND_AGAIN;
      if (again)
        c->resent++;
      else if (error == 0)
        account (c, r);
    }
    if (!again && change)
      leave (c, r);
    pthread_mutex_unlock (&c->lock);
    if (sent && again)
      crg_session_break (s, error == ESHUTDOWN ? "it is no production any more" : "it was closed");
    crg_session_put (s);
    if (!again)
      return -error;
    pthread_mutex_lock (&c->lock);
  }
  if (change)
    leave (c, r);
  pthread_mutex_unlock (&c->lock);
  return -error;
}

int
crg_wait_attached (struct crg *c, char *err, size_t errlen)
{
  const uint64_t until_ms = c->p.timeout_ms ? clock_boottime_ms () + c->p.timeout_ms : 0;
  int r = 0;

  pthread_mutex_lock (&c->lock);
  while (!c->f.attached || c->f.size == 0) {
    struct timespec ts;

    if (c->stopping)
      r = -ESHUTDOWN;
    else if (c->unknown)
      r = -ENOENT;
    else if (until_ms && clock_boottime_ms () >= until_ms)
      r = -ETIMEDOUT;
    if (r < 0) {
      snprintf (err, errlen, "%s", c->wait_reason[0] ? c->wait_reason : strerror (-r));
      break;
    }
    clock_gettime (CLOCK_MONOTONIC, &ts);
    ts.tv_sec++;
    if (pthread_cond_timedwait (&c->changed, &c->lock, &ts) == ETIMEDOUT) {
      pthread_mutex_unlock (&c->lock);
      if (is_given_up ()) {
        snprintf (err, errlen, "the client has left");
        return -ESHUTDOWN;
      }
      pthread_mutex_lock (&c->lock);
    }
  }
  pthread_mutex_unlock (&c->lock);
  return r;
}

int
crg_conn_do (struct crg_conn *k, const struct crg_request *r, unsigned timeout_ms)
{
  const uint64_t until_ms = clock_boottime_ms () + timeout_ms;
  struct crg_request own = { .op = r->op, .buf = r->buf, .offset = r->offset, .count = r->count, .flags = r->flags };

  if (issue (k->nbd, &own) == -1)
    return ENOTCONN;
  while (atomic_load (&own.done) != DONE) {
    unsigned dir = nbd_aio_get_direction (k->nbd);
    struct pollfd pfd = { .fd = k->fd, .events = wanted (dir) };

    if (clock_boottime_ms () >= until_ms)
      shutdown (k->fd, SHUT_RDWR);
    if (poll (&pfd, 1, 100) > 0)
      notify (k, dir, pfd.revents);
  }
  return own.error;
}
