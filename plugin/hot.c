/* SPDX-License-Identifier: BSD-3-Clause */
/* Hot regions: see hot.h.  An entry exists for each region that is wanted, marking or hot; the
 * index finds it in one step.  The bit in the map is the disk's view: set from the batch that
 * marks the region until the batch that carries its clearing.
 */
#include "plugin/hot.h"

#include <assert.h>
#include <string.h>

#include "common/super.h"
#include "common/util.h"

#define X HOT_ILLEGAL
const uint8_t hot_table[HS_STATES][HM_MOVES] = {
  /*                WANT        BATCH       MARKED  FAILED     CLEAR   */
  [HS_COLD]    = { HS_WANTED,  X,          X,      X,         X       },
  [HS_WANTED]  = { HS_WANTED,  HS_MARKING, X,      X,         X       },
  [HS_MARKING] = { HS_MARKING, X,          HS_HOT, HS_WANTED, X       },
  [HS_HOT]     = { HS_HOT,     X,          X,      X,         HS_COLD },
};
#undef X

static uint64_t
first_region (const struct hot *h, uint64_t offset)
{
  return offset / h->region_size;
}

static uint64_t
last_region (const struct hot *h, uint64_t offset, uint64_t length)
{
  return (offset + length - 1) / h->region_size;
}

static void
move (struct hot *h, struct hot_entry *e, enum hot_move m)
{
  uint8_t next = hot_table[e->state][m];

  assert (next != HOT_ILLEGAL);
  h->n_state[e->state]--;
  h->n_state[next]++;
  e->state = next;
}

static bool
bit (const uint8_t *map, uint64_t i)
{
  return map[i / 8] >> (i % 8) & 1;
}

static uint64_t
first_bit (const struct hot *h, uint64_t region)
{
  return region * (h->region_size / h->bit_size);
}

static uint64_t
end_bit (const struct hot *h, uint64_t region)
{
  return MIN (first_bit (h, region + 1), h->n_bits);
}

static void
set_bits (struct hot *h, uint64_t region, bool on)
{
  for (uint64_t i = first_bit (h, region); i < end_bit (h, region); i++)
    if (bit (h->map, i) != on) {
      h->map[i / 8] ^= (uint8_t) (1u << (i % 8));
      h->block_dirty[i / META_BLOCK_BITS / 8] |= (uint8_t) (1u << (i / META_BLOCK_BITS % 8));
    }
}

static bool
is_block_dirty (const struct hot *h, uint64_t region)
{
  const uint64_t b = first_bit (h, region) / META_BLOCK_BITS;
  return h->block_dirty[b / 8] >> (b % 8) & 1;
}

static bool
is_marked_whole (const struct hot *h, uint64_t region)
{
  for (uint64_t i = first_bit (h, region); i < end_bit (h, region); i++)
    if (!bit (h->map, i))
      return false;
  return true;
}

uint32_t
hot_region_size (uint64_t data_bytes, uint64_t max_hot_bytes)
{
  uint32_t size = HOT_REGION_SIZE_MIN;

  while (size < HOT_REGION_SIZE_MAX &&
         (data_bytes / size > HOT_MAX_REGIONS || max_hot_bytes / size > HOT_MAX_ENTRIES))
    size *= 2;
  return size;
}

static uint32_t
bit_size_of (uint32_t region_size)
{
  return MIN (region_size, (uint32_t) HOT_REGION_SIZE_MIN);
}

static size_t
map_bytes (uint64_t n_bits)
{
  return div_round_up (n_bits, META_BLOCK_BITS) * META_BLOCK_PAYLOAD;
}

size_t
hot_memory_bytes (uint64_t data_bytes, uint32_t region_size, unsigned max_entries)
{
  uint64_t n = div_round_up (data_bytes, region_size);
  uint64_t bits = div_round_up (data_bytes, bit_size_of (region_size));

  return sizeof (struct hot_entry) * max_entries + round_up (n * sizeof (uint16_t), 8) +
         map_bytes (bits) + div_round_up (div_round_up (bits, META_BLOCK_BITS), 8);
}

void
hot_init (struct hot *h, void *memory, uint64_t data_bytes, uint32_t region_size,
          unsigned max_entries)
{
  uint8_t *p = memory;

  assert (is_power_of_2 (region_size));
  assert (max_entries >= 2 * HOT_MAX_SPAN && max_entries <= HOT_MAX_ENTRIES);
  memset (h, 0, sizeof *h);
  h->n_regions = div_round_up (data_bytes, region_size);
  h->region_size = region_size;
  h->bit_size = bit_size_of (region_size);
  h->n_bits = div_round_up (data_bytes, h->bit_size);
  h->n_blocks = div_round_up (h->n_bits, META_BLOCK_BITS);
  h->max_entries = max_entries;
  h->clear_above = max_entries / 2;
  h->n_state[HS_COLD] = max_entries;
  h->entry = (void *) p;
  p += sizeof (struct hot_entry) * max_entries;
  h->index = (void *) p;
  p += round_up (h->n_regions * sizeof (uint16_t), 8);
  h->map = p;
  p += map_bytes (h->n_bits);
  h->block_dirty = p;
  h->cycle = 1;
}

static struct hot_entry *
find (const struct hot *h, uint64_t region)
{
  return h->index[region] ? &h->entry[h->index[region] - 1] : NULL;
}

void
hot_found (struct hot *h, uint64_t i)
{
  if (i < h->n_bits)
    h->map[i / 8] |= (uint8_t) (1u << (i % 8));
}

bool
hot_is_marked (const struct hot *h, uint64_t region)
{
  for (uint64_t i = first_bit (h, region); region < h->n_regions && i < end_bit (h, region); i++)
    if (bit (h->map, i))
      return true;
  return false;
}

bool
hot_settle (struct hot *h)
{
  bool any = false;

  assert (!h->batch);
  for (uint64_t i = hot_next (h, 0); i < h->n_bits;) {
    uint64_t region = i / (h->region_size / h->bit_size);
    struct hot_entry *e = find (h, region);

    if (!e || e->found)
      any = true;
    if (e)
      e->found = false;
    else
      set_bits (h, region, false);
    i = hot_next (h, end_bit (h, region));
  }
  return any;
}

uint64_t
hot_next (const struct hot *h, uint64_t from)
{
  for (; from < h->n_bits; from++) {
    if (from % 8 == 0)
      while (from < h->n_bits && h->map[from / 8] == 0)
        from += 8;
    if (from < h->n_bits && bit (h->map, from))
      return from;
  }
  return h->n_bits;
}

bool
hot_ready (const struct hot *h, uint64_t offset, uint64_t length)
{
  for (uint64_t r = first_region (h, offset); r <= last_region (h, offset, length); r++) {
    const struct hot_entry *e = find (h, r);
    if (!e || e->state != HS_HOT)
      return false;
  }
  return true;
}

static uint16_t
name_of (const struct hot *h, const struct hot_entry *e)
{
  return (uint16_t) (e - h->entry + 1);
}

/* What points at an entry in the list by age. */
static uint16_t *
link_older (struct hot *h, uint16_t name)
{
  return name ? &h->entry[name - 1].older : &h->newest;
}

static uint16_t *
link_newer (struct hot *h, uint16_t name)
{
  return name ? &h->entry[name - 1].newer : &h->oldest;
}

static void
list_remove (struct hot *h, const struct hot_entry *e)
{
  *link_newer (h, e->older) = e->newer;
  *link_older (h, e->newer) = e->older;
}

static void
list_append (struct hot *h, struct hot_entry *e)
{
  e->older = h->newest;
  e->newer = 0;
  *link_newer (h, e->older) = h->newest = name_of (h, e);
}

static struct hot_entry *
new_entry (struct hot *h, uint64_t region)
{
  /* Entries in use are dense: 0 .. n_entries - 1. */
  struct hot_entry *e = &h->entry[h->n_entries];

  memset (e, 0, sizeof *e);
  e->region = region;
  h->n_entries++;
  h->index[region] = (uint16_t) h->n_entries;
  list_append (h, e);
  return e;
}

static void
drop_entry (struct hot *h, struct hot_entry *e)
{
  struct hot_entry *last = &h->entry[h->n_entries - 1];

  assert (e->state == HS_COLD && e->writers == 0);
  h->index[e->region] = 0;
  list_remove (h, e);
  if (e != last) {
    *e = *last;
    h->index[e->region] = *link_newer (h, e->older) = *link_older (h, e->newer) = name_of (h, e);
  }
  h->n_entries--;
}

void
hot_unlink (struct hot *h)
{
  h->cycle_done = 0;
  for (unsigned i = 0; i < h->n_entries;) {
    struct hot_entry *e = &h->entry[i];

    assert (e->writers == 0);
    e->cycle = 0;
    e->found = true;
    if (e->state == HS_HOT) { /* its bits stay */
      move (h, e, HM_CLEAR);
      drop_entry (h, e);
    }
    else
      i++;
  }
}

static unsigned
count_missing (const struct hot *h, uint64_t offset, uint64_t length)
{
  unsigned missing = 0;

  for (uint64_t r = first_region (h, offset); r <= last_region (h, offset, length); r++)
    missing += !find (h, r);
  return missing;
}

bool
hot_has_room (const struct hot *h, uint64_t offset, uint64_t length)
{
  return h->n_entries + count_missing (h, offset, length) <= h->max_entries;
}

static struct hot_entry *
want (struct hot *h, uint64_t region)
{
  struct hot_entry *e = find (h, region);

  if (!e) {
    e = new_entry (h, region);
    /* Also if it has to be marked again, as another batch is on its way. */
    e->found = hot_is_marked (h, region);
  }
  else {
    list_remove (h, e);
    list_append (h, e);
  }
  if (e->state == HS_COLD && is_marked_whole (h, region) && !h->batch && !is_block_dirty (h, region)) {
    /* Found hot at open: the mark is on stable storage already, as the block is as it is here. */
    move (h, e, HM_WANT);
    move (h, e, HM_BATCH);
    move (h, e, HM_MARKED);
  }
  else
    move (h, e, HM_WANT);
  return e;
}

/* An eighth of what is kept hot. */
unsigned
hot_ahead (const struct hot *h)
{
  return MIN (MAX (h->clear_above / 8, (unsigned) HOT_AHEAD), (unsigned) HOT_AHEAD_MAX);
}

/* Once for each region, and not if half of those behind it were marked already: so one batch serves
 * several.  Only while there are entries to spare. */
static void
want_ahead (struct hot *h, uint64_t region)
{
  struct hot_entry *e = find (h, region);
  const unsigned ahead = hot_ahead (h);
  const uint64_t end = MIN (region + ahead + 1, h->n_regions);

  if (!e || e->led || e->filled < h->region_size / 2)
    return;
  e->led = true;
  if (find (h, MIN (region + ahead / 2, end - 1)))
    return;
  for (uint64_t r = region + 1; r < end; r++)
    if (!find (h, r)) {
      if (h->n_entries >= h->clear_above + h->clear_above / 2)
        return;
      want (h, r);
      h->ahead++;
    }
}

static bool
begin (struct hot *h, uint64_t offset, uint64_t length, bool leads, bool *full)
{
  const uint64_t first = first_region (h, offset), last = last_region (h, offset, length);
  bool ready = true;

  assert (length > 0 && last < h->n_regions && last - first < HOT_MAX_SPAN);
  *full = !hot_has_room (h, offset, length);
  if (*full) {
    h->waits++;
    return false;
  }
  for (uint64_t r = first; r <= last; r++) {
    struct hot_entry *e = want (h, r);
    const uint64_t from = MAX (offset, r * h->region_size);
    const uint64_t to = MIN (offset + length, (r + 1) * h->region_size);

    e->writers++;
    if (leads)
      e->filled = (uint32_t) MIN (e->filled + (to - from), (uint64_t) h->region_size);
    ready &= e->state == HS_HOT;
  }
  for (uint64_t r = first; leads && r <= last; r++)
    want_ahead (h, r);
  if (!ready)
    h->waits++;
  return ready;
}

bool
hot_begin (struct hot *h, uint64_t offset, uint64_t length, bool *full)
{
  return begin (h, offset, length, true, full);
}

bool
hot_begin_alone (struct hot *h, uint64_t offset, uint64_t length, bool *full)
{
  return begin (h, offset, length, false, full);
}

void
hot_keep (struct hot *h, uint64_t offset, uint64_t length)
{
  for (uint64_t r = first_region (h, offset); r <= last_region (h, offset, length); r++) {
    struct hot_entry *e = find (h, r);
    assert (e && e->writers > 0);
    e->found = true;
  }
}

void
hot_end (struct hot *h, uint64_t offset, uint64_t length, uint64_t stamp)
{
  for (uint64_t r = first_region (h, offset); r <= last_region (h, offset, length); r++) {
    struct hot_entry *e = find (h, r);
    assert (e && e->writers > 0);
    e->writers--;
    h->n_ended += e->cycle < stamp;
    e->cycle = MAX (e->cycle, stamp);
  }
}

static bool
any_block_dirty (const struct hot *h)
{
  for (uint64_t i = 0; i < div_round_up (h->n_blocks, 8); i++)
    if (h->block_dirty[i])
      return true;
  return false;
}

bool
hot_wants_batch (const struct hot *h, bool idle)
{
  if (h->batch)
    return false;
  return h->n_state[HS_WANTED] > 0 || (idle && any_block_dirty (h));
}

unsigned
hot_batch (struct hot *h, uint64_t *blocks, unsigned max, bool idle)
{
  unsigned n = 0;

  if (!hot_wants_batch (h, idle))
    return 0;
  for (unsigned i = 0; i < h->n_entries; i++)
    if (h->entry[i].state == HS_WANTED) {
      /* A region's bits never straddle two blocks: META_BLOCK_BITS is a multiple of 64. */
      uint64_t b = first_bit (h, h->entry[i].region) / META_BLOCK_BITS;
      unsigned k = 0;
      /* The bit may be set already (a failed batch, or a clearing that never went out). */
      set_bits (h, h->entry[i].region, true);
      while (k < n && blocks[k] != b)
        k++;
      if (k == n) {
        if (n == max)
          continue; /* goes with the next batch */
        blocks[n++] = b;
      }
      move (h, &h->entry[i], HM_BATCH);
      h->marks++;
    }
  if (n == 0) /* idle: clearings alone */
    for (uint64_t b = 0; b < h->n_blocks && n < max; b++)
      if (h->block_dirty[b / 8] >> (b % 8) & 1)
        blocks[n++] = b;
  for (unsigned k = 0; k < n; k++)
    h->block_dirty[blocks[k] / 8] &= (uint8_t) ~(1u << (blocks[k] % 8));
  h->batch = n > 0;
  h->batches += n > 0;
  return n;
}

void
hot_batch_done (struct hot *h, bool ok)
{
  assert (h->batch);
  h->batch = false;
  for (unsigned i = 0; i < h->n_entries; i++)
    if (h->entry[i].state == HS_MARKING)
      move (h, &h->entry[i], ok ? HM_MARKED : HM_FAILED);
}

const uint8_t *
hot_block (const struct hot *h, uint64_t block)
{
  assert (block < h->n_blocks);
  return h->map + block * META_BLOCK_PAYLOAD;
}

uint64_t
hot_flush_begin (struct hot *h)
{
  /* What ends from here on carries the new number and is not covered. */
  h->n_ended = 0;
  return h->cycle++;
}

void
hot_stable (struct hot *h, uint64_t stamp)
{
  h->cycle_done = MAX (h->cycle_done, stamp);
}

static bool
is_clearable (const struct hot *h, const struct hot_entry *e)
{
  return e->state == HS_HOT && e->writers == 0 && e->cycle <= h->cycle_done;
}

unsigned
hot_clear (struct hot *h, bool all)
{
  unsigned n = 0;

  if (h->batch)
    return 0;
  for (uint16_t next, i = h->oldest; i != 0 && (all || h->n_entries > h->clear_above); i = next) {
    struct hot_entry *e = &h->entry[i - 1];

    next = e->newer;
    if (!is_clearable (h, e))
      continue;
    if (next == h->n_entries) /* the last one in memory takes the place of this */
      next = i;
    move (h, e, HM_CLEAR);
    if (!e->found) /* else its mark stays until it is settled; the entry is free */
      set_bits (h, e->region, false);
    drop_entry (h, e);
    h->clears++;
    n++;
  }
  return n;
}

bool
hot_wants_flush (const struct hot *h)
{
  return h->n_entries > h->clear_above + h->clear_above / 4 && h->n_ended > h->clear_above / 8;
}

unsigned
hot_flushable (const struct hot *h)
{
  unsigned n = 0;

  for (unsigned i = 0; i < h->n_entries; i++) {
    const struct hot_entry *e = &h->entry[i];
    n += e->state == HS_HOT && e->writers == 0 && e->cycle > h->cycle_done;
  }
  return n;
}
