/* SPDX-License-Identifier: BSD-3-Clause */
/* The ioctls of reserve.h's steps, and what their answers mean.  The kernel gives -1 and errno, or
 * the status that the device gave; both are told apart here, and nowhere else.
 */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include <linux/pr.h>

#include "plugin/reserve.h"

/* The type: all registered paths to the device may write, nobody else may, everybody may read.  With
 * exclusive access the other nodes couldn't look at the superblocks; without "registrants only" a
 * multipath device could write through one of its paths only. */
#define TYPE PR_WRITE_EXCLUSIVE_REG_ONLY

/* SCSI's and NVMe's words for the same. */
#define STATUS_CHECK_CONDITION    0x02
#define STATUS_SCSI_CONFLICT      0x18
#define STATUS_NVME_CONFLICT      0x83

enum reserve_result
reserve_io_result (int answer, int error)
{
  if (answer == 0)
    return RESERVE_OK;
  if (answer < 0)
    switch (error) {
    case EBADE:
    case EBUSY: return RESERVE_CONFLICT;
    case EOPNOTSUPP:
    case ENOTTY:
    case EINVAL: return RESERVE_UNSUPPORTED;
    case EPERM:
    case EACCES: return RESERVE_DENIED;
    case EINTR:
    case EAGAIN: return RESERVE_AGAIN;
    default: return RESERVE_FAILED;
    }
  /* The second byte has been seen with bits that mean nothing; the third says that a path failed. */
  if (answer <= 0xffff && ((answer & 0xff) == STATUS_SCSI_CONFLICT || (answer & 0xff) == STATUS_NVME_CONFLICT))
    return RESERVE_CONFLICT;
  /* Most often a unit attention: the device tells that something was preempted or reset. */
  return answer <= 0xffff && (answer & 0xff) == STATUS_CHECK_CONDITION ? RESERVE_AGAIN : RESERVE_FAILED;
}

static unsigned long
preempt_command (void)
{
#ifdef CRG_TEST
  /* Linux 6.1's own target, behind its loopback, waits for itself when it has to abort. */
  if (getenv ("CRG_RESERVE_NO_ABORT"))
    return IOC_PR_PREEMPT;
#endif
  return IOC_PR_PREEMPT_ABORT;
}

static int
carry_out (int fd, const struct reserve *r)
{
  struct pr_registration reg = { .new_key = r->own, .flags = PR_FL_IGNORE_KEY };
  struct pr_registration unreg = { .old_key = r->own };
  /* The kernel hands old_key to the device as the key of who asks, and new_key as the one to go, for
   * SCSI and for NVMe, whatever its documentation says. */
  struct pr_preempt preempt = { .old_key = r->own, .new_key = r->old, .type = TYPE };
  struct pr_reservation reservation = { .key = r->own, .type = TYPE };

  switch ((enum reserve_step) r->step) {
  case RESERVE_REGISTER: return ioctl (fd, IOC_PR_REGISTER, &reg);
  case RESERVE_PREEMPT: return ioctl (fd, preempt_command (), &preempt);
  case RESERVE_RESERVE: return ioctl (fd, IOC_PR_RESERVE, &reservation);
  case RESERVE_RELEASE: return ioctl (fd, IOC_PR_RELEASE, &reservation);
  case RESERVE_UNREGISTER: return ioctl (fd, IOC_PR_REGISTER, &unreg);
  case RESERVE_NOTHING:
  case RESERVE_REFUSED: break;
  }
  return 0;
}

static int
run (int fd, const char *path, struct reserve *r, char *err, size_t errlen)
{
  static const struct {
    int error;
    const char *text;
  } refusals[] = {
    [RESERVE_WHY_NOT_ALLOWED] = { EBUSY, "another node may still write to it (S1)" },
    [RESERVE_WHY_UNSUPPORTED] = { EOPNOTSUPP, "it has no persistent reservations; use a SCSI or NVMe disk that has, "
                                              "or set persistent-reservation to off" },
    [RESERVE_WHY_DENIED] = { EPERM, "a persistent reservation is for a whole disk, not a part of it, and wants "
                                    "CAP_SYS_ADMIN" },
    [RESERVE_WHY_FOREIGN] = { EBUSY, "it is reserved with a key that is not that of the node which had it open last; "
                                     "look at its keys (sg_persist -k), and clear them if nobody uses it" },
    [RESERVE_WHY_FAILED] = { EIO, "the device did not carry it out" },
  };
  static const char *const steps[] = {
    [RESERVE_REGISTER] = "register",   [RESERVE_PREEMPT] = "preempt and abort",
    [RESERVE_RESERVE] = "reserve",     [RESERVE_RELEASE] = "release",
    [RESERVE_UNREGISTER] = "unregister", [RESERVE_NOTHING] = "none",
  };
  enum reserve_step step = RESERVE_NOTHING;
  int answer = 0, error = 0;

  while (r->step != RESERVE_NOTHING && r->step != RESERVE_REFUSED) {
    step = (enum reserve_step) r->step;
    answer = carry_out (fd, r);
    error = errno;
    reserve_did (r, reserve_io_result (answer, error));
  }
  if (r->step == RESERVE_NOTHING)
    return 0;
  if (r->why != RESERVE_WHY_FAILED)
    snprintf (err, errlen, "store %s: persistent-reservation: %s", path, refusals[r->why].text);
  else if (answer < 0)
    snprintf (err, errlen, "store %s: persistent-reservation: %s: %s: %s", path, steps[step], refusals[r->why].text,
              strerror (error));
  else
    snprintf (err, errlen, "store %s: persistent-reservation: %s: %s: status %d", path, steps[step],
              refusals[r->why].text, answer);
  return -refusals[r->why].error;
}

int
reserve_io_take (int fd, const char *path, uint64_t own, uint64_t old, bool is_allowed, char *err, size_t errlen)
{
  struct reserve r;

  reserve_take (&r, own, old, is_allowed);
  return run (fd, path, &r, err, errlen);
}

int
reserve_io_give (int fd, const char *path, uint64_t own, char *err, size_t errlen)
{
  struct reserve r;

  reserve_give (&r, own);
  return run (fd, path, &r, err, errlen);
}
