/* SPDX-License-Identifier: BSD-3-Clause */
/* The recorder's judge: histories with one fault each, and small random histories against a
 * search through all orders.
 */
#include <config.h>

#include "tests/recorder/history.h"
#include "tests/tap.h"

static struct hist_op
w (uint64_t value, uint64_t start, uint64_t end)
{
  return (struct hist_op){ start, end, value, 0, HIST_WRITE, false };
}

static struct hist_op
r (uint64_t value, uint64_t start, uint64_t end)
{
  return (struct hist_op){ start, end, value, 0, HIST_READ, false };
}

static struct hist_op
last (uint64_t value)
{
  return (struct hist_op){ 1000, 1001, value, 0, HIST_FINAL, false };
}

#define RUN(...)                                                \
  ({                                                            \
    struct hist_op ops_[] = { __VA_ARGS__ };                    \
    hist_check (ops_, sizeof ops_ / sizeof ops_[0], &res);      \
  })

/* The definition itself: is there an order of all answered operations, and of any of the
 * unanswered writes, that keeps real time and in which each read sees the last write? */
static bool
search (const struct hist_op *ops, unsigned n, unsigned done, uint64_t value)
{
  uint64_t bound = HIST_NEVER;
  bool left = false;

  for (unsigned i = 0; i < n; i++)
    if (!(done & 1u << i)) {
      if (ops[i].end < bound)
        bound = ops[i].end;
      if (ops[i].end != HIST_NEVER)
        left = true;
    }
  if (!left)
    return true;
  for (unsigned i = 0; i < n; i++) {
    if (done & 1u << i || ops[i].start > bound)
      continue;
    if (ops[i].kind == HIST_WRITE ? search (ops, n, done | 1u << i, ops[i].value)
                                  : ops[i].value == value && search (ops, n, done | 1u << i, value))
      return true;
  }
  return false;
}

static uint64_t seed = 20240501;

static unsigned
rnd (unsigned n)
{
  seed = seed * 6364136223846793005u + 1442695040888963407u;
  return (unsigned) (seed >> 33) % n;
}

int
main (void)
{
  struct hist_result res;
  unsigned good = 0, bad = 0, wrong = 0;

  ok (RUN (w (1, 10, 20), w (2, 30, 40), last (2)), "plain history");
  ok (RUN (w (1, 10, 20), w (2, 15, 40), last (1)), "concurrent writes, either may win");
  ok (RUN (w (1, 10, 20), w (2, 30, HIST_NEVER), last (1)), "unanswered write that never was");
  ok (RUN (w (1, 10, 20), w (2, 30, HIST_NEVER), last (2)), "unanswered write that was");
  ok (RUN (w (1, 10, HIST_NEVER), w (2, 30, 40), r (2, 50, 60), last (1)),
      "unanswered write that came late");
  ok (RUN (r (0, 5, 8), w (1, 6, 9), last (1)), "the initial value");

  ok (!RUN (w (1, 10, 20), w (2, 30, 40), last (1)) && res.lost == 1 && res.lost_flushed == 0,
      "a lost write");
  {
    struct hist_op ops[] = { w (1, 10, 20), w (2, 30, 40), last (1) };
    ops[1].flushed = true;
    ok (!hist_check (ops, 3, &res) && res.lost == 1 && res.lost_flushed == 1,
        "a lost and flushed write");
  }
  ok (!RUN (w (1, 10, 20), last (0)) && res.lost == 1, "a lost first write");
  ok (!RUN (w (1, 10, 20), w (2, 30, 40), r (1, 50, 60), last (2)) && res.stale == 1
        && res.lost == 0,
      "a stale read");
  ok (!RUN (w (1, 10, 20), w (2, 30, HIST_NEVER), r (2, 40, 50), r (1, 60, 70), last (2))
        && res.stale >= 1,
      "an unanswered write seen, then not");
  ok (!RUN (r (1, 2, 5), w (1, 10, 20), last (1)) && res.unborn == 1, "a read of the future");
  ok (!RUN (r (7, 2, 5), last (0)) && res.unborn == 1, "a read of nothing that was written");
  {
    struct hist_op ops[] = { w (1, 10, 20), last (1) };
    ops[1].kind = HIST_BAD;
    ops[1].value = HIST_NEVER;
    ok (!hist_check (ops, 2, &res) && res.damaged == 1, "a damaged block");
  }
  {
    struct hist_op ops[] = { w (1, 10, 20), w (2, 10, 20), last (2), last (1) };
    ops[1].block = ops[2].block = 9;
    ok (hist_check (ops, 4, &res) && res.blocks == 2, "blocks are judged apart");
  }

  {
    const uint64_t at[] = { 45, 145 };
#define LOSSES(n_losses, ...)                                                        \
  ({                                                                                 \
    struct hist_op ops_[] = { __VA_ARGS__ };                                         \
    hist_check_losses (ops_, sizeof ops_ / sizeof ops_[0], at, n_losses, &res);      \
  })
    struct hist_op f1 = w (1, 10, 20), f2 = w (2, 30, 40), torn = last (9);

    f1.flushed = f2.flushed = true;
    torn.kind = HIST_BAD;
    torn.value = HIST_NEVER;
    ok (!LOSSES (0, w (1, 10, 20), w (2, 30, 40), last (1)), "no loss: a lost write is one");
    ok (LOSSES (1, w (1, 10, 20), w (2, 30, 40), last (1)), "after a loss an unflushed write may be gone");
    ok (LOSSES (1, w (1, 10, 20), w (2, 30, 40), last (2)), "or not");
    ok (LOSSES (1, w (1, 10, 20), w (2, 30, 40), last (0)), "or all of them");
    ok (LOSSES (1, f1, w (2, 30, 40), last (1)), "a flushed one stays");
    ok (!LOSSES (1, f1, w (2, 30, 40), last (0)) && res.lost_flushed == 1, "it may not be gone");
    ok (!LOSSES (1, w (1, 10, 20), f2, last (1)) && res.lost_flushed == 1, "nor what a flushed one replaced come back");
    ok (LOSSES (1, w (1, 10, 35), f2, last (1)), "but what was written beside it may");
    ok (!LOSSES (1, w (1, 10, 20), w (2, 50, 60), last (1)) && res.lost == 1, "what came after the loss may not be gone");
    ok (!LOSSES (1, w (1, 10, 20), w (2, 30, 40), r (2, 50, 60), last (1)) && res.stale == 1,
        "what is there after the loss stays");
    ok (!LOSSES (1, w (1, 10, 20), r (1, 50, 60), r (0, 70, 80), last (0)), "also what was there before the run");
    ok (LOSSES (1, w (1, 10, 20), r (1, 50, 60), w (2, 70, 80), last (2)), "until it is written");
    ok (LOSSES (1, f1, w (2, 30, 40), torn), "an unflushed write may be torn");
    ok (!LOSSES (1, w (1, 10, 20), f2, torn) && res.damaged == 1, "a flushed one not");
    ok (LOSSES (1, w (1, 10, 20), w (2, 40, 50), last (2)), "a write across the loss may be there");
    ok (LOSSES (1, w (1, 10, 20), w (2, 40, 50), last (1)), "or not");
    ok (LOSSES (2, w (1, 10, 20), w (2, 30, 40), r (1, 50, 60), w (3, 70, 80), last (1)), "two losses");
    ok (!LOSSES (2, w (1, 10, 20), w (2, 30, 40), r (1, 50, 60), w (3, 70, 80), last (2)) && res.stale == 1,
        "the second doesn't bring back what the first has taken");
  }

  for (unsigned round = 0; round < 200000; round++) {
    struct hist_op ops[8];
    unsigned n_writes = 1 + rnd (4), n = 0;
    bool want, got;

    for (unsigned i = 0; i < n_writes; i++) {
      uint64_t start = 1 + rnd (20);
      ops[n++] = w (i + 1, start, rnd (4) ? start + 1 + rnd (10) : HIST_NEVER);
    }
    for (unsigned i = 1 + rnd (4); i-- > 0;) {
      uint64_t start = 1 + rnd (24);
      ops[n++] = r (rnd (n_writes + 1), start, start + 1 + rnd (10));
    }
    if (rnd (2))
      ops[n - 1] = last (ops[n - 1].value);
    want = search (ops, n, 0, HIST_INITIAL);
    got = hist_check (ops, n, &res);
    if (want != got) {
      if (wrong++ == 0)
        for (unsigned i = 0; i < n; i++)
          printf ("# %s %llu [%llu, %llu]\n", ops[i].kind == HIST_WRITE ? "write" : "read",
                  (unsigned long long) ops[i].value, (unsigned long long) ops[i].start,
                  (unsigned long long) ops[i].end);
    }
    *(want ? &good : &bad) += 1;
  }
  ok (wrong == 0, "as the search says, %u good and %u bad histories, %u differ", good, bad, wrong);
  ok (good > 10000 && bad > 10000, "both kinds came up");
  return tap_done ();
}
