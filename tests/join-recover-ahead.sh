#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# A node that was away while the others went on is all that is left (C9), and its site's store has heard of
# commits that it has not: the store is not opened, explain says why, and an operator who takes it by force
# (R4) has all that was answered, in a tenure that the dead did not reach.
# timeout: 150
. "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/functions.sh"
. "$CRG_SRC_DIR/tests/cluster.sh"
unset CRGCTL_SOCKET
requires nbdcopy
cd "$tmp"
NODES="p1:rome p2:rome c1:milan w1"
SIZE=$((4 << 20))
LEASE_MS=2000
cluster_begin
wait_in_sync 30
kill_node p2

head -c $SIZE /dev/urandom >data
generation () { status_of '.crgs[0].iasps[0].generation'; }
for want in 2 3; do
  ctl p1 mirror suspend payroll >out || { cat out; fail "suspend"; }
  [ "$(generation)" = $want ] || fail "generation $(generation), not $want"
  [ $want = 3 ] || { ctl p1 mirror resume payroll >out || { cat out; fail "resume"; }; wait_in_sync 30; }
done
nbdcopy --flush data "$(export_uri)"
kill_node p1 c1 w1

start_node p2
wait_for 15 node_answers p2 || { show_logs; fail "p2 does not answer"; }
lost () { { ctl p2 status --json 2>/dev/null || :; } | jq -e '.crgs[0].state == "indoubt"' >jq.out; }
wait_for 20 lost || { ctl p2 status; fail "p2 does not see that the majority is lost"; }
ctl p2 recover payroll --without p1,c1,w1 --i-confirm-they-are-dead >out || { cat out; fail "recover"; }

explained () { ctl p2 explain payroll >explained 2>&1 || :; grep -qF "disk and record disagree (R6)" explained; }
wait_for 20 explained || { cat explained; fail "explain does not say why nothing is served"; }
grep -qF "as far as is known since the group was recovered" explained || { cat explained; fail "all is called well"; }
grep -qF -- "switchover" explained || { cat explained; fail "nor what can be done"; }
code=0
ctl p2 switchover payroll --to p2 >out 2>err || code=$?
[ $code = 8 ] || { cat out err; fail "exit $code, not 8, without --force"; }
grep -qF "does not agree with the recovered group" err || { cat err; fail "not told what it may cost"; }
ctl p2 switchover payroll --to p2 --force >out 2>err || { cat out err; show_logs; fail "p2 can't be forced"; }
wait_serving 40
[ "$(production_node)" = p2 ] || fail "p2 does not serve"
[ "$(status_of '.crgs[0].iasps[0].tenure')" -gt 1000000 ] || fail "the dead could have reached this tenure"
[ "$(status_of '.crgs[0].iasps[0].loss')" = 2 ] || fail "loss has not risen twice, by the recovery and by force"
nbdcopy "$(export_uri)" back
cmp data back || fail "what was answered is not there"
nbdcopy --flush data "$(export_uri)" || fail "it can't be written"
