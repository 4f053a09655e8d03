/* SPDX-License-Identifier: BSD-3-Clause
 *
 * crgd: one process a node, one thread, libqb's loop (it comes from
 * corosync's own family and brings logging and a blackbox).  This file owns
 * the start: options, configuration, directories, the lock that keeps a second
 * crgd away, and the list of CRGs; stop.c has the end.  Nothing here decides about them.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <qb/qbdefs.h>
#include <qb/qbloop.h>

#include "common/certs.h"
#include "common/clock.h"
#include "common/ident.h"
#include "common/util-posix.h"
#include "server/admin.h"
#include "server/cluster.h"
#include "server/daemon.h"
#ifdef HAVE_COROSYNC
#include "server/engine_corosync.h"
#endif
#include "server/hooks.h"
#include "server/log.h"
#include "server/member.h"
#include "server/notify.h"
#include "server/query.h"
#include "server/script.h"
#include "server/statefile.h"
#include "server/stop.h"
#include "server/task.h"

/* Exit codes of crgd; crgd(8) has the table. */
enum { CRGD_FINE = 0, CRGD_ERROR = 1, CRGD_USAGE = 2, CRGD_RUNNING = 3 };

static struct daemon the_daemon;

struct removal {
  struct daemon *d;
  struct member *m;
  bool again;
};

struct member *
daemon_find (struct daemon *d, const char *crg)
{
  for (unsigned i = 0; i < CRG_MAX_CRGS; i++)
    if (d->members[i] && strcmp (member_crg (d->members[i]), crg) == 0)
      return d->members[i];
  return NULL;
}

struct member *
daemon_find_iasp (struct daemon *d, const char *iasp, unsigned *index)
{
  for (unsigned i = 0; i < CRG_MAX_CRGS; i++) {
    const struct crg_state *s = d->members[i] ? member_state (d->members[i]) : NULL;

    for (unsigned k = 0; s && k < s->def.n_iasps; k++)
      if (strcmp (s->def.iasps[k].name, iasp) == 0) {
        *index = k;
        return d->members[i];
      }
  }
  return NULL;
}

/* `state` NULL: it has none, or can't use it (C6). */
static struct member *
add_member (struct daemon *d, const char *crg, const struct crg_state *state, uint64_t promised, uint32_t hold_ms,
            const struct node_name_id *nodes, unsigned n_nodes)
{
  struct member *m;

  for (unsigned i = 0; i < CRG_MAX_CRGS; i++) {
    if (d->members[i])
      continue;
    m = member_new (d, crg, state, promised, hold_ms, nodes, n_nodes);
    if (m == NULL)
      break;
    d->members[i] = m;
    if (d->engine)
      member_join (m);
    return m;
  }
  log_error ("%s: no room for another CRG (at most %d)", crg, CRG_MAX_CRGS);
  return NULL;
}

struct member *
daemon_add (struct daemon *d, const char *crg, const struct node_name_id *nodes, unsigned n_nodes)
{
  CLEANUP_FREE struct crg_state *state = malloc (sizeof *state);
  uint64_t promised = 0;
  uint32_t hold_ms = 0;
  int r = state ? statefile_load (d->conf.state_dir, crg, state, &promised, &hold_ms) : -ENOMEM;

  if (daemon_find (d, crg))
    return NULL;
  if (r < 0 && r != -ENOENT)
    log_error ("%s: its state file in %s can't be used: %s; this node has no vote until a "
               "majority has told it the state (C6)",
               crg, d->conf.state_dir, r == -EBADMSG ? "it is damaged" : strerror (-r));
  if (r < 0 && n_nodes == 0)
    return NULL;
  return add_member (d, crg, r == 0 ? state : NULL, promised, hold_ms, nodes, n_nodes);
}

/* A node that holds the state begins anew with it, or not yet: it doesn't become an empty one (C6), whose plugins
 * nobody would look after, for a disk that can't be read now. */
static void
remove_and_add (struct daemon *d, struct member *m)
{
  CLEANUP_FREE struct crg_state *state = malloc (sizeof *state);
  struct node_name_id nodes[CRG_MAX_NODES];
  unsigned n_nodes = member_domain (m, nodes), slot = 0;
  uint64_t promised = 0;
  uint32_t hold_ms = 0;
  char crg[CRG_NAME_MAX + 1];
  int r = state ? statefile_load (d->conf.state_dir, member_crg (m), state, &promised, &hold_ms) : -ENOMEM;

  snprintf (crg, sizeof crg, "%s", member_crg (m));
  while (slot < CRG_MAX_CRGS && d->members[slot])
    slot++;
  if (r < 0 && member_state (m) && member_left (m) == LEAVE_AGAIN && slot < CRG_MAX_CRGS && !daemon_find (d, crg)) {
    d->members[slot] = m;
    member_stay (m, r);
    return;
  }
  member_free (m);
  if (!daemon_find (d, crg))
    add_member (d, crg, r == 0 ? state : NULL, promised, hold_ms, nodes, n_nodes);
}

static void
do_remove (void *opaque)
{
  struct removal *rm = opaque;
  struct daemon *d = rm->d;
  const struct crg_state *s = member_state (rm->m);
  const char *crg = member_crg (rm->m);
  bool for_good = (s && s->deleted) || member_left (rm->m) == LEAVE_REMOVED;
  int r = 0;

  if (s && s->deleted)
    cluster_note_deleted (d->cluster, s, false);
  if (for_good)
    r = statefile_remove (d->conf.state_dir, crg);
  else if (s && member_left (rm->m) == LEAVE_LINEAGE)
    /* C9: kept for whoever wants to look; this node begins empty. */
    r = statefile_set_aside (d->conf.state_dir, crg);
  /* Whoever comes after it doesn't know of them: no state, no adopting (S3). */
  if (for_good || member_left (rm->m) == LEAVE_LINEAGE)
    member_kill_plugins (rm->m);
  if (r < 0)
    log_error ("%s: its state file in %s can't be removed: %s", crg, d->conf.state_dir,
               strerror (-r));
  if (rm->again && !for_good && r == 0)
    remove_and_add (d, rm->m);
  else
    member_free (rm->m);
  free (rm);
}

void
daemon_remove (struct daemon *d, struct member *m, bool again)
{
  struct removal *rm;
  bool listed = false;

  for (unsigned i = 0; i < CRG_MAX_CRGS; i++)
    if (d->members[i] == m) {
      d->members[i] = NULL;
      listed = true;
    }
  rm = listed ? calloc (1, sizeof *rm) : NULL;
  if (rm == NULL)
    return;
  member_leave (m);
  /* Now, for a client that hangs up before the job looks for its requests in the list. */
  member_end_requests (m);
  *rm = (struct removal){ d, m, again };
  if (qb_loop_job_add (d->loop, QB_LOOP_HIGH, rm, do_remove) < 0)
    abort ();
}

/* ---- engine ---------------------------------------------------------------------------- */

static void
on_view (void *opaque, const char *group, uint64_t view, const uint32_t *members, unsigned n,
         bool quorate)
{
  struct daemon *d = opaque;
  struct member *m;

  d->quorate = quorate;
  if (strcmp (group, CLUSTER_GROUP) == 0)
    cluster_on_view (d->cluster, members, n);
  else if ((m = daemon_find (d, group)) != NULL)
    member_on_view (m, view, members, n);
}

static void
on_deliver (void *opaque, const char *group, uint32_t from, const uint8_t *buf, size_t len)
{
  struct daemon *d = opaque;
  struct member *m;

  if (strcmp (group, CLUSTER_GROUP) == 0)
    cluster_on_message (d->cluster, from, buf, len);
  else if ((m = daemon_find (d, group)) != NULL)
    member_on_message (m, from, buf, len);
}

static void
on_down (void *opaque, const char *reason)
{
  struct daemon *d = opaque;

  log_error ("the group engine is gone: %s; I/O is held when the lease ends", reason);
  d->connected = d->quorate = false;
  cluster_on_down (d->cluster);
  for (unsigned i = 0; i < CRG_MAX_CRGS; i++)
    if (d->members[i])
      member_on_down (d->members[i], reason);
}

/* L1 */
static bool
lease_is_long_enough (const struct daemon *d)
{
  unsigned detection_ms = d->engine->ops->detection_ms (d->engine);

  if ((uint64_t) d->conf.lease_ms * 4 >= (uint64_t) detection_ms * 5)
    return true;
  log_error ("lease-ms is %u, and must be at least 1.25 times the %u ms in which the engine "
             "tells a node's death (L1): make it %llu or more, or %s",
             d->conf.lease_ms, detection_ms, ((unsigned long long) detection_ms * 5 + 3) / 4,
             d->conf.engine == CONF_ENGINE_LOCAL ? "lower token-ms"
                                                 : "lower totem's token in corosync.conf");
  return false;
}

static void
on_up (void *opaque)
{
  struct daemon *d = opaque;

#ifdef HAVE_COROSYNC
  if (d->conf.engine == CONF_ENGINE_COROSYNC) {
    struct engine_corosync_stats stats;

    engine_corosync_stats (d->engine, &stats);
    d->conf.token_ms = stats.token_ms;
    if (!lease_is_long_enough (d)) {
      d->exit_code = CRGD_USAGE;
      d->stopping = true;
      return;
    }
  }
#endif
  d->connected = true;
  log_notice ("connected to the group engine");
}

static struct engine *
make_engine (struct daemon *d)
{
  static const struct engine_callbacks cb = {
    .view = on_view, .deliver = on_deliver, .down = on_down, .up = on_up,
  };
  struct engine *e;

  if (d->conf.engine == CONF_ENGINE_COROSYNC) {
#ifdef HAVE_COROSYNC
    return engine_corosync_new (d->loop, d->conf.group_prefix, d->conf.name, engine_id_of, &cb, d);
#else
    log_error ("this crgd was built without corosync; crgd.conf asks for it in [engine]");
    return NULL;
#endif
  }
  e = engine_local_new (d->loop, d->conf.engine_socket, engine_id_of (d->conf.name),
                        d->conf.token_ms, &cb, d);
  if (e == NULL)
    log_error ("%s: can't use this socket for the engine: %s", d->conf.engine_socket,
               strerror (errno));
  return e;
}

/* ---- start and end --------------------------------------------------------------------- */

static int
make_dir (const char *path, mode_t mode)
{
  struct stat st;

  if (mkdir (path, mode) == 0) {
    if (chmod (path, mode) == 0)
      return 0;
  }
  else if (errno == EEXIST && stat (path, &st) == 0 && S_ISDIR (st.st_mode))
    return 0;
  log_error ("%s: can't make this directory: %s", path, strerror (errno));
  return -1;
}

/* Held to the end of the process: two crgds with one state would be one node
 * twice. */
static int
take_lock (const struct conf_crgd *conf)
{
  char path[CRG_PATH_MAX + 16];
  int fd;

  snprintf (path, sizeof path, "%s/lock", conf->state_dir);
  fd = open (path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd < 0) {
    log_error ("%s: %s", path, strerror (errno));
    return -errno;
  }
  if (flock (fd, LOCK_EX | LOCK_NB) < 0) {
    log_error ("%s: another crgd runs with this state directory", path);
    close (fd);
    return -EBUSY;
  }
  return fd;
}

static bool
is_ours (void *opaque, const char *iasp)
{
  struct daemon *d = opaque;
  unsigned index;

  return daemon_find_iasp (d, iasp, &index) != NULL;
}

static int
run (struct daemon *d)
{
  static char names[CRG_MAX_CRGS][CRG_NAME_MAX + 1];
  char err[CONF_ERR_MAX + 1], ready[CRG_NAME_MAX + 32];
  int n, days = 0;

  d->loop = qb_loop_create ();
  d->cluster = d->loop ? cluster_new (d) : NULL;
  if (d->cluster == NULL) {
    log_error ("no event loop");
    return CRGD_ERROR;
  }
  notify_open (d->loop);
  d->hooks = hooks_new (d->loop, d->conf.hooks_dir, d->conf.hook_timeout_ms);
  if (d->hooks == NULL)
    return CRGD_ERROR;
  if (certs_check (d->conf.tls_dir, d->conf.name, &days, err, sizeof err) != 0)
    log_warning ("certificates: %s; this node can't mirror until they are there", err);
  else if (days < 30)
    log_warning ("certificates in %s: they end in %d days", d->conf.tls_dir, days);
  n = statefile_list (d->conf.state_dir, names, CRG_MAX_CRGS);
  if (n < 0) {
    log_error ("%s: %s", d->conf.state_dir, strerror (-n));
    return CRGD_ERROR;
  }
  /* S3: what still runs is adopted here, or ended, before any group is joined. */
  for (int i = 0; i < n; i++)
    daemon_add (d, names[i], NULL, 0);
  plugin_end_strays (d->conf.run_dir, is_ours, d);
  d->admin = admin_new (d);
  if (d->admin == NULL)
    return CRGD_ERROR;
  d->query = query_new (d);
  d->engine = make_engine (d);
  if (d->engine == NULL)
    return CRGD_ERROR;
  /* corosync's timers are known when it is reached; on_up looks then. */
  if (d->conf.engine == CONF_ENGINE_LOCAL && !lease_is_long_enough (d))
    return CRGD_USAGE;
  d->engine->ops->join (d->engine, CLUSTER_GROUP);
  for (unsigned i = 0; i < CRG_MAX_CRGS; i++)
    if (d->members[i])
      member_join (d->members[i]);
  d->stopper = stop_new (d, d->hand_over ? STOP_HAND_OVER : STOP_RESTART);
  if (d->stopper == NULL)
    return CRGD_ERROR;
  log_notice ("node %s ready (%d CRGs)", d->conf.name, n);
  snprintf (ready, sizeof ready, "node %s, %d CRGs", d->conf.name, n);
  notify_ready (ready);
  qb_loop_run (d->loop);

  query_free (d->query);
  admin_free (d->admin);
  stop_free (d->stopper);
  for (unsigned i = 0; i < CRG_MAX_CRGS; i++)
    if (d->members[i])
      member_free (d->members[i]);
  d->engine->ops->destroy (d->engine);
  cluster_free (d->cluster);
  hooks_free (d->hooks);
  task_end ();
  script_end ();
  notify_close ();
  qb_loop_destroy (d->loop);
  log_notice ("node %s ended", d->conf.name);
  return d->exit_code;
}

/* Absolute: hooks are run in the root directory. */
static void
find_conf_dir (struct daemon *d, const char *config)
{
  CLEANUP_FREE char *path = realpath (config, NULL);
  char *slash = path ? strrchr (path, '/') : NULL;

  if (slash)
    *slash = '\0';
  if (slash && (size_t) (slash - path) < sizeof d->conf_dir)
    snprintf (d->conf_dir, sizeof d->conf_dir, "%s", path);
}

static void
usage (FILE *fp)
{
  fprintf (fp, "Usage: crgd [-v] [--hand-over] -c FILE\n"
               "       crgd [-v] --local-hub SOCKET\n"
               "The daemon of one node of an nbd-crg cluster, in the foreground.\n"
               "\n"
               "  -c, --config FILE        configuration of the node, see crgd.conf(5)\n"
               "                           [" SYSCONFDIR "/nbd-crg/crgd.conf]\n"
               "      --hand-over          on SIGTERM: first hand production over to other nodes\n"
               "      --local-hub SOCKET   be the hub of the local engine on SOCKET instead\n"
               "  -f, --foreground         stay in the foreground (always so)\n"
               "  -v, --verbose            say more; twice: everything\n"
               "  -h, --help               show this text\n"
               "  -V, --version            show the version\n"
               "\n"
               "Exit codes: 0 ended as asked, 1 error, 2 usage or configuration, 3 another crgd\n"
               "runs with this state directory.\n");
}

static const struct option options[] = {
  { "config", required_argument, NULL, 'c' },  { "local-hub", required_argument, NULL, 'H' },
  { "foreground", no_argument, NULL, 'f' },    { "verbose", no_argument, NULL, 'v' },
  { "hand-over", no_argument, NULL, 'O' },
  { "help", no_argument, NULL, 'h' },          { "version", no_argument, NULL, 'V' },
  { NULL, 0, NULL, 0 },
};

int
main (int argc, char **argv)
{
  struct daemon *d = &the_daemon;
  const char *config = SYSCONFDIR "/nbd-crg/crgd.conf", *hub = NULL;
  char err[CONF_ERR_MAX + 1];
  int verbose = 0, opt, lock_fd, r;

  while ((opt = getopt_long (argc, argv, "c:fvhV", options, NULL)) != -1)
    switch (opt) {
    case 'c': config = optarg; break;
    case 'H': hub = optarg; break;
    case 'O': d->hand_over = true; break;
    case 'f': break;
    case 'v': verbose++; break;
    case 'h': usage (stdout); return CRGD_FINE;
    case 'V': printf ("crgd (%s) %s\n", PACKAGE_NAME, PACKAGE_VERSION); return CRGD_FINE;
    default: usage (stderr); return CRGD_USAGE;
    }
  if (optind < argc) {
    fprintf (stderr, "crgd: unexpected argument '%s'\n", argv[optind]);
    usage (stderr);
    return CRGD_USAGE;
  }
  umask (077);
  signal (SIGPIPE, SIG_IGN);
  if (hub) {
    log_open ("crgd-hub", verbose);
    r = hub_main (hub);
    log_close ();
    return r;
  }
  if (conf_read_crgd (config, &d->conf, err, sizeof err) != 0) {
    fprintf (stderr, "crgd: %s\n", err);
    return CRGD_USAGE;
  }
  log_open (d->conf.name, verbose);
  if (d->conf.nbdkit[0] == '\0')
    snprintf (d->conf.nbdkit, sizeof d->conf.nbdkit, "%s", NBDKIT_PROG);
  if (d->conf.plugin[0] == '\0')
    snprintf (d->conf.plugin, sizeof d->conf.plugin, "%s/nbdkit-iasp-plugin.so", PLUGINDIR);
  find_conf_dir (d, config);
  d->incarnation = clock_random_u64 () | 1;
  r = clock_boot_id (d->boot_id);
  if (r < 0) {
    log_error ("this machine's boot id can't be read: %s", strerror (-r));
    return CRGD_ERROR;
  }
  if (make_dir (d->conf.state_dir, 0700) < 0 || make_dir (d->conf.run_dir, 0755) < 0)
    return CRGD_ERROR;
  lock_fd = take_lock (&d->conf);
  if (lock_fd < 0)
    return lock_fd == -EBUSY ? CRGD_RUNNING : CRGD_ERROR;
  r = run (d);
  close (lock_fd);
  log_close ();
  return r;
}
