#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# crgctl iasp dump and check: of stores that the plugin formatted, open and released; with a
# superblock damaged, both, none; and never a byte written.
. "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/functions.sh"
. "$CRG_SRC_DIR/tests/pair-functions.sh"
requires jq cmp openssl
requires_plugin
cd "$tmp"

# exits WANT COMMAND...: the command exits with WANT; its output is in out
exits ()
{
  local want=$1 got=0
  shift
  "$@" >out 2>&1 || got=$?
  [ "$got" = "$want" ] || { cat out; fail "exit $got, not $want: $*"; }
}
has () { grep -q -- "$1" out || { cat out; fail "not said: $1"; }; }
# json WANT STORE: its dump in d.json, exit code WANT
json ()
{
  exits "$1" "$CRGCTL" iasp dump "$2" --json
  cp out d.json
  jq -e . d.json >/dev/null || { cat d.json; fail "not JSON"; }
}
# want EXPRESSION: true of d.json
want () { jq -e "$1" d.json >jq.out || { cat d.json; fail "not so: $1"; }; }
# flip STORE OFFSET: changes one byte
flip ()
{
  local old
  old=$(od -An -tu1 -j "$2" -N 1 "$1")
  printf "\\x$(printf %x $((old ^ 1)))" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none
  cmp -s "$1" n0/store && fail "nothing was flipped" || :
}

# --- not formatted yet
truncate -s $((mirror_size + (8 << 20))) blank
exits 10 "$CRGCTL" iasp check blank
has 'no superblock'
json 10 blank
want '.chosen == null and .layout == null and .open == false and .slots[0].status == "no superblock"'

# --- live: production open, its lock held
mirror_pki
mirror_record 2 0
mkdir n0
cp record n0/record
mirror_node n0 0
mirror_ctl n0 --commit --lease 3000
tell n0 '"cmd":"role","role":"production","tenure":1,"peers":["n0","n1"]'
exits 0 "$CRGCTL" iasp check n0/store
has 'store: fine (open in a plugin now)$'
json 0 n0/store
want '.open and .kind == "file" and .code == 0 and .verdict == "fine"'
want "[.slots[].sequence] | (.[0] - .[1]) * (.[0] - .[1]) == 1"
want '.slots[.chosen].sequence == ([.slots[].sequence] | max)'
want ".slots[.chosen] | .role == \"production\" and (.flags | index(\"open\")) and .open_node == \"n0\"
  and .iasp == \"payroll\" and .crg == \"wages\" and .site_name == \"rome\" and .site == 0
  and .crg_id == \"22222222222222222222222222222222\" and .lineage == \"44444444444444444444444444444444\"
  and .data_bytes == $mirror_size and .dirty_block_size == 65536 and .in_set == [0]
  and .tenure == 1 and .generation == 1 and .since == 1 and .loss == 0
  and .open_boot_id == \"$(tr -d - </proc/sys/kernel/random/boot_id)\" and (.open_session | length) == 16"
# The areas follow each other to the end of the store.
want '.bytes as $size | .layout | .overhead_bytes as $over | .areas
  | length == 14 and .[0].offset == 0 and $over == $size - .[0].bytes
  and all(range(1; 14) as $i | .[$i].offset == .[$i - 1].offset + .[$i - 1].bytes; .)
  and .[13].offset + .[13].bytes == $size'
slot0=$(jq .slots[0].offset d.json)
slot1=$(jq .slots[1].offset d.json)
[ "$(dd if=n0/store bs=1 skip="$slot1" count=7 status=none)" = nbd-crg ] || fail "slot 1 is not at $slot1"

# --- released
tell n0 '"cmd":"role","role":"none"'
stop_pid "$PID_n0"
before=$(sha256sum <n0/store)
exits 0 "$CRGCTL" iasp check n0/store
has 'store: fine$'
json 0 n0/store
want '.open == false and (.slots[.chosen].flags | index("clean")) and (.slots[.chosen].flags | index("open") | not)'
chosen=$(jq .chosen d.json)
exits 0 "$CRGCTL" iasp dump n0/store
has 'open in no plugin'
has "^chosen: slot $chosen: both are whole, and it has the higher sequence"
has '^  flags .*clean'
has '^bitmap-7 .* [0-9]'
has '^overhead: [0-9]* bytes, [0-9.]* %'
# The text names every field that the JSON has.
for f in $(jq -r '.slots[0] | keys[] | select(. != "slot" and . != "offset" and . != "status")' d.json); do
  grep -q "^  $f  *[^ ]" out || { cat out; fail "$f is not in the text"; }
done
[ "$before" = "$(sha256sum <n0/store)" ] || fail "it wrote to the store"
chmod 444 n0/store
exits 0 "$CRGCTL" iasp check n0/store

# --- one slot damaged, whichever; both; one of them erased
for s in 0 1; do
  cp --no-preserve=mode n0/store hurt
  flip hurt $(((s == 0 ? slot0 : slot1) + 100))
  exits 4 "$CRGCTL" iasp check hurt
  has "slot $s: damaged superblock (CRC); slot $((1 - s)) is used"
  [ "$(wc -l <out)" = 1 ] || fail "more than a line"
  json 4 hurt
  want ".chosen == 1 - $s and .code == 4 and (.slots[$s] | has(\"sequence\") | not) and .slots[1 - $s].status == \"fine\""
done
flip hurt $((slot0 + 4000))
exits 1 "$CRGCTL" iasp check hurt
has 'slot 0: damaged superblock (CRC); slot 1: damaged superblock (CRC); the store is refused'
json 1 hurt
want '.chosen == null and .layout == null'
cp --no-preserve=mode n0/store hurt
dd if=/dev/zero of=hurt bs=4096 seek=$((slot0 / 4096)) count=1 conv=notrunc status=none
exits 4 "$CRGCTL" iasp check hurt
has 'slot 0: no superblock; slot 1 is used'
dd if=/dev/zero of=hurt bs=4096 seek=$((slot1 / 4096)) count=1 conv=notrunc status=none
exits 10 "$CRGCTL" iasp check hurt

# --- the maps: a bit of one, a block of the other that reads as zeroes
area () { jq -r ".layout.areas[] | select(.name == \"$1\").offset" d.json; }
json 0 n0/store
bitmap=$(area bitmap-1) hot=$(area hot)
cp --no-preserve=mode n0/store hurt
flip hurt $((bitmap + 2000))
exits 4 "$CRGCTL" iasp check hurt
has '1 damaged block in its maps: what they cover counts as different'
dd if=/dev/zero of=hurt bs=4096 seek=$((hot / 4096)) count=1 conv=notrunc status=none
exits 4 "$CRGCTL" iasp check hurt
has '2 damaged blocks in its maps'
json 4 hurt
want '.code == 4 and (.verdict | startswith("2 damaged blocks"))'

# --- a slot in the other's place, and a store whose end was moved
cp --no-preserve=mode n0/store hurt
dd if=n0/store of=hurt bs=4096 skip=$((slot0 / 4096)) seek=$((slot1 / 4096)) count=1 conv=notrunc status=none
exits 1 "$CRGCTL" iasp check hurt
has 'slot 1: superblock with a senseless field'
cp --no-preserve=mode n0/store hurt
truncate -s +1M hurt
exits 10 "$CRGCTL" iasp check hurt
dd if=n0/store of=hurt bs=4096 skip=$((slot0 / 4096)) seek=$(((slot0 + (1 << 20)) / 4096)) count=2 conv=notrunc status=none
exits 1 "$CRGCTL" iasp check hurt
has "was formatted with $((mirror_size + (8 << 20))) bytes and has $((mirror_size + (9 << 20))) now"

# --- a block device says the same of the same bytes
if [ "$(id -u)" = 0 ] && cp --no-preserve=mode n0/store disk && loop=$(losetup -f --show disk 2>losetup.log); then
  cleanup_fn losetup -d "$loop"
  exits 0 "$CRGCTL" iasp check "$loop"
  json 0 n0/store
  jq 'del(.store, .kind)' d.json >file.json
  json 0 "$loop"
  want '.kind == "block device"'
  jq 'del(.store, .kind)' d.json | cmp - file.json || fail "a block device gives another dump"
else
  echo "no loop device here: block devices are not tried"
fi

# --- what is no store, and what is no command
exits 10 "$CRGCTL" iasp check nothere
has 'cannot open the store nothere'
truncate -s 4096 small
exits 10 "$CRGCTL" iasp dump small
mkfifo pipe
exits 9 "$CRGCTL" iasp dump pipe
exits 9 "$CRGCTL" iasp dump .
exits 9 "$CRGCTL" iasp repair n0/store
exits 9 "$CRGCTL" iasp check n0/store --json
exits 9 "$CRGCTL" iasp dump
