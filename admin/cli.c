/* SPDX-License-Identifier: BSD-3-Clause */
/* crgctl: the table of its commands, the parser that follows it, --help, exit-codes and the words
 * for the shell's completion.  Owns nothing but the command line.
 */
#include "config.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "admin/cli.h"

static int help_command (struct cli *cli);
static int exit_codes_command (struct cli *cli);
static int complete_command (struct cli *cli);

struct option_info {
  const char *name, *argument, *help;
  char letter;
};

static const struct option_info options[N_CLI_OPTIONS] = {
#define CLI_OPTION_INFO(symbol, letter, name, argument, help) { name, argument, help, letter },
  CLI_OPTIONS (CLI_OPTION_INFO)
#undef CLI_OPTION_INFO
};

static const struct cli_command commands[] = {
  { "init-pki", "DIR NODE[=ADDRESS,...]...", 2, CLI_MAX_WORDS,
    CLI_BIT (CLIENT) | CLI_BIT (DAYS) | CLI_BIT (FORCE), pki_init_command,
    "make the CAs and the certificates of nodes and clients" },
  { "check-conf", "FILE", 0, 1, CLI_BIT (KEYS), group_check_conf_command,
    "check a crgd.conf or the definition of a CRG" },
  { "cluster", "conf FILE | conf NODE=ADDRESS[,ADDRESS]...", 2, CLI_MAX_WORDS,
    CLI_BIT (RTT) | CLI_BIT (NAME), cluster_conf_command,
    "print a corosync.conf for these nodes, or those of a CRG's definition" },
  { "create", "FILE", 1, 1, CLI_BIT (FORCE) | CLI_BIT (DRY_RUN), group_create_command,
    "create the CRG that FILE defines, on all its nodes" },
  { "start", "CRG", 1, 1, CLI_BIT (WAIT), group_start_command, "let a CRG host its IASPs" },
  { "end", "CRG", 1, 1, 0, group_end_command, "let a CRG host nothing" },
  { "status", "[CRG]", 0, 1, CLI_BIT (JSON) | CLI_BIT (WATCH) | CLI_BIT (COUNT), status_command,
    "show CRGs, nodes, copies, and what waits for what" },
  { "switchover", "CRG", 1, 1, CLI_BIT (TO) | CLI_BIT (IASP) | CLI_BIT (DRY_RUN) | CLI_BIT (WAIT) | CLI_BIT (FORCE),
    group_switchover_command, "move production to another node without losing a write" },
  { "mirror", "suspend|resume|detach|reattach|unbar|verify IASP", 2, 2,
    CLI_BIT (FORCE) | CLI_BIT (SITE) | CLI_BIT (EXPORT) | CLI_BIT (REPAIR) | CLI_BIT (STOP) | CLI_BIT (WAIT),
    group_mirror_command, "stop or begin again to mirror to a copy, let it go, or compare it" },
  { "uri", "IASP", 1, 1, CLI_BIT (NODES) | CLI_BIT (TLS), group_uri_command, "print where an IASP is served now, as an NBD URI" },
  { "is", "in-sync|active|serving|production NAME", 2, 2, 0, status_is_command,
    "answer by exit code alone: 0 true, 2 false" },
  { "mark-failed", "NODE", 1, 1, CLI_BIT (CRG) | CLI_BIT (CONFIRM), group_mark_failed_command,
    "say that a node is dead, so that nothing waits for it" },
  { "leave", "", 0, 0, CLI_BIT (HAND_OVER) | CLI_BIT (FORCE), leave_command,
    "let this node host nothing and its crgd end" },
  { "node", "add|remove|set CRG NODE | replace CRG OLD NEW | mark-failed NODE", 2, 4,
    CLI_BIT (CRG) | CLI_BIT (CONFIRM) | CLI_BIT (ID) | CLI_BIT (SITE) | CLI_BIT (ROLE) | CLI_BIT (VOTES)
      | CLI_BIT (ORDER) | CLI_BIT (ADDRESS) | CLI_BIT (STORE) | CLI_BIT (META) | CLI_BIT (DROP_COPY) | CLI_BIT (FORCE),
    node_command, "change the nodes of a CRG while it runs" },
  { "recover", "CRG", 1, 1, CLI_BIT (WITHOUT) | CLI_BIT (CONFIRM_THEY), recover_command,
    "go on without nodes that are lost for good, when they were the majority" },
  { "explain", "IASP", 1, 1, CLI_BIT (JSON), status_explain_command,
    "say why each copy is in its state, and what waits for what" },
  { "trace", "[CRG]", 0, 1, CLI_BIT (JSON), group_trace_command, "show crgd's recent events" },
  { "delete", "CRG", 1, 1, CLI_BIT (YES), group_delete_command,
    "forget a CRG that was ended; its stores keep their data" },
  { "iasp", "create STORE | dump STORE | check STORE", 2, 2,
    CLI_BIT (JSON) | CLI_BIT (FORCE) | CLI_BIT (SIZE) | CLI_BIT (BLOCK) | CLI_BIT (KEEP_DATA) | CLI_BIT (ZERO)
      | CLI_BIT (META),
    iasp_command,
    "make a store ready, or show or check its metadata, without a daemon" },
  { "attach", "[IASP] [/dev/nbdN]", 0, 2,
    CLI_BIT (NODES) | CLI_BIT (TLS) | CLI_BIT (CONNECTIONS) | CLI_BIT (WAIT) | CLI_BIT (FOREGROUND) | CLI_BIT (LIST)
      | CLI_BIT (JSON) | CLI_BIT (RUN_DIR) | CLI_BIT (NBDKIT) | CLI_BIT (PLUGIN),
    attach_command, "make an IASP a block device of this machine that follows production" },
  { "detach", "IASP|/dev/nbdN", 1, 1, CLI_BIT (FORCE) | CLI_BIT (RUN_DIR), detach_command,
    "end what attach began" },
  { "exit-codes", "", 0, 0, 0, exit_codes_command, "list the exit codes" },
  { "help", "[COMMAND]", 0, 1, 0, help_command, "print this, or the help of a command" },
  { "complete", "[WORD...]", 0, CLI_MAX_WORDS, 0, complete_command,
    "print what may follow these words", .hidden = true },
};

int
cli_error (const struct cli *cli, int code, const char *fmt, ...)
{
  va_list ap;

  fprintf (stderr, "crgctl%s%s: ", cli->command ? " " : "", cli->command ? cli->command->name : "");
  va_start (ap, fmt);
  vfprintf (stderr, fmt, ap);
  va_end (ap);
  fputc ('\n', stderr);
  return code;
}

bool
cli_number (const struct cli *cli, enum cli_option option, long min, long max, long otherwise,
            long *value)
{
  const char *text = cli->value[option];
  char *end;

  *value = otherwise;
  if (!cli->given[option])
    return true;
  errno = 0;
  *value = strtol (text, &end, 10);
  if (errno || end == text || *end || *value < min || *value > max) {
    cli_error (cli, CRG_EXIT_USAGE, "--%s '%s' is not a number from %ld to %ld", options[option].name,
               text, min, max);
    return false;
  }
  return true;
}

/* ---- help ------------------------------------------------------------------------------- */

static void
print_options (FILE *fp, uint64_t mask)
{
  char left[64];
  unsigned i;

  for (i = 0; i < N_CLI_OPTIONS; i++) {
    const struct option_info *o = &options[i];

    if (!(mask & UINT64_C (1) << i))
      continue;
    snprintf (left, sizeof left, "%c%c%s--%s%s%s", o->letter ? '-' : ' ', o->letter ? o->letter : ' ',
              o->letter ? ", " : "  ", o->name, o->argument ? " " : "",
              o->argument ? o->argument : "");
    fprintf (fp, "  %-26s %s\n", left, o->help);
  }
}

static void
print_usage (FILE *fp, const struct cli_command *c)
{
  unsigned i;

  fprintf (fp, "crgctl %s%s%s", c->name, *c->operands ? " " : "", c->operands);
  for (i = 0; i < N_CLI_OPTIONS; i++)
    if (c->options & UINT64_C (1) << i)
      fprintf (fp, " [--%s%s%s]%s", options[i].name, options[i].argument ? " " : "",
               options[i].argument ? options[i].argument : "", i == OPT_CLIENT ? "..." : "");
  fputc ('\n', fp);
}

static void
print_help (FILE *fp, const struct cli_command *c)
{
  size_t i;

  if (c) {
    fprintf (fp, "usage: ");
    print_usage (fp, c);
    fprintf (fp, "\n%c%s.\n\n", c->help[0] & ~0x20, c->help + 1);
    print_options (fp, c->options | CLI_GLOBAL);
    fprintf (fp, "\nSee crgctl(8).\n");
    return;
  }
  fprintf (fp, "usage: crgctl [OPTION...] COMMAND [OPERAND...]\n\nCommands:\n");
  for (i = 0; i < ARRAY_SIZE (commands); i++)
    if (!commands[i].hidden)
      fprintf (fp, "  %-12s %s\n", commands[i].name, commands[i].help);
  fprintf (fp, "\nOptions of every command:\n");
  print_options (fp, CLI_GLOBAL);
  fprintf (fp, "\nThe daemon is that of --socket, of --conf, of $CRGCTL_SOCKET, or %s.\n"
               "'crgctl help COMMAND' tells the rest; 'crgctl exit-codes' lists the exit codes.\n"
               "See crgctl(8).\n", "/run/nbd-crg/crgd.sock");
}

static const struct cli_command *
find_command (const char *name)
{
  size_t i;

  for (i = 0; i < ARRAY_SIZE (commands); i++)
    if (strcmp (commands[i].name, name) == 0)
      return &commands[i];
  return NULL;
}

static int
help_command (struct cli *cli)
{
  const struct cli_command *c = NULL;

  if (cli->n_words > 0) {
    c = find_command (cli->words[0]);
    if (!c)
      return cli_error (cli, CRG_EXIT_USAGE, "there is no command '%s'; 'crgctl --help' lists them",
                        cli->words[0]);
  }
  print_help (stdout, c);
  return CRG_EXIT_FINE;
}

static int
exit_codes_command (struct cli *cli)
{
#define CLI_PRINT_CODE(symbol, number, name, meaning) \
  printf ("%-3d %-12s %s\n", number, name, meaning);
  CRG_EXIT_CODES (CLI_PRINT_CODE)
#undef CLI_PRINT_CODE
  return CRG_EXIT_FINE;
}

/* ---- parsing ---------------------------------------------------------------------------- */

static int
take_option (struct cli *cli, unsigned i, const char *value)
{
  cli->given[i] = true;
  cli->value[i] = value;
  if (i == OPT_CLIENT) {
    if (cli->n_clients == CLI_MAX_WORDS)
      return cli_error (cli, CRG_EXIT_USAGE, "more than %d clients; run it again for the rest",
                        CLI_MAX_WORDS);
    cli->clients[cli->n_clients++] = value;
  }
  if (i == OPT_STORE) {
    if (cli->n_stores == CRG_MAX_IASPS)
      return cli_error (cli, CRG_EXIT_USAGE, "more than %d stores", CRG_MAX_IASPS);
    cli->stores[cli->n_stores++] = value;
  }
  if (i == OPT_META) {
    if (cli->n_metas == CRG_MAX_IASPS)
      return cli_error (cli, CRG_EXIT_USAGE, "more than %d places for metadata", CRG_MAX_IASPS);
    cli->metas[cli->n_metas++] = value;
  }
  return CRG_EXIT_FINE;
}

/* argv[*at] is an option; takes its value from the same or the next word. */
static int
parse_option (struct cli *cli, int argc, char **argv, int *at)
{
  const char *word = argv[*at], *value = NULL, *equals;
  size_t len;
  unsigned i;

  if (word[1] == '-') {
    equals = strchr (word, '=');
    len = equals ? (size_t) (equals - word - 2) : strlen (word + 2);
    for (i = 0; i < N_CLI_OPTIONS; i++)
      if (strlen (options[i].name) == len && strncmp (options[i].name, word + 2, len) == 0)
        break;
    value = equals ? equals + 1 : NULL;
  }
  else {
    for (i = 0; i < N_CLI_OPTIONS && options[i].letter != word[1]; i++)
      ;
    if (word[2])
      value = word + 2;
  }
  if (i == N_CLI_OPTIONS)
    return cli_error (cli, CRG_EXIT_USAGE, "there is no option '%s'; 'crgctl help%s%s' lists them",
                      word, cli->command ? " " : "", cli->command ? cli->command->name : "");
  if (!options[i].argument && value)
    return cli_error (cli, CRG_EXIT_USAGE, "--%s takes no argument", options[i].name);
  if (options[i].argument && !value) {
    if (*at + 1 >= argc)
      return cli_error (cli, CRG_EXIT_USAGE, "--%s needs an argument: %s", options[i].name,
                        options[i].argument);
    value = argv[++*at];
  }
  return take_option (cli, i, value);
}

/* Which options were given that the command does not have, how many operands. */
static int
check_usage (struct cli *cli)
{
  const struct cli_command *c = cli->command;
  unsigned i;

  for (i = 0; i < N_CLI_OPTIONS; i++)
    if (cli->given[i] && !((c->options | CLI_GLOBAL) & UINT64_C (1) << i))
      return cli_error (cli, CRG_EXIT_USAGE, "--%s is not an option of this command; 'crgctl help %s' "
                        "lists them", options[i].name, c->name);
  if (cli->n_words < c->min_words || cli->n_words > c->max_words) {
    cli_error (cli, CRG_EXIT_USAGE, "%s", cli->n_words < c->min_words ? "an operand is missing"
                                                                      : "an operand too many");
    fprintf (stderr, "usage: ");
    print_usage (stderr, c);
    return CRG_EXIT_USAGE;
  }
  return CRG_EXIT_FINE;
}

static int
parse (struct cli *cli, int argc, char **argv)
{
  bool only_words = false;
  int i, rc;

  for (i = 1; i < argc; i++) {
    if (!only_words && argv[i][0] == '-' && argv[i][1]) {
      if (strcmp (argv[i], "--") == 0) {
        only_words = true;
        continue;
      }
      rc = parse_option (cli, argc, argv, &i);
      if (rc != CRG_EXIT_FINE)
        return rc;
    }
    else if (!cli->command) {
      cli->command = find_command (argv[i]);
      if (!cli->command)
        return cli_error (cli, CRG_EXIT_USAGE, "there is no command '%s'; 'crgctl --help' lists them",
                          argv[i]);
      /* Its words are those of an unfinished command line. */
      only_words = cli->command->run == complete_command;
    }
    else if (cli->n_words == CLI_MAX_WORDS)
      return cli_error (cli, CRG_EXIT_USAGE, "more than %d operands", CLI_MAX_WORDS);
    else
      cli->words[cli->n_words++] = argv[i];
  }
  return CRG_EXIT_FINE;
}

/* ---- completion ------------------------------------------------------------------------- */

static void
complete_names (struct cli *cli, const char *want)
{
  json_t *answer = NULL, *crg, *iasp;
  char err[CONF_ERR_MAX + 1];
  size_t i, j;

  cli->timeout_ms = 1000;
  if (client_call_quiet (cli, json_pack ("{s:s}", "cmd", "status"), &answer, err, sizeof err)
      != CRG_EXIT_FINE)
    return;
  json_array_foreach (json_object_get (answer, "crgs"), i, crg) {
    if (strstr (want, "CRG") || strstr (want, "NAME"))
      printf ("%s\n", json_string_value (json_object_get (crg, "name")) ?: "");
    if (strstr (want, "IASP") || strstr (want, "NAME"))
      json_array_foreach (json_object_get (crg, "iasps"), j, iasp)
        printf ("%s\n", json_string_value (json_object_get (iasp, "name")) ?: "");
    if (strstr (want, "NODE"))
      json_array_foreach (json_object_get (crg, "nodes"), j, iasp)
        printf ("%s\n", json_string_value (json_object_get (iasp, "name")) ?: "");
  }
  json_decref (answer);
}

/* The words before the one that is being typed; prints candidates, one a line.  "FILE" alone asks
 * the shell for its own file names. */
static int
complete_command (struct cli *cli)
{
  const struct cli_command *c = NULL;
  const char *last = cli->n_words > 0 ? cli->words[cli->n_words - 1] : "";
  unsigned i, words = 0;
  size_t j;

  for (i = 0; i < cli->n_words; i++) {
    unsigned o;

    for (o = 0; o < N_CLI_OPTIONS; o++)
      if (options[o].argument && i > 0 && strncmp (cli->words[i - 1], "--", 2) == 0
          && strcmp (cli->words[i - 1] + 2, options[o].name) == 0)
        break;
    if (o < N_CLI_OPTIONS) {
      if (o == OPT_SOCKET) {
        cli->given[o] = true;
        cli->value[o] = cli->words[i];
      }
      continue; /* the argument of an option */
    }
    if (cli->words[i][0] == '-')
      continue;
    if (c)
      words++;
    else
      c = find_command (cli->words[i]);
  }
  for (i = 0; i < N_CLI_OPTIONS; i++)
    if (options[i].argument && strncmp (last, "--", 2) == 0 && strcmp (last + 2, options[i].name) == 0) {
      if (i == OPT_TO || i == OPT_WITHOUT)
        complete_names (cli, "NODE");
      else if (i == OPT_SOCKET || i == OPT_CONF)
        printf ("FILE\n");
      return CRG_EXIT_FINE;
    }
  if (!c)
    for (j = 0; j < ARRAY_SIZE (commands); j++)
      if (!commands[j].hidden)
        printf ("%s\n", commands[j].name);
  if (c && c->run == help_command)
    for (j = 0; j < ARRAY_SIZE (commands); j++)
      if (!commands[j].hidden)
        printf ("%s\n", commands[j].name);
  for (i = 0; i < N_CLI_OPTIONS; i++)
    if ((c ? c->options | CLI_GLOBAL : CLI_GLOBAL) & UINT64_C (1) << i)
      printf ("--%s\n", options[i].name);
  if (c && words < c->max_words) {
    if (c->run == status_is_command && words == 0)
      for (i = 0; status_predicates[i]; i++)
        printf ("%s\n", status_predicates[i]);
    else if (c->run == group_mirror_command && words == 0)
      for (i = 0; mirror_verbs[i]; i++)
        printf ("%s\n", mirror_verbs[i]);
    else if (c->run == iasp_command && words == 0)
      for (i = 0; iasp_verbs[i]; i++)
        printf ("%s\n", iasp_verbs[i]);
    else if (c->run == node_command && words == 0)
      for (i = 0; node_verbs[i]; i++)
        printf ("%s\n", node_verbs[i]);
    else if (c->run == node_command)
      complete_names (cli, words == 1 && strcmp (cli->words[0], "mark-failed") != 0 ? "CRG" : "NODE");
    else if (strstr (c->operands, "FILE") || strstr (c->operands, "STORE") || strstr (c->operands, "DIR"))
      printf ("FILE\n");
    else if (c->run != help_command)
      complete_names (cli, c->operands);
  }
  return CRG_EXIT_FINE;
}

int
main (int argc, char **argv)
{
  static struct cli cli;
  long seconds;
  int rc;

  signal (SIGPIPE, SIG_IGN);
  rc = parse (&cli, argc, argv);
  if (rc != CRG_EXIT_FINE)
    return rc;
  if (cli.given[OPT_VERSION]) {
    printf ("crgctl %s\n", PACKAGE_VERSION);
    return CRG_EXIT_FINE;
  }
  if (cli.given[OPT_HELP]) {
    print_help (stdout, cli.command);
    return CRG_EXIT_FINE;
  }
  if (!cli.command) {
    print_help (stderr, NULL);
    return CRG_EXIT_USAGE;
  }
  rc = check_usage (&cli);
  if (rc != CRG_EXIT_FINE)
    return rc;
  if (!cli_number (&cli, OPT_TIMEOUT, 1, 86400, 60, &seconds))
    return CRG_EXIT_USAGE;
  cli.timeout_ms = (int) seconds * 1000;
  rc = cli.command->run (&cli);
  if (fflush (stdout) != 0 && rc == CRG_EXIT_FINE)
    return cli_error (&cli, CRG_EXIT_ERROR, "cannot write the output: %s", strerror (errno));
  return rc;
}
