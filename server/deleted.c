/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The list of deleted.h, and its file.
 */
#include "config.h"

#include "server/deleted.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/ident.h"
#include "common/util-posix.h"
#include "server/statefile.h"

#define DELETED_FILE "deleted"
#define DELETED_LINE (2 * IDENT_ID_TEXT_LEN + 16)

static void
append (struct deleted *d, const struct deleted_crg *crg)
{
  if (deleted_find (d, crg->id))
    return;
  if (d->n == DELETED_MAX)
    memmove (&d->crg[0], &d->crg[1], --d->n * sizeof d->crg[0]);
  d->crg[d->n++] = *crg;
}

int
deleted_load (struct deleted *d, const char *dir)
{
  char path[CRG_PATH_MAX + 16], line[DELETED_LINE + 2], id[IDENT_ID_TEXT_LEN], lineage[IDENT_ID_TEXT_LEN], what[8];
  CLEANUP_FCLOSE FILE *fp = NULL;

  d->n = 0;
  snprintf (path, sizeof path, "%s/" DELETED_FILE, dir);
  fp = fopen (path, "re");
  if (fp == NULL)
    return errno == ENOENT ? 0 : -errno;
  while (fgets (line, sizeof line, fp)) {
    struct deleted_crg crg = { 0 };

    if (sscanf (line, "%32s %32s %7s", id, lineage, what) != 3 || ident_id_from_text (id, crg.id) != 0
        || ident_id_from_text (lineage, crg.lineage) != 0)
      continue;
    crg.failed = strcmp (what, "failed") == 0;
    if (crg.failed || strcmp (what, "deleted") == 0)
      append (d, &crg);
  }
  return ferror (fp) ? -EIO : 0;
}

static int
save (const struct deleted *d, const char *dir)
{
  static char text[DELETED_MAX * DELETED_LINE + 1];
  size_t used = 0;

  for (unsigned i = 0; i < d->n; i++) {
    char id[IDENT_ID_TEXT_LEN], lineage[IDENT_ID_TEXT_LEN];

    ident_id_to_text (d->crg[i].id, id);
    ident_id_to_text (d->crg[i].lineage, lineage);
    used += (size_t) snprintf (text + used, sizeof text - used, "%s %s %s\n", id, lineage,
                               d->crg[i].failed ? "failed" : "deleted");
  }
  return statefile_replace (dir, DELETED_FILE, text, used);
}

int
deleted_add (struct deleted *d, const char *dir, const struct deleted_crg *crg)
{
  if (deleted_find (d, crg->id))
    return 0;
  append (d, crg);
  return save (d, dir);
}

const struct deleted_crg *
deleted_find (const struct deleted *d, const uint8_t id[CRG_ID_LEN])
{
  for (unsigned i = 0; i < d->n; i++)
    if (ident_id_equal (d->crg[i].id, id))
      return &d->crg[i];
  return NULL;
}
