#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Fuzzes what crgd hears: its admin socket, its plugin's control socket, the other nodes' crgds; and what
# crgctl hears of it.
# timeout: 300
. "$(dirname "$0")/functions.sh"
# What would be started, or reached, is not to be.
under="unshare -n"
[ "$(id -u)" = 0 ] || under="unshare -Urn"
$under true 2>/dev/null || skip "needs a network namespace of its own"
export FUZZ_UNDER=$under FUZZ_LIBS="jansson libqb libnbd openssl" FUZZ_LEAST=100
# Else it keeps all that it freed, up to a bound that the fuzzer takes for a leak.
export ASAN_OPTIONS=quarantine_size_mb=64:${ASAN_OPTIONS-}
# The fuzzer looks into what reads requests; the rest of crgd is beside it, but what is corosync's.
into=(server/admin.c server/query.c server/verify.c server/cluster.c server/cluster_part.c server/pluginctl.c
  server/supervise_ctl.c server/member_plugin.c server/status.c server/explain.c
  common/jsonl.c admin/status.c admin/verify.c)
mapfile -t beside < <(cd "$CRG_SRC_DIR" && ls server/*.c common/*.c |
  grep -vE '^server/(main|task|engine_corosync|corosync_|cpg_)' | grep -vxF -f <(printf '%s\n' "${into[@]}"))
"$CRG_SRC_DIR/tests/fuzz/run" fuzz-admin -- "${into[@]}" -- "${beside[@]}"
exit
