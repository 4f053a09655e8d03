/* SPDX-License-Identifier: BSD-3-Clause */
/* crgctl cluster conf: prints a corosync.conf for the nodes given, with timers that suit us:
 * corosync's own defaults take 9.5 s to see a death in a group of four, and all of it waits
 * meanwhile.  Asks no daemon, changes nothing; one thread.
 */
#include "config.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "admin/cli.h"
#include "common/conf.h"
#include "common/ident.h"
#include "common/util-posix.h"

/* More than two links don't help two sites that have two networks. */
#define MAX_LINKS 2
/* A longer round trip is no place for one group. */
#define MAX_RTT_MS 250

struct place {
  char name[CRG_NAME_MAX + 1];
  uint32_t id;
  unsigned n_links;
  char addresses[MAX_LINKS][CRG_ADDR_MAX + 1];
};

struct timers {
  uint32_t token_ms, consensus_ms, ping_interval_ms, ping_timeout_ms;
};

/* A death is seen after token + consensus = 2.2 x token.  1000 ms held on machines without a
 * free processor and with round trips up to 100 ms, but a wide area line loses packets for
 * longer: 3000 at 50 ms, 5000 at 100 ms. */
static struct timers
choose_timers (long rtt_ms)
{
  struct timers t;

  t.token_ms = rtt_ms <= 10 ? 1000 : 1000 + 40 * (uint32_t) rtt_ms;
  t.consensus_ms = t.token_ms + t.token_ms / 5;
  t.ping_interval_ms = t.token_ms / 5;
  t.ping_timeout_ms = t.token_ms;
  return t;
}

static int
add_address (struct cli *cli, struct place *p, const char *address)
{
  unsigned char buf[sizeof (struct in6_addr)];

  if (inet_pton (AF_INET, address, buf) != 1 && inet_pton (AF_INET6, address, buf) != 1)
    return cli_error (cli, CRG_EXIT_USAGE, "'%s' of node '%s' is neither an IPv4 nor an IPv6 address "
                      "(a name would have to be resolved whenever corosync starts)",
                      address, p->name);
  if (p->n_links == MAX_LINKS)
    return cli_error (cli, CRG_EXIT_USAGE, "node '%s' has more than %d addresses; give those of one "
                      "or two networks", p->name, MAX_LINKS);
  snprintf (p->addresses[p->n_links++], sizeof p->addresses[0], "%s", address);
  return CRG_EXIT_FINE;
}

/* NODE=ADDRESS[,ADDRESS] */
static int
read_word (struct cli *cli, struct place *p, const char *word, unsigned number)
{
  const char *equals = strchr (word, '='), *at, *end;
  char address[CRG_ADDR_MAX + 1];
  int rc;

  if (!equals)
    return cli_error (cli, CRG_EXIT_USAGE, "'%s' has no address: NODE=ADDRESS[,ADDRESS]", word);
  if ((size_t) (equals - word) >= sizeof p->name)
    return cli_error (cli, CRG_EXIT_USAGE, "the name in '%s' is too long; allowed: %d bytes", word,
                      CRG_NAME_MAX);
  snprintf (p->name, sizeof p->name, "%.*s", (int) (equals - word), word);
  if (!ident_name_is_valid (p->name))
    return cli_error (cli, CRG_EXIT_USAGE, "'%s' is no name of a node; allowed: letters a to z, "
                      "digits, '_', '.' and '-'", p->name);
  p->id = number;
  for (at = equals + 1;; at = end + 1) {
    end = strchrnul (at, ',');
    if ((size_t) (end - at) >= sizeof address)
      return cli_error (cli, CRG_EXIT_USAGE, "an address of node '%s' is too long", p->name);
    snprintf (address, sizeof address, "%.*s", (int) (end - at), at);
    rc = add_address (cli, p, address);
    if (rc != CRG_EXIT_FINE || !*end)
      return rc;
  }
}

/* The nodes of a CRG's definition, with their ids and first addresses. */
static int
read_definition (struct cli *cli, const char *file, struct place *places, unsigned *n)
{
  CLEANUP_FREE struct conf_crg *crg = malloc (sizeof *crg);
  char err[CONF_ERR_MAX + 1];
  unsigned i, a;
  int r, rc;

  if (!crg)
    return cli_error (cli, CRG_EXIT_ERROR, "out of memory");
  r = conf_read_crg (file, crg, err, sizeof err);
  if (r < 0)
    return cli_error (cli, r == -ENOENT ? CRG_EXIT_NO_OBJECT : CRG_EXIT_ERROR, "%s", err);
  for (i = 0; i < crg->n_nodes; i++) {
    struct place *p = &places[(*n)++];

    snprintf (p->name, sizeof p->name, "%s", crg->nodes[i].name);
    p->id = crg->nodes[i].id;
    for (a = 0; a < MIN (crg->nodes[i].n_addresses, (unsigned) MAX_LINKS); a++) {
      rc = add_address (cli, p, crg->nodes[i].addresses[a]);
      if (rc != CRG_EXIT_FINE)
        return rc;
    }
  }
  return CRG_EXIT_FINE;
}

static int
check_places (struct cli *cli, const struct place *places, unsigned n)
{
  unsigned i, j, a, b;

  if (n < 2)
    return cli_error (cli, CRG_EXIT_USAGE, "one node is no cluster: give all of them");
  for (i = 0; i < n; i++) {
    const struct place *p = &places[i];

    if (p->n_links != places[0].n_links)
      return cli_error (cli, CRG_EXIT_USAGE, "node '%s' has %u addresses, node '%s' has %u: each "
                        "node needs one in each network", p->name, p->n_links, places[0].name,
                        places[0].n_links);
    for (a = 0; a < p->n_links; a++)
      if (!strchr (p->addresses[a], ':') != !strchr (places[0].addresses[a], ':'))
        return cli_error (cli, CRG_EXIT_USAGE, "'%s' of node '%s' and '%s' of node '%s' are of one "
                          "network, but one is IPv4 and one is IPv6", p->addresses[a], p->name,
                          places[0].addresses[a], places[0].name);
    for (j = 0; j <= i; j++) {
      if (j < i && strcmp (p->name, places[j].name) == 0)
        return cli_error (cli, CRG_EXIT_USAGE, "node '%s' is given twice", p->name);
      for (a = 0; a < p->n_links; a++)
        for (b = 0; b < places[j].n_links; b++)
          if ((i != j || a < b) && strcmp (p->addresses[a], places[j].addresses[b]) == 0)
            return cli_error (cli, CRG_EXIT_USAGE, "address '%s' of node '%s' is already given to "
                              "node '%s'", p->addresses[a], p->name, places[j].name);
    }
  }
  return CRG_EXIT_FINE;
}

static void
print_conf (const struct place *places, unsigned n, const char *cluster, struct timers t)
{
  uint32_t detection_ms = t.token_ms + t.consensus_ms;
  unsigned i, a;

  printf ("# corosync.conf for nbd-crg, the same on every node: /etc/corosync/corosync.conf\n"
          "# The key: run corosync-keygen on one node and copy /etc/corosync/authkey to the others.\n"
          "# A dead node is seen after %" PRIu32 " ms; crgd.conf needs lease-ms = %" PRIu32
          " or more.\n"
          "\n"
          "totem {\n"
          "  version: 2\n"
          "  cluster_name: %s\n"
          "  transport: knet\n"
          "  crypto_model: openssl\n"
          "  crypto_cipher: aes256\n"
          "  crypto_hash: sha256\n"
          "  token: %" PRIu32 "\n"
          "  token_coefficient: 0\n"
          "  consensus: %" PRIu32 "\n",
          detection_ms, (detection_ms * 5 + 3) / 4, cluster, t.token_ms, t.consensus_ms);
  if (places[0].n_links > 1)
    printf ("  link_mode: passive\n");
  for (a = 0; a < places[0].n_links; a++)
    printf ("  interface {\n"
            "    linknumber: %u\n"
            "    knet_ping_interval: %" PRIu32 "\n"
            "    knet_ping_timeout: %" PRIu32 "\n"
            "  }\n",
            a, t.ping_interval_ms, t.ping_timeout_ms);
  printf ("}\n\n"
          "logging {\n"
          "  to_stderr: no\n"
          "  to_syslog: yes\n"
          "  timestamp: hires\n"
          "}\n\n"
          "# nbd-crg counts votes by itself; it only needs to hear when a membership is complete.\n"
          "quorum {\n"
          "  provider: corosync_votequorum\n"
          "}\n\n"
          "# The names are those of crgd.conf.\n"
          "nodelist {\n");
  for (i = 0; i < n; i++) {
    printf ("  node {\n"
            "    name: %s\n"
            "    nodeid: %" PRIu32 "\n",
            places[i].name, places[i].id);
    for (a = 0; a < places[i].n_links; a++)
      printf ("    ring%u_addr: %s\n", a, places[i].addresses[a]);
    printf ("  }\n");
  }
  printf ("}\n");
}

int
cluster_conf_command (struct cli *cli)
{
  struct place places[CRG_MAX_NODES] = { 0 };
  const char *cluster = cli->given[OPT_NAME] ? cli->value[OPT_NAME] : "nbd-crg";
  unsigned n = 0, i;
  long rtt_ms;
  int rc;

  if (strcmp (cli->words[0], "conf") != 0)
    return cli_error (cli, CRG_EXIT_USAGE, "there is no 'cluster %s'; allowed: cluster conf",
                      cli->words[0]);
  if (!cli_number (cli, OPT_RTT, 0, MAX_RTT_MS, 0, &rtt_ms))
    return CRG_EXIT_USAGE;
  if (!ident_name_is_valid (cluster))
    return cli_error (cli, CRG_EXIT_USAGE, "'%s' is no name of a cluster; allowed: letters a to z, "
                      "digits, '_', '.' and '-'", cluster);
  if (cli->n_words == 2 && !strchr (cli->words[1], '=')) {
    rc = read_definition (cli, cli->words[1], places, &n);
    if (rc != CRG_EXIT_FINE)
      return rc;
  }
  else {
    if (cli->n_words - 1 > CRG_MAX_NODES)
      return cli_error (cli, CRG_EXIT_USAGE, "%u nodes; allowed: 2 to %d", cli->n_words - 1,
                        CRG_MAX_NODES);
    for (i = 1; i < cli->n_words; i++) {
      rc = read_word (cli, &places[n++], cli->words[i], i);
      if (rc != CRG_EXIT_FINE)
        return rc;
    }
  }
  rc = check_places (cli, places, n);
  if (rc != CRG_EXIT_FINE)
    return rc;
  print_conf (places, n, cluster, choose_timers (rtt_ms));
  return CRG_EXIT_FINE;
}
