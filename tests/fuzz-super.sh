#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Fuzzes superblocks, the blocks of the maps, and claims.
. "$(dirname "$0")/functions.sh"
"$CRG_SRC_DIR/tests/fuzz/run" fuzz-super -- common/claim.c common/super.c common/crc32c.c common/ident.c
exit
