/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Timers and names from corosync's cmap.  See corosync_cmap.h.  Main loop's
 * thread only.
 */
#include <config.h>

#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>

#include <qb/qblog.h>
#include <qb/qbloop.h>

#include "server/cmap_value.h"
#include "server/corosync_cmap.h"

#include "common/util.h"

#define KEY_TOKEN     "runtime.config.totem.token"
#define KEY_CONSENSUS "runtime.config.totem.consensus"

static void
tell_broken (struct corosync_cmap *c, cs_error_t err)
{
  if (!c->is_broken)
    c->broken (c->opaque, "connection to cmap lost", err);
  c->is_broken = true;
}

/* nodelist.node.N.nodeid and .name, for all N. */
static cs_error_t
names_read (struct corosync_cmap *c)
{
  char key[CMAP_KEYNAME_MAXLEN + 1], name_key[CMAP_KEYNAME_MAXLEN + 1];
  cmap_iter_handle_t iter;
  cmap_value_types_t type;
  size_t len;
  cs_error_t err = cmap_iter_init (c->handle, "nodelist.node.", &iter);

  c->n_nodes = 0;
  if (err != CS_OK)
    return err;
  while (c->n_nodes < ARRAY_SIZE (c->nodes)
         && cmap_iter_next (c->handle, iter, key, &len, &type) == CS_OK) {
    struct corosync_node *k = &c->nodes[c->n_nodes];
    uint32_t place;
    char *name = NULL;

    if (!cmap_value_node (key, &place))
      continue;
    snprintf (name_key, sizeof name_key, "nodelist.node.%" PRIu32 ".name", place);
    if (cmap_get_uint32 (c->handle, key, &k->nodeid) != CS_OK
        || cmap_get_string (c->handle, name_key, &name) != CS_OK)
      continue;
    if (cmap_value_name (name, k->name)) {
      k->id = c->id_of (k->name);
      c->n_nodes++;
    }
    free (name);
  }
  cmap_iter_finalize (c->handle, iter);
  return CS_OK;
}

static const struct corosync_node *
find (const struct corosync_cmap *c, uint32_t nodeid)
{
  for (unsigned i = 0; i < c->n_nodes; i++)
    if (c->nodes[i].nodeid == nodeid)
      return &c->nodes[i];
  return NULL;
}

uint32_t
corosync_cmap_id (struct corosync_cmap *c, uint32_t nodeid)
{
  const struct corosync_node *k;

  if (c->id_of == NULL)
    return nodeid;
  k = find (c, nodeid);
  /* It may have been added while we run. */
  if (k == NULL && c->open && !c->is_broken && names_read (c) == CS_OK)
    k = find (c, nodeid);
  return k ? k->id : 0;
}

bool
corosync_cmap_is_self (struct corosync_cmap *c, uint32_t nodeid, const char *name, bool say)
{
  const struct corosync_node *k = find (c, nodeid);

  if (c->id_of == NULL || (k && strcmp (k->name, name) == 0))
    return true;
  if (!say)
    return false;
  if (k)
    qb_log (LOG_ERR,
            "corosync.conf calls this node (nodeid %u) '%s', crgd.conf calls it '%s': make "
            "the names equal",
            nodeid, k->name, name);
  else
    qb_log (LOG_ERR,
            "corosync.conf gives this node (nodeid %u) no name: add 'name: %s' to it in the "
            "nodelist, and to each other node the name from its crgd.conf",
            nodeid, name);
  return false;
}

static void
on_change (cmap_handle_t handle, cmap_track_handle_t track, int32_t event, const char *key,
           struct cmap_notify_value now, struct cmap_notify_value before, void *opaque)
{
  struct corosync_cmap *c = opaque;
  uint32_t value;

  if (!cmap_value_number (now.type == CMAP_VALUETYPE_UINT32, now.data, now.len, &value))
    return;
  if (strcmp (key, KEY_TOKEN) == 0)
    c->token_ms = value;
  else if (strcmp (key, KEY_CONSENSUS) == 0)
    c->consensus_ms = value;
  else
    return;
  qb_log (LOG_NOTICE, "corosync: %s is now %u", key, value);
}

static int32_t
on_fd (int32_t fd, int32_t revents, void *data)
{
  struct corosync_cmap *c = data;
  cs_error_t err = CS_OK;

  if (c->is_broken)
    return 0;
  if (revents & POLLIN)
    err = cmap_dispatch (c->handle, CS_DISPATCH_ALL);
  if (err != CS_OK && err != CS_ERR_TRY_AGAIN)
    tell_broken (c, err);
  else if (revents & (POLLHUP | POLLERR | POLLNVAL))
    tell_broken (c, CS_ERR_LIBRARY);
  return 0;
}

cs_error_t
corosync_cmap_open (struct corosync_cmap *c)
{
  static const char *const keys[] = { KEY_TOKEN, KEY_CONSENSUS };
  uint32_t *const values[] = { &c->token_ms, &c->consensus_ms };
  cmap_track_handle_t track;
  cs_error_t err = cmap_initialize (&c->handle);

  if (err != CS_OK)
    return err;
  c->is_broken = false;
  for (unsigned i = 0; i < ARRAY_SIZE (keys) && err == CS_OK; i++) {
    err = cmap_get_uint32 (c->handle, keys[i], values[i]);
    if (err == CS_OK)
      err = cmap_track_add (c->handle, keys[i], CMAP_TRACK_ADD | CMAP_TRACK_MODIFY, on_change, c,
                            &track);
  }
  if (err == CS_OK && c->id_of)
    err = names_read (c);
  if (err == CS_OK)
    err = cmap_fd_get (c->handle, &c->fd);
  if (err == CS_OK && qb_loop_poll_add (c->loop, QB_LOOP_MED, c->fd, POLLIN, c, on_fd) != 0)
    err = CS_ERR_NO_RESOURCES;
  if (err != CS_OK) {
    cmap_finalize (c->handle);
    return err;
  }
  c->open = true;
  return CS_OK;
}

void
corosync_cmap_close (struct corosync_cmap *c)
{
  if (!c->open)
    return;
  qb_loop_poll_del (c->loop, c->fd);
  cmap_finalize (c->handle);
  c->open = false;
}
