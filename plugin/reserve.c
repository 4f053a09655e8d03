/* SPDX-License-Identifier: BSD-3-Clause */
/* The steps of reserve.h.  To take: register, preempt, reserve.  The key of the old host goes before
 * the reservation is asked for: one that had registered and not yet reserved could else go on to
 * write beside us, as a registrant.
 */
#include "plugin/reserve.h"

/* FNV-1a. */
static uint64_t
add_bytes (uint64_t hash, const void *bytes, unsigned len)
{
  const uint8_t *p = bytes;

  for (unsigned i = 0; i < len; i++)
    hash = (hash ^ p[i]) * UINT64_C (0x100000001b3);
  return hash;
}

uint64_t
reserve_key (const uint8_t iasp_id[CRG_ID_LEN], const char *node, const uint8_t boot_id[CRG_ID_LEN])
{
  uint64_t hash = UINT64_C (0xcbf29ce484222325);
  unsigned len = 0;

  while (node[len])
    len++;
  hash = add_bytes (hash, iasp_id, CRG_ID_LEN);
  hash = add_bytes (hash, boot_id, CRG_ID_LEN);
  hash = add_bytes (hash, node, len);
  return hash ? hash : 1;
}

static void
refuse (struct reserve *r, enum reserve_why why)
{
  r->step = RESERVE_REFUSED;
  r->why = (uint8_t) why;
}

void
reserve_take (struct reserve *r, uint64_t own, uint64_t old, bool is_allowed)
{
  *r = (struct reserve) { .step = RESERVE_REGISTER, .own = own, .old = old };
  /* S1: nobody's key is taken out, whose writes may still have to come. */
  if (!is_allowed)
    refuse (r, RESERVE_WHY_NOT_ALLOWED);
}

void
reserve_give (struct reserve *r, uint64_t own)
{
  *r = (struct reserve) { .step = RESERVE_RELEASE, .own = own };
}

static void
next (struct reserve *r)
{
  r->tries = 0;
  switch ((enum reserve_step) r->step) { /* never: another; all of them are set here */
  case RESERVE_REGISTER:
    r->step = r->old != 0 && r->old != r->own ? RESERVE_PREEMPT : RESERVE_RESERVE;
    break;
  case RESERVE_PREEMPT: r->step = RESERVE_RESERVE; break;
  case RESERVE_RELEASE: r->step = RESERVE_UNREGISTER; break;
  case RESERVE_RESERVE:
  case RESERVE_UNREGISTER:
  case RESERVE_NOTHING:
  case RESERVE_REFUSED: r->step = RESERVE_NOTHING; break;
  }
}

void
reserve_did (struct reserve *r, enum reserve_result result)
{
  if (r->step == RESERVE_NOTHING || r->step == RESERVE_REFUSED)
    return;
  switch (result) { /* never: another; reserve_io_result () gives these */
  case RESERVE_OK:
    next (r);
    return;
  case RESERVE_CONFLICT:
    /* Its key is not there: it gave it back, or the device forgot all, or this machine had it under
     * another name and has just replaced it.  What matters is that it is not there. */
    if (r->step == RESERVE_PREEMPT)
      next (r);
    /* Somebody has taken it from us. */
    else if (r->step == RESERVE_RELEASE || r->step == RESERVE_UNREGISTER)
      r->step = RESERVE_NOTHING;
    else
      refuse (r, RESERVE_WHY_FOREIGN);
    return;
  case RESERVE_AGAIN:
    if (++r->tries >= RESERVE_TRIES)
      refuse (r, RESERVE_WHY_FAILED);
    return;
  case RESERVE_UNSUPPORTED: refuse (r, RESERVE_WHY_UNSUPPORTED); return;
  case RESERVE_DENIED: refuse (r, RESERVE_WHY_DENIED); return;
  case RESERVE_FAILED: refuse (r, RESERVE_WHY_FAILED); return;
  }
}
