/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The group core of one CRG on one node: join (Fig. 4 and 5), commit (C1 to
 * C8), the record (R1 to R4), lease (L1 to L3) and failover (F1 to F6).
 *
 * A pure state machine: `group_step (state, event, actions)`.  No I/O, clock,
 * thread, allocation or callback; `struct group` holds no pointers and can be
 * copied and hashed.  The daemon and the simulator feed the same object file.
 * Actions come in the order in which the shell must carry them out: PERSIST
 * is done (and fsynced) before the SEND that follows it.
 *
 * The rule of the house: nothing outside the group happens before commit
 * (C4).  Whatever the core wants of the world (a copy hosted, a record told
 * to the plugin, a mirror started) is derived from the committed state, level
 * by level, so a lost or repeated event cannot leave it stuck.
 */
#ifndef CRG_GROUP_H
#define CRG_GROUP_H

#include "state.h"

struct group_config {
  uint32_t node_id;
  uint64_t incarnation;      /* random, one a run of crgd; never 0 */
  uint32_t token_ms;         /* C2 timers */
  uint32_t lease_ms;         /* T of L1; other nodes may have another */
  uint32_t hold_ms;          /* L3: group_hold_ms () as it was persisted last; 0: never */
  uint32_t start_wait_ms;    /* cold start: wait for the named host */
  uint8_t boot_id[CRG_ID_LEN]; /* of this machine (R5) */
  bool can_fence;            /* S1 d: GA_FENCE can be carried out */
  char name[CRG_NAME_MAX + 1]; /* an id that was free again may be another
                                node's by now; "": not compared */
};

enum host_role { HOST_NONE, HOST_MIRROR, HOST_PRODUCTION, HOST_DETACHED, HOST_ROLE_END };

enum group_event_kind {
  GE_VIEW = 1,    /* view, members */
  GE_DOWN,        /* no view: engine gone, or this node left */
  GE_MSG,         /* from, buf, len */
  GE_TICK,        /* time passed */
  GE_PROBE,       /* answer to GA_PROBE: iasp, ok, reason, store */
  GE_HOSTED,      /* answer to GA_HOST: iasp, role, tenure, ok, reason, store.
                     ok = false: it hosts nothing now; for HOST_NONE: it isn't
                     gone yet (ok = true as soon as the process is gone).
                     Unasked with ok = false, role HOST_NONE: the plugin died
                     for good.  Unasked with ok = true and its role: it was
                     restarted, or adopted from an earlier run of crgd, and
                     has its role; it is then told record, lease and mirrors
                     again */
  GE_COPY_LOST,   /* plugin: iasp, site, reason, seq: production waits (R2).  The
                     COPY_* are levels: a plugin says those that still stand
                     again to a new crgd that adopts it, in the order of seq */
  GE_COPY_BACK,   /* plugin: iasp, site, seq: the link is back, no removal needed */
  GE_COPY_READY,  /* plugin: iasp, site, boot_id, seq (R3) */
  GE_LINK,        /* plugin: iasp, site, ok: the link to the copy is up, or broke
                     (F7); a level, unknown until it was said */
  GE_DRAINED,     /* answer to GA_HOLD: iasp, ok, reason */
  GE_STORE_FAILED,/* iasp, reason (F4) */
  GE_FENCED,      /* answer to GA_FENCE: node, ok, reason */
  GE_REQUEST,     /* operator: request, request_id, node, forced, dry_run, iasp, site */
  GE_CONFIG,      /* what an agent says of its resource (RES_SCRIPT): iasp, buf,
                     len <= CRG_CONFIG_MAX.  Given by the host before GE_HOSTED,
                     and again on each change; all with access get it (messages
                     4 and 5) as GA_CONFIG */
  GE_REPORT,      /* volatile status of this node for all: buf, len; sent at
                     most ten times a second (GROUP_REPORT_MAX bytes) */
};

enum group_request {
  GR_START = 1, GR_END, GR_DELETE, GR_SWITCHOVER, GR_MARK_FAILED, GR_UNBAR,
  GR_SUSPEND, GR_RESUME, GR_DETACH, GR_REATTACH, /* iasp, site, mode, forced */
  GR_NODE,        /* C7: node_change */
  GR_REQUEST_END,
};

/* What a store says of itself (superblock), for R4, R5, R6, S1. */
struct store_info {
  bool owned;                /* SCRIPT: own(R), it runs here now */
  bool can_host;             /* S1 (a, b): may be opened here and now; true as
                                well if this node's own plugin has it open */
  bool has_super;
  bool agrees_ids;           /* cluster, crg, iasp ids and site are ours */
  bool clean;                /* graceful release */
  bool restarted;            /* R5 */
  bool unusable;             /* target of an unfinished resync */
  bool fork;                 /* R6: the disk says so */
  uint32_t held_by;          /* S1: its opening bars ours; NO_NODE: nobody's.  Of
                                this node's own look only: not announced */
  uint64_t generation, tenure;
  uint8_t lineage[CRG_ID_LEN];
  uint8_t boot_id[CRG_ID_LEN];
  uint64_t size;
  uint8_t sites;             /* HOSTED: of the record that the plugin has; 0: not said.
                                C7: it has no place for others.  Not announced */
};

struct group_event {
  enum group_event_kind kind;
  uint64_t now_ms;           /* CLOCK_BOOTTIME; the core knows no other time */
  uint64_t wall_ms;          /* wall clock, to tell people when; decides nothing */
  uint64_t view;
  uint32_t token_ms;         /* VIEW: the engine's token time, 0: as before */
  uint32_t members[CRG_MAX_NODES];
  unsigned n_members;
  uint32_t from;
  const uint8_t *buf;        /* only during the step */
  size_t len;
  uint8_t iasp;              /* index in def.iasps */
  uint8_t site;
  uint8_t role;              /* enum host_role */
  uint64_t tenure;
  bool ok;
  bool forced;
  bool dry_run;              /* SWITCHOVER: check and answer only */
  uint64_t seq;              /* COPY_*: the plugin's own counter, rising; see
                                GA_RECORD */
  uint64_t generation;       /* COPY_READY: of the record under which it asks; 0: not said */
  uint8_t boot_id[CRG_ID_LEN];
  struct store_info store;
  uint8_t request;           /* enum group_request */
  uint8_t mode;              /* GR_DETACH: enum detached_export */
  uint64_t request_id;
  uint32_t wait_ms;          /* REQUEST, but NODE: not done by then, it is given up; 0: REQUEST_WAIT_MS */
  uint32_t node;
  const struct node_change *node_change; /* GR_NODE; only during the step */
  char reason[CRG_REASON_MAX + 1];
};

/* H7: what message 6 says about the copy. */
enum mirror_sync { SYNC_NONE, SYNC_PARTIAL, SYNC_FULL };

enum group_action_kind {
  GA_PERSIST = 1, /* write group_promised + group_hold_ms + group_applied durably.  On failure
                     drop the rest of this step's actions, leave the group, and
                     begin again from disk as a new incarnation (C6) */
  GA_SEND,        /* multicast buf */
  /* RES_SCRIPT: the agent's call `probe`, `start`, `stop`.  GE_PROBE: ok and
     store.can_host say access(R), "I could start it here"; store.owned says
     own(R), "it runs here".  GA_HOST has the roles PRODUCTION (start) and NONE
     (stop); GE_HOSTED answers when the agent has, or was killed at timeout_ms
     (ok = false: it counts as not running only once `stop` succeeded, so the
     shell answers a failed start after it has stopped what was begun, and a
     failed stop with ok = false; it is asked again).  GA_HOLD is answered at
     once.  GA_LEASE: what still runs when the lease ends is stopped. */
  GA_PROBE,       /* probe iasp's store -> GE_PROBE */
  GA_HOST,        /* make it so: iasp in role (NONE stops it), tenure -> GE_HOSTED.
                     DETACHED: exported as the committed record says; NONE comes
                     before it is exported in another way.
                     Those of one iasp are carried out in order; HOST_NONE may
                     follow before the one before it was answered */
  GA_RECORD,      /* tell the plugin the committed record of iasp.  `seq`: the
                     outcome of every COPY_* event up to it is known, nothing
                     is in flight.  R3: after copy-ready or copy-lost for X the
                     plugin takes "X isn't in the set" as the outcome only from
                     a record whose seq covers that event; an older record may
                     cross with it */
  GA_MIRROR_START,/* message 6 reached: iasp, site, node, sync.  On production:
                     connect; on the copy: expect.  Emitted again, to the end
                     concerned, after a plugin was restarted: level, not edge */
  GA_UNMIRROR,    /* host of iasp's copy at site is gone */
  GA_LEASE,       /* until_ms: absolute CLOCK_BOOTTIME (L1); iasp: of which unit, so of
                     its IASPs and no others */
  GA_HOLD,        /* hold, drain, flush iasp -> GE_DRAINED (F6) */
  GA_FENCE,       /* S1 d: cut `node` from its stores -> GE_FENCED */
  GA_RESUME,      /* switchover given up, named again (F6) */
  GA_REPLY,       /* to request_id: code (exit code of crgctl), reason */
  GA_CONFIG,      /* message 4/5 delivered here: configuration of iasp, node =
                     host; RES_SCRIPT: off, len: its text */
  GA_LEAVE,       /* leave the group (C6: fsync failed; deleted, or this node
                     was removed: forget).  role: enum leave_kind */
  GA_DOMAIN,      /* C7: a change of the domain is committed: tell the cluster,
                     and take names and addresses from the committed state */
  GA_NOTE,        /* for log and trace: note id, text */
};

enum leave_kind {
  LEAVE_AGAIN,    /* and join again, as a new incarnation */
  LEAVE_DELETED,  /* the CRG is deleted */
  LEAVE_REMOVED,  /* C7: this node is not in the domain any more */
  LEAVE_LINEAGE,  /* C9: what it holds is of the past; join as an empty node */
};

struct group_action {
  uint8_t kind;              /* enum group_action_kind */
  uint8_t iasp, site, role;
  uint32_t node;
  uint64_t tenure;
  uint64_t until_ms;         /* GA_LEASE; GA_HOST(PRODUCTION): lease now valid */
  uint64_t request_id;
  uint64_t seq;              /* GA_RECORD */
  uint8_t sync;              /* GA_MIRROR_START: enum mirror_sync (H7) */
  int code;
  uint32_t off, len;         /* GA_SEND, GA_CONFIG: bytes in group_actions.bytes */
  char reason[CRG_REASON_MAX + 1];
};

#define GROUP_REPORT_MAX 4096
/* C7: an added node has so long to join before its request is answered. */
#define DOMAIN_JOIN_MS 60000
/* How long a request is pending whose asker named no time. */
#define REQUEST_WAIT_MS 60000
#define GROUP_MAX_ACTIONS 64
#define GROUP_BYTES_MAX (STATE_ENCODED_MAX + 128 * 1024)
struct group_actions {
  unsigned n;
  struct group_action a[GROUP_MAX_ACTIONS];
  size_t used;               /* of bytes[]; GA_SEND messages live here */
  uint8_t bytes[GROUP_BYTES_MAX];
};

struct group;                /* defined in group_private.h: cores, tests and
                                the simulator may embed it by value */

/* `persisted` NULL: no, or a damaged, state file: no vote (C6). */
extern void group_init (struct group *g, const struct group_config *cfg,
                        const struct crg_state *persisted, uint64_t promised,
                        uint64_t now_ms);
extern void group_step (struct group *g, const struct group_event *ev,
                        struct group_actions *out);

/* Read-only views for the shell, status and tests. */
extern const struct crg_state *group_committed (const struct group *g); /* or NULL */
extern const struct crg_state *group_applied (const struct group *g);   /* to persist */
extern uint64_t group_promised (const struct group *g);
/* To persist with it: for so long after a start this node holds back, as a lease that it
 * has granted before may still run (L3). */
extern uint32_t group_hold_ms (const struct group *g);
/* Was the present tenure of a unit begun by a switchover?  False if this node can't know. */
extern bool group_was_graceful (const struct group *g, unsigned unit);
extern uint64_t group_next_tick_ms (const struct group *g); /* when TICK is due */
extern size_t group_sizeof (void);  /* for a shell that allocates one */
/* The last report of a node (GE_REPORT), or NULL; age_ms tells how old. */
extern const uint8_t *group_report (const struct group *g, uint32_t node,
                                    uint64_t now_ms, size_t *len,
                                    uint64_t *age_ms);

enum group_phase {
  PHASE_NO_VIEW,   /* engine gone */
  PHASE_ANSWERING, /* C2: waiting for answers, or no majority is there */
  PHASE_PROMISING, /* C2: START reached, waiting for promises */
  PHASE_COMMITTING,/* C3: GROUP-STATE reached, not committed yet */
  PHASE_STARTED,   /* a GROUP-STATE is committed in this view */
};

enum group_condition {
  COND_INACTIVE,   /* created, not started */
  COND_WAITING,    /* started; production of some unit is not served: see the reason */
  COND_ACTIVE,     /* production is served, of all units */
  COND_INDOUBT,    /* no view or no majority: nothing can change */
  COND_ENDED,      /* deleted */
};

struct group_node_status {
  uint32_t id;
  bool in_view, present;      /* present: in the view, answered, not expelled */
  uint64_t incarnation;
  uint8_t order;
  bool announced;
};

/* What a node said of one IASP in its last message 3 (ANNOUNCE). */
struct group_host_status {
  bool probed;                /* `store` and `can_host` mean something */
  bool can_host;
  uint8_t role;               /* enum host_role that it hosts now */
  bool opened;                /* the plugin said that it is open in that role; with HOST_NONE: it
                                 is being closed */
  bool failed;                /* it couldn't host; see reason */
  uint64_t tenure;            /* open: of its role; else the one for which it
                                 looked, as named host, after all leases
                                 before were over or released */
  struct store_info store;
  char reason[CRG_REASON_MAX + 1];
};

struct group_counters {
  uint64_t group_state;       /* first of this incarnation, from another node */
  uint64_t config;            /* messages 4 and 5 that reached this node */
  uint64_t mirror_start;      /* message 6 that reached this copy host */
  uint64_t views, rounds, commits, changes, proposals;
  uint64_t dropped;           /* of another view or lineage (H5), or expelled */
  uint64_t bad_messages;      /* undecodable */
  uint64_t illegal;           /* events and messages that make no sense here */
  uint64_t renew, renewed, alive;
};

struct group_status {
  enum group_phase phase;
  enum group_condition condition;
  bool majority;              /* members that answered hold a majority */
  bool has_state, votes;      /* C6 */
  uint64_t view, round, promised;
  struct stamp applied, committed;
  unsigned n_nodes;
  struct group_node_status nodes[CRG_MAX_NODES];
  uint8_t served;             /* bit set of units whose production is served */
  /* By unit: */
  uint32_t lease_holder[CRG_MAX_IASPS];   /* as far as this node knows */
  uint64_t lease_until_ms[CRG_MAX_IASPS]; /* only on the holder itself; else 0 */
  char wait_owner[CRG_NAME_MAX + 1]; /* who waits: "crg", an IASP, a copy */
  char wait_reason[2 * CRG_REASON_MAX + 2]; /* "" : nothing is waited for */
  uint64_t wait_since_ms;
  struct group_counters counters;
};
/* Why a node could not become production host of an IASP now; NULL: it could. */
extern const char *group_refusal (const struct group *g, unsigned iasp, uint32_t node);
/* R4, S2: could an operator let it take over, or serve, by force, and lose something? */
extern bool group_can_force (const struct group *g, unsigned iasp, uint32_t node);
extern void group_status (const struct group *g, uint64_t now_ms,
                          struct group_status *out);
/* Fig. 4: did `node` say in this view that it has access to `iasp`? */
extern bool group_has_access (const struct group *g, uint32_t node, uint8_t iasp);
/* What `node` announced of `iasp` in this view, or NULL. */
extern const struct group_host_status *group_announced (const struct group *g,
                                                        uint32_t node,
                                                        uint8_t iasp);

#endif
