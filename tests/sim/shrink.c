/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The smallest history that breaks the same rule: fewer nodes and IASPs first, then fewer faults, then
 * fewer steps.  A smaller cluster has another history, so of each size many are tried, and the
 * shortest that breaks the rule is taken.  Deterministic: the same seed gives the same result.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "tests/sim/world.h"

#define HISTORIES   120       /* of each size */
#define MOST_STEPS  20000000u /* of all histories of smaller clusters; a minute or less */

static char wanted[sizeof w.failure];
static uint64_t spent;

/* The same rule: the text without its numbers. */
static bool
same_kind (const char *a, const char *b)
{
  while (*a && *b) {
    if (*a >= '0' && *a <= '9' && *b >= '0' && *b <= '9') {
      while (*a >= '0' && *a <= '9')
        a++;
      while (*b >= '0' && *b <= '9')
        b++;
    }
    else if (*a++ != *b++)
      return false;
  }
  return *a == *b;
}

static bool
breaks (void)
{
  bool good = run_history ();

  spent += w.st.steps;
  return !good && same_kind (w.failure, wanted);
}

/* No fault comes after the failure. */
static void
cut_steps (void)
{
  if (w.st.steps < run.steps)
    run.steps = w.st.steps + 1;
}

static unsigned
nodes_of (const struct cluster_size *size)
{
  return size->sites * size->per_site + size->replicates;
}

static bool
is_of_kind (unsigned kind)
{
  const struct mix *m = &w.mix;

  return kind == K_PEER ? m->peer : kind == K_ACCESS ? m->access : kind == K_LEASES ? m->leases : m->fence;
}

/* Does it need to be such a world? */
static void
shrink_kinds (void)
{
  for (unsigned k = K_FIRST; k < K_END; k++) {
    const struct run was = run;
    bool found = false;

    if ((run.without & KIND (k)) || !is_of_kind (k))
      continue;
    run.with &= ~KIND (k);
    run.without |= KIND (k);
    for (unsigned h = 0; h < HISTORIES && spent < MOST_STEPS / 4 && !found; h++) {
      run.history = h;
      found = breaks ();
    }
    if (found)
      cut_steps ();
    else
      run = was;
    breaks ();
  }
}

/* Of clusters smaller than this one the smallest that breaks the rule. */
static void
shrink_nodes (void)
{
  static const struct cluster_size sizes[] = {
    { 2, 1, 0, 1 }, { 2, 1, 1, 1 }, { 3, 1, 0, 1 }, { 2, 2, 0, 1 }, { 3, 1, 1, 1 }, { 2, 2, 1, 1 }, { 3, 2, 0, 1 },
    { 2, 1, 0, 2 }, { 2, 1, 1, 2 }, { 3, 1, 0, 2 }, { 2, 2, 0, 2 }, { 3, 1, 1, 2 }, { 2, 2, 1, 2 }, { 3, 2, 0, 2 },
  };
  const unsigned n_nodes = w.n_nodes - w.mix.n_peers, n_iasps = w.mix.n_iasps;
  const struct run was = run;

  for (unsigned k = 0; k < sizeof sizes / sizeof sizes[0]; k++) {
    struct run best = was;
    bool found = false;

    if (nodes_of (&sizes[k]) > n_nodes || sizes[k].iasps > n_iasps
        || (nodes_of (&sizes[k]) == n_nodes && sizes[k].iasps == n_iasps))
      continue;
    for (unsigned h = 0; h < HISTORIES && spent < MOST_STEPS; h++) {
      run = was;
      run.size = sizes[k];
      run.history = h;
      run.steps = found ? best.steps : was.steps;
      if (!breaks () || (found && w.st.steps >= best.steps))
        continue;
      cut_steps ();
      best = run;
      found = true;
    }
    run = best;
    if (found)
      return;
  }
}

static void
shrink_faults (void)
{
  static unsigned number[FAULTS_MAX];
  unsigned n = 0;

  for (unsigned k = 0; k < FAULTS_MAX; k++)
    if (run_fault (k))
      number[n++] = k;
  if (n > w.st.faults + 64)
    n = (unsigned) w.st.faults + 64;
  run.only = true;
  memset (run.chosen, 0, sizeof run.chosen);
  for (unsigned k = 0; k < n; k++)
    run.chosen[number[k]] = true;
  for (unsigned chunk = n; chunk > 0; chunk /= 2)
    for (unsigned at = 0; at < n; at += chunk) {
      bool any = false;

      for (unsigned k = at; k < at + chunk && k < n; k++) {
        any = any || run.chosen[number[k]];
        run.chosen[number[k]] = false;
      }
      if (!any)
        continue;
      if (breaks ())
        cut_steps ();
      else
        for (unsigned k = at; k < at + chunk && k < n; k++)
          run.chosen[number[k]] = true;
    }
}

/* What breaks a rule long after the last fault may need fewer steps before. */
static void
shrink_steps (void)
{
  for (uint64_t cut = run.steps / 2; cut > 0; cut /= 2) {
    run.steps -= cut;
    if (!breaks ())
      run.steps += cut;
  }
}

static void
print_kinds (const char *option, uint64_t kinds)
{
  unsigned n = 0;

  for (unsigned k = 0; k < K_END; k++)
    if (kinds & KIND (k))
      printf ("%s%s", n++ ? "," : option, kind_name (k));
}

static void
print_options (void)
{
  unsigned left = 0;

  printf ("# shrunk: --seed %" PRIu64 " --steps %" PRIu64, run.seed, run.steps);
  if (run.history > 0)
    printf (" --history %" PRIu64, run.history);
  if (run.size.sites > 0)
    printf (" --nodes %ux%u+%u", run.size.sites, run.size.per_site, run.size.replicates);
  if (run.size.iasps > 0)
    printf (" --iasps %u", run.size.iasps);
  if (w.lying_disks)
    printf (" --lying-disks");
  print_kinds (" --without ", run.without);
  print_kinds (" --with ", run.with);
  printf (" --faults ");
  for (unsigned k = 0; k < FAULTS_MAX; k++)
    if (run.chosen[k])
      printf ("%s%u", left++ ? "," : "", k);
  printf ("%s\n", left ? "" : "none");
}

void
shrink (void)
{
  const bool trace = w.trace;

  w.trace = false;
  strcpy (wanted, w.failure);
  spent = 0;
  print_mix (&w.mix);
  printf ("# %" PRIu64 " steps, %" PRIu64 " faults\n", w.st.steps, w.st.faults);
  cut_steps ();
  shrink_kinds ();
  shrink_nodes ();
  breaks ();
  shrink_faults ();
  shrink_steps ();
  print_options ();
  w.trace = trace;
  w.tail = !trace;
  run_history ();
  w.tail = false;
  world_print_tail ();
  print_mix (&w.mix);
  printf ("# %" PRIu64 " steps, %" PRIu64 " faults\n# %s\n", w.st.steps, w.st.faults, w.failure);
}
