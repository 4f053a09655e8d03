/* SPDX-License-Identifier: BSD-3-Clause */
/* The control socket: JSON lines from one controller at a time.  A newer connection replaces the
 * older one, so that a restarted crgd finds its plugin again; what waits for an answer of the
 * group is then told again.  Only root and the user that runs the plugin may connect.
 */
#include "config.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/ident.h"
#include "plugin/engine_private.h"
#include "plugin/log.h"

#define CONTROL_VERSION 1

/* ---- answers and events ------------------------------------------------------------------- */

static void
drop (struct control_conn *c)
{
  if (c->fd == -1 || c->dead)
    return;
  c->dead = true;
  shutdown (c->fd, SHUT_RDWR); /* ends the poll */
  if (c->e->control.current == c)
    c->e->control.current = NULL;
}

static void
put (struct engine *e, struct control_conn *c, json_t *obj)
{
  int r = obj && c && !c->dead ? jsonl_writer_put (&c->out, obj) : 0;

  json_decref (obj);
  if (r == 0 && c && !c->dead)
    r = jsonl_writer_flush (&c->out, c->fd);
  if (r < 0) {
    log_line ("controller: %s; connection closed", strerror (-r));
    drop (c);
  }
}

void
control_event (struct engine *e, json_t *event)
{
  put (e, e->control.current, event);
}

/* serial 0: the present controller; else only if it is still that one. */
static struct control_conn *
addressee (struct engine *e, uint32_t serial)
{
  struct control_conn *c = e->control.current;

  return c && (serial == 0 || c->serial == serial) ? c : NULL;
}

void
control_ok (struct engine *e, uint32_t serial, json_int_t id, json_t *fields)
{
  json_t *answer = json_pack ("{s:I, s:b}", "id", id, "ok", 1);

  if (fields)
    json_object_update (answer, fields);
  json_decref (fields);
  put (e, addressee (e, serial), answer);
}

void
control_error (struct engine *e, uint32_t serial, json_int_t id, const char *code, const char *fmt, ...)
{
  char text[512];
  va_list args;

  va_start (args, fmt);
  vsnprintf (text, sizeof text, fmt, args);
  va_end (args);
  log_line ("command refused: %s", text);
  put (e, addressee (e, serial), json_pack ("{s:I, s:b, s:s, s:o}", "id", id, "ok", 0, "code", code, "error", jsonl_string (text)));
}

/* ---- status ------------------------------------------------------------------------------- */

static json_t *
status_links (struct engine *e)
{
  json_t *links = json_array ();

  for (unsigned s = 0; s < e->rec.n_sites && e->prod.on; s++) {
    struct repl_site_status st;

    if (s == e->site)
      continue;
    repl_site_status (e->prod.core, s, e->now_ms, &st);
    json_array_append_new (
      links, json_pack ("{s:i, s:s, s:s, s:s, s:o, s:o, s:b, s:b, s:b, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "site", (int) s,
                        "name", e->rec.site[s], "node", e->prod.sites[s].node, "state", repl_site_state_name (st.state),
                        "reason", jsonl_string (st.reason), "last_error", jsonl_string (e->prod.sites[s].why), "in_set", st.in_set, "entering", st.entering, "yields", st.yields,
                        "dirty_bytes", (json_int_t) st.dirty_bytes, "resync_sent_bytes", (json_int_t) st.resync_bytes,
                        "resync_equal_bytes", (json_int_t) st.equal_bytes,
                        "resync_done_bytes", (json_int_t) st.done_bytes,
                        "resync_total_bytes", (json_int_t) st.total_bytes, "rate_bytes_s", (json_int_t) st.rate_bytes_s,
                        "eta_s", st.eta_s == UINT64_MAX ? (json_int_t) -1 : (json_int_t) st.eta_s,
                        "lag_ms", (json_int_t) st.lag_ms, "since_ms", (json_int_t) (e->now_ms - MIN (st.since_ms, e->now_ms))));
  }
  return links;
}

static void
add_wait (json_t *waits, const char *owner, const char *reason, uint64_t age_ms, unsigned requests)
{
  json_array_append_new (waits, json_pack ("{s:s, s:o, s:I, s:i}", "owner", owner, "reason", jsonl_string (reason), "age_ms",
                                           (json_int_t) age_ms, "requests", (int) requests));
}

/* What the oldest operation of production waits for here, if it does. */
static void
wait_of_copy (struct engine *e, json_t *waits)
{
  const uint64_t age_ms = e->now_ms - MIN (e->copyside.same_ms, e->now_ms);
  struct copy_status st;

  copy_status (e->copyside.core, &st);
  if (st.ops == 0 || age_ms < REPL_TICK_MS)
    return;
  if (e->ia->p.snapshot && snapshot_state (e->snapshot) == SNAP_IS_MAKING)
    add_wait (waits, "snapshot", "what it holds is being kept before it is resynchronised", age_ms, st.ops);
  else if (st.hot_full)
    add_wait (waits, "mark", "as many regions are hot as it can mark: production has to say what is stable", age_ms,
              st.hot_wait);
  else if (st.hot_wait > 0)
    add_wait (waits, "mark", "regions are being marked hot on its store", age_ms, st.hot_wait);
  else
    add_wait (waits, "store", "its store has not answered", age_ms, st.ops);
}

static json_t *
status_waits (struct engine *e)
{
  static const char *const owners[] = { [RW_STORE] = "store", [RW_COPY] = "copy", [RW_LEASE] = "lease", [RW_HOLD] = "hold",
                                        [RW_RANGE] = "range", [RW_FAILED] = "failed", [RW_MARK] = "mark", [RW_EQUAL] = "equal" };
  json_t *waits = json_array ();
  struct repl_wait w[REPL_MAX_WAITS];
  unsigned n = e->prod.on ? repl_waits (e->prod.core, e->now_ms, w) : 0;
  uint64_t age_ms;
  uint32_t stuck;

  for (unsigned i = 0; i < n; i++) {
    char owner[CRG_NAME_MAX + 16], reason[CRG_REASON_MAX + CRG_NAME_MAX + 64];
    struct repl_site_status st = { .lost = false };

    if (w[i].owner == RW_COPY) {
      repl_site_status (e->prod.core, w[i].site, e->now_ms, &st);
      snprintf (owner, sizeof owner, "copy %s", e->rec.site[w[i].site]);
    }
    else
      snprintf (owner, sizeof owner, "%s", owners[w[i].owner]);
    snprintf (reason, sizeof reason, "%s%s%s%s", w[i].reason ? w[i].reason : "",
              st.lost ? "; the group is asked to remove it from the in-sync set" : "",
              w[i].owner == RW_EQUAL ? ": copy " : "", w[i].owner == RW_EQUAL ? e->rec.site[w[i].site] : "");
    add_wait (waits, owner, reason, w[i].age_ms, w[i].requests);
  }
  /* What workers do themselves, and those that have not found their way to the core yet. */
  stuck = gate_stuck (&e->ia->gate, e->now_ms, REPL_TICK_MS, &age_ms);
  if (stuck > 0)
    add_wait (waits, "store", "the store has not answered", age_ms, stuck);
  stuck = atomic_load (&e->slot_waiters);
  if (stuck > 0)
    add_wait (waits, "slots", "as many requests as there is room for are under way", e->now_ms - e->slots_full_ms, stuck);
  if (e->copyside.on)
    wait_of_copy (e, waits);
  if (e->task.kind != TASK_NONE && e->task.kind != TASK_HOLD)
    add_wait (waits, "role", "a change of role is under way", e->now_ms - e->task.since_ms, 0);
  return waits;
}

static json_t *
status_snapshot (struct engine *e)
{
  static const char *const states[] = { "none", "making", "kept", "failed" };

  return json_pack ("{s:s, s:o}", "state", e->ia->p.snapshot ? states[snapshot_state (e->snapshot)] : "off", "text",
                    jsonl_string (e->ia->p.snapshot ? snapshot_text (e->snapshot) : ""));
}

static json_t *
status_mirror (struct engine *e)
{
  struct copy_status st;
  const char *from = "";

  if (!e->copyside.on)
    return json_null ();
  copy_status (e->copyside.core, &st);
  for (unsigned i = CRG_MAX_SITES; i < RING_FILES; i++)
    if (e->links[i].state == LK_UP && e->links[i].spoken)
      from = tlslink_peer (e->links[i].tls);
  return json_pack ("{s:b, s:s, s:b, s:b, s:b, s:I, s:I, s:I, s:I, s:I, s:I, s:o, s:o, s:o}", "linked", st.linked, "from", from,
                    "failed", st.failed, "unusable", st.unusable, "in_set", st.in_set, "since", (json_int_t) st.since,
                    "frames", (json_int_t) st.frames, "bytes", (json_int_t) st.bytes, "acks", (json_int_t) st.acks,
                    "refused", (json_int_t) st.refused, "ops", (json_int_t) st.ops, "reason", jsonl_string (st.reason ? st.reason : ""),
                    "last_refusal", jsonl_string (e->copyside.refused), "snapshot", status_snapshot (e));
}

static json_t *
status_hot (struct engine *e)
{
  const struct mark *m = &e->mapw.mark;
  uint64_t bits = 0;

  if (!e->mapw.on)
    return json_null ();
  for (uint64_t i = hot_next (&m->hot, 0); i < m->hot.n_bits; i = hot_next (&m->hot, i + 1))
    bits++;
  return json_pack ("{s:I, s:I, s:i, s:I, s:I, s:I, s:I, s:b, s:I}", "bytes", (json_int_t) (bits * m->hot.bit_size), "region_bytes",
                    (json_int_t) m->hot.region_size, "max_regions", (int) m->hot.max_entries, "marks",
                    (json_int_t) m->hot.marks, "waits", (json_int_t) m->hot.waits, "flushes", (json_int_t) m->stages, "blocks_written",
                    (json_int_t) m->blocks_written, "guarded", atomic_load (&e->ia->gate.guarded),
                    "resync_rate_bytes_s", (json_int_t) e->meta.sb.resync_rate);
}

static json_t *
status (struct engine *e)
{
  static const char *const roles[] = { "none", "mirror", "production", "detached" };
  char lineage[IDENT_ID_TEXT_LEN], boot[IDENT_ID_TEXT_LEN];
  const struct superblock *sb = &e->meta.sb;
  const char *hold_reason = NULL;
  bool held = e->prod.on && repl_is_held (e->prod.core, &hold_reason);
  bool open = e->ia->store.fd != -1;
  json_t *s;

  ident_id_to_text (e->ia->p.lineage, lineage);
  ident_id_to_text (e->boot_id, boot);
  s = json_pack ("{s:s, s:I, s:I, s:I, s:s, s:b, s:b, s:o, s:I, s:i, s:i, s:i, s:I, s:s, s:I}", "role", roles[e->role],
                 "tenure", (json_int_t) e->rec.tenure, "generation", (json_int_t) e->rec.generation,
                 "loss", (json_int_t) e->rec.loss, "lineage", lineage, "serving",
                 e->role == ROLE_PRODUCTION || e->role == ROLE_DETACHED,
                 "held", held, "hold_reason", jsonl_string (held && hold_reason ? hold_reason : ""),
                 "lease_left_ms", (json_int_t) (e->lease_until_ms > e->now_ms ? e->lease_until_ms - e->now_ms : 0),
                 "clients", (int) atomic_load (&e->ia->clients),
                 "inflight", (int) (e->prod.on ? repl_inflight (e->prod.core) : 0) + (int) gate_inside (&e->ia->gate),
                 "pid", (int) getpid (), "size", (json_int_t) e->ia->p.size, "node", e->ia->p.node,
                 "session", (json_int_t) (e->session >> 1));
  json_object_set_new (s, "iasp", json_string (e->ia->p.name));
  json_object_set_new (s, "site", json_string (e->ia->p.site));
  json_object_set_new (s, "port", json_integer (e->copyside.port));
  json_object_set_new (s, "resync_share", json_integer (e->ia->p.resync_share));
  json_object_set_new (s, "production", json_string (e->production));
  json_object_set_new (
    s, "store",
    open ? json_pack ("{s:s, s:s, s:I, s:s, s:I, s:I, s:I, s:b, s:b, s:b, s:b, s:b, s:i}", "path", e->ia->p.store, "meta",
                      e->ia->p.meta, "size", (json_int_t) e->ia->store.own_bytes, "boot_id", boot, "generation", (json_int_t) sb->generation,
                      "tenure", (json_int_t) sb->tenure, "since", (json_int_t) sb->since, "clean", e->judge.was_clean, "restarted",
                      e->judge.restarted, "direct", e->ia->store.direct, "unusable", (sb->flags & SUPER_F_UNUSABLE) != 0,
                      "failed", atomic_load (&e->ia->store.failed) != 0, "sites", (int) e->rec.n_sites)
         : json_null ());
  if (open && e->mapw.on && e->mapw.mark.written.map)
    json_object_set_new (json_object_get (s, "store"), "written", json_integer ((json_int_t) mark_written_bytes (&e->mapw.mark)));
  json_object_set_new (s, "hot", status_hot (e));
  json_object_set_new (s, "waits", status_waits (e));
  json_object_set_new (s, "links", status_links (e));
  json_object_set_new (s, "verify", prodverify_status (e));
  json_object_set_new (s, "mirror", status_mirror (e));
  if (e->prod.on) {
    const struct repl_counters *c = repl_counters (e->prod.core);

    json_object_set_new (s, "counters",
                         json_pack ("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "requests", (json_int_t) c->requests,
                                    "completed", (json_int_t) c->completed, "errors", (json_int_t) c->errors, "frames",
                                    (json_int_t) c->frames, "resync_blocks", (json_int_t) c->resync_blocks, "hole_blocks",
                                    (json_int_t) c->hole_blocks, "illegal", (json_int_t) c->illegal, "copies_lost",
                                    (json_int_t) c->copies_lost, "copies_back", (json_int_t) c->copies_back, "copies_entered",
                                    (json_int_t) c->copies_entered));
  }
  return s;
}

/* ---- commands ----------------------------------------------------------------------------- */

static bool
get_site (struct engine *e, json_t *request, json_int_t id, unsigned *site)
{
  json_t *j = json_object_get (request, "site");

  if (e->role != ROLE_PRODUCTION) {
    control_error (e, 0, id, "role", "the plugin is not production");
    return false;
  }
  if (!json_is_integer (j) || json_integer_value (j) < 0 || json_integer_value (j) >= e->rec.n_sites
      || json_integer_value (j) == e->site) {
    control_error (e, 0, id, "usage", "site: not the index of another site of the record");
    return false;
  }
  *site = (unsigned) json_integer_value (j);
  return true;
}

static void
cmd_mirror (struct engine *e, json_t *request, json_int_t id)
{
  const char *node = json_string_value (json_object_get (request, "node"));
  const char *sync = json_string_value (json_object_get (request, "sync"));
  json_t *addresses = json_object_get (request, "addresses"), *a;
  json_int_t port = json_integer_value (json_object_get (request, "port"));
  struct prod_site *x;
  unsigned site, kind;
  size_t i;

  if (!get_site (e, request, id, &site))
    return;
  if (!node || !ident_name_is_valid (node) || port < 1 || port > 65535 || !json_is_array (addresses)
      || json_array_size (addresses) == 0 || json_array_size (addresses) > CRG_MAX_ADDRS) {
    control_error (e, 0, id, "usage", "mirror: node, addresses (1 to %d) or port is missing or wrong", CRG_MAX_ADDRS);
    return;
  }
  if (!e->tls) {
    control_error (e, 0, id, "usage", "mirror: this plugin was started without listen= and tls-*=");
    return;
  }
  kind = sync && strcmp (sync, "none") == 0 ? RS_NONE : sync && strcmp (sync, "partial") == 0 ? RS_PARTIAL : RS_FULL;
  x = &e->prod.sites[site];
  x->n_addresses = 0;
  json_array_foreach (addresses, i, a) {
    const char *text = json_string_value (a);

    if (text && strlen (text) <= CRG_ADDR_MAX)
      snprintf (x->address[x->n_addresses++], CRG_ADDR_MAX + 1, "%s", text);
  }
  if (x->n_addresses == 0) {
    control_error (e, 0, id, "usage", "mirror: no usable address");
    return;
  }
  x->port = (uint16_t) port;
  control_ok (e, 0, id, NULL);
  prod_mirror (e, site, node, kind);
}

static void
cmd_unmirror (struct engine *e, json_t *request, json_int_t id)
{
  const char *reason = json_string_value (json_object_get (request, "reason"));
  unsigned site;

  if (!get_site (e, request, id, &site))
    return;
  control_ok (e, 0, id, NULL);
  prod_unmirror (e, site, reason ? reason : "the group says that nobody hosts this copy");
}

static void
cmd_lease (struct engine *e, json_t *request, json_int_t id)
{
  json_t *until = json_object_get (request, "until_ms");

  if (!json_is_integer (until) || json_integer_value (until) < 0) {
    control_error (e, 0, id, "usage", "lease: until_ms is missing");
    return;
  }
  if (e->role != ROLE_PRODUCTION) {
    control_error (e, 0, id, "role", "the plugin is not production");
    return;
  }
  e->lease_until_ms = (uint64_t) json_integer_value (until);
  prod_lease (e);
  control_ok (e, 0, id, NULL);
}

static uint32_t
wait_ms_of (json_t *request, uint32_t otherwise)
{
  json_t *j = json_object_get (request, "wait_ms");

  if (!json_is_integer (j) || json_integer_value (j) < 0)
    return otherwise;
  return (uint32_t) MIN (json_integer_value (j), (json_int_t) 600000);
}

static void
command (struct engine *e, json_t *request)
{
  const char *cmd = json_string_value (json_object_get (request, "cmd"));
  json_int_t id = json_integer_value (json_object_get (request, "id"));
  json_int_t v = json_integer_value (json_object_get (request, "v"));

  if (v != CONTROL_VERSION) {
    control_error (e, 0, id, "version", "v: this plugin speaks version %d of the control protocol", CONTROL_VERSION);
    return;
  }
  if (!cmd)
    control_error (e, 0, id, "usage", "cmd is missing");
  else if (strcmp (cmd, "status") == 0)
    control_ok (e, 0, id, status (e));
  else if (strcmp (cmd, "role") == 0)
    role_command (e, request, id);
  else if (strcmp (cmd, "record") == 0)
    role_record_command (e, request, id);
  else if (strcmp (cmd, "lease") == 0)
    cmd_lease (e, request, id);
  else if (strcmp (cmd, "mirror") == 0)
    cmd_mirror (e, request, id);
  else if (strcmp (cmd, "verify") == 0)
    prodverify_command (e, request, id);
  else if (strcmp (cmd, "unmirror") == 0)
    cmd_unmirror (e, request, id);
  else if (strcmp (cmd, "hold") == 0 || strcmp (cmd, "quit") == 0) {
    if (e->task.kind != TASK_NONE && e->task.kind != TASK_HOLD)
      control_error (e, 0, id, "busy", "a change of role is under way");
    else
      role_task (e, cmd[0] == 'h' ? TASK_HOLD : TASK_QUIT, NULL, id, wait_ms_of (request, 5000));
  }
  else if (strcmp (cmd, "resume") == 0) {
    /* What is given up is drained and written as released: nothing is written to it any more. */
    if (e->task.kind != TASK_NONE && e->task.kind != TASK_HOLD)
      control_error (e, 0, id, "busy", "a change of role is under way");
    else {
      role_resume (e);
      control_ok (e, 0, id, NULL);
    }
  }
  else
    control_error (e, 0, id, "usage", "unknown command '%s'", cmd);
}

/* ---- connections -------------------------------------------------------------------------- */

static void
arm (struct engine *e, struct ring_op *op, int fd, unsigned events)
{
  struct io_uring_sqe *sqe = ring_sqe (&e->ring);

  io_uring_prep_poll_add (sqe, fd, events);
  ring_own (&e->ring, sqe, op);
}

static void
conn_done (struct ring_op *op, int res)
{
  struct control_conn *c = container_of (op, struct control_conn, op);
  struct engine *e = c->e;
  json_error_t error;
  json_t *request;
  ssize_t n = 0;
  int r = 0;

  c->polling = false;
  while (!c->dead) {
    n = jsonl_reader_fill (&c->in, c->fd);
    while (!c->dead && (r = jsonl_reader_next (&c->in, &request, &error)) == 1) {
      command (e, request);
      json_decref (request);
    }
    if (r < 0 && !c->dead) {
      control_error (e, c->serial, 0, "usage", "not a line of JSON: %s", error.text);
      drop (c);
    }
    if (n == -EAGAIN || n == -EINTR)
      break;
    if (n <= 0)
      drop (c);
  }
  if (c->dead) {
    if (e->control.current == c)
      e->control.current = NULL;
    close (c->fd);
    c->fd = -1;
    jsonl_reader_free (&c->in);
    jsonl_writer_free (&c->out);
  }
}

static void
listen_done (struct ring_op *op, int res)
{
  struct control *ctl = container_of (op, struct control, op);
  struct engine *e = container_of (ctl, struct engine, control);
  int fd = jsonl_accept (ctl->fd);
  struct control_conn *c = NULL;
  uid_t uid = (uid_t) -1;

  ctl->polling = fd >= 0;
  if (fd < 0)
    return; /* armed again by the next tick: no descriptor is left, and whoever waits makes it ready at once */
  arm (e, &ctl->op, ctl->fd, POLLIN);
  if (jsonl_peer (fd, NULL, &uid, NULL) < 0 || (uid != 0 && uid != geteuid ())) {
    log_line ("controller: user %u may not control this plugin", (unsigned) uid);
    close (fd);
    return;
  }
  for (unsigned i = 0; i < CONTROL_MAX_CONNS && !c; i++)
    if (ctl->conns[i].fd == -1)
      c = &ctl->conns[i];
  if (!c) {
    log_line ("controller: too many connections at once");
    close (fd);
    return;
  }
  if (ctl->current)
    drop (ctl->current);
  jsonl_reader_init (&c->in, 0);
  jsonl_writer_init (&c->out, 0);
  c->fd = fd;
  c->dead = false;
  c->serial = ++ctl->serial;
  ctl->current = c;
  c->polling = true;
  arm (e, &c->op, c->fd, POLLIN);
  prod_tell_levels (e);
  if (e->store_told)
    control_event (e, json_pack ("{s:s, s:s}", "event", "store-failed", "reason", "the store failed earlier"));
}

int
control_start (struct engine *e, char *err, size_t errlen)
{
  struct control *ctl = &e->control;

  for (unsigned i = 0; i < CONTROL_MAX_CONNS; i++) {
    ctl->conns[i].fd = -1;
    ctl->conns[i].e = e;
    ctl->conns[i].op.done = conn_done;
  }
  ctl->op.done = listen_done;
  ctl->fd = jsonl_listen (e->ia->p.control, 0600);
  if (ctl->fd < 0) {
    snprintf (err, errlen, "control=%s", e->ia->p.control);
    return ctl->fd;
  }
  control_tick (e);
  return 0;
}

void
control_stop (struct engine *e)
{
  struct control *ctl = &e->control;

  for (unsigned i = 0; i < CONTROL_MAX_CONNS; i++) {
    struct control_conn *c = &ctl->conns[i];

    if (c->fd == -1)
      continue;
    close (c->fd);
    jsonl_reader_free (&c->in);
    jsonl_writer_free (&c->out);
    c->fd = -1;
  }
  if (ctl->fd != -1) {
    close (ctl->fd);
    unlink (e->ia->p.control);
  }
}

void
control_tick (struct engine *e)
{
  struct control *ctl = &e->control;

  if (ctl->polling)
    return;
  ctl->polling = true;
  arm (e, &ctl->op, ctl->fd, POLLIN);
}

void
control_round (struct engine *e)
{
  for (unsigned i = 0; i < CONTROL_MAX_CONNS; i++) {
    struct control_conn *c = &e->control.conns[i];

    if (c->fd == -1)
      continue;
    if (!c->dead && jsonl_writer_pending (&c->out) && jsonl_writer_flush (&c->out, c->fd) < 0)
      drop (c);
    if (!c->polling) {
      c->polling = true;
      arm (e, &c->op, c->fd, POLLIN);
    }
  }
}
