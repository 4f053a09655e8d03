/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The processes of script.h.  Owns each one's process id, pidfd and the ends
 * of its two pipes.  Standard output is kept, standard error is logged line by
 * line, both within bounds: a script that says more is read and forgotten, so
 * that it doesn't hang on a full pipe.  What a script leaves running behind
 * itself is not ours, unless it ran into its deadline.
 */
#include "config.h"

#include "server/script.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <qb/qbdefs.h>
#include <qb/qbloop.h>

#include "common/util-posix.h"
#include "server/log.h"
#include "server/script_text.h"

struct script {
  qb_loop_t *loop;
  struct script_spec spec;
  script_done_fn *done;
  void *opaque;
  pid_t pid;
  int pidfd, out_fd, err_fd;
  struct script_out out;
  struct script_line line; /* of standard error, unfinished */
  unsigned lines;
  qb_loop_timer_handle timer;
  struct script *next; /* in `all` */
};

/* Those that were started and not reaped yet. */
static struct script *all;

/* Only when the parent has said so is the program run; if it dies before, it isn't. */
static void
wait_at_gate (const int gate[2])
{
  char go;
  ssize_t n;

  close (gate[1]);
  do
    n = read (gate[0], &go, 1);
  while (n < 0 && errno == EINTR);
  if (n != 1)
    _exit (126);
}

static void
run_child (const struct script_spec *spec, const int gate[2], int out_fd, int err_fd)
{
  const char *argv[ARRAY_SIZE (spec->argument) + 2] = { spec->path };
  int null_fd = open ("/dev/null", O_RDONLY);
  sigset_t none;

  setsid ();
  if (spec->begun)
    wait_at_gate (gate);
  for (unsigned i = 0; i < ARRAY_SIZE (spec->argument) && spec->argument[i]; i++)
    argv[i + 1] = spec->argument[i];
  if (null_fd < 0 || dup2 (null_fd, 0) < 0 || dup2 (out_fd, 1) < 0 || dup2 (err_fd, 2) < 0)
    _exit (126);
  close_range (3, ~0u, 0);
  for (int sig = 1; sig < NSIG; sig++)
    signal (sig, SIG_DFL);
  sigemptyset (&none);
  sigprocmask (SIG_SETMASK, &none, NULL);
  if (chdir ("/") < 0)
    _exit (126);
  execve (spec->path, (char *const *) argv, spec->env);
  dprintf (2, "%s: %s\n", spec->path, strerror (errno));
  _exit (127);
}

static void
log_line (struct script *s)
{
  s->line.len = 0;
  if (s->lines++ < SCRIPT_LOG_LINES)
    log_notice ("%s: %s", s->spec.label, s->line.text);
  else if (s->lines == SCRIPT_LOG_LINES + 1)
    log_warning ("%s: it says more than %d lines; the rest is not shown", s->spec.label,
                 SCRIPT_LOG_LINES);
}

static void
take_err (struct script *s, const char *buf, size_t len)
{
  bool whole;

  for (size_t at = 0; at < len;) {
    at += script_line_take (&s->line, buf + at, len - at, &whole);
    if (whole)
      log_line (s);
  }
}

static void
close_end (struct script *s, int *fd)
{
  if (*fd < 0)
    return;
  qb_loop_poll_del (s->loop, *fd);
  close (*fd);
  *fd = -1;
}

/* What is there now; false: its end was reached. */
static bool
drain (struct script *s, int fd)
{
  char buf[4096];

  for (unsigned i = 0; i < SCRIPT_READS; i++) {
    ssize_t n = read (fd, buf, sizeof buf);

    if (n < 0 && errno == EINTR)
      continue;
    if (n < 0)
      return errno == EAGAIN;
    if (n == 0)
      return false;
    if (fd == s->err_fd)
      take_err (s, buf, (size_t) n);
    else
      script_out_take (&s->out, buf, (size_t) n);
  }
  return true;
}

static int
on_output (int fd, int revents, void *opaque)
{
  struct script *s = opaque;

  if (!drain (s, fd))
    close_end (s, fd == s->out_fd ? &s->out_fd : &s->err_fd);
  return 0;
}

static void
forget (struct script *s)
{
  struct script **at = &all;

  while (*at != s)
    at = &(*at)->next;
  *at = s->next;
  qb_loop_timer_del (s->loop, s->timer);
  close_end (s, &s->out_fd);
  close_end (s, &s->err_fd);
  close_end (s, &s->pidfd);
  free (s);
}

static void
report (struct script *s, struct script_result *r)
{
  script_done_fn *done = s->done;

  s->done = NULL;
  r->ok = r->reason[0] == '\0';
  r->out = s->out.text;
  r->out_len = s->out.len;
  r->out_cut = s->out.cut;
  if (done)
    done (s->opaque, r);
}

static int
on_exit_of_child (int fd, int revents, void *opaque)
{
  struct script *s = opaque;
  char reason[CRG_REASON_MAX + 1] = "";
  struct script_result r = { .status = -1, .reason = reason };
  int status;

  if (waitpid (s->pid, &status, WNOHANG) != s->pid)
    return 0;
  if (s->out_fd >= 0)
    drain (s, s->out_fd);
  if (s->err_fd >= 0)
    drain (s, s->err_fd);
  if (s->line.len > 0)
    log_line (s);
  if (WIFEXITED (status))
    r.status = WEXITSTATUS (status);
  if (WIFSIGNALED (status))
    snprintf (reason, sizeof reason, "it was killed by signal %d", WTERMSIG (status));
  else if (r.status != 0)
    snprintf (reason, sizeof reason, "it ended with %d", r.status);
  report (s, &r);
  forget (s);
  return 0;
}

static void
kill_group (struct script *s)
{
  /* Before it has made its session it is alone. */
  if (kill (-s->pid, SIGKILL) < 0)
    kill (s->pid, SIGKILL);
}

/* Reported at once: one that a hung disk holds ends whenever that does. */
static void
on_deadline (void *opaque)
{
  struct script *s = opaque;
  char reason[CRG_REASON_MAX + 1];
  struct script_result r = { .status = -1, .reason = reason, .timed_out = true };

  snprintf (reason, sizeof reason, "it did not end within %u ms and was killed", s->spec.timeout_ms);
  kill_group (s);
  report (s, &r);
}

static int
make_pipes (int out[2], int err[2])
{
  if (pipe2 (out, O_CLOEXEC) < 0)
    return -1;
  if (pipe2 (err, O_CLOEXEC) < 0) {
    close (out[0]);
    close (out[1]);
    return -1;
  }
  /* Ours only: a script expects a pipe that waits. */
  fcntl (out[0], F_SETFL, O_NONBLOCK);
  fcntl (err[0], F_SETFL, O_NONBLOCK);
  return 0;
}

static void
close_gate (const int gate[2])
{
  int saved = errno;

  for (unsigned i = 0; i < 2; i++)
    if (gate[i] >= 0)
      close (gate[i]);
  errno = saved;
}

/* The child has waited for this. */
static bool
open_gate (const struct script *s, const int gate[2])
{
  bool go = s->pidfd >= 0 && (s->spec.begun == NULL || s->spec.begun (s->opaque, s->pid));

  if (go && s->spec.begun && write (gate[1], "", 1) < 0)
    log_debug ("%s: it was killed before it was run", s->spec.label); /* told when it is reaped */
  close_gate (gate);
  return go;
}

struct script *
script_start (struct qb_loop *loop, const struct script_spec *spec, script_done_fn *done,
              void *opaque)
{
  struct script *s = calloc (1, sizeof *s);
  int out[2], err[2], gate[2] = { -1, -1 }, saved;

  if (s == NULL || (spec->begun && pipe2 (gate, O_CLOEXEC) < 0)) {
    free (s);
    return NULL;
  }
  if (make_pipes (out, err) < 0) {
    close_gate (gate);
    free (s);
    return NULL;
  }
  s->loop = loop;
  s->spec = *spec;
  s->done = done;
  s->opaque = opaque;
  s->pid = fork ();
  if (s->pid == 0)
    run_child (spec, gate, out[1], err[1]);
  close (out[1]);
  close (err[1]);
  s->out_fd = out[0];
  s->err_fd = err[0];
  s->pidfd = s->pid > 0 ? (int) syscall (SYS_pidfd_open, s->pid, 0) : -1;
  if (!open_gate (s, gate)) {
    saved = errno;
    if (s->pid > 0) {
      kill (s->pid, SIGKILL);
      waitpid (s->pid, NULL, 0);
    }
    close (s->out_fd);
    close (s->err_fd);
    if (s->pidfd >= 0)
      close (s->pidfd);
    free (s);
    errno = saved;
    return NULL;
  }
  s->next = all;
  all = s;
  qb_loop_poll_add (loop, QB_LOOP_LOW, s->out_fd, POLLIN, s, on_output);
  qb_loop_poll_add (loop, QB_LOOP_LOW, s->err_fd, POLLIN, s, on_output);
  qb_loop_poll_add (loop, QB_LOOP_LOW, s->pidfd, POLLIN, s, on_exit_of_child);
  qb_loop_timer_add (loop, QB_LOOP_MED, spec->timeout_ms * (uint64_t) QB_TIME_NS_IN_MSEC, s,
                     on_deadline, &s->timer);
  return s;
}

void
script_cancel (struct script *s)
{
  if (s == NULL)
    return;
  s->done = NULL;
  kill_group (s);
}

void
script_end (void)
{
  while (all)
    forget (all);
}
