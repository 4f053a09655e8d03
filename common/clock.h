/* SPDX-License-Identifier: BSD-3-Clause */
/* What only the machine can say: time since boot, the boot's id, random bytes.  For shells;
 * cores get these values in their events and never include this file.
 */
#ifndef CRG_CLOCK_H
#define CRG_CLOCK_H

#include <stdint.h>

#include "common/limits.h"

/* CLOCK_BOOTTIME: counts through suspend, never jumps.  Leases are instants of it. */
extern uint64_t clock_boottime_ns (void);
extern uint64_t clock_boottime_ms (void);

/* Wall clock, milliseconds since 1970, for people only: never decides anything. */
extern uint64_t clock_wall_ms (void);

/* The kernel's id of this boot.  0 or -errno.  In the test build CRG_BOOT_ID in the
 * environment (32 hexadecimal digits) stands for it, so that one machine can play several. */
extern int clock_boot_id (uint8_t id[CRG_ID_LEN]);

/* Random ids and numbers; these end the process if the kernel has no randomness to give. */
extern void clock_random (void *buf, unsigned len);
extern void clock_random_id (uint8_t id[CRG_ID_LEN]);
extern uint64_t clock_random_u64 (void);

#endif /* CRG_CLOCK_H */
