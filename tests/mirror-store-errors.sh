#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# F4, each kind of error of a store, injected under the plugin: on the copy it never reaches a client and
# the copy leaves the set; on production nothing is answered as done that was not, a read doesn't fail
# while a copy has the data, the controller hears of it once and the request waits with that reason;
# with store-error=return the client has the error itself, and the copies are equal again afterwards.
# timeout: 180
. "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/functions.sh"
. "$CRG_SRC_DIR/tests/pair-functions.sh"
requires qemu-io openssl cmp
requires_plugin
requires_test_build
cd "$tmp"
mirror_size=$((8 << 20))

io () # COMMAND...: on the export, within 20 s; what it said is in qemu.out
{
  local c args=()
  for c; do args+=(-c "$c"); done
  timeout 20 qemu-io -f raw -t writeback "${args[@]}" "$(uri "$tmp/n0/nbd")" >qemu.out 2>&1
}

# begin [KEY=VALUE...]: a pair in sync, with pattern 1 in its first MiB, both stores under the layer
begin ()
{
  rm -rf n0 n1
  faults n0
  faults n1
  mirror_pair suspend-timeout-ms=5000 "$@"
  io "write -P 1 0 1M" flush || { cat qemu.out; fail "the pattern"; }
}
end ()
{
  local n
  for n in 0 1; do
    eval "kill_pid \$PID_n$n; kill_pid \$CTLPID_n$n"
  done
}
said () { [ "$(grep -c '"event":"store-failed"' "$1/answers")" = 1 ]; }
left_set () { ! in_set n0; }

# A store that takes its time: whoever waits for it is shown, at production and at the copy.
begin
faults n0 "delay read 1500000"
faults n1 "delay write 1500000"
io "read -P 1 0 4k" & slow=($!)
timeout 20 qemu-io -f raw -t writeback -c "write -P 2 2M 64k" "$(uri "$tmp/n0/nbd")" >qemu.write 2>&1 & slow+=($!)
waits () { status "$1"; [[ $ANSWER =~ '"owner":"store","reason":"'"$2"'","age_ms":'[1-9] ]]; }
wait_for 1 waits n0 "the store has not answered" || fail "nobody says that a read waits for the store: $ANSWER"
wait_for 1 waits n1 "its store has not answered" || fail "the copy does not say that a write waits for its store: $ANSWER"
faults n0
faults n1
wait "${slow[@]}" || { cat qemu.out qemu.write; fail "slow is not failed"; }
end

# on_copy WHAT RULE COMMAND...: an error of the copy's store
on_copy ()
{
  local what=$1 rule=$2
  shift 2
  begin
  faults n1 "$rule"
  io "$@" || { cat qemu.out; fail "copy, $what: the client saw the copy's error"; }
  ! grep -qi "failed\|error" qemu.out || { cat qemu.out; fail "copy, $what: the client saw the copy's error"; }
  wait_for 8 left_set || fail "copy, $what: still in the set: $ANSWER"
  wait_for 5 said n1 || fail "copy, $what: its controller heard of it $(grep -c store-failed n1/answers) times"
  [ "$(fault_count n1 failed)" -ge 1 ] || fail "copy, $what: nothing failed"
  io "write -P 3 2M 64k" flush "read -P 3 2M 64k" || { cat qemu.out; fail "copy, $what: production does not go on"; }
  # What it missed is tracked, so that it can't come back as equal.
  status n0
  [[ $ANSWER =~ \"in_set\":false ]] || fail "copy, $what: $ANSWER"
  tell n0 '"cmd":"role","role":"none"'
  case $ANSWER in *'"clean":true'*) ;; *) fail "copy, $what: production's release is not clean: $ANSWER" ;; esac
  echo "copy, $what: $(grep -o '"reason":"[^"]*"' n1/answers | tail -1)"
  end
}
on_copy "a write that is half done" "fail write EIO times 1 half" "write -P 2 1M 128k" flush
on_copy "a full store" "fail write ENOSPC" "write -P 2 1M 128k" flush
on_copy "a flush" "fail flush EIO times 1" "write -P 2 1M 128k" flush
on_copy "a write with FUA" "fail flush EIO times 1" "write -f -P 2 1M 128k"
on_copy "a trim" "fail write EIO times 1" "discard 0 128k" flush

# on_production WHAT RULE COMMAND: an error of production's store; COMMAND waits until the role is gone
on_production ()
{
  local what=$1 rule=$2 command=$3 client
  begin
  faults n0 "$rule"
  timeout 60 qemu-io -f raw -t writeback -c "$command" "$(uri "$tmp/n0/nbd")" >qemu.out 2>&1 &
  client=$!
  record_pid $client
  wait_for 10 said n0 || fail "production, $what: its controller heard of it $(grep -c store-failed n0/answers) times"
  [ "$(fault_count n0 failed)" -ge 1 ] || fail "production, $what: nothing failed"
  status n0
  [[ $ANSWER == *'"owner":"failed"'* ]] || fail "production, $what: the status does not say what waits: $ANSWER"
  is_running $client || { cat qemu.out; fail "production, $what: the client was answered"; }
  TELL_S=20 tell n0 '"cmd":"role","role":"none","wait_ms":300'
  case $ANSWER in *'"clean":false'*) ;; *) fail "production, $what: released as clean: $ANSWER" ;; esac
  wait_for 10 not_running $client || fail "production, $what: the client waits for ever"
  ! grep -q " 1 ops\|1 ops;" qemu.out || { cat qemu.out; fail "production, $what: answered as done"; }
  # The copy has all that was answered before.
  [ "$(cmp -n $((1 << 20)) n1/store <(head -c $((1 << 20)) /dev/zero | tr '\0' '\1') && echo same)" = same ] ||
    fail "production, $what: the copy lacks what was answered"
  echo "production, $what: held, then failed over"
  end
}
on_production "a write that is half done" "fail write EIO times 1 half" "write -P 2 1M 128k"
on_production "a full store" "fail write ENOSPC" "write -P 2 1M 128k"
on_production "a flush" "fail flush EIO times 1" "flush"
on_production "a read" "fail read EIO times 1" "read -P 1 0 64k"

# returned ERROR RULE COMMAND: with store-error=return the client has it, and what can differ is repaired
returned ()
{
  local error=$1 rule=$2 command=$3
  begin store-error=return
  faults n0 "$rule"
  ! io "$command" || { cat qemu.out; fail "returned, $rule: the client saw no error"; }
  grep -q "$error" qemu.out || { cat qemu.out; fail "returned, $rule: not as $error"; }
  faults n0
  ! grep -q store-failed n0/answers || fail "returned, $rule: the store is called failed"
  io "write -P 5 3M 64k" flush "read -P 1 0 64k" || { cat qemu.out; fail "returned, $rule: production does not go on"; }
  repaired () { status n0; [[ $ANSWER == *'"dirty_bytes":0'* ]] && same_data; }
  wait_for 10 repaired || fail "returned, $rule: the copies stay different: $ANSWER"
  in_set n0 || fail "returned, $rule: the copy left the set: $ANSWER"
  end
}
returned "No space left on device" "fail write ENOSPC times 1" "write -P 2 1M 128k"
returned "Input/output error" "fail write EIO times 1 half" "write -P 2 1M 128k"
returned "Input/output error" "fail read EIO times 1" "read -P 1 0 64k"

# A flush is not like these: what the store holds is unknown, so it has failed with this word too.
begin store-error=return
io "write -P 2 1M 128k" || { cat qemu.out; fail "returned, a flush: the write before it"; }
faults n0 "fail flush EIO times 1"
timeout 60 qemu-io -f raw -t writeback -c flush "$(uri "$tmp/n0/nbd")" >qemu.out 2>&1 & client=$!
record_pid $client
wait_for 10 said n0 || fail "returned, a flush: its controller heard of it $(grep -c store-failed n0/answers) times"
timeout 60 qemu-io -f raw -t writeback -c "write -P 3 2M 64k" "$(uri "$tmp/n0/nbd")" >qemu.write 2>&1 & late=$!
record_pid $late
waits_failed () { status n0; [[ $ANSWER == *'"owner":"failed"'* ]]; }
wait_for 5 waits_failed || fail "returned, a flush: the status does not say what waits: $ANSWER"
is_running $late || { cat qemu.write; fail "returned, a flush: a later write was answered"; }
TELL_S=20 tell n0 '"cmd":"role","role":"none","wait_ms":300'
[[ $ANSWER == *'"clean":false'* ]] || fail "returned, a flush: released as clean: $ANSWER"
wait_for 10 not_running $client || fail "returned, a flush: the client waits for ever"
wait $client && { cat qemu.out; fail "returned, a flush: answered as done"; }
wait_for 10 not_running $late || fail "returned, a flush: the later write waits for ever"
wait $late && { cat qemu.write; fail "returned, a flush: the later write was answered as done"; }
end
