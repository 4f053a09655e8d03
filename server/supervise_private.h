/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The inside of the supervisor of one plugin process, for its files:
 * supervise.c (the process and what the caller wants) and supervise_ctl.c
 * (the control connection: what is asked, told and heard).
 */
#ifndef CRG_SUPERVISE_PRIVATE_H
#define CRG_SUPERVISE_PRIVATE_H

#include <qb/qbdefs.h>
#include <qb/qbloop.h>

#include "server/pluginctl.h"
#include "server/process.h"
#include "server/supervise.h"
#include "server/task.h"

enum phase {
  PH_IDLE,     /* no process */
  PH_STARTING, /* started or adopted; the control socket isn't connected */
  PH_ASKING,   /* `status` sent: which role has it? */
  PH_READY,    /* connected; told_role is what it has */
  PH_TELLING,  /* `role` sent */
  PH_QUITTING, /* `quit` sent */
  PH_TERMING,  /* SIGTERM sent */
  PH_KILLING,  /* SIGKILL sent */
};

struct plugin {
  qb_loop_t *loop;
  struct plugin_spec spec, next_spec; /* of the process; of the one that is started next */
  struct plugin_callbacks cb;
  void *opaque;
  struct process_place place;

  enum host_role want_role;
  uint64_t want_tenure;
  bool want_answer; /* `hosted` is owed for the present want */
  bool reported;    /* this process has its role, and the group knows */
  enum host_role told_role;
  uint64_t told_tenure;
  enum host_role telling_role;
  uint64_t telling_tenure;

  json_t *record, *extra, *mirrors[CRG_MAX_SITES], *unmirrors[CRG_MAX_SITES];
  bool record_due, mirror_due[CRG_MAX_SITES], unmirror_due[CRG_MAX_SITES], lease_due, lease_sent, hold_due;
  bool resume_due, resume_owed; /* owed: said by the group, and the plugin has not confirmed it */
  unsigned resumes;             /* on the way on this connection: the last one's answer confirms it */
  uint64_t lease_until_ms, record_seq;
  char *hold_reason;
  unsigned hold_wait_ms;

  enum phase phase;
  pid_t pid;
  int pidfd;
  bool is_child;
  bool was_asked;   /* this process, over its control socket */
  struct pluginctl *ctl;
  uint64_t phase_ms, retry_at_ms;
  unsigned deaths, refusals, asks_lost;
  char trouble[CRG_REASON_MAX + 1];

  /* What the plugin said before `hosted` was reported; told after it, for the
   * group takes up what a new host wants from then on. */
  json_t *early[PLUGIN_EARLY_EVENTS];
  unsigned n_early;

  json_t *status;
  uint64_t status_ms, poll_ms;
  bool polling;
  unsigned polls_failed; /* in a row */

  struct task *check;
  bool served;
  uint64_t check_at_ms;

  qb_loop_timer_handle timer;
};

/* supervise.c */
extern void supervise_set_phase (struct plugin *p, enum phase phase);
extern void supervise_trouble (struct plugin *p, const char *reason);
extern void supervise_send_signal (struct plugin *p, int sig);
extern void supervise_report_hosted (struct plugin *p, enum host_role role, uint64_t tenure,
                                     bool ok, const char *reason, json_t *info);
extern void supervise_forget_early (struct plugin *p);
extern void supervise_forget_said (struct plugin *p);
extern void supervise_give_up (struct plugin *p, const char *reason);
extern void supervise_begin_end (struct plugin *p);
extern void supervise_drive (struct plugin *p);
/* supervise_ctl.c */
extern json_t *supervise_request (const char *cmd);
extern void supervise_on_pushed (void *opaque, json_t *answer, const char *reason);
extern void supervise_on_polled (void *opaque, json_t *answer, const char *reason);
extern void supervise_tell_role (struct plugin *p);
extern void supervise_push (struct plugin *p);
extern void supervise_try_control (struct plugin *p);

#endif
