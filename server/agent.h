/* SPDX-License-Identifier: BSD-3-Clause
 *
 * A resource that isn't mirrored, on this node: a program of the
 * administrator's, the agent, starts and stops it, says whether it runs or
 * could, and tells its configuration; nbd-crg-hooks(7) has its side of this.
 * The supervisor of such a resource, as supervise.h is that of an IASP: level
 * by level, one call of the agent at a time, each with a hard end.  Main
 * loop's thread only.  It decides nothing about the group.
 */
#ifndef CRG_AGENT_H
#define CRG_AGENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "server/group.h"

struct qb_loop;
struct agent;

struct agent_spec {
  char crg[CRG_NAME_MAX + 1], name[CRG_NAME_MAX + 1];
  char node[CRG_NAME_MAX + 1], site[CRG_NAME_MAX + 1];
  char path[CRG_PATH_MAX + 1];
  char run_dir[CRG_PATH_MAX + 1], state_dir[CRG_PATH_MAX + 1], conf_dir[CRG_PATH_MAX + 1];
  uint8_t boot_id[CRG_ID_LEN];
  unsigned timeout_ms;
};

struct agent_callbacks {
  /* As plugin_callbacks.hosted: the answer to agent_want, or unasked with role
   * NONE and ok = false: it has stopped and can't be started again. */
  void (*hosted) (void *opaque, enum host_role role, uint64_t tenure, bool ok,
                  const char *reason);
  /* The answer to agent_probe.  `can`: access(R); `owned`: own(R), it runs. */
  void (*probed) (void *opaque, bool can, bool owned, const char *reason);
  /* What it says of its configuration; before `hosted`, and when it changes. */
  void (*config) (void *opaque, const char *text, size_t len);
};

extern struct agent *agent_new (struct qb_loop *loop, const struct agent_spec *spec,
                                const struct agent_callbacks *cb, void *opaque);
/* What runs goes on: a later crgd finds it. */
extern void agent_free (struct agent *a);

/* S3: takes over what an earlier run of crgd, of this boot, has started.  True
 * if there may be something; `hosted` then tells unasked, if it runs. */
extern bool agent_adopt (struct agent *a);
/* PRODUCTION: started, NONE: stopped. */
extern void agent_want (struct agent *a, enum host_role role, uint64_t tenure);
/* It is stopped when this is over, and started again by a later one. */
extern void agent_set_lease (struct agent *a, uint64_t until_ms);
extern void agent_probe (struct agent *a);
/* Messages 4 and 5: the host's configuration is kept for the agent's `start`. */
extern void agent_take_config (struct agent *a, const char *text, size_t len);

/* Something runs, or may. */
extern bool agent_is_alive (const struct agent *a);
/* Nothing but agent_want begins it again. */
extern bool agent_is_ending (const struct agent *a);
/* It runs, in that role. */
extern enum host_role agent_role (const struct agent *a);
/* Why it doesn't, or "". */
extern const char *agent_trouble (const struct agent *a);

#endif
