/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The control connection of a plugin process: its role is asked for and told,
 * what has changed since is pushed, its events and status are taken.  Part of
 * the supervisor (supervise_private.h); main loop's thread only.
 */
#include "config.h"

#include "server/supervise_private.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "common/clock.h"
#include "common/ident.h"
#include "common/jsonl.h"
#include "common/util.h"
#include "server/log.h"

/* ---- telling --------------------------------------------------------------------------- */

json_t *
supervise_request (const char *cmd)
{
  return json_pack ("{s:s}", "cmd", cmd);
}

static void
on_told (void *opaque, json_t *answer, const char *reason)
{
  struct plugin *p = opaque;

  if (p->phase != PH_TELLING)
    return;
  if (answer && json_is_true (json_object_get (answer, "ok"))) {
    p->told_role = p->telling_role;
    p->told_tenure = p->telling_tenure;
    p->deaths = p->refusals = 0;
    p->served = false;
    p->check_at_ms = 0;
    p->trouble[0] = '\0';
    p->poll_ms = 0;
    supervise_set_phase (p, PH_READY);
    log_notice ("%s: this node holds %s (tenure %llu, process %d)", p->spec.iasp,
                p->told_role == HOST_PRODUCTION ? "production"
                : p->told_role == HOST_DETACHED ? "a detached copy" : "a mirror copy",
                (unsigned long long) p->told_tenure, (int) p->pid);
    /* Unasked after a restart, too: the group tells record and mirrors again. */
    if (p->told_role == p->want_role && p->told_tenure == p->want_tenure)
      supervise_report_hosted (p, p->told_role, p->told_tenure, true, "", answer);
    supervise_drive (p);
    return;
  }
  if (answer) {
    const char *text = json_string_value (json_object_get (answer, "error"));

    reason = text ? text : "the plugin refused the role";
  }
  supervise_trouble (p, reason);
  log_warning ("%s: the plugin did not take its role: %s", p->spec.iasp, reason);
  /* The ring of a process that has just died can hold its store's lock for a
   * moment longer than the process lives: worth two more tries. */
  if (++p->refusals >= 3) {
    char copy[CRG_REASON_MAX + 1];

    snprintf (copy, sizeof copy, "%s", reason);
    supervise_set_phase (p, PH_READY);
    supervise_give_up (p, copy);
    return;
  }
  p->retry_at_ms = clock_boottime_ms () + PLUGIN_RETRY_MIN_MS * p->refusals;
  supervise_set_phase (p, PH_READY);
  supervise_drive (p);
}

void
supervise_tell_role (struct plugin *p)
{
  json_t *req = supervise_request ("role");

  json_object_set_new (req, "role",
                       json_string (p->want_role == HOST_PRODUCTION ? "production"
                                    : p->want_role == HOST_DETACHED ? "detached" : "mirror"));
  json_object_set_new (req, "tenure", json_integer ((json_int_t) p->want_tenure));
  if (p->record) {
    /* A copy that has to be opened again follows whoever is production now: the role was told
     * once, and since then newer records alone. */
    if (p->want_role != HOST_PRODUCTION)
      json_object_set (req, "tenure", json_object_get (p->record, "tenure"));
    json_object_set (req, "record", p->record);
    json_object_set_new (req, "seq", json_integer ((json_int_t) p->record_seq));
  }
  if (p->extra)
    json_object_update (req, p->extra);
  if (p->want_role == HOST_PRODUCTION)
    json_object_set_new (req, "lease_until_ms", json_integer ((json_int_t) p->lease_until_ms));
  p->record_due = p->lease_due = false;
  for (unsigned i = 0; i < CRG_MAX_SITES; i++)
    p->mirror_due[i] = p->mirrors[i] != NULL;
  p->hold_due = p->hold_reason != NULL;
  p->telling_role = p->want_role;
  p->telling_tenure = p->want_tenure;
  supervise_set_phase (p, PH_TELLING);
  pluginctl_call (p->ctl, req, PLUGIN_ROLE_MS, on_told, p);
}

void
supervise_on_pushed (void *opaque, json_t *answer, const char *reason)
{
  struct plugin *p = opaque;

  if (answer && !json_is_true (json_object_get (answer, "ok")))
    log_warning ("%s: the plugin refused a command: %s", p->spec.iasp,
                 json_string_value (json_object_get (answer, "error")) ?: "no reason given");
}

bool
plugin_tell (struct plugin *p, json_t *request)
{
  if (p->phase != PH_READY || p->ctl == NULL) {
    json_decref (request);
    return false;
  }
  pluginctl_call (p->ctl, request, PLUGIN_ROLE_MS, supervise_on_pushed, p);
  p->poll_ms = 0; /* its status tells what came of it */
  return true;
}

static void
on_lease_told (void *opaque, json_t *answer, const char *reason)
{
  struct plugin *p = opaque;

  p->lease_sent = false;
  supervise_on_pushed (opaque, answer, reason);
  if (answer && p->lease_due && p->phase == PH_READY && p->told_role == HOST_PRODUCTION)
    supervise_push (p);
}

static void
on_held (void *opaque, json_t *answer, const char *reason)
{
  struct plugin *p = opaque;
  bool ok = answer && json_is_true (json_object_get (answer, "ok"));

  if (p->hold_reason == NULL)
    return; /* resumed meanwhile */
  if (answer && !ok)
    reason = json_string_value (json_object_get (answer, "error")) ?: "not drained";
  p->cb.drained (p->opaque, ok, ok ? "" : reason);
}

static void
on_resumed (void *opaque, json_t *answer, const char *reason)
{
  struct plugin *p = opaque;

  if (p->resumes > 0)
    p->resumes--;
  if (answer && p->resumes == 0)
    p->resume_owed = false;
  supervise_on_pushed (opaque, answer, reason);
}

/* What changed since the role was told. */
void
supervise_push (struct plugin *p)
{
  if (p->record_due && p->record) {
    json_t *req = supervise_request ("record");

    json_object_set (req, "record", p->record);
    json_object_set_new (req, "seq", json_integer ((json_int_t) p->record_seq));
    /* C7, F2: a copy that stays open hears who may be its production, and who is. */
    json_object_set (req, "peers", json_object_get (p->extra, "peers"));
    json_object_set (req, "production", json_object_get (p->extra, "production"));
    pluginctl_call (p->ctl, req, PLUGIN_ROLE_MS, supervise_on_pushed, p);
  }
  p->record_due = false;
  if (p->told_role != HOST_PRODUCTION)
    return;
  /* One at a time: only the newest instant counts, and a plugin that is
   * stopped for a while shall not find a queue of old ones. */
  if (p->lease_due && !p->lease_sent) {
    json_t *req = supervise_request ("lease");

    json_object_set_new (req, "until_ms", json_integer ((json_int_t) p->lease_until_ms));
    p->lease_due = false;
    p->lease_sent = true;
    pluginctl_call (p->ctl, req, PLUGIN_ROLE_MS, on_lease_told, p);
  }
  for (unsigned i = 0; i < CRG_MAX_SITES; i++)
    if (p->mirror_due[i] && p->mirrors[i]) {
      p->mirror_due[i] = false;
      pluginctl_call (p->ctl, json_deep_copy (p->mirrors[i]), PLUGIN_ROLE_MS,
                      supervise_on_pushed, p);
    }
  for (unsigned i = 0; i < CRG_MAX_SITES; i++)
    if (p->unmirror_due[i] && p->unmirrors[i]) {
      p->unmirror_due[i] = false;
      pluginctl_call (p->ctl, json_deep_copy (p->unmirrors[i]), PLUGIN_ROLE_MS, supervise_on_pushed, p);
    }
  if (p->resume_due) {
    p->resumes++;
    pluginctl_call (p->ctl, supervise_request ("resume"), PLUGIN_ROLE_MS, on_resumed, p);
  }
  p->resume_due = false;
  if (p->hold_due && p->hold_reason) {
    json_t *req = supervise_request ("hold");

    json_object_set_new (req, "reason", jsonl_string (p->hold_reason));
    json_object_set_new (req, "wait_ms", json_integer (p->hold_wait_ms));
    p->hold_due = false;
    pluginctl_call (p->ctl, req, p->hold_wait_ms + 2000, on_held, p);
  }
}

/* ---- control connection ---------------------------------------------------------------- */

static void
on_event (void *opaque, const char *event, json_t *obj)
{
  struct plugin *p = opaque;

  log_info ("%s: plugin says %s", p->spec.iasp, event);
  p->poll_ms = 0; /* what it says shows in its status */
  if (p->phase == PH_READY && !p->want_answer) {
    p->cb.event (p->opaque, event, obj);
    return;
  }
  if (p->n_early == PLUGIN_EARLY_EVENTS) {
    log_warning ("%s: more than %d events of the plugin before its role is known", p->spec.iasp,
                 PLUGIN_EARLY_EVENTS);
    json_decref (p->early[0]);
    memmove (p->early, p->early + 1, --p->n_early * sizeof p->early[0]);
  }
  p->early[p->n_early++] = json_incref (obj);
}

static void
on_ctl_closed (void *opaque, const char *reason)
{
  struct plugin *p = opaque;

  p->ctl = NULL;
  p->polling = p->lease_sent = false;
  supervise_forget_early (p); /* R3: what stands is said again on the next one; what doesn't must not be heard */
  log_info ("%s: %s", p->spec.iasp, reason);
  if (p->phase == PH_ASKING || p->phase == PH_READY || p->phase == PH_TELLING)
    supervise_set_phase (p, PH_STARTING); /* it lives, or the pidfd says otherwise */
}

static void
take_status (struct plugin *p, json_t *answer)
{
  const char *role = json_string_value (json_object_get (answer, "role"));

  json_decref (p->status);
  p->status = json_incref (answer);
  p->status_ms = clock_boottime_ms ();
  p->polls_failed = 0;
  if (p->phase != PH_ASKING)
    return;
  p->told_role = role == NULL                       ? HOST_NONE
                 : strcmp (role, "production") == 0 ? HOST_PRODUCTION
                 : strcmp (role, "mirror") == 0     ? HOST_MIRROR
                 : strcmp (role, "detached") == 0   ? HOST_DETACHED
                                                    : HOST_NONE;
  p->told_tenure = (uint64_t) json_integer_value (json_object_get (answer, "tenure"));
}

static void
on_asked (void *opaque, json_t *answer, const char *reason)
{
  struct plugin *p = opaque;
  char lineage[IDENT_ID_TEXT_LEN];

  if (p->phase != PH_ASKING)
    return;
  /* It is asked again, on another connection. */
  if (answer == NULL && pluginctl_is_broken (p->ctl) && ++p->asks_lost < PLUGIN_MAX_ASKS)
    return;
  p->asks_lost = 0;
  if (answer == NULL || !json_is_true (json_object_get (answer, "ok"))) {
    log_warning ("%s: the plugin does not tell its status: %s", p->spec.iasp,
                 reason ? reason : "refused");
    supervise_trouble (p, reason ? reason : "the plugin does not tell its status");
    /* As if it had died: another process is tried, but not for ever. */
    if (++p->deaths > PLUGIN_MAX_DEATHS && p->want_role != HOST_NONE)
      supervise_give_up (p, reason ? reason : "the plugin does not tell its status");
    else
      supervise_begin_end (p);
    return;
  }
  /* C9: crgd died after it had recovered the group, before it ended this one. */
  ident_id_to_text (p->spec.lineage, lineage);
  if (strcmp (json_string_value (json_object_get (answer, "lineage")) ?: "", lineage) != 0) {
    log_warning ("%s: the process is of another lineage; ending it", p->spec.iasp);
    supervise_begin_end (p);
    return;
  }
  take_status (p, answer);
  supervise_set_phase (p, PH_READY);
  if (p->want_role == HOST_NONE && !p->want_answer && !p->is_child) {
    /* S3: it keeps what it has until the group says otherwise. */
    p->want_role = p->told_role;
    p->want_tenure = p->told_tenure;
    p->want_answer = p->told_role != HOST_NONE;
    if (p->told_role == HOST_NONE) {
      supervise_begin_end (p);
      return;
    }
  }
  p->served = false;
  p->check_at_ms = 0;
  p->record_due = p->record != NULL;
  p->lease_due = p->lease_until_ms != 0;
  for (unsigned i = 0; i < CRG_MAX_SITES; i++)
    p->mirror_due[i] = p->mirrors[i] != NULL;
  for (unsigned i = 0; i < CRG_MAX_SITES; i++)
    p->unmirror_due[i] = p->unmirrors[i] != NULL;
  p->hold_due = p->hold_reason != NULL;
  p->resume_due = p->resume_owed;
  p->resumes = 0;
  supervise_drive (p);
}

void
supervise_on_polled (void *opaque, json_t *answer, const char *reason)
{
  struct plugin *p = opaque;

  p->polling = false;
  if (answer && json_is_true (json_object_get (answer, "ok"))) {
    take_status (p, answer);
    p->cb.changed (p->opaque);
    return;
  }
  if (p->polls_failed++ == 0)
    log_warning ("%s: the plugin does not answer `status`: %s", p->spec.iasp,
                 reason ? reason : "refused");
  if (p->polls_failed >= PLUGIN_HUNG_POLLS && p->phase == PH_READY) {
    log_error ("%s: process %d hangs; it is killed and started again", p->spec.iasp,
               (int) p->pid);
    supervise_trouble (p, "the plugin's process hung");
    supervise_set_phase (p, PH_KILLING);
    supervise_send_signal (p, SIGKILL);
  }
}

void
supervise_try_control (struct plugin *p)
{
  static const struct pluginctl_callbacks cb = { .event = on_event, .closed = on_ctl_closed };

  p->ctl = pluginctl_connect (p->loop, p->place.ctl_path, &cb, p);
  if (p->ctl) {
    p->was_asked = true;
    supervise_set_phase (p, PH_ASKING);
    pluginctl_call (p->ctl, supervise_request ("status"), PLUGIN_ROLE_MS, on_asked, p);
  }
}
