/* SPDX-License-Identifier: BSD-3-Clause */
/* Programs of the administrator's (hooks, agents): who may write to one may do what we may.  Shells
 * only; any thread.
 */
#ifndef CRG_PROGRAM_H
#define CRG_PROGRAM_H

#include <stdbool.h>

/* May it be run?  A regular, executable file (or `dir`: a directory), owned by root or by our user,
 * that nobody else may write.  NULL or why not. */
extern const char *program_refusal (const char *path, bool dir);

#endif /* CRG_PROGRAM_H */
