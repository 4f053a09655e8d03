#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# The time of a takeover does not grow with the size of the store: 1 GiB and 1 TiB (sparse).  Nor does the
# memory for 16 TiB grow beyond what the manual says.
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

truncate -s 1100G "$tmp/probe" 2>/dev/null || skip "no sparse files of 1 TiB here"
small=$(takeover $((1 << 30)) $(((1 << 30) + (64 << 20))))
large=$(takeover $((1 << 40)) $(((1 << 40) + (2 << 30))))
echo "takeover: $small ms with 1 GiB, $large ms with 1 TiB"
# Noise: it is made of timers, and a second is what a busy machine adds.
[ "$large" -le $((small + 1000)) ] || too_slow "the large store took $large ms, the small one $small ms"

# Memory: a little less than 16 TiB (what the largest file of ext4 holds), production and an empty copy;
# the manual gives 64 MiB and 8 MiB for each TiB and other site.
size=$(((16 << 40) - (64 << 30)))
truncate -s $((size + (32 << 30))) "$tmp/probe" 2>/dev/null || { echo "no sparse files of 16 TiB here"; exit 0; }
rm "$tmp/probe"
[ -z "${CRG_SANITIZE-}" ] || exit 0
NODES="p1:rome c1:milan w1"
SIZE=$size
STORE_SIZE=$((size + (32 << 30)))
cluster_begin
start_recorder "$tmp/rec.log" --blocks 1024 --offset $((size - (8 << 20)))
more_answers "$tmp/rec.log" 1000 30 >/dev/null
stop_recorder "$tmp/rec.log" >/dev/null
for n in p1 c1; do
  peak=$(awk '/^VmHWM/ { print $2 }' "/proc/$(plugin_pid $n)/status")
  echo "16 TiB: $((peak / 1024)) MiB resident on $n"
  [ "$peak" -le $(((64 + 16 * 8) * 1024)) ] || fail "$n had $((peak / 1024)) MiB resident"
done
