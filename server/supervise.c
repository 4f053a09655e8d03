/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The supervisor of supervise.h.  Owns the process id and pidfd, the control
 * connection and the export's check.  A stop is: `quit` (hold, drain, flush,
 * superblock), SIGTERM, a short grace, SIGKILL.  It must never signal a
 * process that it has not identified: a process id is used through a pidfd
 * that was opened before the identity was checked.
 */
#include "config.h"

#include "server/supervise_private.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/ident.h"
#include "common/jsonl.h"
#include "common/util-posix.h"
#include "server/log.h"
#include "server/probe.h"

static void spawn (struct plugin *p);
static int on_pidfd (int fd, int revents, void *opaque);

void
supervise_set_phase (struct plugin *p, enum phase phase)
{
  p->phase = phase;
  p->phase_ms = clock_boottime_ms ();
}

void
supervise_trouble (struct plugin *p, const char *reason)
{
  snprintf (p->trouble, sizeof p->trouble, "%s", reason);
}

static void
tell_event (struct plugin *p, json_t *obj)
{
  const char *event = json_string_value (json_object_get (obj, "event"));

  p->cb.event (p->opaque, event ? event : "?", obj);
}

void
supervise_forget_early (struct plugin *p)
{
  while (p->n_early > 0)
    json_decref (p->early[--p->n_early]);
}

/* What was said to a production that is gone. */
void
supervise_forget_said (struct plugin *p)
{
  p->resume_due = p->resume_owed = false;
  for (unsigned i = 0; i < CRG_MAX_SITES; i++) {
    json_decref (p->unmirrors[i]);
    p->unmirrors[i] = NULL;
  }
}

/* One by one: what the group makes of one may end the plugin. */
static void
tell_early (struct plugin *p)
{
  while (p->n_early > 0) {
    json_t *obj = p->early[0];

    memmove (p->early, p->early + 1, --p->n_early * sizeof p->early[0]);
    tell_event (p, obj);
    json_decref (obj);
  }
}

void
supervise_report_hosted (struct plugin *p, enum host_role role, uint64_t tenure, bool ok,
               const char *reason, json_t *info)
{
  p->want_answer = false;
  p->reported = ok && role != HOST_NONE;
  p->cb.hosted (p->opaque, role, tenure, ok, reason, info);
  if (ok)
    tell_early (p);
  supervise_forget_early (p);
}

/* The node gives the role up: the group looks for another host. */
void
supervise_give_up (struct plugin *p, const char *reason)
{
  /* Unasked it is NONE: the process has died for good. */
  enum host_role role = p->want_answer ? p->want_role : HOST_NONE;
  uint64_t tenure = p->want_tenure;

  log_error ("%s: gave up %s: %s", p->spec.iasp, p->want_role == HOST_PRODUCTION ? "production" : "its copy",
             reason);
  supervise_trouble (p, reason);
  p->want_role = HOST_NONE;
  p->deaths = p->refusals = 0;
  if (p->phase != PH_IDLE)
    supervise_begin_end (p);
  supervise_report_hosted (p, role, tenure, false, reason, NULL);
}

/* ---- the export's check ---------------------------------------------------------------- */

static void
on_checked (void *opaque, const void *result, const char *reason)
{
  struct plugin *p = opaque;
  const struct export_check *check = result;

  p->check = NULL;
  if (p->phase != PH_READY
      || (p->told_role != HOST_PRODUCTION && p->told_role != HOST_DETACHED))
    return;
  if (check && check->ok) {
    p->served = true;
    p->trouble[0] = '\0';
    log_notice ("%s: served (tenure %llu, %llu bytes)", p->spec.iasp,
                (unsigned long long) p->told_tenure, (unsigned long long) check->size);
    p->cb.changed (p->opaque);
    return;
  }
  supervise_trouble (p, check ? check->reason : reason);
  p->check_at_ms = clock_boottime_ms () + EXPORT_RETRY_MS;
}

static void
start_check (struct plugin *p)
{
  struct export_check_arg arg = { .tls = p->spec.tls };

  plugin_spec_uri (&p->spec, arg.uri, sizeof arg.uri);
  snprintf (arg.tls_dir, sizeof arg.tls_dir, "%s/nbd-client", p->spec.tls_dir);
  arg.size = p->spec.size;
  p->check_at_ms = clock_boottime_ms () + EXPORT_RETRY_MS;
  p->check = task_start (p->loop, export_check, &arg, sizeof (struct export_check),
                         EXPORT_CHECK_MS, on_checked, p);
}

/* ---- the process ----------------------------------------------------------------------- */

static void
drop_control (struct plugin *p)
{
  pluginctl_close (p->ctl);
  p->ctl = NULL;
  p->polling = p->lease_sent = false;
  task_cancel (p->check);
  p->check = NULL;
  p->served = false;
}

void
supervise_send_signal (struct plugin *p, int sig)
{
  if (p->pidfd >= 0)
    syscall (SYS_pidfd_send_signal, p->pidfd, sig, NULL, 0);
}

static void
on_quit (void *opaque, json_t *answer, const char *reason)
{
  struct plugin *p = opaque;

  if (p->phase != PH_QUITTING)
    return;
  if (answer == NULL || !json_is_true (json_object_get (answer, "ok")))
    log_warning ("%s: the plugin did not end gracefully: %s", p->spec.iasp,
                 answer ? json_string_value (json_object_get (answer, "error")) ?: "refused"
                        : reason);
  supervise_set_phase (p, PH_TERMING);
  supervise_send_signal (p, SIGTERM);
}

void
supervise_begin_end (struct plugin *p)
{
  /* R1: another host was appointed, or this one anew.  What this one still holds can't be
   * completed any more, so there is little to wait for. */
  bool superseded = p->told_role == HOST_PRODUCTION && p->want_tenure > p->told_tenure;

  if (p->phase == PH_QUITTING || p->phase == PH_TERMING || p->phase == PH_KILLING)
    return;
  task_cancel (p->check);
  p->check = NULL;
  p->served = false;
  if (p->ctl && !pluginctl_is_broken (p->ctl)) {
    supervise_set_phase (p, PH_QUITTING);
    pluginctl_call (p->ctl, supervise_request ("quit"),
                    superseded ? PLUGIN_QUIT_OLD_MS : PLUGIN_QUIT_MS, on_quit, p);
  }
  else {
    supervise_set_phase (p, PH_TERMING);
    supervise_send_signal (p, SIGTERM);
  }
}

/* After so many deaths. */
static unsigned
retry_delay_ms (unsigned deaths)
{
  if (deaths == 0)
    return 0;
  return MIN ((unsigned) PLUGIN_RETRY_MAX_MS, (unsigned) PLUGIN_RETRY_MIN_MS << (deaths > 10 ? 10 : deaths - 1));
}

static void
on_exit_of_process (struct plugin *p)
{
  bool expected = p->phase == PH_QUITTING || p->phase == PH_TERMING || p->phase == PH_KILLING;
  char reason[2 * CRG_REASON_MAX] = "the plugin's process is gone";
  int status;

  qb_loop_poll_del (p->loop, p->pidfd);
  close (p->pidfd);
  p->pidfd = -1;
  /* Also an adopted one may be a child of ours: of the same crgd, whose shell of the CRG began anew. */
  if (waitpid (p->pid, &status, WNOHANG) == p->pid) {
    if (WIFSIGNALED (status))
      snprintf (reason, sizeof reason, "the plugin's process %d was killed by signal %d",
                (int) p->pid, WTERMSIG (status));
    else
      snprintf (reason, sizeof reason, "the plugin's process %d exited with status %d; see %s",
                (int) p->pid, WEXITSTATUS (status), p->place.log_path);
  }
  drop_control (p);
  unlink (p->place.pid_path);
  p->pid = 0;
  p->told_role = HOST_NONE;
  json_decref (p->status);
  p->status = NULL;
  p->record_seq = 0; /* of the dead process's events */
  p->reported = false;
  supervise_forget_early (p);
  supervise_forget_said (p);
  supervise_set_phase (p, PH_IDLE);
  if (expected) {
    log_info ("%s: the plugin's process has ended", p->spec.iasp);
    /* It may have been ended for what it said. */
    p->retry_at_ms = clock_boottime_ms () + retry_delay_ms (p->deaths);
  }
  else {
    log_error ("%s: %s", p->spec.iasp, reason);
    supervise_trouble (p, reason);
    p->retry_at_ms = clock_boottime_ms () + retry_delay_ms (p->deaths);
    p->cb.died (p->opaque, reason);
    if (++p->deaths > PLUGIN_MAX_DEATHS && p->want_role != HOST_NONE) {
      supervise_give_up (p, reason);
      return;
    }
  }
  supervise_drive (p);
}

static int
on_pidfd (int fd, int revents, void *opaque)
{
  on_exit_of_process (opaque);
  return 0;
}

static bool
watch_process (struct plugin *p, pid_t pid, int pidfd, bool is_child)
{
  if (pidfd < 0
      || qb_loop_poll_add (p->loop, QB_LOOP_MED, pidfd, POLLIN, p, on_pidfd) < 0) {
    if (pidfd >= 0)
      close (pidfd);
    return false;
  }
  p->pid = pid;
  p->pidfd = pidfd;
  p->is_child = is_child;
  p->was_asked = false;
  return true;
}

/* What an earlier process has left.  False: something else is there, which an operator may need. */
static bool
remove_socket (const char *path)
{
  struct stat st;

  if (lstat (path, &st) == 0 && !S_ISSOCK (st.st_mode))
    return false;
  unlink (path);
  return true;
}

static void
spawn (struct plugin *p)
{
  char reason[2 * CRG_PATH_MAX];
  pid_t pid;

  p->spec = p->next_spec;
  unlink (p->place.ctl_path);
  if (p->spec.export_unix[0] && !remove_socket (p->spec.export_unix)) {
    snprintf (reason, sizeof reason, "its export unix:%s: what is there is no socket; take it away",
              p->spec.export_unix);
    supervise_give_up (p, reason);
    return;
  }
  pid = process_start (&p->spec, &p->place);
  if (pid < 0 || !watch_process (p, pid, (int) syscall (SYS_pidfd_open, pid, 0), true)) {
    log_error ("%s: can't start %s: %s", p->spec.iasp, p->spec.nbdkit, strerror (errno));
    if (pid > 0) {
      kill (pid, SIGKILL);
      waitpid (pid, NULL, 0);
    }
    p->retry_at_ms = clock_boottime_ms () + PLUGIN_RETRY_MAX_MS;
    return;
  }
  log_info ("%s: started process %d", p->spec.iasp, (int) pid);
  supervise_set_phase (p, PH_STARTING);
}

/* ---- adopting (S3) --------------------------------------------------------------------- */

bool
plugin_adopt (struct plugin *p)
{
  int pidfd;
  pid_t pid = p->phase == PH_IDLE ? process_find (&p->place, &pidfd) : 0;

  if (pid == 0 || !watch_process (p, pid, pidfd, false))
    return false;
  log_notice ("%s: adopted process %d", p->spec.iasp, (int) pid);
  supervise_set_phase (p, PH_STARTING);
  return true;
}

/* ---- driving --------------------------------------------------------------------------- */

static void
drive_ready (struct plugin *p)
{
  uint64_t now = clock_boottime_ms ();

  if ((p->told_role == HOST_PRODUCTION && p->want_role == HOST_MIRROR)
      || (p->told_role != HOST_NONE && p->told_role != p->want_role
          && (p->told_role == HOST_DETACHED || p->want_role == HOST_DETACHED))) {
    /* F6: clients reconnect to the new host; a fresh process takes the mirror */
    supervise_begin_end (p);
    return;
  }
  if (p->told_role != p->want_role || p->told_tenure != p->want_tenure) {
    if (now >= p->retry_at_ms)
      supervise_tell_role (p);
    return;
  }
  /* Also when the answer to `role` was lost with its connection. */
  if (p->want_answer || !p->reported)
    supervise_report_hosted (p, p->told_role, p->told_tenure, true, "", p->status);
  else
    tell_early (p); /* a new connection: it has said again what stands */
  if (p->phase != PH_READY) /* the group has made it end */
    return;
  supervise_push (p);
  if ((p->told_role == HOST_PRODUCTION || p->told_role == HOST_DETACHED) && !p->served
      && p->check == NULL && now >= p->check_at_ms)
    start_check (p);
  if (!p->polling && now >= p->poll_ms + PLUGIN_POLL_MS && p->ctl) {
    p->polling = true;
    p->poll_ms = now;
    pluginctl_call (p->ctl, supervise_request ("status"), PLUGIN_ROLE_MS, supervise_on_polled, p);
  }
}

/* Said once for each want: the group asks again, and hears it so much later if it is there still. */
static void
cant_be_killed (struct plugin *p)
{
  static const char reason[] = "its process can't be killed: it waits for its store in the kernel";

  if (p->want_role != HOST_NONE)
    supervise_give_up (p, reason);
  else if (p->want_answer) {
    if (strcmp (p->trouble, reason) != 0)
      log_error ("%s: not ended: %s", p->spec.iasp, reason);
    supervise_trouble (p, reason);
    supervise_set_phase (p, PH_KILLING);
    supervise_report_hosted (p, HOST_NONE, p->want_tenure, false, reason, NULL);
  }
}

void
supervise_drive (struct plugin *p)
{
  uint64_t now = clock_boottime_ms ();

  switch (p->phase) {
  case PH_IDLE:
    if (p->want_role == HOST_NONE) {
      if (p->want_answer)
        supervise_report_hosted (p, HOST_NONE, p->want_tenure, true, "", NULL);
    }
    else if (now >= p->retry_at_ms)
      spawn (p);
    return;
  case PH_STARTING:
    if (p->want_role == HOST_NONE && p->is_child)
      supervise_begin_end (p);
    else {
      supervise_try_control (p);
      if (p->ctl == NULL && now - p->phase_ms > PLUGIN_START_MS) {
        supervise_trouble (p, "the plugin did not open its control socket");
        log_error ("%s: process %d did not open its control socket %s", p->spec.iasp,
                   (int) p->pid, p->place.ctl_path);
        supervise_set_phase (p, PH_KILLING);
        supervise_send_signal (p, SIGKILL);
      }
    }
    return;
  case PH_ASKING:
  case PH_TELLING:
    return; /* their calls have deadlines */
  case PH_READY:
    if (p->want_role == HOST_NONE) {
      /* An adopted one waits for the group's word; the caller ends it by asking
       * for NONE in so many words. */
      if (p->want_answer || p->is_child)
        supervise_begin_end (p);
    }
    else
      drive_ready (p);
    return;
  case PH_QUITTING:
    return;
  case PH_TERMING:
    if (now - p->phase_ms > PLUGIN_TERM_MS) {
      supervise_set_phase (p, PH_KILLING);
      supervise_send_signal (p, SIGKILL);
    }
    return;
  case PH_KILLING:
    if (now - p->phase_ms > PLUGIN_KILL_MS)
      cant_be_killed (p);
    return;
  }
}

static void
on_timer (void *opaque)
{
  struct plugin *p = opaque;
  bool busy = p->phase != PH_IDLE && !(p->phase == PH_READY && p->served);

  supervise_drive (p);
  qb_loop_timer_add (p->loop, QB_LOOP_MED, (busy ? 20 : 100) * QB_TIME_NS_IN_MSEC, p, on_timer,
                     &p->timer);
}

/* ---- what the caller says -------------------------------------------------------------- */

struct plugin *
plugin_new (struct qb_loop *loop, const struct plugin_spec *spec,
            const struct plugin_callbacks *cb, void *opaque)
{
  struct plugin *p = calloc (1, sizeof *p);

  if (p == NULL)
    return NULL;
  p->loop = loop;
  p->spec = p->next_spec = *spec;
  p->cb = *cb;
  p->opaque = opaque;
  p->pidfd = -1;
  process_place (&p->place, spec->run_dir, spec->iasp);
  qb_loop_timer_add (loop, QB_LOOP_MED, 20 * QB_TIME_NS_IN_MSEC, p, on_timer, &p->timer);
  return p;
}

void
plugin_respec (struct plugin *p, const struct plugin_spec *spec)
{
  p->next_spec = *spec;
}

void
plugin_kill (struct plugin *p)
{
  if (p->phase == PH_IDLE)
    return;
  log_warning ("%s: process %d has not ended in time; it is killed", p->spec.iasp, (int) p->pid);
  supervise_set_phase (p, PH_KILLING);
  supervise_send_signal (p, SIGKILL);
}

void
plugin_free (struct plugin *p)
{
  if (p == NULL)
    return;
  drop_control (p);
  qb_loop_timer_del (p->loop, p->timer);
  if (p->pidfd >= 0) {
    qb_loop_poll_del (p->loop, p->pidfd);
    /* It may not be nbdkit yet, nor have written its pid file: nobody would find it, and it has no role yet. */
    if (p->is_child && p->phase == PH_STARTING && !p->was_asked) {
      supervise_set_phase (p, PH_KILLING);
      supervise_send_signal (p, SIGKILL);
    }
    if (p->phase == PH_QUITTING || p->phase == PH_TERMING || p->phase == PH_KILLING)
      process_reap (p->loop, p->pidfd);
    else
      close (p->pidfd);
  }
  supervise_forget_early (p);
  json_decref (p->record);
  json_decref (p->extra);
  for (unsigned i = 0; i < CRG_MAX_SITES; i++)
    json_decref (p->mirrors[i]);
  supervise_forget_said (p);
  json_decref (p->status);
  free (p->hold_reason);
  free (p);
}

void
plugin_want (struct plugin *p, enum host_role role, uint64_t tenure)
{
  if (role != p->want_role || tenure != p->want_tenure) {
    p->deaths = p->refusals = 0;
    p->retry_at_ms = 0;
  }
  /* F6: a hold is of one tenure's production, also where that was given up before it held. */
  if (role != HOST_PRODUCTION || tenure != p->want_tenure) {
    free (p->hold_reason);
    p->hold_reason = NULL;
  }
  p->want_role = role;
  p->want_tenure = tenure;
  p->want_answer = true;
  if (role != HOST_PRODUCTION) {
    supervise_forget_said (p);
    p->lease_until_ms = 0;
    for (unsigned i = 0; i < CRG_MAX_SITES; i++) {
      json_decref (p->mirrors[i]);
      p->mirrors[i] = NULL;
    }
  }
  supervise_drive (p);
}

void
plugin_set_record (struct plugin *p, json_t *record, uint64_t seq)
{
  json_decref (p->record);
  p->record = record;
  p->record_seq = seq;
  p->record_due = true;
  if (p->phase == PH_READY)
    supervise_drive (p);
}

void
plugin_set_role_extra (struct plugin *p, json_t *extra)
{
  json_decref (p->extra);
  p->extra = extra;
}

void
plugin_set_mirror (struct plugin *p, unsigned site, json_t *req)
{
  if (site >= CRG_MAX_SITES) {
    json_decref (req);
    return;
  }
  json_decref (p->mirrors[site]);
  json_decref (p->unmirrors[site]);
  p->unmirrors[site] = NULL;
  p->mirrors[site] = req;
  p->mirror_due[site] = true;
  if (p->phase == PH_READY)
    supervise_drive (p);
}

void
plugin_unset_mirror (struct plugin *p, unsigned site, const char *reason)
{
  if (site >= CRG_MAX_SITES)
    return;
  json_decref (p->mirrors[site]);
  p->mirrors[site] = NULL;
  p->mirror_due[site] = false;
  json_decref (p->unmirrors[site]);
  p->unmirrors[site] = json_pack ("{s:s, s:i, s:o}", "cmd", "unmirror", "site", (int) site, "reason",
                                  jsonl_string (reason));
  p->unmirror_due[site] = true;
  if (p->phase == PH_READY && p->told_role == HOST_PRODUCTION)
    supervise_push (p);
}

void
plugin_set_lease (struct plugin *p, uint64_t until_ms)
{
  p->lease_until_ms = until_ms;
  p->lease_due = true;
  if (p->phase == PH_READY && p->told_role == HOST_PRODUCTION)
    supervise_push (p);
}

void
plugin_hold (struct plugin *p, const char *reason, unsigned wait_ms)
{
  free (p->hold_reason);
  p->hold_reason = strdup (reason);
  p->hold_wait_ms = wait_ms;
  p->hold_due = true;
  p->resume_owed = false;
  if (p->phase == PH_READY && p->told_role == HOST_PRODUCTION)
    supervise_push (p);
}

void
plugin_resume (struct plugin *p)
{
  /* Also if this crgd asked for no hold: an earlier one may have (F6). */
  free (p->hold_reason);
  p->hold_reason = NULL;
  p->resume_due = p->resume_owed = true;
  if (p->phase == PH_READY && p->told_role == HOST_PRODUCTION)
    supervise_push (p);
}

bool
plugin_is_alive (const struct plugin *p)
{
  return p->phase != PH_IDLE;
}

bool
plugin_is_ending (const struct plugin *p)
{
  /* One that is adopted has what it has until somebody says otherwise (S3). */
  bool unknown = p->phase != PH_IDLE && !p->is_child && !p->want_answer;

  return p->want_role == HOST_NONE && !unknown;
}

bool
plugin_has_store (const struct plugin *p)
{
  bool unknown = !p->is_child && (p->phase == PH_STARTING || p->phase == PH_ASKING); /* S3 */

  return p->phase != PH_IDLE && p->phase != PH_KILLING
         && (p->told_role != HOST_NONE || p->phase == PH_TELLING || unknown);
}

pid_t
plugin_pid (const struct plugin *p)
{
  return p->pid;
}

enum host_role
plugin_role (const struct plugin *p)
{
  return p->phase == PH_READY ? p->told_role : HOST_NONE;
}

bool
plugin_is_served (const struct plugin *p)
{
  return p->served && p->phase == PH_READY;
}

json_t *
plugin_last_status (const struct plugin *p, uint64_t *age_ms)
{
  *age_ms = clock_boottime_ms () - p->status_ms;
  return p->status;
}

const char *
plugin_trouble (const struct plugin *p)
{
  return p->trouble;
}
