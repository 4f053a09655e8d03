#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# crgctl check-conf and create refuse bad files with file, line and reason before any daemon is
# asked, and warn where votes are unwise.
. "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/functions.sh"
unset CRGCTL_SOCKET
cd "$tmp"

status ()
{
  local want=$1 got=0
  shift
  "$@" >out 2>err </dev/null || got=$?
  [ "$got" = "$want" ] || { cat out err; fail "exit $got, not $want: $*"; }
}
says () { grep -qF -- "$1" err || { cat err; fail "stderr lacks: $1"; }; }

cat >good.conf <<'EOF'
[crg]
name = payroll

[node p1]
id = 1
site = rome
role = primary
address = 192.0.2.11

[node c1]
id = 2
site = milan
role = backup
address = 192.0.2.21

[node w1]
id = 3
role = replicate
address = 192.0.2.31

[iasp payroll]
size = 64M
store = /dev/vg0/payroll
export = tcp::10809
EOF

status 0 "$CRGCTL" check-conf good.conf
grep -qx "good.conf: good; CRG 'payroll', 3 nodes, 1 IASPs" out
[ ! -s err ] || { cat err; fail "a warning about a good file"; }
status 0 "$CRGCTL" create --dry-run good.conf
grep -q 'nothing was created' out
grep -q 'on c1 .*/dev/vg0/payroll' out
# The example of the manual is good.
sed -n '/^=head1 EXAMPLE/,/^=head1 VOTES/s/^ //p' "$CRG_SRC_DIR/man/crgd.conf.pod" >manual.conf
status 0 "$CRGCTL" check-conf manual.conf
# So is the one of the README.
sed -n '/^       \[crg\]/,/^       mirror-port/s/^       //p' "$CRG_SRC_DIR/README.md" >readme.conf
status 0 "$CRGCTL" check-conf readme.conf

# bad SED LINE REASON: good.conf changed so is refused by both commands, with line and reason
bad ()
{
  sed "$1" good.conf >bad.conf
  ! cmp -s good.conf bad.conf || fail "no change: $1"
  status 9 "$CRGCTL" check-conf bad.conf
  says "bad.conf:$2: $3"
  # 9 and not 6: nobody is asked.
  status 9 "$CRGCTL" -s "$tmp/absent" create bad.conf
  says "crgctl create: bad.conf:$2: $3"
}
bad 's/^store/stroe/' 23 "unknown key 'stroe' in [iasp payroll]; did you mean 'store'?"
bad 's/^size = 64M/size = 64Q/' 22 "bad size '64Q' in [iasp payroll]; allowed: bytes with a suffix K, M, G or T"
bad 's/^id = 2/id = 1/' 11 "node 'c1' has id 1, which node 'p1' has; ids are unique"
bad 's/^\[node c1\]/[node p1]/' 10 "there are two [node p1]; the first is in line 4"
bad 's/^\[iasp payroll\]/[iasp Pay Roll]/' 21 "a section has a kind and at most one name"
bad 's/^\[iasp payroll\]/[iasps payroll]/' 21 "unknown section [iasps]; did you mean 'iasp'?"
bad 's/192.0.2.21/192.0.2.256/' 14 "address '192.0.2.256' of node 'c1' is neither an IPv4 nor an IPv6 address"
bad 's/192.0.2.21/192.0.2.11/' 14 "address '192.0.2.11' of node 'c1' is already given to node 'p1'"
bad 's/^role = backup/role = replicate/' 12 "replicate 'c1' has a site"
bad 's/^role = backup/role = peer/' 12 "site 'milan' has no node that can host a copy"
bad 's/^role = primary/role = primary\nvotes = many/' 8 "bad votes 'many' in [node p1]; allowed: a number from 0 to 100"
bad 's/^role = .*/&\nvotes = 0/' 1 "no node has a vote"
bad 's/^export = .*/mirror-port = 70000/' 24 "bad mirror-port '70000' in [iasp payroll]; allowed: a number from 1 to 65535"
bad 's/^export = .*/export = http:/' 24 "export 'http:' is not of a known form; allowed: unix:"
bad 's/^store = .*//' 21 "IASP 'payroll' has no store on node 'p1'"
bad 's/^name = .*//' 1 "[crg] has no 'name'; it is required"
bad '1s/.*/crg/' 1 "neither [section] nor key = value"
sed '1,3d' good.conf >bad.conf
status 9 "$CRGCTL" check-conf bad.conf
says "bad.conf: there is no [crg] section"

# Advice: legal, and said.
sed '/^\[node w1\]/,/^$/d' good.conf >two.conf
status 0 "$CRGCTL" check-conf two.conf
says "two.conf: warning: two nodes with equal votes: the loss of either stops service; give the preferred site's node 2 votes"
sed 's/^role = primary/&\nvotes = 2/' two.conf >fine.conf
status 0 "$CRGCTL" check-conf fine.conf
[ ! -s err ]

# crgd.conf: the kind of file is seen by its sections; the certificates are looked for.
printf '[node]\nname = p1\ntls-certificates = %s/none\n' "$tmp" >crgd.conf
status 1 "$CRGCTL" check-conf crgd.conf
says "crgd.conf is well formed, but $tmp/none/ca.pem: there is no such file; make it with 'crgctl init-pki'"
printf '[node]\nname = p1\n[lease]\nlease-ms = 1000\n' >crgd.conf
status 9 "$CRGCTL" check-conf crgd.conf
says "crgd.conf:4: lease-ms 1000 is too short for token-ms 1000 (L1); allowed: at least 1250"
printf '[engine]\ntype = paxos\n' >crgd.conf
status 9 "$CRGCTL" check-conf crgd.conf
says "crgd.conf:2: bad type 'paxos' in [engine]; allowed: local"
printf '[node]\nname = p1\nport = 3\n' >crgd.conf
status 9 "$CRGCTL" check-conf crgd.conf
says "crgd.conf:3: unknown key 'port' in [node]; allowed: name, state-dir"

# What can't be read.
head -c 300000 /dev/zero | tr '\0' '#' >long.conf
status 9 "$CRGCTL" check-conf long.conf
says "long.conf: longer than 262144 bytes"
printf '[crg]\nname = a\0b\n' >nul.conf
status 9 "$CRGCTL" check-conf nul.conf
says "nul.conf:2: a control character"
status 0 "$CRGCTL" check-conf <(cat good.conf)
