#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# What crgd says to a service manager, heard on a real datagram socket: READY when it is, STATUS,
# WATCHDOG from its own loop (none while that stands still), STOPPING.  And its units are well formed.
. "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/functions.sh"
requires_daemon
requires perl
cd "$tmp"

# listen: one datagram a line, newlines as '|', until it is killed
cat >listen <<'END'
use Socket;
my $path = $ARGV[0];
$path =~ s/^@/\0/;
socket (my $s, AF_UNIX, SOCK_DGRAM, 0) or die "socket: $!";
bind ($s, pack_sockaddr_un ($path)) or die "bind: $!";
$| = 1;
print "listening\n";
while (defined recv ($s, my $text, 65536, 0)) {
  chomp $text;
  $text =~ tr/\n/|/;
  print "$text\n";
}
END

mkdir state run
cat >crgd.conf <<END
[node]
name = n1
state-dir = $tmp/state
run-dir = $tmp/run
tls-certificates = $tmp/pki
[engine]
type = local
socket = $tmp/hub.sock
END

# begin SOCKET WATCHDOG_USEC OPTION...: a listener and a crgd that speaks to it
begin ()
{
  local socket=$1 usec=$2
  shift 2
  perl listen "$socket" >said 2>&1 &
  listener=$!
  record_pid $listener
  wait_for 10 grep -qs listening said || { cat said; fail "no listener"; }
  NOTIFY_SOCKET=$socket WATCHDOG_USEC=$usec "$CRGD" "$@" -c crgd.conf >>crgd.log 2>&1 &
  crgd=$!
  record_pid $crgd
  wait_for 10 grep -qs '^READY=1|STATUS=node n1' said || { cat said crgd.log; fail "it did not say READY"; }
}
finish ()
{
  wait $crgd || fail "crgd ended with $?"
  wait_for 5 grep -qs "^STOPPING=1|STATUS=$1" said || { cat said; fail "it did not say STOPPING, $1"; }
  kill $listener
  wait $listener 2>/dev/null || :
}
fed () { [ "$(grep -c '^WATCHDOG=1$' said)" -gt "$1" ]; }

begin "$tmp/notify.sock" 200000
wait_for 10 fed 5 || { cat said; fail "the watchdog is not fed"; }
"$CRGCTL" -s run/crgd.sock status >/dev/null 2>&1 || [ $? != 3 ] || fail "ready, and it does not answer"
kill -STOP $crgd
sleep 0.3
before=$(grep -c '^WATCHDOG=1$' said)
sleep 1
[ "$(grep -c '^WATCHDOG=1$' said)" = "$before" ] || fail "a process that stands still feeds the watchdog"
kill -CONT $crgd
wait_for 5 fed "$before" || fail "it does not feed the watchdog any more"
kill -TERM $crgd
finish "ending; the plugins serve on"

# In the abstract name space; without a watchdog; another end.
rm -f said
begin "@crg-test-$$" ""
kill -INT $crgd
finish "ending, with the plugins"
! fed 0 || fail "it feeds a watchdog that nobody asked for"

rm -f said
begin "$tmp/notify2.sock" "" --hand-over
kill -TERM $crgd
finish "ending, after handing over"

# A watchdog that is meant for another process, and a socket that is none.
WATCHDOG_PID=1 NOTIFY_SOCKET=relative "$CRGD" -c crgd.conf >odd.log 2>&1 &
crgd=$!
record_pid $crgd
wait_for 10 grep -qs 'node n1 ready' odd.log || { cat odd.log; fail "a bad NOTIFY_SOCKET keeps it from starting"; }
grep -q "NOTIFY_SOCKET=relative" odd.log || fail "a bad NOTIFY_SOCKET is not reported"
kill -TERM $crgd
wait $crgd || fail "crgd"

# The units
for u in crgd crgd-leave crg-attach@; do
  [ -s "$CRG_BUILD_DIR/units/$u.service" ] || fail "no unit $u"
  ! grep -q '@[a-z]*dir@' "$CRG_BUILD_DIR/units/$u.service" || fail "$u: not filled in"
done
command -v systemd-analyze >/dev/null || { echo "no systemd-analyze: the units were not verified"; exit 0; }
mkdir units
for u in crgd crgd-leave crg-attach@; do
  sed -e "s,^\(Exec[A-Za-z]*=-*\)[^ ]*/\(crgd\|crgctl\) ,\1$CRG_BUILD_DIR/\2 ,;/^Documentation=/d" \
    "$CRG_BUILD_DIR/units/$u.service" >units/$u.service
done
cp units/crg-attach@.service units/crg-attach@payroll.service
SYSTEMD_UNIT_PATH=$tmp/units: systemd-analyze verify --man=no units/crgd.service units/crgd-leave.service units/crg-attach@payroll.service >verify 2>&1 ||
  { cat verify; fail "systemd-analyze verify"; }
! grep -E "$tmp/units" verify || { cat verify; fail "systemd-analyze has something to say"; }
if systemd-analyze security --offline=true --threshold=40 units/crgd.service >security 2>&1; then
  tail -n 1 security
elif grep -q 'Overall exposure' security; then
  cat security
  fail "the unit is less confined than it was"
fi
