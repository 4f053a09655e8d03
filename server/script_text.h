/* SPDX-License-Identifier: BSD-3-Clause
 *
 * What a script of the administrator's says, from bytes as they come to lines
 * and texts within bounds.  Pure; it trusts nothing that it is given.
 */
#ifndef CRG_SCRIPT_TEXT_H
#define CRG_SCRIPT_TEXT_H

#include <stdbool.h>
#include <stddef.h>

#include "common/limits.h"

/* Standard output: what is kept of it. */
struct script_out {
  char text[SCRIPT_OUT_MAX + 1]; /* with a NUL behind it */
  size_t len;
  bool cut; /* there was more */
};
extern void script_out_take (struct script_out *o, const char *buf, size_t len);

/* Standard error: the line that is under way. */
struct script_line {
  char text[CRG_REASON_MAX + 1]; /* with a NUL behind it */
  size_t len;
};
/* Takes bytes up to the end of a line, and says how many.  *whole: the line is one to be told, then begun
 * anew with len = 0.  A longer line is several. */
extern size_t script_line_take (struct script_line *l, const char *buf, size_t len, bool *whole);

/* A configuration that an agent has told: its bytes without the newlines at its end; -1: it has a
 * NUL, or is longer than CRG_CONFIG_MAX, or was cut. */
extern int script_config_len (const char *out, size_t len, bool cut);
/* The first line of what an agent says, or of `otherwise` if it says nothing. */
extern void script_first_line (const char *out, size_t len, const char *otherwise, char *to, size_t size);

#endif
