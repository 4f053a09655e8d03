/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The cluster group of cluster.h.  A creation has a deadline in each step on
 * both sides; a participant whose coordinator has left gives it up.  What
 * comes from others is checked like a file from a stranger: the definition by
 * conf_crg_from_json, the state by state_decode.
 */
#include "config.h"

#include "server/cluster.h"
#include "server/cluster_private.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <qb/qbdefs.h>
#include <qb/qbloop.h>

#include "common/clock.h"
#include "common/conf.h"
#include "common/exitcodes.h"
#include "common/ident.h"
#include "common/jsonl.h"
#include "common/util-posix.h"
#include "server/log.h"
#include "server/member.h"

#define CLUSTER_TICK_MS 50

/* ---- sending --------------------------------------------------------------------------- */

/* Takes the reference. */
int
cluster_send (struct cluster *c, json_t *msg)
{
  CLEANUP_FREE char *text = NULL;
  int r = -ENOMEM;

  json_object_set_new (msg, "from", json_string (c->d->conf.name));
  text = json_dumps (msg, JSON_COMPACT);
  json_decref (msg);
  if (text)
    r = c->d->engine->ops->mcast (c->d->engine, CLUSTER_GROUP, (const uint8_t *) text,
                                  strlen (text));
  if (r < 0 && r != -ENOTCONN)
    log_warning ("a message to the cluster could not be sent: %s", strerror (-r));
  return r;
}

const char *
cluster_text (json_t *msg, const char *key)
{
  const char *t = json_string_value (json_object_get (msg, key));

  return t ? t : "";
}

bool
cluster_is_present (const struct cluster *c, const char *node)
{
  uint32_t id = engine_id_of (node);

  for (unsigned i = 0; i < c->n_present; i++)
    if (c->present[i] == id)
      return true;
  return false;
}

/* ---- who has which CRG ----------------------------------------------------------------- */

static void
send_hello (struct cluster *c)
{
  json_t *crgs = json_array ();

  for (unsigned i = 0; i < CRG_MAX_CRGS; i++) {
    const struct member *m = c->d->members[i];
    const struct crg_state *s = m ? member_state (m) : NULL;
    const struct crg_state *committed = m ? group_committed (member_group (m)) : NULL;
    json_t *nodes;
    char id[IDENT_ID_TEXT_LEN], lineage[IDENT_ID_TEXT_LEN];

    if (s == NULL || s->deleted)
      continue;
    nodes = json_array ();
    for (unsigned k = 0; k < s->def.n_nodes; k++)
      json_array_append_new (nodes, json_pack ("{s:s, s:I}", "name", s->def.nodes[k].name, "id",
                                               (json_int_t) s->def.nodes[k].id));
    ident_id_to_text (s->def.id, id);
    ident_id_to_text (s->lineage, lineage);
    json_array_append_new (crgs, json_pack ("{s:s, s:s, s:s, s:I, s:o}", "name", s->def.name, "id", id,
                                            "lineage", lineage, "domain", (json_int_t) (committed ? committed->domain : 0),
                                            "nodes", nodes));
  }
  cluster_send (c, json_pack ("{s:s, s:o}", "t", "hello", "crgs", crgs));
}

void
cluster_note_deleted (struct cluster *c, const struct crg_state *s, bool failed)
{
  struct deleted_crg crg = { .failed = failed };
  int r;

  memcpy (crg.id, s->def.id, CRG_ID_LEN);
  memcpy (crg.lineage, s->lineage, CRG_ID_LEN);
  r = deleted_add (&c->dead, c->d->conf.state_dir, &crg);
  if (r < 0)
    log_error ("%s: that it is deleted can't be noted in %s: %s", s->def.name, c->d->conf.state_dir, strerror (-r));
}

/* A hello of a node that was away when it was deleted, or that missed FORGET.  One of another lineage is
 * left alone (C9): who deleted this one did not decide for that one. */
static bool
tell_deleted (struct cluster *c, json_t *crg)
{
  const char *name = cluster_text (crg, "name"), *id_text = cluster_text (crg, "id");
  const char *lineage_text = cluster_text (crg, "lineage");
  uint8_t id[CRG_ID_LEN], lineage[CRG_ID_LEN];
  const struct deleted_crg *dead = ident_id_from_text (id_text, id) == 0 ? deleted_find (&c->dead, id) : NULL;

  if (dead == NULL)
    return false;
  if (ident_id_from_text (lineage_text, lineage) == 0 && ident_id_equal (lineage, dead->lineage))
    cluster_send (c, json_pack ("{s:s, s:s, s:s, s:s}", "t", dead->failed ? "forget" : "deleted", "crg", name,
                                "id", id_text, "lineage", lineage_text));
  return true;
}

/* A majority has deleted it, so none can be here: who says otherwise is wrong. */
static void
on_deleted (struct cluster *c, json_t *msg)
{
  static struct group_status st;
  struct member *m = daemon_find (c->d, cluster_text (msg, "crg"));
  const struct crg_state *s = m ? member_state (m) : NULL;
  uint8_t id[CRG_ID_LEN], lineage[CRG_ID_LEN];

  if (s == NULL || s->deleted || ident_id_from_text (cluster_text (msg, "id"), id) != 0
      || ident_id_from_text (cluster_text (msg, "lineage"), lineage) != 0 || !ident_id_equal (id, s->def.id)
      || !ident_id_equal (lineage, s->lineage))
    return;
  group_status (member_group (m), clock_boottime_ms (), &st);
  if (st.majority) {
    log_warning ("%s: node %s says that it was deleted, but a majority has it", s->def.name,
                 cluster_text (msg, "from"));
    return;
  }
  cluster_note_deleted (c, s, false);
  member_deleted (m);
}

/* C7: was this node removed from the domain while it was away? */
static void
check_removed (struct cluster *c, json_t *crg, struct member *m)
{
  const struct crg_state *s = member_state (m);
  uint8_t id[CRG_ID_LEN], lineage[CRG_ID_LEN];
  json_int_t domain = json_integer_value (json_object_get (crg, "domain"));
  json_t *node;
  size_t k;

  if (s == NULL || ident_id_from_text (cluster_text (crg, "id"), id) != 0
      || ident_id_from_text (cluster_text (crg, "lineage"), lineage) != 0
      || !ident_id_equal (id, s->def.id) || !ident_id_equal (lineage, s->lineage) || domain <= 0
      || (uint64_t) domain <= s->domain)
    return;
  json_array_foreach (json_object_get (crg, "nodes"), k, node)
    if (strcmp (cluster_text (node, "name"), c->d->conf.name) == 0)
      return;
  member_removed (m);
}

void
cluster_tell (struct cluster *c)
{
  if (c->in_view)
    send_hello (c);
}

/* C6: a node that has lost its state file learns here that it is in a domain,
 * and joins without a vote. */
static void
on_hello (struct cluster *c, json_t *msg)
{
  json_t *crg, *node;
  size_t i, k;

  json_array_foreach (json_object_get (msg, "crgs"), i, crg) {
    const char *name = cluster_text (crg, "name");
    struct node_name_id nodes[CRG_MAX_NODES] = { 0 };
    uint8_t id[CRG_ID_LEN];
    unsigned n = 0;
    bool ours = false;

    if (tell_deleted (c, crg))
      continue;
    if (daemon_find (c->d, name)) {
      check_removed (c, crg, daemon_find (c->d, name));
      continue;
    }
    if (!ident_name_is_valid (name) || c->d->stopping
        || ident_id_from_text (cluster_text (crg, "id"), id) != 0
        || (c->part.phase != PART_IDLE && strcmp (c->part.conf.name, name) == 0))
      continue;
    json_array_foreach (json_object_get (crg, "nodes"), k, node) {
      json_int_t node_id = json_integer_value (json_object_get (node, "id"));

      if (n >= CRG_MAX_NODES || !ident_name_is_valid (cluster_text (node, "name")) || node_id <= 0
          || node_id > UINT32_MAX)
        continue;
      snprintf (nodes[n].name, sizeof nodes[n].name, "%s", cluster_text (node, "name"));
      nodes[n].id = (uint32_t) node_id;
      if (strcmp (nodes[n].name, c->d->conf.name) == 0)
        ours = true;
      n++;
    }
    if (ours) {
      log_warning ("%s: this node has no state of it; joining without a vote until a majority "
                   "has told it",
                   name);
      daemon_add (c->d, name, nodes, n);
    }
  }
}

/* ---- coordinator ----------------------------------------------------------------------- */

static void
finish (struct cluster *c, int code, const char *reason)
{
  struct making *mk = &c->make;
  cluster_reply_fn *done = mk->done;
  void *opaque = mk->opaque;

  json_decref (mk->def);
  memset (mk, 0, sizeof *mk);
  if (done)
    done (opaque, code, reason);
}

static void
give_up (struct cluster *c, int code, const char *reason)
{
  struct making *mk = &c->make;

  log_warning ("%s: not created: %s", mk->conf.name, reason);
  if (mk->phase == MAKE_CREATING) {
    char id[IDENT_ID_TEXT_LEN];

    ident_id_to_text (mk->state.def.id, id);
    cluster_send (c, json_pack ("{s:s, s:s, s:s, s:s}", "t", "forget", "tx", mk->tx, "crg",
                                mk->conf.name, "id", id));
  }
  else if (mk->phase == MAKE_PREPARING)
    cluster_send (c, json_pack ("{s:s, s:s}", "t", "abort", "tx", mk->tx));
  finish (c, code, reason);
}

int
cluster_node_index (const struct conf_crg *conf, const char *name)
{
  for (unsigned i = 0; i < conf->n_nodes; i++)
    if (strcmp (conf->nodes[i].name, name) == 0)
      return (int) i;
  return -1;
}

void
cluster_create (struct cluster *c, const json_t *def, bool force, cluster_progress_fn *progress,
                cluster_reply_fn *done, void *opaque)
{
  struct making *mk = &c->make;
  char err[CONF_ERR_MAX + 1];

  if (mk->phase != MAKE_IDLE) {
    done (opaque, CRG_EXIT_REFUSED, "this node is creating another CRG; wait for its end");
    return;
  }
  if (conf_crg_from_json (def, &mk->conf, err, sizeof err) != 0) {
    memset (mk, 0, sizeof *mk);
    done (opaque, CRG_EXIT_USAGE, err);
    return;
  }
  for (unsigned i = 0; i < mk->conf.n_nodes; i++)
    for (unsigned k = 0; k < i; k++)
      if (engine_id_of (mk->conf.nodes[i].name) == engine_id_of (mk->conf.nodes[k].name)) {
        snprintf (err, sizeof err, "the names %s and %s can't be in one cluster: their numbers "
                  "are the same; rename one", mk->conf.nodes[i].name, mk->conf.nodes[k].name);
        memset (mk, 0, sizeof *mk);
        done (opaque, CRG_EXIT_REFUSED, err);
        return;
      }
  if (cluster_node_index (&mk->conf, c->d->conf.name) < 0) {
    memset (mk, 0, sizeof *mk);
    snprintf (err, sizeof err, "node %s is not in the recovery domain: run this on a node that is",
              c->d->conf.name);
    done (opaque, CRG_EXIT_REFUSED, err);
    return;
  }
  if (daemon_find (c->d, mk->conf.name)) {
    snprintf (err, sizeof err, "CRG %s exists already; delete it first or choose another name",
              mk->conf.name);
    memset (mk, 0, sizeof *mk);
    done (opaque, CRG_EXIT_REFUSED, err);
    return;
  }
  mk->def = json_deep_copy (def);
  mk->force = force;
  mk->progress = progress;
  mk->done = done;
  mk->opaque = opaque;
  snprintf (mk->tx, sizeof mk->tx, "%016llx", (unsigned long long) clock_random_u64 ());
  mk->phase = MAKE_WAITING;
  mk->deadline_ms = clock_boottime_ms () + CREATE_STEP_MS / 2;
}

void
cluster_forget_request (struct cluster *c, void *opaque)
{
  cluster_add_forget (c, opaque);
  if (c->make.opaque == opaque) {
    c->make.done = NULL;
    c->make.progress = NULL;
    c->make.opaque = NULL;
  }
}

static void
progress (struct cluster *c, const char *text)
{
  if (c->make.progress)
    c->make.progress (c->make.opaque, text);
}

/* A resource's own backup order: whom it names, then the others as in the group's. */
static void
order_resource (const struct conf_crg *conf, const struct conf_iasp *from, const struct crg_def *def,
                struct iasp_def *to)
{
  uint8_t next = 0;
  uint16_t done = 0;

  if (def->placement != PLACEMENT_ACCESS)
    return;
  for (unsigned k = 0; k < from->n_order; k++) {
    int n = cluster_node_index (conf, from->order[k]);

    if (n < 0)
      continue; /* checked: it is one */
    to->order[n] = next++;
    done |= (uint16_t) (1u << n);
  }
  for (unsigned place = 0; place < def->n_nodes; place++)
    for (unsigned i = 0; i < def->n_nodes; i++)
      if (def->nodes[i].order == place && !(done & (1u << i)))
        to->order[i] = next++;
}

/* The definition as the group keeps it.  NULL or why not. */
static const char *
build_state (struct making *mk)
{
  const struct conf_crg *conf = &mk->conf;
  struct crg_def def = { 0 };
  uint8_t lineage[CRG_ID_LEN];
  unsigned next_order = 0;
  static char err[CRG_REASON_MAX + 1];

  snprintf (def.name, sizeof def.name, "%s", conf->name);
  clock_random_id (def.cluster_id);
  clock_random_id (def.id);
  clock_random_id (lineage);
  def.placement = conf->strategy == CONF_STRATEGY_ACCESS ? PLACEMENT_ACCESS : PLACEMENT_SITE;
  def.takeover = conf->takeover == CONF_ORDER ? TAKEOVER_ORDER : TAKEOVER_SAME_SITE_FIRST;
  def.suspend_timeout_ms = conf->suspend_timeout_ms;
  def.no_quorum_timeout_ms = conf->no_quorum_timeout_ms;
  def.return_store_error = conf->store_error == CONF_STORE_ERROR_RETURN;
  def.resync_share = (uint8_t) conf->resync_share;
  for (unsigned i = 0; i < conf->n_nodes; i++) {
    const struct conf_node *from = &conf->nodes[i];
    struct domain_node *to = &def.nodes[def.n_nodes++];

    to->id = from->id;
    snprintf (to->name, sizeof to->name, "%s", from->name);
    to->site = NO_SITE;
    if (from->site[0]) {
      unsigned k = 0;

      while (k < def.n_sites && strcmp (def.sites[k], from->site) != 0)
        k++;
      if (k >= CRG_MAX_SITES)
        return "too many sites";
      if (k == def.n_sites)
        snprintf (def.sites[def.n_sites++], sizeof def.sites[0], "%s", from->site);
      to->site = (uint8_t) k;
    }
    to->preferred_role = from->role == CONF_PRIMARY  ? MEMBER_PRIMARY
                         : from->role == CONF_BACKUP ? MEMBER_BACKUP
                         : from->role == CONF_PEER   ? MEMBER_PEER
                                                     : MEMBER_REPLICATE;
    to->votes = to->new_votes = (uint8_t) from->votes;
    if (from->role == CONF_PRIMARY || from->role == CONF_BACKUP) {
      to->order = to->preferred_order = (uint8_t) from->order;
      next_order = MAX (next_order, from->order + 1);
    }
    to->n_addresses = (uint8_t) from->n_addresses;
    memcpy (to->addresses, from->addresses, sizeof to->addresses);
  }
  /* The others come behind, in order of appearance. */
  for (unsigned i = 0; i < conf->n_nodes; i++)
    if (conf->nodes[i].role != CONF_PRIMARY && conf->nodes[i].role != CONF_BACKUP)
      def.nodes[i].order = def.nodes[i].preferred_order = (uint8_t) next_order++;
  for (unsigned i = 0; i < conf->n_iasps; i++) {
    const struct conf_iasp *from = &conf->iasps[i];
    struct iasp_def *to = &def.iasps[def.n_iasps++];
    int first = -1;

    snprintf (to->name, sizeof to->name, "%s", from->name);
    clock_random_id (to->id);
    order_resource (conf, from, &def, to);
    if (from->type == CONF_SCRIPT) {
      to->type = RES_SCRIPT;
      snprintf (to->agent, sizeof to->agent, "%s", from->agent);
      to->timeout_ms = from->timeout_ms;
      continue;
    }
    to->dirty_block = from->block_size;
    to->mirror_port = (uint16_t) from->mirror_port;
    to->tls = from->tls;
    to->snapshot = from->snapshot;
    snprintf (to->export, sizeof to->export, "%s", from->export);
    for (unsigned k = 0; k < conf->n_nodes; k++)
      conf_join_store (from->store[k], from->meta[k], to->store[k]);
    to->size = from->size;
    for (unsigned k = 0; k < conf->n_nodes && from->size == 0; k++) {
      if (from->store[k][0] == '\0')
        continue;
      if (first < 0) {
        first = (int) k;
        to->size = mk->data_bytes[k][i];
      }
      else if (mk->data_bytes[k][i] != to->size) {
        snprintf (err, sizeof err,
                  "IASP %s: the stores have different sizes: %s gives %llu bytes, %s %llu; make "
                  "them equal or set size", from->name, conf->nodes[first].name,
                  (unsigned long long) to->size, conf->nodes[k].name,
                  (unsigned long long) mk->data_bytes[k][i]);
        return err;
      }
    }
  }
  return state_create (&mk->state, &def, lineage);
}

static char *
to_hex (const uint8_t *buf, size_t len)
{
  static const char digits[] = "0123456789abcdef";
  char *text = malloc (2 * len + 1);

  for (size_t i = 0; text && i < len; i++) {
    text[2 * i] = digits[buf[i] >> 4];
    text[2 * i + 1] = digits[buf[i] & 15];
  }
  if (text)
    text[2 * len] = '\0';
  return text;
}

char *
cluster_state_hex (const struct crg_state *s)
{
  CLEANUP_FREE uint8_t *buf = malloc (STATE_ENCODED_MAX);
  size_t len = buf ? state_encode (s, buf, STATE_ENCODED_MAX) : 0;

  return len ? to_hex (buf, len) : NULL;
}

static void
all_prepared (struct cluster *c)
{
  struct making *mk = &c->make;
  const char *refusal = build_state (mk);
  CLEANUP_FREE char *hex = NULL;

  if (refusal) {
    give_up (c, CRG_EXIT_REFUSED, refusal);
    return;
  }
  hex = cluster_state_hex (&mk->state);
  if (hex == NULL) {
    give_up (c, CRG_EXIT_ERROR, "the definition does not fit");
    return;
  }
  progress (c, "all nodes are ready; writing superblocks and state");
  memset (mk->answered, 0, sizeof mk->answered);
  mk->phase = MAKE_CREATING;
  mk->deadline_ms = clock_boottime_ms () + CREATE_STEP_MS;
  cluster_send (c, json_pack ("{s:s, s:s, s:s}", "t", "create", "tx", mk->tx, "state", hex));
}

static bool
all_answered (const struct making *mk)
{
  for (unsigned i = 0; i < mk->conf.n_nodes; i++)
    if (!mk->answered[i])
      return false;
  return true;
}

/* The nodes that write superblocks, and a majority (C6). */
static bool
enough_created (const struct making *mk)
{
  const struct crg_state *s = &mk->state;
  uint32_t ids[CRG_MAX_NODES];
  unsigned n = 0;

  for (unsigned i = 0; i < s->def.n_nodes; i++) {
    bool formats = false;

    for (unsigned k = 0; k < s->def.n_sites; k++)
      for (unsigned r = 0; r < s->def.n_iasps; r++)
        if (s->def.iasps[r].type == RES_IASP && s->rec[r].copies[k].host == s->def.nodes[i].id)
          formats = true;
    if (mk->answered[i])
      ids[n++] = s->def.nodes[i].id;
    else if (formats)
      return false;
  }
  return state_has_majority (s, ids, n);
}

static void
on_answer (struct cluster *c, json_t *msg, bool created)
{
  struct making *mk = &c->make;
  int i = cluster_node_index (&mk->conf, cluster_text (msg, "from"));
  json_t *size;
  size_t k;

  if (mk->phase != (created ? MAKE_CREATING : MAKE_PREPARING)
      || strcmp (mk->tx, cluster_text (msg, "tx")) != 0 || i < 0)
    return;
  if (!json_is_true (json_object_get (msg, "ok"))) {
    char reason[2 * CRG_REASON_MAX];
    json_int_t code = json_integer_value (json_object_get (msg, "code"));

    snprintf (reason, sizeof reason, "node %s: %s", cluster_text (msg, "from"), cluster_text (msg, "reason"));
    give_up (c, code > 0 && code <= CRG_EXIT_NO_OBJECT ? (int) code : CRG_EXIT_ERROR, reason);
    return;
  }
  mk->answered[i] = true;
  json_array_foreach (json_object_get (msg, "data_bytes"), k, size) {
    if (k < CRG_MAX_IASPS && !created)
      mk->data_bytes[i][k] = (uint64_t) json_integer_value (size);
  }
  if (!all_answered (mk))
    return;
  if (!created)
    all_prepared (c);
  else {
    log_notice ("%s: created on all %u nodes", mk->conf.name, mk->conf.n_nodes);
    finish (c, CRG_EXIT_FINE, "");
  }
}

static void
tick_making (struct cluster *c, uint64_t now)
{
  struct making *mk = &c->make;
  char missing[CRG_REASON_MAX + 1] = "", reason[2 * CRG_REASON_MAX];
  size_t used = 0;

  if (mk->phase == MAKE_IDLE)
    return;
  for (unsigned i = 0; i < mk->conf.n_nodes; i++) {
    const char *name = mk->conf.nodes[i].name;

    if (mk->phase == MAKE_WAITING ? !cluster_is_present (c, name) : !mk->answered[i])
      used += (size_t) snprintf (missing + used, sizeof missing - MIN (used, sizeof missing),
                                 "%s%s", used ? ", " : "", name);
    if (used >= sizeof missing)
      used = sizeof missing - 1;
  }
  if (mk->phase == MAKE_WAITING && missing[0] == '\0') {
    progress (c, "asking all nodes to look at their stores");
    memset (mk->answered, 0, sizeof mk->answered);
    mk->phase = MAKE_PREPARING;
    mk->deadline_ms = now + CREATE_STEP_MS;
    cluster_send (c, json_pack ("{s:s, s:s, s:O, s:b}", "t", "prepare", "tx", mk->tx, "def",
                                mk->def, "force", mk->force));
    return;
  }
  if (now < mk->deadline_ms)
    return;
  if (mk->phase == MAKE_CREATING && enough_created (mk)) {
    log_warning ("%s: created, but without an answer of %s", mk->conf.name, missing);
    finish (c, CRG_EXIT_FINE, "");
    return;
  }
  snprintf (reason, sizeof reason, mk->phase == MAKE_WAITING
            ? "not connected to the cluster: node %s; is crgd running there?"
            : "node %s did not answer; nothing was created", missing);
  give_up (c, CRG_EXIT_TIMEOUT, reason);
}

/* ---- engine ---------------------------------------------------------------------------- */

void
cluster_on_view (struct cluster *c, const uint32_t *engine_ids, unsigned n)
{
  bool coordinator_there = false;

  c->in_view = true;
  c->n_present = MIN (n, (unsigned) CRG_MAX_NODES);
  memcpy (c->present, engine_ids, c->n_present * sizeof c->present[0]);
  for (unsigned i = 0; i < c->n_present; i++)
    if (c->present[i] == c->part.coordinator)
      coordinator_there = true;
  if (c->part.phase != PART_IDLE && c->part.phase != PART_FORMATTING && !coordinator_there)
    part_end (c);
  send_hello (c);
}

void
cluster_on_message (struct cluster *c, uint32_t engine_id, const uint8_t *buf, size_t len)
{
  json_error_t error;
  json_t *msg = jsonl_parse ((const char *) buf, len, &error);
  const char *type = cluster_text (msg, "t"), *from = cluster_text (msg, "from");

  if (!msg || !ident_name_is_valid (from) || engine_id_of (from) != engine_id)
    log_warning ("a message of the cluster makes no sense: %s", msg ? "its sender is another one" : "it is no JSON object");
  else if (strcmp (type, "hello") == 0)
    on_hello (c, msg);
  else if (strcmp (type, "prepare") == 0)
    part_on_prepare (c, msg, engine_id);
  else if (strcmp (type, "prepared") == 0)
    on_answer (c, msg, false);
  else if (strcmp (type, "create") == 0)
    part_on_create (c, msg);
  else if (strcmp (type, "created") == 0)
    on_answer (c, msg, true);
  else if (strcmp (type, "node-prepare") == 0)
    part_on_node_prepare (c, msg, engine_id);
  else if (strcmp (type, "node-prepared") == 0)
    cluster_on_node_prepared (c, msg);
  else if (strcmp (type, "abort") == 0) {
    if (c->part.phase != PART_FORMATTING && strcmp (c->part.tx, cluster_text (msg, "tx")) == 0)
      part_end (c);
  }
  else if (strcmp (type, "forget") == 0)
    part_on_forget (c, msg);
  else if (strcmp (type, "deleted") == 0)
    on_deleted (c, msg);
  json_decref (msg);
}

void
cluster_on_down (struct cluster *c)
{
  c->in_view = false;
  c->n_present = 0;
  if (c->part.phase != PART_FORMATTING)
    part_end (c);
  if (c->make.phase != MAKE_IDLE)
    give_up (c, CRG_EXIT_ERROR, "the connection to the cluster was lost; see `crgctl status`");
}

static void
on_timer (void *opaque)
{
  struct cluster *c = opaque;
  uint64_t now = clock_boottime_ms ();

  tick_making (c, now);
  cluster_add_tick (c, now);
  if (c->part.phase != PART_IDLE && now >= c->part.deadline_ms)
    part_give_up (c);
  qb_loop_timer_add (c->d->loop, QB_LOOP_MED, CLUSTER_TICK_MS * QB_TIME_NS_IN_MSEC, c, on_timer,
                     &c->timer);
}

struct cluster *
cluster_new (struct daemon *d)
{
  struct cluster *c = calloc (1, sizeof *c);
  int r;

  if (c == NULL)
    return NULL;
  c->d = d;
  r = deleted_load (&c->dead, d->conf.state_dir);
  if (r < 0)
    log_error ("%s: what was deleted can't be read: %s", d->conf.state_dir, strerror (-r));
  qb_loop_timer_add (d->loop, QB_LOOP_MED, CLUSTER_TICK_MS * QB_TIME_NS_IN_MSEC, c, on_timer,
                     &c->timer);
  return c;
}

void
cluster_free (struct cluster *c)
{
  if (c == NULL)
    return;
  qb_loop_timer_del (c->d->loop, c->timer);
  c->make.done = NULL;
  json_decref (c->make.def);
  json_decref (c->add.def);
  part_end (c);
  free (c);
}
