/* SPDX-License-Identifier: BSD-3-Clause
 *
 * A cluster in one process: real group cores, a simulated engine, disks,
 * stores, plugins and clocks, all driven by one seed.  The engine keeps one
 * order in each ring and does what real ones do: own delivery is not commit,
 * the sides of a cut deliver different tails, messages accepted in one view
 * come out in the next, views come several at once, a paused node gets all of
 * it later.  Plugins write and acknowledge, so that a lost write and a second
 * production are seen, not deduced.  After each step the promises are
 * checked; the first breach is kept in `failure`.
 */
#ifndef SIM_CLUSTER_H
#define SIM_CLUSTER_H

#include "server/group_private.h"

#define SIM_NODES 8
#define SIM_SITES 4
#define SIM_IASPS 3

struct sim_config {
  unsigned n_sites, nodes_per_site, n_replicates, n_iasps;
  uint8_t takeover;
  bool access;           /* Fig. 4: each resource moves by itself */
  unsigned no_store[SIM_IASPS]; /* bit sets of nodes that have no store for it */
  unsigned scripts;      /* bit set: these resources are agents, not disks */
  bool started;          /* the CRG was started before the first node came */
  bool one_machine;      /* all nodes share a boot id (S1 b) */
  bool always_adopts;    /* S3: a crgd finds its plugins; else half of them */
  bool fence;            /* nodes can cut each other's power (S1 d) */
  bool calm;             /* fixed clocks, no delays beyond the order */
  uint32_t token_ms, lease_ms, start_wait_ms;
  uint32_t adopt_ms;     /* until a plugin that was found tells its status; 0: any time */
  uint32_t node_lease_ms[SIM_NODES]; /* of those that are configured otherwise; zeroes: lease_ms */
  uint8_t votes[SIM_NODES]; /* zeroes: one each */
};

struct sim_store {
  uint8_t lineage[CRG_ID_LEN];
  bool has_super, clean, unusable;
  bool restarted;        /* R5: was opened so, and not filled since */
  bool fork;             /* R6 */
  uint64_t generation, tenure, data;
  uint64_t flushed;      /* of data: what a power loss leaves */
  bool lost;             /* answered writes are gone from it */
  int open_by;           /* node, or -1 */
  int machine;           /* that had it open last, or -1 */
  uint64_t boot;         /* ... in this boot */
};

struct sim_link {        /* of a production plugin, to a site */
  int node;              /* told by message 6, or -1 */
  bool connected, filling, ready;
  bool lost_said, say_again;
  uint64_t ready_seq;
  uint64_t due_ms;       /* fill done; or suspend timeout */
};

struct sim_plugin {
  bool running;
  bool found;            /* S3: by a crgd that does not know what it is yet */
  uint8_t role;
  uint64_t tenure;
  uint64_t lease_ms;     /* local clock */
  uint64_t seq;
  bool held, has_record;
  bool drain;            /* GA_HOLD waits for its answer */
  bool broken, broken_say; /* its store failed (F4) */
  struct iasp_rec rec;
  struct sim_link link[SIM_SITES];
};

enum sim_pending_kind { SIM_DO_EVENT, SIM_DO_HOST, SIM_DO_ADOPT, SIM_DO_PROBE, SIM_DO_FENCE };
struct sim_pending {
  enum sim_pending_kind kind;
  uint64_t due_ms;
  uint64_t incarnation;  /* of the crgd that asked */
  struct group_event ev;
};

struct sim_msg {
  unsigned refs;
  uint32_t from;
  size_t len;
  uint8_t buf[];
};

struct sim_in {
  struct sim_msg *msg;   /* NULL: a view */
  uint64_t ring, seq;
  uint16_t members;      /* of the view */
};

struct sim_node {
  uint32_t id;
  bool running, paused, machine_up;
  bool left;             /* said GA_LEAVE; restarted by the supervisor */
  uint8_t left_kind;     /* enum leave_kind */
  bool gone;             /* C7: removed, and has forgotten the CRG */
  bool comes;            /* C7: boots when a committed state names it */
  unsigned part;         /* nodes of one part hear each other */
  bool mute;             /* a cut in one direction: it hears, and is not heard */
  int64_t offset_ms;
  int32_t ppm;
  uint64_t boot, incarnation;
  struct group *g;
  bool has_disk;
  struct crg_state disk;
  uint64_t disk_promised;
  uint32_t disk_hold_ms;
  unsigned persist_fails; /* so many of the next fail */
  uint64_t ring, delivered;
  uint16_t ring_members;
  struct sim_in *in;
  unsigned n_in, cap_in;
  struct sim_msg *out[256];
  unsigned n_out;
  struct sim_pending pending[64];
  unsigned n_pending;
  struct sim_plugin plugin[SIM_IASPS];
  uint64_t seen_serial;
  uint64_t restart_ms;   /* when a supervisor starts it again; 0: not */
  int last_code;         /* of the last GA_REPLY; -1: none */
  char last_reason[CRG_REASON_MAX + 1];
  uint64_t action_count;
  bool open_fails, drain_fails; /* its plugins say no */
  bool fence_fails;
  unsigned jams;         /* bit set: resources that it can't reach, or start, now */
  unsigned owns;         /* bit set: scripts that run there, and nobody here started */
  unsigned fenced;       /* so often by others */
  char config[SIM_IASPS][32];   /* messages 4 and 5: of a script, the last */
};

struct sim_commit {
  struct stamp stamp;
  uint64_t hash, tenure[SIM_IASPS]; /* by unit */
  uint32_t host[SIM_IASPS];
};

struct sim {
  struct sim_config cfg;
  uint64_t rng;
  uint64_t now_ms;
  unsigned n_nodes;
  struct sim_node node[SIM_NODES];
  struct crg_state created;
  struct sim_store store[SIM_SITES][SIM_IASPS];
  unsigned n_sites;      /* rises when a site is added (C7) */
  int site[SIM_NODES];   /* of each node; -1: a replicate */
  uint64_t ring_counter;
  uint64_t ring_seq[4096]; /* last ordered, by ring (mod) */
  bool cuts_lose;        /* the sides of a cut keep different tails */
  unsigned kill_ppm;     /* chance of a kill at an action boundary */
  uint64_t sent[MSG_TYPE_END]; /* messages ordered, by type */
  uint64_t write_no, acked[SIM_IASPS], acks;
  uint64_t flush_acked[SIM_IASPS]; /* answered before an answered flush */
  uint64_t loss[SIM_IASPS];        /* the newest that clients were told */
  uint64_t forced_tenure[SIM_IASPS], forced_loss[SIM_IASPS]; /* R4: the newest takeover by force */
  struct sim_commit commits[4096];
  unsigned n_commits;
  bool wiped;            /* a state file was damaged */
  bool failed;
  char failure[512];
  uint64_t steps;
  bool trace;
};

extern void sim_init (struct sim *s, const struct sim_config *cfg, uint64_t seed);
extern void sim_destroy (struct sim *s);
extern uint64_t sim_random (struct sim *s, uint64_t below);

extern void sim_boot (struct sim *s, unsigned n);      /* crgd starts and joins */
extern void sim_kill (struct sim *s, unsigned n);      /* crgd dies; plugins live */
extern void sim_kill_plugins (struct sim *s, unsigned n);
extern void sim_kill_plugin (struct sim *s, unsigned n, unsigned iasp);
extern void sim_power_off (struct sim *s, unsigned n); /* machine: all die */
extern void sim_power_on (struct sim *s, unsigned n);
extern void sim_leave (struct sim *s, unsigned n);     /* dies with its plugins */
extern void sim_pause (struct sim *s, unsigned n, bool paused);
extern void sim_part (struct sim *s, const unsigned part[SIM_NODES]);
extern void sim_heal (struct sim *s);
extern void sim_mute (struct sim *s, unsigned n, bool mute);
extern void sim_request (struct sim *s, unsigned n, enum group_request r, uint32_t node);
extern void sim_force (struct sim *s, unsigned n, uint32_t node); /* R4 */
/* A switchover of the unit of an IASP. */
extern void sim_switch (struct sim *s, unsigned n, unsigned iasp, uint32_t node, bool forced);
/* GR_SUSPEND to GR_REATTACH. */
extern void sim_copy (struct sim *s, unsigned n, enum group_request r, unsigned iasp, unsigned site,
                      enum detached_export mode, bool forced);
extern void sim_unbar (struct sim *s, unsigned n, unsigned iasp, unsigned site);
/* C7: asks node n.  The new node is made at its end of the array; site -1: a
 * replicate; the number of sites: a new one.  Returns its index. */
extern unsigned sim_add (struct sim *s, unsigned n, int site, uint8_t votes);
extern void sim_request_node (struct sim *s, unsigned n, const struct node_change *c);
/* C9: crgd of node n recovers without the nodes of the bit set. */
extern const char *sim_recover (struct sim *s, unsigned n, uint16_t dead);
extern void sim_store_fails (struct sim *s, unsigned n, unsigned iasp);
extern void sim_wipe (struct sim *s, unsigned n);      /* its state file is gone (C6) */

extern bool sim_step (struct sim *s);                  /* false: failed */
extern void sim_run (struct sim *s, uint64_t ms);
/* Runs until `done` says so, at most for ms; returns whether it did. */
extern bool sim_until (struct sim *s, bool (*done) (struct sim *), uint64_t ms);
extern void sim_quiesce (struct sim *s);               /* nothing under way */

extern bool sim_converged (struct sim *s);             /* served, mirrored, agreed */
extern int sim_production (struct sim *s, unsigned iasp); /* serving node, or -1 */
extern void sim_fail (struct sim *s, const char *fmt, ...)
  __attribute__ ((__format__ (__printf__, 2, 3)));
extern void sim_dump (struct sim *s);

#endif
