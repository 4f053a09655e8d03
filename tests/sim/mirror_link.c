/* SPDX-License-Identifier: BSD-3-Clause */
/* The links of sim-repl, each in order and with a delay: connecting, what goes forth and back, and their end.
 * See mirror.h.
 */

#include <stdio.h>
#include <stdlib.h>

#include "tests/sim/mirror.h"

void
link_down (unsigned s, const char *why)
{
  struct site *x = &w.site[s];

  if (x->conn == 0)
    return;
  say ("link %u ends: %s", s, why);
  /* what is in the pipes may or may not arrive: the copy side is told at once here, frames
   * already under way are dropped by their conn number */
  if (x->process) {
    struct sev *e = after (rnd (20), SE_COPYOP);
    e->site = (uint8_t) s;
    e->life = x->life;
    e->slot = 0xffff; /* CE_CLOSED */
    e->a = x->conn;
  }
  bool was = x->conn_up;
  x->conn = 0;
  x->conn_up = false;
  x->next_try = w.now + 50 + rnd (300);
  fifo_clear (&x->fwd);
  fifo_clear (&x->back);
  x->out_used = 0;
  if (was) {
    struct repl_event ev = { .kind = RE_LINK_DOWN, .site = (uint8_t) s, .reason = why };
    feed (&ev);
  }
}

void
push_fwd (unsigned s, struct msg *m)
{
  struct site *x = &w.site[s];
  uint64_t at = w.now + x->delay + rnd (x->delay + 1);
  struct sev *e;

  m->conn = x->conn;
  m->h.tenure = w.tenure;
  fifo_push (&x->fwd, m);
  if (at < x->last_fwd)
    at = x->last_fwd;
  x->last_fwd = at;
  m->at = at;
  e = after (at - w.now, SE_FWD);
  e->site = (uint8_t) s;
  e->a = x->conn;
}

/* The shell's part: the record, in the stream. */
void
push_record (unsigned s)
{
  struct msg *m;

  if (!w.site[s].conn_up)
    return;
  m = new_msg ();
  m->h.type = WIRE_RECORD;
  m->in_set = w.r.in_set | 1u << w.prod_site;
  m->generation = w.r.generation;
  m->since = m->in_set & 1u << s ? w.generation : 0;
  push_fwd (s, m);
}

void
try_connect (void)
{
  static uint32_t conns;

  for (unsigned s = 0; s < w.n_sites; s++) {
    struct site *x = &w.site[s];
    struct msg *m;
    struct sev *e;
    if (s != w.prod_site && x->conn && !x->stopped
        && ((!x->conn_up && w.now - x->conn_ms > 1500)
            || (x->conn_life != x->life && w.now - x->conn_ms > 1500)))
      link_down (s, "no answer"); /* deadline of the handshake, or of a PING */
    if (s == w.prod_site || x->conn || w.now < x->next_try || x->cut || !w.prod || !x->hosted)
      continue;
    x->next_try = w.now + 200 + rnd (300);
    if (!x->process)
      continue;
    x->conn = ++conns;
    x->conn_up = false;
    x->conn_ms = w.now;
    x->resync_begun = false;
    x->conn_life = x->life;
    x->out_size = 600 * 1024 + rnd (2000) * 1024;
    x->out_used = 0;
    x->last_fwd = x->last_back = 0;
    m = new_msg ();
    m->h.type = WIRE_HELLO;
    m->conn = x->conn;
    m->at = w.now + x->delay;
    x->last_fwd = m->at;
    fifo_push (&x->fwd, m);
    e = after (x->delay, SE_FWD);
    e->site = (uint8_t) s;
    e->a = x->conn;
  }
}

void
deliver_fwd (const struct sev *e)
{
  const unsigned s = e->site;
  struct site *x = &w.site[s];
  struct copy_event ev = { 0 };
  struct msg *m;

  if (x->conn != e->a || x->fwd.n == 0)
    return;
  if (x->cut)
    return; /* sits there until the link is given up */
  if (x->stopped) {
    struct sev *again = after (50, SE_FWD);
    again->site = e->site;
    again->a = e->a;
    return;
  }
  m = fifo_pop (&x->fwd);
  if (!x->process) {
    free_msg (m);
    return;
  }
  if (m->h.type == WIRE_HELLO) {
    struct wire_hello h = { .proto_min = 1, .proto_max = 1,
                            .features = WIRE_FEATURE_DIGEST | (w.track ? WIRE_FEATURE_TRACKING : 0) };
    if (w.track && seed % 5 != 0) /* an older release does not know it */
      h.features |= WIRE_FEATURE_SYNC;
    if (w.track && seed % 7 != 0)
      h.features |= WIRE_FEATURE_KEEP;
    h.tenure = w.tenure;
    h.generation = w.generation;
    h.size = SIZE;
    h.block_size = 4096;
    h.dirty_block_size = BLOCK;
    h.site = (uint8_t) w.prod_site;
    h.peer_site = (uint8_t) s;
    snprintf (h.node, sizeof h.node, "prod");
    ev.kind = CE_HELLO;
    ev.conn = m->conn;
    ev.peer = "prod";
    ev.hello = &h;
    copy_feed (s, &ev);
    free_msg (m);
    return;
  }
  if (m->h.type == WIRE_DIGEST_REQ && x->conn_life != x->life) { /* a newer process has no such connection */
    free_msg (m);
    return;
  }
  if (m->h.type == WIRE_DIGEST_REQ) { /* the shell's: a thread looks at the store some time */
    struct sev *d = after (rnd (1 + x->slow), SE_COPYDIGEST);
    d->site = (uint8_t) s;
    d->life = x->life;
    d->p = m;
    return;
  }
  struct wire_record rec = { .tenure = m->h.tenure, .generation = m->generation,
                             .since = m->since, .in_set = m->in_set };
  if (m->h.type == WIRE_RECORD || m->h.type == WIRE_STABLE) {
    ev.kind = m->h.type == WIRE_RECORD ? CE_RECORD : CE_STABLE;
    say ("site %u hears %s: set %x, stable %llu flags %x", s, m->h.type == WIRE_RECORD ? "RECORD" : "STABLE", m->in_set,
         (unsigned long long) m->h.seq, m->h.flags);
    ev.conn = m->conn;
    ev.frame = m->h;
    ev.record = &rec;
    if (m->h.type == WIRE_STABLE && (m->h.flags & WIRE_F_SETTLED))
      memset (x->owed, 0, sizeof x->owed);
    copy_feed (s, &ev);
    free_msg (m);
    return;
  }
  ev.kind = CE_FRAME;
  ev.map = m->map;
  ev.conn = m->conn;
  ev.frame = m->h;
  ev.record = m->h.type == WIRE_ENTER ? &rec : NULL;
  ev.buf = (uint32_t) (m->h.seq % LINK_WINDOW_FRAMES);
  free_msg (x->bufs[ev.buf]);
  x->bufs[ev.buf] = m;
  copy_feed (s, &ev);
}

void
deliver_back (const struct sev *e)
{
  const unsigned s = e->site;
  struct site *x = &w.site[s];
  struct repl_event ev = { .site = (uint8_t) s };
  struct msg *m;

  if (x->conn != e->a || x->back.n == 0 || x->cut)
    return;
  m = fifo_pop (&x->back);
  switch (m->back) {
  case 1:
    ev.kind = RE_ACK;
    ev.seq = m->h.seq;
    feed (&ev);
    break;
  case 5:
    ev.kind = RE_STABLE;
    ev.seq = m->h.seq;
    feed (&ev);
    break;
  case 2:
    ev.kind = RE_COPY_ERROR;
    ev.reason = m->reason;
    feed (&ev);
    link_down (s, "the copy failed");
    break;
  case 3:
    say ("link %u is up%s%s", s, m->ok.flags & WIRE_OK_RESTARTED ? ", restarted" : "",
         m->ok.flags & WIRE_OK_EMPTY ? ", empty" : "");
    x->conn_up = true;
    uint64_t before = 0, both = 0;
    if (w.track) {
      struct repl_event piece = { .kind = RE_MAP, .site = (uint8_t) s, .map = m->map,
                                   .empty = m->ok.flags & WIRE_OK_EMPTY };
      const struct track *t = &w.r.sites[s].track;
      for (uint64_t b = 0; b < t->n_blocks; b++)
        both += track_get (t, b) != TS_CLEAN || m->map == NULL || (m->map[b / 8] >> (b % 8) & 1);
      before = w.r.sites[s].map_valid;
      feed (&piece);
      ev.mapped = true;
    }
    ev.kind = RE_LINK_UP;
    ev.restarted = m->ok.flags & WIRE_OK_RESTARTED;
    ev.empty = m->ok.flags & WIRE_OK_EMPTY;
    ev.unusable = m->ok.flags & WIRE_OK_UNUSABLE;
    ev.syncs = m->ok.features & WIRE_FEATURE_SYNC;
    ev.keeps = m->ok.features & WIRE_FEATURE_KEEP;
    ev.digests = m->ok.features & WIRE_FEATURE_DIGEST;
    ev.window_bytes = m->ok.window_bytes;
    ev.window_frames = m->ok.window_frames;
    ev.room_bytes = x->out_size;
    x->may_fill = !w.track || ev.empty || !before || (ev.unusable && (w.r.in_set & 1u << s));
    feed (&ev);
    if (w.track && before && x->was_filled && w.r.sites[s].track.count[TS_CLEAN] + both < w.r.sites[s].track.n_blocks)
      violate ("site %u is filled from the start, %llu blocks may differ", s, (unsigned long long) both);
    if (!(w.r.in_set & 1u << s) && x->was_filled) {
      w.partial++;
      w.partial_blocks += w.r.sites[s].track.n_blocks - w.r.sites[s].track.count[TS_CLEAN];
      w.partial_of += w.r.sites[s].track.n_blocks;
    }
    push_record (s);
    break;
  case 4:
    link_down (s, m->reason);
    break;
  case 6:
    ev.kind = RE_DIGEST;
    ev.seq = m->h.seq;
    ev.error = m->map ? 0 : -5;
    ev.map = m->map;
    ev.length = (m->h.length + BLOCK - 1) / BLOCK;
    feed (&ev);
    break;
  }
  free_msg (m);
}

void
drained (const struct sev *e)
{
  struct site *x = &w.site[e->site];
  struct repl_event ev = { .kind = RE_ROOM, .site = e->site };

  if (x->conn != e->a)
    return;
  if (x->cut || x->stopped) {
    struct sev *again = after (50, SE_DRAIN);
    again->site = e->site;
    again->a = e->a;
    again->b = e->b;
    return;
  }
  x->out_used -= e->b;
  if (!x->conn_up)
    return;
  ev.room_bytes = x->out_size - x->out_used;
  feed (&ev);
}
