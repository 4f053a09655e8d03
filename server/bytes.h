/* SPDX-License-Identifier: BSD-3-Clause
 *
 * A bounded writer and reader of little-endian bytes, and a bounded text
 * builder, for the daemon's codecs and pure cores.  An overrun is remembered,
 * never done: the caller checks `bad` once at the end.  No I/O, no
 * allocation; any thread.
 */
#ifndef CRG_BYTES_H
#define CRG_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct writer {
  uint8_t *p;
  size_t len, used;
  bool bad;
};

struct reader {
  const uint8_t *p;
  size_t len, used;
  bool bad;
};

static inline void
w_bytes (struct writer *w, const void *p, size_t n)
{
  if (w->bad || n > w->len - w->used) {
    w->bad = true;
    return;
  }
  if (n > 0)
    memcpy (w->p + w->used, p, n);
  w->used += n;
}

static inline void
w_int (struct writer *w, uint64_t v, unsigned n)
{
  uint8_t b[8];

  for (unsigned i = 0; i < n; i++)
    b[i] = (uint8_t) (v >> (8 * i));
  w_bytes (w, b, n);
}

static inline void
w_u8 (struct writer *w, uint8_t v)
{
  w_int (w, v, 1);
}

static inline void
w_u16 (struct writer *w, uint16_t v)
{
  w_int (w, v, 2);
}

static inline void
w_u32 (struct writer *w, uint32_t v)
{
  w_int (w, v, 4);
}

static inline void
w_u64 (struct writer *w, uint64_t v)
{
  w_int (w, v, 8);
}

/* A string with its length in front (u16); never longer than its array. */
static inline void
w_str (struct writer *w, const char *s, size_t max)
{
  size_t n = strnlen (s, max);

  w_u16 (w, (uint16_t) n);
  w_bytes (w, s, n);
}

static inline void
r_bytes (struct reader *r, void *p, size_t n)
{
  if (r->bad || n > r->len - r->used) {
    r->bad = true;
    memset (p, 0, n);
    return;
  }
  memcpy (p, r->p + r->used, n);
  r->used += n;
}

static inline uint64_t
r_int (struct reader *r, unsigned n)
{
  uint8_t b[8];
  uint64_t v = 0;

  r_bytes (r, b, n);
  for (unsigned i = 0; i < n; i++)
    v |= (uint64_t) b[i] << (8 * i);
  return v;
}

static inline uint8_t
r_u8 (struct reader *r)
{
  return (uint8_t) r_int (r, 1);
}

static inline uint16_t
r_u16 (struct reader *r)
{
  return (uint16_t) r_int (r, 2);
}

static inline uint32_t
r_u32 (struct reader *r)
{
  return (uint32_t) r_int (r, 4);
}

static inline uint64_t
r_u64 (struct reader *r)
{
  return r_int (r, 8);
}

/* 0 or 1, anything else is bad: equal states have equal bytes. */
static inline bool
r_bool (struct reader *r)
{
  uint8_t v = r_u8 (r);

  if (v > 1)
    r->bad = true;
  return v == 1;
}

/* Fills the array of `size` bytes with the string and zeroes behind it. */
static inline void
r_str (struct reader *r, char *s, size_t size)
{
  size_t n = r_u16 (r);

  memset (s, 0, size);
  if (n >= size || r->bad) {
    r->bad = true;
    return;
  }
  r_bytes (r, s, n);
  if (memchr (s, 0, n) != NULL)
    r->bad = true;
}

/* Text: what does not fit is cut. */
struct text {
  char *p;
  size_t size, used;
};

static inline void
text_begin (struct text *t, char *p, size_t size)
{
  *t = (struct text) { p, size, 0 };
  p[0] = 0;
}

static inline void
text_add (struct text *t, const char *s)
{
  size_t n = strlen (s);

  if (n > t->size - 1 - t->used)
    n = t->size - 1 - t->used;
  memcpy (t->p + t->used, s, n);
  t->used += n;
  t->p[t->used] = 0;
}

static inline void
text_num (struct text *t, uint64_t v)
{
  char b[21];
  unsigned i = 20;

  b[i] = 0;
  do {
    b[--i] = (char) ('0' + v % 10);
    v /= 10;
  } while (v > 0);
  text_add (t, b + i);
}

/* Fixed arrays of strings are filled with zeroes behind, so that equal
 * structs have equal bytes. */
static inline void
str_set (char *dst, size_t size, const char *src)
{
  size_t n = 0;

  /* Not strnlen: with TSan gcc 12 takes its bound for an error where a literal is shorter. */
  while (n < size - 1 && src[n] != '\0')
    n++;
  memset (dst, 0, size);
  memcpy (dst, src, n);
}

#endif
