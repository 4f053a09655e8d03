/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Forks the children of task.h.  Owns each child's process id and the read
 * end of its pipe; reaps every child it has started.
 */
#include "config.h"

#include "server/task.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <qb/qbdefs.h>
#include <qb/qbloop.h>

struct task {
  struct qb_loop *loop;
  pid_t pid;
  int fd;
  size_t result_len;
  qb_loop_timer_handle timer;
  task_done_fn *done;
  void *opaque;
  struct task *next; /* in `dying` */
};

/* Killed, and not reaped yet. */
static struct task *dying;

static void
run_child (task_fn *fn, const void *arg, size_t result_len, int fd, unsigned timeout_ms,
           pid_t parent)
{
  static uint8_t result[TASK_RESULT_MAX];
  sigset_t none;

  prctl (PR_SET_PDEATHSIG, SIGKILL);
  if (getppid () != parent)
    _exit (1);
  /* Nobody may wait for a lock or for the end of a stream because of us. */
  if (dup2 (fd, 3) < 0)
    _exit (1);
  close_range (4, ~0u, 0);
  for (int sig = 1; sig < NSIG; sig++)
    signal (sig, SIG_DFL);
  signal (SIGPIPE, SIG_IGN);
  sigemptyset (&none);
  sigprocmask (SIG_SETMASK, &none, NULL);
  alarm (timeout_ms / 1000 + 2);
  fn (arg, result);
  _exit (write (3, result, result_len) == (ssize_t) result_len ? 0 : 1);
}

static void
forget (struct task *t)
{
  struct task **at = &dying;

  while (*at != t)
    at = &(*at)->next;
  *at = t->next;
  free (t);
}

static int
on_exit_of_child (int fd, int revents, void *opaque)
{
  struct task *t = opaque;

  if (waitpid (t->pid, NULL, WNOHANG) == 0)
    return 0;
  qb_loop_poll_del (t->loop, fd);
  close (fd);
  forget (t);
  return 0;
}

/* A child in the middle of a hung disk operation ends whenever that does: the
 * loop doesn't wait for it. */
static void
reap (struct task *t)
{
  int pidfd = (int) syscall (SYS_pidfd_open, t->pid, 0);

  t->next = dying;
  dying = t;
  if (pidfd >= 0
      && qb_loop_poll_add (t->loop, QB_LOOP_LOW, pidfd, POLLIN, t, on_exit_of_child) == 0)
    return;
  if (pidfd >= 0)
    close (pidfd);
  while (waitpid (t->pid, NULL, 0) < 0 && errno == EINTR)
    ;
  forget (t);
}

static void
finish (struct task *t, const void *result, const char *reason)
{
  task_done_fn *done = t->done;
  void *opaque = t->opaque;

  qb_loop_poll_del (t->loop, t->fd);
  qb_loop_timer_del (t->loop, t->timer);
  close (t->fd);
  kill (t->pid, SIGKILL);
  reap (t);
  if (done)
    done (opaque, result, reason);
}

static void
on_deadline (void *opaque)
{
  finish (opaque, NULL, "it did not end in time");
}

static int
on_result (int fd, int revents, void *opaque)
{
  struct task *t = opaque;
  uint8_t result[TASK_RESULT_MAX] __attribute__ ((__aligned__ (16)));
  ssize_t r = read (fd, result, sizeof result);

  if (r < 0 && (errno == EAGAIN || errno == EINTR))
    return 0;
  if (r == (ssize_t) t->result_len)
    finish (t, result, NULL);
  else
    finish (t, NULL, "its process died");
  return 0;
}

struct task *
task_start (struct qb_loop *loop, task_fn *fn, const void *arg, size_t result_len,
            unsigned timeout_ms, task_done_fn *done, void *opaque)
{
  struct task *t;
  pid_t parent = getpid ();
  int fds[2];

  if (result_len > TASK_RESULT_MAX || result_len == 0) {
    errno = EINVAL;
    return NULL;
  }
  t = calloc (1, sizeof *t);
  if (t == NULL || pipe2 (fds, O_CLOEXEC | O_NONBLOCK) < 0) {
    free (t);
    return NULL;
  }
  t->pid = fork ();
  if (t->pid == 0)
    run_child (fn, arg, result_len, fds[1], timeout_ms, parent);
  close (fds[1]);
  if (t->pid < 0) {
    close (fds[0]);
    free (t);
    return NULL;
  }
  t->loop = loop;
  t->fd = fds[0];
  t->result_len = result_len;
  t->done = done;
  t->opaque = opaque;
  qb_loop_poll_add (loop, QB_LOOP_MED, t->fd, POLLIN, t, on_result);
  qb_loop_timer_add (loop, QB_LOOP_MED, timeout_ms * (uint64_t) QB_TIME_NS_IN_MSEC, t,
                     on_deadline, &t->timer);
  return t;
}

void
task_cancel (struct task *t)
{
  if (t == NULL)
    return;
  t->done = NULL;
  finish (t, NULL, NULL);
}

void
task_end (void)
{
  while (dying) {
    waitpid (dying->pid, NULL, WNOHANG);
    forget (dying);
  }
}
