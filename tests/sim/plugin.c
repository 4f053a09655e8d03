/* SPDX-License-Identifier: BSD-3-Clause
 *
 * plugin/role.c, metaw.c, control.c and engine.c for crgsim: one nbdkit process, its role, its
 * superblocks, its tasks.
 */
#include <errno.h>
#include <string.h>

#include "common/util.h"
#include "tests/sim/world.h"

#define RELEASE_WAIT_MS 5000u
#define QUIT_GRACE_MS   200u
enum { META_IDLE, META_DATA_FLUSH, META_FIRST, META_SECOND };

struct wplugin *
plugin_of (unsigned node, unsigned iasp)
{
  return &w.node[node].plugin[iasp];
}

uint64_t
plugin_ms (const struct wplugin *p)
{
  return node_ms (p->node);
}

static struct wdisk *
disk_of (const struct wplugin *p)
{
  return &w.disk[p->site][p->iasp];
}

/* ---- to the controller ---------------------------------------------------------------------- */

struct ctlmsg *
plugin_say (struct wplugin *p, enum ctl_kind kind)
{
  struct wnode *n = &w.node[p->node];
  struct ctlmsg *m;
  struct wev *e;

  if (p->ctl_conn == 0 || p->ctl_broken)
    return NULL;
  m = ctl_push (p->node, &p->up, kind);
  m->conn = p->ctl_conn;
  e = after_us (m->at - w.now_us, EV_CTL_UP);
  e->node = p->node;
  e->iasp = p->iasp;
  e->life = n->life;
  if (p->break_levels > 0 && (kind == CTL_LOST || kind == CTL_BACK || kind == CTL_READY)) {
    p->break_levels--;
    e = after_us (fault_random (MS (2)), EV_CTL_BREAK);
    e->node = p->node;
    e->iasp = p->iasp;
    e->life = n->life;
  }
  return m;
}

void
plugin_store_failed (struct wplugin *p, const char *reason)
{
  struct ctlmsg *m;

  (void) reason;
  if (p->store_told)
    return;
  p->store_told = true;
  TRACE ("n%u iasp %u: store failed: %s", p->node + 1, p->iasp, reason);
  m = plugin_say (p, CTL_STORE_FAILED);
  if (m)
    m->reason = "the store failed";
}

void
plugin_answer (struct wplugin *p, const struct ctlmsg *ask, enum ctl_kind kind, bool ok, const char *reason)
{
  struct ctlmsg *m;

  if (ask->conn != p->ctl_conn)
    return; /* of a controller that is gone */
  m = plugin_say (p, kind);
  if (!m)
    return;
  m->serial = ask->serial;
  m->ok = ok;
  m->reason = reason;
  m->role = p->role;
  m->tenure = p->rec.tenure;
  m->generation = p->sb.generation;
  m->sites = p->rec.n_sites;
  m->restarted = p->judge.restarted;
  m->unusable = (p->sb.flags & SUPER_F_UNUSABLE) != 0;
  if (!ok)
    TRACE ("n%u iasp %u: no: %s", p->node + 1, p->iasp, reason);
}

/* ---- superblocks ---------------------------------------------------------------------------- */

void
slot_read (const struct wdisk *d, struct superblock *sb, struct super_choice *choice,
           enum super_status *status)
{
  uint32_t block[2];

  disk_slot_block (d, 0, &block[0]);
  disk_slot_block (d, 1, &block[1]);
  *status = super_choose (d->meta[block[0]], d->meta[block[1]], sb, choice);
}

/* storemeta_prepare, and the write. */
void
slot_write (struct wplugin *p, enum dop_for why, unsigned stage)
{
  struct dop *op = disk_op (p, DW_META, why, 0, 0, 0, true);
  unsigned slot = p->slot == 0 ? 1 : 0;

  p->sb.sequence++;
  p->slot = (int) slot;
  super_encode (&p->sb, slot, op->meta);
  disk_slot_block (disk_of (p), slot, &op->block);
  op->stage = (uint8_t) stage;
}

static void metaw_begin (struct wplugin *p);

static void
apply_super (struct wplugin *p)
{
  const struct copy_action *a = &p->metaw.super;
  struct superblock *sb = &p->sb;
  bool was_unusable = sb->flags & SUPER_F_UNUSABLE;

  p->metaw.both = a->tenure > sb->tenure || (a->unusable && !was_unusable) || a->since < sb->since;
  sb->tenure = a->tenure;
  sb->generation = MAX (sb->generation, a->generation);
  sb->since = a->since;
  sb->role = SUPER_ROLE_MIRROR;
  sb->flags = (uint16_t) ((sb->flags & ~(SUPER_F_UNUSABLE | SUPER_F_FILLING)) | (a->unusable ? SUPER_F_UNUSABLE : 0)
                          | (a->filling ? SUPER_F_FILLING : 0));
  if (a->unusable || a->flush_data)
    sb->flags = (uint16_t) (sb->flags & ~(SUPER_F_RESTARTED | SUPER_F_FORK));
}

static void
metaw_step (struct wplugin *p, unsigned stage)
{
  p->metaw.stage = (uint8_t) stage;
  slot_write (p, DF_META, stage);
}

static void
metaw_done (struct wplugin *p, int error)
{
  if (error == 0 && p->metaw.stage == META_DATA_FLUSH) {
    apply_super (p);
    metaw_step (p, META_FIRST);
    return;
  }
  if (error == 0 && p->metaw.stage == META_FIRST && p->metaw.both) {
    metaw_step (p, META_SECOND);
    return;
  }
  if (error < 0 && p->metaw.stage != META_DATA_FLUSH) { /* storemeta_failed */
    p->slot = p->slot == 0 ? 1 : 0;
    p->sb.sequence--;
  }
  p->metaw.stage = META_IDLE;
  p->metaw.busy = false;
  if (error == 0 && p->metaw.is_super && p->metaw.super.flush_data)
    disk_of (p)->restarted = false;
  if (p->metaw.is_super)
    copyside_super_done (p, error);
  metaw_begin (p);
}

static void
metaw_begin (struct wplugin *p)
{
  if (p->metaw.busy || !p->open)
    return;
  if (p->metaw.want_super) {
    p->metaw.want_super = false;
    p->metaw.busy = p->metaw.is_super = true;
    if (p->metaw.super.flush_data) {
      p->metaw.stage = META_DATA_FLUSH;
      disk_op (p, DW_FLUSH, DF_META, 0, 0, 0, false)->stage = META_DATA_FLUSH;
      return;
    }
    apply_super (p);
    metaw_step (p, META_FIRST);
  }
  else if (p->metaw.want_lazy) {
    p->metaw.want_lazy = false;
    p->metaw.busy = true;
    p->metaw.is_super = p->metaw.both = false;
    metaw_step (p, META_FIRST);
  }
}

void
metaw_lazy (struct wplugin *p)
{
  p->metaw.want_lazy = true;
  metaw_begin (p);
}

void
metaw_super (struct wplugin *p, const struct copy_action *a)
{
  p->metaw.super = *a;
  p->metaw.want_super = true;
  metaw_begin (p);
}

static bool
metaw_is_idle (const struct wplugin *p)
{
  return !p->metaw.busy && !p->metaw.want_super && !p->metaw.want_lazy;
}

/* What they write is seen in no copy, once it is attached again. */
static void
write_fork (struct wplugin *p)
{
  const uint64_t n = 1 + world_random (8), first = world_random (W_UNITS - n);
  struct dop *op;

  if (p->rec.exported != DETACHED_READ_WRITE || p->blocked || p->task.kind != TASK_NONE
      || p->busy_read > 2 || !chance (20))
    return;
  p->busy_read++;
  op = disk_op (p, DW_WRITE, DF_FORK, 0, first * W_UNIT, n * W_UNIT, chance (30));
  for (unsigned i = 0; i < n; i++)
    op->data[i] = W_FORK;
  check_differs (p->iasp, p->site, first * W_UNIT, n * W_UNIT);
}

static void role_task (struct wplugin *p, enum task_kind kind, const struct ctlmsg *ask, uint32_t wait_ms);

static void
take_record (struct wplugin *p, const struct ctlmsg *m)
{
  const struct prec *r = &m->rec;

  if (p->role == HOST_NONE || r->tenure < p->rec.tenure || r->generation < p->rec.generation
      || r->n_sites != p->rec.n_sites
      || (p->role == HOST_PRODUCTION && r->tenure != p->rec.tenure)) {
    plugin_answer (p, m, CTL_PUSHED, false, "the record is older, or of another production");
    return;
  }
  p->rec = *r;
  if (p->role == HOST_PRODUCTION)
    prod_record (p, m->seq);
  else if (p->role == HOST_MIRROR)
    copyside_record (p);
  plugin_answer (p, m, CTL_PUSHED, true, "");
}

static void
role_command (struct wplugin *p, const struct ctlmsg *m)
{
  if (p->task.kind != TASK_NONE && p->task.kind != TASK_HOLD) {
    plugin_answer (p, m, CTL_TOLD, false, "a change of role is under way");
    return;
  }
  if (p->role == HOST_DETACHED || (m->role == HOST_DETACHED && p->role != HOST_NONE)) {
    plugin_answer (p, m, CTL_TOLD, false, "a copy is detached, and attached again, only by way of role none");
    return;
  }
  if (m->role == HOST_DETACHED) {
    opening_begin (p, m);
    return;
  }
  if (m->role == HOST_MIRROR) {
    if (p->role == HOST_NONE)
      opening_begin (p, m);
    else if (p->role == HOST_MIRROR && m->rec.tenure >= p->rec.tenure) {
      p->rec = m->rec;
      copyside_record (p);
      plugin_answer (p, m, CTL_TOLD, true, "");
    }
    else
      plugin_answer (p, m, CTL_TOLD, false, "it is production now; take that role away first");
    return;
  }
  if (p->role == HOST_MIRROR)
    role_task (p, TASK_PROMOTE, m, RELEASE_WAIT_MS);
  else if (p->role == HOST_PRODUCTION) {
    if (m->rec.tenure != p->rec.tenure)
      plugin_answer (p, m, CTL_TOLD, false, "it is production of another tenure");
    else {
      p->lease_until_ms = m->until_ms;
      prod_lease (p);
      p->rec = m->rec;
      prod_record (p, m->seq);
      plugin_answer (p, m, CTL_TOLD, true, "");
    }
  }
  else
    opening_begin (p, m);
}

/* ---- tasks ---------------------------------------------------------------------------------- */

static void
task_end (struct wplugin *p)
{
  p->task.kind = TASK_NONE;
  p->task.told = p->task.clean = false;
}

static void
role_task (struct wplugin *p, enum task_kind kind, const struct ctlmsg *ask, uint32_t wait_ms)
{
  if (p->task.kind == TASK_HOLD && !p->task.told)
    plugin_answer (p, &p->task.ask, CTL_HELD, false, "another command came before everything was drained");
  task_end (p);
  p->task.kind = (uint8_t) kind;
  p->task.ask = *ask;
  p->task.since_ms = plugin_ms (p);
  p->task.deadline_ms = plugin_ms (p) + wait_ms;
  p->task.phase = TP_STOP;
  if (p->role == HOST_PRODUCTION) {
    p->task.phase = TP_DRAIN;
    prod_hold (p, kind == TASK_HOLD ? "held by command" : "the role is being given up");
  }
  else if (p->role == HOST_DETACHED && kind != TASK_HOLD) {
    p->task.clean = true;
    p->task.phase = TP_GATE;
  }
}

/* write_clean: a flush, then one slot.  It is one with the close: nothing else happens in this
 * process, and it may die at each of the two. */
static void
begin_clean (struct wplugin *p)
{
  p->blocked = true;
  disk_op (p, DW_FLUSH, DF_OPEN, 0, 0, 0, false)->stage = 2;
}

static void
finish_release (struct wplugin *p, bool clean)
{
  const struct ctlmsg ask = p->task.ask;
  const bool quit = p->task.kind == TASK_QUIT;

  if (p->open) {
    opening_no_role (p);
    p->released = clean;
    TRACE ("n%u iasp %u: released%s", p->node + 1, p->iasp, clean ? "" : ", not cleanly");
  }
  p->role = HOST_NONE;
  task_end (p);
  if (quit)
    p->exit_at_ms = plugin_ms (p) + QUIT_GRACE_MS;
  plugin_answer (p, &ask, CTL_QUIT_DONE, true, "");
}

static void
finish_promote (struct wplugin *p)
{
  const struct ctlmsg m = p->task.ask;

  copyside_drop (p);
  task_end (p);
  opening_promote (p, &m);
}

void
plugin_round (struct wplugin *p)
{
  const bool late = plugin_ms (p) >= p->task.deadline_ms;

  if (p->blocked)
    return;
  switch ((enum task_kind) p->task.kind) {
  case TASK_NONE:
    return;
  case TASK_HOLD:
    if (p->task.told)
      return;
    if (p->role != HOST_PRODUCTION || p->drained) {
      plugin_answer (p, &p->task.ask, CTL_HELD, true, "");
      task_end (p);
    }
    else if (late) {
      p->task.told = true;
      plugin_answer (p, &p->task.ask, CTL_HELD, false, "not everything could be drained and flushed yet");
    }
    return;
  case TASK_RELEASE:
  case TASK_QUIT:
    if (p->task.phase == TP_DRAIN && (p->drained || late)) {
      p->task.clean = p->drained;
      p->is_open_to_clients = false;
      p->task.phase = TP_GATE;
    }
    if (p->task.phase == TP_GATE && p->busy_read == 0)
      p->task.phase = TP_STOP;
    if (p->task.phase == TP_STOP) {
      if (p->role == HOST_MIRROR)
        p->task.clean = true;
      prodside_stop (p);
      copyside_stop (p);
      p->task.phase = TP_IDLE;
    }
    if (p->task.phase == TP_IDLE && prod_is_idle (p) && metaw_is_idle (p) && !p->mapw.active
        && (!p->copy_on || copyside_is_idle (p))) {
      copyside_drop (p);
      if (p->open && p->task.clean && !p->store_told)
        begin_clean (p);
      else
        finish_release (p, false);
    }
    return;
  case TASK_PROMOTE:
    if (p->task.phase == TP_STOP) {
      copyside_stop (p);
      p->task.phase = TP_IDLE;
    }
    if (p->task.phase == TP_IDLE && metaw_is_idle (p) && !p->mapw.active && copyside_is_idle (p))
      finish_promote (p);
    return;
  }
}

/* ---- disk ----------------------------------------------------------------------------------- */

static void
open_stage_done (struct wplugin *p, unsigned stage, int error)
{
  switch (stage) {
  case 0: /* of the open record */
    opening_done (p, error);
    break;
  case 2:
    if (error == 0) {
      p->sb.flags = (uint16_t) ((p->sb.flags & ~SUPER_F_OPEN) | SUPER_F_CLEAN);
      slot_write (p, DF_OPEN, 3);
      break;
    }
    __attribute__ ((__fallthrough__));
  default:
    p->blocked = false;
    finish_release (p, error == 0);
  }
}

void
plugin_disk_done (struct wplugin *p, struct dop *d, int error)
{
  switch ((enum dop_for) d->why) {
  case DF_LOCAL:
  case DF_RREAD:
    prod_disk_done (p, d, error);
    break;
  case DF_COPY:
    copyside_op_done (p, d->index, error);
    break;
  case DF_META:
    metaw_done (p, error);
    break;
  case DF_CLAIM:
    opening_claim_done (p, d, error);
    break;
  case DF_OPEN:
    open_stage_done (p, d->stage, error);
    break;
  case DF_HOT:
    mapw_done (p, error);
    break;
  case DF_FORK:
    p->busy_read--;
    if (error)
      plugin_store_failed (p, "a write to it failed");
    break;
  case DF_DIGEST:
    digests_done (p, d, error);
    break;
  case DF_READ:
    client_read_done (p, d->index, error);
    break;
  default:
    break;
  }
  if (p->running)
    plugin_round (p);
}

/* ---- commands, time, life ------------------------------------------------------------------- */

void
plugin_connected (struct wplugin *p, uint32_t conn)
{
  struct ctlmsg *m;

  p->ctl_conn = conn;
  p->ctl_broken = false;
  p->up.n = 0;
  prod_tell_levels (p);
  if (p->store_told) {
    m = plugin_say (p, CTL_STORE_FAILED);
    if (m)
      m->reason = "the store failed earlier";
  }
}

void
plugin_command (struct wplugin *p)
{
  struct ctlq *q = &w.node[p->node].sup[p->iasp].down;
  struct ctlmsg m;

  if (p->paused || p->blocked) {
    struct wev *e = after_us (MS (5), EV_CTL_DOWN);

    e->node = p->node;
    e->iasp = p->iasp;
    e->life = p->life;
    return;
  }
  if (q->n == 0 || q->q[q->head].at > w.now_us)
    return;
  m = q->q[q->head];
  q->head = (q->head + 1) % W_CTL;
  q->n--;
  if (m.conn != p->ctl_conn)
    return;
  switch ((enum ctl_kind) m.kind) {
  case CTL_STATUS:
    plugin_answer (p, &m, CTL_ASKED, true, "");
    break;
  case CTL_ROLE:
    role_command (p, &m);
    break;
  case CTL_RECORD:
    take_record (p, &m);
    break;
  case CTL_LEASE:
    if (p->role == HOST_PRODUCTION) {
      p->lease_until_ms = m.until_ms;
      prod_lease (p);
    }
    plugin_answer (p, &m, CTL_LEASE_TOLD, true, "");
    break;
  case CTL_MIRROR:
    if (p->role == HOST_PRODUCTION)
      prod_mirror (p, m.site, m.node - 1, m.sync == SYNC_NONE      ? RS_NONE
                                          : m.sync == SYNC_PARTIAL ? RS_PARTIAL
                                                                   : RS_FULL);
    break;
  case CTL_UNMIRROR:
    if (p->role == HOST_PRODUCTION)
      prod_unmirror (p, m.site, "nobody hosts this copy");
    break;
  case CTL_HOLD:
  case CTL_QUIT:
    if (p->task.kind != TASK_NONE && p->task.kind != TASK_HOLD)
      plugin_answer (p, &m, m.kind == CTL_HOLD ? CTL_HELD : CTL_QUIT_DONE, false, "a change of role is under way");
    else
      role_task (p, m.kind == CTL_HOLD ? TASK_HOLD : TASK_QUIT, &m, (uint32_t) m.until_ms);
    break;
  case CTL_RESUME:
    w.node[p->node].sup[p->iasp].resume_owed = false; /* it answers at once */
    if (p->task.kind != TASK_NONE && p->task.kind != TASK_HOLD)
      break;
    if (p->task.kind == TASK_HOLD)
      task_end (p);
    if (p->role == HOST_PRODUCTION)
      prod_resume (p);
    break;
  default:
    break;
  }
  plugin_round (p);
}

static void
next_tick (struct wplugin *p)
{
  struct wev *e = after_us (MS (p->task.kind != TASK_NONE ? 5 : REPL_TICK_MS), EV_PTICK);

  e->node = p->node;
  e->iasp = p->iasp;
  e->life = p->life;
}

void
plugin_tick (struct wplugin *p)
{
  if (p->paused) {
    next_tick (p);
    return;
  }
  if (p->exit_at_ms != 0 && plugin_ms (p) >= p->exit_at_ms) {
    plugin_die (p, "it ends");
    return;
  }
  for (unsigned i = 0; i < W_CONNS; i++) {
    struct wconn *c = &w.conn[i];

    if (c->used && c->iasp == p->iasp && ((c->prod == p->node && c->prod_life == p->life)
                                          || (c->copy == p->node && c->copy_life == p->life)))
      net_tick (c);
  }
  if (!p->running)
    return;
  if (p->store_dead && !p->store_told) {
    struct repl_event ev = { .kind = RE_STORE_FAILED, .reason = "a flush of the production store failed" };

    plugin_store_failed (p, "its maps can't be written");
    prod_feed (p, &ev);
  }
  if (p->role == HOST_DETACHED)
    write_fork (p);
  prod_tick (p);
  if (p->copy_on && chance (50)) {
    struct copy_event poll = { .kind = CE_POLL, .now_ms = plugin_ms (p) };

    copyside_poll (p, &poll);
  }
  plugin_round (p);
  if (p->running)
    next_tick (p);
}

void
plugin_start (unsigned node, unsigned iasp)
{
  struct wplugin *p = plugin_of (node, iasp);
  const struct crg_state *s = group_committed (&w.node[node].g) ?: group_applied (&w.node[node].g);

  memset (p, 0, offsetof (struct wplugin, core));
  p->node = (uint8_t) node;
  p->iasp = (uint8_t) iasp;
  p->site = (uint8_t) site_of_node (node);
  p->running = true;
  p->life = ++w.lives;
  p->session = mix_hash (w.seed, p->life);
  if (s != NULL)
    memcpy (p->lineage, s->lineage, CRG_ID_LEN); /* tell_spec */
  next_tick (p);
}

void
plugin_die (struct wplugin *p, const char *why)
{
  const uint32_t life = p->life;

  if (!p->running)
    return;
  TRACE ("n%u iasp %u: its process dies: %s", p->node + 1, p->iasp, why);
  (void) why;
  p->running = false;
  p->prod_on = false;
  copyside_drop (p);
  disk_process_gone (p);
  /* The kernel closes its connections. */
  for (unsigned i = 0; i < W_CONNS; i++) {
    struct wconn *c = &w.conn[i];

    if (c->used && c->iasp == p->iasp && c->prod == p->node && c->prod_life == life)
      net_close (c, true, "its process is gone");
    if (c->used && c->iasp == p->iasp && c->copy == p->node && c->copy_life == life)
      net_close (c, false, "its process is gone");
  }
  client_plugin_gone (p);
  p->open = false;
  sup_plugin_died (p->node, p->iasp);
}
