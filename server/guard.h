/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The guard of a resource that an agent has started (L2): a process of its
 * own, so that the resource is stopped when its lease is over though crgd is
 * dead or stands still then, as a plugin holds its I/O by itself.  It reads
 * the lease in the record that crgd renews, and is gone when the record is.
 * While there is a record something may run, or come up; agent.c says who
 * writes and removes it, which a guard never does.
 */
#ifndef CRG_GUARD_H
#define CRG_GUARD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/limits.h"
#include "server/procgroup.h"

/* The record: one line of fixed length, with a checksum, written in one go. */
struct guard_record {
  uint64_t tenure;
  uint64_t lease_ms; /* CLOCK_BOOTTIME */
  /* Calls of the agent that crgd has begun and not seen to their end. */
  struct procgroup start, stop;
  uint8_t boot[CRG_ID_LEN];
};
#define GUARD_RECORD_LEN 168
extern void guard_encode (const struct guard_record *r, char text[GUARD_RECORD_LEN + 1]);
/* False: damaged (*r is then untouched).  The numbers are so small that a sum of two is none too large. */
extern bool guard_decode (const char *text, size_t len, struct guard_record *r);

extern bool guard_write (const char *path, const struct guard_record *r);
extern bool guard_read (int fd, struct guard_record *r);

/* Sees to it that there is one for the record at `path`, and never two.  It
 * calls `agent` with `stop` and this environment.  0: there is one; or -errno.
 * Main loop's thread; waits for a fork. */
extern int guard_start (const char *path, const char *agent, char *const *env,
                        unsigned timeout_ms);

#endif
