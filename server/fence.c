/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Starts the program of fence.h with what it has to know in its environment.
 * Owns nothing: the script that runs is the caller's.
 */
#include "config.h"

#include "server/fence.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/program.h"
#include "common/util-posix.h"

struct script *
fence_start (struct qb_loop *loop, const struct conf_crgd *conf, const struct crg_state *s,
             unsigned node, script_done_fn *done, void *opaque, const char **reason)
{
  static char path[] = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
  static char locale[] = "LC_ALL=C";
  const struct domain_node *n = &s->def.nodes[node];
  char crg[CRG_NAME_MAX + 16], self[CRG_NAME_MAX + 16], target[CRG_NAME_MAX + 32],
    id[48], addresses[CRG_MAX_ADDRS * (CRG_ADDR_MAX + 1) + 32];
  char *const env[] = { path, locale, crg, self, target, id, addresses, NULL };
  struct script_spec spec = { .path = conf->fence_hook, .argument = { n->name }, .env = env,
                              .timeout_ms = conf->fence_timeout_ms };
  size_t used = (size_t) snprintf (addresses, sizeof addresses, "CRG_FENCE_ADDRESSES=");
  struct script *script;

  *reason = program_refusal (conf->fence_hook, false);
  if (*reason)
    return NULL;
  snprintf (crg, sizeof crg, "CRG_NAME=%s", s->def.name);
  snprintf (self, sizeof self, "CRG_NODE=%s", conf->name);
  snprintf (target, sizeof target, "CRG_FENCE_NODE=%s", n->name);
  snprintf (id, sizeof id, "CRG_FENCE_NODE_ID=%u", n->id);
  for (unsigned i = 0; i < n->n_addresses && used < sizeof addresses; i++)
    used += (size_t) snprintf (addresses + used, sizeof addresses - used, "%s%s", i ? " " : "",
                               n->addresses[i]);
  snprintf (spec.label, sizeof spec.label, "%s: fence of %s", s->def.name, n->name);
  script = script_start (loop, &spec, done, opaque);
  if (script == NULL)
    *reason = strerror (errno);
  return script;
}
