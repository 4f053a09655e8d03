/* SPDX-License-Identifier: BSD-3-Clause */
/* The nbdkit side of the plugin: configuration, life cycle and one thin function for each
 * request.  The host calls it: load to after_fork and cleanup on the main thread, everything
 * with a handle on its worker threads.  Owns the one struct iasp of the process.  Nothing
 * durable happens in close, cleanup or unload: the process may be killed at any instruction.
 */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include "common/query.h"
#include "common/util.h"
#include "common/wire.h"
#include "plugin/engine.h"
#include "plugin/errmap.h"
#include "plugin/iasp.h"
#include "plugin/storemeta.h"

#define THREAD_MODEL NBDKIT_THREAD_MODEL_PARALLEL

/* One connection.  Most have no session. */
struct conn {
  struct session *session;
  uint64_t tenure; /* under which it was let in */
};

static struct iasp iasp;
static char why[512]; /* main thread: sentence for the next nbdkit_error */

static void
iasp_load (void)
{
  if (store_load () < 0) {
    nbdkit_error ("iasp: no thread key for bounce buffers");
    exit (EXIT_FAILURE);
  }
  params_init (&iasp.p);
  store_init (&iasp.store);
  session_table_init (&iasp.sessions);
  gate_init (&iasp.gate, GATE_CLOSED, UINT64_MAX);
}

static void
iasp_unload (void)
{
  engine_free (iasp.engine);
  store_destroy (&iasp.store);
  store_unload ();
}

static int
iasp_config (const char *key, const char *value)
{
  char *path = NULL;
  int r;

  if (strcmp (key, "store") == 0
      || (value[0] != '\0' && (strcmp (key, "meta") == 0 || strcmp (key, "control") == 0))) {
    /* The host may change its directory when it forks. */
    path = nbdkit_absolute_path (value);
    if (!path)
      return -1;
  }
  r = params_set (&iasp.p, key, path ? path : value, why, sizeof why);
  free (path);
  if (r < 0) {
    nbdkit_error ("iasp: %s", why);
    return -1;
  }
  return 0;
}

static int
iasp_config_complete (void)
{
  if (params_complete (&iasp.p, why, sizeof why) < 0) {
    nbdkit_error ("iasp: %s", why);
    return -1;
  }
  return 0;
}

static void
iasp_dump_plugin (void)
{
  printf ("iasp_version=%s\n", PACKAGE_VERSION);
  printf ("iasp_control_protocol=1\n");
  printf ("iasp_link_protocol_min=%d\n", WIRE_PROTO_MIN);
  printf ("iasp_link_protocol_max=%d\n", WIRE_PROTO_MAX);
  printf ("iasp_max_request=%d\n", NBD_MAX_REQUEST);
  printf ("iasp_io_uring=yes\n");
#ifdef CRG_TEST
  printf ("iasp_test_build=yes\n");
#else
  printf ("iasp_test_build=no\n");
#endif
}

/* The last place where the user sees an error. */
static int
iasp_get_ready (void)
{
  if (store_open_with (&iasp.store, iasp.p.store, iasp.p.meta, iasp.p.direct, why, sizeof why) < 0)
    goto error;
  if (iasp.p.control[0] != '\0') {
    /* The controller says when the store is ours; till then it is only looked at. */
    store_close (&iasp.store);
    /* nbdkit 1.32 asks for a SIGTERM when its parent dies, --exit-with-parent or not.  The daemon
     * is the parent, and a plugin outlives it (S3).  This is the thread that asked. */
    prctl (PR_SET_PDEATHSIG, 0);
    iasp.engine = engine_new (&iasp, why, sizeof why);
    if (!iasp.engine)
      goto error;
    return 0;
  }
  if (store_lock (&iasp.store, iasp.p.store) < 0) {
    snprintf (why, sizeof why, "store %s: another process has it open; end that one first", iasp.p.store);
    goto error;
  }
  if (storemeta_check_free (&iasp.store, iasp.p.store, why, sizeof why) < 0)
    goto error;
  gate_set (&iasp.gate, GATE_FAST, false);
  nbdkit_debug ("iasp %s: store %s, %llu bytes, %s, alignment %u", iasp.p.name, iasp.p.store,
                (unsigned long long) iasp.store.data_bytes,
                iasp.store.direct ? "direct" : "through the page cache", iasp.store.align);
  return 0;

error:
  nbdkit_error ("iasp: %s", why);
  return -1;
}

static int
iasp_after_fork (void)
{
  if (iasp.engine && engine_start (iasp.engine, why, sizeof why) < 0) {
    nbdkit_error ("iasp: %s", why);
    return -1;
  }
  return 0;
}

static void
iasp_cleanup (void)
{
  if (iasp.engine)
    engine_stop (iasp.engine);
}

static int
iasp_list_exports (int readonly, int is_tls, struct nbdkit_exports *exports)
{
  return nbdkit_add_export (exports, iasp.p.name, NULL);
}

static const char *
iasp_default_export (int readonly, int is_tls)
{
  return iasp.p.name;
}

static void *
iasp_open (int readonly)
{
  const char *export = nbdkit_export_name ();
  char reason[CRG_REASON_MAX + 1];
  struct export_name name = { .client = "" };
  struct conn *c;

  if (export && export[0] != '\0' && (!export_name_parse (export, &name) || strcmp (name.iasp, iasp.p.name) != 0)) {
    nbdkit_error ("iasp: no export '%.200s' here; this is '%s'", export, iasp.p.name);
    return NULL;
  }
  if (iasp.engine && !engine_may_open (iasp.engine, reason, sizeof reason)) {
    nbdkit_error ("iasp: %s", reason);
    nbdkit_set_error (ESHUTDOWN);
    return NULL;
  }
  /* A client that follows production must not end on a fork (R6). */
  if (name.client[0] && atomic_load (&iasp.detached)) {
    nbdkit_error ("iasp: this is a detached copy of %s, not production", iasp.p.name);
    nbdkit_set_error (ESHUTDOWN);
    return NULL;
  }
  c = calloc (1, sizeof *c);
  if (!c) {
    nbdkit_error ("iasp: out of memory");
    return NULL;
  }
  if (name.client[0]) {
    c->session = session_join (&iasp.sessions, name.client, name.session, SESSION_WAIT_MS, reason, sizeof reason);
    if (!c->session) {
      nbdkit_error ("iasp: %s", reason);
      nbdkit_set_error (ESHUTDOWN);
      free (c);
      return NULL;
    }
  }
  if (iasp.engine)
    c->tenure = engine_tenure (iasp.engine);
  atomic_fetch_add (&iasp.clients, 1);
  return c;
}

static void
iasp_close (void *handle)
{
  struct conn *c = handle;

  if (c->session)
    session_leave (c->session);
  free (c);
  atomic_fetch_sub (&iasp.clients, 1);
}

/* What a following client relies on: under which tenure and loss this connection was let in. */
static const char *
iasp_export_description (void *handle)
{
  struct conn *c = handle;
  struct export_info x = { .tenure = 0 };
  char text[EXPORT_INFO_MAX + 1];

  snprintf (x.iasp, sizeof x.iasp, "%s", iasp.p.name);
  if (iasp.engine) {
    engine_export (iasp.engine, &x);
    if (x.tenure != c->tenure)
      x.tenure = 0; /* it is over already */
  }
  export_info_text (&x, text);
  return nbdkit_strdup_intern (text);
}

/* A request of a connection begins; false: its session is over, or the production that let it in
 * is.  It has no answer then, and the client asks elsewhere. */
static bool
begin (void *handle, struct session **s)
{
  struct conn *c = handle;

  *s = NULL;
  if (!c->session)
    return true;
  if (session_begin (c->session)) {
    *s = c->session;
    if (!iasp.engine || engine_tenure (iasp.engine) == c->tenure)
      return true;
  }
  nbdkit_set_error (ESHUTDOWN);
  return false;
}

static void
cleanup_session (struct session **s)
{
  if (*s)
    session_end (*s);
}
#define BEGIN_REQUEST(handle)                                                        \
  __attribute__ ((__cleanup__ (cleanup_session))) struct session *session_ = NULL;   \
  if (!begin (handle, &session_))                                                    \
  return -1

static int64_t
iasp_get_size (void *handle)
{
  return (int64_t) (iasp.engine ? iasp.p.size : iasp.store.data_bytes);
}

static int
iasp_can_multi_conn (void *handle)
{
  return 1;
}

static int
iasp_can_write (void *handle)
{
  return !atomic_load (&iasp.read_only);
}

static int
iasp_can_flush (void *handle)
{
  return 1;
}

static int
iasp_can_trim (void *handle)
{
  return 1;
}

static int
iasp_can_zero (void *handle)
{
  return 1;
}

static int
iasp_can_fast_zero (void *handle)
{
  return 1;
}

static int
iasp_can_fua (void *handle)
{
  return NBDKIT_FUA_NATIVE;
}

static int
iasp_can_cache (void *handle)
{
  return NBDKIT_CACHE_NATIVE;
}

static int
iasp_can_extents (void *handle)
{
  return 1;
}

static int
iasp_is_rotational (void *handle)
{
  return iasp.store.is_rotational;
}

static int
iasp_block_size (void *handle, uint32_t *minimum, uint32_t *preferred, uint32_t *maximum)
{
  *minimum = 1;
  *preferred = META_BLOCK_SIZE;
  *maximum = NBD_MAX_REQUEST;
  return 0;
}

/* The one way out for errors of requests. */
static int
answer (int r, const char *what, uint32_t count, uint64_t offset, uint32_t flags)
{
  int err;

  if (r >= 0)
    return 0;
  err = errmap_to_nbd (-r, flags & NBDKIT_FLAG_FAST_ZERO);
  if (err == ENOTSUP)
    nbdkit_debug ("iasp %s: %s of %u bytes at %llu would not be fast", iasp.p.name, what, count,
                  (unsigned long long) offset);
  else
    nbdkit_error ("iasp %s: %s of %u bytes at %llu: %s", iasp.p.name, what, count,
                  (unsigned long long) offset, strerror (-r));
  nbdkit_set_error (err);
  return -1;
}

static unsigned
work_flags (uint32_t flags)
{
  return (flags & NBDKIT_FLAG_FUA ? WORK_F_FUA : 0)
         | (flags & NBDKIT_FLAG_MAY_TRIM ? WORK_F_MAY_TRIM : 0)
         | (flags & NBDKIT_FLAG_FAST_ZERO ? WORK_F_FAST_ZERO : 0);
}

static int
iasp_pread (void *handle, void *buf, uint32_t count, uint64_t offset, uint32_t flags)
{
  BEGIN_REQUEST (handle);
  return answer (work_pread (&iasp, buf, count, offset), "read", count, offset, flags);
}

static int
iasp_pwrite (void *handle, const void *buf, uint32_t count, uint64_t offset, uint32_t flags)
{
  BEGIN_REQUEST (handle);
  return answer (work_pwrite (&iasp, buf, count, offset, work_flags (flags)), "write", count, offset, flags);
}

static int
iasp_flush (void *handle, uint32_t flags)
{
  BEGIN_REQUEST (handle);
  return answer (work_flush (&iasp), "flush", 0, 0, flags);
}

static int
iasp_trim (void *handle, uint32_t count, uint64_t offset, uint32_t flags)
{
  BEGIN_REQUEST (handle);
  return answer (work_trim (&iasp, count, offset, work_flags (flags)), "trim", count, offset, flags);
}

static int
iasp_zero (void *handle, uint32_t count, uint64_t offset, uint32_t flags)
{
  BEGIN_REQUEST (handle);
  return answer (work_zero (&iasp, count, offset, work_flags (flags)), "zero", count, offset, flags);
}

static int
iasp_cache (void *handle, uint32_t count, uint64_t offset, uint32_t flags)
{
  BEGIN_REQUEST (handle);
  return answer (work_cache (&iasp, count, offset), "cache", count, offset, flags);
}

struct add_scope {
  struct nbdkit_extents *extents;
  bool one;
};

static int
add_extent (void *opaque, uint64_t offset, uint64_t length, bool is_hole)
{
  struct add_scope *scope = opaque;

  if (nbdkit_add_extent (scope->extents, offset, length,
                         is_hole ? NBDKIT_EXTENT_HOLE | NBDKIT_EXTENT_ZERO : 0) == -1)
    return -EIO;
  return scope->one;
}

static int
iasp_extents (void *handle, uint32_t count, uint64_t offset, uint32_t flags,
              struct nbdkit_extents *extents)
{
  struct add_scope scope = { extents, flags & NBDKIT_FLAG_REQ_ONE };
  BEGIN_REQUEST (handle);

  return answer (work_extents (&iasp, count, offset, add_extent, &scope), "extents", count, offset, flags);
}

static struct nbdkit_plugin plugin = {
  .name = "iasp",
  .longname = "nbd-crg IASP",
  .version = PACKAGE_VERSION,
  .description = "One copy of a mirrored disk (independent auxiliary storage pool)",
  .load = iasp_load,
  .unload = iasp_unload,
  .config = iasp_config,
  .config_complete = iasp_config_complete,
  .config_help = params_help,
  .magic_config_key = "store",
  .dump_plugin = iasp_dump_plugin,
  .get_ready = iasp_get_ready,
  .after_fork = iasp_after_fork,
  .cleanup = iasp_cleanup,
  .list_exports = iasp_list_exports,
  .default_export = iasp_default_export,
  .open = iasp_open,
  .close = iasp_close,
  .export_description = iasp_export_description,
  .get_size = iasp_get_size,
  .can_multi_conn = iasp_can_multi_conn,
  .can_write = iasp_can_write,
  .can_flush = iasp_can_flush,
  .can_trim = iasp_can_trim,
  .can_zero = iasp_can_zero,
  .can_fast_zero = iasp_can_fast_zero,
  .can_fua = iasp_can_fua,
  .can_cache = iasp_can_cache,
  .can_extents = iasp_can_extents,
  .is_rotational = iasp_is_rotational,
  .block_size = iasp_block_size,
  .pread = iasp_pread,
  .pwrite = iasp_pwrite,
  .flush = iasp_flush,
  .trim = iasp_trim,
  .zero = iasp_zero,
  .cache = iasp_cache,
  .extents = iasp_extents,
  .errno_is_preserved = 0,
};

/* The macro defines it; nbdkit finds it by its name. */
extern struct nbdkit_plugin *plugin_init (void);

NBDKIT_REGISTER_PLUGIN (plugin)
