#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# The printer of Fig. 4: a resource without mirroring, started and stopped by an agent, fails over with
# its configuration, which messages 4 and 5 have brought to each member that may host it.
# timeout: 180
. "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/functions.sh"
. "$CRG_SRC_DIR/tests/cluster.sh"
requires_daemon
requires jq

# The one cable to the printer is $tmp/cable: who has it is in there, and nobody takes it from another.
cat >"$tmp/printer" <<'END'
#!/bin/sh
here=$CRG_RUN_DIR/.. shared=$CRG_RUN_DIR/../..
echo "$1 $CRG_TENURE" >>"$here/calls"
case $1 in
  probe)
    [ ! -e "$here/jam" ] || { echo "paper jam"; exit 1; }
    [ -e "$here/printing" ] || exit 3 ;;
  start)
    [ ! -e "$here/hangs" ] || { echo $$ >"$here/hung"; sleep 600; }
    [ ! -e "$here/slow" ] || { kill -KILL "$PPID"; : >"$here/starting"; while [ -e "$here/slow" ]; do sleep 0.1; done; }
    [ ! -e "$here/fails" ] || { echo "no toner" >&2; exit 1; }
    [ ! -e "$shared/cable" ] || [ "$(cat "$shared/cable")" = "$CRG_NODE" ] || echo "$CRG_NODE took it from $(cat "$shared/cable")" >>"$shared/violations"
    echo "$CRG_NODE" >"$shared/cable"
    if [ -s "$CRG_CONFIG_FILE" ]; then cat "$CRG_CONFIG_FILE" >"$here/settings"; else printf 'postscript-level = 2\norientation = portrait\n' >"$here/settings"; fi
    : >"$here/printing" ;;
  stop)
    [ "$(cat "$shared/cable" 2>/dev/null)" != "$CRG_NODE" ] || rm -f "$shared/cable"
    rm -f "$here/printing" ;;
  config) cat "$here/settings" ;;
  *) exit 2 ;;
esac
END
chmod 755 "$tmp/printer"

cluster_files
cleanup_fn cluster_end
{
  printf '[crg]\nname = payroll\n'
  id=0 role=primary
  for n in "${NODE_NAMES[@]}"; do
    id=$((id + 1))
    printf '[node %s]\nid = %s\naddress = %s\n' "$n" $id "${NODE_ADDRESS[$n]}"
    if [ -n "${NODE_SITE[$n]}" ]; then printf 'site = %s\nrole = %s\n' "${NODE_SITE[$n]}" $role; role=backup; else echo "role = replicate"; fi
  done
  printf '[script printer]\nagent = %s\ntimeout-ms = 1500\n' "$tmp/printer"
} >"$tmp/payroll.conf"
start_hub
for n in "${NODE_NAMES[@]}"; do start_node "$n"; done
for n in "${NODE_NAMES[@]}"; do wait_for 15 node_answers "$n" || fail "crgd of $n"; done
ctl p1 create "$tmp/payroll.conf" || { tail -n 5 "$tmp"/*/crgd.log; fail "create"; }
ctl p1 start payroll || fail "start"

# prints_on NODE: there, and nowhere else
prints_on ()
{
  local n
  for n in p1 p2 c1 c2; do
    if [ "$n" = "$1" ]; then [ -e "$tmp/$n/printing" ] || return 1; else [ ! -e "$tmp/$n/printing" ] || return 1; fi
  done
  [ "$(cat "$tmp/cable" 2>/dev/null)" = "$1" ]
}
await () { local s=$1 why=$2; shift 2; wait_for "$s" "$@" || { tail -n 15 "$tmp"/??/calls "$tmp"/??/crgd.log; fail "$why"; }; }
# all_know TEXT: each member that may host it has been told
all_know () { local n; for n in p1 p2 c1 c2; do grep -qsx "$1" "$tmp/$n/state/printer.config" || return 1; done; }
starts () { grep -c '^start' "$tmp/$1/calls"; }

await 15 "it doesn't print on p1" prints_on p1
await 10 "not every member knows the PostScript level" all_know "postscript-level = 2"
await 5 "nor the orientation" all_know "orientation = portrait"
[ ! -e "$tmp/w1/state/printer.config" ] || fail "the replicate was told, which can never host it"
sed -i 's/portrait/landscape/' "$tmp/p1/settings"
await 15 "a change of the configuration is not told" all_know "orientation = landscape"

shown () { ctl p2 status >"$tmp/status" && grep -qx '  script printer     runs on p1' "$tmp/status"; }
await 10 "the status does not show it: $(cat "$tmp/status" 2>/dev/null)" shown
ctl p1 is serving payroll || fail "it is not serving"
expect_fail ctl p1 uri printer 2>/dev/null

# A restart of crgd: it prints on, and nobody starts it again.
n=$(starts p1)
kill -KILL "${NODE_PID[p1]}"
wait "${NODE_PID[p1]}" 2>/dev/null || :
start_node p1
wait_for 15 node_answers p1 || fail "crgd of p1"
await 10 "it was not adopted" grep -q 'printer: adopted' "$tmp/p1/crgd.log"
is_active () { [ "$(status_of '.crgs[0].state')" = active ]; }
await 15 "not active after the restart" is_active
prints_on p1 && [ "$(starts p1)" = "$n" ] || fail "it did not print on during the restart"
[ "$(production_node)" = p1 ] || fail "a restart was a failover"

# The machine dies, and its printing with it.
kill_node p1
rm -f "$tmp/p1/printing" "$tmp/cable"
await 15 "it doesn't print on p2" prints_on p2
grep -qx "orientation = landscape" "$tmp/p2/settings" || { cat "$tmp/p2/settings"; fail "p2 prints with another configuration"; }

# A switchover to the other site.
await 10 "not active" is_active
must switchover ctl p2 switchover payroll --to c1
await 10 "it doesn't print on c1" prints_on c1
grep -qx "orientation = landscape" "$tmp/c1/settings" || fail "c1 prints with another configuration"

# Whoever can't is passed over: c2 has a paper jam and says so, p1 fails to start it, p2 hangs at first.
start_node p1
wait_for 15 node_answers p1 || fail "crgd of p1"
touch "$tmp/c2/jam" "$tmp/p1/fails" "$tmp/p2/hangs"
n=$(starts p2)
sleep 1.5 # probes are of a second
kill_node c1
rm -f "$tmp/c1/printing" "$tmp/cable"
hung () { [ -s "$tmp/p2/hung" ]; }
await 20 "p2 was not tried" hung
gone () { not_running "$(cat "$tmp/p2/hung")"; }
await 10 "an agent that hangs is not killed" gone
rm "$tmp/p2/hangs"
await 30 "it prints nowhere" prints_on p2
grep -q 'start failed: it did not end within 1500 ms and was killed' "$tmp/p2/crgd.log" || fail "the log does not say why"

# Nobody is there to renew the lease: it stops, and starts again when it can.
await 15 "not active" is_active
stop_pid "$HUB_PID"
nowhere () { ! ls "$tmp"/??/printing >/dev/null 2>&1; }
await 10 "it prints on without a lease" nowhere

# Now crgd is killed in the middle of that start, and the machine isn't: its guard ends the start and stops the
# printer when the lease is over, before another node starts it.  When crgd is back nothing is in the way.
rm -f "$tmp/c2/jam" "$tmp/p1/fails"
touch "$tmp/p2/slow"
start_hub
starting () { [ -e "$tmp/p2/starting" ]; }
await 20 "it doesn't start again" starting
wait "${NODE_PID[p2]}" 2>/dev/null || :
NODE_PID[p2]=
elsewhere () { local n; for n in p1 c1 c2; do prints_on $n && return 0; done; return 1; }
await 20 "no other node prints" elsewhere
rm "$tmp/p2/slow"
sleep 0.3
elsewhere || fail "the start that p2 had begun went on after its lease"
[ -e "$tmp/p2/run/printer.agent" ] || fail "somebody else than crgd has removed the record"
rm "$tmp/p2/state/payroll.state" # so that it hears of the printer from the others
start_node p2
wait_for 15 node_answers p2 || fail "crgd of p2"
await 10 "not active" is_active
elsewhere || fail "the return of p2 has moved the printer"
seen () { [ ! -e "$tmp/p2/run/printer.agent" ]; }
await 10 "p2 has not seen to what an earlier crgd had begun" seen

ctl p2 end payroll || fail "end"
await 10 "it prints on though the CRG was ended" nowhere
[ ! -e "$tmp/violations" ] || { cat "$tmp/violations"; fail "two nodes printed"; }
