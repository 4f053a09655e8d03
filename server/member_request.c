/* SPDX-License-Identifier: BSD-3-Clause
 *
 * What operators ask of a CRG's group: each request waits here for the group's
 * answer, within a time, and is answered once: also when the group ends.  Main
 * loop's thread only.
 */
#include "config.h"

#include "server/member_private.h"

#include "common/clock.h"
#include "common/exitcodes.h"

void
member_reply (struct member *m, uint64_t id, int code, const char *reason)
{
  for (unsigned i = 0; i < MEMBER_MAX_REQUESTS; i++)
    if (m->requests[i].id == id && id != 0) {
      struct pending_request r = m->requests[i];

      m->requests[i].id = 0;
      r.done (r.opaque, code, reason);
      return;
    }
}

static void
request (struct member *m, struct group_event *ev, unsigned timeout_ms, member_reply_fn *done,
         void *opaque)
{
  for (unsigned i = 0; i < MEMBER_MAX_REQUESTS; i++)
    if (m->requests[i].id == 0) {
      m->requests[i] = (struct pending_request){
        .id = ++m->next_request, .deadline_ms = clock_boottime_ms () + timeout_ms + REQUEST_ANSWER_MS, .done = done,
        .opaque = opaque };
      ev->request_id = m->next_request;
      ev->wait_ms = timeout_ms;
      member_step (m, ev);
      return;
    }
  done (opaque, CRG_EXIT_ERROR, "too many requests are waiting; try again later");
}

void
member_request (struct member *m, enum group_request what, const struct member_about *about,
                bool forced, bool dry_run, unsigned timeout_ms, member_reply_fn *done, void *opaque)
{
  request (m, &(struct group_event){ .kind = GE_REQUEST, .request = (uint8_t) what,
                                     .node = about->node, .iasp = about->iasp, .site = about->site,
                                     .mode = (uint8_t) about->mode, .forced = forced,
                                     .dry_run = dry_run },
           timeout_ms, done, opaque);
}

void
member_request_node (struct member *m, const struct node_change *change, unsigned timeout_ms,
                     member_reply_fn *done, void *opaque)
{
  request (m, &(struct group_event){ .kind = GE_REQUEST, .request = GR_NODE, .node_change = change },
           timeout_ms, done, opaque);
}

void
member_forget_requests (struct member *m, void *opaque)
{
  for (unsigned i = 0; i < MEMBER_MAX_REQUESTS; i++)
    if (m->requests[i].id && m->requests[i].opaque == opaque)
      m->requests[i].id = 0;
}

void
member_expire_requests (struct member *m, uint64_t now_ms)
{
  for (unsigned i = 0; i < MEMBER_MAX_REQUESTS; i++)
    if (m->requests[i].id && now_ms >= m->requests[i].deadline_ms)
      member_reply (m, m->requests[i].id, CRG_EXIT_TIMEOUT,
                    "no answer of the group in time; its outcome is in `crgctl status`");
}

void
member_end_requests (struct member *m)
{
  const struct crg_state *s = member_state (m);

  for (unsigned i = 0; i < MEMBER_MAX_REQUESTS; i++)
    if (m->requests[i].id == 0)
      continue;
    else if (s && s->deleted)
      member_reply (m, m->requests[i].id, CRG_EXIT_FINE, "");
    else
      member_reply (m, m->requests[i].id, CRG_EXIT_ERROR,
                    "the view was lost: this node has left the group; the outcome is in `crgctl status`");
}
