/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Drives a group engine by hand, for the group-engine tests: joins a group,
 * sends, and prints every view and every delivery with the time (ms of
 * CLOCK_REALTIME, to be compared with the shell's clock).  Commands come on stdin,
 * one a line; see usage ().  With --check it reads the logs of all members and
 * judges them together.  One thread, libqb's loop.
 *
 * A log's lines begin with the time.  After it:
 *   V VIEW QUORATE N1,N2,...     a view begins
 *   D VIEW FROM SEQ LEN          delivered; VIEW is what the payload says
 *   C FROM SEQ                   a majority's acknowledgements were delivered
 *   DOWN REASON  UP DETECTION_MS  STAT key=value...  END
 */
#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#include <qb/qblog.h>
#include <qb/qbloop.h>

#include "common/util.h"
#include "server/engine_corosync.h"


#define HEADER_LEN 32 /* kind u32, sender u32, view u64, seq u64, acked seq u64 */
#define KIND_DATA  1
#define KIND_ACK   2
#define TRACKED    65536 /* messages whose acknowledgements are counted */

struct tracked {
  uint64_t seq;
  uint32_t from;
  uint32_t acks; /* bit per place in the view */
  bool committed;
};

static qb_loop_t *loop;
static struct engine *engine;
static const char *group;
static uint64_t view, next_seq = 1;
static uint32_t members[CRG_MAX_NODES];
static unsigned n_members, total_nodes = 5;
static bool acking;
static unsigned left_to_send, send_len, per_tick;
static struct tracked tracked[TRACKED];
static uint64_t ack_from[4096], ack_seq[4096];
static unsigned n_acks;
static uint8_t message[CRG_ENGINE_MSG_MAX + 1];
static uint64_t full;
static const char *node_name;

/* Nodes are n1, n2 ...; 100 is added so that it shows. */
static uint32_t
plain_id (const char *name)
{
  return 100 + (uint32_t) atoi (name + 1);
}

static void UTIL_PRINTF (1, 2) say (const char *fmt, ...)
{
  struct timespec t;
  va_list args;

  clock_gettime (CLOCK_REALTIME, &t);
  printf ("%ld.%03ld ", (long) t.tv_sec * 1000 + t.tv_nsec / 1000000, t.tv_nsec / 1000 % 1000);
  va_start (args, fmt);
  vprintf (fmt, args);
  va_end (args);
  putchar ('\n');
}

static uint8_t
filler (uint32_t from, uint64_t seq, size_t at)
{
  return (uint8_t) (from * 31 + seq * 7 + at + (at >> 8));
}

/* One message; false if the engine has no room or no view. */
static bool
send_one (uint32_t kind, size_t len, uint32_t sender, uint64_t acked)
{
  int r;

  len = MAX (len, (size_t) HEADER_LEN);
  put_le32 (message, kind);
  put_le32 (message + 4, sender);
  put_le64 (message + 8, view);
  put_le64 (message + 16, next_seq);
  put_le64 (message + 24, acked);
  for (size_t i = HEADER_LEN; i < len; i++)
    message[i] = filler (engine->node_id, next_seq, i);
  r = engine->ops->mcast (engine, group, message, len);
  if (r == -ENOBUFS)
    full++;
  else if (r < 0 && r != -ENOTCONN)
    say ("ERROR mcast of %zu bytes: %s", len, strerror (-r));
  if (r == 0)
    next_seq++;
  return r == 0;
}

static void
send_more (void)
{
  while (n_acks > 0
         && send_one (KIND_ACK, HEADER_LEN, (uint32_t) ack_from[n_acks - 1], ack_seq[n_acks - 1]))
    n_acks--;
  for (unsigned i = 0; left_to_send > 0 && i < 2000; i++) {
    if (!send_one (KIND_DATA, send_len, 0, 0))
      break;
    left_to_send--;
  }
}

static void
on_tick (void *data)
{
  qb_loop_timer_handle timer;

  if (per_tick)
    for (unsigned i = 0; i < per_tick; i++)
      send_one (KIND_DATA, send_len, 0, 0);
  send_more ();
  fflush (stdout);
  qb_loop_timer_add (loop, QB_LOOP_MED, 5 * 1000000, NULL, on_tick, &timer);
}

static void
on_view (void *opaque, const char *name, uint64_t id, const uint32_t *nodes, unsigned n,
         bool quorate)
{
  char text[256] = "";

  for (unsigned i = 0; i < n; i++)
    sprintf (text + strlen (text), "%s%u", i ? "," : "", nodes[i]);
  view = id;
  n_members = n;
  memcpy (members, nodes, n * sizeof *nodes);
  memset (tracked, 0, sizeof tracked);
  n_acks = 0;
  say ("V %016" PRIx64 " %d %s", id, quorate, text);
  fflush (stdout);
  send_more ();
}

static void
count_ack (uint32_t by, uint32_t from, uint64_t seq)
{
  struct tracked *t = &tracked[(seq * 31 + from) % TRACKED];

  if (t->from != from || t->seq != seq) {
    memset (t, 0, sizeof *t);
    t->from = from;
    t->seq = seq;
  }
  for (unsigned i = 0; i < n_members; i++)
    if (members[i] == by)
      t->acks |= 1u << i;
  if (!t->committed && (unsigned) __builtin_popcount (t->acks) * 2 > total_nodes) {
    t->committed = true;
    say ("C %u %" PRIu64, from, seq);
  }
}

static void
on_deliver (void *opaque, const char *name, uint32_t from, const uint8_t *buf, size_t len)
{
  uint64_t seq;

  if (len < HEADER_LEN) {
    say ("ERROR short message of %zu bytes", len);
    return;
  }
  seq = get_le64 (buf + 16);
  say ("D %016" PRIx64 " %u %" PRIu64 " %zu", get_le64 (buf + 8), from, seq, len);
  for (size_t i = HEADER_LEN; i < len; i++)
    if (buf[i] != filler (from, seq, i)) {
      say ("ERROR message %" PRIu64 " of %u differs at byte %zu", seq, from, i);
      break;
    }
  if (get_le32 (buf) == KIND_ACK)
    count_ack (from, get_le32 (buf + 4), get_le64 (buf + 24));
  else if (acking && n_acks < ARRAY_SIZE (ack_seq)) {
    ack_from[n_acks] = from;
    ack_seq[n_acks++] = seq;
  }
  send_more ();
}

static void
on_down (void *opaque, const char *reason)
{
  view = 0;
  say ("DOWN %s", reason);
  fflush (stdout);
}

static void
on_up (void *opaque)
{
  say ("UP %u", engine->ops->detection_ms (engine));
  fflush (stdout);
}

static void
stats (void)
{
  struct engine_corosync_stats s;

  engine_corosync_stats (engine, &s);
  say ("STAT views=%" PRIu64 " rings=%" PRIu64 " sent=%" PRIu64 " delivered=%" PRIu64
       " frames_sent=%" PRIu64 " frames_received=%" PRIu64 " try_again=%" PRIu64 " foreign=%" PRIu64
       " strays=%" PRIu64 " not_ours=%" PRIu64 " queue_peak_bytes=%" PRIu64 " rate_waits=%" PRIu64
       " connects=%" PRIu64 " full=%" PRIu64 " left=%u token=%u consensus=%u",
       s.views, s.ring_changes, s.sent, s.delivered, s.frames_sent, s.frames_received, s.try_again,
       s.foreign, s.strays, s.not_ours, s.queue_peak_bytes, s.rate_waits, s.connects, full,
       left_to_send, s.token_ms, s.consensus_ms);
}

/* As many groups as a crgd may be in, or about to leave, beside the one: there is room for them. */
static int
crowd (void)
{
  char name[8];
  int r = 0;

  for (unsigned i = 0; i < 2 * CRG_MAX_CRGS && r == 0; i++) {
    snprintf (name, sizeof name, "crowd%u", i);
    r = engine->ops->join (engine, name);
  }
  for (unsigned i = 0; i < 2 * CRG_MAX_CRGS; i++) {
    snprintf (name, sizeof name, "crowd%u", i);
    engine->ops->leave (engine, name); /* none was opened yet */
  }
  return r;
}

static void
command (char *line)
{
  unsigned a = 0, b = 0;
  int r = 0;

  if (sscanf (line, "send %u %u", &a, &b) == 2) {
    left_to_send = a;
    send_len = MIN (b, (unsigned) sizeof message);
    send_more ();
  }
  else if (sscanf (line, "rate %u %u", &a, &b) == 2) {
    per_tick = (a + 199) / 200; /* ticks are 5 ms */
    send_len = MIN (b, (unsigned) CRG_ENGINE_MSG_MAX);
  }
  else if (sscanf (line, "block %u", &a) == 1) {
    fflush (stdout);
    usleep (a * 1000); /* a daemon that doesn't come to its loop */
  }
  else if (strcmp (line, "ack") == 0)
    acking = true;
  else if (strcmp (line, "join") == 0)
    r = engine->ops->join (engine, group);
  else if (strcmp (line, "leave") == 0) {
    r = engine->ops->leave (engine, group);
    view = 0;
    say ("DOWN left"); /* the view's end is not for us any more */
  }
  else if (strcmp (line, "crowd") == 0)
    r = crowd ();
  else if (strcmp (line, "stats") == 0)
    stats ();
  else if (strcmp (line, "quit") == 0)
    qb_loop_stop (loop);
  else
    say ("ERROR unknown command: %s", line);
  if (r < 0)
    say ("ERROR %s: %s", line, strerror (-r));
  fflush (stdout);
}

static int32_t
on_stdin (int32_t fd, int32_t revents, void *data)
{
  static char buf[4096];
  static size_t used;
  ssize_t got = read (fd, buf + used, sizeof buf - 1 - used);
  char *start = buf, *nl;

  if (got <= 0) {
    qb_loop_stop (loop);
    return -1;
  }
  used += (size_t) got;
  buf[used] = '\0';
  while ((nl = strchr (start, '\n')) != NULL) {
    *nl = '\0';
    command (start);
    start = nl + 1;
  }
  used -= (size_t) (start - buf);
  memmove (buf, start, used);
  if (used == sizeof buf - 1)
    used = 0;
  return 0;
}

/* ------------------------------------------------------------------ the judge */

struct delivery {
  uint64_t seq;
  uint32_t from;
  uint32_t len;
};

struct seen_view {
  uint64_t id;
  char members[128];
  bool down; /* the engine went down in it: it may lack the view's end */
  struct delivery *d;
  size_t n, cap;
};

struct seen_log {
  const char *path;
  struct seen_view *views;
  size_t n, cap;
  struct delivery *committed;
  size_t n_committed, cap_committed;
};

static unsigned errors;

static void UTIL_PRINTF (1, 2) wrong (const char *fmt, ...)
{
  va_list args;

  if (errors++ > 20)
    return;
  va_start (args, fmt);
  printf ("WRONG ");
  vprintf (fmt, args);
  printf ("\n");
  va_end (args);
}

static void *
grow (void *p, size_t *cap, size_t n, size_t size)
{
  if (n < *cap)
    return p;
  *cap = MAX (64u, *cap * 2);
  p = realloc (p, *cap * size);
  if (p == NULL)
    abort ();
  return p;
}

static void
read_log (struct seen_log *log)
{
  FILE *fp = fopen (log->path, "r");
  char line[512], list[128];
  struct seen_view *v = NULL;
  uint64_t id, seq;
  unsigned from, len, lineno = 0;
  int q;

  if (fp == NULL) {
    wrong ("%s: %s", log->path, strerror (errno));
    return;
  }
  while (fgets (line, sizeof line, fp)) {
    char *p = strchr (line, ' ');

    lineno++;
    if (strchr (line, '\n') == NULL)
      break; /* killed while it wrote */
    if (p == NULL)
      continue;
    p++;
    if (sscanf (p, "V %" SCNx64 " %d %127s", &id, &q, list) == 3) {
      for (size_t i = 0; i < log->n; i++)
        if (log->views[i].id == id)
          wrong ("%s:%u: view %016" PRIx64 " comes twice", log->path, lineno, id);
      log->views = grow (log->views, &log->cap, log->n, sizeof *log->views);
      v = &log->views[log->n++];
      memset (v, 0, sizeof *v);
      v->id = id;
      memcpy (v->members, list, sizeof list);
    }
    else if (sscanf (p, "D %" SCNx64 " %u %" SCNu64 " %u", &id, &from, &seq, &len) == 4) {
      if (v == NULL || v->id != id) {
        wrong ("%s:%u: a message of view %016" PRIx64 " outside of it", log->path, lineno, id);
        continue;
      }
      for (size_t i = v->n; i-- > 0;)
        if (v->d[i].from == from) {
          if (v->d[i].seq + 1 != seq)
            wrong ("%s:%u: message %" PRIu64 " of %u follows %" PRIu64, log->path, lineno, seq,
                   from, v->d[i].seq);
          break;
        }
      v->d = grow (v->d, &v->cap, v->n, sizeof *v->d);
      v->d[v->n++] = (struct delivery){ .seq = seq, .from = from, .len = len };
    }
    else if (sscanf (p, "C %u %" SCNu64, &from, &seq) == 2) {
      log->committed
        = grow (log->committed, &log->cap_committed, log->n_committed, sizeof *log->committed);
      log->committed[log->n_committed++] = (struct delivery){ .seq = seq, .from = from };
    }
    else if (strncmp (p, "DOWN", 4) == 0) {
      if (v)
        v->down = true;
      v = NULL;
    }
    else if (strncmp (p, "ERROR", 5) == 0)
      wrong ("%s:%u: %s", log->path, lineno, p);
  }
  fclose (fp);
}

static int
compare_deliveries (const void *x, const void *y)
{
  const struct delivery *a = x, *b = y;

  if (a->from != b->from)
    return a->from < b->from ? -1 : 1;
  return a->seq < b->seq ? -1 : a->seq > b->seq;
}

/* Same view in two logs.  Members that went on to the next view together have
 * delivered the same; others the same up to where they were cut off from each
 * other.  Behind that each side may deliver what it got of its own members'
 * messages and lack what the other side's sent: but what both have, both have in
 * one order.  Returns how many deliveries only one of them has. */
static size_t
compare_views (const struct seen_log *la, size_t a, const struct seen_log *lb, size_t b)
{
  const struct seen_view *va = &la->views[a], *vb = &lb->views[b];
  size_t i = 0, only, at, n;
  struct delivery *sorted;
  bool together = !va->down && !vb->down && a + 1 < la->n && b + 1 < lb->n
                  && la->views[a + 1].id == lb->views[b + 1].id;

  if (strcmp (va->members, vb->members) != 0)
    wrong ("view %016" PRIx64 " has members %s in %s and %s in %s", va->id, va->members, la->path,
           vb->members, lb->path);
  while (i < va->n && i < vb->n && compare_deliveries (&va->d[i], &vb->d[i]) == 0
         && va->d[i].len == vb->d[i].len)
    i++;
  if (i == va->n && i == vb->n)
    return 0;
  if (together)
    wrong ("view %016" PRIx64 ", delivery %zu: %s and %s differ, and both went on together", va->id,
           i, la->path, lb->path);

  n = vb->n - i;
  sorted = calloc (n + 1, sizeof *sorted);
  if (sorted == NULL)
    abort ();
  if (n) {
    memcpy (sorted, vb->d + i, n * sizeof *sorted);
    qsort (sorted, n, sizeof *sorted, compare_deliveries);
  }
  only = va->n - i + n;
  for (at = i; i < va->n; i++) {
    if (!bsearch (&va->d[i], sorted, n, sizeof *sorted, compare_deliveries))
      continue;
    only -= 2;
    while (at < vb->n && compare_deliveries (&va->d[i], &vb->d[at]) != 0)
      at++;
    if (at++ >= vb->n)
      wrong ("view %016" PRIx64 ": %u/%" PRIu64 " is in another order in %s than in %s", va->id,
             va->d[i].from, va->d[i].seq, la->path, lb->path);
  }
  free (sorted);
  return only;
}

static int
check (int n, char **paths)
{
  struct seen_log *logs = calloc ((size_t) n, sizeof *logs);
  struct delivery *all = NULL;
  size_t n_all = 0, cap_all = 0, views = 0, deliveries = 0, one_side = 0, committed = 0;

  for (int i = 0; i < n; i++) {
    logs[i].path = paths[i];
    read_log (&logs[i]);
    views += logs[i].n;
    for (size_t v = 0; v < logs[i].n; v++) {
      deliveries += logs[i].views[v].n;
      for (size_t d = 0; d < logs[i].views[v].n; d++) {
        all = grow (all, &cap_all, n_all, sizeof *all);
        all[n_all++] = logs[i].views[v].d[d];
      }
    }
  }
  for (int i = 0; i < n; i++)
    for (int j = i + 1; j < n; j++)
      for (size_t a = 0; a < logs[i].n; a++)
        for (size_t b = 0; b < logs[j].n; b++)
          if (logs[i].views[a].id == logs[j].views[b].id)
            one_side += compare_views (&logs[i], a, &logs[j], b);
  /* What somebody saw committed was delivered by a majority of the nodes. */
  if (n_all)
    qsort (all, n_all, sizeof *all, compare_deliveries);
  for (int i = 0; i < n; i++)
    for (size_t c = 0; c < logs[i].n_committed; c++) {
      struct delivery *hit
        = bsearch (&logs[i].committed[c], all, n_all, sizeof *all, compare_deliveries);
      unsigned count = 0;

      committed++;
      if (hit) {
        while (hit > all && compare_deliveries (hit - 1, hit) == 0)
          hit--;
        for (; hit < all + n_all && compare_deliveries (hit, &logs[i].committed[c]) == 0; hit++)
          count++;
      }
      if (count * 2 <= total_nodes)
        wrong ("%u/%" PRIu64 " is committed in %s but only %u nodes delivered it",
               logs[i].committed[c].from, logs[i].committed[c].seq, logs[i].path, count);
    }
  printf ("logs=%d views=%zu deliveries=%zu one_side=%zu committed=%zu wrong=%u\n", n, views,
          deliveries, one_side, committed, errors);
  for (int i = 0; i < n; i++) {
    for (size_t v = 0; v < logs[i].n; v++)
      free (logs[i].views[v].d);
    free (logs[i].views);
    free (logs[i].committed);
  }
  free (all);
  free (logs);
  return errors ? 1 : 0;
}

static int
usage (void)
{
  fprintf (stderr, "usage: enginetest [--nodes N] [--name NODE] GROUP   commands on stdin:\n"
                   "  send N LEN   N messages as fast as the engine takes them\n"
                   "  rate N LEN   N messages a second (0 ends it)\n"
                   "  ack          acknowledge every message from now on\n"
                   "  block MS     do not come to the loop for so long\n"
                   "  join, leave, crowd, stats, quit\n"
                   "       enginetest [--nodes N] --check LOG...\n");
  return 2;
}

int
main (int argc, char **argv)
{
  static const struct engine_callbacks callbacks
    = { .view = on_view, .deliver = on_deliver, .down = on_down, .up = on_up };
  qb_loop_timer_handle timer;
  int at = 1;

  if (at + 1 < argc && strcmp (argv[at], "--nodes") == 0) {
    total_nodes = (unsigned) atoi (argv[at + 1]);
    at += 2;
  }
  if (at + 1 < argc && strcmp (argv[at], "--name") == 0) {
    node_name = argv[at + 1];
    at += 2;
  }
  if (at < argc && strcmp (argv[at], "--check") == 0)
    return check (argc - at - 1, argv + at + 1);
  if (at + 1 != argc)
    return usage ();
  group = argv[at];

  qb_log_init ("enginetest", LOG_USER, LOG_INFO);
  qb_log_ctl (QB_LOG_SYSLOG, QB_LOG_CONF_ENABLED, QB_FALSE);
  qb_log_filter_ctl (QB_LOG_STDERR, QB_LOG_FILTER_ADD, QB_LOG_FILTER_FILE, "*", LOG_INFO);
  qb_log_ctl (QB_LOG_STDERR, QB_LOG_CONF_ENABLED, QB_TRUE);
  loop = qb_loop_create ();
  engine = engine_corosync_new (loop, "enginetest", node_name, node_name ? plain_id : NULL,
                                &callbacks, NULL);
  if (loop == NULL || engine == NULL)
    return 1;
  engine->ops->join (engine, group);
  qb_loop_poll_add (loop, QB_LOOP_MED, STDIN_FILENO, POLLIN, NULL, on_stdin);
  qb_loop_timer_add (loop, QB_LOOP_MED, 1000000, NULL, on_tick, &timer);
  qb_loop_run (loop);
  stats ();
  engine->ops->destroy (engine);
  qb_loop_destroy (loop);
  say ("END");
  qb_log_fini ();
  return 0;
}
