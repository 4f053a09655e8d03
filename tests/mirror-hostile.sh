#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Hostile peers with good certificates on the mirror link.  A production that replays, skips,
# repeats, lies about lengths, asks for what it can't be told, breaks off in the middle or floods gets an error and loses its link, and
# changes nothing at the copy.  Copies, up to seven at once, that are silent, acknowledge what was never
# sent or asked for, answer for another tenure or without end lose their link with a reason, while the recorder writes
# without a pause to speak of.  A write that waits for such a copy is not answered by a lie, and waits
# no longer than the suspend timeout.
# timeout: 180
. "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/functions.sh"
. "$CRG_SRC_DIR/tests/pair-functions.sh"
requires qemu-io openssl cmp perl
requires_plugin
cd "$tmp"
bad=$CRG_BUILD_DIR/tests/badpeer
recorder=$CRG_BUILD_DIR/tests/recorder/recorder
mirror_sites=(home s1 s2 s3 s4 s5 s6 s7)
mirror_pki
for name in n0 n2 bad; do "$CERTS" node "$tmp/pki" $name; done
rss () { awk '/^VmRSS/ { print $2 }' "/proc/$1/status"; }

# ---- a hostile production, before the good one comes
mirror_record 2 0
mkdir n0 n1
cp record n0/
cp record n1/
mirror_node n1 1
mirror_ctl n1
tell n1 '"cmd":"role","role":"mirror","tenure":1,"peers":["n0","n1","n2"],"production":"n0"'
log=n1/nbd.log

# evil WHAT MODE PATTERN OPTIONS...: closed, and the copy's log says why
evil ()
{
  local what=$1 mode=$2 pattern=$3 from status=0
  shift 3
  from=$(wc -l <$log)
  "$bad/badpeer" "$mode" 127.0.0.1 "$PORT_n1" --ca pki/ca-cert.pem --cert "pki/${CERT:-n0}-cert.pem" \
    --key "pki/${CERT:-n0}-key.pem" --timeout 8000 "$@" >"bad.$mode.out" 2>&1 || status=$?
  echo "$what: $(cat "bad.$mode.out")"
  [ $status = 0 ] || { cat $log; fail "$what: badpeer ended with $status"; }
  wait_for 5 eval "tail -n +$((from + 1)) $log | grep -E '$pattern' >/dev/null" || { tail -n +$((from + 1)) $log; fail "$what: no '$pattern' in the log"; }
}
evil "data before HELLO" data-first 'data before HELLO|another frame came where HELLO should'
evil "another lineage" hello 'another lineage' --lineage 85
evil "another node's certificate" hello 'certificate names another node' --node n2
evil "another site" hello 'another cluster, CRG, IASP or site' --peer-site 2
evil "a store too small for it" hello 'too small' --size $((1 << 30))
evil "a replayed HELLO" hello 'a newer production host was seen' --tenure 0
evil "HELLO again" hello-again 'a frame that production does not send'
evil "a gap in the sequence" gap 'out of sequence'
evil "a number twice" twice 'out of sequence'
evil "beyond the end" beyond 'beyond the end'
evil "another tenure than its HELLO" other-tenure 'another tenure'
evil "a length that is not the payload's" other-length 'a length that'
evil "an ACK from production" ack 'a frame that production does not send'
evil "a record of another tenure" record 'a record that can.t be used'
evil "an end in the middle of a frame" mid-frame 'closed:'
evil "digests of what is beyond the end" digests-beyond 'beyond the end'
evil "more digests than one answer holds" digests-many 'more digests than one question|DIGEST_REQ that can.t be read'
before=$(rss "$PID_n1")
evil "a flood of questions for digests" digests-flood 'is up, tenure 1'
evil "a flood of PINGs" ping-flood 'is up, tenure 1'
status n1
after=$(rss "$PID_n1")
# Sanitizers keep what was freed.
[ -n "${CRG_SANITIZE-}" ] || [ $((after - before)) -lt 8192 ] || fail "the flood cost $((after - before)) KiB"
CERT=n2 evil "another production of that tenure" hello 'another node is the production host' --node n2
# This one takes long: to be looked at in the end.
evil "a write longer than what comes of it" longer 'nothing heard from' >long.out 2>&1 &
longer=$!
record_pid $longer
evil "TLS, and then nothing" tls 'no HELLO' >mute.out 2>&1 &
mute=$!
record_pid $mute
# A crowd of strangers that say nothing holds all places, and comes again: who has something to say has
# not to wait until they are timed out.
perl -MIO::Socket::INET -MIO::Select -e '
  $| = 1;
  my ($set, $end) = (IO::Select->new, time + 15);
  while (time < $end) {
    while ($set->count < 20) {
      my $s = IO::Socket::INET->new (PeerAddr => "127.0.0.1", PeerPort => $ARGV[0], Timeout => 1) or last;
      $set->add ($s);
    }
    print "crowd\n";
    sysread ($_, my $buf, 100) or $set->remove ($_) for $set->can_read (0.1);
  }' "$PORT_n1" >crowd.out 2>&1 &
record_pid $!
{
  wait_for 10 test -s crowd.out
  start=$(now_ms)
  evil "in a crowd" hello 'a newer production host was seen' --tenure 0 --timeout 15000
  echo $(($(now_ms) - start)) >crowd.ms
} >crowded.out 2>&1 &
crowded=$!
record_pid $crowded

# ---- hostile copies, outside the set
mirror_record 8 0
cp record n0/record
faults n0
mirror_node n0 0 suspend-timeout-ms=6000
mirror_ctl n0 --commit --lease 20000
tell n0 '"cmd":"role","role":"production","tenure":1,"peers":["n0","bad"]'
"$recorder" run --log rec.log --uri "$(uri "$tmp/n0/nbd")" --seconds 120 --rate 500 --connections 2 >rec.out 2>rec.err &
rec=$!
record_pid $rec
wait_for 10 grep -qs ' connected' rec.log || fail "the recorder does not write: $(cat rec.err)"
log=n0/nbd.log
# The writer's answers come in less than the suspend timeout, whatever the copies do.
flows () { "$recorder" wait --log rec.log --more 200 --timeout 5000 || { tail -n 40 $log; status n0; fail "production stands still: $1: $ANSWER"; }; }

# copies MODE=PATTERN...: all at once, one at each site
copies ()
{
  local pid modes=() m site=0
  for m; do modes+=("${m%%=*}"); done
  rm -rf bad
  mkdir bad
  "$bad/badcopy" bad pki/bad-cert.pem pki/bad-key.pem "${modes[@]}" &
  pid=$!
  record_pid $pid
  for m in "${modes[@]}"; do wait_for 5 test -s "bad/$m.port" || fail "no bad copy $m"; done
  wc -l <$log >from
  for m in "${modes[@]}"; do
    site=$((site + 1))
    tell n0 "\"cmd\":\"mirror\",\"site\":$site,\"node\":\"bad\",\"addresses\":[\"127.0.0.1\"],\"port\":$(cat "bad/$m.port"),\"sync\":\"full\""
  done
  flows "${modes[*]}"
  site=0
  for m; do
    site=$((site + 1))
    wait_for 12 eval "tail -n +\$((\$(cat from) + 1)) $log | grep -E 'link to bad at s$site: .*(${m#*=})' >/dev/null" || {
      tail -n +$(($(cat from) + 1)) $log
      fail "${m%%=*}: no '${m#*=}'"
    }
    tail -n +$(($(cat from) + 1)) $log | grep -E "link to bad at s$site: .*(${m#*=})" | sed -n "1s/^/${m%%=*}: /p"
  done
  flows "${modes[*]}"
  for ((site = 1; site <= ${#modes[@]}; site++)); do tell n0 "\"cmd\":\"unmirror\",\"site\":$site"; done
  for m in "${modes[@]}"; do LAST_COUNT[$m]=$(cat "bad/$m.count"); done
  stop_pid $pid
}
declare -A LAST_COUNT
before=$(rss "$PID_n0")
copies tcp-silent='no TLS handshake in' hello-silent='no HELLO, or no answer to it' silent='nothing heard from' \
  map-silent='does not send its map' longer='nothing heard from|does not send its map' no-ack='makes no progress' \
  flap='closed|TLS'
# Broken at once each time, it is tried again seldom: 0.1 + 0.2 + 0.4 ... + 3 s.
[ "${LAST_COUNT[flap]}" -le 9 ] || fail "a copy that breaks its links was tried ${LAST_COUNT[flap]} times"
copies false-ack='acknowledged what was never sent' early-ack='where HELLO_OK should' other-tenure='another tenure' \
  old-tenure='answers for another tenure' data='sends no data' mid-frame='closed|TLS' garbage='not a frame'
copies fork='a fork' new-tenure='newer production host' refuse='refused by bad: .\[31m go . away.$' map-again='out of order' \
  window='forbidden value' again='a copy does not send' flood='overflowed|reset|closed|TLS'
# Whatever copies say of digests, they are sent all: nothing is equal, and no question is answered by another
# answer.  Much of it are zeroes that were written; the copies' answers are there before production has read.
qemu-io -f raw -c "write -P 0 4M 4M" "$(uri "$tmp/n0/nbd")" >qemu.out || fail "zeroes: $(cat qemu.out)"
faults n0 "delay read 2000"
rm -rf bad
mkdir bad
"$bad/badcopy" bad pki/bad-cert.pem pki/bad-key.pem digests digests-short &
BADPID=$!
record_pid $BADPID
for m in digests:1 digests-short:2; do
  wait_for 5 test -s "bad/${m%:*}.port" || fail "no bad copy $m"
  tell n0 "\"cmd\":\"mirror\",\"site\":${m#*:},\"node\":\"bad\",\"addresses\":[\"127.0.0.1\"],\"port\":$(cat "bad/${m%:*}.port"),\"sync\":\"full\""
done
both_in_set () { status n0; [[ $ANSWER == *'"links":[{'*'"in_set":true'*'"in_set":true'* ]]; }
wait_for 12 both_in_set || { tail -n 20 $log; fail "digests: the copies are not filled: $ANSWER"; }
for m in digests digests-short; do
  [ -s "bad/$m.asked" ] || fail "$m: none was asked for"
  echo "$m: asked for $(cat "bad/$m.asked") times"
done
[[ $ANSWER =~ \"resync_equal_bytes\":[1-9] ]] && fail "digests: taken for equal: $ANSWER"
faults n0
flows digests
for site in 1 2; do tell n0 "\"cmd\":\"unmirror\",\"site\":$site"; done
stop_pid $BADPID
after=$(rss "$PID_n0")
# Each link has a bounded buffer; 7 at a time.
[ -n "${CRG_SANITIZE-}" ] || [ $((after - before)) -lt $((7 * 8192)) ] || fail "the copies cost $((after - before)) KiB"
kill -TERM $rec
wait $rec || fail "the recorder: $(cat rec.err)"
cat rec.out
"$recorder" check --log rec.log --uri "$(uri "$tmp/n0/nbd")" || fail "the history has a fault"
[ "$(sed -n 's/.*"errors": *\([0-9]*\).*/\1/p' rec.out)" = 0 ] || fail "the client noticed"
stop_pid "$CTLPID_n0"
stop_pid "$PID_n0"

# ---- a hostile copy in the set: a lie answers no write
# in_set MODE: production n0, anew, and MODE as its only other copy, in the set; no group decides
hostile_set ()
{
  rm -rf n0/store bad
  mkdir bad
  mirror_record 2 0 1
  cp record n0/record
  mirror_node n0 0 suspend-timeout-ms=2000
  mirror_ctl n0 --lease 20000
  tell n0 '"cmd":"role","role":"production","tenure":1,"peers":["n0","bad"]'
  "$bad/badcopy" bad pki/bad-cert.pem pki/bad-key.pem "$1" &
  BADPID=$!
  record_pid $BADPID
  wait_for 5 test -s "bad/$1.port" || fail "no bad copy $1"
  tell n0 "\"cmd\":\"mirror\",\"site\":1,\"node\":\"bad\",\"addresses\":[\"127.0.0.1\"],\"port\":$(cat "bad/$1.port"),\"sync\":\"full\""
  : >n0/answers
  start=$(now_ms)
  qemu-io -f raw -c "write -P 9 0 64k" "$(uri "$tmp/n0/nbd")" >qemu.out 2>&1 &
  writer=$!
  record_pid $writer
}
for mode in false-ack flap; do
  hostile_set $mode
  wait_for 8 grep -q copy-lost n0/answers || { cat n0/nbd.log; fail "$mode: the write waits for it without end"; }
  took=$(($(now_ms) - start))
  echo "$mode, in the set: given up after $took ms"
  [ $took -le 6000 ] || too_slow "$mode: the write waited $took ms"
  is_running $writer || fail "$mode: a write was answered that the copy does not have"
  [[ $(grep -m1 copy-lost n0/answers) =~ \"seq\":([0-9]+) ]] || fail "no number"
  sed 's/"generation":1/"generation":2/; s/"index":1,"name":"s1","in_set":true,"since":1/"index":1,"name":"s1","in_set":false,"since":0/' record >n0/record2
  tell n0 "\"cmd\":\"record\",\"seq\":${BASH_REMATCH[1]},\"record\":$(cat n0/record2)"
  wait_for 5 not_running $writer || fail "$mode: the write is not answered when the copy has left the set"
  wait $writer || fail "$mode: the write failed: $(cat qemu.out)"
  stop_pid $BADPID
  stop_pid "$CTLPID_n0"
  stop_pid "$PID_n0"
done
# What is acknowledged twice counts once.
hostile_set twice
wait_for 5 not_running $writer || { cat n0/nbd.log; fail "twice: the write is not answered"; }
wait $writer || fail "twice: the write failed: $(cat qemu.out)"
qemu-io -f raw -c "write -P 8 1M 1M" -c flush -c "write -P 7 8M 4M" "$(uri "$tmp/n0/nbd")" >qemu.out || fail "twice: $(cat qemu.out)"
[ "$(cat bad/twice.count)" = 1 ] || fail "twice: the link broke"
in_set n0 || fail "twice: $ANSWER"
case $ANSWER in *'"illegal":0'*) ;; *) fail "twice: $ANSWER" ;; esac

# ---- the first part's last one, and its outcome
wait $longer || { cat long.out; fail "the long one"; }
cat long.out
wait $crowded || { cat crowded.out; fail "the crowd"; }
echo "in a crowd: heard after $(cat crowd.ms) ms"
[ "$(cat crowd.ms)" -le 8000 ] || too_slow "a peer is heard after $(cat crowd.ms) ms in a crowd"
wait $mute || { cat mute.out; fail "the one that says nothing in TLS"; }
cat mute.out
status n1
case $ANSWER in *'"linked":true'*) fail "still linked: $ANSWER" ;; esac
# Of all that only the good first writes were done: nothing where the bad ones went.
cmp -n $((mirror_size - (1 << 20))) -i $((1 << 20)):0 n1/store /dev/zero || fail "a bad frame was written"
