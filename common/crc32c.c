/* SPDX-License-Identifier: BSD-3-Clause */
/* CRC32C: eight tables for any machine, the crc32 instruction where the CPU has it.  Pure.  The
 * tables are filled, and the CPU asked, before main; afterwards they are only read, by any
 * thread.
 */
#include <config.h>

#include "common/crc32c.h"
#include "common/util.h"

#define POLYNOMIAL UINT32_C (0x82f63b78) /* reflected */

static uint32_t table[8][256];
static int has_hw;

static void __attribute__ ((__constructor__))
crc32c_setup (void)
{
  uint32_t crc;
  unsigned i, k;

  for (i = 0; i < 256; i++) {
    crc = i;
    for (k = 0; k < 8; k++)
      crc = crc >> 1 ^ (crc & 1 ? POLYNOMIAL : 0);
    table[0][i] = crc;
  }
  for (k = 1; k < 8; k++)
    for (i = 0; i < 256; i++)
      table[k][i] = table[k - 1][i] >> 8 ^ table[0][table[k - 1][i] & 0xff];

#ifdef __x86_64__
  __builtin_cpu_init ();
  has_hw = __builtin_cpu_supports ("sse4.2") != 0;
#endif
}

int
crc32c_has_hw (void)
{
  return has_hw;
}

uint32_t
crc32c_sw (uint32_t crc, const void *buf, size_t len)
{
  const uint8_t *p = buf;

  crc = ~crc;
  for (; len >= 8; p += 8, len -= 8) {
    uint32_t lo = crc ^ get_le32 (p), hi = get_le32 (p + 4);

    crc = table[7][lo & 0xff] ^ table[6][lo >> 8 & 0xff] ^ table[5][lo >> 16 & 0xff]
          ^ table[4][lo >> 24] ^ table[3][hi & 0xff] ^ table[2][hi >> 8 & 0xff]
          ^ table[1][hi >> 16 & 0xff] ^ table[0][hi >> 24];
  }
  for (; len > 0; p++, len--)
    crc = crc >> 8 ^ table[0][(crc ^ *p) & 0xff];
  return ~crc;
}

#ifdef __x86_64__
__attribute__ ((__target__ ("sse4.2"))) uint32_t
crc32c_hw (uint32_t crc, const void *buf, size_t len)
{
  const uint8_t *p = buf;
  uint64_t c = ~crc & UINT32_MAX;

  for (; len >= 8; p += 8, len -= 8)
    c = __builtin_ia32_crc32di (c, get_le64 (p));
  for (; len > 0; p++, len--)
    c = __builtin_ia32_crc32qi ((uint32_t) c, *p);
  return ~(uint32_t) c;
}
#else
uint32_t
crc32c_hw (uint32_t crc, const void *buf, size_t len)
{
  return crc32c_sw (crc, buf, len);
}
#endif

uint32_t
crc32c (uint32_t crc, const void *buf, size_t len)
{
  return has_hw ? crc32c_hw (crc, buf, len) : crc32c_sw (crc, buf, len);
}
