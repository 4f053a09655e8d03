/* SPDX-License-Identifier: BSD-3-Clause */
/* crgctl init-pki: two CAs, the certificates of nodes under one and of clients under the other, in
 * the layout of common/certs.h.  A node or client is written whole into a hidden directory, which is
 * then renamed; nothing is replaced without --force, and a CA never is.
 *
 * Two CAs, because nbdkit checks who signed a client, not its name: were there one, every node's
 * certificate, and every client's, would open every export and every mirror port.
 */
#include "config.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include "admin/cli.h"
#include "common/certs.h"
#include "common/ident.h"
#include "common/util-posix.h"

#define PKI_DAYS 1825    /* of a node or client, unless --days */
#define PKI_CA_DAYS 7300 /* of a CA, unless --days is more */
#define PKI_SKEW_SECONDS 3600 /* valid since: clocks of the nodes may differ by as much */

struct issuer {
  const char *cert_name, *key_name;
  X509 *cert;
  EVP_PKEY *key;
};

struct pki {
  struct cli *cli;
  const char *dir;
  int dirfd;
  long days;
  struct issuer nodes, clients;
};

/* What a certificate is for. */
struct subject {
  const char *name;
  const char *usage;     /* extendedKeyUsage */
  const char *addresses; /* comma separated, or NULL: IP addresses beside the DNS name */
  bool dns;
};

UTIL_PRINTF (2, 3)
static int
fail (const struct pki *p, const char *fmt, ...)
{
  char text[CONF_ERR_MAX + 1], why[160] = "";
  unsigned long e = ERR_get_error ();
  va_list ap;

  va_start (ap, fmt);
  vsnprintf (text, sizeof text, fmt, ap);
  va_end (ap);
  if (e)
    ERR_error_string_n (e, why, sizeof why);
  ERR_clear_error ();
  return cli_error (p->cli, CRG_EXIT_ERROR, "%s%s%s", text, e ? ": " : "", why);
}

/* ---- files ------------------------------------------------------------------------------ */

static int
write_all (int dirfd, const char *name, mode_t mode, const char *data, size_t len)
{
  CLEANUP_CLOSE int fd = openat (dirfd, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode);
  ssize_t n;

  if (fd < 0)
    return -errno;
  while (len > 0) {
    n = write (fd, data, len);
    if (n < 0 && errno != EINTR)
      return -errno;
    if (n > 0) {
      data += n;
      len -= (size_t) n;
    }
  }
  if (fchmod (fd, mode) < 0 || fsync (fd) < 0)
    return -errno;
  return 0;
}

static int
write_pems (const struct pki *p, int dirfd, const char *where, const char *name, X509 *cert,
            X509 *second, EVP_PKEY *key)
{
  BIO *bio = BIO_new (BIO_s_mem ());
  char *data;
  long len;
  int rc = CRG_EXIT_FINE, r;

  if (!bio || (cert && !PEM_write_bio_X509 (bio, cert))
      || (second && !PEM_write_bio_X509 (bio, second))
      || (key && !PEM_write_bio_PKCS8PrivateKey (bio, key, NULL, NULL, 0, NULL, NULL)))
    rc = fail (p, "cannot encode %s/%s", where, name);
  else {
    len = BIO_get_mem_data (bio, &data);
    r = write_all (dirfd, name, key ? 0600 : 0644, data, (size_t) len);
    if (r < 0)
      rc = fail (p, "cannot write %s/%s: %s", where, name, strerror (-r));
  }
  BIO_free (bio);
  return rc;
}

static int
write_pem (const struct pki *p, int dirfd, const char *where, const char *name, X509 *cert, EVP_PKEY *key)
{
  return write_pems (p, dirfd, where, name, cert, NULL, key);
}

static int
write_cas (const struct pki *p, int dirfd, const char *where, const char *name, X509 *first, X509 *second)
{
  return write_pems (p, dirfd, where, name, first, second, NULL);
}

static int
remove_one (const char *path, const struct stat *st, int type, struct FTW *ftw)
{
  return remove (path);
}

static void
remove_tree (const struct pki *p, const char *name)
{
  char path[CRG_PATH_MAX + 2 * CRG_NAME_MAX + 16];

  snprintf (path, sizeof path, "%s/%s", p->dir, name);
  nftw (path, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

static bool
exists (const struct pki *p, const char *name)
{
  return faccessat (p->dirfd, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

/* ---- certificates ----------------------------------------------------------------------- */

static bool
add_extension (X509 *cert, X509 *issuer, int nid, const char *value)
{
  X509_EXTENSION *ext;
  X509V3_CTX ctx;
  bool good;

  X509V3_set_ctx_nodb (&ctx);
  X509V3_set_ctx (&ctx, issuer, cert, NULL, NULL, 0);
  ext = X509V3_EXT_conf_nid (NULL, &ctx, nid, value);
  good = ext && X509_add_ext (cert, ext, -1);
  X509_EXTENSION_free (ext);
  return good;
}

/* A random serial, positive and of 127 bits; a name; the days. */
static X509 *
new_cert (EVP_PKEY *key, const char *name, X509 *issuer, long days)
{
  X509 *cert = X509_new ();
  BIGNUM *serial = BN_new ();
  X509_NAME *subject;
  bool good;

  good = cert && serial && X509_set_version (cert, X509_VERSION_3)
         && BN_rand (serial, 127, BN_RAND_TOP_ONE, BN_RAND_BOTTOM_ANY)
         && BN_to_ASN1_INTEGER (serial, X509_get_serialNumber (cert))
         && X509_gmtime_adj (X509_getm_notBefore (cert), -PKI_SKEW_SECONDS)
         && X509_time_adj_ex (X509_getm_notAfter (cert), (int) days, 0, NULL)
         && X509_set_pubkey (cert, key);
  subject = good ? X509_get_subject_name (cert) : NULL;
  good = subject
         && X509_NAME_add_entry_by_txt (subject, "O", MBSTRING_ASC, (const unsigned char *) "nbd-crg",
                                        -1, -1, 0)
         && X509_NAME_add_entry_by_txt (subject, "CN", MBSTRING_ASC, (const unsigned char *) name, -1,
                                        -1, 0)
         && X509_set_issuer_name (cert, issuer ? X509_get_subject_name (issuer) : subject);
  BN_free (serial);
  if (!good) {
    X509_free (cert);
    return NULL;
  }
  return cert;
}

static int
make_ca (struct pki *p, struct issuer *ca, const char *name)
{
  ca->key = EVP_EC_gen ("P-256");
  if (ca->key)
    ca->cert = new_cert (ca->key, name, NULL, MAX (p->days, (long) PKI_CA_DAYS));
  if (!ca->cert || !add_extension (ca->cert, ca->cert, NID_basic_constraints, "critical,CA:TRUE,pathlen:0")
      || !add_extension (ca->cert, ca->cert, NID_key_usage, "critical,keyCertSign,cRLSign")
      || !add_extension (ca->cert, ca->cert, NID_subject_key_identifier, "hash")
      || !X509_sign (ca->cert, ca->key, EVP_sha256 ()))
    return fail (p, "cannot make a CA");
  /* The certificate last: a CA is there when its certificate is; a key without one is of a run
   * that was interrupted. */
  unlinkat (p->dirfd, ca->key_name, 0);
  if (write_pem (p, p->dirfd, p->dir, ca->key_name, NULL, ca->key) != CRG_EXIT_FINE)
    return CRG_EXIT_ERROR;
  if (write_pem (p, p->dirfd, p->dir, ca->cert_name, ca->cert, NULL) != CRG_EXIT_FINE)
    return CRG_EXIT_ERROR;
  printf ("made %s/%s\n", p->dir, ca->cert_name);
  return CRG_EXIT_FINE;
}

static int
load_ca (struct pki *p, struct issuer *ca)
{
  CLEANUP_FCLOSE FILE *cert = NULL, *key = NULL;
  int fd;

  fd = openat (p->dirfd, ca->cert_name, O_RDONLY | O_CLOEXEC);
  cert = fd < 0 ? NULL : fdopen (fd, "r");
  fd = openat (p->dirfd, ca->key_name, O_RDONLY | O_CLOEXEC);
  key = fd < 0 ? NULL : fdopen (fd, "r");
  if (cert)
    ca->cert = PEM_read_X509 (cert, NULL, NULL, NULL);
  if (key)
    ca->key = PEM_read_PrivateKey (key, NULL, NULL, NULL);
  if (!ca->cert || !ca->key || X509_check_private_key (ca->cert, ca->key) != 1) {
    ERR_clear_error ();
    return fail (p, "%s/%s and %s are not a CA's certificate and its key; give the directory that "
                 "init-pki made, or a new one", p->dir, ca->cert_name, ca->key_name);
  }
  if (X509_cmp_current_time (X509_get0_notAfter (ca->cert)) <= 0)
    return fail (p, "the CA %s/%s has expired; make new ones in a new directory", p->dir,
                 ca->cert_name);
  return CRG_EXIT_FINE;
}

/* Makes a key and a certificate and writes both into dirfd. */
static int
issue (struct pki *p, const struct issuer *ca, const struct subject *s, int dirfd, const char *where,
       const char *cert_name, const char *key_name)
{
  char san[CRG_NAME_MAX + 8 + CRG_MAX_ADDRS * (CRG_ADDR_MAX + 8)], addresses[CONF_MAX_LINE + 1];
  char *save = NULL, *word;
  EVP_PKEY *key = EVP_EC_gen ("P-256");
  X509 *cert = key ? new_cert (key, s->name, ca->cert, p->days) : NULL;
  int rc = CRG_EXIT_ERROR;
  bool good;
  size_t n;

  good = cert && add_extension (cert, ca->cert, NID_basic_constraints, "critical,CA:FALSE")
         && add_extension (cert, ca->cert, NID_key_usage, "critical,digitalSignature")
         && add_extension (cert, ca->cert, NID_ext_key_usage, s->usage)
         && add_extension (cert, ca->cert, NID_subject_key_identifier, "hash")
         && add_extension (cert, ca->cert, NID_authority_key_identifier, "keyid");
  if (good && s->dns) {
    n = (size_t) snprintf (san, sizeof san, "DNS:%s", s->name);
    snprintf (addresses, sizeof addresses, "%s", s->addresses ? s->addresses : "");
    for (word = strtok_r (addresses, ",", &save); word && n < sizeof san;
         word = strtok_r (NULL, ",", &save))
      n += (size_t) snprintf (san + n, sizeof san - n, ",IP:%s", word);
    good = n < sizeof san && add_extension (cert, ca->cert, NID_subject_alt_name, san);
  }
  if (!good || !X509_sign (cert, ca->key, EVP_sha256 ()))
    fail (p, "cannot make a certificate for '%s'", s->name);
  else if (write_pem (p, dirfd, where, key_name, NULL, key) == CRG_EXIT_FINE
           && write_pem (p, dirfd, where, cert_name, cert, NULL) == CRG_EXIT_FINE)
    rc = CRG_EXIT_FINE;
  X509_free (cert);
  EVP_PKEY_free (key);
  return rc;
}

/* ---- directories ------------------------------------------------------------------------ */

static int
make_dir (struct pki *p, int parent, const char *name, const char *where)
{
  int fd = -1;

  if (mkdirat (parent, name, 0700) == 0)
    fd = openat (parent, name, O_DIRECTORY | O_RDONLY | O_CLOEXEC);
  if (fd < 0)
    fail (p, "cannot make the directory %s%s%s: %s", where, *where ? "/" : "", name, strerror (errno));
  return fd;
}

/* Puts 'made' in the place of 'name', whatever is there now. */
static int
put_in_place (struct pki *p, const char *made, const char *name)
{
  if (exists (p, name)) {
    if (renameat2 (p->dirfd, made, p->dirfd, name, RENAME_EXCHANGE) < 0)
      return fail (p, "cannot replace %s/%s: %s", p->dir, name, strerror (errno));
    remove_tree (p, made);
  }
  else if (renameat2 (p->dirfd, made, p->dirfd, name, RENAME_NOREPLACE) < 0)
    return fail (p, "cannot make %s/%s: %s", p->dir, name, strerror (errno));
  if (fsync (p->dirfd) < 0)
    return fail (p, "cannot make %s/%s durable: %s", p->dir, name, strerror (errno));
  printf ("made %s/%s\n", p->dir, name);
  return CRG_EXIT_FINE;
}

static int
fill_node (struct pki *p, int fd, const char *made, const char *node, const char *addresses)
{
  const struct subject own = { node, "serverAuth,clientAuth", addresses, true };
  const struct subject server = { node, "serverAuth", addresses, true };
  const struct subject client = { node, "clientAuth", NULL, false };
  char cert[CRG_NAME_MAX + 5], key[CRG_NAME_MAX + 5];
  CLEANUP_CLOSE int nbd = -1, nbd_client = -1;

  snprintf (cert, sizeof cert, "%s.pem", node);
  snprintf (key, sizeof key, "%s.key", node);
  if (write_pem (p, fd, made, "ca.pem", p->nodes.cert, NULL) != CRG_EXIT_FINE
      || issue (p, &p->nodes, &own, fd, made, cert, key) != CRG_EXIT_FINE)
    return CRG_EXIT_ERROR;
  nbd = make_dir (p, fd, "nbd", made);
  if (nbd < 0 || write_pem (p, nbd, made, "ca-cert.pem", p->clients.cert, NULL) != CRG_EXIT_FINE
      || issue (p, &p->nodes, &server, nbd, made, "server-cert.pem", "server-key.pem") != CRG_EXIT_FINE)
    return CRG_EXIT_ERROR;
  nbd_client = make_dir (p, fd, "nbd-client", made);
  if (nbd_client < 0
      || write_pem (p, nbd_client, made, "ca-cert.pem", p->nodes.cert, NULL) != CRG_EXIT_FINE
      || issue (p, &p->clients, &client, nbd_client, made, "client-cert.pem", "client-key.pem")
           != CRG_EXIT_FINE)
    return CRG_EXIT_ERROR;
  return CRG_EXIT_FINE;
}

static int
fill_client (struct pki *p, int fd, const char *made, const char *name)
{
  const struct subject client = { name, "clientAuth", NULL, false };

  /* Both CAs: that of the nodes judges the export's certificate; that of the clients is there
   * because qemu refuses a directory whose own certificate its CAs didn't sign. */
  if (write_cas (p, fd, made, "ca-cert.pem", p->nodes.cert, p->clients.cert) != CRG_EXIT_FINE)
    return CRG_EXIT_ERROR;
  return issue (p, &p->clients, &client, fd, made, "client-cert.pem", "client-key.pem");
}

/* DIR/NODE (addresses, or NULL) or DIR/clients/NAME. */
static int
make_holder (struct pki *p, const char *name, bool is_client, const char *addresses)
{
  char place[CRG_NAME_MAX + 16], made[CRG_NAME_MAX + 32];
  int rc;

  snprintf (place, sizeof place, "%s%s", is_client ? "clients/" : "", name);
  snprintf (made, sizeof made, "%s.%s.new", is_client ? "clients/" : "", name);
  remove_tree (p, made); /* of a run that was interrupted */
  {
    CLEANUP_CLOSE int fd = make_dir (p, p->dirfd, made, p->dir);

    if (fd < 0)
      return CRG_EXIT_ERROR;
    rc = is_client ? fill_client (p, fd, made, name) : fill_node (p, fd, made, name, addresses);
    if (rc == CRG_EXIT_FINE && fsync (fd) < 0)
      rc = fail (p, "cannot make %s/%s durable: %s", p->dir, made, strerror (errno));
  }
  if (rc == CRG_EXIT_FINE)
    rc = put_in_place (p, made, place);
  if (rc != CRG_EXIT_FINE)
    remove_tree (p, made);
  return rc;
}

/* ---- the command ------------------------------------------------------------------------ */

struct holder {
  char name[CRG_NAME_MAX + 1];
  const char *addresses;
};

/* "p1" or "p1=127.0.0.11,::1" */
static int
parse_node (struct cli *cli, const char *word, struct holder *h)
{
  static const char *const taken[]
    = { "ca.pem", "ca.key", "client-ca.pem", "client-ca.key", "clients" };
  const char *equals = strchr (word, '=');
  size_t len = equals ? (size_t) (equals - word) : strlen (word), i;
  char list[CONF_MAX_LINE + 1], *save = NULL, *address;
  unsigned char buf[sizeof (struct in6_addr)];
  unsigned n = 0;

  if (len <= CRG_NAME_MAX) {
    memcpy (h->name, word, len);
    h->name[len] = '\0';
  }
  if (len > CRG_NAME_MAX || !ident_name_is_valid (h->name))
    return cli_error (cli, CRG_EXIT_USAGE, "bad node name '%.*s'; allowed: 1 to %d of a-z 0-9 _ . -, "
                      "beginning with a letter or digit", (int) MIN (len, (size_t) 100), word,
                      CRG_NAME_MAX);
  for (i = 0; i < ARRAY_SIZE (taken); i++)
    if (strcmp (taken[i], h->name) == 0)
      return cli_error (cli, CRG_EXIT_USAGE, "a node can't be named '%s': init-pki writes a file of "
                        "that name", h->name);
  h->addresses = equals ? equals + 1 : NULL;
  if (!equals)
    return CRG_EXIT_FINE;
  snprintf (list, sizeof list, "%s", h->addresses);
  for (address = strtok_r (list, ",", &save); address; address = strtok_r (NULL, ",", &save)) {
    if (inet_pton (AF_INET, address, buf) != 1 && inet_pton (AF_INET6, address, buf) != 1)
      return cli_error (cli, CRG_EXIT_USAGE, "'%s' of node '%s' is neither an IPv4 nor an IPv6 address",
                        address, h->name);
    n++;
  }
  if (n < 1 || n > CRG_MAX_ADDRS)
    return cli_error (cli, CRG_EXIT_USAGE, "node '%s' has %u addresses; allowed: 1 to %d", h->name, n,
                      CRG_MAX_ADDRS);
  return CRG_EXIT_FINE;
}

/* Everything is refused before anything is written. */
static int
check_all (struct pki *p, const struct holder *nodes, unsigned n_nodes)
{
  struct cli *cli = p->cli;
  char place[CRG_NAME_MAX + 16];
  unsigned i, j;

  for (i = 0; i < n_nodes; i++)
    for (j = 0; j < i; j++)
      if (strcmp (nodes[i].name, nodes[j].name) == 0)
        return cli_error (cli, CRG_EXIT_USAGE, "node '%s' is given twice", nodes[i].name);
  for (i = 0; i < cli->n_clients; i++) {
    if (!ident_name_is_valid (cli->clients[i]))
      return cli_error (cli, CRG_EXIT_USAGE, "bad client name '%.100s'; allowed: 1 to %d of a-z 0-9 _ "
                        ". -, beginning with a letter or digit", cli->clients[i], CRG_NAME_MAX);
    for (j = 0; j < i; j++)
      if (strcmp (cli->clients[i], cli->clients[j]) == 0)
        return cli_error (cli, CRG_EXIT_USAGE, "client '%s' is given twice", cli->clients[i]);
  }
  if (p->dirfd < 0 || cli->given[OPT_FORCE])
    return CRG_EXIT_FINE;
  for (i = 0; i < n_nodes; i++)
    if (exists (p, nodes[i].name))
      return cli_error (cli, CRG_EXIT_NEEDS_FORCE, "%s/%s is there; --force makes it new (the CAs stay "
                        "as they are)", p->dir, nodes[i].name);
  for (i = 0; i < cli->n_clients; i++) {
    snprintf (place, sizeof place, "clients/%s", cli->clients[i]);
    if (exists (p, place))
      return cli_error (cli, CRG_EXIT_NEEDS_FORCE, "%s/%s is there; --force makes it new (the CAs stay "
                        "as they are)", p->dir, place);
  }
  return CRG_EXIT_FINE;
}

static int
make_all (struct pki *p, const struct holder *nodes, unsigned n_nodes)
{
  struct cli *cli = p->cli;
  bool have_ca, have_client_ca;
  unsigned i;
  int rc;

  have_ca = exists (p, p->nodes.cert_name);
  have_client_ca = exists (p, p->clients.cert_name);
  /* What is there is loaded before anything is made. */
  rc = have_ca ? load_ca (p, &p->nodes) : CRG_EXIT_FINE;
  if (rc == CRG_EXIT_FINE && have_client_ca)
    rc = load_ca (p, &p->clients);
  if (rc == CRG_EXIT_FINE && !have_ca)
    rc = make_ca (p, &p->nodes, "nbd-crg nodes");
  if (rc == CRG_EXIT_FINE && !have_client_ca)
    rc = make_ca (p, &p->clients, "nbd-crg clients");
  if (rc == CRG_EXIT_FINE && cli->n_clients > 0 && mkdirat (p->dirfd, "clients", 0700) < 0
      && errno != EEXIST)
    rc = fail (p, "cannot make %s/clients: %s", p->dir, strerror (errno));
  for (i = 0; rc == CRG_EXIT_FINE && i < n_nodes; i++)
    rc = make_holder (p, nodes[i].name, false, nodes[i].addresses);
  for (i = 0; rc == CRG_EXIT_FINE && i < cli->n_clients; i++)
    rc = make_holder (p, cli->clients[i], true, NULL);
  if (rc == CRG_EXIT_FINE)
    printf ("copy %s/NODE to NODE as its tls-certificates directory; keep %s/*.key off the nodes\n",
            p->dir, p->dir);
  return rc;
}

int
pki_init_command (struct cli *cli)
{
  static struct holder nodes[CLI_MAX_WORDS];
  struct pki p = { .cli = cli, .dir = cli->words[0], .dirfd = -1,
                   .nodes = { "ca.pem", "ca.key", NULL, NULL },
                   .clients = { "client-ca.pem", "client-ca.key", NULL, NULL } };
  unsigned i, n_nodes = cli->n_words - 1;
  int rc = CRG_EXIT_FINE;

  if (!cli_number (cli, OPT_DAYS, 1, 36500, PKI_DAYS, &p.days))
    return CRG_EXIT_USAGE;
  if (strlen (p.dir) > CRG_PATH_MAX)
    return cli_error (cli, CRG_EXIT_USAGE, "the path of the directory is longer than %d bytes",
                      CRG_PATH_MAX);
  for (i = 0; rc == CRG_EXIT_FINE && i < n_nodes; i++)
    rc = parse_node (cli, cli->words[i + 1], &nodes[i]);
  if (rc != CRG_EXIT_FINE)
    return rc;

  p.dirfd = open (p.dir, O_DIRECTORY | O_RDONLY | O_CLOEXEC);
  if (p.dirfd < 0 && errno != ENOENT)
    return fail (&p, "cannot open the directory %s: %s", p.dir, strerror (errno));
  rc = check_all (&p, nodes, n_nodes);
  if (rc == CRG_EXIT_FINE && p.dirfd < 0)
    p.dirfd = make_dir (&p, AT_FDCWD, p.dir, "");
  if (rc == CRG_EXIT_FINE)
    rc = p.dirfd < 0 ? CRG_EXIT_ERROR : make_all (&p, nodes, n_nodes);
  X509_free (p.nodes.cert);
  EVP_PKEY_free (p.nodes.key);
  X509_free (p.clients.cert);
  EVP_PKEY_free (p.clients.key);
  if (p.dirfd >= 0)
    close (p.dirfd);
  return rc;
}
