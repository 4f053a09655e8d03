/* SPDX-License-Identifier: BSD-3-Clause
 *
 * What the parts of the simulated cluster share; see cluster.h.
 */
#ifndef SIM_CLUSTER_PRIVATE_H
#define SIM_CLUSTER_PRIVATE_H

#include "tests/sim/cluster.h"

#define TRACE(s, ...)                                      \
  do {                                                     \
    if ((s)->trace) {                                      \
      printf ("# %8" PRIu64 " ", (s)->now_ms);             \
      printf (__VA_ARGS__);                                \
      printf ("\n");                                       \
    }                                                      \
  } while (0)

static inline uint64_t
local_ms (const struct sim *s, const struct sim_node *n)
{
  return (uint64_t) ((int64_t) s->now_ms + n->offset_ms
                     + (int64_t) s->now_ms * n->ppm / 1000000);
}

static inline int
site_of_node (const struct sim *s, unsigned n)
{
  return s->site[n];
}

static inline bool
is_script (const struct sim *s, unsigned iasp)
{
  return (s->cfg.scripts & (1u << iasp)) != 0;
}

static inline int
machine_of (const struct sim *s, unsigned n)
{
  return s->cfg.one_machine ? 0 : (int) n;
}

static inline uint64_t
boot_of (const struct sim *s, unsigned n)
{
  return s->cfg.one_machine ? 1 : s->node[n].boot;
}

/* cluster.c */
extern unsigned sim_delay (struct sim *s, unsigned max_ms);

/* cluster_ring.c */
extern void sim_msg_unref (struct sim_msg *m);
extern void sim_drop_queues (struct sim_node *node);
extern void sim_order (struct sim *s, struct sim_node *node);
extern void sim_reform (struct sim *s);

/* cluster_crgd.c */
extern void sim_feed (struct sim *s, unsigned n, struct group_event *ev);
extern void sim_later (struct sim *s, unsigned n, struct sim_pending p);
extern bool sim_reaches (const struct sim *s, unsigned n, unsigned iasp);
extern void sim_stop_plugin (struct sim *s, unsigned n, unsigned iasp, bool graceful);
extern void sim_is_known (struct sim *s, unsigned n, struct group_event *ask);
extern void sim_do_host (struct sim *s, unsigned n, struct group_event *ask);
extern void sim_do_probe (struct sim *s, unsigned n, const struct group_event *ask);
extern void sim_do_fence (struct sim *s, unsigned n, const struct group_event *ask);
extern void sim_die (struct sim *s, unsigned n);

/* cluster_data.c */
extern bool sim_has_lease (const struct sim *s, unsigned n, unsigned iasp);
extern void sim_data_step (struct sim *s);

#endif
