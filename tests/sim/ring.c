/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The group engine of crgsim, as bad as real ones: one order in each ring, own delivery is no
 * commit, the sides of a cut keep different tails of the old ring, what was accepted before a
 * change may come out after it, views come several at once, and a member that was stopped gets
 * all of it later.  A ring that can't hear a member orders nothing until it is formed anew.
 */
#include <string.h>

#include "common/util.h"
#include "tests/sim/world.h"

static void
unref (unsigned msg)
{
  if (msg != 0)
    w.msg[msg - 1].refs--;
}

static unsigned
new_msg (void)
{
  for (unsigned i = 0; i < W_MSGS; i++) {
    unsigned k = (w.msg_next + i) % W_MSGS;

    if (w.msg[k].refs == 0) {
      w.msg_next = k + 1;
      return k;
    }
  }
  world_fail ("no message is free");
  return 0;
}

void
ring_wake (unsigned node)
{
  struct wnode *n = &w.node[node];
  struct wev *e;

  if (n->running && !n->paused && n->in_n > 0 && !n->deliver_pending) {
    n->deliver_pending = true;
    e = after_us (1 + world_random (w.mix.net_us), EV_DELIVER);
    e->node = (uint8_t) node;
    e->life = n->life;
  }
  if (n->running && n->out_n > 0 && !n->order_pending) {
    n->order_pending = true;
    e = after_us (1 + world_random (2 * w.mix.net_us), EV_ORDER);
    e->node = (uint8_t) node;
    e->life = n->life;
  }
}

void
ring_drop (unsigned node)
{
  struct wnode *n = &w.node[node];

  for (; n->in_n > 0; n->in_n--, n->in_head = (n->in_head + 1) % W_INBOX)
    unref (n->in[n->in_head].msg);
  for (; n->out_n > 0; n->out_n--, n->out_head = (n->out_head + 1) % W_OUTBOX)
    unref (n->out[n->out_head]);
  n->in_head = n->out_head = 0;
  n->ring = 0;
  n->ring_members = 0;
}

static void
push_in (unsigned node, struct inbox_entry in)
{
  struct wnode *n = &w.node[node];

  if (n->in_n == W_INBOX) {
    /* It does not read: dropped as dead (hub.c), and restarted by its supervisor. */
    TRACE ("n%u does not read", node + 1);
    crgd_die (node, true);
    return;
  }
  if (in.msg != 0)
    w.msg[in.msg - 1].refs++;
  n->in[(n->in_head + n->in_n++) % W_INBOX] = in;
  ring_wake (node);
}

void
ring_mcast (unsigned node, const uint8_t *buf, size_t len)
{
  struct wnode *n = &w.node[node];
  unsigned k;

  if (n->ring == 0)
    return; /* -ENOTCONN */
  if (n->out_n == W_OUTBOX || len > W_MSG_MAX) {
    world_fail ("n%u: a message of %zu bytes does not go out", node + 1, len);
    return;
  }
  k = new_msg ();
  w.msg[k].refs = 1;
  w.msg[k].from = n->id;
  w.msg[k].len = (uint32_t) len;
  memcpy (w.msg[k].buf, buf, len);
  n->out[(n->out_head + n->out_n++) % W_OUTBOX] = (uint16_t) (k + 1);
  ring_wake (node);
}

static bool
hear_each_other (unsigned a, unsigned b)
{
  return (w.reach[a] & 1u << b) && (w.reach[b] & 1u << a);
}

/* Is every member of its ring there and heard?  Else the token is lost. */
static bool
ring_turns (const struct wnode *n)
{
  for (unsigned a = 0; a < w.n_nodes; a++)
    if (n->ring_members & 1u << a) {
      if (!w.node[a].running || w.node[a].ring != n->ring)
        return false;
      for (unsigned b = 0; b < a; b++)
        if ((n->ring_members & 1u << b) && !hear_each_other (a, b))
          return false;
    }
  return true;
}

void
ring_order (unsigned node)
{
  struct wnode *n = &w.node[node];
  unsigned msg;
  uint64_t seq;

  n->order_pending = false;
  if (n->out_n == 0 || n->ring == 0 || !ring_turns (n))
    return; /* woken by the next ring */
  msg = n->out[n->out_head];
  n->out_head = (n->out_head + 1) % W_OUTBOX;
  n->out_n--;
  seq = ++w.ring_seq[n->ring % ARRAY_SIZE (w.ring_seq)];
  for (unsigned k = 0; k < w.n_nodes; k++)
    if (w.node[k].running && w.node[k].ring == n->ring)
      push_in (k, (struct inbox_entry) { (uint16_t) msg, 0, n->ring, seq });
  unref (msg);
  ring_wake (node);
}

void
ring_deliver (unsigned node)
{
  struct wnode *n = &w.node[node];
  /* A daemon that wakes up takes what is there, up to a batch. */
  unsigned batch = 1 + (unsigned) world_random (8);

  n->deliver_pending = false;
  while (batch-- > 0 && n->running && !n->paused && n->in_n > 0 && !w.failed) {
    struct inbox_entry in = n->in[n->in_head];
    struct group_event ev = { .kind = GE_MSG };

    n->in_head = (n->in_head + 1) % W_INBOX;
    n->in_n--;
    if (in.msg == 0) {
      ev.kind = GE_VIEW;
      ev.view = in.ring;
      for (unsigned k = 0; k < w.n_nodes; k++)
        if (in.members & 1u << k)
          ev.members[ev.n_members++] = w.node[k].id;
      n->view_members = in.members;
      TRACE ("n%u view %llu members %x", node + 1, (unsigned long long) in.ring, in.members);
      crgd_feed (node, &ev);
      continue;
    }
    if (in.ring == n->ring)
      n->delivered = in.seq;
    ev.from = w.msg[in.msg - 1].from;
    ev.buf = w.msg[in.msg - 1].buf;
    ev.len = w.msg[in.msg - 1].len;
    check_message (node, ev.buf, ev.len);
    crgd_feed (node, &ev);
    check_delivered (node);
    unref (in.msg);
  }
  if (n->running)
    ring_wake (node);
}

/* A side keeps what one of its members has delivered, and some of the rest. */
static void
truncate_tail (uint64_t ring, uint16_t side)
{
  uint64_t delivered = 0, last = w.ring_seq[ring % ARRAY_SIZE (w.ring_seq)], keep;

  if (ring == 0)
    return;
  for (unsigned k = 0; k < w.n_nodes; k++)
    if ((side & 1u << k) && w.node[k].delivered > delivered)
      delivered = w.node[k].delivered;
  keep = delivered + world_random (last - delivered + 1);
  for (unsigned k = 0; k < w.n_nodes; k++) {
    struct wnode *n = &w.node[k];
    unsigned to = 0;

    if (!(side & 1u << k))
      continue;
    for (unsigned i = 0; i < n->in_n; i++) {
      struct inbox_entry in = n->in[(n->in_head + i) % W_INBOX];

      if (in.msg != 0 && in.ring == ring && in.seq > keep)
        unref (in.msg);
      else
        n->in[(n->in_head + to++) % W_INBOX] = in;
    }
    n->in_n = to;
  }
}

/* Who forms a ring with whom: all that hear one another, taken up in a random order. */
static void
choose_parts (uint16_t part[W_NODES])
{
  unsigned order[W_NODES];

  for (unsigned i = 0; i < w.n_nodes; i++) {
    unsigned k = (unsigned) world_random (i + 1);

    order[i] = order[k];
    order[k] = i;
    part[i] = 0;
  }
  for (unsigned i = 0; i < w.n_nodes; i++) {
    unsigned a = order[i];
    uint16_t members = (uint16_t) (1u << a);

    if (!w.node[a].running || part[a] != 0)
      continue;
    for (unsigned k = i + 1; k < w.n_nodes; k++) {
      unsigned b = order[k];
      bool all = w.node[b].running && part[b] == 0;

      for (unsigned m = 0; m < w.n_nodes && all; m++)
        if (members & 1u << m)
          all = hear_each_other (m, b);
      if (all)
        members |= (uint16_t) (1u << b);
    }
    for (unsigned b = 0; b < w.n_nodes; b++)
      if (members & 1u << b)
        part[b] = members;
  }
}

void
ring_reform (void)
{
  uint16_t part[W_NODES], done = 0;

  w.reform_pending = false;
  choose_parts (part);
  for (unsigned k = 0; k < w.n_nodes; k++) {
    uint16_t members = part[k], sides = 0;
    bool same = true;
    uint64_t ring;

    if (!w.node[k].running || (done & 1u << k))
      continue;
    done |= members;
    for (unsigned i = 0; i < w.n_nodes; i++)
      if (members & 1u << i)
        same = same && w.node[i].ring == w.node[k].ring && w.node[i].ring_members == members;
    if (same && w.node[k].ring != 0)
      continue;
    for (unsigned i = 0; i < w.n_nodes; i++) {
      uint16_t side = 0;

      if (!(members & 1u << i) || (sides & 1u << i))
        continue;
      for (unsigned m = 0; m < w.n_nodes; m++)
        if ((members & 1u << m) && w.node[m].ring == w.node[i].ring)
          side |= (uint16_t) (1u << m);
      truncate_tail (w.node[i].ring, side);
      sides |= side;
    }
    ring = ++w.rings;
    w.ring_seq[ring % ARRAY_SIZE (w.ring_seq)] = 0;
    TRACE ("ring %llu members %x", (unsigned long long) ring, members);
    for (unsigned i = 0; i < w.n_nodes; i++)
      if (members & 1u << i) {
        struct wnode *n = &w.node[i];

        n->ring = ring;
        n->ring_members = members;
        n->delivered = 0;
        if (!w.mix.keep_out)
          for (; n->out_n > 0; n->out_n--, n->out_head = (n->out_head + 1) % W_OUTBOX)
            unref (n->out[n->out_head]);
        push_in (i, (struct inbox_entry) { 0, members, ring, 0 });
      }
  }
  tell_cluster ();
  for (unsigned k = 0; k < w.n_nodes; k++)
    ring_wake (k);
}

void
ring_changed (bool at_once)
{
  /* A process that goes is seen at once; a machine or a cable after a token's time. */
  uint64_t us = at_once ? MS (1) + world_random (MS (20))
                        : MS (w.mix.token_ms) + world_random (MS (w.mix.token_ms));

  if (w.reform_pending && !at_once)
    return;
  w.reform_pending = true;
  after_us (us, EV_REFORM);
}
