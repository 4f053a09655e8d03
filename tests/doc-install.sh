#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# What "make install" puts where, what the units and programs look for, and what README and manual say of it
# agree; and tests/install-packages names what configure looks for.
. "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/functions.sh"
requires_daemon
requires pod2man make
cd "$tmp"

# The directories of this build, as make knows them.
printf 'include Makefile\nthe-places: ; @echo $(sysconfdir) $(prefix) $(systemdsystemunitdir) $(sbindir)\n' |
  make -s -C "$CRG_BUILD_DIR" -f - the-places | tail -n 1 >places
read -r etc prefix units sbin <places
case $prefix in /usr | /usr/local) [ "$etc" = /etc ] || fail "the prefix is $prefix and the configuration in $etc" ;; esac
make -s -C "$CRG_BUILD_DIR" install "DESTDIR=$tmp/root" >install.log 2>&1 || { tail install.log; fail "make install"; }
for dir in hooks.d attach; do
  [ "$(stat -c %a "root$etc/nbd-crg/$dir")" = 755 ] || fail "$etc/nbd-crg/$dir"
done

# What a unit, a program or a page names has to be there, or to have its place.
units=root$units
[ "$(ls "$units")" = "$(cd "$CRG_BUILD_DIR/units" && ls ./*.service | sed 's,^./,,')" ] || { ls "$units"; fail "the units"; }
for path in $(sed -n 's,^Exec[A-Za-z]*=-*\(/[^ ]*\).*,\1,p' "$units"/*.service); do
  [ -x "root$path" ] || [ "$path" = /bin/true ] || fail "a unit starts $path, which is not installed"
done
sed -n 's,^\(ConditionPathExists\|EnvironmentFile\)=\([^-].*\),\2,p; s,^Exec.*-\(c\|-conf\) \([^ ]*\).*,\2,p' "$units"/*.service | sort -u >looked
[ "$(tr '\n' ' ' <looked)" = "$etc/nbd-crg/attach/%i $etc/nbd-crg/crgd.conf " ] || { cat looked; fail "the units look elsewhere"; }
"root$sbin/crgd" --help | grep -qF "[$etc/nbd-crg/crgd.conf]" || fail "crgd looks elsewhere"
for page in "$CRG_SRC_DIR"/man/*.pod; do
  page=$(find root -name "$(basename "$page" .pod).[0-9]")
  [ -s "$page" ] || fail "a page is not installed"
  # As it is read, a word a line; man-db need not be here.
  sed 's/\\fI\|\\fR\|\\fB\|\\&//g; s/\\-/-/g' "$page" | tr -s ' (=' '\n' | sed 's/[.,:;)/]*$//' | grep '^/.*/\(nbd-crg\|nbdkit/plugins\)/' || :
done | grep -v '^/\(var/lib\|run\)/' | sort -u >named
[ -s named ] || fail "no page names a place"
while read -r path; do
  case $path in
    "$etc"/nbd-crg/*) : ;;
    *) [ -e "root$path" ] || { cat named; fail "the manual says $path, which is not installed"; } ;;
  esac
done <named
[ -e "root$(grep -m 1 nbdkit-crg-plugin named)" ] || { cat named; fail "the plugins"; }
sed -n 's,^ ln -s \(.*\) \(.*\)$,\1 \2,p' "$CRG_SRC_DIR/man/nbd-crg-hooks.pod" >link
[ "$(wc -l <link)" = 1 ] || fail "the takeover address is linked otherwise"
if [ "$prefix $etc" = "/usr/local /etc" ]; then
  read -r from to <link
  [ -x "root$from" ] && ln -s "$from" "root$to" || fail "ln -s $from $to"
  # The README names the places of a default ./configure.
  for path in $(grep -o '/etc/nbd-crg/[a-z.]*[a-z]' "$CRG_SRC_DIR/README.md" | sort -u); do
    case $path in */pki | */client | */crgd.conf | */hooks.d) ;; *) fail "README: $path is nobody's" ;; esac
  done
fi

# Each library that configure looks for comes with "install-packages build", but what only tests use.
command -v dpkg >/dev/null || exit 0
for list in build engine; do sed -n "/^$list=/,/\"\$/p" "$CRG_SRC_DIR/tests/install-packages"; done >packages
for module in $(tr '\n' ' ' <"$CRG_SRC_DIR/configure.ac" | grep -o 'PKG_CHECK_MODULES(\[[A-Z]*\], \[[^]]*' |
  sed 's/.*\[//; s/>= [0-9.]*//g' | grep -v cmocka); do
  pc=$(pkg-config --variable=pcfiledir "$module")/$module.pc
  package=$(dpkg -S "$pc" 2>/dev/null | cut -d: -f1) || { echo "$module: no package has it here"; continue; }
  grep -qw -- "$package" packages ||
    fail "'install-packages build' doesn't bring $package, which has $module"
done
grep -q '^  build) want="$build" optional="$engine"' "$CRG_SRC_DIR/tests/install-packages" || fail "'build' is something else"
