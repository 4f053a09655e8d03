/* SPDX-License-Identifier: BSD-3-Clause */
/* What a client asks a node and what it is told: where is the production of an IASP?  One JSON
 * object on one line, either way; this is both ends' codec.  The decoders trust nothing.  Pure
 * but for jansson; any thread.
 *
 *   {"v": 1, "cmd": "where", "iasp": NAME}
 *   {"ok": true, "node": NODE, "iasp": NAME, "host": NODE, "uri": URI, "tenure": N, "loss": N,
 *    "lineage": ID, "size": BYTES}
 *   {"ok": false, "node": NODE, "code": N, "error": TEXT, "tenure": N}
 *
 * An answer is no more than what that node knows.  Nothing may be trusted to it that the export
 * itself doesn't confirm: see export_info below.
 */
#ifndef CRG_QUERY_H
#define CRG_QUERY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

#include "common/ident.h"
#include "common/limits.h"

#define QUERY_VERSION 1
/* "nbds://[IPv6]:PORT/IASP", or a path with its escapes. */
#define QUERY_URI_MAX (3 * CRG_PATH_MAX)

struct query_answer {
  bool served;                  /* host, uri, loss and size mean something */
  int code;                     /* else an exit code of crgctl, and why not */
  char error[CRG_REASON_MAX + 1];
  char node[CRG_NAME_MAX + 1];  /* who answers */
  char host[CRG_NAME_MAX + 1];
  char uri[QUERY_URI_MAX + 1];
  uint64_t tenure;              /* R1; 0: it doesn't know */
  uint64_t loss;
  uint8_t lineage[CRG_ID_LEN];  /* C9; zeroes: it doesn't say */
  uint64_t size;                /* bytes */
};

/* New references; NULL without memory. */
extern json_t *query_request (const char *iasp);
extern json_t *query_answer_json (const struct query_answer *a, const char *iasp);

/* The request's IASP.  NULL, or what is wrong with it. */
extern const char *query_request_parse (const json_t *req, char iasp[CRG_NAME_MAX + 1]);
/* NULL, or what is wrong with it; then *a is not to be used. */
extern const char *query_answer_parse (const json_t *obj, const char *iasp, struct query_answer *a);

/* ---- what the export says of itself ------------------------------------------------------------
 *
 * The description of an export (NBD_INFO_DESCRIPTION), given anew for each connection:
 *
 *   nbd-crg IASP tenure=N loss=N forced=0|1 run=HEX [lineage=ID [past=ID]]
 *
 * tenure and loss are those of the record under which this process opened its store, and don't
 * change while the connection lasts; run is the process; past is there if the group was recovered (C9). */
struct export_info {
  char iasp[CRG_NAME_MAX + 1];
  uint64_t tenure, loss, run;
  bool forced;
  struct lineage lineage;
};

#define EXPORT_INFO_MAX 255
extern void export_info_text (const struct export_info *x, char text[EXPORT_INFO_MAX + 1]);
/* False: not an export of this kind. */
extern bool export_info_parse (const char *text, struct export_info *x);

/* ---- the name that a following client asks for -------------------------------------------------
 *
 *   IASP@CLIENT/SESSION        SESSION: 16 hexadecimal digits, not all 0
 *
 * A client that sends requests again on another connection has to be sure that none of the old
 * connection's is still on its way to the store.  So the export knows its sessions: the first
 * connection of a new SESSION of CLIENT bars every older one of that CLIENT, and is let in when
 * their last request is over. */
struct export_name {
  char iasp[CRG_NAME_MAX + 1];
  char client[CRG_NAME_MAX + 1]; /* "": a plain name, no session */
  uint64_t session;
};

#define EXPORT_NAME_MAX (2 * CRG_NAME_MAX + 18)
extern void export_name_text (const struct export_name *n, char text[EXPORT_NAME_MAX + 1]);
extern bool export_name_parse (const char *text, struct export_name *n);

#endif /* CRG_QUERY_H */
