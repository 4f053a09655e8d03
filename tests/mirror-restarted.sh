#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# R5, S1, S2: a copy whose machine restarted (another boot id) leaves the set and is filled again; one
# whose process alone died doesn't.  A restarted production store opens only with the loss
# accepted, and a store that another machine did not release, or had claimed, only when that one is fenced.
. "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/functions.sh"
. "$CRG_SRC_DIR/tests/pair-functions.sh"
requires qemu-io openssl cmp perl
requires_plugin
requires_test_build
cd "$tmp"

back_as_mirror ()
{
  mirror_node n1 1
  mirror_ctl n1
  tell n1 "\"cmd\":\"role\",\"role\":\"mirror\",\"tenure\":1,\"peers\":[\"n0\",\"n1\"],\"production\":\"n0\",\"record\":$(cat n0/record)"
}

mirror_pair suspend-timeout-ms=20000
qemu-io -f raw -c "write -P 1 0 1M" "$(uri "$tmp/n0/nbd")" >qemu.out
kill_pid "$PID_n1"
back_as_mirror
case $ANSWER in *'"restarted":false'*) ;; *) fail "the death of a process made the store restarted: $ANSWER" ;; esac
wait_for 10 in_state n0 mirroring || fail "not mirroring: $ANSWER"
! grep -q copy-lost n0/answers || fail "a copy whose process died was removed"
qemu-io -f raw -c "write -P 2 1M 1M" "$(uri "$tmp/n0/nbd")" >qemu.out

# Now the kernel keeps the port of the dead process for a moment, as it does on a busy machine: it is waited for.
kill_pid "$PID_n1"
export CRG_BOOT_ID=abababababababababababababababab
hold='my $s = IO::Socket::INET->new (LocalAddr => "127.0.0.1", LocalPort => $ARGV[0], Listen => 1, ReuseAddr => 1) or exit 1;'
for ((try = 0; try < 50; try++)); do
  perl -MIO::Socket::INET -e "$hold open (my \$f, '>', 'held'); close (\$f); select (undef, undef, undef, 10)" "$PORT_n1" &
  holder=$!
  record_pid $holder
  held () { [ -e held ] || not_running $holder; }
  wait_for 5 held || fail "the port can't be held"
  [ ! -e held ] || break
done
mirror_node n1 1
mirror_ctl n1
start=$(now_ms)
{
  sleep 0.2
  kill -KILL $holder
  now_ms >freed
} &
record_pid $!
tell_any n1 "\"cmd\":\"role\",\"role\":\"mirror\",\"tenure\":1,\"peers\":[\"n0\",\"n1\"],\"production\":\"n0\",\"record\":$(cat n0/record)"
case $ANSWER in
  *'"ok":true'*) ;;
  *) wait_for 5 test -s freed
     [ $(($(cat freed) - start)) -lt 700 ] || too_slow "the port was held too long"
     fail "a port that is free in a moment is not waited for: $ANSWER" ;;
esac
case $ANSWER in *'"restarted":true'*) ;; *) fail "not seen as restarted: $ANSWER" ;; esac
lost () { grep -q copy-lost n0/answers; }
wait_for 5 lost || fail "a restarted copy stays in the set"
wait_for 20 in_set n0 || fail "not filled again: $ANSWER"
qemu-io -f raw -c "write -P 3 2M 1M" -c flush "$(uri "$tmp/n0/nbd")" >qemu.out
same_data || fail "the stores differ"

# Production's machine restarts.
kill_pid "$PID_n0"
mirror_node n0 0
mirror_ctl n0 --commit --lease 3000
tell_any n0 '"cmd":"role","role":"production","tenure":1'
case $ANSWER in *'"code":"restarted"'*) ;; *) fail "opened without the loss being accepted (S2): $ANSWER" ;; esac
tell n0 '"cmd":"role","role":"production","tenure":1,"accept_loss":true'
kill_pid "$PID_n0"

# Another node of the site, on another machine.
export CRG_BOOT_ID=cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd
mkdir n2
ln -s "$tmp/n0/store" n2/store
cp n0/record n2/record
sed -i 's/"tenure":1/"tenure":2/' n2/record
mirror_node n2 0
mirror_ctl n2 --commit --lease 3000
tell_any n2 '"cmd":"role","role":"production","tenure":2,"accept_loss":true'
case $ANSWER in *'"code":"not-released"'*'n0'*|*'n0'*'"code":"not-released"'*) ;; *) fail "opened what another machine has open (S1): $ANSWER" ;; esac
tell n2 '"cmd":"role","role":"production","tenure":2,"fenced":["n0"],"accept_loss":true'
qemu-io -f raw -c "read -P 3 2M 1M" "$(uri "$tmp/n2/nbd")" >qemu.out &
reader=$!
record_pid $reader
wait_for 15 not_running $reader || fail "a read is not answered: $(status n2; echo "$ANSWER")"
! grep -q "Pattern verification failed" qemu.out || fail "wrong data"

# n0 has found it released, and dies between its claim and its open record, which its disk keeps back.
tell n2 '"cmd":"role","role":"none"'
cp n2/record n0/record
faults n0 "delay meta-write 1000000"
export CRG_BOOT_ID=efefefefefefefefefefefefefefefef
mirror_node n0 0
mirror_ctl n0 --commit --lease 60000
eval "echo '{\"id\":999,\"cmd\":\"role\",\"role\":\"production\",\"tenure\":2,\"accept_loss\":true}' >&\$CTLFD_n0"
claimed () { "$CRGCTL" iasp check n0/store | grep -q "node n0 is opening it"; }
wait_for 10 claimed || fail "no claim before the open record (S1): $("$CRGCTL" iasp check n0/store; cat n0/answers)"
faults n0 "delay meta-write 60000000"
second='"cmd":"role","role":"production","tenure":2,"accept_loss":true'
kill_pid "$PID_n0"
faults n0 # the same store
tell_any n2 "$second"
case $ANSWER in
  *'node n0 is opening it'*) ;;
  *'"code":"not-released"'*) too_slow "the open record was there before its disk could be stopped" ;;
  *) fail "opened what another machine was opening (S1): $ANSWER" ;;
esac
tell n2 "$second,\"fenced\":[\"n0\"]"
