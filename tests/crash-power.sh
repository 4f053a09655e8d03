#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Power.  All machines lose it at once, three times, with caches that lose, reorder and tear what was not
# flushed: the CRG comes back without an operator, every flushed write is there, loss says that answered
# ones may not be (S2 b), the copies are equal.  A copy whose machine restarts while production is open
# comes back as recovering (R5), and does not take over from a production that dies before it is filled.
# One store's metadata is in a file of its own, which loses its power with it, and has its own flushes.
# timeout: 240
. "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/functions.sh"
. "$CRG_SRC_DIR/tests/cluster.sh"
requires_test_build
RANDOM=${CRG_SEED:=1}
rounds=${CRG_ROUNDS:-3}
echo "CRG_SEED=$CRG_SEED CRG_ROUNDS=$rounds"
NODES="p1:rome c1:milan w1"
SIZE=$((32 << 20))
SUSPEND_MS=1000
TOKEN_MS=400
LEASE_MS=1500
FAULTS=cache
for n in p1 c1 w1; do new_boot $n; done
truncate -s $SIZE "$tmp/store.rome"
truncate -s 1M "$tmp/meta.rome"
cluster_begin
wait_in_sync 30
loss () { status_of '.crgs[0].iasps[0].loss'; }

for ((i = 0; i < rounds; i++)); do
  log=$tmp/rec.$i.log
  # Few flushes, so that much is at stake.
  start_recorder "$log" --blocks 256 --offset $((i << 20)) --flush-every 200 --fua 1
  more_answers "$log" $((300 + RANDOM % 300)) 20 >/dev/null
  before=$(loss)
  begun=$(now_ms)
  kill_node p1 c1 w1
  # Also of what earlier rounds wrote last.
  at=$("$RECORDER" now)
  for ((k = 0; k <= i; k++)); do "$RECORDER" loss --log "$tmp/rec.$k.log" --at "$at"; done
  # In the first round both lose all of it, later each something else.
  power_off $((i * (1 + RANDOM % 1000))) p1
  power_off $((i * (1 + RANDOM % 1000))) c1
  new_boot w1
  for n in c1 w1 p1; do start_node $n; done
  more_answers "$log" 200 60 >/dev/null
  echo "round $i: served again after $(($(now_ms) - begun)) ms"
  wait_in_sync 60
  [ "$(loss)" -eq $((before + 1)) ] || { show_logs; fail "loss went from $before to $(loss)"; }
  stop_recorder "$log"
  cmp -n $SIZE "${STORE[rome]}" "${STORE[milan]}" || fail "round $i: the copies differ"
done

# The copy's machine restarts; while it is filled production dies.
log=$tmp/rec.r5.log
host=$(production_node)
site=$(production_site)
copy=c1 other=milan
[ "$host" = p1 ] || copy=p1 other=rome
start_recorder "$log" --blocks 256 --offset $((20 << 20)) --flush-every 200 --fua 1
more_answers "$log" 300 20 >/dev/null
before=$(loss)
power_off 0 $copy
# Its store takes its time now, so that it is not filled before production dies.
store_faults $other cache "delay write 3000000"
start_node $copy
recovering () { [ "$(copy_of $other in_set)" = false ] && [ "$(copy_of $other host)" = $copy ]; }
wait_for 20 recovering || { show_logs; fail "a copy whose machine restarted is in the set"; }
# "recovering" as long as nobody has looked at its disk since it was opened; that says that it is being filled.
is_kept_out () { case $(copy_of $other data) in recovering | unusable) ;; *) return 1 ;; esac; }
wait_for 5 is_kept_out || { show_logs; fail "it is called $(copy_of $other data)"; }
more_answers "$log" 100 20 >/dev/null
filling () { case $(copy_of $other mirror) in resyncing | suspended | connecting) ;; *) return 1 ;; esac; }
wait_for 10 filling || { show_logs; fail "not being filled: $(copy_of $other mirror)"; }
echo "the restarted copy is $(copy_of $other data), $(copy_of $other mirror)"
kill_node "$host"
# Long enough for a takeover: it must not happen.
sleep 5
[ "$(production_site)" != $other ] || { show_logs; fail "a copy that was not filled took over"; }
! is_serving || fail "served, with production dead and the copy not filled"
store_faults $other cache
start_node "$host"
more_answers "$log" 200 60 >/dev/null
[ "$(production_node)" = "$host" ] || fail "production is at $(production_node)"
wait_in_sync 60
[ "$(loss)" = "$before" ] || fail "loss was raised, though production kept its machine"
stop_recorder "$log"
same_copies
for ((i = 0; i < rounds; i++)); do
  "$RECORDER" check --log "$tmp/rec.$i.log" --image "${STORE[milan]}" >/dev/null || fail "round $i: the image"
done
