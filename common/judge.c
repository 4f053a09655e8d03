/* SPDX-License-Identifier: BSD-3-Clause */
/* The judgement of a store that is to be opened, and the order of the steps (judge.h).  It must never let a host
 * write to a store that another one may have, or may be opening.
 */
#include "config.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "common/claim.h"
#include "common/ident.h"
#include "common/judge.h"

enum { NONE, FIRST_READ, RESERVING, CLAIMING, SECOND_READ, OPENING, FIRST_SLOT, SECOND_SLOT, GIVING, OPEN };

const char *
judge_code (enum judge_refusal refusal)
{
  static const char *const codes[JUDGE_N_REFUSALS] = {
    [JUDGE_NOT_REFUSED] = "",
    [JUDGE_IO] = "store",
    [JUDGE_DAMAGED] = "damaged",
    [JUDGE_USED_BEFORE] = "empty",
    [JUDGE_OTHER_FILE] = "identity",
    [JUDGE_OTHER_IASP] = "identity",
    [JUDGE_OTHER_LINEAGE] = "identity",
    [JUDGE_OTHER_SITE] = "identity",
    [JUDGE_OTHER_SHAPE] = "identity",
    [JUDGE_RESIZED] = "size",
    [JUDGE_NOT_RELEASED] = "not-released",
    [JUDGE_FORK] = "fork",
    [JUDGE_NEWER_TENURE] = "tenure",
    [JUDGE_NEWER] = "disagrees",
    [JUDGE_NO_STATE] = "unusable",
    [JUDGE_NOT_IN_SET] = "not-in-set",
    [JUDGE_UNUSABLE] = "unusable",
    [JUDGE_DISAGREES] = "disagrees",
    [JUDGE_RESTARTED] = "restarted",
    [JUDGE_RESERVED] = "reservation",
    [JUDGE_CLAIMED] = "not-released",
    [JUDGE_ANEW] = "identity",
    [JUDGE_LATE] = "store",
    [JUDGE_LATE_RECORD] = "store",
  };

  assert (refusal < JUDGE_N_REFUSALS);
  return codes[refusal];
}

/* ---- the judgement ------------------------------------------------------------------------------ */

static bool
is_production (const struct judge_ask *a)
{
  return a->role == SUPER_ROLE_PRODUCTION;
}

static bool
is_in_set (const struct judge_ask *a)
{
  return (a->in_set >> a->site & 1) != 0;
}

/* R4: what is forced is the first opening of the tenure; from then on disk and record agree. */
static bool
is_forced (const struct judge_ask *a, const struct superblock *sb)
{
  return a->forced && sb->tenure < a->tenure;
}

/* C9: the index of its lineage among those that the group was recovered from, or -1. */
static int
past_of (const struct judge_ask *a, const struct superblock *sb)
{
  for (int i = 0; i < a->n_past; i++)
    if (ident_id_equal (sb->lineage, a->past[i]))
      return i;
  return -1;
}

/* Is it the store that is meant? */
static enum judge_refusal
judge_identity (const struct judge_ask *a, const struct judge_found *found, struct superblock *sb)
{
  const int past = past_of (a, sb);

  if (!ident_id_equal (sb->cluster_id, a->cluster_id) || !ident_id_equal (sb->crg_id, a->crg_id)
      || !ident_id_equal (sb->iasp_id, a->iasp_id))
    return JUDGE_OTHER_IASP;
  /* C9: the group was recovered, and this store was in its set: it goes on under the new lineage, with the
   * superblock that is written next.  So it does if the group was recovered again before anybody had opened it. */
  if (is_in_set (a) && past >= 0) {
    /* Of a later time than the recovered state; the record may have got as far meanwhile, but not with it (R6). */
    if (sb->generation > a->past_generation[past] && !(is_production (a) && is_forced (a, sb)))
      return JUDGE_NEWER;
    memcpy (sb->lineage, a->lineage, CRG_ID_LEN);
  }
  if (!ident_id_equal (sb->lineage, a->lineage))
    return JUDGE_OTHER_LINEAGE;
  if (sb->site != a->site)
    return JUDGE_OTHER_SITE;
  if (sb->data_bytes != a->data_bytes || sb->dirty_block_size != a->dirty_block_size)
    return JUDGE_OTHER_SHAPE;
  if (sb->store_bytes != found->store_bytes)
    return JUDGE_RESIZED;
  return JUDGE_NOT_REFUSED;
}

/* R5: is what its machine had not flushed gone? */
static bool
is_of_another_boot (const struct judge_ask *a, const struct superblock *sb)
{
  return (sb->flags & SUPER_F_RESTARTED)
         || ((sb->flags & SUPER_F_OPEN) && !ident_id_equal (sb->open_boot_id, a->boot_id));
}

/* May this host use the store that somebody has or had open (S1)?  Was it restarted (R5)? */
static enum judge_refusal
judge_open_record (struct judge *j, const struct judge_found *found, const struct superblock *sb)
{
  const struct judge_ask *a = &j->ask;

  j->was_clean = !(sb->flags & SUPER_F_OPEN) && !found->damaged;
  /* R5: opening a restarted copy doesn't make it whole. */
  j->restarted = found->damaged || (sb->flags & SUPER_F_RESTARTED);
  /* S1 a, b: released, or open in this boot, and the lock was free. */
  if (!(sb->flags & SUPER_F_OPEN) || ident_id_equal (sb->open_boot_id, a->boot_id))
    return JUDGE_NOT_REFUSED;
  j->restarted = true;
  if (j->phase == FIRST_READ)
    j->seen_session = sb->open_session;
  /* S1 b: this machine before it restarted, or another that restarted and said so.  d: it is marked failed, and hasn't
   * come back and opened it since the first reading. */
  return claim_record_is_over (sb, a->node, a->boot_id, found->fenced && sb->open_session == j->seen_session)
           ? JUDGE_NOT_REFUSED : JUDGE_NOT_RELEASED;
}

/* Is it newer than the record, or apart from it? */
static enum judge_refusal
judge_record_and_disk (const struct judge_ask *a, const struct superblock *sb)
{
  const bool known_as_fork = is_production (a) ? is_forced (a, sb) : (a->fork >> a->site & 1) != 0;

  /* R6: a fork is opened only as what the record knows as one.  R4: or by the first opening of a tenure that was
   * forced, whose open record ends the fork. */
  if ((sb->flags & SUPER_F_FORK) && !known_as_fork)
    return JUDGE_FORK;
  /* R1: who has seen a newer production serves no older one. */
  if (sb->tenure > a->tenure)
    return JUDGE_NEWER_TENURE;
  /* R6: production is looked at more closely below. */
  if (!is_production (a) && sb->generation > a->generation)
    return JUDGE_NEWER;
  return JUDGE_NOT_REFUSED;
}

/* Do disk and record agree that this copy may be production? */
static enum judge_refusal
judge_production (const struct judge *j, const struct superblock *sb)
{
  const struct judge_ask *a = &j->ask;
  const bool forced = is_forced (a, sb), others = (a->in_set & ~(1u << a->site)) != 0;

  /* R4: the set decides. */
  if (!forced && !is_in_set (a))
    return JUDGE_NOT_IN_SET;
  /* R4: nothing whole is in it, and no force makes it so.  One damaged slot, as a power loss in the middle of a
   * write leaves it, forbids nothing: what was relied on is in the other one (nbd-crg-store(5)), and so is more
   * rather than less of what is forbidden. */
  if (sb->flags & SUPER_F_UNUSABLE)
    return JUDGE_UNUSABLE;
  /* R6: a store agrees with the record if since <= its generation <= the record's (R2). */
  if (!forced && (sb->generation > a->generation || sb->generation < a->since))
    return JUDGE_DISAGREES;
  /* S2: what was answered and not flushed may be only on the other copies of the set; or, without any, be gone, and
   * `loss` rises before it is opened.  (A damaged slot alone says of no write that it is gone.) */
  if (j->restarted && !forced && (others || is_of_another_boot (a, sb)) && !a->accept_loss)
    return JUDGE_RESTARTED;
  return JUDGE_NOT_REFUSED;
}

static enum judge_refusal
judge_role (const struct judge *j, const struct superblock *sb)
{
  if (j->ask.role == SUPER_ROLE_DETACHED && (sb->flags & SUPER_F_UNUSABLE))
    return JUDGE_NO_STATE;
  return is_production (&j->ask) ? judge_production (j, sb) : JUDGE_NOT_REFUSED;
}

/* The superblock of a store that had none: to be filled, unless the CRG's first production begins with it. */
static enum judge_refusal
judge_new (struct judge *j, struct superblock *sb)
{
  const struct judge_ask *a = &j->ask;
  const bool production = is_production (a);

  sb->flags = (uint16_t) ((sb->flags & (SUPER_F_EXTERNAL | SUPER_F_WRITTEN)) | (production ? 0 : SUPER_F_UNUSABLE));
  sb->generation = production ? a->generation : 0;
  sb->since = production ? a->since : 0;
  j->was_clean = true;
  j->restarted = false;
  return judge_role (j, sb);
}

static enum judge_refusal
judge_old (struct judge *j, const struct judge_found *found, struct superblock *sb)
{
  enum judge_refusal r = judge_identity (&j->ask, found, sb);

  if (r == JUDGE_NOT_REFUSED)
    r = judge_open_record (j, found, sb);
  if (r == JUDGE_NOT_REFUSED)
    r = judge_record_and_disk (&j->ask, sb);
  return r == JUDGE_NOT_REFUSED ? judge_role (j, sb) : r;
}

/* ---- the order ------------------------------------------------------------------------------------ */

static enum judge_act
move (struct judge *j, uint8_t phase, enum judge_act act)
{
  j->phase = phase;
  return act;
}

/* What stands of the claim is taken back. */
static enum judge_act
refuse (struct judge *j, enum judge_refusal refusal, int error)
{
  j->refusal = (uint8_t) refusal;
  j->error = error;
  return j->claimed ? move (j, GIVING, JUDGE_GIVE) : move (j, NONE, JUDGE_REFUSED);
}

/* L1, S1: who takes this long has been succeeded by another. */
static bool
is_late (const struct judge_ask *a, uint64_t now_ms)
{
  return is_production (a) && a->lease_until_ms != 0 && now_ms >= a->lease_until_ms;
}

static enum judge_act
may_open (struct judge *j, uint64_t now_ms)
{
  return is_late (&j->ask, now_ms) ? refuse (j, JUDGE_LATE, 0) : move (j, OPENING, JUDGE_OPEN);
}

enum judge_act
judge_begin (struct judge *j, const struct judge_ask *ask)
{
  assert (ask->site < CRG_MAX_SITES);
  memset (j, 0, sizeof *j);
  j->ask = *ask;
  return move (j, FIRST_READ, JUDGE_READ);
}

enum judge_act
judge_read (struct judge *j, const struct judge_found *found, struct superblock *sb, uint64_t now_ms)
{
  const struct judge_ask *a = &j->ask;
  const bool again = j->phase == SECOND_READ;
  enum judge_refusal r = JUDGE_NOT_REFUSED;

  assert (again || j->phase == FIRST_READ);
  switch ((enum judge_what) found->what) {
  case JUDGE_SUPERBLOCK:
    r = judge_old (j, found, sb);
    break;
  case JUDGE_FORMATTED:
    assert (!again);
    r = judge_new (j, sb);
    break;
  case JUDGE_NONE:
    if (again)
      r = JUDGE_ANEW;
    else if (is_production (a) && (a->generation != 1 || a->loss != 0))
      r = JUDGE_USED_BEFORE;
    else
      return JUDGE_FORMAT;
    break;
  case JUDGE_OF_ANOTHER:
    r = JUDGE_OTHER_FILE;
    break;
  case JUDGE_UNREADABLE:
    r = JUDGE_DAMAGED;
    break;
  }
  if (r == JUDGE_NOT_REFUSED && again && !ident_id_equal (sb->store_id, j->store_id))
    r = JUDGE_ANEW;
  if (r != JUDGE_NOT_REFUSED)
    return refuse (j, r, 0);
  if (again)
    return may_open (j, now_ms);
  /* S1: nobody else can claim a store that has no superblock. */
  if (found->what == JUDGE_FORMATTED)
    j->ask.claims = false;
  memcpy (j->store_id, sb->store_id, CRG_ID_LEN);
  return move (j, RESERVING, JUDGE_RESERVE);
}

enum judge_act
judge_done (struct judge *j, int error, uint64_t now_ms)
{
  switch (j->phase) {
  case FIRST_READ: /* it can't be formatted */
    return refuse (j, JUDGE_IO, error);
  case RESERVING:
    if (error < 0)
      return refuse (j, JUDGE_RESERVED, error);
    /* S1: the claim comes after what the device keeps by itself. */
    return j->ask.claims ? move (j, CLAIMING, JUDGE_CLAIM) : may_open (j, now_ms);
  case CLAIMING:
    if (error < 0)
      return refuse (j, error == -EBUSY ? JUDGE_CLAIMED : JUDGE_IO, error);
    j->claimed = true;
    /* S1: another node may have opened it, and let it go, since it was judged. */
    return move (j, SECOND_READ, JUDGE_READ);
  case FIRST_SLOT:
    if (error < 0)
      return refuse (j, JUDGE_IO, error);
    /* S1: without a claim nobody else could know of it until now: if that took longer than the lease, another host
     * may have opened the store, and nothing more is written. */
    if (is_late (&j->ask, now_ms))
      return refuse (j, JUDGE_LATE_RECORD, -ETIMEDOUT);
    return move (j, SECOND_SLOT, JUDGE_WRITE);
  case SECOND_SLOT:
    if (error < 0)
      return refuse (j, JUDGE_IO, error);
    return j->claimed ? move (j, GIVING, JUDGE_GIVE) : move (j, OPEN, JUDGE_OPENED);
  case GIVING:
    j->claimed = false;
    if (error < 0 && j->refusal == JUDGE_NOT_REFUSED)
      return refuse (j, JUDGE_IO, error);
    return j->refusal == JUDGE_NOT_REFUSED ? move (j, OPEN, JUDGE_OPENED) : move (j, NONE, JUDGE_REFUSED);
  default:
    assert (!"a step that was not asked for");
    return JUDGE_REFUSED;
  }
}

enum judge_act
judge_record (struct judge *j, struct superblock *sb, bool direct, bool maps)
{
  const struct judge_ask *a = &j->ask;
  const bool production = is_production (a), detached = a->role == SUPER_ROLE_DETACHED;
  const uint16_t keep = SUPER_F_UNUSABLE | SUPER_F_FILLING | SUPER_F_EXTERNAL | SUPER_F_WRITTEN;

  assert (j->phase == OPENING);
  /* R6: from its first opening as a fork on, all that it is written is in its maps. */
  if (detached && maps && sb->role == SUPER_ROLE_MIRROR)
    sb->flags |= SUPER_F_TRACKED;
  sb->role = a->role;
  sb->flags = (uint16_t) ((sb->flags & keep) | SUPER_F_OPEN | (direct ? SUPER_F_DIRECT : 0)
                          | (production ? 0 : sb->flags & (SUPER_F_FORK | SUPER_F_TRACKED))
                          | (detached ? SUPER_F_FORK : 0)
                          | (j->restarted && !production ? SUPER_F_RESTARTED : 0));
  /* R1: a detached copy takes part in no tenure. */
  if (!detached)
    sb->tenure = a->tenure;
  if (production) {
    sb->generation = a->generation;
    sb->since = a->since;
  }
  sb->in_set = a->in_set;
  sb->loss = a->loss;
  /* S1: from now on this host has it. */
  memcpy (sb->open_node, a->node, sizeof sb->open_node);
  memcpy (sb->open_boot_id, a->boot_id, CRG_ID_LEN);
  sb->open_session = a->session;
  return move (j, FIRST_SLOT, JUDGE_WRITE);
}

enum judge_act
judge_end (struct judge *j)
{
  return refuse (j, JUDGE_IO, 0);
}

enum judge_act
judge_promote (struct judge *j, const struct judge_ask *ask, const struct superblock *sb)
{
  enum judge_refusal r;

  judge_begin (j, ask);
  /* R5: this process had it open all the time, and nothing was lost in its machine's caches; but what was on its way
   * from the old production is unknown. */
  j->was_clean = false;
  j->restarted = sb->flags & SUPER_F_RESTARTED;
  /* R1: it is a mirror of a newer tenure. */
  r = sb->tenure > ask->tenure ? JUDGE_NEWER_TENURE : judge_production (j, sb);
  return r == JUDGE_NOT_REFUSED ? move (j, OPENING, JUDGE_OPEN) : refuse (j, r, 0);
}

/* ---- as what production begins -------------------------------------------------------------------- */

struct judge_start
judge_starts (const struct judge *j, const struct superblock *sb)
{
  struct judge_start s = { .forced = is_forced (&j->ask, sb),
                           .equal = super_set_is_equal (sb, j->was_clean, j->ask.tenure) };

  s.again = !s.equal && sb->role != SUPER_ROLE_MIRROR;
  return s;
}
