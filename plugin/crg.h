/* SPDX-License-Identifier: BSD-3-Clause */
/* The plugin `crg`, a client that follows production: what its files share.
 *
 *   crg.c          nbdkit's side: configuration, one thin function for each request
 *   crg_session.c  a session: libnbd connections, their threads, requests and their answers
 *   crg_find.c     the finder thread: where production is, the next session, what must be written
 *                  again, when a host is given up
 *   crg_state.c    what is on record for the next process (crg_record.h); the status socket
 *   follow.c       the rules (Y1 to Y7)
 *
 * Requests come on nbdkit's worker threads, wait there, and are sent from there; a thread for each
 * connection takes the answers.
 */
#ifndef IASP_CRG_H
#define IASP_CRG_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <libnbd.h>

#include "common/ask.h"
#include "common/util.h"
#include "plugin/follow.h"

struct crg_params {
  char iasp[CRG_NAME_MAX + 1];
  char client[CRG_NAME_MAX + 1];
  struct ask_list nodes;
  char tls_dir[CRG_PATH_MAX + 1];    /* "": none */
  char status_path[CRG_SOCK_PATH_MAX + 1];
  char state_path[CRG_PATH_MAX + 1];
  bool stable;                       /* 'client' was given: its clients may send again, too */
  unsigned connections;
  uint64_t timeout_ms;               /* 0: requests wait for ever */
  uint32_t keep_bytes;
};

struct crg;
struct crg_session;

struct crg_conn {
  struct crg_session *s;
  struct nbd_handle *nbd;
  int fd;      /* a duplicate of its socket, to shut it down by */
  int wake_fd; /* its thread shall look at the handle's direction again */
  _Atomic uint32_t next_bit;
  _Atomic uint32_t to_wake;  /* bits of answered requests that sleep */
  _Atomic uint32_t answered; /* futex: rises when they are woken */
};

struct crg_session {
  struct crg *c;
  uint64_t number;        /* of the core */
  uint64_t name;          /* random, in the export's name */
  _Atomic unsigned refs;  /* current, each request, each thread */
  _Atomic bool broken;
  _Atomic uint64_t answers;
  struct follow_offer offer;
  char host[CRG_NAME_MAX + 1];
  char uri[QUERY_URI_MAX + 1];
  unsigned n;
  struct crg_conn conn[CLIENT_MAX_CONNECTIONS];
};

enum crg_op { CRG_READ, CRG_WRITE, CRG_FLUSH, CRG_TRIM, CRG_ZERO, CRG_CACHE, CRG_EXTENTS };

struct crg_request {
  enum crg_op op;
  void *buf;
  uint64_t offset;
  uint32_t count;
  uint32_t flags;         /* LIBNBD_CMD_FLAG_* */
  uint32_t *extents;      /* EXTENTS: length and flags in turn; the caller's to free */
  size_t n_extents;       /* numbers in it */
  uint64_t covers;        /* FLUSH */
  struct crg_session *s;
  struct crg_request *next, *before; /* changes: in the order of their coming (Y8) */
  struct crg_conn *k;     /* sent on it, when it has a thread */
  uint32_t bit;           /* of its waiting */
  _Atomic uint32_t done;
  int error;
};

enum crg_state { CRG_LOOKING, CRG_REWRITING, CRG_UP, CRG_LOST };

struct crg {
  struct crg_params p;
  struct tlslink_ctx *tls;
  pthread_mutex_t lock;
  pthread_cond_t changed;
  /* under the lock: */
  struct follow f;
  uint8_t *keep;                   /* the core's buffer */
  struct crg_session *current;     /* NULL: none is up */
  enum crg_state state;
  bool stopping;
  bool unknown;                    /* every node was reached, and none knows the IASP */
  unsigned threads;                /* of connections, that have not ended */
  bool has_ended;
  pthread_t ended;                 /* the last one that has, not joined yet */
  char wait_reason[CRG_REASON_MAX + 1]; /* "": nothing is waited for */
  uint64_t wait_since_ms;
  uint64_t down_since_ms;
  struct crg_request *first, *last; /* changes that have no answer yet, the oldest first (Y8) */
  pthread_cond_t let_by;            /* one has gone, and another one waits for that */
  unsigned n_behind;                /* that wait so */
  unsigned n_waiting;
  uint64_t oldest_wait_ms;         /* since when one of them waits */
  uint64_t sessions, resent, rewritten, last_pause_ms, longest_pause_ms;
  uint32_t block_min, block_preferred, block_max;
  char said[CRG_MAX_NODES][CRG_REASON_MAX + 1]; /* by each node, when last asked */
  /* constant after the start: */
  int kick_fd;                     /* the finder has something to do */
  int stop_fd;                     /* can be read from the end on */
  pthread_t finder, status;
  bool has_finder, has_status;
  int status_listen;
};

/* ---- crg_session.c ---- */

/* Does a request, however long it takes: 0 or -errno.  'lane': spreads callers over connections. */
extern int crg_submit (struct crg *c, struct crg_request *r, unsigned lane);
/* Waits until an export was used at least once.  0 or -errno with a sentence. */
extern int crg_wait_attached (struct crg *c, char *err, size_t errlen);
extern void crg_session_put (struct crg_session *s);
/* It is over: nothing is sent in it any more, what had no answer goes to the next. */
extern void crg_session_break (struct crg_session *s, const char *why);
/* Starts the threads of a session whose connections are ready.  0 or -errno. */
extern int crg_session_start (struct crg_session *s);
/* When no session is begun any more and the last one is broken: waits for their threads. */
extern void crg_end_threads (struct crg *c);
/* Sends on a connection that has no thread yet, and waits: 0, an errno, or ENOTCONN. */
extern int crg_conn_do (struct crg_conn *k, const struct crg_request *r, unsigned timeout_ms);

/* ---- crg_find.c ---- */

extern void *crg_finder (void *crg);
extern void crg_kick (struct crg *c);
/* With the lock held: who waits for what is new; logged and shown. */
extern void crg_set_wait (struct crg *c, enum crg_state state, const char *fmt, ...) UTIL_PRINTF (3, 4);

/* ---- crg_state.c ---- */

/* What a process before this one has on record.  1: taken; 0: there is none; -EINVAL and so on
 * with a sentence. */
extern int crg_state_read (struct crg *c, char *err, size_t errlen);
/* Y3: tenure and loss, with what the export is.  0 or -errno. */
extern int crg_state_write (const struct crg *c, const struct follow_offer *o);
extern int crg_status_listen (struct crg *c, char *err, size_t errlen);
extern void *crg_status_thread (void *crg);

#endif /* IASP_CRG_H */
