/* SPDX-License-Identifier: BSD-3-Clause */
/* The replication core, fourth part: what it shows of itself, in which state each copy is, who waits
 * for what.  Pure; called by repl.c and by the shell.  It must never change what the other parts
 * decide by.
 */
#include <assert.h>
#include <string.h>

#include "common/util.h"
#include "plugin/repl_private.h"

/* --- copies ---------------------------------------------------------------------------------- */

static enum repl_site_state
site_state (const struct repl *r, unsigned site)
{
  const struct repl_site *x = &r->sites[site];
  const bool in_set = r->in_set & 1u << site;

  if (x->detached)
    return SITE_DETACHED;
  if (x->lost)
    return SITE_SUSPENDED;
  if (x->link_up)
    return in_set ? SITE_MIRRORING : SITE_RESYNCING;
  if (in_set)
    return SITE_CONNECTING;
  if (!x->mirror)
    return x->was_linked || x->reason[0] ? SITE_SUSPENDED : SITE_IDLE;
  return x->reason[0] ? SITE_SUSPENDED : SITE_CONNECTING;
}

void
link_states (struct repl *r, struct repl_actions *out)
{
  stable_tell (r, out);
  for (unsigned s = 0; s < r->cfg.n_sites; s++) {
    struct repl_site *x = &r->sites[s];
    enum repl_site_state now;
    struct repl_action *a;

    if (s == r->cfg.site || (now = site_state (r, s)) == x->state)
      continue;
    x->state = (uint8_t) now;
    x->state_since_ms = r->now_ms;
    a = act (out, RA_STATE);
    a->site = (uint8_t) s;
    a->op = (uint8_t) now;
    a->reason = x->reason;
  }
}

static uint8_t
level_of (const struct repl_site *x)
{
  return x->lost || x->enter == EN_READY ? x->said : 0;
}

int
repl_level_after (const struct repl *r, uint64_t no)
{
  int found = -1;

  for (unsigned s = 0; s < r->cfg.n_sites; s++)
    if (s != r->cfg.site && level_of (&r->sites[s]) != 0 && r->sites[s].no > no
        && (found < 0 || r->sites[s].no < r->sites[found].no))
      found = (int) s;
  return found;
}

void
repl_site_status (const struct repl *r, unsigned site, uint64_t now_ms,
                  struct repl_site_status *st)
{
  const struct repl_site *x;
  uint64_t oldest;

  memset (st, 0, sizeof *st);
  st->reason = "";
  st->eta_s = UINT64_MAX;
  if (site >= r->cfg.n_sites || site == r->cfg.site)
    return;
  x = &r->sites[site];
  st->state = (uint8_t) site_state (r, site);
  st->in_set = r->in_set & 1u << site;
  st->entering = x->enter != EN_NONE;
  st->link_up = x->link_up;
  st->lost = x->lost;
  st->yields = repl_site_yields (r, site);
  st->no = x->no;
  st->level = level_of (x);
  st->reason = x->reason;
  st->since_ms = x->state_since_ms;
  st->dirty_bytes = x->map_valid ? track_behind_bytes (&x->track) : r->cfg.size;
  if (st->dirty_bytes > r->cfg.size)
    st->dirty_bytes = r->cfg.size;
  if (!st->in_set) {
    st->done_bytes = (x->track.cleaned - x->resync_base) * r->cfg.block_size;
    st->total_bytes = st->done_bytes + st->dirty_bytes;
    st->rate_bytes_s = x->rate_bytes_s;
    if (st->dirty_bytes == 0)
      st->eta_s = 0;
    else if (x->link_up && x->rate_bytes_s > 0)
      st->eta_s = (st->dirty_bytes + x->rate_bytes_s - 1) / x->rate_bytes_s;
  }
  st->resync_bytes = x->resync_bytes;
  st->equal_bytes = x->equal_bytes;
  st->unacked_bytes = x->unacked_bytes;
  st->unacked_frames = x->unacked_frames;
  oldest = repl_oldest_pending_ms (r, site);
  st->lag_ms = oldest && now_ms > oldest ? now_ms - oldest : 0;
}

/* --- requests -------------------------------------------------------------------------------- */

uint64_t
repl_oldest_pending_ms (const struct repl *r, unsigned site)
{
  uint64_t oldest = 0;
  for (unsigned i = r->first; i != REPL_NONE; i = r->slots[i].next) {
    const struct repl_slot *s = &r->slots[i];
    if (s->state == SL_ACTIVE && (s->pending & 1u << site)
        && (oldest == 0 || s->since_ms < oldest))
      oldest = s->since_ms ? s->since_ms : 1;
  }
  return oldest;
}

const char *
repl_site_state_name (unsigned state)
{
  static const char *const names[] = { "idle",       "connecting", "mirroring",
                                       "resyncing",  "suspended",  "detached" };
  return state <= SITE_DETACHED ? names[state] : "state?";
}

static void
add_wait (const struct repl *r, struct repl_wait *w, const struct repl_slot *s, uint64_t now_ms)
{
  uint64_t age = now_ms > s->since_ms ? now_ms - s->since_ms : 0;
  (void) r;
  w->requests++;
  if (age > w->age_ms)
    w->age_ms = age;
}

/* For which copy a guarded read waits. */
static void
unequal (const struct repl *r, struct repl_wait *w)
{
  w->reason = "after an unclean end the copies are made equal before this is read";
  for (unsigned s = 0; s < r->cfg.n_sites; s++) {
    const struct repl_site *x = &r->sites[s];

    if (!(set_mask (r) & 1u << s) || (!x->map_needed && is_equal (&x->track)))
      continue;
    w->site = (uint8_t) s;
    if (x->map_needed)
      w->reason = "after an unclean end nothing is read before the copy has said in what it may differ";
    else if (x->reason[0])
      w->reason = x->reason;
    return;
  }
}

/* Every request that isn't complete is counted under each owner that it waits for. */
unsigned
repl_waits (const struct repl *r, uint64_t now_ms, struct repl_wait out[REPL_MAX_WAITS])
{
  struct repl_wait w[REPL_MAX_WAITS];
  unsigned n = 0;
  const bool lease = r->lease_ms == UINT64_MAX || now_ms < r->lease_ms;

  memset (w, 0, sizeof w);
  for (unsigned i = r->first; i != REPL_NONE; i = r->slots[i].next) {
    const struct repl_slot *s = &r->slots[i];
    if (r->failed)
      add_wait (r, &w[CRG_MAX_SITES + RW_FAILED - 1], s, now_ms);
    if (s->state == SL_ACTIVE) {
      if (s->unmarked)
        add_wait (r, &w[CRG_MAX_SITES + RW_MARK - 1], s, now_ms);
      else if (!s->local_done)
        add_wait (r, &w[CRG_MAX_SITES + RW_STORE], s, now_ms);
      for (unsigned c = 0; c < r->cfg.n_sites; c++)
        if (s->pending & 1u << c)
          add_wait (r, &w[c], s, now_ms);
    }
    else if (s->state == SL_BLOCKED && s->blockers > 0)
      add_wait (r, &w[CRG_MAX_SITES + RW_RANGE - 1], s, now_ms);
    else if (s->guarded)
      add_wait (r, &w[CRG_MAX_SITES + RW_EQUAL - 1], s, now_ms);
    else if (s->state == SL_BLOCKED && r->hold)
      add_wait (r, &w[CRG_MAX_SITES + RW_HOLD - 1], s, now_ms);
    else if (s->stalled)
      add_wait (r, &w[CRG_MAX_SITES + RW_MARK - 1], s, now_ms);
    if (!lease && s->blockers == 0 && s->state != SL_ACTIVE)
      add_wait (r, &w[CRG_MAX_SITES + RW_LEASE - 1], s, now_ms);
  }
  for (unsigned c = 0; c < CRG_MAX_SITES; c++) {
    w[c].owner = RW_COPY;
    w[c].site = (uint8_t) c;
    w[c].reason = r->sites[c].reason[0] ? r->sites[c].reason
                  : r->sites[c].enter != EN_NONE ? "it is about to enter the in-sync set"
                                                 : "its answer is on the way";
  }
  w[CRG_MAX_SITES + RW_STORE].owner = RW_STORE;
  w[CRG_MAX_SITES + RW_STORE].reason = "the production store is at work";
  w[CRG_MAX_SITES + RW_RANGE - 1].owner = RW_RANGE;
  w[CRG_MAX_SITES + RW_RANGE - 1].reason = "an earlier write, or a resync or comparison, of the same range";
  w[CRG_MAX_SITES + RW_HOLD - 1].owner = RW_HOLD;
  w[CRG_MAX_SITES + RW_HOLD - 1].reason = r->hold_reason;
  w[CRG_MAX_SITES + RW_LEASE - 1].owner = RW_LEASE;
  w[CRG_MAX_SITES + RW_LEASE - 1].reason = "the lease has expired: no majority answers";
  w[CRG_MAX_SITES + RW_FAILED - 1].owner = RW_FAILED;
  w[CRG_MAX_SITES + RW_FAILED - 1].reason = r->fail_reason;
  w[CRG_MAX_SITES + RW_MARK - 1].owner = RW_MARK;
  w[CRG_MAX_SITES + RW_MARK - 1].reason
    = r->stalled.n > 0 ? "as many regions are hot as may be: a flush of all copies has to free some"
                       : "its regions are being marked hot on the production store";
  w[CRG_MAX_SITES + RW_EQUAL - 1].owner = RW_EQUAL;
  unequal (r, &w[CRG_MAX_SITES + RW_EQUAL - 1]);
  for (unsigned i = 0; i < REPL_MAX_WAITS; i++)
    if (w[i].requests > 0)
      out[n++] = w[i];
  return n;
}

const struct repl_counters *
repl_counters (const struct repl *r)
{
  return &r->counters;
}

bool
repl_is_held (const struct repl *r, const char **reason)
{
  const char *why = NULL;

  if (r->failed)
    why = r->fail_reason;
  else if (r->hold)
    why = r->hold_reason;
  else if (!repl_lease_ok (r))
    why = "the lease has expired: no majority answers";
  if (reason)
    *reason = why ? why : "";
  return why != NULL;
}

unsigned
repl_inflight (const struct repl *r)
{
  return r->n_used;
}

bool
repl_is_guarded (const struct repl *r)
{
  return r->guard;
}

const struct track *
repl_track (const struct repl *r, unsigned site)
{
  return site < r->cfg.n_sites && site != r->cfg.site ? &r->sites[site].track : NULL;
}
