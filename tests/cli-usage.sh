#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# crgctl's command line: help, exit codes and messages for wrong usage, for no daemon, and for a
# daemon that is silent, hangs up, refuses, or talks nonsense.
. "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/functions.sh"
requires perl
unset CRGCTL_SOCKET

cd "$tmp"

# status WANT COMMAND...: the exit code is WANT; output in out and err
status ()
{
  local want=$1 got=0
  shift
  "$@" >out 2>err </dev/null || got=$?
  [ "$got" = "$want" ] || { cat out err; fail "exit $got, not $want: $*"; }
}
# says TEXT: stderr holds it
says () { grep -qF -- "$1" err || { cat err; fail "stderr lacks: $1"; }; }

# --- help and version
status 0 "$CRGCTL" --help
grep -q '^usage: crgctl' out
while read -r command _; do
  status 0 "$CRGCTL" help "$command"
  grep -q "^usage: crgctl $command" out
  cp out help
  status 0 "$CRGCTL" "$command" --help
  cmp out help
done < <("$CRGCTL" --help | sed -n '/^Commands:/,/^$/p' | sed '1d;$d')
status 0 "$CRGCTL" --version
grep -Eqx 'crgctl [0-9.]+' out

# --- wrong usage: 9, and how to get on
status 9 "$CRGCTL"
status 9 "$CRGCTL" stauts
says "there is no command 'stauts'; 'crgctl --help' lists them"
status 9 "$CRGCTL" help stauts
status 9 "$CRGCTL" status --colour
says "there is no option '--colour'; 'crgctl help status' lists them"
status 9 "$CRGCTL" status --to p1
says "--to is not an option of this command"
status 9 "$CRGCTL" status a b
says "an operand too many"
status 9 "$CRGCTL" start
says "usage: crgctl start CRG"
status 9 "$CRGCTL" switchover payroll --to
says "--to needs an argument: NODE"
status 9 "$CRGCTL" status --json=yes
says "--json takes no argument"
status 9 "$CRGCTL" status --timeout 0
says "--timeout '0' is not a number from 1 to 86400"
status 9 "$CRGCTL" status --count 3
status 9 "$CRGCTL" is happy payroll
says "'happy' is no predicate; allowed: in-sync, active, serving, production"
status 9 "$CRGCTL" -x
status 9 "$CRGCTL" check-conf
status 9 "$CRGCTL" -s "/$(printf 'x%.0s' {1..200})" status
says "the socket's path is longer than 107 bytes"

# --- files that are not there, or not files
status 10 "$CRGCTL" check-conf absent.conf
says "absent.conf: No such file or directory"
status 10 "$CRGCTL" create absent.conf
status 9 "$CRGCTL" create .
says ".: not a file"
status 10 "$CRGCTL" --conf absent.conf status

# --- no daemon: 6
for args in status "status payroll" "start payroll" "end payroll" "switchover payroll" "uri payroll" \
    "is in-sync payroll" "is active payroll" "is serving payroll" "is production payroll" trace \
    "delete payroll --yes" "mark-failed p1 --i-confirm-it-is-dead"; do
  # shellcheck disable=SC2086
  status 6 "$CRGCTL" -s "$tmp/absent" $args
  says "there is no socket $tmp/absent; start crgd"
done
CRGCTL_SOCKET=$tmp/elsewhere status 6 "$CRGCTL" status
says "$tmp/elsewhere"
mkdir run
printf '[node]\nname = p1\nrun-dir = %s/run\n' "$tmp" >crgd.conf
CRGCTL_SOCKET=$tmp/elsewhere status 6 "$CRGCTL" --conf crgd.conf status
says "$tmp/run/crgd.sock"
status 9 "$CRGCTL" --conf /dev/null status
perl -MIO::Socket::UNIX -e 'IO::Socket::UNIX->new (Local => $ARGV[0], Listen => 1) or die' dead
status 6 "$CRGCTL" -s dead status
says "nobody listens on dead; crgd has died"

# --- without a terminal delete wants --yes, and asks nobody
status 8 "$CRGCTL" -s absent delete payroll
says "say --yes"

status 8 "$CRGCTL" -s absent mark-failed p1
says "make sure that its machine is off"
status 8 "$CRGCTL" -s absent node mark-failed p1
says "make sure that its machine is off"
status 9 "$CRGCTL" -s absent node mark-failed payroll p1
says "crgctl node mark-failed NODE"

# --- answers that are not what they should be
: >answer
"$CRG_SRC_DIR/tests/answerer" sock answer >answerer.log 2>&1 &
record_pid $!
wait_for 10 grep -qsx ready answerer.log
call=("$CRGCTL" -s sock --timeout 10)
answer () { printf '%s\n' "$1" >answer; }

status 6 "${call[@]}" start payroll
says "hung up before it answered"
answer SILENT
start=$(now_ms)
status 3 "$CRGCTL" -s sock --timeout 1 start payroll
says "has said nothing for 1 s"
took=$(($(now_ms) - start))
[ "$took" -ge 900 ] || fail "timeout after $took ms"
[ "$took" -le 9000 ] || too_slow "timeout after $took ms"
# The answerer serves one at a time: a second one, for the rest.
rm sock answerer.log
"$CRG_SRC_DIR/tests/answerer" sock answer >answerer.log 2>&1 &
record_pid $!
wait_for 10 grep -qsx ready answerer.log
answer 'not json'
status 1 "${call[@]}" start payroll
answer '[1]'
status 1 "${call[@]}" start payroll
answer '{"ok":true}'
status 0 "${call[@]}" start payroll
[ "$(tail -n1 answer.asked | tr -d ' ')" = '{"cmd":"start","crg":"payroll","v":1}' ] || { cat answer.asked; fail "asked something else"; }
printf '{"progress":"one"}\n{"progress":"two"}\n{"ok":true}\n' >answer
status 0 "${call[@]}" end payroll
[ "$(cat err)" = $'one\ntwo' ]
printf '{"progress":"one"}\n' >answer
status 6 "${call[@]}" end payroll
answer '{"ok":true}'
status 1 "${call[@]}" uri payroll
says "answered without a URI"
answer '{"ok":true,"uri":"nbd+unix:///payroll?socket=/x","node":"p1"}'
status 0 "${call[@]}" uri payroll
[ "$(cat out)" = 'nbd+unix:///payroll?socket=/x' ]

answer '{"ok":true,"crgs":[{"name":"a","nodes":[{"name":"p1"}]},{"name":"b","nodes":[{"name":"x"}]}]}'
: >answer.asked
status 0 "${call[@]}" mark-failed p1 --i-confirm-it-is-dead
[ "$(sed -n 2p answer.asked | tr -d ' ')" = '{"cmd":"mark-failed","crg":"a","node":"p1","v":1}' ]
[ "$(wc -l <answer.asked)" = 2 ]
status 10 "${call[@]}" mark-failed p1 --crg b --i-confirm-it-is-dead
says "there is no node 'p1' in CRG b"
status 10 "${call[@]}" mark-failed p9 --i-confirm-it-is-dead

# Every code of the table comes through; what is not in it is an error.
while read -r code _; do
  [ "$code" != 0 ] || continue
  answer "{\"ok\":false,\"code\":$code,\"error\":\"because of $code\"}"
  status "$code" "${call[@]}" switchover payroll --to p2
  says "crgctl switchover: because of $code"
done < <("$CRGCTL" exit-codes)
for code in 0 11 -1 99 '"x"' null; do
  answer "{\"ok\":false,\"code\":$code,\"error\":\"odd\"}"
  status 1 "${call[@]}" end payroll
done
answer '{"ok":false}'
status 1 "${call[@]}" end payroll
says "gave no reason"
