#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# The copy's plugin is killed with SIGKILL while fio writes: no error reaches the client, the copy
# leaves the set, comes back, is filled again while writes go on, and is equal in the end.
# timeout: 180
. "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/functions.sh"
. "$CRG_SRC_DIR/tests/pair-functions.sh"
requires fio openssl cmp
requires_plugin
fio --enghelp 2>/dev/null | grep -qw nbd || skip "this fio has no nbd engine"
cd "$tmp"

mirror_pair suspend-timeout-ms=1000
fio --ioengine=nbd --uri="$(uri "$tmp/n0/nbd")" --output=fio.out --output-format=terse --name=w \
  --rw=randwrite --bsrange=4k-128k --blockalign=4k --size=16M --offset_increment=16M --numjobs=3 \
  --iodepth=8 --time_based --runtime=12 --fsync=64 >fio.err 2>&1 &
fio_pid=$!
record_pid $fio_pid
sleep 2
kill_pid "$PID_n1"
left_set () { ! in_set n0; }
wait_for 8 left_set || fail "the copy is still in the set: $ANSWER"
grep -q '"event":"copy-lost"' n0/answers || fail "no copy-lost event"
status n0
before=$(grep -o '"completed":[0-9]*' <<<"$ANSWER")
sleep 1
status n0
[ "$before" != "$(grep -o '"completed":[0-9]*' <<<"$ANSWER")" ] || fail "writes stand still: $ANSWER"

mirror_node n1 1
cp n0/record n1/record
mirror_ctl n1
tell n1 "\"cmd\":\"role\",\"role\":\"mirror\",\"tenure\":1,\"peers\":[\"n0\",\"n1\"],\"record\":$(cat n0/record)"
wait_for 30 in_state n0 mirroring || fail "not mirroring again: $ANSWER"
wait_for 10 in_set n0 || fail "not in the set again"
wait $fio_pid || { cat fio.err fio.out; fail "fio saw an error"; }
tell n0 '"cmd":"role","role":"none"'
case $ANSWER in *'"clean":true'*) ;; *) fail "no clean release: $ANSWER" ;; esac
tell n1 '"cmd":"role","role":"none"'
same_data || fail "the stores differ"
