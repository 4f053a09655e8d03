#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# corosync engine: one total order, views with the same id and members, large messages whole
. "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/lab.sh"
lab_enter "$0" "$@"
. "$CRG_SRC_DIR/tests/functions.sh"

lab_up 3
lab_conf
lab_start 1 2 3
lab_wait_members 3 1 2 3
for i in 1 2 3; do member_start $i; done
members_wait_view 10 1,2,3 e1 e2 e3

# All send at once: short ones, then some of several CPG pieces, then the largest.
for i in 1 2 3; do member_tell $i send 500 200; done
for i in 1 2 3; do member_wait_count e$i D 1500; done
for i in 1 2 3; do member_tell $i send 20 200000; done
for i in 1 2 3; do member_wait_count e$i D 1560; done
member_tell 1 send 2 1048576
for i in 1 2 3; do member_wait_count e$i D 1562; done

# One byte more is refused.
member_tell 2 send 1 1048577
wait_for 5 grep -q 'ERROR mcast of 1048577 bytes: Message too long' "$tmp/e2" ||
  fail "a message over the limit was not refused"

# A member leaves and comes again: two more views, with ids of their own.
member_quit 3
members_wait_view 5 1,2 e1 e2
member_start 3 e3b
members_wait_view 5 1,2,3 e1 e2 e3b
member_tell 3 send 10 100
for i in 1 2; do member_wait_count e$i D 1572; done

# One process leaves and joins at once, again and again: each time a new view with its own id.
member_tell 2 crowd
n=$(member_count e2 V)
for k in 1 2 3 4 5; do
  member_tell 2 leave
  member_tell 2 join
  wait_for 5 member_has_count e2 V $((n + k)) || fail "no view after leave and join $k: $(tail -n 3 "$tmp/e2.err")"
  member_tell 2 send 3 100
done
members_wait_view 5 1,2,3 e1 e2 e3b

# Nodes by name: ids are the daemon's, whatever corosync's are; a wrong name is refused.
member_quit 3
member_start 3 named --name n3
members_wait_view 5 101,102,103 named
member_quit 3
member_start 3 misnamed --name n2
wait_for 5 grep -qs "calls this node (nodeid 3) 'n3', crgd.conf calls it 'n2'" "$tmp/misnamed.err" ||
  fail "a wrong name was not refused: $(cat "$tmp/misnamed.err")"
[ "$(member_count misnamed V)" = 0 ] || fail "a node with a wrong name got a view"
member_quit 1 2 3
sed -i '/ERROR mcast of 1048577/d' "$tmp/e2"
members_check e1 e2 e3 e3b
[ "$(member_stat e1 strays)" = 0 ] && [ "$(member_stat e1 foreign)" = 0 ] || fail "$(grep STAT "$tmp/e1")"
frames=$(member_stat e1 frames_received)
[ "$frames" -gt $((1572 + 60 * 3 + 2 * 15)) ] || fail "$frames frames: nothing was split"

# The judge itself: it must see each kind of damage.
ruin () # AWK SCRIPT: damages a copy of e1
{
  awk "$1" "$tmp/e1" >"$tmp/bad"
  cmp -s "$tmp/bad" "$tmp/e1" && fail "nothing was damaged: $1"
  ! members_check bad e2 e3 >"$tmp/verdict" || { cat "$tmp/verdict"; fail "not seen: $1"; }
}
ruin '$2 == "D" && ++n == 700 { hold = $0; next } { print } hold { print hold; hold = "" }'
ruin '$2 == "D" && ++n == 700 { next } { print }'
ruin '$2 == "V" && $5 == "1,2,3" { $5 = "1,2" } { print }'
ruin '$2 == "V" { if (id) $3 = id; id = $3 } { print }'
ruin '$2 == "D" && ++n == 5 { $3 = "0123456789abcdef" } { print }'
ruin '{ print } $2 == "D" && ++n == 5 { print $1, "C 1 99999" }'
