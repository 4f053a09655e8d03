/* SPDX-License-Identifier: BSD-3-Clause */
/* Changes of role: opens the store (opening.c), starts one of the two sides, and takes them down
 * again: hold, drain, flush, a clean superblock, unlock.  What takes time is a task that moves on with
 * each round of the engine.  It must never let a client in before the superblock that names this
 * production is stable.
 */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/ident.h"
#include "plugin/engine_private.h"
#include "plugin/log.h"

/* A release waits so long for requests and copies before it goes on without a clean close. */
#define RELEASE_WAIT_MS 5000u
/* Longest wait that a command can ask for. */
#define MAX_WAIT_MS 600000u
/* After quit: time for the answers that were just given to leave the process. */
#define QUIT_GRACE_MS 200u

/* ---- the record in a command -------------------------------------------------------------- */

static bool
get_u64 (const json_t *obj, const char *key, uint64_t *v)
{
  const json_t *j = json_object_get (obj, key);

  if (!json_is_integer (j) || json_integer_value (j) < 0)
    return false;
  *v = (uint64_t) json_integer_value (j);
  return true;
}

static bool
get_name (const json_t *obj, const char *key, char to[CRG_NAME_MAX + 1], bool may_be_empty)
{
  const char *s = json_string_value (json_object_get (obj, key));

  to[0] = '\0';
  if (!s || (s[0] == '\0' && may_be_empty))
    return may_be_empty;
  if (!ident_name_is_valid (s))
    return false;
  snprintf (to, CRG_NAME_MAX + 1, "%s", s);
  return true;
}

/* NULL, or what is wrong. */
static const char *
read_record (const struct engine *e, const json_t *j, struct record *r)
{
  const json_t *sites = json_object_get (j, "sites"), *site, *past;
  const char *lineage = json_string_value (json_object_get (j, "lineage"));
  uint8_t id[CRG_ID_LEN];
  uint64_t v;
  size_t i;

  memset (r, 0, sizeof *r);
  if (!json_is_object (j) || !get_u64 (j, "generation", &r->generation) || !get_u64 (j, "tenure", &r->tenure)
      || !get_u64 (j, "loss", &r->loss) || !json_is_array (sites))
    return "record: generation, loss, tenure or sites is missing or no number";
  if (!lineage || ident_id_from_text (lineage, id) < 0)
    return "record: lineage is missing or no id";
  if (!ident_id_equal (id, e->ia->p.lineage))
    return "record: another lineage than this plugin's (C9)";
  json_array_foreach (json_object_get (j, "past_lineages"), i, past)
    if (i < CRG_MAX_PAST && ident_id_from_text (json_string_value (json_object_get (past, "id")) ?: "", r->past[i]) == 0
        && get_u64 (past, "generation", &r->past_generation[i]))
      r->n_past = (uint8_t) (i + 1);
    else
      return "record: past_lineages are too many, or have no id or generation";
  if (get_u64 (j, "production_site", &v))
    r->production_site = (uint8_t) MIN (v, (uint64_t) UINT8_MAX);
  else
    r->production_site = UINT8_MAX;
  if (json_array_size (sites) == 0 || json_array_size (sites) > CRG_MAX_SITES)
    return "record: too few or too many sites";
  json_array_foreach (sites, i, site) {
    uint64_t index = i;
    const char *fork;

    if (json_object_get (site, "index") && !get_u64 (site, "index", &index))
      return "record: a site's index is no number";
    if (index >= json_array_size (sites) || r->site[index][0] != '\0')
      return "record: the sites' indices are not 0, 1, 2 ...";
    if (!get_name (site, "name", r->site[index], false) || !get_name (site, "host", r->host[index], true))
      return "record: a site's name or host is no name";
    get_u64 (site, "since", &r->since[index]);
    if (json_is_true (json_object_get (site, "in_set")))
      r->in_set |= 1u << index;
    fork = json_string_value (json_object_get (site, "fork"));
    if (fork && strcmp (fork, "none") != 0) {
      r->fork |= 1u << index;
      if (strcmp (fork, "behind") != 0)
        r->diverged |= 1u << index;
    }
  }
  r->n_sites = (uint8_t) json_array_size (sites);
  return NULL;
}

static bool
own_site (const struct engine *e, const struct record *r, uint8_t *index)
{
  for (unsigned s = 0; s < r->n_sites; s++)
    if (strcmp (r->site[s], e->ia->p.site) == 0) {
      *index = (uint8_t) s;
      return true;
    }
  return false;
}

/* ---- starting ----------------------------------------------------------------------------- */

static json_t *
role_fields (const struct engine *e)
{
  char boot[IDENT_ID_TEXT_LEN];

  ident_id_to_text (e->boot_id, boot);
  return json_pack ("{s:I, s:s, s:I, s:b, s:b, s:b, s:i, s:i}", "size", (json_int_t) e->ia->p.size, "boot_id", boot,
                    "generation", (json_int_t) e->meta.sb.generation, "restarted", e->judge.restarted, "clean", e->judge.was_clean,
                    "unusable", (e->meta.sb.flags & SUPER_F_UNUSABLE) != 0, "port", (int) e->copyside.port,
                    "sites", (int) e->rec.n_sites);
}

static void
no_role (struct engine *e)
{
  mapw_close (e);
  opening_let_go (e);
  atomic_store (&e->ia->detached, false);
  atomic_store (&e->ia->read_only, false);
  e->role = ROLE_NONE;
  engine_set_open (e, false, "this node has no role for the IASP now; ask crgctl status");
}

static void
refuse_clients (struct engine *e)
{
  char refusal[CRG_REASON_MAX + 1];

  snprintf (refusal, sizeof refusal, "this node holds a mirror copy of %s; production is at %s", e->ia->p.name,
            e->production[0] ? e->production : "no node now");
  engine_set_open (e, false, refusal);
}

static void
start_mirror (struct engine *e, json_t *request, json_int_t id, const struct record *r, uint8_t site)
{
  char err[512];
  const char *code = opening_store (e, r, site, ROLE_MIRROR, request, err, sizeof err);

  if (code) {
    control_error (e, 0, id, code, "%s", err);
    return;
  }
  e->rec = *r;
  e->site = site;
  e->store_told = false;
  if (mapw_open (e, false, false, err, sizeof err) < 0 || opening_write_record (e, err, sizeof err) < 0
      || copyside_start (e, err, sizeof err) < 0) {
    no_role (e);
    control_error (e, 0, id, "store", "%s", err);
    return;
  }
  e->role = ROLE_MIRROR;
  refuse_clients (e);
  log_line ("mirror copy of site %s, tenure %llu, generation %llu%s%s", e->ia->p.site, (unsigned long long) e->rec.tenure,
            (unsigned long long) e->meta.sb.generation, e->judge.restarted ? ", restarted" : "",
            e->meta.sb.flags & SUPER_F_UNUSABLE ? ", to be filled" : "");
  control_ok (e, 0, id, role_fields (e));
}

/* The store is open, locked and checked.  serial: the controller that asked, which may be gone by now. */
static void
start_production (struct engine *e, json_t *request, uint32_t serial, json_int_t id, const struct record *r,
                  uint8_t site)
{
  const struct judge_start start = judge_starts (&e->judge, &e->meta.sb);
  uint32_t others = r->in_set & ~(1u << site);
  uint64_t lease_ms = 0;
  char err[512];

  e->rec = *r;
  e->site = site;
  e->store_told = false;
  get_u64 (request, "lease_until_ms", &lease_ms);
  e->lease_until_ms = lease_ms;
  if (mapw_open (e, true, start.forced, err, sizeof err) < 0 || opening_write_record (e, err, sizeof err) < 0
      || prod_start (e, start.equal, start.again, err, sizeof err) < 0) {
    no_role (e);
    control_error (e, serial, id, "store", "%s", err);
    return;
  }
  e->role = ROLE_PRODUCTION;
  e->forced = json_is_true (json_object_get (request, "forced"));
  snprintf (e->production, sizeof e->production, "%s", e->ia->p.node);
  gate_set (&e->ia->gate, r->n_sites > 1 ? GATE_ENGINE : GATE_FAST, false);
  engine_set_open (e, true, "");
  log_line ("production at %s, tenure %llu, generation %llu%s", e->ia->p.site, (unsigned long long) r->tenure,
            (unsigned long long) r->generation,
            start.equal || !others ? "" : ", after an unclean end: reads wait until the copies of the set are equal");
  control_ok (e, serial, id, role_fields (e));
}

/* R6: a fork, for clients of its own: no lease, no copies, and on its disk a fork before the first
 * of them comes.  What they write is tracked as if all copies were away. */
static void
start_detached (struct engine *e, json_t *request, json_int_t id, const struct record *r, uint8_t site)
{
  const char *export = json_string_value (json_object_get (request, "export"));
  bool read_only = export && strcmp (export, "read-only") == 0;
  const char *code;
  char err[512];

  if (!read_only && !(export && strcmp (export, "read-write") == 0)) {
    control_error (e, 0, id, "usage", "export: it must be read-only or read-write");
    return;
  }
  code = opening_store (e, r, site, ROLE_DETACHED, request, err, sizeof err);
  if (code) {
    control_error (e, 0, id, code, "%s", err);
    return;
  }
  e->rec = *r;
  e->site = site;
  e->store_told = false;
  e->lease_until_ms = UINT64_MAX;
  e->role = ROLE_DETACHED;
  if (mapw_open (e, true, false, err, sizeof err) < 0 || opening_write_record (e, err, sizeof err) < 0
      || (!read_only && e->mapw.on && prod_start (e, true, false, err, sizeof err) < 0)) {
    no_role (e);
    control_error (e, 0, id, "store", "%s", err);
    return;
  }
  atomic_store (&e->ia->detached, true);
  atomic_store (&e->ia->read_only, read_only);
  atomic_store (&e->ia->gate.lease_until_ms, UINT64_MAX);
  gate_set (&e->ia->gate, e->prod.on ? GATE_ENGINE : GATE_FAST, true);
  engine_set_open (e, true, "");
  log_line ("detached copy of site %s, exported %s, generation %llu%s", e->ia->p.site, export,
            (unsigned long long) e->meta.sb.generation, e->judge.restarted ? ", restarted" : "");
  control_ok (e, 0, id, role_fields (e));
}

static void
set_peers (struct engine *e, const json_t *request)
{
  const json_t *peers = json_object_get (request, "peers"), *peer;
  size_t i;

  if (!json_is_array (peers))
    return;
  e->copyside.n_peers = 0;
  json_array_foreach (peers, i, peer) {
    const char *name = json_string_value (peer);

    if (name && ident_name_is_valid (name) && e->copyside.n_peers < CRG_MAX_NODES)
      snprintf (e->copyside.peers[e->copyside.n_peers++], CRG_NAME_MAX + 1, "%s", name);
  }
}

void
role_command (struct engine *e, json_t *request, json_int_t id)
{
  const char *role = json_string_value (json_object_get (request, "role"));
  const char *bad, *code;
  struct record r;
  uint64_t tenure, wait_ms = RELEASE_WAIT_MS;
  uint8_t site;
  char err[512];

  if (!role) {
    control_error (e, 0, id, "usage", "role: it must be none, mirror, production or detached");
    return;
  }
  if (e->task.kind != TASK_NONE && e->task.kind != TASK_HOLD) {
    control_error (e, 0, id, "busy", "a change of role is under way");
    return;
  }
  get_u64 (request, "wait_ms", &wait_ms);
  if (strcmp (role, "none") == 0) {
    role_task (e, TASK_RELEASE, NULL, id, (uint32_t) MIN (wait_ms, (uint64_t) MAX_WAIT_MS));
    return;
  }
  if (strcmp (role, "mirror") != 0 && strcmp (role, "production") != 0 && strcmp (role, "detached") != 0) {
    control_error (e, 0, id, "usage", "role '%s': it must be none, mirror, production or detached", role);
    return;
  }
  bad = read_record (e, json_object_get (request, "record"), &r);
  if (!bad && get_u64 (request, "tenure", &tenure) && tenure != r.tenure)
    bad = "tenure: not that of the record";
  if (!bad && !own_site (e, &r, &site))
    bad = "record: it does not name this plugin's site";
  if (bad) {
    control_error (e, 0, id, "usage", "%s", bad);
    return;
  }
  set_peers (e, request);

  if (e->role == ROLE_DETACHED || (strcmp (role, "detached") == 0 && e->role != ROLE_NONE)) {
    control_error (e, 0, id, "role", "a copy is detached, and attached again, only by way of role none");
    return;
  }
  if (strcmp (role, "detached") == 0) {
    start_detached (e, request, id, &r, site);
    return;
  }
  if (strcmp (role, "mirror") == 0) {
    get_name (request, "production", e->production, true);
    if (e->role == ROLE_NONE)
      start_mirror (e, request, id, &r, site);
    else if (e->role == ROLE_MIRROR && r.tenure >= e->rec.tenure) {
      e->rec = r;
      copyside_record (e);
      refuse_clients (e);
      control_ok (e, 0, id, role_fields (e));
    }
    else
      control_error (e, 0, id, "role", "the plugin is %s now; take that role away first",
                     e->role == ROLE_PRODUCTION ? "production" : "a mirror of a newer tenure");
    return;
  }

  if (e->role == ROLE_MIRROR)
    role_task (e, TASK_PROMOTE, request, id, RELEASE_WAIT_MS);
  else if (e->role == ROLE_PRODUCTION) {
    if (r.tenure != e->rec.tenure) {
      control_error (e, 0, id, "role", "the plugin is production of tenure %llu; take that role away first",
                     (unsigned long long) e->rec.tenure);
      return;
    }
    role_record_command (e, request, id);
  }
  else {
    code = opening_store (e, &r, site, ROLE_PRODUCTION, request, err, sizeof err);
    if (code)
      control_error (e, 0, id, code, "%s", err);
    else
      start_production (e, request, 0, id, &r, site);
  }
}

void
role_record_command (struct engine *e, json_t *request, json_int_t id)
{
  struct record r;
  uint64_t seen = 0, lease_ms;
  const char *bad = read_record (e, json_object_get (request, "record"), &r);

  if (bad) {
    control_error (e, 0, id, "usage", "%s", bad);
    return;
  }
  if (e->role == ROLE_NONE) {
    control_error (e, 0, id, "role", "the plugin has no role");
    return;
  }
  if (r.tenure < e->rec.tenure || r.generation < e->rec.generation || r.n_sites != e->rec.n_sites
      || (e->role == ROLE_PRODUCTION && r.tenure != e->rec.tenure)) {
    control_error (e, 0, id, "stale", "the record is older than tenure %llu generation %llu, or of another production",
                   (unsigned long long) e->rec.tenure, (unsigned long long) e->rec.generation);
    return;
  }
  get_u64 (request, "seq", &seen);
  e->rec = r;
  if (e->role == ROLE_PRODUCTION) {
    if (get_u64 (request, "lease_until_ms", &lease_ms)) {
      e->lease_until_ms = lease_ms;
      prod_lease (e);
    }
    prod_record (e, seen);
  }
  else if (e->role == ROLE_MIRROR) {
    set_peers (e, request);
    if (json_object_get (request, "production"))
      get_name (request, "production", e->production, true);
    copyside_record (e);
    refuse_clients (e);
  }
  control_ok (e, 0, id, role_fields (e));
}

/* ---- tasks -------------------------------------------------------------------------------- */

static void
task_end (struct engine *e)
{
  json_decref (e->task.request);
  memset (&e->task, 0, sizeof e->task);
}

void
role_task (struct engine *e, enum task_kind kind, json_t *request, json_int_t id, uint32_t wait_ms)
{
  struct task *t = &e->task;

  if (t->kind == TASK_HOLD && !t->told)
    control_error (e, t->serial, t->id, "superseded", "another command came before everything was drained");
  task_end (e);
  t->kind = (uint8_t) kind;
  t->id = id;
  t->serial = e->control.current ? e->control.current->serial : 0;
  t->since_ms = e->now_ms;
  t->deadline_ms = e->now_ms + wait_ms;
  t->request = json_incref (request);
  t->phase = TP_STOP;
  if (e->role == ROLE_PRODUCTION || (e->role == ROLE_DETACHED && e->prod.on && kind != TASK_HOLD)) {
    if (atomic_load (&e->ia->gate.mode) == GATE_FAST) {
      gate_set (&e->ia->gate, GATE_ENGINE, false);
      e->fast_inside = true;
    }
    t->phase = e->fast_inside ? TP_FAST : TP_DRAIN;
    if (t->phase == TP_DRAIN)
      prod_hold (e, kind == TASK_HOLD ? "held by command" : "the role is being given up");
  }
  else if (e->role == ROLE_DETACHED && kind != TASK_HOLD) {
    t->clean = true;
    gate_set (&e->ia->gate, GATE_CLOSED, true);
    engine_set_open (e, false, "this node has no role for the IASP now; ask crgctl status");
    t->phase = TP_GATE;
  }
}

void
role_resume (struct engine *e)
{
  if (e->task.kind == TASK_HOLD) {
    if (!e->task.told)
      control_error (e, e->task.serial, e->task.id, "superseded", "resumed before everything was drained");
    task_end (e);
  }
  if (e->role == ROLE_PRODUCTION)
    prod_resume (e);
}

/* The superblock of a graceful release: nothing is written to the data any more, and no other superblock
 * after it, for another host may open the store from then on (S1). */
static bool
write_clean (struct engine *e)
{
  struct superblock *sb = &e->meta.sb;
  const uint16_t flags = sb->flags;

  if (flags & SUPER_F_CLEAN)
    return true;
  if (e->metaw.busy || !mapw_is_idle (e) || store_flush (&e->ia->store) < 0)
    return false;
  sb->flags = (uint16_t) ((flags & ~SUPER_F_OPEN) | SUPER_F_CLEAN);
  if (storemeta_write (&e->meta, &e->ia->store, false) == 0)
    return true;
  sb->flags = flags;
  return false;
}

/* The sides are down: close the store, cleanly if that is true. */
static void
finish_release (struct engine *e)
{
  struct task *t = &e->task;
  bool clean = e->released; /* asked again: what the release was */

  if (e->ia->store.fd != -1) {
    clean = false;
    clean = t->clean && write_clean (e);
    if (clean)
      opening_give_reservation (e);
    no_role (e);
    e->released = clean;
    log_line ("released%s", clean ? "" : ", not cleanly");
  }
  e->role = ROLE_NONE;
  control_ok (e, t->serial, t->id, json_pack ("{s:b}", "clean", clean));
  if (t->kind == TASK_QUIT)
    e->exit_at_ms = e->now_ms + QUIT_GRACE_MS;
  task_end (e);
}

static void
finish_promote (struct engine *e)
{
  json_t *request = json_incref (e->task.request);
  uint32_t serial = e->task.serial;
  json_int_t id = e->task.id;
  struct record r;
  uint8_t site = e->site;
  const char *code = NULL;
  char err[512] = "the record can't be read";

  copyside_close (e);
  task_end (e);
  if (read_record (e, json_object_get (request, "record"), &r) || !own_site (e, &r, &site))
    code = "usage";
  else
    code = opening_promote (e, &r, site, request, err, sizeof err);
  if (code) {
    no_role (e);
    control_error (e, serial, id, code, "%s", err);
  }
  else
    start_production (e, request, serial, id, &r, site);
  json_decref (request);
}

void
role_round (struct engine *e)
{
  struct task *t = &e->task;
  bool late = e->now_ms >= t->deadline_ms;

  switch ((enum task_kind) t->kind) {
  case TASK_NONE:
    return;

  case TASK_HOLD:
    if (t->phase == TP_FAST && !e->fast_inside) {
      t->phase = TP_DRAIN;
      prod_hold (e, "held by command");
    }
    if (t->told)
      return;
    if (t->phase != TP_FAST && (e->role != ROLE_PRODUCTION || e->prod.drained)) {
      control_ok (e, t->serial, t->id, json_pack ("{s:b}", "drained", 1));
      task_end (e);
    }
    else if (late) {
      t->told = true;
      control_error (e, t->serial, t->id, "timeout", "not everything could be drained and flushed yet; it stays held");
    }
    return;

  case TASK_RELEASE:
  case TASK_QUIT:
    if (t->phase == TP_FAST && (!e->fast_inside || late)) {
      t->phase = TP_DRAIN;
      prod_hold (e, "the role is being given up");
    }
    if (t->phase == TP_DRAIN && (e->prod.drained || late)) {
      t->clean = e->prod.drained && !e->fast_inside;
      /* Already here, drained and held: clients that hang up when their requests fail may abort
       * nbdkit (known host bug 2), and that must not make this an unclean end. */
      if (t->clean && e->role == ROLE_PRODUCTION && e->ia->store.fd != -1)
        write_clean (e);
      gate_set (&e->ia->gate, GATE_CLOSED, true);
      engine_set_open (e, false, "this node has no role for the IASP now; ask crgctl status");
      t->phase = TP_GATE;
    }
    if (t->phase == TP_GATE && gate_is_drained (&e->ia->gate))
      t->phase = TP_STOP;
    if (t->phase == TP_STOP) {
      if (e->role == ROLE_MIRROR)
        t->clean = true;
      prod_stop (e);
      copyside_stop (e);
      t->phase = TP_IDLE;
    }
    if (t->phase == TP_IDLE && prod_is_idle (e) && engine_is_idle (e) && metaw_is_idle (e) && mapw_is_idle (e)
        && (!e->copyside.on || copyside_is_idle (e))) {
      if (e->copyside.on)
        copyside_close (e);
      finish_release (e);
    }
    return;

  case TASK_PROMOTE:
    if (t->phase == TP_STOP) {
      copyside_stop (e);
      t->phase = TP_IDLE;
    }
    if (t->phase == TP_IDLE && metaw_is_idle (e) && mapw_is_idle (e) && copyside_is_idle (e))
      finish_promote (e);
    return;
  }
}
