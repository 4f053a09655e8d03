#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Nodes come and go while a recorder writes (C7): one to a site that exists, one with a new site and
# so a new copy, a replicate that goes, a machine that takes another one's place; and a majority that
# is lost for good is recovered (C9).  No answer is lost, and at the end the copies are equal.
# timeout: 150
. "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/functions.sh"
. "$CRG_SRC_DIR/tests/cluster.sh"
unset CRGCTL_SOCKET
cd "$tmp"
NODES="p1:rome p2:rome c1:milan w1 c2:milan t1:turin"
LATER="c2 t1"
SIZE=$((4 << 20))
cluster_begin
wait_in_sync 30
start_recorder "$tmp/log"

status ()
{
  local want=$1 got=0
  shift
  "$@" >out 2>err </dev/null || got=$?
  [ "$got" = "$want" ] && return
  show_logs
  cat out err
  ! outcome_lost err || too_slow "exit $got, not $want: $*"
  fail "exit $got, not $want: $*"
}
says () { grep -qF -- "$1" err || { cat err; fail "stderr lacks: $1"; }; }
node_of () { status_of ".crgs[0].nodes[] | select(.name == \"$1\") | .$2"; }
n_nodes () { status_of '.crgs[0].nodes | length'; }

# --- what is refused changes nothing
status 9 ctl p1 node add payroll c2 --site milan --address 127.0.0.11 --store "${STORE[milan]}"
says "already given to node 'p1'"
status 9 ctl p1 node add payroll c2 --site milan --address 127.0.0.15 --store "${STORE[rome]}"
says "share the store"
truncate -s 8M "$tmp/empty"
status 7 ctl p1 node add payroll c2 --site milan --address 127.0.0.15 --store "$tmp/empty"
says "is not the store of site milan"
status 3 ctl p1 node add payroll absent --site milan --address 127.0.0.19 --store "${STORE[milan]}"
says "is crgd running there?"
status 7 ctl p1 node remove payroll p1
says "switch over first"
status 7 ctl p1 node remove payroll c1
says "--drop-copy"
status 10 ctl p1 node set payroll nobody --votes 2
status 9 ctl p1 node set payroll p2
[ "$(n_nodes)" = 4 ] || fail "a refused command has changed the domain"

# --- a second node for milan; it can take the copy
status 0 ctl w1 node add payroll c2 --site milan --address 127.0.0.15 --store "${STORE[milan]}"
[ "$(node_of c2 votes)" = 1 ] || { ctl p1 status; fail "c2 has no vote"; }
status 7 ctl p1 node add payroll c2 --site milan --address 127.0.0.15 --store "${STORE[milan]}"
more_answers "$tmp/log" 100 10
kill_node c1
wait_host () { [ "$(host_of milan)" = c2 ] && [ "$(copy_of milan mirror)" = mirroring ]; }
wait_for 30 wait_host || { show_logs; fail "c2 does not take the copy of milan"; }
wait_in_sync 30

# --- c1 is gone for good: its vote goes, it goes
status 0 ctl p1 mark-failed c1 --i-confirm-it-is-dead --crg payroll
status 0 ctl p1 node remove payroll c1
[ "$(n_nodes)" = 4 ] || fail "c1 is still there"
ctl w1 status >out && grep -q 'node  c1 .*removed while marked failed' out || { cat out; fail "status does not show that c1 was removed as failed"; }
ctl w1 explain payroll >out && grep -q 'Node c1 was removed while it was marked failed' out || { cat out; fail "explain does not say so either"; }

# --- a new site is a new copy
truncate -s "$(stat -c %s "${STORE[milan]}")" "$tmp/store.turin"
status 0 ctl p2 node add payroll t1 --site turin --address 127.0.0.16 --store "$tmp/store.turin"
wait_in_sync 30
STORE[turin]=$tmp/store.turin
[ "$(copy_of turin host)" = t1 ] || { ctl p1 status; fail "t1 does not host its copy"; }
more_answers "$tmp/log" 100 20

# --- c1 comes back with its old state, hears that it was removed, and forgets the CRG
start_node c1
forgotten () { [ ! -e "$tmp/c1/state/payroll.state" ]; }
wait_for 20 forgotten || { show_logs; fail "c1 has not forgotten the CRG"; }
# ... and takes the place of the replicate, which goes
status 0 ctl p1 node replace payroll w1 c1 --address 127.0.0.13
[ "$(node_of c1 preferred_role)" = replicate ] || { ctl p1 status; fail "c1 is no replicate"; }
wait_gone () { [ ! -e "$tmp/w1/state/payroll.state" ]; }
wait_for 20 wait_gone || fail "w1 has not forgotten the CRG"

# --- order, while the plugin of production waits to be started again: what is wanted of it is not forgotten
host=$(production_node)
mv "pki/$host/$host.key" key
failed_twice () { [ "$(grep -c "process .* exited with status 1" "$tmp/$host/crgd.log")" -ge 2 ]; }
kill -KILL "$(plugin_pid "$host")"
wait_for 10 failed_twice || fail "the plugin starts without its key"
status 0 ctl c1 node set payroll t1 --order 1
mv key "pki/$host/$host.key"
more_answers "$tmp/log" 100 20

# --- w1 comes again, to production's site: the copies that are open hear of it, so it can take production
status 0 ctl c1 node add payroll w1 --site rome --address 127.0.0.14 --store "${STORE[rome]}" --votes 2
[ "$(node_of w1 votes)" = 2 ] || { ctl p1 status; fail "w1 has not 2 votes"; }
copy=$(plugin_pid t1)
status 0 ctl c1 switchover payroll --to w1
more_answers "$tmp/log" 100 20
wait_in_sync 20
[ "$(plugin_pid t1)" = "$copy" ] || fail "the copy of turin was opened anew"
stop_recorder "$tmp/log"
same_copies
