/* SPDX-License-Identifier: BSD-3-Clause */
/* A seeded world around the replication cores: one production, up to three copies, disks that
 * lose what was not flushed (data and maps), links that end, copies that stop, crash or lose
 * power, takeovers after which the set survives, a group that commits late.  The cores are the
 * very object files of the plugin.
 *
 * Every unit of the store holds the stamp of its last write; stamps rise with the order in
 * which writes are granted, so a smaller stamp is always older data.
 *
 * Checked: an answered write is on production and on every copy of the committed set; an answered flush is
 * stable there, and each copy is told so, whatever the copies still differ in; where a copy differs from
 * production the block is not clean or a request for it is in flight; wherever a copy of the set and any other
 * differ, the disk of one of the two says so; a read returns only what a failover can't take back; nothing is
 * answered without a lease; a comparison (verify.h) never names a block that is equal, finds each one that was
 * changed behind a copy's back, and repairs it; a copy that says what it lacks is never filled from the start; in
 * the end all copies are in the set and equal.
 */

#ifndef SIM_MIRROR_H
#define SIM_MIRROR_H

#include "common/util.h"
#include "plugin/copy_private.h"
#include "plugin/repl_private.h"

#define UNIT      4096u
#define BLOCK     16384u
#define UNITS     301u /* not a whole number of blocks */
#define SIZE      ((uint64_t) UNITS * UNIT)
#define SITES_MAX 4
#define SLOTS     24 /* of the client */
#define EVENTS    8192
#define FRAMES    4096
#define ZERO_BIT  1u /* of a stamp: these bytes read as zeroes */

typedef uint32_t stamp_t;

struct disk {
  stamp_t cur[UNITS];    /* what a read gives */
  stamp_t stable[UNITS]; /* what a loss of power leaves */
};

struct super {
  uint64_t tenure, generation, since;
  bool unusable, empty, filling;
};

/* The maps: one block each.  A block can be damaged (torn by a loss of power). */
struct maps {
  uint8_t hot[2][META_BLOCK_PAYLOAD], bits[SITES_MAX][META_BLOCK_PAYLOAD], written[META_BLOCK_PAYLOAD];
  bool bad_hot[2], bad_bits[SITES_MAX], bad_written;
};

/* A stage on its way to the disk. */
struct stage {
  unsigned n;
  struct {
    struct mark_block b;
    uint8_t payload[META_BLOCK_PAYLOAD];
  } block[3 + SITES_MAX];
};

/* What a thread that makes digests has read: not all of it at one instant. */
struct look {
  uint64_t offset, length;
  unsigned n; /* units read */
  stamp_t seen[];
};

struct msg { /* a frame, or what goes back */
  struct wire_header h;
  uint32_t conn;
  uint64_t at;
  uint64_t since, generation; /* ENTER */
  uint32_t in_set;            /* RECORD */
  uint8_t *map;               /* MAP, HELLO_OK; NULL: all */
  uint8_t back;               /* 1 ACK, 2 ERROR, 3 HELLO_OK, 4 REFUSE, 5 STABLE, 6 DIGEST */
  struct wire_hello_ok ok;
  char reason[64];
  stamp_t *data; /* units of the operation */
  struct look *look; /* DIGEST_REQ */
};

struct fifo {
  unsigned head, n;
  struct msg *m[FRAMES];
};

struct copyop {
  bool used;
  bool super;
  struct wire_header h;
  stamp_t *data;
  stamp_t snapshot[UNITS]; /* FLUSH: what it makes stable at least */
  uint64_t since, generation, tenure;
  bool unusable, filling, flush_data;
  uint16_t op;
};

struct site {
  struct disk disk;
  struct super super;
  struct maps maps;       /* on the disk */
  bool written;           /* its map of what was written counts */
  uint8_t *written_memory;
  struct mark mark;       /* of the copy's process */
  uint8_t *mark_memory;
  struct stage *stage;    /* of whoever has the store open, on its way */
  bool was_filled;        /* has been in the set, or production */
  bool kept;              /* this is what it held before its resynchronisation */
  stamp_t before[UNITS];
  bool owed[UNITS];       /* written with KEEP since it last heard SETTLED */
  unsigned n_data;        /* writes on their way to its disk */
  struct copy core;
  bool process;   /* runs */
  bool stopped;   /* SIGSTOP */
  bool restarted; /* lost power since it was open */
  uint32_t life;  /* of the process */
  bool store_bad; /* next write fails */
  struct msg *bufs[LINK_WINDOW_FRAMES];
  unsigned n_ops;

  uint32_t conn;      /* production's attempt or link; 0 = none */
  bool conn_up;       /* HELLO_OK was fed to production */
  bool may_fill;      /* its link came up so that it has to be filled as a whole */
  uint64_t conn_ms;   /* when, and to which process, it was opened */
  uint32_t conn_life;
  bool resync_begun;  /* on this connection */
  stamp_t at_enter[UNITS]; /* answered when ENTER was sent */
  uint32_t enter_life;
  bool hosted;        /* the group names a host */
  uint64_t next_try;
  struct fifo fwd, back;
  uint64_t last_fwd, last_back; /* FIFO: not earlier than this */
  uint64_t out_used, out_size;
  unsigned delay;     /* of the link, ms */
  unsigned slow;      /* of its disk, ms */
  bool cut;           /* nothing passes */
};

enum sev_kind { SE_LOCAL = 1, SE_MARK, SE_RREAD, SE_FWD, SE_BACK, SE_DRAIN, SE_COPYOP, SE_TICK, SE_CLIENT,
                SE_CTL, SE_RECORD, SE_COMMIT, SE_CHAOS, SE_HEAL, SE_DIGEST, SE_COPYDIGEST, SE_WAKE };

struct sev {
  uint64_t at, order;
  uint8_t kind;
  uint8_t site;
  uint16_t slot;
  uint32_t life;
  uint64_t a, b, c;
  void *p;
};

struct req {
  bool used, local_busy;
  uint8_t op;
  uint32_t flags;
  uint64_t offset, length;
  stamp_t stamp;
  uint64_t at;
  bool granted;
  stamp_t flushed[UNITS];   /* FLUSH: answered stamps at its arrival */
  uint64_t heard[SITES_MAX]; /* ... and of which operations a copy has to be told that they are stable, */
  uint32_t conn[SITES_MAX];  /* ... on which link, ... */
  uint64_t generation;       /* ... as long as none leaves the set */
  stamp_t seen[UNITS];      /* READ */
};

enum ctl_change { CC_NONE, CC_SHRINK, CC_ENTER };

struct mirror_world {
  uint64_t now, order;
  struct sev heap[EVENTS];
  unsigned n_heap;

  struct repl r;
  struct mark mark;     /* production's */
  uint8_t *mark_memory;
  uint32_t region;
  bool track;           /* maps on disk at all */
  bool ends;            /* production ends often and comes back, its clients later, while a copy is out of reach */
  bool keeps;           /* copies keep what is coherent before a resynchronisation */
  unsigned read_slow;   /* of this production's reads for a resynchronisation, ms */
  bool graceful;
  uint8_t *maps[CRG_MAX_SITES];
  bool prod;            /* production runs */
  uint32_t prod_life;
  unsigned prod_site;
  unsigned n_sites;
  struct site site[SITES_MAX];
  struct req req[SLOTS];
  stamp_t rbuf[REPL_MAX_RSLOTS][BLOCK / UNIT];
  stamp_t next_stamp;
  stamp_t answered[UNITS]; /* stamp of the last answered write */

  /* the group */
  uint32_t in_set;
  uint64_t generation, tenure;
  uint64_t handled_no, seen_no, last_no;
  bool want_out[SITES_MAX], want_in[SITES_MAX];
  char change;
  unsigned change_site;
  uint64_t change_generation;
  bool quorum;
  uint64_t lease, last_record, last_ctl;
  uint64_t read_ms; /* a read was answered that the core did not see */
  uint64_t wake_ms; /* the core is to be stepped then */

  bool chaos, quiesce, holding, drained;
  uint32_t no_quorum_ms;
  bool returns_errors;  /* F4 policy; its store fails now and then */
  uint64_t local_errors;
  uint64_t lacked[SITES_MAX]; /* blocks that were open before this step */
  uint64_t equal;             /* blocks that a resync asked for, and that were equal */
  stamp_t tenure_stamp; /* last one of the production before */
  unsigned busy; /* percent: how eagerly the client works */
  uint64_t answered_ops, failures;
  bool failed_store;
  uint64_t snapshots, entered, lost, takeovers, graceful_ones, partial, powerlosses;
  uint64_t partial_blocks, partial_of;
  uint64_t nothing, unwritten; /* requests, and frames at a copy, for zeroes that were there */

  /* comparisons: at any time, and at the end one of equal copies and one of a damaged copy */
  unsigned stage, agains;
  bool again;
  uint8_t verify_memory[SITES_MAX * UNITS];
  bool damaged;         /* this unit of this copy was changed behind its back */
  unsigned damaged_site, damaged_unit;
  bool found;           /* ... and was named */
  uint64_t compared, found_total, repaired, stopped;
};

extern struct mirror_world w;
extern bool verbose, broken; /* broken: a rule was, and broken_why says which */
extern uint64_t seed;
extern char broken_why[256];

/* --- mirror.c ---------------------------------------------------------------------------------- */
extern void rnd_begin (uint64_t which);
extern uint64_t rnd (uint64_t n);
extern bool chance (unsigned percent);
/* Power loss: each unit that was not flushed is lost, or has reached the disk. */
extern void lose_cache (struct site *x);
extern void violate (const char *fmt, ...) UTIL_PRINTF (1, 2);
extern void say (const char *fmt, ...) UTIL_PRINTF (1, 2);
extern struct sev *after (uint64_t ms, enum sev_kind kind);
extern struct sev next_event (void);
extern struct msg *new_msg (void);
extern void free_msg (struct msg *m);
extern void fifo_push (struct fifo *f, struct msg *m);
extern struct msg *fifo_pop (struct fifo *f);
extern void fifo_clear (struct fifo *f);
extern stamp_t *units_dup (const stamp_t *src, unsigned n);
extern void begin_stage (unsigned s, struct mark *m, uint32_t life);
extern void end_stage (unsigned s, bool die, bool power);
extern void load_marks (unsigned s, struct mark *m, uint8_t *memory, unsigned entries);
/* Zeroes for a unit that reads as such change its stamp, and nothing else. */
extern void relabel (unsigned s, unsigned unit, stamp_t stamp);
extern void check_hot (unsigned s, unsigned unit);

static inline unsigned
u0 (uint64_t offset)
{
  return (unsigned) (offset / UNIT);
}

static inline bool
map_bit (const uint8_t *map, bool bad, uint64_t i)
{
  return bad || (map[i / 8] >> (i % 8) & 1);
}

/* --- mirror_prod.c ----------------------------------------------------------------------------- */
extern void feed (struct repl_event *ev);
extern void start_verify (bool repair);
extern void client (void);
extern void local_done (struct sev *e);
extern void resync_read (const struct sev *e);

/* --- mirror_link.c ----------------------------------------------------------------------------- */
extern void link_down (unsigned s, const char *why);
extern void push_fwd (unsigned s, struct msg *m);
extern void push_record (unsigned s);
extern void try_connect (void);
extern void deliver_fwd (const struct sev *e);
extern void deliver_back (const struct sev *e);
extern void drained (const struct sev *e);

/* --- mirror_copy.c ----------------------------------------------------------------------------- */
extern void go_back (unsigned s, struct msg *m);
extern void copy_feed (unsigned s, struct copy_event *ev);
extern void copy_start (unsigned s);
extern void flush (struct disk *d, const stamp_t *snapshot);
extern void copy_op_done (unsigned s, struct copyop *o, bool die);
extern void copy_die (unsigned s, bool power);

/* --- mirror_group.c ---------------------------------------------------------------------------- */
extern void ctl_propose (void);
extern void ctl_handle (const struct sev *e);
extern void ctl_commit (void);
/* again: after an unclean end of the production before, on the same store. */
extern void prod_start (bool again);
extern void takeover (bool power, bool graceful);

/* --- mirror_check.c ---------------------------------------------------------------------------- */
extern bool is_damaged (unsigned s, unsigned i);
extern void check_read (const struct req *q);
extern void check_disks (void);
extern void check_kept (unsigned s);
extern void note_heard (struct req *q);
extern void check_completed (unsigned slot, int error);
extern struct look *new_look (uint64_t offset, uint64_t length);
extern bool look (const struct disk *d, struct look *l);
extern void digest_of (struct look *l, uint8_t *digests);
extern void check_differs (const struct repl_action *a);
extern void check_tracking (void);
extern void check_waits (void);
extern void check_pace (void);
extern bool last_comparisons (void);

#endif
