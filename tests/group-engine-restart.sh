#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# corosync engine: a corosync that is not there yet is waited for; one that dies, stops or restarts is joined again
. "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/lab.sh"
lab_enter "$0" "$@"
. "$CRG_SRC_DIR/tests/functions.sh"

lab_up 3
lab_conf
lab_start 1 2
lab_wait_members 2 1 2

# Member before corosync.
for i in 1 2 3; do member_start $i; done
members_wait_view 10 1,2 e1 e2
member_wait_count e3 DOWN 1
grep -q 'DOWN corosync can.t be reached' "$tmp/e3" || fail "$(grep DOWN "$tmp/e3")"
lab_start 3
members_wait_view 10 1,2,3 e1 e2 e3
member_tell 1 rate 400 200
member_tell 3 rate 400 200

# corosync is killed: the member knows at once, the others after the detection time.
lab_signal KILL 3
wait_for 1 member_has_count e3 DOWN 2 || fail "node 3 wasn't told that its corosync is gone"
members_wait_view 8 1,2 e1 e2
sleep 1 # it must go on trying
lab_start 3
t0=$(now_ms)
members_wait_view 10 1,2,3 e1 e2 e3
echo "in a view $(($(now_ms) - t0)) ms after the start of corosync"

# It is killed and started before the others' token is lost.
lab_signal KILL 3
lab_start 3
wait_for 1 member_has_count e3 DOWN 3 || fail "node 3 wasn't told (2)"
wait_for 10 member_has_count e3 UP 3 || fail "node 3 didn't connect again (2)"
members_wait_view 10 1,2,3 e1 e2 e3

# It ends in good order.
lab_signal TERM 3
members_wait_view 8 1,2 e1 e2
wait_for 2 member_has_count e3 DOWN 4 || fail "node 3 wasn't told (3)"
lab_start 3
members_wait_view 10 1,2,3 e1 e2 e3

# All of them at once.
lab_signal KILL 1 2 3
for i in 1 2 3; do wait "${lab_corosync[i]}" || :; done
lab_start 1 2 3
members_wait_view 20 1,2,3 e1 e2 e3
wait_for 5 member_has_count e3 UP 5 || fail "node 3 didn't connect again (4)"
members_wait_view 20 1,2,3 e1 e2 e3

# Timers that change while it runs are followed: the lease depends on them.
sed -i 's/^  token: 1000$/  token: 1500/; s/^  consensus: 1200$/  consensus: 1800/' "$tmp"/n?/corosync.conf
lab_in 1 corosync-cfgtool -R >"$tmp/reload" 2>&1 || { cat "$tmp/reload"; fail "reload"; }
has_token () { member_tell 2 stats; sleep 0.1; [ "$(member_stat e2 token) $(member_stat e2 consensus)" = "1500 1800" ]; }
wait_for 5 has_token || fail "token $(member_stat e2 token) and consensus $(member_stat e2 consensus), not 1500 and 1800"

member_tell 1 rate 0 0
member_tell 3 rate 0 0
sleep 0.3
member_quit 1 2 3
[ "$(member_stat e3 connects)" = 5 ] || fail "$(member_stat e3 connects) connects, not 5"
[ "$(member_stat e1 connects)" = 2 ] || fail "$(member_stat e1 connects) connects on node 1, not 2"
members_check e1 e2 e3
