#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# tests/mutation/RESULTS.md has a row for each mutation of tests/mutation/table, in its order and with its
# words, and no other; each is noticed by somebody.
. "$(dirname "$0")/functions.sh"
requires perl
cd "$CRG_SRC_DIR/tests/mutation"

./apply table | sed 's,^\([^ ]* [^ ]* [^ ]*\)/unit ,\1 ,; s/^\([^ ]*\) [^ ]* \([^ ]*\) /\1 | \2 | /; s/^\([^ |]*\)\* /\1 /; s/^/| /' >"$tmp/there"
sed -n '/^| mutation/,$p' RESULTS.md | tail -n +3 >"$tmp/rows"
cut -d'|' -f1-4 "$tmp/rows" | sed 's/ *$//' >"$tmp/told"
diff -u "$tmp/there" "$tmp/told" || fail "RESULTS.md and the table differ: run tests/mutation/run --table"
# Each finds its text: a rule that nobody switches off any more is one that nobody tests.
sed -n 's/^== \([^ ]*\) .*/\1/p' table >"$tmp/names"
while read -r name; do
  ./apply table "$name" "$CRG_SRC_DIR" >/dev/null || echo "$name"
done <"$tmp/names" >"$tmp/stale"
[ ! -s "$tmp/stale" ] || fail "the table does not fit the code any more: $(tr '\n' ' ' <"$tmp/stale")"
[ -s "$tmp/there" ] || fail "no mutations"
awk -F'|' '$5 !~ /^ (crgsim|sim-group|sim-repl|join-exhaustive|unit-[a-z-]+) $/ || $8 !~ /[0-9]/ || $9 ~ /LIVES|^ *$/' "$tmp/rows" >"$tmp/bad"
[ ! -s "$tmp/bad" ] || { cat "$tmp/bad"; fail "nobody notices these"; }
echo "$(wc -l <"$tmp/rows") mutations, each noticed"
