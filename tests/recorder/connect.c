/* SPDX-License-Identifier: BSD-3-Clause */
/* Finding production and connecting to it, with a bound on the time of every step: a stopped
 * server accepts connections and says nothing.  Called from any thread.
 */
#include <config.h>

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <libnbd.h>

#include "tests/recorder/recorder.h"

#define ASK_TIMEOUT_S "5"

uint64_t
rec_now (void)
{
  struct timespec ts;

  clock_gettime (CLOCK_MONOTONIC, &ts);
  return (uint64_t) ts.tv_sec * 1000000000u + (uint64_t) ts.tv_nsec;
}

int
rec_ask_uri (const struct rec_options *opt, char uri[REC_URI_MAX])
{
  char command[2 * REC_URI_MAX];
  FILE *f;
  bool got;

  if (opt->uri) {
    if (snprintf (uri, REC_URI_MAX, "%s", opt->uri) >= REC_URI_MAX)
      return -1;
    return 0;
  }
  if (snprintf (command, sizeof command, "exec 2>/dev/null; exec timeout -k 1 %s %s", ASK_TIMEOUT_S,
                opt->uri_command)
      >= (int) sizeof command)
    return -1;
  f = popen (command, "re");
  if (!f)
    return -1;
  got = fgets (uri, REC_URI_MAX, f) != NULL;
  if (pclose (f) != 0 || !got)
    return -1;
  uri[strcspn (uri, "\r\n")] = 0;
  return uri[0] ? 0 : -1;
}

struct nbd_handle *
rec_connect (const struct rec_options *opt, unsigned timeout_ms, char uri[REC_URI_MAX], char *why,
             unsigned why_len)
{
  struct nbd_handle *nbd = NULL;
  uint64_t until;

  uri[0] = 0;
  if (rec_ask_uri (opt, uri) < 0) {
    snprintf (why, why_len, "nobody says where production is");
    return NULL;
  }
  until = rec_now () + (uint64_t) timeout_ms * 1000000u;
  nbd = nbd_create ();
  if (!nbd)
    goto err;
  nbd_set_uri_allow_local_file (nbd, true);
  if (opt->tls_certificates
      && nbd_set_tls_certificates (nbd, opt->tls_certificates) < 0)
    goto err;
  if (nbd_aio_connect_uri (nbd, uri) < 0)
    goto err;
  while (nbd_aio_is_connecting (nbd)) {
    if (rec_now () > until) {
      snprintf (why, why_len, "no handshake within %u ms", timeout_ms);
      goto out;
    }
    if (nbd_poll (nbd, 50) < 0)
      goto err;
  }
  if (nbd_aio_is_ready (nbd) == 1)
    return nbd;
err:
  snprintf (why, why_len, "%s", nbd_get_error () ? nbd_get_error () : "closed in the handshake");
out:
  nbd_close (nbd);
  return NULL;
}
