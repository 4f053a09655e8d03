#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# nbdcopy in and out, qemu-img convert and compare: the same bytes come back, holes stay holes.
. "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/functions.sh"
requires nbdcopy qemu-img
requires_plugin

size=$((96 << 20))
# Data of all kinds: random, zeroes that are written, holes, an odd end of the data.
truncate -s $size "$tmp/in"
dd if=/dev/urandom of="$tmp/in" bs=1M count=9 conv=notrunc status=none
dd if=/dev/zero of="$tmp/in" bs=1M seek=12 count=5 conv=notrunc status=none
dd if=/dev/urandom of="$tmp/in" bs=4096 seek=9000 count=1000 conv=notrunc status=none
dd if=/dev/urandom of="$tmp/in" bs=777 seek=70000 count=33 conv=notrunc status=none

for direct in on off; do
  rm -f "$tmp/store"
  truncate -s $size "$tmp/store"
  # What is there before must not shine through.
  dd if=/dev/urandom of="$tmp/store" bs=1M seek=40 count=8 conv=notrunc status=none
  start_nbdkit "$tmp/sock-$direct" name=payroll store="$tmp/store" direct=$direct role=production
  u=$(uri "$tmp/sock-$direct")

  nbdcopy --flush --destination-is-zero "$tmp/in" "$u" 2>/dev/null && ! cmp -s "$tmp/in" "$tmp/store" ||
    fail "(the test's own check: old data should have stayed)"
  nbdcopy --flush "$tmp/in" "$u"
  cmp "$tmp/in" "$tmp/store" || fail "nbdcopy in: store differs (direct=$direct)"
  nbdcopy --connections=4 --requests=64 "$u" "$tmp/out"
  cmp "$tmp/in" "$tmp/out" || fail "nbdcopy out differs (direct=$direct)"
  used=$(($(stat -c '%b * %B' "$tmp/store")))
  [ $used -le $((32 << 20)) ] || fail "holes were filled: $used bytes used (direct=$direct)"

  qemu-img convert -n -f raw -O raw "$tmp/in" "$u"
  qemu-img compare -f raw -F raw "$tmp/in" "$u"
  qemu-img convert -f raw -O qcow2 "$u" "$tmp/out.qcow2"
  qemu-img compare -f raw -F qcow2 "$u" "$tmp/out.qcow2"
  # And compare can say no.
  printf x | dd of="$tmp/out" bs=1 seek=123456 conv=notrunc status=none
  expect_fail qemu-img compare -f raw -F raw "$tmp/out" "$u" >/dev/null
  stop_pid "$NBDKIT_PID"
  rm -f "$tmp/out" "$tmp/out.qcow2"
done
