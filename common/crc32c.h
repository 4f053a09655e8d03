/* SPDX-License-Identifier: BSD-3-Clause */
/* CRC32C (Castagnoli; RFC 3720, appendix B.4), for frames and metadata blocks.  Pure: any
 * thread, no state that a caller can see.
 */
#ifndef CRG_CRC32C_H
#define CRG_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* The CRC of 'len' bytes at 'buf', continuing from 'crc': 0 for the first piece, the last
 * result for each further one. */
extern uint32_t crc32c (uint32_t crc, const void *buf, size_t len);

/* The two implementations that crc32c chooses from, for tests; crc32c_hw may be called only
 * if crc32c_has_hw. */
extern uint32_t crc32c_sw (uint32_t crc, const void *buf, size_t len);
extern uint32_t crc32c_hw (uint32_t crc, const void *buf, size_t len);
extern int crc32c_has_hw (void);

#endif /* CRG_CRC32C_H */
