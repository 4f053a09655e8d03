#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# The admin socket of a running crgd takes no harm from what a broken or hostile client sends: it
# answers with an error or hangs up, and goes on answering others.
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
nbdkit = $CRG_NBDKIT
[engine]
socket = $tmp/hub.sock
EOF
"$CRGD" --config crgd.conf >crgd.log 2>&1 </dev/null &
crgd=$!
record_pid $crgd
export CRGCTL_SOCKET=$tmp/run/crgd.sock
answers () { "$CRGCTL" --timeout 5 status >/dev/null 2>&1; }
wait_for 15 answers || { cat crgd.log; fail "crgd does not answer"; }
alive ()
{
  is_running $crgd || { tail -n 20 crgd.log; fail "crgd died of: $1"; }
  answers || { tail -n 20 crgd.log; fail "crgd does not answer after: $1"; }
}

# ask BYTES: what crgd answers to these bytes, within 3 s, as lines in 'answer'
ask ()
{
  perl -MIO::Socket::UNIX -e '
    my $s = IO::Socket::UNIX->new (Peer => $ARGV[0]) or die "connect: $!";
    $SIG{ALRM} = sub { exit 0 };
    $SIG{PIPE} = "IGNORE";
    alarm 3;
    binmode STDIN;
    local $/;
    print $s <STDIN>;
    $s->flush;
    shutdown ($s, 1);
    $| = 1;
    while (sysread ($s, my $buf, 65536)) { print $buf }
  ' "$CRGCTL_SOCKET" >answer
}
# refused CODE WHAT: the bytes on stdin get an error with that code
refused ()
{
  ask
  [ "$(head -n1 answer | jq -r .code)" = "$1" ] || { head -c 300 answer; fail "no error $1 for: $2"; }
  [ "$(head -n1 answer | jq -r '.ok == false and (.error | length > 5)')" = true ] || fail "no reason for: $2"
  alive "$2"
}

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

# --- it ends when it is asked to
kill -TERM $crgd
wait_for 10 not_running $crgd || fail "crgd does not end"
status=0
wait $crgd || status=$?
[ $status = 0 ] || { tail -n 20 crgd.log; fail "crgd ended with $status"; }
