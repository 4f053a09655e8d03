/* SPDX-License-Identifier: BSD-3-Clause */
/* crgctl: what its files share.  One table of commands and one of options (cli.c) drive parsing,
 * --help and completion.  One thread; each command is a function that returns an exit code of
 * common/exitcodes.h.
 */
#ifndef CRG_ADMIN_CLI_H
#define CRG_ADMIN_CLI_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include <jansson.h>

#include "common/exitcodes.h"
#include "common/limits.h"
#include "common/util.h"

/* X (symbol, letter or 0, name, argument or NULL, help) */
#define CLI_OPTIONS(X)                                                                          \
  X (SOCKET, 's', "socket", "PATH", "ask the crgd that listens on this socket")                 \
  X (CONF, 0, "conf", "FILE", "ask the crgd of this crgd.conf")                                 \
  X (TIMEOUT, 0, "timeout", "SECONDS", "give up when crgd says nothing for so long (default 60)") \
  X (HELP, 'h', "help", NULL, "print this, or the help of a command")                           \
  X (VERSION, 'V', "version", NULL, "print the version")                                        \
  X (CLIENT, 0, "client", "NAME", "also make a client's certificate; may be repeated")          \
  X (DAYS, 0, "days", "N", "let the certificates be valid for N days (default 1825)")           \
  X (FORCE, 0, "force", NULL, "do it even if something is replaced or destroyed")               \
  X (TO, 0, "to", "NODE", "make this node the production host")                                 \
  X (IASP, 0, "iasp", "NAME", "the resource that is to move, where each moves by itself")         \
  X (DRY_RUN, 0, "dry-run", NULL, "only say what would be done")                                \
  X (JSON, 0, "json", NULL, "print it as JSON")                                    \
  X (WATCH, 0, "watch", NULL, "print it again every second, until interrupted")                 \
  X (COUNT, 0, "count", "N", "with --watch: end after N times")                                 \
  X (WAIT, 0, "wait", "SECONDS", "wait so long for it to be done")                              \
  X (YES, 0, "yes", NULL, "do not ask")                                                         \
  X (CRG, 0, "crg", "CRG", "only in this CRG")                                                  \
  X (HAND_OVER, 0, "hand-over", NULL, "first hand production over to other nodes")               \
  X (CONFIRM, 0, "i-confirm-it-is-dead", NULL, "the node's machine is off, or cut from its disks") \
  X (RTT, 0, "rtt", "MS", "the longest round trip between two nodes (default 0: one site or town)")  \
  X (ID, 0, "id", "N", "the node's number (default: the highest and one)")                        \
  X (ROLE, 0, "role", "ROLE", "primary, backup, peer or replicate")                               \
  X (VOTES, 0, "votes", "N", "the node's votes")                                                  \
  X (ORDER, 0, "order", "N", "the node's place in the backup order")                              \
  X (ADDRESS, 0, "address", "ADDRESS,...", "the node's data addresses")                           \
  X (STORE, 0, "store", "[IASP=]PATH", "its store, of an IASP or of the only one; may be repeated") \
  X (META, 0, "meta", "[IASP=]PATH", "where its metadata is, if not at the store's end; may be repeated") \
  X (WITHOUT, 0, "without", "NODE,...", "the nodes that are lost for good")                        \
  X (CONFIRM_THEY, 0, "i-confirm-they-are-dead", NULL, "their machines are off, and stay so")     \
  X (DROP_COPY, 0, "drop-copy", NULL, "let the copy of the site go with its last node")           \
  X (NAME, 0, "name", "CLUSTER", "the cluster's name (default nbd-crg)")                          \
  X (NODES, 0, "nodes", "NODE[=ADDRESS][:PORT],...", "ask these nodes, as a client does")        \
  X (TLS, 0, "tls-certificates", "DIR", "the client's certificates")                            \
  X (SITE, 0, "site", "SITE", "the site of a copy, or of a node")                                 \
  X (EXPORT, 0, "export", "HOW", "how it is exported: none (default), read-only or read-write")     \
  X (SIZE, 0, "size", "BYTES", "room for so much data; K, M, G and T are understood")               \
  X (BLOCK, 0, "block-size", "BYTES", "track what a copy lacks in blocks of so many bytes (default 65536)") \
  X (KEEP_DATA, 0, "keep-data", NULL, "keep what the store holds")                                  \
  X (ZERO, 0, "zero", NULL, "make it all zeroes, however long that takes")                         \
  X (LIST, 0, "list", NULL, "show what is attached, and how it is doing")                           \
  X (FOREGROUND, 0, "foreground", NULL, "be the process that keeps it")                             \
  X (CONNECTIONS, 0, "connections", "N", "so many connections (default 4)")                         \
  X (RUN_DIR, 0, "run-dir", "DIR", "where its sockets are (default /run/nbd-crg-attach)")           \
  X (NBDKIT, 0, "nbdkit", "PROGRAM", "use this nbdkit")                                             \
  X (PLUGIN, 0, "plugin", "FILE", "use this nbdkit-crg-plugin.so")                                  \
  X (REPAIR, 0, "repair", NULL, "copy what differs from production, and take the copy in again")     \
  X (STOP, 0, "stop", NULL, "end the comparison that is under way")                                 \
  X (KEYS, 0, "keys", NULL, "list all keys of both kinds of file instead")

enum cli_option {
#define CLI_OPTION_ENUM(symbol, letter, name, argument, help) OPT_##symbol,
  CLI_OPTIONS (CLI_OPTION_ENUM)
#undef CLI_OPTION_ENUM
  N_CLI_OPTIONS
};

/* Clients of one init-pki, operands of one command. */
#define CLI_MAX_WORDS 256

struct cli {
  const struct cli_command *command;
  bool given[N_CLI_OPTIONS];
  const char *value[N_CLI_OPTIONS]; /* the last one */
  const char *clients[CLI_MAX_WORDS];
  unsigned n_clients;
  const char *stores[CRG_MAX_IASPS];
  unsigned n_stores;
  const char *metas[CRG_MAX_IASPS];
  unsigned n_metas;
  const char *words[CLI_MAX_WORDS]; /* operands */
  unsigned n_words;
  int timeout_ms;
};

struct cli_command {
  const char *name;
  const char *operands; /* as in the usage line */
  unsigned min_words, max_words;
  uint64_t options; /* bits of enum cli_option, beside the global ones */
  int (*run) (struct cli *cli);
  const char *help;
  bool hidden; /* from --help; for the shell's completion */
};

#define CLI_BIT(option) (UINT64_C (1) << OPT_##option)
#define CLI_GLOBAL \
  (CLI_BIT (SOCKET) | CLI_BIT (CONF) | CLI_BIT (TIMEOUT) | CLI_BIT (HELP) | CLI_BIT (VERSION))

/* Prints "crgctl COMMAND: ..." and a newline to stderr, and returns 'code'. */
extern int cli_error (const struct cli *cli, int code, const char *fmt, ...) UTIL_PRINTF (3, 4);

/* The argument of an option that is a number; 'otherwise' if it is not given.  False, and an error
 * printed, if it is not a number from min to max. */
extern bool cli_number (const struct cli *cli, enum cli_option option, long min, long max,
                        long otherwise, long *value);

/* ---- client.c: talking to crgd ---- */

/* Sends 'request' (a reference that is taken over; "v" is added) and waits for the final answer,
 * printing progress to stderr.  EXIT_FINE: *answer is the answer, the caller's; else the error was
 * printed, and is the exit code to return. */
extern int client_call (struct cli *cli, json_t *request, json_t **answer);
/* The same, without a word on stderr; the text of the error in 'err'. */
extern int client_call_quiet (struct cli *cli, json_t *request, json_t **answer, char *err,
                              size_t errlen);

/* ---- the commands ---- */

extern int pki_init_command (struct cli *cli);
extern int attach_command (struct cli *cli);
extern int detach_command (struct cli *cli);
extern int group_check_conf_command (struct cli *cli);
extern int group_create_command (struct cli *cli);
extern int group_start_command (struct cli *cli);
extern int group_end_command (struct cli *cli);
extern int group_delete_command (struct cli *cli);
extern int group_switchover_command (struct cli *cli);
extern int group_mark_failed_command (struct cli *cli);
extern int group_mirror_command (struct cli *cli);
extern int verify_command (struct cli *cli);
extern int recover_command (struct cli *cli);
extern int node_command (struct cli *cli);
extern int group_uri_command (struct cli *cli);
extern int group_trace_command (struct cli *cli);
extern int status_command (struct cli *cli);
extern int cluster_conf_command (struct cli *cli);
extern int status_explain_command (struct cli *cli);
extern int status_is_command (struct cli *cli);
extern int leave_command (struct cli *cli);
extern int iasp_command (struct cli *cli);
/* meta: NULL, or where the metadata is to be. */
extern int iasp_create (struct cli *cli, const char *path, const char *meta);

/* EXIT_FINE, EXIT_DEGRADED or EXIT_UNAVAILABLE, as the CRG of a status answer is. */
extern int status_crg_code (const json_t *crg);
/* The CRG of that name in a status answer, or NULL. */
extern const json_t *status_find_crg (const json_t *status, const char *name);
/* Predicates of `crgctl is`, NULL-terminated. */
extern const char *const status_predicates[];
/* What `crgctl mirror` can do, NULL-terminated. */
extern const char *const mirror_verbs[];
/* What `crgctl iasp` can do, NULL-terminated. */
extern const char *const iasp_verbs[];
/* What `crgctl node` can do, NULL-terminated. */
extern const char *const node_verbs[];

#endif /* CRG_ADMIN_CLI_H */
