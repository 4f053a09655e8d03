/* SPDX-License-Identifier: BSD-3-Clause */
/* See history.h, where the argument stands.  The scratch memory is one array of zones, as long
 * as the largest number of values that one block has seen.
 */
#include <config.h>

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "tests/recorder/history.h"

struct zone {
  uint64_t f, s;  /* earliest end, latest start */
  uint64_t early; /* earliest end without the final reads */
  uint64_t value;
  uint64_t start; /* of the write */
  size_t reach;   /* among the zones up to this one, the forward one with the largest s, + 1 */
  bool answered, flushed, final;
};

static int
op_cmp (const void *av, const void *bv)
{
  const struct hist_op *a = av, *b = bv;

#define BY(x)                  \
  if (a->x != b->x)            \
  return a->x < b->x ? -1 : 1
  BY (block);
  BY (value);
  BY (kind);
  BY (start);
#undef BY
  return 0;
}

static int
zone_cmp (const void *av, const void *bv)
{
  const struct zone *a = av, *b = bv;

  if (a->f != b->f)
    return a->f < b->f ? -1 : 1;
  return a->value < b->value ? -1 : a->value > b->value;
}

static void
tell (struct hist_result *res, enum hist_fault fault, uint32_t block, uint64_t value,
      uint64_t other)
{
  switch (fault) {
  case HIST_DAMAGED: res->damaged++; break;
  case HIST_UNBORN: res->unborn++; break;
  case HIST_LOST: res->lost++; break;
  case HIST_STALE: res->stale++; break;
  case HIST_OK: break;
  }
  if (res->n_told < HIST_MAX_TOLD)
    res->told[res->n_told++] = (struct hist_violation){ fault, block, value, other };
}

/* One cluster, ops[0..n) of one value of one block.  False if it has no zone: a write that
 * nobody answered and nobody read, or a broken rule (a), which is told here. */
static bool
cluster (const struct hist_op *ops, size_t n, struct zone *z, struct hist_result *res)
{
  const struct hist_op *write = ops[0].kind == HIST_WRITE ? &ops[0] : NULL;
  bool good = true;

  memset (z, 0, sizeof *z);
  z->value = ops[0].value;
  z->f = z->early = HIST_NEVER;
  if (z->value == HIST_INITIAL) {
    assert (!write);
    z->f = z->early = 0;
  }
  else if (!write) {
    for (size_t i = 0; i < n; i++)
      tell (res, ops[i].kind == HIST_BAD ? HIST_DAMAGED : HIST_UNBORN, ops[i].block,
            ops[i].value, 0);
    return false;
  }
  else {
    z->start = write->start;
    z->answered = write->end != HIST_NEVER;
    z->flushed = write->flushed;
    if (n == 1 && !z->answered)
      return false;
  }
  for (size_t i = 0; i < n; i++) {
    const struct hist_op *op = &ops[i];

    if (op->kind == HIST_BAD) {
      tell (res, HIST_DAMAGED, op->block, op->value, 0);
      good = false;
      continue;
    }
    assert (op->kind != HIST_WRITE || i == 0);
    if (write && op->end < write->start) {
      tell (res, HIST_UNBORN, op->block, op->value, 0);
      good = false;
    }
    if (op->start > z->s)
      z->s = op->start;
    if (op->end < z->f)
      z->f = op->end;
    if (op->kind == HIST_FINAL)
      z->final = true;
    else if (op->end < z->early)
      z->early = op->end;
  }
  return good;
}

/* Is 'w' an answered write that came later than the value 'v' that was there at the end? */
static bool
is_lost (const struct zone *v, const struct zone *w)
{
  return v != w && v->final && w->answered && w->start > v->early;
}

/* All zones of one block: rules (b) and (c).  A conflict with the value that was there at the
 * end is a lost write if the other's write was answered and had to come later. */
static void
judge (struct zone *z, size_t n, uint32_t block, struct hist_result *res)
{
  const struct zone *final = NULL;

  for (size_t i = 0; i < n; i++)
    if (z[i].final)
      final = &z[i];
  if (final) {
    for (size_t i = 0; i < n; i++)
      if (is_lost (final, &z[i])) {
        tell (res, HIST_LOST, block, z[i].value, final->value);
        if (z[i].flushed)
          res->lost_flushed++;
      }
  }
  qsort (z, n, sizeof *z, zone_cmp);
  for (size_t i = 0; i < n; i++) {
    size_t last = i ? z[i - 1].reach : 0;

    z[i].reach = last;
    if (z[i].f < z[i].s) { /* rule (b) */
      if (last && z[i].f < z[last - 1].s && !is_lost (&z[last - 1], &z[i])
          && !is_lost (&z[i], &z[last - 1]))
        tell (res, HIST_STALE, block, z[last - 1].value, z[i].value);
      if (!last || z[i].s > z[last - 1].s)
        z[i].reach = i + 1;
    }
  }
  /* Rule (c).  Of the forward zones that begin before s, the one that reaches furthest. */
  for (size_t i = 0; i < n; i++) {
    size_t lo = 0, hi = n, last;

    if (z[i].f < z[i].s)
      continue;
    while (lo < hi) { /* first zone with f >= the s of this one */
      size_t mid = lo + (hi - lo) / 2;
      if (z[mid].f < z[i].s)
        lo = mid + 1;
      else
        hi = mid;
    }
    last = lo ? z[lo - 1].reach : 0;
    if (last && z[i].f < z[last - 1].s && !is_lost (&z[last - 1], &z[i]))
      tell (res, HIST_STALE, block, z[last - 1].value, z[i].value);
  }
}

bool
hist_check (struct hist_op *ops, size_t n, struct hist_result *res)
{
  struct zone *zones;
  size_t n_zones, i, j, k;

  memset (res, 0, sizeof *res);
  if (n == 0)
    return true;
  qsort (ops, n, sizeof *ops, op_cmp);
  zones = calloc (n, sizeof *zones);
  if (!zones)
    abort ();
  for (i = 0; i < n; i = j) {
    n_zones = 0;
    for (j = i; j < n && ops[j].block == ops[i].block; j = k) {
      for (k = j; k < n && ops[k].block == ops[i].block && ops[k].value == ops[j].value; k++)
        ;
      if (cluster (&ops[j], k - j, &zones[n_zones], res))
        n_zones++;
    }
    judge (zones, n_zones, ops[i].block, res);
    res->blocks++;
  }
  free (zones);
  return !(res->damaged || res->unborn || res->lost || res->stale);
}

/* ---- power losses ------------------------------------------------------------------------- */

#define TORN      UINT64_MAX       /* what a block holds that no write has written as it is */
#define UNSEEN    (UINT64_MAX - 1)

/* What a block may be left with, from all that was before. */
struct left {
  uint64_t flushed_start; /* of the latest flushed write; 0: none */
  uint64_t flushed_value;
  uint64_t old, older;    /* what was seen of it after this loss, and after the one before */
};

static int
value_cmp (const void *av, const void *bv)
{
  const struct hist_op *const *a = av, *const *b = bv;

  return (*a)->value < (*b)->value ? -1 : (*a)->value > (*b)->value;
}

static const struct hist_op *
find_write (const struct hist_op **writes, size_t n, uint64_t value)
{
  size_t lo = 0, hi = n;

  while (lo < hi) {
    size_t mid = lo + (hi - lo) / 2;

    if (writes[mid]->value < value)
      lo = mid + 1;
    else
      hi = mid;
  }
  return lo < n && writes[lo]->value == value ? writes[lo] : NULL;
}

/* May a block be left with this value of a write that began before the loss? */
static bool
may_be_left (const struct left *l, uint32_t block, uint64_t value, const struct hist_op **writes, size_t n,
             uint64_t loss)
{
  const struct hist_op *w;

  if (value == HIST_INITIAL)
    return l->flushed_start == 0;
  if (value != TORN) {
    w = find_write (writes, n, value);
    return w && w->block == block && w->end >= l->flushed_start;
  }
  for (size_t i = 0; i < n; i++) {
    w = writes[i];
    if (w->block == block && w->start < loss && !w->flushed && w->end >= l->flushed_start)
      return true;
  }
  return false;
}

static void
add_result (struct hist_result *res, const struct hist_result *more)
{
  res->blocks = more->blocks > res->blocks ? more->blocks : res->blocks;
  res->damaged += more->damaged;
  res->unborn += more->unborn;
  res->lost += more->lost;
  res->lost_flushed += more->lost_flushed;
  res->stale += more->stale;
  for (unsigned i = 0; i < more->n_told && res->n_told < HIST_MAX_TOLD; i++)
    res->told[res->n_told++] = more->told[i];
}

bool
hist_check_losses (struct hist_op *ops, size_t n, const uint64_t *losses, size_t n_losses, struct hist_result *res)
{
  const struct hist_op **writes = calloc (n + 1, sizeof *writes);
  struct hist_op *part = calloc (n + 1, sizeof *part);
  struct left *left;
  uint32_t n_blocks = 1;
  size_t n_writes = 0;

  if (n_losses == 0) {
    free (writes);
    free (part);
    return hist_check (ops, n, res);
  }
  for (size_t i = 0; i < n; i++)
    if (ops[i].block >= n_blocks)
      n_blocks = ops[i].block + 1;
  left = calloc (n_blocks, sizeof *left);
  if (!writes || !part || !left)
    abort ();
  for (size_t i = 0; i < n; i++)
    if (ops[i].kind == HIST_WRITE)
      writes[n_writes++] = &ops[i];
  qsort (writes, n_writes, sizeof *writes, value_cmp);
  memset (res, 0, sizeof *res);
  for (size_t k = 0; k <= n_losses; k++) {
    uint64_t from = k ? losses[k - 1] : 0, to = k < n_losses ? losses[k] : HIST_NEVER;
    struct hist_result one;
    size_t m = 0;

    for (uint32_t b = 0; b < n_blocks; b++) {
      left[b].older = k > 1 ? left[b].old : UNSEEN;
      left[b].old = UNSEEN;
    }
    for (size_t i = 0; i < n; i++) {
      struct hist_op op = ops[i];
      struct left *l = &left[op.block];
      const struct hist_op *w;

      if (op.start < from || op.start >= to)
        continue;
      if (op.end >= to && op.end != HIST_NEVER) {
        if (op.kind != HIST_WRITE)
          continue;
        op.end = HIST_NEVER;
      }
      if (k > 0 && op.kind != HIST_WRITE) {
        uint64_t v = op.kind == HIST_BAD ? TORN : op.value;

        w = v == TORN || v == HIST_INITIAL ? NULL : find_write (writes, n_writes, v);
        if (v == TORN || v == HIST_INITIAL || (w && w->start < from)) {
          if (!may_be_left (l, op.block, v, writes, n_writes, from)) {
            tell (res, v == TORN ? HIST_DAMAGED : HIST_LOST, op.block, l->flushed_value, v == TORN ? HIST_INITIAL : v);
            res->lost_flushed++;
          }
          /* One value after a loss; and what a loss has taken, the next one doesn't bring back. */
          else if ((l->old != UNSEEN && l->old != v)
                   || (l->older != UNSEEN && l->older != v && v != TORN && (!w || w->start < losses[k - 2])))
            tell (res, HIST_STALE, op.block, v, l->old != UNSEEN ? l->old : l->older);
          l->old = v;
          op.value = HIST_INITIAL;
          if (op.kind == HIST_BAD)
            op.kind = HIST_READ;
        }
      }
      part[m++] = op;
    }
    hist_check (part, m, &one);
    add_result (res, &one);
    for (size_t i = 0; i < n; i++)
      if (ops[i].kind == HIST_WRITE && ops[i].flushed && ops[i].start >= from && ops[i].start < to
          && ops[i].start > left[ops[i].block].flushed_start) {
        left[ops[i].block].flushed_start = ops[i].start;
        left[ops[i].block].flushed_value = ops[i].value;
      }
  }
  free (left);
  free (part);
  free (writes);
  return !(res->damaged || res->unborn || res->lost || res->stale);
}
