#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Fuzzes the plugin's control socket.
# timeout: 300
. "$(dirname "$0")/functions.sh"
# A controller may name any address: nothing can be reached from here.
under="unshare -n"
[ "$(id -u)" = 0 ] || under="unshare -Urn"
$under true 2>/dev/null || skip "needs a network namespace of its own"
cd "$tmp"
"$CRG_SRC_DIR/tests/certs" ca pki
"$CRG_SRC_DIR/tests/certs" node pki n0
export FUZZ_PKI=$tmp/pki FUZZ_UNDER=$under FUZZ_LIBS="jansson liburing openssl" FUZZ_LEAST=100
# The fuzzer looks into what reads commands; the rest of the plugin is beside it.
into=(plugin/control.c plugin/prodverify.c plugin/{role,opening}.c common/jsonl.c)
mapfile -t beside < <(cd "$CRG_SRC_DIR" && ls plugin/*.c common/*.c |
  grep -vE '^plugin/(crg|follow|plugin)' | grep -vxF -f <(printf '%s\n' "${into[@]}"))
"$CRG_SRC_DIR/tests/fuzz/run" fuzz-control -- "${into[@]}" -- "${beside[@]}"
exit
