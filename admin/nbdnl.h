/* SPDX-License-Identifier: BSD-3-Clause */
/* The kernel's NBD client, through generic netlink: attach sockets to a device, replace dead ones,
 * detach, and hear of dead ones.  One thread; owns two netlink sockets; nothing here waits longer
 * than the kernel takes to answer.
 */
#ifndef CRG_ADMIN_NBDNL_H
#define CRG_ADMIN_NBDNL_H

#include <stddef.h>
#include <stdint.h>

struct nbdnl;

struct nbdnl_device {
  int index;                /* N of /dev/nbdN; -1: any that is free */
  uint64_t size;            /* bytes */
  uint32_t block_size;      /* bytes */
  uint16_t server_flags;    /* NBD_FLAG_* of the handshake */
  uint64_t timeout_s;       /* a request without an answer is sent again then */
  uint64_t dead_conn_s;     /* without any connection requests wait so long */
  const char *identifier;   /* who we are; kernels before 5.14 don't keep it */
};

/* NULL with a sentence: no permission, or the kernel has no nbd. */
extern struct nbdnl *nbdnl_open (char *err, size_t errlen);
extern void nbdnl_close (struct nbdnl *n);

/* Attaches; the kernel keeps the sockets, whose handshake is over.  The index, or -errno. */
extern int nbdnl_connect (struct nbdnl *n, const struct nbdnl_device *d, const int *fds, unsigned n_fds);
/* Replaces dead sockets of an attached device, as many as there are; the rest is not used. */
extern int nbdnl_reconfigure (struct nbdnl *n, const struct nbdnl_device *d, const int *fds, unsigned n_fds);
extern int nbdnl_disconnect (struct nbdnl *n, int index);

/* A descriptor that can be read when the kernel has something to say; then the index of a device
 * with a dead connection, or -1: nothing (more). */
extern int nbdnl_fd (const struct nbdnl *n);
extern int nbdnl_dead_link (struct nbdnl *n);

#endif /* CRG_ADMIN_NBDNL_H */
