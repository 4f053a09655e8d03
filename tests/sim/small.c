/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The small world: what a group core is, saved, restored and hashed, and its set-up; see small.h.  One
 * thread; all of it is static.
 */
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/util.h"
#include "tests/sim/small_private.h"

/* A message 6 that was accepted, or a commit that was seen. */
struct fact {
  uint64_t key, value;
  uint64_t sum; /* of it and all before, in whatever order */
};

struct small small;
unsigned small_nodes, small_sites;
struct group *small_group[SMALL_NODES];
char small_failure[256];
uint64_t small_steps;
struct small_disk *small_disk[SMALL_NODES];
struct crg_state small_created;

static unsigned per_site;
static struct fact facts[1u << 16];
static uint64_t n_facts;

uint64_t
small_mix (uint64_t h, const void *p, size_t n)
{
  const uint8_t *b = p;
  uint64_t v;

  for (; n >= 8; n -= 8, b += 8) {
    memcpy (&v, b, 8);
    h = (h ^ v) * UINT64_C (0x9e3779b97f4a7c15);
    h ^= h >> 29;
  }
  for (; n > 0; n--)
    h = (h ^ *b++) * UINT64_C (1099511628211);
  return h;
}

void
small_failed (const char *what, unsigned n)
{
  if (small_failure[0] == 0)
    snprintf (small_failure, sizeof small_failure, "%s: n%u at %" PRIu64 " ms", what, n + 1, small.now_ms);
}

/* The site of a node; a replicate has none. */
unsigned
small_site_of (unsigned n)
{
  return n < small_sites * per_site ? n / per_site : NO_SITE;
}

/* ---- what a group core is ------------------------------------------------------------------ */

/* All of `struct group` that decides, but for its peers and its operators' requests: of nodes nothing
 * but their votes and marks changes, and there is one IASP.  Counters, reports and scratch decide
 * nothing. */
static struct { size_t at, len; } range[9];
static unsigned n_ranges;
#define PEER_LEN offsetof (struct peer, report_len)

static void
add_range (size_t from, size_t to)
{
  range[n_ranges].at = from;
  range[n_ranges++].len = to - from;
}

static void
make_ranges (void)
{
  const struct group *g = NULL;
  const size_t nodes = small_nodes * sizeof g->applied.def.nodes[0], iasp = offsetof (struct iasp_def, store);

  n_ranges = 0;
  add_range (0, offsetof (struct group, applied.def.nodes) + nodes);
  add_range (offsetof (struct group, applied.def.iasps), offsetof (struct group, applied.def.iasps) + iasp);
  add_range (offsetof (struct group, applied.rec), offsetof (struct group, applied.rec) + sizeof g->applied.rec[0]);
  add_range (offsetof (struct group, has_committed), offsetof (struct group, committed.def.nodes) + nodes);
  add_range (offsetof (struct group, committed.def.iasps), offsetof (struct group, committed.def.iasps) + iasp);
  add_range (offsetof (struct group, committed.rec), offsetof (struct group, committed.rec) + sizeof g->applied.rec[0]);
  add_range (offsetof (struct group, view), offsetof (struct group, peers));
  add_range (offsetof (struct group, host), offsetof (struct group, host) + sizeof g->host[0]);
  add_range (offsetof (struct group, lease), offsetof (struct group, lease) + sizeof g->lease[0]);
}

/* The rest: what is behind the leases, up to the operators' requests, and behind those. */
static const struct { size_t at, len; } rest[2] = {
  { offsetof (struct group, alive_ms), offsetof (struct group, requests) - offsetof (struct group, alive_ms) },
  { offsetof (struct group, sw), offsetof (struct group, report_len) - offsetof (struct group, sw) },
};

/* Of a request: all but a change of the domain, for which nobody asks. */
#define REQUEST_HEAD offsetof (struct request, node_change)
#define REQUEST_TAIL offsetof (struct request, until_ms)
#define REQUEST_LEN (REQUEST_HEAD + sizeof (struct request) - REQUEST_TAIL)

static void
copy_request (uint8_t *to, const uint8_t *from, bool apart)
{
  memcpy (to, from, REQUEST_HEAD);
  if (apart)
    memcpy (to + REQUEST_TAIL, from + REQUEST_HEAD, sizeof (struct request) - REQUEST_TAIL);
  else
    memcpy (to + REQUEST_HEAD, from + REQUEST_TAIL, sizeof (struct request) - REQUEST_TAIL);
}

size_t
small_save_len (void)
{
  size_t len = CRG_MAX_NODES * PEER_LEN + GROUP_MAX_REQUESTS * REQUEST_LEN
               + offsetof (struct group, requests) - offsetof (struct group, alive_ms)
               + offsetof (struct group, report_len) - offsetof (struct group, sw);

  for (unsigned i = 0; i < n_ranges; i++)
    len += range[i].len;
  return len;
}

void
small_save (unsigned n, uint8_t *to)
{
  const struct group *g = small_group[n];

  for (unsigned i = 0; i < n_ranges; to += range[i++].len)
    memcpy (to, (const uint8_t *) g + range[i].at, range[i].len);
  for (unsigned i = 0; i < ARRAY_SIZE (rest); to += rest[i++].len)
    memcpy (to, (const uint8_t *) g + rest[i].at, rest[i].len);
  for (unsigned i = 0; i < GROUP_MAX_REQUESTS; i++, to += REQUEST_LEN)
    copy_request (to, (const uint8_t *) &g->requests[i], false);
  for (unsigned i = 0; i < CRG_MAX_NODES; i++, to += PEER_LEN)
    if (g->peers[i].id != NO_NODE)
      memcpy (to, &g->peers[i], PEER_LEN);
    else
      memset (to, 0, sizeof g->peers[i].id);
}

void
small_restore (unsigned n, const uint8_t *from)
{
  struct group *g = small_group[n];

  for (unsigned i = 0; i < n_ranges; from += range[i++].len)
    memcpy ((uint8_t *) g + range[i].at, from, range[i].len);
  for (unsigned i = 0; i < ARRAY_SIZE (rest); from += rest[i++].len)
    memcpy ((uint8_t *) g + rest[i].at, from, rest[i].len);
  for (unsigned i = 0; i < GROUP_MAX_REQUESTS; i++, from += REQUEST_LEN)
    copy_request ((uint8_t *) &g->requests[i], from, true);
  for (unsigned i = 0; i < CRG_MAX_NODES; i++, from += PEER_LEN) {
    memcpy (&g->peers[i].id, from, sizeof g->peers[i].id);
    if (g->peers[i].id != NO_NODE)
      memcpy (&g->peers[i], from, PEER_LEN);
  }
}

static uint64_t
hash_group (const struct group *g)
{
  uint64_t h = SMALL_FNV;

  for (unsigned i = 0; i < n_ranges; i++)
    h = small_mix (h, (const uint8_t *) g + range[i].at, range[i].len);
  for (unsigned i = 0; i < ARRAY_SIZE (rest); i++)
    h = small_mix (h, (const uint8_t *) g + rest[i].at, rest[i].len);
  for (unsigned i = 0; i < GROUP_MAX_REQUESTS; i++)
    if (g->requests[i].used) {
      uint8_t r[REQUEST_LEN];

      copy_request (r, (const uint8_t *) &g->requests[i], false);
      h = small_mix (h, r, sizeof r);
    }
  /* In the order of their ids, whichever was heard of first. */
  for (uint32_t id = 1; id <= small_nodes; id++) {
    const struct peer *p = group_peer_const (g, id);

    h = p == NULL ? small_mix (h, &id, sizeof id) : small_mix (h, p, PEER_LEN);
  }
  return h;
}

/* Of who is down nothing is left but its disk. */
static uint64_t
hash_disk (const struct small_disk *d)
{
  const size_t len = offsetof (struct crg_state, def.nodes) + small_nodes * sizeof d->state.def.nodes[0];
  uint64_t h = small_mix (SMALL_FNV + 1, &d->state, len);

  h = small_mix (h, &d->state.rec[0], sizeof d->state.rec[0]);
  return small_mix (h, &d->promised, sizeof d->promised);
}

void
small_changed (unsigned n)
{
  small.group_hash[n] = small.up[n] ? hash_group (small_group[n]) : hash_disk (small_disk[n]);
}

size_t
small_disk_len (void)
{
  return sizeof **small_disk;
}

void
small_save_disk (unsigned n, uint8_t *to)
{
  memcpy (to, small_disk[n], sizeof **small_disk);
}

void
small_restore_disk (unsigned n, const uint8_t *from)
{
  memcpy (small_disk[n], from, sizeof **small_disk);
}

uint64_t
small_hash (void)
{
  static uint16_t rank[SMALL_MESSAGES];
  static bool there[SMALL_MESSAGES];
  unsigned least = SMALL_MESSAGES, most = 0;
  uint16_t r = 0;
  uint64_t h = small_mix (SMALL_FNV, &small, offsetof (struct small, inbox));

  /* Which of two messages is older decides what is delivered first: the places in the order. */
  for (unsigned n = 0; n < small_nodes; n++)
    for (unsigned i = 0; i < small.last[n]; i++) {
      there[small.inbox[n][i]] = true;
      least = MIN (least, small.inbox[n][i]);
      most = MAX (most, small.inbox[n][i]);
    }
  for (unsigned m = least; m <= most && m < SMALL_MESSAGES; m++)
    if (there[m]) {
      rank[m] = r++;
      there[m] = false;
    }
  for (unsigned n = 0; n < small_nodes; n++) {
    h = small_mix (h, &small.group_hash[n], sizeof small.group_hash[n]);
    for (unsigned i = 0; i < small.last[n]; i++) {
      h = small_mix (h, &small_message[small.inbox[n][i]].hash, 8);
      h = small_mix (h, &rank[small.inbox[n][i]], sizeof rank[0]);
    }
    for (unsigned i = 0; i < small.n_out[n]; i++)
      h = small_mix (h, &small_message[small.outbox[n][i]].hash, 8);
    h = small_mix (h, &n, sizeof n);
  }
  /* What was seen on the way here still binds. */
  if (n_facts > 0)
    h = small_mix (h, &facts[n_facts - 1].sum, sizeof facts[0].sum);
  h = small_mix (h, &small.now_ms, sizeof small.now_ms);
  h = small_mix (h, &small.view, sizeof small.view);
  return small_mix (h, &small.quiet, sizeof small.quiet);
}

/* A fact that must not be contradicted.  Facts hold along one path only. */
bool
small_state_fact (uint64_t key, uint64_t value, bool once)
{
  for (uint64_t i = n_facts; i-- > 0;)
    if (facts[i].key == key)
      return !once && facts[i].value == value;
  assert (n_facts < ARRAY_SIZE (facts));
  facts[n_facts] = (struct fact) { key, value, small_mix (key, &value, sizeof value) };
  if (n_facts > 0)
    facts[n_facts].sum += facts[n_facts - 1].sum;
  n_facts++;
  return true;
}

uint64_t
small_facts (void)
{
  return n_facts;
}

void
small_forget_facts (uint64_t n)
{
  n_facts = n;
}

/* ---- set-up -------------------------------------------------------------------------------- */

void
small_init (unsigned sites, unsigned nodes_per_site, unsigned replicates)
{
  static const uint8_t lineage[CRG_ID_LEN] = { 7 };
  static struct crg_def def;

  small_sites = sites;
  per_site = nodes_per_site;
  small_nodes = sites * per_site + replicates;
  assert (small_nodes <= SMALL_NODES);
  memset (&def, 0, sizeof def);
  strcpy (def.name, "crg");
  def.n_sites = (uint8_t) sites;
  def.n_nodes = (uint8_t) small_nodes;
  def.n_iasps = 1;
  for (unsigned i = 0; i < sites; i++)
    snprintf (def.sites[i], sizeof def.sites[i], "site%u", i);
  for (unsigned i = 0; i < small_nodes; i++) {
    struct domain_node *d = &def.nodes[i];

    d->id = i + 1;
    snprintf (d->name, sizeof d->name, "n%u", i + 1);
    d->site = (uint8_t) small_site_of (i);
    d->preferred_role = small_site_of (i) == NO_SITE ? MEMBER_REPLICATE : i == 0 ? MEMBER_PRIMARY : MEMBER_BACKUP;
    d->votes = 1;
    d->order = d->preferred_order = (uint8_t) i;
  }
  strcpy (def.iasps[0].name, "iasp");
  def.iasps[0].size = 1 << 20;
  if (state_create (&small_created, &def, lineage) != NULL)
    abort ();
  small_created.started = true;
  memset (&small, 0, sizeof small);
  small.now_ms = 100000;
  make_ranges ();
  for (unsigned n = 0; n < small_nodes; n++) {
    small_group[n] = calloc (1, sizeof **small_group);
    small_disk[n] = calloc (1, sizeof **small_disk);
    if (small_group[n] == NULL || small_disk[n] == NULL)
      abort ();
    small_disk[n]->state = small_created;
    small_disk[n]->promised = 1;
    small.joins_left[n] = 2;
    small_changed (n);
  }
  for (unsigned s = 0; s < sites; s++) {
    small.store[s].generation = small.store[s].tenure = 1;
    small.store[s].unusable = small.store[s].behind = s != 0;
    small.store[s].clean = true;
  }
  n_facts = small_steps = 0;
  small_failure[0] = 0;
}

void
small_end (void)
{
  for (unsigned n = 0; n < small_nodes; n++) {
    free (small_group[n]);
    free (small_disk[n]);
  }
}
