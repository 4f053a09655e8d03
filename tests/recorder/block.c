/* SPDX-License-Identifier: BSD-3-Clause */
/* See block.h.  The filler is different in every write, so that a block made of halves of two
 * writes has a wrong CRC and a store that loses or swaps sectors is seen.
 */
#include <config.h>

#include <string.h>

#include "common/crc32c.h"
#include "tests/recorder/block.h"

static const uint8_t magic[8] = { 'C', 'R', 'G', 'R', 'E', 'C', '0', '1' };

#define HEAD 40
#define CRC_AT (REC_BLOCK_SIZE - 4)

static void
put (uint8_t *p, uint64_t v, unsigned n)
{
  for (unsigned i = 0; i < n; i++)
    p[i] = (uint8_t) (v >> (8 * i));
}

static uint64_t
get (const uint8_t *p, unsigned n)
{
  uint64_t v = 0;

  for (unsigned i = 0; i < n; i++)
    v |= (uint64_t) p[i] << (8 * i);
  return v;
}

/* splitmix64 */
static uint64_t
next (uint64_t *x)
{
  uint64_t z = (*x += 0x9e3779b97f4a7c15u);

  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

void
block_make (const struct block_tag *tag, uint8_t buf[REC_BLOCK_SIZE])
{
  uint64_t x = tag->run ^ (tag->block << 32) ^ ((uint64_t) tag->writer << 52) ^ tag->seq;

  memcpy (buf, magic, sizeof magic);
  put (buf + 8, tag->run, 8);
  put (buf + 16, tag->block, 8);
  put (buf + 24, tag->writer, 4);
  put (buf + 28, 0, 4);
  put (buf + 32, tag->seq, 8);
  for (unsigned i = HEAD; i < CRC_AT; i += 4)
    put (buf + i, next (&x), 4);
  put (buf + CRC_AT, crc32c (0, buf, CRC_AT), 4);
}

enum block_verdict
block_read (const uint8_t buf[REC_BLOCK_SIZE], struct block_tag *tag)
{
  uint8_t want[REC_BLOCK_SIZE];

  memset (tag, 0, sizeof *tag);
  if (memcmp (buf, magic, sizeof magic) != 0)
    return BLOCK_FOREIGN;
  tag->run = get (buf + 8, 8);
  tag->block = get (buf + 16, 8);
  tag->writer = (uint32_t) get (buf + 24, 4);
  tag->seq = get (buf + 32, 8);
  if (get (buf + CRC_AT, 4) != crc32c (0, buf, CRC_AT))
    return BLOCK_DAMAGED;
  block_make (tag, want);
  return memcmp (buf, want, REC_BLOCK_SIZE) == 0 ? BLOCK_VALID : BLOCK_DAMAGED;
}

uint64_t
block_hash (const uint8_t buf[REC_BLOCK_SIZE])
{
  uint64_t h = 0xcbf29ce484222325u;

  for (unsigned i = 0; i < REC_BLOCK_SIZE; i++)
    h = (h ^ buf[i]) * 0x100000001b3u;
  return h;
}
