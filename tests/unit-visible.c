/* SPDX-License-Identifier: BSD-3-Clause */
/* Control characters become visible, all else stays, within the bounds.
 */
#include <config.h>

#include "common/visible.h"
#include "tests/tap.h"

static const char *
shown (const char *text)
{
  static char to[256];

  is (visible_text (text, strlen (text), to, sizeof to), strlen (to), "its length");
  return to;
}

int
main (void)
{
  char to[64], byte;

  is_str (shown ("plain \\ text, \xc3\xa9 \xe2\x82\xac \xf0\x9f\x92\xbe"), "plain \\ text, \xc3\xa9 \xe2\x82\xac \xf0\x9f\x92\xbe", "text stays");
  is_str (shown ("a\x1b[31m\n\tb\x7f"), "a\\x1b[31m\\x0a\\x09b\\x7f", "C0 and DEL");
  is_str (shown ("\xc2\x9b" "31m\xc2\x80\xc2\x9f\xc2\xa0"), "\\xc2\\x9b31m\\xc2\\x80\\xc2\\x9f\xc2\xa0", "C1, and the first behind it");
  is_str (shown ("\x9b" "31m\xc3"), "\\x9b31m\\xc3", "what is no UTF-8");
  for (unsigned c = 0; c < 256; c++) {
    byte = (char) c;
    visible_text (&byte, 1, to, sizeof to);
    check (c >= ' ' && c < 0x7f ? to[0] == byte && !to[1] : strlen (to) == 4 && to[0] == '\\', "byte %u", c);
  }
  for (unsigned size = 1; size < 12; size++) {
    memset (to, '!', sizeof to);
    check (visible_text ("\xc3\xa9\x1b\xc2\x9bz", 6, to, size) < size && memchr (to, 0, size), "beyond %u bytes", size);
    check (to[size] == '!', "a byte behind %u", size);
  }
  is (visible_text ("\xc3\xa9\x1bz", 4, to, 6), 2, "it is cut before a character");
  is (visible_text ("", 0, to, 1), 0, "nothing");
  return tap_done ();
}
