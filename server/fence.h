/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The administrator's fence hook (S1 d): a program that cuts a node from its
 * stores, by its power or by its way to the disks, and ends with 0 only when
 * no write of that node can reach them any more.  Main loop's thread only; the
 * loop never waits for it.
 */
#ifndef CRG_FENCE_H
#define CRG_FENCE_H

#include "common/conf.h"
#include "server/script.h"
#include "server/state.h"

struct qb_loop;

/* Runs `conf`'s fence-hook against the node with index `node`; NULL with a
 * reason if it can't be started (`done` is then not called). */
extern struct script *fence_start (struct qb_loop *loop, const struct conf_crgd *conf,
                                   const struct crg_state *s, unsigned node,
                                   script_done_fn *done, void *opaque, const char **reason);

#endif
