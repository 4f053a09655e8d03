/* SPDX-License-Identifier: BSD-3-Clause */
/* Errors, as a client may see them.  The host passes only a few error numbers on to the client;
 * almost everything else becomes EINVAL, which a file system takes for its own bug.  So every
 * error leaves the plugin through this one function.  Pure; any thread.
 */
#ifndef IASP_ERRMAP_H
#define IASP_ERRMAP_H

#include <stdbool.h>

/* 'err' is a positive errno of ours or the kernel's; the result is what is given to the host:
 * trouble with the store or a mirror EIO, role lost or draining ESHUTDOWN, read-only EROFS, full
 * ENOSPC, no memory ENOMEM.  ENOTSUP passes only as the answer to a fast zero: for any other
 * request the host's own fallback would corrupt the data.  0 stays 0. */
extern int errmap_to_nbd (int err, bool is_fast_zero);

#endif /* IASP_ERRMAP_H */
