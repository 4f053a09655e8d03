#!/bin/bash
# corosync, 2 + 2 + 1 nodes: at the moment of a cut a node joins, so that the other side has its view before the cut-off production host hears of anything; three IASPs move as one, in the backup order (takeover = order), at the cut, a switchover and a death; never two serve
# SPDX-License-Identifier: BSD-3-Clause
# timeout: 180
. "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/lab.sh"
lab_enter "$0" "$@"
. "$CRG_SRC_DIR/tests/functions.sh"
requires_daemon
requires jq perl

# seen I N: ms of the day at which node I's crgd first saw a view of N members since `mark`; 0: not yet
mark=(0 1 1 1 1 1)
seen ()
{
  tail -n +${mark[$1]} "$tmp/n$1/crgd.log" |
    perl -ne 'next unless /payroll: view [0-9a-f]+ with '$2' members/;
      /^\S+ +\d+ (\d+):(\d+):(\d+)\.(\d+) / or next; print ((($1 * 60 + $2) * 60 + $3) * 1000 + $4); $done = 1; last;
      END { print "0" unless $done }'
}
has_seen () { [ "$(seen $1 $2)" != 0 ]; }

# Neighbours in the order are at different sites: the site decides nothing.
lab_iasps="payroll bonus taxes"
lab_order=([1]=0 [3]=1 [2]=2 [4]=3)
hosts= # of production, one after the other

# all_on I: production of the three IASPs, and answers from them
all_on ()
{
  [ "$(crg_field 5 '[.crgs[0].iasps[].production_node] | unique | join(" ")')" = n$1 ] ||
    { crg_logs; fail "production is on $(crg_field 5 '[.crgs[0].iasps[].production_node] | join(" ")'), not on n$1"; }
  hosts+=" $1"
}

# one_by_one: nobody answered a request that began when another node had answered for any of the
# three; prints the hosts' numbers in the order of their first answers
one_by_one ()
{
  perl -e '
    for my $log (@ARGV) {
      my (%node, %began);
      open my $f, "<", $log or die "$log: $!";
      while (<$f>) {
        if (m,^c \d+ (\d+) connected to \S*/n(\d+)/r/,) { $node{$1} = $2 }
        elsif (/^[wrf] (\d+) (\S+)/) { $began{$2} = $1 }
        elsif (/^[WRF] (\d+) ((\d+)\.\S+) (\S+)/ && $4 ne "err") {
          push @answers, [$1, $began{$2}, $node{$3}, "$log $2"];
        }
      }
    }
    for (sort { $a->[0] <=> $b->[0] } @answers) {
      my ($at, $began, $n, $what) = @$_;
      push @order, $n and $first{$n} = $at unless defined $first{$n};
      die "n$n answered $what, begun after the first answer of n$order[-1]\n"
        if $n != $order[-1] && $began > $first{$order[-1]};
    }
    print "@order\n"' "$tmp"/history "$tmp"/history-bonus "$tmp"/history-taxes
}

crg_up "takeover = order"
recorder_start 120
h=$(crg_host)
[ $h = 1 ] || fail "production is on n$h"
hosts=1
node_down 5
wait_for 10 has_seen 3 4 || fail "n3 has no view of four"
sleep 1
recorder_goes_on 10 50

for i in 1 2 3 4; do mark[i]=$(($(wc -l <"$tmp/n$i/crgd.log") + 1)); done
node_up 5 &
up=$!
sleep 0.1 # its corosync comes up and is about to join
lab_cut "1 2" "3 4 5"
wait $up
wait_for 15 has_seen 3 3 || { crg_logs; fail "n3 has no view of three"; }
wait_for 15 has_seen $h 2 || { crg_logs; fail "n$h has not heard of the cut"; }
lead=$(($(seen $h 2) - $(seen 3 3)))
recorder_goes_on 30 50
all_on 3
echo "the other side knew $lead ms before the production host; answers from n$(crg_host)"

# n1, the last in the order now, comes back when n2 has the mirror copies.
node_down 1
lab_heal "1 2" "3 4 5"
crg_wait 40 active 2 3 4 5
node_up 1
crg_wait 40 active 1 2 3 4 5
recorder_goes_on 10 50

# F5: the order is 3 2 4 1.  The next is n2, though n4 has the same store as n3.
node_down 3
recorder_goes_on 20
all_on 2
node_up 3
crg_wait 40 active 1 2 3 4 5
must switchover ctl 5 switchover payroll
recorder_goes_on 10
all_on 4
crg_wait 40 active 1 2 3 4 5
recorder_judge
order=$(one_by_one) || fail "two nodes answered"
[ "$order" = "$hosts" ] || fail "answers came from n$order, not from n$hosts"
