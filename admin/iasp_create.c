/* SPDX-License-Identifier: BSD-3-Clause */
/* crgctl iasp create: makes a store ready for a CRG, without a daemon.  It writes to the end of the
 * store only, behind the room for data, and only while it holds the lock of rule S1; what it finds
 * there that may be somebody's is left alone unless --force says otherwise.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "admin/cli.h"
#include "common/clock.h"
#include "common/conf.h"
#include "common/ident.h"
#include "common/signature.h"
#include "common/super.h"
#include "common/util-posix.h"

struct making {
  struct cli *cli;
  const char *path;
  int fd;
  bool is_block, keep, force;
  unsigned sector;
  uint64_t store_bytes, size;
  uint32_t dirty_block;
  struct meta_layout layout;
  uint8_t store_id[CRG_ID_LEN];
};

/* One buffer for all that is read and written. */
static _Alignas (META_BLOCK_SIZE) uint8_t buf[256 * META_BLOCK_SIZE];

static int
read_at (const struct making *m, uint8_t *to, size_t len, uint64_t offset)
{
  size_t at = 0;

  while (at < len) {
    ssize_t n = pread (m->fd, to + at, len - at, (off_t) (offset + at));

    if (n < 0 && errno == EINTR)
      continue;
    if (n <= 0)
      return n < 0 ? -errno : -EIO;
    at += (size_t) n;
  }
  return 0;
}

static int
write_at (const struct making *m, const uint8_t *from, size_t len, uint64_t offset)
{
  size_t at = 0;

  while (at < len) {
    ssize_t n = pwrite (m->fd, from + at, len - at, (off_t) (offset + at));

    if (n < 0 && errno == EINTR)
      continue;
    if (n <= 0)
      return n < 0 ? -errno : -EIO;
    at += (size_t) n;
  }
  return 0;
}

static int
io_error (const struct making *m, const char *what, int r)
{
  return cli_error (m->cli, CRG_EXIT_ERROR, "cannot %s %s: %s", what, m->path, strerror (-r));
}

/* ---- the store -------------------------------------------------------------------------- */

static int
open_store (struct making *m)
{
  struct flock fl = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
  struct stat st;
  int sector = 512;

  if (stat (m->path, &st) < 0)
    return cli_error (m->cli, errno == ENOENT || errno == ENOTDIR ? CRG_EXIT_NO_OBJECT : CRG_EXIT_ERROR,
                      "cannot ask what %s is: %s", m->path, strerror (errno));
  m->is_block = S_ISBLK (st.st_mode);
  if (!m->is_block && !S_ISREG (st.st_mode))
    return cli_error (m->cli, CRG_EXIT_USAGE, "%s is neither a regular file nor a block device", m->path);
  /* O_EXCL: a device that is mounted, or part of another one, says EBUSY. */
  m->fd = open (m->path, O_RDWR | O_CLOEXEC | O_NOCTTY | O_NONBLOCK | (m->is_block ? O_EXCL : 0));
  if (m->fd < 0)
    return cli_error (m->cli, errno == EBUSY ? CRG_EXIT_REFUSED : CRG_EXIT_ERROR, "cannot open the store %s: %s",
                      m->path, errno == EBUSY ? "it is in use (mounted?)" : strerror (errno));
  if (fcntl (m->fd, F_OFD_SETLK, &fl) < 0)
    return cli_error (m->cli, CRG_EXIT_REFUSED, "%s is open in a plugin, or another process has locked it", m->path);
  if (m->is_block && (ioctl (m->fd, BLKGETSIZE64, &m->store_bytes) < 0 || ioctl (m->fd, BLKSSZGET, &sector) < 0))
    return io_error (m, "ask for the size of", -errno);
  if (!m->is_block)
    m->store_bytes = (uint64_t) st.st_size;
  m->sector = sector >= 512 && is_power_of_2 ((uint64_t) sector) ? (unsigned) sector : 512;
  return CRG_EXIT_FINE;
}

/* Whose is it?  Exit code 8 unless forced. */
static int
check_owner (const struct making *m)
{
  struct super_choice choice;
  enum super_status status = SUPER_EMPTY;
  const char *found = NULL;
  struct superblock sb;
  uint64_t offset[2];
  size_t head = (size_t) MIN (m->store_bytes, (uint64_t) SIGNATURE_HEAD_BYTES);
  int r = 0;

  if (meta_slot_offsets (m->store_bytes, offset) == 0) {
    for (unsigned i = 0; i < 2 && r == 0; i++)
      r = read_at (m, buf + i * META_BLOCK_SIZE, META_BLOCK_SIZE, offset[i]);
    if (r < 0)
      return io_error (m, "read the end of", r);
    status = super_choose (buf, buf + META_BLOCK_SIZE, &sb, &choice);
  }
  if (m->force)
    return CRG_EXIT_FINE;
  if (status == SUPER_OK && !ident_id_is_zero (sb.crg_id))
    return cli_error (m->cli, CRG_EXIT_NEEDS_FORCE, "%s is the store of IASP %s of CRG %s, site %s; --force takes it",
                      m->path, sb.iasp, sb.crg, sb.site_name);
  if (status != SUPER_OK && status != SUPER_EMPTY)
    return cli_error (m->cli, CRG_EXIT_NEEDS_FORCE, "%s holds a superblock of ours that can't be used (%s); --force "
                      "writes a new one", m->path, super_strerror (status));
  r = read_at (m, buf, head, 0);
  if (r < 0)
    return io_error (m, "read the start of", r);
  found = signature_find (buf, head);
  if (found && !m->keep)
    return cli_error (m->cli, CRG_EXIT_NEEDS_FORCE, "%s holds %s; --keep-data keeps it, --force does not care", m->path,
                      found);
  return CRG_EXIT_FINE;
}

/* The layout, for a file that may have to grow. */
static int
make_room (struct making *m)
{
  uint64_t needed, at;
  int r;

  if (m->keep && !m->cli->given[OPT_SIZE]) {
    if (m->is_block)
      return cli_error (m->cli, CRG_EXIT_USAGE, "how much of the device %s is data?  Say --size: the metadata needs a "
                        "free tail behind it", m->path);
    m->size = m->store_bytes;
  }
  r = meta_layout (m->store_bytes, m->dirty_block, &m->layout);
  if (m->size > 0 && (r < 0 || m->layout.data_bytes < m->size)) {
    needed = meta_store_bytes_for (m->size, m->dirty_block);
    if (m->is_block || needed == 0)
      return cli_error (m->cli, CRG_EXIT_REFUSED, "%s has %" PRIu64 " bytes, and %" PRIu64 " of data and their metadata "
                        "need %" PRIu64 ": the tail is not free; make the device larger, or what is on it smaller",
                        m->path, m->store_bytes, m->size, needed);
    if (ftruncate (m->fd, (off_t) needed) < 0)
      return io_error (m, "grow", -errno);
    m->store_bytes = needed;
    r = meta_layout (m->store_bytes, m->dirty_block, &m->layout);
  }
  if (r < 0)
    return cli_error (m->cli, r == -EINVAL ? CRG_EXIT_USAGE : CRG_EXIT_REFUSED, "%s: %s", m->path,
                      r == -EINVAL  ? "--block-size is a power of two from 4096 to 1048576"
                      : r == -ENOSPC ? "a store has at least 1 MiB; say --size"
                                     : "it is too large");
  if (m->size == 0)
    m->size = m->layout.data_bytes;
  if (!m->keep || m->force)
    return CRG_EXIT_FINE;
  /* Data that is kept is not overwritten at its end. */
  for (at = m->layout.written.offset; at < m->store_bytes; at += sizeof buf) {
    size_t n = (size_t) MIN ((uint64_t) sizeof buf, m->store_bytes - at);

    r = read_at (m, buf, n, at);
    if (r < 0)
      return io_error (m, "read the end of", r);
    if (!is_all_zero (buf, n))
      return cli_error (m->cli, CRG_EXIT_NEEDS_FORCE, "the tail of %s, from byte %" PRIu64 " on, is not free: it holds "
                        "something that the metadata would overwrite; --force does it", m->path, at);
  }
  return CRG_EXIT_FINE;
}

/* ---- writing ---------------------------------------------------------------------------- */

static int
zero (const struct making *m, uint64_t offset, uint64_t len)
{
  memset (buf, 0, sizeof buf);
  for (uint64_t at = 0; at < len; at += sizeof buf) {
    int r = write_at (m, buf, (size_t) MIN ((uint64_t) sizeof buf, len - at), offset + at);

    if (r < 0)
      return r;
  }
  return 0;
}

/* Everything counts as written, so a first synchronisation leaves nothing out. */
static int
mark_written (const struct making *m)
{
  struct meta_block_id id = { .kind = META_WRITTEN };

  memcpy (id.store_id, m->store_id, CRG_ID_LEN);
  for (id.index = 0; id.index < m->layout.written.blocks; id.index++) {
    int r;

    memset (buf, 0xff, META_BLOCK_SIZE);
    meta_block_seal (buf, &id, 1);
    r = write_at (m, buf, META_BLOCK_SIZE, m->layout.written.offset + id.index * META_BLOCK_SIZE);
    if (r < 0)
      return r;
  }
  return 0;
}

/* Slots zeroed and flushed first: a crash leaves an old store, none, or the new one. */
static int
write_all (const struct making *m)
{
  struct superblock sb = { .flags = SUPER_F_CLEAN, .role = SUPER_ROLE_NONE, .store_bytes = m->store_bytes,
                           .data_bytes = m->size, .block_size = m->sector, .dirty_block_size = m->dirty_block };
  int r = 0;

  memcpy (sb.store_id, m->store_id, CRG_ID_LEN);
  for (unsigned i = 2; i-- > 0 && r == 0;)
    r = zero (m, m->layout.slot_offset[i], META_BLOCK_SIZE);
  if (r == 0 && fsync (m->fd) < 0)
    r = -errno;
  if (r == 0)
    r = zero (m, m->layout.written.offset, m->layout.slot_offset[0] - m->layout.written.offset);
  if (r == 0 && m->keep)
    r = mark_written (m);
  for (unsigned i = 0; i < 2 && r == 0; i++) {
    if (fsync (m->fd) < 0)
      return -errno;
    sb.sequence = i + 1;
    super_encode (&sb, i, buf);
    r = write_at (m, buf, META_BLOCK_SIZE, m->layout.slot_offset[i]);
  }
  if (r == 0 && fsync (m->fd) < 0)
    r = -errno;
  return r;
}

int
iasp_create (struct cli *cli, const char *path)
{
  struct making m = { .cli = cli, .path = path, .fd = -1, .keep = cli->given[OPT_KEEP_DATA],
                      .force = cli->given[OPT_FORCE], .dirty_block = DIRTY_BLOCK_SIZE };
  CLEANUP_CLOSE int fd = -1;
  uint64_t block;
  int rc;

  if (cli->given[OPT_JSON])
    return cli_error (cli, CRG_EXIT_USAGE, "--json is not an option of 'iasp create'");
  if (cli->given[OPT_SIZE]
      && (conf_parse_size (cli->value[OPT_SIZE], &m.size) < 0 || m.size == 0 || m.size % 512 != 0))
    return cli_error (cli, CRG_EXIT_USAGE, "--size '%s' is no size: a multiple of 512 such as 16G", cli->value[OPT_SIZE]);
  if (cli->given[OPT_BLOCK]) {
    if (conf_parse_size (cli->value[OPT_BLOCK], &block) < 0 || block > DIRTY_BLOCK_SIZE_MAX)
      return cli_error (cli, CRG_EXIT_USAGE, "--block-size '%s': a power of two from 4096 to 1048576",
                        cli->value[OPT_BLOCK]);
    m.dirty_block = (uint32_t) block;
  }
  rc = open_store (&m);
  fd = m.fd;
  if (rc == CRG_EXIT_FINE)
    rc = check_owner (&m);
  if (rc == CRG_EXIT_FINE)
    rc = make_room (&m);
  if (rc != CRG_EXIT_FINE)
    return rc;
  clock_random_id (m.store_id);
  rc = write_all (&m);
  if (rc < 0)
    return io_error (&m, "write the metadata of", rc);
  printf ("%s: ready for %" PRIu64 " bytes of data; metadata %" PRIu64 " bytes; %s\n", path, m.size,
          m.store_bytes - m.layout.data_bytes,
          m.keep ? "what it holds is kept" : "what it held is not looked after");
  return CRG_EXIT_FINE;
}
