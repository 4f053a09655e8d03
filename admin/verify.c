/* SPDX-License-Identifier: BSD-3-Clause */
/* crgctl mirror verify: asks for a comparison, follows it in crgd's status, says what differs.  The
 * comparison goes on if this ends.
 */
#include "config.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "admin/cli.h"
#include "common/clock.h"

#define LOOK_MS 200
/* crgd has the plugin's status of a second ago at most. */
#define SEEN_MS 15000

static json_int_t
number (const json_t *obj, const char *key)
{
  return json_integer_value (json_object_get (obj, key));
}

static const char *
text (const json_t *obj, const char *key)
{
  return json_string_value (json_object_get (obj, key)) ?: "";
}

/* What a status answer says of the comparison of an IASP, or NULL. */
static const json_t *
find_verify (const json_t *status, const char *name)
{
  json_t *crg, *iasp, *found = NULL;
  size_t i, j;

  json_array_foreach (json_object_get (status, "crgs"), i, crg)
    json_array_foreach (json_object_get (crg, "iasps"), j, iasp)
      if (strcmp (text (iasp, "name"), name) == 0)
        found = json_object_get (iasp, "verify");
  return json_is_object (found) ? found : NULL;
}

/* For people, where standard error is a terminal. */
static void
show_progress (const json_t *v, bool end)
{
  json_int_t total = number (v, "total"), eta = number (v, "eta");
  char left[32] = "";

  if (!isatty (STDERR_FILENO))
    return;
  if (eta > 0)
    snprintf (left, sizeof left, ", %lld s left", (long long) eta);
  fprintf (stderr, "\r%3lld %% compared, %lld MiB/s%s   %s",
           total > 0 ? (long long) (100.0 * (double) number (v, "done") / (double) total) : 0LL,
           (long long) (number (v, "rate") >> 20), left, end ? "\n" : "");
}

/* What it found of each copy, and the exit code. */
static int
report (struct cli *cli, const json_t *v)
{
  json_t *copy, *range;
  bool stopped = false, differs = false;
  size_t i, k;

  json_array_foreach (json_object_get (v, "copies"), i, copy) {
    const char *site = text (copy, "site");
    json_int_t different = number (copy, "different");
    uint64_t named = 0;
    bool repaired = json_is_true (json_object_get (copy, "repaired"));

    json_array_foreach (json_object_get (copy, "found"), k, range) {
      printf ("the copy at %s differs in %lld bytes at %lld\n", site,
              (long long) json_integer_value (json_array_get (range, 1)),
              (long long) json_integer_value (json_array_get (range, 0)));
      named += (uint64_t) json_integer_value (json_array_get (range, 1));
    }
    if (different > 0 && (uint64_t) different > named)
      printf ("the copy at %s differs in %lld bytes elsewhere\n", site, (long long) ((uint64_t) different - named));
    if (strcmp (text (copy, "state"), "stopped") == 0) {
      cli_error (cli, 0, "the copy at %s was not compared to the end: %s (%lld of %lld bytes compared)", site,
                 text (copy, "reason"), (long long) number (copy, "compared"), (long long) number (v, "total"));
      stopped = true;
    }
    else if (different == 0)
      printf ("the copy at %s is equal to production: %lld bytes compared\n", site,
              (long long) number (copy, "compared"));
    else if (repaired)
      printf ("the copy at %s: %lld bytes differed and were repaired\n", site, (long long) different);
    differs = differs || (different > 0 && !repaired);
  }
  if (differs)
    return CRG_EXIT_DEGRADED;
  return stopped ? CRG_EXIT_ERROR : CRG_EXIT_FINE;
}

static int
follow (struct cli *cli, const char *name, json_int_t run, long seconds)
{
  const struct timespec pause = { .tv_nsec = LOOK_MS * 1000 * 1000 };
  uint64_t begin = clock_boottime_ms ();
  bool seen = false;
  json_t *answer;
  int rc;

  for (;;) {
    const json_t *v;

    rc = client_call (cli, json_pack ("{s:s}", "cmd", "status"), &answer);
    if (rc != CRG_EXIT_FINE)
      return rc;
    v = find_verify (answer, name);
    if (v && number (v, "refused_run") == run) {
      rc = cli_error (cli, CRG_EXIT_REFUSED, "IASP %s: %s", name, text (v, "refused"));
      json_decref (answer);
      return rc;
    }
    if (v && number (v, "run") == run) {
      bool over = !json_is_true (json_object_get (v, "on"));

      seen = true;
      show_progress (v, over);
      if (over) {
        rc = report (cli, v);
        json_decref (answer);
        return rc;
      }
    }
    else if (seen || clock_boottime_ms () - begin > SEEN_MS) {
      json_decref (answer);
      return cli_error (cli, CRG_EXIT_ERROR, "IASP %s: the comparison is gone: production's process ended, or has "
                        "another host now; 'crgctl status' says which", name);
    }
    json_decref (answer);
    if (seconds > 0 && clock_boottime_ms () - begin >= (uint64_t) seconds * 1000)
      return cli_error (cli, CRG_EXIT_TIMEOUT, "IASP %s: the comparison goes on; 'crgctl status' shows it", name);
    nanosleep (&pause, NULL);
  }
}

int
verify_command (struct cli *cli)
{
  const char *name = cli->words[1];
  json_t *answer;
  json_int_t run;
  long seconds;
  int rc;

  if (!cli_number (cli, OPT_WAIT, 1, 86400 * 7, 0, &seconds))
    return CRG_EXIT_USAGE;
  if (cli->given[OPT_STOP] && (cli->given[OPT_REPAIR] || cli->given[OPT_SITE]))
    return cli_error (cli, CRG_EXIT_USAGE, "--stop goes alone");
  rc = client_call (cli, json_pack ("{s:s, s:s, s:s, s:s*, s:b, s:b}", "cmd", "mirror", "verb", "verify", "iasp", name,
                                    "site", cli->value[OPT_SITE], "repair", (int) cli->given[OPT_REPAIR], "stop",
                                    (int) cli->given[OPT_STOP]), &answer);
  if (rc != CRG_EXIT_FINE)
    return rc;
  run = number (answer, "run");
  json_decref (answer);
  return cli->given[OPT_STOP] ? CRG_EXIT_FINE : follow (cli, name, run, seconds);
}
