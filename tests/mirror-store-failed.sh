#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# F4: a store that fails.  The copy's: it leaves the set, production goes on and no client sees an
# error.  Production's: nothing is answered as done, the controller hears of it once, and the
# release is not clean.
. "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/functions.sh"
. "$CRG_SRC_DIR/tests/pair-functions.sh"
requires qemu-io openssl mount losetup
requires_plugin
requires_root
cd "$tmp"

# A store on a file system of 5 MiB: it is sparse, so writes fail once that is full.
for i in 0 1; do
  mkdir -p small$i
  mount -t tmpfs -o size=5m tmpfs small$i 2>/dev/null || skip "this machine doesn't allow mounts"
  cleanup_fn umount -l "$tmp/small$i"
done
# Or a loop device over such a file: a block device that runs full in the middle (EIO or ENOSPC).
detach () { losetup -d "$1" 2>/dev/null || :; }
small_store () # NODE HOW
{
  local file=$tmp/small$1/store
  rm -f "$file"
  truncate -s $((mirror_size + (8 << 20))) "$file"
  mkdir -p n$1
  if [ "$2" = loop ]; then
    file=$(losetup -f --show "$file") || return 1
    cleanup_fn detach "$file"
  fi
  ln -sf "$file" n$1/store
}

for how in file loop; do
  rm -rf n0 n1
  small_store 1 $how || { echo "no loop devices here: $how left out"; continue; }
  mirror_pair suspend-timeout-ms=3000
  timeout 60 qemu-io -f raw -c "write -P 1 0 16M" -c "write -P 2 16M 4M" -c flush "$(uri "$tmp/n0/nbd")" >qemu.out 2>&1 ||
    { cat qemu.out; fail "the client saw the copy's error"; }
  ! grep -qi "failed" qemu.out || { cat qemu.out; fail "the client saw the copy's error"; }
  ! in_set n0 || fail "a copy whose store failed is in the set: $ANSWER"
  grep -q '"event":"store-failed"' n1/answers || fail "the copy's controller heard nothing"
  [ "$(grep -c '"event":"store-failed"' n1/answers)" = 1 ] || fail "said more than once"
  tell n1 '"cmd":"quit"'
  tell n0 '"cmd":"quit"'
  case $ANSWER in *'"clean":true'*) ;; *) fail "production's release: $ANSWER" ;; esac
  wait_for 3 not_running "$PID_n0" || fail "quit"
  wait_for 3 not_running "$PID_n1" || fail "quit"

  # Production's own.
  rm -rf n0 n1
  small_store 0 $how
  mirror_record 2 0
  for i in 0 1; do
    mkdir -p n$i
    cp record n$i/record
done
mirror_node n0 0
mirror_node n1 1
mirror_ctl n0 --commit --lease 3000
mirror_ctl n1
tell n1 '"cmd":"role","role":"mirror","tenure":1,"peers":["n0","n1"],"production":"n0"'
tell n0 '"cmd":"role","role":"production","tenure":1,"peers":["n0","n1"]'
mirror_connect
timeout 30 qemu-io -f raw -c "write -P 1 0 16M" "$(uri "$tmp/n0/nbd")" >qemu.out 2>&1 &
writer=$!
record_pid $writer
failed () { grep -q '"event":"store-failed"' n0/answers; }
wait_for 10 failed || fail "production's controller heard nothing"
sleep 0.5
! grep -q "16 MiB, 1 ops" qemu.out || fail "a write that failed was answered as done"
[ "$(grep -c '"event":"store-failed"' n0/answers)" = 1 ] || fail "said more than once"
status n0
case $ANSWER in *'"owner":"failed"'*) ;; *) fail "the status does not say what requests wait for: $ANSWER" ;; esac
TELL_S=20 tell n0 '"cmd":"role","role":"none","wait_ms":500'
case $ANSWER in *'"clean":false'*) ;; *) fail "a failed store was released as clean: $ANSWER" ;; esac
wait_for 5 not_running $writer || fail "the client still waits after the role is gone"
kill_pid "$PID_n0"
kill_pid "$PID_n1"
kill_pid "$CTLPID_n0"
kill_pid "$CTLPID_n1"
done
