/* SPDX-License-Identifier: BSD-3-Clause */
/* Fuzz target: the frames of the mirror link.  The first byte chooses a decoder.  The header's
 * checksum is put right half of the time, else hardly any input would get behind it.  What a
 * decoder accepts must satisfy the rules of wire.h and survive a round trip.
 */
#include <stdlib.h>
#include <string.h>

#include "common/crc32c.h"
#include "common/util.h"
#include "common/wire.h"

#define REQUIRE(cond)  \
  do {                 \
    if (!(cond))       \
      abort ();        \
  } while (0)

#define ROUND_TRIP(name)                                                              \
  do {                                                                                \
    static struct wire_##name a, b;                                                   \
    uint8_t out[WIRE_MAX_CONTROL];                                                    \
    memset (&a, 0, sizeof a), memset (&b, 0, sizeof b);                               \
    if (wire_decode_##name (data, size, &a) == WIRE_OK) {                             \
      size_t n = wire_encode_##name (&a, out, sizeof out);                            \
      REQUIRE (n > 0 && wire_decode_##name (out, n, &b) == WIRE_OK);                  \
      REQUIRE (memcmp (&a, &b, sizeof a) == 0);                                       \
    }                                                                                 \
  } while (0)

extern int LLVMFuzzerTestOneInput (const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
  uint8_t which, copy[WIRE_HEADER_LEN];
  struct wire_header h;

  if (size < 1)
    return 0;
  which = data[0];
  data++, size--;
  switch (which % 8) {
  case 0:
  case 1:
    memset (copy, 0, sizeof copy);
    memcpy (copy, data, MIN (size, sizeof copy));
    if (which % 8)
      put_le32 (copy + 60, crc32c (0, copy, 60));
    if (wire_decode_header (copy, MIN (size, sizeof copy), &h) == WIRE_OK) {
      uint8_t out[WIRE_HEADER_LEN];
      REQUIRE (h.payload_len <= LINK_MAX_PAYLOAD);
      REQUIRE (h.type > 0 && h.type < WIRE_TYPE_END);
      wire_encode_header (&h, out);
      REQUIRE (memcmp (out, copy, sizeof out) == 0);
    }
    break;
  case 2: ROUND_TRIP (hello); break;
  case 3: ROUND_TRIP (hello_ok); break;
  case 4: ROUND_TRIP (refuse); break;
  case 5: ROUND_TRIP (failure); break;
  case 6: ROUND_TRIP (record); break;
  case 7: ROUND_TRIP (digest_req); break;
  }
  return 0;
}
