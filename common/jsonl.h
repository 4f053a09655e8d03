/* SPDX-License-Identifier: BSD-3-Clause */
/* JSON lines over a Unix stream socket: one object, one line, either way.  A bounded reader
 * and a bounded writer that never block on a non-blocking descriptor (the caller owns the
 * event loop), and helpers to listen, connect and ask who the peer is.  One thread at a time
 * for each object; for shells.
 */
#ifndef CRG_JSONL_H
#define CRG_JSONL_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include <jansson.h>

#include "common/limits.h"
#include "common/util.h"

struct jsonl_reader {
  char *buf;
  size_t len, cap; /* bytes held, allocated */
  size_t scanned;  /* of len: known to hold no newline */
  size_t max_line; /* bytes, newline not counted */
  bool failed;
};

struct jsonl_writer {
  char *buf;
  size_t start, len, cap; /* unsent: buf[start .. start + len) */
  size_t max_out;
};

/* max_line 0: JSONL_MAX_LINE.  max_out 0: JSONL_MAX_OUT.  Nothing is allocated yet. */
extern void jsonl_reader_init (struct jsonl_reader *r, size_t max_line);
extern void jsonl_reader_free (struct jsonl_reader *r);
extern void jsonl_writer_init (struct jsonl_writer *w, size_t max_out);
extern void jsonl_writer_free (struct jsonl_writer *w);

/* Takes bytes in.  0; -EMSGSIZE: more than a line and a buffer's worth, -ENOMEM.  After an error
 * the stream can not be trusted: close it. */
extern int jsonl_reader_append (struct jsonl_reader *r, const void *data, size_t len);

/* Reads once from 'fd' (non-blocking or not).  Bytes read; 0 at the end of the stream; -EAGAIN
 * if there is nothing now; -EMSGSIZE, -ENOMEM or the error of read. */
extern ssize_t jsonl_reader_fill (struct jsonl_reader *r, int fd);

/* The next whole object.  1: *obj is it, the caller's to json_decref; 0: none yet; -EMSGSIZE: a
 * line longer than max_line; -EPROTO: not JSON, nested deeper than JSONL_MAX_DEPTH, a duplicate
 * key, or not an object (*error, if not NULL, says what and where).  Blank lines are skipped.
 * After an error every further call returns one. */
extern int jsonl_reader_next (struct jsonl_reader *r, json_t **obj, json_error_t *error);

/* One object, no deeper than JSONL_MAX_DEPTH and no key twice, or NULL and why ('error' may be NULL). */
extern json_t *jsonl_parse (const char *text, size_t len, json_error_t *error);

/* A string of this text.  Text that was cut in the middle of a character, or has other bytes that are
 * no UTF-8, has '?' for them: an answer isn't lost for what it says.  NULL: no memory. */
extern json_t *jsonl_string (const char *text);

/* Queues one object and a newline (NULL: -ENOMEM).  0; -ENOBUFS: the peer does not read, drop it; -ENOMEM;
 * -EMSGSIZE: the line is longer than JSONL_MAX_LINE.  Nothing is queued on an error. */
extern int jsonl_writer_put (struct jsonl_writer *w, json_t *obj);

/* Sends what it can.  0: all sent; 1: some left, wait until writable; -errno: -EPIPE and so on
 * (never a signal). */
extern int jsonl_writer_flush (struct jsonl_writer *w, int fd);

static inline bool
jsonl_writer_pending (const struct jsonl_writer *w)
{
  return w->len > 0;
}

/* A listening socket, close-on-exec and non-blocking, with exactly the permissions 'mode', also
 * for the instant in which it is created.  A stale socket (nobody listens) is replaced; a live
 * one is -EADDRINUSE; another kind of file is -ENOTSOCK.  Else -ENAMETOOLONG or -errno. */
extern int jsonl_listen (const char *path, mode_t mode);

/* Next connection, close-on-exec and non-blocking; -EAGAIN if there is none. */
extern int jsonl_accept (int listen_fd);

/* A blocking, close-on-exec connection; -errno.  -ETIMEDOUT: its queue was full for timeout_ms, which is
 * not 0 (negative: wait for ever). */
extern int jsonl_connect (const char *path, int timeout_ms);

/* Who is at the other end (as of its connect).  0 or -errno. */
extern int jsonl_peer (int fd, pid_t *pid, uid_t *uid, gid_t *gid);

/* For simple clients: send one object, wait for one, whose strings come as they may be shown to people
 * (visible.h).  'r' keeps what came beyond it.  0;
 * -ETIMEDOUT after timeout_ms (negative: wait for ever); -ECONNRESET if the stream ended;
 * otherwise as above. */
extern int jsonl_send (int fd, json_t *obj, int timeout_ms);
extern int jsonl_receive (int fd, struct jsonl_reader *r, int timeout_ms, json_t **obj);

static inline void
cleanup_json_decref (json_t **obj)
{
  json_decref (*obj);
}
#define CLEANUP_JSON __attribute__ ((__cleanup__ (cleanup_json_decref)))

#endif /* CRG_JSONL_H */
