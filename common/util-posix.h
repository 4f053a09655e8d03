/* SPDX-License-Identifier: BSD-3-Clause */
/* Clean-up bound to a scope, for shells (not for cores): memory, descriptors, locks.
 * Header only.  A variable marked so must be initialised where it is declared.
 */
#ifndef CRG_UTIL_POSIX_H
#define CRG_UTIL_POSIX_H

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/util.h"

static inline void
cleanup_free (void *ptr)
{
  int saved = errno;

  free (*(void **) ptr);
  errno = saved;
}

static inline void
cleanup_close (int *fd)
{
  int saved = errno;

  if (*fd >= 0)
    close (*fd);
  errno = saved;
}

static inline void
cleanup_fclose (FILE **fp)
{
  if (*fp)
    fclose (*fp);
}

static inline void
cleanup_unlock (pthread_mutex_t **lock)
{
  pthread_mutex_unlock (*lock);
}

static inline pthread_mutex_t *
lock_and_return (pthread_mutex_t *lock)
{
  pthread_mutex_lock (lock);
  return lock;
}

#define CLEANUP_FREE   __attribute__ ((__cleanup__ (cleanup_free)))
#define CLEANUP_CLOSE  __attribute__ ((__cleanup__ (cleanup_close)))
#define CLEANUP_FCLOSE __attribute__ ((__cleanup__ (cleanup_fclose)))

#define UTIL_PASTE2(a, b) a##b
#define UTIL_PASTE(a, b)  UTIL_PASTE2 (a, b)

/* LOCK_SCOPE (&lock): held to the end of the enclosing block.  Never across I/O. */
#define LOCK_SCOPE(lock)                                                                          \
  __attribute__ ((__cleanup__ (cleanup_unlock), __unused__)) pthread_mutex_t *UTIL_PASTE (        \
    scope_lock_, __COUNTER__)                                                                     \
    = lock_and_return (lock)

#endif /* CRG_UTIL_POSIX_H */
