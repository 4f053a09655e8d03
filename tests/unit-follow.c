/* SPDX-License-Identifier: BSD-3-Clause */
/* The core of a following client: each rule by itself, and then a small world at random, with a
 * disk that forgets what was not flushed, productions that change, and connections that break at
 * any moment.  SEED=N repeats one world. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "plugin/follow.h"
#include "tests/tap.h"

#define ESHUT 108

static struct follow_kept kept[64];

static struct follow_offer
offer (uint64_t tenure, uint64_t loss, uint64_t run)
{
  return (struct follow_offer){ .tenure = tenure, .loss = loss, .run = run, .size = 4096, .flags = 0x3f };
}

/* C9: under lineage 'id', recovered from 'past' (0: unknown, or none). */
static struct follow_offer
under (struct follow_offer o, uint8_t id, uint8_t past)
{
  o.lineage.id[0] = id;
  o.lineage.past[CRG_ID_LEN - 1] = past;
  if (past)
    o.lineage.past[0] = past;
  if (id)
    o.lineage.id[CRG_ID_LEN - 1] = id;
  return o;
}

static void
lineages (void)
{
  struct follow_offer o = under (offer (7, 3, 1), 5, 0), p;
  struct follow f;

  follow_init (&f, kept, 4, 100);
  is (follow_judge (&f, &o, NULL), FOLLOW_USE, "C9: any lineage will do at first");
  follow_begin (&f, &o);
  p = under (o, 6, 5);
  is (follow_judge (&f, &p, &o), FOLLOW_OTHER, "Y2: not beside it: another lineage");
  p = under (offer (8, 4, 2), 6, 5);
  is (follow_judge (&f, &p, NULL), FOLLOW_LOST, "Y6: recovered: one more loss and tenure say nothing");
  p = under (offer (8, 3, 2), 6, 5);
  is (follow_judge (&f, &p, NULL), FOLLOW_LOST, "Y6: ... nor does the same loss");
  p = under (offer (4, 1, 2), 6, 5);
  is (follow_judge (&f, &p, NULL), FOLLOW_LOST, "Y6: ... and an older tenure isn't waited over");
  p.size *= 2;
  is (follow_judge (&f, &p, NULL), FOLLOW_LOST, "Y6: ... nor another size");
  p = under (offer (8, 3, 2), 9, 8);
  is (follow_judge (&f, &p, NULL), FOLLOW_LOST, "Y6: recovered more than once");
  p = under (offer (8, 3, 2), 0, 0);
  is (follow_judge (&f, &p, NULL), FOLLOW_USE, "a release that doesn't say its lineage is not compared");
  follow_begin (&f, &p);
  p = under (offer (8, 3, 3), 6, 5);
  is (follow_judge (&f, &p, NULL), FOLLOW_LOST, "... nor does it make one forget it");
  p = under (offer (8, 3, 3), 5, 0);
  is (follow_judge (&f, &p, NULL), FOLLOW_USE, "the same lineage again");
  is (follow_judge_lineage (&f, p.lineage.id), FOLLOW_USE, "... as an answer tells it");

  follow_init (&f, kept, 4, 100);
  p = under (offer (4, 1, 2), 6, 5);
  is (follow_judge_lineage (&f, p.lineage.id), FOLLOW_USE, "one that knows none takes any");
  follow_begin (&f, &p);
  p = under (offer (9, 1, 3), 5, 0);
  is (follow_judge (&f, &p, NULL), FOLLOW_OLD, "Y1: never the lineage before, whatever its tenure");
  is (follow_judge_lineage (&f, p.lineage.id), FOLLOW_OLD, "Y1: ... nor is it looked for");
  p = under (offer (9, 1, 3), 5, 0);
  p.lineage.id[CRG_ID_LEN - 1]++;
  is (follow_judge (&f, &p, NULL), FOLLOW_LOST, "Y1: an id is all of its bytes");
  p = under (offer (4, 1, 2), 6, 5);
  follow_init (&f, kept, 4, 100);
  follow_resume (&f, &p);
  p = under (offer (9, 1, 3), 5, 0);
  is (follow_judge (&f, &p, NULL), FOLLOW_OLD, "Y1, Y3: what is on record counts, with the lineage before");
  p = under (offer (9, 2, 3), 7, 6);
  is (follow_judge (&f, &p, NULL), FOLLOW_LOST, "Y6, Y3: ... and the next one is a loss");
  p = offer (4, 1, 2);
  follow_init (&f, kept, 4, 100);
  follow_resume (&f, &p);
  p = under (offer (4, 1, 3), 7, 6);
  is (follow_judge (&f, &p, NULL), FOLLOW_USE, "Y3: the record of a release that knew none");
  follow_begin (&f, &p);
  p = under (offer (4, 1, 3), 8, 7);
  is (follow_judge (&f, &p, NULL), FOLLOW_LOST, "... until one is said");
}

static void
rules (void)
{
  struct follow f;
  struct follow_offer o = offer (5, 1, 7), p;
  uint64_t s, mark;
  uint32_t at;

  follow_init (&f, kept, 4, 100);
  is (follow_judge (&f, &o, NULL), FOLLOW_USE, "any export will do at first");
  s = follow_begin (&f, &o);
  p = offer (4, 1, 8);
  is (follow_judge (&f, &p, NULL), FOLLOW_OLD, "Y1: never an older tenure");
  p = offer (6, 0, 8);
  is (follow_judge (&f, &p, NULL), FOLLOW_OLD, "Y1: ... nor one that has seen fewer losses");
  p = offer (5, 1, 8);
  is (follow_judge (&f, &p, NULL), FOLLOW_USE, "the same tenure in another run");
  is (follow_judge (&f, &p, &o), FOLLOW_OTHER, "Y2: but not beside the first");
  p = o;
  is (follow_judge (&f, &p, &o), FOLLOW_USE, "Y2: the same run is");
#define DIFFERS(change, text)                                                \
  do {                                                                       \
    p = o;                                                                   \
    change;                                                                  \
    is (follow_judge (&f, &p, &o), FOLLOW_OTHER, "Y2: not beside it: " text); \
  } while (0)
  DIFFERS (p.tenure++, "another tenure");
  DIFFERS (p.loss++, "another loss");
  DIFFERS (p.forced = true, "forced");
  DIFFERS (p.size *= 2, "another size");
  DIFFERS (p.flags |= FOLLOW_CAN_CACHE, "it can more");
  p = o;
  p.size = 0;
  is (follow_judge (&f, &p, NULL), FOLLOW_UNLIKE, "Y7: nothing in it");
  for (unsigned i = 0; i <= FOLLOW_LOST; i++)
    for (unsigned k = 0; k < i; k++)
      check (strcmp (follow_verdict_text ((enum follow_verdict) i), follow_verdict_text ((enum follow_verdict) k)) != 0,
             "verdicts %u and %u are told apart", i, k);
  is_str (follow_verdict_text ((enum follow_verdict) 77), "?", "an unknown verdict is shown as such");
  p = offer (6, 1, 8);
  p.size = 8192;
  is (follow_judge (&f, &p, NULL), FOLLOW_UNLIKE, "Y7: another size");
  p = offer (6, 1, 8);
  p.flags = 0x1f;
  is (follow_judge (&f, &p, NULL), FOLLOW_UNLIKE, "Y7: it can less");
  p.flags = 0x7f;
  is (follow_judge (&f, &p, NULL), FOLLOW_USE, "Y7: more is good");

  is (follow_judge_answer (&f, s, 0, false), FOLLOW_ANSWER, "Y4: an answer");
  is (follow_judge_answer (&f, s, 5, false), FOLLOW_ANSWER, "Y4: an error is one, too");
  is (follow_judge_answer (&f, s, ESHUT, false), FOLLOW_SEND_AGAIN, "Y4: ESHUTDOWN is none");
  is (follow_judge_answer (&f, s, 0, true), FOLLOW_SEND_AGAIN, "Y4: a broken connection gives none");
  follow_end (&f);
  is (follow_judge_answer (&f, s, 0, false), FOLLOW_SEND_AGAIN, "Y4: it is of a session that is over");
  s = follow_begin (&f, &o);
  is (follow_judge_answer (&f, s - 1, 0, false), FOLLOW_SEND_AGAIN, "Y4: ... also when there is a new one");

  p = offer (6, 2, 9);
  is (follow_judge (&f, &p, NULL), FOLLOW_USE, "Y6: a loss when nothing was unflushed");
  p.forced = true;
  is (follow_judge (&f, &p, NULL), FOLLOW_LOST, "Y6: ... but a forced one takes flushed writes");
  ok (follow_wrote (&f, FOLLOW_WRITE, 0, 40, false, &at) && at == 0, "a write is kept");
  mark = follow_flush_begins (&f);
  ok (follow_wrote (&f, FOLLOW_WRITE, 64, 40, false, &at) && at == 40, "... and another");
  ok (!follow_wrote (&f, FOLLOW_ZERO, 0, 4000000000u, true, &at), "a zero needs no bytes");
  is (f.n, 3, "three are kept");
  p = offer (6, 2, 9);
  is (follow_judge (&f, &p, NULL), FOLLOW_REWRITE, "Y6: they are to be written again");
  p = offer (5, 2, 9);
  is (follow_judge (&f, &p, NULL), FOLLOW_REWRITE, "Y6: also if only loss has risen");
  p = offer (7, 2, 9);
  is (follow_judge (&f, &p, NULL), FOLLOW_LOST, "Y6: the loss may be of a tenure that was not seen");
  p = offer (6, 3, 9);
  is (follow_judge (&f, &p, NULL), FOLLOW_LOST, "Y6: more than one loss");
  p = offer (9, 1, 9);
  is (follow_judge (&f, &p, NULL), FOLLOW_USE, "Y5: tenures alone take nothing");
  follow_flushed (&f, mark);
  ok (f.n == 2 && follow_kept (&f, 0)->offset == 64 && follow_kept (&f, 1)->op == FOLLOW_ZERO
      && follow_kept (&f, 1)->no_hole && follow_kept (&f, 2) == NULL, "Y5: a flush covers what was answered before it");
  ok (follow_wrote (&f, FOLLOW_WRITE, 128, 30, false, &at) && at == 0, "freed bytes are used again, in one piece");
  ok (!follow_wrote (&f, FOLLOW_WRITE, 128, 30, false, &at) && f.n == 0, "no room: all are forgotten");
  p = offer (6, 2, 9);
  is (follow_judge (&f, &p, NULL), FOLLOW_LOST, "Y6: and a loss is one");
  mark = follow_flush_begins (&f);
  ok (!follow_wrote (&f, FOLLOW_WRITE, 0, 1, false, &at), "nothing is kept until a flush");
  follow_flushed (&f, mark);
  is (follow_judge (&f, &p, NULL), FOLLOW_LOST, "... that covers them all");
  follow_flushed (&f, follow_flush_begins (&f));
  is (follow_judge (&f, &p, NULL), FOLLOW_USE, "then nothing can be lost");
  ok (follow_wrote (&f, FOLLOW_WRITE, 0, 1, false, &at), "and writes are kept again");
  ok (!follow_wrote (&f, FOLLOW_WRITE, 0, 101, false, &at), "one that can never fit");

  follow_init (&f, kept, 4, 0);
  follow_begin (&f, &o);
  ok (!follow_wrote (&f, FOLLOW_ZERO, 0, 1, false, &at) && follow_has_unflushed (&f), "nothing is to be kept");
  p = offer (6, 2, 9);
  is (follow_judge (&f, &p, NULL), FOLLOW_LOST, "Y6: then each loss counts");

  follow_init (&f, kept, 4, 100);
  p = offer (5, 1, 3);
  follow_resume (&f, &p);
  p = offer (4, 1, 9);
  is (follow_judge (&f, &p, NULL), FOLLOW_OLD, "Y1, Y3: what is on record counts");
  p = offer (6, 2, 9);
  is (follow_judge (&f, &p, NULL), FOLLOW_LOST, "Y6: writes of the process before are not here");
  p = offer (6, 1, 9);
  is (follow_judge (&f, &p, NULL), FOLLOW_USE, "without a loss they are safe");
  follow_begin (&f, &p);
  follow_flushed (&f, follow_flush_begins (&f));
  p = offer (6, 2, 9);
  is (follow_judge (&f, &p, NULL), FOLLOW_USE, "after a flush they are, too");
}

/* ---- a world at random --------------------------------------------------------------------- */

#define BLOCKS   6
#define REQUESTS 5
#define BUFFER   24 /* bytes: four writes of 6, or so */

struct request {
  bool used, flush;
  unsigned block;
  uint32_t value;
  uint64_t session; /* sent in; 0: not sent */
  bool done;        /* the host has carried it out */
  uint64_t covers;
  uint64_t answered_before[BLOCKS]; /* FLUSH: what the application knew when it asked */
};

static struct {
  struct follow f;
  uint32_t buffer[BUFFER];
  /* the host */
  uint32_t seen[BLOCKS], durable[BLOCKS], very_old[BLOCKS];
  struct follow_offer now, before, then; /* then: when very_old was written */
  uint64_t session; /* that is up, or 0 */
  /* the application */
  uint32_t told[BLOCKS]; /* the last write that was answered */
  uint32_t counter;
  struct request r[REQUESTS];
  unsigned uses, rewrites, losses, olds, flushes;
} w;

static uint64_t rng;
static unsigned
dice (unsigned n)
{
  rng ^= rng << 13;
  rng ^= rng >> 7;
  rng ^= rng << 17;
  return (unsigned) (rng >> 11) % n;
}

static bool
is_busy (unsigned block)
{
  for (unsigned i = 0; i < REQUESTS; i++)
    if (w.r[i].used && !w.r[i].flush && w.r[i].block == block)
      return true;
  return false;
}

static void
ask (void)
{
  struct request *r = &w.r[dice (REQUESTS)];

  if (r->used)
    return;
  memset (r, 0, sizeof *r);
  r->flush = dice (4) == 0;
  r->block = dice (BLOCKS);
  if (!r->flush && is_busy (r->block))
    return;
  r->used = true;
  r->value = ++w.counter;
  for (unsigned b = 0; r->flush && b < BLOCKS; b++)
    r->answered_before[b] = w.told[b];
}

static void
carry_out (struct request *r)
{
  if (r->flush)
    memcpy (w.durable, w.seen, sizeof w.seen);
  else
    w.seen[r->block] = r->value;
  r->done = true;
}

/* Answers; what the world has to keep is checked here.  False: a fault. */
static bool
answer (struct request *r)
{
  uint32_t at;

  if (follow_judge_answer (&w.f, r->session, 0, false) == FOLLOW_SEND_AGAIN) {
    r->session = 0;
    r->done = false;
    return true;
  }
  r->used = false;
  if (!r->flush) {
    if (follow_wrote (&w.f, FOLLOW_WRITE, r->block, 1 + dice (6), false, &at))
      w.buffer[at] = r->value;
    w.told[r->block] = r->value;
    return true;
  }
  w.flushes++;
  follow_flushed (&w.f, r->covers);
  for (unsigned b = 0; b < BLOCKS; b++)
    if (w.durable[b] < r->answered_before[b]) /* values rise; a later one in its place is good */
      return false;
  return true;
}

static void
lose_connection (void)
{
  if (w.session == 0)
    return;
  follow_end (&w.f);
  w.session = 0;
  for (unsigned i = 0; i < REQUESTS; i++) {
    struct request *r = &w.r[i];

    if (!r->used || r->session == 0)
      continue;
    /* It may still have come through; after the next session begins it can't (X2). */
    if (!r->done && dice (2))
      carry_out (r);
    r->session = 0;
    r->done = false;
  }
}

static void
change_production (void)
{
  unsigned kind = dice (12);

  lose_connection ();
  w.before = w.now;
  w.now.run++;
  if (kind < 8) {
    w.now.tenure++;
    w.now.forced = false;
  }
  if (kind == 7 || kind == 8) { /* S2 b: with a new host, or the same one */
    memcpy (w.seen, w.durable, sizeof w.seen);
    w.now.loss++;
  }
  if (kind == 9 && dice (4) == 0) { /* R4 */
    memcpy (w.seen, w.very_old, sizeof w.seen);
    memcpy (w.durable, w.very_old, sizeof w.seen);
    w.now.loss++;
    w.now.tenure++;
    w.now.forced = true;
  }
  if (kind == 10 && dice (4) == 0) { /* C9: from a node that was cut off then */
    uint8_t past = w.now.lineage.id[0];

    memcpy (w.seen, w.very_old, sizeof w.seen);
    memcpy (w.durable, w.very_old, sizeof w.seen);
    w.now = under (offer (w.then.tenure + dice (2), w.then.loss + 1, w.now.run), past + 1, past);
  }
  if (dice (6) == 0) {
    memcpy (w.very_old, w.durable, sizeof w.seen);
    w.then = w.now;
  }
}

/* False: it is lost for good. */
static bool
connect_again (void)
{
  struct follow_offer *o = &w.now;
  const struct follow_kept *k;

  if (w.session != 0)
    return true;
  if (dice (5) == 0 && w.before.run != 0) {
    o = &w.before;
    if (follow_judge (&w.f, o, NULL) == FOLLOW_USE && o->tenure < w.now.tenure && w.f.tenure == w.now.tenure)
      abort ();
    if (w.f.attached && follow_judge (&w.f, o, NULL) == FOLLOW_USE && o->lineage.id[0] < w.f.lineage.id[0])
      abort ();
    w.olds++;
    return true; /* a production that has ended can't be reached for long */
  }
  switch (follow_judge (&w.f, o, NULL)) {
  case FOLLOW_USE:
    w.uses++;
    break;
  case FOLLOW_REWRITE:
    for (uint32_t i = 0; (k = follow_kept (&w.f, i)) != NULL; i++) {
      if (dice (20) == 0)
        return true; /* broken in the middle of it */
      w.seen[k->offset] = w.buffer[k->at];
    }
    w.rewrites++;
    break;
  case FOLLOW_LOST:
    w.losses++;
    return false;
  default:
    return true;
  }
  w.session = follow_begin (&w.f, o);
  return true;
}

/* NULL, or what was wrong. */
static const char *
world (uint64_t seed, unsigned steps)
{
  rng = seed * 0x9e3779b97f4a7c15u + 1;
  for (unsigned i = 0; i < 8; i++)
    dice (2);
  memset (&w, 0, sizeof w);
  follow_init (&w.f, kept, 2 + dice (8), dice (4) ? BUFFER : 0);
  w.now = w.then = under (offer (1, 0, 1), 2, 1);
  if (dice (4) == 0)
    w.before = under (offer (1 + dice (3), dice (2), 100), 1, 0);
  while (steps-- > 0) {
    struct request *r = &w.r[dice (REQUESTS)];

    switch (dice (16)) {
    case 0: case 1: case 2: case 3:
      ask ();
      break;
    case 4: case 5: case 6:
      if (r->used && r->session == 0 && w.session != 0) {
        r->session = w.session;
        r->covers = follow_flush_begins (&w.f);
      }
      break;
    case 7: case 8: case 9:
      if (r->used && r->session != 0 && !r->done)
        carry_out (r);
      break;
    case 10: case 11: case 12:
      if (r->used && r->done && !answer (r))
        return "a flush was answered, and a write before it is not durable";
      break;
    case 13:
      if (dice (4) == 0)
        lose_connection ();
      break;
    case 14:
      if (dice (6) == 0)
        change_production ();
      break;
    default:
      if (!connect_again ())
        return NULL;
    }
    if (w.session != 0)
      for (unsigned b = 0; b < BLOCKS; b++)
        if (!is_busy (b) && w.seen[b] != w.told[b])
          return "an answered write is not there, and nobody was told";
    if (w.f.used > BUFFER || w.f.n > w.f.n_max)
      return "more is kept than fits";
  }
  return NULL;
}

int
main (void)
{
  const char *one = getenv ("SEED"), *wrong = NULL;
  uint64_t seed = one ? strtoull (one, NULL, 10) : 1, last = one ? seed : 30000;
  unsigned uses = 0, rewrites = 0, losses = 0, flushes = 0;

  rules ();
  lineages ();
  for (; seed <= last && !wrong; seed++) {
    wrong = world (seed, 600);
    uses += w.uses;
    rewrites += w.rewrites;
    losses += w.losses;
    flushes += w.flushes;
    if (wrong)
      printf ("# SEED=%llu: %s\n", (unsigned long long) seed, wrong);
  }
  ok (!wrong, "worlds: %u sessions, %u with writes written again, %u lost, %u flushes", uses, rewrites, losses, flushes);
  if (!one)
    ok (rewrites > 1000 && losses > 1000 && flushes > 10000, "all of it happened often");
  return tap_done ();
}
