#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# The production plugin is killed with SIGKILL while clients write.  The copy, promoted, has every
# block that was answered (R4), and the old production comes back as a copy.  Killed again and started
# on the same store, production makes the other copy, which stays in the set, equal in what was hot,
# in no more than that, and answers no read of it before.  Its store is full to the last byte: what was hot
# is in a file of its own.
# timeout: 120
. "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/functions.sh"
. "$CRG_SRC_DIR/tests/pair-functions.sh"
requires openssl cmp
requires_plugin
cd "$tmp"
HB=$CRG_BUILD_DIR/tests/hostbug

writer () # SOCKET FIRST FILE: blocks FIRST, FIRST + 1 ... until an error; the answered ones to FILE
{
  local i=$2
  while "$HB" write "$(uri "$1")" $i 2>/dev/null; do
    echo $i >>"$3"
    i=$((i + 1))
  done
}

check () # SOCKET FILE...
{
  local sock=$1 i
  shift
  for i in $(cat "$@"); do
    "$HB" check "$(uri "$sock")" "$i" || fail "block $i was answered and is not at $sock"
  done
}

mirror_meta n1
mirror_pair suspend-timeout-ms=1500
writer "$tmp/n0/nbd" 100 answered.a &
writers=($!)
writer "$tmp/n0/nbd" 2000 answered.b &
writers+=($!)
enough () { [ -s answered.a ] && [ -s answered.b ] && [ "$(cat answered.* | wc -l)" -ge 60 ]; }
wait_for 20 enough || fail "hardly anything was written"
kill_pid "$PID_n0"
wait "${writers[@]}"

# Takeover by the copy: tenure 2, and the appointment takes the old production out of the set.
kill_pid "$CTLPID_n0"
kill_pid "$CTLPID_n1"
takeover='s/"tenure":1/"tenure":2/; s/"generation":1/"generation":2/; s/"production_site":0/"production_site":1/'
sed -E "$takeover"'; s/("name":"rome","in_set":)true,"since":1/\1false,"since":0/' n0/record >n1/record
grep -q '"name":"rome","in_set":false' n1/record || fail "the test's own record: $(cat n1/record)"
cp n1/record n0/record
mirror_ctl n1 --commit --lease 3000
tell n1 '"cmd":"role","role":"production","tenure":2,"peers":["n0","n1"]'
check "$tmp/n1/nbd" answered.*
mirror_node n0 0
mirror_ctl n0
tell n0 "\"cmd\":\"role\",\"role\":\"mirror\",\"tenure\":2,\"peers\":[\"n0\",\"n1\"],\"production\":\"n1\",\"record\":$(cat n1/record)"
tell n1 "\"cmd\":\"mirror\",\"site\":0,\"node\":\"n0\",\"addresses\":[\"127.0.0.1\"],\"port\":$PORT_n0,\"sync\":\"full\""
wait_for 20 in_set n1 || fail "the old production does not come back as a copy: $ANSWER"
same_data || fail "the stores differ after the takeover"

# Killed, and started again on its own store: what was hot is made equal, and nothing else.
writer "$tmp/n1/nbd" 5000 answered.c &
writers=($!)
wait_for 10 test -s answered.c
sleep 0.5
kill_pid "$PID_n1"
wait "${writers[@]}"
kill_pid "$CTLPID_n1"
: >n1/answers
mirror_node n1 1 suspend-timeout-ms=20000
mirror_ctl n1 --commit
tell n1 '"cmd":"role","role":"production","tenure":2,"peers":["n0","n1"],"lease_until_ms":999999999999'
case $ANSWER in *'"clean":false'*'"restarted":false'*|*'"restarted":false'*'"clean":false'*) ;; *) fail "wrong about its end: $ANSWER" ;; esac
status n1
case $ANSWER in *'"guarded":true'*) ;; *) fail "reads don't wait after an unclean end: $ANSWER" ;; esac
timeout 20 "$HB" check "$(uri "$tmp/n1/nbd")" "$(head -1 answered.c)" &
held=$!
sleep 1
is_running $held || fail "a read was answered before the other copy had said in what it may differ"
equal () { status n1; case $ANSWER in *'"owner":"equal"'*) ;; *) return 1 ;; esac; }
wait_for 5 equal || fail "nobody says why the read waits: $ANSWER"
tell n1 "\"cmd\":\"mirror\",\"site\":0,\"node\":\"n0\",\"addresses\":[\"127.0.0.1\"],\"port\":$PORT_n0,\"sync\":\"partial\""
wait $held || fail "the read failed"
unguarded () { status n1; case $ANSWER in *'"guarded":false'*) ;; *) return 1 ;; esac; }
wait_for 10 unguarded || fail "reads still wait: $ANSWER"
! grep -q copy-lost n1/answers || fail "the copy left the set"
blocks=$(sed -E 's/.*"resync_blocks":([0-9]+).*/\1/' <<<"$ANSWER")
number n1 resync_equal_bytes
blocks=$((blocks + NUMBER / 65536)) # what is hot may differ, and mostly doesn't
echo "resynchronised or found equal: $blocks blocks of 1024"
[ "$blocks" -ge 1 ] && [ "$blocks" -le 512 ] || fail "the resync was not of what was hot: $blocks blocks of 1024"
check "$tmp/n1/nbd" answered.*
"$HB" write "$(uri "$tmp/n1/nbd")" 9000 || fail "the write failed"
"$HB" check "$(uri "$tmp/n1/nbd")" 9000 || fail "block 9000"
in_set n1 || fail "not in the set: $ANSWER"
same_data || fail "the stores differ in the end"
