/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The inside of the shell of one CRG, for its files: member.c (life, views,
 * time, the core's actions), member_plugin.c (plugins and stores),
 * member_agent.c (resources that agents run), member_request.c (operators).
 */
#ifndef CRG_MEMBER_PRIVATE_H
#define CRG_MEMBER_PRIVATE_H

#include <stdio.h>

#include <qb/qbdefs.h>
#include <qb/qbloop.h>

#include "server/agent.h"
#include "server/member.h"
#include "server/task.h"

/* Events that one step's actions can cause: an answer for each IASP, twice. */
#define MEMBER_MAX_EVENTS (4 * CRG_MAX_IASPS)
#define MEMBER_MAX_REQUESTS 32
/* A changed report goes out after SOON, so that what changes together goes
 * together, and not more often than MIN. */
#define REPORT_SOON_MS 10
#define REPORT_MIN_MS 100

struct node_id {
  uint32_t engine_id, id;
  char name[CRG_NAME_MAX + 1];
};

struct pending_request {
  uint64_t id; /* 0 = free */
  uint64_t deadline_ms;
  member_reply_fn *done;
  void *opaque;
};

struct iasp_shell {
  struct member *m;
  unsigned index;
  struct plugin *plugin; /* of an IASP */
  struct agent *agent;   /* of a script */
  struct task *probe;
  bool claimed; /* the core has said what it wants of it: */
  uint8_t told; /* enum host_role */
};

struct trace_event {
  uint64_t at_ms;
  char text[CRG_REASON_MAX + 1];
};

struct member {
  struct daemon *d;
  char crg[CRG_NAME_MAX + 1];
  struct group *g;
  struct group_actions *out;
  uint32_t id; /* of this node in the domain; NO_NODE: not known yet */
  struct node_id nodes[CRG_MAX_NODES];
  unsigned n_nodes;
  struct iasp_shell iasps[CRG_MAX_IASPS];
  bool joined, in_step, gone, adopted;
  bool ending;            /* left for good: its plugins are being ended */
  uint64_t ending_until_ms;
  bool tell_cluster;      /* C7, after the step */
  enum leave_kind left;   /* valid if gone or ending */
  uint32_t view[CRG_MAX_NODES]; /* engine ids of the view ... */
  unsigned n_view;        /* ... as the engine gave it */
  struct events *watcher;
  char away[CRG_REASON_MAX + 1]; /* why it keeps out of its group, and tries again then: */
  uint64_t rejoin_at_ms;
  bool anew;      /* ... as a new incarnation, from disk */
  bool recovered; /* C9: what is on disk is newer than what the core holds */
  uint64_t report_at_ms, reported_ms;
  struct group_event events[MEMBER_MAX_EVENTS];
  unsigned n_events;
  uint64_t next_request;
  struct pending_request requests[MEMBER_MAX_REQUESTS];
  struct trace_event trace[TRACE_EVENTS];
  unsigned trace_next;
  struct script *fence; /* S1 d: what runs, against: */
  uint32_t fence_node;
  qb_loop_timer_handle timer;
};

/* Feeds the core and carries out what it wants; in the middle of a step the
 * event waits until that is over. */
extern void member_step (struct member *m, const struct group_event *ev);

static inline struct group_event
iasp_event (const struct iasp_shell *sh, enum group_event_kind kind)
{
  return (struct group_event){ .kind = kind, .iasp = (uint8_t) sh->index };
}

static inline void
set_reason (struct group_event *ev, const char *reason)
{
  snprintf (ev->reason, sizeof ev->reason, "%s", reason ? reason : "");
}

/* When the timer is due is reckoned anew. */
extern void member_arm (struct member *m);

/* member_plugin.c.  The IASP's plugin, made when it is first asked for, with what the state says now for the process
 * that is started next; NULL: it can't be here.  GA_PROBE: of a store or of an agent. */
extern struct plugin *member_get_plugin (struct member *m, unsigned iasp);
extern void member_probe (struct member *m, unsigned iasp);

/* member_request.c: an answer of the group, none in time, none any more. */
extern void member_reply (struct member *m, uint64_t id, int code, const char *reason);
extern void member_expire_requests (struct member *m, uint64_t now_ms);

/* member_agent.c.  The resource's agent, made when it is first asked for; NULL:
 * it is no script, or can't be here. */
extern struct agent *member_get_agent (struct member *m, unsigned iasp);
extern void member_agent_config (struct member *m, const struct group_action *a,
                                 const uint8_t *text);

#endif
