/* SPDX-License-Identifier: BSD-3-Clause */
/* Sharded counters around an atomic mode.  A worker raises its shard's counter before it reads
 * the mode, and the engine writes the mode before it reads the counters, both sequentially
 * consistent: so either the worker sees the new mode, or the engine sees the worker.
 */
#include "config.h"

#include <string.h>

#include "common/util.h"
#include "plugin/gate.h"

static _Atomic uint32_t next_shard;
static __thread uint32_t my_shard; /* index + 1; 0: none yet */

void
gate_init (struct gate *g, enum gate_mode mode, uint64_t lease_until_ms)
{
  memset (g, 0, sizeof *g);
  atomic_store (&g->mode, mode);
  atomic_store (&g->lease_until_ms, lease_until_ms);
}

struct gate_pass
gate_enter (struct gate *g)
{
  struct gate_pass pass;

  if (my_shard == 0)
    my_shard = atomic_fetch_add (&next_shard, 1) % GATE_SHARDS + 1;
  pass.shard = &g->shards[my_shard - 1];
  atomic_fetch_add (&pass.shard->n, 1);
  /* The epoch first: read the other way round, an old mode could carry a new epoch. */
  pass.epoch = atomic_load (&g->epoch);
  pass.mode = atomic_load (&g->mode);
  return pass;
}

void
gate_leave (struct gate_pass *pass)
{
  if (pass->shard)
    atomic_fetch_sub (&pass->shard->n, 1);
  pass->shard = NULL;
}

static unsigned
bucket (uint64_t block)
{
  return (unsigned) ((block * UINT64_C (0x9e3779b97f4a7c15)) >> 52) % GATE_BLOCKS;
}

static bool
blocks_of (uint64_t offset, uint64_t length, uint64_t *first, uint64_t *last)
{
  *first = offset >> GATE_BLOCK_SHIFT;
  *last = (offset + MAX (length, (uint64_t) 1) - 1) >> GATE_BLOCK_SHIFT;
  return *last - *first < GATE_MAX_MARKED;
}

void
gate_mark (struct gate *g, uint64_t offset, uint64_t length)
{
  uint64_t first, last;

  if (!blocks_of (offset, length, &first, &last)) {
    atomic_fetch_add (&g->wide, 1);
    return;
  }
  for (uint64_t b = first; b <= last; b++)
    atomic_fetch_add (&g->blocks[bucket (b)], 1);
}

void
gate_unmark (struct gate *g, uint64_t offset, uint64_t length)
{
  uint64_t first, last;

  if (!blocks_of (offset, length, &first, &last)) {
    atomic_fetch_sub (&g->wide, 1);
    return;
  }
  for (uint64_t b = first; b <= last; b++)
    atomic_fetch_sub (&g->blocks[bucket (b)], 1);
}

bool
gate_is_marked (struct gate *g, uint64_t offset, uint64_t length)
{
  uint64_t first, last;

  if (atomic_load (&g->wide) != 0)
    return true;
  blocks_of (offset, length, &first, &last);
  if (last - first >= GATE_BLOCKS) {
    for (unsigned i = 0; i < GATE_BLOCKS; i++)
      if (atomic_load (&g->blocks[i]) != 0)
        return true;
    return false;
  }
  for (uint64_t b = first; b <= last; b++)
    if (atomic_load (&g->blocks[bucket (b)]) != 0)
      return true;
  return false;
}

void
gate_set (struct gate *g, enum gate_mode mode, bool new_epoch)
{
  atomic_store (&g->mode, mode);
  if (new_epoch)
    atomic_fetch_add (&g->epoch, 1);
  g->seen_idle = 0;
}

bool
gate_is_drained (struct gate *g)
{
  for (unsigned i = 0; i < GATE_SHARDS; i++)
    if (atomic_load (&g->shards[i].n) == 0)
      g->seen_idle |= UINT64_C (1) << i;
  return g->seen_idle == UINT64_MAX;
}

uint32_t
gate_inside (struct gate *g)
{
  uint32_t n = 0;

  for (unsigned i = 0; i < GATE_SHARDS; i++)
    n += atomic_load (&g->shards[i].n);
  return n;
}
