/* SPDX-License-Identifier: BSD-3-Clause
 *
 * crgsim: one simulator for the whole cluster; see world.h.
 *
 *   crgsim [--seed N] [--seeds COUNT] [--steps M] [--nodes SITESxNODES[+REPLICATES]] [--iasps N]
 *          [--history K] [--faults LIST | --no-faults LIST] [--without KIND,...]
 *          [--with KIND,...] [--trace|--verbose] [--shrink] [--hash] [--busy] [--first] [--lying-disks]
 *          [--mix]
 *
 * Runs COUNT seeds from N, M steps of faults each, then repairs everything and waits until all is
 * healthy, quiet and equal.  A seed that breaks a rule is named with the rule; --shrink looks for
 * the fewest nodes, IASPs, faults and steps that still break it (shrink.c), and prints the options
 * that show it and the end of its trace.  --nodes and --iasps are instead of what the seed chooses, as --with KIND is
 * (a fault, or `peer`, `access`, `leases` and `fence`, which are no faults: what the world is), --history K gives
 * another history of its mix, which --mix prints.  --lying-disks is beyond what is promised: disks
 * that answer a flush and have nothing flushed, to see that the checkers notice.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tests/sim/world.h"

#define HEALTHY_MS   240000 /* simulated, after the last fault */
#define QUIET_MS     60000

struct run run;

static unsigned waiting; /* seeds that end so */

bool
run_fault (unsigned number)
{
  return number < FAULTS_MAX && run.chosen[number] == run.only;
}

static bool
parse_kinds (const char *list, uint64_t *kinds)
{
  while (*list) {
    size_t len = strcspn (list, ",");
    unsigned k = 0;

    while (k < K_END && (strlen (kind_name (k)) != len || strncmp (kind_name (k), list, len) != 0))
      k++;
    if (k == K_END)
      return false;
    *kinds |= KIND (k);
    list += len + (list[len] == ',');
  }
  return true;
}

static bool
clients_busy (void)
{
  for (unsigned i = 0; i < w.mix.n_iasps; i++)
    for (unsigned k = 0; k < W_SLOTS; k++)
      if (w.client[i][k].busy)
        return true;
  return false;
}

static bool
is_so (unsigned kind)
{
  return !(run.without & KIND (kind)) && ((run.with & KIND (kind)) || kind_is_drawn (run.seed, kind));
}

static void
choose_mix (struct mix *mix)
{
  struct cluster_size size = run.size;

  for (unsigned round = 0; round < 2; round++) {
    mix_choose (mix, run.seed, &size);
    mix->peer = is_so (K_PEER);
    mix->access = is_so (K_ACCESS);
    mix->leases = is_so (K_LEASES);
    mix->fence = is_so (K_FENCE);
    for (unsigned k = 0; k < F_KINDS; k++)
      if (run.without & KIND (k))
        mix->weight[k] = 0;
      else if (run.with & KIND (k))
        mix->weight[k] = 20;
    if (mix->weight[F_BOTH_OPEN] != 0 || mix->fence)
      mix->one_machine = false; /* nodes of one machine share the store's lock, and its power */
    if (mix->per_site > 1 || size.sites != 0
        || (mix->weight[F_BOTH_OPEN] == 0 && !wants_neighbours (mix, run.seed)))
      break;
    size.sites = size.per_site = 2;
    size.replicates = 1;
  }
  mix_kinds (mix, run.seed, &size);
}

bool
run_history (void)
{
  uint64_t until, operator_us = 0;
  char why[400] = "";
  struct mix mix;
  bool healthy = false;

  choose_mix (&mix);
  world_init (run.seed, run.history, &mix);
  while (w.st.steps < run.steps && world_step ())
    ;
  if (w.failed)
    return false;
  faults_repair ();
  until = w.now_us + MS (HEALTHY_MS);
  while (!healthy && world_step ()) {
    if (w.now_us < operator_us)
      continue;
    operator_us = w.now_us + MS (2000);
    healthy = check_healthy (why, sizeof why);
    if (!healthy && w.now_us > until && w.st.fault[F_BITROT] > 0) {
      waiting++; /* a copy whose disk rotted does not take over: an operator decides (R6) */
      return true;
    }
    if (!healthy && w.now_us > until)
      world_fail ("after %u s of health: %s", HEALTHY_MS / 1000, why);
    if (!healthy)
      faults_operator ();
  }
  w.quiet = true;
  until = w.now_us + MS (QUIET_MS);
  while (!w.failed && (clients_busy () || !check_healthy (why, sizeof why)) && world_step ()) {
    if (w.now_us > until)
      world_fail ("%s", clients_busy () ? "a request is not answered by a healthy cluster" : why);
    /* What was asked for before the repair may have been done only now. */
    if (w.now_us >= operator_us && !check_healthy (why, sizeof why)) {
      operator_us = w.now_us + MS (2000);
      faults_operator ();
    }
  }
  if (!w.failed) {
    check_copies ();
    check_equal ();
  }
  w.st.ms = w.now_us / 1000 - 100000;
  return !w.failed;
}

/* Of each IASP, the nodes that reach its store, in its backup order. */
static void
print_access (const struct mix *m)
{
  for (unsigned i = 0; i < m->n_iasps; i++) {
    printf ("# iasp %u is a unit of its own:", i);
    for (unsigned place = 0; place < nodes_of_mix (m); place++)
      for (unsigned n = 0; n < m->n_sites * m->per_site; n++)
        if (m->order[i][n] == place && !(m->no_store[i] & 1u << n))
          printf (" n%u", n + 1);
    printf ("\n");
  }
}

void
print_mix (const struct mix *m)
{
  printf ("# %u sites x %u + %u, %u IASPs, %s%s, suspend %u, no-quorum %u, net %u us, disk %u us, think %u us, gap "
          "%u ms, kill %u ppm;",
          m->n_sites, m->per_site, m->n_replicates, m->n_iasps,
          m->takeover == TAKEOVER_ORDER ? "order" : "same-site-first", m->one_machine ? ", one machine a site" : "",
          m->suspend_ms, m->no_quorum_ms, m->net_us, m->disk_us, m->think_us, m->gap_ms, m->kill_ppm);
  for (unsigned k = 0; k < F_KINDS; k++)
    if (m->weight[k])
      printf (" %s", fault_names[k]);
  for (unsigned n = 0; n < nodes_of_mix (m); n++)
    if (m->peers & 1u << n)
      printf ("; n%u is a peer of site %d", n + 1, site_of_node (n));
  printf ("%s", m->leases ? "; leases differ" : "");
  if (m->fence)
    printf ("; a fence hook of %u ms", m->fence_ms);
  printf ("\n");
  if (m->access)
    print_access (m);
}

static void
parse_list (const char *list)
{
  while (*list >= '0' && *list <= '9') {
    char *end;
    unsigned long k = strtoul (list, &end, 10);

    if (k < FAULTS_MAX)
      run.chosen[k] = true;
    list = *end == ',' ? end + 1 : end;
  }
}

/* 2x1+1: two sites of a node, and a replicate. */
static bool
parse_nodes (const char *v)
{
  unsigned sites, per_site, replicates = 0;
  int at = 0;

  if (sscanf (v, "%1ux%1u%n+%1u%n", &sites, &per_site, &at, &replicates, &at) < 2 || v[at] != '\0')
    return false;
  run.size.sites = (uint8_t) sites;
  run.size.per_site = (uint8_t) per_site;
  run.size.replicates = (uint8_t) replicates;
  return size_is_possible (&run.size);
}

int
main (int argc, char **argv)
{
  uint64_t first = 1, count = 1, good = 0, all_steps = 0, all_ms = 0;
  bool busy = false, stop_at_first = false, do_shrink = false, print_hash = false, show_mix = false, trace = false;
  struct stats sum = { 0 };
  struct timespec t0, t1;
  double seconds;
  unsigned bad = 0;

  run.steps = 2000;
  for (int i = 1; i < argc; i++) {
    const char *o = argv[i], *v = i + 1 < argc ? argv[i + 1] : "";

    if (strcmp (o, "--seed") == 0)
      first = strtoull (v, NULL, 10), i++;
    else if (strcmp (o, "--seeds") == 0)
      count = strtoull (v, NULL, 10), i++;
    else if (strcmp (o, "--steps") == 0)
      run.steps = strtoull (v, NULL, 10), i++;
    else if (strcmp (o, "--history") == 0)
      run.history = strtoull (v, NULL, 10), i++;
    else if (strcmp (o, "--nodes") == 0 && parse_nodes (v))
      i++;
    else if (strcmp (o, "--iasps") == 0 && v[0] >= '1' && v[0] <= '0' + W_IASPS && v[1] == '\0')
      run.size.iasps = (uint8_t) (v[0] - '0'), i++;
    else if (strcmp (o, "--faults") == 0)
      run.only = true, parse_list (v), i++;
    else if (strcmp (o, "--no-faults") == 0)
      parse_list (v), i++;
    else if (strcmp (o, "--trace") == 0)
      trace = true;
    else if (strcmp (o, "--verbose") == 0)
      trace = w.verbose = true;
    else if (strcmp (o, "--shrink") == 0)
      do_shrink = true;
    else if (strcmp (o, "--hash") == 0)
      print_hash = true;
    else if (strcmp (o, "--mix") == 0)
      show_mix = true;
    else if (strcmp (o, "--busy") == 0)
      busy = true;
    else if (strcmp (o, "--first") == 0)
      stop_at_first = true;
    else if (strcmp (o, "--lying-disks") == 0)
      w.lying_disks = true;
    else if (strcmp (o, "--without") == 0 && parse_kinds (v, &run.without))
      i++;
    else if (strcmp (o, "--with") == 0 && parse_kinds (v, &run.with))
      i++;
    else {
      fprintf (stderr, "usage: crgsim [--seed N] [--seeds COUNT] [--steps M] [--nodes SITESxNODES[+REPLICATES]]\n"
                       "              [--iasps N] [--history K] [--faults LIST|--no-faults LIST] [--without KIND,...]\n"
                       "              [--with KIND,...] [--trace|--verbose] [--shrink] [--hash] [--busy] [--first] [--lying-disks]\n"
                       "              [--mix]\n");
      return 2;
    }
  }
  fault_filter = run_fault;
  w.trace = trace;
  clock_gettime (CLOCK_PROCESS_CPUTIME_ID, &t0);
  for (uint64_t seed = first; seed < first + count; seed++) {
    run.seed = seed;
    if (run_history ())
      good++;
    else {
      printf ("# seed %" PRIu64 ", step %" PRIu64 ": %s\n", seed, w.st.steps, w.failure);
      fflush (stdout);
      bad++;
    }
    all_steps += w.st.steps;
    all_ms += w.now_us / 1000 - 100000;
    sum.answered += w.st.answered;
    sum.reads += w.st.reads;
    sum.flushes += w.st.flushes;
    sum.faults += w.st.faults;
    sum.commits += w.st.commits;
    sum.takeovers += w.st.takeovers;
    sum.entered += w.st.entered;
    sum.lost += w.st.lost;
    sum.power += w.st.power;
    sum.resyncs += w.st.resyncs;
    sum.nothing += w.st.nothing;
    sum.accepted += w.st.accepted;
    sum.rot_found += w.st.rot_found;
    sum.recovered += w.st.recovered;
    sum.not_recovered += w.st.not_recovered;
    sum.fenced += w.st.fenced;
    sum.not_fenced += w.st.not_fenced;
    for (unsigned k = 0; k < EV_KINDS; k++)
      sum.ev[k] += w.st.ev[k];
    if (show_mix)
      print_mix (&w.mix);
    if (print_hash)
      printf ("# seed %" PRIu64 " hash %016" PRIx64 "\n", seed, w.hash);
    if (w.failed && do_shrink) {
      const struct run was = run;

      shrink ();
      run = was;
    }
    if (bad >= (stop_at_first ? 1u : 10u))
      break;
  }
  clock_gettime (CLOCK_PROCESS_CPUTIME_ID, &t1);
  seconds = (double) (t1.tv_sec - t0.tv_sec) + (double) (t1.tv_nsec - t0.tv_nsec) / 1e9;
  printf ("# %" PRIu64 " of %" PRIu64 " seeds good: %" PRIu64 " steps, %" PRIu64 " answers (%" PRIu64 " reads, %" PRIu64
          " flushes), %" PRIu64 " faults, %" PRIu64 " commits, %" PRIu64 " appointments, %" PRIu64 " entries, %" PRIu64
          " losses, %" PRIu64 " power cuts, %" PRIu64 " units resynced, %" PRIu64 " requests for zeroes that were there\n",
          good, count, all_steps, sum.answered, sum.reads, sum.flushes, sum.faults, sum.commits, sum.takeovers,
          sum.entered, sum.lost, sum.power, sum.resyncs, sum.nothing);
  printf ("# %.2f s of a processor: %.0f steps/s, %.1f simulated hours a minute\n", seconds, (double) all_steps / seconds,
          (double) all_ms / 3600000 / (seconds / 60));
  if (waiting)
    printf ("# %u seeds end waiting for an operator, as a disk rotted\n", waiting);
  if (sum.accepted)
    printf ("# %" PRIu64 " times an operator took over by force, as nobody could without (S2, R4)\n", sum.accepted);
  if (sum.rot_found)
    printf ("# %" PRIu64 " times a block of a map was found rotten\n", sum.rot_found);
  if (sum.recovered || sum.not_recovered)
    printf ("# %" PRIu64 " times a majority was recovered, %" PRIu64 " times it could not be (C9)\n", sum.recovered,
            sum.not_recovered);
  if (sum.fenced || sum.not_fenced)
    printf ("# %" PRIu64 " times a node was fenced, %" PRIu64 " times its fence failed (S1 d)\n", sum.fenced, sum.not_fenced);
  if (getenv ("CRGSIM_EVENTS"))
    for (unsigned k = 0; k < EV_KINDS; k++)
      printf ("# event %u: %" PRIu64 "\n", k, sum.ev[k]);
  if (busy && (sum.answered < count || sum.takeovers < count / 8 || sum.entered < count / 2)) {
    printf ("# the seeds don't do what they are for\n");
    return 1;
  }
  return good == count ? 0 : 1;
}
