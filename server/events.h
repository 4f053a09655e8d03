/* SPDX-License-Identifier: BSD-3-Clause
 *
 * What happens to a CRG, as its administrator's hooks are told it: compares,
 * level by level, the committed state and what this node sees with what was
 * told last.  Decides nothing and changes nothing of the group.  Main loop's
 * thread only.
 */
#ifndef CRG_EVENTS_H
#define CRG_EVENTS_H

#include "server/member.h"

struct events;

extern struct events *events_new (struct member *m);
/* Says `end` if production was told to be here. */
extern void events_free (struct events *e);
/* After each step of the group and now and then: cheap if nothing is committed,
 * for then it looks at times only, unless `all`. */
extern void events_look (struct events *e, bool all);

#endif
