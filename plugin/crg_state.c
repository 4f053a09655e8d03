/* SPDX-License-Identifier: BSD-3-Clause */
/* What the plugin `crg` keeps for the process after it, and what it tells people.
 *
 * The record is one short JSON object in a file that is replaced as a whole: tenure and loss that
 * were used, what the export was (Y3).  It is of use as long as somebody's requests outlive this
 * process, so it belongs to where that somebody's life ends, too: /run.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/jsonl.h"
#include "common/util-posix.h"
#include "plugin/crg.h"
#include "plugin/crg_record.h"
#include "plugin/log.h"

/* ---- on record ---------------------------------------------------------------------------- */

int
crg_state_read (struct crg *c, char *err, size_t errlen)
{
  const char *path = c->p.state_path, *why;
  char text[CRG_RECORD_MAX + 1];
  struct crg_record r = { 0 };
  CLEANUP_CLOSE int fd = open (path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  ssize_t n;

  if (fd < 0 && errno == ENOENT)
    return 0;
  n = fd < 0 ? -1 : read (fd, text, sizeof text);
  why = n < 0 ? strerror (errno) : crg_record_parse (text, (size_t) n, c->p.iasp, &r);
  if (why) {
    snprintf (err, errlen, "%s: %s; it says what was used before, so it can't be ignored: end what is attached, then "
              "remove it", path, why);
    return -EINVAL;
  }
  follow_resume (&c->f, &(struct follow_offer){ .tenure = r.tenure, .loss = r.loss, .size = r.size, .flags = r.flags,
                                                .lineage = r.lineage });
  return 1;
}

int
crg_state_write (const struct crg *c, const struct follow_offer *o)
{
  char next[CRG_PATH_MAX + 8];
  struct crg_record r = { o->tenure, o->loss, o->size, c->f.attached ? c->f.flags : o->flags,
                          follow_lineage (&c->f, o) };
  CLEANUP_FREE char *text = crg_record_text (&r, c->p.iasp);
  CLEANUP_CLOSE int fd = -1;
  size_t len = text ? strlen (text) : 0;

  if (!text)
    return -ENOMEM;
  snprintf (next, sizeof next, "%s.new", c->p.state_path);
  fd = open (next, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd < 0)
    return -errno;
  errno = EIO;
  if (write (fd, text, len) != (ssize_t) len || fsync (fd) < 0 || rename (next, c->p.state_path) < 0)
    return -errno;
  return 0;
}

/* ---- status ------------------------------------------------------------------------------- */

static const char *const state_names[] = {
  [CRG_LOOKING] = "looking", [CRG_REWRITING] = "rewriting", [CRG_UP] = "connected", [CRG_LOST] = "lost",
};

static json_t *
status (struct crg *c)
{
  uint64_t now_ms = clock_boottime_ms ();
  json_t *nodes = json_array (), *o;
  uint64_t bytes = 0;
  int under_way = 0;
  LOCK_SCOPE (&c->lock);

  for (unsigned i = 0; i < c->p.nodes.n; i++)
    json_array_append_new (nodes, json_pack ("{s:s, s:o}", "name", c->p.nodes.node[i].name[0] ? c->p.nodes.node[i].name
                                                                                             : c->p.nodes.node[i].path,
                                             "said", jsonl_string (c->said[i])));
  for (uint32_t i = 0; i < c->f.n; i++)
    bytes += follow_kept (&c->f, i)->op == FOLLOW_WRITE ? follow_kept (&c->f, i)->length : 0;
  for (unsigned k = 0; c->current && k < c->current->n; k++)
    under_way += MAX (nbd_aio_in_flight (c->current->conn[k].nbd), 0);
  o = json_pack ("{s:b, s:s, s:s, s:s, s:i, s:s, s:s, s:I, s:I, s:I, s:i}", "ok", 1, "iasp", c->p.iasp, "client",
                 c->p.client, "state", state_names[c->state], "pid", (int) getpid (), "host",
                 c->current ? c->current->host : "", "uri", c->current ? c->current->uri : "", "tenure",
                 (json_int_t) c->f.tenure, "loss", (json_int_t) c->f.loss, "size", (json_int_t) c->f.size, "connections",
                 c->current ? (int) c->current->n : 0);
  if (c->wait_reason[0])
    json_object_set_new (o, "wait", json_pack ("{s:s, s:o, s:I}", "owner", c->p.iasp, "reason", jsonl_string (c->wait_reason), "age_ms",
                                               (json_int_t) (now_ms - c->wait_since_ms)));
  else
    json_object_set_new (o, "wait", json_null ());
  json_object_set_new (o, "requests", json_pack ("{s:i, s:i, s:i, s:I}", "under_way", under_way, "behind", (int) c->n_behind,
                                                 "waiting", (int) c->n_waiting, "oldest_wait_ms", (json_int_t) (c->n_waiting ? now_ms - c->oldest_wait_ms : 0)));
  json_object_set_new (o, "kept", json_pack ("{s:i, s:I, s:I}", "writes", (int) c->f.n, "bytes", (json_int_t) bytes,
                                             "overflows", (json_int_t) c->f.n_forgotten));
  json_object_set_new (o, "counters", json_pack ("{s:I, s:I, s:I, s:I, s:I}", "sessions", (json_int_t) c->sessions, "resent",
                                                 (json_int_t) c->resent, "rewritten", (json_int_t) c->rewritten,
                                                 "last_pause_ms", (json_int_t) c->last_pause_ms, "longest_pause_ms",
                                                 (json_int_t) c->longest_pause_ms));
  json_object_set_new (o, "nodes", nodes);
  return o;
}

int
crg_status_listen (struct crg *c, char *err, size_t errlen)
{
  c->status_listen = jsonl_listen (c->p.status_path, 0660);
  if (c->status_listen >= 0)
    return 0;
  snprintf (err, errlen, "status=%s: %s", c->p.status_path, strerror (-c->status_listen));
  return c->status_listen;
}

/* Whoever connects is told, and that is all. */
void *
crg_status_thread (void *opaque)
{
  struct crg *c = opaque;
  struct pollfd pfd[2] = { { .fd = c->status_listen, .events = POLLIN }, { .fd = c->stop_fd, .events = POLLIN } };

  prctl (PR_SET_NAME, "crg-status");
  while (poll (pfd, 2, -1) < 0 || !pfd[1].revents) {
    CLEANUP_CLOSE int fd = jsonl_accept (c->status_listen);
    json_t *o;

    if (fd < 0)
      continue;
    o = status (c);
    jsonl_send (fd, o, CLIENT_STATUS_MS);
    json_decref (o);
  }
  return NULL;
}
