/* SPDX-License-Identifier: BSD-3-Clause */
/* The rules of follow.h.  All state is in struct follow; nothing here can wait or fail.
 */
#include <string.h>

#include "common/util.h"
#include "plugin/follow.h"

/* ESHUTDOWN as NBD has it; cores know no errno.h. */
#define NBD_ESHUTDOWN 108

void
follow_init (struct follow *f, struct follow_kept *kept, uint32_t n_max, uint32_t bytes_max)
{
  *f = (struct follow){ .kept = kept, .n_max = n_max, .bytes_max = bytes_max };
}

void
follow_resume (struct follow *f, const struct follow_offer *o)
{
  f->attached = true;
  f->tenure = o->tenure;
  f->loss = o->loss;
  f->lineage = o->lineage;
  f->size = o->size;
  f->flags = o->flags;
  f->answered = f->forgotten = 1;
}

/* ---- which export -------------------------------------------------------------------------- */

/* Two ids, both known, that are not the same. */
static bool
differ (const uint8_t a[CRG_ID_LEN], const uint8_t b[CRG_ID_LEN])
{
  static const uint8_t unknown[CRG_ID_LEN];

  return memcmp (a, unknown, CRG_ID_LEN) != 0 && memcmp (b, unknown, CRG_ID_LEN) != 0 && memcmp (a, b, CRG_ID_LEN) != 0;
}

enum follow_verdict
follow_judge_lineage (const struct follow *f, const uint8_t lineage[CRG_ID_LEN])
{
  if (!f->attached || !differ (f->lineage.id, lineage))
    return FOLLOW_USE;
  /* Y1, Y6; ids don't tell which is the newer one, but for the one that ours came from. */
  return memcmp (f->lineage.past, lineage, CRG_ID_LEN) == 0 ? FOLLOW_OLD : FOLLOW_LOST;
}

/* Y6 */
static enum follow_verdict
judge_loss (const struct follow *f, const struct follow_offer *o)
{
  if (o->loss == f->loss)
    return FOLLOW_USE;
  /* One more loss, and none that was forced: it took unflushed writes at most (S2 b).  A tenure
   * or a loss that was not seen here may have been a forced one, which takes flushed writes, too. */
  if (o->loss != f->loss + 1 || o->tenure > f->tenure + 1 || o->forced)
    return FOLLOW_LOST;
  if (!follow_has_unflushed (f))
    return FOLLOW_USE;
  return f->forgotten > f->flushed ? FOLLOW_LOST : FOLLOW_REWRITE;
}

enum follow_verdict
follow_judge (const struct follow *f, const struct follow_offer *o, const struct follow_offer *first)
{
  enum follow_verdict of_lineage = follow_judge_lineage (f, o->lineage.id);

  /* Y2 */
  if (first)
    return o->tenure == first->tenure && o->loss == first->loss && o->run == first->run && o->forced == first->forced
                   && o->size == first->size && o->flags == first->flags
                   && !differ (o->lineage.id, first->lineage.id)
               ? FOLLOW_USE
               : FOLLOW_OTHER;
  if (o->size == 0)
    return FOLLOW_UNLIKE;
  if (!f->attached)
    return FOLLOW_USE;
  if (of_lineage != FOLLOW_USE)
    return of_lineage;
  /* Y1; a loss never falls, so an export that has seen fewer is an older one. */
  if (o->tenure < f->tenure || o->loss < f->loss)
    return FOLLOW_OLD;
  /* Y7 */
  if (o->size != f->size || (o->flags & f->flags) != f->flags)
    return FOLLOW_UNLIKE;
  return judge_loss (f, o);
}

struct lineage
follow_lineage (const struct follow *f, const struct follow_offer *o)
{
  static const uint8_t unknown[CRG_ID_LEN];

  return memcmp (o->lineage.id, unknown, CRG_ID_LEN) == 0 ? f->lineage : o->lineage;
}

uint64_t
follow_begin (struct follow *f, const struct follow_offer *o)
{
  if (!f->attached) {
    f->size = o->size;
    f->flags = o->flags;
  }
  f->attached = true;
  f->tenure = o->tenure;
  f->loss = o->loss;
  f->lineage = follow_lineage (f, o);
  f->run = o->run;
  return ++f->session;
}

void
follow_end (struct follow *f)
{
  /* Answers that are still to come are of no session any more (Y4). */
  f->session++;
}

void
follow_lose (struct follow *f)
{
  f->lost = true;
}

/* ---- answers ------------------------------------------------------------------------------- */

enum follow_answer
follow_judge_answer (const struct follow *f, uint64_t session, int error, bool connection_lost)
{
  /* Y4 */
  if (connection_lost || error == NBD_ESHUTDOWN || session != f->session)
    return FOLLOW_SEND_AGAIN;
  return FOLLOW_ANSWER;
}

/* ---- what is kept -------------------------------------------------------------------------- */

static void
forget_all (struct follow *f)
{
  f->n = 0;
  f->begin = f->used = 0;
  f->forgotten = f->answered;
  f->n_forgotten++;
}

static void
drop_oldest (struct follow *f)
{
  f->first = f->first + 1 == f->n_max ? 0 : f->first + 1;
  f->n--;
  if (f->n == 0)
    f->begin = f->used = 0;
}

/* Room for 'length' bytes that don't wrap; the piece left over at the end counts as used. */
static bool
take_bytes (struct follow *f, uint32_t length, uint32_t *at)
{
  uint32_t end = f->begin + f->used, skip = 0;

  if (length > f->bytes_max)
    return false;
  if (end >= f->bytes_max)
    end -= f->bytes_max;
  if (length > f->bytes_max - end) {
    skip = f->bytes_max - end;
    end = 0;
  }
  if (length > f->bytes_max - f->used || skip > f->bytes_max - f->used - length)
    return false;
  *at = end;
  f->used += skip + length;
  return true;
}

bool
follow_wrote (struct follow *f, enum follow_op op, uint64_t offset, uint32_t length, bool no_hole, uint32_t *at)
{
  uint32_t i;

  f->answered++;
  *at = 0;
  /* With a gap in it the rest is of no use until a flush has covered the gap. */
  if (f->forgotten > f->flushed) {
    f->forgotten = f->answered;
    return false;
  }
  if (f->bytes_max == 0 || f->n == f->n_max || (op == FOLLOW_WRITE && !take_bytes (f, length, at))) {
    forget_all (f);
    return false;
  }
  i = f->first + f->n;
  if (i >= f->n_max)
    i -= f->n_max;
  f->kept[i] = (struct follow_kept){ .number = f->answered, .offset = offset, .length = length, .op = (uint8_t) op,
                                     .no_hole = no_hole, .at = *at };
  f->n++;
  return op == FOLLOW_WRITE;
}

uint64_t
follow_flush_begins (const struct follow *f)
{
  return f->answered;
}

void
follow_flushed (struct follow *f, uint64_t covers)
{
  /* Y5 */
  if (covers > f->flushed)
    f->flushed = covers;
  while (f->n > 0 && f->kept[f->first].number <= f->flushed)
    drop_oldest (f);
  /* The bytes of those that are left begin at the oldest WRITE; what lies before it is free. */
  for (uint32_t i = 0; i < f->n; i++) {
    const struct follow_kept *k = follow_kept (f, i);

    if (k && k->op == FOLLOW_WRITE) {
      uint32_t freed = k->at >= f->begin ? k->at - f->begin : f->bytes_max - f->begin + k->at;

      f->begin = k->at;
      f->used -= freed;
      return;
    }
  }
  f->begin = f->used = 0;
}

const struct follow_kept *
follow_kept (const struct follow *f, uint32_t i)
{
  uint32_t at = f->first + i;

  if (i >= f->n)
    return NULL;
  return &f->kept[at >= f->n_max ? at - f->n_max : at];
}

bool
follow_has_unflushed (const struct follow *f)
{
  return f->answered > f->flushed;
}

const char *
follow_verdict_text (enum follow_verdict v)
{
  switch (v) {
  case FOLLOW_USE: return "it can be used";
  case FOLLOW_REWRITE: return "unflushed writes have to be written again";
  case FOLLOW_OLD: return "its tenure or lineage is older than one that was used (Y1)";
  case FOLLOW_OTHER: return "two connections reached different productions (Y2)";
  case FOLLOW_UNLIKE: return "its size is another, or it can less (Y7)";
  case FOLLOW_LOST: return "answered writes are lost, and not all of them are kept here (Y6)";
  }
  return "?";
}
