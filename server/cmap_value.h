/* SPDX-License-Identifier: BSD-3-Clause
 *
 * What corosync's cmap says, from its keys and bytes to ours.  Pure; it trusts
 * nothing that it is given.
 */
#ifndef CRG_CMAP_VALUE_H
#define CRG_CMAP_VALUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/limits.h"

/* Is it "nodelist.node.N.nodeid", as corosync writes N?  Then *place is N. */
extern bool cmap_value_node (const char *key, uint32_t *place);
/* A node's name, of 1 to CRG_NAME_MAX bytes. */
extern bool cmap_value_name (const char *name, char to[CRG_NAME_MAX + 1]);
/* A number that is told with a change. */
extern bool cmap_value_number (bool is_uint32, const void *data, size_t len, uint32_t *to);

#endif /* CRG_CMAP_VALUE_H */
