#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# What the test build adds (--enable-test-hooks) is not in a release: compiled without it the sources
# give the same warnings (none), call nothing of it, and hold none of its words.
. "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/functions.sh"
requires nm strings pkg-config
cd "$tmp"

# compile DIR: everything that may know of the test build, with the config.h in DIR
compile ()
{
  local f flags
  flags=$(pkg-config --cflags nbdkit liburing libssl jansson libqb)
  mkdir -p "$1/objects"
  for f in "$CRG_SRC_DIR"/{plugin,common}/*.c $(grep -l CRG_TEST "$CRG_SRC_DIR"/{server,admin}/*.c || :); do
    echo "$f"
  done | sort -u | xargs -P 2 -I{} sh -c \
    '${CC:-gcc} -std=gnu11 -Wall -Wno-maybe-uninitialized -Werror -O1 -D_GNU_SOURCE -DSYSCONFDIR="\"/etc\"" \
      -I"$0" -I"$CRG_SRC_DIR" -iquote "$CRG_SRC_DIR/common" '"$flags"' -c {} \
      -o "$0/objects/$(basename "$(dirname {})")-$(basename {} .c).o"' "$1" || fail "it does not compile"
}
# hooks DIR: what of the test build is in it
hooks ()
{
  { nm -A "$1"/objects/*.o | grep -i 'storefault\|[^e]fault_' || :
    for f in "$1"/objects/*.o; do strings -a "$f"; done | grep -x 'CRG_[A-Z_]*\|%s\.faults\|%s\.cache\|iasp_test_build=yes' || :; } |
    # names of source files and types don't count
    grep -v 'storefault\.c\|\.o: *[0-9a-f]* a ' || :
}

mkdir release test
grep -v '^#define CRG_TEST' "$CRG_BUILD_DIR/config.h" >release/config.h
{ cat release/config.h; echo '#define CRG_TEST 1'; } >test/config.h
compile release
found=$(hooks release)
[ -z "$found" ] || fail "a release holds: $found"
# The same looks see them where they are.
compile test
found=$(hooks test)
for word in storefault_begin storefault_open CRG_BOOT_ID %s.faults iasp_test_build=yes; do
  grep -qF "$word" <<<"$found" || fail "this test does not see $word: $found"
done
