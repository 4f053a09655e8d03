#!/bin/bash
# corosync, 2 + 2 + 1 nodes: cuts between sites, of one node, in one direction, and all nodes killed at once, under the recorder; nothing answered is lost, never two serve
# SPDX-License-Identifier: BSD-3-Clause
# timeout: 420
. "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/lab.sh"
lab_enter "$0" "$@"
. "$CRG_SRC_DIR/tests/functions.sh"
requires_daemon
requires jq

crg_up "suspend-timeout-ms = 4000"
recorder_start 250

fault ()
{
  sleep $2
  recorder_goes_on 60
  echo "$1: n$h -> n$(crg_host), answers after $2 s and $PAUSE ms"
}
# answers_since LINE: how many of the history's answers came after it
answers_since () { tail -n +$(($1 + 1)) "$tmp/history" | grep -c '^[WRF] .* ok' || :; }
all_well () { crg_wait 40 active 1 2 3 4 5; h=$(crg_host); }
all_well
[ "$(answers_since 0)" -gt 50 ] || too_slow "answers aren't counted, or there are next to none"

lab_cut "1 2" "3 4 5"
fault "site rome alone" 6
[ "$(crg_host)" -ge 3 ] || fail "production is still in rome"
lab_heal "1 2" "3 4 5"
all_well

# The other side of a cut keeps production, once its copy has left the set.
if [ $h -le 2 ]; then mine="1 2" other="3 4"; else mine="3 4" other="1 2"; fi
lab_cut "$mine 5" "$other"
fault "the mirror site alone" 8
[[ " $mine " == *" $(crg_host) "* ]] || fail "production has moved without need"
lab_heal "$mine 5" "$other"
all_well

others=$(echo 1 2 3 4 5 | tr -d $h)
lab_cut $h "$others"
fault "the production host alone" 6
lab_heal $h "$others"
all_well

# No majority anywhere: nobody serves, everybody waits, and then goes on.
lab_cut "1 2" "3 4"
lab_cut "1 2 3 4" "5"
sleep 5
for i in 1 2 3 4; do
  [ "$(crg_field $i '.crgs[0].majority')" = false ] || fail "node $i claims a majority"
done
before=$(wc -l <"$tmp/history")
sleep 2
acks=$(answers_since $before)
[ "$acks" = 0 ] || fail "$acks answers without a majority"
lab_heal "1 2 3 4" "5"
lab_heal "1 2" "3 4"
fault "no majority anywhere" 3
all_well

if [ $h -le 2 ]; then o=3; else o=1; fi
lab_cut_way $h $o
fault "one direction between two hosts" 7
lab_heal_way $h $o
all_well

# All at once, and again.
node_down 1 2 3 4 5
sleep 1
node_up 3 5
sleep 2
node_up 1 4 2
fault "all nodes killed at once" 5
all_well

# One node, which may be stale, alone: it hosts nothing.
node_down 1 2 3 4 5
node_up 1
sleep 6 # more than the start-wait
[ "$(crg_field 1 '.crgs[0].majority')" = false ] || fail "node 1 alone claims a majority"
[ -z "$(plugin_pid 1)" ] || fail "node 1 alone hosts something"
before=$(wc -l <"$tmp/history")
sleep 1
acks=$(answers_since $before)
[ "$acks" = 0 ] || fail "$acks answers from one node alone"
node_up 2 3 4 5
all_well
recorder_goes_on 20

recorder_judge
