/* SPDX-License-Identifier: BSD-3-Clause */
/* Are the certificates of a node there, whole and good?  Asked before crgd starts anything, and by
 * crgctl.  Reads files, keeps nothing; any thread.
 *
 * Layout of a node's directory (tls-certificates), as `crgctl init-pki` writes it:
 *   ca.pem                    the CA of the nodes
 *   NODE.pem NODE.key         the node's own, for mirror links: server and client, DNS name NODE
 *   nbd/ca-cert.pem           the CA of the clients: who may attach to an export
 *   nbd/server-cert.pem nbd/server-key.pem   the export's own, under the CA of the nodes
 *   nbd-client/ca-cert.pem client-cert.pem client-key.pem   with which crgd checks its exports
 */
#ifndef CRG_CERTS_H
#define CRG_CERTS_H

#include <stddef.h>

/* 0 if DIR holds a CA, and a certificate and key of 'node' that belong together, are valid now,
 * name the node and are signed by that CA; else -ENOENT, -EACCES, -EINVAL or such, and one line in
 * 'err' that names the file and what to do.  *days_left (may be NULL): whole days until the first
 * of them expires. */
extern int certs_check (const char *dir, const char *node, int *days_left, char *err,
                        size_t errlen);

/* The same for what an export with TLS needs beside: DIR/nbd and DIR/nbd-client. */
extern int certs_check_nbd (const char *dir, int *days_left, char *err, size_t errlen);

#endif /* CRG_CERTS_H */
