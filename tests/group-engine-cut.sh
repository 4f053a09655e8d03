#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# corosync engine: deaths and cuts of 2 + 2 + 1 nodes are seen in time; what one side alone delivered is never committed; the sides merge
. "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/lab.sh"
lab_enter "$0" "$@"
. "$CRG_SRC_DIR/tests/functions.sh"

lab_up 5
lab_conf
lab_start 1 2 3 4 5
lab_wait_members 5 1 2 3 4 5
for i in 1 2 3 4 5; do member_start $i; done
members_wait_view 10 1,2,3,4,5 e1 e2 e3 e4 e5
for i in 1 2 3 4 5; do member_tell $i ack; done
detection=$(awk '$2 == "UP" { print $3 }' "$tmp/e1")
[ "$detection" = 2200 ] || fail "detection is $detection ms: not token 1000 + consensus 1200"

# view_after LOG T0 MEMBERS: ms from T0 to the first such view after it
view_after ()
{
  awk -v t0=$2 -v m=$3 '$2 == "V" && $5 == m && $1 > t0 { printf "%d\n", $1 - t0; exit }' "$tmp/$1"
}

# late MS: counts a detection that took longer than a lease is made for; on a busy machine one may.
late=0
late ()
{
  [ "$1" -le $((detection * 5 / 4)) ] || late=$((late + 1))
  [ "$1" -le $((detection * 3)) ] || too_slow "seen after $1 ms only"
}

# A process that dies.
t0=$(now_ms)
kill -KILL "${lab_member[4]}"
members_wait_view 5 1,2,3,5 e1 e2 e3 e5
echo "process killed: seen after $(view_after e1 $t0 1,2,3,5) ms"
[ "$(view_after e1 $t0 1,2,3,5)" -lt 1000 ] || too_slow "that is too long"
wait "${lab_member[4]}" || :
member_start 4 e4b
members_wait_view 5 1,2,3,4,5 e1 e2 e3 e4b e5
member_tell 4 ack

# Cuts under load, the witness (5) on either side, until one side has delivered what the other
# never got.  (Own delivery isn't commit.)
one_side=0
for side in "1 2 5|3 4|1,2,5|3,4" "1 2|3 4 5|1,2|3,4,5"; do
  IFS='|' read -r a b va vb <<<"$side"
  for i in 1 3; do member_tell $i rate 2000 400; done
  sleep 0.3
  t0=$(now_ms)
  lab_cut "$a" "$b"
  la=e${a%% *} lb=e${b%% *}
  members_wait_view 8 $va $la
  members_wait_view 8 $vb $lb
  ta=$(view_after $la $t0 $va) tb=$(view_after $lb $t0 $vb)
  echo "cut $va from $vb: seen after $ta and $tb ms"
  late $ta
  late $tb
  for i in 1 3; do member_tell $i rate 0 0; done
  lab_heal "$a" "$b"
  t0=$(now_ms)
  members_wait_view 10 1,2,3,4,5 e1 e2 e3 e4b e5
  echo "healed: one view after $(view_after e1 $t0 1,2,3,4,5) ms"
done

# One direction only: whatever it comes to, it ends well when it is over.
lab_cut_way 1 3
sleep 3
lab_heal_way 1 3
wait_for 15 member_has_view e1 1,2,3,4,5 || fail "after a one-way cut node 1 sees $(member_view e1)"
members_wait_view 10 1,2,3,4,5 e2 e3 e4b e5

# A node that dies.
t0=$(now_ms)
lab_signal KILL 4
kill -KILL "${lab_member[4]}"
members_wait_view 8 1,2,3,5 e1 e2 e3 e5
t=$(view_after e1 $t0 1,2,3,5)
echo "node killed: seen after $t ms"
late $t
[ $late -lt 3 ] || too_slow "$late of 5 were seen later than 1.25 x $detection ms, for which a lease is made"
wait "${lab_member[4]}" || :
unset 'lab_member[4]'

member_quit 1 2 3 5
members_check e1 e2 e3 e4 e4b e5 | tee "$tmp/verdict"
sed -n 's/.*one_side=\([0-9]*\) committed=\([0-9]*\).*/\1 \2/p' "$tmp/verdict" >"$tmp/figures"
read -r one_side committed <"$tmp/figures"
[ "$committed" -gt 100 ] || too_slow "only $committed messages were committed: too few to mean anything"
foreign=$(cat "$tmp"/e? | sed -n 's/.*STAT .*foreign=\([0-9]*\).*/\1/p' | paste -sd+ | bc)
echo "delivered on one side only: $one_side; frames of an earlier view, dropped: $foreign"
