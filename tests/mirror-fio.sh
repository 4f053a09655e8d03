#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Two plugins mirror a store; fio writes, trims and verifies through NBD on several connections;
# afterwards both stores are equal byte for byte, also after requests that no sector is aligned to.
# timeout: 180
. "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/functions.sh"
. "$CRG_SRC_DIR/tests/pair-functions.sh"
requires fio qemu-io openssl cmp
requires_plugin
fio --enghelp 2>/dev/null | grep -qw nbd || skip "this fio has no nbd engine"
cd "$tmp"

fio_run ()
{
  fio --ioengine=nbd --uri="$(uri "$tmp/n0/nbd")" --output="$tmp/fio.out" --output-format=terse \
    "$@" >"$tmp/fio.err" 2>&1 || { cat "$tmp/fio.err" "$tmp/fio.out"; return 1; }
}

# mirror-fio-memory puts the stores elsewhere.
if [ -n "${stores-}" ]; then
  [ "$(stat -f -c %T "$stores")" = tmpfs ] || skip "$stores is no tmpfs"
  there=$(mktemp -d "$stores/crg-fio-XXXXXX")
  cleanup_fn rm -rf "$there"
  for i in 0 1; do
    mkdir -p "$tmp/n$i"
    truncate -s $((mirror_size + (8 << 20))) "$there/store$i"
    ln -s "$there/store$i" "$tmp/n$i/store"
  done
fi
mirror_pair
fio_run --name=rand --rw=randwrite --bsrange=4k-64k --bs_unaligned=0 --blockalign=4k \
  --size=16M --offset_increment=16M --numjobs=3 --iodepth=16 --fsync=32 \
  --verify=crc32c --do_verify=1 --verify_fatal=1 || fail "random writes"
same_data || fail "the stores differ after random writes"
fio_run --name=seq --rw=write --bs=1M --size=16M --offset=48M --iodepth=4 --end_fsync=1 \
  --verify=xxhash --do_verify=1 --verify_fatal=1 || fail "sequential writes"
fio_run --name=odd --rw=randwrite --bsrange=1-9000 --bs_unaligned=1 --size=4M --iodepth=16 \
  --number_ios=1500 --end_fsync=1 || fail "unaligned writes"
fio_run --name=trim --rw=randtrim --bs=64k --size=16M --offset=16M --iodepth=8 --number_ios=100 ||
  fail "trim"
qemu-io -f raw -c "write -z 1000 5000000" -c "write -zu 20M 3M" -c "write -P 1 513 1" \
  -c "read -P 0 1000 5000000" -c "read -P 1 513 1" -c "discard 1 100000" -c "read -P 0 1 100000" \
  -c flush "$(uri "$tmp/n0/nbd")" >qemu.out || { cat qemu.out; fail "qemu-io"; }
! grep -q "Pattern verification failed" qemu.out || { cat qemu.out; fail "wrong data"; }
same_data || fail "the stores differ"
status n0
case $ANSWER in *'"illegal":0,'*) ;; *) fail "the core counted illegal events: $ANSWER" ;; esac

# The comparison can fail: one byte of the copy, changed behind its back.
printf x | dd of="$tmp/n1/store" bs=1 seek=$((5 << 20)) conv=notrunc status=none
! same_data 2>/dev/null || fail "the comparison does not see a changed byte"
