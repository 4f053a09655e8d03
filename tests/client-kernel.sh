#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# crgctl attach in a User-Mode Linux guest: ext4 on /dev/nbd0 with a writer that fsyncs, through the
# death of the production plugin, of its host, of its site, a switchover, the death of the proxy and
# of its keeper, and a partition of 10 s.  No error, no read-only mount, everything there; the
# longest pause of each is printed.  (Y8 in real life: the kernel sends again what the proxy has.)
# timeout: 300
if [ "${CRG_OWN_NET-}" != yes ]; then
  unshare -n true 2>/dev/null || { echo "needs a network namespace of its own"; exit 77; }
  "$(dirname "$0")/uml/boot" --fetch || exit
  export CRG_OWN_NET=yes
  exec unshare -n bash "$0"
fi
. "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/functions.sh"
. "$CRG_SRC_DIR/tests/cluster.sh"
. "$CRG_SRC_DIR/tests/client-functions.sh"
requires ip insmod perl jq
requires_root
[ -z "${CRG_SANITIZE-}" ] || skip "sanitized programs don't run in the guest"
ip link set lo up
ip tuntap add dev tap0 mode tap 2>/dev/null || skip "needs tap devices"
ip addr add 10.99.0.1/24 dev tap0
ip link set tap0 up
# On lo, so that the nodes reach each other whatever becomes of the guest's wire.
for i in 11 12 13 14 15; do ip addr add 10.99.0.$i/32 dev lo; done

SIZE=$((64 << 20))
EXPORT=tcp::10809
CLIENT_PORT=10808
ADDRESS=10.99.0.
cluster_begin
wait_in_sync 30
mkdir "$tmp/out" "$tmp/tls"
cp "$CLIENT_TLS"/*.pem "$tmp/tls/"
chmod -R a+rX "$tmp"

CRG_UML_SECONDS=280 CRG_UML_OUT=$tmp/out "$CRG_SRC_DIR/tests/uml/boot" --tap "$CRG_SRC_DIR/tests/uml/crg-guest" \
  "$CRGCTL" "$(command -v nbdkit)" "$CRG_PLUGIN" "$CLIENT_NODES" "$tmp/tls" &
guest=$!
record_pid $guest
number=0
# A guest that doesn't end by itself.
end_guest () { kill -KILL $(grep -lsz "^CRG_UML_OUT=$tmp/out\$" /proc/[0-9]*/environ 2>/dev/null | cut -d/ -f3) 2>/dev/null || :; }
cleanup_fn end_guest

# ask WORD: the guest's answer in ANSWER
ask ()
{
  number=$((number + 1))
  echo "$number $1" >"$tmp/out/want.new"
  mv "$tmp/out/want.new" "$tmp/out/want"
  wait_for "${2:-60}" eval "grep -qs '^$number ' '$tmp/out/got' || not_running $guest" || { show_logs; fail "the guest does not answer: $1"; }
  is_running $guest || { show_logs; fail "the guest has ended"; }
  ANSWER=$(cat "$tmp/out/got")
}

# pause_of WHAT: writes go on; how long they had stopped
pause_of ()
{
  local ms count=0 i
  # Two questions later everything that waited has been answered.
  ask pause
  read -r _ ms count <<<"$ANSWER"
  for i in 1 2; do
    ask pause
    read -r _ i count <<<"$ANSWER"
    [ "$i" -le "$ms" ] || ms=$i
  done
  printf '%-28s longest pause %5d ms, %d records\n' "$1" "$ms" "$count"
}

wait_for 90 eval "[ -e '$tmp/out/working' ] || not_running $guest"
[ -e "$tmp/out/working" ] || {
  status=0
  wait $guest || status=$?
  [ $status != 77 ] || skip "no User-Mode Linux kernel"
  show_logs
  fail "the guest ended with $status"
}
pause_of "nothing"

host=$(production_node)
kill -KILL "$(plugin_pid "$host")"
pause_of "production plugin killed"

kill_node "$host"
pause_of "its host killed"
start_node "$host"
wait_in_sync 60
ask pause

site=$(production_site)
victims=()
for n in "${NODE_NAMES[@]}"; do [ "${NODE_SITE[$n]}" != "$site" ] || victims+=("$n"); done
kill_node "${victims[@]}"
pause_of "its site killed"
for n in "${victims[@]}"; do start_node "$n"; done
wait_in_sync 60
ask pause

# (a copy may have to be filled once more, after an unclean end that was noticed late)
move "$(host_of "$site")"
pause_of "switchover"

ask proxy
pause_of "proxy killed"
ask keeper 90
pause_of "keeper killed, proxy hangs"

# Silence: what the nodes send goes to a card that isn't there.
ip neigh replace 10.99.0.2 lladdr 02:00:00:00:00:99 dev tap0 nud permanent
sleep 10
ip neigh del 10.99.0.2 dev tap0
pause_of "partition of 10 s"

echo "$((number + 1)) stop" >"$tmp/out/want"
status=0
wait $guest || status=$?
[ $status = 0 ] || { show_logs; fail "the guest ended with $status"; }
wait_in_sync 60
same_copies
e2fsck -fn "${STORE[milan]}" >"$tmp/fsck" 2>&1 || { cat "$tmp/fsck"; fail "fsck of the copy"; }
