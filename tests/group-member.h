/* SPDX-License-Identifier: BSD-3-Clause */
/* For unit tests of one member's core in a cluster that is up: 2 + 2 nodes and a replicate with two
 * resources, then copies of the cores, of which a case takes one as `g` and changes it. */
#ifndef TESTS_GROUP_MEMBER_H
#define TESTS_GROUP_MEMBER_H

#include "tests/group-world.h"

static struct group base[5], g;
static struct group_actions out;

static inline void
up (bool access, unsigned scripts)
{
  const struct sim_config cfg = {
    .n_sites = 2, .nodes_per_site = 2, .n_replicates = 1, .n_iasps = 2, .access = access, .scripts = scripts,
    .one_machine = true, .calm = true,
  };

  ok (world_up (cfg, 1, 2000), "%s: up", access ? "ACCESS" : "SITE");
  for (unsigned n = 0; n < 5; n++)
    base[n] = *s.node[n].g;
}

static inline struct peer *
peer (unsigned n)
{
  return group_peer (&g, n + 1);
}

/* Actions of a kind in the last step. */
static inline unsigned
count (uint8_t kind)
{
  unsigned n = 0;

  for (unsigned i = 0; i < out.n; i++)
    n += out.a[i].kind == kind;
  return n;
}

#endif /* TESTS_GROUP_MEMBER_H */
