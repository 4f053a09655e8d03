/* SPDX-License-Identifier: BSD-3-Clause */
/* crgctl attach and detach: an IASP as /dev/nbdN.  What lasts is the keeper (keeper.c), a process
 * of its own; here it is started, told to end, and looked at.
 */
#include "config.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "admin/cli.h"
#include "admin/keeper.h"
#include "admin/nbdnl.h"
#include "common/ask.h"
#include "common/clock.h"
#include "common/conf.h"
#include "common/ident.h"
#include "common/util-posix.h"

#define RUN_DIR "/run/nbd-crg-attach"

static const char *
run_dir (const struct cli *cli)
{
  return cli->given[OPT_RUN_DIR] ? cli->value[OPT_RUN_DIR] : RUN_DIR;
}

static int
dir_of (struct cli *cli, const char *iasp, char dir[CRG_PATH_MAX + 1])
{
  /* The sockets in it have to fit. */
  if (snprintf (dir, CRG_PATH_MAX + 1, "%s/%s", run_dir (cli), iasp) + 16 > CRG_SOCK_PATH_MAX)
    return cli_error (cli, CRG_EXIT_USAGE, "%s is too long a path for sockets; give a shorter --run-dir", dir);
  return CRG_EXIT_FINE;
}

/* ---- attach ------------------------------------------------------------------------------- */

/* Begins to be the keeper: an own session, its words in DIR/log. */
static int
become_keeper (const struct keeper_spec *spec)
{
  char path[CRG_PATH_MAX + 16];
  int null_fd = open ("/dev/null", O_RDWR), log_fd;

  snprintf (path, sizeof path, "%s/log", spec->dir);
  log_fd = open (path, O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW, 0600);
  if (null_fd < 0 || log_fd < 0 || dup2 (null_fd, 0) < 0 || dup2 (log_fd, 1) < 0 || dup2 (log_fd, 2) < 0)
    return CRG_EXIT_ERROR;
  close_range (3, ~0u, 0);
  setsid ();
  if (chdir ("/") < 0)
    return CRG_EXIT_ERROR;
  return keeper_run (spec);
}

/* The last lines of DIR/log that came after 'from', for who started it. */
static void
print_log (const char *dir, off_t from)
{
  char path[CRG_PATH_MAX + 16], line[1024];
  CLEANUP_FCLOSE FILE *fp = NULL;

  snprintf (path, sizeof path, "%s/log", dir);
  fp = fopen (path, "re");
  if (!fp || fseeko (fp, from, SEEK_SET) < 0)
    return;
  while (fgets (line, sizeof line, fp))
    if (strncmp (line, "crgctl", 6) == 0 || strstr (line, "error:"))
      fputs (line, stderr);
}

static off_t
log_size (const char *dir)
{
  char path[CRG_PATH_MAX + 16];
  struct stat st;

  snprintf (path, sizeof path, "%s/log", dir);
  return stat (path, &st) == 0 ? st.st_size : 0;
}

/* By the keeper that is there; not by one before it, which has left that file. */
static bool
is_ready (const char *dir, char *device, size_t size)
{
  json_t *o = keeper_read (dir);
  pid_t pid = keeper_pid (dir);
  bool ready = json_is_true (json_object_get (o, "ready")) && pid != 0
               && json_integer_value (json_object_get (o, "keeper")) == pid;

  snprintf (device, size, "%s", json_string_value (json_object_get (o, "device")) ?: "");
  json_decref (o);
  return ready;
}

/* Waits until the device is there; says for what it waits.  'child': the keeper, if it is ours. */
static int
await_device (struct cli *cli, const struct keeper_spec *spec, pid_t child, long wait_s, off_t log_from)
{
  const uint64_t begun_ms = clock_boottime_ms ();
  char device[64], told[CRG_REASON_MAX + 1] = "";
  int status = 0;

  for (;;) {
    json_t *o;
    const char *reason;

    if (is_ready (spec->dir, device, sizeof device)) {
      printf ("%s\n", device);
      return CRG_EXIT_FINE;
    }
    if (waitpid (child, &status, WNOHANG) == child) {
      print_log (spec->dir, log_from);
      return WIFEXITED (status) && WEXITSTATUS (status) ? WEXITSTATUS (status) : CRG_EXIT_ERROR;
    }
    if (wait_s > 0 && clock_boottime_ms () >= begun_ms + (uint64_t) wait_s * 1000) {
      kill (child, KEEPER_GIVE_UP);
      waitpid (child, &status, 0);
      return cli_error (cli, CRG_EXIT_TIMEOUT, "%s is not attached after %ld s, and given up: %s", spec->iasp, wait_s,
                        told[0] ? told : "no word of the proxy");
    }
    o = keeper_proxy_status (spec->dir, 500);
    reason = json_string_value (json_object_get (json_object_get (o, "wait"), "reason"));
    if (reason && strcmp (reason, told) != 0) {
      snprintf (told, sizeof told, "%s", reason);
      fprintf (stderr, "waiting: %s\n", told);
    }
    json_decref (o);
    usleep (50000);
  }
}

static int list_command (struct cli *cli);

/* Everything is looked at before anything is started.  nodes and paths become absolute. */
static int
make_spec (struct cli *cli, struct keeper_spec *spec)
{
  static struct ask_list list;
  char err[CONF_ERR_MAX + 1];
  const char *iasp = cli->words[0];
  struct tlslink_ctx *tls;
  long connections;
  int rc;

  memset (spec, 0, sizeof *spec);
  spec->index = -1;
  if (!ident_name_is_valid (iasp))
    return cli_error (cli, CRG_EXIT_USAGE, "'%.100s' is not the name of an IASP", iasp);
  snprintf (spec->iasp, sizeof spec->iasp, "%s", iasp);
  rc = dir_of (cli, iasp, spec->dir);
  if (rc != CRG_EXIT_FINE)
    return rc;
  if (cli->n_words > 1) {
    spec->index = keeper_device_index (cli->words[1]);
    if (spec->index < 0)
      return cli_error (cli, CRG_EXIT_USAGE, "'%.100s' is no /dev/nbdN", cli->words[1]);
  }
  if (!cli->given[OPT_NODES])
    return cli_error (cli, CRG_EXIT_USAGE, "which nodes are to be asked? --nodes n1,n2,...");
  if (ask_parse (&list, cli->value[OPT_NODES], err, sizeof err) < 0)
    return cli_error (cli, CRG_EXIT_USAGE, "--nodes: %s", err);
  spec->nodes = cli->value[OPT_NODES];
  if (cli->given[OPT_TLS]) {
    spec->tls_dir = realpath (cli->value[OPT_TLS], NULL);
    if (!spec->tls_dir)
      return cli_error (cli, CRG_EXIT_USAGE, "%s: %s", cli->value[OPT_TLS], strerror (errno));
    tls = ask_load_tls (spec->tls_dir, err, sizeof err);
    if (!tls)
      return cli_error (cli, CRG_EXIT_USAGE, "%s", err);
    tlslink_ctx_free (tls);
  }
  else if (ask_needs_tls (&list))
    return cli_error (cli, CRG_EXIT_USAGE, "nodes are asked over TLS: give --tls-certificates, the client's directory "
                      "of 'crgctl init-pki'");
  if (!cli_number (cli, OPT_CONNECTIONS, 1, CLIENT_MAX_CONNECTIONS, CLIENT_CONNECTIONS, &connections))
    return CRG_EXIT_USAGE;
  spec->connections = (unsigned) connections;
  spec->nbdkit = cli->given[OPT_NBDKIT] ? cli->value[OPT_NBDKIT] : NBDKIT_PROG;
  spec->plugin = cli->given[OPT_PLUGIN] ? cli->value[OPT_PLUGIN] : PLUGINDIR "/nbdkit-crg-plugin.so";
  if (access (spec->nbdkit, X_OK) < 0)
    return cli_error (cli, CRG_EXIT_USAGE, "%s: %s; it is needed", spec->nbdkit, strerror (errno));
  if (access (spec->plugin, R_OK) < 0)
    return cli_error (cli, CRG_EXIT_USAGE, "%s: %s; it is needed", spec->plugin, strerror (errno));
  return CRG_EXIT_FINE;
}

static int
attach (struct cli *cli, struct keeper_spec *spec)
{
  off_t log_from;
  long wait_s;
  pid_t child;
  int rc;

  if (cli->given[OPT_LIST])
    return list_command (cli);
  if (cli->n_words == 0)
    return cli_error (cli, CRG_EXIT_USAGE, "which IASP? or --list");
  rc = make_spec (cli, spec);
  if (rc != CRG_EXIT_FINE)
    return rc;
  if (!cli_number (cli, OPT_WAIT, 1, 86400, 0, &wait_s))
    return CRG_EXIT_USAGE;
  if ((mkdir (run_dir (cli), 0755) < 0 && errno != EEXIST) || (mkdir (spec->dir, 0700) < 0 && errno != EEXIST))
    return cli_error (cli, CRG_EXIT_ERROR, "%s: %s", spec->dir, strerror (errno));
  if (cli->given[OPT_FOREGROUND])
    return keeper_run (spec);
  if (keeper_pid (spec->dir) != 0)
    return cli_error (cli, CRG_EXIT_REFUSED, "%s is attached already; see 'crgctl attach --list'", spec->iasp);
  log_from = log_size (spec->dir);
  child = fork ();
  if (child == 0)
    _exit (become_keeper (spec));
  if (child < 0)
    return cli_error (cli, CRG_EXIT_ERROR, "no process: %s", strerror (errno));
  return await_device (cli, spec, child, wait_s, log_from);
}

int
attach_command (struct cli *cli)
{
  struct keeper_spec spec = { .tls_dir = NULL };
  int rc = attach (cli, &spec);

  free (spec.tls_dir);
  return rc;
}

/* ---- detach ------------------------------------------------------------------------------- */

/* What is attached under this name: an IASP's, or a device's.  False: nothing. */
static bool
find_attached (struct cli *cli, const char *name, char iasp[CRG_NAME_MAX + 1], char dir[CRG_PATH_MAX + 1], int *index)
{
  int wanted = keeper_device_index (name);
  DIR *d = opendir (run_dir (cli));
  struct dirent *de;
  bool found = false;

  while (d && !found && (de = readdir (d)) != NULL) {
    json_t *o;

    if (!ident_name_is_valid (de->d_name) || dir_of (cli, de->d_name, dir) != CRG_EXIT_FINE)
      continue;
    o = keeper_read (dir);
    *index = o ? (int) json_integer_value (json_object_get (o, "index")) : -1;
    if ((o || keeper_pid (dir) != 0) && (strcmp (de->d_name, name) == 0 || (wanted >= 0 && *index == wanted))) {
      snprintf (iasp, CRG_NAME_MAX + 1, "%.63s", de->d_name);
      found = true;
    }
    json_decref (o);
  }
  if (d)
    closedir (d);
  return found;
}

int
detach_command (struct cli *cli)
{
  char iasp[CRG_NAME_MAX + 1], dir[CRG_PATH_MAX + 1], device[32], err[256];
  const uint64_t until_ms = clock_boottime_ms () + ATTACH_END_MS;
  pid_t pid;
  json_t *left;
  int index = -1, fd;

  if (!find_attached (cli, cli->words[0], iasp, dir, &index))
    return cli_error (cli, CRG_EXIT_NO_OBJECT, "%s is not attached; see 'crgctl attach --list'", cli->words[0]);
  pid = keeper_pid (dir);
  snprintf (device, sizeof device, "/dev/nbd%d", index);
  /* Nobody may use it, and what it was given is to be stable before it goes. */
  if (index >= 0 && keeper_device_is_attached (index) && !cli->given[OPT_FORCE]) {
    fd = open (device, O_RDWR | O_EXCL | O_CLOEXEC);
    if (fd < 0 && errno == EBUSY)
      return cli_error (cli, CRG_EXIT_REFUSED, "%s is in use; unmount it first", device);
    if (fd < 0 && errno != EROFS && errno != EACCES)
      return cli_error (cli, CRG_EXIT_ERROR, "%s: %s; --force detaches it anyway", device, strerror (errno));
    if (fd >= 0 && fsync (fd) < 0) {
      cli_error (cli, CRG_EXIT_ERROR, "%s: it can't be flushed: %s; --force detaches it anyway, and what was written "
                 "since the last flush may be lost", device, strerror (errno));
      close (fd);
      return CRG_EXIT_ERROR;
    }
    if (fd >= 0)
      close (fd);
  }
  if (pid == 0) {
    struct nbdnl *nl = nbdnl_open (err, sizeof err);
    int r = nl && index >= 0 ? nbdnl_disconnect (nl, index) : 0;

    nbdnl_close (nl);
    if (!nl || r < 0)
      return cli_error (cli, CRG_EXIT_ERROR, "%s: %s", device, nl ? strerror (-r) : err);
    keeper_clear (dir);
    return CRG_EXIT_FINE;
  }
  if (kill (pid, SIGTERM) < 0)
    return cli_error (cli, CRG_EXIT_ERROR, "the keeper %d: %s", (int) pid, strerror (errno));
  while (keeper_pid (dir) == pid) {
    if (clock_boottime_ms () >= until_ms)
      return cli_error (cli, CRG_EXIT_TIMEOUT, "%s: its keeper %d has not ended after %d s", iasp, (int) pid,
                        ATTACH_END_MS / 1000);
    usleep (20000);
  }
  left = keeper_read (dir);
  json_decref (left);
  if (left)
    return cli_error (cli, CRG_EXIT_ERROR, "%s: its keeper could not detach it; see %s/log", iasp, dir);
  return CRG_EXIT_FINE;
}

/* ---- list --------------------------------------------------------------------------------- */

/* One attachment, for people and for programs; a new reference, or NULL. */
static json_t *
look_at (const char *dir)
{
  json_t *o = keeper_read (dir), *proxy;
  pid_t pid = keeper_pid (dir);

  if (!o)
    return NULL;
  proxy = keeper_proxy_status (dir, 1000);
  json_object_set_new (o, "keeper", json_integer (pid));
  json_object_set_new (o, "attached", json_boolean (
                         json_integer_value (json_object_get (o, "index")) >= 0
                         && keeper_device_is_attached ((int) json_integer_value (json_object_get (o, "index")))));
  json_object_set_new (o, "proxy", proxy ? proxy : json_null ());
  return o;
}

static const char *
text_of (const json_t *o, const char *key, const char *otherwise)
{
  const char *s = json_string_value (json_object_get (o, key));

  return s && *s ? s : otherwise;
}

static void
print_one (const json_t *o)
{
  const json_t *proxy = json_object_get (o, "proxy"), *wait = json_object_get (proxy, "wait");
  const char *reason = json_string_value (json_object_get (wait, "reason"));
  const char *state = json_is_object (proxy) ? text_of (proxy, "state", "?") : "no proxy";

  printf ("%-16s %-12s %-11s %-12s tenure %-6lld", text_of (o, "iasp", "?"), text_of (o, "device", "-"),
          json_integer_value (json_object_get (o, "keeper")) ? state : "no keeper", text_of (proxy, "host", "-"),
          (long long) json_integer_value (json_object_get (proxy, "tenure")));
  if (reason)
    printf ("  waits %lld s: %s", (long long) json_integer_value (json_object_get (wait, "age_ms")) / 1000, reason);
  putchar ('\n');
}

static int
list_command (struct cli *cli)
{
  DIR *d = opendir (run_dir (cli));
  json_t *list = json_array (), *o;
  struct dirent *de;
  size_t i;

  while (d && (de = readdir (d)) != NULL) {
    char dir[CRG_PATH_MAX + 1];

    if (!ident_name_is_valid (de->d_name) || dir_of (cli, de->d_name, dir) != CRG_EXIT_FINE)
      continue;
    if (cli->n_words > 0 && strcmp (cli->words[0], de->d_name) != 0)
      continue;
    o = look_at (dir);
    if (o)
      json_array_append_new (list, o);
  }
  if (d)
    closedir (d);
  if (cli->given[OPT_JSON]) {
    json_dumpf (list, stdout, JSON_INDENT (2) | JSON_PRESERVE_ORDER);
    putchar ('\n');
  }
  else
    json_array_foreach (list, i, o)
      print_one (o);
  if (cli->n_words > 0 && json_array_size (list) == 0) {
    json_decref (list);
    return cli_error (cli, CRG_EXIT_NO_OBJECT, "%s is not attached", cli->words[0]);
  }
  json_decref (list);
  return CRG_EXIT_FINE;
}
