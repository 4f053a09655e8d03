/* SPDX-License-Identifier: BSD-3-Clause */
/* The recording half.  One thread a connection, each with its own libnbd handle and a number of
 * slots; a slot has at most one request in flight.  Shared are the log (one write(2) a line), a
 * count of started operations and the list of pauses.  A request that isn't answered, whatever
 * the reason, is left open in the log: its outcome is unknown.
 */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include <libnbd.h>

#include "tests/recorder/recorder.h"

#define CONNECT_MS 3000
#define RETRY_MS 50
#define HOT_BLOCKS 16   /* half of all operations go here, so that writers meet */
#define MAX_PAUSES 512  /* pauses that are kept one by one; the longest is always known */
#define PAUSE_NS UINT64_C (100000000)

struct slot {
  bool busy;
  char kind; /* w, r, f */
  uint64_t seq, block;
  int64_t cookie;
  uint64_t since;
  uint8_t *buf;
};

struct conn {
  unsigned id;
  pthread_t thread;
  uint64_t rnd;
  uint64_t seq;
  uint64_t next; /* ns: not before, if a rate is set */
  struct nbd_handle *nbd;
  char uri[REC_URI_MAX];
  struct slot slots[REC_MAX_DEPTH];
  uint64_t writes, acked, reads, flushes, errors, unknown, connects;
};

static const struct rec_options *opt;
static int log_fd = -1;
static uint64_t run_id, deadline;
static uint64_t *initial; /* hash of each block */
static atomic_int *in_use; /* --apart, of each block: number of reads in flight, or -1: a write */
static atomic_uint_fast64_t started;
static atomic_bool trouble;
static _Atomic int stopped; /* by a signal; threads look at it */

static pthread_mutex_t pause_lock = PTHREAD_MUTEX_INITIALIZER;
static uint64_t last_answer, longest, longest_at, first_answer;
static struct {
  uint64_t at, len;
} pauses[MAX_PAUSES];
static unsigned n_pauses;

static void
on_signal (int sig)
{
  (void) sig;
  stopped = 1;
}

static void __attribute__ ((format (printf, 1, 2)))
say (const char *fmt, ...)
{
  char line[REC_URI_MAX + 256];
  va_list args;
  int n;

  va_start (args, fmt);
  n = vsnprintf (line, sizeof line - 1, fmt, args);
  va_end (args);
  if (n > (int) sizeof line - 2)
    n = sizeof line - 2;
  line[n++] = '\n';
  if (write (log_fd, line, (size_t) n) != n) {
    perror ("recorder: log");
    trouble = true;
  }
}

/* An answer has come: note the time since the one before. */
static void
answered (uint64_t now)
{
  pthread_mutex_lock (&pause_lock);
  if (!first_answer)
    first_answer = now;
  if (last_answer && now > last_answer) {
    uint64_t len = now - last_answer;

    if (len > longest) {
      longest = len;
      longest_at = last_answer;
    }
    if (len >= PAUSE_NS && n_pauses < MAX_PAUSES) {
      pauses[n_pauses].at = last_answer;
      pauses[n_pauses++].len = len;
    }
  }
  if (now > last_answer)
    last_answer = now;
  pthread_mutex_unlock (&pause_lock);
}

static uint64_t
rnd (struct conn *c)
{
  c->rnd ^= c->rnd << 13;
  c->rnd ^= c->rnd >> 7;
  c->rnd ^= c->rnd << 17;
  return c->rnd;
}

static bool
may_start (void)
{
  return !stopped && !trouble && rec_now () < deadline
         && (!opt->count || atomic_load (&started) < opt->count);
}

static bool
take_turn (struct conn *c)
{
  if (opt->rate) {
    uint64_t now = rec_now (), step = UINT64_C (1000000000) * opt->connections / opt->rate;

    if (now < c->next)
      return false;
    c->next = now - c->next > 10 * step ? now + step : c->next + step;
  }
  return !opt->count || atomic_fetch_add (&started, 1) < opt->count;
}

static bool
take_block (uint64_t block, bool write)
{
  int n = atomic_load (&in_use[block]);

  return (write ? n == 0 : n >= 0)
         && atomic_compare_exchange_strong (&in_use[block], &n, write ? -1 : n + 1);
}

static void
release_block (const struct slot *s)
{
  if (opt->apart && s->kind != 'f')
    atomic_fetch_add (&in_use[s->block], s->kind == 'w' ? 1 : -1);
}

static void
start_one (struct conn *c, struct slot *s)
{
  uint64_t pos;
  bool fua;

  s->seq = ++c->seq;
  s->kind = opt->flush_every && s->seq % opt->flush_every == 0 ? 'f'
            : rnd (c) % 100 < opt->reads                       ? 'r'
                                                               : 'w';
  for (unsigned tries = 0; s->kind != 'f'; tries++) {
    s->block = rnd (c) % 2 && opt->blocks > HOT_BLOCKS ? rnd (c) % HOT_BLOCKS
                                                        : rnd (c) % opt->blocks;
    if (!opt->apart || take_block (s->block, s->kind == 'w'))
      break;
    if (tries == 20)
      s->kind = 'f';
  }
  pos = opt->offset + s->block * REC_BLOCK_SIZE;
  s->since = rec_now ();
  if (s->kind == 'f') {
    say ("f %llu %u.%llu", (unsigned long long) s->since, c->id, (unsigned long long) s->seq);
    s->cookie = nbd_aio_flush (c->nbd, NBD_NULL_COMPLETION, 0);
  }
  else if (s->kind == 'r') {
    memset (s->buf, 0xdb, REC_BLOCK_SIZE);
    say ("r %llu %u.%llu %llu", (unsigned long long) s->since, c->id, (unsigned long long) s->seq,
         (unsigned long long) s->block);
    s->cookie = nbd_aio_pread (c->nbd, s->buf, REC_BLOCK_SIZE, pos, NBD_NULL_COMPLETION, 0);
  }
  else {
    struct block_tag tag = { run_id, s->block, s->seq, c->id };

    fua = rnd (c) % 100 < opt->fua;
    block_make (&tag, s->buf);
    say ("w %llu %u.%llu %llu%s", (unsigned long long) s->since, c->id,
         (unsigned long long) s->seq, (unsigned long long) s->block, fua ? " fua" : "");
    c->writes++;
    s->cookie = nbd_aio_pwrite (c->nbd, s->buf, REC_BLOCK_SIZE, pos, NBD_NULL_COMPLETION,
                                fua ? LIBNBD_CMD_FLAG_FUA : 0);
  }
  s->busy = true;
}

static void
name_value (uint64_t block, const uint8_t *buf, char *text, size_t len)
{
  struct block_tag tag;
  uint64_t hash = block_hash (buf);

  if (block_read (buf, &tag) == BLOCK_VALID && tag.run == run_id && tag.block == block)
    snprintf (text, len, "%u.%llu", tag.writer, (unsigned long long) tag.seq);
  else if (hash == initial[block])
    snprintf (text, len, "init");
  else
    snprintf (text, len, "bad %016llx", (unsigned long long) hash);
}

/* The request of slot 's' is over: 'r' is 1 with an answer, -1 without or with an error. */
static void
end_one (struct conn *c, struct slot *s, int r, int err)
{
  uint64_t now = rec_now ();
  char value[64] = "ok";

  s->busy = false;
  release_block (s);
  if (r < 0) {
    c->errors++;
    if (s->kind == 'w')
      c->unknown++;
    say ("%c %llu %u.%llu err %d", s->kind - 'a' + 'A', (unsigned long long) now, c->id,
         (unsigned long long) s->seq, err);
    return;
  }
  if (s->kind == 'r')
    name_value (s->block, s->buf, value, sizeof value);
  say ("%c %llu %u.%llu %s", s->kind - 'a' + 'A', (unsigned long long) now, c->id,
       (unsigned long long) s->seq, value);
  answered (now);
  c->acked += s->kind == 'w';
  c->reads += s->kind == 'r';
  c->flushes += s->kind == 'f';
}

static void
drop (struct conn *c, const char *why)
{
  say ("c %llu %u lost: %s", (unsigned long long) rec_now (), c->id, why);
  for (unsigned i = 0; i < opt->depth; i++)
    if (c->slots[i].busy)
      end_one (c, &c->slots[i], -1, ENOTCONN);
  nbd_close (c->nbd); /* the buffers are free after this, not before */
  c->nbd = NULL;
}

static void
nap (unsigned ms)
{
  struct timespec ts = { 0, (long) ms * 1000000 };

  nanosleep (&ts, NULL);
}

/* One look at what has come.  Returns the number of requests in flight. */
static unsigned
collect (struct conn *c, uint64_t *oldest)
{
  unsigned busy = 0;
  bool refused = false;

  *oldest = HIST_NEVER;
  for (unsigned i = 0; i < opt->depth; i++) {
    struct slot *s = &c->slots[i];
    int r;

    if (!s->busy)
      continue;
    r = s->cookie < 0 ? -1 : nbd_aio_command_completed (c->nbd, (uint64_t) s->cookie);
    if (r == 0) {
      busy++;
      if (s->since < *oldest)
        *oldest = s->since;
      continue;
    }
    end_one (c, s, r, r < 0 ? nbd_get_errno () : 0);
    refused |= r < 0;
  }
  if (nbd_aio_is_dead (c->nbd) || nbd_aio_is_closed (c->nbd)) {
    drop (c, "connection closed");
    return 0;
  }
  if (refused) { /* an error for one request: the server is going away, or not production */
    drop (c, "error from the server");
    nap (RETRY_MS);
    return 0;
  }
  return busy;
}

static void *
connection (void *arg)
{
  struct conn *c = arg;
  char why[256] = "", was[256] = "";
  uint64_t give_up = 0, asked = 0, oldest;

  for (;;) {
    bool more = may_start ();
    unsigned busy;

    if (!more && !give_up)
      give_up = rec_now () + (uint64_t) opt->drain_ms * 1000000u;
    if (!c->nbd) {
      if (!more)
        break;
      c->nbd = rec_connect (opt, CONNECT_MS, c->uri, why, sizeof why);
      if (!c->nbd) {
        if (strcmp (why, was) != 0)
          say ("c %llu %u %s", (unsigned long long) rec_now (), c->id, why);
        memcpy (was, why, sizeof was);
        nap (RETRY_MS);
        continue;
      }
      was[0] = 0;
      c->connects++;
      say ("c %llu %u connected to %s", (unsigned long long) rec_now (), c->id, c->uri);
    }
    for (unsigned i = 0; more && i < opt->depth; i++)
      if (!c->slots[i].busy) {
        if (!take_turn (c))
          break;
        start_one (c, &c->slots[i]);
      }
    busy = collect (c, &oldest);
    if (!c->nbd)
      continue;
    if (!more && (busy == 0 || rec_now () > give_up)) {
      if (busy)
        say ("c %llu %u %u requests have no answer at the end", (unsigned long long) rec_now (),
             c->id, busy);
      break;
    }
    if (busy && oldest != HIST_NEVER && opt->op_timeout_ms) {
      uint64_t now = rec_now (), limit = (uint64_t) opt->op_timeout_ms * 1000000u;
      char uri[REC_URI_MAX];

      if (now > oldest + limit && now > asked + limit) {
        asked = now;
        if (rec_ask_uri (opt, uri) == 0 && strcmp (uri, c->uri) != 0) {
          drop (c, "no answer, and production is elsewhere");
          continue;
        }
      }
    }
    if (nbd_poll (c->nbd, opt->rate ? 2 : 20) < 0)
      drop (c, nbd_get_error () ? nbd_get_error () : "poll");
  }
  for (unsigned i = 0; i < opt->depth; i++)
    if (c->slots[i].busy && c->slots[i].kind == 'w')
      c->unknown++;
  if (c->nbd)
    nbd_close (c->nbd);
  return NULL;
}

/* What is there before the first write, block by block, through one connection. */
static int
read_initial (void)
{
  uint8_t buf[REC_BLOCK_SIZE];
  char uri[REC_URI_MAX], why[256] = "";
  struct nbd_handle *nbd = NULL;
  int64_t size;

  for (unsigned tries = 0; tries < 100 && !nbd && !stopped; tries++) {
    nbd = rec_connect (opt, CONNECT_MS, uri, why, sizeof why);
    if (!nbd)
      nap (RETRY_MS);
  }
  if (!nbd) {
    fprintf (stderr, "recorder: can't connect: %s\n", why);
    return -1;
  }
  size = nbd_get_size (nbd);
  if (size < 0 || (uint64_t) size < opt->offset + (uint64_t) opt->blocks * REC_BLOCK_SIZE) {
    fprintf (stderr, "recorder: the export has %lld bytes, too few for %u blocks at %llu\n",
             (long long) size, opt->blocks, (unsigned long long) opt->offset);
    nbd_close (nbd);
    return -1;
  }
  for (uint32_t b = 0; b < opt->blocks; b++) {
    if (nbd_pread (nbd, buf, sizeof buf, opt->offset + (uint64_t) b * REC_BLOCK_SIZE, 0) < 0) {
      fprintf (stderr, "recorder: first read of block %u: %s\n", b, nbd_get_error ());
      nbd_close (nbd);
      return -1;
    }
    initial[b] = block_hash (buf);
    say ("init %u %016llx", b, (unsigned long long) initial[b]);
  }
  nbd_close (nbd);
  return 0;
}

int
rec_run (const struct rec_options *o)
{
  struct conn *conns;
  struct sigaction sa = { .sa_handler = on_signal };
  uint64_t begun, writes = 0, acked = 0, reads = 0, flushes = 0, errors = 0, unknown = 0;
  uint64_t reconnects = 0;
  uint8_t *bufs;

  opt = o;
  log_fd = open (opt->log, O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0644);
  if (log_fd < 0) {
    fprintf (stderr, "recorder: %s: %s\n", opt->log, strerror (errno));
    return 2;
  }
  sigaction (SIGTERM, &sa, NULL);
  sigaction (SIGINT, &sa, NULL);
  signal (SIGPIPE, SIG_IGN);
  if (getrandom (&run_id, sizeof run_id, 0) != sizeof run_id)
    return 2;
  conns = calloc (opt->connections, sizeof *conns);
  initial = calloc (opt->blocks, sizeof *initial);
  bufs = calloc ((size_t) opt->connections * opt->depth, REC_BLOCK_SIZE);
  in_use = calloc (opt->blocks, sizeof *in_use);
  if (!conns || !initial || !bufs || !in_use) {
    fprintf (stderr, "recorder: out of memory\n");
    return 2;
  }
  say ("run %016llx blocks=%u offset=%llu connections=%u depth=%u seed=%llu",
       (unsigned long long) run_id, opt->blocks, (unsigned long long) opt->offset,
       opt->connections, opt->depth, (unsigned long long) opt->seed);
  if (read_initial () < 0)
    return 2;
  begun = rec_now ();
  deadline = begun + (uint64_t) opt->seconds * 1000000000u;
  for (unsigned i = 0; i < opt->connections; i++) {
    struct conn *c = &conns[i];

    c->id = i;
    c->rnd = (opt->seed + 1) * 0x9e3779b97f4a7c15u ^ (uint64_t) (i + 1) * 0xbf58476d1ce4e5b9u;
    for (unsigned j = 0; j < opt->depth; j++)
      c->slots[j].buf = bufs + ((size_t) i * opt->depth + j) * REC_BLOCK_SIZE;
    if (pthread_create (&c->thread, NULL, connection, c) != 0) {
      perror ("recorder: pthread_create");
      exit (2);
    }
  }
  for (unsigned i = 0; i < opt->connections; i++) {
    struct conn *c = &conns[i];

    pthread_join (c->thread, NULL);
    writes += c->writes;
    acked += c->acked;
    reads += c->reads;
    flushes += c->flushes;
    errors += c->errors;
    unknown += c->unknown;
    reconnects += c->connects ? c->connects - 1 : 0;
  }
  say ("end %llu", (unsigned long long) rec_now ());
  printf ("{\"run\":\"%016llx\",\"seconds\":%.1f,\"writes\":%llu,\"acknowledged\":%llu,"
          "\"reads\":%llu,\"flushes\":%llu,\"unknown\":%llu,\"errors\":%llu,\"reconnects\":%llu,"
          "\"longest_pause_ms\":%llu,\"longest_pause_at_ms\":%llu,\"pauses_ms\":[",
          (unsigned long long) run_id, (double) (rec_now () - begun) / 1e9,
          (unsigned long long) writes, (unsigned long long) acked, (unsigned long long) reads,
          (unsigned long long) flushes, (unsigned long long) unknown,
          (unsigned long long) errors, (unsigned long long) reconnects,
          (unsigned long long) longest / 1000000,
          (unsigned long long) (longest_at ? (longest_at - begun) / 1000000 : 0));
  for (unsigned i = 0; i < n_pauses; i++)
    printf ("%s%llu", i ? "," : "", (unsigned long long) pauses[i].len / 1000000);
  printf ("]}\n");
  free (conns);
  free (initial);
  free (in_use);
  free (bufs);
  close (log_fd);
  return trouble || acked == 0 ? 2 : 0;
}
