/* SPDX-License-Identifier: BSD-3-Clause */
/* See conf.h.  One table names each key, its type and its bounds; what needs several keys is in
 * conf_check.c, which files and JSON share, and which says where, so that the line is found here.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/conf_private.h"
#include "common/ident.h"
#include "common/ini.h"
#include "common/util-posix.h"
#include "common/util.h"
/* ---- the keys --------------------------------------------------------------------------- */

enum type { T_NAMES, T_NAME, T_PATH, T_NUMBER, T_SIZE, T_WORD, T_ONOFF, T_ADDRESSES, T_EXPORT, T_STORE, T_LISTEN };

struct key {
  enum conf_section section;
  const char *name;
  enum type type;
  size_t offset; /* in the section's struct */
  bool required;
  uint64_t min, max;        /* T_NUMBER */
  const char *const *words; /* T_WORD: by value, NULL at the end */
};

static const char *const engine_words[] = { "local", "corosync", NULL };
static const char *const strategy_words[] = { "site", "access", NULL };
static const char *const takeover_words[] = { "same-site-first", "order", NULL };
static const char *const store_error_words[] = { "fail-over", "return", NULL };
static const char *const role_words[] = { "primary", "backup", "peer", "replicate", NULL };

#define D(field) offsetof (struct conf_crgd, field)
#define C(field) offsetof (struct conf_crg, field)
#define N(field) offsetof (struct conf_node, field)
#define I(field) offsetof (struct conf_iasp, field)

static const struct key keys[] = {
  { SEC_NODE, "name", T_NAME, D (name), .required = true },
  { SEC_NODE, "state-dir", T_PATH, D (state_dir) },
  { SEC_NODE, "run-dir", T_PATH, D (run_dir) },
  { SEC_NODE, "tls-certificates", T_PATH, D (tls_dir) },
  { SEC_NODE, "socket-group", T_NAME, D (socket_group) },
  { SEC_NODE, "nbdkit", T_PATH, D (nbdkit) },
  { SEC_NODE, "plugin", T_PATH, D (plugin) },
  { SEC_NODE, "threads", T_NUMBER, D (threads), .min = 16, .max = PLUGIN_THREADS_MAX },
  { SEC_NODE, "hooks-dir", T_PATH, D (hooks_dir) },
  { SEC_NODE, "hook-timeout-ms", T_NUMBER, D (hook_timeout_ms), .min = 100, .max = AGENT_TIMEOUT_MAX_MS },
  { SEC_NODE, "fence-hook", T_PATH, D (fence_hook) },
  { SEC_NODE, "snapshot-hook", T_PATH, D (snapshot_hook) },
  { SEC_NODE, "persistent-reservation", T_ONOFF, D (reservation) },
  { SEC_NODE, "fence-timeout-ms", T_NUMBER, D (fence_timeout_ms), .min = 100, .max = AGENT_TIMEOUT_MAX_MS },

  { SEC_ENGINE, "type", T_WORD, D (engine), .words = engine_words },
  { SEC_ENGINE, "socket", T_PATH, D (engine_socket) },
  { SEC_ENGINE, "group-prefix", T_NAME, D (group_prefix) },
  { SEC_ENGINE, "token-ms", T_NUMBER, D (token_ms), .min = 50, .max = 60000 },

  { SEC_LEASE, "lease-ms", T_NUMBER, D (lease_ms), .min = 100, .max = LEASE_MAX_MS },
  { SEC_LEASE, "start-wait-ms", T_NUMBER, D (start_wait_ms), .min = 0, .max = 3600000 },

  { SEC_CLIENT, "listen", T_LISTEN, 0, .required = true },

  { SEC_CRG, "name", T_NAME, C (name), .required = true },
  { SEC_CRG, "strategy", T_WORD, C (strategy), .words = strategy_words },
  { SEC_CRG, "takeover", T_WORD, C (takeover), .words = takeover_words },
  { SEC_CRG, "suspend-timeout-ms", T_NUMBER, C (suspend_timeout_ms), .min = 100, .max = 600000 },
  { SEC_CRG, "no-quorum-timeout-ms", T_NUMBER, C (no_quorum_timeout_ms), .min = 0, .max = CONF_MAX_TIMEOUT_MS },
  { SEC_CRG, "store-error", T_WORD, C (store_error), .words = store_error_words },
  { SEC_CRG, "resync-share", T_NUMBER, C (resync_share), .min = 1, .max = 100 },

  { SEC_DOMAIN, "id", T_NUMBER, N (id), .required = true, .min = 1, .max = CONF_MAX_NODE_ID },
  { SEC_DOMAIN, "site", T_NAME, N (site) },
  { SEC_DOMAIN, "role", T_WORD, N (role), .required = true, .words = role_words },
  { SEC_DOMAIN, "votes", T_NUMBER, N (votes), .min = 0, .max = CONF_MAX_VOTES },
  { SEC_DOMAIN, "order", T_NUMBER, N (order), .min = 0, .max = CRG_MAX_NODES - 1 },
  { SEC_DOMAIN, "address", T_ADDRESSES, N (addresses), .required = true },

  { SEC_IASP, "size", T_SIZE, I (size) },
  { SEC_IASP, "block-size", T_SIZE, I (block_size) },
  { SEC_IASP, "export", T_EXPORT, I (export) },
  { SEC_IASP, "tls", T_ONOFF, I (tls) },
  { SEC_IASP, "snapshot-before-resync", T_ONOFF, I (snapshot) },
  { SEC_IASP, "mirror-port", T_NUMBER, I (mirror_port), .min = 1, .max = 65535 },
  { SEC_IASP, "store", T_STORE, I (store) },
  { SEC_IASP, "meta", T_STORE, I (meta) },
  { SEC_IASP, "order", T_NAMES, I (order) },

  { SEC_SCRIPT, "agent", T_PATH, I (agent), .required = true },
  { SEC_SCRIPT, "timeout-ms", T_NUMBER, I (timeout_ms), .min = 100, .max = AGENT_TIMEOUT_MAX_MS },
  { SEC_SCRIPT, "order", T_NAMES, I (order) },
};

struct section_info {
  const char *name;
  bool named; /* [node p1] */
};

static const struct section_info sections[N_SECTIONS] = {
  [SEC_NODE] = { "node", false },  [SEC_ENGINE] = { "engine", false },
  [SEC_LEASE] = { "lease", false }, [SEC_CLIENT] = { "client", false },
  [SEC_CRG] = { "crg", false },
  [SEC_DOMAIN] = { "node", true },  [SEC_IASP] = { "iasp", true },
  [SEC_SCRIPT] = { "script", true },
};

#define SECTIONS_CRGD (1u << SEC_NODE | 1u << SEC_ENGINE | 1u << SEC_LEASE | 1u << SEC_CLIENT)
#define SECTIONS_CRG (1u << SEC_CRG | 1u << SEC_DOMAIN | 1u << SEC_IASP | 1u << SEC_SCRIPT)

void
conf_print_keys (FILE *fp)
{
  size_t i;

  for (i = 0; i < ARRAY_SIZE (keys); i++)
    fprintf (fp, "%s%s %s\n", sections[keys[i].section].name,
             sections[keys[i].section].named ? "-NAME" : "", keys[i].name);
}

const char *
conf_strategy_name (uint32_t strategy)
{
  return strategy < ARRAY_SIZE (strategy_words) - 1 ? strategy_words[strategy] : "?";
}

const char *
conf_takeover_name (uint32_t takeover)
{
  return takeover < ARRAY_SIZE (takeover_words) - 1 ? takeover_words[takeover] : "?";
}

const char *
conf_store_error_name (uint32_t store_error)
{
  return store_error < ARRAY_SIZE (store_error_words) - 1 ? store_error_words[store_error] : "?";
}

const char *
conf_role_name (uint32_t role)
{
  return role < ARRAY_SIZE (role_words) - 1 ? role_words[role] : "?";
}

const char *
conf_engine_name (uint32_t engine)
{
  return engine < ARRAY_SIZE (engine_words) - 1 ? engine_words[engine] : "?";
}

uint32_t
conf_detection_ms (const struct conf_crgd *conf)
{
  if (conf->engine != CONF_ENGINE_LOCAL)
    return 0;
  return conf->token_ms; /* the hub drops a member that is silent for so long */
}

/* Levenshtein distance of two short words; CONF_MAX_LINE or so if they are not short. */
static unsigned
distance (const char *a, const char *b)
{
  unsigned row[33], i, j, diagonal, above;
  size_t la = strlen (a), lb = strlen (b);

  if (la > 32 || lb > 32)
    return CONF_MAX_LINE;
  for (j = 0; j <= lb; j++)
    row[j] = j;
  for (i = 1; i <= la; i++) {
    diagonal = row[0];
    row[0] = i;
    for (j = 1; j <= lb; j++) {
      above = row[j];
      diagonal += a[i - 1] != b[j - 1];
      row[j] = MIN (above, row[j - 1]) + 1;
      row[j] = MIN (row[j], diagonal);
      diagonal = above;
    }
  }
  return row[lb];
}

struct words {
  const char *word[64];
  unsigned n;
};

static void
words_add (struct words *w, const char *word)
{
  if (w->n < ARRAY_SIZE (w->word))
    w->word[w->n++] = word;
}

/* "did you mean 'x'?" or "allowed: a, b, c". */
static const char *
advise (const struct words *w, const char *given, char *buf, size_t len)
{
  unsigned i, d, best = 3, at = 0;
  size_t used;

  for (i = 0; i < w->n; i++) {
    d = distance (given, w->word[i]);
    if (d < best) {
      best = d;
      at = i;
    }
  }
  if (best < 3) {
    snprintf (buf, len, "did you mean '%s'?", w->word[at]);
    return buf;
  }
  snprintf (buf, len, "allowed: ");
  for (i = 0; i < w->n; i++) {
    used = strlen (buf);
    snprintf (buf + used, len - used, "%s%s", i ? ", " : "", w->word[i]);
  }
  return buf;
}

/* ---- files ------------------------------------------------------------------------------ */

/* What was read, for duplicates and for the lines of later errors. */
struct seen {
  enum conf_section section;
  unsigned index;
  const char *key; /* of the table, or NULL: the section's own line */
  char suffix[CRG_NAME_MAX + 1]; /* store.SUFFIX */
  char value[CRG_PATH_MAX + 1];  /* of a store */
  unsigned line;
};

struct reader {
  const char *file;
  unsigned allowed; /* bits of enum conf_section */
  struct conf_crgd *crgd;
  struct conf_crg *crg;
  char *err;
  size_t errlen;
  /* the section being read */
  enum conf_section section;
  unsigned index;
  bool in_section;
  unsigned n_seen;
  struct seen seen[CONF_MAX_ENTRIES];
};

UTIL_PRINTF (3, 4)
static int
fail (struct reader *r, unsigned line, const char *fmt, ...)
{
  va_list ap;
  int n;

  if (line)
    n = snprintf (r->err, r->errlen, "%s:%u: ", r->file, line);
  else
    n = snprintf (r->err, r->errlen, "%s: ", r->file);
  if (n >= 0 && (size_t) n < r->errlen) {
    va_start (ap, fmt);
    vsnprintf (r->err + n, r->errlen - (size_t) n, fmt, ap);
    va_end (ap);
  }
  return -EINVAL;
}

static unsigned
find_line (const struct reader *r, enum conf_section section, unsigned index, const char *key)
{
  unsigned i, line = 0;

  for (i = 0; i < r->n_seen; i++) {
    const struct seen *s = &r->seen[i];

    if (s->section != section || s->index != index)
      continue;
    if (!s->key)
      line = s->line;
    else if (key && strcmp (s->key, key) == 0)
      return s->line;
  }
  return line;
}

static struct seen *
remember (struct reader *r, const char *key, unsigned line)
{
  struct seen *s;

  if (r->n_seen == CONF_MAX_ENTRIES) {
    fail (r, line, "more than %d lines with content", CONF_MAX_ENTRIES);
    return NULL;
  }
  s = &r->seen[r->n_seen++];
  memset (s, 0, sizeof *s);
  s->section = r->section;
  s->index = r->index;
  s->key = key;
  s->line = line;
  return s;
}

/* "[iasp payroll]" */
static const char *
section_text (const struct reader *r, char *buf, size_t len)
{
  const char *name = "";

  if (r->section == SEC_DOMAIN)
    name = r->crg->nodes[r->index].name;
  else if (r->section == SEC_IASP || r->section == SEC_SCRIPT)
    name = r->crg->iasps[r->index].name;
  snprintf (buf, len, "[%s%s%s]", sections[r->section].name, *name ? " " : "", name);
  return buf;
}

static int
begin_section (struct reader *r, const struct ini_item *item)
{
  struct words w = { .n = 0 };
  char advice[CONF_ERR_MAX + 1];
  unsigned i, line;
  enum conf_section s;

  for (s = 0; s < N_SECTIONS; s++)
    if (r->allowed & 1u << s) {
      if (strcmp (sections[s].name, item->name) == 0)
        break;
      words_add (&w, sections[s].name);
    }
  if (s == N_SECTIONS)
    return fail (r, item->line, "unknown section [%s]; %s", item->name,
                 advise (&w, item->name, advice, sizeof advice));
  if (sections[s].named && !item->arg[0])
    return fail (r, item->line, "[%s] needs a name, as in [%s NAME]", item->name, item->name);
  if (!sections[s].named && item->arg[0])
    return fail (r, item->line, "[%s %s] takes no name here; write [%s]", item->name, item->arg,
                 item->name);
  if (sections[s].named && !ident_name_is_valid (item->arg))
    return fail (r, item->line, "bad %s name '%.100s'; allowed: 1 to %d of a-z 0-9 _ . -, beginning "
                 "with a letter or digit", s == SEC_IASP ? "IASP" : s == SEC_SCRIPT ? "script" : "node", item->arg, CRG_NAME_MAX);

  r->section = s;
  r->index = 0;
  if (s == SEC_DOMAIN) {
    for (i = 0; i < r->crg->n_nodes; i++)
      if (strcmp (r->crg->nodes[i].name, item->arg) == 0)
        return fail (r, item->line, "there are two [node %s]; the first is in line %u", item->arg,
                     find_line (r, SEC_DOMAIN, i, NULL));
    if (r->crg->n_nodes == CRG_MAX_NODES)
      return fail (r, item->line, "more than %d nodes", CRG_MAX_NODES);
    r->index = r->crg->n_nodes++;
    strcpy (r->crg->nodes[r->index].name, item->arg);
    r->crg->nodes[r->index].votes = 1;
  }
  else if (s == SEC_IASP || s == SEC_SCRIPT) {
    for (i = 0; i < r->crg->n_iasps; i++)
      if (strcmp (r->crg->iasps[i].name, item->arg) == 0) {
        enum conf_section first = r->crg->iasps[i].type == CONF_SCRIPT ? SEC_SCRIPT : SEC_IASP;

        return fail (r, item->line, "there are two [%s %s]; the first is in line %u",
                     sections[first].name, item->arg, find_line (r, first, i, NULL));
      }
    if (r->crg->n_iasps == CRG_MAX_IASPS)
      return fail (r, item->line, "more than %d IASPs and scripts", CRG_MAX_IASPS);
    r->index = r->crg->n_iasps++;
    strcpy (r->crg->iasps[r->index].name, item->arg);
    if (s == SEC_SCRIPT) {
      r->crg->iasps[r->index].type = CONF_SCRIPT;
      r->crg->iasps[r->index].timeout_ms = AGENT_TIMEOUT_MS;
      r->in_section = true;
      return remember (r, NULL, item->line) ? 0 : -EINVAL;
    }
    strcpy (r->crg->iasps[r->index].export, "unix:");
    r->crg->iasps[r->index].block_size = DIRTY_BLOCK_SIZE;
    r->crg->iasps[r->index].tls = true;
    r->crg->iasps[r->index].mirror_port = CONF_MIRROR_PORT + r->index;
  }
  else {
    line = find_line (r, s, 0, NULL);
    if (line)
      return fail (r, item->line, "there are two [%s]; the first is in line %u", item->name, line);
  }
  r->in_section = true;
  return remember (r, NULL, item->line) ? 0 : -EINVAL;
}

static int
set_addresses (struct reader *r, struct conf_node *n, const struct ini_item *item)
{
  char value[CONF_MAX_LINE + 1], *save = NULL, *word;

  snprintf (value, sizeof value, "%s", item->arg);
  for (word = strtok_r (value, ", \t", &save); word; word = strtok_r (NULL, ", \t", &save)) {
    if (n->n_addresses == CRG_MAX_ADDRS)
      return fail (r, item->line, "node '%s' has more than %d addresses", n->name, CRG_MAX_ADDRS);
    if (strlen (word) > CRG_ADDR_MAX)
      return fail (r, item->line, "address '%.80s' is too long", word);
    strcpy (n->addresses[n->n_addresses++], word);
  }
  return 0;
}

static int
set_order (struct reader *r, struct conf_iasp *s, const struct ini_item *item)
{
  char value[CONF_MAX_LINE + 1], *save = NULL, *word;

  snprintf (value, sizeof value, "%s", item->arg);
  for (word = strtok_r (value, ", \t", &save); word; word = strtok_r (NULL, ", \t", &save)) {
    if (s->n_order == CRG_MAX_NODES)
      return fail (r, item->line, "order of '%s' has more than %d nodes", s->name, CRG_MAX_NODES);
    if (!ident_name_is_valid (word))
      return fail (r, item->line, "bad node name '%.100s' in the order of '%s'", word, s->name);
    strcpy (s->order[s->n_order++], word);
  }
  return 0;
}

static int
set_value (struct reader *r, const struct key *k, const struct ini_item *item, void *base)
{
  char *field = (char *) base + k->offset;
  char advice[CONF_ERR_MAX + 1], where[CRG_NAME_MAX + 16];
  struct words w = { .n = 0 };
  const char *error;
  uint64_t value = 0;
  unsigned i;

  section_text (r, where, sizeof where);
  switch (k->type) {
  case T_NAME:
    if (!ident_name_is_valid (item->arg))
      return fail (r, item->line, "bad %s '%.100s' in %s; allowed: 1 to %d of a-z 0-9 _ . -, "
                   "beginning with a letter or digit", k->name, item->arg, where, CRG_NAME_MAX);
    strcpy (field, item->arg);
    return 0;
  case T_PATH:
    error = conf_path_error (item->arg);
    if (error)
      return fail (r, item->line, "%s '%.300s' in %s %s", k->name, item->arg, where, error);
    strcpy (field, item->arg);
    return 0;
  case T_NUMBER:
    if (conf_parse_number (item->arg, &value) < 0 || value < k->min || value > k->max)
      return fail (r, item->line, "bad %s '%.100s' in %s; allowed: a number from %" PRIu64
                   " to %" PRIu64, k->name, item->arg, where, k->min, k->max);
    memcpy (field, &(uint32_t){ (uint32_t) value }, sizeof (uint32_t));
    return 0;
  case T_SIZE:
    if (conf_parse_size (item->arg, &value) < 0 || value == 0
        || (k->offset == I (block_size) && value > UINT32_MAX))
      return fail (r, item->line, "bad %s '%.100s' in %s; allowed: bytes with a suffix K, M, G or T, "
                   "as in 64K or 1G", k->name, item->arg, where);
    if (k->offset == I (block_size))
      ((struct conf_iasp *) base)->block_size = (uint32_t) value;
    else
      ((struct conf_iasp *) base)->size = value;
    return 0;
  case T_WORD:
    for (i = 0; k->words[i]; i++) {
      if (strcmp (k->words[i], item->arg) == 0) {
        memcpy (field, &(uint32_t){ i }, sizeof (uint32_t));
        return 0;
      }
      words_add (&w, k->words[i]);
    }
    return fail (r, item->line, "bad %s '%.100s' in %s; %s", k->name, item->arg, where,
                 advise (&w, item->arg, advice, sizeof advice));
  case T_ONOFF:
    if (strcmp (item->arg, "on") != 0 && strcmp (item->arg, "off") != 0)
      return fail (r, item->line, "bad %s '%.100s' in %s; allowed: on, off", k->name, item->arg,
                   where);
    *(bool *) field = strcmp (item->arg, "on") == 0;
    return 0;
  case T_NAMES:
    return set_order (r, base, item);
  case T_ADDRESSES:
    return set_addresses (r, base, item);
  case T_EXPORT:
    if (strlen (item->arg) > CRG_PATH_MAX)
      return fail (r, item->line, "export in %s is longer than %d bytes", where, CRG_PATH_MAX);
    strcpy (field, item->arg);
    return 0;
  case T_LISTEN:
    error = conf_parse_listen (item->arg, r->crgd->client_address, &r->crgd->client_port);
    if (error)
      return fail (r, item->line, "%s '%.300s' in %s %s; allowed: :PORT, ADDRESS:PORT (an IPv6 address in [])",
                   k->name, item->arg, where, error);
    return 0;
  case T_STORE:
    error = conf_path_error (item->arg);
    if (error)
      return fail (r, item->line, "%s '%.300s' in %s %s", item->name, item->arg, where, error);
    return 0; /* kept in 'seen': nodes may come later in the file */
  }
  return 0;
}

static int
read_key (struct reader *r, const struct ini_item *item)
{
  char advice[CONF_ERR_MAX + 1], where[CRG_NAME_MAX + 16], name[CONF_MAX_LINE + 1];
  const char *suffix = "";
  struct words w = { .n = 0 };
  const struct key *k = NULL;
  struct seen *seen;
  unsigned i;
  void *base;
  char *dot;

  if (!r->in_section)
    return fail (r, item->line, "'%.100s' stands before the first section; the file begins with [%s]",
                 item->name, r->crg ? "crg" : "node");
  section_text (r, where, sizeof where);
  snprintf (name, sizeof name, "%s", item->name);
  dot = strchr (name, '.');
  if (dot)
    *dot++ = '\0';
  for (i = 0; i < ARRAY_SIZE (keys); i++)
    if (keys[i].section == r->section) {
      if (strcmp (keys[i].name, name) == 0 && (!dot || keys[i].type == T_STORE))
        k = &keys[i];
      words_add (&w, keys[i].name);
    }
  if (!k)
    return fail (r, item->line, "unknown key '%.100s' in %s; %s", item->name, where,
                 advise (&w, name, advice, sizeof advice));
  if (dot) {
    suffix = dot;
    if (!ident_name_is_valid (suffix))
      return fail (r, item->line, "bad name in '%.100s' in %s; write %s.NODE or %s.SITE",
                   item->name, where, k->name, k->name);
  }
  for (i = 0; i < r->n_seen; i++) {
    const struct seen *s = &r->seen[i];

    if (s->section == r->section && s->index == r->index && s->key && strcmp (s->key, k->name) == 0
        && strcmp (s->suffix, suffix) == 0)
      return fail (r, item->line, "'%s' is given twice in %s; first in line %u", item->name, where,
                   s->line);
  }
  if (!item->arg[0])
    return fail (r, item->line, "'%s' in %s has no value", item->name, where);

  base = r->crgd;
  if (r->section == SEC_CRG)
    base = r->crg;
  else if (r->section == SEC_DOMAIN)
    base = &r->crg->nodes[r->index];
  else if (r->section == SEC_IASP || r->section == SEC_SCRIPT)
    base = &r->crg->iasps[r->index];
  if (set_value (r, k, item, base) < 0)
    return -EINVAL;
  seen = remember (r, k->name, item->line);
  if (!seen)
    return -EINVAL;
  strcpy (seen->suffix, suffix);
  if (k->type == T_STORE)
    strcpy (seen->value, item->arg); /* conf_path_error bounded it */
  return 0;
}

/* Every required key of every section that is there. */
static int
check_required (struct reader *r)
{
  char where[CRG_NAME_MAX + 16];
  unsigned i, j, n, index;
  size_t k;

  n = r->n_seen;
  for (i = 0; i < n; i++) {
    if (r->seen[i].key)
      continue;
    for (k = 0; k < ARRAY_SIZE (keys); k++) {
      if (!keys[k].required || keys[k].section != r->seen[i].section)
        continue;
      index = r->seen[i].index;
      for (j = 0; j < n; j++)
        if (r->seen[j].section == keys[k].section && r->seen[j].index == index && r->seen[j].key
            && strcmp (r->seen[j].key, keys[k].name) == 0)
          break;
      if (j == n) {
        r->section = keys[k].section;
        r->index = index;
        return fail (r, r->seen[i].line, "%s has no '%s'; it is required",
                     section_text (r, where, sizeof where), keys[k].name);
      }
    }
  }
  return 0;
}

static int
read_items (struct reader *r, char *text, size_t len)
{
  struct ini_cursor cursor;
  struct ini_item item;
  int rc;

  ini_init (&cursor, text, len);
  for (;;) {
    switch (ini_next (&cursor, &item)) {
    case INI_END:
      return check_required (r);
    case INI_BAD:
      return fail (r, item.line, "%s", item.error);
    case INI_SECTION:
      rc = begin_section (r, &item);
      break;
    case INI_KEY:
      rc = read_key (r, &item);
      break;
    }
    if (rc < 0)
      return rc;
  }
}

/* Backup order: as numbered, else the primary first, then as they appear. */
static int
resolve_order (struct reader *r)
{
  struct conf_crg *c = r->crg;
  unsigned i, next = 1, given = 0, line[CRG_MAX_NODES] = { 0 };

  for (i = 0; i < r->n_seen; i++)
    if (r->seen[i].section == SEC_DOMAIN && r->seen[i].key && strcmp (r->seen[i].key, "order") == 0) {
      line[r->seen[i].index] = r->seen[i].line;
      given = given ? given : r->seen[i].line;
    }
  for (i = 0; i < c->n_nodes; i++) {
    const struct conf_node *n = &c->nodes[i];

    if (line[i] && !conf_can_host (n))
      return fail (r, line[i], "%s '%s' has no place in the backup order; remove 'order'",
                   conf_role_name (n->role), n->name);
  }
  for (i = 0; i < c->n_nodes; i++) {
    const struct conf_node *n = &c->nodes[i];

    if (given && !line[i] && conf_can_host (n))
      return fail (r, find_line (r, SEC_DOMAIN, i, NULL), "node '%s' has no 'order', but others have "
                   "(line %u); give it to all that can host, or to none", n->name, given);
    if (!given && conf_can_host (n))
      c->nodes[i].order = n->role == CONF_PRIMARY ? 0 : next++;
  }
  return 0;
}

/* store.NODE, then store.SITE, then store; and so meta. */
static int
resolve_stores (struct reader *r, const char *key)
{
  const bool is_meta = strcmp (key, "meta") == 0;
  struct conf_crg *c = r->crg;
  unsigned i, j, rank, best[CRG_MAX_IASPS][CRG_MAX_NODES];
  char advice[CONF_ERR_MAX + 1];
  bool is_node, is_site;
  struct words w;

  memset (best, 0, sizeof best);
  for (i = 0; i < r->n_seen; i++) {
    const struct seen *s = &r->seen[i];

    if (s->section != SEC_IASP || !s->key || strcmp (s->key, key) != 0)
      continue;
    is_node = is_site = false;
    w.n = 0;
    for (j = 0; j < c->n_nodes; j++) {
      is_node |= strcmp (s->suffix, c->nodes[j].name) == 0;
      is_site |= strcmp (s->suffix, c->nodes[j].site) == 0;
      words_add (&w, c->nodes[j].name);
    }
    for (j = 0; j < c->n_nodes; j++)
      if (c->nodes[j].site[0] && (j == 0 || !conf_same_site (&c->nodes[j], &c->nodes[j - 1])))
        words_add (&w, c->nodes[j].site);
    if (s->suffix[0] && !is_node && !is_site)
      return fail (r, s->line, "'%s.%s' names neither a node nor a site; %s", key, s->suffix,
                   advise (&w, s->suffix, advice, sizeof advice));
    if (s->suffix[0] && is_node && is_site)
      return fail (r, s->line, "'%s.%s' names a node and a site; rename one of them", key, s->suffix);
    for (j = 0; j < c->n_nodes; j++) {
      if (!conf_can_host (&c->nodes[j])) {
        if (s->suffix[0] && strcmp (s->suffix, c->nodes[j].name) == 0)
          return fail (r, s->line, "'%s.%s': %s '%s' never hosts a copy", key, s->suffix,
                       conf_role_name (c->nodes[j].role), c->nodes[j].name);
        continue;
      }
      rank = !s->suffix[0] ? 1
             : strcmp (s->suffix, c->nodes[j].name) == 0 ? 3
             : strcmp (s->suffix, c->nodes[j].site) == 0 ? 2
                                                         : 0;
      if (rank > best[s->index][j]) {
        best[s->index][j] = rank;
        strcpy (is_meta ? c->iasps[s->index].meta[j] : c->iasps[s->index].store[j], s->value);
      }
    }
  }
  return 0;
}

static struct reader *
reader_new (const char *file, char *err, size_t errlen)
{
  struct reader *r = calloc (1, sizeof *r);

  if (!r) {
    snprintf (err, errlen, "%s: out of memory", file);
    return NULL;
  }
  r->file = file;
  r->err = err;
  r->errlen = errlen;
  return r;
}

/* A key of the other engine would be without effect, and the user would not know. */
static int
check_engine_keys (struct reader *r)
{
  static const char *const of_local[] = { "socket", "token-ms", NULL };
  static const char *const of_corosync[] = { "group-prefix", NULL };
  const struct conf_crgd *c = r->crgd;
  bool local = c->engine == CONF_ENGINE_LOCAL;
  const char *const *other = local ? of_corosync : of_local;
  unsigned line;

  for (; *other; other++)
    if ((line = find_line (r, SEC_ENGINE, 0, *other)) != find_line (r, SEC_ENGINE, 0, NULL))
      return fail (r, line, "'%s' is not for the engine '%s'%s", *other,
                   conf_engine_name (c->engine),
                   local ? "" : "; corosync's sockets and timers are set in corosync.conf");
  if (strlen (c->group_prefix) > COROSYNC_PREFIX_MAX)
    return fail (r, find_line (r, SEC_ENGINE, 0, "group-prefix"),
                 "group-prefix '%s' is longer than %d bytes", c->group_prefix, COROSYNC_PREFIX_MAX);
  return 0;
}

static int
parse_crgd (struct reader *r, char *text, size_t len)
{
  struct conf_crgd *c = r->crgd;

  memset (c, 0, sizeof *c);
  strcpy (c->state_dir, "/var/lib/nbd-crg");
  strcpy (c->run_dir, "/run/nbd-crg");
  strcpy (c->tls_dir, SYSCONFDIR "/nbd-crg/pki");
  strcpy (c->hooks_dir, SYSCONFDIR "/nbd-crg/hooks.d");
  strcpy (c->engine_socket, "/run/nbd-crg/hub.sock");
  c->token_ms = 1000;
  c->lease_ms = 3000;
  c->threads = PLUGIN_THREADS;
  c->hook_timeout_ms = 30000;
  c->fence_timeout_ms = 60000;
  c->start_wait_ms = 60000;
  r->allowed = SECTIONS_CRGD;
  if (read_items (r, text, len) < 0)
    return -EINVAL;
  if (!find_line (r, SEC_NODE, 0, NULL))
    return fail (r, 0, "there is no [node] section; it gives at least 'name'");
  if (strlen (c->run_dir) + strlen ("/crgd.sock") > CRG_SOCK_PATH_MAX)
    return fail (r, find_line (r, SEC_NODE, 0, "run-dir"), "run-dir '%s' is too long for the sockets "
                 "in it; allowed: %d bytes", c->run_dir,
                 CRG_SOCK_PATH_MAX - (int) strlen ("/crgd.sock"));
  if (strlen (c->engine_socket) > CRG_SOCK_PATH_MAX)
    return fail (r, find_line (r, SEC_ENGINE, 0, "socket"), "socket '%s' is longer than %d bytes",
                 c->engine_socket, CRG_SOCK_PATH_MAX);
  if (check_engine_keys (r) < 0)
    return -EINVAL;
  if (strcmp (c->state_dir, c->run_dir) == 0)
    return fail (r, find_line (r, SEC_NODE, 0, "run-dir"), "run-dir and state-dir are both '%s'; what "
                 "is in state-dir must survive a restart of the machine", c->run_dir);
  if ((uint64_t) c->lease_ms * 4 < (uint64_t) conf_detection_ms (c) * 5)
    return fail (r, find_line (r, SEC_LEASE, 0, "lease-ms"), "lease-ms %" PRIu32 " is too short for "
                 "token-ms %" PRIu32 " (L1); allowed: at least %" PRIu64 ", which is 1.25 x the time "
                 "in which a death is seen", c->lease_ms, c->token_ms,
                 ((uint64_t) conf_detection_ms (c) * 5 + 3) / 4);
  return 0;
}

static int
parse_crg (struct reader *r, char *text, size_t len)
{
  struct conf_crg *c = r->crg;
  struct conf_place pl;

  memset (c, 0, sizeof *c);
  c->suspend_timeout_ms = 10000;
  c->resync_share = RESYNC_SHARE;
  r->allowed = SECTIONS_CRG;
  if (read_items (r, text, len) < 0)
    return -EINVAL;
  if (!find_line (r, SEC_CRG, 0, NULL))
    return fail (r, 0, "there is no [crg] section; it gives at least 'name'");
  if (resolve_order (r) < 0)
    return -EINVAL;
  /* A store is given by node or site, so these come first. */
  if (conf_check_group (c, &pl) < 0)
    return fail (r, find_line (r, pl.section, pl.index, pl.key), "%s", pl.text);
  if (resolve_stores (r, "store") < 0 || resolve_stores (r, "meta") < 0)
    return -EINVAL;
  if (conf_check_definition (c, &pl) < 0)
    return fail (r, find_line (r, pl.section, pl.index, pl.key), "%s", pl.text);
  return 0;
}

int
conf_parse_crgd (const char *file, char *text, size_t len, struct conf_crgd *conf, char *err,
                 size_t errlen)
{
  CLEANUP_FREE struct reader *r = reader_new (file, err, errlen);

  if (!r)
    return -ENOMEM;
  r->crgd = conf;
  return parse_crgd (r, text, len);
}

int
conf_parse_crg (const char *file, char *text, size_t len, struct conf_crg *conf, char *err,
                size_t errlen)
{
  CLEANUP_FREE struct reader *r = reader_new (file, err, errlen);

  if (!r)
    return -ENOMEM;
  r->crg = conf;
  return parse_crg (r, text, len);
}

/* The whole file and a NUL, or NULL with -errno in *rc. */
static char *
read_file (const char *path, size_t *len, int *rc, char *err, size_t errlen)
{
  CLEANUP_CLOSE int fd = open (path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
  CLEANUP_FREE char *text = NULL;
  struct stat st;
  char *result;
  ssize_t n;

  if (fd < 0 || fstat (fd, &st) < 0) {
    *rc = -errno;
    snprintf (err, errlen, "%s: %s", path, strerror (errno));
    return NULL;
  }
  if ((!S_ISREG (st.st_mode) && !S_ISFIFO (st.st_mode)) || fcntl (fd, F_SETFL, 0) < 0) {
    *rc = -EINVAL;
    snprintf (err, errlen, "%s: not a file", path);
    return NULL;
  }
  text = malloc (CONF_MAX_FILE + 2);
  if (!text) {
    *rc = -ENOMEM;
    snprintf (err, errlen, "%s: out of memory", path);
    return NULL;
  }
  for (*len = 0; *len <= CONF_MAX_FILE; *len += (size_t) n) {
    n = read (fd, text + *len, CONF_MAX_FILE + 1 - *len);
    if (n < 0 && errno == EINTR)
      n = 0;
    else if (n < 0) {
      *rc = -errno;
      snprintf (err, errlen, "%s: %s", path, strerror (errno));
      return NULL;
    }
    else if (n == 0)
      break;
  }
  if (*len > CONF_MAX_FILE) {
    *rc = -EFBIG;
    snprintf (err, errlen, "%s: longer than %d bytes; is this a configuration file?", path,
              CONF_MAX_FILE);
    return NULL;
  }
  text[*len] = '\0';
  *rc = 0;
  result = text;
  text = NULL;
  return result;
}

int
conf_read_crgd (const char *path, struct conf_crgd *conf, char *err, size_t errlen)
{
  CLEANUP_FREE char *text = NULL;
  size_t len;
  int rc;

  text = read_file (path, &len, &rc, err, errlen);
  return text ? conf_parse_crgd (path, text, len, conf, err, errlen) : rc;
}

int
conf_read_crg (const char *path, struct conf_crg *conf, char *err, size_t errlen)
{
  CLEANUP_FREE char *text = NULL;
  size_t len;
  int rc;

  text = read_file (path, &len, &rc, err, errlen);
  return text ? conf_parse_crg (path, text, len, conf, err, errlen) : rc;
}
