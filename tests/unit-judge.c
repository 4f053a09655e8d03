/* SPDX-License-Identifier: BSD-3-Clause */
/* May a store be opened (judge.h)?  All of many stores, records and questions against one sentence that says which
 * may be; each refusal by what is wrong alone; then the order of the steps, with an error and a late clock at
 * each; and what the open record says.
 */
#include "config.h"

#include <errno.h>

#include "common/judge.h"
#include "tests/tap.h"

static const uint8_t our_boot[CRG_ID_LEN] = { 1 }, old_boot[CRG_ID_LEN] = { 2 }, lineage[CRG_ID_LEN] = { 3 },
                     past[CRG_ID_LEN] = { 4 }, older[CRG_ID_LEN] = { 5 };

struct given {
  struct judge_ask ask;
  struct judge_found found;
  struct superblock sb;
};

/* Site 1 of three, all in the set, released in tenure 5: everybody may open it. */
static struct given
good (uint8_t role)
{
  struct given g = {
    .ask = { .role = role, .site = 1, .claims = true, .node = "b", .session = 77, .data_bytes = 1 << 20,
             .dirty_block_size = 65536, .tenure = 6, .generation = 10, .loss = 2, .since = 7, .in_set = 7 },
    .found = { .what = JUDGE_SUPERBLOCK, .store_bytes = 2 << 20 },
    .sb = { .site = 1, .role = SUPER_ROLE_MIRROR, .flags = SUPER_F_CLEAN, .store_bytes = 2 << 20, .data_bytes = 1 << 20,
            .dirty_block_size = 65536, .tenure = 5, .generation = 9, .since = 7, .open_node = "a" },
  };

  memcpy (g.ask.boot_id, our_boot, CRG_ID_LEN);
  memcpy (g.ask.lineage, lineage, CRG_ID_LEN);
  memcpy (g.ask.past[0], past, CRG_ID_LEN);
  memcpy (g.ask.past[1], older, CRG_ID_LEN);
  g.ask.past_generation[0] = g.ask.past_generation[1] = 9;
  memcpy (g.sb.lineage, lineage, CRG_ID_LEN);
  memcpy (g.sb.open_boot_id, old_boot, CRG_ID_LEN);
  return g;
}

/* What becomes of it, as the first reading says. */
static enum judge_refusal
verdict (struct given *g, struct judge *j)
{
  enum judge_act act = judge_begin (j, &g->ask);

  check (act == JUDGE_READ, "first it is read");
  act = judge_read (j, &g->found, &g->sb, 1000);
  check ((act == JUDGE_REFUSED) == (j->refusal != JUDGE_NOT_REFUSED), "a refusal without its reason");
  check (act == JUDGE_REFUSED || act == JUDGE_RESERVE || act == JUDGE_FORMAT, "act %d", act);
  return j->refusal;
}

/* ---- all of them -------------------------------------------------------------------------- */

struct facts {
  bool open, our_boot, our_node, unusable, fork, was_restarted, damaged;
  bool fenced, forced, accept_loss, in_set, others, known;
  uint8_t tenure, generation;
};

/* The rules in one sentence. */
static bool
may (uint8_t role, const struct facts *f)
{
  const bool foreign = f->open && !f->our_boot, restarted = f->damaged || f->was_restarted || foreign;
  const bool first = f->forced && f->tenure == 0; /* R4: of the store's tenure and the record's */

  if ((foreign && !f->our_node && !f->fenced) || f->tenure == 2) /* S1, R1 */
    return false;
  if (role == SUPER_ROLE_PRODUCTION)
    return !f->unusable && (first || (!f->fork && f->in_set && (f->generation == 1 || f->generation == 2) /* R4, R6 */
                                      && (!restarted || f->accept_loss                               /* S2 */
                                          || (!f->others && !f->was_restarted && !foreign))));
  return (!f->fork || f->known) && f->generation != 3 && !(role == SUPER_ROLE_DETACHED && f->unusable);
}

static void
all (void)
{
  static const uint64_t tenures[] = { 5, 6, 7 }, generations[] = { 6, 7, 10, 11 }; /* since 7, now 10 */
  unsigned n = 0, allowed = 0, bad = 0;

  for (uint8_t role = SUPER_ROLE_MIRROR; role <= SUPER_ROLE_DETACHED; role++)
    for (uint32_t bits = 0; bits < 1u << 13; bits++)
      for (uint8_t k = 0; k < ARRAY_SIZE (tenures) * ARRAY_SIZE (generations); k++) {
        const struct facts f = { bits & 1, bits & 2, bits & 4, bits & 8, bits & 16, bits & 32, bits & 64,
                                 bits & 128, bits & 256, bits & 512, bits & 1024, bits & 2048, bits & 4096,
                                 k / 4, k % 4 };
        struct given g = good (role);
        struct judge j;
        bool yes;

        g.sb.flags = (uint16_t) ((f.open ? SUPER_F_OPEN : SUPER_F_CLEAN) | (f.unusable ? SUPER_F_UNUSABLE : 0)
                                 | (f.fork ? SUPER_F_FORK : 0) | (f.was_restarted ? SUPER_F_RESTARTED : 0));
        memcpy (g.sb.open_boot_id, f.our_boot ? our_boot : old_boot, CRG_ID_LEN);
        memcpy (g.sb.open_node, f.our_node ? "b" : "a", 2);
        g.sb.tenure = tenures[f.tenure];
        g.sb.generation = generations[f.generation];
        g.found.damaged = f.damaged;
        g.found.fenced = f.fenced;
        g.ask.forced = f.forced;
        g.ask.accept_loss = f.accept_loss;
        g.ask.in_set = (f.in_set ? 2u : 0) | (f.others ? 5u : 0);
        g.ask.fork = f.known ? 2 : 5;
        yes = verdict (&g, &j) == JUDGE_NOT_REFUSED;
        n++;
        allowed += yes;
        bad += yes != may (role, &f);
        check (yes == may (role, &f), "role %u, case %#x, tenure %u, generation %u: %s", role, bits, f.tenure,
               f.generation, yes ? "it may be opened" : judge_code (j.refusal));
        check (!yes || j.restarted == (f.damaged || f.was_restarted || (f.open && !f.our_boot)), "R5: bits %x", bits);
        check (!yes || j.was_clean == (!f.open && !f.damaged), "clean: bits %x", bits);
      }
  ok (bad == 0 && allowed > n / 20 && allowed < n / 2, "%u cases are judged as the rules say; %u may open", n, allowed);
}

/* ---- each refusal ------------------------------------------------------------------------- */

static void
judged (struct given g, enum judge_refusal refusal, const char *code, const char *what)
{
  struct judge j;
  const enum judge_refusal r = verdict (&g, &j);

  ok (r == refusal && strcmp (judge_code (r), code) == 0, "%s: %s", what, r ? judge_code (r) : "it may be opened");
}

/* A good store, and what is changed in it. */
#define CASE(role, refusal, code, what, ...)                           \
  do {                                                                 \
    struct given g = good (SUPER_ROLE_##role);                         \
                                                                       \
    __VA_ARGS__;                                                       \
    judged (g, JUDGE_##refusal, code, what);                           \
  } while (0)

static void
each (void)
{
  CASE (MIRROR, NOT_REFUSED, "", "nothing is wrong: mirror", (void) g);
  CASE (PRODUCTION, NOT_REFUSED, "", "nothing is wrong: production", (void) g);
  CASE (DETACHED, NOT_REFUSED, "", "nothing is wrong: detached", (void) g);
  CASE (MIRROR, DAMAGED, "damaged", "superblocks that can't be used", g.found.what = JUDGE_UNREADABLE);
  CASE (MIRROR, OTHER_FILE, "identity", "another file's", g.found.what = JUDGE_OF_ANOTHER);
  CASE (MIRROR, OTHER_IASP, "identity", "another cluster's", g.sb.cluster_id[3] = 1);
  CASE (MIRROR, OTHER_IASP, "identity", "another CRG's", g.sb.crg_id[3] = 1);
  CASE (MIRROR, OTHER_IASP, "identity", "another IASP's", g.sb.iasp_id[3] = 1);
  CASE (MIRROR, OTHER_SITE, "identity", "of another site", g.sb.site = 0);
  CASE (MIRROR, OTHER_SHAPE, "identity", "for another size", g.sb.data_bytes++);
  CASE (MIRROR, OTHER_SHAPE, "identity", "with other dirty blocks", g.sb.dirty_block_size *= 2);
  CASE (MIRROR, RESIZED, "size", "cut off", g.found.store_bytes--);
  CASE (MIRROR, NOT_RELEASED, "not-released", "open elsewhere (S1)", g.sb.flags = SUPER_F_OPEN);
  CASE (MIRROR, NOT_REFUSED, "", "open elsewhere, by a machine that restarted and said so (S1 b)", g.sb.flags = SUPER_F_OPEN;
        memset (g.sb.open_boot_id, 0, CRG_ID_LEN));
  CASE (PRODUCTION, RESTARTED, "restarted", "... which makes it no less restarted (S2)", g.sb.flags = SUPER_F_OPEN;
        memset (g.sb.open_boot_id, 0, CRG_ID_LEN));
  CASE (MIRROR, FORK, "fork", "a fork (R6)", g.sb.flags |= SUPER_F_FORK);
  CASE (PRODUCTION, FORK, "fork", "a fork, to be production (R6)", g.sb.flags |= SUPER_F_FORK);
  CASE (MIRROR, NEWER_TENURE, "tenure", "newer in tenure (R1)", g.sb.tenure = 7);
  CASE (MIRROR, NEWER, "disagrees", "newer than the record (R6)", g.sb.generation = 11);
  CASE (MIRROR, NOT_REFUSED, "", "unusable, to be filled", g.sb.flags |= SUPER_F_UNUSABLE);
  CASE (DETACHED, NO_STATE, "unusable", "unusable, to be exported", g.sb.flags |= SUPER_F_UNUSABLE);
  CASE (PRODUCTION, NOT_IN_SET, "not-in-set", "not in the set (R4)", g.ask.in_set = 5);
  CASE (PRODUCTION, UNUSABLE, "unusable", "unusable (R4)", g.sb.flags |= SUPER_F_UNUSABLE);
  CASE (PRODUCTION, DISAGREES, "disagrees", "older than its place in the set (R6)", g.sb.generation = 6);
  CASE (PRODUCTION, DISAGREES, "disagrees", "newer than the record, as production (R6)", g.sb.generation = 11);
  CASE (PRODUCTION, RESTARTED, "restarted", "restarted (S2)", g.sb.flags |= SUPER_F_RESTARTED);
  for (unsigned r = 1; r < JUDGE_N_REFUSALS; r++)
    check (judge_code ((enum judge_refusal) r) && judge_code ((enum judge_refusal) r)[0], "refusal %u has no code", r);
}

static void
lineages (void)
{
  static const uint8_t *const of[] = { lineage, past, older };

  for (unsigned k = 0; k < ARRAY_SIZE (of) * 6; k++) {
    const unsigned n_past = k / 2 % 3;
    const bool in_set = k & 1, ours = k / 6 == 0 || (k / 6 <= n_past && in_set);
    struct given g = good (SUPER_ROLE_MIRROR);
    struct judge j;

    g.ask.n_past = (uint8_t) n_past;
    g.ask.in_set = in_set ? 7 : 5;
    memcpy (g.sb.lineage, of[k / 6], CRG_ID_LEN);
    check (verdict (&g, &j) == (ours ? JUDGE_NOT_REFUSED : JUDGE_OTHER_LINEAGE), "C9: lineage %u", k);
    check (memcmp (g.sb.lineage, ours ? lineage : of[k / 6], CRG_ID_LEN) == 0, "C9: lineage %u is changed", k);
  }
  ok (true, "C9: of the lineages before only what was in the set goes on");
  for (unsigned k = 0; k < 12; k++) {
    const bool production = k & 1, forced = k & 2, newer = k / 4 == 1, of_this = k / 4 == 2;
    struct given g = good (production ? SUPER_ROLE_PRODUCTION : SUPER_ROLE_MIRROR);
    const enum judge_refusal want = newer && !(production && forced) ? JUDGE_NEWER : JUDGE_NOT_REFUSED;
    struct judge j;

    g.ask.n_past = 2;
    g.ask.forced = forced;
    if (newer)
      g.ask.past_generation[1] = 8;
    memcpy (g.sb.lineage, of_this ? lineage : older, CRG_ID_LEN);
    check (verdict (&g, &j) == want, "C9, R6: a store of a past lineage, %u", k);
  }
  ok (true, "C9, R6: of a past lineage nothing is newer than what was known of it, though the record has got as far");
}

/* ---- new stores --------------------------------------------------------------------------- */

static void
new_stores (void)
{
  const struct judge_found made = { .what = JUDGE_FORMATTED };

  for (uint8_t role = SUPER_ROLE_MIRROR; role <= SUPER_ROLE_DETACHED; role++)
    for (unsigned used = 0; used < 3; used++) {
      struct given g = good (role);
      const bool production = role == SUPER_ROLE_PRODUCTION;
      enum judge_act act;
      struct judge j;

      g.found.what = JUDGE_NONE;
      g.ask.generation = used == 1 ? 2 : 1;
      g.ask.loss = used == 2;
      g.ask.since = 1;
      act = judge_begin (&j, &g.ask);
      act = judge_read (&j, &g.found, &g.sb, 0);
      if (production && used) {
        ok (act == JUDGE_REFUSED && j.refusal == JUDGE_USED_BEFORE, "empty, and there was a production: refused");
        continue;
      }
      check (act == JUDGE_FORMAT, "no superblock: it gets one");
      memset (&g.sb, 0, sizeof g.sb);
      g.sb.flags = SUPER_F_WRITTEN | SUPER_F_CLEAN;
      act = judge_read (&j, &made, &g.sb, 0);
      if (role == SUPER_ROLE_DETACHED) {
        check (act == JUDGE_REFUSED && j.refusal == JUDGE_NO_STATE, "a new store can't be exported");
        continue;
      }
      check (act == JUDGE_RESERVE && j.was_clean && !j.restarted, "it is as good as released");
      check (g.sb.flags == (production ? SUPER_F_WRITTEN : SUPER_F_WRITTEN | SUPER_F_UNUSABLE), "flags %x", g.sb.flags);
      check (g.sb.generation == (production ? 1 : 0) && g.sb.since == (production ? 1 : 0), "generation and since");
      act = judge_done (&j, 0, 0);
      ok (act == JUDGE_OPEN, "a new store has no claims: role %u", role);
      /* S1: the lease counts for a new one too. */
      g.ask.lease_until_ms = 50;
      judge_begin (&j, &g.ask);
      judge_read (&j, &made, &g.sb, 0);
      act = judge_done (&j, 0, 50);
      check (act == (production ? JUDGE_REFUSED : JUDGE_OPEN), "late before the first slot");
      judge_begin (&j, &g.ask);
      judge_read (&j, &made, &g.sb, 0);
      judge_done (&j, 0, 49);
      act = judge_record (&j, &g.sb, false, false);
      act = judge_done (&j, 0, 50);
      check (act == (production ? JUDGE_REFUSED : JUDGE_WRITE), "late after the first slot");
      judge_begin (&j, &g.ask);
      act = judge_read (&j, &(struct judge_found) { .what = JUDGE_NONE }, &g.sb, 0);
      act = judge_done (&j, -ENOSPC, 0);
      check (act == JUDGE_REFUSED && j.refusal == JUDGE_IO && j.error == -ENOSPC, "it can't be formatted");
    }
}

/* ---- the order ---------------------------------------------------------------------------- */

/* Each step, as it has to be; `fails` of them does, and `late` is the first at which the lease is over. */
static void
steps (uint8_t role, bool claims, unsigned fails, unsigned late)
{
  static const enum judge_act with[] = { JUDGE_READ, JUDGE_RESERVE, JUDGE_CLAIM, JUDGE_READ, JUDGE_OPEN,
                                         JUDGE_WRITE, JUDGE_WRITE, JUDGE_GIVE, JUDGE_OPENED };
  static const enum judge_act without[] = { JUDGE_READ, JUDGE_RESERVE, JUDGE_OPEN,
                                            JUDGE_WRITE, JUDGE_WRITE, JUDGE_OPENED };
  const enum judge_act *want = claims ? with : without;
  const unsigned open = claims ? 4 : 2, last = claims ? 7 : 4;
  const bool production = role == SUPER_ROLE_PRODUCTION;
  struct given g = good (role);
  enum judge_act act;
  struct judge j;
  unsigned n = 0, stopped = fails;
  bool held = false;

  g.ask.claims = claims;
  g.ask.lease_until_ms = 500;
  act = judge_begin (&j, &g.ask);
  /* The lease is looked at before the store is opened, and when the first slot is there. */
  if (production && late <= open - 1 && stopped > open - 1)
    stopped = open - 1;
  else if (production && late <= open + 1 && stopped > open + 1)
    stopped = open + 1;
  for (; act != JUDGE_OPENED && act != JUDGE_REFUSED && n < 20; n++) {
    const uint64_t now_ms = n >= late ? 500 : 499;
    const int error = n == fails ? -EIO : 0;

    if (n <= stopped)
      check (act == want[n], "claims %d, step %u: %d", claims, n, act);
    else
      check (act == JUDGE_GIVE && held, "claims %d, failed at %u, late %u: step %u is %d", claims, fails, late, n, act);
    check (j.claimed == held, "claimed, step %u", n);
    if (act == JUDGE_CLAIM && !error)
      held = true;
    if (act == JUDGE_GIVE)
      held = false;
    g.found.what = error ? JUDGE_UNREADABLE : JUDGE_SUPERBLOCK;
    act = act == JUDGE_READ   ? judge_read (&j, &g.found, &g.sb, now_ms)
          : act == JUDGE_OPEN ? error ? judge_end (&j) : judge_record (&j, &g.sb, false, false)
                              : judge_done (&j, error, now_ms);
  }
  check (!held && !j.claimed, "claims %d, failed at %u, late %u: the claim stands", claims, fails, late);
  check (act == (stopped <= last ? JUDGE_REFUSED : JUDGE_OPENED), "failed at %u, late %u: %d", fails, late, act);
  check ((act == JUDGE_REFUSED) == (j.refusal != JUDGE_NOT_REFUSED), "a refusal without a reason");
  if (act == JUDGE_REFUSED && stopped < fails)
    check (j.refusal == (stopped == open - 1 ? JUDGE_LATE : JUDGE_LATE_RECORD), "late: refusal %u", j.refusal);
  if (act == JUDGE_REFUSED && stopped == fails && want[fails] == JUDGE_RESERVE)
    check (j.refusal == JUDGE_RESERVED && j.error == -EIO, "the device can't be reserved");
  if (act == JUDGE_REFUSED && stopped == fails && (want[fails] == JUDGE_WRITE || want[fails] == JUDGE_GIVE))
    check (j.refusal == JUDGE_IO && j.error == -EIO, "it can't be written");
  if (act == JUDGE_OPENED)
    check (judge_end (&j) == JUDGE_REFUSED, "what is open is let go without a claim");
}

static void
order (void)
{
  struct given g = good (SUPER_ROLE_MIRROR), other;
  enum judge_act act;
  struct judge j;

  for (uint8_t role = SUPER_ROLE_MIRROR; role <= SUPER_ROLE_DETACHED; role++)
    for (unsigned claims = 0; claims < 2; claims++)
      for (unsigned fails = 0; fails < 10; fails++)
        for (unsigned late = 0; late < 10; late++)
          steps (role, claims, fails, late);
  ok (true, "the steps come in their order, with an error and a late clock at each");

  /* The claim. */
  judge_begin (&j, &g.ask);
  judge_read (&j, &g.found, &g.sb, 0);
  judge_done (&j, 0, 0);
  act = judge_done (&j, -EBUSY, 0);
  ok (act == JUDGE_REFUSED && j.refusal == JUDGE_CLAIMED, "S1: another node's claim; none of ours to give back");
  judge_begin (&j, &g.ask);
  judge_read (&j, &g.found, &g.sb, 0);
  judge_done (&j, 0, 0);
  act = judge_done (&j, -EIO, 0);
  ok (act == JUDGE_REFUSED && j.refusal == JUDGE_IO, "claims that can't be read");
  /* S1 d: who was fenced at the first reading, and who has come back since. */
  for (uint64_t session = 7; session <= 8; session++) {
    other = good (SUPER_ROLE_MIRROR);
    other.sb.flags = SUPER_F_OPEN;
    other.sb.open_session = 7;
    other.found.fenced = true;
    judge_begin (&j, &g.ask);
    judge_read (&j, &other.found, &other.sb, 0);
    judge_done (&j, 0, 0);
    judge_done (&j, 0, 0);
    other.sb.open_session = session;
    act = judge_read (&j, &other.found, &other.sb, 0);
    ok (act == (session == 7 ? JUDGE_OPEN : JUDGE_GIVE), "S1 d: open by a node that is marked failed, %s",
        session == 7 ? "as before" : "which has come back");
  }
  /* What it is with the claim. */
  for (unsigned i = 0; i < 4; i++) {
    static const uint8_t refusal[] = { JUDGE_NOT_RELEASED, JUDGE_ANEW, JUDGE_ANEW, JUDGE_OTHER_FILE };

    other = good (SUPER_ROLE_MIRROR);
    judge_begin (&j, &g.ask);
    judge_read (&j, &g.found, &g.sb, 0);
    judge_done (&j, 0, 0);
    judge_done (&j, 0, 0);
    other.sb.flags = i == 0 ? SUPER_F_OPEN : SUPER_F_CLEAN;
    other.sb.store_id[0] = i == 1;
    other.found.what = i == 2 ? JUDGE_NONE : i == 3 ? JUDGE_OF_ANOTHER : JUDGE_SUPERBLOCK;
    act = judge_read (&j, &other.found, &other.sb, 0);
    check (act == JUDGE_GIVE, "S1: %u: the claim is given back", i);
    act = judge_done (&j, i == 3 ? -EIO : 0, 0);
    ok (act == JUDGE_REFUSED && j.refusal == refusal[i], "S1: with the claim it is judged again: %s",
        judge_code (j.refusal));
  }
}

/* ---- the open record ---------------------------------------------------------------------- */

static enum judge_act
to_open (struct judge *j, struct given *g)
{
  g->ask.claims = false;
  judge_begin (j, &g->ask);
  judge_read (j, &g->found, &g->sb, 0);
  return judge_done (j, 0, 0);
}

static void
record (void)
{
  const uint16_t keep = SUPER_F_FILLING | SUPER_F_EXTERNAL | SUPER_F_WRITTEN;

  for (unsigned k = 0; k < 2 * 2 * 2 * 3; k++) {
    const bool direct = k & 1, maps = k & 2, restarted = k & 4;
    const uint8_t role = (uint8_t) (SUPER_ROLE_MIRROR + k / 8);
    const bool production = role == SUPER_ROLE_PRODUCTION, detached = role == SUPER_ROLE_DETACHED;
    struct given g = good (role);
    struct judge j;
    uint16_t want;

    g.ask.accept_loss = true;
    g.sb.flags = (uint16_t) (SUPER_F_CLEAN | keep | (restarted ? SUPER_F_RESTARTED : 0));
    check (to_open (&j, &g) == JUDGE_OPEN, "it may be opened");
    check (judge_record (&j, &g.sb, direct, maps) == JUDGE_WRITE, "then it is written");
    want = (uint16_t) (keep | SUPER_F_OPEN | (direct ? SUPER_F_DIRECT : 0)
                       | (restarted && !production ? SUPER_F_RESTARTED : 0)
                       | (detached ? SUPER_F_FORK | (maps ? SUPER_F_TRACKED : 0) : 0));
    ok (g.sb.flags == want && g.sb.role == role, "role %u: flags %#x, want %#x (S1, R5, R6)", role, g.sb.flags, want);
    check (g.sb.tenure == (detached ? 5 : 6), "R1: tenure");
    check (g.sb.generation == (production ? 10 : 9) && g.sb.since == 7, "R2: generation");
    check (g.sb.in_set == 7 && g.sb.loss == 2, "set and loss");
    check (strcmp (g.sb.open_node, "b") == 0 && memcmp (g.sb.open_boot_id, our_boot, CRG_ID_LEN) == 0
             && g.sb.open_session == 77, "who has it open");
  }
  for (unsigned k = 0; k < 4; k++) {
    struct given g = good (k < 2 ? SUPER_ROLE_DETACHED : SUPER_ROLE_PRODUCTION);
    struct judge j;

    /* A fork that was written to while it had no maps stays so. */
    g.sb.role = SUPER_ROLE_DETACHED;
    g.sb.flags = (uint16_t) (SUPER_F_CLEAN | SUPER_F_FORK | (k & 1 ? SUPER_F_TRACKED : 0));
    g.ask.fork = 2;
    g.ask.forced = true;
    check (to_open (&j, &g) == JUDGE_OPEN, "a fork is opened");
    judge_record (&j, &g.sb, false, true);
    ok ((g.sb.flags & (SUPER_F_FORK | SUPER_F_TRACKED)) == (k < 2 ? SUPER_F_FORK | (k & 1 ? SUPER_F_TRACKED : 0) : 0),
        k < 2 ? "R6: it stays a fork, and no more tracked than it was" : "R4: forced production ends the fork");
  }
}

/* ---- promotion, and the start ------------------------------------------------------------- */

static void
promote (void)
{
  static const struct {
    uint16_t flags;
    uint64_t tenure;
    uint32_t in_set;
    bool accept;
    uint8_t refusal;
    const char *what;
  } cases[] = {
    { 0, 5, 7, false, JUDGE_NOT_REFUSED, "a copy of the set" },
    { 0, 7, 7, false, JUDGE_NEWER_TENURE, "R1: of a newer tenure" },
    { 0, 5, 5, false, JUDGE_NOT_IN_SET, "R4: not of the set" },
    { SUPER_F_UNUSABLE, 5, 7, false, JUDGE_UNUSABLE, "R4: being filled" },
    { SUPER_F_RESTARTED, 5, 7, false, JUDGE_RESTARTED, "S2: restarted, and not filled since" },
    { SUPER_F_RESTARTED, 5, 7, true, JUDGE_NOT_REFUSED, "S2 b: and loss is accepted" },
    { SUPER_F_RESTARTED, 5, 2, false, JUDGE_RESTARTED, "S2: and no other copy is in the set" },
    { SUPER_F_RESTARTED, 5, 2, true, JUDGE_NOT_REFUSED, "S2 b: ... and loss is accepted" },
  };

  for (unsigned i = 0; i < ARRAY_SIZE (cases); i++) {
    struct given g = good (SUPER_ROLE_PRODUCTION);
    enum judge_act act;
    struct judge j;

    g.sb.flags = (uint16_t) (cases[i].flags | SUPER_F_OPEN);
    g.sb.tenure = cases[i].tenure;
    g.ask.in_set = cases[i].in_set;
    g.ask.accept_loss = cases[i].accept;
    act = judge_promote (&j, &g.ask, &g.sb);
    ok (j.refusal == cases[i].refusal && act == (cases[i].refusal ? JUDGE_REFUSED : JUDGE_OPEN), "promoted: %s",
        cases[i].what);
    check (!j.was_clean && j.restarted == ((cases[i].flags & SUPER_F_RESTARTED) != 0), "R5: by its superblock alone");
    if (act == JUDGE_OPEN) {
      check (judge_record (&j, &g.sb, false, true) == JUDGE_WRITE && judge_done (&j, 0, 0) == JUDGE_WRITE
               && judge_done (&j, 0, 0) == JUDGE_OPENED, "both slots, and no claim");
    }
  }
}

static void
starts (void)
{
  for (unsigned k = 0; k < 32; k++) {
    const bool forced = k & 1, older_tenure = k & 2, clean = k & 4, far = k & 8, mirror = k & 16;
    struct given g = good (SUPER_ROLE_PRODUCTION);
    struct judge_start s;
    struct judge j;
    bool equal;

    g.ask.forced = forced;
    g.ask.in_set = 2;
    g.ask.tenure = far ? 8 : older_tenure ? 6 : 5;
    g.sb.role = mirror ? SUPER_ROLE_MIRROR : SUPER_ROLE_PRODUCTION;
    g.sb.flags = clean ? SUPER_F_CLEAN : SUPER_F_OPEN;
    memcpy (g.sb.open_boot_id, our_boot, CRG_ID_LEN);
    check (to_open (&j, &g) == JUDGE_OPEN, "it may be opened");
    s = judge_starts (&j, &g.sb);
    equal = !mirror && clean && !far;
    check (s.forced == (forced && g.ask.tenure > 5), "R4: %u", k);
    check (s.equal == equal, "F6: %u", k);
    check (s.again == (!equal && !mirror), "again: %u", k);
  }
  ok (true, "production begins equal, again and forced as it should (F6, R4)");
}

int
main (void)
{
  all ();
  each ();
  lineages ();
  new_stores ();
  order ();
  record ();
  promote ();
  starts ();
  return tap_done ();
}
