#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Production is released cleanly, the next one writes what nobody answers and dies, and the first is
# production again: what was written between is on the copy's disk, so the copies are not equal (F6).
. "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/functions.sh"
. "$CRG_SRC_DIR/tests/pair-functions.sh"
requires qemu-io openssl cmp
requires_plugin
cd "$tmp"

mirror_pair
qemu-io -f raw -c "write -P 7 1M 64k" -c flush "$(uri "$tmp/n0/nbd")" >qemu.out || fail "write"
tell n0 '"cmd":"role","role":"none"'
case $ANSWER in *'"clean":true'*) ;; *) fail "not clean: $ANSWER" ;; esac
kill_pid "$CTLPID_n0"
sed 's/"tenure":1/"tenure":2/; s/"production_site":0/"production_site":1/; s/"in_set":false,"since":0/"in_set":true,"since":1/' n0/record >record2
tell n1 '"cmd":"role","role":"production","tenure":2,"lease_until_ms":999999999999,"record":'"$(cat record2)"
timeout 20 qemu-io -f raw -c "write -P 9 1M 64k" "$(uri "$tmp/n1/nbd")" >between.out 2>&1 &
record_pid $!
at_n1 () { [ "$(od -An -tx1 -j $((1 << 20)) -N 1 n1/store)" = " $1" ]; }
wait_for 10 at_n1 09 || fail "the next production does not write what waits for its copy"
! grep -q wrote between.out || fail "and it was answered"
kill_pid "$PID_n1"
kill_pid "$CTLPID_n1"

sed 's/"tenure":2/"tenure":3/; s/"production_site":1/"production_site":0/' record2 >record3
cp record3 n0/record
mirror_ctl n0 --commit --lease 3000
mirror_node n1 1
mirror_ctl n1
tell n1 '"cmd":"role","role":"mirror","tenure":3,"peers":["n0","n1"],"production":"n0","record":'"$(cat record3)"
tell n0 '"cmd":"role","role":"production","tenure":3,"peers":["n0","n1"],"record":'"$(cat record3)"
mirror_connect
qemu-io -f raw -c "read -P 7 1M 64k" "$(uri "$tmp/n0/nbd")" >qemu.out || fail "read"
! grep -q "Pattern verification failed" qemu.out || fail "what nobody had answered is read"
wait_for 10 at_n1 07 || fail "the copy keeps what was never answered"
same_data || fail "the stores differ"
