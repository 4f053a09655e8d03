#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# A CRG with three IASPs moves as one: switchover and failover, with both takeover orders; no node
# ever serves some of them while another serves the rest, and each keeps its own data.  Before it is
# started it is inactive, without a majority in doubt, and then changes are refused.
# timeout: 200
. "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/functions.sh"
. "$CRG_SRC_DIR/tests/cluster.sh"
requires nbdcopy
unset CRGCTL_SOCKET
cd "$tmp"
# said_by NODE JQ: also while the CRG is not well
said_by () { { ctl "$1" status --json 2>/dev/null || :; } | jq -r "$2"; }
SIZE=$((2 << 20))
LEASE_MS=2000
TAKEOVER=same-site-first

eval "$(declare -f cluster_definition | sed '1s/cluster_definition/one_iasp/')"
cluster_definition ()
{
  local i site
  one_iasp
  sed -i "s/^name = payroll/&\ntakeover = $TAKEOVER/" payroll.conf
  for i in bonus taxes; do
    free_port
    printf '[iasp %s]\nsize = %s\nmirror-port = %s\n' $i $SIZE $PORT
    for site in rome milan; do
      cp --sparse=always "${STORE[$site]}" "$tmp/$i.$site"
      echo "store.$site = $tmp/$i.$site"
    done
  done >>payroll.conf
}
# Of all three; cluster_end knows the first.
plugin_pid ()
{
  local f pid
  for f in "$tmp/$1"/run/*.pid; do
    pid=$(cat "$f" 2>/dev/null) || continue
    grep -qsF "$tmp/$1/run/" "/proc/$pid/cmdline" && is_running "$pid" && echo "$pid"
  done
  return 0
}
end_plugins ()
{
  local n pid
  for n in "${NODE_NAMES[@]}"; do
    [ -z "${NODE_PID[$n]-}" ] || stop_pid "${NODE_PID[$n]}"
    NODE_PID[$n]=
    for pid in $(plugin_pid "$n"); do stop_pid "$pid"; done
  done
}
node_of () { status_of ".crgs[0].iasps[] | select(.name == \"$1\") | .production_node"; }
uri_of ()
{
  local n
  n=$(alive_node) && ctl "$n" uri "$1"
}
served () { local i; for i in payroll bonus taxes; do uri_of $i >/dev/null 2>&1 || return 1; done; }
in_sync () { [ "$(status_of '[.crgs[0].iasps[].copies[].data] | unique | .[]')" = in-sync ]; }

# all_on NODE: the three of them, with their data
are_on ()
{
  local i
  for i in payroll bonus taxes; do [ "$(node_of $i)" = "$1" ] || return 1; done
  served
}
all_on ()
{
  local i
  wait_for 40 are_on "$1" || { show_logs; fail "not all three are served by $1"; }
  for i in payroll bonus taxes; do
    nbdcopy "$(uri_of $i)" back
    cmp back data.$i || fail "$i has other data"
  done
}

cluster_begin
cleanup_fn end_plugins
for i in payroll bonus taxes; do head -c $SIZE /dev/urandom >data.$i; done
wait_for 40 served || { show_logs; fail "not all three are served"; }
for i in payroll bonus taxes; do nbdcopy --flush data.$i "$(uri_of $i)"; done
wait_for 40 in_sync || { show_logs; fail "not in sync"; }
all_on p1
must switchover ctl w1 switchover payroll --to c1 --wait 30
all_on c1
wait_for 40 in_sync || { show_logs; fail "not in sync after the switchover"; }

# --- same-site-first: the other node of the site
kill_node c1
all_on c2
wait_for 40 in_sync || { show_logs; fail "not in sync after the failover"; }
# --- a plugin that dies alone is started again where the others are
kill -KILL "$(cat "$tmp/c2/run/bonus.pid")"
bonus_back () { nbdcopy "$(uri_of bonus)" back 2>/dev/null; }
wait_for 20 bonus_back || { show_logs; fail "bonus does not come back"; }
all_on c2

# --- in doubt: nothing can change, and everybody says so
kill_node c2 w1
doubt () { [ "$(said_by p1 '.crgs[0].state')" = indoubt ]; }
wait_for 20 doubt || { ctl p1 status; fail "p1 is not in doubt"; }
for what in "start payroll" "end payroll" "delete payroll --yes" "switchover payroll" \
  "mark-failed c1 --i-confirm-it-is-dead" "node set payroll p1 --votes 2"; do
  got=0
  # shellcheck disable=SC2086
  timeout 30 "$CRGCTL" --timeout 20 --socket "$tmp/p1/run/crgd.sock" $what >out 2>err </dev/null || got=$?
  [ $got = 5 ] || { cat out err; fail "exit $got, not 5, in doubt: $what"; }
done
# The first that comes back makes a majority; it has to be the host, or production leaves the site.
start_node c2
no_doubt () { ! doubt; }
wait_for 20 no_doubt || { show_logs; fail "p1 stays in doubt"; }
for n in c1 w1; do start_node $n; done
all_on c2
wait_for 40 in_sync || { show_logs; fail "not in sync after all came back"; }

# --- inactive: hosts nothing, keeps its state, can be started again
ctl p1 end payroll
for i in payroll bonus taxes; do
  got=0
  ctl p1 uri $i >/dev/null 2>&1 || got=$?
  [ $got = 5 ] || fail "uri of $i ends with $got"
done
[ "$(status_of '.crgs[0].state')" = inactive ] || fail "it is not inactive"
got=0
ctl p1 switchover payroll --to p1 2>err || got=$?
[ $got = 7 ] || [ $got = 5 ] || { cat err; fail "an inactive CRG is switched over: $got"; }
for i in payroll bonus taxes; do
  [ $i = payroll ] && a=${STORE[rome]} b=${STORE[milan]} || a=$tmp/$i.rome b=$tmp/$i.milan
  cmp -n $SIZE "$a" "$b" || fail "the copies of $i differ"
done
