/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The replication core: what to send, when to complete, what to mark, when
 * to clear.
 *
 * Two pure state machines, one for the side that holds production (`repl`)
 * and one for the side that receives (`copy`).  Events in, actions out; no
 * I/O, clock, thread, allocation (the caller gives all memory at init) or
 * callback.  The plugin's engine thread and the simulator feed the same
 * object file.  Actions come in the order in which the shell carries them
 * out.  The shell owns payload bytes: the core names a request's slot and an
 * offset within it.
 *
 * Rules kept here: write steps 1 to 4 (range lock, mark, submit together,
 * complete when local + every in-set copy answered + lease valid), FLUSH and
 * FUA wait for every in-set copy's own flush, R1 (tenure in every frame), R2
 * (a lost copy: hold until the record without it is committed), R3 (entering
 * the set), L2 (lease at completion), resync below application writes.
 */
#ifndef IASP_REPL_H
#define IASP_REPL_H

#include <stdbool.h>
#include <stdint.h>

#include "limits.h"

enum repl_op { RO_WRITE = 1, RO_ZERO, RO_TRIM, RO_FLUSH, RO_READ_WAIT };

/* Flags of a request */
#define RF_FUA 1u
#define RF_MAY_TRIM 2u

enum repl_event_kind {
  RE_REQUEST = 1, /* slot, op, flags, offset, length: a client's request.
                     RO_READ_WAIT: a read that overlapped a write in flight
                     or met an expired lease; completes when it may */
  RE_LOCAL_DONE,  /* slot, error: the local part is done (write, and for FUA
                     or FLUSH its flush) */
  RE_LINK_UP,     /* site, session, window_*: HELLO_OK came; resend what the
                     copy lacks.  `fresh`: it does not hold our earlier
                     frames' effects for sure (restarted, empty) */
  RE_LINK_DOWN,   /* site, reason */
  RE_ACK,         /* site, seq: cumulative */
  RE_COPY_ERROR,  /* site, seq, reason: the copy could not do it */
  RE_SENT,        /* site, bytes: room in the link's out buffer again */
  RE_MIRROR,      /* site: MIRROR-START reached; kind of sync */
  RE_UNMIRROR,    /* site: the group says that nobody hosts this copy */
  RE_RECORD,      /* in_set bit set, generation: committed */
  RE_LEASE,       /* until_ms, absolute */
  RE_HOLD,        /* F6: hold new requests, drain, flush everywhere */
  RE_RESUME,
  RE_RESYNC_READ, /* rslot, error, is_zero: a resync read is done */
  RE_TICK,
};

enum repl_action_kind {
  RA_LOCAL = 1,   /* slot: submit the local part (op, offset, length, FUA) */
  RA_SEND,        /* site, frame type, seq, slot, sub offset, length: enqueue
                     on the link (payload from the slot, or from rslot) */
  RA_COMPLETE,    /* slot, error: answer the client (or wake the reader) */
  RA_RESYNC_READ, /* rslot, offset, length: read (or find it a hole) */
  RA_COPY_LOST,   /* site, reason: ask for the removal (R2), level */
  RA_COPY_BACK,   /* site: removal no longer wanted */
  RA_COPY_READY,  /* site: ask for its entry (R3) */
  RA_CLOSE_LINK,  /* site, reason */
  RA_DRAINED,     /* F6: all answered, flushed everywhere */
  RA_STATE,       /* site: its mirror state changed (for log and status) */
};
