#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# crgctl node and recover refuse what makes no sense before any daemon is asked, and complete their
# words.  What they do is shown by join-domain, join-recover and group-domain.
. "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/functions.sh"
unset CRGCTL_SOCKET
cd "$tmp"

# refused CODE REASON WORD...: and without a daemon, so the socket does not exist
refused ()
{
  local want=$1 reason=$2 got=0
  shift 2
  "$CRGCTL" --socket "$tmp/absent.sock" "$@" >out 2>err </dev/null || got=$?
  [ $got = "$want" ] || { cat out err; fail "exit $got, not $want: $*"; }
  grep -qF -- "$reason" err || { cat err; fail "stderr lacks: $reason"; }
}
refused 9 "operand is missing" node add
refused 9 "neither add, mark-failed, remove, set nor replace" node move payroll p1
refused 9 "crgctl node replace CRG OLD NEW" node replace payroll p1
refused 9 "crgctl node remove CRG NODE" node remove payroll p1 p2
refused 9 "--address is missing" node add payroll c2 --site milan --store /dev/x
refused 9 "--votes '101'" node add payroll c2 --site milan --store /dev/x --address 192.0.2.1 --votes 101
refused 9 "--id '0'" node add payroll c2 --site milan --store /dev/x --address 192.0.2.1 --id 0
refused 9 "each is IASP=PATH" node add payroll c2 --site milan --store /dev/x --store b=/dev/y --address 192.0.2.1
refused 9 "nothing to set" node set payroll c2
refused 9 "--role 'witness'" node set payroll c2 --role witness
refused 9 "--order '16'" node set payroll c2 --order 16
refused 9 "not an option of this command" node set payroll c2 --to p1
refused 9 "--without is missing" recover payroll --i-confirm-they-are-dead
refused 8 "--i-confirm-they-are-dead" recover payroll --without p1,p2
# what makes sense is asked for
refused 6 "absent.sock" node set payroll c2 --votes 2
refused 6 "absent.sock" recover payroll --without p1 --i-confirm-they-are-dead

words=$("$CRGCTL" complete node | grep -v -- '^--' | tr '\n' ' ')
[ "$words" = "add mark-failed remove replace set " ] || fail "completion of node: $words"
"$CRGCTL" complete node set | grep -qx -- --votes || fail "completion lacks --votes"
