/* SPDX-License-Identifier: BSD-3-Clause */
/* Fuzz target: short texts of others.  The first byte chooses: what clients send to a node and what a node answers,
 * from bytes to structs; the description and the name of an export; the record of a guard and that of a
 * following client; what sysfs says of a device; keys and values of corosync's cmap; what a script prints.  What
 * is accepted must survive the way back, and nothing leaves its bounds.
 */
#include <stdlib.h>
#include <string.h>

#include "common/crc32c.h"
#include "common/ident.h"
#include "common/jsonl.h"
#include "common/metafile.h"
#include "common/query.h"
#include "common/visible.h"
#include "plugin/crg_record.h"
#include "server/cmap_value.h"
#include "server/guard.h"
#include "server/script_text.h"

#define REQUIRE(cond) \
  do {                \
    if (!(cond))      \
      abort ();       \
  } while (0)

extern int LLVMFuzzerTestOneInput (const uint8_t *data, size_t size);

/* The checksum put right if the first byte says so. */
static void
guard_record (const char *text, size_t len)
{
  char line[GUARD_RECORD_LEN + 1], again[GUARD_RECORD_LEN + 1];
  struct guard_record r;

  if (len > 1 && (text[0] & 1) && len - 1 >= GUARD_RECORD_LEN) {
    memcpy (line, text + 1, GUARD_RECORD_LEN);
    snprintf (line + GUARD_RECORD_LEN - 9, 10, "%08x\n", crc32c (0, line, GUARD_RECORD_LEN - 9));
    text = line;
    len = GUARD_RECORD_LEN;
  }
  if (!guard_decode (text, len, &r))
    return;
  guard_encode (&r, again);
  REQUIRE (memcmp (text, again, len) == 0);
  REQUIRE (r.lease_ms <= INT64_MAX && r.start.began <= INT64_MAX && r.stop.began <= INT64_MAX);
}

static void
client_record (const char *text, size_t len)
{
  struct crg_record r, again;
  char *copy;

  if (crg_record_parse (text, len, "payroll", &r) != NULL)
    return;
  REQUIRE (r.tenure > 0 && r.size > 0 && r.size <= STORE_MAX_BYTES);
  copy = crg_record_text (&r, "payroll");
  REQUIRE (copy && crg_record_parse (copy, strlen (copy), "payroll", &again) == NULL);
  REQUIRE (r.tenure == again.tenure && r.loss == again.loss && r.size == again.size && r.flags == again.flags
           && memcmp (&r.lineage, &again.lineage, sizeof r.lineage) == 0);
  free (copy);
}

/* Two lines of sysfs; what they make has to be what a superblock may hold. */
static void
device (const char *text, size_t len)
{
  char line[256], start[24], identity[SUPER_IDENTITY_MAX + 1];
  size_t n = MIN (len, sizeof line - 1), rest = MIN (len - n, sizeof start - 1);

  memcpy (line, text, n);
  line[n] = '\0';
  memcpy (start, text + n, rest);
  start[rest] = '\0';
  if (metafile_line (line) == 0)
    return;
  metafile_line (start);
  metafile_device_text (n & 1, line, start, identity);
  REQUIRE (strlen (identity) < SUPER_IDENTITY_MAX && strchr (identity, ' '));
  for (const char *p = identity; *p; p++)
    REQUIRE (*p >= ' ' && *p <= '~');
}

static void
cmap (const char *text, size_t len)
{
  char name[CRG_NAME_MAX + 1], key[64];
  uint32_t n;

  if (cmap_value_node (text, &n)) {
    snprintf (key, sizeof key, "nodelist.node.%u.nodeid", n);
    REQUIRE (strcmp (key, text) == 0);
  }
  if (cmap_value_name (text, name))
    REQUIRE (strcmp (name, text) == 0 && name[0]);
  REQUIRE (cmap_value_number (true, text, len, &n) == (len == 4));
}

/* All lines that come of it in pieces of so many bytes, each as it is shown, to 'to'. */
static size_t
lines_of (const char *text, size_t len, size_t piece, char *to)
{
  char shown[VISIBLE_SIZE (CRG_REASON_MAX)], again[VISIBLE_SIZE (CRG_REASON_MAX)];
  struct script_line l = { 0 };
  size_t used = 0, at = 0;
  bool whole;

  while (at < len || l.len > 0) {
    size_t n = at < len ? script_line_take (&l, text + at, MIN (piece, len - at), &whole) : 0;

    REQUIRE (n > 0 || at == len || whole);
    REQUIRE (l.len <= CRG_REASON_MAX && l.text[l.len] == '\0');
    at += n;
    if (at < len && !whole)
      continue;
    memcpy (to + used, l.text, l.len);
    used += l.len;
    to[used++] = '\n';
    n = visible_text (l.text, l.len, shown, sizeof shown);
    REQUIRE (n >= l.len && ident_is_utf8 (shown, n));
    for (size_t i = 0; i < n; i++)
      REQUIRE ((unsigned char) shown[i] >= ' ' && shown[i] != 0x7f);
    REQUIRE (visible_text (shown, n, again, sizeof again) == n && memcmp (shown, again, n) == 0);
    l.len = 0;
  }
  return used;
}

static void
script (const char *text, size_t len)
{
  static char one[8 * QUERY_MAX_LINE + 2], two[8 * QUERY_MAX_LINE + 2];
  static struct script_out all, out;
  size_t piece = len > 0 ? (uint8_t) text[0] + 1u : 1, n = lines_of (text, len, piece, one);
  char first[8];
  int told;

  REQUIRE (lines_of (text, len, 1, two) == n && memcmp (one, two, n) == 0);
  memset (&all, 0, sizeof all);
  memset (&out, 0, sizeof out);
  script_out_take (&all, text, len);
  for (size_t at = 0; at < len; at += piece)
    script_out_take (&out, text + at, MIN (piece, len - at));
  REQUIRE (memcmp (&out, &all, sizeof out) == 0);
  REQUIRE (out.len == MIN (len, (size_t) SCRIPT_OUT_MAX) && out.cut == (out.len < len));
  told = script_config_len (out.text, out.len, out.cut);
  REQUIRE (told < 0 || (told <= CRG_CONFIG_MAX && strlen (out.text) >= (size_t) told));
  script_first_line (out.text, out.len, "none", first, sizeof first);
  REQUIRE (!strchr (first, '\n'));
}

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
  char iasp[CRG_NAME_MAX + 1], info[EXPORT_INFO_MAX + 1], name[EXPORT_NAME_MAX + 1];
  struct query_answer a, b;
  struct export_info x, y;
  struct export_name n, m;
  struct jsonl_reader r;
  json_t *obj, *again;
  char *text;

  if (size < 1 || size > 4 * QUERY_MAX_LINE || !(text = malloc (size)))
    return 0;
  memcpy (text, data + 1, size - 1);
  text[size - 1] = '\0';
  switch (data[0] % 8) {
  case 0:
    jsonl_reader_init (&r, QUERY_MAX_LINE);
    if (jsonl_reader_append (&r, text, size - 1) == 0)
      while (jsonl_reader_next (&r, &obj, NULL) == 1) {
        if (query_request_parse (obj, iasp) == NULL && iasp[0] == '\0')
          abort ();
        if (query_answer_parse (obj, "payroll", &a) == NULL) {
          again = query_answer_json (&a, "payroll");
          if (!again || query_answer_parse (again, "payroll", &b) != NULL || memcmp (&a, &b, sizeof a) != 0)
            abort ();
          json_decref (again);
        }
        json_decref (obj);
      }
    jsonl_reader_free (&r);
    break;
  case 1:
    if (export_info_parse (text, &x)) {
      export_info_text (&x, info);
      if (!export_info_parse (info, &y) || memcmp (&x, &y, sizeof x) != 0)
        abort ();
    }
    break;
  case 2:
    if (export_name_parse (text, &n)) {
      export_name_text (&n, name);
      if (!export_name_parse (name, &m) || memcmp (&n, &m, sizeof n) != 0)
        abort ();
    }
    break;
  case 3: guard_record (text, size - 1); break;
  case 4: client_record (text, size - 1); break;
  case 5: device (text, size - 1); break;
  case 6: cmap (text, size - 1); break;
  case 7: script (text, size - 1); break;
  }
  free (text);
  return 0;
}
