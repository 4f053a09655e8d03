#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# R4: an operator forces a takeover by a copy that left the set: refused with exit 8 and the age of
# the copy first; then it serves what it has, loss rises, and the former set's store is a fork that
# nobody opens.
# timeout: 120
. "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/functions.sh"
. "$CRG_SRC_DIR/tests/cluster.sh"
requires nbdinfo nbdcopy qemu-io jq
cd "$tmp"
NODES="p1:rome c1:milan w1"
SUSPEND_MS=500
cluster_begin
wait_in_sync 30

status ()
{
  local want=$1 got=0
  shift
  "$@" >out 2>err </dev/null || got=$?
  [ "$got" = "$want" ] || { cat out err; show_logs; fail "exit $got, not $want: $*"; }
}
says () { grep -qE -- "$1" err || { cat err; fail "stderr lacks: $1"; }; }
put () { qemu-io -f raw -c "write -P $1 0 1M" -c flush "$(export_uri)" >qemu.out; }
holds () { qemu-io -f raw -c "read -P $1 0 1M" "$(export_uri)" >qemu.out; ! grep -q failed qemu.out; }

status 9 ctl p1 switchover payroll --force
status 7 ctl w1 switchover payroll --to c1 --force
says 'production is served: switch over without --force'

# The copy is away while production answers more; then production's machine is lost.
put 1
kill_node c1
out_of_set () { [ "$(copy_of milan in_set)" = false ]; }
wait_for 20 out_of_set || { show_logs; fail "the lost copy stays in the set"; }
put 2
kill_node p1
start_node c1
waits () { { ctl w1 status payroll 2>&1 || :; } | grep -q 'not in the set'; }
wait_for 30 waits || { show_logs; fail "status does not say why nobody takes over"; }
ctl w1 explain payroll >explained
grep -q '^  It is not served.  Its named host is p1 at site rome, which is not there' explained &&
  grep -q '^  Missing nodes: p1' explained && grep -q '^waiting: payroll: no candidate: p1' explained ||
  { cat explained; fail "explain does not say who is missing"; }
grep -q "'crgctl switchover payroll --to c1' tells what it would cost" explained ||
  { cat explained; fail "explain does not say what an operator can do"; }
status 8 ctl w1 switchover payroll --to c1
says 'switchover to c1: c1 has the copy of payroll at site milan, which left the set [0-9]+ s ago'
says 'what was answered since is lost; --force takes over with it; [0-9]+ s ago production counted [0-9]+ bytes that it lacked'
[ "$(status_of '.crgs[0].iasps[0].loss')" = 0 ] || fail "loss has risen without force"
status 7 ctl w1 switchover payroll --to w1 --force
status 0 ctl w1 switchover payroll --to c1 --force --dry-run
[ "$(status_of '.crgs[0].iasps[0].serving')" = false ] || fail "--dry-run did it"
status 0 ctl w1 switchover payroll --to c1 --force
holds 1 || fail "c1 does not serve what it had"
[ "$(production_node)" = c1 ] && [ "$(status_of '.crgs[0].iasps[0].loss')" = 1 ] || fail "no loss is told"
put 3

# The machine returns: its store is a fork.
start_node p1
forked () { [ "$(copy_of rome role)" = detached ] && { ctl w1 status payroll 2>&1 || :; } | grep -q 'node  p1 .*present'; }
wait_for 20 forked || { show_logs; fail "the former production is not shown as detached"; }
[[ $(copy_of rome reason) == *fork* ]] || fail "its reason: $(copy_of rome reason)"
[ -z "$(plugin_pid p1)" ] || fail "p1 opened a fork"
marked () { "$CRGCTL" iasp dump store.rome | grep -Eq '^  flags .*fork'; }
wait_for 10 marked || { "$CRGCTL" iasp dump store.rome; fail "the fork's disk does not say so (R6)"; }
holds 3 || fail "c1 lost what it wrote"

# Reattached, it is filled with what c1 has.
status 8 ctl w1 mirror reattach payroll --site rome
status 0 ctl w1 mirror reattach payroll --site rome --force
wait_in_sync 30

# c1's own process dies: its disk agrees with the record, so it serves again.
kill_pid "$(plugin_pid c1)" || :
wait_serving 20
holds 3 || fail "c1 lost what it wrote when its process died"
