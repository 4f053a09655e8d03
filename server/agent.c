/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The supervisor of agent.h.  Owns the record of what was started, R/NAME.agent
 * (tenure, boot, lease and the calls under way: an agent's resource has no
 * process that could say it), and the configuration that the host told,
 * STATE-DIR/NAME.config.
 *
 * So that it never runs on two nodes (L2, S3): while there is a record the
 * resource may run, or come up, and a guard (guard.h) watches; without one
 * neither is possible.  The record, with the process group of `start` in it, is
 * there before a line of `start` is run, and only crgd removes it.  A `start` goes
 * on only while the resource may run here: when the lease is over, or another
 * node is named, its process group is killed, by crgd or the guard, whoever
 * sees it first; then `stop` is called.  A `stop` counts only if no process of
 * a start that failed or was killed was left when it began.  A crgd that finds
 * a record with a call in its middle kills that, and stops the resource,
 * whatever a probe says; what has started whole it takes over.
 */
#include "config.h"

#include "server/agent.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <qb/qbdefs.h>
#include <qb/qbloop.h>

#include "common/clock.h"
#include "common/ident.h"
#include "common/program.h"
#include "common/util-posix.h"
#include "server/guard.h"
#include "server/log.h"
#include "server/script.h"
#include "server/script_text.h"

/* Exit codes of `probe`, those that LSB gives to `status`. */
enum { AGENT_RUNS = 0, AGENT_STOPPED = 3 };

#define AGENT_TICK_MS 50
/* Who was killed is gone within microseconds, or hangs in the kernel. */
#define AGENT_END_MS 10
#define AGENT_VARS 16

enum call { CALL_NONE, CALL_PROBE, CALL_START, CALL_STOP, CALL_CONFIG, CALL_CHECK, CALL_ADOPT };
static const char *const verbs[] = { [CALL_PROBE] = "probe", [CALL_START] = "start",
                                     [CALL_STOP] = "stop",   [CALL_CONFIG] = "config",
                                     [CALL_CHECK] = "probe", [CALL_ADOPT] = "probe" };

struct agent {
  qb_loop_t *loop;
  struct agent_spec spec;
  struct agent_callbacks cb;
  void *opaque;
  char record_path[CRG_PATH_MAX + CRG_NAME_MAX + 16], config_path[CRG_PATH_MAX + CRG_NAME_MAX + 16];

  bool want_run, want_answer;
  uint64_t want_tenure;
  bool start_failed;       /* for the present want; what was begun is stopped first */
  bool cut;                /* a call was ended in its middle: stopped first, then as wanted */
  uint64_t lease_ms;

  bool may_run, runs;
  enum call call;          /* under way */
  struct script *script;
  struct procgroup start;  /* not known to have succeeded */
  struct procgroup stop;   /* under way */
  bool start_gone;         /* when the stop began no process of the start was left */
  bool unguarded;          /* that was logged */
  bool adopt_due, probe_due, config_due;
  uint64_t check_ms, retry_ms;
  char *config;            /* that was told last; NULL: none */
  char trouble[CRG_REASON_MAX + 1];
  qb_loop_timer_handle timer;
};

static void drive (struct agent *a);

static void UTIL_PRINTF (2, 3)
trouble (struct agent *a, const char *fmt, ...)
{
  va_list ap;

  va_start (ap, fmt);
  vsnprintf (a->trouble, sizeof a->trouble, fmt, ap);
  va_end (ap);
}

/* ---- its surroundings ------------------------------------------------------------------ */

struct vars {
  char text[AGENT_VARS][CRG_PATH_MAX + CRG_NAME_MAX + 64];
  char *env[AGENT_VARS + 1];
};

static void
make_env (const struct agent *a, struct vars *v)
{
  unsigned n = 0;

#define VAR(...) snprintf (v->text[n], sizeof v->text[n], __VA_ARGS__), v->env[n] = v->text[n], n++
  VAR ("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
  VAR ("LC_ALL=C");
  VAR ("CRG_NAME=%s", a->spec.crg);
  VAR ("CRG_RESOURCE=%s", a->spec.name);
  VAR ("CRG_NODE=%s", a->spec.node);
  VAR ("CRG_SITE=%s", a->spec.site);
  VAR ("CRG_TENURE=%llu", (unsigned long long) a->want_tenure);
  VAR ("CRG_CONFIG_FILE=%s", a->config_path);
  VAR ("CRG_CONF_DIR=%s", a->spec.conf_dir);
  VAR ("CRG_RUN_DIR=%s", a->spec.run_dir);
#undef VAR
  v->env[n] = NULL;
}

/* ---- the record ------------------------------------------------------------------------ */

/* Somebody else sees to its end, too. */
static bool
set_guard (struct agent *a)
{
  struct vars v;
  int r;

  make_env (a, &v);
  r = guard_start (a->record_path, a->spec.path, v.env, a->spec.timeout_ms);
  if (r < 0 && !a->unguarded)
    log_error ("%s: no guard for its lease: %s", a->spec.name, strerror (-r));
  a->unguarded = r < 0;
  if (r < 0)
    errno = -r;
  return r == 0;
}

/* The record as it is now, and a guard for it.  False: one of them isn't there. */
static bool
keep_record (struct agent *a)
{
  struct guard_record r = { .tenure = a->want_tenure, .lease_ms = a->lease_ms, .start = a->start, .stop = a->stop };

  memcpy (r.boot, a->spec.boot_id, sizeof r.boot);
  if (guard_write (a->record_path, &r))
    return set_guard (a);
  log_error ("%s: can't note in %s that it is started: %s", a->spec.name, a->record_path,
             strerror (errno));
  return false;
}

/* Nothing of it runs, and nothing can come up. */
static void
end_record (struct agent *a)
{
  a->may_run = a->runs = a->cut = false;
  a->start = a->stop = (struct procgroup) { 0 };
  unlink (a->record_path);
}

/* False: there is none, or one of a time before this boot. */
static bool
read_record (struct agent *a, struct guard_record *r, bool *whole)
{
  CLEANUP_CLOSE int fd = open (a->record_path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);

  *r = (struct guard_record) { 0 };
  if (fd < 0 && errno == ENOENT)
    return false;
  *whole = guard_read (fd, r); /* not if it can't be opened, either */
  if (*whole && !ident_id_equal (r->boot, a->spec.boot_id)) {
    unlink (a->record_path);
    return false;
  }
  return true;
}

void
agent_take_config (struct agent *a, const char *text, size_t len)
{
  char tmp[sizeof a->config_path + 8];
  CLEANUP_CLOSE int fd = -1;

  if (len == 0)
    return;
  snprintf (tmp, sizeof tmp, "%s.new", a->config_path);
  fd = open (tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd < 0 || write (fd, text, len) != (ssize_t) len || fsync (fd) < 0
      || rename (tmp, a->config_path) < 0)
    log_error ("%s: the configuration that its host told can't be kept in %s: %s", a->spec.name,
               a->config_path, strerror (errno));
  else
    log_info ("%s: its host told its configuration (%zu bytes)", a->spec.name, len);
}

/* ---- reports --------------------------------------------------------------------------- */

static void
report (struct agent *a, enum host_role role, bool ok, const char *reason)
{
  char copy[CRG_REASON_MAX + 1];

  snprintf (copy, sizeof copy, "%s", reason);
  a->want_answer = false;
  a->cb.hosted (a->opaque, role, a->want_tenure, ok, copy);
}

static void
take_config_of_agent (struct agent *a, const struct script_result *r)
{
  int told = script_config_len (r->out, r->out_len, r->out_cut);
  size_t len = (size_t) told;

  if (!r->ok) {
    log_warning ("%s: its agent does not tell its configuration: %s", a->spec.name, r->reason);
    return;
  }
  if (told < 0) {
    log_error ("%s: its agent's configuration has a NUL or more than %d bytes; the other nodes are "
               "not told", a->spec.name, CRG_CONFIG_MAX);
    return;
  }
  if (a->config && strlen (a->config) == len && memcmp (a->config, r->out, len) == 0)
    return;
  free (a->config);
  a->config = strndup (r->out, len);
  /* It is this node's own, too, when it starts again. */
  agent_take_config (a, r->out, len);
  a->cb.config (a->opaque, r->out, len);
}

static void
on_probe (struct agent *a, const struct script_result *r)
{
  char reason[CRG_REASON_MAX + 1] = "", said[161];

  script_first_line (r->out, r->out_len, r->reason, said, sizeof said);
  if (r->status != AGENT_RUNS && r->status != AGENT_STOPPED)
    snprintf (reason, sizeof reason, "its agent says that it can't run here: %s", said);
  a->cb.probed (a->opaque, r->status == AGENT_RUNS || r->status == AGENT_STOPPED,
                r->status == AGENT_RUNS, reason);
}

static void
on_done (void *opaque, const struct script_result *r)
{
  struct agent *a = opaque;
  enum call call = a->call;
  uint64_t now = clock_boottime_ms ();

  a->script = NULL;
  a->call = CALL_NONE;
  if (call == CALL_START || call == CALL_STOP) {
    if (r->ok)
      log_notice ("%s: %s", a->spec.name, call == CALL_START ? "started" : "stopped");
    else
      log_error ("%s: its agent's %s failed: %s", a->spec.name, verbs[call], r->reason);
  }
  switch (call) {
  case CALL_PROBE: on_probe (a, r); break;
  case CALL_START:
    a->runs = r->ok;
    a->config_due = r->ok;
    a->check_ms = now + AGENT_CHECK_MS;
    if (r->ok) {
      a->start = (struct procgroup) { 0 };
      keep_record (a);
    }
    else {
      /* Without a lease it is nobody's fault, and begun again with one. */
      a->start_failed = a->lease_ms > now;
      trouble (a, "its agent's start failed: %s", r->reason);
    }
    break;
  case CALL_STOP:
    a->stop = (struct procgroup) { 0 };
    if (r->ok && a->start_gone)
      end_record (a);
    else {
      if (r->ok)
        trouble (a, "a process of its agent's start was killed and hangs, so it counts as running");
      else
        trouble (a, "its agent's stop failed, so it counts as running: %s", r->reason);
      a->retry_ms = now + AGENT_RETRY_MS;
      if (!a->want_run && a->want_answer)
        report (a, HOST_NONE, false, a->trouble);
    }
    break;
  case CALL_CONFIG: take_config_of_agent (a, r); break;
  case CALL_CHECK:
    a->check_ms = now + AGENT_CHECK_MS;
    a->config_due = r->status == AGENT_RUNS;
    if (r->status == AGENT_STOPPED) {
      log_error ("%s: it has stopped by itself; it is started again", a->spec.name);
      a->runs = false;
    }
    else if (r->status != AGENT_RUNS)
      log_warning ("%s: its agent does not tell whether it runs: %s", a->spec.name, r->reason);
    break;
  case CALL_ADOPT:
    if (r->status == AGENT_STOPPED)
      end_record (a);
    else if (r->status == AGENT_RUNS) {
      log_notice ("%s: adopted", a->spec.name);
      a->runs = a->config_due = true;
      a->check_ms = now + AGENT_CHECK_MS;
      if (!a->want_answer) {
        a->want_run = true;
        a->want_answer = true;
      }
    }
    break;
  case CALL_NONE: break;
  }
  drive (a);
}

/* ---- calls ----------------------------------------------------------------------------- */

/* Its process waits: what it is about to do is noted first. */
static bool
on_begun (void *opaque, pid_t pid)
{
  struct agent *a = opaque;
  bool noted = procgroup_of (pid, a->call == CALL_START ? &a->start : &a->stop) && keep_record (a);

  if (a->call == CALL_STOP)
    return true; /* at any rate */
  if (noted && a->lease_ms <= clock_boottime_ms ()) {
    noted = false;
    errno = ETIME;
  }
  return noted;
}

static void
call (struct agent *a, enum call which)
{
  struct vars v;
  struct script_spec spec = { .path = a->spec.path, .argument = { verbs[which] }, .env = v.env,
                              .timeout_ms = a->spec.timeout_ms };
  const char *why = program_refusal (a->spec.path, false);

  make_env (a, &v);
  snprintf (spec.label, sizeof spec.label, "%s: agent %s", a->spec.name, verbs[which]);
  if (which == CALL_START || which == CALL_STOP)
    spec.begun = on_begun;
  a->call = which;
  a->script = why ? NULL : script_start (a->loop, &spec, on_done, a);
  if (a->script == NULL) {
    char reason[2 * CRG_REASON_MAX];
    struct script_result r = { .status = -1, .reason = reason, .out = "" };

    snprintf (reason, sizeof reason, "%s: %s", a->spec.path, why ? why : strerror (errno));
    if (which == CALL_START)
      end_record (a); /* nothing was begun */
    on_done (a, &r);
  }
}

/* A start that goes on though the resource may not run here any more. */
static void
cut_start (struct agent *a)
{
  log_warning ("%s: its agent's start is killed: %s", a->spec.name,
               a->want_run ? "the lease is over" : "it is to run here no more");
  script_cancel (a->script);
  a->script = NULL;
  a->call = CALL_NONE;
  a->cut = true;
}

static void
drive (struct agent *a)
{
  uint64_t now = clock_boottime_ms ();
  bool run = a->want_run && !a->start_failed && !a->cut && a->lease_ms > now;

  if (a->call == CALL_START && !run)
    cut_start (a);
  if (a->call != CALL_NONE)
    return;
  if (a->adopt_due) {
    a->adopt_due = false;
    call (a, CALL_ADOPT);
  }
  else if (a->may_run && !run) {
    if (now < a->retry_ms)
      return;
    if (a->want_run && !a->start_failed && !a->cut)
      log_warning ("%s: the lease is over; it is stopped", a->spec.name);
    a->start_gone = procgroup_end (&a->start, AGENT_END_MS);
    call (a, CALL_STOP);
  }
  else if (!a->may_run && !a->want_run && a->want_answer)
    report (a, HOST_NONE, true, "");
  else if (!a->may_run && a->start_failed) {
    a->start_failed = a->want_run = false;
    report (a, a->want_answer ? HOST_PRODUCTION : HOST_NONE, false, a->trouble);
  }
  else if (run && !a->runs) {
    a->may_run = true;
    call (a, CALL_START);
  }
  else if (a->runs && a->config_due) {
    a->config_due = false;
    call (a, CALL_CONFIG);
  }
  else if (a->runs && a->want_run && a->want_answer) {
    a->trouble[0] = '\0';
    report (a, HOST_PRODUCTION, true, "");
  }
  else if (a->probe_due) {
    a->probe_due = false;
    call (a, CALL_PROBE);
  }
  else if (a->runs && now >= a->check_ms)
    call (a, CALL_CHECK);
}

static void
on_timer (void *opaque)
{
  struct agent *a = opaque;

  drive (a);
  qb_loop_timer_add (a->loop, QB_LOOP_MED, AGENT_TICK_MS * QB_TIME_NS_IN_MSEC, a, on_timer,
                     &a->timer);
}

/* ---- what the caller says -------------------------------------------------------------- */

struct agent *
agent_new (struct qb_loop *loop, const struct agent_spec *spec, const struct agent_callbacks *cb,
           void *opaque)
{
  struct agent *a = calloc (1, sizeof *a);

  if (a == NULL)
    return NULL;
  a->loop = loop;
  a->spec = *spec;
  a->cb = *cb;
  a->opaque = opaque;
  snprintf (a->record_path, sizeof a->record_path, "%s/%s.agent", spec->run_dir, spec->name);
  snprintf (a->config_path, sizeof a->config_path, "%s/%s.config", spec->state_dir, spec->name);
  qb_loop_timer_add (loop, QB_LOOP_MED, AGENT_TICK_MS * QB_TIME_NS_IN_MSEC, a, on_timer,
                     &a->timer);
  return a;
}

void
agent_free (struct agent *a)
{
  if (a == NULL)
    return;
  qb_loop_timer_del (a->loop, a->timer);
  /* A call in its middle would be one too many beside the next crgd's. */
  script_cancel (a->script);
  free (a->config);
  free (a);
}

bool
agent_adopt (struct agent *a)
{
  struct guard_record r;
  bool whole;

  if (!read_record (a, &r, &whole))
    return false;
  a->may_run = true;
  a->want_tenure = r.tenure;
  a->start = r.start;
  a->cut = !whole || r.start.pid != 0 || r.stop.pid != 0;
  if (!whole)
    log_error ("%s: %s is damaged, so nobody knows how long it may run: it is stopped", a->spec.name, a->record_path);
  else if (a->cut) {
    log_warning ("%s: an earlier crgd ended while its agent's %s was under way: it is stopped", a->spec.name,
                 r.stop.pid ? "stop" : "start");
    procgroup_end (&r.stop, 0);
  }
  else {
    a->adopt_due = true;
    a->lease_ms = r.lease_ms;
  }
  set_guard (a); /* the one that it had goes on, if it lives */
  return true;
}

void
agent_want (struct agent *a, enum host_role role, uint64_t tenure)
{
  a->want_run = role == HOST_PRODUCTION;
  a->want_tenure = tenure;
  a->want_answer = true;
  a->start_failed = false;
  if (!a->want_run)
    a->lease_ms = 0;
}

void
agent_set_lease (struct agent *a, uint64_t until_ms)
{
  if (until_ms <= a->lease_ms)
    return;
  a->lease_ms = until_ms;
  if (a->may_run && a->want_run && a->call != CALL_STOP)
    keep_record (a);
}

void
agent_probe (struct agent *a)
{
  a->probe_due = true;
}

bool
agent_is_alive (const struct agent *a)
{
  return a->may_run || a->call == CALL_START || a->call == CALL_STOP;
}

bool
agent_is_ending (const struct agent *a)
{
  return !a->want_run && !((a->adopt_due || a->call == CALL_ADOPT) && !a->want_answer);
}

enum host_role
agent_role (const struct agent *a)
{
  return a->runs ? HOST_PRODUCTION : HOST_NONE;
}

const char *
agent_trouble (const struct agent *a)
{
  return a->trouble;
}
