/* SPDX-License-Identifier: BSD-3-Clause
 *
 * What crgd tells the service manager that started it: ready, what it does,
 * ending, and that its loop still turns (the watchdog).  One datagram each to
 * the socket that NOTIFY_SOCKET names, as sd_notify(3) describes; without one
 * nothing is said.  Main loop's thread only.
 */
#ifndef CRG_NOTIFY_H
#define CRG_NOTIFY_H

struct qb_loop;

/* Reads NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID and takes them out of
 * the environment, so that no child of ours speaks in our name.  Begins to
 * feed the watchdog, if there is one, from `loop`. */
extern void notify_open (struct qb_loop *loop);
extern void notify_close (void);
extern void notify_ready (const char *status);
extern void notify_status (const char *status);
extern void notify_stopping (const char *status);

#endif
