#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# A copy's flush takes 3 s: FLUSH is not answered before.  Right after the answer both machines lose
# power, with nothing kept that wasn't flushed, and production's store is destroyed: the copy, taking
# over, has all of it.  The same for a write with FUA, and for a trim with FUA.
# timeout: 90
. "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/functions.sh"
. "$CRG_SRC_DIR/tests/pair-functions.sh"
requires qemu-io openssl
requires_plugin
requires_test_build
cd "$tmp"
mirror_size=$((8 << 20))

qio () # NODE COMMAND...
{
  local n=$1 c args=()
  shift
  for c; do args+=(-c "$c"); done
  timeout 30 qemu-io -f raw -t writeback "${args[@]}" "$(uri "$tmp/$n/nbd")" >qemu.out 2>&1 ||
    { cat qemu.out; fail "$*"; }
  ! grep -qi "failed\|error" qemu.out || { cat qemu.out; fail "$*"; }
}

# round CHECK COMMAND...: the commands take as long as the copy's flush; then all power is lost
round ()
{
  local check=$1 begun took c args=()
  shift
  rm -rf n0 n1
  faults n0 cache
  faults n1 cache
  mirror_pair suspend-timeout-ms=20000
  qio n0 "write -P 1 0 8M" flush
  faults n1 cache "delay flush 3000000"
  for c; do args+=(-c "$c"); done
  begun=$(now_ms)
  # It dies when the last one is answered: nothing that it does at its end can flush in our place.
  timeout 30 stdbuf -oL qemu-io -f raw -t writeback "${args[@]}" -c "sigraise 9" "$(uri "$tmp/n0/nbd")" \
    >qemu.out 2>&1 || :
  took=$(($(now_ms) - begun))
  kill_pid "$PID_n0"
  kill_pid "$PID_n1"
  kill_pid "$CTLPID_n0"
  kill_pid "$CTLPID_n1"
  ! grep -qi "failed\|error" qemu.out || { cat qemu.out; fail "$*"; }
  grep -q " ops" qemu.out || { cat qemu.out; fail "$*: no answer"; }
  [ $took -ge 3000 ] || fail "$*: answered after $took ms, before the copy's flush"
  "$POWERLOSS" n1/store 0
  head -c "$(stat -c %s n0/store)" /dev/urandom >n0/store
  faults n1 cache
  sed -E 's/"tenure":1/"tenure":2/; s/"generation":1/"generation":2/; s/"production_site":0/"production_site":1/
    s/("name":"rome","in_set":)true,"since":1/\1false,"since":0/' n0/record >n1/record
  mirror_node n1 1
  mirror_ctl n1 --commit --lease 3000
  tell n1 '"cmd":"role","role":"production","tenure":2,"peers":["n0","n1"],"accept_loss":true'
  qio n1 "$check" "read -P 1 7M 1M"
  echo "$*: answered after $took ms; there after the loss of everything else"
  kill_pid "$PID_n1"
  kill_pid "$CTLPID_n1"
}
round "read -P 2 1M 256k" "write -P 2 1M 256k" flush
round "read -P 3 2M 64k" "write -f -P 3 2M 64k"
round "read -P 0 3M 1M" "discard 3M 1M" flush
