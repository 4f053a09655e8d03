#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Bad peers on the mirror port: a wrong CA, a wrong name, an expired certificate, none at all,
# plaintext, silence, truncated, oversized and damaged frames, a stranger, a flood.  Each is
# refused with a reason in the log, while the recorder writes and both copies stay in sync.
# timeout: 240
. "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/functions.sh"
. "$CRG_SRC_DIR/tests/cluster.sh"
NODES="p1:rome c1:milan w1"
SUSPEND_MS=8000
cluster_begin
wait_in_sync 30
bad=$CRG_BUILD_DIR/tests/badpeer/badpeer
certs=$CRG_SRC_DIR/tests/certs

# The cluster's own CA, in the layout of tests/certs; and a CA of somebody else.
mkdir "$tmp/own"
cp "$tmp/pki/p1/ca.pem" "$tmp/own/ca-cert.pem"
cp "$tmp/pki/ca.key" "$tmp/own/ca-key.pem"
"$certs" node "$tmp/own" mallory
"$certs" node "$tmp/own" late --dns p1 --expired
"$certs" ca "$tmp/other"
"$certs" node "$tmp/other" p1
with () { echo --cert "$1-cert.pem" --key "$1-key.pem"; }
good="--cert $tmp/pki/p1/p1.pem --key $tmp/pki/p1/p1.key"

log=$tmp/rec.log
start_recorder "$log"
more_answers "$log" 200 20 >/dev/null
plugin=$(plugin_pid c1)

node_logs () { cat "$tmp/c1/crgd.log" "$tmp"/c1/run/*.log 2>/dev/null; }

# refused WHAT MODE PATTERN OPTIONS...: the peer is turned away and the log says why
refused ()
{
  local what=$1 mode=$2 pattern=$3 lines status=0
  shift 3
  lines=$(node_logs | wc -l)
  "$bad" "$mode" "${NODE_ADDRESS[c1]}" "$MIRROR_PORT" --timeout 8000 "$@" >"$tmp/bad.out" 2>&1 || status=$?
  echo "$what: $(cat "$tmp/bad.out")"
  [ $status = 0 ] || fail "$what: not refused (badpeer: $status)"
  wait_for 5 eval "node_logs | tail -n +$((lines + 1)) | grep -qiE '$pattern'" || {
    node_logs | tail -n +$((lines + 1))
    fail "$what: no reason in the log (wanted: $pattern)"
  }
  node_logs | tail -n +$((lines + 1)) | grep -iE "$pattern" | sed -n '1s/^/    /p'
}

# shellcheck disable=SC2046
{
  refused "wrong CA" tls 'certificate|unable to get|self.signed|verify|unknown ca' $(with "$tmp/other/p1")
  refused "wrong name" tls 'name|mallory' $(with "$tmp/own/mallory")
  refused "expired" tls 'expired' $(with "$tmp/own/late")
  refused "no certificate" tls 'certificate'
  refused "plaintext" plain 'TLS|handshake|wrong version|http|record'
  refused "silence" silent 'hand.?shake|time|silent|HELLO'
  for mode in truncated payload oversized magic crc version type garbage stranger; do
    refused $mode $mode 'frame|header|HELLO|protocol|truncat|closed|length|magic|CRC|version|type|identity|refuse|cluster|lineage' $good
  done
  refused flood flood 'PING before HELLO' $good
}

[ "$(plugin_pid c1)" = "$plugin" ] || fail "the copy's plugin did not survive its visitors"
ctl p1 is in-sync payroll || { show_logs; fail "the copy left the set"; }
# With the right certificate and name but while production is connected: one link, no more.
more_answers "$log" 500 10 >/dev/null
stop_recorder "$log"
[ "$(recorded "$log" errors)" = 0 ] || fail "the client noticed"
same_copies
