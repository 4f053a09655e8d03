/* SPDX-License-Identifier: BSD-3-Clause */
/* What a script says: the same lines and text however its bytes come, nothing beyond the bounds.
 */
#include <config.h>

#include "server/script_text.h"
#include "tests/tap.h"

static char told[32][CRG_REASON_MAX + 1];
static unsigned n_told;

/* In pieces of so many bytes. */
static void
lines (const char *text, size_t piece)
{
  struct script_line l = { 0 };
  size_t len = strlen (text);
  bool whole;

  n_told = 0;
  for (size_t from = 0; from < len; from += piece)
    for (size_t at = from, end = MIN (from + piece, len); at < end;) {
      size_t n = script_line_take (&l, text + at, end - at, &whole);

      check (n > 0 || whole, "it stands still");
      at += n;
      if (whole) {
        memcpy (told[n_told++], l.text, l.len + 1);
        l.len = 0;
      }
    }
  if (l.len > 0)
    memcpy (told[n_told++], l.text, l.len + 1);
}

static void
errors (void)
{
  static char text[4 * CRG_REASON_MAX];

  for (size_t piece = 1; piece < 12; piece++) {
    lines ("one\ntwo\n\n\x1b[31mthree", piece);
    ok (n_told == 4 && !strcmp (told[0], "one") && !strcmp (told[1], "two") && !*told[2] && !strcmp (told[3], "\x1b[31mthree"),
        "four lines, in pieces of %zu", piece);
  }
  for (size_t piece = 1; piece < 1000; piece += 127) {
    memset (text, 'x', sizeof text - 1);
    text[CRG_REASON_MAX] = '\n';
    lines (text, piece);
    ok (n_told >= 3 && strlen (told[0]) == CRG_REASON_MAX && strlen (told[1]) == CRG_REASON_MAX,
        "a line that just fits is one, a longer one several, in pieces of %zu", piece);
  }
}

static void
output (void)
{
  static struct script_out o;
  static char page[3000];
  char to[8];

  memset (page, 'x', sizeof page);
  script_out_take (&o, "a\n", 2);
  ok (o.len == 2 && !o.cut && !strcmp (o.text, "a\n"), "output is kept");
  script_out_take (&o, page, sizeof page);
  ok (o.len == 2 + sizeof page && !o.cut, "all of it");
  script_out_take (&o, page, sizeof page);
  ok (o.len == SCRIPT_OUT_MAX && o.cut && strlen (o.text) == SCRIPT_OUT_MAX, "up to its bound");
  script_out_take (&o, page, 0);
  ok (o.len == SCRIPT_OUT_MAX && o.cut, "and it stays cut");

  is (script_config_len ("ab\n\n", 4, false), 2, "a configuration, without the newlines at its end");
  is (script_config_len ("\n", 1, false), 0, "an empty one");
  is (script_config_len ("", 0, false), 0, "none");
  is (script_config_len ("a\0b", 3, false), -1, "a NUL");
  is (script_config_len ("ab", 2, true), -1, "one that was cut");
  is (script_config_len (page, CRG_CONFIG_MAX, false), CRG_CONFIG_MAX, "the longest");
  is (script_config_len (page, CRG_CONFIG_MAX + 1, false), -1, "one byte more");

  script_first_line ("one\ntwo", 7, "none", to, sizeof to);
  is_str (to, "one", "the first line");
  script_first_line ("one\ntwo", 2, "none", to, sizeof to);
  is_str (to, "on", "... of what was said, and not of what lies behind it");
  script_first_line ("a\0b", 3, "none", to, sizeof to);
  is_str (to, "a", "... up to a NUL");
  script_first_line ("", 0, "none", to, sizeof to);
  is_str (to, "none", "nothing was said");
  script_first_line (page, sizeof page - 1, "none", to, sizeof to);
  is_str (to, "xxxxxxx", "a long one");
}

int
main (void)
{
  errors ();
  output ();
  return tap_done ();
}
