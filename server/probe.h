/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Looking at things that may hang: a store's superblock and lock (S1, R4 to
 * R6), a store that is to be taken into a new CRG, its first superblock, and
 * an export as a client sees it.  Each function is a task_fn: it runs in a
 * child of its own and shares nothing with the daemon.
 */
#ifndef CRG_PROBE_H
#define CRG_PROBE_H

#include <stdbool.h>
#include <stdint.h>

#include "server/group.h"

/* `store` in all of them: as the group state has it, with the place of its
 * metadata (conf_split_store). */

/* ---- GA_PROBE ---- */
struct store_probe_arg {
  char store[CRG_PATH_MAX + 1];
  char node[CRG_NAME_MAX + 1];
  uint32_t node_id;
  uint8_t boot_id[CRG_ID_LEN];
  uint8_t cluster_id[CRG_ID_LEN], crg_id[CRG_ID_LEN], iasp_id[CRG_ID_LEN];
  uint8_t site;
  uint64_t size;     /* that the export must have */
  bool own_has_open; /* this node's own plugin has it open */
  /* Members of the view.  A store that is open by a node that isn't one of
   * them belongs to a process on its way to its end: it is looked at again
   * for PROBE_DYING_MS, which the lease's hold (L3) takes anyhow. */
  unsigned n_present;
  char present[CRG_MAX_NODES][CRG_NAME_MAX + 1];
  bool fork; /* R6: the record says so; the disk is made to say so too, if it is of its lineage (C9) */
  uint8_t lineage[CRG_ID_LEN];
  bool tells_restart; /* S1 b: that this machine restarted since it had the store open is noted there */
  unsigned n_fenced; /* S1 d: marked failed, so their writes can't come any more */
  char fenced[CRG_MAX_NODES + CRG_MAX_GONE][CRG_NAME_MAX + 1];
};
struct store_probe {
  bool ok; /* could be read */
  struct store_info info; /* without held_by: */
  char held_by[CRG_NAME_MAX + 1]; /* S1: the node whose opening, or claim, bars ours, or "" */
  char reason[CRG_REASON_MAX + 1]; /* why not, or why it can't be hosted here */
};
extern void store_probe (const void *arg, void *result);

/* ---- create: may this store be taken? ---- */
struct store_check_arg {
  char store[CRG_PATH_MAX + 1];
  uint64_t size; /* 0: as the store gives */
  uint32_t dirty_block;
  bool force;
};
struct store_check {
  bool ok;
  bool needs_force;
  uint64_t data_bytes; /* room for data */
  bool has_crg;        /* its superblock names the CRG crg_id */
  uint8_t crg_id[CRG_ID_LEN];
  char reason[CRG_REASON_MAX + 1];
};
extern void store_check (const void *arg, void *result);

/* ---- create: the first superblock ---- */
struct store_format_arg {
  char store[CRG_PATH_MAX + 1];
  char crg[CRG_NAME_MAX + 1], iasp[CRG_NAME_MAX + 1], site_name[CRG_NAME_MAX + 1];
  uint8_t cluster_id[CRG_ID_LEN], crg_id[CRG_ID_LEN], iasp_id[CRG_ID_LEN], lineage[CRG_ID_LEN];
  uint8_t store_id[CRG_ID_LEN];
  uint8_t site;
  bool in_set;
  bool force; /* also if its superblock says that a node has it open: an operator was told */
  uint64_t size, tenure, generation;
  uint32_t dirty_block;
};
struct store_format {
  bool ok;
  char reason[CRG_REASON_MAX + 1];
};
extern void store_format (const void *arg, void *result);
/* Takes our superblocks off again (a create that failed), unless a node has the store open, or is opening it. */
extern void store_wipe (const void *arg, void *result); /* struct store_format_arg: store, ids */

/* ---- an export, with libnbd ---- */
struct export_check_arg {
  char uri[2 * CRG_PATH_MAX];
  char tls_dir[CRG_PATH_MAX + 16];
  bool tls;
  uint64_t size;
};
struct export_check {
  bool ok;
  uint64_t size;
  char reason[CRG_REASON_MAX + 1];
};
extern void export_check (const void *arg, void *result);

#endif
