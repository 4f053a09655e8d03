/* SPDX-License-Identifier: BSD-3-Clause */
/* The engine thread and the way of a request to it and back.  A worker claims a slot, pushes it
 * to a queue without a lock, wakes the engine only if it sleeps, and waits on the slot's own
 * futex.  The thread runs rounds: take requests, feed the cores, carry out their actions, hand
 * all submissions to the kernel in one call, reap what is done.
 */
#include "config.h"

#include <errno.h>
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "common/query.h"
#include "common/clock.h"
#include "common/util-posix.h"
#include "plugin/engine_private.h"
#include "plugin/log.h"

/* Bytes for a store in memory that are copied before what goes to the copies is submitted: so much
 * takes less time than a system call of its own for the submission. */
#define MEMORY_FIRST_BYTES (32 * 1024)

/* A thread looks for work before it sleeps if it has come within SPIN_WORTH_US lately, for twice as long as
 * it took: to wake a thread on an idle processor costs up to half of that, on both sides. */
#define SPIN_WORTH_US 150u
#define SPIN_MOST_US  1000u /* as long as a wait counts: some short ones make up for it */
/* Others wait for the processor if they keep it for longer than this: then a thread that gives it away
 * waits for its turn, where one that sleeps would be woken before them.  Then it sleeps so often before
 * it tries again, twice as often each time. */
#define SPIN_YIELD_US  250u
#define SPIN_SKIP_LEAST 64u
#define SPIN_SKIP_MOST  4096u

/* ---- workers ------------------------------------------------------------------------------ */

static void
futex_wait_ms (_Atomic uint32_t *word, uint32_t value, uint32_t ms)
{
  struct timespec ts = { .tv_sec = ms / 1000, .tv_nsec = (long) (ms % 1000) * 1000000 };

  syscall (SYS_futex, word, FUTEX_WAIT_PRIVATE, value, &ts, NULL, 0);
}

static uint64_t
monotonic_ns (void)
{
  struct timespec ts;

  clock_gettime (CLOCK_MONOTONIC, &ts);
  return (uint64_t) ts.tv_sec * 1000000000 + (uint64_t) ts.tv_nsec;
}

/* Requests of one round are answered with one system call: all wait on one word, each for its own
 * bit (slots share one only when there are more than 32). */
static uint32_t
slot_bit (unsigned slot)
{
  return UINT32_C (1) << slot % 32;
}

/* How long the thread had nothing to do, this time. */
static void
spin_learn (struct spin *s, uint64_t since_ns)
{
  uint32_t us = (uint32_t) MIN ((monotonic_ns () - since_ns) / 1000, (uint64_t) SPIN_MOST_US);

  s->expect_us = (s->expect_us * 7 + us) / 8;
}

static bool
spin_is_worth (struct spin *s)
{
  if (s->skip > 0) {
    s->skip--;
    return false;
  }
  return s->expect_us <= SPIN_WORTH_US;
}

/* Looks for what 'ready' says, as long as that is likely to come.  Others get the processor meanwhile if
 * they want it. */
static bool
spin_for (struct spin *s, uint64_t since_ns, bool (*ready) (const void *opaque), const void *opaque)
{
  const uint64_t until = since_ns + (s->expect_us * 2 + 1) * UINT64_C (1000);
  uint64_t now = since_ns;

  do {
    uint64_t before = now;

    sched_yield ();
    now = monotonic_ns ();
    if (now - before > SPIN_YIELD_US * 1000) {
      s->busy = s->busy == 0 ? SPIN_SKIP_LEAST : MIN (s->busy * 2, SPIN_SKIP_MOST);
      s->skip = s->busy;
      return ready (opaque);
    }
    if (ready (opaque)) {
      s->busy -= MIN (s->busy, 1u);
      return true;
    }
  } while (now < until);
  return false;
}

struct waiting {
  const struct engine *e;
  const struct req_slot *s;
};

/* Answered, or not alone any more: then the processor has better things to do. */
static bool
is_done_or_joined (const void *waiting)
{
  const struct waiting *w = waiting;

  return atomic_load (&w->s->done) == REQ_DONE || atomic_load (&w->e->n_waiting) > 1;
}

/* Timed, so that a lost wake-up could cost a second and not for ever; how long requests wait, and
 * for what, is shown by the core. */
static void
wait_done (struct engine *e, struct req_slot *s)
{
  const uint32_t bit = slot_bit ((unsigned) (s - e->slots));
  const bool alone = atomic_fetch_add (&e->n_waiting, 1) == 0;
  const struct waiting w = { .e = e, .s = s };
  uint64_t since_ns = alone ? monotonic_ns () : 0;

  if (alone && spin_is_worth (&e->worker_spin))
    spin_for (&e->worker_spin, since_ns, is_done_or_joined, &w);
  for (;;) {
    uint32_t seen = atomic_load (&e->answers), state = REQ_PENDING;
    struct timespec ts;

    if (!atomic_compare_exchange_strong (&s->done, &state, REQ_ASLEEP) && state == REQ_DONE)
      break;
    clock_gettime (CLOCK_MONOTONIC, &ts); /* this call takes the point in time */
    ts.tv_sec++;
    syscall (SYS_futex, &e->answers, FUTEX_WAIT_BITSET_PRIVATE, seen, &ts, NULL, bit);
  }
  if (alone)
    spin_learn (&e->worker_spin, since_ns);
  atomic_fetch_sub (&e->n_waiting, 1);
}

static void
futex_wake (_Atomic uint32_t *word, int n)
{
  syscall (SYS_futex, word, FUTEX_WAKE_PRIVATE, n, NULL, NULL, 0);
}

static unsigned
slot_get (struct engine *e)
{
  static __thread unsigned first; /* where this thread found one last */

  for (;;) {
    uint32_t freed = atomic_load (&e->slot_freed);

    for (unsigned i = 0; i < ARRAY_SIZE (e->free_slots); i++) {
      unsigned w = (first + i) % ARRAY_SIZE (e->free_slots);
      uint64_t free = atomic_load (&e->free_slots[w]);

      while (free != 0) {
        unsigned b = (unsigned) __builtin_ctzll (free);

        if (atomic_compare_exchange_weak (&e->free_slots[w], &free, free & ~(UINT64_C (1) << b))) {
          first = w;
          return w * 64 + b;
        }
      }
    }
    atomic_fetch_add (&e->slot_waiters, 1);
    futex_wait_ms (&e->slot_freed, freed, 1000);
    atomic_fetch_sub (&e->slot_waiters, 1);
  }
}

static void
slot_put (struct engine *e, unsigned slot)
{
  atomic_fetch_or (&e->free_slots[slot / 64], UINT64_C (1) << (slot % 64));
  atomic_fetch_add (&e->slot_freed, 1);
  if (atomic_load (&e->slot_waiters) != 0)
    futex_wake (&e->slot_freed, 1);
}

static void
wake_engine (struct engine *e)
{
  uint64_t one = 1;

  if (atomic_exchange (&e->sleeping, false) && write (e->efd, &one, sizeof one) < 0)
    log_line ("eventfd: %s", strerror (errno));
}

int
engine_submit (struct engine *e, const struct engine_request *rq)
{
  unsigned slot = slot_get (e);
  struct req_slot *s = &e->slots[slot];
  int error;

  s->rq = *rq;
  atomic_store (&s->done, REQ_PENDING);
  s->next = atomic_load (&e->queue);
  while (!atomic_compare_exchange_weak (&e->queue, &s->next, s))
    ;
  wake_engine (e);
  wait_done (e, s);
  error = s->error;
  slot_put (e, slot);
  return error;
}

bool
engine_may_open (struct engine *e, char *err, size_t errlen)
{
  LOCK_SCOPE (&e->lock);

  if (!e->may_open)
    snprintf (err, errlen, "%s", e->refusal);
  return e->may_open;
}

void
engine_export (struct engine *e, struct export_info *x)
{
  LOCK_SCOPE (&e->lock);

  x->tenure = atomic_load (&e->open_tenure);
  x->loss = e->open_loss;
  x->lineage = e->open_lineage;
  x->forced = e->forced;
  x->run = e->session;
}

uint64_t
engine_tenure (struct engine *e)
{
  return atomic_load_explicit (&e->open_tenure, memory_order_acquire);
}

/* ---- the engine's side -------------------------------------------------------------------- */

void
engine_set_open (struct engine *e, bool may_open, const char *refusal)
{
  LOCK_SCOPE (&e->lock);

  e->may_open = may_open;
  atomic_store (&e->open_tenure, may_open ? e->rec.tenure : 0);
  e->open_loss = e->rec.loss;
  memcpy (e->open_lineage.id, e->ia->p.lineage, CRG_ID_LEN);
  memcpy (e->open_lineage.past, e->rec.past[0], CRG_ID_LEN); /* zeroes: none */
  snprintf (e->refusal, sizeof e->refusal, "%s", refusal);
}

/* The worker may go on; wake_workers tells those that sleep. */
static void
release_worker (struct engine *e, struct req_slot *s)
{
  unsigned slot = (unsigned) (s - e->slots);

  s->answered = false;
  if (atomic_exchange (&s->done, REQ_DONE) == REQ_ASLEEP)
    e->answered_mask |= slot_bit (slot);
}

static void
wake_workers (struct engine *e)
{
  uint32_t mask = e->answered_mask;

  if (mask == 0)
    return;
  e->answered_mask = 0;
  atomic_fetch_add (&e->answers, 1);
  syscall (SYS_futex, &e->answers, FUTEX_WAKE_BITSET_PRIVATE, INT32_MAX, NULL, NULL, mask);
}

void
engine_answer (struct engine *e, unsigned slot, int error)
{
  struct req_slot *s = &e->slots[slot];

  s->in_core = false;
  s->error = error;
  /* The ring may still read the worker's buffer. */
  if (s->local.busy)
    s->answered = true;
  else
    release_worker (e, s);
}

static void
local_done (struct sop *op, int error)
{
  struct req_slot *s = container_of (op, struct req_slot, local);
  struct engine *e = container_of (op->env, struct engine, env);
  struct repl_event ev = { .kind = RE_LOCAL_DONE, .slot = (uint16_t) (s - e->slots), .error = error };

  if (s->answered)
    release_worker (e, s);
  else if (s->in_core)
    prod_feed (e, &ev);
}

bool
engine_is_idle (struct engine *e)
{
  for (unsigned i = 0; i < REPL_MAX_SLOTS; i++)
    if (e->slots[i].local.busy)
      return false;
  return true;
}

/* Nothing while a worker writes by itself, as all did before a task came (GATE_FAST): what the ring reads of a unit, to
 * write it back, is not kept apart from what that one writes of it. */
static void
take_requests (struct engine *e)
{
  struct req_slot *s, *ordered = NULL, *next;

  if (e->fast_inside && !gate_is_drained (&e->ia->gate))
    return;
  e->fast_inside = false;
  s = atomic_exchange (&e->queue, NULL);
  /* Last in, first out: turn it round. */
  for (; s; s = next) {
    next = s->next;
    s->next = ordered;
    ordered = s;
  }
  for (s = ordered; s; s = next) {
    unsigned slot = (unsigned) (s - e->slots);

    next = s->next;
    if (!e->prod.on || s->rq.epoch != atomic_load (&e->ia->gate.epoch)) {
      s->error = -ESHUTDOWN;
      release_worker (e, s);
    }
    else
      prod_request (e, slot);
  }
}

static void
arm_eventfd (struct engine *e)
{
  struct io_uring_sqe *sqe = ring_sqe (&e->ring);

  io_uring_prep_read (sqe, e->efd, &e->efd_value, sizeof e->efd_value, 0);
  ring_own (&e->ring, sqe, &e->efd_op);
}

static void
eventfd_done (struct ring_op *op, int res)
{
  struct engine *e = container_of (op, struct engine, efd_op);

  if (!atomic_load (&e->stop))
    arm_eventfd (e);
}

void
engine_store_failed (struct engine *e, int error, const char *reason)
{
  if (e->store_told)
    return;
  e->store_told = true;
  /* S1 c */
  if (error == EBADE)
    reason = "the device has been reserved by another host, for which this one is dead";
  log_line ("store %s failed: %s; it takes no writes any more", e->ia->p.store, reason);
  control_event (e, json_pack ("{s:s, s:o}", "event", "store-failed", "reason", jsonl_string (reason)));
}

static void
round_tick (struct engine *e)
{
  if (e->now_ms < e->tick_ms)
    return;
  e->tick_ms = e->now_ms + REPL_TICK_MS;
  gate_look (&e->ia->gate, e->now_ms);
  if (atomic_load (&e->slot_waiters) == 0)
    e->slots_full_ms = e->now_ms;
  for (unsigned i = 0; i < RING_FILES; i++)
    mlink_tick (&e->links[i], e->now_ms);
  prod_tick (e);
  copyside_tick (e);
  control_tick (e);
  if (!e->store_told && atomic_load (&e->ia->store.failed) != 0) {
    struct repl_event ev = { .kind = RE_STORE_FAILED, .reason = "a flush of the production store failed" };

    engine_store_failed (e, atomic_load (&e->ia->store.failed), strerror (atomic_load (&e->ia->store.failed)));
    prod_feed (e, &ev);
  }
  if (e->exit_at_ms != 0 && e->now_ms >= e->exit_at_ms) {
    /* Not through the host: idle connections would keep it alive, and its libraries' destructors
     * have been seen to wait for ever.  All that is durable is done. */
    unlink (e->ia->p.control);
    _exit (0);
  }
}

/* Comparisons of copies are at work. */
static void
round_digests (struct engine *e)
{
  struct digest_job job;

  while (digest_take (e->digester, &job))
    if (job.conn == 0)
      prodverify_digest (e, &job);
    else
      copyside_digest (e, &job);
}

static bool
has_requests (const struct engine *e)
{
  return !e->fast_inside && atomic_load (&e->queue);
}

static bool
has_work (const void *engine)
{
  const struct engine *e = engine;

  return has_requests (e) || e->env.memory || ring_is_ready (&e->ring);
}

/* Before the thread sleeps: does something come in the time that it takes to wake it? */
static bool
look_for_work (struct engine *e, uint64_t since_ns)
{
  if (!spin_is_worth (&e->spin))
    return false;
  ring_submit (&e->ring);
  return spin_for (&e->spin, since_ns, has_work, e);
}

static void
flush_links (struct engine *e)
{
  for (unsigned i = 0; i < RING_FILES; i++)
    mlink_flush (&e->links[i]);
}

static void
run_rounds (struct engine *e)
{
  while (!atomic_load (&e->stop)) {
    uint64_t idle_ns = 0;
    uint32_t wait_ms;

    e->now_ms = clock_boottime_ms ();
    take_requests (e);
    round_tick (e);
    if (e->env.memory_bytes > MEMORY_FIRST_BYTES) {
      /* What goes to the copies shall be on its way while this node copies. */
      flush_links (e);
      ring_submit (&e->ring);
    }
    sop_run (&e->env);
    copyside_round (e);
    if (digest_is_ready (e->digester))
      round_digests (e);
    if (snapshot_is_ready (e->snapshot))
      copyside_snapshot (e);
    role_round (e);
    control_round (e);
    flush_links (e);

    /* First what takes long.  A send that the socket took is over then; to learn that needs no call. */
    if (e->ring.is_urgent)
      ring_submit (&e->ring);
    wake_workers (e);
    if (ring_has_completions (&e->ring)) {
      ring_reap (&e->ring, RING_CQ_ENTRIES);
      continue;
    }
    wait_ms = e->task.kind != TASK_NONE || e->fast_inside ? 5 : (uint32_t) MIN (e->tick_ms - e->now_ms,
                                                                                (uint64_t) REPL_TICK_MS);
    if (wait_ms > 0)
      wait_ms = prod_wait_ms (e, wait_ms);
    if (wait_ms > 0 && has_work (e))
      wait_ms = 0;
    if (wait_ms > 0) {
      idle_ns = monotonic_ns ();
      if (look_for_work (e, idle_ns))
        wait_ms = 0;
    }
    if (wait_ms > 0) {
      atomic_store (&e->sleeping, true);
      if (has_requests (e)) {
        atomic_store (&e->sleeping, false);
        wait_ms = 0;
      }
    }
    ring_wait (&e->ring, wait_ms);
    atomic_store (&e->sleeping, false);
    if (idle_ns != 0)
      spin_learn (&e->spin, idle_ns);
    e->now_ms = clock_boottime_ms ();
    ring_reap (&e->ring, RING_CQ_ENTRIES);
  }
}

static void *
engine_main (void *arg)
{
  struct engine *e = arg;

  prctl (PR_SET_NAME, "iasp-engine");
  e->start_error = ring_init (&e->ring);
  if (e->start_error < 0) {
    sem_post (&e->ready);
    return NULL;
  }
  e->efd_op.done = eventfd_done;
  arm_eventfd (e);
  e->start_error = control_start (e, e->refusal, sizeof e->refusal);
  if (e->start_error == 0) {
    engine_set_open (e, false, "this node has no role for the IASP yet; ask crgctl status");
    sem_post (&e->ready);
    run_rounds (e);
    control_stop (e);
  }
  else
    sem_post (&e->ready);
  ring_exit (&e->ring);
  return NULL;
}

/* ---- life --------------------------------------------------------------------------------- */

struct engine *
engine_new (struct iasp *ia, char *err, size_t errlen)
{
  struct engine *e = calloc (1, sizeof *e);
  int r;

  if (!e) {
    snprintf (err, errlen, "no memory for the engine");
    return NULL;
  }
  e->ia = ia;
  e->efd = -1;
  e->control.fd = -1;
  pthread_mutex_init (&e->lock, NULL);
  sem_init (&e->ready, 0, 0);
  log_init (ia->p.name);
  for (unsigned i = 0; i < ARRAY_SIZE (e->free_slots); i++)
    atomic_store (&e->free_slots[i], UINT64_MAX);
  clock_random (&e->session, sizeof e->session);
  r = clock_boot_id (e->boot_id);
  if (r < 0) {
    snprintf (err, errlen, "the kernel's boot id: %s", strerror (-r));
    goto error;
  }
  if (ia->p.n_listen > 0) {
    e->tls = tlslink_ctx_new (ia->p.tls_ca, ia->p.tls_cert, ia->p.tls_key, err, errlen);
    if (!e->tls)
      goto error;
  }
  r = storemeta_init (&e->meta);
  if (r == 0)
    r = sop_env_init (&e->env, &e->ring, &ia->store);
  for (unsigned i = 0; r == 0 && i < REPL_MAX_SLOTS; i++)
    r = sop_init (&e->slots[i].local, &e->env, local_done);
  if (r == 0)
    r = metaw_init (e);
  if (r == 0)
    r = mapw_init (e);
  if (r == 0)
    r = prod_init (e);
  if (r == 0)
    r = copyside_init (e);
  if (r == 0 && (!(e->digester = digest_new (&ia->store)) || !(e->snapshot = snapshot_new (&ia->p))))
    r = -ENOMEM;
  if (r < 0) {
    snprintf (err, errlen, "no memory for the engine");
    goto error;
  }
  return e;

error:
  engine_free (e);
  return NULL;
}

int
engine_start (struct engine *e, char *err, size_t errlen)
{
  sigset_t all, old;
  int r;

  e->efd = eventfd (0, EFD_CLOEXEC);
  digest_wake_by (e->digester, e->efd);
  snapshot_wake_by (e->snapshot, e->efd);
  if (e->efd == -1) {
    r = -errno;
    snprintf (err, errlen, "eventfd: %s", strerror (-r));
    return r;
  }
  /* Signals are the host's. */
  sigfillset (&all);
  pthread_sigmask (SIG_SETMASK, &all, &old);
  r = -pthread_create (&e->thread, NULL, engine_main, e);
  pthread_sigmask (SIG_SETMASK, &old, NULL);
  if (r < 0) {
    snprintf (err, errlen, "no engine thread: %s", strerror (-r));
    return r;
  }
  e->started = true;
  while (sem_wait (&e->ready) == -1 && errno == EINTR)
    ;
  if (e->start_error < 0)
    snprintf (err, errlen, "%s: %s", e->refusal[0] ? e->refusal : "io_uring can't be set up", strerror (-e->start_error));
  return e->start_error;
}

void
engine_stop (struct engine *e)
{
  uint64_t one = 1;

  if (!e->started)
    return;
  atomic_store (&e->stop, true);
  if (write (e->efd, &one, sizeof one) < 0)
    log_line ("eventfd: %s", strerror (errno));
  pthread_join (e->thread, NULL);
  e->started = false;
}

void
engine_free (struct engine *e)
{
  if (!e)
    return;
  digest_free (e->digester);
  snapshot_free (e->snapshot);
  prod_free (e);
  mapw_free (e);
  copyside_free (e);
  for (unsigned i = 0; i < REPL_MAX_SLOTS; i++)
    sop_free (&e->slots[i].local);
  sop_free (&e->metaw.sop);
  sop_env_free (&e->env);
  storemeta_destroy (&e->meta);
  if (e->tls)
    tlslink_ctx_free (e->tls);
  if (e->efd != -1)
    close (e->efd);
  json_decref (e->task.request);
  pthread_mutex_destroy (&e->lock);
  sem_destroy (&e->ready);
  free (e);
}
