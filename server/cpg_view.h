/* SPDX-License-Identifier: BSD-3-Clause
 *
 * How CPG's events become views of a group.  A pure state machine, one for each
 * group on each node: no I/O, clock, randomness or allocation.
 *
 * CPG gives every member of a ring one sequence of messages, process changes
 * (confchg) and ring changes (totem); beside it, and in no order with it,
 * votequorum says which ring it has counted.  A view begins with the last of a
 * run of changes.  Its id can't be computed from what a member sees: the pair
 * {ring id, members} comes again when a process leaves and returns with the same
 * pid, and a joiner doesn't know how many changes came before it.  So every
 * member multicasts a VIEW frame with a random id and its ring id, once
 * votequorum has counted the ring, and the first such frame of this ring that
 * is delivered after the change names the view.  Order is total, so all members
 * take the same one; an id is random, and delivered once, so none comes twice.
 *
 * Between a change and that frame there is no view, and nothing is delivered:
 * what CPG still hands out there, and later under another view's id, was
 * accepted before the change (and others may never see it).
 */
#ifndef CRG_CPG_VIEW_H
#define CRG_CPG_VIEW_H

#include <stdbool.h>
#include <stdint.h>

#include "common/limits.h"

struct cpg_ring {
  uint64_t seq;
  uint32_t node;
};

struct cpg_proc {
  uint32_t node, pid;
};

struct cpg_view {
  struct cpg_proc me;
  bool counts_quorum; /* false: corosync runs without a quorum provider */
  bool ring_known, quorum_known, quorate;
  struct cpg_ring ring, quorum_ring;
  bool is_member, too_many;
  bool twice;    /* a node has two processes in the group */
  bool proposed; /* our VIEW frame for this change is out */
  uint64_t id;   /* 0: no view */
  unsigned n;
  struct cpg_proc members[CRG_MAX_NODES]; /* by rising node id, one a node */
};

extern void cpg_view_init (struct cpg_view *v, struct cpg_proc me,
                           bool counts_quorum);

/* Each of the first two ends the present view. */
extern void cpg_view_confchg (struct cpg_view *v,
                              const struct cpg_proc *members, unsigned n);
extern void cpg_view_totem (struct cpg_view *v, struct cpg_ring ring);
extern void cpg_view_quorum (struct cpg_view *v, struct cpg_ring ring,
                             bool quorate);

/* No view, and votequorum hasn't counted our ring yet: take no further event of
 * CPG before it has. */
extern bool cpg_view_must_wait (const struct cpg_view *v);
/* A VIEW frame is due; the caller sends one and then says so. */
extern bool cpg_view_must_propose (const struct cpg_view *v);
extern void cpg_view_proposed (struct cpg_view *v);

/* A VIEW frame was delivered.  True: view `id` begins here. */
extern bool cpg_view_decide (struct cpg_view *v, struct cpg_ring ring,
                             uint64_t id);
/* A DATA frame sent in view `id` by `from`: is it of the present view? */
extern bool cpg_view_takes (const struct cpg_view *v, struct cpg_proc from,
                            uint64_t id);

#endif /* CRG_CPG_VIEW_H */
