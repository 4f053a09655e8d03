#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Persistent reservations (S1 c): two nodes of a site with a path each to one disk, in a guest whose
# kernel makes such a disk.  Who is taken for dead and is not can't write to it any more.
# timeout: 120
src=$(cd "${CRG_SRC_DIR:-$(dirname "$0")/..}" && pwd)
if [ "${1-}" != guest ]; then
  . "$src/tests/functions.sh"
  requires qemu-io insmod
  requires_root
  requires_plugin
  requires_test_build
  [ -z "${CRG_SANITIZE-}" ] || skip "sanitized programs don't run in the guest"
  # Keys take their time in a guest.
  "$src/tests/certs" ca "$tmp/pki"
  for node in n0 n1; do "$src/tests/certs" node "$tmp/pki" $node; done
  chmod -R a+rX "$tmp"
  "$src/tests/uml/boot" "$src/tests/group-reservation.sh" guest "$CRG_BUILD_DIR" "$tmp/pki"
  exit
fi

# ---- in the guest
pki=$3
export CRG_SRC_DIR=$src CRG_BUILD_DIR=$2 TMPDIR_PORTS=/run/tmp CRG_RESERVE_NO_ABORT=yes
target=/sys/kernel/config/target
echo "" >/proc/sys/kernel/modprobe
load () # MODULE...
{
  local module
  for module in "$@"; do
    insmod "$MODS/$module.ko" || { echo "no $module in this kernel"; exit 77; }
  done
}
load fs/configfs/configfs lib/crc64 lib/crc64-rocksoft block/t10-pi drivers/scsi/scsi_common drivers/scsi/scsi_mod \
  drivers/scsi/sd_mod drivers/target/target_core_mod
. "$src/tests/functions.sh"
. "$src/tests/pair-functions.sh"
requires_plugin
cd "$tmp"
mount -t configfs none /sys/kernel/config || skip "no configfs"
mkdir -p target/pr n0 n1
# Where the kernel keeps what must outlive a power loss; before there are disks.
echo "$tmp/target" >"$target/dbroot"
load drivers/target/target_core_file drivers/target/loopback/tcm_loop
mkdir -p "$target/core/fileio_0/disk"
truncate -s $((mirror_size + (8 << 20))) disk
echo "fd_dev_name=$tmp/disk,fd_dev_size=$((mirror_size + (8 << 20)))" >"$target/core/fileio_0/disk/control"
echo crg-disk >"$target/core/fileio_0/disk/wwn/vpd_unit_serial" # a wwid is made of it
echo 1 >"$target/core/fileio_0/disk/enable"
for i in 0 1; do
  port=$target/loopback/naa.6001405000000001/tpgt_$((i + 1))
  mkdir -p "$port/lun/lun_0"
  echo "naa.600140500000001$i" >"$port/nexus"
  ln -s "$target/core/fileio_0/disk" "$port/lun/lun_0/disk"
  disk=sda
  [ $i = 0 ] || disk=sdb
  wait_for 10 test -e /sys/block/$disk || fail "no disk of path $i"
  mknod "n$i/store" b 8 $((i * 16))
done

boots=(ababababababababababababababab00 ababababababababababababababab01)
node () # NAME [KEY=VALUE]: its plugin, on a machine of its own
{
  CRG_BOOT_ID=${boots[${1#n}]} mirror_node "$1" 0 store-error=return "${@:2}"
  cp record "$1/record"
  mirror_ctl "$1"
}
production () # NAME TENURE [FIELDS]
{
  tell_any "$1" '"cmd":"role","role":"production","lease_until_ms":999999999999,"tenure":'"$2"',"record":'"$(sed "s/\"tenure\":1/\"tenure\":$2/" record)${3-}"
}
refused () # CODE TEXT
{
  case $ANSWER in *"$2"*"\"code\":\"$1\""*|*"\"code\":\"$1\""*"$2"*) ;; *) fail "not refused with $1, $2: $ANSWER" ;; esac
}
served () { case $ANSWER in *'"ok":true'*) ;; *) fail "not production: $ANSWER" ;; esac; }
io () { qemu-io -t none -f raw -c "$2" "$(uri "$tmp/$1/nbd")" >io.out 2>&1 && ! grep -qE 'failed|error' io.out; }
echo "a disk with two paths after $SECONDS s"

cp -r "$pki" pki
mirror_record 1 0
node n0 persistent-reservation=on
production n0 1
served
io n0 "write -P 7 1M 64k" || { cat io.out; fail "write at n0"; }
expect_fail dd if=/dev/zero of="$tmp/n1/store" bs=4k seek=1 count=1 oflag=direct conv=notrunc status=none 2>dd.err
grep -q "exchange" dd.err || fail "the device is not reserved: $(cat dd.err)"

# S1 first, then the device; without the option it is the device that refuses.
node n1
production n1 2
refused not-released S1
production n1 2 ',"fenced":["n0"],"accept_loss":true'
refused store "set persistent-reservation to on"
stop_pid "$PID_n1"
node n1 persistent-reservation=on
production n1 2
refused not-released S1
io n0 "write -P 8 1M 64k" || { cat io.out; fail "n0 has been fenced by one that S1 forbids to open"; }

# Declared dead, and not: it was stopped, its clocks too, and goes on within what it takes for its lease.
kill -STOP "$PID_n0"
production n1 2 ',"fenced":["n0"],"accept_loss":true'
served
io n1 "write -P 9 1M 64k" || { cat io.out; fail "write at n1"; }
kill -CONT "$PID_n0"
! io n0 "write -P 6 1M 64k" || fail "the old host's write went through"
grep -q "write of 65536 bytes.*Invalid exchange" n0/nbd.log || fail "it was not the device that refused: $(tail -n 5 n0/nbd.log)"
io n1 "read -P 9 1M 64k" || { cat io.out; fail "what n1 wrote is not there any more"; }
tell n0 '"cmd":"role","role":"none"'
case $ANSWER in *'"clean":false'*) ;; *) fail "n0 says that it released it cleanly: $ANSWER" ;; esac

# Back after a graceful release, by the other path; then the device is free.
tell n1 '"cmd":"role","role":"none"'
case $ANSWER in *'"clean":true'*) ;; *) fail "not clean: $ANSWER" ;; esac
production n0 3
served
io n0 "read -P 9 1M 64k" || { cat io.out; fail "read at n0"; }
io n0 "write -P 5 1M 64k" || { cat io.out; fail "write at n0, again"; }
tell n0 '"cmd":"role","role":"none"'
dd if=n1/store of=head bs=4k count=1 iflag=direct status=none
dd if=head of=n1/store bs=4k count=1 oflag=direct conv=notrunc status=none || fail "the device is still reserved"

# Metadata elsewhere: what belongs to the disk is known by whichever path, and what is a copy too.
truncate -s 1M meta
"$CRGCTL" iasp create n0/store --force --meta meta >iasp.log 2>&1 || { cat iasp.log; fail "no store of the disk"; }
"$CRGCTL" iasp dump n0/store --meta meta --json >iasp.log
grep -q '"data_identity": *"id naa\.6001405' iasp.log || { cat iasp.log; fail "the disk is not known by its number"; }
"$CRGCTL" iasp check n1/store --meta meta >iasp.log || { cat iasp.log; fail "by its other path it is another disk"; }
cp meta meta.copy
expect_fail "$CRGCTL" iasp check n1/store --meta meta.copy >iasp.log
grep -q "is a copy from elsewhere" iasp.log || { cat iasp.log; fail "a copy of the metadata is taken"; }

# Made a store again: the device empties itself, or says that it can't, and --zero does it.
stop_pid "$PID_n0"
stop_pid "$PID_n1"
"$CRGCTL" iasp create n0/store --force >made 2>&1 || { cat made; fail "iasp create on a device"; }
cat made
if ! grep -q 'it is all zeroes, and what is written will be known' made; then
  grep -q 'emptying itself\|empty itself' made || fail "not said what became of what it held"
  "$CRGCTL" iasp check n0/store | grep -qv 'ever written' || fail "it has kept what it held, and calls it empty"
  "$CRGCTL" iasp create n0/store --zero >made 2>&1 || { cat made; fail "iasp create --zero on a device"; }
fi
"$CRGCTL" iasp check n0/store | grep -q ' 0 of [0-9]* bytes were ever written' || fail "the device is not known to be empty"
cmp -n $mirror_size /dev/zero n0/store || fail "the device is not all zeroes"

echo "all of it after $SECONDS s"
