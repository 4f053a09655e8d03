/* SPDX-License-Identifier: BSD-3-Clause */
/* Fuzz target: what crgd is told by others than its group.  A crgd of a node of a CRG with two others takes
 * the lines that have "t" as messages of the other nodes' crgds, those with "id" or "event" and no "cmd" as said by
 * the plugin of its IASP, which it is made to start, and what is left as a client's of its admin socket; then
 * another client has to be answered.  Lines with "ok" and no "id" are what crgctl is answered.  Its engine is never there, so nothing is committed and nothing is started:
 * what a request may do is decided before that, and what the group makes of it is fuzz-group's.
 */
#define PLUGINDIR "/nowhere"
#define main crgd_main
#define qb_loop_run crgd_loop_run
#include "server/main.c"
#undef main
#undef qb_loop_run

#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <sys/socket.h>

#include "admin/cli.h"
#include "common/jsonl.h"
#include "server/member_private.h"
#include "server/probe.h"
#include "server/supervise_private.h"
#include "tests/crg-def.h"
#include "tests/fuzz/mutate-json.h"

#define REQUIRE(cond) \
  do {                \
    if (!(cond))      \
      abort ();       \
  } while (0)

#define ANSWER_MS 30000
#define ASK "\n{\"v\":1,\"cmd\":\"status\"}\n"
#define CRG "wages"

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
  strcpy (d.name, CRG);
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
  REQUIRE (statefile_save (dir, d.name, &s, 1, 0) == 0);
}

/* ---- no child processes: looking at a store, and at an export, finds them well ------------- */

struct task {
  task_done_fn *done;
  void *opaque;
  uint8_t result[TASK_RESULT_MAX] __attribute__ ((aligned (16)));
};

static void
on_task (void *opaque)
{
  struct task *t = opaque;
  task_done_fn *done = t->done;

  if (done)
    done (t->opaque, t->result, "");
  free (t);
}

struct task *
task_start (struct qb_loop *loop, task_fn *fn, const void *arg, size_t result_len, unsigned timeout_ms,
            task_done_fn *done, void *opaque)
{
  const struct store_probe probe = { .ok = true, .info = { .can_host = true, .has_super = true, .agrees_ids = true } };
  struct task *t = calloc (1, sizeof *t);

  (void) arg, (void) result_len, (void) timeout_ms;
  REQUIRE (t != NULL);
  t->done = done;
  t->opaque = opaque;
  if (fn == store_check)
    memcpy (t->result, &(struct store_check){ .ok = true, .data_bytes = 1 << 20 }, sizeof (struct store_check));
  else if (fn == store_probe)
    memcpy (t->result, &probe, sizeof probe);
  else if (fn == export_check)
    memcpy (t->result, &(struct export_check){ .ok = true, .size = 1 << 20 }, sizeof (struct export_check));
  else
    memcpy (t->result, &(struct store_format){ .ok = true }, sizeof (struct store_format));
  REQUIRE (qb_loop_job_add (loop, QB_LOOP_MED, t, on_task) == 0);
  return t;
}

void
task_cancel (struct task *t)
{
  if (t)
    t->done = NULL;
}

void
task_end (void)
{
}

/* ---- in crgd's thread ---------------------------------------------------------------------- */

extern void qb_loop_run (struct qb_loop *l);

static int order_fds[2];
static sem_t done;
static void (*order) (const void *line, size_t len);
static const void *order_line;
static size_t order_len;

static int
on_order (int fd, int revents, void *opaque)
{
  char c;

  (void) revents, (void) opaque;
  REQUIRE (read (fd, &c, 1) == 1);
  order (order_line, order_len);
  sem_post (&done);
  return 0;
}

void
crgd_loop_run (struct qb_loop *l)
{
  REQUIRE (qb_loop_poll_add (l, QB_LOOP_HIGH, order_fds[0], POLLIN, NULL, on_order) == 0);
  qb_loop_run (l);
}

static void
in_crgd (void (*what) (const void *line, size_t len), const void *line, size_t len)
{
  order = what;
  order_line = line;
  order_len = len;
  REQUIRE (write (order_fds[1], "", 1) == 1);
  while (sem_wait (&done) < 0)
    ;
}

/* As it came with the first input. */
static void
begin_anew (const void *line, size_t len)
{
  struct daemon *d = &the_daemon;

  (void) line, (void) len;
  cluster_on_down (d->cluster);
  for (unsigned i = 0; i < CRG_MAX_CRGS; i++)
    if (d->members[i]) {
      if (strcmp (member_crg (d->members[i]), CRG) != 0)
        statefile_remove (d->conf.state_dir, member_crg (d->members[i]));
      daemon_remove (d, d->members[i], false);
    }
}

static void
add_ours (const void *line, size_t len)
{
  (void) line, (void) len;
  keep_state ("state");
  REQUIRE (daemon_find (&the_daemon, CRG) || daemon_add (&the_daemon, CRG, NULL, 0) != NULL);
}

/* From n2, or from whom it names of the others. */
static void
from_node (const void *line, size_t len)
{
  const uint32_t ids[] = { engine_id_of ("n1"), engine_id_of ("n2"), engine_id_of ("n3") };
  json_t *msg = json_loadb (line, len, 0, NULL);
  const char *from = json_string_value (json_object_get (msg, "from"));

  cluster_on_view (the_daemon.cluster, ids, ARRAY_SIZE (ids));
  cluster_on_message (the_daemon.cluster, engine_id_of (from ? from : "n2"), line, len);
  json_decref (msg);
}

/* Its plugin is there, for the production that the group wants of this node. */
static void
call_plugin (const void *line, size_t len)
{
  struct member *m = daemon_find (&the_daemon, CRG);
  struct plugin *p = m ? member_get_plugin (m, 0) : NULL;

  (void) line, (void) len;
  if (p == NULL)
    return;
  p->want_role = HOST_PRODUCTION;
  p->want_tenure = 1;
  p->want_answer = p->is_child = true;
  plugin_set_record (p, json_pack ("{s:i}", "tenure", 1), 1);
  plugin_set_mirror (p, 1, json_pack ("{s:s}", "cmd", "mirror"));
  plugin_set_lease (p, 1);
  plugin_hold (p, "a test", 100);
  supervise_set_phase (p, PH_STARTING);
  supervise_try_control (p);
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
  if (getenv ("FUZZ_VERBOSE"))
    log_open ("n1", 2);
  REQUIRE (freopen ("/dev/null", "w", stdout) != NULL);
  REQUIRE (pipe (order_fds) == 0 && sem_init (&done, 0, 0) == 0);
  REQUIRE (pthread_create (&thread, NULL, crgd, NULL) == 0);
  for (unsigned i = 0; i < 1000 && access ("run/crgd.sock", F_OK) != 0; i++)
    usleep (10000);
}

/* Sends the bytes, then one more request; the answer to the last line that is a request, or NULL. */
static bool
talk (const void *data, size_t size)
{
  struct jsonl_reader r;
  int fd = jsonl_connect ("run/crgd.sock", -1);
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

/* What the plugin says, until crgd has heard it all, or hangs up. */
static void
play_plugin (const void *data, size_t size)
{
  int listener = jsonl_listen ("run/payroll.ctl", 0600), fd;
  struct pollfd pfd = { .events = POLLIN };
  char buf[4096];

  REQUIRE (listener >= 0);
  in_crgd (call_plugin, NULL, 0);
  fd = jsonl_accept (listener);
  close (listener);
  unlink ("run/payroll.ctl");
  if (fd < 0)
    return;
  pfd.fd = fd;
  REQUIRE (send (fd, data, size, MSG_NOSIGNAL) == (ssize_t) size && shutdown (fd, SHUT_WR) == 0);
  do
    REQUIRE (poll (&pfd, 1, ANSWER_MS) > 0); /* else it hangs */
  while (recv (fd, buf, sizeof buf, 0) > 0);
  close (fd);
}

/* What ends crgd, or begins a new history, is left out; so is what is only waited for. */
static bool
is_left_out (const char *cmd)
{
  static const char *const words[] = { "leave", "recover", "create", "node-add" };

  for (unsigned i = 0; i < ARRAY_SIZE (words) && cmd; i++)
    if (strcmp (cmd, words[i]) == 0)
      return true;
  return false;
}

/* ---- crgctl ---------------------------------------------------------------------------------- */

static const json_t *told;
static unsigned n_told;

int
client_call (struct cli *cli, json_t *request, json_t **answer)
{
  (void) cli;
  json_decref (request);
  if (n_told++ >= 3)
    return CRG_EXIT_DAEMON_DOWN;
  *answer = json_deep_copy (told);
  return CRG_EXIT_FINE;
}

int
client_call_quiet (struct cli *cli, json_t *request, json_t **answer, char *err, size_t errlen)
{
  snprintf (err, errlen, "no more");
  return client_call (cli, request, answer);
}

int
cli_error (const struct cli *cli, int code, const char *fmt, ...)
{
  va_list ap;
  char text[4096];

  (void) cli;
  va_start (ap, fmt);
  vsnprintf (text, sizeof text, fmt, ap);
  va_end (ap);
  return code;
}

bool
cli_number (const struct cli *cli, enum cli_option option, long min, long max, long otherwise, long *value)
{
  (void) cli, (void) option, (void) min, (void) max;
  *value = otherwise;
  return true;
}

int
nanosleep (const struct timespec *time, struct timespec *left)
{
  (void) time, (void) left;
  return 0;
}

/* What asks for something, and prints what comes. */
static void
show (const json_t *answer)
{
  static int (*const commands[]) (struct cli *)
    = { status_command, status_explain_command, status_is_command, verify_command };
  static const char *const words[ARRAY_SIZE (commands)][2]
    = { { CRG }, { "payroll" }, { "in-sync", CRG }, { "verify", "payroll" } };

  for (unsigned i = 0; i < 2 * ARRAY_SIZE (commands); i++) {
    const unsigned k = i / 2;
    struct cli cli = { .words = { words[k][0], words[k][1] }, .n_words = words[k][1] ? 2 : 1 };

    cli.given[OPT_JSON] = i % 2;
    if (k == 2 && i % 2)
      cli.words[0] = "production";
    told = answer;
    n_told = 0;
    commands[k] (&cli);
  }
}

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
  static char of_plugin[16384], of_client[16384];
  size_t n_plugin = 0, n_client = 0;
  const char *p = (const char *) data, *end = p + size, *next;
  static bool begun;
  bool changed = false;

  if (!begun)
    begin ();
  begun = true;
  if (size > sizeof of_client)
    return 0;
  for (; p < end; p = next) {
    const char *newline = memchr (p, '\n', (size_t) (end - p));
    json_t *line;

    next = newline ? newline + 1 : end;
    line = json_loadb (p, (size_t) (next - p), 0, NULL);
    if (is_left_out (json_string_value (json_object_get (line, "cmd"))))
      ;
    else if (json_object_get (line, "t")) {
      in_crgd (from_node, p, (size_t) (next - p));
      changed = true;
    }
    else if (json_object_get (line, "ok") && !json_object_get (line, "id"))
      show (line);
    else if (!json_object_get (line, "cmd") && (json_object_get (line, "event") || json_object_get (line, "id"))) {
      memcpy (of_plugin + n_plugin, p, (size_t) (next - p));
      n_plugin += (size_t) (next - p);
    }
    else {
      memcpy (of_client + n_client, p, (size_t) (next - p));
      n_client += (size_t) (next - p);
    }
    json_decref (line);
  }
  if (n_plugin > 0)
    play_plugin (of_plugin, n_plugin);
  talk (of_client, n_client);
  REQUIRE (talk ("", 0));
  if (changed || n_plugin > 0) {
    in_crgd (begin_anew, NULL, 0);
    in_crgd (add_ours, NULL, 0);
  }
  return 0;
}
