/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The cluster group of cluster.h.  A creation has a deadline in each step on
 * both sides; a participant whose coordinator has left gives it up.  What
 * comes from others is checked like a file from a stranger: the definition by
 * conf_crg_from_json, the state by state_decode.
 */
#include "config.h"

#include "server/cluster.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <qb/qbdefs.h>
#include <qb/qbloop.h>

#include "common/certs.h"
#include "common/clock.h"
#include "common/conf.h"
#include "common/exitcodes.h"
#include "common/ident.h"
#include "common/util-posix.h"
#include "server/log.h"
#include "server/member.h"
#include "server/probe.h"
#include "server/statefile.h"
#include "server/task.h"

#define CLUSTER_TICK_MS 50
#define CLUSTER_TOMBSTONES 64

enum make_phase { MAKE_IDLE, MAKE_WAITING, MAKE_PREPARING, MAKE_CREATING };

/* As coordinator. */
struct making {
  enum make_phase phase;
  char tx[24];
  uint64_t deadline_ms;
  bool force;
  json_t *def;
  struct conf_crg conf;
  struct crg_state state;
  bool answered[CRG_MAX_NODES];
  uint64_t data_bytes[CRG_MAX_NODES][CRG_MAX_IASPS];
  cluster_progress_fn *progress;
  cluster_reply_fn *done;
  void *opaque;
};

enum part_phase { PART_IDLE, PART_CHECKING, PART_PREPARED, PART_FORMATTING };

/* As participant. */
struct part {
  enum part_phase phase;
  char tx[24];
  uint32_t coordinator; /* engine id */
  uint64_t deadline_ms;
  bool force;
  struct conf_crg conf;
  struct crg_state state;
  unsigned self; /* index in conf.nodes, later in state.def.nodes */
  unsigned iasp; /* being checked or formatted */
  uint64_t data_bytes[CRG_MAX_IASPS];
  struct task *task;
};

struct cluster {
  struct daemon *d;
  bool in_view;
  uint32_t present[CRG_MAX_NODES];
  unsigned n_present;
  struct making make;
  struct part part;
  struct { uint8_t id[CRG_ID_LEN]; } dead[CLUSTER_TOMBSTONES];
  unsigned n_dead;
  qb_loop_timer_handle timer;
};

static void check_next (struct cluster *c);
static void format_next (struct cluster *c);

/* ---- sending --------------------------------------------------------------------------- */

/* Takes the reference. */
static int
send_message (struct cluster *c, json_t *msg)
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

static const char *
text_of (json_t *msg, const char *key)
{
  const char *t = json_string_value (json_object_get (msg, key));

  return t ? t : "";
}

static bool
is_present (const struct cluster *c, const char *node)
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
    json_t *nodes;
    char id[IDENT_ID_TEXT_LEN];

    if (s == NULL || s->deleted)
      continue;
    nodes = json_array ();
    for (unsigned k = 0; k < s->def.n_nodes; k++)
      json_array_append_new (nodes, json_pack ("{s:s, s:I}", "name", s->def.nodes[k].name, "id",
                                               (json_int_t) s->def.nodes[k].id));
    ident_id_to_text (s->def.id, id);
    json_array_append_new (crgs, json_pack ("{s:s, s:s, s:o}", "name", s->def.name, "id", id,
                                            "nodes", nodes));
  }
  send_message (c, json_pack ("{s:s, s:o}", "t", "hello", "crgs", crgs));
}

static bool
is_dead (const struct cluster *c, const uint8_t id[CRG_ID_LEN])
{
  for (unsigned i = 0; i < MIN (c->n_dead, (unsigned) CLUSTER_TOMBSTONES); i++)
    if (ident_id_equal (c->dead[i].id, id))
      return true;
  return false;
}

void
cluster_note_deleted (struct cluster *c, const uint8_t crg_id[CRG_ID_LEN])
{
  if (!is_dead (c, crg_id))
    memcpy (c->dead[c->n_dead++ % CLUSTER_TOMBSTONES].id, crg_id, CRG_ID_LEN);
}

/* C6: a node that has lost its state file learns here that it is in a domain,
 * and joins without a vote. */
static void
on_hello (struct cluster *c, json_t *msg)
{
  json_t *crg, *node;
  size_t i, k;

  json_array_foreach (json_object_get (msg, "crgs"), i, crg) {
    const char *name = text_of (crg, "name");
    struct node_name_id nodes[CRG_MAX_NODES] = { 0 };
    uint8_t id[CRG_ID_LEN];
    unsigned n = 0;
    bool ours = false;

    if (!ident_name_is_valid (name) || daemon_find (c->d, name) || c->d->stopping
        || ident_id_from_text (text_of (crg, "id"), id) != 0 || is_dead (c, id)
        || (c->part.phase != PART_IDLE && strcmp (c->part.conf.name, name) == 0))
      continue;
    json_array_foreach (json_object_get (crg, "nodes"), k, node) {
      json_int_t node_id = json_integer_value (json_object_get (node, "id"));

      if (n >= CRG_MAX_NODES || !ident_name_is_valid (text_of (node, "name")) || node_id <= 0
          || node_id > UINT32_MAX)
        continue;
      snprintf (nodes[n].name, sizeof nodes[n].name, "%s", text_of (node, "name"));
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
    send_message (c, json_pack ("{s:s, s:s, s:s, s:s}", "t", "forget", "tx", mk->tx, "crg",
                                mk->conf.name, "id", id));
  }
  else if (mk->phase == MAKE_PREPARING)
    send_message (c, json_pack ("{s:s, s:s}", "t", "abort", "tx", mk->tx));
  finish (c, code, reason);
}

static int
node_index (const struct conf_crg *conf, const char *name)
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
  if (node_index (&mk->conf, c->d->conf.name) < 0) {
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
  def.takeover = conf->takeover == CONF_ORDER ? TAKEOVER_ORDER : TAKEOVER_SAME_SITE_FIRST;
  def.suspend_timeout_ms = conf->suspend_timeout_ms;
  def.no_quorum_timeout_ms = conf->no_quorum_timeout_ms;
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
    to->dirty_block = from->block_size;
    to->mirror_port = (uint16_t) from->mirror_port;
    to->tls = from->tls;
    snprintf (to->export, sizeof to->export, "%s", from->export);
    memcpy (to->store, from->store, sizeof to->store);
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

static int
from_hex (const char *text, uint8_t *buf, size_t size, size_t *len)
{
  size_t n = strlen (text);

  if (n % 2 || n / 2 > size)
    return -EINVAL;
  for (size_t i = 0; i < n; i++) {
    char ch = text[i];
    int v = ch >= '0' && ch <= '9' ? ch - '0' : ch >= 'a' && ch <= 'f' ? ch - 'a' + 10 : -1;

    if (v < 0)
      return -EINVAL;
    buf[i / 2] = (uint8_t) (i % 2 ? buf[i / 2] | v : v << 4);
  }
  *len = n / 2;
  return 0;
}

static void
all_prepared (struct cluster *c)
{
  struct making *mk = &c->make;
  const char *refusal = build_state (mk);
  CLEANUP_FREE uint8_t *buf = malloc (STATE_ENCODED_MAX);
  CLEANUP_FREE char *hex = NULL;
  size_t len;

  if (refusal) {
    give_up (c, CRG_EXIT_REFUSED, refusal);
    return;
  }
  len = buf ? state_encode (&mk->state, buf, STATE_ENCODED_MAX) : 0;
  hex = len ? to_hex (buf, len) : NULL;
  if (hex == NULL) {
    give_up (c, CRG_EXIT_ERROR, "the definition does not fit");
    return;
  }
  progress (c, "all nodes are ready; writing superblocks and state");
  memset (mk->answered, 0, sizeof mk->answered);
  mk->phase = MAKE_CREATING;
  mk->deadline_ms = clock_boottime_ms () + CREATE_STEP_MS;
  send_message (c, json_pack ("{s:s, s:s, s:s}", "t", "create", "tx", mk->tx, "state", hex));
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

    for (unsigned k = 0; k < s->def.n_sites && s->def.n_iasps > 0; k++)
      if (s->rec[0].copies[k].host == s->def.nodes[i].id)
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
  int i = node_index (&mk->conf, text_of (msg, "from"));
  json_t *size;
  size_t k;

  if (mk->phase != (created ? MAKE_CREATING : MAKE_PREPARING)
      || strcmp (mk->tx, text_of (msg, "tx")) != 0 || i < 0)
    return;
  if (!json_is_true (json_object_get (msg, "ok"))) {
    char reason[2 * CRG_REASON_MAX];
    json_int_t code = json_integer_value (json_object_get (msg, "code"));

    snprintf (reason, sizeof reason, "node %s: %s", text_of (msg, "from"), text_of (msg, "reason"));
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

    if (mk->phase == MAKE_WAITING ? !is_present (c, name) : !mk->answered[i])
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
    send_message (c, json_pack ("{s:s, s:s, s:O, s:b}", "t", "prepare", "tx", mk->tx, "def",
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

/* ---- participant ----------------------------------------------------------------------- */

static void
end_part (struct cluster *c)
{
  struct part *p = &c->part;

  task_cancel (p->task);
  memset (p, 0, sizeof *p);
}

static void
answer (struct cluster *c, const char *type, const char *tx, int code, const char *reason,
        const struct part *p)
{
  json_t *msg = json_pack ("{s:s, s:s, s:b, s:i, s:s}", "t", type, "tx", tx, "ok",
                           code == CRG_EXIT_FINE, "code", code, "reason", reason);

  if (p) {
    json_t *sizes = json_array ();

    for (unsigned i = 0; i < p->conf.n_iasps; i++)
      json_array_append_new (sizes, json_integer ((json_int_t) p->data_bytes[i]));
    json_object_set_new (msg, "data_bytes", sizes);
  }
  send_message (c, msg);
}

static void
refuse (struct cluster *c, int code, const char *reason)
{
  answer (c, "prepared", c->part.tx, code, reason, NULL);
  end_part (c);
}

/* A CRG of this node whose id that is, or NULL. */
static const struct member *
find_by_id (const struct cluster *c, const uint8_t id[CRG_ID_LEN])
{
  for (unsigned i = 0; i < CRG_MAX_CRGS; i++) {
    const struct member *m = c->d->members[i];
    const struct crg_state *s = m ? member_state (m) : NULL;

    if (s && ident_id_equal (s->def.id, id))
      return m;
  }
  return NULL;
}

static void
on_store_checked (void *opaque, const void *result, const char *reason)
{
  struct cluster *c = opaque;
  struct part *p = &c->part;
  const struct store_check *check = result;
  const struct conf_iasp *iasp = &p->conf.iasps[p->iasp];
  char text[2 * CRG_REASON_MAX];

  const struct member *owner;

  p->task = NULL;
  owner = check && check->has_crg ? find_by_id (c, check->crg_id) : NULL;
  if (owner) {
    /* Not even with --force: it would tear the store from under a CRG that lives. */
    snprintf (text, sizeof text, "IASP %s: store %s: it belongs to CRG %s, which exists; delete that "
              "one first, or give another store", iasp->name, iasp->store[p->self], member_crg (owner));
    refuse (c, CRG_EXIT_REFUSED, text);
    return;
  }
  if (check == NULL || !check->ok) {
    snprintf (text, sizeof text, "IASP %s: %s", iasp->name, check ? check->reason : reason);
    refuse (c, check == NULL ? CRG_EXIT_ERROR
               : check->needs_force ? CRG_EXIT_NEEDS_FORCE
               : check->data_bytes == 0 ? CRG_EXIT_NO_OBJECT : CRG_EXIT_REFUSED, text);
    return;
  }
  p->data_bytes[p->iasp++] = check->data_bytes;
  check_next (c);
}

static void
check_next (struct cluster *c)
{
  struct part *p = &c->part;
  struct store_check_arg arg = { .force = p->force };

  while (p->iasp < p->conf.n_iasps && p->conf.iasps[p->iasp].store[p->self][0] == '\0')
    p->iasp++;
  if (p->iasp == p->conf.n_iasps) {
    p->phase = PART_PREPARED;
    answer (c, "prepared", p->tx, CRG_EXIT_FINE, "", p);
    return;
  }
  snprintf (arg.store, sizeof arg.store, "%s", p->conf.iasps[p->iasp].store[p->self]);
  arg.size = p->conf.iasps[p->iasp].size;
  arg.dirty_block = p->conf.iasps[p->iasp].block_size;
  p->task = task_start (c->d->loop, store_check, &arg, sizeof (struct store_check), PROBE_MS,
                        on_store_checked, c);
  if (p->task == NULL)
    refuse (c, CRG_EXIT_ERROR, "can't start a process to look at the store");
}

static void
on_prepare (struct cluster *c, json_t *msg, uint32_t engine_id)
{
  struct part *p = &c->part;
  struct conf_crg *conf = calloc (1, sizeof *conf);
  const char *tx = text_of (msg, "tx");
  char err[CONF_ERR_MAX + 1] = "";
  int self, days;
  bool exports_tls = false;

  if (conf == NULL
      || conf_crg_from_json (json_object_get (msg, "def"), conf, err, sizeof err) != 0) {
    log_warning ("a definition from %s is refused: %s", text_of (msg, "from"), err);
    free (conf);
    return; /* the sender has checked it too; this node may not be named at all */
  }
  self = node_index (conf, c->d->conf.name);
  if (self < 0) {
    if (daemon_find (c->d, conf->name))
      answer (c, "prepared", tx, CRG_EXIT_REFUSED, "a CRG of that name exists in this cluster",
              NULL);
    free (conf);
    return;
  }
  if (p->phase != PART_IDLE && strcmp (p->tx, tx) != 0) {
    answer (c, "prepared", tx, CRG_EXIT_REFUSED, "another CRG is being created here", NULL);
    free (conf);
    return;
  }
  end_part (c);
  p->phase = PART_CHECKING;
  snprintf (p->tx, sizeof p->tx, "%s", tx);
  p->coordinator = engine_id;
  p->deadline_ms = clock_boottime_ms () + 2 * CREATE_STEP_MS;
  p->force = json_is_true (json_object_get (msg, "force"));
  p->conf = *conf;
  p->self = (unsigned) self;
  free (conf);
  if (daemon_find (c->d, p->conf.name)) {
    refuse (c, CRG_EXIT_REFUSED, "a CRG of that name exists already");
    return;
  }
  for (unsigned i = 0; i < p->conf.n_iasps; i++) {
    unsigned index;
    struct member *m = daemon_find_iasp (c->d, p->conf.iasps[i].name, &index);

    if (m) {
      snprintf (err, sizeof err, "IASP %s exists already, in CRG %s", p->conf.iasps[i].name,
                member_crg (m));
      refuse (c, CRG_EXIT_REFUSED, err);
      return;
    }
    if (strncmp (p->conf.iasps[i].export, "tcp:", 4) == 0 && p->conf.iasps[i].tls)
      exports_tls = true;
  }
  if (p->conf.nodes[self].site[0]
      && (certs_check (c->d->conf.tls_dir, c->d->conf.name, &days, err, sizeof err) != 0
          || (exports_tls && certs_check_nbd (c->d->conf.tls_dir, &days, err, sizeof err) != 0))) {
    refuse (c, CRG_EXIT_NO_OBJECT, err);
    return;
  }
  check_next (c);
}

static void
refuse_create (struct cluster *c, const char *reason)
{
  log_error ("%s: can't be created here: %s", c->part.conf.name, reason);
  answer (c, "created", c->part.tx, CRG_EXIT_ERROR, reason, NULL);
  end_part (c);
}

static void
format_arg (const struct crg_state *s, unsigned iasp, unsigned self, struct store_format_arg *arg)
{
  const struct iasp_def *d = &s->def.iasps[iasp];
  uint8_t site = s->def.nodes[self].site;

  memset (arg, 0, sizeof *arg);
  snprintf (arg->store, sizeof arg->store, "%s", d->store[self]);
  snprintf (arg->crg, sizeof arg->crg, "%s", s->def.name);
  snprintf (arg->iasp, sizeof arg->iasp, "%s", d->name);
  snprintf (arg->site_name, sizeof arg->site_name, "%s", s->def.sites[site]);
  memcpy (arg->cluster_id, s->def.cluster_id, CRG_ID_LEN);
  memcpy (arg->crg_id, s->def.id, CRG_ID_LEN);
  memcpy (arg->iasp_id, d->id, CRG_ID_LEN);
  memcpy (arg->lineage, s->lineage, CRG_ID_LEN);
  clock_random_id (arg->store_id);
  arg->site = site;
  arg->in_set = s->rec[iasp].copies[site].in_set;
  arg->size = d->size;
  arg->tenure = s->rec[iasp].tenure;
  arg->generation = s->rec[iasp].generation;
  arg->dirty_block = d->dirty_block;
}

static void
on_formatted (void *opaque, const void *result, const char *reason)
{
  struct cluster *c = opaque;
  const struct store_format *format = result;

  c->part.task = NULL;
  if (format == NULL || !format->ok) {
    refuse_create (c, format ? format->reason : reason);
    return;
  }
  c->part.iasp++;
  format_next (c);
}

static void
format_next (struct cluster *c)
{
  struct part *p = &c->part;
  const struct crg_state *s = &p->state;
  const struct domain_node *self = &s->def.nodes[p->self];
  struct store_format_arg arg;
  char tx[sizeof p->tx];
  int r;

  while (p->iasp < s->def.n_iasps
         && (self->site >= s->def.n_sites
             || s->rec[p->iasp].copies[self->site].host != self->id))
    p->iasp++;
  if (p->iasp < s->def.n_iasps) {
    format_arg (s, p->iasp, p->self, &arg);
    p->task = task_start (c->d->loop, store_format, &arg, sizeof (struct store_format), PROBE_MS,
                          on_formatted, c);
    if (p->task == NULL)
      refuse_create (c, "can't start a process to write the superblock");
    return;
  }
  r = statefile_save (c->d->conf.state_dir, s->def.name, s, s->stamp.epoch);
  if (r < 0 || daemon_add (c->d, s->def.name, NULL, 0) == NULL) {
    statefile_remove (c->d->conf.state_dir, s->def.name);
    refuse_create (c, r < 0 ? strerror (-r) : "no room for another CRG");
    return;
  }
  log_notice ("%s: created", s->def.name);
  snprintf (tx, sizeof tx, "%s", p->tx);
  end_part (c);
  answer (c, "created", tx, CRG_EXIT_FINE, "", NULL);
}

static void
on_create (struct cluster *c, json_t *msg)
{
  struct part *p = &c->part;
  CLEANUP_FREE uint8_t *buf = malloc (STATE_ENCODED_MAX);
  size_t len;
  int self = -1;

  if (p->phase != PART_PREPARED || strcmp (p->tx, text_of (msg, "tx")) != 0)
    return;
  if (buf == NULL || from_hex (text_of (msg, "state"), buf, STATE_ENCODED_MAX, &len) != 0
      || state_decode (&p->state, buf, len) != 0
      || strcmp (p->state.def.name, p->conf.name) != 0) {
    refuse_create (c, "the state that came is damaged");
    return;
  }
  for (unsigned i = 0; i < p->state.def.n_nodes; i++)
    if (strcmp (p->state.def.nodes[i].name, c->d->conf.name) == 0)
      self = (int) i;
  if (self < 0) {
    refuse_create (c, "the state that came does not name this node");
    return;
  }
  p->self = (unsigned) self;
  p->iasp = 0;
  p->phase = PART_FORMATTING;
  p->deadline_ms = clock_boottime_ms () + 2 * CREATE_STEP_MS;
  format_next (c);
}

/* A creation that failed in its last step: takes back what this node did. */
static void
on_forget (struct cluster *c, json_t *msg)
{
  struct member *m = daemon_find (c->d, text_of (msg, "crg"));
  const struct crg_state *s = m ? member_state (m) : NULL;
  uint8_t id[CRG_ID_LEN];
  int self;

  if (c->part.phase != PART_IDLE && strcmp (c->part.tx, text_of (msg, "tx")) == 0)
    end_part (c);
  if (s == NULL || ident_id_from_text (text_of (msg, "id"), id) != 0
      || !ident_id_equal (s->def.id, id) || s->started)
    return;
  log_warning ("%s: creating it failed elsewhere; it is forgotten", s->def.name);
  cluster_note_deleted (c, id);
  self = member_self (m);
  for (unsigned i = 0; self >= 0 && i < s->def.n_iasps; i++) {
    struct store_format_arg arg;

    if (s->def.nodes[self].site >= s->def.n_sites || s->def.iasps[i].store[self][0] == '\0')
      continue;
    format_arg (s, i, (unsigned) self, &arg);
    task_start (c->d->loop, store_wipe, &arg, sizeof (struct store_format), PROBE_MS, NULL, NULL);
  }
  statefile_remove (c->d->conf.state_dir, s->def.name);
  daemon_remove (c->d, m, false);
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
    end_part (c);
  send_hello (c);
}

void
cluster_on_message (struct cluster *c, uint32_t engine_id, const uint8_t *buf, size_t len)
{
  json_error_t error;
  json_t *msg = json_loadb ((const char *) buf, len, JSON_REJECT_DUPLICATES, &error);
  const char *type = text_of (msg, "t"), *from = text_of (msg, "from");

  if (!json_is_object (msg) || !ident_name_is_valid (from) || engine_id_of (from) != engine_id)
    log_warning ("a message of the cluster makes no sense: %s", error.text);
  else if (strcmp (type, "hello") == 0)
    on_hello (c, msg);
  else if (strcmp (type, "prepare") == 0)
    on_prepare (c, msg, engine_id);
  else if (strcmp (type, "prepared") == 0)
    on_answer (c, msg, false);
  else if (strcmp (type, "create") == 0)
    on_create (c, msg);
  else if (strcmp (type, "created") == 0)
    on_answer (c, msg, true);
  else if (strcmp (type, "abort") == 0) {
    if (c->part.phase != PART_FORMATTING && strcmp (c->part.tx, text_of (msg, "tx")) == 0)
      end_part (c);
  }
  else if (strcmp (type, "forget") == 0)
    on_forget (c, msg);
  json_decref (msg);
}

void
cluster_on_down (struct cluster *c)
{
  c->in_view = false;
  c->n_present = 0;
  if (c->part.phase != PART_FORMATTING)
    end_part (c);
  if (c->make.phase != MAKE_IDLE)
    give_up (c, CRG_EXIT_ERROR, "the connection to the cluster was lost; see `crgctl status`");
}

static void
on_timer (void *opaque)
{
  struct cluster *c = opaque;
  uint64_t now = clock_boottime_ms ();

  tick_making (c, now);
  if (c->part.phase != PART_IDLE && now >= c->part.deadline_ms)
    end_part (c);
  qb_loop_timer_add (c->d->loop, QB_LOOP_MED, CLUSTER_TICK_MS * QB_TIME_NS_IN_MSEC, c, on_timer,
                     &c->timer);
}

struct cluster *
cluster_new (struct daemon *d)
{
  struct cluster *c = calloc (1, sizeof *c);

  if (c == NULL)
    return NULL;
  c->d = d;
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
  end_part (c);
  free (c);
}
