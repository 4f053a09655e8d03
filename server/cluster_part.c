/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The making of a CRG on a node that is named in it: looks at the stores,
 * writes superblocks and the state file, and takes both back if it fails
 * elsewhere.  Works on the cluster's `part`; what may block runs in tasks.
 */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/certs.h"
#include "common/clock.h"
#include "common/conf.h"
#include "common/exitcodes.h"
#include "common/ident.h"
#include "common/jsonl.h"
#include "common/util-posix.h"
#include "server/cluster_private.h"
#include "server/log.h"
#include "server/member.h"
#include "server/probe.h"
#include "server/statefile.h"
#include "server/task.h"

static void check_next (struct cluster *c);
static void format_next (struct cluster *c);

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

void
part_end (struct cluster *c)
{
  struct part *p = &c->part;

  task_cancel (p->task);
  memset (p, 0, sizeof *p);
}

static void
answer (struct cluster *c, const char *type, const char *tx, int code, const char *reason,
        const struct part *p)
{
  json_t *msg = json_pack ("{s:s, s:o, s:b, s:i, s:o}", "t", type, "tx", jsonl_string (tx), "ok",
                           code == CRG_EXIT_FINE, "code", code, "reason", jsonl_string (reason));

  if (p) {
    json_t *sizes = json_array ();

    for (unsigned i = 0; i < p->conf.n_iasps; i++)
      json_array_append_new (sizes, json_integer ((json_int_t) p->data_bytes[i]));
    json_object_set_new (msg, "data_bytes", sizes);
  }
  cluster_send (c, msg);
}

static void
refuse (struct cluster *c, int code, const char *reason)
{
  answer (c, c->part.joins ? "node-prepared" : "prepared", c->part.tx, code, reason, NULL);
  part_end (c);
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

/* C7: does this node bring the first store of its site? */
static bool
is_new_copy (const struct part *p)
{
  const struct crg_state *s = &p->state;

  for (unsigned i = 0; i < s->def.n_nodes; i++)
    if (i != p->self && s->def.nodes[i].site == s->def.nodes[p->self].site)
      return false;
  return true;
}

static void
on_shared_seen (void *opaque, const void *result, const char *reason)
{
  struct cluster *c = opaque;
  struct part *p = &c->part;
  const struct store_probe *probe = result;
  const struct conf_iasp *iasp = &p->conf.iasps[p->iasp];
  char text[2 * CRG_REASON_MAX];

  p->task = NULL;
  if (probe == NULL || !probe->info.has_super || !probe->info.agrees_ids) {
    snprintf (text, sizeof text, "IASP %s: store %s is not the store of site %s: %.200s", iasp->name,
              iasp->store[p->self], p->conf.nodes[p->self].site,
              probe == NULL ? reason : probe->reason[0] ? probe->reason : "it has no superblock");
    refuse (c, CRG_EXIT_REFUSED, text);
    return;
  }
  p->iasp++;
  check_next (c);
}

/* A node that comes to a site shares the store that its site has. */
static void
look_at_shared (struct cluster *c)
{
  struct part *p = &c->part;
  const struct crg_state *s = &p->state;
  struct store_probe_arg arg = { .site = s->def.nodes[p->self].site,
                                 .size = s->def.iasps[p->iasp].size };

  conf_join_store (p->conf.iasps[p->iasp].store[p->self], p->conf.iasps[p->iasp].meta[p->self], arg.store);
  snprintf (arg.node, sizeof arg.node, "%s", c->d->conf.name);
  memcpy (arg.boot_id, c->d->boot_id, CRG_ID_LEN);
  memcpy (arg.cluster_id, s->def.cluster_id, CRG_ID_LEN);
  memcpy (arg.crg_id, s->def.id, CRG_ID_LEN);
  memcpy (arg.iasp_id, s->def.iasps[p->iasp].id, CRG_ID_LEN);
  p->task = task_start (c->d->loop, store_probe, &arg, sizeof (struct store_probe), PROBE_MS,
                        on_shared_seen, c);
  if (p->task == NULL)
    refuse (c, CRG_EXIT_ERROR, "can't start a process to look at the store");
}

static void
check_next (struct cluster *c)
{
  struct part *p = &c->part;
  struct store_check_arg arg = { .force = p->force };

  while (p->iasp < p->conf.n_iasps && p->conf.iasps[p->iasp].store[p->self][0] == '\0')
    p->iasp++;
  if (p->iasp == p->conf.n_iasps && p->joins) {
    /* Nobody else has to agree: what is new is written at once. */
    p->phase = PART_FORMATTING;
    p->iasp = 0;
    format_next (c);
    return;
  }
  if (p->iasp < p->conf.n_iasps && p->joins && !is_new_copy (p)) {
    look_at_shared (c);
    return;
  }
  if (p->iasp == p->conf.n_iasps) {
    p->phase = PART_PREPARED;
    answer (c, "prepared", p->tx, CRG_EXIT_FINE, "", p);
    return;
  }
  conf_join_store (p->conf.iasps[p->iasp].store[p->self], p->conf.iasps[p->iasp].meta[p->self], arg.store);
  arg.size = p->conf.iasps[p->iasp].size;
  arg.dirty_block = p->conf.iasps[p->iasp].block_size;
  p->task = task_start (c->d->loop, store_check, &arg, sizeof (struct store_check), PROBE_MS,
                        on_store_checked, c);
  if (p->task == NULL)
    refuse (c, CRG_EXIT_ERROR, "can't start a process to look at the store");
}

/* What has to hold on this node before it looks at its stores. */
static void
begin_checks (struct cluster *c, const char *tx, uint32_t engine_id, bool force,
              const struct conf_crg *conf, unsigned self)
{
  struct part *p = &c->part;
  char err[CONF_ERR_MAX + 1] = "";
  bool exports_tls = false;
  int days;

  p->phase = PART_CHECKING;
  snprintf (p->tx, sizeof p->tx, "%s", tx);
  p->coordinator = engine_id;
  p->deadline_ms = clock_boottime_ms () + 2 * CREATE_STEP_MS;
  p->force = force;
  p->conf = *conf;
  p->self = self;
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

void
part_on_prepare (struct cluster *c, json_t *msg, uint32_t engine_id)
{
  struct part *p = &c->part;
  struct conf_crg *conf = calloc (1, sizeof *conf);
  const char *tx = cluster_text (msg, "tx");
  char err[CONF_ERR_MAX + 1] = "";
  int self;

  if (conf == NULL
      || conf_crg_from_json (json_object_get (msg, "def"), conf, err, sizeof err) != 0) {
    log_warning ("a definition from %s is refused: %s", cluster_text (msg, "from"), err);
    free (conf);
    return; /* the sender has checked it too; this node may not be named at all */
  }
  self = cluster_node_index (conf, c->d->conf.name);
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
  part_end (c);
  begin_checks (c, tx, engine_id, json_is_true (json_object_get (msg, "force")), conf, (unsigned) self);
  free (conf);
}

/* C7: this node is asked to come into a CRG that exists. */
void
part_on_node_prepare (struct cluster *c, json_t *msg, uint32_t engine_id)
{
  struct part *p = &c->part;
  CLEANUP_FREE struct conf_crg *conf = calloc (1, sizeof *conf);
  CLEANUP_FREE uint8_t *buf = malloc (STATE_ENCODED_MAX);
  const char *tx = cluster_text (msg, "tx");
  char err[CONF_ERR_MAX + 1] = "no memory";
  size_t len;
  int self;

  if (strcmp (cluster_text (msg, "node"), c->d->conf.name) != 0)
    return;
  if (p->phase != PART_IDLE) {
    answer (c, "node-prepared", tx, CRG_EXIT_REFUSED, "a CRG is being created here", NULL);
    return;
  }
  if (conf == NULL || buf == NULL
      || conf_crg_from_json (json_object_get (msg, "def"), conf, err, sizeof err) != 0
      || from_hex (cluster_text (msg, "state"), buf, STATE_ENCODED_MAX, &len) != 0
      || state_decode (&p->state, buf, len) != 0 || strcmp (p->state.def.name, conf->name) != 0
      || p->state.def.n_nodes != conf->n_nodes
      || (self = cluster_node_index (conf, c->d->conf.name)) < 0
      || strcmp (p->state.def.nodes[self].name, c->d->conf.name) != 0) {
    part_end (c);
    answer (c, "node-prepared", tx, CRG_EXIT_ERROR, "the definition that came makes no sense here", NULL);
    return;
  }
  p->joins = true;
  begin_checks (c, tx, engine_id, json_is_true (json_object_get (msg, "force")), conf, (unsigned) self);
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

/* Does this node write the superblock of that IASP's copy? */
static bool
formats (const struct part *p, unsigned iasp)
{
  const struct crg_state *s = &p->state;
  const struct domain_node *self = &s->def.nodes[p->self];

  return self->site < s->def.n_sites && s->def.iasps[iasp].type == RES_IASP
         && s->rec[iasp].copies[self->site].host == self->id;
}

static void
on_wiped (void *opaque, const void *result, const char *reason)
{
  const struct store_format *wiped = result;

  (void) opaque;
  if (wiped == NULL || !wiped->ok)
    log_warning ("a store of a CRG that was not created keeps its superblock: %s", wiped ? wiped->reason : reason);
}

static void
wipe (struct cluster *c, const struct store_format_arg *arg)
{
  task_start (c->d->loop, store_wipe, arg, sizeof (struct store_format), PROBE_MS, on_wiped, NULL);
}

void
part_give_up (struct cluster *c)
{
  struct part *p = &c->part;
  bool written = p->phase == PART_FORMATTING;
  struct store_format_arg arg;

  task_cancel (p->task);
  p->task = NULL;
  for (unsigned i = 0; written && i < p->state.def.n_iasps; i++)
    if (formats (p, i)) {
      format_arg (&p->state, i, p->self, &arg);
      wipe (c, &arg);
    }
  part_end (c);
}

static void
refuse_create (struct cluster *c, const char *reason)
{
  log_error ("%s: can't be created here: %s", c->part.conf.name, reason);
  answer (c, c->part.joins ? "node-prepared" : "created", c->part.tx, CRG_EXIT_ERROR, reason, NULL);
  part_give_up (c);
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
  struct store_format_arg arg;
  char tx[sizeof p->tx];
  int r;

  while (p->iasp < s->def.n_iasps && !formats (p, p->iasp))
    p->iasp++;
  if (p->iasp < s->def.n_iasps) {
    format_arg (s, p->iasp, p->self, &arg);
    arg.force = p->force;
    p->task = task_start (c->d->loop, store_format, &arg, sizeof (struct store_format), PROBE_MS,
                          on_formatted, c);
    if (p->task == NULL)
      refuse_create (c, "can't start a process to write the superblock");
    return;
  }
  if (p->joins) {
    /* It joins when the group has committed that it is in the domain. */
    log_notice ("%s: this node is ready to come into it", s->def.name);
    snprintf (tx, sizeof tx, "%s", p->tx);
    part_end (c);
    answer (c, "node-prepared", tx, CRG_EXIT_FINE, "", NULL);
    return;
  }
  r = statefile_save (c->d->conf.state_dir, s->def.name, s, s->stamp.epoch, 0);
  if (r < 0 || daemon_add (c->d, s->def.name, NULL, 0) == NULL) {
    statefile_remove (c->d->conf.state_dir, s->def.name);
    refuse_create (c, r < 0 ? strerror (-r) : "no room for another CRG");
    return;
  }
  log_notice ("%s: created", s->def.name);
  snprintf (tx, sizeof tx, "%s", p->tx);
  part_end (c);
  answer (c, "created", tx, CRG_EXIT_FINE, "", NULL);
}

void
part_on_create (struct cluster *c, json_t *msg)
{
  struct part *p = &c->part;
  CLEANUP_FREE uint8_t *buf = malloc (STATE_ENCODED_MAX);
  size_t len;
  int self = -1;

  if (p->phase != PART_PREPARED || strcmp (p->tx, cluster_text (msg, "tx")) != 0)
    return;
  if (buf == NULL || from_hex (cluster_text (msg, "state"), buf, STATE_ENCODED_MAX, &len) != 0
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
void
part_on_forget (struct cluster *c, json_t *msg)
{
  struct member *m = daemon_find (c->d, cluster_text (msg, "crg"));
  const struct crg_state *s = m ? member_state (m) : NULL;
  uint8_t id[CRG_ID_LEN];
  int self;

  if (c->part.phase != PART_IDLE && strcmp (c->part.tx, cluster_text (msg, "tx")) == 0)
    part_give_up (c);
  if (s == NULL || ident_id_from_text (cluster_text (msg, "id"), id) != 0
      || !ident_id_equal (s->def.id, id) || s->started)
    return;
  log_warning ("%s: creating it failed elsewhere; it is forgotten", s->def.name);
  cluster_note_deleted (c, s, true);
  self = member_self (m);
  for (unsigned i = 0; self >= 0 && i < s->def.n_iasps; i++) {
    struct store_format_arg arg;

    if (s->def.nodes[self].site >= s->def.n_sites || s->def.iasps[i].store[self][0] == '\0')
      continue;
    format_arg (s, i, (unsigned) self, &arg);
    wipe (c, &arg);
  }
  statefile_remove (c->d->conf.state_dir, s->def.name);
  daemon_remove (c->d, m, false);
}
