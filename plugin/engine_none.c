/* SPDX-License-Identifier: BSD-3-Clause */
/* A build without the engine: a controller is refused in so many words.
 */
#include "config.h"

#include <errno.h>
#include <stdio.h>

#include "plugin/engine.h"

struct engine *
engine_new (struct iasp *ia, char *err, size_t errlen)
{
  snprintf (err, errlen, "control=: this build has no engine for it; use role=production");
  return NULL;
}

int
engine_start (struct engine *e, char *err, size_t errlen)
{
  return -ENOSYS;
}

void
engine_stop (struct engine *e)
{
}

void
engine_free (struct engine *e)
{
}

int
engine_submit (struct engine *e, const struct engine_request *rq)
{
  return -ESHUTDOWN;
}

bool
engine_may_open (struct engine *e, char *err, size_t errlen)
{
  return true;
}
