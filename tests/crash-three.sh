#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Three copies, and production dies between its sends: one survivor has writes that the other one never
# saw (it stood still, and its process dies too, with what was in its socket).  Whichever takes over, the
# two find their difference from what they know themselves, and all three are equal in the end.
# timeout: 200
. "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/functions.sh"
. "$CRG_SRC_DIR/tests/cluster.sh"
requires_test_build
NODES="p1:rome c1:milan d1:turin w1 w2"
SIZE=$((32 << 20))
SUSPEND_MS=5000
TOKEN_MS=400
LEASE_MS=1500
FAULTS=cache
for n in p1 c1 d1 w1 w2; do new_boot $n; done
cluster_begin
wait_in_sync 40

round=0
one_round () # WHO STANDS STILL, WHO TAKES OVER
{
  local host ahead behind=$1 next=$2 n try log=$tmp/rec.$round.log
  host=$(production_node)
  for n in p1 c1 d1; do
    if [ "$n" != "$host" ] && [ "$n" != "$behind" ]; then ahead=$n; fi
  done
  start_recorder "$log" --blocks 256 --offset $((round << 20)) --reads 0
  more_answers "$log" 300 20 >/dev/null
  # All that is in flight now is held, and on two stores of three; if that is nothing but flushes, again.
  for try in {1..10}; do
    kill -STOP "$(plugin_pid "$behind")"
    sleep 0.4
    cmp -s -n $SIZE "${STORE[${NODE_SITE[$ahead]}]}" "${STORE[${NODE_SITE[$behind]}]}" || break
    [ "$try" -lt 10 ] || fail "nothing differs between $ahead and $behind, so this shows nothing"
    kill -CONT "$(plugin_pid "$behind")"
    more_answers "$log" 20 20 >/dev/null
  done
  kill_node "$host"
  kill -KILL "$(plugin_pid "$behind")"
  [ "$next" = ahead ] || kill_node "$ahead"
  more_answers "$log" 200 60 >/dev/null
  echo "round $round: $host died, $behind was behind $ahead; production is at $(production_node)"
  [ "$(production_node)" = "${!next}" ] || fail "production is not at ${!next}"
  [ "$next" = ahead ] || start_node "$ahead"
  survivors () { [ "$(copy_of "${NODE_SITE[$ahead]}" in_set)" = true ] && [ "$(copy_of "${NODE_SITE[$behind]}" in_set)" = true ]; }
  wait_for 60 survivors || { show_logs; fail "the survivors are not both in the set"; }
  start_node "$host"
  wait_in_sync 60
  more_answers "$log" 100 20 >/dev/null
  stop_recorder "$log"
  # A copy whose process died while production moved once gave up for 10 s.
  [ "$(recorded "$log" longest_pause_ms)" -le 8000 ] || too_slow "a pause of $(recorded "$log" longest_pause_ms) ms"
  [ "$(status_of '.crgs[0].iasps[0].loss')" = 0 ] || fail "loss was raised"
  for n in milan turin; do
    cmp -n $SIZE "${STORE[rome]}" "${STORE[$n]}" || { show_logs; fail "round $round: rome and $n differ"; }
  done
  round=$((round + 1))
}
one_round d1 ahead
# What it has is newer, was never answered, and has to go.
one_round d1 behind
same_copies
