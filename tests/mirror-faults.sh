#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Faults in random order under the recorder: processes killed and stopped, alone and together, the
# hub restarted, switchovers between.  After each the client is served, every copy comes back, and
# in the end no answered write is missing and the copies are equal.
# timeout: 600
. "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/functions.sh"
. "$CRG_SRC_DIR/tests/cluster.sh"
faults=${CRG_FAULTS:-5}
RANDOM=${CRG_SEED:=1}
echo "CRG_SEED=$CRG_SEED CRG_FAULTS=$faults"
if [ -n "${CRG_THROUGH_PROXY-}" ]; then
  # client-recorder.sh
  . "$CRG_SRC_DIR/tests/client-functions.sh"
  EXPORT=tcp::auto
  CLIENT_PORT=auto
  RECORDER_WHERE="echo nbd+unix:///payroll?socket=$tmp/a.nbd"
fi
cluster_begin
wait_in_sync 30
log=$tmp/rec.log
if [ -n "${CRG_THROUGH_PROXY-}" ]; then
  start_proxy a iasp=payroll nodes="$CLIENT_NODES" tls-certificates="$CLIENT_TLS"
  start_recorder "$log" --op-timeout 0
else
  start_recorder "$log"
fi
more_answers "$log" 500 20 >/dev/null

kinds=(production-crgd production-plugin production-host production-site copy-plugin copy-host
  stop-copy stop-production stop-crgd hub switchover)
if [ -n "${CRG_FAULT_KINDS-}" ]; then read -ra kinds <<<"$CRG_FAULT_KINDS"; fi

other_site () { [ "$1" = rome ] && echo milan || echo rome; }

# stop_for SECONDS PID
stop_for ()
{
  kill -STOP "$2"
  sleep "$1"
  kill -CONT "$2" 2>/dev/null || :
}

dead=()
kill_one () { kill_node "$@"; dead+=("$@"); }

for ((i = 0; i < faults; i++)); do
  kind=${kinds[RANDOM % ${#kinds[@]}]}
  host=$(production_node)
  site=$(production_site)
  copy=$(host_of "$(other_site "$site")")
  dead=()
  begun=$(now_ms)
  case $kind in
    production-crgd)
      kill -KILL "${NODE_PID[$host]}"
      wait "${NODE_PID[$host]}" 2>/dev/null || :
      NODE_PID[$host]=
      dead+=("$host") ;;
    production-plugin) kill -KILL "$(plugin_pid "$host")" ;;
    production-host) kill_one "$host" ;;
    production-site)
      victims=()
      for n in "${NODE_NAMES[@]}"; do [ "${NODE_SITE[$n]}" != "$site" ] || victims+=("$n"); done
      kill_one "${victims[@]}" ;;
    copy-plugin) kill -KILL "$(plugin_pid "$copy")" ;;
    copy-host) kill_one "$copy" ;;
    stop-copy) stop_for $((1 + RANDOM % 4)) "$(plugin_pid "$copy")" ;;
    stop-production) stop_for $((1 + RANDOM % 6)) "$(plugin_pid "$host")" ;;
    stop-crgd) stop_for $((1 + RANDOM % 6)) "${NODE_PID[$host]}" ;;
    hub)
      kill_pid "$HUB_PID"
      sleep 1
      start_hub ;;
    switchover)
      # The other node of production's site, or the host of the copy: another node of the copy's
      # site is rightly refused while the copy's host has the store open.
      to=$copy
      if ((RANDOM % 2)); then
        for n in "${NODE_NAMES[@]}"; do
          if [ "${NODE_SITE[$n]}" = "$site" ] && [ "$n" != "$host" ]; then to=$n; fi
        done
      fi
      # After a hub's restart the witness may still be without a view, and would refuse.
      wait_for 20 ctl w1 is active payroll
      must "switchover to $to" ctl w1 switchover payroll --to "$to" --wait 40 ;;
    *) fail "no such fault: $kind" ;;
  esac
  # Now and then it is a quick restart.
  if ((RANDOM % 3)); then more_answers "$log" 300 60 >/dev/null; fi
  for n in ${dead[@]+"${dead[@]}"}; do start_node "$n"; done
  more_answers "$log" 300 60 >/dev/null
  wait_in_sync 90
  echo "$((i + 1)). $kind: $host -> $(production_node), all well after $(($(now_ms) - begun)) ms"
done
stop_recorder "$log"
if [ -n "${CRG_THROUGH_PROXY-}" ]; then
  proxy_status a .counters
  grep '^iasp ' "$tmp/a.log" | tail -n 40
  [ "$(recorded "$log" errors)" = 0 ] || fail "an error came through the proxy"
  [ "$(recorded "$log" unknown)" = 0 ] || fail "a request had no answer"
  [ "$(recorded "$log" reconnects)" = 0 ] || fail "the proxy closed a connection"
  [ "$(proxy_status a .counters.sessions)" -ge 2 ] || too_slow "the proxy noticed no fault"
fi
[ "$(status_of '.crgs[0].iasps[0].loss')" = 0 ] || fail "loss was raised though no machine restarted"
same_copies
"$RECORDER" check --log "$log" --image "${STORE[rome]}" >/dev/null
