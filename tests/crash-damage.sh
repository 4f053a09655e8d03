#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# The plugin on damaged superblocks (unit-super has every bit and every tear; here a sample, with the real
# plugin): a copy in the middle of its resynchronisation never opens as production; a production store
# opens with the data and the generation that it had, or is refused with a reason; never a crash.
# timeout: 90
. "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/functions.sh"
. "$CRG_SRC_DIR/tests/pair-functions.sh"
requires qemu-io openssl od dd
requires_plugin
requires_test_build
cd "$tmp"
mirror_size=$((8 << 20))
samples=${CRG_DAMAGES:-25}
RANDOM=${CRG_SEED:=1}
echo "CRG_SEED=$CRG_SEED CRG_DAMAGES=$samples"

# Where the two slots are, of a store of this size.
slots () { SLOT0=$(($(stat -c %s "$1") / 4096 * 4096 - 8192)); }
save () { slots "$1"; dd if="$1" of="$2" bs=4096 skip=$((SLOT0 / 4096)) count=2 status=none; }
restore () { slots "$2"; dd if="$1" of="$2" bs=4096 seek=$((SLOT0 / 4096)) conv=notrunc status=none; }

# damage FILE N: the Nth kind of damage to a file of two slots; says what in DAMAGE
damage ()
{
  local file=$1 kind=$2 at bit byte
  case $((kind % 5)) in
    0 | 1) # one bit; half of them in the fields
      at=$((RANDOM % 2 * 4096 + RANDOM % (kind % 5 ? 452 : 4096)))
      bit=$((RANDOM % 8))
      byte=$(od -An -tu1 -j $at -N 1 "$file")
      printf "\\x$(printf %02x $((byte ^ 1 << bit)))" | dd of="$file" bs=1 seek=$at conv=notrunc status=none
      DAMAGE="bit $bit of byte $at" ;;
    2) # a torn write: some sectors of the other slot
      at=$((RANDOM % 2 * 8 + 1 + RANDOM % 7))
      dd if="$file" of="$file" bs=512 skip=$(((at + 8) % 16)) seek=$at count=$((at < 8 ? 8 - at : 16 - at)) \
        conv=notrunc status=none
      DAMAGE="torn from sector $at" ;;
    3) # a sector that can't be what it was
      at=$((RANDOM % 16))
      dd if=/dev/urandom of="$file" bs=512 seek=$at count=1 conv=notrunc status=none
      DAMAGE="garbage in sector $at" ;;
    4) # a sector that the disk gives back as zeroes: the fields, as the others hold none
      at=$((RANDOM % 2 * 8))
      dd if=/dev/zero of="$file" bs=512 seek=$at count=1 conv=notrunc status=none
      DAMAGE="zeroes in sector $at" ;;
  esac
}

# A copy in the middle of being filled.
faults n0
faults n1 "delay write 400000"
mirror_pki
mirror_record 2 0
mkdir -p n0 n1
cp record n0/record
cp record n1/record
mirror_node n0 0
mirror_node n1 1
mirror_ctl n0 --commit --lease 3000
mirror_ctl n1
tell n1 '"cmd":"role","role":"mirror","tenure":1,"peers":["n0","n1"],"production":"n0"'
tell n0 '"cmd":"role","role":"production","tenure":1,"peers":["n0","n1"]'
qemu-io -f raw -c "write -P 1 0 8M" -c flush "$(uri "$tmp/n0/nbd")" >qemu.out 2>&1 || { cat qemu.out; fail "the pattern"; }
tell n0 "\"cmd\":\"mirror\",\"site\":1,\"node\":\"n1\",\"addresses\":[\"127.0.0.1\"],\"port\":$PORT_n1,\"sync\":\"full\""
unusable () { status n1; [[ $ANSWER == *'"unusable":true'* ]]; }
wait_for 10 unusable || fail "the copy is not marked: $ANSWER"
filling () { status n0; [[ $ANSWER =~ \"resync_blocks\":([0-9]+) ]] && [ "${BASH_REMATCH[1]}" -gt 3 ]; }
wait_for 10 filling || fail "nothing is copied: $ANSWER"
kill_pid "$PID_n1"
kill_pid "$CTLPID_n1"
! in_set n0 || fail "in the set while it is filled"
save n1/store slots.n1
# As if the record had it in the set: only its own disk can say no.
lie=$(sed -E 's/"tenure":1/"tenure":2/; s/"generation":1/"generation":2/; s/"production_site":0/"production_site":1/
  s/("name":"milan","in_set":)false,"since":0/\1true,"since":1/' n0/record)
[[ $lie == *'"name":"milan","in_set":true'* ]] || fail "the test's own record: $lie"
faults n1
mirror_node n1 1
mirror_ctl n1 --lease 3000
refused=0
for ((i = 0; i < samples; i++)); do
  cp slots.n1 damaged
  damage damaged $i
  restore damaged n1/store
  tell_any n1 '"cmd":"role","role":"production","tenure":2,"accept_loss":true,"record":'"$lie"
  case $ANSWER in
    *'"ok":false'*'"code":"usage"'* | *'"code":"usage"'*'"ok":false'*) fail "not understood: $ANSWER" ;;
    *'"ok":false'*) refused=$((refused + 1)) ;;
    *) fail "$DAMAGE: a copy that was being filled became production: $ANSWER" ;;
  esac
  [[ $ANSWER =~ \"error\":\"[^\"]{20,} ]] || fail "$DAMAGE: refused without a reason: $ANSWER"
done
is_running "$PID_n1" || fail "the plugin died"
echo "an unfinished copy: refused as production $refused times of $samples"
kill_pid "$PID_n1"
kill_pid "$CTLPID_n1"

# Production's own store, released.
tell n0 '"cmd":"role","role":"none"'
save n0/store slots.n0
record=$(cat n0/record)
generation=$(sed -E 's/.*"generation":([0-9]+).*/\1/' n0/record)
opened=0 refused=0
for ((i = 0; i < samples; i++)); do
  cp slots.n0 damaged
  damage damaged $i
  restore damaged n0/store
  tell_any n0 '"cmd":"role","role":"production","tenure":1,"accept_loss":true,"record":'"$record"
  if [[ $ANSWER == *'"ok":true'* ]]; then
    opened=$((opened + 1))
    [[ $ANSWER == *"\"generation\":$generation,"* ]] || fail "$DAMAGE: another generation: $ANSWER"
    qemu-io -f raw -c "read -P 1 0 8M" "$(uri "$tmp/n0/nbd")" >qemu.out 2>&1 || { cat qemu.out; fail "$DAMAGE"; }
    ! grep -q "verification failed" qemu.out || fail "$DAMAGE: other data"
    tell n0 '"cmd":"role","role":"none"'
  else
    refused=$((refused + 1))
    [[ $ANSWER =~ \"error\":\"[^\"]{20,} ]] || fail "$DAMAGE: refused without a reason: $ANSWER"
  fi
done
is_running "$PID_n0" || fail "the plugin died"
echo "production: opened $opened times of $samples, refused $refused times"
# With one whole slot a store needs no operator.
[ $refused = 0 ] || fail "refused though the other slot is whole"
restore slots.n0 n0/store
tell n0 '"cmd":"role","role":"production","tenure":1,"record":'"$record"
