#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# timeout: 120
# What a copy holds is kept before it is resynchronised, outlives a resynchronisation that is never
# finished, and goes when the copy is filled; without it there is no resynchronisation.  Here with a hook;
# mirror-snapshot-reflink runs it where files can be reflinked.
. "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/functions.sh"
. "$CRG_SRC_DIR/tests/pair-functions.sh"
requires qemu-io openssl cmp jq
requires_plugin
requires_test_build
cd "$tmp"
chmod 755 "$tmp"
mirror_size=$((32 << 20))
reflink=${CRG_REFLINK-no}
keys=(suspend-timeout-ms=1000 snapshot-before-resync=on)
if [ "$reflink" = yes ]; then
  kept=$tmp/n1/store.before-resync
else
  kept=$tmp/kept
  cat >hook <<END
#!/bin/bash
echo "\$1 \$CRG_NAME \$CRG_IASP \$CRG_NODE \$CRG_SITE" >>"$tmp/hook.log"
[ ! -e "$tmp/broken" ] || { echo "no space for it"; exit 9; }
case \$1 in
  make) cp --sparse=always "\$CRG_STORE" "$kept.new" && sync "$kept.new" && ln "$kept.new" "$tmp/made" && mv "$kept.new" "$kept" ;;
  drop) rm -f "$kept" ;;
esac
END
  chmod 755 hook
  keys+=(snapshot-hook="$tmp/hook")
fi

back ()
{
  kill_pid "$CTLPID_n1"
  cp n0/record n1/record
  mirror_node n1 1 "${keys[@]}"
  mirror_ctl n1
  tell n1 "\"cmd\":\"role\",\"role\":\"mirror\",\"tenure\":1,\"peers\":[\"n0\",\"n1\"],\"record\":$(cat n0/record)"
}

left_set () { ! in_set n0; }
in_again () { in_set n0 && in_state n0 mirroring; }
snapshot () { status n1; [ "$(jq -r .mirror.snapshot.state <<<"$ANSWER")" = "$1" ]; }
store_failed () { status n1; [ "$(jq .mirror.failed <<<"$ANSWER")" = true ]; }

# A resynchronisation that is not finished: the older state is there until the next one is.
unfinished ()
{
  local dump
  faults n1 "fail write EIO after 100"
  back
  wait_for 20 store_failed || fail "the copy's store does not fail: $ANSWER"
  snapshot kept || fail "nothing is kept: $ANSWER"
  kill_pid "$PID_n1"
  ! cmp -s -n $mirror_size before n1/store || fail "nothing was overwritten"
  cmp -n $mirror_size before "$kept" || fail "what is kept is not what was there"
  dump=$("$CRGCTL" iasp dump "$kept" --json) || fail "what is kept can't be dumped: $dump"
  [ "$(jq -c '[.. | objects | select(has("flags")).flags - ["direct"]]' <<<"$dump")" = '[["fork"],["fork"]]' ] ||
    fail "it is not just a fork: $dump"
  faults n1
  back
}

# It can't be kept: the copy is not touched, production says why, and goes on by itself.
refused ()
{
  touch broken
  back
  wait_for 10 says_why || fail "production does not say why: $ANSWER"
  snapshot failed || fail "the copy does not say so: $ANSWER"
  [ "$(jq .store.unusable <<<"$ANSWER")" = false ] || fail "the copy's store is unusable: $ANSWER"
  cmp -n $mirror_size before n1/store || fail "the copy was written to"
  rm broken
}
says_why () { status n0; grep -q "can't be kept before it is resynchronised (snapshot-before-resync): " <<<"$ANSWER"; }

faults n1
mirror_pair "${keys[@]}"
io "write -P 1 0 24M" flush
[ ! -e "$kept" ] || fail "the first fill has kept an empty store"
kill_pid "$PID_n1"
wait_for 8 left_set || fail "the copy is still in the set: $ANSWER"
io "write -P 2 2M 12M" flush
cp --sparse=always n1/store before
if [ "$reflink" = yes ]; then unfinished; else refused; fi
wait_for 20 in_again || fail "not in the set again: $ANSWER"
wait_for 10 test ! -e "$kept" || fail "the copy is filled, and what was kept is still there"
snapshot none || fail "the copy does not say so: $ANSWER"
same_data || fail "the stores differ"
[ "$reflink" = yes ] || cmp -n $mirror_size before made || fail "the hook has kept something else: $(cat hook.log)"
