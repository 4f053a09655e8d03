/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The marks of what may lie on a store: found at their place, in no other, and
 * never looked for behind the end of what was read.
 */
#include <string.h>

#include "common/signature.h"
#include "tests/tap.h"

static uint8_t head[SIGNATURE_HEAD_BYTES];

int
main (void)
{
  ok (signature_find (head, sizeof head) == NULL, "zeroes are nobody's");
  ok (signature_find (head, 0) == NULL, "nothing is nobody's");
  memcpy (head + 0x438, "\x53\xef", 2);
  ok (signature_find (head, sizeof head) && strstr (signature_find (head, sizeof head), "ext4"), "ext4");
  ok (signature_find (head, 0x439) == NULL && signature_find (head, 0x43a) != NULL,
      "not beyond the end of what was read");
  memset (head, 0, sizeof head);
  memcpy (head + 0x10040, "_BHRfS_M", 8);
  ok (signature_find (head, sizeof head) && strstr (signature_find (head, sizeof head), "Btrfs"),
      "the last place that is looked at");
  memset (head, 0, sizeof head);
  memcpy (head + 1, "XFSB", 4);
  ok (signature_find (head, sizeof head) == NULL, "a mark at another place is none");
  return tap_done ();
}
