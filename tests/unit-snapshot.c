/* SPDX-License-Identifier: BSD-3-Clause */
/* Snapshots before a resync: the reflink, if the file system of the working directory has any, and the
 * hook.  What the plugin does with them is mirror-snapshot's. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "plugin/log.h"
#include "plugin/snapshot.h"
#include "tests/tap.h"

#define BYTES (UINT64_C (4) << 20)

static struct params p;
static struct superblock sb;
static int efd, fd;

static void
write_file (const char *name, const char *text, mode_t mode)
{
  int f = open (name, O_WRONLY | O_CREAT | O_TRUNC, mode);

  check (f >= 0 && write (f, text, strlen (text)) == (ssize_t) strlen (text) && fchmod (f, mode) == 0 && close (f) == 0,
         "%s", name);
}

/* What came of the job under way. */
static int
result (struct snapshot *s, enum snapshot_what what)
{
  struct pollfd pfd = { .fd = efd, .events = POLLIN };
  int error = 1;

  for (int i = 0; i < 100 && !snapshot_is_ready (s); i++) {
    eventfd_t n;

    if (poll (&pfd, 1, 1000) > 0)
      eventfd_read (efd, &n);
  }
  ok (snapshot_take (s, &error) == what, "a job is done");
  return error;
}

static struct snapshot *
opened (const char *hook, bool coherent)
{
  struct snapshot *s;

  snprintf (p.snapshot_hook, sizeof p.snapshot_hook, "%s", hook);
  s = snapshot_new (&p);
  check (s != NULL, "memory");
  snapshot_wake_by (s, efd);
  snapshot_opened (s, coherent);
  return s;
}

static bool
exists (const char *name)
{
  return access (name, F_OK) == 0;
}

static void
test_reflink (void)
{
  struct snapshot *s = opened ("", true);
  struct super_choice choice;
  struct superblock got;
  uint8_t blocks[2][META_BLOCK_SIZE];
  uint64_t offset[2];
  int f, r;

  check (mkdir ("store.before-resync.new", 0700) == 0, "mkdir");
  snapshot_make (s, fd, &sb);
  r = result (s, SNAPSHOT_MAKE);
  ok (r == -EISDIR || r == -EPERM, "a file that can't be made: %s", snapshot_text (s));
  is (snapshot_state (s), SNAP_IS_FAILED, "is said");
  check (rmdir ("store.before-resync.new") == 0, "rmdir");
  snapshot_make (s, fd, &sb);
  is (result (s, SNAPSHOT_MAKE), r, "and not tried again at once");
  snapshot_free (s);

  s = opened ("", true);
  snapshot_make (s, fd, &sb);
  r = result (s, SNAPSHOT_MAKE);
  if (r == -EOPNOTSUPP) {
    ok (strstr (snapshot_text (s), "snapshot-hook") != NULL && !exists ("store.before-resync.new"),
        "no reflinks here: %s", snapshot_text (s));
    snapshot_free (s);
    return;
  }
  ok (r == 0, "a reflink: %s", snapshot_text (s));
  is (snapshot_state (s), SNAP_IS_KEPT, "is kept");
  f = open ("store.before-resync", O_RDONLY);
  check (meta_slot_offsets (BYTES, offset) == 0, "slots");
  for (unsigned i = 0; i < 2; i++)
    check (pread (f, blocks[i], META_BLOCK_SIZE, (off_t) offset[i]) == META_BLOCK_SIZE, "slot %u", i);
  ok (super_choose (blocks[0], blocks[1], &got, &choice) == SUPER_OK && !choice.damaged && (got.flags & SUPER_F_FORK)
        && !(got.flags & (SUPER_F_OPEN | SUPER_F_TRACKED)),
      "as a fork");
  close (f);
  snapshot_free (s);
  s = opened ("", false);
  is (snapshot_state (s), SNAP_IS_KEPT, "found again");
  snapshot_drop (s);
  is (result (s, SNAPSHOT_DROP), 0, "and dropped");
  ok (!exists ("store.before-resync"), "it is gone");
  snapshot_free (s);
}

static void
test_hook (void)
{
  char hook[CRG_PATH_MAX + 1];
  struct snapshot *s;
  struct stat st;

  check (getcwd (hook, sizeof hook - 8) != NULL, "getcwd");
  strcat (hook, "/hook");
  /* Not a file, so the hook's. */
  close (fd);
  fd = open ("/dev/null", O_RDWR);
  write_file ("hook", "#!/bin/sh\ncd \"$(dirname \"$0\")\"\necho $1 $CRG_IASP $CRG_STORE >>calls\n[ ! -e bad ] || exit 7\n", 0755);

  s = opened (hook, true);
  snapshot_drop (s);
  snapshot_make (s, fd, &sb); /* waits for that */
  is (result (s, SNAPSHOT_DROP), 0, "the hook drops");
  is (result (s, SNAPSHOT_MAKE), 0, "and then makes");
  ok (snapshot_state (s) == SNAP_IS_KEPT && strstr (snapshot_text (s), hook), "kept %s", snapshot_text (s));
  ok (stat ("calls", &st) == 0 && st.st_size == 2 * (off_t) strlen ("drop payroll /x/store\n"), "it was called twice");
  write_file ("bad", "", 0600);
  snapshot_make (s, fd, &sb);
  is (result (s, SNAPSHOT_MAKE), -EIO, "the hook fails");
  ok (strstr (snapshot_text (s), "exit code 7") != NULL, "%s", snapshot_text (s));
  snapshot_free (s);

  check (chmod ("hook", 0777) == 0, "chmod");
  s = opened (hook, true);
  snapshot_make (s, fd, &sb);
  ok (result (s, SNAPSHOT_MAKE) == -EPERM, "a hook that others may write: %s", snapshot_text (s));
  snapshot_free (s);

  write_file ("hook", "#!/bin/sh\nexec sleep 100\n", 0755);
  s = opened (hook, true);
  snapshot_make (s, fd, &sb);
  ok (!snapshot_is_idle (s) && snapshot_state (s) == SNAP_IS_MAKING, "a hook that takes long");
  snapshot_cancel (s);
  ok (result (s, SNAPSHOT_MAKE) == -ECANCELED, "is killed when the role ends: %s", snapshot_text (s));
  snapshot_make (s, fd, &sb);
  is (result (s, SNAPSHOT_MAKE), -ECANCELED, "and no other one begins");
  ok (snapshot_is_idle (s), "that is all");
  snapshot_free (s);
}

int
main (void)
{
  char dir[] = "snapshot-XXXXXX";

  check (mkdtemp (dir) != NULL && chdir (dir) == 0, "a directory");
  log_init ("payroll");
  strcpy (p.name, "payroll");
  strcpy (p.store, "/x/store");
  memset (&sb, 0, sizeof sb);
  sb.store_bytes = BYTES;
  sb.data_bytes = BYTES / 4;
  sb.block_size = 512;
  sb.dirty_block_size = 65536;
  memset (sb.store_id, 1, CRG_ID_LEN);
  memset (sb.crg_id, 2, CRG_ID_LEN);
  memset (sb.iasp_id, 3, CRG_ID_LEN);
  strcpy (sb.crg, "wages");
  strcpy (sb.iasp, "payroll");
  sb.sequence = 5;
  sb.flags = SUPER_F_OPEN | SUPER_F_TRACKED;
  efd = eventfd (0, EFD_CLOEXEC);
  fd = open ("store", O_RDWR | O_CREAT, 0600);
  check (fd >= 0 && ftruncate (fd, (off_t) BYTES) == 0, "a store");
  test_hook ();
  close (fd);
  fd = open ("store", O_RDWR);
  strcpy (p.store, "store");
  test_reflink ();
  close (fd);
  for (unsigned i = 0; i < 4; i++) {
    static const char *const names[] = { "store", "hook", "calls", "bad" };
    unlink (names[i]);
  }
  check (chdir ("..") == 0 && rmdir (dir) == 0, "no file is left");
  return tap_done ();
}
