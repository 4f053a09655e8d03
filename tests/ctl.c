/* SPDX-License-Identifier: BSD-3-Clause */
/* A controller of one plugin for tests, in the place of crgd.  It forwards commands from standard
 * input to the control socket and prints all that comes back, one JSON object on one line; and it
 * plays the group: it renews the lease, and answers copy-lost and copy-ready with a new record.
 *
 *   ctl SOCKET [--lease MS] [--commit] [--record FILE]
 *     --lease MS     renew a lease of MS every MS / 4 while production
 *     --commit       answer copy-lost and copy-ready with a committed record
 *     --record FILE  the record to start from; kept up to date there
 * A command {"cmd":"role",...} or {"cmd":"record"} without "record" is given the present one.
 * "@sleep MS" on standard input waits; "@lease MS" changes the lease (0: no renewal any more).
 * It ends with its standard input; 1 if the socket is lost.
 */
#include "config.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/jsonl.h"

static int fd;
static bool commit;
static uint64_t lease_ms, renew_at_ms;
static bool is_production;
static const char *record_file;
static json_t *record;
static json_int_t next_id = 1000000; /* above those of scripts */

static void
fail (const char *what)
{
  fprintf (stderr, "ctl: %s\n", what);
  exit (1);
}

static void
print (json_t *obj)
{
  json_dumpf (obj, stdout, JSON_COMPACT);
  putchar ('\n');
  fflush (stdout);
}

static void
save_record (void)
{
  char tmp[4096];

  if (!record_file)
    return;
  /* Whole at any time: scripts read it. */
  snprintf (tmp, sizeof tmp, "%s.new", record_file);
  if (json_dump_file (record, tmp, JSON_COMPACT) < 0 || rename (tmp, record_file) < 0)
    fail ("the record can't be saved");
}

static void
send_command (json_t *obj)
{
  json_object_set_new (obj, "v", json_integer (1));
  if (!json_object_get (obj, "id"))
    json_object_set_new (obj, "id", json_integer (next_id++));
  if (jsonl_send (fd, obj, 5000) < 0)
    fail ("the plugin does not take commands");
}

static void
renew (void)
{
  json_t *obj = json_pack ("{s:s, s:I}", "cmd", "lease", "until_ms", (json_int_t) (clock_boottime_ms () + lease_ms));

  send_command (obj);
  json_decref (obj);
  renew_at_ms = clock_boottime_ms () + lease_ms / 4;
}

/* The group has decided: the copy of 'site' is in the set, or not. */
static void
commit_set (json_int_t site, bool in_set, json_int_t seen)
{
  json_t *s = json_array_get (json_object_get (record, "sites"), (size_t) site), *obj;
  json_int_t generation = json_integer_value (json_object_get (record, "generation"));

  if (!s)
    return;
  if (!in_set && json_is_true (json_object_get (s, "in_set")))
    json_object_set_new (record, "generation", json_integer (++generation));
  json_object_set_new (s, "in_set", json_boolean (in_set));
  json_object_set_new (s, "since", json_integer (in_set ? generation : 0));
  save_record ();
  obj = json_pack ("{s:s, s:O, s:I}", "cmd", "record", "record", record, "seq", seen);
  send_command (obj);
  json_decref (obj);
}

static void
received (json_t *obj)
{
  const char *event = json_string_value (json_object_get (obj, "event"));
  json_int_t site = json_integer_value (json_object_get (obj, "site"));
  json_int_t no = json_integer_value (json_object_get (obj, "seq"));

  if (json_integer_value (json_object_get (obj, "id")) < 1000000 || !json_is_true (json_object_get (obj, "ok")))
    print (obj);
  if (event && commit && record && strcmp (event, "copy-lost") == 0)
    commit_set (site, false, no);
  if (event && commit && record && strcmp (event, "copy-ready") == 0)
    commit_set (site, true, no);
}

static void
typed (char *line)
{
  json_error_t error;
  json_t *obj;
  const char *cmd;

  if (strncmp (line, "@sleep ", 7) == 0) {
    usleep ((useconds_t) atoi (line + 7) * 1000);
    return;
  }
  if (strncmp (line, "@lease ", 7) == 0) {
    lease_ms = (uint64_t) atoi (line + 7);
    renew_at_ms = 0;
    return;
  }
  obj = json_loads (line, 0, &error);
  if (!obj)
    fail (error.text);
  cmd = json_string_value (json_object_get (obj, "cmd"));
  if (cmd && record && (strcmp (cmd, "role") == 0 || strcmp (cmd, "record") == 0) && !json_object_get (obj, "record"))
    json_object_set (obj, "record", record);
  if (cmd && strcmp (cmd, "role") == 0) {
    const char *role = json_string_value (json_object_get (obj, "role"));

    is_production = role && strcmp (role, "production") == 0;
    if (is_production && lease_ms && !json_object_get (obj, "lease_until_ms"))
      json_object_set_new (obj, "lease_until_ms", json_integer ((json_int_t) (clock_boottime_ms () + lease_ms)));
    renew_at_ms = clock_boottime_ms () + lease_ms / 4;
  }
  send_command (obj);
  json_decref (obj);
}

int
main (int argc, char **argv)
{
  struct jsonl_reader r;
  char line[65536];
  size_t have = 0;
  const char *path = NULL;

  for (int i = 1; i < argc; i++) {
    if (strcmp (argv[i], "--commit") == 0)
      commit = true;
    else if (strcmp (argv[i], "--lease") == 0 && i + 1 < argc)
      lease_ms = (uint64_t) atoi (argv[++i]);
    else if (strcmp (argv[i], "--record") == 0 && i + 1 < argc)
      record_file = argv[++i];
    else
      path = argv[i];
  }
  if (!path)
    fail ("usage: ctl SOCKET [--lease MS] [--commit] [--record FILE]");
  if (record_file && !(record = json_load_file (record_file, 0, NULL)))
    fail ("the record can't be read");
  for (int tries = 0; tries < 100; tries++) { /* a socket that is bound may not listen yet */
    fd = jsonl_connect (path, -1);
    if (fd >= 0)
      break;
    usleep (20000);
  }
  if (fd < 0)
    fail (strerror (-fd));
  jsonl_reader_init (&r, 0);

  for (;;) {
    struct pollfd p[2] = { { .fd = 0, .events = POLLIN }, { .fd = fd, .events = POLLIN } };
    uint64_t now = clock_boottime_ms ();
    json_t *obj;
    ssize_t n;

    if (is_production && lease_ms && now >= renew_at_ms)
      renew ();
    if (poll (p, 2, 50) < 0 && errno != EINTR)
      fail ("poll");
    if (p[1].revents) {
      n = jsonl_reader_fill (&r, fd);
      while (jsonl_reader_next (&r, &obj, NULL) == 1) {
        received (obj);
        json_decref (obj);
      }
      if (n == 0 || (n < 0 && n != -EAGAIN && n != -EINTR)) {
        jsonl_reader_free (&r);
        return 1;
      }
    }
    if (p[0].revents) {
      char *nl;

      n = read (0, line + have, sizeof line - have - 1);
      if (n <= 0) {
        jsonl_reader_free (&r);
        return 0;
      }
      have += (size_t) n;
      line[have] = '\0';
      while ((nl = strchr (line, '\n'))) {
        *nl = '\0';
        if (line[0] != '\0')
          typed (line);
        have -= (size_t) (nl + 1 - line);
        memmove (line, nl + 1, have + 1);
      }
      if (have == sizeof line - 1)
        fail ("a line is too long");
    }
  }
}
