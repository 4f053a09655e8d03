/* SPDX-License-Identifier: BSD-3-Clause */
/* The engine thread, as the other threads see it: it owns the ring, the mirror links, the
 * replication cores, the control socket and the timers.  Workers hand it requests and wait; the
 * main thread starts and stops it.
 */
#ifndef IASP_ENGINE_H
#define IASP_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/limits.h"
#include "plugin/repl.h"

struct iasp;
struct engine;
struct export_info;

/* One request of a worker. */
struct engine_request {
  enum repl_op op;
  uint32_t flags; /* RF_* */
  uint64_t offset, length;
  const void *data; /* RO_WRITE: the payload; in direct mode a store_bounce buffer in which the
                       payload stands at offset % align and there is room to round up */
  uint32_t epoch;   /* gate_pass.epoch: under which role it entered */
  int store_error;  /* RO_READ_WAIT: not 0: the worker's read of the store failed so (-errno) */
};

/* Before the fork: checks what can be checked, takes memory.  NULL with a sentence in
 * 'err'. */
extern struct engine *engine_new (struct iasp *ia, char *err, size_t errlen);
/* After the fork: the ring, the control socket, the thread.  0 or -errno, with a sentence. */
extern int engine_start (struct engine *e, char *err, size_t errlen);
/* Ends the thread (no durable work: a killed process must be as good). */
extern void engine_stop (struct engine *e);
extern void engine_free (struct engine *e);

/* Worker: hands a request over and waits for its answer.  0 or -errno. */
extern int engine_submit (struct engine *e, const struct engine_request *rq);

/* Any thread: may a client connect?  true, or false with a sentence. */
extern bool engine_may_open (struct engine *e, char *err, size_t errlen);

/* Any thread: tenure, loss and force of the record under which clients may connect now, and the
 * number of this process.  Tenure 0: nobody may. */
extern void engine_export (struct engine *e, struct export_info *x);
/* The same tenure, without a lock. */
extern uint64_t engine_tenure (struct engine *e);

#endif /* IASP_ENGINE_H */
