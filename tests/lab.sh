# SPDX-License-Identifier: BSD-3-Clause
# A lab of several nodes on one machine: each node is a network namespace with a corosync of its
# own; every pair of nodes has its own cable, so that any pair can be cut, in one direction too.
# To be sourced first, before functions.sh:
#
#   . "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/lab.sh"
#   lab_enter "$0" "$@"
#   . "$CRG_SRC_DIR/tests/functions.sh"
#   lab_up 5; lab_conf; lab_start 1 2 3 4 5; lab_wait_members 5 1 2 3 4 5
#
# lab_enter runs the test again inside its own user (if not root), network, mount and process
# namespaces: nothing that it makes is visible outside, and all of it, processes too, is gone
# when the test ends, however it ends.

CRG_SRC_DIR=$(cd "${CRG_SRC_DIR:-$(dirname "$0")/..}" && pwd)
CRG_BUILD_DIR=$(cd "${CRG_BUILD_DIR:-$CRG_SRC_DIR/build}" && pwd)
export CRG_SRC_DIR CRG_BUILD_DIR
PATH=$PATH:/usr/sbin:/sbin

lab_enter ()
{
  local user= p
  if [ "${LAB_INSIDE-}" = yes ]; then
    mount -t tmpfs tmpfs /run
    mount -t tmpfs tmpfs /dev/shm
    mkdir -p /run/netns
    ip link set lo up
    return 0
  fi
  for p in corosync corosync-quorumtool ip unshare; do
    command -v $p >/dev/null || { echo "needs $p"; exit 77; }
  done
  grep -q '^#define HAVE_COROSYNC 1' "$CRG_BUILD_DIR/config.h" ||
    { echo "built without corosync"; exit 77; }
  [ "$(id -u)" = 0 ] || user=-Ur
  unshare $user -nmp --fork --kill-child --mount-proc --propagation private \
    bash -c 'mount -t tmpfs tmpfs /run && mkdir /run/netns && ip netns add x &&
             ip link add lab0 type veth peer name lab1' 2>/dev/null ||
    { echo "this machine doesn't allow network namespaces"; exit 77; }
  LAB_INSIDE=yes exec unshare $user -nmp --fork --kill-child --mount-proc \
    --propagation private bash "$@"
}

lab_address () { echo "10.98.0.$1"; }

# lab_up N: namespaces n1 to nN, and a cable between any two.  A cut direction is a route into
# an interface that leads nowhere: silence, as from a dead wire, and no error at the sender.
lab_up ()
{
  local i j
  lab_nodes=$1
  for ((i = 1; i <= lab_nodes; i++)); do
    ip netns add n$i
    ip netns exec n$i sysctl -qw net.ipv6.conf.all.disable_ipv6=1 2>/dev/null || true
    ip -n n$i link set lo up
    ip -n n$i addr add "$(lab_address $i)/32" dev lo
    ip -n n$i link add hole type veth peer name hole-end
    ip -n n$i link set hole arp off up
    ip -n n$i link set hole-end up
    mkdir -p "$tmp/n$i/run" "$tmp/n$i/corosync"
  done
  for ((i = 1; i <= lab_nodes; i++)); do
    for ((j = i + 1; j <= lab_nodes; j++)); do
      ip -n n$i link add to$j type veth peer name to$i netns n$j
      ip -n n$i link set to$j up
      ip -n n$j link set to$i up
    done
  done
  for ((i = 1; i <= lab_nodes; i++)); do
    for ((j = 1; j <= lab_nodes; j++)); do
      [ $i = $j ] || lab_heal_way $i $j
    done
  done
}

# one direction, from node $1 to node $2
lab_cut_way () { ip -n n$1 route replace "$(lab_address $2)/32" dev hole src "$(lab_address $1)"; }
lab_heal_way () { ip -n n$1 route replace "$(lab_address $2)/32" dev to$2 src "$(lab_address $1)"; }

# lab_cut "1 2" "3 4 5": nothing passes between the two sides; lab_heal undoes it
lab_cut () { lab_both lab_cut_way "$1" "$2"; }
lab_heal () { lab_both lab_heal_way "$1" "$2"; }
lab_both ()
{
  local i j
  for i in $2; do
    for j in $3; do
      "$1" $i $j
      "$1" $j $i
    done
  done
}

# lab_conf [OPTION...]: writes each node's corosync.conf, from what crgctl cluster conf prints; the
# lab adds only where files are, and that no real-time scheduling is to be had here.
lab_conf ()
{
  local i nodes=()
  for ((i = 1; i <= lab_nodes; i++)); do nodes+=("n$i=$(lab_address $i)"); done
  "$CRGCTL" cluster conf "$@" "${nodes[@]}" >"$tmp/corosync.conf"
  lab_spread_conf
}

# lab_spread_conf: $tmp/corosync.conf to all nodes
lab_spread_conf ()
{
  local i
  [ -s "$tmp/authkey" ] || head -c 256 /dev/urandom >"$tmp/authkey"
  for ((i = 1; i <= lab_nodes; i++)); do
    sed -e "s,^totem {,&\n  keyfile: $tmp/authkey," \
      -e "s,^logging {,&\n  to_logfile: yes\n  logfile: $tmp/n$i/corosync.log\n  blackbox: off," \
      -e '/^ *to_syslog:/s/yes/no/' "$tmp/corosync.conf" >"$tmp/n$i/corosync.conf"
    printf 'system {\n  state_dir: %s\n  sched_rr: no\n  move_to_root_cgroup: no\n}\n' \
      "$tmp/n$i/corosync" >>"$tmp/n$i/corosync.conf"
  done
}

# lab_in I COMMAND...: runs it on node I.  lab_exec: the same, in the place of this shell (for a
# subshell in the background whose pid is to be the command's).
lab_exec ()
{
  local i=$1
  shift
  exec ip netns exec n$i bash -c 'mount --bind "$0" /run; exec "$@"' "$tmp/n$i/run" "$@"
}
lab_in () { (lab_exec "$@"); }

# lab_start I...: starts corosync there, after the end of one that was told to end
lab_start ()
{
  local i
  for i; do
    if [ -n "${lab_corosync[i]-}" ]; then
      wait_for 20 not_running "${lab_corosync[i]}" || fail "corosync of node $i does not end"
      wait "${lab_corosync[i]}" 2>/dev/null || :
    fi
    rm -f "$tmp/n$i/run/corosync.pid"
    HOSTNAME=n$i lab_exec $i corosync -f -c "$tmp/n$i/corosync.conf" >>"$tmp/n$i/corosync.out" 2>&1 &
    lab_corosync[i]=$!
  done
}
lab_corosync=()

# lab_signal SIGNAL I...: to these corosyncs
lab_signal ()
{
  local s=$1 i
  shift
  for i; do kill -s "$s" "${lab_corosync[i]}"; done
}

# lab_members I: how many nodes its corosync counts, 0 if it doesn't answer
lab_members ()
{
  lab_in $1 timeout -k 1 5 corosync-quorumtool -s 2>/dev/null | awk '/^Nodes:/ { n = $2 } END { print n + 0 }'
}

lab_has_members () { [ "$(lab_members $1)" = "$2" ]; }

# lab_wait_members N I...: until all these nodes count N
lab_wait_members ()
{
  local n=$1 i
  shift
  for i; do
    wait_for 20 lab_has_members $i $n || {
      tail -n 20 "$tmp/n$i/corosync.log" "$tmp/n$i/corosync.out"
      fail "node $i counts $(lab_members $i) nodes, not $n"
    }
  done
}

# --- members: enginetest on some nodes -------------------------------------------------------

lab_member=()    # pid by node
lab_member_in=() # descriptor of its stdin

# member_start I [LOG [OPTION...]]: enginetest on node I; its log is $tmp/LOG (default eI)
member_start ()
{
  local i=$1 log=${2:-e$1} fd
  shift $(($# < 2 ? $# : 2))
  rm -f "$tmp/in$i"
  mkfifo "$tmp/in$i"
  lab_exec $i "$CRG_BUILD_DIR/tests/enginetest" --nodes $lab_nodes "$@" test \
    <"$tmp/in$i" >"$tmp/$log" 2>"$tmp/$log.err" &
  lab_member[i]=$!
  exec {fd}>"$tmp/in$i"
  lab_member_in[i]=$fd
}

# member_tell I WORD...
member_tell ()
{
  local i=$1
  shift
  echo "$*" >&"${lab_member_in[i]}"
}

# member_view LOG: the members of its last view
member_view () { awk '$2 == "V" { v = $5 } $2 == "DOWN" { v = "" } END { print v }' "$tmp/$1"; }
member_has_view () { [ "$(member_view $1)" = "$2" ]; }

# members_wait_view SECONDS N1,N2,... LOG...
members_wait_view ()
{
  local seconds=$1 want=$2 log
  shift 2
  for log; do
    wait_for $seconds member_has_view $log $want ||
      { tail -n 5 "$tmp/$log" "$tmp/$log.err"; tail -n 5 "$tmp"/n?/corosync.out "$tmp"/n?/corosync.log; fail "$log: view $(member_view $log), not $want"; }
  done
}

# member_count LOG KIND: lines of that kind
member_count () { awk -v k="$2" '$2 == k { n++ } END { print n + 0 }' "$tmp/$1"; }
member_stat () { grep ' STAT ' "$tmp/$1" | tail -1 | tr ' ' '\n' | sed -n "s/^$2=//p"; }
member_wait_count () # LOG KIND N
{
  wait_for 20 member_has_count "$@" ||
    { head -n 40 "$tmp"/*.err; tail -n 3 "$tmp/$1"; fail "$1: $(member_count $1 $2) $2, not $3"; }
}
member_has_count () { [ "$(member_count $1 $2)" -ge "$3" ]; }

# member_quit I...: ends it and waits for the log's end
member_quit ()
{
  local i
  for i; do
    [ -n "${lab_member[i]-}" ] || continue
    member_tell $i quit
    wait "${lab_member[i]}" || fail "enginetest on node $i ended with $?"
    eval "exec ${lab_member_in[i]}>&-"
    unset "lab_member[$i]"
  done
}

# members_check LOG...: judges the logs together
members_check ()
{
  local l paths=()
  for l; do paths+=("$tmp/$l"); done
  "$CRG_BUILD_DIR/tests/enginetest" --nodes $lab_nodes --check "${paths[@]}"
}

# --- crgd on the nodes -----------------------------------------------------------------------

lab_crgd=() # pid by node
lab_iasps=payroll   # names; set before crg_up what shall differ
lab_order=()        # by node: its place in the backup order; default: that of the nodes

# crg_prepare CONF_LINE...: certificates, crgd.conf of each node, a store for each of the two
# sites (nodes 1 2 and 3 4 share one each; node 5 is the replicate), and the definition of the
# CRG 'payroll'; the lines are added to its [crg]
crg_prepare ()
{
  local i names=()
  for ((i = 1; i <= lab_nodes; i++)); do names+=("n$i=$(lab_address $i)"); done
  "$CRGCTL" init-pki "$tmp/pki" "${names[@]}" >"$tmp/pki.log" 2>&1 || { cat "$tmp/pki.log"; fail "init-pki"; }
  for ((i = 1; i <= lab_nodes; i++)); do
    mkdir -p "$tmp/n$i/state" "$tmp/n$i/r"
    cat >"$tmp/n$i/crgd.conf" <<END
[node]
name = n$i
state-dir = $tmp/n$i/state
run-dir = $tmp/n$i/r
tls-certificates = $tmp/pki/n$i
nbdkit = $CRG_NBDKIT
plugin = $PLUGIN
hooks-dir = $tmp/n$i/hooks.d
[engine]
type = corosync
[lease]
lease-ms = 3000
start-wait-ms = 5000
END
  done
  {
    printf '[crg]\nname = payroll\n'
    printf '%s\n' "$@"
    for ((i = 1; i <= lab_nodes; i++)); do
      printf '[node n%d]\nid = %d\naddress = %s\n' $i $i "$(lab_address $i)"
      case $i in
        1) printf 'site = rome\nrole = primary\n' ;;
        2) printf 'site = rome\nrole = backup\n' ;;
        3 | 4) printf 'site = milan\nrole = backup\n' ;;
        *) printf 'role = replicate\n' ;;
      esac
      [ -z "${lab_order[i]-}" ] || printf 'order = %d\n' "${lab_order[i]}"
    done
    for i in $lab_iasps; do
      truncate -s 72M "$(lab_store $i rome)" "$(lab_store $i milan)"
      printf '[iasp %s]\nsize = 64M\nexport = unix:\nstore.rome = %s\nstore.milan = %s\n' \
        $i "$(lab_store $i rome)" "$(lab_store $i milan)"
    done
  } >"$tmp/payroll.conf"
}

# lab_store IASP SITE, lab_history IASP: 'payroll' has the short names
lab_store () { [ $1 = payroll ] && echo "$tmp/$2.store" || echo "$tmp/$1.$2.store"; }
lab_history () { [ $1 = payroll ] && echo "$tmp/history" || echo "$tmp/history-$1"; }

# crgd_start I...
crgd_start ()
{
  local i
  for i; do
    # Each node is a machine: one that restarts has another boot id only if it died.
    lab_exec $i "$CRGD" -v -c "$tmp/n$i/crgd.conf" >>"$tmp/n$i/crgd.log" 2>&1 </dev/null &
    lab_crgd[i]=$!
  done
}

# ctl I WORD...: crgctl on node I
ctl ()
{
  local i=$1
  shift
  "$CRGCTL" --socket "$tmp/n$i/r/crgd.sock" "$@"
}

# (how the CRG is doing is said by the exit code, too)
crgd_answers () { [ -n "$(ctl $1 --timeout 2 status --json 2>/dev/null || :)" ]; }

# crg_field I JQ: of the JSON status on node I
crg_field () { { ctl $1 --timeout 2 status --json 2>/dev/null || :; } | jq -r "$2"; }
crg_has_field () { [ "$(crg_field $1 "$2")" = "$3" ]; }

# crg_logs: what there is to look at when something went wrong
crg_logs ()
{
  local i
  for ((i = 1; i <= lab_nodes; i++)); do
    echo "--- n$i"
    tail -n "${1:-15}" "$tmp/n$i/crgd.log"
    ctl $i status 2>&1 | head -n 40 || :
  done
}

# plugin_pid I: the process that node I's daemon supervises (one for each IASP), or nothing
plugin_pid ()
{
  local pid i
  for i in $lab_iasps; do
    pid=$(cat "$tmp/n$1/r/$i.pid" 2>/dev/null) && is_running "$pid" && echo "$pid" || :
  done
}

# kill_hard PID...: SIGKILL, those that are there; returns when they are gone
kill_hard ()
{
  local pid
  for pid; do
    kill -KILL "$pid" 2>/dev/null || continue
    kill -CONT "$pid" 2>/dev/null || :
    wait_for 5 not_running "$pid" || fail "process $pid survives SIGKILL"
  done
}

# node_down I...: the machines are gone, at once
node_down ()
{
  local i pids=()
  for i; do pids+=("${lab_corosync[i]}" "${lab_crgd[i]}" $(plugin_pid $i)); done
  kill -KILL "${pids[@]}" 2>/dev/null || :
  kill_hard "${pids[@]}"
  for i; do unset "lab_crgd[$i]"; done
}

# node_up I...: they are started again
node_up ()
{
  lab_start "$@"
  crgd_start "$@"
}

# crg_is STATE I...: each of these nodes says so, with a majority and all copies in the set
crg_is ()
{
  local want=$1 i
  shift
  for i; do
    [ "$(crg_field $i '.crgs[0] | "\(.state) \(.majority) \([.iasps[].copies[].in_set] | all)"')" = \
      "$want true true" ] || return 1
  done
}

# crg_wait SECONDS STATE I...
crg_wait ()
{
  local seconds=$1
  shift
  wait_for $seconds crg_is "$@" || { crg_logs 25; fail "not $* after $seconds s"; }
}

# crg_host: the number of the production host, as those with the latest state know it
crg_host () { "$tmp/uri" | sed -n 's,.*/n\([0-9]*\)/r/.*,\1,p'; }
# crg_mirror: that of the mirror copy's host
crg_mirror ()
{
  crg_field ${1:-5} '.crgs[0].iasps[0] | .production_node as $p | .copies[].host | select(. != $p)' | tr -d n
}

# crg_up: the whole cluster of five, created, started and in sync
crg_up ()
{
  local i
  lab_up 5
  lab_conf
  lab_start 1 2 3 4 5
  crg_prepare "$@"
  crgd_start 1 2 3 4 5
  for i in 1 2 3 4 5; do wait_for 20 crgd_answers $i || { crg_logs; fail "no crgd on node $i"; }; done
  lab_wait_members 5 1 2 3 4 5
  wait_for 10 ctl 1 create "$tmp/payroll.conf" >"$tmp/create.log" 2>&1 ||
    { cat "$tmp/create.log"; crg_logs; fail "create"; }
  ctl 1 start payroll >"$tmp/start.log" 2>&1 || { cat "$tmp/start.log"; crg_logs; fail "start"; }
  crg_wait 20 active 1 2 3 4 5
}

# crg_uri: the export, as the node with the latest state knows it.  A client that reaches every
# node asks so: it isn't cut off when they are from each other, and would see two of them serve.
# The command takes the IASP's name.
crg_uri_command ()
{
  cat >"$tmp/uri" <<END
#!/bin/bash
iasp=\${1-payroll}
for i in 1 2 3 4 5; do
  "$CRGCTL" --timeout 1 --socket "$tmp/n\$i/r/crgd.sock" status --json 2>/dev/null
done | jq -rs --arg i \$iasp '[.[].crgs[0] | select(.has_state)] | max_by([.epoch, .version]) | .iasps[] |
  select(.name == \$i) | .production_node | select(.) | "nbd+unix:///\(\$i)?socket=$tmp/\(.)/r/\(\$i).nbd"'
END
  chmod +x "$tmp/uri"
  echo "$tmp/uri"
}

recorder=$CRG_BUILD_DIR/tests/recorder/recorder
recorder_pids=()

# recorder_start SECONDS: each IASP has one; it writes, reads and flushes from now on
recorder_start ()
{
  local i log
  crg_uri_command >/dev/null
  for i in $lab_iasps; do
    log=$(lab_history $i)
    "$recorder" run --log "$log" --uri-command "$tmp/uri $i" --connections 3 --depth 4 \
      --rate $((600 / $(wc -w <<<"$lab_iasps"))) --op-timeout 1500 --seconds "$1" >"$log.out" 2>"$log.err" &
    recorder_pids+=($!)
    record_pid $!
  done
  for i in $lab_iasps; do
    log=$(lab_history $i)
    wait_for 10 grep -qs ' connected' "$log" || { cat "$log.err"; crg_logs; fail "the recorder of $i doesn't write"; }
  done
  recorder_goes_on 15 50
}

# recorder_goes_on SECONDS [N]: N more answers of each within that time; sets PAUSE to the ms it took
recorder_goes_on ()
{
  local i log ms
  PAUSE=0
  for i in $lab_iasps; do
    log=$(lab_history $i)
    ms=$("$recorder" wait --log "$log" --more "${2:-20}" --timeout $(($1 * patience * 1000))) ||
      { waited_in_vain=yes; tail -n 5 "$log.err"; crg_logs 25; fail "no answers from $i within $1 s"; }
    PAUSE=$((PAUSE + ms))
  done
}

# recorder_judge: ends them; every answered write is there, the histories are linearizable, and the
# copies are equal
recorder_judge ()
{
  local i log
  kill -TERM "${recorder_pids[@]}"
  for i in "${recorder_pids[@]}"; do
    wait $i || { cat "$tmp"/history*.out "$tmp"/history*.err; fail "a recorder"; }
  done
  for i in $lab_iasps; do
    log=$(lab_history $i)
    cat "$log.out"
    "$recorder" check --log "$log" --uri-command "$tmp/uri $i"
    cmp -n $((64 << 20)) "$(lab_store $i rome)" "$(lab_store $i milan)" || fail "the copies of $i differ"
  done
}
