/* SPDX-License-Identifier: BSD-3-Clause */
/* The keeper of one attachment (crgctl attach): starts the proxy (nbdkit with the plugin crg),
 * gives its socket to the kernel as /dev/nbdN, and sees to it that both last: a proxy that dies or
 * hangs is started again, a connection that the kernel has lost is replaced.  One process, one
 * thread.  What it needs after a restart is in its directory; while it lives it holds the lock.
 *
 *   DIR/lock         held by the keeper
 *   DIR/attach.json  what is attached, and where; see keeper_read
 *   DIR/proxy.nbd    the proxy's socket, DIR/proxy.status its status, DIR/proxy.state its record
 *   DIR/log          what both have to say
 */
#ifndef CRG_ADMIN_KEEPER_H
#define CRG_ADMIN_KEEPER_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include <jansson.h>

#include "common/limits.h"

struct keeper_spec {
  char iasp[CRG_NAME_MAX + 1];
  char dir[CRG_PATH_MAX + 1];     /* of this attachment */
  const char *nodes;              /* as the plugin wants it */
  char *tls_dir;                  /* or NULL */
  const char *nbdkit, *plugin;    /* programs and files to use */
  int index;                      /* of /dev/nbdN; -1: any */
  unsigned connections;           /* of the kernel, and of the proxy */
};

/* The pid of the keeper that holds DIR, or 0. */
extern pid_t keeper_pid (const char *dir);

/* Attaches and keeps it until SIGTERM or SIGINT, then detaches.  If a keeper before it left the
 * device and it can't take that over, or KEEPER_GIVE_UP comes, device, proxy and files stay for the
 * next one.  An exit code of crgctl; errors are told on standard error. */
extern int keeper_run (const struct keeper_spec *spec);
#define KEEPER_GIVE_UP SIGUSR1

/* Ends the proxy that a dead keeper left, and removes its files. */
extern void keeper_clear (const char *dir);

/* DIR/attach.json: iasp, device, index, nodes, client, ready, keeper (its pid); NULL if there is none. */
extern json_t *keeper_read (const char *dir);
/* What the proxy says of itself, or NULL. */
extern json_t *keeper_proxy_status (const char *dir, int timeout_ms);
/* N of /dev/nbdN, or -1. */
extern int keeper_device_index (const char *device);
/* Is something attached to it, by whomever? */
extern bool keeper_device_is_attached (int index);

#endif /* CRG_ADMIN_KEEPER_H */
