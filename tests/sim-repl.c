/* SPDX-License-Identifier: BSD-3-Clause */
/* Histories of the replication cores in the world of tests/sim/mirror.h, one for each seed: what goes wrong, the
 * calendar's loop, and in the end comparisons of all copies.
 *
 *   sim-repl [-v] [FIRST_SEED [COUNT]]
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/mirror.h"
#include "tests/tap.h"

/* --- chaos -------------------------------------------------------------------------------------- */

static void
chaos (void)
{
  const unsigned s = (unsigned) rnd (w.n_sites);
  struct site *x = &w.site[s];
  struct sev *e;

  if (!w.chaos)
    return;
  after (50 + rnd (600), SE_CHAOS);
  if (chance (15))
    start_verify (chance (50));
  if (w.ends && s != w.prod_site && chance (35)) {
    x->cut = true;
    e = after (300 + rnd (2500), SE_HEAL);
    e->site = (uint8_t) s;
    e->a = 1;
    takeover (false, false);
    return;
  }
  if (chance (4)) {
    takeover (chance (40), false);
    return;
  }
  if (w.holding && w.drained && w.track && chance (30)) {
    for (unsigned k = 0; k < w.n_sites; k++)
      if ((w.in_set & 1u << k) && !w.site[k].restarted
          && memcmp (w.site[k].disk.cur, w.site[w.prod_site].disk.cur, sizeof w.site[k].disk.cur)
          && w.local_errors == 0)
        violate ("drained, and site %u differs", k);
    w.graceful_ones++;
    takeover (false, w.local_errors == 0);
    return;
  }
  if (chance (12)) {
    struct repl_event ev = { .kind = w.holding ? RE_RESUME : RE_HOLD, .reason = "switchover" };
    w.holding = !w.holding;
    w.drained = false;
    feed (&ev);
    return;
  }
  if (chance (6)) {
    w.quorum = !w.quorum;
    return;
  }
  if (s == w.prod_site)
    return;
  switch (rnd (8)) {
  case 0:
    link_down (s, "the network");
    break;
  case 1: /* cut: noticed by the PING deadline only */
    x->cut = true;
    e = after (100 + rnd (2500), SE_HEAL);
    e->site = (uint8_t) s;
    e->a = 1;
    break;
  case 2:
    if (x->process && !x->stopped) {
      x->stopped = true;
      e = after (100 + rnd (3000), SE_HEAL);
      e->site = (uint8_t) s;
      e->a = 2;
    }
    break;
  case 3:
  case 4:
    if (x->process) {
      copy_die (s, chance (50));
      e = after (50 + rnd (2500), SE_HEAL);
      e->site = (uint8_t) s;
      e->a = 3;
    }
    break;
  case 5:
    x->slow = chance (50) ? 2 : 1 + (unsigned) rnd (60);
    x->delay = (unsigned) rnd (20);
    break;
  case 6:
    if (chance (30))
      x->store_bad = x->process;
    else {
      struct repl_event ev = { .kind = RE_UNMIRROR, .site = (uint8_t) s,
                               .reason = "its host left" };
      x->hosted = false;
      feed (&ev);
      e = after (100 + rnd (1500), SE_HEAL);
      e->site = (uint8_t) s;
      e->a = 4;
    }
    break;
  case 7:
    w.site[w.prod_site].slow = 1 + (unsigned) rnd (chance (12) ? 2000 : 20);
    w.busy = 1 + (unsigned) rnd (60);
    break;
  }
}

static void
heal (const struct sev *e)
{
  struct site *x = &w.site[e->site];

  switch (e->a) {
  case 1:
    if (x->cut) {
      x->cut = false;
      link_down (e->site, "no PONG");
    }
    break;
  case 2:
    x->stopped = false;
    break;
  case 3:
    if (!x->process && e->site != w.prod_site)
      copy_start (e->site);
    break;
  case 4:
    if (!x->hosted && e->site != w.prod_site) {
      struct repl_event ev = { .kind = RE_MIRROR, .site = e->site, .sync = RS_PARTIAL };
      x->hosted = true;
      feed (&ev);
    }
    x->hosted = true;
    break;
  }
}

/* --- one seed ----------------------------------------------------------------------------------- */

static void
clear_world (void)
{
  free (w.mark_memory);
  for (unsigned i = 0; i < w.n_heap; i++)
    if (w.heap[i].kind == SE_COPYOP && w.heap[i].p) {
      free (((struct copyop *) w.heap[i].p)->data);
      free (w.heap[i].p);
    }
    else if (w.heap[i].kind == SE_COPYDIGEST)
      free_msg (w.heap[i].p);
    else
      free (w.heap[i].p);
  for (unsigned s = 0; s < SITES_MAX; s++) {
    fifo_clear (&w.site[s].fwd);
    fifo_clear (&w.site[s].back);
    free (w.site[s].stage);
    free (w.site[s].mark_memory);
    free (w.site[s].written_memory);
    for (unsigned i = 0; i < LINK_WINDOW_FRAMES; i++)
      free_msg (w.site[s].bufs[i]);
  }
}

static void
begin (uint64_t which)
{
  static uint8_t memory[SITES_MAX][4096];

  clear_world ();
  memset (&w, 0, sizeof w);
  seed = which;
  rnd_begin (which);
  broken = false;
  w.now = 1000;
  w.n_sites = 2 + (unsigned) rnd (3);
  w.busy = 1 + (unsigned) rnd (60);
  w.tenure = 1;
  w.generation = 1;
  w.in_set = 1;
  w.quorum = true;
  w.lease = w.now + 3000;
  w.chaos = true;
  w.no_quorum_ms = chance (25) ? 500 : 0;
  w.returns_errors = chance (15);
  w.track = !chance (10);
  w.keeps = seed % 2;
  w.ends = w.track && w.n_sites > 2 && seed % 6 == 5;
  w.region = chance (50) ? UNIT : 16 * UNIT;
  w.mark_memory = malloc (mark_memory_bytes (SIZE, BLOCK, w.region, 2 * HOT_MAX_SPAN, w.n_sites));
  for (unsigned s = 0; s < w.n_sites; s++) {
    w.site[s].mark_memory = malloc (mark_memory_bytes (SIZE, BLOCK, w.region, 2 * UNITS, w.n_sites));
    w.site[s].written_memory = malloc (bits_memory_bytes ((SIZE + BLOCK - 1) / BLOCK));
    w.site[s].written = w.track && (seed * 7 + s * 3) % 5 < 3;
    w.maps[s] = memory[s];
    w.site[s].slow = 1 + (unsigned) rnd (8);
    w.site[s].delay = (unsigned) rnd (8);
    w.site[s].hosted = true;
    w.site[s].super.tenure = 1;
    w.site[s].super.empty = w.site[s].super.unusable = s != 0;
    if (s != 0)
      copy_start (s);
  }
  prod_start (false);
  after (rnd (500), SE_CHAOS);
}

/* Everything is repaired; from here it has to come together. */
static void
repair_all (void)
{
  w.chaos = false;
  w.quiesce = true;
  w.quorum = true;
  for (unsigned s = 0; s < w.n_sites; s++) {
    struct site *x = &w.site[s];
    x->slow = 2;
    x->delay = 2;
    x->stopped = false;
    if (x->cut) {
      x->cut = false;
      link_down (s, "no PONG");
    }
    if (x->store_bad && x->process && s != w.prod_site)
      copy_die (s, false);
    x->store_bad = false;
    if (!x->hosted) {
      struct sev h = { .site = (uint8_t) s, .a = 4 };
      heal (&h);
    }
    if (!x->process && s != w.prod_site)
      copy_start (s);
  }
  if (w.holding) {
    struct repl_event ev = { .kind = RE_RESUME };
    w.holding = false;
    feed (&ev);
  }
  say ("all is repaired");
  ctl_propose ();
}

static void
stage_done (const struct sev *e)
{
  const bool prod = w.prod && e->site == w.prod_site;
  struct repl_event ev = { .kind = RE_MARKED };
  struct copy_event cev = { .kind = CE_DONE, .op = COPY_OP_MARK };
  if (e->life != (prod ? w.prod_life : w.site[e->site].life) || w.site[e->site].stage == NULL)
    return;
  if (!prod && w.site[e->site].stopped) {
    struct sev *again = after (50, SE_MARK);
    again->site = e->site;
    again->life = e->life;
    return;
  }
  end_stage (e->site, false, false);
  if (prod)
    feed (&ev);
  else
    copy_feed (e->site, &cev);
}

static void
copy_event (const struct sev *e)
{
  if (e->life != w.site[e->site].life)
    return;
  if (w.site[e->site].stopped) { /* the process does not see it */
    struct sev *again = after (50, SE_COPYOP);
    again->site = e->site;
    again->life = e->life;
    again->slot = e->slot;
    again->a = e->a;
    again->p = e->p;
    return;
  }
  if (e->slot == 0xffff) {
    struct copy_event ev = { .kind = CE_CLOSED, .conn = (uint32_t) e->a };
    copy_feed (e->site, &ev);
  }
  else if (e->p)
    copy_op_done (e->site, e->p, false);
}

static void
tick (const struct sev *e)
{
  struct repl_event ev = { .kind = RE_TICK };
  if (e->life != w.prod_life)
    return;
  after (REPL_TICK_MS, SE_TICK);
  if (w.quorum) {
    struct repl_event lease = { .kind = RE_LEASE };
    w.lease = w.now + 3000;
    lease.until_ms = w.lease;
    feed (&lease);
  }
  feed (&ev);
  try_connect ();
  ctl_propose ();
  check_waits ();
}

static void
record (const struct sev *e)
{
  struct repl_event ev = { .kind = RE_RECORD, .in_set = (uint32_t) e->a, .generation = e->b,
                           .seen = e->c };
  if (e->life == w.prod_life) {
    feed (&ev);
    for (unsigned s = 0; s < w.n_sites; s++)
      if (s != w.prod_site)
        push_record (s);
  }
}

static void
digest (const struct sev *e)
{
  uint8_t digests[VERIFY_BLOCKS * WIRE_DIGEST_LEN];
  struct repl_event ev = { .kind = RE_DIGEST, .site = (uint8_t) w.prod_site, .seq = e->a, .map = digests,
                           .length = (e->c + BLOCK - 1) / BLOCK };
  if (e->life != w.prod_life) {
    free (e->p);
    return;
  }
  if (!look (&w.site[w.prod_site].disk, e->p)) {
    struct sev *again = after (rnd (1 + w.site[w.prod_site].slow), SE_DIGEST);
    again->a = e->a;
    again->b = e->b;
    again->c = e->c;
    again->p = e->p;
    return;
  }
  digest_of (e->p, digests);
  feed (&ev);
}

static void
copy_digest (const struct sev *e)
{
  struct site *x = &w.site[e->site];
  struct msg *m = e->p;
  if (e->life != x->life || !x->process) {
    free_msg (m);
    return;
  }
  if (x->stopped) {
    struct sev *again = after (50, SE_COPYDIGEST);
    again->site = e->site;
    again->life = e->life;
    again->p = e->p;
    return;
  }
  if (!m->look)
    m->look = new_look (m->h.offset, m->h.length);
  if (!look (&x->disk, m->look)) {
    struct sev *again = after (rnd (1 + x->slow), SE_COPYDIGEST);
    again->site = e->site;
    again->life = e->life;
    again->p = e->p;
    return;
  }
  m->map = malloc (VERIFY_BLOCKS * WIRE_DIGEST_LEN);
  digest_of (m->look, m->map);
  m->look = NULL;
  m->back = 6;
  if (w.chaos && !w.r.verify.on && chance (5)) { /* it can't read that; a comparison would name it */
    free (m->map);
    m->map = NULL;
  }
  go_back (e->site, m);
}

static void
happen (struct sev *e)
{
  switch (e->kind) {
  case SE_LOCAL:
    if (e->life == w.prod_life)
      local_done (e);
    else
      free (e->p);
    break;
  case SE_RREAD:
    if (e->life == w.prod_life)
      resync_read (e);
    break;
  case SE_MARK:
    stage_done (e);
    break;
  case SE_FWD:
    deliver_fwd (e);
    break;
  case SE_BACK:
    deliver_back (e);
    break;
  case SE_DRAIN:
    drained (e);
    break;
  case SE_COPYOP:
    copy_event (e);
    break;
  case SE_TICK:
    tick (e);
    break;
  case SE_WAKE:
    if (e->life == w.prod_life) {
      struct repl_event ev = { .kind = RE_MORE };
      feed (&ev);
    }
    break;
  case SE_CLIENT:
    if (e->life == w.prod_life)
      client ();
    break;
  case SE_CTL:
    if (e->life == w.prod_life)
      ctl_handle (e);
    break;
  case SE_COMMIT:
    if (e->life == w.prod_life && w.change != CC_NONE)
      ctl_commit ();
    break;
  case SE_RECORD:
    record (e);
    break;
  case SE_DIGEST:
    digest (e);
    break;
  case SE_COPYDIGEST:
    copy_digest (e);
    break;
  case SE_CHAOS:
    chaos ();
    break;
  case SE_HEAL:
    heal (e);
    break;
  }
}

static void
run (uint64_t which, uint64_t chaos_ms)
{
  uint64_t deadline, next_check = 0;
  bool done = false;

  begin (which);
  deadline = w.now + chaos_ms;
  while (!broken && !done) {
    struct sev e;
    if (w.n_heap == 0) {
      violate ("nothing happens any more");
      break;
    }
    e = next_event ();
    w.now = e.at;
    if (w.chaos && w.now >= deadline) {
      repair_all ();
      deadline = w.now + 60000;
    }
    if (!w.chaos && w.now > deadline) {
      violate ("after a minute of health: set %x of %u sites", w.in_set, w.n_sites);
      break;
    }
    happen (&e);
    if (w.now >= next_check) {
      check_tracking ();
      check_disks ();
      next_check = w.now + 20 + rnd (60);
    }
    done = !w.chaos && last_comparisons ();
  }
  if (!broken) {
    check_tracking ();
    for (unsigned s = 0; s < w.n_sites; s++)
      if (memcmp (w.site[s].disk.cur, w.site[w.prod_site].disk.cur, sizeof w.site[s].disk.cur))
        violate ("in the end site %u differs from production", s);
  }
}

int
main (int argc, char **argv)
{
  uint64_t first = 1, count = 1000, ops = 0, entered = 0, lost = 0, takeovers = 0, power = 0;
  uint64_t partial = 0, blocks = 0, of = 0, graceful = 0, stages = 0, nothing = 0, unwritten = 0;
  uint64_t snapshots = 0, compared = 0, found = 0, repaired = 0, stopped = 0, equal = 0;
  unsigned bad = 0;
  int i = 1;

  if (i < argc && strcmp (argv[i], "-v") == 0) {
    verbose = true;
    i++;
  }
  if (i < argc)
    first = strtoull (argv[i++], NULL, 0);
  if (i < argc)
    count = strtoull (argv[i++], NULL, 0);
  else if (i > 1 && argc > 1 && first != 1)
    count = 1;
  for (uint64_t s = first; s < first + count; s++) {
    run (s, 4000 + (s % 7) * 3000);
    ops += w.answered_ops;
    snapshots += w.snapshots;
    entered += w.entered;
    lost += w.lost;
    takeovers += w.takeovers;
    power += w.powerlosses;
    partial += w.partial;
    blocks += w.partial_blocks;
    of += w.partial_of;
    graceful += w.graceful_ones;
    stages += w.mark.stages;
    nothing += w.nothing;
    unwritten += w.unwritten;
    compared += w.compared;
    found += w.found_total;
    repaired += w.repaired;
    stopped += w.stopped;
    equal += w.equal;
    if (broken) {
      printf ("# seed %llu at %llu ms: %s\n", (unsigned long long) s, (unsigned long long) w.now,
              broken_why);
      if (++bad >= 10)
        break;
    }
  }
  printf ("# %llu seeds: %llu requests answered, %llu entries, %llu losses, %llu takeovers, "
          "%llu power losses\n",
          (unsigned long long) count, (unsigned long long) ops, (unsigned long long) entered,
          (unsigned long long) lost, (unsigned long long) takeovers, (unsigned long long) power);
  printf ("# %llu switchovers; %llu copies came back behind, with %llu of %llu blocks to be copied; "
          "%llu stages of the last productions' maps\n",
          (unsigned long long) graceful, (unsigned long long) partial, (unsigned long long) blocks,
          (unsigned long long) of, (unsigned long long) stages);
  printf ("# zeroes where nothing was ever written: %llu requests, %llu blocks of a resync at the copy\n",
          (unsigned long long) nothing, (unsigned long long) unwritten);
  printf ("# %llu times a copy's content was kept before it was resynchronised\n", (unsigned long long) snapshots);
  printf ("# %llu blocks were found equal by a resync, and not sent\n", (unsigned long long) equal);
  printf ("# copies compared: %llu to their end, %llu not; %llu damaged blocks named, %llu copies repaired\n",
          (unsigned long long) compared, (unsigned long long) stopped, (unsigned long long) found,
          (unsigned long long) repaired);
  clear_world ();
  memset (&w, 0, sizeof w);
  is (bad, 0, "no seed breaks a rule");
  ok (count < 100 || (entered > count && lost > count && takeovers > count / 10 && snapshots > count / 2
                      && compared > 2 * count && stopped > count / 10 && found > count / 2 && repaired > count / 3
                      && equal > count && nothing > count / 10 && unwritten > count / 10),
      "and the seeds do what they are for");
  return tap_done ();
}
