#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# A copy stopped with SIGSTOP: a write waits for no longer than suspend-timeout, meanwhile the
# status names who is waited for and since when; then the copy has left the set and writes go on.
# Continued, the copy is filled again and equal.
. "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/functions.sh"
. "$CRG_SRC_DIR/tests/pair-functions.sh"
requires qemu-io openssl cmp
requires_plugin
cd "$tmp"

mirror_pair suspend-timeout-ms=2000
kill -STOP "$PID_n1"
start=$(now_ms)
qemu-io -f raw -c "write -P 3 1M 64k" "$(uri "$tmp/n0/nbd")" >qemu.out 2>&1 &
writer=$!
record_pid $writer
waits_for_copy () { status n0; [[ $ANSWER == *'"owner":"copy milan"'* ]]; }
wait_for 2 waits_for_copy || fail "the status does not say who is waited for: $ANSWER"
[[ $ANSWER =~ '"owner":"copy milan","reason":"'[^\"]+'","age_ms":'[0-9]+ ]] || fail "no reason or age: $ANSWER"
wait $writer || { cat qemu.out; fail "the write failed"; }
took=$(($(now_ms) - start))
[ $took -ge 1500 ] || fail "the write was answered after $took ms, before the copy was given up"
[ $took -le 5000 ] || too_slow "the write took $took ms"
! in_set n0 || fail "the copy is still in the set"
start=$(now_ms)
qemu-io -f raw -c "write -P 4 2M 64k" -c flush "$(uri "$tmp/n0/nbd")" >qemu.out || fail "second write"
[ $(($(now_ms) - start)) -le 1500 ] || too_slow "a write still waits for the lost copy"

kill -CONT "$PID_n1"
wait_for 20 in_set n0 || fail "the copy does not come back: $ANSWER"
qemu-io -f raw -c "read -P 3 1M 64k" -c "read -P 4 2M 64k" -c flush "$(uri "$tmp/n0/nbd")" >qemu.out || fail "read"
same_data || fail "the stores differ"
