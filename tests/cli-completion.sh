#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Completion in bash, driven as bash drives it: commands, options, predicates, files, and the names
# that a daemon gives.
. "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/functions.sh"
requires perl
cd "$tmp"
. "$CRG_SRC_DIR/admin/crgctl"
export CRGCTL_SOCKET=$tmp/sock

# complete_line WORD...: what bash would offer for the last one, in $offer
complete_line ()
{
  COMP_WORDS=("$CRGCTL" "$@")
  COMP_CWORD=$#
  _crgctl
  offer=" ${COMPREPLY[*]-} "
}
has () { local w; for w; do [[ $offer == *" $w "* ]] || fail "'$w' is not in:$offer"; done; }
hasnt () { local w; for w; do [[ $offer != *" $w "* ]] || fail "'$w' is in:$offer"; done; }

complete -p crgctl | grep -q _crgctl
complete_line ''
has init-pki create start end status switchover uri is trace delete help --socket
hasnt complete --to
complete_line st
[ "$offer" = " start status " ]
complete_line status --
has --json --watch --count --timeout
hasnt --to --force
complete_line help sw
[ "$offer" = " switchover " ]
complete_line is ''
has in-sync active serving production
touch payroll.conf
complete_line create pay
has payroll.conf
complete_line -s "$tmp/none" start ''
hasnt payroll

cat >answer <<'EOF'
{"ok":true,"node":"p1","crgs":[{"name":"grp","nodes":[{"name":"p1"},{"name":"c1"}],"iasps":[{"name":"disk1"},{"name":"disk2"}]}]}
EOF
"$CRG_SRC_DIR/tests/answerer" sock answer >answerer.log 2>&1 &
record_pid $!
wait_for 10 grep -qsx ready answerer.log
complete_line start ''
has grp
hasnt disk1 p1
complete_line uri disk
[ "$offer" = " disk1 disk2 " ]
cp answer good
echo '{"ok":true,"crgs":[{"iasps":[{"size":1},7],"nodes":[{}]},null,{"name":"late"}]}' >answer # of another release
complete_line is in-sync ''
has late
mv good answer
complete_line is in-sync ''
has grp disk1
complete_line switchover grp --to ''
has p1 c1
hasnt grp --wait
complete_line switchover grp ''
hasnt grp
has --to
