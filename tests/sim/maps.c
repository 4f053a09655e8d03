/* SPDX-License-Identifier: BSD-3-Clause
 *
 * plugin/mapw.c for crgsim: the maps of the open store, loaded when a role begins and written block
 * by block, each stable before the core that asked hears of it.
 */
#include <errno.h>
#include <string.h>

#include "common/util.h"
#include "tests/sim/world.h"

#define DEPTH 4

static uint32_t
block_of (const struct wdisk *d, uint8_t kind, unsigned site, unsigned copy, uint64_t index)
{
  struct meta_layout l;
  uint64_t offset;

  if (meta_layout (d->store_bytes, W_BLOCK, &l) < 0) {
    world_fail ("a store without a layout");
    return 0;
  }
  offset = kind == META_HOT       ? l.hot.offset + copy * (l.hot.blocks / 2) * META_BLOCK_SIZE
           : kind == META_WRITTEN ? l.written.offset
                                  : l.bitmap[site].offset;
  return (uint32_t) ((offset - round_up (W_SIZE, META_BLOCK_SIZE)) / META_BLOCK_SIZE + index);
}

static bool
bit_of (const struct wdisk *d, uint32_t block, uint64_t i)
{
  return (d->meta[block][META_BLOCK_HEADER + i / 8] >> i % 8 & 1) != 0;
}

/* Or after a loss of power, which takes back what was not flushed, as a mark that was let go.  Of what rotted all
 * counts. */
static bool
says (const struct wdisk *d, uint32_t block, uint64_t i)
{
  return d->meta_rotten[block] || bit_of (d, block, i)
         || (d->meta_stable[block][META_BLOCK_HEADER + i / 8] >> i % 8 & 1) != 0;
}

/* The process that has the mirror copy of site t open, if its maps are loaded: what it tells production (MAP) is what
 * it has in memory. */
static const struct wplugin *
copy_at (unsigned t, unsigned iasp)
{
  for (unsigned n = 0; n < w.n_nodes; n++) {
    const struct wplugin *p = plugin_of (n, iasp);

    if (p->running && p->site == t && p->copy_on && p->mapw.on)
      return p;
  }
  return NULL;
}

/* Does any disk say that the copy of `site` may differ in this block, hot or dirty, or may it yet?  told: of a copy
 * that is open, does its process say so? */
bool
map_says (unsigned iasp, unsigned site, unsigned block, bool told)
{
  const uint64_t region = (uint64_t) block * W_BLOCK / HOT_REGION_SIZE_MIN;

  for (unsigned t = 0; t < w.mix.n_sites; t++) {
    const struct wdisk *d = &w.disk[t][iasp];
    const struct wplugin *p = told ? copy_at (t, iasp) : NULL;

    if (p) {
      if (hot_is_marked (&p->mapw.mark.hot, region))
        return true;
      for (unsigned s = 0; s < w.mix.n_sites; s++)
        if ((s == site || t == site) && bits_get (&p->mapw.mark.bits[s], block))
          return true;
      continue;
    }
    for (unsigned copy = 0; copy < 2; copy++)
      if (says (d, block_of (d, META_HOT, 0, copy, 0), region))
        return true;
    for (unsigned s = 0; s < w.mix.n_sites; s++)
      if ((s == site || t == site) && says (d, block_of (d, META_BITMAP, s, 0, 0), block))
        return true;
  }
  return false;
}

/* Any block of any map, at any moment: a bit turns, or a sector or all of it reads as zeroes.  The real codec has to
 * find it, whatever is lost then: all its bits count, which costs a larger resync, and reads that wait for it, and
 * never data.  A bit that reads as it was written, long ago (a write that was lost) is beyond the model: the CRC is
 * right. */
void
maps_rot (struct wdisk *d, uint32_t a)
{
  const unsigned what = a % (3 + w.mix.n_sites);
  const uint32_t k = what < 2    ? block_of (d, META_HOT, 0, what, 0)
                     : what == 2 ? block_of (d, META_WRITTEN, 0, 0, 0)
                                 : block_of (d, META_BITMAP, what - 3, 0, 0);
  const uint32_t sealed = what < 2    ? SUPER_SEALED_HOT
                          : what == 2 ? SUPER_SEALED_WRITTEN
                                      : SUPER_SEALED_BITMAP (what - 3);
  struct super_choice choice;
  enum super_status status;
  struct superblock sb;

  slot_read (d, &sb, &choice, &status);
  if (d->meta_rotten[k] || status != SUPER_OK /* twice may be as it was */
      || !(sb.sealed & sealed))
    return; /* nothing was ever written there */
  if (a / 16 % 4 == 0)
    memset (d->meta[k], 0, META_BLOCK_SIZE);
  else if (a / 16 % 4 == 1)
    memset (d->meta[k] + a / 64 % 8 * 512, 0, 512);
  else
    d->meta[k][a / 64 % META_BLOCK_SIZE] ^= (uint8_t) (1u << (a >> 20 & 7));
  if (memcmp (d->meta_stable[k], d->meta[k], META_BLOCK_SIZE) == 0)
    return; /* they were zeroes */
  memcpy (d->meta_stable[k], d->meta[k], META_BLOCK_SIZE);
  d->meta_rotten[k] = true;
}

static int
check_block (const struct wdisk *d, uint32_t k, const struct meta_block_id *id, uint32_t sealed, uint64_t *seq)
{
  const int r = meta_block_check_sealed (d->meta[k], id, sealed, seq);

  if (d->meta_rotten[k] && r != -EBADMSG)
    world_fail ("a block of a map that rotted counts (kind %u, site %u)", id->kind, id->site);
  w.st.rot_found += d->meta_rotten[k];
  return r;
}

static struct meta_block_id
block_id (const struct wplugin *p, uint8_t kind, unsigned site, uint64_t index)
{
  struct meta_block_id id = { .kind = kind, .site = (uint8_t) site, .index = index };

  memcpy (id.store_id, p->sb.store_id, CRG_ID_LEN);
  return id;
}

/* mapw.c: seal_empty.  Stable at once; the superblock that is written next says so. */
static void
seal_empty (struct wplugin *p, uint8_t kind, unsigned site, unsigned copy, uint64_t index)
{
  struct wdisk *d = &w.disk[p->site][p->iasp];
  const uint32_t k = block_of (d, kind, site, copy, index);
  struct meta_block_id id = block_id (p, kind, site, index);
  uint64_t seq;

  if (meta_block_check (d->meta[k], &id, &seq) != -ENODATA)
    return;
  meta_block_seal (d->meta[k], &id, 0);
  memcpy (d->meta_stable[k], d->meta[k], META_BLOCK_SIZE);
  d->meta_unstable[k] = false;
}

static void
seal_maps (struct wplugin *p)
{
  const struct mark *m = &p->mapw.mark;

  for (uint64_t i = 0; i < m->hot.n_blocks && !(p->sb.sealed & SUPER_SEALED_HOT); i++)
    for (unsigned copy = 0; copy < 2; copy++)
      seal_empty (p, META_HOT, 0, copy, i);
  p->sb.sealed |= SUPER_SEALED_HOT;
  for (unsigned s = 0; s < p->rec.n_sites; s++) {
    for (uint64_t i = 0; i < m->bits[s].n_blocks && !(p->sb.sealed & SUPER_SEALED_BITMAP (s)); i++)
      seal_empty (p, META_BITMAP, s, 0, i);
    p->sb.sealed |= SUPER_SEALED_BITMAP (s);
  }
  for (uint64_t i = 0; i < m->written.n_blocks && !(p->sb.sealed & SUPER_SEALED_WRITTEN); i++)
    seal_empty (p, META_WRITTEN, 0, 0, i);
  p->sb.sealed |= m->written.map ? SUPER_SEALED_WRITTEN : 0;
}

static void
load_written (struct wplugin *p)
{
  const struct wdisk *d = &w.disk[p->site][p->iasp];
  struct mark *m = &p->mapw.mark;

  for (uint64_t i = 0; i < m->written.n_blocks; i++) {
    const uint32_t k = block_of (d, META_WRITTEN, 0, 0, i);
    const uint8_t *block = d->meta[k];
    struct meta_block_id id = block_id (p, META_WRITTEN, 0, i);
    uint64_t seq = 0;
    int r = check_block (d, k, &id, p->sb.sealed, &seq);

    m->sequence = MAX (m->sequence, r == 0 ? seq : 0);
    if (r != -ENODATA)
      mark_load_written (m, i, r == 0 ? block + META_BLOCK_HEADER : NULL);
  }
  mark_loaded (m);
}

/* W2: a write is on its way to this unit.  Whoever has no map has written everything. */
void
check_written (const struct wplugin *p, uint64_t offset, uint64_t length)
{
  const struct wdisk *d = &w.disk[p->site][p->iasp];
  struct meta_block_id id = block_id (p, META_WRITTEN, 0, 0);
  const uint32_t k = block_of (d, META_WRITTEN, 0, 0, 0);
  uint64_t seq;

  if (!(p->sb.flags & SUPER_F_WRITTEN) || meta_block_check (d->meta_stable[k], &id, &seq) != 0)
    return;
  for (uint64_t at = offset; at < offset + length; at += W_UNIT)
    if (!(d->meta_stable[k][META_BLOCK_HEADER + at / W_BLOCK / 8] >> at / W_BLOCK % 8 & 1)) {
      world_fail ("n%u: a write to unit %u, which the disk does not have as written (W2)", p->node + 1,
                  (unsigned) (at / W_UNIT));
      return;
    }
}

static void
load (struct wplugin *p)
{
  const struct wdisk *d = &w.disk[p->site][p->iasp];
  struct mark *m = &p->mapw.mark;

  seal_maps (p);
  for (uint64_t i = 0; i < m->hot.n_blocks; i++) {
    const uint8_t *newest = NULL;
    uint64_t newest_seq = 0, seq[2] = { 0, 0 };
    bool damaged = false, whole[2];

    for (unsigned copy = 0; copy < 2; copy++) {
      const uint32_t k = block_of (d, META_HOT, 0, copy, i);
      const uint8_t *block = d->meta[k];
      struct meta_block_id id = block_id (p, META_HOT, 0, i);
      int r = check_block (d, k, &id, p->sb.sealed, &seq[copy]);

      whole[copy] = r == 0;
      damaged = damaged || r == -EBADMSG;
      m->sequence = MAX (m->sequence, r == 0 ? seq[copy] : 0);
      if (r == 0 && (newest == NULL || seq[copy] > newest_seq)) {
        newest = block;
        newest_seq = seq[copy];
      }
    }
    if (damaged && newest == NULL) /* torn by a loss of power, or rotten: all of it counts */
      for (unsigned s = 0; s < w.mix.n_sites; s++)
        check_differs (p->iasp, s, 0, W_SIZE);
    if (newest || damaged)
      mark_load_hot (m, i, newest ? newest + META_BLOCK_HEADER : NULL,
                     whole[0] && whole[1] && seq[0] == seq[1]);
  }
  for (unsigned s = 0; s < p->rec.n_sites; s++)
    for (uint64_t i = 0; i < m->bits[s].n_blocks; i++) {
      const uint32_t at = block_of (d, META_BITMAP, s, 0, i);
      const uint8_t *block = d->meta[at];
      struct meta_block_id id = block_id (p, META_BITMAP, s, i);
      uint64_t seq = 0;
      int r = check_block (d, at, &id, p->sb.sealed, &seq);

      m->sequence = MAX (m->sequence, r == 0 ? seq : 0);
      if (r != 0 && r != -ENODATA)
        for (unsigned k = 0; k < w.mix.n_sites; k++)
          check_differs (p->iasp, k, 0, W_SIZE);
      if (r != -ENODATA)
        mark_load_bits (m, s, i, r == 0 ? block + META_BLOCK_HEADER : NULL);
    }
  load_written (p);
}

static uint32_t
seal (struct wplugin *p, const struct mark_block *b, uint8_t block[META_BLOCK_SIZE])
{
  struct meta_block_id id = block_id (p, b->kind, b->site, b->index);

  memcpy (block + META_BLOCK_HEADER, b->payload, META_BLOCK_PAYLOAD);
  meta_block_seal (block, &id, p->mapw.mark.sequence);
  return block_of (&w.disk[p->site][p->iasp], b->kind, b->site, b->copy, b->index);
}

/* R4: a forced production does not know what the others have that it has not. */
static void
forget_others (struct wplugin *p)
{
  struct wdisk *d = &w.disk[p->site][p->iasp];
  struct mark *m = &p->mapw.mark;
  uint8_t block[META_BLOCK_SIZE];
  struct mark_block b;

  for (unsigned s = 0; s < p->rec.n_sites; s++)
    if (s != p->site)
      bits_fill (&m->bits[s], true);
  mark_persist (m);
  for (bool more = mark_begin (m, false); more; more = mark_done (m, true))
    while (mark_next (m, &b)) {
      uint32_t k = seal (p, &b, block);

      memcpy (d->meta[k], block, META_BLOCK_SIZE);
      d->meta_rotten[k] = false;
      memcpy (d->meta_stable[k], block, META_BLOCK_SIZE);
      d->meta_unstable[k] = false;
    }
}

void
mapw_open (struct wplugin *p, bool production, bool forced)
{
  const unsigned entries = production ? HOT_MIN_ENTRIES : 2 * HOT_MIN_ENTRIES;

  memset (&p->mapw, 0, sizeof p->mapw);
  if (mark_memory_bytes (W_SIZE, W_BLOCK, HOT_REGION_SIZE_MIN, entries, p->rec.n_sites) > sizeof p->mark_memory) {
    world_fail ("the maps want more memory");
    return;
  }
  memset (p->mark_memory, 0, sizeof p->mark_memory);
  mark_init (&p->mapw.mark, p->mark_memory, W_SIZE, W_BLOCK, HOT_REGION_SIZE_MIN, entries, p->rec.n_sites);
  p->mapw.mark.hot.clear_above = 2; /* few, so that clearing is seen */
  if (p->sb.flags & SUPER_F_WRITTEN) {
    memset (p->written_memory, 0, sizeof p->written_memory);
    mark_use_written (&p->mapw.mark, p->written_memory);
  }
  load (p);
  if (forced) {
    forget_others (p);
    for (unsigned s = 0; s < w.mix.n_sites; s++)
      check_differs (p->iasp, s, 0, W_SIZE);
  }
  p->mapw.on = true;
}

struct mark *
mapw_mark (struct wplugin *p)
{
  return p->mapw.on ? &p->mapw.mark : NULL;
}

static void
stage_over (struct wplugin *p)
{
  struct repl_event ev = { .kind = RE_MARKED, .error = p->mapw.error };
  const int error = p->mapw.error;

  p->mapw.active = false;
  p->mapw.error = 0;
  if (error < 0)
    p->store_dead = true;
  if (p->prod_on)
    prod_feed (p, &ev);
  else
    copyside_marked (p, error);
}

static void
pump (struct wplugin *p)
{
  struct mark_block b;

  while (p->mapw.n_busy < DEPTH && !p->mapw.all && p->mapw.error == 0) {
    struct dop *op;

    if (!mark_next (&p->mapw.mark, &b)) {
      p->mapw.all = true;
      break;
    }
    /* Regions ahead of a sequential writer are hot as well. */
    for (uint64_t i = 0; b.kind == META_HOT && i * HOT_REGION_SIZE_MIN < W_SIZE; i++)
      for (unsigned s = 0; s < w.mix.n_sites && (b.payload[i / 8] >> i % 8 & 1) != 0; s++)
        check_differs (p->iasp, s, i * HOT_REGION_SIZE_MIN, 1);
    p->mapw.n_busy++;
    op = disk_op (p, DW_META, DF_HOT, 0, 0, 0, true);
    op->block = seal (p, &b, op->meta);
  }
  if (p->mapw.n_busy == 0)
    stage_over (p);
}

void
mapw_done (struct wplugin *p, int error)
{
  p->mapw.n_busy--;
  if (error < 0 && p->mapw.error == 0)
    p->mapw.error = error;
  pump (p);
}

void
mapw_write (struct wplugin *p)
{
  p->mapw.active = true;
  p->mapw.all = false;
  pump (p);
}
