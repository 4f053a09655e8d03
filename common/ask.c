/* SPDX-License-Identifier: BSD-3-Clause */
/* Asks nodes, as ask.h says: non-blocking connections under one poll.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/ask.h"
#include "common/clock.h"
#include "common/ident.h"
#include "common/jsonl.h"
#include "common/util-posix.h"

/* ---- who is asked ------------------------------------------------------------------------- */

static int
parse_one (struct ask_node *n, char *word, char *err, size_t errlen)
{
  char *equals, *colon, *address;
  long port = QUERY_PORT;

  memset (n, 0, sizeof *n);
  if (strncmp (word, "unix:", 5) == 0) {
    if (word[5] != '/' || strlen (word + 5) > CRG_SOCK_PATH_MAX) {
      snprintf (err, errlen, "'%.200s': a socket's path is absolute and has at most %d bytes", word, CRG_SOCK_PATH_MAX);
      return -EINVAL;
    }
    snprintf (n->path, sizeof n->path, "%s", word + 5);
    return 0;
  }
  equals = strchr (word, '=');
  address = equals ? equals + 1 : word;
  colon = strrchr (address, ':');
  if (colon && strchr (address, ':') != colon && colon[-1] != ']')
    colon = NULL; /* an IPv6 address alone */
  if (colon) {
    char *end;

    port = strtol (colon + 1, &end, 10);
    if (end == colon + 1 || *end || port < 1 || port > 65535) {
      snprintf (err, errlen, "'%.200s': a port is a number from 1 to 65535", word);
      return -EINVAL;
    }
    *colon = '\0';
  }
  if (address[0] == '[' && address[strlen (address) - 1] == ']') {
    address[strlen (address) - 1] = '\0';
    address++;
  }
  if (equals)
    *equals = '\0';
  if (!ident_name_is_valid (word) || address[0] == '\0' || strlen (address) > CRG_HOST_MAX) {
    snprintf (err, errlen, "'%.200s' is not of the form NODE[=ADDRESS][:PORT] or unix:PATH", word);
    return -EINVAL;
  }
  snprintf (n->name, sizeof n->name, "%s", word);
  snprintf (n->address, sizeof n->address, "%s", address);
  n->port = (uint16_t) port;
  return 0;
}

int
ask_parse (struct ask_list *list, const char *text, char *err, size_t errlen)
{
  CLEANUP_FREE char *copy = strdup (text);
  char *save = NULL;

  list->n = 0;
  if (!copy) {
    snprintf (err, errlen, "out of memory");
    return -ENOMEM;
  }
  for (char *word = strtok_r (copy, ",", &save); word; word = strtok_r (NULL, ",", &save)) {
    if (list->n == CRG_MAX_NODES) {
      snprintf (err, errlen, "more than %d nodes", CRG_MAX_NODES);
      return -EINVAL;
    }
    if (parse_one (&list->node[list->n], word, err, errlen) < 0)
      return -EINVAL;
    list->n++;
  }
  if (list->n == 0) {
    snprintf (err, errlen, "no node is named");
    return -EINVAL;
  }
  return 0;
}

bool
ask_needs_tls (const struct ask_list *list)
{
  for (unsigned i = 0; i < list->n; i++)
    if (list->node[i].path[0] == '\0')
      return true;
  return false;
}

struct tlslink_ctx *
ask_load_tls (const char *dir, char *err, size_t errlen)
{
  char ca[CRG_PATH_MAX + 32], cert[CRG_PATH_MAX + 32], key[CRG_PATH_MAX + 32];

  snprintf (ca, sizeof ca, "%s/ca-cert.pem", dir);
  snprintf (cert, sizeof cert, "%s/client-cert.pem", dir);
  snprintf (key, sizeof key, "%s/client-key.pem", dir);
  return tlslink_ctx_new (ca, cert, key, err, errlen);
}

/* ---- one conversation --------------------------------------------------------------------- */

struct talk {
  struct ask_node *node;
  struct ask_result *result;
  struct tlslink *tls; /* NULL: a Unix socket */
  struct jsonl_reader in;
  char *request;       /* with its newline */
  size_t sent, len;
  int fd;              /* -1: over, or not begun */
  bool looking;        /* for the address */
  bool connecting;
};

static void
end_talk (struct talk *t)
{
  if (t->fd >= 0)
    close (t->fd);
  t->fd = -1;
  t->looking = false;
  tlslink_free (t->tls);
  t->tls = NULL;
  jsonl_reader_free (&t->in);
}

UTIL_PRINTF (2, 3)
static void
fail_talk (struct talk *t, const char *fmt, ...)
{
  va_list ap;

  va_start (ap, fmt);
  vsnprintf (t->result->error, sizeof t->result->error, fmt, ap);
  va_end (ap);
  end_talk (t);
}

static int
connect_unix (const char *path)
{
  struct sockaddr_un sun = { .sun_family = AF_UNIX };
  int fd = socket (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

  if (fd < 0)
    return -errno;
  snprintf (sun.sun_path, sizeof sun.sun_path, "%s", path);
  if (connect (fd, (struct sockaddr *) &sun, sizeof sun) < 0) {
    int r = -errno;

    close (fd);
    return r;
  }
  return fd;
}

static int
connect_tcp (const struct lookup *l)
{
  int fd = socket (l->address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), one = 1;

  if (fd < 0)
    return -errno;
  setsockopt (fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  if (connect (fd, (const struct sockaddr *) &l->address, l->len) < 0 && errno != EINPROGRESS) {
    int r = -errno;

    close (fd);
    return r;
  }
  return fd;
}

static void
begin_unix (struct talk *t)
{
  int fd = connect_unix (t->node->path);

  if (fd < 0)
    fail_talk (t, "%s: %s", t->node->path, strerror (-fd));
  t->fd = fd < 0 ? -1 : fd;
}

/* Also once more, as long as the address is looked for. */
static void
begin_tcp (struct talk *t, struct tlslink_ctx *tls)
{
  struct ask_node *n = t->node;
  const char *why, *name = n->name;
  int r;

  if (!tls) {
    fail_talk (t, "node %s: no certificates were given", n->name);
    return;
  }
  r = lookup_go_on (&n->lookup, n->address, n->port, &why);
  t->looking = r == 0;
  if (r == 0)
    return;
  if (r > 0 && (r = connect_tcp (&n->lookup)) < 0)
    why = strerror (-r);
  if (r < 0) {
    fail_talk (t, "node %s at %s: %s", n->name, n->address, why);
    return;
  }
  t->fd = r;
  t->connecting = true;
  t->tls = tlslink_new (tls, false, &name, 1, TLSLINK_OUT_LEAST);
  if (!t->tls)
    fail_talk (t, "out of memory");
}

/* A line may have come. */
static void
take_answer (struct talk *t, const char *iasp)
{
  json_t *obj = NULL;
  const char *wrong;
  int r = jsonl_reader_next (&t->in, &obj, NULL);

  if (r == 0)
    return;
  wrong = r < 0 ? "it is not JSON" : query_answer_parse (obj, iasp, &t->result->a);
  json_decref (obj);
  if (wrong) {
    fail_talk (t, "node %s: its answer is not understood: %s", t->node->name[0] ? t->node->name : t->node->path, wrong);
    return;
  }
  /* A node speaks for itself alone. */
  if (t->node->name[0] && strcmp (t->result->a.node, t->node->name) != 0) {
    fail_talk (t, "node %s calls itself %s; correct the list of nodes", t->node->name, t->result->a.node);
    return;
  }
  t->result->answered = true;
  end_talk (t);
}

static void
move_plain (struct talk *t, const char *iasp)
{
  char buf[QUERY_MAX_LINE];
  ssize_t n;

  while (t->fd >= 0 && t->sent < t->len) {
    n = send (t->fd, t->request + t->sent, t->len - t->sent, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n < 0)
      break;
    t->sent += (size_t) n;
  }
  while (t->fd >= 0) {
    n = recv (t->fd, buf, sizeof buf, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
      break;
    if (n <= 0 || jsonl_reader_append (&t->in, buf, (size_t) n) < 0) {
      fail_talk (t, "%s: crgd hung up", t->node->path);
      break;
    }
    take_answer (t, iasp);
  }
}

static void
fail_tls (struct talk *t)
{
  char reason[CRG_REASON_MAX + 1];

  snprintf (reason, sizeof reason, "%s", tlslink_reason (t->tls));
  fail_talk (t, "node %s: %.*s", t->node->name, CRG_REASON_MAX - CRG_NAME_MAX - 16, reason);
}

static void
move_tls (struct talk *t, const char *iasp)
{
  char buf[QUERY_MAX_LINE];
  const uint8_t *out;
  uint8_t *in;
  size_t space, len;
  ssize_t n;
  bool more = true;

  while (more && t->fd >= 0) {
    more = false;
    space = tlslink_in_space (t->tls, &in);
    n = space > 0 ? recv (t->fd, in, space, MSG_DONTWAIT) : -1;
    if (n > 0) {
      tlslink_in_commit (t->tls, (size_t) n);
      more = true;
    }
    else if (n == 0)
      tlslink_in_eof (t->tls);
    else if (space > 0 && errno != EAGAIN && errno != EINTR) {
      fail_talk (t, "node %s: %s", t->node->name, strerror (errno));
      return;
    }
    if (tlslink_drive (t->tls) == TL_UP && t->sent < t->len) {
      if (tlslink_write (t->tls, t->request, t->len) != (ssize_t) t->len || tlslink_flush (t->tls) < 0) {
        fail_tls (t);
        return;
      }
      t->sent = t->len;
    }
    while ((len = tlslink_out_data (t->tls, &out)) > 0) {
      ssize_t w = send (t->fd, out, len, MSG_NOSIGNAL | MSG_DONTWAIT);

      if (w < 0)
        break;
      tlslink_out_consume (t->tls, (size_t) w);
    }
    while (t->fd >= 0 && (n = tlslink_read (t->tls, buf, sizeof buf)) > 0) {
      if (jsonl_reader_append (&t->in, buf, (size_t) n) < 0) {
        fail_talk (t, "node %s: its answer is too long", t->node->name);
        return;
      }
      take_answer (t, iasp);
    }
    if (t->fd >= 0 && tlslink_get_state (t->tls) == TL_FAILED)
      fail_tls (t);
    else if (t->fd >= 0 && tlslink_get_state (t->tls) == TL_CLOSED)
      fail_talk (t, "node %s: it closed the connection without an answer", t->node->name);
  }
}

static void
go_on (struct talk *t, const char *iasp)
{
  int e = 0;
  socklen_t len = sizeof e;

  if (t->connecting) {
    t->connecting = false;
    if (getsockopt (t->fd, SOL_SOCKET, SO_ERROR, &e, &len) < 0)
      e = errno;
    if (e) {
      fail_talk (t, "node %s at %s port %u: %s", t->node->name, t->node->address, t->node->port, strerror (e));
      return;
    }
  }
  if (t->tls)
    move_tls (t, iasp);
  else
    move_plain (t, iasp);
}

/* ---- all of them -------------------------------------------------------------------------- */

static short
wants (const struct talk *t)
{
  bool out = t->connecting || (t->tls ? tlslink_out_pending (t->tls) > 0 : t->sent < t->len);

  return (short) (POLLIN | (out ? POLLOUT : 0));
}

static bool
is_good (const struct ask_result *r, uint64_t min_tenure, const uint8_t lineage[CRG_ID_LEN])
{
  return r->answered && r->a.served && r->a.tenure >= min_tenure
         && (ident_id_is_zero (lineage) || ident_id_is_zero (r->a.lineage) || ident_id_equal (lineage, r->a.lineage));
}

/* Who has not answered when the time is over. */
static void
give_up (struct talk *t)
{
  const struct ask_node *n = t->node;

  fail_talk (t, "node %s at %s: no answer%s", n->name[0] ? n->name : "-", n->name[0] ? n->address : n->path,
             t->looking      ? "; its address is still looked for"
             : t->connecting ? ", not even a connection"
                             : "");
}

int
ask_all (struct ask_list *list, struct tlslink_ctx *tls, const char *iasp, uint64_t min_tenure,
         const uint8_t lineage[CRG_ID_LEN], unsigned timeout_ms, int stop_fd, struct ask_result result[CRG_MAX_NODES])
{
  const uint64_t until = clock_boottime_ms () + timeout_ms;
  uint64_t connect_until = until; /* for those that are not connected yet */
  struct talk talk[CRG_MAX_NODES];
  json_t *req = query_request (iasp);
  CLEANUP_FREE char *text = req ? json_dumps (req, JSON_COMPACT) : NULL;
  size_t len = text ? strlen (text) : 0;
  CLEANUP_FREE char *line = text ? malloc (len + 2) : NULL;
  int found = -1;

  json_decref (req);
  memset (result, 0, list->n * sizeof *result);
  memset (talk, 0, sizeof talk);
  if (!line) {
    for (unsigned i = 0; i < list->n; i++)
      snprintf (result[i].error, sizeof result[i].error, "out of memory");
    return -1;
  }
  memcpy (line, text, len);
  memcpy (line + len, "\n", 2);
  for (unsigned i = 0; i < list->n; i++) {
    struct talk *t = &talk[i];

    t->fd = -1;
    t->node = &list->node[i];
    t->result = &result[i];
    t->request = line;
    t->len = len + 1;
    jsonl_reader_init (&t->in, QUERY_MAX_LINE);
    if (t->node->path[0])
      begin_unix (t);
    else
      begin_tcp (t, tls);
  }
  while (found < 0) {
    struct pollfd pfd[CRG_MAX_NODES + 1];
    unsigned of[CRG_MAX_NODES + 1], n = 0;
    uint64_t now = clock_boottime_ms (), end = connect_until;
    bool looking = false;

    for (unsigned i = 0; i < list->n; i++) {
      if (talk[i].looking)
        begin_tcp (&talk[i], tls);
      looking |= talk[i].looking;
      if (talk[i].fd < 0)
        continue;
      pfd[n] = (struct pollfd){ .fd = talk[i].fd, .events = wants (&talk[i]) };
      of[n++] = i;
      if (!talk[i].connecting)
        end = until;
    }
    if ((n == 0 && !looking) || now >= end)
      break;
    pfd[n] = (struct pollfd){ .fd = stop_fd, .events = POLLIN }; /* -1 is ignored */
    if (poll (pfd, n + 1, (int) MIN (end - now, looking ? CLIENT_LOOKUP_MS : UINT64_MAX)) < 0 && errno != EINTR)
      break;
    if (pfd[n].revents)
      break;
    for (unsigned k = 0; k < n; k++) {
      if (!pfd[k].revents)
        continue;
      go_on (&talk[of[k]], iasp);
      /* Machines that are gone must not cost the whole time when another one has answered.  One
       * that is there, and only far, has all of it: it may be the one that knows. */
      if (result[of[k]].answered)
        connect_until = MIN (connect_until, clock_boottime_ms () + CLIENT_ASK_MORE_MS);
      if (found < 0 && is_good (&result[of[k]], min_tenure, lineage))
        found = (int) of[k];
    }
  }
  for (unsigned i = 0; i < list->n; i++) {
    if (talk[i].fd >= 0 || talk[i].looking)
      give_up (&talk[i]);
    else
      jsonl_reader_free (&talk[i].in);
    if (found < 0 && !result[i].answered)
      lookup_doubt (&list->node[i].lookup);
  }
  return found;
}
