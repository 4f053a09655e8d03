/* SPDX-License-Identifier: BSD-3-Clause */
/* crgctl iasp create: makes a store ready for a CRG, without a daemon.  It writes only while it holds the
 * lock of rule S1: zeroes to all of a device that can do that by itself, or that shall be; else to the end of the
 * store alone, behind the room for data, or to the file with its metadata.  What it finds there that may
 * be somebody's is left alone unless --force says otherwise.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "admin/cli.h"
#include "common/clock.h"
#include "common/conf.h"
#include "common/ident.h"
#include "common/metafile.h"
#include "common/signature.h"
#include "common/super.h"
#include "common/util-posix.h"

struct making {
  struct cli *cli;
  const char *path, *meta_path;
  int fd;
  struct metafile meta; /* the metadata, if it is elsewhere */
  bool is_block, keep, force, zero;
  const char *not_empty; /* why a device has kept what it held */
  bool made_meta, grew_meta; /* by us */
  unsigned sector;
  uint64_t own_bytes;   /* of the store itself */
  uint64_t store_bytes; /* with the metadata's (metafile_total) */
  uint64_t size;
  uint32_t dirty_block;
  struct meta_layout layout;
  uint8_t store_id[CRG_ID_LEN];
};

/* One buffer for all that is read and written. */
static _Alignas (META_BLOCK_SIZE) uint8_t buf[256 * META_BLOCK_SIZE];

static int
read_at (const struct making *m, uint8_t *to, size_t len, uint64_t offset)
{
  const int fd = metafile_at (&m->meta, m->fd, &offset);
  size_t at = 0;

  while (at < len) {
    ssize_t n = pread (fd, to + at, len - at, (off_t) (offset + at));

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
  const int fd = metafile_at (&m->meta, m->fd, &offset);
  size_t at = 0;

  while (at < len) {
    ssize_t n = pwrite (fd, from + at, len - at, (off_t) (offset + at));

    if (n < 0 && errno == EINTR)
      continue;
    if (n <= 0)
      return n < 0 ? -errno : -EIO;
    at += (size_t) n;
  }
  return 0;
}

static int
flush (const struct making *m)
{
  return fsync (m->fd) < 0 || (m->meta.fd >= 0 && fsync (m->meta.fd) < 0) ? -errno : 0;
}

static int
io_error (const struct making *m, const char *what, int r)
{
  return cli_error (m->cli, CRG_EXIT_ERROR, "cannot %s %s: %s", what, m->path, strerror (-r));
}

/* ---- the metadata elsewhere ---------------------------------------------------------------- */

/* A file is made, or made longer, as needed; a device has to be large enough. */
static int
open_meta (struct making *m)
{
  struct flock fl = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
  uint64_t needed = meta_bytes_apart (m->own_bytes, m->dirty_block);
  char err[2 * CRG_PATH_MAX];
  struct stat st;
  bool is_block;
  int r;

  if (needed == 0)
    return cli_error (m->cli, CRG_EXIT_USAGE, "--block-size is a power of two from 4096 to 1048576, and %s has to have "
                      "at least 4096 bytes", m->path);
  if (stat (m->meta_path, &st) < 0) {
    CLEANUP_CLOSE int fd = -1;

    if (errno != ENOENT)
      return cli_error (m->cli, CRG_EXIT_ERROR, "cannot ask what %s is: %s", m->meta_path, strerror (errno));
    fd = open (m->meta_path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0 || fstat (fd, &st) < 0)
      return cli_error (m->cli, CRG_EXIT_ERROR, "cannot make %s: %s", m->meta_path, strerror (errno));
    m->made_meta = true;
  }
  is_block = S_ISBLK (st.st_mode);
  if (S_ISREG (st.st_mode) && (uint64_t) st.st_size < needed) {
    struct stat own;

    /* The store itself is not made longer by mistake. */
    if (fstat (m->fd, &own) == 0 && own.st_dev == st.st_dev && own.st_ino == st.st_ino)
      return cli_error (m->cli, CRG_EXIT_USAGE, "--meta names the store itself");
    if (st.st_size > 0)
      return cli_error (m->cli, CRG_EXIT_REFUSED, "%s has %" PRIu64 " bytes, and the metadata of %s needs %" PRIu64
                        ": make it longer, empty it, or name a file that is not there yet", m->meta_path,
                        (uint64_t) st.st_size, m->path, needed);
    if (truncate (m->meta_path, (off_t) needed) < 0)
      return cli_error (m->cli, CRG_EXIT_ERROR, "cannot grow %s: %s", m->meta_path, strerror (errno));
    m->grew_meta = true;
  }
  r = metafile_open (&m->meta, m->meta_path, O_RDWR | (is_block ? O_EXCL : 0), m->fd, m->own_bytes, err, sizeof err);
  if (r < 0)
    return cli_error (m->cli, r == -EBUSY || r == -ENOSPC ? CRG_EXIT_REFUSED
                              : r == -EINVAL              ? CRG_EXIT_USAGE
                                                          : CRG_EXIT_ERROR, "%s", err);
  if (fcntl (m->meta.fd, F_OFD_SETLK, &fl) < 0)
    return cli_error (m->cli, CRG_EXIT_REFUSED, "%s is open in a plugin, or another process has locked it", m->meta_path);
  m->store_bytes = metafile_total (&m->meta, m->own_bytes);
  return CRG_EXIT_FINE;
}

/* What was made for a store that was refused. */
static void
forget_meta (const struct making *m)
{
  if (m->made_meta)
    unlink (m->meta_path);
  else if (m->grew_meta && truncate (m->meta_path, 0) < 0)
    cli_error (m->cli, CRG_EXIT_ERROR, "cannot make %s empty again: %s", m->meta_path, strerror (errno));
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
  if (m->is_block && (ioctl (m->fd, BLKGETSIZE64, &m->own_bytes) < 0 || ioctl (m->fd, BLKSSZGET, &sector) < 0))
    return io_error (m, "ask for the size of", -errno);
  if (!m->is_block)
    m->own_bytes = (uint64_t) st.st_size;
  m->store_bytes = m->own_bytes;
  m->sector = sector >= 512 && is_power_of_2 ((uint64_t) sector) ? (unsigned) sector : 512;
  return CRG_EXIT_FINE;
}

/* Whose is what stands at this end?  Exit code 8 unless forced. */
static int
check_end (const struct making *m, const char *path, uint64_t end)
{
  struct super_choice choice;
  enum super_status status = SUPER_EMPTY;
  struct superblock sb;
  uint64_t offset[2];
  int r = 0;

  if (meta_slot_offsets (end, offset) == 0) {
    for (unsigned i = 0; i < 2 && r == 0; i++)
      r = read_at (m, buf + i * META_BLOCK_SIZE, META_BLOCK_SIZE, offset[i]);
    if (r < 0)
      return cli_error (m->cli, CRG_EXIT_ERROR, "cannot read the end of %s: %s", path, strerror (-r));
    status = super_choose (buf, buf + META_BLOCK_SIZE, &sb, &choice);
  }
  if (m->force)
    return CRG_EXIT_FINE;
  if (status == SUPER_OK && !ident_id_is_zero (sb.crg_id))
    return cli_error (m->cli, CRG_EXIT_NEEDS_FORCE, "%s is the store of IASP %s of CRG %s, site %s; --force takes it",
                      path, sb.iasp, sb.crg, sb.site_name);
  if (status != SUPER_OK && status != SUPER_EMPTY)
    return cli_error (m->cli, CRG_EXIT_NEEDS_FORCE, "%s holds a superblock of ours that can't be used (%s); --force "
                      "writes a new one", path, super_strerror (status));
  return CRG_EXIT_FINE;
}

static int
check_start (const struct making *m, const char *path, uint64_t offset, uint64_t bytes, bool keep)
{
  size_t head = (size_t) MIN (bytes, (uint64_t) SIGNATURE_HEAD_BYTES);
  const char *found;
  int r;

  if (m->force)
    return CRG_EXIT_FINE;
  r = read_at (m, buf, head, offset);
  if (r < 0)
    return cli_error (m->cli, CRG_EXIT_ERROR, "cannot read the start of %s: %s", path, strerror (-r));
  found = signature_find (buf, head);
  if (!found || keep)
    return CRG_EXIT_FINE;
  return cli_error (m->cli, CRG_EXIT_NEEDS_FORCE, "%s holds %s; %s--force does not care", path, found,
                    offset == 0 ? "--keep-data keeps it, " : "");
}

/* Whose is it? */
static int
check_owner (const struct making *m)
{
  int rc = check_end (m, m->path, m->own_bytes);

  if (rc == CRG_EXIT_FINE && m->meta.fd >= 0)
    rc = check_end (m, m->meta_path, m->store_bytes);
  if (rc == CRG_EXIT_FINE)
    rc = check_start (m, m->path, 0, m->own_bytes, m->keep);
  if (rc == CRG_EXIT_FINE && m->meta.fd >= 0)
    rc = check_start (m, m->meta_path, m->meta.from, m->meta.bytes, false);
  return rc;
}

/* The layout with the metadata elsewhere: all of the store may be data. */
static int
use_room (struct making *m)
{
  int r = metafile_layout (&m->meta, m->own_bytes, m->dirty_block, &m->layout);

  if (r < 0)
    return cli_error (m->cli, CRG_EXIT_REFUSED, "%s has %" PRIu64 " bytes, and the metadata of %s needs %" PRIu64
                      ": make it longer, or say a larger --block-size", m->meta_path, m->meta.bytes, m->path,
                      meta_bytes_apart (m->own_bytes, m->dirty_block));
  if (m->size == 0 && m->keep && m->own_bytes != m->layout.data_bytes)
    return cli_error (m->cli, CRG_EXIT_USAGE, "%s has %" PRIu64 " bytes, no multiple of 4096: say with --size how much of "
                      "it is data", m->path, m->own_bytes);
  if (m->size > m->layout.data_bytes)
    return cli_error (m->cli, CRG_EXIT_REFUSED, "%s has room for %" PRIu64 " bytes, not for %" PRIu64, m->path,
                      m->layout.data_bytes, m->size);
  if (m->size == 0)
    m->size = m->layout.data_bytes;
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

/* ---- what it held ------------------------------------------------------------------------ */

/* So much at once, and so long without having been asked to. */
#define ZERO_PIECE   (UINT64_C (256) * 1024 * 1024)
#define QUICK_MS     60000
#define PROGRESS_MS  10000

/* Punching makes a device say zeroes by its own means, or refuse; the other kind the kernel writes if it has
 * to.  0; -EOPNOTSUPP: neither. */
static int
zero_piece (const struct making *m, uint64_t offset, uint64_t len, bool *punch, bool *range)
{
  int r = -EOPNOTSUPP;

  if (*punch)
    r = fallocate (m->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t) offset, (off_t) len) == 0 ? 0 : -errno;
  if (r < 0 && r != -EINTR && m->zero && *range) {
    *punch = false;
    r = fallocate (m->fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, (off_t) offset, (off_t) len) == 0 ? 0 : -errno;
  }
  if (r < 0 && r != -EINTR && m->zero) {
    *range = false;
    memset (buf, 0, sizeof buf);
    r = 0;
    for (uint64_t at = 0; at < len && r == 0; at += sizeof buf)
      r = write_at (m, buf, (size_t) MIN ((uint64_t) sizeof buf, len - at), offset + at);
  }
  return r;
}

/* Makes all of the store zeroes, if that was asked for, or is quick; else m->not_empty says why not. */
static int
zero_store (struct making *m)
{
  const uint64_t begin = clock_boottime_ms ();
  uint64_t told = begin, now;
  bool punch = true, range = true;

  for (uint64_t at = 0; at < m->own_bytes; at += ZERO_PIECE) {
    int r;

    do
      r = zero_piece (m, at, MIN (ZERO_PIECE, m->own_bytes - at), &punch, &range);
    while (r == -EINTR);
    if (r < 0 && m->zero)
      return r;
    now = clock_boottime_ms ();
    if (r < 0)
      m->not_empty = "can't empty itself";
    else if (!m->zero && now - begin > QUICK_MS && at + ZERO_PIECE < m->own_bytes)
      m->not_empty = "is slow at emptying itself";
    if (m->not_empty)
      return 0;
    if (now - told >= PROGRESS_MS) {
      told = now;
      fprintf (stderr, "%s: %.0f %% is zeroes\n", m->path, 100.0 * (double) (at + ZERO_PIECE) / (double) m->own_bytes);
    }
  }
  return 0;
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
write_all (struct making *m)
{
  const bool empty = m->zero || (m->is_block && !m->keep);
  struct superblock sb = { .flags = SUPER_F_CLEAN, .role = SUPER_ROLE_NONE, .store_bytes = m->store_bytes,
                           .data_bytes = m->size, .block_size = m->sector, .dirty_block_size = m->dirty_block };
  int r = 0;

  memcpy (sb.store_id, m->store_id, CRG_ID_LEN);
  metafile_describe (&m->meta, &sb);
  for (unsigned i = 2; i-- > 0 && r == 0;)
    r = zero (m, m->layout.slot_offset[i], META_BLOCK_SIZE);
  if (r == 0)
    r = flush (m);
  if (r == 0 && empty)
    r = zero_store (m);
  /* Flushed with all else before the first superblock.  Its map is made by whoever opens it first. */
  if (empty && !m->not_empty)
    sb.flags |= SUPER_F_WRITTEN;
  if (r == 0)
    r = zero (m, m->layout.written.offset, m->layout.slot_offset[0] - m->layout.written.offset);
  if (r == 0 && m->keep)
    r = mark_written (m);
  for (unsigned i = 0; i < 2 && r == 0; i++) {
    r = flush (m);
    if (r < 0)
      return r;
    sb.sequence = i + 1;
    super_encode (&sb, i, buf);
    r = write_at (m, buf, META_BLOCK_SIZE, m->layout.slot_offset[i]);
  }
  return r == 0 ? flush (m) : r;
}

int
iasp_create (struct cli *cli, const char *path, const char *meta)
{
  struct making m = { .cli = cli, .path = path, .meta_path = meta, .fd = -1, .keep = cli->given[OPT_KEEP_DATA],
                      .force = cli->given[OPT_FORCE], .zero = cli->given[OPT_ZERO], .dirty_block = DIRTY_BLOCK_SIZE };
  CLEANUP_CLOSE int fd = -1;
  uint64_t block;
  int rc;

  metafile_none (&m.meta);
  if (cli->given[OPT_JSON])
    return cli_error (cli, CRG_EXIT_USAGE, "--json is not an option of 'iasp create'");
  if (m.keep && m.zero)
    return cli_error (cli, CRG_EXIT_USAGE, "--keep-data or --zero: what the store holds can't be both kept and zeroes");
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
  if (rc == CRG_EXIT_FINE && meta)
    rc = open_meta (&m);
  if (rc == CRG_EXIT_FINE)
    rc = check_owner (&m);
  if (rc == CRG_EXIT_FINE)
    rc = meta ? use_room (&m) : make_room (&m);
  if (rc != CRG_EXIT_FINE) {
    forget_meta (&m);
    metafile_close (&m.meta);
    return rc;
  }
  clock_random_id (m.store_id);
  rc = write_all (&m);
  metafile_close (&m.meta);
  if (rc < 0)
    return io_error (&m, "write the metadata of", rc);
  printf ("%s: ready for %" PRIu64 " bytes of data; metadata %" PRIu64 " bytes%s%s; %s%s%s\n", path, m.size,
          m.store_bytes - m.layout.data_bytes, meta ? " on " : "", meta ? meta : "",
          m.keep                   ? "what it holds is kept"
          : m.not_empty            ? "it "
          : m.zero || m.is_block   ? "it is all zeroes, and what is written will be known"
                                   : "what it held is not looked after",
          m.not_empty ? m.not_empty : "", m.not_empty ? ": what it held stays, and is copied as data (--zero makes it zeroes)" : "");
  return CRG_EXIT_FINE;
}
