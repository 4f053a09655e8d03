#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# ./quickstart does what the README says of it, and leaves nothing behind.
# timeout: 240
# alone
. "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/functions.sh"
requires_daemon
requires nbdcopy mke2fs e2fsck jq
# A sanitized plugin needs its runtime in nbdkit's process.
TMPDIR=$tmp NBDKIT=$CRG_NBDKIT "$CRG_SRC_DIR/quickstart" --no-install --build "$CRG_BUILD_DIR"
[ -z "$(find "$tmp" -mindepth 1)" ] || { find "$tmp" | head; fail "files were left"; }
