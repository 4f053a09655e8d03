/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The shell of one CRG on this node: feeds the group core with views,
 * messages, time, probes and what the plugins say, and carries its actions
 * out.  Owns the core's state, the state file, the plugins and the probes of
 * its CRG.  Main loop's thread only.  It decides nothing: what it tells a
 * plugin comes from the committed state.
 */
#ifndef CRG_MEMBER_H
#define CRG_MEMBER_H

#include <jansson.h>

#include "common/util.h"
#include "server/daemon.h"
#include "server/group.h"
#include "server/supervise.h"

struct member;
struct agent;

/* `state` NULL: none, or a damaged one (C6); then `nodes` is the domain as
 * another node tells it.  Adopts running plugins (S3); doesn't join yet. */
extern struct member *member_new (struct daemon *d, const char *crg,
                                  const struct crg_state *state, uint64_t promised, uint32_t hold_ms,
                                  const struct node_name_id *nodes, unsigned n_nodes);
extern void member_free (struct member *m);
/* It was about to go and begin anew, but its state can't be loaded: it stays, keeps out of its group, and tries
 * again. */
extern void member_stay (struct member *m, int err);
/* The domain as this node knows it; returns how many. */
extern unsigned member_domain (const struct member *m, struct node_name_id nodes[CRG_MAX_NODES]);
/* Tried again if it fails.  Joined again by the engine after it was down. */
extern void member_join (struct member *m);
extern void member_leave (struct member *m);

extern void member_on_view (struct member *m, uint64_t view, const uint32_t *engine_ids,
                            unsigned n);
extern void member_on_message (struct member *m, uint32_t engine_id, const uint8_t *buf,
                               size_t len);
extern void member_on_down (struct member *m, const char *reason);

/* An operator's request; `done` is called once, with crgctl's exit code. */
typedef void member_reply_fn (void *opaque, int code, const char *reason);
/* What a request is about beside the CRG. */
struct member_about {
  uint32_t node; /* NO_NODE: none */
  uint8_t iasp, site;
  enum detached_export mode;
};
extern void member_request (struct member *m, enum group_request request,
                            const struct member_about *about, bool forced, bool dry_run,
                            unsigned timeout_ms, member_reply_fn *done, void *opaque);
/* C7: a change of the domain. */
extern void member_request_node (struct member *m, const struct node_change *change,
                                 unsigned timeout_ms, member_reply_fn *done, void *opaque);
extern void member_forget_requests (struct member *m, void *opaque);
/* Answers what is still open: this shell is about to go. */
extern void member_end_requests (struct member *m);

/* Begins to end the plugins (stop.h), mirror copies only if asked, and those
 * that wait for their next start; member_is_idle tells when all have ended. */
extern void member_stop_plugins (struct member *m, bool mirrors);
extern bool member_is_idle (const struct member *m);
/* Those that have not ended yet: nobody will look after them any more. */
extern void member_kill_plugins (struct member *m);
/* Is this node the production host of a unit (state.h), as committed?  False if
 * there is no such unit. */
extern bool member_is_production (const struct member *m, unsigned unit);

/* A line for `trace`. */
extern void member_note (struct member *m, const char *fmt, ...) UTIL_PRINTF (2, 3);
/* What happens is looked at now, not at the next tick. */
extern void member_look (struct member *m);
extern struct daemon *member_daemon (const struct member *m);

/* C7: another node says that this one was removed from the domain. */
extern void member_removed (struct member *m);
/* ... or that the CRG was deleted. */
extern void member_deleted (struct member *m);
/* C9: NULL, or why not.  dead: bits of the nodes of member_state ().  The new state is on disk; this shell ends its
 * plugins and begins anew from it. */
extern const char *member_recover (struct member *m, uint16_t dead);
/* group_status, and why this node keeps out of the group, if it does. */
extern void member_status (const struct member *m, uint64_t now_ms, struct group_status *st);
/* Why it left its group, once it has. */
extern enum leave_kind member_left (const struct member *m);

extern const char *member_crg (const struct member *m);
extern const struct group *member_group (const struct member *m);
/* Committed, else applied, else NULL. */
extern const struct crg_state *member_state (const struct member *m);
extern struct plugin *member_plugin (const struct member *m, unsigned iasp);
extern const struct agent *member_agent (const struct member *m, unsigned iasp);
/* Index of this node in the domain, or -1. */
extern int member_self (const struct member *m);
/* Does this node run, or is about to run, a plugin for that IASP? */
extern bool member_has_iasp (const struct member *m, const char *iasp);
/* Resolves the export of an IASP on a node of the domain. */
extern bool member_spec (const struct member *m, unsigned iasp, unsigned node,
                         struct plugin_spec *spec);
/* Recent events, one line of text each, oldest first. */
extern json_t *member_trace (const struct member *m);

/* Id that the local engine has for a node, from its name: a node has no number
 * of its own before it is in a domain. */
extern uint32_t engine_id_of (const char *node_name);

#endif
