/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The part of a CRG's shell that knows plugins and stores: what a plugin says
 * and what a look at a store shows become events of the core.  Main loop's
 * thread only.
 */
#include "config.h"

#include "server/member_private.h"

#include <stdio.h>
#include <string.h>

#include "common/clock.h"
#include "common/ident.h"
#include "common/util-posix.h"
#include "server/log.h"
#include "server/probe.h"

/* ---- what a plugin says ---------------------------------------------------------------- */

static uint64_t
json_u64 (json_t *obj, const char *key)
{
  json_int_t v = json_integer_value (json_object_get (obj, key));

  return v < 0 ? 0 : (uint64_t) v;
}

static void
on_hosted (void *opaque, enum host_role role, uint64_t tenure, bool ok, const char *reason,
           json_t *info)
{
  struct iasp_shell *sh = opaque;
  struct member *m = sh->m;
  struct group_event ev = iasp_event (sh, GE_HOSTED);
  const struct crg_state *s = member_state (m);

  ev.role = (uint8_t) role;
  ev.tenure = tenure;
  ev.ok = ok;
  set_reason (&ev, reason);
  if (ok && info && s) {
    /* The answer to `role`, or the status of a plugin that is adopted. */
    json_t *store = json_object_get (info, "store");

    if (json_is_object (store))
      info = store;
    /* The store is open here now: what it is, is what we told it to be. */
    ev.store.can_host = ev.store.has_super = ev.store.agrees_ids = true;
    ev.store.generation = json_u64 (info, "generation");
    ev.store.restarted = json_is_true (json_object_get (info, "restarted"));
    ev.store.unusable = json_is_true (json_object_get (info, "unusable"));
    ev.store.tenure = tenure;
    ev.store.sites = (uint8_t) MIN (json_u64 (info, "sites"), (uint64_t) CRG_MAX_SITES);
    ev.store.size = s->def.iasps[sh->index].size;
    memcpy (ev.store.lineage, s->lineage, CRG_ID_LEN);
    memcpy (ev.store.boot_id, m->d->boot_id, CRG_ID_LEN);
  }
  member_step (m, &ev);
}

static void
on_drained (void *opaque, bool ok, const char *reason)
{
  struct iasp_shell *sh = opaque;
  struct group_event ev = iasp_event (sh, GE_DRAINED);

  ev.ok = ok;
  set_reason (&ev, reason);
  member_step (sh->m, &ev);
}

static void
on_died (void *opaque, const char *reason)
{
  struct iasp_shell *sh = opaque;

  member_note (sh->m, "plugin of IASP %u died: %s", sh->index, reason);
}

/* The other nodes shall know soon: a client may be looking for the URI. */
static void
on_changed (void *opaque)
{
  struct iasp_shell *sh = opaque;
  struct member *m = sh->m;
  uint64_t now = clock_boottime_ms ();

  if (m->report_at_ms > now + REPORT_SOON_MS) {
    m->report_at_ms = MAX (m->reported_ms + REPORT_MIN_MS, now + REPORT_SOON_MS);
    if (!m->in_step)
      member_arm (m);
  }
}

static void
on_plugin_event (void *opaque, const char *event, json_t *obj)
{
  static const struct {
    const char *name;
    enum group_event_kind kind;
  } kinds[] = {
    { "copy-lost", GE_COPY_LOST },
    { "copy-back", GE_COPY_BACK },
    { "copy-ready", GE_COPY_READY },
    { "store-failed", GE_STORE_FAILED },
  };
  struct iasp_shell *sh = opaque;
  struct member *m = sh->m;
  json_int_t site = json_integer_value (json_object_get (obj, "site"));
  const char *reason = json_string_value (json_object_get (obj, "reason"));
  const char *boot_id = json_string_value (json_object_get (obj, "boot_id"));
  const char *state = json_string_value (json_object_get (obj, "state"));
  struct group_event ev = { 0 };

  /* F7: what it says of a link is a level, of which only up and down count. */
  if (strcmp (event, "link") == 0 && state && site >= 0 && site < CRG_MAX_SITES) {
    ev = iasp_event (sh, GE_LINK);
    ev.site = (uint8_t) site;
    ev.ok = strcmp (state, "mirroring") == 0 || strcmp (state, "resyncing") == 0;
  }
  member_note (m, "plugin of IASP %u: %s%s%s, site %d%s%s", sh->index, event, state ? " " : "",
        state ? state : "", (int) site, reason ? ": " : "", reason ? reason : "");
  for (unsigned i = 0; i < ARRAY_SIZE (kinds); i++)
    if (strcmp (event, kinds[i].name) == 0)
      ev = iasp_event (sh, kinds[i].kind);
  if (ev.kind == 0 || ev.kind == GE_LINK) {
    log_notice ("%s: %s%s%s, site %d%s%s", m->crg, event, state ? " " : "", state ? state : "",
                (int) site, reason ? ": " : "", reason ? reason : "");
    if (ev.kind == GE_LINK)
      member_step (m, &ev);
    return;
  }
  if (ev.kind != GE_STORE_FAILED && (site < 0 || site >= CRG_MAX_SITES)) {
    log_warning ("%s: the plugin's event %s names no site", m->crg, event);
    return;
  }
  log_notice ("%s: %s, site %d%s%s", m->crg, event, (int) site, reason ? ": " : "",
              reason ? reason : "");
  ev.site = (uint8_t) site;
  ev.seq = json_u64 (obj, "seq");
  ev.generation = json_u64 (obj, "generation");
  set_reason (&ev, reason);
  if (boot_id && ident_id_from_text (boot_id, ev.boot_id) != 0)
    log_warning ("%s: the plugin's event %s has a bad boot id", m->crg, event);
  member_step (m, &ev);
}

struct plugin *
member_get_plugin (struct member *m, unsigned iasp)
{
  static const struct plugin_callbacks cb = {
    .hosted = on_hosted, .drained = on_drained, .event = on_plugin_event, .changed = on_changed,
    .died = on_died,
  };
  struct iasp_shell *sh = &m->iasps[iasp];
  struct plugin_spec spec;
  int self = member_self (m);

  if (sh->agent || self < 0 || !member_spec (m, iasp, (unsigned) self, &spec))
    return sh->plugin;
  if (sh->plugin)
    plugin_respec (sh->plugin, &spec);
  else
    sh->plugin = plugin_new (m->d->loop, &spec, &cb, sh);
  return sh->plugin;
}

const struct agent *
member_agent (const struct member *m, unsigned iasp)
{
  return iasp < CRG_MAX_IASPS ? m->iasps[iasp].agent : NULL;
}

struct plugin *
member_plugin (const struct member *m, unsigned iasp)
{
  return iasp < CRG_MAX_IASPS ? m->iasps[iasp].plugin : NULL;
}

/* ---- all of them ------------------------------------------------------------------------- */

void
member_stop_plugins (struct member *m, bool mirrors)
{
  for (unsigned i = 0; i < CRG_MAX_IASPS; i++)
    if (m->iasps[i].plugin && !plugin_is_ending (m->iasps[i].plugin)
        && (mirrors || plugin_role (m->iasps[i].plugin) != HOST_MIRROR))
      plugin_want (m->iasps[i].plugin, HOST_NONE, 0);
  for (unsigned i = 0; i < CRG_MAX_IASPS; i++)
    if (m->iasps[i].agent && !agent_is_ending (m->iasps[i].agent))
      agent_want (m->iasps[i].agent, HOST_NONE, 0);
}

void
member_kill_plugins (struct member *m)
{
  for (unsigned i = 0; i < CRG_MAX_IASPS; i++)
    if (m->iasps[i].plugin)
      plugin_kill (m->iasps[i].plugin);
}

bool
member_is_idle (const struct member *m)
{
  for (unsigned i = 0; i < CRG_MAX_IASPS; i++)
    if ((m->iasps[i].plugin && plugin_is_alive (m->iasps[i].plugin))
        || (m->iasps[i].agent && agent_is_alive (m->iasps[i].agent)))
      return false;
  return true;
}

/* ---- probes ---------------------------------------------------------------------------- */

static uint32_t
id_of (const struct member *m, const char *name)
{
  const struct crg_state *s = member_state (m);

  for (unsigned i = 0; s && name[0] && i < s->def.n_nodes; i++)
    if (strcmp (s->def.nodes[i].name, name) == 0)
      return s->def.nodes[i].id;
  return NO_NODE;
}

static void
on_probed (void *opaque, const void *result, const char *reason)
{
  struct iasp_shell *sh = opaque;
  const struct store_probe *probe = result;
  struct group_event ev = iasp_event (sh, GE_PROBE);

  sh->probe = NULL;
  if (probe) {
    ev.ok = probe->ok;
    ev.store = probe->info;
    ev.store.held_by = id_of (sh->m, probe->held_by);
    reason = probe->reason;
  }
  set_reason (&ev, reason);
  /* Who was removed can't be marked failed. */
  if (probe && probe->held_by[0] && ev.store.held_by == NO_NODE) {
    snprintf (ev.reason, sizeof ev.reason, "its store was not released by node %s, which is no more in the recovery "
              "domain (S1): add a node of that name (crgctl node add), which may open it", probe->held_by);
    reason = ev.reason;
  }
  if (reason && reason[0])
    member_note (sh->m, "probe of IASP %u: %s", sh->index, reason);
  member_step (sh->m, &ev);
}

void
member_probe (struct member *m, unsigned iasp)
{
  struct iasp_shell *sh = &m->iasps[iasp];
  const struct crg_state *s = member_state (m);
  int self = member_self (m);
  struct store_probe_arg arg = { 0 };
  static struct group_status st;
  struct group_event ev = iasp_event (sh, GE_PROBE);

  if (sh->agent || member_get_agent (m, iasp)) {
    agent_probe (sh->agent); /* its answer will come */
    return;
  }
  if (s == NULL || self < 0 || iasp >= s->def.n_iasps
      || s->def.nodes[self].site >= s->def.n_sites || s->def.iasps[iasp].store[self][0] == '\0') {
    set_reason (&ev, "this node has no store for it");
    member_step (m, &ev);
    return;
  }
  if (sh->probe)
    return; /* its answer is on the way */
  snprintf (arg.store, sizeof arg.store, "%s", s->def.iasps[iasp].store[self]);
  snprintf (arg.node, sizeof arg.node, "%s", m->d->conf.name);
  arg.node_id = s->def.nodes[self].id;
  memcpy (arg.boot_id, m->d->boot_id, CRG_ID_LEN);
  memcpy (arg.cluster_id, s->def.cluster_id, CRG_ID_LEN);
  memcpy (arg.crg_id, s->def.id, CRG_ID_LEN);
  memcpy (arg.iasp_id, s->def.iasps[iasp].id, CRG_ID_LEN);
  arg.site = s->def.nodes[self].site;
  arg.size = s->def.iasps[iasp].size;
  memcpy (arg.lineage, s->lineage, CRG_ID_LEN);
  arg.fork = s->rec[iasp].copies[arg.site].detached;
  /* With a reservation the next one has to know whose key it is. */
  arg.tells_restart = !m->d->conf.reservation;
  arg.own_has_open = sh->plugin && plugin_has_store (sh->plugin);
  group_status (m->g, clock_boottime_ms (), &st);
  for (unsigned i = 0; i < st.n_nodes; i++) {
    int n = state_node_index (s, st.nodes[i].id);

    if (st.nodes[i].in_view && n >= 0)
      memcpy (arg.present[arg.n_present++], s->def.nodes[n].name, CRG_NAME_MAX + 1);
    if (n >= 0 && n != self && s->def.nodes[n].marked_failed)
      memcpy (arg.fenced[arg.n_fenced++], s->def.nodes[n].name, CRG_NAME_MAX + 1);
  }
  for (unsigned i = 0; i < s->n_gone; i++)
    memcpy (arg.fenced[arg.n_fenced++], s->gone[i], CRG_NAME_MAX + 1);
  sh->probe = task_start (m->d->loop, store_probe, &arg, sizeof (struct store_probe), PROBE_MS,
                          on_probed, sh);
  if (sh->probe == NULL) {
    set_reason (&ev, "can't start a process to look at the store");
    member_step (m, &ev);
  }
}
