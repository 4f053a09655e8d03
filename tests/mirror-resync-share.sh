#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# resync-share: while clients write, a resync with a small share moves on (G2), one with all of the time moves
# faster, and clients keep the better part of what they have without a resync (G1).  Once the
# resync has taken seconds its rate bounds what may be hot, also after the next start.
# timeout: 90
. "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/functions.sh"
. "$CRG_SRC_DIR/tests/pair-functions.sh"
requires fio openssl jq qemu-io
requires_plugin
requires_test_build
fio --enghelp 2>/dev/null | grep -qw nbd || skip "this fio has no nbd engine"
cd "$tmp"
mirror_size=$((96 << 20))
seconds=${CRG_SECONDS:-2}

# clients SECONDS: write to the first 8 MiB, in the background
clients ()
{
  fio --ioengine=nbd --uri="$(uri "$tmp/n0/nbd")" --output=fio.json --output-format=json --name=w --rw=randwrite \
    --bs=4k --size=8M --iodepth=8 --time_based --runtime="$1" --randrepeat=1 >fio.err 2>&1 &
  FIO=$!
  record_pid $FIO
  number n0 completed
  local before=$NUMBER
  wait_for 20 writing "$before"
}
writing () { number n0 completed; [ "$NUMBER" -gt $(($1 + 20)) ]; }

# written: they have ended; how many a second into IOPS
written ()
{
  wait $FIO || { cat fio.err; fail "fio"; }
  IOPS=$(jq '.jobs[0].write.iops | floor' fio.json)
}

sending () { number n0 resync_sent_bytes; [ "$NUMBER" -gt 0 ]; }

# The copy's store takes 250 ms for a block, and as long for what clients wrote before it: one at a time, with the
# longest rest, is 3 blocks in 2 s or more, half a window of them 32 MiB/s.  Without a longest rest a hundredth of the
# time would be one block in 25 s.
run () # SHARE
{
  rm -rf n0 n1
  faults n0
  faults n1 "delay write 250000"
  mirror_pki
  mirror_record 2 0
  mkdir -p n0 n1
  cp record n0/record
  cp record n1/record
  mirror_node n0 0 resync-share="$1"
  mirror_node n1 1
  mirror_ctl n0 --commit --lease 3000
  mirror_ctl n1
  tell n1 '"cmd":"role","role":"mirror","tenure":1,"peers":["n0","n1"],"production":"n0"'
  tell n0 '"cmd":"role","role":"production","tenure":1,"peers":["n0","n1"]'
  qemu-io -f raw -c "write -P 1 0 96M" -c flush "$(uri "$tmp/n0/nbd")" >qemu.out 2>&1 || { cat qemu.out; fail "the pattern"; }
  if [ "$1" = 1 ]; then
    clients 1
    written
    ALONE=$IOPS
  fi
  clients $((seconds + 2))
  tell n0 "\"cmd\":\"mirror\",\"site\":1,\"node\":\"n1\",\"addresses\":[\"127.0.0.1\"],\"port\":$PORT_n1,\"sync\":\"full\""
  wait_for 20 sending || fail "nothing is copied: $ANSWER"
  sleep "$seconds"
  number n0 resync_sent_bytes
  SENT=$NUMBER
  [ "$1" = 100 ] || [[ $ANSWER == *'"yields":true'* ]] || fail "it is not shown that the resync yields: $ANSWER"
  kill -0 $FIO 2>/dev/null || fail "the clients have ended before the measurement"
  ENTERED=no
  in_set n0 && ENTERED=yes
  written
  status n0
  [[ $ANSWER == *"\"resync_share\":$1,"* ]] || fail "the share is not shown: $ANSWER"
  echo "share $1 %: $((SENT >> 10)) KiB in $seconds s beside $IOPS writes a second, $ALONE without a resync"
}

stop ()
{
  for n in n0 n1; do
    eval "kill_pid \$PID_$n; kill_pid \$CTLPID_$n"
  done
}

run 1
small=$SENT
[ "$small" -ge $((128 << 10)) ] || too_slow "with a share of 1 % only $small bytes were copied in $seconds s"
[ $ENTERED = no ] || fail "a share of 1 % was the whole of the link"
[ $((IOPS * 8)) -ge "$ALONE" ] || too_slow "clients wrote $IOPS a second beside a resync with 1 %, and $ALONE without one"
stop
run 100
[ "$SENT" -ge $((2 * small)) ] || too_slow "a share of 100 % copied $SENT bytes, one of 1 % $small"
wait_for 30 in_set n0 || fail "the resync does not end: $ANSWER"
number n0 resync_rate_bytes_s
rate=$NUMBER
[ "$rate" -ge $((2 << 20)) ] && [ "$rate" -le $((400 << 20)) ] || too_slow "a resync of $rate bytes a second"
number n0 max_regions
want=$((30 * rate >> 20))
[ $want -ge 132 ] || want=132
[ $want -le 4096 ] || want=4096
[ "$NUMBER" = $want ] || fail "$NUMBER regions may be hot, at $rate bytes a second"
tell n0 '"cmd":"role","role":"none"'
"$CRGCTL" iasp dump --json n0/store | jq -e --argjson r "$rate" '[.slots[].resync_rate] | index($r) != null' >/dev/null ||
  fail "the rate is not kept: $("$CRGCTL" iasp dump n0/store)"
tell n0 "\"cmd\":\"role\",\"role\":\"production\",\"tenure\":1,\"record\":$(cat n0/record)"
number n0 max_regions
[ "$NUMBER" = $want ] || fail "after a start $NUMBER regions may be hot, not $want"
