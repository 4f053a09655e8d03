#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# crgctl iasp create: what it refuses, what it writes and what it leaves, and a CRG that is made of a
# file system that was there before, which both sites then have.
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
truncate -s 16M store.rome
mkfs.ext4 -q -F store.rome
echo 'kept by crgctl iasp create' >word
debugfs -w -R 'write word word' store.rome >/dev/null 2>&1
cp store.rome before
exits 0 make store.rome --keep-data
NODES="p1:rome c1:milan w1"
SIZE=$((16 << 20))
cluster_begin
wait_in_sync 30
nbdcopy "$(export_uri)" got
cmp before got || fail "the export does not show what was there"
same_copies
cmp -n "$SIZE" store.milan before || fail "the other site has not got it"
[ "$(debugfs -R 'cat word' store.milan 2>/dev/null)" = 'kept by crgctl iasp create' ] || fail "the file system is broken"
exits 8 make store.milan
has 'is the store of IASP payroll of CRG payroll, site milan; --force takes it'
