/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The moves of the small world: what a search chooses from; see small.h.
 */
#include <assert.h>
#include <string.h>

#include "common/util.h"
#include "tests/sim/small_private.h"

struct crg_state small_recovered;

/* C8, C9: a crgd that leaves the group comes back by itself, as a new incarnation; with an empty disk, if
 * what it held is of the past. */
static void
come_back (unsigned n)
{
  const unsigned kind = small.leaving[n] - 1u;

  if (small.leaving[n] == 0)
    return;
  small.leaving[n] = 0;
  if (kind != LEAVE_AGAIN && kind != LEAVE_LINEAGE) {
    small_failed ("leaves its group", n);
    return;
  }
  small_die (n, false, kind == LEAVE_AGAIN);
  small.empty[n] = small.empty[n] || kind == LEAVE_LINEAGE;
  small.joins_left[n]++;
  small_join (n);
}

void
small_deliver (unsigned n)
{
  const struct small_message *m = &small_message[small.inbox[n][0]];
  struct group_event ev = { .kind = GE_MSG };
  const uint64_t starts = small_group[n]->counters.mirror_start, serial = small_group[n]->serial;

  small_steps++;
  small.last[n]--;
  memmove (small.inbox[n], small.inbox[n] + 1, small.last[n] * sizeof small.inbox[n][0]);
  if (m->from == 0) {
    ev.kind = GE_VIEW;
    ev.view = m->view;
    for (unsigned k = 0; k < small_nodes; k++)
      if (m->members & (1u << k))
        ev.members[ev.n_members++] = k + 1;
  } else {
    ev.from = m->from;
    ev.buf = small_arena + m->at;
    ev.len = m->len;
  }
  small_feed (n, &ev);
  if (small_group[n]->counters.mirror_start != starts) {
    const struct hosting *h = &small_group[n]->host[0];
    uint64_t pair[4] = { h->start_node, h->start_incarnation, small_group[n]->cfg.incarnation, h->start_tenure };

    if (!small_state_fact (small_mix (SMALL_FNV + 1, pair, sizeof pair), 1, true))
      small_failed ("message 6 twice for one pair of incarnations", n);
  }
  small_judge (n, serial);
  come_back (n);
  small_changed (n);
}

static void
tick (unsigned n)
{
  struct group_event ev = { .kind = GE_TICK };
  const uint64_t serial = small_group[n]->serial;

  small_feed (n, &ev);
  small_judge (n, serial);
  come_back (n);
}

/* What a production sees of the copy of a site, in one quantum. */
static void
look_at_copy (unsigned n, unsigned s)
{
  struct small_plugin *p = &small.plugin[n];
  const uint8_t bit = (uint8_t) (1u << s);

  small_fill (n, s);
  if (s == small_site_of (n) || !((p->set | p->ready) & bit))
    return;
  if (small_reach (n, s) >= 0) {
    p->away[s] = 0;
    if (p->lost & bit) {
      p->lost &= (uint8_t) ~bit;
      small_say (n, s, GE_COPY_BACK);
    }
  } else if (++p->away[s] >= 2) {
    /* The suspend timeout (R2). */
    p->away[s] = 2;
    if (!(p->lost & bit)) {
      p->lost |= bit;
      small_say (n, s, GE_COPY_LOST);
    }
  }
}

void
small_time (void)
{
  small.now_ms += SMALL_QUANTUM_MS;
  small.quiet++;
  for (unsigned n = 0; n < small_nodes; n++)
    if (small_acts (n))
      tick (n);
  for (unsigned n = 0; n < small_nodes; n++) {
    for (unsigned s = 0; s < small_sites && small_acts (n) && small.plugin[n].role == HOST_PRODUCTION; s++)
      look_at_copy (n, s);
    small_drain (n);
    come_back (n);
  }
  for (unsigned n = 0; n < small_nodes; n++)
    if (small.up[n])
      small_changed (n);
}

void
small_join (unsigned n)
{
  struct group_config cfg = { .node_id = n + 1, .token_ms = 500, .lease_ms = 3000, .start_wait_ms = 2000 };
  struct small_plugin *p = &small.plugin[n];

  small.joins_left[n]--;
  small.up[n] = true;
  cfg.incarnation = 100u * ++small.incarnation[n] + n + 1;
  group_init (small_group[n], &cfg, small.empty[n] ? NULL : &small_disk[n]->state,
              small.empty[n] ? 0 : small_disk[n]->promised, small.now_ms);
  if (p->role != HOST_NONE) {
    /* S3: what its last run left is adopted, and tells what it waits for. */
    struct group_event ev = { .kind = GE_HOSTED, .role = p->role, .tenure = p->tenure, .ok = true };

    small_store_info (n, &ev.store);
    small_feed (n, &ev);
    for (unsigned s = 0; s < small_sites; s++)
      if ((p->lost | p->ready) & (1u << s))
        small_say (n, s, p->lost & (1u << s) ? GE_COPY_LOST : GE_COPY_READY);
  }
  small_changed (n);
  small_reform (small.part[n]);
}

void
small_die (unsigned n, bool unsent, bool plugin_lives)
{
  const unsigned part = small.part[n];
  unsigned side = 0;

  small.up[n] = false;
  small.silent[n] = SILENT_NOT;
  small.empty[n] = !small_group[n]->has_state;
  small_disk[n]->state = small_group[n]->applied;
  small_disk[n]->promised = small_group[n]->promised;
  if (!plugin_lives)
    small_stop_plugin (n, false);
  small.last[n] = small.n_out[n] = 0;
  for (unsigned k = 0; k < small_nodes; k++)
    if (small.up[k] && small.part[k] == part)
      side |= 1u << k;
  /* All or none: a message that one of the others has got is got by all. */
  for (unsigned m = 0; m < small.n_messages && unsent && side != 0; m++)
    if (small_message[m].from == n + 1 && small_is_tail (side, (uint16_t) m))
      small_take_out (side, (uint16_t) m);
  small_changed (n);
  small_reform (part);
}

void
small_silence (unsigned n, enum small_silence kind)
{
  small.silent[n] = (uint8_t) kind;
  small.quiet = 0;
}

/* What was to be done meanwhile is done before anything is heard (L4). */
void
small_heard_again (unsigned n)
{
  const bool late = !small_acts (n);

  if (small.silent[n] == SILENT_MUTE)
    small_speak (n);
  small.silent[n] = SILENT_NOT;
  small.quiet = 0;
  if (late)
    tick (n);
  small_changed (n);
}

void
small_request (unsigned n, enum group_request request, uint32_t node)
{
  struct group_event ev = { .kind = GE_REQUEST, .request = (uint8_t) request, .node = node,
                            .request_id = ++small.n_requests };
  const uint64_t serial = small_group[n]->serial;

  small.quiet = 0;
  small_feed (n, &ev);
  small_judge (n, serial);
  come_back (n);
  small_changed (n);
}

/* The state that n would go on with. */
static const struct crg_state *
recovered_state (unsigned n)
{
  static const uint8_t lineage[CRG_ID_LEN] = { 8 };
  const struct crg_state *mine = small_state_of (n);
  static struct crg_state made;
  uint32_t ids[SMALL_NODES];
  uint16_t dead = 0;
  unsigned n_ids = 0;

  if (mine == NULL)
    return NULL;
  made = *mine;
  for (unsigned k = 0; k < small_nodes; k++) {
    const struct crg_state *other = small_state_of (k);

    /* On an older state than another's, disk and record may disagree; then the store is refused (R6). */
    if (other != NULL && stamp_compare (other->stamp, made.stamp) > 0)
      return NULL;
    if (k != n && !small.up[k] && small.plugin[k].role != HOST_NONE)
      return NULL; /* its plugin lives, and so does its machine */
    if (k != n && !small.up[k])
      dead |= (uint16_t) (1u << k);
    else
      ids[n_ids++] = k + 1;
  }
  if (state_has_majority (&made, ids, n_ids)
      || state_recover (&made, n + 1, dead,
                        small.up[n] ? group_promised (small_group[n]) : small_disk[n]->promised, lineage) != NULL)
    return NULL;
  return &made;
}

bool
small_can_recover (unsigned n)
{
  return !small.recovered && !small_is_cut () && !small_is_silent () && recovered_state (n) != NULL;
}

void
small_recover (unsigned n)
{
  const struct crg_state *made = recovered_state (n);

  assert (made != NULL);
  if (small.up[n])
    small_die (n, false, false);
  else
    small_stop_plugin (n, true);
  small.recovered = true;
  small.empty[n] = false;
  small_recovered = small_disk[n]->state = *made;
  small_disk[n]->promised = made->stamp.epoch;
  /* Another history begins: `loss` has risen, and tells that the newest answers may be gone. */
  for (unsigned s = 0; s < small_sites; s++) {
    small.store[s].past = true;
    small.store[s].behind = !made->rec[0].copies[s].in_set;
  }
  small.joins_left[n]++;
  small_join (n);
}
