/* SPDX-License-Identifier: BSD-3-Clause */
/* crgctl's end of the admin socket: which crgd, one request, progress, one answer.
 */
#include "config.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "admin/cli.h"
#include "common/conf.h"
#include "common/jsonl.h"
#include "common/util-posix.h"

#define DEFAULT_SOCKET "/run/nbd-crg/crgd.sock"

UTIL_PRINTF (4, 5)
static int
fail (char *err, size_t errlen, int code, const char *fmt, ...)
{
  va_list ap;

  va_start (ap, fmt);
  vsnprintf (err, errlen, fmt, ap);
  va_end (ap);
  return code;
}

/* --socket, --conf, $CRGCTL_SOCKET, the default: the first that is given. */
static int
find_socket (const struct cli *cli, char *path, size_t len, char *err, size_t errlen)
{
  CLEANUP_FREE struct conf_crgd *conf = NULL;
  const char *env = getenv ("CRGCTL_SOCKET");
  int rc;

  if (cli->given[OPT_SOCKET])
    snprintf (path, len, "%s", cli->value[OPT_SOCKET]);
  else if (cli->given[OPT_CONF]) {
    conf = calloc (1, sizeof *conf);
    if (!conf)
      return fail (err, errlen, CRG_EXIT_ERROR, "out of memory");
    rc = conf_read_crgd (cli->value[OPT_CONF], conf, err, errlen);
    if (rc < 0)
      return rc == -ENOENT ? CRG_EXIT_NO_OBJECT : CRG_EXIT_USAGE;
    snprintf (path, len, "%s/crgd.sock", conf->run_dir);
  }
  else if (env && *env)
    snprintf (path, len, "%s", env);
  else
    snprintf (path, len, "%s", DEFAULT_SOCKET);
  return CRG_EXIT_FINE;
}

static int
connect_error (const char *path, int error, char *err, size_t errlen)
{
  switch (error) {
  case ENOENT:
    return fail (err, errlen, CRG_EXIT_DAEMON_DOWN, "there is no socket %s; start crgd, or choose "
                 "another with --socket or --conf", path);
  case ECONNREFUSED:
    return fail (err, errlen, CRG_EXIT_DAEMON_DOWN, "nobody listens on %s; crgd has died, start it "
                 "again", path);
  case ENAMETOOLONG:
    return fail (err, errlen, CRG_EXIT_USAGE, "the socket's path is longer than %d bytes: %s",
                 CRG_SOCK_PATH_MAX, path);
  default:
    return fail (err, errlen, CRG_EXIT_DAEMON_DOWN, "cannot connect to %s: %s", path,
                 strerror (error));
  }
}

/* A final answer that is an error: its code, if it is one of ours. */
static int
answer_error (const json_t *answer, char *err, size_t errlen)
{
  const char *text = json_string_value (json_object_get (answer, "error"));
  json_int_t code = json_integer_value (json_object_get (answer, "code"));

  snprintf (err, errlen, "%s", text ? text : "crgd gave no reason");
  switch (code) {
#define CLIENT_CODE(symbol, number, name, meaning) \
  case number:                                     \
    return number ? number : CRG_EXIT_ERROR;
    CRG_EXIT_CODES (CLIENT_CODE)
#undef CLIENT_CODE
  default:
    return CRG_EXIT_ERROR;
  }
}

static int
exchange (struct cli *cli, const char *path, json_t *request, bool quiet, json_t **answer, char *err,
          size_t errlen)
{
  struct jsonl_reader reader;
  CLEANUP_CLOSE int fd = jsonl_connect (path, cli->timeout_ms);
  const char *progress;
  json_t *obj = NULL;
  int rc, code;

  if (fd < 0 && fd != -ETIMEDOUT)
    return connect_error (path, -fd, err, errlen);
  jsonl_reader_init (&reader, 0);
  rc = fd < 0 ? fd : jsonl_send (fd, request, cli->timeout_ms);
  while (rc == 0) {
    rc = jsonl_receive (fd, &reader, cli->timeout_ms, &obj);
    if (rc < 0)
      break;
    progress = json_string_value (json_object_get (obj, "progress"));
    if (!progress)
      break;
    if (!quiet)
      fprintf (stderr, "%s\n", progress);
    json_decref (obj);
    obj = NULL;
  }
  jsonl_reader_free (&reader);
  if (rc == -ETIMEDOUT)
    return fail (err, errlen, CRG_EXIT_TIMEOUT, "crgd on %s has said nothing for %d s; what was asked "
                 "may still happen: see 'crgctl status', or give a longer --timeout", path,
                 cli->timeout_ms / 1000);
  if (rc == -ECONNRESET || rc == -EPIPE)
    return fail (err, errlen, CRG_EXIT_DAEMON_DOWN, "crgd on %s hung up before it answered; see its "
                 "log, and 'crgctl status' for what happened", path);
  if (rc < 0)
    return fail (err, errlen, CRG_EXIT_ERROR, "cannot talk to crgd on %s: %s", path, strerror (-rc));
  if (json_is_true (json_object_get (obj, "ok"))) {
    *answer = obj;
    return CRG_EXIT_FINE;
  }
  code = answer_error (obj, err, errlen);
  json_decref (obj);
  return code;
}

static int
call (struct cli *cli, json_t *request, bool quiet, json_t **answer, char *err, size_t errlen)
{
  char path[CRG_PATH_MAX + 32];
  int rc;

  *answer = NULL;
  rc = find_socket (cli, path, sizeof path, err, errlen);
  if (rc == CRG_EXIT_FINE) {
    if (!request || json_object_set_new (request, "v", json_integer (1)) < 0)
      rc = fail (err, errlen, CRG_EXIT_ERROR, "out of memory");
    else
      rc = exchange (cli, path, request, quiet, answer, err, errlen);
  }
  json_decref (request);
  return rc;
}

int
client_call_quiet (struct cli *cli, json_t *request, json_t **answer, char *err, size_t errlen)
{
  return call (cli, request, true, answer, err, errlen);
}

int
client_call (struct cli *cli, json_t *request, json_t **answer)
{
  char err[JSON_ERROR_TEXT_LENGTH + CONF_ERR_MAX + 1];
  int rc = call (cli, request, false, answer, err, sizeof err);

  return rc == CRG_EXIT_FINE ? rc : cli_error (cli, rc, "%s", err);
}
