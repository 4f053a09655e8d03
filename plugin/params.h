/* SPDX-License-Identifier: BSD-3-Clause */
/* The plugin's configuration: the key=value pairs of its command line, checked one by one and
 * then as a whole.  Plain data once complete; the main thread fills it before any other thread
 * exists.  Includes nothing of the host, so that it can be tested alone.
 */
#ifndef IASP_PARAMS_H
#define IASP_PARAMS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/limits.h"
#include "plugin/store.h"

#define PARAMS_SUSPEND_TIMEOUT_MS 10000u
#define PARAMS_RESYNC_TARGET_S 30u
/* Longest time-out that can be asked for: a day. */
#define PARAMS_MAX_TIMEOUT_MS 86400000u

struct params {
  char name[CRG_NAME_MAX + 1];
  char store[CRG_PATH_MAX + 1]; /* absolute */
  char meta[CRG_PATH_MAX + 1];  /* absolute; empty: the metadata is at the store's end */
  enum store_direct direct;
  bool role_production; /* role=production: by hand, unmirrored */

  /* With a controller only. */
  char control[CRG_SOCK_PATH_MAX + 1]; /* empty: no controller */
  char node[CRG_NAME_MAX + 1];
  uint32_t node_id;             /* 0: not told; then the store is opened without a claim */
  char site[CRG_NAME_MAX + 1];
  char crg[CRG_NAME_MAX + 1];
  uint8_t cluster_id[CRG_ID_LEN];
  uint8_t crg_id[CRG_ID_LEN];
  uint8_t iasp_id[CRG_ID_LEN];
  uint8_t lineage[CRG_ID_LEN];
  uint64_t size;            /* bytes of the export */
  uint32_t dirty_block;     /* bytes */
  unsigned n_listen;        /* 0: no mirroring from or to here */
  char listen[CRG_MAX_ADDRS][CRG_ADDR_MAX + 1];
  uint16_t listen_port;
  char tls_ca[CRG_PATH_MAX + 1];
  char tls_cert[CRG_PATH_MAX + 1];
  char tls_key[CRG_PATH_MAX + 1];
  uint32_t suspend_timeout_ms;
  uint32_t no_quorum_timeout_ms; /* 0: never */
  bool return_store_error;       /* to the client, instead of holding it and failing over (F4) */
  uint32_t resync_target_s;      /* how long the resync after a crash may take: bounds the hot regions */
  uint32_t resync_share;         /* percent of the link that a resync may use while clients write */
  bool snapshot;                 /* keep what a copy holds before it is resynchronised */
  char snapshot_hook[CRG_PATH_MAX + 1]; /* what does so where there is no reflink; empty: nothing */
  bool reservation;              /* S1 c: a persistent reservation at the device, while the store is open */
  bool fault_no_tracking;        /* the test build only: to measure what tracking costs */
  bool fault_written;            /* the test build only: a new store is all zeroes, and gets a map of what is written */

  uint32_t seen; /* bit by index of the key */
};

extern void params_init (struct params *p);
/* One key.  0 or -EINVAL, with a sentence in 'err'. */
extern int params_set (struct params *p, const char *key, const char *value, char *err,
                       size_t errlen);
/* Are all there that belong together?  0 or -EINVAL, with a sentence in 'err'. */
extern int params_complete (struct params *p, char *err, size_t errlen);
/* One line of help for each key. */
extern const char params_help[];
/* Name of the key with index i, NULL after the last: for tests of the manual. */
extern const char *params_key (unsigned i);

#endif /* IASP_PARAMS_H */
