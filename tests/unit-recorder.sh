#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# The recorder against real servers: a good disk passes, also one that is killed and started
# again; a damaged block, a lost write, a stale read and a second production are each caught.
# timeout: 180
. "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/functions.sh"
requires nbdkit
recorder=$CRG_BUILD_DIR/tests/recorder/recorder
blocks=128

# serve NAME: nbdkit's own file plugin on $tmp/NAME.img; sets SERVER
serve ()
{
  rm -f "$tmp/$1.sock"
  nbdkit -f -U "$tmp/$1.sock" file "$tmp/$1.img" >"$tmp/$1.log" 2>&1 </dev/null &
  SERVER=$!
  record_pid $SERVER
  wait_for 10 test -S "$tmp/$1.sock" || fail "nbdkit did not start"
}

new_image () { rm -f "$tmp/$1.img"; truncate -s 1M "$tmp/$1.img"; }

# verdict LOG ARGS...: exit code of check; its line is in $OUT
verdict ()
{
  local log=$1 status=0
  shift
  OUT=$("$recorder" check --log "$log" "$@" 2>"$tmp/check.err") || status=$?
  echo "$OUT"
  sed -n 1,3p "$tmp/check.err"
  return $status
}

expect_verdict ()
{
  local want=$1 status=0
  shift
  verdict "$@" || status=$?
  [ $status = "$want" ] || fail "check gave $status, want $want"
}

field () { sed -n "s/.*\"$1\":\([0-9]*\).*/\1/p" <<<"$2"; }

# --- a good disk; and one whose server is killed five times
new_image a
serve a
"$recorder" run --apart --log "$tmp/good.log" --uri "$(uri "$tmp/a.sock")" --blocks $blocks \
  --count 6000 --rate 3000 --seconds 60 >"$tmp/good.out" &
run=$!
record_pid $run
for i in 1 2 3 4 5; do
  wait_for 10 test -s "$tmp/good.log"
  "$recorder" wait --log "$tmp/good.log" --more 300 --timeout 5000 >/dev/null || break
  kill_pid $SERVER
  serve a
done
wait $run
cat "$tmp/good.out"
[ "$(field reconnects "$(cat "$tmp/good.out")")" -ge 4 ] || fail "no reconnects were recorded"
[ "$(field unknown "$(cat "$tmp/good.out")")" -ge 1 ] || too_slow "no write was in flight at a kill"
expect_verdict 0 "$tmp/good.log" --uri "$(uri "$tmp/a.sock")"
[ "$(field acknowledged "$OUT")" -gt 1000 ] || too_slow "too few writes to say anything"
[ "$(field flushed "$OUT")" -gt 500 ] || too_slow "too few flushed writes to say anything"
expect_verdict 0 "$tmp/good.log" --image "$tmp/a.img"

# --- a damaged block: one byte in the middle of a block that was written
cp "$tmp/a.img" "$tmp/damaged.img"
b=$(awk '$1 == "w" { print $4; exit }' "$tmp/good.log")
printf '\xff\x00\xff\x00' |
  dd of="$tmp/damaged.img" bs=1 seek=$((b * 4096 + 2000)) conv=notrunc status=none
expect_verdict 1 "$tmp/good.log" --image "$tmp/damaged.img"
[ "$(field damaged "$OUT")" = 1 ] || fail "the damaged block was not called so"

# --- two blocks swapped: both whole, both in the wrong place
cp "$tmp/a.img" "$tmp/swapped.img"
dd if="$tmp/a.img" of="$tmp/swapped.img" bs=4096 count=1 skip=1 seek=2 conv=notrunc status=none
dd if="$tmp/a.img" of="$tmp/swapped.img" bs=4096 count=1 skip=2 seek=1 conv=notrunc status=none
expect_verdict 1 "$tmp/good.log" --image "$tmp/swapped.img"
[ "$(field damaged "$OUT")" = 2 ] || fail "swapped blocks were not found"

# --- lost writes: blocks as they were in the middle of the run are put back
new_image b
serve b
"$recorder" run --apart --log "$tmp/lost.log" --uri "$(uri "$tmp/b.sock")" --blocks $blocks \
  --count 4000 --rate 2000 --seconds 60 >"$tmp/lost.out" &
run=$!
record_pid $run
wait_for 10 test -s "$tmp/lost.log"
"$recorder" wait --log "$tmp/lost.log" --more 1000 >/dev/null
kill -STOP $run
sleep 0.3
cp "$tmp/b.img" "$tmp/older.img"
kill -CONT $run
wait $run
expect_verdict 0 "$tmp/lost.log" --image "$tmp/b.img"
b=$( (cmp "$tmp/b.img" "$tmp/older.img" || :) | sed -n 's/.*byte \([0-9]*\).*/\1/p')
b=$(((b - 1) / 4096))
cp "$tmp/b.img" "$tmp/rolledback.img"
dd if="$tmp/older.img" of="$tmp/rolledback.img" bs=4096 count=1 skip="$b" seek="$b" \
  conv=notrunc status=none
expect_verdict 1 "$tmp/lost.log" --image "$tmp/rolledback.img"
[ "$(field lost "$OUT")" -ge 1 ] || fail "the lost write was not called so"
expect_verdict 1 "$tmp/lost.log" --image "$tmp/older.img"
[ "$(field lost_flushed "$OUT")" -ge 1 ] || fail "the lost and flushed writes were not called so"
# Unless all machines lost their power then; but no flushed one is.
{ cat "$tmp/lost.log"; } >"$tmp/power.log"
"$recorder" loss --log "$tmp/power.log"
expect_verdict 0 "$tmp/power.log" --image "$tmp/b.img"
expect_verdict 1 "$tmp/power.log" --image "$tmp/older.img"
[ "$(field lost_flushed "$OUT")" -ge 1 ] || fail "flushed writes that a power loss took were not called so"
# A block that goes back to what it was before the run.
cp "$tmp/b.img" "$tmp/zeroed.img"
b=$(awk '$1 == "W" && $4 == "ok" { split ($3, a, "."); ok[$3] = 1 }
         $1 == "w" { at[$3] = $4 } END { for (i in ok) { print at[i]; exit } }' "$tmp/lost.log")
dd if=/dev/zero of="$tmp/zeroed.img" bs=4096 count=1 seek="$b" conv=notrunc status=none
expect_verdict 1 "$tmp/lost.log" --image "$tmp/zeroed.img"
[ "$(field lost "$OUT")" -ge 1 ] || fail "a block lost from the first write on was not found"

# --- two productions: one connection in three is sent to a second server on a copy.  The
# history alone, without reading back, shows stale reads.
new_image c
serve c
cp "$tmp/c.img" "$tmp/d.img"
serve d
cat >"$tmp/where" <<END
#!/bin/bash
exec 9>"$tmp/where.lock"
flock 9
n=\$(cat "$tmp/where.n" 2>/dev/null || echo 0)
echo \$((n + 1)) >"$tmp/where.n"
# the first answer is for the reading of the initial content
case \$((n % 3)) in 2) echo "$(uri "$tmp/d.sock")" ;; *) echo "$(uri "$tmp/c.sock")" ;; esac
END
"$recorder" run --apart --log "$tmp/split.log" --uri-command "bash $tmp/where" --blocks $blocks \
  --connections 4 --count 3000 --seconds 30 --op-timeout 0
expect_verdict 1 "$tmp/split.log"
[ "$(field stale "$OUT")" -ge 1 ] || fail "no stale read was found"
expect_verdict 1 "$tmp/split.log" --image "$tmp/c.img"
[ "$(field lost "$OUT")" -ge 1 ] || fail "writes to the second server are not missed"

# --- a log that doesn't parse, or proves nothing, is no success
for bad in "W 12 nonsense" "W 12 0.1 ok" "w 12 0.1 99999999" "R 1 0.1 3.4x" "x"; do
  { cat "$tmp/lost.log"; echo "$bad"; } >"$tmp/bad.log"
  expect_verdict 2 "$tmp/bad.log" --image "$tmp/b.img"
done
grep -E '^(run|init)' "$tmp/lost.log" >"$tmp/empty.log"
expect_verdict 1 "$tmp/empty.log"
