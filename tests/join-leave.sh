#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# A node leaves for maintenance: with --hand-over its production and its copies go to other nodes
# first, under the recorder; without, its plugins end gracefully and release their stores.  Nothing new begins
# on a node that is leaving.
# timeout: 180
. "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/functions.sh"
. "$CRG_SRC_DIR/tests/cluster.sh"
cluster_begin
wait_in_sync 30
log=$tmp/rec.log
start_recorder "$log"
more_answers "$log" 300 20 >/dev/null

# ended NODE: its crgd has exited, well, and left no plugin behind
ended ()
{
  wait_for 20 not_running "${NODE_PID[$1]}" || fail "crgd of $1 goes on"
  wait "${NODE_PID[$1]}" || fail "crgd of $1 ended with $?"
  NODE_PID[$1]=
  [ -z "$(plugin_pid "$1")" ] || fail "a plugin of $1 is left"
}
settled () { wait_serving 15; wait_in_sync 20; more_answers "$log" 300 20 >/dev/null; }
generation () { status_of '.crgs[0].iasps[0].generation'; }

g=$(generation)
h=$(production_node)
ctl "$h" leave --hand-over >"$tmp/leave.log" 2>&1 || { cat "$tmp/leave.log"; fail "leave --hand-over"; }
grep -q "CRG payroll: handed over" "$tmp/leave.log" || { cat "$tmp/leave.log"; fail "it does not say what it does"; }
ended "$h"
settled
[ "$(production_node)" != "$h" ] || fail "production was not handed over"
[ "$(generation)" = "$g" ] || fail "a copy left the set: the generation is $(generation), and was $g"
start_node "$h"
wait_for 15 node_answers "$h" || fail "crgd of $h"
settled

# The host of a mirror copy: another node of its site has it then.
p=$(production_node)
for n in "${NODE_NAMES[@]}"; do
  [ "$n" = "$p" ] || [ -z "$(plugin_pid "$n")" ] || m=$n
done
ctl "$m" leave --hand-over >"$tmp/leave.log" 2>&1 || { cat "$tmp/leave.log"; fail "leave of the mirror host"; }
ended "$m"
settled
[ "$(production_node)" = "$p" ] || fail "production moved when a mirror host left"
start_node "$m"
wait_for 15 node_answers "$m" || fail "crgd of $m"
settled

# By a signal, as a service manager does.
h=$(production_node)
stop_pid "${NODE_PID[$h]}" # an ordinary SIGTERM: the plugin serves on
[ -n "$(plugin_pid "$h")" ] || fail "SIGTERM ended the plugin"
"$CRGD" --hand-over --config "$tmp/$h/crgd.conf" >>"$tmp/$h/crgd.log" 2>&1 </dev/null &
NODE_PID[$h]=$!
record_pid $!
wait_for 15 node_answers "$h" || fail "crgd of $h"
settled
[ "$(production_node)" = "$h" ] || fail "production moved at a restart"
kill -TERM "${NODE_PID[$h]}"
ended "$h"
settled
[ "$(production_node)" != "$h" ] || fail "production was not handed over at SIGTERM"
start_node "$h"
wait_for 15 node_answers "$h" || fail "crgd of $h"
settled
stop_recorder "$log"
echo "left three times; longest pause $(recorded "$log" longest_pause_ms) ms"

# Nobody can take it: an operator is told and nothing ends; with --force it does, gracefully.
p=$(production_node)
others=
for n in p1 p2 c1 c2; do [ "$n" = "$p" ] || others+=" $n"; done
# Also if the operator has left before it is known.
for n in $others; do kill -STOP "${NODE_PID[$n]}"; done
"$CRGCTL" --socket "$tmp/$p/run/crgd.sock" leave --hand-over >"$tmp/leave.log" 2>&1 &
record_pid $!
wait_for 10 grep -q 'handing production over' "$tmp/leave.log" || { cat "$tmp/leave.log"; fail "it hands nothing over"; }
kill_pid $!
node_answers "$p" || fail "crgd of $p is gone"
# shellcheck disable=SC2086
kill_node $others
wait_for 25 grep -q 'CRG payroll: not handed over: ' "$tmp/$p/crgd.log" || fail "it is not refused"
node_answers "$p" && [ -n "$(plugin_pid "$p")" ] || fail "nobody could take it, and something ended"
code=0
ctl "$p" leave --hand-over >"$tmp/leave.log" 2>&1 || code=$?
[ $code = 7 ] || { cat "$tmp/leave.log"; fail "leave --hand-over with nobody to take it ended with $code"; }
grep -q "CRG payroll: not handed over: " "$tmp/leave.log" || { cat "$tmp/leave.log"; fail "it does not say why"; }
[ -n "$(plugin_pid "$p")" ] && node_answers "$p" || fail "it was refused, and something ended"
ctl "$p" leave --hand-over --force >"$tmp/leave.log" 2>&1 || { cat "$tmp/leave.log"; fail "leave --force"; }
ended "$p"

# The host of a mirror copy is leaving, and its plugin takes its time, when the other site is lost: it takes
# production no more, and leaves no plugin behind.
for n in $p $others; do start_node "$n"; done
for n in $p $others; do wait_for 15 node_answers "$n" || fail "crgd of $n"; done
wait_serving 30
wait_in_sync 30
p=$(production_node)
for n in p1 p2 c1 c2; do
  [ "$n" = "$p" ] || [ -z "$(plugin_pid "$n")" ] || m=$n
done
lost=
for n in p1 p2 c1 c2; do
  [ "${NODE_SITE[$n]}" != "${NODE_SITE[$p]}" ] || lost+=" $n"
done
kill -STOP "$(plugin_pid "$m")"
ctl "$m" leave >"$tmp/leave.log" 2>&1 &
record_pid $!
wait_for 10 grep -q 'ending the plugins of this node' "$tmp/leave.log" || { cat "$tmp/leave.log"; fail "it doesn't leave"; }
# shellcheck disable=SC2086
kill_node $lost
ended "$m"
grep -q 'not hosted: this node is leaving' "$tmp/$m/crgd.log" || too_slow "$m was not asked to be production"
