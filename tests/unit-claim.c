/* SPDX-License-Identifier: BSD-3-Clause */
/* Claims to open a store (claim.h): the codec, and every order of what two and three nodes of a site do to
 * one store, with the rule itself and a disk whose blocks are torn or read while they are written, and land
 * when their process is long gone: openings, releases, deaths of processes, machines that are fenced and
 * come back.  Never do two have the store (S1), and who is alone, with nothing in the way that is not over,
 * gets it.  With a step of the opening left out the same search has to find two.
 */
#include "config.h"

#include <errno.h>

#include "common/claim.h"
#include "tests/tap.h"

/* ---- the world ---------------------------------------------------------------------------- */

#define NODES 3
#define NOBODY 0xff

enum stage { OFF, CLAIMING, READ0, READ1, MAPS, SLOT1, SLOT2, ENDING, LEAVING, OPEN, RELEASING };
enum target { IDLE, TO_CLAIM, TO_SLOT, TO_DATA };
enum mutant { NONE, NO_SECOND_LOOK, OLD_SLOTS, EARLY_CLEAR, FREE_HAND, FENCED_FOR_EVER, N_MUTANTS };

struct reg { /* a claim's block */
  uint8_t node, session; /* NOBODY: none */
};

struct slot {
  uint8_t sequence, open, session; /* sequence 0: torn.  open: by whom */
};

struct node {
  uint8_t stage, act, told, to_see, starts;
  uint8_t kind, at; /* of the write under way */
  struct reg reg;
  struct slot put, seen[2];
  struct slot top;  /* the newest, as it was chosen or written */
  struct slot first; /* ... before it was claimed */
  uint8_t top_at;
  struct claim c;
};

struct world {
  uint8_t n, fenced, crashes, fences;
  struct reg reg[NODES];
  struct slot slot[2];
  struct node node[NODES];
};

static const char *const names[NODES] = { "a", "b", "c" };
static enum mutant mutant;
static uint8_t starts_max;
static bool broken;
static uint64_t n_states, n_solo;
static char trace[4096];

/* ---- worlds that were met ----------------------------------------------------------------- */

static uint64_t *met;
static uint64_t met_size, met_n;

static uint64_t
mix (uint64_t h, uint64_t v)
{
  h = (h ^ v) * UINT64_C (0x9e3779b97f4a7c15);
  return h ^ h >> 29;
}

static uint64_t
key (const struct world *w)
{
  uint64_t h = mix (w->n, w->fenced | w->crashes << 8 | w->fences << 16);

  for (unsigned i = 0; i < w->n; i++) {
    const struct node *p = &w->node[i];

    h = mix (h, w->reg[i].node | w->reg[i].session << 8);
    h = mix (h, p->stage | p->act << 8 | p->told << 16 | (uint64_t) p->to_see << 24 | (uint64_t) p->starts << 32
                  | (uint64_t) p->kind << 48 | (uint64_t) p->at << 56);
    h = mix (h, p->reg.node | p->reg.session << 8 | (uint64_t) p->put.sequence << 16 | (uint64_t) p->put.open << 24
                  | (uint64_t) p->seen[0].sequence << 32 | (uint64_t) p->seen[0].open << 40
                  | (uint64_t) p->seen[1].sequence << 48 | (uint64_t) p->seen[1].open << 56);
    h = mix (h, p->put.session | p->seen[0].session << 8 | p->seen[1].session << 16 | (uint64_t) p->top.session << 24
                  | (uint64_t) p->first.open << 32 | (uint64_t) p->first.session << 40);
    for (unsigned k = 0; k < w->n; k++)
      h = mix (h, p->c.fenced[k]);
    h = mix (h, p->top.sequence | p->top.open << 8 | p->top_at << 16 | (uint64_t) p->c.phase << 24
                  | (uint64_t) p->c.barred << 40 | (uint64_t) p->c.seen << 41
                  | (uint64_t) p->c.own.session << 48);
  }
  for (unsigned s = 0; s < 2; s++)
    h = mix (h, w->slot[s].sequence | w->slot[s].open << 8 | w->slot[s].session << 16);
  return h | 1;
}

static bool
is_new (uint64_t h)
{
  if (met_n * 2 >= met_size) {
    uint64_t *old = met, size = met_size;

    met_size = met_size ? met_size * 2 : 1 << 16;
    met = calloc (met_size, sizeof *met);
    if (!met)
      abort ();
    for (uint64_t k = 0; k < size; k++)
      if (old[k]) {
        uint64_t at = (old[k] >> 8) % met_size;

        while (met[at])
          at = (at + 1) % met_size;
        met[at] = old[k];
      }
    free (old);
  }
  for (uint64_t at = (h >> 8) % met_size;; at = (at + 1) % met_size) {
    if (met[at] == h)
      return false;
    if (met[at] == 0) {
      met[at] = h;
      met_n++;
      return true;
    }
  }
}

/* ---- one node ----------------------------------------------------------------------------- */

/* first: as it was found before it was claimed, where who was fenced can't have come back (judge.c). */
static bool
is_over (const struct node *p, unsigned self, struct slot top, struct slot first)
{
  static const uint8_t boot[CRG_ID_LEN] = { 1 }, other[CRG_ID_LEN] = { 2 };
  const bool same = mutant == FENCED_FOR_EVER || (top.open == first.open && top.session == first.session);

  return top.open == NOBODY
         || claim_is_over (names[top.open], other, names[self], boot, same && (p->told >> top.open & 1));
}

static void
write_to (struct node *p, enum target kind, unsigned at)
{
  p->kind = (uint8_t) kind;
  p->at = (uint8_t) at;
}

static void
write_reg (struct node *p, unsigned at, uint8_t node, uint8_t session)
{
  p->reg = (struct reg) { node, session };
  write_to (p, TO_CLAIM, at);
}

static void
write_slot (struct node *p, uint8_t open)
{
  p->put = (struct slot) { (uint8_t) (p->top.sequence + 1), open, open == NOBODY ? 0 : p->starts };
  write_to (p, TO_SLOT, p->top_at == 0);
}

static void
off (struct node *p)
{
  const uint8_t starts = p->starts;

  memset (p, 0, sizeof *p);
  p->starts = starts;
}

/* What the rule wants next. */
static void
act_on (struct world *w, unsigned self, enum claim_act act)
{
  struct node *p = &w->node[self];

  p->act = (uint8_t) act;
  switch (act) {
  case CLAIM_LOOK:
    p->to_see = (uint8_t) ((1 << w->n) - 1);
    break;
  case CLAIM_SET:
    write_reg (p, self, (uint8_t) self, p->starts);
    break;
  case CLAIM_CLEAR:
    write_reg (p, self, NOBODY, 0);
    break;
  case CLAIM_HELD:
    p->stage = mutant == OLD_SLOTS ? MAPS : READ0;
    if (mutant == OLD_SLOTS && !is_over (p, self, p->top, p->top))
      p->stage = LEAVING;
    else if (mutant == OLD_SLOTS)
      write_to (p, TO_DATA, 0);
    if (p->stage == LEAVING)
      act_on (w, self, claim_end (&p->c));
    break;
  case CLAIM_REFUSED:
    off (p);
    break;
  case CLAIM_ENDED:
    if (p->stage == LEAVING)
      off (p);
    else if (mutant == EARLY_CLEAR && p->stage == SLOT1)
      write_slot (p, (uint8_t) self);
    else
      p->stage = OPEN;
    break;
  }
}

static void
choose (struct node *p)
{
  p->top_at = p->seen[1].sequence > p->seen[0].sequence;
  p->top = p->seen[p->top_at];
}

static void
start (struct world *w, unsigned self)
{
  const uint8_t boot[CRG_ID_LEN] = { (uint8_t) (self + 1) };
  struct node *p = &w->node[self];

  p->starts++;
  p->stage = CLAIMING;
  p->told = w->fenced;
  memcpy (p->seen, w->slot, sizeof p->seen); /* the first look at the store */
  choose (p);
  p->first = p->top;
  if (mutant != OLD_SLOTS) {
    memset (&p->top, 0, sizeof p->top);
    p->top_at = 0;
  }
  memset (p->seen, 0, sizeof p->seen);
  act_on (w, self, claim_begin (&p->c, self, names[self], boot, p->starts));
}

/* The write under way is stable. */
static void
landed (struct world *w, unsigned self)
{
  struct node *p = &w->node[self];
  const uint8_t kind = p->kind;

  if (kind == TO_CLAIM)
    w->reg[p->at] = p->reg;
  if (kind == TO_SLOT)
    w->slot[p->at] = p->put;
  if (kind == TO_SLOT) {
    p->top = p->put;
    p->top_at = p->at;
  }
  p->kind = IDLE;
  switch ((enum stage) p->stage) {
  case CLAIMING:
  case ENDING:
  case LEAVING:
    act_on (w, self, claim_done (&p->c, 0));
    break;
  case MAPS:
    p->stage = SLOT1;
    if (mutant == EARLY_CLEAR)
      act_on (w, self, claim_end (&p->c));
    else
      write_slot (p, (uint8_t) self);
    break;
  case SLOT1:
    if (mutant == EARLY_CLEAR && kind == TO_CLAIM) {
      act_on (w, self, claim_done (&p->c, 0));
      break;
    }
    p->stage = SLOT2;
    write_slot (p, (uint8_t) self);
    break;
  case SLOT2:
    p->stage = ENDING;
    if (mutant == EARLY_CLEAR)
      p->stage = OPEN;
    else
      act_on (w, self, claim_end (&p->c));
    break;
  case RELEASING:
    off (p);
    break;
  default: /* its process is gone */
    break;
  }
}

static void
saw (struct world *w, unsigned self, unsigned place, struct reg r)
{
  struct node *p = &w->node[self];

  p->to_see = (uint8_t) (p->to_see & ~(1 << place));
  if (r.node != NOBODY && !(mutant == NO_SECOND_LOOK && place != self && p->c.phase > 1)) {
    struct claim_block found = { .boot_id = { (uint8_t) (r.node + 1) }, .session = r.session };

    memcpy (found.node, names[r.node], 2);
    if (mutant == FENCED_FOR_EVER)
      p->c.fenced[place] = r.session;
    claim_saw (&p->c, place, &found, mutant == FREE_HAND || (p->told >> r.node & 1));
  }
  if (p->to_see == 0)
    act_on (w, self, claim_done (&p->c, 0));
}

static void
read_slot (struct world *w, unsigned self, struct slot s)
{
  struct node *p = &w->node[self];

  if (p->stage == READ0) {
    p->seen[0] = s;
    p->stage = READ1;
    return;
  }
  p->seen[1] = s;
  choose (p);
  if (p->top.sequence == 0 || !is_over (p, self, p->top, p->first)) {
    p->stage = LEAVING;
    act_on (w, self, claim_end (&p->c));
    return;
  }
  p->stage = MAPS;
  write_to (p, TO_DATA, 0);
}

/* ---- what must hold ----------------------------------------------------------------------- */

static bool
has_it (const struct node *p)
{
  return (p->stage >= MAPS && p->stage != LEAVING) || (p->stage == OFF && (p->kind == TO_SLOT || p->kind == TO_DATA));
}

static void
note (const struct world *w, const char *what, unsigned i)
{
  size_t used = strlen (trace);

  (void) w;
  snprintf (trace + used, sizeof trace - used, " %s%s", names[i], what);
}

static void
wrong (const char *what)
{
  if (!broken && mutant == NONE)
    printf ("# %s:%s\n", what, trace);
  broken = true;
}

/* Nobody does anything any more, and all has landed.  Each node that is not cut off has taken away what its dead
 * process left (claim_tidy): does node i get the store, unless another has it open? */
static void
alone (const struct world *w, unsigned i)
{
  struct world x = *w;
  struct node *p = &x.node[i];

  for (unsigned j = 0; j < w->n; j++) {
    if (w->node[j].stage != OFF || w->node[j].kind != IDLE || (w->fenced >> i & 1))
      return;
    if (w->reg[j].node == j && !(w->fenced >> j & 1))
      x.reg[j].node = NOBODY;
  }
  p->told = w->fenced;
  memcpy (p->seen, w->slot, sizeof p->seen);
  choose (p);
  if (!is_over (p, i, p->top, p->top))
    return;
  n_solo++;
  start (&x, i);
  for (unsigned steps = 0; steps < 100 && p->stage != OFF && p->stage != OPEN; steps++)
    if (p->kind != IDLE)
      landed (&x, i);
    else if (p->stage == READ0 || p->stage == READ1)
      read_slot (&x, i, x.slot[p->stage == READ1]);
    else
      saw (&x, i, (unsigned) __builtin_ctz (p->to_see), x.reg[__builtin_ctz (p->to_see)]);
  if (p->stage != OPEN)
    wrong ("kept out, though nothing stands in the way");
}

/* ---- every order -------------------------------------------------------------------------- */

static void explore (const struct world *w);

#define TRY(what, i, ...)             \
  do {                                \
    struct world x = *w;              \
    struct node *p = &x.node[i];      \
    const size_t mark = strlen (trace); \
    note (&x, what, i);               \
    (void) p;                         \
    __VA_ARGS__;                      \
    explore (&x);                     \
    trace[mark] = '\0';               \
    if (broken)                       \
      return;                         \
  } while (0)

/* A read of a claim gives what is there, or, of one that is just written, what will be there, or nothing whole. */
static void
looks (const struct world *w, unsigned i)
{
  for (unsigned at = 0; at < w->n; at++) {
    if (!(w->node[i].to_see >> at & 1))
      continue;
    TRY (" looks", i, saw (&x, i, at, x.reg[at]));
    for (unsigned j = 0; j < w->n; j++)
      if (w->node[j].kind == TO_CLAIM && w->node[j].at == at) {
        TRY (" looks early", i, saw (&x, i, at, x.node[j].reg));
        TRY (" looks at torn", i, saw (&x, i, at, (struct reg) { NOBODY, 0 }));
      }
  }
}

static void
reads (const struct world *w, unsigned i)
{
  const unsigned at = w->node[i].stage == READ1;

  TRY (" reads", i, read_slot (&x, i, x.slot[at]));
  for (unsigned j = 0; j < w->n; j++)
    if (w->node[j].kind == TO_SLOT && w->node[j].at == at)
      TRY (" reads torn", i, read_slot (&x, i, (struct slot) { 0, NOBODY, 0 }));
}

/* The machine is cut off: what is under way never comes, or has been torn on its way. */
static void
fenced (struct world *x, unsigned i, bool torn)
{
  struct node *p = &x->node[i];

  if (torn && p->kind == TO_CLAIM)
    x->reg[p->at] = (struct reg) { NOBODY, 0 };
  if (torn && p->kind == TO_SLOT)
    x->slot[p->at] = (struct slot) { 0, NOBODY, 0 };
  off (p);
  x->fenced |= (uint8_t) (1 << i);
  x->fences--;
}

static void
crashed (struct world *x, unsigned i)
{
  struct node *p = &x->node[i];
  const struct node old = *p;

  off (p);
  p->kind = old.kind;
  p->at = old.at;
  p->reg = old.reg;
  p->put = old.put;
  x->crashes--;
}

static void
moves (const struct world *w, unsigned i)
{
  const struct node *q = &w->node[i];
  bool comes_back = w->fenced >> i & 1;

  for (unsigned j = 0; j < w->n; j++) /* who was allowed to overrule it has looked at the store */
    comes_back = comes_back && !((w->node[j].told >> i & 1) && w->node[j].stage == CLAIMING && w->node[j].c.phase == 1);
  if (comes_back)
    TRY (" comes back", i, x.fenced = (uint8_t) (x.fenced & ~(1 << i)));
  if (q->stage == OFF && q->kind == IDLE && q->starts < starts_max && !(w->fenced >> i & 1))
    TRY (" starts", i, start (&x, i));
  if (q->stage == OFF && q->kind == IDLE && w->reg[i].node == i && !(w->fenced >> i & 1))
    TRY (" tidies", i, write_reg (p, i, NOBODY, 0));
  if (q->kind != IDLE)
    TRY (" lands", i, landed (&x, i));
  else if (q->stage == READ0 || q->stage == READ1)
    reads (w, i);
  else if (q->stage == OPEN)
    TRY (" releases", i, p->stage = RELEASING; write_slot (p, NOBODY));
  else if (q->stage != OFF)
    looks (w, i);
  if (broken)
    return;
  if (q->stage != OFF && w->crashes > 0)
    TRY (" crashes", i, crashed (&x, i));
  if (w->fences > 0 && !(w->fenced >> i & 1)
      && (q->stage != OFF || q->kind != IDLE || w->slot[0].open == i || w->slot[1].open == i || w->reg[i].node == i)) {
    TRY (" is fenced", i, fenced (&x, i, false));
    if (q->kind != IDLE)
      TRY (" is fenced, torn", i, fenced (&x, i, true));
  }
}

static void
explore (const struct world *w)
{
  unsigned n = 0;

  if (broken || !is_new (key (w)))
    return;
  n_states++;
  for (unsigned i = 0; i < w->n; i++)
    n += has_it (&w->node[i]);
  if (n > 1) {
    wrong ("two have the store (S1)");
    return;
  }
  for (unsigned i = 0; i < w->n && !broken; i++)
    alone (w, i);
  for (unsigned i = 0; i < w->n && !broken; i++)
    moves (w, i);
}

static bool
search (enum mutant m, uint8_t n, uint8_t starts, uint8_t crashes, uint8_t fences)
{
  struct world w = { .n = n, .crashes = crashes, .fences = fences, .slot = { { 1, NOBODY }, { 2, NOBODY } } };

  mutant = m;
  starts_max = starts;
  broken = false;
  n_states = n_solo = 0;
  trace[0] = '\0';
  for (unsigned i = 0; i < NODES; i++)
    w.reg[i].node = NOBODY;
  free (met);
  met = NULL;
  met_size = met_n = 0;
  explore (&w);
  if (m == NONE)
    printf ("# %u nodes, %u starts each, %u deaths, %u fenced: %llu states, alone in %llu\n", n, starts, crashes, fences,
            (unsigned long long) n_states, (unsigned long long) n_solo);
  return !broken;
}

/* ---- the codec ---------------------------------------------------------------------------- */

static void
reseal (uint8_t block[META_BLOCK_SIZE], unsigned at, unsigned n, int byte, const uint8_t store_id[CRG_ID_LEN])
{
  struct meta_block_id id = { .kind = META_CLAIM, .index = 5 };

  memcpy (id.store_id, store_id, CRG_ID_LEN);
  memset (block + at, byte, n);
  meta_block_seal (block, &id, 0);
}

static void
codec (void)
{
  static const uint8_t store[CRG_ID_LEN] = { 7 }, other[CRG_ID_LEN] = { 8 };
  struct claim_block c = { .node = "n1", .boot_id = { 3 }, .session = UINT64_C (0x123456789abcdef0) }, found;
  static uint8_t block[META_BLOCK_SIZE], bad[META_BLOCK_SIZE];
  const unsigned name_at = META_BLOCK_HEADER + 32;
  unsigned taken = 0;

  claim_encode (&c, 5, store, block);
  ok (claim_decode (block, 5, store, &found) && memcmp (&c, &found, sizeof c) == 0, "a claim is what was written");
  ok (!claim_decode (block, 6, store, &found), "but not at another place");
  ok (!claim_decode (block, 5, other, &found), "nor on another store");
  for (unsigned bit = 0; bit < META_BLOCK_SIZE * 8; bit += bit < 1600 ? 1 : 97) {
    memcpy (bad, block, sizeof bad);
    bad[bit / 8] ^= (uint8_t) (1 << bit % 8);
    taken += claim_decode (bad, 5, store, &found);
  }
  is (taken, 0, "nor if a bit of it is wrong");
  claim_encode (NULL, 5, store, block);
  ok (!claim_decode (block, 5, store, &found), "nobody's");
  memset (block, 0, sizeof block);
  ok (!claim_decode (block, 5, store, &found), "never written");
  memset (block, 0xa5, sizeof block);
  ok (!claim_decode (block, 5, store, &found), "what stood there before");
  snprintf (c.node, sizeof c.node, "-no name");
  claim_encode (&c, 5, store, block);
  ok (!claim_decode (block, 5, store, &found), "no name");
  /* By who knows the checksum: the name's end is where it should be, and nothing stands behind it. */
  snprintf (c.node, sizeof c.node, "n1");
  claim_encode (&c, 5, store, block);
  reseal (block, name_at, CRG_NAME_MAX + 1, 'a', store);
  ok (!claim_decode (block, 5, store, &found), "a name without an end");
  claim_encode (&c, 5, store, block);
  reseal (block, name_at + 9, 1, 'a', store);
  ok (!claim_decode (block, 5, store, &found), "something behind the name");
  ok (claim_place (1) != claim_place (2) && claim_place (65535) < META_CLAIMS, "places");
}

/* What the search does not meet: errors, and two nodes with one place. */
static void
edges (void)
{
  static const uint8_t boot[CRG_ID_LEN] = { 1 };
  struct claim_block other = { .node = "b", .boot_id = { 2 }, .session = 9 };
  struct claim c;

  is (claim_begin (&c, 1, "a", boot, 4), CLAIM_LOOK, "looks first");
  is (claim_done (&c, -EIO), CLAIM_REFUSED, "can't");
  is (c.error, -EIO, "says why");
  claim_begin (&c, 1, "a", boot, 4);
  claim_saw (&c, 1, &other, false);
  is (claim_done (&c, 0), CLAIM_REFUSED, "another's claim in our place is not written over");
  claim_begin (&c, 1, "a", boot, 4);
  claim_saw (&c, 1, &other, true);
  is (claim_done (&c, 0), CLAIM_SET, "unless it is over");
  is (claim_done (&c, -EIO), CLAIM_CLEAR, "the write failed, and may yet have come");
  is (claim_done (&c, 0), CLAIM_REFUSED, "taken back");
  is (c.error, -EIO, "says why");
  claim_begin (&c, 1, "a", boot, 4);
  is (claim_done (&c, 0), CLAIM_SET, "sets");
  is (claim_done (&c, 0), CLAIM_LOOK, "looks again");
  claim_saw (&c, 1, &other, true);
  is (claim_done (&c, 0), CLAIM_REFUSED, "ours is not there any more: whose it is now is not cleared");
  claim_begin (&c, 1, "a", boot, 4);
  claim_done (&c, 0);
  claim_done (&c, 0);
  claim_saw (&c, 1, &(struct claim_block) { .node = "b", .boot_id = { 2 }, .session = 4 }, true);
  is (claim_done (&c, 0), CLAIM_REFUSED, "nor with our session's number");
  claim_begin (&c, 1, "a", boot, 4);
  claim_done (&c, 0);
  claim_done (&c, 0);
  is (claim_done (&c, -EIO), CLAIM_CLEAR, "can't look: not held");
  claim_begin (&c, 1, "a", boot, 4);
  claim_done (&c, 0);
  claim_done (&c, 0);
  claim_saw (&c, 1, &(struct claim_block) { .node = "a", .boot_id = { 1 }, .session = 4 }, false);
  claim_saw (&c, 2, &other, true);
  is (claim_done (&c, 0), CLAIM_CLEAR, "who was fenced has come back since the first look");
  claim_begin (&c, 1, "a", boot, 4);
  claim_saw (&c, 2, &other, true);
  claim_done (&c, 0);
  claim_done (&c, 0);
  claim_saw (&c, 1, &(struct claim_block) { .node = "a", .boot_id = { 1 }, .session = 4 }, false);
  claim_saw (&c, 2, &other, true);
  is (claim_done (&c, 0), CLAIM_HELD, "held");
  is (claim_end (&c), CLAIM_CLEAR, "given back");
  is (claim_done (&c, -EIO), CLAIM_ENDED, "as far as that can be done");
  is (c.error, -EIO, "says why");
  is (claim_end (&c), CLAIM_ENDED, "nothing to give back");
  is (claim_done (&c, 0), CLAIM_REFUSED, "nor to do");
}

/* ---- for who can wait --------------------------------------------------------------------- */

#define STORE_BYTES (1u << 20)

struct memory {
  uint8_t bytes[STORE_BYTES];
  unsigned fail_after; /* so many reads and writes go well */
  const char *fenced;
  void (*between) (struct memory *m, unsigned n); /* before the n-th */
  unsigned n;
};

static int
memory_next (struct memory *m)
{
  if (m->between)
    m->between (m, m->n);
  return m->n++ < m->fail_after ? 0 : -EIO;
}

static int
memory_read (void *opaque, void *buf, uint32_t len, uint64_t offset)
{
  struct memory *m = opaque;
  int r = memory_next (m);

  if (offset > STORE_BYTES || len > STORE_BYTES - offset)
    abort ();
  memcpy (buf, m->bytes + offset, len);
  return r;
}

static int
memory_write (void *opaque, const void *buf, uint32_t len, uint64_t offset)
{
  struct memory *m = opaque;
  int r = memory_next (m);

  if (offset > STORE_BYTES || len > STORE_BYTES - offset)
    abort ();
  if (r == 0)
    memcpy (m->bytes + offset, buf, len);
  return r;
}

static bool
memory_fenced (void *opaque, const char *node)
{
  struct memory *m = opaque;

  return m->fenced && strcmp (m->fenced, node) == 0;
}

static struct superblock sb = { .store_id = { 7 }, .store_bytes = STORE_BYTES, .dirty_block_size = 65536 };

static void
other_claims (struct memory *m, unsigned n)
{
  const struct claim_block b = { .node = "b", .boot_id = { 2 }, .session = 9 };
  struct meta_layout l;

  if (n != 2 || meta_layout (sb.store_bytes, sb.dirty_block_size, &l) < 0)
    return; /* behind our own claim, before the second look */
  claim_encode (&b, claim_place (2), sb.store_id, m->bytes + l.claims.offset + claim_place (2) * META_BLOCK_SIZE);
}

static void
carried_out (void)
{
  static const uint8_t boot[2][CRG_ID_LEN] = { { 1 }, { 2 } };
  static struct memory m;
  const struct claim_io io = { .opaque = &m, .read = memory_read, .write = memory_write, .is_fenced = memory_fenced };
  struct claim a, b;

  m.fail_after = 1000;
  memset (m.bytes, 0xa5, sizeof m.bytes); /* what stood there before */
  is (claim_take (&a, &sb, 1, "a", boot[0], 4, &io), 0, "a takes it");
  is (m.n, 3, "looks, writes, looks");
  is (claim_take (&b, &sb, 2, "b", boot[1], 5, &io), -EBUSY, "b is refused");
  is_str (b.other.node, "a", "and told by whom");
  is (m.n, 4, "and has written nothing");
  m.fenced = "a";
  is (claim_take (&b, &sb, 2, "b", boot[1], 5, &io), 0, "unless a is fenced");
  m.fenced = NULL;
  is (claim_give (&b, &sb, &io), 0, "b gives it back");
  is (claim_take (&b, &sb, 2, "b", boot[1], 6, &io), -EBUSY, "a's stands");
  is (claim_tidy (&sb, 2, "b", &io), 0, "b has left none");
  is (claim_tidy (&sb, 1, "b", &io), 0, "and takes away no other one's");
  is (claim_take (&b, &sb, 2, "b", boot[1], 7, &io), -EBUSY, "a's stands");
  is (claim_tidy (&sb, 1, "a", &io), 0, "a's controller takes away what its dead process left");
  is (claim_take (&b, &sb, 2, "b", boot[1], 8, &io), 0, "b takes it");
  is (claim_give (&b, &sb, &io), 0, "and gives it back");
  m.n = 0;
  m.between = other_claims;
  is (claim_take (&a, &sb, 1, "a", boot[0], 9, &io), -EBUSY, "b claims it after the first look");
  is (m.n, 4, "so a takes its own back");
  m.between = NULL;
  is (claim_take (&b, &sb, 2, "b", boot[1], 10, &io), 0, "and b gets it");
  is (claim_give (&b, &sb, &io), 0, "and gives it back");
  for (unsigned k = 0; k < 3; k++) {
    m.n = 0;
    m.fail_after = k;
    is (claim_take (&a, &sb, 1, "a", boot[0], 11 + k, &io), -EIO, "can't");
    m.fail_after = 1000;
    claim_tidy (&sb, 1, "a", &io);
  }
  sb.dirty_block_size = 3;
  is (claim_take (&a, &sb, 1, "a", boot[0], 20, &io), -EINVAL, "no store");
  is (claim_tidy (&sb, 1, "a", &io), -EINVAL, "no store");
}

/* S1 b: the open record of a machine that restarted, before and after it has said so. */
static void
past_records (void)
{
  static const uint8_t now[CRG_ID_LEN] = { 1 }, before[CRG_ID_LEN] = { 2 };
  struct superblock rec = { .flags = SUPER_F_OPEN };

  strcpy (rec.open_node, "a");
  memcpy (rec.open_boot_id, before, CRG_ID_LEN);
  ok (claim_record_is_over (&rec, "a", now, false) && claim_is_of_the_past (&rec, "a", now), "a record of this node's earlier boot");
  ok (!claim_record_is_over (&rec, "b", now, false) && !claim_is_of_the_past (&rec, "b", now), "... is none of another's");
  ok (claim_record_is_over (&rec, "b", before, false) && claim_record_is_over (&rec, "b", now, true),
      "... who shares the machine, or knows that it was fenced, may go on");
  memcpy (rec.open_boot_id, now, CRG_ID_LEN);
  ok (!claim_is_of_the_past (&rec, "a", now), "a record of this boot is not of the past");
  memset (rec.open_boot_id, 0, CRG_ID_LEN);
  ok (claim_record_is_over (&rec, "b", before, false), "what was said to be over is so for everybody");
  ok (!claim_is_of_the_past (&rec, "a", now), "... and isn't said again");
  memcpy (rec.open_boot_id, before, CRG_ID_LEN);
  rec.flags = SUPER_F_CLEAN;
  ok (!claim_is_of_the_past (&rec, "a", now), "nor is it of a store that was released");
}

int
main (int argc, char **argv)
{
  static const char *const without[N_MUTANTS] = {
    [NO_SECOND_LOOK] = "a look after the own claim is written", [OLD_SLOTS] = "reading the superblocks under the claim",
    [EARLY_CLEAR] = "keeping the claim until the open record is there",
    [FREE_HAND] = "heeding who is not fenced",
    [FENCED_FOR_EVER] = "heeding who was fenced and has come back",
  };
  const bool deep = argc > 1 && strcmp (argv[1], "--deep") == 0;

  codec ();
  edges ();
  past_records ();
  carried_out ();
  ok (search (NONE, 2, 2, 1, 1), "two nodes");
  ok (search (NONE, 3, 1, 1, 0), "three nodes");
  if (deep) { /* some minutes */
    ok (search (NONE, 2, 3, 2, 2), "two nodes, deeper");
    ok (search (NONE, 3, 1, 2, 2), "three nodes, deeper");
  }
  for (unsigned m = NONE + 1; m < N_MUTANTS; m++)
    ok (!search ((enum mutant) m, 2, 3, 1, 1), "without %s the search finds what is wrong", without[m]);
  free (met);
  return tap_done ();
}
