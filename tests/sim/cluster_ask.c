/* SPDX-License-Identifier: BSD-3-Clause
 *
 * What an operator asks of the simulated cluster; see cluster.h.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/cluster_private.h"

void
sim_request (struct sim *s, unsigned n, enum group_request r, uint32_t node)
{
  struct group_event ev = { .kind = GE_REQUEST, .request = (uint8_t) r, .request_id = s->steps + 1,
                            .node = node };

  s->node[n].last_code = -1;
  sim_feed (s, n, &ev);
}

void
sim_switch (struct sim *s, unsigned n, unsigned iasp, uint32_t node, bool forced)
{
  struct group_event ev = { .kind = GE_REQUEST, .request = GR_SWITCHOVER, .iasp = (uint8_t) iasp,
                            .request_id = s->steps + 1, .node = node, .forced = forced };

  s->node[n].last_code = -1;
  sim_feed (s, n, &ev);
}

void
sim_force (struct sim *s, unsigned n, uint32_t node)
{
  sim_switch (s, n, 0, node, true);
}

void
sim_copy (struct sim *s, unsigned n, enum group_request r, unsigned iasp, unsigned site,
          enum detached_export mode, bool forced)
{
  struct group_event ev = { .kind = GE_REQUEST, .request = (uint8_t) r, .request_id = s->steps + 1,
                            .iasp = (uint8_t) iasp, .site = (uint8_t) site, .mode = (uint8_t) mode,
                            .forced = forced };

  s->node[n].last_code = -1;
  sim_feed (s, n, &ev);
}

void
sim_unbar (struct sim *s, unsigned n, unsigned iasp, unsigned site)
{
  struct group_event ev = { .kind = GE_REQUEST, .request = GR_UNBAR, .request_id = s->steps + 1,
                            .iasp = (uint8_t) iasp, .site = (uint8_t) site };

  s->node[n].last_code = -1;
  sim_feed (s, n, &ev);
}

void
sim_request_node (struct sim *s, unsigned n, const struct node_change *c)
{
  struct group_event ev = { .kind = GE_REQUEST, .request = GR_NODE, .request_id = s->steps + 1,
                            .node_change = c };

  s->node[n].last_code = -1;
  sim_feed (s, n, &ev);
}

/* Is there a node at the site? */
static bool
has_site (const struct crg_state *c, const char *site)
{
  for (unsigned i = 0; i < c->def.n_nodes; i++)
    if (c->def.nodes[i].site != NO_SITE && strcmp (c->def.sites[c->def.nodes[i].site], site) == 0)
      return true;
  return false;
}

unsigned
sim_add (struct sim *s, unsigned n, int site, uint8_t votes)
{
  unsigned at = s->n_nodes++;
  struct sim_node *node = &s->node[at];
  struct node_change c = { .op = NODE_ADD };

  memset (node, 0, sizeof *node);
  node->id = at + 1;
  node->machine_up = node->comes = true;
  node->boot = 1;
  node->last_code = -1;
  node->g = calloc (1, group_sizeof ());
  node->part = s->node[n].part;
  s->site[at] = site;
  c.node.id = node->id;
  snprintf (c.node.name, sizeof c.node.name, "n%u", node->id);
  c.node.preferred_role = site < 0 ? MEMBER_REPLICATE : MEMBER_BACKUP;
  c.node.votes = votes;
  c.node.n_addresses = 1;
  snprintf (c.node.addresses[0], sizeof c.node.addresses[0], "127.0.0.%u", node->id);
  if (site >= 0) {
    snprintf (c.site, sizeof c.site, "site%d", site);
    for (unsigned i = 0; i < s->cfg.n_iasps; i++)
      strcpy (c.store[i], "/store");
  }
  if (site >= 0 && s->node[n].g->has_state && !has_site (&s->node[n].g->applied, c.site)) {
    /* A new copy, the first of its site or again one: its store is formatted before the group is asked.
     * Whoever still has it open is in no domain any more, and is ended first. */
    for (unsigned i = 0; i < SIM_IASPS; i++) {
      struct sim_store *st = &s->store[site][i];

      if (st->open_by >= 0)
        sim_stop_plugin (s, (unsigned) st->open_by, i, true);
      memset (st, 0, sizeof *st);
      st->has_super = st->clean = st->unusable = true;
      memcpy (st->lineage, s->node[n].g->applied.lineage, CRG_ID_LEN);
      st->generation = 1;
      st->open_by = st->machine = -1;
    }
  }
  if (site == (int) s->n_sites)
    s->n_sites++;
  sim_request_node (s, n, &c);
  return at;
}

const char *
sim_recover (struct sim *s, unsigned n, uint16_t dead)
{
  struct sim_node *node = &s->node[n];
  static struct crg_state state;
  uint8_t lineage[CRG_ID_LEN];
  const char *why;

  state = node->disk;
  for (unsigned i = 0; i < CRG_ID_LEN; i++)
    lineage[i] = (uint8_t) sim_random (s, 256);
  why = state_recover (&state, node->id, dead, node->disk_promised, lineage);
  if (why != NULL)
    return why;
  sim_die (s, n);
  for (unsigned i = 0; i < s->cfg.n_iasps; i++)
    sim_stop_plugin (s, n, i, true);
  sim_reform (s);
  node->disk = state;
  node->disk_promised = state.stamp.epoch;
  /* Another history begins: what the old one answered and committed last
   * isn't known to it (`loss` has risen). */
  memset (s->acked, 0, sizeof s->acked);
  s->n_commits = 0;
  node->restart_ms = s->now_ms + 1;
  return NULL;
}
