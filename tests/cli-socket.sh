#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# A running crgd takes no harm from what a broken or hostile client of its admin socket sends: it answers with an
# error or hangs up, and goes on answering others.  Nor from a member of its groups that multicasts
# nonsense, nor from a plugin that says it on its control socket.
. "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/functions.sh"
requires_daemon
requires perl jq
cd "$tmp"

"$CRGCTL" init-pki pki p1 >/dev/null
"$CRGD" --local-hub "$tmp/hub.sock" >hub.log 2>&1 </dev/null &
record_pid $!
mkdir state run
cat >crgd.conf <<EOF
[node]
name = p1
state-dir = $tmp/state
run-dir = $tmp/run
tls-certificates = $tmp/pki/p1
plugin = $PLUGIN
nbdkit = $tmp/evil
[engine]
socket = $tmp/hub.sock
EOF
"$CRGD" --config crgd.conf >crgd.log 2>&1 </dev/null &
crgd=$!
record_pid $crgd
export CRGCTL_SOCKET=$tmp/run/crgd.sock
answers () { [ -n "$("$CRGCTL" --timeout 5 status --json 2>/dev/null)" ]; }
wait_for 15 answers || { cat crgd.log; fail "crgd does not answer"; }
alive ()
{
  is_running $crgd || { tail -n 20 crgd.log; fail "crgd died of: $1"; }
  answers || { tail -n 20 crgd.log; fail "crgd does not answer after: $1"; }
}

# ask BYTES: what crgd answers to these bytes, within 3 s, as lines in 'answer'; 'late' if it doesn't hang up then
ask ()
{
  perl -MIO::Socket::UNIX -e '
    my $s = IO::Socket::UNIX->new (Peer => $ARGV[0]) or die "connect: $!";
    $SIG{ALRM} = sub { print STDERR "late\n"; exit 0 };
    $SIG{PIPE} = "IGNORE";
    alarm 3;
    binmode STDIN;
    local $/;
    print $s <STDIN>;
    $s->flush;
    shutdown ($s, 1);
    $| = 1;
    while (sysread ($s, my $buf, 65536)) { print $buf }
  ' "$CRGCTL_SOCKET" >answer 2>late
}
# refused CODE WHAT: the bytes on stdin get an error with that code
refused ()
{
  ask
  [ "$(head -n1 answer | jq -r .code)" = "$1" ] || { head -c 300 answer; fail "no error $1 for: $2"; }
  [ "$(head -n1 answer | jq -r '.ok == false and (.error | length > 5)')" = true ] || fail "no reason for: $2"
  alive "$2"
}

# --- Meanwhile: a member of its groups.  What it says in the name of p1 has another sender, and its own words make no sense.
perl -MIO::Socket::UNIX -e '
  my $s = IO::Socket::UNIX->new (Peer => $ARGV[0]) or die;
  $SIG{PIPE} = "IGNORE";
  srand 1;
  sub frame { my ($type, $group, $payload) = @_;
    $s->print (pack ("VCCvVVQ<", 0x48475243, 1, $type, length $group, 666, length $payload, 0), $group, $payload) }
  frame (1, "", pack ("V", 1000));
  frame (4, $_, "") for "\@cluster", "books";
  $s->flush;
  sleep 1; # the views
  my $deep = "[" x 100000;
  for my $t ("", "null", "{", "[]", "$deep", "{\"t\":\"hello\",\"x\":$deep", "\xff" x 1000, "x" x 1000000,
             map ("{\"t\":\"$_\",\"from\":\"p1\",\"crgs\":[1,{}],\"tx\":7,\"def\":[],\"state\":\"zz\",\"node\":\"p1\"}",
                  "hello", "prepare", "prepared", "create", "created", "node-prepare", "node-prepared", "abort", "forget", "?"),
             map (join ("", map (chr (rand 256), 1 .. $_)), 1 .. 200)) {
    frame (7, $_, $t) for "\@cluster", "books";
  }
  $s->flush;
  sleep 1;
  $s->print ("\0" x 5000); # no frame
  $s->flush;
  print "gone\n" if !defined sysread ($s, my $buf, 1) || 1;
' "$tmp/hub.sock" >member.out 2>&1 &
member=$!
record_pid $member

# ... and a plugin: each of its control connections, which crgd makes anew when one is of no use, goes wrong in a way of its own
cat >evil <<'EOF'
#!/usr/bin/perl
use strict; use warnings; use IO::Socket::UNIX; use IO::Select;
my %a = map { /^([a-z-]+)=(.*)/ ? ($1 => $2) : () } @ARGV;
my $s = IO::Socket::UNIX->new (Type => SOCK_STREAM, Local => $a{control}, Listen => 5) or die "$a{control}: $!";
my $dir = $0 =~ s,/[^/]*$,,r;
$SIG{PIPE} = 'IGNORE';
my $status = qq({"id":1,"ok":true,"lineage":"$a{lineage}","role":"none","links":[{"site":"x","state":7},3],"waits":{"a":1}});
my $ok = "$status\n" . join "", map { qq({"id":$_,"ok":true,"generation":-5,"store":[]}\n) } 2 .. 30;
# Those that answer well come between: who never does is given up.
my @modes = (
  [garbage => "hello\n"], [endless => "x" x 2000000], [ok => $ok], [deep => '{"a":' . '[' x 100000 . "\n"], [half => '{"id":1,"ok":tr'],
  [twice => "$status\n$ok"], [array => "[1]\n"], [text => "\xff\xfe{}\n"],
  [events => join ("", map ({ qq({"event":"$_","site":-7,"seq":-1,"reason":"\\u00e9","boot_id":"q"}\n{"event":"$_","site":1e300}\n) }
     qw(copy-lost copy-back copy-ready store-failed link verify x)) x 300, $ok, qq({"event":"y"}\n) x 3000)],
  [ids => join "", map { qq({"id":$_,"ok":true}\n) } 0, -1, 2, 3, '9223372036854775807', 1.5, '"1"'],
  [types => qq({"id":1,"ok":true,"lineage":7,"role":{},"tenure":"x"}\n)],
  [big => qq({"id":1,"ok":true,"lineage":"$a{lineage}","hold_reason":") . "y" x 900000 . qq(","links":[) . join (",", ("{}") x 9000) . "]}\n$ok"],
);
my $n = -1;
open my $log, '>>', "$dir/evil.log" or die;
$log->autoflush (1);
if (open my $count, '<', "$dir/evil.count") { $n = <$count>; }
while (my $c = $s->accept) {
  $n++;
  open my $count, '>', "$dir/evil.count"; print $count $n; close $count;
  my ($name, $what) = @{$modes[$n < @modes ? $n : 0]};
  print $log "$name\n";
  print $c $what;
  $c->flush;
  # crgd hangs up, or has heard it all.
  IO::Select->new ($c)->can_read (0.2) && sysread ($c, my $buf, 65536) or last for 1 .. 3;
  close $c;
}
EOF
chmod +x evil
truncate -s 8M store
cat >books.conf <<EOF
[crg]
name = books
[node p1]
id = 1
site = rome
role = primary
address = 127.0.0.1
[iasp ledger]
store = $tmp/store
export = unix:$tmp/export
EOF
"$CRGCTL" create books.conf || { tail -n 20 crgd.log; fail "no CRG"; }
"$CRGCTL" start books --wait 1 >start.out 2>&1 &
start=$!
record_pid $start

# --- not what a request is
refused 9 "no JSON" <<<'hello'
refused 9 "no object" <<<'[1,2]'
refused 9 "no command" <<<'{"v":1}'
refused 9 "a command that is a number" <<<'{"v":1,"cmd":7}'
refused 9 "an unknown command" <<<'{"v":1,"cmd":"reboot"}'
refused 9 "no version" <<<'{"cmd":"status"}'
refused 9 "a later version" <<<'{"v":2,"cmd":"status"}'
refused 9 "a key twice" <<<'{"v":1,"v":1,"cmd":"status"}'
refused 9 "create without a definition" <<<'{"v":1,"cmd":"create"}'
refused 9 "create with a string" <<<'{"v":1,"cmd":"create","def":"x"}'
refused 9 "create with an empty definition" <<<'{"v":1,"cmd":"create","def":{}}'
refused 9 "create with a foreign key" <<<'{"v":1,"cmd":"create","def":{"name":"a","colour":1}}'
refused 10 "a CRG that is not there" <<<'{"v":1,"cmd":"start","crg":"absent"}'
refused 9 "no IASP" <<<'{"v":1,"cmd":"uri"}'
# Names that are cut for the answer, in the middle of a character.
long=$(printf 'é%.0s' {1..200})
for pad in '' x; do
  refused 10 "a long IASP" <<<"{\"v\":1,\"cmd\":\"uri\",\"iasp\":\"$pad$long\"}"
  refused 10 "a long CRG" <<<"{\"v\":1,\"cmd\":\"status\",\"crg\":\"$pad$long\"}"
done

# --- bytes that are no text, lines without end, depth without end
head -c 100000 /dev/urandom | { ask; }
alive "random bytes"
printf '{"v":1,"cmd":"sta\0tus"}\n' | { ask; }
alive "a NUL"
head -c 3000000 /dev/zero | tr '\0' 'x' | { ask; }
alive "a line of 3 MB"
{ printf '{"v":1,"cmd":"status","x":'; head -c 50000 /dev/zero | tr '\0' '['; echo; } | { ask; }
alive "50000 levels"
printf '{"v":1,"cmd":"status"' | { ask; }
alive "half a request"
: | { ask; }
alive "nothing"

# --- several requests at once are each answered
for i in 1 2 3; do echo '{"v":1,"cmd":"status"}'; done | { ask; }
[ "$(grep -c '"ok": *true' answer)" = 3 ] || { cat answer; fail "not three answers"; }

# --- a reader that does not read, and a crowd that says nothing
perl -MIO::Socket::UNIX -e '
  my $s = IO::Socket::UNIX->new (Peer => $ARGV[0]) or die;
  $SIG{PIPE} = "IGNORE";
  $s->blocking (0);
  for (1 .. 20000) { last unless defined syswrite ($s, "{\"v\":1,\"cmd\":\"status\"}\n"); }
  sleep 1;
' "$CRGCTL_SOCKET"
alive "a client that does not read"
perl -MIO::Socket::UNIX -e '
  my @s;
  for (1 .. 200) { my $s = IO::Socket::UNIX->new (Peer => $ARGV[0]) or last; push @s, $s; }
  $| = 1;
  print scalar @s, "\n";
  sleep 30;
' "$CRGCTL_SOCKET" >crowd &
crowd=$!
record_pid $crowd
wait_for 20 test -s crowd || fail "no crowd"
[ "$(cat crowd)" -ge 100 ] || fail "the crowd is $(cat crowd)"
alive "a crowd of silent clients" # which is still there
is_running $crowd || fail "the crowd has gone"
stop_pid $crowd
rss=$(awk '/^VmRSS/ { print $2 }' /proc/$crgd/status)
[ "$rss" -lt 200000 ] || fail "crgd holds $rss KiB"

# --- what came of the member and of the plugin
evils () { [ "$(sort -u evil.log 2>/dev/null | wc -l)" = 12 ]; }
wait_for 30 evils || { sort evil.log | uniq -c; tail -n 40 crgd.log; fail "crgd gave up on its plugin too soon"; }
alive "a plugin that says nonsense"
grep -q 'the plugin sent what is not our protocol' crgd.log || fail "nobody heard the nonsense"
expect_fail "$CRGCTL" is serving books || fail "it believes that it serves"
gave_up () { grep -q 'gave up production: the plugin sent what is not our protocol' crgd.log; }
wait_for 20 gave_up || { tail -n 20 crgd.log; fail "it tries a plugin that says nonsense for ever"; }
wait $start || true
wait $member || true
alive "a member that says nonsense"
rss=$(awk '/^VmRSS/ { print $2 }' /proc/$crgd/status)
[ "$rss" -lt 200000 ] || fail "crgd holds $rss KiB"

# --- so are several that the group answers, and then crgd hangs up
for c in end start end; do echo '{"v":1,"cmd":"'$c'","crg":"books"}'; done | { ask; }
[ "$(grep -c '"ok": *true' answer)" = 3 ] || { cat answer; fail "not three answers of the group"; }
[ ! -s late ] || fail "crgd does not hang up when it has answered"

# --- it ends when it is asked to
kill -TERM $crgd
wait_for 10 not_running $crgd || fail "crgd does not end"
status=0
wait $crgd || status=$?
[ $status = 0 ] || { tail -n 20 crgd.log; fail "crgd ended with $status"; }
