/* SPDX-License-Identifier: BSD-3-Clause */
/* Text of others (a script, a peer, a plugin, whoever asks) on its way to a terminal: its control
 * characters become visible, so that none of them moves the cursor, changes what stands there
 * or makes a second line.  Pure; any thread.
 */
#ifndef CRG_VISIBLE_H
#define CRG_VISIBLE_H

#include <stddef.h>

/* A text of 'len' bytes is never longer than this, with its NUL. */
#define VISIBLE_SIZE(len) (4 * (len) + 1)

/* C0, DEL, C1 as UTF-8 has it, and bytes that are no UTF-8 become \xNN, byte by byte; all else stays.  At
 * most size - 1 bytes and a NUL; what is cut is cut before a character.  The bytes written. */
extern size_t visible_text (const char *from, size_t len, char *to, size_t size);

#endif /* CRG_VISIBLE_H */
