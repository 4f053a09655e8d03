#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Known host bug 4: SIGTERM does not disconnect clients, an idle connection keeps the process alive,
# and .close is never called for it.  The way to stop is the control socket's quit: it drains,
# flushes, closes the store cleanly, answers, and ends the process in spite of an idle client.
. "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/functions.sh"
. "$CRG_SRC_DIR/tests/pair-functions.sh"
requires qemu-io openssl
requires_plugin
cd "$tmp"

idle_client () # SOCKET: connects, writes, stays; sets CLIENT
{
  mkfifo "$1.in"
  qemu-io -f raw "$(uri "$1")" <"$1.in" >"$1.out" 2>&1 &
  CLIENT=$!
  record_pid $CLIENT
  exec {keep}>"$1.in"
  echo "write -P 6 0 64k" >&$keep
  wait_for 10 grep -q "64 KiB, 1 ops" "$1.out" || fail "the client can't write"
}

# The bug is there: SIGTERM alone does not end it while a client is connected.
truncate -s 16M plain
start_nbdkit "$tmp/sock" name=payroll store="$tmp/plain" role=production
idle_client "$tmp/sock"
kill -TERM "$NBDKIT_PID"
sleep 1
is_running "$NBDKIT_PID" && echo "# this host has the bug"
kill_pid "$NBDKIT_PID"
cmp -n 65536 plain <(head -c 65536 /dev/zero | tr '\0' '\6') || fail "what was answered is not in the store"

mirror_pki
mirror_record 1 0
mkdir n0
cp record n0/record
mirror_node n0 0
mirror_ctl n0
tell n0 '"cmd":"role","role":"production","tenure":1,"lease_until_ms":999999999999'
idle_client "$tmp/n0/nbd"
pid=$PID_n0
tell n0 '"cmd":"quit"'
case $ANSWER in *'"clean":true'*) ;; *) fail "quit was not clean: $ANSWER" ;; esac
wait_for 3 not_running $pid || fail "the process outlives quit"
cmp -n 65536 n0/store <(head -c 65536 /dev/zero | tr '\0' '\6') || fail "what was answered is not in the store"
mirror_node n0 0
mirror_ctl n0
tell n0 '"cmd":"role","role":"production","tenure":1,"lease_until_ms":999999999999'
case $ANSWER in *'"clean":true'*) ;; *) fail "the store was not closed cleanly: $ANSWER" ;; esac
# Killed, it is not clean.
kill_pid "$PID_n0"
mirror_node n0 0
mirror_ctl n0
tell n0 '"cmd":"role","role":"production","tenure":1,"lease_until_ms":999999999999'
case $ANSWER in *'"clean":false'*) ;; *) fail "a killed process left a clean store: $ANSWER" ;; esac
