#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Verify: equal copies under load are said to be equal; blocks that were changed behind a copy's back are
# named exactly, and with repair they are copied, no more, and the copies are equal again; one that can't
# be read is named too; only one runs at a time; a copy that dies meanwhile ends it with a reason.
# timeout: 60
. "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/functions.sh"
. "$CRG_SRC_DIR/tests/pair-functions.sh"
requires qemu-io openssl cmp jq
requires_plugin
requires_test_build
cd "$tmp"
run=0

verify () # FIELDS
{
  run=$((run + 1))
  tell n0 "\"cmd\":\"verify\",\"run\":$run${1:+,$1}"
}
# about EXPRESSION: of the comparison in production's last status
about () { jq -r ".verify | $1" <<<"$ANSWER"; }
over () { status n0; [ "$(about '"\(.run) \(.on)"')" = "$run false" ]; }
wait_over () { wait_for "${1:-15}" over || fail "the comparison does not end: $ANSWER"; }
# is EXPRESSION RESULT: of the copy's comparison
is () { local got; got=$(about ".copies[0] | $1"); [ "$got" = "$2" ] || fail "$1 is $got, not $2: $ANSWER"; }
damage () { printf 'not what was written' | dd of=n1/store bs=1 seek="$1" conv=notrunc,fsync status=none; }
in_again () { in_set n0 && in_state n0 mirroring; }

faults n1
mirror_pair suspend-timeout-ms=10000 resync-share=40
io "write -P 1 0 40M" "write -P 2 50M 2M" flush

# Equal, while a client writes all over.
load ()
{
  local i
  for i in {1..2000}; do
    [ ! -e stop ] || return 0
    qemu-io -f raw -c "write -P $((i % 200)) $((i * 7919 % 16000 * 4))k 64k" -c "aio_write -P 3 8M 4k" -c "aio_write -P 4 8M 4k" \
      -c flush "$(uri "$tmp/n0/nbd")" >/dev/null 2>&1 || return
    echo $i >begun
  done
}
load &
load=$!
record_pid $load
wait_for 10 test -s begun || fail "no load"
for i in 1 2 3; do
  verify
  wait_over
  is .state done
  is .different 0
  is .compared "$mirror_size"
done
touch stop
wait $load || fail "the load failed"
wait_for 15 is_cold n0 || fail "production stays hot: $ANSWER"

# Damaged at the border of two blocks, and within a third.
damage $(((5 << 20) - 10))
damage $(((33 << 20) + 12345))
verify
wait_over
is .state done
is .different $((3 * 65536))
is '.found | tojson' "[[$(((5 << 20) - 65536)),131072],[$((33 << 20)),65536]]"
is .repaired false
grep -q "the copy at milan differs from production in 65536 bytes at $((33 << 20))" n0/nbd.log || fail "the log does not name it"
in_set n0 || fail "a comparison without repair changed the set"
cmp -s -n "$mirror_size" n0/store n1/store && fail "it repaired unasked"

number n0 resync_sent_bytes
sent=$NUMBER
verify '"repair":true'
wait_over
is .state done
is .repaired true
in_again || fail "repaired, but not in the set: $ANSWER"
number n0 resync_sent_bytes
[ $((NUMBER - sent)) -ge $((3 * 65536)) ] && [ $((NUMBER - sent)) -le $((4 * 65536)) ] \
  || fail "the repair sent $((NUMBER - sent)) bytes"
io flush
same_data || fail "the stores differ after the repair"

# What the copy can't read is not equal.
faults n1 "fail read EIO times 17"
verify
wait_over
is .state done
is ".different >= 65536 and .different <= $((17 * 65536))" true
faults n1
verify
wait_over
is .different 0

# One at a time; and it ends when the copy does.
faults n1 "delay read 300000"
verify
tell_any n0 "\"cmd\":\"verify\",\"run\":99"
[[ $ANSWER == *"under way already"* ]] || fail "a second one was not refused: $ANSWER"
status n0
[ "$(about .on)" = true ] || fail "it was over at once: $ANSWER"
kill_pid "$PID_n1"
wait_over
is .state stopped
[[ $(about '.copies[0].reason') =~ link ]] || fail "no reason: $ANSWER"
