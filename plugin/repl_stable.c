/* SPDX-License-Identifier: BSD-3-Clause */
/* The replication core, fifth part: what a flush of the own store and of the copies covers, so that
 * hot marks may go, and how the copies hear of it.  Pure; called by the other parts.  It must never
 * count as stable what a copy had not answered when it was asked to flush.
 */
#include <assert.h>
#include <string.h>

#include "common/util.h"
#include "plugin/repl_private.h"

/* All of the link's stream up to this is of writes that are complete. */
uint64_t
stable_bound (const struct repl *r, unsigned site)
{
  uint64_t bound = r->sites[site].seq;

  for (unsigned i = r->first; i != REPL_NONE; i = r->slots[i].next) {
    const struct repl_slot *s = &r->slots[i];
    if (op_is_data (s->op) && s->first_seq[site] != 0 && s->first_seq[site] <= bound)
      bound = s->first_seq[site] - 1;
  }
  return bound;
}

/* While the set is made equal, a client may write to more regions than a copy has marks for; then the
 * copy would take nothing more, the blocks that make it equal neither.  What clients write is equal on
 * all of them once it is complete, so its marks may go: what was found hot, by it or here, stays so on
 * either disk until it is settled.  The blocks that make a copy equal change it towards the others of
 * the set; its marks of these have to stay too, so it has to be one that keeps them. */
static void
bound_while_unequal (const struct repl *r, struct repl_slot *s)
{
  for (unsigned site = 0; r->guard && site < r->cfg.n_sites; site++) {
    const struct repl_site *x = &r->sites[site];

    if ((set_mask (r) & 1u << site) && x->link_up && !x->mute && x->keeps)
      s->bound[site] = stable_bound (r, site);
  }
}

/* A flush of the own store and of all in `must` begins: notes what it will cover. */
void
stable_flush_begins (struct repl *r, unsigned slot)
{
  struct repl_slot *s = &r->slots[slot];
  uint32_t earlier = 0;

  if (!r->cfg.mark)
    return;
  s->cycle = hot_flush_begin (&r->cfg.mark->hot);
  r->sync_ms = r->now_ms;
  r->kept = false;
  if (!set_is_equal (r)) {
    bound_while_unequal (r, s);
    return;
  }
  for (unsigned i = r->first; i != REPL_NONE; i = r->slots[i].next)
    if (op_is_data (r->slots[i].op))
      earlier |= r->slots[i].earlier;
  s->settles = 1u << r->cfg.site;
  for (unsigned site = 0; site < r->cfg.n_sites; site++) {
    const struct repl_site *x = &r->sites[site];
    if (site == r->cfg.site || !x->link_up || x->mute)
      continue;
    s->bound[site] = stable_bound (r, site);
    /* What came on an earlier link, if all of that is complete. */
    if ((r->in_set & 1u << site) && !(earlier & 1u << site))
      s->settles |= 1u << site;
  }
}

/* ... and is over, confirmed by all of them. */
void
stable_flush_covered (struct repl *r, unsigned slot)
{
  const struct repl_slot *s = &r->slots[slot];

  if (!r->cfg.mark || s->cycle == 0)
    return;
  hot_stable (&r->cfg.mark->hot, s->cycle);
  if ((s->settles & 1u << r->cfg.site) && !r->settled)
    r->settle = true;
  for (unsigned site = 0; site < r->cfg.n_sites; site++) {
    struct repl_site *x = &r->sites[site];
    if (s->bound[site] > x->stable)
      x->stable = s->bound[site];
    if (site != r->cfg.site && (s->settles & 1u << site))
      x->settled = true;
  }
  if (slot >= REPL_MAX_SLOTS && (repl_app_is_idle (r) || r->hold))
    r->clear = 2;
  else if (r->clear == 0)
    r->clear = 1;
}

/* --- asking and telling ---------------------------------------------------------------------- */

static void
say (struct repl *r, unsigned site, unsigned flags, struct repl_actions *out)
{
  struct repl_site *x = &r->sites[site];
  struct repl_action *a = act (out, RA_STABLE);

  a->site = (uint8_t) site;
  a->frame.type = WIRE_STABLE;
  a->frame.seq = x->told_stable = x->stable;
  a->frame.flags = (uint16_t) (flags | (x->settled ? WIRE_F_SETTLED : 0) | (x->clear ? WIRE_F_CLEAR : 0));
  x->told_settled = x->settled;
  x->clear = false;
}

/* For REPL_SLOT_SYNC.  A FLUSH in the stream would keep back the ACKs of all that is sent behind it,
 * and clients do not wait for this one.  All that production knows to be complete was acknowledged. */
void
stable_ask (struct repl *r, unsigned site, struct repl_actions *out)
{
  r->sites[site].sync_need = r->sites[site].acked_seq;
  say (r, site, WIRE_F_SYNC, out);
}

const char *
stable_answer (struct repl *r, unsigned site, uint64_t seq)
{
  struct repl_site *x = &r->sites[site];
  struct repl_slot *s = &r->slots[REPL_SLOT_SYNC];

  if (!x->link_up)
    return NULL;
  if (seq > x->seq)
    return "the copy calls stable what was never sent";
  /* One that covers less answers an earlier question. */
  if (s->state != SL_ACTIVE || !(s->pending & 1u << site) || s->sent[site] == 0 || !x->syncs
      || seq < x->sync_need)
    return NULL;
  s->acked[site] = 1;
  s->pending &= ~(1u << site);
  repl_check_done (r, REPL_SLOT_SYNC);
  return NULL;
}

/* What of its stream is stable wherever it must be, so that it lets go of its marks. */
void
stable_tell (struct repl *r, struct repl_actions *out)
{
  for (unsigned s = 0; s < r->cfg.n_sites; s++) {
    const struct repl_site *x = &r->sites[s];

    if (r->cfg.mark && x->link_up && !x->mute
        && (x->stable != x->told_stable || x->settled != x->told_settled || x->clear))
      say (r, s, 0, out);
  }
}
