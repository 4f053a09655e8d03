/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The engine of the simulated cluster: one order in each ring, and what the
 * sides of a cut make of it.  See cluster.h.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/cluster_private.h"

void
sim_msg_unref (struct sim_msg *m)
{
  if (m != NULL && --m->refs == 0)
    free (m);
}

void
sim_drop_queues (struct sim_node *node)
{
  for (unsigned i = 0; i < node->n_in; i++)
    sim_msg_unref (node->in[i].msg);
  for (unsigned i = 0; i < node->n_out; i++)
    sim_msg_unref (node->out[i]);
  node->n_in = node->n_out = 0;
}

static void
push_in (struct sim_node *node, struct sim_in in)
{
  if (node->n_in == node->cap_in) {
    node->cap_in = node->cap_in == 0 ? 64 : node->cap_in * 2;
    node->in = realloc (node->in, node->cap_in * sizeof *node->in);
    if (node->in == NULL)
      abort ();
  }
  if (in.msg != NULL)
    in.msg->refs++;
  node->in[node->n_in++] = in;
}

/* The engine takes a node's next message and gives it its place. */
void
sim_order (struct sim *s, struct sim_node *node)
{
  struct sim_msg *m = node->out[0];
  uint64_t seq = ++s->ring_seq[node->ring % 4096];

  memmove (node->out, node->out + 1, (node->n_out - 1) * sizeof node->out[0]);
  node->n_out--;
  if (m->len > 5 && m->buf[5] < MSG_TYPE_END)
    s->sent[m->buf[5]]++; /* the type, behind magic and version */
  for (unsigned k = 0; k < s->n_nodes; k++)
    if (s->node[k].running && s->node[k].ring == node->ring)
      push_in (&s->node[k], (struct sim_in) { m, node->ring, seq, 0 });
  sim_msg_unref (m);
}

/* A side of a cut keeps what one of its members has delivered, and some of
 * the rest. */
static void
truncate_tail (struct sim *s, uint64_t ring, uint16_t side)
{
  uint64_t delivered = 0, last = s->ring_seq[ring % 4096], keep;

  for (unsigned k = 0; k < s->n_nodes; k++)
    if ((side & (1u << k)) && s->node[k].delivered > delivered)
      delivered = s->node[k].delivered;
  keep = delivered + sim_random (s, last - delivered + 1);
  if (!s->cuts_lose || ring == 0)
    return;
  for (unsigned k = 0; k < s->n_nodes; k++) {
    struct sim_node *node = &s->node[k];
    unsigned to = 0;

    if (!(side & (1u << k)))
      continue;
    for (unsigned i = 0; i < node->n_in; i++)
      if (node->in[i].msg != NULL && node->in[i].ring == ring && node->in[i].seq > keep)
        sim_msg_unref (node->in[i].msg);
      else
        node->in[to++] = node->in[i];
    node->n_in = to;
  }
}

/* A side of a cut goes on with the old ring for a while, alone: behind what
 * both have, the same place in the order holds different messages on the two
 * sides, so two members can apply different changes under one stamp. */
static void
go_on_alone (struct sim *s, uint64_t ring, uint16_t side)
{
  if (!s->cuts_lose || ring == 0)
    return;
  for (unsigned k = 0; k < s->n_nodes; k++) {
    struct sim_node *node = &s->node[k];

    while ((side & (1u << k)) && !node->mute && node->n_out > 0 && sim_random (s, 3) > 0) {
      struct sim_msg *m = node->out[0];
      uint64_t seq = ++s->ring_seq[ring % 4096];

      memmove (node->out, node->out + 1, (node->n_out - 1) * sizeof node->out[0]);
      node->n_out--;
      for (unsigned i = 0; i < s->n_nodes; i++)
        if (side & (1u << i))
          push_in (&s->node[i], (struct sim_in) { m, ring, seq, 0 });
      sim_msg_unref (m);
    }
  }
}

void
sim_reform (struct sim *s)
{
  for (unsigned k = 0; k < s->n_nodes; k++) {
    struct sim_node *node = &s->node[k];
    uint16_t members = 0, done = 0;
    bool same = true;
    uint64_t ring;

    if (!node->running)
      continue;
    for (unsigned i = 0; i < s->n_nodes; i++)
      if (s->node[i].running && s->node[i].part == node->part)
        members |= (uint16_t) (1u << i);
    for (unsigned i = 0; i < s->n_nodes; i++)
      if (members & (1u << i))
        same = same && s->node[i].ring == node->ring && s->node[i].ring_members == members;
    if (same && node->ring != 0)
      continue;
    for (unsigned i = 0; i < s->n_nodes; i++) {
      uint16_t side = 0;

      if (!(members & (1u << i)) || (done & (1u << i)))
        continue;
      for (unsigned m = 0; m < s->n_nodes; m++)
        if ((members & (1u << m)) && s->node[m].ring == s->node[i].ring)
          side |= (uint16_t) (1u << m);
      truncate_tail (s, s->node[i].ring, side);
      go_on_alone (s, s->node[i].ring, side);
      done |= side;
    }
    ring = ++s->ring_counter;
    s->ring_seq[ring % 4096] = 0;
    TRACE (s, "ring %" PRIu64 " members %x", ring, members);
    for (unsigned i = 0; i < s->n_nodes; i++)
      if (members & (1u << i)) {
        s->node[i].ring = ring;
        s->node[i].ring_members = members;
        s->node[i].delivered = 0;
        push_in (&s->node[i], (struct sim_in) { NULL, ring, 0, members });
      }
  }
}
