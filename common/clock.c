/* SPDX-License-Identifier: BSD-3-Clause */
/* Time since boot, the boot's id, randomness: the machine's own answers, for shells only.  Any
 * thread; keeps no state.
 */
#include <config.h>

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/ident.h"
#include "common/util-posix.h"

static uint64_t
clock_ns (clockid_t id)
{
  struct timespec ts;
  int r = clock_gettime (id, &ts);

  assert (r == 0);
  return (uint64_t) ts.tv_sec * 1000000000u + (uint64_t) ts.tv_nsec;
}

uint64_t
clock_boottime_ns (void)
{
  return clock_ns (CLOCK_BOOTTIME);
}

uint64_t
clock_boottime_ms (void)
{
  return clock_boottime_ns () / 1000000;
}

uint64_t
clock_wall_ms (void)
{
  return clock_ns (CLOCK_REALTIME) / 1000000;
}

int
clock_boot_id (uint8_t id[CRG_ID_LEN])
{
  CLEANUP_CLOSE int fd = -1;
  char text[64];
  ssize_t n;

#ifdef CRG_TEST
  const char *played = getenv ("CRG_BOOT_ID");

  if (played && *played)
    return ident_id_from_text (played, id);
#endif

  fd = open ("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
  if (fd < 0)
    return -errno;
  n = read (fd, text, sizeof text - 1);
  if (n < 0)
    return -errno;
  while (n > 0 && text[n - 1] == '\n')
    n--;
  text[n] = '\0';
  return ident_id_from_text (text, id);
}

void
clock_random (void *buf, unsigned len)
{
  uint8_t *p = buf;
  ssize_t n;

  while (len > 0) {
    n = getrandom (p, len, 0);
    if (n < 0 && errno == EINTR)
      continue;
    if (n <= 0)
      abort (); /* without randomness ids would collide */
    p += n;
    len -= (unsigned) n;
  }
}

void
clock_random_id (uint8_t id[CRG_ID_LEN])
{
  do
    clock_random (id, CRG_ID_LEN);
  while (ident_id_is_zero (id)); /* all zero means none */
}

uint64_t
clock_random_u64 (void)
{
  uint64_t v;

  do
    clock_random (&v, sizeof v);
  while (v == 0);
  return v;
}
