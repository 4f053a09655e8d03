/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Every join, death, cut, merge, silence and request, at every step, up to a stated depth, in the small
 * world of sim/small.h: real group cores.  The scheduler delivers the oldest message first; when nothing is
 * under way any node may join, in any order; when nothing is awaited any more, any may die or return, any
 * two sides may lose or find each other, any node may fall silent (stopped, or cut off in one direction),
 * and an operator may ask any node for anything.  One of these at any other moment, or the delivery of
 * another message first, is a deviation.  All schedules with at most so many of each are run; a world that
 * was seen before, by its hash, is not entered again.  What is under way when a side is cut off may be lost
 * to it, in each way of enum small_tail.
 *
 * join-exhaustive [SITES PER-SITE REPLICATES [WORD=N...]]
 *
 * Words: deviations, deaths, cuts, silences, requests: so many at most.  late: deviations happen in the
 * first so many quanta of time after one of these.  ordered=1: the nodes join one after the other, at once,
 * and all of them before anything else happens.  The table of worlds has mib (32), and the search ends,
 * unfinished, when it is full or after seconds (no end).  Who is silent is heard again after SMALL_SETTLED
 * quanta, or, if it is not deaf, after SMALL_SILENCE, when the others have expelled it; else it is a deviation.
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

enum move { DELIVER, JOIN, DIE, DIE_UNSENT, DIE_CRGD, CUT, MERGE, TIME, DRAIN, SILENCE, HEARD, REQUEST, RECOVER };

static struct depth {
  unsigned deviations, deaths, cuts, silences, requests, late, ordered, mib, seconds;
} depth, left; /* all, and what is left of the first five */
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
  h ^= left.deviations * UINT64_C (0x9e3779b97f4a7c15) + left.deaths * UINT64_C (0xbf58476d1ce4e5b9)
       + left.cuts * UINT64_C (0x94d049bb133111eb) + left.silences * UINT64_C (0xd6e8feb86659fd93)
       + left.requests * UINT64_C (0xa0761d6478bd642f);
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

/* What operators ask for, of a node if it is about one. */
static const uint8_t asked[] = { GR_START, GR_END, GR_SWITCHOVER, GR_MARK_FAILED };

static void
do_move (enum move move, unsigned n, unsigned what)
{
  switch (move) {
  case DELIVER: small_deliver (n); break;
  case JOIN: small_join (n); break;
  case DIE: small_die (n, false, false); break;
  case DIE_UNSENT: small_die (n, true, false); break;
  case DIE_CRGD: small_die (n, false, true); break;
  case CUT: small_cut (n, what % TAIL_END, what / TAIL_END); break;
  case MERGE: small_merge (); break;
  case TIME: small_time (); break;
  case SILENCE: small_silence (n, what); break;
  case HEARD: small_heard_again (n); break;
  case REQUEST: small_request (n, asked[what / 16], what % 16); break;
  case RECOVER: small_recover (n); break;
  case DRAIN:
    for (int k = small_oldest (); k >= 0 && small_failure[0] == 0; k = small_oldest ())
      small_deliver ((unsigned) k);
    break;
  }
}

/* For people: which way led here. */
static void
note (enum move move, unsigned n, unsigned what, bool deviates)
{
  static const char letters[] = "djxXc/mtDshoR";
  char text[32];

  if (move == CUT)
    snprintf (text, sizeof text, "/%x.%x", n, what);
  else if (move == TIME || move == MERGE)
    snprintf (text, sizeof text, "%c", letters[move]);
  else if (move == SILENCE)
    snprintf (text, sizeof text, "s%u.%u", n + 1, what);
  else if (move == REQUEST)
    snprintf (text, sizeof text, "o%u.%u.%u", n + 1, asked[what / 16], what % 16);
  else
    snprintf (text, sizeof text, "%c%u", letters[move], n + 1);
  if (n_trail + sizeof text + 2 < sizeof trail)
    n_trail += (unsigned) snprintf (trail + n_trail, sizeof trail - n_trail, "%s%s ", text, deviates ? "!" : "");
}

/* Does the move change the core of node k? */
static bool
changes (enum move move, unsigned n, unsigned k)
{
  switch (move) {
  case TIME:
  case DRAIN: return small.up[k];
  case DELIVER:
  case JOIN:
  case HEARD:
  case REQUEST:
  case RECOVER: return k == n;
  default: return false;
  }
}

static void
try_move (enum move move, unsigned n, unsigned what, bool deviates)
{
  const struct { struct depth left; unsigned n_trail; uint64_t facts; } was = { left, n_trail, small_facts () };
  const bool dies = move == DIE || move == DIE_UNSENT || move == DIE_CRGD;
  struct small *world = malloc (sizeof *world);
  uint8_t *group[SMALL_NODES] = { NULL }, *disk = NULL;

  if (world == NULL || unfinished || small_failure[0] != 0) {
    free (world);
    return;
  }
  *world = small;
  for (unsigned k = 0; k < small_nodes; k++)
    if (changes (move, n, k))
      small_save (k, group[k] = get_spare ());
  /* Who joins may leave again by itself and come back, which writes to its disk. */
  if (dies || move == JOIN || move == RECOVER) {
    if ((disk = malloc (small_disk_len ())) == NULL)
      abort ();
    small_save_disk (n, disk);
  }
  if ((move != DELIVER && move != DRAIN) || deviates)
    note (move, n, what, deviates);
  left.deviations -= deviates;
  left.deaths -= dies;
  left.cuts -= move == CUT;
  left.silences -= move == SILENCE;
  left.requests -= move == REQUEST || move == RECOVER;
  do_move (move, n, what);
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
  left = was.left;
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

/* Who may fall silent; and who is, and when that ends. */
static void
try_silence (bool settled, bool may_deviate)
{
  for (unsigned n = 0; n < small_nodes; n++) {
    if (!small.up[n])
      continue;
    if (small.silent[n] != SILENT_NOT) {
      const bool now = settled || (small.quiet == SMALL_SETTLED && small_oldest () < 0);

      if (now || may_deviate)
        try_move (HEARD, n, 0, !now);
    } else if (left.silences > 0 && !small_is_silent () && (settled || may_deviate))
      for (unsigned kind = SILENT_PAUSED; kind < SILENT_END; kind++)
        if (kind != SILENT_FROZEN || small.plugin[n].role != HOST_NONE)
          try_move (SILENCE, n, kind, !settled);
  }
}

/* What an operator may ask: at each node; to start what is ended and to end what is started, to switch over
 * to anybody else, and to mark failed who is dead, with all that it had. */
static void
try_requests (bool settled)
{
  for (unsigned n = 0; n < small_nodes; n++)
    if (small_can_recover (n))
      try_move (RECOVER, n, 0, !settled);
  for (unsigned n = 0; n < small_nodes; n++) {
    const struct crg_state *c = small.up[n] ? group_committed (small_group[n]) : NULL;

    if (c == NULL || !(small.silent[n] == SILENT_NOT || small.silent[n] == SILENT_MUTE))
      continue;
    try_move (REQUEST, n, c->started ? 1 * 16 : 0, !settled);
    for (unsigned k = 0; k < small_nodes && c->started; k++)
      if (small.up[k] && c->def.nodes[k].site != NO_SITE && state_production_host (c) != k + 1)
        try_move (REQUEST, n, 2 * 16 + k + 1, !settled);
      else if (!small.up[k] && small.plugin[k].role == HOST_NONE)
        try_move (REQUEST, n, 3 * 16 + k + 1, !settled);
  }
}

static void
explore (void)
{
  const int next = small_oldest ();
  const unsigned quiet = small_is_silent () ? SMALL_SILENCE : SMALL_SETTLED;
  const bool settled = next < 0 && small.quiet >= quiet;
  bool free_join = next < 0 && small.quiet == 0, may_deviate = left.deviations > 0 && small.quiet <= depth.late;
  bool all_up = true, begun = true, deaf = false;

  if (small_failure[0] != 0 || !enter (small_hash ()))
    return;
  for (unsigned n = 0; n < small_nodes; n++) {
    all_up = all_up && small.up[n];
    begun = begun && small.joins_left[n] < 2;
    deaf = deaf || small.silent[n] == SILENT_DEAF;
  }
  if (depth.ordered && !begun) {
    unsigned n = 0;

    while (small.joins_left[n] < 2)
      n++;
    try_move (next >= 0 ? DRAIN : JOIN, n, 0, false);
    return;
  }
  /* What it does not read, or can not send, has a bound. */
  for (unsigned n = 0; n < small_nodes; n++)
    if (small.silent[n] != SILENT_NOT
        && (small.last[n] > SMALL_INBOX / 4 * 3 || small.n_out[n] > SMALL_OUTBOX / 4 * 3)) {
      try_move (HEARD, n, 0, false);
      return;
    }
  if (settled) {
    n_ends += all_up && !small_is_cut () && !small_is_silent ();
    small_check_settled ();
    if (small_failure[0] != 0)
      return;
  }
  for (unsigned n = 0; n < small_nodes; n++) {
    const bool free_now = small.joins_left[n] == 1 ? settled : free_join;

    if (!small.up[n] && small.joins_left[n] > 0 && (free_now || may_deviate))
      try_move (JOIN, n, 0, !free_now);
    if (small.up[n] && left.deaths > 0 && (settled || may_deviate)) {
      try_move (DIE, n, 0, !settled);
      if (small.plugin[n].role != HOST_NONE)
        try_move (DIE_CRGD, n, 0, !settled);
      if (next >= 0)
        try_move (DIE_UNSENT, n, 0, !settled);
    }
    if (may_deviate && next >= 0 && (int) n != next && small.last[n] > 0 && small_can_hear (n))
      try_move (DELIVER, n, 0, true);
  }
  if (small_is_cut () && (settled || may_deviate))
    try_move (MERGE, 0, 0, !settled);
  else if (left.cuts > 0 && (settled || may_deviate))
    try_cuts (!settled);
  try_silence (settled, may_deviate);
  if (left.requests > 0 && (settled || may_deviate))
    try_requests (settled);
  /* Nothing can happen on the way to quiet: it is one move. */
  if (next >= 0)
    try_move (may_deviate ? DELIVER : DRAIN, (unsigned) next, 0, false);
  else if (small.quiet < (deaf ? SMALL_SETTLED : quiet))
    try_move (TIME, 0, 0, false);
}

static void
run (unsigned sites, unsigned per_site, unsigned replicates, uint64_t at_least)
{
  double s;

  table = (uint64_t) depth.mib << 17;
  if ((visited = calloc (table, sizeof *visited)) == NULL)
    abort ();
  small_init (sites, per_site, replicates);
  group_len = small_save_len ();
  n_visited = n_met = n_ends = 0;
  n_trail = 0;
  unfinished = false;
  left = depth;
  started_ms = now_ms ();
  end_ms = depth.seconds == 0 ? 0 : started_ms + depth.seconds * 1000ull;
  explore ();
  s = (double) (now_ms () - started_ms + 1) / 1000;
  ok (small_failure[0] == 0, "%u sites of %u nodes and %u: %u deviations, %u deaths, %u cuts, %u silences, %u requests, "
      "late %u: %" PRIu64 " worlds met, %" PRIu64 " distinct, %" PRIu64 " deliveries, %" PRIu64
      " ends, %.1f s, %.0f worlds/s%s%s%s", sites, per_site, replicates, depth.deviations, depth.deaths, depth.cuts,
      depth.silences, depth.requests, depth.late, n_met, n_visited, small_steps, n_ends, s, (double) n_met / s,
      unfinished ? ", UNFINISHED" : "", small_failure[0] ? ": " : "", small_failure);
  if (small_failure[0] != 0)
    /* Delivered first, join, die (X: with what it sent, c: crgd alone), cut side.tails, merge, silence
     * node.kind, heard again, operator's request node.what.of, Recovery, time; a deviation has a !. */
    printf ("# after: %.*s\n", (int) n_trail, trail);
  ok (n_ends >= at_least, "... and all its ends were reached");
  small_end ();
  free (visited);
  while (spares != NULL) {
    struct spare *next = spares->next;

    free (spares);
    spares = next;
  }
}

/* "cuts=1" */
static bool
read_word (const char *text)
{
  static const struct {
    const char *name;
    unsigned *value;
  } words[] = {
    { "deviations", &depth.deviations }, { "deaths", &depth.deaths }, { "cuts", &depth.cuts },
    { "silences", &depth.silences }, { "requests", &depth.requests }, { "late", &depth.late },
    { "ordered", &depth.ordered }, { "mib", &depth.mib }, { "seconds", &depth.seconds },
  };

  for (unsigned i = 0; i < ARRAY_SIZE (words); i++) {
    const size_t len = strlen (words[i].name);

    if (strncmp (text, words[i].name, len) == 0 && text[len] == '=') {
      *words[i].value = (unsigned) strtoul (text + len + 1, NULL, 10);
      return true;
    }
  }
  fprintf (stderr, "join-exhaustive: %s: no such word\n", text);
  return false;
}

#define SHALLOW(...) (depth = (struct depth) { .mib = 32, __VA_ARGS__ })

int
main (int argc, char **argv)
{
  SHALLOW (0);
  for (int i = 4; i < argc; i++)
    if (!read_word (argv[i]))
      return 1;
  if (argc > 3) {
    run ((unsigned) atoi (argv[1]), (unsigned) atoi (argv[2]), (unsigned) atoi (argv[3]), 1);
    return tap_done ();
  }
  if (argc > 1)
    return 1;
  SHALLOW (.deviations = 1, .deaths = 1, .late = SMALL_SETTLED);
  run (2, 1, 0, 2);
  SHALLOW (.deaths = 1);
  run (2, 2, 0, 24);
  SHALLOW (.deviations = 1);
  run (2, 2, 0, 4); /* who came first is forgotten until there is a majority */
  SHALLOW (.deviations = 1, .cuts = 1, .late = SMALL_SETTLED, .ordered = 1);
  run (2, 1, 1, 4);
  SHALLOW (.deaths = 1, .cuts = 1, .ordered = 1);
  run (2, 2, 1, 100);
  SHALLOW (.deaths = 1, .ordered = 1);
  run (3, 2, 0, 10);
  SHALLOW (.silences = 1, .requests = 1, .ordered = 1);
  run (2, 1, 1, 100);
  SHALLOW (.deviations = 1, .requests = 1, .late = SMALL_SETTLED, .ordered = 1);
  run (2, 1, 1, 100);
  return tap_done ();
}
