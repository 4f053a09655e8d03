#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# The manual says what crgctl does: each command, option, exit code and configuration key is in its
# page, and the page has no other; all pages pass podchecker and become man pages.
. "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/functions.sh"
requires podchecker pod2man

man=$CRG_SRC_DIR/man
cd "$tmp"

# same WHAT: the sorted lists 'program' and 'page' are equal
same ()
{
  [ -s program ] || fail "no $1 found in the program"
  diff program page >differ || { cat differ; fail "$1: '<' is missing in the page, '>' in the program"; }
}

# --- commands and their operands
"$CRGCTL" --help | sed -n '/^Commands:/,/^$/p' | sed '1d;$d' | awk '{ print $1 }' | sort >commands
cp commands program
sed -n '/^=head1 COMMANDS/,/^=head1 EXIT/s/^=head2 \([a-z-]*\).*/\1/p' "$man/crgctl.pod" | sort >page
same commands

# --- options of each command, and the global ones
global=$("$CRGCTL" --help | sed -n '/^Options/,/^$/p' | grep -o -- '--[a-z-]*' | sort -u)
echo "$global" >program
sed -n '/^=head1 OPTIONS OF EVERY/,/^=head1 COMMANDS/p' "$man/crgctl.pod" | grep '^=item' |
  grep -o -- '--[a-z-]*' | sort -u >page
same "global options"
while read -r command; do
  "$CRGCTL" help "$command" | sed -n '3,$p' | grep -o -- '^ .*--[a-z-]*' | grep -o -- '--[a-z-]*' | sort -u |
    comm -23 - <(echo "$global") >program
  sed -n "/^=head2 $command\$/,/^=head[12] /p; /^=head2 $command /,/^=head[12] /p" "$man/crgctl.pod" |
    sed '1b;/^=head/d' | grep '^=item' | grep -o -- '--[a-z-]*' | sort -u >page || :
  diff program page >differ || { cat differ; fail "options of $command: '<' is missing in the page"; }
  # the usage line is the heading and stands in the synopsis (is PREDICATE is described apart)
  usage=$("$CRGCTL" help "$command" | sed -n '1s/^usage: crgctl //p')
  grep -qxF "=head2 $usage" "$man/crgctl.pod" || [[ $command == @(is|check-conf) ]] ||
    fail "the heading of $command is not: $usage"
  grep -qF " crgctl $usage" "$man/crgctl.pod" || [ "$command" = check-conf ] || fail "not in the synopsis: $usage"
done <commands

# --- exit codes: number, name and meaning
"$CRGCTL" exit-codes | awk '{ print $1, $2 }' >program
[ "$(wc -l <program)" = 11 ]
sed -n '/^=head1 EXIT STATUS/,/^=head1 ENV/s/^=item \([0-9]*\) (\([a-z-]*\))/\1 \2/p' "$man/crgctl.pod" >page
same "exit codes"

# --- keys of both files
"$CRGCTL" check-conf --keys | sed 's/^\([a-z]*\)-NAME /[\1 NAME] /; t; s/^\([a-z]*\) /[\1] /' |
  sort >program
awk '/^=head2 \[/ { section = substr($0, 8) } /^=head1/ { section = "" }
     /^=item B</ && section != "" { key = $2; gsub(/B<|>/, "", key); print section, key }' \
  "$man/crgd.conf.pod" | sort >page
same "configuration keys"

# --- every page is good POD, and every page named in SEE ALSO lines of ours exists or is foreign
for pod in "$man"/*.pod; do
  podchecker -warnings -warnings "$pod" 2>podlog || { cat podlog; fail "$pod"; }
  pod2man --errors=die "$pod" >/dev/null
done
