#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# The recorder on a plain export whose server is killed again and again: nothing that was
# answered is lost, with and without direct I/O.  (A plain file promises nothing for a read beside a
# write of the same block, so those are kept apart.)
# timeout: 180
. "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/functions.sh"
requires_plugin
recorder=$CRG_BUILD_DIR/tests/recorder/recorder

for direct in on off; do
  rm -f "$tmp/store" "$tmp/sock"
  truncate -s 16M "$tmp/store"
  start_nbdkit "$tmp/sock" name=payroll store="$tmp/store" direct=$direct role=production
  "$recorder" run --apart --log "$tmp/$direct.log" --uri "$(uri "$tmp/sock")" --connections 4 --depth 8 \
    --count 30000 --seconds 40 >"$tmp/run.out" &
  run=$!
  record_pid $run
  wait_for 20 grep -qs ' connected' "$tmp/$direct.log" || fail "the recorder does not write"
  kills=0
  while [ $kills -lt 8 ] && "$recorder" wait --log "$tmp/$direct.log" --more 1500 >/dev/null; do
    kill_pid "$NBDKIT_PID"
    start_nbdkit "$tmp/sock" name=payroll store="$tmp/store" direct=$direct role=production
    kills=$((kills + 1))
  done
  wait $run
  cat "$tmp/run.out"
  [ $kills -ge 5 ] || too_slow "only $kills kills" # the recorder was done before
  "$recorder" check --log "$tmp/$direct.log" --uri "$(uri "$tmp/sock")"
  kill_pid "$NBDKIT_PID"
  "$recorder" check --log "$tmp/$direct.log" --image "$tmp/store" >/dev/null
done
