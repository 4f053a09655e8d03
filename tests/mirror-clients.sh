#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Real clients on a mirrored export over TCP and TLS: nbdinfo, nbdcopy, qemu-img, qemu-io, fio.
# Afterwards both copies hold the same.  A wrong export name, a client without a certificate and
# a client on the mirror copy get a clear error.
# timeout: 240
. "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/functions.sh"
. "$CRG_SRC_DIR/tests/cluster.sh"
requires nbdinfo nbdcopy fio
NODES="p1:rome c1:milan w1"
SIZE=$((64 << 20))
EXPORT=tcp::auto
cluster_begin
wait_in_sync 30
u=$(export_uri)
echo "$u"
case $u in nbds://*) ;; *) fail "no TLS in $u" ;; esac

nbdinfo --json "$u" >"$tmp/info"
jq -e '.exports[0] | .["export-size"] == '$SIZE' and .can_multi_conn and .can_fua and .can_flush
  and .can_zero and .can_fast_zero and .can_trim' "$tmp/info" >/dev/null || { cat "$tmp/info"; fail "nbdinfo"; }

truncate -s $SIZE "$tmp/in"
dd if=/dev/urandom of="$tmp/in" bs=1M count=12 conv=notrunc status=none
dd if=/dev/urandom of="$tmp/in" bs=4k seek=5000 count=700 conv=notrunc status=none
nbdcopy --flush "$tmp/in" "$u"
nbdcopy "$u" "$tmp/out"
cmp "$tmp/in" "$tmp/out" || fail "nbdcopy: what comes back differs"
# What a flush has covered is on both stores, now.
cmp -n $SIZE "$tmp/in" "${STORE[rome]}" || fail "the store of rome differs"
cmp -n $SIZE "$tmp/in" "${STORE[milan]}" || fail "the store of milan differs"
used=$(($(stat -c '%b * %B' "${STORE[milan]}")))
[ $used -le $((32 << 20)) ] || fail "the copy filled its holes: $used bytes"

# qemu has its own way to name TLS.
if command -v qemu-img >/dev/null; then
  address=${u#nbds://} address=${address%%/*}
  tls=(--object "tls-creds-x509,id=t,endpoint=client,dir=$CLIENT_TLS")
  qopts="driver=nbd,server.type=inet,server.host=${address%:*},server.port=${address##*:},export=payroll,tls-creds=t"
  qemu-img convert "${tls[@]}" --image-opts -O raw "$qopts" "$tmp/qout"
  cmp "$tmp/in" "$tmp/qout" || fail "qemu-img convert"
  qemu-io "${tls[@]}" --image-opts "$qopts" -c 'write -f -P 0x5a 1M 64k' -c 'discard 2M 1M' -c 'write -z -u 4M 1M' \
    -c 'flush' -c 'read -P 0x5a 1M 64k' -c 'read -P 0 2M 1M' -c 'read -P 0 4M 1M' >"$tmp/qio" 2>&1 || { cat "$tmp/qio"; fail "qemu-io"; }
  ! grep -i 'verification failed' "$tmp/qio" || fail "qemu-io read something else"
  cmp -n $SIZE "${STORE[rome]}" "${STORE[milan]}" || fail "the copies differ after qemu-io"
fi

# fio's engine takes no certificates: through nbdkit's own NBD client.
if fio --enghelp 2>/dev/null | grep -qw nbd; then
  nbdkit -f -U "$tmp/proxy" nbd uri="${u%%\?*}" tls-certificates="$CLIENT_TLS" >"$tmp/proxy.log" 2>&1 </dev/null &
  proxy=$!
  record_pid $proxy
  wait_for 10 test -S "$tmp/proxy" || { cat "$tmp/proxy.log"; fail "nbdkit nbd"; }
  (cd "$tmp" && fio --name=f --ioengine=nbd --uri="$(uri "$tmp/proxy")" --rw=randwrite --bs=4k --size=16M \
    --io_size=8M --iodepth=16 --verify=crc32c --do_verify=1 --verify_fatal=1 --fsync=64 --output="$tmp/fio.out" 2>&1) ||
    { cat "$tmp/fio.out"; fail "fio"; }
  stop_pid $proxy
fi

# Errors that a person can act on.
expect_fail nbdinfo "${u/\/payroll/\/absent}" 2>"$tmp/err"
cat "$tmp/err"
expect_fail nbdinfo "${u%%\?*}" 2>"$tmp/err" # no certificate
cat "$tmp/err"
port=${EXPORT##*:}
mirror="nbds://${NODE_ADDRESS[c1]}:$port/payroll?tls-certificates=$CLIENT_TLS"
expect_fail nbdinfo "$mirror" 2>"$tmp/err"
cat "$tmp/err"
# The client is told only that it was refused; why stands in the log of that node.
grep -rqE 'mirror copy' "$tmp/c1" || { show_logs; fail "the copy's node does not say why it refused a client"; }
nbdinfo --size "$u" >/dev/null || fail "no service afterwards"
same_copies
