/* SPDX-License-Identifier: BSD-3-Clause */
/* The layer of storefault.h: an undo log of 4096-byte slots in a mapped file, rules read from a
 * control file, and the loss itself.  Each step on the mapped file is one that leaves a legal state
 * behind if the process dies at it: a slot counts from the moment in which its state says so, and
 * frees of one flush may be half done, because that flush has not been answered yet.
 */
#include "config.h"

#ifdef CRG_TEST

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/limits.h"
#include "common/util-posix.h"
#include "common/util.h"
#include "plugin/store.h"
#include "plugin/storefault.h"

#define SLOT_BYTES META_BLOCK_SIZE
#define N_SLOTS    8192 /* 32 MiB that are not flushed; then the oldest are written back */
#define N_RULES    16
#define FAULT_PATH 4096 /* realpath wants PATH_MAX, which is that */
#define MAGIC      "CRGFAUL2"

enum rule_op { RU_READ, RU_WRITE, RU_FLUSH, RU_META_READ, RU_META_WRITE, RU_OPS };
static const char *const op_names[RU_OPS] = { "read", "write", "flush", "meta-read", "meta-write" };
static const struct {
  const char *name;
  int value;
} error_names[] = { { "EIO", EIO }, { "ENOSPC", ENOSPC }, { "ENOMEM", ENOMEM }, { "EROFS", EROFS },
                  { "EOPNOTSUPP", EOPNOTSUPP } };

struct head {
  char magic[8];
  uint8_t boot_id[CRG_ID_LEN];
  _Atomic uint64_t counters[SF_N_COUNTERS];
  /* Where the metadata is, if not in the store: it loses its power with it. */
  uint64_t meta_from; /* UINT64_MAX: there is none */
  char meta[FAULT_PATH];
};

/* The files that an offset may be in. */
struct files {
  int store, meta; /* meta: -1 if there is none */
  uint64_t meta_from;
};

/* What one block held before a write. */
struct slot {
  _Atomic uint32_t live;
  uint16_t from, to; /* the bytes of the block that the write covers */
  uint64_t block;
  uint64_t write; /* number of the write; rises */
};

struct map {
  struct head *head;
  struct slot *slots;
  uint8_t *data; /* SLOT_BYTES for each slot */
  void *base;
};
#define HEAD_BYTES (2 * META_BLOCK_SIZE)
_Static_assert (sizeof (struct head) <= HEAD_BYTES, "the head of the map");
#define MAP_BYTES  (HEAD_BYTES + N_SLOTS * (sizeof (struct slot) + SLOT_BYTES))

struct rule {
  uint8_t op;
  int error;
  uint64_t after, times;
  bool half;
};

struct storefault {
  pthread_mutex_t lock;
  struct map map;
  bool cache;
  uint64_t seed;
  struct rule rules[N_RULES];
  unsigned n_rules;
  uint32_t delay_us[RU_OPS];
  char control[FAULT_PATH];
  struct timespec mtime;
  ino_t ino;
  uint64_t clock, last_write;
  int lost; /* the error of the last flush that a rule made fail, until storefault_lost */
  /* Beside each slot, for this process: when its write was done (0: not yet), and the next of the
   * same write or of the free list. */
  uint64_t done[N_SLOTS];
  int next[N_SLOTS];
  int free;
  unsigned n_free;
};

/* ---- the mapped file ---------------------------------------------------------------------- */

static int
map_open (struct map *m, const char *path, bool create)
{
  char name[FAULT_PATH + 8];
  CLEANUP_CLOSE int fd = -1;
  struct stat st;
  void *p;

  snprintf (name, sizeof name, "%s.cache", path);
  fd = open (name, O_RDWR | O_CLOEXEC | (create ? O_CREAT : 0), 0600);
  if (fd == -1)
    return -errno;
  if (fstat (fd, &st) == -1 || (st.st_size == 0 && ftruncate (fd, (off_t) MAP_BYTES) == -1))
    return -errno;
  if (st.st_size != 0 && (size_t) st.st_size != MAP_BYTES)
    return -EINVAL;
  p = mmap (NULL, MAP_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (p == MAP_FAILED)
    return -errno;
  m->base = p;
  m->head = p;
  m->data = (uint8_t *) p + HEAD_BYTES;
  m->slots = (void *) (m->data + (size_t) N_SLOTS * SLOT_BYTES);
  if (memcmp (m->head->magic, MAGIC, sizeof m->head->magic) != 0) {
    memset (m->head, 0, sizeof *m->head);
    for (unsigned i = 0; i < N_SLOTS; i++)
      m->slots[i].live = 0;
    m->head->meta_from = UINT64_MAX;
    memcpy (m->head->magic, MAGIC, sizeof m->head->magic);
  }
  return 0;
}

static void
map_close (struct map *m)
{
  if (m->base)
    munmap (m->base, MAP_BYTES);
  m->base = NULL;
}

static void
count (struct map *m, enum sf_counter c)
{
  atomic_fetch_add (&m->head->counters[c], 1);
}

/* ---- power loss --------------------------------------------------------------------------- */

static uint64_t
mix (uint64_t x)
{
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

static const struct map *sort_map;

static int
by_block (const void *pa, const void *pb)
{
  const struct slot *a = &sort_map->slots[*(const unsigned *) pa], *b = &sort_map->slots[*(const unsigned *) pb];

  if (a->block != b->block)
    return a->block < b->block ? -1 : 1;
  return a->write < b->write ? -1 : a->write > b->write;
}

/* Did this write reach this sector before the power went? */
static bool
is_kept (uint64_t seed, uint64_t write, uint64_t last_write, uint64_t sector)
{
  switch (seed % 4) {
  case 0: /* nothing of it */
    return false;
  case 1: /* whole writes, any of them */
    return mix (seed ^ mix (write)) & 1;
  case 2: /* sectors, any of them */
    return mix (seed ^ mix (write) ^ mix (sector << 20)) & 1;
  default: /* the older ones; the youngest of these torn */
    return write + mix (seed) % 64 < last_write
           || (write + mix (seed) % 64 == last_write && (mix (seed ^ mix (sector)) & 1));
  }
}

static int
file_of (const struct files *f, uint64_t number, off_t *at)
{
  uint64_t offset = number * SLOT_BYTES;
  bool is_meta = offset >= f->meta_from;

  *at = (off_t) (is_meta ? offset - f->meta_from : offset);
  return is_meta ? f->meta : f->store;
}

static int
read_block (const struct files *f, uint8_t *block, uint64_t number)
{
  off_t at;
  int fd = file_of (f, number, &at);
  ssize_t r = pread (fd, block, SLOT_BYTES, at);

  return r < 0 ? -errno : (int) r;
}

/* All live slots of one block, oldest first.  Returns how many sectors changed, or -errno. */
static int
lose_block (struct map *m, const struct files *f, const unsigned *of, unsigned n, uint64_t seed, uint64_t last_write)
{
  uint8_t now[SLOT_BYTES], before[SLOT_BYTES];
  CLEANUP_FREE uint8_t *after = malloc ((size_t) n * SLOT_BYTES);
  uint64_t number = m->slots[of[0]].block;
  int r = read_block (f, now, number), changed = 0;
  int have = r;

  if (!after)
    return -ENOMEM;
  if (r < 0)
    return r;
  memcpy (before, now, SLOT_BYTES);
  for (unsigned i = n; i-- > 0;) {
    const struct slot *s = &m->slots[of[i]];

    memcpy (after + (size_t) i * SLOT_BYTES, now, SLOT_BYTES);
    memcpy (now + s->from, m->data + (size_t) of[i] * SLOT_BYTES + s->from, (size_t) (s->to - s->from));
  }
  for (unsigned i = 0; i < n; i++) {
    const struct slot *s = &m->slots[of[i]];

    for (unsigned at = s->from; at < s->to;) {
      unsigned end = MIN ((at / 512 + 1) * 512, s->to);

      if (is_kept (seed, s->write, last_write, number * (SLOT_BYTES / 512) + at / 512))
        memcpy (now + at, after + (size_t) i * SLOT_BYTES + at, end - at);
      at = end;
    }
  }
  for (unsigned at = 0; at < SLOT_BYTES; at += 512)
    changed += memcmp (now + at, before + at, 512) != 0;
  if (changed > 0) {
    /* Not past the end of a store that is no multiple of a block. */
    off_t at;
    int fd = file_of (f, number, &at);
    ssize_t w = pwrite (fd, now, (size_t) have, at);

    if (w != have)
      return w < 0 ? -errno : -EIO;
  }
  return changed;
}

static int
lose (struct map *m, const char *path, uint64_t seed, char *report, size_t report_len)
{
  CLEANUP_FREE unsigned *live = malloc (N_SLOTS * sizeof *live);
  CLEANUP_CLOSE int fd = open (path, O_RDWR | O_CLOEXEC), meta = -1;
  struct files files = { .store = fd, .meta = -1, .meta_from = m->head->meta_from };
  unsigned n = 0, sectors = 0, next;
  uint64_t last_write = 0;

  if (!live)
    return -ENOMEM;
  if (fd == -1)
    return -errno;
  if (files.meta_from != UINT64_MAX) {
    files.meta = meta = open (m->head->meta, O_RDWR | O_CLOEXEC);
    if (meta == -1)
      return -errno;
  }
  for (unsigned i = 0; i < N_SLOTS; i++)
    if (m->slots[i].live) {
      live[n++] = i;
      last_write = MAX (last_write, m->slots[i].write);
    }
  sort_map = m;
  qsort (live, n, sizeof *live, by_block);
  for (unsigned i = 0; i < n; i = next) {
    int r;

    for (next = i + 1; next < n && m->slots[live[next]].block == m->slots[live[i]].block; next++)
      ;
    r = lose_block (m, &files, live + i, next - i, seed, last_write);
    if (r < 0)
      return r;
    sectors += (unsigned) r;
  }
  for (unsigned i = 0; i < n; i++)
    atomic_store (&m->slots[live[i]].live, 0);
  if (n > 0)
    count (m, SF_N_LOSSES);
  snprintf (report, report_len, "%u blocks were not flushed; %u sectors lost what was written last", n, sectors);
  return 0;
}

int
storefault_power_loss (const char *path, uint64_t seed, char *report, size_t report_len)
{
  struct map m = { 0 };
  int r = map_open (&m, path, false);

  if (r < 0)
    return r;
  r = lose (&m, path, seed, report, report_len);
  map_close (&m);
  return r;
}

int
storefault_counters (const char *path, uint64_t counters[SF_N_COUNTERS])
{
  struct map m = { 0 };
  int r = map_open (&m, path, false);

  if (r < 0)
    return r;
  for (unsigned i = 0; i < SF_N_COUNTERS; i++)
    counters[i] = atomic_load (&m.head->counters[i]);
  map_close (&m);
  return 0;
}

const char *
storefault_counter_name (enum sf_counter c)
{
  static const char *const names[SF_N_COUNTERS] = {
    "reads", "writes", "zeroes", "flushes", "meta-reads", "meta-writes", "stable-writes", "failed", "losses",
  };

  return names[c];
}

/* ---- rules -------------------------------------------------------------------------------- */

static void
bad_rule (const struct storefault *f, const char *line)
{
  /* A test with a wrong rule would show nothing. */
  fprintf (stderr, "storefault: %s: no such rule: %s\n", f->control, line);
  abort ();
}

static int
op_of (const char *name)
{
  for (int i = 0; i < RU_OPS; i++)
    if (strcmp (op_names[i], name) == 0)
      return i;
  return -1;
}

static void
parse_fail (struct storefault *f, char *words, const char *line)
{
  char *save, *w = strtok_r (words, " ", &save);
  struct rule r = { .times = UINT64_MAX };
  int op = w ? op_of (w) : -1;

  w = strtok_r (NULL, " ", &save);
  for (unsigned i = 0; w && i < ARRAY_SIZE (error_names); i++)
    if (strcmp (error_names[i].name, w) == 0)
      r.error = error_names[i].value;
  if (op < 0 || r.error == 0 || f->n_rules == N_RULES)
    bad_rule (f, line);
  r.op = (uint8_t) op;
  while ((w = strtok_r (NULL, " ", &save))) {
    if (strcmp (w, "half") == 0)
      r.half = true;
    else if (strcmp (w, "after") == 0 && (w = strtok_r (NULL, " ", &save)))
      r.after = strtoull (w, NULL, 10);
    else if (w && strcmp (w, "times") == 0 && (w = strtok_r (NULL, " ", &save)))
      r.times = strtoull (w, NULL, 10);
    else
      bad_rule (f, line);
  }
  f->rules[f->n_rules++] = r;
}

/* Called with the lock held. */
static void
read_rules (struct storefault *f)
{
  CLEANUP_FCLOSE FILE *fp = NULL;
  struct stat st;
  char line[256], copy[256], op[32];
  unsigned long long n;

  if (stat (f->control, &st) == -1)
    memset (&st, 0, sizeof st);
  if (st.st_ino == f->ino && st.st_mtim.tv_sec == f->mtime.tv_sec && st.st_mtim.tv_nsec == f->mtime.tv_nsec)
    return;
  f->ino = st.st_ino;
  f->mtime = st.st_mtim;
  f->cache = false;
  f->n_rules = 0;
  memset (f->delay_us, 0, sizeof f->delay_us);
  fp = fopen (f->control, "re");
  while (fp && fgets (line, sizeof line, fp)) {
    line[strcspn (line, "#\n")] = '\0';
    strcpy (copy, line);
    if (line[strspn (line, " ")] == '\0')
      continue;
    n = 0;
    if (strcmp (line, "cache") == 0 || sscanf (line, "cache %llu", &n) == 1) {
      f->cache = true;
      f->seed = n;
    }
    else if (sscanf (line, "delay %31s %llu", op, &n) == 2 && op_of (op) >= 0)
      f->delay_us[op_of (op)] = (uint32_t) n;
    else if (strncmp (line, "fail ", 5) == 0)
      parse_fail (f, copy + 5, line);
    else
      bad_rule (f, line);
  }
}

static enum rule_op
rule_op (const struct store *s, enum sf_op op, uint64_t offset)
{
  if (op == SF_FLUSH)
    return RU_FLUSH;
  if (offset >= s->data_bytes)
    return op == SF_READ ? RU_META_READ : RU_META_WRITE;
  return op == SF_READ ? RU_READ : RU_WRITE;
}

/* The rule that makes this operation fail, or NULL.  Each rule counts what it could have hit. */
static const struct rule *
failing (struct storefault *f, enum rule_op op, bool stable)
{
  const struct rule *hit = NULL;

  for (unsigned i = 0; i < f->n_rules; i++) {
    struct rule *r = &f->rules[i];

    if (r->op != op && !(stable && r->op == RU_FLUSH))
      continue;
    if (r->after > 0)
      r->after--;
    else if (r->times > 0 && !hit) {
      if (r->times != UINT64_MAX)
        r->times--;
      hit = r;
    }
  }
  return hit;
}

/* ---- the cache ---------------------------------------------------------------------------- */

static void
slot_free (struct storefault *f, int i)
{
  atomic_store (&f->map.slots[i].live, 0);
  f->next[i] = f->free;
  f->free = i;
  f->n_free++;
}

static bool
is_meta (const struct storefault *f, uint64_t offset)
{
  return offset >= f->map.head->meta_from;
}

/* What was done up to 'clock' is stable. */
static void
make_stable (struct storefault *f, uint64_t clock, bool data, bool meta)
{
  for (int i = 0; i < N_SLOTS && f->n_free < N_SLOTS; i++)
    if (f->map.slots[i].live && f->done[i] != 0 && f->done[i] <= clock
        && (is_meta (f, f->map.slots[i].block * SLOT_BYTES) ? meta : data))
      slot_free (f, i);
}

/* Older content of [offset, end) can't come back: a stable write has replaced it. */
static void
make_range_stable (struct storefault *f, uint64_t offset, uint64_t end, uint64_t clock)
{
  for (int i = 0; i < N_SLOTS && f->n_free < N_SLOTS; i++) {
    struct slot *s = &f->map.slots[i];
    uint64_t from, to;

    if (!s->live || f->done[i] == 0 || f->done[i] > clock)
      continue;
    from = s->block * SLOT_BYTES + s->from;
    to = s->block * SLOT_BYTES + s->to;
    if (to <= offset || end <= from)
      continue;
    if (offset <= from && to <= end)
      slot_free (f, i);
    else if (offset <= from)
      s->from = (uint16_t) (end - s->block * SLOT_BYTES);
    else if (to <= end)
      s->to = (uint16_t) (offset - s->block * SLOT_BYTES);
    else /* in its middle: all of it is written back, as a cache may do */
      slot_free (f, i);
  }
}

/* Keeps what [offset, end) holds now.  False: there is no room, and the write goes through. */
static bool
keep (struct storefault *f, const struct files *files, uint64_t offset, uint64_t end, uint64_t write, int *first)
{
  uint64_t n = div_round_up (end, SLOT_BYTES) - offset / SLOT_BYTES;

  if (n > f->n_free)
    make_stable (f, UINT64_MAX, true, true); /* the cache is full, and is written back */
  if (n > f->n_free)
    return false;
  for (uint64_t at = offset; at < end;) {
    uint64_t block = at / SLOT_BYTES, to = MIN (end, (block + 1) * SLOT_BYTES);
    int i = f->free, r;
    struct slot *s = &f->map.slots[i];
    uint8_t *data = f->map.data + (size_t) i * SLOT_BYTES;

    r = read_block (files, data, block);
    if (r < 0)
      return false;
    if (r < (int) SLOT_BYTES)
      memset (data + r, 0, SLOT_BYTES - (size_t) r);
    f->free = f->next[i];
    f->n_free--;
    s->block = block;
    s->from = (uint16_t) (at % SLOT_BYTES);
    s->to = (uint16_t) (to - block * SLOT_BYTES);
    s->write = write;
    f->done[i] = 0;
    f->next[i] = *first;
    *first = i;
    atomic_store (&s->live, 1);
    at = to;
  }
  return true;
}

/* The same for a range that becomes zeroes: holes in it stay what they are. */
static bool
keep_zero (struct storefault *f, const struct files *files, uint64_t offset, uint64_t end, uint64_t write, int *first)
{
  uint64_t at = offset;

  while (at < end) {
    off_t data = lseek (files->store, (off_t) at, SEEK_DATA), hole;

    if (data == (off_t) -1)
      return errno == ENXIO || keep (f, files, at, end, write, first);
    if ((uint64_t) data >= end)
      return true;
    hole = lseek (files->store, data, SEEK_HOLE);
    if (hole == (off_t) -1 || !keep (f, files, MAX ((uint64_t) data, at), MIN ((uint64_t) hole, end), write, first))
      return false;
    at = (uint64_t) hole;
  }
  return true;
}

/* ---- one operation ------------------------------------------------------------------------ */

int
storefault_begin (struct store *s, enum sf_op op, uint64_t offset, uint64_t length, const void *data, bool stable,
                  struct sf_token *t)
{
  struct storefault *f = s->fault;
  enum rule_op ro = rule_op (s, op, offset);
  const struct rule *rule;

  memset (t, 0, sizeof *t);
  if (!f)
    return 0;
  LOCK_SCOPE (&f->lock);
  read_rules (f);
  t->on = true;
  t->op = (uint8_t) op;
  t->stable = stable;
  t->offset = offset;
  t->length = length;
  t->first = -1;
  count (&f->map, ro == RU_META_READ    ? SF_N_META_READ
                  : ro == RU_META_WRITE ? SF_N_META_WRITE
                  : op == SF_READ       ? SF_N_READ
                  : op == SF_WRITE      ? SF_N_WRITE
                  : op == SF_ZERO       ? SF_N_ZERO
                                        : SF_N_FLUSH);
  if (stable)
    count (&f->map, SF_N_STABLE);
  rule = failing (f, ro, stable);
  if (f->cache && (op == SF_WRITE || op == SF_ZERO) && length > 0 && !(rule && !rule->half)) {
    const struct files files = { .store = s->fd, .meta = s->meta.fd, .meta_from = s->meta.from };
    bool kept = op == SF_WRITE ? keep (f, &files, offset, offset + length, ++f->last_write, &t->first)
                               : keep_zero (f, &files, offset, offset + length, ++f->last_write, &t->first);

    if (!kept)
      t->stable = true;
  }
  t->clock = f->clock;
  if (!rule)
    return 0;
  count (&f->map, SF_N_FAILED);
  if (rule->op == RU_FLUSH)
    f->lost = rule->error;
  if (rule->half && op == SF_WRITE && data) {
    uint64_t half = round_down (length / 2, (uint64_t) MAX (s->align, 512u)), at = offset;
    int fd = store_at (s, &at);

    if (half > 0 && pwrite (fd, data, (size_t) half, (off_t) at) != (ssize_t) half)
      fprintf (stderr, "storefault: the half of a write that fails: %s\n", strerror (errno));
  }
  for (int i = t->first; i != -1; i = f->next[i])
    f->done[i] = ++f->clock;
  t->on = false;
  return -rule->error;
}

void
storefault_end (struct store *s, struct sf_token *t, int64_t res)
{
  struct storefault *f = s->fault;

  if (!f || !t->on)
    return;
  LOCK_SCOPE (&f->lock);
  t->on = false;
  if (t->op == SF_READ)
    return;
  if (t->op == SF_FLUSH) {
    if (res >= 0)
      make_stable (f, t->clock, !is_meta (f, t->offset), is_meta (f, t->offset));
    return;
  }
  f->clock++;
  for (int i = t->first; i != -1; i = f->next[i])
    f->done[i] = f->clock;
  if (!t->stable || res < 0)
    return;
  make_range_stable (f, t->offset, t->op == SF_ZERO ? t->offset + t->length : t->offset + (uint64_t) res, f->clock);
}

int
storefault_lost (struct store *s)
{
  struct storefault *f = s->fault;
  int error;

  if (!f)
    return 0;
  LOCK_SCOPE (&f->lock);
  error = f->lost;
  f->lost = 0;
  return -error;
}

uint32_t
storefault_delay_us (struct store *s, enum sf_op op, uint64_t offset)
{
  struct storefault *f = s->fault;

  if (!f)
    return 0;
  LOCK_SCOPE (&f->lock);
  read_rules (f);
  return f->delay_us[rule_op (s, op, offset)];
}

/* ---- life --------------------------------------------------------------------------------- */

int
storefault_open (struct store *s, const char *path)
{
  struct storefault *f;
  char real[FAULT_PATH], report[128];
  uint8_t boot_id[CRG_ID_LEN];
  int r;

  if (!realpath (path, real))
    return 0;
  f = calloc (1, sizeof *f);
  if (!f)
    return -ENOMEM;
  if (snprintf (f->control, sizeof f->control, "%s.faults", real) >= (int) sizeof f->control
      || access (f->control, F_OK) == -1) {
    free (f);
    return 0;
  }
  r = map_open (&f->map, real, true);
  if (r < 0) {
    fprintf (stderr, "storefault: %s.cache: %s\n", real, strerror (-r));
    free (f);
    return r;
  }
  pthread_mutex_init (&f->lock, NULL);
  read_rules (f);
  if (clock_boot_id (boot_id) == 0 && memcmp (boot_id, f->map.head->boot_id, CRG_ID_LEN) != 0) {
    r = lose (&f->map, real, f->seed, report, sizeof report);
    if (r < 0) {
      fprintf (stderr, "storefault: %s: power loss: %s\n", real, strerror (-r));
      abort ();
    }
    fprintf (stderr, "storefault: %s: another machine or boot: %s\n", real, report);
    memcpy (f->map.head->boot_id, boot_id, CRG_ID_LEN);
  }
  f->map.head->meta_from = s->meta.from;
  if (s->meta.fd != -1 && !realpath (s->meta_path, f->map.head->meta)) {
    fprintf (stderr, "storefault: %s: %s\n", s->meta_path, strerror (errno));
    abort ();
  }
  f->clock = 1;
  f->free = -1;
  for (int i = N_SLOTS - 1; i >= 0; i--) {
    f->done[i] = 1;
    f->last_write = MAX (f->last_write, f->map.slots[i].live ? f->map.slots[i].write : 0);
    if (!f->map.slots[i].live)
      slot_free (f, i);
  }
  s->fault = f;
  return 0;
}

void
storefault_close (struct store *s)
{
  struct storefault *f = s->fault;

  if (!f)
    return;
  s->fault = NULL;
  map_close (&f->map);
  pthread_mutex_destroy (&f->lock);
  free (f);
}

#else
typedef int storefault_is_empty; /* ISO C wants a declaration */
#endif
