#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Guests under libvirt that boot from the IASP and write to it: through the plugin crg while
# production's node dies; with reconnect-delay while the plugin itself is killed; and on the export
# itself, over TLS, while the production plugin is killed.  The domains are as nbdkit-crg-plugin(1)
# has them.
# timeout: 200
. "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/functions.sh"
. "$CRG_SRC_DIR/tests/cluster.sh"
. "$CRG_SRC_DIR/tests/client-functions.sh"
requires virt-qemu-run qemu-system-x86_64 as ld nbdcopy qemu-io openssl
NODES="p1:rome p2:rome c1:milan w1"
SIZE=$((32 << 20))
EXPORT=tcp::auto
CLIENT_PORT=auto
FROM_SECTOR=2048 COUNT=120 # as in guest-boot.s
cd "$tmp"

as --32 -o boot.o "$CRG_SRC_DIR/tests/guest-boot.s"
ld -m elf_i386 -Ttext 0x7c00 --oformat binary -o boot boot.o
cluster_begin
wait_in_sync 30
start_proxy a iasp=payroll nodes="$CLIENT_NODES" tls-certificates="$CLIENT_TLS" client=guest state="$tmp/a.state"
u=$(proxy_uri a)
qemu-io -f raw -c "write -s $tmp/boot 0 512" "$u" >qemu.out || { cat qemu.out; fail "the boot sector"; }

# As root libvirt wants a user of its own that only its daemon's package makes: be somebody else.
as_user=()
mkdir home
cp -r "$CLIENT_TLS" home/tls
if [ "$(id -u)" = 0 ]; then
  as_user=(setpriv --reuid=65534 --regid=65534 --clear-groups)
  chown -R 65534:65534 home
  chmod 666 a.nbd
fi

# guest NAME [QEMU-BLOCKDEV [QEMU-OBJECT]]: a domain, started; sets GUEST_PID.  Its disk is the
# plugin's socket, or what qemu itself is told.
guest ()
{
  local disk more=
  "${as_user[@]}" mkdir -p "home/$1/etc"
  printf '%s\n' 'security_driver = "none"' 'stdio_handler = "file"' >"home/$1/etc/qemu.conf"
  disk="<disk type='network' device='disk'>
      <driver name='qemu' type='raw' cache='none'/>
      <source protocol='nbd' name='payroll'><host transport='unix' socket='$tmp/a.nbd'/></source>
      <target dev='vda' bus='virtio'/>
    </disk>"
  if [ $# -gt 1 ]; then
    disk=
    more="<qemu:commandline>
    ${3:+<qemu:arg value='-object'/><qemu:arg value='$3'/>}
    <qemu:arg value='-blockdev'/><qemu:arg value='driver=nbd,node-name=d0,export=payroll,reconnect-delay=60,$2'/>
    <qemu:arg value='-device'/><qemu:arg value='virtio-blk-pci,drive=d0,addr=0x10,bootindex=1'/>
  </qemu:commandline>"
  fi
  cat >"$1.xml" <<END
<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>$1</name><memory unit='MiB'>64</memory><vcpu>1</vcpu>
  <os><type arch='x86_64' machine='pc'>hvm</type><boot dev='hd'/></os>
  <features><acpi/></features>
  <on_poweroff>destroy</on_poweroff>
  <devices>
    <emulator>$(command -v qemu-system-x86_64)</emulator>
    $disk
    <controller type='usb' model='none'/><memballoon model='none'/>
    <serial type='file'><source path='$tmp/home/$1.serial'/><target port='0'/></serial>
  </devices>
  $more
</domain>
END
  touch "home/$1.serial"
  chmod 666 "home/$1.serial"
  HOME=$tmp/home XDG_RUNTIME_DIR=$tmp/home "${as_user[@]}" virt-qemu-run --root "$tmp/home/$1" "$tmp/$1.xml" \
    >"$1.out" 2>&1 </dev/null &
  GUEST_PID=$!
  record_pid $GUEST_PID
}
said () { tr -cd "$2" <"home/$1.serial" 2>/dev/null | wc -c; }
has_written () { [ "$(said "$1" w)" -ge "$2" ] || not_running $GUEST_PID; }
written () # NAME N
{
  wait_for 40 has_written "$1" "$2" || { cat "$1.out" "home/$1.serial"; show_logs; fail "$1: the guest has not written $2 sectors"; }
}
is_over () { [ "$(said "$1" DE)" -gt 0 ] || not_running $GUEST_PID; }
# good NAME: the guest came to its end, saw no error, and all is there
good ()
{
  local want have
  wait_for 60 is_over "$1" || { cat "$1.out" "home/$1.serial"; show_logs; fail "$1: the guest has no end"; }
  stop_pid $GUEST_PID
  [ "$(tr -d ' \r\n\0' <"home/$1.serial" | tail -c $((COUNT + 2)))" = "B$(printf "%${COUNT}s" '' | tr ' ' w)D" ] ||
    { cat "$1.out" "home/$1.serial" "home/$1"/log/qemu/*.log; fail "$1: the guest saw an error"; }
  nbdcopy "$(export_uri)" image
  want=$(perl -e 'print pack ("L", $_) x 128 for 0 .. $ARGV[0] - 1' $COUNT | sha256sum)
  have=$(dd if=image bs=512 skip=$FROM_SECTOR count=$COUNT status=none | sha256sum)
  [ "$want" = "$have" ] || fail "$1: what the guest wrote is not there"
}
# zeroes: what a guest wrote shall not be there from the one before
zeroes () { qemu-io -f raw -c "write -z 1M 1M" "$u" >qemu.out || { cat qemu.out; fail "write of zeroes"; }; }

guest proxied
written proxied 30
kill_node "$(production_node)"
good proxied
zeroes

guest again "server.type=unix,server.path=$tmp/a.nbd"
written again 30
kill_pid "$PROXY_PID"
start_proxy a
chmod 666 a.nbd
good again
zeroes

host=$(production_node)
port=$(ctl w1 uri payroll | sed 's,.*:\([0-9]*\)/.*,\1,')
guest direct "server.type=inet,server.host=${NODE_ADDRESS[$host]},server.port=$port,tls-creds=t0" \
  "tls-creds-x509,id=t0,endpoint=client,dir=$tmp/home/tls"
written direct 30
kill -KILL "$(plugin_pid "$host")"
good direct
echo "three guests of $COUNT sectors each saw no error"
