/* SPDX-License-Identifier: BSD-3-Clause
 *
 * How crgd ends: for a restart (its plugins serve on and the next crgd takes
 * them over: F7, S3), for good (the plugins end gracefully, their stores are
 * released), or after handing production over.  Owns the signals and the
 * order of the steps; every step has a bound.  Main loop's thread only.
 */
#ifndef CRG_STOP_H
#define CRG_STOP_H

#include "server/daemon.h"
#include "server/member.h"

enum stop_kind {
  STOP_NOT,
  STOP_RESTART,   /* plugins live on */
  STOP_END,       /* plugins end gracefully */
  STOP_HAND_OVER, /* switchover of each CRG that is production here, then END */
};

struct stopper;

/* `on_term`: what SIGTERM asks for.  SIGINT asks for STOP_END.  NULL: no memory. */
extern struct stopper *stop_new (struct daemon *d, enum stop_kind on_term);
extern void stop_free (struct stopper *st);
/* An operator asks.  `done` is called once: before the loop ends, or with the
 * reason why nothing was done (not handed over, and `force` was not said). */
extern void stop_ask (struct stopper *st, enum stop_kind kind, bool force,
                      void (*progress) (void *opaque, const char *text), member_reply_fn *done,
                      void *opaque);
/* The one who asked has gone; the rest goes on, and is refused where it would be. */
extern void stop_forget (struct stopper *st, void *opaque);

#endif
