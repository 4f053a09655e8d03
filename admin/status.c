/* SPDX-License-Identifier: BSD-3-Clause */
/* crgctl status and the predicates of crgctl is: what a status answer says, for people and as an
 * exit code.  Reads JSON that another release may have written: a field that is absent is shown as
 * "?", never a crash.
 */
#include "config.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "admin/cli.h"
#include "common/jsonl.h"

/* ---- fields ----------------------------------------------------------------------------- */

static const char *
text_of (const json_t *o, const char *key)
{
  const char *text = json_string_value (json_object_get (o, key));

  return text ? text : "";
}

static json_int_t
number_of (const json_t *o, const char *key)
{
  return json_integer_value (json_object_get (o, key));
}

static bool
is_true (const json_t *o, const char *key)
{
  return json_is_true (json_object_get (o, key));
}

static bool
text_is (const json_t *o, const char *key, const char *value)
{
  return strcmp (text_of (o, key), value) == 0;
}

const json_t *
status_find_crg (const json_t *status, const char *name)
{
  json_t *crg;
  size_t i;

  json_array_foreach (json_object_get (status, "crgs"), i, crg)
    if (text_is (crg, "name", name))
      return crg;
  return NULL;
}

static const json_t *
find_iasp (const json_t *status, const char *name, const json_t **of)
{
  json_t *crg, *iasp;
  size_t i, j;

  json_array_foreach (json_object_get (status, "crgs"), i, crg)
    json_array_foreach (json_object_get (crg, "iasps"), j, iasp)
      if (text_is (iasp, "name", name)) {
        *of = crg;
        return iasp;
      }
  return NULL;
}

/* ---- verdicts --------------------------------------------------------------------------- */

static bool
iasp_in_sync (const json_t *iasp)
{
  json_t *copy;
  size_t i;

  json_array_foreach (json_object_get (iasp, "copies"), i, copy)
    if (!text_is (copy, "data", "in-sync"))
      return false;
  return text_is (iasp, "type", "script") || json_array_size (json_object_get (iasp, "copies")) > 0;
}

int
status_crg_code (const json_t *crg)
{
  const json_t *iasps = json_object_get (crg, "iasps");
  bool degraded = false;
  json_t *iasp;
  size_t i;

  if (text_is (crg, "state", "ended") || text_is (crg, "state", "inactive"))
    return CRG_EXIT_FINE; /* an operator wants it so */
  if (!text_is (crg, "state", "active"))
    return CRG_EXIT_UNAVAILABLE;
  json_array_foreach (iasps, i, iasp) {
    if (!is_true (iasp, "serving"))
      return CRG_EXIT_UNAVAILABLE;
    degraded |= !iasp_in_sync (iasp);
  }
  return degraded ? CRG_EXIT_DEGRADED : CRG_EXIT_FINE;
}

/* ---- words ------------------------------------------------------------------------------ */

/* "1.5 GiB" */
static const char *
bytes_text (json_int_t bytes, char buf[32])
{
  static const char *const units[] = { "bytes", "KiB", "MiB", "GiB", "TiB", "PiB" };
  double value = (double) bytes;
  unsigned u = 0;

  while (value >= 1024 && u < ARRAY_SIZE (units) - 1) {
    value /= 1024;
    u++;
  }
  snprintf (buf, 32, u == 0 || value >= 100 ? "%.0f %s" : "%.1f %s", value, units[u]);
  return buf;
}

/* "1 h 5 min", "12 s", "0.3 s" */
static const char *
age_text (json_int_t ms, char buf[32])
{
  json_int_t s = ms / 1000;

  if (ms < 0)
    snprintf (buf, 32, "?");
  else if (s < 10)
    snprintf (buf, 32, "%" JSON_INTEGER_FORMAT ".%" JSON_INTEGER_FORMAT " s", s, ms % 1000 / 100);
  else if (s < 120)
    snprintf (buf, 32, "%" JSON_INTEGER_FORMAT " s", s);
  else if (s < 7200)
    snprintf (buf, 32, "%" JSON_INTEGER_FORMAT " min", s / 60);
  else
    snprintf (buf, 32, "%" JSON_INTEGER_FORMAT " h %" JSON_INTEGER_FORMAT " min", s / 3600,
              s / 60 % 60);
  return buf;
}

static const char *
seconds_text (json_int_t s, char buf[32])
{
  return age_text (s < INT64_MAX / 1000 ? s * 1000 : INT64_MAX, buf);
}

/* A wait: "the data path waits for copy milan: no answer (12 s)". */
static void
print_wait (const char *indent, const json_t *wait)
{
  char buf[32];
  json_int_t age = json_object_get (wait, "age_ms") ? number_of (wait, "age_ms")
                                                    : number_of (wait, "since_ms");
  const char *owner = text_of (wait, "owner");

  if (!json_is_object (wait))
    return;
  printf ("%swaiting %s%s%s%s for %s\n", indent, *owner ? "(" : "", owner, *owner ? ") " : "",
          text_of (wait, "reason"), age_text (age, buf));
}

/* ---- one CRG ---------------------------------------------------------------------------- */

static const char *
state_text (const json_t *crg, char *buf, size_t len)
{
  size_t i, n = 0, in_sync = 0, served = 0;
  json_t *iasp;

  json_array_foreach (json_object_get (crg, "iasps"), i, iasp) {
    n++;
    served += is_true (iasp, "serving");
    in_sync += iasp_in_sync (iasp);
  }
  if (text_is (crg, "state", "active") && served == n && in_sync == n)
    snprintf (buf, len, "active, all copies in sync");
  else if (text_is (crg, "state", "active") && served == n)
    snprintf (buf, len, "active, DEGRADED: %zu of %zu IASPs have a copy that is not in sync",
              n - in_sync, n);
  else if (text_is (crg, "state", "active"))
    snprintf (buf, len, "active, UNAVAILABLE: %zu of %zu IASPs are not served", n - served, n);
  else
    snprintf (buf, len, "%s%s", text_of (crg, "state"),
              status_crg_code (crg) == CRG_EXIT_UNAVAILABLE ? ", UNAVAILABLE" : "");
  return buf;
}

static void
print_nodes (const json_t *crg)
{
  uint64_t votes = 0, present_votes = 0;
  const json_t *lease = json_object_get (crg, "lease");
  char order[24], buf[32];
  json_t *node;
  size_t i;

  json_array_foreach (json_object_get (crg, "nodes"), i, node) {
    bool present = is_true (node, "present");
    const char *role = text_of (node, "current_role");

    votes += (uint64_t) number_of (node, "votes");
    present_votes += present ? (uint64_t) number_of (node, "votes") : 0;
    if (strcmp (role, "backup") == 0)
      snprintf (order, sizeof order, "backup %" JSON_INTEGER_FORMAT, number_of (node, "order"));
    else
      snprintf (order, sizeof order, "%.23s", role);
    printf ("  node  %-12s %-10s %-11s %s", text_of (node, "name"),
            *text_of (node, "site") ? text_of (node, "site") : "-", order,
            present ? "present" : "ABSENT");
    if (is_true (node, "marked_failed"))
      printf (", marked failed");
    if (!text_is (node, "current_role", text_of (node, "preferred_role"))
        && *text_of (node, "preferred_role"))
      printf (", prefers %s", text_of (node, "preferred_role"));
    if (lease && text_is (lease, "holder", text_of (node, "name"))) {
      printf (", holds the lease");
      if (number_of (lease, "left_ms") > 0)
        printf (" (%s left)", age_text (number_of (lease, "left_ms"), buf));
    }
    putchar ('\n');
  }
  json_array_foreach (json_object_get (crg, "removed_failed"), i, node)
    printf ("  node  %-12s removed while marked failed: what it had open may be opened (S1)\n",
            json_string_value (node) ?: "?");
  printf ("  votes %" PRIu64 " of %" PRIu64 " present: %s\n", present_votes,
          votes, is_true (crg, "majority") ? "majority" : "NO MAJORITY, nothing can change");
}

static void
print_copy (const json_t *copy)
{
  const char *mirror = text_of (copy, "mirror"), *reason = text_of (copy, "reason");
  json_int_t behind = number_of (copy, "behind_bytes"), eta = number_of (copy, "eta_s");
  char buf[32];

  if (behind == 0 && !text_is (copy, "data", "in-sync"))
    behind = number_of (copy, "dirty_bytes");
  printf ("    copy  %-10s %-10s on %-10s %s", text_of (copy, "site"), text_of (copy, "role"),
          *text_of (copy, "host") ? text_of (copy, "host") : "nobody", text_of (copy, "data"));
  if (*mirror && strcmp (mirror, "-") != 0 && strcmp (mirror, "mirroring") != 0)
    printf (", %s", mirror);
  if (strcmp (mirror, "resyncing") == 0) {
    printf (" %" JSON_INTEGER_FORMAT " %%", number_of (copy, "progress"));
    if (number_of (copy, "rate_bytes_s") > 0)
      printf (" at %s/s", bytes_text (number_of (copy, "rate_bytes_s"), buf));
    if (eta > 0)
      printf (", %s to go", seconds_text (eta, buf));
    if (is_true (copy, "yields"))
      printf (", yielding to clients");
  }
  if (behind > 0)
    printf (", %s behind", bytes_text (behind, buf));
  if (number_of (copy, "behind_s") > 0)
    printf (", since %s", seconds_text (number_of (copy, "behind_s"), buf));
  if (is_true (copy, "barred"))
    printf (", barred");
  if (*reason)
    printf (": %s", reason);
  if (*text_of (copy, "uri"))
    printf (", at %s", text_of (copy, "uri"));
  putchar ('\n');
}

/* A comparison that is under way, or what the last one found. */
static void
print_verify (const json_t *v)
{
  json_int_t total = number_of (v, "total");
  char buf[32];
  json_t *copy;
  size_t i;

  if (is_true (v, "on")) {
    printf ("    verify %" JSON_INTEGER_FORMAT " %% compared", total > 0 ? (json_int_t) (100.0 * (double) number_of (v, "done") / (double) total) : 0);
    if (number_of (v, "rate") > 0)
      printf (" at %s/s", bytes_text (number_of (v, "rate"), buf));
    if (number_of (v, "eta") > 0)
      printf (", %s to go", seconds_text (number_of (v, "eta"), buf));
    putchar ('\n');
  }
  json_array_foreach (json_object_get (v, "copies"), i, copy)
    if (number_of (copy, "different") > 0)
      printf ("    verify the copy at %s differed in %s%s\n", text_of (copy, "site"),
              bytes_text (number_of (copy, "different"), buf),
              is_true (copy, "repaired") ? "; repaired" : is_true (v, "repair") ? "; repair under way, or stopped" : "");
}

static void
print_iasp (const json_t *iasp)
{
  char buf[32];
  json_t *copy, *wait, *name;
  size_t i;

  bool script = text_is (iasp, "type", "script");

  if (script)
    printf ("  script %-11s ", text_of (iasp, "name"));
  else
    printf ("  IASP  %-12s %s, ", text_of (iasp, "name"), bytes_text (number_of (iasp, "size"), buf));
  if (script && is_true (iasp, "serving"))
    printf ("runs on %s\n", text_of (iasp, "production_node"));
  else if (is_true (iasp, "serving"))
    printf ("served by %s at %s\n", text_of (iasp, "production_node"), text_of (iasp, "uri"));
  else if (*text_of (iasp, "production_node"))
    printf ("NOT SERVED; its host is %s\n", text_of (iasp, "production_node"));
  else
    printf ("NOT SERVED; it has no production host\n");
  if (*text_of (iasp, "reason"))
    printf ("    why   %s\n", text_of (iasp, "reason"));
  if (json_object_get (iasp, "subgroup")) {
    printf ("    can be hosted by");
    json_array_foreach (json_object_get (iasp, "subgroup"), i, name)
      printf (" %s", json_string_value (name) ?: "?");
    printf ("%s\n", json_array_size (json_object_get (iasp, "subgroup")) ? "" : " nobody");
  }
  if (is_true (iasp, "held"))
    printf ("    I/O is HELD: %s\n", text_of (iasp, "hold_reason"));
  if (number_of (iasp, "loss") > 0)
    printf ("    loss  %" JSON_INTEGER_FORMAT " times answered writes may have been lost\n",
            number_of (iasp, "loss"));
  json_array_foreach (json_object_get (iasp, "copies"), i, copy)
    print_copy (copy);
  print_verify (json_object_get (iasp, "verify"));
  json_array_foreach (json_object_get (iasp, "waits"), i, wait)
    print_wait ("    ", wait);
}

static void
print_crg (const json_t *crg)
{
  const char *reason = text_of (crg, "reason");
  char buf[160];
  json_t *iasp;
  size_t i;

  printf ("CRG %s: %s (epoch %" JSON_INTEGER_FORMAT ".%" JSON_INTEGER_FORMAT ")\n", text_of (crg, "name"),
          state_text (crg, buf, sizeof buf), number_of (crg, "epoch"), number_of (crg, "version"));
  if (json_is_object (json_object_get (crg, "wait")))
    print_wait ("  ", json_object_get (crg, "wait"));
  else if (*reason)
    printf ("  why   %s\n", reason);
  print_nodes (crg);
  json_array_foreach (json_object_get (crg, "iasps"), i, iasp)
    print_iasp (iasp);
}

static void
print_status (const json_t *status, const json_t *only)
{
  const json_t *engine = json_object_get (status, "engine");
  json_t *crg;
  size_t i;

  if (!only) {
    printf ("node %s, engine %s: %s\n", text_of (status, "node"), text_of (engine, "type"),
            is_true (engine, "connected") ? "connected" : "NOT CONNECTED");
    if (json_array_size (json_object_get (status, "crgs")) == 0)
      printf ("no CRG; 'crgctl create FILE' makes one\n");
  }
  json_array_foreach (json_object_get (status, "crgs"), i, crg)
    if (!only || only == crg)
      print_crg (crg);
}

/* ---- explain ---------------------------------------------------------------------------- */

static void
print_lines (const char *indent, const json_t *of)
{
  json_t *line;
  size_t i;

  json_array_foreach (json_object_get (of, "text"), i, line)
    printf ("%s%s\n", indent, json_string_value (line) ?: "?");
}

int
status_explain_command (struct cli *cli)
{
  json_t *answer, *page, *copy, *wait;
  size_t i;
  int rc;

  rc = client_call (cli, json_pack ("{s:s, s:s}", "cmd", "explain", "iasp", cli->words[0]), &answer);
  if (rc != CRG_EXIT_FINE)
    return rc;
  page = json_object_get (answer, "explain");
  if (cli->given[OPT_JSON]) {
    json_dumpf (page, stdout, JSON_INDENT (2) | JSON_PRESERVE_ORDER);
    putchar ('\n');
    json_decref (answer);
    return CRG_EXIT_FINE;
  }
  printf ("IASP %s of CRG %s\n", text_of (page, "iasp"), text_of (page, "crg"));
  print_lines ("  ", page);
  json_array_foreach (json_object_get (page, "copies"), i, copy) {
    printf ("copy of site %s: %s on %s, %s\n", text_of (copy, "site"), text_of (copy, "role"),
            text_of (copy, "host"), text_of (copy, "state"));
    print_lines ("  ", copy);
  }
  json_array_foreach (json_object_get (page, "waits"), i, wait) {
    char buf[32];

    printf ("waiting: %s%s%s: %s, for %s\n", text_of (wait, "owner"),
            *text_of (wait, "node") ? " on " : "", text_of (wait, "node"), text_of (wait, "reason"),
            age_text (number_of (wait, "age_ms"), buf));
  }
  if (json_array_size (json_object_get (page, "waits")) == 0)
    printf ("nothing waits\n");
  json_decref (answer);
  return CRG_EXIT_FINE;
}

/* ---- status ----------------------------------------------------------------------------- */

/* Asks, prints, and gives the worst of what is shown. */
static int
show_once (struct cli *cli)
{
  const char *name = cli->n_words ? cli->words[0] : NULL;
  const json_t *only = NULL;
  json_t *answer, *crg;
  int rc, code;
  size_t i;

  rc = client_call (cli, json_pack ("{s:s, s:s*}", "cmd", "status", "crg", name), &answer);
  if (rc != CRG_EXIT_FINE)
    return rc;
  if (name && !(only = status_find_crg (answer, name))) {
    json_decref (answer);
    return cli_error (cli, CRG_EXIT_NO_OBJECT, "there is no CRG '%s' on this node; 'crgctl status' "
                      "lists them", name);
  }
  if (cli->given[OPT_WATCH] && isatty (STDOUT_FILENO))
    fputs ("\033[H\033[2J", stdout);
  if (cli->given[OPT_JSON]) {
    json_object_del (answer, "ok");
    json_dumpf (only ? only : answer, stdout, JSON_INDENT (2) | JSON_PRESERVE_ORDER);
    putchar ('\n');
  }
  else
    print_status (answer, only);
  json_array_foreach (json_object_get (answer, "crgs"), i, crg)
    if (!only || only == crg) {
      code = status_crg_code (crg);
      rc = MAX (rc, code);
    }
  json_decref (answer);
  return rc;
}

int
status_command (struct cli *cli)
{
  const struct timespec pause = { .tv_sec = 1 };
  long count;
  int rc;

  if (!cli_number (cli, OPT_COUNT, 1, 1000000, 0, &count))
    return CRG_EXIT_USAGE;
  if (count > 0 && !cli->given[OPT_WATCH])
    return cli_error (cli, CRG_EXIT_USAGE, "--count goes with --watch");
  for (;;) {
    rc = show_once (cli);
    /* A daemon that is restarted is waited for. */
    if (!cli->given[OPT_WATCH] || --count == 0
        || (rc != CRG_EXIT_FINE && rc != CRG_EXIT_DEGRADED && rc != CRG_EXIT_UNAVAILABLE
            && rc != CRG_EXIT_DAEMON_DOWN && rc != CRG_EXIT_TIMEOUT))
      return rc;
    if (fflush (stdout) != 0)
      return cli_error (cli, CRG_EXIT_ERROR, "cannot write the output");
    nanosleep (&pause, NULL);
  }
}

/* ---- predicates ------------------------------------------------------------------------- */

const char *const status_predicates[] = { "in-sync", "active", "serving", "production", NULL };

static bool
iasp_is (const char *predicate, const json_t *status, const json_t *iasp)
{
  if (strcmp (predicate, "in-sync") == 0)
    return iasp_in_sync (iasp);
  if (strcmp (predicate, "serving") == 0)
    return is_true (iasp, "serving");
  return is_true (iasp, "serving") && text_is (iasp, "production_node", text_of (status, "node"));
}

/* NAME is an IASP, or a CRG: then all of its IASPs are meant. */
static int
judge (struct cli *cli, const json_t *status)
{
  const char *predicate = cli->words[0], *name = cli->words[1];
  const json_t *crg = NULL, *iasp = find_iasp (status, name, &crg);
  json_t *each;
  size_t i, n = 0;

  if (!iasp)
    crg = status_find_crg (status, name);
  if (!crg)
    return cli_error (cli, CRG_EXIT_NO_OBJECT, "there is no IASP or CRG '%s' on this node; 'crgctl "
                      "status' lists them", name);
  if (strcmp (predicate, "active") == 0)
    return text_is (crg, "state", "active") ? CRG_EXIT_FINE : CRG_EXIT_FALSE;
  json_array_foreach (json_object_get (crg, "iasps"), i, each)
    if (!iasp || iasp == each) {
      n++;
      if (!iasp_is (predicate, status, each))
        return CRG_EXIT_FALSE;
    }
  return n > 0 ? CRG_EXIT_FINE : CRG_EXIT_FALSE;
}

int
status_is_command (struct cli *cli)
{
  char err[CONF_ERR_MAX + 1];
  json_t *answer;
  unsigned i;
  int rc;

  for (i = 0; status_predicates[i] && strcmp (status_predicates[i], cli->words[0]) != 0; i++)
    ;
  if (!status_predicates[i])
    return cli_error (cli, CRG_EXIT_USAGE, "'%s' is no predicate; allowed: in-sync, active, serving, "
                      "production", cli->words[0]);
  rc = client_call_quiet (cli, json_pack ("{s:s}", "cmd", "status"), &answer, err, sizeof err);
  if (rc != CRG_EXIT_FINE)
    return cli_error (cli, rc, "%s", err);
  rc = judge (cli, answer);
  json_decref (answer);
  return rc;
}
