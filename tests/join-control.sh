#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# The control connection of production breaks, neither end dies, and a copy is lost meanwhile: on the next
# connection the same crgd hears of it (R2), and I/O goes on.
. "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/functions.sh"
. "$CRG_SRC_DIR/tests/cluster.sh"
TOKEN_MS=9000
LEASE_MS=15000
SUSPEND_MS=1000
cluster_begin
wait_in_sync 30
log=$tmp/rec.log
start_recorder "$log"
more_answers "$log" 200 20 >/dev/null

# ctl takes the connection while crgd stands still, so it is not there when the plugin says that the copy is lost.
ask () { echo '{"v":1,"id":1,"cmd":"status"}' | "$CRG_BUILD_DIR/tests/ctl" "$tmp/p1/run/payroll.ctl" >"$tmp/status.out" 2>&1; }
lost () { ask; grep -q '"state":"lost"\|copy-lost' "$tmp/status.out"; }
copy=$(plugin_pid c1)
kill -STOP "${NODE_PID[p1]}"
kill -STOP "$copy"
wait_for 7 lost || { cat "$tmp/status.out"; fail "production does not miss the copy"; }
kill -CONT "${NODE_PID[p1]}"
suspended () { [ "$(copy_of "${NODE_SITE[c1]}" in_set)" = false ]; }
wait_for 8 suspended || { show_logs; fail "the group was not told that the copy is lost"; }
more_answers "$log" 200 10 >/dev/null
[ "$(status_of '.crgs[0].iasps[0].tenure')" = 1 ] || fail "the tenure rose"
kill -CONT "$copy"
wait_in_sync 30
stop_recorder "$log"
