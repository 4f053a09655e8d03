#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# FLUSH and FUA are answered only after the copy has flushed too: with a copy whose flush takes
# 0.7 s they take that long, while a plain write doesn't.
. "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/functions.sh"
. "$CRG_SRC_DIR/tests/pair-functions.sh"
requires qemu-io openssl
requires_plugin
requires_test_build
cd "$tmp"

timed () # COMMAND: ms into TOOK
{
  local start
  start=$(now_ms)
  qemu-io -f raw -t writeback -c "$1" "$(uri "$tmp/n0/nbd")" >qemu.out 2>&1 || { cat qemu.out; fail "$1"; }
  TOOK=$(($(now_ms) - start))
}

mirror_pki
mirror_record 2 0
mkdir -p n0 n1
cp record n0/record
cp record n1/record
echo "delay flush 700000" >n1/store.faults
mirror_node n0 0
mirror_node n1 1
mirror_ctl n0 --commit --lease 6000
mirror_ctl n1
tell n1 '"cmd":"role","role":"mirror","tenure":1,"peers":["n0","n1"],"production":"n0"'
tell n0 '"cmd":"role","role":"production","tenure":1,"peers":["n0","n1"]'
mirror_connect

timed "write -f -P 1 0 64k"
[ "$TOOK" -ge 700 ] || fail "FUA was answered after $TOOK ms"
timed "flush"
[ "$TOOK" -ge 700 ] || fail "FLUSH was answered after $TOOK ms"
timed "write -z -f 64k 64k"
[ "$TOOK" -ge 700 ] || fail "a zero with FUA was answered after $TOOK ms"
sleep 1.5 # the stream is in order: a write behind a flush of the background waits for it
# qemu-io flushes when it ends, so the time of a write is what it says itself.  The first one marks
# its region hot on the copy's disk, flushed, and one may meet a flush of the background.
qemu-io -f raw -t writeback -c "write -P 2 0 64k" -c "write -P 2 64k 64k" -c "write -P 3 0 64k" "$(uri "$tmp/n0/nbd")" >qemu.out ||
  fail "plain write"
grep -qE '; 00\.[0-4][0-9]* sec' qemu.out || fail "no plain write was fast: $(cat qemu.out)"
