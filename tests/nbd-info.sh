#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# What nbdinfo sees of a plain export: size, flags, block sizes, extents; a wrong export name.
. "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/functions.sh"
requires nbdinfo jq
requires_plugin

truncate -s 64M "$tmp/store"
dd if=/dev/urandom of="$tmp/store" bs=1M seek=8 count=1 conv=notrunc status=none
start_nbdkit "$tmp/sock" name=payroll store="$tmp/store" role=production
named="nbd+unix:///payroll?socket=$tmp/sock"

nbdinfo --json "$named" >"$tmp/info"
jq . "$tmp/info"

want ()
{
  local got
  got=$(jq -r ".exports[0].$1" "$tmp/info")
  [ "$got" = "$2" ] || fail "$1 is $got, want $2"
}
want '"export-size"' $((64 << 20))
want is_read_only false
for flag in can_cache can_fast_zero can_flush can_fua can_multi_conn can_trim can_zero; do
  want $flag true
done
want block_size_preferred 4096
want block_size_maximum $((4 << 20))
min=$(jq -r '.exports[0].block_size_minimum' "$tmp/info")
case $min in 1 | 512) ;; *) fail "block_size_minimum is $min" ;; esac

# The predicates, one by one, as a script would ask.
for flag in cache fast-zero flush fua multi-conn trim write zero; do
  nbdinfo --can $flag "$named" || fail "nbdinfo --can $flag says no"
done
! nbdinfo --is read-only "$named" || fail "read-only"

# Extents: data where data was written, holes elsewhere.
nbdinfo --map --json "$named" >"$tmp/map"
jq -c . "$tmp/map"
[ "$(jq '[.[].length] | add' "$tmp/map")" = $((64 << 20)) ] || fail "the map has gaps"
data=$(jq '[.[] | select(.type == 0) | .length] | add' "$tmp/map")
[ "$data" -ge $((1 << 20)) ] && [ "$data" -le $((2 << 20)) ] || fail "$data bytes of data in the map"
[ "$(jq '[.[] | select(.type == 0)][0].offset' "$tmp/map")" = $((8 << 20)) ] ||
  fail "the data is not at 8 MiB"

# The export of that name is listed; another name is refused, and the server goes on.
nbdinfo --list "nbd+unix:///?socket=$tmp/sock" >"$tmp/list"
grep -q '^export="payroll"' "$tmp/list" || { cat "$tmp/list"; fail "payroll is not listed"; }
expect_fail nbdinfo "nbd+unix:///absent?socket=$tmp/sock" 2>"$tmp/err"
cat "$tmp/err"
nbdinfo --size "$named" >/dev/null || fail "no service after a wrong export name"
