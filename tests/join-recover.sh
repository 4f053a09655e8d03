#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# A majority that is lost for good (C9): with three of five nodes dead nothing is served; one of the
# two that live goes on under a new lineage with the data that was answered, the other joins as an
# empty node and gets its vote back; a dead one that returns after all gives its state up, and its
# store stays as it was: a fork (R6).  A client that follows is told by EIO (Y6), though tenure and loss
# are as if only unflushed writes were gone, and it has none.
# timeout: 150
. "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/functions.sh"
. "$CRG_SRC_DIR/tests/cluster.sh"
. "$CRG_SRC_DIR/tests/client-functions.sh"
unset CRGCTL_SOCKET
cd "$tmp"
# said_by NODE JQ: also while the CRG is not well
said_by () { { ctl "$1" status --json 2>/dev/null || :; } | jq -r "$2"; }
SIZE=$((4 << 20))
LEASE_MS=2000
cluster_begin
wait_in_sync 30
requires nbdcopy
head -c $SIZE /dev/urandom >data
start_proxy a iasp=payroll nodes="unix:$tmp/p1/run/crgd.sock,unix:$tmp/c1/run/crgd.sock"
nbdcopy --flush data "$(proxy_uri a)"

status ()
{
  local want=$1 got=0
  shift
  "$@" >out 2>err </dev/null || got=$?
  [ "$got" = "$want" ] || { cat out err; show_logs; fail "exit $got, not $want: $*"; }
}
says () { grep -qF -- "$1" err || { cat err; fail "stderr lacks: $1"; }; }

# --- with a majority there is nothing to recover, and it is to be confirmed
status 8 ctl c1 recover payroll --without p1,p2,w1
says "--i-confirm-they-are-dead"
status 7 ctl c1 recover payroll --without p1,p2,w1 --i-confirm-they-are-dead
says "a majority is there"
status 10 ctl c1 recover payroll --without p1,absent --i-confirm-they-are-dead

kill_node p1 p2 w1
lost () { [ "$(said_by c1 '.crgs[0].state')" = indoubt ]; }
wait_for 20 lost || { ctl c1 status; fail "c1 does not see that the majority is lost"; }
status 5 ctl c1 uri payroll
status 5 ctl c1 switchover payroll --to c1
old=$(said_by c1 '.crgs[0].lineage')
status 7 ctl c1 recover payroll --without p1,c1 --i-confirm-they-are-dead
says "this node can't be dead"
[ "$(said_by c1 '.crgs[0].lineage')" = "$old" ] || fail "a refusal changed the lineage"

# --- c1 goes on with what it has
status 0 ctl c1 recover payroll --without p1,p2,w1 --i-confirm-they-are-dead
grep -q "crgctl node set payroll c2 --votes 1" out || { cat out; fail "not told how c2 gets its vote"; }
# (and its crgd dies before it has ended the plugin that it had)
kill -KILL "${NODE_PID[c1]}"
wait_for 5 not_running "${NODE_PID[c1]}" || fail "c1's crgd can't be killed"
start_node c1
wait_for 15 node_answers c1 || { show_logs; fail "c1 does not answer"; }
wait_serving 40
[ "$(production_node)" = c1 ] || fail "c1 does not serve"
[ "$(status_of '.crgs[0].lineage')" != "$old" ] || fail "the lineage is the old one"
[ "$(status_of '.crgs[0].iasps[0].loss')" = 1 ] || fail "loss has not risen"
nbdcopy "$(export_uri)" back
cmp data back || fail "what was answered is not there"
wait_for 20 proxy_has a .state lost || { cat a.log; fail "the client goes on: $(proxy_status a .)"; }
grep -q 'under another lineage' a.log || { cat a.log; fail "the client does not know why"; }
! nbdcopy "$(proxy_uri a)" null: 2>copy.err || fail "the client can read on"
grep -q 'Input/output error' copy.err || { cat copy.err; fail "no EIO"; }

# --- c2 joins as an empty node, and gets its vote
holds () { [ "$(said_by c2 '.crgs[0].lineage')" = "$(status_of '.crgs[0].lineage')" ]; }
wait_for 20 holds || { show_logs; fail "c2 does not follow"; }
[ -e "$tmp/c2/state/payroll.state.past" ] || fail "c2 has not set its old state aside"
status 0 ctl c1 node set payroll c2 --votes 1

# --- a dead one comes back, with its state and its store
cp "${STORE[rome]}" before
start_node p1
yields () { [ -e "$tmp/p1/state/payroll.state.past" ]; }
wait_for 20 yields || { show_logs; fail "p1 holds on to the past"; }
joined () { [ "$(status_of '.crgs[0].nodes[] | select(.name == "p1") | .present')" = true ]; }
wait_for 20 joined || { show_logs; fail "p1 does not join"; }
[ "$(status_of '.crgs[0].nodes[] | select(.name == "p1") | .votes')" = 0 ] || fail "p1 has a vote"
nbdcopy --flush /dev/zero "$(export_uri)" 2>/dev/null || head -c $SIZE /dev/zero | nbdcopy --flush - "$(export_uri)"
[ "$(production_node)" = c1 ] || fail "production has moved"
cmp -n $SIZE before "${STORE[rome]}" || fail "the fork of rome was written to"
