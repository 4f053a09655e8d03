/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The inside of the group core: `struct group` and the calls between its
 * files.  group.c: events, views, C2 and C3.  lease.c: L1 to L3 and C8.
 * group_host.c: what the committed state wants of this node, level by level.
 * place.c: who should host (F1 to F4), pure.
 * group_domain.c: C7 and C9.
 * group_want.c: what is proposed.  group_request.c: operators'
 * requests and F6.  group_status.c: read-only views.  Only these files, tests
 * and the simulator include it.  No pointers inside: copy with `=`.
 */
#ifndef CRG_GROUP_PRIVATE_H
#define CRG_GROUP_PRIVATE_H

#include "server/group_msg.h"

/* L1, C8: RENEW and ALIVE are sent so many times in one lease time. */
#define LEASE_PARTS 12
/* C8: so many own ALIVEs without one of X: X is silent (two lease times). */
#define ALIVE_SILENT 24
/* A store is probed again so often while something isn't hosted. */
#define PROBE_AGAIN_MS 1000
/* ... and by who could have access to what another hosts (Fig. 4). */
#define PROBE_ACCESS_MS 10000
/* A probe that wasn't answered is asked again: the shell may have lost it. */
#define PROBE_LOST_MS 10000
/* A named host that failed tries again so often while nobody else can. */
#define HOST_RETRY_MS 10000
#define RELEASE_RETRY_MS 1000
/* A fence that failed is tried again. */
#define FENCE_RETRY_MS 30000
#define REPORT_EVERY_MS 100
/* F7: a host that left is waited for until so much of the lease time is over
 * since it was last heard.  The rest, a quarter, is for the appointment of
 * another: that is committed when the old lease ends, so the wait costs a
 * failover nothing. */
#define RETURN_PARTS 9 /* of LEASE_PARTS */
/* Operators' requests that wait for their outcome at one node. */
#define GROUP_MAX_REQUESTS 4

/* A node, as this node knows it.  The first part is of this view. */
struct peer {
  uint32_t id;              /* NO_NODE: free */
  bool in_view;
  bool spoke;               /* incarnation is known */
  uint64_t incarnation;
  bool answered;            /* C2, in this round */
  struct msg_answer answer;
  uint8_t lineage[CRG_ID_LEN]; /* of its answer */
  bool succeeds;            /* C9: its state was recovered from our lineage */
  bool promised;
  struct stamp promised_stamp;
  bool persisted;           /* of the current version */
  /* L3, by unit: */
  uint8_t hold_known;       /* bit set: its PERSISTED covers the appointment ... */
  uint64_t open_ms[CRG_MAX_IASPS]; /* ... and its hold ends then */
  uint32_t longest_ms;      /* so long a lease may run that it has granted, as it said last */
  uint32_t silent;          /* C8: own ALIVEs since its last */
  bool announced;           /* and wasn't asked again */
  bool told;                /* announced anything */
  struct announce announce;
  /* Of this incarnation of ours. */
  bool seen;                /* was in a committed view, or renewed a lease */
  uint64_t heard_ms;        /* F7: its last message */
  /* By unit: */
  uint64_t granted_ms[CRG_MAX_IASPS]; /* L3: when its lease by our answers is over; 0: none */
  uint64_t ack_ms[CRG_MAX_IASPS]; /* L1: the newest RENEW of ours that it answered */
  uint64_t config_got[CRG_MAX_IASPS]; /* its incarnation that got ours ... */
  uint32_t config_got_version[CRG_MAX_IASPS]; /* ... in this version */
  uint32_t report_len;
  uint64_t report_ms;
  uint8_t report[GROUP_REPORT_MAX];
};

/* Message 6 and the link to one copy site, on the production host. */
struct copy_link {
  uint64_t tenure;          /* key of the last MIRROR-START delivered ... */
  uint32_t node;
  uint64_t incarnation;     /* ... of this copy host */
  bool sent;                /* one is under way in this view */
  uint32_t told_node;       /* shell: mirror to this node; NO_NODE: not */
  bool told_gone;           /* ... and that nobody hosts the copy */
  uint64_t told_incarnation;
  bool lost, ready;         /* what the plugin wants (R2, R3) */
  uint64_t ready_generation; /* of the record under which it was ready; 0: not said */
  uint64_t left_generation; /* at which the copy left the set, after the record that had it in was told */
  bool down;                /* F7: the plugin said that the link broke */
  uint8_t ready_boot_id[CRG_ID_LEN];
  char lost_reason[CRG_REASON_MAX + 1];
};

/* One IASP on this node. */
struct hosting {
  uint8_t told_role;        /* enum host_role, last GA_HOST */
  uint64_t told_tenure;
  uint8_t told_export;      /* DETACHED: enum detached_export */
  uint8_t told_sites;       /* C7: it was opened when there were so many */
  bool pending;             /* GE_HOSTED is awaited */
  bool asked;               /* a GA_HOST was given in this incarnation ... */
  bool known;               /* ... and answered: what an earlier run left is known, or gone */
  bool open;                /* the plugin is open in told_role */
  bool let_go;              /* what an earlier run may have held, once (F6) */
  uint8_t closing;          /* enum host_role that HOST_NONE ends */
  bool failed;              /* couldn't host, in this view */
  uint64_t retry_ms;        /* not before */
  bool probing, probe_stale, probed;
  uint64_t probe_tenure;    /* named for this one, and cleared, when asked */
  uint64_t judged_tenure;   /* ... when answered: now it counts (F2) */
  uint64_t probe_ms;
  struct store_info store;
  char reason[CRG_REASON_MAX + 1];
  bool store_failed;        /* F4 */
  bool record_told;
  struct iasp_rec told_record;
  uint64_t seq_seen, seq_told;
  struct copy_link link[CRG_MAX_SITES];
  bool config_sent;         /* one is under way in this view */
  uint32_t config_mine;     /* version of our own configuration: 0, 1, 2 ... */
  uint16_t n_config;        /* SCRIPT: its text */
  uint8_t config[CRG_CONFIG_MAX];
  /* As a member of its site: whose configuration it has. */
  uint32_t config_node;
  uint64_t config_incarnation;
  uint32_t config_version;
  /* As copy host: whose message 6 it has. */
  uint32_t start_node;
  uint64_t start_incarnation, start_tenure;
  uint8_t start_sync;
  bool start_told;
};

/* Of one unit. */
struct lease {
  uint64_t tenure;          /* that the acks are about; 0: not host */
  uint64_t until_ms, told_ms;
  uint64_t renew_ms;        /* next RENEW */
  uint64_t sent_ms;         /* last RENEW */
  uint64_t cleared;         /* L3: every lease before this tenure is over */
  uint64_t released;        /* another host released this tenure */
  uint64_t releasing;       /* we have to release this tenure; 0: nothing */
  bool release_sent;        /* in this view */
  uint64_t seen_tenure;     /* of the last RENEW delivered */
};

enum switch_phase { SWITCH_NONE, SWITCH_HOLDING, SWITCH_APPOINTING, SWITCH_WAITING };

/* One at a time. */
struct switchover {
  uint8_t phase;            /* enum switch_phase */
  uint8_t unit;             /* that moves */
  uint32_t target, origin;
  uint64_t request_id;
  uint64_t epoch, tenure;   /* in which it began */
  uint32_t drained;         /* bit set of IASPs */
  bool proposed;            /* the appointment is out, with this base: */
  uint64_t proposed_view;
  struct stamp proposed_base;
};

struct request {
  bool used;
  uint8_t request;
  uint64_t request_id;
  uint32_t node;
  uint8_t iasp, site, mode; /* SWITCHOVER: iasp tells the unit */
  bool dry_run, forced;
  uint64_t tenure;          /* SWITCHOVER forced: when it was asked for */
  struct node_change node_change; /* NODE */
  uint64_t until_ms;        /* then it is given up */
  bool is_void;             /* MARK_FAILED: the node came back, or may have (S1 d) */
  bool accepting;           /* S2: forced, to the named host: that its machine restarted */
  bool sent;                /* SWITCHOVER: multicast to the production host */
  uint64_t epoch;           /* ... in this epoch */
};

struct group {
  struct group_config cfg;
  uint64_t started_ms, now_ms;
  uint64_t start_hold_ms;   /* L3: when leases that an earlier run may have granted are over */
  uint32_t hold_stored_ms;  /* ... is on disk for the next run */
  uint64_t wall_ms;         /* for people only */
  bool left;                /* nothing more happens: GA_LEAVE was said */

  /* C1: on disk. */
  bool has_state;           /* C6: else no vote and no PROMISED */
  uint64_t promised;
  struct crg_state applied;

  /* The last committed state that this incarnation knows. */
  bool has_committed;
  uint64_t serial;          /* rises with each commit */
  struct crg_state committed;

  /* The view and its round (C2). */
  uint64_t view;
  enum group_phase phase;
  uint32_t round;
  uint64_t round_ms;        /* when it began */
  bool start_sent, start_delivered, round_sent;
  uint64_t start_ms;
  uint64_t epoch;           /* of START */
  uint8_t start_lineage[CRG_ID_LEN];
  bool holder_fixed;
  bool gs_delivered, synced;
  bool gs_committed;        /* the GROUP-STATE of this round */
  bool current_committed;   /* ... and the newest version */
  uint8_t change_kind;      /* of the newest version ... */
  uint64_t change_ms;       /* ... and when it was delivered */
  uint64_t appoint_tenure[CRG_MAX_IASPS]; /* by unit: of the last appointment that
                               was delivered ... */
  uint8_t appoint_graceful; /* bit set: ... which was a switchover (for hooks only) */
  uint64_t appoint_version[CRG_MAX_IASPS]; /* L3: PERSISTED from here on carries the hold */
  uint64_t commit_ms;       /* of the GROUP-STATE */
  uint64_t finish_ms;       /* C7: when the second step of a change of votes may come */
  uint64_t asked_ms;        /* everybody was asked anew what it can host */
  bool got_group_state;     /* counted, once an incarnation */

  struct peer peers[CRG_MAX_NODES];
  struct hosting host[CRG_MAX_IASPS];
  struct lease lease[CRG_MAX_IASPS]; /* by unit */

  uint64_t alive_ms;        /* next ALIVE */
  bool wait_set;
  uint64_t wait_until_ms;   /* start-wait */
  uint8_t warm;             /* bit set of units: an answer has seen a RENEW of this host */

  struct announce announce_sent;
  bool announced;           /* in this view */

  /* Proposals: not twice the same at once (C3). */
  bool proposed;
  uint64_t proposed_ms, proposed_view;
  struct change proposal;
  bool enter_proposed;      /* R3: an ENTER with this base may still come */
  uint64_t enter_view;
  struct stamp enter_base;

  struct request requests[GROUP_MAX_REQUESTS];
  struct switchover sw;

  struct {
    uint32_t node;          /* S1 d: being fenced, or fenced; NO_NODE: nobody */
    bool done;              /* ... and to be marked failed */
    bool is_void;           /* it was in a view meanwhile, and may have opened its store again */
    uint64_t retry_ms;
  } fence;

  uint32_t report_len;      /* GE_REPORT */
  bool report_new;
  uint64_t report_next_ms;
  uint8_t report[GROUP_REPORT_MAX];

  uint32_t wait_key;        /* what status waits for, and since when */
  uint64_t wait_since_ms;

  struct group_counters counters;
  /* Scratch, so that no stack frame is large. */
  struct crg_state scratch;
  struct msg in, out;
  struct announce scratch_announce;
};

/* group.c */
extern void group_persist (struct group *g, struct group_actions *out);
extern struct peer *group_peer (struct group *g, uint32_t id); /* or NULL */
extern const struct peer *group_peer_const (const struct group *g, uint32_t id);
/* In the view, answered, not expelled: counts as there. */
extern bool group_present (const struct group *g, const struct peer *p);
extern bool group_majority (const struct group *g,
                            bool (*has) (const struct group *, const struct peer *));
/* A GROUP-STATE and everything since is committed in this view. */
extern bool group_active (const struct group *g);
/* The next action, zeroed; the caller fills it. */
extern struct group_action *group_act (struct group_actions *out, uint8_t kind);
/* Is there room for wants, which come again by themselves? */
extern bool group_room (const struct group_actions *out);
/* Sends g->out after filling its header. */
extern void group_send (struct group *g, struct group_actions *out, uint8_t type);
extern void group_note (struct group_actions *out, const char *text, uint64_t value);
/* F7: so long is a node that left waited for as host. */
extern uint64_t group_return_until_ms (const struct group *g, const struct peer *p);
extern bool group_is_expelled (const struct crg_state *s, uint32_t id, uint64_t incarnation);
/* What was announced is of the past: everybody, but `keep`, probes and says
 * again what it can host.  Called at the same delivered message everywhere. */
extern void group_ask_again (struct group *g, uint32_t keep);
extern int group_me (const struct group *g); /* own index in committed def, or -1 */

/* group_domain.c */
enum domain_step { DOMAIN_DONE, DOMAIN_WAIT, DOMAIN_CHANGE, DOMAIN_REFUSED };
/* What comes next for an operator's change of the domain: a change, or why it
 * waits or is refused. */
extern enum domain_step domain_next (struct group *g, const struct node_change *want,
                                     struct change *c, const char **why);
extern bool domain_want (const struct group *g, struct change *c);
extern void domain_on_commit (struct group *g, bool first, struct group_actions *out);
extern bool domain_is_past (const struct group *g);

/* group_want.c */
extern void want_settle (struct group *g, struct group_actions *out);

/* lease.c */
extern uint64_t lease_guard_ms (uint32_t lease_ms);
extern uint32_t lease_longest_ms (const struct group *g);
/* L3: has the time passed in which a host may serve by an answer of this node to p? */
extern bool lease_answer_is_over (const struct group *g, const struct peer *p);
extern uint32_t lease_hold_ms (const struct group *g, unsigned unit);
extern void lease_on_renew (struct group *g, struct peer *from, struct group_actions *out);
extern void lease_on_renewed (struct group *g, struct peer *from, struct group_actions *out);
extern void lease_on_alive (struct group *g, struct peer *from);
extern void lease_on_released (struct group *g);
extern bool lease_cleared (struct group *g, unsigned unit);
extern void lease_settle (struct group *g, struct group_actions *out);

/* group_host.c */
extern void host_on_view (struct group *g);
extern void host_void_fence (struct group *g);
extern void host_on_event (struct group *g, const struct group_event *ev,
                           struct group_actions *out);
extern void host_on_announce (struct group *g, struct peer *from);
extern void host_on_config (struct group *g, struct peer *from, struct group_actions *out);
extern void host_on_mirror_start (struct group *g, struct peer *from,
                                  struct group_actions *out);
extern void host_settle (struct group *g, struct group_actions *out);
/* R3: nothing about this IASP is in flight. */
extern bool host_settled (const struct group *g, unsigned iasp);
extern bool host_serves (const struct group *g, unsigned unit); /* production, all its IASPs */
/* R4: is it a takeover by force of a production that said that it serves before the change came?  Then what
 * it has answered since would be lost, though nobody meant that. */
extern bool host_overtakes (const struct group *g, const struct change *c);

/* group_status.c */
extern void group_age_wait (struct group *g);

/* group_request.c */
extern void request_on_event (struct group *g, const struct group_event *ev,
                              struct group_actions *out);
extern void request_on_drained (struct group *g, const struct group_event *ev,
                                struct group_actions *out);
extern void request_on_request (struct group *g, struct peer *from, struct group_actions *out);
extern void request_on_reply (struct group *g, struct peer *from, struct group_actions *out);
extern void request_settle (struct group *g, struct group_actions *out);
/* The change that a pending request or the switchover wants, if any. */
extern bool request_want (struct group *g, struct change *c);
/* S1 d: who was to be marked failed is in the view; or others were a group without this node. */
extern void request_void_marks (struct group *g, bool all);

#endif
