/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The world of crgsim: a whole cluster in one process.  Each node runs the real group core, each
 * plugin the real replication and copy cores, over a simulated engine, network, disks and clocks.
 * The shells here are those of server/ and plugin/ without their system calls, in the same order
 * of actions; each names the file that it stands for.
 *
 * One seed, one history: all that is random comes from world_random (), what goes wrong from
 * (seed, number of the fault), so that leaving out one fault does not change the others.  Nothing
 * here allocates after the start, reads a clock or prints, but for a trace.
 *
 * Each 16 KiB unit of a store holds the stamp of the last write to it.  Stamps rise in the order
 * in which writes are granted, over all tenures, so a smaller stamp is always older data.
 */
#ifndef SIM_WORLD_H
#define SIM_WORLD_H

#include "common/claim.h"
#include "common/judge.h"
#include "common/super.h"
#include "plugin/copy_private.h"
#include "plugin/mark.h"
#include "plugin/repl_private.h"
#include "server/group_private.h"

#define W_NODES 6
#define W_SITES 3
#define W_IASPS 2
#define W_UNIT  16384u
#define W_UNITS 301u /* not a whole number of blocks, nor of hot regions */
#define W_SIZE  ((uint64_t) W_UNITS * W_UNIT)
#define W_BLOCK 65536u
#define W_BLOCKS ((W_UNITS * W_UNIT + W_BLOCK - 1) / W_BLOCK)
#define W_SLOTS 12 /* requests of clients at one IASP */
#define W_ZERO  1u /* bit of a stamp: these bytes read as zeroes */
#define W_FORK  1u /* a stamp older than all: what a detached copy was written */
#define W_META_BLOCKS 128
#define W_CONNS 64
#define W_FRAMES 4096
#define W_DOPS 1024
#define W_MSGS 4096
#define W_MSG_MAX 12288
#define W_INBOX 1024
#define W_OUTBOX 256
#define W_FIFO 1024
#define W_CTL 64
#define W_CALENDAR 16384
#define W_COMMITS 4096
#define W_FENCES 64
#define W_REACH_ALL ((1u << W_NODES) - 1)


#define MS(x) ((uint64_t) (x) * 1000u)

typedef uint32_t stamp_t;

/* ---- what a seed chooses ------------------------------------------------------------------- */

enum fault_kind {
  F_KILL_CRGD, F_KILL_PLUGIN, F_POWER, F_POWER_ALL, F_PAUSE_CRGD, F_PAUSE_PLUGIN, F_CUT, F_CUT_SITES,
  F_ONE_WAY, F_RESET_LINKS, F_SLOW_LINK, F_SLOW_DISK, F_DISK_ERROR, F_BITROT, F_PERSIST_FAIL,
  F_WIPE, F_SWITCHOVER, F_END, F_MARK_FAILED, F_LEAVE, F_FORCE, F_SUSPEND,
  F_FIRST_NEW, F_DISASTER = F_FIRST_NEW, F_DETACH, F_STOP_MACHINE, F_VOTES, F_NODE,
  F_SLOW_CONTROL, F_KILL_FILLING, F_CONTROL, F_ROT_MAP, F_BOTH_OPEN, F_RECOVER, F_KINDS,
};
extern const char *const fault_names[F_KINDS];

/* What a world may be, beside its size; --with and --without name these and the faults. */
enum world_kind { K_FIRST = F_KINDS, K_PEER = K_FIRST, K_ACCESS, K_LEASES, K_FENCE, K_END };
extern const char *kind_name (unsigned kind);
#define KIND(k) (UINT64_C (1) << (k))

struct mix {
  unsigned n_sites, per_site, n_replicates, n_iasps;
  bool peer;                /* K_PEER: nodes of a site that never host */
  bool leases;              /* K_LEASES: lease-ms differs, by node and by start of its crgd */
  bool access;              /* K_ACCESS: each IASP is a unit, and not every node reaches each */
  bool fence;               /* K_FENCE: nodes have a fence hook (S1 d) */
  uint32_t fence_ms;        /* ... which is killed after this */
  unsigned n_peers;         /* that come after the replicates */
  uint8_t peer_site[W_NODES], peers; /* bit set of all of them */
  uint8_t no_store[W_IASPS]; /* bit set of nodes with a site that don't reach it */
  uint8_t order[W_IASPS][W_NODES]; /* K_ACCESS: each one's backup order */
  uint8_t votes[W_NODES];
  uint8_t takeover;
  bool one_machine;         /* all nodes of a site share a machine (S1 b) */
  bool keep_out;            /* what an engine took before a view ended comes out in the next */
  uint32_t token_ms, lease_ms, start_wait_ms, suspend_ms, no_quorum_ms;
  uint32_t net_us, disk_us; /* mean delays */
  uint32_t think_us;        /* of the clients */
  uint32_t gap_ms;          /* between faults */
  uint32_t kill_ppm;        /* death of a crgd at an action boundary */
  uint32_t window_frames;   /* of copies */
  uint8_t fua_percent, flush_percent, read_percent, zero_percent, big_percent, warm_percent;
  uint8_t weight[F_KINDS];
};

/* Instead of the size that the seed chooses. */
struct cluster_size {
  uint8_t sites, per_site, replicates, iasps; /* sites 0: as the seed says; iasps 0: the same */
};

/* ---- parts --------------------------------------------------------------------------------- */

enum wev_kind {
  EV_NONE, EV_ORDER, EV_DELIVER, EV_REFORM, EV_TICK, EV_CTL_DOWN, EV_CTL_UP, EV_SUP, EV_PROBED,
  EV_PTICK, EV_DISK, EV_FWD, EV_BACK, EV_DRAIN, EV_CLOSED, EV_CLIENT, EV_FAULT, EV_UNDO, EV_BOOT, EV_FORGET,
  EV_CTL_LOST, EV_CTL_BREAK, EV_FENCE, EV_KINDS,
};

struct wev {
  uint64_t at, order;
  uint8_t kind, node, iasp, end;
  uint32_t life, a, b;
};

struct wdisk { /* of a site's copy of an IASP; every node of the site reaches it */
  stamp_t cur[W_UNITS];    /* what a read gives */
  stamp_t stable[W_UNITS]; /* what a loss of power leaves */
  uint8_t meta[W_META_BLOCKS][META_BLOCK_SIZE], meta_stable[W_META_BLOCKS][META_BLOCK_SIZE];
  bool meta_unstable[W_META_BLOCKS], meta_rotten[W_META_BLOCKS];
  uint64_t meta_seq[W_META_BLOCKS], seq;
  uint64_t store_bytes;
  uint32_t lock_life;      /* of the plugin that has it open, or writes under way; 0: free */
  uint8_t lock_node;
  bool lock_dying;
  unsigned in_flight;      /* under lock_life */
  uint32_t slow_us;
  unsigned errors;         /* so many of the next writes or flushes fail */
  bool restarted;          /* its machine lost power since it was in sync */
  uint8_t last_machine;    /* that had it open */
  bool rotten;             /* a slot */
  uint8_t both_open;       /* F_BOTH_OPEN: the next claim takes long (1), or doesn't (2) */
};

enum dop_for { DF_LOCAL, DF_RREAD, DF_COPY, DF_META, DF_OPEN, DF_READ, DF_HOT, DF_FORK, DF_DIGEST, DF_CLAIM };
enum dop_what { DW_READ, DW_WRITE, DW_FLUSH, DW_META, DW_FLUSH_META };

struct dop { /* an operation on its way to a disk */
  bool used, void_;
  bool stray;              /* counts for nobody who has the store: a claim, or see disk_is_released () */
  uint8_t what, why, node, iasp, site, stage;
  bool fua;
  uint16_t index;
  uint32_t life;
  uint64_t offset, length;
  uint64_t meta_seq;
  uint32_t block;          /* DW_META */
  stamp_t data[W_UNITS];   /* write: what; flush: what was there when it began */
  uint8_t meta[META_BLOCK_SIZE];
};

struct wframe {
  bool used;
  uint16_t slot;
  uint64_t at;
  uint8_t header[WIRE_HEADER_LEN];
  uint8_t control[WIRE_MAP_BYTES];
  stamp_t data[W_UNITS];
};

struct wfifo {
  uint16_t head, n, q[W_FIFO];
};

struct wconn { /* a connection of a mirror link */
  bool used;
  uint32_t id;
  uint8_t prod, copy, iasp, site;
  uint32_t prod_life, copy_life;
  bool prod_open, copy_open, prod_spoken, copy_spoken, finish;
  uint64_t copy_tenure;
  uint64_t prod_heard_us, copy_heard_us, opened_us;
  struct wfifo fwd, back;
  uint64_t last_fwd_us, last_back_us;
  uint64_t out_used;
};

struct prec { /* plugin/engine_private.h: struct record */
  uint64_t tenure, generation, loss;
  uint32_t in_set, fork, diverged;
  uint32_t fenced;         /* role's extra: nodes marked failed (S1 d) */
  bool accept_loss, forced; /* S2 b, R4 */
  uint8_t production_site, n_sites, exported;
  uint64_t since[W_SITES];
  uint32_t host[W_SITES];
  uint8_t n_past;          /* C9 */
  uint8_t past[CRG_MAX_PAST][CRG_ID_LEN];
  uint64_t past_generation[CRG_MAX_PAST];
};

enum ctl_kind {
  CTL_ROLE, CTL_RECORD, CTL_LEASE, CTL_MIRROR, CTL_UNMIRROR, CTL_HOLD, CTL_RESUME, CTL_QUIT,
  CTL_STATUS,
  CTL_TOLD, CTL_HELD, CTL_QUIT_DONE, CTL_ASKED, CTL_PUSHED, CTL_LEASE_TOLD, CTL_LOST, CTL_BACK,
  CTL_READY, CTL_STORE_FAILED,
};

struct ctlmsg {
  uint8_t kind, role, site, sync, sites;
  bool ok, restarted, unusable;
  uint32_t node, conn, serial;
  uint64_t tenure, seq, until_ms, generation, at;
  uint8_t boot_id[CRG_ID_LEN];
  const char *reason;      /* static */
  struct prec rec;
};

struct ctlq {
  uint16_t head, n;
  uint64_t last_us;
  struct ctlmsg q[W_CTL];
};

enum task_kind { TASK_NONE, TASK_HOLD, TASK_RELEASE, TASK_QUIT, TASK_PROMOTE };
enum task_phase { TP_DRAIN, TP_GATE, TP_STOP, TP_IDLE };

struct wprod_site {
  bool wanted, up;
  uint8_t node;
  uint64_t retry_at_ms, retry_ms;
  uint64_t told_no, told_generation;
  bool mapping;
  bool may_fill;           /* its link came up so that it has to be filled as a whole */
  struct repl_event link_up;
  uint8_t boot_id[CRG_ID_LEN];
  uint32_t conn;           /* index + 1 */
};

struct wplugin { /* plugin/: one nbdkit process */
  bool running, paused, blocked;
  uint32_t life;
  uint8_t node, iasp, site;
  uint8_t lineage[CRG_ID_LEN]; /* lineage= */
  uint64_t session;
  uint8_t role;            /* enum host_role */
  struct prec rec;
  bool open;               /* the store */
  bool is_open_to_clients;
  bool store_told, released;
  uint64_t lease_until_ms, gate_lease_ms;
  struct superblock sb;
  int slot;
  uint32_t ctl_conn;       /* of the present controller; 0: none */
  uint64_t level_no, level_us; /* what it says of a copy, and since when everybody who has to settle it is there */
  uint8_t break_levels;    /* so many of the next words about a copy break the connection */
  bool ctl_broken;         /* ... which hears nothing any more */
  struct ctlq up;          /* to crgd */
  struct { uint8_t kind, phase; bool told, clean; uint64_t since_ms, deadline_ms; struct ctlmsg ask; } task;
  struct ctlmsg opening;
  struct judge judge;      /* of the open store, or of one that is being opened */
  struct judge_start start;
  bool claiming;           /* S1: until the open record is stable */
  bool slow_opening;       /* its way to the disk takes longer than it takes to replace a host */
  struct claim claim;
  struct { /* metaw.c */
    bool busy, is_super, both, want_lazy, want_super;
    uint8_t stage;
    struct copy_action super;
  } metaw;
  struct { /* mapw.c */
    bool on, active, all;
    int error;
    unsigned n_busy;
    struct mark mark;
  } mapw;
  bool store_dead;         /* store_fail: told with the next tick */
  /* production */
  bool prod_on, stepping, drained, held, guarded;
  struct wprod_site ps[W_SITES];
  struct repl_event ev_queue[96];
  unsigned ev_head, ev_n;
  uint64_t rread_offset[REPL_MAX_RSLOTS], rread_length[REPL_MAX_RSLOTS];
  stamp_t rbuf[REPL_MAX_RSLOTS][W_BLOCK / W_UNIT];
  unsigned busy_local, busy_rread, busy_read;
  struct { bool used; uint32_t conn; uint64_t seq; } digest[DIGEST_MAX_JOBS];
  unsigned busy_digest; /* of either role */
  /* mirror */
  bool copy_on, copy_stopping, copy_idle, copy_stepping;
  unsigned n_closed;
  uint32_t closed[8];
  uint16_t op_frame[COPY_MAX_OPS]; /* frame + 1 */
  unsigned busy_copy;
  bool kept;          /* what the store held before it is filled */
  uint64_t exit_at_ms;
  /* big */
  struct repl core;
  uint8_t track[W_SITES][256];
  uint8_t mark_memory[65536] __attribute__ ((__aligned__ (16)));
  uint8_t written_memory[META_BLOCK_SIZE] __attribute__ ((__aligned__ (16)));
  struct copy copy;
};

enum sup_phase { PH_IDLE, PH_STARTING, PH_ASKING, PH_READY, PH_TELLING, PH_QUITTING, PH_TERMING };

struct sup { /* server/supervise.c */
  uint8_t want_role, told_role, telling_role, phase;
  uint64_t want_tenure, told_tenure, telling_tenure;
  bool reported; /* this process has its role, and the group knows */
  bool want_answer, record_due, has_record, lease_due, lease_sent, hold_due, holding, resume_due, resume_owed,
    is_child;
  bool mirror_set[W_SITES], mirror_due[W_SITES], unmirror_set[W_SITES], unmirror_due[W_SITES];
  uint32_t mirror_node[W_SITES];
  uint8_t mirror_sync[W_SITES];
  struct prec record;
  uint64_t record_seq, lease_until_ms, phase_ms, retry_at_ms, call_deadline_ms, hold_deadline_ms;
  unsigned deaths, refusals, asks_lost;
  uint32_t ctl;            /* connection, 0: none */
  uint32_t call;           /* number of the last question or role: the answer to an earlier one is late */
  uint32_t broken;         /* the last one that broke; crgd may not know yet */
  struct ctlq down;        /* to the plugin */
  struct ctlmsg early[PLUGIN_EARLY_EVENTS];
  unsigned n_early;
  struct ctlmsg last_told;
  bool probing;
  bool claimed;
};

struct inbox_entry {
  uint16_t msg;            /* + 1; 0: a view */
  uint16_t members;
  uint64_t ring, seq;
};

struct wnode { /* server/: one crgd, on one machine */
  uint32_t id;
  uint8_t machine;
  bool running, paused, left, tick_pending, deliver_pending, order_pending, adopted;
  uint32_t life;
  uint64_t boots;          /* incarnations */
  bool has_state;
  struct crg_state state;  /* the state file */
  uint64_t promised;
  uint32_t hold_ms;        /* ... with how long leases may run that it has granted (L3) */
  unsigned persist_fails;
  uint64_t ring, delivered;
  uint16_t ring_members;
  uint16_t view_members;   /* of the last view that was delivered */
  bool gone;               /* C7: removed, and has forgotten the CRG */
  uint8_t left_kind;       /* enum leave_kind */
  struct inbox_entry in[W_INBOX];
  unsigned in_head, in_n;
  uint16_t out[W_OUTBOX];
  unsigned out_head, out_n;
  uint64_t tick_us;
  uint64_t seen_serial;
  bool in_step;
  struct group_event events[16];
  unsigned n_events;
  struct sup sup[W_IASPS];
  struct wplugin plugin[W_IASPS];
  struct group g;
};

struct wmachine {
  bool up;
  uint64_t frozen_us;      /* L4: stopped with its clocks since then; 0: it runs */
  uint64_t lag_us;         /* ... and so far behind by that */
  uint64_t old_lease_ms;   /* ... till then, by its own clock, a lease may be of before */
  int64_t offset_ms;
  int32_t ppm;
  uint8_t boot;            /* number of this boot */
};

struct wmsg {
  uint16_t refs;
  uint32_t from;
  uint32_t len;
  uint8_t buf[W_MSG_MAX];
};

struct wclient { /* one request of a client */
  bool busy, abandoned, in_core, stamped, wait_all;
  uint8_t op, node;
  bool is_read;
  uint32_t flags, life, serial;
  uint64_t offset, length;
  stamp_t stamp;
  stamp_t floor[W_UNITS];  /* what was known when it began */
  stamp_t data[W_UNITS];   /* read */
};

struct wfence { /* a fence hook, and what it has asked the power switch for */
  bool runs, cuts;         /* cuts: it is still to come */
  uint8_t by, target, fate, boot;
  uint32_t life, number;   /* life: of the crgd that waits for it */
  uint64_t deadline_ms;    /* ... by its clock */
};

struct wcommit {
  struct stamp stamp;
  uint64_t hash, tenure[W_IASPS]; /* of each unit */
  uint32_t host[W_IASPS];
  unsigned lineage;
};

struct wepoch {
  uint64_t epoch, view;
  uint32_t round;
  unsigned lineage;
};

struct wfault {
  uint8_t kind, node, site, iasp;
  uint32_t a, undo_ms;
};

struct stats {
  uint64_t steps, ms, answered, reads, flushes, faults, commits, takeovers, switchovers, entered, lost,
    power, resyncs, nothing, accepted, rot_found, recovered, not_recovered, fenced, not_fenced, ev[EV_KINDS],
    fault[F_KINDS];
};

struct world {
  uint64_t seed, rng, fault_rng, now_us, order, hash;
  struct mix mix;
  unsigned n_nodes, n_machines;
  bool failed, healing, quiet, trace, verbose;
  bool lying_disks; /* outside the model: a flush is answered, and nothing is flushed */
  bool tail;        /* the last lines of a trace are kept, not printed */
  bool wiped;
  char failure[400];
  struct stats st;

  struct wev heap[W_CALENDAR];
  unsigned n_heap;

  struct wmachine machine[W_NODES];
  struct wnode node[W_NODES];
  struct wdisk disk[W_SITES][W_IASPS];
  uint8_t reach[W_NODES];  /* bit b of [a]: what a sends reaches b */
  uint32_t link_slow_us[W_NODES], control_slow_us[W_NODES];
  uint32_t lives;

  uint64_t rings, ring_seq[1024];
  bool reform_pending;
  uint64_t partitioned_us;
  struct wmsg msg[W_MSGS];
  unsigned msg_next;
  struct wconn conn[W_CONNS];
  uint32_t conn_ids, ctl_ids;
  struct wfence fence[W_FENCES];
  uint32_t n_fences;
  struct wframe frame[W_FRAMES];
  unsigned frame_next;
  struct dop dop[W_DOPS];
  unsigned dop_next;

  struct wclient client[W_IASPS][W_SLOTS];
  uint8_t client_at[W_IASPS]; /* node where the clients believe production to be */
  stamp_t next_stamp[W_IASPS];
  stamp_t floor[W_IASPS][W_UNITS];   /* answered, or read */
  stamp_t ffloor[W_IASPS][W_UNITS];  /* ... and flushed */
  uint64_t top_tenure[W_IASPS];      /* in which something was answered */
  uint64_t loss[W_IASPS];            /* in force */
  uint64_t forced_loss[W_IASPS];     /* the newest that an operator chose (R4) */
  stamp_t tenure_stamp[W_IASPS];     /* last one of the production before */

  struct crg_state created, top;     /* top: the newest committed state that anybody knows */
  bool has_top;
  struct wcommit commits[W_COMMITS];
  unsigned n_commits;
  struct wepoch epochs[W_COMMITS];   /* by their number: the round that each belongs to */
  bool votes_changed;
  uint8_t lineage[CRG_ID_LEN];       /* C9: the last one */
  unsigned n_recovered;
  uint32_t past;                     /* of these lineages somebody who was named as dead has run since, or may */
  uint8_t named, left;               /* nodes: as dead; not */
  uint8_t off, stay_off;             /* machines: until an operator gives up; until those that live go on */
  uint8_t recovered_kept[W_IASPS];   /* sites whose copy had all that was answered when the group was recovered */
  uint64_t recovered_loss[W_IASPS];  /* that came with it */
  unsigned unserved[W_IASPS]; /* how often an operator has seen that a unit's production is not open */
  bool may_differ[W_IASPS][W_SITES][W_BLOCKS]; /* written to since it was known to be equal everywhere */

  struct group_actions gacts;
  struct repl_actions racts, racts_copy;
  struct copy_actions cacts;
};

extern struct world w;

/* ---- world.c ------------------------------------------------------------------------------- */
extern uint64_t world_random (uint64_t below);
extern bool chance (unsigned percent);
extern uint64_t fault_random (uint64_t below); /* of the newer faults: the histories without them stay as they were */
extern uint64_t mix_hash (uint64_t seed, uint64_t n);
extern struct wev *after_us (uint64_t us, enum wev_kind kind);
extern void world_fail (const char *fmt, ...) __attribute__ ((__format__ (__printf__, 1, 2)));
extern void world_trace (const char *fmt, ...) __attribute__ ((__format__ (__printf__, 1, 2)));
#define TRACE(...)          \
  do {                      \
    if (w.trace || w.tail)  \
      world_trace (__VA_ARGS__); \
  } while (0)
extern uint64_t local_ms (unsigned machine);
extern uint64_t node_ms (unsigned node);
extern int site_of_node (unsigned node);
extern bool reaches_store (unsigned node, unsigned iasp);
extern unsigned unit_of (unsigned iasp);
extern void world_print_tail (void);
/* history: another one of the same mix, 0: the seed's own. */
extern void world_init (uint64_t seed, uint64_t history, const struct mix *mix);
extern void world_super (struct superblock *sb, unsigned site, unsigned iasp, const uint8_t lineage[CRG_ID_LEN]);
extern bool world_step (void); /* false: failed, or nothing left */
extern void node_boot_id (unsigned node, uint8_t id[CRG_ID_LEN]);
extern void world_ids (unsigned iasp, uint8_t cluster_id[CRG_ID_LEN], uint8_t crg_id[CRG_ID_LEN],
                       uint8_t iasp_id[CRG_ID_LEN]);

/* ---- ring.c: the group engine -------------------------------------------------------------- */
extern void ring_mcast (unsigned node, const uint8_t *buf, size_t len);
extern void ring_order (unsigned node);
extern void ring_deliver (unsigned node);
extern void ring_changed (bool at_once); /* somebody came, went, or can't hear somebody */
extern void ring_reform (void);
extern void ring_drop (unsigned node);   /* a crgd died: its queues */
extern void ring_wake (unsigned node);

/* ---- crgd.c: server/member.c, probe.c ------------------------------------------------------- */
extern void crgd_boot (unsigned node);
extern uint32_t lease_of_node (unsigned node); /* ms */
extern void crgd_die (unsigned node, bool comes_back);
extern void crgd_feed (unsigned node, struct group_event *ev);
extern void crgd_tick (unsigned node);
extern void crgd_request (unsigned node, enum group_request r, uint32_t arg, uint8_t iasp, uint8_t site);
extern void crgd_hosted (unsigned node, unsigned iasp, unsigned role, uint64_t tenure, bool ok, const char *reason,
                         const struct ctlmsg *info);
extern void crgd_plugin_event (unsigned node, unsigned iasp, const struct ctlmsg *m);
extern void crgd_drained (unsigned node, unsigned iasp, bool ok);
extern void crgd_probed (unsigned node, unsigned iasp);
extern void crgd_forget (unsigned node); /* C7: if it is named no more */
extern void tell_cluster (void);
extern bool map_says (unsigned iasp, unsigned site, unsigned block, bool told);
extern void check_wanted (const struct wplugin *p);
extern void check_differs (unsigned iasp, unsigned site, uint64_t offset, uint64_t length);
extern void check_asked (const struct wplugin *p, unsigned site, uint64_t offset, uint64_t length);
extern void check_unwritten (const struct wplugin *p, unsigned site, uint64_t offset, uint64_t length);
extern void check_resync (const struct wplugin *p, unsigned site, uint64_t offset, uint64_t length);
extern void check_persist (unsigned node);
extern void check_recovered (unsigned node, const struct crg_state *made, unsigned named);
extern void check_message (unsigned node, const uint8_t *buf, size_t len);
extern void check_delivered (unsigned node);
extern void check_send (unsigned node, const uint8_t *buf, size_t len);
extern void check_enter (const struct wplugin *p, unsigned site);
extern void check_enters (const struct wplugin *p);
extern void check_link (const struct wplugin *p, uint64_t tenure, const char *what);
extern void check_host (unsigned node, const struct group_action *a);
extern void check_heard (unsigned node, unsigned iasp, const struct ctlmsg *m);

/* ---- fences.c: server/member.c, fence.c, script.c ------------------------------------------- */
extern void fence_begin (unsigned node, uint32_t target);
extern void fence_cancel (unsigned node); /* its crgd ends, and was not killed */
extern void fence_event (const struct wev *e);

/* ---- supervise.c: server/supervise.c, supervise_ctl.c, pluginctl.c -------------------------- */
extern void sup_timer (unsigned node, unsigned iasp);
extern void sup_message (unsigned node, unsigned iasp);
extern void sup_plugin_died (unsigned node, unsigned iasp);
extern void sup_want (unsigned node, unsigned iasp, unsigned role, uint64_t tenure);
extern void sup_drive (unsigned node, unsigned iasp);
extern void sup_push (unsigned node, unsigned iasp);
extern void sup_unmirror (unsigned node, unsigned iasp, unsigned site);
extern void sup_hold (unsigned node, unsigned iasp);
extern void sup_resume (unsigned node, unsigned iasp);
extern void sup_set_phase (unsigned node, struct sup *s, enum sup_phase phase);
extern void sup_break (unsigned node, unsigned iasp);
extern void sup_lost (unsigned node, unsigned iasp, uint32_t conn);
extern struct ctlmsg *sup_call (unsigned node, unsigned iasp, enum ctl_kind kind);
extern struct ctlmsg *ctl_push (unsigned node, struct ctlq *q, enum ctl_kind kind);

/* ---- plugin.c: plugin/role.c, engine.c, metaw.c -------------------------------------------- */
extern void plugin_start (unsigned node, unsigned iasp);
extern void plugin_die (struct wplugin *p, const char *why);
extern void plugin_command (struct wplugin *p);
extern void plugin_connected (struct wplugin *p, uint32_t conn);
extern void plugin_tick (struct wplugin *p);
extern void plugin_round (struct wplugin *p);
extern void plugin_disk_done (struct wplugin *p, struct dop *d, int error);
extern struct ctlmsg *plugin_say (struct wplugin *p, enum ctl_kind kind);
extern void plugin_store_failed (struct wplugin *p, const char *reason);
extern void metaw_lazy (struct wplugin *p);
extern void metaw_super (struct wplugin *p, const struct copy_action *a);
extern struct wplugin *plugin_of (unsigned node, unsigned iasp);
extern uint64_t plugin_ms (const struct wplugin *p);
extern void plugin_answer (struct wplugin *p, const struct ctlmsg *ask, enum ctl_kind kind, bool ok,
                           const char *reason);
extern void slot_write (struct wplugin *p, enum dop_for why, unsigned stage);
extern void slot_read (const struct wdisk *d, struct superblock *sb, struct super_choice *choice,
                       enum super_status *status);

/* ---- prodside.c: plugin/prod.c -------------------------------------------------------------- */
extern const char *prodside_start (struct wplugin *p, bool equal, bool again);
extern void prodside_stop (struct wplugin *p);
extern void prod_feed (struct wplugin *p, struct repl_event *ev);
extern void prod_tick (struct wplugin *p);
extern void prod_record (struct wplugin *p, uint64_t seen);
extern void prod_lease (struct wplugin *p);
extern void prod_mirror (struct wplugin *p, unsigned site, unsigned node, unsigned sync);
extern void prod_unmirror (struct wplugin *p, unsigned site, const char *reason);
extern void prod_hold (struct wplugin *p, const char *reason);
extern void prod_resume (struct wplugin *p);
extern void prod_tell_levels (struct wplugin *p);
extern void prod_frame (struct wconn *c, struct wframe *f);
extern void prod_closed (struct wconn *c, const char *reason);
extern void prod_drained (struct wconn *c, uint32_t bytes);
extern void prod_disk_done (struct wplugin *p, const struct dop *d, int error);
extern bool prod_is_idle (const struct wplugin *p);
extern void prod_request (struct wplugin *p, unsigned slot);

/* ---- digests.c: plugin/digest.c ------------------------------------------------------------- */
extern bool digests_known (void); /* in this world */
extern void digests_own (struct wplugin *p, const struct repl_action *a);
extern void digests_asked (struct wplugin *p, struct wconn *c, const struct wire_header *h);
extern void digests_done (struct wplugin *p, const struct dop *d, int error);

/* ---- copyside.c: plugin/copyside.c ---------------------------------------------------------- */
extern const char *copyside_start (struct wplugin *p);
extern void copyside_stop (struct wplugin *p);
extern bool copyside_is_idle (const struct wplugin *p);
extern void copyside_record (struct wplugin *p);
extern void copyside_super_done (struct wplugin *p, int error);
extern void copyside_op_done (struct wplugin *p, unsigned op, int error);
extern void copyside_frame (struct wconn *c, struct wframe *f, unsigned index);
extern void copyside_closed (struct wconn *c);
extern void copyside_poll (struct wplugin *p, struct copy_event *poll);
extern void copyside_drop (struct wplugin *p);

/* ---- maps.c: plugin/mapw.c ------------------------------------------------------------------ */
extern void mapw_open (struct wplugin *p, bool production, bool forced);
extern struct mark *mapw_mark (struct wplugin *p);
extern void mapw_write (struct wplugin *p);
extern void check_written (const struct wplugin *p, uint64_t offset, uint64_t length);
extern void mapw_done (struct wplugin *p, int error);
extern void maps_rot (struct wdisk *d, uint32_t a);
extern void copyside_marked (struct wplugin *p, int error);

/* ---- net.c: mirror links -------------------------------------------------------------------- */
extern struct wconn *net_connect (struct wplugin *p, unsigned site, unsigned node);
extern struct wframe *net_frame (const struct wire_header *h, unsigned *index);
extern void net_send (struct wconn *c, bool forward, unsigned frame);
extern void net_deliver (struct wconn *c, bool forward);
extern void net_close (struct wconn *c, bool prod_end, const char *reason); /* this end closes */
extern void net_end_closed (struct wconn *c, bool prod_end);  /* the other end hears of it */
extern void net_tick (struct wconn *c);
extern void net_reset (struct wconn *c);
extern void frame_free (unsigned index);
extern struct wconn *net_conn (uint32_t id);

/* ---- disk.c --------------------------------------------------------------------------------- */
extern void disk_init (struct wdisk *d, const struct superblock *sb);
extern struct dop *disk_op (struct wplugin *p, enum dop_what what, enum dop_for why, unsigned index,
                            uint64_t offset, uint64_t length, bool fua);
extern void disk_done (unsigned dop);
extern void disk_process_gone (struct wplugin *p);
extern void disk_power_lost (unsigned machine);
extern void disk_lose_power (struct wdisk *d);
extern void disk_mark (struct wdisk *d, struct superblock *sb, int newest);
extern bool disk_is_locked (const struct wdisk *d, unsigned machine);
extern bool disk_is_released (struct wdisk *d);
extern void disk_tidy (struct wdisk *d, unsigned node, const uint8_t store_id[CRG_ID_LEN]);
extern uint32_t disk_claim_block (const struct wdisk *d, unsigned place);
extern bool disk_claim (const struct wdisk *d, unsigned place, const uint8_t store_id[CRG_ID_LEN],
                        struct claim_block *c);
extern void disk_slot_block (const struct wdisk *d, unsigned slot, uint32_t *block);

/* ---- opening.c ------------------------------------------------------------------------------ */
extern void opening_begin (struct wplugin *p, const struct ctlmsg *m);
extern void opening_promote (struct wplugin *p, const struct ctlmsg *m);
extern void opening_claim_done (struct wplugin *p, const struct dop *op, int error);
extern void opening_done (struct wplugin *p, int error);
extern void opening_no_role (struct wplugin *p);

/* ---- clients.c ------------------------------------------------------------------------------ */
extern void client_wake (unsigned iasp, unsigned slot, uint32_t serial);
extern void client_answer (struct wplugin *p, unsigned slot, int error);
extern void client_read_done (struct wplugin *p, unsigned slot, int error);
extern void client_plugin_gone (struct wplugin *p);
extern void client_stamp (struct wplugin *p, unsigned slot);

/* ---- check.c -------------------------------------------------------------------------------- */
extern void check_commit (unsigned node);
extern uint32_t unit_host (const struct crg_state *s, unsigned iasp);
extern void check_step (void);
extern void check_copies (void);
extern void check_opened (struct wplugin *p);
extern void check_answer (struct wplugin *p, struct wclient *c);
extern void check_drained (const struct wplugin *p);
extern bool check_healthy (char *why, size_t len);
extern void check_equal (void);
extern const struct iasp_rec *top_rec (unsigned iasp);

/* ---- faults.c ------------------------------------------------------------------------------- */
extern void mix_choose (struct mix *m, uint64_t seed, const struct cluster_size *size);
extern bool kind_is_drawn (uint64_t seed, unsigned kind); /* K_FIRST and so on */
extern bool wants_neighbours (const struct mix *m, uint64_t seed);
extern void mix_kinds (struct mix *m, uint64_t seed, const struct cluster_size *size);
extern unsigned nodes_of_mix (const struct mix *m);
extern bool size_is_possible (const struct cluster_size *size);
extern void fault_make (struct wfault *f, unsigned number);
extern void fault_do (unsigned number);
extern bool (*fault_filter) (unsigned number); /* false: leave it out */
extern void fault_undo (const struct wev *e);
extern void faults_repair (void);
extern void faults_operator (void);
extern uint32_t fault_gap_ms (unsigned number);
extern void faults_heal_network (void);
extern void faults_ask_node (unsigned node, const struct node_change *c);
extern void faults_attend (unsigned node, bool forced); /* what an operator has to do there */
extern void power_off (unsigned machine);
extern void power_on (unsigned machine);

/* ---- recover.c: C9 --------------------------------------------------------------------------- */
extern unsigned lineage_number (const uint8_t lineage[CRG_ID_LEN]);
extern bool is_past (const struct wplugin *p); /* it runs on in a history that an operator gave up */
extern uint32_t recover_stage (const struct wfault *f, unsigned *stage); /* ms until the next one; 0: it was the last */
extern void recover_attend (unsigned node);
extern bool production_in_vain (const struct crg_state *c, unsigned iasp);

/* ---- crgsim.c, shrink.c --------------------------------------------------------------------- */
#define FAULTS_MAX 4096

struct run { /* what the command line says of a history */
  uint64_t seed, history, steps;
  struct cluster_size size;
  uint64_t without, with;  /* kinds of faults, and of worlds */
  bool only;               /* `chosen` is all that happens, else what doesn't */
  bool chosen[FAULTS_MAX];
};
extern struct run run;
extern bool run_history (void); /* true: no rule was broken */
extern bool run_fault (unsigned number); /* does it happen? */
extern void print_mix (const struct mix *m);
extern void shrink (void); /* after run_history () has failed */

#endif
