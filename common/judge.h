/* SPDX-License-Identifier: BSD-3-Clause */
/* May a host open a store, as what, and in which order (R1, R4, R5, R6, S1, S2, C9)?  From what was asked,
 * what the superblocks say and how the steps ended comes what is to be done next, what the next
 * superblock says, or why not.
 *
 *   READ  (FORMAT)  RESERVE  CLAIM  READ  OPEN  WRITE  WRITE  GIVE  OPENED
 *
 * A store of several nodes is judged twice, before its claim (claim.h) and with it: another node may
 * have opened it, and let it go, in between.  Up to OPEN nothing of the store is written but the claim.
 * The open record is stable in both slots before anything relies on it; then it speaks for itself, and
 * the claim is given back.
 *
 * Pure: it waits for nobody, writes nothing and knows no time but what it is told.  The plugin carries it
 * out (plugin/opening.c), and crgsim; any thread.
 */
#ifndef CRG_JUDGE_H
#define CRG_JUDGE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/limits.h"
#include "common/super.h"

/* ---- what is asked ------------------------------------------------------------------------- */

struct judge_ask {
  uint8_t role;         /* SUPER_ROLE_MIRROR, SUPER_ROLE_PRODUCTION or SUPER_ROLE_DETACHED */
  uint8_t site;         /* own index, below CRG_MAX_SITES */
  bool forced;          /* R4: by an operator; counts for the first opening of the tenure */
  bool accept_loss;     /* S2 b */
  bool claims;          /* other nodes may open it too: it is claimed (S1) */
  uint8_t n_past;       /* C9: lineages that the group was recovered from */
  /* who asks */
  char node[CRG_NAME_MAX + 1];
  uint8_t boot_id[CRG_ID_LEN];
  uint64_t session;
  /* which store is meant */
  uint8_t cluster_id[CRG_ID_LEN], crg_id[CRG_ID_LEN], iasp_id[CRG_ID_LEN];
  uint8_t lineage[CRG_ID_LEN], past[CRG_MAX_PAST][CRG_ID_LEN];
  uint64_t past_generation[CRG_MAX_PAST]; /* C9: what was known of them */
  uint64_t data_bytes;
  uint32_t dirty_block_size; /* bytes */
  /* the committed record */
  uint64_t tenure, generation, loss;
  uint64_t since;       /* of the own site; 0: not in the set */
  uint32_t in_set;      /* bit s: site s */
  uint32_t fork;        /* bit s: the record knows the copy of site s as a fork (R6) */
  uint64_t lease_until_ms; /* L1: production's, CLOCK_BOOTTIME; 0: none */
};

/* ---- what was read -------------------------------------------------------------------------- */

enum judge_what {
  JUDGE_SUPERBLOCK, /* there is one */
  JUDGE_NONE,       /* there is none */
  JUDGE_FORMATTED,  /* there was none: this one was made, and is not on the store yet */
  JUDGE_OF_ANOTHER, /* there is one, which belongs to another file or device */
  JUDGE_UNREADABLE, /* they can't be read, or not be used */
};

struct judge_found {
  uint8_t what;         /* enum judge_what */
  bool damaged;         /* one of its slots was not what our writer leaves behind */
  bool fenced;          /* S1 d: the node of the open record is marked failed */
  uint64_t store_bytes; /* as the store is now, whole blocks */
};

/* ---- why not --------------------------------------------------------------------------------- */

enum judge_refusal {
  JUDGE_NOT_REFUSED,
  JUDGE_IO,            /* a step failed: `error` */
  JUDGE_DAMAGED,       /* JUDGE_UNREADABLE */
  JUDGE_USED_BEFORE,   /* empty, and the CRG had a production copy */
  JUDGE_OTHER_FILE,    /* JUDGE_OF_ANOTHER */
  JUDGE_OTHER_IASP,    /* another cluster's, CRG's or IASP's */
  JUDGE_OTHER_LINEAGE, /* C9, R6 */
  JUDGE_OTHER_SITE,
  JUDGE_OTHER_SHAPE,   /* made for another size, or other dirty blocks */
  JUDGE_RESIZED,       /* the store is not as large as it was */
  JUDGE_NOT_RELEASED,  /* S1: another node has it open, or had */
  JUDGE_FORK,          /* R6 */
  JUDGE_NEWER_TENURE,  /* R1 */
  JUDGE_NEWER,         /* R6: a copy is newer than the record */
  JUDGE_NO_STATE,      /* detached: there is nothing whole in it to export */
  JUDGE_NOT_IN_SET,    /* R4 */
  JUDGE_UNUSABLE,      /* R4 */
  JUDGE_DISAGREES,     /* R6: production and record */
  JUDGE_RESTARTED,     /* S2 */
  JUDGE_RESERVED,      /* S1 c: the device could not be reserved: `error` */
  JUDGE_CLAIMED,       /* S1: another node's claim, or none of ours where it was */
  JUDGE_ANEW,          /* somebody formatted it while it was opened */
  JUDGE_LATE,          /* S1: the lease ended before the open record was written */
  JUDGE_LATE_RECORD,   /* S1: the lease ended before anybody could know of it */
  JUDGE_N_REFUSALS
};

/* The code of the control protocol (nbdkit-iasp-plugin(1)); "" for JUDGE_NOT_REFUSED. */
extern const char *judge_code (enum judge_refusal refusal);

/* ---- the steps -------------------------------------------------------------------------------- */

enum judge_act {
  JUDGE_READ,    /* read the superblocks anew; judge_read */
  JUDGE_FORMAT,  /* make a superblock, in memory only; judge_read with JUDGE_FORMATTED, or judge_done with the error */
  JUDGE_RESERVE, /* S1 c: reserve the device, if it is to be; judge_done */
  JUDGE_CLAIM,   /* take the claim; judge_done, with -EBUSY if it was refused */
  JUDGE_OPEN,    /* the store is ours: make its maps ready; judge_record, or judge_end */
  JUDGE_WRITE,   /* write the superblock to the slot that is not the newest, stable; judge_done */
  JUDGE_GIVE,    /* give the claim back; judge_done */
  JUDGE_OPENED,  /* that was all */
  JUDGE_REFUSED, /* nothing was opened: `refusal`, and `error` if that has one; let the store go */
};

struct judge {
  struct judge_ask ask;
  uint8_t phase;
  uint8_t refusal;   /* enum judge_refusal */
  bool claimed;      /* S1: the claim stands */
  bool was_clean;    /* it was last closed gracefully */
  bool restarted;    /* R5 */
  int error;         /* -errno */
  uint8_t store_id[CRG_ID_LEN]; /* of the store that was claimed */
  uint64_t seen_session;        /* that had it open, or last, at the first reading */
};

/* now_ms, everywhere: CLOCK_BOOTTIME, taken when the step had ended. */
extern enum judge_act judge_begin (struct judge *j, const struct judge_ask *ask);
/* sb: as read, or made; may get the new lineage (C9), and what a new store's says. */
extern enum judge_act judge_read (struct judge *j, const struct judge_found *found, struct superblock *sb,
                                  uint64_t now_ms);
/* error: 0 or -errno. */
extern enum judge_act judge_done (struct judge *j, int error, uint64_t now_ms);
/* Fills in the open record (S1, R1, R5).  direct: the store bypasses the page cache.  maps: what is written from
 * now on will be in its maps. */
extern enum judge_act judge_record (struct judge *j, struct superblock *sb, bool direct, bool maps);
/* It is not to be opened after all, at any step from JUDGE_OPEN on, or is to be let go. */
extern enum judge_act judge_end (struct judge *j);
/* Instead of judge_begin: a mirror copy that this process has open becomes production.  JUDGE_OPEN or JUDGE_REFUSED. */
extern enum judge_act judge_promote (struct judge *j, const struct judge_ask *ask, const struct superblock *sb);

/* ---- as what production begins ----------------------------------------------------------------- */

struct judge_start {
  bool forced; /* R4: this opening is what the operator forced */
  bool equal;  /* F6: the copies of the set are equal (super_set_is_equal) */
  bool again;  /* not equal, and the store was production's before */
};

/* At JUDGE_OPEN, with the superblock as it is before judge_record. */
extern struct judge_start judge_starts (const struct judge *j, const struct superblock *sb);

#endif /* CRG_JUDGE_H */
