/* SPDX-License-Identifier: BSD-3-Clause
 *
 * A majority that is lost for good, in crgsim (C9): machines lose power and stay off, or a cut hides those that are
 * taken for dead; an operator lets the newest of what is left go on without them; they come back, and an operator
 * empties the stores of the old lineage, and gives the votes back.  What crgctl recover does is server/admin.c:
 * cmd_recover, and member.c: member_recover.
 *
 * He does what crgctl(8) says: he asks all that live, takes the highest stamp, and names who doesn't live.  Those have
 * no power, and get none before the group goes on.  When he is wrong, as the dead run on behind a cut, nothing is
 * promised of what they do until they meet the others; but no store is in reach of both.
 */
#include <string.h>

#include "common/util.h"
#include "tests/sim/world.h"

#define RECOVERIES_MAX 24u

enum outcome { DONE, LATER, REFUSED };
enum { TAKE_DOWN, TRY, TRY_LAST = 12, WAIT, WAIT_LAST = 40, RETURNED, END = RETURNED + 6 };

unsigned
lineage_number (const uint8_t lineage[CRG_ID_LEN])
{
  return lineage[1];
}

bool
is_past (const struct wplugin *p)
{
  return memcmp (p->lineage, w.lineage, CRG_ID_LEN) != 0 && (w.past >> lineage_number (p->lineage) & 1) != 0;
}

/* ---- who is lost ---------------------------------------------------------------------------- */

static bool
is_wrong (const struct wfault *f)
{
  return f->a % 4 == 0;
}

static bool
are_majority (unsigned nodes)
{
  uint32_t ids[W_NODES];
  unsigned k = 0;

  for (unsigned n = 0; n < w.n_nodes; n++)
    if (nodes & 1u << n)
      ids[k++] = w.node[n].id;
  return state_has_majority (w.has_top ? &w.top : &w.created, ids, k);
}

static bool
share_store (unsigned a, unsigned b)
{
  for (unsigned i = 0; i < w.mix.n_iasps; i++)
    if (site_of_node (a) == site_of_node (b) && reaches_store (a, i) && reaches_store (b, i))
      return true;
  return false;
}

/* With whom n lives or dies: on its machine; or, if they run on, with its store in reach. */
static unsigned
fate_of (const struct wfault *f, unsigned n)
{
  unsigned nodes = 1u << n;

  for (unsigned k = 0; k < w.n_nodes; k++)
    if (w.node[k].machine == w.node[n].machine || (is_wrong (f) && share_store (n, k)))
      nodes |= 1u << k;
  return nodes;
}

static bool
has_copy_of_set (unsigned n, unsigned unit)
{
  bool has = true;

  for (unsigned i = unit; i < w.mix.n_iasps && has; i++)
    has = unit_of (i) != unit || (reaches_store (n, i) && top_rec (i)->copies[site_of_node (n)].in_set);
  return has;
}

/* Those that are left: no majority, and some of them.  Mostly somebody with a copy that may take over. */
static unsigned
choose_left (const struct wfault *f)
{
  const bool copy = mix_hash (f->a, 50) % 8 > 0;
  unsigned left = 0;

  for (unsigned i = 0; i < 2 * w.n_nodes; i++) {
    const unsigned n = (f->node + i) % w.n_nodes, more = fate_of (f, n);

    if ((i >= w.n_nodes || !copy || has_copy_of_set (n, unit_of (f->iasp))) && !are_majority (left | more)
        && (left == 0 || mix_hash (f->a, n) % 3 > 0))
      left |= more;
  }
  return left;
}

static bool
take_down (const struct wfault *f)
{
  const unsigned left = choose_left (f);

  if (left == 0 || w.off != 0 || w.stay_off != 0 || w.left != 0 || w.n_recovered >= RECOVERIES_MAX)
    return false;
  w.left = (uint8_t) left;
  TRACE ("left are %x%s", left, is_wrong (f) ? ", and others, behind a cut" : "");
  for (unsigned a = 0; a < w.n_nodes; a++) {
    if (!is_wrong (f) && !(left & 1u << a))
      w.off |= (uint8_t) (1u << w.node[a].machine);
    for (unsigned b = 0; b < w.n_nodes && is_wrong (f); b++)
      if ((left >> a & 1) != (left >> b & 1))
        w.reach[a] &= (uint8_t) ~(1u << b);
  }
  for (unsigned m = 0; m < w.n_machines && !is_wrong (f); m++)
    if (w.machine[m].up && (f->a % 4 == 1 || w.off >> m & 1))
      power_off (m);
  ring_changed (false);
  return true;
}

/* ---- crgctl recover ------------------------------------------------------------------------- */

/* What is checked of the data from now on: all that was answered is in each copy that was in the set. */
static void
note_recovery (const struct crg_state *made, bool wrong, unsigned named)
{
  for (unsigned i = 0; i < w.mix.n_iasps; i++) {
    const struct iasp_rec *r = top_rec (i);
    const uint64_t before = made->rec[i].loss - 1;
    unsigned kept = 0;

    for (unsigned s = 0; s < w.mix.n_sites; s++)
      if (r->copies[s].in_set)
        kept |= 1u << s;
    if (w.forced_loss[i] > w.loss[i]) /* R4: and nobody has opened it since */
      kept = 0;
    if (w.recovered_loss[i] > w.loss[i])
      kept &= w.recovered_kept[i];
    w.recovered_kept[i] = (uint8_t) kept;
    w.recovered_loss[i] = made->rec[i].loss;
    w.forced_loss[i] = MIN (w.forced_loss[i], before);
    w.loss[i] = MIN (w.loss[i], before);
    w.top_tenure[i] = 0;
  }
  if (wrong)
    w.past |= 1u << lineage_number (w.lineage);
  w.named |= (uint8_t) named;
  w.n_recovered++;
  memcpy (w.lineage, made->lineage, CRG_ID_LEN);
  w.top = *made;
  w.has_top = true;
  w.votes_changed = true; /* no more disks are lost */
}

/* Not done: crgctl says why not. */
static enum outcome
recover (const struct wfault *f, unsigned n, unsigned named)
{
  static struct group_status st;
  static struct crg_state made;
  struct wnode *node = &w.node[n];
  const struct crg_state *s = group_committed (&node->g) ?: group_applied (&node->g);
  uint8_t lineage[CRG_ID_LEN] = { 7, (uint8_t) (w.n_recovered + 1) };
  const uint32_t hold_ms = group_hold_ms (&node->g);
  uint16_t dead = 0;
  const char *why;

  for (unsigned k = 0; k < w.n_nodes; k++)
    if ((named & 1u << k) && state_node_index (s, w.node[k].id) >= 0)
      dead |= (uint16_t) (1u << state_node_index (s, w.node[k].id));
  group_status (&node->g, node_ms (n), &st);
  if (st.majority)
    return LATER;
  made = *group_applied (&node->g);
  dead = state_same_nodes (&made, s, dead);
  why = state_recover (&made, node->id, dead, group_promised (&node->g), lineage);
  if (why != NULL) {
    TRACE ("n%u is not recovered: %s", n + 1, why);
    w.st.not_recovered++;
    return REFUSED;
  }
  check_recovered (n, &made, named);
  if (node->persist_fails > 0) {
    node->persist_fails--;
    crgd_die (n, true);
    return LATER;
  }
  TRACE ("n%u is recovered without %x, lineage %u", n + 1, named, w.n_recovered + 1);
  w.st.recovered++;
  note_recovery (&made, is_wrong (f), named);
  crgd_die (n, false);
  for (unsigned i = 0; i < w.mix.n_iasps && f->a / 4 % 4 != 0; i++) /* else crgd dies before it has ended them */
    plugin_die (plugin_of (n, i), "recovered");
  node->state = made;
  node->promised = made.stamp.epoch;
  node->hold_ms = hold_ms;
  after_us (1 + fault_random (MS (300)), EV_BOOT)->node = (uint8_t) n;
  return DONE;
}

/* Who may be asked, and what the others are.  False: not all that live answer, or nobody is lost. */
static bool
look_around (const struct wfault *f, int *best, unsigned *named)
{
  unsigned live = 0;

  for (unsigned n = 0; n < w.n_nodes; n++)
    if (is_wrong (f) ? w.left >> n & 1 : w.machine[w.node[n].machine].up)
      live |= 1u << n;
  *named = 0;
  *best = -1;
  for (unsigned n = 0; n < w.n_nodes; n++) {
    const struct wnode *node = &w.node[n];

    if (node->gone)
      continue;
    if (!(live & 1u << n)) {
      for (unsigned k = 0; k < w.n_nodes && is_wrong (f); k++)
        if ((live & 1u << k) && (w.reach[n] & 1u << k) && (w.reach[k] & 1u << n) && node->running)
          return false; /* it is seen */
      *named |= 1u << n;
      continue;
    }
    if (!node->running || node->paused)
      return false;
    if (node->g.has_state && memcmp (node->g.applied.lineage, w.lineage, CRG_ID_LEN) == 0
        && (*best < 0 || stamp_compare (node->g.applied.stamp, w.node[*best].g.applied.stamp) > 0))
      *best = (int) n;
  }
  return *best >= 0 && *named != 0;
}

static enum outcome
try_recover (const struct wfault *f)
{
  enum outcome r = LATER;
  unsigned named;
  int n;

  if (look_around (f, &n, &named))
    r = recover (f, (unsigned) n, named);
  if (r != DONE)
    return r;
  for (unsigned k = 0; k < w.n_nodes && !is_wrong (f); k++) /* and stay off */
    if (named & 1u << k)
      w.stay_off |= (uint8_t) (1u << w.node[k].machine);
  w.off = 0;
  return DONE;
}

/* ---- afterwards ----------------------------------------------------------------------------- */

static bool
is_in_use (unsigned site, unsigned iasp)
{
  for (unsigned n = 0; n < w.n_nodes; n++) {
    const struct wplugin *p = plugin_of (n, iasp);

    if (site_of_node (n) == (int) site && p->running && (p->open || p->claiming))
      return true;
  }
  for (unsigned k = 0; k < W_DOPS; k++)
    if (w.dop[k].used && !w.dop[k].void_ && w.dop[k].site == site && w.dop[k].iasp == iasp)
      return true;
  return w.disk[site][iasp].lock_life != 0;
}

static bool
is_served (unsigned iasp)
{
  for (unsigned n = 0; n < w.n_nodes; n++) {
    const struct wplugin *p = plugin_of (n, iasp);

    if (p->running && p->prod_on && memcmp (p->lineage, w.lineage, CRG_ID_LEN) == 0)
      return true;
  }
  return false;
}

/* Nobody serves, and explain says that an operator has to choose.  R4: production is at a copy that was forced as it
 * had just begun to be filled.  C9: a copy of the set was not opened since the group was recovered, and does not agree
 * with it, as others went on before they died (R6). */
bool
production_in_vain (const struct crg_state *c, unsigned iasp)
{
  const struct iasp_rec *r = &c->rec[iasp];

  for (unsigned s = 0; s < w.mix.n_sites && r->production_site != NO_SITE; s++) {
    struct super_choice choice;
    enum super_status status;
    struct superblock sb;

    slot_read (&w.disk[s][iasp], &sb, &choice, &status);
    if (status != SUPER_OK || !r->copies[s].in_set)
      continue;
    if (sb.flags & SUPER_F_UNUSABLE ? s == r->production_site
        : state_is_past (c, sb.lineage)
            && ((sb.flags & SUPER_F_FORK) || sb.generation > state_newest_generation (c, iasp, sb.lineage)
                || sb.generation < r->copies[s].since || sb.tenure > r->tenure))
      return true;
  }
  return false;
}

/* R6: what it holds is given up: it is emptied, and made a copy again. */
static void
empty_fork (unsigned site, unsigned iasp)
{
  struct wdisk *d = &w.disk[site][iasp];
  const uint32_t slow_us = d->slow_us;
  struct super_choice choice;
  enum super_status status;
  struct superblock sb, was;

  slot_read (d, &was, &choice, &status);
  if (status != SUPER_OK || memcmp (was.lineage, w.lineage, CRG_ID_LEN) == 0 || top_rec (iasp)->copies[site].in_set
      || is_in_use (site, iasp) || !is_served (iasp))
    return;
  TRACE ("the store of site %u is of lineage %u: it is emptied", site, lineage_number (was.lineage));
  world_super (&sb, site, iasp, w.lineage);
  sb.flags = SUPER_F_CLEAN | SUPER_F_UNUSABLE | SUPER_F_WRITTEN;
  sb.since = 0;
  sb.store_id[1] = (uint8_t) (was.store_id[1] + 1);
  disk_init (d, &sb);
  d->slow_us = slow_us;
  memset (w.may_differ[iasp][site], 1, sizeof w.may_differ[iasp][site]);
}

/* As crgctl recover has said. */
static void
give_votes (unsigned n)
{
  const struct crg_state *c = group_committed (&w.node[n].g);
  static struct node_change change;

  memset (&change, 0, sizeof change);
  change.op = NODE_SET;
  change.fields = NODE_SET_VOTES;
  for (unsigned i = 0; i < c->def.n_nodes; i++) {
    const unsigned k = (unsigned) (c->def.nodes[(w.st.steps + i) % c->def.n_nodes].id - 1);
    const int at = state_node_index (c, k + 1);

    if (c->def.nodes[at].votes > 0 || !w.node[k].running || w.node[k].paused)
      continue;
    change.node.id = k + 1;
    change.node.votes = MAX (w.created.def.nodes[k].votes, 1);
    faults_ask_node (n, &change);
    return;
  }
}

/* S1: who is dead stays off while a store that it shares with somebody who lives could be taken for its own. */
static bool
may_come_back (void)
{
  for (unsigned i = 0; i < w.mix.n_iasps; i++) {
    unsigned shared[2] = { 0, 0 }; /* sites, with somebody who is off, or isn't */

    for (unsigned n = 0; n < w.n_nodes; n++)
      if (reaches_store (n, i))
        shared[w.stay_off >> w.node[n].machine & 1] |= 1u << site_of_node (n);
    for (unsigned s = 0; s < w.mix.n_sites; s++) {
      struct super_choice choice;
      enum super_status status;
      struct superblock sb;

      if (!(shared[0] & shared[1] & 1u << s))
        continue;
      slot_read (&w.disk[s][i], &sb, &choice, &status);
      if (top_rec (i)->copies[s].in_set && status == SUPER_OK && memcmp (sb.lineage, w.lineage, CRG_ID_LEN) != 0)
        return false;
    }
  }
  return true;
}

static void
end_outage (void)
{
  w.off = w.stay_off = w.left = 0;
  for (unsigned m = 0; m < w.n_machines; m++)
    power_on (m);
}

void
recover_attend (unsigned n)
{
  const struct crg_state *c = group_committed (&w.node[n].g);

  if (w.healing && w.stay_off != 0 && may_come_back ())
    end_outage ();
  if (w.n_recovered == 0 || c == NULL || memcmp (c->lineage, w.lineage, CRG_ID_LEN) != 0)
    return;
  give_votes (n);
  for (unsigned s = 0; s < w.mix.n_sites; s++)
    for (unsigned i = 0; i < w.mix.n_iasps; i++)
      empty_fork (s, i);
}

/* A node of the group that goes on, or -1. */
static int
who_goes_on (void)
{
  for (unsigned n = 0; n < w.n_nodes; n++) {
    const struct wnode *node = &w.node[n];

    if (node->running && !node->paused && group_active (&node->g)
        && memcmp (node->g.committed.lineage, w.lineage, CRG_ID_LEN) == 0)
      return (int) n;
  }
  return -1;
}

static void
come_back (const struct wfault *f)
{
  end_outage ();
  if (is_wrong (f))
    faults_heal_network ();
}

uint32_t
recover_stage (const struct wfault *f, unsigned *stage)
{
  const int n = *stage > TRY_LAST ? who_goes_on () : -1;

  if (*stage == TAKE_DOWN) {
    *stage = TRY;
    return take_down (f) ? 300 + f->a / 256 % 2000 : 0;
  }
  if (*stage == TRY)
    for (unsigned k = 0; k < w.n_nodes; k++)
      if (w.left & 1u << k)
        power_on (w.node[k].machine);
  if (*stage <= TRY_LAST) {
    const enum outcome r = try_recover (f);

    if (r == DONE)
      *stage = WAIT;
    else if (r == REFUSED || ++*stage > TRY_LAST) { /* he gives up, and power comes back */
      come_back (f);
      return 0;
    }
    return 300;
  }
  if (n >= 0)
    recover_attend ((unsigned) n);
  if (*stage > WAIT_LAST) {
    if (n >= 0)
      faults_attend ((unsigned) n, true);
    return ++*stage < END ? 1000 : 0;
  }
  if (*stage < WAIT_LAST)
    ++*stage;
  if (n < 0 || *stage < WAIT + 1 + f->a / 4096 % 8 || !(is_wrong (f) || may_come_back ()))
    return 500;
  *stage = RETURNED;
  come_back (f);
  return 1000;
}
