/* SPDX-License-Identifier: BSD-3-Clause */
/* A store whose metadata is on a second file: both files keep to their own, the locks lie on both,
 * each has a flush of its own and no order comes free, and only the two that belong together are
 * taken for one.
 */
#include "config.h"

#ifdef CRG_TEST

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/metafile.h"
#include "common/util.h"
#include "plugin/sop.h"
#include "plugin/storemeta.h"
#include "tests/tap.h"

#define SIZE  (1u << 20)
#define BLOCK META_BLOCK_SIZE

static char dir[] = "unit-metafile-XXXXXX", data[64], meta[64], other[64], control[80];
static char err[512];
static struct params params;

static void
write_file (const char *name, const char *text)
{
  FILE *fp = fopen (name, "w");

  if (!fp || fputs (text, fp) < 0 || fclose (fp) != 0)
    abort ();
}

static void
make (const char *name, uint64_t bytes)
{
  int fd = open (name, O_RDWR | O_CREAT | O_TRUNC, 0600);

  if (fd == -1 || ftruncate (fd, (off_t) bytes) == -1)
    abort ();
  close (fd);
}

static bool
is_filled (const char *name, uint64_t offset, uint64_t count, uint8_t with)
{
  static uint8_t buf[SIZE];
  int fd = open (name, O_RDONLY);
  bool same = fd != -1 && pread (fd, buf, count, (off_t) offset) == (ssize_t) count;

  for (uint64_t i = 0; i < count && same; i++)
    same = buf[i] == with;
  close (fd);
  return same;
}

static int
opened (struct store *s, const char *with, enum store_direct direct)
{
  store_init (s);
  err[0] = '\0';
  return store_open_with (s, data, with, direct, err, sizeof err);
}

static int
reading (const char *with)
{
  struct storemeta sm;
  struct store s;
  int r;

  if (opened (&s, with, STORE_DIRECT_OFF) < 0 || storemeta_init (&sm) < 0)
    abort ();
  r = storemeta_read (&sm, &s, data, err, sizeof err);
  storemeta_destroy (&sm);
  store_destroy (&s);
  return r;
}

/* ---- what is refused ---------------------------------------------------------------------- */

static void
refused (void)
{
  struct store s;
  char link_path[80];

  is (opened (&s, "/nonexistent/meta", STORE_DIRECT_AUTO), -ENOENT, "absent");
  ok (strstr (err, "metadata /nonexistent/meta: cannot open it") != NULL && s.fd == -1, "and said so: %s", err);
  is (opened (&s, data, STORE_DIRECT_AUTO), -EINVAL, "the store itself");
  ok (strstr (err, "it is the store itself") != NULL, "and said so: %s", err);
  snprintf (link_path, sizeof link_path, "%s/link", dir);
  is (link (data, link_path), 0, "another name of the store");
  is (opened (&s, link_path, STORE_DIRECT_AUTO), -EINVAL, "is the store itself too");
  unlink (link_path);
  is (opened (&s, "/dev/null", STORE_DIRECT_AUTO), -EINVAL, "neither file nor device");
  make (other, meta_bytes_apart (SIZE, DIRTY_BLOCK_SIZE_MAX) - 1);
  is (opened (&s, other, STORE_DIRECT_AUTO), -ENOSPC, "too small");
  ok (strstr (err, "are too few for a store of 1048576; it needs ") != NULL, "and said so: %s", err);
  make (other, 0);
  is (opened (&s, other, STORE_DIRECT_AUTO), -ENOSPC, "empty");
  ok (is_filled (data, 0, SIZE, 0), "nothing was written");
}

/* ---- each to its own ---------------------------------------------------------------------- */

static bool done;
static int done_error;

static void
sop_is_done (struct sop *op, int error)
{
  done = true;
  done_error = error;
}

static int
by_ring (struct ring *ring, struct sop *op, enum sop_kind kind, uint64_t offset, void *buf, bool fua)
{
  done = false;
  sop_start (op, kind, offset, kind == SOP_FLUSH ? 0 : BLOCK, buf, fua, false);
  for (unsigned i = 0; i < 1000 && !done; i++) {
    if (op->env->memory)
      sop_run (op->env);
    else
      ring_wait (ring, 100);
    ring_reap (ring, 10);
  }
  return done ? done_error : -ETIME;
}

static void
each_to_its_own (enum store_direct direct, const char *mode)
{
  static _Alignas (BLOCK) uint8_t buf[BLOCK], back[BLOCK];
  struct store s, second;
  struct sop_env env;
  struct ring ring;
  struct sop op;
  uint64_t from;
  int fd;

  make (data, SIZE);
  make (meta, SIZE);
  is (opened (&s, meta, direct), 0, mode);
  from = s.meta.from;
  ok (from == SIZE && s.store_bytes == 2 * SIZE && s.own_bytes == SIZE && s.data_bytes == SIZE, "%s: sizes", mode);
  is (store_lock (&s, data), 0, "both locked");
  fd = open (meta, O_RDWR);
  ok (fd != -1 && fcntl (fd, F_OFD_SETLK, &(struct flock){ .l_type = F_WRLCK, .l_whence = SEEK_SET }) == -1,
      "the lock lies on the metadata too");
  close (fd);
  make (other, SIZE);
  store_init (&second);
  is (store_open_with (&second, other, meta, direct, err, sizeof err), 0, "another store with that metadata");
  is (store_lock (&second, other), -EBUSY, "does not get it (S1)");
  store_destroy (&second);

  memset (buf, 0xd1, BLOCK);
  is (store_pwrite (&s, buf, BLOCK, SIZE - BLOCK, 0), 0, "the last block of data");
  memset (buf, 0xe1, BLOCK);
  is (store_pwrite (&s, buf, BLOCK, from, 0), 0, "the first one of metadata");
  is (store_flush_all (&s), 0, "flushed");
  memset (buf, 0xe2, BLOCK);
  if (ring_init (&ring) < 0 || sop_env_init (&env, &ring, &s) < 0 || sop_init (&op, &env, sop_is_done) < 0)
    abort ();
  is (by_ring (&ring, &op, SOP_WRITE, from + BLOCK, buf, true), 0, "by way of the ring");
  is (by_ring (&ring, &op, SOP_READ, from, back, false), 0, "read");
  ok (back[0] == 0xe1 && back[BLOCK - 1] == 0xe1, "%s: the ring reads what was written", mode);
  is (store_pread (&s, back, BLOCK, from + BLOCK), 0, "read");
  ok (back[0] == 0xe2 && back[BLOCK - 1] == 0xe2, "%s: and writes where it is read", mode);
  ok (is_filled (data, SIZE - BLOCK, BLOCK, 0xd1) && is_filled (meta, 0, BLOCK, 0xe1)
        && is_filled (meta, BLOCK, BLOCK, 0xe2) && is_filled (meta, 2 * BLOCK, SIZE - 2 * BLOCK, 0),
      "%s: each file has what is its own", mode);
  sop_free (&op);
  sop_env_free (&env);
  ring_exit (&ring);
  store_destroy (&s);
}

/* ---- order -------------------------------------------------------------------------------- */

static void
power_loss (void)
{
  char report[128];

  is (storefault_power_loss (data, 0, report, sizeof report), 0, "the power is lost");
  printf ("# %s\n", report);
}

/* A flush of the one is none of the other: what relied on it would be seen here. */
static void
order (void)
{
  static _Alignas (BLOCK) uint8_t buf[BLOCK];
  struct sop_env env;
  struct ring ring;
  struct store s;
  struct sop op;

  make (data, SIZE);
  make (meta, SIZE);
  write_file (control, "cache 0\n");
  if (opened (&s, meta, STORE_DIRECT_OFF) < 0 || store_lock (&s, data) < 0)
    abort ();
  memset (buf, 0xaa, BLOCK);
  is (store_pwrite (&s, buf, BLOCK, 0, 0), 0, "data");
  is (store_pwrite (&s, buf, BLOCK, s.meta.from, 0), 0, "metadata");
  is (store_flush (&s), 0, "the data is flushed");
  is (store_pwrite (&s, buf, BLOCK, s.meta.from + BLOCK, STORE_F_FUA), 0, "a block of metadata is made stable");
  is (store_pwrite (&s, buf, BLOCK, BLOCK, 0), 0, "data, after it");
  if (ring_init (&ring) < 0 || sop_env_init (&env, &ring, &s) < 0 || sop_init (&op, &env, sop_is_done) < 0)
    abort ();
  is (by_ring (&ring, &op, SOP_WRITE, s.meta.from + 2 * BLOCK, buf, false), 0, "metadata by way of the ring");
  sop_free (&op);
  sop_env_free (&env);
  ring_exit (&ring);
  store_destroy (&s);
  power_loss ();
  ok (is_filled (data, 0, BLOCK, 0xaa), "flushed data is there");
  ok (is_filled (meta, 0, BLOCK, 0), "a flush of data is none of metadata");
  ok (is_filled (meta, BLOCK, BLOCK, 0xaa), "what was made stable is there");
  ok (is_filled (data, BLOCK, BLOCK, 0), "which flushed no data");
  ok (is_filled (meta, 2 * BLOCK, BLOCK, 0xaa), "what the ring writes of metadata is stable when it is done");

  if (opened (&s, meta, STORE_DIRECT_OFF) < 0 || store_lock (&s, data) < 0)
    abort ();
  memset (buf, 0xbb, BLOCK);
  is (store_pwrite (&s, buf, BLOCK, 0, 0), 0, "data");
  is (store_pwrite (&s, buf, BLOCK, s.meta.from, 0), 0, "metadata");
  is (store_flush_all (&s), 0, "both are flushed");
  store_destroy (&s);
  power_loss ();
  ok (is_filled (data, 0, BLOCK, 0xbb) && is_filled (meta, 0, BLOCK, 0xbb), "both are there");
  unlink (control);
}

/* ---- who belongs to whom ------------------------------------------------------------------ */

static void
copy (const char *from, const char *to)
{
  static uint8_t buf[SIZE];
  int in = open (from, O_RDONLY), out = open (to, O_WRONLY | O_CREAT | O_TRUNC, 0600);

  if (in == -1 || out == -1 || read (in, buf, SIZE) != SIZE || write (out, buf, SIZE) != SIZE)
    abort ();
  close (in);
  close (out);
}

static void
belongs (void)
{
  struct storemeta sm;
  struct store s;
  struct stat st;
  char moved[80];

  make (data, SIZE);
  make (meta, SIZE);
  params.size = SIZE;
  params.dirty_block = DIRTY_BLOCK_SIZE;
  snprintf (params.store, sizeof params.store, "%s", data);
  snprintf (params.meta, sizeof params.meta, "%s", meta);
  snprintf (params.crg, sizeof params.crg, "payroll");
  snprintf (params.name, sizeof params.name, "disk");
  snprintf (params.site, sizeof params.site, "rome");
  params.crg_id[0] = params.iasp_id[0] = params.cluster_id[0] = 1;
  if (opened (&s, meta, STORE_DIRECT_AUTO) < 0 || storemeta_init (&sm) < 0)
    abort ();
  is (storemeta_read (&sm, &s, data, err, sizeof err), -ENODATA, "no superblock yet");
  is (storemeta_format (&sm, &s, &params, 0, err, sizeof err), 0, "all of the store is data");
  is (storemeta_write (&sm, &s, true), 0, "written");
  params.size = SIZE + 4096;
  is (storemeta_format (&sm, &s, &params, 0, err, sizeof err), -ENOSPC, "no more than that");
  ok (strstr (err, "too few for an export of 1052672") != NULL, "said so: %s", err);
  storemeta_destroy (&sm);
  store_destroy (&s);
  ok (is_filled (data, 0, SIZE, 0), "nothing of it is in the store");

  is (reading (meta), 0, "the two belong together");
  copy (meta, other);
  is (reading (other), -ESTALE, "a copy of the metadata does not");
  ok (strstr (err, "is a copy from elsewhere") != NULL, "said so: %s", err);
  is (reading (NULL), -ENODATA, "the store alone has no superblock");
  snprintf (moved, sizeof moved, "%s/moved", dir);
  is (rename (data, moved), 0, "the store has another name");
  copy (moved, data);
  is (reading (meta), -ESTALE, "a copy of the store");
  ok (strstr (err, "was made for another file or device") != NULL, "said so: %s", err);
  unlink (data);
  is (rename (moved, data), 0, "and its own again");
  is (reading (meta), 0, "a rename changes nothing");
  is (stat (meta, &st), 0, "stat");
  is (truncate (meta, st.st_size + 4 * BLOCK), 0, "a longer file");
  is (reading (meta), -ENODATA, "has no superblock at its end");
  is (truncate (meta, st.st_size), 0, "its old size");

  /* The file of metadata in the store's place, and a whole store in its. */
  is (rename (data, moved) == 0 && rename (meta, data) == 0, true, "swapped");
  is (reading (NULL), -ESTALE, "metadata is no store");
  ok (strstr (err, "holds the metadata of another store") != NULL, "said so: %s", err);
  is (rename (data, meta) == 0 && rename (moved, data) == 0, true, "put right");
}

/* What a device is known by. */
static void
identities (void)
{
  static const char *const lines[][2] = { { "WD-1\n", "WD-1" }, { "a b  \nmore", "a b" }, { "  \n", "" }, { "", "" },
                                          { "x\x1b[31m\xc3\xa9\x7f", "x?[31m???" } };
  char line[256], text[SUPER_IDENTITY_MAX + 1], same[SUPER_IDENTITY_MAX + 1];

  for (unsigned i = 0; i < ARRAY_SIZE (lines); i++) {
    strcpy (line, lines[i][0]);
    ok (metafile_line (line) == strlen (lines[i][1]) && strcmp (line, lines[i][1]) == 0, "a line of sysfs: %s", lines[i][1]);
  }
  metafile_device_text (true, "uuid", "", text);
  is_str (text, "id uuid", "an id");
  metafile_device_text (false, "WD-1", "2048", text);
  is_str (text, "serial WD-1 from 2048", "a partition of a disk with a serial number");
  memset (line, 'x', sizeof line - 1);
  line[255] = '\0';
  metafile_device_text (true, line, "18446744073709551615", text);
  ok (strlen (text) < SUPER_IDENTITY_MAX, "the longest");
  line[254] = 'y';
  metafile_device_text (true, line, "18446744073709551615", same);
  ok (strcmp (text, same) != 0, "what differs at its end differs");
}

int
main (void)
{
  identities ();
  if (!mkdtemp (dir))
    return 1;
  snprintf (data, sizeof data, "%s/data", dir);
  snprintf (meta, sizeof meta, "%s/meta", dir);
  snprintf (other, sizeof other, "%s/other", dir);
  snprintf (control, sizeof control, "%s.faults", data);
  make (data, SIZE);
  make (meta, SIZE);
  store_load ();
  refused ();
  each_to_its_own (STORE_DIRECT_AUTO, "as the store likes it");
  each_to_its_own (STORE_DIRECT_OFF, "through the page cache");
  order ();
  belongs ();
  store_unload ();
  unlink (data);
  unlink (meta);
  unlink (other);
  snprintf (control, sizeof control, "%s.cache", data);
  unlink (control);
  rmdir (dir);
  return tap_done ();
}

#else

#include "tests/tap.h"

int
main (void)
{
  tap_skip_all ("needs --enable-test-hooks");
}

#endif
