/* SPDX-License-Identifier: BSD-3-Clause
 *
 * member.c: act_fence, and fence.c and script.c for crgsim: the fence hook, which cuts the power of a node that had a
 * store open (S1 d).  It is a process of its own: it outlives a crgd that is killed, and is killed with one that
 * leaves.  Its promise is kept: with success the node has been without power since the hook began.  It may have power
 * again by then, and all else may be so: that it fails though the power was cut, that it is cut when nobody waits for
 * it any more.  What becomes of one follows from the seed and its number alone.
 */
#include <string.h>

#include "common/util.h"
#include "tests/sim/world.h"

#define LOOK_MS 10u

enum fence_fate { FATE_GOOD, FATE_NOT_RUN, FATE_REFUSED, FATE_CUT_AND_REFUSED, FATE_HANGS, FATE_CUT_AND_HANGS };

enum fence_stage { FS_CUT, FS_END, FS_DEADLINE, FS_POWER, FS_LOOK, FS_HEAL };

static uint64_t
draw (const struct wfence *f, unsigned what)
{
  return mix_hash (mix_hash (w.seed, 260), f->number * 16 + what);
}

/* Mostly soon. */
static uint32_t
draw_ms (const struct wfence *f, unsigned what, uint32_t most_ms)
{
  const uint64_t h = draw (f, what);

  return 10 + (uint32_t) (h / 4 % (h % 4 == 0 ? most_ms : h % 4 == 1 ? most_ms / 8 : 200));
}

static void
later (const struct wfence *f, uint32_t ms, enum fence_stage stage)
{
  struct wev *e = after_us (MS (ms) + 1, EV_FENCE);

  e->node = f->by;
  e->end = (uint8_t) stage;
  e->life = f->number;
  e->a = stage == FS_POWER ? w.node[f->target].machine : (uint32_t) (f - w.fence);
}

static void
report (unsigned by, unsigned target, bool ok, const char *reason)
{
  struct group_event ev = { .kind = GE_FENCED, .node = w.node[target].id, .ok = ok };

  TRACE ("n%u: fence of n%u: %s", by + 1, target + 1, ok ? "done" : reason);
  w.st.fenced += ok;
  w.st.not_fenced += !ok;
  strcpy (ev.reason, reason);
  crgd_feed (by, &ev);
}

static bool
is_heard (const struct wfence *f)
{
  return w.node[f->by].running && w.node[f->by].life == f->life;
}

/* script_cancel.  What it has asked the switch for may still happen. */
static void
end_process (struct wfence *f)
{
  f->runs = false;
}

void
fence_cancel (unsigned by)
{
  for (unsigned i = 0; i < W_FENCES; i++)
    if (w.fence[i].runs && w.fence[i].by == by && w.fence[i].life == w.node[by].life)
      end_process (&w.fence[i]);
}

void
fence_begin (unsigned by, uint32_t id)
{
  static const uint8_t fates[16] = {
    [0] = FATE_NOT_RUN, FATE_REFUSED, FATE_CUT_AND_REFUSED, FATE_HANGS, FATE_CUT_AND_HANGS,
  };
  struct wfence *f = NULL;
  const unsigned target = id - 1;

  fence_cancel (by);
  for (unsigned i = 0; i < W_FENCES && f == NULL; i++)
    if (!w.fence[i].runs && !w.fence[i].cuts)
      f = &w.fence[i];
  if (f == NULL) {
    world_fail ("too many fences for this simulation");
    return;
  }
  *f = (struct wfence) { .number = ++w.n_fences, .by = (uint8_t) by, .target = (uint8_t) target,
                         .life = w.node[by].life, .boot = w.machine[w.node[by].machine].boot };
  f->fate = w.healing ? FATE_GOOD : fates[draw (f, 0) % ARRAY_SIZE (fates)];
  TRACE ("n%u fences n%u (%u)", by + 1, target + 1, f->fate);
  if (f->fate == FATE_NOT_RUN || w.node[target].machine == w.node[by].machine) {
    report (by, target, false, "it can't be run");
    return;
  }
  f->runs = true;
  f->cuts = f->fate != FATE_REFUSED && f->fate != FATE_HANGS;
  f->deadline_ms = node_ms (by) + w.mix.fence_ms;
  if (f->cuts)
    later (f, draw_ms (f, 1, 3000), FS_CUT);
  else if (f->fate == FATE_REFUSED)
    later (f, draw_ms (f, 2, 3000), FS_END);
  later (f, w.mix.fence_ms, FS_DEADLINE);
}

static void
cut_off (unsigned node)
{
  for (unsigned n = 0; n < w.n_nodes; n++)
    if (n != node) {
      w.reach[n] &= (uint8_t) ~(1u << node);
      w.reach[node] &= (uint8_t) ~(1u << n);
    }
  ring_changed (false);
}

/* What the group does meanwhile: who is fenced comes back, and is lost again; or only the others see that. */
enum fence_return { FR_SEEN, FR_SEEN_TOO, FR_UNSEEN, FR_NONE, FR_KINDS };

static enum fence_return
how_it_returns (const struct wfence *f)
{
  return w.healing ? FR_NONE : (enum fence_return) (draw (f, 6) % FR_KINDS);
}

/* Whether the hook runs or not: the switch was asked, and does it, unless the process never came to that. */
static void
cut (struct wfence *f)
{
  const unsigned machine = w.node[f->target].machine;

  f->cuts = false;
  if (!f->runs && draw (f, 3) % 2 == 0)
    return;
  if (w.machine[machine].up) {
    TRACE ("the fence of n%u cuts its power", f->target + 1);
    power_off (machine);
    later (f, draw_ms (f, 4, 8000), FS_POWER);
  }
  if (f->runs && how_it_returns (f) != FR_NONE)
    later (f, LOOK_MS, FS_LOOK);
  if (f->runs && how_it_returns (f) == FR_UNSEEN) {
    TRACE ("n%u, which fences it, is cut off", f->by + 1);
    cut_off (f->by);
    later (f, 1000 + draw_ms (f, 7, 8000), FS_HEAL);
  }
  if (f->runs && f->fate == FATE_CUT_AND_REFUSED)
    later (f, draw_ms (f, 2, 3000), FS_END);
  else if (f->runs && f->fate == FATE_GOOD)
    later (f, draw_ms (f, 2, w.mix.fence_ms + w.mix.fence_ms / 4), FS_END);
}

static void
end (struct wfence *f)
{
  const bool in_time = node_ms (f->by) < f->deadline_ms;

  end_process (f);
  if (!is_heard (f))
    return;
  if (f->fate == FATE_GOOD && in_time)
    report (f->by, f->target, true, "");
  else
    report (f->by, f->target, false, in_time ? "it ended with 1" : "it did not end and was killed");
}

/* Who was fenced is back, has a store open, and can't be reached any more.  True: not yet. */
static bool
lose_again (const struct wfence *f)
{
  bool open = false;

  for (unsigned i = 0; i < w.mix.n_iasps; i++)
    open |= plugin_of (f->target, i)->running && plugin_of (f->target, i)->role != HOST_NONE;
  if (!open || w.healing)
    return f->runs && !w.healing;
  TRACE ("n%u, which is being fenced, has a store open again, and is cut off", f->target + 1);
  if (how_it_returns (f) == FR_UNSEEN)
    faults_heal_network ();
  cut_off (f->target);
  later (f, 1000 + draw_ms (f, 5, 8000), FS_HEAL);
  return false;
}

/* Its process stands still with its machine, and ends with it; a crgd that is stopped hears of it later. */
void
fence_event (const struct wev *e)
{
  struct wfence *f = &w.fence[e->a]; /* FS_POWER: of no meaning */
  const struct wnode *by = &w.node[e->node];
  const struct wmachine *m = &w.machine[by->machine];
  const enum fence_stage stage = (enum fence_stage) e->end;

  if (stage == FS_POWER) {
    power_on (e->a);
    return;
  }
  if (stage == FS_HEAL && !w.healing)
    faults_heal_network ();
  if (f->number != e->life || stage == FS_HEAL)
    return;
  if (f->runs && (!m->up || m->boot != f->boot))
    end_process (f);
  if (stage == FS_CUT && f->cuts) {
    if (f->runs && m->frozen_us)
      later (f, LOOK_MS, FS_CUT);
    else
      cut (f);
    return;
  }
  if (!f->runs)
    return;
  if (stage == FS_LOOK) {
    if (lose_again (f))
      later (f, LOOK_MS, FS_LOOK);
  }
  else if (m->frozen_us || (is_heard (f) && by->paused))
    later (f, LOOK_MS, stage);
  else if (stage == FS_END)
    end (f);
  else if (is_heard (f) && node_ms (f->by) < f->deadline_ms)
    later (f, LOOK_MS, stage);
  else if (is_heard (f))
    end (f);
  else
    end_process (f); /* what it may still do is nothing */
}
