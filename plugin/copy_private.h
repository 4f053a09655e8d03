/* SPDX-License-Identifier: BSD-3-Clause */
/* The state of the receiving core, for those who embed it by value.  Nobody but copy.c and
 * copy_track.c touches a field. */
#ifndef IASP_COPY_PRIVATE_H
#define IASP_COPY_PRIVATE_H

#include <string.h>

#include "plugin/copy.h"

enum copy_op_state { OP_FREE, OP_BLOCKED, OP_SUBMITTED, OP_DONE };

struct copy_op { /* of sequence number s: ops[s % COPY_MAX_OPS] */
  uint8_t state;     /* enum copy_op_state */
  bool after_super;  /* waits until the store is marked unusable */
  bool hot;          /* counted as a writer of its regions */
  bool nothing;      /* zeroes for what was never written: there is nothing to do */
  uint64_t offset;   /* what of it is to be written */
  uint32_t length;
  uint8_t hot_wait;  /* 1: for the mark, 2: for a free region */
  uint64_t ticket;   /* ENTER: of the maps that have to be on disk first */
  uint16_t blockers; /* earlier operations that must be done first */
  uint32_t buf;
  struct wire_header frame;
  struct wire_record record; /* ENTER */
};

/* LATER: with the first operation of the next link. */
enum copy_snap { SNAP_NONE, SNAP_WANTED, SNAP_BUSY, SNAP_LATER };

enum copy_super { SUPER_IDLE, SUPER_HELLO, SUPER_UNUSABLE, SUPER_ENTER, SUPER_TENURE };

struct copy {
  struct copy_config cfg;  /* as configured; what changes is below */
  uint64_t tenure, generation, since;
  bool restarted, empty, unusable, filling, failed, stopped, idle_said;

  bool linked;             /* conn is the link */
  bool closing;            /* it is over, but the store still works for it */
  uint32_t conn;
  uint64_t link_tenure;
  uint64_t seq, done_seq, acked_seq; /* received; all up to done; acknowledged */
  uint64_t enter_seq;      /* the last ENTER */
  uint64_t refill_seq;     /* the first block of a resync behind an ENTER that is not done; or 0 */
  uint32_t window_used;    /* payload bytes received and not done */
  unsigned n_submitted, n_blocked, n_runnable;

  uint8_t super;           /* enum copy_super: the one on its way */
  uint16_t super_op;       /* SUPER_ENTER: its operation */
  bool want_unusable;      /* operations wait for it ... */
  uint64_t lack_ticket;    /* ... and it for the map of what is lacking */
  bool coherent;           /* what the disk holds, as its superblock says */
  uint8_t snap;            /* enum copy_snap; until it is NONE the superblock stays as it is ... */
  uint64_t coherent_since; /* ... with this, ... */
  uint64_t snap_seq;       /* ... and operations from this one on wait */
  bool sync_wanted, sync_busy; /* a flush aside of the stream; it is on its way, ... */
  uint32_t sync_conn;          /* ... for this link, ... */
  uint64_t sync_seq;           /* ... and covers this */
  unsigned n_hot_wait;
  bool settle, idle;       /* to do when the disk is free for it: see CE_STABLE */
  uint8_t clear;           /* 1: some, 2: all */
  uint8_t production_site; /* of the last HELLO */
  char tenure_node[CRG_NAME_MAX + 1]; /* R1: whose tenure it is, once a HELLO of it was let in */
  bool want_tenure;        /* the record named a higher one */
  bool hello_waits;        /* SUPER_HELLO: conn to answer is hello_conn */
  uint32_t hello_conn;
  uint64_t hello_tenure;
  uint64_t hello_features;
  struct copy_status status;
  struct copy_op ops[COPY_MAX_OPS];
};

static inline struct copy_action *
copy_act (struct copy_actions *out, enum copy_action_kind kind)
{
  struct copy_action *a = &out->a[out->n++];
  memset (a, 0, sizeof *a);
  a->kind = (uint8_t) kind;
  return a;
}

static inline struct copy_op *
copy_op_of (struct copy *c, uint64_t seq)
{
  return &c->ops[seq % COPY_MAX_OPS];
}

static inline bool
copy_is_runnable (const struct copy_op *o)
{
  return o->state == OP_BLOCKED && o->blockers == 0 && !o->after_super && o->hot_wait == 0;
}

/* copy.c */
extern void copy_mark_unusable (struct copy *c);

/* copy_track.c */
extern void copy_cut_unwritten (const struct copy *c, struct copy_op *o);
extern void copy_take_hot (struct copy *c, struct copy_op *o);
extern void copy_leave_hot (struct copy *c, struct copy_op *o, uint64_t seq);
extern void copy_note_missing (struct copy *c, const struct wire_header *f);
extern void copy_note_map (struct copy *c, const struct copy_event *ev);
extern void copy_note_filled (struct copy *c, const struct wire_header *f);
extern void copy_note_stable (struct copy *c, const struct copy_event *ev);
extern void copy_note_set (struct copy *c, uint32_t in_set);
extern void copy_hot_wake (struct copy *c);
extern void copy_pump_marks (struct copy *c, struct copy_actions *out);

#endif
