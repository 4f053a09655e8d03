/* SPDX-License-Identifier: BSD-3-Clause */
/* For unit tests of a part of the replication core: one core, its clock, and what a step asks for, with all that
 * it asks for more.  It belongs to the one file that includes it.
 */
#ifndef CRG_REPL_STEP_H
#define CRG_REPL_STEP_H

#include "plugin/repl.h"

static struct repl r;
static struct repl_actions out;
static uint64_t now;

/* One event, and RE_MORE as long as it is asked for, up to 20 times. */
static void
step (struct repl_event ev)
{
  static struct repl_actions one;

  out.n = 0;
  for (unsigned i = 0; i < 20; i++) {
    ev.now_ms = now;
    repl_step (&r, &ev, &one);
    for (unsigned k = 0; k < one.n && out.n < REPL_MAX_ACTIONS; k++)
      out.a[out.n++] = one.a[k];
    if (!one.more)
      return;
    ev = (struct repl_event){ .kind = RE_MORE };
  }
}

/* How many actions of that kind the last step asked for. */
static unsigned
count (unsigned kind)
{
  unsigned n = 0;

  for (unsigned i = 0; i < out.n; i++)
    n += out.a[i].kind == kind;
  return n;
}

/* How many frames of that type. */
static inline unsigned
frames (unsigned type)
{
  unsigned n = 0;

  for (unsigned i = 0; i < out.n; i++)
    n += out.a[i].kind == RA_SEND && out.a[i].frame.type == type;
  return n;
}

/* The first action of that kind, or an empty one. */
static const struct repl_action *
find (unsigned kind)
{
  static const struct repl_action none;

  for (unsigned i = 0; i < out.n; i++)
    if (out.a[i].kind == kind)
      return &out.a[i];
  return &none;
}

#endif /* CRG_REPL_STEP_H */
