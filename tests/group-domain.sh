#!/bin/bash
# corosync, 2 + 2 + 1 nodes: votes change, a node goes and comes, disks are lost, under the recorder
# SPDX-License-Identifier: BSD-3-Clause
# timeout: 240
. "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/lab.sh"
lab_enter "$0" "$@"
. "$CRG_SRC_DIR/tests/functions.sh"
requires_daemon
requires jq

crg_up
recorder_start 250

node_field () { crg_field $1 ".crgs[0].nodes[] | select(.name == \"$2\") | .$3"; }
node_has () { [ "$(node_field $1 $2 "$3")" = "$4" ]; }
change () { ctl 1 --timeout 90 node "$@" || { crg_logs; fail "crgctl node $*"; }; }

# --- C7: a vote changes in two steps, and the production host's crgd dies between them
ctl 4 --timeout 90 node set payroll n3 --votes 2 &
asked=$!
wait_for 10 node_has 4 n3 new_votes 2 || { crg_logs; fail "the first step is not taken"; }
[ "$(node_field 4 n3 votes)" = 1 ] || fail "both steps at once"
kill_hard "${lab_crgd[1]}"
crgd_start 1
wait "$asked" || :
wait_for 20 node_has 4 n3 votes 2 || { crg_logs; fail "the second step is not taken"; }
crg_wait 40 active 1 2 3 4 5
recorder_goes_on 20

# --- C6: the replicate and a backup come back with empty disks
for i in 5 2; do
  node_down $i
  rm -f "$tmp/n$i/state/payroll.state"
  node_up $i
  crg_wait 40 active 1 2 3 4 5
  [ -s "$tmp/n$i/state/payroll.state" ] || fail "n$i has no state"
done
recorder_goes_on 20

# --- n4 hosts nothing: it goes, and comes back as another member with another number
if [ "$(crg_mirror)" = 4 ]; then other=3; else other=4; fi
change remove payroll n$other
forgotten () { [ ! -e "$tmp/n$other/state/payroll.state" ]; }
wait_for 20 forgotten || { crg_logs; fail "n$other has not forgotten the CRG"; }
recorder_goes_on 20
change add payroll n$other --id 17 --site milan --address "$(lab_address $other)" \
  --store "$tmp/milan.store"
node_has 1 n$other votes 1 || { crg_logs; fail "n$other has no vote"; }
crg_wait 40 active 1 2 3 4 5

# --- between the steps the sites lose sight of each other: nothing is half done in the end
ctl 5 --timeout 90 node set payroll n5 --votes 3 &
asked=$!
wait_for 10 node_has 5 n5 new_votes 3 || { crg_logs; fail "the first step is not taken"; }
lab_cut "1 2" "3 4 5"
sleep 6
lab_heal "1 2" "3 4 5"
wait "$asked" || :
wait_for 40 node_has 5 n5 votes 3 || { crg_logs; fail "the second step is not taken"; }
crg_wait 40 active 1 2 3 4 5
recorder_goes_on 20
recorder_judge
