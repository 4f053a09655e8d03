#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# fio's nbd engine: mixed sizes on several connections, fsync between, every block verified.
# timeout: 180
. "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/functions.sh"
requires fio
requires_plugin
fio --enghelp 2>/dev/null | grep -qw nbd || skip "this fio has no nbd engine"

cd "$tmp" # fio leaves files where it runs
truncate -s 128M "$tmp/store"
start_nbdkit "$tmp/sock" name=payroll store="$tmp/store" role=production

fio_run ()
{
  fio --ioengine=nbd --uri="$(uri "$tmp/sock")" --output="$tmp/fio.out" --output-format=terse \
    "$@" >"$tmp/fio.err" 2>&1 || { cat "$tmp/fio.err" "$tmp/fio.out"; return 1; }
}

# Three jobs, each with its own connection and its own third of the disk.
fio_run --name=rand --rw=randwrite --bsrange=4k-64k --bs_unaligned=0 --blockalign=4k \
  --size=32M --offset_increment=32M --numjobs=3 --iodepth=16 --fsync=32 \
  --verify=crc32c --do_verify=1 --verify_fatal=1 || fail "random writes"
fio_run --name=seq --rw=write --bs=1M --size=32M --offset=96M --iodepth=4 --end_fsync=1 \
  --verify=xxhash --do_verify=1 --verify_fatal=1 || fail "sequential writes"
fio_run --name=mix --rw=randrw --rwmixread=70 --bs=4k --size=32M --iodepth=32 --number_ios=4000 \
  --verify=crc32c --do_verify=1 --verify_fatal=1 || fail "mixed"
fio_run --name=trim --rw=randtrim --bs=64k --size=32M --iodepth=8 --number_ios=200 || fail "trim"

# The verification can fail: one byte of the last third, changed behind the server.
fio_run --name=again --rw=write --bs=4k --size=4M --offset=64M --iodepth=8 --end_fsync=1 \
  --verify=crc32c --do_verify=0
kill_pid "$NBDKIT_PID"
printf '\xa5\x5a\xa5' | dd of="$tmp/store" bs=1 seek=$(((65 << 20) + 100)) conv=notrunc status=none
start_nbdkit "$tmp/sock" name=payroll store="$tmp/store" role=production
! fio_run --name=again --rw=read --bs=4k --size=4M --offset=64M --iodepth=8 \
  --verify=crc32c --verify_fatal=1 || fail "fio did not see the changed byte"
