/* SPDX-License-Identifier: BSD-3-Clause */
/* For fuzz targets of JSON lines: a mutator that keeps them JSON.  Of the lines it chooses one, and in
 * that a value, which it takes out, repeats, or replaces by one that a reader might forget; or it doubles
 * or drops a line.  Half of the time libFuzzer's own, which knows bytes, has its turn.
 */
#ifndef CRG_FUZZ_MUTATE_JSON_H
#define CRG_FUZZ_MUTATE_JSON_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

extern size_t LLVMFuzzerMutate (uint8_t *data, size_t size, size_t max_size);
extern size_t LLVMFuzzerCustomMutator (uint8_t *data, size_t size, size_t max_size, unsigned seed);

static json_t *
mutate_value (unsigned r)
{
  static const json_int_t ints[] = { 0,     1,          2,          3,  4,         8,        16, 255, 256, 65535,
                                     65536, 4294967295, 4294967296, -1, INT64_MAX, INT64_MIN };
  static const char *const texts[] = { "", "n0", "n1", "rome", "none", "full", "127.0.0.1", "\xc3\xa9\n\x1b[31m", "/", "payroll" };
  static char *longest, *wide;

  if (!longest && (longest = malloc (5001)) != NULL && (wide = malloc (5001)) != NULL)
    for (unsigned i = 0; i <= 5000; i++) {
      longest[i] = i < 5000 ? 'x' : '\0';
      wide[i] = i == 5000 ? '\0' : i % 2 ? '\xa9' : '\xc3';
    }
  switch (r % 8) {
  case 0: return json_null ();
  case 1: return json_boolean (r >> 8 & 1);
  case 2: return json_array ();
  case 3: return json_object ();
  case 4: return json_stringn (r >> 20 & 1 ? wide : longest, r >> 8 & 1 ? 5000 : 40 + (r >> 9) % 150 * 2);
  case 5: return json_real (1.5);
  case 6: return json_string (texts[(r >> 8) % (sizeof texts / sizeof texts[0])]);
  default: return json_integer (ints[(r >> 8) % (sizeof ints / sizeof ints[0])]);
  }
}

/* Changes one value below, chosen by walking down; the parent's part is done here. */
static void
mutate_tree (json_t *v, unsigned r)
{
  size_t n = json_is_object (v) ? json_object_size (v) : json_array_size (v), i;
  json_t *child = NULL;
  const char *key = NULL;
  void *it;

  if (n == 0)
    return;
  i = (r >> 3) % n;
  if (json_is_object (v)) {
    it = json_object_iter (v);
    for (size_t k = 0; k < i; k++)
      it = json_object_iter_next (v, it);
    key = json_object_iter_key (it);
    child = json_object_iter_value (it);
  }
  else
    child = json_array_get (v, i);
  r = r * 1103515245u + 12345u;
  if ((json_is_object (child) || json_is_array (child)) && (r >> 20) % 4)
    mutate_tree (child, r >> 2);
  else if (key && (r >> 16) % 8 == 0)
    json_object_del (v, key);
  else if (key)
    json_object_set_new (v, key, mutate_value (r >> 4));
  else if ((r >> 16) % 4 == 0)
    json_array_remove (v, i);
  else if ((r >> 16) % 4 == 1)
    json_array_set_new (v, i, mutate_value (r >> 4));
  else
    for (unsigned k = 0; k <= (r >> 18) % 8; k++)
      json_array_append_new (v, json_deep_copy (child));
}

size_t
LLVMFuzzerCustomMutator (uint8_t *data, size_t size, size_t max_size, unsigned seed)
{
  unsigned r = seed * 2654435761u, n = 0, at;
  char *start = (char *) data, *end = start + size, *line = NULL, *stop = NULL, *text = NULL;
  json_t *v;
  size_t len = 0, rest;

  if (r >> 31 || size == 0)
    return LLVMFuzzerMutate (data, size, max_size);
  for (char *p = start; p < end; p++)
    n += *p == '\n' || p + 1 == end;
  at = (r >> 8) % n;
  line = start;
  for (unsigned k = 0; k < at; k++)
    line = (char *) memchr (line, '\n', (size_t) (end - line)) + 1;
  stop = memchr (line, '\n', (size_t) (end - line));
  stop = stop ? stop + 1 : end;
  rest = (size_t) (end - stop);
  if (r >> 27 & 3) {
    v = json_loadb (line, (size_t) (stop - line), JSON_DISABLE_EOF_CHECK, NULL);
    for (unsigned k = 0; v && k <= (r >> 25 & 3); k++)
      mutate_tree (v, r * (2 * k + 1));
    text = v ? json_dumps (v, JSON_COMPACT) : NULL;
    json_decref (v);
    len = text ? strlen (text) : 0;
    if (!text || (size_t) (line - start) + len + 1 + rest > max_size) {
      free (text);
      return LLVMFuzzerMutate (data, size, max_size);
    }
    memmove (line + len + 1, stop, rest);
    memcpy (line, text, len);
    line[len] = '\n';
    free (text);
    return (size_t) (line - start) + len + 1 + rest;
  }
  len = (size_t) (stop - line);
  if ((r >> 24 & 1) && size + len <= max_size) {
    memmove (stop + len, stop, rest);
    memmove (stop, line, len);
    return size + len;
  }
  memmove (line, stop, rest);
  return size - len;
}

#endif
