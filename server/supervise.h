/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The process of one IASP on this node: nbdkit with our plugin.  Starts it,
 * tells it its role over the control socket, starts it again when it dies,
 * ends it when the role is gone, and adopts one that an earlier crgd left
 * behind (S3).  Level by level: the caller says what it wants, the supervisor
 * compares with what was told and acts; so a lost answer or a restart of
 * either process cannot leave it stuck.
 *
 * Main loop's thread only.  It decides nothing about the group: what it is
 * told comes from the committed state (C4).
 */
#ifndef CRG_SUPERVISE_H
#define CRG_SUPERVISE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include <jansson.h>

#include "server/group.h"

struct qb_loop;
struct plugin;

/* What never changes while the process lives; "" where there is none.  The names
 * and the run directory never change at all. */
struct plugin_spec {
  char nbdkit[CRG_PATH_MAX + 1];
  char plugin[CRG_PATH_MAX + 1];
  char run_dir[CRG_PATH_MAX + 1];
  char tls_dir[CRG_PATH_MAX + 1];
  char crg[CRG_NAME_MAX + 1], iasp[CRG_NAME_MAX + 1];
  char node[CRG_NAME_MAX + 1], site[CRG_NAME_MAX + 1];
  uint32_t node_id;
  uint8_t cluster_id[CRG_ID_LEN], crg_id[CRG_ID_LEN], iasp_id[CRG_ID_LEN], lineage[CRG_ID_LEN];
  uint64_t size;
  uint32_t dirty_block;
  uint32_t suspend_timeout_ms, no_quorum_timeout_ms;
  bool return_store_error;
  uint8_t resync_share; /* percent; 0: the plugin's default */
  bool snapshot;        /* keep what a copy holds before it is resynchronised */
  char snapshot_hook[CRG_PATH_MAX + 1];
  uint32_t threads;     /* for each connection */
  bool reservation;     /* S1 c: at the device of the store */
  char store[CRG_PATH_MAX + 1];
  char meta[CRG_PATH_MAX + 1]; /* of its metadata, if that is elsewhere */
  char listen[CRG_MAX_ADDRS * (CRG_ADDR_MAX + 1) + 8]; /* ADDR[,ADDR]:PORT of the mirror link */
  char export_unix[CRG_PATH_MAX + 1]; /* else TCP: */
  char export_addr[CRG_ADDR_MAX + 1];
  uint16_t export_port;
  bool tls;
};

struct plugin_callbacks {
  /* The answer to plugin_want: told, refused, or given up for good.  `info`
   * is the plugin's answer, or NULL. */
  void (*hosted) (void *opaque, enum host_role role, uint64_t tenure, bool ok, const char *reason,
                  json_t *info);
  void (*drained) (void *opaque, bool ok, const char *reason);
  void (*event) (void *opaque, const char *event, json_t *obj);
  /* Something that status shows has changed. */
  void (*changed) (void *opaque);
  /* The process died and will be started again. */
  void (*died) (void *opaque, const char *reason);
};

extern struct plugin *plugin_new (struct qb_loop *loop, const struct plugin_spec *spec,
                                  const struct plugin_callbacks *cb, void *opaque);
/* The options of the process that is started next; one that runs keeps its own. */
extern void plugin_respec (struct plugin *p, const struct plugin_spec *spec);
/* At once, if it hasn't ended yet; before it is forgotten. */
extern void plugin_kill (struct plugin *p);
/* Forgets it; a process that runs goes on (a later crgd adopts it), unless it was
 * started and has not been asked anything yet. */
extern void plugin_free (struct plugin *p);

/* The role that the process shall have; NONE ends it. */
extern void plugin_want (struct plugin *p, enum host_role role, uint64_t tenure);
/* The following keep what they are given and tell it again after a restart.
 * They take the reference. */
extern void plugin_set_record (struct plugin *p, json_t *record, uint64_t seq); /* GA_RECORD */
/* "peers", "production": told with the role, and with each record after it. */
extern void plugin_set_role_extra (struct plugin *p, json_t *extra);
extern void plugin_set_mirror (struct plugin *p, unsigned site, json_t *request);
extern void plugin_unset_mirror (struct plugin *p, unsigned site, const char *reason);
extern void plugin_set_lease (struct plugin *p, uint64_t until_ms);
extern void plugin_hold (struct plugin *p, const char *reason, unsigned wait_ms);
extern void plugin_resume (struct plugin *p);

/* One command for the process, not kept: lost if it dies.  Takes the reference;
 * false: it isn't ready to be told anything. */
extern bool plugin_tell (struct plugin *p, json_t *request);

/* S3: looks for a process of an earlier crgd and takes it over.  True if one
 * is there. */
extern bool plugin_adopt (struct plugin *p);
/* True while a process runs or is being started or ended. */
extern bool plugin_is_alive (const struct plugin *p);
/* It has ended or is about to, and nothing but plugin_want begins it again. */
extern bool plugin_is_ending (const struct plugin *p);
/* Its process id, or 0. */
extern pid_t plugin_pid (const struct plugin *p);
/* As far as can be said from here, the process has the store open, or is opening it.  One that refused its role, or
 * was told none yet, has not; one that was killed is not asked about. */
extern bool plugin_has_store (const struct plugin *p);
/* The process has been told a role and not lost it. */
extern enum host_role plugin_role (const struct plugin *p);
/* An NBD client (libnbd) has read from the export since it was opened. */
extern bool plugin_is_served (const struct plugin *p);
/* The last answer to `status` (borrowed; NULL) and its age. */
extern json_t *plugin_last_status (const struct plugin *p, uint64_t *age_ms);
/* Why it isn't there yet, or "". */
extern const char *plugin_trouble (const struct plugin *p);
/* "nbd+unix:///NAME?socket=PATH", "nbd://..." or "nbds://...". */
extern void plugin_spec_uri (const struct plugin_spec *spec, char *buf, size_t len);

/* S3, for processes that no CRG of ours claims: ends whatever a pid file in
 * `run_dir` names, if it is an nbdkit of that run directory.  Blocks for at
 * most a few seconds; for the start of the daemon.  Returns how many. */
extern unsigned plugin_end_strays (const char *run_dir, bool (*is_ours) (void *opaque,
                                                                         const char *iasp),
                                   void *opaque);

#endif
