#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# The sources keep the house style, as far as a machine can see it: licence line at the top, no tabs, no
# trailing blanks, no endless lines, nothing left to do, .clang-format is one.
. "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/functions.sh"

shopt -s lastpipe # so that refuse can set $bad
bad=0

# refuse WHY: the lines on stdin are breaches
refuse ()
{
  local lines
  lines=$(cat)
  [ -z "$lines" ] || { printf '%s:\n%s\n' "$1" "$lines"; bad=1; }
}

# check_tree DIR
check_tree ()
{
  cd "$1"
  local sources scripts f
  mapfile -t sources < <(find common server plugin admin tests bench -name '*.[ch]' | sort)
  mapfile -t scripts < <(find . -maxdepth 1 -type f -name run-tests; find tests bench -name '*.sh' | sort)
  [ ${#sources[@]} -gt 0 ] || return 0

  for f in "${sources[@]}" "${scripts[@]}"; do
    head -5 "$f" | grep -q 'SPDX-License-Identifier: BSD-3-Clause' || echo "$f"
  done | refuse 'no licence line'
  { grep -nP '\t' "${sources[@]}" || :; } | refuse 'a tab'
  { grep -nE '[[:blank:]]+$' "${sources[@]}" "${scripts[@]}" || :; } | refuse 'blanks at the end of a line'
  # A message may be longer than a line of code.
  { grep -nE '^.{121,}$' "${sources[@]}" | grep -v '"' || :; } | refuse 'a line over 120 columns'
  { grep -nwE 'TODO|FIXME|XXX' "${sources[@]}" "${scripts[@]}" | grep -v '^tests/doc-style' || :; } |
    refuse 'something left to do'
  { grep -nE '#[[:space:]]*define[[:space:]]+NDEBUG|-DNDEBUG' "${sources[@]}" || :; } |
    refuse 'asserts switched off'
}

check_tree "$CRG_SRC_DIR"
[ $bad = 0 ] || fail "see above"
if command -v clang-format >/dev/null; then
  echo 'int x;' | clang-format --style="file:$CRG_SRC_DIR/.clang-format" >/dev/null ||
    fail ".clang-format is not valid"
fi

# The test sees a breach of each kind.
breach ()
{
  rm -rf "$tmp/tree"
  mkdir -p "$tmp/tree"/{common,server,plugin,admin,tests,bench}
  printf '/* SPDX-License-Identifier: BSD-3-Clause */\n' >"$tmp/tree/common/good.c"
  bad=0
  (check_tree "$tmp/tree"; exit $bad) >/dev/null || fail "a good tree is refused"
  printf '%b\n' "$1" >"$tmp/tree/common/bad.c"
  (check_tree "$tmp/tree"; exit $bad) >/dev/null && fail "not seen: $1" || :
}
spdx='/* SPDX-License-Identifier: BSD-3-Clause */\n'
breach 'int x;'
breach "$spdx\\tint x;"
breach "${spdx}int x; "
breach "$spdx/* $(printf 'x%.0s' {1..120}) */"
breach "$spdx/* TO""DO */"
breach "$spdx#define NDEBUG 1"
