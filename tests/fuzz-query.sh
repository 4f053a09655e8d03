#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Fuzzes what clients and nodes tell each other.
. "$(dirname "$0")/functions.sh"
"$CRG_SRC_DIR/tests/fuzz/run" fuzz-query -- common/query.c common/jsonl.c common/clock.c common/ident.c
exit
