/* SPDX-License-Identifier: BSD-3-Clause */
/* Store operations as small step machines: each completion of the ring leads to the next step.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "common/limits.h"
#include "common/util.h"
#include "plugin/sop.h"

enum step {
  ST_DELAY,      /* fault injection, before the rest */
  ST_READ,       /* pos .. end into at */
  ST_EDGE_HEAD,  /* write: the unit with the first byte is read */
  ST_EDGE_TAIL,  /* write: the unit with the last byte is read */
  ST_WRITE,      /* pos .. end from at */
  ST_FALLOCATE,  /* zero: from .. to */
  ST_ZERO_MID,   /* zero: from .. to in pieces of zeroes */
  ST_ZERO_HEAD_READ, ST_ZERO_HEAD, /* zero: offset .. from */
  ST_ZERO_TAIL_READ, ST_ZERO_TAIL, /* zero: to .. offset + length */
  ST_FLUSH_DELAY,
  ST_FLUSH,
  ST_LOST,       /* a write failed with op->error: are pages of earlier ones lost? */
};

static void step_done (struct ring_op *ring, int res);
static void begin (struct sop *op, enum step step);

int
sop_env_init (struct sop_env *env, struct ring *ring, struct store *store)
{
  void *p;

  memset (env, 0, sizeof *env);
  env->ring = ring;
  env->store = store;
  if (posix_memalign (&p, META_BLOCK_SIZE, SOP_ZERO_BYTES) != 0)
    return -ENOMEM;
  memset (p, 0, SOP_ZERO_BYTES);
  env->zeroes = p;
  env->memory_end = &env->memory;
  return 0;
}

void
sop_env_free (struct sop_env *env)
{
  free (env->zeroes);
  env->zeroes = NULL;
}

int
sop_init (struct sop *op, struct sop_env *env, sop_done_fn done)
{
  void *p;

  memset (op, 0, sizeof *op);
  if (posix_memalign (&p, META_BLOCK_SIZE, META_BLOCK_SIZE) != 0)
    return -ENOMEM;
  op->edge = p;
  op->env = env;
  op->done = done;
  op->ring.done = step_done;
  return 0;
}

void
sop_free (struct sop *op)
{
  free (op->edge);
  op->edge = NULL;
}

/* ---- operations that share a unit -------------------------------------------------------- */

static void
list_add (struct sop_list *l, struct sop *op)
{
  op->next = NULL;
  op->prev = l->last;
  if (l->last)
    l->last->next = op;
  else
    l->first = op;
  l->last = op;
}

static void
list_remove (struct sop_list *l, struct sop *op)
{
  if (op->prev)
    op->prev->next = op->next;
  else
    l->first = op->next;
  if (op->next)
    op->next->prev = op->prev;
  else
    l->last = op->prev;
}

/* Does op share a unit with one of [first, until), one of the two being unaligned? */
static bool
shares_unit (const struct sop *op, const struct sop *first, const struct sop *until)
{
  uint64_t align = op->env->store->align;
  uint64_t from = round_down (op->offset, align), to = round_up (op->offset + op->length, align);

  for (const struct sop *o = first; o && o != until; o = o->next)
    if ((op->unaligned || o->unaligned) && o->kind != SOP_FLUSH && o->kind != SOP_READ
        && round_down (o->offset, align) < to && from < round_up (o->offset + o->length, align))
      return true;
  return false;
}

static bool
must_wait (const struct sop *op, const struct sop *until)
{
  struct sop_env *env = op->env;

  if (env->n_unaligned == 0 || op->kind == SOP_FLUSH || op->kind == SOP_READ)
    return false;
  return shares_unit (op, env->active.first, NULL) || shares_unit (op, env->waiting.first, until);
}

static void run (struct sop *op);

static void
finish (struct sop *op, int error)
{
  struct sop_env *env = op->env;
  struct sop *next;

  list_remove (&env->active, op);
  if (op->unaligned) {
    env->n_unaligned--;
    op->unaligned = false;
  }
  for (struct sop *w = env->waiting.first; w; w = next) {
    next = w->next;
    if (!must_wait (w, w)) {
      list_remove (&env->waiting, w);
      list_add (&env->active, w);
      run (w);
    }
  }
  op->busy = false;
  op->done (op, error);
}

static void
submit_timeout (struct sop *op, uint32_t us)
{
  struct io_uring_sqe *sqe = ring_sqe (op->env->ring);

  op->delay.tv_sec = us / 1000000;
  op->delay.tv_nsec = (long long) (us % 1000000) * 1000;
  io_uring_prep_timeout (sqe, &op->delay, 0, 0);
  ring_own (op->env->ring, sqe, &op->ring);
}

static uint32_t
flush_delay_us (struct sop *op)
{
  return storefault_delay_us (op->env->store, SF_FLUSH, 0);
}

static uint32_t
write_delay_us (struct sop *op)
{
  return storefault_delay_us (op->env->store, op->kind == SOP_ZERO ? SF_ZERO : SF_WRITE, op->offset);
}

/* Where a step is described: for the ring, or for sop_run. */
static struct io_uring_sqe *
step_sqe (struct sop *op)
{
  return op->env->store->is_memory ? &op->sqe : ring_sqe (op->env->ring);
}

static void
step_submit (struct sop *op, struct io_uring_sqe *sqe)
{
  struct sop_env *env = op->env;

  if (sqe != &op->sqe) {
    ring_own (env->ring, sqe, &op->ring);
    env->ring->is_urgent = true;
    return;
  }
  op->memory_next = NULL;
  *env->memory_end = op;
  env->memory_end = &op->memory_next;
  env->memory_bytes += sqe->opcode == IORING_OP_WRITE || sqe->opcode == IORING_OP_READ ? sqe->len : 0;
}

/* The few kinds of step that there are, without the ring. */
static int
carry_out (const struct io_uring_sqe *sqe)
{
  struct iovec iov = { .iov_base = (void *) (uintptr_t) sqe->addr, .iov_len = sqe->len };
  ssize_t r;

  switch (sqe->opcode) {
  case IORING_OP_WRITE:
    r = pwritev2 (sqe->fd, &iov, 1, (off_t) sqe->off, sqe->rw_flags);
    break;
  case IORING_OP_READ:
    r = preadv2 (sqe->fd, &iov, 1, (off_t) sqe->off, 0);
    break;
  case IORING_OP_FALLOCATE:
    r = fallocate (sqe->fd, (int) sqe->len, (off_t) sqe->off, (off_t) sqe->addr);
    break;
  case IORING_OP_FSYNC:
    r = fdatasync (sqe->fd);
    break;
  default:
    r = 0;
  }
  return r == -1 ? -errno : (int) r;
}

void
sop_run (struct sop_env *env)
{
  struct sop *op = env->memory, *next;

  env->memory = NULL;
  env->memory_end = &env->memory;
  env->memory_bytes = 0;
  for (; op; op = next) {
    next = op->memory_next;
    op->ring.done (&op->ring, carry_out (&op->sqe));
  }
}

/* What goes to the store passes here; the test build may refuse it, and then a step that does
 * nothing stands in its place. */
static void
submit_fault (struct sop *op, struct io_uring_sqe *sqe, enum sf_op kind, uint64_t offset, uint64_t length,
              bool stable)
{
  const void *data = kind == SF_WRITE ? op->at : NULL;

  op->refused = storefault_begin (op->env->store, kind, offset, length, data, stable, &op->fault);
  if (op->refused < 0)
    io_uring_prep_nop (sqe);
  step_submit (op, sqe);
}

static void
submit_read (struct sop *op)
{
  struct io_uring_sqe *sqe = step_sqe (op);
  uint64_t at = op->pos;
  const int fd = store_at (op->env->store, &at);

  io_uring_prep_read (sqe, fd, op->at, (unsigned) (op->end - op->pos), at);
  submit_fault (op, sqe, SF_READ, op->pos, op->end - op->pos, false);
}

/* Reads one unit into the edge buffer. */
static void
read_edge (struct sop *op, uint64_t offset)
{
  op->pos = round_down (offset, op->env->store->align);
  op->end = op->pos + op->env->store->align;
  op->at = op->edge;
  submit_read (op);
}

static void
submit_write (struct sop *op, uint64_t limit)
{
  struct io_uring_sqe *sqe = step_sqe (op);
  uint64_t n = MIN (op->end - op->pos, limit), at = op->pos;
  const int fd = store_at (op->env->store, &at);
  /* No SOP_FLUSH covers metadata that is elsewhere. */
  bool dsync = (op->fua && op->kind == SOP_WRITE) || fd != op->env->store->fd;

  io_uring_prep_write (sqe, fd, op->at, (unsigned) n, at);
  if (dsync)
    sqe->rw_flags = RWF_DSYNC;
  submit_fault (op, sqe, SF_WRITE, op->pos, n, dsync);
}

static void
begin (struct sop *op, enum step step)
{
  struct store *s = op->env->store;
  struct io_uring_sqe *sqe;
  uint64_t end = op->offset + op->length;
  uint32_t skip = (uint32_t) (op->offset & (s->align - 1));

  op->step = (uint8_t) step;
  switch (step) {
  case ST_DELAY:
    submit_timeout (op, write_delay_us (op) + (op->fua ? flush_delay_us (op) : 0));
    return;

  case ST_READ:
    op->pos = round_down (op->offset, s->align);
    op->end = round_up (end, s->align);
    op->at = op->buf - skip;
    submit_read (op);
    return;

  case ST_EDGE_HEAD:
    read_edge (op, op->offset);
    return;

  case ST_EDGE_TAIL:
    read_edge (op, end - 1);
    return;

  case ST_WRITE:
    op->pos = round_down (op->offset, s->align);
    op->end = round_up (end, s->align);
    op->at = op->buf - skip;
    submit_write (op, UINT32_MAX);
    return;

  case ST_FALLOCATE:
    op->mode = store_zero_mode (s, op->may_trim);
    if (op->mode == -1) {
      begin (op, ST_ZERO_MID);
      return;
    }
    sqe = step_sqe (op);
    io_uring_prep_fallocate (sqe, s->fd, op->mode, (off_t) op->from, (off_t) (op->to - op->from));
    submit_fault (op, sqe, SF_ZERO, op->from, op->to - op->from, false);
    return;

  case ST_ZERO_MID:
    op->pos = op->from;
    op->end = op->to;
    op->at = op->env->zeroes;
    submit_write (op, SOP_ZERO_BYTES);
    return;

  case ST_ZERO_HEAD_READ:
    read_edge (op, op->offset);
    return;

  case ST_ZERO_TAIL_READ:
    read_edge (op, op->to);
    return;

  case ST_ZERO_HEAD:
  case ST_ZERO_TAIL:
    if (s->align == 1) {
      op->pos = step == ST_ZERO_HEAD ? op->offset : op->to;
      op->end = step == ST_ZERO_HEAD ? op->from : end;
      op->at = op->env->zeroes;
    }
    else { /* the unit that was read, with its part zeroed */
      uint64_t unit = round_down (step == ST_ZERO_HEAD ? op->offset : op->to, s->align);
      uint64_t first = step == ST_ZERO_HEAD ? op->offset - unit : 0;
      uint64_t last = (step == ST_ZERO_HEAD ? op->from : end) - unit;

      memset (op->edge + first, 0, last - first);
      op->pos = unit;
      op->end = unit + s->align;
      op->at = op->edge;
    }
    submit_write (op, SOP_ZERO_BYTES);
    return;

  case ST_FLUSH_DELAY:
    submit_timeout (op, flush_delay_us (op));
    return;

  case ST_FLUSH:
    sqe = step_sqe (op);
    io_uring_prep_fsync (sqe, s->fd, IORING_FSYNC_DATASYNC);
    submit_fault (op, sqe, SF_FLUSH, 0, 0, false);
    return;

  case ST_LOST:
    sqe = step_sqe (op);
    io_uring_prep_fsync (sqe, store_sync_fd (s, op->pos), IORING_FSYNC_DATASYNC);
    op->refused = storefault_lost (s);
    if (op->refused < 0)
      io_uring_prep_nop (sqe);
    step_submit (op, sqe);
    return;
  }
}

static bool
is_write (enum step step)
{
  return step == ST_WRITE || step == ST_ZERO_MID || step == ST_ZERO_HEAD || step == ST_ZERO_TAIL;
}

static void
flush_or_finish (struct sop *op, bool flush)
{
  if (!flush)
    finish (op, 0);
  else
    begin (op, flush_delay_us (op) ? ST_FLUSH_DELAY : ST_FLUSH);
}

static void
zero_head (struct sop *op)
{
  uint64_t end = op->offset + op->length;
  bool rmw = op->env->store->align > 1;

  if (op->step < ST_ZERO_HEAD && op->from > op->offset)
    begin (op, rmw ? ST_ZERO_HEAD_READ : ST_ZERO_HEAD);
  else if (op->step < ST_ZERO_TAIL && end > op->to)
    begin (op, rmw ? ST_ZERO_TAIL_READ : ST_ZERO_TAIL);
  else
    flush_or_finish (op, op->fua);
}

static void
write_or_edges (struct sop *op, enum step after)
{
  uint32_t align = op->env->store->align;
  uint64_t end = op->offset + op->length;
  bool head = op->offset & (align - 1), tail = end & (align - 1);

  if (after < ST_EDGE_HEAD && head)
    begin (op, ST_EDGE_HEAD);
  else if (after < ST_EDGE_TAIL && tail)
    begin (op, ST_EDGE_TAIL);
  else
    begin (op, ST_WRITE);
}

/* One transfer came back.  True: the step's whole range is done. */
static bool
advance (struct sop *op, int res)
{
  op->pos += (uint64_t) res;
  if (op->at != op->env->zeroes)
    op->at += res;
  return op->pos >= op->end;
}

static void
step_done (struct ring_op *ring, int res)
{
  struct sop *op = container_of (ring, struct sop, ring);
  struct store *s = op->env->store;
  enum step step = (enum step) op->step;
  uint32_t align = s->align;
  uint64_t end = op->offset + op->length;

  if (step == ST_DELAY || step == ST_FLUSH_DELAY)
    res = 0; /* -ETIME */
  else {
    storefault_end (s, &op->fault, res);
    if (op->refused < 0)
      res = op->refused;
    op->refused = 0;
  }
  if (res == -EINTR || res == -EAGAIN) {
    begin (op, step);
    return;
  }
  if (step == ST_FALLOCATE && res < 0 && store_learn (s, op->mode, -res)) {
    begin (op, ST_FALLOCATE);
    return;
  }
  if (step == ST_LOST) {
    if (res < 0)
      store_fail (s, -res);
    finish (op, op->error);
    return;
  }
  if (res < 0) {
    if (step == ST_FLUSH || (step == ST_WRITE && op->fua && res != -ENOSPC))
      store_fail (s, -res);
    else if (is_write (step) && store_sync_fd (s, op->pos) != -1) {
      op->error = res;
      begin (op, ST_LOST);
      return;
    }
    finish (op, res);
    return;
  }

  switch (step) {
  case ST_DELAY:
    if (op->kind == SOP_WRITE)
      write_or_edges (op, ST_DELAY);
    else
      begin (op, ST_FALLOCATE);
    return;

  case ST_READ:
  case ST_EDGE_HEAD:
  case ST_EDGE_TAIL:
  case ST_ZERO_HEAD_READ:
  case ST_ZERO_TAIL_READ:
    if (res == 0) { /* the store shrank under us */
      finish (op, -EIO);
      return;
    }
    if (!advance (op, res)) {
      submit_read (op);
      return;
    }
    break;

  case ST_WRITE:
  case ST_ZERO_MID:
  case ST_ZERO_HEAD:
  case ST_ZERO_TAIL:
    if (res == 0) {
      finish (op, -EIO);
      return;
    }
    if (!advance (op, res)) {
      submit_write (op, step == ST_WRITE ? UINT32_MAX : SOP_ZERO_BYTES);
      return;
    }
    break;

  default:
    break;
  }

  switch (step) {
  case ST_READ:
    finish (op, 0);
    return;
  case ST_EDGE_HEAD: {
    uint32_t skip = (uint32_t) (op->offset & (align - 1));

    memcpy (op->buf - skip, op->edge, skip);
    /* The same unit holds the last byte too: its tail is here already. */
    if ((end & (align - 1)) && round_down (end, align) == round_down (op->offset, align)) {
      memcpy (op->buf + op->length, op->edge + (end & (align - 1)), align - (end & (align - 1)));
      begin (op, ST_WRITE);
    }
    else
      write_or_edges (op, ST_EDGE_HEAD);
    return;
  }
  case ST_EDGE_TAIL:
    memcpy (op->buf + op->length, op->edge + (end & (align - 1)), align - (end & (align - 1)));
    begin (op, ST_WRITE);
    return;
  case ST_WRITE:
    finish (op, 0);
    return;
  case ST_FALLOCATE:
  case ST_ZERO_MID:
    zero_head (op);
    return;
  case ST_ZERO_HEAD_READ:
    begin (op, ST_ZERO_HEAD);
    return;
  case ST_ZERO_TAIL_READ:
    begin (op, ST_ZERO_TAIL);
    return;
  case ST_ZERO_HEAD:
  case ST_ZERO_TAIL:
    zero_head (op);
    return;
  case ST_FLUSH_DELAY:
    begin (op, ST_FLUSH);
    return;
  case ST_FLUSH:
    finish (op, 0);
    return;
  default:
    return;
  }
}

/* A failed store says so by way of the ring too, so that done is never called from sop_start. */
static void
submit_nothing (struct sop *op, enum step step)
{
  struct io_uring_sqe *sqe = step_sqe (op);

  op->step = (uint8_t) step;
  io_uring_prep_nop (sqe);
  step_submit (op, sqe);
}

static void
refused_done (struct ring_op *ring, int res)
{
  struct sop *op = container_of (ring, struct sop, ring);

  op->ring.done = step_done;
  finish (op, op->error);
}

static void
run (struct sop *op)
{
  struct store *s = op->env->store;
  uint64_t unit;

  switch ((enum sop_kind) op->kind) {
  case SOP_READ:
    begin (op, ST_READ);
    break;

  case SOP_WRITE:
    if (write_delay_us (op) || (op->fua && flush_delay_us (op)))
      begin (op, ST_DELAY);
    else
      write_or_edges (op, ST_DELAY);
    break;

  case SOP_ZERO:
    unit = s->is_block ? MAX (s->align, s->sector) : s->align;
    op->from = MIN (round_up (op->offset, unit), op->offset + op->length);
    op->to = MAX (round_down (op->offset + op->length, unit), op->from);
    op->step = ST_ZERO_MID;
    if (op->to == op->from)
      zero_head (op);
    else if (store_zero_mode (s, op->may_trim) == -1)
      begin (op, ST_ZERO_MID);
    else if (write_delay_us (op))
      begin (op, ST_DELAY);
    else
      begin (op, ST_FALLOCATE);
    break;

  case SOP_FLUSH:
    flush_or_finish (op, true);
    break;
  }
}

void
sop_start (struct sop *op, enum sop_kind kind, uint64_t offset, uint64_t length, void *buf, bool fua,
           bool may_trim)
{
  struct sop_env *env = op->env;
  int failed = atomic_load_explicit (&env->store->failed, memory_order_relaxed);

  op->busy = true;
  op->kind = (uint8_t) kind;
  op->offset = offset;
  op->length = length;
  op->buf = buf;
  op->fua = fua;
  op->may_trim = may_trim;
  op->error = 0;
  op->unaligned = false;
  if ((failed != 0 && kind != SOP_READ) || (kind != SOP_FLUSH && length == 0)) {
    op->error = kind == SOP_READ || failed == 0 ? 0 : -failed;
    op->ring.done = refused_done;
    list_add (&env->active, op);
    submit_nothing (op, ST_FLUSH);
    return;
  }
  if ((kind == SOP_WRITE || kind == SOP_ZERO) && ((offset | length) & (env->store->align - 1))) {
    op->unaligned = true;
    env->n_unaligned++;
  }
  if (must_wait (op, NULL)) {
    list_add (&env->waiting, op);
    return;
  }
  list_add (&env->active, op);
  run (op);
}
