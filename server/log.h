/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The daemon's log: libqb's, one line for one state change, to stderr; the
 * time is left out where a journal stamps the lines itself.  Main thread
 * only.
 */
#ifndef CRG_LOG_H
#define CRG_LOG_H

#include <qb/qblog.h>
#include <syslog.h>

#define log_error(fmt, ...)   qb_log (LOG_ERR, fmt, ##__VA_ARGS__)
#define log_warning(fmt, ...) qb_log (LOG_WARNING, fmt, ##__VA_ARGS__)
#define log_notice(fmt, ...)  qb_log (LOG_NOTICE, fmt, ##__VA_ARGS__)
#define log_info(fmt, ...)    qb_log (LOG_INFO, fmt, ##__VA_ARGS__)
#define log_debug(fmt, ...)   qb_log (LOG_DEBUG, fmt, ##__VA_ARGS__)

/* verbose: 0 notices and worse, 1 info, 2 debug. */
extern void log_open (const char *name, int verbose);
extern void log_close (void);

#endif
