/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Mirror links of crgsim's world: connections with two ends that close by themselves, frames in
 * order each way, through the real codec.  A cut holds frames back; they come after it, if both
 * ends are still there.  Stands for plugin/mlink.c.
 */
#include <string.h>

#include "common/util.h"
#include "tests/sim/world.h"

struct wconn *
net_conn (uint32_t id)
{
  struct wconn *c = &w.conn[id % W_CONNS];

  return c->used && c->id == id ? c : NULL;
}

void
frame_free (unsigned index)
{
  w.frame[index].used = false;
}

struct wframe *
net_frame (const struct wire_header *h, unsigned *index)
{
  for (unsigned i = 0; i < W_FRAMES; i++) {
    unsigned k = (w.frame_next + i) % W_FRAMES;

    if (!w.frame[k].used) {
      w.frame_next = k + 1;
      w.frame[k].used = true;
      wire_encode_header (h, w.frame[k].header);
      *index = k;
      return &w.frame[k];
    }
  }
  world_fail ("no frame is free");
  *index = 0;
  return &w.frame[0];
}

static void
fifo_clear (struct wfifo *f)
{
  while (f->n > 0) {
    frame_free (f->q[f->head]);
    f->head = (f->head + 1) % W_FIFO;
    f->n--;
  }
}

static bool
passes (const struct wconn *c, bool forward)
{
  unsigned from = forward ? c->prod : c->copy, to = forward ? c->copy : c->prod;

  return w.reach[from] & 1u << to;
}

static uint64_t
delay_us (const struct wconn *c)
{
  return 1 + world_random (w.mix.net_us)
         + world_random (w.link_slow_us[c->prod] + w.link_slow_us[c->copy] + 1);
}

struct wconn *
net_connect (struct wplugin *p, unsigned site, unsigned node)
{
  struct wplugin *copy = plugin_of (node, p->iasp);

  if (!(w.reach[p->node] & 1u << node) || !(w.reach[node] & 1u << p->node) || !copy->running
      || !copy->copy_on || copy->copy_stopping)
    return NULL; /* refused, or no answer */
  for (unsigned i = 0; i < W_CONNS; i++) {
    struct wconn *c = &w.conn[(w.conn_ids + 1 + i) % W_CONNS];

    if (c->used)
      continue;
    w.conn_ids += 1 + i;
    memset (c, 0, offsetof (struct wconn, fwd));
    c->fwd.n = c->back.n = c->fwd.head = c->back.head = 0;
    c->used = true;
    c->id = w.conn_ids;
    c->prod = p->node;
    c->copy = (uint8_t) node;
    c->iasp = p->iasp;
    c->site = (uint8_t) site;
    c->prod_life = p->life;
    c->copy_life = copy->life;
    c->prod_open = c->copy_open = true;
    c->opened_us = c->prod_heard_us = c->copy_heard_us = w.now_us;
    c->last_fwd_us = c->last_back_us = c->out_used = 0;
    return c;
  }
  world_fail ("no connection is free");
  return NULL;
}

static void
release (struct wconn *c)
{
  if (c->prod_open || c->copy_open)
    return;
  fifo_clear (&c->fwd);
  fifo_clear (&c->back);
  c->used = false;
}

void
net_send (struct wconn *c, bool forward, unsigned frame)
{
  struct wfifo *f = forward ? &c->fwd : &c->back;
  uint64_t *last = forward ? &c->last_fwd_us : &c->last_back_us, at = w.now_us + delay_us (c);
  struct wev *e;

  if (f->n == W_FIFO) {
    world_fail ("a link holds more frames than any window");
    return;
  }
  f->q[(f->head + f->n++) % W_FIFO] = (uint16_t) frame;
  at = MAX (at, *last + 1);
  *last = at;
  w.frame[frame].at = at;
  e = after_us (at - w.now_us, forward ? EV_FWD : EV_BACK);
  e->a = c->id;
}

static struct wplugin *
end_of (const struct wconn *c, bool prod_end)
{
  struct wplugin *p = plugin_of (prod_end ? c->prod : c->copy, c->iasp);

  return p->running && p->life == (prod_end ? c->prod_life : c->copy_life) ? p : NULL;
}

/* All that has had its time; each frame has an event of its own, so what was held back comes
 * with a later one, or with the tick. */
void
net_deliver (struct wconn *c, bool forward)
{
  struct wfifo *f = forward ? &c->fwd : &c->back;
  struct wplugin *p = end_of (c, !forward);
  const uint32_t id = c->id;

  if (p == NULL || p->paused || !passes (c, forward))
    return;
  while (c->used && c->id == id && f->n > 0 && w.frame[f->q[f->head]].at <= w.now_us && !w.failed) {
    unsigned index = f->q[f->head];

    if (!(forward ? c->copy_open : c->prod_open)) {
      fifo_clear (f);
      return;
    }
    f->head = (f->head + 1) % W_FIFO;
    f->n--;
    if (forward) {
      c->copy_heard_us = w.now_us;
      copyside_frame (c, &w.frame[index], index);
    } else {
      c->prod_heard_us = w.now_us;
      prod_frame (c, &w.frame[index]);
      frame_free (index);
    }
  }
}

/* One end closes.  What is on its way from it still arrives before the end does. */
void
net_close (struct wconn *c, bool prod_end, const char *reason)
{
  const uint64_t last = prod_end ? c->last_fwd_us : c->last_back_us;
  struct wev *e;

  if (!(prod_end ? c->prod_open : c->copy_open))
    return;
  if (prod_end)
    c->prod_open = false;
  else
    c->copy_open = false;
  e = after_us (MAX (last, w.now_us) - w.now_us + 1 + world_random (MS (2)), EV_CLOSED);
  e->a = c->id;
  e->end = prod_end ? 0 : 1; /* which end hears of it */
  TRACE ("link n%u-n%u: %s closes: %s", c->prod + 1, c->copy + 1, prod_end ? "production" : "copy",
         reason);
  if (prod_end) {
    if (end_of (c, true) != NULL)
      prod_closed (c, reason);
  } else if (end_of (c, false) != NULL)
    copyside_closed (c);
  release (c);
}

void
net_end_closed (struct wconn *c, bool prod_end)
{
  struct wplugin *p = end_of (c, prod_end);

  if (!(prod_end ? c->prod_open : c->copy_open))
    return;
  if (p == NULL) {
    if (prod_end)
      c->prod_open = false;
    else
      c->copy_open = false;
    release (c);
    return;
  }
  if (p->paused || !passes (c, !prod_end)) {
    struct wev *e = after_us (MS (50), EV_CLOSED);

    e->a = c->id;
    e->end = prod_end;
    return;
  }
  net_deliver (c, !prod_end);
  if (c->used)
    net_close (c, prod_end, "the peer closed the connection");
}

void
net_reset (struct wconn *c)
{
  const uint32_t id = c->id;

  net_close (c, true, "connection reset");
  c = net_conn (id);
  if (c != NULL)
    net_close (c, false, "connection reset");
}

/* PING and PONG, handshake deadline; called by each end with its tick. */
void
net_tick (struct wconn *c)
{
  struct wplugin *prod = end_of (c, true), *copy = end_of (c, false);
  const uint32_t id = c->id;

  if (c->prod_open && c->copy_open && prod && copy && !prod->paused && !copy->paused
      && passes (c, true) && passes (c, false))
    c->prod_heard_us = c->copy_heard_us = w.now_us;
  if (passes (c, true))
    net_deliver (c, true);
  c = net_conn (id);
  if (c == NULL)
    return;
  if (passes (c, false))
    net_deliver (c, false);
  c = net_conn (id);
  if (c == NULL)
    return;
  if (prod && !prod->paused && c->prod_open
      && (w.now_us - c->prod_heard_us > MS (LINK_DEAD_MS)
          || (!c->prod_spoken && w.now_us - c->opened_us > MS (LINK_HANDSHAKE_MS))))
    net_close (c, true, "the peer does not answer");
  c = net_conn (id);
  if (c == NULL)
    return;
  if (copy && !copy->paused && c->copy_open
      && (w.now_us - c->copy_heard_us > MS (LINK_DEAD_MS)
          || (!c->copy_spoken && w.now_us - c->opened_us > MS (LINK_HANDSHAKE_MS))))
    net_close (c, false, "the peer does not answer");
}
