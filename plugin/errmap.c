/* SPDX-License-Identifier: BSD-3-Clause */
/* The one table from our errors to those that reach a client unchanged.
 */
#include "config.h"

#include <errno.h>

#include "plugin/errmap.h"

int
errmap_to_nbd (int err, bool is_fast_zero)
{
  switch (err) {
  case 0:
    return 0;

  case ENOSPC:
  case EDQUOT:
  case EFBIG:
    return ENOSPC;

  case ENOMEM:
  case ENOBUFS:
    return ENOMEM;

  case ESHUTDOWN:
  case ECANCELED:
    return ESHUTDOWN;

  case EROFS:
  case EPERM:
  case EACCES:
    return EROFS;

  case EOPNOTSUPP: /* the same number as ENOTSUP */
    return is_fast_zero ? ENOTSUP : EIO;

  /* ETIMEDOUT, ENOTCONN, EAGAIN, EBUSY, ESTALE, EINVAL and all the others: the client did
   * nothing wrong. */
  default:
    return EIO;
  }
}
