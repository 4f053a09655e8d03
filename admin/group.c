/* SPDX-License-Identifier: BSD-3-Clause */
/* crgctl's commands that change a CRG, and those that only read a file or one value.
 */
#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "admin/cli.h"
#include "common/ask.h"
#include "common/certs.h"
#include "common/clock.h"
#include "common/conf.h"
#include "common/jsonl.h"
#include "common/util-posix.h"

/* ---- check-conf ------------------------------------------------------------------------- */

/* A crgd.conf has [engine], [lease] or a [node] without a name; anything else is a definition. */
static bool
looks_like_crgd (const char *path)
{
  CLEANUP_FCLOSE FILE *fp = NULL;
  struct stat st;
  char line[CONF_MAX_LINE + 2], *s;

  /* What can be read only once is a definition. */
  if (stat (path, &st) < 0 || !S_ISREG (st.st_mode))
    return false;
  fp = fopen (path, "re");
  while (fp && fgets (line, sizeof line, fp)) {
    s = line + strspn (line, " \t");
    if (strncmp (s, "[engine]", 8) == 0 || strncmp (s, "[lease]", 7) == 0
        || strncmp (s, "[node]", 6) == 0)
      return true;
    if (strncmp (s, "[crg]", 5) == 0 || strncmp (s, "[node ", 6) == 0 || strncmp (s, "[iasp", 5) == 0)
      return false;
  }
  return false;
}

static int
conf_error (struct cli *cli, int rc, const char *err)
{
  return cli_error (cli, rc == -ENOENT ? CRG_EXIT_NO_OBJECT : rc == -EACCES ? CRG_EXIT_ERROR
                                                                           : CRG_EXIT_USAGE,
                    "%s", err);
}

static void
print_warnings (const struct conf_crg *crg, const char *file)
{
  unsigned i;

  for (i = 0; i < crg->n_warnings; i++)
    fprintf (stderr, "%s: warning: %s\n", file, crg->warnings[i]);
}

static int
check_crgd_conf (struct cli *cli, const char *path)
{
  CLEANUP_FREE struct conf_crgd *conf = calloc (1, sizeof *conf);
  char err[CONF_ERR_MAX + 1];
  int days, days_nbd, rc;

  if (!conf)
    return cli_error (cli, CRG_EXIT_ERROR, "out of memory");
  rc = conf_read_crgd (path, conf, err, sizeof err);
  if (rc < 0)
    return conf_error (cli, rc, err);
  rc = certs_check (conf->tls_dir, conf->name, &days, err, sizeof err);
  if (rc == 0)
    rc = certs_check_nbd (conf->tls_dir, &days_nbd, err, sizeof err);
  if (rc < 0)
    return cli_error (cli, CRG_EXIT_ERROR, "%s is well formed, but %s", path, err);
  days = MIN (days, days_nbd);
  printf ("%s: good; node '%s', engine %s, lease %u ms, certificates valid for %d days\n", path,
          conf->name, conf_engine_name (conf->engine), conf->lease_ms, days);
  return CRG_EXIT_FINE;
}

int
group_check_conf_command (struct cli *cli)
{
  CLEANUP_FREE struct conf_crg *crg = NULL;
  char err[CONF_ERR_MAX + 1];
  int rc;

  if (cli->given[OPT_KEYS]) {
    conf_print_keys (stdout);
    return CRG_EXIT_FINE;
  }
  if (cli->n_words == 0)
    return cli_error (cli, CRG_EXIT_USAGE, "which FILE? or --keys");
  if (looks_like_crgd (cli->words[0]))
    return check_crgd_conf (cli, cli->words[0]);
  crg = calloc (1, sizeof *crg);
  if (!crg)
    return cli_error (cli, CRG_EXIT_ERROR, "out of memory");
  rc = conf_read_crg (cli->words[0], crg, err, sizeof err);
  if (rc < 0)
    return conf_error (cli, rc, err);
  print_warnings (crg, cli->words[0]);
  printf ("%s: good; CRG '%s', %u nodes, %u IASPs\n", cli->words[0], crg->name, crg->n_nodes,
          crg->n_iasps);
  return CRG_EXIT_FINE;
}

/* ---- create ----------------------------------------------------------------------------- */

static void
print_definition (const struct conf_crg *crg)
{
  unsigned i, j;

  printf ("CRG %s, takeover %s%s\n", crg->name, conf_takeover_name (crg->takeover),
          crg->strategy == CONF_STRATEGY_ACCESS ? ", strategy access" : "");
  for (i = 0; i < crg->n_nodes; i++) {
    const struct conf_node *n = &crg->nodes[i];

    printf ("  node %-12s id %-3u %-9s %-12s votes %u  %s\n", n->name, n->id, conf_role_name (n->role),
            n->site[0] ? n->site : "-", n->votes, n->addresses[0]);
  }
  for (i = 0; i < crg->n_iasps; i++) {
    const struct conf_iasp *s = &crg->iasps[i];

    if (s->type == CONF_SCRIPT) {
      printf ("  script %-10s agent %s, timeout %u ms\n", s->name, s->agent, s->timeout_ms);
      continue;
    }
    printf ("  iasp %-12s export %s, mirror port %u\n", s->name, s->export, s->mirror_port);
    for (j = 0; j < crg->n_nodes; j++)
      if (s->store[j][0])
        printf ("    on %-12s %s%s%s\n", crg->nodes[j].name, s->store[j], s->meta[j][0] ? ", metadata on " : "",
                s->meta[j]);
  }
}

int
group_create_command (struct cli *cli)
{
  CLEANUP_FREE struct conf_crg *crg = calloc (1, sizeof *crg);
  char err[CONF_ERR_MAX + 1];
  json_t *answer, *def;
  int rc;

  if (!crg)
    return cli_error (cli, CRG_EXIT_ERROR, "out of memory");
  rc = conf_read_crg (cli->words[0], crg, err, sizeof err);
  if (rc < 0)
    return conf_error (cli, rc, err);
  print_warnings (crg, cli->words[0]);
  if (cli->given[OPT_DRY_RUN]) {
    print_definition (crg);
    printf ("nothing was created; the stores were not looked at\n");
    return CRG_EXIT_FINE;
  }
  def = conf_crg_to_json (crg);
  if (!def)
    return cli_error (cli, CRG_EXIT_ERROR, "out of memory");
  rc = client_call (cli, json_pack ("{s:s, s:o, s:b}", "cmd", "create", "def", def, "force",
                                    (int) cli->given[OPT_FORCE]), &answer);
  if (rc != CRG_EXIT_FINE)
    return rc;
  json_decref (answer);
  printf ("created CRG '%s'; 'crgctl start %s' lets it serve\n", crg->name, crg->name);
  return CRG_EXIT_FINE;
}

/* ---- start, end, delete, switchover ----------------------------------------------------- */

/* Polls until every IASP of the CRG is served. */
static int
wait_served (struct cli *cli, const char *name, long seconds)
{
  uint64_t end = clock_boottime_ms () + (uint64_t) seconds * 1000;
  const struct timespec pause = { .tv_nsec = 100 * 1000 * 1000 };
  const json_t *crg;
  const char *reason;
  json_t *answer;
  int rc;

  for (;;) {
    rc = client_call (cli, json_pack ("{s:s, s:s}", "cmd", "status", "crg", name), &answer);
    if (rc != CRG_EXIT_FINE)
      return rc;
    crg = status_find_crg (answer, name);
    if (!crg) {
      json_decref (answer);
      return cli_error (cli, CRG_EXIT_NO_OBJECT, "there is no CRG '%s' any more", name);
    }
    if (status_crg_code (crg) != CRG_EXIT_UNAVAILABLE
        && strcmp (json_string_value (json_object_get (crg, "state")) ?: "", "active") == 0) {
      json_decref (answer);
      return CRG_EXIT_FINE;
    }
    if (clock_boottime_ms () >= end) {
      reason = json_string_value (json_object_get (crg, "reason"));
      cli_error (cli, CRG_EXIT_TIMEOUT, "CRG '%s' was started, but is not served after %ld s%s%s; "
                 "'crgctl status %s' says what it waits for", name, seconds,
                 reason && *reason ? ": " : "", reason ? reason : "", name);
      json_decref (answer);
      return CRG_EXIT_TIMEOUT;
    }
    json_decref (answer);
    nanosleep (&pause, NULL);
  }
}

/* Right after `create` the members are still forming their group; that passes by itself, so
 * `start` asks again for this long. */
#define START_JOIN_MS 10000

int
group_start_command (struct cli *cli)
{
  const struct timespec pause = { 0, 100 * 1000 * 1000 };
  uint64_t end = clock_boottime_ms () + START_JOIN_MS;
  char err[CONF_ERR_MAX + 1];
  json_t *answer;
  long seconds;
  int rc;

  if (!cli_number (cli, OPT_WAIT, 1, 86400, 0, &seconds))
    return CRG_EXIT_USAGE;
  while ((rc = client_call_quiet (cli, json_pack ("{s:s, s:s}", "cmd", "start", "crg",
                                                  cli->words[0]), &answer, err, sizeof err))
           == CRG_EXIT_UNAVAILABLE
         && clock_boottime_ms () < end)
    nanosleep (&pause, NULL);
  if (rc != CRG_EXIT_FINE)
    return cli_error (cli, rc, "%s", err);
  json_decref (answer);
  if (seconds > 0)
    return wait_served (cli, cli->words[0], seconds);
  return CRG_EXIT_FINE;
}

int
group_end_command (struct cli *cli)
{
  json_t *answer;
  int rc;

  rc = client_call (cli, json_pack ("{s:s, s:s}", "cmd", "end", "crg", cli->words[0]), &answer);
  if (rc == CRG_EXIT_FINE)
    json_decref (answer);
  return rc;
}

int
group_delete_command (struct cli *cli)
{
  char reply[CRG_NAME_MAX + 4];
  json_t *answer;
  int rc;

  if (!cli->given[OPT_YES]) {
    if (!isatty (STDIN_FILENO) || !isatty (STDERR_FILENO))
      return cli_error (cli, CRG_EXIT_NEEDS_FORCE, "CRG '%s' would be forgotten on all its nodes; say "
                        "--yes if that is meant", cli->words[0]);
    fprintf (stderr, "CRG '%s' is forgotten on all its nodes; its stores keep their data.\n"
                     "Type its name to go on: ", cli->words[0]);
    if (!fgets (reply, sizeof reply, stdin))
      reply[0] = '\0';
    reply[strcspn (reply, "\n")] = '\0';
    if (strcmp (reply, cli->words[0]) != 0)
      return cli_error (cli, CRG_EXIT_NEEDS_FORCE, "not confirmed; nothing was done");
  }
  rc = client_call (cli, json_pack ("{s:s, s:s}", "cmd", "delete", "crg", cli->words[0]), &answer);
  if (rc == CRG_EXIT_FINE)
    json_decref (answer);
  return rc;
}

int
group_switchover_command (struct cli *cli)
{
  const char *text;
  json_t *answer, *request;
  long seconds;
  int rc;

  if (!cli_number (cli, OPT_WAIT, 1, 86400, 30, &seconds))
    return CRG_EXIT_USAGE;
  if (cli->given[OPT_FORCE] && !cli->given[OPT_TO])
    return cli_error (cli, CRG_EXIT_USAGE, "--force needs --to NODE: say whose copy is to be taken");
  request = json_pack ("{s:s, s:s, s:s?, s:s*, s:b, s:b, s:I}", "cmd", "switchover", "crg", cli->words[0], "to",
                       cli->value[OPT_TO], "iasp", cli->value[OPT_IASP], "dry_run", (int) cli->given[OPT_DRY_RUN], "force",
                       (int) cli->given[OPT_FORCE], "wait_ms", (json_int_t) seconds * 1000);
  /* crgd keeps to wait_ms; it is down only if it doesn't even say so. */
  cli->timeout_ms = MAX (cli->timeout_ms, (int) seconds * 1000 + 5000);
  rc = client_call (cli, request, &answer);
  if (rc != CRG_EXIT_FINE)
    return rc;
  text = json_string_value (json_object_get (answer, "text"));
  if (!text)
    text = json_string_value (json_object_get (answer, "plan"));
  if (text)
    printf ("%s\n", text);
  json_decref (answer);
  return CRG_EXIT_FINE;
}

const char *const mirror_verbs[] = { "suspend", "resume", "detach", "reattach", "unbar", "verify", NULL };

int
group_mirror_command (struct cli *cli)
{
  const char *verb = cli->words[0];
  json_t *answer;
  unsigned i = 0;
  int rc;

  while (mirror_verbs[i] && strcmp (mirror_verbs[i], verb) != 0)
    i++;
  if (!mirror_verbs[i])
    return cli_error (cli, CRG_EXIT_USAGE, "there is no 'mirror %s'; it is suspend, resume, detach, "
                      "reattach, unbar or verify", verb);
  if (cli->given[OPT_EXPORT] && strcmp (verb, "detach") != 0)
    return cli_error (cli, CRG_EXIT_USAGE, "--export goes with 'mirror detach' only");
  if (cli->given[OPT_FORCE] && strcmp (verb, "reattach") != 0)
    return cli_error (cli, CRG_EXIT_USAGE, "--force goes with 'mirror reattach' only");
  if (strcmp (verb, "verify") == 0)
    return verify_command (cli);
  if (cli->given[OPT_REPAIR] || cli->given[OPT_STOP] || cli->given[OPT_WAIT])
    return cli_error (cli, CRG_EXIT_USAGE, "--repair, --stop and --wait go with 'mirror verify' only");
  rc = client_call (cli, json_pack ("{s:s, s:s, s:s, s:s*, s:s*, s:b}", "cmd", "mirror", "verb", verb, "iasp",
                                    cli->words[1], "site", cli->value[OPT_SITE], "export",
                                    cli->value[OPT_EXPORT], "force", (int) cli->given[OPT_FORCE]), &answer);
  if (rc == CRG_EXIT_FINE)
    json_decref (answer);
  return rc;
}

static bool
has_node (const json_t *crg, const char *name)
{
  json_t *node;
  size_t i;

  json_array_foreach (json_object_get (crg, "nodes"), i, node)
    if (strcmp (json_string_value (json_object_get (node, "name")) ?: "", name) == 0)
      return true;
  return false;
}

/* In each CRG that has the node, or in one of them. */
int
group_mark_failed_command (struct cli *cli)
{
  const char *node = cli->words[0], *only = cli->value[OPT_CRG], *name;
  json_t *status, *crg, *answer;
  int rc, worst = CRG_EXIT_FINE;
  unsigned found = 0;
  size_t i;

  if (!cli->given[OPT_CONFIRM])
    return cli_error (cli, CRG_EXIT_NEEDS_FORCE, "if '%s' still runs, data can be lost: make sure that "
                      "its machine is off or cut from its disks, then say --i-confirm-it-is-dead", node);
  rc = client_call (cli, json_pack ("{s:s, s:s*}", "cmd", "status", "crg", only), &status);
  if (rc != CRG_EXIT_FINE)
    return rc;
  json_array_foreach (json_object_get (status, "crgs"), i, crg) {
    name = json_string_value (json_object_get (crg, "name")) ?: "";
    if (!has_node (crg, node) || (only && strcmp (only, name) != 0))
      continue;
    found++;
    rc = client_call (cli, json_pack ("{s:s, s:s, s:s}", "cmd", "mark-failed", "crg", name, "node", node),
                      &answer);
    worst = MAX (worst, rc);
    if (rc == CRG_EXIT_FINE) {
      printf ("CRG '%s': node '%s' is marked failed\n", name, node);
      json_decref (answer);
    }
  }
  json_decref (status);
  if (found == 0)
    return cli_error (cli, CRG_EXIT_NO_OBJECT, "there is no node '%s' in %s%s on this node; 'crgctl "
                      "status' lists them", node, only ? "CRG " : "any CRG", only ? only : "");
  return worst;
}

/* ---- uri, trace ------------------------------------------------------------------------- */

/* As a client asks, who is no member of the cluster. */
static int
ask_uri (struct cli *cli)
{
  static struct ask_list list;
  static struct ask_result result[CRG_MAX_NODES];
  static const uint8_t any[CRG_ID_LEN];
  const char *dir = cli->value[OPT_TLS];
  struct tlslink_ctx *tls = NULL;
  char err[CONF_ERR_MAX + 1];
  int i, rc = CRG_EXIT_UNAVAILABLE;

  if (ask_parse (&list, cli->value[OPT_NODES], err, sizeof err) < 0)
    return cli_error (cli, CRG_EXIT_USAGE, "--nodes: %s", err);
  if (ask_needs_tls (&list)) {
    if (!dir)
      return cli_error (cli, CRG_EXIT_USAGE, "nodes are asked over TLS: give --tls-certificates, the client's "
                        "directory of 'crgctl init-pki'");
    tls = ask_load_tls (dir, err, sizeof err);
    if (!tls)
      return cli_error (cli, CRG_EXIT_USAGE, "%s", err);
  }
  i = ask_all (&list, tls, cli->words[0], 0, any, (unsigned) MIN (cli->timeout_ms, 5000), -1, result);
  tlslink_ctx_free (tls);
  if (i >= 0) {
    printf ("%s\n", result[i].a.uri);
    return CRG_EXIT_FINE;
  }
  for (unsigned k = 0; k < list.n; k++) {
    const struct ask_result *r = &result[k];

    if (r->answered)
      rc = cli_error (cli, r->a.code == CRG_EXIT_NO_OBJECT ? CRG_EXIT_NO_OBJECT : CRG_EXIT_UNAVAILABLE,
                      "node %s: %s", r->a.node, r->a.error);
    else
      cli_error (cli, 0, "%s", r->error);
  }
  return rc;
}

int
group_uri_command (struct cli *cli)
{
  const char *uri;
  json_t *answer;
  int rc;

  if (cli->given[OPT_NODES])
    return ask_uri (cli);
  rc = client_call (cli, json_pack ("{s:s, s:s}", "cmd", "uri", "iasp", cli->words[0]), &answer);
  if (rc != CRG_EXIT_FINE)
    return rc;
  uri = json_string_value (json_object_get (answer, "uri"));
  if (uri)
    printf ("%s\n", uri);
  else
    rc = cli_error (cli, CRG_EXIT_ERROR, "crgd answered without a URI; is it of another release?");
  json_decref (answer);
  return rc;
}

int
group_trace_command (struct cli *cli)
{
  json_t *answer, *events, *event;
  size_t i;
  int rc;

  rc = client_call (cli, json_pack ("{s:s, s:s*}", "cmd", "trace", "crg",
                                    cli->n_words ? cli->words[0] : NULL), &answer);
  if (rc != CRG_EXIT_FINE)
    return rc;
  events = json_object_get (answer, "events");
  if (cli->given[OPT_JSON]) {
    json_dumpf (events, stdout, JSON_INDENT (2) | JSON_PRESERVE_ORDER);
    putchar ('\n');
  }
  else
    json_array_foreach (events, i, event) {
      if (json_is_string (event))
        printf ("%s\n", json_string_value (event));
      else {
        json_dumpf (event, stdout, JSON_COMPACT | JSON_PRESERVE_ORDER);
        putchar ('\n');
      }
    }
  json_decref (answer);
  return CRG_EXIT_FINE;
}
