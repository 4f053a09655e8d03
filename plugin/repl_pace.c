/* SPDX-License-Identifier: BSD-3-Clause */
/* The replication core, seventh part: the pace of a resync while clients work.  Pure; called by
 * repl_resync.c and repl_link.c alone.
 *
 * G1  While clients work, the resync of a copy goes one piece at a time, and rests after each for so long
 *     that the pieces take `share` of the time.  A piece has begun when it is read or asked for, and is over
 *     when the copy has answered.
 * G2  No rest is longer than REPL_PACE_REST_MS.
 * G3  What a copy lacks has not become less in REPL_PACE_GAIN_MS of this: the share is doubled, until the
 *     copy lacks nothing or clients rest.
 * G4  What clients' requests wait for has no pace: copies of the set that have to be made equal.
 *
 * It must never keep a resync from its end.
 */
#include "plugin/repl_private.h"

/* G1, G4 */
static bool
is_paced (const struct repl *r, const struct repl_site *x)
{
  return repl_app_is_busy (r, REPL_QUIET_MS) && !r->guard && (uint64_t) r->cfg.share_percent << x->pace.doubled < 100;
}

static bool
is_under_way (const struct repl_site *x)
{
  return x->n_rslots + x->n_asks > 0 || x->resync_unacked > 0;
}

/* G1, G2 */
static uint64_t
rest_us (const struct repl *r, const struct repl_site *x)
{
  const uint64_t share = (uint64_t) r->cfg.share_percent << x->pace.doubled;
  const uint64_t took_us = r->now_us > x->pace.begun_us ? r->now_us - x->pace.begun_us : 0;
  const uint64_t us = took_us * (100 - share) / share;

  return us < REPL_PACE_REST_MS * 1000 ? us : REPL_PACE_REST_MS * 1000;
}

bool
pace_holds (struct repl *r, unsigned site)
{
  struct repl_site *x = &r->sites[site];
  struct repl_pace *p = &x->pace;

  if (!is_paced (r, x)) {
    p->on = false;
    p->rest_until_us = 0;
    return false;
  }
  if (is_under_way (x))
    return !p->on || p->left == 0;
  if (p->on) {
    p->on = false;
    p->rest_until_us = r->now_us + rest_us (r, x);
  }
  return r->now_us < p->rest_until_us;
}

void
pace_took (struct repl *r, unsigned site)
{
  struct repl_pace *p = &r->sites[site].pace;

  if (!p->on) {
    p->on = true;
    p->begun_us = r->now_us;
    p->left = r->cfg.block_size < REPL_PACE_BYTES ? REPL_PACE_BYTES / r->cfg.block_size : 1;
  }
  if (p->left > 0)
    p->left--;
}

/* G3 */
void
pace_tick (struct repl *r, unsigned site)
{
  struct repl_site *x = &r->sites[site];
  struct repl_pace *p = &x->pace;
  const uint64_t open = track_open (&x->track);

  if (!x->link_up || open == 0 || !repl_app_is_busy (r, REPL_QUIET_MS)) {
    p->doubled = 0;
    p->least = 0;
    return;
  }
  if (p->least == 0 || open < p->least) {
    p->least = open;
    p->gained_ms = r->now_ms;
  }
  else if (r->now_ms - p->gained_ms >= REPL_PACE_GAIN_MS && is_paced (r, x)) {
    p->doubled++;
    p->least = open;
    p->gained_ms = r->now_ms;
  }
}

bool
repl_site_yields (const struct repl *r, unsigned site)
{
  const struct repl_site *x = &r->sites[site];

  return x->link_up && track_open (&x->track) > 0 && is_paced (r, x);
}

uint64_t
repl_wake_us (const struct repl *r)
{
  uint64_t at = UINT64_MAX;

  for (unsigned s = 0; s < r->cfg.n_sites; s++) {
    const uint64_t until = r->sites[s].pace.rest_until_us;
    if (r->sites[s].link_up && until > r->now_us && until < at && track_waiting (&r->sites[s].track) > 0)
      at = until;
  }
  return at;
}
