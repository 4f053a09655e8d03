/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The processes of process.h.  Between fork and exec the child calls nothing
 * that could wait for a lock of the parent's; a process found by its file is
 * used only through a pidfd that was opened before its identity was checked.
 */
#include "config.h"

#include "server/process.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <qb/qbdefs.h>
#include <qb/qbloop.h>

#include "common/ident.h"
#include "common/util-posix.h"
#include "server/log.h"

void
process_place (struct process_place *place, const char *run_dir, const char *iasp)
{
  snprintf (place->ctl_path, sizeof place->ctl_path, "%s/%s.ctl", run_dir, iasp);
  snprintf (place->pid_path, sizeof place->pid_path, "%s/%s.pid", run_dir, iasp);
  snprintf (place->log_path, sizeof place->log_path, "%s/%s.log", run_dir, iasp);
}

static void
write_pid_file (const char *path, pid_t pid)
{
  char text[32];
  int fd = open (path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
  int len = snprintf (text, sizeof text, "%d\n", (int) pid);

  if (fd < 0 || write (fd, text, (size_t) len) != len)
    _exit (126);
  close (fd);
}

#define ARG_MAX_COUNT 48
struct args {
  char *v[ARG_MAX_COUNT + 1];
  unsigned n;
  bool failed;
};

static void UTIL_PRINTF (2, 3)
arg_add (struct args *a, const char *fmt, ...)
{
  va_list ap;

  va_start (ap, fmt);
  if (a->n >= ARG_MAX_COUNT || vasprintf (&a->v[a->n], fmt, ap) < 0) {
    a->failed = true;
    if (a->n < ARG_MAX_COUNT)
      a->v[a->n] = NULL;
  }
  else
    a->n++;
  va_end (ap);
}

static void
arg_id (struct args *a, const char *key, const uint8_t id[CRG_ID_LEN])
{
  char text[IDENT_ID_TEXT_LEN];

  ident_id_to_text (id, text);
  arg_add (a, "%s=%s", key, text);
}

/* The command line of nbd-crg's plugin; see nbdkit-iasp-plugin(1). */
static void
build_args (const struct plugin_spec *s, const struct process_place *place, struct args *a)
{
  arg_add (a, "%s", s->nbdkit);
  arg_add (a, "-f");
  arg_add (a, "-t");
  arg_add (a, "%u", s->threads);
  if (s->export_unix[0]) {
    arg_add (a, "-U");
    arg_add (a, "%s", s->export_unix);
    arg_add (a, "--tls=off");
  }
  else {
    arg_add (a, "-i");
    arg_add (a, "%s", s->export_addr);
    arg_add (a, "-p");
    arg_add (a, "%u", s->export_port);
    if (s->tls) {
      arg_add (a, "--tls=require");
      arg_add (a, "--tls-verify-peer");
      arg_add (a, "--tls-certificates=%s/nbd", s->tls_dir);
    }
    else
      arg_add (a, "--tls=off");
  }
  arg_add (a, "%s", s->plugin);
  arg_add (a, "name=%s", s->iasp);
  arg_add (a, "store=%s", s->store);
  if (s->meta[0])
    arg_add (a, "meta=%s", s->meta);
  arg_add (a, "control=%s", place->ctl_path);
  arg_add (a, "node=%s", s->node);
  arg_add (a, "node-id=%u", s->node_id);
  arg_add (a, "site=%s", s->site);
  arg_add (a, "crg=%s", s->crg);
  arg_id (a, "cluster-id", s->cluster_id);
  arg_id (a, "crg-id", s->crg_id);
  arg_id (a, "iasp-id", s->iasp_id);
  arg_id (a, "lineage", s->lineage);
  arg_add (a, "size=%llu", (unsigned long long) s->size);
  arg_add (a, "dirty-block=%u", s->dirty_block);
  arg_add (a, "suspend-timeout-ms=%u", s->suspend_timeout_ms);
  arg_add (a, "no-quorum-timeout-ms=%u", s->no_quorum_timeout_ms);
  arg_add (a, "store-error=%s", s->return_store_error ? "return" : "fail-over");
  if (s->resync_share != 0)
    arg_add (a, "resync-share=%u", s->resync_share);
  if (s->snapshot)
    arg_add (a, "snapshot-before-resync=on");
  if (s->snapshot && s->snapshot_hook[0])
    arg_add (a, "snapshot-hook=%s", s->snapshot_hook);
  if (s->reservation)
    arg_add (a, "persistent-reservation=on");
  if (s->listen[0])
    arg_add (a, "listen=%s", s->listen);
  arg_add (a, "tls-ca=%s/ca.pem", s->tls_dir);
  arg_add (a, "tls-cert=%s/%s.pem", s->tls_dir, s->node);
  arg_add (a, "tls-key=%s/%s.key", s->tls_dir, s->node);
  a->v[a->n] = NULL;
}

static void
exec_child (const struct process_place *place, struct args *a)
{
  sigset_t none;
  int null_fd, log_fd;

  setsid ();
  write_pid_file (place->pid_path, getpid ());
  null_fd = open ("/dev/null", O_RDWR);
  log_fd = open (place->log_path, O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW, 0600);
  if (null_fd < 0 || dup2 (null_fd, 0) < 0 || dup2 (log_fd >= 0 ? log_fd : null_fd, 1) < 0
      || dup2 (log_fd >= 0 ? log_fd : null_fd, 2) < 0)
    _exit (126);
  close_range (3, ~0u, 0);
  for (int sig = 1; sig < NSIG; sig++)
    signal (sig, SIG_DFL);
  sigemptyset (&none);
  sigprocmask (SIG_SETMASK, &none, NULL);
  execv (a->v[0], a->v);
  dprintf (2, "crgd: %s: %s\n", a->v[0], strerror (errno));
  _exit (127);
}

pid_t
process_start (const struct plugin_spec *spec, const struct process_place *place)
{
  struct args a = { 0 };
  sigset_t all, old;
  pid_t pid;

  build_args (spec, place, &a);
  /* Until the child has handlers of its own a signal to it would run ours, which tells our loop. */
  sigfillset (&all);
  sigprocmask (SIG_SETMASK, &all, &old);
  pid = a.failed ? -1 : fork ();
  if (pid == 0)
    exec_child (place, &a);
  sigprocmask (SIG_SETMASK, &old, NULL);
  for (unsigned i = 0; i < a.n; i++)
    free (a.v[i]);
  return pid;
}

static pid_t
read_pid_file (const char *path)
{
  char text[32] = "";
  CLEANUP_CLOSE int fd = open (path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
  long pid;

  if (fd < 0 || read (fd, text, sizeof text - 1) <= 0)
    return 0;
  pid = strtol (text, NULL, 10);
  return pid > 1 ? (pid_t) pid : 0;
}

enum whose { OURS, ANOTHER, UNKNOWN };

static enum whose
what_cant_be_read (void)
{
  return errno == ENOENT || errno == ESRCH ? ANOTHER : UNKNOWN; /* gone, or not now */
}

/* A child of a crgd, before it is run. */
static bool
is_to_be_run (pid_t pid, const char *exe)
{
  char own[CRG_PATH_MAX + 1];
  ssize_t n = readlink ("/proc/self/exe", own, sizeof own - 1);

  own[MAX (n, 0)] = '\0';
  return pid != getpid () && strcmp (own, exe) == 0;
}

/* Is it an nbdkit that serves this control socket?  Its own command line and
 * executable say so; a reused process id does not pass. */
static enum whose
whose_process (pid_t pid, const char *ctl_path)
{
  char path[64], exe[CRG_PATH_MAX + 1], cmdline[16384], want[CRG_PATH_MAX + 96];
  CLEANUP_CLOSE int fd = -1;
  ssize_t n;
  const char *base;

  snprintf (path, sizeof path, "/proc/%d/exe", (int) pid);
  n = readlink (path, exe, sizeof exe - 1);
  if (n < 0)
    return what_cant_be_read ();
  exe[n] = '\0';
  base = strrchr (exe, '/');
  snprintf (path, sizeof path, "/proc/%d/cmdline", (int) pid);
  fd = open (path, O_RDONLY | O_CLOEXEC);
  n = fd < 0 ? -1 : read (fd, cmdline, sizeof cmdline - 1);
  if (n < 0)
    return what_cant_be_read ();
  if (n == 0)
    return UNKNOWN; /* in the middle of its execve */
  cmdline[n] = '\0';
  snprintf (want, sizeof want, "control=%s", ctl_path);
  for (const char *arg = cmdline; arg < cmdline + n; arg += strlen (arg) + 1)
    if (strcmp (arg, want) == 0)
      return base && strncmp (base + 1, "nbdkit", 6) == 0 ? OURS : UNKNOWN; /* a script that will run it */
  return is_to_be_run (pid, exe) ? UNKNOWN : ANOTHER;
}

pid_t
process_find (const struct process_place *place, int *pidfd)
{
  pid_t pid = read_pid_file (place->pid_path);
  enum whose whose = UNKNOWN;

  *pidfd = pid ? (int) syscall (SYS_pidfd_open, pid, 0) : -1;
  if (*pidfd < 0) {
    if (pid && errno == ESRCH)
      unlink (place->pid_path);
    return 0;
  }
  for (unsigned i = 0; i < PROCESS_LOOKS && whose == UNKNOWN; i++) {
    if (i > 0)
      poll (NULL, 0, PROCESS_LOOK_MS);
    whose = whose_process (pid, place->ctl_path);
  }
  if (whose == OURS)
    return pid;
  close (*pidfd);
  if (whose == ANOTHER)
    unlink (place->pid_path);
  return 0;
}

static int
on_end (int pidfd, int revents, void *loop)
{
  siginfo_t info;

  (void) revents;
  waitid (P_PIDFD, (id_t) pidfd, &info, WEXITED | WNOHANG); /* of somebody else's it is none */
  qb_loop_poll_del (loop, pidfd);
  close (pidfd);
  return 0;
}

void
process_reap (struct qb_loop *loop, int pidfd)
{
  if (qb_loop_poll_add (loop, QB_LOOP_LOW, pidfd, POLLIN, loop, on_end) < 0)
    close (pidfd);
}

unsigned
plugin_end_strays (const char *run_dir, bool (*is_ours) (void *, const char *), void *opaque)
{
  DIR *d = opendir (run_dir);
  struct dirent *de;
  unsigned ended = 0;

  while (d && (de = readdir (d)) != NULL) {
    size_t len = strlen (de->d_name);
    char iasp[CRG_NAME_MAX + 1];
    struct process_place place;
    pid_t pid;
    int pidfd;

    if (len <= 4 || len - 4 > CRG_NAME_MAX || strcmp (de->d_name + len - 4, ".pid") != 0)
      continue;
    memcpy (iasp, de->d_name, len - 4);
    iasp[len - 4] = '\0';
    if (!ident_name_is_valid (iasp) || is_ours (opaque, iasp))
      continue;
    process_place (&place, run_dir, iasp);
    pid = process_find (&place, &pidfd);
    if (pid != 0) {
      static const int signals[] = { SIGTERM, SIGKILL };

      log_warning ("%s: ending process %d: no CRG of this node has this IASP", iasp, (int) pid);
      for (unsigned i = 0; i < ARRAY_SIZE (signals); i++) {
        struct pollfd pfd = { .fd = pidfd, .events = POLLIN };

        syscall (SYS_pidfd_send_signal, pidfd, signals[i], NULL, 0);
        if (poll (&pfd, 1, PLUGIN_TERM_MS) > 0)
          break;
      }
      close (pidfd);
      unlink (place.pid_path);
      ended++;
    }
  }
  if (d)
    closedir (d);
  return ended;
}

void
plugin_spec_uri (const struct plugin_spec *s, char *buf, size_t len)
{
  bool v6 = strchr (s->export_addr, ':') != NULL;

  if (s->export_unix[0])
    snprintf (buf, len, "nbd+unix:///%s?socket=%s", s->iasp, s->export_unix);
  else
    snprintf (buf, len, "%s://%s%s%s:%u/%s", s->tls ? "nbds" : "nbd", v6 ? "[" : "",
              s->export_addr, v6 ? "]" : "", s->export_port, s->iasp);
}
