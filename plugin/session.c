/* SPDX-License-Identifier: BSD-3-Clause */
/* The table of session.h.  A request costs two atomic additions; everything else happens when a
 * connection is made.
 */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/util-posix.h"
#include "plugin/session.h"

void
session_table_init (struct session_table *t)
{
  pthread_condattr_t attr;

  memset (t, 0, sizeof *t);
  pthread_mutex_init (&t->lock, NULL);
  pthread_condattr_init (&attr);
  pthread_condattr_setclock (&attr, CLOCK_MONOTONIC);
  pthread_cond_init (&t->drained, &attr);
  pthread_condattr_destroy (&attr);
}

void
session_table_destroy (struct session_table *t)
{
  while (t->first) {
    struct session *s = t->first;

    t->first = s->next;
    free (s);
  }
  pthread_cond_destroy (&t->drained);
  pthread_mutex_destroy (&t->lock);
}

/* With the lock held. */
static void
put (struct session_table *t, struct session *s)
{
  if (--s->connections > 0)
    return;
  for (struct session **p = &t->first; *p; p = &(*p)->next)
    if (*p == s) {
      *p = s->next;
      break;
    }
  t->n--;
  free (s);
}

static bool
others_are_under_way (const struct session_table *t, const struct session *s)
{
  for (const struct session *o = t->first; o; o = o->next)
    if (o != s && strcmp (o->client, s->client) == 0 && atomic_load (&o->under_way) != 0)
      return true;
  return false;
}

struct session *
session_join (struct session_table *t, const char *client, uint64_t id, unsigned wait_ms, char *err, size_t errlen)
{
  struct timespec until;
  struct session *s;
  LOCK_SCOPE (&t->lock);

  clock_gettime (CLOCK_MONOTONIC, &until);
  until.tv_sec += wait_ms / 1000;
  until.tv_nsec += (long) (wait_ms % 1000) * 1000000;
  if (until.tv_nsec >= 1000000000) {
    until.tv_sec++;
    until.tv_nsec -= 1000000000;
  }
  for (s = t->first; s; s = s->next)
    if (s->id == id && strcmp (s->client, client) == 0)
      break;
  if (s && atomic_load (&s->barred)) {
    snprintf (err, errlen, "client %s: a newer session has taken this one's place (X3)", client);
    return NULL;
  }
  if (!s) {
    s = t->n < SESSION_MAX ? calloc (1, sizeof *s) : NULL;
    if (!s) {
      snprintf (err, errlen, "client %s: there are %u sessions already, or no memory", client, t->n);
      return NULL;
    }
    snprintf (s->client, sizeof s->client, "%s", client);
    s->id = id;
    s->table = t;
    for (struct session *o = t->first; o; o = o->next)
      if (strcmp (o->client, client) == 0)
        atomic_store (&o->barred, true); /* X1 */
    s->next = t->first;
    t->first = s;
    t->n++;
  }
  s->connections++;
  /* X2; also for the second connection, while the first one waits. */
  while (!atomic_load (&s->barred) && others_are_under_way (t, s))
    if (pthread_cond_timedwait (&t->drained, &t->lock, &until) == ETIMEDOUT) {
      snprintf (err, errlen, "client %s: requests of its session before are still under way (X2)", client);
      put (t, s);
      return NULL;
    }
  if (atomic_load (&s->barred)) {
    snprintf (err, errlen, "client %s: a newer session has taken this one's place (X3)", client);
    put (t, s);
    return NULL;
  }
  return s;
}

void
session_leave (struct session *s)
{
  struct session_table *t = s->table;
  LOCK_SCOPE (&t->lock);

  put (t, s);
}

/* The order of the two steps is that of X1 and X2 turned round: either the one that bars sees
 * this request under way, or this request sees the bar. */
bool
session_begin (struct session *s)
{
  atomic_fetch_add (&s->under_way, 1);
  if (!atomic_load (&s->barred))
    return true;
  session_end (s);
  return false;
}

void
session_end (struct session *s)
{
  if (atomic_fetch_sub (&s->under_way, 1) == 1 && atomic_load (&s->barred)) {
    LOCK_SCOPE (&s->table->lock);

    pthread_cond_broadcast (&s->table->drained);
  }
}
