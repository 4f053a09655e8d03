#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# qemu-io patterns: FUA, discard, write zeroes (with and without unmap), unaligned pieces, the
# last byte; each is read back here and again by a new server.
. "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/functions.sh"
requires qemu-io
requires_plugin

truncate -s 32M "$tmp/store"

io () # commands on stdin; any complaint is a failure
{
  qemu-io -t none -f raw "$(uri "$tmp/sock")" >"$tmp/io.out" 2>&1 || { cat "$tmp/io.out"; return 1; }
  if grep -iE 'error|failed|verification|invalid|mismatch' "$tmp/io.out"; then return 1; fi
}

patterns ()
{
  cat <<'END'
read -P 0x11 0 1M
read -P 0x22 1M 4k
read -P 0x11 1052672 60k
read -P 0x33 2097155 77777
read -P 0x00 4M 1M
read -P 0x44 5M 64k
read -P 0x00 5308416 64k
read -P 0x44 5373952 64k
read -P 0x00 8M 3M
read -P 0x55 12M 512
read -P 0x00 12583424 512
read -P 0x55 12583936 3k
read -P 0x66 33553920 512
END
}

start_nbdkit "$tmp/sock" name=payroll store="$tmp/store" role=production
io <<'END' || fail "writing"
write -f -P 0x11 0 2M
write -P 0x22 1M 4k
write -f -P 0x33 2097155 77777
write -P 0x77 4M 1M
discard 4M 1M
write -P 0x44 5M 256k
write -z 5308416 64k
write -P 0x99 8M 3M
write -z -u 8M 3M
write -P 0x55 12M 4k
write -z -f 12583424 512
write -f -P 0x66 33553920 512
flush
END
patterns | io || fail "reading back"

# The check can fail.
! echo 'read -P 0x12 0 4k' | io || fail "a wrong pattern was not noticed"

# Many in flight: queued with aio, waited for, read back.
{
  for i in $(seq 0 63); do echo "aio_write -P $((i + 1)) $((16 + i / 8))M.$((i)) 4k"; done
} | sed -E 's/([0-9]+)M\.([0-9]+)/\1 \2/' |
  while read -r op p pat mib i len; do
    echo "$op $p $pat $((mib * 1048576 + i % 8 * 65536)) $len"
  done >"$tmp/aio"
echo aio_flush >>"$tmp/aio"
io <"$tmp/aio" || fail "aio writes"
sed -n 's/^aio_write/read/p' "$tmp/aio" >"$tmp/aio.read"
io <"$tmp/aio.read" || fail "aio writes read back"

# Beyond the end: an error, nothing else.
expect_fail qemu-io -f raw -c 'read 32M 4k' "$(uri "$tmp/sock")" >/dev/null 2>&1

# As the next server sees it, and as the file is.
kill_pid "$NBDKIT_PID"
start_nbdkit "$tmp/sock" name=payroll store="$tmp/store" role=production
patterns | io || fail "after a restart"
[ "$(stat -c %s "$tmp/store")" = $((32 << 20)) ] || fail "the store has another size"
