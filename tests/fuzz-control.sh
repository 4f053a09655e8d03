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
"$CRG_SRC_DIR/tests/fuzz/run" fuzz-control -- plugin/control.c plugin/prodverify.c plugin/role.c common/jsonl.c \
  -- plugin/{copy,copyside,digest,engine,gate,hot,log,mapw,mark,metaw,mlink,params,prod,repl,repl_link,repl_resync}.c \
  plugin/{repl_stable,repl_status,ring,session,sop,store,storefault,storemeta,track,verify,work}.c \
  common/{clock,crc32c,ident,query,super,tlslink,wire}.c
exit
