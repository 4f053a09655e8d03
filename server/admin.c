/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The admin socket of admin.h.  One request at a time for each client; its
 * answer may come later, from the group.  A client that leaves meanwhile is
 * forgotten by whoever would have answered it.
 */
#include "config.h"

#include "server/admin.h"

#include <errno.h>
#include <grp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <qb/qbdefs.h>
#include <qb/qbloop.h>

#include "common/clock.h"
#include "common/exitcodes.h"
#include "common/jsonl.h"
#include "common/util-posix.h"
#include "server/cluster.h"
#include "server/explain.h"
#include "server/log.h"
#include "server/member.h"
#include "server/query.h"
#include "server/status.h"
#include "server/stop.h"
#include "server/verify.h"

struct client {
  struct admin *a;
  int fd;
  struct jsonl_reader in;
  struct jsonl_writer out;
  uid_t uid;
  gid_t gid;
  pid_t pid;
  bool may_change;
  bool busy;      /* its answer will come */
  bool again;     /* ... and has come: what it asked after that is served from the loop */
  char await[CRG_NAME_MAX + 1]; /* answer when this CRG is served; "" = at once */
  char text[CRG_REASON_MAX + 1]; /* that answer */
  uint64_t await_until_ms;
  qb_loop_timer_handle timer;
  char asked[2 * CRG_NAME_MAX + 64]; /* what an answer of the group is about; "" for others */
  unsigned takeover_unit;
  char takeover_crg[CRG_NAME_MAX + 1]; /* switchover: what it would cost to force it */
  uint32_t takeover_node;
  bool broken;
  bool ended;     /* it has sent all that it will */
  uint64_t serial; /* the lowest came first */
};

struct admin {
  struct daemon *d;
  int listen_fd;
  gid_t group;    /* of socket-group; -1: none */
  char path[CRG_PATH_MAX + 16];
  uint64_t serial;
  struct client *clients[ADMIN_MAX_CLIENTS];
};

static int on_client (int fd, int revents, void *opaque);
static void serve (struct client *c);

/* ---- answering ------------------------------------------------------------------------- */

static void
flush (struct client *c)
{
  int r = jsonl_writer_flush (&c->out, c->fd);

  if (r < 0)
    c->broken = true;
  /* Level-triggered: a stream whose end was read would wake us for ever. */
  qb_loop_poll_mod (c->a->d->loop, QB_LOOP_LOW, c->fd,
                    (c->ended ? 0 : POLLIN) | (r > 0 || c->again ? POLLOUT : 0), c, on_client);
}

/* Whoever answers can't stand it that the client is dropped, or asks the next thing, under its hands. */
static void
answered (struct client *c)
{
  c->busy = false;
  c->again = true;
  flush (c);
}

/* Takes the reference. */
static void
put (struct client *c, json_t *obj)
{
  if (jsonl_writer_put (&c->out, obj) < 0)
    c->broken = true;
  json_decref (obj);
  if (!c->broken)
    flush (c);
}

static void
put_error (struct client *c, int code, const char *reason)
{
  put (c, json_pack ("{s:b, s:i, s:o}", "ok", 0, "code", code, "error", jsonl_string (reason)));
}

static void
on_progress (void *opaque, const char *text)
{
  put (opaque, json_pack ("{s:o}", "progress", jsonl_string (text)));
}

static bool
all_is_served (const struct member *m)
{
  const struct crg_state *s = member_state (m);
  char uri[3 * CRG_PATH_MAX], reason[3 * CRG_REASON_MAX];
  const char *node;

  for (unsigned i = 0; s && i < s->def.n_iasps; i++)
    if (!status_uri (m, i, uri, sizeof uri, &node, reason, sizeof reason))
      return false;
  return true;
}

/* What was switched over is served a moment after its new host was appointed:
 * the command ends when a client would find it. */
static void
on_await (void *opaque)
{
  struct client *c = opaque;
  struct member *m = daemon_find (c->a->d, c->await);

  if (m && !all_is_served (m) && clock_boottime_ms () < c->await_until_ms) {
    qb_loop_timer_add (c->a->d->loop, QB_LOOP_LOW, ADMIN_AWAIT_TICK_MS * QB_TIME_NS_IN_MSEC, c,
                       on_await, &c->timer);
    return;
  }
  c->await[0] = '\0';
  put (c, json_pack ("{s:b, s:o}", "ok", 1, "text", jsonl_string (c->text)));
  answered (c);
}

static void
on_reply (void *opaque, int code, const char *reason)
{
  struct client *c = opaque;
  char text[sizeof c->asked + 3 * CRG_REASON_MAX];

  if (code == CRG_EXIT_FINE && c->await[0]) {
    snprintf (c->text, sizeof c->text, "%s", reason);
    c->await_until_ms = clock_boottime_ms () + ADMIN_AWAIT_MS;
    on_await (c);
    return;
  }
  c->await[0] = '\0';
  if (code == CRG_EXIT_FINE)
    put (c, json_pack ("{s:b, s:o}", "ok", 1, "text", jsonl_string (reason)));
  else {
    snprintf (text, sizeof text, "%s%s", c->asked, reason);
    /* R4: and how much that is, as far as anybody knows. */
    if (code == CRG_EXIT_NEEDS_FORCE && c->takeover_node != NO_NODE) {
      const struct member *m = daemon_find (c->a->d, c->takeover_crg);
      size_t used = strlen (text);

      if (m)
        status_lacks (m, c->takeover_unit, c->takeover_node, text + used, sizeof text - used);
    }
    put_error (c, code, c->asked[0] ? text : reason);
  }
  answered (c);
}

/* ---- who may --------------------------------------------------------------------------- */

/* As the peer's kernel credentials have it: NSS may wait for a server, and this loop renews leases. */
static bool
is_in_group (const struct client *c)
{
  CLEANUP_FREE gid_t *groups = NULL;
  socklen_t len = 0;

  if (c->a->group == (gid_t) -1)
    return false;
  if (c->gid == c->a->group)
    return true;
  if (getsockopt (c->fd, SOL_SOCKET, SO_PEERGROUPS, NULL, &len) == 0 || errno != ERANGE)
    return false; /* it has none, or the kernel is older than 4.13 */
  groups = malloc (len);
  if (groups == NULL || getsockopt (c->fd, SOL_SOCKET, SO_PEERGROUPS, groups, &len) < 0)
    return false;
  for (size_t i = 0; i < len / sizeof *groups; i++)
    if (groups[i] == c->a->group)
      return true;
  return false;
}

/* Once, before this node serves anything. */
static gid_t
find_group (const char *name)
{
  const struct group *gr;

  if (name[0] == '\0')
    return (gid_t) -1;
  errno = 0;
  gr = getgrnam (name);
  if (gr)
    return gr->gr_gid;
  log_error ("socket-group %s: %s; only root and this daemon's own user may change CRGs", name,
             errno ? strerror (errno) : "there is no such group");
  return (gid_t) -1;
}

/* ---- commands -------------------------------------------------------------------------- */

static struct member *
find_crg (struct client *c, json_t *req, const char *verb)
{
  const char *name = json_string_value (json_object_get (req, "crg"));
  struct member *m = name ? daemon_find (c->a->d, name) : NULL;
  char reason[2 * CRG_REASON_MAX];

  if (m)
    return m;
  if (name == NULL)
    snprintf (reason, sizeof reason, "%s: which CRG?", verb);
  else
    snprintf (reason, sizeof reason, "no CRG %.63s on node %s; `crgctl status` lists them", name,
              c->a->d->conf.name);
  put_error (c, name ? CRG_EXIT_NO_OBJECT : CRG_EXIT_USAGE, reason);
  return NULL;
}

/* A node's id; NO_NODE and an error if there is no such node. */
static uint32_t
find_node (struct client *c, const struct member *m, const char *name)
{
  const struct crg_state *s = member_state (m);
  char reason[CRG_REASON_MAX];

  for (unsigned i = 0; s && i < s->def.n_nodes; i++)
    if (strcmp (s->def.nodes[i].name, name) == 0)
      return s->def.nodes[i].id;
  snprintf (reason, sizeof reason, "no node %.63s in CRG %s", name, member_crg (m));
  put_error (c, CRG_EXIT_NO_OBJECT, reason);
  return NO_NODE;
}

static unsigned
wait_ms (json_t *req, unsigned dflt)
{
  json_int_t v = json_integer_value (json_object_get (req, "wait_ms"));

  return v > 0 && v < 86400 * 1000 ? (unsigned) v : dflt;
}

static void
ask_group (struct client *c, struct member *m, enum group_request request, unsigned iasp,
           uint32_t node, json_t *req)
{
  struct member_about about = { .node = node, .iasp = (uint8_t) iasp };
  const char *node_name = NULL;
  const struct crg_state *s = member_state (m);
  int i = s && node != NO_NODE ? state_node_index (s, node) : -1;

  if (i >= 0)
    node_name = s->def.nodes[i].name;
  snprintf (c->asked, sizeof c->asked, "CRG %s: %s%s%s: ", member_crg (m),
            json_string_value (json_object_get (req, "cmd")),
            node_name == NULL ? "" : request == GR_SWITCHOVER ? " to " : " ", node_name ?: "");
  c->busy = true;
  member_request (m, request, &about, json_is_true (json_object_get (req, "force")),
                  json_is_true (json_object_get (req, "dry_run")), wait_ms (req, ADMIN_REQUEST_MS),
                  on_reply, c);
}

static void
cmd_status (struct client *c, json_t *req)
{
  const char *crg = json_string_value (json_object_get (req, "crg"));
  json_t *answer = status_all (c->a->d, crg);
  char reason[CRG_REASON_MAX];

  if (answer) {
    put (c, answer);
    return;
  }
  snprintf (reason, sizeof reason, "no CRG %.63s on node %s", crg, c->a->d->conf.name);
  put_error (c, CRG_EXIT_NO_OBJECT, reason);
}

static void
cmd_uri (struct client *c, json_t *req)
{
  const char *name = json_string_value (json_object_get (req, "iasp"));
  char uri[3 * CRG_PATH_MAX], reason[3 * CRG_REASON_MAX];
  const char *node = "";
  unsigned index;
  struct member *m = name ? daemon_find_iasp (c->a->d, name, &index) : NULL;

  if (m == NULL) {
    snprintf (reason, sizeof reason, "no IASP %.63s on node %s", name ? name : "",
              c->a->d->conf.name);
    put_error (c, name ? CRG_EXIT_NO_OBJECT : CRG_EXIT_USAGE, reason);
  }
  else if (member_state (m)->def.iasps[index].type == RES_SCRIPT) {
    snprintf (reason, sizeof reason, "%s is no IASP but a script: it has no URI", name);
    put_error (c, CRG_EXIT_NO_OBJECT, reason);
  }
  else if (status_uri (m, index, uri, sizeof uri, &node, reason, sizeof reason))
    put (c, json_pack ("{s:b, s:o, s:o}", "ok", 1, "uri", jsonl_string (uri), "node", jsonl_string (node)));
  else {
    char text[4 * CRG_REASON_MAX];

    snprintf (text, sizeof text, "IASP %s is not served: %s", name, reason);
    put_error (c, CRG_EXIT_UNAVAILABLE, text);
  }
}

static void
cmd_where (struct client *c, json_t *req)
{
  char iasp[CRG_NAME_MAX + 1];
  const char *wrong = query_request_parse (req, iasp);
  struct query_answer a;

  if (wrong) {
    put_error (c, CRG_EXIT_USAGE, wrong);
    return;
  }
  query_fill (c->a->d, iasp, &a);
  put (c, query_answer_json (&a, iasp));
}

static void
cmd_create (struct client *c, json_t *req)
{
  json_t *def = json_object_get (req, "def");

  if (!json_is_object (def)) {
    put_error (c, CRG_EXIT_USAGE, "create: there is no definition");
    return;
  }
  c->asked[0] = '\0';
  c->busy = true;
  cluster_create (c->a->d->cluster, def, json_is_true (json_object_get (req, "force")),
                  on_progress, on_reply, c);
}

static void
cmd_group (struct client *c, json_t *req, const char *verb, enum group_request request)
{
  struct member *m = find_crg (c, req, verb);

  if (m)
    ask_group (c, m, request, 0, NO_NODE, req);
}

static void
cmd_start (struct client *c, json_t *req)
{
  cmd_group (c, req, "start", GR_START);
}

static void
cmd_end (struct client *c, json_t *req)
{
  cmd_group (c, req, "end", GR_END);
}

static void
cmd_delete (struct client *c, json_t *req)
{
  cmd_group (c, req, "delete", GR_DELETE);
}

/* Which resource is to move: the one of that name; none is named where all move
 * together, or there is one only. */
static bool
find_resource (struct client *c, const struct member *m, const char *name, unsigned *iasp)
{
  const struct crg_state *s = member_state (m);
  char reason[2 * CRG_REASON_MAX];
  unsigned i = 0;

  *iasp = 0;
  while (name && s && i < s->def.n_iasps && strcmp (s->def.iasps[i].name, name) != 0)
    i++;
  if (name && (s == NULL || i == s->def.n_iasps)) {
    snprintf (reason, sizeof reason, "no resource %.63s in CRG %s", name, member_crg (m));
    put_error (c, CRG_EXIT_NO_OBJECT, reason);
    return false;
  }
  if (name && state_units (s) == 1 && s->def.n_iasps > 1) {
    snprintf (reason, sizeof reason, "the resources of CRG %s move together: say it without --iasp",
              member_crg (m));
    put_error (c, CRG_EXIT_REFUSED, reason);
    return false;
  }
  if (!name && s && state_units (s) > 1) {
    snprintf (reason, sizeof reason, "the resources of CRG %s move one by one: say which, with --iasp",
              member_crg (m));
    put_error (c, CRG_EXIT_USAGE, reason);
    return false;
  }
  *iasp = i;
  return true;
}

static void
cmd_switchover (struct client *c, json_t *req)
{
  struct member *m = find_crg (c, req, "switchover");
  const char *to = json_string_value (json_object_get (req, "to"));
  uint32_t node = NO_NODE;
  unsigned iasp = 0;

  if (m == NULL || (to && (node = find_node (c, m, to)) == NO_NODE)
      || !find_resource (c, m, json_string_value (json_object_get (req, "iasp")), &iasp))
    return;
  c->takeover_unit = member_state (m) ? state_unit (member_state (m), iasp) : 0;
  snprintf (c->takeover_crg, sizeof c->takeover_crg, "%s", member_crg (m));
  c->takeover_node = node;
  if (!json_is_true (json_object_get (req, "dry_run")))
    snprintf (c->await, sizeof c->await, "%s", member_crg (m));
  ask_group (c, m, GR_SWITCHOVER, iasp, node, req);
}

/* The index of a site that has a mirror copy of the IASP: that of the name, or the only one. */
static bool
find_copy (struct client *c, const struct crg_state *s, unsigned iasp, const char *name,
           uint8_t *site)
{
  char reason[3 * CRG_REASON_MAX];
  unsigned found = 0;

  for (unsigned i = 0; i < s->def.n_sites; i++)
    if (name ? strcmp (s->def.sites[i], name) == 0 : i != s->rec[iasp].production_site) {
      *site = (uint8_t) i;
      found++;
    }
  if (found == 1)
    return true;
  if (name)
    snprintf (reason, sizeof reason, "no site %.63s in CRG %s", name, s->def.name);
  else
    snprintf (reason, sizeof reason, "IASP %s has %u mirror copies: say which, with --site",
              s->def.iasps[iasp].name, found);
  put_error (c, name ? CRG_EXIT_NO_OBJECT : CRG_EXIT_USAGE, reason);
  return false;
}

/* mirror verify: what comes of it shows in status, under the number that is answered here */
static void
cmd_verify (struct client *c, json_t *req, struct member *m, unsigned iasp)
{
  struct verify_request rq = { .iasp = iasp, .site = json_string_value (json_object_get (req, "site")),
                               .repair = json_is_true (json_object_get (req, "repair")),
                               .stop = json_is_true (json_object_get (req, "stop")) };
  char reason[3 * CRG_REASON_MAX] = "";
  json_int_t run = 0;
  int code = verify_ask (m, &rq, &run, reason, sizeof reason);

  if (code == CRG_EXIT_FINE)
    put (c, json_pack ("{s:b, s:I}", "ok", 1, "run", run));
  else
    put_error (c, code, reason);
}

/* mirror suspend, resume, detach, reattach, unbar, verify */
static void
cmd_mirror (struct client *c, json_t *req)
{
  static const struct {
    const char *verb;
    enum group_request request;
  } verbs[] = {
    { "suspend", GR_SUSPEND }, { "resume", GR_RESUME }, { "detach", GR_DETACH },
    { "reattach", GR_REATTACH }, { "unbar", GR_UNBAR },
  };
  static const char *const exports[DETACHED_END] = { "none", "read-only", "read-write" };
  const char *verb = json_string_value (json_object_get (req, "verb"));
  const char *name = json_string_value (json_object_get (req, "iasp"));
  const char *export = json_string_value (json_object_get (req, "export"));
  struct member_about about = { .node = NO_NODE };
  char reason[CRG_REASON_MAX];
  const struct crg_state *s;
  struct member *m;
  unsigned iasp, v = 0, e = 0;

  m = name ? daemon_find_iasp (c->a->d, name, &iasp) : NULL;
  s = m ? member_state (m) : NULL;
  if (s == NULL) {
    snprintf (reason, sizeof reason, "no IASP %.63s on node %s", name ? name : "", c->a->d->conf.name);
    put_error (c, name ? CRG_EXIT_NO_OBJECT : CRG_EXIT_USAGE, reason);
    return;
  }
  if (verb && strcmp (verb, "verify") == 0) {
    cmd_verify (c, req, m, iasp);
    return;
  }
  while (v < ARRAY_SIZE (verbs) && (verb == NULL || strcmp (verb, verbs[v].verb) != 0))
    v++;
  while (export && e < DETACHED_END && strcmp (export, exports[e]) != 0)
    e++;
  if (v == ARRAY_SIZE (verbs) || e == DETACHED_END) {
    put_error (c, CRG_EXIT_USAGE, "mirror: it must be suspend, resume, detach, reattach, unbar or verify, and "
                                  "an export none, read-only or read-write");
    return;
  }
  if (!find_copy (c, s, iasp, json_string_value (json_object_get (req, "site")), &about.site))
    return;
  about.iasp = (uint8_t) iasp;
  about.mode = (enum detached_export) e;
  snprintf (c->asked, sizeof c->asked, "IASP %s: %s the copy of %s: ", name, verb,
            s->def.sites[about.site]);
  c->busy = true;
  member_request (m, verbs[v].request, &about, json_is_true (json_object_get (req, "force")), false,
                  wait_ms (req, ADMIN_REQUEST_MS), on_reply, c);
}

/* In every CRG whose domain has the node. */
static void
cmd_mark_failed (struct client *c, json_t *req)
{
  const char *name = json_string_value (json_object_get (req, "node"));
  const char *crg = json_string_value (json_object_get (req, "crg"));
  struct member *m = NULL;
  uint32_t node;

  if (name == NULL) {
    put_error (c, CRG_EXIT_USAGE, "mark-failed: which node?");
    return;
  }
  if (crg)
    m = find_crg (c, req, "mark-failed");
  else {
    for (unsigned i = 0; i < CRG_MAX_CRGS && m == NULL; i++)
      m = c->a->d->members[i];
    if (m == NULL)
      put_error (c, CRG_EXIT_NO_OBJECT, "there is no CRG on this node");
  }
  if (m && (node = find_node (c, m, name)) != NO_NODE)
    ask_group (c, m, GR_MARK_FAILED, 0, node, req);
}

/* C7 */
static void
ask_node (struct client *c, json_t *req, struct member *m, const struct node_change *nc)
{
  snprintf (c->asked, sizeof c->asked, "CRG %s: node %.63s: ", member_crg (m),
            json_string_value (json_object_get (req, "node")));
  c->busy = true;
  member_request_node (m, nc, wait_ms (req, ADMIN_REQUEST_MS), on_reply, c);
}

static void
cmd_node_add (struct client *c, json_t *req)
{
  struct member *m = find_crg (c, req, "node add");
  json_t *node = json_object_get (req, "node");
  const char *name = json_string_value (json_object_get (node, "name"));

  if (m == NULL)
    return;
  if (name == NULL) {
    put_error (c, CRG_EXIT_USAGE, "node add: which node?");
    return;
  }
  snprintf (c->asked, sizeof c->asked, "CRG %s: node %.63s: ", member_crg (m), name);
  c->busy = true;
  cluster_add_node (c->a->d->cluster, m, node, json_object_get (req, "stores"),
                    json_object_get (req, "metas"), json_is_true (json_object_get (req, "force")), on_reply, c);
}

static void
cmd_node_remove (struct client *c, json_t *req)
{
  struct member *m = find_crg (c, req, "node remove");
  const char *name = json_string_value (json_object_get (req, "node"));
  struct node_change nc = { .op = NODE_REMOVE };

  if (m == NULL || (nc.node.id = find_node (c, m, name ? name : "")) == NO_NODE)
    return;
  nc.drop_copy = json_is_true (json_object_get (req, "drop_copy"));
  ask_node (c, req, m, &nc);
}

static void
cmd_node_set (struct client *c, json_t *req)
{
  static const char *const roles[] = { "primary", "backup", "peer", "replicate" };
  struct member *m = find_crg (c, req, "node set");
  const char *name = json_string_value (json_object_get (req, "node"));
  const char *role = json_string_value (json_object_get (req, "role"));
  json_t *votes = json_object_get (req, "votes"), *order = json_object_get (req, "order");
  json_t *addresses = json_object_get (req, "addresses"), *a;
  struct node_change nc = { .op = NODE_SET };
  size_t i;

  if (m == NULL || (nc.node.id = find_node (c, m, name ? name : "")) == NO_NODE)
    return;
  for (unsigned k = 0; role && k < ARRAY_SIZE (roles); k++)
    if (strcmp (roles[k], role) == 0) {
      nc.node.preferred_role = (uint8_t) k;
      nc.fields |= NODE_SET_ROLE;
    }
  if (votes && json_integer_value (votes) >= 0 && json_integer_value (votes) <= 100) {
    nc.node.votes = (uint8_t) json_integer_value (votes);
    nc.fields |= NODE_SET_VOTES;
  }
  if (order && json_integer_value (order) >= 0 && json_integer_value (order) < CRG_MAX_NODES) {
    nc.node.order = (uint8_t) json_integer_value (order);
    nc.fields |= NODE_SET_ORDER;
  }
  json_array_foreach (addresses, i, a) {
    if (i >= CRG_MAX_ADDRS || !json_is_string (a) || json_string_length (a) > CRG_ADDR_MAX) {
      put_error (c, CRG_EXIT_USAGE, "node set: a node has 1 to 4 addresses");
      return;
    }
    snprintf (nc.node.addresses[nc.node.n_addresses++], sizeof nc.node.addresses[0], "%s",
              json_string_value (a));
    nc.fields |= NODE_SET_ADDRESSES;
  }
  ask_node (c, req, m, &nc);
}

/* C9 */
static void
cmd_recover (struct client *c, json_t *req)
{
  struct member *m = find_crg (c, req, "recover");
  const struct crg_state *s = m ? member_state (m) : NULL;
  char text[2 * CRG_REASON_MAX], others[CRG_REASON_MAX] = "";
  const char *why;
  uint16_t dead = 0;
  json_t *name;
  size_t i, used = 0;

  if (m == NULL)
    return;
  json_array_foreach (json_object_get (req, "without"), i, name) {
    uint32_t id = find_node (c, m, json_string_value (name) ?: "");

    if (id == NO_NODE)
      return;
    dead |= (uint16_t) (1u << state_node_index (s, id));
  }
  for (unsigned k = 0; s && k < s->def.n_nodes && used < sizeof others; k++)
    if (!(dead & (1u << k)) && (int) k != member_self (m) && s->def.nodes[k].votes > 0)
      used += (size_t) snprintf (others + used, sizeof others - used, "; crgctl node set %s %s --votes %u",
                                 s->def.name, s->def.nodes[k].name, s->def.nodes[k].votes);
  why = member_recover (m, dead);
  if (why != NULL) {
    snprintf (text, sizeof text, "CRG %s: recover: %s", member_crg (m), why);
    put_error (c, CRG_EXIT_REFUSED, text);
    return;
  }
  snprintf (text, sizeof text, "CRG %s goes on with the vote of this node alone; give the others theirs "
            "when they have joined%s", member_crg (m), others);
  put (c, json_pack ("{s:b, s:o}", "ok", 1, "text", jsonl_string (text)));
}

static void
cmd_trace (struct client *c, json_t *req)
{
  json_t *events = json_array ();
  const char *crg = json_string_value (json_object_get (req, "crg"));

  if (crg) {
    struct member *m = find_crg (c, req, "trace");

    if (m == NULL) {
      json_decref (events);
      return;
    }
    json_decref (events);
    events = member_trace (m);
  }
  else
    for (unsigned i = 0; i < CRG_MAX_CRGS; i++)
      if (c->a->d->members[i]) {
        json_t *more = member_trace (c->a->d->members[i]);

        json_array_extend (events, more);
        json_decref (more);
      }
  put (c, json_pack ("{s:b, s:o}", "ok", 1, "events", events));
}

static void
cmd_explain (struct client *c, json_t *req)
{
  const char *name = json_string_value (json_object_get (req, "iasp"));
  char reason[CRG_REASON_MAX];
  unsigned index;
  struct member *m = name ? daemon_find_iasp (c->a->d, name, &index) : NULL;

  if (m) {
    put (c, json_pack ("{s:b, s:o}", "ok", 1, "explain", explain_iasp (m, index)));
    return;
  }
  snprintf (reason, sizeof reason, "no IASP %.63s on node %s", name ? name : "", c->a->d->conf.name);
  put_error (c, name ? CRG_EXIT_NO_OBJECT : CRG_EXIT_USAGE, reason);
}

static void
cmd_counters (struct client *c, json_t *req)
{
  struct member *m = find_crg (c, req, "counters");
  json_t *crg;

  if (m == NULL)
    return;
  crg = status_crg (m);
  put (c, json_pack ("{s:b, s:O}", "ok", 1, "counters", json_object_get (crg, "counters")));
  json_decref (crg);
}

/* For good, or until somebody starts it again: the plugins end. */
static void
cmd_leave (struct client *c, json_t *req)
{
  bool hand_over = json_is_true (json_object_get (req, "hand_over"));

  c->asked[0] = '\0';
  c->busy = true;
  stop_ask (c->a->d->stopper, hand_over ? STOP_HAND_OVER : STOP_END,
            json_is_true (json_object_get (req, "force")), on_progress, on_reply, c);
}

static const struct {
  const char *name;
  bool changes;
  void (*fn) (struct client *, json_t *);
} commands[] = {
  { "status", false, cmd_status },
  { "uri", false, cmd_uri },
  { "where", false, cmd_where },
  { "trace", false, cmd_trace },
  { "counters", false, cmd_counters },
  { "explain", false, cmd_explain },
  { "create", true, cmd_create },
  { "delete", true, cmd_delete },
  { "start", true, cmd_start },
  { "end", true, cmd_end },
  { "switchover", true, cmd_switchover },
  { "mark-failed", true, cmd_mark_failed },
  { "mirror", true, cmd_mirror },
  { "leave", true, cmd_leave },
  { "node-add", true, cmd_node_add },
  { "recover", true, cmd_recover },
  { "node-remove", true, cmd_node_remove },
  { "node-set", true, cmd_node_set },
};

static void
on_request (struct client *c, json_t *req)
{
  const char *cmd = json_string_value (json_object_get (req, "cmd"));
  json_t *v = json_object_get (req, "v");

  if (json_integer_value (v) != 1) {
    put_error (c, CRG_EXIT_USAGE, "this crgd speaks version 1 of the admin protocol");
    return;
  }
  for (unsigned i = 0; cmd && i < ARRAY_SIZE (commands); i++)
    if (strcmp (cmd, commands[i].name) == 0) {
      if (commands[i].changes && !c->may_change) {
        log_warning ("user %u may not %s", (unsigned) c->uid, cmd);
        put_error (c, CRG_EXIT_REFUSED,
                   "only root, the daemon's own user and members of its socket-group may do this");
        return;
      }
      if (commands[i].changes)
        log_notice ("user %u asks: %s %s", (unsigned) c->uid, cmd,
                    json_string_value (json_object_get (req, "crg")) ?: "");
      commands[i].fn (c, req);
      return;
    }
  put_error (c, CRG_EXIT_USAGE, "crgd doesn't know this command; is crgctl of another release?");
}

/* ---- clients --------------------------------------------------------------------------- */

static void
drop (struct client *c)
{
  struct admin *a = c->a;

  for (unsigned i = 0; i < CRG_MAX_CRGS; i++)
    if (a->d->members[i])
      member_forget_requests (a->d->members[i], c);
  cluster_forget_request (a->d->cluster, c);
  stop_forget (a->d->stopper, c);
  qb_loop_timer_del (a->d->loop, c->timer);
  qb_loop_poll_del (a->d->loop, c->fd);
  close (c->fd);
  jsonl_reader_free (&c->in);
  jsonl_writer_free (&c->out);
  for (unsigned i = 0; i < ADMIN_MAX_CLIENTS; i++)
    if (a->clients[i] == c)
      a->clients[i] = NULL;
  free (c);
}

static void
serve (struct client *c)
{
  json_error_t error;
  json_t *req;
  int r;

  while (!c->busy && !c->broken && (r = jsonl_reader_next (&c->in, &req, &error)) != 0) {
    if (r < 0) {
      put_error (c, CRG_EXIT_USAGE, "the request is not a JSON object on one line");
      c->ended = true;
      break;
    }
    on_request (c, req);
    json_decref (req);
  }
}

static int
on_client (int fd, int revents, void *opaque)
{
  struct client *c = opaque;

  c->again = false;
  if (revents & POLLOUT)
    flush (c);
  if (!c->ended && (revents & (POLLIN | POLLHUP | POLLERR))) {
    ssize_t n = jsonl_reader_fill (&c->in, fd);

    if (n == 0)
      c->ended = true;
    else if (n < 0 && n != -EAGAIN)
      c->broken = true;
  }
  if (revents & (POLLERR | POLLHUP))
    c->broken |= c->ended; /* it has closed both ways */
  serve (c);
  if (!c->broken && c->ended && c->busy)
    flush (c);
  if (c->broken || (c->ended && !c->busy && !jsonl_writer_pending (&c->out)))
    drop (c);
  return 0;
}

/* Everybody may connect, so a crowd that says nothing must not keep others out: when all places
 * are taken the longest-standing client that waits for no answer loses its own, one that may
 * change nothing first. */
static void
make_room (struct admin *a)
{
  struct client *worst = NULL;

  for (unsigned i = 0; i < ADMIN_MAX_CLIENTS; i++) {
    struct client *c = a->clients[i];

    if (c == NULL)
      return;
    if (c->busy)
      continue;
    if (worst == NULL || c->may_change < worst->may_change
        || (c->may_change == worst->may_change && c->serial < worst->serial))
      worst = c;
  }
  if (worst) {
    log_warning ("the admin socket has %d clients: dropping the oldest idle one (pid %d, user %u)",
                 ADMIN_MAX_CLIENTS, (int) worst->pid, (unsigned) worst->uid);
    drop (worst);
  }
}

static int
on_accept (int fd, int revents, void *opaque)
{
  struct admin *a = opaque;
  int conn = jsonl_accept (fd);
  struct client *c;

  if (conn < 0)
    return 0;
  make_room (a);
  for (unsigned i = 0; i < ADMIN_MAX_CLIENTS; i++) {
    if (a->clients[i])
      continue;
    c = calloc (1, sizeof *c);
    if (c == NULL)
      break;
    c->a = a;
    c->fd = conn;
    c->serial = ++a->serial;
    jsonl_reader_init (&c->in, 0);
    jsonl_writer_init (&c->out, 0);
    if (jsonl_peer (conn, &c->pid, &c->uid, &c->gid) != 0
        || qb_loop_poll_add (a->d->loop, QB_LOOP_LOW, conn, POLLIN, c, on_client) < 0) {
      free (c);
      break;
    }
    c->may_change = c->uid == 0 || c->uid == geteuid () || is_in_group (c);
    a->clients[i] = c;
    return 0;
  }
  log_warning ("refused a connection to the admin socket: there are %d already", ADMIN_MAX_CLIENTS);
  close (conn);
  return 0;
}

struct admin *
admin_new (struct daemon *d)
{
  struct admin *a = calloc (1, sizeof *a);

  if (a == NULL)
    return NULL;
  a->d = d;
  snprintf (a->path, sizeof a->path, "%s/crgd.sock", d->conf.run_dir);
  a->group = find_group (d->conf.socket_group);
  a->listen_fd = jsonl_listen (a->path, 0666);
  if (a->listen_fd < 0) {
    log_error ("%s: %s", a->path, strerror (-a->listen_fd));
    free (a);
    return NULL;
  }
  qb_loop_poll_add (d->loop, QB_LOOP_LOW, a->listen_fd, POLLIN, a, on_accept);
  return a;
}

void
admin_free (struct admin *a)
{
  if (a == NULL)
    return;
  for (unsigned i = 0; i < ADMIN_MAX_CLIENTS; i++)
    if (a->clients[i])
      drop (a->clients[i]);
  qb_loop_poll_del (a->d->loop, a->listen_fd);
  close (a->listen_fd);
  unlink (a->path);
  free (a);
}
