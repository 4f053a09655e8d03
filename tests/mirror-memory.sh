#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# 64 requests of 256 KiB in flight on 4 connections, one copy: each plugin process stays under
# 256 MiB resident.
# timeout: 120
. "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/functions.sh"
. "$CRG_SRC_DIR/tests/pair-functions.sh"
requires fio openssl
requires_plugin
fio --enghelp 2>/dev/null | grep -qw nbd || skip "this fio has no nbd engine"
[ -z "${CRG_SANITIZE-}" ] || skip "sanitizers need memory of their own"
cd "$tmp"

mirror_pair
for rw in randwrite randrw; do
  fio --ioengine=nbd --uri="$(uri "$tmp/n0/nbd")" --output=fio.out --output-format=terse --name=w --rw=$rw \
    --bs=256k --size=16M --offset_increment=16M --numjobs=4 --iodepth=16 --time_based --runtime=4 \
    --buffer_compress_percentage=0 --refill_buffers >fio.err 2>&1 || { cat fio.err fio.out; fail "fio"; }
done
for n in n0 n1; do
  eval "pid=\$PID_$n"
  peak=$(awk '/^VmHWM/ { print $2 }' "/proc/$pid/status")
  echo "# $n: $((peak / 1024)) MiB"
  [ "$peak" -lt $((256 * 1024)) ] || fail "$n had $((peak / 1024)) MiB resident"
done
