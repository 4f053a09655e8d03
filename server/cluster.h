/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The group "@cluster" that every crgd is in: who is there, which CRGs there
 * are, and the making of a new CRG on all its nodes at once.  Its messages
 * are JSON objects {"t": TYPE, "from": NODE, ...}; see nbd-crg-protocol(7).
 * Owns at most one creation as coordinator and one as participant.  Main
 * loop's thread only.
 *
 * create: PREPARE -> every named node looks at its stores and answers
 * PREPARED; only if all say yes CREATE -> the first host of each site writes
 * the superblocks, every node its state file, each answers CREATED.  Else
 * ABORT, or FORGET, and nothing is left anywhere.
 */
#ifndef CRG_CLUSTER_H
#define CRG_CLUSTER_H

#include <jansson.h>

#include "server/daemon.h"

struct crg_state;

#define CLUSTER_GROUP "@cluster"

typedef void cluster_reply_fn (void *opaque, int code, const char *reason);
typedef void cluster_progress_fn (void *opaque, const char *text);

extern struct cluster *cluster_new (struct daemon *d);
extern void cluster_free (struct cluster *c);
extern void cluster_on_view (struct cluster *c, const uint32_t *engine_ids, unsigned n);
extern void cluster_on_message (struct cluster *c, uint32_t engine_id, const uint8_t *buf,
                                size_t len);
extern void cluster_on_down (struct cluster *c);

/* `def` as conf_crg_to_json makes it; borrowed.  `done` is called once. */
extern void cluster_create (struct cluster *c, const json_t *def, bool force,
                            cluster_progress_fn *progress, cluster_reply_fn *done, void *opaque);
/* C7: `node` as in the JSON of a definition ("id" may be missing), `stores`
 * one path for all IASPs or {IASP: PATH}, and so `metas` of where their
 * metadata is, or NULL; all borrowed.  `done` is called once. */
extern void cluster_add_node (struct cluster *c, struct member *m, const json_t *node,
                              const json_t *stores, const json_t *metas, bool force, cluster_reply_fn *done,
                              void *opaque);
/* Says again which CRGs there are, and who is in them. */
extern void cluster_tell (struct cluster *c);
extern void cluster_forget_request (struct cluster *c, void *opaque);
/* A CRG was deleted here, or its creation failed: who says later that it has it is told so. */
extern void cluster_note_deleted (struct cluster *c, const struct crg_state *s, bool failed);

#endif
