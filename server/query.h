/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The clients' query (common/query.h) on a TCP port: TLS 1.3, certificate of the clients' CA, one
 * short line each way, read-only.  Runs on the main loop and never blocks it; a stranger costs at
 * most a bounded share of it and bounded memory.  The same question on the admin socket is
 * answered by query_fill.
 */
#ifndef CRG_SERVER_QUERY_H
#define CRG_SERVER_QUERY_H

#include "common/query.h"
#include "server/daemon.h"

struct query;

/* Begins to listen as conf.client_port says.  NULL: it is 0, or there is no memory.  Certificates
 * that can't be read and an address that isn't there yet are tried again. */
extern struct query *query_new (struct daemon *d);
extern void query_free (struct query *q);

/* What this node knows of an IASP. */
extern void query_fill (const struct daemon *d, const char *iasp, struct query_answer *a);

#endif
