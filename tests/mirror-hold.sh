#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# F6: a hold drains and flushes, then lets no write through until it is resumed, mirrored and
# unmirrored; reads go on; the status shows it.  A hold that can't drain says so and stays.
. "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/functions.sh"
. "$CRG_SRC_DIR/tests/pair-functions.sh"
requires qemu-io openssl
requires_plugin
cd "$tmp"

held_then_resumed ()
{
  qemu-io -f raw -c "write -P 1 0 64k" -c "write -P 1 1M 64k" "$(uri "$tmp/n0/nbd")" >qemu.out || fail "write"
  tell n0 '"cmd":"hold","reason":"switchover"'
  case $ANSWER in *'"drained":true'*) ;; *) fail "not drained: $ANSWER" ;; esac
  timeout 20 qemu-io -f raw -c "write -P 2 1M 64k" "$(uri "$tmp/n0/nbd")" >qemu.held 2>&1 &
  held=$!
  record_pid $held
  sleep 0.7
  is_running $held || { cat qemu.held; fail "a write went through a hold"; }
  status n0
  case $ANSWER in *'"held":true'*'"owner":"hold"'*) ;; *) fail "the status does not show the hold: $ANSWER" ;; esac
  timeout 5 qemu-io -r -f raw -c "read -P 1 0 64k" "$(uri "$tmp/n0/nbd")" >qemu.out || fail "a read is held too"
  ! grep -q "Pattern verification failed" qemu.out || fail "wrong data in a hold"
  tell n0 '"cmd":"resume"'
  wait $held || { cat qemu.held; fail "the held write failed"; }
  qemu-io -f raw -c "read -P 2 1M 64k" "$(uri "$tmp/n0/nbd")" >qemu.out
  ! grep -q "Pattern verification failed" qemu.out || fail "the held write is lost"
}

mirror_pair suspend-timeout-ms=60000
held_then_resumed
# The copy stands still, so nothing can be drained.
kill -STOP "$PID_n1"
qemu-io -f raw -c "write -P 3 1M 64k" "$(uri "$tmp/n0/nbd")" >qemu.stuck 2>&1 &
stuck=$!
record_pid $stuck
sleep 0.3
tell_any n0 '"cmd":"hold","wait_ms":500'
case $ANSWER in *'"code":"timeout"'*) ;; *) fail "a drain that can't end: $ANSWER" ;; esac
kill -CONT "$PID_n1"
drained () { status n0; [[ $ANSWER == *'"waits":[]'* || $ANSWER == *'"waits":[{"owner":"hold"'* ]]; }
wait_for 5 drained || fail "what was on its way before the hold is not answered: $ANSWER"
tell n0 '"cmd":"resume"'
wait $stuck || fail "the stuck write failed" # with the flush at its end, which was held
tell n0 '"cmd":"role","role":"none"'
tell n1 '"cmd":"quit"'

# One site: the workers do it themselves until the hold.
kill_pid "$PID_n0"
rm n0/store; faults n0
mirror_record 1 0
cp record n0/record
mirror_node n0 0
mirror_ctl n0 --lease 3000
tell n0 '"cmd":"role","role":"production","tenure":1'
held_then_resumed
# What a worker began by itself before a hold is waited for: by the hold, and by what comes after it.
tell n0 '"cmd":"role","role":"none"'
tell n0 '"cmd":"role","role":"production","tenure":1'
faults n0 "delay write 1500000"
timeout 20 qemu-io -f raw -c "write -P 4 2M 64k" "$(uri "$tmp/n0/nbd")" >qemu.slow 2>&1 &
record_pid $!
inflight () { status n0; [[ $ANSWER == *'"inflight":1,'* ]]; }
wait_for 5 inflight || fail "the slow write is not shown: $ANSWER"
echo '{"id":9001,"cmd":"hold"}' >&"$CTLFD_n0"
echo '{"id":9002,"cmd":"role","role":"none"}' >&"$CTLFD_n0"
wait_for 5 grep -q '"id":9001,.*"superseded"' n0/answers || fail "the hold is not answered"
sleep 0.3 # in which it was written as released
"$CRGCTL" iasp dump n0/store >dump || fail "dump"
! grep -q "^  flags .*clean" dump || { cat dump; fail "written as released while a worker still writes"; }
wait_for 10 grep -q '"id":9002,' n0/answers || fail "the release is not answered"
grep -q '"id":9002,.*"clean":true' n0/answers || fail "not released cleanly"
head -c 64K /dev/zero | tr '\0' '\004' >pattern
cmp -n 64K -i 0:2M pattern n0/store || fail "the worker's write is lost"
