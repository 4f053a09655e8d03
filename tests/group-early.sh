#!/bin/bash
# corosync, 2 + 2 + 1 nodes: at the moment of a cut a node joins, so that the other side has its view before the cut-off production host hears of anything; never two serve
# SPDX-License-Identifier: BSD-3-Clause
# timeout: 180
. "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/lab.sh"
lab_enter "$0" "$@"
. "$CRG_SRC_DIR/tests/functions.sh"
requires_daemon
requires jq perl

# seen I N: ms of the day at which node I's crgd first saw a view of N members since `mark`; 0: not yet
mark=(0 1 1 1 1 1)
seen ()
{
  tail -n +${mark[$1]} "$tmp/n$1/crgd.log" |
    perl -ne 'next unless /payroll: view [0-9a-f]+ with '$2' members/;
      /^\S+ +\d+ (\d+):(\d+):(\d+)\.(\d+) / or next; print ((($1 * 60 + $2) * 60 + $3) * 1000 + $4); $done = 1; last;
      END { print "0" unless $done }'
}
has_seen () { [ "$(seen $1 $2)" != 0 ]; }

crg_up
recorder_start 120
h=$(crg_host)
[ $h -le 2 ] || fail "production is on n$h"
node_down 5
wait_for 10 has_seen 3 4 || fail "n3 has no view of four"
sleep 1
recorder_goes_on 10 50

for i in 1 2 3 4; do mark[i]=$(($(wc -l <"$tmp/n$i/crgd.log") + 1)); done
node_up 5 &
up=$!
sleep 0.1 # its corosync comes up and is about to join
lab_cut "1 2" "3 4 5"
wait $up
wait_for 15 has_seen 3 3 || { crg_logs; fail "n3 has no view of three"; }
wait_for 15 has_seen $h 2 || { crg_logs; fail "n$h has not heard of the cut"; }
lead=$(($(seen $h 2) - $(seen 3 3)))
recorder_goes_on 30 50
[ "$(crg_host)" -ge 3 ] || { crg_logs; fail "production is still on n$(crg_host)"; }
echo "the other side knew $lead ms before the production host; answers from n$(crg_host)"

# node_up ran in a subshell: what it started isn't known here, and is not needed.
lab_heal "1 2" "3 4 5"
crg_wait 40 active 1 2 3 4 5
recorder_goes_on 10 50
recorder_judge
