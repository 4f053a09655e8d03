/* SPDX-License-Identifier: BSD-3-Clause */
/* TLS of the mirror link, both ends in one program over memory: what flows, and each way in
 * which a peer is refused.  Certificates are made here. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include "common/tlslink.h"
#include "tests/tap.h"

#define DAY (24 * 3600L)

static char dir[] = "/tmp/unit-tlslink.XXXXXX";

static const char *
path (const char *name, const char *ext)
{
  static char buf[8][256];
  static unsigned i;
  char *p = buf[i++ % 8];

  snprintf (p, sizeof buf[0], "%s/%s.%s", dir, name, ext);
  return p;
}

static void
add_ext (X509 *x, X509 *issuer, int nid, const char *value)
{
  X509V3_CTX ctx;
  X509_EXTENSION *e;

  X509V3_set_ctx (&ctx, issuer, x, NULL, NULL, 0);
  e = X509V3_EXT_conf_nid (NULL, &ctx, nid, value);
  if (e == NULL)
    abort ();
  X509_add_ext (x, e, -1);
  X509_EXTENSION_free (e);
}

static X509 *
make_cert (const char *file, const char *cn, const char *san, EVP_PKEY **key, X509 *issuer,
           EVP_PKEY *issuer_key, long from, long to)
{
  static long serial = 1;
  X509 *x = X509_new ();
  X509_NAME *name;
  FILE *f;

  *key = EVP_EC_gen ("P-256");
  X509_set_version (x, 2);
  ASN1_INTEGER_set (X509_get_serialNumber (x), serial++);
  X509_gmtime_adj (X509_getm_notBefore (x), from);
  X509_gmtime_adj (X509_getm_notAfter (x), to);
  name = X509_get_subject_name (x);
  X509_NAME_add_entry_by_txt (name, "CN", MBSTRING_ASC, (const unsigned char *) cn, -1, -1, 0);
  X509_set_issuer_name (x, issuer ? X509_get_subject_name (issuer) : name);
  X509_set_pubkey (x, *key);
  if (issuer == NULL) {
    add_ext (x, x, NID_basic_constraints, "critical,CA:TRUE");
    add_ext (x, x, NID_key_usage, "critical,keyCertSign,cRLSign");
  }
  else {
    add_ext (x, issuer, NID_basic_constraints, "critical,CA:FALSE");
    add_ext (x, issuer, NID_ext_key_usage, "serverAuth,clientAuth");
  }
  if (san)
    add_ext (x, issuer ? issuer : x, NID_subject_alt_name, san);
  X509_sign (x, issuer ? issuer_key : *key, EVP_sha256 ());

  f = fopen (path (file, "pem"), "w");
  PEM_write_X509 (f, x);
  fclose (f);
  f = fopen (path (file, "key"), "w");
  PEM_write_PrivateKey (f, *key, NULL, NULL, 0, NULL, NULL);
  fclose (f);
  return x;
}

static struct tlslink_ctx *
context (const char *ca, const char *node)
{
  char err[CRG_REASON_MAX + 1] = "";
  struct tlslink_ctx *c
      = tlslink_ctx_new (path (ca, "pem"), path (node, "pem"), path (node, "key"), err, sizeof err);
  if (c == NULL)
    printf ("# %s\n", err);
  return c;
}

/* Moves at most `max` bytes of ciphertext; returns how many. */
static size_t
move (struct tlslink *from, struct tlslink *to, size_t max)
{
  size_t moved = 0;

  while (moved < max) {
    const uint8_t *src;
    uint8_t *dst;
    size_t n = tlslink_out_data (from, &src), space = tlslink_in_space (to, &dst);

    if (n > space)
      n = space;
    if (n > max - moved)
      n = max - moved;
    if (n == 0)
      break;
    memcpy (dst, src, n);
    tlslink_in_commit (to, n);
    tlslink_out_consume (from, n);
    moved += n;
  }
  return moved;
}

static void
shake (struct tlslink *c, struct tlslink *s, size_t piece)
{
  uint8_t byte;

  for (unsigned i = 0; i < 20000; i++) {
    size_t n;
    tlslink_drive (c);
    tlslink_drive (s);
    n = move (c, s, piece);
    n += move (s, c, piece);
    if (n == 0 && tlslink_get_state (c) != TL_HANDSHAKE
        && tlslink_get_state (s) != TL_HANDSHAKE) {
      /* a client learns only by reading that it was refused */
      tlslink_read (c, &byte, 0);
      break;
    }
    if (n == 0 && (tlslink_get_state (c) == TL_FAILED || tlslink_get_state (s) == TL_FAILED))
      break;
  }
}

static const char *const p1[] = { "p1", "p1.lab.example" };
static const char *const c1[] = { "p2", "c1" };

static void
pair (struct tlslink_ctx *cc, struct tlslink_ctx *sc, struct tlslink **c, struct tlslink **s)
{
  static const char *const server_name[] = { "c1" };
  *c = tlslink_new (cc, false, server_name, 1, TLSLINK_OUT_MIN);
  *s = tlslink_new (sc, true, p1, 2, TLSLINK_OUT_MIN);
}

static void
test_flow (struct tlslink_ctx *cp, struct tlslink_ctx *cc)
{
  struct tlslink *c, *s;
  static uint8_t big[300000], back[300000];
  uint32_t x = 1;
  size_t sent = 0, got = 0;
  unsigned records = 0;
  ssize_t n;

  for (size_t i = 0; i < sizeof big; i++)
    big[i] = (uint8_t) ((x = x * 1103515245 + 12345) >> 16);

  pair (cp, cc, &c, &s);
  is (tlslink_write (c, big, 10), 0, "nothing is taken before the handshake");
  shake (c, s, 7); /* the smallest pieces */
  is (tlslink_get_state (c), TL_UP, "client is up, fed 7 bytes at a time");
  is (tlslink_get_state (s), TL_UP, "server is up");
  is_str (tlslink_peer (c), "c1", "the client knows whom it talks to");
  is_str (tlslink_peer (s), "p1", "the server knows whom it talks to");

  /* many small frames make one record */
  for (unsigned i = 0; i < 100; i++)
    check (tlslink_write (c, big + i * 64, 64) == 64, "small write %u", i);
  is (tlslink_out_pending (c), 0, "small writes are gathered");
  tlslink_flush (c);
  ok (tlslink_out_pending (c) > 6400 && tlslink_out_pending (c) < 6400 + 64,
      "100 frames of 64 bytes travel in one record (%zu bytes)", tlslink_out_pending (c));
  move (c, s, SIZE_MAX);
  is (tlslink_read (s, back, sizeof back), 6400, "all of them arrive");
  ok (memcmp (big, back, 6400) == 0, "unharmed");

  /* as much as fits, at once, both rings full */
  ok (tlslink_out_room (c) >= 2 * (LINK_MAX_PAYLOAD + 64),
      "an empty ring takes two frames of the largest size (%zu)", tlslink_out_room (c));
  for (unsigned round = 0; round < 40 && got < 4 * sizeof big; round++) {
    while (sent < 4 * sizeof big) {
      size_t at = sent % sizeof big, room = tlslink_out_room (c);
      n = tlslink_write (c, big + at, sizeof big - at);
      check (n >= 0, "write");
      check ((size_t) n == (room < sizeof big - at ? room : sizeof big - at),
             "write takes what out_room promises");
      if (n <= 0)
        break;
      sent += (size_t) n;
      records++;
    }
    tlslink_flush (c);
    for (unsigned k = 0; k < 200; k++) {
      size_t m = move (c, s, 5000);
      while (got < sent) {
        size_t at = got % sizeof big;
        n = tlslink_read (s, back, 1 + (got * 7) % 4999 < sizeof big - at
                                       ? 1 + (got * 7) % 4999
                                       : sizeof big - at);
        check (n >= 0, "read");
        if (n <= 0)
          break;
        check (memcmp (back, big + at, (size_t) n) == 0, "bytes at %zu", got);
        got += (size_t) n;
      }
      if (m == 0)
        break;
    }
  }
  is (got, 4 * sizeof big, "1.2 MB through rings of 576 and 68 KiB, in order");
  (void) records;

  /* the other way, then a proper end */
  tlslink_write (s, "pong", 4);
  tlslink_flush (s);
  move (s, c, SIZE_MAX);
  ok (tlslink_read (c, back, 10) == 4 && memcmp (back, "pong", 4) == 0, "the other way too");
  tlslink_write (c, "last", 4);
  tlslink_close (c);
  is (tlslink_out_room (c), 0, "no room after close");
  move (c, s, SIZE_MAX);
  is (tlslink_read (s, back, 10), 4, "what was written before close arrives");
  is (tlslink_read (s, back, 10), 0, "then nothing");
  is (tlslink_get_state (s), TL_CLOSED, "and the link counts as closed");
  tlslink_free (c);
  tlslink_free (s);

  /* one of several names */
  c = tlslink_new (cp, false, c1, 2, TLSLINK_OUT_MIN);
  s = tlslink_new (cc, true, p1, 1, TLSLINK_OUT_MIN);
  shake (c, s, SIZE_MAX);
  is_str (tlslink_peer (c) ? tlslink_peer (c) : "(nobody)", "c1", "one of a list of names");
  tlslink_free (c);
  tlslink_free (s);
  c = tlslink_new (cp, false, c1, 2, TLSLINK_OUT_LEAST);
  s = tlslink_new (cc, true, NULL, 0, TLSLINK_OUT_LEAST);
  shake (c, s, SIZE_MAX);
  ok (tlslink_get_state (s) == TL_UP && tlslink_peer (s) && tlslink_peer (s)[0], "a server takes any name of its CA: %s",
      tlslink_peer (s) ? tlslink_peer (s) : "(nobody)");
  tlslink_free (c);
  tlslink_free (s);
  ok (tlslink_new (cp, false, NULL, 0, TLSLINK_OUT_LEAST) == NULL, "... a client never");
}

/* Both ends with these contexts: the end `judge` must fail, saying `word`. */
static void
refused (struct tlslink_ctx *cp, struct tlslink_ctx *cc, bool server_judges, const char *word,
         const char *what)
{
  struct tlslink *c, *s, *j;
  uint8_t buf[16];

  pair (cp, cc, &c, &s);
  shake (c, s, SIZE_MAX);
  j = server_judges ? s : c;
  is (tlslink_get_state (j), TL_FAILED, what);
  ok (strstr (tlslink_reason (j), word) != NULL, "%s: \"%s\"", what, tlslink_reason (j));
  is (tlslink_read (j, buf, sizeof buf), -1, "nothing can be read");
  is (tlslink_write (j, buf, sizeof buf), -1, "nor written");
  /* the other end is told */
  j = server_judges ? c : s;
  tlslink_read (j, buf, sizeof buf);
  ok (tlslink_get_state (j) == TL_FAILED && tlslink_reason (j)[0] != '\0',
      "the other end is told: \"%s\"", tlslink_reason (j));
  tlslink_free (c);
  tlslink_free (s);
}

static void
feed (struct tlslink *l, const void *bytes, size_t len)
{
  uint8_t *p;
  size_t n = tlslink_in_space (l, &p);
  if (n > len)
    n = len;
  memcpy (p, bytes, n);
  tlslink_in_commit (l, n);
}

/* A peer with a good certificate that offers TLS 1.2 at most, on either end. */
static void
test_old_tls (struct tlslink_ctx *ctx, bool server_judges)
{
  static const char *const name[] = { "p1" };
  struct tlslink *l = tlslink_new (ctx, server_judges, name, 1, TLSLINK_OUT_MIN);
  SSL_CTX *old = SSL_CTX_new (server_judges ? TLS_client_method () : TLS_server_method ());
  BIO *in = BIO_new (BIO_s_mem ()), *out = BIO_new (BIO_s_mem ());
  SSL *peer;

  SSL_CTX_set_max_proto_version (old, TLS1_2_VERSION);
  ok (SSL_CTX_use_certificate_file (old, path ("p1", "pem"), SSL_FILETYPE_PEM) == 1
          && SSL_CTX_use_PrivateKey_file (old, path ("p1", "key"), SSL_FILETYPE_PEM) == 1 && (peer = SSL_new (old)),
      "a peer of TLS 1.2");
  SSL_set_bio (peer, in, out);
  if (server_judges)
    SSL_set_connect_state (peer);
  else
    SSL_set_accept_state (peer);
  for (unsigned i = 0; i < 10 && tlslink_get_state (l) == TL_HANDSHAKE; i++) {
    const uint8_t *p;
    uint8_t buf[4096];
    size_t n;
    int k;

    SSL_do_handshake (peer);
    while ((k = BIO_read (out, buf, sizeof buf)) > 0)
      feed (l, buf, (size_t) k);
    tlslink_drive (l);
    while ((n = tlslink_out_data (l, &p)) > 0) {
      BIO_write (in, p, (int) n);
      tlslink_out_consume (l, n);
    }
  }
  ok (tlslink_get_state (l) == TL_FAILED && !SSL_is_init_finished (peer), "TLS 1.2 is refused by a %s: \"%s\"",
      server_judges ? "server" : "client", tlslink_reason (l));
  ok (strstr (tlslink_reason (l), server_judges ? "does not speak TLS 1.3" : "protocol version") != NULL, "... which says so");
  SSL_free (peer);
  SSL_CTX_free (old);
  tlslink_free (l);
}

static void
test_garbage (struct tlslink_ctx *cp, struct tlslink_ctx *cc)
{
  static const char *const what[] = { "GET / HTTP/1.1\r\n\r\n", "CRGL\1\1 a frame in the clear",
                                      "\0\0\0\0\0\0\0\0\0\0\0\0", "SSH-2.0-OpenSSH_9.2\r\n" };
  struct tlslink *c, *s;
  uint8_t buf[100];

  for (unsigned i = 0; i < 4; i++) {
    s = tlslink_new (cc, true, p1, 1, TLSLINK_OUT_MIN);
    feed (s, what[i], i == 2 ? 12 : strlen (what[i]));
    tlslink_drive (s);
    ok (tlslink_get_state (s) == TL_FAILED && strstr (tlslink_reason (s), "not speak TLS"),
        "plaintext %u is refused: \"%s\"", i, tlslink_reason (s));
    tlslink_free (s);
  }

  /* cut off during the handshake */
  s = tlslink_new (cc, true, p1, 1, TLSLINK_OUT_MIN);
  c = tlslink_new (cp, false, c1, 2, TLSLINK_OUT_MIN);
  tlslink_drive (c);
  move (c, s, 50);
  tlslink_drive (s);
  is (tlslink_get_state (s), TL_HANDSHAKE, "half a hello: it waits");
  tlslink_in_eof (s);
  tlslink_drive (s);
  ok (tlslink_get_state (s) == TL_FAILED && strstr (tlslink_reason (s), "cut off"),
      "end of the socket in the handshake: \"%s\"", tlslink_reason (s));
  tlslink_free (c);
  tlslink_free (s);

  /* cut off later: truncation is no close */
  pair (cp, cc, &c, &s);
  shake (c, s, SIZE_MAX);
  tlslink_write (c, "0123456789", 10);
  tlslink_flush (c);
  move (c, s, tlslink_out_pending (c) - 3);
  is (tlslink_read (s, buf, sizeof buf), 0, "a record without its end gives nothing");
  tlslink_in_eof (s);
  is (tlslink_read (s, buf, sizeof buf), -1, "the socket's end without a close is an error");
  ok (strstr (tlslink_reason (s), "cut off") != NULL, "which says so: \"%s\"",
      tlslink_reason (s));
  tlslink_free (c);
  tlslink_free (s);

  /* one bit */
  pair (cp, cc, &c, &s);
  shake (c, s, SIZE_MAX);
  tlslink_write (c, "0123456789", 10);
  tlslink_flush (c);
  {
    const uint8_t *p;
    size_t n = tlslink_out_data (c, &p);
    memcpy (buf, p, n);
    buf[n - 1] ^= 1;
    feed (s, buf, n);
  }
  is (tlslink_read (s, buf, sizeof buf), -1, "a changed byte ends the link");
  ok (tlslink_reason (s)[0] != '\0', "with a reason: \"%s\"", tlslink_reason (s));
  tlslink_free (c);
  tlslink_free (s);
}

static void
test_files (void)
{
  char err[CRG_REASON_MAX + 1] = "";

  ok (tlslink_ctx_new (path ("absent", "pem"), path ("p1", "pem"), path ("p1", "key"), err,
                       sizeof err) == NULL
          && strstr (err, "absent.pem"),
      "absent CA: \"%s\"", err);
  ok (tlslink_ctx_new (path ("ca", "pem"), path ("p1", "pem"), path ("c1", "key"), err,
                       sizeof err) == NULL,
      "key of another certificate: \"%s\"", err);
}

int
main (void)
{
  EVP_PKEY *ca_key, *other_key, *key;
  X509 *ca, *other;
  struct tlslink_ctx *cp, *cc, *expired, *early, *wrong_name, *cn_only, *other_ca, *wild;

  if (mkdtemp (dir) == NULL)
    return 1;
  ca = make_cert ("ca", "test CA", NULL, &ca_key, NULL, NULL, -DAY, DAY);
  other = make_cert ("other", "other CA", NULL, &other_key, NULL, NULL, -DAY, DAY);
#define CERT(file, cn, san, issuer, ikey, from, to) \
  (X509_free (make_cert (file, cn, san, &key, issuer, ikey, from, to)), EVP_PKEY_free (key))
  CERT ("p1", "p1", "DNS:p1", ca, ca_key, -DAY, DAY);
  CERT ("c1", "c1", "DNS:c1", ca, ca_key, -DAY, DAY);
  CERT ("expired", "p1", "DNS:p1", ca, ca_key, -2 * DAY, -DAY);
  CERT ("early", "p1", "DNS:p1", ca, ca_key, DAY, 2 * DAY);
  CERT ("wrong", "p1", "DNS:p9", ca, ca_key, -DAY, DAY);
  CERT ("cnonly", "p1", NULL, ca, ca_key, -DAY, DAY);
  CERT ("wild", "p1", "DNS:*.lab.example", ca, ca_key, -DAY, DAY);
  CERT ("foreign", "p1", "DNS:p1", other, other_key, -DAY, DAY);

  cp = context ("ca", "p1");
  cc = context ("ca", "c1");
  ok (cp && cc, "contexts");
  if (cp == NULL || cc == NULL)
    return tap_done ();
  test_flow (cp, cc);

  expired = context ("ca", "expired");
  early = context ("ca", "early");
  wrong_name = context ("ca", "wrong");
  cn_only = context ("ca", "cnonly");
  wild = context ("ca", "wild");
  other_ca = context ("other", "foreign");
  refused (expired, cc, true, "expired", "expired certificate");
  refused (early, cc, true, "not valid yet", "certificate of tomorrow");
  refused (wrong_name, cc, true, "another DNS name", "wrong name");
  refused (cn_only, cc, true, "DNS name", "only a common name");
  refused (wild, cc, true, "another DNS name", "a wildcard");
  refused (other_ca, cc, false, "not issued by our CA", "server of our CA, client trusts another");
  refused (cp, other_ca, false, "not issued by our CA", "server of a wrong CA");
  refused (cp, wrong_name, false, "another DNS name", "server with a wrong name");
  test_old_tls (cc, true);
  test_old_tls (cc, false);
  test_garbage (cp, cc);
  test_files ();

  tlslink_ctx_free (cp);
  tlslink_ctx_free (cc);
  tlslink_ctx_free (expired);
  tlslink_ctx_free (early);
  tlslink_ctx_free (wrong_name);
  tlslink_ctx_free (cn_only);
  tlslink_ctx_free (wild);
  tlslink_ctx_free (other_ca);
  X509_free (ca);
  X509_free (other);
  EVP_PKEY_free (ca_key);
  EVP_PKEY_free (other_key);
  for (unsigned i = 0; i < 10; i++) {
    static const char *const f[] = { "ca", "other", "p1", "c1", "expired", "early", "wrong",
                                     "cnonly", "wild", "foreign" };
    unlink (path (f[i], "pem"));
    unlink (path (f[i], "key"));
  }
  rmdir (dir);
  return tap_done ();
}
