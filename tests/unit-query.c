/* SPDX-License-Identifier: BSD-3-Clause */
/* The clients' query: what comes back as it was sent, and what is refused. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/exitcodes.h"
#include "common/query.h"
#include "tests/tap.h"

static const char *
parse_answer (const char *text, struct query_answer *a)
{
  json_t *obj = json_loads (text, 0, NULL);
  const char *wrong = obj ? query_answer_parse (obj, "payroll", a) : "no JSON";

  json_decref (obj);
  return wrong;
}

#define GOOD                                                                                          \
  "\"ok\":true,\"node\":\"p1\",\"iasp\":\"payroll\",\"host\":\"p2\",\"uri\":\"nbds://192.0.2.1:10809/payroll\"," \
  "\"tenure\":7,\"loss\":1,\"size\":4096"

int
main (void)
{
  struct query_answer a = { .served = true, .node = "w1", .host = "p1", .uri = "nbd+unix:///payroll?socket=/r/s",
                            .tenure = 5, .loss = 2, .size = 65536, .lineage = { 0xab, [15] = 1 } }, b;
  struct export_info x = { .iasp = "payroll", .tenure = 12, .loss = 3, .forced = true, .run = 0xabc }, y;
  struct export_name n, m = { .iasp = "payroll", .client = "app1", .session = 0x1234abcd }, o;
  char text[EXPORT_INFO_MAX + 1], name[EXPORT_NAME_MAX + 1], iasp[CRG_NAME_MAX + 1], long_name[300];
  json_t *j;

  j = query_request ("payroll");
  ok (query_request_parse (j, iasp) == NULL && strcmp (iasp, "payroll") == 0, "a request comes back");
  json_object_set_new (j, "v", json_integer (2));
  ok (query_request_parse (j, iasp) != NULL, "... of another version it is refused");
  json_object_set_new (j, "v", json_integer (1));
  json_object_set_new (j, "cmd", json_string ("delete"));
  ok (query_request_parse (j, iasp) != NULL, "... nothing but 'where' can be asked");
  json_object_set_new (j, "cmd", json_string ("where"));
  json_object_set_new (j, "iasp", json_string ("../x"));
  ok (query_request_parse (j, iasp) != NULL, "... and only for a name");
  json_object_del (j, "cmd");
  json_object_set_new (j, "iasp", json_string ("payroll"));
  ok (query_request_parse (j, iasp) != NULL, "... and not without a command");
  json_decref (j);

  j = query_answer_json (&a, "payroll");
  ok (query_answer_parse (j, "payroll", &b) == NULL && b.served && b.tenure == 5 && b.loss == 2 && b.size == 65536
      && memcmp (a.lineage, b.lineage, sizeof a.lineage) == 0 && strcmp (b.host, "p1") == 0 && strcmp (b.node, "w1") == 0 && strcmp (b.uri, a.uri) == 0, "an answer comes back");
  ok (query_answer_parse (j, "ledger", &b) != NULL, "... about another IASP it is refused");
  json_decref (j);
  a.served = false;
  a.code = CRG_EXIT_NO_OBJECT;
  snprintf (a.error, sizeof a.error, "no such thing");
  j = query_answer_json (&a, "payroll");
  ok (query_answer_parse (j, "payroll", &b) == NULL && !b.served && b.code == CRG_EXIT_NO_OBJECT && b.tenure == 5
      && strcmp (b.error, "no such thing") == 0, "a refusal comes back");
  json_decref (j);

  ok (parse_answer ("{" GOOD "}", &b) == NULL && b.tenure == 7, "a good answer by hand");
  ok (ident_id_is_zero (b.lineage), "... of a release that names no lineage");
  ok (parse_answer ("{" GOOD ",\"lineage\":\"ab\"}", &b) != NULL, "a lineage that is no id");
  ok (parse_answer ("{" GOOD ",\"lineage\":7}", &b) != NULL, "... that is a number");
  ok (parse_answer ("{" GOOD ",\"lineage\":\"000000000000000000000000000000001\"}", &b) != NULL, "... that is too long");
  ok (parse_answer ("{}", &b) != NULL, "no answer at all");
  ok (parse_answer ("{\"ok\":1}", &b) != NULL, "ok is no boolean");
  ok (parse_answer ("{" GOOD ",\"size\":0}", &b) != NULL, "no size");
  ok (parse_answer ("{" GOOD ",\"size\":9223372036854775807}", &b) != NULL, "a size beyond every store");
  ok (parse_answer ("{" GOOD ",\"tenure\":-1}", &b) != NULL, "a negative tenure");
  ok (parse_answer ("{" GOOD ",\"tenure\":0}", &b) != NULL, "tenure 0");
  ok (parse_answer ("{" GOOD ",\"loss\":\"1\"}", &b) != NULL, "a loss that is text");
  ok (parse_answer ("{" GOOD ",\"uri\":\"http://x/\"}", &b) != NULL, "a URI of another kind");
  ok (parse_answer ("{" GOOD ",\"uri\":\"nbd://x/\\n\"}", &b) != NULL, "a URI with a control character");
  ok (parse_answer ("{" GOOD ",\"host\":\"P 1\"}", &b) != NULL, "a host that is no name");
  ok (parse_answer ("{\"ok\":false,\"node\":\"p1\"}", &b) != NULL, "a refusal without a reason");
  ok (parse_answer ("{" GOOD ",\"node\":\"\"}", &b) != NULL, "a node without a name");
  ok (parse_answer ("{" GOOD ",\"iasp\":7}", &b) != NULL, "an IASP that is a number");
  ok (parse_answer ("{" GOOD ",\"uri\":\"nbd://\\u007f\"}", &b) != NULL, "a URI with DEL");
  ok (parse_answer ("{" GOOD ",\"uri\":\"nbd://a\\u0001\"}", &b) != NULL, "a URI with another control character");
  ok (parse_answer ("{" GOOD ",\"uri\":\"nbd://a\xc2\x9b\"}", &b) != NULL, "a URI with one of C1");
  snprintf (long_name, sizeof long_name, "{" GOOD ",\"node\":\"\\u0001%.62s\"}",
            "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx");
  ok (parse_answer (long_name, &b) != NULL, "a long name with a control character");
  ok (parse_answer ("{" GOOD ",\"uri\":\"nbd://x/\"}", &b) == NULL, "a URI without TLS");
  ok (parse_answer ("{" GOOD ",\"uri\":null}", &b) != NULL, "no URI");
  ok (parse_answer ("{" GOOD ",\"loss\":-1}", &b) != NULL, "a negative loss");
  ok (parse_answer ("{" GOOD ",\"size\":\"1\"}", &b) != NULL, "a size that is text");
  {
    json_t *obj = json_pack ("{s:b, s:s, s:s#}", "ok", 0, "node", "p1", "error", "e\0f", 3);

    ok (obj && query_answer_parse (obj, "payroll", &b) != NULL, "a reason with a zero byte in it is none");
    json_decref (obj);
  }
  ok (parse_answer ("{\"ok\":false,\"node\":\"p1\",\"error\":\"e\",\"code\":0}", &b) == NULL
      && b.code == CRG_EXIT_ERROR, "a refusal with code 0 is an error");
  ok (parse_answer ("{\"ok\":false,\"node\":\"p1\",\"error\":\"e\",\"code\":100}", &b) == NULL
      && b.code == CRG_EXIT_ERROR, "... so is one beyond all codes");
  ok (parse_answer ("{\"ok\":false,\"node\":\"p1\",\"error\":\"e\"}", &b) == NULL && b.code == CRG_EXIT_ERROR,
      "... and one without");
  {
    static char longest[QUERY_URI_MAX + 400];

    snprintf (longest, sizeof longest, "{" GOOD ",\"uri\":\"nbd://%0*d\"}", QUERY_URI_MAX - 6, 0);
    ok (parse_answer (longest, &b) == NULL, "the longest URI");
    snprintf (longest, sizeof longest, "{" GOOD ",\"uri\":\"nbd://%0*d\"}", QUERY_URI_MAX - 5, 0);
    ok (parse_answer (longest, &b) != NULL, "one that is longer");
  }

  export_info_text (&x, text);
  ok (export_info_parse (text, &y) && strcmp (x.iasp, y.iasp) == 0 && x.tenure == y.tenure && x.loss == y.loss
      && x.forced == y.forced && x.run == y.run, "a description comes back: %s", text);
  ok (ident_id_is_zero (y.lineage.id) && ident_id_is_zero (y.lineage.past), "... without a lineage");
  memset (x.lineage.id, 0xab, CRG_ID_LEN);
  export_info_text (&x, text);
  ok (export_info_parse (text, &y) && memcmp (&x.lineage, &y.lineage, sizeof x.lineage) == 0, "with one: %s", text);
  memset (x.lineage.past, 0xcd, CRG_ID_LEN);
  memset (x.iasp, 'a', CRG_NAME_MAX);
  x.tenure = x.loss = x.run = UINT64_MAX;
  export_info_text (&x, text);
  ok (export_info_parse (text, &y) && memcmp (&x, &y, sizeof x) == 0, "and with the one before, all as long as may be");
#define INFO(more) export_info_parse ("nbd-crg a tenure=1 loss=0 forced=0 run=0" more, &y)
#define ID31 "0123456789abcdef0123456789abcde"
  ok (INFO (" lineage=" ID31 "f past=" ID31 "e more=1") && y.lineage.past[15] == 0xee, "a later release says more of it");
  ok (!INFO (" lineage=" ID31), "a lineage with a digit too few");
  ok (!INFO (" lineage=" ID31 "ff"), "... too many");
  ok (!INFO (" lineage=" ID31 "g"), "... with a letter");
  ok (!INFO (" lineage=00000000000000000000000000000000"), "... that is none");
  ok (!INFO (" lineage=" ID31 "f past=" ID31 " "), "a past with a digit too few");
  ok (export_info_parse ("nbd-crg a tenure=1 loss=0 forced=0 run=0 more=1", &y) && y.tenure == 1, "a later release says more");
  ok (!export_info_parse ("", &y), "no description");
  ok (!export_info_parse ("some disk", &y), "a foreign description");
  ok (!export_info_parse ("nbd-crg a tenure=1 loss=0 run=0", &y), "no word whether it was forced");
  ok (!export_info_parse ("nbd-crg a tenure=1 loss=0 forced=10 run=0", &y), "forced is one bit");
  ok (!export_info_parse ("nbd-crg a tenure= loss=0 forced=0 run=0", &y), "no digits");
  ok (!export_info_parse ("nbd-crg a tenure=18446744073709551616 loss=0 forced=0 run=0", &y), "more than 64 bits");
  ok (!export_info_parse ("nbd-crg a tenure=1 loss=0 forced=0 run=0x", &y), "something behind it");
  ok (!export_info_parse ("nbd-crg a", &y), "a name alone");
  ok (!export_info_parse ("nbd-crg A tenure=1 loss=0 forced=0 run=0", &y), "a name with a capital");
  ok (!export_info_parse ("nbd-crg 0123456789012345678901234567890123456789012345678901234567890123 tenure=1 loss=0 "
                          "forced=0 run=0", &y), "a name too long");
  ok (!export_info_parse ("nbd-crg a tenure=1 forced=0 run=0", &y), "no loss");
  ok (!export_info_parse ("nbd-crg a tenure=1 loss=0 forced=0", &y), "no run");
  ok (!export_info_parse ("nbd-crg a tenure=1 loss=0 forced=0 run=0g", &y), "a run with a letter too many");
  ok (!export_info_parse ("nbd-crg  tenure=1 loss=0 forced=0 run=0", &y), "no name");

  export_name_text (&m, name);
  ok (export_name_parse (name, &o) && strcmp (o.iasp, "payroll") == 0 && strcmp (o.client, "app1") == 0
      && o.session == m.session, "a session's name comes back: %s", name);
  memset (&n, 0, sizeof n);
  memset (n.iasp, 'a', CRG_NAME_MAX);
  memset (n.client, 'b', CRG_NAME_MAX);
  n.session = UINT64_MAX;
  export_name_text (&n, name);
  ok (export_name_parse (name, &o) && o.session == UINT64_MAX, "... the longest, too");
  ok (export_name_parse ("payroll", &o) && o.client[0] == '\0', "a plain name");
  ok (!export_name_parse ("", &o), "an empty one");
  ok (!export_name_parse ("payroll@", &o) && !export_name_parse ("payroll@app", &o)
      && !export_name_parse ("payroll@app/", &o) && !export_name_parse ("@app/1234567812345678", &o), "half of one");
  ok (!export_name_parse ("payroll@app/123456781234567", &o) && !export_name_parse ("payroll@app/12345678123456789", &o)
      && !export_name_parse ("payroll@app/123456781234567g", &o) && !export_name_parse ("payroll@app/g234567812345678", &o),
      "a session that is no number");
  ok (!export_name_parse ("payroll@app/0000000000000000", &o), "session 0");
  ok (!export_name_parse ("payroll@a/b/1234567812345678", &o), "a client that is no name");
  ok (!export_name_parse ("payroll@A/1234567812345678", &o), "a client with a capital");
  memset (name, 'a', CRG_NAME_MAX + 1);
  name[CRG_NAME_MAX + 1] = '\0';
  ok (!export_name_parse (name, &o), "a name too long");
  {
    char longest[EXPORT_NAME_MAX + 2];

    memset (longest, 'a', sizeof longest);
    longest[sizeof longest - 1] = '\0';
    ok (!export_name_parse (longest, &o), "a text too long");
    snprintf (longest, sizeof longest, "a@%.*s/1234567812345678", CRG_NAME_MAX + 1,
              "0123456789012345678901234567890123456789012345678901234567890123");
    ok (!export_name_parse (longest, &o), "a client too long");
  }
  m.client[0] = '\0';
  export_name_text (&m, name);
  is_str (name, "payroll", "without a client it is the IASP's name alone");
  return tap_done ();
}
