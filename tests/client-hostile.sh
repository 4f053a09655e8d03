#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Nodes and exports that tell the proxy nonsense: no JSON, no end, silence, another IASP, a URI of another
# export; an NBD server that hangs up, talks rubbish, stops in the handshake, or is somebody else's.  Each is a
# reason that the status shows; the request waits meanwhile, and is answered when the truth is told.
. "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/functions.sh"
. "$CRG_SRC_DIR/tests/pair-functions.sh"
. "$CRG_SRC_DIR/tests/client-functions.sh"
requires qemu-io perl jq openssl
requires_plugin
cd "$tmp"
mirror_pki
mirror_record 1 0
mkdir n0
sed 's/"tenure":1/"tenure":5/' record >n0/record
mirror_node n0 0
mirror_ctl n0 --commit --lease 60000
tell n0 '"cmd":"role","role":"production","tenure":5'

# says TEXT: what the node answers from now on
says () { printf '%s' "$1" >where.new; mv where.new where; }
# at SOCKET [IASP [URI]]: that production is there
at ()
{
  printf '{"ok":true,"node":"n0","iasp":"%s","host":"n0","uri":"%s","tenure":5,"loss":0,"size":67108864}\n' \
    "${2-payroll}" "${3-nbd+unix:///payroll?socket=$1}"
}
says "$(at "$tmp/n0/nbd")
"
"$CRG_SRC_DIR/tests/answerer" "$tmp/crgd.sock" "$tmp/where" >answerer.out 2>&1 &
answerer=$!
record_pid $answerer
wait_for 5 grep -qs ready answerer.out

# A server for each way of being no NBD server.
perl -MIO::Socket::UNIX -e '
  $SIG{PIPE} = "IGNORE";
  my %s = map { $_ => IO::Socket::UNIX->new (Type => SOCK_STREAM, Local => "$ARGV[0]/$_", Listen => 16) || die } @ARGV[1 .. $#ARGV];
  my @held;
  $| = 1;
  print "ready\n";
  for (;;) {
    my $set = "";
    vec ($set, fileno $_, 1) = 1 for values %s;
    select ($set, undef, undef, undef) > 0 or next;
    for my $mode (keys %s) {
      next unless vec ($set, fileno $s{$mode}, 1);
      my $c = $s{$mode}->accept or next;
      syswrite $c, "NBDMAGIC" . pack ("H*", "49484156454f5054") . pack ("n", 0xffff) if $mode eq "half";
      syswrite $c, "rubbish " x 1000 if $mode eq "rubbish";
      push @held, $c unless $mode eq "gone";
      shift @held if @held > 40;
    }
  }' "$tmp" gone rubbish half >servers.out 2>&1 &
record_pid $!
wait_for 5 grep -qs ready servers.out
"$CRG_NBDKIT" -f -U "$tmp/other" null 64M >other.log 2>&1 </dev/null &
record_pid $!
wait_for 5 test -S other

start_proxy p iasp=payroll nodes="unix:$tmp/crgd.sock"
qemu-io -f raw -c "write -P 1 0 64k" "$(proxy_uri p)" >out || fail "$(cat out p.log)"
rss () { awk '/^VmRSS/ { print $2 }' "/proc/$PROXY_PID/status"; }
before=$(rss)

# The proxy loses production, and is told this instead.  What it asked after that was told has been
# dealt with when it asks once more: there is one thread that does so.
asked () { wc -l <where.asked; }
asks_twice () { [ "$(asked)" -ge $((before_it + 2)) ]; }
# lies WHAT ANSWER PATTERN: for that it waits
lies ()
{
  local reason
  says "$2"
  before_it=$(asked)
  wait_for 20 asks_twice || fail "$1: it asks no more: $(proxy_status p .)"
  reason=$(proxy_status p '.wait.reason // ""')
  echo "$1: $reason"
  grep -qE "$3" <<<"$reason" || fail "$1: that is not why it waits"
  is_running "$PROXY_PID" || { cat p.log; fail "$1: the proxy died"; }
  is_running $reader || fail "$1: the request was answered: $(cat read.out)"
}
says 'no JSON
'
kill_pid "$PID_n0"
stop_pid "$CTLPID_n0"
qemu-io -f raw -c "read -P 1 0 64k" "$(proxy_uri p)" >read.out 2>&1 &
reader=$!
record_pid $reader
lies "no JSON" 'no JSON
' 'it is not JSON'
lies "another IASP" "$(at "$tmp/other" ledger)
" 'it is about another IASP'
lies "a line without end" "$(head -c 100000 /dev/zero | tr '\0' x)" 'not JSON|too long'
lies "the URI of another export" "$(at x payroll "nbd+unix:///ledger?socket=$tmp/other")
" 'not one of IASP payroll'
lies "nobody there" "$(at "$tmp/nobody")
" 'host n0: .*No such file'
lies "it hangs up" "$(at "$tmp/gone")
" 'host n0: .*(disconnected|closes|reset|Broken pipe)'
lies "rubbish" "$(at "$tmp/rubbish")
" 'host n0: .*magic'
lies "somebody else's export" "$(at "$tmp/other")
" 'none of nbd-crg'
lies "half a handshake" "$(at "$tmp/half")
" 'does not finish the handshake'
kill -STOP $answerer
wait_for 10 eval "proxy_status p .wait.reason | grep -q 'no answer'" || fail "silence: $(proxy_status p .wait)"
kill -CONT $answerer
after=$(rss)
[ -n "${CRG_SANITIZE-}" ] || [ $((after - before)) -lt 16384 ] || fail "the proxy grew by $((after - before)) KiB"

# The truth.
mirror_node n0 0
mirror_ctl n0 --commit --lease 60000
tell n0 '"cmd":"role","role":"production","tenure":5'
says "$(at "$tmp/n0/nbd")
"
wait_for 30 not_running $reader || fail "no answer: $(proxy_status p .)"
wait $reader || fail "the request failed: $(cat read.out p.log)"
! grep -qE 'failed|error' read.out || { cat read.out; fail "wrong data"; }
[ "$(proxy_status p .state)" = connected ] || fail "$(proxy_status p .)"
