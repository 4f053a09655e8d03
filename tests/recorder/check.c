/* SPDX-License-Identifier: BSD-3-Clause */
/* The judging half: reads the log, reads every block back, and asks history.c.  One thread.
 * A log that doesn't parse is trouble (exit 2), never a good result.
 */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <libnbd.h>

#include "tests/recorder/recorder.h"

#define CONNECT_MS 3000
#define BAD HIST_NEVER


struct log {
  uint64_t run;
  uint32_t blocks;
  uint64_t offset;
  uint64_t *initial;
  struct hist_op *ops;
  size_t n, max;
  uint64_t *flushes; /* start of each answered flush, sorted later */
  size_t n_flushes, max_flushes;
  uint64_t *losses; /* instants of power losses, rising */
  size_t n_losses, max_losses;
  uint64_t last; /* latest time in the log */
  uint64_t writes, acked, flushed, reads, unknown;
};

/* What is in flight, for each connection a short list. */
struct open_op {
  uint64_t seq, start;
  uint32_t block;
  char kind;
  bool fua;
};
struct pending {
  struct open_op ops[REC_MAX_DEPTH];
  unsigned n;
};

static void
grow (void **p, size_t *max, size_t n, size_t size)
{
  if (n < *max)
    return;
  *max = *max ? 2 * *max : 4096;
  *p = realloc (*p, *max * size);
  if (!*p) {
    fprintf (stderr, "recorder: out of memory\n");
    exit (2);
  }
}

static struct hist_op *
add (struct log *l)
{
  void *p = l->ops;

  grow (&p, &l->max, l->n, sizeof *l->ops);
  l->ops = p;
  memset (&l->ops[l->n], 0, sizeof *l->ops);
  return &l->ops[l->n++];
}

static int
begin_op (struct pending *p, char kind, uint64_t t, uint64_t seq, uint32_t block, bool fua)
{
  if (p->n == REC_MAX_DEPTH)
    return -1;
  p->ops[p->n++] = (struct open_op){ seq, t, block, kind, fua };
  return 0;
}

static int
end_op (struct log *l, struct pending *p, unsigned c, char kind, uint64_t t, uint64_t seq,
        const char *result)
{
  struct open_op o;
  struct hist_op *op;
  unsigned i;
  bool err = strncmp (result, "err ", 4) == 0;
  int used = 0;

  for (i = 0; i < p->n; i++)
    if (p->ops[i].seq == seq)
      break;
  if (i == p->n || p->ops[i].kind != kind)
    return -1;
  o = p->ops[i];
  p->ops[i] = p->ops[--p->n];
  if (kind != 'r' && !err && strcmp (result, "ok") != 0)
    return -1;
  if (kind == 'f') {
    void *v = l->flushes;

    if (err)
      return 0;
    grow (&v, &l->max_flushes, l->n_flushes, sizeof *l->flushes);
    l->flushes = v;
    l->flushes[l->n_flushes++] = o.start;
    return 0;
  }
  if (kind == 'r' && err)
    return 0;
  op = add (l);
  op->start = o.start;
  op->end = t;
  op->block = o.block;
  if (kind == 'w') {
    op->kind = HIST_WRITE;
    op->value = REC_VALUE (c, seq);
    if (err)
      op->end = HIST_NEVER;
    else
      op->flushed = o.fua;
    return 0;
  }
  op->kind = HIST_READ;
  l->reads++;
  if (strcmp (result, "init") == 0)
    op->value = HIST_INITIAL;
  else if (strncmp (result, "bad ", 4) == 0) {
    op->kind = HIST_BAD;
    op->value = BAD;
  }
  else {
    unsigned vc;
    uint64_t vs;

    if (sscanf (result, "%u.%" SCNu64 "%n", &vc, &vs, &used) != 2 || result[used]
        || vc >= REC_MAX_CONNECTIONS)
      return -1;
    op->value = REC_VALUE (vc, vs);
  }
  return 0;
}

static int
parse (struct log *l, struct pending *pending, char *line)
{
  unsigned c;
  int n = 0;
  uint64_t t, seq, block;
  char kind = line[0];

  line[strcspn (line, "\n")] = 0;
  if (strncmp (line, "run ", 4) == 0) {
    if (l->initial
        || sscanf (line, "run %" SCNx64 " blocks=%" SCNu32 " offset=%" SCNu64, &l->run, &l->blocks,
                   &l->offset)
             != 3
        || l->blocks == 0 || l->blocks > REC_MAX_BLOCKS)
      return -1;
    l->initial = calloc (l->blocks, sizeof *l->initial);
    return l->initial ? 0 : -1;
  }
  if (!l->initial)
    return -1;
  if (strncmp (line, "init ", 5) == 0) {
    uint64_t hash;

    if (sscanf (line, "init %" SCNu64 " %" SCNx64, &block, &hash) != 2 || block >= l->blocks)
      return -1;
    l->initial[block] = hash;
    return 0;
  }
  if (kind == 'c' || strncmp (line, "end ", 4) == 0)
    return 0;
  if (strncmp (line, "loss ", 5) == 0) {
    void *v = l->losses;

    if (sscanf (line, "loss %" SCNu64, &t) != 1 || (l->n_losses > 0 && t < l->losses[l->n_losses - 1]))
      return -1;
    grow (&v, &l->max_losses, l->n_losses, sizeof *l->losses);
    l->losses = v;
    l->losses[l->n_losses++] = t;
    if (t > l->last)
      l->last = t;
    return 0;
  }
  if (line[1] != ' ' || sscanf (line + 1, " %" SCNu64 " %u.%" SCNu64 " %n", &t, &c, &seq, &n) < 3
      || c >= REC_MAX_CONNECTIONS)
    return -1;
  if (t > l->last)
    l->last = t;
  switch (kind) {
  case 'w':
  case 'r':
    if (!n || sscanf (line + 1 + n, "%" SCNu64, &block) != 1 || block >= l->blocks)
      return -1;
    return begin_op (&pending[c], kind, t, seq, (uint32_t) block, strstr (line, " fua") != NULL);
  case 'f': return begin_op (&pending[c], kind, t, seq, 0, false);
  case 'W':
  case 'R':
  case 'F':
    if (!n)
      return -1;
    return end_op (l, &pending[c], c, (char) (kind - 'A' + 'a'), t, seq, line + 1 + n);
  default: return -1;
  }
}

static int
u64_cmp (const void *a, const void *b)
{
  uint64_t x = *(const uint64_t *) a, y = *(const uint64_t *) b;

  return x < y ? -1 : x > y;
}

/* The start of the last answered flush before the first power loss after 't'; 0: none. */
static uint64_t
latest_flush (const struct log *l, uint64_t t)
{
  uint64_t until = HIST_NEVER;
  size_t lo = 0, hi = l->n_flushes;

  for (size_t i = l->n_losses; i-- > 0 && l->losses[i] > t;)
    until = l->losses[i];
  while (lo < hi) {
    size_t mid = lo + (hi - lo) / 2;

    if (l->flushes[mid] < until)
      lo = mid + 1;
    else
      hi = mid;
  }
  return lo ? l->flushes[lo - 1] : 0;
}

/* An answered flush covers every write that was answered before the flush began. */
static void
mark_flushed (struct log *l)
{
  qsort (l->flushes, l->n_flushes, sizeof *l->flushes, u64_cmp);
  for (size_t i = 0; i < l->n; i++) {
    struct hist_op *op = &l->ops[i];

    if (op->kind != HIST_WRITE)
      continue;
    l->writes++;
    if (op->end == HIST_NEVER) {
      l->unknown++;
      continue;
    }
    if (op->end < latest_flush (l, op->end))
      op->flushed = true;
    l->acked++;
    l->flushed += op->flushed;
  }
}

static int
load (struct log *l, const char *path)
{
  struct pending *pending = calloc (REC_MAX_CONNECTIONS, sizeof *pending);
  char line[2048];
  unsigned n = 0;
  int r = -1;
  FILE *f = fopen (path, "re");

  if (!f || !pending) {
    fprintf (stderr, "recorder: %s: %s\n", path, strerror (errno));
    goto out;
  }
  while (fgets (line, sizeof line, f)) {
    n++;
    if (parse (l, pending, line) < 0) {
      fprintf (stderr, "recorder: %s:%u: not a log line: %s\n", path, n, line);
      goto out;
    }
  }
  if (!l->initial) {
    fprintf (stderr, "recorder: %s: empty log\n", path);
    goto out;
  }
  for (unsigned c = 0; c < REC_MAX_CONNECTIONS; c++)
    for (unsigned i = 0; i < pending[c].n; i++)
      if (pending[c].ops[i].kind == 'w') {
        struct hist_op *op = add (l);

        op->kind = HIST_WRITE;
        op->start = pending[c].ops[i].start;
        op->end = HIST_NEVER;
        op->block = pending[c].ops[i].block;
        op->value = REC_VALUE (c, pending[c].ops[i].seq);
      }
  mark_flushed (l);
  r = 0;
out:
  free (pending);
  if (f)
    fclose (f);
  return r;
}

static int
read_back (const struct rec_options *opt, struct log *l)
{
  uint8_t buf[REC_BLOCK_SIZE];
  char uri[REC_URI_MAX], why[256] = "";
  struct nbd_handle *nbd = NULL;
  int fd = -1, r = -1;

  if (opt->image) {
    fd = open (opt->image, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
      fprintf (stderr, "recorder: %s: %s\n", opt->image, strerror (errno));
      return -1;
    }
  }
  else {
    for (unsigned tries = 0; tries < 100 && !nbd; tries++) {
      struct timespec ts = { 0, 50000000 };

      nbd = rec_connect (opt, CONNECT_MS, uri, why, sizeof why);
      if (!nbd)
        nanosleep (&ts, NULL);
    }
    if (!nbd) {
      fprintf (stderr, "recorder: can't connect: %s\n", why);
      return -1;
    }
  }
  for (uint32_t b = 0; b < l->blocks; b++) {
    uint64_t pos = l->offset + (uint64_t) b * REC_BLOCK_SIZE;
    struct block_tag tag;
    struct hist_op *op;

    if (nbd ? nbd_pread (nbd, buf, sizeof buf, pos, 0) < 0
            : pread (fd, buf, sizeof buf, (off_t) pos) != (ssize_t) sizeof buf) {
      fprintf (stderr, "recorder: reading block %u back: %s\n", b,
               nbd ? nbd_get_error () : strerror (errno));
      goto out;
    }
    op = add (l);
    op->kind = HIST_FINAL;
    op->start = l->last + 1 + b;
    op->end = op->start + 1;
    op->block = b;
    if (block_read (buf, &tag) == BLOCK_VALID && tag.run == l->run && tag.block == b
        && tag.writer < REC_MAX_CONNECTIONS)
      op->value = REC_VALUE (tag.writer, tag.seq);
    else if (block_hash (buf) == l->initial[b])
      op->value = HIST_INITIAL;
    else {
      op->kind = HIST_BAD;
      op->value = BAD;
    }
  }
  r = 0;
out:
  nbd_close (nbd);
  if (fd >= 0)
    close (fd);
  return r;
}

static void
print_value (uint64_t v)
{
  if (v == HIST_INITIAL)
    fprintf (stderr, "the initial content");
  else if (v == BAD)
    fprintf (stderr, "content that nobody wrote there");
  else
    fprintf (stderr, "write %u.%" PRIu64, REC_VALUE_C (v), REC_VALUE_S (v));
}

static void
explain (const struct hist_result *res)
{
  for (unsigned i = 0; i < res->n_told; i++) {
    const struct hist_violation *v = &res->told[i];

    fprintf (stderr, "recorder: block %u: ", v->block);
    switch ((enum hist_fault) v->fault) {
    case HIST_DAMAGED: fprintf (stderr, "damaged: a read gave content that nobody wrote there"); break;
    case HIST_UNBORN:
      fprintf (stderr, "a read saw, before it was begun or though it never was: ");
      print_value (v->value);
      break;
    case HIST_LOST:
      fprintf (stderr, "lost: ");
      print_value (v->value);
      fprintf (stderr, " was answered; the block holds, older: ");
      print_value (v->other);
      break;
    case HIST_STALE:
      fprintf (stderr, "stale read: no order explains the reads of ");
      print_value (v->value);
      fprintf (stderr, " and ");
      print_value (v->other);
      break;
    case HIST_OK: break;
    }
    fprintf (stderr, "\n");
  }
}

int
rec_check (const struct rec_options *opt)
{
  struct log l = { 0 };
  struct hist_result res;
  bool good;
  int code = 2;

  if (load (&l, opt->log) < 0)
    goto out;
  if ((opt->image || opt->uri || opt->uri_command) && read_back (opt, &l) < 0)
    goto out;
  good = hist_check_losses (l.ops, l.n, l.losses, l.n_losses, &res);
  explain (&res);
  printf ("{\"ok\":%s,\"acknowledged\":%" PRIu64 ",\"flushed\":%" PRIu64 ",\"unknown\":%" PRIu64
          ",\"reads\":%" PRIu64 ",\"blocks\":%" PRIu64 ",\"damaged\":%" PRIu64 ",\"lost\":%" PRIu64
          ",\"lost_flushed\":%" PRIu64 ",\"stale\":%" PRIu64 ",\"unborn\":%" PRIu64 "}\n",
          good ? "true" : "false", l.acked, l.flushed, l.unknown, l.reads, res.blocks, res.damaged,
          res.lost, res.lost_flushed, res.stale, res.unborn);
  if (good && l.acked == 0) {
    fprintf (stderr, "recorder: no write was answered: nothing was checked\n");
    good = false;
  }
  code = good ? 0 : 1;
out:
  free (l.initial);
  free (l.ops);
  free (l.flushes);
  free (l.losses);
  return code;
}
