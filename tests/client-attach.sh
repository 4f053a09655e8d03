#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# crgctl attach and detach where they can't: what is wrong is said, with its exit code, and nothing
# is left behind.  (What they can is in client-kernel.)
. "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/functions.sh"
. "$CRG_SRC_DIR/tests/client-functions.sh"
requires openssl jq
requires_daemon
cd "$tmp"
run=$tmp/run

refused () # CODE PATTERN WORD...
{
  local want=$1 pattern=$2 code=0
  shift 2
  timeout 30 "$CRGCTL" "$@" --run-dir "$run" >out 2>err || code=$?
  [ $code = "$want" ] || { cat err; fail "$*: ended with $code, not $want"; }
  grep -q -- "$pattern" err || { cat err; fail "$*: no word of '$pattern'"; }
  [ ! -s out ] || fail "$*: printed $(cat out)"
}
use=(--nbdkit "$CRG_NBDKIT" --plugin "$CRG_PLUGIN")
refused 9 'which IASP' attach
refused 9 'not the name of an IASP' attach Pay/roll --nodes unix:/s
refused 9 'is no /dev/nbdN' attach payroll /dev/sda --nodes unix:/s
refused 9 'which nodes' attach payroll
refused 9 'not of the form' attach payroll --nodes 'p 1'
refused 9 'give --tls-certificates' attach payroll --nodes p1
refused 9 'absent: No such file' attach payroll --nodes p1 --tls-certificates absent
refused 9 "can't read the CA's certificate" attach payroll --nodes p1 --tls-certificates "$tmp"
refused 9 'from 1 to 16' attach payroll --nodes unix:/s --connections 0
refused 9 'it is needed' attach payroll --nodes unix:/s --nbdkit "$tmp/absent"
refused 9 'it is needed' attach payroll --nodes unix:/s --nbdkit "$CRG_NBDKIT" --plugin "$tmp/absent"
refused 10 'is not attached' detach payroll
refused 10 'is not attached' detach /dev/nbd0
refused 10 'is not attached' attach payroll --list
[ ! -e "$run" ] || fail "something was made: $(ls -R "$run")"
[ "$("$CRGCTL" attach --list --json --run-dir "$run")" = '[]' ]
long=/$(printf 'x%.0s' {1..100})
! "$CRGCTL" attach payroll --nodes unix:/s "${use[@]}" --run-dir "$long" 2>err || fail "a path too long for sockets"
grep -q 'too long a path' err && [ ! -e "$long" ] || { cat err; fail "a path too long for sockets"; }
# A kernel without nbd says so at once.
if [ ! -e /sys/module/nbd ] && [ ! -e /sys/block/nbd0 ]; then
  refused 1 'modprobe nbd\|netlink:' attach payroll --nodes unix:/s "${use[@]}"
  [ -z "$(find "$run" -name 'attach.json' -o -name 'proxy.*')" ] || fail "left behind: $(ls -R "$run")"
  grep -q 'modprobe nbd\|netlink:' "$run/payroll/log" || fail "no word in the log"
fi
