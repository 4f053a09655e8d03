#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Fuzzes the configuration files and the JSON of a definition.
. "$(dirname "$0")/functions.sh"
"$CRG_SRC_DIR/tests/fuzz/run" fuzz-conf -- common/conf.c common/conf_check.c common/conf_json.c common/ini.c common/ident.c
exit
