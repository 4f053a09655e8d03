/* SPDX-License-Identifier: BSD-3-Clause */
/* See certs.h.  Every object lives within one call.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509_vfy.h>
#include <openssl/x509v3.h>

#include "common/certs.h"
#include "common/limits.h"
#include "common/util-posix.h"
#include "common/util.h"

struct check {
  const char *dir;
  char *err;
  size_t errlen;
  int days_left;
};

#define DAYS_FOREVER 1000000 /* beyond what any certificate says */
#define MAKE_THEM "make it with 'crgctl init-pki', and copy DIR/NODE to this node"

UTIL_PRINTF (4, 5)
static int
fail (struct check *c, int rc, const char *name, const char *fmt, ...)
{
  va_list ap;
  int n = snprintf (c->err, c->errlen, "%s/%s: ", c->dir, name);

  if (n >= 0 && (size_t) n < c->errlen) {
    va_start (ap, fmt);
    vsnprintf (c->err + n, c->errlen - (size_t) n, fmt, ap);
    va_end (ap);
  }
  ERR_clear_error ();
  return rc;
}

static int
open_file (struct check *c, const char *name, bool secret, FILE **fp)
{
  char path[2 * CRG_PATH_MAX + 2];
  struct stat st;

  snprintf (path, sizeof path, "%s/%s", c->dir, name);
  *fp = fopen (path, "re");
  if (!*fp && errno == ENOENT)
    return fail (c, -ENOENT, name, "there is no such file; " MAKE_THEM);
  if (!*fp || fstat (fileno (*fp), &st) < 0)
    return fail (c, -errno, name, "%s", strerror (errno));
  if (secret && (st.st_mode & (S_IRWXO | S_IWGRP)))
    return fail (c, -EPERM, name, "a private key that others may read or the group may write; "
                 "chmod it to 600");
  return 0;
}

static int
read_cert (struct check *c, const char *name, X509 **cert)
{
  CLEANUP_FCLOSE FILE *fp = NULL;
  int rc = open_file (c, name, false, &fp);

  if (rc < 0)
    return rc;
  *cert = PEM_read_X509 (fp, NULL, NULL, NULL);
  if (!*cert)
    return fail (c, -EINVAL, name, "not a certificate in PEM; " MAKE_THEM);
  return 0;
}

/* Nobody is there to type a pass phrase. */
static int
no_pass_phrase (char *buf, int size, int rwflag, void *u)
{
  return -1;
}

static int
read_key (struct check *c, const char *name, EVP_PKEY **key)
{
  CLEANUP_FCLOSE FILE *fp = NULL;
  int rc = open_file (c, name, true, &fp);

  if (rc < 0)
    return rc;
  *key = PEM_read_PrivateKey (fp, NULL, no_pass_phrase, NULL);
  if (!*key)
    return fail (c, -EINVAL, name, "not a private key in PEM without a pass phrase; " MAKE_THEM);
  return 0;
}

static int
check_times (struct check *c, const char *name, const X509 *cert)
{
  int days = 0, seconds = 0;

  if (X509_cmp_current_time (X509_get0_notBefore (cert)) >= 0)
    return fail (c, -EINVAL, name, "not valid yet; is this machine's clock right?");
  if (X509_cmp_current_time (X509_get0_notAfter (cert)) <= 0)
    return fail (c, -EINVAL, name, "has expired; renew it with 'crgctl init-pki --force'");
  if (ASN1_TIME_diff (&days, &seconds, NULL, X509_get0_notAfter (cert)) && days < c->days_left)
    c->days_left = days;
  return 0;
}

/* 'cert' is signed by 'ca' and may be used for 'purpose'. */
static int
check_chain (struct check *c, const char *name, X509 *cert, const char *ca_name, X509 *ca,
             int purpose)
{
  X509_STORE *store = X509_STORE_new ();
  X509_STORE_CTX *ctx = X509_STORE_CTX_new ();
  int rc = -ENOMEM, error;

  if (store && ctx && X509_STORE_add_cert (store, ca) && X509_STORE_CTX_init (ctx, store, cert, NULL)
      && X509_STORE_CTX_set_purpose (ctx, purpose)) {
    rc = 0;
    if (X509_verify_cert (ctx) != 1) {
      error = X509_STORE_CTX_get_error (ctx);
      rc = fail (c, -EINVAL, name, "not good under %s: %s; " MAKE_THEM, ca_name,
                 X509_verify_cert_error_string (error));
    }
  }
  else
    fail (c, -ENOMEM, name, "out of memory");
  X509_STORE_CTX_free (ctx);
  X509_STORE_free (store);
  return rc;
}

/* One triple.  'host' may be NULL. */
static int
check_triple (struct check *c, const char *ca_name, const char *cert_name, const char *key_name,
              const char *signer_name, const char *host, const int *purposes)
{
  X509 *ca = NULL, *cert = NULL, *signer = NULL;
  EVP_PKEY *key = NULL;
  int rc;

  rc = read_cert (c, ca_name, &ca);
  if (rc == 0)
    rc = check_times (c, ca_name, ca);
  if (rc == 0)
    rc = read_cert (c, cert_name, &cert);
  if (rc == 0)
    rc = read_key (c, key_name, &key);
  if (rc == 0 && X509_check_private_key (cert, key) != 1)
    rc = fail (c, -EINVAL, key_name, "not the key of %s; " MAKE_THEM, cert_name);
  if (rc == 0)
    rc = check_times (c, cert_name, cert);
  if (rc == 0 && host && X509_check_host (cert, host, 0, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS, NULL) != 1)
    rc = fail (c, -EINVAL, cert_name, "does not name '%s'; was it made for another node?", host);
  if (rc == 0 && signer_name)
    rc = read_cert (c, signer_name, &signer);
  for (; rc == 0 && signer && *purposes; purposes++)
    rc = check_chain (c, cert_name, cert, signer_name, signer, *purposes);
  EVP_PKEY_free (key);
  X509_free (signer);
  X509_free (cert);
  X509_free (ca);
  ERR_clear_error ();
  return rc;
}

int
certs_check (const char *dir, const char *node, int *days_left, char *err, size_t errlen)
{
  static const int purposes[] = { X509_PURPOSE_SSL_SERVER, X509_PURPOSE_SSL_CLIENT, 0 };
  struct check c = { dir, err, errlen, DAYS_FOREVER };
  char cert[CRG_NAME_MAX + 5], key[CRG_NAME_MAX + 5];
  int rc;

  snprintf (cert, sizeof cert, "%s.pem", node);
  snprintf (key, sizeof key, "%s.key", node);
  rc = check_triple (&c, "ca.pem", cert, key, "ca.pem", node, purposes);
  if (rc == 0 && days_left)
    *days_left = c.days_left;
  return rc;
}

int
certs_check_nbd (const char *dir, int *days_left, char *err, size_t errlen)
{
  static const int server[] = { X509_PURPOSE_SSL_SERVER, 0 };
  static const int client[] = { X509_PURPOSE_SSL_CLIENT, 0 };
  struct check c = { dir, err, errlen, DAYS_FOREVER };
  int rc;

  /* Crosswise: the export is of the nodes' CA and takes clients of the other, and so on. */
  rc = check_triple (&c, "nbd/ca-cert.pem", "nbd/server-cert.pem", "nbd/server-key.pem",
                     "nbd-client/ca-cert.pem", NULL, server);
  if (rc == 0)
    rc = check_triple (&c, "nbd-client/ca-cert.pem", "nbd-client/client-cert.pem",
                       "nbd-client/client-key.pem", "nbd/ca-cert.pem", NULL, client);
  if (rc == 0 && days_left)
    *days_left = c.days_left;
  return rc;
}
