#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# F4 in a whole cluster, under the recorder: production's store fails (a write, a flush, a read, a
# full file system), the other copy takes over, the failed one is barred with a reason, the
# client reads no old and misses no answered block; unbarred it is filled again and equal.  Then the
# copy's store fails: clients notice nothing.
# timeout: 240
. "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/functions.sh"
. "$CRG_SRC_DIR/tests/cluster.sh"
requires_test_build
NODES="p1:rome c1:milan w1"
SIZE=$((32 << 20))
SUSPEND_MS=2000
TOKEN_MS=400
LEASE_MS=1500
FAULTS=cache
cluster_begin
wait_in_sync 30
round=0
is_barred () { [ "$(copy_of "$1" barred)" = true ]; }

# fails SITE WHAT RULE: its store does, until it is barred; then it is unbarred
fails ()
{
  local site=$1 what=$2 rule=$3 log=$tmp/rec.$round.log was
  was=$(production_site)
  start_recorder "$log" --blocks 256 --offset $((round << 20)) --fua 10
  round=$((round + 1))
  more_answers "$log" 200 20 >/dev/null
  store_faults "$site" cache "$rule"
  wait_for 30 is_barred "$site" || { show_logs; fail "$what: the copy of $site is not barred"; }
  more_answers "$log" 300 40 >/dev/null
  if [ "$site" = "$was" ]; then
    [ "$(production_site)" != "$site" ] || { show_logs; fail "$what: production is still at $site"; }
  else
    [ "$(production_site)" = "$was" ] || fail "$what: production moved because a copy failed"
  fi
  case $(copy_of "$site" reason) in
    *store*) ;;
    *) fail "$what: the reason says nothing of the store: $(copy_of "$site" reason)" ;;
  esac
  echo "$what at $site: barred ($(copy_of "$site" reason)); production at $(production_site)"
  store_faults "$site" cache
  ctl "$(alive_node)" mirror unbar payroll --site "$site" || fail "unbar"
  wait_in_sync 60
  more_answers "$log" 100 20 >/dev/null
  stop_recorder "$log"
  if [ "$site" != "$was" ]; then
    [ "$(recorded "$log" errors)" = 0 ] || fail "$what: clients saw errors because a copy failed"
  fi
  cmp -n $SIZE "${STORE[rome]}" "${STORE[milan]}" || { show_logs; fail "$what: the copies differ"; }
}

fails "$(production_site)" "a write, half done" "fail write EIO times 1 half"
fails "$(production_site)" "a flush" "fail flush EIO times 1"
fails "$(production_site)" "a read" "fail read EIO times 1"
fails "$(production_site)" "a full store" "fail write ENOSPC"
other_site () { [ "$1" = rome ] && echo milan || echo rome; }
fails "$(other_site "$(production_site)")" "a write, half done" "fail write EIO times 1 half"
fails "$(other_site "$(production_site)")" "a full store" "fail write ENOSPC"
[ "$(status_of '.crgs[0].iasps[0].loss')" = 0 ] || fail "loss was raised"
same_copies
