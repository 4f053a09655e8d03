/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The steps of stop.h.  Plugins first, then the group: what production drains
 * now still counts, and a released store needs no fence (S1).  What isn't done
 * in its time is left to the next crgd, never waited for.
 */
#include "config.h"

#include "server/stop.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <qb/qbdefs.h>
#include <qb/qbloop.h>

#include "common/clock.h"
#include "common/exitcodes.h"
#include "common/util.h"
#include "server/hooks.h"
#include "server/log.h"
#include "server/notify.h"

/* The plugins end gracefully within this, or are left to a later crgd. */
#define STOP_MS (STOP_MIRROR_MS + PLUGIN_QUIT_MS + 2 * PLUGIN_TERM_MS + 500)
#define STOP_TICK_MS 50

enum phase { STOP_IDLE, STOP_HANDING, STOP_PRODUCTION, STOP_MIRRORS };

/* The switchovers of one CRG: of one unit after the other. */
struct handing {
  struct stopper *st;
  char crg[CRG_NAME_MAX + 1];
  unsigned unit;           /* that was asked for last */
};

struct stopper {
  struct daemon *d;
  enum stop_kind on_term, kind;
  enum phase phase;
  uint64_t mirrors_ms, deadline_ms, hooks_ms;
  struct handing handing[CRG_MAX_CRGS];
  unsigned n_handing;      /* asked for and not yet answered */
  bool asked;              /* by an operator, who may have left; not by a signal */
  bool force;
  char refusal[2 * CRG_REASON_MAX]; /* the first */
  void (*progress) (void *opaque, const char *text);
  member_reply_fn *done;
  void *opaque;
  qb_loop_timer_handle timer;
};

static void
progress (struct stopper *st, const char *text)
{
  log_notice ("%s", text);
  notify_status (text);
  if (st->progress)
    st->progress (st->opaque, text);
}

static void
answer (struct stopper *st, int code, const char *reason)
{
  member_reply_fn *done = st->done;

  st->done = NULL;
  st->progress = NULL;
  if (done)
    done (st->opaque, code, reason);
}

static void
stop_plugins (struct stopper *st, bool mirrors)
{
  for (unsigned i = 0; i < CRG_MAX_CRGS; i++)
    if (st->d->members[i])
      member_stop_plugins (st->d->members[i], mirrors);
}

static void
end_plugins (struct stopper *st)
{
  uint64_t now = clock_boottime_ms ();
  /* What was handed over has no production here whose copies must wait. */
  bool wait = st->kind != STOP_HAND_OVER;

  st->d->stopping = true;
  st->phase = STOP_PRODUCTION;
  st->deadline_ms = now + STOP_MS;
  st->mirrors_ms = wait ? now + STOP_MIRROR_MS : now;
  st->hooks_ms = now + HOOK_STOP_MS;
  progress (st, "ending the plugins of this node");
  stop_plugins (st, false);
  for (unsigned i = 0; i < CRG_MAX_CRGS; i++)
    if (st->d->members[i])
      member_look (st->d->members[i]);
}

/* ---- handing over ---------------------------------------------------------------------- */

static void
handed (struct stopper *st)
{
  if (st->phase != STOP_HANDING || st->n_handing > 0)
    return;
  if (st->refusal[0] && st->asked && !st->force) {
    /* An operator can decide, also later; a signal can't be refused. */
    st->phase = STOP_IDLE;
    st->kind = STOP_NOT;
    notify_ready ("ready; not handed over");
    answer (st, CRG_EXIT_REFUSED, st->refusal);
    return;
  }
  end_plugins (st);
}

static void on_handed (void *opaque, int code, const char *reason);

/* Hands over the next unit of the CRG that this node hosts, if there is one. */
static void
hand_next (struct handing *h, struct member *m, unsigned unit)
{
  const struct crg_state *s = m ? member_state (m) : NULL;
  struct stopper *st = h->st;
  char text[2 * CRG_REASON_MAX];

  while (s && unit < state_units (s) && !member_is_production (m, unit))
    unit++;
  if (s == NULL || unit >= state_units (s))
    return;
  h->unit = unit;
  snprintf (text, sizeof text, "CRG %s: handing production%s%s over", h->crg,
            s->def.placement == PLACEMENT_ACCESS ? " of " : "",
            s->def.placement == PLACEMENT_ACCESS ? s->def.iasps[unit].name : "");
  progress (st, text);
  st->n_handing++;
  member_request (m, GR_SWITCHOVER, &(struct member_about){ .node = NO_NODE, .iasp = (uint8_t) unit },
                  false, false, STOP_HAND_OVER_MS, on_handed, h);
}

static void
on_handed (void *opaque, int code, const char *reason)
{
  struct handing *h = opaque;
  struct stopper *st = h->st;
  char text[2 * CRG_REASON_MAX];

  st->n_handing--;
  if (code == CRG_EXIT_FINE)
    snprintf (text, sizeof text, "CRG %s: handed over", h->crg);
  else
    snprintf (text, sizeof text, "CRG %s: not handed over: %s", h->crg, reason);
  if (code != CRG_EXIT_FINE && st->refusal[0] == '\0')
    snprintf (st->refusal, sizeof st->refusal, "%s", text);
  progress (st, text);
  hand_next (h, daemon_find (st->d, h->crg), h->unit + 1);
  handed (st);
}

static void
hand_over (struct stopper *st)
{
  st->phase = STOP_HANDING;
  st->refusal[0] = '\0';
  st->n_handing = 1; /* until all are asked for */
  for (unsigned i = 0; i < CRG_MAX_CRGS; i++) {
    struct member *m = st->d->members[i];
    struct handing *h = &st->handing[i];

    if (m == NULL)
      continue;
    *h = (struct handing){ .st = st };
    snprintf (h->crg, sizeof h->crg, "%s", member_crg (m));
    hand_next (h, m, 0);
  }
  st->n_handing--;
  handed (st);
}

/* ---- steps ----------------------------------------------------------------------------- */

static void
stop_now (struct stopper *st)
{
  st->d->stopping = true;
  answer (st, CRG_EXIT_FINE, "");
  qb_loop_stop (st->d->loop);
}

static void
on_timer (void *opaque)
{
  struct stopper *st = opaque;
  struct daemon *d = st->d;
  uint64_t now = clock_boottime_ms ();
  bool idle = true;

  if (d->stopping && st->phase == STOP_IDLE && st->kind == STOP_NOT) {
    st->kind = STOP_END; /* it can't go on; why is in the log */
    end_plugins (st);
  }
  if (st->phase == STOP_PRODUCTION && now >= st->mirrors_ms)
    st->phase = STOP_MIRRORS;
  /* Again: a CRG's shell that begins anew adopts what it finds. */
  if (st->phase >= STOP_PRODUCTION)
    stop_plugins (st, st->phase == STOP_MIRRORS);
  for (unsigned i = 0; i < CRG_MAX_CRGS; i++)
    if (d->members[i] && !member_is_idle (d->members[i]))
      idle = false;
  if (st->phase >= STOP_PRODUCTION
      && ((idle && (hooks_idle (d->hooks) || now >= st->hooks_ms)) || now >= st->deadline_ms)) {
    if (!idle)
      log_warning ("a plugin has not ended in time; the next crgd takes it over");
    stop_now (st);
    return;
  }
  qb_loop_timer_add (d->loop, QB_LOOP_MED, STOP_TICK_MS * QB_TIME_NS_IN_MSEC, st, on_timer,
                     &st->timer);
}

static void
begin (struct stopper *st, enum stop_kind kind)
{
  static const char *const what[] = { [STOP_RESTART] = "ending; the plugins serve on for the next crgd",
                                      [STOP_END] = "ending, with the plugins",
                                      [STOP_HAND_OVER] = "ending, after handing over" };

  st->kind = kind;
  log_notice ("%s", what[kind]);
  notify_stopping (what[kind]);
  if (kind == STOP_RESTART)
    stop_now (st);
  else if (kind == STOP_HAND_OVER)
    hand_over (st);
  else
    end_plugins (st);
}

static int
on_signal (int sig, void *opaque)
{
  struct stopper *st = opaque;

  if (st->kind != STOP_NOT) {
    log_warning ("signal %d again: ending at once; the next crgd takes over what still runs", sig);
    stop_now (st);
    return 0;
  }
  log_notice ("signal %d", sig);
  st->asked = false;
  begin (st, sig == SIGINT ? STOP_END : st->on_term);
  return 0;
}

void
stop_ask (struct stopper *st, enum stop_kind kind, bool force,
          void (*on_progress) (void *, const char *), member_reply_fn *done, void *opaque)
{
  if (st->kind != STOP_NOT) {
    done (opaque, CRG_EXIT_REFUSED, "this crgd is ending already");
    return;
  }
  st->asked = true;
  st->force = force;
  st->progress = on_progress;
  st->done = done;
  st->opaque = opaque;
  begin (st, kind);
}

void
stop_forget (struct stopper *st, void *opaque)
{
  if (st && st->opaque == opaque) {
    st->done = NULL;
    st->progress = NULL;
    st->opaque = NULL;
  }
}

struct stopper *
stop_new (struct daemon *d, enum stop_kind on_term)
{
  struct stopper *st = calloc (1, sizeof *st);

  if (st == NULL)
    return NULL;
  st->d = d;
  st->on_term = on_term;
  qb_loop_signal_add (d->loop, QB_LOOP_HIGH, SIGTERM, st, on_signal, NULL);
  qb_loop_signal_add (d->loop, QB_LOOP_HIGH, SIGINT, st, on_signal, NULL);
  on_timer (st);
  return st;
}

void
stop_free (struct stopper *st)
{
  if (st == NULL)
    return;
  /* Whoever waits for a switchover is not to be called any more. */
  for (unsigned i = 0; i < CRG_MAX_CRGS; i++)
    for (unsigned k = 0; k < CRG_MAX_CRGS; k++)
      if (st->d->members[k])
        member_forget_requests (st->d->members[k], &st->handing[i]);
  free (st);
}
