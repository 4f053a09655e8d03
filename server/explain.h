/* SPDX-License-Identifier: BSD-3-Clause
 *
 * What `crgctl explain` says: why each copy of an IASP is in its state, in
 * words, with what was known when that was decided, and everything that
 * waits.  Pure reading; main loop's thread.
 */
#ifndef CRG_EXPLAIN_H
#define CRG_EXPLAIN_H

#include <jansson.h>

#include "server/member.h"

/* {"iasp", "crg", "text": [sentence ...], "copies": [{"site", "role", "state",
 * "text": [...]} ...], "waits": [{"owner", "reason", "age_ms", "node"} ...]} */
extern json_t *explain_iasp (const struct member *m, unsigned iasp);

#endif
