/* SPDX-License-Identifier: BSD-3-Clause */
/* The state of the replication core, laid open for those who embed it by value (the plugin's
 * engine, the simulator) and for repl.c, repl_stable.c, repl_link.c, repl_resync.c, repl_ask.c, repl_pace.c,
 * verify.c and repl_status.c, which share it.  Nobody else reads or writes a field.  No pointers but the maps given at
 * init: a copy of the struct and of the maps is a snapshot.
 */
#ifndef IASP_REPL_PRIVATE_H
#define IASP_REPL_PRIVATE_H

#include "plugin/repl.h"
#include "plugin/verify.h"

#define REPL_NONE     REPL_NO_SLOT
#define REPL_SLOTS    (REPL_MAX_SLOTS + 2) /* with REPL_SLOT_DRAIN, REPL_SLOT_SYNC */
#define REPL_QUEUE    512                  /* power of 2, > REPL_SLOTS: each slot once */
/* Frames of one request: payloads of NBD_MAX_REQUEST, and a FLUSH for FUA. */
#define REPL_FRAMES_MAX (NBD_MAX_REQUEST / LINK_MAX_PAYLOAD + 1)
/* Actions that a step may need besides those of its loops: levels and states of all sites. */
#define REPL_ACTIONS_RESERVED 96

struct repl_queue {
  uint16_t head, n;
  uint16_t q[REPL_QUEUE];
};

enum slot_state {
  SL_FREE,
  SL_BLOCKED, /* waits for its range, the hold's end, a free hot region, or (reads) equal copies */
  SL_ACTIVE,  /* granted: local part and copies at work */
  SL_DONE,    /* has all it needs but for the lease */
};

struct repl_slot {
  uint8_t state;                /* enum slot_state */
  uint8_t op;                   /* enum repl_op */
  bool local_done;
  bool hot;                     /* counted as a writer of its hot regions */
  bool unmarked;                /* its local part waits for their marks */
  bool guarded;                 /* RO_READ_WAIT: waits until its range is equal */
  bool stalled;                 /* no hot region is free */
  uint8_t n_frames;
  uint8_t flags;
  uint16_t blockers;            /* earlier overlapping requests and resync reads */
  uint16_t prev, next;          /* list of all that aren't free, in arrival order */
  int error;
  uint64_t order;
  uint64_t offset, length;
  uint64_t since_ms;            /* arrived; granted once ACTIVE */
  uint32_t must, pending;       /* sites */
  uint32_t earlier;             /* sites that were sent a part of it on an earlier link */
  uint64_t first_seq[CRG_MAX_SITES]; /* of its first frame on this link, or 0 */
  /* RO_FLUSH: what it covers when it is over */
  uint64_t cycle;               /* of the hot map */
  uint64_t bound[CRG_MAX_SITES]; /* sequence numbers on this link */
  uint32_t settles;             /* sites whose marks of before are covered (own bit: found ones) */
  uint8_t sent[CRG_MAX_SITES], acked[CRG_MAX_SITES]; /* frames */
};

enum rslot_state { RL_FREE, RL_BLOCKED, RL_READING, RL_CANCELLED };

struct repl_rslot {
  uint8_t state;                /* enum rslot_state */
  uint8_t site;
  bool doubt;                   /* what the run was before */
  uint16_t blockers;
  uint64_t order;
  struct track_range run;       /* blocks locked: the first is read, the rest may be a hole */
};

/* A question of the resync for digests.  No lock is held for it (repl_ask.c, D1). */
struct repl_ask {
  bool on;
  uint8_t site;
  uint8_t heard;                /* 1: the own digests came, 2: the copy's */
  struct track_range run;
  uint64_t tag, since_ms;
  uint8_t digests[VERIFY_BLOCKS][WIRE_DIGEST_LEN]; /* those that came first */
};

enum flight_kind { FL_NONE, FL_SLOT, FL_RESYNC, FL_FLUSH, FL_ENTER, FL_LACK };

struct repl_flight {            /* one frame sent and not acknowledged */
  uint8_t kind;                 /* enum flight_kind */
  uint16_t slot;
  uint32_t bytes;
  uint64_t sent_ms;
  uint64_t bound;               /* FL_FLUSH: as in repl_slot */
};

/* R3, on the way into the set */
enum enter_phase {
  EN_NONE,
  EN_CLOSING, /* every new request waits for it; earlier ones and the last blocks go on */
  EN_MAPS,    /* it is told what the absent sites lack */
  EN_SENT,    /* ENTER is on its way */
  EN_READY,   /* RA_COPY_READY said; the record decides */
};

/* A resync beside clients (repl_pace.c). */
struct repl_pace {
  bool on;                      /* a piece has begun, and its rest has not */
  unsigned left;                /* blocks, or questions, that may still be put in it */
  uint64_t begun_us;
  uint64_t rest_until_us;
  uint8_t doubled;              /* G3: so often */
  uint64_t least, gained_ms;    /* what the copy lacked at least, blocks, and since when */
};

struct repl_site {
  bool mirror;                  /* MIRROR-START reached */
  bool detached;
  bool link_up;
  bool mute;                    /* in the set, linked, but must leave it first (R5) */
  bool lost, lost_final;        /* RA_COPY_LOST stands; final: no way back but the record */
  bool map_valid;               /* the map says how it differs from production */
  bool untracked;               /* has writes that no SENT state follows: a restart of its
                                   machine may have lost them */
  bool digests;                 /* it answers DIGEST_REQ */
  bool map_needed;              /* its own map has not come since this production began */
  bool fork_taken;              /* that of the fork that it was has come */
  bool lack_owed, lack_said;    /* it has to note that it lacks everything; told on this link */
  bool resync_begun;            /* a RESYNC frame was sent on this link */
  bool was_linked;
  uint8_t enter;                /* enum enter_phase */
  uint8_t enter_tries;          /* given up since a request waited for it too long */
  bool enter_blind;             /* it got writes on its way in that no SENT state follows */
  uint8_t slow;                 /* closed without progress so often: the next time it gets longer */
  uint64_t progress_ms;         /* last acknowledgement of something new */
  uint8_t state;                /* enum repl_site_state, as last told */
  uint64_t state_since_ms;
  uint64_t down_ms;             /* link down since */
  uint64_t no;                  /* of the last RA_COPY_*, */
  uint8_t said;                 /* ... and which it was */
  uint64_t enter_retry_ms;
  uint64_t read_retry_ms;
  uint64_t flush_ms;            /* last resync flush */
  uint64_t hole_run;            /* blocks to ask for at once */
  unsigned spread;              /* regions that the resync went through since that flush, */
  uint64_t spread_last;         /* ... and the last of them */

  uint64_t seq, acked_seq;
  uint32_t window_bytes, window_frames;
  uint64_t room;                /* bytes in the link's out buffer */
  uint32_t unacked_bytes, unacked_frames;
  uint32_t reserved_bytes, reserved_frames; /* for resync reads under way */
  uint32_t resync_unacked;
  uint32_t n_rslots;
  unsigned n_asks;
  unsigned ask_pause, ask_left; /* blocks to be sent without asking, as asking did not pay; still to go */
  struct repl_pace pace;
  struct repl_queue sendq;      /* slots with frames to send, in order */
  struct repl_flight flight[LINK_WINDOW_FRAMES]; /* by seq */

  unsigned map_site;            /* EN_MAPS: where it is */
  uint64_t map_index;
  uint64_t stable, told_stable; /* WIRE_STABLE */
  bool settled, told_settled;
  bool clear;                   /* tell it to clear its marks now */
  bool syncs;                   /* flushes aside of the stream, for REPL_SLOT_SYNC */
  uint64_t sync_need;           /* ... and its answer has to cover this */
  bool keeps;                   /* keeps the marks of what makes it equal until it is settled */

  uint64_t resync_bytes, equal_bytes;
  uint64_t resync_base;         /* track.cleaned when this resync began */
  uint64_t rate_bytes_s, rate_ms, rate_cleaned;
  uint64_t rate_sent, rate_holes, rate_asks; /* resync_bytes, counters.hole_blocks and .asks when this second began */
  bool rate_whole;              /* there was something to copy then */
  char reason[CRG_REASON_MAX + 1];
  struct track track;
};

struct repl {
  struct repl_config cfg;
  uint32_t others;              /* sites but the own one */
  uint32_t in_set;
  uint64_t generation;
  uint64_t now_ms, now_us;
  uint64_t read_ms;             /* last read of a client that did not come here */
  uint64_t lease_ms;
  uint64_t order;               /* last given */
  uint64_t no;                  /* last RA_COPY_* */
  uint64_t app_ms;              /* last request */
  bool hold, drained, drain_of_hold;
  bool drain_done;              /* flushed everywhere; the disk still has to hear of it */
  bool failed;                  /* F4 */
  bool flush_failed;            /* F4, return policy */
  bool lease_error;             /* L2: no-quorum-timeout passed */
  uint64_t hold_ms;
  uint16_t first, last;         /* list of slots */
  unsigned n_used, n_granted, n_blocked, n_rblocked;
  unsigned next_site;           /* whose turn it is to resync */
  uint64_t tag;                 /* last given to a question, of the resync or of a comparison */
  struct repl_queue runnable, done, stalled;
  bool guard;                   /* reads wait for equal copies */
  unsigned n_guarded, n_unmarked;
  bool marks_stand;             /* a batch is over: some of n_unmarked may go */
  bool settle;                  /* what was found may go, once the disk is free for it */
  bool settled;                 /* it has gone */
  bool kept;                    /* a copy was sent what makes it equal since the last such flush began */
  uint8_t clear;                /* 1: some, 2: all that a flush covers */
  uint64_t resync_rate;         /* measured, bytes/s; 0: not yet */
  uint64_t sync_ms;             /* the last flush that covered hot regions began */
  struct repl_counters counters;
  char hold_reason[CRG_REASON_MAX + 1];
  char fail_reason[CRG_REASON_MAX + 1];
  struct repl_slot slots[REPL_SLOTS];
  struct repl_rslot rslots[REPL_MAX_RSLOTS];
  struct repl_ask asks[REPL_MAX_ASKS];
  unsigned n_asks;
  struct repl_rslot vlock;      /* of the comparison; RL_READING: it is held */
  struct verify verify;
  struct repl_site sites[CRG_MAX_SITES];
};

/* --- repl.c, for repl_link.c */
extern void repl_check_done (struct repl *r, unsigned slot);
extern void repl_rslot_release (struct repl *r, unsigned rslot);
extern void repl_range_release (struct repl *r, const struct repl_rslot *x);
extern void repl_set_reason (char *dst, const char *src);
extern bool repl_lease_ok (const struct repl *r);
extern bool repl_app_is_idle (const struct repl *r);

/* --- repl_stable.c, for repl.c, repl_link.c and repl_resync.c: what a flush covers, and who is told */
extern void stable_flush_begins (struct repl *r, unsigned slot);
extern void stable_flush_covered (struct repl *r, unsigned slot);
extern uint64_t stable_bound (const struct repl *r, unsigned site);
extern void stable_ask (struct repl *r, unsigned site, struct repl_actions *out);
extern void stable_tell (struct repl *r, struct repl_actions *out);
/* The copy's answer.  Why it can't be right, or NULL. */
extern const char *stable_answer (struct repl *r, unsigned site, uint64_t seq);

/* --- repl_status.c, for repl.c and repl_link.c */
extern uint64_t repl_oldest_pending_ms (const struct repl *r, unsigned site); /* since, or 0 */
extern void link_states (struct repl *r, struct repl_actions *out);

/* --- repl_link.c, for the other three */
extern void link_init (struct repl *r, unsigned site);
extern void link_event (struct repl *r, const struct repl_event *ev, struct repl_actions *out);
extern void link_record (struct repl *r, const struct repl_event *ev, struct repl_actions *out);
extern void link_grant (struct repl *r, unsigned slot, struct repl_actions *out);
extern void link_local_error (struct repl *r, unsigned slot);
extern void link_pump (struct repl *r, struct repl_actions *out);
extern void link_tick (struct repl *r, struct repl_actions *out);
extern bool link_fits (const struct repl_site *x, uint32_t bytes, uint32_t frames);
extern struct repl_action *link_send (struct repl *r, unsigned site, enum wire_type type,
                                      enum flight_kind kind, uint64_t offset, uint64_t length,
                                      uint32_t payload_len, struct repl_actions *out);
extern void link_mark_hot (struct repl *r, unsigned site);
/* It has to leave the set, whatever its link does. */
extern void link_lose (struct repl *r, unsigned site, const char *reason, struct repl_actions *out);

/* --- repl_resync.c, for the other two */
extern void resync_read_done (struct repl *r, const struct repl_event *ev,
                              struct repl_actions *out);
extern void resync_cancel (struct repl *r, unsigned site);
extern void resync_pump (struct repl *r, struct repl_actions *out);
extern void resync_measure (struct repl *r, struct repl_site *x, uint64_t ms);
extern uint32_t resync_block_bytes (const struct repl *r);
extern uint32_t resync_block_frames (const struct repl *r);

/* --- repl_pace.c, for repl_resync.c, repl_link.c and repl_status.c */
/* May this site's resync take nothing now, as clients work? */
extern bool pace_holds (struct repl *r, unsigned site);
/* It took a block, or asked a question. */
extern void pace_took (struct repl *r, unsigned site);
extern void pace_tick (struct repl *r, unsigned site);
extern bool repl_site_yields (const struct repl *r, unsigned site);

/* --- repl_ask.c, for repl.c, repl_link.c and repl_resync.c */
/* Is what is in doubt to be asked for, and how many blocks at once? */
extern bool ask_wanted (const struct repl *r, unsigned site);
extern uint64_t ask_max (const struct repl *r);
/* Asks for the first of these blocks that no write under way touches.  False: for none, now. */
extern bool ask_start (struct repl *r, unsigned site, struct track_range run, struct repl_actions *out);
extern bool ask_overlaps (const struct repl *r, unsigned site, struct track_range run);
extern void ask_cancel (struct repl *r, unsigned site);
extern void ask_pump (struct repl *r);
/* False: nobody of the resync waits for these digests. */
extern bool ask_answered (struct repl *r, const struct repl_event *ev);

/* --- verify.c, for the others */
extern void verify_event (struct repl *r, const struct repl_event *ev, struct repl_actions *out);
extern void verify_pump (struct repl *r, struct repl_actions *out);
/* What differs of this copy is not copied before it has left the set. */
extern bool verify_keeps_out (const struct repl *r, unsigned site);

/* --- small things, both */
static inline void
queue_push (struct repl_queue *q, uint16_t v)
{
  q->q[(q->head + q->n++) & (REPL_QUEUE - 1)] = v;
}

static inline uint16_t
queue_pop (struct repl_queue *q)
{
  uint16_t v = q->q[q->head & (REPL_QUEUE - 1)];
  q->head = (q->head + 1) & (REPL_QUEUE - 1);
  q->n--;
  return v;
}

static inline uint16_t
queue_peek (const struct repl_queue *q)
{
  return q->q[q->head & (REPL_QUEUE - 1)];
}

static inline bool
op_is_data (unsigned op)
{
  return op == RO_WRITE || op == RO_ZERO || op == RO_TRIM;
}

static inline bool
ranges_overlap (uint64_t a, uint64_t alen, uint64_t b, uint64_t blen)
{
  return a < b + blen && b < a + alen;
}

static inline bool
has_space (const struct repl_actions *out, unsigned n)
{
  return out->n + n + REPL_ACTIONS_RESERVED <= REPL_MAX_ACTIONS;
}

static inline struct repl_action *
act (struct repl_actions *out, enum repl_action_kind kind)
{
  struct repl_action *a = &out->a[out->n++];
  static const struct repl_action none;
  *a = none;
  a->kind = (uint8_t) kind;
  return a;
}

/* The blocks that differ, or may: not one of them is to be read. */
static inline bool
is_equal (const struct track *t)
{
  return t->count[TS_CLEAN] == t->n_blocks;
}

/* The copies that are in the set, or may be for all that is known. */
static inline uint32_t
set_mask (const struct repl *r)
{
  uint32_t m = r->in_set & r->others;
  for (unsigned s = 0; s < r->cfg.n_sites; s++)
    if (r->sites[s].enter == EN_READY)
      m |= 1u << s;
  return m;
}

/* Are all copies of the set what production is, as far as blocks go?  While they aren't, only
 * their hot marks say what they may differ in from each other. */
static inline bool
set_is_equal (const struct repl *r)
{
  for (unsigned s = 0; s < r->cfg.n_sites; s++)
    if ((set_mask (r) & 1u << s) && (r->sites[s].map_needed || !is_equal (&r->sites[s].track)))
      return false;
  return true;
}

/* Have clients asked for anything in so long, or do they wait for an answer? */
static inline bool
repl_app_is_busy (const struct repl *r, uint64_t quiet_ms)
{
  const unsigned own = (r->slots[REPL_SLOT_DRAIN].state != SL_FREE) + (r->slots[REPL_SLOT_SYNC].state != SL_FREE);

  return r->n_granted > own || (r->app_ms != 0 && r->now_ms - r->app_ms < quiet_ms)
         || (r->read_ms != 0 && r->read_ms + quiet_ms > r->now_ms);
}

/* The copies that a request granted now has to wait for. */
static inline uint32_t
must_mask (const struct repl *r)
{
  uint32_t m = r->in_set & r->others;
  for (unsigned s = 0; s < r->cfg.n_sites; s++)
    if (r->sites[s].enter != EN_NONE)
      m |= 1u << s;
  return m;
}

#endif
