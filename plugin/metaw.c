/* SPDX-License-Identifier: BSD-3-Clause */
/* Superblocks on their way to disk while the engine goes on: one at a time, each version stable
 * before anybody hears of it.  What forbids something goes to both slots, one after the other.
 */
#include "config.h"

#include <string.h>

#include "plugin/engine_private.h"
#include "plugin/log.h"

enum { IDLE, DATA_FLUSH, FIRST, SECOND };

static void begin (struct engine *e);

static void
write_slot (struct engine *e, unsigned stage)
{
  uint64_t offset = storemeta_prepare (&e->meta);

  e->metaw.stage = (uint8_t) stage;
  sop_start (&e->metaw.sop, SOP_WRITE, offset, META_BLOCK_SIZE, e->meta.block, true, false);
}

/* The fields that CA_SUPER asks for take effect only now, after the flush of the data. */
static void
apply_super (struct engine *e)
{
  const struct copy_action *a = &e->metaw.super;
  struct superblock *sb = &e->meta.sb;
  bool was_unusable = sb->flags & SUPER_F_UNUSABLE;

  e->metaw.both = a->tenure > sb->tenure || (a->unusable && !was_unusable) || a->since < sb->since;
  sb->tenure = a->tenure;
  sb->generation = MAX (sb->generation, a->generation);
  sb->since = a->since;
  sb->role = SUPER_ROLE_MIRROR;
  /* R5, R6: being filled, or filled. */
  if (a->unusable || a->flush_data)
    sb->flags = (uint16_t) (sb->flags & ~(SUPER_F_RESTARTED | SUPER_F_FORK));
  /* Until it is filled the record has it as a fork, whose map counts. */
  if (a->flush_data)
    sb->flags = (uint16_t) (sb->flags & ~SUPER_F_TRACKED);
  sb->flags = (uint16_t) ((sb->flags & ~(SUPER_F_UNUSABLE | SUPER_F_FILLING)) | (a->unusable ? SUPER_F_UNUSABLE : 0)
                          | (a->filling ? SUPER_F_FILLING : 0));
}

static void
meta_done (struct sop *op, int error)
{
  struct metaw *m = container_of (op, struct metaw, sop);
  struct engine *e = container_of (m, struct engine, metaw);

  if (error == 0 && m->stage == DATA_FLUSH) {
    apply_super (e);
    write_slot (e, FIRST);
    return;
  }
  if (error == 0 && m->stage == FIRST && m->both) {
    write_slot (e, SECOND);
    return;
  }
  if (error < 0 && m->stage != DATA_FLUSH)
    storemeta_failed (&e->meta);
  m->stage = IDLE;
  m->busy = false;
  if (error < 0)
    log_line ("superblock of %s: %s", e->ia->p.store, strerror (-error));
  if (m->is_super)
    copyside_super_done (e, error);
  begin (e);
}

static void
begin (struct engine *e)
{
  struct metaw *m = &e->metaw;

  if (m->busy || e->ia->store.fd == -1)
    return;
  if (m->want_super) {
    m->want_super = false;
    m->busy = m->is_super = true;
    if (m->super.flush_data) {
      m->stage = DATA_FLUSH;
      sop_start (&m->sop, SOP_FLUSH, 0, 0, NULL, false, false);
      return;
    }
    apply_super (e);
    write_slot (e, FIRST);
  }
  else if (m->want_lazy && (e->meta.sb.flags & SUPER_F_CLEAN))
    m->want_lazy = false; /* S1: released, and perhaps another host's by now */
  else if (m->want_lazy) {
    m->want_lazy = false;
    m->busy = true;
    m->is_super = m->both = false;
    write_slot (e, FIRST);
  }
}

int
metaw_init (struct engine *e)
{
  return sop_init (&e->metaw.sop, &e->env, meta_done);
}

void
metaw_lazy (struct engine *e)
{
  e->metaw.want_lazy = true;
  begin (e);
}

void
metaw_super (struct engine *e, const struct copy_action *a)
{
  e->metaw.super = *a;
  e->metaw.want_super = true;
  begin (e);
}

bool
metaw_is_idle (const struct engine *e)
{
  return !e->metaw.busy && !e->metaw.want_super && !e->metaw.want_lazy;
}
