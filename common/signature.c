/* SPDX-License-Identifier: BSD-3-Clause */
/* The table of signature.h, looked through in order.  Owns nothing. */
#include <string.h>

#include "common/signature.h"
#include "common/util.h"

static const struct {
  uint32_t offset;
  uint8_t len;
  const char *magic;
  const char *name;
} known[] = {
  { 0x438, 2, "\x53\xef", "an ext2, ext3 or ext4 file system" },
  { 0, 4, "XFSB", "an XFS file system" },
  { 0x10040, 8, "_BHRfS_M", "a Btrfs file system" },
  { 0x400, 4, "\x10\x20\xf5\xf2", "an F2FS file system" },
  { 3, 8, "NTFS    ", "an NTFS file system" },
  { 3, 8, "EXFAT   ", "an exFAT file system" },
  { 0x52, 5, "FAT32", "a FAT file system" },
  { 0x36, 3, "FAT", "a FAT file system" },
  { 0x200, 8, "LABELONE", "an LVM physical volume" },
  { 0, 6, "LUKS\xba\xbe", "a LUKS volume" },
  { 0x1000, 4, "\xfc\x4e\x2b\xa9", "a member of an md array" },
  { 0, 4, "\xfc\x4e\x2b\xa9", "a member of an md array" },
  { 0xff6, 10, "SWAPSPACE2", "swap space" },
  { 0x200, 8, "EFI PART", "a GPT partition table" },
  { 0, 4, "QFI\xfb", "a qcow2 image" },
  { 0, 4, "hsqs", "a squashfs file system" },
  { 0x8001, 5, "CD001", "an ISO 9660 file system" },
  { 510, 2, "\x55\xaa", "a boot sector or partition table" },
};

const char *
signature_find (const uint8_t *head, size_t len)
{
  for (unsigned i = 0; i < ARRAY_SIZE (known); i++)
    if (known[i].offset + known[i].len <= len
        && memcmp (head + known[i].offset, known[i].magic, known[i].len) == 0)
      return known[i].name;
  return NULL;
}
