/* SPDX-License-Identifier: BSD-3-Clause */
/* Fuzz target: the admin socket.  A crgd of a node of a CRG with two others takes the bytes as crgctl's;
 * then another client has to be answered.  Its engine is never there, so nothing is committed and nothing
 * is started: what a request may do is decided before that, and what the group makes of it is fuzz-group's.
 */
#define PLUGINDIR "/nowhere"
#define SYSCONFDIR "/nowhere"
#define main crgd_main
#include "server/main.c"
#undef main

#include <pthread.h>
#include <sys/socket.h>

#include "common/jsonl.h"
#include "tests/crg-def.h"
#include "tests/fuzz/mutate-json.h"

#define REQUIRE(cond) \
  do {                \
    if (!(cond))      \
      abort ();       \
  } while (0)

#define ANSWER_MS 30000
#define ASK "\n{\"v\":1,\"cmd\":\"status\"}\n"

#ifdef HAVE_COROSYNC
/* Not in here, and never asked for. */
struct engine *
engine_corosync_new (struct qb_loop *loop, const char *prefix, const char *node,
                     uint32_t (*id_of) (const char *), const struct engine_callbacks *cb, void *opaque)
{
  (void) loop, (void) prefix, (void) node, (void) id_of, (void) cb, (void) opaque;
  abort ();
}

void
engine_corosync_stats (const struct engine *e, struct engine_corosync_stats *st)
{
  (void) e, (void) st;
  abort ();
}
#endif

extern int LLVMFuzzerTestOneInput (const uint8_t *data, size_t size);

/* n1 at rome, n2 at oslo, n3 votes; a disk and a script. */
static void
keep_state (const char *dir)
{
  static struct crg_state s;
  static struct crg_def d;
  static const uint8_t lineage[CRG_ID_LEN] = { 7 };

  crg_def_make (&d, 1, 1, 2);
  strcpy (d.name, "wages");
  d.placement = PLACEMENT_ACCESS;
  strcpy (d.iasps[0].name, "payroll");
  strcpy (d.iasps[1].name, "printer");
  for (unsigned k = 0; k < 2; k++)
    for (unsigned i = 0; i < 3; i++)
      snprintf (d.iasps[k].store[i], sizeof d.iasps[k].store[i], "/nowhere/store");
  d.iasps[1].type = RES_SCRIPT;
  snprintf (d.iasps[1].agent, sizeof d.iasps[1].agent, "/nowhere/agent");
  d.iasps[1].timeout_ms = 1000;
  REQUIRE (state_create (&s, &d, lineage) == NULL);
  REQUIRE (statefile_save (dir, d.name, &s, 1) == 0);
}

static void *
crgd (void *opaque)
{
  (void) opaque;
  run (&the_daemon);
  abort (); /* nothing here ends it */
}

static void
begin (void)
{
  char err[CONF_ERR_MAX + 1], cwd[300], text[4096];
  pthread_t thread;
  int n;

  REQUIRE (getcwd (cwd, sizeof cwd) && (mkdir ("state", 0700) == 0 || errno == EEXIST)
           && (mkdir ("run", 0700) == 0 || errno == EEXIST));
  keep_state ("state");
  n = snprintf (text, sizeof text,
                "[node]\nname = n1\nstate-dir = %s/state\nrun-dir = %s/run\ntls-certificates = %s/pki\nhooks-dir = %s/hooks\n"
                "[engine]\ntype = local\nsocket = %s/nobody\n", cwd, cwd, cwd, cwd, cwd);
  if (conf_parse_crgd ("crgd.conf", text, (size_t) n, &the_daemon.conf, err, sizeof err) != 0) {
    fprintf (stderr, "%s\n", err);
    abort ();
  }
  snprintf (the_daemon.conf_dir, sizeof the_daemon.conf_dir, "%s", cwd);
  the_daemon.incarnation = 1;
  signal (SIGPIPE, SIG_IGN);
  REQUIRE (pthread_create (&thread, NULL, crgd, NULL) == 0);
  for (unsigned i = 0; i < 1000 && access ("run/crgd.sock", F_OK) != 0; i++)
    usleep (10000);
}

/* Sends the bytes, then one more request; the answer to the last line that is a request, or NULL. */
static bool
talk (const void *data, size_t size)
{
  struct jsonl_reader r;
  int fd = jsonl_connect ("run/crgd.sock");
  bool answered = false;
  json_t *obj;

  REQUIRE (fd >= 0);
  jsonl_reader_init (&r, 0);
  if (send (fd, data, size, MSG_NOSIGNAL) >= 0 && send (fd, ASK, sizeof ASK - 1, MSG_NOSIGNAL) >= 0)
    for (;;) {
      int res = jsonl_receive (fd, &r, ANSWER_MS, &obj);

      REQUIRE (res != -ETIMEDOUT); /* it hangs */
      if (res != 0)
        break; /* it hangs up: that was no JSON */
      answered = json_is_array (json_object_get (obj, "crgs"));
      json_decref (obj);
      if (answered)
        break;
    }
  jsonl_reader_free (&r);
  close (fd);
  return answered;
}

/* What ends crgd, or begins a new history, is left out; so is what is only waited for. */
static bool
is_left_out (const void *data, size_t size)
{
  static const char *const words[] = { "leave", "recover", "create", "node-add" };
  struct jsonl_reader r;
  bool found = false;
  json_t *obj;

  jsonl_reader_init (&r, 0);
  if (jsonl_reader_append (&r, data, size) == 0 && jsonl_reader_append (&r, "\n", 1) == 0)
    while (!found && jsonl_reader_next (&r, &obj, NULL) == 1) {
      const char *cmd = json_string_value (json_object_get (obj, "cmd"));

      for (unsigned i = 0; i < ARRAY_SIZE (words) && cmd; i++)
        found = found || strcmp (cmd, words[i]) == 0;
      json_decref (obj);
    }
  jsonl_reader_free (&r);
  return found;
}

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
  static bool begun;

  if (!begun)
    begin ();
  begun = true;
  if (size > 16384 || is_left_out (data, size))
    return 0;
  talk (data, size);
  REQUIRE (talk ("", 0));
  return 0;
}
