/* SPDX-License-Identifier: BSD-3-Clause */
/* See crg_record.h.
 */
#include "plugin/crg_record.h"

#include <stdbool.h>
#include <string.h>

#include "common/jsonl.h"

static bool
get_number (const json_t *obj, const char *key, uint64_t min, uint64_t max, uint64_t *to)
{
  const json_t *j = json_object_get (obj, key);

  if (!json_is_integer (j) || json_integer_value (j) < 0)
    return false;
  *to = (uint64_t) json_integer_value (j);
  return *to >= min && *to <= max;
}

/* An id that may be missing: zeroes. */
static bool
get_id (const json_t *obj, const char *key, uint8_t id[CRG_ID_LEN])
{
  const json_t *j = json_object_get (obj, key);
  const char *text = json_string_value (j);

  memset (id, 0, CRG_ID_LEN);
  return j == NULL || (text && ident_id_from_text (text, id) == 0);
}

/* The same way back. */
static const char *
id_text (const uint8_t id[CRG_ID_LEN], char text[IDENT_ID_TEXT_LEN])
{
  ident_id_to_text (id, text);
  return ident_id_is_zero (id) ? NULL : text;
}

const char *
crg_record_parse (const char *text, size_t len, const char *iasp, struct crg_record *r)
{
  CLEANUP_JSON json_t *obj = len <= CRG_RECORD_MAX ? jsonl_parse (text, len, NULL) : NULL;
  const char *whose = json_string_value (json_object_get (obj, "iasp"));
  uint64_t flags;
  struct crg_record got;

  if (whose && strcmp (whose, iasp) != 0)
    return "it is of another IASP";
  if (!whose || !get_number (obj, "tenure", 1, INT64_MAX, &got.tenure) || !get_number (obj, "loss", 0, INT64_MAX, &got.loss)
      || !get_number (obj, "size", 1, STORE_MAX_BYTES, &got.size) || !get_number (obj, "flags", 0, UINT32_MAX, &flags)
      || !get_id (obj, "lineage", got.lineage.id) || !get_id (obj, "past_lineage", got.lineage.past))
    return "it is damaged";
  got.flags = (uint32_t) flags;
  *r = got;
  return NULL;
}

char *
crg_record_text (const struct crg_record *r, const char *iasp)
{
  char id[IDENT_ID_TEXT_LEN], past[IDENT_ID_TEXT_LEN];
  CLEANUP_JSON json_t *obj
      = json_pack ("{s:s, s:I, s:I, s:I, s:I, s:s*, s:s*}", "iasp", iasp, "tenure", (json_int_t) r->tenure, "loss",
                   (json_int_t) r->loss, "size", (json_int_t) r->size, "flags", (json_int_t) r->flags, "lineage",
                   id_text (r->lineage.id, id), "past_lineage", id_text (r->lineage.past, past));

  return obj ? json_dumps (obj, JSON_COMPACT) : NULL; /* never: no memory */
}
