#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# timeout: 400
# Switches rules of the cores off, one at a time, and sees the cluster simulator notice, or unit-verify.  A sample of
# tests/mutation/table; tests/soak takes all of it.
. "$(dirname "$0")/functions.sh"
requires perl
[ -z "${CRG_SANITIZE-}" ] || skip "the sanitizers' build is not relinked"
[ -e "$CRG_BUILD_DIR/.libs/libcores.a" ] || skip "no static libraries in this build"
"$CRG_SRC_DIR/tests/mutation/run" --sample --seconds 30
