#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# timeout: 200
# mirror-snapshot on XFS, which reflinks: in a mount namespace of our own or, where nothing can be
# mounted, in a guest with its own kernel.
src=$(cd "${CRG_SRC_DIR:-$(dirname "$0")/..}" && pwd)
body=$src/tests/mirror-snapshot.sh
export CRG_SRC_DIR=$src CRG_REFLINK=yes
case ${1-} in
  mount) # IMAGE DIRECTORY, in the namespace
    mount -t xfs -o loop,nosuid "$2" "$3" || exit 77
    cd "$3" && "$CRG_BUILD_DIR/tests/unit-snapshot" | grep 'ok .* - as a fork' || exit 1
    TMPDIR=$3 bash "$body"
    exit ;;
  guest) # the disk is the guest's first
    export CRG_BUILD_DIR=$2
    mknod /run/disk b 98 0 && mount -t xfs /run/disk /mnt || exit 1
    TMPDIR=/mnt TMPDIR_PORTS=/run/tmp bash "$body"
    exit ;;
esac
. "$src/tests/functions.sh"
requires mkfs.xfs unshare
requires_plugin
requires_test_build
cd "$tmp"
truncate -s 320M disk
mkfs.xfs -q -m reflink=1 disk || fail "no XFS"
mkdir mnt
if [ "${CRG_SNAPSHOT_UML-}" != yes ]; then
  status=0
  unshare -m --propagation private bash "$src/tests/mirror-snapshot-reflink.sh" mount "$tmp/disk" "$tmp/mnt" || status=$?
  [ $status = 77 ] || exit $status
  echo "nothing can be mounted here: in a guest"
fi
CRG_UML_SECONDS=150 CRG_UML_DISK=$tmp/disk "$src/tests/uml/boot" "$src/tests/mirror-snapshot-reflink.sh" guest "$CRG_BUILD_DIR"
