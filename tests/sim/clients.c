/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Clients of crgsim: requests that look for the production export, write, flush, read, hang up
 * and come again.  The path of a read is that of plugin/work.c.
 */
#include <errno.h>
#include <string.h>

#include "common/util.h"
#include "tests/sim/world.h"

static void
again (unsigned iasp, unsigned slot, uint64_t us)
{
  struct wev *e = after_us (us, EV_CLIENT);

  e->iasp = (uint8_t) iasp;
  e->a = slot;
  e->b = ++w.client[iasp][slot].serial;
}

/* The request is over for whoever waited for it. */
static void
finish (unsigned iasp, unsigned slot)
{
  struct wclient *c = &w.client[iasp][slot];

  c->busy = false;
  again (iasp, slot, 1 + world_random (w.healing ? 4 * w.mix.think_us : 2 * w.mix.think_us));
}

static void
choose (struct wclient *c)
{
  const struct mix *m = &w.mix;
  uint64_t first = world_random (W_UNITS), n;

  c->flags = 0;
  if (chance (m->warm_percent))
    first %= 20; /* a warm corner */
  n = 1 + (chance (m->big_percent) ? world_random (200) : world_random (6));
  n = MIN (n, W_UNITS - first);
  n = MIN (n, (uint64_t) NBD_MAX_REQUEST / W_UNIT);
  c->offset = first * W_UNIT;
  c->length = n * W_UNIT;
  c->is_read = false;
  if (chance (m->read_percent))
    c->is_read = true;
  else if (chance (m->flush_percent)) {
    c->op = RO_FLUSH;
    c->offset = c->length = 0;
  }
  else if (chance (m->zero_percent)) {
    c->op = chance (50) ? RO_ZERO : RO_TRIM;
    if (c->op == RO_ZERO && chance (50))
      c->flags = RF_MAY_TRIM;
  }
  else {
    c->op = RO_WRITE;
    if (chance (m->fua_percent))
      c->flags = RF_FUA;
  }
}

void
client_wake (unsigned iasp, unsigned slot, uint32_t serial)
{
  struct wclient *c = &w.client[iasp][slot];
  struct wplugin *p = plugin_of (w.client_at[iasp], iasp);

  if (serial != c->serial)
    return; /* of an earlier request */
  if (c->busy) {
    c->abandoned = true; /* the client hangs up; the server goes on */
    return;
  }
  if (w.quiet)
    return;
  if (!p->running || !p->is_open_to_clients || p->paused || p->blocked) {
    if (!p->running || !p->is_open_to_clients)
      w.client_at[iasp] = (uint8_t) ((w.client_at[iasp] + 1) % w.n_nodes);
    again (iasp, slot, MS (1 + world_random (20)));
    return;
  }
  choose (c);
  c->busy = true;
  c->abandoned = c->in_core = c->stamped = c->wait_all = false;
  c->node = p->node;
  c->life = p->life;
  memcpy (c->floor, w.floor[iasp], sizeof c->floor);
  if (c->is_read) {
    p->busy_read++;
    disk_op (p, DW_READ, DF_READ, slot, c->offset, c->length, false);
  }
  else {
    prod_request (p, slot);
    plugin_round (p);
  }
  if (c->busy && chance (3))
    again (iasp, slot, world_random (MS (3000)));
}

/* The first action of a request: its place in the order of writes. */
void
client_stamp (struct wplugin *p, unsigned slot)
{
  struct wclient *c = &w.client[p->iasp][slot];

  if (c->stamped && c->life == p->life)
    return;
  w.next_stamp[p->iasp] += 2;
  c->stamp = w.next_stamp[p->iasp] | (c->op != RO_WRITE ? W_ZERO : 0);
  c->stamped = true;
  for (unsigned s = 0; s < w.mix.n_sites; s++)
    check_differs (p->iasp, s, c->offset, c->length);
  if (!c->busy || c->life != p->life)
    world_fail ("n%u: a local part of a request that nobody made", p->node + 1);
}

static bool
is_marked (const struct wplugin *p, const struct wclient *r)
{
  for (unsigned k = 0; k < W_SLOTS; k++) {
    const struct wclient *c = &w.client[p->iasp][k];

    if (c != r && c->busy && c->life == p->life && !c->is_read && op_is_data (c->op)
        && ranges_overlap (c->offset, c->length, r->offset, r->length))
      return true;
  }
  return false;
}

static void
answer_read (struct wplugin *p, unsigned slot)
{
  struct wclient *c = &w.client[p->iasp][slot];

  if (!c->abandoned)
    check_answer (p, c);
  finish (p->iasp, slot);
}

/* work.c: before_answer */
void
client_read_done (struct wplugin *p, unsigned slot, int error)
{
  struct wclient *c = &w.client[p->iasp][slot];
  const struct wdisk *d = &w.disk[p->site][p->iasp];
  bool wait;

  (void) error;
  p->busy_read--;
  if (!c->busy || c->life != p->life)
    return;
  memcpy (&c->data[c->offset / W_UNIT], &d->cur[c->offset / W_UNIT],
          c->length / W_UNIT * sizeof (stamp_t));
  wait = p->guarded || is_marked (p, c);
  if (!wait && plugin_ms (p) < p->gate_lease_ms) {
    answer_read (p, slot);
    return;
  }
  if (!p->prod_on || !p->is_open_to_clients) {
    finish (p->iasp, slot); /* ESHUTDOWN */
    return;
  }
  c->op = RO_READ_WAIT;
  if (!wait)
    c->wait_all = true;
  prod_request (p, slot);
}

void
client_answer (struct wplugin *p, unsigned slot, int error)
{
  struct wclient *c = &w.client[p->iasp][slot];

  if (!c->busy || !c->in_core || c->life != p->life) {
    world_fail ("n%u: slot %u is answered twice", p->node + 1, slot);
    return;
  }
  c->in_core = false;
  if (error != 0 && error != -ESHUTDOWN && error != -EIO)
    world_fail ("n%u: error %d for a client", p->node + 1, error);
  if (error == -EIO && w.mix.no_quorum_ms == 0)
    world_fail ("n%u: an I/O error for a client (L2, F4)", p->node + 1);
  if (error == 0 && !c->abandoned)
    check_answer (p, c);
  finish (p->iasp, slot);
}

void
client_plugin_gone (struct wplugin *p)
{
  for (unsigned k = 0; k < W_SLOTS; k++)
    if (w.client[p->iasp][k].busy && w.client[p->iasp][k].life == p->life)
      finish (p->iasp, k); /* nobody knows whether it was done */
}
