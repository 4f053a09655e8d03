/* SPDX-License-Identifier: BSD-3-Clause */
/* Verify: the copies of the set are compared with production by digests, online.  Part of the
 * replication core (repl.h), pure like it; this header has its rules, its state and what is
 * shown of it.  The shell makes digests of production's ranges and asks the copies for theirs; it
 * decides nothing.
 *
 * V1  A range is compared without its lock first, a few at a time.  Digests that are equal end
 *     it; digests that differ there prove nothing, as writes may be under way.
 * V2  A block is called different only if its digests differ under its range lock: no write to it
 *     is granted, every earlier one has been answered by that copy, and it is clean in the copy's
 *     map, when the lock is taken and when it is given back.
 * V3  Only a copy in the committed set, linked and about to stay is compared.  One that stops
 *     being so is left out, with its reason; what was found of it stays.
 * V4  Repair: every differing block is dirty for the copy on production's disk, then the copy is
 *     asked out of the set (R2), then it is resynchronised and enters again (R3).  Production is
 *     the source.
 * V5  Clients first: one range lock at a time, given back after VERIFY_LOCK_MS whatever happens;
 *     while clients work, one range at a time and the resynchronisation's share of the time.
 * V6  One run at a time; it ends with this production, when it is held, and when it is told to.
 */
#ifndef IASP_VERIFY_H
#define IASP_VERIFY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/limits.h"
#include "common/wire.h"

enum verify_phase {
  VP_OUT,       /* not asked for */
  VP_COMPARING,
  VP_MARKING,   /* V4: what differs is being written to the map on disk */
  VP_LEAVING,   /* ... it was asked out of the set */
  VP_FILLING,   /* ... it is resynchronised */
  VP_DONE,
  VP_STOPPED,   /* before its end; reason says why */
};
extern const char *verify_phase_name (unsigned phase); /* "comparing" */

struct verify_found {
  uint64_t offset, length;
};

struct verify_site {
  uint8_t phase;                /* enum verify_phase */
  bool repaired;                /* VP_DONE: what differed is equal now */
  uint64_t compared_bytes, different_bytes;
  uint64_t ticket;              /* VP_MARKING: of the map */
  unsigned n_found;             /* the first ranges that differ, in order, neighbours as one */
  struct verify_found found[VERIFY_MAX_FOUND];
  char reason[CRG_REASON_MAX + 1];
};

enum verify_slot_state { VS_FREE, VS_WAITING, VS_SUSPECT };

/* One range whose digests are on their way, or (VS_SUSPECT) were not equal. */
struct verify_slot {
  uint8_t state;                /* enum verify_slot_state */
  bool own_waits;
  int own_error;
  unsigned n;                   /* blocks */
  uint64_t tag, offset, length, since_ms;
  uint32_t asked, got, failed;  /* sites: no answer yet; digests; it can't read */
  uint32_t suspect[VERIFY_BLOCKS]; /* sites, for each block */
  uint8_t own[VERIFY_BLOCKS][WIRE_DIGEST_LEN];
  uint8_t of[CRG_MAX_SITES][VERIFY_BLOCKS][WIRE_DIGEST_LEN];
};

struct verify {
  bool on;
  bool repair;
  uint8_t *map;                 /* repair: bits of each site in turn; set: that block differs */
  size_t map_bytes;             /* ... of one site */
  uint64_t cursor;              /* bytes; ranges before it were begun */
  uint64_t done_bytes;
  uint64_t start_ms, next_ms, end_ms;
  uint64_t rate_ms, rate_done, rate_bytes_s;
  /* the block that is looked at under its lock: of slot `from`, number `block` */
  unsigned from, block, tries;
  uint64_t lock_retry_ms;
  struct verify_slot check;
  struct verify_slot slots[VERIFY_SLOTS];
  struct verify_site sites[CRG_MAX_SITES];
};

struct verify_status {
  bool on, repair;
  bool locked;                  /* a range lock is held for it */
  uint64_t done_bytes, total_bytes; /* neither falls in a run */
  uint64_t rate_bytes_s;
  uint64_t eta_s;               /* UINT64_MAX: unknown */
  uint64_t elapsed_ms;
};

struct repl;
extern void verify_status (const struct repl *r, uint64_t now_ms, struct verify_status *st);
/* Of the present run, or of the last one. */
extern const struct verify_site *verify_of_site (const struct repl *r, unsigned site);
/* Bytes of the memory that RE_VERIFY with `repair` brings, zeroed. */
extern size_t verify_memory_bytes (uint64_t size, uint32_t block_size, unsigned n_sites);
/* For the copy: NULL, or why this DIGEST_REQ is refused. */
extern const char *verify_request_refusal (const struct wire_header *h, const struct wire_digest_req *q,
                                           uint64_t size);
/* Length of a range that is compared at once: at most VERIFY_BLOCKS blocks. */
extern uint64_t verify_range_bytes (uint32_t block_size);

#endif
