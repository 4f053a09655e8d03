#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# crgctl iasp create: what it refuses, what it writes and what it leaves, and a CRG that is made of a
# file system that was there before and fills its store to the last byte, which both sites then have.
# timeout: 150
. "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/functions.sh"
. "$CRG_SRC_DIR/tests/cluster.sh"
requires jq mkfs.ext4 debugfs nbdcopy cmp
cd "$tmp"

# exits WANT COMMAND...: and its output is in out
exits ()
{
  local want=$1 got=0
  shift
  "$@" >out 2>&1 || got=$?
  [ "$got" = "$want" ] || { cat out; fail "exit $got, not $want: $*"; }
}
has () { grep -q -- "$1" out || { cat out; fail "not said: $1"; }; }
make () { "$CRGCTL" iasp create "$@"; }

exits 10 make absent
exits 9 make .
exits 9 make /dev/null --size 1M
exits 9 "$CRGCTL" iasp dump absent --force
exits 9 "$CRGCTL" iasp check absent --size 1M

# --- an empty file: all of it, or as much as is asked for
truncate -s 8M a
for bad in 0 x 1000 16E; do exits 9 make a --size $bad; done
exits 9 make a --block-size 12345
exits 0 make a
exits 0 "$CRGCTL" iasp check a
"$CRGCTL" iasp dump a --json >d.json
jq -e '.slots[0] | .crg == "" and .flags == ["clean"] and .sequence == 1 and .dirty_block_size == 65536' d.json >/dev/null ||
  { cat d.json; fail "the superblock"; }
jq -e '.chosen == 1 and .slots[1].data_bytes == (.layout.areas[] | select(.name == "data") | .bytes)' d.json >/dev/null ||
  { cat d.json; fail "the size"; }
exits 0 make a --size 4M --block-size 4K
[ "$("$CRGCTL" iasp dump a --json | jq '.slots[1] | [.data_bytes, .dirty_block_size] | tostring')" = '"[4194304,4096]"' ] ||
  fail "size and block size are not those asked for"
: >b
exits 7 make b
exits 0 make b --size 1M
[ "$(stat -c %s b)" -gt 1048576 ] || fail "no room for metadata"

# --- made all zeroes: what is written will be known, from the first opening in a CRG on
head -c 4M /dev/urandom >used
exits 9 make used --zero --keep-data
exits 9 "$CRGCTL" iasp check used --zero
exits 0 make used --zero
has 'it is all zeroes, and what is written will be known'
exits 0 "$CRGCTL" iasp check used
has '; 0 of [0-9]* bytes were ever written$'
cmp -n "$("$CRGCTL" iasp dump used --json | jq '.layout.areas[0].bytes')" /dev/zero used || fail "it is not all zeroes"
"$CRGCTL" iasp dump used --json | jq -e '.written_bytes == 0 and .slots[1].flags == ["clean", "written"]' >/dev/null ||
  fail "the superblock of an empty store"
if "$CRG_NBDKIT" -f -U "$tmp/hand.sock" "$PLUGIN" name=b store="$tmp/used" role=production >hand.log 2>&1; then
  fail "exported by hand, and nobody notes what is written"
fi
grep -q 'made ready for a CRG and is known to be all zeroes' hand.log || { cat hand.log; fail "refused for another reason"; }

# --- what is somebody's
truncate -s 8M fs
mkfs.ext4 -q -F fs
cp fs fs.before
exits 8 make fs
has 'holds an ext2, ext3 or ext4 file system; --keep-data keeps it'
cmp fs fs.before || fail "refused, and written to"
head -c 8M /dev/urandom >tail
exits 8 make tail --keep-data --size 4M
has 'the tail of .* is not free'
exits 0 make tail --keep-data --size 4M --force
"$CRG_NBDKIT" -f -t 64 -U "$tmp/hand.sock" "$PLUGIN" name=b store="$tmp/b" role=production >hand.log 2>&1 &
holder=$!
record_pid $holder
wait_for 10 test -S hand.sock || { cat hand.log; fail "no export by hand"; }
exits 7 make b
has 'open in a plugin'
stop_pid $holder

# --- kept: not a byte of it differs, and a CRG takes it without force
exits 0 make fs --keep-data
has 'what it holds is kept'
cmp -n "$(stat -c %s fs.before)" fs fs.before || fail "what was there has changed"

# --- metadata elsewhere: the store keeps its size and every byte
exits 9 make tail --meta tail
exits 9 "$CRGCTL" iasp dump tail --meta tail.meta --meta x
exits 10 "$CRGCTL" iasp dump fs --meta absent
head -c 8M /dev/urandom >full
cp full full.before
truncate -s 64K little
exits 7 make full --keep-data --meta little
has 'little has 65536 bytes, and the metadata of full needs'
[ "$(stat -c %s little)" = 65536 ] || fail "refused, and changed"
exits 8 make full --keep-data --meta fs
has 'fs holds an ext2, ext3 or ext4 file system; --force does not care'
exits 7 make full --keep-data --meta new --size 9M
[ ! -e new ] || fail "refused, and a file is left"
exits 0 make full --keep-data --meta new
has 'ready for 8388608 bytes of data; metadata [0-9]* bytes on new; what it holds is kept'
cmp full full.before || fail "what was there has changed"
exits 0 "$CRGCTL" iasp check full --meta new
"$CRGCTL" iasp dump full --meta new --json >d.json
jq -e '.bytes == 8388608 and .meta == "new" and (.slots[0] | .flags == ["clean", "external"] and .data_bytes == 8388608
  and .meta_bytes > 0 and (.data_identity | startswith("file ")))' d.json >/dev/null || { cat d.json; fail "the superblock"; }
"$CRGCTL" iasp dump full --meta new | grep -q 'metadata on new, whose byte 0 counts as 8388608' || fail "the text does not say so"
exits 10 "$CRGCTL" iasp check full
exits 10 "$CRGCTL" iasp check new
has 'no store is so small'
cp new copied
exits 1 "$CRGCTL" iasp check full --meta copied
has 'is a copy from elsewhere'
exits 1 "$CRGCTL" iasp check full.before --meta new
has 'was made for another file or device'

# The other site's is made of a file full of garbage that becomes zeroes; then it knows what it is written.
truncate -s 16M store.rome
head -c 17M /dev/urandom >store.milan
exits 0 make store.milan --zero
mkfs.ext4 -q -F store.rome
echo 'kept by crgctl iasp create' >word
debugfs -w -R 'write word word' store.rome >/dev/null 2>&1
cp store.rome before
exits 0 make store.rome --keep-data --meta meta.rome
NODES="p1:rome c1:milan w1"
SIZE=$((16 << 20))
cluster_begin
wait_in_sync 30
nbdcopy "$(export_uri)" got
cmp before got || fail "the export does not show what was there"
same_copies
cmp -n "$SIZE" store.milan before || fail "the other site has not got it"
written=$("$CRGCTL" iasp dump store.milan --json | jq .written_bytes)
[ "$written" -gt 0 ] && [ "$written" -lt "$SIZE" ] || fail "the other site was written $written bytes"
[ "$(debugfs -R 'cat word' store.milan 2>/dev/null)" = 'kept by crgctl iasp create' ] || fail "the file system is broken"
exits 8 make store.milan
has 'is the store of IASP payroll of CRG payroll, site milan; --force takes it'

# --- what else is put in the place of its metadata is refused, and nothing is served from it
cp meta.rome other.rome
mv meta.rome right.rome
mv other.rome meta.rome
must "crgctl start" ctl p1 start payroll
refused () { ctl p1 explain payroll 2>&1 | grep -q 'is a copy from elsewhere'; }
wait_for 20 refused || { ctl p1 explain payroll; fail "a copy of the metadata was taken"; }
mv right.rome meta.rome
wait_in_sync 30
same_copies
