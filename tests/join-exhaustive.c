/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Every join, death, cut and merge, at every step, up to a stated depth, in the small world of
 * sim/small.h: real group cores.  The scheduler delivers the oldest message first; when nothing is
 * under way any node may join, in any order; when nothing is awaited any more, any may die or return,
 * and any two sides may lose or find each other.  One of these at any other moment, or the delivery of
 * another message first, is a deviation.  All schedules with at most so many deviations, deaths and
 * cuts are run; a world that was seen before, by its hash, is not entered again.  What is under way
 * when a side is cut off may be lost to it, in each way of enum small_tail.
 *
 * join-exhaustive [SITES PER-SITE REPLICATES DEVIATIONS DEATHS CUTS LATE [ORDERED [MIB [SECONDS]]]]
 *
 * Deviations happen in the first LATE quanta of time after one of these.  ORDERED: 1: the nodes join
 * one after the other, at once, and all of them before anything else happens.  The table of worlds has
 * MIB (32), and the search ends, unfinished, when it is full or after SECONDS (no end).
 */
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/util.h"
#include "tests/sim/small.h"
#include "tests/tap.h"

enum move { DELIVER, JOIN, DIE, DIE_UNSENT, DIE_CRGD, CUT, MERGE, TIME, DRAIN };

static struct {
  unsigned deviations, deaths, cuts, late;
  bool ordered;
} depth;
static unsigned deviations, deaths, cuts; /* left */
static uint64_t *visited, table, n_visited, n_met, n_ends, end_ms, started_ms;
static bool unfinished;
static char trail[4096];
static unsigned n_trail;
static size_t group_len;

static uint64_t
now_ms (void)
{
  struct timespec ts;

  clock_gettime (CLOCK_PROCESS_CPUTIME_ID, &ts);
  return (uint64_t) ts.tv_sec * 1000 + (uint64_t) ts.tv_nsec / 1000000;
}

/* What was used before: fresh pages cost more than the step. */
static struct spare {
  struct spare *next;
} *spares;

static uint8_t *
get_spare (void)
{
  struct spare *s = spares;

  if (s != NULL)
    spares = s->next;
  else if ((s = malloc (group_len)) == NULL)
    abort ();
  return (uint8_t *) s;
}

static void
put_spare (uint8_t *p)
{
  struct spare *s = (struct spare *) (void *) p;

  s->next = spares;
  spares = s;
}

/* True: it is new. */
static bool
enter (uint64_t h)
{
  h ^= deviations * UINT64_C (0x9e3779b97f4a7c15) + deaths * UINT64_C (0xbf58476d1ce4e5b9)
       + cuts * UINT64_C (0x94d049bb133111eb);
  h += h == 0;
  n_met++;
  for (uint64_t i = h % table;; i = (i + 1) % table) {
    if (visited[i] == h)
      return false;
    if (visited[i] == 0) {
      if (n_visited >= table / 4 * 3 || (end_ms != 0 && n_met % 256 == 0 && now_ms () >= end_ms)) {
        unfinished = true;
        return false;
      }
      visited[i] = h;
      n_visited++;
      return true;
    }
  }
}

static void explore (void);

static void
do_move (enum move move, unsigned n, unsigned tails)
{
  switch (move) {
  case DELIVER: small_deliver (n); break;
  case JOIN: small_join (n); break;
  case DIE: small_die (n, false, false); break;
  case DIE_UNSENT: small_die (n, true, false); break;
  case DIE_CRGD: small_die (n, false, true); break;
  case CUT: small_cut (n, tails % TAIL_END, tails / TAIL_END); break;
  case MERGE: small_merge (); break;
  case TIME: small_time (); break;
  case DRAIN:
    for (int k = small_oldest (); k >= 0 && small_failure[0] == 0; k = small_oldest ())
      small_deliver ((unsigned) k);
    break;
  }
}

/* For people: which way led here. */
static void
note (enum move move, unsigned n, unsigned tails, bool deviates)
{
  char text[32];

  if (move == CUT)
    snprintf (text, sizeof text, "/%x.%x", n, tails);
  else if (move == TIME || move == MERGE)
    snprintf (text, sizeof text, "%c", "djxXc/mt"[move]);
  else
    snprintf (text, sizeof text, "%c%u", "djxXc/mt"[move], n + 1);
  if (n_trail + sizeof text + 2 < sizeof trail)
    n_trail += (unsigned) snprintf (trail + n_trail, sizeof trail - n_trail, "%s%s ", text, deviates ? "!" : "");
}

static void
try_move (enum move move, unsigned n, unsigned tails, bool deviates)
{
  const struct { unsigned deviations, deaths, cuts, n_trail; uint64_t facts; } was
    = { deviations, deaths, cuts, n_trail, small_facts () };
  const bool dies = move == DIE || move == DIE_UNSENT || move == DIE_CRGD;
  struct small *world = malloc (sizeof *world);
  uint8_t *group[SMALL_NODES] = { NULL }, *disk = NULL;

  if (world == NULL || unfinished || small_failure[0] != 0) {
    free (world);
    return;
  }
  *world = small;
  for (unsigned k = 0; k < small_nodes; k++)
    if ((small.up[k] && (move == TIME || move == DRAIN)) || ((move == DELIVER || move == JOIN) && k == n))
      small_save (k, group[k] = get_spare ());
  if (dies) {
    if ((disk = malloc (small_disk_len ())) == NULL)
      abort ();
    small_save_disk (n, disk);
  }
  if ((move != DELIVER && move != DRAIN) || deviates)
    note (move, n, tails, deviates);
  deviations -= deviates;
  deaths -= dies;
  cuts -= move == CUT;
  do_move (move, n, tails);
  if (small_failure[0] == 0)
    explore ();
  for (unsigned k = 0; k < small_nodes; k++)
    if (group[k] != NULL) {
      small_restore (k, group[k]);
      put_spare (group[k]);
    }
  if (disk != NULL)
    small_restore_disk (n, disk);
  small = *world;
  free (disk);
  free (world);
  if (small_failure[0] != 0)
    return; /* the trail leads to it */
  deviations = was.deviations;
  deaths = was.deaths;
  cuts = was.cuts;
  n_trail = was.n_trail;
  small_forget_facts (was.facts);
}

/* Each way in which two sides can lose each other. */
static void
try_cuts (bool deviates)
{
  const unsigned ways = small_has_tail () ? TAIL_END : 1;
  unsigned all = 0;

  for (unsigned n = 0; n < small_nodes; n++)
    if (small.up[n])
      all |= 1u << n;
  for (unsigned side = 1; side < all; side++) {
    /* The side of the last node is called the others. */
    if ((side & ~all) != 0 || (side | (all & -all)) == side)
      continue;
    for (unsigned a = 0; a < ways; a++)
      for (unsigned b = 0; b < ways; b++)
        try_move (CUT, side, a + b * TAIL_END, deviates);
  }
}

static void
explore (void)
{
  const int next = small_oldest ();
  const bool settled = next < 0 && small.quiet >= SMALL_SETTLED;
  bool free_join = next < 0 && small.quiet == 0, may_deviate = deviations > 0 && small.quiet <= depth.late;
  bool all_up = true, begun = true;

  if (small_failure[0] != 0 || !enter (small_hash ()))
    return;
  for (unsigned n = 0; n < small_nodes; n++) {
    all_up = all_up && small.up[n];
    begun = begun && small.joins_left[n] < 2;
  }
  if (depth.ordered && !begun) {
    unsigned n = 0;

    while (small.joins_left[n] < 2)
      n++;
    try_move (next >= 0 ? DRAIN : JOIN, n, 0, false);
    return;
  }
  if (settled) {
    n_ends += all_up && !small_is_cut ();
    small_check_settled ();
    if (small_failure[0] != 0)
      return;
  }
  for (unsigned n = 0; n < small_nodes; n++) {
    const bool free_now = small.joins_left[n] == 1 ? settled : free_join;

    if (!small.up[n] && small.joins_left[n] > 0 && (free_now || may_deviate))
      try_move (JOIN, n, 0, !free_now);
    if (small.up[n] && deaths > 0 && (settled || may_deviate)) {
      try_move (DIE, n, 0, !settled);
      if (small.plugin[n].role != HOST_NONE)
        try_move (DIE_CRGD, n, 0, !settled);
      if (next >= 0)
        try_move (DIE_UNSENT, n, 0, !settled);
    }
    if (may_deviate && next >= 0 && (int) n != next && small.last[n] > 0)
      try_move (DELIVER, n, 0, true);
  }
  if (small_is_cut () && (settled || may_deviate))
    try_move (MERGE, 0, 0, !settled);
  else if (cuts > 0 && (settled || may_deviate))
    try_cuts (!settled);
  /* Nothing can happen on the way to quiet: it is one move. */
  if (next >= 0)
    try_move (may_deviate ? DELIVER : DRAIN, (unsigned) next, 0, false);
  else if (small.quiet < SMALL_SETTLED)
    try_move (TIME, 0, 0, false);
}

static void
run (unsigned sites, unsigned per_site, unsigned replicates, unsigned seconds, uint64_t at_least)
{
  double s;

  small_init (sites, per_site, replicates);
  group_len = small_save_len ();
  memset (visited, 0, table * sizeof *visited);
  n_visited = n_met = n_ends = 0;
  n_trail = 0;
  unfinished = false;
  deviations = depth.deviations;
  deaths = depth.deaths;
  cuts = depth.cuts;
  started_ms = now_ms ();
  end_ms = seconds == 0 ? 0 : started_ms + seconds * 1000ull;
  explore ();
  s = (double) (now_ms () - started_ms + 1) / 1000;
  ok (small_failure[0] == 0, "%u sites of %u nodes and %u: %u deviations, %u deaths, %u cuts, late %u: %" PRIu64
      " worlds met, %" PRIu64 " distinct, %" PRIu64 " deliveries, %" PRIu64 " ends, %.1f s, %.0f worlds/s%s%s%s",
      sites, per_site, replicates, depth.deviations, depth.deaths, depth.cuts, depth.late, n_met, n_visited,
      small_steps, n_ends, s, (double) n_met / s, unfinished ? ", UNFINISHED" : "",
      small_failure[0] ? ": " : "", small_failure);
  if (small_failure[0] != 0)
    /* Delivered first, join, die (X: with what it sent, c: crgd alone), cut side.tails, merge, time;
     * a deviation has a !. */
    printf ("# after: %.*s\n", (int) n_trail, trail);
  ok (n_ends >= at_least, "... and all its ends were reached");
  small_end ();
  while (spares != NULL) {
    struct spare *next = spares->next;

    free (spares);
    spares = next;
  }
}

static void
deep (unsigned n_deviations, unsigned n_deaths, unsigned n_cuts, unsigned late, bool ordered)
{
  depth.deviations = n_deviations;
  depth.deaths = n_deaths;
  depth.cuts = n_cuts;
  depth.late = late;
  depth.ordered = ordered;
}

int
main (int argc, char **argv)
{
  unsigned v[10] = { [8] = 32 };

  for (int i = 1; i < argc && i <= 10; i++)
    v[i - 1] = (unsigned) strtoul (argv[i], NULL, 10);
  table = (uint64_t) v[8] << 17;
  visited = calloc (table, sizeof *visited);
  if (visited == NULL || (argc > 1 && argc < 8))
    return 1;
  if (argc > 1) {
    deep (v[3], v[4], v[5], v[6], v[7] != 0);
    run (v[0], v[1], v[2], v[9], 1);
  } else {
    deep (1, 1, 0, SMALL_SETTLED, false);
    run (2, 1, 0, 0, 2);
    deep (0, 1, 0, 0, false);
    run (2, 2, 0, 0, 24);
    deep (1, 0, 0, 0, false);
    run (2, 2, 0, 0, 4); /* who came first is forgotten until there is a majority */
    deep (1, 0, 1, SMALL_SETTLED, true);
    run (2, 1, 1, 0, 4);
    deep (0, 1, 1, 0, true);
    run (2, 2, 1, 0, 100);
    deep (0, 1, 0, 0, true);
    run (3, 2, 0, 0, 10);
  }
  free (visited);
  return tap_done ();
}
