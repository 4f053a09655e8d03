/* SPDX-License-Identifier: BSD-3-Clause
 *
 * What has to be true in the small world after each step, and when nothing is awaited any more; see
 * small.h.
 */
#include <assert.h>
#include <string.h>

#include "tests/sim/small_private.h"

bool
small_has_lease (unsigned n)
{
  return small.plugin[n].role == HOST_PRODUCTION && small.plugin[n].until_ms > small.now_ms;
}

/* Who has a lease writes as soon as it can, and is answered when all that have to have it do (L2, R2,
 * R3). */
static void
write_once (unsigned n)
{
  const struct small_plugin *p = &small.plugin[n];
  const unsigned own = small_site_of (n);
  const unsigned need = (unsigned) (p->set | p->ready) & ~(1u << own);

  if (small.silent[n] == SILENT_FROZEN || p->held)
    return;
  if (small.store[own].behind)
    small_failed ("LOST WRITE: serves without what was answered", n);
  if (small.store[own].unusable)
    small_failed ("serves an unusable copy", n);
  for (unsigned s = 0; s < small_sites; s++)
    if ((need & (1u << s)) && small_reach (n, s) < 0)
      return;
  for (unsigned s = 0; s < small_sites; s++)
    if (s != own && !(need & (1u << s)))
      small.store[s].behind = true;
}

void
small_judge (unsigned n, uint64_t serial)
{
  static uint8_t bytes[STATE_ENCODED_MAX];
  unsigned serving = 0;

  for (unsigned k = 0; k < small_nodes; k++)
    if (small_has_lease (k)) {
      serving++;
      write_once (k);
    }
  if (serving > 1)
    small_failed ("two production hosts within their leases", n);
  if (small_group[n]->has_committed && small_group[n]->serial != serial) {
    const struct crg_state *c = &small_group[n]->committed;
    size_t len = state_encode (c, bytes, sizeof bytes);
    uint64_t key = small_mix (small_mix (SMALL_FNV, c->lineage, CRG_ID_LEN), &c->stamp, sizeof c->stamp);

    if (!small_state_fact (key, small_mix (SMALL_FNV, bytes, len), false))
      small_failed ("C2, C3: one committed stamp, two contents", n);
  }
}

/* Is there somebody in the part who could open the copy of a site? */
static bool
can_serve (unsigned site, unsigned part, const struct crg_state *c)
{
  const unsigned by = small.store[site].open_by;

  if (!c->rec[0].copies[site].in_set || small.store[site].past)
    return false;
  for (unsigned n = 0; n < small_nodes; n++)
    if (small_site_of (n) == site && small_is_there (n) && small.part[n] == part && (by == 0 || by == n + 1))
      return true;
  return false;
}

/* A part that can go on does, and another hosts no production (C4).  Who is silent takes no part. */
static void
check_part (unsigned part)
{
  const struct crg_state *c = NULL;
  uint32_t ids[SMALL_NODES] = { 0 };
  unsigned n_ids = 0;
  bool served = false, could = false;

  for (unsigned n = 0; n < small_nodes; n++)
    if (small_is_there (n) && small.part[n] == part)
      ids[n_ids++] = n + 1;
  for (unsigned n = 0; n < small_nodes; n++)
    served = served || (small.part[n] == part && small_has_lease (n));
  if (!state_has_majority (small.recovered ? &small_recovered : &small_created, ids, n_ids)) {
    if (served)
      small_failed ("production without a majority", ids[0] - 1);
    return;
  }
  for (unsigned i = 0; i < n_ids; i++) {
    const struct group *g = small_group[ids[i] - 1];

    if (!group_active (g)) {
      small_failed ("not active, with a majority", ids[i] - 1);
      return;
    }
    if (c != NULL && stamp_compare (group_committed (g)->stamp, c->stamp) != 0)
      small_failed ("other states in the end", ids[i] - 1);
    c = group_committed (g);
    for (unsigned k = 0; k < GROUP_MAX_REQUESTS; k++)
      if (g->requests[k].used)
        small_failed ("an operator waits for an answer for ever", ids[i] - 1);
    if (small.plugin[ids[i] - 1].held && small_has_lease (ids[i] - 1))
      small_failed ("production is held for ever (F6)", ids[i] - 1);
  }
  assert (c != NULL);
  if (!c->started && served)
    small_failed ("production of a CRG that was ended", ids[0] - 1);
  for (unsigned s = 0; s < small_sites; s++)
    could = could || can_serve (s, part, c);
  if (c->started && could && !served)
    small_failed ("nobody serves, and somebody could", ids[0] - 1);
}

void
small_check_settled (void)
{
  const struct crg_state *c;
  unsigned production = SMALL_NODES;

  check_part (0);
  if (small_is_cut ())
    check_part (1);
  for (unsigned n = 0; n < small_nodes; n++) {
    if (!small_is_there (n) || small.part[n] != 0)
      return;
    if (small_has_lease (n))
      production = n;
  }
  if (small_failure[0] != 0)
    return;
  c = group_committed (small_group[0]);
  if (!c->started) {
    for (unsigned n = 0; n < small_nodes; n++)
      if (small.plugin[n].role != HOST_NONE)
        small_failed ("hosts a copy of a CRG that was ended", n);
    return;
  }
  if (production == SMALL_NODES) {
    small_failed ("nobody serves in the end", 0);
    return;
  }
  for (unsigned s = 0; s < small_sites; s++) {
    uint32_t host = c->rec[0].copies[s].host;
    const struct hosting *h;

    /* R6: a fork is an operator's to decide about. */
    if (small.store[s].past)
      continue;
    if (host == NO_NODE || small.plugin[host - 1].role == HOST_NONE) {
      small_failed ("a copy without a host in the end", s);
      continue;
    }
    h = &small_group[host - 1]->host[0];
    if (s != small_site_of (production)
        && (h->start_node != production + 1
            || h->start_incarnation != small_group[production]->cfg.incarnation || !c->rec[0].copies[s].in_set))
      small_failed ("a copy that is not mirrored to in the end", s);
  }
}
