/* SPDX-License-Identifier: BSD-3-Clause */
/* The gate that each request of a worker passes: who does the work now, is the lease valid, and
 * which blocks have a write in flight.  Written so that requests share no lock and no cache line
 * that they all write: the counters are sharded by thread.
 *
 * The engine thread (or, before it exists, the main thread) changes the mode; workers enter and
 * leave.  After a change the engine waits until gate_is_drained before it relies on it.
 */
#ifndef IASP_GATE_H
#define IASP_GATE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define GATE_SHARDS 64

/* One counter for each 64 KiB block, hashed.  A range of more blocks than this counts as
 * everywhere. */
#define GATE_BLOCK_SHIFT 16
#define GATE_BLOCKS      4096
#define GATE_MAX_MARKED  64

enum gate_mode {
  GATE_CLOSED, /* no production here: every request fails with ESHUTDOWN */
  GATE_FAST,   /* unmirrored: the worker does all of it itself */
  GATE_ENGINE, /* reads by the worker, the rest through the engine */
};

struct gate_shard {
  _Atomic uint64_t work; /* low half: inside now; high half: how many have left */
  char pad[56];          /* one cache line each */
};

struct gate {
  _Atomic uint32_t mode;           /* enum gate_mode */
  _Atomic uint32_t epoch;          /* rises with each change of role */
  _Atomic uint64_t lease_until_ms; /* L1: CLOCK_BOOTTIME; UINT64_MAX: none is needed */
  _Atomic uint64_t read_ms;        /* a read was answered last, by a worker alone */
  _Atomic bool guarded;            /* every read waits through the engine: copies may differ */
  uint64_t seen_idle;              /* engine: shards seen at 0 since the last change */
  uint64_t looked[GATE_SHARDS];    /* engine: shards as gate_look saw them last, ... */
  uint64_t same_ms[GATE_SHARDS];   /* ... and since when nobody has left */
  struct gate_shard shards[GATE_SHARDS];
  _Atomic uint32_t wide;                /* writes in flight that span too many blocks */
  _Atomic uint16_t blocks[GATE_BLOCKS]; /* writes in flight, by hashed block */
};

extern void gate_init (struct gate *g, enum gate_mode mode, uint64_t lease_until_ms);

/* Worker: enter, and leave with what enter gave. */
struct gate_pass {
  struct gate_shard *shard;
  uint32_t mode;
  uint32_t epoch;
};
extern struct gate_pass gate_enter (struct gate *g);
extern void gate_leave (struct gate_pass *pass);

/* L2: may a request be answered that was completed at now_ms? */
static inline bool
gate_lease_is_valid (const struct gate *g, uint64_t now_ms)
{
  return now_ms < atomic_load_explicit (&g->lease_until_ms, memory_order_acquire);
}

/* Worker: a client reads.  Written once a millisecond at most: all workers share it. */
static inline void
gate_note_read (struct gate *g, uint64_t now_ms)
{
  if (atomic_load_explicit (&g->read_ms, memory_order_relaxed) != now_ms)
    atomic_store_explicit (&g->read_ms, now_ms, memory_order_relaxed);
}

/* Worker: a write is about to be submitted, is answered.  A read that finds its range marked may
 * have seen what a failover takes back, and waits through the engine. */
extern void gate_mark (struct gate *g, uint64_t offset, uint64_t length);
extern void gate_unmark (struct gate *g, uint64_t offset, uint64_t length);
extern bool gate_is_marked (struct gate *g, uint64_t offset, uint64_t length);

/* Engine: from now on requests see 'mode'; with new_epoch those that entered before and are still
 * on their way to the engine are told apart. */
extern void gate_set (struct gate *g, enum gate_mode mode, bool new_epoch);
/* Engine: has every request left that entered before the last gate_set? */
extern bool gate_is_drained (struct gate *g);
/* Requests inside now; for status. */
extern uint32_t gate_inside (struct gate *g);
/* Engine, again and again: who is inside.  The store has them, as whoever waits for the engine has left. */
extern void gate_look (struct gate *g, uint64_t now_ms);
/* Engine: requests that the store has had for least_ms or longer, and the age of the oldest. */
extern uint32_t gate_stuck (struct gate *g, uint64_t now_ms, uint64_t least_ms, uint64_t *age_ms);

#endif /* IASP_GATE_H */
