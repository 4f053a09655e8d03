/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The tasks of probe.h.  Called in children that the daemon may kill at any
 * moment; store_format and store_wipe write, and store_probe a fork's mark, or nobody's to this node's claim.
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

#include "common/claim.h"
#include "common/clock.h"
#include "common/conf.h"
#include "common/ident.h"
#include "common/metafile.h"
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

/* A store that is being looked at. */
struct opened {
  char path[CRG_PATH_MAX + 1], meta_path[CRG_PATH_MAX + 1];
  int fd;
  unsigned sector;
  uint64_t bytes;       /* of the store itself */
  struct metafile meta; /* its metadata, if that is elsewhere */
};

static uint64_t
total (const struct opened *o)
{
  return metafile_total (&o->meta, o->bytes);
}

static void
close_store (struct opened *o)
{
  metafile_close (&o->meta);
  close (o->fd);
}

/* `place` as the group state has it (conf_split_store).  0, or -errno with a reason. */
static int
open_store (struct opened *o, const char *place, int flags, char *reason)
{
  char err[2 * CRG_PATH_MAX];
  struct stat st;
  int ssz = 512, r = 0;

  conf_split_store (place, o->path, o->meta_path);
  metafile_none (&o->meta);
  o->fd = open (o->path, flags | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
  if (o->fd < 0 || fstat (o->fd, &st) < 0) {
    r = -errno;
    say (reason, "store %s: %s", o->path, strerror (-r));
  }
  else if (S_ISREG (st.st_mode))
    o->bytes = (uint64_t) st.st_size;
  else if (!S_ISBLK (st.st_mode) || ioctl (o->fd, BLKGETSIZE64, &o->bytes) < 0
           || ioctl (o->fd, BLKSSZGET, &ssz) < 0) {
    say (reason, "store %s: neither a regular file nor a block device", o->path);
    r = -ENOTBLK;
  }
  o->sector = ssz >= 512 && is_power_of_2 ((uint64_t) ssz) ? (unsigned) ssz : 512;
  if (r == 0) {
    r = metafile_open (&o->meta, o->meta_path, flags, o->fd, o->bytes, err, sizeof err);
    if (r < 0)
      say (reason, "%s", err);
  }
  if (r < 0 && o->fd >= 0)
    close (o->fd);
  return r;
}

static int
read_at (const struct opened *o, void *buf, size_t len, uint64_t offset)
{
  const int fd = metafile_at (&o->meta, o->fd, &offset);
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
write_at (const struct opened *o, const void *buf, size_t len, uint64_t offset)
{
  const int fd = metafile_at (&o->meta, o->fd, &offset);
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

static int
flush (const struct opened *o)
{
  return fsync (o->fd) < 0 || (o->meta.fd >= 0 && fsync (o->meta.fd) < 0) ? -errno : 0;
}

/* The plugin writes past the page cache; what is cached here may be old. */
static void
forget_cache (const struct opened *o, uint64_t offset)
{
  const int fd = metafile_at (&o->meta, o->fd, &offset);

  posix_fadvise (fd, (off_t) offset & ~(off_t) 4095, 0, POSIX_FADV_DONTNEED);
}

/* The newest superblock, whatever it is of.  0; -errno with a reason: the store can't be read. */
static int
read_super (const struct opened *o, struct superblock *sb, struct super_choice *choice,
            enum super_status *status, char *reason)
{
  static uint8_t slot[2][META_BLOCK_SIZE];
  uint64_t offset[2];
  int r = meta_slot_offsets (total (o), offset);

  if (r < 0) {
    say (reason, "store %s: %s", o->path,
              r == -ENOSPC ? "too small for our metadata" : "larger than we can address");
    return r;
  }
  forget_cache (o, offset[0]);
  for (unsigned i = 0; i < 2 && r == 0; i++)
    r = read_at (o, slot[i], META_BLOCK_SIZE, offset[i]);
  if (r < 0) {
    say (reason, "store %s: reading the superblock: %s", o->path, strerror (-r));
    return r;
  }
  *status = super_choose (slot[0], slot[1], sb, choice);
  return 0;
}

/* S1: the lock lies on the description that carries the I/O, so a free lock
 * means that no I/O of another process on this machine can reach the store.
 * `cmd` asks for it, or takes it. */
static bool
lock_one (int fd, int cmd)
{
  struct flock fl = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

  return fcntl (fd, cmd, &fl) == 0 && (cmd == F_OFD_SETLK || fl.l_type == F_UNLCK);
}

static bool
lock (const struct opened *o, int cmd)
{
  return lock_one (o->fd, cmd) && (o->meta.fd < 0 || lock_one (o->meta.fd, cmd));
}

static bool
lock_is_free (const struct opened *o)
{
  return lock (o, F_OFD_GETLK);
}

static bool
is_in (char names[][CRG_NAME_MAX + 1], unsigned n, const char *node)
{
  for (unsigned i = 0; i < n; i++)
    if (strcmp (names[i], node) == 0)
      return true;
  return false;
}

/* ---- claims (S1) ------------------------------------------------------------------------ */

struct claimed {
  const struct opened *o;
  struct store_probe_arg *arg;
};

static int
claim_read (void *opaque, void *buf, uint32_t len, uint64_t offset)
{
  const struct opened *o = ((struct claimed *) opaque)->o;

  forget_cache (o, offset);
  return read_at (o, buf, len, offset);
}

static int
claim_write (void *opaque, const void *buf, uint32_t len, uint64_t offset)
{
  const struct opened *o = ((struct claimed *) opaque)->o;
  int r = write_at (o, buf, len, offset);

  return r < 0 ? r : flush (o);
}

static bool
claim_is_fenced (void *opaque, const char *node)
{
  struct store_probe_arg *arg = ((struct claimed *) opaque)->arg;

  return is_in (arg->fenced, arg->n_fenced, node);
}

/* In both slots, one after the other. */
static int
write_both (const struct opened *o, struct superblock *sb, unsigned slot, const uint64_t offset[2])
{
  static uint8_t block[META_BLOCK_SIZE];
  int r = 0;

  for (unsigned i = 0; i < 2 && r == 0; i++, slot = !slot) {
    sb->sequence++;
    super_encode (sb, slot, block);
    r = write_at (o, block, sizeof block, offset[slot]);
    if (r == 0)
      r = flush (o);
  }
  return r;
}

static bool
is_open_now (const struct superblock *sb)
{
  return (sb->flags & SUPER_F_OPEN) || !(sb->flags & SUPER_F_CLEAN);
}

static const char *
opener (const struct superblock *sb)
{
  return sb->open_node[0] ? sb->open_node : "?";
}

static bool
is_barred (const struct superblock *sb, struct store_probe_arg *arg)
{
  return is_open_now (sb)
         && !claim_record_is_over (sb, arg->node, arg->boot_id, is_in (arg->fenced, arg->n_fenced, sb->open_node));
}

/* R6: the record has given this store up as a fork, and nobody has it open: its disk says so from
 * now on, whatever becomes of the record. */
static bool
as_fork (struct superblock *sb, const struct store_probe_arg *arg)
{
  (void) arg;
  if (sb->flags & SUPER_F_FORK)
    return false;
  sb->flags |= SUPER_F_FORK;
  return true;
}

/* S1 b: this machine had it open, and has restarted since: the other nodes of the site can't know that. */
static bool
as_over (struct superblock *sb, const struct store_probe_arg *arg)
{
  if (!claim_is_of_the_past (sb, arg->node, arg->boot_id))
    return false;
  memset (sb->open_boot_id, 0, CRG_ID_LEN);
  return true;
}

/* Writes what `amend` makes of the superblock, if it changes it.  Under the lock and with a claim, so that no
 * plugin, here or on another node, writes a superblock meanwhile. */
static void
mark (struct store_probe_arg *arg, bool (*amend) (struct superblock *sb, const struct store_probe_arg *arg),
      const char *what, char *reason)
{
  struct superblock first, sb;
  struct super_choice choice;
  enum super_status status;
  struct opened o;
  struct claimed cl = { .o = &o, .arg = arg };
  const struct claim_io io = { .opaque = &cl, .read = claim_read, .write = claim_write, .is_fenced = claim_is_fenced };
  struct claim claim;
  uint64_t offset[2], session;
  int r = 0, given;

  if (open_store (&o, arg->store, O_RDWR, reason) < 0)
    return;
  clock_random (&session, sizeof session);
  if (lock (&o, F_OFD_SETLK) && read_super (&o, &first, &choice, &status, reason) == 0 && status == SUPER_OK
      && !metafile_refuses (&o.meta, &first) && meta_slot_offsets (total (&o), offset) == 0) {
    r = claim_take (&claim, &first, arg->node_id, arg->node, arg->boot_id, session, &io);
    if (r == 0) {
      r = read_super (&o, &sb, &choice, &status, reason);
      if (r == 0 && (status != SUPER_OK || is_barred (&sb, arg)))
        r = -EBUSY;
      if (r == 0 && amend (&sb, arg))
        r = write_both (&o, &sb, choice.slot == 0, offset);
      given = claim_give (&claim, &first, &io);
      r = r == 0 ? given : r;
    }
  }
  if (r < 0)
    say (reason, "store %s: marking it as %s: %s", o.path, what,
         r == -EBUSY ? "another node has opened it, or is opening it" : strerror (-r));
  close_store (&o);
}

/* S1: a process of this node died while it opened the store: its claim would keep out the other nodes of the
 * site.  Under the lock, so that nothing of it is under way any more, and no other one begins. */
static void
tidy_claim (struct store_probe_arg *arg)
{
  char reason[CRG_REASON_MAX + 1];
  struct superblock sb;
  struct super_choice choice;
  enum super_status status;
  struct opened o;
  struct claimed cl = { .o = &o, .arg = arg };
  const struct claim_io io = { .opaque = &cl, .read = claim_read, .write = claim_write, .is_fenced = claim_is_fenced };

  if (open_store (&o, arg->store, O_RDWR, reason) < 0)
    return;
  if (lock (&o, F_OFD_SETLK) && read_super (&o, &sb, &choice, &status, reason) == 0 && status == SUPER_OK
      && !metafile_refuses (&o.meta, &sb))
    claim_tidy (&sb, arg->node_id, arg->node, &io); /* or next time */
  close_store (&o);
}

/* S1: the node whose claim stands in the way, or "".  True: one of our own does, too. */
static bool
look_at_claims (const struct opened *o, const struct superblock *sb, struct store_probe_arg *arg,
                char node[CRG_NAME_MAX + 1])
{
  bool own = false;

  static uint8_t blocks[META_CLAIMS][META_BLOCK_SIZE];
  struct claimed cl = { .o = o, .arg = arg };
  struct meta_layout layout;
  struct claim_block c;

  node[0] = '\0';
  if (meta_layout (sb->store_bytes, sb->dirty_block_size, &layout) < 0
      || claim_read (&cl, blocks, sizeof blocks, layout.claims.offset) < 0)
    return false; /* the plugin will find out */
  for (unsigned i = 0; i < META_CLAIMS; i++) {
    if (!claim_decode (blocks[i], i, sb->store_id, &c))
      continue;
    own = own || strcmp (c.node, arg->node) == 0;
    if (!claim_is_over (c.node, c.boot_id, arg->node, arg->boot_id, claim_is_fenced (&cl, c.node)))
      memcpy (node, c.node, sizeof c.node);
  }
  return own;
}

/* True: it is locked by somebody whose node is gone; worth another look. */
static bool
look_at_store (struct store_probe_arg *arg, struct store_probe *res, bool *own_claim, bool *own_past)
{
  struct store_info *info = &res->info;
  struct superblock sb;
  struct super_choice choice;
  enum super_status status;
  struct opened o;
  const char *why;
  char claimed[CRG_NAME_MAX + 1];
  bool same_boot, is_open, again = false;

  if (open_store (&o, arg->store, O_RDONLY, res->reason) < 0)
    return false;
  if (read_super (&o, &sb, &choice, &status, res->reason) < 0) {
    close_store (&o);
    return false;
  }
  res->ok = true;
  why = status == SUPER_OK ? metafile_refuses (&o.meta, &sb) : super_strerror (status);
  if (why) {
    say (res->reason, "store %s: %s", o.path, why);
    close_store (&o);
    return false;
  }
  info->has_super = true;
  info->agrees_ids = ident_id_equal (sb.cluster_id, arg->cluster_id)
                     && ident_id_equal (sb.crg_id, arg->crg_id)
                     && ident_id_equal (sb.iasp_id, arg->iasp_id) && sb.site == arg->site
                     && sb.data_bytes == arg->size;
  info->fork = (sb.flags & SUPER_F_FORK) != 0;
  is_open = is_open_now (&sb);
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
              o.path, sb.iasp, sb.crg, sb.site_name, (unsigned long long) sb.data_bytes,
              sb.flags & SUPER_F_FORK ? ", and is a fork" : "");
  else if (arg->own_has_open)
    info->can_host = true;
  else if (!lock_is_free (&o)) {
    again = is_open && same_boot && !is_in (arg->present, arg->n_present, sb.open_node);
    say (res->reason, "store %s: another process on this machine has it open (last opened by node %s)",
              o.path, sb.open_node[0] ? sb.open_node : "none");
  }
  else if (*own_claim = look_at_claims (&o, &sb, arg, claimed), claimed[0]) {
    memcpy (res->held_by, claimed, sizeof claimed);
    say (res->reason, "store %s: node %s is opening it, or was when it died (S1; crgctl mark-failed if it is dead)",
         o.path, claimed);
  }
  else if (!is_barred (&sb, arg)) {
    info->can_host = true; /* S1 a, b, d */
    *own_past = claim_is_of_the_past (&sb, arg->node, arg->boot_id);
  }
  else {
    snprintf (res->held_by, sizeof res->held_by, "%s", sb.open_node);
    say (res->reason, "store %s: node %s had it open and did not release it; its writes may still come "
              "(S1; crgctl mark-failed if it is dead)",
              o.path, sb.open_node);
  }
  close_store (&o);
  return again;
}

void
store_probe (const void *varg, void *vresult)
{
  static const struct timespec look = { .tv_nsec = PROBE_LOOK_MS * 1000000L };
  struct store_probe_arg arg = *(const struct store_probe_arg *) varg;
  struct store_probe *res = vresult;
  char ignored[CRG_REASON_MAX + 1];
  bool own_claim = false, own_past = false;

  for (unsigned i = 0; i <= PROBE_DYING_MS / PROBE_LOOK_MS; i++) {
    if (i > 0)
      nanosleep (&look, NULL);
    memset (res, 0, sizeof *res);
    if (!look_at_store (&arg, res, &own_claim, &own_past))
      break;
  }
  if (own_claim)
    tidy_claim (&arg);
  if (own_past && arg.tells_restart)
    mark (&arg, as_over, "left by a machine that restarted", ignored); /* or next time */
  if (arg.fork && ident_id_equal (res->info.lineage, arg.lineage) && res->info.agrees_ids && res->info.can_host
      && !res->info.fork && !arg.own_has_open) {
    mark (&arg, as_fork, "a fork", res->reason);
    res->info.fork = res->reason[0] == '\0';
  }
}

static const char *
find_signature (const struct opened *o)
{
  static uint8_t head[SIGNATURE_HEAD_BYTES];
  size_t len = (size_t) MIN (o->bytes, (uint64_t) sizeof head);

  return read_at (o, head, len, 0) < 0 ? NULL : signature_find (head, len);
}

/* Who owns what is found at this end?  -errno: it can't be read, with a reason. */
static int
check_owner (const struct opened *o, bool at_start, struct store_check *res)
{
  struct superblock sb;
  struct super_choice choice;
  enum super_status status;
  const char *found;
  int r = read_super (o, &sb, &choice, &status, res->reason);

  if (r < 0)
    return r;
  if (status == SUPER_OK && ident_id_is_zero (sb.crg_id))
    ; /* made ready by `crgctl iasp create`: whoever did that knows what it holds */
  else if (status == SUPER_OK) {
    res->has_crg = true;
    memcpy (res->crg_id, sb.crg_id, CRG_ID_LEN);
    if (is_open_now (&sb))
      say (res->reason, "store %s: it belongs to IASP %s of CRG %s already, and node %s has it open, or had when it "
                "died; --force takes it", o->path, sb.iasp, sb.crg, opener (&sb));
    else
      say (res->reason, "store %s: it belongs to IASP %s of CRG %s already; --force takes it", o->path,
                sb.iasp, sb.crg);
  }
  else if (status != SUPER_EMPTY)
    say (res->reason, "store %s: it holds a damaged superblock of ours (%s); --force takes it",
              o->path, super_strerror (status));
  else if (at_start && (found = find_signature (o)) != NULL)
    say (res->reason, "store %s: it holds %s; --force takes it, and its last blocks are overwritten",
              o->path, found);
  return 0;
}

static void
check (const struct opened *o, const struct store_check_arg *arg, struct store_check *res)
{
  struct opened alone = *o;
  struct meta_layout layout;
  int r = metafile_layout (&o->meta, o->bytes, arg->dirty_block, &layout);

  if (r < 0 && o->meta.fd >= 0) {
    say (res->reason, "metadata %s: %llu bytes are too %s: a store of %llu needs %llu", o->meta_path,
              (unsigned long long) o->meta.bytes, r == -ENOSPC ? "few" : "many",
              (unsigned long long) o->bytes,
              (unsigned long long) meta_bytes_apart (o->bytes, arg->dirty_block));
    return;
  }
  if (r < 0) {
    say (res->reason, "store %s: %llu bytes are too %s", o->path,
              (unsigned long long) o->bytes, r == -ENOSPC ? "few: at least 1 MiB" : "many");
    return;
  }
  res->data_bytes = layout.data_bytes;
  if (arg->size > layout.data_bytes && o->meta.fd >= 0) {
    say (res->reason, "store %s: it has room for %llu bytes, and size asks for %llu: make it longer, or size "
              "smaller", o->path, (unsigned long long) layout.data_bytes, (unsigned long long) arg->size);
    return;
  }
  if (arg->size > layout.data_bytes) {
    say (res->reason, "store %s: it has room for %llu bytes of data beside its metadata, and size asks "
              "for %llu: make it %llu bytes long, or size smaller",
              o->path, (unsigned long long) layout.data_bytes, (unsigned long long) arg->size,
              (unsigned long long) meta_store_bytes_for (arg->size, arg->dirty_block));
    return;
  }
  if (!lock_is_free (o)) {
    say (res->reason, "store %s: another process has it open", o->path);
    return;
  }
  /* A store whose metadata is elsewhere may be one with its own. */
  metafile_none (&alone.meta);
  if (check_owner (o, true, res) < 0
      || (o->meta.fd >= 0 && !res->has_crg && res->reason[0] == '\0' && o->bytes >= META_MIN_STORE_BYTES
          && check_owner (&alone, false, res) < 0))
    return;
  res->needs_force = res->reason[0] != '\0';
  if (res->needs_force && !arg->force)
    return;
  res->reason[0] = '\0';
  res->ok = true;
}

void
store_check (const void *varg, void *vresult)
{
  const struct store_check_arg *arg = varg;
  struct store_check *res = vresult;
  struct opened o;

  if (open_store (&o, arg->store, O_RDWR, res->reason) < 0)
    return;
  check (&o, arg, res);
  close_store (&o);
}

/* Who uses the store, here or, by its superblock or a claim, on another node of its site (S1)?  True: somebody. */
static bool
is_in_use (const struct opened *o, const struct superblock *sb, char *reason)
{
  static struct store_probe_arg nobody;
  char node[CRG_NAME_MAX + 1] = "";

  if (!lock_is_free (o))
    say (reason, "store %s: a process has it open", o->path);
  else if (sb && is_open_now (sb))
    say (reason, "store %s: node %s has it open, or had when it died", o->path, opener (sb));
  else if (sb && (look_at_claims (o, sb, &nobody, node), node[0]))
    say (reason, "store %s: node %s is opening it, or was when it died", o->path, node);
  else
    return false;
  return true;
}

/* Writes both slots and flushes. */
static int
write_slots (const struct opened *o, const uint8_t *slot0)
{
  static const uint8_t zero[META_BLOCK_SIZE];
  uint64_t offset[2];
  int r = meta_slot_offsets (total (o), offset);

  /* The old newest one may lie in either: slot 1 goes first, so that a crash
   * between them never leaves a stranger's superblock as the only one. */
  if (r == 0)
    r = write_at (o, zero, sizeof zero, offset[1]);
  if (r == 0)
    r = write_at (o, slot0 ? slot0 : zero, META_BLOCK_SIZE, offset[0]);
  return r == 0 ? flush (o) : r;
}

/* crgctl iasp create has emptied it, and nobody has used it since: its map of what was written counts from its
 * first opening on, and has nothing yet.  A file system or partition table that somebody has put there meanwhile
 * would begin in its first MiB. */
static bool
is_known_empty (const struct opened *o)
{
  char reason[CRG_REASON_MAX + 1];
  static uint8_t head[1024 * 1024];
  const size_t len = (size_t) MIN (o->bytes, (uint64_t) sizeof head);
  struct superblock sb;
  struct super_choice choice;
  enum super_status status;

  return read_super (o, &sb, &choice, &status, reason) == 0 && status == SUPER_OK && ident_id_is_zero (sb.crg_id)
         && (sb.flags & SUPER_F_WRITTEN) && !choice.damaged && !metafile_refuses (&o->meta, &sb)
         && sb.store_bytes == total (o) && read_at (o, head, len, 0) == 0 && is_all_zero (head, len);
}

void
store_format (const void *varg, void *vresult)
{
  const struct store_format_arg *arg = varg;
  struct store_format *res = vresult;
  static uint8_t block[META_BLOCK_SIZE];
  struct superblock sb = { .sequence = 1, .site = arg->site, .role = SUPER_ROLE_NONE }, old;
  struct super_choice choice;
  enum super_status status;
  struct opened o;
  int r = open_store (&o, arg->store, O_RDWR, res->reason);

  if (r < 0)
    return;
  if (read_super (&o, &old, &choice, &status, res->reason) < 0
      || is_in_use (&o, status == SUPER_OK && !arg->force ? &old : NULL, res->reason)) {
    close_store (&o);
    return;
  }
  memcpy (sb.store_id, arg->store_id, CRG_ID_LEN);
  memcpy (sb.cluster_id, arg->cluster_id, CRG_ID_LEN);
  memcpy (sb.crg_id, arg->crg_id, CRG_ID_LEN);
  memcpy (sb.iasp_id, arg->iasp_id, CRG_ID_LEN);
  memcpy (sb.lineage, arg->lineage, CRG_ID_LEN);
  memcpy (sb.crg, arg->crg, sizeof sb.crg);
  memcpy (sb.iasp, arg->iasp, sizeof sb.iasp);
  memcpy (sb.site_name, arg->site_name, sizeof sb.site_name);
  sb.flags = arg->in_set ? SUPER_F_CLEAN : SUPER_F_CLEAN | SUPER_F_UNUSABLE;
  if (is_known_empty (&o))
    sb.flags |= SUPER_F_WRITTEN;
  metafile_describe (&o.meta, &sb);
  sb.store_bytes = total (&o);
  sb.data_bytes = arg->size;
  sb.block_size = o.sector;
  sb.dirty_block_size = arg->dirty_block;
  sb.tenure = arg->tenure;
  sb.generation = arg->generation;
  sb.since = arg->in_set ? arg->generation : 0;
  super_encode (&sb, 0, block);
  r = write_slots (&o, block);
  if (r < 0)
    say (res->reason, "store %s: writing its superblock: %s", o.path, strerror (-r));
  res->ok = r == 0;
  close_store (&o);
}

static void
wipe (const struct opened *o, const uint8_t crg_id[CRG_ID_LEN], struct store_format *res)
{
  struct superblock sb;
  struct super_choice choice;
  enum super_status status;
  int r;

  if (read_super (o, &sb, &choice, &status, res->reason) < 0)
    return;
  if (status != SUPER_OK || !ident_id_equal (sb.crg_id, crg_id) || metafile_refuses (&o->meta, &sb)) {
    res->ok = true; /* not ours (any more) */
    return;
  }
  if (is_in_use (o, &sb, res->reason))
    return;
  r = write_slots (o, NULL);
  if (r < 0)
    say (res->reason, "store %s: %s", o->path, strerror (-r));
  res->ok = r == 0;
}

void
store_wipe (const void *varg, void *vresult)
{
  const struct store_format_arg *arg = varg;
  struct store_format *res = vresult;
  struct opened o;

  if (open_store (&o, arg->store, O_RDWR, res->reason) < 0)
    return;
  wipe (&o, arg->crg_id, res);
  close_store (&o);
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
