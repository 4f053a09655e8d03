#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# The crash matrix: who dies by SIGKILL (the plugin of production or of the copy, either crgd, the hub) in
# which situation (idle, random writes with flushes, a resynchronisation, a comparison of the copies, a switchover,
# another recovery).  Plugins die now as processes and now with their machine's power: both stores lie under a
# cache that then loses, tears and reorders what was not flushed.  After each cell every answered write is
# there (if the only copy in the set lost its power, every flushed one, and loss says so), the copies are
# equal byte for byte, and what was copied for that is bounded by what could differ.
# timeout: 400
. "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/functions.sh"
. "$CRG_SRC_DIR/tests/cluster.sh"
requires_test_build
RANDOM=${CRG_SEED:=1}
victims=(production-plugin copy-plugin production-crgd copy-crgd hub)
situations=(idle write resync verify switchover recovery)
sampled=(production-plugin copy-plugin "${victims[2 + CRG_SEED % 3]}") # while copies are compared
if [ -n "${CRG_VICTIMS-}" ]; then read -ra victims <<<"$CRG_VICTIMS"; sampled=("${victims[@]}"); fi
if [ -n "${CRG_SITUATIONS-}" ]; then read -ra situations <<<"$CRG_SITUATIONS"; fi
echo "CRG_SEED=$CRG_SEED"
NODES="p1:rome c1:milan w1"
SIZE=$((64 << 20))
SUSPEND_MS=1000
TOKEN_MS=400
LEASE_MS=1500
FAULTS=cache
for n in p1 c1 w1; do new_boot $n; done
cluster_begin
wait_in_sync 30

other_site () { [ "$1" = rome ] && echo milan || echo rome; }
loss () { status_of '.crgs[0].iasps[0].loss'; }
is_resyncing () { [ "$(copy_of "$1" mirror)" = resyncing ]; }
# What is copied only grows; after the restart of a crgd the status may be one of before, for a moment.
is_counted ()
{
  bytes=$(copy_of "$(other_site "$(production_site)")" resync_sent_bytes)
  [ "$pid" = "$(plugin_pid "$(production_node)")" ] || return 0
  [ "$bytes" -ge "$sent" ] || return 1
  bytes=$((bytes - sent))
}
# A comparison gives up if the copy is slower than the suspend timeout: then another is begun.
compare () { ctl "$HOST" mirror verify payroll --repair >>"$tmp/steps.log" 2>&1 & to=$!; }
is_comparing ()
{
  [ "$(status_of '.crgs[0].iasps[0].verify.on')" != true ] || return 0
  is_running $to || compare
  return 1
}
is_suspended () { [ "$(copy_of "$1" mirror)" = suspended ]; }

# die VICTIM: DEAD holds the nodes to be started again
die ()
{
  local node site=$SITE
  case $1 in
    production-*) node=$HOST ;;
    copy-*) node=$COPY site=$(other_site "$SITE") ;;
  esac
  case $1 in
    hub)
      kill_pid "$HUB_PID"
      start_hub ;;
    *-crgd)
      kill -KILL "${NODE_PID[$node]}" 2>/dev/null || :
      wait "${NODE_PID[$node]}" 2>/dev/null || :
      NODE_PID[$node]=
      DEAD+=("$node") ;;
    *-plugin)
      if [ $POWER = off ]; then
        kill_node "$node"
        LOSS_AT=$("$RECORDER" now)
        power_off $((RANDOM % 1000)) "$node"
        DEAD+=("$node")
      else
        kill -KILL "$(plugin_pid "$node")" 2>/dev/null || :
      fi ;;
  esac
}

# equal_stores: while nothing is written
equal_stores () { cmp -n "$SIZE" "${STORE[rome]}" "${STORE[milan]}"; }

# resyncs: how many resynchronisations all productions have begun so far
resyncs () { cat "$tmp"/*/run/payroll.log | grep -c 'copy at .*: resyncing'; }

# Cells write in the last four MiB, one after the other, and all four may be hot: marks go when production is idle,
# which it hardly is here, and a full region leads to those behind it.  What is written while a slow copy is filled is
# dirty again, and sent again.  Before them lie data that nobody touches, 48 MiB.
AREA=$((4 << 20))
BOUND=$((3 * AREA)) # bytes of one resynchronisation
qemu-io -f raw -c "write -P 90 0 $((48 << 20))" "$(export_uri)" >/dev/null
is_cool () { ctl w1 explain payroll | grep -q 'Hot on its disk: 0 bytes'; }
is_hot () { ! is_cool; }
wait_for 10 is_hot || : # the status is a little behind; on a busy machine it may be cool before anybody looked
wait_for 30 is_cool || fail "still hot: $(ctl w1 explain payroll)"
copied=0
cells=0
offset=$((SIZE - AREA))
logs=()
one_cell () # SITUATION VICTIM
{
  local situation=$1 victim=$2 log=$tmp/rec.$cells.log begun n to bytes lost name sent pid tries
  tries=$(resyncs)
  sent=$(copy_of "$(other_site "$(production_site)")" resync_sent_bytes) pid=$(plugin_pid "$(production_node)")
  POWER=on DEAD=() LOSS_AT=
  lost=$(loss)
  if ((RANDOM % 2)); then POWER=off; fi
  HOST=$(production_node)
  SITE=$(production_site)
  COPY=$(host_of "$(other_site "$SITE")")
  begun=$(now_ms)
  if [ $offset -ge $SIZE ]; then
    offset=$((SIZE - AREA))
    logs=()
  fi
  start_recorder "$log" --blocks 256 --offset $offset --seed $((RANDOM + 1))
  offset=$((offset + (1 << 20)))
  logs+=("$log")
  more_answers "$log" 200 20 >/dev/null
  case $situation in
    idle)
      kill -STOP "$RECORDER_PID"
      sleep 0.2
      die "$victim"
      kill -CONT "$RECORDER_PID" ;;
    write)
      die "$victim" ;;
    resync)
      # The copy stands still until it is suspended; filling it takes a while.
      n=$(plugin_pid "$COPY")
      kill -STOP "$n"
      wait_for 20 is_suspended "$(other_site "$SITE")" || { show_logs; fail "$situation, $victim: not suspended"; }
      store_faults "$(other_site "$SITE")" cache "delay write 700000"
      kill -CONT "$n"
      wait_for 20 is_resyncing "$(other_site "$SITE")" || { show_logs; fail "$situation, $victim: no resync"; }
      die "$victim"
      store_faults "$(other_site "$SITE")" cache ;;
    verify)
      # What was written is compared, slowly.
      store_faults "$(other_site "$SITE")" cache "delay read 30000"
      compare
      wait_for 20 is_comparing || { show_logs; cat "$tmp/steps.log"; fail "$situation, $victim: nothing is compared"; }
      die "$victim"
      store_faults "$(other_site "$SITE")" cache
      kill_pid $to || : ;;
    switchover)
      ctl w1 switchover payroll --to "$COPY" --wait 20 >>"$tmp/steps.log" 2>&1 &
      to=$!
      sleep 0.0$((RANDOM % 10))
      sleep 0.$((RANDOM % 3))
      die "$victim"
      wait $to || : ;;
    recovery)
      # The other plugin dies first.
      if [ "$victim" = production-plugin ]; then n=$COPY; else n=$HOST; fi
      kill -KILL "$(plugin_pid "$n")" 2>/dev/null || :
      sleep 0.$((RANDOM % 7))
      die "$victim" ;;
  esac
  for n in ${DEAD[@]+"${DEAD[@]}"}; do start_node "$n"; done
  more_answers "$log" 200 60 >/dev/null
  wait_in_sync 60
  name="$situation, $victim"
  # Production's machine, the only one in the set: then loss says that what was not flushed may be gone.
  if [ -n "$LOSS_AT" ]; then
    name+=" (power lost)"
    if [ "$(loss)" != "$lost" ]; then
      name+=" (loss said)"
      for n in "${logs[@]}"; do "$RECORDER" loss --log "$n" --at "$LOSS_AT"; done
    fi
  fi
  [ -n "$LOSS_AT" ] || [ "$(loss)" = "$lost" ] || fail "$name: loss was raised though no machine restarted"
  stop_recorder "$log"
  wait_in_sync 30
  equal_stores || { show_logs; fail "$name: the copies differ"; }
  # Counted by the present production plugin, over all resynchronisations that it has made: one that is cut off
  # is begun again.
  wait_for 20 is_counted || { show_logs; fail "$name: the status counts less than before"; }
  tries=$(($(resyncs) - tries))
  [ "$bytes" -le $((BOUND * (tries > 0 ? tries : 1))) ] || {
    show_logs
    fail "$name: $bytes bytes were copied in $tries resynchronisations, more than hot and dirty ones"
  }
  copied=$((copied + bytes))
  cells=$((cells + 1))
  echo "$cells. $name: $HOST -> $(production_node), $((bytes >> 10)) KiB copied, well after $(($(now_ms) - begun)) ms"
}

for situation in "${situations[@]}"; do
  for victim in "${victims[@]}"; do
    if [ $situation = verify ] && [[ " ${sampled[*]} " != *" $victim "* ]]; then continue; fi
    one_cell "$situation" "$victim"
  done
done
# What was never copied shows nothing.
[ $copied -gt 0 ] || fail "nothing was resynchronised in all cells"
same_copies
for log in "${logs[@]}"; do
  "$RECORDER" check --log "$log" --image "${STORE[rome]}" >/dev/null || fail "$log: the image lacks something"
done
