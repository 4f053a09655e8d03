/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The disks of crgsim's world.  A write lands when it returns, and stays even if its process is
 * gone by then: the store's lock is held for so long.  A loss of power leaves of each unstable
 * unit the old or the new content, and of each unstable block of metadata any prefix of sectors;
 * writes under way land in part.
 */
#include <errno.h>
#include <string.h>

#include "common/util.h"
#include "tests/sim/world.h"

void
disk_slot_block (const struct wdisk *d, unsigned slot, uint32_t *block)
{
  uint64_t offset[2];

  if (meta_slot_offsets (d->store_bytes, offset) < 0) {
    world_fail ("a store without slots");
    *block = 0;
    return;
  }
  *block = (uint32_t) ((offset[slot] - round_up (W_SIZE, META_BLOCK_SIZE)) / META_BLOCK_SIZE);
  if (*block >= W_META_BLOCKS) {
    world_fail ("metadata block %u", *block);
    *block = 0;
  }
}

void
disk_init (struct wdisk *d, const struct superblock *sb)
{
  uint32_t block;

  memset (d, 0, sizeof *d);
  d->store_bytes = sb->store_bytes;
  d->slow_us = w.mix.disk_us;
  d->last_machine = 0xff;
  disk_slot_block (d, 0, &block);
  super_encode (sb, 0, d->meta[block]);
  memcpy (d->meta_stable[block], d->meta[block], META_BLOCK_SIZE);
}

uint32_t
disk_claim_block (const struct wdisk *d, unsigned place)
{
  struct meta_layout l;

  if (meta_layout (d->store_bytes, W_BLOCK, &l) < 0) {
    world_fail ("a store without a layout");
    return 0;
  }
  return (uint32_t) ((l.claims.offset - round_up (W_SIZE, META_BLOCK_SIZE)) / META_BLOCK_SIZE) + place;
}

bool
disk_claim (const struct wdisk *d, unsigned place, const uint8_t store_id[CRG_ID_LEN], struct claim_block *c)
{
  return claim_decode (d->meta[disk_claim_block (d, place)], place, store_id, c);
}

/* claim_tidy, by a controller that has the lock. */
void
disk_tidy (struct wdisk *d, unsigned node, const uint8_t store_id[CRG_ID_LEN])
{
  const unsigned place = claim_place (node + 1);
  const uint32_t b = disk_claim_block (d, place);
  struct claim_block c;

  if (!disk_claim (d, place, store_id, &c))
    return;
  claim_encode (NULL, place, store_id, d->meta[b]);
  memcpy (d->meta_stable[b], d->meta[b], META_BLOCK_SIZE);
}

/* By who has it, who claims it, and what of them outlives them. */
bool
disk_is_locked (const struct wdisk *d, unsigned machine)
{
  if (d->lock_life != 0 && w.node[d->lock_node].machine == machine)
    return true;
  for (unsigned n = 0; n < W_NODES; n++)
    for (unsigned i = 0; i < W_IASPS; i++) {
      const struct wplugin *p = &w.node[n].plugin[i];

      if (w.node[n].machine == machine && p->running && p->claiming && d == &w.disk[p->site][p->iasp])
        return true;
    }
  for (unsigned k = 0; k < W_DOPS; k++)
    if (w.dop[k].used && !w.dop[k].void_ && w.dop[k].why == DF_CLAIM && w.node[w.dop[k].node].machine == machine
        && d == &w.disk[w.dop[k].site][w.dop[k].iasp])
      return true;
  return false;
}

/* F_BOTH_OPEN: the first claim lands when its host has been replaced, the next one at once, and the open record
 * again late. */
static uint64_t
both_open_us (struct wdisk *d, enum dop_for why)
{
  if (why == DF_OPEN)
    return MS (200) + fault_random (MS (1500));
  d->both_open = d->both_open == 1 ? 2 : 1;
  return d->both_open == 2 ? MS (900) + fault_random (MS (1500)) : 1 + fault_random (MS (50));
}

struct dop *
disk_op (struct wplugin *p, enum dop_what what, enum dop_for why, unsigned index, uint64_t offset,
         uint64_t length, bool fua)
{
  struct wdisk *d = &w.disk[p->site][p->iasp];
  struct dop *op = NULL;
  unsigned k = 0;

  for (unsigned i = 0; i < W_DOPS && op == NULL; i++) {
    k = (w.dop_next + i) % W_DOPS;
    if (!w.dop[k].used)
      op = &w.dop[k];
  }
  if (op == NULL) {
    world_fail ("no disk operation is free");
    return &w.dop[0];
  }
  w.dop_next = k + 1;
  op->used = true;
  op->void_ = false;
  op->stray = why == DF_CLAIM;
  op->what = (uint8_t) what;
  op->why = (uint8_t) why;
  op->node = p->node;
  op->iasp = p->iasp;
  op->site = p->site;
  op->stage = 0;
  op->fua = fua;
  op->index = (uint16_t) index;
  op->life = p->life;
  op->offset = offset;
  op->length = length;
  op->meta_seq = d->seq;
  if (what == DW_FLUSH || what == DW_FLUSH_META)
    memcpy (op->data, d->cur, sizeof op->data);
  if (!op->stray && d->lock_life != p->life)
    world_fail ("n%u: I/O on a store that it does not have", p->node + 1);
  d->in_flight += !op->stray;
  if (p->slow_opening && (why == DF_CLAIM || why == DF_OPEN) && chance (40))
    after_us (1 + world_random (MS (8000)), EV_DISK)->a = k;
  else if (d->both_open && (why == DF_CLAIM || why == DF_OPEN) && what == DW_META)
    after_us (both_open_us (d, why), EV_DISK)->a = k;
  else
    after_us (1 + world_random (2 * d->slow_us), EV_DISK)->a = k;
  return op;
}

static void
flush (struct wdisk *d, const struct dop *op)
{
  for (unsigned i = 0; i < W_UNITS; i++)
    if (d->cur[i] == op->data[i] || chance (20))
      d->stable[i] = d->cur[i];
    else if (d->stable[i] < op->data[i])
      d->stable[i] = op->data[i];
  for (unsigned b = 0; b < W_META_BLOCKS; b++)
    if (d->meta_unstable[b] && d->meta_seq[b] <= op->meta_seq) {
      memcpy (d->meta_stable[b], d->meta[b], META_BLOCK_SIZE);
      d->meta_unstable[b] = false;
    }
}

static void
write_meta (struct wdisk *d, const struct dop *op)
{
  memcpy (d->meta[op->block], op->meta, META_BLOCK_SIZE);
  d->meta_rotten[op->block] = false;
  d->meta_seq[op->block] = ++d->seq;
  d->meta_unstable[op->block] = !op->fua;
  if (op->fua)
    memcpy (d->meta_stable[op->block], op->meta, META_BLOCK_SIZE);
}

static void
write_data (struct wdisk *d, const struct dop *op, unsigned percent)
{
  const unsigned first = (unsigned) (op->offset / W_UNIT), n = (unsigned) (op->length / W_UNIT);

  for (unsigned i = 0; i < n; i++) {
    if (percent < 100 && !chance (percent))
      continue;
    d->cur[first + i] = op->data[i];
    if (op->fua && percent == 100)
      d->stable[first + i] = op->data[i];
  }
}

static void
process_done (struct wdisk *d)
{
  if (d->lock_dying && d->in_flight == 0) {
    d->lock_life = 0;
    d->lock_dying = false;
  }
}

void
disk_done (unsigned k)
{
  struct dop *op = &w.dop[k];
  struct wdisk *d = &w.disk[op->site][op->iasp];
  struct wplugin *p = &w.node[op->node].plugin[op->iasp];
  int error = 0;

  if (op->void_) {
    op->used = false;
    return;
  }
  if (p->running && p->life == op->life && p->paused && op->what == DW_READ) {
    after_us (MS (20), EV_DISK)->a = k; /* seen when the process goes on */
    return;
  }
  if (d->errors > 0 && op->what != DW_READ && chance (50)) {
    d->errors--;
    error = -EIO;
  }
  switch ((enum dop_what) op->what) {
  case DW_READ:
    break;
  case DW_WRITE:
    write_data (d, op, error ? 50 : 100);
    break;
  case DW_FLUSH:
  case DW_FLUSH_META:
    if (error == 0 && !w.lying_disks)
      flush (d, op);
    break;
  case DW_META:
    if (error == 0)
      write_meta (d, op);
    break;
  }
  if (op->what != DW_READ)
    op->what = DW_READ; /* landed; what is left is to tell */
  op->stage |= (uint8_t) (error ? 0x80 : 0);
  if (p->running && p->life == op->life && p->paused) {
    after_us (MS (20), EV_DISK)->a = k;
    return;
  }
  if (op->stage & 0x80)
    error = -EIO;
  op->stage &= 0x7f;
  if (!op->stray)
    d->in_flight--;
  if (p->running && p->life == op->life)
    plugin_disk_done (p, op, error);
  op->used = false;
  process_done (d);
}

/* The process has ended; its I/O has not. */
void
disk_process_gone (struct wplugin *p)
{
  struct wdisk *d = &w.disk[p->site][p->iasp];

  if (d->lock_life != p->life)
    return;
  d->lock_dying = true;
  process_done (d);
}

/* S1: who had it has written that it is released, and has not been told yet that this is so. */
bool
disk_is_released (struct wdisk *d)
{
  struct dop *last = NULL;

  if (d->in_flight != 1)
    return false;
  for (unsigned k = 0; k < W_DOPS; k++)
    if (w.dop[k].used && !w.dop[k].void_ && !w.dop[k].stray && w.dop[k].life == d->lock_life)
      last = &w.dop[k];
  if (last == NULL || last->why != DF_OPEN || last->what != DW_READ || last->stage != 3)
    return false;
  last->stray = true;
  d->in_flight = 0;
  return true;
}

/* Called with all processes of the machine gone. */
void
disk_power_lost (unsigned machine)
{
  for (unsigned k = 0; k < W_DOPS; k++) {
    struct dop *op = &w.dop[k];
    struct wdisk *d = &w.disk[op->site][op->iasp];

    if (!op->used || op->void_ || w.node[op->node].machine != machine)
      continue;
    if (op->what == DW_WRITE)
      write_data (d, op, 50);
    else if (op->why == DF_CLAIM && op->what == DW_META) {
      const size_t n = 512 * world_random (META_BLOCK_SIZE / 512 + 1);

      memcpy (d->meta[op->block], op->meta, n);
      memcpy (d->meta_stable[op->block], op->meta, n);
    }
    else if (op->what == DW_META && chance (50)) {
      write_meta (d, op);
      d->meta_unstable[op->block] = true; /* torn, below */
    }
    op->void_ = true;
    if (!op->stray)
      d->in_flight--;
    process_done (d);
  }
}

static void
lose_unstable (struct wdisk *d)
{
  for (unsigned i = 0; i < W_UNITS; i++)
    if (d->cur[i] != d->stable[i]) {
      if (chance (60))
        d->cur[i] = d->stable[i];
      else
        d->stable[i] = d->cur[i];
    }
  for (unsigned b = 0; b < W_META_BLOCKS; b++)
    if (d->meta_unstable[b]) {
      /* any number of its sectors, from either end */
      size_t n = 512 * world_random (META_BLOCK_SIZE / 512 + 1);

      if (chance (50))
        memcpy (d->meta[b] + n, d->meta_stable[b] + n, META_BLOCK_SIZE - n);
      else
        memcpy (d->meta[b], d->meta_stable[b], n);
      memcpy (d->meta_stable[b], d->meta[b], META_BLOCK_SIZE);
      d->meta_unstable[b] = false;
    }
}

/* probe.c: mark. */
void
disk_mark (struct wdisk *d, struct superblock *sb, int newest)
{
  unsigned slot = newest == 0;

  for (unsigned i = 0; i < 2; i++, slot = !slot) {
    uint32_t block;

    sb->sequence++;
    disk_slot_block (d, slot, &block);
    super_encode (sb, slot, d->meta[block]);
    memcpy (d->meta_stable[block], d->meta[block], META_BLOCK_SIZE);
    d->meta_unstable[block] = false;
  }
}

void
disk_lose_power (struct wdisk *d)
{
  lose_unstable (d);
  d->restarted = true;
}
