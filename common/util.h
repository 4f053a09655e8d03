/* SPDX-License-Identifier: BSD-3-Clause */
/* Small helpers that every file may use, cores too: rounding, byte-wise integers,
 * container_of, and clean-up bound to a scope.  Header only; includes no system
 * header beyond the language's own.  The clean-up attributes name functions that
 * util-posix.h supplies, so that cores need not see them.
 */
#ifndef CRG_UTIL_H
#define CRG_UTIL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define MIN(a, b)                   \
  ({                                \
    __typeof__ (a) min_a_ = (a);    \
    __typeof__ (b) min_b_ = (b);    \
    min_a_ < min_b_ ? min_a_ : min_b_; \
  })
#define MAX(a, b)                   \
  ({                                \
    __typeof__ (a) max_a_ = (a);    \
    __typeof__ (b) max_b_ = (b);    \
    max_a_ > max_b_ ? max_a_ : max_b_; \
  })

#define ARRAY_SIZE(a) (sizeof (a) / sizeof ((a)[0]))

#define container_of(ptr, type, member) ((type *) ((char *) (ptr) - offsetof (type, member)))

#define UTIL_PRINTF(fmt, args) __attribute__ ((__format__ (__printf__, fmt, args)))
#define UTIL_MUST_CHECK        __attribute__ ((__warn_unused_result__))
#define UTIL_NORETURN          __attribute__ ((__noreturn__))

static inline bool
is_power_of_2 (uint64_t x)
{
  return x != 0 && (x & (x - 1)) == 0;
}

/* Rounding to a multiple of a power of two.  round_up wraps to 0 above 2^64 - to: check first
 * where x comes from outside. */
static inline uint64_t
round_down (uint64_t x, uint64_t to)
{
  return x & ~(to - 1);
}

static inline uint64_t
round_up (uint64_t x, uint64_t to)
{
  return (x + to - 1) & ~(to - 1);
}

static inline uint64_t
div_round_up (uint64_t x, uint64_t by)
{
  return x / by + (x % by != 0);
}

/* All our formats, on the wire and on disk, are little-endian. */
static inline void
put_le16 (uint8_t *p, uint16_t v)
{
  p[0] = (uint8_t) v;
  p[1] = (uint8_t) (v >> 8);
}

static inline void
put_le32 (uint8_t *p, uint32_t v)
{
  put_le16 (p, (uint16_t) v);
  put_le16 (p + 2, (uint16_t) (v >> 16));
}

static inline void
put_le64 (uint8_t *p, uint64_t v)
{
  put_le32 (p, (uint32_t) v);
  put_le32 (p + 4, (uint32_t) (v >> 32));
}

static inline uint16_t
get_le16 (const uint8_t *p)
{
  return (uint16_t) (p[0] | p[1] << 8);
}

static inline uint32_t
get_le32 (const uint8_t *p)
{
  return (uint32_t) get_le16 (p) | (uint32_t) get_le16 (p + 2) << 16;
}

static inline uint64_t
get_le64 (const uint8_t *p)
{
  return (uint64_t) get_le32 (p) | (uint64_t) get_le32 (p + 4) << 32;
}

static inline bool
is_all_zero (const void *buf, size_t len)
{
  const uint8_t *p = buf;

  if (len == 0)
    return true;
  return p[0] == 0 && memcmp (p, p + 1, len - 1) == 0;
}

#endif /* CRG_UTIL_H */
