/* SPDX-License-Identifier: BSD-3-Clause */
/* The steps of a persistent reservation (S1 c), on a device in memory that does what SPC says of
 * them, in each state in which a host can find it; and what the kernel's answers mean.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "plugin/reserve.h"
#include "tests/tap.h"

/* Paths to the device: each is a nexus of its own. */
#define PATHS 3
static struct {
  uint64_t key[PATHS]; /* registered; 0: not */
  int holder;          /* -1: not reserved */
  bool reg_only;
  unsigned attentions; /* answers that only tell that something has happened */
  enum reserve_result trouble;
} dev;
static char steps[64];

static void
fresh (void)
{
  memset (&dev, 0, sizeof dev);
  dev.holder = -1;
}

static bool
may_write (int path)
{
  return dev.holder < 0 || dev.holder == path || (dev.reg_only && dev.key[path] != 0);
}

static enum reserve_result
device (int path, const struct reserve *r)
{
  bool found = false;

  if (dev.trouble != RESERVE_OK)
    return dev.trouble;
  if (dev.attentions > 0) {
    dev.attentions--;
    return RESERVE_AGAIN;
  }
  switch ((enum reserve_step) r->step) {
  case RESERVE_REGISTER: dev.key[path] = r->own; return RESERVE_OK;
  case RESERVE_PREEMPT:
    if (dev.key[path] != r->own)
      return RESERVE_CONFLICT;
    for (int p = 0; p < PATHS; p++)
      if (p != path && dev.key[p] == r->old) {
        found = true;
        dev.key[p] = 0;
        if (dev.holder == p) {
          dev.holder = path;
          dev.reg_only = true;
        }
      }
    return found ? RESERVE_OK : RESERVE_CONFLICT;
  case RESERVE_RESERVE:
    if (dev.key[path] != r->own || (dev.holder >= 0 && dev.holder != path))
      return RESERVE_CONFLICT;
    dev.holder = path;
    dev.reg_only = true;
    return RESERVE_OK;
  case RESERVE_RELEASE:
    if (dev.key[path] != r->own)
      return RESERVE_CONFLICT;
    if (dev.holder == path)
      dev.holder = -1;
    return RESERVE_OK;
  case RESERVE_UNREGISTER:
    if (dev.key[path] != r->own)
      return RESERVE_CONFLICT;
    dev.key[path] = 0;
    return RESERVE_OK;
  case RESERVE_NOTHING:
  case RESERVE_REFUSED: break;
  }
  return RESERVE_FAILED;
}

/* True: it came to its end.  The steps are in 'steps'. */
static bool
run (int path, struct reserve *r)
{
  unsigned n = 0;

  while (r->step != RESERVE_NOTHING && r->step != RESERVE_REFUSED && n < sizeof steps - 1) {
    steps[n++] = "-gptlu!"[r->step];
    reserve_did (r, device (path, r));
  }
  steps[n] = '\0';
  reserve_did (r, RESERVE_FAILED); /* at an end nothing changes it */
  return r->step == RESERVE_NOTHING;
}

static bool
take (int path, uint64_t own, uint64_t old)
{
  struct reserve r;

  reserve_take (&r, own, old, true);
  return run (path, &r);
}

static bool
give (int path, uint64_t own)
{
  struct reserve r;

  reserve_give (&r, own);
  return run (path, &r);
}

static enum reserve_why
refused (int path, uint64_t own, uint64_t old, bool allowed)
{
  struct reserve r;

  reserve_take (&r, own, old, allowed);
  ok (!run (path, &r) && r.step == RESERVE_REFUSED, "refused");
  return (enum reserve_why) r.why;
}

static void
test_core (void)
{
  enum { A = 0xa, B = 0xb, OLD_A = 0xa0, STRANGER = 0xc };

  fresh ();
  ok (take (0, A, 0) && may_write (0) && !may_write (1), "a free device is taken, and nobody else writes");
  ok (strcmp (steps, "gt") == 0, "... register, reserve: %s", steps);
  ok (take (0, A, A) && strcmp (steps, "gt") == 0, "once more by the same boot, after its process died");
  ok (refused (1, B, A, false) == RESERVE_WHY_NOT_ALLOWED && steps[0] == '\0' && may_write (0) && dev.key[1] == 0,
      "S1 doesn't allow it: nothing is done at the device");
  ok (take (1, B, A) && may_write (1) && !may_write (0), "S1 d: the old host's writes fail from then on");
  ok (strcmp (steps, "gpt") == 0, "... register, preempt, reserve: %s", steps);
  ok (give (0, A) && may_write (1) && !may_write (0), "the old host gives back what it hasn't any more: no harm");
  ok (give (1, B) && dev.holder == -1 && dev.key[1] == 0 && strcmp (steps, "lu") == 0, "a graceful end frees the device");
  ok (take (0, A, B) && may_write (0) && !may_write (1), "who had it open has released it: its key is not there");

  fresh ();
  dev.key[0] = A;
  ok (take (1, B, A) && !may_write (0) && may_write (1), "the old host had registered, not reserved: it doesn't stay a registrant");
  fresh ();
  take (0, OLD_A, 0);
  ok (take (0, A, OLD_A) && may_write (0) && dev.key[0] == A, "another boot of the same machine, over the same path");
  fresh ();
  take (0, OLD_A, 0);
  ok (take (2, A, OLD_A) && may_write (2) && !may_write (0), "... and over another path");
  fresh ();
  take (0, A, 0);
  ok (refused (1, B, OLD_A, true) == RESERVE_WHY_FOREIGN && may_write (0), "the open record names an older boot: not taken from the newer one");
  fresh ();
  dev.key[2] = STRANGER;
  dev.holder = 2;
  ok (refused (0, A, B, true) == RESERVE_WHY_FOREIGN && dev.holder == 2, "reserved by a stranger: refused, and left so");

  fresh ();
  dev.attentions = RESERVE_TRIES - 1;
  ok (take (0, A, 0), "what the device has to tell first is no failure");
  dev.attentions = RESERVE_TRIES;
  ok (refused (0, A, 0, true) == RESERVE_WHY_FAILED, "... but not for ever");
  dev.attentions = 0;
  for (unsigned i = RESERVE_UNSUPPORTED; i <= RESERVE_FAILED; i++) {
    static const enum reserve_why why[] = { RESERVE_WHY_UNSUPPORTED, RESERVE_WHY_DENIED, RESERVE_WHY_FAILED };

    dev.trouble = (enum reserve_result) i;
    ok (refused (0, A, 0, true) == why[i - RESERVE_UNSUPPORTED], "trouble %u has its reason", i);
  }
}

/* The device says that the key which is to go has gone. */
static void
test_taken_away (void)
{
  struct reserve r;

  reserve_give (&r, 1);
  reserve_did (&r, RESERVE_OK);
  is (r.step, RESERVE_UNREGISTER, "released");
  reserve_did (&r, RESERVE_CONFLICT);
  is (r.step, RESERVE_NOTHING, "taken out by somebody meanwhile: there is nothing to give back");
}

static void
test_keys (void)
{
  uint8_t iasp[CRG_ID_LEN] = { 1 }, boot[CRG_ID_LEN] = { 2 }, other[CRG_ID_LEN] = { 3 };
  uint64_t key = reserve_key (iasp, "p1", boot);

  ok (key != 0 && key == reserve_key (iasp, "p1", boot), "a key is made again from the same names");
  ok (key != reserve_key (iasp, "p2", boot) && key != reserve_key (iasp, "p1", other)
      && key != reserve_key (other, "p1", boot) && key != reserve_key (iasp, "p", boot),
      "another node, boot or IASP has another key");
}

static void
test_answers (void)
{
  static const struct {
    int answer, error;
    enum reserve_result result;
  } table[] = {
    { 0, 0, RESERVE_OK },
    { 0x18, 0, RESERVE_CONFLICT },       { 0x83, 0, RESERVE_CONFLICT },
    { 0x4083, 0, RESERVE_CONFLICT },     { 0x02, 0, RESERVE_AGAIN },
    { 0xf0000, 0, RESERVE_FAILED }, { 0x118, 0, RESERVE_CONFLICT },
    { 0x10018, 0, RESERVE_FAILED },      { 0x102, 0, RESERVE_AGAIN },
         { -1, EBADE, RESERVE_CONFLICT },
    { -1, EOPNOTSUPP, RESERVE_UNSUPPORTED }, { -1, ENOTTY, RESERVE_UNSUPPORTED },
    { -1, EPERM, RESERVE_DENIED },       { -1, EIO, RESERVE_FAILED },
    { -1, EINTR, RESERVE_AGAIN },        { -1, EAGAIN, RESERVE_AGAIN },
    { -1, EBUSY, RESERVE_CONFLICT },     { -1, EINVAL, RESERVE_UNSUPPORTED },
    { -1, EACCES, RESERVE_DENIED },      { 0x10002, 0, RESERVE_FAILED },
  };
  char err[512] = "", path[] = "/tmp/crg-reserve-XXXXXX";
  int fd = mkstemp (path);

  for (unsigned i = 0; i < sizeof table / sizeof *table; i++)
    ok (reserve_io_result (table[i].answer, table[i].error) == table[i].result, "answer %d, errno %d", table[i].answer,
        table[i].error);
  unlink (path);
  ok (reserve_io_take (fd, path, 1, 0, true, err, sizeof err) == -EOPNOTSUPP && strstr (err, "persistent-reservation")
      && strstr (err, path), "a regular file: %s", err);
  ok (reserve_io_take (fd, path, 1, 2, false, err, sizeof err) == -EBUSY && strstr (err, "S1"), "not allowed: %s", err);
  close (fd);
  ok (reserve_io_give (fd, path, 1, err, sizeof err) == -EIO && strstr (err, "Bad file descriptor"), "%s", err);
}

int
main (void)
{
  test_core ();
  test_taken_away ();
  test_keys ();
  test_answers ();
  return tap_done ();
}
