/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Composes the status of status.h.  What comes from another node is said to
 * be of that node and shown with its age; what is older than STATUS_STALE_MS
 * isn't shown as the present.
 */
#include "config.h"

#include "server/status.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/ident.h"
#include "common/jsonl.h"
#include "common/util-posix.h"
#include "server/agent.h"
#include "server/verify.h"

/* Three reports lost in a row. */
#define STATUS_STALE_MS (3 * PLUGIN_POLL_MS + 500)

static const struct {
  const char *from, *to;
} link_keys[] = {
  { "site", "site" },
  { "node", "node" },
  { "state", "state" },
  { "reason", "reason" },
  { "yields", "yields" },
  { "dirty_bytes", "dirty" },
  { "resync_done_bytes", "done" },
  { "resync_sent_bytes", "sent" },
  { "resync_equal_bytes", "equal" },
  { "resync_total_bytes", "total" },
  { "rate_bytes_s", "rate" },
  { "eta_s", "eta" },
  { "lag_ms", "lag" },
  { "since_ms", "since" },
};

static json_t *
report_links (json_t *status)
{
  json_t *links = json_object_get (status, "links"), *link, *list = json_array ();
  size_t i;

  json_array_foreach (links, i, link) {
    json_t *out = json_object ();

    for (unsigned k = 0; k < ARRAY_SIZE (link_keys); k++) {
      json_t *v = json_object_get (link, link_keys[k].from);

      if (v)
        json_object_set (out, link_keys[k].to, v);
    }
    json_array_append_new (list, out);
  }
  return list;
}

/* Waits of one IASP in a report; the second figure if it is too long else. */
#define REPORT_WAITS       8
#define REPORT_WAITS_SHORT 3

static void
report_waits (json_t *item, json_t *status, size_t most)
{
  json_t *waits = json_object_get (status, "waits"), *wait, *list = json_array ();
  size_t i;

  json_array_foreach (waits, i, wait) {
    if (i < most)
      json_array_append (list, wait);
  }
  json_object_set_new (item, "waits", list);
}

/* Of a copy: what is kept from before its resynchronisation. */
static void
report_snapshot (json_t *item, json_t *status)
{
  json_t *snapshot = json_object_get (json_object_get (status, "mirror"), "snapshot");
  const char *state = json_string_value (json_object_get (snapshot, "state"));

  if (state && strcmp (state, "off") != 0 && strcmp (state, "none") != 0)
    json_object_set (item, "snapshot", snapshot);
}

enum detail { BARE, WAITS, ALL };

/* With what waits and what a comparison found, or, if that is too much for one message, without. */
static char *
compose_report (const struct member *m, enum detail detail)
{
  const struct crg_state *s = member_state (m);
  json_t *list = json_array (), *root;
  char *text = NULL;

  for (unsigned i = 0; s && i < s->def.n_iasps; i++) {
    const struct plugin *p = member_plugin (m, i);
    enum host_role role = p ? plugin_role (p) : HOST_NONE;
    const char *trouble = p ? plugin_trouble (p) : "";
    char uri[3 * CRG_PATH_MAX];
    struct plugin_spec spec;
    json_t *status, *item;
    uint64_t age_ms;

    const struct agent *agent = member_agent (m, i);

    if (agent && (agent_is_alive (agent) || agent_trouble (agent)[0]))
      json_array_append_new (list, json_pack ("{s:i, s:i, s:b, s:i, s:o}", "iasp", (int) i, "role",
                                              (int) agent_role (agent), "served",
                                              agent_role (agent) == HOST_PRODUCTION, "pid", 0,
                                              "trouble", jsonl_string (agent_trouble (agent))));
    if (p == NULL || (!plugin_is_alive (p) && trouble[0] == '\0'))
      continue;
    status = plugin_last_status (p, &age_ms);
    item = json_pack ("{s:i, s:i, s:b, s:i, s:o}", "iasp", (int) i, "role", (int) role, "served",
                      plugin_is_served (p), "pid", (int) plugin_pid (p), "trouble", jsonl_string (trouble));
    /* Only the host knows its run directory. */
    if (plugin_is_served (p) && member_self (m) >= 0
        && member_spec (m, i, (unsigned) member_self (m), &spec) && spec.export_unix[0]) {
      plugin_spec_uri (&spec, uri, sizeof uri);
      json_object_set_new (item, "uri", jsonl_string (uri));
    }
    if (status) {
      json_t *reason = json_object_get (status, "hold_reason");

      json_object_set_new (item, "held", json_boolean (json_is_true (json_object_get (status, "held"))));
      if (json_is_string (reason))
        json_object_set (item, "hold_reason", reason);
      if (json_is_integer (json_object_get (status, "clients")))
        json_object_set (item, "clients", json_object_get (status, "clients"));
      json_object_set_new (item, "links", report_links (status));
      report_snapshot (item, status);
      if (json_is_object (json_object_get (status, "hot")))
        json_object_set (item, "hot_bytes", json_object_get (json_object_get (status, "hot"), "bytes"));
      if (detail > BARE) {
        json_t *verify = verify_report (status, detail == ALL);

        report_waits (item, status, detail == ALL ? REPORT_WAITS : REPORT_WAITS_SHORT);
        if (verify)
          json_object_set_new (item, "verify", verify);
      }
    }
    json_array_append_new (list, item);
  }
  root = json_pack ("{s:o}", "iasps", list);
  if (json_array_size (list) > 0)
    text = json_dumps (root, JSON_COMPACT);
  json_decref (root);
  return text;
}

char *
status_report (const struct member *m)
{
  char *text = compose_report (m, ALL);

  for (unsigned detail = ALL; detail > BARE && text && strlen (text) > GROUP_REPORT_MAX; detail--) {
    free (text);
    text = compose_report (m, detail - 1);
  }
  return text;
}

json_t *
status_find_report (const struct member *m, uint32_t node, unsigned iasp, uint64_t *age_ms)
{
  const struct crg_state *s = member_state (m);
  int self = member_self (m);
  json_t *root = NULL, *item, *found = NULL;
  size_t len, i;

  if (node == NO_NODE)
    return NULL;
  if (self >= 0 && s->def.nodes[self].id == node) {
    CLEANUP_FREE char *text = compose_report (m, ALL);

    *age_ms = 0;
    if (text)
      root = json_loads (text, 0, NULL);
  }
  else {
    const uint8_t *buf = group_report (member_group (m), node, clock_boottime_ms (), &len, age_ms);

    if (buf && *age_ms <= STATUS_STALE_MS)
      root = jsonl_parse ((const char *) buf, len, NULL);
  }
  json_array_foreach (json_object_get (root, "iasps"), i, item) {
    if (json_integer_value (json_object_get (item, "iasp")) == (json_int_t) iasp)
      found = json_incref (item);
  }
  json_decref (root);
  return found;
}

static const char *
name_of (const struct crg_state *s, uint32_t id)
{
  int i = state_node_index (s, id);

  return i < 0 ? NULL : s->def.nodes[i].name;
}

static json_t *
find_link (json_t *report, unsigned site)
{
  json_t *link;
  size_t i;

  json_array_foreach (json_object_get (report, "links"), i, link) {
    if (json_integer_value (json_object_get (link, "site")) == (json_int_t) site)
      return link;
  }
  return NULL;
}

static json_int_t
number (json_t *obj, const char *key)
{
  return json_integer_value (json_object_get (obj, key));
}

static json_t *
copy_json (const struct member *m, const struct crg_state *s, unsigned iasp, unsigned site,
           json_t *production)
{
  const struct iasp_rec *r = &s->rec[iasp];
  const struct copy_rec *c = &r->copies[site];
  const char *host = name_of (s, c->host);
  bool is_production = r->production_site == site;
  json_t *link = is_production ? NULL : find_link (production, site);
  const char *state = json_string_value (json_object_get (link, "state"));
  const char *why = json_string_value (json_object_get (link, "reason"));
  const struct group_host_status *said = c->host ? group_announced (member_group (m), c->host, iasp)
                                                 : NULL;
  static const char *const exports[DETACHED_END] = { "none", "read-only", "read-write" };
  static const char *const forks[FORK_END] = { "none", "behind", "diverged" };
  const char *data, *mirror = "-";
  char reason[2 * CRG_REASON_MAX + 8] = "";
  uint64_t age_ms;
  json_int_t dirty = number (link, "dirty"), done = number (link, "done"),
             total = number (link, "total");
  json_t *out;

  if (c->in_set)
    data = "in-sync";
  else if (c->since != 0 && said && said->store.restarted)
    data = "recovering"; /* R5 */
  else if (c->since == 0 || (state && strcmp (state, "resyncing") == 0)
           || (said && said->store.unusable))
    data = "unusable";
  else
    data = "usable";
  if (!is_production) {
    if (c->detached)
      mirror = "detached";
    else if (c->suspended)
      mirror = "suspended";
    else if (state)
      mirror = state;
    else if (s->started)
      mirror = "suspended";
  }
  if (c->suspended && !c->barred)
    snprintf (reason, sizeof reason, "suspended by an operator");
  else if (c->reason[0] && (c->barred || !(c->in_set || (state && strcmp (state, "resyncing") == 0))))
    snprintf (reason, sizeof reason, "%s", c->reason);
  else if (why)
    snprintf (reason, sizeof reason, "%s", why);
  else if (!is_production && s->started && c->host == NO_NODE)
    snprintf (reason, sizeof reason, "no node of site %s hosts it", s->def.sites[site]);
  else if (said && said->failed)
    snprintf (reason, sizeof reason, "%s", said->reason);
  else if (!is_production && s->started && production == NULL)
    snprintf (reason, sizeof reason, "no report from the production host");
  out = json_pack ("{s:s, s:s?, s:s, s:s, s:s, s:b, s:I, s:o}", "site", s->def.sites[site], "host",
                   host, "role", c->detached ? "detached" : is_production ? "production" : "mirror",
                   "mirror", mirror, "data", data, "in_set", c->in_set, "since",
                   (json_int_t) c->since, "reason", jsonl_string (reason));
  json_object_set_new (out, "barred", json_boolean (c->barred));
  json_object_set_new (out, "suspended", json_boolean (c->suspended));
  if (c->detached) {
    json_t *fork = status_find_report (m, c->host, iasp, &age_ms);

    /* Where its own clients find it. */
    if (json_is_true (json_object_get (fork, "served"))
        && json_is_string (json_object_get (fork, "uri")))
      json_object_set (out, "uri", json_object_get (fork, "uri"));
    json_object_set_new (out, "export", json_string (exports[c->exported < DETACHED_END ? c->exported : 0]));
    json_decref (fork);
  }
  if (!is_production && c->host != NO_NODE) {
    json_t *report = status_find_report (m, c->host, iasp, &age_ms);

    /* Off, or nothing is kept: not said. */
    if (json_object_get (report, "snapshot"))
      json_object_set (out, "snapshot", json_object_get (report, "snapshot"));
    json_decref (report);
  }
  json_object_set_new (out, "fork", json_string (forks[c->fork < FORK_END ? c->fork : FORK_DIVERGED]));
  json_object_set_new (out, "behind_bytes", json_integer (c->in_set || is_production ? 0 : dirty));
  json_object_set_new (out, "behind_s", json_integer (c->in_set || is_production ? 0 : number (link, "since") / 1000));
  json_object_set_new (out, "dirty_bytes", json_integer (dirty));
  json_object_set_new (out, "progress",
                       json_integer (c->in_set   ? 100
                                     : total > 0 ? (json_int_t) MIN (100.0 * (double) done / (double) total, 100.0)
                                                 : 0));
  json_object_set_new (out, "resync_sent_bytes", json_integer (number (link, "sent")));
  json_object_set_new (out, "resync_equal_bytes", json_integer (number (link, "equal")));
  json_object_set_new (out, "resync_done_bytes", json_integer (done));
  json_object_set_new (out, "resync_total_bytes", json_integer (total));
  json_object_set_new (out, "rate_bytes_s", json_integer (number (link, "rate")));
  json_object_set_new (out, "eta_s", json_integer (number (link, "eta")));
  json_object_set_new (out, "yields", json_boolean (json_is_true (json_object_get (link, "yields"))));
  return out;
}

bool
status_uri (const struct member *m, unsigned iasp, char *uri, size_t len, const char **node,
            char *reason, size_t reason_len)
{
  const struct crg_state *s = member_state (m);
  struct group_status st;
  struct plugin_spec spec;
  uint32_t host;
  uint64_t age_ms;
  json_t *report;
  bool served, script = s && s->def.iasps[iasp].type == RES_SCRIPT;
  int i;

  uri[0] = '\0';
  member_status (m, clock_boottime_ms (), &st);
  if (s == NULL || !st.majority || st.phase != PHASE_STARTED) {
    snprintf (reason, reason_len, "this node is not in a majority of the group: %s", st.wait_reason);
    return false;
  }
  host = state_unit_host (s, state_unit (s, iasp));
  i = state_node_index (s, host);
  if (!s->started || i < 0 || (!script && !member_spec (m, iasp, (unsigned) i, &spec))) {
    snprintf (reason, reason_len, "%s",
              st.wait_reason[0] ? st.wait_reason : s->started ? "nobody hosts production"
                                                              : "its CRG is not started");
    return false;
  }
  report = status_find_report (m, host, iasp, &age_ms);
  served = json_is_true (json_object_get (report, "served"));
  *node = s->def.nodes[i].name;
  if (!served)
    snprintf (reason, reason_len, "production is at %s and not served yet%s%s", *node,
              st.wait_reason[0] ? ": " : "", st.wait_reason);
  if (!script)
    plugin_spec_uri (&spec, uri, len);
  if (json_is_string (json_object_get (report, "uri")))
    snprintf (uri, len, "%s", json_string_value (json_object_get (report, "uri")));
  json_decref (report);
  return served;
}

void
status_lacks (const struct member *m, unsigned unit, uint32_t node, char *buf, size_t len)
{
  const struct crg_state *s = member_state (m);
  int n = s ? state_node_index (s, node) : -1;
  uint64_t age_ms = 0;
  json_int_t bytes = 0;
  bool known = false;
  const uint8_t *text;
  json_t *root = NULL, *item, *link;
  size_t text_len, i;

  if (n < 0)
    return;
  text = group_report (member_group (m), state_unit_host (s, unit), clock_boottime_ms (), &text_len,
                       &age_ms);
  if (text)
    root = json_loadb ((const char *) text, text_len, 0, NULL);
  json_array_foreach (json_object_get (root, "iasps"), i, item) {
    link = find_link (item, s->def.nodes[n].site);
    if (state_unit (s, (unsigned) number (item, "iasp")) != unit)
      continue;
    known = known || link;
    bytes += number (link, "dirty");
  }
  json_decref (root);
  if (known)
    snprintf (buf, len, "; %llu s ago production counted %llu bytes that it lacked",
              (unsigned long long) age_ms / 1000, (unsigned long long) bytes);
  else
    snprintf (buf, len, "; how much that is nobody here knows");
}

/* Fig. 4: who can host it, in its backup order; of those that are not there, or have
 * not said so in this view, nobody knows. */
static json_t *
subgroup_json (const struct member *m, const struct crg_state *s, unsigned iasp)
{
  json_t *list = json_array ();

  for (unsigned place = 0; place < s->def.n_nodes; place++)
    for (unsigned i = 0; i < s->def.n_nodes; i++) {
      const struct domain_node *n = &s->def.nodes[i];

      if (state_order (s, state_unit (s, iasp), i) == place
          && group_has_access (member_group (m), n->id, (uint8_t) iasp))
        json_array_append_new (list, json_string (n->name));
    }
  return list;
}

static json_t *
iasp_json (const struct member *m, const struct crg_state *s, unsigned iasp)
{
  const struct iasp_rec *r = &s->rec[iasp];
  const struct iasp_def *d = &s->def.iasps[iasp];
  char uri[3 * CRG_PATH_MAX] = "", reason[3 * CRG_REASON_MAX] = "";
  const char *node = NULL;
  uint32_t host = r->production_site < s->def.n_sites ? r->copies[r->production_site].host : NO_NODE;
  bool served = status_uri (m, iasp, uri, sizeof uri, &node, reason, sizeof reason);
  uint64_t age_ms = 0;
  json_t *report = status_find_report (m, host, iasp, &age_ms), *copies = json_array (), *out;
  const char *trouble = json_string_value (json_object_get (report, "trouble"));
  const char *hold = json_string_value (json_object_get (report, "hold_reason"));

  for (unsigned i = 0; i < s->def.n_sites && d->type == RES_IASP; i++)
    json_array_append_new (copies, copy_json (m, s, iasp, i, report));
  out = json_pack ("{s:s, s:I, s:o, s:s?, s:s?, s:I, s:I, s:I, s:b, s:s}", "name", d->name, "size",
                   (json_int_t) d->size, "uri", jsonl_string (uri), "production_site",
                   r->production_site < s->def.n_sites ? s->def.sites[r->production_site] : NULL,
                   "production_node", name_of (s, host), "tenure", (json_int_t) r->tenure,
                   "generation", (json_int_t) r->generation, "loss", (json_int_t) r->loss,
                   "serving", served, "export", d->export);
  json_object_set_new (out, "reason", jsonl_string (served ? "" : trouble && *trouble ? trouble : reason));
  json_object_set_new (out, "type", json_string (d->type == RES_SCRIPT ? "script" : "iasp"));
  json_object_set_new (out, "held", json_boolean (json_is_true (json_object_get (report, "held"))));
  json_object_set_new (out, "hold_reason", json_string (hold ? hold : ""));
  json_object_set_new (out, "clients", json_integer (number (report, "clients")));
  json_object_set_new (out, "pid", json_integer (number (report, "pid")));
  json_object_set_new (out, "reported_by", report && name_of (s, host) ? json_string (name_of (s, host)) : json_null ());
  json_object_set_new (out, "report_age_ms", json_integer ((json_int_t) age_ms));
  json_object_set_new (out, "copies", copies);
  if (s->def.placement == PLACEMENT_ACCESS)
    json_object_set_new (out, "subgroup", subgroup_json (m, s, iasp));
  json_object_set_new (out, "verify", verify_status_json (s, report));
  if (json_is_array (json_object_get (report, "waits")))
    json_object_set (out, "waits", json_object_get (report, "waits"));
  json_decref (report);
  return out;
}

static json_t *
nodes_json (const struct crg_state *s, const struct group_status *st)
{
  static const char *const roles[] = { "primary", "backup", "peer", "replicate" };
  json_t *list = json_array ();

  for (unsigned i = 0; i < s->def.n_nodes; i++) {
    const struct domain_node *n = &s->def.nodes[i];
    bool present = false;
    uint64_t incarnation = 0;
    char text[24];
    json_t *addresses = json_array (), *out;
    const char *current;

    for (unsigned k = 0; k < st->n_nodes; k++)
      if (st->nodes[k].id == n->id) {
        present = st->nodes[k].present;
        incarnation = st->nodes[k].incarnation;
      }
    for (unsigned k = 0; k < n->n_addresses; k++)
      json_array_append_new (addresses, json_string (n->addresses[k]));
    snprintf (text, sizeof text, "%016llx", (unsigned long long) incarnation);
    current = n->site >= s->def.n_sites ? "replicate"
              : s->def.placement == PLACEMENT_ACCESS
                ? state_hosts_production (s, n->id) ? "host" : "member"
              : state_hosts_production (s, n->id) ? "primary"
              : n->preferred_role == MEMBER_PEER ? "peer"
                                                 : "backup";
    out = json_pack ("{s:s, s:i, s:s?, s:s, s:s, s:i, s:i, s:i, s:b, s:s, s:o}", "name", n->name, "id",
                     (int) n->id, "site", n->site < s->def.n_sites ? s->def.sites[n->site] : NULL,
                     "preferred_role", roles[n->preferred_role <= MEMBER_REPLICATE ? n->preferred_role : 3],
                     "current_role", current, "order", (int) n->order, "votes", (int) n->votes,
                     "new_votes", (int) n->new_votes,
                     "present", present, "incarnation", text, "addresses", addresses);
    json_object_set_new (out, "marked_failed", json_boolean (n->marked_failed));
    json_array_append_new (list, out);
  }
  return list;
}

/* S1 d: of whom the state knows that it was removed while it was marked failed. */
static json_t *
gone_json (const struct crg_state *s)
{
  json_t *list = json_array ();

  for (unsigned i = 0; i < s->n_gone; i++)
    json_array_append_new (list, json_string (s->gone[i]));
  return list;
}

static json_t *
counters_json (const struct group_counters *c)
{
  return json_pack ("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}",
                    "group_state", (json_int_t) c->group_state, "config", (json_int_t) c->config,
                    "mirror_start", (json_int_t) c->mirror_start, "views", (json_int_t) c->views,
                    "rounds", (json_int_t) c->rounds, "commits", (json_int_t) c->commits,
                    "changes", (json_int_t) c->changes, "proposals", (json_int_t) c->proposals,
                    "dropped", (json_int_t) c->dropped, "bad_messages",
                    (json_int_t) c->bad_messages, "illegal", (json_int_t) c->illegal, "renew",
                    (json_int_t) c->renew, "renewed", (json_int_t) c->renewed, "alive",
                    (json_int_t) c->alive);
}

static const char *
condition_name (enum group_condition c)
{
  static const char *const names[] = {
    [COND_INACTIVE] = "inactive", [COND_WAITING] = "waiting", [COND_ACTIVE] = "active",
    [COND_INDOUBT] = "indoubt", [COND_ENDED] = "ended",
  };

  return c < ARRAY_SIZE (names) ? names[c] : "indoubt";
}

json_t *
status_crg (const struct member *m)
{
  const struct crg_state *s = member_state (m);
  uint64_t now = clock_boottime_ms ();
  struct group_status st;
  char lineage[IDENT_ID_TEXT_LEN] = "";
  json_t *out, *iasps = json_array (), *lease = json_object ();

  member_status (m, now, &st);
  out = json_pack ("{s:s, s:s, s:o, s:I, s:I, s:b, s:b}", "name", member_crg (m), "state",
                   condition_name (st.condition), "reason", jsonl_string (st.wait_reason), "epoch",
                   (json_int_t) st.committed.epoch, "version", (json_int_t) st.committed.version,
                   "majority", st.majority, "has_state", st.has_state);
  if (st.wait_reason[0])
    json_object_set_new (out, "wait",
                         json_pack ("{s:s, s:o, s:I}", "owner", st.wait_owner, "reason",
                                    jsonl_string (st.wait_reason), "since_ms",
                                    (json_int_t) (now > st.wait_since_ms ? now - st.wait_since_ms : 0)));
  else
    json_object_set_new (out, "wait", json_null ());
  json_object_set_new (out, "counters", counters_json (&st.counters));
  if (s) {
    const char *holder = name_of (s, st.lease_holder[0]);

    ident_id_to_text (s->lineage, lineage);
    for (unsigned i = 0; i < s->def.n_iasps; i++)
      json_array_append_new (iasps, iasp_json (m, s, i));
    json_object_set_new (out, "started", json_boolean (s->started));
    json_object_set_new (out, "store_error", json_string (s->def.return_store_error ? "return" : "fail-over"));
    json_object_set_new (out, "resync_share", json_integer (s->def.resync_share ? s->def.resync_share : RESYNC_SHARE));
    json_object_set_new (out, "takeover",
                         json_string (s->def.takeover == TAKEOVER_ORDER ? "order" : "same-site-first"));
    json_object_set_new (out, "strategy",
                         json_string (s->def.placement == PLACEMENT_ACCESS ? "access" : "site"));
    json_object_set_new (out, "nodes", nodes_json (s, &st));
    json_object_set_new (out, "removed_failed", gone_json (s));
    json_object_set_new (lease, "holder", holder ? json_string (holder) : json_null ());
    if (st.lease_until_ms[0])
      json_object_set_new (lease, "left_ms",
                           json_integer ((json_int_t) (st.lease_until_ms[0] > now ? st.lease_until_ms[0] - now : 0)));
  }
  else
    json_object_set_new (out, "nodes", json_array ());
  json_object_set_new (out, "lineage", json_string (lineage));
  json_object_set_new (out, "lease", lease);
  json_object_set_new (out, "iasps", iasps);
  return out;
}

json_t *
status_all (const struct daemon *d, const char *crg)
{
  json_t *crgs = json_array (), *members = json_array ();
  bool found = false;
  uint64_t view = 0;
  char text[24];

  for (unsigned i = 0; i < CRG_MAX_CRGS; i++) {
    const struct member *m = d->members[i];
    struct group_status st;

    if (m == NULL || (crg && strcmp (member_crg (m), crg) != 0))
      continue;
    found = true;
    json_array_append_new (crgs, status_crg (m));
    group_status (member_group (m), clock_boottime_ms (), &st);
    if (view == 0) {
      view = st.view;
      for (unsigned k = 0; k < st.n_nodes; k++)
        if (st.nodes[k].in_view)
          json_array_append_new (members, json_integer ((json_int_t) st.nodes[k].id));
    }
  }
  if (crg && !found) {
    json_decref (crgs);
    json_decref (members);
    return NULL;
  }
  snprintf (text, sizeof text, "%016llx", (unsigned long long) view);
  return json_pack ("{s:b, s:s, s:{s:s, s:b, s:s, s:o, s:b}, s:o}", "ok", 1, "node", d->conf.name,
                    "engine", "type", d->engine->ops->name, "connected", d->connected, "view", text,
                    "members", members, "quorate", d->connected && d->quorate, "crgs", crgs);
}
