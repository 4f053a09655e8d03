#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# fio, qemu-io, qemu-img, nbdcopy and nbdinfo through the plugin crg while production moves; qemu's
# reconnect-delay through the plugin and on the export itself; changes of the same bytes keep their
# order (Y8); and what a wrong certificate, an unknown IASP, and no host at all look like.
# timeout: 200
. "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/functions.sh"
. "$CRG_SRC_DIR/tests/cluster.sh"
. "$CRG_SRC_DIR/tests/client-functions.sh"
requires fio qemu-io qemu-img nbdcopy nbdinfo cmp openssl
NODES="p1:rome p2:rome c1:milan w1"
SIZE=$((32 << 20))
EXPORT=tcp::auto
CLIENT_PORT=auto
cd "$tmp"

# --- what can't begin: parameters
refused ()
{
  local pattern=$1
  shift
  ! timeout 20 "$CRG_NBDKIT" -f -U "$tmp/never" "$CRG_PLUGIN" "$@" >out 2>&1 </dev/null || fail "$*: it runs"
  grep -q "$pattern" out || { cat out; fail "$*: no word of '$pattern'"; }
}
refused 'iasp= and nodes= are required' iasp=payroll
refused 'tls-certificates= is required' iasp=payroll nodes=p1
refused "can't read the CA's certificate" iasp=payroll nodes=p1 tls-certificates="$tmp"
refused 'not of the form' iasp=payroll nodes='p1,P 2'
refused 'not a number from 1 to 16' iasp=payroll nodes=unix:/s connections=17
refused "no parameter 'node'" iasp=payroll node=p1
echo '{}' >bad.state
refused 'it is damaged' iasp=payroll nodes=unix:/s state="$tmp/bad.state"

cluster_begin
wait_in_sync 30
start_proxy a iasp=payroll nodes="$CLIENT_NODES" tls-certificates="$CLIENT_TLS" client=prog state="$tmp/a.state"
u=$(proxy_uri a)

# --- programs
fio --ioengine=nbd --uri="$u" --name=verify --rw=randwrite --bsrange=4k-64k --blockalign=4k --size=8M --offset_increment=8M \
  --numjobs=2 --iodepth=16 --fsync=64 --time_based --runtime=4 --verify=crc32c --do_verify=0 --output=fio.out >fio.err 2>&1 &
job=$!
record_pid $job
sleep 1
move p2
move c1
wait $job || { cat fio.err fio.out a.log; fail "fio"; }
head -c 8M /dev/urandom >random
qemu-img convert -n -f raw -O raw random "$u" &
job=$!
move "$(host_of rome)"
wait $job || { cat a.log; fail "qemu-img"; }
nbdcopy "$u" image
cmp -n $((8 << 20)) random image || fail "qemu-img, nbdcopy"
head -c 32M /dev/urandom >random
nbdcopy random "$u"
nbdcopy "$u" image
cmp random image || fail "nbdcopy"
nbdinfo --map "$u" | grep -q data
qemu-io -f raw -c "discard 0 1M" -c "write -z 1M 1M" -c "read -P 0 0 2M" "$u" >qemu.out || { cat qemu.out; fail "qemu-io"; }
! grep -q failed qemu.out || { cat qemu.out; fail "qemu-io"; }
[ "$(proxy_status a .counters.sessions)" -ge 3 ] || fail "production moved, and the proxy did not: $(proxy_status a .)"

# --- qemu's reconnect-delay: over the death of the proxy (A), and of the production plugin on the
# export itself (B)
qemu_goes_on () # NAME IMAGE-OPTIONS BREAK OPTIONS...
{
  mkfifo "$1.in"
  qemu-io "${@:4}" --image-opts "$2" <"$1.in" >"$1.out" 2>&1 &
  local pid=$! fd
  record_pid $pid
  exec {fd}>"$1.in"
  echo "write -P 7 4M 64k" >&$fd
  wait_for 10 grep -q 'wrote 65536' "$1.out" || { cat "$1.out"; fail "$1: no write"; }
  $3
  # One at a time: qemu-io waits for its input to become readable, whatever it has read already.
  local command n=2
  for command in "write -P 8 5M 64k" flush "read -P 7 4M 64k" "read -P 8 5M 64k"; do
    echo "$command" >&$fd
    n=$((n + 1))
    wait_for 40 eval "[ \$(grep -o 'qemu-io>' '$1.out' | wc -l) -ge $n ]" || { cat "$1.out"; fail "$1: no end of $command"; }
  done
  echo "quit" >&$fd
  wait_for 40 not_running $pid || { cat "$1.out"; fail "$1: no end"; }
  exec {fd}>&-
  [ "$(grep -c 'read 65536' "$1.out")" = 2 ] && ! grep -qE 'error|failed' "$1.out" || { cat "$1.out"; fail "$1"; }
}
kill_proxy () { kill_pid "$PROXY_PID"; start_proxy a; }
kill_production () { kill -KILL "$(plugin_pid "$(production_node)")"; }
qemu_goes_on A "driver=nbd,server.type=unix,server.path=$tmp/a.nbd,export=payroll,reconnect-delay=30" kill_proxy
host=$(production_node)
port=$(ctl w1 uri payroll | sed 's,.*:\([0-9]*\)/.*,\1,')
qemu_goes_on B "driver=nbd,server.type=inet,server.host=${NODE_ADDRESS[$host]},server.port=$port,export=payroll,tls-creds=t0,reconnect-delay=30" kill_production \
  --object "tls-creds-x509,id=t0,endpoint=client,dir=$CLIENT_TLS"

# --- the order of changes (Y8): each is the last word when it is answered
# One of them is with the host, the others wait behind it, in their order.
proxy_waits () { proxy_has a '.requests | "\(.under_way) \(.behind)"' "1 $(($1 - 1))"; }
kill -STOP "$(plugin_pid "$(production_node)")"
for i in 1 2 3; do
  qemu-io -f raw -t writeback -c "write -P $i 6M 64k" "$u" >"order$i" 2>&1 &
  order[i]=$!
  wait_for 5 proxy_waits $i || { proxy_status a .requests; fail "write $i is not behind the others (Y8)"; }
done
kill -CONT "$(plugin_pid "$(production_node)")"
for i in 1 2 3; do wait "${order[i]}" || { cat "order$i"; fail "write $i"; }; done
qemu-io -f raw -c "read -P 3 6M 64k" "$u" >order || { cat order; fail "the last of three was not the last"; }
! grep -q failed order || { cat order; fail "the last of three was not the last"; }

# --- a wrong certificate, no host at all, an unknown IASP
stop_pid "$PROXY_PID"
! is_running "$PROXY_PID" || fail "SIGTERM does not end the proxy"
"$CRGCTL" init-pki "$tmp/other" p1 --client app >/dev/null
cp "$tmp/pki/clients/app/ca-cert.pem" "$tmp/other/clients/app/"
waits_for () { proxy_status "$1" '.wait | "\(.owner): \(.reason)"' | grep -q "payroll: .*$2"; }
start_proxy b iasp=payroll nodes="$CLIENT_NODES" tls-certificates="$tmp/other/clients/app" timeout=1
wait_for 10 waits_for b 'the peer refused us' || { proxy_status b .; fail "a wrong certificate is not told"; }
! nbdinfo "$(proxy_uri b)" >out 2>&1 || fail "served with a wrong certificate"
grep -q 'the peer refused us' b.log || { cat b.log; fail "a wrong certificate is not in the log"; }
stop_pid "$PROXY_PID"
free_port
start_proxy c iasp=payroll nodes="p1=127.0.0.11:$PORT,c1=127.0.0.13:$PORT" tls-certificates="$CLIENT_TLS"
nbdinfo "$(proxy_uri c)" >out 2>&1 &
job=$!
record_pid $job
wait_for 10 waits_for c 'Connection refused' || { proxy_status c .; fail "no host, and no word of it"; }
is_running $job || { cat out; fail "it did not wait"; }
stop_pid $job
kill_pid "$PROXY_PID"
start_proxy d iasp=ledger nodes="$CLIENT_NODES" tls-certificates="$CLIENT_TLS"
! timeout 10 nbdinfo "nbd+unix:///ledger?socket=$tmp/d.nbd" >out 2>&1 || fail "an unknown IASP is served"
grep -q 'no node has it: node .* knows no IASP ledger' d.log || { cat d.log; fail "an unknown IASP is not told"; }
