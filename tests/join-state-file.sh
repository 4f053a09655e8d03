#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# C6: a node whose state file is damaged or gone has no vote until a majority has told it the state;
# then it has its state again.  One that can't write it keeps out of the group for so long.  A second crgd or hub of one place is refused.
# timeout: 180
. "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/functions.sh"
. "$CRG_SRC_DIR/tests/cluster.sh"
cluster_begin
wait_in_sync 30

# One crgd for a state directory, one hub for a socket.
status=0
"$CRGD" -c "$tmp/p2/crgd.conf" >"$tmp/second.log" 2>&1 || status=$?
[ $status = 3 ] || fail "a second crgd ends with $status, not 3"
grep -q "another crgd runs with this state directory" "$tmp/second.log" || fail "and does not say why"
expect_fail "$CRGD" --local-hub "$tmp/hub.sock" 2>"$tmp/hub2.log"
grep -q "another hub serves this socket" "$tmp/hub2.log" || fail "a second hub does not say why it ends"

has_state () { [ "$(ctl "$1" status --json | jq -r '.crgs[0].has_state')" = true ]; }

# again NODE WHAT: restart it after its file was spoilt
again ()
{
  local n=$1
  start_node "$n"
  wait_for 20 node_answers "$n" || fail "crgd of $n"
  wait_for 20 has_state "$n" || { show_logs; fail "$n was not told the state after: $2"; }
  [ -s "$tmp/$n/state/payroll.state" ] || fail "$n has no state file after: $2"
  is_serving || fail "not served after: $2"
}
stop_node ()
{
  stop_pid "${NODE_PID[$1]}"
  NODE_PID[$1]=
}

# c2's state directory is gone: it keeps out of the group and says why, until it is back.
mv "$tmp/c2/state" "$tmp/c2/away"
must "node set" ctl p1 node set payroll c2 --order 2
of () { { ctl "$1" status --json || :; } | jq -r ".crgs[0].$2"; }
says_why () { of c2 reason | grep -q "keeps out of the group, and tries again soon: can't write the group state"; }
wait_for 10 says_why || { ctl c2 status; fail "c2 does not say that it keeps out of the group"; }

stop_node p2
size=$(stat -c %s "$tmp/p2/state/payroll.state")
printf '\377' | dd of="$tmp/p2/state/payroll.state" bs=1 seek=$((size / 2)) conv=notrunc status=none
again p2 "a damaged byte"
grep -q "it is damaged" "$tmp/p2/crgd.log" || fail "the log does not name the damage"

says_why || { ctl c2 status; fail "c2 keeps out of the group no more, or does not say why"; }
mv "$tmp/c2/away" "$tmp/c2/state"
is_back () { [ "$(of c2 majority)" = true ] && [ "$(of c2 epoch)" = "$(of p1 epoch)" ]; }
wait_for 10 is_back || { ctl c2 status; fail "c2 has not come back"; }

stop_node c2
rm "$tmp/c2/state/payroll.state"
again c2 "a lost file"
grep -q "has no state of it; joining without a vote" "$tmp/c2/crgd.log" || fail "the log does not tell of it"

# c2 can't queue what its core has decided to send, which would wait for it for ever: it leaves, and joins anew.
if grep -q '^#define CRG_TEST 1' "$CRG_BUILD_DIR/config.h"; then
  stop_node c2
  CRG_QUEUE_FULL=$tmp/full start_node c2
  wait_for 20 is_back || { ctl c2 status; fail "c2 has not come back after its restart"; }
  touch "$tmp/full"
  says_full () { of c2 reason | grep -q "keeps out of the group, and tries again soon: a message can't be sent: No buffer"; }
  wait_for 10 says_full || { ctl c2 status; fail "c2 stays in the group without its messages"; }
  rm "$tmp/full"
  wait_for 10 is_back || { ctl c2 status; fail "c2 has not come back when it could send again"; }
fi

# Two of five without a state can't make a majority with the third: C6 counts no vote of theirs.
for n in p1 p2 c1 c2 w1; do stop_node $n; done
for n in p1 p2 c1; do rm "$tmp/$n/state/payroll.state"; done
for n in p1 p2 c1 c2 w1; do start_node $n; done
for n in p1 p2 c1 c2 w1; do wait_for 20 node_answers $n || fail "crgd of $n"; done
sleep 4
is_serving && fail "two votes of five serve"
[ "$(ctl c2 status --json | jq -r '.crgs[0].majority')" = false ] || fail "two votes of five are called a majority"
echo "no majority: $(ctl c2 status --json | jq -r '.crgs[0].reason')" || :
