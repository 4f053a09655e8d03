/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The admin socket, R/crgd.sock: JSON lines from crgctl; see
 * nbd-crg-protocol(7).  Everybody may ask; only root, the daemon's own user
 * and members of `socket-group` may change.  Owns the socket and its clients.
 * Main loop's thread only; a client that doesn't read is cut off.
 */
#ifndef CRG_ADMIN_H
#define CRG_ADMIN_H

#include "server/daemon.h"

/* NULL: see the log. */
extern struct admin *admin_new (struct daemon *d);
extern void admin_free (struct admin *a);

#endif
