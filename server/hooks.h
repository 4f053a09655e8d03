/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The administrator's scripts in hooks.d, run for events of a CRG; see
 * nbd-crg-hooks(7).  Owns the queues and what runs.  The events of one CRG are
 * handled in order, its scripts one after the other; those of different CRGs
 * side by side, within bounds.  Nothing of the group ever waits for a hook.
 * Main loop's thread only.
 */
#ifndef CRG_HOOKS_H
#define CRG_HOOKS_H

#include <stdbool.h>

struct qb_loop;
struct hooks;

/* `dir` may be absent: then there are no hooks.  NULL: no memory. */
extern struct hooks *hooks_new (struct qb_loop *loop, const char *dir, unsigned timeout_ms);
extern void hooks_free (struct hooks *h);

/* `env`: "NAME=value" strings, NULL-terminated, copied; CRG_EVENT and a plain
 * PATH are added. */
extern void hooks_event (struct hooks *h, const char *crg, const char *event,
                         char *const *env);
/* Nothing runs and nothing waits. */
extern bool hooks_idle (const struct hooks *h);

#endif
