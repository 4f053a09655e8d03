/* SPDX-License-Identifier: BSD-3-Clause */
/* The client's side of the query (query.h): asks several nodes at once where the production of an
 * IASP is.  Over TLS 1.3 on TCP, where the node's certificate has to name it, or over a crgd's
 * admin socket on the same machine.  Blocks the calling thread, never longer than it was told, also
 * when the name service is dead; any thread, one at a time for a list, which keeps the addresses
 * that were found.
 */
#ifndef CRG_ASK_H
#define CRG_ASK_H

#include <stdbool.h>
#include <stdint.h>

#include "common/lookup.h"
#include "common/query.h"
#include "common/tlslink.h"

struct ask_node {
  char name[CRG_NAME_MAX + 1];    /* "": a socket */
  char address[CRG_HOST_MAX + 1]; /* numeric, or a name to be resolved */
  char path[CRG_SOCK_PATH_MAX + 1];
  uint16_t port;
  struct lookup lookup;           /* of 'address' */
};

struct ask_list {
  unsigned n;
  struct ask_node node[CRG_MAX_NODES];
};

struct ask_result {
  bool answered;                 /* 'a' means something, else 'error' */
  struct query_answer a;
  char error[CRG_REASON_MAX + 1];
};

/* NODE[=ADDRESS][:PORT] or unix:PATH, separated by commas; an IPv6 address stands in brackets.
 * 0, or -EINVAL with a sentence. */
extern int ask_parse (struct ask_list *list, const char *text, char *err, size_t errlen);

/* True if one of the nodes is asked over TLS. */
extern bool ask_needs_tls (const struct ask_list *list);

/* The certificates of a client, as crgctl init-pki makes them: DIR/ca-cert.pem, client-cert.pem,
 * client-key.pem.  NULL with a sentence. */
extern struct tlslink_ctx *ask_load_tls (const char *dir, char *err, size_t errlen);

/* Asks all nodes at once.  Returns when each has answered or failed, after timeout_ms, when
 * stop_fd (or -1) can be read, or as soon as one says that the IASP is served, with a tenure of
 * min_tenure or more, and not under another lineage (zeroes: any): the index of that one, else -1.
 * When one has answered and all that are left are not even connected, CLIENT_ASK_MORE_MS are enough. */
extern int ask_all (struct ask_list *list, struct tlslink_ctx *tls, const char *iasp, uint64_t min_tenure,
                    const uint8_t lineage[CRG_ID_LEN], unsigned timeout_ms, int stop_fd,
                    struct ask_result result[CRG_MAX_NODES]);

#endif /* CRG_ASK_H */
