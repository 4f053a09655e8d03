/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The group engine over corosync.  See engine_corosync.h.  Runs on the daemon's
 * main loop only.  It owns the handles of CPG, votequorum and cmap.  It must
 * never wait for corosync in a call: what can't go now is queued, within bounds,
 * and tried again by a timer.  (Connecting is the exception: libqb's handshake
 * is a round trip with the local corosync.)
 *
 * CPG's events are taken one at a time, since a handler may find that it must
 * not go on before votequorum has spoken.  Errors are found deep inside
 * corosync's own dispatchers, where a handle can't be closed; so an error only
 * marks the engine as broken, and the loop takes it down.
 */
#include <config.h>

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <syslog.h>
#include <unistd.h>

#include <corosync/corotypes.h>
#include <corosync/cpg.h>
#include <corosync/quorum.h>
#include <qb/qblog.h>
#include <qb/qbloop.h>

#include "server/engine_corosync.h"

#include "common/clock.h"
#include "common/util.h"
#include "server/corosync_cmap.h"
#include "server/cpg_frame.h"
#include "server/cpg_queue.h"
#include "server/cpg_view.h"


#define PREFIX_DEFAULT "nbd-crg"

struct partial_in {
  struct cpg_partial state;
  uint8_t *buf;
};

struct corosync_group {
  struct corosync_engine *e;
  bool used, leaving;
  char name[CRG_NAME_MAX + 1];
  struct cpg_name cpg_name;
  cpg_handle_t handle;
  bool open, joined; /* handle is valid; cpg_join was accepted */
  bool armed; /* fd is polled for input */
  int fd;
  struct cpg_view view;
  struct cpg_queue out;
  unsigned in_flight; /* frames that corosync took and hasn't delivered */
  size_t in_flight_bytes;
  uint64_t next_seq;
  uint64_t waiting_since_ms; /* for votequorum; 0: not waiting */
  struct partial_in in[CRG_MAX_NODES]; /* by place in view.members */
};

struct corosync_engine {
  struct engine base;
  struct qb_loop *loop;
  char prefix[COROSYNC_PREFIX_MAX + 1];
  char node_name[CRG_NAME_MAX + 1];
  struct corosync_cmap cmap; /* totem's timers, the nodes' names */
  bool connected, broken, told_down, told_name, counts_quorum;
  char broken_why[CRG_REASON_MAX + 1];
  unsigned retry_ms;
  bool pump_set, retry_set;
  qb_loop_timer_handle pump_timer, retry_timer;
  unsigned pump_ms; /* pause after the last "try again" */
  uint64_t pump_due_ms;
  quorum_handle_t quorum;
  bool quorum_open;
  int quorum_fd;
  struct cpg_ring quorum_ring;
  bool quorum_known;
  uint64_t rate_at_ms; /* the bucket of RATE was last filled */
  unsigned rate_left; /* frames */
  struct corosync_group groups[ENGINE_MAX_GROUPS];
  struct engine_corosync_stats stats;
};

static void group_pump (struct corosync_group *g);
static void pump_arm (struct corosync_engine *e, unsigned ms);
static void retry_arm (struct corosync_engine *e, unsigned ms);

/* ------------------------------------------------------------- small helpers */

static struct corosync_engine *
engine_of (struct engine *e)
{
  return container_of (e, struct corosync_engine, base);
}

static struct corosync_group *
group_find (struct corosync_engine *e, const char *name)
{
  for (unsigned i = 0; i < ENGINE_MAX_GROUPS; i++)
    if (e->groups[i].used && !e->groups[i].leaving && strcmp (e->groups[i].name, name) == 0)
      return &e->groups[i];
  return NULL;
}

static void
group_drop_pieces (struct corosync_group *g)
{
  for (unsigned i = 0; i < CRG_MAX_NODES; i++) {
    free (g->in[i].buf);
    memset (&g->in[i], 0, sizeof g->in[i]);
  }
}

/* Marks the engine as broken; the loop takes it down.  Safe anywhere. */
static void
engine_break (struct corosync_engine *e, const char *what, cs_error_t err)
{
  if (e->broken)
    return;
  e->broken = true;
  snprintf (e->broken_why, sizeof e->broken_why, "corosync: %s: %s", what, cs_strerror (err));
  retry_arm (e, 0);
}

static void
engine_break_opaque (void *opaque, const char *what, cs_error_t err)
{
  engine_break (opaque, what, err);
}

/* -------------------------------------------------------------- CPG's events */

static struct corosync_group *
group_of_handle (cpg_handle_t handle)
{
  void *context = NULL;

  if (cpg_context_get (handle, &context) != CS_OK)
    return NULL;
  return context;
}

static void
group_change_begins (struct corosync_group *g)
{
  group_drop_pieces (g);
  cpg_queue_clear (&g->out); /* its receivers would drop it, as of a view that is over */
}

static void
on_confchg (cpg_handle_t handle, const struct cpg_name *name, const struct cpg_address *members,
            size_t n, const struct cpg_address *left, size_t n_left,
            const struct cpg_address *joined, size_t n_joined)
{
  struct corosync_group *g = group_of_handle (handle);
  struct cpg_proc procs[CPG_MEMBERS_MAX];

  if (g == NULL || g->leaving)
    return;
  n = MIN (n, ARRAY_SIZE (procs));
  for (size_t i = 0; i < n; i++) {
    procs[i].node = members[i].nodeid;
    procs[i].pid = members[i].pid;
  }
  group_change_begins (g);
  cpg_view_confchg (&g->view, procs, (unsigned) n);
  if (g->view.too_many)
    qb_log (LOG_ERR, "group %s has more than %d nodes: no view; remove nodes from it", g->name,
            CRG_MAX_NODES);
  if (g->view.twice)
    qb_log (LOG_WARNING,
            "group %s: two processes of one node are in it; neither is "
            "heard until one is gone",
            g->name);
}

static void
on_totem (cpg_handle_t handle, struct cpg_ring_id ring, uint32_t n, const uint32_t *nodes)
{
  struct corosync_group *g = group_of_handle (handle);

  if (g == NULL || g->leaving)
    return;
  group_change_begins (g);
  cpg_view_totem (&g->view, (struct cpg_ring){ .seq = ring.seq, .node = ring.nodeid });
  g->e->stats.ring_changes++;
  g->e->stats.ring_seq = ring.seq;
  g->e->stats.ring_node = ring.nodeid;
}

static void
deliver_view (struct corosync_group *g, const struct cpg_frame *f)
{
  struct corosync_engine *e = g->e;
  struct cpg_ring ring = { .seq = f->ring_seq, .node = f->ring_node };
  uint32_t nodes[CRG_MAX_NODES];

  if (!cpg_view_decide (&g->view, ring, f->view))
    return;
  for (unsigned i = 0; i < g->view.n; i++) {
    uint32_t id = corosync_cmap_id (&e->cmap, g->view.members[i].node);
    unsigned at = i;

    if (id == 0) {
      qb_log (LOG_ERR, "corosync.conf has no name for node %u, which is in group %s",
              g->view.members[i].node, g->name);
      engine_break (e, "nodelist", CS_ERR_NAME_NOT_FOUND);
      return;
    }
    for (; at > 0 && nodes[at - 1] > id; at--)
      nodes[at] = nodes[at - 1];
    nodes[at] = id;
  }
  e->stats.views++;
  e->retry_ms = COROSYNC_RECONNECT_MIN_MS; /* the connection is good */
  e->base.cb.view (e->base.opaque, g->name, g->view.id, nodes, g->view.n,
                   e->counts_quorum ? e->stats.quorate : true);
}

static void
deliver_data (struct corosync_group *g, struct cpg_proc from, const struct cpg_frame *f)
{
  struct corosync_engine *e = g->e;
  struct partial_in *in = NULL;
  uint8_t *whole;

  if (!cpg_view_takes (&g->view, from, f->view)) {
    e->stats.foreign++;
    return;
  }
  for (unsigned i = 0; i < g->view.n; i++)
    if (g->view.members[i].node == from.node)
      in = &g->in[i];
  switch (cpg_partial_step (&in->state, f)) {
  case CPG_PIECE_WHOLE:
    e->stats.delivered++;
    e->base.cb.deliver (e->base.opaque, g->name, corosync_cmap_id (&e->cmap, from.node), f->payload,
                        f->len);
    return;
  case CPG_PIECE_FIRST:
    free (in->buf);
    in->buf = malloc (f->total);
    if (in->buf == NULL) {
      /* Others will deliver what we can't: this member's sequence is broken. */
      in->state.open = false;
      engine_break (e, "reassembly", CS_ERR_NO_MEMORY);
      return;
    }
    memcpy (in->buf, f->payload, f->len);
    return;
  case CPG_PIECE_NEXT:
    memcpy (in->buf + f->offset, f->payload, f->len);
    return;
  case CPG_PIECE_LAST:
    memcpy (in->buf + f->offset, f->payload, f->len);
    whole = in->buf;
    in->buf = NULL;
    e->stats.delivered++;
    e->base.cb.deliver (e->base.opaque, g->name, corosync_cmap_id (&e->cmap, from.node), whole,
                        f->total);
    free (whole);
    return;
  case CPG_PIECE_STRAY:
    free (in->buf);
    in->buf = NULL;
    e->stats.strays++;
    qb_log (LOG_ERR,
            "group %s: a piece of a message of node %u is out of place and "
            "was dropped",
            g->name, from.node);
    return;
  }
}

static void
on_deliver (cpg_handle_t handle, const struct cpg_name *name, uint32_t node, uint32_t pid,
            void *msg, size_t len)
{
  struct corosync_group *g = group_of_handle (handle);
  struct cpg_proc from = { .node = node, .pid = pid };
  struct cpg_frame f;

  if (g == NULL || g->leaving || g->e->broken)
    return;
  g->e->stats.frames_received++;
  if (node == g->view.me.node && pid == g->view.me.pid && g->in_flight > 0) {
    g->in_flight--;
    g->in_flight_bytes -= MIN (len, g->in_flight_bytes);
  }
  if (!cpg_frame_decode (msg, len, &f)) {
    g->e->stats.not_ours++;
    return;
  }
  if (f.kind == CPG_FRAME_VIEW)
    deliver_view (g, &f);
  else
    deliver_data (g, from, &f);
}

/* ----------------------------------------------------------------- sending */

/* A member that takes nothing costs its corosync memory for all that others
 * send: hence a rate, and a bound on what is on its way. */
static bool
rate_take (struct corosync_engine *e)
{
  uint64_t now = clock_boottime_ms ();
  uint64_t due = (now - e->rate_at_ms) * COROSYNC_RATE_FRAMES_MS;

  if (due > 0) {
    e->rate_left = (unsigned) MIN ((uint64_t) COROSYNC_RATE_BURST, e->rate_left + due);
    e->rate_at_ms = now;
  }
  if (e->rate_left == 0) {
    e->stats.rate_waits++;
    return false;
  }
  e->rate_left--;
  return true;
}

/* Sends what corosync takes now. */
static void
group_pump (struct corosync_group *g)
{
  struct corosync_engine *e = g->e;

  struct cpg_queued *f;

  e->stats.queue_peak_bytes = MAX (e->stats.queue_peak_bytes, (uint64_t) g->out.peak_bytes);
  while (g->joined && !e->broken && (f = cpg_queue_first (&g->out)) != NULL) {
    struct iovec iov = { .iov_base = f->bytes, .iov_len = f->len };
    cs_error_t err;

    if (g->in_flight >= COROSYNC_WINDOW_FRAMES
        || (g->in_flight > 0 && g->in_flight_bytes + f->len > COROSYNC_WINDOW_BYTES)) {
      pump_arm (e, COROSYNC_RETRY_MAX_MS); /* a delivery sends more at once */
      return;
    }
    if (!rate_take (e)) {
      pump_arm (e, 1);
      return;
    }
    err = cpg_mcast_joined (g->handle, CPG_TYPE_AGREED, &iov, 1);
    if (err == CS_ERR_TRY_AGAIN) {
      e->stats.try_again++;
      e->rate_left++;
      e->pump_ms = MIN (MAX (1u, e->pump_ms * 2), COROSYNC_RETRY_MAX_MS);
      pump_arm (e, e->pump_ms);
      return;
    }
    if (err != CS_OK) {
      engine_break (e, "cpg_mcast_joined", err);
      return;
    }
    e->pump_ms = 1;
    e->stats.frames_sent++;
    if (f->last)
      e->stats.sent++;
    g->in_flight++;
    g->in_flight_bytes += f->len;
    cpg_queue_pop (&g->out);
  }
}

static void
group_propose (struct corosync_group *g)
{
  struct cpg_frame h = { .kind = CPG_FRAME_VIEW,
                         .view = clock_random_u64 (),
                         .ring_seq = g->view.ring.seq,
                         .ring_node = g->view.ring.node };

  if (h.view == 0)
    h.view = 1;
  if (cpg_queue_put (&g->out, &h) < 0) {
    engine_break (g->e, "proposal of a view", CS_ERR_NO_MEMORY);
    return;
  }
  cpg_view_proposed (&g->view);
}

/* ---------------------------------------------------------------- dispatch */

static int32_t group_on_fd (int32_t fd, int32_t revents, void *data);

static void
group_arm (struct corosync_group *g, bool on)
{
  if (g->armed == on)
    return;
  g->armed = on;
  qb_loop_poll_mod (g->e->loop, QB_LOOP_MED, g->fd, on ? POLLIN : 0, g, group_on_fd);
}

/* After any event: wait for votequorum or go on; propose what is due; send. */
static void
group_settle (struct corosync_group *g)
{
  if (!g->open || g->leaving || g->e->broken)
    return;
  if (cpg_view_must_wait (&g->view)) {
    if (g->waiting_since_ms == 0)
      g->waiting_since_ms = clock_boottime_ms ();
    pump_arm (g->e, COROSYNC_QUORUM_WAIT_MS);
    group_arm (g, false);
  }
  else {
    g->waiting_since_ms = 0;
    group_arm (g, true);
  }
  if (cpg_view_must_propose (&g->view))
    group_propose (g);
  group_pump (g);
}

static int32_t
group_on_fd (int32_t fd, int32_t revents, void *data)
{
  struct corosync_group *g = data;
  struct corosync_engine *e = g->e;

  /* What arrived before the end is still worth reading, but waiting for
   * votequorum isn't: it went with the same corosync. */
  for (unsigned i = 0; i < COROSYNC_DISPATCH_BATCH && !e->broken && !g->leaving; i++) {
    cs_error_t err;

    if (cpg_view_must_wait (&g->view))
      break;
    err = cpg_dispatch (g->handle, CS_DISPATCH_ONE_NONBLOCKING);
    if (err == CS_ERR_TRY_AGAIN)
      break;
    if (err != CS_OK) {
      engine_break (e, "connection lost", err);
      break;
    }
    if (cpg_view_must_propose (&g->view))
      group_propose (g);
  }
  if (!e->broken && (revents & (POLLHUP | POLLERR | POLLNVAL)))
    engine_break (e, "connection lost", CS_ERR_LIBRARY);
  group_settle (g);
  return 0;
}

static void
on_quorum (quorum_handle_t handle, uint32_t quorate, struct quorum_ring_id ring, uint32_t n,
           const uint32_t *nodes)
{
  const void *context = NULL;
  struct corosync_engine *e;

  if (quorum_context_get (handle, &context) != CS_OK || context == NULL)
    return;
  e = (struct corosync_engine *) (uintptr_t) context; /* the library makes it const */
  e->quorum_ring = (struct cpg_ring){ .seq = ring.seq, .node = ring.nodeid };
  e->quorum_known = true;
  e->stats.quorate = quorate != 0;
  for (unsigned i = 0; i < ENGINE_MAX_GROUPS; i++)
    if (e->groups[i].open)
      cpg_view_quorum (&e->groups[i].view, e->quorum_ring, quorate != 0);
}

static int32_t
quorum_on_fd (int32_t fd, int32_t revents, void *data)
{
  struct corosync_engine *e = data;
  cs_error_t err = CS_OK;

  if (e->broken)
    return 0;
  if (revents & POLLIN)
    err = quorum_dispatch (e->quorum, CS_DISPATCH_ALL);
  if (err != CS_OK && err != CS_ERR_TRY_AGAIN)
    engine_break (e, "connection to votequorum lost", err);
  else if (revents & (POLLHUP | POLLERR | POLLNVAL))
    engine_break (e, "connection to votequorum lost", CS_ERR_LIBRARY);
  for (unsigned i = 0; i < ENGINE_MAX_GROUPS; i++)
    group_settle (&e->groups[i]);
  return 0;
}

/* ------------------------------------------------------ connect and disconnect */

static void
group_close (struct corosync_group *g)
{
  if (!g->open)
    return;
  if (g->fd >= 0)
    qb_loop_poll_del (g->e->loop, g->fd);
  cpg_finalize (g->handle);
  g->open = g->joined = g->armed = false;
  g->fd = -1;
  group_drop_pieces (g);
  cpg_queue_clear (&g->out);
  g->in_flight = 0;
  g->in_flight_bytes = 0;
  g->waiting_since_ms = 0;
}

/* Opens and joins; what must wait is tried again by the pump. */
static void
group_open (struct corosync_group *g)
{
  struct corosync_engine *e = g->e;
  cpg_model_v1_data_t model = { .model = CPG_MODEL_V1,
                                .cpg_deliver_fn = on_deliver,
                                .cpg_confchg_fn = on_confchg,
                                .cpg_totem_confchg_fn = on_totem,
                                .flags = CPG_MODEL_V1_DELIVER_INITIAL_TOTEM_CONF };
  unsigned node = 0;
  cs_error_t err;

  if (!g->open) {
    err = cpg_model_initialize (&g->handle, CPG_MODEL_V1, (cpg_model_data_t *) &model, g);
    if (err == CS_ERR_TRY_AGAIN) {
      pump_arm (e, COROSYNC_RETRY_MAX_MS);
      return;
    }
    if (err != CS_OK) {
      engine_break (e, "cpg_initialize", err);
      return;
    }
    g->open = true;
    g->fd = -1;
    err = cpg_local_get (g->handle, &node);
    if (err == CS_OK && !corosync_cmap_is_self (&e->cmap, node, e->node_name, !e->told_name)) {
      e->told_name = true;
      err = CS_ERR_NAME_NOT_FOUND;
    }
    if (err == CS_OK)
      err = cpg_fd_get (g->handle, &g->fd);
    if (err != CS_OK) {
      engine_break (e, "cpg_local_get", err);
      return;
    }
    e->base.node_id = corosync_cmap_id (&e->cmap, node);
    cpg_view_init (&g->view, (struct cpg_proc){ .node = node, .pid = (uint32_t) getpid () },
                   e->counts_quorum);
    if (e->quorum_known)
      cpg_view_quorum (&g->view, e->quorum_ring, e->stats.quorate);
    if (qb_loop_poll_add (e->loop, QB_LOOP_MED, g->fd, POLLIN, g, group_on_fd) != 0) {
      g->fd = -1;
      engine_break (e, "polling", CS_ERR_NO_RESOURCES);
      return;
    }
    g->armed = true;
  }
  err = cpg_join (g->handle, &g->cpg_name);
  if (err == CS_ERR_TRY_AGAIN || err == CS_ERR_BUSY || err == CS_ERR_EXIST) {
    pump_arm (e, COROSYNC_RETRY_MAX_MS);
    return;
  }
  if (err != CS_OK) {
    engine_break (e, "cpg_join", err);
    return;
  }
  g->joined = true;
}

static void
engine_close (struct corosync_engine *e)
{
  for (unsigned i = 0; i < ENGINE_MAX_GROUPS; i++) {
    group_close (&e->groups[i]);
    if (e->groups[i].leaving)
      memset (&e->groups[i], 0, sizeof e->groups[i]);
  }
  if (e->quorum_open) {
    if (e->quorum_fd >= 0)
      qb_loop_poll_del (e->loop, e->quorum_fd);
    quorum_finalize (e->quorum);
  }
  corosync_cmap_close (&e->cmap);
  e->quorum_open = e->quorum_known = false;
  e->connected = e->stats.connected = e->stats.quorate = false;
}

static cs_error_t
engine_open (struct corosync_engine *e)
{
  quorum_model_v1_data_t model = { .model = QUORUM_MODEL_V1, .quorum_notify_fn = on_quorum };
  uint32_t type = QUORUM_FREE;
  cs_error_t err;

  e->quorum_fd = -1;
  err = quorum_model_initialize (&e->quorum, QUORUM_MODEL_V1, (quorum_model_data_t *) &model, &type,
                                 e);
  if (err != CS_OK)
    return err;
  e->quorum_open = true;
  e->counts_quorum = type == QUORUM_SET;
  err = quorum_trackstart (e->quorum, CS_TRACK_CURRENT | CS_TRACK_CHANGES);
  if (err == CS_OK)
    err = quorum_fd_get (e->quorum, &e->quorum_fd);
  if (err == CS_OK
      && qb_loop_poll_add (e->loop, QB_LOOP_MED, e->quorum_fd, POLLIN, e, quorum_on_fd) != 0) {
    e->quorum_fd = -1;
    err = CS_ERR_NO_RESOURCES;
  }
  if (err == CS_OK)
    err = corosync_cmap_open (&e->cmap);
  return err;
}

static void
engine_connect (struct corosync_engine *e)
{
  cs_error_t err = engine_open (e);

  if (err != CS_OK) {
    engine_close (e);
    if (!e->told_down) {
      char reason[CRG_REASON_MAX + 1];

      snprintf (reason, sizeof reason,
                "corosync can't be reached (%s): start it, or see its log; trying again",
                cs_strerror (err));
      e->told_down = true;
      e->base.cb.down (e->base.opaque, reason);
    }
    retry_arm (e, e->retry_ms);
    e->retry_ms = MIN (e->retry_ms * 2, COROSYNC_RECONNECT_MAX_MS);
    return;
  }
  e->connected = e->stats.connected = true;
  e->stats.connects++;
  for (unsigned i = 0; i < ENGINE_MAX_GROUPS && !e->broken; i++)
    if (e->groups[i].used && !e->groups[i].leaving)
      group_open (&e->groups[i]);
  if (e->broken)
    return;
  qb_log (LOG_NOTICE, "corosync: connected; token %u ms, consensus %u ms%s", e->cmap.token_ms,
          e->cmap.consensus_ms, e->counts_quorum ? "" : "; it runs without a quorum provider");
  e->told_down = e->told_name = false;
  e->base.cb.up (e->base.opaque);
}

static void
on_retry (void *data)
{
  struct corosync_engine *e = data;

  e->retry_set = false;
  if (e->broken) {
    bool was_told = e->told_down;
    char reason[sizeof e->broken_why];

    memcpy (reason, e->broken_why, sizeof reason);
    engine_close (e);
    e->broken = false;
    if (!was_told) {
      e->told_down = true;
      e->base.cb.down (e->base.opaque, reason);
    }
    /* It may have come up and broken again at once: keep the interval. */
    retry_arm (e, e->retry_ms);
    e->retry_ms = MIN (e->retry_ms * 2, COROSYNC_RECONNECT_MAX_MS);
    return;
  }
  if (!e->connected)
    engine_connect (e);
}

static void
retry_arm (struct corosync_engine *e, unsigned ms)
{
  if (e->retry_set)
    qb_loop_timer_del (e->loop, e->retry_timer);
  e->retry_set = qb_loop_timer_add (e->loop, QB_LOOP_MED, (uint64_t) ms * 1000000, e, on_retry,
                                    &e->retry_timer)
                 == 0;
  if (!e->retry_set)
    qb_log (LOG_ERR, "corosync: no timer; crgd will not connect again");
}

static void
on_pump (void *data)
{
  struct corosync_engine *e = data;
  uint64_t now = clock_boottime_ms ();

  e->pump_set = false;
  /* First, since one that was left may be joined again already. */
  for (unsigned i = 0; i < ENGINE_MAX_GROUPS; i++)
    if (e->groups[i].leaving) {
      group_close (&e->groups[i]);
      memset (&e->groups[i], 0, sizeof e->groups[i]);
    }
  for (unsigned i = 0; i < ENGINE_MAX_GROUPS && e->connected && !e->broken; i++) {
    struct corosync_group *g = &e->groups[i];

    if (!g->used)
      continue;
    if (!g->joined)
      group_open (g);
    if (g->waiting_since_ms && now - g->waiting_since_ms >= COROSYNC_QUORUM_WAIT_MS) {
      engine_break (e, "votequorum doesn't report the present ring", CS_ERR_TIMEOUT);
      break;
    }
    group_settle (g);
  }
}

static void
pump_arm (struct corosync_engine *e, unsigned ms)
{
  uint64_t due_ms = clock_boottime_ms () + ms;

  if (e->pump_set) {
    if (e->pump_due_ms <= due_ms)
      return;
    qb_loop_timer_del (e->loop, e->pump_timer);
  }
  e->pump_due_ms = due_ms;
  e->pump_set
    = qb_loop_timer_add (e->loop, QB_LOOP_MED, (uint64_t) ms * 1000000, e, on_pump, &e->pump_timer)
      == 0;
}

/* ------------------------------------------------------------- the interface */

static int
corosync_join (struct engine *base, const char *name)
{
  struct corosync_engine *e = engine_of (base);
  struct corosync_group *g = NULL;
  int len;

  if (strlen (name) == 0 || strlen (name) > CRG_NAME_MAX)
    return -EINVAL;
  if (group_find (e, name))
    return -EEXIST;
  for (unsigned i = 0; i < ENGINE_MAX_GROUPS && g == NULL; i++)
    if (!e->groups[i].used)
      g = &e->groups[i];
  if (g == NULL)
    return -ENOSPC;
  memset (g, 0, sizeof *g);
  g->e = e;
  g->fd = -1;
  g->next_seq = 1;
  cpg_queue_init (&g->out);
  memcpy (g->name, name, strlen (name) + 1);
  len = snprintf (g->cpg_name.value, sizeof g->cpg_name.value, "%s/%s", e->prefix, name);
  if (len < 0 || (size_t) len >= sizeof g->cpg_name.value)
    return -ENAMETOOLONG;
  g->cpg_name.length = (uint32_t) len;
  g->used = true;
  pump_arm (e, 0);
  return 0;
}

/* May be called from a callback, so the handle is closed by the pump. */
static int
corosync_leave (struct engine *base, const char *name)
{
  struct corosync_engine *e = engine_of (base);
  struct corosync_group *g = group_find (e, name);

  if (g == NULL)
    return -ENOENT;
  group_pump (g); /* what can still go */
  if (!g->open) {
    memset (g, 0, sizeof *g);
    return 0;
  }
  g->leaving = true;
  pump_arm (e, 0);
  return 0;
}

static int
corosync_mcast (struct engine *base, const char *name, const uint8_t *buf, size_t len)
{
  struct corosync_engine *e = engine_of (base);
  struct corosync_group *g = group_find (e, name);
  int r;

  if (g == NULL)
    return -ENOENT;
  if (g->view.id == 0 || !g->joined || e->broken)
    return -ENOTCONN;
  r = cpg_queue_put_message (&g->out, g->view.id, g->next_seq, buf, len);
  if (r < 0)
    return r;
  g->next_seq++;
  group_pump (g);
  return 0;
}

static unsigned
corosync_detection_ms (struct engine *base)
{
  struct corosync_engine *e = engine_of (base);

  if (e->cmap.token_ms == 0)
    return ENGINE_DETECTION_UNKNOWN_MS;
  return e->cmap.token_ms + e->cmap.consensus_ms;
}

static void
corosync_destroy (struct engine *base)
{
  struct corosync_engine *e = engine_of (base);

  for (unsigned i = 0; i < ENGINE_MAX_GROUPS; i++)
    if (e->groups[i].used && !e->groups[i].leaving)
      group_pump (&e->groups[i]);
  engine_close (e);
  if (e->retry_set)
    qb_loop_timer_del (e->loop, e->retry_timer);
  if (e->pump_set)
    qb_loop_timer_del (e->loop, e->pump_timer);
  free (e);
}

static const struct engine_ops corosync_ops = {
  .name = "corosync",
  .join = corosync_join,
  .leave = corosync_leave,
  .mcast = corosync_mcast,
  .detection_ms = corosync_detection_ms,
  .destroy = corosync_destroy,
};

struct engine *
engine_corosync_new (struct qb_loop *loop, const char *prefix, const char *node_name,
                     engine_corosync_id_fn *id_of, const struct engine_callbacks *cb, void *opaque)
{
  struct corosync_engine *e;

  if (prefix == NULL || prefix[0] == '\0')
    prefix = PREFIX_DEFAULT;
  if (node_name && strlen (node_name) > CRG_NAME_MAX)
    return NULL;
  if (strlen (prefix) > COROSYNC_PREFIX_MAX) {
    qb_log (LOG_ERR, "the group prefix '%s' is longer than %d characters", prefix,
            COROSYNC_PREFIX_MAX);
    return NULL;
  }
  e = calloc (1, sizeof *e);
  if (e == NULL) {
    qb_log (LOG_ERR, "corosync: out of memory");
    return NULL;
  }
  e->base.ops = &corosync_ops;
  e->base.cb = *cb;
  e->base.opaque = opaque;
  if (node_name && id_of) {
    memcpy (e->node_name, node_name, strlen (node_name) + 1);
    e->cmap.id_of = id_of;
    e->base.node_id = id_of (node_name);
  }
  e->loop = loop;
  memcpy (e->prefix, prefix, strlen (prefix) + 1);
  e->cmap.loop = loop;
  e->cmap.broken = engine_break_opaque;
  e->cmap.opaque = e;
  e->retry_ms = COROSYNC_RECONNECT_MIN_MS;
  e->rate_at_ms = clock_boottime_ms ();
  e->rate_left = COROSYNC_RATE_BURST;
  e->pump_ms = 1;
  retry_arm (e, 0);
  return &e->base;
}

void
engine_corosync_stats (const struct engine *base, struct engine_corosync_stats *out)
{
  const struct corosync_engine *e
    = (const struct corosync_engine *) ((const char *) base
                                        - offsetof (struct corosync_engine, base));

  *out = e->stats;
  out->token_ms = e->cmap.token_ms;
  out->consensus_ms = e->cmap.consensus_ms;
}
