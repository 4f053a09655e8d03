/* SPDX-License-Identifier: BSD-3-Clause */
/* Names and ids: every byte at every place of a name, ids there and back, and what is refused.
 */
#include <config.h>

#include <errno.h>

#include "common/clock.h"
#include "common/ident.h"
#include "common/jsonl.h"
#include "tests/tap.h"

static void
names (void)
{
  static const char *const good[] = { "a", "0", "p1", "rome.example-net_2", "9lives" };
  static const char *const bad[] = { "", "-a", ".a", "_a", "A", "a/b", "a b", "a\n", "ä", "..", "a:" };
  char name[CRG_NAME_MAX + 3];
  unsigned i, c;

  for (i = 0; i < ARRAY_SIZE (good); i++)
    ok (ident_name_is_valid (good[i]), "\"%s\" is a name", good[i]);
  for (i = 0; i < ARRAY_SIZE (bad); i++)
    ok (!ident_name_is_valid (bad[i]), "bad name %u is refused", i);
  ok (!ident_name_is_valid (NULL), "no name is no name");

  memset (name, 'x', sizeof name);
  name[CRG_NAME_MAX] = '\0';
  ok (ident_name_is_valid (name), "the longest name");
  name[CRG_NAME_MAX] = 'x';
  name[CRG_NAME_MAX + 1] = '\0';
  ok (!ident_name_is_valid (name), "one byte more");

  for (i = 0; i < 3; i++)
    for (c = 1; c < 256; c++) {
      bool want = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9')
                  || (i > 0 && (c == '_' || c == '.' || c == '-'));

      strcpy (name, "abc");
      name[i] = (char) c;
      check (ident_name_is_valid (name) == want, "byte 0x%02x at %u", c, i);
    }
  ok (tap_failed == 0, "every byte at the first, a middle and the last place");
}

static void
ids (void)
{
  static const char *const bad[] = {
    "",
    "0123456789abcdef0123456789abcde",
    "0123456789abcdef0123456789abcdef0",
    "0123456789abcdef0123456789abcdeg",
    "0123456789abcdef 123456789abcdef",
    "-0123456789abcdef0123456789abcdef",
    "0123456789abcdef0123456789abcdef-",
    "01234567--89abcdef0123456789abcdef",
  };
  uint8_t id[CRG_ID_LEN], back[CRG_ID_LEN];
  char text[IDENT_ID_TEXT_LEN];
  unsigned i;

  for (i = 0; i < 1000; i++) {
    clock_random_id (id);
    check (!ident_id_is_zero (id), "a random id is not zero");
    ident_id_to_text (id, text);
    check (strlen (text) == 32, "32 digits");
    check (ident_id_from_text (text, back) == 0 && ident_id_equal (id, back), "back: %s", text);
  }
  ok (tap_failed == 0, "1000 ids there and back");
  is (ident_id_from_text ("01234567-89AB-cdef-0123-456789abcdef", id), 0, "a UUID is read");
  ident_id_to_text (id, text);
  is_str (text, "0123456789abcdef0123456789abcdef", "and means its digits");
  for (i = 0; i < ARRAY_SIZE (bad); i++)
    ok (ident_id_from_text (bad[i], id) == -EINVAL, "\"%s\" is refused", bad[i]);
  ident_id_to_text (id, text);
  is_str (text, "0123456789abcdef0123456789abcdef", "and a refusal changes nothing");
  memset (id, 0, sizeof id);
  ok (ident_id_is_zero (id), "zero is zero");
  id[CRG_ID_LEN - 1] = 1;
  ok (!ident_id_is_zero (id), "the last byte counts");
}

/* Every sequence of up to two bytes, and the corners of the longer ones, against jansson, whose
 * judgement is the one that counts. */
static void
utf8 (void)
{
  static const char *const longer[] = {
    "\xe2\x82\xac", "\xe0\xa0\x80", "\xe0\x9f\xbf", "\xed\x9f\xbf", "\xed\xa0\x80", "\xed\xbf\xbf",
    "\xee\x80\x80", "\xef\xbf\xbf", "\xe2\x82", "\xe2\x82\x41", "\xf0\x90\x80\x80", "\xf0\x8f\xbf\xbf",
    "\xf4\x8f\xbf\xbf", "\xf4\x90\x80\x80", "\xf8\x88\x80\x80\x80", "\xf0\x9f\x98", "\xff", "a\xc3\xa9z",
  };
  char two[2];
  unsigned i, j, n;

  for (n = 1; n <= 2; n++)
    for (i = 1; i < 256; i++)
      for (j = 1; j < 256; j++) {
        CLEANUP_JSON json_t *judge = NULL;

        two[0] = (char) i;
        two[1] = (char) j;
        judge = json_stringn (two, n);
        check (ident_is_utf8 (two, n) == (judge != NULL), "%02x %02x, %u of them", i, j, n);
      }
  for (i = 0; i < ARRAY_SIZE (longer); i++) {
    CLEANUP_JSON json_t *judge = json_string (longer[i]);

    check (ident_is_utf8 (longer[i], strlen (longer[i])) == (judge != NULL), "longer %u", i);
  }
  ok (tap_failed == 0, "UTF-8 is what jansson takes for it");
  ok (ident_is_utf8 ("", 0), "nothing is fine");
}

static void
clocks (void)
{
  uint8_t a[CRG_ID_LEN], b[CRG_ID_LEN];
  uint64_t t = clock_boottime_ns (), ms = clock_boottime_ms ();

  is (clock_boot_id (a), 0, "this boot has an id");
  is (clock_boot_id (b), 0, "and again");
  ok (ident_id_equal (a, b) && !ident_id_is_zero (a), "the same one");
  ok (ms >= t / 1000000 && clock_boottime_ns () > t, "time since boot goes on");
  ok (clock_wall_ms () > UINT64_C (1600000000000), "the wall clock is in milliseconds");
#ifdef CRG_TEST
  setenv ("CRG_BOOT_ID", "00000000000000000000000000000007", 1);
  is (clock_boot_id (b), 0, "the test build takes another machine's boot id");
  is (b[CRG_ID_LEN - 1], 7, "that one");
  setenv ("CRG_BOOT_ID", "seven", 1);
  is (clock_boot_id (b), -EINVAL, "but not nonsense");
#endif
}

int
main (void)
{
  names ();
  ids ();
  utf8 ();
  clocks ();
  return tap_done ();
}
