#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# A copy comes back: it is sent what changed, and asked for digests of what was hot, in numbers, and not
# the rest; what of the hot is equal is not sent.  After
# its process was killed; after its machine restarted (R5); when it is killed in the middle of that;
# and when production's plugin is killed while the copy is away.
# timeout: 150
. "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/functions.sh"
. "$CRG_SRC_DIR/tests/pair-functions.sh"
requires qemu-io openssl cmp
requires_plugin
requires_test_build
cd "$tmp"
mib=$((1 << 20))

back ()
{
  kill_pid "$CTLPID_n1"
  cp n0/record n1/record
  mirror_node n1 1 "$@"
  mirror_ctl n1
  tell n1 "\"cmd\":\"role\",\"role\":\"mirror\",\"tenure\":1,\"peers\":[\"n0\",\"n1\"],\"record\":$(cat n0/record)"
}

left_set () { ! in_set n0; }
in_again () { in_set n0 && in_state n0 mirroring; }

# bounded WHAT MIN MAX SENT: the resync has sent or found equal between MIN and MAX bytes since $sent and
# $equal, and sent no more than SENT
bounded ()
{
  local before=$sent same=$equal all
  number n0 resync_sent_bytes
  sent=$NUMBER
  number n0 resync_equal_bytes
  equal=$NUMBER
  all=$((sent - before + equal - same))
  echo "$1: $((sent - before)) bytes sent and $((equal - same)) equal of $((48 * mib)), bound $3"
  [ $all -ge "$2" ] && [ $all -le "$3" ] || fail "$1: $all bytes, not $2 to $3"
  [ $((sent - before)) -le "$4" ] || fail "$1: $((sent - before)) bytes were sent, more than $4"
}

faults n1
mirror_pair suspend-timeout-ms=1000
io "write -P 1 0 48M" flush
wait_for 15 is_cold n0 || fail "production stays hot: $ANSWER"
wait_for 5 is_cold n1 || fail "the copy stays hot: $ANSWER"
number n0 resync_sent_bytes
sent=$NUMBER
number n0 resync_equal_bytes
equal=$NUMBER

# Killed.  Three regions are written while it is away.
kill_pid "$PID_n1"
wait_for 8 left_set || fail "the copy is still in the set: $ANSWER"
io "write -P 2 4M 64k" "write -P 2 20M 256k" "write -z 30M 64k"
number n0 dirty_bytes
[ "$NUMBER" = $((6 * 65536)) ] || fail "$NUMBER bytes are dirty, not 6 blocks"
back
wait_for 20 in_again || fail "not in the set again: $ANSWER"
bounded "after its process died" $((5 * 65536)) $((6 * 65536)) $((6 * 65536))
same_data || fail "the stores differ"

# Its machine restarts with writes that it has not flushed: hot on both sides.
wait_for 15 is_cold n0 || fail "production stays hot: $ANSWER"
io "write -P 3 8M 64k" "write -P 3 16M 64k"
kill_pid "$PID_n1"
CRG_BOOT_ID=abababababababababababababababab back
wait_for 20 in_again || fail "not in the set after a restart: $ANSWER"
grep -q 'machine restarted' n0/answers || fail "it was not taken for restarted"
bounded "after its machine restarted" $mib $((2 * mib)) $((2 * 65536))
same_data || fail "the stores differ after its machine restarted"

# Killed again, and once more while it is being resynchronised.
kill_pid "$PID_n1"
wait_for 8 left_set || fail "still in the set: $ANSWER $(tail -4 n0/answers)"
io "write -P 4 0 24M"
faults n1 "delay write 400000" # less than the suspend timeout, or production gives the link up
CRG_BOOT_ID=abababababababababababababababab back
half () { number n0 resync_done_bytes; [ "$NUMBER" -ge $((2 * mib)) ]; }
wait_for 20 half || fail "no resync: $ANSWER"
kill_pid "$PID_n1"
number n0 dirty_bytes
left=$NUMBER # what is confirmed stable does not count again
[ "$left" -gt 0 ] && [ "$left" -lt $((23 * mib)) ] || fail "$left bytes are left"
number n0 resync_sent_bytes
sent=$NUMBER
number n0 resync_equal_bytes
equal=$NUMBER
faults n1
# An entry that is given up because the machine is slow makes dirty what is hot.
wait_for 15 is_cold n0 || fail "production stays hot: $ANSWER"
CRG_BOOT_ID=abababababababababababababababab back
wait_for 20 in_again || fail "not in the set after being killed twice: $ANSWER"
bounded "after being killed in its resync" $mib $((left + 6 * mib)) $((left + 6 * mib))
same_data || fail "the stores differ after that"

# Production's plugin dies while the copy is away: what the copy lacks is on production's disk.
wait_for 15 is_cold n0 || fail "production stays hot: $ANSWER"
kill_pid "$PID_n1"
wait_for 8 left_set || fail "still in the set: $ANSWER $(tail -4 n0/answers)"
io "write -P 5 1M 64k" "write -P 5 40M 64k" flush
wait_for 15 is_cold n0 || fail "production stays hot without its copy: $ANSWER"
io "write -P 6 44M 64k"
kill_pid "$PID_n0"
kill_pid "$CTLPID_n0"
mirror_node n0 0 suspend-timeout-ms=1000
mirror_ctl n0 --commit --lease 3000
tell n0 '"cmd":"role","role":"production","tenure":1,"peers":["n0","n1"]'
sent=0 equal=0
CRG_BOOT_ID=abababababababababababababababab back
tell n0 "\"cmd\":\"mirror\",\"site\":1,\"node\":\"n1\",\"addresses\":[\"127.0.0.1\"],\"port\":$PORT_n1,\"sync\":\"partial\""
wait_for 20 in_again || fail "not in the set after production's death: $ANSWER"
bounded "after production's plugin died" $((3 * 65536)) $((mib + 2 * 65536)) $((3 * 65536))
same_data || fail "the stores differ after production's death"
