#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# crgd(8) says what crgd does: its options, its exit codes, the commands of its admin socket.
. "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/functions.sh"
requires_daemon

page=$CRG_SRC_DIR/man/crgd.pod
cd "$tmp"

# same WHAT: the sorted lists 'program' and 'page' are equal
same ()
{
  [ -s program ] || fail "no $1 found in the program"
  diff program page >differ || { cat differ; fail "$1: '<' is missing in the page, '>' in the program"; }
}

"$CRGD" --help >help
grep -oE '^ +(-[a-zA-Z], +)?--[a-z-]+' help | grep -oE -- '--[a-z-]+' | sort -u >program
sed -n '/^=head1 OPTIONS/,/^=head1 EXIT/p' "$page" | grep '^=item' | grep -oE -- '--[a-z-]+' | sort -u >page
same options
grep -oE '^ +-[a-zA-Z],' help | tr -d ' ,' | sort -u >program
sed -n '/^=head1 OPTIONS/,/^=head1 EXIT/p' "$page" | grep '^=item' | grep -oE 'B<-[a-zA-Z]>' | tr -d 'B<>' | sort -u >page
same "short options"

sed -n '/^Exit codes:/,$p' help | tr '\n,' '  ' | grep -oE '[0-9]+ ' | tr -d ' ' | sort >program
sed -n '/^=head1 EXIT/,/^=head1 [^E]/s/^=item B<\([0-9]*\)>/\1/p' "$page" | sort >page
same "exit codes"
status=0
"$CRGD" --no-such-option >out 2>&1 || status=$?
[ $status = 2 ] || fail "a wrong option ends with $status"
status=0
"$CRGD" --config "$tmp/absent.conf" >out 2>&1 || status=$?
[ $status = 2 ] || fail "no configuration ends with $status"
[ "$("$CRGD" --version | grep -oE '[0-9]+\.[0-9.]+')" = "$("$CRGCTL" --version | grep -oE '[0-9]+\.[0-9.]+')" ]

sed -n '/^} commands\[\]/,/^};/s/^  { "\([a-z-]*\)", .*/\1/p' "$CRG_SRC_DIR/server/admin.c" | sort >program
sed -n '/^=head1 THE ADMIN/,/^=head1 SEE/p' "$page" | grep '^=item' | grep -oE 'B<[a-z-]+>' | tr -d 'B<>' | sort >page
same "admin commands"
