/* SPDX-License-Identifier: BSD-3-Clause */
/* Blocking operations on the store.  In direct mode the pieces of a request that are not
 * aligned are read, changed and written back under a lock; aligned writes take the same lock
 * shared, because a read-modify-write beside them would undo the bytes that it only carries
 * along.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "common/util-posix.h"
#include "common/util.h"
#include "plugin/store.h"

#define PUNCH (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)
#define ZERO  (FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE)

static pthread_key_t bounce_key;

int
store_load (void)
{
  return -pthread_key_create (&bounce_key, free);
}

void
store_unload (void)
{
  free (pthread_getspecific (bounce_key));
  pthread_key_delete (bounce_key);
}

void *
store_bounce (size_t len)
{
  void *p = pthread_getspecific (bounce_key);

  if (len > STORE_BOUNCE_BYTES)
    return NULL;
  if (!p) {
    if (posix_memalign (&p, META_BLOCK_SIZE, STORE_BOUNCE_BYTES) != 0)
      return NULL;
    if (pthread_setspecific (bounce_key, p) != 0) {
      free (p);
      return NULL;
    }
  }
  return p;
}

void
store_init (struct store *s)
{
  memset (s, 0, sizeof *s);
  s->fd = s->sync_fd = s->meta_sync_fd = -1;
  s->meta_path = "";
  metafile_none (&s->meta);
  for (unsigned i = 0; i < STORE_RMW_SHARDS; i++)
    pthread_rwlock_init (&s->rmw[i], NULL);
}

void
store_destroy (struct store *s)
{
  store_close (s);
  for (unsigned i = 0; i < STORE_RMW_SHARDS; i++)
    pthread_rwlock_destroy (&s->rmw[i]);
}

/* Finds the smallest alignment that direct reads take; 0 if none works. */
static uint32_t
probe_direct (int fd, uint32_t first)
{
  void *buf = NULL;
  uint32_t align = 0;

  if (posix_memalign (&buf, META_BLOCK_SIZE, META_BLOCK_SIZE) != 0)
    return 0;
  for (uint32_t a = first; a <= META_BLOCK_SIZE; a *= 2)
    if (pread (fd, (char *) buf + (a < META_BLOCK_SIZE ? a : 0), a, 0) == (ssize_t) a) {
      align = a;
      break;
    }
  free (buf);
  return align;
}

static bool
device_is_rotational (dev_t dev)
{
  static const char *const where[] = { "", "../" };
  bool is = false;

  /* A partition has no queue of its own; its disk is one step up. */
  for (unsigned i = 0; i < ARRAY_SIZE (where); i++) {
    char path[128];
    FILE *fp;

    snprintf (path, sizeof path, "/sys/dev/block/%u:%u/%squeue/rotational",
              (unsigned) (dev >> 8 & 0xfff), (unsigned) ((dev & 0xff) | (dev >> 12 & 0xfff00)),
              where[i]);
    fp = fopen (path, "re");
    if (fp) {
      is = fgetc (fp) == '1';
      fclose (fp);
      break;
    }
  }
  return is;
}

static bool
is_in_memory (int fd)
{
  struct statfs fs;

  return fstatfs (fd, &fs) == 0 && (fs.f_type == TMPFS_MAGIC || fs.f_type == RAMFS_MAGIC);
}

/* Opened before fd writes anything.  -1, with errno. */
static int
open_for_sync (const char *path)
{
  return open (path, O_RDWR | O_CLOEXEC | O_NOCTTY);
}

int
store_open (struct store *s, const char *path, enum store_direct direct, char *err, size_t errlen)
{
  CLEANUP_CLOSE int fd = -1;
  struct stat st;
  int r;

  /* Opened without O_DIRECT first: a file system that refuses the flag says EINVAL, which would
   * hide what is wrong with a path. */
  fd = open (path, O_RDWR | O_CLOEXEC | O_NOCTTY);
  if (fd == -1) {
    r = -errno;
    snprintf (err, errlen, "store %s: cannot open it for reading and writing: %s; "
              "create it (truncate -s SIZE), or correct store= and its permissions", path, strerror (-r));
    return r;
  }
  if (fstat (fd, &st) == -1) {
    r = -errno;
    snprintf (err, errlen, "store %s: fstat: %s", path, strerror (-r));
    return r;
  }

  s->is_block = S_ISBLK (st.st_mode);
  s->sector = 512;
  if (s->is_block) {
    uint64_t bytes = 0;
    int ssz = 512;

    if (ioctl (fd, BLKGETSIZE64, &bytes) == -1 || ioctl (fd, BLKSSZGET, &ssz) == -1) {
      r = -errno;
      snprintf (err, errlen, "store %s: cannot ask the block device for its size: %s", path, strerror (-r));
      return r;
    }
    s->store_bytes = bytes;
    s->sector = ssz > 0 && is_power_of_2 ((uint64_t) ssz) ? (uint32_t) ssz : 4096;
    s->is_rotational = device_is_rotational (st.st_rdev);
  }
  else if (S_ISREG (st.st_mode))
    s->store_bytes = (uint64_t) st.st_size;
  else {
    snprintf (err, errlen, "store %s: neither a regular file nor a block device; name one of these", path);
    return -EINVAL;
  }
  if (s->store_bytes == 0) {
    snprintf (err, errlen, "store %s: it is empty; give it a size (truncate -s SIZE)", path);
    return -EINVAL;
  }
  if (s->store_bytes > STORE_MAX_BYTES) {
    snprintf (err, errlen, "store %s: larger than 1 EiB, which is more than we can address", path);
    return -EFBIG;
  }

  /* There is no cache to bypass in memory; direct I/O would only bring its alignment with it. */
  s->is_memory = !s->is_block && is_in_memory (fd);
  if (s->is_memory && direct == STORE_DIRECT_AUTO)
    direct = STORE_DIRECT_OFF;

  s->direct = false;
  s->align = 1;
  if (direct != STORE_DIRECT_OFF && s->store_bytes >= META_BLOCK_SIZE) {
    int dfd = open (path, O_RDWR | O_CLOEXEC | O_NOCTTY | O_DIRECT);
    uint32_t align = dfd == -1 ? 0 : probe_direct (dfd, s->sector);

    /* A file whose size is no multiple of the alignment can't be read to its end directly. */
    if (align != 0 && s->store_bytes % align == 0) {
      close (fd);
      fd = dfd;
      s->direct = true;
      s->align = align;
    }
    else if (dfd != -1)
      close (dfd);
  }
  if (direct == STORE_DIRECT_ON && !s->direct) {
    snprintf (err, errlen, "store %s: direct I/O was asked for and the store does not take it; "
              "use direct=auto or direct=off", path);
    return -EINVAL;
  }
  s->sync_fd = s->direct ? -1 : open_for_sync (path);
  if (!s->direct && s->sync_fd == -1) {
    r = -errno;
    snprintf (err, errlen, "store %s: cannot open it a second time: %s", path, strerror (-r));
    return r;
  }

  s->can_extents = lseek (fd, 0, SEEK_HOLE) != (off_t) -1;
  s->own_bytes = s->data_bytes = s->store_bytes;
  s->meta_path = "";
  metafile_none (&s->meta);
  atomic_store (&s->no_punch, false);
  atomic_store (&s->no_zero_range, false);
  atomic_store (&s->failed, 0);
  s->fd = fd;
  fd = -1;
  return 0;
}

/* As the data is addressed, if it can be: blocks of metadata are aligned for any device. */
static bool
open_meta_direct (struct store *s)
{
  int fd = open (s->meta_path, O_RDWR | O_CLOEXEC | O_NOCTTY | O_DIRECT);

  if (fd == -1)
    return false;
  if (probe_direct (fd, META_BLOCK_SIZE) == 0) {
    close (fd);
    return false;
  }
  close (s->meta.fd);
  s->meta.fd = fd;
  return true;
}

int
store_open_with (struct store *s, const char *path, const char *meta, enum store_direct direct, char *err,
                 size_t errlen)
{
  int r = store_open (s, path, direct, err, errlen);

  if (r < 0 || !meta || !meta[0])
    return r;
  r = metafile_open (&s->meta, meta, O_RDWR, s->fd, s->own_bytes, err, errlen);
  if (r < 0) {
    store_close (s);
    return r;
  }
  s->meta_path = meta;
  s->store_bytes = metafile_total (&s->meta, s->own_bytes);
  s->data_bytes = s->meta.from;
  /* Only if neither of them ever waits for a device. */
  s->is_memory = s->is_memory && !s->meta.is_block && is_in_memory (s->meta.fd);
  if (s->direct && open_meta_direct (s))
    return 0;
  s->meta_sync_fd = open_for_sync (meta);
  if (s->meta_sync_fd == -1) {
    r = -errno;
    snprintf (err, errlen, "metadata %s: cannot open it a second time: %s", meta, strerror (-r));
    store_close (s);
    return r;
  }
  return 0;
}

int
store_lock (struct store *s, const char *path)
{
  const int fds[] = { s->fd, s->meta.fd };

  for (unsigned i = 0; i < ARRAY_SIZE (fds); i++) {
    struct flock fl = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

    if (fds[i] != -1 && fcntl (fds[i], F_OFD_SETLK, &fl) == -1)
      return errno == EAGAIN || errno == EACCES ? -EBUSY : -errno;
  }
  return storefault_open (s, path);
}

void
store_close (struct store *s)
{
  storefault_close (s);
  if (s->fd != -1)
    close (s->fd);
  if (s->sync_fd != -1)
    close (s->sync_fd);
  if (s->meta_sync_fd != -1)
    close (s->meta_sync_fd);
  s->fd = s->sync_fd = s->meta_sync_fd = -1;
  metafile_close (&s->meta);
  s->meta_path = "";
}

bool
store_fail (struct store *s, int err)
{
  int none = 0;

  return atomic_compare_exchange_strong (&s->failed, &none, err);
}

static int
check_failed (struct store *s)
{
  return -atomic_load_explicit (&s->failed, memory_order_relaxed);
}

/* ---- locks for read-modify-write ---------------------------------------------------------- */

struct rmw_scope {
  struct store *s; /* NULL: nothing is locked */
  unsigned first, n;
};

static void
rmw_lock (struct rmw_scope *scope, struct store *s, uint64_t offset, uint64_t count)
{
  bool is_unaligned = (offset | count) & (s->align - 1);
  uint64_t first = offset >> STORE_RMW_SHIFT, last = (offset + count - 1) >> STORE_RMW_SHIFT;

  scope->s = NULL;
  if (s->align == 1 || count == 0)
    return;
  scope->s = s;
  scope->n = (unsigned) MIN (last - first + 1, (uint64_t) STORE_RMW_SHARDS);
  scope->first = (unsigned) (first % STORE_RMW_SHARDS);
  /* Always in the order of their index, so that two requests can't wait for each other. */
  for (unsigned i = 0; i < STORE_RMW_SHARDS; i++)
    if ((i + STORE_RMW_SHARDS - scope->first) % STORE_RMW_SHARDS < scope->n) {
      if (is_unaligned)
        pthread_rwlock_wrlock (&s->rmw[i]);
      else
        pthread_rwlock_rdlock (&s->rmw[i]);
    }
}

static void
rmw_unlock (struct rmw_scope *scope)
{
  if (!scope->s)
    return;
  for (unsigned i = 0; i < scope->n; i++)
    pthread_rwlock_unlock (&scope->s->rmw[(scope->first + i) % STORE_RMW_SHARDS]);
}

#define CLEANUP_RMW __attribute__ ((__cleanup__ (rmw_unlock)))

/* ---- whole transfers ---------------------------------------------------------------------- */

static void
fault_delay (struct store *s, enum sf_op op, uint64_t offset)
{
  uint32_t us = storefault_delay_us (s, op, offset);

  if (us > 0)
    usleep (us);
}

static int
full_pread (struct store *s, void *buf, size_t count, uint64_t offset)
{
  char *p = buf;
  uint64_t at;
  int fd;

  fault_delay (s, SF_READ, offset);
  while (count > 0) {
    struct sf_token fault;
    ssize_t r = storefault_begin (s, SF_READ, offset, count, NULL, false, &fault);

    if (r < 0)
      return (int) r;
    at = offset;
    fd = store_at (s, &at);
    r = pread (fd, p, count, (off_t) at);
    if (r == -1) {
      if (errno == EINTR)
        continue;
      return -errno;
    }
    if (r == 0) /* the store shrank under us */
      return -EIO;
    p += r;
    count -= (size_t) r;
    offset += (uint64_t) r;
  }
  return 0;
}

/* A write at 'offset' failed, and may have been told of pages that earlier ones lost: then the store has failed. */
static void
check_lost (struct store *s, uint64_t offset)
{
  const int fd = store_sync_fd (s, offset);
  int r;

  if (fd == -1)
    return;
  r = storefault_lost (s);
  if (r == 0)
    do
      r = fdatasync (fd) == -1 ? -errno : 0;
    while (r == -EINTR);
  if (r < 0)
    store_fail (s, -r);
}

static int
full_pwrite (struct store *s, const void *buf, size_t count, uint64_t offset, unsigned flags)
{
  const char *p = buf;

  while (count > 0) {
    struct iovec iov = { .iov_base = (void *) (uintptr_t) p, .iov_len = count };
    struct sf_token fault;
    uint64_t at = offset;
    const int fd = store_at (s, &at);
    ssize_t r;

    fault_delay (s, SF_WRITE, offset);
    if (flags & STORE_F_FUA)
      fault_delay (s, SF_FLUSH, 0);
    r = storefault_begin (s, SF_WRITE, offset, count, p, flags & STORE_F_FUA, &fault);
    if (r == 0) {
      r = pwritev2 (fd, &iov, 1, (off_t) at, flags & STORE_F_FUA ? RWF_DSYNC : 0);
      r = r == -1 ? -errno : r;
      storefault_end (s, &fault, r);
    }
    if (r < 0) {
      int e = (int) -r;

      if (e == EINTR)
        continue;
      if ((flags & STORE_F_FUA) && e != ENOSPC)
        store_fail (s, e);
      else
        check_lost (s, offset);
      return -e;
    }
    if (r == 0)
      return -EIO;
    p += r;
    count -= (size_t) r;
    offset += (uint64_t) r;
  }
  return 0;
}

void
store_forget (struct store *s, uint64_t offset, uint32_t count)
{
  const int fd = store_at (s, &offset);

  posix_fadvise (fd, (off_t) offset, count, POSIX_FADV_DONTNEED);
}

void
store_forget_all (struct store *s)
{
  posix_fadvise (s->fd, 0, 0, POSIX_FADV_DONTNEED);
  if (s->meta.fd != -1)
    posix_fadvise (s->meta.fd, 0, 0, POSIX_FADV_DONTNEED);
}

int
store_pread (struct store *s, void *buf, uint32_t count, uint64_t offset)
{
  char *p = buf;
  void *bounce;

  if (!s->direct || (((uintptr_t) buf | count | offset) & (s->align - 1)) == 0)
    return full_pread (s, buf, count, offset);

  bounce = store_bounce (STORE_BOUNCE_BYTES);
  if (!bounce)
    return -ENOMEM;
  while (count > 0) {
    uint64_t start = round_down (offset, s->align);
    uint32_t skip = (uint32_t) (offset - start);
    uint32_t n = MIN (count, STORE_BOUNCE_BYTES - skip);
    int r = full_pread (s, bounce, round_up (skip + n, s->align), start);

    if (r < 0)
      return r;
    memcpy (p, (char *) bounce + skip, n);
    p += n;
    offset += n;
    count -= n;
  }
  return 0;
}

/* Writes 'count' bytes from buf, or zeroes if buf is NULL, through the bounce buffer.  The caller
 * holds the locks. */
static int
bounce_write (struct store *s, const void *buf, uint64_t count, uint64_t offset, unsigned flags)
{
  const char *p = buf;
  char *bounce = store_bounce (STORE_BOUNCE_BYTES);

  if (!bounce)
    return -ENOMEM;
  while (count > 0) {
    uint64_t start = round_down (offset, s->align);
    uint32_t skip = (uint32_t) (offset - start);
    uint32_t n = (uint32_t) MIN (count, (uint64_t) STORE_BOUNCE_BYTES - skip);
    uint32_t whole = (uint32_t) round_up (skip + n, s->align);
    int r = 0;

    if (skip != 0)
      r = full_pread (s, bounce, s->align, start);
    if (r == 0 && skip + n != whole && (skip == 0 || whole > s->align))
      r = full_pread (s, bounce + whole - s->align, s->align, start + whole - s->align);
    if (r < 0)
      return r;
    if (p) {
      memcpy (bounce + skip, p, n);
      p += n;
    }
    else
      memset (bounce + skip, 0, n);
    r = full_pwrite (s, bounce, whole, start, flags);
    if (r < 0)
      return r;
    offset += n;
    count -= n;
  }
  return 0;
}

int
store_pwrite (struct store *s, const void *buf, uint32_t count, uint64_t offset, unsigned flags)
{
  CLEANUP_RMW struct rmw_scope scope = { 0 };
  int r = check_failed (s);

  if (r < 0)
    return r;
  if (!s->direct)
    return full_pwrite (s, buf, count, offset, flags);
  rmw_lock (&scope, s, offset, count);
  if ((((uintptr_t) buf | count | offset) & (s->align - 1)) == 0)
    return full_pwrite (s, buf, count, offset, flags);
  return bounce_write (s, buf, count, offset, flags);
}

/* One of the two, the one that holds 'offset'. */
static int
flush_one (struct store *s, uint64_t offset)
{
  uint64_t at = offset;
  const int fd = store_at (s, &at);
  struct sf_token fault;
  int r;

  fault_delay (s, SF_FLUSH, 0);
  r = storefault_begin (s, SF_FLUSH, offset, 0, NULL, false, &fault);
  if (r == 0) {
    r = fdatasync (fd) == -1 ? -errno : 0;
    storefault_end (s, &fault, r);
  }
  if (r < 0)
    store_fail (s, -r);
  return r;
}

int
store_flush (struct store *s)
{
  int r = check_failed (s);

  return r < 0 ? r : flush_one (s, 0);
}

int
store_flush_all (struct store *s)
{
  int r = store_flush (s);

  return r < 0 || s->meta.fd == -1 ? r : flush_one (s, s->meta.from);
}

/* ---- zero and trim ------------------------------------------------------------------------ */

int
store_zero_mode (const struct store *s, bool may_trim)
{
  if (may_trim && !atomic_load_explicit (&s->no_punch, memory_order_relaxed))
    return PUNCH;
  if (!atomic_load_explicit (&s->no_zero_range, memory_order_relaxed))
    return ZERO;
  return -1;
}

bool
store_learn (struct store *s, int mode, int err)
{
  /* ENODEV, ENOTTY: kinds of device that have no fallocate at all. */
  if (err != EOPNOTSUPP && err != ENODEV && err != ENOTTY && err != ENOSYS)
    return false;
  if (mode == PUNCH)
    atomic_store (&s->no_punch, true);
  else
    atomic_store (&s->no_zero_range, true);
  return true;
}

/* Zeroes by fallocate.  0; -EOPNOTSUPP: it has to be written. */
static int
fast_zero (struct store *s, uint64_t count, uint64_t offset, bool may_trim)
{
  int mode;

  while ((mode = store_zero_mode (s, may_trim)) != -1) {
    struct sf_token fault;
    int r;

    fault_delay (s, SF_ZERO, offset);
    r = storefault_begin (s, SF_ZERO, offset, count, NULL, false, &fault);
    if (r < 0)
      return r;
    do
      r = fallocate (s->fd, mode, (off_t) offset, (off_t) count) == -1 ? -errno : 0;
    while (r == -EINTR);
    storefault_end (s, &fault, r);
    if (r == 0)
      return 0;
    if (!store_learn (s, mode, -r))
      return r;
  }
  return -EOPNOTSUPP;
}

static int
write_zeroes (struct store *s, uint64_t count, uint64_t offset)
{
  return bounce_write (s, NULL, count, offset, 0);
}

/* The edges that are not aligned are written, what is between goes to fallocate.  The caller holds
 * the locks. */
static int
zero_locked (struct store *s, uint32_t count, uint64_t offset, unsigned flags)
{
  uint64_t unit = s->is_block ? MAX (s->align, s->sector) : s->align;
  uint64_t end = offset + count;
  uint64_t from = MIN (round_up (offset, unit), end);
  uint64_t to = MAX (round_down (end, unit), from);
  int r;

  if (to > from) {
    r = fast_zero (s, to - from, from, flags & STORE_F_MAY_TRIM);
    if (r == -EOPNOTSUPP) {
      if (flags & STORE_F_FAST_ZERO)
        return r;
      r = write_zeroes (s, to - from, from);
    }
    if (r < 0)
      return r;
  }
  if (from > offset) {
    r = write_zeroes (s, from - offset, offset);
    if (r < 0)
      return r;
  }
  if (end > to)
    return write_zeroes (s, end - to, to);
  return 0;
}

int
store_zero (struct store *s, uint32_t count, uint64_t offset, unsigned flags)
{
  CLEANUP_RMW struct rmw_scope scope = { 0 };
  int r = check_failed (s);

  if (r < 0)
    return r;
  rmw_lock (&scope, s, offset, count);
  r = zero_locked (s, count, offset, flags);
  if (r == 0 && (flags & STORE_F_FUA))
    r = store_flush (s);
  return r;
}

int
store_trim (struct store *s, uint32_t count, uint64_t offset, unsigned flags)
{
  CLEANUP_RMW struct rmw_scope scope = { 0 };
  int r = check_failed (s);

  if (r < 0)
    return r;
  rmw_lock (&scope, s, offset, count);
  r = zero_locked (s, count, offset, flags | STORE_F_MAY_TRIM | STORE_F_FAST_ZERO);
  /* No way to give space back and promise zeroes: the request is advice, and ignored. */
  if (r == -EOPNOTSUPP)
    r = 0;
  if (r == 0 && (flags & STORE_F_FUA))
    r = store_flush (s);
  return r;
}

int
store_cache (struct store *s, uint32_t count, uint64_t offset)
{
  /* Without the page cache there is nothing to fill. */
  if (s->direct)
    return 0;
  return -posix_fadvise (s->fd, (off_t) offset, count, POSIX_FADV_WILLNEED);
}

bool
store_is_hole (struct store *s, uint64_t offset, uint64_t count)
{
  off_t data;

  if (!s->can_extents)
    return false;
  data = lseek (s->fd, (off_t) offset, SEEK_DATA);
  return data == (off_t) -1 ? errno == ENXIO : (uint64_t) data >= offset + count;
}

int
store_extent (struct store *s, uint64_t offset, uint64_t count, uint64_t *length, bool *is_hole)
{
  off_t data, hole;

  *is_hole = false;
  *length = count;
  if (!s->can_extents)
    return 0;
  data = lseek (s->fd, (off_t) offset, SEEK_DATA);
  if (data == (off_t) -1) {
    if (errno != ENXIO)
      return -errno;
    *is_hole = true; /* nothing but a hole from here to the end */
    return 0;
  }
  if ((uint64_t) data > offset) {
    *is_hole = true;
    *length = MIN (count, (uint64_t) data - offset);
    return 0;
  }
  hole = lseek (s->fd, (off_t) offset, SEEK_HOLE);
  if (hole == (off_t) -1)
    return -errno;
  /* Equal: the range was punched between the two calls; call it data, one block's worth. */
  if ((uint64_t) hole > offset)
    *length = MIN (count, (uint64_t) hole - offset);
  else
    *length = MIN (count, (uint64_t) META_BLOCK_SIZE);
  return 0;
}
