/* SPDX-License-Identifier: BSD-3-Clause
 *
 * plugin/opening.c for crgsim: the store is claimed, opened for a role under S1, R1, R4, R5, R6, and let go.
 */
#include <errno.h>
#include <string.h>

#include "common/util.h"
#include "tests/sim/world.h"

static void claim_act (struct wplugin *p, enum claim_act act);

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
  return r->fenced >> (node[1] - '1') & 1;
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

static const char *
check_open_record (struct wplugin *p, const struct prec *r)
{
  const struct superblock *sb = &p->sb;
  uint8_t boot[CRG_ID_LEN];
  char name[CRG_NAME_MAX + 1];

  node_name (p->node, name);
  node_boot_id (p->node, boot);
  p->was_clean = !(sb->flags & SUPER_F_OPEN) && !p->damaged;
  p->restarted = p->damaged || (sb->flags & SUPER_F_RESTARTED);
  if (!(sb->flags & SUPER_F_OPEN) || memcmp (sb->open_boot_id, boot, CRG_ID_LEN) == 0)
    return NULL;
  p->restarted = true;
  if (claim_is_over (sb->open_node, sb->open_boot_id, name, boot, is_fenced (r, sb->open_node)))
    return NULL;
  return "another node has it open, or did not release it (S1)";
}

const char *
opening_check_production (const struct wplugin *p, const struct prec *r)
{
  const struct superblock *sb = &p->sb;
  bool forced = r->forced && sb->tenure < r->tenure;

  if (!forced && !(r->in_set & 1u << p->site))
    return "the record does not have this copy in the in-sync set (R4)";
  if (sb->flags & SUPER_F_UNUSABLE)
    return "it is unusable (R4)";
  if (!forced && (sb->generation > r->generation || sb->generation < r->since[p->site]))
    return "its generation does not agree with the record's (R6)";
  if (p->restarted && !forced && (r->in_set & ~(1u << p->site)) && !r->accept_loss)
    return "its machine restarted (S2)";
  return NULL;
}

/* What its superblocks say now. */
static const char *
judge_store (struct wplugin *p)
{
  const struct prec *r = &p->opening.rec;
  const bool production = p->opening_production;
  struct super_choice choice;
  enum super_status status;
  const char *why;

  slot_read (disk_of (p), &p->sb, &choice, &status);
  if (status != SUPER_OK)
    return "its superblocks can't be used";
  p->slot = choice.slot;
  p->damaged = choice.damaged;
  p->released = false;
  if (p->sb.site != p->site)
    return "it is the copy of another site";
  why = check_open_record (p, r);
  if (why)
    return why;
  if ((p->sb.flags & SUPER_F_FORK)
      && !(production ? r->forced && p->sb.tenure < r->tenure : (r->fork >> p->site & 1) != 0))
    return "it is a fork (R6)";
  if (p->sb.tenure > r->tenure)
    return "it has seen a newer tenure (R1)";
  if (!production && p->sb.generation > r->generation)
    return "its generation is newer than the record's (R6)";
  if (p->opening_detached && (p->sb.flags & SUPER_F_UNUSABLE))
    return "there is no state of it to export";
  return production ? opening_check_production (p, r) : NULL;
}

void
opening_no_role (struct wplugin *p)
{
  close_store (p);
  p->role = HOST_NONE;
  p->is_open_to_clients = false;
}

/* The open record: both slots, each stable, before anything relies on it (R1, S1). */
static void
begin_open_record (struct wplugin *p)
{
  struct superblock *sb = &p->sb;
  const bool production = p->opening_production, detached = p->opening_detached;

  sb->role = production ? SUPER_ROLE_PRODUCTION : detached ? SUPER_ROLE_DETACHED : SUPER_ROLE_MIRROR;
  sb->flags = (uint16_t) ((sb->flags & (SUPER_F_UNUSABLE | SUPER_F_FILLING | SUPER_F_WRITTEN)) | SUPER_F_OPEN
                          | (production ? 0 : sb->flags & SUPER_F_FORK) | (detached ? SUPER_F_FORK : 0)
                          | (p->restarted && !production ? SUPER_F_RESTARTED : 0));
  if (!detached) /* R1: a detached copy takes part in no tenure. */
    sb->tenure = p->rec.tenure;
  if (production) {
    sb->generation = p->rec.generation;
    sb->since = p->rec.since[p->site];
  }
  sb->in_set = p->rec.in_set;
  sb->loss = p->rec.loss;
  node_name (p->node, sb->open_node);
  node_boot_id (p->node, sb->open_boot_id);
  sb->open_session = p->session;
  p->blocked = true; /* the engine thread waits for the disk */
  slot_write (p, DF_OPEN, 0);
}

static void
finished (struct wplugin *p, int error)
{
  const char *why = error ? "its superblock can't be written" : NULL;

  p->blocked = p->claiming = p->slow_opening = false;
  if (!why && p->opening_detached) {
    p->role = HOST_DETACHED;
    TRACE ("n%u iasp %u is detached, exported %u", p->node + 1, p->iasp, p->rec.exported);
    plugin_answer (p, &p->opening, CTL_TOLD, true, "");
    return;
  }
  if (!why)
    why = p->opening_production ? prodside_start (p, p->opening_equal, p->opening_again) : copyside_start (p);
  if (why) {
    opening_no_role (p);
    plugin_answer (p, &p->opening, CTL_TOLD, false, why);
    return;
  }
  p->role = p->opening_production ? HOST_PRODUCTION : HOST_MIRROR;
  TRACE ("n%u iasp %u is %s, tenure %llu, generation %llu%s%s", p->node + 1, p->iasp,
         p->opening_production ? "production" : "mirror", (unsigned long long) p->rec.tenure,
         (unsigned long long) p->sb.generation, p->restarted ? ", restarted" : "",
         p->opening_production && !p->opening_equal ? ", after an unclean end" : "");
  if (p->opening_production) {
    check_opened (p);
    p->is_open_to_clients = true;
  }
  plugin_answer (p, &p->opening, CTL_TOLD, true, "");
}

/* Both slots are stable, or could not be written. */
void
opening_written (struct wplugin *p, int error)
{
  if (!p->claiming) {
    finished (p, error);
    return;
  }
  p->opening_error = error;
  claim_act (p, claim_end (&p->claim));
}

void
opening_start_role (struct wplugin *p, const struct ctlmsg *m, bool production)
{
  const struct superblock *sb = &p->sb;
  bool first = sb->role == SUPER_ROLE_MIRROR;
  bool equal = super_set_is_equal (sb, p->was_clean, m->rec.tenure);
  bool forced = m->rec.forced && sb->tenure < m->rec.tenure;

  if (m != &p->opening)
    p->opening = *m;
  p->opening_production = production;
  p->opening_detached = false;
  p->opening_equal = equal;
  p->opening_again = !equal && !first;
  p->rec = m->rec;
  p->store_told = p->store_dead = false;
  mapw_open (p, production, production && forced);
  if (production)
    p->lease_until_ms = m->until_ms;
  begin_open_record (p);
}

/* R6: a fork, for clients of its own. */
static void
start_detached (struct wplugin *p)
{
  p->rec = p->opening.rec;
  p->store_told = p->store_dead = false;
  memset (&p->mapw, 0, sizeof p->mapw);
  p->sb.flags = (uint16_t) (p->sb.flags & ~SUPER_F_WRITTEN); /* mapw.c: forget_written */
  begin_open_record (p);
}

/* ---- the claim (S1) ----------------------------------------------------------------------- */

static void
refuse (struct wplugin *p, const char *why)
{
  p->blocked = p->claiming = p->slow_opening = false;
  plugin_answer (p, &p->opening, CTL_TOLD, false, why);
}

/* The store is ours: its lock lies on what carries its I/O from now on. */
static void
own_store (struct wplugin *p)
{
  struct wdisk *d = disk_of (p);

  if (d->lock_life != 0 && !disk_is_released (d))
    world_fail ("n%u opens a store that n%u has open, or still writes to (S1)", p->node + 1, d->lock_node + 1u);
  d->lock_life = p->life;
  d->lock_node = p->node;
  d->last_machine = w.node[p->node].machine;
  d->lock_dying = false;
  p->open = true;
}

static void
claim_held (struct wplugin *p)
{
  p->opening_why = judge_store (p);
  if (!p->opening_why && p->opening_production && p->opening.until_ms != 0 && plugin_ms (p) >= p->opening.until_ms)
    p->opening_why = "the lease ended before this node could open it (S1)";
  if (p->opening_why) {
    claim_act (p, claim_end (&p->claim));
    return;
  }
  own_store (p);
  if (p->opening_detached)
    start_detached (p);
  else
    opening_start_role (p, &p->opening, p->opening_production);
}

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
    claim_held (p);
    break;
  case CLAIM_REFUSED:
    refuse (p, p->claim.error ? "its claims can't be read or written" : "another node is opening it (S1)");
    break;
  case CLAIM_ENDED:
    if (p->opening_why)
      refuse (p, p->opening_why);
    else
      finished (p, p->opening_error ? p->opening_error : p->claim.error);
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

/* A role for a store that is not open yet. */
void
opening_begin (struct wplugin *p, const struct ctlmsg *m)
{
  char name[CRG_NAME_MAX + 1];
  uint8_t boot[CRG_ID_LEN];
  const char *why;

  p->opening = *m;
  p->opening_production = m->role == HOST_PRODUCTION;
  p->opening_detached = m->role == HOST_DETACHED;
  p->opening_error = 0;
  p->opening_why = NULL;
  why = disk_is_locked (disk_of (p), w.node[p->node].machine) ? "another process has it open (S1)" : judge_store (p);
  if (why) {
    plugin_answer (p, m, CTL_TOLD, false, why);
    return;
  }
  p->blocked = p->claiming = true; /* the engine thread waits for the disk */
  p->slow_opening = !w.healing && chance (8);
  node_name (p->node, name);
  node_boot_id (p->node, boot);
  claim_act (p, claim_begin (&p->claim, p->node + 1u, name, boot, p->session));
}
