/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The tasks of probe.h.  Called in children that the daemon may kill at any
 * moment; store_format and store_wipe write, and store_probe a fork's mark.
 */
#include "config.h"

#include "server/probe.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <libnbd.h>

#include "common/clock.h"
#include "common/ident.h"
#include "common/signature.h"
#include "common/super.h"
#include "common/util-posix.h"

/* `reason` has CRG_REASON_MAX + 1 bytes; longer text is cut. */
static void UTIL_PRINTF (2, 3)
say (char *reason, const char *fmt, ...)
{
  va_list ap;

  va_start (ap, fmt);
  vsnprintf (reason, CRG_REASON_MAX + 1, fmt, ap);
  va_end (ap);
}

/* ---- stores ---------------------------------------------------------------------------- */

/* A descriptor and the size in bytes, or -errno with a reason. */
static int
open_store (const char *path, int flags, uint64_t *bytes, unsigned *sector, char *reason)
{
  int fd = open (path, flags | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
  struct stat st;
  int ssz = 512;

  if (fd < 0 || fstat (fd, &st) < 0) {
    int r = -errno;

    say (reason, "store %s: %s", path, strerror (-r));
    if (fd >= 0)
      close (fd);
    return r;
  }
  if (S_ISREG (st.st_mode))
    *bytes = (uint64_t) st.st_size;
  else if (!S_ISBLK (st.st_mode) || ioctl (fd, BLKGETSIZE64, bytes) < 0
           || ioctl (fd, BLKSSZGET, &ssz) < 0) {
    say (reason, "store %s: neither a regular file nor a block device", path);
    close (fd);
    return -ENOTBLK;
  }
  if (sector)
    *sector = ssz >= 512 && is_power_of_2 ((uint64_t) ssz) ? (unsigned) ssz : 512;
  return fd;
}

static int
read_at (int fd, void *buf, size_t len, uint64_t offset)
{
  uint8_t *p = buf;

  while (len > 0) {
    ssize_t r = pread (fd, p, len, (off_t) offset);

    if (r < 0 && errno == EINTR)
      continue;
    if (r <= 0)
      return r < 0 ? -errno : -EIO;
    p += r;
    len -= (size_t) r;
    offset += (uint64_t) r;
  }
  return 0;
}

static int
write_at (int fd, const void *buf, size_t len, uint64_t offset)
{
  const uint8_t *p = buf;

  while (len > 0) {
    ssize_t r = pwrite (fd, p, len, (off_t) offset);

    if (r < 0 && errno == EINTR)
      continue;
    if (r <= 0)
      return r < 0 ? -errno : -EIO;
    p += r;
    len -= (size_t) r;
    offset += (uint64_t) r;
  }
  return 0;
}

/* The newest superblock.  0; -errno with a reason: the store can't be read. */
static int
read_super (int fd, const char *path, uint64_t bytes, struct superblock *sb,
            struct super_choice *choice, enum super_status *status, char *reason)
{
  static uint8_t slot[2][META_BLOCK_SIZE];
  uint64_t offset[2];
  int r = meta_slot_offsets (bytes, offset);

  if (r < 0) {
    say (reason, "store %s: %s", path,
              r == -ENOSPC ? "too small for our metadata" : "larger than we can address");
    return r;
  }
  /* The plugin writes past the page cache; what is cached here may be old. */
  posix_fadvise (fd, (off_t) offset[0] & ~(off_t) 4095, 0, POSIX_FADV_DONTNEED);
  for (unsigned i = 0; i < 2 && r == 0; i++)
    r = read_at (fd, slot[i], META_BLOCK_SIZE, offset[i]);
  if (r < 0) {
    say (reason, "store %s: reading the superblock: %s", path, strerror (-r));
    return r;
  }
  *status = super_choose (slot[0], slot[1], sb, choice);
  return 0;
}

/* S1: the lock lies on the description that carries the I/O, so a free lock
 * means that no I/O of another process on this machine can reach the store. */
static bool
lock_is_free (int fd)
{
  struct flock fl = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

  return fcntl (fd, F_OFD_GETLK, &fl) == 0 && fl.l_type == F_UNLCK;
}

static bool
is_in (char names[][CRG_NAME_MAX + 1], unsigned n, const char *node)
{
  for (unsigned i = 0; i < n; i++)
    if (strcmp (names[i], node) == 0)
      return true;
  return false;
}

/* R6: the record has given this store up as a fork, and nobody has it open: its disk says so from
 * now on, in both slots, whatever becomes of the record.  Under the lock, so that no plugin writes a
 * superblock meanwhile. */
static void
mark_fork (const char *path, char *reason)
{
  static uint8_t block[META_BLOCK_SIZE];
  struct flock fl = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
  struct superblock sb;
  struct super_choice choice;
  enum super_status status;
  uint64_t bytes, offset[2];
  int fd = open_store (path, O_RDWR, &bytes, NULL, reason);
  unsigned slot;
  int r = 0;

  if (fd < 0)
    return;
  if (fcntl (fd, F_OFD_SETLK, &fl) == 0
      && read_super (fd, path, bytes, &sb, &choice, &status, reason) == 0 && status == SUPER_OK
      && !(sb.flags & SUPER_F_FORK) && meta_slot_offsets (bytes, offset) == 0) {
    sb.flags |= SUPER_F_FORK;
    slot = choice.slot == 0;
    for (unsigned i = 0; i < 2 && r == 0; i++, slot = !slot) {
      sb.sequence++;
      super_encode (&sb, slot, block);
      r = write_at (fd, block, sizeof block, offset[slot]);
      if (r == 0 && fsync (fd) < 0)
        r = -errno;
    }
    if (r < 0)
      say (reason, "store %s: marking it as a fork: %s", path, strerror (-r));
  }
  close (fd);
}

/* True: it is locked by somebody whose node is gone; worth another look. */
static bool
look_at_store (struct store_probe_arg *arg, struct store_probe *res)
{
  struct store_info *info = &res->info;
  struct superblock sb;
  struct super_choice choice;
  enum super_status status;
  uint64_t bytes;
  int fd = open_store (arg->store, O_RDONLY, &bytes, NULL, res->reason);
  bool same_boot, is_open, again = false;

  if (fd < 0 || read_super (fd, arg->store, bytes, &sb, &choice, &status, res->reason) < 0)
    return false;
  res->ok = true;
  if (status != SUPER_OK) {
    say (res->reason, "store %s: %s", arg->store, super_strerror (status));
    return false;
  }
  info->has_super = true;
  info->agrees_ids = ident_id_equal (sb.cluster_id, arg->cluster_id)
                     && ident_id_equal (sb.crg_id, arg->crg_id)
                     && ident_id_equal (sb.iasp_id, arg->iasp_id) && sb.site == arg->site
                     && sb.data_bytes == arg->size;
  info->fork = (sb.flags & SUPER_F_FORK) != 0;
  is_open = (sb.flags & SUPER_F_OPEN) || !(sb.flags & SUPER_F_CLEAN);
  same_boot = ident_id_equal (sb.open_boot_id, arg->boot_id);
  info->clean = !is_open && !choice.damaged;
  info->unusable = (sb.flags & SUPER_F_UNUSABLE) != 0;
  info->generation = sb.generation;
  info->tenure = sb.tenure;
  memcpy (info->lineage, sb.lineage, CRG_ID_LEN);
  memcpy (info->boot_id, sb.open_boot_id, CRG_ID_LEN);
  info->size = sb.data_bytes;
  /* R5: a machine that had it open has restarted since, or it was another
   * machine and it didn't release it. */
  info->restarted = (sb.flags & SUPER_F_RESTARTED) || (is_open && !same_boot && !arg->own_has_open);
  if (!info->agrees_ids)
    say (res->reason, "store %s: it belongs to IASP %s of CRG %s, site %s, %llu bytes%s; not to this one",
              arg->store, sb.iasp, sb.crg, sb.site_name, (unsigned long long) sb.data_bytes,
              sb.flags & SUPER_F_FORK ? ", and is a fork" : "");
  else if (arg->own_has_open)
    info->can_host = true;
  else if (!lock_is_free (fd)) {
    again = is_open && same_boot && !is_in (arg->present, arg->n_present, sb.open_node);
    say (res->reason, "store %s: another process on this machine has it open (last opened by node %s)",
              arg->store, sb.open_node[0] ? sb.open_node : "none");
  }
  else if (!is_open || same_boot || strcmp (sb.open_node, arg->node) == 0)
    info->can_host = true; /* S1 a, b */
  else if (is_in (arg->fenced, arg->n_fenced, sb.open_node))
    info->can_host = true; /* S1 d */
  else {
    snprintf (res->held_by, sizeof res->held_by, "%s", sb.open_node);
    say (res->reason, "store %s: node %s had it open and did not release it; its writes may still come "
              "(S1; crgctl mark-failed if it is dead)",
              arg->store, sb.open_node);
  }
  close (fd);
  return again;
}

void
store_probe (const void *varg, void *vresult)
{
  static const struct timespec look = { .tv_nsec = PROBE_LOOK_MS * 1000000L };
  struct store_probe_arg arg = *(const struct store_probe_arg *) varg;
  struct store_probe *res = vresult;

  for (unsigned i = 0; i <= PROBE_DYING_MS / PROBE_LOOK_MS; i++) {
    if (i > 0)
      nanosleep (&look, NULL);
    memset (res, 0, sizeof *res);
    if (!look_at_store (&arg, res))
      break;
  }
  if (arg.fork && res->info.agrees_ids && res->info.can_host && !res->info.fork && !arg.own_has_open) {
    mark_fork (arg.store, res->reason);
    res->info.fork = res->reason[0] == '\0';
  }
}

static const char *
find_signature (int fd, uint64_t bytes)
{
  static uint8_t head[SIGNATURE_HEAD_BYTES];
  size_t len = (size_t) MIN (bytes, (uint64_t) sizeof head);

  return read_at (fd, head, len, 0) < 0 ? NULL : signature_find (head, len);
}

void
store_check (const void *varg, void *vresult)
{
  const struct store_check_arg *arg = varg;
  struct store_check *res = vresult;
  struct meta_layout layout;
  struct superblock sb;
  struct super_choice choice;
  enum super_status status;
  const char *found;
  uint64_t bytes;
  int fd = open_store (arg->store, O_RDWR, &bytes, NULL, res->reason);
  int r;

  if (fd < 0)
    return;
  r = meta_layout (bytes, arg->dirty_block, &layout);
  if (r < 0) {
    say (res->reason, "store %s: %llu bytes are too %s", arg->store,
              (unsigned long long) bytes, r == -ENOSPC ? "few: at least 1 MiB" : "many");
    return;
  }
  res->data_bytes = layout.data_bytes;
  if (arg->size > layout.data_bytes) {
    say (res->reason, "store %s: it has room for %llu bytes of data beside its metadata, and size asks "
              "for %llu: make it %llu bytes long, or size smaller",
              arg->store, (unsigned long long) layout.data_bytes, (unsigned long long) arg->size,
              (unsigned long long) meta_store_bytes_for (arg->size, arg->dirty_block));
    return;
  }
  if (!lock_is_free (fd)) {
    say (res->reason, "store %s: another process has it open",
              arg->store);
    return;
  }
  if (read_super (fd, arg->store, bytes, &sb, &choice, &status, res->reason) < 0)
    return;
  if (status == SUPER_OK && ident_id_is_zero (sb.crg_id))
    ; /* made ready by `crgctl iasp create`: whoever did that knows what it holds */
  else if (status == SUPER_OK) {
    res->has_crg = true;
    memcpy (res->crg_id, sb.crg_id, CRG_ID_LEN);
    say (res->reason, "store %s: it belongs to IASP %s of CRG %s already; --force takes it", arg->store,
              sb.iasp, sb.crg);
  }
  else if (status != SUPER_EMPTY)
    say (res->reason, "store %s: it holds a damaged superblock of ours (%s); --force takes it",
              arg->store, super_strerror (status));
  else if ((found = find_signature (fd, bytes)) != NULL)
    say (res->reason, "store %s: it holds %s; --force takes it, and its last blocks are overwritten",
              arg->store, found);
  res->needs_force = res->reason[0] != '\0';
  if (res->needs_force && !arg->force)
    return;
  res->reason[0] = '\0';
  res->ok = true;
  close (fd);
}

/* Writes both slots and flushes. */
static int
write_slots (int fd, uint64_t bytes, const uint8_t *slot0)
{
  static const uint8_t zero[META_BLOCK_SIZE];
  uint64_t offset[2];
  int r = meta_slot_offsets (bytes, offset);

  /* The old newest one may lie in either: slot 1 goes first, so that a crash
   * between them never leaves a stranger's superblock as the only one. */
  if (r == 0)
    r = write_at (fd, zero, sizeof zero, offset[1]);
  if (r == 0)
    r = write_at (fd, slot0 ? slot0 : zero, META_BLOCK_SIZE, offset[0]);
  if (r == 0 && fsync (fd) < 0)
    r = -errno;
  return r;
}

void
store_format (const void *varg, void *vresult)
{
  const struct store_format_arg *arg = varg;
  struct store_format *res = vresult;
  static uint8_t block[META_BLOCK_SIZE];
  struct superblock sb = { .sequence = 1, .site = arg->site, .role = SUPER_ROLE_NONE };
  uint64_t bytes;
  unsigned sector;
  int fd = open_store (arg->store, O_RDWR, &bytes, &sector, res->reason);
  int r;

  if (fd < 0)
    return;
  memcpy (sb.store_id, arg->store_id, CRG_ID_LEN);
  memcpy (sb.cluster_id, arg->cluster_id, CRG_ID_LEN);
  memcpy (sb.crg_id, arg->crg_id, CRG_ID_LEN);
  memcpy (sb.iasp_id, arg->iasp_id, CRG_ID_LEN);
  memcpy (sb.lineage, arg->lineage, CRG_ID_LEN);
  memcpy (sb.crg, arg->crg, sizeof sb.crg);
  memcpy (sb.iasp, arg->iasp, sizeof sb.iasp);
  memcpy (sb.site_name, arg->site_name, sizeof sb.site_name);
  sb.flags = arg->in_set ? SUPER_F_CLEAN : SUPER_F_CLEAN | SUPER_F_UNUSABLE;
  sb.store_bytes = bytes;
  sb.data_bytes = arg->size;
  sb.block_size = sector;
  sb.dirty_block_size = arg->dirty_block;
  sb.tenure = arg->tenure;
  sb.generation = arg->generation;
  sb.since = arg->in_set ? arg->generation : 0;
  super_encode (&sb, 0, block);
  r = write_slots (fd, bytes, block);
  if (r < 0)
    say (res->reason, "store %s: writing its superblock: %s", arg->store,
              strerror (-r));
  res->ok = r == 0;
  close (fd);
}

void
store_wipe (const void *varg, void *vresult)
{
  const struct store_format_arg *arg = varg;
  struct store_format *res = vresult;
  struct superblock sb;
  struct super_choice choice;
  enum super_status status;
  uint64_t bytes;
  int fd = open_store (arg->store, O_RDWR, &bytes, NULL, res->reason);
  int r;

  if (fd < 0 || read_super (fd, arg->store, bytes, &sb, &choice, &status, res->reason) < 0)
    return;
  if (status != SUPER_OK || !ident_id_equal (sb.crg_id, arg->crg_id)) {
    res->ok = true; /* not ours (any more) */
    return;
  }
  if (!lock_is_free (fd)) {
    say (res->reason, "store %s: a process has it open", arg->store);
    return;
  }
  r = write_slots (fd, bytes, NULL);
  if (r < 0)
    say (res->reason, "store %s: %s", arg->store, strerror (-r));
  res->ok = r == 0;
}

/* ---- exports --------------------------------------------------------------------------- */

void
export_check (const void *varg, void *vresult)
{
  const struct export_check_arg *arg = varg;
  struct export_check *res = vresult;
  static uint8_t block[4096];
  struct nbd_handle *nbd = nbd_create ();
  int64_t size;

  if (nbd == NULL || nbd_set_uri_allow_local_file (nbd, true) < 0
      || (arg->tls && nbd_set_tls_certificates (nbd, arg->tls_dir) < 0)
      || nbd_connect_uri (nbd, arg->uri) < 0 || (size = nbd_get_size (nbd)) < 0
      || nbd_pread (nbd, block, sizeof block, 0, 0) < 0) {
    say (res->reason, "%s does not answer as an export: %s", arg->uri,
              nbd_get_error () ?: "no memory");
    return;
  }
  res->size = (uint64_t) size;
  if (res->size != arg->size)
    say (res->reason, "%s has %llu bytes and must have %llu", arg->uri,
              (unsigned long long) res->size, (unsigned long long) arg->size);
  else
    res->ok = true;
  nbd_shutdown (nbd, 0);
  nbd_close (nbd);
}
