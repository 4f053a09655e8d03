/* SPDX-License-Identifier: BSD-3-Clause */
/* Process groups that are found again by number and beginning: alive though the leader is dead, never
 * mistaken for another of the same number, and killed whole.
 */
#include <config.h>

#include <errno.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "server/procgroup.h"
#include "tests/tap.h"

/* A leader in a group of its own, and one more in it; *more is its number, and `in` of theirs ends with both. */
static pid_t
start_two (pid_t *more, int *in)
{
  int told[2], held[2];
  pid_t pid;

  if (pipe (told) < 0 || pipe (held) < 0)
    abort ();
  pid = fork ();
  if (pid == 0) {
    pid_t second;

    setsid ();
    second = fork ();
    alarm (20);
    close (held[0]);
    if (second > 0 && write (told[1], &second, sizeof second) < 0)
      _exit (1);
    for (;;)
      pause ();
  }
  if (read (told[0], more, sizeof *more) != sizeof *more)
    abort ();
  close (told[0]);
  close (told[1]);
  close (held[1]);
  *in = held[0];
  return pid;
}

int
main (void)
{
  struct procgroup g = { 0 }, other, none = { 0 };
  uint64_t before = clock_boottime_ms ();
  pid_t more, pid;
  int in;
  char c;

  ok (!procgroup_is_alive (&none) && procgroup_end (&none, 0), "none is over");
  ok (!procgroup_is_alive (&(struct procgroup) { 1, 0 }), "nor is the first process of all ever one");
  pid = start_two (&more, &in);
  ok (procgroup_of (pid, &g) && procgroup_is_alive (&g), "it is there");
  ok (procgroup_began_ms (&g) + 20 >= before && procgroup_began_ms (&g) <= clock_boottime_ms (), "when it began");

  other = g;
  other.began--;
  ok (!procgroup_is_alive (&other), "one of that number that began earlier is over");
  ok (procgroup_end (&other, 0) && kill (pid, 0) == 0 && procgroup_is_alive (&g),
      "and this one is not killed in its place");

  kill (pid, SIGKILL);
  usleep (20000);
  ok (procgroup_is_alive (&g), "its leader is a zombie, the other runs");
  ok (waitpid (pid, NULL, 0) == pid && procgroup_is_alive (&g), "its leader is gone, the other runs");
  ok (kill (more, 0) == 0 && procgroup_end (&g, 1000), "it is ended");
  ok (read (in, &c, 1) == 0, "with all in it");
  ok (!procgroup_is_alive (&g), "and over");
  close (in);

  pid = start_two (&more, &in);
  ok (procgroup_of (pid, &g) && procgroup_end (&g, 1000), "a leader that nobody has reaped is over when it is killed");
  is (waitpid (pid, NULL, 0), pid, "it was a zombie");
  ok (!procgroup_of (pid, &none), "who is gone can't be noted");
  close (in);
  return tap_done ();
}
