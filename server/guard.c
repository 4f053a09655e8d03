/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The process of guard.h.  It is nobody's child, keeps a lock on the record's
 * file, and does nothing while that says that the lease runs, or while a stop of
 * crgd's own is under way.  Else it ends the start that is under way, if one
 * is, and stops the resource.  When that has succeeded it rests, and stays: the
 * record may change, as crgd may only have stood still.  Between fork and
 * exec, and in the guard, nothing is called that could wait for a lock of crgd's.
 */
#include "config.h"

#include "server/guard.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/crc32c.h"
#include "common/ident.h"
#include "common/util-posix.h"
#include "common/limits.h"

/* After the end of a lease crgd has its own turn for so long: less than the
 * twentieth of a lease for which the next host waits (L3). */
#define GUARD_LATER_MS 50
/* The record is looked at so often, whatever it says. */
#define GUARD_LOOK_MS 500

/* A start that was killed has so long to go before the stop is called. */
#define GUARD_END_MS 50

/* A record that can't be read so often in a row is damaged, and no write in its middle. */
#define GUARD_UNREADABLE 4

/* Numbers of 20 digits, the boot, and the checksum of all before it. */
#define NUMBERS       6
#define NUMBER_DIGITS 20
#define BOOT_AT       (NUMBERS * (NUMBER_DIGITS + 1))
#define CRC_AT        (BOOT_AT + IDENT_ID_TEXT_LEN)

void
guard_encode (const struct guard_record *r, char text[GUARD_RECORD_LEN + 1])
{
  char boot[IDENT_ID_TEXT_LEN];
  int n;

  ident_id_to_text (r->boot, boot);
  n = snprintf (text, GUARD_RECORD_LEN + 1,
                "%020" PRIu64 " %020" PRIu64 " %020" PRIu64 " %020" PRIu64 " %020" PRIu64 " %020" PRIu64 " %s ",
                r->tenure, r->lease_ms, r->start.pid, r->start.began, r->stop.pid, r->stop.began, boot);
  snprintf (text + n, GUARD_RECORD_LEN + 1 - (size_t) n, "%08" PRIx32 "\n", crc32c (0, text, (size_t) n));
}

bool
guard_decode (const char *text, size_t len, struct guard_record *r)
{
  uint64_t number[NUMBERS] = { 0 };
  char boot[IDENT_ID_TEXT_LEN], again[GUARD_RECORD_LEN + 1];
  struct guard_record got;

  if (len != GUARD_RECORD_LEN)
    return false;
  for (unsigned i = 0; i < NUMBERS; i++)
    for (unsigned k = 0; k < NUMBER_DIGITS; k++) {
      char c = text[i * (NUMBER_DIGITS + 1) + k];

      if (c < '0' || c > '9' || number[i] > INT64_MAX / 10 - 1)
        return false;
      number[i] = number[i] * 10 + (uint64_t) (c - '0');
    }
  memcpy (boot, text + BOOT_AT, sizeof boot - 1);
  boot[sizeof boot - 1] = '\0';
  got = (struct guard_record) { .tenure = number[0], .lease_ms = number[1], .start = { number[2], number[3] },
                                .stop = { number[4], number[5] } };
  if (ident_id_from_text (boot, got.boot) < 0)
    return false;
  /* There is one way to write it, checksum, blanks and all. */
  guard_encode (&got, again);
  if (memcmp (text, again, GUARD_RECORD_LEN) != 0)
    return false;
  *r = got;
  return true;
}

bool
guard_write (const char *path, const struct guard_record *r)
{
  char text[GUARD_RECORD_LEN + 1];
  CLEANUP_CLOSE int fd = open (path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);

  guard_encode (r, text);
  return fd >= 0 && pwrite (fd, text, GUARD_RECORD_LEN, 0) == GUARD_RECORD_LEN;
}

bool
guard_read (int fd, struct guard_record *r)
{
  char text[GUARD_RECORD_LEN + 1];
  ssize_t n = pread (fd, text, sizeof text, 0);

  return n >= 0 && guard_decode (text, (size_t) n, r);
}

/* One call of the agent, with its hard end.  True: it says that it has stopped. */
static bool
stop_it (const char *agent, char *const *env, unsigned timeout_ms)
{
  pid_t pid = fork ();
  int status = -1, pidfd;
  struct pollfd pfd = { .events = POLLIN };

  if (pid == 0) {
    setsid ();
    execve (agent, (char *const[]) { (char *) agent, (char *) "stop", NULL }, env);
    _exit (127);
  }
  pidfd = pid > 0 ? (int) syscall (SYS_pidfd_open, pid, 0) : -1;
  if (pidfd < 0)
    return false;
  pfd.fd = pidfd;
  if (poll (&pfd, 1, (int) timeout_ms) <= 0 && kill (-pid, SIGKILL) < 0)
    kill (pid, SIGKILL);
  while (waitpid (pid, &status, 0) < 0 && errno == EINTR)
    ;
  close (pidfd);
  return WIFEXITED (status) && WEXITSTATUS (status) == 0;
}

/* When it is the guard's turn.  A stop of crgd's has its own hard end, if crgd lives. */
static uint64_t
turn_ms (const struct guard_record *r, bool stopping, unsigned timeout_ms)
{
  uint64_t due = r->lease_ms + GUARD_LATER_MS;

  return stopping ? MAX (due, procgroup_began_ms (&r->stop) + timeout_ms + GUARD_LOOK_MS) : due;
}

static void
watch (int fd, const char *agent, char *const *env, unsigned timeout_ms)
{
  struct guard_record r = { 0 }, stopped = { .tenure = UINT64_MAX };
  struct stat st;
  unsigned unreadable = 0;

  while (fstat (fd, &st) == 0 && st.st_nlink > 0) {
    uint64_t now = clock_boottime_ms (), due;
    bool stopping, ended;

    if (guard_read (fd, &r))
      unreadable = 0;
    else if (++unreadable < GUARD_UNREADABLE) {
      poll (NULL, 0, GUARD_LATER_MS);
      continue;
    }
    else /* nobody knows how long the lease runs; what was seen of a start is true still */
      r = (struct guard_record) { .start = r.start };
    stopping = procgroup_is_alive (&r.stop);
    due = turn_ms (&r, stopping, timeout_ms);
    if (memcmp (&r, &stopped, sizeof r) == 0)
      poll (NULL, 0, GUARD_LOOK_MS);
    else if (now < due)
      poll (NULL, 0, (int) MIN (due - now, (uint64_t) (stopping ? GUARD_LATER_MS : GUARD_LOOK_MS)));
    else {
      ended = procgroup_end (&r.start, GUARD_END_MS);
      /* What could still bring it up makes a stop no end. */
      if (stop_it (agent, env, timeout_ms) && ended)
        stopped = r;
      else
        poll (NULL, 0, AGENT_RETRY_MS);
    }
  }
}

static void
run_guard (int fd, const char *agent, char *const *env, unsigned timeout_ms)
{
  int null_fd = open ("/dev/null", O_RDWR);
  sigset_t none;

  setsid ();
  prctl (PR_SET_NAME, "crg-guard");
  fd = fcntl (fd, F_DUPFD_CLOEXEC, 4); /* not the agent's: with it goes the lock */
  if (fd < 0 || null_fd < 0 || dup2 (null_fd, 0) < 0 || dup2 (null_fd, 1) < 0 || dup2 (null_fd, 2) < 0)
    _exit (1);
  close_range (3, (unsigned) fd - 1, 0);
  close_range ((unsigned) fd + 1, ~0u, 0);
  for (int sig = 1; sig < NSIG; sig++)
    signal (sig, SIG_DFL);
  sigemptyset (&none);
  sigprocmask (SIG_SETMASK, &none, NULL);
  if (chdir ("/") == 0)
    watch (fd, agent, env, timeout_ms);
  _exit (0);
}

int
guard_start (const char *path, const char *agent, char *const *env, unsigned timeout_ms)
{
  CLEANUP_CLOSE int fd = open (path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
  int status = -1;
  pid_t pid;

  if (fd < 0)
    return -errno;
  if (flock (fd, LOCK_EX | LOCK_NB) < 0)
    return errno == EWOULDBLOCK ? 0 : -errno; /* there is one */
  pid = fork ();
  if (pid < 0)
    return -errno;
  if (pid == 0) {
    /* Of nobody: crgd has not to wait for it.  The lock goes with it. */
    pid = fork ();
    if (pid == 0)
      run_guard (fd, agent, env, timeout_ms);
    _exit (pid < 0);
  }
  while (waitpid (pid, &status, 0) < 0 && errno == EINTR)
    ;
  return WIFEXITED (status) && WEXITSTATUS (status) == 0 ? 0 : -EAGAIN;
}
