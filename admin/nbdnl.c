/* SPDX-License-Identifier: BSD-3-Clause */
/* Generic netlink for nbdnl.h, on libmnl.
 */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <libmnl/libmnl.h>
#include <linux/genetlink.h>
#include <linux/nbd-netlink.h>

#include "admin/nbdnl.h"

#define BUFFER 8192

struct nbdnl {
  struct mnl_socket *ask, *hear;
  uint16_t family;
  uint32_t group;
  uint32_t seq;
};

/* ---- which family and group nbd has ------------------------------------------------------- */

static void
take_groups (struct nbdnl *n, const struct nlattr *groups)
{
  const struct nlattr *group, *attr;

  mnl_attr_for_each_nested (group, groups) {
    const char *name = "";
    uint32_t id = 0;

    mnl_attr_for_each_nested (attr, group) {
      if (mnl_attr_get_type (attr) == CTRL_ATTR_MCAST_GRP_NAME && mnl_attr_validate (attr, MNL_TYPE_NUL_STRING) >= 0)
        name = mnl_attr_get_str (attr);
      else if (mnl_attr_get_type (attr) == CTRL_ATTR_MCAST_GRP_ID && mnl_attr_validate (attr, MNL_TYPE_U32) >= 0)
        id = mnl_attr_get_u32 (attr);
    }
    if (strcmp (name, NBD_GENL_MCAST_GROUP_NAME) == 0)
      n->group = id;
  }
}

static int
on_family (const struct nlmsghdr *h, void *opaque)
{
  struct nbdnl *n = opaque;
  const struct nlattr *attr;

  mnl_attr_for_each (attr, h, sizeof (struct genlmsghdr)) {
    if (mnl_attr_get_type (attr) == CTRL_ATTR_FAMILY_ID && mnl_attr_validate (attr, MNL_TYPE_U16) >= 0)
      n->family = mnl_attr_get_u16 (attr);
    else if (mnl_attr_get_type (attr) == CTRL_ATTR_MCAST_GROUPS && mnl_attr_validate (attr, MNL_TYPE_NESTED) >= 0)
      take_groups (n, attr);
  }
  return MNL_CB_OK;
}

static struct nlmsghdr *
begin (struct nbdnl *n, char *buf, uint16_t family, uint8_t command, uint8_t version)
{
  struct nlmsghdr *h = mnl_nlmsg_put_header (buf);
  struct genlmsghdr *g;

  h->nlmsg_type = family;
  h->nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK;
  h->nlmsg_seq = ++n->seq;
  g = mnl_nlmsg_put_extra_header (h, sizeof *g);
  g->cmd = command;
  g->version = version;
  return h;
}

/* Sends, and reads up to the acknowledgement.  0 or -errno. */
static int
talk (struct nbdnl *n, const struct nlmsghdr *h, mnl_cb_t cb, void *opaque)
{
  char buf[BUFFER];
  int r = 1;

  if (mnl_socket_sendto (n->ask, h, h->nlmsg_len) < 0)
    return -errno;
  while (r > 0) {
    ssize_t len = mnl_socket_recvfrom (n->ask, buf, sizeof buf);

    if (len < 0)
      return -errno;
    r = mnl_cb_run (buf, (size_t) len, n->seq, mnl_socket_get_portid (n->ask), cb, opaque);
    if (r < 0)
      return -errno;
  }
  return 0;
}

static struct mnl_socket *
open_socket (void)
{
  struct mnl_socket *s = mnl_socket_open2 (NETLINK_GENERIC, SOCK_CLOEXEC);

  if (s && mnl_socket_bind (s, 0, MNL_SOCKET_AUTOPID) < 0) {
    mnl_socket_close (s);
    return NULL;
  }
  return s;
}

struct nbdnl *
nbdnl_open (char *err, size_t errlen)
{
  struct nbdnl *n = calloc (1, sizeof *n);
  char buf[BUFFER];
  struct nlmsghdr *h;
  int r = -ENOMEM;

  if (n) {
    n->seq = (uint32_t) time (NULL);
    n->ask = open_socket ();
    n->hear = open_socket ();
    r = n->ask && n->hear ? 0 : -errno;
  }
  if (r == 0) {
    h = begin (n, buf, GENL_ID_CTRL, CTRL_CMD_GETFAMILY, 1);
    mnl_attr_put_strz (h, CTRL_ATTR_FAMILY_NAME, NBD_GENL_FAMILY_NAME);
    r = talk (n, h, on_family, n);
  }
  if (r == 0 && mnl_socket_setsockopt (n->hear, NETLINK_ADD_MEMBERSHIP, &n->group, sizeof n->group) < 0)
    r = -errno;
  if (r < 0) {
    snprintf (err, errlen, r == -ENOENT ? "this kernel has no nbd now: modprobe nbd" : "netlink: %s", strerror (-r));
    nbdnl_close (n);
    return NULL;
  }
  return n;
}

void
nbdnl_close (struct nbdnl *n)
{
  if (n == NULL)
    return;
  if (n->ask)
    mnl_socket_close (n->ask);
  if (n->hear)
    mnl_socket_close (n->hear);
  free (n);
}

/* ---- devices ------------------------------------------------------------------------------ */

static void
put_sockets (struct nlmsghdr *h, const int *fds, unsigned n_fds)
{
  struct nlattr *all = mnl_attr_nest_start (h, NBD_ATTR_SOCKETS);

  for (unsigned i = 0; i < n_fds; i++) {
    struct nlattr *one = mnl_attr_nest_start (h, NBD_SOCK_ITEM);

    mnl_attr_put_u32 (h, NBD_SOCK_FD, (uint32_t) fds[i]);
    mnl_attr_nest_end (h, one);
  }
  mnl_attr_nest_end (h, all);
}

static void
put_device (struct nlmsghdr *h, const struct nbdnl_device *d)
{
  if (d->index >= 0)
    mnl_attr_put_u32 (h, NBD_ATTR_INDEX, (uint32_t) d->index);
  mnl_attr_put_u64 (h, NBD_ATTR_SIZE_BYTES, d->size);
  mnl_attr_put_u64 (h, NBD_ATTR_BLOCK_SIZE_BYTES, d->block_size);
  mnl_attr_put_u64 (h, NBD_ATTR_TIMEOUT, d->timeout_s);
  mnl_attr_put_u64 (h, NBD_ATTR_DEAD_CONN_TIMEOUT, d->dead_conn_s);
  if (d->identifier)
    mnl_attr_put_strz (h, NBD_ATTR_BACKEND_IDENTIFIER, d->identifier);
}

static int
get_index (const struct nlmsghdr *h)
{
  const struct nlattr *attr;

  mnl_attr_for_each (attr, h, sizeof (struct genlmsghdr)) {
    if (mnl_attr_get_type (attr) == NBD_ATTR_INDEX && mnl_attr_validate (attr, MNL_TYPE_U32) >= 0)
      return (int) mnl_attr_get_u32 (attr);
  }
  return -1;
}

static int
on_connected (const struct nlmsghdr *h, void *opaque)
{
  *(int *) opaque = get_index (h);
  return MNL_CB_OK;
}

int
nbdnl_connect (struct nbdnl *n, const struct nbdnl_device *d, const int *fds, unsigned n_fds)
{
  char buf[BUFFER];
  struct nlmsghdr *h = begin (n, buf, n->family, NBD_CMD_CONNECT, NBD_GENL_VERSION);
  int index = d->index, r;

  put_device (h, d);
  mnl_attr_put_u64 (h, NBD_ATTR_SERVER_FLAGS, d->server_flags);
  put_sockets (h, fds, n_fds);
  r = talk (n, h, on_connected, &index);
  return r < 0 ? r : index < 0 ? -EPROTO : index;
}

int
nbdnl_reconfigure (struct nbdnl *n, const struct nbdnl_device *d, const int *fds, unsigned n_fds)
{
  char buf[BUFFER];
  struct nlmsghdr *h = begin (n, buf, n->family, NBD_CMD_RECONFIGURE, NBD_GENL_VERSION);

  put_device (h, d);
  put_sockets (h, fds, n_fds);
  return talk (n, h, NULL, NULL);
}

int
nbdnl_disconnect (struct nbdnl *n, int index)
{
  char buf[BUFFER];
  struct nlmsghdr *h = begin (n, buf, n->family, NBD_CMD_DISCONNECT, NBD_GENL_VERSION);

  mnl_attr_put_u32 (h, NBD_ATTR_INDEX, (uint32_t) index);
  return talk (n, h, NULL, NULL);
}

int
nbdnl_fd (const struct nbdnl *n)
{
  return mnl_socket_get_fd (n->hear);
}

static int
on_event (const struct nlmsghdr *h, void *opaque)
{
  const struct genlmsghdr *g = mnl_nlmsg_get_payload (h);

  if (mnl_nlmsg_get_payload_len (h) >= sizeof *g && g->cmd == NBD_CMD_LINK_DEAD)
    *(int *) opaque = get_index (h);
  return MNL_CB_OK;
}

int
nbdnl_dead_link (struct nbdnl *n)
{
  char buf[BUFFER];
  ssize_t len = recv (nbdnl_fd (n), buf, sizeof buf, MSG_DONTWAIT);
  int index = -1;

  if (len > 0)
    mnl_cb_run (buf, (size_t) len, 0, 0, on_event, &index);
  return index;
}
