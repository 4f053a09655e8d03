#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Fuzzes the admin socket.
# timeout: 300
. "$(dirname "$0")/functions.sh"
# What would be started, or reached, is not to be.
under="unshare -n"
[ "$(id -u)" = 0 ] || under="unshare -Urn"
$under true 2>/dev/null || skip "needs a network namespace of its own"
export FUZZ_UNDER=$under FUZZ_LIBS="jansson libqb libnbd openssl" FUZZ_LEAST=100
# Else it keeps all that it freed, up to a bound that the fuzzer takes for a leak.
export ASAN_OPTIONS=quarantine_size_mb=64:${ASAN_OPTIONS-}
"$CRG_SRC_DIR/tests/fuzz/run" fuzz-admin -- server/admin.c server/query.c server/verify.c common/jsonl.c \
  -- server/{agent,cluster,cluster_node,cluster_part,engine_local,events,explain,fence,group,group_domain,group_host}.c \
  server/{group_msg,group_request,group_status,group_want,guard,hooks,hub,hub_frame,lease,log,member,member_agent}.c \
  server/{member_plugin,notify,place,pluginctl,probe,process,script,state,state_codec,state_domain,statefile,status}.c \
  server/{stop,supervise,supervise_ctl,task,tell}.c \
  common/{certs,clock,conf,conf_check,conf_json,crc32c,ident,ini,query,signature,super,tlslink,wire}.c
exit
