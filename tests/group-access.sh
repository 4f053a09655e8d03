#!/bin/bash
# corosync, Fig. 4: two stores and a printer, each preferred on another of three nodes; they move one by one
# SPDX-License-Identifier: BSD-3-Clause
# timeout: 240
. "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/lab.sh"
lab_enter "$0" "$@"
. "$CRG_SRC_DIR/tests/functions.sh"
requires_daemon
requires jq nbdcopy cmp

# It prints where $tmp/nX/printing is, and jams where $tmp/nX/jam is.
cat >"$tmp/printer" <<'END'
#!/bin/sh
here=$CRG_RUN_DIR/..
case $1 in
  probe) [ ! -e "$here/jam" ] || { echo "paper jam"; exit 1; }; [ -e "$here/printing" ] || exit 3 ;;
  start) : >"$here/printing" ;;
  stop) rm -f "$here/printing" ;;
  config) echo "postscript-level = 2" ;;
  *) exit 2 ;;
esac
END
chmod 755 "$tmp/printer"

lab_up 3
lab_conf
lab_start 1 2 3
lab_iasps="a b"
crg_prepare
truncate -s 24M "$tmp/a.store" "$tmp/b.store"
{
  printf '[crg]\nname = payroll\nstrategy = access\n'
  for i in 1 2 3; do
    printf '[node n%d]\nid = %d\naddress = %s\nsite = rome\nrole = %s\n' $i $i "$(lab_address $i)" \
      "$([ $i = 1 ] && echo primary || echo backup)"
  done
  printf '[iasp a]\nsize = 16M\nstore.n1 = %s\nstore.n2 = %s\n' "$tmp/a.store" "$tmp/a.store" # n3 can't reach it
  printf '[iasp b]\nsize = 16M\nstore = %s\norder = n2, n3\n' "$tmp/b.store"
  printf '[script printer]\nagent = %s\norder = n3\ntimeout-ms = 5000\n' "$tmp/printer"
} >"$tmp/payroll.conf"
crgd_start 1 2 3
for i in 1 2 3; do wait_for 20 crgd_answers $i || { crg_logs; fail "no crgd on n$i"; }; done
lab_wait_members 3 1 2 3
wait_for 10 ctl 1 create "$tmp/payroll.conf" >"$tmp/create.log" 2>&1 || { cat "$tmp/create.log"; crg_logs; fail "create"; }
ctl 1 start payroll >"$tmp/start.log" 2>&1 || { cat "$tmp/start.log"; crg_logs; fail "start"; }

# are I "HOST:TENURE HOST:TENURE HOST:TENURE": of a, b and the printer, all served, as node I says
are ()
{
  [ "$(crg_field $1 '.crgs[0] | "\(.state) " + ([.iasps[] | "\(.production_node):\(.tenure):\(.serving)"] | join (" "))')" = \
    "active $(echo "$2" | sed 's/\([^ ]*\)/\1:true/g')" ]
}
await () { wait_for $1 are $2 "$3" || { crg_logs 25; fail "n$2 does not say: $3"; }; }
# prints_on I: there alone
prints_on ()
{
  local i
  for i in 1 2 3; do
    if [ $i = $1 ]; then [ -e "$tmp/n$i/printing" ] || return 1; else [ ! -e "$tmp/n$i/printing" ] || return 1; fi
  done
}
uri () { echo "nbd+unix:///$1?socket=$tmp/n$2/r/$1.nbd"; }

# Each resource begins where it is preferred.
for i in 1 2 3; do await 30 $i "n1:1 n2:1 n3:1"; done
wait_for 5 prints_on 3 || fail "it doesn't print on n3 alone"
subgroups () { [ "$(crg_field 2 '[.crgs[0].iasps[] | .subgroup | sort | join ("+")] | join (" ")')" = "n1+n2 n1+n2+n3 n1+n2+n3" ]; }
wait_for 10 subgroups || { crg_logs; fail "who is in which subgroup"; }
told () { [ "$(cat "$tmp/n1/state/printer.config" 2>/dev/null)" = "postscript-level = 2" ]; }
wait_for 10 told || fail "n1 was not told of the printer's configuration"
head -c 4M /dev/urandom >"$tmp/pattern"
nbdcopy "$tmp/pattern" "$(uri a 1)"
nbdcopy --flush "$tmp/pattern" "$(uri b 2)"
pid=$(cat "$tmp/n1/r/a.pid")

# A node dies: its resource alone moves, to the next of its own order.
node_down 2
await 30 1 "n1:1 n3:2 n3:1"
nbdcopy "$(uri b 3)" "$tmp/back"
cmp -n $((4 << 20)) "$tmp/back" "$tmp/pattern" || fail "b has lost what was written"
node_up 2
wait_for 20 crgd_answers 2 || fail "no crgd on n2"
for i in 1 2 3; do await 30 $i "n1:1 n3:2 n3:1"; done

# A switchover of one, to one that can.
expect_fail ctl 1 switchover payroll --to n2 2>"$tmp/err"
grep -q 'say which, with --iasp' "$tmp/err" || { cat "$tmp/err"; fail "which resource is to move?"; }
expect_fail ctl 1 switchover payroll --iasp a --to n3 2>"$tmp/err"
touch "$tmp/n1/jam"
must switchover ctl 1 switchover payroll --iasp b --to n2
await 20 3 "n1:1 n2:3 n3:1"
is_out () { [ "$(crg_field 2 '.crgs[0].iasps[2].subgroup | sort | join ("+")')" = "n2+n3" ]; }
wait_for 30 is_out || { crg_logs; fail "n1 has a paper jam, and is in the printer's subgroup"; }

# The printer's machine dies: n1 would be next and can't.
node_down 3
rm -f "$tmp/n3/printing"
await 40 1 "n1:1 n2:3 n2:2"
wait_for 5 prints_on 2 || fail "it doesn't print on n2 alone"
[ "$(cat "$tmp/n1/r/a.pid")" = "$pid" ] && is_running "$pid" || fail "a was restarted by what befell the others"
nbdcopy "$(uri a 1)" "$tmp/back"
cmp -n $((4 << 20)) "$tmp/back" "$tmp/pattern" || fail "a has lost what was written"

# One that leaves hands over what it hosts, one after the other, where another can.
rm "$tmp/n1/jam"
node_up 3
wait_for 20 crgd_answers 3 || fail "no crgd on n3"
for i in 1 3; do await 30 $i "n1:1 n2:3 n2:2"; done
ctl 2 leave --hand-over >"$tmp/leave" 2>&1 || { cat "$tmp/leave"; crg_logs; fail "leave --hand-over"; }
handed () { [ "$(crg_field 1 '.crgs[0] | .state + " " + ([.iasps[].tenure] | join (" "))')" = "active 1 4 3" ]; }
wait_for 20 handed || { cat "$tmp/leave"; crg_logs; fail "not handed over"; }
[ ! -e "$tmp/n2/printing" ] || fail "n2 prints on"
