/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Placement: who should host what (F1 to F4), as a pure function of the
 * committed state, who is present, and what each announced.  Its result is at
 * most one change; every member computes it, the first to be delivered is
 * applied, once (C3).  Owns nothing; called by the group core.
 */
#ifndef CRG_PLACE_H
#define CRG_PLACE_H

#include "server/group_msg.h"

struct place_node {
  bool present;
  bool waited_for;          /* start-wait still runs for it ... */
  bool returning;           /* F7: it left less than a lease ago */
  bool maybe;               /* in the view, silent for less than C8 allows */
  const struct announce *announce; /* of this view, or NULL */
};

struct place_in {
  const struct crg_state *state;
  struct place_node node[CRG_MAX_NODES]; /* by index in def.nodes */
  uint8_t warm;             /* ... but not as host of these units (bit set), which a
                               member has heard of since its start */
  uint8_t links_down[CRG_MAX_IASPS]; /* F7: bit set of sites: this node is
                               production, and its link to the copy broke */
  bool ready;               /* all present have announced, or time is up */
};

enum place_why {
  PLACE_FOR_FAILOVER,       /* the store must be free now (S1) */
  PLACE_FOR_SWITCHOVER,     /* ... or is released by the present host (F6) */
  PLACE_SWITCH_COPIES,      /* ... or by who hosts that mirror copy, as an operator wants it so */
  PLACE_TOGETHER,           /* ... or by whom hosts that mirror copy, as no node has all (F2) */
};

/* NULL if the node may become production host of a unit, else why not. */
extern const char *place_refusal (const struct place_in *in, unsigned unit, unsigned node,
                                  enum place_why why);
/* Fig. 4: has it access(R), as it announced?  It is then in the subgroup of R. */
extern bool place_has_access (const struct crg_state *s, unsigned iasp, const struct announce *a);
/* Fig. 4: the member that own(R) says a unit runs at, which nobody has hosted yet; -1: nobody,
 * or the named host. */
extern int place_owner (const struct place_in *in, unsigned unit);
/* May the named host begin?  Before the first opening of all it is seen who owns it. */
extern bool place_may_begin (const struct place_in *in, unsigned unit);
/* Does a store agree with the record of its site (R2, R4, R6)?  NULL or why
 * not. */
extern const char *place_disagrees (const struct crg_state *s, unsigned iasp,
                                    uint8_t site, const struct store_info *store);
/* R4: NULL if an operator may force the node to take over, else why not. */
extern const char *place_force_refusal (const struct place_in *in, unsigned unit, unsigned node);
/* R4: the change by which it does, if it was not refused.  False: the named host waits for nothing more (S2). */
extern bool place_force (const struct place_in *in, unsigned unit, unsigned node, struct change *c);
/* C9: the IASPs of a unit (bit set) of which a copy of the set that was not opened since the group was recovered
 * doesn't agree with it.  It may hold what was answered and no other copy has, so nobody begins: an operator chooses
 * (R4). */
extern uint32_t place_apart (const struct place_in *in, unsigned unit);
/* R5, S2: is the store of this node a restarted one that nobody has filled,
 * or accepted, in this boot of its machine? */
extern bool place_is_restarted (const struct place_in *in, unsigned node, unsigned iasp);
/* S2: the site whose copy a restarted store has to wait for, or -1. */
extern int place_waits_for (const struct place_in *in, unsigned iasp, uint8_t site);
/* S2 b: true and a change if a restarted production store may be opened. */
extern bool place_restarted (const struct place_in *in, struct change *c);
/* ... of this unit; also while other copies of the set are waited for, if an operator has `accepted` what the
 * restart took. */
extern bool place_unit_restarted (const struct place_in *in, unsigned unit, bool accepted, struct change *c);
/* The change that appoints a node which may take over (F2, R4). */
extern void place_appointment (const struct place_in *in, unsigned unit, unsigned node,
                               struct change *c);
/* F2: true and a change if production of a unit needs another host and one is there. */
extern bool place_production (const struct place_in *in, struct change *c);
/* F3: the same for the copies. */
extern bool place_copies (const struct place_in *in, struct change *c);
/* The best target of a switchover, or -1. */
extern int place_target (const struct place_in *in, unsigned unit);
/* Is the named host gone, or unable?  Nobody waits for it any more. */
extern bool place_left (const struct place_in *in, unsigned iasp, uint8_t site);
/* The same of the production of any IASP of a unit. */
extern bool place_unit_left (const struct place_in *in, unsigned unit);
/* Could any present node of `site` take its copy? */
extern bool place_can_take (const struct place_in *in, unsigned iasp, uint8_t site);

/* group_want.c: gathers the input from a group. */
struct group;
extern void place_gather (const struct group *g, struct place_in *in);

#endif
