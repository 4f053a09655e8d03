/* SPDX-License-Identifier: BSD-3-Clause */
/* The record that a guard reads (L2): there and back, every byte of it, and what is no record; what a guard
 * does with one that is damaged.
 */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/crc32c.h"
#include "server/guard.h"
#include "tests/tap.h"

#define CRC_AT (GUARD_RECORD_LEN - 9)

static const struct guard_record record = { .tenure = 7, .lease_ms = 123456789, .start = { 42, 43 },
                                             .stop = { 44, 45 }, .boot = { 0xab, 1, 0xff } };

static void
there_and_back (void)
{
  static const uint64_t numbers[] = { 0, 1, 9, INT64_MAX / 10, INT64_MAX - 8 };
  char text[GUARD_RECORD_LEN + 1];
  struct guard_record r;

  for (unsigned i = 0; i < ARRAY_SIZE (numbers); i++) {
    uint64_t other = numbers[ARRAY_SIZE (numbers) - 1 - i];
    struct guard_record a = { numbers[i], other, { numbers[i], other }, { other, numbers[i] }, { 1 } };

    guard_encode (&a, text);
    is (strlen (text), GUARD_RECORD_LEN, "always of the same length");
    ok (guard_decode (text, GUARD_RECORD_LEN, &r) && memcmp (&a, &r, sizeof a) == 0, "there and back");
  }
}

/* With its checksum put right, too. */
static void
refused (void)
{
  char good[GUARD_RECORD_LEN + 1], text[GUARD_RECORD_LEN + 1];
  struct guard_record r = { .tenure = 99 }, untouched = r;

  guard_encode (&record, good);
  for (unsigned i = 0; i < GUARD_RECORD_LEN; i++)
    check (!guard_decode (good, i, &r), "a record of %u bytes", i);
  ok (!guard_decode (good, GUARD_RECORD_LEN + 1, &r), "one byte more");
  for (unsigned i = 0; i < GUARD_RECORD_LEN; i++)
    for (unsigned c = 0; c < 256; c++) {
      memcpy (text, good, sizeof text);
      text[i] = (char) c;
      if (text[i] != good[i])
        check (!guard_decode (text, GUARD_RECORD_LEN, &r), "byte %u changed to %u", i, c);
      snprintf (text + CRC_AT, 10, "%08x\n", crc32c (0, text, CRC_AT));
      if (i < CRC_AT && guard_decode (text, GUARD_RECORD_LEN, &r)) {
        guard_encode (&r, good);
        check (memcmp (text, good, GUARD_RECORD_LEN) == 0, "accepted, and written otherwise");
        guard_encode (&record, good);
        r = untouched;
      }
    }
  memset (text, '9', 20);
  memcpy (text + 20, good + 20, sizeof text - 20);
  snprintf (text + CRC_AT, 10, "%08x\n", crc32c (0, text, CRC_AT));
  ok (!guard_decode (text, GUARD_RECORD_LEN, &r), "a number that is too large");
  ok (memcmp (&r, &untouched, sizeof r) == 0, "what is refused leaves no trace");
}

static void
on_disk (void)
{
  static char path[] = "unit-guard-XXXXXX";
  struct guard_record r;
  int fd = mkstemp (path);

  ok (!guard_read (fd, &r), "an empty file is no record");
  ok (!guard_read (-1, &r), "and no file neither");
  ok (guard_write (path, &record) && guard_read (fd, &r) && memcmp (&r, &record, sizeof r) == 0, "written and read");
  ok (pwrite (fd, "x", 1, GUARD_RECORD_LEN) == 1 && !guard_read (fd, &r), "with something behind it it is none");
  close (fd);
  unlink (path);
}

/* The agent removes `up` when it is called with stop. */
static bool
is_stopped (const char *up)
{
  for (unsigned i = 0; i < 1000 && access (up, F_OK) == 0; i++)
    usleep (10000);
  return access (up, F_OK) < 0 && errno == ENOENT;
}

/* A process in a group of its own: a start under way. */
static pid_t
begin_start (struct procgroup *g)
{
  pid_t pid = fork ();

  if (pid == 0) {
    setsid ();
    alarm (20);
    for (;;)
      pause ();
  }
  if (!procgroup_of (pid, g))
    abort ();
  return pid;
}

/* L2: nobody knows for how long the resource may run, so it may not. */
static void
damaged (void)
{
  char dir[256], path[300], agent[300], up[300], up_env[310];
  char *const env[] = { up_env, NULL };
  struct guard_record r = { .tenure = 7, .lease_ms = clock_boottime_ms () + 60000 };
  pid_t start = begin_start (&r.start);
  int status = 0;
  FILE *fp;

  if (!getcwd (dir, sizeof dir - 32) || !mkdtemp (strcat (dir, "/unit-guard-XXXXXX")))
    abort ();
  snprintf (path, sizeof path, "%s/x.agent", dir);
  snprintf (agent, sizeof agent, "%s/agent", dir);
  snprintf (up, sizeof up, "%s/up", dir);
  snprintf (up_env, sizeof up_env, "UP=%s", up);
  fp = fopen (agent, "w");
  if (!fp || fputs ("#!/bin/sh\n[ \"$1\" = stop ] && exec /bin/rm -f \"$UP\"\n", fp) < 0 || fclose (fp) != 0
      || chmod (agent, 0700) < 0 || close (creat (up, 0600)) < 0)
    abort ();
  is (guard_start (path, agent, env, 5000), -ENOENT, "without a record there is no guard");
  ok (guard_write (path, &r) && guard_start (path, agent, env, 5000) == 0, "a guard is started");
  is (guard_start (path, agent, env, 5000), 0, "there is one already");
  usleep (300000);
  ok (access (up, F_OK) == 0, "it waits for the end of the lease");
  ok (truncate (path, GUARD_RECORD_LEN - 1) == 0 && is_stopped (up), "its record is damaged: it stops the resource");
  ok (waitpid (start, &status, WNOHANG) == start && WIFSIGNALED (status), "and has killed the start that it had seen");
  ok (access (path, F_OK) == 0, "the record is not its to remove");
  unlink (path);
  unlink (agent);
  rmdir (dir);
}

int
main (void)
{
  there_and_back ();
  refused ();
  on_disk ();
  damaged ();
  return tap_done ();
}
