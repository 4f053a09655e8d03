#!/bin/bash
# the hook takeover-address: adds, announces and removes an address; a client's traffic follows production
# SPDX-License-Identifier: BSD-3-Clause
# timeout: 180
. "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/lab.sh"
lab_enter "$0" "$@"
. "$CRG_SRC_DIR/tests/functions.sh"
requires_daemon
requires jq ip arping
hook=$CRG_SRC_DIR/units/hooks/takeover-address

# A town: one bridge, with the nodes 1 to 5 and a client c.
town ()
{
  local i
  ip netns add c
  ip -n c link set lo up
  ip -n c link add town type bridge
  ip -n c link set town up
  ip -n c addr add 10.99.0.100/24 dev town
  for i; do
    ip -n n$i link add town type veth peer name t$i netns c
    ip -n n$i link set town up
    ip -n n$i addr add 10.99.0.$i/24 dev town
    ip -n c link set t$i master town
    ip -n c link set t$i up
    printf 'payroll 10.99.0.50/24 town\nother 10.99.0.51/24 town\npayroll 10.99.0.52/24\n' >"$tmp/n$i/takeover-address.conf"
  done
}
mac () { ip -n n$1 -json link show town | jq -r '.[0].address'; }
# What the client takes for the address's, without asking.
known () { ip -n c -json neigh show 10.99.0.50 | jq -r '.[0].lladdr // "none"'; }
knows () { [ "$(known)" = "$(mac $1)" ]; }
has_it () { ip -n n$1 -o addr show dev town to 10.99.0.50 | grep -q .; }
# hook_on I EVENT: by hand
hook_on () { CRG_NAME=payroll CRG_CONF_DIR=$tmp/n$1 ip netns exec n$1 "$hook" "$2" 2>"$tmp/hook.err"; }

# 1. The hook alone.
lab_up 5
town 1 2 3 4 5
code=0
hook_on 1 start || code=$?
[ $code = 2 ] && grep -q 'a line of payroll is not' "$tmp/hook.err" || { cat "$tmp/hook.err"; fail "a bad line is not reported ($code)"; }
for i in 1 2 3 4 5; do sed -i '$d' "$tmp/n$i/takeover-address.conf"; done
hook_on 1 start || { cat "$tmp/hook.err"; fail "start"; }
has_it 1 || fail "the address is not there"
# (nobody listens there: what counts is that the client asked who has the address)
timeout 5 ip netns exec c bash -c ': </dev/tcp/10.99.0.50/9' 2>/dev/null || :
wait_for 5 knows 1 || fail "the client doesn't know node 1"
hook_on 1 start || { cat "$tmp/hook.err"; fail "a second start"; }
# Node 1 is dead, say: nobody removes its address, and node 2 announces itself.
ip -n n1 link set town down
hook_on 2 start || { cat "$tmp/hook.err"; fail "start on node 2"; }
knows 2 || fail "the client was not told: it knows $(known), node 2 is $(mac 2)"
hook_on 2 end && hook_on 2 end || fail "end, twice"
! has_it 2 || fail "the address is still on node 2"
! ip -n n2 -o addr show dev town to 10.99.0.51 | grep -q . || fail "the address of another CRG was touched"
ip -n n1 link set town up
hook_on 1 end
! has_it 1 || fail "the address is still on node 1"
lab_conf
lab_start 1 2 3 4 5

# 2. Real daemons: production listens on the address, and it goes with production.
for i in 1 2 3 4 5; do
  mkdir -p "$tmp/n$i/hooks.d"
  ln -s "$hook" "$tmp/n$i/hooks.d/takeover-address"
  ip netns exec n$i sysctl -qw net.ipv4.ip_nonlocal_bind=1
done
crg_prepare
sed -i 's/^export = .*/export = tcp:10.99.0.50:10809\ntls = off/' "$tmp/payroll.conf"
crgd_start 1 2 3 4 5
for i in 1 2 3 4 5; do wait_for 20 crgd_answers $i || { crg_logs; fail "no crgd on node $i"; }; done
lab_wait_members 5 1 2 3 4 5
wait_for 10 ctl 1 create "$tmp/payroll.conf" >"$tmp/create.log" 2>&1 || { cat "$tmp/create.log"; crg_logs; fail "create"; }
ctl 1 start payroll --wait 20 || { crg_logs; fail "start"; }
crg_wait 20 active 1 2 3 4 5
serves () { ip netns exec c nbdinfo --size nbd://10.99.0.50:10809/payroll >/dev/null 2>&1; }
# here I: the address is on node I alone, and the client is served there
here ()
{
  local i
  for i in 1 2 3 4; do
    if [ $i = $1 ]; then has_it $i || return 1; elif [ -n "${lab_crgd[i]-}" ]; then ! has_it $i || return 1; fi
  done
  knows $1 && serves
}
wait_for 10 here 1 || { crg_logs; fail "not on node 1"; }
has_uri () { [ "$(ctl 1 uri payroll 2>/dev/null)" = nbd://10.99.0.50:10809/payroll ]; }
wait_for 10 has_uri || fail "the URI is $(ctl 1 uri payroll 2>&1)"
must switchover ctl 1 switchover payroll --to n3
wait_for 10 here 3 || { crg_logs; fail "not on node 3 after the switchover"; }
crg_wait 20 active 1 2 3 4 5
node_down 3
ip -n n3 link set town down
# The takeover goes to node 4 or, as S1 bars it, to the other site.
moved () { h=$(crg_field 5 '.crgs[0].iasps[0].production_node' | tr -d n) && [ "$h" != 3 ] && [ "$h" != null ] && here "$h"; }
wait_for 20 moved || { crg_logs; fail "not served on another node after the death of node 3"; }
# Back again, node 3 finds the address that it had, and removes it.
ip -n n3 link set town up
node_up 3
gone () { ! has_it 3; }
wait_for 30 gone || { crg_logs; fail "node 3 keeps the address"; }
wait_for 10 here "$h" || { crg_logs; fail "node $h lost it"; }
