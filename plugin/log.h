/* SPDX-License-Identifier: BSD-3-Clause */
/* One line on standard error for one change of state, greppable: "iasp NAME: ...".  Any thread.
 */
#ifndef IASP_LOG_H
#define IASP_LOG_H

#include "common/util.h"

extern void log_init (const char *iasp);
extern void log_line (const char *fmt, ...) UTIL_PRINTF (1, 2);

#endif /* IASP_LOG_H */
