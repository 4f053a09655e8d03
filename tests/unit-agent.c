/* SPDX-License-Identifier: BSD-3-Clause */
/* The life of a script resource, its record and its guard, through a lease that ends, a crgd that is killed or
 * stands still, and a record that is damaged: it never comes up where it may not run (L2), and what has
 * started whole is taken over (S3).  A real agent in a directory of its own; "crgd" is this program or a
 * child of it.
 */
#include <config.h>

#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <qb/qbdefs.h>
#include <qb/qblog.h>
#include <qb/qbloop.h>

#include "common/clock.h"
#include "server/agent.h"
#include "server/guard.h"
#include "server/script.h"
#include "tests/loop.h"
#include "tests/tap.h"

#define LONG_MS 60000

/* It runs where `up` is; `came` is never removed.  Each call can be held up by a file. */
static const char script[] =
  "#!/bin/sh\n"
  "cd \"$CRG_RUN_DIR\" || exit 1\n"
  "echo $1 >>calls\n"
  "while [ -e hold-$1 ]; do sleep 0.02; done\n"
  "case $1 in\n"
  "  probe) [ -e up ] || exit 3 ;;\n"
  "  start) [ ! -e dies ] || { while [ -e hold-rest ]; do sleep 0.02; done; : >came; : >up; } &\n"
  "         [ ! -e dies ] || kill -KILL $$\n"
  "         : >came; : >up ;;\n"
  "  stop) [ ! -e jam ] || exit 1; rm -f up; echo stopped >>calls ;;\n"
  "  config) echo duplex = on ;;\n"
  "esac\n";

static struct {
  unsigned n;
  enum host_role role;
  bool ok;
} hosted;

/* ---- words ----------------------------------------------------------------------------- */

static void
drop (const char *name)
{
  unlink (at (name));
}

/* How often a line was written to `calls`. */
static unsigned
calls (const char *word)
{
  char line[32];
  unsigned n = 0;
  FILE *fp = fopen (at ("calls"), "r");

  while (fp && fgets (line, sizeof line, fp))
    if (strlen (line) == strlen (word) + 1 && strncmp (line, word, strlen (word)) == 0)
      n++;
  if (fp)
    fclose (fp);
  return n;
}

static void
clear (void)
{
  static const char *const files[] = { "calls", "up", "came", "dies", "jam", "hold-start", "hold-stop", "hold-rest",
                                       "x.agent", "x.config" };

  for (unsigned i = 0; i < ARRAY_SIZE (files); i++)
    drop (files[i]);
  hosted.n = 0;
}

/* The guard holds a lock on the record. */
static bool
is_guarded (void)
{
  int fd = open (at ("x.agent"), O_RDONLY | O_CLOEXEC);
  bool free_ = fd >= 0 && flock (fd, LOCK_EX | LOCK_NB) == 0;

  close (fd);
  return fd >= 0 && !free_;
}

/* ---- the agent and its loop ------------------------------------------------------------ */

static void
on_hosted (void *opaque, enum host_role role, uint64_t tenure, bool ok_, const char *reason)
{
  (void) opaque;
  (void) tenure;
  (void) reason;
  hosted.n++;
  hosted.role = role;
  hosted.ok = ok_;
}

static void
on_probed (void *opaque, bool can, bool owned, const char *reason)
{
  (void) opaque;
  (void) can;
  (void) owned;
  (void) reason;
}

static void
on_config (void *opaque, const char *text, size_t len)
{
  (void) opaque;
  (void) text;
  (void) len;
}

static struct agent *
new_agent (const char *run_dir)
{
  static const struct agent_callbacks cb = { on_hosted, on_probed, on_config };
  struct agent_spec spec = { .crg = "payroll", .name = "x", .node = "p1", .site = "rome", .boot_id = { 1 },
                             .timeout_ms = 10000 };

  snprintf (spec.path, sizeof spec.path, "%s", at ("agent"));
  snprintf (spec.run_dir, sizeof spec.run_dir, "%s", run_dir);
  snprintf (spec.state_dir, sizeof spec.state_dir, "%s", dir);
  return agent_new (loop, &spec, &cb, NULL);
}

/* It doesn't: crgd stands still, or is dead. */
#define wait_until(cond)                                                                                \
  ({                                                                                                    \
    for (unsigned i_ = 0; i_ < 2000 && !(cond); i_++)                                                   \
      usleep (5000);                                                                                    \
    (cond);                                                                                             \
  })

static void
host (struct agent *a, unsigned lease_ms)
{
  agent_want (a, HOST_PRODUCTION, 1);
  agent_set_lease (a, clock_boottime_ms () + lease_ms);
}

/* A crgd of its own that hosts with one lease, killed as soon as `word` is among the calls (and the record says
 * that a start has succeeded, if `whole`). */
static void
crgd_dies_at (const char *word, bool whole, unsigned lease_ms)
{
  pid_t pid = fork ();
  struct guard_record r;

  if (pid == 0) {
    struct agent *a;

    loop = qb_loop_create ();
    a = new_agent (dir);
    host (a, lease_ms);
    for (;;)
      (void) run_until (false);
  }
  ok (wait_until (calls (word) > 0), "the agent's %s is called", word);
  while (whole) {
    int fd = open (at ("x.agent"), O_RDONLY | O_CLOEXEC);

    whole = !guard_read (fd, &r) || r.start.pid != 0;
    close (fd);
    usleep (1000);
  }
  kill (pid, SIGKILL);
  waitpid (pid, NULL, 0);
}

/* Whatever was begun has its chance now. */
static void
never_came (const char *why)
{
  drop ("hold-start");
  drop ("hold-rest");
  usleep (100000);
  ok (!is_there ("came"), "%s", why);
}

/* ---- the cases ------------------------------------------------------------------------- */

static void
lease_ends_during_start (void)
{
  struct agent *a = new_agent (dir);

  make ("hold-start", "", 0600);
  host (a, 200);
  ok (run_until (calls ("start") > 0), "it is starting");
  ok (is_guarded (), "its record is there, and a guard, before it has started");
  ok (run_until (!is_there ("x.agent")), "the lease ends: it is stopped");
  ok (calls ("stop") > 0 && !agent_is_alive (a), "by its agent");
  never_came ("the start was killed first");
  is (hosted.n, 0, "that is no failure of this node");
  agent_set_lease (a, clock_boottime_ms () + LONG_MS);
  ok (run_until (hosted.n > 0) && hosted.ok && is_there ("up"), "with a new lease it is started again");
  agent_want (a, HOST_NONE, 1);
  ok (run_until (hosted.n > 1) && hosted.ok && !is_there ("up") && !is_there ("x.agent"), "and stopped");
  agent_free (a);
  clear ();
}

static void
stop_fails_then (void)
{
  struct agent *a = new_agent (dir);
  uint64_t over;

  make ("hold-start", "", 0600);
  make ("jam", "", 0600);
  host (a, 200);
  over = clock_boottime_ms () + 300; /* the guard may be the first to see it; the agent has to, before it is over */
  ok (run_until (calls ("stop") > 0 && clock_boottime_ms () > over),
      "the lease ends during its start, and it can't be stopped");
  agent_set_lease (a, clock_boottime_ms () + LONG_MS);
  drop ("hold-start");
  drop ("jam");
  ok (run_until (hosted.n > 0) && hosted.ok, "with a new lease it is started again");
  ok (calls ("start") == 2 && calls ("stopped") > 0, "but stopped first");
  agent_want (a, HOST_NONE, 1);
  ok (run_until (!agent_is_alive (a)), "the end of it");
  agent_free (a);
  clear ();
}

static void
is_wanted_no_more_during_start (void)
{
  struct agent *a = new_agent (dir);

  make ("hold-start", "", 0600);
  host (a, LONG_MS);
  ok (run_until (calls ("start") > 0), "it is starting");
  agent_want (a, HOST_NONE, 2);
  ok (run_until (hosted.n > 0) && hosted.ok && hosted.role == HOST_NONE, "it is released without waiting for it");
  never_came ("for it was killed");
  agent_free (a);
  clear ();
}

static void
crgd_is_killed_during_start (void)
{
  make ("hold-start", "", 0600);
  crgd_dies_at ("start", false, 1500); /* long enough to begin with it, also on a busy machine */
  ok (wait_until (calls ("stopped") > 0), "its guard stops it when the lease ends");
  never_came ("and has killed the start first");
  ok (is_there ("x.agent") && is_guarded (), "the record and the guard stay for the next crgd");
  clear ();
}

static void
next_crgd_finds_start (void)
{
  struct agent *a;

  make ("hold-start", "", 0600);
  crgd_dies_at ("start", false, LONG_MS);
  a = new_agent (dir);
  ok (agent_adopt (a) && agent_is_alive (a), "the next crgd, in the lease, finds it");
  ok (run_until (!agent_is_alive (a)), "it is stopped");
  is (calls ("probe"), 0, "whatever a probe would have said");
  never_came ("the start was killed first");
  is (hosted.n, 0, "it was not taken over");
  agent_free (a);
  clear ();
}

static void
next_crgd_finds_stop (void)
{
  struct agent *a;
  struct guard_record r = { .tenure = 1, .lease_ms = clock_boottime_ms () + LONG_MS, .boot = { 1 } };
  pid_t pid = fork ();
  int status = 0;

  if (pid == 0) {
    setsid ();
    alarm (20);
    for (;;)
      pause ();
  }
  make ("up", "", 0600);
  ok (procgroup_of (pid, &r.stop) && guard_write (at ("x.agent"), &r), "an earlier crgd has died during a stop");
  a = new_agent (dir);
  ok (agent_adopt (a) && run_until (!agent_is_alive (a)) && !is_there ("up"), "the next one stops it");
  is (calls ("probe"), 0, "though it may run yet");
  ok (waitpid (pid, &status, WNOHANG) == pid && WIFSIGNALED (status), "the call that was under way was killed");
  agent_free (a);
  clear ();
}

static void
next_crgd_takes_over (void)
{
  struct agent *a;

  crgd_dies_at ("start", true, LONG_MS);
  a = new_agent (dir);
  ok (agent_adopt (a), "what has started whole");
  ok (run_until (hosted.n > 0) && hosted.ok && hosted.role == HOST_PRODUCTION, "is taken over");
  is (calls ("start"), 1, "and not started again");
  is (calls ("stop"), 0, "nor stopped");
  agent_want (a, HOST_NONE, 1);
  ok (run_until (!agent_is_alive (a)), "the end of it");
  agent_free (a);
  clear ();
}

static void
leader_dies (void)
{
  struct agent *a = new_agent (dir);

  make ("hold-rest", "", 0600);
  make ("dies", "", 0600);
  host (a, LONG_MS);
  ok (run_until (hosted.n > 0) && !hosted.ok && calls ("stop") > 0, "a start whose first process is killed has failed");
  never_came ("and the rest of it was killed before the stop");
  agent_free (a);
  clear ();
}

static void
crgd_stands_still (void)
{
  struct agent *a = new_agent (dir);
  uint64_t until;
  int fd;
  struct guard_record r;

  host (a, 600);
  ok (run_until (hosted.n > 0) && hosted.ok, "it runs");
  make ("hold-stop", "", 0600);
  ok (wait_until (calls ("stop") > 0), "crgd stands still, and the guard is in its stop");
  until = clock_boottime_ms () + 900;
  agent_set_lease (a, until);
  drop ("hold-stop");
  ok (wait_until (calls ("stopped") > 0), "crgd goes on with a new lease meanwhile");
  usleep (100000);
  fd = open (at ("x.agent"), O_RDONLY | O_CLOEXEC);
  ok (guard_read (fd, &r) && r.lease_ms == until, "its record is the same file, with the new lease");
  close (fd);
  ok (is_guarded (), "and has its guard");
  make ("up", "", 0600); /* as crgd would start it again */
  ok (wait_until (!is_there ("up")) && clock_boottime_ms () >= until, "which stops it anew when that lease ends");
  agent_free (a);
  clear ();
}

static void
record_is_damaged (void)
{
  struct agent *a;

  make ("x.agent", "no record\n", 0600);
  make ("up", "", 0600);
  make ("hold-stop", "", 0600);
  a = new_agent (dir);
  ok (agent_adopt (a) && agent_is_alive (a), "what a damaged record is about may run");
  host (a, LONG_MS);
  ok (run_until (calls ("stop") > 0) && agent_is_alive (a), "so it is stopped, and counts as running until then");
  drop ("hold-stop");
  is (calls ("start"), 0, "also if it is wanted here");
  ok (run_until (hosted.n > 0) && hosted.ok && calls ("start") == 1, "then it is started");
  agent_want (a, HOST_NONE, 1);
  ok (run_until (!agent_is_alive (a)) && !is_there ("up") && !is_there ("x.agent"), "the end of it");
  is (calls ("probe"), 0, "a probe was not asked");
  agent_free (a);
  clear ();
}

static void
no_record_no_start (void)
{
  struct agent *a = new_agent (at ("nowhere"));

  host (a, LONG_MS);
  ok (run_until (hosted.n > 0) && !hosted.ok && hosted.role == HOST_PRODUCTION, "without a record it can't be started");
  ok (calls ("start") == 0 && !agent_is_alive (a), "and isn't");
  agent_free (a);
  clear ();
}

/* Nothing of a program is run before it is noted, or if it can't be. */
static bool
on_begun (void *opaque, pid_t pid)
{
  (void) pid;
  usleep (100000);
  ok (calls ("start") == 0, "a program is not run before its beginning is noted");
  return *(bool *) opaque;
}

static void
on_end (void *opaque, const struct script_result *r)
{
  *(bool *) opaque = !r->ok;
}

static void
is_noted_first (void)
{
  char env[300], path[300];
  bool go = false;
  struct script_spec spec = { .label = "x", .path = path, .argument = { "start" }, .timeout_ms = 10000,
                              .env = (char *[]) { env, NULL }, .begun = on_begun };

  snprintf (path, sizeof path, "%s", at ("agent"));
  snprintf (env, sizeof env, "CRG_RUN_DIR=%s", dir);
  ok (script_start (loop, &spec, on_end, &go) == NULL && calls ("start") == 0, "nor if that fails");
  go = true;
  ok (script_start (loop, &spec, on_end, &go) != NULL && run_until (!go) && calls ("start") == 1, "then it is");
  clear ();
}

int
main (void)
{
  char cwd[150];

  if (!getcwd (cwd, sizeof cwd))
    abort ();
  snprintf (dir, sizeof dir, "%s/unit-agent-XXXXXX", cwd);
  if (!mkdtemp (dir))
    abort ();
  qb_log_init ("unit-agent", LOG_DAEMON, LOG_EMERG);
  qb_log_ctl (QB_LOG_SYSLOG, QB_LOG_CONF_ENABLED, QB_FALSE);
  signal (SIGPIPE, SIG_IGN);
  loop = qb_loop_create ();
  make ("agent", script, 0700);
  is_noted_first ();
  lease_ends_during_start ();
  stop_fails_then ();
  is_wanted_no_more_during_start ();
  crgd_is_killed_during_start ();
  next_crgd_finds_start ();
  next_crgd_finds_stop ();
  next_crgd_takes_over ();
  leader_dies ();
  crgd_stands_still ();
  record_is_damaged ();
  no_record_no_start ();
  drop ("agent");
  rmdir (dir);
  qb_loop_destroy (loop);
  qb_log_fini ();
  return tap_done ();
}
