/* SPDX-License-Identifier: BSD-3-Clause */
/* The copies of sim-repl: the shell around the copy's core, its disk, and the death of its process or machine.
 * See mirror.h.
 */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/mirror.h"

void
go_back (unsigned s, struct msg *m)
{
  struct site *x = &w.site[s];
  uint64_t at = w.now + x->delay + rnd (x->delay + 1);
  struct sev *e;

  if (x->conn != m->conn) {
    free_msg (m);
    return;
  }
  if (at < x->last_back)
    at = x->last_back;
  x->last_back = at;
  m->at = at;
  fifo_push (&x->back, m);
  e = after (at - w.now, SE_BACK);
  e->site = (uint8_t) s;
  e->a = m->conn;
}

static void
copy_actions (unsigned s, struct copy_actions *out)
{
  struct site *x = &w.site[s];

  for (unsigned i = 0; i < out->n; i++) {
    struct copy_action *a = &out->a[i];
    struct copyop *o;
    struct msg *m;
    struct sev *e;
    switch (a->kind) {
    case CA_SNAPSHOT:
      if (x->n_data > 0 || x->super.unusable)
        violate ("copy %u keeps what %s", s, x->n_data > 0 ? "is being written" : "is not coherent");
      __attribute__ ((__fallthrough__));
    case CA_SUBMIT:
    case CA_SYNC:
    case CA_SUPER:
      o = calloc (1, sizeof *o);
      o->super = a->kind == CA_SUPER;
      x->n_data += a->kind == CA_SUBMIT && a->frame.type != WIRE_FLUSH;
      o->op = a->op;
      o->h = a->frame;
      if (a->kind == CA_SYNC)
        o->h.type = WIRE_FLUSH;
      o->since = a->since;
      o->generation = a->generation;
      o->tenure = a->tenure;
      o->unusable = a->unusable;
      o->filling = a->filling;
      o->flush_data = a->flush_data;
      if (a->kind == CA_SUBMIT && x->bufs[a->buf % LINK_WINDOW_FRAMES])
        o->data = x->bufs[a->buf % LINK_WINDOW_FRAMES]->data
                      ? units_dup (&x->bufs[a->buf % LINK_WINDOW_FRAMES]->data[u0 (a->skip)], u0 (o->h.length))
                      : NULL;
      memcpy (o->snapshot, x->disk.cur, sizeof o->snapshot);
      e = after (rnd (1 + x->slow), SE_COPYOP);
      e->site = (uint8_t) s;
      e->life = x->life;
      e->slot = 0;
      e->p = o;
      x->n_ops++;
      break;
    case CA_NOTHING:
      if (!x->super.unusable)
        violate ("copy %u is filled, and its disk does not say that it is unusable", s);
      for (unsigned k = 0; k < u0 (a->frame.length); k++)
        relabel (s, u0 (a->frame.offset) + k, x->bufs[a->buf]->data[u0 (a->skip) + k]);
      w.unwritten++;
      break;
    case CA_SNAPSHOT_DROP:
      if (x->super.unusable)
        violate ("copy %u drops what it kept before it is filled", s);
      x->kept = false;
      break;
    case CA_MARK:
      begin_stage (s, &x->mark, x->life);
      break;
    case CA_HELLO_OK:
      m = new_msg ();
      m->back = 3;
      if (w.track) {
        uint64_t of;
        m->map = malloc (META_BLOCK_PAYLOAD);
        if (copy_report (&x->core, 0, m->map, &of) == of) {
          free (m->map);
          m->map = NULL;
        }
      }
      m->conn = a->conn;
      m->ok = a->hello_ok;
      go_back (s, m);
      break;
    case CA_REFUSE:
      m = new_msg ();
      m->back = 4;
      m->conn = a->conn;
      snprintf (m->reason, sizeof m->reason, "%.63s", a->refuse.reason);
      go_back (s, m);
      break;
    case CA_STABLE:
      m = new_msg ();
      m->back = 5;
      m->conn = a->conn;
      m->h.seq = a->seq;
      go_back (s, m);
      break;
    case CA_ACK:
      m = new_msg ();
      m->back = 1;
      m->conn = a->conn;
      m->h.seq = a->seq;
      go_back (s, m);
      break;
    case CA_ERROR:
      say ("copy %u: error at %llu: %s", s, (unsigned long long) a->seq, a->failure.reason);
      if (!x->store_bad && a->op != COPY_OP_SNAPSHOT)
        violate ("copy %u: %s", s, a->failure.reason);
      m = new_msg ();
      m->back = 2;
      m->conn = a->conn;
      m->h.seq = a->seq;
      snprintf (m->reason, sizeof m->reason, "%.63s", a->failure.reason);
      go_back (s, m);
      break;
    default:
      break;
    }
  }
}

void
copy_feed (unsigned s, struct copy_event *ev)
{
  static struct copy_actions out;
  struct site *x = &w.site[s];

  ev->now_ms = w.now;
  copy_step (&x->core, ev, &out);
  copy_actions (s, &out);
  struct copy_event poll = { .kind = CE_POLL, .now_ms = w.now };
  for (unsigned i = 0; i < 100; i++) {
    /* sometimes the shell goes on with its batch before it polls */
    if (!out.more && chance (30) && i == 0 && ev->kind == CE_FRAME && x->fwd.n > 0)
      break;
    bool more = out.more;
    copy_step (&x->core, &poll, &out);
    copy_actions (s, &out);
    if (!more && !out.more)
      break;
  }
  check_kept (s);
  if (x->core.status.illegal)
    violate ("copy %u counted an illegal event", s);
}

void
copy_start (unsigned s)
{
  struct site *x = &w.site[s];
  struct copy_config cfg = { 0 };

  memcpy (cfg.crg, "g", 2);
  memcpy (cfg.iasp, "i", 2);
  snprintf (cfg.node, sizeof cfg.node, "n%u", s);
  cfg.site = (uint8_t) s;
  cfg.size = SIZE;
  cfg.block_size = 512;
  cfg.dirty_block_size = BLOCK;
  cfg.session = x->life + 1;
  cfg.tenure = x->super.tenure;
  cfg.generation = x->super.generation;
  cfg.since = x->super.since;
  cfg.unusable = x->super.unusable;
  cfg.empty = x->super.empty;
  cfg.filling = x->super.filling;
  if (w.track) {
    load_marks (s, &x->mark, x->mark_memory, 2 * UNITS);
    if (chance (50)) /* lets go as soon as it may */
      x->mark.hot.clear_above = (unsigned) rnd (8);
    cfg.mark = &x->mark;
    if (cfg.empty || (cfg.unusable && !cfg.filling))
      bits_fill (&x->mark.bits[s], true);
  }
  cfg.restarted = x->restarted;
  cfg.snapshot = w.keeps;
  x->kept = x->kept && cfg.unusable;
  cfg.window_bytes = 2 * 1024 * 1024 + (uint32_t) rnd (4) * 1024 * 1024;
  cfg.window_frames = 8 + (uint32_t) rnd (100);
  if (copy_init (&x->core, &cfg, w.now) != NULL)
    violate ("copy_init refuses");
  x->life++;
  x->process = true;
  x->n_ops = x->n_data = 0;
}

static void
apply (struct disk *d, uint64_t offset, uint64_t length, const stamp_t *data)
{
  memcpy (&d->cur[u0 (offset)], data, u0 (length) * sizeof (stamp_t));
}

/* What was completed before is stable now; what came later may be. */
void
flush (struct disk *d, const stamp_t *snapshot)
{
  for (unsigned i = 0; i < UNITS; i++)
    if (d->cur[i] == snapshot[i] || chance (30))
      d->stable[i] = d->cur[i];
    else if (d->stable[i] < snapshot[i])
      d->stable[i] = snapshot[i];
}

void
copy_op_done (unsigned s, struct copyop *o, bool die)
{
  struct site *x = &w.site[s];
  int error = 0;

  if (o->op == COPY_OP_SNAPSHOT) {
    if (memcmp (o->snapshot, x->disk.cur, sizeof o->snapshot) != 0)
      violate ("copy %u is written to while it keeps what it holds", s);
    if (chance (die ? 50 : w.chaos ? 15 : 0))
      error = -ENOSPC;
    else {
      x->kept = true;
      memcpy (x->before, x->disk.cur, sizeof x->before);
      w.snapshots++;
    }
  }
  else if (o->super) {
    if (!die || chance (50)) {
      if (o->unusable && !x->super.unusable && w.keeps
          && (!x->kept || memcmp (x->before, x->disk.cur, sizeof x->before) != 0))
        violate ("copy %u is to be filled, and what it held is not kept", s);
      if (o->flush_data)
        flush (&x->disk, o->snapshot);
      x->super.tenure = o->tenure;
      x->super.generation = o->generation;
      x->super.since = o->since;
      x->super.unusable = o->unusable;
      x->super.filling = o->filling;
      x->was_filled = x->was_filled || o->since != 0;
      x->super.empty = x->super.empty && !o->unusable && o->since == 0;
      if (o->since != 0 && o->flush_data) /* ENTER */
        x->restarted = false;
      if (o->unusable && o->filling)
        x->super.empty = false;
    }
  }
  else if (x->store_bad && chance (50)) {
    error = -5;
    x->n_data -= o->h.type != WIRE_FLUSH;
  }
  else if (o->h.type == WIRE_FLUSH) {
    if (!die || chance (50))
      flush (&x->disk, o->snapshot);
  }
  else {
    x->n_data--;
    if ((o->h.type == WIRE_RESYNC_WRITE || o->h.type == WIRE_RESYNC_ZERO) && !x->super.unusable)
      violate ("copy %u takes a block before its disk says that it is unusable", s);
    for (unsigned i = 0; i < u0 (o->h.length); i++)
      if (w.local_errors == 0 && !is_damaged (s, u0 (o->h.offset) + i) && o->h.tenure == w.tenure
          && x->disk.cur[u0 (o->h.offset) + i] > w.tenure_stamp
          && x->disk.cur[u0 (o->h.offset) + i] > o->data[i])
        violate ("copy %u: %u overtaken by %u in unit %u", s, x->disk.cur[u0 (o->h.offset) + i],
                 o->data[i], u0 (o->h.offset) + i);
    for (unsigned i = u0 (o->h.offset); i < u0 (o->h.offset + o->h.length); i++)
      check_hot (s, i);
    if (die) { /* any part of it */
      for (unsigned i = 0; i < u0 (o->h.length); i++)
        if (chance (50))
          x->disk.cur[u0 (o->h.offset) + i] = o->data[i];
    }
    else {
      apply (&x->disk, o->h.offset, o->h.length, o->data);
      for (unsigned i = 0; (o->h.flags & WIRE_F_KEEP) && i < u0 (o->h.length); i++)
        x->owed[u0 (o->h.offset) + i] = true;
    }
    if (!die && (o->h.flags & WIRE_F_FUA))
      for (unsigned i = 0; i < u0 (o->h.length); i++)
        x->disk.stable[u0 (o->h.offset) + i] = o->data[i];
  }
  x->n_ops--;
  if (!die) {
    struct copy_event ev = { .kind = CE_DONE, .op = o->op, .error = error };
    copy_feed (s, &ev);
  }
  free (o->data);
  free (o);
}

/* Ends the process of a copy: what it had submitted lands, or not, before anything else. */
void
copy_die (unsigned s, bool power)
{
  struct site *x = &w.site[s];

  say ("copy %u %s", s, power ? "loses power" : "dies");
  for (unsigned i = 0; i < w.n_heap; i++) {
    struct sev *e = &w.heap[i];
    if (e->kind == SE_COPYOP && e->site == s && e->life == x->life && e->p) {
      copy_op_done (s, e->p, true);
      e->p = NULL;
      e->life = 0;
    }
  }
  end_stage (s, true, power);
  x->process = false;
  x->stopped = false;
  x->life++;
  for (unsigned i = 0; i < LINK_WINDOW_FRAMES; i++) {
    free_msg (x->bufs[i]);
    x->bufs[i] = NULL;
  }
  if (power) {
    w.powerlosses++;
    lose_cache (x);
    x->restarted = true;
  }
  x->store_bad = false;
  if (x->conn && chance (80))
    link_down (s, "the copy is gone");
}
