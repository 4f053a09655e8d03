/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The group state of one CRG: what the members replicate, and nothing else.
 *
 * `struct crg_state` is one value: the definition (recovery domain, IASPs,
 * policies) and the record of each IASP.  It changes only by
 * `state_apply ()`, a pure and deterministic function, so that equal stamps
 * mean equal content on every node (C2, C3).  Nothing here does I/O, reads a
 * clock or allocates; the whole struct can be copied with `=`.
 */
#ifndef CRG_STATE_H
#define CRG_STATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/limits.h"

#define NO_NODE 0u      /* node ids start at 1 */
#define NO_SITE 0xffu   /* a replicate has no site */

/* C1: orders group states; compared by epoch, then version. */
struct stamp {
  uint64_t epoch;
  uint64_t version;
};

enum takeover_order {
  TAKEOVER_SAME_SITE_FIRST, /* F2, default */
  TAKEOVER_ORDER,           /* F2, the patent family's rule */
};

/* How roles come about. */
enum placement {
  PLACEMENT_SITE,   /* Fig. 5: from the recovery domain; all resources move as one */
  PLACEMENT_ACCESS, /* Fig. 4: from what each member finds that it owns or can
                       access; each resource has a backup order and moves by itself */
};

enum member_role {
  MEMBER_PRIMARY,   /* preferred production host */
  MEMBER_BACKUP,
  MEMBER_PEER,      /* access without preference */
  MEMBER_REPLICATE, /* votes, keeps the state, can never host */
};

/* One node of the recovery domain.  `order` is the current backup order (F5),
 * `preferred_order` the configured one; 0 is the first. */
struct domain_node {
  uint32_t id;
  char name[CRG_NAME_MAX + 1];
  uint8_t site;                 /* index into crg_def.sites or NO_SITE */
  uint8_t preferred_role;       /* enum member_role */
  uint8_t votes;
  uint8_t new_votes;            /* C7: equal to votes unless in transition */
  uint8_t order;
  uint8_t preferred_order;
  uint8_t n_addresses;
  char addresses[CRG_MAX_ADDRS][CRG_ADDR_MAX + 1];
  uint64_t expelled;            /* C8: incarnation expelled, or 0 */
  bool marked_failed;           /* F5 */
};

enum resource_type {
  RES_IASP,   /* a disk: one copy a site, mirrored */
  RES_SCRIPT, /* an agent starts and stops it; not mirrored, so it has no mirror
                 copies, no set and no messages 6 (Fig. 4's printer) */
};

struct iasp_def {
  char name[CRG_NAME_MAX + 1];
  uint8_t type;                 /* enum resource_type */
  char agent[CRG_PATH_MAX + 1]; /* SCRIPT: a program, the same path everywhere */
  uint32_t timeout_ms;          /* SCRIPT: hard, of each call of the agent */
  uint8_t id[CRG_ID_LEN];
  uint64_t size;                /* bytes of the export, never changes */
  uint32_t dirty_block;         /* bytes */
  uint16_t mirror_port;
  bool tls;                     /* of the export */
  bool snapshot;                /* keep what a copy holds before it is resynchronised */
  char export[CRG_PATH_MAX + 1]; /* "unix:", "unix:PATH", "tcp:ADDR:PORT" */
  char store[CRG_MAX_NODES][CRG_PATH_MAX + 1]; /* by index in nodes[]; for the shell, which
                                   finds the metadata's place in it too (conf_split_store) */
  uint8_t order[CRG_MAX_NODES]; /* ACCESS: its backup order, as nodes[].order is the
                                   group's; by index in nodes[] */
};

struct crg_def {
  char name[CRG_NAME_MAX + 1];
  uint8_t cluster_id[CRG_ID_LEN];
  uint8_t id[CRG_ID_LEN];
  uint8_t placement;            /* enum placement, never changes */
  uint8_t takeover;             /* enum takeover_order */
  uint32_t suspend_timeout_ms;
  uint32_t no_quorum_timeout_ms; /* 0 = never */
  bool return_store_error;       /* F4: production's to the client, instead of failing over */
  uint8_t resync_share;          /* percent; 0: the plugin's default */
  uint8_t n_sites, n_nodes, n_iasps;
  char sites[CRG_MAX_SITES][CRG_NAME_MAX + 1];
  struct domain_node nodes[CRG_MAX_NODES];
  struct iasp_def iasps[CRG_MAX_IASPS];
};

/* How a detached copy is exported. */
enum detached_export { DETACHED_CLOSED, DETACHED_READ_ONLY, DETACHED_READ_WRITE, DETACHED_END };

/* What a store that was detached may hold beyond what production knows it
 * lacks. */
enum fork_kind {
  FORK_NONE,
  FORK_BEHIND,    /* nothing: it was not written since it left the set */
  FORK_DIVERGED,  /* writes of its own, or of a set that was given up (R4) */
  FORK_END,
};

/* The record, per copy (site) of an IASP. */
struct copy_rec {
  uint32_t host;                /* node id of the single host, or NO_NODE */
  bool in_set;                  /* may take over (R4) */
  uint64_t since;               /* generation at which it entered the set */
  /* R5: while `host` keeps the copy, an opening in this boot of its machine is
   * not a restarted one: it was filled in it, or the loss was accepted. */
  uint8_t boot_id[CRG_ID_LEN];
  bool barred;                  /* F4: no host until an operator clears it */
  bool suspended;               /* not mirrored to, by an operator */
  bool detached;                /* R6: not mirrored to, never in the set */
  uint8_t exported;             /* enum detached_export */
  uint8_t fork;                 /* R6: enum fork_kind, until it enters the set again */
  uint64_t left_ms;             /* when it left the set, wall clock; 0: never was in it.
                                   For people: decides nothing */
  char reason[CRG_REASON_MAX + 1]; /* why it is not in the set / barred */
};

/* The record of an IASP (R1 to R6). */
struct iasp_rec {
  uint64_t tenure;              /* R1: rises when the production host changes, or is forced */
  uint64_t generation;          /* R2: rises when the set shrinks */
  uint64_t loss;                /* answered writes may be gone */
  bool forced;                  /* R4: this tenure was forced by an operator */
  uint8_t production_site;      /* or NO_SITE */
  /* C9: the generation when the group was recovered from the past lineage of that index */
  uint64_t past_generation[CRG_MAX_PAST];
  struct copy_rec copies[CRG_MAX_SITES];
};

struct crg_state {
  struct stamp stamp;
  uint8_t lineage[CRG_ID_LEN];  /* C9 */
  uint8_t n_past;               /* C9: lineages that it was recovered from, ... */
  uint8_t past[CRG_MAX_PAST][CRG_ID_LEN]; /* ... the last one first */
  uint64_t domain;              /* C7: rises with each change of the domain */
  /* S1 d: removed while marked failed.  A store that one of them had open may be opened, until
   * another node of that name is added. */
  uint8_t n_gone;
  char gone[CRG_MAX_GONE][CRG_NAME_MAX + 1]; /* the last one first */
  bool started;                 /* `crgctl start` / `end` */
  bool deleted;
  struct crg_def def;
  struct iasp_rec rec[CRG_MAX_IASPS];
};

/* A change of the group state (C3).  It names what it expects, so that a
 * second proposal of the same change is invalid and applied once. */
enum change_kind {
  CH_START = 1,   /* operator: host things */
  CH_END,         /* operator: host nothing */
  CH_DELETE,
  CH_APPOINT,     /* new production host of a unit: L3, F2, F6.  Its IASPs in mask */
  CH_HOST,        /* new host of a mirror copy, or none: F3 */
  CH_SHRINK,      /* a copy leaves the set: R2 */
  CH_ENTER,       /* a copy enters the set: R3 */
  CH_BAR,         /* F4, and its clearing by an operator */
  CH_EXPEL,       /* C8 */
  CH_MARK_FAILED, /* F5 */
  CH_NODE,        /* C7 */
  CH_RESTARTED,   /* S2 b: the restarted production store is opened, loss rises */
  CH_SUSPEND,     /* operator: mirror to this copy no more; clear: again */
  CH_DETACH,      /* operator: R6; mode says how it is exported; clear: reattach */
  CH_KIND_END,
};

/* C7: nodes come and go without a vote, in one step; votes change in two. */
enum node_op {
  NODE_ADD = 1,
  NODE_REMOVE,
  NODE_SET,
  NODE_FINISH,    /* the second step: the old votes are dropped */
};
#define NODE_SET_ROLE 1u
#define NODE_SET_VOTES 2u
#define NODE_SET_ORDER 4u
#define NODE_SET_ADDRESSES 8u

struct node_change {
  uint8_t op;                   /* enum node_op */
  uint8_t fields;               /* SET: which of node's */
  bool drop_copy;               /* REMOVE: the last node of a site */
  struct domain_node node;      /* its id, and what ADD or SET say */
  char site[CRG_NAME_MAX + 1];  /* ADD: "" for a replicate; a new name is a new
                                   site, and a new copy */
  char store[CRG_MAX_IASPS][CRG_PATH_MAX + 1]; /* ADD */
};

struct change {
  uint8_t kind;                 /* enum change_kind */
  struct stamp base;            /* stamp the proposer saw; must be equal */
  uint32_t iasps;               /* bit set of IASP indices it is about */
  uint8_t site;
  uint32_t node;                /* new host / expelled / marked node */
  uint32_t expect_node;         /* host that it replaces */
  uint64_t expect_tenure;       /* SHRINK, ENTER, BAR */
  uint64_t incarnation;         /* EXPEL */
  uint8_t boot_id[CRG_ID_LEN];  /* ENTER, APPOINT, RESTARTED */
  uint32_t loss_iasps;          /* APPOINT: restarted stores among them (S2 b), or forced */
  uint64_t at_ms;               /* wall clock of the proposer, for people */
  uint16_t present;             /* APPOINT: bit set of present node indices (F5) */
  bool graceful;                /* APPOINT by switchover (F6): set kept */
  bool forced;                  /* R4: operator accepts the loss */
  bool clear;                   /* BAR, MARK_FAILED, SUSPEND, DETACH: undo */
  uint8_t mode;                 /* DETACH: enum detached_export */
  char reason[CRG_REASON_MAX + 1];
  struct node_change node_change; /* NODE */
};

/* Returns NULL if `c` is valid against `s`, else why not (static text). */
/* Is the node at index `node` one that hosts: it has a site, and is no peer? */
extern bool state_may_host (const struct crg_state *s, unsigned node);
extern const char *state_check (const struct crg_state *s,
                                const struct change *c);
/* Applies a change that state_check accepted; version rises by one. */
extern void state_apply (struct crg_state *s, const struct change *c);
/* The state of a new CRG: stamp (1, 0), tenure 1, generation 1, production
 * at the first site of the backup order and only it in the set (R3), the
 * first node of each site named as its host.  Returns NULL or why `def` is
 * refused. */
extern const char *state_create (struct crg_state *s,
                                 const struct crg_def *def,
                                 const uint8_t lineage[CRG_ID_LEN]);
/* True if the nodes in `ids` hold a majority of the configured votes; in a
 * transition of votes a majority of both (C7). */
extern bool state_has_majority (const struct crg_state *s,
                                const uint32_t *ids, unsigned n);
/* C7, state_domain.c.  Are old and new votes carried? */
extern bool state_votes_change (const struct crg_state *s);
extern const char *state_check_node (const struct crg_state *s, const struct node_change *c);
extern void state_apply_node (struct crg_state *s, const struct node_change *c);
/* Moves a node of a unit's backup order to `to`; the others keep their sequence. */
extern void state_move_place (struct crg_state *s, unsigned unit, unsigned node, uint8_t to);
extern int state_site_index (const struct crg_state *s, const char *site); /* or -1 */
/* The nodes of `of` (bits: indices) that are in `s`, where their indices may be others. */
extern uint16_t state_same_nodes (const struct crg_state *s, const struct crg_state *of, uint16_t nodes);
/* C9: a new history without the nodes of the bit set `dead` (indices), in
 * which only `self` votes; `epoch`: the highest that it has promised.  NULL,
 * or why not; then `s` is void. */
extern const char *state_recover (struct crg_state *s, uint32_t self, uint16_t dead,
                                  uint64_t epoch, const uint8_t lineage[CRG_ID_LEN]);
/* S1 d: can writes of a node of that name come no more, as it is, or was when it was removed,
 * marked failed? */
extern bool state_is_fenced (const struct crg_state *s, const char *name);
/* Was the group recovered from this lineage, at some time? */
extern bool state_is_past (const struct crg_state *s, const uint8_t lineage[CRG_ID_LEN]);
/* R2, C9: the newest generation of which a store of this lineage can be and agree with the record: of a past
 * one, what was known of it; 0 for one that is none of ours. */
extern uint64_t state_newest_generation (const struct crg_state *s, unsigned iasp, const uint8_t lineage[CRG_ID_LEN]);
/* The unit that an appointment is about: of the first IASP in its mask. */
extern unsigned state_change_unit (const struct crg_state *s, const struct change *c);
extern int state_node_index (const struct crg_state *s, uint32_t id);
extern uint32_t state_all_iasps (const struct crg_state *s); /* bit set */
/* A movement unit: what has one production host, one tenure, one lease and one
 * backup order.  With PLACEMENT_SITE all IASPs of a CRG are one, unit 0; with
 * PLACEMENT_ACCESS each is one of its own.  So the number of a unit is the index
 * of its first IASP, whose record speaks for it. */
extern unsigned state_units (const struct crg_state *s);
extern unsigned state_unit (const struct crg_state *s, unsigned iasp);
extern uint32_t state_unit_iasps (const struct crg_state *s, unsigned unit); /* bit set */
/* NO_NODE: nobody is named. */
extern uint32_t state_unit_host (const struct crg_state *s, unsigned unit);
extern uint64_t state_unit_tenure (const struct crg_state *s, unsigned unit);
/* The place of a node (index) in the backup order of a unit (F5). */
extern uint8_t state_order (const struct crg_state *s, unsigned unit, unsigned node);
/* Is the production of any unit at this node? */
extern bool state_hosts_production (const struct crg_state *s, uint32_t node);
/* Of the first unit. */
extern uint32_t state_production_host (const struct crg_state *s);
extern uint64_t state_tenure (const struct crg_state *s);
extern int stamp_compare (struct stamp a, struct stamp b);

/* Byte-wise codec, bounded and checked; decode returns 0 or -EBADMSG (as a
 * negative constant of its own: cores know no errno.h).  A decoded state is
 * consistent: every index, count and string is in range. */
#define STATE_EBADMSG 74
#define STATE_ENCODED_MAX (256 * 1024)
#define CHANGE_ENCODED_MAX 4096
extern size_t state_encode (const struct crg_state *s, uint8_t *buf,
                            size_t len); /* 0: does not fit */
extern int state_decode (struct crg_state *s, const uint8_t *buf, size_t len);
extern size_t change_encode (const struct change *c, uint8_t *buf, size_t len);
extern int change_decode (struct change *c, const uint8_t *buf, size_t len);

#endif
