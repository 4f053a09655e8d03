/* SPDX-License-Identifier: BSD-3-Clause */
/* common/conf and common/ini: a table of good and bad files, each bad one with the line and the
 * reason it must be refused with; the way of a definition through JSON and back; and JSON that
 * must be refused.
 */
#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/conf.h"
#include "common/ini.h"
#include "common/jsonl.h"
#include "tests/tap.h"

static const char good_crg[]
  = "# a comment\n"
    "[crg]\n"
    "name = payroll\n"
    "suspend-timeout-ms = 2000   # two seconds\n"
    "\n"
    "[node p1]\n"
    "id = 1\n"
    "site = rome\n"
    "role = primary\n"
    "address = 127.0.0.11, 127.0.0.21\n"
    "[node p2]\n"
    "id = 2\n"
    "site = rome\n"
    "role = backup\n"
    "address = 127.0.0.12\n"
    "[node c1]\n"
    "id = 3\n"
    "site = milan\n"
    "role = backup\n"
    "address = 127.0.0.13\n"
    "[node w1]\n"
    "id = 5\n"
    "role = replicate\n"
    "address = fe80::1%lo\n"
    "[iasp payroll]\n"
    "size = 1G\n"
    "block-size = 128K\n"
    "export = tcp::10809\n"
    "store = /srv/a\n"
    "store.milan = /srv/b\n"
    "store.p2 = /srv/c\n"
    "meta.rome = /srv/m\n"
    "meta.p2 = /srv/n\n"
    "[script lp]\n"
    "agent = /usr/lib/lp-agent\n"
    "timeout-ms = 3000\n";

static char err[CONF_ERR_MAX + 1];

static int
parse_crg (const char *text, struct conf_crg *c)
{
  size_t len = strlen (text);
  char *copy = malloc (len + 1);
  int rc;

  memcpy (copy, text, len + 1);
  err[0] = '\0';
  rc = conf_parse_crg ("f", copy, len, c, err, sizeof err);
  free (copy);
  return rc;
}

static int
parse_crgd (const char *text, struct conf_crgd *c)
{
  size_t len = strlen (text);
  char *copy = malloc (len + 1);
  int rc;

  memcpy (copy, text, len + 1);
  err[0] = '\0';
  rc = conf_parse_crgd ("f", copy, len, c, err, sizeof err);
  free (copy);
  return rc;
}

/* The good definition with the first 'from' replaced by 'to' must be refused with 'want'. */
static const struct {
  const char *from, *to, *want;
} bad_crg[] = {
  { "[crg]", "[crgg]", "f:2: unknown section [crgg]; did you mean 'crg'?" },
  { "[crg]", "[lease]", "f:2: unknown section [lease]; allowed: crg, node, iasp" },
  { "[crg]", "[crg x]", "f:2: [crg x] takes no name here" },
  { "[crg]", "[crg", "f:2: a section ends with ']'" },
  { "[crg]", "[]", "f:2: a section needs a name" },
  { "[crg]", "[crg]\n[crg]", "f:3: there are two [crg]; the first is in line 2" },
  { "[crg]\nname = payroll\nsuspend-timeout-ms = 2000", "",
    "f: there is no [crg] section" },
  { "name = payroll", "", "f:2: [crg] has no 'name'; it is required" },
  { "name = payroll", "name = Payroll", "f:3: bad name 'Payroll' in [crg]; allowed: 1 to 63" },
  { "name = payroll", "name =", "f:3: 'name' in [crg] has no value" },
  { "name = payroll", "name = a\nname = b", "f:4: 'name' is given twice in [crg]; first in line 3" },
  { "name = payroll", "payroll", "f:3: neither [section] nor key = value" },
  { "name = payroll", "= payroll", "f:3: there is no key before '='" },
  { "name = payroll", "name = pay\033roll", "f:3: a control character" },
  { "name = payroll", "name = pay\xd2roll", "f:3: bytes that are not UTF-8" },
  { "= 2000", "= 99", "f:4: bad suspend-timeout-ms '99' in [crg]; allowed: a number from 100" },
  { "= 2000", "= 2s", "f:4: bad suspend-timeout-ms '2s'" },
  { "= 2000", "= 18446744073709551616", "f:4: bad suspend-timeout-ms" },
  { "= 2000", "= -1", "f:4: bad suspend-timeout-ms" },
  { "suspend-timeout-ms = 2000", "takeover = same-site",
    "f:4: bad takeover 'same-site' in [crg]; allowed: same-site-first, order" },
  { "suspend-timeout-ms = 2000", "takeover = ordr", "did you mean 'order'?" },
  { "# a comment", "a = b", "f:1: 'a' stands before the first section" },
  { "[node p1]", "[node]", "f:6: [node] needs a name" },
  { "[node p1]", "[node p1 p2]", "f:6: a section has a kind and at most one name" },
  { "[node p1]", "[node -p1]", "f:6: bad node name '-p1'" },
  { "[node p2]", "[node p1]", "f:11: there are two [node p1]; the first is in line 6" },
  { "id = 2", "id = 1", "f:12: node 'p2' has id 1, which node 'p1' has" },
  { "id = 2", "id = 0", "f:12: bad id '0' in [node p2]; allowed: a number from 1" },
  { "id = 2", "id = 65536", "f:12: bad id '65536'" },
  { "id = 2", "", "f:11: [node p2] has no 'id'" },
  { "role = primary", "role = backup", "f:2: no node is primary" },
  { "role = backup", "role = primary", "f:14: nodes 'p1' and 'p2' are both primary" },
  { "role = primary", "role = prmary", "f:9: bad role 'prmary' in [node p1]; did you mean 'primary'?" },
  { "role = primary\n", "", "f:6: [node p1] has no 'role'" },
  { "site = milan\nrole = backup", "site = milan\nrole = peer",
    "f:18: site 'milan' has no node that can host a copy" },
  { "site = milan\n", "", "f:16: backup 'c1' has no site" },
  { "role = replicate", "role = replicate\nsite = rome", "f:24: replicate 'w1' has a site" },
  { "role = replicate", "role = replicate\norder = 3", "f:24: replicate 'w1' has no place in the" },
  { "id = 2", "id = 2\norder = 1", "f:6: node 'p1' has no 'order', but others have (line 13)" },
  { "address = 127.0.0.12", "", "f:11: [node p2] has no 'address'" },
  { "127.0.0.12", "127.0.0.11", "f:15: address '127.0.0.11' of node 'p2' is already given to node 'p1'" },
  { "127.0.0.12", "127.0.0.300", "f:15: address '127.0.0.300' of node 'p2' is neither" },
  { "127.0.0.12", "p2.example.org", "f:15: address 'p2.example.org' of node 'p2' is neither" },
  { "127.0.0.12", "0.0.0.0", "f:15: address '0.0.0.0' of node 'p2' is the wildcard" },
  { "127.0.0.12", "::", "is the wildcard" },
  { "127.0.0.12", "224.0.0.1", "is a multicast address" },
  { "127.0.0.12", "fe80::2%", "has an empty scope" },
  { "127.0.0.12", "1.1.1.1 1.1.1.2 1.1.1.3 1.1.1.4 1.1.1.5", "f:15: node 'p2' has more than 4" },
  { "127.0.0.12", ",", "f:15: node 'p2' has 0 addresses" },
  { "[iasp payroll]", "[iasp pay/roll]", "f:25: bad IASP name 'pay/roll'" },
  { "size = 1G", "size = 1X", "f:26: bad size '1X' in [iasp payroll]; allowed: bytes with a suffix" },
  { "size = 1G", "size = 0", "f:26: bad size '0'" },
  { "size = 1G", "size = 1000", "f:26: size 1000; allowed: a multiple of 4096" },
  { "size = 1G", "size = 99999999T", "f:26: bad size" },
  { "size = 1G", "size = 2097152T", "f:26: size 2305843009213693952; allowed" },
  { "128K", "3K", "f:27: block-size 3072; allowed: a power of two from 4K to 1M" },
  { "128K", "8G", "f:27: bad block-size '8G'" },
  { "tcp::10809", "tcp:10809", "f:28: export 'tcp:10809' is not of a known form; allowed: unix:" },
  { "tcp::10809", "tcp::0", "f:28: export 'tcp::0': a port is" },
  { "tcp::10809", "tcp:host:1", "f:28: export 'tcp:host:1': the address is neither" },
  { "tcp::10809", "unix:sock", "f:28: export 'unix:sock': the socket is not an absolute path" },
  { "tcp::10809", "tcp::10810", "f:28: export 'tcp::10810' has the mirror port of IASP 'payroll'" },
  { "size = 1G", "snapshot-before-resync = yes", "f:26: bad snapshot-before-resync 'yes' in [iasp payroll]; allowed: on, off" },
  { "size = 1G", "tls = yes", "f:26: bad tls 'yes' in [iasp payroll]; allowed: on, off" },
  { "size = 1G", "mirror-port = 65536", "f:26: bad mirror-port '65536'" },
  { "size = 1G", "mirrorport = 1", "f:26: unknown key 'mirrorport' in [iasp payroll]; did you mean 'mirror-port'?" },
  { "store = ", "stroe = ", "f:29: unknown key 'stroe' in [iasp payroll]; did you mean 'store'?" },
  { "size = 1G", "colour = red", "f:26: unknown key 'colour' in [iasp payroll]; allowed: size, block-size, export, tls, snapshot-before-resync, mirror-port, store" },
  { "size = 1G", "size.p1 = 1G", "f:26: unknown key 'size.p1'" },
  { "store = /srv/a", "", "f:25: IASP 'payroll' has no store on node 'p1'; add" },
  { "store = /srv/a", "store = srv/a", "f:29: store 'srv/a' in [iasp payroll] is not an absolute" },
  { "store = /srv/a", "store = /srv/a\nstore = /srv/a", "f:30: 'store' is given twice" },
  { "store.milan = /srv/b", "", "f:29: nodes 'p1' and 'c1' are at two sites on this machine" },
  { "store.milan", "store.milano", "f:30: 'store.milano' names neither a node nor a site; did you mean 'milan'?" },
  { "store.milan", "store.w1", "f:30: 'store.w1': replicate 'w1' never hosts a copy" },
  { "store.milan", "store.", "f:30: bad name in 'store.'" },
  { "meta.rome", "meta.roma", "f:32: 'meta.roma' names neither a node nor a site; did you mean 'rome'?" },
  { "meta.rome", "meta.w1", "f:32: 'meta.w1': replicate 'w1' never hosts a copy" },
  { "meta.rome = /srv/m", "meta.rome = m", "f:32: meta.rome 'm' in [iasp payroll] is not an absolute path" },
  { "meta.rome = /srv/m", "meta.rome = /srv/a", "f:32: meta '/srv/a' on node 'p1' is already used by IASP 'payroll'" },
  { "meta.rome", "meta", "f:32: nodes 'p1' and 'c1' are at two sites on this machine (loopback addresses) and share '/srv/m'" },
  { "meta.rome = /srv/m", "meta.milan = /srv/a", "f:32: nodes 'p1' and 'c1' are at two sites on this machine" },
  { "[iasp payroll]", "[iasp a]\nstore = /x\nstore.milan = /y\nmeta.p1 = /srv/m\n[iasp payroll]",
    "f:36: meta '/srv/m' on node 'p1' is already used by IASP 'a'" },
  { "[iasp payroll]", "[iasp a]\nstore = /x\nstore.milan = /y\nmeta.p1 = /srv/a\n[iasp payroll]",
    "store '/srv/a' on node 'p1' is already that of IASP 'a'" },
  { "[iasp payroll]", "[iasp a]\nstore = /srv/a\n[iasp payroll]", "at two sites on this machine" },
  { "[iasp payroll]", "[iasp a]\nstore.milan = /srv/b\nstore = /x\n[iasp payroll]",
    "f:32: store '/srv/b' on node 'c1' is already that of IASP 'a'" },
  { "[iasp payroll]", "[iasp a]\nstore.milan = /srv/d\nstore = /x\n[iasp payroll]\nmirror-port = 10810",
    "f:29: mirror-port 10810 is already that of IASP 'a'" },
  { "[iasp payroll]", "[iasp a]\nstore.milan = /srv/d\nstore = /x\nexport = tcp:1.1.1.1:10809\n[iasp payroll]",
    "has the port of IASP 'a'" },
};

static const char good_crgd[] = "[node]\n"
                                "name = p1\n"
                                "state-dir = /s\n"
                                "run-dir = /r\n"
                                "[engine]\n"
                                "type = local\n"
                                "socket = /h\n"
                                "token-ms = 200\n"
                                "[lease]\n"
                                "lease-ms = 600\n";

static const struct {
  const char *from, *to, *want;
} bad_crgd[] = {
  { "name = p1\n", "", "f:1: [node] has no 'name'" },
  { "[node]", "[node p1]", "f:1: [node p1] takes no name here" },
  { "[node]", "[iasp x]", "f:1: unknown section [iasp]; allowed: node, engine, lease" },
  { "state-dir", "statedir", "f:3: unknown key 'statedir' in [node]; did you mean 'state-dir'?" },
  { "/s", "s", "f:3: state-dir 's' in [node] is not an absolute path" },
  { "/r", "/s", "f:4: run-dir and state-dir are both '/s'" },
  { "/r", "/rrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrr"
          "rrrrrrrrrrrr", "f:4: run-dir '/r" },
  { "local", "locl", "f:6: bad type 'locl' in [engine]; did you mean 'local'?" },
  { "local", "raft", "f:6: bad type 'raft' in [engine]; allowed: local, corosync" },
  { "local", "corosync", "f:7: 'socket' is not for the engine 'corosync'; corosync's sockets and timers" },
  { "local\nsocket = /h", "corosync", "f:7: 'token-ms' is not for the engine 'corosync'" },
  { "socket = /h", "group-prefix = x", "f:7: 'group-prefix' is not for the engine 'local'" },
  { "local\nsocket = /h\ntoken-ms = 200", "corosync\ngroup-prefix = a23456789012345678901234567890123",
    "f:7: group-prefix 'a23456789012345678901234567890123' is longer than 32 bytes" },
  { "local\nsocket = /h\ntoken-ms = 200\n[lease]\nlease-ms = 600", "corosync\n[lease]\nlease-ms = 100", NULL },
  { "local\nsocket = /h\ntoken-ms = 200", "corosync\ngroup-prefix = a2345678901234567890123456789012", NULL },
  { "token-ms = 200", "token-ms = 5", "f:8: bad token-ms '5' in [engine]; allowed: a number from 50 to 60000" },
  { "token-ms = 200", "token-ms = 481", "f:10: lease-ms 600 is too short for token-ms 481 (L1); allowed: at least 602" },
  { "lease-ms = 600", "lease-ms = 249", "f:10: lease-ms 249 is too short for token-ms 200 (L1); allowed: at least 250" },
  { "lease-ms = 600", "", NULL },
  { "lease-ms = 600", "lease-ms = 600\n[client]\nlisten = :10808", NULL },
  { "lease-ms = 600", "lease-ms = 600\n[client]\nlisten = [2001:db8::1]:10808", NULL },
  { "lease-ms = 600", "lease-ms = 600\n[client]", "f:11: [client] has no 'listen'; it is required" },
  { "lease-ms = 600", "lease-ms = 600\n[client]\nlisten = 10808", "f:12: listen '10808' in [client] is not of a known "
    "form; allowed: :PORT, ADDRESS:PORT (an IPv6 address in [])" },
  { "lease-ms = 600", "lease-ms = 600\n[client]\nlisten = :0", "f:12: listen ':0' in [client] has no port from 1 to "
    "65535; allowed: :PORT, ADDRESS:PORT (an IPv6 address in [])" },
  { "lease-ms = 600", "lease-ms = 600\n[client]\nlisten = here:1", "f:12: listen 'here:1' in [client] has no IPv4 or "
    "IPv6 address of this node; allowed: :PORT, ADDRESS:PORT (an IPv6 address in [])" },
  { "token-ms = 200", "token-ms = 480", NULL },
};

static char *
replace (const char *text, const char *from, const char *to)
{
  const char *at = strstr (text, from);
  size_t len = strlen (text) + strlen (to) + 1;
  char *result = malloc (len);

  if (!at)
    abort ();
  snprintf (result, len, "%.*s%s%s", (int) (at - text), text, to, at + strlen (from));
  return result;
}

static void
test_good (void)
{
  static struct conf_crg c;
  static struct conf_crgd d;
  char place[CRG_PATH_MAX + 1], store[CRG_PATH_MAX + 1], meta[CRG_PATH_MAX + 1];
  char *text;

  ok (parse_crg (good_crg, &c) == 0, "a good definition is read %s", err);
  is_str (c.name, "payroll", "its name");
  is (c.takeover, CONF_SAME_SITE_FIRST, "takeover by default");
  is (c.store_error, CONF_STORE_ERROR_FAIL_OVER, "errors of a store by default");
  is (c.resync_share, 15, "the share of a resync by default");
  is (c.suspend_timeout_ms, 2000, "suspend-timeout-ms before a comment");
  is (c.n_nodes, 4, "nodes");
  is (c.n_iasps, 2, "IASPs and scripts");
  is (c.iasps[1].type, CONF_SCRIPT, "a script");
  is (c.nodes[0].n_addresses, 2, "addresses of p1");
  is_str (c.nodes[0].addresses[1], "127.0.0.21", "second address of p1");
  is (c.nodes[0].order, 0, "order of p1");
  is (c.nodes[1].order, 1, "order of p2");
  is (c.nodes[2].order, 2, "order of c1");
  is (c.nodes[3].votes, 1, "votes by default");
  is_str (c.nodes[3].site, "", "a replicate has no site");
  is (c.iasps[0].size, UINT64_C (1) << 30, "size");
  is (c.iasps[0].block_size, 128 * 1024, "block size");
  is (c.iasps[0].mirror_port, CONF_MIRROR_PORT, "mirror port by default");
  ok (c.iasps[0].tls, "TLS by default");
  ok (!c.iasps[0].snapshot, "no snapshot by default");
  is_str (c.iasps[0].store[0], "/srv/a", "store of p1: the general one");
  is_str (c.iasps[0].store[1], "/srv/c", "store of p2: its own");
  is_str (c.iasps[0].store[2], "/srv/b", "store of c1: its site's");
  is_str (c.iasps[0].store[3], "", "store of w1: none");
  is_str (c.iasps[0].meta[0], "/srv/m", "metadata of p1: its site's");
  is_str (c.iasps[0].meta[1], "/srv/n", "metadata of p2: its own");
  is_str (c.iasps[0].meta[2], "", "metadata of c1: at the store's end");
  conf_join_store (c.iasps[0].store[0], c.iasps[0].meta[0], place);
  conf_split_store (place, store, meta);
  ok (strcmp (store, "/srv/a") == 0 && strcmp (meta, "/srv/m") == 0, "both paths as one, and apart again");
  conf_join_store ("/srv/b", "", place);
  conf_split_store (place, store, meta);
  ok (strcmp (place, "/srv/b") == 0 && strcmp (store, "/srv/b") == 0 && meta[0] == '\0', "one path alone");
  is (c.n_warnings, 1, "one warning");
  ok (strstr (c.warnings[0], "site 'rome' has exactly half of the 4 votes") != NULL,
      "rome has half of the votes: %s", c.warnings[0]);

  text = replace (good_crg, "role = replicate", "role = replicate\nvotes = 0");
  ok (parse_crg (text, &c) == 0 && c.n_warnings == 0, "2 of 3 votes at one site: no warning");
  free (text);

  /* The primary is the first even if it stands last. */
  ok (parse_crg ("[crg]\nname=a\n[node b]\nid=1\nsite=x\nrole=backup\naddress=1.1.1.1\n[node a]\n"
                 "id=2\nsite=y\nrole=primary\naddress=1.1.1.2\n[iasp i]\nstore=/dev/x", &c) == 0,
      "one path on two machines is fine %s", err);
  is (c.nodes[0].order, 1, "order of the backup");
  is (c.nodes[1].order, 0, "order of the primary");
  ok (c.n_warnings == 1 && strstr (c.warnings[0], "two nodes with equal votes"),
      "two nodes alone: %s", c.warnings[0]);
  ok (parse_crg ("[crg]\nname=a\n[node b]\nid=1\nsite=x\nrole=backup\naddress=1.1.1.1\nvotes=0\n"
                 "[node a]\nid=2\nvotes=0\nsite=y\nrole=primary\naddress=1.1.1.2\n[iasp i]\nstore=/x",
                 &c) == -EINVAL && strstr (err, "f:1: no node has a vote"), "no votes: %s", err);
  ok (parse_crg ("[crg]\nname=a\n[node b]\nid=1\nsite=x\nrole=backup\norder=0\naddress=1.1.1.1\n"
                 "[node a]\nid=2\norder=1\nsite=y\nrole=primary\naddress=1.1.1.2\n[iasp i]\nstore=/x",
                 &c) == -EINVAL && strstr (err, "f:7: node 'b' stands before the primary 'a'"),
      "primary not first: %s", err);
  ok (parse_crg ("[crg]\nname=a\n[iasp i]\nstore=/x", &c) == -EINVAL
        && strstr (err, "f:1: no [node NAME]"), "no node: %s", err);
  ok (parse_crg ("[crg]\nname=a\n[node a]\nid=1\nrole=primary\nsite=s\naddress=::1\n", &c) == -EINVAL
        && strstr (err, "f:1: no [iasp NAME]"), "no IASP: %s", err);
  ok (parse_crg ("", &c) == -EINVAL && strstr (err, "there is no [crg] section"), "empty: %s", err);
  ok (parse_crg ("[crg]\r\nname = a b # c\r\n", &c) == -EINVAL && strstr (err, "f:2: bad name 'a b'"),
      "CR LF and a comment: %s", err);

  ok (parse_crgd (good_crgd, &d) == 0, "a good crgd.conf is read %s", err);
  is_str (d.name, "p1", "its name");
  is_str (d.tls_dir, SYSCONFDIR "/nbd-crg/pki", "certificates by default");
  is_str (d.hooks_dir, SYSCONFDIR "/nbd-crg/hooks.d", "hooks by default");
  is (d.start_wait_ms, 60000, "start-wait-ms by default");
  ok (parse_crgd ("[node]\nname = p1", &d) == 0, "a name suffices %s", err);
  is_str (d.run_dir, "/run/nbd-crg", "run-dir by default");
  ok (parse_crgd ("", &d) == -EINVAL && strstr (err, "f: there is no [node] section"), "empty: %s", err);
}

/* Fig. 4: who reaches what, and the order of each resource. */
static void
test_access (void)
{
  static const char good[]
    = "[crg]\nname = a\nstrategy = access\n"
      "[node x]\nid=1\nsite=s\nrole=primary\naddress=1.1.1.1\n"
      "[node y]\nid=2\nsite=s\nrole=backup\naddress=1.1.1.2\n"
      "[node z]\nid=3\nrole=replicate\naddress=1.1.1.3\n"
      "[iasp i]\nstore.y = /dev/i\norder = y\n"
      "[script p]\nagent = /bin/p\norder = y, x\n";
  static const struct {
    const char *from, *to, *want;
  } bad[] = {
    { "= access", "= acces", "f:3: bad strategy 'acces' in [crg]; did you mean 'access'?" },
    { "strategy = access", "", "f:18: IASP 'i' has no store on node 'x'" },
    { "store.y = /dev/i\norder = y", "", "f:18: IASP 'i' has no store at site 's'; add 'store.s = PATH'" },
    { "order = y\n", "order = x\n", "f:20: order of 'i' names 'x', which has no store for it" },
    { "y, x", "y, x, y", "f:23: order of 'p' names 'y' twice" },
    { "y, x", "z", "f:23: order of 'p' names replicate 'z', which never hosts" },
    { "y, x", "w", "f:23: order of 'p' names 'w', which is not a node" },
    { "y, x", "Y!", "f:23: bad node name 'Y!' in the order of 'p'" },
    { "strategy = access\n", "\n", "IASP 'i' has no store on node 'x'" },
  };
  static struct conf_crg c, d;
  char *text;
  json_t *j;

  ok (parse_crg (good, &c) == 0 && c.n_warnings == 0, "strategy access is read %s", err);
  ok (c.strategy == CONF_STRATEGY_ACCESS && c.iasps[0].n_order == 1 && c.iasps[1].n_order == 2
        && strcmp (c.iasps[1].order[0], "y") == 0 && c.iasps[0].store[0][0] == 0,
      "a resource has an order of its own, and not every node a store");
  j = conf_crg_to_json (&c);
  memset (&d, 0, sizeof d);
  ok (j && conf_crg_from_json (j, &d, err, sizeof err) == 0 && memcmp (&c, &d, sizeof c) == 0,
      "JSON and back");
  json_array_append_new (json_object_get (json_array_get (json_object_get (j, "iasps"), 0), "order"),
                         json_integer (1));
  ok (conf_crg_from_json (j, &d, err, sizeof err) == -EINVAL && strstr (err, "not a string"), "%s", err);
  json_decref (j);
  for (size_t i = 0; i < ARRAY_SIZE (bad); i++) {
    text = replace (good, bad[i].from, bad[i].to);
    if (!ok (parse_crg (text, &c) == -EINVAL && strstr (err, bad[i].want), "%s", err))
      printf ("# wanted \"%s\"\n", bad[i].want);
    free (text);
  }
  text = replace (good_crg, "size = 1G", "size = 1G\norder = p2");
  ok (parse_crg (text, &c) == -EINVAL && strstr (err, "but all resources of this CRG move together"),
      "%s", err);
  free (text);
}

static void
test_bad (void)
{
  static struct conf_crg c;
  static struct conf_crgd d;
  char *text;
  size_t i;
  int rc;

  for (i = 0; i < ARRAY_SIZE (bad_crg); i++) {
    text = replace (good_crg, bad_crg[i].from, bad_crg[i].to);
    rc = parse_crg (text, &c);
    if (!ok (rc == -EINVAL && strstr (err, bad_crg[i].want), "%s", err))
      printf ("# wanted %d \"%s\"\n", rc, bad_crg[i].want);
    free (text);
  }
  for (i = 0; i < ARRAY_SIZE (bad_crgd); i++) {
    text = replace (good_crgd, bad_crgd[i].from, bad_crgd[i].to);
    rc = parse_crgd (text, &d);
    if (!ok (bad_crgd[i].want ? rc == -EINVAL && strstr (err, bad_crgd[i].want) : rc == 0, "%s",
             *err ? err : "fine"))
      printf ("# wanted %d \"%s\"\n", rc, bad_crgd[i].want ? bad_crgd[i].want : "fine");
    free (text);
  }
}

/* Long names, lines and files: refused, never cut. */
static void
test_bounds (void)
{
  static struct conf_crg c;
  char *text = malloc (CONF_MAX_FILE * 2), *p;
  unsigned i;

  memset (text, 0, CONF_MAX_FILE * 2);
  strcpy (text, "[crg]\nname = ");
  memset (text + strlen (text), 'n', CRG_NAME_MAX);
  parse_crg (text, &c);
  is ((int) strlen (c.name), CRG_NAME_MAX, "a name of the greatest length is kept whole");
  strcat (text, "n");
  ok (parse_crg (text, &c) == -EINVAL && strstr (err, "f:2: bad name"), "one more is refused");
  strcpy (text, "[iasp x]\nstore = /");
  memset (text + strlen (text), 's', CRG_PATH_MAX - 1);
  parse_crg (text, &c);
  ok (!strstr (err, "f:2"), "a path of the greatest length");
  strcat (text, "s");
  ok (parse_crg (text, &c) == -EINVAL && strstr (err, "longer than 255"), "one more is refused");
  strcpy (text, "[crg]\n#");
  memset (text + strlen (text), 'x', CONF_MAX_LINE);
  ok (parse_crg (text, &c) == -EINVAL && strstr (err, "f:2: the line is too long"), "a long line: %s", err);
  text[0] = '\0';
  for (p = text, i = 1; i <= CRG_MAX_NODES + 1; i++)
    p += sprintf (p, "[node n%u]\n", i);
  ok (parse_crg (text, &c) == -EINVAL && strstr (err, "f:17: more than 16 nodes"), "nodes: %s", err);
  for (p = text, i = 1; i <= CRG_MAX_IASPS + 1; i++)
    p += sprintf (p, "[iasp n%u]\n", i);
  ok (parse_crg (text, &c) == -EINVAL && strstr (err, "f:9: more than 8 IASPs"), "IASPs: %s", err);
  free (text);
}

/* Every cut of the good file and every byte of it replaced: no crash, and an error has a text. */
static void
test_mutilated (void)
{
  static const char bytes[] = { 0, '\n', '[', ']', '=', '.', '#', '\xff', '9' };
  static struct conf_crg c;
  size_t len = strlen (good_crg), i, j;
  char *copy = malloc (len + 1);
  unsigned refused = 0, accepted = 0;

  for (i = 0; i < len; i++)
    for (j = 0; j <= ARRAY_SIZE (bytes); j++) {
      size_t n = j < ARRAY_SIZE (bytes) ? len : i;
      int rc;

      memcpy (copy, good_crg, n);
      if (j < ARRAY_SIZE (bytes))
        copy[i] = bytes[j];
      err[0] = '\0';
      rc = conf_parse_crg ("f", copy, n, &c, err, sizeof err);
      check ((rc == 0) == (err[0] == '\0'), "byte %zu: rc %d with '%s'", i, rc, err);
      if (rc < 0)
        refused++;
      else
        accepted++;
    }
  ok (refused > 500 && accepted > 100, "mutilated files: %u refused, %u accepted", refused, accepted);
  free (copy);
}

static void
test_sizes (void)
{
  uint64_t v = 0;

  ok (conf_parse_size ("4096", &v) == 0 && v == 4096, "4096");
  ok (conf_parse_size ("64K", &v) == 0 && v == 65536, "64K");
  ok (conf_parse_size ("1M", &v) == 0 && v == 1 << 20, "1M");
  ok (conf_parse_size ("16T", &v) == 0 && v == UINT64_C (16) << 40, "16T");
  is (conf_parse_size ("16777216T", &v), -ERANGE, "2^64 does not fit");
  is (conf_parse_size ("", &v), -EINVAL, "nothing");
  is (conf_parse_size ("K", &v), -EINVAL, "a suffix alone");
  is (conf_parse_size ("1k", &v), -EINVAL, "a small suffix");
  is (conf_parse_size ("1KB", &v), -EINVAL, "two suffixes");
  is (conf_parse_size ("-1", &v), -EINVAL, "a sign");
  is (conf_parse_size ("0x10", &v), -EINVAL, "hexadecimal");
}

static void
refuse_json (json_t *def, const char *want)
{
  static struct conf_crg c;
  int rc;

  err[0] = '\0';
  rc = conf_crg_from_json (def, &c, err, sizeof err);
  if (!ok (rc == -EINVAL && strstr (err, want), "JSON: %s", err))
    printf ("# wanted %d \"%s\"\n", rc, want);
  json_decref (def);
}

static void
test_json (void)
{
  static struct conf_crg c, d;
  json_t *def, *copy, *node, *iasp;

  if (parse_crg (good_crg, &c) < 0)
    abort ();
  def = conf_crg_to_json (&c);
  ok (def != NULL, "a definition becomes JSON");
  memset (&d, 0xee, sizeof d);
  ok (conf_crg_from_json (def, &d, err, sizeof err) == 0, "and comes back %s", err);
  ok (memcmp (&c, &d, sizeof c) == 0, "unchanged, in every byte");

#define CHANGED(change)                               \
  copy = json_deep_copy (def);                        \
  node = json_array_get (json_object_get (copy, "nodes"), 0); \
  iasp = json_array_get (json_object_get (copy, "iasps"), 0); \
  (void) node;                                        \
  (void) iasp;                                        \
  change

  CHANGED (json_object_set_new (iasp, "metas", json_array ()));
  refuse_json (copy, "'metas' is missing or not an object");
  CHANGED (json_object_set_new (iasp, "metas", json_pack ("{s:s}", "p9", "/x")));
  refuse_json (copy, "'metas' names 'p9', which is not a node");
  CHANGED (json_object_set_new (iasp, "metas", json_pack ("{s:s}", "p1", "/x\ny")));
  refuse_json (copy, "holds a control character");
  CHANGED (json_object_set_new (iasp, "metas", json_pack ("{s:s}", "w1", "/x")));
  refuse_json (copy, "has metadata for replicate 'w1'");
  refuse_json (json_array (), "not an object");
  refuse_json (json_object (), "'name' is missing");
  CHANGED (json_object_set_new (copy, "colour", json_true ()));
  refuse_json (copy, "unknown key 'colour'");
  CHANGED (json_object_set_new (copy, "name", json_stringn ("a\0b", 3)));
  refuse_json (copy, "holds a NUL");
  CHANGED (json_object_set_new (copy, "name", json_string ("../x")));
  refuse_json (copy, "bad CRG name");
  CHANGED (json_object_set_new (copy, "takeover", json_string ("?")));
  refuse_json (copy, "'takeover' is '?'");
  CHANGED (json_object_set_new (copy, "resync_share", json_integer (0)));
  refuse_json (copy, "'resync_share' is 0; it is a percentage from 1 to 100");
  CHANGED (json_object_set_new (copy, "resync_share", json_integer (101)));
  refuse_json (copy, "'resync_share'");
  CHANGED (json_object_set_new (copy, "store_error", json_string ("ignore")));
  refuse_json (copy, "'store_error' is 'ignore'");
  CHANGED (json_object_set_new (copy, "suspend_timeout_ms", json_integer (-1)));
  refuse_json (copy, "'suspend_timeout_ms' is missing or not a number");
  CHANGED (json_object_set_new (copy, "nodes", json_object ()));
  refuse_json (copy, "'nodes' is not a list");
  CHANGED (json_array_append_new (json_object_get (copy, "nodes"), json_deep_copy (node)));
  refuse_json (copy, "already given to node 'p1'");
  CHANGED (json_object_set_new (node, "votes", json_integer (101)));
  refuse_json (copy, "node 'p1': 'votes' is missing or not a number from 0 to 100");
  CHANGED (json_object_set_new (node, "id", json_string ("1")));
  refuse_json (copy, "node 'p1': 'id' is missing or not a number");
  CHANGED (json_object_set_new (node, "name", json_integer (3)));
  refuse_json (copy, "'name' is missing or not a string");
  CHANGED (json_object_set_new (node, "addresses", json_pack ("[i]", 3)));
  refuse_json (copy, "an address is not a string");
  CHANGED (json_object_set_new (iasp, "tls", json_integer (1)));
  refuse_json (copy, "IASP 'payroll': 'tls' is missing or not true or false");
  CHANGED (json_object_set_new (iasp, "snapshot", json_integer (1)));
  refuse_json (copy, "IASP 'payroll': 'snapshot' is not true or false");
  CHANGED (json_object_set_new (iasp, "snapshot", json_true ()));
  ok (conf_crg_from_json (copy, &d, err, sizeof err) == 0 && d.iasps[0].snapshot, "snapshot-before-resync as JSON");
  json_decref (copy);
  CHANGED (json_object_set_new (iasp, "mirror_port", json_integer (0)));
  refuse_json (copy, "mirror-port 0; allowed");
  CHANGED (json_object_set_new (json_object_get (iasp, "stores"), "p9", json_string ("/x")));
  refuse_json (copy, "'stores' names 'p9', which is not a node");
  CHANGED (json_object_set_new (json_object_get (iasp, "stores"), "w1", json_string ("/x")));
  refuse_json (copy, "has a store for replicate 'w1'");
  CHANGED (json_object_set_new (json_object_get (iasp, "stores"), "p1", json_string ("x")));
  refuse_json (copy, "store 'x' is not an absolute path");
  CHANGED (json_object_del (json_object_get (iasp, "stores"), "p1"));
  refuse_json (copy, "no store on node 'p1'");
  json_decref (def);
}

/* ---- each value by each other ------------------------------------------------------------------ */

/* With sites, an order of its own, metadata elsewhere: most of what a definition can have. */
static const char full_access[]
  = "[crg]\nname = lists\nstrategy = access\ntakeover = order\nstore-error = return\nresync-share = 20\n"
    "[node a]\nid = 1\nsite = s\nrole = primary\naddress = 10.0.0.1\n"
    "[node b]\nid = 2\nsite = s\nrole = backup\naddress = 10.0.0.2, ::1\n"
    "[node c]\nid = 3\nrole = replicate\naddress = 10.0.0.3\n"
    "[script lp]\nagent = /usr/lib/lp-agent\ntimeout-ms = 3000\norder = b, a\n";

static unsigned n_tried, n_taken;

/* What is taken comes back from JSON as it is; what is refused has a reason. */
static void
judge_json (const json_t *def, const char *what)
{
  static struct conf_crg c, d;
  json_t *again;

  n_tried++;
  err[0] = '\0';
  if (conf_crg_from_json (def, &c, err, sizeof err) < 0) {
    check (err[0] != '\0' && strlen (err) < sizeof err, "%s: refused without a reason", what);
    return;
  }
  n_taken++;
  again = conf_crg_to_json (&c);
  memset (&d, 0xee, sizeof d);
  check (again && conf_crg_from_json (again, &d, err, sizeof err) == 0 && memcmp (&c, &d, sizeof c) == 0,
         "%s: does not come back: %s", what, err);
  json_decref (again);
}

static json_t *
odd_value (unsigned i)
{
  static char longest[400];
  json_t *many;

  memset (longest, 'x', sizeof longest - 1);
  longest[0] = '/';
  switch (i) {
  case 0: return json_null ();
  case 1: return json_true ();
  case 2: return json_integer (0);
  case 3: return json_integer (-1);
  case 4: return json_integer (1);
  case 5: return json_integer (65536);
  case 6: return json_integer (INT64_MAX);
  case 7: return json_real (1.5);
  case 8: return json_string ("");
  case 9: return json_string ("/x");
  case 10: return json_stringn ("a\0b", 3);
  case 11: return json_string (longest);
  case 12: return json_stringn (longest + 1, CRG_NAME_MAX + 1);
  case 13: return json_array ();
  case 14: return json_object ();
  case 15: return json_pack ("{s:s}", "nobody", "/x");
  case 16: return json_pack ("[i, n]", 1);
  case 17: return json_pack ("[s%]", "a\0b", (size_t) 3);
  case 18: return json_pack ("[s]", longest);
  case 19: return json_string ("p1");
  case 20: return json_string ("backup");
  case 21: return json_string ("milan");
  case 22:
    many = json_array ();
    for (unsigned k = 0; k <= CRG_MAX_NODES; k++)
      json_array_append_new (many, json_pack ("{s:i}", "id", k));
    return many;
  default: return NULL;
  }
}

/* Below `at`, in the tree of `root`: each value by each odd one, away, and in an object one too many. */
static void
mutilate_json (json_t *root, json_t *at)
{
  char *names[20];
  json_t *old, *value;
  size_t n = 0, k;
  const char *key;

  if (json_is_object (at)) {
    json_object_set_new (at, "colour", json_true ());
    judge_json (root, "an unknown key");
    json_object_del (at, "colour");
    json_object_foreach (at, key, old)
      if (n < ARRAY_SIZE (names))
        names[n++] = strdup (key);
    for (k = 0; k < n; k++) {
      char *name = names[k];

      old = json_incref (json_object_get (at, name));
      for (unsigned i = 0; (value = odd_value (i)) != NULL; i++) {
        json_object_set_new (at, name, value);
        judge_json (root, name);
      }
      json_object_del (at, name);
      judge_json (root, name);
      json_object_set (at, name, old);
      mutilate_json (root, old);
      json_decref (old);
      free (name);
    }
  }
  for (k = 0; k < json_array_size (at); k++) {
    old = json_incref (json_array_get (at, k));
    for (unsigned i = 0; (value = odd_value (i)) != NULL; i++) {
      json_array_set_new (at, k, value);
      judge_json (root, "an element");
    }
    json_array_set (at, k, old);
    json_array_append (at, old);
    judge_json (root, "an element twice");
    json_array_remove (at, json_array_size (at) - 1);
    json_array_remove (at, k);
    judge_json (root, "an element less");
    json_array_insert (at, k, old);
    mutilate_json (root, old);
    json_decref (old);
  }
}

/* Each line with each odd value, away, and twice. */
static void
mutilate_text (const char *text, bool is_crgd)
{
  static const char *const odd[] = {
    "", "x", "X", "0", "1", "-1", "70000", "99999999999999999999", "5K", "5Q", "16E", "on", "maybe", "/x", "/x\x01", "/a/../b", "unix:", "unix:x",
    "unix:/e", "tcp:", "tcp::0", "tcp::10809", "tcp:[::1]:1", "tcp:[::1:1", "tcp:1.2.3.4:x", "tcp:0.0.0.0:1", "10.0.0.1:1", "[::1]:1", "::", "ff02::1", "0.0.0.0",
    "224.0.0.1", "127.0.0.1", "127.0.0.1,127.0.0.2,127.0.0.3,127.0.0.4,127.0.0.5", "127.0.0.1,,", "p1", "p1, p1", "a, b, a", "rome", "peer", "replicate", "primary",
    "backup", "access", "site", "local", "corosync", "LONG", "LONGPATH",
  };
  static char longest[300], changed[8192];
  static struct conf_crg c;
  static struct conf_crgd d;

  memset (longest, 'y', sizeof longest - 1);
  longest[0] = '/';
  for (const char *line = text, *end; *line; line = end) {
    const char *equals;

    end = strchr (line, '\n') + 1;
    equals = memchr (line, '=', (size_t) (end - line));
    for (unsigned i = 0; i < ARRAY_SIZE (odd) + 2; i++) {
      const char *value = i >= ARRAY_SIZE (odd) ? "" : strcmp (odd[i], "LONG") == 0 ? longest + 1
                          : strcmp (odd[i], "LONGPATH") == 0 ? longest : odd[i];
      int r;

      if (i < ARRAY_SIZE (odd) && !equals)
        continue;
      if (i < ARRAY_SIZE (odd))
        snprintf (changed, sizeof changed, "%.*s %s\n%s", (int) (equals + 1 - text), text, value, end);
      else
        snprintf (changed, sizeof changed, "%.*s%.*s%s", (int) ((i == ARRAY_SIZE (odd) ? line : end) - text), text,
                  i == ARRAY_SIZE (odd) ? 0 : (int) (end - line), line, end);
      n_tried++;
      r = is_crgd ? parse_crgd (changed, &d) : parse_crg (changed, &c);
      check (r == 0 || err[0] != '\0', "refused without a reason: %s", changed);
      if (r == 0 && !is_crgd) {
        json_t *def = conf_crg_to_json (&c);

        judge_json (def, "a changed line");
        json_decref (def);
      }
      n_taken += r == 0;
    }
  }
}

static void
test_each_value (void)
{
  static const char *const texts[] = { good_crg, full_access };
  static struct conf_crg c;

  for (unsigned i = 0; i < ARRAY_SIZE (texts); i++) {
    json_t *def;

    if (parse_crg (texts[i], &c) < 0) {
      fprintf (stderr, "%s\n", err);
      abort ();
    }
    def = conf_crg_to_json (&c);
    mutilate_json (def, def);
    json_decref (def);
    mutilate_text (texts[i], false);
  }
  mutilate_text (good_crgd, true);
  ok (tap_failed == 0 && n_tried > 5000 && n_taken > 300, "each value replaced by odd ones: %u of %u are taken", n_taken, n_tried);
}

int
main (void)
{
  test_good ();
  test_bad ();
  test_access ();
  test_bounds ();
  test_mutilated ();
  test_sizes ();
  test_json ();
  test_each_value ();
  return tap_done ();
}
