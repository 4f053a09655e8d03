/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The group state: what `create` accepts, what each change does and refuses
 * (C3, C7, R1 to R4, F4, F5), and its bytes: round trip, every truncation,
 * every flipped bit.
 */
#include "server/state.h"
#include "tests/crg-def.h"
#include "tests/tap.h"

static struct crg_state s, copy;
static struct crg_def def;
static const uint8_t lineage[CRG_ID_LEN] = { 9 };
static uint8_t buf[STATE_ENCODED_MAX], buf2[STATE_ENCODED_MAX];

/* Two nodes at rome, two at oslo, a replicate; one IASP. */
static void
base_def (void)
{
  crg_def_make (&def, 2, 10, 1);
}

static void
fresh (void)
{
  base_def ();
  if (state_create (&s, &def, lineage) != NULL)
    abort ();
}

static const char *
try (struct change c)
{
  const char *why;

  c.base = s.stamp;
  why = state_check (&s, &c);
  if (why == NULL)
    state_apply (&s, &c);
  return why;
}

static struct change
appoint (uint32_t node, uint8_t site)
{
  return (struct change) { .kind = CH_APPOINT, .iasps = state_all_iasps (&s), .node = node,
                           .site = site, .expect_node = state_production_host (&s),
                           .expect_tenure = state_tenure (&s), .present = 0x1f };
}

static void
creation (void)
{
  fresh ();
  ok (s.stamp.epoch == 1 && s.stamp.version == 0 && !s.started, "C6: create is (1, 0), not started");
  ok (s.rec[0].tenure == 1 && s.rec[0].generation == 1 && s.rec[0].production_site == 0
        && s.rec[0].copies[0].host == 10 && s.rec[0].copies[1].host == 12,
      "the first of each site is its host");
  ok (s.rec[0].copies[0].in_set && !s.rec[0].copies[1].in_set, "R3: only production is in the set");

#define REFUSED(change, text)                               \
  do {                                                      \
    base_def ();                                            \
    change;                                                 \
    const char *why_ = state_create (&copy, &def, lineage); \
    ok (why_ != NULL, "refused: %s: %s", text, why_ ? why_ : "(accepted)"); \
  } while (0)
  REFUSED (def.n_nodes = 0, "no nodes");
  REFUSED (def.n_nodes = CRG_MAX_NODES + 1, "too many nodes");
  REFUSED (def.nodes[1].id = 10, "one id twice");
  REFUSED (strcpy (def.nodes[1].name, "n1"), "one name twice");
  REFUSED (def.nodes[1].order = 0, "one place twice");
  REFUSED (def.nodes[1].order = 9, "a place that isn't there");
  REFUSED (def.nodes[0].site = NO_SITE, "a host without a site");
  REFUSED (def.nodes[4].site = 0, "a replicate with a site");
  REFUSED (def.nodes[0].site = 2, "a site that isn't there");
  REFUSED (def.n_iasps = 0, "no IASP");
  REFUSED (def.iasps[0].size = 0, "an IASP without a size");
  REFUSED (def.takeover = 7, "an unknown takeover order");
  REFUSED (strcpy (def.sites[1], "rome"), "one site twice");
  REFUSED (def.n_sites = 3, "a site without a name or node");
  REFUSED (for (unsigned i = 0; i < 5; i++) def.nodes[i].votes = 0, "no votes");
}

static void
majority (void)
{
  static const uint32_t three[] = { 10, 11, 14 }, two[] = { 10, 11 };
  uint32_t pair[2] = { 10, 11 };

  fresh ();
  ok (state_has_majority (&s, three, 3) && !state_has_majority (&s, two, 2),
      "a majority of the configured votes");
  s.def.nodes[0].votes = s.def.nodes[0].new_votes = 4;
  ok (state_has_majority (&s, two, 2), "votes weigh");
  fresh ();
  s.def.n_nodes = 4;
  ok (!state_has_majority (&s, pair, 2), "half is no majority");
  fresh ();
  s.def.nodes[0].new_votes = 9;
  ok (state_has_majority (&s, three, 3), "C7: old and new");
  pair[0] = 14;
  static const uint32_t without[] = { 11, 12, 13, 14 };
  ok (!state_has_majority (&s, without, 4), "C7: a majority of the old votes only is none");
  ok (!state_has_majority (&s, two, 2), "C7: a majority of the new votes only is none");
}

static void
appointments (void)
{
  struct change c;

  fresh ();
  ok (try (appoint (12, 1)) != NULL, "R4: a copy outside the set doesn't take over");
  c = appoint (12, 1);
  c.forced = true;
  c.at_ms = 77;
  ok (try (c) == NULL && s.rec[0].loss == 1 && s.rec[0].tenure == 2 && s.rec[0].forced,
      "R4: forced: loss rises");
  ok (s.rec[0].copies[1].in_set && s.rec[0].copies[1].since == 0 && s.rec[0].generation == 2,
      "R4: the forced copy is the set; its disk is of an earlier generation");
  ok (!s.rec[0].copies[0].in_set && s.rec[0].copies[0].detached && s.rec[0].copies[0].fork
        && s.rec[0].copies[0].host == NO_NODE && s.rec[0].copies[0].left_ms == 77,
      "R4: the store of the former set is a fork");
  c = appoint (10, 0);
  ok (try (c) != NULL, "R6: a fork doesn't take over");
  c.forced = true;
  ok (try (c) == NULL && !s.rec[0].copies[0].detached && !s.rec[0].copies[0].fork
        && s.rec[0].copies[1].detached && s.rec[0].loss == 2,
      "R4: but by force, and then the other is one");
  fresh ();
  s.rec[0].copies[1].in_set = true;
  c = appoint (12, 1);
  c.forced = true;
  ok (try (c) == NULL && s.rec[0].loss == 0 && !s.rec[0].forced && !s.rec[0].copies[0].detached,
      "R4: force does nothing to a copy of the set");
  fresh ();
  s.rec[0].copies[1].in_set = true;
  ok (try (appoint (11, 0)) == NULL && s.rec[0].tenure == 2 && s.rec[0].copies[0].host == 11,
      "R1: tenure rises with the host");
  ok (s.rec[0].copies[1].in_set && s.rec[0].generation == 1, "R2: a takeover leaves the set as it is");
  ok (s.stamp.version == 1, "the version rises by one");
  ok (try (appoint (11, 0)) != NULL, "R1: not to itself");
  c = appoint (10, 0);
  c.expect_node = 12;
  ok (try (c) != NULL, "another host by now");
  c = appoint (10, 0);
  c.expect_tenure = 1;
  ok (try (c) != NULL, "another tenure by now");
  ok (try (appoint (14, NO_SITE)) != NULL && try (appoint (12, 0)) != NULL
        && try (appoint (99, 0)) != NULL,
      "a replicate, a node of another site, a stranger");
  c = appoint (10, 0);
  c.iasps = 2;
  ok (try (c) != NULL, "all IASPs move together");
  s.rec[0].copies[0].barred = true;
  ok (try (appoint (10, 0)) != NULL, "F4: not to a barred copy");

  fresh ();
  s.rec[0].copies[1].in_set = true;
  c = appoint (12, 1);
  c.graceful = true;
  ok (try (c) == NULL && s.rec[0].copies[0].in_set && s.rec[0].generation == 1
        && s.rec[0].copies[0].host == 10 && s.rec[0].production_site == 1,
      "F6: the set is kept, the old host mirrors back");
  fresh ();
  s.rec[0].copies[1].in_set = true;
  try (appoint (12, 1));
  ok (s.rec[0].copies[0].host == NO_NODE, "F2: after a failover the old copy has no host");
}

static bool
order_is (const char *want)
{
  char got[8] = "";

  for (unsigned place = 0; place < s.def.n_nodes; place++)
    for (unsigned i = 0; i < s.def.n_nodes; i++)
      if (s.def.nodes[i].order == place)
        got[place] = (char) ('0' + i);
  if (strcmp (got, want) != 0)
    printf ("# order %s, want %s\n", got, want);
  return strcmp (got, want) == 0;
}

static void
orders (void)
{
  struct change c;

  fresh ();
  try (appoint (11, 0));
  ok (order_is ("12340"), "F5: after failover the old primary is the last backup");
  fresh ();
  c = appoint (11, 0);
  c.graceful = true;
  c.present = 0x07; /* p1 p2 c1 */
  try (c);
  ok (order_is ("12034"), "F5: after switchover the last of those present");
  c = appoint (10, 0);
  c.graceful = true;
  c.present = 0x1f;
  try (c);
  ok (order_is ("02341"), "F5: and back");
  bool all = true;
  for (unsigned i = 0; i < 5; i++)
    all = all && s.def.nodes[i].preferred_order == i;
  ok (all, "F5: preferred and current order are apart");
}

static bool
milan_says (const char *reason)
{
  return strcmp (s.rec[0].copies[1].reason, reason) == 0;
}

/* A copy outside the set goes on to say why it left, whatever is done to it meanwhile. */
static void
reasons (void)
{
  static const uint8_t kinds[] = { CH_SUSPEND, CH_DETACH, CH_BAR };
  struct change c;

  for (unsigned k = 0; k < ARRAY_SIZE (kinds); k++)
    for (unsigned by_itself = 0; by_itself < 2; by_itself++) {
      const char *want = by_itself && kinds[k] != CH_BAR ? "no answer" : "by hand";

      fresh ();
      s.rec[0].copies[1].in_set = true;
      c = (struct change) { .kind = CH_SHRINK, .iasps = 1, .site = 1, .expect_tenure = 1, .at_ms = 5 };
      strcpy (c.reason, "no answer");
      if (by_itself)
        ok (try (c) == NULL && milan_says ("no answer"), "R2: why it left the set");
      c = (struct change) { .kind = kinds[k], .iasps = 1, .site = 1, .at_ms = 6, .expect_tenure = 1 };
      strcpy (c.reason, "by hand");
      ok (try (c) == NULL && milan_says (want), "... %s", want);
      c.clear = true;
      c.reason[0] = '\0';
      ok (try (c) == NULL && milan_says (want), "... and still, when that has ended");
      c = (struct change) { .kind = CH_ENTER, .iasps = 1, .site = 1, .node = 12, .expect_tenure = 1 };
      ok (try (c) == NULL && milan_says (""), "R3: until it is in the set again");
    }
  fresh ();
  c = (struct change) { .kind = CH_SUSPEND, .iasps = 1, .site = 1 };
  strcpy (c.reason, "by hand");
  ok (try (c) == NULL && milan_says ("by hand"), "never in the set: the reason is what is done to it ...");
  c.clear = true;
  ok (try (c) == NULL && milan_says (""), "... for as long as it is");
}

static void
copies (void)
{
  struct change c;

  fresh ();
  c = (struct change) { .kind = CH_ENTER, .iasps = 1, .site = 1, .node = 12, .expect_tenure = 1 };
  s.rec[0].generation = 7;
  ok (try (c) == NULL && s.rec[0].copies[1].in_set && s.rec[0].copies[1].since == 7,
      "R3: entering: since is the generation");
  ok (try (c) != NULL, "once");
  c = (struct change) { .kind = CH_SHRINK, .iasps = 1, .site = 1, .expect_tenure = 1 };
  ok (try (c) == NULL && !s.rec[0].copies[1].in_set && s.rec[0].generation == 8,
      "R2: generation rises when the set shrinks");
  ok (try (c) != NULL, "once");
  c.site = 0;
  ok (try (c) != NULL, "production does not leave the set");
  c = (struct change) { .kind = CH_ENTER, .iasps = 1, .site = 1, .node = 13, .expect_tenure = 1 };
  ok (try (c) != NULL, "R3: another host by now");
  c.node = 12;
  c.expect_tenure = 2;
  ok (try (c) != NULL, "R3: another tenure by now");
  c = (struct change) { .kind = CH_HOST, .iasps = 1, .site = 1, .node = 13, .expect_node = 12 };
  ok (try (c) == NULL && s.rec[0].copies[1].host == 13, "F3: another host of the copy");
  ok (try (c) != NULL, "once");
  c = (struct change) { .kind = CH_HOST, .iasps = 1, .site = 0, .node = 11, .expect_node = 10 };
  ok (try (c) != NULL, "the production host is named by an appointment only");
  c = (struct change) { .kind = CH_HOST, .iasps = 1, .site = 1, .node = 10, .expect_node = 13 };
  ok (try (c) != NULL, "a node of another site");
  s.rec[0].copies[1].in_set = true;
  c = (struct change) { .kind = CH_BAR, .iasps = 1, .site = 1, .expect_tenure = 1 };
  ok (try (c) == NULL && s.rec[0].copies[1].barred && !s.rec[0].copies[1].in_set
        && s.rec[0].generation == 9,
      "F4: a barred mirror copy leaves the set");
  ok (try (c) != NULL, "once");
  c = (struct change) { .kind = CH_HOST, .iasps = 1, .site = 1, .node = 12, .expect_node = 13 };
  ok (try (c) != NULL, "F4: no host for a barred copy");
  c = (struct change) { .kind = CH_BAR, .iasps = 1, .site = 1, .clear = true };
  ok (try (c) == NULL && !s.rec[0].copies[1].barred, "F4: until an operator clears it");
  c = (struct change) { .kind = CH_BAR, .iasps = 1, .site = 0, .expect_tenure = 1 };
  ok (try (c) == NULL && s.rec[0].copies[0].in_set, "F4: production's copy stays in the set");
  reasons ();
  fresh ();
  c = (struct change) { .kind = CH_RESTARTED, .iasps = 1, .site = 0, .node = 10, .expect_tenure = 1,
                        .boot_id = { 5 } };
  ok (try (c) == NULL && s.rec[0].loss == 1 && s.rec[0].copies[0].boot_id[0] == 5,
      "S2: opened restarted: loss rises");
  ok (try (c) != NULL, "once for a boot");
  c.boot_id[0] = 6;
  ok (try (c) == NULL && s.rec[0].loss == 2, "and again for the next");
  fresh ();
  s.rec[0].copies[1].in_set = true;
  c = appoint (12, 1);
  c.loss_iasps = 1;
  c.boot_id[0] = 5;
  ok (try (c) == NULL && s.rec[0].loss == 1 && s.rec[0].copies[1].boot_id[0] == 5 && !s.rec[0].forced,
      "S2 b: a restarted copy takes over: loss rises");
  c.node = 11;
  ok (try (c) != NULL, "not by another host");
  ok (try (appoint (11, 0)) == NULL && s.rec[0].copies[0].boot_id[0] == 0,
      "R5: another host's boot is not known");
  c = (struct change) { .kind = CH_SHRINK, .iasps = 1, .site = 5, .expect_tenure = 1 };
  ok (try (c) != NULL, "no such site");
  c = (struct change) { .kind = CH_SHRINK, .iasps = 4, .site = 1, .expect_tenure = 1 };
  ok (try (c) != NULL, "no such IASP");
}

static void
lifecycle (void)
{
  fresh ();
  ok (try ((struct change) { .kind = CH_END }) != NULL, "not started: no end");
  ok (try ((struct change) { .kind = CH_START }) == NULL && s.started, "start");
  ok (try ((struct change) { .kind = CH_START }) != NULL, "once");
  ok (try ((struct change) { .kind = CH_DELETE }) != NULL, "started: not deleted");
  ok (try ((struct change) { .kind = CH_EXPEL, .node = 12, .incarnation = 5 }) == NULL
        && s.def.nodes[2].expelled == 5,
      "C8: expelled, that incarnation");
  ok (try ((struct change) { .kind = CH_EXPEL, .node = 12, .incarnation = 5 }) != NULL, "once");
  ok (try ((struct change) { .kind = CH_EXPEL, .node = 12, .incarnation = 6 }) == NULL,
      "C8: the next one is another");
  ok (try ((struct change) { .kind = CH_MARK_FAILED, .node = 12 }) == NULL
        && s.def.nodes[2].marked_failed,
      "F5: marked failed");
  ok (try ((struct change) { .kind = CH_MARK_FAILED, .node = 12, .clear = true }) == NULL
        && !s.def.nodes[2].marked_failed,
      "F5: and not");
  struct change c = { .kind = CH_NODE, .node_change = { .op = NODE_REMOVE, .node = { .id = 13 } } };

  s.def.nodes[3].votes = s.def.nodes[3].new_votes = 0;
  s.def.nodes[3].marked_failed = true;
  ok (state_is_fenced (&s, "n4") && !state_is_fenced (&s, "n3"), "S1 d: marked failed: its writes come no more");
  ok (try (c) == NULL && s.n_gone == 1 && state_is_fenced (&s, "n4") && !state_is_fenced (&s, "n3"),
      "S1 d: ... nor when it was removed so");
  c.node_change.op = NODE_ADD;
  c.node_change.node.preferred_role = MEMBER_BACKUP;
  c.node_change.node.n_addresses = 1;
  strcpy (c.node_change.node.name, "n4");
  strcpy (c.node_change.site, s.def.sites[1]);
  strcpy (c.node_change.store[0], "/store");
  ok (try (c) == NULL && s.n_gone == 0 && !state_is_fenced (&s, "n4"),
      "S1 d: another node of that name is another matter");
  for (unsigned i = 0; i <= CRG_MAX_GONE; i++) {
    c.node_change.op = NODE_ADD;
    snprintf (c.node_change.node.name, sizeof c.node_change.node.name, "x%u", i);
    c.node_change.node.id = 50 + i;
    try (c);
    s.def.nodes[s.def.n_nodes - 1].marked_failed = true;
    c.node_change.op = NODE_REMOVE;
    try (c);
  }
  ok (s.n_gone == CRG_MAX_GONE && state_is_fenced (&s, "x16") && !state_is_fenced (&s, "x0"),
      "the oldest makes room");
  ok (try ((struct change) { .kind = CH_NODE }) != NULL && try ((struct change) { .kind = 99 }) != NULL,
      "unknown changes are refused");
  try ((struct change) { .kind = CH_END });
  ok (try ((struct change) { .kind = CH_DELETE }) == NULL && s.deleted, "deleted");
  ok (try ((struct change) { .kind = CH_START }) != NULL, "nothing after that");
}

static void
bytes (void)
{
  size_t n, accepted = 0, unequal = 0;
  bool good = true;

  fresh ();
  strcpy (s.rec[0].copies[1].reason, "link down");
  strcpy (s.def.iasps[0].store[3], "/store");
  s.n_gone = 1;
  strcpy (s.gone[0], "p7");
  s.n_past = 1;
  s.past[0][0] = 7;
  s.rec[0].past_generation[0] = 5;
  s.def.iasps[0].snapshot = true;
  n = state_encode (&s, buf, sizeof buf);
  ok (n > 0 && state_decode (&copy, buf, n) == 0 && copy.def.iasps[0].snapshot
        && state_encode (&copy, buf2, sizeof buf2) == n && memcmp (buf, buf2, n) == 0,
      "round trip of %zu bytes", n);
  for (size_t len = 0; len < n; len++)
    good = good && state_decode (&copy, buf, len) < 0;
  ok (good, "every truncation is refused");
  ok (state_decode (&copy, buf, n + 1) < 0, "a byte too many is refused");
  ok (state_encode (&s, buf2, n - 1) == 0, "a buffer too small is refused");
  /* What is accepted must be consistent: it encodes to the same bytes. */
  for (size_t bit = 0; bit < n * 8; bit++) {
    buf[bit / 8] ^= (uint8_t) (1u << (bit % 8));
    if (state_decode (&copy, buf, n) == 0) {
      accepted++;
      if (state_encode (&copy, buf2, sizeof buf2) != n || memcmp (buf, buf2, n) != 0)
        unequal++;
    }
    buf[bit / 8] ^= (uint8_t) (1u << (bit % 8));
  }
  ok (unequal == 0, "of %zu flipped bits %zu are accepted, each with its own content", n * 8,
      accepted);
  /* A state of the versions before: nothing is known of a past lineage, so the record's generation counts. */
  for (unsigned i = 0; i < s.def.n_iasps; i++)
    memset (&s.rec[i].past_generation[0], 0xa7, sizeof s.rec[i].past_generation[0]);
  n = state_encode (&s, buf, sizeof buf);
  for (size_t at = 0; at < n; at++)
    while (at + 8 <= n && memcmp (buf + at, &s.rec[0].past_generation[0], 8) == 0) {
      memmove (buf + at, buf + at + 8, n - at - 8);
      n -= 8;
    }
  buf[4] = 4;
  ok (state_decode (&copy, buf, n) == 0 && copy.n_past == 1 && copy.rec[0].past_generation[0] == s.rec[0].generation,
      "version 4 is read, with a past");
  /* Nor is anybody gone.  After magic, version, stamp, lineage, no past, domain. */
  s.n_past = 0;
  n = state_encode (&s, buf, sizeof buf);
  buf[4] = 4;
  ok (state_decode (&copy, buf, n) == 0 && copy.n_gone == 1, "... and without");
  memmove (buf + 47, buf + 52, n - 52);
  buf[4] = 3;
  ok (state_decode (&copy, buf, n - 5) == 0 && copy.n_gone == 0 && copy.def.n_nodes == s.def.n_nodes
        && strcmp (copy.rec[0].copies[1].reason, "link down") == 0,
      "version 3 is read too");

  /* The largest state fits. */
  memset (&def, 0, sizeof def);
  memset (def.name, 'n', CRG_NAME_MAX);
  def.n_sites = CRG_MAX_SITES;
  def.n_nodes = CRG_MAX_NODES;
  def.n_iasps = CRG_MAX_IASPS;
  for (unsigned i = 0; i < CRG_MAX_SITES; i++) {
    memset (def.sites[i], 's', CRG_NAME_MAX);
    def.sites[i][0] = (char) ('a' + i);
  }
  for (unsigned i = 0; i < CRG_MAX_NODES; i++) {
    struct domain_node *d = &def.nodes[i];

    d->id = i + 1;
    memset (d->name, 'n', CRG_NAME_MAX);
    d->name[0] = (char) ('a' + i);
    d->site = (uint8_t) (i % CRG_MAX_SITES);
    d->votes = 1;
    d->order = (uint8_t) i;
    d->n_addresses = CRG_MAX_ADDRS;
    for (unsigned k = 0; k < CRG_MAX_ADDRS; k++)
      memset (d->addresses[k], '1', CRG_ADDR_MAX);
  }
  for (unsigned i = 0; i < CRG_MAX_IASPS; i++) {
    memset (def.iasps[i].name, 'i', CRG_NAME_MAX);
    def.iasps[i].name[0] = (char) ('a' + i);
    def.iasps[i].size = 1;
    memset (def.iasps[i].export, 'e', CRG_PATH_MAX);
    for (unsigned k = 0; k < CRG_MAX_NODES; k++)
      memset (def.iasps[i].store[k], '/', CRG_PATH_MAX);
  }
  const char *why = state_create (&s, &def, lineage);
  ok (why == NULL, "the largest definition is accepted%s%s", why ? ": " : "", why ? why : "");
  for (unsigned i = 0; i < CRG_MAX_IASPS; i++)
    for (unsigned k = 0; k < CRG_MAX_SITES; k++)
      memset (s.rec[i].copies[k].reason, 'r', CRG_REASON_MAX);
  n = state_encode (&s, buf, sizeof buf);
  ok (n > 0 && n < 128 * 1024 - 2048 && state_decode (&copy, buf, n) == 0,
      "the largest state has %zu bytes and fits a message", n);

  struct change c = { .kind = CH_SHRINK, .base = { 3, 4 }, .iasps = 1, .site = 1 }, d;
  strcpy (c.reason, "gone");
  n = change_encode (&c, buf, CHANGE_ENCODED_MAX);
  ok (n > 0 && change_decode (&d, buf, n) == 0 && d.kind == CH_SHRINK && d.base.version == 4
        && strcmp (d.reason, "gone") == 0,
      "a change: round trip");
  good = true;
  for (size_t len = 0; len < n; len++)
    good = good && change_decode (&d, buf, len) < 0;
  ok (good, "a change: every truncation is refused");
  c.kind = CH_NODE;
  c.node_change.op = NODE_ADD;
  c.node_change.node.id = 9;
  c.node_change.node.n_addresses = CRG_MAX_ADDRS;
  for (unsigned i = 0; i < CRG_MAX_ADDRS; i++)
    memset (c.node_change.node.addresses[i], 'a', CRG_ADDR_MAX);
  memset (c.node_change.node.name, 'n', CRG_NAME_MAX);
  memset (c.node_change.site, 's', CRG_NAME_MAX);
  for (unsigned i = 0; i < CRG_MAX_IASPS; i++)
    memset (c.node_change.store[i], '/', CRG_PATH_MAX);
  n = change_encode (&c, buf, CHANGE_ENCODED_MAX);
  ok (n > 0 && change_decode (&d, buf, n) == 0
        && memcmp (&c.node_change, &d.node_change, sizeof c.node_change) == 0,
      "a change of the domain: round trip");
  good = true;
  for (size_t len = 0; len < n; len++)
    good = good && change_decode (&d, buf, len) < 0;
  ok (good, "... every truncation is refused");
  c.node_change.op = NODE_FINISH + 1;
  n = change_encode (&c, buf, CHANGE_ENCODED_MAX);
  ok (n > 0 && change_decode (&d, buf, n) < 0, "... an unknown one too");
  c.node_change.op = NODE_ADD;
  memset (c.reason, 'r', CRG_REASON_MAX);
  ok (change_encode (&c, buf, CHANGE_ENCODED_MAX) > 0, "the largest change fits");
}

static void
access_def (void)
{
  base_def ();
  def.placement = PLACEMENT_ACCESS;
  def.n_iasps = 2;
  strcpy (def.iasps[1].name, "more");
  def.iasps[1].size = 4096;
  for (unsigned i = 0; i < 5; i++) {
    def.iasps[0].order[i] = (uint8_t) i;
    def.iasps[1].order[i] = (uint8_t) (4 - i); /* the replicate first: it can't host */
    for (unsigned k = 0; k < 2 && i < 4; k++)
      strcpy (def.iasps[k].store[i], "/store");
  }
}

/* Fig. 4: each resource is a unit. */
static void
units (void)
{
  static uint8_t text[16 * 1024];
  static struct crg_state d;
  struct node_change gone = { .op = NODE_REMOVE };
  struct change c;
  size_t n;

  fresh ();
  ok (state_units (&s) == 1 && state_unit (&s, 0) == 0 && state_unit_iasps (&s, 0) == 1,
      "SITE: all is one unit");
  access_def ();
  def.iasps[1].order[3] = 0;
  ok (state_create (&s, &def, lineage) != NULL, "ACCESS: one place twice");
  access_def ();
  def.iasps[1].order[3] = 9;
  ok (state_create (&s, &def, lineage) != NULL, "ACCESS: a place that isn't there");
  access_def ();
  strcpy (def.iasps[1].store[2], "");
  strcpy (def.iasps[1].store[3], "");
  ok (state_create (&s, &def, lineage) != NULL, "ACCESS: a site without a store");
  access_def ();
  memset (def.iasps[1].store[3], 0, sizeof def.iasps[1].store[3]);
  ok (state_create (&s, &def, lineage) == NULL && state_unit_host (&s, 0) == 10
        && state_unit_host (&s, 1) == 12 && s.rec[1].production_site == 1
        && s.rec[1].copies[0].host == 11,
      "ACCESS: each resource at the first of its order that has a store");
  n = state_encode (&s, text, sizeof text);
  ok (n > 0 && state_decode (&d, text, n) == 0 && memcmp (&d, &s, sizeof d) == 0, "... round trip");
  s.def.iasps[1].order[0] = s.def.iasps[1].order[1];
  n = state_encode (&s, text, sizeof text);
  ok (state_decode (&d, text, n) < 0, "... not with one place twice");
  s.def.iasps[1].order[0] = 9;
  n = state_encode (&s, text, sizeof text);
  ok (state_decode (&d, text, n) < 0, "... nor with one that isn't there");
  s.def.iasps[1].order[0] = 4;

  c = (struct change) { .kind = CH_APPOINT, .iasps = 3, .node = 11, .site = 0, .expect_node = 10,
                        .expect_tenure = 1 };
  ok (try (c) != NULL, "ACCESS: no two resources at once");
  c.iasps = 4;
  ok (try (c) != NULL, "... none that isn't there");
  c.iasps = 0;
  ok (try (c) != NULL, "... nor nothing");
  c.iasps = 1;
  ok (try (c) == NULL && state_unit_host (&s, 0) == 11 && state_unit_tenure (&s, 0) == 2
        && state_unit_host (&s, 1) == 12 && state_unit_tenure (&s, 1) == 1,
      "ACCESS: one moves, the other stays");
  ok (state_order (&s, 0, 1) == 0 && state_order (&s, 0, 0) == 4 && state_order (&s, 1, 0) == 4
        && s.def.nodes[1].order == 1,
      "F5: in its own backup order only");
  ok (state_hosts_production (&s, 11) && state_hosts_production (&s, 12)
        && !state_hosts_production (&s, 10), "two nodes host production");
  s.rec[1].copies[1].in_set = true;
  c = (struct change) { .kind = CH_APPOINT, .iasps = 2, .node = 13, .site = 1, .expect_node = 12,
                        .expect_tenure = 1 };
  ok (try (c) != NULL, "ACCESS: who has no store for it doesn't host it");
  c = (struct change) { .kind = CH_HOST, .iasps = 2, .node = 10, .site = 0, .expect_node = 11 };
  ok (try (c) == NULL, "... nor its copy, but who has");
  n = state_encode (&s, text, sizeof text);
  ok (n > 0 && state_decode (&d, text, n) == 0, "a state with two hosts is consistent");

  /* C7 */
  s.def.nodes[2].votes = s.def.nodes[2].new_votes = 0;
  gone.node.id = 12;
  c = (struct change) { .kind = CH_NODE, .node_change = gone };
  ok (try (c) != NULL, "C7: a host of any resource stays");
  s.def.nodes[3].votes = s.def.nodes[3].new_votes = 0;
  s.rec[1].production_site = 0;
  s.rec[1].copies[1].host = NO_NODE;
  ok (try (c) != NULL, "C7: so does the last with a store for one");
  c.node_change.node.id = 13;
  ok (try (c) == NULL && s.def.iasps[0].order[3] == 2 && s.def.iasps[1].order[3] == 0
        && s.def.iasps[1].order[0] == 3 && s.def.iasps[1].order[2] == 1,
      "C7: who goes leaves the order of each resource");
  c.node_change = (struct node_change) { .op = NODE_SET, .fields = NODE_SET_ORDER,
                                         .node = { .id = 12, .order = 2 } };
  ok (try (c) != NULL, "ACCESS: the group has no order");
}

/* States that no member makes, and whose bytes are whole. */
static void
senseless (void)
{
  struct change c = { .kind = 0 }, d;
  size_t n;

#define SENSELESS(change, text)                                                    \
  do {                                                                             \
    base_def ();                                                                   \
    def.n_iasps = 2;                                                               \
    strcpy (def.iasps[1].name, "more");                                            \
    def.iasps[1].size = 8192;                                                      \
    if (state_create (&s, &def, lineage) != NULL)                                  \
      abort ();                                                                    \
    change;                                                                        \
    n = state_encode (&s, buf, sizeof buf);                                        \
    ok (n > 0 && state_decode (&copy, buf, n) < 0, "refused: %s", text);           \
  } while (0)
  SENSELESS (s.n_past = CRG_MAX_PAST + 1, "too many lineages");
  SENSELESS (s.n_gone = CRG_MAX_GONE + 1, "too many that are gone");
  SENSELESS (s.def.takeover = TAKEOVER_ORDER + 1, "an unknown takeover");
  SENSELESS (s.def.n_sites = 0, "no site");
  SENSELESS (s.def.n_nodes = 0, "no node");
  SENSELESS (s.def.n_iasps = 0, "no IASP");
  SENSELESS (s.def.nodes[0].n_addresses = CRG_MAX_ADDRS + 1, "too many addresses");
  SENSELESS (s.def.nodes[0].id = NO_NODE, "a node without a number");
  SENSELESS (s.def.nodes[1].id = 10, "a number twice");
  SENSELESS (s.def.nodes[1].preferred_role = MEMBER_REPLICATE + 1, "an unknown role");
  SENSELESS (s.def.nodes[1].order = 5, "a place in the order that isn't there");
  SENSELESS (s.def.nodes[1].order = 0, "one place twice");
  SENSELESS (s.def.nodes[1].site = 2, "a site that isn't there");
  SENSELESS (for (unsigned i = 0; i < 5; i++) s.def.nodes[i].votes = 0, "no votes");
  SENSELESS (for (unsigned i = 0; i < 5; i++) s.def.nodes[i].new_votes = 0, "no votes in the end");
  SENSELESS (s.rec[1].tenure = 2, "IASPs of different tenures");
  SENSELESS (s.rec[1].production_site = 1, "IASPs that are production at different sites");
  SENSELESS (s.rec[1].copies[0].host = 11, "IASPs with different hosts");
  SENSELESS (s.rec[1].copies[1].host = 99, "a host that isn't there");
  SENSELESS (s.rec[1].copies[1].host = 11, "a host of another site");
  SENSELESS ((void) 0; s.def.nodes[0].site = NO_SITE, "a host without a site");

  n = change_encode (&c, buf, CHANGE_ENCODED_MAX);
  ok (n > 0 && change_decode (&d, buf, n) < 0, "refused: a change that is none");
  c.kind = CH_KIND_END;
  n = change_encode (&c, buf, CHANGE_ENCODED_MAX);
  ok (n > 0 && change_decode (&d, buf, n) < 0, "refused: an unknown change");
}

int
main (void)
{
  senseless ();
  creation ();
  majority ();
  appointments ();
  orders ();
  copies ();
  lifecycle ();
  bytes ();
  units ();
  return tap_done ();
}
