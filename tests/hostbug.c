/* SPDX-License-Identifier: BSD-3-Clause */
/* An NBD client that does what the known bugs of the host need.
 *   hostbug zero URI OFFSET LENGTH        one zero request that must not punch holes
 *   hostbug hangup URI                    16 writes and reads of 256 KiB, then the connection is cut
 *   hostbug write URI BLOCK               block of 4 KiB filled with its number, answered, else 1
 *   hostbug check URI BLOCK               is it there?
 *   hostbug stuck URI N MS                N writes in flight on one connection; says "read answered" if
 *                                         a read on it is within MS while none of the writes is;
 *                                         then waits for all
 */
#include "config.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <libnbd.h>

#include "common/util.h"

#define HANG_LEN (256 * 1024)

static struct nbd_handle *
open_uri (const char *uri)
{
  struct nbd_handle *h = nbd_create ();

  if (!h || nbd_connect_uri (h, uri) == -1) {
    fprintf (stderr, "hostbug: %s\n", nbd_get_error ());
    exit (1);
  }
  return h;
}

static int
zero (const char *uri, uint64_t offset, uint64_t length)
{
  struct nbd_handle *h = open_uri (uri);

  nbd_set_strict_mode (h, 0);
  if (nbd_zero (h, length, offset, LIBNBD_CMD_FLAG_NO_HOLE) == -1) {
    fprintf (stderr, "hostbug: %s\n", nbd_get_error ());
    return 1;
  }
  nbd_close (h);
  return 0;
}

static int
hangup (const char *uri)
{
  static char buf[32][HANG_LEN];
  struct nbd_handle *h = open_uri (uri);

  for (unsigned i = 0; i < 16; i++) {
    memset (buf[i], 0x5a, HANG_LEN);
    nbd_aio_pwrite (h, buf[i], HANG_LEN, (8 << 20) + (uint64_t) i * HANG_LEN, NBD_NULL_COMPLETION, 0);
    nbd_aio_pread (h, buf[16 + i], HANG_LEN, (uint64_t) i * HANG_LEN, NBD_NULL_COMPLETION, 0);
  }
  for (unsigned i = 0; i < 5; i++)
    nbd_poll (h, 1);
  nbd_close (h); /* with what is still in flight */
  return 0;
}

static void
pattern (uint8_t block[4096], uint32_t n)
{
  for (unsigned i = 0; i < 1024; i++)
    put_le32 (block + 4 * i, n * 2654435761u + i);
}

static int
block (const char *uri, uint32_t n, bool check)
{
  uint8_t want[4096], got[4096];
  struct nbd_handle *h = open_uri (uri);
  int r;

  pattern (want, n);
  if (check) {
    r = nbd_pread (h, got, sizeof got, n * 4096ull, 0);
    if (r == 0 && memcmp (want, got, sizeof got) != 0) {
      fprintf (stderr, "hostbug: block %u was answered and is lost\n", n);
      r = -1;
    }
  }
  else
    r = nbd_pwrite (h, want, sizeof want, n * 4096ull, 0);
  nbd_close (h);
  return r == 0 ? 0 : 1;
}

static int64_t
now_ms (void)
{
  struct timespec ts;

  clock_gettime (CLOCK_MONOTONIC, &ts);
  return ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static int
stuck (const char *uri, unsigned n, int64_t ms)
{
  static char buf[64][4096], in[4096];
  struct nbd_handle *h = open_uri (uri);
  int64_t cookie[64], read_cookie, end;
  int r;

  n = MIN (n, 64u);
  for (unsigned i = 0; i < n; i++)
    cookie[i] = nbd_aio_pwrite (h, buf[i], 4096, (1 << 20) + i * 65536ull, NBD_NULL_COMPLETION, 0);
  read_cookie = nbd_aio_pread (h, in, 4096, 32 << 20, NBD_NULL_COMPLETION, 0);
  for (end = now_ms () + ms; now_ms () < end;) {
    if (nbd_poll (h, 50) == -1) {
      fprintf (stderr, "hostbug: %s\n", nbd_get_error ());
      return 1;
    }
    for (unsigned i = 0; i < n; i++)
      if (cookie[i] < 0 || nbd_aio_command_completed (h, (uint64_t) cookie[i]) != 0) {
        fprintf (stderr, "hostbug: write %u was answered, so nothing is stuck\n", i);
        return 1;
      }
    if (nbd_aio_command_completed (h, (uint64_t) read_cookie) == 1) {
      puts ("read answered");
      fflush (stdout);
      /* Hanging up with requests in flight is another bug's test. */
      for (end = now_ms () + 30000; now_ms () < end && nbd_aio_in_flight (h) > 0;)
        if (nbd_poll (h, 50) == -1)
          break;
      r = nbd_aio_in_flight (h) > 0;
      nbd_close (h);
      return r;
    }
  }
  fprintf (stderr, "hostbug: a read waits behind %u stuck writes\n", n);
  return 1;
}

int
main (int argc, char **argv)
{
  if (argc == 5 && strcmp (argv[1], "zero") == 0)
    return zero (argv[2], strtoull (argv[3], NULL, 10), strtoull (argv[4], NULL, 10));
  if (argc == 3 && strcmp (argv[1], "hangup") == 0)
    return hangup (argv[2]);
  if (argc == 4 && strcmp (argv[1], "write") == 0)
    return block (argv[2], (uint32_t) atoi (argv[3]), false);
  if (argc == 4 && strcmp (argv[1], "check") == 0)
    return block (argv[2], (uint32_t) atoi (argv[3]), true);
  if (argc == 5 && strcmp (argv[1], "stuck") == 0)
    return stuck (argv[2], (unsigned) atoi (argv[3]), atoi (argv[4]));
  fprintf (stderr, "hostbug: see the top of its source\n");
  return 2;
}
