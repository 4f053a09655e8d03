#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# The recorder through the plugin crg while production is killed, stopped, cut off and moved: no
# error, no connection lost, no request without an answer; everything answered is there, and the
# history is linearizable.  CRG_FAULTS says how often (soak: 100).
# timeout: 600
export CRG_THROUGH_PROXY=yes CRG_FAULTS=${CRG_FAULTS:-5} CRG_SEED=${CRG_SEED:-3}
exec bash "$(dirname "$0")/mirror-faults.sh"
