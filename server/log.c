/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Sets libqb's log up: stderr only, no syslog of its own, so that a service
 * manager decides where the lines go.
 */
#include "server/log.h"

#include <stdlib.h>

void
log_open (const char *name, int verbose)
{
  static const int level[] = { LOG_NOTICE, LOG_INFO, LOG_DEBUG };
  int priority = level[verbose > 2 ? 2 : verbose < 0 ? 0 : verbose];

  qb_log_init (name, LOG_DAEMON, LOG_EMERG);
  qb_log_ctl (QB_LOG_SYSLOG, QB_LOG_CONF_ENABLED, QB_FALSE);
  qb_log_filter_ctl (QB_LOG_STDERR, QB_LOG_FILTER_ADD, QB_LOG_FILTER_FILE, "*", priority);
  /* journald stamps the lines itself. */
  qb_log_format_set (QB_LOG_STDERR, getenv ("JOURNAL_STREAM") ? "%p: %b" : "%T %N %p: %b");
  qb_log_ctl (QB_LOG_STDERR, QB_LOG_CONF_MAX_LINE_LEN, 2048);
  qb_log_ctl (QB_LOG_STDERR, QB_LOG_CONF_ENABLED, QB_TRUE);
}

void
log_close (void)
{
  qb_log_fini ();
}
