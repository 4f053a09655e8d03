#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# A file system on the export: nbdfuse, losetup, mkfs.ext4, mount, a tree of files, unmount, fsck.
# timeout: 180
. "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/functions.sh"
. "$CRG_SRC_DIR/tests/fuse-functions.sh"
requires_fuse_mount
requires_plugin

truncate -s 128M "$tmp/store"
start_nbdkit "$tmp/sock" name=payroll store="$tmp/store" role=production
fuse_attach "$(uri "$tmp/sock")"
mkfs.ext4 -q -F "$LOOP"
fuse_mount
tree=$(echo /usr/share/automake-*)
cp -a "$tree" "$MNT/tree"
(cd "$tree" && find . -type f -exec sha256sum {} +) >"$tmp/sums"
[ "$(wc -l <"$tmp/sums")" -gt 20 ] || fail "$tree has too few files to be a test"
sync -f "$MNT"
fuse_umount
e2fsck -fn "$LOOP"
fuse_mount -o ro
(cd "$MNT/tree" && sha256sum --quiet -c "$tmp/sums")
fuse_umount
fuse_detach

# Another server, another client: the same files, straight from the store.
kill_pid "$NBDKIT_PID"
e2fsck -fn "$tmp/store"
mkdir "$tmp/dump"
debugfs -R "rdump /tree $tmp/dump" "$tmp/store" 2>"$tmp/debugfs.err"
(cd "$tmp/dump/tree" && sha256sum --quiet -c "$tmp/sums")
