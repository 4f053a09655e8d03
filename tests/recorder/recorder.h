/* SPDX-License-Identifier: BSD-3-Clause */
/* The recorder: writes through NBD while things break, keeps a log of what was answered, and
 * judges the log afterwards.  This header holds what its modules share.
 *
 * The log is text, one event a line, each line one write(2) before the next step.  Times are
 * CLOCK_MONOTONIC in ns; an operation is named C.S, connection and sequence number.
 *
 *   run ID blocks=N offset=O connections=C depth=D seed=S
 *   init B HASH                  what block B held before
 *   w T C.S B [fua]              write begins       W T C.S ok|err ERRNO
 *   r T C.S B                    read begins        R T C.S VALUE|err ERRNO
 *   f T C.S                      flush begins       F T C.S ok|err ERRNO
 *   c T C TEXT                   connected, lost, given up
 *   loss T                       told by "recorder loss": all machines lost what was not flushed
 *   end T
 *
 * VALUE is C.S of the write that was seen, "init", or "bad HASH".
 */
#ifndef CRG_RECORDER_H
#define CRG_RECORDER_H

#include <stdbool.h>
#include <stdint.h>

#include "tests/recorder/block.h"
#include "tests/recorder/history.h"

#define REC_MAX_CONNECTIONS 64
#define REC_MAX_DEPTH 64
#define REC_MAX_BLOCKS (1u << 20) /* 4 GiB; bounded by the table of initial values */
#define REC_URI_MAX 1024

/* A value of the history: connection and sequence number of the write. */
#define REC_VALUE(c, s) (((uint64_t) ((c) + 1) << 48) | (s))
#define REC_VALUE_C(v) ((unsigned) ((v) >> 48) - 1)
#define REC_VALUE_S(v) ((v) & ((UINT64_C (1) << 48) - 1))

struct rec_options {
  const char *log;
  const char *uri;          /* fixed, or */
  const char *uri_command;  /* asked on each connect */
  const char *tls_certificates;
  const char *image;        /* check: a file instead of an export */
  unsigned connections, depth;
  uint32_t blocks;
  uint64_t offset;          /* bytes, of block 0 */
  uint64_t count;           /* operations; 0 = until time is over */
  unsigned seconds;
  unsigned rate;            /* operations a second, all connections; 0 = unbounded */
  unsigned reads, fua;      /* percent */
  unsigned flush_every;     /* operations */
  unsigned op_timeout_ms;   /* no answer for so long: ask where production is */
  unsigned drain_ms;        /* at the end, wait so long for answers */
  uint64_t seed;
  unsigned more, timeout_ms; /* wait */
  uint64_t at;               /* loss: ns; 0 = now */
  bool apart;               /* no request on a block while a write of it is in flight */
};

/* The sub-commands; each returns the exit code: 0 good, 1 violation or not reached, 2 trouble. */
extern int rec_run (const struct rec_options *opt);
extern int rec_check (const struct rec_options *opt);
extern int rec_wait (const struct rec_options *opt);

extern int rec_loss (const struct rec_options *opt);

/* A connected handle or NULL, with the reason in 'why'.  Never takes longer than 'timeout_ms'.
 * 'uri' gets the URI that was used. */
struct nbd_handle;
extern struct nbd_handle *rec_connect (const struct rec_options *opt, unsigned timeout_ms,
                                       char uri[REC_URI_MAX], char *why, unsigned why_len);
/* What production's URI is now; -1 if the command fails, says nothing or takes too long. */
extern int rec_ask_uri (const struct rec_options *opt, char uri[REC_URI_MAX]);
extern uint64_t rec_now (void); /* ns, CLOCK_MONOTONIC */

#endif /* CRG_RECORDER_H */
