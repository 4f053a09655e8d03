#!/bin/bash
# corosync, 2 + 2 + 1 nodes: all nodes killed at once and started again in many orders, a restart of crgd, and deaths of bystanders, under the recorder
# SPDX-License-Identifier: BSD-3-Clause
# timeout: 400
#
# 8 orders of the 120; tests/soak runs all of them (CRG_ORDERS=all), or those that it is given.
. "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/lab.sh"
lab_enter "$0" "$@"
. "$CRG_SRC_DIR/tests/functions.sh"
requires_daemon
requires jq

# permutations WORDS [PREFIX]: all of them, a line each
permutations ()
{
  local w rest
  [ -n "$1" ] || { echo "${2# }"; return; }
  for w in $1; do
    rest=" $1 "
    read -r rest <<<"${rest/ $w / }"
    permutations "$rest" "${2-} $w"
  done
}
case ${CRG_ORDERS-} in
  '') orders=$(permutations "1 2 3 4 5" | shuf -n 8 --random-source=<(yes "${CRG_SEED-1}")) ;;
  all) orders=$(permutations "1 2 3 4 5") ;;
  *) orders=$CRG_ORDERS ;;
esac

crg_up
recorder_start 3600
all_well () { crg_wait 60 active 1 2 3 4 5; h=$(crg_host); recorder_goes_on 20 50; }
record_of () { crg_field $1 '.crgs[0].iasps[0] | "\(.tenure) \(.generation) \([.copies[].host])"'; }
# bystander WHAT SECONDS_MAX: nobody has moved, and no answer took as long
bystander ()
{
  recorder_goes_on 20 200
  longest "$from"
  [ "$(record_of $h)" = "$before" ] || { crg_logs 25; fail "$1: $before became $(record_of $h)"; }
  [ "$pause" -lt "$2" ] || { crg_logs 25; too_slow "$1: no answer for $pause ms"; }
  echo "$1: longest pause $pause ms"
}
# longest FROM_LINE: the longest time (ms) between two answers since that line of the history
longest ()
{
  pause=$(tail -n +"$1" "$tmp/history" |
    perl -ne 'next unless /^[WRF] (\d+) \S+ (\S+)/ && $2 ne "err"; $g = $1 - $last if $last; $m = $g if $g > $m; $last = $1; END { printf "%.0f\n", $m / 1e6 }')
}
requires perl

# F7: crgd of the production host, and of the mirror's, are killed and started again.
all_well
for i in $h $(crg_mirror) 5; do
  before=$(record_of $h)
  from=$(wc -l <"$tmp/history")
  plugin=$(plugin_pid $i)
  kill_hard "${lab_crgd[i]}"
  sleep 0.5
  crgd_start $i
  sleep 3.2 # what would have gone on with the old lease is over then
  bystander "crgd of n$i restarted (production on n$h)" 3000
  [ "$(plugin_pid $i)" = "$plugin" ] || fail "n$i has another plugin"
  all_well
done

# The death of a node that hosts nothing holds no I/O up for longer than corosync takes to see it.
hosts=" $h $(crg_mirror) "
for i in 1 2 3 4 5; do
  [[ $hosts != *" $i "* ]] || continue
  before=$(record_of $h)
  from=$(wc -l <"$tmp/history")
  node_down $i
  sleep 3.2
  bystander "n$i is dead, which hosts nothing" 2700
  node_up $i
  all_well
done

k=0
while read -r order; do
  k=$((k + 1))
  node_down 1 2 3 4 5
  for i in $order; do
    node_up $i
    # At times the next one comes before this one is up, at times after.
    sleep 0.$(((k * 7 + i * 3) % 10))
  done
  recorder_goes_on 60 50
  echo "order $order: production on n$(crg_host)"
  all_well
done <<<"$orders"

recorder_judge
