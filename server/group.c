/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The group core of one CRG on one node: events in, actions out.  This file
 * holds the views, the rounds of C2 and the commits of C3; the lease, the
 * hosting, the requests, the wants and the placement have files of their own (see
 * group_private.h).  Called by the daemon's main loop, and by the simulator.
 * Never does I/O, reads a clock, allocates, or trusts a byte of a message:
 * decisions that must be equal at all members are taken on delivered
 * messages only, own ones included.
 */
#include <assert.h>
#include <string.h>

#include "common/util.h"
#include "server/bytes.h"
#include "server/group_private.h"
#include "server/place.h"

size_t
group_sizeof (void)
{
  return sizeof (struct group);
}

/* ---- actions ------------------------------------------------------------ */

struct group_action *
group_act (struct group_actions *out, uint8_t kind)
{
  struct group_action *a;

  /* One event makes at most a few of these; wants stop at group_room. */
  assert (out->n < GROUP_MAX_ACTIONS);
  a = &out->a[out->n++];
  memset (a, 0, sizeof *a);
  a->kind = kind;
  return a;
}

bool
group_room (const struct group_actions *out)
{
  return out->n + 20 < GROUP_MAX_ACTIONS && out->used + 16 * 1024 < GROUP_BYTES_MAX;
}

void
group_send (struct group *g, struct group_actions *out, uint8_t type)
{
  struct msg_header *h = &g->out.h;
  struct group_action *a;
  size_t n;

  memset (h, 0, sizeof *h);
  h->type = type;
  if (g->has_state)
    memcpy (h->lineage, g->applied.lineage, CRG_ID_LEN);
  h->view = g->view;
  h->sender = g->cfg.node_id;
  h->incarnation = g->cfg.incarnation;
  h->epoch = g->applied.stamp.epoch;
  n = msg_encode (&g->out, out->bytes + out->used, GROUP_BYTES_MAX - out->used);
  assert (n > 0); /* our own message, bounded by GROUP_BYTES_MAX */
  a = group_act (out, GA_SEND);
  a->off = (uint32_t) out->used;
  a->len = (uint32_t) n;
  out->used += n;
}

void
group_note (struct group_actions *out, const char *text, uint64_t value)
{
  struct group_action *a;
  struct text t;

  if (!group_room (out))
    return;
  a = group_act (out, GA_NOTE);
  text_begin (&t, a->reason, sizeof a->reason);
  text_add (&t, text);
  if (value != UINT64_MAX) {
    text_add (&t, " ");
    text_num (&t, value);
  }
}

/* ---- peers -------------------------------------------------------------- */

const struct peer *
group_peer_const (const struct group *g, uint32_t id)
{
  for (unsigned i = 0; i < CRG_MAX_NODES; i++)
    if (id != NO_NODE && g->peers[i].id == id)
      return &g->peers[i];
  return NULL;
}

/* Finds the node or makes room for it; NULL if there is none. */
struct peer *
group_peer (struct group *g, uint32_t id)
{
  struct peer *spare = NULL;

  for (unsigned i = 0; i < CRG_MAX_NODES; i++) {
    struct peer *p = &g->peers[i];

    if (id != NO_NODE && p->id == id)
      return p;
    /* A stranger that isn't there any more gives its place, also one that was
     * of the domain, when no lease can run by an answer to it (L3). */
    if (p->id == NO_NODE)
      spare = p;
    else if (spare == NULL && !p->in_view && state_node_index (&g->applied, p->id) < 0
             && lease_answer_is_over (g, p))
      spare = p;
  }
  if (spare == NULL || id == NO_NODE)
    return NULL;
  memset (spare, 0, sizeof *spare);
  spare->id = id;
  return spare;
}

bool
group_is_expelled (const struct crg_state *s, uint32_t id, uint64_t incarnation)
{
  int n = state_node_index (s, id);

  return n >= 0 && incarnation != 0 && s->def.nodes[n].expelled == incarnation;
}

/* F1: who is not there, and hosted nothing, is gone by this alone. */
bool
group_present (const struct group *g, const struct peer *p)
{
  return p->in_view && p->answered && !group_is_expelled (&g->committed, p->id, p->incarnation);
}

uint64_t
group_return_until_ms (const struct group *g, const struct peer *p)
{
  uint64_t since = p != NULL && p->heard_ms > g->started_ms ? p->heard_ms : g->started_ms;

  return since + (uint64_t) g->cfg.lease_ms * RETURN_PARTS / LEASE_PARTS;
}

bool
group_majority (const struct group *g, bool (*has) (const struct group *, const struct peer *))
{
  uint32_t ids[CRG_MAX_NODES];
  unsigned n = 0;

  for (unsigned i = 0; i < CRG_MAX_NODES; i++)
    if (g->peers[i].id != NO_NODE && has (g, &g->peers[i]))
      ids[n++] = g->peers[i].id;
  return state_has_majority (&g->applied, ids, n);
}

/* C6: an answer with a vote: its sender holds a state of our lineage. */
static bool
has_voting_answer (const struct group *g, const struct peer *p)
{
  return p->in_view && p->answered && p->answer.has_state
         && memcmp (p->lineage, g->applied.lineage, CRG_ID_LEN) == 0;
}

static bool
has_promised (const struct group *g, const struct peer *p)
{
  (void) g;
  return p->in_view && p->promised;
}

static bool
has_persisted (const struct group *g, const struct peer *p)
{
  (void) g;
  return p->in_view && p->persisted;
}

int
group_me (const struct group *g)
{
  return g->has_committed ? state_node_index (&g->committed, g->cfg.node_id) : -1;
}

bool
group_active (const struct group *g)
{
  return g->phase == PHASE_STARTED && g->synced && g->current_committed && !g->left;
}

/* ---- C2: rounds --------------------------------------------------------- */

void
group_persist (struct group *g, struct group_actions *out)
{
  g->hold_stored_ms = lease_longest_ms (g);
  group_act (out, GA_PERSIST);
}

static void
leave (struct group *g, struct group_actions *out, enum leave_kind kind, const char *why)
{
  struct group_action *a = group_act (out, GA_LEAVE);

  a->role = (uint8_t) kind;
  str_set (a->reason, sizeof a->reason, why);
  g->left = true;
  g->phase = PHASE_NO_VIEW;
}

static void
send_answer (struct group *g, struct group_actions *out)
{
  struct msg_answer *a = &g->out.u.answer;

  memset (a, 0, sizeof *a);
  a->round = g->round;
  a->has_state = g->has_state;
  if (g->has_state)
    a->stamp = g->applied.stamp;
  a->promised = g->promised;
  for (unsigned u = 0; g->has_state && u < state_units (&g->applied); u++)
    if (g->lease[u].seen_tenure != 0
        && g->lease[u].seen_tenure == state_unit_tenure (&g->applied, u))
      a->seen_renew |= (uint8_t) (1u << u);
  if (g->has_state) {
    a->n_past = g->applied.n_past;
    memcpy (a->past, g->applied.past, sizeof a->past);
  }
  a->start_wait_ms = UINT32_MAX;
  if (g->wait_set)
    a->start_wait_ms = g->wait_until_ms > g->now_ms
                         ? (uint32_t) (g->wait_until_ms - g->now_ms) : 0;
  group_send (g, out, MSG_ANSWER);
}

/* C2: everything of an earlier round is forgotten; an epoch belongs to one
 * round. */
static void
begin_round (struct group *g, uint32_t round, struct group_actions *out)
{
  g->round = round;
  g->round_ms = g->now_ms;
  g->phase = PHASE_ANSWERING;
  g->start_sent = g->start_delivered = g->round_sent = false;
  g->holder_fixed = g->gs_delivered = g->synced = false;
  g->gs_committed = g->current_committed = false;
  g->epoch = 0;
  for (unsigned i = 0; i < CRG_MAX_NODES; i++) {
    struct peer *p = &g->peers[i];

    p->answered = p->promised = p->persisted = false;
    p->hold_known = 0;
  }
  g->counters.rounds++;
  send_answer (g, out);
}

static void
on_view (struct group *g, const struct group_event *ev, struct group_actions *out)
{
  bool me = false;

  if (ev->n_members > CRG_MAX_NODES) {
    g->counters.illegal++;
    return;
  }
  for (unsigned i = 0; i < ev->n_members; i++)
    me = me || ev->members[i] == g->cfg.node_id;
  for (unsigned i = 0; i < CRG_MAX_NODES; i++) {
    struct peer *p = &g->peers[i];

    p->in_view = p->spoke = p->announced = p->told = false;
    p->answered = p->promised = p->persisted = false;
    p->hold_known = 0;
    p->silent = 0;
  }
  if (ev->token_ms)
    g->cfg.token_ms = ev->token_ms;
  g->view = ev->view;
  g->phase = PHASE_NO_VIEW;
  g->announced = false;
  for (unsigned u = 0; u < CRG_MAX_IASPS; u++)
    g->lease[u].release_sent = false;
  g->warm = 0;
  for (unsigned i = 0; i < ev->n_members && me; i++) {
    struct peer *p = group_peer (g, ev->members[i]);

    if (p != NULL)
      p->in_view = true;
    else
      g->counters.illegal++;
  }
  host_on_view (g);
  if (!me) {
    g->counters.illegal++;
    return;
  }
  g->counters.views++;
  begin_round (g, 1, out);
}

static void
on_down (struct group *g)
{
  g->phase = PHASE_NO_VIEW;
  g->view = 0;
  g->gs_committed = g->current_committed = g->synced = false;
  for (unsigned i = 0; i < CRG_MAX_NODES; i++)
    g->peers[i].in_view = false;
  host_on_view (g);
}

/* C2: an answer whose sender has promised this epoch, or a higher one,
 * already: it can't take part, so everybody moves to a new round.  Judged by
 * the lineage of START, so that a member without a state (C6) moves too. */
static bool
has_late_answer (const struct group *g)
{
  for (unsigned i = 0; i < CRG_MAX_NODES; i++) {
    const struct peer *p = &g->peers[i];

    if (p->in_view && p->answered && p->answer.has_state && !p->promised
        && memcmp (p->lineage, g->start_lineage, CRG_ID_LEN) == 0
        && p->answer.promised >= g->epoch)
      return true;
  }
  return false;
}

static void
on_answer (struct group *g, struct peer *p, struct group_actions *out)
{
  if (g->in.u.answer.round != g->round || p->answered)
    return;
  p->answered = true;
  p->answer = g->in.u.answer;
  memcpy (p->lineage, g->in.h.lineage, CRG_ID_LEN);
  p->succeeds = false;
  for (unsigned i = 0; i < p->answer.n_past && g->has_state; i++)
    p->succeeds = p->succeeds || memcmp (p->answer.past[i], g->applied.lineage, CRG_ID_LEN) == 0;
  if (g->start_delivered && has_late_answer (g))
    begin_round (g, g->round + 1, out);
}

/* C2: the lowest id that has all answers, or a majority's after 2 x token,
 * starts; the next one after each further 2 x token.  H1: nobody trusts its own
 * state, maybe a stale copy, alone. */
static void
try_start (struct group *g, struct group_actions *out)
{
  struct msg_start *m = &g->out.u.start;
  uint64_t due = g->round_ms, epoch = 0;
  unsigned rank = 0;
  bool all = true;

  if (g->phase != PHASE_ANSWERING || g->start_sent || !g->has_state
      || !group_majority (g, has_voting_answer))
    return;
  for (unsigned i = 0; i < CRG_MAX_NODES; i++) {
    const struct peer *p = &g->peers[i];

    if (!p->in_view)
      continue;
    all = all && p->answered;
    if (has_voting_answer (g, p)) {
      if (p->id < g->cfg.node_id)
        rank++;
      if (p->answer.promised > epoch)
        epoch = p->answer.promised;
      if (p->answer.stamp.epoch > epoch)
        epoch = p->answer.stamp.epoch;
    }
  }
  due += 2ull * g->cfg.token_ms * (rank + (all ? 0 : 1));
  if (g->now_ms < due)
    return;
  memset (m, 0, sizeof *m);
  m->round = g->round;
  m->epoch = epoch + 1;
  for (unsigned i = 0; i < CRG_MAX_NODES; i++)
    if (g->peers[i].in_view && g->peers[i].answered)
      m->ids[m->n++] = g->peers[i].id;
  group_send (g, out, MSG_START);
  g->start_sent = true;
}

static void
on_start (struct group *g, struct group_actions *out)
{
  const struct msg_start *m = &g->in.u.start;

  /* C2: the first delivered START of a round counts. */
  if (m->round != g->round || g->start_delivered)
    return;
  /* An absurd epoch would use the numbers up. */
  if (m->epoch == 0 || m->epoch > UINT64_MAX / 2) {
    g->counters.illegal++;
    return;
  }
  g->start_delivered = true;
  g->start_ms = g->now_ms;
  g->epoch = m->epoch;
  memcpy (g->start_lineage, g->in.h.lineage, CRG_ID_LEN);
  g->phase = PHASE_PROMISING;
  if (has_late_answer (g)) {
    begin_round (g, g->round + 1, out);
    return;
  }
  /* C2: a member promises E only if E > its `promised`: it fsyncs, then says
   * so.  C6: without a state there is no promise. */
  if (g->has_state && m->epoch > g->promised && m->epoch > g->applied.stamp.epoch) {
    struct msg_promised *p = &g->out.u.promised;

    g->promised = m->epoch;
    group_persist (g, out);
    memset (p, 0, sizeof *p);
    p->round = g->round;
    p->epoch = m->epoch;
    p->stamp = g->applied.stamp;
    group_send (g, out, MSG_PROMISED);
  }
}

/* H2: the member with the highest stamp sends the state; among equals the
 * primary (of the first unit), then the lowest node id. */
static uint32_t
state_holder (const struct group *g)
{
  const struct peer *best = NULL;
  uint32_t primary = state_production_host (&g->applied);

  for (unsigned i = 0; i < CRG_MAX_NODES; i++) {
    const struct peer *p = &g->peers[i];
    int cmp;

    if (p->id == NO_NODE || !has_promised (g, p))
      continue;
    cmp = best == NULL ? 1 : stamp_compare (p->promised_stamp, best->promised_stamp);
    if (cmp > 0
        || (cmp == 0 && best->id != primary && (p->id == primary || p->id < best->id)))
      best = p;
  }
  return best == NULL ? NO_NODE : best->id;
}

static void
send_group_state (struct group *g, struct group_actions *out)
{
  struct msg_group_state *m = &g->out.u.group_state;
  struct stamp mine = g->applied.stamp;
  size_t at = GROUP_BYTES_MAX - STATE_ENCODED_MAX, n;

  /* The state as (E, 0), encoded at the end of the buffer and moved by the
   * encoder to its place in the message. */
  assert (out->used + 1024 < at);
  g->applied.stamp = (struct stamp) { g->epoch, 0 };
  n = state_encode (&g->applied, out->bytes + at, STATE_ENCODED_MAX);
  g->applied.stamp = mine;
  assert (n > 0 && n < at - out->used - 1024);
  memset (m, 0, sizeof *m);
  m->round = g->round;
  m->epoch = g->epoch;
  m->bytes = out->bytes + at;
  m->len = (uint32_t) n;
  group_send (g, out, MSG_GROUP_STATE);
}

static void
on_promised (struct group *g, struct peer *p, struct group_actions *out)
{
  const struct msg_promised *m = &g->in.u.promised;

  if (m->round != g->round || !g->start_delivered || m->epoch != g->epoch || p->promised)
    return;
  p->promised = true;
  p->promised_stamp = m->stamp;
  if (g->has_state && !g->holder_fixed && group_majority (g, has_promised)) {
    /* C2: the holder of the highest stamp among a majority is fixed. */
    g->holder_fixed = true;
    if (state_holder (g) == g->cfg.node_id && g->promised == g->epoch)
      send_group_state (g, out);
  }
}

void
group_ask_again (struct group *g, uint32_t keep)
{
  for (unsigned i = 0; i < CRG_MAX_NODES; i++)
    if (g->peers[i].id != keep)
      g->peers[i].announced = false;
  for (unsigned i = 0; i < CRG_MAX_IASPS; i++) {
    g->host[i].probed = false;
    g->host[i].probe_stale = g->host[i].probing;
  }
  g->announced = false;
  g->asked_ms = g->now_ms;
}

/* ---- C3: persisted by a majority ---------------------------------------- */

static void
send_persisted (struct group *g, struct group_actions *out)
{
  struct msg_persisted *m = &g->out.u.persisted;

  /* H10: on stable storage before it is said. */
  group_persist (g, out);
  memset (m, 0, sizeof *m);
  m->stamp = g->applied.stamp;
  m->longest_ms = g->hold_stored_ms;
  m->n_units = (uint8_t) state_units (&g->applied);
  for (unsigned u = 0; u < m->n_units; u++)
    m->hold_ms[u] = lease_hold_ms (g, u);
  group_send (g, out, MSG_PERSISTED);
}

static void
version_begins (struct group *g)
{
  for (unsigned i = 0; i < CRG_MAX_NODES; i++)
    g->peers[i].persisted = false;
  g->current_committed = false;
}

static void
on_group_state (struct group *g, struct peer *p, struct group_actions *out)
{
  const struct msg_group_state *m = &g->in.u.group_state;

  /* The first one of the round, from a member whose promise was delivered. */
  if (m->round != g->round || !g->start_delivered || m->epoch != g->epoch
      || g->gs_delivered || !p->promised)
    return;
  if (state_decode (&g->scratch, m->bytes, m->len) < 0
      || g->scratch.stamp.epoch != g->epoch || g->scratch.stamp.version != 0
      || memcmp (g->scratch.lineage, g->in.h.lineage, CRG_ID_LEN) != 0) {
    g->counters.bad_messages++;
    return;
  }
  g->gs_delivered = true;
  g->phase = PHASE_COMMITTING;
  if (!g->got_group_state) {
    g->got_group_state = true;
    if (p->id != g->cfg.node_id)
      g->counters.group_state++;
  }
  version_begins (g);
  memset (g->appoint_version, 0, sizeof g->appoint_version);
  if (g->has_state && p->promised_stamp.epoch > g->applied.stamp.epoch) { /* others were a group without this node */
    host_void_fence (g);
    request_void_marks (g, true);
  }
  /* C1: a member persists nothing of an epoch other than its `promised`. */
  if (g->has_state && g->promised != g->epoch)
    return;
  g->applied = g->scratch;
  g->synced = true;
  /* C6: who held no state waits for a majority without it. */
  if (g->has_state)
    send_persisted (g, out);
}

/* The start-wait of a cold start runs once an incarnation; who joins later
 * takes what is left of it from those who wait already. */
static void
begin_start_wait (struct group *g)
{
  uint32_t left = UINT32_MAX;

  for (unsigned i = 0; i < CRG_MAX_NODES; i++) {
    struct peer *p = &g->peers[i];

    if (!p->in_view || !p->answered)
      continue;
    p->seen = true;
    g->warm |= p->answer.seen_renew;
    if (p->answer.start_wait_ms < left)
      left = p->answer.start_wait_ms;
  }
  if (!g->wait_set) {
    if (left == UINT32_MAX || left > g->cfg.start_wait_ms)
      left = g->cfg.start_wait_ms;
    g->wait_until_ms = g->now_ms + left;
    g->wait_set = true;
  }
}

/* This node was removed while it was away, and its id given to another one. */
static bool
has_successor (const struct group *g)
{
  int n = state_node_index (&g->applied, g->cfg.node_id);

  return n >= 0 && g->cfg.name[0] != '\0' && strcmp (g->applied.def.nodes[n].name, g->cfg.name) != 0;
}

static void
on_commit (struct group *g, struct group_actions *out)
{
  bool first = !g->gs_committed;

  g->gs_committed = true;
  g->current_committed = true;
  if (!g->synced)
    return;
  if (has_successor (g)) {
    leave (g, out, LEAVE_REMOVED, "this node was removed from the recovery domain, and its id is another node's now");
    return;
  }
  if (!g->has_state) {
    /* C6: committed by a majority without this node: now it has a vote. */
    g->has_state = true;
    g->promised = g->epoch;
    send_persisted (g, out);
  }
  domain_on_commit (g, first, out);
  g->committed = g->applied;
  g->has_committed = true;
  g->serial++;
  g->phase = PHASE_STARTED;
  if (first) {
    g->counters.commits++;
    g->commit_ms = g->now_ms;
    begin_start_wait (g);
    group_note (out, "committed start of epoch", g->epoch);
  } else if (g->change_kind == CH_EXPEL || g->change_kind == CH_BAR
             || g->change_kind == CH_MARK_FAILED)
    /* A host is lost without a new view: who can take its place may have
     * said so long ago, when the store was still free (S1).  Or it is free
     * now, as the one that had it open is dead (S1 d). */
    group_ask_again (g, NO_NODE);
  if (group_is_expelled (&g->committed, g->cfg.node_id, g->cfg.incarnation))
    leave (g, out, LEAVE_AGAIN, "expelled by the others: this node was silent (C8); join again");
  else if (g->committed.deleted) {
    request_settle (g, out); /* who asked for it hears of it */
    leave (g, out, LEAVE_DELETED, "the CRG is deleted");
  } else if (state_node_index (&g->committed, g->cfg.node_id) < 0) {
    request_settle (g, out);
    leave (g, out, LEAVE_REMOVED, "this node was removed from the recovery domain");
  }
}

static void
on_persisted (struct group *g, struct peer *p, struct group_actions *out)
{
  const struct msg_persisted *m = &g->in.u.persisted;

  if (!g->gs_delivered || m->stamp.epoch != g->epoch)
    return;
  p->longest_ms = m->longest_ms;
  /* L3: the new host opens when receipt + hold has passed at a majority. */
  for (unsigned u = 0; g->synced && u < m->n_units; u++)
    if (m->stamp.version >= g->appoint_version[u]
        && m->stamp.version <= g->applied.stamp.version) {
      p->hold_known |= (uint8_t) (1u << u);
      p->open_ms[u] = g->now_ms + m->hold_ms[u];
    }
  if (!g->synced) {
    /* Can't follow the versions; a late answer starts a new round. */
    return;
  }
  if (m->stamp.version != g->applied.stamp.version)
    return;
  p->persisted = true;
  if (!g->current_committed && group_majority (g, has_persisted))
    on_commit (g, out);
}

static void
on_change (struct group *g, struct group_actions *out)
{
  const struct change *c = &g->in.u.change;

  /* C3: one uncommitted change at a time; a change with another base is
   * ignored by everybody alike. */
  if (!g->synced || !g->current_committed
      || stamp_compare (c->base, g->applied.stamp) != 0 || state_check (&g->applied, c) != NULL
      || host_overtakes (g, c))
    return;
  state_apply (&g->applied, c);
  g->change_kind = c->kind;
  g->change_ms = g->now_ms;
  g->counters.changes++;
  version_begins (g);
  if (c->kind == CH_APPOINT) {
    unsigned u = state_change_unit (&g->applied, c); /* checked: there is one */
    uint8_t bit = (uint8_t) (1u << u);

    g->appoint_version[u] = g->applied.stamp.version;
    g->appoint_tenure[u] = state_unit_tenure (&g->applied, u);
    g->appoint_graceful = (uint8_t) (c->graceful ? g->appoint_graceful | bit : g->appoint_graceful & ~bit);
    for (unsigned i = 0; i < CRG_MAX_NODES; i++)
      g->peers[i].hold_known &= (uint8_t) ~bit;
  }
  send_persisted (g, out);
}

/* ---- messages ----------------------------------------------------------- */

/* H5: of another view or lineage, or of an expelled incarnation. */
static bool
is_foreign (const struct group *g, const struct peer *p)
{
  static const uint8_t none[CRG_ID_LEN];
  const struct msg_header *h = &g->in.h;

  if (h->view != g->view || p == NULL || !p->in_view)
    return true;
  if (p->spoke && p->incarnation != h->incarnation)
    return true;
  /* C9: another lineage; its ANSWER only shows that it is there. */
  if (g->has_state && h->type != MSG_ANSWER && memcmp (h->lineage, none, CRG_ID_LEN) != 0
      && memcmp (h->lineage, g->applied.lineage, CRG_ID_LEN) != 0)
    return true;
  /* C6, C9: nobody's word of another lineage makes a majority for this one. */
  if (!g->has_state && g->start_delivered && h->type > MSG_START && h->type <= MSG_CHANGE
      && memcmp (h->lineage, g->start_lineage, CRG_ID_LEN) != 0
      && memcmp (h->lineage, none, CRG_ID_LEN) != 0)
    return true;
  /* C8: its votes in C2 and C3 stay, as all members must count alike. */
  return h->type > MSG_PERSISTED && g->has_committed
         && group_is_expelled (&g->committed, p->id, h->incarnation);
}

static void
on_report (struct group *g, struct peer *p)
{
  p->report_len = g->in.u.report.len;
  p->report_ms = g->now_ms;
  if (p->report_len > 0)
    memcpy (p->report, g->in.u.report.bytes, p->report_len);
}

static void
on_msg (struct group *g, const struct group_event *ev, struct group_actions *out)
{
  struct peer *p;

  if (g->phase == PHASE_NO_VIEW) {
    g->counters.dropped++;
    return;
  }
  if (ev->buf == NULL || msg_decode (&g->in, ev->buf, ev->len) < 0
      || g->in.h.sender != ev->from) {
    g->counters.bad_messages++;
    return;
  }
  p = group_peer (g, ev->from);
  if (is_foreign (g, p)) {
    g->counters.dropped++;
    return;
  }
  p->spoke = true;
  p->incarnation = g->in.h.incarnation;
  p->heard_ms = g->now_ms;
  switch (g->in.h.type) {
  case MSG_ANSWER: on_answer (g, p, out); break;
  case MSG_START: on_start (g, out); break;
  case MSG_PROMISED: on_promised (g, p, out); break;
  case MSG_GROUP_STATE: on_group_state (g, p, out); break;
  case MSG_PERSISTED: on_persisted (g, p, out); break;
  case MSG_CHANGE: on_change (g, out); break;
  case MSG_RENEW: lease_on_renew (g, p, out); break;
  case MSG_RENEWED: lease_on_renewed (g, p, out); break;
  case MSG_ANNOUNCE: host_on_announce (g, p); break;
  case MSG_CONFIG: host_on_config (g, p, out); break;
  case MSG_MIRROR_START: host_on_mirror_start (g, p, out); break;
  case MSG_RELEASED: lease_on_released (g); break;
  case MSG_ALIVE: lease_on_alive (g, p); break;
  case MSG_ROUND:
    if (g->in.u.round == g->round + 1 && !g->current_committed)
      begin_round (g, g->in.u.round, out);
    break;
  case MSG_REPORT: on_report (g, p); break;
  case MSG_REQUEST: request_on_request (g, p, out); break;
  case MSG_REPLY: request_on_reply (g, p, out); break;
  default: g->counters.illegal++;
  }
}

/* ---- time --------------------------------------------------------------- */

/* C2: no committed GROUP-STATE within 2 x token: a new round.  The same for a
 * change that isn't committed in that time: its outcome is then read from the
 * next committed state (C5). */
static void
settle_round (struct group *g, struct group_actions *out)
{
  try_start (g, out);
  if (g->start_delivered && !g->current_committed && !g->round_sent && g->has_state
      && g->now_ms >= MAX (g->start_ms, g->change_ms) + 2ull * g->cfg.token_ms) {
    g->round_sent = true;
    g->out.u.round = g->round + 1;
    group_send (g, out, MSG_ROUND);
  }
}

static void
settle_alive (struct group *g, struct group_actions *out)
{
  if (g->phase == PHASE_NO_VIEW)
    return;
  if (g->now_ms >= g->alive_ms && group_room (out)) {
    g->alive_ms = g->now_ms + g->cfg.lease_ms / LEASE_PARTS;
    group_send (g, out, MSG_ALIVE);
  }
  if (g->report_new && g->now_ms >= g->report_next_ms && group_room (out)) {
    g->report_new = false;
    g->report_next_ms = g->now_ms + REPORT_EVERY_MS;
    g->out.u.report.bytes = g->report;
    g->out.u.report.len = g->report_len;
    group_send (g, out, MSG_REPORT);
  }
}

static void
take_report (struct group *g, const struct group_event *ev)
{
  if (ev->len > GROUP_REPORT_MAX || (ev->len > 0 && ev->buf == NULL)) {
    g->counters.illegal++;
    return;
  }
  g->report_len = (uint32_t) ev->len;
  if (ev->len > 0)
    memcpy (g->report, ev->buf, ev->len);
  g->report_new = true;
}

/* ---- entry points ------------------------------------------------------- */

void
group_init (struct group *g, const struct group_config *cfg, const struct crg_state *persisted,
            uint64_t promised, uint64_t now_ms)
{
  memset (g, 0, sizeof *g);
  assert (cfg->node_id != NO_NODE && cfg->incarnation != 0 && cfg->lease_ms >= LEASE_PARTS);
  g->cfg = *cfg;
  g->started_ms = g->now_ms = now_ms;
  g->start_hold_ms = now_ms + MAX (lease_guard_ms (cfg->lease_ms), (uint64_t) cfg->hold_ms);
  g->hold_stored_ms = cfg->hold_ms;
  g->phase = PHASE_NO_VIEW;
  for (unsigned i = 0; i < CRG_MAX_IASPS; i++)
    g->applied.rec[i].production_site = g->committed.rec[i].production_site = NO_SITE;
  for (unsigned i = 0; i < CRG_MAX_IASPS; i++)
    g->host[i].config_mine = 1;
  if (persisted != NULL) {
    g->applied = *persisted;
    g->has_state = true;
    g->promised = promised;
  }
}

void
group_step (struct group *g, const struct group_event *ev, struct group_actions *out)
{
  out->n = 0;
  out->used = 0;
  if (ev->now_ms > g->now_ms)
    g->now_ms = ev->now_ms;
  g->wall_ms = ev->wall_ms;
  if (g->left)
    return;
  switch (ev->kind) {
  case GE_VIEW: on_view (g, ev, out); break;
  case GE_DOWN: on_down (g); break;
  case GE_MSG: on_msg (g, ev, out); break;
  case GE_TICK: break;
  case GE_PROBE:
  case GE_HOSTED:
  case GE_COPY_LOST:
  case GE_COPY_BACK:
  case GE_COPY_READY:
  case GE_CONFIG:
  case GE_LINK:
  case GE_FENCED:
  case GE_STORE_FAILED: host_on_event (g, ev, out); break;
  case GE_DRAINED: request_on_drained (g, ev, out); break;
  case GE_REQUEST: request_on_event (g, ev, out); break;
  case GE_REPORT: take_report (g, ev); break;
  default: g->counters.illegal++;
  }
  if (g->left)
    return;
  if (domain_is_past (g)) {
    leave (g, out, LEAVE_LINEAGE, "the group was recovered without this node (C9): it joins again as an empty one");
    return;
  }
  settle_round (g, out);
  settle_alive (g, out);
  lease_settle (g, out);
  request_settle (g, out);
  host_settle (g, out);
  want_settle (g, out);
  group_age_wait (g);
}
