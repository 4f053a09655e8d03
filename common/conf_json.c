/* SPDX-License-Identifier: BSD-3-Clause */
/* The definition of a CRG as JSON, both ways; see conf.h.  What arrives is not trusted: every key
 * and type is checked, every string bounded, and then the whole as if it had come from a file.
 */
#include "config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "common/conf.h"
#include "common/util.h"

/* Both take the value; an object that lacks one, as there was no memory for it, is a bad one. */
static void
put (json_t *o, const char *key, json_t *value, bool *bad)
{
  *bad |= json_object_set_new (o, key, value) < 0;
}

static void
append (json_t *list, json_t *value, bool *bad)
{
  *bad |= json_array_append_new (list, value) < 0;
}

static void
put_order (json_t *o, const struct conf_iasp *s, bool *bad)
{
  json_t *list = json_array ();

  for (unsigned k = 0; k < s->n_order; k++)
    append (list, json_string (s->order[k]), bad);
  if (s->n_order > 0)
    put (o, "order", list, bad);
  else
    json_decref (list);
}

/* What the nodes have of one kind, by their names. */
static json_t *
paths_json (const struct conf_crg *conf, const char (*paths)[CRG_PATH_MAX + 1], bool *bad)
{
  json_t *list = json_object ();

  for (unsigned j = 0; j < conf->n_nodes; j++)
    if (paths[j][0])
      put (list, conf->nodes[j].name, json_string (paths[j]), bad);
  return list;
}

static json_t *
node_json (const struct conf_node *n, bool *bad)
{
  json_t *list = json_array ();
  json_t *o = json_pack ("{s:s, s:I, s:s, s:I, s:o}", "name", n->name, "id", (json_int_t) n->id, "role",
                         conf_role_name (n->role), "votes", (json_int_t) n->votes, "addresses", list);

  if (n->site[0])
    put (o, "site", json_string (n->site), bad);
  if (n->role == CONF_PRIMARY || n->role == CONF_BACKUP)
    put (o, "order", json_integer (n->order), bad);
  for (unsigned j = 0; j < n->n_addresses; j++)
    append (list, json_string (n->addresses[j]), bad);
  return o;
}

static json_t *
iasp_json (const struct conf_crg *conf, const struct conf_iasp *s, bool *bad)
{
  json_t *o, *metas;

  if (s->type == CONF_SCRIPT)
    o = json_pack ("{s:s, s:s, s:I}", "name", s->name, "agent", s->agent, "timeout_ms", (json_int_t) s->timeout_ms);
  else {
    o = json_pack ("{s:s, s:I, s:I, s:s, s:b, s:I, s:o}", "name", s->name, "size", (json_int_t) s->size, "block_size",
                   (json_int_t) s->block_size, "export", s->export, "tls", (int) s->tls, "mirror_port",
                   (json_int_t) s->mirror_port, "stores", paths_json (conf, s->store, bad));
    metas = paths_json (conf, s->meta, bad);
    if (json_object_size (metas) > 0)
      put (o, "metas", json_incref (metas), bad);
    json_decref (metas);
    if (s->snapshot)
      put (o, "snapshot", json_true (), bad);
  }
  put_order (o, s, bad);
  return o;
}

json_t *
conf_crg_to_json (const struct conf_crg *conf)
{
  json_t *nodes = json_array (), *iasps = json_array (), *def;
  bool bad = false;

  for (unsigned i = 0; i < conf->n_nodes; i++)
    append (nodes, node_json (&conf->nodes[i], &bad), &bad);
  for (unsigned i = 0; i < conf->n_iasps; i++)
    append (iasps, iasp_json (conf, &conf->iasps[i], &bad), &bad);
  def = json_pack ("{s:s, s:s, s:I, s:I, s:s, s:I, s:o, s:o}", "name", conf->name, "takeover",
                   conf_takeover_name (conf->takeover), "suspend_timeout_ms",
                   (json_int_t) conf->suspend_timeout_ms, "no_quorum_timeout_ms",
                   (json_int_t) conf->no_quorum_timeout_ms, "store_error",
                   conf_store_error_name (conf->store_error), "resync_share",
                   (json_int_t) conf->resync_share, "nodes", nodes, "iasps", iasps);
  if (conf->strategy != CONF_STRATEGY_SITE)
    put (def, "strategy", json_string (conf_strategy_name (conf->strategy)), &bad);
  if (bad) { /* never: where there is memory */
    json_decref (def);
    return NULL;
  }
  return def;
}

/* ---- reading ---------------------------------------------------------------------------- */

struct reader {
  char *err;
  size_t errlen;
  char where[CRG_NAME_MAX + 32]; /* "node 'p1': " */
};

UTIL_PRINTF (2, 3)
static int
fail (struct reader *r, const char *fmt, ...)
{
  va_list ap;
  int n;

  n = snprintf (r->err, r->errlen, "definition: %s", r->where);
  if (n >= 0 && (size_t) n < r->errlen) {
    va_start (ap, fmt);
    vsnprintf (r->err + n, r->errlen - (size_t) n, fmt, ap);
    va_end (ap);
  }
  return -EINVAL;
}

/* No key beside those in the NULL-terminated list. */
static int
only (struct reader *r, const json_t *o, const char *const *allowed)
{
  const char *key;
  json_t *value;
  unsigned i;

  json_object_foreach ((json_t *) (uintptr_t) o, key, value) {
    for (i = 0; allowed[i] && strcmp (allowed[i], key) != 0; i++)
      ;
    if (!allowed[i])
      return fail (r, "unknown key '%.60s'; is the other side of a newer release?", key);
  }
  return 0;
}

static int
get_text (struct reader *r, const json_t *o, const char *key, bool required, char *to, size_t max)
{
  const json_t *v = json_object_get (o, key);
  const char *text;

  to[0] = '\0';
  if (!v && !required)
    return 0;
  text = json_string_value (v);
  if (!text)
    return fail (r, "'%s' is missing or not a string", key);
  if (json_string_length (v) > max || strlen (text) != json_string_length (v))
    return fail (r, "'%s' is longer than %zu bytes or holds a NUL", key, max);
  strcpy (to, text);
  return 0;
}

static int
get_number (struct reader *r, const json_t *o, const char *key, uint64_t max, uint64_t *to)
{
  const json_t *v = json_object_get (o, key);

  if (!json_is_integer (v) || json_integer_value (v) < 0
      || (uint64_t) json_integer_value (v) > max)
    return fail (r, "'%s' is missing or not a number from 0 to %" PRIu64, key, max);
  *to = (uint64_t) json_integer_value (v);
  return 0;
}

static int
get_u32 (struct reader *r, const json_t *o, const char *key, uint32_t max, uint32_t *to)
{
  uint64_t value;
  int rc = get_number (r, o, key, max, &value);

  if (rc == 0)
    *to = (uint32_t) value;
  return rc;
}

static int
get_word (struct reader *r, const json_t *o, const char *key, const char *(*name) (uint32_t),
          uint32_t *to)
{
  char text[CRG_NAME_MAX + 1];
  uint32_t i;

  if (get_text (r, o, key, true, text, CRG_NAME_MAX) < 0)
    return -EINVAL;
  for (i = 0; strcmp (name (i), "?") != 0; i++)
    if (strcmp (name (i), text) == 0) {
      *to = i;
      return 0;
    }
  return fail (r, "'%s' is '%s', which is not known here", key, text);
}

static int
read_node (struct reader *r, const json_t *o, struct conf_crg *c)
{
  static const char *const known[]
    = { "name", "id", "site", "role", "votes", "order", "addresses", NULL };
  struct conf_node *n = &c->nodes[c->n_nodes];
  const json_t *list, *v;
  size_t i;

  r->where[0] = '\0';
  if (get_text (r, o, "name", true, n->name, CRG_NAME_MAX) < 0)
    return -EINVAL;
  snprintf (r->where, sizeof r->where, "node '%s': ", n->name);
  if (only (r, o, known) < 0 || get_u32 (r, o, "id", CONF_MAX_NODE_ID, &n->id) < 0
      || get_text (r, o, "site", false, n->site, CRG_NAME_MAX) < 0
      || get_word (r, o, "role", conf_role_name, &n->role) < 0
      || get_u32 (r, o, "votes", CONF_MAX_VOTES, &n->votes) < 0)
    return -EINVAL;
  if (n->role == CONF_PRIMARY || n->role == CONF_BACKUP) {
    if (get_u32 (r, o, "order", CRG_MAX_NODES - 1, &n->order) < 0)
      return -EINVAL;
  }
  else if (json_object_get (o, "order"))
    return fail (r, "'order' is for a primary or backup only");
  list = json_object_get (o, "addresses");
  if (!json_is_array (list) || json_array_size (list) > CRG_MAX_ADDRS)
    return fail (r, "'addresses' is not a list of at most %d", CRG_MAX_ADDRS);
  for (i = 0; i < json_array_size (list); i++) {
    v = json_array_get (list, i);
    if (!json_is_string (v) || json_string_length (v) > CRG_ADDR_MAX
        || strlen (json_string_value (v)) != json_string_length (v))
      return fail (r, "an address is not a string of at most %d bytes", CRG_ADDR_MAX);
    strcpy (n->addresses[n->n_addresses++], json_string_value (v));
  }
  c->n_nodes++;
  return 0;
}

static int
read_order (struct reader *r, const json_t *list, struct conf_iasp *s)
{
  const json_t *v;
  size_t i;

  if (list && (!json_is_array (list) || json_array_size (list) > CRG_MAX_NODES))
    return fail (r, "'order' is not a list of at most %d", CRG_MAX_NODES);
  for (i = 0; list && i < json_array_size (list); i++) {
    v = json_array_get (list, i);
    if (!json_is_string (v) || json_string_length (v) > CRG_NAME_MAX
        || strlen (json_string_value (v)) != json_string_length (v))
      return fail (r, "a node of the order is not a string of at most %d bytes", CRG_NAME_MAX);
    strcpy (s->order[s->n_order++], json_string_value (v));
  }
  return 0;
}

static int
read_script (struct reader *r, const json_t *o, struct conf_iasp *s)
{
  static const char *const known[] = { "name", "agent", "timeout_ms", "order", NULL };

  s->type = CONF_SCRIPT;
  if (only (r, o, known) < 0 || get_text (r, o, "agent", true, s->agent, CRG_PATH_MAX) < 0)
    return -EINVAL;
  return get_u32 (r, o, "timeout_ms", AGENT_TIMEOUT_MAX_MS, &s->timeout_ms);
}

/* {NODE: PATH}. */
static int
read_paths (struct reader *r, const json_t *o, const char *name, const struct conf_crg *c,
            char paths[CRG_MAX_NODES][CRG_PATH_MAX + 1])
{
  const json_t *list = json_object_get (o, name);
  const char *key;
  json_t *value;
  unsigned i;

  if (!json_is_object (list))
    return fail (r, "'%s' is missing or not an object", name);
  json_object_foreach ((json_t *) (uintptr_t) list, key, value) {
    for (i = 0; i < c->n_nodes && strcmp (c->nodes[i].name, key) != 0; i++)
      ;
    if (i == c->n_nodes)
      return fail (r, "'%s' names '%.60s', which is not a node", name, key);
    if (get_text (r, list, key, true, paths[i], CRG_PATH_MAX) < 0)
      return -EINVAL;
  }
  return 0;
}

static int
read_iasp (struct reader *r, const json_t *o, struct conf_crg *c)
{
  static const char *const known[]
    = { "name", "size", "block_size", "export", "tls", "mirror_port", "snapshot", "stores", "metas", "order", NULL };
  struct conf_iasp *s = &c->iasps[c->n_iasps];
  const json_t *tls;

  r->where[0] = '\0';
  if (get_text (r, o, "name", true, s->name, CRG_NAME_MAX) < 0)
    return -EINVAL;
  snprintf (r->where, sizeof r->where, "IASP '%s': ", s->name);
  if (read_order (r, json_object_get (o, "order"), s) < 0)
    return -EINVAL;
  if (json_object_get (o, "agent")) {
    c->n_iasps++;
    return read_script (r, o, s);
  }
  if (only (r, o, known) < 0 || get_number (r, o, "size", STORE_MAX_BYTES, &s->size) < 0
      || get_u32 (r, o, "block_size", DIRTY_BLOCK_SIZE_MAX, &s->block_size) < 0
      || get_text (r, o, "export", true, s->export, CRG_PATH_MAX) < 0
      || get_u32 (r, o, "mirror_port", 65535, &s->mirror_port) < 0)
    return -EINVAL;
  tls = json_object_get (o, "tls");
  if (!json_is_boolean (tls))
    return fail (r, "'tls' is missing or not true or false");
  s->tls = json_is_true (tls);
  tls = json_object_get (o, "snapshot");
  if (tls && !json_is_boolean (tls))
    return fail (r, "'snapshot' is not true or false");
  s->snapshot = json_is_true (tls);
  if (read_paths (r, o, "stores", c, s->store) < 0
      || (json_object_get (o, "metas") && read_paths (r, o, "metas", c, s->meta) < 0))
    return -EINVAL;
  c->n_iasps++;
  return 0;
}

int
conf_crg_from_json (const json_t *def, struct conf_crg *conf, char *err, size_t errlen)
{
  static const char *const known[]
    = { "name", "strategy", "takeover", "suspend_timeout_ms", "no_quorum_timeout_ms", "store_error", "resync_share", "nodes",
        "iasps", NULL };
  struct reader r = { .err = err, .errlen = errlen };
  const json_t *nodes, *iasps;
  size_t i;

  memset (conf, 0, sizeof *conf);
  if (!json_is_object (def))
    return fail (&r, "missing, or not an object");
  if (only (&r, def, known) < 0 || get_text (&r, def, "name", true, conf->name, CRG_NAME_MAX) < 0
      || (json_object_get (def, "strategy")
          && get_word (&r, def, "strategy", conf_strategy_name, &conf->strategy) < 0)
      || get_word (&r, def, "takeover", conf_takeover_name, &conf->takeover) < 0
      || get_u32 (&r, def, "suspend_timeout_ms", CONF_MAX_TIMEOUT_MS, &conf->suspend_timeout_ms) < 0
      || get_u32 (&r, def, "no_quorum_timeout_ms", CONF_MAX_TIMEOUT_MS,
                  &conf->no_quorum_timeout_ms) < 0
      || get_word (&r, def, "store_error", conf_store_error_name, &conf->store_error) < 0
      || get_u32 (&r, def, "resync_share", 100, &conf->resync_share) < 0)
    return -EINVAL;
  if (conf->resync_share == 0)
    return fail (&r, "'resync_share' is 0; it is a percentage from 1 to 100");
  nodes = json_object_get (def, "nodes");
  iasps = json_object_get (def, "iasps");
  if (!json_is_array (nodes) || json_array_size (nodes) > CRG_MAX_NODES)
    return fail (&r, "'nodes' is not a list of at most %d", CRG_MAX_NODES);
  if (!json_is_array (iasps) || json_array_size (iasps) > CRG_MAX_IASPS)
    return fail (&r, "'iasps' is not a list of at most %d", CRG_MAX_IASPS);
  for (i = 0; i < json_array_size (nodes); i++)
    if (read_node (&r, json_array_get (nodes, i), conf) < 0)
      return -EINVAL;
  for (i = 0; i < json_array_size (iasps); i++)
    if (read_iasp (&r, json_array_get (iasps, i), conf) < 0)
      return -EINVAL;
  return conf_check_crg (conf, err, errlen);
}
