/* SPDX-License-Identifier: BSD-3-Clause */
/* crgctl node add, remove, set and replace: changes of the recovery domain while the CRG runs (C7),
 * and crgctl recover, for a majority that is lost for good (C9).  Each is one request to crgd but
 * `replace`, which is an `add` and a `remove`, and may be given again when it was broken off.
 */
#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "admin/cli.h"
#include "common/util-posix.h"

const char *const node_verbs[] = { "add", "mark-failed", "remove", "replace", "set", NULL };

/* crgd answers after this at the latest: the new node's stores, its join, one lease. */
#define NODE_WAIT_MS 120000

static int
call (struct cli *cli, json_t *request)
{
  json_t *answer;
  int rc;

  if (!request)
    return cli_error (cli, CRG_EXIT_ERROR, "out of memory");
  json_object_set_new (request, "wait_ms", json_integer (NODE_WAIT_MS));
  if (!cli->given[OPT_TIMEOUT])
    cli->timeout_ms = NODE_WAIT_MS + 5000;
  rc = client_call (cli, request, &answer);
  if (rc == CRG_EXIT_FINE)
    json_decref (answer);
  return rc;
}

static json_t *
addresses (const char *text)
{
  CLEANUP_FREE char *copy = strdup (text);
  json_t *list = json_array ();
  char *save = NULL;

  for (char *a = copy ? strtok_r (copy, ", ", &save) : NULL; a; a = strtok_r (NULL, ", ", &save))
    json_array_append_new (list, json_string (a));
  return list;
}

/* --store PATH, or --store IASP=PATH for each; the same for --meta. */
static json_t *
paths_of (struct cli *cli, const char *option, const char *const *values, unsigned n)
{
  json_t *all;

  if (n == 1 && !strchr (values[0], '='))
    return json_string (values[0]);
  all = json_object ();
  for (unsigned i = 0; i < n; i++) {
    const char *equals = strchr (values[i], '=');

    if (!equals) {
      cli_error (cli, CRG_EXIT_USAGE, "--%s '%s': with several, each is IASP=PATH", option, values[i]);
      json_decref (all);
      return NULL;
    }
    json_object_setn_new (all, values[i], (size_t) (equals - values[i]), json_string (equals + 1));
  }
  return all;
}

/* `like`: a node as crgd's status shows it, whose place the new one takes; or NULL. */
static int
add (struct cli *cli, const char *crg, const char *name, const json_t *like)
{
  const char *role = cli->value[OPT_ROLE], *site = cli->value[OPT_SITE];
  long id, votes;
  json_t *node, *paths, *metas;

  if (like && !role)
    role = json_string_value (json_object_get (like, "preferred_role"));
  if (like && role && strcmp (role, "primary") == 0)
    role = "backup"; /* until the old one has gone, that is the primary */
  if (like && !site)
    site = json_string_value (json_object_get (like, "site"));
  if (!role)
    role = site ? "backup" : "replicate";
  if (!cli_number (cli, OPT_ID, 1, 65535, 0, &id)
      || !cli_number (cli, OPT_VOTES, 0, 100,
                      like ? (long) json_integer_value (json_object_get (like, "votes")) : 1, &votes))
    return CRG_EXIT_USAGE;
  if (!cli->given[OPT_ADDRESS])
    return cli_error (cli, CRG_EXIT_USAGE, "--address is missing: the data addresses of '%s'", name);
  paths = paths_of (cli, "store", cli->stores, cli->n_stores);
  metas = paths ? paths_of (cli, "meta", cli->metas, cli->n_metas) : NULL;
  if (!metas) {
    json_decref (paths);
    return CRG_EXIT_USAGE;
  }
  node = json_pack ("{s:s, s:s, s:s*, s:I, s:o}", "name", name, "role", role, "site",
                    site && *site ? site : NULL, "votes", (json_int_t) votes, "addresses",
                    addresses (cli->value[OPT_ADDRESS]));
  if (id)
    json_object_set_new (node, "id", json_integer (id));
  return call (cli, json_pack ("{s:s, s:s, s:o, s:o, s:o, s:b}", "cmd", "node-add", "crg", crg, "node",
                               node, "stores", paths, "metas", metas, "force", (int) cli->given[OPT_FORCE]));
}

static int
remove_node (struct cli *cli, const char *crg, const char *name)
{
  return call (cli, json_pack ("{s:s, s:s, s:s, s:b}", "cmd", "node-remove", "crg", crg, "node", name,
                               "drop_copy", (int) cli->given[OPT_DROP_COPY]));
}

/* The node of a CRG as status shows it: a new reference, or NULL and an error. */
static json_t *
find (struct cli *cli, const char *crg, const char *name, bool *new_is_there, const char *new)
{
  json_t *status, *node, *found = NULL;
  size_t i;

  *new_is_there = false;
  if (client_call (cli, json_pack ("{s:s, s:s}", "cmd", "status", "crg", crg), &status)
      != CRG_EXIT_FINE)
    return NULL;
  json_array_foreach (json_object_get (status_find_crg (status, crg), "nodes"), i, node) {
    const char *text = json_string_value (json_object_get (node, "name")) ?: "";

    if (strcmp (text, name) == 0)
      found = json_incref (node);
    if (strcmp (text, new) == 0)
      *new_is_there = json_integer_value (json_object_get (node, "votes")) > 0;
  }
  if (!found)
    cli_error (cli, CRG_EXIT_NO_OBJECT, "there is no node '%s' in CRG '%s'", name, crg);
  json_decref (status);
  return found;
}

static int
replace (struct cli *cli, const char *crg, const char *old, const char *new)
{
  bool is_there;
  json_t *like = find (cli, crg, old, &is_there, new);
  int rc = CRG_EXIT_FINE;

  if (!like)
    return CRG_EXIT_NO_OBJECT;
  if (!is_there)
    rc = add (cli, crg, new, like);
  json_decref (like);
  if (rc != CRG_EXIT_FINE)
    return rc;
  rc = remove_node (cli, crg, old);
  if (rc != CRG_EXIT_FINE)
    cli_error (cli, rc, "'%s' has come, but '%s' is still there; give the same command again when it "
               "can go", new, old);
  return rc;
}

static int
set (struct cli *cli, const char *crg, const char *name)
{
  json_t *request;
  long votes, order;

  if (!cli_number (cli, OPT_VOTES, 0, 100, -1, &votes)
      || !cli_number (cli, OPT_ORDER, 0, CRG_MAX_NODES - 1, -1, &order))
    return CRG_EXIT_USAGE;
  if (cli->given[OPT_ROLE] && strcmp (cli->value[OPT_ROLE], "primary") != 0
      && strcmp (cli->value[OPT_ROLE], "backup") != 0 && strcmp (cli->value[OPT_ROLE], "peer") != 0
      && strcmp (cli->value[OPT_ROLE], "replicate") != 0)
    return cli_error (cli, CRG_EXIT_USAGE, "--role '%s'; allowed: primary, backup, peer, replicate",
                      cli->value[OPT_ROLE]);
  if (votes < 0 && order < 0 && !cli->given[OPT_ROLE] && !cli->given[OPT_ADDRESS])
    return cli_error (cli, CRG_EXIT_USAGE, "nothing to set: --role, --votes, --order or --address");
  request = json_pack ("{s:s, s:s, s:s}", "cmd", "node-set", "crg", crg, "node", name);
  if (votes >= 0)
    json_object_set_new (request, "votes", json_integer (votes));
  if (order >= 0)
    json_object_set_new (request, "order", json_integer (order));
  if (cli->given[OPT_ROLE])
    json_object_set_new (request, "role", json_string (cli->value[OPT_ROLE]));
  if (cli->given[OPT_ADDRESS])
    json_object_set_new (request, "addresses", addresses (cli->value[OPT_ADDRESS]));
  return call (cli, request);
}

int
node_command (struct cli *cli)
{
  const char *verb = cli->words[0];

  if (strcmp (verb, "replace") == 0) {
    if (cli->n_words != 4)
      return cli_error (cli, CRG_EXIT_USAGE, "crgctl node replace CRG OLD NEW");
    return replace (cli, cli->words[1], cli->words[2], cli->words[3]);
  }
  if (strcmp (verb, "mark-failed") == 0) { /* a node of every CRG: the command of that name */
    if (cli->n_words != 2)
      return cli_error (cli, CRG_EXIT_USAGE, "crgctl node mark-failed NODE");
    cli->words[0] = cli->words[1];
    return group_mark_failed_command (cli);
  }
  if (cli->n_words != 3)
    return cli_error (cli, CRG_EXIT_USAGE, "crgctl node %s CRG NODE", verb);
  if (strcmp (verb, "add") == 0)
    return add (cli, cli->words[1], cli->words[2], NULL);
  if (strcmp (verb, "remove") == 0)
    return remove_node (cli, cli->words[1], cli->words[2]);
  if (strcmp (verb, "set") == 0)
    return set (cli, cli->words[1], cli->words[2]);
  return cli_error (cli, CRG_EXIT_USAGE, "'%s' is neither add, mark-failed, remove, set nor replace", verb);
}

int
recover_command (struct cli *cli)
{
  json_t *answer;
  int rc;

  if (!cli->given[OPT_WITHOUT])
    return cli_error (cli, CRG_EXIT_USAGE, "--without is missing: the nodes that are lost for good");
  if (!cli->given[OPT_CONFIRM_THEY])
    return cli_error (cli, CRG_EXIT_NEEDS_FORCE, "if one of '%s' still runs, or ever starts with its "
                      "disks and others of its kind, there are two histories: make sure that they are "
                      "off, then say --i-confirm-they-are-dead", cli->value[OPT_WITHOUT]);
  rc = client_call (cli, json_pack ("{s:s, s:s, s:o}", "cmd", "recover", "crg", cli->words[0], "without",
                                    addresses (cli->value[OPT_WITHOUT])), &answer);
  if (rc != CRG_EXIT_FINE)
    return rc;
  printf ("%s\n", json_string_value (json_object_get (answer, "text")) ?: "");
  json_decref (answer);
  return rc;
}
