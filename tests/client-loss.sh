#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# The plugin crg when the record's loss has risen, on a store that really loses what was not flushed
# (Y6): kept writes are written again, and durable by the next flush; without them, after a forced
# takeover, in a new process, or under another lineage (C9), everything fails.  And it waits, visibly,
# before an export of an older tenure or lineage (Y1) or another size (Y7).
. "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/functions.sh"
. "$CRG_SRC_DIR/tests/pair-functions.sh"
. "$CRG_SRC_DIR/tests/client-functions.sh"
requires qemu-io perl jq cmp openssl
requires_plugin
requires_test_build
cd "$tmp"
mirror_pki
mirror_record 1 0
mkdir n0
echo "cache 1" >n0/store.faults

# where TENURE LOSS [LINEAGE]: what the node says to clients
where ()
{
  echo "{\"ok\":true,\"node\":\"n0\",\"iasp\":\"payroll\",\"host\":\"n0\",\"uri\":\"nbd+unix:///payroll?socket=$tmp/n0/nbd\",\"tenure\":$1,\"loss\":$2,\"size\":67108864${3:+,\"lineage\":\"$3\"}}" >where.new
  mv where.new where
}
# serve TENURE LOSS [FIELDS]: production once more
serve ()
{
  sed "s/\"tenure\":[0-9]*/\"tenure\":$1/; s/\"loss\":[0-9]*/\"loss\":$2/" record >n0/record
  mirror_node n0 0
  mirror_ctl n0 --commit --lease 60000
  tell n0 "\"cmd\":\"role\",\"role\":\"production\",\"tenure\":$1${3:+,$3}"
  where "$1" "$2"
}
seed=0 # a multiple of 4: all of it goes
power_fails ()
{
  kill_pid "$PID_n0"
  stop_pid "$CTLPID_n0"
  seed=$((seed + 4))
  "$POWERLOSS" n0/store $seed
}
fresh_store () { rm -f n0/store n0/store.cache n0/store.log; }

"$CRG_SRC_DIR/tests/answerer" "$tmp/crgd.sock" "$tmp/where" >answerer.out 2>&1 &
record_pid $!
wait_for 5 grep -q ready answerer.out

# open_io NAME: qemu-io on the proxy NAME, its commands by io, its words in NAME.out
open_io ()
{
  IO=$1
  mkfifo "$IO.in"
  qemu-io -f raw -t writeback "$(proxy_uri "$IO")" <"$IO.in" >"$IO.out" 2>&1 &
  record_pid $!
  exec {IO_FD}>"$IO.in"
  wait_for 20 prompts 1 || { cat "$IO.out" "$IO.log"; fail "qemu-io does not begin"; }
}
prompts () { [ "$(grep -o 'qemu-io>' "$IO.out" | wc -l)" -ge "$1" ]; }
io_begin () { IO_N=$(grep -o 'qemu-io>' "$IO.out" | wc -l); echo "$1" >&$IO_FD; }
io_end () { wait_for 20 prompts $((IO_N + 1)) || { cat "$IO.out" "$IO.log"; fail "no end of: $1"; }; }
io () { io_begin "$1"; io_end "$1"; }
good () { io "$1"; ! grep -q 'nbdkit: crg.*: error' "$IO.log" && ! grep -qE 'error|failed|No such' "$IO.out" || { cat "$IO.out" "$IO.log"; fail "$1"; }; }
bad () # also a flush, of whose failure qemu-io says nothing: the proxy does
{
  local from
  from=$(grep -c 'Input/output error' "$IO.log" || :)
  io "$1"
  [ "$(grep -c 'Input/output error' "$IO.log")" -gt "$from" ] || { cat "$IO.out" "$IO.log"; fail "no EIO: $1"; }
}
pattern () { head -c 65536 /dev/zero | tr '\0' "\\$1"; } # OCTAL

# --- an older tenure, another size: requests wait, and go on when the right one is there
serve 5 0
start_proxy f iasp=payroll nodes="unix:$tmp/crgd.sock"
open_io f
good "write -P 1 0 64k"
kill_pid "$PID_n0"
stop_pid "$CTLPID_n0"
cp -r n0 keep
fresh_store
serve 2 0
where 9 0 # the node errs, or lies
io_begin "read -P 1 0 64k"
waits_for () { proxy_status f '.wait.reason' | grep -q "$1"; }
wait_for 10 waits_for 'older than one that was used (Y1)' || fail "waits for: $(proxy_status f .wait)"
proxy_has f .requests.waiting 1 || fail "$(proxy_status f .requests)"
kill_pid "$PID_n0"
stop_pid "$CTLPID_n0"
fresh_store
mirror_size=$((32 << 20))
serve 7 0
wait_for 10 waits_for 'its size is another' || fail "waits for: $(proxy_status f .wait)"
[ "$(proxy_status f .wait.age_ms)" -gt 100 ] || fail "the wait has no age"
kill_pid "$PID_n0"
stop_pid "$CTLPID_n0"
fresh_store
mirror_size=$((64 << 20))
cp keep/store* n0/
serve 8 0
io_end "read"
! grep -qE 'error|failed' f.out || { cat f.out; fail "after the wait"; }
kill_pid "$PROXY_PID"
kill_pid "$PID_n0"
stop_pid "$CTLPID_n0"
fresh_store

# --- kept writes
serve 1 0
start_proxy a iasp=payroll nodes="unix:$tmp/crgd.sock"
open_io a
good "write -P 1 0 64k"
good flush
good "write -P 2 0 64k"
good "write -P 3 128k 64k"
good "write -P 4 128k 64k"
good "write -z 1M 64k"
is_kept () { [ "$(proxy_status a .kept.writes)" = 4 ]; }
is_kept || fail "kept: $(proxy_status a .kept)"
power_fails
! pattern 2 | cmp -s -n 65536 - n0/store || fail "the store has lost nothing; the test is of no use"
serve 2 1
good flush
good "read -P 2 0 64k"
good "read -P 4 128k 64k"
[ "$(proxy_status a .counters.rewritten)" = 4 ] && [ "$(proxy_status a .kept.writes)" = 0 ] || fail "$(proxy_status a .)"
power_fails
pattern 2 | cmp -n 65536 - n0/store || fail "a flushed write is lost"
serve 3 1
good "read -P 2 0 64k"
kill_pid "$PROXY_PID"

# --- nothing kept
start_proxy b iasp=payroll nodes="unix:$tmp/crgd.sock" keep=0
open_io b
good "write -P 5 0 64k"
power_fails
serve 4 2
bad flush
bad "read 0 64k"
bad "write 0 64k"
proxy_has b .state lost || fail "state $(proxy_status b .state)"
grep -q 'answered writes are lost' b.log
# Attached again, all is as it is.
kill_pid "$PROXY_PID"
start_proxy c iasp=payroll nodes="unix:$tmp/crgd.sock" client=c state="$tmp/c.state"
open_io c
good "read 0 64k"

# --- a process that is not the one that wrote
good "write -P 6 0 64k"
kill_pid "$PROXY_PID"
power_fails
serve 5 3
start_proxy d iasp=payroll nodes="unix:$tmp/crgd.sock" client=c state="$tmp/c.state"
open_io d
bad "read 0 64k"
kill_pid "$PROXY_PID"

# --- forced, with nothing unflushed
start_proxy e iasp=payroll nodes="unix:$tmp/crgd.sock"
open_io e
good "write -P 7 0 64k"
good flush
kill_pid "$PID_n0"
stop_pid "$CTLPID_n0"
serve 6 4 '"forced":true'
bad flush
kill_pid "$PROXY_PID"

# --- recovered (C9) with what a node knew that was cut off long ago: tenures behind, and nothing unflushed
ends () { kill_pid "$PID_n0"; stop_pid "$CTLPID_n0"; fresh_store; }
old=44444444444444444444444444444444 new=55555555555555555555555555555555
ends
serve 9 0
where 9 0 $old
start_proxy g iasp=payroll nodes="unix:$tmp/crgd.sock" client=g state="$tmp/g.state"
open_io g
good "write -P 1 0 64k"
good flush
ends
sed -i "s/$old\"/$new\",\"past_lineages\":[{\"id\":\"$old\",\"generation\":1}]/" record
mirror_ids=("${mirror_ids[@]/lineage=$old/lineage=$new}")
serve 2 0
where 2 0 $new
bad "read 0 64k"
grep -q 'under another lineage' g.log || { cat g.log; fail "no word of a lineage"; }
kill_pid "$PROXY_PID"
# The next process has on record what the one before used: it fails as well.  Attached again, all is as it is ...
start_proxy g iasp=payroll nodes="unix:$tmp/crgd.sock" client=g state="$tmp/g.state"
wait_for 10 proxy_has g .state lost || fail "on record was $(cat g.state)"
kill_pid "$PROXY_PID"
start_proxy h iasp=payroll nodes="unix:$tmp/crgd.sock" client=h state="$tmp/h.state"
open_io h
good "read 0 64k"
# ... and never as before, though a dead node is there again, with a newer tenure.
ends
sed -i "s/$new\",\"past_lineages\":\\[{[^}]*}\\]/$old\"/" record
mirror_ids=("${mirror_ids[@]/lineage=$new/lineage=$old}")
serve 20 0
where 20 0 $old
io_begin "read 0 64k"
waits_for () { proxy_status h '.wait.reason' | grep -q "$1"; }
wait_for 10 waits_for 'lineage before the one used (Y1)' || fail "waits for: $(proxy_status h .wait)"
where 20 0 # a node that names none: the export itself does
wait_for 10 waits_for 'tenure or lineage is older than one that was used (Y1)' || fail "waits for: $(proxy_status h .wait)"
kill_pid "$PROXY_PID"
