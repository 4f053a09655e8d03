#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Known host bug 1: when .zero is not supported the host writes zeroes in pieces of 64 MiB and never
# advances its offset.  A zero request of 128 MiB is right here, also on a store that has no zero
# range (tmpfs), and so is a copy by nbdcopy, which sends such requests.
# timeout: 180
. "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/functions.sh"
requires nbdcopy cmp
requires_plugin

big=$((128 << 20))
full () { yes 'not zero' 2>/dev/null | head -c "$1" || :; } # BYTES
check_zero () # STORE OPTION...
{
  local store=$1
  shift
  full 160M >"$store"
  start_nbdkit "$tmp/sock" name=payroll store="$store" role=production "$@"
  "$CRG_BUILD_DIR/tests/hostbug" zero "$(uri "$tmp/sock")" 16781317 $big || fail "$store: zero failed"
  kill_pid "$NBDKIT_PID"
  { full 16781317; head -c $big /dev/zero; } >"$tmp/want"
  cmp -n $((16781317 + big)) "$tmp/want" "$store" || fail "$store: not zeroed from first to last"
  full 160M | tail -c 1000 | cmp - <(tail -c 1000 "$store") || fail "$store: zeroed too much"
}
check_zero "$tmp/store"
check_zero "$tmp/store" direct=off
if shm=$(mktemp /dev/shm/crg-XXXXXX 2>/dev/null); then
  cleanup_fn rm -f "$shm"
  [ "$(stat -f -c %T /dev/shm)" = tmpfs ] && check_zero "$shm" && check_zero "$shm" direct=off
fi

# nbdcopy: an image with a hole of 130 MiB over a store that is full of data.
{ head -c 8M /dev/urandom; head -c $((130 << 20)) /dev/zero; head -c 8M /dev/urandom; } >"$tmp/image"
full 146M >"$tmp/store"
start_nbdkit "$tmp/sock" name=payroll store="$tmp/store" role=production
nbdcopy --flush "$tmp/image" "$(uri "$tmp/sock")"
kill_pid "$NBDKIT_PID"
cmp "$tmp/image" "$tmp/store" || fail "nbdcopy"
