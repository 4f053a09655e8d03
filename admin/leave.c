/* SPDX-License-Identifier: BSD-3-Clause */
/* crgctl leave: this node's crgd ends, and its plugins with it.
 */
#include "config.h"

#include "admin/cli.h"

int
leave_command (struct cli *cli)
{
  json_t *answer;
  int rc;

  rc = client_call (cli, json_pack ("{s:s, s:b, s:b}", "cmd", "leave", "hand_over",
                                    (int) cli->given[OPT_HAND_OVER], "force", (int) cli->given[OPT_FORCE]),
                    &answer);
  if (rc == CRG_EXIT_FINE)
    json_decref (answer);
  return rc;
}
