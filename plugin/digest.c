/* SPDX-License-Identifier: BSD-3-Clause */
/* The thread that makes digests: see digest.h.  Jobs wait in one ring of fixed size: [taken, done) are
 * done, [done, started) wait; the first of these is at work.
 */
#include "config.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <openssl/evp.h>

#include "common/util.h"
#include "plugin/digest.h"

/* Clients first. */
#define DIGEST_NICE 10

struct digester {
  struct store *store;
  int efd;
  pthread_t thread;
  bool running; /* the engine's */
  pthread_mutex_t lock;
  pthread_cond_t cond;
  bool stop;                             /* under the lock */
  uint64_t taken;                        /* the engine's */
  _Atomic uint64_t started, done;        /* the engine's; the thread's */
  struct digest_job jobs[DIGEST_MAX_JOBS];
  uint8_t *buf; /* DIRTY_BLOCK_SIZE_MAX, aligned */
  uint32_t zero_length;
  uint8_t zero[WIRE_DIGEST_LEN]; /* of so many zeroes */
};

static int
sha256 (const uint8_t *data, uint32_t len, uint8_t digest[WIRE_DIGEST_LEN])
{
  uint8_t full[EVP_MAX_MD_SIZE];
  unsigned n = 0;

  if (EVP_Digest (data, len, full, &n, EVP_sha256 (), NULL) != 1)
    return -ENOMEM;
  memcpy (digest, full, WIRE_DIGEST_LEN);
  return 0;
}

static int
one_block (struct digester *d, uint64_t offset, uint32_t len, uint8_t digest[WIRE_DIGEST_LEN], bool *all_hole)
{
  const bool hole = store_is_hole (d->store, offset, len);
  int r;

  *all_hole = *all_hole && hole;
  if (hole && d->zero_length == len) {
    memcpy (digest, d->zero, WIRE_DIGEST_LEN);
    return 0;
  }
  if (hole)
    memset (d->buf, 0, len);
  else {
    r = store_pread (d->store, d->buf, len, offset);
    if (r < 0)
      return r;
  }
  r = sha256 (d->buf, len, digest);
  if (r == 0 && hole) {
    memcpy (d->zero, digest, WIRE_DIGEST_LEN);
    d->zero_length = len;
  }
  return r;
}

static void
work (struct digester *d, struct digest_job *job)
{
  job->error = 0;
  job->n = 0;
  job->hole = true;
  for (uint64_t at = 0; at < job->length && job->error == 0; at += job->block_size) {
    uint32_t len = (uint32_t) MIN ((uint64_t) job->block_size, job->length - at);

    job->error = one_block (d, job->offset + at, len, job->digests[job->n], &job->hole);
    if (job->error == 0)
      job->n++;
  }
}

static void *
digest_main (void *arg)
{
  struct digester *d = arg;
  const uint64_t one = 1;

  prctl (PR_SET_NAME, "iasp-digest");
  (void) setpriority (PRIO_PROCESS, (id_t) syscall (SYS_gettid), DIGEST_NICE);
  for (;;) {
    uint64_t next = atomic_load (&d->done);
    bool stop;

    pthread_mutex_lock (&d->lock);
    while (!d->stop && atomic_load (&d->started) == next)
      pthread_cond_wait (&d->cond, &d->lock);
    stop = d->stop;
    pthread_mutex_unlock (&d->lock);
    if (stop)
      return NULL;
    work (d, &d->jobs[next % DIGEST_MAX_JOBS]);
    atomic_store (&d->done, next + 1);
    /* A wake-up that gets lost is made up for by the engine's next tick. */
    if (write (d->efd, &one, sizeof one) < 0)
      continue;
  }
}

/* ---- the engine's side -------------------------------------------------------------------- */

struct digester *
digest_new (struct store *store)
{
  struct digester *d = calloc (1, sizeof *d);
  void *buf;

  if (!d)
    return NULL;
  if (posix_memalign (&buf, META_BLOCK_SIZE, DIRTY_BLOCK_SIZE_MAX) != 0) {
    free (d);
    return NULL;
  }
  d->buf = buf;
  d->store = store;
  d->efd = -1;
  pthread_mutex_init (&d->lock, NULL);
  pthread_cond_init (&d->cond, NULL);
  return d;
}

void
digest_wake_by (struct digester *d, int efd)
{
  d->efd = efd;
}

void
digest_free (struct digester *d)
{
  if (!d)
    return;
  if (d->running) {
    pthread_mutex_lock (&d->lock);
    d->stop = true;
    pthread_cond_signal (&d->cond);
    pthread_mutex_unlock (&d->lock);
    pthread_join (d->thread, NULL);
  }
  pthread_cond_destroy (&d->cond);
  pthread_mutex_destroy (&d->lock);
  free (d->buf);
  free (d);
}

bool
digest_start (struct digester *d, uint32_t conn, uint64_t seq, uint64_t offset, uint64_t length, uint32_t block_size)
{
  const uint64_t next = atomic_load (&d->started);
  struct digest_job *job = &d->jobs[next % DIGEST_MAX_JOBS];

  if (next - d->taken == DIGEST_MAX_JOBS)
    return false;
  /* The engine's thread has all signals blocked, and so has this one. */
  if (!d->running && pthread_create (&d->thread, NULL, digest_main, d) != 0)
    return false;
  d->running = true;
  job->conn = conn;
  job->seq = seq;
  job->offset = offset;
  job->length = length;
  job->block_size = block_size;
  pthread_mutex_lock (&d->lock);
  atomic_store (&d->started, next + 1);
  pthread_cond_signal (&d->cond);
  pthread_mutex_unlock (&d->lock);
  return true;
}

bool
digest_is_ready (const struct digester *d)
{
  return atomic_load (&d->done) != d->taken;
}

bool
digest_take (struct digester *d, struct digest_job *job)
{
  if (!digest_is_ready (d))
    return false;
  *job = d->jobs[d->taken++ % DIGEST_MAX_JOBS];
  return true;
}

bool
digest_has_room (const struct digester *d, unsigned jobs)
{
  return atomic_load (&d->started) - d->taken + jobs <= DIGEST_MAX_JOBS;
}

bool
digest_is_idle (const struct digester *d)
{
  return atomic_load (&d->started) == d->taken;
}
