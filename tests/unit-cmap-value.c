/* SPDX-License-Identifier: BSD-3-Clause */
/* Keys and values of corosync's cmap: which are taken, and which are not.
 */
#include <config.h>

#include "server/cmap_value.h"
#include "tests/tap.h"

int
main (void)
{
  static const char *const bad[] = { "", "nodelist.node.", "nodelist.node..nodeid", "nodelist.node.1.nodeidx", "nodelist.node.1.name",
                                     "nodelist.node.-1.nodeid", "nodelist.node.+1.nodeid", "nodelist.node. 1.nodeid",
                                     "nodelist.node.01.nodeid", "nodelist.node.4294967296.nodeid", "nodelist.node.1",
                                     "nodelist.node.99999999999999999999999.nodeid", "nodelist.nodes.1.nodeid",
                                     "nodelist.node.x.nodeid", "nodelist.node.1x.nodeid" };
  char longest[CRG_NAME_MAX + 2], name[CRG_NAME_MAX + 1];
  uint32_t place = 77, value = 5, got = 0;

  for (unsigned i = 0; i < ARRAY_SIZE (bad); i++)
    ok (!cmap_value_node (bad[i], &place) && place == 77, "'%s' is no node", bad[i]);
  ok (cmap_value_node ("nodelist.node.0.nodeid", &place) && place == 0, "the first node");
  ok (cmap_value_node ("nodelist.node.12.nodeid", &place) && place == 12, "another one");
  ok (cmap_value_node ("nodelist.node.4294967295.nodeid", &place) && place == UINT32_MAX, "the last one");

  memset (longest, 'x', sizeof longest);
  longest[CRG_NAME_MAX + 1] = '\0';
  ok (!cmap_value_name (longest, name), "a name that is too long");
  longest[CRG_NAME_MAX] = '\0';
  ok (cmap_value_name (longest, name) && strcmp (name, longest) == 0, "the longest one");
  ok (cmap_value_name ("n1", name) && strcmp (name, "n1") == 0, "a usual one");
  ok (!cmap_value_name ("", name), "none");

  ok (cmap_value_number (true, &value, sizeof value, &got) && got == 5, "a number");
  ok (!cmap_value_number (false, &value, sizeof value, &got), "of another type");
  ok (!cmap_value_number (true, &value, sizeof value - 1, &got), "too short");
  ok (!cmap_value_number (true, &value, sizeof value + 1, &got), "too long");
  ok (!cmap_value_number (true, NULL, sizeof value, &got), "none");
  return tap_done ();
}
