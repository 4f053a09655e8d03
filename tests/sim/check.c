/* SPDX-License-Identifier: BSD-3-Clause
 *
 * What must hold in crgsim after each step.  Judged with what no node knows: all disks, all
 * answers, the newest committed state.
 */
#include <stdio.h>
#include <string.h>

#include "common/util.h"
#include "tests/sim/world.h"

#define LEVEL_MS 8000u /* crgd alive, with a majority and a control connection */

const struct iasp_rec *
top_rec (unsigned iasp)
{
  return w.has_top ? &w.top.rec[iasp] : &w.created.rec[iasp];
}

uint32_t
unit_host (const struct crg_state *s, unsigned iasp)
{
  return state_unit_host (s, state_unit (s, iasp));
}

/* ---- the group ------------------------------------------------------------------------------ */

static bool
may_open (const struct crg_state *s, unsigned node, unsigned iasp)
{
  return state_may_host (s, node) && s->def.iasps[iasp].store[node][0] != '\0';
}

/* Each copy has a node that can host it, and nobody else is named. */
static void
check_hosts (const struct crg_state *s)
{
  for (unsigned i = 0; i < s->def.n_iasps; i++)
    for (unsigned site = 0; site < s->def.n_sites; site++) {
      const struct copy_rec *c = &s->rec[i].copies[site];
      const int host = state_node_index (s, c->host);
      bool able = c->detached;

      for (unsigned n = 0; n < s->def.n_nodes; n++)
        able = able || (s->def.nodes[n].site == site && may_open (s, n, i));
      if (!able)
        world_fail ("nobody is left at site %u who could host its copy of iasp %u (C7)", site, i);
      if (c->host != NO_NODE && (host < 0 || s->def.nodes[host].site != site || !may_open (s, (unsigned) host, i)))
        world_fail ("n%u is named as host of iasp %u at site %u, and can't be (H4)", c->host, i, site);
    }
}

static void
check_record (const struct iasp_rec *was, const struct iasp_rec *is, unsigned n_sites)
{
  bool shrinks = false;

  for (unsigned s = 0; s < n_sites; s++)
    shrinks = shrinks || (was->copies[s].in_set && !is->copies[s].in_set);
  if (is->generation < was->generation || (shrinks && is->generation == was->generation))
    world_fail ("the set shrinks and the generation does not rise (R2)");
  if (is->loss < was->loss)
    world_fail ("loss goes back");
}

/* S1 d: who is marked failed from now on has no store open, whatever it had before. */
static void
check_marked (const struct crg_state *c)
{
  for (unsigned n = 0; n < w.n_nodes; n++) {
    const int was = w.has_top ? state_node_index (&w.top, n + 1) : -1, is = state_node_index (c, n + 1);

    if (is < 0 || !c->def.nodes[is].marked_failed || was < 0 || w.top.def.nodes[was].marked_failed)
      continue;
    for (unsigned i = 0; i < c->def.n_iasps; i++)
      if (plugin_of (n, i)->running && plugin_of (n, i)->open && !is_past (plugin_of (n, i)))
        world_fail ("n%u is marked failed, and has the store of iasp %u open (S1)", n + 1, i);
  }
}

void
check_commit (unsigned n)
{
  static uint8_t buf[STATE_ENCODED_MAX];
  struct wnode *node = &w.node[n];
  const struct crg_state *c = group_committed (&node->g);
  struct wcommit new;
  size_t len;

  if (node->g.serial == node->seen_serial)
    return;
  node->seen_serial = node->g.serial;
  len = state_encode (c, buf, sizeof buf);
  new = (struct wcommit) { c->stamp, UINT64_C (1469598103934665603), { 0 }, { 0 }, lineage_number (c->lineage) };
  for (size_t i = 0; i < len; i++)
    new.hash = (new.hash ^ buf[i]) * UINT64_C (1099511628211);
  for (unsigned u = 0; u < state_units (c); u++) {
    const struct iasp_rec *r = &c->rec[u];

    new.tenure[u] = r->tenure;
    new.host[u] = state_unit_host (c, u);
    TRACE ("n%u commits %llu.%llu unit %u tenure %llu host n%u set %x generation %llu", n + 1,
           (unsigned long long) c->stamp.epoch, (unsigned long long) c->stamp.version, u,
           (unsigned long long) r->tenure, new.host[u],
           r->copies[0].in_set | r->copies[1].in_set << 1 | r->copies[2].in_set << 2,
           (unsigned long long) r->generation);
  }
  for (unsigned i = w.n_commits; i-- > 0;) {
    const struct wcommit *o = &w.commits[i];
    int cmp = stamp_compare (o->stamp, new.stamp);

    if (o->lineage != new.lineage)
      continue; /* C9: its stamps and tenures say nothing of these */
    if (cmp == 0) {
      if (o->hash != new.hash)
        world_fail ("n%u commits another content as %llu.%llu (C2, C3)", n + 1,
                    (unsigned long long) new.stamp.epoch, (unsigned long long) new.stamp.version);
      return;
    }
    for (unsigned u = 0; u < state_units (c); u++) {
      if (o->tenure[u] == new.tenure[u] && o->host[u] != new.host[u])
        world_fail ("two production hosts in tenure %llu (R1)", (unsigned long long) new.tenure[u]);
      if ((cmp < 0 && o->tenure[u] > new.tenure[u]) || (cmp > 0 && o->tenure[u] < new.tenure[u]))
        world_fail ("tenure goes back (R1)");
    }
  }
  check_hosts (c);
  if (w.n_commits == W_COMMITS) {
    world_fail ("too many commits for this simulation");
    return;
  }
  w.commits[w.n_commits++] = new;
  w.st.commits++;
  if (new.lineage != lineage_number (w.lineage))
    return;
  if (w.has_top && stamp_compare (c->stamp, w.top.stamp) <= 0)
    return;
  check_marked (c);
  for (unsigned i = 0; w.has_top && i < c->def.n_iasps; i++) {
    const struct iasp_rec *was = &w.top.rec[i], *is = &c->rec[i];

    check_record (was, is, c->def.n_sites);
    for (unsigned s = 0; s < c->def.n_sites; s++)
      if (!was->copies[s].in_set && is->copies[s].in_set)
        w.st.entered++;
    if (is->loss > was->loss && is->forced)
      w.forced_loss[i] = is->loss;
    if (is->tenure > was->tenure)
      w.st.takeovers++;
  }
  w.top = *c;
  w.has_top = true;
}

/* C1, C2: called before the state file of node n is replaced. */
void
check_persist (unsigned n)
{
  const struct wnode *node = &w.node[n];
  const struct group *g = &node->g;
  const uint64_t epoch = g->applied.stamp.epoch;
  struct wepoch *e = &w.epochs[epoch % W_COMMITS];
  const unsigned lineage = lineage_number (g->applied.lineage);

  if (g->promised < node->promised)
    world_fail ("n%u promises backwards (C1)", n + 1);
  if (epoch <= 1 || (node->has_state && node->state.stamp.epoch == epoch))
    return;
  if (g->promised != epoch)
    world_fail ("n%u stores a state of epoch %llu, and has promised %llu (C1)", n + 1, (unsigned long long) epoch,
                (unsigned long long) g->promised);
  if (e->epoch == epoch && e->lineage == lineage && (e->view != g->view || e->round != g->round))
    world_fail ("epoch %llu belongs to two rounds: view %llu round %u, view %llu round %u (C2)",
                (unsigned long long) epoch, (unsigned long long) e->view, e->round, (unsigned long long) g->view,
                g->round);
  *e = (struct wepoch) { epoch, g->view, g->round, lineage };
}

static bool
is_left (const struct crg_state *s, unsigned site, unsigned named)
{
  for (unsigned n = 0; n < s->def.n_nodes; n++)
    if (s->def.nodes[n].site == site && state_may_host (s, n) && !(named >> (s->def.nodes[n].id - 1) & 1))
      return true;
  return false;
}

static bool
is_able (const struct crg_state *s, uint32_t id, unsigned iasp, unsigned named)
{
  const int n = state_node_index (s, id);

  return n >= 0 && may_open (s, (unsigned) n, iasp) && !(named >> (id - 1) & 1);
}

/* C9: the state that node n goes on with, before it is on its disk. */
void
check_recovered (unsigned n, const struct crg_state *made, unsigned named)
{
  const struct crg_state *old = group_applied (&w.node[n].g);

  if (made->stamp.epoch <= w.node[n].promised)
    world_fail ("n%u goes on in epoch %llu, and has promised %llu (C1)", n + 1, (unsigned long long) made->stamp.epoch,
                (unsigned long long) w.node[n].promised);
  for (unsigned i = 0; i < made->def.n_nodes; i++) {
    const struct domain_node *d = &made->def.nodes[i];

    if (d->marked_failed && !old->def.nodes[i].marked_failed && !(named >> (d->id - 1) & 1))
      world_fail ("n%u is taken for dead, and nobody named it (C9, S1)", d->id);
  }
  for (unsigned i = 0; i < made->def.n_iasps; i++) {
    const struct iasp_rec *was = &old->rec[i], *is = &made->rec[i];

    check_record (was, is, made->def.n_sites);
    if (is->loss == was->loss)
      world_fail ("the group is recovered, and loss does not rise (C9)");
    if (is->production_site != was->production_site && is->tenure == was->tenure)
      world_fail ("production moves within tenure %llu (R1)", (unsigned long long) is->tenure);
    if (is->production_site != was->production_site && !is_able (made, unit_host (made, i), i, named))
      world_fail ("n%u goes on as production of iasp %u, and can't be (C9)", unit_host (made, i), i);
    for (unsigned s = 0; s < made->def.n_sites; s++)
      if (is->copies[s].in_set && !is_left (made, s, named))
        world_fail ("the copy of site %u is in the set, and nobody is left for it (C9)", s);
    if (is->production_site != NO_SITE && !is_left (made, is->production_site, named))
      world_fail ("production of iasp %u is at site %u, and nobody is left for it (C9)", i, is->production_site);
  }
}

/* A message that must not count, and what it finds. */
static struct {
  bool old_view, other_base;
  uint64_t dropped;
  struct stamp applied;
  uint32_t life;
} message;

static uint64_t
n_dropped (const struct group *g)
{
  return g->counters.dropped + g->counters.bad_messages;
}

void
check_message (unsigned n, const uint8_t *buf, size_t len)
{
  static struct msg m;
  const struct group *g = &w.node[n].g;

  memset (&message, 0, sizeof message);
  if (msg_decode (&m, buf, len) < 0)
    return;
  message.old_view = m.h.view != g->view;
  message.other_base = m.h.type == MSG_CHANGE && stamp_compare (m.u.change.base, g->applied.stamp) != 0;
  message.dropped = n_dropped (g);
  message.applied = g->applied.stamp;
  message.life = w.node[n].life;
}

/* H5: messages of an older view are dropped.  C3: nobody applies a change that was made for another
 * state. */
void
check_delivered (unsigned n)
{
  const struct group *g = &w.node[n].g;

  if (!w.node[n].running || w.node[n].life != message.life || g->left)
    return;
  if (message.old_view && n_dropped (g) == message.dropped)
    world_fail ("n%u takes a message of an older view (H5)", n + 1);
  if (message.other_base && stamp_compare (message.applied, g->applied.stamp) != 0)
    world_fail ("n%u applies a change that was made for another state (C3)", n + 1);
}

/* C2, C3: what is said to be on disk is there (H10). */
void
check_send (unsigned n, const uint8_t *buf, size_t len)
{
  static struct msg m;
  const struct wnode *node = &w.node[n];

  if (len <= 5 || (buf[5] != MSG_PERSISTED && buf[5] != MSG_PROMISED && buf[5] != MSG_RENEWED)
      || msg_decode (&m, buf, len) < 0)
    return;
  if (m.h.type == MSG_RENEWED) {
    if (lease_guard_ms (m.u.renew.lease_ms) > node->hold_ms)
      world_fail ("n%u grants a lease of %u ms, and its next run would wait for %u ms (L3)", n + 1,
                  m.u.renew.lease_ms, node->hold_ms);
    return;
  }
  if (m.h.type == MSG_PROMISED ? m.u.promised.epoch > node->promised
                               : stamp_compare (m.u.persisted.stamp, node->state.stamp) > 0)
    world_fail ("n%u says that %s, and it is not on its disk (H10)", n + 1,
                m.h.type == MSG_PROMISED ? "it has promised an epoch" : "it has stored a change");
}

/* R3: production asks a copy to enter when all that does not wait for it is answered. */
void
check_enter (const struct wplugin *p, unsigned site)
{
  const struct repl *r = &p->core;

  for (unsigned i = r->first; i != REPL_NONE; i = r->slots[i].next)
    if ((r->slots[i].state == SL_ACTIVE || r->slots[i].state == SL_DONE) && r->slots[i].op != RO_READ_WAIT
        && !(r->slots[i].must & 1u << site))
      world_fail ("n%u asks the copy of site %u to enter, and an earlier request does not wait for it (R3)",
                  p->node + 1, site);
}

/* R3: before production hears of a record: whoever comes into the set with it was asked for. */
void
check_enters (const struct wplugin *p)
{
  const struct repl *r = &p->core;

  if (p->rec.generation < r->generation)
    return;
  for (unsigned s = 0; s < r->cfg.n_sites; s++)
    if ((p->rec.in_set & r->others & ~r->in_set & 1u << s) && r->sites[s].enter != EN_READY)
      world_fail ("n%u: the copy of site %u is in the set, and production did not ask for it (R3)", p->node + 1, s);
}

/* R1: a copy that knows a newer tenure neither takes nor answers a link of an older one. */
void
check_link (const struct wplugin *p, uint64_t tenure, const char *what)
{
  if (tenure < p->copy.tenure)
    world_fail ("n%u %s a link of tenure %llu, and knows of %llu (R1)", p->node + 1, what,
                (unsigned long long) tenure, (unsigned long long) p->copy.tenure);
}

/* C4: a copy is opened in a view that holds a majority of what it was committed with. */
void
check_host (unsigned n, const struct group_action *a)
{
  const struct crg_state *c = group_committed (&w.node[n].g);
  uint32_t ids[W_NODES];
  unsigned k = 0;

  if (a->role == HOST_NONE)
    return;
  for (unsigned i = 0; i < w.n_nodes; i++)
    if (w.node[n].view_members & 1u << i)
      ids[k++] = w.node[i].id;
  if (c == NULL || !state_has_majority (c, ids, k))
    world_fail ("n%u is told to host in a view without a majority (C4)", n + 1);
  else if (!may_open (c, (unsigned) state_node_index (c, n + 1), a->iasp))
    world_fail ("n%u is told to host iasp %u, and is a peer, or has no store for it (H4)", n + 1, a->iasp);
  else if (c->def.nodes[state_node_index (c, n + 1)].marked_failed)
    world_fail ("n%u is told to host iasp %u, and is marked failed (S1)", n + 1, a->iasp);
}

/* R3: in the order in which production said it, and no more than it still says.  What it said on a connection
 * that broke it may have taken back since, on none: a copy that is back would be taken out of the set, and one
 * that asks for nothing any more let in. */
void
check_heard (unsigned n, unsigned iasp, const struct ctlmsg *m)
{
  if (m->conn != w.node[n].sup[iasp].ctl)
    world_fail ("n%u hears what was said on a connection that broke, no %llu of copy %u (R3)", n + 1,
                (unsigned long long) m->seq, m->site);
  if (m->kind == CTL_READY && m->seq > w.node[n].g.host[iasp].seq_told
      && plugin_of (n, iasp)->core.sites[m->site].enter != EN_READY
      && plugin_of (n, iasp)->core.sites[m->site].no == m->seq)
    world_fail ("n%u hears that copy %u is ready (no %llu), and production doesn't wait for it any more (R3)", n + 1,
                m->site, (unsigned long long) m->seq);
}

/* ---- answers -------------------------------------------------------------------------------- */

static bool
can_answer (const struct wplugin *p)
{
  return p->running && !p->paused && p->role == HOST_PRODUCTION && p->prod_on && p->is_open_to_clients
         && !p->core.failed && plugin_ms (p) < p->gate_lease_ms;
}

/* L4: its machine was stopped, with its clocks, and its lease may be of before that. */
static bool
is_outside_lease (const struct wplugin *p)
{
  return plugin_ms (p) < w.machine[w.node[p->node].machine].old_lease_ms;
}

/* Of all that have answered, or are open, whether they have answered already or not. */
static uint64_t
newest_production (unsigned iasp)
{
  uint64_t tenure = w.top_tenure[iasp];

  for (unsigned n = 0; n < w.n_nodes; n++) {
    const struct wplugin *q = plugin_of (n, iasp);

    if (q->running && q->prod_on && !is_past (q))
      tenure = MAX (tenure, q->rec.tenure);
  }
  return tenure;
}

/* L4: the tenure at the copies still stops its writes; its reads may be stale.  What is answered has
 * come to the copies before, so to whoever took over. */
static void
check_late_answer (const struct wplugin *p, const struct wclient *c)
{
  const struct iasp_rec *r = top_rec (p->iasp);
  const struct wdisk *d = &w.disk[r->production_site][p->iasp];
  const unsigned first = (unsigned) (c->offset / W_UNIT), n = (unsigned) (c->length / W_UNIT);

  /* R4: an operator took production from a set of one, and was told. */
  if (c->is_read || c->op == RO_FLUSH || !c->stamped || (p->rec.in_set & ~(1u << p->site)) == 0)
    return;
  for (unsigned i = first; i < first + n; i++)
    if (d->cur[i] < c->stamp) {
      world_fail ("n%u, stopped and continued, answers write %u in tenure %llu; production of tenure %llu has %u in unit "
                  "%u (R1, L4)", p->node + 1, c->stamp, (unsigned long long) p->rec.tenure,
                  (unsigned long long) r->tenure, d->cur[i], i);
      return;
    }
}

/* Zeroes are answered that nobody wrote: whoever may take over has them. */
static void
check_nothing (const struct wplugin *p, const struct wclient *c)
{
  const struct iasp_rec *r = top_rec (p->iasp);

  w.st.nothing++;
  for (unsigned s = 0; s < w.mix.n_sites; s++) {
    const struct wdisk *d = &w.disk[s][p->iasp];

    if (s != p->site && (!r->copies[s].in_set || d->restarted || (r->forced && p->rec.tenure < r->tenure)))
      continue;
    for (uint64_t i = c->offset / W_UNIT; i < (c->offset + c->length) / W_UNIT; i++)
      if (c->op == RO_WRITE || (d->cur[i] != 0 && !(d->cur[i] & W_ZERO)))
        world_fail ("n%u answers zeroes that were never written, site %u has %u in unit %u", p->node + 1, s, d->cur[i],
                    (unsigned) i);
  }
}

/* C9: the node of this production lost its state, and another one, which had not heard that the copy of site s left the
 * set, let the group go on. */
static bool
left_before (const struct wplugin *p, unsigned s)
{
  return s != p->site && memcmp (p->lineage, w.lineage, CRG_ID_LEN) != 0 && !(p->rec.in_set >> s & 1);
}

void
check_answer (struct wplugin *p, struct wclient *c)
{
  const unsigned iasp = p->iasp, first = (unsigned) (c->offset / W_UNIT), n = (unsigned) (c->length / W_UNIT);
  const struct iasp_rec *r = top_rec (iasp);

  w.st.answered++;
  if (w.verbose)
    TRACE ("n%u answers %s %u units from %u, stamp %u", p->node + 1, c->is_read ? "a read" : c->op == RO_FLUSH ? "a flush" : "a write",
           n, first, c->is_read ? c->data[first] : c->stamp);
  if (plugin_ms (p) >= p->lease_until_ms)
    world_fail ("n%u answers without a lease (L2)", p->node + 1);
  if (is_past (p))
    return; /* C9: an operator has given up what it does */
  if (p->rec.tenure < newest_production (iasp) && is_outside_lease (p)) {
    check_late_answer (p, c);
    return;
  }
  if (p->rec.tenure < newest_production (iasp))
    world_fail ("n%u answers in tenure %llu, production of tenure %llu is open or has answered: two productions (R1, L3)",
                p->node + 1, (unsigned long long) p->rec.tenure, (unsigned long long) newest_production (iasp));
  w.top_tenure[iasp] = p->rec.tenure;
  if (c->is_read) {
    w.st.reads++;
    for (unsigned i = first; i < first + n; i++) {
      if (c->data[i] < c->floor[i])
        world_fail ("n%u: a read of unit %u gives %u, %u was known before it began", p->node + 1, i,
                    c->data[i], c->floor[i]);
      w.floor[iasp][i] = MAX (w.floor[iasp][i], c->data[i]);
    }
    return;
  }
  if (c->op != RO_FLUSH && !c->stamped) {
    check_nothing (p, c);
    return;
  }
  for (unsigned s = 0; s < w.mix.n_sites; s++) {
    const struct wdisk *d = &w.disk[s][iasp];

    /* R4: what is answered before the one that was forced opens is lost to it. */
    if (s != p->site && (!r->copies[s].in_set || (r->forced && p->rec.tenure < r->tenure)))
      continue;
    if (left_before (p, s))
      continue;
    if (c->op == RO_FLUSH) {
      for (unsigned i = 0; i < W_UNITS; i++)
        if (d->stable[i] < c->floor[i])
          world_fail ("n%u: a flush is answered, unit %u is not stable at site %u (%u, %u)", p->node + 1, i,
                      s, d->stable[i], c->floor[i]);
      continue;
    }
    if (s != p->site && d->restarted)
      continue; /* it leaves the set; until then S2 stands against it */
    for (unsigned i = first; i < first + n; i++) {
      if (d->cur[i] != c->stamp)
        world_fail ("n%u: write %u is answered, site %u has %u in unit %u", p->node + 1, c->stamp, s,
                    d->cur[i], i);
      if ((c->flags & RF_FUA) && d->stable[i] != c->stamp)
        world_fail ("n%u: a FUA write is answered and not stable at site %u", p->node + 1, s);
    }
  }
  if (c->op == RO_FLUSH) {
    w.st.flushes++;
    for (unsigned i = 0; i < W_UNITS; i++)
      w.ffloor[iasp][i] = MAX (w.ffloor[iasp][i], c->floor[i]);
    return;
  }
  for (unsigned i = first; i < first + n; i++) {
    w.floor[iasp][i] = MAX (w.floor[iasp][i], c->stamp);
    if (c->flags & RF_FUA)
      w.ffloor[iasp][i] = MAX (w.ffloor[iasp][i], c->stamp);
  }
}

/* C9: the group was recovered with a state that isn't the newest, and by that this copy counted, but it had left the
 * set.  A copy that was still in the set has all that was flushed. */
static bool
is_without_the_newest (const struct wplugin *p)
{
  const uint64_t loss = w.recovered_loss[p->iasp];

  return loss > w.loss[p->iasp] && loss <= p->rec.loss && !(w.recovered_kept[p->iasp] >> p->site & 1);
}

/* A copy becomes production: it must have all that was answered. */
void
check_opened (struct wplugin *p)
{
  struct wdisk *d = &w.disk[p->site][p->iasp];
  const bool loss = p->rec.loss > w.loss[p->iasp];
  /* R4: also if the one that was forced died before it opened, and this one opens the same copy after it. */
  const bool forced = loss && (p->rec.forced || (w.forced_loss[p->iasp] > w.loss[p->iasp]
                                                 && w.forced_loss[p->iasp] <= p->rec.loss)
                               || is_without_the_newest (p));

  /* Superseded, and does not know: what it may still answer is judged then.  But if it was told of
   * a loss, it answers by that while it has its lease. */
  if (is_past (p))
    return;
  if (p->rec.tenure < top_rec (p->iasp)->tenure && !(loss && plugin_ms (p) < p->lease_until_ms))
    return;
  for (unsigned i = 0; i < W_UNITS; i++) {
    if (forced)
      w.ffloor[p->iasp][i] = MIN (w.ffloor[p->iasp][i], d->cur[i]);
    if (d->cur[i] < w.ffloor[p->iasp][i])
      world_fail ("n%u opens as production without flushed write %u of unit %u (has %u)", p->node + 1,
                  w.ffloor[p->iasp][i], i, d->cur[i]);
    if (d->cur[i] < w.floor[p->iasp][i]) {
      if (!loss)
        world_fail ("n%u opens as production without answered write %u of unit %u (has %u)", p->node + 1,
                    w.floor[p->iasp][i], i, d->cur[i]);
      w.floor[p->iasp][i] = d->cur[i];
    }
  }
  w.loss[p->iasp] = p->rec.loss;
  d->restarted = false;
}

void
check_drained (const struct wplugin *p)
{
  const struct iasp_rec *r = top_rec (p->iasp);

  for (unsigned s = 0; s < w.mix.n_sites && !is_past (p); s++)
    if ((s == p->site || r->copies[s].in_set) && r->tenure == p->rec.tenure && !left_before (p, s))
      for (unsigned i = 0; i < W_UNITS; i++)
        if (w.disk[s][p->iasp].stable[i] < w.floor[p->iasp][i])
          world_fail ("n%u is drained, but unit %u is not stable at site %u (F6)", p->node + 1, i, s);
}

/* ---- copies --------------------------------------------------------------------------------- */

static bool
is_flying (const struct wplugin *p, unsigned unit)
{
  for (unsigned k = 0; k < W_SLOTS; k++) {
    const struct wclient *c = &w.client[p->iasp][k];

    if (c->busy && c->stamped && !c->is_read && c->life == p->life && c->offset <= (uint64_t) unit * W_UNIT
        && c->offset + c->length > (uint64_t) unit * W_UNIT)
      return true;
  }
  return false;
}

/* A write to it: hot, with all of its region. */
void
check_differs (unsigned iasp, unsigned site, uint64_t offset, uint64_t length)
{
  const uint64_t end = MIN (round_up (offset + length, HOT_REGION_SIZE_MIN), W_SIZE);

  for (uint64_t at = round_down (offset, HOT_REGION_SIZE_MIN); at < end; at += W_BLOCK)
    w.may_differ[iasp][site][at / W_BLOCK] = true;
}

/* A region that waits for its mark is hot, too, when a copy is lost: also one that is wanted ahead. */
void
check_wanted (const struct wplugin *p)
{
  const struct hot *h = &p->mapw.mark.hot;

  if (!p->mapw.on || h->n_state[HS_WANTED] == 0)
    return;
  for (unsigned k = 0; k < h->max_entries; k++)
    for (unsigned s = 0; s < w.mix.n_sites && h->entry[k].state == HS_WANTED; s++)
      check_differs (p->iasp, s, h->entry[k].region * h->region_size, h->region_size);
}

/* The resync is not larger than hot and dirty: what was written since the copy had it, and no more is sent,
 * nor asked for. */
void
check_asked (const struct wplugin *p, unsigned site, uint64_t offset, uint64_t length)
{
  /* A superblock that rotted: the one before it counts, which may say more. */
  for (uint64_t at = offset; at < offset + length && !w.disk[site][p->iasp].rotten && !is_past (p); at += W_BLOCK)
    if (!w.may_differ[p->iasp][site][at / W_BLOCK]) {
      world_fail ("n%u: block %u is resynchronised to site %u, and was neither hot nor dirty", p->node + 1,
                  (unsigned) (at / W_BLOCK), site);
      return;
    }
}

void
check_resync (const struct wplugin *p, unsigned site, uint64_t offset, uint64_t length)
{
  check_asked (p, site, offset, length);
  for (unsigned s = 0; s < w.mix.n_sites; s++) /* it makes the region hot on the copy */
    check_differs (p->iasp, s, offset, length);
}

/* D1: no write of it is under way when a copy is asked for it. */
void
check_unwritten (const struct wplugin *p, unsigned site, uint64_t offset, uint64_t length)
{
  for (uint64_t u = offset / W_UNIT; u < (offset + length) / W_UNIT; u++)
    if (is_flying (p, (unsigned) u)) {
      world_fail ("n%u: site %u is asked for unit %u while a write of it is under way (D1)", p->node + 1, site,
                  (unsigned) u);
      return;
    }
}

/* Clean, and no disk says otherwise: nothing has to copy it again before the next write. */
static void
settle_differs (const struct wplugin *p, unsigned s)
{
  const struct repl_site *x = &p->core.sites[s];

  if (!x->link_up || !x->map_valid || x->map_needed || w.disk[s][p->iasp].restarted
      || !top_rec (p->iasp)->copies[s].in_set)
    return;
  for (unsigned n = 0; n < w.n_nodes; n++)
    if (plugin_of (n, p->iasp)->mapw.active)
      return; /* what is on its way to a disk may say that it is dirty */
  for (unsigned k = 0; k < W_DOPS; k++) /* also that of a process which is gone */
    if (w.dop[k].used && !w.dop[k].void_ && w.dop[k].what == DW_META && w.dop[k].iasp == p->iasp)
      return;
  for (unsigned b = 0; b < W_BLOCKS; b++)
    if (w.may_differ[p->iasp][s][b] && track_get (&x->track, b) == TS_CLEAN
        && !hot_is_marked (&p->mapw.mark.hot, (uint64_t) b * W_BLOCK / HOT_REGION_SIZE_MIN)
        && !map_says (p->iasp, s, b, false))
      w.may_differ[p->iasp][s][b] = false;
}

/* Where a copy differs from production the block is not clean, or a request is in flight. */
static void
check_site (const struct wplugin *p, unsigned s)
{
  const struct wdisk *own = &w.disk[p->site][p->iasp], *d = &w.disk[s][p->iasp];
  const struct repl_site *x = &p->core.sites[s];
  const struct track *t = &x->track;

  if (t->illegal)
    world_fail ("n%u, site %u: a move that the table of tracking forbids", p->node + 1, s);
  /* Unknown, and declared to be; or the other end's map, which says so, is still to come; or it has been detached,
   * and production, which stood still, has not heard of it. */
  if (!x->map_valid || !x->link_up || x->map_needed || d->restarted || top_rec (p->iasp)->copies[s].detached
      || top_rec (p->iasp)->copies[s].fork != FORK_NONE)
    return;
  for (unsigned i = 0; i < W_UNITS; i++) {
    if (own->cur[i] == d->cur[i] || track_get (t, (uint64_t) i * W_UNIT / W_BLOCK) != TS_CLEAN
        || is_flying (p, i)
        || hot_is_marked (&p->mapw.mark.hot, (uint64_t) i * W_UNIT / HOT_REGION_SIZE_MIN))
      continue;
    world_fail ("n%u: site %u differs in unit %u (%u, production %u), and the block is clean", p->node + 1,
                s, i, d->cur[i], own->cur[i]);
    return;
  }
}

/* What production says of a copy is settled by the group, in a bound (R2, R3): meanwhile its I/O may wait. */
static void
check_levels (struct wplugin *p)
{
  const struct wnode *node = &w.node[p->node];
  const struct sup *s = &node->sup[p->iasp];
  struct repl_site_status st = { .no = 0 };
  const int site = repl_level_after (&p->core, 0);
  bool serves = true;

  /* Of what moves together nothing enters before all of it is open, and that may need an operator (S2). */
  for (unsigned i = 0; i < w.mix.n_iasps; i++)
    if (state_unit (&w.created, i) == state_unit (&w.created, p->iasp))
      serves = serves && plugin_of (p->node, i)->prod_on;
  if (site >= 0)
    repl_site_status (&p->core, (unsigned) site, plugin_ms (p), &st);
  if (!serves || st.no != p->level_no || site < 0 || p->paused || p->task.kind != TASK_NONE || p->held || !node->running
      || node->paused || !group_active (&node->g) || s->phase != PH_READY || s->told_role != HOST_PRODUCTION
      || p->rec.tenure != top_rec (p->iasp)->tenure || plugin_ms (p) >= p->lease_until_ms) {
    p->level_no = site >= 0 ? st.no : 0;
    p->level_us = w.now_us;
  }
  else if (w.now_us - p->level_us > MS (LEVEL_MS))
    world_fail ("n%u: that copy %d is %s is not settled in %u s", p->node + 1, site,
                st.level == RA_COPY_LOST ? "lost" : "ready", LEVEL_MS / 1000u);
}

void
check_copies (void)
{
  for (unsigned n = 0; n < w.n_nodes; n++)
    for (unsigned i = 0; i < w.mix.n_iasps; i++) {
      struct wplugin *p = plugin_of (n, i);
      struct repl_wait waits[REPL_MAX_WAITS];
      unsigned k;

      if (!p->running || !p->prod_on || p->blocked || p->store_told || p->core.failed || is_past (p))
        continue;
      k = repl_waits (&p->core, plugin_ms (p), waits);
      if (k == 0 && repl_inflight (&p->core) > 0)
        world_fail ("n%u: %u requests wait for nobody", n + 1, repl_inflight (&p->core));
      while (k-- > 0)
        if (waits[k].reason == NULL || waits[k].reason[0] == '\0')
          world_fail ("n%u: a wait without a reason", n + 1);
      check_levels (p);
      if (p->rec.tenure != top_rec (i)->tenure || w.disk[p->site][i].errors > 0)
        continue;
      for (unsigned s = 0; s < w.mix.n_sites; s++)
        if (s != p->site) {
          check_site (p, s);
          if (w.st.steps % 256 == 0)
            settle_differs (p, s);
        }
    }
}

/* The same on the disks, whoever lives: what two copies differ in is hot or dirty on one of them, or by the word of the
 * process that has it open as a copy.  A copy that was never filled, or went its own way, says so, and is filled as a
 * whole. */
static void
check_disks (unsigned iasp)
{
  const unsigned of = top_rec (iasp)->production_site;
  const struct wdisk *own = &w.disk[of][iasp];

  for (unsigned s = 0; s < w.mix.n_sites; s++) {
    const struct wdisk *d = &w.disk[s][iasp];
    struct super_choice choice;
    enum super_status status;
    struct superblock sb;

    if (s == of || memcmp (own->cur, d->cur, sizeof d->cur) == 0)
      continue;
    if (top_rec (iasp)->copies[s].fork == FORK_DIVERGED)
      continue; /* R4, R6: the record says it, and message 6 has it filled as a whole (H7) */
    slot_read (d, &sb, &choice, &status);
    if (memcmp (sb.lineage, w.lineage, CRG_ID_LEN) != 0 && !top_rec (iasp)->copies[s].in_set)
      continue; /* C9: nobody takes it for a copy */
    if (status != SUPER_OK || (sb.flags & SUPER_F_FORK)
        || (sb.flags & (SUPER_F_UNUSABLE | SUPER_F_FILLING)) == SUPER_F_UNUSABLE)
      continue;
    for (unsigned i = 0; i < W_UNITS; i++)
      if (own->cur[i] != d->cur[i] && !map_says (iasp, s, i * W_UNIT / W_BLOCK, true)) {
        world_fail ("unit %u is %u at site %u, %u at site %u, and neither disk says so", i, own->cur[i], of, d->cur[i],
                    s);
        return;
      }
  }
}

void
check_step (void)
{
  for (unsigned i = 0; i < w.mix.n_iasps; i++) {
    unsigned able = 0;

    for (unsigned n = 0; n < w.n_nodes; n++)
      able += can_answer (plugin_of (n, i)) && !is_outside_lease (plugin_of (n, i)) && !is_past (plugin_of (n, i));
    if (able > 1)
      world_fail ("two productions could answer for iasp %u", i);
  }
  if (w.st.steps % 64 == 0)
    check_copies ();
  if (w.st.steps % 256 == 0)
    for (unsigned i = 0; i < w.mix.n_iasps; i++)
      check_disks (i);
}

/* ---- in the end ----------------------------------------------------------------------------- */

#define NOT_YET(...)                      \
  do {                                    \
    snprintf (why, len, __VA_ARGS__);     \
    return false;                         \
  } while (0)

bool
check_healthy (char *why, size_t len)
{
  const struct crg_state *first = NULL;

  for (unsigned n = 0; n < w.n_nodes; n++) {
    const struct wnode *node = &w.node[n];

    if (node->gone)
      NOT_YET ("n%u is not in the domain", n + 1);
    if (!node->running || node->paused)
      NOT_YET ("n%u does not run", n + 1);
    if (!group_active (&node->g))
      NOT_YET ("n%u has no group", n + 1);
    if (first == NULL)
      first = &node->g.committed;
    if (stamp_compare (first->stamp, node->g.committed.stamp) != 0)
      NOT_YET ("n%u is behind", n + 1);
  }
  for (unsigned i = 0; i < w.mix.n_iasps; i++) {
    const struct iasp_rec *r = &first->rec[i];
    uint32_t host = unit_host (first, i);
    const struct wplugin *p = host == NO_NODE ? NULL : plugin_of (host - 1, i), *copy;

    if (!first->started)
      NOT_YET ("it is not started");
    if (p == NULL || !can_answer (p) || p->held || p->rec.tenure != r->tenure)
      NOT_YET ("iasp %u is not served by n%u", i, host);
    if (repl_is_guarded (&p->core))
      NOT_YET ("iasp %u: the copies of the set are not equal yet", i);
    for (unsigned s = 0; s < w.mix.n_sites; s++) {
      if (!r->copies[s].in_set || r->copies[s].host == NO_NODE)
        NOT_YET ("iasp %u: site %u is not in the set: %s, host n%u%s, '%s'", i, s,
                 s == p->site ? "" : repl_site_state_name (p->core.sites[s].state), r->copies[s].host,
                 r->copies[s].barred ? ", barred" : "", s == p->site ? "" : p->core.sites[s].reason);
      if (s != p->site && (p->core.sites[s].state != SITE_MIRRORING || !(p->core.in_set & 1u << s)))
        NOT_YET ("iasp %u: site %u is %s", i, s, repl_site_state_name (p->core.sites[s].state));
      /* A production that stood still has not heard that its copy died. */
      copy = plugin_of (r->copies[s].host - 1, i);
      if (s != p->site && (!copy->running || !copy->copy_on || !copy->copy.linked))
        NOT_YET ("iasp %u: the copy of site %u has no link", i, s);
    }
  }
  return true;
}

void
check_equal (void)
{
  for (unsigned i = 0; i < w.mix.n_iasps; i++)
    for (unsigned s = 1; s < w.mix.n_sites; s++)
      for (unsigned u = 0; u < W_UNITS; u++)
        if (w.disk[s][i].cur[u] != w.disk[0][i].cur[u])
          world_fail ("in the end site %u differs from site 0 in unit %u of iasp %u (%u, %u)", s, u, i,
                      w.disk[s][i].cur[u], w.disk[0][i].cur[u]);
}
