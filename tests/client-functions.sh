# SPDX-License-Identifier: BSD-3-Clause
# Words for tests of clients that follow production.  Source it after cluster.sh.
CRG_PLUGIN=$CRG_BUILD_DIR/.libs/nbdkit-crg-plugin.so

# start_proxy NAME PARAMETER...: the plugin crg on the socket $tmp/NAME.nbd, its status on
# $tmp/NAME.status, its log in $tmp/NAME.log.  Sets PROXY_PID, and PROXY_PARAMETERS for the next
# start_proxy without any.
start_proxy ()
{
  local name=$1
  shift
  [ $# = 0 ] || PROXY_PARAMETERS=("$@")
  rm -f "$tmp/$name.nbd"
  "$CRG_NBDKIT" -f -t 64 -U "$tmp/$name.nbd" "$CRG_PLUGIN" status="$tmp/$name.status" "${PROXY_PARAMETERS[@]}" \
    >>"$tmp/$name.log" 2>&1 </dev/null &
  PROXY_PID=$!
  record_pid "$PROXY_PID"
  wait_for 20 eval "[ -S '$tmp/$name.nbd' ] || not_running $PROXY_PID" || fail "the proxy makes no socket"
  is_running "$PROXY_PID" || { cat "$tmp/$name.log"; fail "the proxy ended at start"; }
}

# proxy_uri NAME
proxy_uri () { echo "nbd+unix:///payroll?socket=$tmp/$1.nbd"; }

# proxy_status NAME JQ
proxy_status ()
{
  perl -MIO::Socket::UNIX -e 'my $s = IO::Socket::UNIX->new (Peer => $ARGV[0]) or exit 1; print <$s>' \
    "$tmp/$1.status" | jq -r "$2"
}
proxy_has () { [ "$(proxy_status "$1" "$2")" = "$3" ]; }

# move TO: production.  What was asked for is asked again if the view was lost under it, and may be done by then.
moved () { ctl w1 switchover payroll --to "$1" --wait 40 >"$tmp/move.log" 2>&1 || grep -q 'is the production host already' "$tmp/move.log"; }
move () { wait_for 60 moved "$1" || { show_logs; cat "$tmp/move.log"; fail "switchover to $1"; }; }
