/* SPDX-License-Identifier: BSD-3-Clause */
/* A store's second file, and what tells files and devices apart.  A copy of a file is another file:
 * that is what keeps old metadata from being taken for the store's.
 */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "common/crc32c.h"
#include "common/metafile.h"
#include "common/util-posix.h"

/* ---- identities ---------------------------------------------------------------------------- */

size_t
metafile_line (char *line)
{
  size_t n = strcspn (line, "\n");

  while (n > 0 && line[n - 1] == ' ')
    n--;
  line[n] = '\0';
  for (char *p = line; *p; p++)
    if (*p < ' ' || *p > '~')
      *p = '?';
  return n;
}

void
metafile_device_text (bool is_id, const char *line, const char *start, char text[SUPER_IDENTITY_MAX + 1])
{
  char id[72];

  /* What is told apart at its end must be so here (namespaces of an NVMe disk). */
  if (strlen (line) < sizeof id)
    snprintf (id, sizeof id, "%.71s", line);
  else
    snprintf (id, sizeof id, "%.60s ~%08" PRIx32, line, crc32c (0, line, strlen (line)));
  snprintf (text, SUPER_IDENTITY_MAX + 1, "%s %s%s%s", is_id ? "id" : "serial", id, start[0] ? " from " : "", start);
}

/* One line of a file of a device in sysfs, printable.  False: there is none. */
static bool
sysfs_line (dev_t dev, const char *name, char *line, size_t len)
{
  CLEANUP_FCLOSE FILE *fp = NULL;
  char path[128];

  snprintf (path, sizeof path, "/sys/dev/block/%u:%u/%s", major (dev), minor (dev), name);
  fp = fopen (path, "re");
  return fp && fgets (line, (int) len, fp) && metafile_line (line) > 0;
}

static void
file_identity (const char *kind, int fd, const char *path, char text[SUPER_IDENTITY_MAX + 1])
{
  struct statx sx;
  int n;

  if (statx (fd, path, path[0] ? 0 : AT_EMPTY_PATH, STATX_INO | STATX_BTIME, &sx) < 0 || !(sx.stx_mask & STATX_INO))
    return;
  n = snprintf (text, SUPER_IDENTITY_MAX + 1, "%s %" PRIu64, kind, (uint64_t) sx.stx_ino);
  if (sx.stx_mask & STATX_BTIME)
    snprintf (text + n, SUPER_IDENTITY_MAX + 1 - (size_t) n, " made %" PRId64 ".%09" PRIu32,
              (int64_t) sx.stx_btime.tv_sec, sx.stx_btime.tv_nsec);
}

static void
device_identity (dev_t dev, char text[SUPER_IDENTITY_MAX + 1])
{
  /* Device mapper, md, SCSI, NVMe, virtio; of a partition they are its disk's. */
  static const char *const names[] = { "dm/uuid", "md/uuid", "device/wwid", "wwid", "device/serial", "serial" };
  char line[256], start[24] = "", name[64];
  size_t n;
  bool is_part = sysfs_line (dev, "partition", line, sizeof line);

  if (is_part && !sysfs_line (dev, "start", start, sizeof start))
    return;
  for (unsigned i = 0; i < ARRAY_SIZE (names); i++) {
    snprintf (name, sizeof name, "%s%s", is_part ? "../" : "", names[i]);
    if (!sysfs_line (dev, name, line, sizeof line))
      continue;
    metafile_device_text (strstr (names[i], "id") != NULL, line, start, text);
    return;
  }
  if (!sysfs_line (dev, is_part ? "../loop/backing_file" : "loop/backing_file", line, sizeof line))
    return;
  file_identity ("loop", AT_FDCWD, line, text);
  n = strlen (text);
  if (is_part && n > 0)
    snprintf (text + n, SUPER_IDENTITY_MAX + 1 - n, " from %s", start);
}

void
metafile_identity (int fd, char text[SUPER_IDENTITY_MAX + 1])
{
  struct stat st;

  memset (text, 0, SUPER_IDENTITY_MAX + 1);
  if (fstat (fd, &st) < 0)
    return;
  if (S_ISBLK (st.st_mode))
    device_identity (st.st_rdev, text);
  else
    file_identity ("file", fd, "", text);
}

/* Where a device is in sysfs: a partition's path begins with that of its disk. */
static char *
device_path (dev_t dev)
{
  char link[64];

  snprintf (link, sizeof link, "/sys/dev/block/%u:%u", major (dev), minor (dev));
  return realpath (link, NULL);
}

static bool
devices_overlap (dev_t a, dev_t b)
{
  CLEANUP_FREE char *pa = device_path (a);
  CLEANUP_FREE char *pb = device_path (b);
  size_t n;

  if (a == b)
    return true;
  if (!pa || !pb)
    return false;
  n = MIN (strlen (pa), strlen (pb));
  return strncmp (pa, pb, n) == 0 && (pa[n] == '/' || pb[n] == '/');
}

/* Do they share bytes, as far as can be seen from here? */
static bool
overlap (const struct stat *a, const struct stat *b)
{
  if (S_ISBLK (a->st_mode) && S_ISBLK (b->st_mode))
    return devices_overlap (a->st_rdev, b->st_rdev);
  if (S_ISREG (a->st_mode) && S_ISREG (b->st_mode))
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
  /* A file on a file system on the other. */
  return S_ISBLK (a->st_mode) ? devices_overlap (a->st_rdev, b->st_dev) : devices_overlap (a->st_dev, b->st_rdev);
}

/* ---- the second file ------------------------------------------------------------------------ */

void
metafile_none (struct metafile *m)
{
  memset (m, 0, sizeof *m);
  m->fd = -1;
  m->from = UINT64_MAX;
}

int
metafile_open (struct metafile *m, const char *path, int flags, int store_fd, uint64_t store_bytes, char *err,
               size_t errlen)
{
  CLEANUP_CLOSE int fd = -1;
  struct stat st, store;
  uint64_t bytes = 0;
  int r;

  metafile_none (m);
  if (!path || !path[0])
    return 0;
  fd = open (path, flags | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
  if (fd == -1 || fstat (fd, &st) == -1 || fstat (store_fd, &store) == -1) {
    r = -errno;
    snprintf (err, errlen, "metadata %s: cannot open it: %s; correct meta= and its permissions", path,
              r == -EBUSY ? "it is in use (mounted?)" : strerror (-r));
    return r;
  }
  if (!S_ISBLK (st.st_mode) && !S_ISREG (st.st_mode)) {
    snprintf (err, errlen, "metadata %s: neither a regular file nor a block device; name one of these", path);
    return -EINVAL;
  }
  if (overlap (&st, &store)) {
    snprintf (err, errlen, "metadata %s: it is the store itself, or shares bytes with it; name another file or device",
              path);
    return -EINVAL;
  }
  if (S_ISREG (st.st_mode))
    bytes = (uint64_t) st.st_size;
  else if (ioctl (fd, BLKGETSIZE64, &bytes) == -1) {
    r = -errno;
    snprintf (err, errlen, "metadata %s: cannot ask the block device for its size: %s", path, strerror (-r));
    return r;
  }
  if (bytes > STORE_MAX_BYTES || store_bytes > STORE_MAX_BYTES) {
    snprintf (err, errlen, "metadata %s: it or its store is larger than 1 EiB, which is more than we can address", path);
    return -EFBIG;
  }
  /* Before anybody looks for superblocks at its end: they must not be found, or written, in the data. */
  if (bytes < meta_bytes_apart (store_bytes, DIRTY_BLOCK_SIZE_MAX)) {
    snprintf (err, errlen, "metadata %s: %" PRIu64 " bytes are too few for a store of %" PRIu64 "; it needs %" PRIu64
              " with the usual dirty blocks", path, bytes, store_bytes, meta_bytes_apart (store_bytes, DIRTY_BLOCK_SIZE));
    return -ENOSPC;
  }
  metafile_identity (fd, m->identity);
  metafile_identity (store_fd, m->data_identity);
  /* Behind the first word, as a loop device and its file are the same bytes. */
  if (m->identity[0] && m->data_identity[0]
      && strcmp (strchr (m->identity, ' '), strchr (m->data_identity, ' ')) == 0) {
    snprintf (err, errlen, "metadata %s: it is the store itself by another name; name another file or device", path);
    metafile_none (m);
    return -EINVAL;
  }
  m->is_block = S_ISBLK (st.st_mode);
  m->bytes = round_down (bytes, META_BLOCK_SIZE);
  m->from = round_down (store_bytes, META_BLOCK_SIZE);
  m->fd = fd;
  fd = -1;
  return 0;
}

void
metafile_close (struct metafile *m)
{
  if (m->fd != -1)
    close (m->fd);
  metafile_none (m);
}

int
metafile_layout (const struct metafile *m, uint64_t store_bytes, uint32_t dirty_block_size, struct meta_layout *layout)
{
  return m->fd == -1 ? meta_layout (store_bytes, dirty_block_size, layout)
                     : meta_layout_apart (store_bytes, m->bytes, dirty_block_size, layout);
}

const char *
metafile_refuses (const struct metafile *m, const struct superblock *sb)
{
  return super_check_place (sb, m->bytes, m->data_identity, m->identity);
}

void
metafile_describe (const struct metafile *m, struct superblock *sb)
{
  sb->flags = (uint16_t) ((sb->flags & ~SUPER_F_EXTERNAL) | (m->fd == -1 ? 0 : SUPER_F_EXTERNAL));
  sb->meta_bytes = m->bytes;
  memcpy (sb->data_identity, m->data_identity, sizeof sb->data_identity);
  memcpy (sb->meta_identity, m->identity, sizeof sb->meta_identity);
}
