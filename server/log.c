/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Sets libqb's log up: stderr only, no syslog of its own, so that a service
 * manager decides where the lines go.  Through a target of our own, as a line
 * carries text of scripts, plugins and other nodes: it stays one line, and can't
 * speak to the terminal that shows it.
 */
#include "server/log.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/visible.h"

#define LINE_MAX_BYTES 2048

static int32_t target = -1;

static void
write_line (int32_t t, struct qb_log_callsite *cs, struct timespec *when, const char *message)
{
  char line[LINE_MAX_BYTES + 1], shown[VISIBLE_SIZE (LINE_MAX_BYTES) + 1];
  size_t n;

  qb_log_target_format (t, cs, when, message, line);
  n = visible_text (line, strlen (line), shown, sizeof shown - 1);
  shown[n++] = '\n';
  if (write (STDERR_FILENO, shown, n) < 0)
    return; /* nobody listens */
}

void
log_open (const char *name, int verbose)
{
  static const int level[] = { LOG_NOTICE, LOG_INFO, LOG_DEBUG };
  int priority = level[verbose > 2 ? 2 : verbose < 0 ? 0 : verbose];

  qb_log_init (name, LOG_DAEMON, LOG_EMERG);
  qb_log_ctl (QB_LOG_SYSLOG, QB_LOG_CONF_ENABLED, QB_FALSE);
  target = qb_log_custom_open (write_line, NULL, NULL, NULL);
  qb_log_filter_ctl (target, QB_LOG_FILTER_ADD, QB_LOG_FILTER_FILE, "*", priority);
  /* journald stamps the lines itself. */
  qb_log_format_set (target, getenv ("JOURNAL_STREAM") ? "%p: %b" : "%T %N %p: %b");
  qb_log_ctl (target, QB_LOG_CONF_MAX_LINE_LEN, LINE_MAX_BYTES);
  qb_log_ctl (target, QB_LOG_CONF_ENABLED, QB_TRUE);
}

void
log_close (void)
{
  qb_log_fini ();
}
