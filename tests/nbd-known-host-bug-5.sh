#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Known host bug 5: one worker thread for each request in flight, 16 a connection by default: 16 stuck
# writes block that connection's reads.  With -t 64, as crgd runs it, they don't; and each wait
# is bounded and seen in the status.
. "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/functions.sh"
. "$CRG_SRC_DIR/tests/pair-functions.sh"
requires openssl
requires_plugin
cd "$tmp"

mirror_pair suspend-timeout-ms=4000
kill -STOP "$PID_n1"
: >out
"$CRG_BUILD_DIR/tests/hostbug" stuck "$(uri "$tmp/n0/nbd")" 16 2000 >out 2>err &
client=$!
record_pid $client
wait_for 3 grep -q "read answered" out || fail "-t 64 does not help: $(cat err)"
waits_seen () { status n0; [[ $ANSWER == *'"requests":16'* ]]; }
wait_for 1 waits_seen || fail "the status does not show 16 waiting requests: $ANSWER"
left_set () { ! in_set n0; }
wait_for 8 left_set || fail "the wait has no bound"
wait $client || fail "the stuck writes did not end well: $(cat err)"
