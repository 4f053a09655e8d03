# SPDX-License-Identifier: BSD-3-Clause
# For tests of the plugin with a controller that is not crgd but tests/ctl.  To be sourced after
# functions.sh.  A node has a name, a site (0, 1 ...), a directory $tmp/NAME and a control socket.

CTL=$CRG_BUILD_DIR/tests/ctl
CERTS=$CRG_SRC_DIR/tests/certs
mirror_size=$((64 << 20))
mirror_sites=(rome milan turin)
mirror_ids=(cluster-id=11111111111111111111111111111111 crg-id=22222222222222222222222222222222
  iasp-id=33333333333333333333333333333333 lineage=44444444444444444444444444444444)
mirror_id=0

# mirror_pki: a CA in $tmp/pki; mirror_node makes the nodes' certificates
mirror_pki ()
{
  [ -e "$tmp/pki/ca-cert.pem" ] || "$CERTS" ca "$tmp/pki"
}

# mirror_record N IN_SET...: the record of N sites, sites IN_SET in the set, in $tmp/record
mirror_record ()
{
  local n=$1 i sites= in
  shift
  for ((i = 0; i < n; i++)); do
    in=false
    case " $* " in *" $i "*) in=true ;; esac
    sites+="${sites:+,}{\"index\":$i,\"name\":\"${mirror_sites[i]}\",\"in_set\":$in,\"since\":$([ $in = true ] && echo 1 || echo 0),\"host\":\"n$i\"}"
  done
  echo "{\"generation\":1,\"loss\":0,\"tenure\":1,\"lineage\":\"44444444444444444444444444444444\",\"production_site\":0,\"sites\":[$sites]}" >"$tmp/record"
}

# mirror_meta NAME: before it is started: that node's metadata is in a file of its own, and its store is
# full of data to its last byte
mirror_meta ()
{
  mkdir -p "$tmp/$1"
  truncate -s $mirror_size "$tmp/$1/store"
  truncate -s 1M "$tmp/$1/meta"
}

# mirror_node NAME SITE [KEY=VALUE...]: starts the plugin of a node.  Sets PID_NAME, PORT_NAME.
mirror_node ()
{
  local name=$1 site=$2 d=$tmp/$1 port
  shift 2
  mkdir -p "$d"
  [ -e "$tmp/pki/$name-cert.pem" ] || "$CERTS" node "$tmp/pki" "$name"
  [ -e "$d/store" ] || truncate -s $((mirror_size + (8 << 20))) "$d/store"
  eval "port=\${PORT_$name:-}"
  if [ -z "$port" ]; then
    free_port
    port=$PORT
    eval "PORT_$name=$port"
  fi
  rm -f "$d/ctl"
  [ ! -e "$d/meta" ] || set -- meta="$d/meta" "$@"
  start_nbdkit "$d/nbd" name=payroll store="$d/store" control="$d/ctl" node="$name" node-id=$((${name#n} + 1)) \
    site="${mirror_sites[site]}" crg=wages "${mirror_ids[@]}" size=$mirror_size \
    dirty-block=65536 listen="127.0.0.1:$port" tls-ca="$tmp/pki/ca-cert.pem" \
    tls-cert="$tmp/pki/$name-cert.pem" tls-key="$tmp/pki/$name-key.pem" "$@"
  eval "PID_$name=$NBDKIT_PID"
  wait_for 10 test -S "$d/ctl" || fail "$name has no control socket"
}

# mirror_ctl NAME [OPTION...]: starts its controller; commands go to it by "tell"
mirror_ctl ()
{
  local name=$1 d=$tmp/$1 n
  shift
  rm -f "$d/fifo"
  mkfifo "$d/fifo"
  : >>"$d/answers"
  "$CTL" "$d/ctl" --record "$d/record" "$@" <"$d/fifo" >>"$d/answers" 2>"$d/ctl.err" &
  record_pid $!
  eval "CTLPID_$name=$!"
  exec {n}>"$d/fifo"
  eval "CTLFD_$name=$n"
}

# tell NAME FIELDS...: one command, its answer in ANSWER; fails unless ok.  FIELDS is JSON without braces.
tell ()
{
  tell_any "$@"
  case $ANSWER in *'"ok":true'*) ;; *) fail "$1 refused {$2}: $ANSWER" ;; esac
}

# tell_any: also an answer that says no
tell_any ()
{
  local name=$1 d=$tmp/$1 fd
  mirror_id=$((mirror_id + 1))
  eval "fd=\$CTLFD_$name"
  (trap '' PIPE; echo "{\"id\":$mirror_id,$2}" >&"$fd") 2>/dev/null || fail "$name's controller is gone: $(cat "$d/ctl.err" "$d/nbd.log")"
  wait_for "${TELL_S:-10}" grep -q "\"id\":$mirror_id," "$d/answers" || fail "$name does not answer {$2}: $(tail -3 "$d/answers")"
  ANSWER=$(grep -m1 "\"id\":$mirror_id," "$d/answers")
}

# status NAME: into ANSWER
status ()
{
  tell "$1" '"cmd":"status"'
}

# in_state NAME STATE: is the (only) link of a production in that state?
in_state ()
{
  status "$1"
  case $ANSWER in *"\"state\":\"$2\""*) return 0 ;; *) return 1 ;; esac
}

in_set ()
{
  status "$1"
  [[ $ANSWER == *'"links":[{'*'"in_set":true'* ]]
}

# mirror_pair [KEY=VALUE...]: production n0, mirror n1, empty stores, mirroring
mirror_pair ()
{
  mirror_pki
  mirror_record 2 0
  for i in 0 1; do
    mkdir -p "$tmp/n$i"
    cp "$tmp/record" "$tmp/n$i/record"
    mirror_node n$i $i "$@"
  done
  mirror_ctl n0 --commit --lease 3000
  mirror_ctl n1
  tell n1 '"cmd":"role","role":"mirror","tenure":1,"peers":["n0","n1"],"production":"n0"'
  tell n0 '"cmd":"role","role":"production","tenure":1,"peers":["n0","n1"]'
  mirror_connect
}

mirror_connect ()
{
  tell n0 "\"cmd\":\"mirror\",\"site\":1,\"node\":\"n1\",\"addresses\":[\"127.0.0.1\"],\"port\":$PORT_n1,\"sync\":\"full\""
  wait_for 20 in_state n0 mirroring || fail "not mirroring: $ANSWER"
  wait_for 5 in_set n0 || fail "not in the set: $ANSWER"
}

# same_data: both stores hold the same data (after both have flushed)
same_data ()
{
  cmp -n $mirror_size "$tmp/n0/store" "$tmp/n1/store"
}

# io_at NODE COMMAND...: qemu-io's, on that node's export, with IO_OPTIONS; each has to be done, and what is read
# to be as it says.  Its words are in qemu.out.
IO_OPTIONS=()
io_at ()
{
  local c args=() status=0 node=$1
  shift
  for c; do args+=(-c "$c"); done
  timeout $((30 * patience)) qemu-io -f raw ${IO_OPTIONS[@]+"${IO_OPTIONS[@]}"} "${args[@]}" \
    "$(uri "$tmp/$node/nbd")" >"$tmp/qemu.out" 2>&1 || status=$?
  [ $status != 0 ] || ! grep -qiE 'failed|error|invalid|not found|no such' "$tmp/qemu.out" || status=1
  [ $status != 0 ] || return 0
  cat "$tmp/qemu.out"
  [ $status != 124 ] || too_slow "qemu-io at $node is not done: $*"
  fail "qemu-io at $node: $*"
}
io () { io_at n0 "$@"; }

# faults NAME RULE...: what the store of a node does from now on (plugin/storefault.h); the first
# call has to come before its plugin opens the store
faults ()
{
  local d=$tmp/$1
  shift
  mkdir -p "$d"
  printf '%s\n' "$@" >"$d/store.faults.new"
  mv "$d/store.faults.new" "$d/store.faults"
}

# fault_count NAME COUNTER: what the layer has counted there
fault_count ()
{
  "$CRG_BUILD_DIR/tests/powerloss" --count "$tmp/$1/store" | sed -n "s/^$2 //p"
}

# number NAME KEY: the first number of that key in its status, into NUMBER
number ()
{
  status "$1"
  [[ $ANSWER =~ \"$2\":([0-9]+) ]] || fail "$1 has no $2: $ANSWER"
  NUMBER=${BASH_REMATCH[1]}
}

# is_cold NAME: nothing is hot there any more
is_cold ()
{
  status "$1"
  [[ $ANSWER =~ \"hot\":\{\"bytes\":0, ]]
}
