#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Fuzzes the frames of the mirror link.
. "$(dirname "$0")/functions.sh"
"$CRG_SRC_DIR/tests/fuzz/run" fuzz-wire -- common/wire.c common/crc32c.c common/ident.c
exit
