#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# S2, R5: all machines restart (other boot ids).  The production store waits, and status names for
# whom; when every copy of the set is back it is served without an operator, loss has risen, and what
# was flushed is there.  A copy that isn't restarted takes over instead, and nothing is lost.
# timeout: 150
. "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/functions.sh"
. "$CRG_SRC_DIR/tests/cluster.sh"
requires nbdinfo qemu-io jq
requires_test_build
cd "$tmp"
NODES="p1:rome c1:milan w1"
SUSPEND_MS=500
cluster_begin
wait_in_sync 30

put () { qemu-io -f raw -c "write -P $1 0 1M" -c flush "$(export_uri)" >qemu.out; }
holds () { qemu-io -f raw -c "read -P $1 0 1M" "$(export_uri)" >qemu.out; ! grep -q failed qemu.out; }
loss () { status_of '.crgs[0].iasps[0].loss'; }
# boot NODE N: its machine comes up, in its boot N
boot () { NODE_BOOT[$1]=$(printf "%032x" "$2"); start_node "$1"; }

put 1
kill_node p1 c1
boot p1 101
waits () { { ctl w1 status payroll 2>&1 || :; } | grep -q '(S2): site milan, last at c1'; }
wait_for 30 waits || { show_logs; fail "status does not name whom the restarted store waits for"; }
[ "$(loss)" = 0 ] || fail "loss has risen while it waits"
boot c1 201
wait_serving 40
[ "$(production_node)" = p1 ] || fail "production is not at its named host"
[ "$(loss)" = 1 ] || { show_logs; fail "loss is $(loss), not 1"; }
holds 1 || fail "flushed data is gone"
wait_in_sync 30
put 2

# Production's machine alone restarts; the copy's has all.
kill_node p1
boot p1 102
at_c1 () { [ "$(production_node)" = c1 ] && is_serving; }
wait_for 40 at_c1 || { show_logs; fail "the copy that isn't restarted did not take over"; }
[ "$(loss)" = 1 ] || fail "loss has risen though nothing was lost"
holds 2 || fail "answered data is gone"
wait_in_sync 30
must "switchover to the copy that was filled again" ctl w1 switchover payroll --to p1
holds 2 || fail "the filled copy lacks data"

# The copy's machine doesn't come back: an operator hears what it costs not to wait for it, and accepts that.
kill_node p1 c1
boot p1 103
wait_for 30 waits || { show_logs; fail "status does not name whom the restarted store waits for"; }
rc=0; ctl w1 switchover payroll --to p1 >cost 2>&1 || rc=$?
[ $rc = 8 ] && grep -q 'whose machine restarted: what was answered and not flushed then is lost' cost ||
  { cat cost; fail "exit $rc, and it is not said what it costs"; }
must "accept it" ctl w1 switchover payroll --to p1 --force
wait_serving 20
holds 2 || fail "flushed data is gone"
[ "$(loss)" = 2 ] || fail "loss is $(loss), not 2"
boot c1 203
wait_in_sync 30
