#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# A takeover after which the set survives: production's process dies with writes under way, the copy
# becomes production, and the old production stays in the set.  No read is answered before the old
# one is equal or out of the set; it comes back with a partial resync, and can take over in turn.
# timeout: 120
. "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/functions.sh"
. "$CRG_SRC_DIR/tests/pair-functions.sh"
requires qemu-io openssl cmp
requires_plugin
cd "$tmp"
HB=$CRG_BUILD_DIR/tests/hostbug
mib=$((1 << 20))

writer () # NODE FIRST FILE
{
  local i=$2
  while "$HB" write "$(uri "$tmp/$1/nbd")" $i 2>/dev/null; do
    echo $i >>"$3"
    i=$((i + 1))
  done
}

check () # NODE FILE...
{
  local node=$1 i
  shift
  for i in $(cat "$@"); do
    "$HB" check "$(uri "$tmp/$node/nbd")" "$i" || fail "block $i was answered and is not at $node"
  done
}

# takeover FROM TO SITE TENURE: FROM's plugin is killed under writes, TO becomes production of TENURE
takeover ()
{
  local from=$1 to=$2 site=$3 tenure=$4 pid w
  eval "pid=\$PID_$from"
  writer "$from" $((tenure * 3000 - 2900)) "answered.$tenure.a" &
  w=($!)
  writer "$from" $((tenure * 3000 - 1500)) "answered.$tenure.b" &
  w+=($!)
  wait_for 10 test -s "answered.$tenure.b" || fail "nothing is written"
  sleep 0.5
  kill_pid "$pid"
  wait "${w[@]}"
  eval "kill_pid \"\$CTLPID_$from\"; kill_pid \"\$CTLPID_$to\""
  sed -E "s/\"tenure\":[0-9]+/\"tenure\":$tenure/; s/\"production_site\":[0-9]+/\"production_site\":$site/" "$from/record" >record
  cp record n0/record
  cp record n1/record
  mirror_ctl "$to" --commit --lease 3000
  tell "$to" "\"cmd\":\"role\",\"role\":\"production\",\"tenure\":$tenure,\"peers\":[\"n0\",\"n1\"]"
}

# back NODE SITE TENURE PRODUCTION: NODE comes back as the copy of SITE
back ()
{
  local node=$1 site=$2 tenure=$3 prod=$4 port
  cp "$prod/record" "$node/record"
  mirror_node "$node" "$site" suspend-timeout-ms=3000 resync-target-s=1
  mirror_ctl "$node"
  tell "$node" "\"cmd\":\"role\",\"role\":\"mirror\",\"tenure\":$tenure,\"peers\":[\"n0\",\"n1\"],\"production\":\"$prod\",\"record\":$(cat "$prod/record")"
  eval "port=\$PORT_$node"
  tell "$prod" "\"cmd\":\"mirror\",\"site\":$site,\"node\":\"$node\",\"addresses\":[\"127.0.0.1\"],\"port\":$port,\"sync\":\"partial\""
}

guarded () { status "$1"; case $ANSWER in *'"guarded":true'*) ;; *) return 1 ;; esac; }
unguarded () { ! guarded "$1"; }
in_again () { in_set "$1" && in_state "$1" mirroring; }

# little NODE WHAT: it has sent little of what was hot, as most of that is equal
little ()
{
  local sent equal
  number "$1" resync_sent_bytes
  sent=$NUMBER
  number "$1" resync_equal_bytes
  equal=$NUMBER
  echo "$2: $sent bytes sent and $equal equal of $((32 * mib))"
  [ "$equal" -ge $((mib / 2)) ] && [ $((sent + equal)) -le $((14 * mib)) ] && [ "$sent" -le $((mib / 2)) ] \
    || fail "$2: $sent bytes were sent, $equal found equal"
}

# The least bound on hot regions, so that few are marked ahead of a stream.
mirror_pair suspend-timeout-ms=3000 resync-target-s=1
qemu-io -f raw -c "write -P 1 16M 32M" -c flush "$(uri "$tmp/n0/nbd")" >qemu.out
wait_for 15 is_cold n0 || fail "production stays hot: $ANSWER"
wait_for 5 is_cold n1 || fail "the copy stays hot: $ANSWER"

# The old production is away for good at first: reads wait until it is out of the set.
takeover n0 n1 1 2
guarded n1 || fail "reads don't wait: $ANSWER"
in_set n1 || fail "the old production's copy is not in the set: $ANSWER"
timeout 20 "$HB" check "$(uri "$tmp/n1/nbd")" "$(head -1 answered.2.a)" &
held=$!
sleep 0.7
is_running $held || fail "a read was answered while the old production might have another answer"
wait $held || fail "the read failed"
unguarded n1 || fail "answered, and still guarded: $ANSWER"
! in_set n1 || fail "answered, and the old production is still in the set: $ANSWER"
check n1 answered.2.*
"$HB" write "$(uri "$tmp/n1/nbd")" 9000
back n0 0 2 n1
wait_for 20 in_again n1 || fail "the old production is not back: $ANSWER"
# Blocks of hostbug are small, two streams: three regions on either side, and block 9000's.  Of these all
# that was answered is equal.
little n1 "after a takeover"
same_data || fail "the stores differ"

# Back at once: it never leaves the set, and reads wait for its hot regions alone.
: >n1/answers
takeover n1 n0 0 3
guarded n0 || fail "reads don't wait: $ANSWER"
back n1 1 3 n0
wait_for 10 unguarded n0 || fail "reads still wait: $ANSWER"
in_again n0 || fail "the old production left the set: $ANSWER"
! grep -q copy-lost n0/answers || fail "the old production was asked out of the set"
little n0 "after a takeover in the set"
check n0 answered.*
same_data || fail "the stores differ in the end"
