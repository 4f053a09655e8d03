/* SPDX-License-Identifier: BSD-3-Clause */
/* Asking nodes where production is: which of them is waited for, and for how long. */
#include "config.h"

#include <dlfcn.h>
#include <netdb.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include "common/ask.h"
#include "common/clock.h"
#include "common/exitcodes.h"
#include "common/util-posix.h"
#include "tests/tap.h"

static char dir[] = "/tmp/unit-ask.XXXXXX";

/* ---- libc's name service, as slow as is wanted -------------------------------------------- */

static unsigned lookups;       /* begun */
static int lookup_answer = EAI_INPROGRESS;
static struct gaicb *looked_for;

int
getaddrinfo (const char *name, const char *service, const struct addrinfo *hints, struct addrinfo **list)
{
  int (*real) (const char *, const char *, const struct addrinfo *, struct addrinfo **);

  if (!hints || !(hints->ai_flags & AI_NUMERICHOST))
    usleep (2500000); /* whoever asks so waits */
  *(void **) &real = dlsym (RTLD_NEXT, "getaddrinfo");
  return real (name, service, hints, list);
}

int
getaddrinfo_a (int mode, struct gaicb *list[], int n, struct sigevent *event)
{
  lookups++;
  looked_for = list[0];
  return mode == GAI_NOWAIT && n == 1 && !event ? 0 : EAI_SYSTEM;
}

int
gai_error (struct gaicb *cb)
{
  struct addrinfo hints = *cb->ar_request;

  hints.ai_flags |= AI_NUMERICHOST;
  if (cb != looked_for || lookup_answer)
    return lookup_answer;
  return getaddrinfo ("127.0.0.1", cb->ar_service, &hints, &cb->ar_result);
}

/* ---- nodes -------------------------------------------------------------------------------- */

/* A node on a Unix socket: takes one question, thinks for so long, and answers. */
struct node {
  const char *name;
  unsigned think_ms;
  bool served;
  uint8_t lineage;
  char path[64];
  int listener;
  pthread_t thread;
};

static void *
node_thread (void *opaque)
{
  struct node *n = opaque;
  int fd = accept (n->listener, NULL, NULL);
  struct query_answer a = { .served = n->served, .tenure = 3, .size = 65536, .code = CRG_EXIT_ERROR };
  char in[QUERY_MAX_LINE], *text;
  json_t *j;

  a.lineage[0] = n->lineage;
  snprintf (a.node, sizeof a.node, "%s", n->name);
  snprintf (a.host, sizeof a.host, "%s", n->name);
  snprintf (a.uri, sizeof a.uri, "nbd+unix:///payroll?socket=/s");
  snprintf (a.error, sizeof a.error, "not in a majority");
  j = query_answer_json (&a, "payroll");
  text = json_dumps (j, JSON_COMPACT);
  if (read (fd, in, sizeof in) > 0) {
    usleep (n->think_ms * 1000);
    send (fd, text, strlen (text), MSG_NOSIGNAL | MSG_MORE);
    send (fd, "\n", 1, MSG_NOSIGNAL);
  }
  close (fd);
  free (text);
  json_decref (j);
  return NULL;
}

static void
start_node (struct node *n, const char *name, unsigned think_ms, bool served)
{
  struct sockaddr_un sun = { .sun_family = AF_UNIX };

  *n = (struct node){ .name = name, .think_ms = think_ms, .served = served };
  snprintf (n->path, sizeof n->path, "%s/%s", dir, name);
  snprintf (sun.sun_path, sizeof sun.sun_path, "%s", n->path);
  n->listener = socket (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (bind (n->listener, (struct sockaddr *) &sun, sizeof sun) < 0 || listen (n->listener, 4) < 0
      || pthread_create (&n->thread, NULL, node_thread, n) != 0)
    abort ();
}

static void
end_node (struct node *n)
{
  pthread_join (n->thread, NULL);
  close (n->listener);
  unlink (n->path);
}

static struct ask_result result[CRG_MAX_NODES];
static const uint8_t any[CRG_ID_LEN];

/* C9: one that serves under another lineage doesn't end the wait for one that serves under ours. */
static void
test_lineage (uint8_t a, uint8_t b, int good)
{
  static const uint8_t ours[CRG_ID_LEN] = { 1 };
  static struct ask_list list;
  struct node near, far;
  char text[200], err[200];
  int i;

  start_node (&near, "near", 0, true);
  start_node (&far, "far", 100, true);
  near.lineage = a;
  far.lineage = b;
  snprintf (text, sizeof text, "unix:%s,unix:%s", near.path, far.path);
  ask_parse (&list, text, err, sizeof err);
  i = ask_all (&list, NULL, "payroll", 1, ours, 20000, -1, result);
  ok (i == good && result[0].answered, "C9: of lineages %u and %u: %d", a, b, i);
  is (result[1].answered, good != 0, "... and the other one was waited for, or not");
  end_node (&near);
  end_node (&far);
}

/* A near node that doesn't know, and a far one that does. */
static void
test_far (void)
{
  struct node near, far;
  static struct ask_list list;
  char text[200], err[200];

  start_node (&near, "near", 0, false);
  start_node (&far, "far", 2 * CLIENT_ASK_MORE_MS, true);
  snprintf (text, sizeof text, "unix:%s,unix:%s", near.path, far.path);
  ok (ask_parse (&list, text, err, sizeof err) == 0, "two nodes");
  ok (ask_all (&list, NULL, "payroll", 1, any, 20000, -1, result) == 1,
      "a node that is there is waited for when another one knows nothing: %s", result[1].error);
  ok (result[0].answered && !result[0].a.served && result[1].answered, "both have answered");
  end_node (&near);
  end_node (&far);
}

/* Certificates for a client that will get no further than to connect. */
static struct tlslink_ctx *
make_tls (void)
{
  static const char *const names[] = { "ca-cert.pem", "client-cert.pem", "client-key.pem" };
  EVP_PKEY *key = EVP_EC_gen ("P-256");
  X509 *x = X509_new ();
  struct tlslink_ctx *tls;
  char path[64], err[CRG_REASON_MAX + 1] = "";

  X509_set_version (x, 2);
  X509_gmtime_adj (X509_getm_notBefore (x), -60);
  X509_gmtime_adj (X509_getm_notAfter (x), 3600);
  X509_set_pubkey (x, key);
  X509_sign (x, key, EVP_sha256 ());
  for (unsigned i = 0; i < 3; i++) {
    FILE *f;

    snprintf (path, sizeof path, "%s/%s", dir, names[i]);
    f = fopen (path, "w");
    if (i < 2)
      PEM_write_X509 (f, x);
    else
      PEM_write_PrivateKey (f, key, NULL, NULL, 0, NULL, NULL);
    fclose (f);
  }
  tls = ask_load_tls (dir, err, sizeof err);
  for (unsigned i = 0; i < 3; i++) {
    snprintf (path, sizeof path, "%s/%s", dir, names[i]);
    unlink (path);
  }
  X509_free (x);
  EVP_PKEY_free (key);
  if (!tls) {
    printf ("# %s\n", err);
    abort ();
  }
  return tls;
}

/* A TCP port to which no connection is ever finished: its queue is full. */
static in_port_t
start_dead (int fds[8])
{
  struct sockaddr_in sin = { .sin_family = AF_INET, .sin_addr.s_addr = htonl (INADDR_LOOPBACK) };
  socklen_t len = sizeof sin;

  fds[0] = socket (AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (bind (fds[0], (struct sockaddr *) &sin, sizeof sin) < 0 || listen (fds[0], 0) < 0
      || getsockname (fds[0], (struct sockaddr *) &sin, &len) < 0)
    abort ();
  for (unsigned i = 1; i < 8; i++) {
    fds[i] = socket (AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    connect (fds[i], (struct sockaddr *) &sin, sizeof sin);
  }
  return ntohs (sin.sin_port);
}

/* A machine that is gone: who has answered speaks for it. */
static void
test_dead (struct tlslink_ctx *tls)
{
  struct node near;
  static struct ask_list list;
  char text[200], err[200];
  uint64_t begun_ms;
  int fds[8];

  start_node (&near, "near", 0, false);
  snprintf (text, sizeof text, "gone=127.0.0.1:%u,unix:%s", start_dead (fds), near.path);
  ok (ask_parse (&list, text, err, sizeof err) == 0, "a node that is gone, and one that knows nothing");
  begun_ms = clock_boottime_ms ();
  ok (ask_all (&list, tls, "payroll", 1, any, 60000, -1, result) == -1 && result[1].answered, "nobody knows");
  ok (clock_boottime_ms () < begun_ms + 30000, "what isn't even connected is not waited for");
  ok (strstr (result[0].error, "not even a connection") != NULL, "and that is said: %s", result[0].error);
  end_node (&near);
  for (unsigned i = 0; i < 8; i++)
    close (fds[i]);
}

/* A node's name is looked for, and nobody waits for that who has an answer of another one; an
 * address that was found serves while it is looked for anew. */
static void
test_lookup (struct tlslink_ctx *tls)
{
  struct node near;
  static struct ask_list list;
  struct ask_node *gone = &list.node[0];
  char text[200], err[200];
  int fds[8];

  start_node (&near, "near", 0, true);
  snprintf (text, sizeof text, "gone=gone.example:%u,unix:%s", start_dead (fds), near.path);
  ok (ask_parse (&list, text, err, sizeof err) == 0, "a node by name, and one that knows");
  ok (ask_all (&list, tls, "payroll", 1, any, 2000, -1, result) == 1, "the name service is dead, and the other one is heard");
  is (lookups, 1, "it is looked for once");
  end_node (&near);

  list.n = 1;
  ok (ask_all (&list, tls, "payroll", 1, any, 100, -1, result) == -1 && strstr (result[0].error, "still looked for"),
      "for what it waits: %s", result[0].error);
  is (lookups, 1, "and goes on with what was begun");
  lookup_answer = EAI_NONAME;
  ok (ask_all (&list, tls, "payroll", 1, any, 20000, -1, result) == -1 && strstr (result[0].error, gai_strerror (EAI_NONAME)),
      "an unknown name: %s", result[0].error);
  lookup_answer = 0;
  ok (ask_all (&list, tls, "payroll", 1, any, 100, -1, result) == -1 && strstr (result[0].error, "not even a connection"),
      "an address: %s", result[0].error);
  is (lookups, 2, "a failure is not the last word");
  lookup_answer = EAI_INPROGRESS;
  ok (ask_all (&list, tls, "payroll", 1, any, 100, -1, result) == -1 && strstr (result[0].error, "not even a connection"),
      "the old address is used while it is looked for: %s", result[0].error);
  is (lookups, 3, "anew, as nobody is there");
  lookup_answer = 0;
  ask_all (&list, tls, "payroll", 1, any, 100, -1, result);
  ok (gone->lookup.job == NULL, "none is left");
  for (unsigned i = 0; i < 8; i++)
    close (fds[i]);

  ok (ask_parse (&list, "near=127.0.0.1:1", err, sizeof err) == 0, "an address");
  for (unsigned i = 0; i < 3; i++)
    ask_all (&list, tls, "payroll", 1, any, 20000, -1, result);
  ok (lookups == 3 && strstr (result[0].error, "Connection refused"), "is no name: %s", result[0].error);
}

int
main (void)
{
  struct tlslink_ctx *tls;

  if (!mkdtemp (dir))
    abort ();
  tls = make_tls ();
  test_lineage (2, 1, 1);
  test_lineage (2, 3, -1);
  test_lineage (0, 1, 0);
  test_lineage (1, 2, 0);
  test_far ();
  test_dead (tls);
  test_lookup (tls);
  tlslink_ctx_free (tls);
  rmdir (dir);
  return tap_done ();
}
