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
