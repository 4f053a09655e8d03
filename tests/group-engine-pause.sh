#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# corosync engine: a member that was stopped during a cut comes back into a new view, and nothing of its old one passes
. "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/lab.sh"
lab_enter "$0" "$@"
. "$CRG_SRC_DIR/tests/functions.sh"

lab_up 3
lab_conf
lab_start 1 2 3
lab_wait_members 3 1 2 3
for i in 1 2 3; do member_start $i; done
members_wait_view 10 1,2,3 e1 e2 e3
for i in 1 2 3; do member_tell $i rate 400 200; done
sleep 0.3

# The member stops, its corosync doesn't: no event at all for the others.
kill -STOP "${lab_member[3]}"
sleep 0.5
views=$(member_count e1 V)
views3=$(member_count e3 V)
lab_cut "1 2" "3"
members_wait_view 8 1,2 e1 e2
[ "$(member_count e1 V)" = $((views + 1)) ] || fail "stopping the member alone made a view"
lab_heal "1 2" "3"
lab_wait_members 3 1 2 3
# It is in the ring again, and has heard nothing of all this.
[ "$(member_count e3 V)" = "$views3" ] || fail "a stopped member has heard of a view"
last_id () { awk '$2 == "V" { v = $3 } END { print v }' "$tmp/e3"; }
has_other_id () { [ "$(last_id)" != "$1" ]; }
old=$(last_id)
kill -CONT "${lab_member[3]}"
wait_for 8 has_other_id $old ||
  fail "the member goes on in the view that it had before the cut"
members_wait_view 8 1,2,3 e1 e2 e3
awk '$2 == "V" && $5 !~ /(^|,)3(,|$)/ { exit 1 }' "$tmp/e3" || fail "node 3 saw a view that it wasn't in"

# The machine stops, corosync and member.
lab_signal STOP 3
kill -STOP "${lab_member[3]}"
members_wait_view 8 1,2 e1 e2
kill -CONT "${lab_member[3]}"
lab_signal CONT 3
members_wait_view 10 1,2,3 e1 e2 e3
sleep 0.3

# corosync alone stops: the member isn't told, and isn't stuck either.
lab_signal STOP 3
members_wait_view 8 1,2 e1 e2
member_tell 3 stats
wait_for 5 grep -q ' STAT ' "$tmp/e3" || fail "the member hangs while its corosync is stopped"
lab_signal CONT 3
members_wait_view 10 1,2,3 e1 e2 e3
for i in 1 2 3; do member_tell $i rate 0 0; done
sleep 0.3
member_quit 1 2 3
members_check e1 e2 e3
for i in 1 2 3; do grep ' STAT ' "$tmp/e$i" | tail -n 1 | cut -d' ' -f3-; done
[ "$(member_stat e3 connects)" = 1 ] || fail "node 3 lost its corosync"
[ $(($(member_stat e1 try_again) + $(member_stat e2 try_again))) -gt 0 ] ||
  fail "corosync never said try again, through three ring changes under load"
[ "$(member_stat e3 foreign)" -gt 0 ] || fail "nothing of an old view was to be dropped"
