/* SPDX-License-Identifier: BSD-3-Clause */
/* What a create writes on a store, and what one that was given up takes off again (probe.h): nothing of a store that
 * another node of its site has open, whose lock is on another machine (S1); an operator who takes it by force is told
 * first who that is.
 */
#include <config.h>

#include <fcntl.h>
#include <unistd.h>

#include "common/claim.h"
#include "common/super.h"
#include "server/probe.h"
#include "tests/tap.h"

#define BYTES (4 << 20)

static const char path[] = "unit-probe.store";
static struct store_format_arg arg = { .crg = "payroll", .iasp = "disk", .site_name = "rome", .cluster_id = { 1 },
                                       .crg_id = { 2 }, .iasp_id = { 3 }, .lineage = { 4 }, .store_id = { 5 },
                                       .in_set = true, .size = 1 << 20, .tenure = 1, .generation = 1,
                                       .dirty_block = 65536 };

static void
load (struct superblock *sb, enum super_status *status)
{
  uint8_t slot[2][META_BLOCK_SIZE];
  struct super_choice choice;
  uint64_t offset[2];
  int fd = open (path, O_RDONLY | O_CLOEXEC);

  if (fd < 0 || meta_slot_offsets (BYTES, offset) < 0)
    abort ();
  for (unsigned i = 0; i < 2; i++)
    if (pread (fd, slot[i], META_BLOCK_SIZE, (off_t) offset[i]) != META_BLOCK_SIZE)
      abort ();
  close (fd);
  *status = super_choose (slot[0], slot[1], sb, &choice);
}

static void
put (const uint8_t block[META_BLOCK_SIZE], uint64_t offset)
{
  int fd = open (path, O_WRONLY | O_CLOEXEC);

  if (fd < 0 || pwrite (fd, block, META_BLOCK_SIZE, (off_t) offset) != META_BLOCK_SIZE || close (fd) < 0)
    abort ();
}

/* As a plugin on node p1 does, on a machine whose locks are not seen here. */
static void
set_flags (uint16_t flags)
{
  uint8_t block[META_BLOCK_SIZE];
  struct superblock sb;
  enum super_status status;
  uint64_t offset[2];

  load (&sb, &status);
  if (status != SUPER_OK || meta_slot_offsets (BYTES, offset) < 0)
    abort ();
  sb.sequence++;
  sb.flags = flags;
  sb.open_boot_id[0] = 9;
  snprintf (sb.open_node, sizeof sb.open_node, "p1");
  super_encode (&sb, 1, block);
  put (block, offset[1]);
}

static void
set_claim (bool there)
{
  const struct claim_block c = { .node = "p2", .boot_id = { 7 }, .session = 1 };
  uint8_t block[META_BLOCK_SIZE];
  struct meta_layout layout;

  if (meta_layout (BYTES, arg.dirty_block, &layout) < 0)
    abort ();
  claim_encode (there ? &c : NULL, claim_place (2), arg.store_id, block);
  put (block, layout.claims.offset + claim_place (2) * META_BLOCK_SIZE);
}

static bool
has_super (void)
{
  struct superblock sb;
  enum super_status status;

  load (&sb, &status);
  return status == SUPER_OK;
}

static bool
refuses (void (*fn) (const void *, void *), const char *why)
{
  struct store_format res = { 0 };
  struct superblock before, after;
  enum super_status status;

  load (&before, &status);
  fn (&arg, &res);
  load (&after, &status);
  if (!res.ok && strstr (res.reason, why) && status == SUPER_OK && memcmp (&before, &after, sizeof before) == 0)
    return true;
  printf ("# ok %d: %s\n", res.ok, res.reason);
  return false;
}

static bool
does (void (*fn) (const void *, void *))
{
  struct store_format res = { 0 };

  fn (&arg, &res);
  if (!res.ok)
    printf ("# %s\n", res.reason);
  return res.ok;
}

static void
check_says (bool force, bool good, const char *text)
{
  struct store_check_arg c = { .size = arg.size, .dirty_block = arg.dirty_block, .force = force };
  struct store_check res = { 0 };

  memcpy (c.store, arg.store, sizeof c.store);
  store_check (&c, &res);
  ok (res.ok == good && res.needs_force && strstr (res.reason, text), "%s, %s: %s",
      force ? "by force" : "without force", good ? "it may be taken" : "it is refused", res.reason);
}

/* R6: as the node p3, whose record of this lineage has the copy detached. */
static bool
becomes_fork (uint8_t lineage)
{
  static struct store_probe_arg ask;
  static struct store_probe res;
  struct superblock sb;
  enum super_status status;

  memset (&ask, 0, sizeof ask);
  memset (&res, 0, sizeof res);
  snprintf (ask.store, sizeof ask.store, "%s", path);
  snprintf (ask.node, sizeof ask.node, "p3");
  ask.node_id = 3;
  memcpy (ask.cluster_id, arg.cluster_id, CRG_ID_LEN);
  memcpy (ask.crg_id, arg.crg_id, CRG_ID_LEN);
  memcpy (ask.iasp_id, arg.iasp_id, CRG_ID_LEN);
  ask.lineage[0] = lineage;
  ask.size = arg.size;
  ask.fork = true;
  store_probe (&ask, &res);
  load (&sb, &status);
  if (!res.ok || status != SUPER_OK || res.info.fork != ((sb.flags & SUPER_F_FORK) != 0))
    printf ("# probe: %s\n", res.reason);
  return res.info.fork && (sb.flags & SUPER_F_FORK);
}

int
main (void)
{
  int fd = open (path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  struct flock fl = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

  if (fd < 0 || ftruncate (fd, BYTES) < 0)
    abort ();
  snprintf (arg.store, sizeof arg.store, "%s", path);
  ok (does (store_format) && has_super (), "an empty store gets its superblock");
  check_says (false, false, "of CRG payroll already; --force");

  set_flags (SUPER_F_OPEN);
  ok (refuses (store_wipe, "node p1 has it open"), "one that another node has open is not wiped");
  ok (refuses (store_format, "node p1 has it open"), "nor given another superblock");
  check_says (false, false, "and node p1 has it open, or had when it died; --force");
  check_says (true, true, "");
  arg.force = true;
  ok (refuses (store_wipe, "node p1 has it open"), "nobody wipes by force");
  ok (does (store_format), "an operator who was told may take it");
  arg.force = false;

  set_flags (0);
  ok (refuses (store_wipe, "node p1 has it open"), "one that was not released is not wiped");
  set_flags (SUPER_F_CLEAN);
  set_claim (true);
  ok (refuses (store_wipe, "node p2 is opening it"), "nor one that another node is opening");
  ok (refuses (store_format, "node p2 is opening it"), "which gets no other superblock");
  set_claim (false);
  ok (!becomes_fork (5), "C9: a store of another lineage is marked as a fork by nobody's record");
  ok (becomes_fork (4), "R6: one of the lineage is");
  set_flags (SUPER_F_CLEAN);
  if (fcntl (fd, F_OFD_SETLK, &fl) < 0)
    abort ();
  ok (refuses (store_wipe, "a process has it open") && refuses (store_format, "a process has it open"),
      "nor one with a lock of this machine");
  close (fd);
  arg.crg_id[0]++;
  ok (does (store_wipe) && has_super (), "what is of another CRG is left as it is");
  arg.crg_id[0]--;
  ok (does (store_wipe) && !has_super (), "one that was released is wiped");
  unlink (path);
  return tap_done ();
}
