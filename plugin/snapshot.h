/* SPDX-License-Identifier: BSD-3-Clause */
/* What a copy holds, kept before it is resynchronised: a reflink of its store's file, STORE.before-resync,
 * where the file system makes one, else what the administrator's snapshot-hook makes.  In a thread
 * of its own for each job, as both can take seconds.  The engine's thread starts a job and takes what
 * came of it; it is woken by its eventfd.  One job at a time.
 *
 * The kept file is stable before a job is done, and its superblocks say that it is a fork (R6): it can
 * be read, and put in the store's place, but never counts as the copy that the group knows.
 */
#ifndef IASP_SNAPSHOT_H
#define IASP_SNAPSHOT_H

#include <stdbool.h>
#include <stdint.h>

#include "common/limits.h"
#include "common/super.h"
#include "plugin/params.h"

enum snapshot_what { SNAPSHOT_NONE, SNAPSHOT_MAKE, SNAPSHOT_DROP };

/* NONE: nothing is kept.  KEPT: found when the store was opened, or made. */
enum snapshot_state { SNAP_IS_NONE, SNAP_IS_MAKING, SNAP_IS_KEPT, SNAP_IS_FAILED };

struct snapshot;

extern struct snapshot *snapshot_new (const struct params *p); /* NULL: no memory */
extern void snapshot_wake_by (struct snapshot *s, int efd);
extern void snapshot_free (struct snapshot *s);                /* ends what is under way */

/* The store was opened for a mirror copy.  What an earlier life has kept is found; of a store that
 * is coherent it is of no use, and is removed. */
extern void snapshot_opened (struct snapshot *s, bool coherent);
/* fd: the open store; sb: as it is. */
extern void snapshot_make (struct snapshot *s, int fd, const struct superblock *sb);
extern void snapshot_drop (struct snapshot *s);
/* The role ends: a hook that runs is killed, and nothing more is begun. */
extern void snapshot_cancel (struct snapshot *s);

extern bool snapshot_is_ready (const struct snapshot *s); /* cheap enough for each round */
/* NONE: nothing is done.  Of MAKE: *error is 0 or -errno. */
extern enum snapshot_what snapshot_take (struct snapshot *s, int *error);
extern bool snapshot_is_idle (const struct snapshot *s);

extern enum snapshot_state snapshot_state (const struct snapshot *s);
extern const char *snapshot_text (const struct snapshot *s); /* KEPT: where; FAILED: why */

#endif
