#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Two machines share production's store, each with a cache of its own: what one has answered and not
# flushed isn't on the store for the other one.  When the first machine dies, the second must not serve
# what it finds there (S1, S2): the copy takes over, nothing answered is missing, loss stays 0.  The same
# with the dead machine marked as failed, which frees its store (S1 d), and after the copy's host has died
# with a second host behind it (F3, R5).
# timeout: 200
. "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/functions.sh"
. "$CRG_SRC_DIR/tests/cluster.sh"
requires_test_build
NODES="p1:rome p2:rome c1:milan c2:milan w1"
SIZE=$((32 << 20))
SUSPEND_MS=1000
TOKEN_MS=400
LEASE_MS=1500
FAULTS="cache 0"
for n in p1 p2 c1 c2 w1; do new_boot $n; done
cluster_begin
wait_in_sync 30
loss () { status_of '.crgs[0].iasps[0].loss'; }
round=0

begin () # few flushes, so that much is at stake
{
  log=$tmp/rec.$round.log
  start_recorder "$log" --blocks 256 --offset $((round << 20)) --flush-every 200 --fua 1
  round=$((round + 1))
  more_answers "$log" 400 20 >/dev/null
}
end () # WHAT
{
  more_answers "$log" 200 60 >/dev/null
  wait_in_sync 60
  stop_recorder "$log"
  [ "$(loss)" = 0 ] || { show_logs; fail "$1: loss was raised"; }
  cmp -n $SIZE "${STORE[rome]}" "${STORE[milan]}" || { show_logs; fail "$1: the copies differ"; }
  echo "$1: production at $(production_node)"
}

begin
kill_node p1
more_answers "$log" 200 60 >/dev/null
[ "$(production_site)" = milan ] || { show_logs; fail "the other machine of rome serves a store whose cache is gone"; }
new_boot p1
start_node p1
end "the production machine died"

begin
host=$(production_node)
kill_node "$host"
ctl w1 mark-failed "$host" --i-confirm-it-is-dead --crg payroll >>"$tmp/steps.log" 2>&1 || { cat "$tmp/steps.log"; fail "mark-failed"; }
new_boot "$host"
more_answers "$log" 200 60 >/dev/null
echo "with $host marked as failed production is at $(production_node)"
start_node "$host"
end "the production machine was marked as failed"

begin
site=milan
[ "$(production_site)" = rome ] || site=rome
host=$(host_of $site)
kill_node "$host"
new_boot "$host"
more_answers "$log" 200 60 >/dev/null
start_node "$host"
end "the copy's machine died"
same_copies
