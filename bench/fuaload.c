/* SPDX-License-Identifier: BSD-3-Clause */
/* fuaload: random writes with FUA through one NBD connection, so many at a time.  fio's nbd engine
 * can't set the flag.  A program of the benchmark, never installed; one thread.
 *
 * fuaload URI BLOCK QD SECONDS SIZE
 */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include <libnbd.h>

#define BLOCK_MAX   (1u << 20)
#define QD_MAX      256u
#define SAMPLES_MAX (4u << 20)

struct request {
  double begun;
  int busy;
};

static double *samples;
static uint64_t done;
static unsigned in_flight;

static double
now_s (void)
{
  struct timespec t;

  clock_gettime (CLOCK_MONOTONIC, &t);
  return (double) t.tv_sec + (double) t.tv_nsec / 1e9;
}

static void
die (const char *what)
{
  fprintf (stderr, "fuaload: %s: %s\n", what, nbd_get_error () ? nbd_get_error () : strerror (errno));
  exit (1);
}

static int
written (void *opaque, int *error)
{
  struct request *r = opaque;

  if (*error != 0) {
    errno = *error;
    die ("a write failed");
  }
  if (done < SAMPLES_MAX)
    samples[done] = (now_s () - r->begun) * 1e6;
  done++;
  in_flight--;
  r->busy = 0;
  return 1; /* retired here */
}

static int
compare_double (const void *a, const void *b)
{
  double x = *(const double *) a, y = *(const double *) b;

  return x < y ? -1 : x > y;
}

int
main (int argc, char **argv)
{
  static struct request requests[QD_MAX];
  uint64_t seed = 88172645463325252ull;

  if (argc != 6) {
    fprintf (stderr, "usage: fuaload URI BLOCK QD SECONDS SIZE\n");
    return 2;
  }
  const uint64_t block = strtoull (argv[2], NULL, 0), qd = strtoull (argv[3], NULL, 0);
  const double seconds = atof (argv[4]);
  const uint64_t size = strtoull (argv[5], NULL, 0);

  if (block == 0 || block > BLOCK_MAX || qd == 0 || qd > QD_MAX || size < block || !(seconds > 0)
      || seconds > 600) {
    fprintf (stderr, "fuaload: a figure is out of range\n");
    return 2;
  }
  char *buf = malloc (block);
  struct nbd_handle *nbd = nbd_create ();

  samples = malloc (SAMPLES_MAX * sizeof *samples);
  if (!buf || !nbd || !samples || nbd_connect_uri (nbd, argv[1]) == -1)
    die ("connect");
  if (nbd_can_fua (nbd) != 1) {
    fprintf (stderr, "fuaload: the export takes no FUA\n");
    return 1;
  }
  memset (buf, 0x5a, block);

  const double start = now_s ();
  double t = start;

  while (t - start < seconds || in_flight > 0) {
    for (unsigned i = 0; i < qd && t - start < seconds; i++) {
      if (requests[i].busy)
        continue;
      seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
      requests[i].busy = 1;
      requests[i].begun = now_s ();
      in_flight++;
      if (nbd_aio_pwrite (nbd, buf, block, seed % (size / block) * block,
                          (nbd_completion_callback){ .callback = written, .user_data = &requests[i] },
                          LIBNBD_CMD_FLAG_FUA)
          == -1)
        die ("write");
    }
    if (nbd_poll (nbd, 1000) == -1)
      die ("poll");
    t = now_s ();
  }
  const double elapsed = now_s () - start;
  struct rusage self;

  nbd_shutdown (nbd, 0);
  nbd_close (nbd);
  if (done == 0)
    die ("nothing was written");
  getrusage (RUSAGE_SELF, &self);
  const uint64_t n = done < SAMPLES_MAX ? done : SAMPLES_MAX;
  const double cpu = (double) (self.ru_utime.tv_sec + self.ru_stime.tv_sec)
                     + (double) (self.ru_utime.tv_usec + self.ru_stime.tv_usec) / 1e6;

  qsort (samples, n, sizeof *samples, compare_double);
  printf ("{\"ops\": %llu, \"iops\": %.0f, \"mb_s\": %.1f, \"lat_us\": %.1f, \"p99_us\": %.1f, "
          "\"client_cpu_us_per_op\": %.2f}\n",
          (unsigned long long) done, (double) done / elapsed, (double) (done * block) / elapsed / 1e6,
          samples[n / 2], samples[(uint64_t) ((double) n * 0.99)], cpu * 1e6 / (double) done);
  return 0;
}
