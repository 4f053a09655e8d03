/* SPDX-License-Identifier: BSD-3-Clause */
/* CRC32C against the vectors of RFC 3720, and its two implementations against a bitwise one and
 * each other, at every length, alignment and cut.
 */
#include <config.h>

#include "common/crc32c.h"
#include "tests/tap.h"

static uint32_t
slow (const uint8_t *p, size_t len)
{
  uint32_t crc = UINT32_MAX;
  unsigned k;

  for (; len > 0; p++, len--) {
    crc ^= *p;
    for (k = 0; k < 8; k++)
      crc = crc & 1 ? crc >> 1 ^ UINT32_C (0x82f63b78) : crc >> 1;
  }
  return ~crc;
}

static void
vectors (uint32_t (*fn) (uint32_t, const void *, size_t), const char *which)
{
  static const uint8_t scsi_read[48] = {
    0x01, 0xc0, [16] = 0x14, [22] = 0x04, [27] = 0x14, [31] = 0x18, [32] = 0x28, [40] = 0x02,
  };
  uint8_t buf[32];
  unsigned i;

  memset (buf, 0, 32);
  ok (fn (0, buf, 32) == 0x8a9136aa, "%s: 32 bytes of 0", which);
  memset (buf, 0xff, 32);
  ok (fn (0, buf, 32) == 0x62a8ab43, "%s: 32 bytes of 0xff", which);
  for (i = 0; i < 32; i++)
    buf[i] = (uint8_t) i;
  ok (fn (0, buf, 32) == 0x46dd794e, "%s: 0 to 31", which);
  for (i = 0; i < 32; i++)
    buf[i] = (uint8_t) (31 - i);
  ok (fn (0, buf, 32) == 0x113fdb5c, "%s: 31 to 0", which);
  ok (fn (0, scsi_read, 48) == 0xd9963a56, "%s: an iSCSI READ", which);
  ok (fn (0, "123456789", 9) == 0xe3069283, "%s: \"123456789\"", which);
  ok (fn (0, "", 0) == 0, "%s: nothing", which);
}

int
main (void)
{
  uint8_t buf[300];
  size_t off, len, cut;
  uint32_t x = 1, want;

  for (len = 0; len < sizeof buf; len++) {
    x = x * 1664525 + 1013904223;
    buf[len] = (uint8_t) (x >> 24);
  }

  vectors (crc32c_sw, "tables");
  if (crc32c_has_hw ())
    vectors (crc32c_hw, "instruction");
  vectors (crc32c, "chosen");

  for (off = 0; off < 9; off++)
    for (len = 0; len + off <= sizeof buf; len++) {
      want = slow (buf + off, len);
      check (crc32c_sw (0, buf + off, len) == want, "tables: offset %zu, %zu bytes", off, len);
      if (crc32c_has_hw ())
        check (crc32c_hw (0, buf + off, len) == want, "instruction: offset %zu, %zu bytes", off,
               len);
    }
  ok (tap_failed == 0, "every length and alignment agrees with the bitwise form");

  want = slow (buf, sizeof buf);
  for (cut = 0; cut <= sizeof buf; cut++) {
    check (crc32c (crc32c (0, buf, cut), buf + cut, sizeof buf - cut) == want, "cut at %zu", cut);
    check (crc32c_sw (crc32c_sw (0, buf, cut), buf + cut, sizeof buf - cut) == want,
           "tables, cut at %zu", cut);
  }
  ok (tap_failed == 0, "in two pieces, cut anywhere");

  return tap_done ();
}
