/* SPDX-License-Identifier: BSD-3-Clause */
/* Digests of ranges of the store, for the comparison of copies (verify.h) and for the resync
 * (repl_ask.c): one thread that reads and computes at low priority, so that the engine does neither.
 * The engine's thread starts jobs and takes what is done; it is woken by its eventfd.  The thread is
 * started with the first job.  It must never be at work when the store is closed: see digest_is_idle.
 */
#ifndef IASP_DIGEST_H
#define IASP_DIGEST_H

#include <stdbool.h>
#include <stdint.h>

#include "common/limits.h"
#include "common/wire.h"
#include "plugin/store.h"

struct digest_job {
  uint32_t conn; /* of the link that asked; 0: this node's own core */
  uint64_t seq;
  uint64_t offset, length;
  uint32_t block_size;
  int error; /* 0 or -errno */
  bool hole; /* all of it */
  unsigned n;
  uint8_t digests[VERIFY_BLOCKS][WIRE_DIGEST_LEN];
};

struct digester;

/* NULL: no memory. */
extern struct digester *digest_new (struct store *store);
extern void digest_wake_by (struct digester *d, int efd);
extern void digest_free (struct digester *d); /* ends the thread */

/* At most VERIFY_BLOCKS blocks and VERIFY_RANGE_MAX bytes.  False: DIGEST_MAX_JOBS are under way, or
 * there is no thread. */
extern bool digest_start (struct digester *d, uint32_t conn, uint64_t seq, uint64_t offset, uint64_t length,
                          uint32_t block_size);
/* Is one done?  Cheap enough for each round. */
extern bool digest_is_ready (const struct digester *d);
extern bool digest_take (struct digester *d, struct digest_job *job);
/* Can so many more be started? */
extern bool digest_has_room (const struct digester *d, unsigned jobs);
/* No job waits, is at work, or is to be taken. */
extern bool digest_is_idle (const struct digester *d);

#endif
