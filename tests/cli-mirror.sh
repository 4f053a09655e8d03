#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# crgctl mirror: suspend and resume, verify, detach in each way and reattach, on a whole cluster: what the
# copies and the set are afterwards, what the fork's own clients see, the exit codes, and what
# crgctl explain says of each.
# timeout: 150
. "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/functions.sh"
. "$CRG_SRC_DIR/tests/cluster.sh"
requires nbdinfo qemu-io jq
cd "$tmp"
NODES="p1:rome c1:milan w1"
SUSPEND_MS=4000
SNAPSHOT_HOOK=$tmp/snapshot # where the file system has no reflinks
printf '#!/bin/sh\nexit 0\n' >snapshot
chmod 755 snapshot
cluster_begin
wait_in_sync 30

status ()
{
  local want=$1 got=0
  shift
  "$@" >out 2>err </dev/null || got=$?
  [ "$got" = "$want" ] || { cat out err; show_logs; fail "exit $got, not $want: $*"; }
}
explains () { ctl w1 explain payroll >explained && grep -qE -- "$1" explained; }
must_explain () { wait_for 10 explains "$1" || { cat explained; fail "explain does not say: $1"; }; }
says () { grep -qE -- "$1" err || { cat err; fail "stderr lacks: $1"; }; }
put () { qemu-io -f raw -c "write -P $1 $2 64k" -c flush "$(export_uri)" >qemu.out; }
fork () { copy_of milan uri; }
exported () { [ "$(fork)" != null ]; }
# reads PATTERN OFFSET [URI]
reads () { qemu-io -r -f raw -c "read -P $1 $2 64k" "${3:-$(export_uri)}" >qemu.out; ! grep -q failed qemu.out; }
is_not_mirrored () { [ "$(copy_of milan mirror)" = "$1" ] && [ "$(copy_of milan in_set)" = false ]; }
flags () { "$CRGCTL" iasp dump --json store.milan | jq -r '.chosen as $c | .slots[$c].flags | join(" ")'; }

status 9 ctl p1 mirror hug payroll
status 9 ctl p1 mirror suspend payroll --export none
status 9 ctl p1 mirror suspend payroll --force
status 9 ctl p1 mirror detach payroll --export loud
status 9 ctl p1 mirror suspend payroll --repair
status 9 ctl p1 mirror verify payroll --stop --repair
status 10 ctl p1 mirror verify payroll --site absent
status 10 ctl p1 mirror suspend absent
status 10 ctl p1 mirror suspend payroll --site absent
status 7 ctl p1 mirror suspend payroll --site rome
says 'IASP payroll: suspend the copy of rome: it is the production copy'

status 0 ctl p1 mirror unbar payroll
status 10 ctl p1 explain absent
must_explain '^  p1 serves it, at site rome: tenure 1, generation 1'
must_explain '^copy of site milan: mirror on c1, in the set'
must_explain '^  It is in the in-sync set since generation 1: it has every acknowledged write'
must_explain '^  c1 says of the disk: generation 1 .the record: 1., tenure 1, open'
must_explain '^  c1 could take over'
must_explain '^nothing waits'
status 0 ctl p1 explain payroll --json
jq -e '.copies[1].site == "milan" and (.copies[1].text | length) > 1 and .waits == []' out >/dev/null || { cat out; fail "explain --json"; }

# --- a wait of the data path: its owner, its reason, its age
pid=$(plugin_pid c1)
kill -STOP "$pid"
qemu-io -f raw -c "write -P 1 0 64k" "$(export_uri)" >qemu.out &
record_pid $!
must_explain '^waiting: copy milan on p1: .*, for [0-9.]+ s'
kill -CONT "$pid"
wait $!

# --- suspend: what it lacks is tracked
put 1 0
status 0 ctl w1 mirror suspend payroll
wait_for 10 is_not_mirrored suspended || { show_logs; fail "not suspended"; }
status 4 ctl w1 status payroll
grep -q 'suspended by an operator' out || { cat out; fail "status does not say who suspended it"; }
must_explain '^copy of site milan: mirror on c1, suspended by an operator'
must_explain '^  It left the in-sync set .*, [0-9]+ s ago., where it was since generation 1: suspended by an operator'
must_explain '^  Production, .* bytes dirty for it'
must_explain '^  c1 could not take over: the copy at its site is not in the set'
put 2 0
status 7 ctl w1 switchover payroll --to c1
mkdir store.milan.before-resync.new # it can't be made, and the copy stays as it is
status 0 ctl p1 mirror resume payroll --site milan
must_explain '^  What it holds could not be kept .*before-resync: it can.t be made: .*; the resynchronisation waits'
must_explain '^  Production, .*what it holds can.t be kept before it is resynchronised .snapshot-before-resync.: .*; [0-9]+ bytes dirty for it'
must_explain '^  It left the in-sync set .*, where it was since generation 1: suspended by an operator'
rmdir store.milan.before-resync.new
wait_in_sync 30
put 3 64k

# --- verify: equal; a block changed behind the copy's back is named, and repaired if asked
status 7 ctl c1 mirror verify payroll
says 'production is at node p1'
status 7 ctl p1 mirror verify payroll --site rome
status 0 ctl p1 mirror verify payroll
grep -q '^the copy at milan is equal to production' out || { cat out; fail "not said to be equal"; }
printf 'damaged' | dd of=store.milan bs=1 seek=$((3 << 16)) conv=notrunc,fsync status=none
status 4 ctl p1 mirror verify payroll --site milan
grep -qx "the copy at milan differs in 65536 bytes at $((3 << 16))" out || { cat out; fail "not named"; }
must_explain '^  Verify: done; [0-9]+ of [0-9]+ bytes compared, 65536 differ[.]'
must_explain "^  It differed in 65536 bytes at $((3 << 16))"
status 0 ctl w1 status payroll
grep -q 'verify the copy at milan differed' out || { cat out; fail "status does not tell it"; }
status 0 ctl p1 mirror verify payroll --repair
grep -q '^the copy at milan: 65536 bytes differed and were repaired' out || { cat out; fail "not repaired"; }
wait_in_sync 20
status 0 ctl p1 mirror verify payroll
status 0 ctl p1 mirror verify payroll --stop

# --- detach, read-only: the copy as it was; a fork on its disk before anybody reads it
status 0 ctl p1 mirror detach payroll --export read-only
wait_for 15 exported || { show_logs; fail "the fork is not exported"; }
is_not_mirrored detached || fail "not detached"
[[ " $(flags) " == *" fork "* ]] || fail "its disk is no fork: $(flags)"
put 4 64k
reads 2 0 "$(fork)" || fail "the fork does not show what was there"
reads 3 64k "$(fork)" || fail "the fork shows what was written later"
expect_fail qemu-io -f raw -c 'write -P 9 0 64k' "$(fork)" >/dev/null 2>&1
must_explain 'It is detached, exported read-only; it was not written since'
status 7 ctl p1 mirror suspend payroll
status 0 ctl p1 mirror reattach payroll
wait_in_sync 30
[[ " $(flags) " != *" fork "* ]] || fail "still a fork: $(flags)"

# --- read-write: it goes its own way; taken back only by force
status 0 ctl p1 mirror detach payroll --export read-write
wait_for 15 exported || { show_logs; fail "the fork is not exported"; }
qemu-io -f raw -c 'write -P 7 128k 64k' -c flush "$(fork)" >qemu.out
kill_pid "$(plugin_pid c1)" || :
wait_for 15 exported || { show_logs; fail "the fork does not come back"; }
reads 7 128k "$(fork)" || fail "the fork lost a write"
reads 0 128k || fail "production has the fork's write"
status 0 ctl p1 mirror detach payroll --export none
closed () { [ -z "$(plugin_pid c1)" ]; }
wait_for 15 closed || fail "the fork is still open"
status 8 ctl p1 mirror reattach payroll
says 'what the detached copy holds beyond production.s is lost; --force'
status 0 ctl p1 mirror reattach payroll --force
wait_in_sync 30
put 5 192k
same_copies
