#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Faults in random order under the recorder: processes killed and stopped, alone and together, control
# connections taken away, stores slowed, the hub restarted, switchovers between.  After each the client is
# served, every copy comes back, and in the end no answered write is missing and the copies are equal.
# CRG_SITES=3 has a third site, and twice (a kind) is two of them at once; tests/soak does both.
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
FAULTS='# none'
if [ "${CRG_SITES:-2}" = 3 ]; then NODES="p1:rome p2:rome c1:milan c2:milan d1:turin w1 w2"; fi
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
  stop-copy stop-production stop-crgd hub switchover control slow-store)
# What goes together: the first of the two is still going on when the second comes.
together=(production-crgd production-plugin production-host copy-plugin copy-host stop-copy stop-production
  stop-crgd control slow-store)
if [ -n "${CRG_FAULT_KINDS-}" ]; then read -ra kinds <<<"$CRG_FAULT_KINDS"; fi

other_site () { [ "$1" = rome ] && echo milan || echo rome; }

# hit SIGNAL PID: if there is one; of two faults the first may have ended it
hit () { [ -z "$2" ] || kill "-$1" "$2" 2>/dev/null || :; }

# stop_for SECONDS PID
stops=()
stop_for ()
{
  [ -n "$2" ] || return 0
  hit STOP "$2"
  { sleep "$1"; kill -CONT "$2" 2>/dev/null; } &
  stops+=($!)
}
stops_over ()
{
  local pid
  for pid in ${stops[@]+"${stops[@]}"}; do wait "$pid" || :; done
  stops=()
}

# take_control NODE: a second control connection to its plugin ends the first one
take_control ()
{
  echo '{"v":1,"id":1,"cmd":"status"}' | "$CRG_BUILD_DIR/tests/ctl" "$tmp/$1/run/payroll.ctl" >/dev/null 2>&1 || :
}

dead=()
kill_one () { kill_node "$@"; dead+=("$@"); }

# fault KIND: production is at $site, on $host; $copy has a copy
fault ()
{
  local n to victims rules
  case $1 in
    production-crgd)
      hit KILL "${NODE_PID[$host]}"
      wait "${NODE_PID[$host]}" 2>/dev/null || :
      NODE_PID[$host]=
      dead+=("$host") ;;
    production-plugin) hit KILL "$(plugin_pid "$host")" ;;
    production-host) kill_one "$host" ;;
    production-site)
      victims=()
      for n in "${NODE_NAMES[@]}"; do [ "${NODE_SITE[$n]}" != "$site" ] || victims+=("$n"); done
      kill_one "${victims[@]}" ;;
    copy-plugin) hit KILL "$(plugin_pid "$copy")" ;;
    copy-host) kill_one "$copy" ;;
    stop-copy) stop_for $((1 + RANDOM % 4)) "$(plugin_pid "$copy")" ;;
    stop-production) stop_for $((1 + RANDOM % 6)) "$(plugin_pid "$host")" ;;
    stop-crgd) stop_for $((1 + RANDOM % 6)) "${NODE_PID[$host]}" ;;
    hub)
      kill_pid "$HUB_PID"
      sleep 1
      start_hub ;;
    control)
      # Of a crgd that doesn't take it back at once, and of one that does.
      n=$host
      if ((RANDOM % 2)); then n=$copy; fi
      if ((RANDOM % 2)); then stop_for $((1 + RANDOM % 3)) "${NODE_PID[$n]}"; fi
      take_control "$n" ;;
    slow-store)
      rules=("delay meta-write $((100000 + RANDOM * 20))" "delay write $((20000 + RANDOM * 10))"
        "delay flush $((100000 + RANDOM * 20))")
      n=$site
      if ((RANDOM % 2)); then n=$(other_site "$site"); fi
      store_faults "$n" "${rules[RANDOM % 3]}"
      slow+=("$n") ;;
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
    twice)
      fault "${together[RANDOM % ${#together[@]}]}"
      sleep "0.$((RANDOM % 10))"
      fault "${together[RANDOM % ${#together[@]}]}"
      return ;;
    *) fail "no such fault: $1" ;;
  esac
  did+="${did:+, }$1"
}

for ((i = 0; i < faults; i++)); do
  kind=${kinds[RANDOM % ${#kinds[@]}]}
  host=$(production_node)
  site=$(production_site)
  copy=$(host_of "$(other_site "$site")")
  dead=() slow=() did=
  begun=$(now_ms)
  fault "$kind"
  # Now and then it is a quick restart, and of two faults always: most votes may be gone.
  if [ "$kind" != twice ] && ((RANDOM % 3)); then more_answers "$log" 300 60 >/dev/null; fi
  stops_over
  for n in ${dead[@]+"${dead[@]}"}; do [ -n "${NODE_PID[$n]}" ] || start_node "$n"; done
  for n in ${slow[@]+"${slow[@]}"}; do store_faults "$n" '# none'; done
  more_answers "$log" 300 60 >/dev/null
  wait_in_sync 90
  echo "$((i + 1)). $did: $host -> $(production_node), all well after $(($(now_ms) - begun)) ms"
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
