#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# A copy goes its own way (R6): detached and written by clients of its own, killed in between, and written
# again; production goes on meanwhile.  Taken back, it gets what either was written since, and no more,
# and is equal byte for byte.
# timeout: 90
. "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/functions.sh"
. "$CRG_SRC_DIR/tests/pair-functions.sh"
requires qemu-io openssl cmp
requires_plugin
cd "$tmp"
mirror_size=$((64 << 20))

left_set () { ! in_set n0; }
forked () { sed -E 's/("name":"milan",[^}]*)\}/\1,"fork":"diverged"}/' n0/record; }
detach ()
{
  tell n1 "\"cmd\":\"role\",\"role\":\"detached\",\"tenure\":1,\"export\":\"read-write\",\"record\":$(forked)"
}
flags () { "$CRGCTL" iasp dump n1/store | grep -m1 '^  flags'; }

mirror_pair suspend-timeout-ms=500
io_at n0 "write -P 1 0 64M" flush
for n in n0 n1; do wait_for 20 is_cold $n || fail "$n stays hot: $ANSWER"; done
tell n0 '"cmd":"unmirror","site":1,"reason":"detached by an operator"'
wait_for 10 left_set || fail "still in the set: $ANSWER"
tell n1 '"cmd":"role","role":"none"'
detach
[[ " $(flags) " == *" fork "* && " $(flags) " == *" tracked "* ]] || fail "its disk does not say that it is a fork, and tracked: $(flags)"
io_at n1 "write -P 2 5M 256k" flush "write -P 3 40M 64k"
io_at n0 "write -P 4 20M 128k" flush
kill_pid "$PID_n1"
kill_pid "$CTLPID_n1"
mv n1/answers n1/answers.old
mirror_node n1 1
mirror_ctl n1
detach
io_at n1 "read -P 2 5M 256k" "read -P 3 40M 64k" "read -P 1 20M 128k" "write -z 50M 64k" flush
tell n1 '"cmd":"role","role":"none"'
[[ $ANSWER == *'"clean":true'* ]] || fail "not released cleanly: $ANSWER"
number n0 resync_sent_bytes
before=$NUMBER
# R6: only if the record knows that it is one.
tell_any n1 "\"cmd\":\"role\",\"role\":\"mirror\",\"tenure\":1,\"record\":$(cat n0/record)"
[[ $ANSWER == *'"ok":false'* && $ANSWER == *'"code":"fork"'* ]] || fail "a fork is a mirror copy: $ANSWER"
# Taken back.  Production's process knows the record, too.
forked >record.fork
cp record.fork n0/record
tell n0 "\"cmd\":\"record\",\"seq\":99,\"record\":$(cat record.fork)"
tell n1 "\"cmd\":\"role\",\"role\":\"mirror\",\"tenure\":1,\"peers\":[\"n0\",\"n1\"],\"record\":$(cat record.fork)"
mirror_connect
number n0 resync_sent_bytes
sent=$((NUMBER - before))
io_at n0 "read -P 1 5M 256k" "read -P 4 20M 128k" "read -P 1 40M 64k" "read -P 1 50M 64k" "write -P 5 60M 64k" flush
same_data || fail "the copies differ"
[[ " $(flags) " != *" fork "* && " $(flags) " != *" tracked "* ]] || fail "still a fork: $(flags)"
# 512 KiB differ; the region that was hot when the fork was killed is copied as a whole.
[ $sent -ge $((512 << 10)) ] && [ $sent -le $((6 << 20)) ] || fail "$sent bytes were copied"
echo "$((sent >> 10)) KiB copied of $((mirror_size >> 10))"
