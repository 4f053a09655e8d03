/* SPDX-License-Identifier: BSD-3-Clause
 *
 * A program of the administrator's (a hook, an agent), run beside the main
 * loop: in a session of its own, with an environment that is given whole, its
 * output caught and logged, and a hard end: at its deadline its process group
 * is killed.  The loop never waits for it.  Main loop's thread only.
 */
#ifndef CRG_SCRIPT_H
#define CRG_SCRIPT_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "common/limits.h"

struct qb_loop;
struct script;

struct script_spec {
  char label[CRG_REASON_MAX + 1]; /* in the log, and of what `reason` is about */
  const char *path;
  const char *argument[3];        /* up to the first NULL; argv[1] ... */
  char *const *env;               /* NULL-terminated; copied by the fork */
  unsigned timeout_ms;
  /* If not NULL: called in script_start with its process id, which leads its group, before
   * the program is run.  False and errno: it never is. */
  bool (*begun) (void *opaque, pid_t pid);
};

struct script_result {
  bool ok;          /* it ran, and ended with 0 */
  bool timed_out;   /* it was killed at its deadline */
  int status;       /* its exit code; -1: killed, or could not be run */
  const char *reason;  /* "" if ok */
  const char *out;  /* what it wrote to its standard output, at most SCRIPT_OUT_MAX */
  size_t out_len;
  bool out_cut;     /* it wrote more */
};

typedef void script_done_fn (void *opaque, const struct script_result *result);

/* NULL and errno if it can't be started; `done` is then not called. */
extern struct script *script_start (struct qb_loop *loop, const struct script_spec *spec,
                                    script_done_fn *done, void *opaque);
/* Kills its process group; done is not called. */
extern void script_cancel (struct script *s);
/* When the loop has ended: what still runs goes on by itself. */
extern void script_end (void);

#endif
