/* SPDX-License-Identifier: BSD-3-Clause */
/* The group of sim-repl: one committed record that changes late, and who is production: its start, and the
 * takeover after its death or a drain.  See mirror.h.
 */

#include <stdlib.h>
#include <string.h>

#include "tests/sim/mirror.h"

static void
send_record (void)
{
  uint64_t at = w.now + 1 + rnd (40);
  struct sev *e;
  if (at < w.last_record)
    at = w.last_record;
  w.last_record = at;
  e = after (at - w.now, SE_RECORD);
  bool open = w.change != CC_NONE;
  for (unsigned s = 0; s < w.n_sites; s++)
    if ((w.want_in[s] && !(w.in_set & 1u << s)) || (w.want_out[s] && (w.in_set & 1u << s)))
      open = true;
  /* a wish that is still to be proposed has no outcome yet */
  if (!open)
    w.seen_no = w.handled_no;
  e->a = w.in_set;
  e->b = w.generation;
  e->c = w.seen_no;
}

void
ctl_propose (void)
{
  if (w.change != CC_NONE || !w.quorum)
    return;
  for (unsigned s = 0; s < w.n_sites; s++) {
    if (w.want_out[s] && (w.in_set & 1u << s))
      w.change = CC_SHRINK;
    else if (w.want_in[s] && !(w.in_set & 1u << s))
      w.change = CC_ENTER;
    else
      continue;
    w.change_site = s;
    w.change_generation = w.generation;
    after (5 + rnd (150), SE_COMMIT);
    return;
  }
}

void
ctl_handle (const struct sev *e)
{
  const unsigned s = e->site;

  w.handled_no = e->a;
  if (e->slot == RA_COPY_LOST) {
    w.want_out[s] = true;
    w.want_in[s] = false;
  }
  else if (e->slot == RA_COPY_BACK)
    w.want_out[s] = false;
  else {
    w.want_out[s] = false;
    w.want_in[s] = true;
  }
  ctl_propose ();
  send_record ();
}

void
ctl_commit (void)
{
  const unsigned s = w.change_site;

  if (!w.quorum) { /* its outcome is known later */
    after (50 + rnd (100), SE_COMMIT);
    return;
  }
  if (w.change == CC_SHRINK) {
    w.in_set &= ~(1u << s);
    w.generation++;
    say ("committed: site %u is out, generation %llu", s, (unsigned long long) w.generation);
  }
  else if (w.change_generation == w.generation && chance (90)) {
    w.in_set |= 1u << s;
    w.entered++;
    say ("committed: site %u is in", s);
  }
  if (w.change == CC_ENTER)
    w.want_in[s] = false; /* in, or turned down */
  else
    w.want_out[s] = false;
  w.change = CC_NONE;
  ctl_propose ();
  send_record ();
}

/* --- production's life -------------------------------------------------------------------------- */

void
prod_start (bool again)
{
  struct repl_config cfg = { .size = SIZE, .block_size = BLOCK, .n_rslots = 4,
                             .share_percent = (uint8_t) (1 + rnd (100)),
                             .suspend_timeout_ms = 1000,
                             .no_quorum_timeout_ms = w.no_quorum_ms,
                             .return_store_error = w.returns_errors };
  const char *why;

  cfg.site = (uint8_t) w.prod_site;
  cfg.n_sites = (uint8_t) w.n_sites;
  cfg.in_set = w.in_set;
  /* R3, C5: what the production before asked for may be committed yet. */
  cfg.entering = again ? ((1u << w.n_sites) - 1) & ~(w.in_set | 1u << w.prod_site) : 0;
  cfg.equal = w.graceful;
  if (w.track) {
    load_marks (w.prod_site, &w.mark, w.mark_memory, 2 * HOT_MAX_SPAN);
    cfg.mark = &w.mark;
  }
  w.graceful = false;
  w.site[w.prod_site].was_filled = true;
  memset (w.site[w.prod_site].owed, 0, sizeof w.site[w.prod_site].owed);
  w.site[w.prod_site].super.since = w.site[w.prod_site].super.since ? w.site[w.prod_site].super.since : 1;
  cfg.generation = w.generation;
  for (unsigned s = 0; s < w.n_sites; s++)
    cfg.track_memory[s] = w.maps[s];
  cfg.track_memory_bytes = track_memory_bytes (SIZE, BLOCK);
  why = repl_init (&w.r, &cfg, w.now);
  if (why)
    violate ("repl_init: %s", why);
  w.prod = true;
  w.prod_life++;
  w.wake_ms = 0;
  w.handled_no = w.seen_no = w.last_no = 0;
  memset (w.want_in, 0, sizeof w.want_in);
  memset (w.want_out, 0, sizeof w.want_out);
  w.failed_store = false;
  w.holding = w.drained = false;
  w.read_slow = chance (30) ? (unsigned) rnd (300) : 0;
  after (REPL_TICK_MS, SE_TICK);
  after (w.ends ? 1 + rnd (1500) : 1, SE_CLIENT);
  struct repl_event ev = { .kind = RE_LEASE, .until_ms = w.lease };
  feed (&ev);
}

/* Production dies, or (graceful) has drained and given its role up; a copy of the set, or the same
 * host, goes on. */
void
takeover (bool power, bool graceful)
{
  unsigned best = w.prod_site;
  struct site *x = &w.site[w.prod_site];
  bool again, open;

  w.takeovers++;
  /* what it had submitted lands or not */
  for (unsigned i = 0; i < w.n_heap; i++) {
    struct sev *e = &w.heap[i];
    if (e->life != w.prod_life)
      continue;
    if (e->kind == SE_LOCAL) {
      if (e->slot < SLOTS && w.req[e->slot].op != RO_FLUSH && w.req[e->slot].op != RO_READ_WAIT)
        for (unsigned k = u0 (w.req[e->slot].offset);
             k < u0 (w.req[e->slot].offset + w.req[e->slot].length); k++)
          if (chance (50))
            x->disk.cur[k] = w.req[e->slot].stamp;
      free (e->p);
      e->p = NULL;
      e->life = 0;
    }
    else if (e->kind == SE_RREAD)
      e->life = 0;
  }
  end_stage (w.prod_site, true, power);
  w.prod = false;
  w.prod_life++;
  for (unsigned s = 0; s < w.n_sites; s++)
    if (s != w.prod_site)
      link_down (s, "production is gone");
  memset (w.req, 0, sizeof w.req);
  if (power)
    lose_cache (x);
  /* an ENTER under way: its outcome is decided now, either way, or when the next production has begun (C5) */
  open = w.change == CC_ENTER && w.change_generation == w.generation && chance (50);
  if (w.change == CC_ENTER && w.change_generation == w.generation && !open && chance (50)) {
    w.in_set |= 1u << w.change_site;
    w.entered++;
  }
  if (w.change == CC_SHRINK && chance (50)) {
    w.in_set &= ~(1u << w.change_site);
    w.generation++;
  }
  w.change = CC_NONE;
  for (unsigned i = 0; i < w.n_heap; i++)
    if (w.heap[i].kind == SE_CTL || w.heap[i].kind == SE_RECORD || w.heap[i].kind == SE_COMMIT)
      w.heap[i].life = 0;

  for (unsigned s = 0; s < w.n_sites; s++)
    if (s != w.prod_site && (w.in_set & 1u << s) && !w.site[s].restarted && (!w.ends || power || graceful)
        && (power || graceful || (best == w.prod_site && chance (70)) || chance (50)))
      best = s;
  if (power && best == w.prod_site) {
    /* S2 would wait for the others; here: the stable part alone goes on */
    for (unsigned i = 0; i < UNITS; i++)
      w.answered[i] = x->disk.cur[i] < w.answered[i] ? x->disk.cur[i] : w.answered[i];
  }
  else
    for (unsigned s = 0; s < w.n_sites; s++) {
      /* every copy that could take over has every answered write */
      if (s == w.prod_site ? power : (!(w.in_set & 1u << s) || w.site[s].restarted))
        continue;
      if (s != w.prod_site && (w.site[s].super.unusable || w.site[s].super.since == 0))
        violate ("site %u is in the set, its own disk says it can't take over", s);
      for (unsigned i = 0; i < UNITS; i++)
        if (w.site[s].disk.cur[i] < w.answered[i])
          violate ("failover to site %u loses answered write %u of unit %u (has %u)", s,
                   w.answered[i], i, w.site[s].disk.cur[i]);
    }
  say ("production dies%s at site %u; site %u goes on", power ? " (power)" : graceful ? " (gracefully)" : "",
       w.prod_site, best);
  again = best == w.prod_site && !graceful;
  if (best != w.prod_site) {
    const unsigned old = w.prod_site;
    if (w.site[best].process)
      copy_die (best, false);
    w.prod_site = best;
    w.site[old].super.tenure = w.tenure;
    w.site[old].super.generation = w.generation;
    w.site[old].super.since = w.track ? w.generation : 0;
    w.site[old].super.filling = false;
    w.site[old].super.unusable = false;
    w.site[old].super.empty = false;
    w.site[old].restarted = power;
  }
  w.tenure++;
  w.tenure_stamp = w.next_stamp | ZERO_BIT;
  w.graceful = graceful;
  if (!w.track) {
    w.generation++;
    w.in_set = 1u << best;
    /* the new production's data is the truth from here */
    for (unsigned i = 0; i < UNITS; i++)
      w.answered[i] = w.site[best].disk.cur[i];
  }
  check_disks ();
  for (unsigned s = 0; s < w.n_sites; s++)
    if (s != best && !w.site[s].process)
      copy_start (s);
    else if (s != best) {
      struct wire_record rec = { .tenure = w.tenure, .generation = w.generation, .in_set = w.in_set };
      struct copy_event ev = { .kind = CE_RECORD, .record = &rec };
      copy_feed (s, &ev);
    }
  prod_start (again);
  if (again && open) {
    w.change = CC_ENTER;
    w.change_generation = w.generation;
    after (5 + rnd (150), SE_COMMIT);
  }
}
