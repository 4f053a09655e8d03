#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Clients ask nodes where production is: with a certificate of the clients' CA they are told, by
# each node, before and after a switchover; others learn nothing, and a crowd keeps nobody out.
. "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/functions.sh"
. "$CRG_SRC_DIR/tests/cluster.sh"
requires openssl timeout
NODES="p1:rome c1:milan w1"
EXPORT=tcp::auto
CLIENT_PORT=auto
cluster_begin

# ask IASP [NODES [CERTIFICATES]]
ask () { "$CRGCTL" uri "$1" --nodes "${2-$CLIENT_NODES}" --tls-certificates "${3-$CLIENT_TLS}"; }
want=$(ctl p1 uri payroll)
[[ $want == nbds://* ]] || fail "served at $want"
# The others hear that production is served within a tenth of a second or so of its host.
says () { [ "$(ask payroll "$1=${NODE_ADDRESS[$1]}:$CLIENT_PORT" 2>/dev/null)" = "$want" ]; }
for n in p1 c1 w1; do
  wait_for 10 says $n || fail "$n does not say $want"
done
[ "$(ask payroll)" = "$want" ] || fail "all together do not say $want"
[ "$("$CRGCTL" uri payroll --nodes "unix:$tmp/w1/run/crgd.sock")" = "$want" ] || fail "not by the admin socket"

# status MESSAGE-PATTERN CODE COMMAND...: the exit code, and what is said
refused ()
{
  local pattern=$1 want=$2 code=0
  shift 2
  "$@" >"$tmp/out" 2>"$tmp/err" || code=$?
  [ $code = "$want" ] || { cat "$tmp/err"; fail "$*: ended with $code, not $want"; }
  [ ! -s "$tmp/out" ] || fail "$*: told $(cat "$tmp/out")"
  grep -q "$pattern" "$tmp/err" || { cat "$tmp/err"; fail "$*: no word of '$pattern'"; }
}
refused 'no IASP ledger' 10 ask ledger
refused 'another DNS name' 5 ask payroll "p1=${NODE_ADDRESS[c1]}:$CLIENT_PORT"
refused 'Connection refused' 5 ask payroll "p1=${NODE_ADDRESS[p1]}:1"
refused 'at localhost port 1: Connection refused' 5 ask payroll "p1=localhost:1"
refused 'not of the form' 9 ask payroll "p 1"
refused 'certificate' 9 ask payroll "$CLIENT_NODES" "$tmp/absent"
# A client of another CA, and one that has none to show.
"$CRGCTL" init-pki "$tmp/other" p1 --client app >/dev/null
cp "$tmp/pki/clients/app/ca-cert.pem" "$tmp/other/clients/app/ca-cert.pem"
refused 'the peer refused us' 5 ask payroll "p1=${NODE_ADDRESS[p1]}:$CLIENT_PORT" "$tmp/other/clients/app"
echo '{"v":1,"cmd":"where","iasp":"payroll"}' | timeout 5 openssl s_client -quiet -tls1_3 -CAfile "$tmp/pki/ca.pem" \
  -connect "${NODE_ADDRESS[p1]}:$CLIENT_PORT" >"$tmp/out" 2>"$tmp/err" || :
! grep -q nbds "$tmp/out" || fail "told without a certificate"
grep -q 'certificate required' "$tmp/err" || { cat "$tmp/err"; fail "no alert"; }

# s_client with the certificate: what is not a request gets an answer or an end, never a hang.
talk ()
{
  { cat; sleep 1; } | timeout 5 openssl s_client -quiet -tls1_3 -CAfile "$tmp/pki/ca.pem" -cert "$CLIENT_TLS/client-cert.pem" \
    -key "$CLIENT_TLS/client-key.pem" -connect "${NODE_ADDRESS[p1]}:$CLIENT_PORT" 2>"$tmp/err" || :
}
echo '{"v":1,"cmd":"delete","crg":"payroll"}' | talk | jq -e '.ok == false and .code == 9' >/dev/null || fail "delete"
[ -z "$(echo 'GET / HTTP/1.0' | talk)" ] || fail "an answer to no JSON"
[ -z "$(head -c 300000 /dev/zero | tr '\0' x | talk)" ] || fail "an answer to an endless line"

# A crowd that says nothing, as many as the node takes and more: it keeps no client out for long,
# and crgd serves its group meanwhile.
crowd=()
for ((i = 0; i < 60; i++)); do
  exec {fd}<>"/dev/tcp/${NODE_ADDRESS[p1]}/$CLIENT_PORT" && crowd+=($fd)
done
wait_for 10 ask payroll "p1=${NODE_ADDRESS[p1]}:$CLIENT_PORT" >/dev/null 2>&1 || fail "a crowd keeps clients out"
ctl p1 is serving payroll || fail "not served under a crowd"
for fd in "${crowd[@]}"; do eval "exec $fd>&-"; done

wait_in_sync 30
must switchover ctl w1 switchover payroll --to c1
[ "$(ask payroll)" != "$want" ] && [ "$(ask payroll)" = "$(ctl c1 uri payroll)" ] || fail "after the switchover: $(ask payroll)"
# Who has no majority says so.
kill_node c1 w1
wait_for 15 eval '! ctl p1 is serving payroll' >/dev/null 2>&1
refused 'majority' 5 ask payroll "p1=${NODE_ADDRESS[p1]}:$CLIENT_PORT"
