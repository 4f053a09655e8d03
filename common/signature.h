/* SPDX-License-Identifier: BSD-3-Clause */
/* What may lie on a store that somebody forgot: the marks of file systems, partition tables and
 * images.  Not a list of all formats: those that people put on a whole device or image.  Pure.
 */
#ifndef CRG_SIGNATURE_H
#define CRG_SIGNATURE_H

#include <stddef.h>
#include <stdint.h>

/* Bytes from the start of a store that have to be looked at; fewer if it is shorter. */
#define SIGNATURE_HEAD_BYTES 0x10100

/* "an XFS file system", or NULL. */
extern const char *signature_find (const uint8_t *head, size_t len);

#endif /* CRG_SIGNATURE_H */
