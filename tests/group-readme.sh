#!/bin/bash
# The README's first real cluster, as it stands there: three machines, corosync, TLS; a client with its certificate, and a failover
# SPDX-License-Identifier: BSD-3-Clause
# timeout: 120
. "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/lab.sh"
lab_enter "$0" "$@"
. "$CRG_SRC_DIR/tests/functions.sh"
requires_daemon
requires jq nbdinfo nbdcopy

lab_up 3
names=(- p1 c1 w1)

# The README's own text, with the lab's addresses and stores.
here () { sed "s/192.0.2.11/$(lab_address 1)/; s/192.0.2.21/$(lab_address 2)/; s/192.0.2.31/$(lab_address 3)/"; }
section ()
{
  sed -n '/^## The first real cluster/,/^## /p' "$CRG_SRC_DIR/README.md"
}
section | sed -n '/^       \[crg\]/,/^   `crgctl/p' | sed -n 's/^       //p; /^$/p' |
  here | sed "s,/dev/vg0/payroll,$tmp/store,; s/^store = \(.*\)/store.rome = \1.rome\nstore.milan = \1.milan/" >"$tmp/payroll.conf"
grep -q '^\[node w1\]' "$tmp/payroll.conf" && grep -q '^mirror-port' "$tmp/payroll.conf" ||
  { cat "$tmp/payroll.conf"; fail "the README's definition was not found"; }
"$CRGCTL" check-conf "$tmp/payroll.conf"
truncate -s 80M "$tmp/store.rome" "$tmp/store.milan"

# Step 2, the command as it is written, over two lines.
command=$(section | tr '\n' ' ' | grep -o 'crgctl init-pki [^`]*')
command=$(echo "$command" | here | sed "s,init-pki pki,init-pki $tmp/pki,; s,^crgctl,$CRGCTL,")
$command >"$tmp/pki.log"

# Steps 3 and 4
section | grep -q 'crgctl cluster conf payroll.conf' || fail "the README doesn't print a corosync.conf"
"$CRGCTL" cluster conf "$tmp/payroll.conf" >"$tmp/corosync.conf"
lab_spread_conf
section | sed -n '/^       \[node\]$/,/^   and start/p' | sed -n 's/^       //p' >"$tmp/crgd.conf"
clients () { sed -n '/^## Clients that/,/^## Limits/p' "$CRG_SRC_DIR/README.md"; }
clients | sed -n 's/^    \(\[client\].*\|listen = .*\)/\1/p' >>"$tmp/crgd.conf"
grep -q '^type = corosync' "$tmp/crgd.conf" && grep -q '^listen = :10808' "$tmp/crgd.conf" || { cat "$tmp/crgd.conf"; fail "the README's crgd.conf was not found"; }
for i in 1 2 3; do
  mkdir -p "$tmp/n$i/state" "$tmp/n$i/r"
  sed "s/^name = p1/name = ${names[i]}\nstate-dir = ${tmp//\//\\/}\/n$i\/state\nrun-dir = ${tmp//\//\\/}\/n$i\/r\ntls-certificates = ${tmp//\//\\/}\/pki\/${names[i]}\nnbdkit = ${CRG_NBDKIT//\//\\/}\nplugin = ${PLUGIN//\//\\/}/" \
    "$tmp/crgd.conf" >"$tmp/n$i/crgd.conf"
done
lab_start 1 2 3
crgd_start 1 2 3
for i in 1 2 3; do wait_for 20 crgd_answers $i || { crg_logs; fail "no crgd on node $i"; }; done
lab_wait_members 3 1 2 3

# Steps 5 and 6
wait_for 10 ctl 1 create "$tmp/payroll.conf" >"$tmp/create.log" 2>&1 || { cat "$tmp/create.log"; crg_logs; fail "create"; }
ctl 1 start payroll
crg_wait 20 active 1 2 3
# Active is what the group says; that a client has been served follows from it a moment later.
has_uri () { uri=$(ctl 3 uri payroll 2>/dev/null); }
wait_for 20 has_uri || { crg_logs; fail "there is no URI: $(ctl 3 uri payroll 2>&1)"; }
echo "$uri"
[[ $uri == nbds://$(lab_address 1):10809/payroll* ]] || fail "the URI is $uri"

# A client on w1's machine, with its certificate and without.
client="tls-certificates=$tmp/pki/clients/app1"
with_certificate () { case $1 in *\?*) echo "$1&$client" ;; *) echo "$1?$client" ;; esac; }
head -c 16M /dev/urandom >"$tmp/data"
lab_in 3 nbdcopy "$tmp/data" "$(with_certificate "$uri")"
expect_fail lab_in 3 nbdinfo "${uri/nbds:/nbd:}" >"$tmp/plain" 2>&1
expect_fail lab_in 3 nbdinfo "$uri" >"$tmp/nameless" 2>&1

# One that follows production, with the words that the README has for attach; it finds each node's name and address
# in its certificate, or it would wait for ever.
nodes=$(clients | sed -n 's/.*crgctl attach payroll .*--nodes \([^ ]*\).*/\1/p' | here)
follow () # NBDKIT-OPTION...: of the README's nodes, these
{
  lab_in 3 timeout 15 "$CRG_NBDKIT" -f -t 64 -U - "${PLUGIN/iasp/crg}" payroll nodes="$1" \
    tls-certificates="$tmp/pki/clients/app1" timeout=10 --run "nbdcopy \"\$uri\" $tmp/followed" >"$tmp/follow.log" 2>&1
}
for one in ${nodes//,/ }; do
  follow "$one" || { cat "$tmp/follow.log"; fail "a client that asks $one"; }
done
cmp -n $((16 << 20)) "$tmp/data" "$tmp/followed" || fail "the client that follows reads something else"

# p1 dies; c1 takes over, w1 makes the majority.
t0=$(now_ms)
node_down 1
is_moved () { [[ "$(ctl 3 uri payroll 2>/dev/null)" == *"$(lab_address 2)"* ]]; }
wait_for 20 is_moved || { crg_logs; fail "c1 doesn't take over"; }
uri=$(ctl 3 uri payroll)
readable () { lab_in 3 nbdcopy "$(with_certificate "$uri")" "$tmp/back" 2>"$tmp/nbdcopy.err"; }
wait_for 20 readable || { cat "$tmp/nbdcopy.err"; crg_logs; fail "$uri can't be read"; }
echo "served again, and read back, $(($(now_ms) - t0)) ms after p1's death"
cmp -n $((16 << 20)) "$tmp/data" "$tmp/back" || fail "the data are not what was written"

# L1 with corosync's timers: a lease that is too short for them is refused, and so is a node
# whose name corosync doesn't know.
lab_start 1
lab_wait_members 3 1
refused () # CODE TEXT
{
  local got=0
  lab_in 1 timeout -k 5 20 "$CRGD" -c "$tmp/bad.conf" >"$tmp/bad.log" 2>&1 || got=$?
  [ $got = "$1" ] && grep -q "$2" "$tmp/bad.log" || { cat "$tmp/bad.log"; fail "crgd ended with $got, not $1 and '$2'"; }
}
{ cat "$tmp/n1/crgd.conf"; printf '[lease]\nlease-ms = 2749\n'; } >"$tmp/bad.conf"
refused 2 'lease-ms is 2749, and must be at least 1.25 times the 2200 ms'
sed -e 's/^name = p1/name = p9/' -e "s,/pki/p1,/pki/p1," "$tmp/n1/crgd.conf" >"$tmp/bad.conf"
got=0
lab_in 1 timeout -k 20 4 "$CRGD" -c "$tmp/bad.conf" >"$tmp/bad.log" 2>&1 || got=$?
[ $got != 137 ] || { cat "$tmp/bad.log"; fail "crgd did not end within 20 s of SIGTERM"; }
grep -q "corosync.conf calls this node (nodeid 1) 'p1', crgd.conf calls it 'p9'" "$tmp/bad.log" ||
  { cat "$tmp/bad.log"; fail "a wrong name was not refused"; }
[ "$(grep -c 'corosync.conf calls this node' "$tmp/bad.log")" = 1 ] || { cat "$tmp/bad.log"; fail "said again and again"; }
