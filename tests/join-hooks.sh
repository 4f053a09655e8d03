#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# hooks.d: which events come, in which order and with what; a script that hangs is killed and holds
# nothing up; one that somebody else may write is not run.
# timeout: 180
. "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/functions.sh"
. "$CRG_SRC_DIR/tests/cluster.sh"
requires_daemon
SUSPEND_MS=1000
HOOK_MS=600

# $tmp/NODE/crgd.conf is made by cluster_begin, which the hooks have to precede.
cat >"$tmp/10-log" <<'END'
#!/bin/sh
# One line an event, in one write.
printf '%s\n' "$1 $CRG_NODE $CRG_PRODUCTION_NODE $CRG_IS_PRODUCTION $CRG_TENURE [${CRG_PREVIOUS_NODE-}${CRG_IASP-}${CRG_COPY_SITE+ $CRG_COPY_SITE}${CRG_ABSENT-}]" >>"$CRG_RUN_DIR/../events"
[ "$1" = "$CRG_EVENT" ] && [ "$CRG_NAME" = payroll ] && [ -z "${CRG_SECRET-}" ] || echo bad >>"$CRG_RUN_DIR/../events"
echo "told of $1" >&2
END
chmod 755 "$tmp/10-log"
export CRG_SECRET=1
for n in p1 p2 c1 c2 w1; do
  mkdir -p "$tmp/$n/hooks.d"
  cp "$tmp/10-log" "$tmp/$n/hooks.d/"
done
cat >"$tmp/p1/hooks.d/20-hangs" <<'END'
#!/bin/sh
sleep 600 &
echo $! >>"$CRG_RUN_DIR/../hung"
wait
END
printf '#!/bin/sh\ntouch "$CRG_RUN_DIR/../not-to-be-run"\n' >"$tmp/p1/hooks.d/30-writable"
cp "$tmp/p1/hooks.d/30-writable" "$tmp/p1/hooks.d/40-editor~"
chmod 755 "$tmp"/p1/hooks.d/20-hangs "$tmp/p1/hooks.d/40-editor~"
chmod 777 "$tmp/p1/hooks.d/30-writable"
cluster_begin
wait_in_sync 30

# has NODE LINE: its hooks were told so
has () { grep -qxF "$2" "$tmp/$1/events"; }
# told NODE LINE: at once, or soon
told ()
{
  wait_for 10 has "$1" "$2" || { tail -n 20 "$tmp/$1/events" "$tmp/$1/crgd.log"; fail "the hooks of $1 were not told: $2"; }
}
told p1 "start p1 p1 yes 1 []"
told p2 "end p2 p1 no 1 []"
told w1 "resync-done w1 p1 no 1 [payroll milan]"

# The hook that hangs is killed with what it has started, and the next event comes to its turn.
hung () { [ "$(wc -l <"$tmp/p1/hung" 2>/dev/null)" -ge "${1-1}" ]; }
wait_for 10 hung || fail "the second hook was not run"
gone () { not_running "$(tail -n 1 "$tmp/p1/hung")"; }
wait_for 10 gone || fail "what the hook has started goes on"
wait_for 5 grep -q 'hook 20-hangs for .*: it did not end within 600 ms and was killed' "$tmp/p1/crgd.log" || fail "the log does not say so"
wait_for 5 grep -q '30-writable: this hook is not run: others than its owner may write' "$tmp/p1/crgd.log" || fail "a hook that anybody may write"
grep -q 'payroll: hook 10-log: told of start' "$tmp/p1/crgd.log" || fail "what a hook says is not in the log"

# A switchover is not held up by it.
before=$(now_ms)
must switchover ctl p1 switchover payroll --to c1
[ $(($(now_ms) - before)) -lt 5000 ] || too_slow "the switchover took $(($(now_ms) - before)) ms"
told p1 "end p1 c1 no 2 []"
told c1 "start c1 c1 yes 2 []"
told p2 "switchover p2 c1 no 2 [p1]"
wait_in_sync 30

# A copy is lost, and back.
m=$(host_of rome)
h=$(plugin_pid "$m")
[ "$m" = p1 ] && o=p2 || o=p1
kill_node $o
kill_node $m
told c1 "suspend c1 c1 yes 2 [payroll rome]"
told c1 "partition c1 c1 yes 2 [p1 p2]"
start_node p1
start_node p2
wait_in_sync 30
told c1 "resync-done c1 c1 yes 2 [payroll rome]"
told c1 "restore c1 c1 yes 2 []"

# A failover; the one that was lost is told on its return that it is not production.
>"$tmp/c1/events"
kill_node c1
another () { [ "$(production_node)" != c1 ] && is_serving; }
wait_for 20 another || { show_logs; fail "nobody takes the place of c1"; }
h=$(production_node)
told w1 "failover w1 $h no 3 [c1]"
told "$h" "start $h $h yes 3 []"
start_node c1
told c1 "end c1 $h no 3 []"

# Leaving: the end is told before crgd is gone.
ctl "$h" leave >/dev/null || fail "leave"
wait_for 15 not_running "${NODE_PID[$h]}" || fail "crgd of $h goes on"
has "$h" "end $h $h no 3 []" || { tail -n 5 "$tmp/$h/events"; fail "it left without telling its hooks"; }
! grep -h '^bad' "$tmp"/*/events || fail "a hook was called wrongly"
[ ! -e "$tmp/p1/not-to-be-run" ] || fail "a hook was run that must not be"
sort -k1,1 "$tmp/w1/events" | cut -d' ' -f1 | uniq -c | tr '\n' ' '
