/* SPDX-License-Identifier: BSD-3-Clause */
/* The second file or device of a store, that holds its metadata when the store has no free tail
 * (SUPER_F_EXTERNAL of super.h): opens it, tells which file or device it is, and which of the two an
 * offset belongs to.  Owns the second descriptor; any thread that owns the struct.  It never
 * writes.
 */
#ifndef CRG_METAFILE_H
#define CRG_METAFILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/super.h"

struct metafile {
  int fd;         /* -1: the metadata is at the store's own end */
  bool is_block;
  uint64_t bytes; /* in whole blocks; 0 if there is none */
  uint64_t from;  /* offsets from here on are its; UINT64_MAX if there is none */
  char data_identity[SUPER_IDENTITY_MAX + 1]; /* of the store; "" if there is no metafile */
  char identity[SUPER_IDENTITY_MAX + 1];      /* its own */
};

/* No second file. */
extern void metafile_none (struct metafile *m);

/* Opens 'path', beside a store that is open as store_fd; "" or NULL: there is none.  'flags' as of
 * open.  0; -errno, with a sentence that names 'path'.  -EINVAL: it is the store itself, or overlaps
 * it, or is neither file nor device; -ENOSPC: too small. */
extern int metafile_open (struct metafile *m, const char *path, int flags, int store_fd, uint64_t store_bytes,
                          char *err, size_t errlen);
extern void metafile_close (struct metafile *m);

/* The descriptor that 'offset' belongs to; the offset becomes one in it. */
static inline int
metafile_at (const struct metafile *m, int store_fd, uint64_t *offset)
{
  if (*offset < m->from)
    return store_fd;
  *offset -= m->from;
  return m->fd;
}

/* The size of both together, as a superblock counts it. */
static inline uint64_t
metafile_total (const struct metafile *m, uint64_t store_bytes)
{
  return m->fd == -1 ? store_bytes : m->from + m->bytes;
}

/* meta_layout, or meta_layout_apart. */
extern int metafile_layout (const struct metafile *m, uint64_t store_bytes, uint32_t dirty_block_size,
                            struct meta_layout *layout);

/* NULL, or why this superblock does not belong here (super_check_place). */
extern const char *metafile_refuses (const struct metafile *m, const struct superblock *sb);

/* What a new superblock says of where its metadata is. */
extern void metafile_describe (const struct metafile *m, struct superblock *sb);

/* Which file or device 'fd' is, so that it can be known again after a restart: a file by its inode
 * and when it was made, a device by what its driver knows of it.  "": nothing is known that stays. */
extern void metafile_identity (int fd, char text[SUPER_IDENTITY_MAX + 1]);

/* Its pure parts.  The first line of a text, without blanks at its end, all of it printable; its length. */
extern size_t metafile_line (char *line);
/* Such a line, of up to 255 bytes, that a device is known by (is_id: it is unique; else a serial number), and
 * where on it a partition starts, or "". */
extern void metafile_device_text (bool is_id, const char *line, const char *start, char text[SUPER_IDENTITY_MAX + 1]);

#endif /* CRG_METAFILE_H */
