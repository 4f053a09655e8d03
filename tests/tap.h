/* SPDX-License-Identifier: BSD-3-Clause */
/* The few words of TAP that unit programs speak.  Each check that passes is one "ok" line; one
 * that fails says where.  check () is for loops: it speaks only when it fails.  The program ends
 * with  return tap_done ();
 */
#ifndef CRG_TAP_H
#define CRG_TAP_H

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/util.h"

static unsigned tap_count, tap_failed;

static inline bool UTIL_PRINTF (4, 5)
tap_ok (bool good, const char *file, int line, const char *fmt, ...)
{
  va_list args;

  tap_count++;
  printf ("%sok %u - ", good ? "" : "not ", tap_count);
  va_start (args, fmt);
  vprintf (fmt, args);
  va_end (args);
  printf ("\n");
  if (!good) {
    tap_failed++;
    printf ("# failed at %s:%d\n", file, line);
  }
  fflush (stdout);
  return good;
}

/* ok (condition, "what %s", ...) */
#define ok(cond, ...) tap_ok ((cond), __FILE__, __LINE__, __VA_ARGS__)

/* is (got, want, "what"): integers */
#define is(got, want, what)                                                                       \
  ({                                                                                              \
    long long is_got_ = (long long) (got), is_want_ = (long long) (want);                         \
    bool is_good_ = tap_ok (is_got_ == is_want_, __FILE__, __LINE__, "%s", (what));               \
    if (!is_good_)                                                                                \
      printf ("# got %lld (0x%llx), want %lld (0x%llx)\n", is_got_, is_got_, is_want_, is_want_); \
    is_good_;                                                                                     \
  })

#define is_str(got, want, what)                                                          \
  ({                                                                                     \
    const char *is_got_ = (got), *is_want_ = (want);                                     \
    bool is_good_ = tap_ok (strcmp (is_got_, is_want_) == 0, __FILE__, __LINE__, "%s",   \
                            (what));                                                     \
    if (!is_good_)                                                                       \
      printf ("# got \"%s\", want \"%s\"\n", is_got_, is_want_);                         \
    is_good_;                                                                            \
  })

/* check (condition, "what %d", i): as ok, silent when true; at most 20 failures are told */
#define check(cond, ...)                                         \
  do {                                                           \
    if (!(cond)) {                                               \
      if (tap_failed < 20)                                       \
        tap_ok (false, __FILE__, __LINE__, __VA_ARGS__);         \
      else                                                       \
        tap_failed++;                                            \
    }                                                            \
  } while (0)

static inline UTIL_NORETURN void
tap_skip_all (const char *reason)
{
  printf ("1..0 # SKIP %s\n", reason);
  printf ("%s\n", reason);
  exit (77);
}

static inline int
tap_done (void)
{
  printf ("1..%u\n", tap_count);
  if (tap_failed)
    printf ("# %u failed\n", tap_failed);
  return tap_failed || tap_count == 0 ? 1 : 0;
}

#endif /* CRG_TAP_H */
