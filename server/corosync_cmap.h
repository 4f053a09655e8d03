/* SPDX-License-Identifier: BSD-3-Clause
 *
 * What the corosync engine takes from cmap, corosync's table of keys: totem's
 * timers, followed while they change, and the names of the nodes.  Owns its
 * connection.  On the main loop's thread; never tells more than one failure, and
 * doesn't close itself: the engine does.
 */
#ifndef CRG_COROSYNC_CMAP_H
#define CRG_COROSYNC_CMAP_H

#include <stdbool.h>
#include <stdint.h>

#include <corosync/cmap.h>
#include <corosync/corotypes.h>

#include "common/limits.h"

struct qb_loop;

/* A node of corosync.conf. */
struct corosync_node {
  uint32_t nodeid, id;
  char name[CRG_NAME_MAX + 1];
};

struct corosync_cmap {
  /* Set by the owner. */
  struct qb_loop *loop;
  uint32_t (*id_of) (const char *node_name); /* NULL: ids are corosync's nodeids */
  void (*broken) (void *opaque, const char *what, cs_error_t err);
  void *opaque;
  /* 0 until it was read once; kept when the connection is gone. */
  uint32_t token_ms, consensus_ms;

  cmap_handle_t handle;
  bool open, is_broken;
  int fd;
  struct corosync_node nodes[COROSYNC_NODES_MAX];
  unsigned n_nodes;
};

/* Connects and reads.  On an error nothing is open. */
extern cs_error_t corosync_cmap_open (struct corosync_cmap *c);
extern void corosync_cmap_close (struct corosync_cmap *c);
/* The daemon's id of corosync's node; 0 if its name isn't in corosync.conf. */
extern uint32_t corosync_cmap_id (struct corosync_cmap *c, uint32_t nodeid);
/* Is `nodeid`, this node, called `name` in corosync.conf?  If not, and `say`, the
 * log says what to do. */
extern bool corosync_cmap_is_self (struct corosync_cmap *c, uint32_t nodeid,
                                   const char *name, bool say);

#endif /* CRG_COROSYNC_CMAP_H */
