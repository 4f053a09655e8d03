/* SPDX-License-Identifier: BSD-3-Clause */
/* TLS 1.3 of one connection over two fixed rings: see tlslink.h.  Called by the one thread that
 * owns the connection; touches files only in tlslink_ctx_new ().  It must never hand out
 * plaintext before the peer's certificate, name and dates are checked.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include "common/tlslink.h"

/* Plaintext of one TLS record. */
#define RECORD_BYTES 16384
/* More than header, type and tag of one record. */
#define RECORD_OVERHEAD 32
/* Of the ring, kept for what TLS itself has to say: alerts, key updates. */
#define OUT_KEPT 4096

struct tlslink_ctx {
  SSL_CTX *ssl;
  BIO_METHOD *method;
};

struct ring {
  uint8_t *buf;
  size_t size, head, used;
};

struct tlslink {
  SSL *ssl;
  bool is_server, in_eof, closing;
  enum tlslink_state state;
  struct ring in, out;
  size_t gathered;
  unsigned n_names;
  int peer; /* index in names, or -1 */
  char names[CRG_MAX_NODES][CRG_HOST_MAX + 1];
  char reason[CRG_REASON_MAX + 1];
  uint8_t gather[RECORD_BYTES];
};

/* --- rings ----------------------------------------------------------------------------------- */

static size_t
ring_tail (const struct ring *r)
{
  size_t t = r->head + r->used;
  return t >= r->size ? t - r->size : t;
}

static size_t
ring_space (const struct ring *r, uint8_t **p)
{
  const size_t tail = ring_tail (r), space = r->size - r->used;

  *p = r->buf + tail;
  return space < r->size - tail ? space : r->size - tail;
}

static size_t
ring_data (const struct ring *r, const uint8_t **p)
{
  *p = r->buf + r->head;
  return r->used < r->size - r->head ? r->used : r->size - r->head;
}

static void
ring_consume (struct ring *r, size_t len)
{
  if (len > r->used)
    len = r->used;
  r->head += len;
  if (r->head >= r->size)
    r->head -= r->size;
  r->used -= len;
}

/* An empty ring begins anew where its memory is still in the processor's cache, and offers all of
 * its space in one piece. */
static void
ring_rewind (struct ring *r)
{
  if (r->used == 0)
    r->head = 0;
}

/* --- the BIO between OpenSSL and the rings --------------------------------------------------- */

static int
ring_bio_write (BIO *bio, const char *data, size_t len, size_t *written)
{
  struct tlslink *l = BIO_get_data (bio);
  size_t left = len;

  BIO_clear_retry_flags (bio);
  *written = 0;
  if (l->out.size - l->out.used < len) {
    BIO_set_retry_write (bio); /* never a part of a record */
    return 0;
  }
  while (left > 0) {
    uint8_t *p;
    size_t n = ring_space (&l->out, &p);
    if (n > left)
      n = left;
    memcpy (p, data, n);
    l->out.used += n;
    data += n;
    left -= n;
  }
  *written = len;
  return 1;
}

static int
ring_bio_read (BIO *bio, char *data, size_t len, size_t *got)
{
  struct tlslink *l = BIO_get_data (bio);

  BIO_clear_retry_flags (bio);
  *got = 0;
  while (*got < len && l->in.used > 0) {
    const uint8_t *p;
    size_t n = ring_data (&l->in, &p);
    if (n > len - *got)
      n = len - *got;
    memcpy (data + *got, p, n);
    ring_consume (&l->in, n);
    *got += n;
  }
  if (*got > 0)
    return 1;
  if (!l->in_eof)
    BIO_set_retry_read (bio);
  return 0;
}

static long
ring_bio_ctrl (BIO *bio, int cmd, long num, void *ptr)
{
  struct tlslink *l = BIO_get_data (bio);

  (void) num;
  (void) ptr;
  switch (cmd) {
  case BIO_CTRL_FLUSH:
    return 1;
  case BIO_CTRL_EOF:
    return l->in_eof && l->in.used == 0;
  default:
    return 0;
  }
}

/* --- context --------------------------------------------------------------------------------- */

/* OpenSSL's own word for the last error of this thread. */
static const char *
ssl_word (void)
{
  const unsigned long e = ERR_peek_last_error ();
  const char *s = e ? ERR_reason_error_string (e) : NULL;
  return s ? s : "no further reason";
}

struct tlslink_ctx *
tlslink_ctx_new (const char *ca, const char *cert, const char *key, char *err, size_t err_len)
{
  struct tlslink_ctx *c = calloc (1, sizeof *c);
  const char *what = "out of memory", *file = "";

  ERR_clear_error ();
  if (c == NULL)
    goto fail;
  what = "OpenSSL can't start TLS";
  c->ssl = SSL_CTX_new (TLS_method ());
  c->method = BIO_meth_new (BIO_get_new_index () | BIO_TYPE_SOURCE_SINK, "ring");
  if (c->ssl == NULL || c->method == NULL
      || BIO_meth_set_write_ex (c->method, ring_bio_write) != 1
      || BIO_meth_set_read_ex (c->method, ring_bio_read) != 1
      || BIO_meth_set_ctrl (c->method, ring_bio_ctrl) != 1
      || SSL_CTX_set_min_proto_version (c->ssl, TLS1_3_VERSION) != 1
      || SSL_CTX_set_max_proto_version (c->ssl, TLS1_3_VERSION) != 1)
    goto fail;
  SSL_CTX_set_options (c->ssl, SSL_OP_NO_TICKET | SSL_OP_NO_COMPRESSION
                                   | SSL_OP_NO_RENEGOTIATION);
  SSL_CTX_set_session_cache_mode (c->ssl, SSL_SESS_CACHE_OFF);
  SSL_CTX_set_num_tickets (c->ssl, 0);
  SSL_CTX_set_mode (c->ssl, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  SSL_CTX_set_verify (c->ssl, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);

  file = ca;
  what = "can't read the CA's certificate";
  if (SSL_CTX_load_verify_file (c->ssl, ca) != 1)
    goto fail;
  SSL_CTX_set_client_CA_list (c->ssl, SSL_load_client_CA_file (ca));
  file = cert;
  what = "can't read this node's certificate";
  if (SSL_CTX_use_certificate_chain_file (c->ssl, cert) != 1)
    goto fail;
  file = key;
  what = "can't read this node's private key";
  if (SSL_CTX_use_PrivateKey_file (c->ssl, key, SSL_FILETYPE_PEM) != 1)
    goto fail;
  what = "the private key does not belong to this node's certificate";
  if (SSL_CTX_check_private_key (c->ssl) != 1)
    goto fail;
  ERR_clear_error ();
  return c;

fail:
  if (err_len > 0)
    snprintf (err, err_len, "%s%s%s: %s; crgctl init-pki makes such files", what,
              file[0] ? ": " : "", file, ssl_word ());
  ERR_clear_error ();
  tlslink_ctx_free (c);
  return NULL;
}

void
tlslink_ctx_free (struct tlslink_ctx *c)
{
  if (c == NULL)
    return;
  SSL_CTX_free (c->ssl);
  BIO_meth_free (c->method);
  free (c);
}

/* --- link ------------------------------------------------------------------------------------ */

struct tlslink *
tlslink_new (struct tlslink_ctx *ctx, bool is_server, const char *const *names, unsigned n,
             size_t out_bytes)
{
  struct tlslink *l;
  BIO *bio = NULL;

  if ((n == 0 && !is_server) || n > CRG_MAX_NODES || out_bytes < TLSLINK_OUT_LEAST)
    return NULL;
  l = calloc (1, sizeof *l);
  if (l == NULL)
    return NULL;
  l->is_server = is_server;
  l->peer = -1;
  l->in.size = TLSLINK_IN_BYTES;
  l->out.size = out_bytes;
  l->in.buf = malloc (l->in.size);
  l->out.buf = malloc (l->out.size);
  l->ssl = SSL_new (ctx->ssl);
  bio = BIO_new (ctx->method);
  if (l->in.buf == NULL || l->out.buf == NULL || l->ssl == NULL || bio == NULL)
    goto fail;
  BIO_set_data (bio, l);
  BIO_set_init (bio, 1);
  SSL_set_hostflags (l->ssl,
                     X509_CHECK_FLAG_NO_WILDCARDS | X509_CHECK_FLAG_NEVER_CHECK_SUBJECT);
  for (unsigned i = 0; i < n; i++) {
    const size_t len = strlen (names[i]);
    /* An address would be compared with other fields of the certificate; names only. */
    if (len == 0 || len > CRG_HOST_MAX || SSL_add1_host (l->ssl, names[i]) != 1)
      goto fail;
    memcpy (l->names[i], names[i], len + 1);
  }
  l->n_names = n;
  if (is_server)
    SSL_set_accept_state (l->ssl);
  else {
    SSL_set_connect_state (l->ssl);
    if (SSL_set_tlsext_host_name (l->ssl, names[0]) != 1)
      goto fail;
  }
  SSL_set_bio (l->ssl, bio, bio); /* takes the one reference for both */
  return l;

fail:
  BIO_free (bio);
  tlslink_free (l);
  ERR_clear_error ();
  return NULL;
}

void
tlslink_free (struct tlslink *l)
{
  if (l == NULL)
    return;
  SSL_free (l->ssl);
  free (l->in.buf);
  free (l->out.buf);
  free (l);
}

static void
say_names (struct tlslink *l, const char *what)
{
  size_t at = (size_t) snprintf (l->reason, sizeof l->reason, "%s", what);

  for (unsigned i = 0; i < l->n_names && at < sizeof l->reason; i++)
    at += (size_t) snprintf (l->reason + at, sizeof l->reason - at, "%s%s", i ? ", " : " ",
                             l->names[i]);
}

/* Puts in words why the last call failed. */
static void
fail (struct tlslink *l)
{
  const long verify = SSL_get_verify_result (l->ssl);
  const unsigned long e = ERR_peek_last_error ();
  const int why = ERR_GET_LIB (e) == ERR_LIB_SSL ? ERR_GET_REASON (e) : 0;
  const bool before = l->state == TL_HANDSHAKE;

  l->state = TL_FAILED;
  if (why > SSL_AD_REASON_OFFSET)
    snprintf (l->reason, sizeof l->reason,
              "the peer refused us: %s (its log says more; check this node's certificate)",
              SSL_alert_desc_string_long (why - SSL_AD_REASON_OFFSET));
  else if (before && verify == X509_V_ERR_CERT_HAS_EXPIRED)
    snprintf (l->reason, sizeof l->reason,
              "the peer's certificate has expired: issue a new one");
  else if (before && verify == X509_V_ERR_CERT_NOT_YET_VALID)
    snprintf (l->reason, sizeof l->reason,
              "the peer's certificate is not valid yet: check the clocks");
  else if (before && verify == X509_V_ERR_HOSTNAME_MISMATCH)
    say_names (l, "the peer's certificate has another DNS name than expected:");
  else if (before
           && (verify == X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY
               || verify == X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT
               || verify == X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN
               || verify == X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT
               || verify == X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE
               || verify == X509_V_ERR_CERT_SIGNATURE_FAILURE))
    snprintf (l->reason, sizeof l->reason,
              "the peer's certificate was not issued by our CA (%s)",
              X509_verify_cert_error_string (verify));
  else if (before && verify != X509_V_OK)
    snprintf (l->reason, sizeof l->reason, "the peer's certificate is refused: %s",
              X509_verify_cert_error_string (verify));
  else if (why == SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE)
    snprintf (l->reason, sizeof l->reason, "the peer showed no certificate");
  else if (why == SSL_R_UNEXPECTED_EOF_WHILE_READING || (l->in_eof && l->in.used == 0))
    snprintf (l->reason, sizeof l->reason, "the connection was cut off%s",
              before ? " during the TLS handshake" : ": no close was said");
  else if (why == SSL_R_UNSUPPORTED_PROTOCOL || why == SSL_R_TLSV1_ALERT_PROTOCOL_VERSION)
    snprintf (l->reason, sizeof l->reason, "the peer does not speak TLS 1.3");
  else if (before
           && (why == SSL_R_WRONG_VERSION_NUMBER || why == SSL_R_HTTP_REQUEST
               || why == SSL_R_HTTPS_PROXY_REQUEST || why == SSL_R_PACKET_LENGTH_TOO_LONG
               || why == SSL_R_BAD_RECORD_TYPE || why == SSL_R_UNEXPECTED_MESSAGE))
    snprintf (l->reason, sizeof l->reason, "the peer does not speak TLS (%s)", ssl_word ());
  else
    snprintf (l->reason, sizeof l->reason, "TLS failed: %s", ssl_word ());
  ERR_clear_error ();
}

/* After a call on ssl that returned ret <= 0: state and reason.  Returns true if it is only a
 * matter of more bytes. */
static bool
only_later (struct tlslink *l, int ret)
{
  switch (SSL_get_error (l->ssl, ret)) {
  case SSL_ERROR_WANT_READ:
  case SSL_ERROR_WANT_WRITE:
    return true;
  case SSL_ERROR_ZERO_RETURN:
    l->state = TL_CLOSED;
    return false;
  default:
    fail (l);
    return false;
  }
}

/* What a peer without an expected name is called: only for people. */
static bool
take_common_name (struct tlslink *l)
{
  X509 *cert = SSL_get0_peer_certificate (l->ssl);
  int len = cert ? X509_NAME_get_text_by_NID (X509_get_subject_name (cert), NID_commonName, l->names[0],
                                              sizeof l->names[0])
                 : -1;

  for (int i = 0; i < len; i++)
    if (l->names[0][i] < ' ' || l->names[0][i] > '~')
      l->names[0][i] = '?';
  return len > 0;
}

enum tlslink_state
tlslink_drive (struct tlslink *l)
{
  const char *name;
  int ret;

  if (l->state != TL_HANDSHAKE)
    return l->state;
  ERR_clear_error ();
  ret = SSL_do_handshake (l->ssl);
  if (ret != 1) {
    only_later (l, ret);
    return l->state;
  }
  if (l->n_names == 0) { /* any that our CA has signed: chain and dates are checked */
    if (SSL_get_verify_result (l->ssl) != X509_V_OK || !take_common_name (l)) {
      l->state = TL_FAILED;
      snprintf (l->reason, sizeof l->reason, "the peer's certificate has no name");
      return l->state;
    }
    l->peer = 0;
    l->state = TL_UP;
    return l->state;
  }
  /* OpenSSL has checked chain, dates and name; which of the names it was is for us. */
  name = SSL_get_verify_result (l->ssl) == X509_V_OK ? SSL_get0_peername (l->ssl) : NULL;
  for (unsigned i = 0; name && i < l->n_names; i++)
    if (strcasecmp (name, l->names[i]) == 0)
      l->peer = (int) i;
  if (l->peer < 0) {
    l->state = TL_FAILED;
    say_names (l, "the peer's certificate has another DNS name than expected:");
    return l->state;
  }
  l->state = TL_UP;
  return l->state;
}

enum tlslink_state
tlslink_get_state (const struct tlslink *l)
{
  return l->state;
}

const char *
tlslink_reason (const struct tlslink *l)
{
  return l->reason;
}

const char *
tlslink_peer (const struct tlslink *l)
{
  return l->peer >= 0 ? l->names[l->peer] : NULL;
}

size_t
tlslink_in_space (struct tlslink *l, uint8_t **buf)
{
  ring_rewind (&l->in);
  return ring_space (&l->in, buf);
}

void
tlslink_in_commit (struct tlslink *l, size_t len)
{
  uint8_t *p;
  const size_t space = ring_space (&l->in, &p);

  l->in.used += len < space ? len : space;
}

void
tlslink_in_eof (struct tlslink *l)
{
  l->in_eof = true;
}

size_t
tlslink_out_data (struct tlslink *l, const uint8_t **buf)
{
  return ring_data (&l->out, buf);
}

void
tlslink_out_consume (struct tlslink *l, size_t len)
{
  ring_consume (&l->out, len);
  ring_rewind (&l->out);
}

size_t
tlslink_out_pending (const struct tlslink *l)
{
  return l->out.used;
}

size_t
tlslink_out_room (const struct tlslink *l)
{
  const size_t space = l->out.size - l->out.used;
  size_t used;

  if (l->state != TL_UP || l->closing)
    return 0;
  used = OUT_KEPT + l->gathered + (space / RECORD_BYTES + 2) * RECORD_OVERHEAD;
  return space > used ? space - used : 0;
}

/* One record of len bytes into the ring; the caller has checked the room. */
static int
write_record (struct tlslink *l, const uint8_t *buf, size_t len)
{
  size_t done = 0;
  int ret;

  ERR_clear_error ();
  ret = SSL_write_ex (l->ssl, buf, len, &done);
  if (ret != 1) {
    /* Never for want of room: it was checked. */
    if (!only_later (l, ret) && l->state == TL_FAILED)
      return -1;
    l->state = TL_FAILED;
    snprintf (l->reason, sizeof l->reason, "TLS could not take what its buffer had room for");
    return -1;
  }
  return 0;
}

int
tlslink_flush (struct tlslink *l)
{
  const size_t n = l->gathered;

  if (l->state == TL_FAILED)
    return -1;
  if (n == 0 || l->state != TL_UP)
    return 0;
  l->gathered = 0;
  return write_record (l, l->gather, n);
}

ssize_t
tlslink_write (struct tlslink *l, const void *data, size_t len)
{
  const uint8_t *p = data;
  const size_t room = tlslink_out_room (l);
  size_t left;

  if (l->state == TL_FAILED)
    return -1;
  if (len > room)
    len = room;
  left = len;
  while (left > 0) {
    size_t n;
    if (l->gathered == 0 && left >= RECORD_BYTES) {
      n = RECORD_BYTES; /* a full record needs no copy */
      if (write_record (l, p, n) == -1)
        return -1;
    }
    else {
      n = RECORD_BYTES - l->gathered < left ? RECORD_BYTES - l->gathered : left;
      memcpy (l->gather + l->gathered, p, n);
      l->gathered += n;
      if (l->gathered == RECORD_BYTES && tlslink_flush (l) == -1)
        return -1;
    }
    p += n;
    left -= n;
  }
  return (ssize_t) len;
}

ssize_t
tlslink_read (struct tlslink *l, void *buf, size_t len)
{
  size_t got = 0;

  if (l->state == TL_HANDSHAKE)
    tlslink_drive (l);
  if (l->state == TL_FAILED)
    return -1;
  if (l->state != TL_UP)
    return 0;
  ERR_clear_error ();
  while (got < len) {
    size_t n = 0;
    int ret = SSL_read_ex (l->ssl, (uint8_t *) buf + got, len - got, &n);
    if (ret != 1) {
      if (!only_later (l, ret) && l->state == TL_FAILED && got == 0)
        return -1;
      break;
    }
    got += n;
  }
  return (ssize_t) got;
}

void
tlslink_close (struct tlslink *l)
{
  if (l->state != TL_UP || l->closing)
    return;
  tlslink_flush (l);
  l->closing = true;
  if (l->state == TL_UP) {
    ERR_clear_error ();
    SSL_shutdown (l->ssl);
    ERR_clear_error ();
  }
}
