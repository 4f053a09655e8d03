/* SPDX-License-Identifier: BSD-3-Clause */
/* The rules that a definition has to keep, whichever way it came: names, ids, votes, sites,
 * addresses, ports, stores.  Each refusal says what is wrong and where, so that the reader of a
 * file (conf.c) can add the line.  Pure but for inet_pton.
 */
#include "config.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <string.h>

#include "common/conf_private.h"
#include "common/ident.h"
#include "common/util.h"

/* ---- what is wrong, and where ----------------------------------------------------------- */

UTIL_PRINTF (5, 6)
static int
wrong (struct conf_place *pl, enum conf_section section, unsigned index, const char *key, const char *fmt, ...)
{
  va_list ap;

  pl->section = section;
  pl->index = index;
  pl->key = key;
  va_start (ap, fmt);
  vsnprintf (pl->text, sizeof pl->text, fmt, ap);
  va_end (ap);
  return -EINVAL;
}

/* ---- values ----------------------------------------------------------------------------- */

int
conf_parse_number (const char *text, uint64_t *value)
{
  uint64_t v = 0;
  unsigned digit;

  if (!*text)
    return -EINVAL;
  for (; *text; text++) {
    if (*text < '0' || *text > '9')
      return -EINVAL;
    digit = (unsigned) (*text - '0');
    if (v > (UINT64_MAX - digit) / 10)
      return -ERANGE;
    v = v * 10 + digit;
  }
  *value = v;
  return 0;
}

int
conf_parse_size (const char *text, uint64_t *bytes)
{
  static const char suffixes[] = "KMGT";
  char digits[24];
  size_t len = strlen (text);
  const char *s;
  unsigned shift = 0;
  int r;

  if (len > 0 && text[len - 1] && (s = strchr (suffixes, text[len - 1]))) {
    shift = 10 * (unsigned) (s - suffixes + 1);
    len--;
  }
  if (len == 0)
    return -EINVAL;
  if (len >= sizeof digits)
    return -ERANGE;
  memcpy (digits, text, len);
  digits[len] = '\0';
  r = conf_parse_number (digits, bytes);
  if (r < 0)
    return r;
  if (*bytes > UINT64_MAX >> shift)
    return -ERANGE;
  *bytes <<= shift;
  return 0;
}

/* An IPv4 or IPv6 address as people write it, the latter with an optional %scope. */
static const char *
address_error (const char *text)
{
  struct in6_addr six;
  struct in_addr four;
  char plain[CRG_ADDR_MAX + 1];
  char *scope;

  if (strlen (text) > CRG_ADDR_MAX)
    return "is too long";
  if (inet_pton (AF_INET, text, &four) == 1) {
    if (four.s_addr == htonl (INADDR_ANY))
      return "is the wildcard address; name the one the other nodes connect to";
    if ((ntohl (four.s_addr) >> 28) == 0xe)
      return "is a multicast address";
    return NULL;
  }
  strcpy (plain, text);
  scope = strchr (plain, '%');
  if (scope) {
    *scope++ = '\0';
    if (!*scope)
      return "has an empty scope";
  }
  if (inet_pton (AF_INET6, plain, &six) != 1)
    return "is neither an IPv4 nor an IPv6 address (host names are not allowed here)";
  if (IN6_IS_ADDR_UNSPECIFIED (&six))
    return "is the wildcard address; name the one the other nodes connect to";
  if (IN6_IS_ADDR_MULTICAST (&six))
    return "is a multicast address";
  return NULL;
}

static bool
is_loopback (const char *address)
{
  struct in_addr four;

  if (inet_pton (AF_INET, address, &four) == 1)
    return ntohl (four.s_addr) >> 24 == 127;
  return strcmp (address, "::1") == 0;
}

const char *
conf_path_error (const char *text)
{
  if (text[0] != '/')
    return "is not an absolute path";
  if (strlen (text) > CRG_PATH_MAX)
    return "is longer than 255 bytes";
  for (; *text; text++)
    if ((unsigned char) *text < ' ')
      return "holds a control character";
  return NULL;
}

#define PLACE_SEPARATOR '\n' /* in no path, see above */

void
conf_join_store (const char *store, const char *meta, char place[CRG_PATH_MAX + 1])
{
  if (meta[0])
    snprintf (place, CRG_PATH_MAX + 1, "%s%c%s", store, PLACE_SEPARATOR, meta);
  else
    snprintf (place, CRG_PATH_MAX + 1, "%s", store);
}

void
conf_split_store (const char *place, char store[CRG_PATH_MAX + 1], char meta[CRG_PATH_MAX + 1])
{
  const char *end = strchr (place, PLACE_SEPARATOR);

  snprintf (store, CRG_PATH_MAX + 1, "%.*s", end ? (int) (end - place) : CRG_PATH_MAX, place);
  snprintf (meta, CRG_PATH_MAX + 1, "%s", end ? end + 1 : "");
}

/* Splits ADDR:PORT.  'address' becomes "" for :PORT. */
static int
split_address (const char *begin, char address[CRG_ADDR_MAX + 1], uint64_t *port)
{
  const char *colon;
  size_t len;

  colon = strrchr (begin, ':');
  if (!colon)
    return -EINVAL;
  len = (size_t) (colon - begin);
  if (begin[0] == '[' && len >= 2 && begin[len - 1] == ']') {
    begin++;
    len -= 2;
  }
  else if (memchr (begin, ':', len))
    return -EINVAL;
  if (len > CRG_ADDR_MAX)
    return -EINVAL;
  memcpy (address, begin, len);
  address[len] = '\0';
  if (conf_parse_number (colon + 1, port) < 0 || *port < 1 || *port > 65535)
    return -ERANGE;
  return 0;
}

static int
split_tcp (const char *export, char address[CRG_ADDR_MAX + 1], uint64_t *port)
{
  return strncmp (export, "tcp:", 4) == 0 ? split_address (export + 4, address, port) : -EINVAL;
}

const char *
conf_parse_listen (const char *text, char address[CRG_ADDR_MAX + 1], uint32_t *port)
{
  const char *error;
  uint64_t v = 0;
  int r = split_address (text, address, &v);

  if (r == -ERANGE)
    return "has no port from 1 to 65535";
  if (r < 0)
    return "is not of a known form";
  *port = (uint32_t) v;
  error = address[0] ? address_error (address) : NULL;
  return error ? "has no IPv4 or IPv6 address of this node" : NULL;
}

#define EXPORT_FORMS "unix:, unix:/PATH, tcp::PORT, tcp:ADDRESS:PORT (an IPv6 address in [])"

static int
check_export (struct conf_place *pl, unsigned index, const char *text)
{
  char address[CRG_ADDR_MAX + 1];
  const char *error;
  uint64_t port;
  int r;

  if (strlen (text) > CRG_PATH_MAX)
    return wrong (pl, SEC_IASP, index, "export", "export is longer than %d bytes", CRG_PATH_MAX);
  if (strcmp (text, "unix:") == 0)
    return 0;
  if (strncmp (text, "unix:", 5) == 0) {
    error = conf_path_error (text + 5);
    if (!error && strlen (text + 5) > CRG_SOCK_PATH_MAX)
      error = "is longer than a socket's path can be (107 bytes)";
    if (error)
      return wrong (pl, SEC_IASP, index, "export", "export '%s': the socket %s", text, error);
    return 0;
  }
  r = split_tcp (text, address, &port);
  if (r == -ERANGE)
    return wrong (pl, SEC_IASP, index, "export", "export '%s': a port is a number from 1 to 65535",
                  text);
  if (r < 0)
    return wrong (pl, SEC_IASP, index, "export", "export '%s' is not of a known form; allowed: %s",
                  text, EXPORT_FORMS);
  if (address[0] && (error = address_error (address)))
    return wrong (pl, SEC_IASP, index, "export", "export '%s': the address %s", text, error);
  return 0;
}

/* ---- the whole definition --------------------------------------------------------------- */

bool
conf_can_host (const struct conf_node *n)
{
  return n->role == CONF_PRIMARY || n->role == CONF_BACKUP;
}

UTIL_PRINTF (2, 3)
static void
warn (struct conf_crg *c, const char *fmt, ...)
{
  va_list ap;

  if (c->n_warnings == CONF_MAX_WARNINGS)
    return;
  va_start (ap, fmt);
  vsnprintf (c->warnings[c->n_warnings++], CONF_ERR_MAX + 1, fmt, ap);
  va_end (ap);
}

static int
check_node (struct conf_crg *c, unsigned i, struct conf_place *pl)
{
  const struct conf_node *n = &c->nodes[i], *m;
  const char *error;
  unsigned a, b, j;

  if (!ident_name_is_valid (n->name))
    return wrong (pl, SEC_DOMAIN, i, NULL, "bad node name '%s'; allowed: 1 to %d of a-z 0-9 _ . -, "
                  "beginning with a letter or digit", n->name, CRG_NAME_MAX);
  if (n->id < 1 || n->id > CONF_MAX_NODE_ID)
    return wrong (pl, SEC_DOMAIN, i, "id", "id %" PRIu32 " of node '%s'; allowed: 1 to %d", n->id,
                  n->name, CONF_MAX_NODE_ID);
  if (n->votes > CONF_MAX_VOTES)
    return wrong (pl, SEC_DOMAIN, i, "votes", "node '%s' has %" PRIu32 " votes; allowed: 0 to %d",
                  n->name, n->votes, CONF_MAX_VOTES);
  if (n->role == CONF_REPLICATE && n->site[0])
    return wrong (pl, SEC_DOMAIN, i, "site", "replicate '%s' has a site; a replicate holds no copy: "
                  "remove 'site', or make it a backup or peer", n->name);
  if (n->role != CONF_REPLICATE && !n->site[0])
    return wrong (pl, SEC_DOMAIN, i, NULL, "%s '%s' has no site; add 'site = NAME', or make it a "
                  "replicate", conf_role_name (n->role), n->name);
  if (n->site[0] && !ident_name_is_valid (n->site))
    return wrong (pl, SEC_DOMAIN, i, "site", "bad site name '%s'; allowed: 1 to %d of a-z 0-9 _ . -, "
                  "beginning with a letter or digit", n->site, CRG_NAME_MAX);
  if (n->n_addresses < 1 || n->n_addresses > CRG_MAX_ADDRS)
    return wrong (pl, SEC_DOMAIN, i, "address", "node '%s' has %u addresses; allowed: 1 to %d",
                  n->name, n->n_addresses, CRG_MAX_ADDRS);
  for (a = 0; a < n->n_addresses; a++) {
    error = address_error (n->addresses[a]);
    if (error)
      return wrong (pl, SEC_DOMAIN, i, "address", "address '%s' of node '%s' %s", n->addresses[a],
                    n->name, error);
    for (j = 0; j <= i; j++)
      for (m = &c->nodes[j], b = 0; b < (j == i ? a : m->n_addresses); b++)
        if (strcmp (n->addresses[a], m->addresses[b]) == 0)
          return wrong (pl, SEC_DOMAIN, i, "address",
                        "address '%s' of node '%s' is already given to node '%s'", n->addresses[a],
                        n->name, m->name);
  }
  for (j = 0; j < i; j++) {
    m = &c->nodes[j];
    if (strcmp (n->name, m->name) == 0)
      return wrong (pl, SEC_DOMAIN, i, NULL, "there are two nodes '%s'; names are unique", n->name);
    if (n->id == m->id)
      return wrong (pl, SEC_DOMAIN, i, "id", "node '%s' has id %" PRIu32 ", which node '%s' has; ids "
                    "are unique", n->name, n->id, m->name);
    if (n->role == CONF_PRIMARY && m->role == CONF_PRIMARY)
      return wrong (pl, SEC_DOMAIN, i, "role", "nodes '%s' and '%s' are both primary; make one of "
                    "them a backup", m->name, n->name);
    if (conf_can_host (n) && conf_can_host (m) && n->order == m->order)
      return wrong (pl, SEC_DOMAIN, i, "order", "node '%s' has order %" PRIu32 ", which node '%s' "
                    "has; each place is given once", n->name, n->order, m->name);
  }
  return 0;
}

bool
conf_same_site (const struct conf_node *a, const struct conf_node *b)
{
  return strcmp (a->site, b->site) == 0;
}

/* Who votes, who can host. */
static int
check_domain (struct conf_crg *c, struct conf_place *pl)
{
  unsigned i, j, hosts, sites = 0, voters = 0, primaries = 0, total = 0, at_site;
  const struct conf_node *n, *p = NULL;

  for (i = 0; i < c->n_nodes; i++) {
    n = &c->nodes[i];
    total += n->votes;
    voters += n->votes > 0;
    if (n->role == CONF_PRIMARY) {
      primaries++;
      p = n;
    }
  }
  if (primaries == 0)
    return wrong (pl, SEC_CRG, 0, NULL, "no node is primary; give one of them 'role = primary'");
  if (total == 0)
    return wrong (pl, SEC_CRG, 0, NULL, "no node has a vote, so there is never a majority; give "
                  "votes to some");

  for (i = 0; i < c->n_nodes; i++) {
    n = &c->nodes[i];
    if (conf_can_host (n) && n->order < p->order)
      return wrong (pl, SEC_DOMAIN, i, "order", "node '%s' stands before the primary '%s' in the "
                    "backup order; the primary is the first", n->name, p->name);
    if (!n->site[0])
      continue;
    for (j = 0; j < i && !conf_same_site (&c->nodes[j], n); j++)
      ;
    if (j < i)
      continue; /* this site was looked at */
    if (++sites > CRG_MAX_SITES)
      return wrong (pl, SEC_DOMAIN, i, "site", "'%s' is one site too many; allowed: %d", n->site,
                    CRG_MAX_SITES);
    hosts = at_site = 0;
    for (j = i; j < c->n_nodes; j++)
      if (conf_same_site (&c->nodes[j], n)) {
        hosts += conf_can_host (&c->nodes[j]);
        at_site += c->nodes[j].votes;
      }
    if (hosts == 0)
      return wrong (pl, SEC_DOMAIN, i, "site", "site '%s' has no node that can host a copy; make one "
                    "of its nodes primary or backup", n->site);
    if (voters > 2 && at_site * 2 == total)
      warn (c, "site '%s' has exactly half of the %u votes: if it is lost, or cut off, the rest is no "
            "majority and service stops; make the number odd, best with a replicate at a third place",
            n->site, total);
  }
  if (sites == 1 && c->strategy == CONF_STRATEGY_SITE)
    warn (c, "all nodes are at one site, so there is one copy and no mirror; name a second site");
  if (voters == 2 && c->n_nodes == 2 && c->nodes[0].votes == c->nodes[1].votes)
    warn (c, "two nodes with equal votes: the loss of either stops service; give the preferred "
          "site's node 2 votes (it survives alone, the other does not), or add a replicate as a "
          "third vote (either survives)");
  return 0;
}

static int
check_ports (struct conf_crg *c, unsigned i, struct conf_place *pl)
{
  const struct conf_iasp *s = &c->iasps[i], *t;
  char a[CRG_ADDR_MAX + 1] = "", b[CRG_ADDR_MAX + 1] = "";
  uint64_t port_a = 0, port_b;
  unsigned j;

  if (s->mirror_port < 1 || s->mirror_port > 65535)
    return wrong (pl, SEC_IASP, i, "mirror-port", "mirror-port %" PRIu32 "; allowed: 1 to 65535",
                  s->mirror_port);
  split_tcp (s->export, a, &port_a);
  for (j = 0; j < c->n_iasps; j++) {
    t = &c->iasps[j];
    if (t->type != CONF_IASP)
      continue;
    if (j < i && s->mirror_port == t->mirror_port)
      return wrong (pl, SEC_IASP, i, "mirror-port", "mirror-port %" PRIu32 " is already that of IASP "
                    "'%s'; each needs its own", s->mirror_port, t->name);
    if (port_a && port_a == t->mirror_port)
      return wrong (pl, SEC_IASP, i, "export", "export '%s' has the mirror port of IASP '%s'; choose "
                    "another", s->export, t->name);
    port_b = 0;
    if (j < i && port_a && split_tcp (t->export, b, &port_b) == 0 && port_a == port_b
        && (!a[0] || !b[0] || strcmp (a, b) == 0))
      return wrong (pl, SEC_IASP, i, "export", "export '%s' has the port of IASP '%s'; choose another",
                    s->export, t->name);
    if (j < i && strncmp (s->export, "unix:/", 6) == 0 && strcmp (s->export, t->export) == 0)
      return wrong (pl, SEC_IASP, i, "export", "export '%s' is already that of IASP '%s'", s->export,
                    t->name);
  }
  return 0;
}

/* Where the metadata of node j's store is, if it is elsewhere. */
static int
check_meta (struct conf_crg *c, unsigned i, unsigned j, struct conf_place *pl)
{
  const struct conf_iasp *s = &c->iasps[i];
  const struct conf_node *n = &c->nodes[j], *m;
  const char *error, *meta = s->meta[j];
  unsigned k;

  if (!meta[0])
    return 0;
  if (!s->store[j][0])
    return wrong (pl, SEC_IASP, i, "meta", "IASP '%s' has a place for metadata on node '%s', and no store there",
                  s->name, n->name);
  error = conf_path_error (meta);
  if (error)
    return wrong (pl, SEC_IASP, i, "meta", "meta '%s' %s", meta, error);
  if (strlen (s->store[j]) + strlen (meta) > CRG_PATH_MAX - 1)
    return wrong (pl, SEC_IASP, i, "meta", "store and meta of IASP '%s' on node '%s' have more than %d bytes together",
                  s->name, n->name, CRG_PATH_MAX - 1);
  for (k = 0; k <= i; k++)
    if (c->iasps[k].type == CONF_IASP
        && (strcmp (meta, c->iasps[k].store[j]) == 0 || (k < i && strcmp (meta, c->iasps[k].meta[j]) == 0)))
      return wrong (pl, SEC_IASP, i, "meta", "meta '%s' on node '%s' is already used by IASP '%s'", meta, n->name,
                    c->iasps[k].name);
  for (k = 0; k < j; k++) {
    m = &c->nodes[k];
    if (!conf_same_site (n, m) && (strcmp (meta, s->meta[k]) == 0 || strcmp (meta, s->store[k]) == 0)
        && is_loopback (n->addresses[0]) && is_loopback (m->addresses[0]))
      return wrong (pl, SEC_IASP, i, "meta", "nodes '%s' and '%s' are at two sites on this machine (loopback "
                    "addresses) and share '%s'; give each site its own with 'meta.SITE = PATH'", m->name, n->name,
                    meta);
  }
  return 0;
}

static int
check_stores (struct conf_crg *c, unsigned i, struct conf_place *pl)
{
  const struct conf_iasp *s = &c->iasps[i];
  const struct conf_node *n, *m;
  const char *error;
  unsigned j, k;

  for (j = 0; j < c->n_nodes; j++) {
    n = &c->nodes[j];
    if (!conf_can_host (n)) {
      if (s->store[j][0])
        return wrong (pl, SEC_IASP, i, "store", "IASP '%s' has a store for %s '%s', which never hosts "
                      "a copy", s->name, conf_role_name (n->role), n->name);
      if (s->meta[j][0])
        return wrong (pl, SEC_IASP, i, "meta", "IASP '%s' has metadata for %s '%s', which never hosts a copy",
                      s->name, conf_role_name (n->role), n->name);
      continue;
    }
    if (!s->store[j][0] && c->strategy == CONF_STRATEGY_ACCESS && check_meta (c, i, j, pl) < 0)
      return -EINVAL;
    if (!s->store[j][0] && c->strategy == CONF_STRATEGY_ACCESS)
      continue; /* it has no access; see check_site_stores */
    if (!s->store[j][0])
      return wrong (pl, SEC_IASP, i, NULL, "IASP '%s' has no store on node '%s'; add 'store = PATH' "
                    "for all nodes, or 'store.%s = PATH'", s->name, n->name, n->name);
    error = conf_path_error (s->store[j]);
    if (error)
      return wrong (pl, SEC_IASP, i, "store", "store '%s' %s", s->store[j], error);
    if (check_meta (c, i, j, pl) < 0)
      return -EINVAL;
    for (k = 0; k < i; k++)
      if (c->iasps[k].type == CONF_IASP
          && (strcmp (s->store[j], c->iasps[k].store[j]) == 0 || strcmp (s->store[j], c->iasps[k].meta[j]) == 0))
        return wrong (pl, SEC_IASP, i, "store", "store '%s' on node '%s' is already that of IASP "
                      "'%s'", s->store[j], n->name, c->iasps[k].name);
    /* On one machine two sites with one path would be two copies in one file. */
    for (k = 0; k < j; k++) {
      m = &c->nodes[k];
      if (conf_can_host (m) && !conf_same_site (n, m) && strcmp (s->store[j], s->store[k]) == 0
          && is_loopback (n->addresses[0]) && is_loopback (m->addresses[0]))
        return wrong (pl, SEC_IASP, i, "store", "nodes '%s' and '%s' are at two sites on this machine "
                      "(loopback addresses) and share the store '%s'; give each site its own with "
                      "'store.SITE = PATH'", m->name, n->name, s->store[j]);
    }
  }
  return 0;
}

/* ACCESS: not every node reaches every store, but each site has its copy. */
static int
check_site_stores (struct conf_crg *c, unsigned i, struct conf_place *pl)
{
  for (unsigned j = 0; j < c->n_nodes; j++) {
    bool found = !c->nodes[j].site[0];

    for (unsigned k = 0; k < c->n_nodes; k++)
      found = found || (conf_same_site (&c->nodes[j], &c->nodes[k]) && c->iasps[i].store[k][0]);
    if (!found)
      return wrong (pl, SEC_IASP, i, NULL, "IASP '%s' has no store at site '%s'; add 'store.%s = PATH', "
                    "or 'store.NODE = PATH' for one of its nodes", c->iasps[i].name, c->nodes[j].site,
                    c->nodes[j].site);
  }
  return 0;
}

/* The backup order of one resource. */
static int
check_order (struct conf_crg *c, unsigned i, struct conf_place *pl)
{
  const struct conf_iasp *s = &c->iasps[i];
  enum conf_section section = s->type == CONF_SCRIPT ? SEC_SCRIPT : SEC_IASP;

  if (s->n_order > 0 && c->strategy != CONF_STRATEGY_ACCESS)
    return wrong (pl, section, i, "order", "'%s' has an order of its own, but all resources of this CRG "
                  "move together; say 'strategy = access' in [crg], or remove it", s->name);
  for (unsigned k = 0; k < s->n_order; k++) {
    unsigned n = 0;

    while (n < c->n_nodes && strcmp (c->nodes[n].name, s->order[k]) != 0)
      n++;
    if (n == c->n_nodes)
      return wrong (pl, section, i, "order", "order of '%s' names '%s', which is not a node", s->name,
                    s->order[k]);
    if (!conf_can_host (&c->nodes[n]))
      return wrong (pl, section, i, "order", "order of '%s' names %s '%s', which never hosts",
                    s->name, conf_role_name (c->nodes[n].role), s->order[k]);
    if (s->type == CONF_IASP && !s->store[n][0])
      return wrong (pl, section, i, "order", "order of '%s' names '%s', which has no store for it",
                    s->name, s->order[k]);
    for (unsigned l = 0; l < k; l++)
      if (strcmp (s->order[l], s->order[k]) == 0)
        return wrong (pl, section, i, "order", "order of '%s' names '%s' twice", s->name, s->order[k]);
  }
  return 0;
}

static int
check_script (struct conf_crg *c, unsigned i, struct conf_place *pl)
{
  const struct conf_iasp *s = &c->iasps[i];
  const char *error = conf_path_error (s->agent);

  if (error)
    return wrong (pl, SEC_SCRIPT, i, "agent", "agent '%s' %s", s->agent, error);
  if (s->timeout_ms < 100 || s->timeout_ms > AGENT_TIMEOUT_MAX_MS)
    return wrong (pl, SEC_SCRIPT, i, "timeout-ms", "timeout-ms %" PRIu32 "; allowed: 100 to %d",
                  s->timeout_ms, AGENT_TIMEOUT_MAX_MS);
  return 0;
}

static int
check_iasp (struct conf_crg *c, unsigned i, struct conf_place *pl)
{
  const struct conf_iasp *s = &c->iasps[i];
  unsigned j;
  int r;

  if (!ident_name_is_valid (s->name))
    return wrong (pl, SEC_IASP, i, NULL, "bad IASP name '%s'; allowed: 1 to %d of a-z 0-9 _ . -, "
                  "beginning with a letter or digit", s->name, CRG_NAME_MAX);
  for (j = 0; j < i; j++)
    if (strcmp (s->name, c->iasps[j].name) == 0)
      return wrong (pl, SEC_IASP, i, NULL, "there are two IASPs '%s'; names are unique", s->name);
  if (s->type == CONF_SCRIPT)
    return check_script (c, i, pl);
  if (s->size % META_BLOCK_SIZE != 0 || s->size > STORE_MAX_BYTES)
    return wrong (pl, SEC_IASP, i, "size", "size %" PRIu64 "; allowed: a multiple of %d bytes, at "
                  "most 1 EiB", s->size, META_BLOCK_SIZE);
  if (!is_power_of_2 (s->block_size) || s->block_size < DIRTY_BLOCK_SIZE_MIN
      || s->block_size > DIRTY_BLOCK_SIZE_MAX)
    return wrong (pl, SEC_IASP, i, "block-size", "block-size %" PRIu32 "; allowed: a power of two "
                  "from 4K to 1M", s->block_size);
  r = check_export (pl, i, s->export);
  if (r < 0)
    return r;
  r = check_ports (c, i, pl);
  if (r < 0)
    return r;
  r = check_stores (c, i, pl);
  return r < 0 || c->strategy != CONF_STRATEGY_ACCESS ? r : check_site_stores (c, i, pl);
}

/* All but the IASPs. */
int
conf_check_group (struct conf_crg *c, struct conf_place *pl)
{
  unsigned i;
  int r;

  c->n_warnings = 0;
  if (!ident_name_is_valid (c->name))
    return wrong (pl, SEC_CRG, 0, "name", "bad CRG name '%s'; allowed: 1 to %d of a-z 0-9 _ . -, "
                  "beginning with a letter or digit", c->name, CRG_NAME_MAX);
  if (c->n_nodes == 0)
    return wrong (pl, SEC_CRG, 0, NULL, "no [node NAME]; the recovery domain needs at least one");
  if (c->n_iasps == 0)
    return wrong (pl, SEC_CRG, 0, NULL, "no [iasp NAME] or [script NAME]; a CRG needs at least one");
  for (i = 0; i < c->n_nodes; i++) {
    r = check_node (c, i, pl);
    if (r < 0)
      return r;
  }
  return check_domain (c, pl);
}

int
conf_check_definition (struct conf_crg *c, struct conf_place *pl)
{
  unsigned i;
  int r = conf_check_group (c, pl);

  if (r < 0)
    return r;
  for (i = 0; i < c->n_iasps; i++) {
    r = check_iasp (c, i, pl);
    if (r == 0)
      r = check_order (c, i, pl);
    if (r < 0)
      return r;
  }
  return 0;
}

int
conf_check_crg (struct conf_crg *conf, char *err, size_t errlen)
{
  struct conf_place pl;

  if (conf_check_definition (conf, &pl) == 0)
    return 0;
  snprintf (err, errlen, "%s", pl.text);
  return -EINVAL;
}
