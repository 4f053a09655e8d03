/* SPDX-License-Identifier: BSD-3-Clause */
/* The core of a client that follows production: which export may be used, what has to be sent
 * again, and what is lost.  Pure: no I/O, clock, threads or allocation; the shell (crg_*.c) calls
 * it under one lock and gives it its memory.
 *
 * A session is a set of connections to one run of production.  A request is sent in a session,
 * and sent again in the next one if it had no answer.
 *
 *   Y1  An export of an older tenure than was ever used is never used; nor is one of the lineage
 *       that the one used was recovered from (C9), whatever its tenure.
 *   Y2  All connections of a session are to one tenure, loss and run.
 *   Y3  Tenure and loss are on record before the first request of a session that raises them; a
 *       loss only when everything that has to be sent again for it has an answer.
 *   Y4  An answer counts only while the session that it came from lasts; otherwise the request is
 *       sent again.  ESHUTDOWN is no answer: that production is over, or this session is.
 *   Y5  A flush that was answered covers the writes that were answered before it was sent.
 *       By the record (R3, S1, R5) they are on the host that answers now, whoever answered them, unless
 *       `loss` has risen in between.
 *   Y6  If `loss` has risen, the writes answered since the last good flush are written again, in
 *       their order, before anything else; if they are not all there any more, or more may be
 *       gone than that, everything fails from then on.  So it does under any other lineage: how far
 *       behind the state was that the group was recovered with is known to nobody, and tenure and
 *       loss of two lineages can't be compared.
 *   Y7  An export of another size, or that can less, is not used.
 *   Y8  Changes of the same bytes are sent in the order in which they came, each when the one before
 *       has its answer; none is sent for a connection that is closed.  So a client that sends a
 *       request again to this process (the kernel does) can't be overtaken by its own past.
 */
#ifndef IASP_FOLLOW_H
#define IASP_FOLLOW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/ident.h"

/* What an export can, as far as its clients rely on it. */
#define FOLLOW_CAN_WRITE      0x01u
#define FOLLOW_CAN_FLUSH      0x02u
#define FOLLOW_CAN_FUA        0x04u
#define FOLLOW_CAN_TRIM       0x08u
#define FOLLOW_CAN_ZERO       0x10u
#define FOLLOW_CAN_FAST_ZERO  0x20u
#define FOLLOW_CAN_CACHE      0x40u
#define FOLLOW_CAN_EXTENTS    0x80u
#define FOLLOW_CAN_MULTI_CONN 0x100u

struct follow_offer {
  uint64_t tenure, loss, run;
  uint64_t size;  /* bytes */
  uint32_t flags; /* FOLLOW_CAN_* */
  bool forced;    /* R4 */
  struct lineage lineage; /* zeroes: it doesn't say, and it isn't compared */
};

enum follow_verdict {
  FOLLOW_USE,
  FOLLOW_REWRITE, /* Y6: follow_kept must be written first, then use */
  FOLLOW_OLD,     /* Y1 */
  FOLLOW_OTHER,   /* Y2: not the run of this session's first connection */
  FOLLOW_UNLIKE,  /* Y7 */
  FOLLOW_LOST,    /* Y6: fails for good */
};

enum follow_op { FOLLOW_WRITE, FOLLOW_ZERO, FOLLOW_TRIM };

/* A write that was answered and is not covered by a flush yet. */
struct follow_kept {
  uint64_t number;  /* in the order of the answers, from 1 */
  uint64_t offset;
  uint32_t length;
  uint8_t op;       /* enum follow_op */
  uint8_t no_hole;  /* ZERO: it must not be punched */
  uint32_t at;      /* WRITE: its bytes in the shell's buffer; they don't wrap round its end */
};

struct follow {
  bool attached;            /* an export was used, and the rest of this means something */
  uint64_t tenure, loss;    /* Y1, Y6: highest used */
  struct lineage lineage;   /* Y1, Y6: the last that was said */
  uint64_t size;
  uint32_t flags;
  bool lost;                /* Y6: for good */
  /* the present session */
  uint64_t session;         /* its number, from 1; 0: none */
  uint64_t run;
  /* Y5, Y6 */
  uint64_t answered;        /* number of the last write answered */
  uint64_t flushed;         /* ... that a good flush covers */
  uint64_t forgotten;       /* ... that could not be kept, 0: none */
  struct follow_kept *kept; /* a ring */
  uint32_t n_max, first, n;
  uint32_t bytes_max;       /* of the shell's buffer */
  uint32_t begin, used;     /* of it: where the oldest byte is, how much is taken */
  uint64_t n_forgotten;     /* for status */
};

/* kept[n_max] and a buffer of bytes_max (0: nothing is kept) belong to the core from now on. */
extern void follow_init (struct follow *f, struct follow_kept *kept, uint32_t n_max, uint32_t bytes_max);
/* What a process before this one had on record, of which 'run' and 'forced' don't count; unknown
 * writes of its were answered. */
extern void follow_resume (struct follow *f, const struct follow_offer *o);

/* May this connection be used?  For the first one of a session, or with 'more' another one of the
 * session that began with *first (Y2).  Changes nothing. */
extern enum follow_verdict follow_judge (const struct follow *f, const struct follow_offer *o,
                                         const struct follow_offer *first);
/* The part of it that an answer about an export (query.h) is enough for: USE, OLD or LOST. */
extern enum follow_verdict follow_judge_lineage (const struct follow *f, const uint8_t lineage[CRG_ID_LEN]);
/* The lineage that counts once *o is used; it goes on record with it. */
extern struct lineage follow_lineage (const struct follow *f, const struct follow_offer *o);
/* The session begins: the verdict was USE, or it was REWRITE and that is done; what is on record
 * is on disk (Y3).  Its number. */
extern uint64_t follow_begin (struct follow *f, const struct follow_offer *o);
/* It is over. */
extern void follow_end (struct follow *f);
/* Y6: the verdict was LOST. */
extern void follow_lose (struct follow *f);

enum follow_answer {
  FOLLOW_ANSWER,    /* the request is answered, with *error */
  FOLLOW_SEND_AGAIN,
};

/* Y4: a request of 'session' came back with an errno of NBD (0: done); connection_lost: with none,
 * as its connection broke. */
extern enum follow_answer follow_judge_answer (const struct follow *f, uint64_t session, int error,
                                               bool connection_lost);

/* A write of the present session was answered well: it is kept until a flush covers it.  True: its
 * 'length' bytes (of a WRITE) go to *at in the shell's buffer, now. */
extern bool follow_wrote (struct follow *f, enum follow_op op, uint64_t offset, uint32_t length, bool no_hole,
                          uint32_t *at);
/* A flush is sent now; what it covers. */
extern uint64_t follow_flush_begins (const struct follow *f);
/* It was answered well, and the answer counts. */
extern void follow_flushed (struct follow *f, uint64_t covers);

/* The i-th oldest kept write, or NULL. */
extern const struct follow_kept *follow_kept (const struct follow *f, uint32_t i);
/* Answered writes that no flush covers: kept or not. */
extern bool follow_has_unflushed (const struct follow *f);

extern const char *follow_verdict_text (enum follow_verdict v);

#endif /* IASP_FOLLOW_H */
