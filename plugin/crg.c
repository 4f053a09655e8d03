/* SPDX-License-Identifier: BSD-3-Clause */
/* nbdkit's side of the plugin `crg`: configuration, life cycle, one thin function for each
 * request.  Owns the one struct crg of the process.
 */
#include "config.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <unistd.h>

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include "common/clock.h"
#include "common/conf.h"
#include "common/ident.h"
#include "common/util-posix.h"
#include "plugin/crg.h"
#include "plugin/log.h"

#define THREAD_MODEL NBDKIT_THREAD_MODEL_PARALLEL

static struct crg crg;
static char why[CONF_ERR_MAX + 1]; /* main thread: sentence for the next nbdkit_error */
static _Atomic unsigned next_lane;

/* One connection of a client. */
struct client {
  unsigned lane;
};

static void
crg_load (void)
{
  crg.p.connections = CLIENT_CONNECTIONS;
  crg.p.keep_bytes = CLIENT_KEEP_BYTES;
  crg.kick_fd = crg.stop_fd = crg.status_listen = -1;
  crg.block_min = 1;
  crg.block_preferred = META_BLOCK_SIZE;
  crg.block_max = NBD_MAX_REQUEST;
}

static int
bad (const char *key, const char *value, const char *what)
{
  nbdkit_error ("crg: %s=%s: %s", key, value, what);
  return -1;
}

static int
set_path (const char *key, const char *value, char *to, size_t size)
{
  char *path = nbdkit_absolute_path (value);
  int r = 0;

  if (!path)
    return -1;
  if (strlen (path) >= size)
    r = bad (key, value, "the path is too long");
  else
    memcpy (to, path, strlen (path) + 1);
  free (path);
  return r;
}

static int
crg_config (const char *key, const char *value)
{
  uint64_t v;

  if (strcmp (key, "iasp") == 0 || strcmp (key, "client") == 0) {
    if (!ident_name_is_valid (value))
      return bad (key, value, "not a name; use 1 to 63 of a-z 0-9 _ . - and begin with a letter or digit");
    snprintf (key[0] == 'i' ? crg.p.iasp : crg.p.client, CRG_NAME_MAX + 1, "%s", value);
    crg.p.stable |= key[0] == 'c';
    return 0;
  }
  if (strcmp (key, "nodes") == 0)
    return ask_parse (&crg.p.nodes, value, why, sizeof why) < 0 ? bad (key, value, why) : 0;
  if (strcmp (key, "tls-certificates") == 0)
    return set_path (key, value, crg.p.tls_dir, sizeof crg.p.tls_dir);
  if (strcmp (key, "status") == 0)
    return set_path (key, value, crg.p.status_path, sizeof crg.p.status_path);
  if (strcmp (key, "state") == 0)
    return set_path (key, value, crg.p.state_path, sizeof crg.p.state_path);
  if (strcmp (key, "connections") == 0) {
    if (conf_parse_size (value, &v) < 0 || v < 1 || v > CLIENT_MAX_CONNECTIONS)
      return bad (key, value, "not a number from 1 to 16");
    crg.p.connections = (unsigned) v;
    return 0;
  }
  if (strcmp (key, "timeout") == 0) {
    if (conf_parse_size (value, &v) < 0 || v > CONF_MAX_TIMEOUT_MS / 1000)
      return bad (key, value, "not a number of seconds from 0 (wait for ever) to 86400");
    crg.p.timeout_ms = v * 1000;
    return 0;
  }
  if (strcmp (key, "keep") == 0) {
    if (conf_parse_size (value, &v) < 0 || v > CLIENT_KEEP_BYTES_MAX)
      return bad (key, value, "not a size from 0 to 1G, as in 32M");
    crg.p.keep_bytes = (uint32_t) v;
    return 0;
  }
  nbdkit_error ("crg: there is no parameter '%s'; nbdkit --help crg lists them", key);
  return -1;
}

static int
crg_config_complete (void)
{
  if (!crg.p.iasp[0] || crg.p.nodes.n == 0) {
    nbdkit_error ("crg: iasp= and nodes= are required");
    return -1;
  }
  if (ask_needs_tls (&crg.p.nodes) && !crg.p.tls_dir[0]) {
    nbdkit_error ("crg: nodes are asked over TLS: tls-certificates= is required, the directory that "
                  "'crgctl init-pki --client' made");
    return -1;
  }
  if (!crg.p.client[0])
    snprintf (crg.p.client, sizeof crg.p.client, "c-%016llx", (unsigned long long) clock_random_u64 ());
  log_init (crg.p.iasp);
  return 0;
}

#define crg_config_help                                                                         \
  "iasp=<NAME>             (required) Name of the IASP.\n"                                      \
  "nodes=<NODE>[=<ADDRESS>][:<PORT>],...  (required) Nodes to ask, or unix:<SOCKET>.\n"         \
  "tls-certificates=<DIR>  The client's certificates.\n"                                        \
  "connections=<N>         To production [4].\n"                                                \
  "timeout=<SECONDS>       A request fails after so long [0: it waits for ever].\n"             \
  "keep=<SIZE>             Unflushed writes kept in case they are lost [32M].\n"                \
  "client=<NAME>           Who we are, also after a restart [random].\n"                        \
  "state=<FILE>            What is on record for the next process.\n"                           \
  "status=<SOCKET>         Tells how it is doing.\n"

/* The last place where the user sees an error. */
static int
crg_get_ready (void)
{
  struct follow_kept *kept = calloc (CLIENT_KEEP_WRITES, sizeof *kept);
  int r = 0;

  crg.keep = malloc (MAX (crg.p.keep_bytes, 1u));
  if (!kept || !crg.keep) {
    nbdkit_error ("crg: no memory for %u bytes of kept writes; lower keep=", crg.p.keep_bytes);
    free (kept);
    return -1;
  }
  follow_init (&crg.f, kept, CLIENT_KEEP_WRITES, crg.p.keep_bytes);
  if (crg.p.tls_dir[0]) {
    crg.tls = ask_load_tls (crg.p.tls_dir, why, sizeof why);
    if (!crg.tls)
      r = -1;
  }
  if (r == 0 && crg.p.state_path[0] && crg_state_read (&crg, why, sizeof why) < 0)
    r = -1;
  if (r == 0 && crg.p.status_path[0] && crg_status_listen (&crg, why, sizeof why) < 0)
    r = -1;
  if (r < 0)
    nbdkit_error ("crg: %s", why);
  return r;
}

static int
start_thread (pthread_t *thread, void *(*fn) (void *), bool *has)
{
  sigset_t all, old;
  int r;

  sigfillset (&all);
  pthread_sigmask (SIG_SETMASK, &all, &old);
  r = pthread_create (thread, NULL, fn, &crg);
  pthread_sigmask (SIG_SETMASK, &old, NULL);
  *has = r == 0;
  return -r;
}

/* To a client that is there nbdkit says ESHUTDOWN when it is told to end, and the kernel makes an
 * I/O error of that.  A client that comes again must not hear it; and this process may go at any
 * instruction. */
static void
on_end_signal (int sig)
{
  if (crg.p.status_path[0])
    unlink (crg.p.status_path);
  _exit (EXIT_SUCCESS);
}

static void
end_at_once (void)
{
  static const int signals[] = { SIGTERM, SIGINT, SIGQUIT, SIGHUP };
  struct sigaction sa = { .sa_handler = on_end_signal };

  for (unsigned i = 0; i < ARRAY_SIZE (signals); i++)
    sigaction (signals[i], &sa, NULL);
  /* nbdkit 1.32 asks for a SIGTERM when its parent dies; the parent comes again, too. */
  prctl (PR_SET_PDEATHSIG, 0);
}

static int
crg_after_fork (void)
{
  pthread_condattr_t attr;

  pthread_mutex_init (&crg.lock, NULL);
  pthread_condattr_init (&attr);
  pthread_condattr_setclock (&attr, CLOCK_MONOTONIC);
  pthread_cond_init (&crg.changed, &attr);
  pthread_cond_init (&crg.let_by, NULL);
  pthread_condattr_destroy (&attr);
  if (crg.p.stable)
    end_at_once ();
  crg.kick_fd = eventfd (0, EFD_CLOEXEC | EFD_NONBLOCK);
  crg.stop_fd = eventfd (0, EFD_CLOEXEC | EFD_NONBLOCK);
  crg.down_since_ms = clock_boottime_ms ();
  if (crg.kick_fd < 0 || crg.stop_fd < 0 || start_thread (&crg.finder, crg_finder, &crg.has_finder) < 0
      || (crg.status_listen >= 0 && start_thread (&crg.status, crg_status_thread, &crg.has_status) < 0)) {
    nbdkit_error ("crg: no threads: %s", strerror (errno));
    return -1;
  }
  return 0;
}

static void
crg_cleanup (void)
{
  struct crg_session *s;
  uint64_t one = 1;

  if (!crg.has_finder)
    return;
  pthread_mutex_lock (&crg.lock);
  crg.stopping = true;
  pthread_cond_broadcast (&crg.changed);
  pthread_mutex_unlock (&crg.lock);
  if (write (crg.stop_fd, &one, sizeof one) < 0)
    return;
  pthread_join (crg.finder, NULL);
  if (crg.has_status)
    pthread_join (crg.status, NULL);
  pthread_mutex_lock (&crg.lock);
  s = crg.current;
  if (s)
    atomic_fetch_add (&s->refs, 1);
  pthread_mutex_unlock (&crg.lock);
  if (s) {
    crg_session_break (s, "nbdkit ends");
    crg_session_put (s);
  }
  crg_end_threads (&crg);
}

static void
crg_unload (void)
{
  if (crg.status_listen >= 0) {
    close (crg.status_listen);
    unlink (crg.p.status_path);
  }
  tlslink_ctx_free (crg.tls);
  free (crg.f.kept);
  free (crg.keep);
}

/* ---- connections -------------------------------------------------------------------------- */

static int
crg_list_exports (int readonly, int is_tls, struct nbdkit_exports *exports)
{
  return nbdkit_add_export (exports, crg.p.iasp, NULL);
}

static const char *
crg_default_export (int readonly, int is_tls)
{
  return crg.p.iasp;
}

static void *
crg_open (int readonly)
{
  const char *export = nbdkit_export_name ();
  char err[CRG_REASON_MAX + 1];
  struct client *cl;

  if (export && export[0] != '\0' && strcmp (export, crg.p.iasp) != 0) {
    nbdkit_error ("crg: no export '%.200s' here; this is '%s'", export, crg.p.iasp);
    return NULL;
  }
  if (crg_wait_attached (&crg, err, sizeof err) < 0) {
    nbdkit_error ("crg: %s: %s", crg.p.iasp, err);
    return NULL;
  }
  cl = calloc (1, sizeof *cl);
  if (!cl) {
    nbdkit_error ("crg: out of memory");
    return NULL;
  }
  cl->lane = atomic_fetch_add (&next_lane, 1);
  return cl;
}

static void
crg_close (void *handle)
{
  free (handle);
}

static bool
can (uint32_t flag)
{
  LOCK_SCOPE (&crg.lock);

  return (crg.f.flags & flag) != 0;
}

static int64_t
crg_get_size (void *handle)
{
  LOCK_SCOPE (&crg.lock);

  return (int64_t) crg.f.size;
}

/* Also over several connections to production, or only one: a flush covers all that was answered
 * (Y5). */
static int
crg_can_multi_conn (void *handle)
{
  return 1;
}

static int
crg_can_write (void *handle)
{
  return can (FOLLOW_CAN_WRITE);
}

static int
crg_can_flush (void *handle)
{
  return can (FOLLOW_CAN_FLUSH);
}

static int
crg_can_trim (void *handle)
{
  return can (FOLLOW_CAN_TRIM);
}

static int
crg_can_zero (void *handle)
{
  return can (FOLLOW_CAN_ZERO);
}

static int
crg_can_fast_zero (void *handle)
{
  return can (FOLLOW_CAN_FAST_ZERO);
}

static int
crg_can_fua (void *handle)
{
  return can (FOLLOW_CAN_FUA) ? NBDKIT_FUA_NATIVE : NBDKIT_FUA_NONE;
}

static int
crg_can_cache (void *handle)
{
  return can (FOLLOW_CAN_CACHE) ? NBDKIT_CACHE_NATIVE : NBDKIT_CACHE_NONE;
}

static int
crg_can_extents (void *handle)
{
  return can (FOLLOW_CAN_EXTENTS);
}

static int
crg_block_size (void *handle, uint32_t *minimum, uint32_t *preferred, uint32_t *maximum)
{
  LOCK_SCOPE (&crg.lock);

  *minimum = crg.block_min;
  *preferred = crg.block_preferred;
  *maximum = crg.block_max;
  return 0;
}

/* ---- requests ----------------------------------------------------------------------------- */

static int
submit (void *handle, struct crg_request *r, const char *what)
{
  struct client *cl = handle;
  int e = crg_submit (&crg, r, cl->lane);

  if (e == 0)
    return 0;
  if (e != -ENOTSUP || !(r->flags & LIBNBD_CMD_FLAG_FAST_ZERO))
    nbdkit_error ("crg %s: %s of %u bytes at %llu: %s", crg.p.iasp, what, r->count, (unsigned long long) r->offset,
                  strerror (-e));
  nbdkit_set_error (-e);
  return -1;
}

static int
crg_pread (void *handle, void *buf, uint32_t count, uint64_t offset, uint32_t flags)
{
  struct crg_request r = { .op = CRG_READ, .buf = buf, .count = count, .offset = offset };

  return submit (handle, &r, "read");
}

static uint32_t
fua (uint32_t flags)
{
  return flags & NBDKIT_FLAG_FUA ? LIBNBD_CMD_FLAG_FUA : 0;
}

static int
crg_pwrite (void *handle, const void *buf, uint32_t count, uint64_t offset, uint32_t flags)
{
  struct crg_request r = { .op = CRG_WRITE, .buf = (void *) buf, .count = count, .offset = offset,
                           .flags = fua (flags) };

  return submit (handle, &r, "write");
}

static int
crg_flush (void *handle, uint32_t flags)
{
  struct crg_request r = { .op = CRG_FLUSH };

  return submit (handle, &r, "flush");
}

static int
crg_trim (void *handle, uint32_t count, uint64_t offset, uint32_t flags)
{
  struct crg_request r = { .op = CRG_TRIM, .count = count, .offset = offset, .flags = fua (flags) };

  return submit (handle, &r, "trim");
}

static int
crg_zero (void *handle, uint32_t count, uint64_t offset, uint32_t flags)
{
  struct crg_request r = { .op = CRG_ZERO, .count = count, .offset = offset };

  r.flags = fua (flags) | (flags & NBDKIT_FLAG_MAY_TRIM ? 0 : LIBNBD_CMD_FLAG_NO_HOLE)
            | (flags & NBDKIT_FLAG_FAST_ZERO ? LIBNBD_CMD_FLAG_FAST_ZERO : 0);
  return submit (handle, &r, "zero");
}

static int
crg_cache (void *handle, uint32_t count, uint64_t offset, uint32_t flags)
{
  struct crg_request r = { .op = CRG_CACHE, .count = count, .offset = offset };

  return submit (handle, &r, "cache");
}

static int
crg_extents (void *handle, uint32_t count, uint64_t offset, uint32_t flags, struct nbdkit_extents *extents)
{
  struct crg_request r = { .op = CRG_EXTENTS, .count = count, .offset = offset,
                           .flags = flags & NBDKIT_FLAG_REQ_ONE ? LIBNBD_CMD_FLAG_REQ_ONE : 0 };
  int e = submit (handle, &r, "extents");

  for (size_t i = 0; e == 0 && i + 1 < r.n_extents && r.extents; i += 2) {
    /* NBD's bits are nbdkit's: hole, zero. */
    e = nbdkit_add_extent (extents, offset, r.extents[i], r.extents[i + 1] & (NBDKIT_EXTENT_HOLE | NBDKIT_EXTENT_ZERO));
    offset += r.extents[i];
  }
  if (e == 0 && !r.extents) {
    nbdkit_error ("crg %s: extents at %llu: the host's answer has none", crg.p.iasp, (unsigned long long) offset);
    nbdkit_set_error (EIO);
    e = -1;
  }
  free (r.extents);
  return e;
}

static struct nbdkit_plugin plugin = {
  .name = "crg",
  .longname = "nbd-crg client",
  .version = PACKAGE_VERSION,
  .description = "A client that follows the production of an IASP",
  .load = crg_load,
  .unload = crg_unload,
  .config = crg_config,
  .config_complete = crg_config_complete,
  .config_help = crg_config_help,
  .magic_config_key = "iasp",
  .get_ready = crg_get_ready,
  .after_fork = crg_after_fork,
  .cleanup = crg_cleanup,
  .list_exports = crg_list_exports,
  .default_export = crg_default_export,
  .open = crg_open,
  .close = crg_close,
  .get_size = crg_get_size,
  .can_multi_conn = crg_can_multi_conn,
  .can_write = crg_can_write,
  .can_flush = crg_can_flush,
  .can_trim = crg_can_trim,
  .can_zero = crg_can_zero,
  .can_fast_zero = crg_can_fast_zero,
  .can_fua = crg_can_fua,
  .can_cache = crg_can_cache,
  .can_extents = crg_can_extents,
  .block_size = crg_block_size,
  .pread = crg_pread,
  .pwrite = crg_pwrite,
  .flush = crg_flush,
  .trim = crg_trim,
  .zero = crg_zero,
  .cache = crg_cache,
  .extents = crg_extents,
  .errno_is_preserved = 0,
};

/* The macro defines it; nbdkit finds it by its name. */
extern struct nbdkit_plugin *plugin_init (void);

NBDKIT_REGISTER_PLUGIN (plugin)
