/* SPDX-License-Identifier: BSD-3-Clause */
/* The store layer of the test build: what power loss takes and what it must leave, by hand and in a
 * process that is killed at any instruction; rules for errors and delays; counters; another boot.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/util.h"
#include "plugin/sop.h"
#include "plugin/store.h"
#include "plugin/storefault.h"
#include "tests/tap.h"

#ifdef CRG_TEST

#define SIZE   (2u << 20)
#define BLOCK  4096u
#define BLOCKS (SIZE / BLOCK)

static char path[] = "unit-storefault-XXXXXX";
static char control[64], cache[64];

static void
rules (const char *text)
{
  char name[80];
  FILE *fp;

  snprintf (name, sizeof name, "%s.new", control);
  fp = fopen (name, "w");
  if (!fp || fputs (text, fp) < 0 || fclose (fp) != 0 || rename (name, control) == -1)
    abort ();
}

static void
open_store (struct store *s, enum store_direct direct)
{
  char err[512];

  store_init (s);
  if (store_open (s, path, direct, err, sizeof err) < 0 || store_lock (s, path) < 0) {
    printf ("# %s\n", err);
    abort ();
  }
}

static uint8_t
byte_at (uint64_t offset)
{
  uint8_t b = 0;
  int fd = open (path, O_RDONLY);

  if (fd == -1 || pread (fd, &b, 1, (off_t) offset) != 1)
    abort ();
  close (fd);
  return b;
}

static void
put (struct store *s, uint64_t offset, uint32_t length, uint8_t c, unsigned flags)
{
  uint8_t *buf = malloc (length);
  int r;

  memset (buf, c, length);
  r = store_pwrite (s, buf, length, offset, flags);
  check (r == 0, "write at %llu: %d", (unsigned long long) offset, r);
  free (buf);
}

static void
power_loss (uint64_t seed)
{
  char report[128];
  int r = storefault_power_loss (path, seed, report, sizeof report);

  check (r == 0, "power loss: %d", r);
  printf ("# %s\n", report);
}

static void
by_hand (enum store_direct direct, const char *mode)
{
  struct store s;

  rules ("cache\n");
  open_store (&s, direct);
  put (&s, 0, BLOCK, 1, 0);
  put (&s, 8192, 3 * BLOCK, 1, 0);
  is (store_flush (&s), 0, mode);
  put (&s, 0, BLOCK, 2, 0);
  put (&s, 0, BLOCK, 3, 0);
  put (&s, 8192 + 100, 5000, 4, 0);
  is (store_trim (&s, BLOCK, 8192 + 2 * BLOCK, 0), 0, "trim");
  put (&s, 65536, BLOCK, 5, STORE_F_FUA);
  store_destroy (&s);
  ok (byte_at (0) == 3 && byte_at (8192 + 100) == 4 && byte_at (8192 + 2 * BLOCK) == 0,
      "%s: the end of the process loses nothing", mode);
  power_loss (0);
  is (byte_at (0), 1, "the flushed version comes back");
  is (byte_at (8192 + 100), 1, "also where a write covers parts of blocks");
  is (byte_at (8192 + 5099), 1, "to its last byte");
  is (byte_at (8192 + 2 * BLOCK), 1, "also under a trim");
  is (byte_at (65536), 5, "a write with FUA stays");

  /* A stable write over one that isn't: neither comes back. */
  open_store (&s, direct);
  put (&s, 0, BLOCK, 6, 0);
  put (&s, 0, BLOCK, 7, STORE_F_FUA);
  put (&s, BLOCK, BLOCK, 8, 0);
  store_destroy (&s);
  power_loss (0);
  is (byte_at (0), 7, "what stood before a stable write can't come back");
  is (byte_at (BLOCK), 0, "what was never flushed is gone");

  /* Any of whole writes; any of sectors. */
  for (unsigned seed = 1; seed < 4; seed++) {
    unsigned kept = 0, torn = 0;

    open_store (&s, direct);
    for (unsigned i = 0; i < 100; i++)
      put (&s, i * BLOCK, BLOCK, 0x10, 0);
    is (store_flush (&s), 0, "flushed");
    for (unsigned i = 0; i < 100; i++)
      put (&s, i * BLOCK, BLOCK, (uint8_t) (0x20 + seed), 0);
    store_destroy (&s);
    power_loss (seed);
    for (unsigned i = 0; i < 100; i++) {
      unsigned n = 0;

      for (unsigned at = 0; at < BLOCK; at += 512)
        n += byte_at (i * BLOCK + at) != 0x10;
      kept += n == 8;
      torn += n > 0 && n < 8;
    }
    printf ("# seed %u: %u of 100 writes kept, %u torn\n", seed, kept, torn);
    if (seed == 1)
      ok (kept > 20 && kept < 80 && torn == 0, "%s: whole writes are lost", mode);
    else if (seed == 2)
      ok (torn > 50, "%s: writes are torn", mode);
    else
      ok (kept > 20 && torn <= 1, "%s: the youngest are lost", mode);
  }

  /* More than the cache holds goes through, and a hole stays one. */
  open_store (&s, direct);
  is (store_zero (&s, SIZE, 0, STORE_F_MAY_TRIM), 0, "all of it trimmed");
  is (store_flush (&s), 0, "flushed");
  store_destroy (&s);
  power_loss (0);
  is (byte_at (65536), 0, "it stays so");
}

static void
errors (void)
{
  struct store s;
  uint8_t buf[BLOCK] = { 0 };
  uint64_t n[SF_N_COUNTERS], start;

  rules ("fail write EIO after 2 times 1 half\n# a comment\nfail read EIO after 1\nfail meta-write ENOSPC\n");
  open_store (&s, STORE_DIRECT_OFF);
  s.data_bytes = SIZE - 65536;
  put (&s, 0, BLOCK, 1, 0);
  put (&s, 0, BLOCK, 2, 0);
  memset (buf, 3, sizeof buf);
  is (store_pwrite (&s, buf, BLOCK, 0, 0), -EIO, "the third write fails");
  ok (byte_at (0) == 3 && byte_at (BLOCK / 2) == 2, "and its first half is written");
  is (store_pwrite (&s, buf, BLOCK, 0, 0), 0, "the fourth doesn't");
  is (store_pread (&s, buf, BLOCK, 0), 0, "a read");
  is (store_pread (&s, buf, BLOCK, 0), -EIO, "the second read fails");
  is (store_pread (&s, buf, BLOCK, 0), -EIO, "and all later ones");
  is (store_pwrite (&s, buf, BLOCK, SIZE - 65536, 0), -ENOSPC, "metadata");
  is (store_pread (&s, buf, BLOCK, SIZE - 65536), 0, "metadata is read");
  is (atomic_load (&s.failed), 0, "the store has not failed");
  rules ("fail flush EIO\ndelay write 20000\n");
  start = clock_boottime_ms ();
  is (store_pwrite (&s, buf, BLOCK, 0, 0), 0, "other rules, seen at once");
  ok (clock_boottime_ms () - start >= 20, "a write takes its time");
  is (store_pread (&s, buf, BLOCK, 0), 0, "reads are good again");
  is (store_pwrite (&s, buf, BLOCK, 0, STORE_F_FUA), -EIO, "a write with FUA fails with the flush");
  is (store_flush (&s), -EIO, "F4: and the store with it");
  rules ("cache\n");
  is (store_flush (&s), -EIO, "it stays failed");
  store_destroy (&s);
  is (storefault_counters (path, n), 0, "counters");
  ok (n[SF_N_FAILED] >= 5 && n[SF_N_META_WRITE] == 1 && n[SF_N_META_READ] == 1 && n[SF_N_STABLE] >= 1,
      "count: %llu failed, %llu meta-writes", (unsigned long long) n[SF_N_FAILED],
      (unsigned long long) n[SF_N_META_WRITE]);
}

/* F4: ENOSPC of a write with FUA is its own, or that of pages of an earlier write, which no later flush of the same
 * description would report. */

static int op_error;

static void
op_done (struct sop *op, int error)
{
  op_error = error;
}

static int
fua_write (struct store *s, struct sop *op, void *buf)
{
  if (!op)
    return store_pwrite (s, buf, BLOCK, 0, STORE_F_FUA);
  op_error = 1;
  sop_start (op, SOP_WRITE, 0, BLOCK, buf, true, false);
  for (unsigned i = 0; i < 100 && op_error == 1; i++) {
    sop_run (op->env);
    ring_wait (op->env->ring, 100);
    ring_reap (op->env->ring, 16);
  }
  return op_error;
}

static void
no_space (enum store_direct direct, bool by_ring)
{
  struct ring r;
  struct sop_env sop_env;
  struct sop sop, *op = by_ring ? &sop : NULL;
  struct store s;
  const char *what;
  void *buf;

  rules ("cache\n");
  open_store (&s, direct);
  what = by_ring ? s.direct ? "ring, direct" : "ring, page cache" : s.direct ? "direct" : "page cache";
  if (posix_memalign (&buf, BLOCK, BLOCK) != 0 || ring_init (&r) < 0 || sop_env_init (&sop_env, &r, &s) < 0
      || sop_init (&sop, &sop_env, op_done) < 0)
    abort ();
  memset (buf, 7, BLOCK);
  rules ("fail write ENOSPC times 1\n");
  ok (fua_write (&s, op, buf) == -ENOSPC, "%s: a full store", what);
  ok (atomic_load (&s.failed) == 0 && fua_write (&s, op, buf) == 0, "%s: is no failed one", what);
  rules ("fail flush ENOSPC times 1\n");
  ok (fua_write (&s, op, buf) == -ENOSPC, "%s: no space for what was written before", what);
  if (s.direct)
    ok (store_flush (&s) == 0, "%s: none of which can be lost", what);
  else
    ok (store_flush (&s) == -ENOSPC, "%s: it is lost, and a flush says so", what);
  sop_free (&sop);
  sop_env_free (&sop_env);
  ring_exit (&r);
  free (buf);
  store_destroy (&s);
}

/* Two trims under way whose way to give space back is refused: that says nothing of the next way, to zero a range. */
static void
refused_trims (void)
{
  struct ring r;
  struct sop_env sop_env;
  struct sop sops[2];
  struct store s;

  rules ("fail write EOPNOTSUPP times 2\n");
  open_store (&s, STORE_DIRECT_OFF);
  if (ring_init (&r) < 0 || sop_env_init (&sop_env, &r, &s) < 0)
    abort ();
  for (unsigned i = 0; i < 2; i++) {
    if (sop_init (&sops[i], &sop_env, op_done) < 0)
      abort ();
    sop_start (&sops[i], SOP_ZERO, i * BLOCK, BLOCK, NULL, false, true);
  }
  for (unsigned i = 0; i < 100 && (sops[0].busy || sops[1].busy); i++) {
    sop_run (&sop_env);
    ring_wait (&r, 100);
    ring_reap (&r, 16);
  }
  ok (!sops[0].busy && !sops[1].busy && op_error == 0, "two trims, each refused once, are done");
  ok (s.no_punch && !s.no_zero_range, "of the next way to do them nothing bad is learnt");
  for (unsigned i = 0; i < 2; i++)
    sop_free (&sops[i]);
  sop_env_free (&sop_env);
  ring_exit (&r);
  store_destroy (&s);
}

/* ---- killed at any instruction ------------------------------------------------------------ */

/* What the child has done, in memory that outlives it.  Version v of a block is its number in each
 * word, or zeroes. */
struct shared {
  _Atomic uint64_t issued[BLOCKS], answered[BLOCKS], flushed[BLOCKS];
  _Atomic uint64_t n_flushes;
};
static struct shared *shared;

static bool
is_zero_version (uint64_t block, uint64_t v)
{
  return v == 0 || (block * 31 + v * 17) % 7 == 0;
}

#define JOBS 8
static struct ring ring;
static struct sop_env env;
static struct job {
  struct sop op;
  uint64_t *buf;
  uint64_t block, version;
  bool busy, fua;
} jobs[JOBS];
static struct sop flush_op;
static bool flush_busy;
static uint64_t at_flush[BLOCKS];
static uint64_t rng;

static uint64_t
rnd (uint64_t below)
{
  rng = rng * UINT64_C (6364136223846793005) + UINT64_C (1442695040888963407);
  return (rng >> 33) % below;
}

static void
answered (struct job *j)
{
  shared->answered[j->block] = j->version;
  if (j->fua)
    shared->flushed[j->block] = MAX (shared->flushed[j->block], j->version);
}

static void
job_done (struct sop *op, int error)
{
  struct job *j = container_of (op, struct job, op);

  if (error)
    abort ();
  answered (j);
  j->busy = false;
}

static void
flush_done (struct sop *op, int error)
{
  if (error)
    abort ();
  for (unsigned i = 0; i < BLOCKS; i++)
    shared->flushed[i] = MAX (shared->flushed[i], at_flush[i]);
  shared->n_flushes++;
  flush_busy = false;
}

static bool
is_busy (uint64_t block)
{
  for (unsigned i = 0; i < JOBS; i++)
    if (jobs[i].busy && jobs[i].block == block)
      return true;
  return false;
}

static void
one_job (struct store *s, struct job *j)
{
  uint64_t block;
  bool zero;

  do
    block = rnd (BLOCKS);
  while (is_busy (block));
  j->block = block;
  j->version = shared->issued[block] + 1;
  j->fua = rnd (10) == 0;
  zero = is_zero_version (block, j->version);
  for (unsigned i = 0; i < BLOCK / 8; i++)
    j->buf[i] = j->version;
  shared->issued[block] = j->version;
  if (rnd (4) == 0) {
    int r = zero ? store_zero (s, BLOCK, block * BLOCK, (j->fua ? STORE_F_FUA : 0) | STORE_F_MAY_TRIM)
                 : store_pwrite (s, j->buf, BLOCK, block * BLOCK, j->fua ? STORE_F_FUA : 0);

    if (r < 0)
      abort ();
    answered (j);
    return;
  }
  j->busy = true;
  sop_start (&j->op, zero ? SOP_ZERO : SOP_WRITE, block * BLOCK, BLOCK, j->buf, j->fua, rnd (2));
}

static void UTIL_NORETURN
child (enum store_direct direct)
{
  struct store s;
  void *p;

  open_store (&s, direct);
  if (ring_init (&ring) < 0 || sop_env_init (&env, &ring, &s) < 0 || sop_init (&flush_op, &env, flush_done) < 0)
    abort ();
  for (unsigned i = 0; i < JOBS; i++) {
    if (posix_memalign (&p, BLOCK, BLOCK) != 0 || sop_init (&jobs[i].op, &env, job_done) < 0)
      abort ();
    jobs[i].buf = p;
  }
  for (unsigned rounds = 0; rounds < 1000000; rounds++) {
    for (unsigned i = 0; i < JOBS; i++)
      if (!jobs[i].busy)
        one_job (&s, &jobs[i]);
    if (!flush_busy && rnd (20) == 0) {
      for (unsigned i = 0; i < BLOCKS; i++)
        at_flush[i] = shared->answered[i];
      flush_busy = true;
      sop_start (&flush_op, SOP_FLUSH, 0, 0, NULL, false, false);
    }
    ring_wait (&ring, 10);
    ring_reap (&ring, 64);
  }
  _exit (0);
}

/* Every sector is a version between the two. */
static unsigned
judge (const _Atomic uint64_t *lowest, const char *what, unsigned *lost)
{
  static uint64_t words[BLOCKS * (BLOCK / 8)];
  unsigned bad = 0;
  int fd = open (path, O_RDONLY);

  if (fd == -1 || pread (fd, words, sizeof words, 0) != (ssize_t) sizeof words)
    abort ();
  close (fd);
  for (unsigned b = 0; b < BLOCKS; b++)
    for (unsigned at = 0; at < BLOCK / 8; at += 64) {
      const uint64_t *w = words + (size_t) b * (BLOCK / 8) + at;
      uint64_t low = lowest[b], high = shared->issued[b];
      bool good = true;

      for (unsigned i = 1; i < 64; i++)
        good = good && w[i] == w[0];
      if (w[0] != 0)
        good = good && w[0] >= low && w[0] <= high && !is_zero_version (b, w[0]);
      else {
        bool any = false;

        for (uint64_t v = low; v <= high && !any; v++)
          any = is_zero_version (b, v);
        good = good && any;
      }
      *lost += w[0] < shared->answered[b] && !is_zero_version (b, shared->answered[b]);
      if (!good && bad++ < 5)
        printf ("# %s: block %u sector %u holds %llu, wanted %llu to %llu\n", what, b, at / 64,
                (unsigned long long) w[0], (unsigned long long) low, (unsigned long long) high);
    }
  return bad;
}

static void
killed (void)
{
  unsigned bad = 0, lost = 0, ignored = 0;
  uint64_t flushes;

  shared = mmap (NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (shared == MAP_FAILED || truncate (path, 0) == -1 || truncate (path, SIZE) == -1)
    abort ();
  unlink (cache);
  rules ("cache\n");
  for (unsigned round = 0; round < 60; round++) {
    pid_t pid = fork ();
    struct store s;
    char err[512];

    rng = round * 977 + 5;
    if (pid == 0)
      child (round % 2 ? STORE_DIRECT_AUTO : STORE_DIRECT_OFF);
    usleep ((useconds_t) (3000 + round * 7919 % 60000));
    kill (pid, SIGKILL);
    waitpid (pid, NULL, 0);
    store_init (&s); /* the lock is free when the kernel has ended the last write */
    for (unsigned i = 0; i < 500; i++) {
      if (store_open (&s, path, STORE_DIRECT_OFF, err, sizeof err) < 0)
        abort ();
      if (store_lock (&s, path) == 0)
        break;
      store_close (&s);
      usleep (10000);
    }
    store_destroy (&s);
    bad += judge (shared->answered, "killed", &ignored);
    if (round % 3 == 0)
      continue; /* only the process died */
    power_loss (round);
    bad += judge (shared->flushed, "power loss", &lost);
    /* From here on what stands is stable, but which version it is, nobody knows. */
    for (unsigned b = 0; b < BLOCKS; b++)
      shared->answered[b] = shared->flushed[b];
  }
  flushes = shared->n_flushes;
  is (bad, 0, "60 kills, 40 power losses: every sector holds a version that it may hold");
  ok (lost > 1000, "and power loss did lose what was not flushed: %u sectors, %llu flushes", lost,
      (unsigned long long) flushes);
}

int
main (void)
{
  struct store s;
  int fd = mkstemp (path);

  if (fd == -1 || ftruncate (fd, SIZE) == -1)
    return 1;
  close (fd);
  snprintf (control, sizeof control, "%s.faults", path);
  snprintf (cache, sizeof cache, "%s.cache", path);
  store_load ();

  open_store (&s, STORE_DIRECT_OFF);
  ok (!s.fault && access (cache, F_OK) == -1, "without STORE.faults there is no layer");
  store_destroy (&s);
  by_hand (STORE_DIRECT_OFF, "page cache");
  by_hand (STORE_DIRECT_AUTO, "direct");
  errors ();
  for (unsigned by_ring = 0; by_ring < 2; by_ring++) {
    no_space (STORE_DIRECT_OFF, by_ring);
    no_space (STORE_DIRECT_AUTO, by_ring);
  }
  refused_trims ();

  /* Another boot: its opening is the loss. */
  rules ("cache 0\n");
  setenv ("CRG_BOOT_ID", "11111111111111111111111111111111", 1);
  open_store (&s, STORE_DIRECT_OFF);
  put (&s, 0, BLOCK, 0x51, STORE_F_FUA);
  put (&s, 0, BLOCK, 0x52, 0);
  store_destroy (&s);
  open_store (&s, STORE_DIRECT_OFF);
  is (byte_at (0), 0x52, "the same boot finds what it wrote");
  store_destroy (&s);
  setenv ("CRG_BOOT_ID", "22222222222222222222222222222222", 1);
  open_store (&s, STORE_DIRECT_OFF);
  is (byte_at (0), 0x51, "another one only what was flushed");
  store_destroy (&s);
  killed ();
  unlink (path);
  unlink (control);
  unlink (cache);
  store_unload ();
  return tap_done ();
}

#else

int
main (void)
{
  tap_skip_all ("needs --enable-test-hooks");
}

#endif
