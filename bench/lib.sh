# SPDX-License-Identifier: BSD-3-Clause
# Words of the benchmark: starting the set-ups, measuring one cell, keeping the rows.
# Sourced by bench/run.  Every process started here is in `pids` and is ended by pid.

work=$(mktemp -d "${TMPDIR:-/tmp}/crg-bench-XXXXXX") || exit 1
fast=$(mktemp -d "/dev/shm/crg-bench-XXXXXX") || exit 1
pids=() measured=() holder= counter= count=
have_perf=no
perf stat -x, -e context-switches,raw_syscalls:sys_enter -o "$work/counts" true 2>/dev/null && have_perf=yes

stop_all ()
{
  local p
  for p in "${pids[@]}"; do kill "$p" 2>/dev/null; done
  for p in "${pids[@]}"; do
    for _ in {1..50}; do kill -0 "$p" 2>/dev/null || break; sleep 0.1; done
    kill -KILL "$p" 2>/dev/null
    wait "$p" 2>/dev/null
  done
  pids=()
}
trap 'stop_all; rm -rf "$work" "$fast"' EXIT
trap 'exit 130' INT TERM

die () { echo "bench: $*" >&2; exit 1; }

wait_for ()
{
  local what=$1; shift
  for _ in {1..200}; do "$@" >/dev/null 2>&1 && return 0; sleep 0.05; done
  echo "bench: $what did not come" >&2
  return 1
}

make_certificates ()
{
  mkdir "$work/pki"
  (
    cd "$work/pki" || exit 1
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 \
      -keyout ca-key.pem -out ca-cert.pem -subj /CN=bench || exit 1
    for n in server client; do
      openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout $n-key.pem \
        -out $n.csr -subj "/CN=localhost" || exit 1
      openssl x509 -req -in $n.csr -CA ca-cert.pem -CAkey ca-key.pem -CAcreateserial -days 2 \
        -extfile <(echo 'subjectAltName=DNS:localhost,IP:127.0.0.1') -out $n-cert.pem || exit 1
    done
  ) >"$work/pki.log" 2>&1 || die "certificates: $(tail -3 "$work/pki.log")"
}

# A loopback port that is free now.
free_port ()
{
  local port
  for _ in {1..50}; do
    port=$((20000 + RANDOM % 12000))
    (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { echo $port; return; }
  done
  return 1
}

# Microseconds of CPU that processes have used, with the threads that have ended: counted in
# clock ticks, so a cell has to last some seconds.
cpu_us ()
{
  local p sum=0 user system tick
  tick=$((1000000 / $(getconf CLK_TCK)))
  for p; do
    read -r user system < <(sed 's/.*) //' "/proc/$p/stat" | cut -d' ' -f12,13)
    sum=$((sum + (user + system) * tick))
  done
  echo "$sum"
}

rss_kib ()
{
  local p sum=0 kib
  for p; do
    kib=$(awk '/^VmHWM/ { print $2 }' "/proc/$p/status" 2>/dev/null)
    sum=$((sum + ${kib:-0}))
  done
  echo "$sum"
}

# count_begin PID...: context switches and system calls of these and their threads, if perf may look.
count_begin ()
{
  local list
  counter=
  [ $have_perf = yes ] || return 0
  printf -v list '%s,' "$@"
  perf stat -x, -e context-switches,raw_syscalls:sys_enter -o "$work/counts" -p "${list%,}" -- sleep 3600 2>/dev/null &
  counter=$!
  sleep 0.1
}

# count_end: their number in $count, as JSON, or nulls
count_end ()
{
  local child
  if [ -n "$counter" ]; then
    child=$(pgrep -P "$counter" | head -1)
    [ -z "$child" ] || kill "$child"
    wait "$counter" 2>/dev/null
  fi
  count=$(counts)
}

counts ()
{
  awk -F, '$3 ~ /^context-switches/ && $1 ~ /^[0-9]/ { c = $1 } $3 ~ /sys_enter/ && $1 ~ /^[0-9]/ { s = $1 }
    END { printf "{\"csw\": %s, \"syscalls\": %s}", c == "" ? "null" : c, s == "" ? "null" : s }' "$work/counts" 2>/dev/null ||
    echo '{"csw": null, "syscalls": null}'
  rm -f "$work/counts"
}

# The remote copy of the qemu set-ups: nbdkit with TLS on loopback.
start_remote ()
{
  port=$(free_port) || die "no free port"
  nbdkit -f -i 127.0.0.1 -p "$port" --tls=require --tls-verify-peer \
    --tls-certificates="$work/pki" file "$dir/remote.img" 2>>"$work/log" &
  pids+=($!)
  wait_for "the remote nbdkit" bash -c "exec 3<>/dev/tcp/127.0.0.1/$port" || return 1
}

# setup_NAME: starts it; sets uri.  $dir holds the stores, $size their bytes.
setup_nbdkit_file ()
{
  nbdkit -f -t 64 -U "$work/s" file "$dir/local.img" 2>>"$work/log" &
  pids+=($!)
  uri="nbd+unix:///?socket=$work/s"
}

setup_iasp_0copy ()
{
  nbdkit -f -t 64 -U "$work/s" "$plugin" name=bench store="$dir/local.img" role=production \
    2>>"$work/log" &
  pids+=($!)
  uri="nbd+unix:///?socket=$work/s"
}

# iasp_copies N BUILD [PARAMETER...]: the plugin with copies; its processes are children of
# bench/iasp-copies.
iasp_copies ()
{
  local n=$1 from=$2
  shift 2
  rm -f "$work/ready" "$work/hold"
  mkfifo "$work/hold"
  CRG_SRC_DIR=$src CRG_BUILD_DIR=$from TMPDIR=$dir "$src/bench/iasp-copies" "$n" "$size" "$work/ready" "$@" \
    <"$work/hold" >>"$work/log" 2>&1 &
  holder=$!
  exec 8>"$work/hold"
  wait_for "the copies" test -s "$work/ready" || return 1
  read -r socket served <"$work/ready"
  uri="nbd+unix:///?socket=$socket"
  # shellcheck disable=SC2206
  measured=($served)
}
setup_iasp_1copy_tls () { iasp_copies 1 "$build"; }
setup_iasp_1copy_threads16 () { CRG_THREADS=16 iasp_copies 1 "$build"; }
setup_iasp_2copy_tls () { iasp_copies 2 "$build"; }
# Only the test build can do without tracking; its hooks cost something, so it stands beside itself.
setup_iasp_1copy_hooks () { iasp_copies 1 "$hooks"; }
setup_iasp_1copy_untracked () { iasp_copies 1 "$hooks" fault-no-tracking=1; }

# has_hooks: is the test build there?
has_hooks () { [ -x "$hooks/tests/ctl" ] && grep -qs '^#define CRG_TEST 1' "$hooks/config.h"; }

# kernel_has_ktls: can a TCP connection be given to the kernel's TLS?
kernel_has_ktls ()
{
  perl -MIO::Socket::INET -e '
    my $l = IO::Socket::INET->new (Listen => 1, LocalAddr => "127.0.0.1") or exit 1;
    my $s = IO::Socket::INET->new (PeerAddr => "127.0.0.1", PeerPort => $l->sockport) or exit 1;
    exit !setsockopt ($s, 6, 31, "tls")' 2>/dev/null
}

setup_qemu_quorum_tls ()
{
  start_remote || return 1
  qemu-nbd -k "$work/s" -t -e 16 \
    --object tls-creds-x509,id=tls0,endpoint=client,dir="$work/pki" --image-opts \
    "driver=quorum,vote-threshold=1,read-pattern=fifo,children.0.driver=file,children.0.filename=$dir/local.img,children.1.driver=nbd,children.1.server.type=inet,children.1.server.host=127.0.0.1,children.1.server.port=$port,children.1.tls-creds=tls0,children.1.tls-hostname=localhost" \
    2>>"$work/log" &
  pids+=($!)
  uri="nbd+unix:///?socket=$work/s"
}

setup_qemu_mirror_tls ()
{
  start_remote || return 1
  mkfifo "$work/qmp.in"
  qemu-storage-daemon \
    --object tls-creds-x509,id=tls0,endpoint=client,dir="$work/pki" \
    --blockdev driver=file,node-name=local,filename="$dir/local.img" \
    --blockdev driver=nbd,node-name=remote,server.type=inet,server.host=127.0.0.1,server.port="$port",tls-creds=tls0,tls-hostname=localhost \
    --chardev "stdio,id=qmp" --monitor chardev=qmp \
    <"$work/qmp.in" >"$work/qmp.out" 2>>"$work/log" &
  pids+=($!)
  exec 7>"$work/qmp.in"
  rm "$work/qmp.in"
  {
    echo '{"execute":"qmp_capabilities"}'
    echo '{"execute":"blockdev-mirror","arguments":{"job-id":"m","device":"local","target":"remote","sync":"none","copy-mode":"write-blocking","filter-node-name":"top"}}'
    echo '{"execute":"nbd-server-start","arguments":{"addr":{"type":"unix","data":{"path":"'"$work/s"'"}}}}'
    echo '{"execute":"block-export-add","arguments":{"type":"nbd","id":"e","node-name":"top","name":"","writable":true}}'
  } >&7
  wait_for "qemu's mirror" grep -q BLOCK_JOB_READY "$work/qmp.out" || { cat "$work/qmp.out" >&2; return 1; }
  uri="nbd+unix:///?socket=$work/s"
}

# teardown: ends the set-up's processes.
teardown ()
{
  exec 7>&-
  if [ -n "$holder" ]; then exec 8>&-; wait "$holder" 2>/dev/null; holder=; fi
  measured=()
  stop_all
  rm -f "$work/s" "$work/qmp.out"
}

# begin SETUP: fresh stores, written in full, its processes, uri, measured (the server first, then the
# copies).
begin ()
{
  rm -f "$dir/local.img" "$dir/remote.img"
  # Unwritten space is no load.
  fallocate -l "$size" "$dir/local.img" && fallocate -l "$size" "$dir/remote.img" || return 1
  "setup_${1//-/_}" || { teardown; return 1; }
  if [ -z "$holder" ]; then
    wait_for "the socket of $1" test -S "$work/s" || { cat "$work/log" >&2; teardown; return 1; }
    # The copy of the qemu set-ups is started before its server.
    measured=("${pids[-1]}")
    [ ${#pids[@]} = 1 ] || measured+=("${pids[0]}")
  fi
  # A copy that was filled has holes where production had never written, and allocates them again.
  fio --name=fill --ioengine=nbd --uri="$uri" --rw=write --bs=1m --iodepth=4 --size="$size" \
    >/dev/null 2>>"$work/log" || { teardown; return 1; }
}

# client: runs the client of the cell; its result in $work/cell
client ()
{
  if [ "$extra" = fua ]; then
    "$fuaload" "$uri" "$bs" "$qd" "$seconds" "$size" >"$work/cell" 2>>"$work/log"
    return
  fi
  # shellcheck disable=SC2086
  fio --name=x --ioengine=nbd --uri="$uri" --rw="$rw" --bs="$bs" --iodepth="$qd" \
    --numjobs="$jobs" --group_reporting --size="$size" --runtime="$seconds" --time_based \
    --randrepeat=1 $extra --output-format=json --output="$work/fio" >>"$work/log" 2>&1 || return 1
  # Some versions write notes before the JSON.
  sed -n "/^{/,\$p" "$work/fio" | jq -c '
    .jobs[0] as $j | ($j.read.total_ios + $j.write.total_ios) as $n
    | (if $j.write.total_ios > 0 then $j.write else $j.read end) as $d
    | {ops: $n, iops: ($j.read.iops + $j.write.iops),
       mb_s: (($j.read.bw_bytes + $j.write.bw_bytes) / 1e6),
       lat_us: (($d.clat_ns.percentile["50.000000"] // 0) / 1000),
       p99_us: (($d.clat_ns.percentile["99.000000"] // 0) / 1000),
       flush_us: (if $j.sync.total_ios > 0 then $j.sync.lat_ns.percentile["50.000000"] / 1000 else null end),
       client_cpu_us_per_op: (($j.usr_cpu + $j.sys_cpu) / 100 * $j.job_runtime * 1000 / $n)}' >"$work/cell"
}

# measure SETUP WORKLOAD: one cell of one round on the set-up that stands; appends to $work/rows.
measure ()
{
  local setup=$1 workload=$2 rw bs qd extra jobs c0 c1 r0 r1
  IFS='|' read -r rw bs qd jobs extra <<<"${workloads[$workload]}"
  c0=$(cpu_us "${measured[0]}") r0=$(cpu_us "${measured[@]:1}")
  count_begin "${measured[@]}"
  client || { count_end; return 1; }
  count_end
  c1=$(cpu_us "${measured[0]}") r1=$(cpu_us "${measured[@]:1}")
  jq -c --arg w "$workload" --arg s "$setup" --arg m "$medium" --argjson r "$round" \
    --argjson server $((c1 - c0)) --argjson copies $((r1 - r0)) --argjson rss "$(rss_kib "${measured[@]}")" \
    --argjson count "$count" '
    .ops as $n
    | {workload: $w, setup: $s, medium: $m, round: $r} + del(.ops)
    + {cpu_us_per_op: (($server + $copies) / $n), server_cpu_us_per_op: ($server / $n),
       copies_cpu_us_per_op: ($copies / $n), rss_mib: ($rss / 1024),
       csw_per_op: (if $count.csw then $count.csw / $n else null end),
       syscalls_per_op: (if $count.syscalls then $count.syscalls / $n else null end)}' "$work/cell" >>"$work/rows"
}

# floor WORKLOAD: a cell of the floor; nothing where it has no meaning.
floor_cell ()
{
  local workload=$1 rw bs qd jobs extra how
  IFS='|' read -r rw bs qd jobs extra <<<"${workloads[$workload]}"
  case $rw in randwrite) how=rand ;; write) how=seq ;; resync) how=copy bs=65536 qd=16 ;; *) return 0 ;; esac
  case $workload in *-flush* | *-fua | *-conn* | resync-5pct-* | resync-*-load | resync-*-qd* | resync-*-read) return 0 ;; esac
  rm -f "$dir/local.img" "$dir/remote.img"
  fallocate -l "$size" "$dir/local.img" && fallocate -l "$size" "$dir/remote.img" || return 1
  local command=("$floor" "$dir/local.img" "$dir/remote.img" "$work/pki/server-cert.pem"
    "$work/pki/server-key.pem" "$bs" "$qd" "$seconds" $how "$size")
  if [ $have_perf = yes ]; then
    command=(perf stat -x, -e context-switches,raw_syscalls:sys_enter -o "$work/counts" -- "${command[@]}")
  fi
  "${command[@]}" >"$work/cell" 2>>"$work/log" || return 1
  jq -c --arg w "$workload" --arg m "$medium" --argjson r "$round" --argjson count "$(counts)" '
    .ops as $n | {workload: $w, setup: "floor", medium: $m, round: $r} + del(.ops)
    + {csw_per_op: (if $count.csw then $count.csw / $n else null end),
       syscalls_per_op: (if $count.syscalls then $count.syscalls / $n else null end)}' "$work/cell" >>"$work/rows"
}

# resync WORKLOAD: a cell of filling a copy
resync_cell ()
{
  local what how
  IFS='|' read -r _ what how _ <<<"${workloads[$1]}"
  CRG_SRC_DIR=$src CRG_BUILD_DIR=$build TMPDIR=$dir "$src/bench/iasp-resync" "$size" "$what" "$how" $((seconds < 3 ? 3 : seconds)) \
    >"$work/cell" 2>>"$work/log" </dev/null || return 1
  jq -c --arg w "$1" --arg m "$medium" --argjson r "$round" \
    '{workload: $w, setup: "iasp-1copy-tls", medium: $m, round: $r} + .' "$work/cell" >>"$work/rows"
}

# cells SETUP WORKLOAD...: these cells of one round, on one start of the set-up
cells ()
{
  local setup=$1 workload started=no
  shift
  for workload; do
    [ -n "${workloads[$workload]-}" ] || die "no such workload: $workload"
    if [ "$setup" = floor ]; then
      floor_cell "$workload" || return 1
    elif [[ $workload == resync-* ]]; then
      [ "$setup" != iasp-1copy-tls ] || resync_cell "$workload" || return 1
    else
      if [ $started = no ]; then begin "$setup" || return 1; started=yes; fi
      measure "$setup" "$workload" || { teardown; return 1; }
    fi
  done
  [ $started = no ] || teardown
}
