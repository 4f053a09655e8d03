/* SPDX-License-Identifier: BSD-3-Clause */
/* Lines of the log, each in one write, so that those of two threads don't mix, and each shown as one
 * line, whatever a peer has said.
 */
#include "config.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/limits.h"
#include "common/visible.h"
#include "plugin/log.h"

static char name[CRG_NAME_MAX + 1] = "?";

void
log_init (const char *iasp)
{
  snprintf (name, sizeof name, "%s", iasp);
}

void
log_line (const char *fmt, ...)
{
  char line[1024], shown[VISIBLE_SIZE (sizeof line) + 1];
  int n = snprintf (line, sizeof line, "iasp %s: ", name);
  va_list args;
  size_t used;
  int m;

  va_start (args, fmt);
  m = vsnprintf (line + n, sizeof line - (size_t) n, fmt, args);
  va_end (args);
  if (m < 0)
    return;
  used = visible_text (line, strlen (line), shown, sizeof shown - 1);
  shown[used++] = '\n';
  if (write (STDERR_FILENO, shown, used) < 0)
    return; /* nobody listens */
}
