#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# What tracking costs, with stores whose flush takes 1 ms and a store seven times as large as what may be
# hot: flushes for the maps for each 1,000 random writes, and throughput beside that with tracking switched
# off.  In ./run-tests the bounds are loose, because other tests run beside it, more with one half than with
# the other (sim-tracking has the tight ones, in simulated time); CRG_SECONDS=20 and an idle machine give the
# figures.
# timeout: 150
# Figures in memory, if there is room: on a disk the disk's own flush comes on top of the 1 ms.
if [ "${CRG_SECONDS:-4}" -ge 20 ] && [ "$(df --output=avail -k /dev/shm 2>/dev/null | tail -1)" -ge $((4 << 20)) ] 2>/dev/null; then
  export TMPDIR=/dev/shm
fi
. "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/functions.sh"
. "$CRG_SRC_DIR/tests/pair-functions.sh"
requires fio openssl jq
requires_plugin
requires_test_build
fio --enghelp 2>/dev/null | grep -qw nbd || skip "this fio has no nbd engine"
seconds=${CRG_SECONDS:-4}
depth=${CRG_DEPTH:-32}
cd "$tmp"
mirror_size=$((1 << 30))

# run RW BS: IOPS into IOPS; the metadata writes and flushes of n0 and n1 meanwhile
run ()
{
  local before=() after n c
  for n in n0 n1; do for c in meta-writes flushes stable-writes; do before[${#before[@]}]=$(fault_count $n $c); done; done
  fio --ioengine=nbd --uri="$(uri "$tmp/n0/nbd")" --output=fio.json --output-format=json --name=w --rw="$1" \
    --bs="$2" --size=$mirror_size --iodepth="$depth" --time_based --runtime="$seconds" --randrepeat=1 \
    >fio.err 2>&1 || { cat fio.err; fail "fio"; }
  IOPS=$(jq '.jobs[0].write.iops | floor' fio.json)
  N=$(jq '.jobs[0].write.total_ios' fio.json)
  COST=
  FLUSHES[n0]=0 FLUSHES[n1]=0
  local i=0
  for n in n0 n1; do
    for c in meta-writes flushes stable-writes; do
      after=$(($(fault_count $n $c) - before[i]))
      COST+=" $n $c $((after * 1000 / N))"
      # What reaches the medium before it goes on; fio itself flushes nothing.
      [ $c = meta-writes ] || FLUSHES[$n]=$((FLUSHES[$n] + after * 1000 / N))
      i=$((i + 1))
    done
  done
}

declare -A iops FLUSHES most=([randwrite]=500 [write]=100) least=([randwrite]=10 [write]=10)
if [ "$seconds" -ge 20 ]; then
  most=([randwrite]=250 [write]=60)
  least=([randwrite]=80 [write]=98)
fi
for tracking in on off; do
  rm -rf n0 n1
  faults n0
  faults n1
  opts=(resync-target-s=1)
  [ $tracking = on ] || opts+=(fault-no-tracking=1)
  mirror_pair suspend-timeout-ms=20000 "${opts[@]}"
  faults n0 "delay flush 1000"
  faults n1 "delay flush 1000"
  for rw in "randwrite 4k" "write 64k"; do
    read -r how bs <<<"$rw"
    run "$how" "$bs"
    iops[$tracking $how]=$IOPS
    if [ $tracking = on ]; then
      for n in n0 n1; do
        # Marks of concurrent writes share a flush, those of a sequential writer are made ahead.
        [ "${FLUSHES[$n]}" -le "${most[$how]}" ] || fail "$n: ${FLUSHES[$n]} flushes for 1,000 writes ($how)"
        [ "${FLUSHES[$n]}" -ge 1 ] || fail "$n: nothing is marked, so this measures nothing"
      done
    fi
    echo "tracking $tracking, $how of $bs, depth $depth: $IOPS a second ($N in $seconds s); for 1,000:$COST"
  done
  kill_pid "$PID_n0"; kill_pid "$PID_n1"; kill_pid "$CTLPID_n0"; kill_pid "$CTLPID_n1"
done
for how in randwrite write; do
  echo "$how: $((iops[on $how] * 100 / iops[off $how])) % of the throughput without tracking"
done
for how in randwrite write; do
  [ $((iops[on $how] * 100)) -ge $((iops[off $how] * ${least[$how]})) ] ||
    fail "$how: ${iops[on $how]} a second, ${iops[off $how]} without tracking"
done
