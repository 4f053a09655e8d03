/* SPDX-License-Identifier: BSD-3-Clause */
/* The CRG of unit tests and fuzzers: so many nodes at rome and as many at oslo, a replicate, up to two
 * IASPs that all but the replicate have a store for.  The numbers of the nodes begin with first_id. */
#ifndef TESTS_CRG_DEF_H
#define TESTS_CRG_DEF_H

#include <stdio.h>
#include <string.h>

#include "server/state.h"

static inline void
crg_def_make (struct crg_def *d, unsigned per_site, uint32_t first_id, unsigned n_iasps)
{
  memset (d, 0, sizeof *d);
  strcpy (d->name, "payroll");
  memset (d->cluster_id, 1, CRG_ID_LEN);
  memset (d->id, 2, CRG_ID_LEN);
  d->suspend_timeout_ms = 3000;
  d->n_sites = 2;
  d->n_nodes = (uint8_t) (2 * per_site + 1);
  d->n_iasps = (uint8_t) n_iasps;
  strcpy (d->sites[0], "rome");
  strcpy (d->sites[1], "oslo");
  for (unsigned i = 0; i < d->n_nodes; i++) {
    struct domain_node *n = &d->nodes[i];
    const bool hosts = i < 2 * per_site;

    n->id = first_id + i;
    snprintf (n->name, sizeof n->name, "n%u", i + 1);
    n->site = hosts ? (uint8_t) (i / per_site) : NO_SITE;
    n->preferred_role = !hosts ? MEMBER_REPLICATE : i == 0 ? MEMBER_PRIMARY : MEMBER_BACKUP;
    n->votes = n->new_votes = 1;
    n->order = n->preferred_order = (uint8_t) i;
    n->n_addresses = 1;
    strcpy (n->addresses[0], "127.0.0.1");
    for (unsigned k = 0; k < n_iasps; k++) {
      d->iasps[k].order[i] = (uint8_t) i;
      if (hosts)
        strcpy (d->iasps[k].store[i], "/store");
    }
  }
  for (unsigned k = 0; k < n_iasps; k++) {
    strcpy (d->iasps[k].name, k == 0 ? "data" : "more");
    memset (d->iasps[k].id, 9 + (int) k, CRG_ID_LEN);
    d->iasps[k].size = 1 << 20;
    d->iasps[k].dirty_block = 65536;
    d->iasps[k].mirror_port = (uint16_t) (10810 + k);
    strcpy (d->iasps[k].export, "unix:");
  }
}

#endif /* TESTS_CRG_DEF_H */
