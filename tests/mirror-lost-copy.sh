#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# A copy stopped with SIGSTOP, then one that is killed: the client's writes go on after
# suspend-timeout, the status says why and for how long; it comes back and is equal.
# timeout: 240
. "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/functions.sh"
. "$CRG_SRC_DIR/tests/cluster.sh"
NODES="p1:rome c1:milan w1"
cluster_begin
wait_in_sync 30
start_recorder "$tmp/rec.log"
more_answers "$tmp/rec.log" 500 20 >/dev/null

for how in STOP KILL; do
  pid=$(plugin_pid c1)
  [ -n "$pid" ] || fail "no plugin on c1"
  kill -$how "$pid"
  before=$(now_ms)
  # A killed copy host is started again by its crgd at once and need not be suspended for long.
  ms=$(more_answers "$tmp/rec.log" 2000 30)
  echo "$how: 2000 more answers after $ms ms"
  if [ $how = STOP ]; then
    [ "$ms" -ge $((SUSPEND_MS / 2)) ] || fail "writes went on without waiting for the copy"
    [ "$ms" -le $((SUSPEND_MS + 8000)) ] || too_slow "writes waited $ms ms, suspend-timeout is $SUSPEND_MS"
    [ "$(copy_of milan mirror)" = suspended ] || { show_logs; fail "status does not call the copy suspended"; }
    [ "$(copy_of milan data)" != in-sync ] || fail "status calls the copy in-sync"
    reason=$(copy_of milan reason)
    behind=$(copy_of milan behind_s)
    echo "reason: $reason; behind for $behind s"
    [ -n "$reason" ] && [ "$reason" != null ] || fail "status gives no reason"
    sleep 1.2
    [ "$(copy_of milan behind_s)" -ge 1 ] || fail "status does not say for how long"
    if ctl p1 is in-sync payroll; then fail "crgctl is in-sync says yes"; fi
    more_answers "$tmp/rec.log" 500 5 >/dev/null
    kill -CONT "$pid"
  fi
  wait_in_sync 60
  echo "$how: in sync again after $(($(now_ms) - before)) ms"
  more_answers "$tmp/rec.log" 500 10 >/dev/null
done
stop_recorder "$tmp/rec.log"
[ "$(recorded "$tmp/rec.log" reconnects)" = 0 ] || fail "the client lost a connection because a copy was lost"
[ "$(recorded "$tmp/rec.log" errors)" = 0 ] || fail "the client saw errors because a copy was lost"
same_copies
"$RECORDER" check --log "$tmp/rec.log" --image "${STORE[milan]}"
