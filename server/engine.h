/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The group engine: ordered messages and membership, nothing more.
 *
 * One small interface with several implementations: `local` (a hub process
 * for nodes on one machine), later corosync's CPG, and the simulator's.  An
 * engine orders every message and every view of a group in one sequence that
 * is the same at all members that go on to the next view together.  Members
 * that are cut off from each other may end the view differently: each side
 * delivers what it still got, so the same place in the sequence can hold
 * another message there.  It promises no durability and no safe delivery:
 * the commit rules (C1 to C6) close that.  All calls and all
 * callbacks happen on the daemon's main loop thread.
 */
#ifndef CRG_ENGINE_H
#define CRG_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/limits.h"

struct qb_loop;

struct engine_callbacks {
  /* A new view of `group`: its id is never used twice.  `members` are node
   * ids in rising order and contain this node.  `quorate` is shown in status
   * and decides nothing. */
  void (*view) (void *opaque, const char *group, uint64_t view,
                const uint32_t *members, unsigned n, bool quorate);
  /* The next message of the group, own ones included. */
  void (*deliver) (void *opaque, const char *group, uint32_t from,
                   const uint8_t *buf, size_t len);
  /* The engine is gone: no view in any group until further notice. */
  void (*down) (void *opaque, const char *reason);
  /* It is back; joined groups are being joined again by the engine. */
  void (*up) (void *opaque);
};

struct engine; /* an implementation embeds this first */

struct engine_ops {
  const char *name;
  int (*join) (struct engine *, const char *group);  /* 0 or -errno */
  int (*leave) (struct engine *, const char *group);
  /* Queues one message; never blocks.  -EMSGSIZE, -ENOBUFS (own queue is
   * full: CRG_ENGINE_QUEUE_MAX), -ENOTCONN (no view). */
  int (*mcast) (struct engine *, const char *group, const uint8_t *buf,
                size_t len);
  /* Longest time in which it tells a member's death; 0 = at once.  The lease
   * must be longer (L1). */
  unsigned (*detection_ms) (struct engine *);
  void (*destroy) (struct engine *);
};

struct engine {
  const struct engine_ops *ops;
  struct engine_callbacks cb;
  void *opaque;
  uint32_t node_id;
};

extern struct engine *engine_local_new (struct qb_loop *loop,
                                        const char *socket_path,
                                        uint32_t node_id, unsigned token_ms,
                                        const struct engine_callbacks *cb,
                                        void *opaque);
/* The hub: runs until SIGTERM; returns the exit code of the process. */
extern int hub_main (const char *socket_path);

#endif
