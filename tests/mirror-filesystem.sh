#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# A file system on the mirrored export (nbdfuse, losetup, ext4) while a copy is lost and comes
# back: no error for the client, all files there, fsck clean on both copies.
# timeout: 240
. "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/functions.sh"
. "$CRG_SRC_DIR/tests/cluster.sh"
. "$CRG_SRC_DIR/tests/fuse-functions.sh"
requires_fuse_mount
NODES="p1:rome c1:milan w1"
SIZE=$((96 << 20))
cluster_begin
wait_in_sync 30
fuse_attach "$(export_uri)"
mkfs.ext4 -q -F "$LOOP"
fuse_mount
tree=$(echo /usr/share/automake-*)
cp -a "$tree" "$MNT/before"
sync -f "$MNT"
pid=$(plugin_pid c1)
kill -STOP "$pid"
cp -a "$tree" "$MNT/lost"
sync -f "$MNT" # waits for suspend-timeout and no longer
[ "$(copy_of milan data)" != in-sync ] || fail "the stopped copy is called in-sync"
rm -r "$MNT/before"
kill -CONT "$pid"
cp -a "$tree" "$MNT/back"
wait_in_sync 60
cp -a "$tree" "$MNT/after"
fuse_umount
e2fsck -fn "$LOOP" >"$tmp/fsck" 2>&1 || { cat "$tmp/fsck"; fail "fsck"; }
fuse_mount -o ro
for d in lost back after; do diff -r --no-dereference "$tree" "$MNT/$d"; done
[ ! -e "$MNT/before" ] || fail "removed files are back"
fuse_umount
fuse_detach
same_copies
for site in rome milan; do
  e2fsck -fn "${STORE[$site]}" >"$tmp/fsck" 2>&1 || { cat "$tmp/fsck"; fail "fsck of the copy in $site"; }
done
