/* SPDX-License-Identifier: BSD-3-Clause */
/* Superblocks on the open store.  What is refused here is refused with the object and the way
 * out; nothing is ever repaired by a guess (R6).
 */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/ident.h"
#include "common/util-posix.h"
#include "plugin/storemeta.h"

int
storemeta_init (struct storemeta *sm)
{
  void *p;

  memset (sm, 0, sizeof *sm);
  sm->slot = -1;
  if (posix_memalign (&p, META_BLOCK_SIZE, META_BLOCK_SIZE) != 0)
    return -ENOMEM;
  sm->block = p;
  return 0;
}

void
storemeta_destroy (struct storemeta *sm)
{
  free (sm->block);
  sm->block = NULL;
}

/* SUPER_EMPTY also for a store that is too small to hold one.  -errno if it can't be read. */
static int
read_slots (struct store *s, struct superblock *sb, struct super_choice *choice)
{
  CLEANUP_FREE uint8_t *blocks = NULL;
  uint64_t offset[2];
  void *p;
  int r;

  memset (choice, 0, sizeof *choice);
  if (meta_slot_offsets (s->store_bytes, offset) < 0)
    return SUPER_EMPTY;
  if (posix_memalign (&p, META_BLOCK_SIZE, 2 * META_BLOCK_SIZE) != 0)
    return -ENOMEM;
  blocks = p;
  store_forget (s, offset[0], 2 * META_BLOCK_SIZE);
  for (unsigned i = 0; i < 2; i++) {
    r = store_pread (s, blocks + i * META_BLOCK_SIZE, META_BLOCK_SIZE, offset[i]);
    if (r < 0)
      return r;
  }
  return (int) super_choose (blocks, blocks + META_BLOCK_SIZE, sb, choice);
}

int
storemeta_check_free (struct store *s, const char *path, char *err, size_t errlen)
{
  struct super_choice choice;
  struct superblock sb;
  int r = read_slots (s, &sb, &choice);

  if (r < 0) {
    snprintf (err, errlen, "store %s: cannot read its end: %s", path, strerror (-r));
    return r;
  }
  /* W2: what is written here would be missing in its map. */
  if (r == SUPER_OK && (sb.flags & SUPER_F_WRITTEN) && ident_id_is_zero (sb.crg_id)) {
    snprintf (err, errlen, "store %s: it was made ready for a CRG and is known to be all zeroes, of which role=production "
              "by hand would keep no account; start it with crgctl, or make it anew with crgctl iasp create --keep-data",
              path);
    return -EBUSY;
  }
  if (r == SUPER_EMPTY || (r == SUPER_OK && ident_id_is_zero (sb.crg_id)))
    return 0;
  if (r == SUPER_OK)
    snprintf (err, errlen, "store %s: it holds IASP '%s' of CRG '%s' (site %s); role=production by hand "
              "is refused on it: start it with crgctl, or copy it first", path, sb.iasp, sb.crg, sb.site_name);
  else
    snprintf (err, errlen, "store %s: its end holds a superblock of ours that can't be used (%s); "
              "role=production by hand is refused on it", path, super_strerror ((enum super_status) r));
  return -EBUSY;
}

int
storemeta_read (struct storemeta *sm, struct store *s, const char *path, char *err, size_t errlen)
{
  struct super_choice choice;
  const char *why;
  int r;

  sm->valid = false;
  sm->damaged = false;
  sm->slot = -1;
  r = read_slots (s, &sm->sb, &choice);
  if (r < 0) {
    snprintf (err, errlen, "store %s: cannot read its superblocks: %s", path, strerror (-r));
    return r;
  }
  if (r == SUPER_EMPTY)
    return -ENODATA;
  if (r != SUPER_OK) {
    snprintf (err, errlen, "store %s: its superblocks can't be used: %s; keep the store, and name another "
              "one or restore it", path, super_strerror ((enum super_status) r));
    return -EUCLEAN;
  }
  why = metafile_refuses (&s->meta, &sm->sb);
  if (why) {
    snprintf (err, errlen, "store %s: %s", path, why);
    return -ESTALE;
  }
  sm->valid = true;
  sm->damaged = choice.damaged;
  sm->slot = choice.slot;
  return 0;
}

int
storemeta_format (struct storemeta *sm, struct store *s, const struct params *p, uint8_t site, char *err,
                  size_t errlen)
{
  struct superblock *sb = &sm->sb;
  struct meta_layout layout;
  int r = metafile_layout (&s->meta, s->own_bytes, p->dirty_block, &layout);

  if (s->meta.fd != -1 && (r < 0 || layout.data_bytes < p->size)) {
    snprintf (err, errlen, "store %s: its %llu bytes are too few for an export of %llu, or the %llu of its metadata %s, "
              "which needs %llu", p->store, (unsigned long long) s->own_bytes, (unsigned long long) p->size,
              (unsigned long long) s->meta.bytes, p->meta,
              (unsigned long long) meta_bytes_apart (s->own_bytes, p->dirty_block));
    return -ENOSPC;
  }
  if (r < 0 || layout.data_bytes < p->size) {
    snprintf (err, errlen, "store %s: %llu bytes are too few for an export of %llu; it needs %llu", p->store,
              (unsigned long long) s->store_bytes, (unsigned long long) p->size,
              (unsigned long long) meta_store_bytes_for (p->size, p->dirty_block));
    return -ENOSPC;
  }
  memset (sb, 0, sizeof *sb);
  clock_random_id (sb->store_id);
  memcpy (sb->cluster_id, p->cluster_id, CRG_ID_LEN);
  memcpy (sb->crg_id, p->crg_id, CRG_ID_LEN);
  memcpy (sb->iasp_id, p->iasp_id, CRG_ID_LEN);
  memcpy (sb->lineage, p->lineage, CRG_ID_LEN);
  snprintf (sb->crg, sizeof sb->crg, "%s", p->crg);
  snprintf (sb->iasp, sizeof sb->iasp, "%s", p->name);
  snprintf (sb->site_name, sizeof sb->site_name, "%s", p->site);
  sb->site = site;
  sb->role = SUPER_ROLE_NONE;
  sb->store_bytes = s->store_bytes;
  sb->data_bytes = p->size;
  sb->block_size = 512;
  sb->dirty_block_size = p->dirty_block;
  metafile_describe (&s->meta, sb);
  sm->valid = true;
  sm->damaged = false;
  sm->slot = 1; /* the first version goes to slot 0 */
  return 0;
}

uint64_t
storemeta_prepare (struct storemeta *sm)
{
  uint64_t offset[2];
  unsigned slot = sm->slot == 0 ? 1 : 0;
  int r = meta_slot_offsets (sm->sb.store_bytes, offset);

  /* The store was opened with this size, so it has slots. */
  if (r < 0)
    abort ();
  sm->sb.sequence++;
  super_encode (&sm->sb, slot, sm->block);
  sm->slot = (int) slot;
  return offset[slot];
}

void
storemeta_failed (struct storemeta *sm)
{
  sm->slot = sm->slot == 0 ? 1 : 0;
  /* The next write goes to the same slot, with the same number: a gap would say damage. */
  sm->sb.sequence--;
}

int
storemeta_write (struct storemeta *sm, struct store *s, bool both)
{
  for (unsigned i = 0; i < (both ? 2u : 1u); i++) {
    uint64_t offset = storemeta_prepare (sm);
    int r = store_pwrite (s, sm->block, META_BLOCK_SIZE, offset, 0);

    if (r == 0)
      r = store_flush_all (s);
    if (r < 0) {
      storemeta_failed (sm);
      return r;
    }
  }
  return 0;
}
