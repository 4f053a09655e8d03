/* SPDX-License-Identifier: BSD-3-Clause */
/* Names and random ids: what is valid, and their text forms.  Pure.
 */
#ifndef CRG_IDENT_H
#define CRG_IDENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/limits.h"

/* A name of a node, site, CRG or IASP: 1 to CRG_NAME_MAX of [a-z0-9_.-], the first one of
 * [a-z0-9]; so it is safe in a path, a log line and a DNS label. */
extern bool ident_name_is_valid (const char *name);

/* Hexadecimal text of an id, 32 digits and a NUL. */
#define IDENT_ID_TEXT_LEN (2 * CRG_ID_LEN + 1)
extern void ident_id_to_text (const uint8_t id[CRG_ID_LEN], char text[IDENT_ID_TEXT_LEN]);

/* Reads 32 hexadecimal digits; dashes between them are ignored, so that a UUID is read too.
 * 0 or -EINVAL (*id is then untouched). */
extern int ident_id_from_text (const char *text, uint8_t id[CRG_ID_LEN]);

/* Is it UTF-8 (RFC 3629: no overlong form, no surrogate, nothing above U+10FFFF)?  JSON can carry
 * nothing else. */
extern bool ident_is_utf8 (const char *text, size_t len);

extern bool ident_id_is_zero (const uint8_t id[CRG_ID_LEN]);
extern bool ident_id_equal (const uint8_t a[CRG_ID_LEN], const uint8_t b[CRG_ID_LEN]);

/* C9: a group's lineage, and the one that it was recovered from.  Zeroes: not known; none. */
struct lineage {
  uint8_t id[CRG_ID_LEN], past[CRG_ID_LEN];
};

#endif /* CRG_IDENT_H */
