#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# The Linux kernel's NBD client in a User-Mode Linux guest on a mirrored export over TLS: the copy
# host is stopped, then killed, while a file system is written.  The guest sees no error.
# timeout: 240
if [ "${CRG_OWN_NET-}" != yes ]; then
  unshare -n true 2>/dev/null || { echo "needs a network namespace of its own"; exit 77; }
  "$(dirname "$0")/uml/boot" --fetch || exit
  export CRG_OWN_NET=yes
  exec unshare -n bash "$0"
fi
. "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/functions.sh"
. "$CRG_SRC_DIR/tests/cluster.sh"
requires nbd-client ip insmod
requires_root
ip link set lo up
ip tuntap add dev tap0 mode tap 2>/dev/null || skip "needs tap devices"
ip addr add 10.99.0.1/24 dev tap0
ip link set tap0 up
for i in 11 12 13; do ip addr add 10.99.0.$i/24 dev tap0; done

NODES="p1:rome c1:milan w1"
SIZE=$((96 << 20))
EXPORT=tcp::10809
ADDRESS=10.99.0.
cluster_begin
wait_in_sync 30
mkdir "$tmp/out" "$tmp/tls"
# nbd-client takes file names; the guest reads them here.
cp "$CLIENT_TLS"/*.pem "$tmp/tls/"
chmod -R a+rX "$tmp/tls"

CRG_UML_OUT=$tmp/out "$CRG_SRC_DIR/tests/uml/boot" --tap "$CRG_SRC_DIR/tests/uml/nbd-guest" \
  "${NODE_ADDRESS[p1]}" 10809 payroll 2 12 "$tmp/tls" p1 &
guest=$!
record_pid $guest
wait_for 60 eval "[ -e '$tmp/out/working' ] || not_running $guest"
if [ -e "$tmp/out/working" ]; then
  pid=$(plugin_pid c1)
  kill -STOP "$pid"
  wait_for 15 eval '[ "$(copy_of milan mirror)" = suspended ]' || { show_logs; fail "the copy was not suspended"; }
  kill -CONT "$pid"
  wait_in_sync 30
  kill_node c1
  sleep 1
  start_node c1
fi
status=0
wait $guest || status=$?
[ $status != 77 ] || skip "no User-Mode Linux kernel"
[ $status = 0 ] || { show_logs; fail "the guest ended with $status"; }
wait_in_sync 60
same_copies
e2fsck -fn "${STORE[milan]}" >"$tmp/fsck" 2>&1 || { cat "$tmp/fsck"; fail "fsck of the copy"; }
