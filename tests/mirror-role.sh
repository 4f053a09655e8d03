#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Roles: a client on a mirror copy is refused and told where production is; a store that is open
# (S1), of another group, of a newer tenure (R1) or that disagrees with the record (R4, R6) is
# refused; role=production by hand is refused on it (S3); release, promotion and the way back.
. "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/functions.sh"
. "$CRG_SRC_DIR/tests/pair-functions.sh"
requires qemu-io nbdinfo openssl cmp prlimit
requires_plugin
cd "$tmp"

refused () # NAME CODE FIELDS: the command must fail with this code
{
  tell_any "$1" "$3"
  case $ANSWER in *'"ok":false'*"\"code\":\"$2\""*|*"\"code\":\"$2\""*'"ok":false'*) ;;
    *) fail "{$3}: not refused with $2: $ANSWER" ;;
  esac
}

mirror_pair
! nbdinfo --size "$(uri "$tmp/n1/nbd")" >out 2>&1 || fail "a client was let in to a mirror copy"
grep -q "mirror copy of payroll; production is at n0" n1/nbd.log || fail "no clear refusal in the log"
! nbdinfo --size "nbd+unix:///nothere?socket=$tmp/n0/nbd" >out 2>&1 || fail "another export name"
[ "$(nbdinfo --size "$(uri "$tmp/n0/nbd")")" = $mirror_size ] || fail "size of the export"

# The lock of S1: another node of its site, on this machine, so in this boot.
mkdir n2
ln -s "$tmp/n0/store" n2/store
cp n0/record n2/record
mirror_node n2 0
mirror_ctl n2
refused n2 locked '"cmd":"role","role":"production","tenure":2,"record":'"$(sed 's/"tenure":1/"tenure":2/' n0/record)"
stop_pid "$PID_n2"

# The mirror port, once it is told that nobody may be at the other end: no node comes in, whatever its certificate.
greeted () # by the copy at n1
{
  timeout 5 openssl s_client -brief -connect "127.0.0.1:$PORT_n1" -CAfile pki/ca-cert.pem -cert pki/n2-cert.pem \
    -key pki/n2-key.pem </dev/null >s_client.out 2>&1
  grep -q "CONNECTION ESTABLISHED" s_client.out
}
greeted || fail "its mirror port does not speak TLS: $(cat s_client.out)"
tell n1 '"cmd":"record","peers":[]'
! greeted || fail "without a list of peers every node of the cluster is one"
tell n1 '"cmd":"record","peers":["n0","n1"]'
greeted || fail "no peer comes in any more: $(cat s_client.out)"

# S3, and the lock again.
expect_fail timeout 10 "$CRG_NBDKIT" -f -U "$tmp/x.sock" "$PLUGIN" name=payroll store="$tmp/n0/store" role=production 2>err
grep -q "another process has it open" err || fail "$(cat err)"
qemu-io -f raw -c "write -P 7 1M 1M" "$(uri "$tmp/n0/nbd")" >qemu.out || fail "write"
tell n0 '"cmd":"role","role":"none"'
case $ANSWER in *'"clean":true'*) ;; *) fail "not clean: $ANSWER" ;; esac
expect_fail timeout 10 "$CRG_NBDKIT" -f -U "$tmp/x.sock" "$PLUGIN" name=payroll store="$tmp/n0/store" role=production 2>err
grep -q "holds IASP 'payroll' of CRG 'wages'" err || fail "$(cat err)"
expect_fail timeout 5 nbdinfo --size "$(uri "$tmp/n0/nbd")" >out 2>&1

# It was released, so the copies are equal, unless another was appointed in between, which nobody here knows of.
cp --sparse=always n0/store released
for tenure in 2 3; do
  tell n0 "\"cmd\":\"role\",\"role\":\"production\",\"tenure\":$tenure,\"lease_until_ms\":999999999999,\"record\":$(
    sed "s/\"tenure\":1/\"tenure\":$tenure/" n0/record)"
  grep "^iasp payroll: production at .*, tenure $tenure," n0/nbd.log >line || fail "no word of tenure $tenure in the log"
  if [ $tenure = 2 ]; then ! grep -q unclean line; else grep -q unclean line; fi || fail "$(cat line)"
  kill -KILL "$PID_n0"
  wait_for 5 not_running "$PID_n0" || fail "it can't be killed"
  cp --sparse=always released n0/store
  mirror_node n0 0
  mirror_ctl n0
done

# No descriptor is left for a new controller: the engine waits for one, and takes no processor for it.
ticks () { awk '{ print $14 + $15 }' "/proc/$PID_n1/stat"; }
limit=$(prlimit --pid "$PID_n1" --nofile --output SOFT --noheadings)
prlimit --pid "$PID_n1" --nofile=3:
mirror_ctl n1
sleep 0.3
before=$(ticks)
sleep 1
spent=$(($(ticks) - before))
[ $spent -le 5 ] || fail "the engine took $spent ticks of the processor in a second in which it could do nothing"
prlimit --pid "$PID_n1" --nofile="${limit// }":
status n1

# Promotion in place at a switchover, the old production mirrors back.
sed 's/"tenure":1/"tenure":2/; s/"production_site":0/"production_site":1/' n0/record >record2
expect=$(cat record2)
refused n1 usage '"cmd":"role","role":"production","tenure":3,"record":'"$expect"
# Its controller is replaced before it is done.  A new one counts its commands anew: the answer is not for it.
kill -STOP "$PID_n1"
echo '{"id":424242,"cmd":"role","role":"production","tenure":2,"lease_until_ms":999999999999,"record":'"$expect}" >&"$CTLFD_n1"
sleep 0.5
# The old one may well have its answer first: it goes on writing to its own file.
mv n1/answers n1/answers.old
mirror_ctl n1
sleep 0.5
kill -CONT "$PID_n1"
promoted () { status n1; [[ $ANSWER == *'"role":"production"'* ]]; }
wait_for 10 promoted || fail "not promoted: $ANSWER"
! grep -q '"id":424242,' n1/answers || fail "the new controller has the answer to another one's command"
refused n1 role '"cmd":"role","role":"mirror","tenure":2,"record":'"$expect"
tell n0 '"cmd":"role","role":"mirror","tenure":2,"peers":["n0","n1"],"production":"n1","record":'"$expect"
tell n1 "\"cmd\":\"mirror\",\"site\":0,\"node\":\"n0\",\"addresses\":[\"127.0.0.1\"],\"port\":$PORT_n0,\"sync\":\"none\""
wait_for 10 in_state n1 mirroring || fail "does not mirror back: $ANSWER"
qemu-io -f raw -c "read -P 7 1M 1M" "$(uri "$tmp/n1/nbd")" >qemu.out || fail "read at the new production"
! grep -q "Pattern verification failed" qemu.out || fail "wrong data at the new production"
status n1
case $ANSWER in *'"resync_blocks":0'*) ;; *) fail "something was resynchronised after a switchover: $ANSWER" ;; esac
qemu-io -f raw -c "write -P 8 2M 1M" -c flush "$(uri "$tmp/n1/nbd")" >qemu.out || fail "write at the new production"
same_data || fail "the stores differ"

# An old tenure, and a record older than the disk.
tell n0 '"cmd":"role","role":"none"'
tell n1 '"cmd":"quit"'
wait_for 3 not_running "$PID_n1" || fail "quit does not end the process"
refused n0 tenure '"cmd":"role","role":"mirror","tenure":1,"record":'"$(cat n0/record)"
refused n0 not-in-set '"cmd":"role","role":"production","tenure":3,"record":'"$(sed 's/"tenure":2/"tenure":3/; s/"in_set":true/"in_set":false/g' record2)"
refused n0 disagrees '"cmd":"role","role":"production","tenure":3,"record":'"$(sed 's/"tenure":2/"tenure":3/; s/"since":[01]/"since":9/g; s/"generation":1/"generation":9/' record2)"
refused n0 usage '"cmd":"role","role":"mirror","tenure":3,"record":'"$(sed 's/4444/5555/' record2)"
# Another group's store.
stop_pid "$PID_n0"
mirror_ids[1]=crg-id=99999999999999999999999999999999
mirror_node n0 0
mirror_ctl n0
refused n0 identity '"cmd":"role","role":"mirror","tenure":3,"record":'"$(sed 's/"tenure":2/"tenure":3/' record2)"
