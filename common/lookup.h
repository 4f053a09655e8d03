/* SPDX-License-Identifier: BSD-3-Clause */
/* The address of a node that is given by its name, without waiting for the name service: that may
 * be as dead as the node that is followed.  libc looks in a thread of its own; who asks takes the
 * last good answer meanwhile.  One thread at a time for each struct lookup.
 */
#ifndef CRG_LOOKUP_H
#define CRG_LOOKUP_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

struct lookup_job;

/* All zero: nothing is known. */
struct lookup {
  struct lookup_job *job;          /* under way, or NULL */
  struct sockaddr_storage address; /* the last that was found */
  socklen_t len;                   /* 0: none was */
  bool numeric;                    /* it was no name */
  bool doubtful;                   /* to be looked for again */
};

/* Begins to look if there is need.  1: 'address' may be used; 0: it is not known yet, call again;
 * -1: there is none, for the reason *why, and the next call begins anew. */
extern int lookup_go_on (struct lookup *l, const char *host, uint16_t port, const char **why);

/* Who should be at the address doesn't answer there: perhaps it is another one now. */
extern void lookup_doubt (struct lookup *l);

#endif /* CRG_LOOKUP_H */
