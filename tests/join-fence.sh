#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# S1 d: the store that a dead node had open is opened by its neighbour, on another machine, only when
# an operator marks the dead one failed, or when the fence hook has cut it off; then it is filled
# again (R5).
# timeout: 150
. "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/functions.sh"
. "$CRG_SRC_DIR/tests/cluster.sh"
requires qemu-io jq
requires_test_build
cd "$tmp"
NODES="p1:rome c1:milan c2:milan w1"
SUSPEND_MS=500
for n in p1 c1 c2 w1; do NODE_BOOT[$n]=$(printf '%s' "$n" | od -An -tx1 | tr -d ' \n' | head -c 4)$(printf '%028x' 7); done
cluster_begin
wait_in_sync 30

put () { qemu-io -f raw -c "write -P $1 0 1M" -c flush "$(export_uri)" >qemu.out; }
hosted_by () { [ "$(host_of milan)" = "$1" ] && [ -n "$(plugin_pid "$1")" ]; }

put 1
kill_node c1
barred () { ctl c2 trace payroll | grep -q 'node c1 had it open and did not release it'; }
wait_for 20 barred || { show_logs; fail "c2 does not say why it does not take the copy"; }
[ -z "$(plugin_pid c2)" ] || fail "c2 opened what c1 had open"
expect_fail ctl w1 mark-failed c1
ctl w1 mark-failed c1 --i-confirm-it-is-dead
wait_for 20 hosted_by c2 || { show_logs; fail "mark-failed does not free the store"; }
wait_in_sync 30
put 2

# Now c2 is gone, and c1 has a fence hook.
cat >fence <<END
#!/bin/sh
echo "\$1 \$CRG_NODE \$CRG_FENCE_NODE \$CRG_FENCE_ADDRESSES" >>$tmp/fenced
END
chmod 755 fence
sed -i "s|^\[node\]|&\nfence-hook = $tmp/fence|" c1/crgd.conf
# The group is young: it would wait for c2 to return.
printf "[lease]\\nstart-wait-ms = 1000\\n" >>c1/crgd.conf
sed -i "s|^\[node\]|&\nthreads = 24|" c1/crgd.conf
kill_node c2
start_node c1
wait_for 20 hosted_by c1 || { show_logs; fail "the fence does not free the store"; }
tr '\0' ' ' <"/proc/$(plugin_pid c1)/cmdline" | grep -q -- ' -t 24 ' || fail "a plugin of threads = 24 is not told so"
[ "$(cat fenced)" = "c2 c1 c2 ${NODE_ADDRESS[c2]}" ] || fail "the fence hook was given: $(cat fenced)"
wait_in_sync 30
marked () { status_of '.crgs[0].nodes[] | select(.name == "c2") | .marked_failed' | grep -qx "$1"; }
marked true || fail "what was fenced is not marked failed"
start_node c2
wait_for 20 marked false || fail "c2 is back and still marked failed"
hosted_by c1 || fail "c1 lost the copy"
same_copies

# S1 c is for disks that have it: c2 says so, and doesn't open the file.
sed -i "s|^\[node\]|&\npersistent-reservation = on|" c2/crgd.conf
kill_node c2
start_node c2
back () { status_of '.crgs[0].nodes[] | select(.name == "c2") | .present' | grep -qx true; }
wait_for 20 back || { show_logs; fail "c2 is not back"; }
kill_node c1
wait_for 20 ctl w1 mark-failed c1 --i-confirm-it-is-dead >mark.out 2>&1 || { cat mark.out; fail "mark-failed"; }
ctl w1 start payroll >start.out || { cat start.out; fail "start"; }
refuses () { ctl w1 explain payroll | grep -q 'persistent-reservation: it has no persistent reservations'; }
wait_for 20 refuses || { show_logs; ctl w1 explain payroll; fail "c2 does not say that its store can't be reserved"; }
