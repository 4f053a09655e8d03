#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Stores that were made all zeroes, with no holes to tell it, and that note what is written: what was never
# written is neither sent nor written when a copy is filled, trims of it change nothing, and through kills of both
# sides nothing that was written is taken for zeroes.
# timeout: 60
. "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/functions.sh"
. "$CRG_SRC_DIR/tests/pair-functions.sh"
requires qemu-io openssl cmp
requires_plugin
requires_test_build
cd "$tmp"
mib=$((1 << 20))

IO_OPTIONS=(-d unmap)

# written NAME BYTES: so much of its store was ever written
written ()
{
  number "$1" written
  [ "$NUMBER" = "$2" ] || fail "$1: $NUMBER bytes were written, not $2"
}

role () # NAME ROLE: started again
{
  kill_pid "$(eval echo "\$CTLPID_$1")"
  mirror_node "$1" "${1#n}" fault-written=1 suspend-timeout-ms=1000
  if [ "$2" = production ]; then mirror_ctl "$1" --commit --lease 3000; else mirror_ctl "$1"; fi
  tell "$1" "\"cmd\":\"role\",\"role\":\"$2\",\"tenure\":1,\"peers\":[\"n0\",\"n1\"],\"production\":\"n0\",\"record\":$(cat n0/record)"
}

mkdir n0 n1
for n in n0 n1; do head -c $((mirror_size + 8 * mib)) /dev/zero >$n/store; done
mirror_pair fault-written=1 suspend-timeout-ms=1000
number n0 frames
[ "$NUMBER" -lt 40 ] || fail "$NUMBER frames have filled the copy with nothing"
written n0 0
written n1 0
io "discard 0 64M" "write -z 1M 20M" "read -P 0 0 64M"
written n0 0

# Two regions.
io "write -P 1 10244k 4k" "write -P 2 40M 64k" flush "discard 40M 32k" flush
written n0 $((2 * mib))
written n1 $((2 * mib))
kill_pid "$PID_n1"
kill_pid "$PID_n0"
role n1 mirror
role n0 production
written n0 $((2 * mib))
mirror_connect
io "read -P 1 10244k 4k" "read -P 0 40M 32k" "read -P 2 40992k 32k" "read -P 0 0 10244k"
same_data || fail "the stores differ"

# The copy is lost, and filled anew.  One thing is written on the way, next to what was never written.
kill_pid "$PID_n1"
head -c $((mirror_size + 8 * mib)) /dev/zero >n1/store
left_set () { ! in_set n0; }
wait_for 20 left_set || fail "the copy is still in the set: $ANSWER"
io "write -P 3 30720k 4k"
number n0 frames
before=$NUMBER
role n1 mirror
wait_for 20 in_state n0 mirroring || fail "not mirroring: $ANSWER"
wait_for 5 in_set n0 || fail "not in the set: $ANSWER"
number n0 frames
[ $((NUMBER - before)) -lt 100 ] || fail "$((NUMBER - before)) frames for three regions of 64"
io flush
same_data || fail "the stores differ"
written n0 $((3 * mib))
number n1 written
[ "$NUMBER" -lt $((24 * mib)) ] || fail "the copy was written $NUMBER bytes for 3 MiB"
cmp -n 4096 -i 31457280:31457280 n0/store n1/store || fail "what was written on the way is not there"
