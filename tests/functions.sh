# SPDX-License-Identifier: BSD-3-Clause
# What every shell test begins with:
#
#   #!/bin/bash
#   # one line: what this test shows
#   # timeout: 300          (optional; seconds, default 120)
#   # alone                 (optional; nothing else may run meanwhile)
#   . "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/functions.sh"
#   requires nbdinfo qemu-img
#
# A test exits 0 (good), 77 (skipped; the last line says why), 75 (a wait was in vain), else (failed).  A command
# that fails ends the test, unless it is tested.  $tmp is an own directory; it and every process
# started through start_* are gone when the test ends, however it ends.

set -euE -o pipefail

CRG_SRC_DIR=$(cd "${CRG_SRC_DIR:-$(dirname "$0")/..}" && pwd)
CRG_BUILD_DIR=$(cd "${CRG_BUILD_DIR:-$CRG_SRC_DIR/build}" && pwd)
export CRG_SRC_DIR CRG_BUILD_DIR
export LC_ALL=C
PATH=$PATH:/usr/sbin:/sbin

PLUGIN=$CRG_BUILD_DIR/.libs/nbdkit-iasp-plugin.so
CRGD=$CRG_BUILD_DIR/crgd
CRGCTL=$CRG_BUILD_DIR/crgctl
# Also the value of crgd.conf's "nbdkit" key in tests.
CRG_NBDKIT=$CRG_SRC_DIR/tests/nbdkit-wrapper
POWERLOSS=$CRG_BUILD_DIR/tests/powerloss
export PLUGIN CRGD CRGCTL CRG_NBDKIT

tmp=$(mktemp -d "${TMPDIR:-/tmp}/crg-XXXXXX")
chmod 755 "$tmp"

cleanup_list=()
started_pids=()
reserved_ports=()

# cleanup_fn COMMAND ARGS...: run at the end, the last one first, whatever happened
cleanup_fn ()
{
  cleanup_list+=("$(printf '%q ' "$@")")
}

run_cleanup ()
{
  local status=$? i pid
  trap '' INT TERM HUP
  trap - EXIT ERR
  set +e
  for ((i = ${#cleanup_list[@]} - 1; i >= 0; i--)); do
    eval "${cleanup_list[i]}"
  done
  for ((i = ${#started_pids[@]} - 1; i >= 0; i--)); do
    stop_pid "${started_pids[i]}"
  done
  for i in ${reserved_ports[@]+"${reserved_ports[@]}"}; do
    rmdir "$port_dir/$i" 2>/dev/null
  done
  rm -rf "$tmp"
  exit "$status"
}
trap run_cleanup EXIT
trap 'exit 143' TERM HUP
trap 'exit 130' INT
trap 'echo "failed: ${BASH_SOURCE[0]}:$LINENO: $BASH_COMMAND" >&2' ERR

declare -A nbdkit_sockets # of those that start_nbdkit started, by pid
EXIT_LATE=75     # failed, because what it waited for did not come
patience=2       # bounds of waits are for a machine of one's own; the suite shares it with itself
waited_in_vain=

# fail MESSAGE...: the test has failed
fail ()
{
  local pid
  local status=1
  # What was waited for in vain may come on a machine that is less busy: ./run-tests looks again.
  [ -z "$waited_in_vain" ] || status=$EXIT_LATE
  echo "FAIL: $*" >&2
  # An nbdkit that is gone may be the reason: what it said last.
  for pid in ${nbdkit_sockets[@]+"${!nbdkit_sockets[@]}"}; do
    ! not_running "$pid" || tail -n 3 "${nbdkit_sockets[$pid]}.log" 2>/dev/null |
      sed "s,^,nbdkit $pid at ${nbdkit_sockets[$pid]##*/} (gone): ," >&2
  done
  exit $status
}

# too_slow TEXT: fails for what a busy machine may explain; ./run-tests looks again, by itself
too_slow ()
{
  waited_in_vain=yes
  fail "$@"
}

# outcome_lost FILE: does crgctl say in it that the view was lost under what was asked?
outcome_lost ()
{
  grep -qsE 'view was lost|group changed meanwhile|connection to the cluster was lost|no majority' "$1"
}

# must WHAT COMMAND...: fails if it does.  A busy machine loses a view, and what was asked then has no outcome.
must ()
{
  local what=$1
  shift
  "$@" >"$tmp/must.log" 2>&1 || {
    ! declare -F show_logs >/dev/null || show_logs >&2
    ! declare -F crg_logs >/dev/null || crg_logs >&2
    cat "$tmp/must.log" >&2
    ! outcome_lost "$tmp/must.log" || too_slow "$what"
    fail "$what"
  }
  cat "$tmp/must.log"
}

# skip REASON...: this machine can't run the test
skip ()
{
  echo "$*"
  exit 77
}

# requires PROGRAM...: skip unless all are there (a path must be executable)
requires ()
{
  local p
  for p; do
    command -v "$p" >/dev/null || skip "needs $p"
  done
}

# requires_root: skip unless we are root
requires_root ()
{
  [ "$(id -u)" = 0 ] || skip "needs root"
}

# requires_plugin, requires_daemon: fail (not skip) if it was not built
requires_plugin ()
{
  [ -e "$PLUGIN" ] || fail "$PLUGIN is not built"
  requires nbdkit
}
requires_daemon ()
{
  requires_plugin
  [ -x "$CRGD" ] && [ -x "$CRGCTL" ] || fail "$CRGD or $CRGCTL is not built"
}

# requires_test_build: skip unless configured with --enable-test-hooks
requires_test_build ()
{
  grep -q '^#define CRG_TEST 1' "$CRG_BUILD_DIR/config.h" || skip "needs --enable-test-hooks"
}

# wait_for SECONDS COMMAND...: poll until the command succeeds; false after SECONDS times patience
wait_for ()
{
  local end=$((${EPOCHREALTIME/./} + $1 * patience * 1000000))
  shift
  waited_in_vain=
  until "$@"; do
    [ "${EPOCHREALTIME/./}" -lt "$end" ] || { waited_in_vain=yes; return 1; }
    sleep 0.05
  done
}

# now_ms: for intervals
now_ms ()
{
  echo $((${EPOCHREALTIME/./} / 1000))
}

is_running ()
{
  process_stat "$1" && [ "${STAT[0]}" != Z ]
}

# process_stat PID: sets STAT to its state and what follows in /proc/PID/stat; STAT[19]: its start
process_stat ()
{
  local line
  { read -r line < "/proc/$1/stat"; } 2>/dev/null || return 1
  read -ra STAT <<<"${line##*) }"
}

# is_ours PID: the one that was recorded runs.  On a busy machine its number is given to another
# process within minutes of its end.
declare -A started_at # of those in started_pids
is_ours ()
{
  is_running "$1" && [ "${STAT[19]}" = "${started_at[$1]-${STAT[19]}}" ]
}
not_ours () { ! is_ours "$1"; }

not_running ()
{
  ! is_running "$1"
}

# record_pid PID: stop it at the end
record_pid ()
{
  started_pids+=("$1")
  STAT=()
  process_stat "$1" || :
  started_at[$1]=${STAT[19]-ended}
}

# stop_pid PID [SIGNAL]: continue it if stopped, ask it to end, after 3 s kill it, and reap it
stop_pid ()
{
  local pid=$1
  is_ours "$pid" || { wait "$pid" 2>/dev/null || :; return 0; }
  kill -"${2:-TERM}" "$pid" 2>/dev/null || :
  kill -CONT "$pid" 2>/dev/null || :
  wait_for 3 not_ours "$pid" || kill -KILL "$pid" 2>/dev/null || :
  wait_for 3 not_ours "$pid" || :
  waited_in_vain= # no test fails of that
  wait "$pid" 2>/dev/null || :
}

# kill_pid PID: SIGKILL and reap, quietly
kill_pid ()
{
  not_ours "$1" || kill -KILL "$1" 2>/dev/null || :
  wait_for 5 not_ours "$1" || fail "process $1 survives SIGKILL"
  wait "$1" 2>/dev/null || :
}

# free_port: sets PORT to a TCP port that nobody listens on and no other test was given
port_dir=${TMPDIR_PORTS:-/tmp}/crg-ports-$(id -u)
free_port ()
{
  local try
  mkdir -p "$port_dir"
  find "$port_dir" -mindepth 1 -maxdepth 1 -mmin +60 -exec rmdir {} + 2>/dev/null || :
  for ((try = 0; try < 200; try++)); do
    PORT=$((20000 + RANDOM % 12000))
    mkdir "$port_dir/$PORT" 2>/dev/null || continue
    reserved_ports+=("$PORT")
    # 0A is LISTEN
    if ! awk -v port="$(printf '%04X' "$PORT")" \
        '$4 == "0A" && $2 ~ ":" port "$" { found = 1 } END { exit !found }' \
        /proc/net/tcp /proc/net/tcp6 2>/dev/null; then
      return 0
    fi
  done
  fail "no free TCP port found"
}

# start_nbdkit SOCKET ARGUMENTS...: our plugin on a Unix socket, in the foreground of its own
# process.  Sets NBDKIT_PID; its messages go to SOCKET.log.  Returns when the socket answers;
# fails the test if nbdkit ends instead.  NBDKIT_OPTIONS (array) goes before the plugin.
NBDKIT_OPTIONS=()
start_nbdkit ()
{
  local sock=$1
  shift
  rm -f "$sock"
  "$CRG_NBDKIT" -f -t "${CRG_THREADS:-64}" -U "$sock" ${NBDKIT_OPTIONS[@]+"${NBDKIT_OPTIONS[@]}"} \
    "$PLUGIN" "$@" >"$sock.log" 2>&1 </dev/null &
  NBDKIT_PID=$!
  nbdkit_sockets[$NBDKIT_PID]=$sock
  record_pid "$NBDKIT_PID"
  wait_for 20 eval "[ -S '$sock' ] || not_running $NBDKIT_PID" || fail "nbdkit made no socket in 20 s"
  is_running "$NBDKIT_PID" && [ -S "$sock" ] || {
    cat "$sock.log" >&2
    fail "nbdkit ended at start"
  }
}

# uri SOCKET: its NBD URI
uri ()
{
  echo "nbd+unix:///?socket=$1"
}

# expect_fail COMMAND...: the command must fail (and not by a signal)
expect_fail ()
{
  local status=0
  "$@" || status=$?
  [ "$status" != 0 ] || fail "succeeded, and must not: $*"
  [ "$status" -lt 128 ] || fail "died of signal $((status - 128)): $*"
}
