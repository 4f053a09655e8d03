/* SPDX-License-Identifier: BSD-3-Clause
 *
 * crgctl mirror verify: passes the request to the plugin of production, which
 * has to be on this node, and composes what status shows of it.  The plugin
 * compares; the group takes no part.  Main loop's thread only.
 */
#ifndef CRG_VERIFY_H
#define CRG_VERIFY_H

#include <jansson.h>

#include "server/member.h"

struct verify_request {
  unsigned iasp;
  const char *site; /* NULL: all other copies */
  bool repair, stop;
};

/* crgctl's exit code; if it isn't fine, `reason`.  *run is then in the status
 * of the IASP as long as it is the last one, or as that of one refused. */
extern int verify_ask (struct member *m, const struct verify_request *rq, json_int_t *run,
                       char *reason, size_t len);
/* Of a plugin's status, for a report; with or without the ranges that differ.
 * NULL: nothing was compared. */
extern json_t *verify_report (const json_t *status, bool found);
/* Of a report, for status: sites by name. */
extern json_t *verify_status_json (const struct crg_state *s, const json_t *report);

#endif
