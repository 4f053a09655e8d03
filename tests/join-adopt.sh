#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# S3: a plugin outlives its crgd, and the next crgd takes it over: clients stay connected, nothing is
# copied again.  A plugin that no CRG of the node claims is ended.
# timeout: 180
. "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/functions.sh"
. "$CRG_SRC_DIR/tests/cluster.sh"
cluster_begin
wait_in_sync 30
log=$tmp/rec.log
start_recorder "$log"
more_answers "$log" 500 20 >/dev/null

kill_crgds ()
{
  local n
  for n; do kill -KILL "${NODE_PID[$n]}"; done
  for n; do
    wait "${NODE_PID[$n]}" 2>/dev/null || :
    NODE_PID[$n]=
  done
}

# All crgds die; the plugins live, hold I/O when the lease is over, and go on.
production=$(plugin_pid p1)
copy=$(plugin_pid c1)
[ -n "$production" ] && [ -n "$copy" ] || fail "no plugins"
kill_crgds "${NODE_NAMES[@]}"
sleep 4
is_running "$production" && is_running "$copy" || fail "a plugin died with its crgd"
n=$("$RECORDER" wait --log "$log" --more 1 --timeout 1000 2>/dev/null) && fail "writes are answered without a lease"
# One of them died in the middle of a switchover: from the hold on only the group lets it go on (F6).
echo '{"v":1,"id":1,"cmd":"hold","reason":"switchover","wait_ms":1}' |
  "$CRG_BUILD_DIR/tests/ctl" "$tmp/p1/run/payroll.ctl" >"$tmp/hold.out" || :
for n in "${NODE_NAMES[@]}"; do start_node "$n"; done
wait_serving 30
more_answers "$log" 500 30 >/dev/null
[ "$(plugin_pid p1)" = "$production" ] || fail "production was started again"
[ "$(plugin_pid c1)" = "$copy" ] || fail "the copy was started again"
grep -q "adopted process $production" "$tmp/p1/crgd.log" || fail "not adopted"
wait_in_sync 30
[ "$(status_of '.crgs[0].iasps[0].tenure')" = 1 ] || fail "the tenure rose"
[ "$(status_of '.crgs[0].iasps[0].generation')" = 1 ] || fail "the generation rose"
kill -TERM "$RECORDER_PID"
wait "$RECORDER_PID" || { cat "$log.err"; fail "the recorder"; }
[ "$(recorded "$log" errors)" = 0 ] || fail "the client saw an error"
"$RECORDER" check --log "$log" --uri-command "bash $tmp/where" || fail "the recorded history has a fault"
echo "adopted both; longest pause $(recorded "$log" longest_pause_ms) ms"

# A stray: its CRG's state is gone from the node.
kill_crgds c1
mv "$tmp/c1/state/payroll.state" "$tmp/c1/payroll.gone"
start_node c1
wait_for 15 not_running "$copy" || fail "a plugin that no CRG claims goes on"
grep -q "ending process $copy" "$tmp/c1/crgd.log" || fail "the log does not say so"

# A process that only has the number is left alone.
kill_crgds w1
sleep 100 &
stranger=$!
record_pid $stranger
echo $stranger >"$tmp/w1/run/payroll.pid"
start_node w1
wait_for 15 node_answers w1 || fail "crgd of w1"
is_running $stranger || fail "crgd ended a process that is not nbdkit"
