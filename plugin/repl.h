/* SPDX-License-Identifier: BSD-3-Clause */
/* The replication core of the side that holds production: what to send, when to complete, what
 * to mark, when to clear.
 *
 * A pure state machine, repl_step (state, event, actions): no I/O, clock, thread, allocation
 * (the caller gives all memory) or callback.  The plugin's engine thread owns one and feeds
 * it; the simulator feeds the same object file.  Actions come in the order in which the shell
 * carries them out.  The shell owns every payload byte: the core names a slot (a client's
 * request) or an rslot (a resync buffer) and an offset in it.
 *
 * Rules kept here: range lock; local write and sends are handed out together; a request
 * completes when its local part is done, every copy in `must` has answered, and the lease is
 * valid (L2); FLUSH and FUA also wait for those copies' own flush; R2 (a lost copy: hold until
 * the record without it), R3 (entering the set), F4 (a failed store), F6 (hold and drain);
 * resync below application writes, by digest where blocks are only in doubt (D1).  `must` of
 * a request = the committed in-set copies and those entering (R3), fixed when it is granted its lock.
 *
 * Tracking (mark.h): a region is hot on the own disk before the local part of its write is
 * submitted; the sends do not wait, as each copy marks its own disk.  Its mark goes when a flush
 * of the own store and of every copy in `must` covers the write.  A copy that leaves the set is
 * dirty in all regions that are hot then.  Opened after an unclean end, production copies hot(own)
 * and hot(copy) to each copy of the set, and until they are equal no read of them is answered.
 * What was never written is zeroes (W1): the resync does not read it, and zeroes for it change nothing.
 *
 * It must never: complete what an in-set copy lacks; clear a dirty mark without a flush that
 * the copy confirmed; wait without an owner and a reason (repl_waits).
 */
#ifndef IASP_REPL_H
#define IASP_REPL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/limits.h"
#include "common/wire.h"
#include "plugin/mark.h"
#include "plugin/track.h"

enum repl_op { RO_WRITE = 1, RO_ZERO, RO_TRIM, RO_FLUSH, RO_READ_WAIT };

/* Flags of a request */
#define RF_FUA      1u
#define RF_MAY_TRIM 2u /* RO_ZERO: a hole is fine */

/* Slots 0 .. REPL_MAX_SLOTS - 1 are the shell's to hand out; this one is the core's own flush
 * (hold, drain: F6).  It appears in RA_LOCAL and RE_LOCAL_DONE only. */
#define REPL_SLOT_DRAIN REPL_MAX_SLOTS
/* ... and this one its flush that lets hot marks go. */
#define REPL_SLOT_SYNC (REPL_MAX_SLOTS + 1)
#define REPL_NO_SLOT   0xffffu

enum repl_event_kind {
  /* slot, op, flags, offset, length: a client's request, in arrival order.  length is 1 to
   * NBD_MAX_REQUEST for RO_WRITE, to 4 GiB - 1 for RO_ZERO and RO_TRIM, 0 for RO_FLUSH.
   * RO_TRIM only on a store that promises zeroes afterwards, else the shell ignores the TRIM.
   * RO_READ_WAIT: a read (or an answer about to leave) met a write in flight, or an expired
   * lease: completes when every overlapping write that arrived before it has completed and
   * the lease is valid; what was read before the event was fed may then be answered.
   * length 0: wait for the lease alone.  While RA_GUARD stands every read comes this way. */
  RE_REQUEST = 1,
  /* slot, error (0 or -errno): the local part is done, its flush included for RO_FLUSH and
   * RF_FUA. */
  RE_LOCAL_DONE,
  /* site, restarted, empty, unusable, mapped, syncs, keeps, forked, window_bytes, window_frames (HELLO_OK),
   * room_bytes: a link is up, its sequence begins with 1.  mapped: all of its map came with RE_MAP before.
   * room_bytes: plaintext bytes (headers and payloads) of operations that the link's out buffer
   * takes now; the shell keeps room of its own for HELLO, PING, PONG, RECORD, STABLE, BYE.  An up
   * link that comes up again was down between. */
  RE_LINK_UP,
  RE_LINK_DOWN,   /* site, reason (PING deadline, TLS error, closed, REFUSE ...) */
  RE_ACK,         /* site, seq: all up to seq are done */
  RE_STABLE,      /* site, seq: the copy's answer to RA_STABLE with WIRE_F_SYNC: they are stable */
  RE_COPY_ERROR,  /* site, seq, reason: WIRE_ERROR came; the copy does no later operation */
  RE_ROOM,        /* site, room_bytes: fits in the link's out buffer now, all actions so far
                     carried out */
  RE_MIRROR,      /* site, sync: MIRROR-START reached; connect is the shell's job */
  RE_UNMIRROR,    /* site, reason: the group says that nobody hosts this copy */
  RE_DETACHED,    /* site: out by the operator's will; shown as such */
  RE_RECORD,      /* in_set (bit s = site s; own bit ignored), generation, seen: committed.
                     seen: the outcome of every RA_COPY_* up to this `no` is known and in this
                     record, none is in flight (GA_RECORD's seq).  0 if the controller does
                     not say: a copy lost while its entry was on its way is then waited for
                     until it is in the record or back */
  RE_LEASE,       /* until_ms: absolute, same clock as now_ms (L1); UINT64_MAX: no lease */
  RE_HOLD,        /* reason: hold new requests, drain, flush everywhere (F6) */
  RE_RESUME,
  RE_RESYNC_READ, /* rslot, error, zero, length: RA_RESYNC_READ is done.  zero RZ_HOLE: the
                     first `length` bytes are a hole (1 block to RA's length_max); else length
                     is RA's length */
  RE_STORE_FAILED,/* reason: the shell saw the production store fail elsewhere */
  RE_MAP,         /* site, empty, forked, offset, map: a piece of the copy's own map, META_BLOCK_BITS blocks from
                     offset on; NULL: all of them are set */
  RE_MARKED,      /* error: the stage that RA_MARK opened is written and flushed, or not */
  RE_VERIFY,      /* in_set (the sites to compare), repair, memory (with repair: zeroed, verify_memory_bytes
                     (), the core's until RA_VERIFY of the own site): a run begins (verify.h) */
  RE_VERIFY_STOP, /* reason: it ends now */
  RE_DIGEST,      /* site (the own one, or a copy's), seq, error, map, length: the digests that RA_DIGEST or
                     RA_DIGEST_REQ asked for under that number: `length` of WIRE_DIGEST_LEN bytes each.  The
                     own ones with zero RZ_HOLE: all of the range is a hole */
  RE_TICK,        /* time passed: feed one every REPL_TICK_MS */
  RE_MORE,        /* nothing new: after a step that set actions->more, or at repl_wake_us () */
};

enum repl_zero { RZ_DATA, RZ_ZERO, RZ_HOLE };
enum repl_sync { RS_NONE, RS_PARTIAL, RS_FULL };

struct repl_event {
  uint8_t kind;         /* enum repl_event_kind */
  uint8_t op;           /* enum repl_op */
  uint8_t site;
  uint8_t sync;         /* enum repl_sync */
  uint8_t zero;         /* enum repl_zero */
  bool restarted;       /* R5: answered and not flushed may be gone */
  bool empty;           /* nothing in it is of use */
  bool unusable;        /* its disk says: target of a resync that did not end */
  bool digests;         /* RE_LINK_UP: it answers DIGEST_REQ */
  bool repair;
  uint8_t *memory;
  bool mapped;          /* its map of what may differ came before */
  bool syncs;           /* it answers STABLE with SYNC */
  bool keeps;           /* it minds KEEP */
  bool forked;          /* RE_LINK_UP, RE_MAP: R6, it went its own way, and its map says where */
  const uint8_t *map;   /* META_BLOCK_PAYLOAD bytes, only during the step */
  uint16_t slot, rslot;
  uint32_t flags;       /* RF_* */
  int error;
  uint64_t now_ms;      /* CLOCK_BOOTTIME; in every event */
  uint64_t now_us;      /* ... the same, finer; 0: that is all there is */
  uint64_t read_ms;     /* a client's read was answered last that the core did not see; in every event */
  uint64_t offset, length;
  uint64_t seq;
  uint32_t window_bytes, window_frames;
  uint64_t room_bytes;
  uint32_t in_set;
  uint64_t generation;
  uint64_t seen;
  uint64_t until_ms;
  const char *reason;   /* only during the step; may be NULL */
};

enum repl_action_kind {
  /* slot, op, flags, offset, length: submit the local part -> RE_LOCAL_DONE.  From here to
   * RA_COMPLETE the range counts as in flight for readers. */
  RA_LOCAL = 1,
  /* site, frame (a whole header but for the tenure, with length and payload_len).  Where
   * payload_len > 0 the payload begins at slot_offset in the buffer of slot, or, if slot is
   * REPL_NO_SLOT, in that of rslot.
   * ENTER: the shell makes the payload (wire_record) with `generation` as since.  MAP without ALL:
   * the payload is block `no` of the dirty map of site `op`, as it is now.
   * The shell has taken the payload (encrypted, or copied) when it has carried this out; it
   * never needs the slot for this site again, unless the core sends it again. */
  RA_SEND,
  RA_COMPLETE,    /* slot, error: answer the client, or wake the reader; slot is free */
  /* rslot, site, offset, length, length_max: read (or find a hole, of up to length_max) ->
   * RE_RESYNC_READ.  Always answered, also when the link is gone by then. */
  RA_RESYNC_READ,
  RA_COPY_LOST,   /* site, no, generation, reason: ask for its removal from the set, or the
                     end of its entry (R2); a level: stands until a record or COPY_BACK */
  RA_COPY_BACK,   /* site, no: removal no longer wanted */
  RA_COPY_READY,  /* site, no, generation: filled, flushed, superblock written: ask for its
                     entry (R3) */
  RA_CLOSE_LINK,  /* site, reason: close it; the core counts it as down already (no
                     RE_LINK_DOWN expected, one does no harm); connect again as usual */
  RA_DRAINED,     /* F6: all granted requests answered, flushed everywhere */
  RA_STORE_FAILED,/* error, reason: F4; nothing completes any more, and the shell lets no read
                     be answered either */
  RA_STATE,       /* site: its repl_site_state or reason changed (for log and status) */
  RA_MARK,        /* write what mark_next () of the configuration's mark yields, each block stable
                     -> RE_MARKED.  The payloads are taken while this is carried out */
  RA_STABLE,      /* site, frame (WIRE_STABLE): tell it; harmless if it can't be sent now, but with
                     WIRE_F_SYNC: then the link has to be closed */
  RA_DIGEST,      /* no, offset, length: make the digests of the own store's blocks -> RE_DIGEST, own site */
  RA_DIGEST_REQ,  /* site, frame (DIGEST_REQ, seq to be answered with): ask it; the shell makes the payload */
  RA_DIFFERS,     /* site, offset, length: the copy differs there from production (verify.h, V2) */
  RA_VERIFY,      /* site, op (enum verify_phase), reason: of that copy's comparison; the own site: the
                     run is over */
  RA_GUARD,       /* error 0 or 1: 1: every read goes through RE_REQUEST from now on, 0: no more.
                     It stands when the core begins if repl_is_guarded () says so */
};

struct repl_action {
  uint8_t kind;         /* enum repl_action_kind */
  uint8_t op;
  uint8_t site;
  uint16_t slot, rslot;
  uint32_t flags;
  int error;
  uint64_t offset, length;
  uint64_t length_max;
  uint32_t slot_offset; /* RA_SEND: of the payload, bytes */
  uint64_t no;
  uint64_t generation;
  const char *reason;   /* static, or in struct repl: valid until the next step */
  struct wire_header frame;
};

struct repl_actions {
  unsigned n;
  bool more;            /* feed RE_MORE once these are carried out */
  struct repl_action a[REPL_MAX_ACTIONS];
};

struct repl_config {
  uint64_t size;             /* of the data, bytes */
  uint32_t block_size;       /* dirty tracking, DIRTY_BLOCK_SIZE_MIN .. _MAX, a power of 2 */
  uint8_t site;              /* own */
  uint8_t n_sites;
  uint8_t n_rslots;          /* resync buffers of block_size, 1 .. REPL_MAX_RSLOTS */
  uint8_t share_percent;     /* of the time that a resync takes while clients work (G1); 100: no pace */
  bool return_store_error;   /* F4 policy: return a local write's error instead of failing over */
  uint32_t in_set;           /* R: the record at the appointment */
  uint32_t entering;         /* bit s: a copy outside it whose entry an earlier process may have
                                asked for: waited for until a record tells the outcome (R3, C5) */
  uint32_t unclean;          /* without mark: in-set copies that must leave first (R5, unclean end) */
  bool equal;                /* the copies in the set are equal: all was drained and flushed (F6) */
  struct mark *mark;         /* what the disk remembers, loaded; NULL: nothing is tracked on disk */
  uint64_t generation;
  uint32_t suspend_timeout_ms;
  uint32_t no_quorum_timeout_ms; /* L2: then -EIO for what no copy lacks; 0 = never */
  /* Block states of each other site: track_memory_bytes () each; NULL for the own one. */
  uint8_t *track_memory[CRG_MAX_SITES];
  size_t track_memory_bytes;
  bool track_is_zeroed;      /* that memory is new: a huge store costs what is noted of it */
};

enum repl_site_state {
  SITE_IDLE,       /* no copy is mirrored to, nor expected */
  SITE_CONNECTING, /* in the set or awaited; no link yet, or lost a moment ago */
  SITE_MIRRORING,
  SITE_RESYNCING,
  SITE_SUSPENDED,  /* behind, and nothing flows; reason says why */
  SITE_DETACHED,
};
extern const char *repl_site_state_name (unsigned state); /* "mirroring" */

struct repl_site_status {
  uint8_t state;                /* enum repl_site_state */
  bool in_set, entering, link_up, lost;
  bool yields;                  /* its resync goes at the pace that clients leave it (G1) */
  uint8_t level;                /* the RA_COPY_* that stands, to be told again to a new
                                   controller under its `no`; 0: nothing is open */
  uint64_t no;
  const char *reason;           /* "" if all is well */
  uint64_t since_ms;            /* in this state since */
  uint64_t dirty_bytes;         /* what it lacks, or has and has not confirmed stable */
  uint64_t done_bytes, total_bytes; /* of the resync: both never fall */
  uint64_t rate_bytes_s;
  uint64_t eta_s;               /* UINT64_MAX: unknown */
  uint64_t resync_bytes;        /* that the resync has sent it, ever; holes count as nothing */
  uint64_t equal_bytes;         /* ... and has not, as its digest was production's */
  uint64_t unacked_bytes;
  unsigned unacked_frames;
  uint64_t lag_ms;              /* age of the oldest request that waits for it */
};

enum repl_wait_owner { RW_STORE, RW_COPY, RW_LEASE, RW_HOLD, RW_RANGE, RW_FAILED, RW_MARK, RW_EQUAL };
struct repl_wait {
  uint8_t owner;                /* enum repl_wait_owner */
  uint8_t site;                 /* RW_COPY; RW_EQUAL: the first copy that is not */
  unsigned requests;            /* how many wait for it */
  uint64_t age_ms;              /* of the oldest */
  const char *reason;
};
#define REPL_MAX_WAITS (CRG_MAX_SITES + 7)

struct repl_counters {
  uint64_t requests, completed, errors, frames, resent_frames, resync_blocks, hole_blocks;
  uint64_t asks;                /* questions of the resync for digests */
  uint64_t own_flushes;         /* made to let hot marks go */
  uint64_t unwritten;           /* requests for zeroes where nothing was ever written */
  uint64_t illegal;             /* events that made no sense: counted, ignored */
  uint64_t locks_waited, copies_lost, copies_back, copies_entered;
};

struct repl;                    /* defined in repl_private.h, for shells, tests and simulator
                                   that embed it; about 500 KiB */

/* Returns NULL, or why cfg is refused (static text). */
extern const char *repl_init (struct repl *r, const struct repl_config *cfg, uint64_t now_ms);
/* One event.  Actions of one step never exceed REPL_MAX_ACTIONS: what is left comes with
 * RE_MORE (actions->more). */
extern void repl_step (struct repl *r, const struct repl_event *ev, struct repl_actions *out);

extern void repl_site_status (const struct repl *r, unsigned site, uint64_t now_ms,
                              struct repl_site_status *st);
/* The site of the first level that stands and was said after `no`, or -1.  A new controller is told
 * them in this order: what it says was seen covers every earlier one (R3). */
extern int repl_level_after (const struct repl *r, uint64_t no);
extern unsigned repl_waits (const struct repl *r, uint64_t now_ms,
                            struct repl_wait w[REPL_MAX_WAITS]);
extern const struct repl_counters *repl_counters (const struct repl *r);
extern bool repl_is_held (const struct repl *r, const char **reason); /* F6, lease, failed */
extern unsigned repl_inflight (const struct repl *r); /* requests not yet completed */
/* When it wants to be stepped although nothing happens, microseconds of CLOCK_BOOTTIME; UINT64_MAX: never. */
extern uint64_t repl_wake_us (const struct repl *r);
extern bool repl_is_guarded (const struct repl *r);
/* Bytes a second of this production's resyncs, as far as they took seconds; 0: not known. */
extern uint64_t repl_resync_rate (const struct repl *r);
extern const struct track *repl_track (const struct repl *r, unsigned site);

#endif
