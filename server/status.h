/* SPDX-License-Identifier: BSD-3-Clause
 *
 * What `crgctl status` shows, put together from the group core, from the
 * record, and from what each node reports of its plugins.  Pure reading; main
 * loop's thread.
 */
#ifndef CRG_STATUS_H
#define CRG_STATUS_H

#include <jansson.h>

#include "server/member.h"

/* This node's report for the others, JSON text (GE_REPORT), or NULL if it
 * runs no plugin; the caller frees it. */
extern char *status_report (const struct member *m);
/* The value of one element of "crgs". */
extern json_t *status_crg (const struct member *m);
/* The whole answer to `status`; `crg` NULL: all.  NULL: no such CRG. */
extern json_t *status_all (const struct daemon *d, const char *crg);
/* What `node` reported of `iasp` not long ago, or NULL; a new reference. */
extern json_t *status_find_report (const struct member *m, uint32_t node, unsigned iasp,
                                   uint64_t *age_ms);
/* R4: appends how much the copies of this node's site lacked when production
 * last told, and when that was. */
extern void status_lacks (const struct member *m, unsigned unit, uint32_t node, char *buf,
                          size_t len);
/* The URI of an IASP's production and its node's name; false with a reason if
 * it isn't served anywhere. */
extern bool status_uri (const struct member *m, unsigned iasp, char *uri, size_t len,
                        const char **node, char *reason, size_t reason_len);

#endif
