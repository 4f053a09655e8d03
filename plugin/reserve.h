/* SPDX-License-Identifier: BSD-3-Clause */
/* Persistent reservations (S1 c, experimental): which steps make a shared store this host's own at
 * the device, so that the writes of whom it is taken from fail there, and which give it back.  A
 * pure core: it says one step, is told what came of it, and says the next; reserve_io.c carries them
 * out.  Everything here is plain data of one opening of a store.
 *
 * It decides nothing about who may open a store: that is S1's, and it has to be asked first.
 */
#ifndef IASP_RESERVE_H
#define IASP_RESERVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/limits.h"

/* The key of one boot of one node for one IASP; never 0.  Anybody can make it from the open record,
 * so nobody has to ask the device for keys (Linux can't, before 6.19), and a key is the node's of
 * that record or nobody's: what another boot of it has registered is not met by a preemption that
 * the record doesn't speak of. */
extern uint64_t reserve_key (const uint8_t iasp_id[CRG_ID_LEN], const char *node, const uint8_t boot_id[CRG_ID_LEN]);

enum reserve_step {
  RESERVE_NOTHING,    /* the end of taking it: it is ours; of giving it back: it is free */
  RESERVE_REGISTER,   /* our key, whatever this machine had registered before */
  RESERVE_PREEMPT,    /* take out the key of who had it open before, and abort what it has under way */
  RESERVE_RESERVE,    /* registrants only may write */
  RESERVE_RELEASE,
  RESERVE_UNREGISTER,
  RESERVE_REFUSED,    /* the end: 'why' says it */
};

enum reserve_result {
  RESERVE_OK,
  RESERVE_CONFLICT,    /* another key has it, or the one named is not registered */
  RESERVE_AGAIN,       /* nothing was done: the device had something to tell first */
  RESERVE_UNSUPPORTED,
  RESERVE_DENIED,
  RESERVE_FAILED,
};

enum reserve_why {
  RESERVE_WHY_NOT_ALLOWED, /* S1 forbids it */
  RESERVE_WHY_UNSUPPORTED, /* the store has no persistent reservations */
  RESERVE_WHY_DENIED,      /* they are not for this process, or not for a part of a disk */
  RESERVE_WHY_FOREIGN,     /* reserved by a key that the open record doesn't name */
  RESERVE_WHY_FAILED,
};

/* RESERVE_AGAIN so often in a row is a failure. */
#define RESERVE_TRIES 4

struct reserve {
  uint8_t step; /* enum reserve_step: to be done now */
  uint8_t why;  /* of RESERVE_REFUSED */
  uint8_t tries;
  uint64_t own, old; /* keys; old 0: nobody's */
};

/* Begins to take the store: 'old' is the key of the node that the open record names, released or
 * not, or 0.  is_allowed: S1 lets this host open it. */
extern void reserve_take (struct reserve *r, uint64_t own, uint64_t old, bool is_allowed);
/* Begins to give it back, after the last write. */
extern void reserve_give (struct reserve *r, uint64_t own);
/* What came of the step. */
extern void reserve_did (struct reserve *r, enum reserve_result result);

/* The shell (reserve_io.c).  Both carry out the steps on an open device, and block.  0, or -errno
 * with a sentence that names 'path' and the parameter. */
extern int reserve_io_take (int fd, const char *path, uint64_t own, uint64_t old, bool is_allowed,
                            char *err, size_t errlen);
extern int reserve_io_give (int fd, const char *path, uint64_t own, char *err, size_t errlen);
/* What an answer of the kernel to one of the ioctls means: 0, -errno, or the status of the device. */
extern enum reserve_result reserve_io_result (int answer, int error);

#endif /* IASP_RESERVE_H */
