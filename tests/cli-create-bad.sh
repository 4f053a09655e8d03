#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# crgctl against running daemons: what can't be created is refused with its reason, and nothing of
# it is left on any node or store; names that are not there, and users who may not.
# timeout: 240
. "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/functions.sh"
requires_daemon
requires jq mkfs.ext4
unset CRGCTL_SOCKET
cd "$tmp"

nodes="p1 c1 w1"
SOCKET_GROUP=$(getent group 1 | cut -d: -f1) || SOCKET_GROUP=
declare -A pid

"$CRGCTL" init-pki pki p1=127.0.0.11 c1=127.0.0.12 w1=127.0.0.13 >/dev/null
"$CRGD" --local-hub "$tmp/hub.sock" >hub.log 2>&1 </dev/null &
record_pid $!
# start NODE
start ()
{
  mkdir -p "$1/state" "$1/run"
  cat >"$1.conf" <<EOF
[node]
name = $1
state-dir = $tmp/$1/state
run-dir = $tmp/$1/run
tls-certificates = $tmp/pki/$1
plugin = $PLUGIN
nbdkit = $CRG_NBDKIT
${SOCKET_GROUP:+socket-group = $SOCKET_GROUP}
[engine]
socket = $tmp/hub.sock
EOF
  "$CRGD" --config "$1.conf" >>"$1.log" 2>&1 </dev/null &
  pid[$1]=$!
  record_pid $!
}
ctl () { local n=$1; shift; "$CRGCTL" --timeout 20 -s "$tmp/$n/run/crgd.sock" "$@"; }
answers () { ctl "$1" status >/dev/null 2>&1; }
# Every daemon knows of the others when create has asked them once.
for n in $nodes; do start "$n"; done
for n in $nodes; do wait_for 15 answers "$n" || { cat "$n.log"; fail "crgd of $n does not answer"; }; done

# status WANT COMMAND...: the exit code is WANT, or one of several (7|10)
status ()
{
  local want=$1 got=0
  shift
  "$@" >out 2>err </dev/null || got=$?
  [[ "|$want|" == *"|$got|"* ]] || { cat out err; tail -n5 ./*.log; fail "exit $got, not $want: $*"; }
}
says () { local t; for t; do grep -qF -- "$t" err || { cat err; fail "stderr lacks: $t"; }; done; }

free_port
cat >good.conf <<EOF
[crg]
name = payroll
[node p1]
id = 1
site = rome
role = primary
address = 127.0.0.11
[node c1]
id = 2
site = milan
role = backup
address = 127.0.0.12
[node w1]
id = 3
role = replicate
address = 127.0.0.13
[iasp disk]
mirror-port = $PORT
store.rome = $tmp/a
store.milan = $tmp/b
EOF
fresh_stores () { rm -f a b; truncate -s 32M a b; }
fresh_stores

# nothing_there: no node has a CRG or a file of one, and the stores are as they were
stores=
nothing_there ()
{
  local n
  for n in $nodes; do
    [ "$(ctl "$n" status --json | jq '.crgs | length')" = 0 ] || { ctl "$n" status; fail "$n has a CRG"; }
    [ -z "$(find "$n/state" -name '*.state*')" ] || { find "$n/state"; fail "$n has a state file"; }
  done
  [ "$(sha256sum a b 2>&1 || :)" = "$stores" ] || fail "a store was changed"
}
# refused CODE FILE TEXT...: create says so, and nothing is left
refused ()
{
  local code=$1 file=$2
  shift 2
  stores=$(sha256sum a b 2>&1 || :)
  status "$code" ctl p1 create "$file"
  says "$@"
  nothing_there
}
changed () { sed "$1" good.conf >bad.conf; ! cmp -s good.conf bad.conf || fail "no change: $1"; }

# --- the stores
rm b
refused 10 good.conf "c1" "$tmp/b" "No such file"
fresh_stores
truncate -s 33M b
refused 7 good.conf "disk" "size"
fresh_stores
changed 's/^mirror-port/size = 1G\n&/'
refused 7 bad.conf "IASP disk: store $tmp/" "size smaller"
truncate -s 4096 a b
refused '7|10' good.conf "$tmp/"
fresh_stores
rm a && mkdir a
refused '1|7|10' good.conf "$tmp/a"
rmdir a
fresh_stores
mkfs.ext4 -q -F b
refused 8 good.conf "$tmp/b" "--force"
fresh_stores

# --- a node that is not there
changed 's/^\[node w1\]/[node w9]/'
refused '3|7' bad.conf "w9"
# --- a certificate that is gone since the daemon began
mv pki/c1/c1.key c1.key
refused 10 good.conf "c1.key" "there is no such file"
mv c1.key pki/c1/c1.key

# --- a node that can't keep the state, when all superblocks are written or about to be
stores=$(sha256sum a b)
mv c1/state c1/away
status 1 ctl p1 create good.conf
says "node c1"
mv c1/away c1/state
wiped () { [ "$(sha256sum a b)" = "$stores" ]; }
wait_for 10 wiped || fail "a superblock is left on a store"
nothing_there

# --- the file itself: line and reason, from any node
changed 's/^store.milan/stroe.milan/'
refused 9 bad.conf "bad.conf:20: unknown key 'stroe.milan'"
changed 's/^id = 2/id = 1/'
refused 9 bad.conf "bad.conf:9: node 'c1' has id 1"

# --- who may: everybody may look, root and the owner may change, and who has the socket-group
if [ "$(id -u)" = 0 ] && command -v setpriv >/dev/null; then
  other=(setpriv --reuid=65534 --regid=65534 --clear-groups "$CRGCTL" -s "$tmp/p1/run/crgd.sock")
  chmod a+rx p1 p1/run
  status 0 "${other[@]}" status
  stores=$(sha256sum a b)
  status 7 "${other[@]}" create good.conf
  says "socket-group"
  nothing_there
  if [ -n "$SOCKET_GROUP" ]; then
    # By name they are no members of it.
    status 10 "${other[@]/#--clear-groups/--groups=1}" start absent
    status 10 "${other[@]/#--regid=65534/--regid=1}" start absent
    status 7 "${other[@]/#--clear-groups/--groups=2,3}" start absent
  fi
fi

# --- a good one, and then names that are taken
status 0 ctl c1 create good.conf
for n in $nodes; do
  [ "$(ctl "$n" status --json | jq -r '.crgs[].name')" = payroll ] || fail "$n does not know it"
done
kept () { [ "$(ctl p1 status --json | jq -c '[.crgs[].name]')" = '["payroll"]' ] || fail "not only payroll"; }
status 7 ctl p1 create good.conf
says "payroll"
kept
changed 's/^name = payroll/name = second/'
status 7 ctl p1 create bad.conf
says "disk"
kept
changed 's/^name = payroll/name = second/; s/^\[iasp disk\]/[iasp disk2]/; s/^mirror-port.*/mirror-port = 9/'
before=$(sha256sum a b)
for force in "" --force; do
  # shellcheck disable=SC2086
  status 7 ctl p1 create bad.conf $force
  says "IASP disk2: store $tmp/" "it belongs to CRG payroll, which exists; delete that one first"
done
[ "$(sha256sum a b)" = "$before" ] || fail "a store of a living CRG was changed"
kept

# --- names that are not there
for args in "start absent" "end absent" "switchover absent" "uri absent" "delete absent --yes" \
    "status absent" "is active absent" "trace absent" "switchover payroll --to absent" \
    "mark-failed absent --i-confirm-it-is-dead"; do
  # shellcheck disable=SC2086
  status 10 ctl p1 $args
  says absent
done

# --- created is not started: no fault, not active, not served
wait_for 20 ctl p1 status payroll >/dev/null || { ctl p1 status; fail "not started is a fault"; }
status 2 ctl p1 is active payroll
status 2 ctl p1 is serving disk
status 5 ctl p1 uri disk

# --- deleted: gone everywhere, and its stores may be used again
status 8 ctl p1 delete payroll
status 0 ctl p1 delete payroll --yes
gone () { [ "$(ctl "$1" status --json | jq '.crgs | length')" = 0 ]; }
for n in $nodes; do wait_for 10 gone "$n" || { ctl "$n" status; fail "$n still has it"; }; done
status 8 ctl p1 create good.conf
says "it belongs to IASP disk of CRG payroll already; --force takes it"
status 0 ctl p1 create good.conf --force
