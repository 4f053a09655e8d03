/* SPDX-License-Identifier: BSD-3-Clause */
/* Fuzz target: what clients send to a node and what a node answers, from bytes to structs; the
 * description and the name of an export.  What is accepted must survive the way back.
 */
#include <stdlib.h>
#include <string.h>

#include "common/jsonl.h"
#include "common/query.h"

extern int LLVMFuzzerTestOneInput (const uint8_t *data, size_t size);

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
  switch (data[0] % 3) {
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
  }
  free (text);
  return 0;
}
