/* SPDX-License-Identifier: BSD-3-Clause */
/* The store: a regular file or block device that holds one copy of an IASP, and the second one that
 * holds its metadata if that is not at the store's end (metafile.h): then offsets go on in it.  Owns
 * the open file descriptions that carry all I/O and the locks on them (S1), knows how the store wants to be
 * addressed (direct I/O, alignment, holes), and offers each operation in a form that blocks the
 * calling thread.  Any number of threads may be in an operation at once; opening and closing is
 * one thread's, while nobody is in an operation.  It knows nothing of roles, leases or mirrors.
 *
 * Errors are -errno.  A failed flush (also the one in a write with FUA) is never retried into
 * success: the store is failed from then on and every later write and flush says so (F4).  Of a buffered store any
 * write may be what is told that pages of an earlier one are lost, and the flush after it says 0: sync_fd is for that.
 */
#ifndef IASP_STORE_H
#define IASP_STORE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/limits.h"
#include "common/metafile.h"
#include "plugin/storefault.h"

/* Locks for read-modify-write, by megabyte of the store. */
#define STORE_RMW_SHARDS 64
#define STORE_RMW_SHIFT  20

/* A bounce buffer of one thread; larger requests to a direct store go in pieces of this, one after
 * the other.  Bounds the plugin's own memory for each worker; what no request needed is not
 * resident. */
#define STORE_BOUNCE_BYTES (1024u * 1024)

enum store_direct {
  STORE_DIRECT_AUTO, /* if the store can */
  STORE_DIRECT_ON,   /* or refuse */
  STORE_DIRECT_OFF,
};

struct store {
  int fd; /* -1: closed */
  struct metafile meta;
  /* Each a second description of the same, which never writes: an error of writeback is reported once to each
   * description, so a write of fd that failed can't take it away here.  -1: none, as I/O is direct. */
  int sync_fd, meta_sync_fd;
  const char *meta_path; /* "": none */
  bool is_block;
  bool is_rotational;
  bool direct;
  bool is_memory;       /* tmpfs: each operation is a copy in memory, and never waits for a device */
  bool can_extents;
  uint32_t align;       /* of offset, length and memory; 1 if not direct */
  uint32_t sector;      /* smallest write of the medium, bytes */
  uint64_t own_bytes;   /* of the file or device */
  uint64_t store_bytes; /* with the metadata's, if that is elsewhere (metafile_total) */
  uint64_t data_bytes;  /* of the export, from offset 0; <= own_bytes */
  _Atomic bool no_punch, no_zero_range; /* learnt from the first refusal */
  _Atomic int failed;                   /* 0, or the errno of the first failed flush */
  pthread_rwlock_t rmw[STORE_RMW_SHARDS];
#ifdef CRG_TEST
  struct storefault *fault; /* NULL: the store is as good as its file */
#endif
};

#define STORE_F_FUA       1u
#define STORE_F_MAY_TRIM  2u
#define STORE_F_FAST_ZERO 4u

/* Process wide: per-thread bounce buffers.  store_unload when no thread is left. */
extern int store_load (void);
extern void store_unload (void);

extern void store_init (struct store *s);
extern void store_destroy (struct store *s);

/* Opens 'path', probes it, sets data_bytes = store_bytes.  0 or -errno; then 'err' says what,
 * which object and what to do next. */
extern int store_open (struct store *s, const char *path, enum store_direct direct, char *err,
                       size_t errlen);
/* The same, with the metadata on 'meta'; "" or NULL: at the store's end.  'meta' has to live as long
 * as the store is open. */
extern int store_open_with (struct store *s, const char *path, const char *meta, enum store_direct direct, char *err,
                            size_t errlen);
/* The lock of S1, on each description that carries I/O, so that it is free exactly when no
 * I/O of ours can be under way any more.  0; -EBUSY: another process has the store, or its metadata,
 * open. */
extern int store_lock (struct store *s, const char *path);
/* Closes, and with it unlocks. */
extern void store_close (struct store *s);

/* What another node may have written is read from the store next, and not from this one's cache. */
extern void store_forget (struct store *s, uint64_t offset, uint32_t count);
extern void store_forget_all (struct store *s);
extern int store_pread (struct store *s, void *buf, uint32_t count, uint64_t offset);
extern int store_pwrite (struct store *s, const void *buf, uint32_t count, uint64_t offset,
                         unsigned flags);
/* All data that was written before it was called. */
extern int store_flush (struct store *s);
/* And all metadata, wherever that is. */
extern int store_flush_all (struct store *s);
/* The descriptor that holds 'offset', which becomes one in it. */
static inline int
store_at (const struct store *s, uint64_t *offset)
{
  return metafile_at (&s->meta, s->fd, offset);
}
/* The description to ask, after a write at 'offset' that failed, whether pages of earlier ones are lost; -1: none. */
static inline int
store_sync_fd (const struct store *s, uint64_t offset)
{
  return offset < s->meta.from ? s->sync_fd : s->meta_sync_fd;
}
/* Any length up to 4 GiB - 1.  -EOPNOTSUPP only with STORE_F_FAST_ZERO. */
extern int store_zero (struct store *s, uint32_t count, uint64_t offset, unsigned flags);
/* A trimmed range reads as zeroes; a store that can't promise that ignores the request. */
extern int store_trim (struct store *s, uint32_t count, uint64_t offset, unsigned flags);
extern int store_cache (struct store *s, uint32_t count, uint64_t offset);
/* Is all of it a hole?  Looks for no end of data, for which tmpfs walks through all pages behind. */
extern bool store_is_hole (struct store *s, uint64_t offset, uint64_t count);
/* One run that begins at 'offset': its length, at most 'count', and whether it is a hole. */
extern int store_extent (struct store *s, uint64_t offset, uint64_t count, uint64_t *length,
                         bool *is_hole);

/* The mode of fallocate for a zero or trim as the store takes it now; -1: it has to be written,
 * or (trim) ignored.  store_learn notes that fallocate with 'mode' was refused; true if trying
 * the next mode makes sense. */
extern int store_zero_mode (const struct store *s, bool may_trim);
extern bool store_learn (struct store *s, int mode, int err);

/* Notes a failed flush (err > 0) and returns true the first time. */
extern bool store_fail (struct store *s, int err);

/* Aligned memory of at least 'len' <= STORE_BOUNCE_BYTES that belongs to the calling thread until
 * its next call; NULL: no memory. */
extern void *store_bounce (size_t len);

#endif /* IASP_STORE_H */
