#!/bin/bash
# corosync, 2 + 2 + 1 nodes: processes and nodes are killed and stopped under the recorder; nothing answered is lost
# SPDX-License-Identifier: BSD-3-Clause
# timeout: 300
. "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/lab.sh"
lab_enter "$0" "$@"
. "$CRG_SRC_DIR/tests/functions.sh"
requires_daemon
requires jq

crg_up
recorder_start 250

# fault WHAT SETTLE_S: what was done; after SETTLE_S seconds (what goes on with the old lease is
# over then) there are answers, in the end all is as before
fault ()
{
  sleep $2
  recorder_goes_on 20
  echo "$1: n$h -> n$(crg_host)"
}
all_well () { crg_wait 40 active 1 2 3 4 5; h=$(crg_host); }

all_well
kill_hard "$(plugin_pid $h)"
fault "plugin of the production host killed" 0.5
all_well

kill_hard "$(plugin_pid $(crg_mirror))"
fault "plugin of the mirror host killed" 1
all_well

kill_hard "${lab_crgd[h]}" $(plugin_pid $h)
fault "crgd and plugin of the production host killed" 4
crgd_start $h
all_well

kill -STOP "${lab_crgd[h]}"
fault "crgd of the production host stopped" 8
kill -CONT "${lab_crgd[h]}"
all_well

plugin=$(plugin_pid $h)
kill -STOP $plugin
sleep 4 # longer than the lease
kill -CONT $plugin
fault "plugin of the production host stopped for 4 s" 1
all_well

lab_signal KILL $h
fault "corosync of the production host killed" 4
lab_start $h
all_well

lab_signal STOP $h
fault "corosync of the production host stopped" 6
lab_signal CONT $h
all_well

node_down 5
fault "the replicate is dead" 4
node_up 5
all_well

node_down $h
fault "the production host is dead" 5
node_up $h
all_well

if [ $h -le 2 ]; then site="1 2"; else site="3 4"; fi
node_down $site
fault "the production site is dead" 5
node_up $site
all_well

recorder_judge
