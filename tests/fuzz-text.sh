#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Fuzzes short texts of others: what clients and nodes tell each other, the records of guards and of following
# clients, what sysfs and corosync's cmap say, and what scripts print.
. "$(dirname "$0")/functions.sh"
"$CRG_SRC_DIR/tests/fuzz/run" fuzz-text -- common/query.c common/jsonl.c common/clock.c common/ident.c common/visible.c \
  common/metafile.c common/super.c common/crc32c.c server/cmap_value.c server/guard.c server/script_text.c plugin/crg_record.c \
  -- server/procgroup.c
exit
