/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The group engine over corosync: one CPG group for each group, votequorum's
 * notices beside it, totem's timers from cmap.  It owns the connections to the
 * node's corosync, the queues of what could not be sent yet, and the pieces of
 * what has not wholly arrived.  Everything runs on the daemon's main loop; a
 * corosync that is gone or busy is waited for by timers, never in a call.
 *
 * It promises more than engine.h asks: a message is delivered in the view in
 * which it was sent, or not at all.  How views are formed is in cpg_view.h.
 */
#ifndef CRG_ENGINE_COROSYNC_H
#define CRG_ENGINE_COROSYNC_H

#include "server/engine.h"

struct engine_corosync_stats {
  uint64_t views, ring_changes;
  uint64_t sent, delivered;     /* messages */
  uint64_t frames_sent, frames_received;
  uint64_t try_again;           /* corosync asked to wait */
  uint64_t foreign;             /* frames of another view, not delivered */
  uint64_t strays, not_ours;    /* pieces without a beginning; foreign formats */
  uint64_t queue_peak_bytes, rate_waits;
  uint64_t connects;             /* 1: never lost */
  bool connected, quorate;      /* as votequorum says; decides nothing */
  uint64_t ring_seq;
  uint32_t ring_node;
  uint32_t token_ms, consensus_ms;
};

/* Detection time that nobody knows yet: corosync has not been reached. */
#define ENGINE_DETECTION_UNKNOWN_MS UINT32_MAX

/* The id under which the daemon knows a node of that name; never 0. */
typedef uint32_t engine_corosync_id_fn (const char *node_name);

/* `prefix` goes before the group's name in CPG ("nbd-crg" if NULL or empty), so
 * that several products and several clusters of ours share a corosync.
 *
 * Who is who: each node in corosync.conf has a name, the one that the daemon has
 * for it, and the interface's node ids are id_of (name); this node must be
 * node_name there.  With both NULL ids are corosync's own nodeids.
 *
 * Corosync need not run yet: `down`, later `up`, are called from the loop.  NULL
 * if memory is short or the prefix is too long. */
extern struct engine *engine_corosync_new (struct qb_loop *loop,
                                           const char *prefix,
                                           const char *node_name,
                                           engine_corosync_id_fn *id_of,
                                           const struct engine_callbacks *cb,
                                           void *opaque);

extern void engine_corosync_stats (const struct engine *e,
                                   struct engine_corosync_stats *out);

#endif /* CRG_ENGINE_COROSYNC_H */
