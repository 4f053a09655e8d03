#!/bin/bash
# corosync, 2 + 2 + 1 nodes, all of it run by an ordinary user: created, mirrored, failed over, read back
# SPDX-License-Identifier: BSD-3-Clause
# timeout: 180
CRG_SRC_DIR=$(cd "${CRG_SRC_DIR:-$(dirname "$0")/..}" && pwd)
CRG_BUILD_DIR=$(cd "${CRG_BUILD_DIR:-$CRG_SRC_DIR/build}" && pwd)
export CRG_SRC_DIR CRG_BUILD_DIR
if [ "$(id -u)" = 0 ] && [ -z "${LAB_INSIDE-}" ]; then
  command -v setpriv >/dev/null || { echo "needs setpriv"; exit 77; }
  user=(setpriv --reuid=65534 --regid=65534 --clear-groups --no-new-privs)
  "${user[@]}" test -r "$CRG_BUILD_DIR/.libs/nbdkit-iasp-plugin.so" -a -x "$CRG_BUILD_DIR/crgd" -a -r "$0" ||
    { echo "an ordinary user can't read $CRG_BUILD_DIR"; exit 77; }
  dir=$(mktemp -d /tmp/crg-user-XXXXXX)
  chown 65534:65534 "$dir"
  trap 'rm -rf "$dir"' EXIT
  trap 'exit 143' TERM INT
  code=0
  # In the background, so that a signal ends the test and not only this shell.
  TMPDIR=$dir "${user[@]}" bash "$0" &
  trap 'kill $!; wait $!; exit 143' TERM INT
  wait $! || code=$?
  exit $code
fi
. "$CRG_SRC_DIR/tests/lab.sh"
lab_enter "$0" "$@"
. "$CRG_SRC_DIR/tests/functions.sh"
requires_daemon
requires jq

grep -q '^ *0 *[1-9][0-9]* *1$' /proc/self/uid_map || { cat /proc/self/uid_map; fail "this is no ordinary user"; }
crg_up
recorder_start 120
crg_wait 20 active 1 2 3 4 5
h=$(crg_host)
kill_hard "$(plugin_pid $h)"
recorder_goes_on 20 100
crg_wait 20 active 1 2 3 4 5
must switchover ctl $h switchover payroll
recorder_goes_on 20 100
crg_wait 20 active 1 2 3 4 5
h=$(crg_host)
node_down $h
recorder_goes_on 20 100
echo "n$h -> n$(crg_host), as $(awk '{ print "user " $2 }' /proc/self/uid_map)"
node_up $h
crg_wait 40 active 1 2 3 4 5
recorder_judge
