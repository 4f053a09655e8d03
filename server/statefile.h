/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The group state of one CRG on this node's disk (C1, C3, C6): one file
 * DIR/CRG.state, replaced as a whole.  Called from the main loop's thread;
 * blocks for the fsyncs, which is what PERSIST before SEND means.
 *
 * File: 0 magic "CRGSTAT1" | 8 version u32 | 12 length u32 of the state |
 * 16 promised u64 | 24 hold_ms u32 (L3) | 28 CRC32C u32 of bytes 0 to 27 and the
 * state | 32 the state, state_encode ()'s bytes; all little-endian.
 */
#ifndef CRG_STATEFILE_H
#define CRG_STATEFILE_H

#include <stdint.h>

#include "server/state.h"

/* 0; -ENOENT: there is none; -EBADMSG: damaged or not ours; else -errno.
 * The results are written only on 0. */
extern int statefile_load (const char *dir, const char *crg, struct crg_state *s,
                           uint64_t *promised, uint32_t *hold_ms);
/* Durable when it returns 0: written beside, fsynced, renamed, directory
 * fsynced.  On an error the old file is whole (C6: the caller leaves). */
extern int statefile_save (const char *dir, const char *crg, const struct crg_state *s,
                           uint64_t promised, uint32_t hold_ms);
/* Replaces another file of that directory in the same way. */
extern int statefile_replace (const char *dir, const char *name, const void *buf, size_t len);
/* 0, also if there was none; else -errno. */
/* Renames it to CRG.state.past: it is of an older lineage (C9). */
extern int statefile_set_aside (const char *dir, const char *crg);
extern int statefile_remove (const char *dir, const char *crg);
/* Names of the CRGs that have a file, sorted; at most `max`.  Number found or
 * -errno. */
extern int statefile_list (const char *dir, char names[][CRG_NAME_MAX + 1], unsigned max);

#endif
