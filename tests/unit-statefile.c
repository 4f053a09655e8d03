/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The state file: what is saved is loaded; every damaged byte, every cut and
 * every foreign file is refused; a failed save leaves the old file whole (C6).
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "server/statefile.h"
#include "tests/tap.h"

static char dir[] = "/tmp/crg-unit-statefile-XXXXXX";
static struct crg_state state, loaded;

static void
make_state (void)
{
  struct crg_def def = { .n_sites = 1, .n_nodes = 2, .n_iasps = 1 };
  static const uint8_t lineage[CRG_ID_LEN] = { 1, 2, 3 };
  const char *why;

  strcpy (def.name, "payroll");
  memset (def.cluster_id, 1, CRG_ID_LEN);
  memset (def.id, 2, CRG_ID_LEN);
  strcpy (def.sites[0], "rome");
  for (unsigned i = 0; i < 2; i++) {
    struct domain_node *n = &def.nodes[i];

    n->id = i + 1;
    snprintf (n->name, sizeof n->name, "p%u", i + 1);
    n->preferred_role = i ? MEMBER_BACKUP : MEMBER_PRIMARY;
    n->votes = n->new_votes = 1;
    n->order = n->preferred_order = (uint8_t) i;
    n->n_addresses = 1;
    strcpy (n->addresses[0], "127.0.0.1");
    strcpy (def.iasps[0].store[i], "/store");
  }
  def.suspend_timeout_ms = 10000;
  strcpy (def.iasps[0].name, "payroll");
  memset (def.iasps[0].id, 3, CRG_ID_LEN);
  def.iasps[0].size = 1 << 20;
  def.iasps[0].dirty_block = 65536;
  def.iasps[0].mirror_port = 10810;
  strcpy (def.iasps[0].export, "unix:");
  why = state_create (&state, &def, lineage);
  if (why) {
    printf ("Bail out! state_create: %s\n", why);
    exit (1);
  }
}

static size_t
read_file (const char *path, uint8_t *buf, size_t size)
{
  int fd = open (path, O_RDONLY);
  ssize_t n = read (fd, buf, size);

  close (fd);
  return n < 0 ? 0 : (size_t) n;
}

static void
write_file (const char *path, const uint8_t *buf, size_t len)
{
  int fd = open (path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

  if (write (fd, buf, len) != (ssize_t) len)
    exit (1);
  close (fd);
}

int
main (void)
{
  static uint8_t good[64 * 1024], bad[sizeof good];
  char path[128], names[4][CRG_NAME_MAX + 1];
  uint64_t promised = 99;
  uint32_t hold_ms = 98;
  unsigned accepted = 0;
  struct stat st;
  size_t len;

  if (!mkdtemp (dir))
    return 1;
  snprintf (path, sizeof path, "%s/payroll.state", dir);
  make_state ();

  is (statefile_load (dir, "payroll", &loaded, &promised, &hold_ms), -ENOENT, "no file: -ENOENT");
  is (promised, 99, "nothing was written to the result");
  is (statefile_list (dir, names, 4), 0, "and none is listed");
  is (statefile_save (dir, "payroll", &state, 7, 8400), 0, "saved");
  is (statefile_load (dir, "payroll", &loaded, &promised, &hold_ms), 0, "loaded");
  is (promised, 7, "the promise came back");
  is (hold_ms, 8400, "and how long leases may run that were granted (L3)");
  ok (stamp_compare (loaded.stamp, state.stamp) == 0
        && memcmp (&loaded.def, &state.def, sizeof state.def) == 0,
      "and the state");
  is (stat (path, &st), 0, "its file is there");
  is (st.st_mode & 0777, 0600, "for the owner only");
  is (statefile_list (dir, names, 4), 1, "one is listed");
  is_str (names[0], "payroll", "by its name");

  /* Every single bit of it counts. */
  len = read_file (path, good, sizeof good);
  ok (len > 100 && len < sizeof good, "it has %zu bytes", len);
  for (size_t i = 0; i < len * 8; i++) {
    memcpy (bad, good, len);
    bad[i / 8] ^= (uint8_t) (1u << i % 8);
    write_file (path, bad, len);
    if (statefile_load (dir, "payroll", &loaded, &promised, &hold_ms) != -EBADMSG) {
      accepted++;
      printf ("# bit %zu of byte %zu is not noticed\n", i % 8, i / 8);
    }
  }
  is (accepted, 0, "a flipped bit anywhere is noticed");
  for (size_t cut = 0; cut < len; cut++) {
    write_file (path, good, cut);
    if (statefile_load (dir, "payroll", &loaded, &promised, &hold_ms) != -EBADMSG)
      accepted++;
  }
  is (accepted, 0, "and so is every cut");
  memcpy (bad, good, len);
  bad[len] = 0;
  write_file (path, bad, len + 1);
  is (statefile_load (dir, "payroll", &loaded, &promised, &hold_ms), -EBADMSG, "and a byte too many");
  write_file (path, good, len);
  {
    char other[128];

    snprintf (other, sizeof other, "%s/other.state", dir);
    write_file (other, good, len);
    is (statefile_load (dir, "other", &loaded, &promised, &hold_ms), -EBADMSG,
        "another CRG's file under our name is refused");
    unlink (other);
  }

  /* A save that can't be done: the temporary file is a directory. */
  {
    char tmp[128];

    snprintf (tmp, sizeof tmp, "%s/payroll.state.new", dir);
    mkdir (tmp, 0700);
    ok (statefile_save (dir, "payroll", &state, 8, 1) < 0, "a save that fails says so");
    rmdir (tmp);
  }
  is (statefile_load (dir, "payroll", &loaded, &promised, &hold_ms), 0, "and the old file is whole");
  is (promised, 7, "with the old promise");
  is (statefile_save (dir, "../x", &state, 1, 1), -EINVAL, "a name that leads elsewhere is refused");
  is (statefile_save (dir, "payroll", &state, 7, LEASE_HOLD_MAX_MS + 1), 0, "a lease longer than any");
  is (statefile_load (dir, "payroll", &loaded, &promised, &hold_ms), -EBADMSG, "is waited for by nobody");
  is (statefile_remove (dir, "payroll"), 0, "removed");
  is (statefile_load (dir, "payroll", &loaded, &promised, &hold_ms), -ENOENT, "and gone");
  is (statefile_remove (dir, "payroll"), 0, "to remove it again is fine");
  rmdir (dir);
  return tap_done ();
}
