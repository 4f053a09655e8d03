#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# The ways in which mirrors have been seen to leave a copy different without knowing it, each once.
# HAST's four: an error reply from the copy, writes in flight when the link breaks, an error during a
# resynchronisation, TRIM while the copy is away.  md's: a bitmap that is empty after a degraded write,
# here with production killed, and with its power lost, right after the answer.  In the end the copies
# are equal byte for byte, the copy was not in the set before they were, and no more was copied than what
# was dirty or hot.
# timeout: 180
. "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/functions.sh"
. "$CRG_SRC_DIR/tests/pair-functions.sh"
requires qemu-io openssl cmp
requires_plugin
requires_test_build
cd "$tmp"
mirror_size=$((16 << 20))

IO_OPTIONS=(-t writeback)
left_set () { ! in_set n0; }

begin () # RULE for both stores
{
  rm -rf n0 n1
  faults n0 "$1"
  faults n1 "$1"
  mirror_pair suspend-timeout-ms=1000
  io "write -P 1 0 16M" flush
  cold
}

cold () # nothing is hot on production; what is copied from now on counts
{
  wait_for 20 is_cold n0 || fail "production stays hot: $ANSWER"
  number n0 resync_sent_bytes
  sent=$NUMBER
}

copy_dies ()
{
  kill_pid "$PID_n1" 2>/dev/null
  kill_pid "$CTLPID_n1" 2>/dev/null
}

copy_back ()
{
  faults n1 cache
  [ ! -e n1/answers ] || mv n1/answers n1/answers.old
  mirror_node n1 1
  mirror_ctl n1
  tell n1 "\"cmd\":\"role\",\"role\":\"mirror\",\"tenure\":1,\"peers\":[\"n0\",\"n1\"],\"record\":$(cat n0/record)"
}

production_back () # the same host, on its own store
{
  kill_pid "$CTLPID_n0" 2>/dev/null
  : >n0/answers
  mirror_node n0 0 suspend-timeout-ms=1000
  mirror_ctl n0 --commit --lease 3000
  tell n0 '"cmd":"role","role":"production","tenure":1,"accept_loss":true'
  tell n0 "\"cmd\":\"mirror\",\"site\":1,\"node\":\"n1\",\"addresses\":[\"127.0.0.1\"],\"port\":$PORT_n1,\"sync\":\"partial\""
}

# equal WHAT MIN MAX: the copy comes back, is in the set, and is equal; MIN to MAX KiB were copied
equal ()
{
  wait_for 20 in_set n0 || fail "$1: the copy does not come back: $ANSWER"
  io flush
  same_data || fail "$1: the copies differ, and the copy is in the set"
  number n0 resync_sent_bytes
  echo "$1: equal, $(((NUMBER - sent) >> 10)) KiB copied"
  [ $((NUMBER - sent)) -ge $(($2 << 10)) ] && [ $((NUMBER - sent)) -le $(($3 << 10)) ] ||
    fail "$1: $(((NUMBER - sent) >> 10)) KiB were copied, not $2 to $3"
}

end ()
{
  kill_pid "$PID_n0"
  kill_pid "$CTLPID_n0"
  copy_dies
} 2>/dev/null

begin cache
faults n1 "fail write EIO times 1 half"
io "write -P 2 1M 128k" flush
wait_for 5 left_set || fail "the copy of a failed write is in the set"
! same_data 2>/dev/null || fail "nothing differs, so this shows nothing"
copy_dies
copy_back
equal "an error reply" 128 2048
cold

# The copy takes 400 ms for each write: eight are in flight when it dies.
faults n1 cache "delay write 400000"
for i in 1 2 3 4 5 6 7 8; do
  timeout 30 qemu-io -f raw -t writeback -c "write -P $((10 + i)) $((i * 2 - 1))M 64k" "$(uri "$tmp/n0/nbd")" >qemu.$i 2>&1 &
  record_pid $!
  writers[i]=$!
done
in_flight () { status n0; [[ $ANSWER =~ \"inflight\":([0-9]+) ]] && [ "${BASH_REMATCH[1]}" -ge 4 ]; }
wait_for 5 in_flight || fail "not in flight: $ANSWER"
copy_dies
for i in 1 2 3 4 5 6 7 8; do wait "${writers[i]}" || fail "a write failed because the copy died: $(cat qemu.$i)"; done
left_set || fail "in the set: $ANSWER"
"$POWERLOSS" n1/store 0
copy_back
equal "writes in flight at a disconnect" 512 9216
cold

# It dies, is written over, and its store fails in the middle of the resynchronisation; then production's
# reads do.
copy_dies
io "write -P 30 0 4M" "write -P 31 8M 4M" flush
faults n1 cache "fail write EIO after 3 times 1 half"
mv n1/store.faults n1/rules
copy_back
mv n1/rules n1/store.faults
failed () { grep -q '"event":"store-failed"' n1/answers; }
wait_for 10 failed || fail "the resynchronisation met no error"
left_set || fail "in the set after an error during the resynchronisation: $ANSWER"
copy_dies
faults n0 cache "fail read EIO after 2 times 3"
copy_back
# What was sent before each error may be sent again.
equal "an error during a resynchronisation" 8192 26624
[ "$(fault_count n0 failed)" -ge 3 ] || fail "production's reads met no error"
faults n0 cache
cold

copy_dies
io "discard 2M 4M" "write -z -u 10M 1M" "discard $((12 << 20)) 4096" flush
copy_back
# Holes count as nothing.
equal "TRIM while the copy is away" 0 9216
cold

copy_dies
wait_for 8 left_set || { io "write -P 39 0 4k"; left_set; } || fail "in the set without a copy: $ANSWER"
io "write -f -P 40 5M 64k"
kill_pid "$PID_n0" 2>/dev/null
copy_back
production_back
sent=0
equal "production killed after a degraded write" 64 3072
io "read -P 40 5M 64k"
cold

copy_dies
io "write -f -P 41 6M 64k"
kill_pid "$PID_n0" 2>/dev/null
"$POWERLOSS" n0/store 0
copy_back
CRG_BOOT_ID=abababababababababababababababab production_back
sent=0
equal "production's power lost after a degraded write" 64 3072
io "read -P 41 6M 64k"
end
