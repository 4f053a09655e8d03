/* SPDX-License-Identifier: BSD-3-Clause */
/* The record of a client that follows production (Y3): there and back, and what is no record.
 */
#include <config.h>

#include <jansson.h>

#include "common/limits.h"
#include "plugin/crg_record.h"
#include "tests/tap.h"

#define GOOD "{\"iasp\":\"payroll\",\"tenure\":3,\"loss\":1,\"size\":4096,\"flags\":7}"

static const char *
parse (const char *text, struct crg_record *r)
{
  return crg_record_parse (text, strlen (text), "payroll", r);
}

int
main (void)
{
  static const struct {
    const char *key, *value;
  } bad[] = { { "iasp", "1" },       { "iasp", "null" },    { "tenure", "0" },   { "tenure", "-1" },
              { "tenure", "\"3\"" }, { "tenure", "3.0" },   { "loss", "-1" },    { "loss", "null" },
              { "size", "0" },       { "size", "1152921504606846977" }, { "flags", "4294967296" }, { "flags", "-1" } };
  const struct crg_record most = { INT64_MAX, INT64_MAX, STORE_MAX_BYTES, UINT32_MAX, { { 0xab }, { 0xcd } } };
  struct crg_record r = { 0 }, untouched;
  char *text, padded[CRG_RECORD_MAX + 2];

  ok (parse (GOOD, &r) == NULL && r.tenure == 3 && r.loss == 1 && r.size == 4096 && r.flags == 7
        && ident_id_is_zero (r.lineage.id) && ident_id_is_zero (r.lineage.past),
      "a record, of a release that knew no lineage");
  text = crg_record_text (&most, "payroll");
  ok (text && parse (text, &r) == NULL && r.tenure == most.tenure && r.loss == most.loss && r.size == most.size
        && r.flags == most.flags && memcmp (&r.lineage, &most.lineage, sizeof r.lineage) == 0,
      "there and back, all as large as may be");
  free (text);
  ok (parse (GOOD, &r) == NULL && (text = crg_record_text (&r, "payroll")) != NULL && strstr (text, "lineage") == NULL,
      "what is not known is not said");
  free (text);
  untouched = r;
#define WITH(more) parse ("{\"iasp\":\"payroll\",\"tenure\":3,\"loss\":1,\"size\":4096,\"flags\":7,\"" more "}", &r)
  ok (WITH ("lineage\":7") != NULL && WITH ("lineage\":\"ab\"") != NULL && WITH ("past_lineage\":null") != NULL,
      "a lineage that is no id");
  is_str (crg_record_parse (GOOD, sizeof GOOD - 1, "other", &r), "it is of another IASP", "another IASP's");
  for (unsigned i = 0; i < ARRAY_SIZE (bad); i++) {
    json_t *obj = json_loads (GOOD, 0, NULL), *value = json_loads (bad[i].value, JSON_DECODE_ANY, NULL);

    json_object_set_new (obj, bad[i].key, value);
    text = json_dumps (obj, 0);
    ok (parse (text, &r) != NULL, "%s: %s", bad[i].key, bad[i].value);
    free (text);
    json_object_del (obj, bad[i].key);
    text = json_dumps (obj, 0);
    ok (parse (text, &r) != NULL, "no %s", bad[i].key);
    free (text);
    json_decref (obj);
  }
  for (size_t n = 0; n < sizeof GOOD - 1; n++)
    check (crg_record_parse (GOOD, n, "payroll", &r) != NULL, "cut after %zu bytes", n);
  ok (parse (GOOD "x", &r) != NULL && parse ("[]", &r) != NULL, "something behind it, and something else");
  snprintf (padded, sizeof padded, "%-*s", CRG_RECORD_MAX + 1, GOOD);
  ok (crg_record_parse (padded, CRG_RECORD_MAX + 1, "payroll", &r) != NULL, "too long");
  ok (memcmp (&r, &untouched, sizeof r) == 0, "what is refused leaves no trace");
  ok (crg_record_parse (padded, CRG_RECORD_MAX, "payroll", &r) == NULL, "as long as may be");
  return tap_done ();
}
