/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The coming of a node into a CRG that exists (C7): the node that was asked
 * checks the new definition as a whole, the new one looks at its stores (and
 * writes the superblocks of a new copy), and only then the group is asked to
 * add it.  Works on the cluster's `add` on the asked node, on its `part` on
 * the new one.
 */
#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/conf.h"
#include "common/exitcodes.h"
#include "common/ident.h"
#include "common/util-posix.h"
#include "server/cluster_private.h"
#include "server/log.h"
#include "server/member.h"

/* The definition that would make this state, without what it can't say. */
static void
conf_from_state (const struct crg_state *s, struct conf_crg *conf)
{
  static const uint32_t roles[] = { CONF_PRIMARY, CONF_BACKUP, CONF_PEER, CONF_REPLICATE };
  uint32_t next = 1;

  memset (conf, 0, sizeof *conf);
  snprintf (conf->name, sizeof conf->name, "%s", s->def.name);
  conf->strategy = s->def.placement == PLACEMENT_ACCESS ? CONF_STRATEGY_ACCESS : CONF_STRATEGY_SITE;
  conf->takeover = s->def.takeover == TAKEOVER_ORDER ? CONF_ORDER : CONF_SAME_SITE_FIRST;
  conf->suspend_timeout_ms = s->def.suspend_timeout_ms;
  conf->no_quorum_timeout_ms = s->def.no_quorum_timeout_ms;
  conf->resync_share = s->def.resync_share ? s->def.resync_share : RESYNC_SHARE;
  conf->n_nodes = s->def.n_nodes;
  for (unsigned i = 0; i < s->def.n_nodes; i++) {
    const struct domain_node *n = &s->def.nodes[i];
    struct conf_node *to = &conf->nodes[i];

    snprintf (to->name, sizeof to->name, "%s", n->name);
    to->id = n->id;
    if (n->site < s->def.n_sites)
      snprintf (to->site, sizeof to->site, "%s", s->def.sites[n->site]);
    to->role = roles[n->preferred_role & 3];
    to->votes = n->new_votes;
    if (to->role == CONF_PRIMARY || to->role == CONF_BACKUP)
      to->order = to->role == CONF_PRIMARY ? 0 : next++;
    to->n_addresses = n->n_addresses;
    memcpy (to->addresses, n->addresses, sizeof to->addresses);
  }
  conf->n_iasps = s->def.n_iasps;
  for (unsigned i = 0; i < s->def.n_iasps; i++) {
    const struct iasp_def *d = &s->def.iasps[i];
    struct conf_iasp *to = &conf->iasps[i];

    snprintf (to->name, sizeof to->name, "%s", d->name);
    to->type = d->type == RES_SCRIPT ? CONF_SCRIPT : CONF_IASP;
    snprintf (to->agent, sizeof to->agent, "%s", d->agent);
    to->timeout_ms = d->timeout_ms;
    to->size = d->size;
    to->block_size = d->dirty_block;
    to->tls = d->tls;
    to->snapshot = d->snapshot;
    to->mirror_port = d->mirror_port;
    snprintf (to->export, sizeof to->export, "%s", d->export);
    for (unsigned k = 0; k < s->def.n_nodes; k++)
      if (conf->nodes[k].role == CONF_PRIMARY || conf->nodes[k].role == CONF_BACKUP)
        conf_split_store (d->store[k], to->store[k], to->meta[k]);
  }
}

/* `paths`: one, or {IASP: PATH}; into the IASP's `list` of them. */
static void
add_path (json_t *iasp, const char *list, const char *node, const json_t *paths)
{
  json_t *path = json_is_string (paths) ? (json_t *) (uintptr_t) paths
                 : json_object_get (paths, json_string_value (json_object_get (iasp, "name")));

  if (!path)
    return;
  if (!json_object_get (iasp, list))
    json_object_set_new (iasp, list, json_object ());
  json_object_set (json_object_get (iasp, list), node, path);
}

/* The state's definition and the new node, as JSON; a new reference. */
static json_t *
new_definition (const struct crg_state *s, const json_t *node, const json_t *stores, const json_t *metas)
{
  CLEANUP_FREE struct conf_crg *conf = calloc (1, sizeof *conf);
  json_t *def, *iasp, *item = json_deep_copy (node);
  const char *name = json_string_value (json_object_get (node, "name"));
  const char *role = json_string_value (json_object_get (node, "role"));
  json_int_t id = 0;
  size_t i;

  if (conf == NULL) {
    json_decref (item);
    return NULL;
  }
  conf_from_state (s, conf);
  for (unsigned k = 0; k < conf->n_nodes; k++)
    id = MAX (id, (json_int_t) conf->nodes[k].id);
  if (!json_object_get (item, "id"))
    json_object_set_new (item, "id", json_integer (id + 1));
  if (role && strcmp (role, "backup") == 0)
    json_object_set_new (item, "order", json_integer (CRG_MAX_NODES - 1));
  def = conf_crg_to_json (conf);
  json_array_append_new (json_object_get (def, "nodes"), item);
  json_array_foreach (json_object_get (def, "iasps"), i, iasp) {
    /* A script has none. */
    if (!name || !role || strcmp (role, "backup") != 0 || !json_object_get (iasp, "stores"))
      continue;
    add_path (iasp, "stores", name, stores);
    add_path (iasp, "metas", name, metas);
  }
  return def;
}

static void
node_change_of (const struct crg_state *s, const struct conf_crg *conf, struct node_change *nc)
{
  const struct conf_node *n = &conf->nodes[s->def.n_nodes];

  memset (nc, 0, sizeof *nc);
  nc->op = NODE_ADD;
  nc->node.id = n->id;
  snprintf (nc->node.name, sizeof nc->node.name, "%s", n->name);
  nc->node.preferred_role = n->role == CONF_BACKUP ? MEMBER_BACKUP
                            : n->role == CONF_PEER ? MEMBER_PEER
                            : n->role == CONF_REPLICATE ? MEMBER_REPLICATE : MEMBER_PRIMARY;
  nc->node.votes = (uint8_t) n->votes;
  nc->node.n_addresses = (uint8_t) n->n_addresses;
  memcpy (nc->node.addresses, n->addresses, sizeof nc->node.addresses);
  snprintf (nc->site, sizeof nc->site, "%s", n->site);
  for (unsigned i = 0; i < conf->n_iasps; i++)
    conf_join_store (conf->iasps[i].store[s->def.n_nodes], conf->iasps[i].meta[s->def.n_nodes], nc->store[i]);
}

static void
finish (struct cluster *c, int code, const char *reason)
{
  struct adding *a = &c->add;
  cluster_reply_fn *done = a->done;
  void *opaque = a->opaque;

  json_decref (a->def);
  memset (a, 0, sizeof *a);
  if (done)
    done (opaque, code, reason);
}

static void
on_added (void *opaque, int code, const char *reason)
{
  finish (opaque, code, reason);
}

static void
ask_group (struct cluster *c)
{
  struct adding *a = &c->add;
  struct member *m = daemon_find (c->d, a->crg);

  a->phase = ADD_ASKING;
  if (m == NULL)
    finish (c, CRG_EXIT_NO_OBJECT, "the CRG is not on this node any more");
  else
    member_request_node (m, &a->change, DOMAIN_JOIN_MS + CREATE_STEP_MS, on_added, c);
}

void
cluster_add_node (struct cluster *c, struct member *m, const json_t *node, const json_t *stores,
                  const json_t *metas, bool force, cluster_reply_fn *done, void *opaque)
{
  struct adding *a = &c->add;
  const struct crg_state *s = member_state (m);
  CLEANUP_FREE struct conf_crg *conf = calloc (1, sizeof *conf);
  struct crg_state *then = &a->state;
  const char *name = json_string_value (json_object_get (node, "name")), *why;
  char err[CONF_ERR_MAX + 1] = "no memory";
  struct change change;
  json_t *def = NULL;

  if (a->phase != ADD_IDLE) {
    done (opaque, CRG_EXIT_REFUSED, "this node is adding another one; wait for its end");
    return;
  }
  if (s == NULL || s->deleted || name == NULL || conf == NULL) {
    done (opaque, CRG_EXIT_UNAVAILABLE, "this node holds no state of the CRG yet");
    return;
  }
  for (unsigned i = 0; i < s->def.n_nodes; i++)
    if (strcmp (s->def.nodes[i].name, name) == 0) {
      json_int_t votes = json_integer_value (json_object_get (node, "votes"));

      /* The command was broken off after the node had come. */
      if (s->def.nodes[i].votes == 0 && votes > 0) {
        a->change = (struct node_change){ .op = NODE_ADD, .node = s->def.nodes[i] };
        a->change.node.votes = (uint8_t) MIN (votes, (json_int_t) 100);
        a->done = done;
        a->opaque = opaque;
        snprintf (a->crg, sizeof a->crg, "%s", s->def.name);
        ask_group (c);
      }
      else
        done (opaque, CRG_EXIT_REFUSED, "the node is in the recovery domain");
      return;
    }
  def = new_definition (s, node, stores, metas);
  if (def == NULL || conf_crg_from_json (def, conf, err, sizeof err) != 0) {
    json_decref (def);
    done (opaque, CRG_EXIT_USAGE, err);
    return;
  }
  for (unsigned i = 0; i < s->def.n_nodes; i++)
    if (engine_id_of (s->def.nodes[i].name) == engine_id_of (name)) {
      json_decref (def);
      done (opaque, CRG_EXIT_REFUSED, "its name and that of another node have the same number in "
            "the engine; rename it");
      return;
    }
  memset (&change, 0, sizeof change);
  change.kind = CH_NODE;
  node_change_of (s, conf, &change.node_change);
  a->change = change.node_change;
  change.node_change.node.votes = 0;
  why = state_check (s, &change);
  if (why != NULL) {
    json_decref (def);
    memset (a, 0, sizeof *a);
    done (opaque, CRG_EXIT_REFUSED, why);
    return;
  }
  *then = *s;
  state_apply (then, &change);
  snprintf (a->crg, sizeof a->crg, "%s", s->def.name);
  snprintf (a->node, sizeof a->node, "%s", name);
  snprintf (a->tx, sizeof a->tx, "%016llx", (unsigned long long) clock_random_u64 ());
  a->def = def;
  a->force = force;
  a->done = done;
  a->opaque = opaque;
  a->phase = ADD_WAITING;
  a->deadline_ms = clock_boottime_ms () + CREATE_STEP_MS / 2;
}

void
cluster_add_tick (struct cluster *c, uint64_t now)
{
  struct adding *a = &c->add;
  char reason[CRG_REASON_MAX + 1];

  if (a->phase == ADD_WAITING && cluster_is_present (c, a->node)) {
    CLEANUP_FREE char *hex = cluster_state_hex (&a->state);

    if (hex == NULL) {
      finish (c, CRG_EXIT_ERROR, "the new definition does not fit");
      return;
    }
    a->phase = ADD_PREPARING;
    a->deadline_ms = now + 2 * CREATE_STEP_MS;
    cluster_send (c, json_pack ("{s:s, s:s, s:s, s:O, s:s, s:b}", "t", "node-prepare", "tx", a->tx,
                                "node", a->node, "def", a->def, "state", hex, "force", a->force));
  }
  else if ((a->phase == ADD_WAITING || a->phase == ADD_PREPARING) && now >= a->deadline_ms) {
    snprintf (reason, sizeof reason, a->phase == ADD_WAITING
              ? "not connected to the cluster: node %s; is crgd running there?"
              : "node %s did not answer; it was not added", a->node);
    finish (c, CRG_EXIT_TIMEOUT, reason);
  }
}

/* The new node has looked at its stores. */
void
cluster_on_node_prepared (struct cluster *c, json_t *msg)
{
  struct adding *a = &c->add;
  char reason[2 * CRG_REASON_MAX];

  if (a->phase != ADD_PREPARING || strcmp (a->tx, cluster_text (msg, "tx")) != 0
      || strcmp (a->node, cluster_text (msg, "from")) != 0)
    return;
  if (!json_is_true (json_object_get (msg, "ok"))) {
    json_int_t code = json_integer_value (json_object_get (msg, "code"));

    snprintf (reason, sizeof reason, "node %s: %.255s", a->node, cluster_text (msg, "reason"));
    finish (c, code > 0 && code < 256 ? (int) code : CRG_EXIT_ERROR, reason);
    return;
  }
  ask_group (c);
}

void
cluster_add_forget (struct cluster *c, void *opaque)
{
  if (c->add.opaque == opaque)
    c->add.done = NULL;
}
