#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Fuzzes what the members of a group say to each other and keep on disk, and the group core with it.
. "$(dirname "$0")/functions.sh"
"$CRG_SRC_DIR/tests/fuzz/run" fuzz-group -- server/group.c server/group_domain.c server/group_host.c server/group_msg.c \
  server/group_request.c server/group_status.c server/group_want.c server/lease.c server/place.c \
  server/state.c server/state_codec.c server/state_domain.c server/statefile.c server/cpg_frame.c server/hub_frame.c \
  common/crc32c.c common/ident.c
exit
