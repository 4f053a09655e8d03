/* SPDX-License-Identifier: BSD-3-Clause */
/* The maps of the open store (mark.h): loads them when a role begins, and writes their blocks
 * through the engine's ring, each stable before the core that asked hears of it.  Both copies of a
 * hot block go out together.  It decides nothing: what is written when is mark.c's.
 */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/util-posix.h"
#include "plugin/engine_private.h"
#include "plugin/log.h"

/* What is read at once when maps are loaded. */
#define LOAD_BYTES (256u * 1024)

static void pump (struct engine *e);

static struct meta_block_id
block_id (const struct engine *e, uint8_t kind, uint8_t site, uint64_t index)
{
  struct meta_block_id id = { .kind = kind, .site = site, .index = index };

  memcpy (id.store_id, e->meta.sb.store_id, CRG_ID_LEN);
  return id;
}

static uint64_t
block_offset (const struct meta_layout *l, const struct mark_block *b)
{
  const uint64_t area = b->kind == META_HOT       ? l->hot.offset + b->copy * (l->hot.blocks / 2) * META_BLOCK_SIZE
                        : b->kind == META_WRITTEN ? l->written.offset
                                                  : l->bitmap[b->site].offset;

  return area + b->index * META_BLOCK_SIZE;
}

/* ---- loading ------------------------------------------------------------------------------ */

/* What the two copies of a block of the hot map are. */
struct hot_found {
  bool whole, damaged; /* one of them */
  bool both;           /* the same, so far */
  uint64_t sequence;
};

/* Blocks that were never written are now, empty, so that from here on zeroes are known for damage.
 * True: there were any. */
static bool
seal_empty (struct engine *e, uint8_t kind, unsigned site, uint64_t index, uint8_t *blocks, uint32_t n)
{
  bool any = false;

  for (uint32_t k = 0; k < n; k++) {
    uint8_t *block = blocks + (size_t) k * META_BLOCK_SIZE;
    struct meta_block_id id = block_id (e, kind, (uint8_t) site, index + k);
    uint64_t seq;

    if (meta_block_check (block, &id, &seq) == -ENODATA) {
      meta_block_seal (block, &id, 0);
      any = true;
    }
  }
  return any;
}

/* One copy of the hot map's first n blocks, or n blocks of another map. */
static int
load_area (struct engine *e, uint8_t kind, unsigned site, uint64_t offset, uint64_t n, struct hot_found *found,
           uint8_t *buf)
{
  struct mapw *w = &e->mapw;
  const uint32_t sealed = e->meta.sb.sealed;
  const bool seal = !(sealed & (kind == META_HOT       ? SUPER_SEALED_HOT
                                : kind == META_WRITTEN ? SUPER_SEALED_WRITTEN
                                                       : SUPER_SEALED_BITMAP (site)));

  for (uint64_t at = 0; at < n;) {
    uint32_t count = (uint32_t) MIN ((uint64_t) LOAD_BYTES, (n - at) * META_BLOCK_SIZE);
    int r = store_pread (&e->ia->store, buf, count, offset + at * META_BLOCK_SIZE);

    if (r == 0 && seal && seal_empty (e, kind, site, at, buf, count / META_BLOCK_SIZE))
      r = store_pwrite (&e->ia->store, buf, count, offset + at * META_BLOCK_SIZE, 0);
    if (r < 0)
      return r;
    for (uint32_t k = 0; k < count / META_BLOCK_SIZE; k++, at++) {
      const uint8_t *block = buf + (size_t) k * META_BLOCK_SIZE;
      struct meta_block_id id = block_id (e, kind, (uint8_t) site, at);
      uint64_t seq = 0;

      r = meta_block_check_sealed (block, &id, sealed, &seq);
      w->mark.sequence = MAX (w->mark.sequence, seq);
      if (kind == META_WRITTEN && r != -ENODATA)
        mark_load_written (&w->mark, at, r == 0 ? block + META_BLOCK_HEADER : NULL);
      if (kind == META_BITMAP && r != -ENODATA)
        mark_load_bits (&w->mark, site, at, r == 0 ? block + META_BLOCK_HEADER : NULL);
      if (kind != META_HOT) {
        w->n_damaged += r == -EBADMSG;
        continue;
      }
      /* Of two whole copies the newer one; a damaged one counts only if both are. */
      found[at].both = r == 0 && found[at].whole && seq == found[at].sequence;
      if (r == 0 && (!found[at].whole || seq > found[at].sequence)) {
        found[at].whole = true;
        found[at].sequence = seq;
        memcpy (w->load + at * META_BLOCK_PAYLOAD, block + META_BLOCK_HEADER, META_BLOCK_PAYLOAD);
      }
      found[at].damaged = found[at].damaged || r == -EBADMSG;
    }
  }
  return 0;
}

static int
load (struct engine *e, const struct meta_layout *l)
{
  struct mapw *w = &e->mapw;
  const uint64_t n = w->mark.hot.n_blocks;
  CLEANUP_FREE struct hot_found *found = calloc (n, sizeof *found);
  CLEANUP_FREE uint8_t *buf = NULL;
  uint32_t seals;
  void *p;
  int r;

  w->load = calloc (n, META_BLOCK_PAYLOAD);
  if (!found || !w->load || posix_memalign (&p, META_BLOCK_SIZE, LOAD_BYTES) != 0)
    return -ENOMEM;
  buf = p;
  for (unsigned copy = 0; copy < 2; copy++) {
    r = load_area (e, META_HOT, 0, l->hot.offset + copy * (l->hot.blocks / 2) * META_BLOCK_SIZE, n, found, buf);
    if (r < 0)
      return r;
  }
  for (uint64_t i = 0; i < n; i++) {
    if (found[i].whole || found[i].damaged)
      mark_load_hot (&w->mark, i, found[i].whole ? w->load + i * META_BLOCK_PAYLOAD : NULL, found[i].both);
    w->n_damaged += found[i].damaged;
  }
  seals = SUPER_SEALED_HOT;
  for (unsigned s = 0; s < e->rec.n_sites; s++) {
    r = load_area (e, META_BITMAP, s, l->bitmap[s].offset, w->mark.bits[s].n_blocks, NULL, buf);
    if (r < 0)
      return r;
    seals |= SUPER_SEALED_BITMAP (s);
  }
  if (w->mark.written.map) {
    r = load_area (e, META_WRITTEN, 0, l->written.offset, w->mark.written.n_blocks, NULL, buf);
    if (r < 0)
      return r;
    seals |= SUPER_SEALED_WRITTEN;
    mark_loaded (&w->mark);
  }
  /* The superblock that says so is the one that is written next, before anybody uses the store. */
  if (seals & ~e->meta.sb.sealed) {
    r = store_flush_all (&e->ia->store);
    if (r < 0)
      return r;
    e->meta.sb.sealed |= seals;
  }
  return 0;
}

/* R4: a forced production does not know what the others have that it has not.  On its disk before
 * anything else is. */
static int
forget_others (struct engine *e, const struct meta_layout *l)
{
  struct mapw *w = &e->mapw;
  struct mark_block b;

  for (unsigned s = 0; s < e->rec.n_sites; s++)
    if (s != e->site)
      bits_fill (&w->mark.bits[s], true);
  mark_persist (&w->mark);
  for (bool more = mark_begin (&w->mark, false); more; more = mark_done (&w->mark, true)) {
    while (mark_next (&w->mark, &b)) {
      uint8_t *block = w->io[0].buf;
      struct meta_block_id id = block_id (e, b.kind, b.site, b.index);
      int r;

      memcpy (block + META_BLOCK_HEADER, b.payload, META_BLOCK_PAYLOAD);
      meta_block_seal (block, &id, w->mark.sequence);
      r = store_pwrite (&e->ia->store, block, META_BLOCK_SIZE, block_offset (l, &b), 0);
      if (r < 0)
        return r;
    }
    if (store_flush_all (&e->ia->store) < 0)
      return -EIO;
  }
  return 0;
}

/* What is written without a mark would not be in the map either (W2): from now on all counts as written (W3).  The
 * superblock that says so is the open record, on the disk before the first write. */
static void
forget_written (struct engine *e)
{
  struct superblock *sb = &e->meta.sb;

  if (sb->flags & SUPER_F_WRITTEN)
    log_line ("store %s: nothing is tracked, so from now on all of it counts as written", e->ia->p.store);
  sb->flags = (uint16_t) (sb->flags & ~SUPER_F_WRITTEN);
  sb->sealed &= ~SUPER_SEALED_WRITTEN;
}

int
mapw_open (struct engine *e, bool production, bool forced, char *err, size_t errlen)
{
  struct mapw *w = &e->mapw;
  const struct params *p = &e->ia->p;
  /* Not by the measured rate: both sides of a link have to have regions of one size. */
  const uint32_t region = hot_region_size (p->size, (uint64_t) p->resync_target_s * HOT_RESYNC_BYTES_S);
  struct meta_layout l;
  int r;

  mapw_close (e);
  if (p->fault_no_tracking || e->rec.n_sites < 2) {
    forget_written (e);
    return 0;
  }
  w->memory = calloc (1, mark_memory_bytes (p->size, p->dirty_block, region, HOT_MAX_ENTRIES, e->rec.n_sites));
  if (w->memory && (e->meta.sb.flags & SUPER_F_WRITTEN))
    w->written = calloc (1, bits_memory_bytes (div_round_up (p->size, p->dirty_block)));
  if (!w->memory || (!w->written && (e->meta.sb.flags & SUPER_F_WRITTEN))) {
    snprintf (err, errlen, "no memory for the maps of the store");
    mapw_close (e);
    return -ENOMEM;
  }
  mark_init (&w->mark, w->memory, p->size, p->dirty_block, region, HOT_MAX_ENTRIES, e->rec.n_sites);
  if (w->written)
    mark_use_written (&w->mark, w->written);
  r = meta_layout (e->meta.sb.store_bytes, p->dirty_block, &l);
  if (r == 0)
    r = load (e, &l);
  if (r == 0 && forced)
    r = forget_others (e, &l);
  free (w->load);
  w->load = NULL;
  if (r < 0) {
    snprintf (err, errlen, "store %s: its maps can't be read: %s", p->store, strerror (-r));
    mapw_close (e);
    return r;
  }
  w->layout = l;
  w->on = true;
  w->production = production;
  mapw_bound (e);
  if (w->n_damaged > 0)
    log_line ("store %s: %u damaged blocks in its maps; all that they cover counts as different", p->store, w->n_damaged);
  return 0;
}

void
mapw_bound (struct engine *e)
{
  struct hot *h = &e->mapw.mark.hot;
  const uint64_t measured = e->meta.sb.resync_rate;
  const uint64_t rate = measured == 0 ? HOT_RESYNC_BYTES_S
                                      : MIN (MAX (measured, (uint64_t) HOT_RESYNC_BYTES_S_MIN), HOT_RESYNC_BYTES_S_MAX);
  uint64_t limit;

  if (!e->mapw.on)
    return;
  limit = e->ia->p.resync_target_s * rate / h->region_size;
  limit = MIN (MAX (limit, (uint64_t) HOT_MIN_ENTRIES), (uint64_t) HOT_MAX_ENTRIES / 2);
  h->clear_above = (unsigned) limit / 2;
  /* A copy takes what production marks, whatever its own bound would be. */
  if (e->mapw.production)
    h->max_entries = (unsigned) limit;
}

void
mapw_close (struct engine *e)
{
  struct mapw *w = &e->mapw;

  free (w->memory);
  free (w->written);
  w->memory = w->written = NULL;
  w->on = w->active = false;
  w->n_damaged = 0;
  memset (&w->mark, 0, sizeof w->mark);
}

struct mark *
mapw_mark (struct engine *e)
{
  return e->mapw.on ? &e->mapw.mark : NULL;
}

/* ---- writing ------------------------------------------------------------------------------ */

static void
stage_over (struct engine *e)
{
  struct mapw *w = &e->mapw;
  int error = w->error;

  w->active = false;
  w->error = 0;
  if (error < 0) {
    log_line ("maps of %s: %s", e->ia->p.store, strerror (-error));
    store_fail (&e->ia->store, -error);
  }
  if (e->prod.on) {
    struct repl_event ev = { .kind = RE_MARKED, .error = error };

    prod_feed (e, &ev);
  }
  else
    copyside_marked (e, error);
}

static void
write_done (struct sop *op, int error)
{
  struct mapw_io *io = container_of (op, struct mapw_io, sop);
  struct engine *e = io->e;

  e->mapw.n_busy--;
  if (error < 0 && e->mapw.error == 0)
    e->mapw.error = error;
  pump (e);
}

static void
pump (struct engine *e)
{
  struct mapw *w = &e->mapw;
  const struct meta_layout *l = &w->layout;

  for (unsigned i = 0; i < MAPW_DEPTH && !w->all && w->error == 0; i++) {
    struct mapw_io *io = &w->io[i];
    struct mark_block b;
    struct meta_block_id id;

    if (io->sop.busy)
      continue;
    if (!mark_next (&w->mark, &b)) {
      w->all = true;
      break;
    }
    id = block_id (e, b.kind, b.site, b.index);
    memcpy (io->buf + META_BLOCK_HEADER, b.payload, META_BLOCK_PAYLOAD);
    meta_block_seal (io->buf, &id, w->mark.sequence);
    w->n_busy++;
    sop_start (&io->sop, SOP_WRITE, block_offset (l, &b), META_BLOCK_SIZE, io->buf, true, false);
  }
  if (w->n_busy == 0)
    stage_over (e);
}

/* RA_MARK, CA_MARK. */
void
mapw_write (struct engine *e)
{
  e->mapw.active = true;
  e->mapw.all = false;
  pump (e);
}

bool
mapw_is_idle (const struct engine *e)
{
  return !e->mapw.active;
}

/* ---- life --------------------------------------------------------------------------------- */

int
mapw_init (struct engine *e)
{
  for (unsigned i = 0; i < MAPW_DEPTH; i++) {
    struct mapw_io *io = &e->mapw.io[i];
    void *p;

    if (posix_memalign (&p, META_BLOCK_SIZE, META_BLOCK_SIZE) != 0)
      return -ENOMEM;
    io->buf = p;
    io->e = e;
    if (sop_init (&io->sop, &e->env, write_done) < 0)
      return -ENOMEM;
  }
  return 0;
}

void
mapw_free (struct engine *e)
{
  mapw_close (e);
  for (unsigned i = 0; i < MAPW_DEPTH; i++) {
    free (e->mapw.io[i].buf);
    sop_free (&e->mapw.io[i].sop);
  }
}
