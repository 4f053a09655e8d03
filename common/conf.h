/* SPDX-License-Identifier: BSD-3-Clause */
/* The two configuration files: crgd.conf of a node and the definition of a CRG.  Reads them into
 * plain structs, all of it checked before anything happens; each error names file, line, section
 * and key and what is allowed.  The definition also travels as JSON in the admin request
 * `create`, with the same checks on arrival.  Owns no state; any thread; reads files, changes
 * nothing.
 */
#ifndef CRG_CONF_H
#define CRG_CONF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <jansson.h>

#include "common/limits.h"

enum conf_engine {
  CONF_ENGINE_LOCAL,
  CONF_ENGINE_COROSYNC,
};

/* [node], [engine], [lease] and [client] of crgd.conf.  Optional text that is absent is "". */
struct conf_crgd {
  char name[CRG_NAME_MAX + 1];
  char state_dir[CRG_PATH_MAX + 1];
  char run_dir[CRG_PATH_MAX + 1];
  char tls_dir[CRG_PATH_MAX + 1];
  char socket_group[CRG_NAME_MAX + 1]; /* "": root and the daemon's owner only */
  char nbdkit[CRG_PATH_MAX + 1];       /* "": the one found when this was built */
  char plugin[CRG_PATH_MAX + 1];       /* "": the installed one */
  uint32_t threads;                    /* of a plugin for each connection */
  char hooks_dir[CRG_PATH_MAX + 1];
  uint32_t hook_timeout_ms;
  char fence_hook[CRG_PATH_MAX + 1];   /* S1 d; "": nothing is fenced */
  uint32_t fence_timeout_ms;
  char snapshot_hook[CRG_PATH_MAX + 1]; /* "": only what a reflink can do */
  bool reservation;                     /* S1 c: of the stores' devices */
  uint32_t engine;                     /* enum conf_engine */
  char engine_socket[CRG_PATH_MAX + 1]; /* local */
  char group_prefix[CRG_NAME_MAX + 1];  /* corosync; "": the engine's default */
  uint32_t token_ms; /* local; with corosync from there, until then this */
  uint32_t lease_ms;
  uint32_t start_wait_ms;
  char client_address[CRG_ADDR_MAX + 1]; /* where clients ask; "": any */
  uint32_t client_port;                  /* 0: nowhere */
};

enum conf_store_error {
  CONF_STORE_ERROR_FAIL_OVER,
  CONF_STORE_ERROR_RETURN,
};

enum conf_takeover {
  CONF_SAME_SITE_FIRST,
  CONF_ORDER,
};

enum conf_role {
  CONF_PRIMARY,
  CONF_BACKUP,
  CONF_PEER,      /* of a site, never hosts */
  CONF_REPLICATE, /* of no site, votes, never hosts */
};

struct conf_node {
  char name[CRG_NAME_MAX + 1];
  uint32_t id;                 /* 1 to CONF_MAX_NODE_ID */
  char site[CRG_NAME_MAX + 1]; /* "": none (replicate) */
  uint32_t role;               /* enum conf_role */
  uint32_t votes;
  uint32_t order;              /* place in the backup order, 0 is the primary; unused unless
                                * primary or backup */
  unsigned n_addresses;
  char addresses[CRG_MAX_ADDRS][CRG_ADDR_MAX + 1];
};

enum conf_type {
  CONF_IASP,
  CONF_SCRIPT, /* not mirrored, hosted by an agent; only the fields that say so are its own */
};

enum conf_strategy {
  CONF_STRATEGY_SITE,   /* Fig. 5: all resources move together */
  CONF_STRATEGY_ACCESS, /* Fig. 4: each by itself, to who can reach it */
};

struct conf_iasp {
  char name[CRG_NAME_MAX + 1];
  uint32_t type;       /* enum conf_type */
  char agent[CRG_PATH_MAX + 1]; /* SCRIPT */
  uint32_t timeout_ms; /* SCRIPT: of each call of the agent */
  uint64_t size;       /* bytes of the export; 0: as the stores give */
  uint32_t block_size; /* bytes of one bit of the dirty map */
  bool tls;            /* of the export, on TCP */
  bool snapshot;       /* keep what a copy holds before it is resynchronised */
  uint32_t mirror_port;
  char export[CRG_PATH_MAX + 1];                   /* unix:[PATH] | tcp:[ADDR]:PORT */
  char store[CRG_MAX_NODES][CRG_PATH_MAX + 1];     /* by index of the node; "" if it can't host */
  char meta[CRG_MAX_NODES][CRG_PATH_MAX + 1];      /* the same, of its metadata; "": at the store's end */
  /* ACCESS: the first nodes of its backup order; the others follow in the group's. */
  unsigned n_order;
  char order[CRG_MAX_NODES][CRG_NAME_MAX + 1];
};

#define CONF_MAX_WARNINGS 4

struct conf_crg {
  char name[CRG_NAME_MAX + 1];
  uint32_t strategy; /* enum conf_strategy */
  uint32_t takeover; /* enum conf_takeover */
  uint32_t suspend_timeout_ms;
  uint32_t no_quorum_timeout_ms; /* 0: never */
  uint32_t store_error;          /* enum conf_store_error */
  uint32_t resync_share;         /* percent */
  unsigned n_nodes, n_iasps;
  struct conf_node nodes[CRG_MAX_NODES];
  struct conf_iasp iasps[CRG_MAX_IASPS];
  /* Legal, but probably not what is wanted; one line each. */
  unsigned n_warnings;
  char warnings[CONF_MAX_WARNINGS][CONF_ERR_MAX + 1];
};

/* 0; -EINVAL: the content is refused; -EFBIG: longer than CONF_MAX_FILE; other -errno: it can't be
 * read.  'err' then holds one line, "FILE:LINE: what; what is allowed"; errlen CONF_ERR_MAX + 1
 * suffices. */
extern int conf_read_crgd (const char *path, struct conf_crgd *conf, char *err, size_t errlen);
extern int conf_read_crg (const char *path, struct conf_crg *conf, char *err, size_t errlen);

/* The same on text in memory; 'file' only names it in errors.  'text' is overwritten and text[len]
 * must be writable. */
extern int conf_parse_crgd (const char *file, char *text, size_t len, struct conf_crgd *conf,
                            char *err, size_t errlen);
extern int conf_parse_crg (const char *file, char *text, size_t len, struct conf_crg *conf,
                           char *err, size_t errlen);

/* Everything that can be said of a definition without its file: names, ids, votes, sites, ports,
 * stores.  0, or -EINVAL with a line.  Fills 'warnings'. */
extern int conf_check_crg (struct conf_crg *conf, char *err, size_t errlen);

/* The definition as the value of "def" in an admin request:
 *   {"name", "strategy" (site, if it is missing), "takeover", "suspend_timeout_ms", "no_quorum_timeout_ms",
 *    "store_error",
 *    "nodes": [{"name", "id", "site" (not of a replicate), "role", "votes",
 *               "order" (of primary and backups), "addresses": [..]}],
 *    "iasps": [{"name", "size", "block_size", "export", "tls": bool, "mirror_port",
 *               "snapshot": bool (false, if it is missing), "stores": {NODE: PATH},
 *               "metas": {NODE: PATH} (none, if it is missing)}
 *              or {"name", "agent", "timeout_ms"}: a script;
 *              each with "order": [NODE...] or without]}
 * to_json returns a new reference, or NULL without memory.  from_json refuses what is unknown,
 * missing or wrong, and checks the whole as conf_read_crg does: 0 or -EINVAL with a line. */
extern json_t *conf_crg_to_json (const struct conf_crg *conf);
extern int conf_crg_from_json (const json_t *def, struct conf_crg *conf, char *err, size_t errlen);

/* The paths of a store and of its metadata, if this is elsewhere, as one: what the group state keeps of
 * a node's store.  Together they have at most CRG_PATH_MAX - 1 bytes (conf_check_crg). */
extern void conf_join_store (const char *store, const char *meta, char place[CRG_PATH_MAX + 1]);
extern void conf_split_store (const char *place, char store[CRG_PATH_MAX + 1], char meta[CRG_PATH_MAX + 1]);

extern const char *conf_strategy_name (uint32_t strategy);
extern const char *conf_takeover_name (uint32_t takeover);
extern const char *conf_store_error_name (uint32_t store_error);
extern const char *conf_role_name (uint32_t role);
extern const char *conf_engine_name (uint32_t engine);

/* "64K" and so on: a number of bytes with an optional suffix K, M, G or T (powers of 1024).  0,
 * -EINVAL or -ERANGE. */
extern int conf_parse_size (const char *text, uint64_t *bytes);

/* How long the engine takes at most to report a member's death; L1 wants a lease of 1.25 times
 * that.  0: only the engine can tell, when it runs (corosync's timers are corosync's). */
extern uint32_t conf_detection_ms (const struct conf_crgd *conf);

/* One line "SECTION KEY" for each key of both files, for the tests of the manual. */
extern void conf_print_keys (FILE *fp);

#endif /* CRG_CONF_H */
