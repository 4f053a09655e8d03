/* SPDX-License-Identifier: BSD-3-Clause
 *
 * See cmap_value.h.
 */
#include "server/cmap_value.h"

#include <string.h>

#define BEFORE "nodelist.node."
#define BEHIND ".nodeid"

bool
cmap_value_node (const char *key, uint32_t *place)
{
  const char *p = key + sizeof BEFORE - 1;
  uint64_t n = 0;

  if (strncmp (key, BEFORE, sizeof BEFORE - 1) != 0 || *p < '0' || *p > '9' || (*p == '0' && p[1] != '.'))
    return false;
  for (; *p >= '0' && *p <= '9'; p++) {
    n = n * 10 + (uint64_t) (*p - '0');
    if (n > UINT32_MAX)
      return false;
  }
  if (strcmp (p, BEHIND) != 0)
    return false;
  *place = (uint32_t) n;
  return true;
}

bool
cmap_value_name (const char *name, char to[CRG_NAME_MAX + 1])
{
  size_t len = strnlen (name, CRG_NAME_MAX + 1);

  if (len == 0 || len > CRG_NAME_MAX)
    return false;
  memcpy (to, name, len + 1);
  return true;
}

bool
cmap_value_number (bool is_uint32, const void *data, size_t len, uint32_t *to)
{
  if (!is_uint32 || !data || len != sizeof *to)
    return false;
  memcpy (to, data, sizeof *to);
  return true;
}
