/* SPDX-License-Identifier: BSD-3-Clause
 *
 * A small world for exhaustive search: real group cores, an engine that orders messages as they
 * are sent in each part of the cluster, one IASP, stores and plugins that answer at once.  Nothing
 * is random: what happens next is what the search chooses.
 *
 * All that decides about the future can be saved, restored and hashed: `small` and, of each group
 * core, the ranges that small_save () takes.  Neither holds a pointer; padding is never anything but
 * zero, as all is cleared once and copied whole; times are absolute, and the present one is part of
 * the hash.  Messages are hashed by content and by their places in the order of all.
 *
 * After each step: at most one node acts as production within its lease; who does has every
 * answered write; equal committed stamps are equal content (C2, C3); nobody is told to host without
 * a majority that holds the state (C4); message 6 reaches each pair of incarnations once.  When nothing
 * is awaited any more: who can serve does, nobody holds I/O, and no operator waits for an answer.
 */
#ifndef SIM_SMALL_H
#define SIM_SMALL_H

#include "server/group_private.h"

#define SMALL_NODES 6
#define SMALL_INBOX 768
/* Not a part of a lease, so that something can happen just before its end. */
#define SMALL_QUANTUM_MS 800
#define SMALL_SETTLED 9 /* quanta after which nothing is awaited any more ... */
#define SMALL_SILENCE 36 /* ... while somebody is silent, who has to be expelled first (C8) */
#define SMALL_OUTBOX 160

/* Why nothing is heard of a node whose processes live. */
enum small_silence {
  SILENT_NOT,
  SILENT_PAUSED, /* its crgd is stopped; its plugin goes on */
  SILENT_FROZEN, /* both are */
  SILENT_MUTE,   /* one-way cut: it hears, and is not heard */
  SILENT_DEAF,   /* ... the other way round */
  SILENT_END,
};

struct small_plugin {
  uint64_t tenure, until_ms, seq, ready_seq[SMALL_NODES];
  bool held, drain;           /* F6: and the answer to that is owed */
  uint8_t role;               /* enum host_role */
  uint8_t set;                /* sites, of the record that it was told */
  uint8_t ready;              /* sites that it asked for (R3), outcome unknown */
  uint8_t lost;               /* ... of which it said that they are lost (R2) */
  uint8_t away[SMALL_NODES];  /* by site: quanta out of reach */
  uint8_t mirror[SMALL_NODES]; /* by site: node told by message 6, 0: none */
};

struct small_store {
  uint64_t generation, tenure;
  bool past;                  /* C9: of the lineage before */
  uint8_t open_by;            /* node + 1 */
  bool unusable, clean;
  bool behind;                /* lacks an answered write */
};

struct small {
  bool up[SMALL_NODES];
  uint8_t part[SMALL_NODES];  /* nodes of one part hear each other */
  uint16_t incarnation[SMALL_NODES];
  uint8_t joins_left[SMALL_NODES];
  uint8_t silent[SMALL_NODES]; /* enum small_silence */
  bool empty[SMALL_NODES];    /* C6, C9: its disk holds no state */
  uint8_t leaving[SMALL_NODES]; /* 1 + enum leave_kind: said in this move */
  uint8_t n_requests;         /* of operators */
  bool recovered;             /* C9 */
  struct small_plugin plugin[SMALL_NODES];
  struct small_store store[SMALL_NODES]; /* by site */
  /* Not hashed as it is: */
  uint16_t inbox[SMALL_NODES][SMALL_INBOX]; /* messages */
  uint16_t last[SMALL_NODES];
  uint16_t outbox[SMALL_NODES][SMALL_OUTBOX]; /* of who is mute */
  uint16_t n_out[SMALL_NODES];
  uint16_t ring[SMALL_NODES]; /* the message that is its newest view */
  uint64_t group_hash[SMALL_NODES];
  uint64_t now_ms;
  uint32_t view;
  uint16_t n_messages;
  uint32_t arena;
  uint8_t quiet;              /* quanta since something went wrong, or right again */
};

/* What becomes of the messages that no member of a side has got when it is cut off. */
enum small_tail {
  TAIL_ALL,   /* that side gets all of them */
  TAIL_NONE,
  TAIL_OWN,   /* those that its members sent */
  TAIL_LATE,  /* ... but behind the new view */
  TAIL_END,
};

extern struct small small;
extern unsigned small_nodes, small_sites;
extern struct group *small_group[SMALL_NODES];
extern char small_failure[256];
extern uint64_t small_steps; /* messages delivered */

extern void small_init (unsigned sites, unsigned per_site, unsigned replicates);
extern void small_end (void);
extern void small_failed (const char *what, unsigned n);
extern uint64_t small_hash (void);

/* Moves.  After any but a delivery and time, `quiet` is 0. */
extern void small_deliver (unsigned n);
extern void small_time (void);
extern void small_join (unsigned n);
/* Its crgd dies, and its plugin too unless `plugin_lives`.  `unsent`: what it has sent and nobody
 * has got is lost, as if it had died before. */
extern void small_die (unsigned n, bool unsent, bool plugin_lives);
/* The nodes of the bit set `side` and the others lose sight of each other. */
extern void small_cut (unsigned side, enum small_tail theirs, enum small_tail others);
extern void small_merge (void);
extern void small_silence (unsigned n, enum small_silence kind);
extern void small_heard_again (unsigned n);
/* An operator asks n; `node` is a node's number, or NO_NODE. */
extern void small_request (unsigned n, enum group_request request, uint32_t node);
/* C9: may n go on without those that are down, who are a majority?  Then it can be made so. */
extern bool small_can_recover (unsigned n);
extern void small_recover (unsigned n);
extern bool small_is_cut (void);
extern bool small_is_silent (void); /* anybody */
extern bool small_can_hear (unsigned n);
extern bool small_has_tail (void); /* is anything under way that not all have? */
extern int small_oldest (void);    /* node whose next message is the oldest, or -1 */

/* Nothing is awaited any more. */
extern void small_check_settled (void);

/* A group core and a state file, saved and restored; facts (what was seen on the way, and binds) are
 * counted back. */
extern size_t small_save_len (void);
extern void small_save (unsigned n, uint8_t *to);
extern void small_restore (unsigned n, const uint8_t *from);
extern size_t small_disk_len (void);
extern void small_save_disk (unsigned n, uint8_t *to);
extern void small_restore_disk (unsigned n, const uint8_t *from);
extern uint64_t small_facts (void);
extern void small_forget_facts (uint64_t n);

#endif
