#!/bin/bash
# corosync, 2 + 2 + 1 nodes: started in different orders, all end with the same state, hosted once, mirrored once
# SPDX-License-Identifier: BSD-3-Clause
# timeout: 240
. "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/lab.sh"
lab_enter "$0" "$@"
. "$CRG_SRC_DIR/tests/functions.sh"
requires_daemon
requires jq nbdcopy cmp

crg_up
crg_uri_command >/dev/null
h=$(crg_host)
[ "$h" = 1 ] || fail "production began on n$h, not on the primary n1"
# Something to recognise, on both copies.
head -c 8M /dev/urandom >"$tmp/pattern"
crg_uri_command >/dev/null
nbdcopy "$tmp/pattern" "$("$tmp/uri")"

counter () { crg_field $1 ".crgs[0].counters.$2"; }

# seen_once: each member but the one that sent it got the state once in this incarnation, and there
# was one MIRROR-START, to the copy's host
seen_once ()
{
  local i
  states=$(for i in 1 2 3 4 5; do counter $i group_state; done | sort | paste -sd' ')
  starts=$(for i in 1 2 3 4; do counter $i mirror_start; done | paste -sd' ')
  [ "$states" = "0 1 1 1 1" ] || { crg_logs; fail "GROUP-STATE by node, sorted: $states"; }
  [ "$(crg_mirror)" = 3 ] && [ "$starts" = "0 0 1 0" ] || { crg_logs; fail "MIRROR-START by node: $starts"; }
}

for order in "5 4 3 2 1" "3 1 5 2 4" "2 4 1 3 5" "1 5 3 4 2"; do
  node_down 1 2 3 4 5
  started=0
  for i in $order; do
    node_up $i
    wait_for 10 crgd_answers $i || { crg_logs; fail "no crgd on n$i"; }
    started=$((started + 1))
    # Nothing is hosted before three of five are there.
    if [ $started = 2 ]; then
      sleep 1
      for k in 1 2 3 4; do
        [ -z "$(plugin_pid $k)" ] || fail "n$k hosts something, and only two nodes are there"
      done
    fi
  done
  crg_wait 40 active 1 2 3 4 5
  for i in 2 3 4 5; do
    [ "$(crg_field $i '.crgs[0] | del(.counters, .lease, .wait) | .iasps[0] | [.production_node, .tenure, .generation, .loss, [.copies[] | [.host, .in_set, .since]]]')" = \
      "$(crg_field 1 '.crgs[0] | del(.counters, .lease, .wait) | .iasps[0] | [.production_node, .tenure, .generation, .loss, [.copies[] | [.host, .in_set, .since]]]')" ] ||
      { crg_logs; fail "n$i has another record than n1"; }
  done
  seen_once
  echo "order $order: production on n$(crg_host), $(counter 1 views) views on n1, loss $(crg_field 1 '.crgs[0].iasps[0].loss')"
  nbdcopy "$("$tmp/uri")" "$tmp/back"
  cmp -n $((8 << 20)) "$tmp/pattern" "$tmp/back" || fail "the data are not what was written"
done
cmp -n $((64 << 20)) "$tmp/rome.store" "$tmp/milan.store" || fail "the copies differ"
