/* SPDX-License-Identifier: BSD-3-Clause */
/* Sharded counters around an atomic mode.  A worker raises its shard's counter before it reads
 * the mode, and the engine writes the mode before it reads the counters, both sequentially
 * consistent: so either the worker sees the new mode, or the engine sees the worker.
 */
#include "config.h"

#include <string.h>

#include "common/util.h"
#include "plugin/gate.h"

#define LEFT (UINT64_C (1) << 32)

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
  atomic_fetch_add (&pass.shard->work, 1);
  /* The epoch first: read the other way round, an old mode could carry a new epoch. */
  pass.epoch = atomic_load (&g->epoch);
  pass.mode = atomic_load (&g->mode);
  return pass;
}

void
gate_leave (struct gate_pass *pass)
{
  if (pass->shard)
    atomic_fetch_add (&pass->shard->work, LEFT - 1);
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
    if ((uint32_t) atomic_load (&g->shards[i].work) == 0)
      g->seen_idle |= UINT64_C (1) << i;
  return g->seen_idle == UINT64_MAX;
}

uint32_t
gate_inside (struct gate *g)
{
  uint32_t n = 0;

  for (unsigned i = 0; i < GATE_SHARDS; i++)
    n += (uint32_t) atomic_load (&g->shards[i].work);
  return n;
}

void
gate_look (struct gate *g, uint64_t now_ms)
{
  for (unsigned i = 0; i < GATE_SHARDS; i++) {
    const uint64_t work = atomic_load_explicit (&g->shards[i].work, memory_order_relaxed);

    if ((uint32_t) work == 0)
      g->same_ms[i] = 0;
    else if (g->same_ms[i] == 0 || work / LEFT != g->looked[i] / LEFT)
      g->same_ms[i] = now_ms;
    g->looked[i] = work;
  }
}

uint32_t
gate_stuck (struct gate *g, uint64_t now_ms, uint64_t least_ms, uint64_t *age_ms)
{
  uint32_t n = 0;

  *age_ms = 0;
  for (unsigned i = 0; i < GATE_SHARDS; i++)
    if (g->same_ms[i] != 0 && now_ms - g->same_ms[i] >= least_ms) {
      n += (uint32_t) g->looked[i];
      *age_ms = MAX (*age_ms, now_ms - g->same_ms[i]);
    }
  return n;
}
