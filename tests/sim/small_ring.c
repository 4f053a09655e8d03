/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The engine of the small world: messages, their order in each part, views and cuts; see small.h.
 */
#include <assert.h>
#include <string.h>

#include "common/util.h"
#include "tests/sim/small_private.h"

struct small_message small_message[SMALL_MESSAGES];
uint8_t small_arena[SMALL_ARENA];

static void
push (unsigned n, unsigned m)
{
  assert (small.last[n] < SMALL_INBOX);
  small.inbox[n][small.last[n]++] = (uint16_t) m;
}

static unsigned
new_message (void)
{
  assert (small.n_messages < SMALL_MESSAGES);
  memset (&small_message[small.n_messages], 0, sizeof small_message[0]);
  return small.n_messages++;
}

void
small_send (unsigned n, const uint8_t *bytes, uint32_t len)
{
  unsigned m = new_message ();
  struct small_message *msg = &small_message[m];

  assert (small.arena + len <= sizeof small_arena);
  msg->from = (uint8_t) (n + 1);
  msg->at = small.arena;
  msg->len = len;
  memcpy (small_arena + small.arena, bytes, len);
  small.arena += len;
  msg->hash = small_mix (SMALL_FNV, bytes, len);
  if (small.silent[n] == SILENT_MUTE) {
    assert (small.n_out[n] < SMALL_OUTBOX);
    small.outbox[n][small.n_out[n]++] = (uint16_t) m;
    return;
  }
  for (unsigned k = 0; k < small_nodes; k++)
    if (small.up[k] && small.part[k] == small.part[n])
      push (k, m);
}

void
small_speak (unsigned n)
{
  for (unsigned i = 0; i < small.n_out[n]; i++) {
    const unsigned m = new_message (); /* its place in the order is here */

    small_message[m] = small_message[small.outbox[n][i]];
    for (unsigned k = 0; k < small_nodes; k++)
      if (small.up[k] && small.part[k] == small.part[n])
        push (k, m);
  }
  small.n_out[n] = 0;
}

/* Who hears each other gets a new view; what was not sent in the one before is thrown away. */
void
small_reform (unsigned part)
{
  unsigned m = new_message ();

  small_message[m].view = ++small.view;
  for (unsigned k = 0; k < small_nodes; k++)
    if (small.up[k] && small.part[k] == part)
      small_message[m].members |= (uint8_t) (1u << k);
  small_message[m].hash = small_mix (SMALL_FNV, &small_message[m].members, sizeof small_message[m].members);
  small_message[m].hash = small_mix (small_message[m].hash, &small.view, sizeof small.view);
  for (unsigned k = 0; k < small_nodes; k++)
    if (small_message[m].members & (1u << k)) {
      push (k, m);
      small.ring[k] = (uint16_t) m;
      small.n_out[k] = 0;
    }
  small.quiet = 0;
}

static bool
is_in (unsigned n, uint16_t m)
{
  for (unsigned i = 0; i < small.last[n]; i++)
    if (small.inbox[n][i] == m)
      return true;
  return false;
}

/* Has no member of the side got a message of its present ring, which all of them were sent? */
bool
small_is_tail (unsigned side, uint16_t m)
{
  for (unsigned k = 0; k < small_nodes; k++)
    if ((side & (1u << k)) && small.up[k] && (m <= small.ring[k] || !is_in (k, m)))
      return false;
  return true;
}

void
small_take_out (unsigned side, uint16_t m)
{
  for (unsigned k = 0; k < small_nodes; k++) {
    unsigned to = 0;

    for (unsigned i = 0; i < small.last[k]; i++)
      if (!(side & (1u << k)) || small.inbox[k][i] != m)
        small.inbox[k][to++] = small.inbox[k][i];
    small.last[k] = (uint16_t) to;
  }
}

static void
cut_off (unsigned side, enum small_tail tail, unsigned part)
{
  uint16_t late[SMALL_INBOX], all[SMALL_INBOX];
  unsigned n_late = 0, n = 0, first = 0;

  while (first < small_nodes && !((side & (1u << first)) && small.up[first]))
    first++;
  for (unsigned k = 0; k < small_nodes; k++)
    if (side & (1u << k))
      small.part[k] = (uint8_t) part;
  if (first == small_nodes)
    return;
  if (tail != TAIL_ALL) {
    n = small.last[first];
    memcpy (all, small.inbox[first], n * sizeof all[0]);
  }
  for (unsigned i = 0; i < n; i++) {
    const struct small_message *m = &small_message[all[i]];
    const bool own = m->from != 0 && (side & (1u << (m->from - 1)));

    if (m->from == 0 || (tail == TAIL_OWN && own) || !small_is_tail (side, all[i]))
      continue;
    small_take_out (side, all[i]);
    if (tail == TAIL_LATE && own)
      late[n_late++] = all[i];
  }
  small_reform (part);
  for (unsigned i = 0; i < n_late; i++)
    for (unsigned k = 0; k < small_nodes; k++)
      if ((side & (1u << k)) && small.up[k])
        push (k, late[i]);
}

void
small_cut (unsigned side, enum small_tail theirs, enum small_tail others)
{
  const unsigned rest_of = ~side & ((1u << small_nodes) - 1);

  cut_off (side, theirs, 1);
  cut_off (rest_of, others, 0);
}

void
small_merge (void)
{
  memset (small.part, 0, sizeof small.part);
  small_reform (0);
}

bool
small_is_cut (void)
{
  for (unsigned k = 0; k < small_nodes; k++)
    if (small.part[k] != 0)
      return true;
  return false;
}

bool
small_is_silent (void)
{
  for (unsigned k = 0; k < small_nodes; k++)
    if (small.silent[k] != SILENT_NOT)
      return true;
  return false;
}

bool
small_has_tail (void)
{
  for (unsigned k = 0; k < small_nodes; k++)
    for (unsigned i = 0; i < small.last[k]; i++)
      if (small_message[small.inbox[k][i]].from != 0)
        return true;
  return false;
}

bool
small_can_hear (unsigned n)
{
  return small_acts (n) && small.silent[n] != SILENT_DEAF;
}

int
small_oldest (void)
{
  int best = -1;

  for (unsigned n = 0; n < small_nodes; n++)
    if (small.last[n] > 0 && small_can_hear (n)
        && (best < 0 || small.inbox[n][0] < small.inbox[best][0]))
      best = (int) n;
  return best;
}
