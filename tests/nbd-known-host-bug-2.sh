#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Known host bug 2: a client that hangs up with requests in flight can abort the server.  The process
# may die; started again it serves everything that was ever answered.
# timeout: 120
. "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/functions.sh"
requires_plugin

truncate -s 64M "$tmp/store"
supervise () # a supervisor in one line
{
  while [ ! -e "$tmp/enough" ]; do
    rm -f "$tmp/sock"
    echo start >>"$tmp/starts"
    "$CRG_NBDKIT" -f -t 64 -U "$tmp/sock" "$PLUGIN" name=payroll store="$tmp/store" role=production \
      >>"$tmp/log" 2>&1 &
    echo $! >"$tmp/pid"
    wait $! || :
  done
}
set -m
supervise 2>/dev/null &
supervisor=$!
set +m
stop_all () { touch "$tmp/enough"; kill -KILL "$(cat "$tmp/pid")" 2>/dev/null || :; wait $supervisor 2>/dev/null || :; }
cleanup_fn stop_all
wait_for 10 test -S "$tmp/sock" || fail "no socket"
U=$(uri "$tmp/sock")
write_block () { "$CRG_BUILD_DIR/tests/hostbug" write "$U" "$1" 2>/dev/null; }
check_block () { "$CRG_BUILD_DIR/tests/hostbug" check "$U" "$1"; }
for ((i = 0; i < 60; i++)); do
  "$CRG_BUILD_DIR/tests/hostbug" hangup "$U" 2>/dev/null || :
  wait_for 10 write_block $i || fail "block $i can't be written: no server came back"
done
# Once more by hand, so that the restart is seen even if the host had no accident.
kill -KILL "$(cat "$tmp/pid")"
wait_for 10 write_block 60 || fail "not started again"
for ((i = 0; i <= 60; i++)); do
  check_block $i || fail "block $i"
done
[ "$(wc -l <"$tmp/starts")" -ge 2 ] || fail "the supervisor was not needed"
