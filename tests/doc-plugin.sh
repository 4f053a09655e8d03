#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# The plugin's page names each of its parameters, commands, events and error codes, and no other.
. "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/functions.sh"
requires podchecker
requires_plugin
cd "$tmp"
page=$CRG_SRC_DIR/man/nbdkit-iasp-plugin.pod
src=$CRG_SRC_DIR/plugin

same () # WHAT
{
  [ -s program ] || fail "no $1 found in the program"
  diff program page >differ || { cat differ; fail "$1: '<' is missing in the page, '>' in the program"; }
}

podchecker "$page" >pod.out 2>&1 || { cat pod.out; fail "podchecker"; }
sed -n 's/^  \[K_[A-Z_]*\] = "\([a-z-]*\)",$/\1/p' "$src/params.c" | grep -v ^fault- | sort >program
grep -o '^=item B<[a-z-]*=' "$page" | sed 's/.*<//; s/=//' | sort -u >page
same parameters
"$CRG_NBDKIT" --help "$PLUGIN" >help
for key in $(cat program); do
  grep -q -- "\b$key=" help || fail "--help does not name $key="
done
{ grep -o 'strcmp (cmd, "[a-z]*")' "$src/control.c" | grep -o '"[a-z]*"' | tr -d '"'; } | sort -u >program
sed -n '/^=head2 Commands/,/^=head2 Events/s/^=item C<\([a-z]*\)>.*/\1/p' "$page" | sort -u >page
same commands
grep -ho '"event", "[a-z-]*"' "$src"/*.c | sed 's/.*, //' | tr -d '"' | sort -u >program
sed -n '/^=head2 Events/,/^=head2 Codes/s/^=item C<\([a-z-]*\)>.*/\1/p' "$page" | sort -u >page
same events
{ grep -hoP 'control_error \(e, [^,]+, [^,]+, "\K[a-z-]+' "$src"/*.c
  grep -hoP '(code = |return )"\K[a-z-]+(?=";)' "$src"/{role,opening}.c
  grep -oP '\[JUDGE_[A-Z_]+\] = "\K[a-z-]+' "$CRG_SRC_DIR/common/judge.c"; } | sort -u >program
sed -n '/^=head2 Codes/,/^=head1 ERRORS/p' "$page" | grep '^=item' | grep -o 'C<[a-z-]*>' |
  sed 's/C<//; s/>//' | sort -u >page
same "error codes"

# The plugin crg: its parameters in --help and in its page, its rules in page, header and code.
page=$CRG_SRC_DIR/man/nbdkit-crg-plugin.pod
podchecker "$page" >pod.out 2>&1 || { cat pod.out; fail "podchecker"; }
"$CRG_NBDKIT" --help "$CRG_BUILD_DIR/.libs/nbdkit-crg-plugin.so" | sed -n 's/^\([a-z-]*\)=<.*/\1/p' | sort -u >program
grep -o '^=item B<[a-z-]*=' "$page" | sed 's/.*<//; s/=//' | sort -u >page
same "parameters of crg"
grep -o '"[a-z-]*") == 0' "$src/crg.c" | grep -o '"[a-z-]*"' | tr -d '"' | sort -u >page
same "parameters that crg reads"
grep -o '^ \*   Y[0-9]' "$src/follow.h" | grep -o 'Y[0-9]' | sort -u >program
grep '^=item Y' "$page" | grep -o 'Y[0-9]' | sort -u >page
same "rules of crg"
for rule in $(cat program); do
  grep -q "\b$rule\b" "$src/follow.c" "$src"/crg_*.c || fail "$rule is not named in the code"
  grep -q "\b$rule\b" "$CRG_SRC_DIR"/tests/{unit-follow.c,client-programs.sh} || fail "$rule has no test"
done
sed -n 's/^  \[CRG_[A-Z]*\] = //p; s/\[CRG_[A-Z]*\] = //gp' "$src/crg_state.c" | grep -o '"[a-z]*"' | tr -d '"' | sort -u >program
sed -n 's/^ state  *//p' "$page" | tr -s ', ' '\n' | grep -v '^or$' | sort -u >page
same "states of crg"
