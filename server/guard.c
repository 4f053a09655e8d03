/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The process of guard.h.  It is nobody's child, keeps a lock on the record's
 * file, and does nothing while that says that the lease runs, or that crgd
 * itself is stopping the resource.  Between fork and exec, and in the guard,
 * nothing is called that could wait for a lock of crgd's.
 */
#include "config.h"

#include "server/guard.h"

#include <errno.h>
#include <fcntl.h>
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
#include "common/util-posix.h"
#include "common/limits.h"

/* After the end of a lease crgd has its own turn for so long: less than the
 * twentieth of a lease for which the next host waits (L3). */
#define GUARD_LATER_MS 50
/* The record is looked at so often, whatever it says. */
#define GUARD_LOOK_MS 500

#define RECORD_FORMAT "%020llu %020llu %020llu %.40s\n"

bool
guard_write (const char *path, const struct guard_record *r)
{
  char text[160];
  CLEANUP_CLOSE int fd = open (path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  int len = snprintf (text, sizeof text, RECORD_FORMAT, (unsigned long long) r->tenure,
                      (unsigned long long) r->lease_ms, (unsigned long long) r->stop_ms, r->boot);

  return fd >= 0 && pwrite (fd, text, (size_t) len, 0) == len;
}

bool
guard_read (int fd, struct guard_record *r)
{
  char text[160] = "";
  unsigned long long tenure, lease, stop;

  if (fd < 0 || pread (fd, text, sizeof text - 1, 0) <= 0
      || sscanf (text, "%20llu %20llu %20llu %63s", &tenure, &lease, &stop, r->boot) != 4)
    return false;
  r->tenure = tenure;
  r->lease_ms = lease;
  r->stop_ms = stop;
  return true;
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

static void
watch (int fd, const char *path, const char *agent, char *const *env, unsigned timeout_ms)
{
  struct guard_record r;
  struct stat st;

  while (fstat (fd, &st) == 0 && st.st_nlink > 0 && guard_read (fd, &r)) {
    uint64_t now = clock_boottime_ms (), due = r.lease_ms + GUARD_LATER_MS;

    if (r.stop_ms != 0 && due < r.stop_ms + timeout_ms + GUARD_LOOK_MS)
      due = r.stop_ms + timeout_ms + GUARD_LOOK_MS;
    if (now < due)
      poll (NULL, 0, (int) MIN (due - now, (uint64_t) GUARD_LOOK_MS));
    else if (stop_it (agent, env, timeout_ms)) {
      unlink (path);
      return;
    }
    else
      poll (NULL, 0, AGENT_RETRY_MS);
  }
}

static void
run_guard (const char *path, const char *agent, char *const *env, unsigned timeout_ms)
{
  int null_fd = open ("/dev/null", O_RDWR), fd;
  sigset_t none;

  setsid ();
  prctl (PR_SET_NAME, "crg-guard");
  if (null_fd < 0 || dup2 (null_fd, 0) < 0 || dup2 (null_fd, 1) < 0 || dup2 (null_fd, 2) < 0)
    _exit (1);
  close_range (3, ~0u, 0);
  for (int sig = 1; sig < NSIG; sig++)
    signal (sig, SIG_DFL);
  sigemptyset (&none);
  sigprocmask (SIG_SETMASK, &none, NULL);
  fd = open (path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
  if (chdir ("/") == 0 && fd >= 0 && flock (fd, LOCK_EX | LOCK_NB) == 0)
    watch (fd, path, agent, env, timeout_ms);
  _exit (0);
}

int
guard_start (const char *path, const char *agent, char *const *env, unsigned timeout_ms)
{
  pid_t pid = fork ();

  if (pid < 0)
    return -errno;
  if (pid == 0) {
    /* Of nobody: crgd has not to wait for it. */
    if (fork () == 0)
      run_guard (path, agent, env, timeout_ms);
    _exit (0);
  }
  while (waitpid (pid, NULL, 0) < 0 && errno == EINTR)
    ;
  return 0;
}
