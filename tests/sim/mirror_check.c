/* SPDX-License-Identifier: BSD-3-Clause */
/* What has to be true in sim-repl, when something is answered and in between; see mirror.h for the list.
 */

#include <stdlib.h>
#include <string.h>

#include "tests/sim/mirror.h"

bool
is_damaged (unsigned s, unsigned i)
{
  return w.damaged && s == w.damaged_site && i == w.damaged_unit;
}

/* A read is answered: whatever copy takes over, it gives the same. */
void
check_read (const struct req *q)
{
  for (unsigned i = u0 (q->offset); i < u0 (q->offset + q->length); i++) {
    for (unsigned s = 0; s < w.n_sites; s++) {
      const stamp_t has = w.site[s].disk.cur[i];
      /* a newer write of this production may be on its way */
      if ((w.in_set & 1u << s) && s != w.prod_site && !w.site[s].restarted && has != q->seen[i] && !is_damaged (s, i)
          && !(has > q->seen[i] && (has > w.tenure_stamp || !w.track)))
        violate ("a read returns stamp %u of unit %u, site %u has %u", q->seen[i], i, s, has);
    }
    if (q->seen[i] > w.answered[i])
      w.answered[i] = q->seen[i];
  }
}

/* Does the disk of a say that unit i of b may be another? */
static bool
disk_says (unsigned a, unsigned b, unsigned i)
{
  const struct site *x = &w.site[a];
  const uint64_t block = (uint64_t) i * UNIT / BLOCK, hot = (uint64_t) i * UNIT / w.region;

  return x->super.empty || map_bit (x->maps.bits[a], x->maps.bad_bits[a], block)
         || map_bit (x->maps.bits[b], x->maps.bad_bits[b], block)
         || (map_bit (x->maps.hot[0], x->maps.bad_hot[0], hot) && map_bit (x->maps.hot[1], x->maps.bad_hot[1], hot));
}

void
check_disks (void)
{
  if (!w.track)
    return;
  for (unsigned a = 0; a < w.n_sites; a++)
    for (unsigned b = 0; b < w.n_sites; b++) {
      if (a == b || !((w.in_set | 1u << w.prod_site) & 1u << a))
        continue;
      for (unsigned i = 0; i < UNITS && !broken; i++)
        if (w.site[a].disk.cur[i] != w.site[b].disk.cur[i] && !is_damaged (a, i) && !is_damaged (b, i)
            && !disk_says (a, b, i) && !disk_says (b, a, i))
          violate ("unit %u is %u at site %u, %u at site %u, and neither disk says so", i, w.site[a].disk.cur[i], a,
                   w.site[b].disk.cur[i], b);
    }
}

/* KEEP: another copy of the set may still be as this one was. */
void
check_kept (unsigned s)
{
  const struct site *x = &w.site[s];

  for (unsigned i = 0; w.track && i < UNITS && !broken; i++)
    if (x->owed[i] && !hot_is_marked (&x->mark.hot, (uint64_t) i * UNIT / w.region))
      violate ("site %u lets go of the mark of unit %u before it hears that all are equal", s, i);
}

/* Zeroes, answered without having been written anywhere: they are on every copy of the set. */
static void
check_nothing (const struct req *q)
{
  w.nothing++;
  if (q->op == RO_WRITE)
    violate ("a write is answered that was never granted");
  for (unsigned s = 0; s < w.n_sites; s++)
    for (unsigned i = u0 (q->offset); i < u0 (q->offset + q->length); i++) {
      const stamp_t has = (w.in_set | 1u << w.prod_site) & 1u << s ? w.site[s].disk.cur[i] : 0;

      if (has != 0 && !(has & ZERO_BIT) && !w.site[s].restarted && !is_damaged (s, i))
        violate ("zeroes are answered, site %u has %u in unit %u", s, has, i);
    }
}

/* Blocks that production could not write, or that a comparison has found, are another matter. */
static bool
is_told (const struct req *q)
{
  return w.track && w.local_errors == 0 && q->generation == w.r.generation && (w.r.guard || set_is_equal (&w.r));
}

/* A flush comes, and no write is under way: all that a copy has acknowledged is complete. */
void
note_heard (struct req *q)
{
  q->generation = w.r.generation;
  for (unsigned i = 0; i < SLOTS; i++)
    if (w.req[i].used && op_is_data (w.req[i].op))
      return;
  for (unsigned s = 0; is_told (q) && s < w.n_sites; s++)
    if ((w.r.in_set & 1u << s) && w.site[s].conn_up && w.r.sites[s].keeps && !w.r.sites[s].mute) {
      q->conn[s] = w.site[s].conn;
      q->heard[s] = w.r.sites[s].acked_seq;
    }
}

/* The flush covers that on each copy of the set; nothing, if one that it waited for is out or has not come in. */
static void
check_heard (const struct req *q)
{
  const bool covers = w.r.slots[q - w.req].cycle != 0;

  for (unsigned s = 0; covers && is_told (q) && s < w.n_sites; s++)
    if (q->conn[s] != 0 && q->conn[s] == w.site[s].conn && w.site[s].conn_up && !w.r.sites[s].mute
        && w.r.sites[s].stable < q->heard[s])
      violate ("a flush covers operation %llu of site %u, which is told of %llu", (unsigned long long) q->heard[s], s,
               (unsigned long long) w.r.sites[s].stable);
}

void
check_completed (unsigned slot, int error)
{
  struct req *q = &w.req[slot];
  const uint32_t set = w.in_set | 1u << w.prod_site;

  if (!q->used) {
    violate ("slot %u completed twice", slot);
    return;
  }
  if (error) {
    w.failures++;
    if (error == -28 && q->granted) {
      /* its bytes are what they are on production; nobody was promised anything */
      for (unsigned i = u0 (q->offset); i < u0 (q->offset + q->length); i++)
        w.answered[i] = w.site[w.prod_site].disk.cur[i];
      return;
    }
    if (error != -5 || w.no_quorum_ms == 0 || w.now < w.lease + w.no_quorum_ms)
      violate ("an error %d for a client", error);
    if (!q->granted || q->op == RO_FLUSH || q->op == RO_READ_WAIT)
      return;
    /* it is on every copy, whatever the client was told */
  }
  else {
    if (w.now >= w.lease)
      violate ("answered without a lease");
    w.answered_ops++;
  }
  if (q->op == RO_FLUSH && error == 0)
    check_heard (q);
  if (q->op == RO_READ_WAIT) {
    check_read (q);
    return;
  }
  if (!q->granted && q->op != RO_FLUSH) {
    check_nothing (q);
    return;
  }
  for (unsigned s = 0; s < w.n_sites; s++) {
    const struct site *x = &w.site[s];
    if (!(set & 1u << s))
      continue;
    if (q->op == RO_FLUSH) {
      for (unsigned i = 0; i < UNITS; i++)
        if (x->disk.stable[i] < q->flushed[i] && !is_damaged (s, i))
          violate ("flush answered, unit %u is not stable at site %u (%u, want %u)", i, s,
                   x->disk.stable[i], q->flushed[i]);
      continue;
    }
    /* a copy that lost power is about to be removed; its stable part is what counts */
    if (s != w.prod_site && x->restarted)
      continue;
    for (unsigned i = u0 (q->offset); i < u0 (q->offset + q->length); i++) {
      if (x->disk.cur[i] != q->stamp && !is_damaged (s, i))
        violate ("write %u answered, site %u holds %u in unit %u", q->stamp, s, x->disk.cur[i], i);
      if ((q->flags & RF_FUA) && x->disk.stable[i] < q->stamp && !is_damaged (s, i))
        violate ("FUA write answered, not stable at site %u", s);
    }
  }
  if (q->op != RO_FLUSH)
    for (unsigned i = u0 (q->offset); i < u0 (q->offset + q->length); i++)
      if (q->stamp > w.answered[i])
        w.answered[i] = q->stamp;
}

struct look *
new_look (uint64_t offset, uint64_t length)
{
  struct look *l = malloc (sizeof *l + u0 (length) * sizeof l->seen[0]);

  if (l == NULL)
    abort ();
  *l = (struct look) { .offset = offset, .length = length };
  return l;
}

/* Reads on.  True: to the end. */
bool
look (const struct disk *d, struct look *l)
{
  const unsigned all = u0 (l->length), to = chance (50) ? all : l->n + rnd (all - l->n + 1);

  for (; l->n < to; l->n++)
    l->seen[l->n] = d->cur[u0 (l->offset) + l->n];
  return l->n == all;
}

/* A digest of stamps. */
void
digest_of (struct look *l, uint8_t *digests)
{
  for (uint64_t at = 0; at < l->length; at += BLOCK, digests += WIRE_DIGEST_LEN) {
    uint64_t h[2] = { 0xcbf29ce484222325u, 0x9e3779b97f4a7c15u };
    for (unsigned i = u0 (at); i < u0 (at + BLOCK) && i < l->n; i++) {
      h[0] = (h[0] ^ l->seen[i]) * 0x100000001b3u;
      h[1] = (h[1] ^ (l->seen[i] + 1)) * 0x100000001b5u;
    }
    memcpy (digests, h, sizeof h);
  }
  free (l);
}

/* The core calls a block different: it has to be, at this instant. */
void
check_differs (const struct repl_action *a)
{
  bool differs = false;

  for (unsigned i = u0 (a->offset); i < u0 (a->offset + a->length); i++)
    if (w.site[w.prod_site].disk.cur[i] != w.site[a->site].disk.cur[i]) {
      differs = true;
      if (!is_damaged (a->site, i))
        violate ("verify: unit %u of site %u differs, and nobody damaged it", i, a->site);
    }
  if (!differs)
    violate ("verify names %llu of site %u, which is equal", (unsigned long long) a->offset, a->site);
  w.found = true;
  w.found_total++;
}

void
check_tracking (void)
{
  const struct disk *p = &w.site[w.prod_site].disk;

  if (!w.prod)
    return;
  for (unsigned s = 0; s < w.n_sites && !broken; s++) {
    const struct repl_site *x = &w.r.sites[s];
    const struct track *t = &x->track;
    uint64_t counts[TS_STATES] = { 0 };
    if (s == w.prod_site)
      continue;
    for (uint64_t b = 0; b < t->n_blocks; b++)
      counts[track_get (t, b)]++;
    for (unsigned k = 0; k < TS_STATES; k++)
      if (counts[k] != t->count[k])
        violate ("site %u: %llu blocks are %s, counted %llu", s, (unsigned long long) counts[k],
                 track_state_name (k), (unsigned long long) t->count[k]);
    if (t->illegal)
      violate ("site %u: a move that the table forbids", s);
    if (!x->map_valid || w.site[s].restarted || w.site[s].super.empty || (w.track && x->map_needed))
      continue; /* declared to be unknown, or about to be */
    for (unsigned i = 0; i < UNITS; i++) {
      const uint64_t b = (uint64_t) i * UNIT / BLOCK;
      bool flying = false;
      if (track_get (t, b) != TS_CLEAN)
        continue;
      if (p->cur[i] != w.site[s].disk.cur[i] && is_damaged (s, i))
        continue;
      if (p->cur[i] != w.site[s].disk.cur[i]) {
        for (unsigned k = 0; k < SLOTS; k++)
          if (w.req[k].used && w.req[k].granted && w.req[k].offset <= (uint64_t) i * UNIT
              && w.req[k].offset + w.req[k].length > (uint64_t) i * UNIT)
            flying = true;
        if (!flying)
          violate ("site %u differs in unit %u (%u, production %u), the block is clean", s, i,
                   w.site[s].disk.cur[i], p->cur[i]);
      }
      else if (!x->untracked && !w.track && w.site[s].disk.stable[i] != w.site[s].disk.cur[i])
        violate ("site %u: unit %u is clean and not stable", s, i);
    }
  }
}

/* G2: a rest has a bound.  G4: there is none while reads wait for the copies of the set to be equal. */
void
check_pace (void)
{
  for (unsigned s = 0; s < w.n_sites && w.prod; s++) {
    const uint64_t until = w.r.sites[s].pace.rest_until_us;
    const uint64_t us = s != w.prod_site && until > w.r.now_us ? until - w.r.now_us : 0;

    if (us > REPL_PACE_REST_MS * 1000u)
      violate ("the resync of site %u rests for %llu us", s, (unsigned long long) us);
    if (us > 0 && w.r.guard)
      violate ("site %u has to be equal for reads, and its resync rests", s);
  }
}

void
check_waits (void)
{
  struct repl_wait waits[REPL_MAX_WAITS];
  unsigned n, used = 0;

  if (!w.prod)
    return;
  n = repl_waits (&w.r, w.now, waits);
  for (unsigned i = 0; i < SLOTS; i++)
    used += w.req[i].used;
  if (used > 0 && n == 0)
    violate ("%u requests wait for nobody", used);
  for (unsigned i = 0; i < n; i++)
    if (waits[i].reason == NULL || waits[i].reason[0] == '\0')
      violate ("a wait without a reason");
}

static bool
healthy (void)
{
  for (unsigned i = 0; i < SLOTS; i++)
    if (w.req[i].used)
      return false;
  for (unsigned s = 0; s < w.n_sites; s++)
    if (s != w.prod_site
        && (w.r.sites[s].state != SITE_MIRRORING || w.site[s].restarted
            || w.site[s].conn_life != w.site[s].life || track_open (&w.r.sites[s].track) > 0
            || w.r.guard || w.r.sites[s].n_rslots > 0 || w.r.sites[s].unacked_frames > 0))
      return false;
  return w.in_set == (1u << w.n_sites) - 1 && w.r.in_set == (w.in_set & w.r.others);
}

/* All came together.  Now the copies are compared while clients write: as they are, and with a block
 * of one damaged behind its back.  True: that is over. */
bool
last_comparisons (void)
{
  const struct verify_site *x;

  if (w.r.verify.on)
    return false;
  if (w.stage == 3)
    return healthy ();
  /* A removal may still be committed late; then it is compared once more when that is over. */
  for (unsigned s = 0; s < w.n_sites && w.stage > 0 && !w.again; s++)
    if (s != w.prod_site && w.r.verify.sites[s].phase != VP_DONE) {
      w.again = true;
      w.quiesce = true;
      if (++w.agains > 5)
        violate ("comparing site %u ended: %s", s, w.r.verify.sites[s].reason);
    }
  if (w.again && !healthy ())
    return false;
  if (w.again) {
    w.again = w.quiesce = false;
    start_verify (true);
    return false;
  }
  switch (w.stage) {
  case 0:
    if (!healthy ())
      return false;
    w.quiesce = false;
    w.busy = 10 + (unsigned) rnd (20);
    w.stage = 1;
    start_verify (chance (50));
    return false;
  case 1:
    if (w.found)
      violate ("equal copies are said to differ");
    w.damaged_site = (unsigned) rnd (w.n_sites - 1);
    w.damaged_site += w.damaged_site >= w.prod_site;
    w.damaged_unit = (unsigned) rnd (UNITS);
    w.damaged = true;
    w.site[w.damaged_site].disk.cur[w.damaged_unit] = w.site[w.damaged_site].disk.stable[w.damaged_unit] = 6;
    w.stage = 2;
    start_verify (chance (70));
    return false;
  }
  x = &w.r.verify.sites[w.damaged_site];
  if (w.site[w.damaged_site].disk.cur[w.damaged_unit] == 6 && w.site[w.prod_site].disk.cur[w.damaged_unit] != 6) {
    if (!w.found || x->n_found != 1 || u0 (x->found[0].offset) > w.damaged_unit
        || u0 (x->found[0].offset + x->found[0].length) <= w.damaged_unit)
      violate ("unit %u of site %u is damaged, and the comparison has not named it", w.damaged_unit, w.damaged_site);
    if (x->repaired)
      violate ("said to be repaired, and is not");
    start_verify (true);
    return false;
  }
  w.damaged = false;
  w.quiesce = true;
  w.stage = 3;
  return false;
}
