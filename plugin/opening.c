/* SPDX-License-Identifier: BSD-3-Clause */
/* Opening the store for a role, and letting it go: S1, R1, R4, R5, R6, and the open record.  It blocks the
 * engine thread: nothing else waits while a role changes.  It must never write anything but a claim to a store
 * that another node may have, or may be opening.
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

/* ---- opening the store -------------------------------------------------------------------- */

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

/* May this machine use the store that somebody has or had open (S1)?  Sets restarted (R5). */
static int
check_open_record (struct engine *e, const json_t *fenced, char *err, size_t errlen)
{
  const struct superblock *sb = &e->meta.sb;

  e->was_clean = !(sb->flags & SUPER_F_OPEN) && !e->meta.damaged;
  /* R5: opening a restarted copy doesn't make it whole. */
  e->restarted = e->meta.damaged || (sb->flags & SUPER_F_RESTARTED);
  if (!(sb->flags & SUPER_F_OPEN) || ident_id_equal (sb->open_boot_id, e->boot_id))
    return 0; /* (a), (b): released, or this boot and the lock was free */
  e->restarted = true;
  if (claim_is_over (sb->open_node, sb->open_boot_id, e->ia->p.node, e->boot_id, has_name (fenced, sb->open_node)))
    return 0; /* (b): this machine before it restarted; (d) */
  snprintf (err, errlen, "store %s: node %s has it open, or did not release it (S1); wait for it, or fence it and "
            "say so with crgctl mark-failed", e->ia->p.store, sb->open_node);
  return -EBUSY;
}

/* Do disk and record agree that this copy may be production (R4, R6, S2)?  NULL, or a code. */
const char *
opening_check_production (const struct engine *e, const struct record *r, uint8_t site, const json_t *request,
                          char *err, size_t errlen)
{
  const struct superblock *sb = &e->meta.sb;
  const char *path = e->ia->p.store;
  /* R4: what is forced is the first opening of the tenure; from then on disk and record agree. */
  bool forced = json_is_true (json_object_get (request, "forced")) && sb->tenure < r->tenure;

  if (!forced && !(r->in_set & 1u << site)) {
    snprintf (err, errlen, "store %s: the record does not have this copy in the in-sync set (R4)", path);
    return "not-in-set";
  }
  /* One damaged slot, as a power loss in the middle of a write leaves it, forbids nothing: what was
   * relied on is in the other one (nbd-crg-store(5)), and so is more rather than less of what is
   * forbidden. */
  if (sb->flags & SUPER_F_UNUSABLE) {
    snprintf (err, errlen, "store %s: it was never filled, or its resynchronisation is not over; it can't be "
              "production (R4)", path);
    return "unusable";
  }
  if (!forced && (sb->generation > r->generation || sb->generation < r->since[site])) {
    snprintf (err, errlen, "store %s: its generation %llu does not agree with the record's (since %llu, now %llu) (R6); "
              "an operator has to decide", path, (unsigned long long) sb->generation,
              (unsigned long long) r->since[site], (unsigned long long) r->generation);
    return "disagrees";
  }
  if (e->restarted && !forced && (r->in_set & ~(1u << site)) && !json_is_true (json_object_get (request, "accept_loss"))) {
    snprintf (err, errlen, "store %s: its machine restarted; what was answered and not flushed may be only on the other "
              "copies of the set (S2)", path);
    return "restarted";
  }
  return NULL;
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

/* Do its superblocks allow it?  NULL, or a code, with a sentence. */
static const char *
judge_store (struct engine *e, const struct record *r, uint8_t site, enum role role, const json_t *request,
             bool *is_new, char *err, size_t errlen)
{
  bool production = role == ROLE_PRODUCTION;
  struct iasp *ia = e->ia;
  struct superblock *sb = &e->meta.sb;
  int res;

  res = storemeta_read (&e->meta, &ia->store, ia->p.store, err, errlen);
  *is_new = res == -ENODATA;
  if (res == -ENODATA) {
    if (production && (r->generation != 1 || r->loss != 0)) {
      snprintf (err, errlen, "store %s: it has no superblock, and the CRG has used its production copy before; "
                "correct store=", ia->p.store);
      return "empty";
    }
    if (storemeta_format (&e->meta, &ia->store, &ia->p, site, err, errlen) < 0)
      return "store";
    sb->flags = (uint16_t) ((sb->flags & SUPER_F_EXTERNAL) | (production ? 0 : SUPER_F_UNUSABLE)
                            | (ia->p.fault_written ? SUPER_F_WRITTEN : 0));
    sb->generation = production ? r->generation : 0;
    sb->since = production ? r->since[site] : 0;
    e->was_clean = true;
    e->restarted = false;
    log_line ("store %s: new, %llu bytes of data", ia->p.store, (unsigned long long) sb->data_bytes);
  }
  else if (res == -ESTALE)
    return "identity";
  else if (res < 0)
    return "damaged";
  else {
    /* C9: the group was recovered, and this store was in its set: it goes on
     * under the new lineage, with the superblock that is written next. */
    if (r->has_past && (r->in_set & 1u << site) && ident_id_equal (sb->lineage, r->past)) {
      if (!e->claimed)
        log_line ("store %s: of the lineage that this group was recovered from; it gets the new one", ia->p.store);
      memcpy (sb->lineage, ia->p.lineage, CRG_ID_LEN);
    }
    if (storemeta_check (&e->meta, &ia->p, site, err, errlen) < 0)
      return "identity";
    if (sb->store_bytes != ia->store.store_bytes) {
      snprintf (err, errlen, "store %s: it has %llu bytes, and had %llu when it was made; restore its size", ia->p.store,
                (unsigned long long) ia->store.store_bytes, (unsigned long long) sb->store_bytes);
      return "size";
    }
    if (check_open_record (e, json_object_get (request, "fenced"), err, errlen) < 0)
      return "not-released";
    /* R4: the first opening of a tenure that was forced; the open record ends the fork.  R6: else
     * only what the record knows as one. */
    if ((sb->flags & SUPER_F_FORK)
        && !(production ? json_is_true (json_object_get (request, "forced")) && sb->tenure < r->tenure
                        : (r->fork >> site & 1) != 0)) {
      snprintf (err, errlen, "store %s: it is a fork (R6); reattach it", ia->p.store);
      return "fork";
    }
    if (sb->tenure > r->tenure) {
      snprintf (err, errlen, "store %s: it has seen tenure %llu, newer than %llu (R1)", ia->p.store,
                (unsigned long long) sb->tenure, (unsigned long long) r->tenure);
      return "tenure";
    }
    if (!production && sb->generation > r->generation) {
      snprintf (err, errlen, "store %s: its generation %llu is newer than the record's %llu (R6); an operator has to "
                "decide", ia->p.store, (unsigned long long) sb->generation, (unsigned long long) r->generation);
      return "disagrees";
    }
  }
  if (role == ROLE_DETACHED && (sb->flags & SUPER_F_UNUSABLE)) {
    snprintf (err, errlen, "store %s: it was never filled, or its resynchronisation is not over; there is no state "
              "of it to export", ia->p.store);
    return "unusable";
  }
  return production ? opening_check_production (e, r, site, request, err, errlen) : NULL;
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

/* NULL, or a code, with a sentence.  A controller that doesn't say which number the node has knows no claims. */
static const char *
take_claim (struct engine *e, const json_t *fenced, char *err, size_t errlen)
{
  const struct params *p = &e->ia->p;
  struct claim_store cs = { .e = e, .fenced = fenced };
  const struct claim_io io = claim_io (&cs);
  int r;

  if (p->node_id == 0)
    return NULL;
  e->claimed_sb = e->meta.sb;
  r = claim_take (&e->claim, &e->claimed_sb, p->node_id, p->node, e->boot_id, e->session, &io);
  e->claimed = r == 0;
  if (r == -EBUSY && e->claim.barred)
    snprintf (err, errlen, "store %s: node %s is opening it, or was when it died (S1); wait for it, or fence it and say so "
              "with crgctl mark-failed", p->store, e->claim.other.node);
  else if (r == -EBUSY)
    snprintf (err, errlen, "store %s: another node's claim came to the place of this one's (S1); their ids must not differ "
              "by a multiple of %d", p->store, META_CLAIMS);
  else if (r < 0)
    say_not_written (e, "claim", r, err, errlen);
  return r == -EBUSY ? "not-released" : r < 0 ? "store" : NULL;
}

/* Nothing was opened, or the open record speaks for itself. */
static int
give_claim (struct engine *e)
{
  struct claim_store cs = { .e = e };
  const struct claim_io io = claim_io (&cs);

  if (!e->claimed)
    return 0;
  e->claimed = false;
  return claim_give (&e->claim, &e->claimed_sb, &io);
}

void
opening_let_go (struct engine *e)
{
  int r = give_claim (e);

  if (r < 0)
    log_line ("store %s: the claim to open it can't be taken back: %s", e->ia->p.store, strerror (-r));
  /* No open record names us yet: another host could not know the key. */
  if (e->reserved == RESERVED_TAKEN)
    opening_give_reservation (e);
  store_close (&e->ia->store);
}

/* ---- opening ------------------------------------------------------------------------------ */

/* L1, S1: who takes this long has been succeeded by another. */
static bool
lease_is_over (uint64_t lease_until_ms)
{
  return lease_until_ms != 0 && clock_boottime_ms () >= lease_until_ms;
}

const char *
opening_store (struct engine *e, const struct record *r, uint8_t site, enum role role, const json_t *request, char *err,
               size_t errlen)
{
  const json_t *lease = json_object_get (request, "lease_until_ms");
  struct iasp *ia = e->ia;
  const char *code;
  bool is_new;

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
  code = judge_store (e, r, site, role, request, &is_new, err, errlen);
  if (!code && take_reservation (e, err, errlen) < 0)
    code = "reservation";
  /* Another node may have opened it, and let it go, since it was judged. */
  if (!code && !is_new) {
    code = take_claim (e, json_object_get (request, "fenced"), err, errlen);
    if (!code && e->claimed)
      code = judge_store (e, r, site, role, request, &is_new, err, errlen);
    if (!code && (is_new || (e->claimed && !ident_id_equal (e->meta.sb.store_id, e->claimed_sb.store_id)))) {
      snprintf (err, errlen, "store %s: it was formatted anew while it was opened", ia->p.store);
      code = "identity";
    }
    if (!code && role == ROLE_PRODUCTION && json_is_integer (lease)
        && lease_is_over ((uint64_t) json_integer_value (lease))) {
      snprintf (err, errlen, "store %s: the lease ended before this node could open it (S1)", ia->p.store);
      code = "store";
    }
  }
  if (code)
    opening_let_go (e);
  return code;
}

/* The open record, stable in both slots before anything relies on it (R1, S1), and then the claim is not needed any
 * more.  Without a claim nobody else can know of it until the first slot is stable: if that takes longer than the
 * lease, another host may have opened the store, and nothing more is written. */
int
opening_write_record (struct engine *e, enum role role, char *err, size_t errlen)
{
  struct superblock *sb = &e->meta.sb;
  bool production = role == ROLE_PRODUCTION, late;
  int r;

  /* R6: from its first opening as a fork on, all that it is written is in its maps. */
  if (role == ROLE_DETACHED && sb->role == SUPER_ROLE_MIRROR && e->mapw.on)
    sb->flags |= SUPER_F_TRACKED;
  sb->role = production ? SUPER_ROLE_PRODUCTION : role == ROLE_MIRROR ? SUPER_ROLE_MIRROR : SUPER_ROLE_DETACHED;
  sb->flags = (uint16_t) ((sb->flags & (SUPER_F_UNUSABLE | SUPER_F_FILLING | SUPER_F_EXTERNAL | SUPER_F_WRITTEN))
                          | SUPER_F_OPEN | (e->ia->store.direct ? SUPER_F_DIRECT : 0)
                          | (production ? 0 : sb->flags & (SUPER_F_FORK | SUPER_F_TRACKED))
                          | (role == ROLE_DETACHED ? SUPER_F_FORK : 0)
                          | (e->restarted && !production ? SUPER_F_RESTARTED : 0));
  /* R1: a detached copy takes part in no tenure. */
  if (role != ROLE_DETACHED)
    sb->tenure = e->rec.tenure;
  if (production) {
    sb->generation = e->rec.generation;
    sb->since = e->rec.since[e->site];
  }
  sb->in_set = e->rec.in_set;
  sb->loss = e->rec.loss;
  snprintf (sb->open_node, sizeof sb->open_node, "%s", e->ia->p.node);
  memcpy (sb->open_boot_id, e->boot_id, CRG_ID_LEN);
  sb->open_session = e->session;
  if (e->reserved == RESERVED_TAKEN)
    e->reserved = RESERVED_RECORDED;
  r = storemeta_write (&e->meta, &e->ia->store, false);
  late = production && lease_is_over (e->lease_until_ms);
  if (r == 0)
    r = late ? -ETIMEDOUT : storemeta_write (&e->meta, &e->ia->store, false);
  if (r == 0)
    r = give_claim (e);
  if (r == -ETIMEDOUT && late)
    snprintf (err, errlen, "store %s: the lease ended before it was known that this node has the store open (S1)",
              e->ia->p.store);
  else if (r < 0)
    say_not_written (e, "superblock", r, err, errlen);
  return r;
}
