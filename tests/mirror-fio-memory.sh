#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# mirror-fio on stores in memory, which the engine thread writes itself and not through its ring.
# timeout: 180
stores=/dev/shm
. "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/mirror-fio.sh"
