/* SPDX-License-Identifier: BSD-3-Clause */
/* The codecs of query.h.  Every text from outside is bounded and looked at before it is kept.
 */
#include "config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/exitcodes.h"
#include "common/ident.h"
#include "common/jsonl.h"
#include "common/query.h"
#include "common/visible.h"

json_t *
query_request (const char *iasp)
{
  return json_pack ("{s:i, s:s, s:s}", "v", QUERY_VERSION, "cmd", "where", "iasp", iasp);
}

json_t *
query_answer_json (const struct query_answer *a, const char *iasp)
{
  char lineage[IDENT_ID_TEXT_LEN];

  ident_id_to_text (a->lineage, lineage);
  if (a->served)
    return json_pack ("{s:b, s:s, s:s, s:s, s:s, s:I, s:I, s:s*, s:I}", "ok", 1, "node", a->node, "iasp", iasp, "host",
                      a->host, "uri", a->uri, "tenure", (json_int_t) a->tenure, "loss", (json_int_t) a->loss, "lineage",
                      ident_id_is_zero (a->lineage) ? NULL : lineage, "size", (json_int_t) a->size);
  return json_pack ("{s:b, s:s, s:s, s:i, s:o, s:I}", "ok", 0, "node", a->node, "iasp", iasp, "code", a->code, "error",
                    jsonl_string (a->error), "tenure", (json_int_t) a->tenure);
}

/* Text of 1 to size - 1 bytes that may be shown as it is. */
static bool
get_text (const json_t *obj, const char *key, char *to, size_t size)
{
  const json_t *j = json_object_get (obj, key);
  const char *s = json_string_value (j);
  size_t len = json_string_length (j);

  if (!s || len == 0 || len >= size || strlen (s) != len)
    return false;
  return visible_text (s, len, to, size) == len && memcmp (to, s, len) == 0;
}

static bool
get_name (const json_t *obj, const char *key, char to[CRG_NAME_MAX + 1])
{
  return get_text (obj, key, to, CRG_NAME_MAX + 1) && ident_name_is_valid (to);
}

static bool
get_number (const json_t *obj, const char *key, uint64_t *to)
{
  const json_t *j = json_object_get (obj, key);

  if (!json_is_integer (j) || json_integer_value (j) < 0)
    return false;
  *to = (uint64_t) json_integer_value (j);
  return true;
}

const char *
query_request_parse (const json_t *req, char iasp[CRG_NAME_MAX + 1])
{
  const char *cmd = json_string_value (json_object_get (req, "cmd"));

  if (json_integer_value (json_object_get (req, "v")) != QUERY_VERSION)
    return "this crgd speaks version 1 of the clients' query";
  if (!cmd || strcmp (cmd, "where") != 0)
    return "clients can ask for 'where' alone";
  if (!get_name (req, "iasp", iasp))
    return "the request names no IASP";
  return NULL;
}

const char *
query_answer_parse (const json_t *obj, const char *iasp, struct query_answer *a)
{
  const json_t *okay = json_object_get (obj, "ok");
  char name[CRG_NAME_MAX + 1], lineage[IDENT_ID_TEXT_LEN];
  uint64_t code = 0;

  memset (a, 0, sizeof *a);
  if (!json_is_boolean (okay))
    return "it is not an answer";
  if (!get_name (obj, "node", a->node))
    return "it does not say which node answers";
  a->served = json_typeof (okay) == JSON_TRUE;
  if (!a->served) {
    if (!get_text (obj, "error", a->error, sizeof a->error))
      return "it gives no reason";
    get_number (obj, "tenure", &a->tenure);
    a->code = CRG_EXIT_ERROR;
    if (get_number (obj, "code", &code) && code > 0 && code < 100)
      a->code = (int) code;
    return NULL;
  }
  if (!get_name (obj, "iasp", name) || strcmp (name, iasp) != 0)
    return "it is about another IASP";
  if (!get_name (obj, "host", a->host) || !get_text (obj, "uri", a->uri, sizeof a->uri))
    return "it names no host or no URI";
  if (strncmp (a->uri, "nbd://", 6) != 0 && strncmp (a->uri, "nbds://", 7) != 0
      && strncmp (a->uri, "nbd+unix://", 11) != 0)
    return "its URI is not one of an NBD export";
  if (!get_number (obj, "tenure", &a->tenure) || a->tenure == 0 || !get_number (obj, "loss", &a->loss)
      || !get_number (obj, "size", &a->size) || a->size == 0 || a->size > STORE_MAX_BYTES)
    return "its tenure, loss or size is missing or out of bounds";
  if (json_object_get (obj, "lineage")
      && (!get_text (obj, "lineage", lineage, sizeof lineage) || ident_id_from_text (lineage, a->lineage) < 0))
    return "its lineage is no id";
  return NULL;
}

/* ---- what the export says of itself -------------------------------------------------------- */

void
export_info_text (const struct export_info *x, char text[EXPORT_INFO_MAX + 1])
{
  const bool has_lineage = !ident_id_is_zero (x->lineage.id);
  const bool has_past = has_lineage && !ident_id_is_zero (x->lineage.past);
  char id[IDENT_ID_TEXT_LEN], past[IDENT_ID_TEXT_LEN];

  ident_id_to_text (x->lineage.id, id);
  ident_id_to_text (x->lineage.past, past);
  snprintf (text, EXPORT_INFO_MAX + 1, "nbd-crg %s tenure=%" PRIu64 " loss=%" PRIu64 " forced=%d run=%016" PRIx64
            "%s%s%s%s", x->iasp, x->tenure, x->loss, x->forced, x->run, has_lineage ? " lineage=" : "",
            has_lineage ? id : "", has_past ? " past=" : "", has_past ? past : "");
}

/* Takes 'word' and digits from *s. */
static bool
take_number (const char **s, const char *word, unsigned base, uint64_t *to)
{
  size_t len = strlen (word);
  unsigned n = 0;

  if (strncmp (*s, word, len) != 0)
    return false;
  *s += len;
  for (*to = 0;; (*s)++, n++) {
    unsigned digit = 99;

    if (**s >= '0' && **s <= '9')
      digit = (unsigned) (**s - '0');
    else if (**s >= 'a' && **s <= 'f')
      digit = (unsigned) (**s - 'a') + 10;
    if (digit >= base)
      return n > 0;
    if (*to > (UINT64_MAX - digit) / base)
      return false;
    *to = *to * base + digit;
  }
}

/* Takes 'word' and an id, which isn't all zeroes, from *s, if they are there.  False: another thing follows it. */
static bool
take_id (const char **s, const char *word, uint8_t id[CRG_ID_LEN])
{
  size_t len = strlen (word);
  char text[IDENT_ID_TEXT_LEN];

  if (strncmp (*s, word, len) != 0)
    return true;
  snprintf (text, sizeof text, "%s", *s + len);
  if (strlen (text) != sizeof text - 1 || ident_id_from_text (text, id) < 0 || ident_id_is_zero (id))
    return false;
  *s += len + sizeof text - 1;
  return true;
}

bool
export_info_parse (const char *text, struct export_info *x)
{
  static const char magic[] = "nbd-crg ";
  const char *s = text, *space;
  uint64_t forced;

  memset (x, 0, sizeof *x);
  if (strncmp (s, magic, sizeof magic - 1) != 0)
    return false;
  s += sizeof magic - 1;
  space = strchr (s, ' ');
  if (!space || (size_t) (space - s) > CRG_NAME_MAX)
    return false;
  memcpy (x->iasp, s, (size_t) (space - s));
  s = space;
  if (!ident_name_is_valid (x->iasp) || !take_number (&s, " tenure=", 10, &x->tenure)
      || !take_number (&s, " loss=", 10, &x->loss) || !take_number (&s, " forced=", 2, &forced) || forced > 1
      || !take_number (&s, " run=", 16, &x->run) || !take_id (&s, " lineage=", x->lineage.id)
      || (!ident_id_is_zero (x->lineage.id) && !take_id (&s, " past=", x->lineage.past)))
    return false;
  x->forced = forced != 0;
  return *s == '\0' || *s == ' '; /* a later release may say more */
}

void
export_name_text (const struct export_name *n, char text[EXPORT_NAME_MAX + 1])
{
  if (n->client[0])
    snprintf (text, EXPORT_NAME_MAX + 1, "%s@%s/%016" PRIx64, n->iasp, n->client, n->session);
  else
    snprintf (text, EXPORT_NAME_MAX + 1, "%s", n->iasp);
}

bool
export_name_parse (const char *text, struct export_name *n)
{
  const char *at, *slash;
  size_t len;

  memset (n, 0, sizeof *n);
  if (strlen (text) > EXPORT_NAME_MAX)
    return false;
  at = strchr (text, '@');
  len = at ? (size_t) (at - text) : strlen (text);
  if (len > CRG_NAME_MAX)
    return false;
  memcpy (n->iasp, text, len);
  if (!ident_name_is_valid (n->iasp))
    return false;
  if (!at)
    return true;
  slash = strchr (at, '/');
  if (!slash || (size_t) (slash - at - 1) > CRG_NAME_MAX)
    return false;
  memcpy (n->client, at + 1, (size_t) (slash - at - 1));
  if (!ident_name_is_valid (n->client) || strlen (slash + 1) != 16)
    return false;
  return take_number (&slash, "/", 16, &n->session) && *slash == '\0' && n->session != 0;
}
