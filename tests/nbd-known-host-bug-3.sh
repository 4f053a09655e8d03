#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Known host bug 3 (CVE-2025-47711): an extent of more than 4 GiB - 1 aborts the server.  The extents
# of a sparse store of 8 GiB are asked for in every way, and the server lives.
. "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/functions.sh"
requires nbdinfo qemu-img
requires_plugin

truncate -s 8G "$tmp/store"
printf x | dd of="$tmp/store" bs=1 seek=$((7 << 30)) conv=notrunc status=none
start_nbdkit "$tmp/sock" name=payroll store="$tmp/store" role=production
U=$(uri "$tmp/sock")
nbdinfo --map "$U" >"$tmp/map" || fail "nbdinfo --map"
awk '$1 != next_ { exit 1 } { next_ = $1 + $2; if (/hole/) holes += $2 } END { exit !(next_ == 8 * 2^30 && holes >= 8 * 2^30 - 65536) }' \
  "$tmp/map" || { cat "$tmp/map"; fail "the map has gaps, or no holes"; }
qemu-img map -f raw --output=json "$U" >"$tmp/json" || fail "qemu-img map"
grep -q '"data": true' "$tmp/json" || fail "the block with data is not seen"
is_running "$NBDKIT_PID" || fail "the server died"
