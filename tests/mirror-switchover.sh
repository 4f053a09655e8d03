#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Switchover under the recorder, to the other site, inside a site, to a node whose neighbour hosts the
# copy: no write is lost, nothing is resynchronised, and the pause is short.
# timeout: 240
. "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/functions.sh"
. "$CRG_SRC_DIR/tests/cluster.sh"
cluster_begin
wait_in_sync 30
log=$tmp/rec.log
start_recorder "$log"
more_answers "$log" 500 20 >/dev/null

ctl p1 switchover payroll --to c1 --dry-run
[ "$(production_node)" = p1 ] || fail "--dry-run did it"
generation=$(status_of '.crgs[0].iasps[0].generation')
for to in c1 p1 p2 c2 p1; do # the last two: their neighbours host the copies
  t=$(now_ms)
  must "switchover to $to" ctl w1 switchover payroll --to $to --wait 30
  [ "$(production_node)" = $to ] || fail "production is not at $to"
  more_answers "$log" 500 20 >/dev/null
  echo "to $to: $(($(now_ms) - t)) ms until 500 more answers"
  wait_in_sync 30
done
stop_recorder "$log"
echo "longest pause: $(recorded "$log" longest_pause_ms) ms"
[ "$(recorded "$log" longest_pause_ms)" -lt 5000 ] || too_slow "a pause of 5 s or more"
[ "$(status_of '.crgs[0].iasps[0].generation')" = "$generation" ] ||
  { show_logs; fail "a copy left the set: something had to be resynchronised"; }
expect_fail ctl p1 switchover payroll --to absent
expect_fail ctl p1 switchover payroll --to w1
same_copies
