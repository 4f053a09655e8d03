/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Puts tell.h's answers together.  Pure reading of what it is given; no
 * I/O, no state.
 */
#include "config.h"

#include "server/tell.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/conf.h"
#include "common/ident.h"

const char *
tell_node_name (const struct crg_state *s, uint32_t id)
{
  int i = state_node_index (s, id);

  return i < 0 ? "" : s->def.nodes[i].name;
}

bool
tell_spec (const struct conf_crgd *conf, const struct crg_state *s, unsigned iasp, unsigned node,
           struct plugin_spec *spec)
{
  const struct domain_node *n;
  const struct iasp_def *d;
  size_t used = 0;

  if (iasp >= s->def.n_iasps || s->def.iasps[iasp].type != RES_IASP || node >= s->def.n_nodes
      || s->def.nodes[node].site >= s->def.n_sites)
    return false;
  n = &s->def.nodes[node];
  d = &s->def.iasps[iasp];
  memset (spec, 0, sizeof *spec);
  snprintf (spec->nbdkit, sizeof spec->nbdkit, "%s", conf->nbdkit);
  snprintf (spec->plugin, sizeof spec->plugin, "%s", conf->plugin);
  snprintf (spec->run_dir, sizeof spec->run_dir, "%s", conf->run_dir);
  snprintf (spec->tls_dir, sizeof spec->tls_dir, "%s", conf->tls_dir);
  snprintf (spec->crg, sizeof spec->crg, "%s", s->def.name);
  snprintf (spec->iasp, sizeof spec->iasp, "%s", d->name);
  snprintf (spec->node, sizeof spec->node, "%s", n->name);
  spec->node_id = n->id;
  snprintf (spec->site, sizeof spec->site, "%s", s->def.sites[n->site]);
  memcpy (spec->cluster_id, s->def.cluster_id, CRG_ID_LEN);
  memcpy (spec->crg_id, s->def.id, CRG_ID_LEN);
  memcpy (spec->iasp_id, d->id, CRG_ID_LEN);
  memcpy (spec->lineage, s->lineage, CRG_ID_LEN);
  spec->size = d->size;
  spec->dirty_block = d->dirty_block;
  spec->suspend_timeout_ms = s->def.suspend_timeout_ms;
  spec->no_quorum_timeout_ms = s->def.no_quorum_timeout_ms;
  spec->return_store_error = s->def.return_store_error;
  spec->resync_share = s->def.resync_share;
  spec->snapshot = d->snapshot;
  snprintf (spec->snapshot_hook, sizeof spec->snapshot_hook, "%s", conf->snapshot_hook);
  spec->reservation = conf->reservation;
  spec->threads = conf->threads;
  conf_split_store (d->store[node], spec->store, spec->meta);
  for (unsigned i = 0; i < n->n_addresses; i++)
    used += (size_t) snprintf (spec->listen + used, sizeof spec->listen - used, "%s%s",
                               i ? "," : "", n->addresses[i]);
  if (n->n_addresses)
    snprintf (spec->listen + used, sizeof spec->listen - used, ":%u", d->mirror_port);
  spec->tls = d->tls;
  if (strncmp (d->export, "tcp:", 4) == 0) {
    const char *addr = d->export + 4, *colon = strrchr (addr, ':');
    size_t len = colon ? (size_t) (colon - addr) : 0;

    if (colon == NULL)
      return false;
    spec->export_port = (uint16_t) strtoul (colon + 1, NULL, 10);
    if (len >= 2 && addr[0] == '[' && addr[len - 1] == ']') {
      addr++;
      len -= 2;
    }
    if (len > 0 && len <= CRG_ADDR_MAX)
      memcpy (spec->export_addr, addr, len);
    else if (n->n_addresses)
      snprintf (spec->export_addr, sizeof spec->export_addr, "%s", n->addresses[0]);
  }
  else {
    spec->tls = false;
    if (strncmp (d->export, "unix:", 5) == 0 && d->export[5])
      snprintf (spec->export_unix, sizeof spec->export_unix, "%s", d->export + 5);
    else if (snprintf (spec->export_unix, sizeof spec->export_unix, "%s/%s.nbd",
                       conf->run_dir, d->name) > CRG_SOCK_PATH_MAX)
      return false;
  }
  return true;
}

json_t *
tell_record (const struct crg_state *s, unsigned iasp)
{
  const struct iasp_rec *r = &s->rec[iasp];
  char lineage[IDENT_ID_TEXT_LEN];
  static const char *const forks[] = { "none", "behind", "diverged" };
  json_t *sites = json_array (), *past = json_array ();

  ident_id_to_text (s->lineage, lineage);
  for (unsigned i = 0; i < s->def.n_sites; i++)
    json_array_append_new (sites, json_pack ("{s:i, s:s, s:b, s:I, s:s, s:s}", "index", (int) i, "name",
                                             s->def.sites[i], "in_set", r->copies[i].in_set,
                                             "since", (json_int_t) r->copies[i].since, "fork",
                                             forks[r->copies[i].fork < FORK_END ? r->copies[i].fork : FORK_DIVERGED],
                                             "host", tell_node_name (s, r->copies[i].host)));
  for (unsigned i = 0; i < s->n_past; i++) {
    char id[IDENT_ID_TEXT_LEN];

    ident_id_to_text (s->past[i], id);
    json_array_append_new (past, json_pack ("{s:s, s:I}", "id", id, "generation", (json_int_t) r->past_generation[i]));
  }
  return json_pack ("{s:I, s:I, s:I, s:s, s:o, s:i, s:o}", "generation", (json_int_t) r->generation,
                    "loss", (json_int_t) r->loss, "tenure", (json_int_t) r->tenure, "lineage",
                    lineage, "past_lineages", past, "production_site",
                    r->production_site == NO_SITE ? -1 : (int) r->production_site, "sites", sites);
}

/* Who may be at the other end of a mirror link, where production is, and what
 * the record allows beyond the rule: S1 d (whose writes can't come any more),
 * S2 b (this boot's loss is accepted), R4 (this tenure was forced). */
json_t *
tell_role_extra (const struct crg_state *s, unsigned iasp, unsigned self,
                 const uint8_t boot_id[CRG_ID_LEN])
{
  const struct iasp_rec *r = &s->rec[iasp];
  json_t *peers = json_array (), *fenced = json_array ();
  uint8_t site = s->def.nodes[self].site;
  bool own = site == r->production_site && site < s->def.n_sites;
  const char *export = site < s->def.n_sites && r->copies[site].exported == DETACHED_READ_WRITE
                         ? "read-write" : "read-only";
  const char *production = "";

  for (unsigned i = 0; i < s->def.n_nodes; i++)
    if (s->def.nodes[i].site < s->def.n_sites && i != self
        && s->def.nodes[i].site != s->def.nodes[self].site)
      json_array_append_new (peers, json_string (s->def.nodes[i].name));
  if (r->production_site < s->def.n_sites)
    production = tell_node_name (s, r->copies[r->production_site].host);
  for (unsigned i = 0; i < s->def.n_nodes; i++)
    if (s->def.nodes[i].marked_failed && i != self)
      json_array_append_new (fenced, json_string (s->def.nodes[i].name));
  for (unsigned i = 0; i < s->n_gone; i++)
    json_array_append_new (fenced, json_string (s->gone[i]));
  return json_pack ("{s:o, s:s, s:s, s:o, s:b, s:b}", "peers", peers, "production", production,
                    "export", export, "fenced", fenced, "accept_loss",
                    own && memcmp (r->copies[site].boot_id, boot_id, CRG_ID_LEN) == 0, "forced",
                    own && r->forced);
}

json_t *
tell_mirror (const struct crg_state *s, unsigned iasp, unsigned site, uint32_t node,
             enum mirror_sync sync)
{
  static const char *const kinds[] = { "none", "partial", "full" };
  int i = state_node_index (s, node);
  json_t *addresses = json_array ();

  for (unsigned k = 0; i >= 0 && k < s->def.nodes[i].n_addresses; k++)
    json_array_append_new (addresses, json_string (s->def.nodes[i].addresses[k]));
  return json_pack ("{s:s, s:i, s:s, s:o, s:i, s:s}", "cmd", "mirror", "site", (int) site, "node",
                    tell_node_name (s, node), "addresses", addresses, "port",
                    (int) s->def.iasps[iasp].mirror_port, "sync", kinds[sync <= SYNC_FULL ? sync : SYNC_FULL]);
}
