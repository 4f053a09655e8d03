#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# The time of a takeover does not grow with the size of the store: 64 MiB and 4 TiB (sparse).
# timeout: 180
. "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/functions.sh"
. "$CRG_SRC_DIR/tests/cluster.sh"

# In a shell of its own, with a cluster of its own; prints the milliseconds.
takeover ()
{
  (
    base=$tmp
    tmp=$base/$1
    mkdir "$tmp"
    cleanup_list=() started_pids=()
    trap 'cluster_end' EXIT
    NODES="p1:rome p2:rome w1"
    SIZE=$1
    STORE_SIZE=$2
    cluster_begin >&2
    start_recorder "$tmp/rec.log" --blocks 64 >&2
    more_answers "$tmp/rec.log" 200 20 >/dev/null
    kill_node p1
    more_answers "$tmp/rec.log" 100 30
    stop_recorder "$tmp/rec.log" >&2
  )
}

truncate -s 4100G "$tmp/probe" 2>/dev/null || skip "no sparse files of 4 TiB here"
rm "$tmp/probe"
small=$(takeover $((64 << 20)) $((80 << 20)))
large=$(takeover $((4 << 40)) $(((4 << 40) + (8 << 30))))
echo "takeover: $small ms with 64 MiB, $large ms with 4 TiB"
[ "$large" -le $((small + 1500)) ] || fail "the large store took $large ms, the small one $small ms"
