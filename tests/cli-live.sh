#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# crgctl against a whole cluster: create, start, status, uri, is, switchover, end and delete do what
# the manual says, with the exit codes that it says, from every node.
# timeout: 120
. "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/functions.sh"
. "$CRG_SRC_DIR/tests/cluster.sh"
requires nbdinfo nbdcopy jq
unset CRGCTL_SOCKET
cd "$tmp"
NODES="p1:rome p2:rome c1:milan w1"
EXPORT=tcp::auto
cluster_begin

status ()
{
  local want=$1 got=0
  shift
  "$@" >out 2>err </dev/null || got=$?
  [ "$got" = "$want" ] || { cat out err; show_logs; fail "exit $got, not $want: $*"; }
}
says () { grep -qF -- "$1" err || { cat err; fail "stderr lacks: $1"; }; }
shows () { grep -qE -- "$1" out || { cat out; fail "not shown: $1"; }; }

# --- the same answer from every node; a URI that a client can use, with its certificate only
status 0 ctl p1 start payroll --wait 20
wait_in_sync 30
same_uri ()
{
  local n u first
  first=$(ctl p1 uri payroll) || return 1
  for n in p2 c1 w1; do u=$(ctl "$n" uri payroll 2>/dev/null) && [ "$u" = "$first" ] || return 1; done
}
wait_for 10 same_uri || fail "the nodes give different URIs"
uri=$(ctl w1 uri payroll)
[[ $uri == nbds://127.0.0.11:*/payroll ]] || fail "an odd URI: $uri"
[ "$(nbdinfo --size "$uri?tls-certificates=$CLIENT_TLS")" = "$SIZE" ]
expect_fail nbdinfo --size "$uri" 2>/dev/null
expect_fail nbdinfo --size "${uri/nbds:/nbd:}" 2>/dev/null
status 10 ctl p1 uri absent

# --- predicates: production is where it is asked
for p in in-sync active serving; do
  for n in p1 w1; do
    status 0 ctl $n is $p payroll
    [ ! -s out ] && [ ! -s err ] || fail "is $p is not silent"
  done
done
status 0 ctl p1 is production payroll
status 2 ctl p2 is production payroll
status 2 ctl w1 is production payroll

# --- status for people and for programs
# What another node says of its copies is up to a second old.
mirrors () { ctl w1 status payroll | grep -Eq 'copy  milan +mirror +on c1 +in-sync$'; }
wait_for 10 mirrors || { ctl w1 status; fail "w1 does not show the mirror"; }
status 0 ctl w1 status payroll
shows 'CRG payroll: active, all copies in sync'
shows 'node  p1 +rome +primary +present, holds the lease'
status 0 ctl p1 status --json
jq -e '.crgs[0].iasps[0] | .serving and .production_node == "p1" and (.copies | length) == 2' out >/dev/null
status 0 ctl p1 trace payroll
shows 'MIRROR-START of payroll'
"$CRGCTL" -s "$tmp/p1/run/crgd.sock" complete is in-sync | grep -qx payroll

# --- switchover: what would be, what can't be, what is
status 0 ctl p1 switchover payroll --dry-run --to c1
shows 'would move to c1'
status 0 ctl p1 is production payroll
status 7 ctl p1 switchover payroll --to w1
says 'CRG payroll: switchover to w1: it is a replicate'
status 7 ctl p1 switchover payroll --to p1
status 10 ctl p1 switchover payroll --to absent
head -c 1M /dev/urandom >data
nbdcopy data "$uri?tls-certificates=$CLIENT_TLS"
status 0 ctl w1 switchover payroll --to c1
wait_for 20 ctl c1 is production payroll || { show_logs; fail "c1 is not production"; }
status 2 ctl p1 is production payroll
there () { [[ $(ctl p1 uri payroll 2>/dev/null) == nbds://127.0.0.13:*/payroll ]]; }
wait_for 10 there || fail "p1 does not know the new URI"
uri=$(ctl p1 uri payroll)
nbdcopy "$uri?tls-certificates=$CLIENT_TLS" back
cmp -n 1048576 data back || fail "data was lost"

# --- a daemon that dies: 6 from its socket, and its neighbours know
kill_node w1
status 6 ctl w1 status
absent () { ctl p1 status payroll 2>&1 | grep -q 'node  w1 .*ABSENT'; }
wait_for 15 absent || { ctl p1 status; fail "w1 is not shown as absent"; }
start_node w1
wait_for 15 node_answers w1 || fail "w1 is not back"

# --- end and delete
wait_in_sync 30
status 7 ctl p1 delete payroll --yes
status 0 ctl p1 end payroll
ended () { ctl p1 status payroll >out && ! ctl p1 is active payroll && ! ctl p1 is serving payroll; }
wait_for 15 ended || { show_logs; fail "not ended"; }
status 5 ctl p1 uri payroll
cmp -n "$SIZE" store.rome store.milan || fail "the copies differ"
status 0 ctl p1 start payroll --wait 30
has_plugin () { copy=$(plugin_pid c1) && [ -n "$copy" ]; }
wait_for 15 has_plugin || { show_logs; fail "c1 does not start its plugin"; }
kill -STOP "$copy"
status 0 ctl p1 end payroll
wait_for 15 ended || { show_logs; fail "not ended again"; }
# w1 is away meanwhile, and the others restart before it is back.
kill_node w1
wait_for 15 absent || fail "w1 is not shown as absent"
deleted ()
{
  local n
  status 0 ctl c1 delete payroll --yes
  status 10 ctl c1 status payroll
  for n in p1 p2 c1; do wait_for 10 knows_no "$n" || { ctl "$n" status; fail "$n still has it"; }; done
}
knows_no () { [ "$(ctl "$1" status --json | jq '.crgs | length')" = 0 ]; }
back () # w1 with the CRG, among others that have only their memory of it
{
  local n
  for n in p1 p2 c1; do
    stop_pid "${NODE_PID[$n]}"
    [ -z "$1" ] || sed -i "$1" "$n/state/deleted"
    start_node "$n"
    wait_for 15 node_answers "$n" || fail "crgd of $n"
  done
  [ -e w1/state/payroll.state ] || fail "w1 has no state of it any more"
  start_node w1
  for n in w1 p1 p2 c1; do
    wait_for 15 knows_no "$n" || { show_logs; fail "$n has a CRG that is deleted"; }
  done
  [ ! -e w1/state/payroll.state ] || fail "w1 keeps its state"
}
deleted
wait_for 15 not_running "$copy" || fail "a plugin is left that does not end by itself"
back ''
grep -q 'missed that the CRG was deleted' w1/crgd.log || { show_logs; fail "w1 was not told"; }
grep -qs ' deleted$' w1/state/deleted || fail "w1 does not remember it"

# --- a creation that failed, when w1 missed that
status 0 ctl p1 create payroll.conf --force
kill_node w1
wait_for 15 absent || fail "w1 is not shown as absent"
deleted
back 's/deleted$/failed/'
grep -q 'creating it failed elsewhere' w1/crgd.log || { show_logs; fail "w1 was not told of the creation"; }
