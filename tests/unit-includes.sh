#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# The layers hold: pure cores include no system, common/ knows neither nbdkit nor the daemon,
# plugin/ and server/ know common/ and never each other; every header compiles alone.
. "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/functions.sh"

bad=0

# refuse PATTERN WHY FILE...: no #include in these files may match
refuse ()
{
  local pattern=$1 why=$2 hits
  shift 2
  [ $# -gt 0 ] || return 0
  hits=$(grep -nHE "^[[:space:]]*#[[:space:]]*include[[:space:]]*[<\"]($pattern)" "$@" || :)
  [ -z "$hits" ] || { printf '%s:\n%s\n' "$why" "$hits"; bad=1; }
}

# check_tree DIR: all the rules
check_tree ()
{
  cd "$1"
  shopt -s nullglob
  # A list of patterns: what is not there yet is not looked at.
  local cores=(common/{wire,super,claim,judge,crc32c,ident,util,limits}.[ch]
    server/{state,state_codec,place,group,group_*,record,join,cpg_frame,cpg_view}.[ch]
    plugin/{follow,repl,repl_*,copy,copy_*,track,track_*,hot,hot_*,mark,errmap,reserve}.[ch])
  local pure=() f
  for f in "${cores[@]}"; do
    [ -e "$f" ] || continue
    # A shell beside its core says so in its name.
    case $f in *_shell.[ch] | *_io.[ch] | *_posix.[ch]) continue ;; esac
    pure+=("$f")
  done
  refuse '(sys|linux|netinet|arpa|net)/|time\.h|pthread\.h|liburing\.h|unistd\.h|fcntl\.h|poll\.h|stdio\.h|jansson\.h|openssl/|qb/|nbdkit|libnbd|corosync/' \
    'a pure core includes a system' "${pure[@]}"
  refuse '(common/)?(util-posix|clock|jsonl|conf(_[a-z]+)?)\.h' 'a pure core includes a shell' "${pure[@]}"
  refuse 'nbdkit|server/|plugin/|admin/|(\.\./)' 'common/ knows an upper layer' common/*.[ch]
  refuse 'server/|admin/' 'plugin/ knows the daemon' plugin/*.[ch]
  refuse 'plugin/|admin/|nbdkit-plugin' 'server/ knows the plugin' server/*.[ch]
  refuse 'plugin/|server/|nbdkit-plugin' 'admin/ reaches into a lower layer' admin/*.[ch]
}

check_tree "$CRG_SRC_DIR"

# Every header compiles alone, so that none leans on what another happened to include.
flags=$(pkg-config --cflags nbdkit libnbd liburing libssl jansson libqb)
for f in "$CRG_SRC_DIR"/{common,plugin,server,admin}/*.h; do
  [ -e "$f" ] || continue
  # shellcheck disable=SC2086
  ${CC:-gcc} -std=gnu11 -D_GNU_SOURCE -I"$CRG_SRC_DIR" -I"$CRG_BUILD_DIR" -iquote "$CRG_SRC_DIR/common" $flags -fsyntax-only \
    -x c -include "$CRG_BUILD_DIR/config.h" "$f" || { echo "${f#"$CRG_SRC_DIR"/} does not compile alone"; bad=1; }
done
[ $bad = 0 ] || fail "see above"

# The test sees a breach: one of each kind, in a tree of its own.
breach ()
{
  rm -rf "$tmp/tree"
  mkdir -p "$tmp/tree"/{common,server,plugin,admin}
  echo "$2" > "$tmp/tree/$1"
  bad=0
  (check_tree "$tmp/tree"; exit $bad) >/dev/null && fail "not seen: $1 with $2" || :
}
breach common/wire.c '#include <sys/socket.h>'
breach common/super.h ' # include <time.h>'
breach common/anything.c '#include "server/state.h"'
breach common/anything.c '#include <nbdkit-plugin.h>'
breach server/group_core.c '#include <pthread.h>'
breach server/state.c '#include "common/clock.h"'
breach server/main.c '#include "plugin/repl.h"'
breach plugin/iasp.c '#include "server/state.h"'
breach plugin/repl.c '#include <liburing.h>'
