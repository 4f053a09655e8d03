#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# crgctl cluster conf: a corosync.conf for nodes or for a definition, timers by distance, refusals.
. "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/functions.sh"
[ -x "$CRGCTL" ] || fail "crgctl is not built"
cd "$tmp"

# status CODE COMMAND...: ends with it; stdout in 'out', stderr in 'err'
status ()
{
  local want=$1 got=0
  shift
  "$@" >out 2>err || got=$?
  [ $got = "$want" ] || { cat out err; fail "'${*##*/}' ended with $got, not $want"; }
}
value () { sed -n "s/^ *$1: //p" out | head -1; }

status 0 "$CRGCTL" cluster conf p1=192.0.2.1 p2=192.0.2.2 w1=192.0.2.9
[ "$(value token) $(value consensus) $(value token_coefficient)" = "1000 1200 0" ] || fail "timers: $(cat out)"
[ "$(value knet_ping_interval) $(value knet_ping_timeout)" = "200 1000" ] || fail "pings: $(cat out)"
[ "$(value transport) $(value crypto_cipher) $(value crypto_hash)" = "knet aes256 sha256" ] || fail "$(cat out)"
[ "$(grep -c 'nodeid:' out)" = 3 ] && [ "$(grep -c 'linknumber:' out)" = 1 ] || fail "$(cat out)"
grep -q 'seen after 2200 ms; crgd.conf needs lease-ms = 2750 or more' out || fail "$(head -4 out)"
# two_node keeps both halves of a cut quorate, auto_tie_breaker blocks one for ever.
! grep -E 'two_node|auto_tie_breaker|wait_for_all|qdevice|device' out || fail "$(cat out)"
# A lease that short is really accepted by L1's rule, and one millisecond less isn't.
[ $((2750 * 4)) -ge $((2200 * 5)) ] && [ $((2749 * 4)) -lt $((2200 * 5)) ]

status 0 "$CRGCTL" cluster conf --rtt 50 --name east p1=192.0.2.1 p2=192.0.2.2
[ "$(value token) $(value consensus) $(value cluster_name)" = "3000 3600 east" ] || fail "$(cat out)"
status 0 "$CRGCTL" cluster conf --rtt=100 p1=192.0.2.1 p2=192.0.2.2
[ "$(value token) $(value knet_ping_timeout)" = "5000 5000" ] || fail "$(cat out)"

# Two networks, one of IPv6
status 0 "$CRGCTL" cluster conf p1=192.0.2.1,2001:db8::1 p2=192.0.2.2,2001:db8::2
[ "$(grep -c 'linknumber:' out)" = 2 ] && [ "$(value ring1_addr)" = 2001:db8::1 ] || fail "$(cat out)"

# The nodes of a definition, with its ids
cat >def <<END
[crg]
name = payroll
[node p1]
id = 11
site = rome
role = primary
address = 192.0.2.1, 192.0.3.1, 192.0.4.1
[node c1]
id = 7
site = milan
role = backup
address = 192.0.2.2, 192.0.3.2
[iasp payroll]
store = /srv/payroll
export = unix:
END
status 0 "$CRGCTL" cluster conf def
[ "$(sed -n 's/^ *nodeid: //p' out | paste -sd' ')" = "11 7" ] || fail "$(cat out)"
[ "$(value ring1_addr)" = 192.0.3.1 ] && ! grep -q 192.0.4.1 out || fail "$(cat out)"

# refused WHAT CODE WORD...
refused ()
{
  local what=$1 code=$2
  shift 2
  status "$code" "$CRGCTL" cluster "$@"
  [ ! -s out ] || fail "refused, but something was printed: $(cat out)"
  grep -qF -- "$what" err || fail "the reason should hold '$what': $(cat err)"
}
refused "there is no 'cluster destroy'" 9 destroy x
refused "an operand is missing" 9 conf
refused "one node is no cluster" 9 conf p1=192.0.2.1
refused "absent" 10 conf absent
refused "'p2' has no address" 9 conf p1=192.0.2.1 p2
refused "'host' of node 'p2' is neither" 9 conf p1=192.0.2.1 p2=host
refused "'' of node 'p2' is neither" 9 conf p1=192.0.2.1 p2=
refused "'' of node 'p2' is neither" 9 conf p1=192.0.2.1 p2=192.0.2.2,
refused "'P2' is no name of a node" 9 conf p1=192.0.2.1 P2=192.0.2.2
refused "node 'p1' is given twice" 9 conf p1=192.0.2.1 p1=192.0.2.2
refused "address '192.0.2.1' of node 'p2' is already given to node 'p1'" 9 conf p1=192.0.2.1 p2=192.0.2.1
refused "address '192.0.2.1' of node 'p1' is already given to node 'p1'" 9 conf p1=192.0.2.1,192.0.2.1 p2=192.0.2.2,192.0.2.3
refused "node 'p2' has 1 addresses, node 'p1' has 2" 9 conf p1=192.0.2.1,192.0.3.1 p2=192.0.2.2
refused "one is IPv4 and one is IPv6" 9 conf p1=192.0.2.1 p2=2001:db8::2
refused "more than 2 addresses" 9 conf p1=192.0.2.1,192.0.3.1,192.0.4.1 p2=192.0.2.2
refused "--rtt '251' is not a number from 0 to 250" 9 conf --rtt 251 p1=192.0.2.1 p2=192.0.2.2
refused "'a b' is no name of a cluster" 9 conf --name 'a b' p1=192.0.2.1 p2=192.0.2.2
words=()
for i in {1..17}; do words+=("p$i=192.0.2.$i"); done
refused "17 nodes; allowed: 2 to 16" 9 conf "${words[@]}"
refused "too long" 9 conf p1=192.0.2.1 "$(printf 'p%0100d' 1)=192.0.2.2"
