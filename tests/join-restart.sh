#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# F7: a crgd that is killed and started again finds its plugin serving and its role its own: no
# failover, and no pause that a client would notice.  The same for the host of a mirror copy.
# timeout: 180
. "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/functions.sh"
. "$CRG_SRC_DIR/tests/cluster.sh"
cluster_begin
wait_in_sync 30
log=$tmp/rec.log
start_recorder "$log"
more_answers "$log" 500 20 >/dev/null

record_of () { status_of '.crgs[0].iasps[0] | "\(.tenure) \(.generation) \([.copies[].host])"'; }
before=$(record_of)

# restart NODE SIGNAL SECONDS: its crgd ends and is started after so long
restart ()
{
  local n=$1 plugin
  plugin=$(plugin_pid "$n")
  kill -"$2" "${NODE_PID[$n]}"
  wait "${NODE_PID[$n]}" 2>/dev/null || :
  NODE_PID[$n]=
  sleep "$3"
  is_running "$plugin" || fail "$n, $2: the plugin ended with its crgd"
  start_node "$n"
  wait_for 15 node_answers "$n" || fail "crgd of $n does not answer"
  wait_serving 15
  wait_in_sync 15
  more_answers "$log" 500 20 >/dev/null
  [ "$(plugin_pid "$n")" = "$plugin" ] || fail "$n, $2: the plugin was started again"
  [ "$(record_of)" = "$before" ] || { show_logs; fail "$n, $2: $before became $(record_of)"; }
}
restart p1 KILL 0
restart p1 KILL 1
restart c1 KILL 1
restart p1 TERM 0.5
restart c1 TERM 0.5
stop_recorder "$log"
[ "$(recorded "$log" errors)" = 0 ] || fail "the client saw an error"
pause=$(recorded "$log" longest_pause_ms)
echo "5 restarts, no failover; longest pause $pause ms"
[ "$pause" -lt 3000 ] || too_slow "a pause of $pause ms is as long as the lease"

# Who waits, for whom and for how long is said.
kill -KILL "${NODE_PID[p1]}"
wait "${NODE_PID[p1]}" 2>/dev/null || :
NODE_PID[p1]=
says_why () { status_of '.crgs[0].reason' | grep -q 'waits for p1, .*(F7, [0-9]* ms left)'; }
wait_for 3 says_why || { show_logs; fail "the status does not say that p1 is waited for"; }
another () { [ "$(production_node)" != p1 ] && is_serving; }
wait_for 15 another || { show_logs; fail "nobody takes the place of p1"; }
start_node p1
wait_for 15 node_answers p1 || fail "crgd of p1"
wait_in_sync 30
