#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Damage to the maps of a store: production has blocks that the copy lacks and regions that were hot when
# it was killed; then a bit of a map is flipped, or a sector of it is garbage or zeroes, in the bitmap, in either
# copy of the hot map, in both.  Production opens, the copy comes back, and the two are equal byte for
# byte: at most more was copied.  (unit-super has every bit, tear and zeroed sector of a map's block.)
# timeout: 180
. "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/functions.sh"
. "$CRG_SRC_DIR/tests/pair-functions.sh"
requires qemu-io openssl cmp jq
requires_plugin
requires_test_build
cd "$tmp"
mirror_size=$((32 << 20))
RANDOM=${CRG_SEED:=1}
echo "CRG_SEED=$CRG_SEED"

IO_OPTIONS=(-t writeback)
left_set () { ! in_set n0; }
area () { "$CRGCTL" iasp dump --json n0/store | jq -r ".. | objects | select(.name? == \"$1\") | .$2" | head -1; }
copy_back ()
{
  [ ! -e n1/answers ] || mv n1/answers n1/answers.old
  cp n0/record n1/record
  mirror_node n1 1
  mirror_ctl n1
  tell n1 "\"cmd\":\"role\",\"role\":\"mirror\",\"tenure\":1,\"peers\":[\"n0\",\"n1\"],\"record\":$(cat n0/record)"
}
production_back ()
{
  : >n0/answers
  mirror_node n0 0 suspend-timeout-ms=500
  mirror_ctl n0 --commit --lease 3000
  tell n0 '"cmd":"role","role":"production","tenure":1'
  tell n0 "\"cmd\":\"mirror\",\"site\":1,\"node\":\"n1\",\"addresses\":[\"127.0.0.1\"],\"port\":$PORT_n1,\"sync\":\"partial\""
}

flip () # OFFSET
{
  local byte
  byte=$(od -An -tu1 -j "$1" -N 1 n0/store)
  printf "\\x$(printf %02x $((byte ^ 1 << RANDOM % 8)))" | dd of=n0/store bs=1 seek="$1" conv=notrunc status=none
}
zeroes () { dd if=/dev/zero of=n0/store bs=512 seek=$(($1 / 512)) count=1 conv=notrunc status=none; }
sector () { dd if=/dev/urandom of=n0/store bs=512 seek=$(($1 / 512)) count=1 conv=notrunc status=none; }

damage () # WHAT
{
  local bitmap hot half
  bitmap=$(area bitmap-1 offset) hot=$(area hot offset)
  half=$(($(area hot bytes) / 2))
  [ -n "$bitmap" ] && [ -n "$hot" ] || fail "no areas: $("$CRGCTL" iasp dump --json n0/store)"
  case $1 in
    nothing) ;;
    "a bit of the bitmap") flip $((bitmap + 64 + RANDOM % 64)) ;;
    "a bit of the bitmap's header") flip $((bitmap + RANDOM % 64)) ;;
    "garbage in the bitmap") sector $((bitmap + 512 * (1 + RANDOM % 7))) ;;
    "a zeroed sector of the bitmap") zeroes $bitmap ;;
    "a zeroed sector of both hot maps") zeroes $hot; zeroes $((hot + half)) ;;
    "a bit of one hot map") flip $((hot + 64 + RANDOM % 64)) ;;
    "a bit of the other hot map") flip $((hot + half + 64 + RANDOM % 64)) ;;
    "both hot maps") sector $hot; sector $((hot + half)) ;;
    "all of them") sector $bitmap; sector $hot; sector $((hot + half)) ;;
  esac
}

# Each round has regions of its own, which are cold when it begins.
mirror_pair suspend-timeout-ms=500
io "write -P 1 0 32M" flush
wait_for 20 is_cold n0 || fail "production stays hot: $ANSWER"
i=0
for what in nothing "a bit of the bitmap" "a bit of the bitmap's header" "garbage in the bitmap" \
  "a zeroed sector of the bitmap" "a bit of one hot map" "a bit of the other hot map" "both hot maps" \
  "a zeroed sector of both hot maps" "all of them"; do
  # Hot on both sides, with writes that only production has; then degraded.
  kill_pid "$PID_n1"
  kill_pid "$CTLPID_n1"
  io "write -P $((i + 2)) ${i}M 64k" "write -P $((i + 2)) $((10 + i))M 64k"
  wait_for 8 left_set || fail "in the set without a copy: $ANSWER"
  io "write -P $((i + 3)) $((20 + i))M 64k"
  case $what in
    "a zeroed sector of the bitmap") # which alone knows, once nothing is hot
      wait_for 20 is_cold n0 || fail "production stays hot: $ANSWER" ;;
  esac
  kill_pid "$PID_n0"
  kill_pid "$CTLPID_n0"
  damage "$what"
  copy_back
  production_back
  wait_for 20 in_set n0 || fail "$what: the copy does not come back: $ANSWER; $(tail -5 n0/nbd.log)"
  io "read -P $((i + 2)) ${i}M 64k" "read -P $((i + 3)) $((20 + i))M 64k" flush
  same_data || fail "$what: the copies differ, and the copy is in the set"
  number n0 resync_sent_bytes
  [ "$NUMBER" -ge $((3 * 65536)) ] || fail "$what: only $NUMBER bytes were copied"
  if [ "$what" = nothing ]; then
    [ "$NUMBER" -le $((6 << 20)) ] || fail "undamaged, and $NUMBER bytes were copied"
  fi
  echo "damaged: $what; $((NUMBER >> 10)) KiB copied, equal"
  i=$((i + 1))
done
