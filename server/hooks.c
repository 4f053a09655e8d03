/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The queues of hooks.h.  The directory is read anew for each event, so that a
 * script that was put there counts at once.  Who may write to a script may do
 * what crgd may: directory and script have to be root's, or crgd's user's, and
 * nobody else's to write.
 */
#include "config.h"

#include "server/hooks.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/limits.h"
#include "common/program.h"
#include "common/util-posix.h"
#include "server/log.h"
#include "server/script.h"

/* CRG_EVENT, PATH, LC_ALL and the event's own. */
#define ENV_MAX 32

struct item {
  char event[CRG_NAME_MAX + 1];
  char *env[ENV_MAX + 1];
};

struct queue {
  struct hooks *h;
  char crg[CRG_NAME_MAX + 1]; /* "": free */
  struct item *items[HOOK_QUEUE_MAX];
  unsigned n;
  struct script *running;     /* for items[0] */
  struct dirent **names;      /* the scripts of items[0] ... */
  int n_names, at;            /* ... and the next one */
};

struct hooks {
  struct qb_loop *loop;
  char dir[CRG_PATH_MAX + 1];
  unsigned timeout_ms;
  struct queue queues[CRG_MAX_CRGS];
  unsigned running;
};

static void run_next (struct queue *q);
static void drive (struct hooks *h);

static void
free_item (struct item *item)
{
  for (unsigned i = 0; item && item->env[i]; i++)
    free (item->env[i]);
  free (item);
}

static void
free_names (struct queue *q)
{
  for (int i = 0; i < q->n_names; i++)
    free (q->names[i]);
  free (q->names);
  q->names = NULL;
  q->n_names = q->at = 0;
}

static void
end_item (struct queue *q)
{
  free_names (q);
  free_item (q->items[0]);
  memmove (q->items, q->items + 1, --q->n * sizeof q->items[0]);
  if (q->n == 0)
    q->crg[0] = '\0';
}

/* As run-parts does it: what a package manager or an editor leaves lying
 * about has a dot or a tilde. */
static int
is_script_name (const struct dirent *de)
{
  const char *name = de->d_name;

  return *name && strlen (name) <= CRG_NAME_MAX
         && strspn (name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")
              == strlen (name);
}

static int
by_name (const struct dirent **a, const struct dirent **b)
{
  return strcmp ((*a)->d_name, (*b)->d_name);
}

/* False: there is nothing to run. */
static bool
list_scripts (struct queue *q)
{
  const char *why = program_refusal (q->h->dir, true);

  if (why) {
    if (strcmp (why, "it is not there") != 0)
      log_error ("%s: no hook is run: %s", q->h->dir, why);
    return false;
  }
  q->n_names = scandir (q->h->dir, &q->names, is_script_name, by_name);
  if (q->n_names < 0) {
    log_error ("%s: %s", q->h->dir, strerror (errno));
    q->n_names = 0;
    q->names = NULL;
  }
  if (q->n_names > HOOK_MAX_SCRIPTS)
    log_warning ("%s: more than %d hooks; the rest is not run", q->h->dir, HOOK_MAX_SCRIPTS);
  return q->n_names > 0;
}

static void
on_done (void *opaque, const struct script_result *r)
{
  struct queue *q = opaque;

  q->running = NULL;
  q->h->running--;
  if (r->ok)
    log_info ("%s: hook %s for %s: done", q->crg, q->names[q->at - 1]->d_name, q->items[0]->event);
  else
    log_warning ("%s: hook %s for %s: %s", q->crg, q->names[q->at - 1]->d_name,
                 q->items[0]->event, r->reason);
  run_next (q);
  drive (q->h);
}

static bool
start_one (struct queue *q)
{
  char path[CRG_PATH_MAX + CRG_NAME_MAX + 2];
  const char *name = q->names[q->at++]->d_name, *why;
  struct script_spec spec = { .path = path, .argument = { q->items[0]->event },
                              .env = q->items[0]->env, .timeout_ms = q->h->timeout_ms };

  snprintf (path, sizeof path, "%s/%.63s", q->h->dir, name);
  why = program_refusal (path, false);
  if (why) {
    log_error ("%s: this hook is not run: %s", path, why);
    return false;
  }
  snprintf (spec.label, sizeof spec.label, "%s: hook %.63s", q->crg, name);
  q->running = script_start (q->h->loop, &spec, on_done, q);
  if (q->running == NULL) {
    log_error ("%s: can't run this hook: %s", path, strerror (errno));
    return false;
  }
  q->h->running++;
  return true;
}

/* The next script of the first event; with the last one the event is over. */
static void
run_next (struct queue *q)
{
  while (q->running == NULL && q->n > 0 && q->names) {
    while (q->at < q->n_names && q->at < HOOK_MAX_SCRIPTS)
      if (start_one (q))
        return;
    end_item (q);
  }
}

static void
drive (struct hooks *h)
{
  for (unsigned i = 0; i < CRG_MAX_CRGS; i++) {
    struct queue *q = &h->queues[i];

    while (q->n > 0 && q->names == NULL && h->running < HOOK_MAX_RUNNING) {
      if (list_scripts (q))
        run_next (q);
      else
        end_item (q);
    }
  }
}

static struct queue *
queue_of (struct hooks *h, const char *crg)
{
  struct queue *spare = NULL;

  for (unsigned i = 0; i < CRG_MAX_CRGS; i++) {
    if (strcmp (h->queues[i].crg, crg) == 0)
      return &h->queues[i];
    if (spare == NULL && h->queues[i].crg[0] == '\0')
      spare = &h->queues[i];
  }
  if (spare)
    snprintf (spare->crg, sizeof spare->crg, "%s", crg);
  return spare;
}

static struct item *
make_item (const char *event, char *const *env)
{
  static char path[] = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
  struct item *item = calloc (1, sizeof *item);
  char name[CRG_NAME_MAX + 16];
  unsigned n = 0;
  bool good = item != NULL;

  if (item == NULL)
    return NULL;
  snprintf (item->event, sizeof item->event, "%s", event);
  snprintf (name, sizeof name, "CRG_EVENT=%s", event);
  item->env[n++] = strdup (path);
  item->env[n++] = strdup ("LC_ALL=C");
  item->env[n++] = strdup (name);
  for (unsigned i = 0; env[i] && n < ENV_MAX; i++)
    item->env[n++] = strdup (env[i]);
  for (unsigned i = 0; i < n; i++)
    good = good && item->env[i] != NULL;
  if (good)
    return item;
  for (unsigned i = 0; i < n; i++)
    free (item->env[i]);
  free (item);
  return NULL;
}

void
hooks_event (struct hooks *h, const char *crg, const char *event, char *const *env)
{
  struct queue *q = queue_of (h, crg);
  struct item *item = q ? make_item (event, env) : NULL;

  if (item == NULL) {
    log_error ("%s: no room for the hooks of %s", crg, event);
    return;
  }
  if (q->n == HOOK_QUEUE_MAX) {
    /* The first one is under way; levels count, so the newest are kept. */
    log_warning ("%s: its hooks are %u events behind; %s is not told to them", crg, q->n,
                 q->items[1]->event);
    free_item (q->items[1]);
    memmove (q->items + 1, q->items + 2, (--q->n - 1) * sizeof q->items[0]);
  }
  q->items[q->n++] = item;
  drive (h);
}

bool
hooks_idle (const struct hooks *h)
{
  for (unsigned i = 0; i < CRG_MAX_CRGS; i++)
    if (h->queues[i].n > 0)
      return false;
  return true;
}

struct hooks *
hooks_new (struct qb_loop *loop, const char *dir, unsigned timeout_ms)
{
  struct hooks *h = calloc (1, sizeof *h);

  if (h == NULL)
    return NULL;
  h->loop = loop;
  h->timeout_ms = timeout_ms;
  snprintf (h->dir, sizeof h->dir, "%s", dir);
  for (unsigned i = 0; i < CRG_MAX_CRGS; i++)
    h->queues[i].h = h;
  return h;
}

/* A script that runs goes on by itself. */
void
hooks_free (struct hooks *h)
{
  for (unsigned i = 0; h && i < CRG_MAX_CRGS; i++) {
    free_names (&h->queues[i]);
    while (h->queues[i].n > 0)
      free_item (h->queues[i].items[--h->queues[i].n]);
  }
  free (h);
}
