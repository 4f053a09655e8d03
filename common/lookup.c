/* SPDX-License-Identifier: BSD-3-Clause */
/* Looks for addresses, as lookup.h says, with getaddrinfo_a.
 */
#include "config.h"

#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/limits.h"
#include "common/lookup.h"

/* libc's while it looks; nobody else may touch it then, or free it. */
struct lookup_job {
  char host[CRG_HOST_MAX + 1], port[8];
  struct addrinfo hints;
  struct gaicb cb;
};

/* The first that the name has; a client with several paths names a node once for each. */
static void
take (struct lookup *l, struct addrinfo *list)
{
  memcpy (&l->address, list->ai_addr, list->ai_addrlen);
  l->len = list->ai_addrlen;
  l->doubtful = false;
  freeaddrinfo (list);
}

static int
begin (struct lookup *l, const char *host, uint16_t port, const char **why)
{
  struct lookup_job *j = calloc (1, sizeof *j);
  struct gaicb *list[1];
  int r;

  *why = strerror (ENOMEM);
  if (!j)
    return -1;
  snprintf (j->host, sizeof j->host, "%s", host);
  snprintf (j->port, sizeof j->port, "%u", port);
  j->hints = (struct addrinfo){ .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM };
  j->cb = (struct gaicb){ .ar_name = j->host, .ar_service = j->port, .ar_request = &j->hints };
  list[0] = &j->cb;
  r = getaddrinfo_a (GAI_NOWAIT, list, 1, NULL);
  if (r != 0) {
    *why = gai_strerror (r);
    free (j);
    return -1;
  }
  l->job = j;
  return 0;
}

/* What came of it, if it is over: 1, or -1. */
static int
end (struct lookup *l, const char **why)
{
  int r = gai_error (&l->job->cb);

  if (r == EAI_INPROGRESS)
    return 0;
  if (r == 0)
    take (l, l->job->cb.ar_result);
  *why = gai_strerror (r);
  free (l->job);
  l->job = NULL;
  return r == 0 ? 1 : -1;
}

int
lookup_go_on (struct lookup *l, const char *host, uint16_t port, const char **why)
{
  struct addrinfo hints = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM,
                            .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV };
  struct addrinfo *list;
  char text[8];
  int r = 1;

  *why = NULL;
  if (!l->job && l->len == 0) {
    snprintf (text, sizeof text, "%u", port);
    if (getaddrinfo (host, text, &hints, &list) == 0) {
      take (l, list);
      l->numeric = true;
    }
  }
  if (!l->job && (l->len == 0 || l->doubtful))
    r = begin (l, host, port, why);
  if (l->job)
    r = end (l, why);
  return l->len > 0 ? 1 : r; /* an old address is better than none */
}

void
lookup_doubt (struct lookup *l)
{
  l->doubtful = !l->numeric;
}
