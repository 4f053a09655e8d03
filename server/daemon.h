/* SPDX-License-Identifier: BSD-3-Clause
 *
 * What the parts of crgd share: one object, made by main, used on the main
 * loop's thread only.
 */
#ifndef CRG_DAEMON_H
#define CRG_DAEMON_H

#include <stdbool.h>
#include <stdint.h>

#include "common/conf.h"
#include "server/engine.h"

struct qb_loop;
struct member;
struct cluster;
struct admin;
struct query;
struct stopper;
struct hooks;

struct daemon {
  struct qb_loop *loop;
  struct conf_crgd conf;
  uint64_t incarnation;
  uint8_t boot_id[CRG_ID_LEN];
  struct engine *engine;
  bool connected;  /* to the engine */
  bool quorate;    /* as it says; shown, and decides nothing */
  struct cluster *cluster;
  struct admin *admin;
  struct query *query; /* NULL: clients can't ask here */
  struct stopper *stopper;
  struct hooks *hooks;
  char conf_dir[CRG_PATH_MAX + 1]; /* where crgd.conf is; hooks look there too */
  struct member *members[CRG_MAX_CRGS]; /* CRGs of this node; NULL: free */
  bool hand_over;  /* --hand-over: what SIGTERM means */
  bool stopping;   /* nothing new begins */
  int exit_code;   /* of the process, when it stops */
};

/* The CRG of that name, or NULL. */
extern struct member *daemon_find (struct daemon *d, const char *crg);
/* The CRG that has an IASP of that name, and its index. */
extern struct member *daemon_find_iasp (struct daemon *d, const char *iasp, unsigned *index);
struct node_name_id {
  char name[CRG_NAME_MAX + 1];
  uint32_t id;
};
/* Makes the CRG's shell from its state file and joins its group; without a
 * good one with `nodes`, the domain as another node tells it (C6), or not at
 * all if that is empty.  NULL: see the log. */
extern struct member *daemon_add (struct daemon *d, const char *crg,
                                  const struct node_name_id *nodes, unsigned n_nodes);
/* After the current callback the shell is freed, its state file too if the
 * CRG was deleted; `again`: and made anew. */
extern void daemon_remove (struct daemon *d, struct member *m, bool again);

#endif
