/* SPDX-License-Identifier: BSD-3-Clause
 *
 * What the parts of the small world share; see small.h.
 */
#ifndef SIM_SMALL_PRIVATE_H
#define SIM_SMALL_PRIVATE_H

#include "tests/sim/small.h"

#define SMALL_MESSAGES 8192
#define SMALL_ARENA (8u << 20)
#define SMALL_FNV UINT64_C (1469598103934665603)

struct small_message {
  uint8_t from; /* node + 1; 0: a view */
  uint8_t members;
  uint32_t view;
  uint32_t at, len; /* in the arena */
  uint64_t hash;
};

struct small_disk {
  struct crg_state state;
  uint64_t promised;
};

extern struct small_disk *small_disk[SMALL_NODES];
extern struct small_message small_message[SMALL_MESSAGES];
extern uint8_t small_arena[SMALL_ARENA];
/* As `create` made it, and as an operator recovered it (C9). */
extern struct crg_state small_created, small_recovered;

/* Its crgd runs and takes part, as far as it knows. */
static inline bool
small_acts (unsigned n)
{
  return small.up[n] && small.silent[n] != SILENT_PAUSED && small.silent[n] != SILENT_FROZEN;
}

/* ... and everybody knows. */
static inline bool
small_is_there (unsigned n)
{
  return small.up[n] && small.silent[n] == SILENT_NOT;
}

/* What a node has on disk, as who is up has there what it has applied; NULL: nothing. */
static inline const struct crg_state *
small_state_of (unsigned n)
{
  if (small.up[n])
    return group_applied (small_group[n]);
  return small.empty[n] ? NULL : &small_disk[n]->state;
}

/* small.c */
extern uint64_t small_mix (uint64_t h, const void *p, size_t n);
extern unsigned small_site_of (unsigned n); /* or NO_SITE */
extern void small_changed (unsigned n);
/* A fact that must not be contradicted, or (once) stated twice.  Facts hold along one path only. */
extern bool small_state_fact (uint64_t key, uint64_t value, bool once);

/* small_ring.c */
extern void small_send (unsigned n, const uint8_t *bytes, uint32_t len);
extern void small_reform (unsigned part);
extern bool small_is_tail (unsigned side, uint16_t m);
extern void small_take_out (unsigned side, uint16_t m);
extern void small_speak (unsigned n); /* what it could not send is sent */

/* small_shell.c */
extern void small_store_info (unsigned n, struct store_info *info);
extern int small_reach (unsigned n, unsigned site);
extern void small_say (unsigned n, unsigned site, enum group_event_kind kind);
extern void small_fill (unsigned n, unsigned site);
extern void small_drain (unsigned n);
extern void small_stop_plugin (unsigned n, bool graceful);
extern void small_feed (unsigned n, struct group_event *ev);

/* small_check.c */
extern bool small_has_lease (unsigned n);
extern void small_judge (unsigned n, uint64_t serial);

#endif
