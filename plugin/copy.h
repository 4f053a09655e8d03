/* SPDX-License-Identifier: BSD-3-Clause */
/* The core of the receiving side: one mirror copy, one link.
 *
 * A pure state machine, copy_step (state, event, actions), owned by the plugin's engine
 * thread; the simulator feeds the same object file.  Frames come in stream order; operations
 * that don't overlap are submitted at once, overlapping ones in stream order; FLUSH waits for
 * all before it; acknowledgements are cumulative and batched.  It owns a fixed pool of
 * operations, as many as the window that HELLO_OK offered.
 *
 * Rules kept here: R1 (the highest tenure is flushed before HELLO is answered, lower ones are
 * refused, in every frame; one link, and a new HELLO is answered only when the old link's last
 * store write has returned), R3 (ENTER: flush, then superblock), F4 (a failed store does
 * nothing more), H8, C9; a copy is marked unusable on its disk before the first RESYNC block, and
 * before that, if it shall, a snapshot of what it held is made.
 *
 * Tracking (mark.h): the region of each block that comes is hot on the own disk before it is
 * written, until production says that it is stable everywhere (STABLE).  What the frame's `missing`
 * sites lack is noted in their maps.  On HELLO the copy reports in what it may differ.  Zeroes for what
 * was never written are neither written nor marked.
 *
 * It must never acknowledge an operation before all earlier ones are done, nor let an older
 * write overtake a newer one, nor write to a region that is not hot on its disk.
 */
#ifndef IASP_COPY_H
#define IASP_COPY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/limits.h"
#include "common/wire.h"
#include "plugin/mark.h"

/* Who this copy is; fixed by role mirror.  Numbers as in the superblock. */
struct copy_config {
  uint8_t cluster_id[CRG_ID_LEN], lineage[CRG_ID_LEN], crg_id[CRG_ID_LEN];
  uint8_t iasp_id[CRG_ID_LEN], boot_id[CRG_ID_LEN];
  char crg[CRG_NAME_MAX + 1], iasp[CRG_NAME_MAX + 1], node[CRG_NAME_MAX + 1];
  uint8_t site;
  uint64_t size;
  uint32_t block_size;         /* smallest write the store takes, bytes */
  uint32_t dirty_block_size;
  uint64_t session;            /* random, one a process */
  uint64_t tenure;             /* highest seen: superblock and role command */
  uint64_t generation, since;  /* of the superblock */
  bool clean, restarted, empty, unusable, fork;
  bool snapshot;               /* keep what is coherent before it is resynchronised */
  bool filling;                /* its own map of what it lacks is on the disk */
  struct mark *mark;           /* what the disk remembers, loaded; NULL: nothing is tracked */
  uint32_t window_bytes, window_frames; /* <= LINK_WINDOW_*, frames <= COPY_MAX_OPS */
};

enum copy_event_kind {
  /* hello, peer: a HELLO was decoded on a connection whose certificate names `peer` (NULL:
   * none).  conn: the shell's number of that connection, repeated in the answers. */
  CE_HELLO = 1,
  CE_FRAME,      /* conn, frame, buf: a frame from WRITE to RECORD; PING, PONG, BYE, DIGEST_REQ
                    are the shell's.  buf: the shell's name of the payload's buffer */
  CE_RECORD,     /* record: a RECORD frame's payload with its conn, or (conn 0) the role command's */
  CE_STABLE,     /* conn, frame: a STABLE frame */
  CE_DONE,       /* op, error: CA_SUBMIT is done.  CA_SUPER: op = COPY_OP_SUPER; CA_MARK: COPY_OP_MARK;
                    CA_SYNC: COPY_OP_SYNC; CA_SNAPSHOT: COPY_OP_SNAPSHOT */
  CE_POLL,       /* the shell has fed all that it has: acknowledge what is done */
  CE_CLOSED,     /* conn, reason: the connection ended */
  CE_STOP,       /* role taken: refuse, finish what was submitted -> CA_IDLE */
};
#define COPY_OP_SUPER COPY_MAX_OPS
#define COPY_OP_MARK  (COPY_MAX_OPS + 1)
#define COPY_OP_SYNC  (COPY_MAX_OPS + 2)
#define COPY_OP_SNAPSHOT (COPY_MAX_OPS + 3)

struct copy_event {
  uint8_t kind;                /* enum copy_event_kind */
  uint16_t op;
  int error;
  uint32_t conn;
  uint32_t buf;
  uint64_t now_ms;
  const char *peer;
  const struct wire_hello *hello;
  const struct wire_record *record; /* CE_RECORD; CE_FRAME of ENTER */
  bool appointed;              /* CE_RECORD: the record names this copy's site as production's */
  const uint8_t *map;          /* CE_FRAME of MAP: its payload, or NULL (ALL) */
  struct wire_header frame;
};

enum copy_action_kind {
  CA_SUBMIT = 1, /* op, buf, frame, skip (bytes of the operation that are left out before it): WRITE, ZERO, TRIM,
                    RESYNC_* (WIRE_F_FUA: stable before CE_DONE), FLUSH -> CE_DONE.  Zeroes and trims read as zeroes
                    after it */
  CA_NOTHING,    /* op, buf, frame, skip: a part of an operation that is done without the store, which has zeroes
                    there (W1) */
  CA_SUPER,      /* tenure, generation, since, unusable, filling: superblock, flushed, after a flush of
                    the data if flush_data -> CE_DONE with op COPY_OP_SUPER.  One at a time */
  CA_RELEASE,    /* buf: the payload is not needed any more */
  CA_MARK,       /* write what mark_next () of the configuration's mark yields, each block stable ->
                    CE_DONE with op COPY_OP_MARK.  The payloads are taken while this is carried out */
  CA_HELLO_OK,   /* conn, hello_ok: answer; this is the link now.  With TRACKING in its features
                    copy_report () follows, as MAPs, then END */
  CA_REFUSE,     /* conn, refuse: answer, then close */
  CA_ACK,        /* conn, seq */
  CA_SYNC,       /* flush the data -> CE_DONE with op COPY_OP_SYNC.  One at a time; nothing waits for it */
  CA_STABLE,     /* conn, seq: answer with STABLE */
  CA_ERROR,      /* conn, seq, failure: send ERROR, then close.  op COPY_OP_SNAPSHOT: the snapshot failed */
  CA_CLOSE,      /* conn: an earlier link that a new HELLO has made moot */
  CA_SNAPSHOT,   /* make a copy of what the store holds, stable -> CE_DONE with op COPY_OP_SNAPSHOT.
                    Meanwhile nothing is written but superblocks and maps; an error ends the link */
  CA_SNAPSHOT_DROP, /* it is of no use any more */
  CA_RECORD,     /* generation: write it to the superblock, lazily (R2) */
  CA_FAILED,     /* error: the store failed (F4): say so to crgd */
  CA_IDLE,       /* after CE_STOP: nothing is on its way to the store any more */
};

struct copy_action {
  uint8_t kind;                /* enum copy_action_kind */
  bool unusable, filling, flush_data;
  uint16_t op;
  int error;
  uint32_t conn, buf, skip;
  uint64_t seq;
  uint64_t tenure, generation, since;
  const char *reason;          /* static */
  struct wire_header frame;
  struct wire_hello_ok hello_ok;
  struct wire_refuse refuse;
  struct wire_failure failure;
};

struct copy_actions {
  unsigned n;
  bool more;                   /* feed CE_POLL once these are carried out */
  struct copy_action a[COPY_MAX_ACTIONS];
};

struct copy_status {
  bool linked, failed, unusable, in_set, closing;
  uint64_t tenure, generation, since;
  uint64_t seq_received, seq_acked;
  unsigned ops;                /* received and not done */
  unsigned hot_wait;           /* ... of them wait for their region to be hot, ... */
  bool hot_full;               /* ... and there is one for which no region is free */
  uint64_t frames, bytes, acks, refused, illegal;
  const char *reason;          /* last refusal or failure, static */
};

struct copy;                   /* defined in copy_private.h */

extern const char *copy_init (struct copy *c, const struct copy_config *cfg, uint64_t now_ms);
extern void copy_step (struct copy *c, const struct copy_event *ev, struct copy_actions *out);
/* What may differ from production: block `index` of the map, META_BLOCK_PAYLOAD bytes.  Returns
 * how many bits of it are set, of how many. */
extern uint64_t copy_report (const struct copy *c, uint64_t index, uint8_t *payload, uint64_t *of);
extern uint64_t copy_report_blocks (const struct copy *c);
extern void copy_status (const struct copy *c, struct copy_status *st);

#endif
