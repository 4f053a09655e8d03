/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The ids of CRGs that are no more, the last ones that this node heard of: a
 * node that was away when it was deleted is told so by who remembers it.  One
 * file DIR/deleted, a line "ID LINEAGE deleted" or "ID LINEAGE failed" (its
 * creation) for each, the oldest first, replaced as a whole.  Called from the
 * main loop's thread; blocks for the fsyncs.
 */
#ifndef CRG_DELETED_H
#define CRG_DELETED_H

#include <stdbool.h>
#include <stdint.h>

#include "common/limits.h"

/* A node that is away for longer than it takes to delete so many keeps what it holds. */
#define DELETED_MAX 64

struct deleted_crg {
  uint8_t id[CRG_ID_LEN], lineage[CRG_ID_LEN];
  bool failed; /* it never came to be: its creation failed in the last step */
};

struct deleted {
  unsigned n;
  struct deleted_crg crg[DELETED_MAX];
};

/* What makes no sense in the file is left out.  0, also if there is none; else -errno. */
extern int deleted_load (struct deleted *d, const char *dir);
/* Durable when it returns 0; on an error it is remembered in memory alone.  An id that is there stays as it is. */
extern int deleted_add (struct deleted *d, const char *dir, const struct deleted_crg *crg);
/* NULL: it isn't known to be deleted. */
extern const struct deleted_crg *deleted_find (const struct deleted *d, const uint8_t id[CRG_ID_LEN]);

#endif
