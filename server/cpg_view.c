/* SPDX-License-Identifier: BSD-3-Clause
 *
 * How CPG's events become views.  See cpg_view.h.  Main thread of the daemon,
 * or a test's; keeps nothing outside its struct.
 */
#include <config.h>

#include "server/cpg_view.h"

#include "common/util.h"

void
cpg_view_init (struct cpg_view *v, struct cpg_proc me, bool counts_quorum)
{
  memset (v, 0, sizeof *v);
  v->me = me;
  v->counts_quorum = counts_quorum;
}

static void
view_ends (struct cpg_view *v)
{
  v->id = 0;
  v->proposed = false;
}

void
cpg_view_confchg (struct cpg_view *v, const struct cpg_proc *members, unsigned n)
{
  view_ends (v);
  v->n = 0;
  v->is_member = v->too_many = v->twice = false;
  for (unsigned i = 0; i < n; i++) {
    struct cpg_proc m = members[i];
    unsigned at = 0;

    if (m.node == v->me.node && m.pid == v->me.pid)
      v->is_member = true;
    while (at < v->n && v->members[at].node < m.node)
      at++;
    if (at < v->n && v->members[at].node == m.node) {
      /* An earlier run that has not gone yet, or a second daemon by mistake.
       * All members have to decide alike, so neither process is heard. */
      v->twice = true;
      v->members[at].pid = 0;
      continue;
    }
    if (v->n == CRG_MAX_NODES) {
      v->too_many = true;
      break;
    }
    memmove (&v->members[at + 1], &v->members[at], (v->n - at) * sizeof v->members[0]);
    v->members[at] = m;
    v->n++;
  }
}

void
cpg_view_totem (struct cpg_view *v, struct cpg_ring ring)
{
  view_ends (v);
  v->ring = ring;
  v->ring_known = true;
}

void
cpg_view_quorum (struct cpg_view *v, struct cpg_ring ring, bool quorate)
{
  v->quorum_ring = ring;
  v->quorum_known = true;
  v->quorate = quorate;
}

/* A node's ring numbers only rise, so a later ring counts for ours too: then
 * ours is over, and its end is already on its way to us. */
static bool
is_counted (const struct cpg_view *v)
{
  if (!v->counts_quorum)
    return true;
  return v->quorum_known
         && (v->quorum_ring.seq > v->ring.seq
             || (v->quorum_ring.seq == v->ring.seq && v->quorum_ring.node == v->ring.node));
}

bool
cpg_view_must_wait (const struct cpg_view *v)
{
  return v->id == 0 && v->is_member && v->ring_known && !is_counted (v);
}

bool
cpg_view_must_propose (const struct cpg_view *v)
{
  return v->id == 0 && v->is_member && !v->too_many && v->ring_known && !v->proposed
         && is_counted (v);
}

void
cpg_view_proposed (struct cpg_view *v)
{
  v->proposed = true;
}

bool
cpg_view_decide (struct cpg_view *v, struct cpg_ring ring, uint64_t id)
{
  if (v->id != 0 || id == 0 || !v->is_member || v->too_many || !v->ring_known
      || ring.seq != v->ring.seq || ring.node != v->ring.node)
    return false;
  v->id = id;
  return true;
}

bool
cpg_view_takes (const struct cpg_view *v, struct cpg_proc from, uint64_t id)
{
  if (v->id == 0 || id != v->id)
    return false;
  for (unsigned i = 0; i < v->n; i++)
    if (v->members[i].node == from.node)
      return v->members[i].pid == from.pid;
  return false;
}
