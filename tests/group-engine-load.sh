#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# corosync engine: under load its queue stays bounded and nothing is lost; a member that doesn't read holds nobody up
. "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/lab.sh"
lab_enter "$0" "$@"
. "$CRG_SRC_DIR/tests/functions.sh"

lab_up 3
lab_conf
lab_start 1 2 3
lab_wait_members 3 1 2 3
for i in 1 2 3; do member_start $i; done
members_wait_view 10 1,2,3 e1 e2 e3

# All three as fast as they can: the queue fills, the sender is told, everything arrives.
t0=$(now_ms)
for i in 1 2 3; do member_tell $i send 5000 1000; done
for i in 1 2 3; do member_wait_count e$i D 15000; done
echo "15000 messages of 1000 bytes in $(($(now_ms) - t0)) ms"

# One member doesn't read: the two others go on meanwhile, and it loses nothing.
rss () { awk '/^VmRSS:/ { print $2 }' "/proc/${lab_corosync[3]}/status"; }
before=$(rss)
kill -STOP "${lab_member[3]}"
for i in 1 2; do member_tell $i send 3000 1000; done
for i in 1 2; do member_wait_count e$i D 21000; done
echo "corosync of the stopped member grew by $(($(rss) - before)) KiB for 6000 messages"
kill -CONT "${lab_member[3]}"
member_wait_count e3 D 21000

# Large ones, and a ring change in the midst of them: what isn't over by then is void, and
# nothing is half delivered.
for i in 1 2; do member_tell $i send 400 300000; done
wait_for 10 member_has_count e1 D 21010 || fail "large messages don't flow"
lab_cut "1 2" "3"
members_wait_view 8 1,2 e1 e2
member_wait_count e1 D 21100
lab_heal "1 2" "3"
members_wait_view 10 1,2,3 e1 e2 e3
n=$(member_count e3 D)
member_tell 3 send 5 300000
member_wait_count e3 D $((n + 5))
member_quit 1 2 3
members_check e1 e2 e3
for i in 1 2 3; do grep ' STAT ' "$tmp/e$i" | tail -n 1 | cut -d' ' -f3-; done
[ "$(member_stat e1 full)" -gt 0 ] || fail "the sender's queue was never full: no load"
for i in 1 2 3; do
  [ "$(member_stat e$i queue_peak_bytes)" -le $((8 * 1024 * 1024 + 1100000)) ] ||
    fail "the queue of node $i held $(member_stat e$i queue_peak_bytes) bytes"
  [ "$(member_stat e$i strays)" = 0 ] || fail "strays on node $i"
done
