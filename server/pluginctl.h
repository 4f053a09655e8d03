/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The daemon's end of a plugin's control socket: JSON lines, requests with
 * ids and deadlines, events.  Owns one connection.  Main loop's thread only;
 * never blocks.  Callbacks may close the connection.
 */
#ifndef CRG_PLUGINCTL_H
#define CRG_PLUGINCTL_H

#include <stdbool.h>

#include <jansson.h>

struct qb_loop;
struct pluginctl;

/* `answer` is borrowed; NULL if there was none: `reason`.  A refusal is an
 * answer with "ok": false. */
typedef void pluginctl_answer_fn (void *opaque, json_t *answer, const char *reason);

struct pluginctl_callbacks {
  void (*event) (void *opaque, const char *event, json_t *obj);
  /* The connection is gone; pending calls have been answered with NULL, the
   * object is freed on return. */
  void (*closed) (void *opaque, const char *reason);
};

/* NULL and errno: ENOENT, ECONNREFUSED while the plugin starts. */
extern struct pluginctl *pluginctl_connect (struct qb_loop *loop, const char *path,
                                            const struct pluginctl_callbacks *cb, void *opaque);
/* Takes the reference of `request` (an object with "cmd").  `fn` may be NULL.
 * If it can't be sent, `fn` hears of it from `closed`'s path. */
extern void pluginctl_call (struct pluginctl *p, json_t *request, unsigned timeout_ms,
                            pluginctl_answer_fn *fn, void *opaque);
/* Closes quietly: no callback at all. */
/* It broke, and the loop is to hear of it: what is called now has no answer. */
extern bool pluginctl_is_broken (const struct pluginctl *p);
extern void pluginctl_close (struct pluginctl *p);

#endif
