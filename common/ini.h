/* SPDX-License-Identifier: BSD-3-Clause */
/* Lines of a configuration file: sections, keys and values, each with its line number.  Pure: a
 * cursor over a buffer that the caller owns.  It exists beside libinih because that library, as
 * distributions build it, cuts lines at 200 bytes and names at 50 without a word and has no line
 * numbers; a path that is silently cut names another disk.
 */
#ifndef CRG_INI_H
#define CRG_INI_H

#include <stddef.h>

enum ini_kind {
  INI_END,
  INI_SECTION, /* [name] or [name arg] */
  INI_KEY,     /* name = arg */
  INI_BAD,     /* 'error' says why; the cursor does not go on */
};

struct ini_item {
  enum ini_kind kind;
  unsigned line;     /* 1 is the first */
  const char *name;  /* section's kind, or key; never empty */
  const char *arg;   /* section's name ("" if it has none), or value; trimmed */
  const char *error; /* static text */
};

struct ini_cursor {
  char *next, *end;
  unsigned line;
};

/* 'text' is text[0 .. len) and text[len] must be writable; both stay the caller's, and the
 * strings of the items point into it. */
extern void ini_init (struct ini_cursor *c, char *text, size_t len);

/* The next section or key.  Blank lines and comments (# or ; at the start of a line or after
 * white space) are skipped.  A line longer than CONF_MAX_LINE or with a control character is
 * INI_BAD. */
extern enum ini_kind ini_next (struct ini_cursor *c, struct ini_item *item);

#endif /* CRG_INI_H */
