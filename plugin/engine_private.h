/* SPDX-License-Identifier: BSD-3-Clause */
/* What the files of the engine share: engine.c (thread, requests), role.c (changes of role), opening.c
 * (the store for it), prod.c (the production side), copyside.c (the mirror side), metaw.c (superblocks
 * on their way to disk), mapw.c (maps), control.c (the controller).  Every field is the engine
 * thread's, but for those that say otherwise.
 */
#ifndef IASP_ENGINE_PRIVATE_H
#define IASP_ENGINE_PRIVATE_H

#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>

#include <jansson.h>

#include "common/claim.h"
#include "common/ident.h"
#include "common/judge.h"
#include "common/jsonl.h"
#include "plugin/copy.h"
#include "plugin/copy_private.h"
#include "plugin/digest.h"
#include "plugin/engine.h"
#include "plugin/iasp.h"
#include "plugin/mlink.h"
#include "plugin/repl.h"
#include "plugin/repl_private.h"
#include "plugin/ring.h"
#include "plugin/snapshot.h"
#include "plugin/sop.h"
#include "plugin/storemeta.h"
#include "common/tlslink.h"

/* S1 c: TAKEN: at the device, and the open record doesn't say so yet. */
enum reserved { RESERVED_NOT, RESERVED_TAKEN, RESERVED_RECORDED };

enum role { ROLE_NONE, ROLE_MIRROR, ROLE_PRODUCTION, ROLE_DETACHED };

/* ---- requests ---------------------------------------------------------------------------- */

enum req_state { REQ_PENDING, REQ_ASLEEP /* and its worker sleeps */, REQ_DONE };

struct req_slot {
  struct engine_request rq; /* the worker's until pushed, the engine's until done */
  struct req_slot *next;    /* in the queue to the engine */
  _Atomic uint32_t done;    /* enum req_state */
  int error;
  /* engine: */
  bool in_core;  /* RE_REQUEST was fed, RA_COMPLETE has not come */
  bool answered; /* to be woken when the local part has returned */
  struct sop local;
};

/* ---- the record --------------------------------------------------------------------------- */

struct record {
  uint64_t tenure, generation, loss;
  uint32_t in_set; /* bit s: site s */
  uint8_t production_site;
  uint8_t n_sites;
  uint8_t n_past;
  uint8_t past[CRG_MAX_PAST][CRG_ID_LEN]; /* C9: the lineages before, the last one first */
  uint64_t past_generation[CRG_MAX_PAST]; /* and what was known of them */
  char site[CRG_MAX_SITES][CRG_NAME_MAX + 1];
  char host[CRG_MAX_SITES][CRG_NAME_MAX + 1];
  uint64_t since[CRG_MAX_SITES];
  uint32_t fork, diverged; /* bit s: R6; diverged: it holds what production doesn't know of */
};

/* ---- superblocks on their way to disk ----------------------------------------------------- */

struct metaw {
  struct sop sop;
  bool busy;
  uint8_t stage;  /* 0: idle, 1: flush of the data, 2: first slot, 3: second slot */
  bool is_super;  /* the one under way is of copy_super */
  bool both;
  bool want_lazy; /* sb changed in what may be stored later (R2) */
  bool want_super;
  struct copy_action super; /* CA_SUPER to do */
};

/* ---- maps on their way to disk ------------------------------------------------------------- */

/* Blocks of a map in flight at once. */
#define MAPW_DEPTH 16

struct mapw_io {
  struct sop sop;
  struct engine *e;
  uint8_t *buf;
};

struct mapw {
  bool on;     /* the store's maps are loaded */
  bool production; /* for production */
  bool active; /* a stage is being written */
  bool all;    /* ... and all of it is submitted */
  int error;
  unsigned n_busy, n_damaged;
  struct mark mark;
  void *memory, *written; /* the latter for the map of what was written, if the store has one */
  uint8_t *load; /* while loading: the hot map's payloads */
  struct meta_layout layout;
  struct mapw_io io[MAPW_DEPTH];
};

/* ---- production --------------------------------------------------------------------------- */

#define PROD_RSLOTS  16
/* ... of a store in memory, which is read at once: so few that a round's blocks stay in the
 * processor's cache until they are sent. */
#define PROD_RSLOTS_MEMORY 6
#define PROD_EVENTS  (2 * PROD_RSLOTS + REPL_MAX_ASKS + 64)
/* Ciphertext that waits for the socket of one copy; the window itself is LINK_WINDOW_BYTES. */
#define PROD_OUT_BYTES (4 * 1024 * 1024)

struct prod_site {
  bool wanted; /* MIRROR-START reached and not taken back */
  char node[CRG_NAME_MAX + 1];
  char address[CRG_MAX_ADDRS][CRG_ADDR_MAX + 1];
  unsigned n_addresses, next_address;
  uint16_t port;
  uint64_t retry_at_ms, retry_ms;
  bool up;       /* RE_LINK_UP was fed */
  bool mapping;  /* HELLO_OK came, its map is still coming; then: */
  struct repl_event link_up;
  uint64_t map_from, map_heard_ms; /* mapping: the next piece begins here or later; when the last came */
  uint8_t boot_id[CRG_ID_LEN];
  char why[CRG_REASON_MAX + 1]; /* last reason of a refusal or a broken link */
  uint8_t event_state;          /* last told to the controller */
  uint64_t told_no, told_generation;
};

struct prod_rslot {
  struct sop sop;
  struct engine *e;
  uint8_t *buf;
  uint16_t index;
  uint64_t offset, length;
};

struct prod_event {
  struct repl_event ev;
  char reason[CRG_REASON_MAX + 1];
};

struct prod {
  bool on;
  bool stepping;
  bool drained; /* RA_DRAINED since the last RE_HOLD */
  bool held;
  struct repl *core;
  struct repl_actions *acts;
  uint8_t *track_memory[CRG_MAX_SITES];
  struct prod_site sites[CRG_MAX_SITES];
  struct prod_rslot rslots[PROD_RSLOTS];
  struct sop drain, sync; /* the local parts of REPL_SLOT_DRAIN, REPL_SLOT_SYNC */
  struct prod_event events[PROD_EVENTS]; /* fed while a step's actions are carried out */
  unsigned ev_head, ev_n;
  char hold_reason[CRG_REASON_MAX + 1];
  struct {                               /* the comparison, as its controller knows it (prodverify.c) */
    json_int_t run, refused_run;         /* its numbers of the present or last one, and of one refused */
    uint8_t *memory;
    char refused[CRG_REASON_MAX + 1];
  } verify;
};

/* ---- mirror ------------------------------------------------------------------------------- */

/* Payloads received and not yet written: LINK_WINDOW_BYTES and what pages and direct I/O round
 * up to. */
#define COPY_ARENA_PAGE  4096u
#define COPY_ARENA_BYTES (LINK_WINDOW_BYTES + COPY_MAX_OPS * 2u * COPY_ARENA_PAGE)
#define COPY_ARENA_PAGES (COPY_ARENA_BYTES / COPY_ARENA_PAGE)
#define COPY_OUT_BYTES   TLSLINK_OUT_MIN

struct copy_io {
  struct sop sop;
  struct engine *e;
  uint16_t index;
};

struct listener {
  struct ring_op op;
  struct engine *e;
  int fd; /* -1: none */
  bool busy;
  struct mlink *target; /* the link that the accept will fill */
};

struct copyside {
  bool on;
  bool stepping;
  bool stopping, idle; /* CE_STOP fed; CA_IDLE came */
  uint64_t acked;      /* at the last tick, ... */
  uint64_t same_ms;    /* ... which it is since */
  bool want_poll;
  struct copy *core;
  struct copy_actions *acts;
  struct copy_io ops[COPY_MAX_OPS];
  struct sop sync; /* CA_SYNC */
  uint8_t *arena; /* page aligned */
  uint8_t used[COPY_ARENA_PAGES];
  uint32_t pages[COPY_ARENA_PAGES]; /* length of the run that begins here */
  uint32_t closed[RING_FILES]; /* connections that ended while a step's actions were carried out */
  unsigned n_closed;
  unsigned next_page, n_used;
  struct listener listeners[CRG_MAX_ADDRS];
  uint16_t port;
  uint32_t next_conn;
  unsigned n_peers;
  char peers[CRG_MAX_NODES][CRG_NAME_MAX + 1];
  char refused[CRG_REASON_MAX + 1]; /* last refusal, for status */
  uint32_t map_conn;                /* this link is being sent the map ... */
  uint64_t map_next;                /* ... from this block on */
  bool mapping;
};

/* ---- the controller ----------------------------------------------------------------------- */

#define CONTROL_MAX_CONNS 4

struct control_conn {
  struct ring_op op;
  struct engine *e;
  int fd; /* -1: free */
  bool dead;
  bool polling;
  uint32_t serial;
  struct jsonl_reader in;
  struct jsonl_writer out;
};

struct control {
  int fd;
  struct ring_op op;
  bool polling;
  struct control_conn conns[CONTROL_MAX_CONNS];
  struct control_conn *current;
  uint32_t serial;
};

/* ---- a change of role, or a hold, on its way ------------------------------------------------ */

enum task_kind { TASK_NONE, TASK_HOLD, TASK_RELEASE, TASK_QUIT, TASK_PROMOTE };
enum task_phase { TP_FAST, TP_DRAIN, TP_GATE, TP_STOP, TP_IDLE };

struct task {
  uint8_t kind;  /* enum task_kind */
  uint8_t phase; /* enum task_phase */
  bool clean;    /* drained and flushed */
  bool told;     /* a hold that could not drain in time has been answered */
  uint64_t deadline_ms;
  uint64_t since_ms;
  uint32_t serial; /* of the controller to answer */
  json_int_t id;
  json_t *request; /* TASK_PROMOTE: the command to go on with */
};

/* ---- the engine ----------------------------------------------------------------------------- */

/* How long the thread looks for work before it sleeps: what a wake-up costs is worth it only if
 * something comes within that time. */
struct spin {
  uint32_t expect_us; /* how long the last waits were, the latest with the greatest weight */
  uint32_t skip;      /* sleeps before it tries again */
  uint32_t busy;      /* ... after the next time that others wait for the processor */
};

struct engine {
  struct iasp *ia;
  struct ring ring;
  pthread_t thread;
  bool started;
  sem_t ready;     /* the thread has its ring, or failed with start_error */
  int start_error;
  int efd;
  struct ring_op efd_op;
  uint64_t efd_value;
  _Atomic bool sleeping;
  _Atomic bool stop;
  _Atomic (struct req_slot *) queue; /* workers push, the engine takes all */
  _Atomic uint64_t free_slots[REPL_MAX_SLOTS / 64];
  _Atomic uint32_t slot_freed; /* futex for workers that found no slot */
  _Atomic uint32_t slot_waiters;
  uint64_t slots_full_ms;      /* the engine has seen some at each tick since */
  struct req_slot slots[REPL_MAX_SLOTS];
  _Atomic uint32_t n_waiting;    /* workers in wait_done */
  _Atomic uint32_t answers;      /* futex: rises with each round that answered requests */
  uint32_t answered_mask;        /* FUTEX_WAKE_BITSET of this round */
  struct spin spin;
  struct spin worker_spin; /* of the worker that is alone in wait_done */

  pthread_mutex_t lock; /* guards what engine_may_open and engine_export read: */
  bool may_open;
  _Atomic uint64_t open_tenure; /* 0: closed; read without it, too */
  uint64_t open_loss;
  struct lineage open_lineage;
  bool forced;                  /* R4: of the last opening as production */
  char refusal[CRG_REASON_MAX + 1];

  uint64_t now_ms; /* of this round */
  uint64_t tick_ms;
  uint64_t session;
  uint8_t boot_id[CRG_ID_LEN];
  uint8_t role; /* enum role */
  uint8_t site; /* own index; from the record */
  bool store_told;   /* store-failed was said */
  uint8_t reserved;  /* enum reserved: the device of the open store */
  bool released;     /* the last release of the store by this process was clean */
  bool fast_inside;  /* the gate was open for workers, and has not been seen empty since (take_requests) */
  uint64_t lease_until_ms;
  uint64_t exit_at_ms; /* quit: end the process by then, 0: no */
  char production[CRG_NAME_MAX + 1]; /* node, as last told */
  struct record rec;
  struct storemeta meta;
  struct judge judge; /* of the open store: how it was found, and whether its claim stands */
  struct claim claim;
  struct superblock claimed_sb;
  struct sop_env env;
  struct metaw metaw;
  struct mapw mapw;
  struct tlslink_ctx *tls;
  struct mlink links[RING_FILES]; /* one to each site, then those that came in */
  struct prod prod;
  struct copyside copyside;
  struct digester *digester;
  struct snapshot *snapshot;
  struct control control;
  struct task task;
};

/* engine.c */
extern void engine_answer (struct engine *e, unsigned slot, int error);
extern bool engine_is_idle (struct engine *e); /* no local part is under way */
/* Says once for each opening of the store that it failed (F4). */
extern void engine_store_failed (struct engine *e, int error, const char *reason);
extern void engine_set_open (struct engine *e, bool may_open, const char *refusal);

/* metaw.c: one write at a time; the second kind is only for the mirror's core */
extern int metaw_init (struct engine *e);
extern void metaw_lazy (struct engine *e);
extern void metaw_super (struct engine *e, const struct copy_action *a);
extern bool metaw_is_idle (const struct engine *e);

/* mapw.c */
extern int mapw_init (struct engine *e);
extern void mapw_free (struct engine *e);
/* Takes memory for the maps of the open store and loads them; does nothing for an unmirrored one.
 * forced: nobody knows what the other copies have.  0 or -errno, with a sentence. */
extern int mapw_open (struct engine *e, bool production, bool forced, char *err, size_t errlen);
extern void mapw_close (struct engine *e);
/* How much may be hot: the resync target at the rate that the superblock has. */
extern void mapw_bound (struct engine *e);
extern struct mark *mapw_mark (struct engine *e); /* or NULL */
extern void mapw_write (struct engine *e);
extern bool mapw_is_idle (const struct engine *e);

/* prod.c */
extern int prod_init (struct engine *e);
extern void prod_free (struct engine *e);
/* equal: the copies of the set are.  again: an earlier process of this tenure ended uncleanly, and
 * may have asked for the entry of a copy.  For a detached copy (R6): without links, to track. */
extern int prod_start (struct engine *e, bool equal, bool again, char *err, size_t errlen);
extern void prod_stop (struct engine *e); /* answers what is left, closes the links */
extern bool prod_is_idle (struct engine *e);
extern void prod_request (struct engine *e, unsigned slot);
extern void prod_feed (struct engine *e, struct repl_event *ev);
extern void prod_record (struct engine *e, uint64_t seen);
extern void prod_lease (struct engine *e);
extern void prod_mirror (struct engine *e, unsigned site, const char *node, unsigned sync);
extern void prod_unmirror (struct engine *e, unsigned site, const char *reason);
extern void prod_hold (struct engine *e, const char *reason);
extern void prod_resume (struct engine *e);
extern void prod_tick (struct engine *e);
/* How long, at most so long, may the engine sleep?  Feeds the core what it wanted to be woken for. */
extern uint32_t prod_wait_ms (struct engine *e, uint32_t most_ms);
extern void prod_tell_levels (struct engine *e); /* to a new controller */

/* prodverify.c */
extern void prodverify_do (struct engine *e, const struct repl_action *a);
extern void prodverify_command (struct engine *e, json_t *request, json_int_t id);
extern void prodverify_digest (struct engine *e, const struct digest_job *job);
extern void prodverify_end (struct engine *e); /* with this production */
extern json_t *prodverify_status (struct engine *e); /* or null */

/* copyside.c */
extern void copyside_snapshot (struct engine *e); /* one is done */
extern void copyside_digest (struct engine *e, const struct digest_job *job);
extern int copyside_init (struct engine *e);
extern void copyside_free (struct engine *e);
extern int copyside_start (struct engine *e, char *err, size_t errlen);
extern void copyside_stop (struct engine *e);
extern bool copyside_is_idle (struct engine *e);
extern void copyside_close (struct engine *e); /* after idle: links and listeners */
extern void copyside_record (struct engine *e);
extern void copyside_super_done (struct engine *e, int error);
extern void copyside_marked (struct engine *e, int error);
extern void copyside_round (struct engine *e);
extern void copyside_tick (struct engine *e);

/* opening.c: what common/judge.h says.  Each NULL, or a code, with a sentence. */
/* Opens, locks and judges: after it the store is ours, and nothing of it is written yet. */
extern const char *opening_store (struct engine *e, const struct record *r, uint8_t site, enum role role,
                                  const json_t *request, char *err, size_t errlen);
/* The mirror copy that is open becomes production, if it may. */
extern const char *opening_promote (struct engine *e, const struct record *r, uint8_t site, const json_t *request,
                                    char *err, size_t errlen);
/* The open record, stable in both slots before anything relies on it (R1, S1).  0 or -errno, with a sentence. */
extern int opening_write_record (struct engine *e, char *err, size_t errlen);
extern void opening_give_reservation (struct engine *e);
/* Closes the store, and takes back what said that we were opening it. */
extern void opening_let_go (struct engine *e);

/* role.c */
extern void role_command (struct engine *e, json_t *request, json_int_t id);
extern void role_record_command (struct engine *e, json_t *request, json_int_t id);
extern void role_task (struct engine *e, enum task_kind kind, json_t *request, json_int_t id, uint32_t wait_ms);
extern void role_resume (struct engine *e);
extern void role_round (struct engine *e);

/* control.c */
extern int control_start (struct engine *e, char *err, size_t errlen);
extern void control_stop (struct engine *e);
extern void control_event (struct engine *e, json_t *event); /* steals it */
extern void control_ok (struct engine *e, uint32_t serial, json_int_t id, json_t *fields); /* steals */
extern void control_error (struct engine *e, uint32_t serial, json_int_t id, const char *code,
                           const char *fmt, ...) UTIL_PRINTF (5, 6);
extern void control_round (struct engine *e);
extern void control_tick (struct engine *e);

#endif /* IASP_ENGINE_PRIVATE_H */
