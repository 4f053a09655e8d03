#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# The Linux kernel's own NBD client, in a User-Mode Linux guest, on a plain export: two connections
# without TLS, and one with it; mirror-linux-client has two with it.
# timeout: 300
if [ "${CRG_OWN_NET-}" != yes ]; then
  unshare -n true 2>/dev/null || { echo "needs a network namespace of its own"; exit 77; }
  # The kernel, before we are without a network.
  "$(dirname "$0")/uml/boot" --fetch || exit
  export CRG_OWN_NET=yes
  exec unshare -n bash "$0"
fi
. "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/functions.sh"
requires nbd-client ip openssl insmod
requires_root
requires_plugin

boot=$CRG_SRC_DIR/tests/uml/boot
guest=$CRG_SRC_DIR/tests/uml/nbd-guest
certs=$CRG_SRC_DIR/tests/certs
ip link set lo up
ip tuntap add dev tap0 mode tap 2>/dev/null || skip "needs tap devices"
ip addr add 10.99.0.1/24 dev tap0
ip link set tap0 up

"$certs" ca "$tmp/pki"
"$certs" node "$tmp/pki" host --dns p1 --ip 10.99.0.1
"$certs" nbd "$tmp/pki" host "$tmp/tls"
chmod -R a+rX "$tmp"

# export NAME OPTIONS...: a fresh store, exported at 10.99.0.1:10809
start_export ()
{
  rm -f "$tmp/store"
  truncate -s 96M "$tmp/store"
  "$CRG_NBDKIT" -f -t 64 -i 10.99.0.1 -p 10809 "$@" "$PLUGIN" name=payroll store="$tmp/store" \
    role=production >"$tmp/nbdkit.log" 2>&1 </dev/null &
  server=$!
  record_pid $server
  wait_for 10 nbdinfo --list "nbd${1:+s}://10.99.0.1:10809/${1:+?tls-certificates=$tmp/tls}" \
    >/dev/null 2>&1 || { cat "$tmp/nbdkit.log"; fail "no export"; }
}

run_guest ()
{
  local status=0
  CRG_UML_OUT=$tmp/out "$boot" --tap "$guest" 10.99.0.1 10809 payroll "$@" || status=$?
  [ $status != 77 ] || exit 77
  [ $status = 0 ] || { cat "$tmp/nbdkit.log"; fail "the guest ended with $status"; }
  # What the guest wrote is a clean file system for others too.
  stop_pid $server
  e2fsck -fn "$tmp/store" >"$tmp/fsck.log" 2>&1 || { cat "$tmp/fsck.log"; fail "fsck"; }
}

start_export
run_guest 2 1
start_export --tls=require --tls-verify-peer --tls-certificates="$tmp/tls"
run_guest 1 1 "$tmp/tls" p1
