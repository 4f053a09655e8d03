/* SPDX-License-Identifier: BSD-3-Clause */
/* Sessions of clients that follow production (common/query.h: IASP@CLIENT/SESSION).  Such a client
 * sends a request again when it has lost the connection, and later ones after it.  So no request
 * of an older session of that client may reach the store any more once a newer one is let in: it
 * would undo a write that was answered since.
 *
 *   X1  The first connection of a new session bars every other session of the same client: none
 *       of their requests that hasn't begun begins.
 *   X2  It is let in when none of their requests is under way; else it is refused.
 *   X3  A barred session stays barred: a connection of it that comes late is refused.
 *
 * Connections and requests come on the host's worker threads, any number at a time.
 */
#ifndef IASP_SESSION_H
#define IASP_SESSION_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/limits.h"

struct session {
  char client[CRG_NAME_MAX + 1];
  uint64_t id;
  unsigned connections;          /* the table's lock */
  _Atomic bool barred;
  _Atomic uint32_t under_way;    /* requests that have begun */
  struct session_table *table;
  struct session *next;
};

struct session_table {
  pthread_mutex_t lock;
  pthread_cond_t drained; /* a barred session has no request under way */
  struct session *first;
  unsigned n;
};

extern void session_table_init (struct session_table *t);
/* All connections have been closed, or the process ends. */
extern void session_table_destroy (struct session_table *t);

/* A connection of session 'id' of 'client'; waits at most wait_ms for X2.  NULL with a sentence. */
extern struct session *session_join (struct session_table *t, const char *client, uint64_t id, unsigned wait_ms,
                                     char *err, size_t errlen);
/* The connection is closed. */
extern void session_leave (struct session *s);

/* A request begins; false: it must not.  session_end follows each that did. */
extern bool session_begin (struct session *s);
extern void session_end (struct session *s);

#endif /* IASP_SESSION_H */
