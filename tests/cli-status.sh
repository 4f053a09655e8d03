#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# crgctl status and crgctl is: exit codes and words for CRGs in every condition, for absent fields,
# and for names that are not there.
. "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/functions.sh"
requires perl jq
unset CRGCTL_SOCKET
cd "$tmp"

status ()
{
  local want=$1 got=0
  shift
  "$CRGCTL" -s sock --timeout 5 "$@" >out 2>err </dev/null || got=$?
  [ "$got" = "$want" ] || { cat out err; fail "exit $got, not $want: $*"; }
}
shows () { local t; for t; do grep -qF -- "$t" out || { cat out; fail "not shown: $t"; }; done; }
hides () { local t; for t; do ! grep -qF -- "$t" out || { cat out; fail "shown: $t"; }; done; }

cat >healthy.json <<'EOF'
{"ok":true,"node":"p1","engine":{"type":"local","connected":true},
 "crgs":[{"name":"grp","state":"active","reason":"","epoch":3,"version":17,"majority":true,"wait":null,
  "lease":{"holder":"p1","left_ms":2400},
  "nodes":[
   {"name":"p1","id":1,"site":"rome","preferred_role":"primary","current_role":"primary","order":0,"votes":1,"present":true},
   {"name":"c1","id":2,"site":"milan","preferred_role":"backup","current_role":"backup","order":1,"votes":1,"present":true},
   {"name":"w1","id":3,"site":null,"preferred_role":"replicate","current_role":"replicate","order":2,"votes":1,"present":true}],
  "iasps":[{"name":"payroll","size":1073741824,"uri":"nbd+unix:///payroll?socket=/r/payroll.nbd","production_site":"rome",
    "production_node":"p1","tenure":1,"generation":1,"loss":0,"serving":true,"reason":"","held":false,"hold_reason":"",
    "copies":[{"site":"rome","host":"p1","role":"production","mirror":"-","data":"in-sync","reason":""},
     {"site":"milan","host":"c1","role":"mirror","mirror":"mirroring","data":"in-sync","progress":100,"reason":""}]}]}]}
EOF
"$CRG_SRC_DIR/tests/answerer" sock answer >answerer.log 2>&1 &
record_pid $!
wait_for 10 grep -qsx ready answerer.log

# answer FILTER: the daemon now says this of the healthy one
answer () { jq -c "$1" healthy.json >answer.new; mv answer.new answer; }

# --- healthy
answer .
status 0 status
shows 'node p1, engine local: connected' 'CRG grp: active, all copies in sync (epoch 3.17)' \
  'served by p1 at nbd+unix:///payroll?socket=/r/payroll.nbd' 'holds the lease (2.4 s left)' \
  'votes 3 of 3 present: majority' '1.0 GiB' 'milan      mirror     on c1         in-sync'
hides ABSENT DEGRADED waiting why HELD loss
status 0 status grp
hides 'node p1, engine'
for p in in-sync active serving production; do
  for n in grp payroll; do
    status 0 is $p $n
    [ ! -s out ] && [ ! -s err ] || fail "is $p $n is not silent"
  done
done
status 0 status --json
jq -e '.crgs[0].iasps[0].copies | length == 2' out >/dev/null
status 0 status grp --json
[ "$(jq -r .name out)" = grp ]
status 0 status --watch --count 2
[ "$(grep -c '^CRG grp' out)" = 2 ]

# --- a copy that is behind: degraded, 4
answer '.crgs[0].iasps[0].copies[1] += {data:"unusable",mirror:"resyncing",progress:43,rate_bytes_s:104857600,eta_s:80,yields:true,dirty_bytes:2254857830,reason:"first fill"}'
status 4 status grp
shows 'DEGRADED: 1 of 1 IASPs have a copy that is not in sync' \
  'unusable, resyncing 43 % at 100 MiB/s, 80 s to go, yielding to clients, 2.1 GiB behind: first fill'
status 4 status
status 4 status --json
status 2 is in-sync grp
status 2 is in-sync payroll
[ ! -s out ] && [ ! -s err ]
status 0 is serving payroll
status 0 is active grp

# --- not served: unavailable, 5, with what waits and for how long
answer '.crgs[0] += {state:"waiting",reason:"x",wait:{owner:"failover",reason:"p1 was production host and is not here",since_ms:12300}}
  | .crgs[0].iasps[0] += {serving:false,reason:"nobody hosts production"} | .crgs[0].nodes[0].present = false
  | .crgs[0].lease = {holder:null}'
status 5 status grp
shows 'waiting, UNAVAILABLE' 'waiting (failover) p1 was production host and is not here for 12 s' 'NOT SERVED' \
  'why   nobody hosts production' 'ABSENT' 'votes 2 of 3 present: majority'
status 2 is active grp
status 2 is serving grp
status 2 is production payroll
answer '.crgs[0].state = "indoubt" | .crgs[0].majority = false'
status 5 status
shows 'NO MAJORITY'
answer '.crgs[0].iasps[0].serving = false'
status 5 status
shows 'active, UNAVAILABLE: 1 of 1 IASPs are not served'
answer '.crgs[0].iasps[0] += {held:true,hold_reason:"the lease has ended",loss:2}'
status 0 status
shows 'I/O is HELD: the lease has ended' '2 times answered writes may have been lost'

# --- not started is no fault; the worst of several counts
answer '.crgs[0].state = "inactive" | .crgs[0].iasps[0].serving = false'
status 0 status
answer '.crgs += [.crgs[0] | .name = "other" | .iasps[0].name = "x" | .iasps[0].serving = false]'
status 5 status
status 0 status grp
status 5 status other
status 2 is serving x
answer '.crgs[0].iasps += [.crgs[0].iasps[0] | .name = "second" | .copies[1].data = "usable"]'
status 2 is in-sync grp
status 0 is in-sync payroll
status 2 is in-sync second

# --- production is elsewhere; a node in another role
answer '.node = "c1" | .crgs[0].nodes[1] += {preferred_role:"primary",marked_failed:true}'
status 0 is serving payroll
status 2 is production payroll
status 0 status
shows 'marked failed, prefers primary'
answer '.crgs[0].removed_failed = ["p9"]'
status 0 status
shows 'node  p9           removed while marked failed'

# --- an IASP goes before a CRG of the same name
answer '.crgs[0].name = "payroll" | .crgs[0].iasps += [.crgs[0].iasps[0] | .name = "second" | .serving = false]'
status 0 is serving payroll

# --- names that are not there: 10
answer .
status 10 status absent
grep -q "there is no CRG 'absent' on this node" err
status 10 is in-sync absent
answer '.crgs = []'
status 0 status
shows "no CRG; 'crgctl create FILE' makes one"
status 10 is active grp

# --- an answer of another release: fields are absent or of another type; nothing breaks
answer '{ok, crgs:[{name:"grp"}]}'
status 5 status
answer '{ok, crgs:[{name:"grp",state:"active",iasps:[{name:"payroll",serving:true}],nodes:[{}],wait:{}}]}'
status 4 status
answer '{ok, crgs:{a:1}}'
status 0 status
answer '{ok, crgs:[1,"x",{name:3,state:[],iasps:[[],{copies:[7,{}]}],nodes:[null]}]}'
status 5 status
answer '{ok, crgs:[{name:"grp",state:"active",iasps:[]}]}'
status 0 status grp
status 2 is serving grp
