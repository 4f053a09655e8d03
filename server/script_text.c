/* SPDX-License-Identifier: BSD-3-Clause
 *
 * See script_text.h.
 */
#include "server/script_text.h"

#include <string.h>

#include "common/util.h"

void
script_out_take (struct script_out *o, const char *buf, size_t len)
{
  size_t n = MIN (len, SCRIPT_OUT_MAX - o->len);

  memcpy (o->text + o->len, buf, n);
  o->len += n;
  o->text[o->len] = '\0';
  o->cut = o->cut || n < len;
}

size_t
script_line_take (struct script_line *l, const char *buf, size_t len, bool *whole)
{
  size_t room = sizeof l->text - 1 - l->len, n = MIN (len, room);
  const char *end = memchr (buf, '\n', n);

  if (end)
    n = (size_t) (end - buf);
  memcpy (l->text + l->len, buf, n);
  l->len += n;
  l->text[l->len] = '\0';
  *whole = end || (n == room && n < len);
  /* Its newline goes with a line that just fits. */
  return n + (end || (*whole && buf[n] == '\n'));
}

int
script_config_len (const char *out, size_t len, bool cut)
{
  while (len > 0 && out[len - 1] == '\n')
    len--;
  return len > CRG_CONFIG_MAX || cut || memchr (out, 0, len) ? -1 : (int) len;
}

void
script_first_line (const char *out, size_t len, const char *otherwise, char *to, size_t size)
{
  const char *from = len > 0 ? out : otherwise;
  size_t n = MIN (len > 0 ? len : strlen (otherwise), size - 1);
  const char *end = memchr (from, '\n', n);

  n = strnlen (from, end ? (size_t) (end - from) : n);
  memcpy (to, from, n);
  to[n] = '\0';
}
