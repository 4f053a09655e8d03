/* SPDX-License-Identifier: BSD-3-Clause
 *
 * plugin/opening.c for crgsim: carries out the steps of common/judge.h on the world's disks, and watches (S1).
 */
#include <errno.h>
#include <string.h>

#include "common/util.h"
#include "tests/sim/world.h"

static struct wdisk *
disk_of (const struct wplugin *p)
{
  return &w.disk[p->site][p->iasp];
}

static void
node_name (unsigned node, char name[CRG_NAME_MAX + 1])
{
  memset (name, 0, CRG_NAME_MAX + 1);
  name[0] = 'n';
  name[1] = (char) ('1' + node);
}

static bool
is_fenced (const struct prec *r, const char *node)
{
  return node[0] != '\0' && (r->fenced >> (node[1] - '1') & 1) != 0;
}

static void
what_is_asked (const struct wplugin *p, const struct ctlmsg *m, uint8_t role, struct judge_ask *ask)
{
  const struct prec *r = &m->rec;

  *ask = (struct judge_ask) {
    .role = role,
    .site = p->site,
    .forced = r->forced,
    .accept_loss = r->accept_loss,
    .claims = true,
    .session = p->session,
    .data_bytes = W_SIZE,
    .dirty_block_size = W_BLOCK,
    .tenure = r->tenure,
    .generation = r->generation,
    .loss = r->loss,
    .since = r->since[p->site],
    .in_set = r->in_set,
    .fork = r->fork,
    .lease_until_ms = m->until_ms,
  };
  node_name (p->node, ask->node);
  node_boot_id (p->node, ask->boot_id);
  world_ids (p->iasp, ask->cluster_id, ask->crg_id, ask->iasp_id);
  memcpy (ask->lineage, p->lineage, CRG_ID_LEN);
  memcpy (ask->past, r->past, sizeof ask->past);
  memcpy (ask->past_generation, r->past_generation, sizeof ask->past_generation);
  ask->n_past = r->n_past;
}

static const char *
why_not (const struct wplugin *p)
{
  static const char *const why[JUDGE_N_REFUSALS] = {
    [JUDGE_DAMAGED] = "its superblocks can't be used",
    [JUDGE_OTHER_LINEAGE] = "it is of another lineage (C9)",
    [JUDGE_OTHER_SITE] = "it is the copy of another site",
    [JUDGE_NOT_RELEASED] = "another node has it open, or did not release it (S1)",
    [JUDGE_FORK] = "it is a fork (R6)",
    [JUDGE_NEWER_TENURE] = "it has seen a newer tenure (R1)",
    [JUDGE_NEWER] = "its generation is newer than the record's (R6)",
    [JUDGE_NO_STATE] = "there is no state of it to export",
    [JUDGE_NOT_IN_SET] = "the record does not have this copy in the in-sync set (R4)",
    [JUDGE_UNUSABLE] = "it is unusable (R4)",
    [JUDGE_DISAGREES] = "its generation does not agree with the record's (R6)",
    [JUDGE_RESTARTED] = "its machine restarted (S2)",
    [JUDGE_CLAIMED] = "another node is opening it (S1)",
    [JUDGE_LATE] = "the lease ended before this node could open it (S1)",
    [JUDGE_LATE_RECORD] = "the lease ended before anybody could know that this node has it open (S1)",
  };

  if (p->judge.refusal == JUDGE_IO)
    return p->open ? "its superblock can't be written" : "its claims can't be read or written";
  if (!why[p->judge.refusal])
    world_fail ("n%u is refused a store as %s", p->node + 1, judge_code (p->judge.refusal));
  return why[p->judge.refusal] ? why[p->judge.refusal] : "";
}

static void
close_store (struct wplugin *p)
{
  struct wdisk *d = disk_of (p);

  if (!p->open)
    return;
  p->open = false;
  if (d->lock_life == p->life) {
    if (d->in_flight > 0)
      world_fail ("n%u: closes its store with I/O under way", p->node + 1);
    d->lock_life = 0;
    d->lock_dying = false;
  }
}

void
opening_no_role (struct wplugin *p)
{
  close_store (p);
  p->role = HOST_NONE;
  p->is_open_to_clients = false;
}

/* What its superblocks say now. */
static enum judge_act
read_store (struct wplugin *p)
{
  struct judge_found found = { .what = JUDGE_UNREADABLE, .store_bytes = disk_of (p)->store_bytes };
  struct super_choice choice;
  enum super_status status;

  slot_read (disk_of (p), &p->sb, &choice, &status);
  if (status == SUPER_OK) {
    p->slot = choice.slot;
    p->released = false;
    found.what = JUDGE_SUPERBLOCK;
    found.damaged = choice.damaged;
    found.fenced = is_fenced (&p->opening.rec, p->sb.open_node);
  }
  return judge_read (&p->judge, &found, &p->sb, plugin_ms (p));
}

/* Who has the lock could not write its open record, has taken its claim back, and was not told yet that this is so. */
static bool
has_given_up (const struct wdisk *d)
{
  const struct wplugin *p = plugin_of (d->lock_node, (unsigned) (d - w.disk[site_of_node (d->lock_node)]));

  return p->life == d->lock_life && p->claiming && p->judge.refusal != JUDGE_NOT_REFUSED && d->in_flight == 0;
}

/* The store is ours: its lock lies on what carries its I/O from now on. */
static void
own_store (struct wplugin *p)
{
  struct wdisk *d = disk_of (p);

  if (d->lock_life != 0 && !disk_is_released (d) && !has_given_up (d))
    world_fail ("n%u opens a store that n%u has open, or still writes to (S1)", p->node + 1, d->lock_node + 1u);
  d->lock_life = p->life;
  d->lock_node = p->node;
  d->last_machine = w.node[p->node].machine;
  d->lock_dying = false;
  p->open = true;
}

/* ---- what must be so, whatever the core says --------------------------------------------- */

/* The store is about to be opened: it is as it was judged, and nobody else can have it.  Or a mirror copy, which is
 * open, becomes production. */
static void
watch_open (struct wplugin *p)
{
  const struct prec *r = &p->opening.rec;
  const bool production = p->judge.ask.role == SUPER_ROLE_PRODUCTION;
  struct super_choice choice;
  enum super_status status;
  struct superblock sb;
  struct claim_block c;

  slot_read (disk_of (p), &sb, &choice, &status);
  if (sb.tenure > r->tenure)
    world_fail ("n%u opens for tenure %llu a store that has seen %llu (R1)", p->node + 1,
                (unsigned long long) r->tenure, (unsigned long long) sb.tenure);
  if (p->open)
    return;
  if (memcmp (sb.lineage, p->lineage, CRG_ID_LEN) != 0 && !(r->in_set >> p->site & 1))
    world_fail ("n%u opens the store of site %u, which is a fork of another lineage (C9, R6)", p->node + 1, p->site);
  if (status != SUPER_OK || sb.sequence != p->sb.sequence)
    world_fail ("n%u opens a store that has been written since it was judged (S1)", p->node + 1);
  if (!disk_claim (disk_of (p), claim_place (p->node + 1u), p->sb.store_id, &c) || c.session != p->session)
    world_fail ("n%u opens a store that it has not claimed (S1)", p->node + 1);
  if (production && p->opening.until_ms != 0 && plugin_ms (p) >= p->opening.until_ms)
    world_fail ("n%u opens as production, and its lease is over (S1)", p->node + 1);
  if (!production && sb.generation > r->generation)
    world_fail ("n%u opens as a copy a store that is newer than the record (R6)", p->node + 1);
}

/* The claim is given back, or the store is used: both slots say whose it is, and as what. */
static void
watch_record (struct wplugin *p)
{
  const bool detached = p->judge.ask.role == SUPER_ROLE_DETACHED;

  for (unsigned i = 0; i < 2; i++) {
    enum super_status status;
    struct superblock sb;
    uint32_t block;

    disk_slot_block (disk_of (p), i, &block);
    status = super_decode (disk_of (p)->meta_stable[block], i, &sb);
    if (status != SUPER_OK && disk_of (p)->rotten)
      continue;
    if (status != SUPER_OK || !(sb.flags & SUPER_F_OPEN) || strcmp (sb.open_node, p->judge.ask.node) != 0
        || sb.open_session != p->session)
      world_fail ("n%u has a store open, and slot %u doesn't say so (S1)", p->node + 1, i);
    else if (!detached && sb.tenure != p->rec.tenure)
      world_fail ("n%u opens for tenure %llu, and slot %u says %llu (R1)", p->node + 1,
                  (unsigned long long) p->rec.tenure, i, (unsigned long long) sb.tenure);
    else if (detached && !(sb.flags & SUPER_F_FORK))
      world_fail ("n%u opens a detached copy, and slot %u doesn't say that it is a fork (R6)", p->node + 1, i);
  }
}

/* ---- the role ------------------------------------------------------------------------------ */

/* The open record: both slots, each stable, before anything relies on it (R1, S1). */
static enum judge_act
begin_role (struct wplugin *p)
{
  const bool production = p->judge.ask.role == SUPER_ROLE_PRODUCTION;

  watch_open (p);
  if (!p->open)
    own_store (p);
  p->start = judge_starts (&p->judge, &p->sb);
  p->rec = p->opening.rec;
  p->store_told = p->store_dead = false;
  if (p->judge.ask.role == SUPER_ROLE_DETACHED) { /* R6: a fork, for clients of its own */
    memset (&p->mapw, 0, sizeof p->mapw);
    p->sb.flags = (uint16_t) (p->sb.flags & ~SUPER_F_WRITTEN); /* mapw.c: forget_written */
  }
  else
    mapw_open (p, production, production && p->start.forced);
  if (production)
    p->lease_until_ms = p->opening.until_ms;
  return judge_record (&p->judge, &p->sb, false, p->mapw.on);
}

static void
refused (struct wplugin *p, const char *why)
{
  opening_no_role (p);
  plugin_answer (p, &p->opening, CTL_TOLD, false, why);
}

static void
opened (struct wplugin *p)
{
  const bool production = p->judge.ask.role == SUPER_ROLE_PRODUCTION;
  const char *why;

  if (p->judge.ask.role == SUPER_ROLE_DETACHED) {
    p->role = HOST_DETACHED;
    TRACE ("n%u iasp %u is detached, exported %u", p->node + 1, p->iasp, p->rec.exported);
    plugin_answer (p, &p->opening, CTL_TOLD, true, "");
    return;
  }
  why = production ? prodside_start (p, p->start.equal, p->start.again) : copyside_start (p);
  if (why) {
    refused (p, why);
    return;
  }
  p->role = production ? HOST_PRODUCTION : HOST_MIRROR;
  TRACE ("n%u iasp %u is %s, tenure %llu, generation %llu%s%s", p->node + 1, p->iasp,
         production ? "production" : "mirror", (unsigned long long) p->rec.tenure,
         (unsigned long long) p->sb.generation, p->judge.restarted ? ", restarted" : "",
         production && !p->start.equal ? ", after an unclean end" : "");
  if (production) {
    check_opened (p);
    p->is_open_to_clients = true;
  }
  plugin_answer (p, &p->opening, CTL_TOLD, true, "");
}

/* ---- the claim (S1) ----------------------------------------------------------------------- */

static void
claim_write (struct wplugin *p, unsigned place, const struct claim_block *what)
{
  struct dop *op = disk_op (p, DW_META, DF_CLAIM, 0, 0, 0, true);

  claim_encode (what, place, p->sb.store_id, op->meta);
  op->block = disk_claim_block (disk_of (p), place);
}

static void
claim_act (struct wplugin *p, enum claim_act act)
{
  switch (act) {
  case CLAIM_LOOK:
    disk_op (p, DW_READ, DF_CLAIM, 0, 0, 0, false)->stage = 1;
    break;
  case CLAIM_SET:
    claim_write (p, p->claim.place, &p->claim.own);
    break;
  case CLAIM_CLEAR:
    claim_write (p, p->claim.place, NULL);
    break;
  case CLAIM_HELD:
    opening_done (p, 0);
    break;
  case CLAIM_REFUSED:
    opening_done (p, p->claim.error ? p->claim.error : -EBUSY);
    break;
  case CLAIM_ENDED:
    opening_done (p, p->claim.error);
    break;
  }
}

void
opening_claim_done (struct wplugin *p, const struct dop *op, int error)
{
  for (unsigned i = 0; i <= W_NODES && op->stage == 1 && error == 0; i++) {
    struct claim_block found;
    bool stands = disk_claim (disk_of (p), i, p->sb.store_id, &found);

    claim_saw (&p->claim, i, stands ? &found : NULL, stands && is_fenced (&p->opening.rec, found.node));
  }
  claim_act (p, claim_done (&p->claim, error));
}

/* ---- the steps ---------------------------------------------------------------------------- */

static void
carry_out (struct wplugin *p, enum judge_act act)
{
  for (;;)
    switch (act) {
    case JUDGE_READ:
      act = read_store (p);
      break;
    case JUDGE_FORMAT:
      world_fail ("n%u: a store without superblocks", p->node + 1);
      return;
    case JUDGE_RESERVE: /* no device of this world can be reserved */
      act = judge_done (&p->judge, 0, plugin_ms (p));
      break;
    case JUDGE_CLAIM:
      p->blocked = p->claiming = true; /* the engine thread waits for the disk */
      p->slow_opening = !w.healing && chance (8);
      claim_act (p, claim_begin (&p->claim, p->node + 1u, p->judge.ask.node, p->judge.ask.boot_id, p->session));
      return;
    case JUDGE_OPEN:
      act = begin_role (p);
      break;
    case JUDGE_WRITE:
      p->blocked = true;
      slot_write (p, DF_OPEN, 0);
      return;
    case JUDGE_GIVE:
      if (p->judge.refusal == JUDGE_NOT_REFUSED)
        watch_record (p);
      claim_act (p, claim_end (&p->claim));
      return;
    case JUDGE_OPENED:
      p->blocked = p->claiming = p->slow_opening = false;
      watch_record (p);
      opened (p);
      return;
    case JUDGE_REFUSED:
      p->blocked = p->claiming = p->slow_opening = false;
      refused (p, why_not (p));
      return;
    }
}

/* A step that took time has ended. */
void
opening_done (struct wplugin *p, int error)
{
  carry_out (p, judge_done (&p->judge, error, plugin_ms (p)));
}

/* A role for a store that is not open yet. */
void
opening_begin (struct wplugin *p, const struct ctlmsg *m)
{
  struct judge_ask ask;

  p->opening = *m;
  if (disk_is_locked (disk_of (p), w.node[p->node].machine)) {
    plugin_answer (p, m, CTL_TOLD, false, "another process has it open (S1)");
    return;
  }
  what_is_asked (p, m,
                 m->role == HOST_PRODUCTION ? SUPER_ROLE_PRODUCTION
                 : m->role == HOST_DETACHED ? SUPER_ROLE_DETACHED
                                            : SUPER_ROLE_MIRROR,
                 &ask);
  carry_out (p, judge_begin (&p->judge, &ask));
}

/* The mirror copy that is open becomes production. */
void
opening_promote (struct wplugin *p, const struct ctlmsg *m)
{
  struct judge_ask ask;

  p->opening = *m;
  what_is_asked (p, m, SUPER_ROLE_PRODUCTION, &ask);
  carry_out (p, judge_promote (&p->judge, &ask, &p->sb));
}
