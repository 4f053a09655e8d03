#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# timeout: 900
# What tracking costs, with a store four times as large as what may be hot and stores with a slow flush.
#
# In ./run-tests only what can be counted: flushes for the maps for each 1,000 writes, and that a sequential
# writer finds its marks on the disk.  The flush takes 20 ms there for random writes, so that a busy machine
# has enough of them at once for a batch; sim-tracking has the tight bounds, in simulated time.
#
# CRG_SECONDS=20 or more on an idle machine measures throughput beside tracking switched off, with flushes of
# 1 ms: both pairs live, in turn, a second each, and as many rounds; the median of their ratios and what it lies
# between with 95 %.  It fails if the aim is above that, and if that is too
# wide to tell anything.  A write to a cold region waits a flush time or two for its mark, so a client with few
# requests in flight measures that latency: throughput is what it gets with enough of them, 4 connections of 64,
# which is asserted.  CRG_QUEUES="1x16 1x32 4x64" (connections x requests) makes a table of it; the last one counts.
# CRG_WORKS=randwrite or =write measures one of them.
seconds=${CRG_SECONDS:-0}
# Figures in memory, if there is room: on a disk the disk's own flush comes on top of the 1 ms.
if [ "$seconds" -ge 20 ] && [ "$(df --output=avail -k /dev/shm 2>/dev/null | tail -1)" -ge $((14 << 20)) ] 2>/dev/null; then
  export TMPDIR=/dev/shm
fi
. "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/functions.sh"
. "$CRG_SRC_DIR/tests/pair-functions.sh"
requires fio openssl jq
requires_plugin
requires_test_build
fio --enghelp 2>/dev/null | grep -qw nbd || skip "this fio has no nbd engine"
cd "$tmp"
base=$tmp
target_s=8
mirror_size=$((4 * target_s * 100 << 20))
variants=on
[ "$seconds" -lt 20 ] || variants="on off"
rounds=$seconds

declare -A pid_of
mirror_pki

# start VARIANT [KEY=VALUE...]: a pair in its own directory
start ()
{
  local v=$1 region
  shift
  tmp=$base/$v
  mkdir "$tmp"
  ln -s "$base/pki" "$tmp/pki"
  unset PORT_n0 PORT_n1
  faults n0
  faults n1
  mirror_pair suspend-timeout-ms=20000 resync-target-s=$target_s "$@"
  pid_of[$v n0]=$PID_n0 pid_of[$v n1]=$PID_n1
  if [ "$v" = on ]; then
    number n0 region_bytes
    region=$NUMBER
    number n0 max_regions
    [ "$mirror_size" -ge $((4 * NUMBER * region)) ] || fail "$NUMBER regions of $region may be hot: more than a quarter"
  fi
  tmp=$base
}

# flush_us MICROSECONDS: how long a flush takes from now on
flush_us ()
{
  for v in $variants; do
    tmp=$base/$v
    faults n0 "delay flush $1"
    faults n1 "delay flush $1"
  done
  tmp=$base
}

# cpu PID: hundredths of a second of processor time
cpu ()
{
  awk '{ print $14 + $15 }' "/proc/$1/stat"
}

# counts VARIANT: of each node, writes of metadata, flushes, processor time
counts ()
{
  tmp=$base/$1
  for n in n0 n1; do
    echo "$(fault_count $n meta-writes) $(fault_count $n flushes) $(cpu "${pid_of[$1 $n]}")"
  done
  tmp=$base
}

declare -A iops spent FLUSHES ratio spread
# run VARIANT QUEUE RW BS FIO-OPTION...: appends to iops and spent; into FLUSHES of each node what had to reach
# the medium for 1,000 writes (fio itself flushes nothing)
run ()
{
  local v=$1 queue=$2 rw=$3 bs=$4 before after i=0 n
  shift 4
  before=($(counts "$v"))
  fio --ioengine=nbd --uri="$(uri "$base/$v/n0/nbd")" --output=fio.json --output-format=json --name=w --rw="$rw" \
    --bs="$bs" --iodepth="${queue#*x}" --numjobs="${queue%x*}" --group_reporting --randrepeat=0 "$@" \
    >fio.err 2>&1 || { cat fio.err; fail "fio"; }
  after=($(counts "$v"))
  N=$(jq '.jobs[0].write.total_ios' fio.json)
  for n in n0 n1; do
    FLUSHES[$n]=$(((after[i] - before[i] + after[i + 1] - before[i + 1]) * 1000 / N))
    i=$((i + 3))
  done
  iops[$v $queue $rw]+=" $(jq '.jobs[0].write.iops | floor' fio.json)"
  spent[$v $queue $rw]+=" $(((after[2] - before[2] + after[5] - before[5]) * 10000 / N))"
  [ "$v" = on ] || return 0
  for n in n0 n1; do
    # Marks of concurrent writes share a flush, those of a sequential writer are made ahead.
    [ "${FLUSHES[$n]}" -le "${most[$rw]}" ] || fail "$n: ${FLUSHES[$n]} flushes for 1,000 writes ($rw, $queue)"
    [ "${FLUSHES[$n]}" -ge 1 ] || fail "$n: nothing is marked, so this measures nothing"
  done
}

# median NUMBER...
median ()
{
  printf '%s\n' "$@" | sort -n | sed -n "$((($# + 1) / 2))p"
}

# between NUMBER...: LOW and HIGH, which the median of all rounds that there could be lies between with 95 % (the
# ranks are the binomial distribution's)
between ()
{
  read -r LOW HIGH < <(printf '%s\n' "$@" | sort -n | awk '{ v[NR] = $1 }
    END { d = 0.98 * sqrt (NR); l = int (NR / 2 - d); h = int (NR / 2 + d + 1) + 1
          print v[(l < 1 ? 1 : l)], v[(h > NR ? NR : h)] }')
}

start on
if [ "$variants" = on ]; then
  declare -A most=([randwrite]=250 [write]=60)
  flush_us 20000
  run on 4x16 randwrite 4k --size=$mirror_size --number_ios=1000
  echo "random: ${FLUSHES[n0]} and ${FLUSHES[n1]} flushes for 1,000 of $N writes"
  flush_us 1000
  tmp=$base/on
  number n0 waits
  waits=$NUMBER
  run on 1x32 write 64k --size=$mirror_size --number_ios=3000
  tmp=$base/on
  number n0 waits
  tmp=$base
  waits=$((NUMBER - waits))
  echo "sequential: ${FLUSHES[n0]} and ${FLUSHES[n1]} flushes for 1,000 of $N writes; $waits had to wait"
  [ $((waits * 4)) -le "$N" ] || fail "$waits of $N sequential writes waited for a mark"
  exit 0
fi

start off fault-no-tracking=1
flush_us 1000
queues=${CRG_QUEUES:-4x64}
last=${queues##* }
declare -A most least=([randwrite]=80 [write]=98)
works=${CRG_WORKS:-randwrite write}
for queue in $queues; do
  [ "$queue" = "$last" ] && most=([randwrite]=250 [write]=60) || most=([randwrite]=2000 [write]=200)
  for work in "randwrite 4k $queue" "write 64k 1x${queue#*x}"; do
    read -r rw bs q <<<"$work"
    [[ " $works " == *" $rw "* ]] || continue
    for ((round = 0; round < rounds; round++)); do
      # In turn first, so that neither has the better half.
      order=$variants
      [ $((round % 2)) = 0 ] || order="off on"
      # A sequential writer begins where nothing is hot any more.
      from=0
      [ $rw = randwrite ] || from=$((round % 5 * mirror_size / 5))
      for v in $order; do
        run $v "$q" "$rw" "$bs" --offset=$from --size=$((mirror_size - from)) --time_based --runtime=1
        [ $v = off ] || cost="${FLUSHES[n0]} and ${FLUSHES[n1]} flushes for 1,000"
      done
    done
    # Each round by itself: what else the machine does changes slower than that.
    on=(${iops[on $q $rw]}) off=(${iops[off $q $rw]}) of=()
    for ((round = 0; round < rounds; round++)); do of+=($((on[round] * 1000 / off[round]))); done
    between "${of[@]}"
    ratio[$rw]=$HIGH spread[$rw]=$((HIGH - LOW))
    echo "$rw $bs, $q: $(median "${on[@]}") a second with tracking, $(median "${off[@]}") without;" \
      "of $rounds ratios the median is $(median "${of[@]}") thousandths, between $LOW and $HIGH; $cost; CPU $(median ${spent[on $q $rw]}) and $(median ${spent[off $q $rw]}) us"
  done
done
for rw in $works; do
  [ "${spread[$rw]}" -le 100 ] || fail "$rw: what the median lies between is too wide to tell; the machine is busy"
  [ "${ratio[$rw]}" -ge $((10 * least[$rw])) ] || fail "$rw: at most ${ratio[$rw]} thousandths of what goes without tracking"
done
