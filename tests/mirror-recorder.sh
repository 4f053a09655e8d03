#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Production is killed under the recorder, inside the site and across sites, and each time
# everything that was answered is there.  CRG_KILLS says how often (soak: 20).
# timeout: 400
. "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/functions.sh"
. "$CRG_SRC_DIR/tests/cluster.sh"
kills=${CRG_KILLS:-4}
cluster_begin
wait_in_sync 30
log=$tmp/rec.log
start_recorder "$log"
more_answers "$log" 1000 20 >/dev/null

# one_kill NODE...: kill these, all at once; wait for writes; start them again; wait for sync
one_kill ()
{
  local n was ms
  was=$(production_node)
  kill_node "$@"
  ms=$(more_answers "$log" 1000 40)
  echo "killed $*: production $was -> $(production_node), 1000 more answers after $ms ms"
  [ "$(production_node)" != "$was" ] || fail "production is still at $was"
  for n; do start_node "$n"; done
  for n; do wait_for 15 node_answers "$n" || fail "crgd of $n"; done
  wait_in_sync 60
  more_answers "$log" 300 20 >/dev/null
}

for ((i = 0; i < kills; i++)); do
  site=$(production_site)
  host=$(production_node)
  if ((i % 2 == 0)); then
    one_kill "$host"
    [ "$(production_site)" = "$site" ] || fail "production left $site though its other node was there"
  else
    victims=()
    for n in "${NODE_NAMES[@]}"; do
      if [ "${NODE_SITE[$n]}" = "$site" ]; then victims+=("$n"); fi
    done
    one_kill "${victims[@]}"
    [ "$(production_site)" != "$site" ] || fail "production is in $site, which was gone"
  fi
done
stop_recorder "$log"
[ "$(recorded "$log" reconnects)" -ge $kills ] || too_slow "the recorder did not notice the kills"
[ "$(status_of '.crgs[0].iasps[0].loss')" = 0 ] || fail "loss was raised though no machine restarted"
same_copies
"$RECORDER" check --log "$log" --image "${STORE[rome]}" >/dev/null
