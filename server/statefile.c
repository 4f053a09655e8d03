/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Reads and writes the state file of statefile.h.  Owns no state; must never
 * report success before the bytes and their name are on stable storage.
 */
#include "config.h"

#include "server/statefile.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/crc32c.h"
#include "common/ident.h"
#include "common/util-posix.h"

#define STATEFILE_HEADER 32
#define STATEFILE_VERSION 1
#define STATEFILE_SUFFIX ".state"
static const char magic[8] = "CRGSTAT1";

static int
file_name (char *buf, size_t len, const char *crg, const char *suffix)
{
  if (!ident_name_is_valid (crg))
    return -EINVAL;
  return snprintf (buf, len, "%s%s", crg, suffix) < (int) len ? 0 : -ENAMETOOLONG;
}

static int
open_dir (const char *dir)
{
  int fd = open (dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

  return fd < 0 ? -errno : fd;
}

static uint32_t
file_crc (const uint8_t *header, const uint8_t *state, size_t len)
{
  return crc32c (crc32c (0, header, 28), state, len);
}

/* All of it, or -errno; -EBADMSG if the file is shorter. */
static int
read_full (int fd, uint8_t *buf, size_t len)
{
  while (len > 0) {
    ssize_t r = read (fd, buf, len);

    if (r < 0) {
      if (errno == EINTR)
        continue;
      return -errno;
    }
    if (r == 0)
      return -EBADMSG;
    buf += r;
    len -= (size_t) r;
  }
  return 0;
}

static int
write_full (int fd, const uint8_t *buf, size_t len)
{
  while (len > 0) {
    ssize_t r = write (fd, buf, len);

    if (r < 0) {
      if (errno == EINTR)
        continue;
      return -errno;
    }
    buf += r;
    len -= (size_t) r;
  }
  return 0;
}

int
statefile_load (const char *dir, const char *crg, struct crg_state *s, uint64_t *promised, uint32_t *hold_ms)
{
  char name[CRG_NAME_MAX + sizeof STATEFILE_SUFFIX];
  CLEANUP_CLOSE int dir_fd = open_dir (dir);
  CLEANUP_CLOSE int fd = -1;
  CLEANUP_FREE uint8_t *buf = NULL;
  CLEANUP_FREE struct crg_state *tmp = NULL;
  struct stat st;
  size_t len;
  int r = file_name (name, sizeof name, crg, STATEFILE_SUFFIX);

  if (r < 0)
    return r;
  if (dir_fd < 0)
    return dir_fd;
  fd = openat (dir_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
  if (fd < 0)
    return -errno;
  if (fstat (fd, &st) < 0)
    return -errno;
  if (!S_ISREG (st.st_mode) || st.st_size < STATEFILE_HEADER
      || st.st_size > STATEFILE_HEADER + STATE_ENCODED_MAX)
    return -EBADMSG;
  len = (size_t) st.st_size - STATEFILE_HEADER;
  buf = malloc ((size_t) st.st_size);
  tmp = malloc (sizeof *tmp);
  if (buf == NULL || tmp == NULL)
    return -ENOMEM;
  r = read_full (fd, buf, (size_t) st.st_size);
  if (r < 0)
    return r;
  if (memcmp (buf, magic, sizeof magic) != 0 || get_le32 (buf + 8) != STATEFILE_VERSION
      || get_le32 (buf + 12) != len || get_le32 (buf + 24) > LEASE_HOLD_MAX_MS
      || get_le32 (buf + 28) != file_crc (buf, buf + STATEFILE_HEADER, len)
      || state_decode (tmp, buf + STATEFILE_HEADER, len) != 0)
    return -EBADMSG;
  if (strcmp (tmp->def.name, crg) != 0)
    return -EBADMSG; /* somebody renamed it */
  *s = *tmp;
  *promised = get_le64 (buf + 16);
  *hold_ms = get_le32 (buf + 24);
  return 0;
}

int
statefile_replace (const char *dir, const char *name, const void *buf, size_t len)
{
  char beside[CRG_NAME_MAX + sizeof STATEFILE_SUFFIX + sizeof ".new"];
  CLEANUP_CLOSE int dir_fd = open_dir (dir);
  CLEANUP_CLOSE int fd = -1;
  int r;

  if (dir_fd < 0)
    return dir_fd;
  if (snprintf (beside, sizeof beside, "%s.new", name) >= (int) sizeof beside)
    return -ENAMETOOLONG;
  fd = openat (dir_fd, beside, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd < 0)
    return -errno;
  r = write_full (fd, buf, len);
  if (r < 0)
    return r;
  if (fsync (fd) < 0 || renameat (dir_fd, beside, dir_fd, name) < 0 || fsync (dir_fd) < 0)
    return -errno;
  return 0;
}

int
statefile_save (const char *dir, const char *crg, const struct crg_state *s, uint64_t promised, uint32_t hold_ms)
{
  char name[CRG_NAME_MAX + sizeof STATEFILE_SUFFIX];
  CLEANUP_FREE uint8_t *buf = NULL;
  size_t len;
  int r = file_name (name, sizeof name, crg, STATEFILE_SUFFIX);

  if (r < 0)
    return r;
  buf = calloc (1, STATEFILE_HEADER + STATE_ENCODED_MAX);
  if (buf == NULL)
    return -ENOMEM;
  len = state_encode (s, buf + STATEFILE_HEADER, STATE_ENCODED_MAX);
  if (len == 0)
    return -EMSGSIZE;
  memcpy (buf, magic, sizeof magic);
  put_le32 (buf + 8, STATEFILE_VERSION);
  put_le32 (buf + 12, (uint32_t) len);
  put_le64 (buf + 16, promised);
  put_le32 (buf + 24, hold_ms);
  put_le32 (buf + 28, file_crc (buf, buf + STATEFILE_HEADER, len));
  return statefile_replace (dir, name, buf, STATEFILE_HEADER + len);
}

int
statefile_remove (const char *dir, const char *crg)
{
  char name[CRG_NAME_MAX + sizeof STATEFILE_SUFFIX];
  CLEANUP_CLOSE int dir_fd = open_dir (dir);
  int r = file_name (name, sizeof name, crg, STATEFILE_SUFFIX);

  if (r < 0)
    return r;
  if (dir_fd < 0)
    return dir_fd;
  if (unlinkat (dir_fd, name, 0) < 0 && errno != ENOENT)
    return -errno;
  return fsync (dir_fd) < 0 ? -errno : 0;
}

int
statefile_set_aside (const char *dir, const char *crg)
{
  char name[CRG_NAME_MAX + sizeof STATEFILE_SUFFIX];
  char past[CRG_NAME_MAX + sizeof ".state.past"];
  CLEANUP_CLOSE int dir_fd = open_dir (dir);
  int r = file_name (name, sizeof name, crg, STATEFILE_SUFFIX);

  if (r == 0)
    r = file_name (past, sizeof past, crg, ".state.past");
  if (r < 0)
    return r;
  if (dir_fd < 0)
    return dir_fd;
  if (renameat (dir_fd, name, dir_fd, past) < 0 && errno != ENOENT)
    return -errno;
  return fsync (dir_fd) < 0 ? -errno : 0;
}

static int
compare_names (const void *a, const void *b)
{
  return strcmp (a, b);
}

int
statefile_list (const char *dir, char names[][CRG_NAME_MAX + 1], unsigned max)
{
  DIR *d = opendir (dir);
  struct dirent *de;
  unsigned n = 0;

  if (d == NULL)
    return -errno;
  while (n < max && (de = readdir (d)) != NULL) {
    size_t len = strlen (de->d_name), cut = strlen (STATEFILE_SUFFIX);

    if (len <= cut || len - cut > CRG_NAME_MAX
        || strcmp (de->d_name + len - cut, STATEFILE_SUFFIX) != 0)
      continue;
    memcpy (names[n], de->d_name, len - cut);
    names[n][len - cut] = '\0';
    if (ident_name_is_valid (names[n]))
      n++;
  }
  closedir (d);
  qsort (names, n, sizeof names[0], compare_names);
  return (int) n;
}
