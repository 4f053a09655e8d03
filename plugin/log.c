/* SPDX-License-Identifier: BSD-3-Clause */
/* Lines of the log, each in one write, so that those of two threads don't mix.
 */
#include "config.h"

#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include "common/limits.h"
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
  char line[1024];
  int n = snprintf (line, sizeof line - 1, "iasp %s: ", name);
  va_list args;
  int m;

  va_start (args, fmt);
  m = vsnprintf (line + n, sizeof line - 1 - (size_t) n, fmt, args);
  va_end (args);
  if (m < 0)
    return;
  n = MIN (n + m, (int) sizeof line - 2);
  line[n++] = '\n';
  if (write (STDERR_FILENO, line, (size_t) n) < 0)
    return; /* nobody listens */
}
