# SPDX-License-Identifier: BSD-3-Clause
# Words for tests that put a file system on an export: nbdfuse makes a file of it, a loop device
# makes a block device of that.  Everything is undone when the test ends.

# requires_fuse_mount: skip unless this machine lets us
requires_fuse_mount ()
{
  requires_root
  requires nbdfuse losetup mkfs.ext4 e2fsck debugfs fusermount3
  [ -c /dev/fuse ] || skip "needs /dev/fuse"
  losetup -f >/dev/null 2>&1 || skip "needs loop devices"
}

fuse_undo ()
{
  if [ -n "${MNT-}" ] && mountpoint -q "$MNT"; then umount "$MNT" || umount -l "$MNT"; fi
  [ -z "${LOOP-}" ] || losetup -d "$LOOP" 2>/dev/null
  if mountpoint -q "$tmp/fuse"; then fusermount3 -u "$tmp/fuse" || fusermount3 -uz "$tmp/fuse"; fi
}

# fuse_attach URI: sets LOOP, a block device on it
fuse_attach ()
{
  local why
  mkdir -p "$tmp/fuse" "$tmp/mnt"
  MNT=$tmp/mnt
  nbdfuse "$tmp/fuse" "$1" >"$tmp/nbdfuse.log" 2>&1 </dev/null &
  FUSE_PID=$!
  record_pid "$FUSE_PID"
  cleanup_fn fuse_undo
  wait_for 10 eval "[ -e '$tmp/fuse/nbd' ] || not_running $FUSE_PID"
  [ -e "$tmp/fuse/nbd" ] || { cat "$tmp/nbdfuse.log"; fail "nbdfuse did not mount"; }
  LOOP=$(losetup -f --show "$tmp/fuse/nbd") || fail "losetup"
}

fuse_mount () { mount "$@" "$LOOP" "$MNT"; }
fuse_umount () { umount "$MNT"; }

fuse_detach ()
{
  losetup -d "$LOOP"
  LOOP=
  wait_for 5 fusermount3 -u "$tmp/fuse"
  wait "$FUSE_PID" || fail "nbdfuse ended with an error"
}
