#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# timeout: 300
# The whole cluster in one simulated world: the seeds that once broke a rule, the same history for
# the same seed, a failure made small, and 2,000 seeds of 2,000 steps and 1,000 of 6,000 on two processors.  More: tests/soak.
. "$(dirname "$0")/functions.sh"

crgsim=$CRG_BUILD_DIR/tests/sim/crgsim

while read -r line; do
  case $line in '' | '#'*) continue ;; esac
  # shellcheck disable=SC2086
  $crgsim $line >seed.log || { cat seed.log; fail "a seed that was good breaks a rule again: $line"; }
done <"$CRG_SRC_DIR/tests/sim/seeds"

$crgsim --seeds 20 --hash | grep hash >hash1
$crgsim --seeds 20 --hash | grep hash >hash2
cmp hash1 hash2 || fail "a seed has two histories"

# Disks that lie about flushes are beyond the model: that is noticed, and shrunk to a few nodes and no fault.
$crgsim --seed 3 --lying-disks --shrink >shrunk.log && fail "disks that lie are not noticed"
line=$(sed -n 's/^# shrunk: //p' shrunk.log)
case $line in *' --nodes 2x1+0 '*' --faults none') ;; *) cat shrunk.log; fail "it could be smaller: $line" ;; esac
# shellcheck disable=SC2086
$crgsim $line >again.log && fail "what it was shrunk to breaks no rule: $line"
why=$(sed -n 's/^# seed 3, step [0-9]*: //p' again.log)
grep -qxF "# $why" shrunk.log || fail "it breaks another rule: $why"

pids=()
for half in 0 1; do
  {
    $crgsim --seed $((1 + half * 1000)) --seeds 1000 --steps 2000 &&
    $crgsim --seed $((10001 + half * 1000)) --seeds 500 --steps 6000 --busy
  } >half$half.log 2>&1 &
  pids+=($!)
done
bad=0
for pid in "${pids[@]}"; do wait "$pid" || bad=1; done
cat half0.log half1.log
[ $bad = 0 ] || fail "a seed breaks a rule: run crgsim --seed N --steps M --shrink, then --trace"
