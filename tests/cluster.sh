# SPDX-License-Identifier: BSD-3-Clause
# Words for tests that need a whole cluster on this machine: a hub, a crgd for each node, TLS, one
# CRG "payroll" with one IASP "payroll".  Source it after functions.sh.
#
#   NODES="p1:rome p2:rome c1:milan c2:milan w1"     (a name without a site is a replicate)
#   cluster_begin          processes up, CRG created and started, payroll served
#   wait_in_sync 30        and every copy filled
#
# Set before cluster_begin what shall differ:
NODES="p1:rome p2:rome c1:milan c2:milan w1"
SIZE=$((16 << 20))     # of the export
STORE_SIZE=            # of each store; default: SIZE and room for the metadata
EXPORT=unix:           # or tcp::PORT, tcp::auto (a free port)
EXPORT_TLS=on
SUSPEND_MS=2000
ADDRESS=               # prefix of the addresses; default 127.0.0.
HOOK_MS=30000          # what a hook in $tmp/NODE/hooks.d may take
LEASE_MS=              # default: the product's
TOKEN_MS=              # the same
FAULTS=                # rules of the layer under each store (plugin/storefault.h); default: none
CLIENT_PORT=           # where clients ask the nodes; auto: a free port
#                        A file $tmp/meta.SITE holds the metadata of that site's store, and $tmp/store.SITE
#                        may be full of data then.
LATER=                 # nodes whose crgd runs, but that are not in the definition

declare -A NODE_PID NODE_SITE NODE_ADDRESS NODE_BOOT # a boot id that is played, or nothing
NODE_NAMES=()
HUB_PID=

# ctl NODE ARGUMENTS...: crgctl on that node
ctl ()
{
  local n=$1
  shift
  "$CRGCTL" --timeout 20 --socket "$tmp/$n/run/crgd.sock" "$@"
}

cluster_files ()
{
  local entry n site id=0 where=() address
  if [ "$CLIENT_PORT" = auto ]; then
    free_port
    CLIENT_PORT=$PORT
  fi
  CLIENT_NODES=
  for entry in $NODES; do
    n=${entry%%:*} site=
    [ "$n" = "$entry" ] || site=${entry#*:}
    id=$((id + 1))
    NODE_NAMES+=("$n")
    NODE_SITE[$n]=$site
    address=${ADDRESS:-127.0.0.}$((10 + id))
    NODE_ADDRESS[$n]=$address
    where+=("$n=$address")
    mkdir -p "$tmp/$n/state" "$tmp/$n/run"
    cat >"$tmp/$n/crgd.conf" <<END
[node]
name = $n
state-dir = $tmp/$n/state
run-dir = $tmp/$n/run
tls-certificates = $tmp/pki/$n
nbdkit = $CRG_NBDKIT
plugin = $PLUGIN
hooks-dir = $tmp/$n/hooks.d
hook-timeout-ms = $HOOK_MS
${SNAPSHOT_HOOK:+snapshot-hook = $SNAPSHOT_HOOK}
[engine]
type = local
socket = $tmp/hub.sock
END
    [ -z "$TOKEN_MS" ] || printf 'token-ms = %s\n' "$TOKEN_MS" >>"$tmp/$n/crgd.conf"
    if [ -n "$CLIENT_PORT" ]; then
      printf '[client]\nlisten = %s:%s\n' "$address" "$CLIENT_PORT" >>"$tmp/$n/crgd.conf"
      CLIENT_NODES+=${CLIENT_NODES:+,}$n=$address:$CLIENT_PORT
    fi
    [ -z "$LEASE_MS" ] || printf '[lease]\nlease-ms = %s\n' "$LEASE_MS" >>"$tmp/$n/crgd.conf"
  done
  "$CRGCTL" init-pki "$tmp/pki" "${where[@]}" --client app >"$tmp/pki.log" 2>&1 || {
    cat "$tmp/pki.log"
    fail "crgctl init-pki"
  }
  CLIENT_TLS=$tmp/pki/clients/app
}

# The definition of the CRG
cluster_definition ()
{
  local n id=0 role=primary site sites=
  free_port
  MIRROR_PORT=$PORT
  if [ "$EXPORT" = tcp::auto ]; then
    free_port
    EXPORT=tcp::$PORT
  fi
  {
    echo "[crg]"
    echo "name = payroll"
    echo "suspend-timeout-ms = $SUSPEND_MS"
    for n in "${NODE_NAMES[@]}"; do
      id=$((id + 1))
      case " $LATER " in *" $n "*) continue ;; esac
      printf '[node %s]\nid = %s\naddress = %s\n' "$n" $id "${NODE_ADDRESS[$n]}"
      if [ -n "${NODE_SITE[$n]}" ]; then
        printf 'site = %s\nrole = %s\n' "${NODE_SITE[$n]}" $role
        role=backup
      else
        echo "role = replicate"
      fi
    done
    printf '[iasp payroll]\nsize = %s\nexport = %s\ntls = %s\nmirror-port = %s\n' \
      "$SIZE" "$EXPORT" "$EXPORT_TLS" "$MIRROR_PORT"
    [ -z "${SNAPSHOT_HOOK-}" ] || echo "snapshot-before-resync = on"
    for n in "${NODE_NAMES[@]}"; do
      site=${NODE_SITE[$n]}
      case " $LATER " in *" $n "*) continue ;; esac
      [ -n "$site" ] || continue
      case " $sites " in
        *" $site "*) ;;
        *) sites="$sites $site"
          STORE[$site]=$tmp/store.$site
          [ -z "$FAULTS" ] || printf '%s\n' "$FAULTS" >"$tmp/store.$site.faults"
          [ -e "$tmp/store.$site" ] || truncate -s "${STORE_SIZE:-$((SIZE + SIZE / 1024 + (4 << 20)))}" "$tmp/store.$site"
          echo "store.$site = $tmp/store.$site"
          [ ! -e "$tmp/meta.$site" ] || echo "meta.$site = $tmp/meta.$site" ;;
      esac
    done
  } >"$tmp/payroll.conf"
}
declare -A STORE

start_hub ()
{
  "$CRGD" --local-hub "$tmp/hub.sock" >>"$tmp/hub.log" 2>&1 </dev/null &
  HUB_PID=$!
  record_pid $HUB_PID
}

# node_answers NODE: whatever its crgd has to say (4 and 5: a CRG that is not well)
node_answers ()
{
  local code=0
  ctl "$1" status >/dev/null 2>&1 || code=$?
  case $code in 0 | 4 | 5) return 0 ;; esac
  return 1
}

# start_node NODE: its crgd; returns when it answers
start_node ()
{
  local n=$1
  CRG_BOOT_ID=${NODE_BOOT[$n]-} "$CRGD" --config "$tmp/$n/crgd.conf" >>"$tmp/$n/crgd.log" 2>&1 </dev/null &
  NODE_PID[$n]=$!
  record_pid "${NODE_PID[$n]}"
}

cluster_begin ()
{
  local n
  requires_daemon
  requires jq
  cluster_files
  cluster_definition
  cleanup_fn cluster_end
  start_hub
  for n in "${NODE_NAMES[@]}"; do start_node "$n"; done
  for n in "${NODE_NAMES[@]}"; do
    wait_for 15 node_answers "$n" || { cat "$tmp/$n/crgd.log"; fail "crgd of $n does not answer"; }
  done
  FIRST=${NODE_NAMES[0]}
  must "crgctl create" ctl "$FIRST" create "$tmp/payroll.conf"
  must "crgctl start" ctl "$FIRST" start payroll
  wait_serving 30 || fail "payroll is not served"
  cat >"$tmp/where" <<END
#!/bin/bash
# Where payroll is served now, by whichever node knows.
for n in ${NODE_NAMES[*]}; do
  if uri=\$("$CRGCTL" --timeout 1 --socket "$tmp/\$n/run/crgd.sock" uri payroll 2>/dev/null); then
    echo "\$uri"
    exit 0
  fi
done
exit 1
END
}

# plugin_pid NODE: pid of its nbdkit, or nothing
plugin_pid ()
{
  local pid
  pid=$(cat "$tmp/$1/run/payroll.pid" 2>/dev/null) || return 0
  # A pid file may be older than the process of that number.
  grep -qsF "$tmp/$1/run/" "/proc/$pid/cmdline" && is_running "$pid" && echo "$pid"
  return 0
}

# cluster_end: nothing of it stays
cluster_end ()
{
  local n pid
  for n in "${NODE_NAMES[@]}"; do
    [ -z "${NODE_PID[$n]-}" ] || stop_pid "${NODE_PID[$n]}"
  done
  for n in "${NODE_NAMES[@]}"; do
    pid=$(plugin_pid "$n")
    [ -z "$pid" ] || stop_pid "$pid"
  done
  [ -z "$HUB_PID" ] || stop_pid "$HUB_PID"
}

# show_logs: for a test that has failed
show_logs ()
{
  local f
  for f in "$tmp"/*/crgd.log "$tmp"/*/run/*.log "$tmp"/*/state/*.log; do
    [ -s "$f" ] || continue
    echo "--- ${f#"$tmp"/}"
    tail -n 25 "$f"
  done
  ctl "$(alive_node)" status 2>&1 || :
}
# alive_node: the name of one whose crgd answers
alive_node ()
{
  local n
  for n in "${NODE_NAMES[@]}"; do
    if [ -n "${NODE_PID[$n]-}" ] && is_running "${NODE_PID[$n]}" && node_answers "$n"; then
      echo "$n"
      return 0
    fi
  done
  return 1
}

# status_of JQ: one datum of the status, as the first node that answers tells it
status_of ()
{
  local n out code
  for n in "${NODE_NAMES[@]}"; do
    [ -n "${NODE_PID[$n]-}" ] && is_running "${NODE_PID[$n]}" || continue
    code=0
    out=$(ctl "$n" status --json 2>/dev/null) || code=$?
    case $code in 0 | 4 | 5) ;; *) continue ;; esac
    jq -r "$1" <<<"$out"
    return
  done
  return 1
}
production_node () { status_of '.crgs[0].iasps[0].production_node'; }
production_site () { status_of '.crgs[0].iasps[0].production_site'; }
# host_of SITE: the node that hosts its copy
host_of () { status_of ".crgs[0].iasps[0].copies[] | select(.site == \"$1\") | .host"; }
# copy_of SITE FIELD
copy_of () { status_of ".crgs[0].iasps[0].copies[] | select(.site == \"$1\") | .$2"; }

# payroll_is WHAT: so it is, as the first node that answers knows it
payroll_is ()
{
  local n code
  for n in "${NODE_NAMES[@]}"; do
    [ -n "${NODE_PID[$n]-}" ] && is_running "${NODE_PID[$n]}" || continue
    code=0
    ctl "$n" is "$1" payroll >/dev/null 2>&1 || code=$?
    case $code in 3 | 6) ;; *) return $code ;; esac
  done
  return 1
}
is_in_sync () { payroll_is in-sync; }
is_serving () { payroll_is serving; }
wait_in_sync () { wait_for "$1" is_in_sync || { show_logs; fail "not in sync after $1 s"; }; }
wait_serving () { wait_for "$1" is_serving || { show_logs; fail "not served after $1 s"; }; }

# export_uri: where payroll is now, with the client's certificates if it needs them
export_uri ()
{
  local u
  u=$(bash "$tmp/where") || return 1
  case $u in
    nbds:*\?*) echo "$u&tls-certificates=$CLIENT_TLS" ;;
    nbds:*) echo "$u?tls-certificates=$CLIENT_TLS" ;;
    *) echo "$u" ;;
  esac
}

# kill_node NODE...: SIGKILL for crgd and nbdkit of all these at once, as if the machines were gone.
# At once: while a copy that took over is not filled again, the other nodes can't follow it.
kill_node ()
{
  local n pids=
  for n; do pids+=" ${NODE_PID[$n]} $(plugin_pid "$n")"; done
  # shellcheck disable=SC2086
  kill -KILL $pids 2>/dev/null || :
  for n; do
    wait "${NODE_PID[$n]}" 2>/dev/null || :
    NODE_PID[$n]=
  done
}

# store_faults SITE RULE...: what the store of that site does from now on; FAULTS was set before
store_faults ()
{
  local site=$1
  shift
  printf '%s\n' "$@" >"$tmp/store.$site.faults.new"
  mv "$tmp/store.$site.faults.new" "$tmp/store.$site.faults"
}

# new_boot NODE: it will be another boot of that machine
new_boot ()
{
  NODE_BOOT[$1]=$(od -An -tx1 -N16 /dev/urandom | tr -d ' \n')
}

# power_off SEED NODE...: all of these machines at once, with what wasn't flushed; a store that another
# node has open by now is left alone
power_off ()
{
  local seed=$1 n site
  shift
  kill_node "$@"
  for n; do
    new_boot "$n"
    site=${NODE_SITE[$n]}
    [ -z "$site" ] || "$POWERLOSS" "${STORE[$site]}" "$seed"
  done
}

# ------------------------------------------------------------------------------ the recorder
RECORDER=$CRG_BUILD_DIR/tests/recorder/recorder

# start_recorder LOG OPTIONS...: writes until stop_recorder; sets RECORDER_PID.  RECORDER_WHERE is a
# command that says where, instead of the nodes.
start_recorder ()
{
  local log=$1
  shift
  "$RECORDER" run --log "$log" --uri-command "${RECORDER_WHERE:-bash $tmp/where}" --tls-certificates "$CLIENT_TLS" \
    --seconds 600 --rate 2000 --op-timeout 1000 "$@" >"$log.out" 2>"$log.err" &
  RECORDER_PID=$!
  record_pid $RECORDER_PID
  wait_for 20 grep -qs ' connected' "$log" || { cat "$log.err"; show_logs; fail "the recorder does not write"; }
}

# more_answers LOG N SECONDS: and how long it took
more_answers ()
{
  local log=$1 n=$2 s=$3
  "$RECORDER" wait --log "$log" --more "$n" --timeout $((s * patience * 1000)) || {
    waited_in_vain=yes
    show_logs
    fail "no $n answers within $s s"
  }
}

# recorded LOG FIELD: of its summary
recorded () { jq -r ".$2" "$1.out"; }

# stop_recorder LOG: ends it and judges the history
stop_recorder ()
{
  kill -TERM "$RECORDER_PID"
  wait "$RECORDER_PID" || { cat "$1.err"; show_logs; fail "the recorder"; }
  cat "$1.out"
  "$RECORDER" check --log "$1" --uri-command "bash $tmp/where" --tls-certificates "$CLIENT_TLS" || {
    show_logs
    fail "the recorded history has a fault"
  }
}

# same_copies: the CRG is ended; its stores hold the same data
same_copies ()
{
  local n first= site
  n=$(alive_node)
  must "crgctl end" ctl "$n" end payroll
  for site in "${!STORE[@]}"; do
    if [ -z "$first" ]; then
      first=$site
    else
      cmp -n "$SIZE" "${STORE[$first]}" "${STORE[$site]}" || fail "the copies of $first and $site differ"
    fi
  done
}
