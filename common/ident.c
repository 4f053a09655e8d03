/* SPDX-License-Identifier: BSD-3-Clause */
/* Names and random ids: what is valid, and their text forms.  Pure; any thread.
 */
#include <config.h>

#include <errno.h>
#include <string.h>

#include "common/ident.h"
#include "common/util.h"

static bool
is_name_start (char c)
{
  return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

bool
ident_name_is_valid (const char *name)
{
  size_t i;

  if (!name || !is_name_start (name[0]))
    return false;
  for (i = 1; name[i]; i++)
    if (i >= CRG_NAME_MAX
        || !(is_name_start (name[i]) || name[i] == '_' || name[i] == '.' || name[i] == '-'))
      return false;
  return true;
}

bool
ident_is_utf8 (const char *text, size_t len)
{
  const uint8_t *p = (const uint8_t *) text, *end = p + len;
  uint32_t c, min;
  unsigned more;

  while (p < end) {
    c = *p++;
    if (c < 0x80)
      continue;
    if (c >= 0xc0 && c < 0xe0) {
      more = 1;
      c &= 0x1f;
      min = 0x80;
    }
    else if (c >= 0xe0 && c < 0xf0) {
      more = 2;
      c &= 0x0f;
      min = 0x800;
    }
    else if (c >= 0xf0 && c < 0xf8) {
      more = 3;
      c &= 0x07;
      min = 0x10000;
    }
    else
      return false;
    for (; more > 0; more--) {
      if (p == end || (*p & 0xc0) != 0x80)
        return false;
      c = c << 6 | (*p++ & 0x3f);
    }
    if (c < min || c > 0x10ffff || (c >= 0xd800 && c < 0xe000))
      return false;
  }
  return true;
}

void
ident_id_to_text (const uint8_t id[CRG_ID_LEN], char text[IDENT_ID_TEXT_LEN])
{
  static const char digits[] = "0123456789abcdef";
  unsigned i;

  for (i = 0; i < CRG_ID_LEN; i++) {
    text[2 * i] = digits[id[i] >> 4];
    text[2 * i + 1] = digits[id[i] & 15];
  }
  text[2 * CRG_ID_LEN] = '\0';
}

static int
digit_value (char c)
{
  if (c >= '0' && c <= '9')
    return c - '0';
  if (c >= 'a' && c <= 'f')
    return c - 'a' + 10;
  if (c >= 'A' && c <= 'F')
    return c - 'A' + 10;
  return -1;
}

int
ident_id_from_text (const char *text, uint8_t id[CRG_ID_LEN])
{
  uint8_t out[CRG_ID_LEN] = { 0 };
  unsigned n = 0;
  int v;

  for (; *text; text++) {
    if (*text == '-' && n > 0 && n < 2 * CRG_ID_LEN && text[-1] != '-')
      continue;
    v = digit_value (*text);
    if (v < 0 || n == 2 * CRG_ID_LEN)
      return -EINVAL;
    out[n / 2] = (uint8_t) (out[n / 2] << 4 | v);
    n++;
  }
  if (n != 2 * CRG_ID_LEN)
    return -EINVAL;
  memcpy (id, out, CRG_ID_LEN);
  return 0;
}

bool
ident_id_is_zero (const uint8_t id[CRG_ID_LEN])
{
  return is_all_zero (id, CRG_ID_LEN);
}

bool
ident_id_equal (const uint8_t a[CRG_ID_LEN], const uint8_t b[CRG_ID_LEN])
{
  return memcmp (a, b, CRG_ID_LEN) == 0;
}
