/* SPDX-License-Identifier: BSD-3-Clause */
/* The store against a model in memory: random reads, writes, zeroes and trims at any byte, by the
 * blocking functions and through the ring, direct and through the page cache; several at once that
 * share a sector; superblocks; the lock; a store that failed.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/util.h"
#include "plugin/sop.h"
#include "plugin/store.h"
#include "plugin/storemeta.h"
#include "tests/tap.h"

#define SIZE   (4u << 20)
#define MAXLEN (96u * 1024)

static uint8_t model[SIZE], seen[SIZE];
static uint64_t rng;

static uint64_t
rnd (uint64_t below)
{
  rng = rng * UINT64_C (6364136223846793005) + UINT64_C (1442695040888963407);
  return (rng >> 33) % below;
}

static void
fill (uint8_t *p, size_t n)
{
  for (size_t i = 0; i < n; i++)
    p[i] = (uint8_t) rnd (255) + 1;
}

static char disk_path[] = "unit-store-XXXXXX", memory_path[] = "/dev/shm/unit-store-XXXXXX";
static char *path;

static bool
equals_model (struct store *s)
{
  return store_pread (s, seen, SIZE, 0) == 0 && memcmp (seen, model, SIZE) == 0;
}

static void
blocking (struct store *s, const char *what)
{
  static uint8_t buf[MAXLEN];

  for (unsigned i = 0; i < 600; i++) {
    uint64_t offset = rnd (SIZE);
    uint32_t len = (uint32_t) MIN (rnd (rnd (2) ? MAXLEN : 700) + 1, SIZE - offset);
    unsigned flags = (rnd (16) == 0 ? STORE_F_FUA : 0) | (rnd (2) ? STORE_F_MAY_TRIM : 0);
    int r = 0;

    switch (rnd (4)) {
    case 0:
    case 1:
      fill (buf, len);
      memcpy (model + offset, buf, len);
      r = store_pwrite (s, buf, len, offset, flags);
      break;
    case 2:
      memset (model + offset, 0, len);
      r = store_zero (s, len, offset, flags);
      break;
    case 3:
      r = store_pread (s, buf, len, offset);
      check (memcmp (buf, model + offset, len) == 0, "%s: read of %u at %llu", what, len, (unsigned long long) offset);
      break;
    }
    check (r == 0, "%s: operation %u: %s", what, i, strerror (-r));
  }
  ok (equals_model (s), "%s: the blocking functions do what the model does", what);
  ok (store_trim (s, 100000, 4097, 0) == 0 && store_pread (s, seen, 100000, 4097) == 0 && is_all_zero (seen, 100000),
      "%s: a trimmed range reads as zeroes", what);
  memset (model + 4097, 0, 100000);
}

/* ---- through the ring --------------------------------------------------------------------- */

#define OPS 24
static struct ring ring;
static struct sop_env env;
static struct job {
  struct sop op;
  uint8_t *buf;
  uint64_t offset;
  uint32_t len;
  bool busy;
  int error;
} jobs[OPS];

static void
job_done (struct sop *op, int error)
{
  struct job *j = container_of (op, struct job, op);

  j->busy = false;
  j->error = error;
}

static bool
overlaps (uint64_t offset, uint32_t len)
{
  for (unsigned i = 0; i < OPS; i++)
    if (jobs[i].busy && jobs[i].offset < offset + len && offset < jobs[i].offset + jobs[i].len)
      return true;
  return false;
}

static bool
wait_jobs (unsigned until) /* at most so many are left */
{
  for (unsigned rounds = 0; rounds < 20000; rounds++) {
    unsigned n = 0;

    for (unsigned i = 0; i < OPS; i++)
      n += jobs[i].busy;
    if (n <= until)
      return true;
    if (env.memory)
      sop_run (&env);
    else
      ring_wait (&ring, 100);
    ring_reap (&ring, 1000);
  }
  return false;
}

static void
through_ring (struct store *s, const char *what)
{
  bool ended = true;

  is (ring_init (&ring), 0, "ring");
  is (sop_env_init (&env, &ring, s), 0, "environment");
  for (unsigned i = 0; i < OPS; i++) {
    void *p;

    if (sop_init (&jobs[i].op, &env, job_done) < 0 || posix_memalign (&p, 4096, MAXLEN + 8192) != 0)
      abort ();
    jobs[i].buf = p;
    jobs[i].busy = false;
    jobs[i].error = 0;
  }
  for (unsigned n = 0; n < 4000 && ended; n++) {
    unsigned i = 0;
    uint64_t offset;
    uint32_t len;

    ended = wait_jobs (OPS - 1);
    while (jobs[i].busy)
      i++;
    check (jobs[i].error == 0, "%s: an operation: %s", what, strerror (-jobs[i].error));
    /* Crowded, so that many share a sector and none overlaps. */
    do {
      offset = rnd (4) ? (1 << 20) + rnd (16384) : rnd (SIZE - MAXLEN);
      len = (uint32_t) (rnd (4) ? rnd (600) + 1 : rnd (MAXLEN) + 1);
    } while (overlaps (offset, len) && wait_jobs ((unsigned) rnd (OPS)));
    jobs[i].offset = offset;
    jobs[i].len = len;
    jobs[i].busy = true;
    if (rnd (3) == 0) {
      memset (model + offset, 0, len);
      sop_start (&jobs[i].op, SOP_ZERO, offset, len, NULL, rnd (32) == 0, rnd (2));
    }
    else {
      uint8_t *at = jobs[i].buf + (offset & (s->align - 1));

      fill (at, len);
      memcpy (model + offset, at, len);
      sop_start (&jobs[i].op, SOP_WRITE, offset, len, at, rnd (32) == 0, false);
    }
  }
  ok (ended && wait_jobs (0), "%s: every operation ends", what);
  ok (equals_model (s), "%s: operations that share sectors don't undo each other", what);

  jobs[0].busy = true;
  jobs[0].error = 1;
  sop_start (&jobs[0].op, SOP_FLUSH, 0, 0, NULL, false, false);
  ok (jobs[0].busy && wait_jobs (0) && jobs[0].error == 0, "%s: flush", what);
  jobs[0].busy = true;
  memset (jobs[0].buf, 0xff, 8192);
  sop_start (&jobs[0].op, SOP_READ, 513, 5000, jobs[0].buf + (513 & (s->align - 1)), false, false);
  ok (wait_jobs (0) && memcmp (jobs[0].buf + (513 & (s->align - 1)), model + 513, 5000) == 0, "%s: read", what);

  /* F4: a failed flush is never retried into success. */
  store_fail (s, EIO);
  jobs[0].busy = true;
  sop_start (&jobs[0].op, SOP_WRITE, 0, 512, jobs[0].buf, false, false);
  ok (jobs[0].busy && wait_jobs (0) && jobs[0].error == -EIO, "%s: a failed store takes no write", what);
  is (store_flush (s), -EIO, "nor a flush");
  is (store_pwrite (s, model, 1, 0, 0), -EIO, "nor one by a worker");
  atomic_store (&s->failed, 0);

  for (unsigned i = 0; i < OPS; i++) {
    sop_free (&jobs[i].op);
    free (jobs[i].buf);
  }
  sop_env_free (&env);
  ring_exit (&ring);
}

static void
superblocks (struct store *s)
{
  struct storemeta sm;
  struct params p;
  char err[512];
  uint8_t id[CRG_ID_LEN] = { 1 };

  params_init (&p);
  snprintf (p.name, sizeof p.name, "payroll");
  snprintf (p.crg, sizeof p.crg, "wages");
  snprintf (p.site, sizeof p.site, "rome");
  snprintf (p.store, sizeof p.store, "%s", path);
  memcpy (p.cluster_id, id, sizeof id);
  memcpy (p.crg_id, id, sizeof id);
  memcpy (p.iasp_id, id, sizeof id);
  memcpy (p.lineage, id, sizeof id);
  p.size = SIZE / 2;

  store_zero (s, SIZE, 0, 0);
  is (storemeta_init (&sm), 0, "memory for superblocks");
  is (storemeta_check_free (s, path, err, sizeof err), 0, "an empty store is free (S3)");
  is (storemeta_read (&sm, s, path, err, sizeof err), -ENODATA, "and has none");
  p.size = SIZE;
  is (storemeta_format (&sm, s, &p, 0, err, sizeof err), -ENOSPC, "no room for the metadata: refused");
  p.size = SIZE / 2;
  is (storemeta_format (&sm, s, &p, 0, err, sizeof err), 0, "formatted");
  sm.sb.tenure = 7;
  is (storemeta_write (&sm, s, true), 0, "written to both slots");
  sm.sb.tenure = 8;
  is (storemeta_write (&sm, s, false), 0, "and to one");
  is (storemeta_read (&sm, s, path, err, sizeof err), 0, "read back");
  is (sm.sb.tenure, 8, "the newest");
  storemeta_prepare (&sm);
  storemeta_failed (&sm);
  is (storemeta_write (&sm, s, false), 0, "one more, after one that failed");
  is (storemeta_read (&sm, s, path, err, sizeof err), 0, "read back");
  ok (!sm.damaged, "and a write that failed is no damage");
  is (storemeta_check_free (s, path, err, sizeof err), -EBUSY, "a store of a CRG is not free (S3)");
  ok (strstr (err, "payroll") && strstr (err, "wages"), "and the sentence names it: %s", err);
  storemeta_destroy (&sm);
}

int
main (void)
{
  static const struct {
    enum store_direct direct;
    const char *what;
    char *path;
  } modes[] = { { STORE_DIRECT_OFF, "page cache", disk_path },
                { STORE_DIRECT_AUTO, "direct", disk_path },
                { STORE_DIRECT_AUTO, "memory", memory_path },
                { STORE_DIRECT_ON, "memory, direct", memory_path } };
  struct store s, other;
  char err[512];
  int disk_fd = mkstemp (disk_path), memory_fd = mkstemp (memory_path), fd;

  if (disk_fd == -1)
    return 1;
  store_load ();
  for (unsigned i = 0; i < ARRAY_SIZE (modes); i++) {
    path = modes[i].path;
    fd = path == memory_path ? memory_fd : disk_fd;
    if (fd == -1) {
      printf ("# %s: no file in /dev/shm, not tested\n", modes[i].what);
      continue;
    }
    rng = 42 + i;
    memset (model, 0, SIZE);
    if (ftruncate (fd, 0) == -1 || ftruncate (fd, SIZE) == -1)
      return 1;
    store_init (&s);
    if (store_open (&s, path, modes[i].direct, err, sizeof err) == -EINVAL && path == memory_path) {
      printf ("# %s: not tested: %s\n", modes[i].what, err); /* before Linux 6.6 */
      store_destroy (&s);
      continue;
    }
    ok (s.fd != -1, "%s", modes[i].what);
    if (path == memory_path && s.is_memory)
      is (s.direct, modes[i].direct == STORE_DIRECT_ON, "memory has no cache to bypass");
    printf ("# %s: direct %d, alignment %u\n", modes[i].what, s.direct, s.align);
    is (store_lock (&s, path), 0, "locked");
    store_init (&other);
    is (store_open (&other, path, modes[i].direct, err, sizeof err), 0, "opened a second time");
    is (store_lock (&other, path), -EBUSY, "but not locked a second time (S1)");
    store_destroy (&other);
    blocking (&s, modes[i].what);
    through_ring (&s, modes[i].what);
    superblocks (&s);
    store_destroy (&s);
  }
  store_init (&s);
  is (store_open (&s, "/nonexistent/store", STORE_DIRECT_AUTO, err, sizeof err), -ENOENT, "an absent store");
  ok (strstr (err, "/nonexistent/store") != NULL, "is named: %s", err);
  is (store_open (&s, "/dev/null", STORE_DIRECT_AUTO, err, sizeof err), -EINVAL, "neither file nor device");
  if (ftruncate (disk_fd, 0) == -1)
    return 1;
  is (store_open (&s, disk_path, STORE_DIRECT_AUTO, err, sizeof err), -EINVAL, "an empty file");
  store_destroy (&s);
  unlink (disk_path);
  close (disk_fd);
  if (memory_fd != -1) {
    unlink (memory_path);
    close (memory_fd);
  }
  store_unload ();
  return tap_done ();
}
