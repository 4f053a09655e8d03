/* SPDX-License-Identifier: BSD-3-Clause */
/* The one function of visible.h.
 */
#include "common/visible.h"

#include <stdint.h>
#include <string.h>

#include "common/ident.h"
#include "common/util.h"

/* The bytes of the character that begins here, or 0: it has to be escaped, as one of *n bytes. */
static size_t
plain (const uint8_t *p, size_t len, size_t *n)
{
  size_t most = MIN (len, (size_t) 4);

  for (*n = 1; *n <= most && !ident_is_utf8 ((const char *) p, *n);)
    ++*n;
  if (*n > most) {
    *n = 1;
    return 0;
  }
  return p[0] < ' ' || p[0] == 0x7f || (*n == 2 && p[0] == 0xc2 && p[1] < 0xa0) ? 0 : *n;
}

size_t
visible_text (const char *from, size_t len, char *to, size_t size)
{
  static const char digits[] = "0123456789abcdef";
  const uint8_t *p = (const uint8_t *) from, *end = p + len;
  size_t used = 0, n;

  for (; p < end; p += n) {
    size_t room = size - 1 - used, as_is = plain (p, (size_t) (end - p), &n);

    if (room < (as_is ? n : 4 * n))
      break;
    if (as_is)
      memcpy (to + used, p, n);
    for (size_t i = 0; i < n && !as_is; i++)
      memcpy (to + used + 4 * i, (const char[]) { '\\', 'x', digits[p[i] >> 4], digits[p[i] & 15] }, 4);
    used += as_is ? n : 4 * n;
  }
  to[used] = '\0';
  return used;
}
