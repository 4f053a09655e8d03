/* SPDX-License-Identifier: BSD-3-Clause */
/* See ini.h.  Pure: owns nothing, allocates nothing, writes NULs into the caller's buffer.
 */
#include "config.h"

#include <stdbool.h>
#include <string.h>

#include "common/ident.h"
#include "common/ini.h"
#include "common/limits.h"

static bool
is_blank (char c)
{
  return c == ' ' || c == '\t';
}

static char *
trim (char *s, char *end)
{
  while (s < end && is_blank (*s))
    s++;
  while (end > s && is_blank (end[-1]))
    end--;
  *end = '\0';
  return s;
}

void
ini_init (struct ini_cursor *c, char *text, size_t len)
{
  c->next = text;
  c->end = text + len;
  c->line = 0;
}

static enum ini_kind
bad (struct ini_cursor *c, struct ini_item *item, const char *error)
{
  c->next = c->end;
  item->error = error;
  return item->kind = INI_BAD;
}

/* One line, without its comment: is it a section or a key? */
static enum ini_kind
parse_line (struct ini_cursor *c, struct ini_item *item, char *s, char *end)
{
  char *p;

  if (*s == '[') {
    if (end[-1] != ']')
      return bad (c, item, "a section ends with ']', as in [node p1]");
    s = trim (s + 1, end - 1);
    item->name = s;
    for (p = s; *p && !is_blank (*p); p++)
      ;
    if (*p)
      *p++ = '\0';
    item->arg = trim (p, p + strlen (p));
    if (!*item->name)
      return bad (c, item, "a section needs a name, as in [node p1]");
    if (strpbrk (item->name, "[]") || strpbrk (item->arg, " \t[]"))
      return bad (c, item, "a section has a kind and at most one name, as in [node p1]");
    return item->kind = INI_SECTION;
  }

  p = memchr (s, '=', (size_t) (end - s));
  if (!p)
    return bad (c, item, "neither [section] nor key = value");
  item->arg = trim (p + 1, end);
  item->name = trim (s, p);
  if (!*item->name)
    return bad (c, item, "there is no key before '='");
  return item->kind = INI_KEY;
}

enum ini_kind
ini_next (struct ini_cursor *c, struct ini_item *item)
{
  char *s, *eol, *p;

  memset (item, 0, sizeof *item);
  while (c->next < c->end) {
    s = c->next;
    eol = memchr (s, '\n', (size_t) (c->end - s));
    if (!eol)
      eol = c->end;
    c->next = eol < c->end ? eol + 1 : c->end;
    item->line = ++c->line;
    if (eol > s && eol[-1] == '\r')
      eol--;
    if (eol - s > CONF_MAX_LINE)
      return bad (c, item, "the line is too long");

    for (p = s; p < eol; p++) {
      if (((unsigned char) *p < 0x20 && *p != '\t') || *p == 0x7f)
        return bad (c, item, "a control character; is this a text file?");
      if ((*p == '#' || *p == ';') && (p == s || is_blank (p[-1])))
        break;
    }
    /* What is read here goes on as JSON. */
    if (!ident_is_utf8 (s, (size_t) (p - s)))
      return bad (c, item, "bytes that are not UTF-8");
    s = trim (s, p);
    if (*s)
      return parse_line (c, item, s, s + strlen (s));
  }
  return item->kind = INI_END;
}
