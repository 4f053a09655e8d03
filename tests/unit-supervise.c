/* SPDX-License-Identifier: BSD-3-Clause */
/* The supervisor of a plugin process against a process that only speaks as one: whatever becomes of the shell of its
 * CRG, no process is lost and none is left unreaped (S3).  The nbdkit of this test is a copy of this program, which in
 * that name answers on its control socket; files beside that socket say how.
 */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <jansson.h>
#include <qb/qbdefs.h>
#include <qb/qblog.h>
#include <qb/qbloop.h>

#include "common/clock.h"
#include "server/probe.h"
#include "server/process.h"
#include "server/supervise.h"
#include "tests/loop.h"
#include "tests/tap.h"

static struct {
  unsigned n;
  enum host_role role;
  bool ok;
  char reason[CRG_REASON_MAX + 1];
} hosted;

/* ---- words ----------------------------------------------------------------------------- */

static void
copy_program (const char *name)
{
  static char buf[1 << 16];
  int in = open ("/proc/self/exe", O_RDONLY | O_CLOEXEC);
  int out = open (at (name), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0700);
  ssize_t n;

  while ((n = read (in, buf, sizeof buf)) > 0)
    if (write (out, buf, (size_t) n) != n)
      abort ();
  if (n < 0 || close (in) < 0 || close (out) < 0)
    abort ();
}

/* Not even a zombie. */
static bool
is_gone (pid_t pid)
{
  return kill (pid, 0) < 0 && errno == ESRCH;
}

static void
clear (void)
{
  static const char *const files[] = { "x.pid", "x.ctl", "x.log", "mute", "go", "export", "wrap", "wrapped" };

  for (unsigned i = 0; i < ARRAY_SIZE (files); i++)
    unlink (at (files[i]));
  memset (&hosted, 0, sizeof hosted);
}

/* ---- nbdkit ---------------------------------------------------------------------------- */

static const char *
argument (char **argv, const char *key)
{
  for (; *argv; argv++)
    if (strncmp (*argv, key, strlen (key)) == 0)
      return *argv + strlen (key);
  return "";
}

static void
answer (FILE *fp, const char *line, const char *lineage, char *role, size_t role_len)
{
  json_t *req = json_loads (line, 0, NULL);
  const char *cmd = json_string_value (json_object_get (req, "cmd"));

  if (cmd && strcmp (cmd, "role") == 0)
    snprintf (role, role_len, "%s", json_string_value (json_object_get (req, "role")));
  fprintf (fp, "{\"v\":1, \"id\":%lld, \"ok\":true, \"role\":\"%s\", \"tenure\":1, \"lineage\":\"%s\"}\n",
           (long long) json_integer_value (json_object_get (req, "id")), role, lineage);
  fflush (fp);
  json_decref (req);
}

static int
be_nbdkit (char **argv)
{
  struct sockaddr_un addr = { .sun_family = AF_UNIX };
  const char *path = argument (argv, "control=");
  char line[16384], mute[300], role[32] = "none";
  int fd = socket (AF_UNIX, SOCK_STREAM, 0);

  signal (SIGPIPE, SIG_IGN);
  alarm (60); /* whatever becomes of the test */
  snprintf (mute, sizeof mute, "%s", path);
  snprintf (strrchr (mute, '/') + 1, 5, "mute");
  while (access (mute, F_OK) == 0)
    usleep (5000);
  snprintf (addr.sun_path, sizeof addr.sun_path, "%s", path);
  if (bind (fd, (struct sockaddr *) &addr, sizeof addr) < 0 || listen (fd, 5) < 0)
    return 1;
  for (;;) {
    int conn = accept (fd, NULL, NULL);
    FILE *in = fdopen (conn, "r"), *out = fdopen (dup (conn), "w");

    while (in && out && fgets (line, sizeof line, in))
      answer (out, line, argument (argv, "lineage="), role, sizeof role);
    fclose (in);
    fclose (out);
  }
}

/* ---- a process that hangs in the kernel ------------------------------------------------- */

static bool cant_be_signalled;
long __real_syscall (long number, ...);
long __wrap_syscall (long number, long a, long b, long c, long d);

long
__wrap_syscall (long number, long a, long b, long c, long d)
{
  return number == SYS_pidfd_send_signal && cant_be_signalled ? 0 : __real_syscall (number, a, b, c, d);
}

/* ---- the supervisor and its loop ------------------------------------------------------- */

void
export_check (const void *arg, void *result)
{
  (void) arg;
  ((struct export_check *) result)->ok = true;
}

static void
on_hosted (void *opaque, enum host_role role, uint64_t tenure, bool ok_, const char *reason, json_t *info)
{
  (void) opaque;
  (void) tenure;
  (void) info;
  hosted.n++;
  hosted.role = role;
  hosted.ok = ok_;
  snprintf (hosted.reason, sizeof hosted.reason, "%s", reason);
}

static void
on_drained (void *opaque, bool ok_, const char *reason)
{
  (void) opaque;
  (void) ok_;
  (void) reason;
}

static void
on_event (void *opaque, const char *event, json_t *obj)
{
  (void) opaque;
  (void) event;
  (void) obj;
}

static void
on_changed (void *opaque)
{
  (void) opaque;
}

static void
on_died (void *opaque, const char *reason)
{
  (void) opaque;
  (void) reason;
}

static struct plugin_spec
make_spec (void)
{
  struct plugin_spec spec = { .crg = "payroll", .iasp = "x", .node = "p1", .site = "rome", .node_id = 1,
                              .lineage = { 1 }, .size = 1 << 20, .dirty_block = 65536, .threads = 1,
                              .export_addr = "127.0.0.1", .plugin = "iasp", .store = "/nowhere" };

  snprintf (spec.nbdkit, sizeof spec.nbdkit, "%s", at ("nbdkit"));
  snprintf (spec.run_dir, sizeof spec.run_dir, "%s", dir);
  return spec;
}

static struct plugin *
new_plugin_of (const struct plugin_spec *spec)
{
  static const struct plugin_callbacks cb = { on_hosted, on_drained, on_event, on_changed, on_died };

  return plugin_new (loop, spec, &cb, NULL);
}

static struct plugin *
new_plugin (void)
{
  struct plugin_spec spec = make_spec ();

  return new_plugin_of (&spec);
}


/* A process that has its role. */
static struct plugin *
host (void)
{
  struct plugin *p = new_plugin ();

  plugin_want (p, HOST_MIRROR, 1);
  ok (run_until (hosted.n > 0) && hosted.ok && hosted.role == HOST_MIRROR, "a process has its role");
  return p;
}

/* ---- the cases ------------------------------------------------------------------------- */

/* The shell of the CRG begins anew in the same crgd: what it adopts is its own child. */
static void
is_reaped_after_adoption (void)
{
  struct plugin *p = host ();
  pid_t pid = plugin_pid (p);

  plugin_free (p);
  p = new_plugin ();
  ok (plugin_adopt (p) && plugin_pid (p) == pid, "it is adopted by the next shell of the same crgd");
  hosted.n = 0;
  ok (run_until (hosted.n > 0) && hosted.ok && hosted.role == HOST_MIRROR, "and has its role");
  plugin_want (p, HOST_NONE, 1);
  ok (run_until (hosted.n > 1) && hosted.ok && hosted.role == HOST_NONE, "it is ended");
  ok (is_gone (pid), "and reaped");
  plugin_free (p);
  clear ();
}

static void
is_reaped_when_forgotten (void)
{
  struct plugin *p = host ();
  pid_t pid = plugin_pid (p);

  plugin_kill (p);
  plugin_free (p);
  ok (run_until (is_gone (pid)), "one that is killed and forgotten is reaped");
  clear ();
}

/* It may not even be nbdkit yet, so that nobody could find it. */
static void
is_forgotten_before_asked (void)
{
  struct plugin *p = new_plugin ();
  pid_t pid;

  make ("mute", "", 0600);
  plugin_want (p, HOST_MIRROR, 1);
  pid = plugin_pid (p);
  ok (pid > 0 && !is_gone (pid), "a process is started, and has not been asked anything");
  plugin_free (p);
  ok (run_until (is_gone (pid)), "it is ended and reaped when it is forgotten");
  p = new_plugin ();
  plugin_want (p, HOST_MIRROR, 1);
  pid = plugin_pid (p);
  ok (run_until (is_there ("x.pid")), "another one is started");
  unlink (at ("mute"));
  ok (run_until (hosted.n > 0) && hosted.ok, "which has its role");
  plugin_free (p);
  ok (!is_gone (pid), "and is left to the next crgd");
  kill (pid, SIGKILL);
  waitpid (pid, NULL, 0);
  clear ();
}

static void
wait_for (const char *name)
{
  while (!is_there (name))
    usleep (2000);
}

/* A crgd dies after its fork. */
static void
is_found_before_it_is_run (void)
{
  struct plugin_spec spec = make_spec ();
  struct process_place place;
  char text[32], control[400], script[800];
  pid_t pid, stranger;
  int pidfd;

  process_place (&place, spec.run_dir, spec.iasp);
  snprintf (control, sizeof control, "control=%s", place.ctl_path);
  snprintf (script, sizeof script, ": >%s; until [ -e %s ]; do sleep 0.01; done; exec %s \"$@\"", at ("wrapped"),
            at ("go"), at ("nbdkit"));
  pid = fork ();
  if (pid == 0) {
    wait_for ("wrap");
    execl ("/bin/sh", "sh", "-c", script, "sh", control, "lineage=", NULL);
    _exit (127);
  }
  make ("mute", "", 0600);
  snprintf (text, sizeof text, "%d\n", (int) pid);
  make ("x.pid", text, 0600);
  ok (process_find (&place, &pidfd) == 0, "what is no nbdkit yet is not taken over");
  ok (is_there ("x.pid"), "but not forgotten either");
  make ("wrap", "", 0600);
  ok (run_until (is_there ("wrapped")) && process_find (&place, &pidfd) == 0 && is_there ("x.pid"),
      "nor is a script that is to run it");
  make ("go", "", 0600);
  ok (run_until (process_find (&place, &pidfd) == pid), "when it is, it is found");
  close (pidfd);
  kill (pid, SIGKILL);
  waitpid (pid, NULL, 0);
  ok (process_find (&place, &pidfd) == 0 && !is_there ("x.pid"), "when it is gone, its file is removed");

  stranger = fork ();
  if (stranger == 0) {
    execlp ("sleep", "sleep", "60", NULL);
    _exit (127);
  }
  snprintf (text, sizeof text, "%d\n", (int) stranger);
  make ("x.pid", text, 0600);
  ok (run_until (process_find (&place, &pidfd) == 0 && !is_there ("x.pid")), "another program's number is not ours");
  ok (kill (stranger, SIGKILL) == 0, "which goes on");
  waitpid (stranger, NULL, 0);
  clear ();
}

static void
cant_be_killed (void)
{
  struct plugin *p = host ();
  pid_t pid = plugin_pid (p);

  cant_be_signalled = true;
  hosted.n = 0;
  plugin_want (p, HOST_NONE, 1);
  ok (run_until (hosted.n > 0) && !hosted.ok && hosted.role == HOST_NONE, "it is said that it can't be ended");
  ok (strstr (hosted.reason, "can't be killed") != NULL && plugin_is_alive (p), "and why");
  plugin_want (p, HOST_NONE, 1);
  is (hosted.n, 1, "asked again, it is not said at once");
  kill (pid, SIGKILL);
  ok (run_until (hosted.n > 1) && hosted.ok && hosted.role == HOST_NONE && is_gone (pid), "it ends after all");
  cant_be_signalled = false;
  plugin_free (p);
  clear ();
}

static void
export_is_no_socket (void)
{
  struct sockaddr_un addr = { .sun_family = AF_UNIX };
  struct plugin_spec spec = make_spec ();
  int fd = socket (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  struct plugin *p;

  snprintf (spec.export_unix, sizeof spec.export_unix, "%s", at ("export"));
  make ("export", "an operator's", 0600);
  p = new_plugin_of (&spec);
  plugin_want (p, HOST_MIRROR, 1);
  ok (run_until (hosted.n > 0) && !hosted.ok && hosted.role == HOST_MIRROR, "a file in the place of its export");
  ok (strstr (hosted.reason, "no socket") != NULL, "it is said why it isn't hosted");
  ok (is_there ("export") && !plugin_is_alive (p), "and the file is left");
  unlink (at ("export"));
  snprintf (addr.sun_path, sizeof addr.sun_path, "%s", at ("export"));
  ok (bind (fd, (struct sockaddr *) &addr, sizeof addr) == 0, "an old socket there");
  close (fd);
  plugin_want (p, HOST_MIRROR, 1);
  ok (run_until (hosted.n > 1) && hosted.ok && hosted.role == HOST_MIRROR && !is_there ("export"), "is removed");
  plugin_want (p, HOST_NONE, 1);
  ok (run_until (hosted.n > 2) && hosted.ok, "the end of it");
  plugin_free (p);
  clear ();
}

static int
on_term (int sig, void *opaque)
{
  (void) sig;
  *(unsigned *) opaque += 1;
  return 0;
}

/* Until its execve a child has the handlers, and the pipes, of crgd. */
static void
is_ended_before_it_is_run (void)
{
  unsigned terms = 0;
  qb_loop_signal_handle handle;
  bool all_gone = true;

  qb_loop_signal_add (loop, QB_LOOP_HIGH, SIGTERM, &terms, on_term, &handle);
  for (unsigned i = 0; i < 10; i++) {
    struct plugin *p = new_plugin ();
    pid_t pid;

    plugin_want (p, HOST_MIRROR, 1);
    pid = plugin_pid (p);
    plugin_want (p, HOST_NONE, 1);
    all_gone = all_gone && pid > 0 && run_until (is_gone (pid));
    plugin_free (p);
  }
  ok (all_gone, "a process that is wanted no more ends as soon as it was forked");
  is (terms, 0, "and crgd doesn't take that for its own end");
  qb_loop_signal_del (loop, handle);
  clear ();
}

int
main (int argc, char **argv)
{
  char cwd[150];

  if (argc > 1 && strcmp (strrchr (argv[0], '/') ?: "", "/nbdkit") == 0)
    return be_nbdkit (argv);
  if (!getcwd (cwd, sizeof cwd))
    abort ();
  /* Short: it is the place of a socket. */
  snprintf (dir, sizeof dir, "%s/sup-XXXXXX", cwd);
  if (!mkdtemp (dir))
    abort ();
  qb_log_init ("unit-supervise", LOG_DAEMON, LOG_EMERG);
  qb_log_ctl (QB_LOG_SYSLOG, QB_LOG_CONF_ENABLED, QB_FALSE);
  signal (SIGPIPE, SIG_IGN);
  loop = qb_loop_create ();
  copy_program ("nbdkit");
  is_reaped_after_adoption ();
  is_reaped_when_forgotten ();
  is_forgotten_before_asked ();
  is_found_before_it_is_run ();
  cant_be_killed ();
  export_is_no_socket ();
  is_ended_before_it_is_run ();
  unlink (at ("nbdkit"));
  rmdir (dir);
  qb_loop_destroy (loop);
  qb_log_fini ();
  return tap_done ();
}
