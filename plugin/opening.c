/* SPDX-License-Identifier: BSD-3-Clause */
/* Opening the store for a role, and letting it go, as common/judge.h says: this file carries its steps out and
 * puts its refusals into words.  It decides nothing of R1, R4, R5, R6, S1 and S2.  It blocks the engine thread:
 * nothing else waits while a role changes.  It must never write anything but a claim to a store that another
 * node may have, or may be opening.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "common/clock.h"
#include "common/ident.h"
#include "plugin/engine_private.h"
#include "plugin/log.h"
#include "plugin/reserve.h"

/* ---- what is asked ------------------------------------------------------------------------ */

static bool
has_name (const json_t *names, const char *name)
{
  const json_t *j;
  size_t i;

  json_array_foreach (names, i, j)
    if (json_is_string (j) && strcmp (json_string_value (j), name) == 0)
      return true;
  return false;
}

static struct judge_ask
what_is_asked (const struct engine *e, const struct record *r, uint8_t site, enum role role, const json_t *request)
{
  const json_int_t lease_ms = json_integer_value (json_object_get (request, "lease_until_ms"));
  const struct params *p = &e->ia->p;
  struct judge_ask ask = {
    .role = role == ROLE_PRODUCTION ? SUPER_ROLE_PRODUCTION
            : role == ROLE_MIRROR   ? SUPER_ROLE_MIRROR
                                    : SUPER_ROLE_DETACHED,
    .site = site,
    .forced = json_is_true (json_object_get (request, "forced")),
    .accept_loss = json_is_true (json_object_get (request, "accept_loss")),
    .claims = p->node_id != 0, /* a controller that doesn't say which number the node has knows no claims */
    .n_past = r->n_past,
    .session = e->session,
    .data_bytes = p->size,
    .dirty_block_size = p->dirty_block,
    .tenure = r->tenure,
    .generation = r->generation,
    .loss = r->loss,
    .since = r->since[site],
    .in_set = r->in_set,
    .fork = r->fork,
    .lease_until_ms = lease_ms > 0 ? (uint64_t) lease_ms : 0,
  };

  snprintf (ask.node, sizeof ask.node, "%s", p->node);
  memcpy (ask.boot_id, e->boot_id, CRG_ID_LEN);
  memcpy (ask.cluster_id, p->cluster_id, CRG_ID_LEN);
  memcpy (ask.crg_id, p->crg_id, CRG_ID_LEN);
  memcpy (ask.iasp_id, p->iasp_id, CRG_ID_LEN);
  memcpy (ask.lineage, p->lineage, CRG_ID_LEN);
  memcpy (ask.past, r->past, sizeof ask.past);
  memcpy (ask.past_generation, r->past_generation, sizeof ask.past_generation);
  return ask;
}

/* ---- why not ------------------------------------------------------------------------------ */

#define SAY(...) snprintf (err, errlen, __VA_ARGS__)

/* What a step has said itself stays. */
static void
say_why (const struct engine *e, char *err, size_t errlen)
{
  const struct superblock *sb = &e->meta.sb;
  const struct judge_ask *a = &e->judge.ask;
  const struct params *p = &e->ia->p;
  const char *path = p->store;

  switch ((enum judge_refusal) e->judge.refusal) {
  case JUDGE_NOT_REFUSED:
  case JUDGE_IO:
  case JUDGE_DAMAGED:
  case JUDGE_OTHER_FILE:
  case JUDGE_RESERVED:
  case JUDGE_CLAIMED:
  case JUDGE_N_REFUSALS:
    break;
  case JUDGE_USED_BEFORE:
    SAY ("store %s: it has no superblock, and the CRG has used its production copy before; correct store=", path);
    break;
  case JUDGE_OTHER_IASP:
    SAY ("store %s: it belongs to IASP '%s' of CRG '%s', not to ours of CRG '%s'; correct store=", path, sb->iasp, sb->crg,
         p->crg);
    break;
  case JUDGE_OTHER_LINEAGE:
    SAY ("store %s: it is of another lineage (C9): a fork until an operator decides", path);
    break;
  case JUDGE_OTHER_SITE:
    SAY ("store %s: it is the copy of site '%s', not of '%s'; correct store=", path, sb->site_name, p->site);
    break;
  case JUDGE_OTHER_SHAPE:
    SAY ("store %s: it was made for %llu bytes and dirty blocks of %u; the CRG says %llu and %u", path,
         (unsigned long long) sb->data_bytes, sb->dirty_block_size, (unsigned long long) p->size, p->dirty_block);
    break;
  case JUDGE_RESIZED:
    SAY ("store %s: it has %llu bytes, and had %llu when it was made; restore its size", path,
         (unsigned long long) e->ia->store.store_bytes, (unsigned long long) sb->store_bytes);
    break;
  case JUDGE_NOT_RELEASED:
    SAY ("store %s: node %s has it open, or did not release it (S1); wait for it, or fence it and say so with crgctl "
         "mark-failed", path, sb->open_node);
    break;
  case JUDGE_FORK:
    SAY ("store %s: it is a fork (R6); reattach it", path);
    break;
  case JUDGE_NEWER_TENURE:
    SAY ("store %s: it has seen tenure %llu, newer than %llu (R1)", path, (unsigned long long) sb->tenure,
         (unsigned long long) a->tenure);
    break;
  case JUDGE_NEWER:
    SAY ("store %s: its generation %llu is newer than the record's %llu (R6); an operator has to decide", path,
         (unsigned long long) sb->generation, (unsigned long long) a->generation);
    break;
  case JUDGE_NO_STATE:
    SAY ("store %s: it was never filled, or its resynchronisation is not over; there is no state of it to export", path);
    break;
  case JUDGE_NOT_IN_SET:
    SAY ("store %s: the record does not have this copy in the in-sync set (R4)", path);
    break;
  case JUDGE_UNUSABLE:
    SAY ("store %s: it was never filled, or its resynchronisation is not over; it can't be production (R4)", path);
    break;
  case JUDGE_DISAGREES:
    SAY ("store %s: its generation %llu does not agree with the record's (since %llu, now %llu) (R6); an operator has to "
         "decide", path, (unsigned long long) sb->generation, (unsigned long long) a->since,
         (unsigned long long) a->generation);
    break;
  case JUDGE_RESTARTED:
    SAY ("store %s: its machine restarted; what was answered and not flushed may be only on the other copies of the set, "
         "or gone (S2)", path);
    break;
  case JUDGE_ANEW:
    SAY ("store %s: it was formatted anew while it was opened", path);
    break;
  case JUDGE_LATE:
    SAY ("store %s: the lease ended before this node could open it (S1)", path);
    break;
  case JUDGE_LATE_RECORD:
    SAY ("store %s: the lease ended before it was known that this node has the store open (S1)", path);
    break;
  }
}

/* ---- reading, and reserving --------------------------------------------------------------- */

/* A store without a superblock gets one, in memory. */
static enum judge_act
format (struct engine *e, char *err, size_t errlen)
{
  const struct judge_found found = { .what = JUDGE_FORMATTED };
  struct superblock *sb = &e->meta.sb;
  struct iasp *ia = e->ia;
  int r = storemeta_format (&e->meta, &ia->store, &ia->p, e->judge.ask.site, err, errlen);

  if (r < 0)
    return judge_done (&e->judge, r, clock_boottime_ms ());
  if (ia->p.fault_written)
    sb->flags |= SUPER_F_WRITTEN;
  log_line ("store %s: new, %llu bytes of data", ia->p.store, (unsigned long long) sb->data_bytes);
  return judge_read (&e->judge, &found, sb, clock_boottime_ms ());
}

static enum judge_act
read_store (struct engine *e, const json_t *fenced, char *err, size_t errlen)
{
  struct superblock *sb = &e->meta.sb;
  struct iasp *ia = e->ia;
  struct judge_found found = { .store_bytes = ia->store.store_bytes };
  uint8_t lineage[CRG_ID_LEN];
  enum judge_act act;
  int r = storemeta_read (&e->meta, &ia->store, ia->p.store, err, errlen);

  found.what = r == 0          ? JUDGE_SUPERBLOCK
               : r == -ENODATA ? JUDGE_NONE
               : r == -ESTALE  ? JUDGE_OF_ANOTHER
                               : JUDGE_UNREADABLE;
  found.damaged = e->meta.damaged;
  found.fenced = r == 0 && has_name (fenced, sb->open_node);
  memcpy (lineage, sb->lineage, CRG_ID_LEN);
  act = judge_read (&e->judge, &found, sb, clock_boottime_ms ());
  if (r == 0 && !e->judge.claimed && !ident_id_equal (lineage, sb->lineage))
    log_line ("store %s: of a lineage that this group was recovered from; it gets the new one (C9)", ia->p.store);
  return act;
}

/* S1 c: the device lets nobody else write from now on.  S1 has allowed this host to open the store, so
 * the key of who had it open before, which the open record tells, is taken out. */
static int
take_reservation (struct engine *e, char *err, size_t errlen)
{
  const struct params *p = &e->ia->p;
  const struct superblock *sb = &e->meta.sb;
  uint64_t own = reserve_key (p->iasp_id, p->node, e->boot_id), old = 0;
  int r;

  e->reserved = RESERVED_NOT;
  if (!p->reservation)
    return 0;
  if (sb->open_node[0] != '\0')
    old = reserve_key (p->iasp_id, sb->open_node, sb->open_boot_id);
  r = reserve_io_take (e->ia->store.fd, p->store, own, old, true, err, errlen);
  if (r == 0) {
    e->reserved = RESERVED_TAKEN;
    log_line ("store %s: reserved at the device%s%s", p->store, old ? "; last opened by node " : "", sb->open_node);
  }
  return r;
}

/* After the last write.  What stays registered forbids nothing to the next host, who knows the key. */
void
opening_give_reservation (struct engine *e)
{
  const struct params *p = &e->ia->p;
  uint64_t own = reserve_key (p->iasp_id, p->node, e->boot_id);
  char err[512];

  if (e->reserved != RESERVED_NOT && reserve_io_give (e->ia->store.fd, p->store, own, err, sizeof err) < 0)
    log_line ("%s", err);
  e->reserved = RESERVED_NOT;
}

/* ---- the claim (S1) ----------------------------------------------------------------------- */

struct claim_store {
  struct engine *e;
  const json_t *fenced;
};

static int
claim_read (void *opaque, void *buf, uint32_t len, uint64_t offset)
{
  struct store *s = &((struct claim_store *) opaque)->e->ia->store;

  store_forget (s, offset, len);
  return store_pread (s, buf, len, offset);
}

static int
claim_write (void *opaque, const void *buf, uint32_t len, uint64_t offset)
{
  struct store *s = &((struct claim_store *) opaque)->e->ia->store;
  int r = store_pwrite (s, buf, len, offset, 0);

  return r < 0 ? r : store_flush_all (s);
}

static bool
claim_is_fenced (void *opaque, const char *node)
{
  return has_name (((struct claim_store *) opaque)->fenced, node);
}

static struct claim_io
claim_io (struct claim_store *cs)
{
  return (struct claim_io) { .opaque = cs, .read = claim_read, .write = claim_write, .is_fenced = claim_is_fenced };
}

static void
say_not_written (const struct engine *e, const char *what, int r, char *err, size_t errlen)
{
  if (r == -EBADE && !e->ia->p.reservation)
    snprintf (err, errlen, "store %s: its device is reserved for another host; set persistent-reservation to on at each "
              "node of the site, or clear it at the device", e->ia->p.store);
  else
    snprintf (err, errlen, "store %s: its %s can't be written: %s", e->ia->p.store, what, strerror (-r));
}

/* 0, -EBUSY or -errno, with a sentence. */
static int
take_claim (struct engine *e, const json_t *fenced, char *err, size_t errlen)
{
  const struct params *p = &e->ia->p;
  struct claim_store cs = { .e = e, .fenced = fenced };
  const struct claim_io io = claim_io (&cs);
  int r;

  e->claimed_sb = e->meta.sb;
  r = claim_take (&e->claim, &e->claimed_sb, p->node_id, p->node, e->boot_id, e->session, &io);
  if (r == -EBUSY && e->claim.barred)
    snprintf (err, errlen, "store %s: node %s is opening it, or was when it died (S1); wait for it, or fence it and say so "
              "with crgctl mark-failed", p->store, e->claim.other.node);
  else if (r == -EBUSY)
    snprintf (err, errlen, "store %s: another node's claim came to the place of this one's (S1); their ids must not differ "
              "by a multiple of %d", p->store, META_CLAIMS);
  else if (r < 0)
    say_not_written (e, "claim", r, err, errlen);
  return r;
}

/* Nothing was opened, or the open record speaks for itself. */
static enum judge_act
give_claim (struct engine *e, char *err, size_t errlen)
{
  struct claim_store cs = { .e = e };
  const struct claim_io io = claim_io (&cs);
  int r = claim_give (&e->claim, &e->claimed_sb, &io);

  if (r < 0 && e->judge.refusal != JUDGE_NOT_REFUSED)
    log_line ("store %s: the claim to open it can't be taken back: %s", e->ia->p.store, strerror (-r));
  else if (r < 0)
    say_not_written (e, "superblock", r, err, errlen);
  return judge_done (&e->judge, r, clock_boottime_ms ());
}

void
opening_let_go (struct engine *e)
{
  char err[512];

  if (judge_end (&e->judge) == JUDGE_GIVE)
    give_claim (e, err, sizeof err);
  /* No open record names us yet: another host could not know the key. */
  if (e->reserved == RESERVED_TAKEN)
    opening_give_reservation (e);
  store_close (&e->ia->store);
}

/* ---- the steps ---------------------------------------------------------------------------- */

/* In one slot, stable. */
static enum judge_act
write_record (struct engine *e, char *err, size_t errlen)
{
  int r = storemeta_write (&e->meta, &e->ia->store, false);

  if (r < 0)
    say_not_written (e, "superblock", r, err, errlen);
  return judge_done (&e->judge, r, clock_boottime_ms ());
}

/* Up to JUDGE_OPEN, JUDGE_OPENED or JUDGE_REFUSED, with a sentence. */
static enum judge_act
carry_out (struct engine *e, enum judge_act act, const json_t *request, char *err, size_t errlen)
{
  const json_t *fenced = json_object_get (request, "fenced");

  for (;;)
    switch (act) {
    case JUDGE_READ:
      act = read_store (e, fenced, err, errlen);
      break;
    case JUDGE_FORMAT:
      act = format (e, err, errlen);
      break;
    case JUDGE_RESERVE:
      act = judge_done (&e->judge, take_reservation (e, err, errlen), clock_boottime_ms ());
      break;
    case JUDGE_CLAIM:
      act = judge_done (&e->judge, take_claim (e, fenced, err, errlen), clock_boottime_ms ());
      break;
    case JUDGE_WRITE:
      act = write_record (e, err, errlen);
      break;
    case JUDGE_GIVE:
      act = give_claim (e, err, errlen);
      break;
    case JUDGE_REFUSED:
      say_why (e, err, errlen);
      return act;
    case JUDGE_OPEN:
    case JUDGE_OPENED:
      return act;
    }
}

const char *
opening_store (struct engine *e, const struct record *r, uint8_t site, enum role role, const json_t *request, char *err,
               size_t errlen)
{
  const struct judge_ask ask = what_is_asked (e, r, site, role, request);
  struct iasp *ia = e->ia;
  const char *code;

  e->reserved = RESERVED_NOT;
  if (store_open_with (&ia->store, ia->p.store, ia->p.meta, ia->p.direct, err, errlen) < 0)
    return "store";
  ia->store.data_bytes = ia->p.size;
  e->released = false;
  if (store_lock (&ia->store, ia->p.store) < 0) {
    snprintf (err, errlen, "store %s: another process has it open%s%.150s (S1)", ia->p.store,
              ia->p.meta[0] ? ", or its metadata " : "", ia->p.meta);
    store_close (&ia->store);
    return "locked";
  }
  if (carry_out (e, judge_begin (&e->judge, &ask), request, err, errlen) == JUDGE_OPEN) {
    /* From now on nobody else writes: what was read before may be of before another node's turn. */
    store_forget_all (&ia->store);
    return NULL;
  }
  code = judge_code ((enum judge_refusal) e->judge.refusal);
  opening_let_go (e);
  return code;
}

const char *
opening_promote (struct engine *e, const struct record *r, uint8_t site, const json_t *request, char *err,
                 size_t errlen)
{
  const struct judge_ask ask = what_is_asked (e, r, site, ROLE_PRODUCTION, request);

  if (carry_out (e, judge_promote (&e->judge, &ask, &e->meta.sb), request, err, errlen) == JUDGE_OPEN)
    return NULL;
  return judge_code ((enum judge_refusal) e->judge.refusal);
}

int
opening_write_record (struct engine *e, char *err, size_t errlen)
{
  enum judge_act act = judge_record (&e->judge, &e->meta.sb, e->ia->store.direct, e->mapw.on);

  if (e->reserved == RESERVED_TAKEN)
    e->reserved = RESERVED_RECORDED;
  return carry_out (e, act, NULL, err, errlen) == JUDGE_OPENED ? 0 : e->judge.error;
}
