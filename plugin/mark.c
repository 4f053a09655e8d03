/* SPDX-License-Identifier: BSD-3-Clause */
/* The maps of a store and the order in which they reach its disk: see mark.h. */
#include <assert.h>
#include <string.h>

#include "common/util.h"
#include "plugin/mark.h"

/* ---- one map ------------------------------------------------------------------------------ */

size_t
bits_memory_bytes (uint64_t n_bits)
{
  const uint64_t blocks = div_round_up (n_bits, META_BLOCK_BITS);
  return blocks * META_BLOCK_PAYLOAD + round_up (div_round_up (blocks, 8), 8);
}

void
bits_init (struct bits *b, void *memory, uint64_t n_bits)
{
  b->n_bits = n_bits;
  b->n_blocks = div_round_up (n_bits, META_BLOCK_BITS);
  b->map = memory;
  b->changed = b->map + b->n_blocks * META_BLOCK_PAYLOAD;
  b->n_set = 0;
}

bool
bits_get (const struct bits *b, uint64_t i)
{
  assert (i < b->n_bits);
  return b->map[i / 8] >> (i % 8) & 1;
}

void
bits_set (struct bits *b, uint64_t i, bool on)
{
  const uint64_t block = i / META_BLOCK_BITS;

  if (bits_get (b, i) == on)
    return;
  b->map[i / 8] ^= (uint8_t) (1u << (i % 8));
  b->changed[block / 8] |= (uint8_t) (1u << (block % 8));
  b->n_set += on ? 1 : UINT64_MAX;
}

void
bits_fill (struct bits *b, bool on)
{
  if (!on && b->n_set == 0)
    return;
  for (uint64_t i = 0; i < b->n_bits;) {
    /* Whole bytes that say it already are passed over. */
    if (i % 8 == 0 && b->n_bits - i >= 8 && b->map[i / 8] == (on ? 0xff : 0))
      i += 8;
    else
      bits_set (b, i++, on);
  }
}

static uint64_t
next_changed (const struct bits *b, uint64_t from)
{
  while (from < b->n_blocks && !(b->changed[from / 8] >> (from % 8) & 1))
    from = from % 8 == 0 && b->changed[from / 8] == 0 ? from + 8 : from + 1;
  return MIN (from, b->n_blocks);
}

/* ---- life --------------------------------------------------------------------------------- */

size_t
mark_memory_bytes (uint64_t data_bytes, uint32_t block_size, uint32_t region_size,
                   unsigned max_entries, unsigned n_sites)
{
  return round_up (hot_memory_bytes (data_bytes, region_size, max_entries), 8)
         + n_sites * round_up (bits_memory_bytes (div_round_up (data_bytes, block_size)), 8);
}

void
mark_init (struct mark *m, void *memory, uint64_t data_bytes, uint32_t block_size,
           uint32_t region_size, unsigned max_entries, unsigned n_sites)
{
  const uint64_t n = div_round_up (data_bytes, block_size);
  uint8_t *p = memory;

  memset (m, 0, sizeof *m);
  m->block_size = block_size;
  m->data_bytes = data_bytes;
  hot_init (&m->hot, p, data_bytes, region_size, max_entries);
  p += round_up (hot_memory_bytes (data_bytes, region_size, max_entries), 8);
  for (unsigned s = 0; s < n_sites; s++) {
    bits_init (&m->bits[s], p, n);
    p += round_up (bits_memory_bytes (n), 8);
  }
}

void
mark_load_hot (struct mark *m, uint64_t index, const uint8_t *payload, bool both)
{
  const uint64_t first = index * META_BLOCK_BITS;

  for (uint64_t i = 0; i < META_BLOCK_BITS && first + i < m->hot.n_bits; i++) {
    if (payload && i % 8 == 0)
      while (i < META_BLOCK_BITS && payload[i / 8] == 0)
        i += 8;
    if (i < META_BLOCK_BITS && (!payload || payload[i / 8] >> (i % 8) & 1))
      hot_found (&m->hot, first + i);
  }
  if (!both)
    m->hot.block_dirty[index / 8] |= (uint8_t) (1u << (index % 8));
}

static void
load_bits (struct bits *b, uint64_t index, const uint8_t *payload)
{
  const uint64_t first = index * META_BLOCK_BITS;

  for (uint64_t i = 0; i < META_BLOCK_BITS && first + i < b->n_bits; i++) {
    if (payload && i % 8 == 0)
      while (i < META_BLOCK_BITS && payload[i / 8] == 0)
        i += 8;
    if (i < META_BLOCK_BITS && first + i < b->n_bits && (!payload || payload[i / 8] >> (i % 8) & 1))
      bits_set (b, first + i, true);
  }
  /* A damaged block is written anew, a whole one stands there as it is. */
  if (payload && index < b->n_blocks)
    b->changed[index / 8] &= (uint8_t) ~(1u << (index % 8));
}

void
mark_load_bits (struct mark *m, unsigned site, uint64_t index, const uint8_t *payload)
{
  load_bits (&m->bits[site], index, payload);
}

/* ---- what was written --------------------------------------------------------------------- */

void
mark_use_written (struct mark *m, void *memory)
{
  bits_init (&m->written, memory, div_round_up (m->data_bytes, m->block_size));
}

void
mark_load_written (struct mark *m, uint64_t index, const uint8_t *payload)
{
  load_bits (&m->written, index, payload);
}

/* W2.  True: they were not, all of them. */
static bool
set_written (struct mark *m, uint64_t offset, uint64_t length)
{
  const uint64_t before = m->written.n_set, end = MIN (offset + length, m->data_bytes);

  for (uint64_t b = offset / m->block_size; b * m->block_size < end; b++)
    bits_set (&m->written, b, true);
  return m->written.n_set != before;
}

void
mark_loaded (struct mark *m)
{
  struct hot *h = &m->hot;

  if (!m->written.map)
    return;
  for (uint64_t i = hot_next (h, 0); i < h->n_bits; i = hot_next (h, i + 1))
    if (set_written (m, i * h->bit_size, h->bit_size)) {
      /* Its mark is not enough for a write: only the batch that takes this block with it. */
      const uint64_t block = i / META_BLOCK_BITS;
      h->block_dirty[block / 8] |= (uint8_t) (1u << (block % 8));
    }
}

/* All that is to be hot by the stage that begins. */
static void
write_hot_regions (struct mark *m)
{
  const struct hot *h = &m->hot;

  for (unsigned i = 0; m->written.map && i < h->n_entries; i++)
    if (h->entry[i].state == HS_MARKING)
      set_written (m, h->entry[i].region * h->region_size, h->region_size);
}

uint64_t
mark_unwritten (const struct mark *m, uint64_t offset, uint64_t length)
{
  const uint64_t end = offset + length;
  uint64_t at = offset;

  if (!m || !m->written.map)
    return 0;
  while (at < end && !bits_get (&m->written, at / m->block_size))
    at = round_down (at, m->block_size) + m->block_size;
  return MIN (at, end) - offset;
}

uint64_t
mark_written_bytes (const struct mark *m)
{
  if (!m->written.map)
    return m->data_bytes;
  return MIN (m->written.n_set * m->block_size, m->data_bytes);
}

/* ---- changes ------------------------------------------------------------------------------ */

void
mark_dirty (struct mark *m, unsigned site, uint64_t offset, uint64_t length)
{
  struct bits *b = &m->bits[site];

  if (length == 0 || !b->map)
    return;
  for (uint64_t i = offset / m->block_size; i <= (offset + length - 1) / m->block_size; i++)
    bits_set (b, i, true);
}

bool
mark_clear (struct mark *m, bool all)
{
  if (m->stage != MS_IDLE || hot_clear (&m->hot, all) == 0)
    return false;
  m->uncovered = true;
  return true;
}

bool
mark_settle (struct mark *m)
{
  if (m->stage != MS_IDLE || !hot_settle (&m->hot))
    return false;
  m->uncovered = true;
  return true;
}

uint64_t
mark_persist (struct mark *m)
{
  return ++m->wanted;
}

/* ---- to the disk -------------------------------------------------------------------------- */

static bool
any_changed (const struct mark *m)
{
  for (unsigned s = 0; s < CRG_MAX_SITES; s++)
    if (m->bits[s].map && next_changed (&m->bits[s], 0) < m->bits[s].n_blocks)
      return true;
  return false;
}

static bool
open_hot (struct mark *m)
{
  m->n_hot = hot_batch (&m->hot, m->hot_blocks, MARK_MAX_HOT, m->idle);
  m->next_hot = 0;
  m->stage = m->n_hot > 0 ? MS_HOT : MS_IDLE;
  if (m->stage == MS_HOT) {
    write_hot_regions (m);
    m->block = 0;
    m->sequence++;
    m->stages++;
    /* Clearings in other blocks of the map are covered too: their bits went before. */
    m->uncovered = false;
  }
  return m->stage == MS_HOT;
}

bool
mark_begin (struct mark *m, bool idle)
{
  const bool hot = hot_wants_batch (&m->hot, idle);

  if (m->stage != MS_IDLE || (!hot && m->persisted == m->wanted))
    return false;
  m->idle = idle;
  if (m->persisted != m->wanted || m->uncovered) {
    m->taken = m->wanted;
    if (any_changed (m)) {
      m->stage = MS_BITS;
      m->site = 0;
      m->block = 0;
      m->sequence++;
      m->stages++;
      return true;
    }
    m->persisted = m->taken;
  }
  return open_hot (m);
}

/* The next block of a map that differs from the disk, from m->block on. */
static bool
take_changed (struct mark *m, struct bits *map, uint8_t kind, unsigned site, struct mark_block *b)
{
  if (!map->map)
    return false;
  m->block = next_changed (map, m->block);
  if (m->block == map->n_blocks)
    return false;
  map->changed[m->block / 8] &= (uint8_t) ~(1u << (m->block % 8));
  b->kind = kind;
  b->site = (uint8_t) site;
  b->index = m->block;
  b->payload = map->map + m->block * META_BLOCK_PAYLOAD;
  m->block++;
  m->blocks_written++;
  return true;
}

bool
mark_next (struct mark *m, struct mark_block *b)
{
  memset (b, 0, sizeof *b);
  if (m->stage == MS_HOT) {
    if (take_changed (m, &m->written, META_WRITTEN, 0, b))
      return true;
    if (m->next_hot == 2 * m->n_hot)
      return false;
    b->kind = META_HOT;
    b->copy = m->next_hot % 2;
    b->index = m->hot_blocks[m->next_hot++ / 2];
    b->payload = hot_block (&m->hot, b->index);
    m->blocks_written++;
    return true;
  }
  for (; m->stage == MS_BITS && m->site < CRG_MAX_SITES; m->site++, m->block = 0)
    if (take_changed (m, &m->bits[m->site], META_BITMAP, m->site, b))
      return true;
  return false;
}

bool
mark_done (struct mark *m, bool ok)
{
  const uint8_t stage = m->stage;

  assert (stage != MS_IDLE);
  m->stage = MS_IDLE;
  if (stage == MS_HOT) {
    hot_batch_done (&m->hot, ok);
    return false;
  }
  if (!ok) /* F4: the store is failed, nothing follows */
    return false;
  m->persisted = m->taken;
  return open_hot (m);
}

uint64_t
mark_report (const struct mark *m, unsigned site, unsigned own, uint64_t index, uint8_t *payload)
{
  const struct bits *b = &m->bits[site], *lack = &m->bits[own];
  const uint64_t first = index * META_BLOCK_BITS;
  const uint64_t last = MIN (first + META_BLOCK_BITS, b->n_bits);
  uint64_t n = 0;

  for (unsigned i = 0; i < META_BLOCK_PAYLOAD; i++)
    payload[i] = b->map[index * META_BLOCK_PAYLOAD + i] | lack->map[index * META_BLOCK_PAYLOAD + i];
  /* Hot regions: the blocks that each touches, within this piece. */
  for (uint64_t h = hot_next (&m->hot, first * m->block_size / m->hot.bit_size);
       h < m->hot.n_bits && h * m->hot.bit_size / m->block_size < last; h = hot_next (&m->hot, h + 1)) {
    const uint64_t from = h * m->hot.bit_size / m->block_size;
    const uint64_t to = ((h + 1) * m->hot.bit_size - 1) / m->block_size;

    for (uint64_t i = MAX (from, first); i <= to && i < last; i++)
      payload[(i - first) / 8] |= (uint8_t) (1u << ((i - first) % 8));
  }
  for (unsigned i = 0; i < META_BLOCK_PAYLOAD; i++)
    n += (unsigned) __builtin_popcount (payload[i]);
  return n;
}
