#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# timeout: 240
# Each numbered rule of nbd-crg-protocol(7) that lives in a core is reached by the simulators: the cores
# are compiled with gcov's counters and put before the libraries in crgsim, sim-group and sim-repl.
. "$(dirname "$0")/functions.sh"
requires perl gcov
[ -z "${CRG_SANITIZE-}" ] || skip "the sanitizers' build is not relinked"
[ -e "$CRG_BUILD_DIR/.libs/libcores.a" ] || skip "no static libraries in this build"

cores=()
for f in "$CRG_SRC_DIR"/common/judge.c "$CRG_SRC_DIR"/plugin/{copy,copy_track,hot,mark,repl*,track}.c "$CRG_SRC_DIR"/server/{group,group_[dhrw]*,lease,place,state,state_domain}.c; do
  [ -e "$f" ] && cores+=("${f#"$CRG_SRC_DIR"/}")
done
cd "$tmp"
compile ()
{
  local f o
  for f; do
    o=$(tr / - <<<"${f%.c}.o")
    ${CC:-cc} -std=gnu17 -O1 -w --coverage -I"$CRG_SRC_DIR" -I"$CRG_BUILD_DIR" -c -o "$o" "$CRG_SRC_DIR/$f" || return 1
  done
}
half=$((${#cores[@]} / 2))
compile "${cores[@]:0:half}" & first=$!
compile "${cores[@]:half}"
wait $first

libs=("$CRG_BUILD_DIR"/.libs/{libgroup,libcores,libcommon}.a)
objects=("$CRG_BUILD_DIR"/tests/sim/{check,clients,copyside,crgd,crgsim,digests,disk,faults,fences,maps,net,opening,plugin,prodside,recover,ring,shrink,supervise,world}.o)
${CC:-cc} --coverage -o crgsim ./*-*.o "${objects[@]}" "${libs[@]}"
${CC:-cc} --coverage -o sim-group ./*-*.o "$CRG_BUILD_DIR"/tests/sim-group.o "$CRG_BUILD_DIR"/.libs/libsimcluster.a "${libs[@]}"
${CC:-cc} --coverage -o sim-repl ./*-*.o "$CRG_BUILD_DIR"/tests/sim-repl.o "$CRG_BUILD_DIR"/.libs/libsimmirror.a "${libs[@]}"
# gcov's counters of two programs at once would be merged at their end, which is fine.
./sim-group "${CRG_SEED:-1}" 150 >sim-group.log && ./sim-repl "${CRG_SEED:-1}" 100 >sim-repl.log &
pid=$!
# What is rare is in histories without peers, units and recoveries; those have their own.
./crgsim --seed "${CRG_SEED:-1}" --seeds 950 --steps 5000 --without peer,access,recover >crgsim.log
./crgsim --seed "${CRG_SEED:-1}" --seeds 50 --steps 5000 --with peer,access,recover >>crgsim.log
grep good crgsim.log
wait $pid
gcov ./*-*.gcda >gcov.log 2>&1
"$CRG_SRC_DIR/tests/rules/count" "$CRG_SRC_DIR/man/nbd-crg-protocol.pod" "$CRG_SRC_DIR/tests/rules/elsewhere" ./*.c.gcov
