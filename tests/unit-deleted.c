/* SPDX-License-Identifier: BSD-3-Clause
 *
 * CRGs that are no more: what was noted is known after a restart, the last ones of too many, and lines that make
 * no sense harm nothing.
 */
#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "server/deleted.h"
#include "tests/tap.h"

static char dir[] = "/tmp/crg-unit-deleted-XXXXXX", path[64];
static struct deleted list, again;

static struct deleted_crg
crg (unsigned n)
{
  struct deleted_crg c = { .failed = n % 2 };

  memset (c.id, (int) n + 1, CRG_ID_LEN);
  memset (c.lineage, (int) n + 101, CRG_ID_LEN);
  return c;
}

static bool
knows (const struct deleted *d, unsigned n)
{
  const struct deleted_crg c = crg (n), *found = deleted_find (d, c.id);

  return found && memcmp (found->lineage, c.lineage, CRG_ID_LEN) == 0 && found->failed == c.failed;
}

static void
add (unsigned n)
{
  const struct deleted_crg c = crg (n);

  ok (deleted_add (&list, dir, &c) == 0, "CRG %u is noted", n);
}

int
main (void)
{
  struct deleted_crg c;
  FILE *fp;

  if (mkdtemp (dir) == NULL)
    return 1;
  snprintf (path, sizeof path, "%s/deleted", dir);
  is (deleted_load (&list, dir), 0, "no file is no fault");
  is (list.n, 0, "and an empty list");
  add (0);
  add (1);
  add (0);
  is (list.n, 2, "one that is there stays one");
  is (deleted_load (&again, dir), 0, "loaded again");
  ok (again.n == 2 && knows (&again, 0) && knows (&again, 1) && !knows (&again, 2), "both are known after a restart");
  fp = fopen (path, "a");
  fprintf (fp, "\nrubbish\n%080d\n00 11 deleted\n%032x %032x forgotten\n%032x %032x deleted\n", 0, 7, 7, 9, 9);
  fclose (fp);
  is (deleted_load (&again, dir), 0, "a file with other lines");
  ok (again.n == 3 && knows (&again, 1), "what makes sense in it");
  for (unsigned n = 2; n < DELETED_MAX + 3; n++)
    add (n);
  is (deleted_load (&again, dir), 0, "the last ones of too many");
  ok (again.n == DELETED_MAX && !knows (&again, 2) && knows (&again, 3) && knows (&again, DELETED_MAX + 2),
      "are there");
  unlink (path);
  rmdir (dir);
  c = crg (90);
  ok (deleted_add (&list, dir, &c) < 0 && knows (&list, 90), "where it can't be written it is known until the end");
  return tap_done ();
}
