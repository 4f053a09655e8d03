#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# L2: with an expired lease reads and writes are held, not failed, and the status says why; a new
# lease lets them go on.  With no-quorum-timeout-ms they fail after that time.
. "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/functions.sh"
. "$CRG_SRC_DIR/tests/pair-functions.sh"
requires qemu-io openssl
requires_plugin
cd "$tmp"

mirror_pair no-quorum-timeout-ms=4000
qemu-io -f raw -c "write -P 1 0 64k" "$(uri "$tmp/n0/nbd")" >qemu.out || fail "write with a lease"
echo "@lease 0" >&"$CTLFD_n0"
sleep 3.2 # the last renewal ends
for what in "read -P 1 0 64k" "write -P 2 1M 64k" "write -z 2M 64k" flush; do
  timeout 20 qemu-io -f raw -c "$what" "$(uri "$tmp/n0/nbd")" >"qemu.${what%% *}" 2>&1 &
  pids+=($!)
  record_pid $!
done
sleep 1
for p in "${pids[@]}"; do is_running $p || { cat qemu.*; fail "something was answered without a lease"; }; done
status n0
case $ANSWER in *'"owner":"lease"'*) ;; *) fail "the status does not name the lease: $ANSWER" ;; esac
case $ANSWER in *'"held":true'*) ;; *) fail "the status does not say held: $ANSWER" ;; esac
echo "@lease 3000" >&"$CTLFD_n0"
for p in "${pids[@]}"; do wait $p || { cat qemu.*; fail "an error after the lease was renewed"; }; done
! grep -l "Pattern verification failed" qemu.* || fail "wrong data"

# The crashed controller's plugin: nobody renews.
kill_pid "$CTLPID_n0"
sleep 3.2
start=$(now_ms)
! timeout 20 qemu-io -f raw -c "read 0 64k" "$(uri "$tmp/n0/nbd")" >qemu.out 2>&1 || fail "read without a lease"
grep -q "Input/output error" qemu.out || { cat qemu.out; fail "another error than EIO"; }
[ $(($(now_ms) - start)) -le 8000 ] || too_slow "the error came late"
