/* SPDX-License-Identifier: BSD-3-Clause */
/* Every error number that the kernel can give, and what a client may see of it.
 */
#include "config.h"

#include <errno.h>

#include "common/util.h"
#include "plugin/errmap.h"
#include "tests/tap.h"

static const struct {
  int err, nbd;
  const char *what;
} table[] = {
  { 0, 0, "no error" },
  { EIO, EIO, "EIO" },
  { ENOSPC, ENOSPC, "full" },
  { EDQUOT, ENOSPC, "over quota is full" },
  { EFBIG, ENOSPC, "beyond the largest file is full" },
  { ENOMEM, ENOMEM, "no memory" },
  { ENOBUFS, ENOMEM, "no buffers" },
  { ESHUTDOWN, ESHUTDOWN, "role lost" },
  { ECANCELED, ESHUTDOWN, "cancelled by a drain" },
  { EROFS, EROFS, "read-only" },
  { EPERM, EROFS, "not permitted" },
  { EACCES, EROFS, "no access" },
  { EINVAL, EIO, "EINVAL is never the client's fault" },
  { ETIMEDOUT, EIO, "time-out" },
  { ENOTCONN, EIO, "no connection" },
  { ECONNRESET, EIO, "connection reset" },
  { EPIPE, EIO, "pipe" },
  { EAGAIN, EIO, "again" },
  { EBUSY, EIO, "busy" },
  { ESTALE, EIO, "stale" },
  { EBADF, EIO, "descriptor" },
  { ENXIO, EIO, "no device" },
  { ENODEV, EIO, "device gone" },
  { EOVERFLOW, EIO, "overflow" },
  { ENOTSUP, EIO, "ENOTSUP outside a fast zero would start the host's fallback" },
};

int
main (void)
{
  for (unsigned i = 0; i < ARRAY_SIZE (table); i++)
    ok (errmap_to_nbd (table[i].err, false) == table[i].nbd, "%s", table[i].what);
  ok (errmap_to_nbd (ENOTSUP, true) == ENOTSUP, "ENOTSUP answers a fast zero");
  ok (errmap_to_nbd (EIO, true) == EIO, "another error of a fast zero");
  bool passes = true;
  for (int err = 1; err < 200; err++) {
    int nbd = errmap_to_nbd (err, false);

    if (nbd != EIO && nbd != ENOSPC && nbd != ENOMEM && nbd != ESHUTDOWN && nbd != EROFS)
      passes = false;
  }
  ok (passes, "nothing but what the host passes on, for any number");
  return tap_done ();
}
