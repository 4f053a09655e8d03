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

# All machines restart.  The host of before says so on its store (S1 b), and dies; so its neighbour can open it, and
# as the other site's host says the same of its own, it is served without an operator (S2 b).
wait_in_sync 60
site=$(production_site)
first=$(production_node)
case $first in p1) next=p2 ;; p2) next=p1 ;; c1) next=c2 ;; c2) next=c1 ;; esac
[ "$site" = rome ] && other=milan || other=rome
host=$(host_of $other)
case $host in p1) idle=p2 ;; p2) idle=p1 ;; c1) idle=c2 ;; c2) idle=c1 ;; esac
kill_node p1 p2 c1 c2
for n in p1 p2 c1 c2; do new_boot $n; done
start_node $first
start_node "$idle" # the third of five: a majority, which can't tell of the other copy
said () { "$CRGCTL" iasp dump "${STORE[$site]}" | grep -Eq "^  open_boot_id +0{32}$"; }
wait_for 30 said || { show_logs; fail "$first doesn't say on its store that it restarted"; }
kill_node $first
start_node $next
start_node "$host"
wait_serving 40
[ "$(production_node)" = $next ] || { show_logs; fail "production is at $(production_node), not at $next"; }
[ "$(loss)" = 1 ] || fail "loss is $(loss), not 1"
wait_in_sync 60
same_copies
