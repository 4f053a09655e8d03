/* SPDX-License-Identifier: BSD-3-Clause */
/* For stores under the test build's layer (plugin/storefault.h):
 *
 *   powerloss STORE SEED      the machine loses power: what was not flushed goes, partly or all
 *   powerloss --count STORE   what the layer has counted: "name number" lines
 *
 * Waits for the store's lock first: the I/O of a process that was killed may still be under way.
 */
#include "config.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/util-posix.h"
#include "plugin/storefault.h"

#ifdef CRG_TEST

static int
wait_for_lock (const char *path)
{
  struct flock fl = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
  int fd = open (path, O_RDWR | O_CLOEXEC);

  if (fd == -1) {
    perror (path);
    return -1;
  }
  for (unsigned i = 0; i < 500; i++) {
    if (fcntl (fd, F_OFD_SETLK, &fl) == 0)
      return fd;
    usleep (10000);
  }
  fprintf (stderr, "powerloss: %s: a process still has it open\n", path);
  close (fd);
  return -1;
}

int
main (int argc, char **argv)
{
  CLEANUP_CLOSE int fd = -1;
  CLEANUP_FREE char *path = argc == 3 ? realpath (argv[strcmp (argv[1], "--count") == 0 ? 2 : 1], NULL) : NULL;
  char report[128];
  int r;

  if (!path) {
    fprintf (stderr, "usage: powerloss STORE SEED | powerloss --count STORE\n");
    return 2;
  }
  if (strcmp (argv[1], "--count") == 0) {
    uint64_t counters[SF_N_COUNTERS];

    r = storefault_counters (path, counters);
    for (unsigned i = 0; r == 0 && i < SF_N_COUNTERS; i++)
      printf ("%s %llu\n", storefault_counter_name ((enum sf_counter) i), (unsigned long long) counters[i]);
  }
  else {
    fd = wait_for_lock (path);
    if (fd == -1)
      return 1;
    r = storefault_power_loss (path, strtoull (argv[2], NULL, 10), report, sizeof report);
    if (r == 0)
      printf ("%s: %s\n", argv[1], report);
  }
  if (r < 0)
    fprintf (stderr, "powerloss: %s.cache: %s\n", path, strerror (-r));
  return r < 0;
}

#else

int
main (void)
{
  fprintf (stderr, "powerloss: this is not the test build\n");
  return 77;
}

#endif
