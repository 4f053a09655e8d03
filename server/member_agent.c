/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The part of a CRG's shell that knows agents: what they say becomes events of
 * the core, and what the core tells of a [script] becomes calls of its agent.
 * Main loop's thread only.
 */
#include "config.h"

#include "server/member_private.h"

#include <string.h>

static void
on_hosted (void *opaque, enum host_role role, uint64_t tenure, bool ok, const char *reason)
{
  struct iasp_shell *sh = opaque;
  struct group_event ev = iasp_event (sh, GE_HOSTED);

  /* A stop for the end of this crgd has failed.  The group didn't ask for it, and would take it for gone, though it
   * counts as running (L3). */
  if (!ok && role == HOST_NONE && !(sh->claimed && sh->told == HOST_NONE) && agent_is_alive (sh->agent))
    return;
  ev.role = (uint8_t) role;
  ev.tenure = tenure;
  ev.ok = ok;
  ev.store.can_host = ok;
  ev.store.owned = ok && role == HOST_PRODUCTION;
  set_reason (&ev, reason);
  member_step (sh->m, &ev);
}

static void
on_probed (void *opaque, bool can, bool owned, const char *reason)
{
  struct iasp_shell *sh = opaque;
  struct group_event ev = iasp_event (sh, GE_PROBE);

  ev.ok = ev.store.can_host = can;
  ev.store.owned = owned;
  set_reason (&ev, reason);
  if (reason[0])
    member_note (sh->m, "probe of resource %u: %s", sh->index, reason);
  member_step (sh->m, &ev);
}

static void
on_config (void *opaque, const char *text, size_t len)
{
  struct iasp_shell *sh = opaque;
  struct group_event ev = iasp_event (sh, GE_CONFIG);

  ev.buf = (const uint8_t *) text;
  ev.len = len;
  member_step (sh->m, &ev);
}

struct agent *
member_get_agent (struct member *m, unsigned iasp)
{
  static const struct agent_callbacks cb = { .hosted = on_hosted, .probed = on_probed,
                                             .config = on_config };
  const struct crg_state *s = member_state (m);
  struct iasp_shell *sh = &m->iasps[iasp];
  int self = member_self (m);
  struct agent_spec spec = { 0 };
  const struct iasp_def *d;
  uint8_t site;

  if (sh->agent || s == NULL || self < 0 || iasp >= s->def.n_iasps
      || s->def.iasps[iasp].type != RES_SCRIPT)
    return sh->agent;
  d = &s->def.iasps[iasp];
  site = s->def.nodes[self].site;
  if (site >= s->def.n_sites)
    return NULL;
  memcpy (spec.crg, m->crg, sizeof spec.crg);
  memcpy (spec.name, d->name, sizeof spec.name);
  memcpy (spec.path, d->agent, sizeof spec.path);
  memcpy (spec.node, s->def.nodes[self].name, sizeof spec.node);
  memcpy (spec.site, s->def.sites[site], sizeof spec.site);
  memcpy (spec.run_dir, m->d->conf.run_dir, sizeof spec.run_dir);
  memcpy (spec.state_dir, m->d->conf.state_dir, sizeof spec.state_dir);
  memcpy (spec.conf_dir, m->d->conf_dir, sizeof spec.conf_dir);
  memcpy (spec.boot_id, m->d->boot_id, CRG_ID_LEN);
  spec.timeout_ms = d->timeout_ms;
  sh->agent = agent_new (m->d->loop, &spec, &cb, sh);
  /* S3: also by one whose state file was lost, and that hears of the resource now. */
  if (sh->agent)
    agent_adopt (sh->agent);
  return sh->agent;
}

void
member_agent_config (struct member *m, const struct group_action *a, const uint8_t *text)
{
  struct agent *agent = a->len > 0 ? member_get_agent (m, a->iasp) : NULL;

  if (agent)
    agent_take_config (agent, (const char *) text, a->len);
}
