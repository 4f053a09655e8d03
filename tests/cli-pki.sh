#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# crgctl init-pki: its files are good for OpenSSL's verifier, a TLS 1.3 handshake checks names both
# ways, nbdkit and libnbd take their directories, and nothing is overwritten or half made.
. "${CRG_SRC_DIR:-$(dirname "$0")/..}/tests/functions.sh"
requires openssl nbdkit nbdinfo

cd "$tmp"

# status WANT COMMAND...: the command exits with WANT; its output is in $tmp/out
status ()
{
  local want=$1 got=0
  shift
  "$@" >"$tmp/out" 2>&1 || got=$?
  [ "$got" = "$want" ] || { cat "$tmp/out"; fail "exit $got, not $want: $*"; }
}

status 0 "$CRGCTL" init-pki pki p1=127.0.0.1,::1 c1 --client app1 --client app2 --days 90

# --- the files are there, the keys are private
for f in ca.pem ca.key client-ca.pem client-ca.key \
    {p1,c1}/{ca.pem,nbd/ca-cert.pem,nbd/server-cert.pem,nbd/server-key.pem} \
    {p1,c1}/nbd-client/{ca-cert.pem,client-cert.pem,client-key.pem} \
    p1/p1.pem p1/p1.key c1/c1.pem c1/c1.key \
    clients/{app1,app2}/{ca-cert.pem,client-cert.pem,client-key.pem}; do
  [ -s "pki/$f" ] || fail "no $f"
done
while read -r mode f; do
  [ "$mode" = 600 ] || fail "$f has mode $mode"
done < <(find pki -name '*key*' -printf '%m %p\n')
[ -z "$(find pki -name '.*')" ] || fail "something temporary is left"

# --- what OpenSSL says of them
verify () { openssl verify -x509_strict -CAfile "$@"; }
verify pki/ca.pem -purpose sslserver pki/p1/p1.pem
verify pki/ca.pem -purpose sslclient pki/p1/p1.pem
verify pki/ca.pem -purpose sslserver pki/p1/nbd/server-cert.pem
verify pki/client-ca.pem -purpose sslclient pki/clients/app1/client-cert.pem
verify pki/client-ca.pem -purpose sslclient pki/p1/nbd-client/client-cert.pem
expect_fail verify pki/client-ca.pem pki/p1/p1.pem
expect_fail verify pki/ca.pem pki/clients/app1/client-cert.pem
expect_fail verify pki/client-ca.pem -purpose sslserver pki/clients/app1/client-cert.pem
verify pki/ca.pem -verify_hostname p1 pki/p1/p1.pem
verify pki/ca.pem -verify_ip 127.0.0.1 pki/p1/p1.pem
expect_fail verify pki/ca.pem -verify_hostname c1 pki/p1/p1.pem
expect_fail verify pki/ca.pem -verify_ip 127.0.0.2 pki/p1/p1.pem
now=$(date +%s)
verify pki/ca.pem -attime $((now + 89 * 86400)) pki/p1/p1.pem
expect_fail verify pki/ca.pem -attime $((now + 91 * 86400)) pki/p1/p1.pem
verify pki/ca.pem -attime $((now - 1800)) pki/p1/p1.pem
openssl x509 -in pki/p1/p1.pem -noout -text | grep -q 'ASN1 OID: prime256v1'
[ "$(openssl x509 -in pki/p1/p1.pem -noout -serial)" != "$(openssl x509 -in pki/c1/c1.pem -noout -serial)" ]

# --- a handshake: TLS 1.3, both certificates, both names
free_port
openssl s_server -accept "127.0.0.1:$PORT" -tls1_3 -cert pki/p1/p1.pem -key pki/p1/p1.key \
  -CAfile pki/ca.pem -Verify 1 -verify_return_error -quiet >server.log 2>&1 </dev/null &
record_pid $!
handshake_quick ()
{
  timeout 10 openssl s_client -connect "127.0.0.1:$PORT" -tls1_3 -cert "pki/$1/$1.pem" \
    -key "pki/$1/$1.key" -CAfile pki/ca.pem -verify_return_error -verify_hostname "$2" -brief \
    </dev/null >client.log 2>&1
}
wait_for 10 handshake_quick c1 p1 || { cat client.log; fail "no handshake"; }
grep -q 'Protocol version: TLSv1.3' client.log
grep -q '^Verification: OK' client.log
expect_fail handshake_quick c1 c1
grep -qi 'hostname mismatch\|verify failed' client.log || { cat client.log; fail "refused for another reason"; }

# --- nbdkit and libnbd take the directories: clients under the clients' CA, and only they
free_port
truncate -s 1M disk
nbdkit -f -i 127.0.0.1 -p "$PORT" --tls=require --tls-verify-peer --tls-certificates="$PWD/pki/p1/nbd" \
  file disk >nbdkit.log 2>&1 </dev/null &
record_pid $!
nbd () { timeout 10 nbdinfo --size "nbds://$1:$PORT/?tls-certificates=$PWD/$2" >nbd.log 2>&1; }
wait_for 10 nbd 127.0.0.1 pki/clients/app1 || { cat nbd.log nbdkit.log; fail "app1 can't attach"; }
[ "$(cat nbd.log)" = 1048576 ]
nbd 127.0.0.1 pki/p1/nbd-client || { cat nbd.log; fail "the daemon can't check its own export"; }
# A node's mirror certificate is not one of a client.
mkdir other
cp pki/ca.pem other/ca-cert.pem
cp pki/c1/c1.pem other/client-cert.pem
cp pki/c1/c1.key other/client-key.pem
expect_fail nbd 127.0.0.1 other
# The name is checked: this server is 127.0.0.1 (by its addresses), not "localhost".
expect_fail nbd localhost pki/clients/app1

# --- nothing is overwritten, and nothing is half made
before=$(find pki -type f -exec sha256sum {} + | sort)
same () { [ "$(find pki -type f -exec sha256sum {} + | sort)" = "$before" ]; }
status 8 "$CRGCTL" init-pki pki new1 p1
grep -q 'pki/p1 is there; --force makes it new' out
status 8 "$CRGCTL" init-pki pki new1 --client app1
status 9 "$CRGCTL" init-pki pki new1 'Bad_Name'
status 9 "$CRGCTL" init-pki pki new1 new1
status 9 "$CRGCTL" init-pki pki new1=127.0.0.300
status 9 "$CRGCTL" init-pki pki new1= --client x
status 9 "$CRGCTL" init-pki pki clients
status 9 "$CRGCTL" init-pki pki new1 --days 0
status 9 "$CRGCTL" init-pki pki new1 --client ../x
status 9 "$CRGCTL" init-pki pki
same || fail "a refused command changed something"
touch plain
status 1 "$CRGCTL" init-pki plain p1

# --- more nodes under the same CA; --force makes one anew, and keeps the CA
status 0 "$CRGCTL" init-pki pki w1 --client app3
verify pki/ca.pem -verify_hostname w1 pki/w1/w1.pem
verify pki/client-ca.pem pki/clients/app3/client-cert.pem
ca=$(sha256sum <pki/ca.pem) old=$(sha256sum <pki/p1/p1.pem) other=$(sha256sum <pki/c1/c1.pem)
status 0 "$CRGCTL" init-pki pki p1 --force
[ "$ca" = "$(sha256sum <pki/ca.pem)" ]
[ "$old" != "$(sha256sum <pki/p1/p1.pem)" ]
[ "$other" = "$(sha256sum <pki/c1/c1.pem)" ]
verify pki/ca.pem pki/p1/p1.pem
# A CA whose key was taken away can't sign, and says so; nothing is made.
mv pki/ca.key ca.key
status 1 "$CRGCTL" init-pki pki x1
grep -q "not a CA's certificate and its key" out
[ ! -e pki/x1 ]
mv ca.key pki/ca.key

# --- what check-conf says of a node's certificates
cat >crgd.conf <<EOF
[node]
name = p1
tls-certificates = $PWD/pki/p1
EOF
status 0 "$CRGCTL" check-conf crgd.conf
grep -q "certificates valid for 18[0-9][0-9] days" out || { cat out; fail "how long are they valid?"; }
bad_certs ()
{
  status 1 "$CRGCTL" check-conf crgd.conf
  grep -q "$1" out || { cat out; fail "wanted: $1"; }
}
cp -a pki/p1 keep
restore () { rm -rf pki/p1; cp -a keep pki/p1; }
rm pki/p1/p1.key; bad_certs 'p1.key: there is no such file; make it with'; restore
chmod 644 pki/p1/p1.key; bad_certs 'p1.key: a private key that others may read'; restore
cp pki/c1/c1.key pki/p1/p1.key; bad_certs 'p1.key: not the key of p1.pem'; restore
cp pki/c1/c1.pem pki/p1/p1.pem; cp pki/c1/c1.key pki/p1/p1.key
bad_certs "p1.pem: does not name 'p1'"; restore
cp pki/client-ca.pem pki/p1/ca.pem; bad_certs 'p1.pem: not good under ca.pem'; restore
echo garbage >pki/p1/p1.pem; bad_certs 'p1.pem: not a certificate in PEM'; restore
rm -r pki/p1/nbd; bad_certs 'nbd/ca-cert.pem: there is no such file'; restore
cp pki/p1/nbd/server-cert.pem pki/p1/nbd-client/client-cert.pem
cp pki/p1/nbd/server-key.pem pki/p1/nbd-client/client-key.pem
bad_certs 'nbd-client/client-cert.pem: not good under nbd/ca-cert.pem'; restore
# Expired: made under our CA with openssl, of yesterday.
printf 'subjectAltName=DNS:p1\n' >ext
openssl req -new -key pki/p1/p1.key -subj /CN=p1 -out csr 2>/dev/null
mkdir demo && touch demo/index && echo 01 >demo/serial
cat >ca.cnf <<EOF
[ca]
default_ca = c
[c]
database = demo/index
serial = demo/serial
new_certs_dir = demo
default_md = sha256
policy = p
[p]
commonName = supplied
EOF
openssl ca -batch -config ca.cnf -in csr -out pki/p1/p1.pem -cert pki/ca.pem -keyfile pki/ca.key \
  -extfile ext -startdate 20200101000000Z -enddate 20200102000000Z -notext >ca.log 2>&1 || { cat ca.log; fail "openssl ca"; }
bad_certs 'p1.pem: has expired; renew it with'; restore
status 0 "$CRGCTL" check-conf crgd.conf
