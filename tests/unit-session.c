/* SPDX-License-Identifier: BSD-3-Clause */
/* Sessions of following clients: X1, X2, X3, alone and with threads that race. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "plugin/session.h"
#include "tests/tap.h"

static struct session_table table;
static char err[256];

static struct session *
join (const char *client, uint64_t id, unsigned wait_ms)
{
  return session_join (&table, client, id, wait_ms, err, sizeof err);
}

/* Writers send "their session's number" to one cell, as long as they are let; each new session
 * joins, and from then on nobody may write an older number. */
#define ROUNDS  400
#define WRITERS 3
static _Atomic uint64_t cell;
static _Atomic uint64_t newest;
static _Atomic unsigned went_back, written;

static void *
writer (void *opaque)
{
  struct session *s = opaque;
  uint64_t id = s->id;

  while (session_begin (s)) {
    if (atomic_load (&newest) > id)
      atomic_fetch_add (&went_back, 1);
    atomic_store (&cell, id);
    atomic_fetch_add (&written, 1);
    session_end (s);
  }
  session_leave (s);
  return NULL;
}

static void *
late_joiner (void *opaque)
{
  *(struct session **) opaque = join ("late", 2, 5000);
  return NULL;
}

int
main (void)
{
  struct session *a, *a2, *b, *c, *x, *late = NULL;
  pthread_t thread, threads[WRITERS * ROUNDS];
  unsigned n = 0;

  session_table_init (&table);
  a = join ("app", 1, 0);
  a2 = join ("app", 1, 0);
  ok (a && a == a2, "two connections of one session");
  ok (session_begin (a), "a request begins");
  x = join ("other", 9, 0);
  ok (x && session_begin (x), "another client doesn't mind");
  b = join ("app", 2, 20);
  ok (b == NULL && strstr (err, "X2"), "X2: a newer session is refused while a request is under way: %s", err);
  ok (!session_begin (a), "X1: none begins any more in the old one");
  session_end (a);
  b = join ("app", 2, 20);
  ok (b != NULL, "... and let in when it is over");
  ok (session_begin (b), "its requests begin");
  session_end (b);
  ok (join ("app", 1, 20) == NULL && strstr (err, "X3"), "X3: the old one stays out: %s", err);
  ok (!session_begin (a), "... and barred");
  session_leave (a);
  session_leave (a2);
  c = join ("app", 3, 20);
  ok (c != NULL && !session_begin (b), "a third bars the second");
  session_leave (b);
  session_leave (c);
  session_end (x);
  session_leave (x);
  is (table.n, 0, "nothing stays of those that left");

  a = join ("late", 1, 0);
  session_begin (a);
  pthread_create (&thread, NULL, late_joiner, &late);
  usleep (50000);
  session_end (a);
  pthread_join (thread, NULL);
  ok (late != NULL, "a waiting session is woken by the last request's end");
  session_leave (a);
  session_leave (late);

  for (unsigned i = 0; i < SESSION_MAX; i++) {
    char name[16];

    snprintf (name, sizeof name, "c%u", i);
    if (!join (name, 1, 0))
      break;
    n++;
  }
  is (n, SESSION_MAX, "as many as the limit says");
  ok (join ("more", 1, 0) == NULL, "... and no more");
  session_table_destroy (&table);

  session_table_init (&table);
  for (uint64_t id = 1; id <= ROUNDS; id++) {
    struct session *first = join ("app", id, 10000);

    if (!first)
      break;
    atomic_store (&newest, id);
    for (unsigned i = 0; i < WRITERS; i++) {
      struct session *s = i == 0 ? first : join ("app", id, 10000);

      pthread_create (&threads[(id - 1) * WRITERS + i], NULL, writer, s);
    }
    usleep (200);
  }
  join ("app", ROUNDS + 1, 10000);
  for (unsigned i = 0; i < WRITERS * ROUNDS; i++)
    pthread_join (threads[i], NULL);
  is (went_back, 0, "no request of an older session is under way after a newer one was let in");
  ok (written > ROUNDS, "%u were written", written);
  is (table.n, 1, "one session is left");
  session_table_destroy (&table);
  return tap_done ();
}
