/* SPDX-License-Identifier: BSD-3-Clause
 *
 * What cluster.c (the group, and creation as coordinator) and cluster_part.c
 * (creation as participant) share.  Nobody else includes it.
 */
#ifndef CRG_CLUSTER_PRIVATE_H
#define CRG_CLUSTER_PRIVATE_H

#include <qb/qbloop.h>

#include "common/conf.h"
#include "server/cluster.h"
#include "server/deleted.h"
#include "server/state.h"

struct task;

enum make_phase { MAKE_IDLE, MAKE_WAITING, MAKE_PREPARING, MAKE_CREATING };

/* As coordinator. */
struct making {
  enum make_phase phase;
  char tx[24];
  uint64_t deadline_ms;
  bool force;
  json_t *def;
  struct conf_crg conf;
  struct crg_state state;
  bool answered[CRG_MAX_NODES];
  uint64_t data_bytes[CRG_MAX_NODES][CRG_MAX_IASPS];
  cluster_progress_fn *progress;
  cluster_reply_fn *done;
  void *opaque;
};

/* A node that comes into a CRG (C7), on the node that was asked. */
enum add_phase { ADD_IDLE, ADD_WAITING, ADD_PREPARING, ADD_ASKING };

struct adding {
  enum add_phase phase;
  char tx[24];
  char crg[CRG_NAME_MAX + 1], node[CRG_NAME_MAX + 1];
  uint64_t deadline_ms;
  bool force;
  json_t *def;
  struct crg_state state; /* as it will be */
  struct node_change change;
  cluster_reply_fn *done;
  void *opaque;
};

enum part_phase { PART_IDLE, PART_CHECKING, PART_PREPARED, PART_FORMATTING };

/* As participant. */
struct part {
  enum part_phase phase;
  char tx[24];
  uint32_t coordinator; /* engine id */
  uint64_t deadline_ms;
  bool force;
  bool joins;    /* the CRG exists: this node comes into it (C7) */
  struct conf_crg conf;
  struct crg_state state;
  unsigned self; /* index in conf.nodes, later in state.def.nodes */
  unsigned iasp; /* being checked or formatted */
  uint64_t data_bytes[CRG_MAX_IASPS];
  struct task *task;
};

struct cluster {
  struct daemon *d;
  bool in_view;
  uint32_t present[CRG_MAX_NODES];
  unsigned n_present;
  struct making make;
  struct part part;
  struct adding add;
  struct deleted dead;
  qb_loop_timer_handle timer;
};

/* Takes the reference.  0 or -errno. */
extern int cluster_send (struct cluster *c, json_t *msg);
/* A member of a message; "" if there is none. */
extern const char *cluster_text (json_t *msg, const char *key);
/* -1: not named. */
extern int cluster_node_index (const struct conf_crg *conf, const char *name);

extern bool cluster_is_present (const struct cluster *c, const char *node);
/* The state, encoded, in hex; the caller's, or NULL. */
extern char *cluster_state_hex (const struct crg_state *s);

/* cluster_node.c */
extern void cluster_add_tick (struct cluster *c, uint64_t now);
extern void cluster_on_node_prepared (struct cluster *c, json_t *msg);
extern void cluster_add_forget (struct cluster *c, void *opaque);
extern void part_on_node_prepare (struct cluster *c, json_t *msg, uint32_t engine_id);

/* Gives up what is under way as participant; with the superblocks that it was writing, or had written. */
extern void part_end (struct cluster *c);
extern void part_give_up (struct cluster *c);
extern void part_on_prepare (struct cluster *c, json_t *msg, uint32_t engine_id);
extern void part_on_create (struct cluster *c, json_t *msg);
extern void part_on_forget (struct cluster *c, json_t *msg);

#endif
